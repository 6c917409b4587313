#!/usr/bin/env python3
"""Boot what a user has: installed systems from VMDK disks, the installer's CD, memtest86+, a boot floppy.

    installed.py --trivisor EXE --client EXE [--directory DIR] [CASE...]

Each case looks at the screen through a VNC viewer and types there. What is made from Debian's packages (disks, a CD, a floppy)
and the pictures stay in DIR (artifacts/installed). Without CASE all of them run; --list names them.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys

import media
from machine import Failed, Machine

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
SYSLINUX = "/usr/lib/syslinux/modules/bios"
ISOLINUX = "/usr/lib/ISOLINUX/isolinux.bin"
PROMPT = "root@debian:~#"
WHITE = b"\xff\xff\xff"
EFI_SYSTEM = """search --label --set=root root
linux /vmlinuz root=LABEL=root ro console=ttyS0,115200 console=tty0
initrd /initrd.img
boot
"""
EFI_INSTALLER = """search --file --set=root /initrd.gz
linux /linux ---
initrd /initrd.gz
boot
"""
BITS = {"amd64": "x86_64", "i386": "i686"}


def need(*paths):
    for path in paths:
        if not os.path.exists(path):
            raise Failed(f"{path} is missing")


def run(*command):
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


class Bench:
    """Options of the run, and the things to boot, made when first asked for."""

    def __init__(self, args):
        self.args, self.directory = args, args.directory
        os.makedirs(self.directory, exist_ok=True)

    def path(self, name):
        return os.path.join(self.directory, name)

    def machine(self, name, *options):
        return Machine(self.args.trivisor, self.args.client, self.directory, name, "--mode", self.args.mode, *options)

    def package(self, name):
        """The files of one of Debian's packages as a tree."""
        tree = self.path("package-" + name)
        if not os.path.exists(tree):
            work = self.path("download")
            shutil.rmtree(work, ignore_errors=True)
            os.makedirs(work)
            subprocess.run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", name], cwd=work, check=True)
            run("dpkg", "-x", os.path.join(work, os.listdir(work)[0]), tree)
            shutil.rmtree(work)
        return tree

    def disk(self, arch):
        """An installed system on a VMDK."""
        vmdk, raw = self.path(f"debian-{arch}.vmdk"), self.path(f"debian-{arch}.img")
        if not os.path.exists(vmdk):
            run(os.path.join(TOP, "tools", "mksystem"), arch, raw)
            run(self.args.trivisor, "disk", "convert", "--force", raw, vmdk)
            os.remove(raw)
        return vmdk

    def installer(self, arch, kind):
        """The netboot installer's KIND (text, gtk) as a CD with isolinux and Debian's menu."""
        iso, tree = self.path(f"installer-{arch}-{kind}.iso"), self.path("tree")
        if not os.path.exists(iso):
            need(ISOLINUX)
            images = self.package(f"debian-installer-12-netboot-{arch}")
            shutil.rmtree(tree, ignore_errors=True)
            shutil.copytree(f"{images}/usr/lib/debian-installer/images/12/{arch}/{kind}/debian-installer",
                            f"{tree}/debian-installer", symlinks=False)
            shutil.copy(ISOLINUX, tree)
            for name in ("ldlinux.c32", "libcom32.c32", "libutil.c32", "vesamenu.c32"):
                shutil.copy(os.path.join(SYSLINUX, name), tree)
            with open(f"{tree}/isolinux.cfg", "w") as config:
                config.write(f"path debian-installer/{arch}/boot-screens/\n"
                             f"include debian-installer/{arch}/boot-screens/menu.cfg\n"
                             f"default debian-installer/{arch}/boot-screens/vesamenu.c32\nprompt 0\ntimeout 0\n")
            run("xorriso", "-report_about", "SORRY", "-as", "mkisofs", "-quiet", "-o", iso, "-J", "-R", "-b", "isolinux.bin", "-c", "boot.cat",
                "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", tree)
            shutil.rmtree(tree)
        return iso

    def efi_disk(self):
        """A small disk with GRUB for UEFI, which starts the system that is on another one."""
        grub = media.grub_efi(self.path("grub.efi"), EFI_SYSTEM)
        return media.fat_disk(self.path("efi.img"), 8, {"EFI/BOOT/BOOTX64.EFI": grub})

    def efi_installer(self):
        """The text installer as a CD that UEFI firmware boots."""
        iso, tree = self.path("installer-efi.iso"), self.path("tree")
        if not os.path.exists(iso):
            images = self.package("debian-installer-12-netboot-amd64")
            boot = f"{images}/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64"
            shutil.rmtree(tree, ignore_errors=True)
            os.makedirs(tree)
            for name in ("linux", "initrd.gz"):
                shutil.copy(os.path.join(boot, name), tree)
            grub = media.grub_efi(self.path("grub-installer.efi"), EFI_INSTALLER)
            media.fat_volume(os.path.join(tree, "efi.img"), 4, {"EFI/BOOT/BOOTX64.EFI": grub})
            run("xorriso", "-report_about", "SORRY", "-as", "mkisofs", "-quiet", "-o", iso, "-R", "-e", "efi.img", "-no-emul-boot", tree)
            shutil.rmtree(tree)
        return iso

    def empty_disk(self):
        path = self.path("empty.vmdk")
        if not os.path.exists(path):
            run(self.args.trivisor, "disk", "create", path, "4G")
        return path

    def memtest(self, name):
        return os.path.join(self.package("memtest86+"), "boot", "memtest86+" + name + ".bin")

    def memtest_floppy(self):
        """A floppy with memtest86+, which brings a boot sector of its own."""
        image = self.path("memtest.img")
        with open(self.memtest("ia32"), "rb") as program, open(image, "wb") as file:
            file.write(program.read())
            file.truncate(1440 << 10)
        return image

    def syslinux_floppy(self):
        """A floppy with SYSLINUX, whose prompt starts memtest86+ as "memtest"."""
        image = self.path("syslinux.img")
        if not os.path.exists(image):
            config = self.path("syslinux.cfg")
            with open(config, "w") as file:
                file.write("prompt 1\ntimeout 0\ndefault memtest\nlabel memtest\n  linux memtest\n")
            run("mformat", "-C", "-f", "1440", "-i", image, "::")
            run("mcopy", "-i", image, config, "::syslinux.cfg")
            run("mcopy", "-i", image, self.memtest("ia32"), "::memtest")
            run("syslinux", "--install", image)
        return image


