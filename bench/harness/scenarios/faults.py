"""S8: the client leaves, the origin dies, the proxy is killed; then a second client asks. Is what it gets whole and right?"""
import time

import load
from layout import MIB
from scenarios import scenario
from scenarios.context import Ctx, drain, mib

KINDS = {"origin_dies": "", "origin_dies_chunked": ".chunked-1", "origin_dies_rst": ".rst-1"}


def outcome(r: dict | None) -> str:
    if r is None:
        return "no answer"
    d = r["detail"][0]
    if d["error"] is None:
        return "complete"
    wrong = "WRONG BYTES, then " if d["verify_bad"] and d["error"] != "corrupt" else ""
    return f"{wrong}{d['error']} after {mib(d['bytes'])} MiB (status {d['status']})"


def second_client(ctx: Ctx, path: tuple) -> dict:
    before = ctx.origins.chaos("stats")
    r = ctx.lg("chaos", [path], "--verify", "--detail", "--timeout", 60, check=False)
    after = ctx.origins.chaos_settled(5)
    log = after["log"][before["requests"]:]
    return {"second": outcome(r), "wrong": int(bool(r) and r["verify_fail"] > 0), "origin_requests": len(log),
            "origin_mib": mib(after["bytes"] - before["bytes"]), "ranges": [e["range"] for e in log if e["range"]][:8]}


@scenario("S8", "faults at 60 of 100 MiB, then a second client", key="wrong_bodies", more=False, seconds=40,
          columns="wrong_bodies=wrong bodies, client_abort_mib=client left: then fetched MiB, origin_dies_first=origin dies: first client, "
                  "origin_dies_mib=... then fetched MiB, proxy_killed_second=proxy killed: second client, proxy_killed_mib=... fetched MiB")
def s8(ctx: Ctx) -> dict:
    drain()
    cases = {}
    ctx.origins.chaos("rate/50000000")
    ctx.origins.chaos("reset")
    path = ctx.cold("m100")
    ctx.lg("chaos", [path], "--abort-after", 20 * MIB)
    sent = ctx.origins.chaos_settled(6)["bytes"]
    ctx.origins.chaos("rate/0")
    cases["client_abort"] = {"origin_mib_in_the_end": mib(sent)} | second_client(ctx, path)
    for kind, option in KINDS.items():
        ctx.origins.chaos("reset")
        path = ctx.cold("m100", f"die-{60 * MIB}.times-1{option}")
        r = ctx.lg("chaos", [path], "--verify", "--detail", "--timeout", 30, check=False)
        time.sleep(0.5)
        cases[kind] = {"first": outcome(r)} | second_client(ctx, path)
    cases["proxy_killed"] = killed(ctx)
    return {"cases": cases, "wrong_bodies": sum(c["wrong"] for c in cases.values()),
            "client_abort_mib": cases["client_abort"]["origin_mib"], "origin_dies_first": cases["origin_dies"]["first"],
            "origin_dies_mib": cases["origin_dies"]["origin_mib"], "proxy_killed_second": cases["proxy_killed"]["second"],
            "proxy_killed_mib": cases["proxy_killed"]["origin_mib"]}


def killed(ctx: Ctx) -> dict:
    ctx.origins.chaos("rate/50000000")
    ctx.origins.chaos("reset")
    path = ctx.cold("m100")
    client = load.start(ctx.peer, "chaos", [path[0]], ["--detail", "--timeout", 30])
    time.sleep(1.2)
    ctx.peer.kill()
    load.finish(client, check=False, limit=60)
    ctx.origins.chaos("rate/0")
    ctx.peer.start(fresh=False)
    return second_client(ctx, path)
