#!/usr/bin/env python3
"""The real gdb against trivisor's stub: break, step, registers, memory, watchpoints, threads, interrupt, end.

    gdb.py TRIVISOR COUNTER-ELF
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

COMMANDS = r"""
set pagination off
set confirm off
set width 0
target remote SOCKET
printf "at start: %d\n", $rip == (unsigned long)&start
stepi
stepi
printf "after two steps: %d\n", $rip == (unsigned long)&start + 7
info threads
break *(unsigned long)&again
continue
printf "first stop: ecx %d counter %d\n", $rcx, *(int *)&counter
continue
printf "second stop: ecx %d counter %d\n", $rcx, *(int *)&counter
delete
watch *(int *)&counter
continue
printf "watched: counter %d\n", *(int *)&counter
delete
set var *(int *)&counter = 4711
printf "written: counter %d\n", *(int *)&counter
set $rcx = 990
hbreak *(unsigned long)&done
continue
printf "done: ecx %d counter %d\n", $rcx, *(int *)&counter
delete
monitor info registers
continue
"""

# What must be in gdb's output, in this order.
EXPECTED = [
    r"at start: 1",
    r"after two steps: 1",
    r"\* 1 .*CPU#0 \[running\]",
    r"  2 .*CPU#1 \[waiting for SIPI\]",
    r"first stop: ecx 1 counter 1",
    r"second stop: ecx 2 counter 2",
    r"Hardware watchpoint",
    r"New value = 3",
    r"watched: counter 3",
    r"written: counter 4711",
    r"done: ecx 1000 counter 1000",
    r"cpu0 rip",
    r"exited normally|Remote connection closed",
]


def main():
    trivisor, elf = sys.argv[1:3]
    if not shutil.which("gdb"):
        print("skipped: gdb is not installed")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as directory:
        socket = os.path.join(directory, "gdb")
        script = os.path.join(directory, "commands")
        with open(script, "w") as file:
            file.write(COMMANDS.replace("SOCKET", socket))
        with subprocess.Popen([trivisor, "run", "--quiet", "--mode", "interp", "--cpus", "2", "--serial", "none", "--kernel",
                               elf, "--debug-exit", "0xf4", "--gdb", "unix:" + socket], stdin=subprocess.DEVNULL) as vm:
            deadline = time.monotonic() + 30
            while not os.path.exists(socket) and time.monotonic() < deadline:
                time.sleep(0.02)
            gdb = subprocess.run(["gdb", "-nx", "-batch", "-x", script, elf], stdin=subprocess.DEVNULL, timeout=100,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            try:
                status = vm.wait(timeout=30)
            except subprocess.TimeoutExpired:
                vm.kill()
                status = "still running"
    position, failures = 0, []
    for pattern in EXPECTED:
        match = re.compile(pattern).search(gdb.stdout, position)
        if match:
            position = match.end()
        else:
            failures.append(pattern)
    if status != 1:
        failures.append(f"exit status {status}, want 1")
    if failures:
        print(gdb.stdout)
        print("missing:", *failures, sep="\n  ")
        sys.exit(1)
    print("passed")


if __name__ == "__main__":
    main()
