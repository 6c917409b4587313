#!/usr/bin/env python3
"""Guests write and flush; the VMM is killed; nothing that was acknowledged is lost, and every image is sound.

    guest_powercut.py --trivisor EXE --kernel FILE --busybox FILE --modules DIR --program WRITER [--kills N] [--seed N] [--keep DIR]

A guest has three disks, on IDE, PVSCSI and virtio, with images of different kinds, and a process that writes to each
(tests/disk/guest/writer.c). After a random time the VMM gets SIGKILL. The same images serve a few times, then others.
"""
import os
import random
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

from disk_guest import MIB, Guest, controllers, format_of, parser

SIZE, BLOCK, SECTOR = 32 * MIB, 4096, 512
KINDS = ("raw", "monolithicSparse", "twoGbMaxExtentSparse", "monolithicFlat", "snapshot")
CONTROLLERS = controllers(2)
MASK = (1 << 64) - 1


def mix(z):
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9 & MASK
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb & MASK
    return z ^ (z >> 31)


def choose(seed, disk, n, blocks):
    """As in writer.c: (first block, count)."""
    r = mix(((seed << 8 | disk) * 0x9e3779b97f4a7c15 + n) & MASK)
    block = (r >> 16) % blocks
    count = 1 if r & 1 else 1 + (r >> 1 & 0xffffffff) % 16
    return block, min(count, blocks - block)


