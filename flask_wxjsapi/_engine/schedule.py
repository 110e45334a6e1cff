"""When to attend to what."""

from __future__ import annotations

import heapq
import itertools
from typing import Generic, TypeVar

T = TypeVar("T")


class Schedule(Generic[T]):
    """Things, each with the time at which it is due; at most one time for each.

    Only the thread uses it, under the runtime's lock.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._due: dict[T, int] = {}  # the number of the entry that counts
        self._numbers = itertools.count()

    def __contains__(self, thing: T) -> bool:
        return thing in self._due

    def put(self, thing: T, at: float) -> None:
        """Have it due at a time, and no longer at another."""
        number = next(self._numbers)
        self._due[thing] = number
        heapq.heappush(self._heap, (at, number, thing))
        if len(self._heap) > 2 * len(self._due) + 64:  # mostly entries that count no more
            self._heap = [entry for entry in self._heap if self._counts(entry)]
            heapq.heapify(self._heap)

    def drop(self, thing: T) -> None:
        """Have it never due."""
        self._due.pop(thing, None)

    def pop_due(self, now: float, most: int) -> list[T]:
        """What is due by now, the longest overdue first."""
        due: list[T] = []
        while self._heap and self._heap[0][0] <= now and len(due) < most:
            entry = heapq.heappop(self._heap)
            if self._counts(entry):
                del self._due[entry[2]]
                due.append(entry[2])
        return due

    @property
    def next_at(self) -> float | None:
        """When something is due next; None for never."""
        while self._heap and not self._counts(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _counts(self, entry: tuple[float, int, T]) -> bool:
        return self._due.get(entry[2]) == entry[1]
