"""An account's tokens, tickets and quotas; what WeCom's agents and third parties have of these."""

from __future__ import annotations

import collections
import ipaddress
import math
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar
from urllib.parse import urlsplit

from .protocol import NAMES, OFFIACCOUNT, WECOM, Payload, Refusal

#: The worlds of ``Sandbox(ticket=…)``: what a repeated call for a ticket answers.
WORLDS = {
    "same": "one ticket, a whole life told and given by each answer; replaced at its lifetime",
    "living": "the same, but never replaced while somebody asks for it within its life",
    "dying": "one ticket, a whole life told by each answer; it dies at the end told first",
    "remaining": "one ticket, told the life it has left, down to 0; replaced after its end",
    "new": "a new ticket each time; the earlier ones live to their own end",
}
#: The sets of permissions that the types of ticket need: 网页服务权限 has the JS-SDK.
PERMISSIONS = {"jsapi": 4, "wx_card": 8}
_DAY = 86400  # seconds
_AGENT_QUOTA = 100  # calls for tickets in an hour


@dataclass
class Token:
    """An access token.

    :param stable: from ``stable_token``; it and the legacy kind do not know of each other.
    :param ends_at: Unix time.
    :param errcode: what it answers from then on: 42001 by age, 40001 when superseded.
    """

    value: str = field(repr=False)
    stable: bool
    ends_at: float
    errcode: int = 42001

    def end(self, at: float, errcode: int = 40001) -> None:
        """Shorten its life; nothing prolongs it."""
        if at < self.ends_at:
            self.ends_at, self.errcode = at, errcode


@dataclass
class Ticket:
    """A ticket of any type; times are Unix times."""

    value: str = field(repr=False)
    issued_at: float
    expires_at: float


