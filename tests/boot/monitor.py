#!/usr/bin/env python3
"""Work with a running machine through its monitor, and ask the guest what came of it: media, keys, pictures, buttons.

    monitor.py --trivisor EXE --client VNC_CLIENT --kernel FILE --busybox FILE --modules DIR [--mode M]

The guest, Debian's full kernel, carries out each line that it gets on its serial console.
"""
import argparse
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time

import media
from drivers import make_cd, make_floppy
from machine import Failed, Machine
from screen_text import Screen

MODULES = "floppy fat vfat nls_cp437 nls_ascii scsi_common scsi_mod libata ata_piix cdrom sr_mod isofs".split()
USED = 34 * 512  # bytes of a floppy with a file of one cluster: what is behind it is free
SCRIPT = """stty -echo
for m in %s; do [ ! -e /modules/$m.ko ] || insmod /modules/$m.ko || echo "FAILED insmod $m"; done
mkdir /mnt
echo ready
while read -r line; do
    eval "$line" 2>&1
    echo "status $?"
done
""" % " ".join(MODULES)


class Bench:
    def __init__(self, vm, trivisor, socket_path):
        self.vm, self.trivisor, self.socket = vm, trivisor, socket_path

    def monitor(self, *words):
        """The exit status and all that the command said."""
        run = subprocess.run([self.trivisor, "monitor", self.socket, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, timeout=60, cwd=os.path.dirname(self.socket))
        return run.returncode, run.stdout

    def do(self, *words):
        status, said = self.monitor(*words)
        if status or words[0] not in ("info", "help", "stats") and said:
            raise Failed(f"{words}: {said!r}")
        return said

    def refuses(self, text, *words):
        status, said = self.monitor(*words)
        if status != 1 or text not in said:
            raise Failed(f"{words}: status {status}, {said!r} instead of {text!r}")

    def guest(self, line, wanted):
        """WANTED: a part of what the guest's shell says to LINE."""
        after = len(self.vm.serial)
        self.vm.send_serial(line + "\n")
        self.vm.wait_serial("status ", 60, after)
        self.vm.wait(lambda: self.vm.serial.endswith("\n"), 5, "the end of a line")
        if wanted not in self.vm.serial[after:]:
            raise Failed(f"guest: {line!r}: {self.vm.serial[after:]!r} instead of {wanted!r}")
        return self.vm.serial[after:]


def compact_discs(b):
    mount = "mount -t iso9660 -o ro /dev/sr0 /mnt && cat /mnt/text"
    b.guest("echo 0 >/proc/sys/dev/cdrom/autoclose; " + mount, "No medium found")
    b.do("change", "cdrom", "first.iso")
    b.guest(mount, "the first\n")
    if "cdrom: " + os.path.join(os.path.dirname(b.socket), "first.iso") + ", tray locked\n" not in b.do("info"):
        raise Failed("info does not show the disc in a locked tray: " + b.do("info"))
    b.refuses("locked the tray", "eject", "cdrom")
    b.refuses("locked the tray", "change", "cdrom", "second.iso")
    b.guest("cat /mnt/text; umount /mnt", "the first\n")
    b.do("eject", "cdrom")
    b.guest(mount, "No medium found")
    b.do("change", "cdrom", "first.iso")
    b.do("change", "cdrom", "second.iso")
    b.guest(mount, "the second\n")
    b.do("eject", "cdrom", "force")
    b.guest("cat /mnt/data >/dev/null", "error")
    b.guest("umount /mnt; " + mount, "No medium found")


def floppies(b):
    b.guest("mount -t vfat /dev/fd0 /mnt && cat /mnt/hello.txt; umount /mnt", "a word on 1440")
    b.do("change", "floppy", "720.img", "ro")
    b.guest("mount -t vfat -o ro /dev/fd0 /mnt && cat /mnt/hello.txt; umount /mnt", "a word on 720")
    if "720.img, read only\n" not in b.do("info"):
        raise Failed("info: " + b.do("info"))
    b.do("eject", "floppy")
    b.guest("dd if=/dev/fd0 of=/dev/null bs=512 count=1", "status 1")
    for name in ("1440.img", "cut.img"):
        b.do("change", "floppy", name)
        b.guest("mount -t vfat /dev/fd0 /mnt && echo new >/mnt/new.txt; umount /mnt", "status 0")
        b.do("eject", "floppy")
        path = os.path.join(os.path.dirname(b.socket), name)
        done = subprocess.run(["mtype", "-i", path, "::new.txt"], capture_output=True)
        if done.stdout != b"new\n":
            raise Failed(f"what was written to the floppy is not in its file: {done}")


def refusals(b):
    b.refuses("no floppy has", "change", "floppy", "large.img")
    b.refuses("missing.iso", "change", "cdrom", "missing.iso")
    b.refuses("no disk drive", "eject", "disk")
    b.refuses("there is no cdrom2", "eject", "cdrom2")
    b.refuses("want disk, cdrom or floppy", "eject", "tape")
    b.refuses("'rw': want ro", "change", "cdrom", "first.iso", "rw")
    b.refuses("want: eject DRIVE", "eject")
    b.refuses("help lists them", "frobnicate")
    b.refuses("'hyper' is no key", "key", "ctrl-hyper")
    b.refuses("cannot create", "screenshot", "missing/screen.png")


def keys_and_pictures(b):
    b.guest("(read -r x </dev/tty1; echo \"typed: $x\") & sleep 1", "status 0")
    after = len(b.vm.serial)
    b.do("type", 'Ab "c" {\\\\} |')
    b.do("key", "shift-x", "y", "minus", "enter")
    b.vm.wait_serial('typed: Ab "c" {\\} |Xy-\n', 20, after)
    b.guest("echo seen on the screen >/dev/tty1", "status 0")
    b.do("screenshot", "screen.png")
    if not Screen(os.path.join(os.path.dirname(b.socket), "screen.png")).shows("seen on the screen"):
        raise Failed("the picture does not show what the guest wrote")


def uptime(b):
    return float(b.guest("cat /proc/uptime", " ").split()[0])


def buttons(b):
    before = uptime(b)
    b.do("pause")
    if "state: paused\n" not in b.do("info"):
        raise Failed("info: " + b.do("info"))
    b.do("pause")
    paused = time.monotonic()
    time.sleep(3)
    b.refuses("does not take keys", "type", "a long text " * 20)
    paused = time.monotonic() - paused
    b.do("resume")
    if uptime(b) - before > paused:
        raise Failed("the guest's clock went on while it was paused")
    b.do("power")
    b.guest("cat /sys/firmware/acpi/interrupts/ff_pwr_btn", " STS ")  # the module that would count it is not loaded


def bad_clients(b):
    """Half a line, too long a line, and more commands at once than it reads the answers of."""
    clients = []
    for data in (b"info", b"x" * 10000, b"help\n" * 20000):
        clients.append(socket.socket(socket.AF_UNIX))
        clients[-1].connect(b.socket)
        clients[-1].settimeout(1)
        try:
            clients[-1].sendall(data)
        except OSError:
            pass
    b.do("info")
    talk = subprocess.run([b.trivisor, "monitor", b.socket], input="info\nfrobnicate\n", capture_output=True, text=True, timeout=30)
    if "state: running" not in talk.stdout or "unknown command 'frobnicate'" not in talk.stderr or talk.returncode != 1:
        raise Failed(f"a conversation: {talk}")
    if stat.S_IMODE(os.stat(b.socket).st_mode) != 0o600:
        raise Failed("others may connect to the monitor")
    return clients


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("trivisor", "client", "kernel", "busybox", "modules"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--mode", default="auto")
    args = parser.parse_args()
    media.need(args.kernel, args.busybox, args.modules, os.path.join(args.modules, "sr_mod.ko"), "/usr/bin/mformat",
               "/usr/bin/xorriso")
    with tempfile.TemporaryDirectory() as directory:
        for name in ("first", "second"):
            make_cd(os.path.join(directory, name + ".iso"), "the " + name)
        for size in (1440, 720):
            make_floppy(os.path.join(directory, f"{size}.img"), size)
        make_floppy(os.path.join(directory, "cut.img"), 1440)
        os.truncate(os.path.join(directory, "cut.img"), USED)
        with open(os.path.join(directory, "large.img"), "wb") as file:
            file.truncate(3 << 20)
        initrd = media.initramfs(args.busybox, os.path.join(directory, "initrd.gz"), SCRIPT, modules=args.modules)
        path = os.path.join(directory, "monitor")
        try:
            with Machine(args.trivisor, args.client, directory, "vm", "--mode", args.mode, "--memory", "256M", "--no-reboot",
                         "--kernel", args.kernel, "--initrd", initrd, "--append", "console=ttyS0 quiet panic=-1 trivisor=test",
                         "--cdrom", "none", "--floppy", os.path.join(directory, "1440.img"), "--monitor", path) as vm:
                b = Bench(vm, os.path.abspath(args.trivisor), path)
                vm.wait_serial("ready\n", 60)
                for part in (compact_discs, floppies, refusals, keys_and_pictures, buttons):
                    part(b)
                    print(f"passed: {part.__name__}", flush=True)
                clients = bad_clients(b)
                b.do("quit")
                status = vm.end(20)
                if status or os.path.exists(path) or "FAILED" in vm.serial:
                    raise Failed(f"status {status}: {vm.serial[-500:]}")
                for client in clients:
                    client.close()
                print("passed: bad_clients")
        except Failed as problem:
            print(problem)
            sys.exit(1)


if __name__ == "__main__":
    main()
