#!/usr/bin/env python3
"""Move a mouse and press its buttons as Linux's psmouse sees them: VMware's absolute pointer, and the older protocols.

    mouse.py --trivisor EXE --client EXE --kernel FILE --busybox FILE --modules DIR [--mode M]
"""
import argparse
import os
import re
import sys
import tempfile

import media
from machine import Failed, Machine

EV_SYN, EV_KEY, EV_REL, EV_ABS = range(4)
X, Y, WHEEL = 0, 1, 8
LEFT, RIGHT, MIDDLE, SIDE = 0x110, 0x111, 0x112, 0x113
WIDTH, HEIGHT = 720, 400  # the text mode's picture


class Mouse:
    """A guest with psmouse, and the viewer that points."""

    def __init__(self, vm, proto):
        self.vm, self.proto = vm, proto
        vm.wait_serial("ready " + proto, 150)
        self.names = re.findall(rf"^{proto}: (.*)$", vm.serial, re.MULTILINE)
        self.after = len(vm.serial)

    def events(self):
        """(type, code, value) of all that came, without the marks between them."""
        found = []
        for line in self.vm.serial[self.after:].splitlines()[:-1]:
            numbers = [int(n) for n in line.split() if n.isdigit()]
            if len(numbers) == 12:
                value = numbers[10] | numbers[11] << 16
                found.append((numbers[8], numbers[9], value - (value >> 31 << 32)))
        return [event for event in found if event[0] != EV_SYN]

    def expect(self, what, *wanted):
        """Wait until the WANTED events are there: all of them, and no others."""
        try:
            self.vm.wait(lambda: sorted(self.events()) == sorted(wanted), 30, what)
        except Failed as late:
            raise Failed(f"{self.proto}: {what}: {self.events()} instead of {list(wanted)}; {late}") from None
        self.after += len(self.vm.serial[self.after:])

    def expect_names(self, *wanted):
        if self.names != list(wanted):
            raise Failed(f"{self.proto}: the devices are {self.names}, not {list(wanted)}")

    def point(self, x, y, buttons=0):
        self.vm.view(f"size={WIDTH}x{HEIGHT}", f"point={x},{y},{buttons}")

    def done(self):
        self.vm.send_serial("\n")


def scaled(place, size):
    return place * 0xffff // (size - 1)


def absolute(vm):
    mouse = Mouse(vm, "any")
    mouse.expect_names("VirtualPS/2 VMware VMMouse, 3", "VirtualPS/2 VMware VMMouse, 0")
    mouse.point(100, 50)
    mouse.expect("a place", (EV_ABS, X, scaled(100, WIDTH)), (EV_ABS, Y, scaled(50, HEIGHT)))
    mouse.point(100, 399)
    mouse.expect("another row", (EV_ABS, Y, 0xffff))
    for mask, button in ((1, LEFT), (2, MIDDLE), (4, RIGHT)):
        mouse.point(100, 399, mask)
        mouse.expect("a button goes down", (EV_KEY, button, 1))
        mouse.point(719, 399, mask)
        mouse.expect("it is dragged", (EV_ABS, X, 0xffff))
        mouse.point(719, 399)
        mouse.expect("it goes up", (EV_KEY, button, 0))
        mouse.point(100, 399)
        mouse.expect("back", (EV_ABS, X, scaled(100, WIDTH)))
    mouse.point(100, 399, 8)
    mouse.expect("the wheel is turned away", (EV_REL, WHEEL, 1))
    mouse.point(100, 399)
    mouse.point(100, 399, 16)
    mouse.expect("the wheel is turned back", (EV_REL, WHEEL, -1))
    mouse.done()


def relative(vm, proto, name, wheel=False, side=False):
    mouse = Mouse(vm, proto)
    mouse.expect_names(name + ", 0")
    mouse.point(100, 100)
    mouse.vm.view("wait=0.3")
    mouse.after = len(vm.serial)  # how it came there depends on where it was
    mouse.point(110, 80)
    mouse.expect("a movement", (EV_REL, X, 10), (EV_REL, Y, -20))
    mouse.point(110, 80, 1 | 4)
    mouse.expect("two buttons", (EV_KEY, LEFT, 1), (EV_KEY, RIGHT, 1))
    mouse.point(110, 81)
    mouse.expect("they go up", (EV_KEY, LEFT, 0), (EV_KEY, RIGHT, 0), (EV_REL, Y, 1))
    if wheel:
        mouse.point(110, 81, 8)
        mouse.expect("the wheel is turned away", (EV_REL, WHEEL, 1))
        mouse.point(110, 81)
        mouse.point(110, 81, 16)
        mouse.expect("the wheel is turned back", (EV_REL, WHEEL, -1))
    if side:
        mouse.point(110, 81, 128)
        mouse.expect("the fourth button", (EV_KEY, SIDE, 1))
        mouse.point(110, 81)
        mouse.expect("it goes up", (EV_KEY, SIDE, 0))
    mouse.done()


def old(vm):
    relative(vm, "bare", "PS/2 Generic Mouse")
    relative(vm, "imps", "ImPS/2 Generic Wheel Mouse", wheel=True)
    relative(vm, "any", "ImExPS/2 Generic Explorer Mouse", wheel=True, side=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("trivisor", "client", "kernel", "busybox", "modules"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--mode", default="auto")
    args = parser.parse_args()
    media.need(args.kernel, args.busybox, *(os.path.join(args.modules, m + ".ko") for m in ("psmouse", "evdev")))
    failed = 0
    with tempfile.TemporaryDirectory() as directory:
        initrd = media.initramfs(args.busybox, os.path.join(directory, "initrd.gz"), os.path.join(media.HERE, "mouse.sh"),
                                 modules=args.modules)
        for hypervisor, protocols, test in (("vmware", "any", absolute), ("none", "bare,imps,any", old)):
            try:
                with Machine(args.trivisor, args.client, directory, hypervisor, "--mode", args.mode, "--memory", "256M",
                             "--hypervisor", hypervisor, "--no-reboot", "--kernel", args.kernel, "--initrd", initrd, "--append",
                             f"console=ttyS0 quiet panic=-1 trivisor=test trivisor.mice={protocols}") as vm:
                    test(vm)
                    status = vm.end(60)
                    if status or "guest test finished" not in vm.serial or "FAILED" in vm.serial:
                        raise Failed(f"status {status}: {vm.serial[-500:]}")
                    print(f"{hypervisor}: passed")
            except Failed as problem:
                print(f"{hypervisor}: {problem}")
                failed += 1
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
