"""The contributors' pages name what there is, and all of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import flask_wxjsapi

ROOT = Path(__file__).parent.parent
PACKAGE = Path(flask_wxjsapi.__file__).parent  # as installed, wherever that is

#: The modules and folders of the package, a folder with its slash.
ROOMS = sorted(
    f"{path.name}/" if path.is_dir() else path.name
    for path in PACKAGE.iterdir()
    if path.suffix == ".py" or (path / "__init__.py").exists()
)

_SUFFIXES = r"\.(?:py|rst|md|cfg|toml|ini|js)"
_PATH = re.compile(
    r"(?<![\w./:-])"  # from its beginning, and no part of a URL or of .venv/bin/python
    rf"((?:\w[\w.-]*/)+(?:\w[\w-]*{_SUFFIXES})?|\w[\w.-]*{_SUFFIXES})(?:::(\w+))?(?![\w./-])"
)


def _text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def paths(text: str) -> list[tuple[str, str]]:
    """The paths that a text names, each with the test named behind it or nothing."""
    return [(found[1], found[2] or "") for found in _PATH.finditer(text)]


def found(path: str) -> Path | None:
    """The file or folder of a path from the root, or from the package; what ends with a slash is
    a folder.
    """
    places = [base / path for base in (ROOT, PACKAGE.parent, PACKAGE)]
    is_there = Path.is_dir if path.endswith("/") else Path.is_file
    return next(filter(is_there, places), None)


def rows_of_the_house() -> list[str]:
    """The first column of the table in ``Where things are``."""
    section = _text("CONTRIBUTING.rst").split("\nWhere things are\n")[1]
    return re.findall(r"^``(\S+)``  ", section.split("\nTo add ")[0], flags=re.M)


@pytest.mark.parametrize("page", ["CONTRIBUTING.rst", "docs/architecture.rst"])
def test_every_path_exists(page: str) -> None:
    """A newcomer who follows a path arrives."""
    named = paths(_text(page))
    assert named
    for path, test in named:
        place = found(path)
        assert place is not None, path
        if test:
            assert re.search(rf"^def {test}\(", place.read_text(encoding="utf-8"), re.M), test


def test_the_house_has_every_room_once() -> None:
    """The table has each module and folder of the package, and none that is gone."""
    assert sorted(rows_of_the_house()) == ROOMS


def test_the_picture_of_the_floors_has_every_room() -> None:
    """Each module and folder is drawn on its floor; some stand beside the house."""
    section = _text("docs/architecture.rst").split("\nThe floors\n")[1]
    picture = section.split(".. code-block:: text\n")[1].split("\n\n``")[0]
    drawn = set(re.findall(r"\b_[a-z_]+|\berrors\b", picture))
    beside = {"__init__", "__main__", "sandbox", "testing"}
    assert drawn == {room.removesuffix(".py").rstrip("/") for room in ROOMS} - beside


def test_every_make_target_exists_and_is_named() -> None:
    """What the page tells to run can be run, and there is no command that it keeps to itself."""
    targets = re.findall(r"^([a-z][a-z-]*):", _text("Makefile"), flags=re.M)
    named = re.findall(r"\bmake ([a-z-]+)", _text("CONTRIBUTING.rst"))
    assert sorted(set(named)) == sorted(targets)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("in ``tests/test_url.py::test_a``", [("tests/test_url.py", "test_a")]),
        ("``_engine/`` and ``errors.py``,", [("_engine/", ""), ("errors.py", "")]),
        ("see ``README.zh_CN.rst``.", [("README.zh_CN.rst", "")]),
        ("make docs  # docs/_build/index.html", []),
        (".venv/bin/python -m pytest tests/faults/", [("tests/faults/", "")]),
        ("http://127.0.0.1:5000/a/b.py and client.d.ts, e.g. 1.6.0", []),
        ("one.pyc and/or two", []),
    ],
)
def test_the_reader_of_paths(text: str, named: list[tuple[str, str]]) -> None:
    """The check itself knows a path when it sees one."""
    assert paths(text) == named
