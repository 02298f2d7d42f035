"""The rows: nine situations in which caching proxies go wrong, each a verdict with its figures.

A 64 MiB object with strong ETag, Last-Modified and Accept-Ranges; the origin sends 16 MiB/s on each connection (4 s) unless noted.
"""
import time

from layout import KIB, MIB
from scenarios import scenario
from scenarios.context import Ctx, mib, ms

SIZE = 64 * MIB
RATE = f"rate-{16 * MIB}"
# What may be fetched twice.
TWICE = MIB

ROWS = {
    "A": "8 clients at once: one origin request, first bytes under 20 ms",
    "A2": "the same over 8 s",
    "B": "a client joins after 2 s: done within 50 ms of the leader",
    "C": "the leader is killed after 1.5 s: its follower gets every byte, at most 1 MiB twice",
    "C2": "the only client is killed after 1.5 s: the next gets every byte, at most 1 MiB twice",
    "D": "1000 bytes at 32 MiB, cold: first byte under 50 ms, at most two origin requests, the rest is kept",
    "E": "the origin hangs up half way: the client notices nothing, at most 1 MiB twice",
    "F": "the origin is down, what is stored is stale: 200",
    "I": "the leader reads 2 MB/s, the origin sends 64 MB/s: a follower is done in 1.2 s",
}


def play(ctx: Ctx, path: tuple, clients: list[str], *options) -> tuple[list[dict], dict]:
    """Clients of one object, each with its times; their records in the order given, and the origin's counters afterwards."""
    ctx.origins.chaos("reset")
    lines = [(*path, times) for times in clients]
    r = ctx.lg("chaos", lines, "--once", "--close", "--conns", len(lines), "--verify", "--detail", "--timeout", 60, *options)
    records = sorted(r["detail"], key=lambda d: d["start_us"])
    return records, ctx.origins.chaos("stats")


def whole(record: dict) -> bool:
    return record["error"] is None and record["status"] == 200 and record["bytes"] == SIZE and not record["verify_bad"]


def end(record: dict) -> float:
    return record["start_us"] + record["done_us"]


def herd(ctx: Ctx, rate: int) -> dict:
    records, stats = play(ctx, ctx.cold("m64", f"rate-{rate}"), [""] * 8)
    firsts = sorted(d["body_us"] if d["body_us"] is not None else float("inf") for d in records)
    good = all(map(whole, records))
    return {"pass": good and stats["requests"] == 1 and firsts[-1] < 20_000, "origin_requests": stats["requests"],
            "first_byte_ms": ms(firsts[-1]), "total_s": round(max(map(end, records)) / 1e6, 2), "whole": good}


def a(ctx):
    return herd(ctx, 16 * MIB)


def a2(ctx):
    return herd(ctx, 8 * MIB)


def b(ctx):
    (leader, follower), stats = play(ctx, ctx.cold("m64", RATE), ["", "at=2"])
    late = end(follower) - end(leader)
    good = whole(leader) and whole(follower)
    return {"pass": good and late <= 50_000, "after_leader_ms": ms(late), "first_byte_ms": ms(follower["body_us"]),
            "origin_requests": stats["requests"], "whole": good}


def c(ctx):
    (_, follower), stats = play(ctx, ctx.cold("m64", RATE), ["stop=1.5", "at=0.2"])
    return {"pass": whole(follower) and stats["bytes"] <= SIZE + TWICE, "follower": outcome(follower),
            "origin_requests": stats["requests"], "origin_mib": mib(stats["bytes"])}


def c2(ctx):
    (_, second), stats = play(ctx, ctx.cold("m64", RATE), ["stop=1.5", "at=2.5"])
    return {"pass": whole(second) and stats["bytes"] <= SIZE + TWICE, "second": outcome(second),
            "origin_requests": stats["requests"], "origin_mib": mib(stats["bytes"])}


def d(ctx):
    path = ctx.cold("m64", RATE)
    (part,), _ = play(ctx, path, [""], "--range", f"{32 * MIB}-{32 * MIB + 999}")
    ctx.origins.chaos_settled()
    r = ctx.lg("chaos", [path], "--verify", "--detail", "--timeout", 60)
    stats = ctx.origins.chaos("stats")
    right = part["status"] == 206 and part["bytes"] == 1000 and part["error"] is None
    kept = whole(r["detail"][0]) and stats["bytes"] <= SIZE + TWICE
    quick = part["body_us"] is not None and part["body_us"] < 50_000
    return {"pass": right and kept and quick and stats["requests"] <= 2, "status": part["status"], "first_byte_ms": ms(part["body_us"]),
            "origin_requests": stats["requests"], "origin_mib": mib(stats["bytes"])}


def e(ctx):
    (client,), stats = play(ctx, ctx.cold("m64", f"{RATE}.die-{SIZE // 2}.times-1"), [""])
    return {"pass": whole(client) and stats["bytes"] <= SIZE + TWICE, "client": outcome(client),
            "origin_requests": stats["requests"], "origin_mib": mib(stats["bytes"])}


def f(ctx):
    path = ctx.cold("s1k", "age-1")
    ctx.lg("chaos", [path], "--verify")
    time.sleep(2.2)
    ctx.origins.stop_chaos()
    try:
        r = ctx.lg("chaos", [path], "--verify", "--detail", "--timeout", 20, check=False)
    finally:
        ctx.origins.start_chaos()
    record = r["detail"][0] if r else {"status": 0, "error": "no answer", "verify_bad": False, "bytes": 0}
    return {"pass": record["status"] == 200 and record["error"] is None and record["bytes"] == KIB, "status": record["status"]}


def i(ctx):
    (_, follower), stats = play(ctx, ctx.cold("m64", "rate-64000000"), ["pace=2000000,stop=6", "at=0.1,stop=6"])
    took = follower["done_us"] / 1e6
    return {"pass": whole(follower) and took < 1.2, "follower_s": round(took, 2), "follower": outcome(follower),
            "origin_requests": stats["requests"]}


def outcome(record: dict) -> str:
    if record["verify_bad"]:
        return f"wrong bytes after {mib(record['bytes'])} MiB"
    if record["error"]:
        return f"{record['error']} after {mib(record['bytes'])} MiB (status {record['status']})"
    return "whole"


@scenario("rows", "nine situations in which caching proxies go wrong", key="passed", more=True, seconds=50,
          columns="passed=passed of 9, " + ", ".join(f"{row}_pass={row}" for row in ROWS))
def rows(ctx: Ctx) -> dict:
    figures: dict = {"rows": {}}
    for row, run in zip(ROWS, (a, a2, b, c, c2, d, e, f, i)):
        try:
            figures["rows"][row] = run(ctx)
        except Exception as error:  # one row must not take the others with it
            figures["rows"][row] = {"pass": False, "failed": f"{type(error).__name__}: {error}"}
        figures["rows"][row]["pass"] = int(figures["rows"][row]["pass"])
    figures["passed"] = sum(r["pass"] for r in figures["rows"].values())
    return figures | {f"{row}_pass": r["pass"] for row, r in figures["rows"].items()}
