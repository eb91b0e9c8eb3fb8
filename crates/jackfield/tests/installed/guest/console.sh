#!/bin/sh
# Runs each line that comes by the second serial line. What it prints goes back with "> " before each line,
# and its status after "= ".
exec </dev/ttyS1 >/dev/ttyS1 2>&1
stty raw -echo
echo "= ready"
while read -r line; do
    printed=$(sh -c "$line" 2>&1 </dev/null)
    status=$?
    printf '%s\n' "$printed" | sed 's/^/> /'
    echo "= $status"
done
