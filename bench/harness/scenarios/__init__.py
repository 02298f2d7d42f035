"""The scenarios: functions (ctx) -> dict of figures, registered with the columns of their table.

ctx.peer runs on an empty cache when a scenario is called; those that share a group share one start of the peer, and what ctx.warm() has
brought into its cache. What a scenario returns below `raw` is kept and not shown.
"""
import importlib
from dataclasses import dataclass
from typing import Callable


@dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    run: Callable
    group: str | None  # scenarios of one group share a start
    columns: list[tuple[str, str]]  # (key, heading)
    key: str  # the figure that ratios are taken of
    more_is_better: bool
    seconds: float  # about what it takes for one peer, beyond the measured seconds


SCENARIOS: dict[str, Scenario] = {}


def scenario(name: str, title: str, *, key: str, more: bool, columns: str, group: str | None = None, seconds=5.0):
    """Registers a function. `columns`: "key=heading, key=heading"."""
    pairs = [tuple(column.strip().split("=", 1)) for column in columns.split(",")]

    def register(run):
        SCENARIOS[name] = Scenario(name, title, run, group, pairs, key, more, seconds)
        return run

    return register


for _module in ("hot", "cold", "rows", "faults", "restart", "registry", "image"):
    importlib.import_module(f"scenarios.{_module}")
