"""One signed config by each way, timed by pyperf: ``python -m benchmarks.micro -o FILE``.

pyperf runs every way in processes of its own. ``BENCH_SANDBOX`` and ``BENCH_REDIS`` say where
the servers are; a way whose package or server is not there is left out.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from . import subjects

Make = Callable[[], Callable[[], Any]]


def ways(sandbox: str, redis: str) -> dict[str, tuple[int, Make]]:
    """How each way is set up, by name, and how many calls make one value (20 to 100 ms)."""
    found: dict[str, tuple[int, Make]] = {
        "bound": (20_000, lambda: subjects.bound),
        "sign": (20_000, lambda: subjects.signed),
        "config_url": (10_000, lambda: subjects.config_for_url(sandbox)),
        "config_request": (10_000, lambda: subjects.config_in_request(sandbox)),
    }
    if redis:
        found["redis_read"] = (300, lambda: subjects.redis_read(redis))
    for name, package in (("wechatpy", "wechatpy"), ("pywe", "pywe_jssdk")):
        if importlib.util.find_spec(package):
            make = getattr(subjects, name)
            found[f"{name}_memory"] = (4_000, lambda make=make: make(sandbox))
            if redis:
                found[f"{name}_redis"] = (150, lambda make=make: make(sandbox, redis))
    return found


def timed(loops: int, made: Make, calls: int) -> float:
    """Seconds for so many calls; the first one, which may ask WeChat, comes before."""
    call = made()
    call()
    rounds = range(loops * calls)
    start = time.perf_counter()
    for _ in rounds:
        call()
    return time.perf_counter() - start


def main() -> None:
    import pyperf  # which the tests of the benchmark do without

    runner = pyperf.Runner(program_args=("-m", "benchmarks.micro"))
    found = ways(os.environ["BENCH_SANDBOX"], os.environ.get("BENCH_REDIS", ""))
    for name, (calls, make) in found.items():
        runner.bench_time_func(name, timed, cache(make), calls, inner_loops=calls)


if __name__ == "__main__":
    main()
