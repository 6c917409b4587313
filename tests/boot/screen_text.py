"""Read the text in a picture of a screen, in text modes and on Linux's frame buffer console.

A cell's bitmap is compared with the VGA BIOS's 8x16 font; what is nearest wins, since Linux's own font differs from it in a
few dots. `has_shape()` needs no font: it looks for cells that are the same and differ where a text's characters do.
"""
import struct
import zlib

VGABIOS = "/usr/share/seabios/vgabios-stdvga.bin"
ROWS = 16
LETTER_A = bytes((0, 0, 0x10, 0x38, 0x6c, 0xc6, 0xc6, 0xfe, 0xc6, 0xc6, 0xc6, 0xc6, 0, 0, 0, 0))
NEAR = 20  # dots of 128


def read_png(path):
    """Width, height and rows (RGB) of a PNG of Trivisor's: filter "sub" throughout."""
    with open(path, "rb") as f:
        data = f.read()
    width, height = struct.unpack(">II", data[16:24])
    at, packed = 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        if kind == b"IDAT":
            packed += data[at + 8:at + 8 + length]
        at += 12 + length
    raw, rows = zlib.decompress(packed), []
    for y in range(height):
        line = bytearray(raw[y * (3 * width + 1) + 1:(y + 1) * (3 * width + 1)])
        for i in range(3, len(line)):
            line[i] = (line[i] + line[i - 3]) & 255
        rows.append(bytes(line))
    return width, height, rows


def read_font():
    """Bitmaps (one number of 128 bits) of the printable ASCII characters."""
    with open(VGABIOS, "rb") as f:
        rom = f.read()
    at = rom.index(LETTER_A) - ord("A") * ROWS
    return {int.from_bytes(rom[at + c * ROWS:at + (c + 1) * ROWS], "big"): chr(c) for c in range(0x20, 0x7f)}


class Screen:
    """What is on a screen, cell by cell."""

    font = None

    def __init__(self, path):
        self.width, self.height, self.rows = read_png(path)
        self.cells = self.cut(0, 0)

    def cut(self, left, top, ink=None):
        """The bitmaps of all cells, where the first is at LEFT, TOP and text has the colour INK, or any."""
        step, cells = 9 if self.width == 720 else 8, []
        for y in range(top, self.height - ROWS + 1, ROWS):
            lines = self.rows[y:y + ROWS]
            cells.append([self.bitmap(lines, 3 * x, ink) for x in range(left, self.width - 7, step)])
        return cells

    @staticmethod
    def bitmap(lines, at, ink):
        """A cell as a number: the dots that have the colour INK, or not that of most."""
        strips = [line[at:at + 24] for line in lines]
        if all(strip == strips[0] for strip in strips) and strips[0] == strips[0][:3] * 8:
            return 0
        dots = [strip[i:i + 3] for strip in strips for i in range(0, 24, 3)]
        if ink:
            return int("".join("1" if dot == ink else "0" for dot in dots), 2)
        ground = max(set(dots), key=dots.count)
        return int("".join("0" if dot == ground else "1" for dot in dots), 2)

    def text(self):
        """The lines of the screen; what is no character of ASCII is a blank."""
        if Screen.font is None:
            Screen.font = read_font()
        known = dict(Screen.font)

        def character(bits):
            if bits not in known:
                near, c = min(((bits ^ glyph).bit_count(), c) for glyph, c in Screen.font.items())
                known[bits] = c if near <= NEAR else " "
            return known[bits]
        return ["".join(character(bits) for bits in row).rstrip() for row in self.cells]

    def shows(self, text):
        """Whether TEXT is in a line: each cell is near to what it should be."""
        self.text()
        glyphs = {c: glyph for glyph, c in Screen.font.items()}
        wanted = [glyphs[c] for c in text]
        return any(all((cell ^ glyph).bit_count() <= NEAR for cell, glyph in zip(row[start:], wanted))
                   for row in self.cells for start in range(len(row) - len(text) + 1))

    def has_shape(self, text, left=0, top=0, ink=None):
        """Whether somewhere in a line cells are equal and blank just where the characters of the text are. LEFT and TOP say
        where the first cell is, INK what colour text has."""
        for row in self.cut(left, top, ink) if left or top or ink else self.cells:
            for start in range(len(row) - len(text) + 1):
                seen, cells = {}, row[start:start + len(text)]
                if all((cell == 0) == (c == " ") and seen.setdefault(c, cell) == cell for c, cell in zip(text, cells)) \
                        and len(set(seen.values())) == len(seen):
                    return True
        return False


if __name__ == "__main__":
    import sys
    for name in sys.argv[1:]:
        print("\n".join(Screen(name).text()))
