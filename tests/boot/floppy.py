#!/usr/bin/env python3
"""Boot floppies of several formats with the BIOS; they read, write and say so on the serial port.

    floppy.py --trivisor EXE --sector FILE
"""
import argparse
import os
import subprocess
import sys
import tempfile

import media

# KiB, tracks, sectors in a track
FORMATS = ((360, 40, 9), (1200, 80, 15), (720, 80, 9), (1440, 80, 18), (2880, 80, 36))
SECTOR = 512


def image(boot, tracks, sectors):
    data = bytearray(tracks * 2 * sectors * SECTOR)
    data[:SECTOR] = boot
    data[506], data[507] = sectors, tracks - 1
    for lba, text in ((tracks * 2 * sectors - 1, b"last sector\n"), (5 * 2 * sectors, b"cylinder 5\n")):
        data[lba * SECTOR:lba * SECTOR + len(text)] = text
    return data


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trivisor", required=True)
    parser.add_argument("--sector", required=True)
    args = parser.parse_args()
    media.need(media.BIOS)
    with open(args.sector, "rb") as f:
        boot = f.read()
    failed = False
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "floppy.img")
        for kib, tracks, sectors in FORMATS:
            data = image(boot, tracks, sectors)
            for options in ("", ",ro"):
                with open(path, "wb") as f:
                    f.write(data)
                out = subprocess.run([args.trivisor, "run", "--floppy", path + options, "--boot", "a", "--vga", "none",
                                      "--debug-exit", "0xf4"], stdin=subprocess.DEVNULL, capture_output=True,
                                     timeout=60).stdout
                at = (7 * 2 + 1) * sectors + 2
                with open(path, "rb") as f:
                    after = f.read()
                want = b"last sector\ncylinder 5\n" + (b"floppy error\n" if options else b"written\n")
                wrote = after[at * SECTOR:(at + 1) * SECTOR] == data[:SECTOR]
                out = out.replace(b".\r\n", b"").replace(b"\r\n", b"")  # from the BIOS, when its timer said so
                if not out.endswith(want) or wrote == bool(options):
                    print(f"{kib} KiB{options}: {out[-200:]!r}, sector {'written' if wrote else 'not written'}")
                    failed = True
    sys.exit(failed)


main()
