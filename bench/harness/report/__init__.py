"""What the results say: tables on stdout, and with --write the repository's figures, page and chart."""
from layout import BENCH, RESULTS, ROOT
from report.chart import chart
from report.page import fill
from report.summary import Summary
from report.tables import tables


def main(name: str, write: bool) -> int:
    folder = RESULTS / name
    if not (folder / "meta.json").exists():
        print(f"no results in {folder}; `cargo xtask bench` makes them")
        return 1
    summary = Summary.of(folder)
    print(tables(summary))
    if write:
        (BENCH / "results.json").write_text(summary.json())
        (ROOT / "docs/performance.svg").write_text(chart(summary))
        page = ROOT / "docs/performance.md"
        page.write_text(fill(page.read_text(), summary))
        print(f"written: bench/results.json, docs/performance.svg, docs/performance.md")
    return 0
