"""What a renewal is for, and so what it may do."""

from __future__ import annotations

from dataclasses import dataclass

from .._credential import State
from .limit import REFRESH, VERIFY, Limit


@dataclass(frozen=True, slots=True, eq=False)
class Purpose:
    """What a renewal is for, and so what it may do.

    :param rank: whoever wants less can share the outcome of one that does more.
    :param asks: it asks the upstream for what is due; else it looks at the store alone.
    :param waits: for another process that has the lease.
    :param limit: it asks although nothing is due, as often as this allows.
    :param passes_back_off: it asks although WeChat is to be left alone.
    """

    rank: int
    asks: bool = True
    waits: bool = False
    limit: Limit | None = None
    passes_back_off: bool = False

    def is_met_by(self, state: State) -> bool:
        """Whether nothing is left to do: a reader can go on with what is STALE."""
        if not self.asks or self.limit is not None:
            return False
        return state is not State.INVALID if self.waits else state is State.FRESH


@dataclass(frozen=True, slots=True)
class Complaint:
    """A page says that WeChat called its signature invalid.

    :param page: what the log calls it.
    :param source: whose page it is, see :func:`~.limit.complaints_of`.
    """

    page: str
    source: str = ""


LOOK = Purpose(0, asks=False)  #: what does the store have?
HEAR = Purpose(0, asks=False)  #: what does an account's loader say, since another process asked?
KEEP = Purpose(1)  #: the thread keeps what is due warm
CHECK = Purpose(2, limit=VERIFY)  #: is the ticket still the one that WeChat names?
NEED = Purpose(3, waits=True)  #: a reader has nothing valid
FORCE = Purpose(4, waits=True, limit=REFRESH, passes_back_off=True)  #: a person says so
