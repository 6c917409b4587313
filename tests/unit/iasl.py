#!/usr/bin/env python3
"""Disassemble the ACPI tables and compile the result again: iasl must find nothing wrong.

usage: iasl.py PROGRAM    (the unit test that can write the tables)
"""
import glob
import re
import shutil
import subprocess
import sys
import tempfile

SKIP = 77

iasl = shutil.which("iasl")
if not iasl:
    print("iasl is not installed (Debian: acpica-tools)")
    sys.exit(SKIP)

failures = 0
with tempfile.TemporaryDirectory() as directory:
    subprocess.run([sys.argv[1], directory], check=True)
    for table in sorted(glob.glob(directory + "/*.aml")):
        def run(*args):
            return subprocess.run([iasl, *args], cwd=directory, capture_output=True, text=True)
        out = run("-d", table)
        text = out.stdout + out.stderr
        source = table[:-4] + ".dsl"
        again = run("-p", directory + "/again", source)
        text += again.stdout + again.stderr
        bad = re.findall(r".*(?:Error|Warning|Invalid|Incorrect|Unknown|Could not).*", text)
        bad = [line for line in bad if "0 Errors, 0 Warnings" not in line]
        if out.returncode or again.returncode or bad:
            failures += 1
            print(table, *bad, text, sep="\n")
sys.exit(1 if failures else 0)
