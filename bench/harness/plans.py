"""What is run by default: which scenarios, with whom, how often, how long; and about how long that takes."""
from dataclasses import dataclass, field

from scenarios import SCENARIOS

# Squid and trafficserver are the slow ones: they take most of the time and change least between rounds.
FAST = ["kato", "nginx", "varnish-malloc", "acng"]
ALL = FAST + ["ats", "squid"]


@dataclass
class Job:
    """Scenarios that are run together, in rounds over the peers. `fewer`: rounds of single peers."""
    scenarios: list[str]
    peers: list[str]
    rounds: int
    secs: float = 3.0
    fewer: dict[str, int] = field(default_factory=dict)

    def rounds_of(self, peer: str) -> int:
        return min(self.rounds, self.fewer.get(peer, self.rounds))

    def seconds(self) -> float:
        """An estimate; the rows of a peer that fails them and the fills of a slow one take longer."""
        once = sum(SCENARIOS[s].seconds + (self.secs if SCENARIOS[s].group else 0) for s in self.scenarios) + 2
        return once * sum(self.rounds_of(p) for p in self.peers)


def once(*peers: str) -> dict[str, int]:
    return dict.fromkeys(peers, 1)


PLANS = {
    # Smoke: does everything run, and is anything far off? A few minutes.
    "quick": [
        Job(["S1", "S2", "S3a", "S7h"], ["kato", "nginx"], 2, 1.0),
        Job(["S1t", "S2t"], ["kato-tls", "nginx-tls"], 1, 1.0),
        Job(["S4"], ["kato", "nginx"], 1),
        Job(["S5"], ["kato"], 1),
        Job(["S6"], ["kato", "nginx"], 1),
        Job(["rows"], ["kato"], 1),
        Job(["S9"], ["kato"], 1),
    ],
    # The figures of docs/performance.md: five rounds of whoever may be the best, fewer of who never is. Verdicts need no rounds.
    "full": [
        Job(["S1", "S2", "S3a", "S3b", "S7h"], ALL, 5, 1.0, {"squid": 2, "ats": 2}),
        Job(["S1t", "S2t", "S3t"], ["kato-tls", "nginx-tls"], 5, 1.0),
        Job(["S4"], ["direct"] + ALL, 5, fewer=once("direct", "ats", "squid")),
        Job(["S6"], ALL, 5, fewer=once("nginx", "acng", "squid")),
        Job(["S4o"], ["kato", "nginx", "varnish-malloc"], 3, fewer=once("nginx", "varnish-malloc")),
        Job(["S4m"], ["kato"], 1),
        Job(["S5"], ALL, 5, fewer=once("nginx", "varnish-malloc", "acng", "ats", "squid")),
        Job(["S7c"], ALL, 3, fewer=once("nginx", "varnish-malloc", "acng", "ats", "squid")),
        Job(["S9"], ["kato", "nginx"], 1),
        Job(["S11", "S11w"], ["direct", "kato", "registry"], 3),
        Job(["rows"], ALL, 1),
    ],
    # What the others leave out: other configurations of the peers, faults, container images.
    "rest": [
        Job(["S1", "S2", "S3a", "S3b", "S7h"], ["direct", "kato", "nginx-slice", "squid-rock", "varnish", "tinyproxy"], 3, 3.0),
        Job(["S4", "S6", "S7c"], ["direct", "kato", "nginx-slice", "squid-rock", "varnish"], 3),
        Job(["S8"], ["kato", "nginx", "varnish", "acng", "ats", "squid"], 2),
        Job(["S10"], ["direct", "kato", "nginx", "varnish-malloc", "registry"], 3),
        Job(["S11t"], ["direct", "kato", "registry"], 3),
    ],
}


def minutes(jobs: list[Job]) -> float:
    return sum(job.seconds() for job in jobs) / 60
