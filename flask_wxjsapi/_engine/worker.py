"""The background thread that keeps the ticket warm."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from .._error_text import describe

if TYPE_CHECKING:
    from .provider import Provider

logger = logging.getLogger(__name__)

_PAUSE = 5.0  # seconds after an exception that nobody foresaw


class _Run:
    """One thread of one process.

    ``is_running`` is a plain flag that the thread takes down when it ends: readers look at it,
    and ``Thread.is_alive()`` would cost them a lock.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.is_running = True
        self.stop = threading.Event()


class Worker:
    """Starts the thread in whichever process uses it, and another one when that has died.

    A fork takes no thread along: under ``gunicorn --preload`` and uWSGI the thread of the
    master is gone in the workers, though ``is_alive()`` may still say True there. So the thread
    belongs to a PID, and whoever comes by in a new process starts a new one.

    :param provider: held weakly, and with it the app: a thread keeps neither alive.
    :param owner: the app; the thread ends when it is gone, even before its provider is.
    :param is_enabled: asked when a thread would start.
    """

    def __init__(
        self, provider: Provider, owner: object, name: str, is_enabled: Callable[[], bool]
    ) -> None:
        self._provider = weakref.ref(provider)
        self._owner = weakref.ref(owner)
        self._name = name
        self._is_enabled = is_enabled
        self._is_closed = False
        self._current: _Run | None = None
        self._successors: dict[tuple[int, _Run | None], _Run] = {}

    def ensure(self) -> bool:
        """Start the thread unless it runs.

        :returns: whether there is one; False when it is switched off or cannot start.
        """
        pid = os.getpid()
        run = self._current
        if run is not None and run.pid == pid:
            if run.is_running:
                return True
        else:
            run = None
        if self._is_closed or not self._is_enabled():
            return False
        return self._start(_Run(pid), run)

    def start(self) -> bool:
        """As :meth:`ensure`, also after :meth:`stop`."""
        self._is_closed = False
        return self.ensure()

    def stop(self) -> None:
        """End this process's thread, without waiting for it."""
        self._is_closed = True
        run = self._current
        if run is not None and run.pid == os.getpid():
            run.is_running = False
            run.stop.set()

    def _start(self, run: _Run, dead: _Run | None) -> bool:
        # No lock: one inherited through a fork may be held by a thread that is not here. Of
        # several that come by at once, the one whose run gets into the dict starts it.
        if self._successors.setdefault((run.pid, dead), run) is not run:
            return True
        if dead is not None and not dead.stop.is_set():
            logger.warning("The background thread died; a new one takes its place.")
        self._current = run
        name = f"wxjsapi-{self._name}"
        args = (self._provider, self._owner, run)
        try:
            threading.Thread(target=_loop, args=args, name=name, daemon=True).start()
        except RuntimeError as error:  # no more threads, or the interpreter is on its way out
            run.is_running = False
            logger.warning("The background thread cannot start: %s.", error)
        return run.is_running


def _loop(provider_ref: weakref.ref[Provider], owner_ref: weakref.ref[object], run: _Run) -> None:
    delay = 0.0
    try:
        while not run.stop.wait(delay):
            provider = provider_ref()
            if provider is None or owner_ref() is None:
                return
            try:
                delay = provider.sync()
            except Exception as error:
                delay = _PAUSE
                logger.error("The background thread goes on after %s.", describe(error))
            del provider  # or the wait would keep the app alive
    finally:
        run.is_running = False
