"""A credential, how long it lasts and which of two is the newer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final

#: The kinds of credential; a kind is the last part of its key in the store.
ACCESS_TOKEN: Final = "access_token"
JSAPI_TICKET: Final = "jsapi_ticket"
CARD_TICKET: Final = "wx_card_ticket"
AGENT_TICKET: Final = "agent_config_ticket"

#: Nobody gets a credential in the last seconds of its life: the page has yet to use it.
_MARGIN = 10.0
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
    :raises ValueError: for a value or a time that cannot be right.
    """

    value: str = field(repr=False)
    issued_at: float
    expires_at: float
    generation: int = 0

    def __post_init__(self) -> None:
        if not (isinstance(self.value, str) and self.value.isascii() and self.value.isprintable()):
            raise ValueError("value must be a string of printable ASCII")
        if not self.value or " " in self.value:
            raise ValueError("value must not be empty or contain spaces")
        for name in ("issued_at", "expires_at"):
            number = getattr(self, name)
            is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
            if not (is_number and abs(number) < _FAR):  # which NaN is not, either
                raise ValueError(f"{name} must be a Unix time in seconds")
        if self.expires_at <= self.issued_at:
            raise ValueError("expires_at must be later than issued_at")
        if isinstance(self.generation, bool) or not isinstance(self.generation, int):
            raise ValueError("generation must be an integer")

    def to_dict(self) -> dict[str, Any]:
        """The record as it is stored: a dict of JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Credential:
        """The credential of a stored record; keys it does not know are passed over.

        :raises ValueError: when the record is not one of ours. The text never quotes it.
        """
        try:
            return cls(
                record["value"],
                record["issued_at"],
                record["expires_at"],
                record.get("generation", 0),
            )
        except (KeyError, TypeError, AttributeError):
            problem = "a record needs value, issued_at and expires_at"
        raise ValueError(problem)

    def refresh_at(self, ahead: float) -> float:
        """The Unix time from which it is renewed.

        :param ahead: seconds before expiry; at most half the life counts, so that an answer
            with little life left is not asked for again at once.
        """
        return self.expires_at - min(ahead, (self.expires_at - self.issued_at) / 2)

    @property
    def usable_until(self) -> float:
        """The Unix time from which it is not handed out any more."""
        return self.expires_at - min(_MARGIN, (self.expires_at - self.issued_at) / 10)

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
