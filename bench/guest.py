#!/usr/bin/env python3
"""The same workloads natively, in a Trivisor guest and in a QEMU TCG guest, with the same kernel and one CPU each.

    guest.py [--mode MODE] [--seconds S] [--only NAME,...] [--options OPTIONS] [--skip-qemu] [--json FILE] BUILD-DIR [GUESTS-DIR]

Prints how many times the native time each takes, and how many times faster than TCG Trivisor is; the time from power-on to
/init; memory beyond guest RAM; and on two CPUs the time that two processes take against one on one, and a pipe between them.
"""
import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time

import memory

HERE = os.path.dirname(os.path.abspath(__file__))
CLASSES = {
    "integer": "sieve quicksort rotates crc32 pointer-chase byte-code recursive".split(),
    "floating point": "n-body matrix-sse matrix-avx x87".split(),
    "kernel": "getppid pipe fork-wait fork-exec page-faults mprotect tmpfs copy-1M shell gzip".split(),
}


def run(command, limit, on_line=None):
    """Results of a run, by workload; what it was at when it died or took too long is named on standard error."""
    results, running = {}, "its start"
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        timer = threading.Timer(limit, process.kill)
        timer.start()
        done = False
        for raw in process.stdout:
            words = raw.decode(errors="replace").split()
            if words[:1] == ["RUNNING"]:
                running = words[1]
            elif words[:1] == ["RESULT"] and len(words) == 3:
                results[words[1]] = float(words[2])
            elif words[:2] == ["MARK", "done"]:
                done = True
            if on_line and on_line(words, process):
                done = True
                process.kill()
        timer.cancel()
        process.wait()
    if not done and process.returncode:
        print(f"{os.path.basename(command[0])} ended in {running}", file=sys.stderr)
    return results


def libraries(program):
    """The loader and the shared libraries of a program, as absolute paths."""
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    return [word for line in listed.splitlines() for word in line.split() if word.startswith("/")]


class Guests:
    def __init__(self, args, directory):
        self.args = args
        self.kernel = os.path.join(args.guests, "vmlinuz-cloud-amd64")
        self.busybox = os.path.join(args.guests, "busybox-amd64")
        self.initrd = os.path.join(directory, "initrd.gz")
        self.program = os.path.join(args.build, "bench", "guest", "guest-bench")
        sources = os.path.join(HERE, "guest")
        subprocess.run([sys.executable, os.path.join(HERE, "..", "tools", "mkinitramfs.py"), "--busybox", self.busybox,
                        "--output", self.initrd, "--add", "/init=" + os.path.join(sources, "init"),
                        "--add", "/suite=" + os.path.join(sources, "suite"), "--add", "/bench=" + self.program] +
                       [word for path in libraries(self.program) for word in ("--add", f"{path}={path}")], check=True)

    def trivisor(self, bench, cpus=1):
        return [os.path.join(self.args.build, "src", "cli", "trivisor"), "run", "--quiet", "--mode", self.args.mode,
                *self.args.options.split(), "--memory", "512M", "--cpus", str(cpus), "--kernel", self.kernel, "--initrd", self.initrd,
                "--append", "console=ttyS0 quiet panic=-1 bench=" + bench]

    def qemu(self, bench, cpus=1):
        return ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "512", "-smp", str(cpus), "-display", "none",
                "-serial", "stdio", "-no-reboot", "-kernel", self.kernel, "-initrd", self.initrd,
                "-append", "console=ttyS0 quiet panic=-1 bench=" + bench]

    def native(self, words):
        """With the shell of the same busybox, so that the same programs run."""
        return ["env", "BUSYBOX=" + os.path.abspath(self.busybox), "taskset", "-c", "0", self.busybox, "sh",
                os.path.join(HERE, "guest", "suite"), self.program] + words


def seconds_to_init(command):
    best = None
    for _ in range(3):
        start = time.monotonic()
        took = []
        run(command, 60, lambda words, process: words[:2] == ["MARK", "init"] and not took.append(time.monotonic() - start))
        if took:
            best = min(took + [best] if best else took)
    return best


