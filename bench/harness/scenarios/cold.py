"""Misses: large and small, one client and many, with the origin or the proxy as the limit."""
import statistics
import time
import uuid

import load
from layout import MIB, PORTS
from scenarios import scenario
from scenarios.context import Ctx, drain, errors, mib, ms
from scenarios.hot import RANGE


@scenario("S4", "cold, 1 GiB, 1 client, origin at full speed", key="wall_s", more=False, seconds=5,
          columns="wall_s=wall s, ttfb_ms=first byte ms, server_cpu_s=CPU s, peak_rss_mib=peak RSS MiB, anon_mib=anon MiB, "
                  "second_ok=2nd GET right, second_origin_requests=origin requests of it")
def s4(ctx: Ctx) -> dict:
    drain()
    path, file = ctx.path("g1", 0, "cold" + uuid.uuid4().hex[:8])
    r = ctx.measure([path], "--requests", 1, "--discard", tries=1)
    time.sleep(0.5)
    ctx.origins.log_mark()
    again = ctx.lg("fast", [(path, file)], "--requests", 1, "--verify")
    time.sleep(0.2)
    return {"wall_s": round(r["wall_s"], 3), "ttfb_ms": ms(r["ttfb_us"]["p50"]), "server_cpu_s": r["server_cpu_s"],
            "peak_rss_mib": r["mem"]["peak"], "anon_mib": r["mem"]["anon"], "errors": errors(r), "second_ok": again["ok"],
            "second_origin_requests": ctx.origins.log_since()["requests"], "raw": r}


# Bytes per second of an origin that is the limit of every proxy here.
SLOW = 200_000_000


@scenario("S4o", "cold, 1 GiB, 1 client, origin at 200 MB/s: beside the same without a proxy", key="times_direct", more=False, seconds=15,
          columns="times_direct=wall / direct, wall_s=wall s, ttfb_ms=first byte ms, ttfb_over_origin_ms=... after the origin's ms, "
                  "server_cpu_s=CPU s, peak_rss_mib=peak RSS MiB, anon_mib=anon MiB, ok=right bytes")
def s4_origin_bound(ctx: Ctx) -> dict:
    drain()
    ctx.origins.chaos(f"rate/{SLOW}")
    try:
        direct = straight(ctx, ctx.cold("g1"))
        r = ctx.measure([ctx.cold("g1")], "--verify", origin="chaos", tries=1)
    finally:
        ctx.origins.chaos("rate/0")
    return {"times_direct": round(r["wall_s"] / direct["wall_s"], 3), "wall_s": round(r["wall_s"], 3),
            "direct_s": round(direct["wall_s"], 3), "ttfb_ms": ms(r["ttfb_us"]["p50"]),
            "ttfb_over_origin_ms": round(ms(r["ttfb_us"]["p50"] or 0) - ms(direct["ttfb_us"]["p50"]), 2),
            "server_cpu_s": r["server_cpu_s"], "peak_rss_mib": r["mem"]["peak"], "anon_mib": r["mem"]["anon"], "ok": r["ok"],
            "raw": r}


def straight(ctx: Ctx, path: tuple) -> dict:
    """The same GET from the chaos origin itself."""
    class Nobody:
        machine, tls = ctx.peer.machine, None

        @staticmethod
        def wire(origin, target):
            address = f"127.0.0.1:{PORTS[origin]}"
            return {"connect": address, "host": address, "target": target}

    return load.lg(Nobody, "chaos", [path], ["--verify"])


@scenario("S4m", "cold, 1 GiB, 50 clients at once, origin at 200 MB/s: memory", key="peak_rss_mib", more=False, seconds=35,
          columns="peak_rss_mib=peak RSS MiB, anon_mib=anon MiB, wall_s=wall s, complete=complete of 50, origin_requests=origin requests")
def s4_memory(ctx: Ctx) -> dict:
    drain()
    ctx.origins.chaos(f"rate/{SLOW}")
    ctx.origins.chaos("reset")
    ctx.peer.proc.reset_peak()
    clients = 10 if ctx.light else 50
    try:
        r = ctx.lg("chaos", [ctx.cold("g1")[0]] * clients, "--once", "--close", "--conns", clients, "--discard", "--timeout", 120)
        stats = ctx.origins.chaos("stats")
    finally:
        ctx.origins.chaos("rate/0")
    memory = ctx.peer.proc.memory()
    return {"peak_rss_mib": memory["peak"], "anon_mib": memory["anon"], "wall_s": round(r["wall_s"], 2),
            "complete": r["ok"], "origin_requests": stats["requests"], "raw": r}


@scenario("S5", "herd: 50 clients, one cold 100 MiB object, origin at 50 MB/s (2.10 s)", key="last_max_s", more=False, seconds=8,
          columns="complete=complete of 50, origin_requests=origin requests, origin_mib=origin MiB, first_ms=leader's first byte ms, "
                  "first_spread_ms=others' after it ms, last_max_s=last byte s, last_over_leader_pct=after the leader's %, "
                  "server_cpu_s=CPU s, peak_rss_mib=peak RSS MiB")
