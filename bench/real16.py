#!/usr/bin/env python3
"""Real-mode code in Trivisor and in QEMU's TCG, with the same BIOS.

    real16.py [--mode MODE] [--options OPTIONS] [--skip-qemu] BUILD-DIR

Prints for each workload of bench/real/real16.S how long it takes, and how many times faster than TCG Trivisor is.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time

NAMES = {"s": "sieve", "m": "sum", "r": "recursive", "l": "letters", "c": "rep movsw", "b": "BIOS calls"}
SIZE = 1440 << 10


def times(command, limit=120):
    """Seconds of each workload, by its letter."""
    found = {}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        started, before = False, time.monotonic()
        end = before + limit
        while time.monotonic() < end:
            letter = process.stdout.read(1).decode(errors="replace")
            now = time.monotonic()
            if not letter or (started and letter == "!"):
                break
            if started and letter in NAMES:
                found[letter] = now - before
            started |= letter == "."
            before = now
        process.kill()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build")
    parser.add_argument("--mode", default="bt")
    parser.add_argument("--options", default="", help="more options for trivisor run")
    parser.add_argument("--skip-qemu", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        floppy = os.path.join(directory, "real16.img")
        with open(os.path.join(args.build, "bench", "real", "real16.bin"), "rb") as sector, open(floppy, "wb") as image:
            image.write(sector.read())
            image.truncate(SIZE)
        ours = times([os.path.join(args.build, "src", "cli", "trivisor"), "run", "--mode", args.mode, "--memory", "64M",
                      "--floppy", floppy, "--boot", "a", "--serial", "stdio", *args.options.split()])
        theirs = {} if args.skip_qemu else times([
            "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "64", "-nographic", "-nodefaults", "-serial", "stdio",
            "-drive", f"file={floppy},if=floppy,format=raw", "-boot", "a"])
    print(f"{'':12}{args.mode:>10}{'TCG':>10}{'faster':>10}")
    for letter, name in NAMES.items():
        mine, other = ours.get(letter), theirs.get(letter)
        print(f"{name:12}{f'{mine * 1000:.0f} ms' if mine else '-':>10}{f'{other * 1000:.0f} ms' if other else '-':>10}"
              f"{f'{other / mine:.2f}' if mine and other else '-':>10}")
    return 0 if len(ours) == len(NAMES) else 1


if __name__ == "__main__":
    sys.exit(main())