def memory_beyond_ram(command):
    """MiB of resident memory that is not guest RAM, once the guest has nothing to do."""
    found = []

    def look(words, process):
        if words[:2] != ["MARK", "idle"]:
            return False
        found.append(sum(memory.by_kind(process.pid).values()))
        return True

    run(command, 60, look)
    return found[0] if found else None


def mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def table(native, ours, tcg, mode):
    print(f"{'':16}{'native':>12}{mode:>10}{'TCG':>10}{'faster':>10}")
    print(f"{'':16}{'':>12}{'x native':>10}{'x native':>10}{'than TCG':>10}")
    for title, names in CLASSES.items():
        speedups, slowdowns = [], []
        for name in names:
            if name not in ours:
                continue
            row = [f"{name:16}"]
            row.append(f"{native[name] / 1000:9.2f} us" if name in native else f"{'-':>12}")
            row.append(f"{ours[name] / native[name]:10.2f}" if native.get(name) else f"{'-':>10}")
            row.append(f"{tcg[name] / native[name]:10.2f}" if native.get(name) and name in tcg else f"{'-':>10}")
            row.append(f"{tcg[name] / ours[name]:10.2f}" if tcg.get(name) and ours[name] else f"{'-':>10}")
            print("".join(row))
            if tcg.get(name) and ours[name]:
                speedups.append(tcg[name] / ours[name])
            if native.get(name) and ours[name]:
                slowdowns.append(ours[name] / native[name])
        if slowdowns:
            print(f"{title + ', mean':28}{mean(slowdowns):10.2f}{'':10}" + (f"{mean(speedups):10.2f}" if speedups else ""))
        print()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build")
    parser.add_argument("guests", nargs="?", default=os.path.join(HERE, "..", "artifacts"))
    parser.add_argument("--mode", default="bt")
    parser.add_argument("--options", default="", help="more options for trivisor run")
    parser.add_argument("--seconds", default="0.5")
    parser.add_argument("--only", default="", help="workloads, separated by commas")
    parser.add_argument("--skip-qemu", action="store_true")
    parser.add_argument("--json", help="write all times there")
    args = parser.parse_args()
    if not os.path.exists(os.path.join(args.guests, "vmlinuz-cloud-amd64")):
        print("guests: skipped; tools/fetch-guests gets the kernel")
        return
    only = [word for word in args.only.split(",") if word]
    words = [args.seconds] + only
    with tempfile.TemporaryDirectory() as directory:
        guests = Guests(args, directory)
        native = run(guests.native(words), 300)
        ours = run(guests.trivisor(",".join(words)), 600)
        tcg = {} if args.skip_qemu else run(guests.qemu(",".join(words)), 900)
        table(native, ours, tcg, args.mode)
        if not only:
            boot = [seconds_to_init(guests.trivisor("idle")),
                    None if args.skip_qemu else seconds_to_init(guests.qemu("idle"))]
            print(f"power-on to /init: {args.mode} {boot[0]:.2f} s" +
                  (f", TCG {boot[1]:.2f} s: {boot[1] / boot[0]:.2f} times faster" if boot[1] else ""))
            print(f"memory beyond guest RAM: {memory_beyond_ram(guests.trivisor('idle')):.0f} MiB")
            pair = run(guests.trivisor("pair,0.3", cpus=2), 120)
            if "pair" in pair:
                print(f"two processes on two CPUs: {pair['pair']:.2f} times the time of one")
            pipe = [run(guests.trivisor("0.5,pipe", cpus=2), 120).get("pipe"),
                    None if args.skip_qemu else run(guests.qemu("0.5,pipe", cpus=2), 120).get("pipe")]
            if pipe[0]:
                print(f"pipe between two CPUs: {args.mode} {pipe[0] / 1000:.1f} us" +
                      (f", TCG {pipe[1] / 1000:.1f} us: {pipe[1] / pipe[0]:.2f} times faster" if pipe[1] else ""))
        if args.json:
            with open(args.json, "w", encoding="ascii") as file:
                json.dump({"native": native, args.mode: ours, "tcg": tcg}, file, indent=1)


if __name__ == "__main__":
    main()
