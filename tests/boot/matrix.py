#!/usr/bin/env python3
"""Boot a stock kernel in mode bt with each set of options, or many times over, and count what fails.

    matrix.py --trivisor EXE --kernel FILE --busybox FILE                 # cache sizes, optimizations, CPUs
    matrix.py --trivisor EXE --kernel FILE --busybox FILE --repeat 50     # the same boot 50 times with 1 and 2 CPUs

Each boot is one of boot.py: the guest's own tests have to pass. Prints a line for each, the failed ones' output, and at the
end the count; the exit status is 0 if none failed. --leave-out has options, separated by spaces, whose sets are not tried; --only those
whose sets alone are.
"""
import argparse
import os
import subprocess
import sys
import time

import media

LONGEST = 1800  # seconds of a boot: without any optimization each instruction is a block that is looked for
# Options that make a guest so slow that Linux takes a processor at work for a stuck one.
SLOW = {"--verify", "--bt-opt=none", "256K"}
PATIENT = "nowatchdog rcupdate.rcu_cpu_stall_suppress=1"
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
    parser.add_argument("--leave-out", default="")
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    if args.repeat:
        todo = [(cpus, []) for _ in range(args.repeat) for cpus in (1, 2)]
    else:
        todo = [(cpus, options) for cpus, options in combinations() if not set(options) & set(args.leave_out.split()) and
                (not args.only or set(options) & set(args.only.split()))]
    failed = 0
    for number, (cpus, options) in enumerate(todo, 1):
        start = time.monotonic()
        command = [sys.executable, os.path.join(media.HERE, "boot.py"), "--trivisor", args.trivisor, "--kernel", args.kernel,
                   "--busybox", args.busybox, "--mode", args.mode, "--cpus", str(cpus),
                   "--append", PATIENT if SLOW & set(options) else "", "--", *options]
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LONGEST)
            status, output = done.returncode, done.stdout
        except subprocess.TimeoutExpired as late:
            status, output = 1, (late.stdout or b"") + f"did not end within {LONGEST} s\n".encode()
        if status == 77:
            print(output.decode(errors="replace").strip())
            sys.exit(77)
        name = " ".join(options) or "as it is"
        print(f"{number}/{len(todo)} {'passed' if status == 0 else 'FAILED'} {time.monotonic() - start:6.1f} s  "
              f"{cpus} CPU(s), {name}", flush=True)
        if status:
            failed += 1
            print(output.decode(errors="replace"), flush=True)
    print(f"{len(todo) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
