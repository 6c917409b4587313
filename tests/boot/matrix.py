#!/usr/bin/env python3
"""Boot a stock kernel in mode bt with each set of options, or many times over, and count what fails.

    matrix.py --trivisor EXE --kernel FILE --busybox FILE                 # cache sizes, optimizations, CPUs
    matrix.py --trivisor EXE --kernel FILE --busybox FILE --repeat 50     # the same boot 50 times with 1 and 2 CPUs

Each boot is one of boot.py: the guest's own tests have to pass. Prints a line for each, the failed ones' output, and at the
end the count; the exit status is 0 if none failed.
"""
import argparse
import os
import subprocess
import sys
import time

import media

OPTIMIZATIONS = ["-flags", "-links", "-jumps", "-blocks", "-inline", "-share", "-returns", "-direct", "-copy"]


def combinations():
    for cpus in (1, 2):
        yield cpus, []
        for size in ("256K", "512K", "1M", "4M", "16M"):
            yield cpus, ["--tcache", size]
        for option in OPTIMIZATIONS:
            yield cpus, ["--bt-opt=" + option]
        yield cpus, ["--bt-opt=none"]
        yield cpus, ["--bt-opt=none", "--tcache", "256K"]
    yield 1, ["--verify"]
    yield 1, ["--verify", "--tcache", "256K"]
    yield 1, ["--verify", "--bt-opt=-blocks"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trivisor", required=True)
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--busybox", required=True)
    parser.add_argument("--mode", default="bt")
    parser.add_argument("--repeat", type=int, default=0, help="boot as often with each number of CPUs, without options")
    args = parser.parse_args()
    todo = [(cpus, []) for _ in range(args.repeat) for cpus in (1, 2)] if args.repeat else list(combinations())
    failed = 0
    for number, (cpus, options) in enumerate(todo, 1):
        start = time.monotonic()
        done = subprocess.run([sys.executable, os.path.join(media.HERE, "boot.py"), "--trivisor", args.trivisor, "--kernel", args.kernel,
                               "--busybox", args.busybox, "--mode", args.mode, "--cpus", str(cpus), "--", *options],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900)
        if done.returncode == 77:
            print(done.stdout.decode(errors="replace").strip())
            sys.exit(77)
        name = " ".join(options) or "as it is"
        print(f"{number}/{len(todo)} {'passed' if done.returncode == 0 else 'FAILED'} {time.monotonic() - start:6.1f} s  "
              f"{cpus} CPU(s), {name}", flush=True)
        if done.returncode:
            failed += 1
            print(done.stdout.decode(errors="replace"), flush=True)
    print(f"{len(todo) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
