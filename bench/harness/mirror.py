"""The offline mirror: an import beside `cp` of the same bytes and `sha256sum`, and how long hits and misses take without a network.

No peer does either, so the yardsticks are coreutils and the goals: not slower than copying and checking by hand, and 5 ms at p99.
"""
import functools
import http.client
import http.server
import json
import os
import shutil
import statistics
import subprocess
import threading
import time
from pathlib import Path

from layout import KATO, MIB, RESULTS, WORK

LARGE = [(f"large-{n}", 64 * MIB) for n in range(8)]
SMALL = [(f"small-{n}", 2048) for n in range(2000)]
REQUESTS = 5000


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def run(*words, **more) -> str:
    return subprocess.run([KATO, *map(str, words)], check=True, capture_output=True, text=True, **more).stdout


def fill(folder: Path) -> list[str]:
    """A store of one snapshot, exported; returns the paths that it has."""
    files = folder / "files"
    files.mkdir(parents=True)
    for name, size in LARGE + SMALL:
        (files / name).write_bytes(os.urandom(size))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=files))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}/"
    (folder / "proxy.toml").write_text(f'[cache]\nmin_free = "0B"\n[[upstream]]\nname = "files"\nurls = ["{base}"]\n')
    (folder / "list").write_text("".join(f"{base}{name}\n" for name, _ in LARGE + SMALL))
    run("prefetch", "--config", folder / "proxy.toml", "--cache-dir", folder / "store", "--list", folder / "list")
    server.shutdown()
    run("bundle", "keygen", "--secret", folder / "key", "--public", folder / "key.pub")
    run("bundle", "export", "--config", folder / "proxy.toml", "--cache-dir", folder / "store", "--series", "bench",
        "--key", folder / "key", "--out", folder / "out", "--waive", "a measurement")
    # Nothing is linked with the store that would be imported into otherwise.
    shutil.rmtree(folder / "store")
    shutil.rmtree(files)
    return [f"/files/{name}" for name, _ in SMALL]


def timed(work) -> float:
    os.sync()
    begun = time.monotonic()
    work()
    os.sync()
    return time.monotonic() - begun


def by_hand(bundle: Path, to: Path):
    subprocess.run(["cp", "-r", bundle, to], check=True)
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=to, check=True)


def imports(folder: Path, rounds: int) -> list[dict]:
    bundle = folder / "out/bench-000001"
    found = []
    for _ in range(rounds):
        row = {}
        for name, to, work in (
            ("cp + sha256sum", folder / "copied", lambda: by_hand(bundle, folder / "copied")),
            ("import", folder / "there", lambda: run("bundle", "import", bundle, "--cache-dir", folder / "there", "--trust", folder / "key.pub")),
        ):
            shutil.rmtree(to, ignore_errors=True)
            row[name] = timed(work)
        row["ratio"] = row["cp + sha256sum"] / row["import"]
        found.append(row)
    return found


def latencies(address: str, paths: list[str]) -> list[float]:
    """Milliseconds of one request after the other over one connection."""
    client = http.client.HTTPConnection(address)
    found = []
    for n in range(REQUESTS):
        begun = time.perf_counter()
        client.request("GET", paths[n % len(paths)])
        client.getresponse().read()
        found.append((time.perf_counter() - begun) * 1000)
    return sorted(found)


def served(folder: Path, paths: list[str]) -> dict:
    server = subprocess.Popen([KATO, "serve", "--offline", "--config", folder / "proxy.toml", "--cache-dir", folder / "there",
                               "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        address = next(said["address"] for said in map(json.loads, server.stdout) if said["listener"] == "data")
        # Each miss is of another URL, so that each is noted.
        kinds = {"hits": paths, "misses": [f"/files/unknown-{n}" for n in range(REQUESTS)], "misses again": ["/files/unknown-0"]}
        return {kind: {"p50": statistics.median(times), "p99": times[len(times) * 99 // 100], "worst": times[-1]}
                for kind, times in ((kind, latencies(address, wanted)) for kind, wanted in kinds.items())}
    finally:
        server.terminate()
        server.wait()


def table(found: dict) -> str:
    """The figures for people: medians of the imports, and of requests one after the other."""
    size = found["bytes"] / MIB
    speed = {name: statistics.median(size / row[name] for row in found["imports"]) for name in ("import", "cp + sha256sum")}
    ratios = sorted(row["ratio"] for row in found["imports"])
    lines = ["| | MiB/s |", "|---|--:|"]
    lines += [f"| {name} | {figure:.0f} |" for name, figure in speed.items()]
    lines += ["", f"The import is {statistics.median(ratios):.2f} times as fast ({ratios[0]:.2f} … {ratios[-1]:.2f}, {len(ratios)} rounds).", "",
              "| without a network | p50 ms | p99 ms | worst ms |", "|---|--:|--:|--:|"]
    lines += [f"| {kind} | {row['p50']:.2f} | {row['p99']:.2f} | {row['worst']:.2f} |" for kind, row in found["offline"].items()]
    return "\n".join(lines)


def mirror(rounds: int) -> int:
    folder = WORK / "mirror"
    shutil.rmtree(folder, ignore_errors=True)
    paths = fill(folder)
    found = {"bytes": sum(size for _, size in LARGE + SMALL), "imports": imports(folder, rounds), "offline": served(folder, paths)}
    shutil.rmtree(folder)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "mirror.json").write_text(json.dumps(found, indent=1))
    size = sum(size for _, size in LARGE + SMALL) / MIB
    for row in found["imports"]:
        print(f"import {size / row['import']:7.0f} MiB/s   cp + sha256sum {size / row['cp + sha256sum']:7.0f} MiB/s   ratio {row['ratio']:.2f}")
    for kind, row in found["offline"].items():
        print(f"{kind:13} p50 {row['p50']:.3f} ms   p99 {row['p99']:.3f} ms   worst {row['worst']:.3f} ms")
    return 0 if all(row["p99"] < 5 for row in found["offline"].values()) else 1
