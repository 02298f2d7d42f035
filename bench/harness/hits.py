"""Hit ratios on the package trace (bench/traces): the store's eviction policy beside its yardsticks, with and without somebody who mirrors everything."""
import json
import lzma
import random
import subprocess

from layout import BENCH, RESULTS, TARGET

TRACE = BENCH / "traces/packages.trace.xz"
SIMULATOR = TARGET / "debug/examples/eviction"
POLICIES = ("s3-fifo", "lru", "fifo")
GB = 10**9
# Of the cache. All roles together are some 10 GB, the distribution 121 GB.
CAPACITIES = [GB, 2 * GB, 4 * GB, 8 * GB, 16 * GB, 32 * GB]


def requests(scans: bool):
    """(key, size) in order. What happens on one day is shuffled together; each machine keeps its own order."""
    rng = random.Random(1)
    sizes, roles, today = [], [], []
    current: list[int] = []  # the version of each object, as an index of sizes
    replaced: set[int] = set()

    def day():
        order = [i for i, keys in enumerate(today) for _ in keys]
        rng.shuffle(order)
        sources = [iter(keys) for keys in today]
        for i in order:
            key = next(sources[i])
            yield key, sizes[key]
        today.clear()

    with lzma.open(TRACE, "rt") as lines:
        for line in lines:
            what, *words = line.split()
            if what == "object":
                current.append(len(sizes))
                sizes.append(int(words[0]))
            elif what == "role":
                roles.append([int(word) for word in words[1:]])
            elif what == "day":
                yield from day()
            elif what == "install":
                today.append([current[i] for i in roles[int(words[0])]])
            elif what == "replace":
                replaced.add(int(words[0]))
                sizes.append(sizes[current[int(words[0])]])
                current[int(words[0])] = len(sizes) - 1
            elif what == "upgrade":
                today.append([current[i] for i in roles[int(words[0])] if i in replaced])
            elif what == "scan" and scans:
                today.append(list(current))
    yield from day()


def hits() -> int:
    found = {}
    for name, scans in (("with scans", True), ("without", False)):
        lines = "".join(f"{key} {size}\n" for key, size in requests(scans))
        done = subprocess.run([SIMULATOR, *map(str, CAPACITIES)], input=lines, capture_output=True, text=True, check=True)
        found[name] = json.loads(done.stdout)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "hits.json").write_text(json.dumps(found, indent=1))
    print(table(found))
    return 0


def table(found: dict) -> str:
    """Hit ratio and byte hit ratio in per cent, by size of the cache."""
    heads = [f"{policy} {name}" for name in found for policy in POLICIES]
    lines = ["| cache | " + " | ".join(heads) + " |", "|--:|" + "--:|" * len(heads)]
    for i, capacity in enumerate(CAPACITIES):
        cells = [f"{100 * row[policy]['hit_ratio']:.1f} / {100 * row[policy]['byte_hit_ratio']:.1f}"
                 for row in (found[name]["rows"][i] for name in found) for policy in POLICIES]
        lines.append(f"| {capacity // GB} GB | " + " | ".join(cells) + " |")
    return "\n".join(lines)
