"""The background thread of a process."""

from __future__ import annotations

import logging
import threading
import weakref
from typing import Protocol

from .._error_text import describe

_PAUSE = 5.0  # seconds after an exception that nobody foresaw


class Ticker(Protocol):
    """Whom the thread serves."""

    def tick(self) -> float:
        """Attend to what is due; seconds until something is due again."""

    def tell_aside(
        self, level: int, text: str, *args: object, event: str, **facts: object
    ) -> None: ...


class BackgroundThread:
    """One thread of one process.

    ``is_running`` is a plain flag that the thread takes down when it ends: readers look at it,
    and ``Thread.is_alive()`` would cost them a lock.
    """

    def __init__(self, runtime: weakref.ref[Ticker], owner: weakref.ref[object]) -> None:
        self.is_running = True
        self.is_stopped = False
        self.wake = threading.Event()
        self._runtime = runtime
        self._owner = owner

    def stop(self) -> None:
        self.is_running = False
        self.is_stopped = True
        self.wake.set()

    def run(self) -> None:
        """Tick until it is stopped or the app is gone, whatever happens."""
        delay = 0.0
        try:
            while not self.is_stopped:
                runtime = self._runtime()
                if runtime is None or self._owner() is None:
                    return
                try:
                    delay = runtime.tick()
                except Exception as error:
                    delay = _PAUSE
                    text = "The background thread goes on after %s."
                    what = describe(error)
                    runtime.tell_aside(logging.ERROR, text, what, event="thread_failed")
                del runtime  # or the wait would keep the app alive
                self.wake.wait(delay)
                self.wake.clear()
        finally:
            self.is_running = False