def log_in_and_work(vm, bench, arch, disk):
    """At the login prompts: log in on the screen by VNC and on the serial console, look about, power off."""
    vm.view("type=root\\n")
    vm.wait_screen("login", "Password:", 30)
    vm.view("type=trivisor\\n")
    vm.wait_screen("login", PROMPT, 60)
    vm.view("type=echo \"on screen: $((6*7)) {[~$(uname -m)~]}\" | tee /dev/ttyS0\\n")
    answer = f"on screen: 42 {{[~{BITS[arch]}~]}}"
    vm.wait_serial(answer, 30)
    vm.wait_screen("shell", answer, 30)
    at = len(vm.serial)
    vm.send_serial("root\n")
    vm.wait_serial("Password:", 30, at)
    vm.send_serial("trivisor\n")
    vm.wait_serial(PROMPT, 60, at)
    at = len(vm.serial)
    vm.send_serial("dd if=/dev/urandom of=/root/data bs=1M count=16 2>&1 | tail -1; md5sum </root/data >/root/sum; sync;"
                   " echo 3 >/proc/sys/vm/drop_caches; md5sum </root/data | cmp - /root/sum && echo data is\\ well\n")
    vm.wait_serial("data is well", 60, at)
    at = len(vm.serial)
    vm.send_serial("systemctl is-system-running --wait; systemctl --failed --no-legend; ls /sys/block; findmnt -no SOURCE /;"
                   " dmesg --level=emerg,alert,crit,err; echo that\\ was all\n")
    vm.wait_serial("that was all", 120, at)
    said = vm.serial[at:]
    if "running\n" not in said or "degraded" in said or f"/dev/{disk}1" not in said:
        raise Failed(f"the system says {said[-600:]!r}")
    at = len(vm.serial)
    vm.send_serial("poweroff\n")
    status = vm.end(120)
    if status:
        raise Failed(f"exit status {status} after power-off: {vm.said.strip()[-300:]}")


def boot_disk(bench, name, arch, interface, disk, vga, entry, cpus):
    """GRUB's menu, a login on both consoles, work, and power-off."""
    with bench.machine(name, "--memory", "512M", "--cpus", cpus, "--vga", vga,
                       "--disk", f"{bench.disk(arch)},if={interface},snapshot") as vm:
        vm.wait_screen("grub", grub_menu, 60)
        vm.view("key=down", "key=enter") if entry else vm.view("key=enter")
        vm.wait_serial("debian login:", 300)
        vm.wait_screen("prompt", "debian login:", 60)
        booted = vm.seconds()
        log_in_and_work(vm, bench, arch, disk)
        return f"login after {booted:.0f} s, off after {vm.seconds():.0f} s"


def boot_uefi(bench, name, interface, disk):
    """UEFI firmware and GRUB from one disk, the system from the other, on the same controller; then as boot_disk()."""
    with bench.machine(name, "--memory", "512M", "--vga", "std", "--firmware", "uefi",
                       "--disk", f"{bench.efi_disk()},if={interface},format=raw,ro",
                       "--disk", f"{bench.disk('amd64')},if={interface},snapshot") as vm:
        vm.wait_serial("debian login:", 300)
        vm.wait_screen("prompt", "debian login:", 60)
        booted = vm.seconds()
        log_in_and_work(vm, bench, "amd64", disk)
        return f"login after {booted:.0f} s, off after {vm.seconds():.0f} s"


def boot_uefi_installer(bench, name):
    with bench.machine(name, "--memory", "1G", "--vga", "std", "--firmware", "uefi", "--cdrom", bench.efi_installer()) as vm:
        vm.wait_screen("first", lambda s: s.has_shape("Choose the language to be used for the installation"), 200)
        return f"first screen after {vm.seconds():.0f} s"


