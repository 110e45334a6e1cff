"""Packages that one test needs and no other: fetched once, into pytest's cache."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import require

_PIP = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]


def fetched(config: pytest.Config, *packages: str) -> Path | None:
    """A directory for PYTHONPATH with the packages in it, or a skipped test; None where all of them
    are installed already.
    """
    if all(importlib.util.find_spec(name.replace("-", "_")) for name in packages):
        return None
    assert config.cache is not None
    directory = Path(config.cache.mkdir("packages")) / "-".join(packages)
    if not (directory / "complete").exists():
        shutil.rmtree(directory, ignore_errors=True)
        command = [*_PIP, "--no-warn-conflicts", "--target", str(directory), *packages]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            last = (result.stderr.strip().splitlines() or ["no word"])[-1]
            require(packages[0], f"{' '.join(packages)} cannot be installed: {last}")
        (directory / "complete").touch()
    return directory
