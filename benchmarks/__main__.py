"""``python -m benchmarks [--quick] [--output FILE] [PART ...]``: measure, compare and say so."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from . import chart, report
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
}


def main(argv: list[str] | None = None) -> int:
    """Run the parts; 0 if nothing broke, whether goals were met or not."""
    options = _options(argv)
    if not options.render:
        rows = run(options.parts or list(PARTS), quick=options.quick)
        print(report.as_text(rows))
        results = report.to_json(rows)
        is_whole = not options.parts and not options.quick
        output = options.output or (report.RESULTS if is_whole else None)
        if output is not None:
            report.save(results, output)
        if output != report.RESULTS:
            return 0
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


def render() -> None:
    """Write what the documentation shows of the results."""
    results = report.load()
    report.TABLE.write_text(report.as_rst(results), encoding="utf-8")
    report.CHART.write_text(chart.draw(report.rows_of(results)), encoding="utf-8")


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
