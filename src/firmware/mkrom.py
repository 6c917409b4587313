#!/usr/bin/env python3
"""Make a PCI option ROM with an EFI driver of a flat image: mkrom.py IMAGE ROM VENDOR DEVICE (in hex).

The image begins with its entry point and is linked to run at 400h of the PE file, wherever that is loaded.
"""
import struct
import sys

UNIT = 512
HEADERS = 0x400     # of the PE file, as image.ld has it
PCI_DATA = 0x1c     # in the ROM
EFI_IMAGE = 0x40
BOOT_SERVICE_DRIVER, X64 = 11, 0x8664


def pe(code):
    """UEFI specification 2.1.1: PE32+. One section; the absence of relocations says that none are needed."""
    size = HEADERS + len(code)
    coff = struct.pack("<HHIIIHH", X64, 1, 0, 0, 0, 240, 0x22e)  # executable, above 2 GiB, no debug data
    optional = struct.pack("<HBBIIIII", 0x20b, 1, 0, len(code), 0, 0, HEADERS, HEADERS)
    optional += struct.pack("<QIIHHHHHHIIIIHH", 0, UNIT, UNIT, 0, 0, 0, 0, 0, 0, 0, size, HEADERS, 0, BOOT_SERVICE_DRIVER, 0)
    optional += struct.pack("<QQQQII", 0, 0, 0, 0, 0, 16) + bytes(16 * 8)
    section = struct.pack("<8sIIIIIIHHI", b".all", len(code), HEADERS, len(code), HEADERS, 0, 0, 0, 0, 0xe0000060)
    header = b"MZ".ljust(0x3c, b"\0") + struct.pack("<I", 0x40) + b"PE\0\0" + coff + optional + section
    return header.ljust(HEADERS, b"\0") + code


def main():
    image, output, vendor, device = sys.argv[1:]
    with open(image, "rb") as f:
        file = pe(f.read())
    units = -(-(EFI_IMAGE + len(file)) // UNIT)
    header = struct.pack("<HHIHHH8xHH", 0xaa55, units, 0x0ef1, BOOT_SERVICE_DRIVER, X64, 0, EFI_IMAGE, PCI_DATA)
    # Class: SCSI controller; code type 3: EFI; the last image.
    data = struct.pack("<4sHHHHBBBBHHBBH", b"PCIR", int(vendor, 16), int(device, 16), 0, 28, 3, 0, 0, 1, units, 1, 3, 0x80, 0)
    rom = header.ljust(PCI_DATA, b"\0") + data
    with open(output, "wb") as f:
        f.write((rom.ljust(EFI_IMAGE, b"\0") + file).ljust(units * UNIT, b"\0"))


if __name__ == "__main__":
    main()
