"""Instructions that a call takes, as valgrind's callgrind counts them: a busy machine changes none.

python -m benchmarks.instructions WAY SANDBOX CALLS
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

from . import micro
from .probes import ROOT

VALGRIND = shutil.which("valgrind")
_CALLS = 2_000


def count(way: str, sandbox: str) -> float:
    """Instructions of one call: what so many more of them take."""
    return (_total(way, sandbox, 500 + _CALLS) - _total(way, sandbox, 500)) / _CALLS


def _total(way: str, sandbox: str, calls: int) -> int:
    command = [str(VALGRIND), "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable]
    command += ["-m", "benchmarks.instructions", way, sandbox, str(calls)]
    env = os.environ | {"PYTHONHASHSEED": "0"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if found is None:
        raise RuntimeError(f"valgrind says: {done.stderr}")
    return int(found[1])


if __name__ == "__main__":
    _, make = micro.ways(sys.argv[2], redis="")[sys.argv[1]]
    micro.timed(1, make, int(sys.argv[3]))
