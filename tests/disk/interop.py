#!/usr/bin/env python3
"""Disk images against other programs: qemu-img and libvmdk read what we write, we read what qemu-img
writes, and the verbs of `trivisor disk` do what they say.

    interop.py TRIVISOR
"""
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile

TYPES = ("monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized")
MIB = 1 << 20
failures = 0


def check(name, condition, detail=""):
    global failures
    if not condition:
        failures += 1
        print(f"FAILED {name}: {detail}")


def run(*args, status=0, name=None):
    result = subprocess.run(args, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    if status is not None:
        check(name or " ".join(args[:4]), result.returncode == status,
              f"{' '.join(args)}: {result.returncode}: {result.stdout[-500:]} {result.stderr[-500:]}")
    return result


def disk(*args, status=0):
    return run(sys.argv[1], "disk", *args, status=status)


def fails(words, *args):
    """One line on stderr with all `words`, status 1."""
    result = disk(*args, status=1)
    lines = result.stderr.splitlines()
    check(f"{args}: one line", len(lines) == 1, result.stderr)
    for word in words:
        check(f"{args}: says {word!r}", word in result.stderr, result.stderr)


def make_raw(path, size, seed):
    """Data, zeroes and holes in pieces of all sizes."""
    rng = random.Random(seed)
    with open(path, "wb") as f:
        f.truncate(size)
        for _ in range(60):
            at = rng.randrange(size // 512) * 512
            n = min(rng.choice((512, 4096, 65536, 300000 // 512 * 512)), size - at)
            f.seek(at)
            f.write(rng.choice((rng.randbytes(n), bytes(n), b"trivisor" * (n // 8))))


def same_as_raw(raw, image):
    run("qemu-img", "compare", "-f", "raw", "-F", "vmdk", raw, image)


def libvmdk(image, raw, directory):
    if not shutil.which("vmdkexport"):
        return
    info = run("vmdkinfo", image)
    check("vmdkinfo", "Disk type" in info.stdout, info.stdout)
    target = os.path.join(directory, "exported")
    run("vmdkexport", "-q", "-u", "-t", target, image)
    with open(raw, "rb") as a, open(target + ".raw" if os.path.exists(target + ".raw") else target, "rb") as b:
        check(f"vmdkexport {image}", a.read() == b.read(), "differs")
    for name in os.listdir(directory):
        if name.startswith("exported"):
            os.unlink(os.path.join(directory, name))


def ours_to_others(directory, raw):
    for kind in TYPES + ("vmfs",):
        image = os.path.join(directory, f"our-{kind}.vmdk")
        disk("convert", "--format", "raw", "--type", kind, raw, image)
        same_as_raw(raw, image)
        disk("compare", raw, image)
        if "Flat" not in kind and kind != "vmfs":
            run("qemu-img", "check", image)
        info = json.loads(run("qemu-img", "info", "--output=json", image).stdout)
        check(f"{kind}: qemu-img info", info["format-specific"]["data"]["create-type"] == kind, info)
        disk("check", image)
        if kind != "vmfs":
            libvmdk(image, raw, directory)
        info = json.loads(disk("info", "--json", image).stdout)
        check(f"{kind}: info", info["type"] == kind and info["size"] == os.path.getsize(raw), info)
        for entry in json.loads(disk("map", "--json", image).stdout):
            check(f"{kind}: map", entry["length"] > 0, entry)
        back = os.path.join(directory, "back.img")
        disk("convert", "--force", image, back)
        with open(raw, "rb") as a, open(back, "rb") as b:
            check(f"{kind}: back to raw", a.read() == b.read(), "differs")
        check(f"{kind}: sparse again", os.stat(back).st_blocks * 512 <= os.path.getsize(raw), "")


def others_to_ours(directory, raw):
    for kind in TYPES:
        image = os.path.join(directory, f"qemu-{kind}.vmdk")
        run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={kind}", raw, image)
        disk("compare", "--format", "raw", raw, image)
        disk("check", image)
        disk("info", image)
    image = os.path.join(directory, "zeroed.vmdk")
    run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "zeroed_grain=on", raw, image)
    disk("compare", "--format", "raw", raw, image)
    if shutil.which("qemu-nbd"):
        for form, end in (("qcow2", "qcow2"), ("vpc", "vhd"), ("vdi", "vdi"), ("vhdx", "vhdx")):
            image = os.path.join(directory, f"other.{end}")
            disk("convert", "--format", "raw", raw, image)
            run("qemu-img", "compare", "-f", "raw", "-F", form, raw, image)
            disk("compare", "--format", "raw", raw, image)


def patch(path, at, data):
    """Through qemu-io, where there is one, or by hand on a raw file."""
    with open(path, "r+b") as f:
        f.seek(at)
        f.write(data)


def chains(directory, raw):
    os.chdir(directory)
    base = "base.vmdk"
    disk("convert", "--format", "raw", raw, base)
    disk("snapshot", base, "snap.vmdk")
    info = json.loads(run("qemu-img", "info", "--output=json", "snap.vmdk").stdout)
    check("snapshot: qemu sees the parent", info.get("backing-filename", "").endswith(base), info)
    run("qemu-io", "-f", "vmdk", "-c", "write -P 0x5a 1000k 100k", "-c", "write -P 0xa5 512 512", "snap.vmdk")
    shutil.copy(raw, "changed.img")
    patch("changed.img", 1000 << 10, b"\x5a" * (100 << 10))
    patch("changed.img", 512, b"\xa5" * 512)
    disk("compare", "--format", "raw", "changed.img", "snap.vmdk")
    disk("check", "snap.vmdk")
    # A second level, made by qemu-img; then flattened, rebased and committed.
    run("qemu-img", "create", "-q", "-f", "vmdk", "-b", "snap.vmdk", "-F", "vmdk", "second.vmdk")
    disk("compare", "--format", "raw", "changed.img", "second.vmdk")
    disk("convert", "second.vmdk", "flat.vmdk", "--type", "monolithicFlat")
    same_as_raw("changed.img", "flat.vmdk")
    disk("rebase", "second.vmdk", base)
    disk("compare", "--format", "raw", "changed.img", "second.vmdk")
    disk("rebase", "second.vmdk")
    disk("compare", "--format", "raw", "changed.img", "second.vmdk")
    check("rebase to none", "parent" not in json.loads(disk("info", "--json", "second.vmdk").stdout))
    disk("commit", "snap.vmdk")
    disk("compare", "--format", "raw", "changed.img", base)
    disk("compare", "--format", "raw", "changed.img", "snap.vmdk")
    # The parent changes under its child.
    disk("snapshot", base, "late.vmdk")
    run("qemu-io", "-f", "vmdk", "-c", "write -P 1 0 512", base)
    fails(["late.vmdk", base, "CID"], "info", "late.vmdk")
    disk("rebase", "--unsafe", "late.vmdk", base)
    disk("info", "late.vmdk")
    disk("resize", base, "40M")
    check("resize", json.loads(disk("info", "--json", base).stdout)["size"] == 40 * MIB)
    run("qemu-img", "check", base)
    disk("check", base)
    run("qemu-io", "-f", "vmdk", "-c", "write -P 7 39m 64k", "-c", "read -P 7 39m 64k", base)
    disk("check", base)
    disk("create", "big.vmdk", "8G")
    disk("resize", "big.vmdk", "100G")
    run("qemu-io", "-f", "vmdk", "-c", "write -P 7 99g 64k", "-c", "read -P 7 99g 64k", "-c", "read -P 0 1g 64k",
        "big.vmdk")
    disk("check", "big.vmdk")
    disk("create", "split.vmdk", "5G", "--type", "twoGbMaxExtentSparse")
    check("split", os.path.exists("split-s003.vmdk"))
    run("qemu-io", "-f", "vmdk", "-c", "write -P 9 2040m 16m", "-c", "read -P 9 2040m 16m", "split.vmdk")
    disk("check", "split.vmdk")


def damage(directory):
    os.chdir(directory)
    disk("convert", "--format", "raw", "raw.img", "damaged.vmdk", "--force")
    with open("damaged.vmdk", "rb") as f:
        header = f.read(512)
    rgd, gd = (int.from_bytes(header[i:i + 8], "little") * 512 for i in (48, 56))
    # A table entry outside the file, a directory entry outside the file, a copy that differs.
    for name, at, data in (("entry", gd + 512 + 8, b"\xff" * 4), ("directory", gd, b"\xff\xff\xff\x7f"),
                           ("copy", rgd + 512, b"\0" * 64)):
        shutil.copy("damaged.vmdk", "d.vmdk")
        patch("d.vmdk", at, data)
        result = disk("check", "d.vmdk", status=1)
        check(f"damage {name}: offset", "offset" in result.stdout, result.stdout)
        disk("check", "--repair", "d.vmdk")
        disk("check", "d.vmdk")
        disk("compare", "--format", "raw", "raw.img", "d.vmdk")
        run("qemu-img", "check", "d.vmdk")
    with open("damaged.vmdk", "rb") as f:
        whole = f.read()
    for size in (0, 4, 511, 512, 5000, 11000, 15000):
        with open("cut.vmdk", "wb") as f:
            f.write(whole[:size])
        result = disk("info", "--format", "vmdk", "cut.vmdk", status=1)
        check(f"cut at {size}", "cut.vmdk" in result.stderr, result.stderr)
    disk("convert", "--format", "raw", "raw.img", "stream.vmdk", "--type", "streamOptimized")
    with open("stream.vmdk", "rb") as f:
        whole = f.read()
    with open("cut.vmdk", "wb") as f:
        f.write(whole[:len(whole) // 2 // 512 * 512])
    fails(["cut.vmdk", "offset"], "info", "cut.vmdk")
    for line in ('RW 100 FLAT "/etc/passwd" 0', 'RW 1 FLAT "../raw.img" 0', 'RW 100 FLAT "fifo" 0', 'RW 8 FLAT "link" 0',
                 'RW 8 FLAT "nothing" 0'):
        with open("hostile.vmdk", "w") as f:
            f.write(f'# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
                    f'{line}\n')
        if not os.path.exists("fifo"):
            os.mkfifo("fifo")
            os.symlink("raw.img", "link")
        fails([".vmdk" if "/" in line else ""], "info", "hostile.vmdk")
    with open("loop.vmdk", "w") as f:
        f.write('# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=12345678\nparentFileNameHint="loop.vmdk"\n'
                'createType="custom"\nRW 8 ZERO\n')
    fails(["loop"], "info", "loop.vmdk")
    fails(["raw.img", "exists"], "create", "raw.img", "1M")


def main():
    for tool in ("qemu-img", "qemu-io"):
        if not shutil.which(tool):
            print(f"skipped: no {tool}")
            sys.exit(77)
    sys.argv[1] = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as directory:
        raw = os.path.join(directory, "raw.img")
        make_raw(raw, 35 * MIB + 512 * 7, 1)
        ours_to_others(directory, raw)
        others_to_ours(directory, raw)
        chains(directory, raw)
        damage(directory)
    print("failures:", failures)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
