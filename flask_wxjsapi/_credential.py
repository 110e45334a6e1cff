"""A credential, how long it lasts and which of two is the newer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

#: The kinds of credential; a kind is the last part of its key in the store.
ACCESS_TOKEN: Final = "access_token"
JSAPI_TICKET: Final = "jsapi_ticket"
CARD_TICKET: Final = "wx_card_ticket"
AGENT_TICKET: Final = "agent_config_ticket"
KINDS: Final = (ACCESS_TOKEN, JSAPI_TICKET, CARD_TICKET, AGENT_TICKET)

#: Nobody gets a credential in the last seconds of its life: the page has yet to use it. One that
#: WeChat has just named again is all there is, and is handed out for longer.
_MARGIN, MARGIN_AGAIN = 10.0, 1.0
#: How long one is handed out beyond the end told first while nobody knows whether it lives on.
_UNKNOWN = 50.0
#: Seconds between two questions whether one that lives on is still the one WeChat names.
_ASK_AGAIN = 1800.0
#: WeChat documents 7200 s as the most; what is told more would outlive the ticket.
LONGEST_LIFE: Final = 7200.0
_LONGEST_VALUE = 1024  # characters; a token has 512 at most
_DAY = 86400.0
#: Unix times beyond this are nonsense.
_FAR = 1e12
#: How far the clocks of two machines may disagree, in seconds, before a record is distrusted.
CLOCK_SKEW: Final = 120.0


class State(StrEnum):
    """What a credential is good for at a moment."""

    FRESH = "fresh"  #: hand it out
    STALE = "stale"  #: hand it out and renew it
    INVALID = "invalid"  #: do not hand it out


@dataclass(frozen=True, slots=True)
class Credential:
    """An access token or a ticket, with its life.

    :param value: the secret text; left out of the ``repr``.
    :param issued_at: Unix time in seconds, taken before WeChat was asked.
    :param expires_at: Unix time in seconds.
    :param generation: orders the records of one account and kind; 0 where it was never set.
    :param first: where WeChat has named this value before: ``issued_at`` and ``expires_at`` of the
        first time. A ticket server may leave it out.
    :raises ValueError: for a value or a time that cannot be right.
    """

    value: str = field(repr=False)
    issued_at: float
    expires_at: float
    generation: int = 0
    first: tuple[float, float] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not (isinstance(self.value, str) and self.value.isascii() and self.value.isprintable()):
            raise ValueError("value must be a string of printable ASCII")
        if not self.value or " " in self.value:
            raise ValueError("value must not be empty or contain spaces")
        _check_times(self.issued_at, self.expires_at)
        if self.first is not None:
            _check_times(*self.first)
        if isinstance(self.generation, bool) or not isinstance(self.generation, int):
            raise ValueError("generation must be an integer")

    def to_dict(self) -> dict[str, Any]:
        """The record as it is stored: a dict of JSON types, ``first`` only where there is one."""
        record = asdict(self)
        if self.first is None:
            del record["first"]
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Credential:
        """The credential of a stored record; keys it does not know are passed over.

        :raises ValueError: when the record is not one of ours. The text never quotes it.
        """
        try:
            first = record.get("first")
            return cls(
                record["value"],
                record["issued_at"],
                record["expires_at"],
                record.get("generation", 0),
                None if first is None else (first[0], first[1]),
            )
        except (KeyError, IndexError, TypeError, AttributeError):
            problem = "a record needs value, issued_at and expires_at"
        raise ValueError(problem)

    def problem(self, now: float) -> str | None:
        """What is wrong with a credential that comes from a store, if anything: whoever can write
        there could make all processes keep it for ever.

        :param now: Unix time in seconds.
        """
        if len(self.value) > _LONGEST_VALUE:
            return "its value is too long"
        if self.expires_at - self.issued_at > LONGEST_LIFE + CLOCK_SKEW:
            return "it lives too long"
        if self.issued_at > now + _DAY:
            return "it was issued in the future"
        if self.generation > now + 7 * _DAY:  # and not than issued_at: it may be a day ahead itself
            return "its generation is too high"
        return None

    def again(self, before: Credential) -> Credential:
        """This credential as the successor of one with the same value that has not ended.

        The same value again is no new life: what was told first counts on.
        """
        return replace(self, first=before._told_first)

    @property
    def _told_first(self) -> tuple[float, float]:
        return self.first or (self.issued_at, self.expires_at)

    @property
    def first_life(self) -> float:
        """Seconds from the first answer with this value to the end told then."""
        issued_at, expires_at = self._told_first
        return expires_at - issued_at

    @property
    def is_told_longer(self) -> bool:
        """Whether WeChat named the value again and told a later end than at first.

        Where it tells what is left the end stays where it was, but for some seconds; where it
        tells a whole life every time the end moves on with the questions.
        """
        issued_at, expires_at = self._told_first
        return self.expires_at - expires_at > (self.issued_at - issued_at) / 2

    def refresh_at(self, ahead: float) -> float:
        """The Unix time from which it is renewed.

        :param ahead: seconds before expiry; at most half of what was left when it was received
            counts, so that an answer with little life left is not asked for again at once.
        """
        left = self.expires_at - self.issued_at
        if self.first is None:
            return self.expires_at - min(ahead, left / 2)
        if self.is_told_longer:
            return self._asked_again_at(self.first[1], min(ahead, left / 2))
        # Told what is left: asking did not help. Once more half-way, and then at the end.
        if left > 0.75 * min(ahead, self.first_life / 2):
            return self.expires_at - left / 2
        return self.usable_until

    def _asked_again_at(self, first_end: float, ahead: float) -> float:
        """When to ask whether a value that was told a longer life lives on beyond its first end.

        Right after that end, once more a little later (WeChat counts from its answer, we from our
        question), and then every half hour.
        """
        if self.issued_at < first_end:
            return first_end + min(0.2, self.first_life / 100)
        sure = first_end + min(_MARGIN, self.first_life / 10)
        if self.issued_at < sure:
            return sure
        return min(self.issued_at + _ASK_AGAIN, self.expires_at - ahead)

    @property
    def usable_until(self) -> float:
        """The Unix time from which it is not handed out any more."""
        if self.first is None:
            return self.expires_at - min(_MARGIN, self.first_life / 10)
        if not self.is_told_longer:
            return self.expires_at - min(MARGIN_AGAIN, self.first_life / 10)
        end = self.expires_at - min(_MARGIN, self.first_life / 10)
        is_sure = self.issued_at >= self.first[1]
        return end if is_sure else min(end, self.first[1] + _UNKNOWN)

    def state(self, now: float, ahead: float) -> State:
        """FRESH, STALE or INVALID.

        :param now: Unix time in seconds.
        :param ahead: seconds before expiry from which it is to be renewed.
        """
        if now >= self.usable_until:
            return State.INVALID
        # A record from the future means a clock was put back: its expiry cannot be believed.
        if now >= self.refresh_at(ahead) or now < self.issued_at - CLOCK_SKEW:
            return State.STALE
        return State.FRESH

    def is_newer_than(self, other: Credential | None) -> bool:
        """Whether this record replaces the other one.

        Within a second two times count as the same: a store may keep them less exactly.
        """
        return other is None or (self.generation, self.issued_at) > (
            other.generation,
            other.issued_at + 1,
        )


def _check_times(issued_at: Any, expires_at: Any) -> None:
    for name, number in (("issued_at", issued_at), ("expires_at", expires_at)):
        is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
        if not (is_number and abs(number) < _FAR):  # which NaN is not, either
            raise ValueError(f"{name} must be a Unix time in seconds")
    if expires_at <= issued_at:
        raise ValueError("expires_at must be later than issued_at")
