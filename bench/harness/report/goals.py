"""What the proxy is to reach on one worker, and whether it did. Each goal is a figure, a bound, and a sentence."""
from report.summary import Summary
from report.tables import markdown, number
from scenarios.rows import ROWS

AT_LEAST, AT_MOST, BELOW = "≥", "≤", "<"
HOLDS = {AT_LEAST: lambda value, bound: value >= bound, AT_MOST: lambda value, bound: value <= bound,
         BELOW: lambda value, bound: value < bound}


def times_best(scenario: str):
    """Ratio by rounds to the best of the others, above 1 is better."""
    def value(s: Summary):
        best = s.best(scenario)
        found = s.ratio(scenario, s.ours(scenario), best) if best and s.ours(scenario) else None
        return (found[0], f"× {best}") if found else None
    return value


def beside_least(scenario: str, key: str):
    """A figure of which less is better, over the least of the others."""
    def value(s: Summary):
        ours = s.median(scenario, s.ours(scenario), key) if s.ours(scenario) else None
        others = {p: s.median(scenario, p, key) for p in s.data[scenario] if p != s.ours(scenario) and not s.is_reference(p)}
        others = {p: v for p, v in others.items() if v}
        least = min(others, key=others.get, default=None)
        return (ours / others[least], f"× {least}") if ours and least else None
    return value


def beside(scenario: str, key: str, peer: str):
    def value(s: Summary):
        ours, theirs = s.median(scenario, s.ours(scenario), key) if s.ours(scenario) else None, s.median(scenario, peer, key)
        return (ours / theirs, f"× {peer}") if ours and theirs else None
    return value


def figure(scenario: str, key: str, unit: str):
    def value(s: Summary):
        ours = s.median(scenario, s.ours(scenario), key) if s.ours(scenario) else None
        return None if ours is None else (ours, unit)
    return value


GOALS = [
    ("S1", "hot 1 KiB, requests/s", times_best("S1"), AT_LEAST, 1.3),
    ("S1", "... p99", beside_least("S1", "p99_us"), AT_MOST, 1.0),
    ("S2", "hot 100 KiB, requests/s", times_best("S2"), AT_LEAST, 1.3),
    ("S2", "... p99", beside_least("S2", "p99_us"), AT_MOST, 1.0),
    ("S3a", "hot 1 GiB, 1 connection, GB/s", times_best("S3a"), AT_LEAST, 1.0),
    ("S3a", "... CPU seconds per GiB", beside("S3a", "cpu_s_per_gib", "nginx"), AT_MOST, 1.0),
    ("S3b", "hot 1 GiB, 8 connections, GB/s", times_best("S3b"), AT_LEAST, 1.0),
    ("S3b", "... CPU seconds per GiB", beside("S3b", "cpu_s_per_gib", "nginx"), AT_MOST, 1.0),
    ("S7h", "hot range, first byte", beside_least("S7h", "ttfb_p50_us"), AT_MOST, 1.0),
    ("S1t", "TLS 1 KiB, requests/s", times_best("S1t"), AT_LEAST, 0.9),
    ("S2t", "TLS 100 KiB, requests/s", times_best("S2t"), AT_LEAST, 0.9),
    ("S3t", "TLS 1 GiB, GB/s", times_best("S3t"), AT_LEAST, 0.9),
    ("S4o", "cold 1 GiB while the origin is the limit, wall / direct", figure("S4o", "times_direct", ""), AT_MOST, 1.05),
    ("S4o", "... first byte after the origin's", figure("S4o", "ttfb_over_origin_ms", "ms"), AT_MOST, 2.0),
    ("S4o", "... memory, 1 client", figure("S4o", "peak_rss_mib", "MiB"), BELOW, 64),
    ("S4m", "... memory, 50 clients", figure("S4m", "peak_rss_mib", "MiB"), BELOW, 64),
    ("S4", "cold 1 GiB at full speed", times_best("S4"), AT_LEAST, 1.0),
    ("S6", "cold 1 KiB, requests/s", times_best("S6"), AT_LEAST, 1.0),
    ("S5", "herd: requests at the origin", figure("S5", "origin_requests", ""), AT_MOST, 1),
    ("S5", "... first bytes after the leader's", figure("S5", "first_spread_ms", "ms"), AT_MOST, 50),
    ("S5", "... last bytes after the leader's", figure("S5", "last_over_leader_pct", "%"), AT_MOST, 2),
    ("rows", "where caching proxies go wrong, passed", figure("rows", "passed", f"of {len(ROWS)}"), AT_LEAST, len(ROWS)),
    ("S11", "1 GiB image, layers warm, GB/s", times_best("S11"), AT_LEAST, 1.0),
    ("S11", "... CPU seconds per GiB", beside("S11", "hot_cpu_s_per_gib", "registry"), AT_MOST, 0.75),
    ("S11w", "1 GiB image by tag, registry 40 ms away, warm", times_best("S11w"), AT_LEAST, 2.0),
    ("S9", "restart, first hit after exec", figure("S9", "first_hit_ms", "ms"), BELOW, 100),
    ("S9", "... memory per object", figure("S9", "bytes_per_object", "bytes"), BELOW, 300),
]


def goals(summary: Summary) -> str:
    rows = [["", "goal", "reached", ""]]
    for scenario, what, value, relation, bound in GOALS:
        found = value(summary) if scenario in summary.data else None
        if found is None:
            rows.append([f"{scenario}: {what}", f"{relation} {number(bound)}", "–", "not measured"])
            continue
        figure_, unit = found
        holds = HOLDS[relation](figure_, bound)
        shown = f"{figure_:.2f}" if unit.startswith("×") else number(figure_)
        rows.append([f"{scenario}: {what}", f"{relation} {number(bound)}", f"{shown} {unit}".strip(), "yes" if holds else "**no**"])
    return markdown(rows)
