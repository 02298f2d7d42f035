"""S10: the layers of a container image, as container clients pull them."""
import time

from data import blobs
from layout import GIB
from scenarios import scenario
from scenarios.context import Ctx, drain, errors


@scenario("S10", "container image: 6 blobs, 214 MB, 3 connections; then 8 clients at once, cold", key="hot_gb_s", more=True, seconds=20,
          columns="cold_s=cold s, hot_gb_s=hot GB/s, hot_cpu_s_per_gib=CPU s/GiB, cold_origin_requests=origin requests cold, "
                  "hot_origin_requests=... hot, herd_s=herd s, herd_origin_requests=herd origin requests, herd_errors=herd errors, "
                  "peak_rss_mib=peak RSS MiB")
def s10(ctx: Ctx) -> dict:
    ctx.origins.start_registry()
    files = blobs()
    paths = [path for path, _ in files]
    drain()
    ctx.origins.registry_mark()
    cold = ctx.lg("registry", files, "--once", "--conns", 3, "--verify")
    time.sleep(1)
    figures = {"cold_s": round(cold["wall_s"], 3), "cold_errors": errors(cold),
               "cold_origin_requests": ctx.origins.registry_requests()}
    ctx.lg("registry", paths, "--once", "--conns", 3)
    time.sleep(0.5)
    ctx.origins.registry_mark()
    r = ctx.measure(paths, "--requests", 30, "--conns", 3, "--discard", origin="registry")
    time.sleep(0.2)
    figures |= {"hot_gb_s": round(r["gb_s"], 4), "hot_cpu_s_per_gib": round(r["server_cpu_s"] / max(r["body_bytes"] / GIB, 1e-9), 3),
                "hot_origin_requests": ctx.origins.registry_requests(), "peak_rss_mib": r["mem"]["peak"]}
    if not ctx.peer.reference:
        ctx.peer.stop()
        ctx.peer.start(fresh=True)
        drain()
    ctx.origins.registry_mark()
    herd = ctx.lg("registry", [path for path in files for _ in range(8)], "--once", "--close", "--conns", 24)
    time.sleep(1)
    return figures | {"herd_s": round(herd["wall_s"], 3), "herd_errors": errors(herd),
                      "herd_origin_requests": ctx.origins.registry_requests()}
