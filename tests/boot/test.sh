# What the boot tests and the demo's self-test run in the guest. Each check prints "ok NAME" or
# "FAILED NAME: what"; the host judges these lines and times "clock start" against "clock end".
fail() { echo "FAILED $1: $2"; }
expect() { # NAME WANTED GOT
    if [ "$2" = "$3" ]; then echo "ok $1"; else fail "$1" "want '$2', got '$3'"; fi
}

# Processes and pipes
n=0
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    (exit "$i") || [ $? -eq "$i" ] && n=$((n + 1))
done
expect processes 20 $n
expect pipe 5050 "$(seq 1 100 | awk '{ s += $1 } END { print s }')"
expect pipeline 3 "$(printf 'b\na\nb\nc\n' | sort -u | wc -l | tr -d ' ')"
mkfifo /tmp/fifo
(cat /tmp/fifo >/tmp/fifo.out) &
echo through >/tmp/fifo
wait
expect fifo through "$(cat /tmp/fifo.out)"

# Signals
got=
trap 'got=usr1' USR1
kill -USR1 $$
expect signal usr1 "$got"
sleep 1000 &
kill -TERM $!
wait $!
expect kill 143 $?

# Floating point
# square root of 2 by Newton's method, pi by Machin's formula
expect float "1.414213562 3.141592654" "$(awk 'function arctan(x,  s, t, k) {
    for (t = x; k < 30; k++) { s += (k % 2 ? -t : t) / (2 * k + 1); t *= x * x }
    return s
}
BEGIN {
    for (r = 1; i < 20; i++) r = (r + 2 / r) / 2
    printf "%.9f %.9f", r, 4 * (4 * arctan(1 / 5) - arctan(1 / 239))
}')"
expect float-sum 100005000.000 "$(awk 'BEGIN { for (i = 1; i <= 20000; i++) s += i * 0.5; printf "%.3f", s }')"

# Memory and files
dd if=/dev/zero of=/tmp/zero bs=64k count=64 2>/dev/null
expect hash bb9f8df61474d25e71fa00722318cd387396ca1736605e1248821cc0de3d3af8 "$(sha256sum /tmp/zero | cut -c1-64)"
rm -f /tmp/zero

# Interrupts advance
timer_interrupts() {
    awk '/timer|LOC:/ { for (i = 2; i <= NF; i++) if ($i ~ /^[0-9]+$/) s += $i } END { print s + 0 }' /proc/interrupts
}
before=$(timer_interrupts)
sleep 1
after=$(timer_interrupts)
if [ "$after" -gt "$before" ]; then echo "ok interrupts"; else fail interrupts "$before then $after"; fi

# All CPUs are there and run
cpus=$(grep -c ^processor /proc/cpuinfo)
wanted=$(sed -n 's/.*trivisor.cpus=\([0-9]*\).*/\1/p' /proc/cmdline)
[ -z "$wanted" ] || expect cpus "$wanted" "$cpus"

# Kernel complaints
complaints=$(dmesg | grep -v -e 'ommand line:' -e 'stall warnings suppressed' | grep -E 'BUG|WARNING|Oops|unstable|ACPI (Error|Warning|BIOS Error)|Call Trace|soft lockup|rcu.*stall|skewed|NMI received' | head -5)
if [ -z "$complaints" ]; then echo "ok dmesg"; else fail dmesg "$complaints"; fi
echo "clocksource: $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource 2>/dev/null)"

# The clock's rate: the host times these lines. No process starts between reading the clock and printing it. Any line can be
# late, so there are several.
seconds=$(sed -n 's/.*trivisor.clock=\([0-9]*\).*/\1/p' /proc/cmdline)
clock() {
    for mark in 1 2 3 4 5; do
        read -r up _ </proc/uptime
        echo "clock $1 $up"
    done
}
clock start
sleep "${seconds:-1}"
clock end
echo "guest test finished"
