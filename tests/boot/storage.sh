# /test of storage.py: disks under stock drivers. Each of trivisor.disks=... is written, read back, discarded.
B=/bin/busybox
check() { if [ "$2" = "$3" ]; then echo "ok $1"; else echo "FAILED $1: '$2', not '$3'"; fi; }
for m in scsi_common scsi_mod sd_mod virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk virtio-rng vmw_pvscsi; do
    $B insmod /modules/$m.ko || echo "FAILED insmod $m"
done
sleep 1
for disk in $(sed -n 's/.*trivisor.disks=\([^ ]*\).*/\1/p' /proc/cmdline | tr , ' '); do
    for i in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/$disk ] && break; sleep 1; done
    check "$disk is there" "$([ -b /dev/$disk ] && echo yes)" yes
    check "$disk size" "$(cat /sys/block/$disk/size)" 131072
    check "$disk can discard" "$([ "$(cat /sys/block/$disk/queue/discard_max_bytes)" -gt 0 ] && echo yes)" yes
    check "$disk caches" "$(cat /sys/block/$disk/queue/write_cache)" "write back"
    dd if=/dev/urandom of=/tmp/pattern bs=1M count=8 2>/dev/null
    dd if=/tmp/pattern of=/dev/$disk bs=64k seek=16 conv=fsync 2>/dev/null
    echo 3 >/proc/sys/vm/drop_caches
    want=$(sha256sum </tmp/pattern)
    check "$disk reads what was written" "$(dd if=/dev/$disk bs=64k skip=16 count=128 2>/dev/null | sha256sum)" "$want"
    dd if=/tmp/pattern of=/dev/$disk bs=4k seek=8192 count=512 oflag=direct 2>/dev/null
    check "$disk direct" "$(dd if=/dev/$disk bs=4k skip=8192 count=512 iflag=direct 2>/dev/null | sha256sum)" "$(head -c 2097152 /tmp/pattern | sha256sum)"
    $B blkdiscard -o 33554432 -l 1048576 /dev/$disk
    check "$disk discard" "$($B dd if=/dev/$disk bs=4k skip=8192 count=256 iflag=direct 2>/dev/null | tr -d '\000' | wc -c)" 0
    dd if=/dev/$disk of=/dev/null bs=512 skip=131072 count=1 2>/dev/null
    dd if=/dev/$disk of=/dev/null bs=1M 2>/dev/null && echo "ok $disk reads to its end"
done
check "vda has a queue for each CPU" "$(ls /sys/block/vda/mq | wc -l)" "$(nproc)"
check "entropy" "$(cat /sys/class/misc/hw_random/rng_current 2>/dev/null)" "virtio_rng.0"
cat /proc/interrupts | grep -E "virtio|pvscsi" 
dmesg | grep -iE "error|abort|fail|timeout" | grep -vi "firmware\|sgx" | head
echo "guest test finished"
