"""Parts ``sign`` and ``peers``: what a signature and a whole config cost."""

from __future__ import annotations

import functools
import importlib.util
import os
import statistics
import subprocess
import sys
from pathlib import Path

from . import micro
from .lab import NO_REDIS, Lab, ratio
from .probes import ROOT, ask
from .report import Row

_BOUND = "the bare bound"

Times = dict[str, list[float]]  # seconds a call takes, one value for each round


@functools.cache
def times(rounds: int, directory: Path, sandbox: str, redis: str) -> Times:
    """What pyperf finds, in rounds, so that a machine that changes its pace is noticed."""
    import pyperf

    env = os.environ | {"BENCH_SANDBOX": sandbox, "BENCH_REDIS": redis}
    options = "--quiet --processes=2 --values=3 --warmups=1 --loops=1"
    options += " --inherit-environ=BENCH_SANDBOX,BENCH_REDIS"
    found: Times = {}
    for number in range(rounds):
        path = directory / f"micro-{number}.json"
        command = [sys.executable, "-m", "benchmarks.micro", *options.split(), "-o", str(path)]
        subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
        for benchmark in pyperf.BenchmarkSuite.load(str(path)):
            found.setdefault(benchmark.get_name(), []).append(benchmark.median())
    return found


def quick_times(sandbox: str, redis: str) -> Times:
    """A hundredth of the calls, all in this process and without pyperf."""
    return {
        name: [micro.timed(1, make, calls // 100 + 1) / (calls // 100 + 1)]
        for name, (calls, make) in micro.ways(sandbox, redis).items()
    }


_kept: dict[Path, Times] = {}  # the two parts share one measurement


def _times(lab: Lab) -> Times:
    if lab.directory not in _kept:
        with lab.sandbox() as sandbox:
            if lab.quick:
                _kept[lab.directory] = quick_times(sandbox.url, lab.redis_url)
            else:
                _kept[lab.directory] = times(7, lab.directory, sandbox.url, lab.redis_url)
    return _kept[lab.directory]
