"""What a command tells a person or a monitor: how bad it is, whose ticket it sees, and when."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from .._account import Account
from .._credential import JSAPI_TICKET
from ..errors import TicketUnavailable, WxJsApiError

#: How bad something is -> the exit status that monitors read: those of Nagios' plugins.
EXIT_STATUS: Final = {"ok": 0, "warning": 1, "error": 2, "unknown": 3}

EMBEDDED: Final = (
    'API_BASE_URL is "sandbox": each process has a WeChat of its own; this command cannot see '
    "the server's."
)
ALONE: Final = (
    "CACHE_TYPE is SimpleCache: each process keeps its own ticket; this command cannot see theirs."
)


def worst(levels: Iterable[str]) -> str:
    return max(levels, key=EXIT_STATUS.__getitem__, default="ok")


def alone(account: Account) -> str | None:
    """Why this process cannot see what the app's others keep, as it is set up."""
    if account.settings.is_sandbox:
        return EMBEDDED
    try:
        is_private = account.credentials.store.is_private
    except Exception:  # of a backend that connects when it is made: unseen() says so
        return None
    return ALONE if is_private else None


def unseen(account: Account, kind: str = JSAPI_TICKET) -> str | None:
    """Why it is not known what the others have, after a look at the store."""
    reason, problem = alone(account), account.credentials.unseen(kind)
    if reason is None and problem is not None:
        return f"{problem} The server's processes go on with what each of them holds."
    return reason


def unshared(account: Account) -> str | None:
    """Why no other process has the ticket that this one holds."""
    credentials = account.credentials
    held = credentials.holding.snapshot().credential
    found = credentials.session().find(JSAPI_TICKET)
    if alone(account) is None and held and found and not held.is_newer_than(found):
        return None
    problem = credentials.store.problem(JSAPI_TICKET, "written")
    return unseen(account) or problem or "The store does not give back what was saved."


def why(error: WxJsApiError) -> str:
    """What went wrong, where a :class:`TicketUnavailable` only says that something did."""
    if isinstance(error, TicketUnavailable):
        return str(error.__cause__ or error.description)
    return str(error)


def _span(seconds: float) -> str:
    minutes, rest = divmod(int(abs(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{rest} s"
    return f"in {text}" if seconds >= 0 else f"{text} ago"


def when(at: float) -> str:
    local = datetime.fromtimestamp(at, UTC).astimezone()
    return f"{local:%Y-%m-%d %H:%M:%S %z}, {_span(at - time.time())}"


def masked(app_id: str) -> str:
    return f"{app_id[:4]}…{app_id[-4:]}" if len(app_id) > 10 else "…"
