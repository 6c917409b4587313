# /test of drivers.py: devices that only Debian's full kernel has drivers for, and what users rarely ask of the others.
B=/bin/busybox
check() { if [ "$2" = "$3" ]; then echo "ok $1"; else echo "FAILED $1: '$2', not '$3'"; fi; }
for m in i2c-smbus i2c-piix4 floppy fat vfat nls_cp437 nls_ascii scsi_common scsi_mod libata ata_piix cdrom sr_mod isofs pcspkr; do
    [ ! -e /modules/$m.ko ] || $B insmod /modules/$m.ko || echo "FAILED insmod $m"
done
check "SMBus" "$(cat /sys/bus/i2c/devices/i2c-0/name)" "SMBus PIIX4 adapter at 0700"

mkdir /mnt
mount -t vfat /dev/fd0 /mnt
check "1.44 MB: a file" "$(cat /mnt/hello.txt)" "a word on 1440"
dd if=/dev/urandom of=/mnt/random bs=1k count=200 2>/dev/null
want=$(sha256sum </mnt/random)
umount /mnt
echo 3 >/proc/sys/vm/drop_caches
mount -t vfat /dev/fd0 /mnt
check "1.44 MB: what was written" "$(sha256sum </mnt/random)" "$want"
umount /mnt
mount -t vfat -o ro /dev/fd1 /mnt
check "720 KB: a file" "$(cat /mnt/hello.txt)" "a word on 720"
umount /mnt
check "720 KB: its size is found" "$(cat /sys/block/fd1/size)" 1440
echo x 2>/dev/null >/dev/fd1
check "720 KB: write-protected" "$(mount -t vfat -o rw /dev/fd1 /mnt 2>/dev/null; touch /mnt/new 2>/dev/null && echo written)" ""

# sr0, the primary master, is empty; sr1 has a disc. The kernel does not close trays of its own accord.
for i in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/sr1 ] && break; sleep 1; done
echo 0 >/proc/sys/dev/cdrom/autoclose
check "CD, empty: what the drive says" "$(/ioctls cdrom /dev/sr0 status)" "no disc"
check "CD, empty: mounting" "$(mount -t iso9660 -o ro /dev/sr0 /mnt 2>&1)" "mount: mounting /dev/sr0 on /mnt failed: No medium found"
mount -t iso9660 -o ro /dev/sr1 /mnt
want=$(sha256sum </mnt/data)
check "CD: a file" "$(wc -c </mnt/data)" 300000
/ioctls cdrom /dev/sr1 eject >/dev/null
check "CD: mounted, it is locked" "$(/ioctls cdrom /dev/sr1 status)" "disc"
umount /mnt
check "CD: ejecting" "$(/ioctls cdrom /dev/sr1 eject), $(/ioctls cdrom /dev/sr1 status)" "0, tray open"
check "CD: an open tray" "$(mount -t iso9660 -o ro /dev/sr1 /mnt 2>&1)" "mount: mounting /dev/sr1 on /mnt failed: No medium found"
check "CD: closing" "$(/ioctls cdrom /dev/sr1 close), $(/ioctls cdrom /dev/sr1 status)" "0, disc"
check "CD: it may be another" "$(/ioctls cdrom /dev/sr1 changed), $(/ioctls cdrom /dev/sr1 changed)" "1, 0"
mount -t iso9660 -o ro /dev/sr1 /mnt
check "CD: the file again" "$(sha256sum </mnt/data)" "$want"
umount /mnt

check "speaker" "$(/ioctls speaker 440)" "on, counts from what was set, both levels, off"

date -u -s "2024-02-28 12:00:00" >/dev/null
$B hwclock -w -u
check "clock: setting" "$(cat /sys/class/rtc/rtc0/date)" 2024-02-28
date -u -s "2024-02-28 23:59:58" >/dev/null
$B hwclock -w -u
check "clock: update interrupts" "$(/ioctls rtc update 2)" update
check "clock: periodic interrupts" "$(/ioctls rtc periodic 64 8)" periodic
check "clock: alarm" "$(/ioctls rtc alarm 1)" alarm
check "clock: a leap day" "$(cat /sys/class/rtc/rtc0/date)" 2024-02-29
echo +5 >/sys/class/rtc/rtc0/wakealarm
echo freeze >/sys/power/state
check "clock: it wakes" "$($B awk '{print $1}' /sys/firmware/acpi/interrupts/ff_rt_clk)" 1

check "serial: chip and loopback" "$(/ioctls serial /dev/ttyS1)" "16550A, CTS, DSR, RI, CD, "
check "serial: trigger levels" "$(cd /sys/class/tty/ttyS1; for n in 1 4 8 14; do echo $n >rx_trig_bytes; cat rx_trig_bytes; done | xargs)" "1 4 8 14"
dmesg -n 1
check "serial: all came back" "$(/ioctls echo /dev/ttyS0 102400)" ""
check "serial: nothing overran" "$(sed -n '/^0:/s/.*\(rx:.*\) RTS.*/\1/p' /proc/tty/driver/serial)" "rx:102400"
echo "guest test finished"
