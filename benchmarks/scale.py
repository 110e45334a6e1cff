"""Part ``scale``: a simulated day of 1 to 512 workers on one store, with the clock of the tests."""

from __future__ import annotations

import heapq
import math
import timeit
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.conftest import FakeClock
from tests.engine.cluster import Cluster

from .lab import Lab
from .report import Row

_DAY = 86_400.0
_TICKETS = 13  # a day of 86400 s, at a ticket every 7000 s


@dataclass
class _Day:
    """What a day of a cluster came to."""

    workers: int
    tokens: int
    tickets: int
    operations: float  # on the store, for each worker
    read: Callable[[], object]
    read_time: float = math.inf  # seconds


class _Counting:
    """Counts what is asked of a backend."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        self.calls[name] += 1
        return getattr(self._backend, name)


def scale_part(lab: Lab) -> list[Row]:
    """The same figures for each size, against those of one worker."""
    sizes = (1, 4) if lab.quick else (1, 8, 64, 512)
    interval = lab.pick(60, 600)
    days = [_day(size, interval) for size in sizes]
    _time_reads(days)
    return _rows(days, interval)


def _day(count: int, interval: float) -> _Day:
    clock = FakeClock()
    cluster = Cluster(clock)
    counting = cluster.cache._backend = _Counting(cluster.backend)
    workers = [cluster.worker(sync_interval=interval) for _ in range(count)]
    end = clock.now + _DAY
    due = [(clock.now + cluster.random.uniform(0, interval), number) for number in range(count)]
    heapq.heapify(due)
    while due[0][0] < end:
        at, number = heapq.heappop(due)
        clock.advance(max(0.0, at - clock.now))
        heapq.heappush(due, (clock.now + workers[number].sync(), number))
    workers[0].ticket()
    read = workers[0].provider.get
    tokens, tickets = cluster.calls
    return _Day(count, tokens, tickets, sum(counting.calls.values()) / count, read)


def _time_reads(days: list[_Day]) -> None:
    """All in turn, since a machine may change its pace; the fastest counts."""
    for _ in range(100):
        for day in days:
            day.read_time = min(day.read_time, timeit.timeit(day.read, number=1000) / 1000)


def _rows(days: list[_Day], interval: float) -> list[Row]:
    one, most = days[0], days[-1]
    sizes = ", ".join(str(day.workers) for day in days)
    calls = [f"{day.tokens} + {day.tickets}" for day in days]
    operations = [f"{day.operations:.0f}" for day in days]
    reads = [f"{day.read_time * 1e9:.0f}" for day in days]
    what = f"{most.workers} workers: "
    worst = max(day.operations for day in days) / one.operations
    note = f"With {sizes} workers and a look at the store every {interval:.0f} s: "
    return [
        Row(
            "scale", "tickets", what + "tickets fetched in a simulated day", most.tickets, "calls",
            f"one worker: {one.tickets}", _TICKETS, note=f"{note}{', '.join(calls)} calls.",
        ),
        Row(
            "scale", "operations", what + "store operations of each in that day", worst, "x",
            "one worker", 1.05, note=f"{note}{', '.join(operations)} operations.",
        ),
        Row(
            "scale", "read", what + "time of a read", most.read_time / one.read_time, "x",
            "one worker", 1.1,
            note=f"With {sizes} workers: {', '.join(reads)} ns.",
            why="A read knows nothing of other workers; the processor's caches do.",
        ),
    ]  # fmt: skip
