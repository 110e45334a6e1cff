"""What a run found: rows, the table in three forms and the results file."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
DOCS = HERE.parent / "docs"
CHART = DOCS / "performance.svg"


class Table(NamedTuple):
    """A table of the documentation, and the parts whose last run it shows."""

    rst: Path
    results: Path
    parts: tuple[str, ...]


TABLES = (
    Table(
        DOCS / "performance_table.inc",
        RESULTS,
        ("sign", "peers", "requests", "storm", "scale", "footprint"),
    ),
    Table(DOCS / "performance_accounts.inc", HERE / "results_accounts.json", ("accounts",)),
)

_PACKAGES = "Flask Werkzeug Flask-Caching redis requests gunicorn wechatpy pywe-jssdk pyperf"


@dataclass(frozen=True)
class Row:
    """One figure.

    :param part: the part of the benchmark it belongs to.
    :param key: its name in the results.
    :param what: what was measured.
    :param value: the figure; None when it was not measured.
    :param unit: ``"x"`` for a ratio, else what is written behind the figure.
    :param baseline: what it is compared with, in the same run.
    :param goal: None for a figure that is only shown.
    :param at_least: the goal is a lower bound, not an upper one.
    :param note: what else there is to say; the baseline's own figure.
    :param why: the reason, where the goal is missed or nothing was measured.
    """

    part: str
    key: str
    what: str
    value: float | None
    unit: str
    baseline: str
    goal: float | None = None
    at_least: bool = False
    note: str = ""
    why: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal or a figure."""
        if self.goal is None or self.value is None:
            return None
        return self.value >= self.goal if self.at_least else self.value <= self.goal

    @property
    def goal_text(self) -> str:
        if self.goal is None:
            return "-"
        return f"{'at least' if self.at_least else 'at most'} {_figure(self.goal, self.unit)}"

    @property
    def measured_text(self) -> str:
        return "not measured" if self.value is None else _figure(self.value, self.unit)

    @property
    def verdict(self) -> str:
        if self.value is None:
            return f"not measured: {self.why}"
        return {None: "shown", True: "met", False: "MISSED"}[self.met]

    @property
    def remark(self) -> str:
        """The note, and the reason of a miss."""
        return " ".join(filter(None, (self.note, self.why if self.met is False else "")))


def _figure(value: float, unit: str) -> str:
    number = f"{value:.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.3g}"
    if unit == "x":
        number = f"{value:.0f}" if value >= 100 else f"{value:.2f}"
    return number + ("" if unit == "x" else " ") + unit


# -- the results file ------------------------------------------------------------------------------


def to_json(rows: Iterable[Row]) -> dict[str, Any]:
    """A run as it is kept: figures and versions, nothing about the machine but its size."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": platform.system(),
        "cpus": os.cpu_count(),
        "packages": _versions(),
        "rows": [asdict(row) | {"met": row.met} for row in rows],
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES.split():
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def rows_of(results: dict[str, Any]) -> list[Row]:
    return [Row(**{k: v for k, v in row.items() if k != "met"}) for row in results["rows"]]


def save(results: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load(path: Path = RESULTS) -> dict[str, Any]:
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return results


# -- the table -------------------------------------------------------------------------------------

_HEAD = ("What", "Against", "Goal", "Measured", "", "Remark")


def _cells(row: Row) -> tuple[str, ...]:
    texts = (row.what, row.baseline, row.goal_text, row.measured_text, row.verdict, row.remark)
    return texts if row.value is not None else (*texts[:3], "-", row.verdict, row.note)


def as_text(rows: list[Row]) -> str:
    """For a terminal: a table without the remarks, and those below it."""
    cells = [_HEAD[:5], *(_cells(row)[:5] for row in rows)]
    widths = [max(len(line[n]) for line in cells) for n in range(5)]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    remarks = [f"* {row.what}: {row.remark}" for row in rows if row.remark]
    return "\n".join([*lines, "", *remarks])


def as_rst(results: dict[str, Any]) -> str:
    """For the documentation: a list-table and the versions."""
    lines = [".. Written by ``make bench``; do not edit.", "", ".. list-table::"]
    lines += ["   :header-rows: 1", "   :widths: 30 20 12 12 10 30", ""]
    for cells in (_HEAD, *map(_cells, rows_of(results))):
        lines += [
            f"   {'* -' if n == 0 else '  -'} {text}".rstrip() for n, text in enumerate(cells)
        ]
    packages = ", ".join(f"{name} {version}" for name, version in results["packages"].items())
    lines += [
        "",
        f"{results['python']} on {results['system']} with {results['cpus']} CPUs. {packages}.",
        "",
    ]
    return "\n".join(lines)
