#!/bin/sh
# systemd's networkd, as its unit starts it.
mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
chown -R systemd-network:systemd-network /run/systemd/netif
/usr/lib/systemd/systemd-networkd >/run/networkd.log 2>&1 &
