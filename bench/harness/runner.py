"""Runs jobs: rounds over the peers, whose order turns; one file a result, so that a run that was stopped goes on where it was."""
import json
import os
import subprocess
import time
import traceback
from pathlib import Path

from layout import IPERF_PORT, RESULTS, WORK, Machine
from origins import Origins
from peer import Peer
from plans import Job, minutes
from procs import Proc
from scenarios import SCENARIOS
from scenarios.context import Ctx

HIDDEN = ("raw", "origin_log", "peer", "scenario", "round", "at", "rows", "cases")


class Run:
    def __init__(self, name: str, machine: Machine, light=False):
        self.out = RESULTS / name
        self.machine, self.light = machine, light
        self.begin = time.monotonic()
        self.total = 0.0  # seconds, estimated
        self.behind = 0.0  # of it, done

    def file(self, scenario: str, peer: str, round_: int) -> Path:
        return self.out / f"{scenario}.{peer}.{round_}.json"

    def is_done(self, scenario: str, peer: str, round_: int) -> bool:
        file = self.file(scenario, peer, round_)
        return file.exists() and "failed" not in json.loads(file.read_text())

    def save(self, peer: str, scenario: str, round_: int, figures: dict) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        result = {"peer": peer, "scenario": scenario, "round": round_, "at": time.time(), **figures}
        self.file(scenario, peer, round_).write_text(json.dumps(result))
        brief = {key: value for key, value in figures.items() if key not in HIDDEN}
        spent, share = time.monotonic() - self.begin, self.behind / self.total if self.total else 0
        print(f"[{spent / 60:5.1f} min, {share:4.0%}] {scenario:4} round {round_} {peer:14} {json.dumps(brief)[:400]}", flush=True)

    def is_finished(self) -> bool:
        """Whether a whole plan has come to its end under this name."""
        return (self.out / "finished").exists()

    def write_meta(self, jobs: list[Job], plan: str) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        file = self.out / "meta.json"
        old = json.loads(file.read_text()) if file.exists() else {}
        peers = {name: Peer(name, self.machine) for job in jobs for name in job.peers}
        file.write_text(json.dumps({
            "plan": plan, "pin": self.machine.pin, "workers": self.machine.workers, "light": self.light,
            "mtu": int(os.environ.get("BENCH_NETNS", 0)), "when": time.strftime("%F %H:%M"), "kernel": os.uname().release,
            "cpu": cpu_model(), "cpus": os.cpu_count(),
            "versions": {**old.get("versions", {}), **{name: peer.version() for name, peer in peers.items()}},
            "about": {**old.get("about", {}), **{name: peer.t.get("about", "") for name, peer in peers.items()}},
            "references": sorted(set(old.get("references", [])) | {name for name, peer in peers.items() if peer.reference}),
        }, indent=1))

    def all(self, jobs: list[Job], plan: str) -> None:
        self.total = sum(job.seconds() for job in jobs)
        print(f"{plan}: {sum(len(job.scenarios) for job in jobs)} scenarios, about {minutes(jobs):.0f} minutes; results in {self.out}",
              flush=True)
        self.write_meta(jobs, plan)
        if self.machine.client_cpus:
            os.sched_setaffinity(0, self.machine.client_cpus)
        origins = Origins(self.machine)
        try:
            origins.start()
            for job in jobs:
                self.job(job, origins)
        finally:
            origins.stop()
            for file in WORK.glob(f"targets.{os.getpid()}.*"):
                file.unlink()
        (self.out / "finished").touch()
        spent = (time.monotonic() - self.begin) / 60
        print(f"{plan}: done in {spent:.1f} minutes", flush=True)

    def job(self, job: Job, origins: Origins) -> None:
        # One start for scenarios of a group; a start each for the others.
        groups: dict[str, list[str]] = {}
        for name in job.scenarios:
            groups.setdefault(SCENARIOS[name].group or name, []).append(name)
        for names in groups.values():
            step = Job(names, job.peers, job.rounds, job.secs, job.fewer)
            for round_ in range(1, job.rounds + 1):
                self.wire_speed(names, round_)
                turn = round_ % len(job.peers)
                for peer in job.peers[turn:] + job.peers[:turn]:
                    if round_ <= job.rounds_of(peer):
                        self.peer(peer, names, round_, job.secs, origins)
                        self.behind += step.seconds() / sum(map(step.rounds_of, step.peers))

    def peer(self, name: str, scenarios: list[str], round_: int, secs: float, origins: Origins) -> None:
        """One start of one peer. Whatever goes wrong with it is its result, and no one else's."""
        peer = Peer(name, self.machine)
        todo = [s for s in scenarios
                if not peer.skips(s) and bool(peer.tls) == (SCENARIOS[s].group == "tls") and not self.is_done(s, name, round_)]
        if not todo:
            return
        try:
            if peer.t.get("ready") == "registry":
                origins.start_registry()  # docker-registry ends at once when what it caches does not answer
            peer.start()
        except Exception as error:
            for scenario in todo:
                self.save(name, scenario, round_, {"failed": f"start: {error}; {peer.last_words()}"})
            peer.stop()
            peer.wipe()
            return
        try:
            ctx = Ctx(peer, origins, secs, self.light)
            for scenario in todo:
                try:
                    self.save(name, scenario, round_, SCENARIOS[scenario].run(ctx))
                except Exception as error:
                    traceback.print_exc()
                    self.save(name, scenario, round_, {"failed": f"{type(error).__name__}: {error}"})
                    self.mend(peer, origins)
        finally:
            peer.stop()
            peer.wipe()

    def mend(self, peer: Peer, origins: Origins) -> None:
        """After a failure: the next scenario finds the origins and the peer as it expects them."""
        try:
            if "chaos" not in origins.procs:
                origins.start_chaos()
            origins.chaos("rate/0")
            if not (peer.proc and peer.proc.alive()):
                peer.stop()
                peer.start()
        except Exception:
            traceback.print_exc()

    def wire_speed(self, scenarios: list[str], round_: int) -> None:
        """What this machine's loopback does at all, beside the large bodies."""
        for scenario, conns in (("S3a", 1), ("S3b", 8)):
            if scenario in scenarios and not self.is_done(scenario, "iperf3", round_):
                try:
                    self.save("iperf3", scenario, round_, iperf3(self.machine, conns))
                except (OSError, KeyError, ValueError, subprocess.SubprocessError) as error:
                    self.save("iperf3", scenario, round_, {"failed": str(error)})


def iperf3(machine: Machine, conns: int) -> dict:
    """Loopback TCP: the sender on the server's CPU, the receiver on the client's."""
    server = Proc(["iperf3", "-s", "-1", "-B", "127.0.0.1", "-p", str(IPERF_PORT)], WORK / "iperf.log", machine.server_cpus)
    time.sleep(0.3)
    try:
        done = subprocess.run(["iperf3", "-c", "127.0.0.1", "-p", str(IPERF_PORT), "-R", "-t", "2", "-P", str(conns), "-J"],
                              capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL, preexec_fn=machine.as_client)
        end = json.loads(done.stdout)["end"]
        return {"gb_s": round(end["sum_received"]["bits_per_second"] / 8e9, 3)}
    finally:
        server.stop(wait=3)


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
