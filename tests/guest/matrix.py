#!/usr/bin/env python3
"""Run the guests of this directory in mode bt with each optimization off, with none, and with the smallest caches.

    matrix.py [--only GUEST,...] [--jobs N] BUILD-DIR

Which guests there are, and what they need, is what Meson knows. Prints a line for each set of options, what failed in it with its
output, and at the end the count; the exit status is 0 if nothing failed.
"""
import argparse
import concurrent.futures
import json
import subprocess
import sys
import time

OPTIMIZATIONS = "flags links jumps blocks inline share returns direct copy".split()
SKIP = 77


def combinations():
    """Options for trivisor run, and whether they go with more than one CPU."""
    for name in OPTIMIZATIONS:
        yield f"--bt-opt=-{name}", True
    yield "--bt-opt=none", True
    for size in ("256K", "512K"):
        yield f"--tcache {size}", True
    yield "--bt-opt=none --tcache 256K", True
    for options in ("--tcache 256K", "--bt-opt=-blocks", "--bt-opt=-share", "--bt-opt=-flags", "--bt-opt=none"):
        yield "--verify " + options, False


def guests(build):
    """Commands of run.py by guest, and the guests that measure time."""
    done = subprocess.run(["meson", "introspect", build, "--tests"], check=True, stdout=subprocess.PIPE)
    tests = {test["name"][len("guest-"):-len("-bt")]: test for test in json.loads(done.stdout)
             if test["name"].startswith("guest-") and test["name"].endswith("-bt")}
    return {name: test["cmd"] for name, test in tests.items()}, [name for name, test in tests.items() if not test["is_parallel"]]


def run(build, command, options):
    """Exit status and output."""
    done = subprocess.run(command + ["--timeout", "120", "--options=" + options], cwd=build, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    return done.returncode, done.stdout.decode(errors="replace")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build")
    parser.add_argument("--only", default="", help="guests, separated by commas")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    only = [name for name in args.only.split(",") if name]
    commands, alone = guests(args.build)
    commands = {name: command for name, command in commands.items() if not only or name in only}
    passed = failed = 0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for options, with_cpus in combinations():
            start = time.monotonic()
            todo = [name for name, command in commands.items() if with_cpus or "--cpus" not in command]
            bad = []
            results = dict(zip(todo, pool.map(lambda name: run(args.build, commands[name], options), todo)))
            for name in [name for name in todo if name in alone and results[name][0]]:  # once more, without company
                results[name] = run(args.build, commands[name], options)
            for name, (status, output) in results.items():
                passed += status == 0
                if status not in (0, SKIP):
                    bad.append((name, output))
            failed += len(bad)
            print(f"{'FAILED' if bad else 'passed'} {time.monotonic() - start:6.1f} s  {options}", flush=True)
            for name, output in bad:
                print(f"{name}:\n{output}", flush=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
