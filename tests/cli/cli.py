#!/usr/bin/env python3
"""The command line as a user meets it: messages, exit statuses, help that fits a screen.

    cli.py TRIVISOR
"""
import json
import os
import subprocess
import sys
import tempfile

failures = 0


def check(name, condition, detail=""):
    global failures
    if not condition:
        failures += 1
        print(f"FAILED {name}: {detail}")


def run(*args):
    return subprocess.run([sys.argv[1], *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)


def expect_error(name, status, words, *args):
    """The command fails with `status` and one line on stderr that has all `words`."""
    result = run(*args)
    lines = [line for line in result.stderr.splitlines() if line]
    check(name + ": status", result.returncode == status, f"{result.returncode}, stderr {result.stderr!r}")
    check(name + ": one line", len(lines) == 1, result.stderr)
    for word in words:
        check(name + f": says {word!r}", word in result.stderr, result.stderr)


def perf_map():
    expect_error("perfmap wants bt", 1, ["perfmap", "--mode bt"], "run", "--kernel", "/dev/null", "--mode", "interp", "--log", "perfmap:/dev/null")
    expect_error("no symbols", 1, ["--symbols", "/nonexistent"], "run", "--kernel", "/dev/null", "--mode", "bt",
                 "--log", "perfmap:/dev/null", "--symbols", "/nonexistent")


def usage():
    result = run("--help")
    check("help", result.returncode == 0 and not result.stderr)
    lines = result.stdout.splitlines()
    check("help fits a screen", len(lines) <= 24 and max(map(len, lines)) <= 80,
          f"{len(lines)} lines, {max(map(len, lines))} columns")
    for option in ("--kernel", "--mode", "--gdb", "--log", "--debug-exit"):
        check(f"help has {option}", option in result.stdout)
    result = run("version")
    check("version", result.returncode == 0 and result.stdout.startswith("trivisor "))

    expect_error("no command", 2, ["--help"])
    expect_error("unknown command", 2, ["frobnicate"], "frobnicate")
    expect_error("no kernel", 2, ["--kernel"], "run")
    expect_error("unknown option", 2, ["--frob"], "run", "--frob")
    expect_error("missing argument", 2, ["--memory"], "run", "--kernel", "x", "--memory")
    expect_error("monitor of nothing", 2, ["--monitor"], "monitor")
    expect_error("monitor that is not there", 1, ["/nonexistent/x"], "monitor", "/nonexistent/x", "info")
    expect_error("monitor with a long name", 1, ["too long"], "monitor", "x" * 200, "info")
    expect_error("extra argument", 2, ["extra"], "run", "--kernel", "x", "extra")
    for option, bad in (("--memory", "12Q"), ("--memory", "-1"), ("--cpus", "0"), ("--cpus", "65"), ("--cpus", "two"),
                        ("--mode", "fast"), ("--require", "auto"), ("--serial", "tape"), ("--serial", "file:"),
                        ("--debug-exit", "0"), ("--debug-exit", "70000"), ("--on-panic", "cry"),
                        ("--display", "tv"), ("--display", "none=1"), ("--vga", "cga"),
                        ("--hypervisor", "kvm"), ("--hypervisor", "")):
        expect_error(f"{option} {bad}", 2, [option, bad], "run", "--kernel", "x", option, bad)


def files():
    with tempfile.TemporaryDirectory() as directory:
        missing = os.path.join(directory, "missing")
        empty = os.path.join(directory, "empty")
        noise = os.path.join(directory, "noise")
        open(empty, "wb").close()
        with open(noise, "wb") as file:
            file.write(bytes(range(256)) * 64)
        base = ["run", "--quiet", "--mode", "interp", "--serial", "none"]
        expect_error("missing kernel", 1, [missing], *base, "--kernel", missing)
        expect_error("empty kernel", 1, [empty], *base, "--kernel", empty)
        expect_error("noise for a kernel", 1, [noise], *base, "--kernel", noise)
        expect_error("directory for a kernel", 1, [directory], *base, "--kernel", directory)
        expect_error("unknown keyboard", 1, ["xx", "us, uk, de, fr"], *base, "--kernel", noise, "--display", "vnc=127.0.0.1:0", "--keyboard", "xx")
        expect_error("open to all", 1, ["0.0.0.0", "--vnc-password"], *base, "--kernel", noise, "--display", "vnc=0.0.0.0:0")
        expect_error("no such address", 1, ["vnc", "nowhere.invalid"], *base, "--kernel", noise, "--display", "vnc=nowhere.invalid:1")
        expect_error("no password file", 1, ["/nonexistent/x"], *base, "--kernel", noise, "--display", "web=127.0.0.1:0", "--vnc-password", "/nonexistent/x")
        for order in ("x", "", "disk0", "cdrom2x", "c,,d", "order=", "once=q", "menu=yes", "wait=-1", "wait=1000", "wait=x"):
            expect_error(f"boot order {order!r}", 1, [order.split("=")[-1].split(",")[0], "want"], *base, "--disk", noise, "--boot", order)
        disk = [*base, "--disk", f"{noise},if=virtio"]
        expect_error("no option ROM", 1, [noise, "55 AA"], *disk, "--option-rom", noise)
        expect_error("missing option ROM", 1, [missing], *disk, "--option-rom", missing + ",slot=4")
        expect_error("option ROM of no device", 1, ["slot 9"], *disk, "--option-rom", noise + ",slot=9")
        expect_error("option ROM in a wrong slot", 2, ["'32'", "1 to 31"], *disk, "--option-rom", noise + ",slot=32")
        expect_error("no second disk", 1, ["disk2", "1 of the kind"], *base, "--disk", noise, "--boot", "once=disk2")
        expect_error("monitor nowhere", 1, ["/nonexistent/x"], *disk, "--monitor", "/nonexistent/x")
        expect_error("monitor without a name", 1, ["--monitor"], *disk, "--monitor", "")
        expect_error("unknown CPU", 1, ["z80"], *base, "--kernel", noise, "--cpu", "z80")
        expect_error("unknown log item", 1, ["frob"], *base, "--kernel", noise, "--log", "frob:" + noise)
        expect_error("log into nowhere", 1, ["/nonexistent/x"], *base, "--kernel", noise, "--log", "int:/nonexistent/x")


def modes():
    result = run("modes")
    check("modes", result.returncode == 0 and "auto picks" in result.stdout, result.stdout + result.stderr)
    result = run("modes", "--json")
    report = json.loads(result.stdout)
    names = [mode["name"] for mode in report["modes"]]
    check("modes --json", "interp" in names and "hw" in names and report["auto"] in names, result.stdout)
    check("interp is available", next(m for m in report["modes"] if m["name"] == "interp")["available"])


def boot_sector(text):
    """Prints the text on COM1, then writes 42 to port 0xf4."""
    code = bytes.fromhex("31c0 8ed8 fc be0000 baf803 ac 84c0 7403 ee ebf8 b02a baf400 ee f4 ebfd")
    code = code.replace(b"\xbe\0\0", b"\xbe" + (0x7c00 + len(code)).to_bytes(2, "little"))
    return (code + text + b"\0").ljust(510, b"\0") + b"\x55\xaa"


def vmx():
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "a machine.vmx")

        def write(*lines):
            with open(path, "w") as file:
                file.write("\n".join(lines) + "\n")

        def raw(name, text, size):
            with open(os.path.join(directory, name), "wb") as file:
                file.write(boot_sector(text).ljust(size, b"\0"))

        raw("raw.img", b"from the vmdk", 1 << 20)
        raw("floppy.img", b"from the floppy", 1440 << 10)
        raw("other.img", b"from the command line", 1440 << 10)
        convert = run("disk", "convert", os.path.join(directory, "raw.img"), os.path.join(directory, "disk.vmdk"))
        check("convert", convert.returncode == 0, convert.stderr)
        base = ["run", path, "--debug-exit", "0xf4", "--mode", "interp"]
        machine = ['memsize = "64"', 'ide0:0.present = "TRUE"', 'ide0:0.fileName = "disk.vmdk"', 'serial0.present = "TRUE"',
                   'serial0.fileType = "file"', 'serial0.fileName = "serial.log"']
        write(*machine, 'ethernet0.present = "TRUE"')
        result = run(*base)
        with open(os.path.join(directory, "serial.log")) as file:
            log = file.read()
        check("vmx boots", result.returncode == 85 and "from the vmdk" in log, f"{result.returncode} {result.stderr} {log}")
        check("vmx notice", path + ": ethernet0 is left out" in result.stderr, result.stderr)
        result = run(*base, "--serial", "stdio", "--quiet")
        check("vmx and options", result.returncode == 85 and "from the vmdk" in result.stdout and not result.stderr,
              f"{result.returncode} {result.stderr}")
        write(*(line.replace("ide0:0", "scsi0:0") for line in machine), 'scsi0.present = "TRUE"', 'scsi0.virtualDev = "lsilogic"',
              'ide1:0.present = "TRUE"', 'ide1:0.deviceType = "cdrom-image"', 'ide1:0.fileName = "missing.iso"')
        result = run(*base, "--serial", "stdio", "--cdrom", "none")
        check("vmx with SCSI", result.returncode == 85 and "from the vmdk" in result.stdout and "PVSCSI" in result.stderr,
              f"{result.returncode} {result.stderr}")
        expect_error("vmx: a missing file", 1, ["missing.iso"], *base, "--quiet", "--serial", "none")
        write(*machine, 'floppy0.present = "TRUE"', 'floppy0.fileType = "file"', 'floppy0.fileName = "floppy.img"',
              'bios.bootOrder = "floppy,hdd"')
        result = run(*base, "--serial", "stdio")
        check("vmx with a floppy", result.returncode == 85 and "from the floppy" in result.stdout, f"{result.returncode} {result.stderr}")
        result = run(*base, "--serial", "stdio", "--floppy", os.path.join(directory, "other.img"))
        check("vmx with another floppy", result.returncode == 85 and "from the command line" in result.stdout,
              f"{result.returncode} {result.stderr}")
        write("# comment", 'memsize = "much"')
        expect_error("vmx: a bad value", 1, [path + ":2: memsize"], *base)
        expect_error("vmx: after options", 2, [path, "before all options"], "run", "--quiet", path)
        expect_error("vmx: none", 1, ["/nonexistent.vmx"], "run", "/nonexistent.vmx")
        write('memsize = "64"')
        expect_error("vmx: no drive", 2, ["--disk"], *base)


def trust_paths():
    """A VMDK whose extent is in another directory."""
    with tempfile.TemporaryDirectory() as directory:
        here, there = (os.path.join(directory, name) for name in ("here", "there"))
        os.mkdir(here)
        os.mkdir(there)
        with open(os.path.join(there, "flat.img"), "wb") as file:
            file.write(boot_sector(b"from elsewhere").ljust(1 << 20, b"\0"))
        disk = os.path.join(here, "disk.vmdk")
        for path in (os.path.join(there, "flat.img"), "../there/flat.img"):
            with open(disk, "w") as file:
                file.write("# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n"
                           f'RW 2048 FLAT "{path}" 0\nddb.adapterType = "ide"\n')
            base = ["run", "--quiet", "--mode", "interp", "--debug-exit", "0xf4", "--disk"]
            expect_error(f"extent {path}", 1, [disk, path, "trust-paths"], *base, disk)
            result = run(*base, disk + ",trust-paths")
            check(f"trust-paths {path}", result.returncode == 85 and "from elsewhere" in result.stdout,
                  f"{result.returncode} {result.stdout} {result.stderr}")


usage()
perf_map()
files()
vmx()
trust_paths()
modes()
print("failed" if failures else "passed")
sys.exit(1 if failures else 0)
