#!/usr/bin/env python3
"""What the host cannot do, as a guest meets it: a full disk pauses the machine and it goes on; a bad sector is an I/O error.

    guest_errors.py --trivisor EXE --kernel FILE --busybox FILE --modules DIR --program WRITER

The full disk is a limit on the size of files, raised while the machine waits. Bad sectors come from an NBD server, where
nbdkit is installed: reads, writes and flushes fail, in the guest with EIO, and then they work again.
"""
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from disk_guest import MIB, Guest, controllers, format_of, parser

CONTROLLERS = controllers(0)
# What Linux says of a read and of a write that failed. An ATA drive has an error bit for the former alone.
COMPLAINTS = {"ide": ("error: { UNC }", "error: { ABRT }"), "pvscsi": ("critical medium error",), "virtio": ()}


class Failure(Exception):
    pass


def expect(condition, what, lines):
    if not condition:
        raise Failure(what + ":\n" + "\n".join(lines[-30:]))


class Machine:
    """A run of the guest, with the lines that it and the VMM print."""

    def __init__(self, command):
        self.lines, self.changed = [], threading.Condition()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for raw in self.process.stdout:
            with self.changed:
                self.lines.append(raw.decode(errors="replace").rstrip())
                self.changed.notify_all()

    def wait_for(self, text, seconds=180):
        with self.changed:
            self.changed.wait_for(lambda: any(text in line for line in self.lines), seconds)
            expect(any(text in line for line in self.lines), f"no '{text}'", self.lines)

    def has(self, text):
        with self.changed:
            return sum(text in line for line in self.lines)

    def limit_files(self, size):
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def end(self):
        try:
            status = self.process.wait(180)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = "none: it hangs"
        self.reader.join()
        expect(status == 0, f"exit status {status}", self.lines)


def make_image(args, directory, kind):
    image = os.path.join(directory, "full")
    how = ["--format", "raw"] if kind == "raw" else ["--type", kind]
    subprocess.run([args.trivisor, "disk", "create", "--force", *how, image, str(16 * MIB)], check=True, stdout=subprocess.DEVNULL)
    return image


def check_image(args, image, kind):
    if kind != "raw":
        subprocess.run([args.trivisor, "disk", "check", image], check=True, stdout=subprocess.DEVNULL)


def full_disk(guest, directory, interface, path, kind):
    image = make_image(guest.args, directory, kind)
    # A sparse raw image is as long as it ever gets; the others grow.
    machine = Machine(guest.command(["fill", path], [f"{image},if={interface},format={format_of(kind)}"]))
    try:
        machine.wait_for("FILL begins")
        machine.limit_files(6 * MIB)
        machine.wait_for("no space left on the host for the guest's write; the machine waits")
        time.sleep(2.5)
        expect(not machine.has("FILL ends"), "it does not wait", machine.lines)
        expect(machine.has("no space left") == 1, "it says so again and again", machine.lines)
        machine.limit_files(resource.RLIM_INFINITY)
        machine.wait_for("there is space on the host again; going on", 30)
        machine.wait_for("FILL ends: 0 writes, 0 flushes, 0 reads failed, 0 different")
        machine.end()
        expect(not machine.has("KERNEL"), "the guest's kernel complains", machine.lines)
    finally:
        machine.process.kill()
    check_image(guest.args, image, kind)


def stop_when_full(guest, directory):
    """A machine that waits for space can be ended all the same."""
    kind = "monolithicSparse"
    image = make_image(guest.args, directory, kind)
    machine = Machine(guest.command(["fill", "/target0:0:"], [f"{image},if=pvscsi"]))
    try:
        machine.wait_for("FILL begins")
        machine.limit_files(6 * MIB)
        machine.wait_for("the machine waits")
        machine.process.terminate()
        machine.end()
    finally:
        machine.process.kill()
    check_image(guest.args, image, kind)


def bad_sectors(guest, directory, interface, path):
    socket, trigger, image = (os.path.join(directory, name) for name in ("nbd", "errors", "disk"))
    with open(image, "wb") as file:
        file.truncate(4 * MIB)
    fails = f'if [ -e "{trigger}" ]; then echo EIO injected >&2; exit 1; fi; '
    server = subprocess.Popen(["nbdkit", "--foreground", "--exit-with-parent", "--unix", socket, "eval", f"get_size=echo {4 * MIB}",
                               f"pread={fails}dd if={image} iflag=skip_bytes,count_bytes skip=$4 count=$3 bs=64K status=none",
                               f"pwrite={fails}dd of={image} oflag=seek_bytes seek=$4 bs=64K conv=notrunc status=none",
                               f"flush={fails}exit 0", "can_write=exit 0", "can_flush=exit 0"], stderr=subprocess.DEVNULL)
    machine = None
    try:
        for _ in range(100):
            if os.path.exists(socket):
                break
            time.sleep(0.05)
        machine = Machine(guest.command(["errors", path], [f"nbd+unix:///?socket={socket},if={interface}"]))
        machine.wait_for("ERRORS begin")
        open(trigger, "w", encoding="ascii").close()
        machine.wait_for("ERRORS end")
        os.unlink(trigger)
        machine.end()
        # Linux makes ENODATA of sense data that speak of the medium, for requests past its page cache.
        read = "error 61" if interface == "pvscsi" else "EIO"
        expect(machine.has(f"ERRORS end: read {read}, write EIO, flush EIO, buffered write 0, fsync EIO, buffered read EIO"),
               "not an error for each request", machine.lines)
        # The first descriptor has not been told yet of the page that was lost by way of the second.
        expect(machine.has("RECOVERED: read 0, write 0, flush EIO, buffered write 0, fsync 0, buffered read 0"),
               "it does not work again", machine.lines)
        for text in ("Buffer I/O error on dev", *COMPLAINTS[interface]):
            expect(any("KERNEL" in line and text in line for line in machine.lines), f"the guest's kernel does not say '{text}'",
                   machine.lines)
    finally:
        if machine:
            machine.process.kill()
        server.terminate()
        server.wait()
        for name in (socket, trigger):
            if os.path.exists(name):
                os.unlink(name)


def main():
    args = parser(__doc__.splitlines()[0]).parse_args()
    done = []
    with tempfile.TemporaryDirectory() as directory:
        guest = Guest(args, directory)
        try:
            for (interface, path), kind in zip(CONTROLLERS, ("raw", "monolithicSparse", "twoGbMaxExtentSparse")):
                done.append(f"a full disk with {interface}")
                full_disk(guest, directory, interface, path, kind)
            done.append("the end of a machine that waits")
            stop_when_full(guest, directory)
            for interface, path in CONTROLLERS if shutil.which("nbdkit") else ():
                done.append(f"bad sectors with {interface}")
                bad_sectors(guest, directory, interface, path)
        except (Failure, subprocess.CalledProcessError) as problem:
            print(f"FAILED: {done[-1]}: {problem}")
            sys.exit(1)
    print("passed: " + ", ".join(done))


if __name__ == "__main__":
    main()
