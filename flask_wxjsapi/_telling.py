"""Tells the log, and whoever listens to a signal, at a moment when nobody waits.

A log handler and a signal's receiver are other people's code: they may be slow, hang, or read the
very ticket that is being renewed. So nothing is told while a lease is held or a reader waits: what
a renewal has to say is put off until it is over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

logger = logging.getLogger("flask_wxjsapi")

# A context variable, since greenlets have their own even where gevent patches late.
_put_off: ContextVar[list[Callable[[], None]] | None] = ContextVar("_put_off", default=None)


def tell(level: int, text: str, *args: object, event: str, **facts: object) -> None:
    """Write a line to the log; within :func:`put_off`, at its end.

    :param level: one of :mod:`logging`'s.
    :param text: with ``%s`` for each of ``args``.
    :param event: what happened, for programs; with ``facts`` it becomes the record's ``wxjsapi``.
    """
    extra = {"wxjsapi": {"event": event, **facts}}
    tell_later(lambda: logger.log(level, text, *args, extra=extra))


def tell_later(action: Callable[[], None]) -> None:
    """Call something of other people's; within :func:`put_off`, at its end."""
    waiting = _put_off.get()
    if waiting is None:
        action()
    else:
        waiting.append(action)


class Told:
    """What is told once: of several threads that come with the same, the first one tells."""

    def __init__(self) -> None:
        self._keys: dict[str, object] = {}

    def is_first(self, key: str) -> bool:
        """Whether nobody has come with this since it was forgotten."""
        mine = object()
        return self._keys.setdefault(key, mine) is mine

    def forget(self, key: str) -> None:
        self._keys.pop(key, None)


@contextmanager
def put_off() -> Iterator[None]:
    """Put off, until the end of the block, whatever this thread has to tell in it."""
    waiting: list[Callable[[], None]] = []
    token = _put_off.set(waiting)
    try:
        yield
    finally:
        _put_off.reset(token)
        for action in waiting:
            _do(action)


def _do(action: Callable[[], None]) -> None:
    try:
        action()
    except Exception:  # noqa: S110 - a handler that raises keeps nobody else from being told
        pass
