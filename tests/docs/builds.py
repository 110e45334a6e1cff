"""The pages as Sphinx makes them: a fixture for all tests."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import require
from .pages import ROOT

CHINESE = ["-c", str(ROOT / "docs"), "-D", "language=zh_CN"]


def build(source: Path, out: Path, *options: str) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", *options]
    result = subprocess.run(
        [*command, "-d", str(out.with_suffix(".trees")), str(source), str(out)],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both builds, as ``make docs`` makes them."""
    if not importlib.util.find_spec("sphinx"):
        require("sphinx", "no Sphinx: pip install -e .[docs]")
    html = tmp_path_factory.mktemp("docs") / "html"
    build(ROOT / "docs", html)
    build(ROOT / "docs" / "zh", html / "zh", *CHINESE)
    return html
