"""docs/performance.md: what stands between `<!-- figures: NAME -->` and `<!-- end -->` is written here, everything else by people."""
import json
import re

from hits import table as hit_table
from layout import BENCH, RESULTS
from mirror import table as mirror_table
from report.goals import goals
from report.summary import Summary
from report.tables import number, row_table, table
from scenarios import SCENARIOS

BLOCK = re.compile(r"<!-- figures: (?P<name>[^>]+?) -->\n.*?<!-- end -->", re.DOTALL)


def fill(page: str, summary: Summary) -> str:
    def block(match: re.Match) -> str:
        return f"<!-- figures: {match['name']} -->\n{figures(match['name'], summary)}\n<!-- end -->"

    return BLOCK.sub(block, page)


def kept_mirror() -> dict | None:
    """What `bench mirror` has measured: here last, else what the repository has."""
    for file, read in ((RESULTS / "mirror.json", lambda found: found), (BENCH / "results.json", lambda found: found.get("mirror"))):
        if file.exists():
            return read(json.loads(file.read_text()))
    return None


def fill_one(page: str, name: str) -> str:
    """PAGE with the block NAME written anew, which needs no other results."""
    return re.sub(BLOCK.pattern.replace("[^>]+?", re.escape(name)),
                  lambda _: f"<!-- figures: {name} -->\n{figures(name, None)}\n<!-- end -->", page, flags=re.DOTALL)


def figures(name: str, summary: Summary) -> str:
    """NAME: `machine`, `goals`, `overview`, `hits`, `soak`, `mirror`, or scenarios."""
    if name == "machine":
        return machine(summary)
    if name == "goals":
        return goals(summary)
    if name == "overview":
        return overview(summary)
    if name == "mirror":
        found = kept_mirror()
        return mirror_table(found) if found else "Not measured yet."
    if name in EXTRA:
        file, show = EXTRA[name]
        return show(json.loads((RESULTS / file).read_text())) if (RESULTS / file).exists() else "Not measured yet."
    return "\n\n".join(one(summary, scenario) for scenario in name.split())


def one(summary: Summary, scenario: str) -> str:
    if scenario not in summary.data:
        return f"{scenario}: not measured yet."
    body = row_table(summary) if scenario == "rows" else table(summary, scenario)
    return f"**{scenario}** — {SCENARIOS[scenario].title}\n\n{body}"


def machine(summary: Summary) -> str:
    meta = summary.meta
    versions = ", ".join(f"{peer} {version.split()[-1]}" for peer, version in sorted(meta["versions"].items())
                         if version and not peer.startswith(("kato", "direct")) and "-" not in peer)
    return (f"{meta['when']}, {meta['cpu']} ({meta['cpus']} CPUs), Linux {meta['kernel']}, loopback MTU {meta['mtu']}, "
            f"{meta['workers']} worker each. {versions}.")


def overview(summary: Summary) -> str:
    """One line a scenario: ours, the best of the others, the ratio."""
    lines = ["| | ours | best of the others | ours / best, above 1 is better |", "|---|--:|--:|--:|"]
    for scenario in summary.data:
        about, ours, best = SCENARIOS[scenario], summary.ours(scenario), summary.best(scenario)
        if ours is None or scenario == "rows":
            continue
        heading = dict(about.columns)[about.key]
        mine = number(summary.median(scenario, ours, about.key))
        theirs, ratio = "–", "–"
        if best:
            theirs = f"{number(summary.median(scenario, best, about.key))} ({best})"
            found = summary.ratio(scenario, ours, best)
            ratio = f"{found[0]:.2f} ({found[1]:.2f} … {found[2]:.2f})" if found else "–"
        lines.append(f"| {scenario}: {about.title} | {mine} {heading} | {theirs} | {ratio} |")
    return "\n".join(lines)


def soak(found: dict) -> str:
    verdict, samples = found["verdict"], found["samples"]
    rows = ["| | second quarter | last quarter |", "|---|--:|--:|"]
    rows += [f"| {heading} | {number(verdict['second_quarter'][key])} | {number(verdict['last_quarter'][key])} |"
             for key, heading in (("rss_mib", "RSS MiB"), ("fds", "descriptors"))]
    requests = sum(verdict["requests"].values())
    return "\n".join(rows) + (f"\n\n{samples[-1]['t'] / 60:.0f} minutes, {requests:,} requests, {verdict['wrong_bodies']} wrong bodies: "
                             f"{'flat' if verdict['flat'] else 'NOT flat'}.")


# Blocks that come from files of their own.
EXTRA = {"hits": ("hits.json", hit_table), "soak": ("soak.kato.json", soak)}
