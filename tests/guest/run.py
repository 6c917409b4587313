#!/usr/bin/env python3
"""Run one test guest and compare what it prints, byte for byte, and its exit status.

  run.py --trivisor build/src/cli/trivisor --mode interp build/tests/guest/tasks32 tests/guest/tasks32.expected
  run.py --qemu build/tests/guest/tasks32 tests/guest/tasks32.expected

QEMU is a second opinion, not the judge: where it is known to differ the head of the guest says so.
It never pushes RF for faults, so " rf" is not compared there.
"""
import argparse
import difflib
import json
import re
import resource
import subprocess
import sys
import time

SKIP = 77  # what meson takes as "skipped"


def command(args):
    if args.qemu:
        line = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "128", "-smp", str(args.cpus),
                "-kernel", args.image, "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04",
                "-device", "pvpanic", "-action", "panic=none", "-serial", "stdio", "-serial", "null", "-display", "none", "-no-reboot"]
    else:
        line = [args.trivisor, "run", "--quiet", "--kernel", args.image, "--memory", "128M", "--cpus", str(args.cpus),
                "--mode", args.mode, "--require", args.mode, "--debug-exit", "0xf4", "--serial", "stdio", "--no-reboot"]
        line += ["--verify"] if args.verify else []
        line += args.options.split()
    if args.append:
        line += ["-append" if args.qemu else "--append", args.append]
    if args.module:
        line += ["-initrd" if args.qemu else "--initrd", args.module]
    return line


def available(args):
    if args.mode == "interp":
        return True
    done = subprocess.run([args.trivisor, "modes", "--json"], stdout=subprocess.PIPE, check=True, timeout=30)
    return any(m["name"] == args.mode and m["available"] for m in json.loads(done.stdout)["modes"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trivisor")
    parser.add_argument("--qemu", action="store_true")
    parser.add_argument("--mode", default="interp")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--verify", action="store_true", help="compare the translator with the interpreter")
    parser.add_argument("--status", type=int, default=1, help="exit status of a good run")
    parser.add_argument("--idle", action="store_true", help="the guest sleeps: most of the time is nobody's")
    parser.add_argument("--timeout", type=float, default=60)
    parser.add_argument("--options", default="", help="more options for trivisor run")
    parser.add_argument("--append")
    parser.add_argument("--module")
    parser.add_argument("--write", action="store_true", help="make what comes out the expectation")
    parser.add_argument("image")
    parser.add_argument("expected")
    args = parser.parse_args()
    if not args.qemu and not available(args):
        print(f"mode {args.mode} is not available here")
        return SKIP

    start = time.monotonic()
    try:
        done = subprocess.run(command(args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=args.timeout)
        output, status, noise = done.stdout, done.returncode, done.stderr
    except subprocess.TimeoutExpired as e:
        output, status, noise = e.stdout or b"", None, e.stderr or b""
    took, used = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    text = output.decode("latin-1")
    if args.write:
        with open(args.expected, "w", encoding="latin-1", newline="") as f:
            f.write(text)
        print("exit status", status)
        return 0
    with open(args.expected, encoding="latin-1", newline="") as f:
        expected = f.read()
    wanted = args.status
    if args.qemu:
        wanted = 0 if wanted == 3 else wanted  # it ends with 0 for a reset
        text, expected = (re.sub(r"( \+-?\d+| ip=[0-9a-f]+) rf\b", r"\1", t) for t in (text, expected))

    good = True
    if text != expected:
        good = False
        sys.stdout.writelines(line if line.endswith("\n") else line + "\n<no newline>\n" for line in difflib.unified_diff(
            expected.splitlines(keepends=True), text.splitlines(keepends=True), args.expected, "output"))
    if status != wanted:
        good = False
        print("timed out" if status is None else f"exit status {status}", f"instead of {wanted}")
    busy = used.ru_utime + used.ru_stime
    if args.idle and busy > took / 2:
        good = False
        print(f"a guest that sleeps took {busy:.2f} s of {took:.2f}")
    if b"runtime error" in noise or b"Sanitizer" in noise:
        good = False
    if not good:
        sys.stdout.write(noise.decode("utf-8", "replace"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
