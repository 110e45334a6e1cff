"""Copy what the tests need away from the package's source: ``python tests/away.py FROM TO``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def main(source: Path, target: Path) -> None:
    """Copy the whole tree but the package itself and what is made or installed in it."""
    left_out = shutil.ignore_patterns(
        "flask_wxjsapi",
        "node_modules",
        "_build",
        "__pycache__",
        ".*",
        "*.egg-info",
        "build",
        "dist",
    )
    shutil.copytree(source, target, ignore=left_out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
