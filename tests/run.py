#!/usr/bin/env python3
"""Build and run every test in each build directory, then say "N passed, N failed".

    run.py BUILD [ASAN-BUILD...]

Meson runs the tests; this prints those that failed with their output, and one plain line at the end.
"""
import json
import os
import subprocess
import sys

PASSED = ("OK", "EXPECTEDFAIL")
SKIPPED = ("SKIP",)


def run_build(build, sanitized):
    """Returns (passed, failed, skipped) of one build directory."""
    if subprocess.run(["ninja", "-C", build, "--quiet"]).returncode != 0:
        print(f"{build}: does not build")
        return 0, 1, 0
    command = ["meson", "test", "-C", build, "--no-rebuild", "--num-processes", str(os.cpu_count() or 1)]
    if sanitized:
        command += ["--timeout-multiplier", "5"]
    subprocess.run(command, stdin=subprocess.DEVNULL)
    counts = [0, 0, 0]
    try:
        with open(os.path.join(build, "meson-logs", "testlog.json")) as log:
            results = [json.loads(line) for line in log]
    except OSError:
        results = []
    for result in results:
        if result["result"] in PASSED:
            counts[0] += 1
        elif result["result"] in SKIPPED:
            counts[2] += 1
        else:
            counts[1] += 1
            print(f"\n==== {build}: {result['name']}: {result['result']}")
            print(result.get("stdout", "")[-6000:])
            print(result.get("stderr", "")[-2000:])
    if not results:
        print(f"{build}: no test ran")
        counts[1] += 1
    return tuple(counts)


def main():
    totals = [0, 0, 0]
    for number, build in enumerate(sys.argv[1:]):
        for i, count in enumerate(run_build(build, sanitized=number > 0)):
            totals[i] += count
    print()
    print(f"{totals[0]} passed, {totals[1]} failed" + (f", {totals[2]} skipped" if totals[2] else ""))
    sys.exit(1 if totals[1] or not totals[0] else 0)


if __name__ == "__main__":
    main()
