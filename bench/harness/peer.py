"""A proxy under test: its settings in peers/NAME, its process, and how a path of an origin is asked of it."""
import http.client
import shutil
import socket
import subprocess
import time
import tomllib
from pathlib import Path

from layout import BENCH, DATA, KATO, PORTS, WORK, Machine, expand, port_values
from procs import Proc


def wait_port(address: str, proc: Proc | None, limit=30.0, step=0.002) -> float:
    """Seconds until somebody listens."""
    host, port = address.rsplit(":", 1)
    begin = time.monotonic()
    while True:
        try:
            socket.create_connection((host, int(port)), 1).close()
            return time.monotonic() - begin
        except OSError:
            pass
        if proc is not None and not proc.alive():
            raise RuntimeError(f"the process for {address} ended with {proc.p.returncode}")
        if time.monotonic() - begin > limit:
            raise RuntimeError(f"nothing listens on {address} after {limit} s")
        time.sleep(step)


def names() -> list[str]:
    return sorted(file.parent.name for file in (BENCH / "peers").glob("*/peer.toml"))


class Peer:
    def __init__(self, name: str, machine: Machine, form: str | None = None, **values):
        """`values` replace those of `[values]` in peer.toml; so do, with its other keys, those of the table `[forms.FORM]`."""
        self.name, self.machine = name, machine
        self.dir = BENCH / "peers" / name
        self.t = tomllib.loads((self.dir / "peer.toml").read_text())
        own = self.t.get("values", {})
        if form:
            self.t |= self.t["forms"][form]
        self.values_ = {**own, **self.t.get("values", {}), **values}
        self.port = self.t["port"]
        self.run, self.cache = WORK / name / "run", WORK / name / "cache"
        self.reference = self.t.get("reference", False)
        self.tls = DATA / "tls/ca.pem" if self.t.get("tls") else None
        self.proc: Proc | None = None

    def skips(self, scenario: str) -> str | None:
        """Why it takes no part in a scenario."""
        if "only" in self.t and scenario not in self.t["only"]:
            return "not for this peer"
        if scenario.startswith("S11") and "image" not in self.t:
            return "no container client is pointed at it"
        return self.t.get("skip", {}).get(scenario)

    def values(self) -> dict:
        return {**self.values_, "RUN": self.run, "CACHE": self.cache, "PORT": self.port, "WORKERS": self.machine.workers,
                "DATA": DATA, "BENCH": BENCH, "DIR": self.dir, "KATO_PROXY": KATO, **port_values()}

    def wire(self, origin: str, path: str) -> dict:
        """How `path` of `origin` is asked of this peer: address, request target, Host."""
        form = {**{key: self.t[key] for key in ("target", "host")}, **self.t.get("map", {}).get(origin, {})}
        values = {**self.values(), "ORIGIN": f"127.0.0.1:{PORTS[origin]}", "NAME": origin, "PATH": path}
        return {"connect": expand(form.get("connect", "127.0.0.1:@PORT@"), values),
                "target": expand(form["target"], values), "host": expand(form["host"], values)}

    def _owned(self, *paths: Path) -> None:
        if "owner" in self.t:
            subprocess.run(["chown", "-R", self.t["owner"], *map(str, paths)], check=True)

    def start(self, fresh=True, ready=True) -> float:
        """Starts; `fresh` on an empty cache. Returns seconds until it listens; `ready` waits until it serves, too."""
        if fresh:
            self._prepare()
        argv = [expand(arg, self.values()) for arg in self.t["start"]]
        env = {key: expand(value, self.values()) for key, value in self.t.get("env", {}).items()}
        env.setdefault("GOMAXPROCS", str(self.machine.workers))
        self.proc = Proc(argv, self.run.parent / "out.log", self.machine.server_cpus, self.t.get("run_as"), env)
        took = wait_port(f"127.0.0.1:{self.port}", self.proc, self.t.get("start_wait", 30.0))
        if ready:
            self._ready()
        return took

    def _prepare(self) -> None:
        self.wipe()
        self.run.mkdir(parents=True)
        self.cache.mkdir(parents=True)
        for template in self.dir.glob("*.in"):
            (self.run / template.stem).write_text(expand(template.read_text(), self.values()))
        self._owned(self.run, self.cache)
        if "prepare" in self.t:
            subprocess.run(["bash", "-ec", expand(self.t["prepare"], self.values())], check=True, stdin=subprocess.DEVNULL)
            self._owned(self.run, self.cache)

    def _ready(self) -> None:
        """Some listen before they serve."""
        from load import lg  # needs this module, too
        origin = self.t.get("ready", "fast")
        path = "/v2/" if origin == "registry" else f"/u/ready{time.time_ns()}/pool/tiny/f00000_1.0_amd64.deb"
        end = time.monotonic() + 30
        while time.monotonic() < end:
            answer = lg(self, origin, [path], ["--timeout", "5"], check=False)
            if answer and answer["ok"] == 1:
                return
            time.sleep(0.1)
        raise RuntimeError(f"{self.name} listens and does not serve")

    def stop(self) -> float:
        """A normal stop; seconds taken."""
        if not self.proc:
            return 0.0
        proc, self.proc = self.proc, None
        return proc.stop(self.t.get("stop", "TERM"), self.t.get("stop_wait", 15.0))

    def kill(self) -> None:
        """SIGKILL to every process of the peer, as a power cut would."""
        if self.proc:
            self.proc.kill()
            self.proc.out.close()
            self.proc = None
            for file in self.run.glob("*pid"):
                file.unlink()

    def wipe(self) -> None:
        shutil.rmtree(WORK / self.name, ignore_errors=True)

    def last_words(self) -> str:
        """The end of what it printed."""
        file = self.run.parent / "out.log"
        return file.read_text(errors="replace").strip().rsplit("\n", 1)[-1][:200] if file.exists() else ""

    def version(self) -> str:
        if "version" not in self.t:
            return ""
        argv = [expand(arg, self.values()) for arg in self.t["version"]]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        except OSError as error:
            return str(error)
        return (done.stdout + done.stderr).strip().split("\n")[0][:80]


def get(peer: Peer, origin: str, path: str, timeout=10.0) -> tuple[int, int] | None:
    """One GET on a connection of its own: (status, body bytes), None when it fails."""
    wire = peer.wire(origin, path)
    host, port = wire["connect"].rsplit(":", 1)
    try:
        with socket.create_connection((host, int(port)), timeout) as s:
            s.sendall(f"GET {wire['target']} HTTP/1.1\r\nHost: {wire['host']}\r\nConnection: close\r\n\r\n".encode())
            response = http.client.HTTPResponse(s)
            response.begin()
            return response.status, len(response.read())
    except (OSError, http.client.HTTPException):
        return None