@dataclass(repr=False, eq=False)
class Account:
    """One account: its rules (see ``Sandbox``), then its state, guarded by the sandbox's lock.

    ``dataclasses.replace`` makes one with the same rules and a fresh state.
    """

    app_id: str
    app_secret: str
    ticket: str
    token_lifetime: float
    ticket_lifetime: float
    overlap: float
    ip_whitelist: Iterable[str]
    domains: Iterable[str]
    token_quota: int
    stable_token_quota: int
    ticket_quota: int

    foreign: ClassVar[frozenset[str]] = WECOM  # endpoints where its token is none
    revoked: ClassVar[int] = 40001  # errcode of a token that was killed
    expired: ClassVar[int] = 42001  # errcode of one that ended by age
    #: The quotas that a person may want to look at.
    quotas: ClassVar[tuple[str, ...]] = ("stable_token", "token", "getticket")

    #: By the value of a token whose it is. All share it: a call finds its account at once, however
    #: many there are.
    owners: dict[str, Account] = field(kw_only=True, default_factory=dict)
    #: By value. Ended ones are kept for a day, to answer 42001 rather than 40014.
    tokens: dict[str, Token] = field(init=False, default_factory=dict)
    #: By ``Token.stable``, since the two kinds are isolated.
    current: dict[bool, Token] = field(init=False, default_factory=dict)
    #: By type, oldest first.
    tickets: dict[str, list[Ticket]] = field(init=False)
    #: Calls by quota and day.
    used: collections.Counter[tuple[str, int]] = field(
        init=False, default_factory=collections.Counter
    )
    forced_at: float = field(init=False, default=-math.inf)

    def __post_init__(self) -> None:
        if self.ticket not in WORLDS:
            known = ", ".join(map(repr, WORLDS))
            raise ValueError(f"ticket is one of {known}, not {self.ticket!r}")
        if not (self.token_lifetime > 0 and self.ticket_lifetime > 0):
            raise ValueError("a token or ticket lives longer than 0 seconds")
        if isinstance(self.ip_whitelist, str) or isinstance(self.domains, str):
            raise TypeError("ip_whitelist and domains are lists of strings, not one string")
        self.ip_whitelist, self.domains = tuple(self.ip_whitelist), tuple(self.domains)
        self.networks = [ipaddress.ip_network(entry, strict=False) for entry in self.ip_whitelist]
        # If half of a short life were overlap, the same token would hardly ever come twice.
        self.margin = min(self.overlap, self.token_lifetime / 4)
        self.tickets = {"jsapi": [], "wx_card": []}

    def admits_ip(self, ip: str) -> bool:
        """Whether the whitelist lets this address ask for a token."""
        return not self.networks or any(ipaddress.ip_address(ip) in net for net in self.networks)

    def admits_page(self, url: str) -> bool:
        """Whether the page is on a JS-safe domain."""
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            host = ""
        return not self.domains or any(
            f".{host}".endswith(entry) if entry.startswith(".") else host == entry
            for entry in map(str.lower, self.domains)
        )

    def admit(self, name: str, ip: str) -> None:
        """Refuse a call of this endpoint, from this address, that its token is not good for."""
        if name in self.foreign:
            raise Refusal(40014)

    def daily_limit(self, name: str) -> int:
        """Calls that an endpoint of this name allows in a day."""
        limits = {
            "token": self.token_quota,
            "stable_token": self.stable_token_quota,
            "getticket": self.ticket_quota,
            "forced stable_token": 20,
        }
        return limits.get(name, 100_000)

    def used_today(self, name: str, now: float) -> int:
        """Calls that count against the quota of an endpoint of this name."""
        return self.used[name, _day(now)]

    def spend(self, name: str, now: float) -> None:
        """Count one call against the day's quota; a call beyond it is refused and not counted."""
        if self.used_today(name, now) >= self.daily_limit(name):
            raise Refusal(45009)
        self.used[name, _day(now)] += 1

    def quota(self, path: str, now: float) -> Payload:
        """Answer what is left of the quota of the endpoint at a path."""
        name = NAMES.get(path)
        if name is None or name in self.foreign:
            raise Refusal(76021)
        limit, used = self.daily_limit(name), self.used_today(name, now)
        quota = {"daily_limit": limit, "used": used, "remain": limit - used}
        return {"errcode": 0, "errmsg": "ok", "quota": quota}

    def stable_token(self, now: float, force: bool) -> Payload:
        """The same token until shortly before its end, or a new one by force."""
        self.spend("stable_token", now)
        current = self.current.get(True)
        if force and now - self.forced_at >= 30:  # sooner than that, WeChat does not renew
            self.spend("forced stable_token", now)
            self.forced_at = now
            # Twice in a row is how a leaked token is killed: once leaves the last one its overlap.
            for token in self.tokens.values():
                if token.stable:
                    token.end(now + self.margin if token is current else now)
            current = None
        elif current and current.ends_at - now <= self.margin:
            current = None  # not ended: it stays valid to the end of its own life
        return self._answer(current or self._issue(now, stable=True), now)

    def legacy_token(self, now: float) -> Payload:
        """A new token, whose predecessor lives on for the overlap."""
        self.spend("token", now)
        return self._answer(self._supersede(now), now)

    def _supersede(self, now: float) -> Token:
        if previous := self.current.get(False):
            previous.end(now + self.margin)
        return self._issue(now, stable=False)

    def _lasting(self, now: float) -> Token:
        current = self.current.get(True)
        if current is None or current.ends_at <= now:
            current = self._issue(now, stable=True)
        return current

    def _issue(self, now: float, *, stable: bool) -> Token:
        value = f"{secrets.randbelow(90) + 10}_{secrets.token_urlsafe(102)}"
        token = Token(value, stable, now + self.token_lifetime, self.expired)
        for known in [k for k, old in self.tokens.items() if old.ends_at <= now - _DAY]:
            del self.tokens[known], self.owners[known]
        self.tokens[value] = self.current[stable] = token
        self.owners[value] = self
        return token

    @staticmethod
    def _answer(token: Token, now: float, name: str = "access_token") -> Payload:
        return {name: token.value, "expires_in": _whole(token.ends_at - now)}

    def get_ticket(self, kind: str, now: float) -> Payload:
        """Answer a call for a ticket, as it goes in this world."""
        self.spend("getticket", now)
        # Expired ones are kept for a day, to recognise a signature that was made with one.
        tickets = self.tickets[kind]
        tickets[:] = [ticket for ticket in tickets if ticket.expires_at > now - _DAY]
        full_end = now + self.ticket_lifetime
        if not tickets or self._is_replaced(tickets[-1], now):
            tickets.append(Ticket(secrets.token_urlsafe(64), now, full_end))
        current = tickets[-1]
        if self.ticket in ("same", "living"):
            current.expires_at = full_end  # it keeps what its latest answer promised
        told = current.expires_at if self.ticket == "remaining" else full_end
        life = _whole(told - now)
        return {"errcode": 0, "errmsg": "ok", "ticket": current.value, "expires_in": life}

    def _is_replaced(self, ticket: Ticket, now: float) -> bool:
        if self.ticket == "same":
            return now >= ticket.issued_at + self.ticket_lifetime
        return self.ticket == "new" or now >= ticket.expires_at

    def replace_tickets(self, now: float) -> None:
        """Put another ticket in the place of each kind's; the ones before are good for nothing."""
        for tickets in filter(None, self.tickets.values()):
            for ticket in tickets:
                ticket.expires_at = min(ticket.expires_at, now)
            value = secrets.token_urlsafe(64)
            tickets.append(Ticket(value, now, now + self.ticket_lifetime))

    def valid_tickets(self, kind: str, now: float) -> list[Ticket]:
        """The tickets a page may be signed with, oldest first."""
        return [ticket for ticket in self.tickets[kind] if ticket.expires_at > now]

    def signers(self, kind: str, now: float) -> tuple[list[str], dict[str, str]]:
        """The tickets a page may be signed with, and by label what signed one by mistake."""
        valid = [ticket.value for ticket in self.valid_tickets(kind, now)]
        known = [ticket.value for ticket in self.tickets[kind]]
        expired = [value for value in known if value not in valid]
        others = {
            label(f"an expired one ({n})", f"已过期的第 {n} 个"): value
            for n, value in enumerate(expired[:-6:-1], 1)
        }
        others |= {name: kept[-1].value for name, kept in self.mistakable().items() if kept}
        if token := self.current.get(True) or self.current.get(False):
            others["access_token"] = token.value
        return valid[:-4:-1] or ["none"] * bool(known), others

    def mistakable(self) -> dict[str, list[Ticket]]:
        """By label the tickets that stand beside the right ones."""
        return {label("the one for cards (wx_card)", "卡券的 wx_card"): self.tickets["wx_card"]}

    def revoke(self, now: float, errcode: int | None = None) -> None:
        """Kill all its tokens.

        :param errcode: what they answer from then on; None for the one of a token that was killed.
        """
        for token in self.tokens.values():
            token.end(now, self.revoked if errcode is None else errcode)


