# /test of mouse.py: for each protocol in trivisor.mice= it loads psmouse, names the devices that came of it, and shows their
# events, twelve numbers each, until a line comes on the console.
insmod /modules/evdev.ko || echo "FAILED insmod evdev"
for proto in $(sed 's/.*trivisor.mice=\([a-z,]*\).*/\1/; s/,/ /g' /proc/cmdline); do
    insmod /modules/psmouse.ko proto="$proto" || echo "FAILED insmod psmouse"
    n=0
    until [ -e /sys/bus/serio/devices/serio1/protocol ] || [ $n -eq 60 ]; do
        sleep 1
        n=$((n + 1))
    done
    for event in /sys/class/input/event*; do
        name=$(cat "$event/device/name")
        case $name in
        *PS/2*)
            echo "$proto: $name, $(cat "$event/device/capabilities/abs")"
            dd bs=24 if="/dev/input/${event##*/}" 2>/dev/null | od -A n -v -t u2 -w24 &
            ;;
        esac
    done
    echo "ready $proto"
    read -r line
    rmmod psmouse # which ends the readers
    wait
done
complaints=$(dmesg | grep -E 'BUG|WARNING|psmouse.*(lost|bad|fail|error)|Call Trace')
[ -z "$complaints" ] || echo "FAILED dmesg: $complaints"
echo "guest test finished"
