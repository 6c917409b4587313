#!/usr/bin/env python3
"""Use what is rarely used with the drivers of Debian's full kernel: floppies, SMBus, CD trays, clock, speaker, serial ports.

    drivers.py --trivisor EXE --kernel FILE --busybox FILE --modules DIR --program FILE [--mode M]

The console is a socket. Where the guest says "ready" there, what it is sent comes back through both FIFOs.
"""
import argparse
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

import media

CHECKS = 27
ECHO = os.urandom(100 << 10)


def make_floppy(path, kib):
    with open(path, "wb") as f:
        f.truncate(kib << 10)
    subprocess.run(["mformat", "-i", path, "-f", str(kib), "::"], check=True)
    subprocess.run(["mcopy", "-i", path, "-", "::hello.txt"], input=b"a word on %d\n" % kib, check=True)


def make_cd(path, text=""):
    with tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, "text"), "w", encoding="ascii") as f:
            f.write(text + "\n")
        with open(os.path.join(directory, "data"), "wb") as f:
            f.write(os.urandom(300000))
        media.quietly("xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", path, directory)


def talk(path, seconds):
    """All that the guest says on the socket, with what came back in its place told as a check."""
    for _ in range(200):
        if os.path.exists(path):
            break
        time.sleep(0.1)
    heard, ready, started = b"", b"\nready\n", False
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        s.settimeout(seconds)
        while data := s.recv(65536):
            heard += data
            if not started and ready in heard:
                started = True
                threading.Thread(target=s.sendall, args=(ECHO,), daemon=True).start()
    before, _, after = heard.partition(ready)
    same = after[:len(ECHO)] == ECHO
    return before + (b"\nok what came back\n" if same else b"\nFAILED what came back\n") + after[len(ECHO):]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("trivisor", "kernel", "busybox", "modules", "program"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--mode", default="auto")
    args = parser.parse_args()
    media.need(args.kernel, args.busybox, args.modules, os.path.join(args.modules, "sr_mod.ko"), "/usr/bin/mformat",
               "/usr/bin/xorriso")
    with tempfile.TemporaryDirectory() as directory:
        initrd = media.initramfs(args.busybox, os.path.join(directory, "initrd.gz"), os.path.join(media.HERE, "drivers.sh"),
                                 modules=args.modules, files=["/ioctls=" + args.program])
        floppies = [os.path.join(directory, name) for name in ("a.img", "b.img")]
        make_floppy(floppies[0], 1440)
        make_floppy(floppies[1], 720)
        cd = os.path.join(directory, "cd.iso")
        make_cd(cd)
        console = os.path.join(directory, "console")
        vm = subprocess.Popen([args.trivisor, "run", "--mode", args.mode, "--memory", "256M", "--no-reboot", "--kernel", args.kernel,
                               "--initrd", initrd, "--append", "console=ttyS0 quiet panic=-1 trivisor=test",
                               "--serial", "unix:" + console, "--floppy", floppies[0], "--floppy", floppies[1] + ",ro",
                               "--cdrom", cd, "--cdrom", "none"], stdin=subprocess.DEVNULL)
        try:
            text = talk(console, 140)
            run = subprocess.CompletedProcess(vm.args, vm.wait(20), text)
        finally:
            vm.kill()
    sys.exit(media.verdict(run, CHECKS))


if __name__ == "__main__":
    main()
