"""The public names from a user's side; mypy looks at the same file in ``make lint``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .browser.conftest import MODULES
from .conftest import require

EXAMPLE = Path(__file__).parent / "typing" / "example.py"


@pytest.mark.slow
def test_pyright_finds_nothing_to_say() -> None:
    """In its strict mode, which infers what the package does not say."""
    pyright, node = MODULES / "pyright" / "index.js", shutil.which("node")
    if node is None or not pyright.exists():
        require("chromium", "no pyright: npm install in tests/browser brings it")
    command = [str(node), str(pyright), "--pythonpath", sys.executable, str(EXAMPLE)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert "0 errors, 0 warnings" in result.stdout, result.stdout


def test_the_example_uses_every_public_name() -> None:
    """What is public is checked."""
    import flask_wxjsapi

    text = EXAMPLE.read_text()
    assert [name for name in flask_wxjsapi.__all__ if name not in text] == []
