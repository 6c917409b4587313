#!/usr/bin/env python3
"""Debian's SeaBIOS boots a sector of ours from an IDE disk, which reads and writes through the BIOS.

    firmware.py --trivisor EXE --sector IMAGE [--mode M]
"""
import argparse
import os
import shutil
import sys
import tempfile

import media

EXPECTED = "boot sector\nsecond sector\nthird sector\nsecond sector\n"
PASSED = 0x10 << 1 | 1  # what the sector writes to the debug-exit port


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("trivisor", "sector"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--mode", default="auto")
    args = parser.parse_args()
    media.need(media.BIOS)
    with tempfile.TemporaryDirectory() as directory:
        image = os.path.join(directory, "disk.img")
        shutil.copyfile(args.sector, image)
        status, text = media.run_vm(args.trivisor, "--mode", args.mode, "--debug-exit", "0xf4", "--bios", media.BIOS,
                                    "--disk", f"{image},if=ide,format=raw", seconds=50)
        with open(image, "rb") as f:
            sectors = f.read(4 * 512)
    if status != PASSED or text != EXPECTED or sectors[512:1024] != sectors[1536:2048]:
        print(text)
        print(f"problem: exit status {status}, want {PASSED}; or the fourth sector is not as the second")
        sys.exit(1)
    print("passed: " + text.replace("\n", ", ").rstrip(", "))


if __name__ == "__main__":
    main()
