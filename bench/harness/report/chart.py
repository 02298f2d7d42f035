"""The chart: a panel a scenario, a bar a proxy, a whisker from the least to the greatest round. SVG by hand, readable on white and on black."""
from html import escape

from report.summary import OURS, Summary
from report.tables import number
from scenarios import SCENARIOS

# In the order of the chart, with room for some thirty letters.
PANELS = {
    "S1": "hot, 1 KiB, 64 connections", "S2": "hot, 100 KiB, 64 connections", "S7h": "hot, 1 MiB in 1 GiB",
    "S3a": "hot, 1 GiB, 1 connection", "S3b": "hot, 1 GiB, 8 connections", "S4": "cold, 1 GiB, fast origin",
    "S1t": "TLS, 1 KiB", "S2t": "TLS, 100 KiB", "S3t": "TLS, 1 GiB",
    "S6": "cold, 1 KiB, 64 connections", "S5": "herd of 50, cold 100 MiB", "S9": "restart, 100,000 objects",
}
COLUMNS, WIDTH, GAP = 3, 300, 24
LABEL, VALUE = 92, 58  # room for the proxy's name, and for its figure
BAR, STEP, HEAD, FOOT = 13, 19, 46, 14

STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f; }
  .title { font-weight: 600; font-size: 13px; }
  .unit { fill: #57606a; font-size: 11px; }
  .bar { fill: #8c959f; }
  .ours { fill: #0969da; }
  .range { stroke: #24292f; stroke-width: 1; opacity: .65; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .unit { fill: #9198a1; }
    .bar { fill: #6e7681; }
    .ours { fill: #4493f8; }
    .range { stroke: #e6edf3; }
  }
"""


def chart(summary: Summary) -> str:
    names = [name for name in PANELS if name in summary.data and bars(summary, name)]
    parts, top = [], 30
    for start in range(0, len(names), COLUMNS):
        row = names[start:start + COLUMNS]
        for column, name in enumerate(row):
            parts.append(panel(summary, name, column * (WIDTH + GAP), top))
        top += max(HEAD + STEP * len(bars(summary, name)) + FOOT for name in row)
    width = COLUMNS * WIDTH + (COLUMNS - 1) * GAP
    caption = f"{summary.meta['when'].split()[0]}, {summary.meta['cpu']}; medians, lines from the least to the greatest round"
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" width="{width}" height="{top}" role="img" '
            f'aria-label="kato-proxy beside other caching proxies">\n<style>{STYLE}</style>\n'
            f'<text class="unit" x="0" y="14">{escape(caption)}</text>\n' + "\n".join(parts) + "\n</svg>\n")


def bars(summary: Summary, scenario: str) -> list[tuple[str, float, float, float]]:
    """(proxy, median, least, greatest), the best first."""
    about = SCENARIOS[scenario]
    found = []
    for peer in summary.data[scenario]:
        values = summary.values(scenario, peer, about.key)
        if values and not summary.is_reference(peer):
            found.append((peer, summary.median(scenario, peer, about.key), min(values), max(values)))
    return sorted(found, key=lambda bar: -bar[1] if about.more_is_better else bar[1])


def panel(summary: Summary, scenario: str, left: int, top: int) -> str:
    about, rows = SCENARIOS[scenario], bars(summary, scenario)
    unit = dict(about.columns)[about.key]
    better = "more is better" if about.more_is_better else "less is better"
    greatest = max(high for *_, high in rows) or 1
    scale = (WIDTH - LABEL - VALUE) / greatest
    out = [f'<g transform="translate({left} {top})">',
           f'<text class="title" x="0" y="14">{escape(scenario)} {escape(PANELS[scenario])}</text>',
           f'<text class="unit" x="0" y="30">{escape(unit)}, {better}</text>']
    for i, (peer, middle, low, high) in enumerate(rows):
        y = HEAD - 8 + i * STEP
        kind = "bar ours" if peer in OURS else "bar"
        out.append(f'<text x="{LABEL - 6}" y="{y + 11}" text-anchor="end">{escape(peer)}</text>')
        out.append(f'<rect class="{kind}" x="{LABEL}" y="{y}" width="{max(middle * scale, 1):.1f}" height="{BAR}" rx="2"/>')
        if high > low:
            out.append(f'<path class="range" fill="none" d="M{LABEL + low * scale:.1f} {y + BAR / 2}H{LABEL + high * scale:.1f}"/>')
        out.append(f'<text x="{LABEL + max(high, middle) * scale + 5:.1f}" y="{y + 11}">{number(middle)}</text>')
    return "\n".join(out + ["</g>"])
