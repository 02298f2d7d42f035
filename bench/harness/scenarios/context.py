"""What every scenario is given, and what several of them do."""
import subprocess
import time
import uuid

import load
from data import CLASSES, name
from layout import DATA, MIB
from origins import Origins
from peer import Peer
from procs import wait_quiet


class Ctx:
    """A peer that runs, the origins, and the seconds that a measurement lasts."""

    def __init__(self, peer: Peer, origins: Origins, secs: float, light=False):
        self.peer, self.origins, self.secs = peer, origins, secs
        self.light = light  # a tenth of what takes long
        self.warmed: set[str] = set()

    # (path, file): the file is what the body must equal

    def path(self, cls: str, i=0, token="hot") -> tuple[str, str]:
        return (f"/u/{token}/{name(cls, i)}", str(DATA / "www" / name(cls, i)))

    def paths(self, cls: str, token="hot") -> list[tuple[str, str]]:
        return [self.path(cls, i, token) for i in range(CLASSES[cls][1])]

    def cold(self, cls: str, options="") -> tuple[str, str]:
        """A file of the chaos origin that nobody has asked for yet; `options`: see lg/src/origin/fault.rs."""
        token = uuid.uuid4().hex[:8] + ("." + options if options else "")
        return (f"/c/{token}/{name(cls, 0)}", str(DATA / "www" / name(cls, 0)))

    def lg(self, origin: str, paths: list, *options, **how) -> dict | None:
        return load.lg(self.peer, origin, paths, list(options), **how)

    def measure(self, paths: list, *options, origin="fast", tries=2) -> dict:
        return load.measure(self.peer, self.origins, origin, paths, list(options), tries)

    def warm(self, cls: str) -> None:
        """Brings a class into the cache, checking the bytes, and once more, for caches that keep things in memory from the second time on."""
        if cls in self.warmed or self.peer.t.get("cacheless"):
            return
        paths, conns = self.paths(cls), 1 if cls == "g1" else 8
        first = self.lg("fast", paths, "--once", "--conns", conns, "--verify")
        if first["errors"]:
            raise RuntimeError(f"warming {cls}: {first['errors']}")
        for _ in range(1 if cls == "g1" else 2):
            time.sleep(0.3)
            self.lg("fast", paths, "--once", "--conns", conns, "--discard")
        self.warmed.add(cls)


def drain() -> None:
    """Dirty pages of the past go to the disk before a cold scenario begins."""
    subprocess.run(["sync"], check=True)
    wait_quiet()


def errors(figures: dict) -> int:
    return sum(figures["errors"].values())


def mib(count: int) -> float:
    return round(count / MIB, 1)


def ms(micros) -> float | None:
    return None if micros is None else round(micros / 1e3, 2)
