"""Whose turn it is to be renewed."""

from __future__ import annotations

from collections import deque

from .renewal import Renewal

#: Renewals at once, and those of them that nobody waits for; what is slow does not count.
_MOST_AT_ONCE, _MOST_UNAWAITED = 8, 4
#: Seconds after which one is slow: it waits for somebody who may hang, and others need not wait for
#: that. So many may be slow at once: each has a thread.
_SLOW, _MOST_SLOW = 1.0, 24
#: Those of accounts whose last one failed, slow or not: what is broken leaves room for the rest.
_MOST_DOUBTFUL = 4


class Turns:
    """The renewals of a process that are under way, and those that wait for their turn.

    The runtime uses it under its lock.
    """

    def __init__(self) -> None:
        #: Since when; monotonic seconds.
        self.under_way: dict[Renewal, float] = {}
        # By whether somebody waits for them and whether the account's last one failed.
        self._waiting: dict[tuple[bool, bool], deque[Renewal]] = {
            (is_awaited, is_doubtful): deque()
            for is_awaited in (True, False)
            for is_doubtful in (False, True)
        }

    def put(self, renewal: Renewal) -> None:
        """Have it wait for its turn."""
        self._waiting[renewal.is_awaited, _is_doubtful(renewal)].append(renewal)

    def prefer(self, renewal: Renewal) -> None:
        """Somebody waits for it by now."""
        renewal.is_awaited = True
        for is_doubtful in (False, True):
            queue = self._waiting[False, is_doubtful]
            if renewal in queue:
                queue.remove(renewal)
                self._waiting[True, is_doubtful].append(renewal)

    def next(self, now: float) -> Renewal | None:
        """Whose turn it is, if anybody's; it is under way from now on.

        :param now: monotonic seconds.
        """
        quick = self._quick(now)
        is_full = len(self.under_way) >= _MOST_AT_ONCE + _MOST_SLOW
        if is_full or len(quick) >= _MOST_AT_ONCE:
            return None
        may_be_unawaited = sum(not renewal.is_awaited for renewal in quick) < _MOST_UNAWAITED
        may_be_doubtful = sum(map(_is_doubtful, self.under_way)) < _MOST_DOUBTFUL
        for (is_awaited, is_doubtful), queue in self._waiting.items():
            if (may_be_unawaited or is_awaited) and (may_be_doubtful or not is_doubtful) and queue:
                renewal = queue.popleft()
                self.under_way[renewal] = now
                return renewal
        return None

    def next_in(self, now: float) -> float | None:
        """Seconds until it may be the turn of one that waits, though none ends; None for never."""
        quick = self._quick(now)
        if not quick or not any(self._waiting.values()):
            return None
        return min(self.under_way[renewal] for renewal in quick) + _SLOW - now

    def _quick(self, now: float) -> list[Renewal]:
        return [renewal for renewal, since in self.under_way.items() if now - since < _SLOW]


def _is_doubtful(renewal: Renewal) -> bool:
    chain = renewal.holding.chain(renewal.snapshot)
    return any(needed.back_off is not None for needed in chain)