def s5(ctx: Ctx) -> dict:
    drain()
    clients = 50
    ctx.origins.chaos("rate/50000000")
    ctx.origins.chaos("reset")
    path = ctx.cold("m100")
    ctx.peer.proc.reset_peak()
    before = ctx.peer.proc.cpu()
    try:
        r = ctx.lg("chaos", [path] * clients, "--once", "--close", "--conns", clients, "--detail", "--timeout", 240)
        stats = ctx.origins.chaos("stats")
    finally:
        ctx.origins.chaos("rate/0")
    good = [d for d in r["detail"] if d["error"] is None and d["status"] == 200 and d["bytes"] == 100 * MIB]
    first = sorted(d["start_us"] + d["body_us"] for d in good)
    last = sorted(d["start_us"] + d["done_us"] for d in good)
    figures = {"complete": len(good), "origin_requests": stats["requests"], "origin_mib": mib(stats["bytes"]),
               "server_cpu_s": round(ctx.peer.proc.cpu() - before, 2), "peak_rss_mib": ctx.peer.proc.memory()["peak"],
               "errors": errors(r), "raw": r, "origin_log": stats["log"][:60]}
    if good:
        # The leader is the one that heard first.
        leader = min(good, key=lambda d: d["start_us"] + d["body_us"])
        end = leader["start_us"] + leader["done_us"]
        figures |= {"first_ms": ms(first[0]), "first_spread_ms": ms(first[-1] - first[0]), "last_max_s": round(last[-1] / 1e6, 3),
                    "last_over_leader_pct": round((last[-1] / end - 1) * 100, 2)}
    return figures


@scenario("S6", "cold, 2000 x 1 KiB, 64 connections", key="rps", more=True, seconds=13,
          columns="rps=req/s, empty_cache_rps=... on an empty cache, p50_us=p50 µs, p99_us=p99 µs, cpu_s_per_1k=CPU s/1000, "
                  "errors=errors, origin_requests=origin requests")
def s6(ctx: Ctx) -> dict:
    """One batch on an empty cache; then, with 15,000 other objects in it (directory trees are made), the median of five."""
    def batch() -> dict:
        paths = [path for path, _ in ctx.paths("s1k", "c" + uuid.uuid4().hex[:8])]
        r = ctx.measure(paths, "--once", "--conns", 64, tries=1)
        time.sleep(0.3)
        return r

    drain()
    empty = batch()
    if not ctx.peer.t.get("cacheless"):
        count = 1_500 if ctx.light else 15_000
        ctx.lg("fast", [f"/u/fill/n/q{i:06d}_1.0_amd64.deb" for i in range(count)], "--once", "--conns", 32)
        drain()
    batches = [batch() for _ in range(5)]

    def middle(key) -> float:
        return statistics.median(key(r) for r in batches)

    return {"rps": round(middle(lambda r: r["rps"]), 1), "empty_cache_rps": round(empty["rps"], 1),
            "p50_us": middle(lambda r: r["lat_us"]["p50"]), "p99_us": middle(lambda r: r["lat_us"]["p99"]),
            "cpu_s_per_1k": round(sum(r["server_cpu_s"] for r in batches) / max(sum(r["ok"] for r in batches), 1) * 1000, 3),
            "errors": sum(errors(r) for r in batches), "origin_requests": middle(lambda r: r["origin"]["requests"]), "raw": batches}


@scenario("S7c", "cold, 1 MiB range in the middle of 1 GiB, origin at 200 MB/s", key="first_total_ms", more=False, seconds=5,
          columns="first_ttfb_ms=first byte ms, first_total_ms=total ms, first_status=status, first_origin_mib=origin MiB, "
                  "first_origin_mib_after=... once quiet, second_total_ms=again: total ms, second_origin_mib_after=again: origin MiB, "
                  "first_ok=bytes right")
def s7c(ctx: Ctx) -> dict:
    """1 MiB is 5 ms of the origin's link, the half before it 2.7 s."""
    drain()
    ctx.origins.chaos(f"rate/{SLOW}")
    ctx.origins.chaos("reset")
    path = ctx.cold("g1")
    figures = {}
    try:
        for which in ("first", "second"):
            before = ctx.origins.chaos("stats")["bytes"]
            r = ctx.lg("chaos", [path], "--range", RANGE, "--verify", "--detail", "--timeout", 60)
            now = ctx.origins.chaos("stats")["bytes"]
            quiet = ctx.origins.chaos_settled()
            d = r["detail"][0]
            figures |= {f"{which}_ttfb_ms": ms(d["body_us"]), f"{which}_total_ms": ms(d["done_us"]), f"{which}_status": d["status"],
                        f"{which}_ok": r["ok"], f"{which}_origin_mib": mib(now - before),
                        f"{which}_origin_mib_after": mib(quiet["bytes"] - before)}
    finally:
        ctx.origins.chaos("rate/0")
    return figures | {"ranges_asked": sorted({entry["range"] for entry in quiet["log"]})[:6]}
