"""The pause after a failed call: how long, and how processes tell each other."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .._credential import CLOCK_SKEW
from .._error_text import clean
from ..errors import TransportError, WeChatAPIError, WxJsApiError, reaction

# One second doubling to a minute, so that a short outage heals soon; and after half an hour of
# nothing but failures 400 s, so that a day-long one costs fewer than 300 calls.
_SHORT, _LONG, _LONG_AFTER = 60.0, 400.0, 1800.0
#: No pause is longer, in seconds; what a store says beyond that was not written by us.
_LONGEST = 3600.0
_LONGEST_TEXT = 1000  # characters that are believed of a store


@dataclass(frozen=True, slots=True)
class BackOff:
    """The pause after a failure. All processes share it through the store, or those of one host.

    :param failures: how many in a row.
    :param since: Unix time of the first.
    :param delay: seconds.
    :param retry_at: Unix time at which it ends.
    :param error: the last failure.
    """

    failures: int
    since: float
    delay: float
    retry_at: float
    error: WxJsApiError

    @classmethod
    def after(
        cls,
        error: WxJsApiError,
        last: BackOff | None,
        now: float,
        rng: random.Random,
        calls: int = 1,
    ) -> BackOff:
        """The back-off that a failure brings, given the one before it.

        :param now: Unix time in seconds.
        :param calls: how many the attempt took; the pause is as many times longer.
        """
        failures, since = (last.failures + 1, last.since) if last else (1, now)
        asked = reaction(error.errcode) if isinstance(error, WeChatAPIError) else None
        if asked is not None and asked.hold:
            delay = asked.hold
        else:
            cap = _SHORT if now - since < _LONG_AFTER else _LONG
            delay = calls * min(cap, 2.0 ** min(failures - 1, 10)) * rng.uniform(0.75, 1)
            if asked is not None and asked.until_minute:
                delay = max(delay, 60 - now % 60)
        return cls(failures, since, delay, now + delay, error)

    @property
    def is_of_host(self) -> bool:
        """Whether the verdict is on this host's IP address, and does not concern any other."""
        return isinstance(self.error, WeChatAPIError) and reaction(self.error.errcode).of_host

    @property
    def note_life(self) -> float:
        """Seconds to keep it in the store: an hour beyond its end, then all is forgotten."""
        return self.delay + 3600

    @property
    def cause(self) -> object:
        return cause_of(self.error)

    def blocks(self, now: float) -> bool:
        # One that seems further off than its own delay was written before a clock was put back.
        return 0 < self.retry_at - now <= self.delay + CLOCK_SKEW

    def to_note(self, digest: str) -> dict[str, Any]:
        note: dict[str, Any] = {
            "failures": self.failures,
            "since": self.since,
            "delay": self.delay,
            "retry_at": self.retry_at,
            "digest": digest,
            "message": str(self.error),
        }
        if isinstance(self.error, WeChatAPIError):
            error = self.error
            note |= {"errcode": error.errcode, "errmsg": error.errmsg, "advice": error.advice}
        return note

    @staticmethod
    def is_damaged(note: dict[str, Any], digest: str) -> bool:
        """Whether a note is of these settings, and yet cannot be one that we wrote."""
        return note.get("digest") == digest and BackOff.from_note(note, digest) is None

    @classmethod
    def from_note(cls, note: dict[str, Any], digest: str) -> BackOff | None:
        """The back-off of a note; None for one of other settings or that is none of ours."""
        if note.get("digest") != digest:
            return None
        try:
            error = _error_of(note)
            since, delay, retry_at = (float(note[key]) for key in ("since", "delay", "retry_at"))
            failures = int(note["failures"])
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        # Whoever can write to the store could stop everybody for ever.
        is_ours = 0 <= delay <= _LONGEST and failures >= 0
        if not is_ours or not (math.isfinite(since) and math.isfinite(retry_at)):
            return None
        return cls(min(failures, 1000), since, delay, retry_at, error)


def cause_of(error: WxJsApiError) -> object:
    """What tells one failure from another: errmsg has a new request id every time."""
    return getattr(error, "errcode", None) or str(error)


def _error_of(note: dict[str, Any]) -> WxJsApiError:
    if "errcode" in note:
        # Which depends on the platform, and may name the IP address.
        advice = clean(note["advice"], (), _LONGEST_TEXT) if note.get("advice") else None
        return WeChatAPIError(int(note["errcode"]), clean(note["errmsg"], ()), advice)
    return TransportError(clean(note["message"], (), _LONGEST_TEXT))


def latest(back_offs: Iterable[BackOff | None]) -> BackOff | None:
    """The one that lasts longest; None where there is none."""
    return max(filter(None, back_offs), key=lambda back_off: back_off.retry_at, default=None)
