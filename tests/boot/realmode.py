#!/usr/bin/env python3
"""A real-mode system boots from a floppy and from a hard disk; a VNC viewer looks at its screens and types its commands.

    realmode.py --trivisor EXE --client EXE --system FILE [--mode M] [--pictures DIR]
"""
import argparse
import os
import sys
import tempfile

import media
from machine import Failed, Machine

MEDIA = {"floppy": ("00", 1440 << 10, ("--boot", "a", "--floppy")), "disk": ("80", 8 << 20, ("--boot", "c", "--disk"))}
COLUMNS = 320
BLACK, BLUE, GREEN, WHITE = b"\0\0\0", b"\0\0\xaa", b"\0\xaa\0", b"\xff\xff\xff"


def command(vm, text, answer):
    at = len(vm.serial)
    vm.view(f"type={text}\\n")
    vm.wait_serial(answer, 20, at)
    return vm.serial[at:]


def picture_with(vm, name, text, right):
    """A command that shows a picture until a key; RIGHT(screen) says whether it is the right one."""
    vm.view(f"type={text}\\n")
    vm.wait_screen(name, right, 20)
    at = len(vm.serial)
    vm.view("type= ")
    vm.wait_serial("text again", 20, at)
    vm.wait_screen("text", "text again", 20)


def columns(screen):
    """Mode 13h, doubled by the VGA: all 256 colours of the palette in their order, each row the same."""
    if (screen.width, screen.height) != (640, 400):
        return False
    row = screen.rows[0]
    dots = [row[6 * x:6 * x + 3] for x in range(COLUMNS)]
    return all(r == row for r in screen.rows) and dots[:64] == dots[256:] and len(set(dots)) > 200 \
        and dots[:3] == [BLACK, BLUE, GREEN]


def bands(screen):
    """Mode 12h: 16 bands of 30 lines in the colours of text, the middle third turned over."""
    if (screen.width, screen.height) != (640, 480):
        return False
    across = all(row == row[:3] * 640 for row in screen.rows)
    colours = [screen.rows[30 * band + 15][:3] for band in range(16)]
    turned = [screen.rows[y][:3] for y in (170, 310)]  # bands 5 and 10
    return across and colours[:3] == [BLACK, BLUE, GREEN] and colours[15] == WHITE and len(set(colours)) >= 10 \
        and turned == [b"\x55\xff\x55", b"\xaa\0\xaa"]


def try_medium(args, directory, medium):
    number, size, options = MEDIA[medium]
    image = os.path.join(directory, medium + ".img")
    with open(args.system, "rb") as f:
        system = f.read()
    with open(image, "wb") as f:
        f.write(system + bytes(size - len(system)))
    with open(image, "r+b") as f:  # "Re" at cylinder 1, head 1, sector 3, whatever the geometry is
        f.write(system)
        for at in range(len(system), size, 512):
            f.seek(at)
            f.write(b"Re")
    with open(image, "rb") as f:
        before = f.read()
    with Machine(args.trivisor, args.client, args.pictures or directory, "realmode-" + medium, "--mode", args.mode,
                 "--memory", "16M", *options, image) as vm:
        vm.wait_screen("banner", f"Real-mode system, drive {number}, KiB below 640: 027f", 30)
        command(vm, "hello", "no such command")
        command(vm, "ticks", "key interrupts: 0018\n")  # "hello", Enter, "ticks", Enter, down and up
        command(vm, "memory", "00000000fffc0000 0000000000040000 02")
        command(vm, "disk", "the disk is well")
        command(vm, "high", "high memory is well")
        picture_with(vm, "graphics", "graphics", columns)
        picture_with(vm, "planes", "planes", bands)
        vm.view("type=off\\n", last=True)
        status = vm.end(20)
    if status:
        raise Failed(f"exit status {status}")
    with open(image, "rb") as f:
        if f.read() != before:
            raise Failed("the disk is not as it was")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trivisor", required=True)
    parser.add_argument("--client", required=True)
    parser.add_argument("--system", required=True)
    parser.add_argument("--mode", default="auto")
    parser.add_argument("--pictures", help="keep them there")
    args = parser.parse_args()
    media.need(media.BIOS)
    with tempfile.TemporaryDirectory() as directory:
        for medium in MEDIA:
            try:
                try_medium(args, directory, medium)
                print(f"ok {medium}")
            except Failed as error:
                print(f"FAILED {medium}: {error}")
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