@dataclass(repr=False, eq=False)
class ThirdParty(Account):
    """Who acts for those that let it; its own token is good for asking for theirs and no more."""

    push_lifetime: ClassVar[float]  # seconds
    quotas = ()

    #: The tickets that were pushed to it, and their ends in Unix time.
    pushed: dict[str, float] = field(init=False, default_factory=dict)

    def push(self, now: float) -> str:
        """The next of the tickets that it has to show for a token."""
        value = f"ticket@@@{secrets.token_urlsafe(64)}"
        self.pushed = {known: end for known, end in self.pushed.items() if end > now - _DAY}
        self.pushed[value] = now + self.push_lifetime
        return value


@dataclass(repr=False, eq=False)
class Component(ThirdParty):
    """A third-party platform (第三方平台), which accounts authorise.

    Whether a call for its token repeats the one before is not known: here it brings another, and
    the one before lives on for the overlap.
    """

    push_lifetime = 12 * 3600

    def admit(self, name: str, ip: str) -> None:
        raise Refusal(48001)

    def token(self, pushed: object, now: float) -> Payload:
        """Its own token, for a ticket that was pushed to it."""
        end = self.pushed.get(str(pushed))
        if end is None or end <= now:
            raise Refusal(61006 if end is None else 61005)
        self.spend("api_component_token", now)
        return self._answer(self._supersede(now), now, "component_access_token")


@dataclass(repr=False, eq=False)
class Suite(ThirdParty):
    """An application of a WeCom provider (服务商), which corps install."""

    push_lifetime = 1800
    revoked = 40082
    expired = 42009

    def admit(self, name: str, ip: str) -> None:
        raise Refusal(40014)

    def token(self, pushed: object, now: float) -> Payload:
        """Its own token, for a ticket that was pushed to it: the same one to its end."""
        if self.pushed.get(str(pushed), 0) <= now:
            raise Refusal(40085)
        self.spend("get_suite_token", now)
        answer = self._answer(self._lasting(now), now, "suite_access_token")
        return {"errcode": 0, "errmsg": "ok", **answer}


