"""Start, stop and measure processes. Linux, standard library only."""
import ctypes
import os
import pwd
import signal
import subprocess
import time
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
_libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def become_subreaper() -> None:
    """Daemonised grandchildren become our children, so that a tree can always be found and ended."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _stat(pid: int):
    try:
        raw = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    f = raw[raw.rindex(")") + 2:].split()
    return {"state": f[0], "ppid": int(f[1]), "session": int(f[3]),
            "cpu": (int(f[11]) + int(f[12])) / TICK, "reaped": (int(f[13]) + int(f[14])) / TICK}


def tree(root: int) -> dict[int, dict]:
    """`root`, its descendants and every process of its session."""
    all_ = {int(p): s for p in os.listdir("/proc") if p.isdigit() and (s := _stat(int(p)))}
    found = {p for p, s in all_.items() if p == root or s["session"] == root}
    grew = True
    while grew:
        more = {p for p, s in all_.items() if s["ppid"] in found} - found
        found |= more
        grew = bool(more)
    return {p: all_[p] for p in found if all_[p]["state"] != "Z"}


def machine_busy() -> float:
    """CPU seconds that all CPUs together have been busy (user, nice, system, irq, softirq, steal)."""
    f = [int(x) for x in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    return (f[0] + f[1] + f[2] + f[5] + f[6] + f[7]) / TICK


def kernel_cpu() -> float:
    """CPU seconds of the kernel's own threads (softirqs that overflow, write-back): caused by the measurement itself."""
    return sum(s["cpu"] for p in os.listdir("/proc") if p.isdigit() and (s := _stat(int(p))) and s["ppid"] == 2)


def wait_quiet(limit=20.0, share=0.15) -> float:
    """Wait, while nothing of ours is busy, until strangers take less than `share` of one CPU. Returns seconds waited."""
    t0 = time.monotonic()
    while True:
        b, k, t = machine_busy(), kernel_cpu(), time.monotonic()
        time.sleep(0.25)
        if (machine_busy() - b - (kernel_cpu() - k)) / (time.monotonic() - t) < share or t - t0 > limit:
            return round(t - t0, 1)


class Proc:
    def __init__(self, argv, log: Path, cpus=None, run_as=None, env=None):
        uid = pwd.getpwnam(run_as) if run_as else None

        def setup():
            os.setsid()
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if cpus:
                os.sched_setaffinity(0, cpus)
            if uid:
                os.initgroups(run_as, uid.pw_gid)
                os.setgid(uid.pw_gid)
                os.setuid(uid.pw_uid)

        self.out = open(log, "ab")
        self.p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.out,
                                  preexec_fn=setup, env={**os.environ, **(env or {})})
        self.pid = self.p.pid

    def alive(self) -> bool:
        return self.p.poll() is None

    def cpu(self) -> float:
        return sum(s["cpu"] for s in tree(self.pid).values())

    def reset_peak(self) -> None:
        for p in tree(self.pid):
            try:
                Path(f"/proc/{p}/clear_refs").write_text("5")
            except OSError:
                pass

    def memory(self) -> dict:
        """MiB over the tree: peak (sum of VmHWM since reset_peak), and now: rss, anon, shmem."""
        t = dict(peak=0.0, rss=0.0, anon=0.0, shmem=0.0)
        keys = {"VmHWM": "peak", "VmRSS": "rss", "RssAnon": "anon", "RssShmem": "shmem"}
        for p in tree(self.pid):
            try:
                for line in Path(f"/proc/{p}/status").read_text().splitlines():
                    k, _, v = line.partition(":")
                    if k in keys:
                        t[keys[k]] += int(v.split()[0]) / 1024
            except OSError:
                pass
        return {k: round(v, 1) for k, v in t.items()}

    def stop(self, sig="TERM", wait=15.0) -> float:
        """Ask the root process to end, kill what is left of its tree after `wait`; returns seconds taken."""
        t0 = time.monotonic()
        known = set(tree(self.pid))
        if self.alive():
            self.p.send_signal(getattr(signal, "SIG" + sig))
        while time.monotonic() - t0 < wait:
            self.p.poll()
            left = set(tree(self.pid)) | {p for p in known if (_stat(p) or {"state": "Z"})["state"] != "Z"}
            if not left:
                break
            time.sleep(0.02)
        else:
            self.kill(known)
        self._reap()
        self.out.close()
        return time.monotonic() - t0

    def kill(self, known=()) -> None:
        for p in set(tree(self.pid)) | set(known):
            try:
                os.kill(p, signal.SIGKILL)
            except OSError:
                pass
        try:
            self.p.wait(10)
        except subprocess.TimeoutExpired:
            pass
        self._reap()

    def _reap(self) -> None:
        """Collect zombies that came to us as subreaper (not the Popen children, which poll() collects)."""
        for p in [int(x) for x in os.listdir("/proc") if x.isdigit()]:
            s = _stat(p)
            if s and s["ppid"] == os.getpid() and s["state"] == "Z" and p != self.pid:
                try:
                    os.waitpid(p, os.WNOHANG)
                except OSError:
                    pass
