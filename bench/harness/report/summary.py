"""Results of a run, reduced: for each scenario and peer the values of all rounds, and what follows from them."""
import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from scenarios import SCENARIOS

OURS = ("kato", "kato-tls")
HIDDEN = ("raw", "origin_log", "at")


@dataclass
class Summary:
    meta: dict
    data: dict  # {scenario: {peer: [result, …]}}

    @classmethod
    def of(cls, folder: Path) -> "Summary":
        data: dict = {}
        for file in sorted(folder.glob("*.*.*.json")):
            result = json.loads(file.read_text())
            if result["scenario"] in SCENARIOS:
                data.setdefault(result["scenario"], {}).setdefault(result["peer"], []).append(result)
        ordered = {name: data[name] for name in SCENARIOS if name in data}
        for peers in ordered.values():
            for results in peers.values():
                results.sort(key=lambda result: result["round"])
        return cls(json.loads((folder / "meta.json").read_text()), ordered)

    def json(self) -> str:
        """Every figure of every round, without what a load generator says about each request."""
        scenarios = {
            scenario: {peer: [{k: v for k, v in result.items() if k not in HIDDEN} for result in results]
                       for peer, results in peers.items()}
            for scenario, peers in self.data.items()}
        return json.dumps({"meta": self.meta, "scenarios": scenarios}, indent=1) + "\n"

    def values(self, scenario: str, peer: str, key: str) -> list:
        results = self.data.get(scenario, {}).get(peer, [])
        return [r[key] for r in results if isinstance(r.get(key), (int, float)) and not isinstance(r.get(key), bool)]

    def median(self, scenario: str, peer: str, key: str):
        values = self.values(scenario, peer, key)
        return median(values) if values else None

    def is_reference(self, peer: str) -> bool:
        return peer == "iperf3" or peer in self.meta["references"]

    def failure(self, scenario: str, peer: str) -> str | None:
        """Why a peer has no figures at all."""
        results = self.data[scenario][peer]
        return results[0]["failed"] if all("failed" in r for r in results) else None

    def best(self, scenario: str) -> str | None:
        """The best of the others, by the scenario's figure."""
        about = SCENARIOS[scenario]
        others = {peer: self.median(scenario, peer, about.key) for peer in self.data[scenario]
                  if peer not in OURS and not self.is_reference(peer)}
        others = {peer: value for peer, value in others.items() if value is not None}
        pick = max if about.more_is_better else min
        return pick(others, key=others.get) if others else None

    def ours(self, scenario: str) -> str | None:
        return next((peer for peer in OURS if peer in self.data[scenario]), None)

    def ratio(self, scenario: str, peer: str, to: str) -> tuple[float, float, float] | None:
        """Median, least and greatest of the ratio by rounds, above 1 when `peer` is the better one.

        Rounds that both have are compared with each other: what disturbed the machine then disturbed both.
        """
        about = SCENARIOS[scenario]
        mine, theirs = ({r["round"]: r.get(about.key) for r in self.data[scenario].get(p, [])} for p in (peer, to))
        pairs = [(mine[n], theirs[n]) for n in sorted(mine.keys() & theirs.keys()) if mine[n] and theirs[n]]
        ratios = [a / b if about.more_is_better else b / a for a, b in pairs]
        return (median(ratios), min(ratios), max(ratios)) if ratios else None
