#!/usr/bin/env python3
"""Boot a stock kernel under trivisor, run /test in it, and judge what it printed.

    boot.py --trivisor EXE --kernel FILE --busybox FILE [--xen FILE] [--cpus N] [--mode M] [--clock SECONDS] [--show]

The guest's clock is compared with ours between its lines. With --xen the kernel is that of the domain 0 of a hypervisor.
"""
import argparse
import math
import os
import subprocess
import sys
import tempfile
import time

import media

CLOCK_TOLERANCE = 0.15  # seconds of slack for scheduling delays, beside 1 % of the time


def boot(args, initrd):
    """Run the VM. Returns its exit status and the lines of its console with their times."""
    console = "hvc0" if args.xen else "ttyS0"
    append = f"console={console} panic=-1 {args.append} trivisor=test trivisor.cpus={args.cpus} trivisor.clock={args.clock}"
    kernel = ["--kernel", args.kernel, "--append", append]
    if args.xen:
        kernel = ["--kernel", args.xen, "--append", "console=com1 loglvl=all noreboot", "--initrd", f"{args.kernel} {append}"]
    command = [args.trivisor, "run", "--mode", args.mode, "--memory", args.memory, "--cpus", str(args.cpus),
               *kernel, "--initrd", initrd, "--no-reboot", *args.extra]
    lines = []
    start = time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as vm:
        for raw in vm.stdout:
            line = raw.decode(errors="replace").rstrip()
            lines.append((time.monotonic() - start, line))
            if args.show:
                print(f"{lines[-1][0]:8.2f} {line}", flush=True)
        status = vm.wait()
    return status, lines


def judge(args, status, lines):
    """Returns a list of what is wrong."""
    problems = []
    if status != 0:
        problems.append(f"exit status {status}")
    text = [line for _, line in lines]
    problems += [line for line in text if line.startswith("FAILED ")]
    # Also after the script, which looks at the kernel's log itself: while the kernel powers off.
    problems += [line for line in text if "unchecked MSR access" in line or "Call Trace:" in line]
    passed = sum(line.startswith("ok ") for line in text)
    if "guest test finished" not in text:
        problems.append("the guest's script did not finish")
    elif passed < 10:
        problems.append(f"only {passed} checks passed in the guest")
    lag = {}  # of a line behind the guest's clock, at least; the clocks do not start together
    for when, line in lines:
        if line.startswith("clock "):
            _, mark, clock = line.split()
            lag[mark] = min(lag.get(mark, math.inf), when - float(clock))
    if set(lag) != {"start", "end"}:
        problems.append("no clock lines")
    elif abs(lag["end"] - lag["start"]) > CLOCK_TOLERANCE + args.clock / 100:
        problems.append(f"the guest's clock lost {lag['end'] - lag['start']:.2f} s in {args.clock} s")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trivisor", required=True)
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--busybox", required=True)
    parser.add_argument("--xen", help="a Xen hypervisor's ELF file")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--mode", default="interp")
    parser.add_argument("--memory", default="512M")
    parser.add_argument("--clock", type=int, default=1, help="seconds to compare the clocks over")
    parser.add_argument("--append", default="", help="more for the kernel's command line")
    parser.add_argument("--show", action="store_true", help="show the console as it comes")
    parser.add_argument("extra", nargs="*", help="more options for trivisor run, after --")
    args = parser.parse_args()
    media.need(args.kernel, args.busybox, *([args.xen] if args.xen else []))

    with tempfile.TemporaryDirectory() as directory:
        status, lines = boot(args, media.initramfs(args.busybox, os.path.join(directory, "initrd.gz"),
                                                   os.path.join(media.HERE, "test.sh")))
    problems = judge(args, status, lines)
    if problems:
        if not args.show:
            print("\n".join(line for _, line in lines[-60:]))
        print("\n".join("problem: " + p for p in problems))
        sys.exit(1)
    init = next((when for when, line in lines if line.startswith("guest: reached /init")), 0)
    print(f"passed: /init after {init:.1f} s, finished after {lines[-1][0]:.1f} s")


if __name__ == "__main__":
    main()
