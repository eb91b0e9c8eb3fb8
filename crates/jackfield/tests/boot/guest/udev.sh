#!/bin/sh
# systemd's udevd, which names interfaces.
/usr/lib/systemd/systemd-udevd --daemon >/run/udevd.log 2>&1
udevadm trigger --action=add --subsystem-match=net
udevadm settle
