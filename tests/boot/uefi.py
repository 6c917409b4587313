#!/usr/bin/env python3
"""Debian's OVMF starts from its flash, runs its shell's script from a FAT disk, and the script starts a kernel by its EFI stub.

    uefi.py --trivisor EXE --kernel FILE --busybox FILE [--mode M] [--interface ide|virtio] [--show]

The first run makes the file of variables and sets one; the second finds it and boots the kernel.
"""
import argparse
import os
import sys
import tempfile

import media

DISK_MIB = 64
SCRIPT = r"""@echo -off
fs0:
if exist done then
  setvar kept -guid 1e2bd5d3-6a4c-4f31-9d0a-7a3d1c5f9b20
  linux.efi console=ttyS0 quiet panic=-1 trivisor=test initrd=\initrd
endif
setvar kept -guid 1e2bd5d3-6a4c-4f31-9d0a-7a3d1c5f9b20 -bs -nv =5a5aa5a5
cp startup.nsh done
reset -s
"""
TEST = """echo "uefi: $([ -d /sys/firmware/efi ] && echo yes)"
echo "acpi: $(dmesg | grep -c 'ACPI: FACP')"
dmesg | grep -iE "no compatible bridge|can't claim|bug|warn" | head
"""


def make_disk(args, directory):
    initrd = media.initramfs(args.busybox, os.path.join(directory, "initrd"), TEST)
    return media.fat_volume(os.path.join(directory, "disk.img"), DISK_MIB,
                            {"startup.nsh": SCRIPT, "linux.efi": args.kernel, "initrd": initrd})


def run(args, disk, variables):
    status, text = media.run_vm(args.trivisor, "--firmware", "uefi", "--uefi-vars", variables, "--mode", args.mode, "--memory", "256M",
                                "--disk", f"{disk},if={args.interface},format=raw", *args.extra)
    if args.show or status:
        print(text)
    return status, text


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("trivisor", "kernel", "busybox"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--mode", default="auto")
    parser.add_argument("--interface", default="virtio")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("extra", nargs="*", help="more options for trivisor run, after --")
    args = parser.parse_args()
    media.need(media.OVMF, "/usr/bin/mcopy", args.kernel, args.busybox)

    problems = []
    with tempfile.TemporaryDirectory() as directory:
        disk, variables = make_disk(args, directory), os.path.join(directory, "variables")
        status, text = run(args, disk, variables)
        if status or os.path.getsize(variables) != os.path.getsize(media.OVMF.replace("CODE", "VARS")):
            problems.append(f"first run: exit status {status}, or no variables")
        status, text = run(args, disk, variables)
        for want in ("5A 5A A5 A5", "uefi: yes", "acpi: 1"):
            if want not in text:
                problems.append(f"second run: no '{want}'")
        if status:
            problems.append(f"second run: exit status {status}")
    print("\n".join("problem: " + p for p in problems) or "passed: the shell, a variable that is kept, and a kernel")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
