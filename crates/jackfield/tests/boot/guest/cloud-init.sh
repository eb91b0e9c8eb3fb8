#!/bin/sh
# cloud-init's first stage, before the network: it reads the seed, names interfaces and writes what
# networkd reads.
python3 -m cloudinit.cmd.main init --local >/run/cloud-init.log 2>&1
# For whoever reads of a failure.
tail -n +1 /etc/systemd/network/* >/run/cloud-init-wrote.log
