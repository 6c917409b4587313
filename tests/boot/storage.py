#!/usr/bin/env python3
"""Write, flush, read back and discard on a virtio and a PVSCSI disk with Debian's own drivers.

    storage.py --trivisor EXE --kernel FILE --busybox FILE --modules DIR [--mode M]
"""
import argparse
import os
import subprocess
import sys
import tempfile

import media

DISK_SIZE = 64 << 20
CHECKS = 18


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("trivisor", "kernel", "busybox", "modules"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--mode", default="auto")
    args = parser.parse_args()
    media.need(args.kernel, args.busybox, args.modules)
    with tempfile.TemporaryDirectory() as directory:
        initrd = media.initramfs(args.busybox, os.path.join(directory, "initrd.gz"), os.path.join(media.HERE, "storage.sh"),
                                 modules=args.modules)
        command = [args.trivisor, "run", "--mode", args.mode, "--memory", "256M", "--cpus", "2", "--no-reboot",
                   "--kernel", args.kernel, "--initrd", initrd,
                   "--append", "console=ttyS0 quiet panic=-1 trivisor=test trivisor.disks=vda,sda"]
        for interface in ("virtio", "pvscsi"):
            image = os.path.join(directory, interface + ".img")
            with open(image, "wb") as f:
                f.truncate(DISK_SIZE)
            command += ["--disk", f"{image},if={interface}"]
        run = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=280)
    sys.exit(media.verdict(run, CHECKS))


if __name__ == "__main__":
    main()
