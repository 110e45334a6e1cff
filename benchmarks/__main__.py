"""``python -m benchmarks [--quick] [--output FILE] [PART ...]``: measure, compare and say so."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from . import chart, report
from .accounts import accounts_part
from .footprint import footprint_part
from .lab import Lab, open_lab
from .report import Row
from .scale import scale_part
from .signing import peers_part, sign_part
from .storm import storm_part
from .throughput import requests_part

PARTS: dict[str, Callable[[Lab], list[Row]]] = {
    "sign": sign_part,
    "peers": peers_part,
    "requests": requests_part,
    "storm": storm_part,
    "scale": scale_part,
    "footprint": footprint_part,
    "accounts": accounts_part,
}


def main(argv: list[str] | None = None) -> int:
    """Run the parts; 0 if nothing broke, whether goals were met or not."""
    options = _options(argv)
    if options.render:
        render()
        return 0
    parts = options.parts or list(PARTS)
    rows = run(parts, quick=options.quick)
    print(report.as_text(rows))
    if options.output is not None:
        report.save(report.to_json(rows), options.output)
    elif not options.quick:
        keep(rows, set(parts))
        render()
    return 0


def run(parts: list[str], *, quick: bool) -> list[Row]:
    """The rows of some parts, measured one after the other."""
    rows = []
    with open_lab(quick) as lab:
        for part in parts:
            print(f"{part}, load {os.getloadavg()[0]:.1f}", end="", file=sys.stderr, flush=True)
            start = time.monotonic()
            rows += PARTS[part](lab)
            print(f": {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return rows


def keep(rows: list[Row], parts: set[str]) -> None:
    """Put the results of this run in place of the last ones, of each table that is whole."""
    for table in report.TABLES:
        if parts.issuperset(table.parts):
            own = [row for row in rows if row.part in table.parts]
            report.save(report.to_json(own), table.results)


def render() -> None:
    """Write what the documentation shows of the results."""
    for table in report.TABLES:
        table.rst.write_text(report.as_rst(report.load(table.results)), encoding="utf-8")
    report.CHART.write_text(chart.draw(report.rows_of(report.load())), encoding="utf-8")


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="does it work? figures mean nothing")
    parser.add_argument("--output", type=Path, help="write the results there as JSON")
    parser.add_argument(
        "--render", action="store_true", help="only table and chart, of the last run"
    )
    options = parser.parse_args(argv)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    sys.exit(main())
