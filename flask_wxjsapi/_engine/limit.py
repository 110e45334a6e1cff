"""How often a cluster may renew what is not due."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Limit:
    """How often, for a kind of one account and all processes together.

    :param name: begins the name of the note in which the store keeps the times.
    :param spans: pairs: at most so many, in so many seconds.
    """

    name: str
    spans: tuple[tuple[int, float], ...]

    def note_of(self, kind: str) -> str:
        return f"{self.name}.{kind}"

    def allows(self, times: list[float], now: float) -> bool:
        # A time in the future was noted before a clock was put back, and counts as well.
        return all(
            sum(abs(now - at) < seconds for at in times) < most for most, seconds in self.spans
        )

    def remembered(self, note: dict[str, Any], own: list[float], now: float) -> list[float]:
        """The times that count: those of the cluster's note, and this process's own, since the
        store may have lost its note.
        """
        noted = note.get("times")
        times = [at for at in noted if isinstance(at, float)] if isinstance(noted, list) else []
        # No more than the longest span allows: a store is hostile once.
        recent = sorted(at for at in {*times, *own} if abs(now - at) < self.longest)
        return recent[-max(most for most, _ in self.spans) :]

    @property
    def longest(self) -> float:
        """Seconds after which a time is of no interest."""
        return max(seconds for _, seconds in self.spans)


#: refresh(): a button that is clicked twice.
REFRESH = Limit("refresh", ((1, 10),))
#: Pages that say their signature is invalid, whosever they are.
VERIFY = Limit("verify", ((1, 600),))


def complaints_of(source: str) -> Limit:
    """How much of that the pages of one source may take: the app's own or, on a central server,
    those of one client. What is used up comes back.
    """
    digest = hashlib.sha256(source.encode()).hexdigest()[:8]  # a name may be any text
    return Limit(f"verify-{digest}", ((4, 14400),))
