# /test of drivers.py: devices that only Debian's full kernel has drivers for.
B=/bin/busybox
check() { if [ "$2" = "$3" ]; then echo "ok $1"; else echo "FAILED $1: '$2', not '$3'"; fi; }
for m in i2c-smbus i2c-piix4 floppy fat vfat nls_cp437 nls_ascii; do
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
echo "guest test finished"
