"""Fails where a module is tested less than it should be.

    coverage json -o - | python -m tests.coverage_goals

Reads the report of a run that measured branches, from a file or from standard input.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent.parent / "flask_wxjsapi"

GOAL = 95.0  # percent of lines and branches
GOALS = {  # by folder or module: what decides and keeps others out; nothing of it goes untried
    "_engine": 100.0,
    "_storage/lease": 100.0,
    "_storage/store": 100.0,
    "_telling": 100.0,
    "_credential": 100.0,
}


def shortfalls(report: Mapping[str, Any]) -> Iterator[str]:
    """What keeps a report from the goals, one line each."""
    if not report["meta"]["branch_coverage"]:
        yield "Branches were not measured: is [coverage:run] of setup.cfg in use?"
        return
    measured = {_module(Path(name)): facts for name, facts in report["files"].items()}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = _module(path)
        facts = measured.get(module)
        if facts is None:
            yield f"{module}: not measured"
            continue
        goal, percent = _goal(module), facts["summary"]["percent_covered"]
        if percent < goal:
            # Rounded down: what is short of 100 never reads as 100.
            figure = int(percent * 10) / 10
            yield f"{module}: {figure} % of {goal:g} %; {_missing(facts)}"


def _module(path: Path) -> str:
    """What a file is called here, such as ``_engine/reading``; two folders may each have one of a
    name. A report has paths from wherever it was made, or of an installed package.
    """
    parts = path.with_suffix("").parts
    last = max((n for n, part in enumerate(parts) if part == PACKAGE.name), default=-1)
    return "/".join(parts[last + 1 :])


def _goal(module: str) -> float:
    folder, _, _ = module.rpartition("/")
    return GOALS.get(module, GOALS.get(folder, GOAL))


def _missing(facts: Mapping[str, Any]) -> str:
    lines = [str(line) for line in facts["missing_lines"]]
    branches = [
        f"{start}->{end if end > 0 else 'exit'}"
        for start, end in facts["missing_branches"]
        if start not in facts["missing_lines"] and end not in facts["missing_lines"]
    ]
    return f"missing {', '.join(lines + branches)}"


def main(argv: list[str]) -> int:
    text = Path(argv[0]).read_text(encoding="utf-8") if argv else sys.stdin.read()
    found = list(shortfalls(json.loads(text)))
    print(*found or ["All modules reach their coverage goals."], sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
