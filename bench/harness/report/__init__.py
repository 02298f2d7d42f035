"""What the results say: tables on stdout, and with --write the repository's figures, page and chart."""
import json

from layout import BENCH, RESULTS, ROOT
from report.chart import chart
from report.page import fill, fill_one, kept_mirror
from report.summary import Summary
from report.tables import tables


def keep(results: dict):
    (BENCH / "results.json").write_text(json.dumps(results, indent=1) + "\n")


def write_mirror():
    """The figures of `bench mirror` alone, beside those that the repository has."""
    keep({**json.loads((BENCH / "results.json").read_text()), "mirror": kept_mirror()})
    page = ROOT / "docs/performance.md"
    page.write_text(fill_one(page.read_text(), "mirror"))
    print("written: bench/results.json, docs/performance.md")


def main(name: str, write: bool) -> int:
    folder = RESULTS / name
    if not (folder / "meta.json").exists():
        print(f"no results in {folder}; `cargo xtask bench` makes them")
        return 1
    summary = Summary.of(folder)
    print(tables(summary))
    if write:
        keep({**json.loads(summary.json()), "mirror": kept_mirror()})
        (ROOT / "docs/performance.svg").write_text(chart(summary))
        page = ROOT / "docs/performance.md"
        page.write_text(fill(page.read_text(), summary))
        print(f"written: bench/results.json, docs/performance.svg, docs/performance.md")
    return 0
