#!/usr/bin/env python3
"""OVMF finds GRUB on each kind of drive, and GRUB boots a kernel; a boot entry in the variables is kept and used.

    grub_efi.py --trivisor EXE --kernel FILE --busybox FILE [--mode M] [--show] [CASE...]

Cases: ide, pvscsi (by a driver of ours, the adapter's option ROM), virtio, cdrom (El Torito), entry (a disk that boots by an entry alone, as an installed Debian does).
"""
import argparse
import os
import shutil
import sys
import tempfile

import media

GRUB = """search --file --set=root /boot/vmlinuz
echo GRUB on $root
linux /boot/vmlinuz console=ttyS0 quiet panic=-1 trivisor=test grub=$root
initrd /boot/initrd.gz
boot
"""
TEST = """echo "uefi: $([ -d /sys/firmware/efi ] && echo yes || echo no)"
echo "loaded by $(tr ' ' '\\n' </proc/cmdline | grep grub=)"
"""
# Runs in the UEFI shell, which comes when nothing else boots.
ENTRY = """@echo -off
fs0:
bcfg boot add 0 fs0:\\EFI\\debian\\grubx64.efi debian
reset
"""
DISK_MIB = 48
PLACES = {"ide": "hd0,msdos1", "pvscsi": "hd0,msdos1", "virtio": "hd0,msdos1", "cdrom": "cd0", "entry": "hd0,msdos1"}


def make_cd(directory, grub, files):
    """A CD whose El Torito image is a FAT volume with GRUB; the kernel is in the ISO 9660 file system."""
    tree, iso = os.path.join(directory, "tree"), os.path.join(directory, "cd.iso")
    os.makedirs(os.path.join(tree, "boot"))
    for name, source in files.items():
        shutil.copyfile(source, os.path.join(tree, name))
    media.fat_volume(os.path.join(tree, "efi.img"), 4, {"EFI/BOOT/BOOTX64.EFI": grub})
    media.quietly("xorriso", "-as", "mkisofs", "-o", iso, "-R", "-e", "efi.img", "-no-emul-boot", tree)
    return iso


def problems_of(case, status, text):
    wanted = ["uefi: yes", f"loaded by grub={PLACES[case]}\n"]
    missing = [want for want in wanted if want not in text]
    return [f"{case}: exit status {status}, no {missing}"] if status or missing else []


def try_case(args, directory, case, grub, files):
    options = ["--firmware", "uefi", "--mode", args.mode, "--memory", "256M"]
    if case == "cdrom":
        options += ["--cdrom", make_cd(directory, grub, files)]
    else:
        loader = {"EFI/debian/grubx64.efi": grub, "startup.nsh": ENTRY} if case == "entry" else {"EFI/BOOT/BOOTX64.EFI": grub}
        disk = media.fat_disk(os.path.join(directory, "disk.img"), DISK_MIB, files | loader)
        interface = "virtio" if case == "entry" else case
        options += ["--disk", f"{disk},if={interface},format=raw"]
    problems = []
    if case == "entry":
        options += ["--uefi-vars", os.path.join(directory, "variables")]
        status, text = media.run_vm(args.trivisor, *options)
        if status != 3:
            problems.append(f"entry: exit status {status} of the first run, which was to reset")
    status, text = media.run_vm(args.trivisor, *options)
    problems += problems_of(case, status, text)
    if args.show or problems:
        print(text)
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("trivisor", "kernel", "busybox"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--mode", default="auto")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=" ".join(PLACES))
    args = parser.parse_args()
    media.need(media.OVMF, "/usr/bin/mcopy", "/usr/bin/grub-mkimage", "/usr/lib/grub/x86_64-efi", "/usr/bin/xorriso",
               args.kernel, args.busybox)

    problems = []
    with tempfile.TemporaryDirectory() as directory:
        grub = media.grub_efi(os.path.join(directory, "grub.efi"), GRUB)
        files = {"boot/vmlinuz": args.kernel,
                 "boot/initrd.gz": media.initramfs(args.busybox, os.path.join(directory, "initrd.gz"), TEST)}
        for case in args.cases or PLACES:
            found = try_case(args, directory, case, grub, files)
            print("\n".join("problem: " + p for p in found) or f"ok {case}", flush=True)
            problems += found
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
