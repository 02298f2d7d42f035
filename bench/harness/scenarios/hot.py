"""Hits: everything asked for is in the cache. With TLS the same again."""
from layout import GIB, MIB
from scenarios import scenario
from scenarios.context import Ctx, errors

SMALL = ("rps=req/s, p50_us=p50 µs, p99_us=p99 µs, cpu_s_per_1k=CPU s/1000, peak_rss_mib=peak RSS MiB, client_busy=client busy, "
         "errors=errors")
LARGE = "gb_s=GB/s, cpu_s_per_gib=CPU s/GiB, peak_rss_mib=peak RSS MiB, anon_mib=anon MiB, client_busy=client busy, errors=errors"


def many(ctx: Ctx, cls: str, conns=64) -> dict:
    ctx.warm(cls)
    discard = [] if cls == "s1k" else ["--discard"]
    r = ctx.measure([path for path, _ in ctx.paths(cls)], "--conns", conns, "--duration", ctx.secs, *discard)
    return {"rps": round(r["rps"], 1), "gb_s": round(r["gb_s"], 4), "p50_us": r["lat_us"]["p50"], "p99_us": r["lat_us"]["p99"],
            "cpu_s_per_1k": round(r["server_cpu_s"] / max(r["ok"], 1) * 1000, 4), "peak_rss_mib": r["mem"]["peak"],
            "client_busy": round(r["lg_cpu_s"] / r["wall_s"], 2), "errors": errors(r),
            "origin_requests": r["origin"]["requests"], "raw": r}


def large(ctx: Ctx, conns: int) -> dict:
    ctx.warm("g1")
    r = ctx.measure([ctx.path("g1")[0]], "--conns", conns, "--duration", ctx.secs, "--discard")
    return {"gb_s": round(r["gb_s"], 4), "cpu_s_per_gib": round(r["server_cpu_s"] / max(r["body_bytes"] / GIB, 1e-9), 3),
            "peak_rss_mib": r["mem"]["peak"], "anon_mib": r["mem"]["anon"],
            "client_busy": round(r["lg_cpu_s"] / r["wall_s"], 2), "errors": errors(r), "origin_bytes": r["origin"]["bytes"],
            "raw": r}


@scenario("S1", "hot, 1 KiB, 64 connections", key="rps", more=True, group="hot", seconds=2, columns=SMALL)
def s1(ctx):
    return many(ctx, "s1k")


@scenario("S2", "hot, 100 KiB, 64 connections", key="rps", more=True, group="hot", seconds=2, columns=SMALL)
def s2(ctx):
    return many(ctx, "s100k")


@scenario("S3a", "hot, 1 GiB, 1 connection", key="gb_s", more=True, group="hot", seconds=4, columns=LARGE)
def s3a(ctx):
    return large(ctx, 1)


@scenario("S3b", "hot, 1 GiB, 8 connections", key="gb_s", more=True, group="hot", seconds=1, columns=LARGE)
def s3b(ctx):
    return large(ctx, 8)


@scenario("S1t", "TLS, hot, 1 KiB, 64 connections", key="rps", more=True, group="tls", seconds=3, columns=SMALL)
def s1t(ctx):
    return many(ctx, "s1k")


@scenario("S2t", "TLS, hot, 100 KiB, 64 connections", key="rps", more=True, group="tls", seconds=2, columns=SMALL)
def s2t(ctx):
    return many(ctx, "s100k")


@scenario("S3t", "TLS, hot, 1 GiB, 1 connection", key="gb_s", more=True, group="tls", seconds=4, columns=LARGE)
def s3t(ctx):
    return large(ctx, 1)


FIRST = 512 * MIB
RANGE = f"{FIRST}-{FIRST + MIB - 1}"


@scenario("S7h", "hot, 1 MiB range in the middle of 1 GiB, 1 connection", key="ttfb_p50_us", more=False, group="hot", seconds=1,
          columns="ttfb_p50_us=first byte µs, total_p50_us=total µs, p99_us=p99 µs, is_206=206, verified=bytes right")
def s7h(ctx: Ctx) -> dict:
    ctx.warm("g1")
    path, file = ctx.path("g1")
    right = ctx.lg("fast", [(path, file)], "--range", RANGE, "--verify")
    r = ctx.measure([path], "--conns", 1, "--requests", 200, "--range", RANGE, "--discard")
    return {"ttfb_p50_us": r["ttfb_us"]["p50"], "total_p50_us": r["lat_us"]["p50"], "p99_us": r["lat_us"]["p99"],
            "is_206": int(r["status"].get("206", 0) == 200), "verified": int(right["ok"] == 1 and right["verify_fail"] == 0),
            "origin_bytes": r["origin"]["bytes"], "raw": r}
