#!/usr/bin/env python3
"""Use floppies and the SMBus with the drivers of Debian's full kernel.

    drivers.py --trivisor EXE --kernel FILE --busybox FILE --modules DIR [--mode M]
"""
import argparse
import os
import subprocess
import sys
import tempfile

import media

CHECKS = 6


def make_floppy(path, kib):
    with open(path, "wb") as f:
        f.truncate(kib << 10)
    subprocess.run(["mformat", "-i", path, "-f", str(kib), "::"], check=True)
    subprocess.run(["mcopy", "-i", path, "-", "::hello.txt"], input=b"a word on %d\n" % kib, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("trivisor", "kernel", "busybox", "modules"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--mode", default="auto")
    args = parser.parse_args()
    media.need(args.kernel, args.busybox, args.modules, "/usr/bin/mformat")
    with tempfile.TemporaryDirectory() as directory:
        initrd = media.initramfs(args.busybox, os.path.join(directory, "initrd.gz"), os.path.join(media.HERE, "drivers.sh"),
                                 modules=args.modules)
        floppies = [os.path.join(directory, name) for name in ("a.img", "b.img")]
        make_floppy(floppies[0], 1440)
        make_floppy(floppies[1], 720)
        command = [args.trivisor, "run", "--mode", args.mode, "--memory", "256M", "--no-reboot", "--kernel", args.kernel,
                   "--initrd", initrd, "--append", "console=ttyS0 quiet panic=-1 trivisor=test",
                   "--floppy", floppies[0], "--floppy", floppies[1] + ",ro"]
        run = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=140)
    sys.exit(media.verdict(run, CHECKS))


if __name__ == "__main__":
    main()