def grub_menu(screen):
    """GRUB draws its menu in a VESA mode with a font and a grid of its own."""
    return screen.width in (640, 800) and screen.has_shape("Debian GNU/Linux, text mode", 2, 12)


def busy_below(screen):
    """The graphical installer draws its banner first and the list of languages then."""
    return screen.width >= 800 and len({bits for row in screen.cells[8:] for bits in row}) > 100


def boot_installer(bench, name, arch, kind):
    """isolinux's menu on a CD, then the installer's first screen; one key goes through to it."""
    with bench.machine(name, "--memory", "1G", "--cdrom", bench.installer(arch, kind), "--boot", "d", "--disk",
                       f"{bench.empty_disk()},if=ide,snapshot") as vm:
        vm.wait_screen("menu", lambda s: s.has_shape("Debian GNU/Linux installer menu (BIOS mode)", 0, 4, WHITE), 60)
        vm.view("key=enter")
        if kind == "text":
            vm.wait_screen("first", lambda s: s.has_shape("Choose the language to be used for the installation"), 200)
            first = vm.seconds()
            vm.view("key=down", "key=enter")  # Esperanto
            vm.wait_screen("second", lambda s: s.has_shape("estos uzata por difini vian horzonon"), 60)
        else:
            before = vm.wait_screen("first", busy_below, 300)
            first = vm.seconds()
            seen = [before]

            def settled(screen):
                seen.append(screen)
                return busy_below(screen) and screen.rows == seen[-2].rows
            before = vm.wait_screen("first", settled, 60)
            vm.view("key=down")
            vm.wait_screen("second", lambda s: busy_below(s) and s.rows != before.rows, 60)
        return f"first screen after {first:.0f} s"


def memory_pass(vm):
    """Wait for the end of memtest86+'s first pass."""
    def done(screen):
        text = "\n".join(screen.text())
        if re.search("Errors: *[1-9]", text):
            raise Failed(text)
        return "Pass:  1" in text or "Test Complete" in text
    vm.wait_screen("pass", done, 900)
    return f"a pass without errors in {vm.seconds():.0f} s"


def memtest_kernel(bench, name):
    with bench.machine(name, "--memory", "32M", "--cpus", "2", "--vga", "std", "--kernel", bench.memtest("x64")) as vm:
        return memory_pass(vm)


def memtest_floppy(bench, name):
    with bench.machine(name, "--memory", "24M", "--floppy", bench.memtest_floppy(), "--boot", "a") as vm:
        return memory_pass(vm)


def memtest_syslinux(bench, name):
    with bench.machine(name, "--memory", "24M", "--floppy", bench.syslinux_floppy(), "--boot", "a") as vm:
        vm.wait_screen("prompt", "boot:", 60)
        vm.view("type=memtest\\n")
        return memory_pass(vm)


CASES = {f"{arch}-{interface}": (boot_disk, arch, interface, disk, vga, entry, cpus)
         for arch in BITS
         for interface, disk, vga, entry, cpus in (("ide", "sda", "std", 0, "1"), ("pvscsi", "sda", "svga", 0, "2"),
                                                   ("virtio", "vda", "std", 1, "2"))}
CASES |= {f"amd64-uefi-{interface}": (boot_uefi, interface, disk) for interface, disk in (("ide", "sdb"), ("pvscsi", "sdb"), ("virtio", "vdb"))}
CASES |= {"installer-amd64-uefi": (boot_uefi_installer,)}
CASES |= {f"installer-{arch}-{kind}": (boot_installer, arch, kind) for arch in BITS for kind in ("text", "gtk")}
CASES |= {"memtest-kernel": (memtest_kernel,), "memtest-floppy": (memtest_floppy,),
          "memtest-syslinux": (memtest_syslinux,)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trivisor", required=True)
    parser.add_argument("--client", required=True, help="vnc_client of tests/display")
    parser.add_argument("--mode", default="auto")
    parser.add_argument("--directory", default=os.path.join(TOP, "artifacts", "installed"))
    parser.add_argument("--patience", type=float, default=1, help="times what is waited for each step; more on a busy host")
    parser.add_argument("--list", action="store_true", help="print the cases' names")
    parser.add_argument("cases", nargs="*", metavar="CASE")
    args = parser.parse_args()
    if args.list:
        print("\n".join(CASES))
        return 0
    unknown = [name for name in args.cases if name not in CASES]
    if unknown:
        parser.error(f"no case {unknown[0]!r}; --list names them")
    Machine.patience = args.patience
    bench, failed = Bench(args), 0
    for name in args.cases or CASES:
        function, *parameters = CASES[name]
        try:
            print(f"{name}: {function(bench, name, *parameters)}", flush=True)
        except (Failed, subprocess.CalledProcessError, OSError) as error:
            failed += 1
            print(f"FAILED {name}: {error}", flush=True)
    print(f"{len(args.cases or CASES) - failed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
