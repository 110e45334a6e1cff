"""How an upstream is asked, also where it repeats itself to the end."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from .._credential import LONGEST_LIFE, MARGIN_AGAIN, Credential
from .._error_text import describe
from .._upstream import Upstream
from ..errors import TransportError, WxJsApiError
from .clock import Clock

_MOST_QUESTIONS = 4  # for one credential
#: Seconds of a life that are as good as none.
_NOTHING = 0.5
#: Seconds by which WeChat understates what is left: it truncates.
_TRUNCATED = 1.0


@dataclass(frozen=True)
class Question:
    """What is asked of an upstream.

    :param kind: which credential.
    :param before: the one that it follows, if any.
    :param parent: the access token to ask with.
    :param rejected: what was just refused, if this asks for its successor.
    :param deadline: monotonic seconds.
    :param timeout: seconds of the renewal as a whole.
    """

    upstream: Upstream
    clock: Clock
    kind: str
    before: Credential | None
    parent: Credential | None
    rejected: Credential | None
    deadline: float
    timeout: float

    def answer(self) -> Credential:
        """The credential; where WeChat repeats one that is about to end, the one after that.

        :raises WxJsApiError: what went wrong, with no other exception behind it.
        """
        self._sleep_past_a_repeated_one()
        questions = 0
        while True:
            found, questions = self._ask(), questions + 1
            left = found.expires_at - self.clock.time()
            is_last = questions == _MOST_QUESTIONS or not self._is_ending(found, left)
            if is_last or not self._sleep_past(left):
                break
        if left < _NOTHING:
            raise TransportError(f"The {self.kind} that was answered has no life left.")
        return found

    def _sleep_past_a_repeated_one(self) -> None:
        """What WeChat has named again to its end: there is no use in asking before that."""
        before = self.before
        if before is not None and before.first is not None and not before.is_told_longer:
            left = before.expires_at - self.clock.time()
            if 0 < left <= min(MARGIN_AGAIN, before.first_life / 10) + 0.1:
                self._sleep_past(left)

    def _is_ending(self, found: Credential, left: float) -> bool:
        """Whether WeChat repeats itself to the end: then the next one comes in a moment."""
        if self.before is not None and found.value == self.before.value:
            return left <= min(MARGIN_AGAIN, found.first_life / 10)
        return left < _NOTHING

    def _sleep_past(self, left: float) -> bool:
        """Sleep past the end of what WeChat still names; readers wait meanwhile.

        :param left: seconds.
        :returns: whether there is time left to ask then.
        """
        seconds = max(0.0, left) + _TRUNCATED
        if self.clock.monotonic() + seconds >= self.deadline - self._reserve:
            return False
        self.clock.sleep(seconds)
        return True

    def _ask(self) -> Credential:
        asked_at = self.clock.time()
        failure: WxJsApiError
        try:
            found = self.upstream.fetch(
                self.kind,
                parent=self.parent.value if self.parent else None,
                rejected=self.rejected.value if self.rejected else None,
                timeout=self._time_left(),
            )
        except WxJsApiError as error:
            failure = cleaned(error)
        except BaseException as error:  # a time-out of gevent's, say; this thread is our own
            failure = TransportError(f"Asking for the {self.kind} broke: {describe(error)}.")
        else:
            return self._as_received(found, asked_at)
        raise failure  # out here, so that it carries no other exception along

    def _as_received(self, found: Credential, asked_at: float) -> Credential:
        """What was answered, with its life counted from the question: a provider may tell when its
        token was really issued, long ago.
        """
        before = self.before
        # Counted from what was known before the call: a holder that was stopped for longer than its
        # lease comes back with a number that replaces nothing newer.
        generation = max(int(asked_at), before.generation + 1 if before else 0)
        expires_at = min(found.expires_at, asked_at + LONGEST_LIFE)
        found = replace(
            found,
            issued_at=asked_at,
            expires_at=max(expires_at, math.nextafter(asked_at, math.inf)),
            generation=generation,
            first=None,
        )
        if before is not None and before.value == found.value and before.expires_at > asked_at:
            return found.again(before)
        return found

    @property
    def _reserve(self) -> float:
        """Seconds before the deadline by which a call is over: so that readers hear of it."""
        return min(1.0, self.timeout / 5)

    def _time_left(self) -> float:
        """Seconds for a call. A slow store may have used the time up: WeChat is not to be blamed
        for that, and gets some; it still ends before the lease does.
        """
        left = self.deadline - self.clock.monotonic() - self._reserve
        return max(left, min(1.0, self.timeout / 2))


def cleaned(error: WxJsApiError) -> WxJsApiError:
    """An error without its traceback and what came before it: both hold what was being fetched."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
