#!/usr/bin/env python3
"""fio on a disk: on the host itself, in a Trivisor guest with PVSCSI and with virtio, and in a QEMU TCG guest with virtio.

    disk.py [--mode MODE] [--seconds S] [--rounds N] [--size MIB] [--only JOB,...] [--options OPTIONS] [--ide] [--skip-qemu] [--json FILE] BUILD-DIR [GUESTS-DIR]

All with direct I/O on the same two raw files of the host's, one for small and one for large requests, which are in the host's page
cache as such requests leave them there; the guests have one CPU and the same kernel. The host's own
figures are with its page cache as well ("host"), since that is what a guest's disk is made of, and without ("direct").
Prints MiB/s for large requests and thousands a second for small ones, the best of some rounds that take turns, and how many times
QEMU's that is.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

from guest import libraries, mean, run

HERE = os.path.dirname(os.path.abspath(__file__))
# Name, kind of request, its size, how many at once.
JOBS = [("read-4k-1", "randread", "4k", 1), ("read-4k-32", "randread", "4k", 32),
        ("write-4k-1", "randwrite", "4k", 1), ("write-4k-32", "randwrite", "4k", 32),
        ("read-1M", "read", "1M", 4), ("write-1M", "write", "1M", 4)]
# Fields of fio's terse output, version 3: kilobytes and requests a second.
READ_BANDWIDTH, READ_RATE, WRITE_BANDWIDTH, WRITE_RATE = 6, 7, 47, 48


def job_file(jobs, seconds, direct, size):
    lines = ["[global]", f"direct={direct}", f"size={size}M", "ioengine=libaio", f"runtime={seconds}", "time_based", "thread",
             "stonewall", "invalidate=0", "randrepeat=0", "norandommap", "gtod_reduce=1"]
    for name, kind, block, depth in jobs:
        disk = "${LARGE}" if block == "1M" else "${SMALL}"
        lines += [f"[{name}]", f"filename={disk}", f"rw={kind}", f"bs={block}", f"iodepth={depth}"]
    return "\n".join(lines) + "\n"


def figure(fields):
    """(job, MiB/s or thousands a second) of a line of fio's."""
    name = fields[2]
    read = name.startswith("read")
    if name.endswith("M"):
        return name, int(fields[READ_BANDWIDTH if read else WRITE_BANDWIDTH]) / 1024
    return name, int(fields[READ_RATE if read else WRITE_RATE]) / 1000


def host(images, jobs, directory):
    path = os.path.join(directory, "jobs")
    with open(path, "w", encoding="ascii") as file:
        file.write(jobs)
    done = subprocess.run(["fio", "--output-format=terse", "--terse-version=3", path], check=True, capture_output=True, text=True,
                          env=os.environ | {"SMALL": images[0], "LARGE": images[1]})
    return dict(figure(line.split(";")) for line in done.stdout.splitlines() if line.startswith("3;"))


def guest(command):
    found = {}

    def look(words, _process):
        if words[:1] == ["FIO"] and words[1].startswith("3;"):
            found.update([figure(words[1].split(";"))])
        return False

    run(command, 600, look)
    return found


def warm(images):
    """
    What was written onto the disk, and all into the page cache: in single pages for small requests, in large pieces for large ones.
    (Kernels since 6.16 keep ext4's files in pieces of up to 2 MiB, and a write of 4 KiB to one goes through all its pages, which takes
    longer than all else that is measured here.)
    """
    for image, advice in zip(images, (os.POSIX_FADV_RANDOM, os.POSIX_FADV_SEQUENTIAL)):
        with open(image, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            os.posix_fadvise(file.fileno(), 0, 0, advice)
            while file.read(1 << 20):
                pass


class Guests:
    def __init__(self, args, directory, images, jobs):
        self.args, self.images = args, images
        self.kernel = os.path.join(args.guests, "vmlinuz-cloud-amd64")
        self.initrd = os.path.join(directory, "initrd")
        path = os.path.join(directory, "guest-jobs")
        with open(path, "w", encoding="ascii") as file:
            file.write(jobs)
        modules = os.path.join(args.guests, "modules-cloud-amd64")
        fio = shutil.which("fio")
        files = ["/init=" + os.path.join(HERE, "disk", "init"), "/jobs=" + path, "/bin/fio=" + fio]
        files += [f"/modules/{name}={os.path.join(modules, name)}" for name in sorted(os.listdir(modules))]
        files += [f"{library}={library}" for library in libraries(fio)]
        subprocess.run([sys.executable, os.path.join(HERE, "..", "tools", "mkinitramfs.py"), "--plain", "--output", self.initrd,
                        "--busybox", os.path.join(args.guests, "busybox-amd64")] +
                       [word for file in files for word in ("--add", file)], check=True)

    def append(self, disk):
        return f"console=ttyS0 quiet panic=-1 no_timer_check disks=/dev/{disk}a,/dev/{disk}b"

    def trivisor(self, interface, disk):
        return [os.path.join(self.args.build, "src", "cli", "trivisor"), "run", "--quiet", "--mode", self.args.mode,
                *self.args.options.split(), "--memory", "1G", "--kernel", self.kernel, "--initrd", self.initrd,
                *[word for image in self.images for word in ("--disk", f"{image},if={interface},format=raw")],
                "--append", self.append(disk)]

    def qemu(self):
        return ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "1024", "-display", "none", "-serial", "stdio",
                "-no-reboot", "-kernel", self.kernel, "-initrd", self.initrd,
                *[word for image in self.images for word in ("-drive", f"file={image},format=raw,if=virtio")],
                "-append", self.append("vd")]


