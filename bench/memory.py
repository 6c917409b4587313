"""Resident memory of a VM beyond guest RAM, by kind, in MiB. What is mapped twice, or into several processes, counts once."""
import collections
import re


def children(pid):
    found = [pid]
    for at in found:
        try:
            with open(f"/proc/{at}/task/{at}/children", encoding="ascii") as file:
                found += [int(word) for word in file.read().split()]
        except OSError:
            pass
    return found


def kind_of(name, size, cache_kib):
    if "guest-ram" in name:
        return "guest RAM"
    if name.startswith("/dev/zero"):
        return "translated code"
    if name.startswith("/") and not name.startswith("/memfd"):
        return "program and libraries"
    if not name and size == cache_kib:
        return "data about translated code"
    return "tables, TLBs, heap, stacks"


def by_kind(pid):
    """A dictionary of MiB by kind, without guest RAM."""
    sums = collections.Counter()
    mappings = []
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as file:
        for line in file:
            words = line.split()
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                start, end = (int(word, 16) for word in words[0].split("-"))
                mappings.append([words[5] if len(words) > 5 else "", (end - start) >> 10, 0])
            elif line.startswith("Pss:"):
                mappings[-1][2] = int(words[1])
    cache = next((size for name, size, _ in mappings if name.startswith("/dev/zero")), None)
    for name, size, pss in mappings:
        sums[kind_of(name, size, cache)] += pss
    for process in children(pid):
        with open(f"/proc/{process}/status", encoding="utf-8") as file:
            fields = dict(line.split(":", 1) for line in file if ":" in line)
        sums["the host's page tables"] += int(fields.get("VmPTE", "0").split()[0])
    for process in children(pid)[1:]:
        with open(f"/proc/{process}/smaps_rollup", encoding="utf-8") as file:
            pss = sum(int(line.split()[1]) for line in file if line.startswith("Pss_Anon:"))
        sums["processes for direct execution"] += pss
    del sums["guest RAM"]
    return {kind: kib / 1024 for kind, kib in sums.items()}
