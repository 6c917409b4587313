#!/usr/bin/env python3
"""A kernel that firmware boots: --kernel with --firmware uefi, and with --bios where the option ROM for it is installed.

    fw_kernel.py --trivisor EXE --kernel FILE --busybox FILE
"""
import argparse
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
MKINITRAMFS = os.path.join(HERE, "..", "..", "tools", "mkinitramfs.py")
TEST = """echo "uefi: $([ -d /sys/firmware/efi ] && echo yes || echo no)"
echo "words: $(grep -o last=word /proc/cmdline)"
"""
FIRMWARE = [  # option, value, what must be there, what the guest says
    ("--firmware", "uefi", "/usr/share/OVMF/OVMF_CODE_4M.fd", "uefi: yes"),
    ("--bios", "/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/linuxboot_dma.bin", "uefi: no"),
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
        test, initrd = os.path.join(directory, "test"), os.path.join(directory, "initrd")
        with open(test, "w", encoding="ascii") as f:
            f.write(TEST)
        subprocess.run([sys.executable, MKINITRAMFS, "--busybox", args.busybox, "--output", initrd,
                        "--add", "/init=" + os.path.join(HERE, "init"), "--add", "/test=" + test], check=True)
        for option, value, _, want in there:
            command = [args.trivisor, "run", "--memory", "256M", "--no-reboot", "--quiet", option, value,
                       "--kernel", args.kernel, "--initrd", initrd,
                       "--append", "console=ttyS0 quiet panic=-1 trivisor=test last=word"]
            vm = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=55)
            text = vm.stdout.decode(errors="replace")
            if vm.returncode or want not in text or "words: last=word" not in text:
                print(text)
                problems.append(f"problem: {option} {value}: exit status {vm.returncode}, or no '{want}'")
    print("\n".join(problems) or f"passed: {', '.join(f[0] + ' ' + f[1] for f in there)}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
