# Every file with its kind, owner, mode and size; in /etc with what it says; units, and what is left in /run.
# Without logs, caches, dpkg's records, and what systemd keeps of the times at which it did something.
find / -xdev \( -path /var/log -o -path /var/cache -o -path /tmp -o -path /var/tmp \
    -o -path /var/lib/dpkg -o -path /var/lib/systemd/timers -o -path /var/lib/systemd/random-seed \
    -o -path '/etc/*-' \) -prune \
    -o -type d -printf '%p %M %u:%g\n' -o -printf '%p %M %u:%g %s %l\n'
find /etc -xdev -type f ! -name '*-' -exec sha256sum {} +
find /var/lib/dpkg/info /var/lib/dpkg/alternatives
find /run -name '*jackfield*'
dpkg --list jackfield 2>/dev/null || true
systemctl list-unit-files --no-legend --no-pager
