"""A soak: one proxy under mixed load for hours. Are its memory and its descriptors flat, and is every body right?

Five kinds of clients at once, each a loop of short runs: hits, misses (which push others out: the store is kept small), ranges, clients that
leave half way, and responses that go stale within a second and are validated again. Bodies are compared with their files.
"""
import json
import os
import threading
import time

from data import CLASSES, name
from layout import DATA, MIB, RESULTS, Machine
from origins import Origins
from peer import Peer
from procs import tree
from scenarios.context import Ctx

# Of content: so small that misses push others out all the time.
STORE = "1GiB"
# How much the last quarter may lie above the second, each by its greatest sample: what is open follows the load, what leaks grows.
GROWTH, SLACK_MIB, SLACK_FDS = 1.10, 8, 16
# Seconds of one run of a client, and between samples.
STRETCH, SAMPLE = 5, 5


def clients(ctx: Ctx) -> dict:
    """Kind → one run of it; returns lg's figures."""
    tiny, middle = ctx.paths("s1k"), ctx.paths("s100k")
    turn = [0]

    def fresh(cls: str, count: int) -> list:
        turn[0] += 1
        return [path for i in range(count) for path in [ctx.path(cls, i % CLASSES[cls][1], f"soak{turn[0]}")]]

    stale = [(f"/c/soak{i}.age-1/{name('s100k', i)}", str(DATA / "www" / name("s100k", i))) for i in range(50)]
    return {
        "hits": lambda: ctx.lg("fast", tiny[:500] + middle[:100], "--conns", 16, "--duration", STRETCH, "--verify"),
        "misses": lambda: ctx.lg("fast", fresh("s100k", 500) + fresh("m10", 4), "--once", "--conns", 8, "--verify"),
        "ranges": lambda: ctx.lg("fast", [ctx.path("m10", i) for i in range(10)], "--conns", 4, "--duration", STRETCH, "--verify",
                                 "--range", f"{3 * MIB}-{3 * MIB + 65535}"),
        "leavers": lambda: ctx.lg("fast", fresh("m10", 8), "--once", "--conns", 4, "--abort-after", 2 * MIB),
        "validated": lambda: ctx.lg("chaos", stale, "--conns", 4, "--duration", STRETCH, "--verify"),
    }


def sample(peer: Peer) -> dict:
    pids = list(tree(peer.proc.pid))
    memory = peer.proc.memory()
    return {"rss_mib": memory["rss"], "anon_mib": memory["anon"], "fds": sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)}


def soak(machine: Machine, hours: float, name: str) -> int:
    """0 when flat and right."""
    peer, origins = Peer(name, machine, MAX_SIZE=STORE), Origins(machine)
    end = time.monotonic() + hours * 3600
    totals: dict[str, dict] = {}
    samples: list[dict] = []
    print(f"soak of {name}: {hours * 60:.0f} minutes", flush=True)
    try:
        origins.start()
        peer.start()
        kinds = clients(Ctx(peer, origins, STRETCH))
        threads = [threading.Thread(target=loop, args=(run, totals.setdefault(kind, {"requests": 0, "wrong": 0, "errors": {}}), end))
                   for kind, run in kinds.items()]
        begin = told = time.monotonic()
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(SAMPLE)
            if not peer.proc.alive():
                print(f"{name} has ended: {peer.last_words()}")
                return 1
            samples.append({"t": round(time.monotonic() - begin, 1), **sample(peer)})
            if time.monotonic() - told > 60 or len(samples) == 1:
                told = time.monotonic()
                requests = sum(kind["requests"] for kind in totals.values())
                print(f"[{(told - begin) / 60:5.1f} min] {requests} requests, {samples[-1]}", flush=True)
    finally:
        peer.stop()
        peer.wipe()
        origins.stop()
    return tell(name, samples, totals)


def loop(run, total: dict, end: float) -> None:
    while time.monotonic() < end:
        try:
            figures = run()
        except Exception as error:  # counted and told: a soak shows how often, not only that
            figures = {"requests": 0, "verify_fail": 0, "errors": {str(error)[:80]: 1}}
            time.sleep(1)
        total["requests"] += figures["requests"]
        total["wrong"] += figures["verify_fail"]
        for error, count in figures["errors"].items():
            total["errors"][error] = total["errors"].get(error, 0) + count


def tell(name: str, samples: list[dict], totals: dict) -> int:
    quarter = max(len(samples) // 4, 1)
    second, last = samples[quarter:2 * quarter] or samples, samples[-quarter:]
    before, after = ({key: max(s[key] for s in part) for key in ("rss_mib", "fds")} for part in (second, last))
    flat = after["rss_mib"] <= before["rss_mib"] * GROWTH + SLACK_MIB and after["fds"] <= before["fds"] * GROWTH + SLACK_FDS
    wrong = sum(kind["wrong"] for kind in totals.values())
    failed = {kind: errors for kind, total in totals.items()
              if (errors := {e: n for e, n in total["errors"].items() if e != "aborted"})}
    verdict = {"flat": flat, "wrong_bodies": wrong, "failed": failed, "second_quarter": before, "last_quarter": after,
               "peak_rss_mib": max(s["rss_mib"] for s in samples), "requests": {k: t["requests"] for k, t in totals.items()}}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"soak.{name}.json").write_text(json.dumps({"verdict": verdict, "samples": samples}, indent=1))
    print(json.dumps(verdict, indent=1))
    print(f"memory and descriptors are {'flat' if flat else 'NOT flat'}; {wrong} wrong bodies; {sum(map(len, failed.values()))} kinds of errors")
    return 0 if flat and not wrong and not failed else 1
