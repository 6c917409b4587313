#!/usr/bin/env python3
"""What the host cannot do, as a guest meets it: a full disk pauses the machine and it goes on; a bad sector is an I/O error.

    guest_errors.py --trivisor EXE --kernel FILE --busybox FILE --modules DIR --program WRITER

The full disk is a limit on the size of files, raised while the machine waits. Bad sectors come from nbdkit's error filter, where
nbdkit is installed.
"""
import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MKINITRAMFS = os.path.join(HERE, "..", "..", "tools", "mkinitramfs.py")
MIB = 1 << 20
# Interface of --disk, and what the path of its disk in the guest's /sys has.
CONTROLLERS = (("ide", "/ata"), ("pvscsi", "/target0:0:"), ("virtio", "/virtio"))


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


def full_disk(command, directory, args, interface, path, kind):
    image = os.path.join(directory, "full")
    subprocess.run([args.trivisor, "disk", "create", "--force", *kind, image, str(16 * MIB)], check=True, stdout=subprocess.DEVNULL)
    # A sparse raw image is as long as it ever gets; the others grow.
    machine = Machine(command(f"run=/writer,fill,{path}") +
                      ["--disk", f"{image},if={interface},format={'raw' if 'raw' in kind else 'vmdk'}"])
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
    if "raw" not in kind:
        subprocess.run([args.trivisor, "disk", "check", image], check=True, stdout=subprocess.DEVNULL)


def stop_when_full(command, directory, args):
    """A machine that waits for space can be ended all the same."""
    image = os.path.join(directory, "full")
    subprocess.run([args.trivisor, "disk", "create", "--force", image, str(16 * MIB)], check=True, stdout=subprocess.DEVNULL)
    machine = Machine(command("run=/writer,fill,/target0:0:") + ["--disk", f"{image},if=pvscsi"])
    try:
        machine.wait_for("FILL begins")
        machine.limit_files(6 * MIB)
        machine.wait_for("the machine waits")
        machine.process.terminate()
        machine.end()
    finally:
        machine.process.kill()
    subprocess.run([args.trivisor, "disk", "check", image], check=True, stdout=subprocess.DEVNULL)


def bad_sectors(command, directory, interface, path):
    socket, trigger = os.path.join(directory, "nbd"), os.path.join(directory, "errors")
    server = subprocess.Popen(["nbdkit", "--foreground", "--exit-with-parent", "--unix", socket, "--filter=error", "memory", "4M",
                               "error=EIO", "error-pread-rate=0%", "error-pwrite-rate=100%", f"error-file={trigger}"], stderr=subprocess.DEVNULL)
    machine = None
    try:
        for _ in range(100):
            if os.path.exists(socket):
                break
            time.sleep(0.05)
        machine = Machine(command(f"run=/writer,fill,{path}") + ["--disk", f"nbd+unix:///?socket={socket},if={interface}"])
        open(trigger, "w", encoding="ascii").close()
        machine.wait_for("FILL ends")
        machine.end()
        expect(machine.has("FILL ends: 64 writes, 0 flushes, 0 reads failed, 64 different"), "not an error for each write",
               machine.lines)
        expect(machine.has("KERNEL"), "the guest's kernel does not complain", machine.lines)
    finally:
        if machine:
            machine.process.kill()
        server.terminate()
        server.wait()
        for name in (socket, trigger):
            if os.path.exists(name):
                os.unlink(name)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("trivisor", "kernel", "busybox", "modules", "program"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--mode", default="bt")
    args = parser.parse_args()
    for path in (args.kernel, args.busybox, os.path.join(args.modules, "ata_piix.ko")):
        if not os.path.exists(path):
            print(f"skipped: {path} is missing; tools/fetch-guests gets it")
            sys.exit(77)
    with tempfile.TemporaryDirectory() as directory:
        initrd = os.path.join(directory, "initrd")
        files = ["/init=" + os.path.join(HERE, "guest", "init"), "/writer=" + args.program]
        files += [f"/modules/{m}={os.path.join(args.modules, m)}" for m in sorted(os.listdir(args.modules))]
        subprocess.run([sys.executable, MKINITRAMFS, "--plain", "--busybox", args.busybox, "--output", initrd]
                       + [word for f in files for word in ("--add", f)], check=True)

        def command(what):
            return [args.trivisor, "run", "--quiet", "--mode", args.mode, "--memory", "256M", "--kernel", args.kernel, "--initrd",
                    initrd, "--no-reboot", "--append", f"console=ttyS0 quiet panic=-1 no_timer_check {what}"]

        done = []
        try:
            for (interface, path), kind in zip(CONTROLLERS, (["--format", "raw"], ["--type", "monolithicSparse"],
                                                             ["--type", "twoGbMaxExtentSparse"])):
                done.append(f"a full disk with {interface}")
                full_disk(command, directory, args, interface, path, kind)
            done.append("the end of a machine that waits")
            stop_when_full(command, directory, args)
            for interface, path in CONTROLLERS if shutil.which("nbdkit") else ():
                done.append(f"bad sectors with {interface}")
                bad_sectors(command, directory, interface, path)
        except (Failure, subprocess.CalledProcessError) as problem:
            print(f"FAILED: {done[-1]}: {problem}")
            sys.exit(1)
    print("passed: " + ", ".join(done))


if __name__ == "__main__":
    main()
