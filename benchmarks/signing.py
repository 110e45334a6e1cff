"""Parts ``sign`` and ``peers``: what a signature and a whole config cost."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace

from . import instructions, micro
from .lab import NO_REDIS, Lab, Times
from .probes import ROOT, ask
from .report import Row

_BOUND = "the bare bound: nonce, time, one SHA-1"


# -- the times, which both parts share -------------------------------------------------------------


def times(lab: Lab) -> Times:
    """Seconds that a call takes by each way; several values of each."""
    if lab.times is None:
        with lab.sandbox() as sandbox:
            measure = _quick_times if lab.quick else _pyperf_times
            lab.times = measure(lab, sandbox.url)
    return lab.times


def _pyperf_times(lab: Lab, sandbox: str) -> Times:
    import pyperf

    env = os.environ | {"BENCH_SANDBOX": sandbox, "BENCH_REDIS": lab.redis_url}
    options = "--quiet --processes=2 --values=3 --warmups=1 --loops=1"
    options += " --inherit-environ=BENCH_SANDBOX,BENCH_REDIS"
    found: Times = {}
    for number in range(7):  # spread over minutes, for a machine that changes its pace
        path = lab.directory / f"micro-{number}.json"
        command = [sys.executable, "-m", "benchmarks.micro", *options.split(), "-o", str(path)]
        subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
        for benchmark in pyperf.BenchmarkSuite.load(str(path)):
            found.setdefault(benchmark.get_name(), []).extend(benchmark.get_values())
    return found


def _quick_times(lab: Lab, sandbox: str) -> Times:
    """A hundredth of the calls, all in this process and without pyperf."""
    return {
        name: [micro.timed(1, make, calls // 100 + 1) / (calls // 100 + 1)]
        for name, (calls, make) in micro.ways(sandbox, lab.redis_url).items()
    }


def _fastest(found: Times, name: str, baseline: str) -> float:
    """The ratio of the fastest values: whatever else a machine does only adds to a time."""
    return min(found[name]) / min(found[baseline])


def _microseconds(values: list[float]) -> str:
    return f"{min(values) * 1e6:.3g} µs"


# -- sign() and config() against the bound ---------------------------------------------------------

_AGAINST_BOUND = (
    ("sign", "sign() with a nonce and the time", 1.25),
    ("config_url", "config(url=…)", 1.5),
    ("config_request", "config() in a request, which finds out its URL", 2.0),
)
_WHY = {
    "config_url": "The rest is the dict, its two lists, finding the app and one look at the clock.",
    "config_request": "Beside that it takes the request's raw path and checks its Host.",
}


def sign_part(lab: Lab) -> list[Row]:
    """The signature, a config, a fresh request, and what they touch."""
    found = times(lab)
    bound = found["bound"]
    rows = []
    for name, what, goal in _AGAINST_BOUND:
        note = f"{_microseconds(found[name])} against {_microseconds(bound)}."
        value = _fastest(found, name, "bound")
        why = _WHY.get(name, "")
        rows.append(Row("sign", name, what, value, "x", _BOUND, goal, note=note, why=why))
    rows += _instruction_rows(lab)
    with lab.sandbox() as sandbox:
        more = ask("fresh", sandbox=sandbox.url, requests=lab.pick(3000, 200))
        seen = ask("touched", sandbox=sandbox.url, seconds=lab.pick(25, 2) / 10)
    return [*rows, _fresh_row(more), *_touched_rows(seen)]


def _instruction_rows(lab: Lab) -> list[Row]:
    goals = {"config_url": 1.6, "config_request": 1.9}
    rows = [
        Row("sign", f"{name}_instructions", f"{what}: instructions", None, "x", _BOUND, goals[name])
        for name, what, _ in _AGAINST_BOUND
        if name in goals
    ]
    if lab.quick or instructions.VALGRIND is None:
        return [replace(row, why="valgrind is not installed, or the run is quick") for row in rows]
    with lab.sandbox() as sandbox:
        bound, *counts = (instructions.count(way, sandbox.url) for way in ("bound", *goals))
    return [
        replace(row, value=count / bound, note=f"{count:,.0f} against {bound:,.0f}.")
        for row, count in zip(rows, counts, strict=True)
    ]


def _fresh_row(more: dict[str, float]) -> Row:
    note = (
        f"config() takes {more['config']:.3g} µs more the first time; the bound takes "
        f"{more['bound']:.3g} µs more there, since the processor's caches are cold."
    )
    what = "The first config() of a request with a Host never seen before: extra time"
    value = more["config"] - more["bound"]
    return Row(
        "sign", "fresh", what, value, "µs", "a later call, less the bound's own", 5, note=note
    )


def _touched_rows(seen: dict[str, dict[str, int]]) -> list[Row]:
    first, later = seen["first"], seen["later"]
    rows = []
    for key, what in (("events", "Audit events (files, sockets, …)"), ("cache", "Cache calls")):
        what = f"{what} of {later['reads']} calls of config()"
        baseline = "the very first call, which fetches"
        note = f"The very first call made {first[key]}."
        rows.append(Row("sign", f"touched_{key}", what, later[key], "", baseline, 0, note=note))
    return rows


# -- against other libraries -----------------------------------------------------------------------

_PEERS = (
    ("wechatpy_memory", "wechatpy, ticket in memory", 4.0),
    ("wechatpy_redis", "wechatpy, ticket on Redis", 80.0),
    ("pywe_memory", "pywe-jssdk, ticket in memory", None),
    ("pywe_redis", "pywe-jssdk, ticket on Redis", None),
    ("redis_read", "one bare read of Redis", None),
)


def peers_part(lab: Lab) -> list[Row]:
    """How many times faster a config from the cached ticket is than elsewhere."""
    found = times(lab)
    return [_peer_row(found, *peer) for peer in _PEERS]


def _peer_row(found: Times, name: str, label: str, goal: float | None) -> Row:
    what = f"config(url=…): times faster than {label}"
    row = Row("peers", name, what, None, "x", "the same dict by it", goal, at_least=True)
    if name not in found:
        package = "pywe_jssdk" if name.startswith("pywe") else name.partition("_")[0]
        is_there = importlib.util.find_spec(package)
        return replace(row, why=NO_REDIS if is_there else f"{package} is not installed")
    note = f"{_microseconds(found[name])}: {_fastest(found, name, 'bound'):.3g} times the bound."
    why = "The slower the processor beside a round trip to Redis, the smaller this gets."
    return replace(row, value=_fastest(found, name, "config_url"), note=note, why=why)
