#!/usr/bin/env python3
"""Run the stress program in a guest: changing code, forks, signals and changing address spaces, each checking itself.

    stress.py --trivisor EXE --kernel FILE --busybox FILE --program FILE [--seconds N] [--cpus N] [--mode M] [-- OPTION...]
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trivisor", required=True)
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--busybox", required=True)
    parser.add_argument("--program", required=True)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--only", default="", help="parts, separated by commas")
    parser.add_argument("--mode", default="bt")
    parser.add_argument("--expect", default="", help="a regular expression that the output must have, with --stats for one")
    parser.add_argument("extra", nargs="*", help="more options for trivisor run, after --")
    args = parser.parse_args()
    for path in (args.kernel, args.busybox):
        if not os.path.exists(path):
            print(f"skipped: {path} is missing; tools/fetch-guests gets it")
            sys.exit(77)
    with tempfile.TemporaryDirectory() as directory:
        initrd = os.path.join(directory, "initrd.gz")
        subprocess.run([sys.executable, os.path.join(HERE, "..", "..", "tools", "mkinitramfs.py"), "--busybox", args.busybox,
                        "--output", initrd, "--add", "/init=" + os.path.join(HERE, "init"),
                        "--add", "/stress=" + args.program], check=True)
        command = [args.trivisor, "run", "--quiet", "--mode", args.mode, "--memory", "512M", "--cpus", str(args.cpus), "--no-reboot",
                   "--kernel", args.kernel, "--initrd", initrd,
                   "--append", f"console=ttyS0 quiet panic=-1 stress={args.seconds}{',' if args.only else ''}{args.only}"] + args.extra
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, timeout=300 + 3 * args.seconds)
        except subprocess.TimeoutExpired as e:
            print((e.stdout or b"").decode(errors="replace"))
            sys.exit("failed: the guest hangs")
    text = done.stdout.decode(errors="replace")
    print(text)
    lines = text.splitlines()
    bad = [line for line in lines if line.startswith(("FAILED", "KERNEL"))]
    if done.returncode or bad or "stress: passed" not in [line.rstrip() for line in lines]:
        sys.exit(f"failed: exit status {done.returncode}")
    if not re.search(args.expect, text):
        sys.exit(f"failed: no '{args.expect}' there")
    print("passed")


if __name__ == "__main__":
    main()
