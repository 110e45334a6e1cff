"""What a person sees of a sandbox: lives and quotas, calls and faults; no token and no ticket."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from .accounts import Account, Agent, ThirdParty
from .faults import Faults
from .registry import Registry

_ACCOUNTS = 50  # there may be thousands
_LATEST = 8  # calls


class Quota(NamedTuple):
    """What an endpoint still grants, today or (to WeCom's agents) in this hour."""

    name: str
    left: int
    limit: int


class Row(NamedTuple):
    """One account.

    :param kind: ``"account"``, ``"agent"`` or ``"party"``.
    :param token: seconds that its access token has left; None if there is none.
    :param tickets: the same by type of ticket.
    """

    app_id: str
    kind: str
    agent_id: str
    token: int | None
    tickets: dict[str, int | None]
    quotas: list[Quota]


class Recent(NamedTuple):
    """One of the latest calls, so many seconds ago."""

    age: int
    name: str
    outcome: int | str


class Waiting(NamedTuple):
    """A fault that waits for its call; ``times`` is None for one that stays."""

    what: str
    times: int | None
    path: str | None
    app_id: str | None


class Overview(NamedTuple):
    """All of it at one moment."""

    rows: list[Row]
    more: int
    calls: list[tuple[str, int]]
    latest: list[Recent]
    faults: list[Waiting]


class _Call(Protocol):
    @property
    def time(self) -> float: ...
    @property
    def name(self) -> str: ...
    @property
    def outcome(self) -> int | str: ...


def overview(
    registry: Registry, faults: Faults, calls: Mapping[str, int], history: Sequence[_Call],
    now: float,
) -> Overview:  # fmt: skip
    """What there is, under the sandbox's lock."""
    accounts = registry.all()
    return Overview(
        [_row(account, now) for account in accounts[:_ACCOUNTS]],
        max(0, len(accounts) - _ACCOUNTS),
        sorted(calls.items()),
        [Recent(int(now - c.time), c.name, c.outcome) for c in reversed(history[-_LATEST:])],
        [Waiting(str(f.outcome), f.times, f.path, f.app_id) for f in faults.waiting()],
    )


def _row(account: Account, now: float) -> Row:
    kind = "party" if isinstance(account, ThirdParty) else "account"
    agent_id = ""
    if isinstance(account, Agent):
        kind, agent_id = "agent", account.agent_id
    return Row(
        account.app_id, kind, agent_id,
        _left((token.ends_at for token in account.current.values()), now),
        {} if kind == "party" else {
            name: _left((ticket.expires_at for ticket in tickets), now)
            for name, tickets in account.tickets.items() if tickets or name == "jsapi"
        },
        [_quota(account, name, now) for name in account.quotas],
    )  # fmt: skip


def _left(ends: Iterable[float], now: float) -> int | None:
    """Seconds to the latest of these ends; None if there is no end to come."""
    latest = max(ends, default=now)
    return int(latest - now) if latest > now else None


def _quota(account: Account, name: str, now: float) -> Quota:
    limit = account.daily_limit(name)
    return Quota(name, limit - account.used_today(name, now), limit)