def table(jobs, columns):
    tcg, native = columns["TCG virtio"], columns["host"]
    print(f"{'':12}" + "".join(f"{title:>12}" for title in columns) + f"{'PVSCSI':>10}{'virtio':>10}{'slower':>12}")
    print(f"{'':12}" + " " * 12 * len(columns) + f"{'x TCG':>10}{'x TCG':>10}{'of host':>12}")
    gains = {"PVSCSI": [], "virtio": []}
    for name, *_ in jobs:
        row = [f"{name:12}"]
        for column in columns.values():
            row.append(f"{column[name]:12.{1 if column[name] < 1000 else 0}f}" if name in column else f"{'-':>12}")
        ours = []
        for title, gain in gains.items():
            mine = columns[title].get(name)
            if mine:
                ours.append(mine)
            if mine and tcg.get(name):
                gain.append(mine / tcg[name])
                row.append(f"{gain[-1]:10.2f}")
            else:
                row.append(f"{'-':>10}")
        row.append(f"{100 * min(ours) / native[name]:10.0f} %" if ours and native.get(name) else f"{'-':>12}")
        print("".join(row))
    print("MiB/s of 1 MiB requests, thousands of 4 KiB requests a second")
    for title, gain in gains.items():
        if gain:
            print(f"{title}: {mean(gain):.2f} times TCG's virtio-blk on average, {min(gain):.2f} at least")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build")
    parser.add_argument("guests", nargs="?", default=os.path.join(HERE, "..", "artifacts"))
    parser.add_argument("--mode", default="bt")
    parser.add_argument("--options", default="", help="more options for trivisor run")
    parser.add_argument("--seconds", type=int, default=2, help="for each job")
    parser.add_argument("--rounds", type=int, default=3, help="of which the best counts")
    parser.add_argument("--size", type=int, default=512, help="of the file, in MiB")
    parser.add_argument("--only", default="", help="jobs, separated by commas")
    parser.add_argument("--ide", action="store_true", help="measure disks on IDE as well")
    parser.add_argument("--skip-qemu", action="store_true")
    parser.add_argument("--skip-host", action="store_true")
    parser.add_argument("--directory", help="where the file is to be")
    parser.add_argument("--json", help="write all figures there")
    args = parser.parse_args()
    if not shutil.which("fio"):
        print("disks: skipped; fio is not installed (apt-get install fio)")
        return
    if not os.path.exists(os.path.join(args.guests, "modules-cloud-amd64")):
        print("disks: skipped; tools/fetch-guests gets the kernel and its modules")
        return
    only = [word for word in args.only.split(",") if word]
    jobs = [job for job in JOBS if not only or job[0] in only]
    with tempfile.TemporaryDirectory(dir=args.directory) as directory:
        images = [os.path.join(directory, name) for name in ("small.img", "large.img")]
        for image in images:
            with open(image, "wb") as file:
                for _ in range(args.size):
                    file.write(os.urandom(1 << 20))
        columns = {"direct": {}, "host": {}, "PVSCSI": {}, "virtio": {}, "TCG virtio": {}}
        guests = Guests(args, directory, images, job_file(jobs, args.seconds, 1, args.size))
        runs = {"PVSCSI": lambda: guest(guests.trivisor("pvscsi", "sd")), "virtio": lambda: guest(guests.trivisor("virtio", "vd"))}
        if args.ide:
            columns["IDE"] = {}
            runs["IDE"] = lambda: guest(guests.trivisor("ide", "sd"))
        if not args.skip_qemu:
            runs["TCG virtio"] = lambda: guest(guests.qemu())
        if not args.skip_host:
            runs["direct"] = lambda: host(images, job_file(jobs, args.seconds, 1, args.size), directory)
            runs["host"] = lambda: host(images, job_file(jobs, args.seconds, 0, args.size), directory)
        for _ in range(args.rounds):
            for title, measure in runs.items():
                warm(images)
                for name, value in measure().items():
                    columns[title][name] = max(value, columns[title].get(name, 0))
    table(jobs, columns)
    if args.json:
        with open(args.json, "w", encoding="ascii") as file:
            json.dump(columns, file, indent=1)


if __name__ == "__main__":
    main()
