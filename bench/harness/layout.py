"""Where everything is: folders, programs, ports, CPUs."""
import os
import shutil
import tempfile
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent
ROOT = BENCH.parent
TARGET = ROOT / "target"
DATA = Path(os.environ.get("BENCH_DATA", TARGET / "bench/data"))
RESULTS = Path(os.environ.get("BENCH_RESULTS", TARGET / "bench/results"))
LG = Path(os.environ.get("BENCH_LG", TARGET / "release/lg"))
KATO = Path(os.environ.get("KATO_PROXY", TARGET / "release/kato-proxy"))

# Of the origins. Peers have 19100 and above.
PORTS = {"fast": 18080, "chaos": 18082, "registry": 18085, "registry_tls": 18086, "registry_wan": 18087}
IPERF_PORT = 18099

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def work_folder() -> Path:
    """Where peers keep their files. Some run as users of their own, who must be able to get there."""
    wanted = Path(os.environ.get("BENCH_WORK", TARGET / "bench/work"))
    passable = all(p.stat().st_mode & 0o001 for p in wanted.parents if p.exists())
    return wanted if passable else Path(tempfile.gettempdir()) / "kato-bench"


WORK = work_folder()


# What the stores of the peers and the data need on the disk, in bytes, before a cache of theirs would run full.
ROOM = 12 * GIB


def check_room() -> None:
    """A full disk makes every proxy look slow, and ours pass everything through: better not to begin."""
    WORK.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(WORK).free
    if free < ROOM:
        raise SystemExit(f"{WORK}: {free / GIB:.1f} GiB free, {ROOM / GIB:.0f} GiB needed\nhint: make room, or set BENCH_WORK to another file system")


class Machine:
    """Which CPUs a run uses, and how many workers each server has."""

    def __init__(self, pin: bool, workers: int | None = None):
        self.pin = pin
        self.server_cpus = {0} if pin else None
        self.client_cpus = {1} if pin else None
        self.workers = workers or (1 if pin else os.cpu_count())

    def as_client(self):
        """For `preexec_fn`: the child runs where load generator and origins run."""
        if self.client_cpus:
            os.sched_setaffinity(0, self.client_cpus)


def expand(text: str, values: dict) -> str:
    """Replaces every @NAME@."""
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    return text


def port_values() -> dict:
    return {f"{name.upper()}_PORT": port for name, port in PORTS.items()}
