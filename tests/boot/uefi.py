#!/usr/bin/env python3
"""Debian's OVMF starts from its flash, runs its shell's script from a FAT disk, and the script starts a kernel by its EFI stub.

    uefi.py --trivisor EXE --kernel FILE --busybox FILE [--mode M] [--interface ide|virtio|pvscsi] [--show]

The first run makes the file of variables and sets one; the second finds it and boots the kernel.
"""
import argparse
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
MKINITRAMFS = os.path.join(HERE, "..", "..", "tools", "mkinitramfs.py")
OVMF = "/usr/share/OVMF/OVMF_CODE_4M.fd"
DISK_SIZE = 64 << 20
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
    script, test, initrd, disk = (os.path.join(directory, n) for n in ("startup.nsh", "test", "initrd", "disk.img"))
    for path, text in ((script, SCRIPT), (test, TEST)):
        with open(path, "w", encoding="ascii") as f:
            f.write(text)
    subprocess.run([sys.executable, MKINITRAMFS, "--busybox", args.busybox, "--output", initrd,
                    "--add", "/init=" + os.path.join(HERE, "init"), "--add", "/test=" + test], check=True)
    with open(disk, "wb") as f:
        f.truncate(DISK_SIZE)
    subprocess.run(["mformat", "-F", "-i", disk, "::"], check=True)
    for source, target in ((script, "startup.nsh"), (args.kernel, "linux.efi"), (initrd, "initrd")):
        subprocess.run(["mcopy", "-i", disk, source, "::" + target], check=True)
    return disk


def run(args, disk, variables):
    command = [args.trivisor, "run", "--firmware", "uefi", "--uefi-vars", variables, "--mode", args.mode, "--memory", "256M",
               "--no-reboot", "--quiet", "--disk", f"{disk},if={args.interface},format=raw"] + args.extra
    vm = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=60)
    text = vm.stdout.decode(errors="replace").replace("\r", "")
    if args.show or vm.returncode:
        print(text)
    return vm.returncode, text


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("trivisor", "kernel", "busybox"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--mode", default="auto")
    parser.add_argument("--interface", default="virtio")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("extra", nargs="*", help="more options for trivisor run, after --")
    args = parser.parse_args()
    for path, where in ((OVMF, "the package ovmf"), ("/usr/bin/mcopy", "the package mtools"),
                        (args.kernel, "tools/fetch-guests"), (args.busybox, "tools/fetch-guests")):
        if not os.path.exists(path):
            print(f"skipped: {path} is missing; {where} has it")
            sys.exit(77)

    problems = []
    with tempfile.TemporaryDirectory() as directory:
        disk, variables = make_disk(args, directory), os.path.join(directory, "variables")
        status, text = run(args, disk, variables)
        if status or os.path.getsize(variables) != os.path.getsize(OVMF.replace("CODE", "VARS")):
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
