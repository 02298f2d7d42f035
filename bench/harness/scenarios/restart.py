"""S9: a normal stop and a start with many objects in the store. How soon is a hit served, what share hits, what does an object cost?"""
import random
import subprocess
import time
import uuid

from peer import get
from scenarios import scenario
from scenarios.context import Ctx, errors

OBJECTS = 100_000


@scenario("S9", "restart with 100,000 objects of 200 bytes", key="first_hit_ms", more=False, seconds=60,
          columns="first_hit_ms=first hit ms after exec, listen_ms=listens ms, hit_share=hit share, hit_share_later=... 8 s on, "
                  "rss_mib=RSS MiB, bytes_per_object=RSS bytes/object, disk_kib_per_object=disk KiB/object, fill_s=fill s, stop_s=stop s")
def s9(ctx: Ctx) -> dict:
    count = OBJECTS // 10 if ctx.light else OBJECTS
    token = "many" + uuid.uuid4().hex[:6]
    path = lambda i: f"/u/{token}/n/p{i:06d}_1.0_amd64.deb"
    empty = ctx.peer.proc.memory()["rss"]
    r = ctx.lg("fast", [path(i) for i in range(count)], "--once", "--conns", 32, limit=600)
    filled = ctx.peer.proc.memory()["rss"]
    time.sleep(ctx.peer.t.get("settle", 2))
    stop = ctx.peer.stop()
    du = subprocess.run(["du", "-sk", str(ctx.peer.cache)], capture_output=True, text=True, check=True).stdout
    order = random.Random(9).sample(range(count), count)

    def hit_share(tries=300) -> float:
        """Of objects that nobody has asked for since the start."""
        ctx.origins.log_mark()
        for _ in range(tries):
            get(ctx.peer, "fast", path(order.pop()))
        time.sleep(0.05)
        return round(1 - ctx.origins.log_since()["requests"] / tries, 3)

    begin = time.monotonic()
    ctx.peer.start(fresh=False, ready=False)
    listens = time.monotonic() - begin
    first_hit = None
    while time.monotonic() - begin < 30 and first_hit is None and len(order) > 1000:
        ctx.origins.log_mark()
        answer = get(ctx.peer, "fast", path(order.pop()), timeout=5)
        now = time.monotonic() - begin
        time.sleep(0.002)
        if answer == (200, 200) and ctx.origins.log_since()["requests"] == 0:
            first_hit = now
    early = hit_share()
    memory = ctx.peer.proc.memory()
    time.sleep(8)
    return {"fill_s": round(r["wall_s"], 1), "errors": errors(r), "stop_s": round(stop, 2), "listen_ms": round(listens * 1e3, 1),
            "first_hit_ms": round(first_hit * 1e3, 1) if first_hit else None, "hit_share": early, "hit_share_later": hit_share(),
            "rss_empty_mib": empty, "rss_filled_mib": filled, "rss_mib": memory["rss"], "anon_mib": memory["anon"],
            "bytes_per_object": round((memory["rss"] - empty) * 2**20 / count), "objects": count,
            "disk_kib_per_object": round(int(du.split()[0]) / count, 2)}
