"""The table of faults: what was promised, and what was measured."""

from __future__ import annotations

from collections.abc import Callable

import pytest

_ROWS = pytest.StashKey[list[tuple[str, str, str]]]()

Figure = Callable[[str, str, object], None]


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Put a row into the table that is printed after the tests: fault, promise, figure."""

    def note(fault: str, promise: str, value: object) -> None:
        request.config.stash.setdefault(_ROWS, []).append((fault, promise, str(value)))

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = terminalreporter.config.stash.get(_ROWS, [])
    if not rows:
        return
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    terminalreporter.section("faults: promise and figure")
    for fault, promise, value in sorted(rows):
        terminalreporter.write_line(f"{fault:{widths[0]}}  {promise:{widths[1]}}  {value}")
