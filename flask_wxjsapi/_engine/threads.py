"""Threads for what may hang.

A renewal or a look at the store runs through other people's code and machines: a ticket server, a
token provider, Redis, a log handler. Python cannot end a thread that hangs in there. So each job
has a thread of its own and a time at which it counts as over, whatever its thread does; and when
too many threads were lost like that, no more is started until one comes back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from .._error_text import describe
from ..errors import WxJsApiError

#: How many threads of a process may be lost in what hangs.
MOST_LOST = 3


class Job(Protocol):
    """Something that may hang."""

    @property
    def name(self) -> str:
        """What its thread is called."""

    @property
    def over_at(self) -> float:
        """Monotonic seconds at which it counts as hanging."""

    @property
    def of(self) -> object:
        """Whose it is, for :meth:`Threads.has_lost`."""

    def run(self) -> None:
        """Do it, in a thread of its own."""

    def give_up(self) -> None:
        """It hangs: free whatever it holds, without waiting for anything."""


class NoThread(WxJsApiError):
    """There is no thread to be had."""


def spawn(name: str, target: Callable[[], None]) -> None:
    """Run something in a daemon thread: the end of a process does not wait for it."""
    threading.Thread(target=target, name=name, daemon=True).start()


def call_later(seconds: float, target: Callable[[], None]) -> Callable[[], None]:
    """Call something in some seconds; the result calls it off."""
    timer = threading.Timer(seconds, target)
    timer.daemon = True
    timer.name = "wxjsapi-timer"
    timer.start()
    return timer.cancel


class Threads:
    """The threads of one process in which something may hang.

    :param monotonic: the clock.
    :param spawn: starts a thread; runs the target at once in tests.
    :param call_later: sets a timer; none in tests, which call :meth:`reap` by themselves.
    :param came_back: called when a thread that was lost has come back.
    """

    def __init__(
        self,
        monotonic: Callable[[], float],
        spawn: Callable[[str, Callable[[], None]], None],
        call_later: Callable[[float, Callable[[], None]], Callable[[], None]],
        came_back: Callable[[], None] = lambda: None,
    ) -> None:
        self._monotonic = monotonic
        self._spawn = spawn
        self.call_later = call_later
        self._came_back = came_back
        self._lock = threading.Lock()  # for a few assignments, never across a call
        self._jobs: set[Job] = set()
        self._lost: set[Job] = set()
        self._asides = 0

    @property
    def lost(self) -> int:
        """How many threads hang in a job that is over."""
        return len(self._lost)

    def has_lost(self, of: object) -> bool:
        """Whether a thread hangs in a job of somebody's."""
        return any(job.of is of for job in list(self._lost))

    def start(self, job: Job) -> None:
        """Run a job in a thread of its own.

        :raises NoThread: too many are lost, or the system has no more.
        """
        if self.lost >= MOST_LOST:
            raise NoThread(
                f"{MOST_LOST} threads of this process hang: in a ticket server, an access token "
                "provider, an account_loader, a signal's receiver, a log handler or the network. "
                "No other is started until one of them comes back."
            )
        with self._lock:
            self._jobs.add(job)
        problem = None
        try:
            self._spawn(job.name, lambda: self._run(job))
        except RuntimeError as error:  # no more threads, or the interpreter is on its way out
            problem = str(error) or describe(error)
        if problem is not None:
            self._forget(job)
            raise NoThread(f"A thread cannot start: {problem}.")

    def _run(self, job: Job) -> None:
        cancel = self._set_timer(job)
        try:
            job.run()
        finally:
            self._forget(job)
            cancel()

    def _set_timer(self, job: Job) -> Callable[[], None]:
        try:
            # A little later than it is over, so that it is found to be.
            return self.call_later(job.over_at - self._monotonic() + 0.05, self.reap)
        except RuntimeError:  # no more threads: whoever comes by finds it
            return lambda: None

    def _forget(self, job: Job) -> None:
        with self._lock:
            self._jobs.discard(job)
            was_lost = job in self._lost
            self._lost.discard(job)
        if was_lost:
            self._came_back()

    def reap(self) -> None:
        """Give up the jobs that hang. Waits for nothing."""
        now = self._monotonic()
        with self._lock:
            over = [job for job in self._jobs if job.over_at <= now]
            self._jobs.difference_update(over)
            self._lost.update(over)
        for job in over:
            job.give_up()

    def aside(self, action: Callable[[], None]) -> None:
        """Do something small of others', such as to tell the log, that nobody here waits for. Where
        as many hang in that as may it stays undone; where the system has no thread it is done here.
        """
        with self._lock:
            if self._asides >= MOST_LOST:
                return
            self._asides += 1

        def run() -> None:
            try:
                action()
            finally:
                with self._lock:
                    self._asides -= 1

        try:
            self._spawn("wxjsapi-aside", run)
        except RuntimeError:
            run()
