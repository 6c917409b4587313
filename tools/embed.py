#!/usr/bin/env python3
"""Write a file as a C array: embed.py INPUT OUTPUT.c NAME HEADER makes NAME[] and NAME_size, which HEADER declares."""
import sys

source, output, name, header = sys.argv[1:]
data = open(source, "rb").read()
with open(output, "w") as out:
    out.write(f'#include "{header}"\n\nconst size_t {name}_size = {len(data)};\nconst uint8_t {name}[] = {{\n')
    for i in range(0, len(data), 24):
        out.write(",".join(str(b) for b in data[i:i + 24]) + ",\n")
    out.write("};\n")
