"""Does each peer start, cache and give the right bytes?"""
import time

from layout import Machine
from origins import Origins
from peer import Peer
from scenarios.context import Ctx


def smoke(machine: Machine, names: list[str]) -> int:
    """How many peers failed."""
    origins, failed = Origins(machine), 0
    try:
        origins.start()
        for name in names:
            peer = Peer(name, machine)
            print(f"{name:15} {peer.version()[:50]:50} ", end="", flush=True)
            try:
                if peer.t.get("ready") == "registry":
                    origins.start_registry()
                peer.start()
                print(tell(peer, origins))
            except Exception as error:
                failed += 1
                print(f"FAILS: {error}; {peer.last_words()}")
            finally:
                peer.stop()
                peer.wipe()
    finally:
        origins.stop()
    return failed


def tell(peer: Peer, origins: Origins) -> str:
    if peer.t.get("ready") == "registry":
        return "starts"
    ctx, words = Ctx(peer, origins, 1), []
    for cls in ("s1k", "m10"):
        paths = ctx.paths(cls)[:20]
        first = ctx.lg("fast", paths, "--once", "--verify", "--timeout", 10)
        time.sleep(0.5)
        origins.log_mark()
        again = ctx.lg("fast", paths, "--once", "--verify", "--timeout", 10)
        time.sleep(0.2)
        words.append(f"{cls}: right {first['ok']}+{again['ok']} of 20+20, {origins.log_since()['requests']} origin requests the 2nd time")
    part = ctx.lg("fast", [ctx.path("m10")], "--range", "5000000-5099999", "--verify")
    words.append(f"range: {part['status']}, wrong {part['verify_fail']}")
    chaos = ctx.lg("chaos", [ctx.cold("m10")], "--verify")
    words.append(f"chaos: right {chaos['ok']} of 1; RSS {peer.proc.memory()['rss']} MiB")
    return "; ".join(words)