@dataclass(repr=False, eq=False)
class Authorisation(Account):
    """An account in the hands of a component: the account's tickets and quotas, the component's
    whitelist and domains, and a token of its own.

    The whitelist counts for each call. Whether the quotas are really shared, and how long a token
    outlives the next, is not known: they are here, and it does for the overlap.
    """

    account: Account
    refresh_token: str
    permissions: frozenset[int]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.tickets, self.used = self.account.tickets, self.account.used

    def admit(self, name: str, ip: str) -> None:
        super().admit(name, ip)
        if not self.admits_ip(ip):
            raise Refusal(61004)

    def token(self, refresh_token: object, now: float) -> Payload:
        """The account's token in the component's hands, for the refresh token, which stays."""
        if refresh_token != self.refresh_token:
            raise Refusal(61023)
        self.spend("api_authorizer_token", now)
        answer = self._answer(self._supersede(now), now, "authorizer_access_token")
        return {**answer, "authorizer_refresh_token": self.refresh_token}

    def get_ticket(self, kind: str, now: float) -> Payload:
        if PERMISSIONS[kind] not in self.permissions:
            raise Refusal(61007)
        return super().get_ticket(kind, now)


@dataclass(repr=False)
class Corp:
    """A WeCom corp: its agents, and what they share."""

    agents: list[Agent] = field(default_factory=list)
    tickets: list[Ticket] = field(default_factory=list)
    used: collections.Counter[int] = field(default_factory=collections.Counter)  # by hour

    def afresh(self) -> Corp:
        """The same agents, with nothing issued and nothing counted."""
        fresh = Corp()
        fresh.agents = [replace(agent, corp=fresh) for agent in self.agents]
        return fresh


@dataclass(repr=False, eq=False)
class Agent(Account):
    """One application of a corp; ``app_id`` is the corp's, ``app_secret`` its own.

    :param suite_id: the provider's application that it is, whose permanent code ``app_secret`` is.
    """

    agent_id: str
    corp: Corp
    suite_id: str = ""

    foreign = OFFIACCOUNT
    quotas = ("getticket",)
    revoked = 40014  # 40001 is WeCom's word for a wrong secret

    def __post_init__(self) -> None:
        super().__post_init__()
        self.tickets = {"jsapi": self.corp.tickets, "agent_config": []}

    def spend(self, name: str, now: float) -> None:
        """As ever, but tickets of both kinds: 100 an hour for an agent, 400 for its corp."""
        if name != "getticket":
            super().spend(name, now)
            return
        hour = int(now // 3600)
        if self.used[name, hour] >= _AGENT_QUOTA or self.corp.used[hour] >= 400:
            raise Refusal(45009)
        self.used[name, hour] += 1
        self.corp.used[hour] += 1

    def daily_limit(self, name: str) -> int:
        return _AGENT_QUOTA if name == "getticket" else super().daily_limit(name)

    def used_today(self, name: str, now: float) -> int:
        """Of tickets those of this hour, which is what counts."""
        if name == "getticket":
            return self.used[name, int(now // 3600)]
        return super().used_today(name, now)

    def token(self, now: float) -> Payload:
        """The same one to the very end of its life: nothing is known of a renewal before that."""
        self.spend("gettoken", now)
        return {"errcode": 0, "errmsg": "ok", **self._answer(self._lasting(now), now)}

    def mistakable(self) -> dict[str, list[Ticket]]:
        found = {label("the one of the corp", "企业的"): self.corp.tickets}
        for agent in self.corp.agents:
            name = label(f"the one of agent {agent.agent_id}", f"应用 {agent.agent_id} 的")
            found[name] = agent.tickets["agent_config"]
        return found


def label(english: str, chinese: str) -> str:
    """What a ticket is, for a text in either language: :func:`.cause.find` takes the one."""
    return f"⟦{english}|{chinese}⟧"


def _day(now: float) -> int:
    return int((now + 8 * 3600) // _DAY)  # a day in Asia/Shanghai, which knows no summer time


def _whole(seconds: float) -> int:
    """Seconds as WeChat says them: truncated, and so 0 in the last one."""
    return int(seconds + 1e-6)  # a sum of times has lost its last digits
