"""Run `lg load` against a peer, and know what the machine did meanwhile."""
import itertools
import json
import os
import subprocess
import time

from layout import LG, WORK
from origins import Origins
from peer import Peer
from procs import kernel_cpu, machine_busy, wait_quiet

_serial = itertools.count()

# More CPU than this, taken by strangers, spoils a measurement.
NOISE = 0.12


def argv(peer: Peer, origin: str, paths: list, options: list) -> list[str]:
    """`paths`: strings, or tuples (path, file[, times]); times as in `lg load --help`."""
    WORK.mkdir(parents=True, exist_ok=True)
    listing = WORK / f"targets.{os.getpid()}.{next(_serial)}"
    wire = None
    with open(listing, "w") as f:
        for path in paths:
            path, *rest = path if isinstance(path, tuple) else (path,)
            wire = peer.wire(origin, path)
            f.write("\t".join([wire["target"], *rest]) + "\n")
    tls = ["--tls", str(peer.tls)] if peer.tls else []
    return [str(LG), "load", "--connect", wire["connect"], "--host", wire["host"], *tls, "--targets", str(listing), *map(str, options)]


def start(peer: Peer, origin: str, paths: list, options: list) -> subprocess.Popen:
    return subprocess.Popen(argv(peer, origin, paths, options), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, preexec_fn=peer.machine.as_client)


def finish(process: subprocess.Popen, check=True, limit=900) -> dict | None:
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise RuntimeError(f"lg: not done after {limit} s") from None
    finally:
        os.unlink(process.args[process.args.index("--targets") + 1])
    if process.returncode != 0:
        if check:
            raise RuntimeError(f"lg: {err.strip()[-300:]}")
        return None
    return json.loads(out)


def lg(peer: Peer, origin: str, paths: list, options: list, check=True, limit=900) -> dict | None:
    """The figures; None when lg failed and that was not to be checked."""
    return finish(start(peer, origin, paths, options), check, limit)


def measure(peer: Peer, origins: Origins, origin: str, paths: list, options: list, tries=2) -> dict:
    """lg's figures, and CPU and memory of the server, requests at the fast origin, CPU that strangers took.

    A measurement that strangers spoilt is repeated, up to `tries` in all; the quietest one counts.
    """
    best = None
    for attempt in range(tries):
        waited = wait_quiet() if tries > 1 else 0
        proc = peer.proc
        proc.reset_peak()
        origins.log_mark()
        before = proc.cpu(), origins.cpu(), machine_busy(), kernel_cpu(), time.process_time(), time.monotonic()
        figures = lg(peer, origin, paths, options)
        after = proc.cpu(), origins.cpu(), machine_busy(), kernel_cpu(), time.process_time(), time.monotonic()
        server, origin_cpu, busy, kernel, own, wall = (b - a for a, b in zip(before, after))
        noise = (busy - server - origin_cpu - kernel - figures["lg_cpu_s"] - own) / wall
        figures |= {"server_cpu_s": round(server, 3), "origin_cpu_s": round(origin_cpu, 3), "kernel_cpu_s": round(kernel, 3),
                    "mem": proc.memory(), "origin": origins.log_since(), "noise_cpu": round(max(0.0, noise), 3),
                    "attempt": attempt, "waited_s": waited}
        if best is None or figures["noise_cpu"] < best["noise_cpu"]:
            best = figures
        if best["noise_cpu"] < NOISE:
            break
    return best
