#!/usr/bin/env python3
"""Boot a VMDK through SeaBIOS and GRUB, on PVSCSI by pasted commands and on virtio by its menu, use it from a shell on the screen, and check it afterwards.

    grub.py --trivisor EXE --client EXE --kernel FILE --busybox FILE --modules DIR [--mode M] [--pictures DIR]
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile

import media
from machine import Failed, Machine

CONFIG = """serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
set timeout=30
menuentry 'Something else' {
    echo nothing
}
menuentry 'Trivisor: a test' {
    linux /boot/vmlinuz console=tty0 quiet consoleblank=0
    initrd /boot/initrd.gz
}
"""
PASTED = "linux /boot/vmlinuz console=tty0 quiet consoleblank=0\\ninitrd /boot/initrd.gz\\nboot\\n"
DISKS = {"pvscsi": "/dev/sda1", "virtio": "/dev/vda1"}


def make_disk(args, directory):
    tree = os.path.join(directory, "tree")
    os.makedirs(os.path.join(tree, "boot", "grub"))
    shutil.copyfile(args.kernel, os.path.join(tree, "boot", "vmlinuz"))
    with open(os.path.join(tree, "boot", "grub", "grub.cfg"), "w") as f:
        f.write(CONFIG)
    with open(os.path.join(tree, "hello"), "w") as f:
        f.write("a word from the disk\n")
    media.initramfs(args.busybox, os.path.join(tree, "boot", "initrd.gz"), init="grub-init", modules=args.modules)
    image, vmdk = os.path.join(directory, "disk.img"), os.path.join(directory, "disk.vmdk")
    subprocess.run([os.path.join(media.TOOLS, "mkdisk"), tree, image, "64"], check=True)
    subprocess.run([args.trivisor, "disk", "convert", image, vmdk], check=True, stdout=subprocess.DEVNULL)
    os.remove(image)
    return vmdk


def boot(args, directory, vmdk, interface, device):
    with Machine(args.trivisor, args.client, args.pictures or directory, "grub-" + interface, "--mode", args.mode,
                 "--memory", "256M", "--cpus", "2", "--no-reboot", "--disk", f"{vmdk},if={interface}") as vm:
        vm.wait_screen("menu", "Trivisor: a test", 60)
        if interface == "pvscsi":  # its command line: what is pasted there comes whole, also while it loads
            vm.view("key=c", "wait=1", "paste=" + PASTED)
        else:
            vm.view("key=down", "key=enter")
        vm.wait_serial("READY " + device, 120)
        vm.view("type=cat /mnt/hello /mnt/old-* | tee /dev/ttyS0\\n")
        vm.wait_serial("a word from the disk", 60)
        vm.wait_screen("shell", "a word from the disk", 60)
        vm.view(f"type=echo written on {interface} >/mnt/old-{interface}; umount /mnt\\n", "wait=1")
        vm.view("type=poweroff -f\\n", last=True)
        status = vm.end(60)
        if status:
            raise Failed(f"exit status {status}: {vm.said.strip()[-300:]}")
        return vm.serial


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("trivisor", "client", "kernel", "busybox", "modules"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--mode", default="auto")
    parser.add_argument("--pictures", help="keep them there")
    args = parser.parse_args()
    media.need(args.kernel, args.busybox, args.modules, "/usr/bin/grub-mkimage", "/sbin/mke2fs", "/usr/lib/grub/i386-pc/boot.img")
    with tempfile.TemporaryDirectory() as directory:
        vmdk, said = make_disk(args, directory), ""
        for interface, device in DISKS.items():
            try:
                said = boot(args, directory, vmdk, interface, device)
            except Failed as error:
                print(f"FAILED {interface}: {error}")
                return 1
            print(f"ok {interface}")
        if "written on pvscsi" not in said:
            print(f"FAILED: the second boot does not see what the first wrote: {said[-500:]!r}")
            return 1
        return subprocess.run([args.trivisor, "disk", "check", vmdk]).returncode


if __name__ == "__main__":
    sys.exit(main())
