#!/usr/bin/env python3
"""How late interrupts are, what translation costs, and memory beyond guest RAM.

    latency.py [--skip-qemu] [--only latency|translation] [--options OPTIONS] BUILD-DIR [GUESTS-DIR]

The same guest (latency/latency64.c) runs in Trivisor and in QEMU TCG; the host's own timer and wake-up between threads are
measured before and after, as no guest can be better than those. Then a boot of the cloud kernel to an idle /init.
"""
import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import guest
import memory

HERE = os.path.dirname(os.path.abspath(__file__))
TITLES = {
    "host-timer": "timer of the host, alone",
    "host-wake-up": "one thread wakes another, alone",
    "one-shot": "local APIC timer, one shot",
    "deadline": "TSC deadline timer",
    "ipi": "interrupt from another processor",
    "round-trip": "and one back",
}


def results(command, limit):
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=limit)
        text = done.stdout
    except subprocess.TimeoutExpired as e:
        print(f"{os.path.basename(command[0])} took too long", file=sys.stderr)
        text = e.stdout or b""
    found = {}
    for line in text.decode(errors="replace").splitlines():
        words = line.split()
        if words[:1] == ["RESULT"] and len(words) == 6:
            found[words[1]] = [int(word) / 1000 for word in words[3:]]
    return found


def split(name):
    for prefix in sorted(TITLES, key=len, reverse=True):
        if name.startswith(prefix):
            return prefix, name[len(prefix) + 1:]
    return name, ""


def figures(values):
    return "".join(f"{value:9.0f}" if value >= 100 else f"{value:9.1f}" for value in values) if values else f"{'-':>9}" * 3


def latency(args):
    host = [os.path.join(args.build, "bench", "latency", "latency-host")]
    image = os.path.join(args.build, "bench", "latency", "latency64")
    ours = [os.path.join(args.build, "src", "cli", "trivisor"), "run", "--quiet", "--mode", "bt", *args.options.split(), "--memory",
            "128M", "--cpus", "2", "--kernel", image, "--debug-exit", "0xf4", "--serial", "stdio", "--no-reboot"]
    tcg = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "128", "-smp", "2", "-kernel", image, "-serial", "stdio",
           "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-display", "none", "-no-reboot"]
    before = results(host, 60)
    columns = {"bt": results(ours, 120)}
    if not args.skip_qemu:
        columns["TCG"] = results(tcg, 120)
    after = results(host, 60)
    print(f"{'microseconds late':48}" + "".join(f"{name:>4}{'50 %':>5}{'99 %':>9}{'max':>9}" for name in columns))
    for name in before:
        for when, values in (("before", before), ("after", after)):
            print(f"{TITLES[name] + ', ' + when:48}{figures(values.get(name))}")
    for name in columns["bt"]:
        prefix, load = split(name)
        print(f"{TITLES.get(prefix, prefix) + ': ' + load.replace('-', ' '):48}" +
              "".join(figures(column.get(name)) for column in columns.values()))


def translation(args):
    if not os.path.exists(os.path.join(args.guests, "vmlinuz-cloud-amd64")):
        print("a boot: skipped; tools/fetch-guests gets the kernel")
        return
    with tempfile.TemporaryDirectory() as directory:
        args.mode = "bt"
        command = guest.Guests(args, directory).trivisor("idle") + ["--stats"]
        start, to_init = time.monotonic(), 0
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as vm:
            for line in vm.stdout:
                if line.startswith("MARK init"):
                    to_init = time.monotonic() - start
                if line.startswith("MARK idle"):
                    break
            took = time.monotonic() - start
            kinds = memory.by_kind(vm.pid)
            vm.send_signal(signal.SIGTERM)
            stats = vm.communicate(timeout=30)[1]
    found = re.search(r"translation took ([\d.]+) s, .*", stats)
    if found:
        print(f"a boot: /init after {to_init:.2f} s; until it was idle, {took:.2f} s, {100 * float(found[1]) / took:.0f} % of them "
              f"translation:\n  {found[0]}")
    print(f"memory beyond guest RAM: {sum(kinds.values()):.0f} MiB")
    for kind, mib in sorted(kinds.items(), key=lambda item: -item[1]):
        print(f"  {kind:34}{mib:8.1f} MiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build")
    parser.add_argument("guests", nargs="?", default=os.path.join(HERE, "..", "artifacts"))
    parser.add_argument("--skip-qemu", action="store_true")
    parser.add_argument("--only", choices=("latency", "translation"))
    parser.add_argument("--options", default="", help="more options for trivisor run")
    args = parser.parse_args()
    args.skip_qemu |= not shutil.which("qemu-system-x86_64")
    if args.only != "translation":
        latency(args)
        print(flush=True)
    if args.only != "latency":
        translation(args)


if __name__ == "__main__":
    main()
