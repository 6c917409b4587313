#!/usr/bin/env python3
"""Make a small initramfs: busybox, /init and scripts.

    mkinitramfs.py --busybox FILE --output FILE [--plain] [--add PATH=FILE ...]

The archive is written directly in cpio's "newc" form, so that device nodes need no root and the result
depends on the inputs alone.
"""
import argparse
import gzip
import stat

APPLETS = """sh ash awk cat chmod cp cut date dd dmesg echo env expr false find free grep gzip gunzip head
hostname id kill ln ls md5sum mkdir mkfifo mknod mount mv nproc poweroff printf ps pwd reboot rm rmdir sed
seq sha256sum sleep sort stty sync tail tee test time top touch tr true umount uname uptime usleep vi wc
which xargs yes zcat setsid cttyhack""".split()


class Cpio:
    """A cpio archive in newc form (as the Linux kernel's initramfs documentation has it)."""

    def __init__(self):
        self.data = bytearray()
        self.inode = 0

    def add(self, name, mode, body=b"", rdev=(0, 0)):
        self.inode += 1
        encoded = name.encode() + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        fields = [self.inode, mode, 0, 0, links, 0, len(body), 0, 0, rdev[0], rdev[1], len(encoded), 0]
        self.data += b"070701" + b"".join(b"%08X" % f for f in fields) + encoded
        self._pad()
        self.data += body
        self._pad()

    def _pad(self):
        self.data += b"\0" * (-len(self.data) % 4)

    def finish(self):
        self.add("TRAILER!!!", 0)
        return bytes(self.data)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busybox", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--add", action="append", default=[], metavar="PATH=FILE",
                        help="an executable file to put at PATH")
    parser.add_argument("--plain", action="store_true", help="not compressed: a slow guest has less to do")
    args = parser.parse_args()

    cpio = Cpio()
    directories = set("bin dev etc lib proc root sys tmp".split())
    for item in args.add:
        parts = item.split("=", 1)[0].strip("/").split("/")
        directories.update("/".join(parts[:n]) for n in range(1, len(parts)))
    for directory in sorted(directories):
        cpio.add(directory, stat.S_IFDIR | 0o755)
    cpio.add("dev/console", stat.S_IFCHR | 0o600, rdev=(5, 1))
    cpio.add("dev/null", stat.S_IFCHR | 0o666, rdev=(1, 3))
    with open(args.busybox, "rb") as file:
        cpio.add("bin/busybox", stat.S_IFREG | 0o755, file.read())
    for applet in APPLETS:
        cpio.add("bin/" + applet, stat.S_IFLNK | 0o777, b"busybox")
    for item in args.add:
        path, file_name = item.split("=", 1)
        with open(file_name, "rb") as file:
            cpio.add(path.lstrip("/"), stat.S_IFREG | 0o755, file.read())
    with open(args.output, "wb") as out:
        if args.plain:
            out.write(cpio.finish())
            return
        with gzip.GzipFile(filename="", fileobj=out, mode="wb", compresslevel=6, mtime=0) as packed:
            packed.write(cpio.finish())


if __name__ == "__main__":
    main()
