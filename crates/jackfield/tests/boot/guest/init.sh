#!/bin/sh
# The guest's first process: does what it is asked on the console, a line a command, and answers with
# the command's output, each line behind "> ", and its status behind "= ".
export PATH=/usr/bin:/usr/sbin
# What is there already stays.
/bin/busybox --install -s /usr/bin 2>/dev/null
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
stty -F /dev/console raw -echo
# Nothing of the kernel's between the answers; what is started below writes to /run/*.log.
echo 1 >/proc/sys/kernel/printk
ip link set lo up

for script in /start/*; do
    [ -x "$script" ] && "$script"
done

echo '= ready'
while read -r command; do
    sh -c "$command" >/tmp/answer 2>&1 </dev/null
    status=$?
    sed 's/^/> /' /tmp/answer
    echo "= $status"
done
