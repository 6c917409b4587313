#!/usr/bin/env python3
"""What --boot makes the firmware boot from: order, one drive of several, once, and the boot menu; SeaBIOS and OVMF.

    boot_order.py --trivisor EXE --rom FILE [--mode M] [--show]

And that an option ROM of a PCI device runs before that.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading

import media

EXIT = 42 << 1 | 1  # what a medium's program writes to the debug-exit port
PRINT = "fa 31c0 8ed8 fc be0000 baf803 ac 84c0 7403 ee ebf8"  # the text behind the code, on COM1; without interrupts, as the BIOS has a console there
END = "b02a baf400 ee f4 ebfd"
RESET = "baf90c b006 ee f4 ebfd"
GRUB = """echo "<{name}>"
{end}
halt
"""


def sector(text, end=END):
    code = bytes.fromhex(PRINT + end).replace(b"\xbe\0\0", b"\xbe" + (0x7c00 + len(bytes.fromhex(PRINT + end))).to_bytes(2, "little"))
    return (code + f"<{text}>\n".encode() + b"\0").ljust(510, b"\0") + b"\x55\xaa"


class Bench:
    def __init__(self, args, directory):
        self.args, self.directory, self.failed = args, directory, 0
        self.base = ["--mode", args.mode, "--vga", "none", "--debug-exit", "0xf4"]

    def path(self, name):
        return os.path.join(self.directory, name)

    def make(self, name, size, end=END):
        with open(self.path(name), "wb") as f:
            f.write(sector(name, end).ljust(size, b"\0"))

    def make_cd(self):
        os.mkdir(self.path("tree"))
        with open(self.path("tree/boot.img"), "wb") as f:
            f.write(sector("cd").ljust(2048, b"\0"))
        media.quietly("xorriso", "-as", "mkisofs", "-o", self.path("cd"), "-b", "boot.img", "-no-emul-boot", "-boot-load-size", "4",
                      self.path("tree"))

    def judge(self, name, status, text, wanted):
        came = re.findall(r"<([a-z]\w+)>", text)
        good = status == EXIT and came == list(wanted)
        print(f"{'ok' if good else 'FAILED'} {name}", flush=True)
        if self.args.show or not good:
            print(f"status {status}, came {came}, want {wanted}\n{text[-1500:]}")
        self.failed += not good

    def order(self, boot, *wanted, options=(), firmware=()):
        options = [*self.base, *firmware, *options, *(["--boot", boot] if boot else [])]
        done = subprocess.run([self.args.trivisor, "run", "--quiet", *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              timeout=100)
        name = f"{'uefi' if firmware else 'bios'} {boot or 'default'}"
        self.judge(name, done.returncode, done.stdout.decode(errors="replace"), wanted)

    def menu(self, boot, answers, options, wanted):
        """Each of ANSWERS, a text on the serial port and keys, is given once its text has come."""
        vm = subprocess.Popen([self.args.trivisor, "run", "--quiet", *self.base, *options, "--boot", boot],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        timer = threading.Timer(60, vm.kill)
        timer.start()
        text, seen = "", 0
        while True:
            data = os.read(vm.stdout.fileno(), 4096)
            if not data:
                break
            text += data.decode(errors="replace").replace("\r", "")
            at = text.find(answers[0][0], seen) if answers else -1
            if at >= 0:
                seen = at + 1
                vm.stdin.write(answers.pop(0)[1])
                vm.stdin.flush()
        timer.cancel()
        self.judge("menu " + boot, vm.wait(), text, [wanted])


def bios_cases(bench):
    # A boot sector alone will do, for a floppy and for a disk on IDE.
    for name, size in (("disk", 512), ("second", 1 << 20), ("floppy", 1440 << 10)):
        bench.make(name, size)
    bench.make("resetting", 512, RESET)
    bench.make_cd()
    drives = ["--disk", bench.path("disk") + ",format=raw", "--disk", bench.path("second") + ",if=virtio,format=raw",
              "--cdrom", bench.path("cd")]
    floppy = ["--floppy", bench.path("floppy")]
    bench.order(None, "disk", options=drives + floppy)
    bench.order("ac", "floppy", options=drives + floppy)
    bench.order("disk2", "second", options=drives + floppy)
    bench.order("order=cdrom,disk", "cd", options=drives)
    bench.order("nc", "disk", options=drives)
    bench.order("once=floppy,disk2", "resetting", "second", options=drives + ["--floppy", bench.path("resetting")])
    with open(bench.args.rom, "rb") as f:
        rom = bytearray(f.read())
    rom[-1] = -sum(rom) & 255
    with open(bench.path("rom"), "wb") as f:
        f.write(rom)
    # The BIOS leaves ROMs of devices alone that it has a driver for: the entropy device's, in slot 3.
    bench.order("c", "rom", "disk", options=drives + ["--option-rom", bench.path("rom")])
    # The menu's second entry is the second disk; with it on the serial port, keys are a terminal's.
    bench.menu("menu", [("Press ESC for boot menu", b"\x1b"), ("\n2. ", b"2")], drives, "second")
    bench.menu("menu=f12,wait=20", [("Press F12 for boot menu", b"\x1b[24~"), ("\n2. ", b"2")], drives, "second")


def uefi_cases(bench):
    disks = []
    for name, end in (("one", "outb 0xf4 42"), ("two", "outb 0xf4 42"), ("again", "reboot")):
        grub = media.grub_efi(bench.path(name + ".efi"), GRUB.format(name=name, end=end))
        disk = media.fat_disk(bench.path(name), 4, {"EFI/BOOT/BOOTX64.EFI": grub})
        disks += ["--disk", f"{disk},if={'virtio' if name == 'two' else 'ide'},format=raw"]
    firmware = ["--firmware", "uefi"]
    bench.order(None, "one", options=disks[:4], firmware=firmware)
    bench.order("disk2", "two", options=disks[:4], firmware=firmware)
    bench.order("once=disk3,disk2", "again", "two", options=disks, firmware=firmware)
    down = b"\x1b[B"  # to the boot manager; to the second drive in it
    bench.menu("menu", [("\x1b[=3h", b"\x1b"), ("Continue", 2 * down + b"\r"), ("Device Path", down + b"\r")],
               firmware + disks[:4], "two")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trivisor", required=True)
    parser.add_argument("--rom", required=True, help="option_rom.S as a binary")
    parser.add_argument("--mode", default="auto")
    parser.add_argument("--show", action="store_true")
    args = parser.parse_args()
    media.need(media.BIOS, media.OVMF, "/usr/bin/xorriso", "/usr/bin/mcopy", "/usr/lib/grub/x86_64-efi")
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(args, directory)
        bios_cases(bench)
        uefi_cases(bench)
    sys.exit(bench.failed != 0)


if __name__ == "__main__":
    main()
