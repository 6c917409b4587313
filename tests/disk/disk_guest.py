"""What the tests with a guest that uses its disks share: the initramfs with tests/disk/guest/writer.c, and the commands to run it."""
import argparse
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
MKINITRAMFS = os.path.join(HERE, "..", "..", "tools", "mkinitramfs.py")
MIB = 1 << 20


def controllers(scsi_host):
    """Interface of --disk, and what the path of its disk in the guest's /sys has; PVSCSI is the SCSI host of that number."""
    return (("ide", "/ata"), ("pvscsi", f"/target{scsi_host}:0:"), ("virtio", "/virtio"))


def parser(description):
    made = argparse.ArgumentParser(description=description)
    for name in ("trivisor", "kernel", "busybox", "modules", "program"):
        made.add_argument("--" + name, required=True)
    made.add_argument("--mode", default="bt")
    return made


def format_of(kind):
    return "raw" if kind == "raw" else "vmdk"


class Guest:
    """A kernel with an initramfs in `directory`; ends the test (77: skipped) where the kernel is missing."""

    def __init__(self, args, directory):
        for path in (args.kernel, args.busybox, os.path.join(args.modules, "ata_piix.ko")):
            if not os.path.exists(path):
                print(f"skipped: {path} is missing; tools/fetch-guests gets it")
                sys.exit(77)
        self.args, self.initrd = args, os.path.join(directory, "initrd")
        files = ["/init=" + os.path.join(HERE, "guest", "init"), "/writer=" + args.program]
        files += [f"/modules/{m}={os.path.join(args.modules, m)}" for m in sorted(os.listdir(args.modules))]
        subprocess.run([sys.executable, MKINITRAMFS, "--plain", "--busybox", args.busybox, "--output", self.initrd]
                       + [word for f in files for word in ("--add", f)], check=True)

    def command(self, writer, disks, cpus=1):
        """Run /writer with these arguments on these --disk's."""
        run = ",".join(["run=/writer", *map(str, writer)])
        return [self.args.trivisor, "run", "--quiet", "--mode", self.args.mode, "--memory", "256M", "--cpus", str(cpus),
                "--kernel", self.args.kernel, "--initrd", self.initrd, "--no-reboot",
                "--append", f"console=ttyS0 quiet panic=-1 no_timer_check {run}",
                *[word for disk in disks for word in ("--disk", disk)]]
