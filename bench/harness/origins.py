"""The origin servers: `fast` (nginx, counted by its log), `chaos` (lg origin, live counters), `registry` (docker-registry)."""
import http.client
import json
import shutil
import subprocess
import sys
import time

from layout import BENCH, DATA, LG, PORTS, WORK, Machine, expand, port_values
from peer import wait_port
from procs import Proc


# From a question to its answer, at a site far from its registry.
WAN_MS = 40


class Origins:
    def __init__(self, machine: Machine):
        self.machine = machine
        self.run = WORK / "origins"
        self.procs: dict[str, Proc] = {}
        self.mark = self.registry_mark_at = 0

    def start(self) -> None:
        shutil.rmtree(self.run, ignore_errors=True)
        self.run.mkdir(parents=True)
        values = {"RUN": self.run, "DATA": DATA, **port_values()}
        for template in (BENCH / "origins").glob("*.in"):
            (self.run / template.stem).write_text(expand(template.read_text(), values))
        self.procs["fast"] = Proc(["nginx", "-c", str(self.run / "nginx.conf")], self.run / "nginx.out", self.machine.client_cpus)
        wait_port(f"127.0.0.1:{PORTS['fast']}", self.procs["fast"])
        self.start_chaos()

    def start_chaos(self) -> None:
        address = f"127.0.0.1:{PORTS['chaos']}"
        self.procs["chaos"] = Proc([str(LG), "origin", "--listen", address, "--root", str(DATA / "www")], self.run / "chaos.out",
                                   self.machine.client_cpus)
        wait_port(address, self.procs["chaos"])

    def stop_chaos(self) -> None:
        """The origin is down: nobody listens any more."""
        self.procs.pop("chaos").stop(wait=5)

    def start_registry(self) -> None:
        """Started when a scenario needs it, and filled the first time."""
        if "registry" in self.procs:
            return
        filled = (DATA / "registry").exists()
        (DATA / "registry").mkdir(exist_ok=True)
        address = f"127.0.0.1:{PORTS['registry']}"
        self.procs["registry"] = Proc(["docker-registry", "serve", str(self.run / "registry.yml")], self.run / "registry.out",
                                      self.machine.client_cpus, env={"GOMAXPROCS": str(self.machine.workers)})
        wait_port(address, self.procs["registry"])
        if not filled:
            subprocess.run(["skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", f"oci:{DATA}/image:1",
                            f"docker://{address}/bench/img:1"], check=True)

    def start_registry_tls(self) -> None:
        """The same content with TLS, for those who are measured without a proxy."""
        self.start_registry()
        self._also("registry_tls", ["docker-registry", "serve", str(self.run / "registry-tls.yml")])

    def start_registry_wan(self) -> None:
        """The registry, `WAN_MS` away."""
        self.start_registry()
        addresses = [f"127.0.0.1:{PORTS[name]}" for name in ("registry_wan", "registry")]
        self._also("registry_wan", [sys.executable, str(BENCH / "harness/delay.py"), *addresses, str(WAN_MS)])

    def _also(self, name: str, argv: list[str]) -> None:
        if name not in self.procs:
            self.procs[name] = Proc(argv, self.run / f"{name}.out", self.machine.client_cpus)
            wait_port(f"127.0.0.1:{PORTS[name]}", self.procs[name])

    def stop(self) -> None:
        for proc in self.procs.values():
            proc.stop(wait=5)
        self.procs.clear()

    def cpu(self) -> float:
        return sum(proc.cpu() for proc in self.procs.values())

    # fast: requests that have ended since log_mark(), from its log

    def log_mark(self) -> None:
        self.mark = (self.run / "access.log").stat().st_size

    def log_since(self) -> dict:
        with open(self.run / "access.log") as log:
            log.seek(self.mark)
            sizes = [int(line.split("\t")[2]) for line in log]
        return {"requests": len(sizes), "bytes": sum(sizes)}

    # registry: its own access log

    def registry_mark(self) -> None:
        self.registry_mark_at = (self.run / "registry.out").stat().st_size

    def registry_requests(self) -> int:
        with open(self.run / "registry.out", errors="replace") as log:
            log.seek(self.registry_mark_at)
            return sum('"GET /v2/' in line and "/blobs/" in line for line in log)

    # chaos: live

    def chaos(self, command: str) -> dict:
        """`stats`, `reset` or `rate/N`."""
        connection = http.client.HTTPConnection("127.0.0.1", PORTS["chaos"], timeout=30)
        try:
            connection.request("GET", "/__" + command)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def chaos_settled(self, limit=15.0) -> dict:
        """The counters once no body byte has left for a second."""
        sent, since, end = -1, time.monotonic(), time.monotonic() + limit
        while True:
            stats = self.chaos("stats")
            now = time.monotonic()
            if stats["bytes"] != sent:
                sent, since = stats["bytes"], now
            if now - since > 1.0 or now > end:
                return stats
            time.sleep(0.1)
