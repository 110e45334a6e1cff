"""Packages that one test needs and no other: fetched once, into pytest's cache."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from .conftest import require

_INSTALL = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-warn-conflicts"]
#: What the extension itself needs, for an interpreter that has nothing yet.
_OURS = ["Flask", "Flask-Caching", "requests", "filelock"]


def fetched(config: pytest.Config, *packages: str) -> Path | None:
    """A directory for PYTHONPATH with the packages in it, or a skipped test; None where all of them
    are installed already.
    """
    if all(importlib.util.find_spec(name.replace("-", "_")) for name in packages):
        return None
    directory = _directory(config, *packages)
    if not (directory / "complete").exists():
        _install(directory, sys.executable, "--target", str(directory), *packages)
    return directory


def interpreter(config: pytest.Config, *packages: str) -> Path:
    """A Python with the packages, and with what the extension needs; or a skipped test."""
    directory = _directory(config, "python", *packages)
    python = directory / "bin" / "python"
    if not (directory / "complete").exists():
        venv.create(directory, clear=True, with_pip=True, symlinks=True)
        _install(directory, str(python), *packages, *_OURS)
    return python


def _directory(config: pytest.Config, *names: str) -> Path:
    assert config.cache is not None
    directory = Path(config.cache.mkdir("packages")) / "-".join(names)
    if not (directory / "complete").exists():  # what an interrupted run has left
        shutil.rmtree(directory, ignore_errors=True)
    return directory


def _install(directory: Path, python: str, *arguments: str) -> None:
    result = subprocess.run([python, *_INSTALL, *arguments], capture_output=True, text=True)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no word"])[-1]
        require("packages", f"pip install {' '.join(arguments)}: {last}")
    (directory / "complete").touch()
