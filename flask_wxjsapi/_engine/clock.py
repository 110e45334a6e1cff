"""Time, as the engine is given it."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Time, so that tests can bring their own; the ``time`` module is one."""

    def time(self) -> float: ...
    def monotonic(self) -> float: ...
    def sleep(self, seconds: float, /) -> None: ...
