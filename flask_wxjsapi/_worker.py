"""The background thread that keeps the ticket warm."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from ._client import describe

if TYPE_CHECKING:
    from ._provider import Provider

logger = logging.getLogger(__name__)

_PAUSE = 5.0  # seconds after an exception that nobody foresaw


class _Run:
    """One thread of one process."""

    def __init__(self, pid: int, number: int) -> None:
        self.pid = pid
        self.number = number
        self.stop = threading.Event()
        self.thread: threading.Thread | None = None
        self.is_starting = True

    @property
    def is_alive(self) -> bool:
        if self.stop.is_set():
            return False
        return self.is_starting or (self.thread is not None and self.thread.is_alive())


class Worker:
    """Starts the thread in whichever process uses it, and another one when that has died.

    A fork takes no thread along: under ``gunicorn --preload`` and uWSGI the thread of the
    master is gone in the workers, though ``is_alive()`` may still say True there. So the thread
    belongs to a PID, and whoever comes by in a new process starts a new one.

    :param provider: held weakly, and with it the app: a thread keeps neither alive.
    :param is_enabled: asked when a thread would start.
    """

    def __init__(self, provider: Provider, name: str, is_enabled: Callable[[], bool]) -> None:
        self._provider = weakref.ref(provider)
        self._name = name
        self._is_enabled = is_enabled
        self._is_closed = False
        self._current: _Run | None = None
        self._runs: dict[tuple[int, int], _Run] = {}

    def ensure(self) -> bool:
        """Start the thread unless it runs.

        :returns: whether there is one; False when it is switched off or cannot start.
        """
        pid = os.getpid()
        run = self._current
        if run is not None and run.pid == pid:
            if run.is_alive:
                return True
        else:
            run = None
        if self._is_closed or not self._is_enabled():
            return False
        return self._start(_Run(pid, run.number + 1 if run else 0))

    def start(self) -> bool:
        """As :meth:`ensure`, also after :meth:`stop`."""
        self._is_closed = False
        return self.ensure()

    def stop(self) -> None:
        """End this process's thread, without waiting for it."""
        self._is_closed = True
        run = self._current
        if run is not None and run.pid == os.getpid():
            run.stop.set()

    def _start(self, run: _Run) -> bool:
        # No lock: one inherited through a fork may be held by a thread that is not here. Of
        # several that come by at once, the one whose run gets into the dict starts it.
        if self._runs.setdefault((run.pid, run.number), run) is not run:
            return True
        self._current = run
        try:
            run.thread = threading.Thread(
                target=_loop,
                args=(self._provider, run.stop),
                name=f"wxjsapi-{self._name}",
                daemon=True,
            )
            run.thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter is on its way out
            logger.warning("The background thread cannot start: %s.", error)
        finally:
            run.is_starting = False
        return run.is_alive


def _loop(provider_ref: weakref.ref[Provider], stop: threading.Event) -> None:
    delay = 0.0
    while not stop.wait(delay):
        provider = provider_ref()
        if provider is None:
            return
        try:
            delay = provider.sync()
        except Exception as error:
            delay = _PAUSE
            logger.error("The background thread goes on after %s.", describe(error))
        del provider  # or the wait would keep the app alive
