"""The mutants: each finds what it breaks, and a change changes what it says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from .mutants.changes import (
    Blunt,
    Change,
    Mutant,
    gives,
    if_is,
    returns,
    takes,
    without,
)
from .mutants.table import MUTANTS

ROOT = Path(__file__).parent.parent

SOURCE = """
LIMIT = (1, 10)

class Door:
    def opens(self, key):
        self.tried = key
        if key.fits() and self.is_whole:
            self.turn(key)
            return key.fits()
        while not key.fits():
            self.turn(key)
        return LIMIT
"""


def _changed(change: Change, where: str = "Door.opens") -> str:
    return Mutant("name", "door.py", where, change).applied_to(SOURCE)


def _body(change: Change) -> list[str]:
    function = ast.parse(_changed(change)).body[1].body[0]  # type: ignore[attr-defined]
    return [ast.unparse(statement).replace("\n    ", " ") for statement in function.body]


def test_a_body_is_replaced() -> None:
    """By a return."""
    assert _body(returns("True")) == ["return True"]


def test_statements_are_left_out() -> None:
    """The simple ones that mention the name, wherever they stand."""
    assert _body(without("turn"))[1:3] == [
        "if key.fits() and self.is_whole: pass return key.fits()",
        "while not key.fits(): pass",
    ]
    assert _body(without("self.tried"))[0] == "pass"


def test_calls_and_reads_are_replaced() -> None:
    """A call as a whole, and nothing that is assigned."""
    assert "if True and self.is_whole: self.turn(key) return True" in _body(takes("fits", "True"))
    assert _body(takes("LIMIT", "3"))[-1] == "return 3"
    with pytest.raises(Blunt):
        _body(takes("tried", "3"))


def test_one_of_several_is_replaced() -> None:
    """Counted from 0, in the order of the text."""
    body = _body(takes("fits", "True", nth=1))
    assert body[1:3] == [
        "if key.fits() and self.is_whole: self.turn(key) return True",
        "while not key.fits(): self.turn(key)",
    ]


def test_an_expression_is_replaced() -> None:
    """However it is laid out; also of what is assigned in a module."""
    assert _body(gives("self . is_whole", "False"))[1].startswith("if key.fits() and False:")
    assert "LIMIT = (1, 9)" in _changed(gives("10", "9"), "LIMIT")


def test_conditions_are_replaced() -> None:
    """Those that mention the name."""
    body = _body(if_is("is_whole", False))
    assert body[1].startswith("if False:")
    assert body[2].startswith("while not key.fits():")
    assert _body(if_is("key.fits", True, nth=1))[1:3] == [
        "if key.fits() and self.is_whole: self.turn(key) return key.fits()",
        "while True: self.turn(key)",
    ]


@pytest.mark.parametrize(
    ("change", "where", "problem"),
    [
        (returns("1"), "Door.shuts", "door.py has no Door.shuts"),
        (returns("1"), "Window", "door.py has no Window"),
        (without("shuts"), "Door.opens", "Door.opens has nothing of what the change looks for"),
        (takes("fits", "1", nth=3), "Door.opens", "nothing of what the change looks for"),
        (if_is("tried", True), "Door.opens", "nothing of what the change looks for"),
    ],
)
def test_a_mutant_that_breaks_nothing_says_so(change: Change, where: str, problem: str) -> None:
    """What it names was rebuilt, and it has to follow."""
    with pytest.raises(Blunt, match=problem):
        _changed(change, where)


@pytest.mark.parametrize("one", MUTANTS, ids=[one.name for one in MUTANTS])
def test_each_mutant_breaks_something(one: Mutant) -> None:
    """Its module, its function and its node are there, and so are its tests."""
    source = (ROOT / "flask_wxjsapi" / one.module).read_text()
    assert one.applied_to(source) != ast.unparse(ast.parse(source))
    for test in one.tests:
        path, _, name = test.partition("::")
        assert not name or f"def {name}(" in (ROOT / path).read_text(), f"there is no {test}"


def test_each_mutant_has_a_name_of_its_own() -> None:
    """By which it can be run alone."""
    assert len({one.name for one in MUTANTS}) == len(MUTANTS)
