#!/usr/bin/env python3
"""A kernel that firmware boots: --kernel with --firmware uefi, and with a BIOS where the option ROM for it is installed.

    fw_kernel.py --trivisor EXE --kernel FILE --busybox FILE
"""
import argparse
import os
import sys
import tempfile

import media

TEST = """echo "uefi: $([ -d /sys/firmware/efi ] && echo yes || echo no)"
echo "loader: $(cat /proc/sys/kernel/bootloader_type)"
echo "words: $(grep -o last=word /proc/cmdline)"
"""
OPTION_ROM = "/usr/share/qemu/linuxboot_dma.bin"
OPTION_ROM_LOADER = "loader: 176"  # b, QEMU's, version 0
FIRMWARE = [  # option, value, what must be there, what the guest says
    ("--firmware", "uefi", media.OVMF, "uefi: yes"),
    ("--bios", media.BIOS, OPTION_ROM, OPTION_ROM_LOADER),
    ("--firmware", "bios", OPTION_ROM, OPTION_ROM_LOADER),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("trivisor", "kernel", "busybox"):
        parser.add_argument("--" + name, required=True)
    args = parser.parse_args()
    there = [f for f in FIRMWARE if os.path.exists(f[2])]
    if not there or not os.path.exists(args.kernel) or not os.path.exists(args.busybox):
        print("skipped: install the package ovmf, and run tools/fetch-guests")
        sys.exit(77)

    problems = []
    with tempfile.TemporaryDirectory() as directory:
        initrd = media.initramfs(args.busybox, os.path.join(directory, "initrd"), TEST)
        for option, value, _, want in there:
            status, text = media.run_vm(args.trivisor, "--memory", "256M", option, value, "--kernel", args.kernel, "--initrd", initrd,
                                        "--append", "console=ttyS0 quiet panic=-1 trivisor=test last=word")
            if status or want not in text or "words: last=word" not in text:
                print(text)
                problems.append(f"problem: {option} {value}: exit status {status}, or no '{want}'")
    print("\n".join(problems) or f"passed: {', '.join(f[0] + ' ' + f[1] for f in there)}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
