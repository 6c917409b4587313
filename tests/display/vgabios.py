#!/usr/bin/env python3
"""Run a VGA BIOS on the adapter, mode by mode, and judge the pictures.

    vgabios.py --trivisor EXE --guest FILE [--vga std|svga] [--mode M] [--keep DIR]

--keep leaves the pictures for somebody to look at. The BIOS is Debian's (package seabios).
"""
import argparse
import atexit
import os
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from screen import read_png  # noqa: E402

BIOS = {"std": "/usr/share/seabios/vgabios-stdvga.bin", "svga": "/usr/share/seabios/vgabios-vmware.bin"}

# Size in dots, and the least and the most colours that the picture may have.
EXPECTED = {
    "text000": (720, 400, 16, 16), "text001": (720, 400, 16, 16), "text002": (720, 400, 16, 16),
    "text003": (720, 400, 2, 16), "text007": (720, 400, 3, 4), "lines032": (720, 400, 2, 2),
    "graphics004": (640, 400, 4, 4), "graphics005": (640, 400, 4, 4), "graphics006": (640, 400, 2, 2),
    "graphics00d": (640, 400, 16, 16), "graphics00e": (640, 400, 16, 16), "graphics00f": (640, 350, 2, 3),
    "graphics010": (640, 350, 16, 16), "graphics011": (640, 480, 2, 2), "graphics012": (640, 480, 16, 16),
    "graphics013": (640, 400, 50, 256),
    "vbe101": (640, 480, 100, 256), "vbe105": (1024, 768, 100, 256), "vbe110": (640, 480, 500, 32768),
    "vbe111": (640, 480, 500, 65536), "vbe112": (640, 480, 5000, 1 << 24), "vbe117": (1024, 768, 500, 65536),
    "vbe118": (1024, 768, 5000, 1 << 24), "vbe143": (800, 600, 5000, 1 << 24),
}


def take_picture(vm, path):
    if os.path.exists(path):
        os.unlink(path)
    vm.send_signal(signal.SIGUSR1)
    end = time.monotonic() + 10
    while not os.path.exists(path) and time.monotonic() < end:
        time.sleep(0.01)
    return read_png(path)


def corner(name, rows, width, height):
    """The gradient of the linear modes: black-blue, red, green, yellow in the corners."""
    def pixel(x, y):
        return tuple(rows[y][3 * x:3 * x + 3])
    top_right, bottom_left, last = pixel(width - 1, 0), pixel(0, height - 1), pixel(width - 1, height - 1)
    return top_right[0] > 240 and top_right[1] < 16 and bottom_left[1] > 240 and bottom_left[0] < 16 \
        and last[0] > 240 and last[1] > 240


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trivisor", required=True)
    parser.add_argument("--guest", required=True)
    parser.add_argument("--vga", default="std")
    parser.add_argument("--mode", default="auto")
    parser.add_argument("--keep")
    args = parser.parse_args()
    if not os.path.exists(BIOS[args.vga]):
        print(f"skipped: {BIOS[args.vga]} is missing; install the package seabios")
        return 77

    failures, seen = 0, set()
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "screen.png")
        vm = subprocess.Popen([args.trivisor, "run", "--quiet", "--mode", args.mode, "--kernel", args.guest,
                               "--initrd", BIOS[args.vga], "--vga", args.vga, "--screenshot", path, "--debug-exit", "0xf4"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        atexit.register(vm.kill)
        for line in vm.stdout:
            print(line.rstrip())
            if not line.startswith("picture "):
                continue
            name = line.split()[1]
            seen.add(name)
            width, height, rows = take_picture(vm, path)
            colours = len({row[i:i + 3] for row in rows for i in range(0, 3 * width, 3)})
            want = EXPECTED[name]
            good = (width, height) == want[:2] and want[2] <= colours <= want[3]
            if name in ("vbe110", "vbe111", "vbe112", "vbe117", "vbe118", "vbe143"):
                good = good and corner(name, rows, width, height)
            if not good:
                failures += 1
                print(f"FAILED {name}: {width}x{height}, {colours} colours, expected {want}")
            if args.keep:
                os.makedirs(args.keep, exist_ok=True)
                os.replace(path, os.path.join(args.keep, f"{args.vga}-{name}.png"))
            vm.stdin.write("\n")
            vm.stdin.flush()
        status = vm.wait()
    if status != 1:
        failures += 1
        print(f"FAILED: exit status {status}")
    for name in sorted(set(EXPECTED) - seen):
        failures += 1
        print(f"FAILED {name}: not shown")
    return failures != 0


if __name__ == "__main__":
    sys.exit(main())
