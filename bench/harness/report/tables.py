"""Markdown tables: medians over the rounds, the range of the figure that decides, the ratio to the best of the others."""
from report.summary import OURS, Summary
from scenarios import SCENARIOS
from scenarios.rows import ROWS


def number(value) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def markdown(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]

    def line(row):
        return "| " + " | ".join(c.ljust(widths[i]) if i == 0 else c.rjust(widths[i]) for i, c in enumerate(row)) + " |"

    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([line(rows[0]), rule] + [line(row) for row in rows[1:]])


def ordered(summary: Summary, scenario: str) -> list[str]:
    """Ours first, then the others from the best down, then references."""
    about = SCENARIOS[scenario]

    def rank(peer):
        value = summary.median(scenario, peer, about.key)
        missing = value is None
        return (peer not in OURS, summary.is_reference(peer), missing, 0 if missing else (-value if about.more_is_better else value))

    return sorted(summary.data[scenario], key=rank)


def spread(summary: Summary, scenario: str, peer: str) -> str:
    values = summary.values(scenario, peer, SCENARIOS[scenario].key)
    return f"{number(min(values))} … {number(max(values))}" if len(values) > 1 else "–"


def ratio(summary: Summary, scenario: str, peer: str) -> str:
    best = summary.best(scenario)
    found = summary.ratio(scenario, peer, best) if best else None
    if not found:
        return "–"
    middle, low, high = found
    return f"{middle:.2f}" if peer == best else f"{middle:.2f} ({low:.2f} … {high:.2f})"


def table(summary: Summary, scenario: str, keys: list[str] | None = None) -> str:
    about = SCENARIOS[scenario]
    columns = [c for c in about.columns if keys is None or c[0] in keys]
    rows = [["proxy", *(heading for _, heading in columns), "min … max", "× best", "n"]]
    for peer in ordered(summary, scenario):
        count = str(len(summary.data[scenario][peer]))
        why = summary.failure(scenario, peer)
        if why is not None:
            rows.append([peer, f"failed: {why[:60]}", *["–"] * (len(columns) + 1), count])
            continue
        figures = [number(middle(summary, scenario, peer, key)) for key, _ in columns]
        reference = summary.is_reference(peer)
        name = f"**{peer}**" if peer in OURS else peer + (" (reference)" if reference else "")
        rows.append([name, *figures, spread(summary, scenario, peer), "–" if reference else ratio(summary, scenario, peer), count])
    return markdown(rows)


def middle(summary: Summary, scenario: str, peer: str, key: str):
    """The median; of words, those of the first round."""
    value = summary.median(scenario, peer, key)
    if value is None:
        first = summary.data[scenario][peer][0].get(key)
        return first if isinstance(first, str) else None
    return value


def row_table(summary: Summary) -> str:
    """The rows: a verdict and its figure for each peer."""
    peers = ordered(summary, "rows")
    rows = [["", "must", *peers]]
    for row, must in ROWS.items():
        cells = []
        for peer in peers:
            results = [r["rows"][row] for r in summary.data["rows"][peer] if "rows" in r]
            cells.append(verdict(results))
        rows.append([row, must, *cells])
    return markdown(rows)


def verdict(results: list[dict]) -> str:
    if not results:
        return "–"
    passed = sum(r["pass"] for r in results)
    word = "pass" if passed == len(results) else "FAIL" if passed == 0 else f"{passed} of {len(results)}"
    shown = results[0] if passed == len(results) else next(r for r in results if not r["pass"])
    return f"{word}: {figure(shown)}"


def figure(r: dict) -> str:
    if "failed" in r:
        return r["failed"][:40]
    parts = []
    if "first_byte_ms" in r:
        parts.append(f"{number(r['first_byte_ms'])} ms")
    if "after_leader_ms" in r:
        parts.append(f"done {number(r['after_leader_ms'])} ms after")
    if "follower_s" in r:
        parts.append(f"{r['follower_s']} s" if r["follower"] == "whole" else "not done in 6 s")
    elif any(k in r for k in ("follower", "second", "client")):
        parts.append(next(r[k] for k in ("follower", "second", "client") if k in r))
    if "origin_mib" in r:
        parts.append(f"{number(r['origin_mib'])} MiB")
    if "origin_requests" in r:
        parts.append(f"{r['origin_requests']} req.")
    if "status" in r:
        parts.append(str(r["status"]))
    return ", ".join(parts)


def tables(summary: Summary) -> str:
    from report.goals import goals  # which needs markdown() from here
    meta = summary.meta
    pins = "server on CPU 0, origin and load generator on CPU 1" if meta["pin"] else "nothing pinned"
    out = [f"{meta['when']}: {meta['cpu']}, {pins}; {meta['workers']} worker(s) each; loopback MTU {meta['mtu'] or 'unchanged'}\n"]
    for scenario in summary.data:
        body = row_table(summary) if scenario == "rows" else table(summary, scenario)
        out.append(f"### {scenario}: {SCENARIOS[scenario].title}\n\n{body}\n")
    out.append(f"### goals\n\n{goals(summary)}\n")
    noise = [(r["raw"]["noise_cpu"], s, p) for s, peers in summary.data.items() for p, rs in peers.items() for r in rs
             if isinstance(r.get("raw"), dict) and "noise_cpu" in r["raw"]]
    if noise:
        worst = max(noise)
        middle_noise = sorted(n for n, *_ in noise)[len(noise) // 2]
        out.append(f"CPU taken by others while measuring: median {middle_noise:.3f}, worst {worst[0]:.2f} ({worst[1]} {worst[2]}).\n")
    out.append("× best: by rounds, to the best of the others; above 1 is better. Median (least … greatest).\n")
    return "\n".join(out)
