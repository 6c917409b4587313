"""What the tests here boot from and how they run it: initial RAM disks, FAT volumes, GRUB for UEFI, command lines."""
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TOOLS = os.path.join(HERE, "..", "..", "tools")
BIOS = "/usr/share/seabios/bios-256k.bin"
OVMF = "/usr/share/OVMF/OVMF_CODE_4M.fd"
PARTITION = 1 << 20  # where a disk's only one begins
GRUB_MODULES = ("part_msdos", "fat", "iso9660", "normal", "linux", "echo", "search", "search_fs_file", "terminal", "configfile",
                "reboot", "halt", "iorw", "ext2", "search_label")


def need(*paths):
    """Leave with the status of a skipped test where one is missing. Each is a path, or a path and what has it."""
    for path in paths:
        path, where = path if isinstance(path, tuple) else (path, "tools/setup or tools/fetch-guests")
        if not os.path.exists(path):
            print(f"skipped: {path} is missing; {where} has it")
            sys.exit(77)


def quietly(*command):
    """Run a tool; what it says is shown if it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{command[0]} failed:\n{done.stdout}")


def initramfs(busybox, output, test=None, init="init", modules=None, files=()):
    """An initial RAM disk with an init of this directory. TEST is a script's path or text, FILES are more, as PATH=FILE."""
    if test and "\n" in test:
        with open(output + ".test", "w", encoding="ascii") as f:
            f.write(test)
        test = output + ".test"
    files = ["/init=" + os.path.join(HERE, init), *files] + (["/test=" + test] if test else [])
    files += [f"/modules/{m}={os.path.join(modules, m)}" for m in sorted(os.listdir(modules))] if modules else []
    quietly(sys.executable, os.path.join(TOOLS, "mkinitramfs.py"), "--busybox", busybox, "--output", output,
            *(word for f in files for word in ("--add", f)))
    return output


def fat_volume(path, mib, files, at=0):
    """A FAT file system of MIB at byte AT of the file, which is made. FILES: what goes where, as path or text."""
    with open(path, "wb") as f:
        f.truncate(at + (mib << 20))
    target = f"{path}@@{at}"
    quietly("mformat", "-i", target, "-T", str(mib << 11), *(["-F"] if mib > 33 else []), "::")
    made = set()
    for name, source in files.items():
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            directory = "/".join(parts[:depth])
            if directory not in made:
                made.add(directory)
                quietly("mmd", "-i", target, "::" + directory)
        if "\n" in source:
            with open(path + ".text", "w", encoding="ascii") as f:
                f.write(source)
            source = path + ".text"
        quietly("mcopy", "-i", target, source, "::" + name)
    return path


def fat_disk(path, mib, files, kind=0xef):
    """The same as the only partition of a disk."""
    fat_volume(path, mib, files, PARTITION)
    sectors = (mib << 11).to_bytes(4, "little")
    entry = bytes((0x80, 0xfe, 0xff, 0xff, kind, 0xfe, 0xff, 0xff)) + (PARTITION >> 9).to_bytes(4, "little") + sectors
    with open(path, "r+b") as f:
        f.seek(440)
        f.write(b"TRIV\0\0" + entry.ljust(64, b"\0") + b"\x55\xaa")
    return path


def grub_efi(output, script):
    """GRUB as an EFI program that runs SCRIPT."""
    with open(output + ".cfg", "w", encoding="ascii") as f:
        f.write(script)
    quietly("grub-mkimage", "-O", "x86_64-efi", "-p", "/boot/grub", "-c", output + ".cfg", "-o", output, *GRUB_MODULES)
    return output


def verdict(run, wanted):
    """The exit status for a guest whose script prints "ok NAME" for each of its WANTED checks, or "FAILED NAME"."""
    text = run.stdout.decode(errors="replace")
    lines = text.splitlines()
    passed = sum(line.startswith("ok ") for line in lines)
    if run.returncode or passed != wanted or any(line.startswith("FAILED ") for line in lines):
        print(text)
        print(f"problem: exit status {run.returncode}, {passed} of {wanted} checks passed")
        return 1
    print(f"passed: {passed} checks")
    return 0


def run_vm(trivisor, *options, seconds=100):
    """`trivisor run OPTIONS`; its exit status and what came on the serial port."""
    try:
        vm = subprocess.run([trivisor, "run", "--quiet", "--no-reboot", *options], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, timeout=seconds)
        status, text = vm.returncode, vm.stdout
    except subprocess.TimeoutExpired as late:
        status, text = f"none within {seconds} s", late.stdout or b""
    return status, text.decode(errors="replace").replace("\r", "")