class Image:
    def __init__(self, trivisor, directory, kind):
        self.trivisor, self.kind = trivisor, kind
        self.path = os.path.join(directory, kind + (".img" if kind == "raw" else ".vmdk"))
        self.directory = directory
        if kind == "raw":
            self.disk("create", "--format", "raw", self.path, str(SIZE))
        elif kind == "snapshot":
            base = os.path.join(directory, "base.vmdk")
            source = os.path.join(directory, "base.img")
            with open(source, "wb") as file:
                for block in range(0, SIZE // BLOCK, 3):
                    file.seek(block * BLOCK)
                    file.write(struct.pack("<QQ", block << 32, 0) * (BLOCK // 16))
                file.truncate(SIZE)
            self.disk("convert", "--to", "vmdk", source, base)
            self.disk("snapshot", base, self.path)
        else:
            self.disk("create", "--type", kind, self.path, str(SIZE))
        self.before = self.contents()

    def disk(self, *args):
        done = subprocess.run([self.trivisor, "disk", *args], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise AssertionError(f"{' '.join(args)}: {done.stdout}{done.stderr}")
        return done.stdout

    def contents(self):
        if self.kind == "raw":
            with open(self.path, "rb") as file:
                return file.read()
        out = os.path.join(self.directory, "contents")
        if os.path.exists(out):
            os.unlink(out)
        self.disk("convert", "--to", "raw", self.path, out)
        with open(out, "rb") as file:
            return file.read()

    def check(self):
        """Two programs look the image over."""
        if self.kind == "raw":
            return
        self.disk("check", self.path)
        if self.kind != "monolithicFlat" and shutil.which("qemu-img"): # which it cannot check
            done = subprocess.run(["qemu-img", "check", self.path], capture_output=True, text=True)
            if done.returncode:
                raise AssertionError(f"qemu-img check: {done.stdout}{done.stderr}")

    def verify(self, seed, disk, acknowledged, synchronous):
        """Every sector has what it had, or what a write of this round put there, not older than what was acknowledged."""
        blocks = SIZE // BLOCK
        low = {}  # by block: the last write that has to be there
        for n in range(1, acknowledged + 1):
            block, count = choose(seed, disk, n, blocks)
            for b in range(block, block + count):
                low[b] = n
        for n in synchronous:
            block, count = choose(seed, disk, n, blocks)
            for b in range(block, block + count):
                low[b] = max(low.get(b, 0), n)
        now = self.contents()
        if len(now) != SIZE:
            raise AssertionError(f"the image has {len(now)} bytes")
        changed = 0
        for b in range(blocks):
            new, old = now[b * BLOCK:(b + 1) * BLOCK], self.before[b * BLOCK:(b + 1) * BLOCK]
            if new == old and b not in low:
                continue
            changed += 1
            for at in range(0, BLOCK, SECTOR):
                sector = new[at:at + SECTOR]
                if b not in low and sector == old[at:at + SECTOR]:
                    continue
                where, mark = struct.unpack_from("<QQ", sector)
                n = where & 0xffffffff
                first, count = choose(seed, disk, n, blocks)
                if mark != seed or where >> 32 != b or sector != sector[:16] * (SECTOR // 16) or not first <= b < first + count:
                    raise AssertionError(f"block {b} sector {at // SECTOR}: {sector[:16].hex()}, after write {low.get(b, 0)}")
                if n < low.get(b, 0):
                    raise AssertionError(f"block {b} sector {at // SECTOR}: has write {n}, but write {low[b]} was acknowledged")
        self.before = now
        return changed


def run_and_kill(command, rng):
    """The guest's lines until it was killed at a random moment after its first acknowledgements."""
    data, kill_at = b"", None
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as vm:
        give_up = time.monotonic() + 240
        with selectors.DefaultSelector() as selector:
            selector.register(vm.stdout, selectors.EVENT_READ)
            while True:
                now = time.monotonic()
                if (kill_at and now >= kill_at) or now > give_up:
                    break
                selector.select(max(0, (kill_at or give_up) - now))
                if kill_at and time.monotonic() >= kill_at:
                    break
                piece = os.read(vm.stdout.fileno(), 65536)
                if not piece:
                    break
                data += piece
                if not kill_at and all(b"\nA %d " % disk in data for disk in range(len(CONTROLLERS))):
                    kill_at = time.monotonic() + rng.random() ** 2 * 1.5
        vm.send_signal(signal.SIGKILL)
        data += vm.stdout.read()
    lines = data.decode(errors="replace").split("\n")[:-1]  # the last one may be a part
    if not kill_at:
        raise AssertionError("the guest did not get to write:\n" + "\n".join(lines[-20:]))
    failed = [line for line in lines if "FAILED" in line]
    if failed:
        raise AssertionError("\n".join(failed))
    return lines


def acknowledged_by(lines, disk):
    last, synchronous = 0, []
    for line in lines:
        words = line.split()
        if len(words) == 3 and words[0] in "AF" and words[1] == str(disk) and words[2].isdigit():
            if words[0] == "A":
                last = max(last, int(words[2]))
            else:
                synchronous.append(int(words[2]))
    return last, synchronous


def main():
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--kills", type=int, default=6)
    options.add_argument("--each", type=int, default=2, help="kills that the same images see")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--keep", help="a directory for the images, which stay if something is wrong")
    args = options.parse_args()
    rng = random.Random(args.seed)
    total = {"kills": 0, "acknowledged": 0, "blocks": 0}
    with tempfile.TemporaryDirectory() as directory:
        guest = Guest(args, directory)
        images = []
        for kill in range(args.kills):
            if kill % args.each == 0:
                where = os.path.join(args.keep or directory, "images")
                shutil.rmtree(where, ignore_errors=True)
                os.makedirs(where)
                first = kill // args.each * len(CONTROLLERS)
                images = [Image(args.trivisor, where, KINDS[(first + i) % len(KINDS)]) for i in range(len(CONTROLLERS))]
            seed = args.seed * 1000 + kill
            disks = [f"{image.path},if={interface},format={format_of(image.kind)}" for image, (interface, _) in zip(images, CONTROLLERS)]
            command = guest.command([seed, 60, *[path for _, path in CONTROLLERS]], disks, 1 + kill % 2)
            lines = run_and_kill(command, rng)
            for disk, image in enumerate(images):
                last, synchronous = acknowledged_by(lines, disk)
                try:
                    image.check()
                    blocks = image.verify(seed, disk, last, synchronous)
                except AssertionError as problem:
                    print(f"FAILED: kill {kill} of seed {args.seed}: {image.kind} on {CONTROLLERS[disk][0]}: {problem}")
                    sys.exit(1)
                total["acknowledged"] += last
                total["blocks"] += blocks
            total["kills"] += 1
    print(f"passed: {total['kills']} kills, {total['kills'] * len(CONTROLLERS)} images, {total['acknowledged']} acknowledged writes, "
          f"{total['blocks']} changed blocks looked at")


if __name__ == "__main__":
    main()
