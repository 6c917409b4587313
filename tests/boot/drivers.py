#!/usr/bin/env python3
"""Use floppies and the SMBus with the drivers of Debian's full kernel.

    drivers.py --trivisor EXE --kernel FILE --busybox FILE --modules DIR [--mode M]
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
MKINITRAMFS = os.path.join(HERE, "..", "..", "tools", "mkinitramfs.py")
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
    for path in (args.kernel, args.busybox, args.modules):
        if not os.path.exists(path):
            print(f"skipped: {path} is missing; tools/fetch-guests gets it")
            return 77
    if not shutil.which("mformat"):
        print("skipped: no mformat; tools/setup installs it")
        return 77
    with tempfile.TemporaryDirectory() as directory:
        initrd = os.path.join(directory, "initrd.gz")
        files = ["/init=" + os.path.join(HERE, "init"), "/test=" + os.path.join(HERE, "drivers.sh")]
        files += [f"/modules/{m}={os.path.join(args.modules, m)}" for m in sorted(os.listdir(args.modules))]
        subprocess.run([sys.executable, MKINITRAMFS, "--busybox", args.busybox, "--output", initrd]
                       + [word for f in files for word in ("--add", f)], check=True)
        floppies = [os.path.join(directory, name) for name in ("a.img", "b.img")]
        make_floppy(floppies[0], 1440)
        make_floppy(floppies[1], 720)
        command = [args.trivisor, "run", "--mode", args.mode, "--memory", "256M", "--no-reboot", "--kernel", args.kernel,
                   "--initrd", initrd, "--append", "console=ttyS0 quiet panic=-1 trivisor=test",
                   "--floppy", floppies[0], "--floppy", floppies[1] + ",ro"]
        run = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=140)
    text = run.stdout.decode(errors="replace")
    lines = text.splitlines()
    passed = sum(line.startswith("ok ") for line in lines)
    if run.returncode or passed != CHECKS or any(line.startswith("FAILED ") for line in lines):
        print(text)
        print(f"problem: exit status {run.returncode}, {passed} of {CHECKS} checks passed")
        return 1
    print(f"passed: {passed} checks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
