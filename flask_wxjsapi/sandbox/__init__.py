"""A WeChat to develop and test against: the API, its faults, and a phone that judges signatures.

In a test::

    with Sandbox(token_lifetime=60).serve() as sandbox:
        sandbox.fail("45009", times=3, path="getticket")
        ...                                   # let the code under test talk to sandbox.url
        assert sandbox.calls["getticket"] == 4

In a terminal, for a demo page or a program in another language::

    python -m flask_wxjsapi.sandbox --ttl 60
    curl -d '{"fault": "hang"}' http://127.0.0.1:8900/sandbox/fail

In a page, before the tag that loads jweixin, to have it run in an ordinary browser as it does in
WeChat::

    <script src="http://127.0.0.1:8900/sandbox/bridge.js"></script>

It is WeCom (企业微信) as well, for the applications that :meth:`Sandbox.add_agent` names; its phone
is ``bridge.js?phone=wecom``.

Where the documentation and the reports of users disagree, an option chooses; where nothing is
known, the sandbox plays the world that is harder on its caller. Of the package it imports only the
diagnosis, which computes for itself: a mistake in the signature must not be able to agree with
itself.
"""
# ruff: noqa: RUF001 - Chinese has a punctuation of its own

from __future__ import annotations

import argparse
import collections
import hashlib
import html
import ipaddress
import json
import math
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self
from urllib.parse import urlsplit

from werkzeug import Request, Response
from werkzeug.exceptions import HTTPException
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from .._tools.diagnosis import diagnose

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["Call", "Sandbox", "embedded", "main"]

_ENDPOINTS = {  # path: (the name in Sandbox.calls, the one HTTP method it takes)
    "/cgi-bin/stable_token": ("stable_token", "POST"),
    "/cgi-bin/token": ("token", "GET"),
    "/cgi-bin/ticket/getticket": ("getticket", "GET"),
    "/cgi-bin/get_api_domain_ip": ("get_api_domain_ip", "GET"),
    "/cgi-bin/getcallbackip": ("getcallbackip", "GET"),
    "/cgi-bin/openapi/quota/get": ("quota/get", "POST"),
    "/cgi-bin/gettoken": ("gettoken", "GET"),
    "/cgi-bin/get_jsapi_ticket": ("get_jsapi_ticket", "GET"),
    "/cgi-bin/ticket/get": ("ticket/get", "GET"),
}
_NAMES = {path: name for path, (name, _) in _ENDPOINTS.items()}
_OFFIACCOUNT = frozenset(("stable_token", "token", "getticket", "quota/get"))  # not WeCom's
_WECOM = frozenset(("gettoken", "get_jsapi_ticket", "ticket/get"))  # nobody else's
_TYPES = {"getticket": ("jsapi", "wx_card"), "ticket/get": ("agent_config",)}

_ERRMSG = {
    -1: "system error",
    0: "ok",
    40001: "invalid credential, access_token is invalid or not latest",
    40002: "invalid grant_type",
    40013: "invalid appid",
    40014: "invalid access_token",
    40066: "invalid url",
    40097: "invalid args",
    40125: "invalid appsecret",
    40164: "invalid ip {ip} ipv6 {ipv6}, not in whitelist",
    40243: "AppSecret is frozen",
    41001: "access_token missing",
    41002: "appid missing",
    41004: "appsecret missing",
    42001: "access_token expired",
    43001: "require GET method",
    43002: "require POST method",
    44002: "empty post data",
    45009: "reach max api daily quota limit",
    45011: "api minute-quota reach limit, must slower, retry next minute",
    47001: "data format error",
    48001: "api unauthorized",
    48004: "api forbidden for irregularities",
    50002: "user limited",
    60020: "not allow to access from your ip, from ip: {ip}",
    76021: "cgi_path not found, please check",
    89503: "this ip needs the administrator's confirmation: {ip}",
    89506: "the administrator refused this ip twice, retry after 24 hours: {ip}",
    89507: "the administrator refused this ip, retry after 1 hour: {ip}",
}
_WECOM_ERRMSG = {
    **_ERRMSG,
    40001: "invalid credential",
    40013: "invalid corpid",
    41002: "corpid missing",
    41004: "corpsecret missing",
    45009: "api freq out of limit",
    60020: "not allow to access from your ip",
}

_FAULT_NAMES = (  # "errcode" and "http" stand for numbers, see _parse_fault
    "garbage", "html", "empty", "nulls", "list", "no-expires", "hang", "drip", "drip-headers",
    "close", "half", "slow", "redirect",
)  # fmt: skip
_FAULT_HELP = (
    "an errcode such as '-1' or '45009'; '500', '502', '503', '404' or 'http STATUS'; "
    + ", ".join(map(repr, _FAULT_NAMES))
    + "; 'expires:JSON', 'ticket:JSON', 'slow:SECONDS'"
)

_ACCOUNT = ("wx0000000000000000", "sandbox-secret-0000000000000000")  # unless told otherwise
#: The same by name: the account of an application that names no other.
APP_ID, APP_SECRET = _ACCOUNT
_JSON = "application/json; encoding=utf-8"  # sic: WeChat does not say charset
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": "Content-Type",
}
_DIAGNOSED = {  # field of the form: its label in English and in Chinese
    "url": ("Address of the page, location.href", "页面网址"),
    "nonceStr": ("nonceStr", "随机串"),
    "timestamp": ("timestamp", "时间戳"),
    "signature": ("signature", "签名"),
    "appId": ("appId (of a real account, or to choose one of several)", "可不填"),
    "agentid": ("agentid (where wx.agentConfig got the signature)", "仅用于 agentConfig"),
    "ticket": ("jsapi_ticket (if another than this sandbox’s may have signed)", "可不填"),
}
_PHONES = ("wechat", "wecom")
_DAY = 86400  # seconds
_LONGEST_WAIT = 60.0  # seconds; a forgotten fault must not hold a thread for ever
_DRIP_INTERVAL = 0.2  # seconds
_HISTORY_LIMIT = 10_000  # a sandbox may run for weeks


@dataclass(frozen=True)
class Call:
    """One API call in :attr:`Sandbox.history`.

    :param time: when it arrived, in Unix time by the sandbox's clock.
    :param name: the endpoint as in :attr:`Sandbox.calls`.
    :param outcome: the errcode answered (0 is success), or the name of the fault that was played.
    """

    time: float
    name: str
    outcome: int | str


@dataclass
class _Token:
    value: str = field(repr=False)
    stable: bool
    ends_at: float
    errcode: int = 42001  # what it answers from then on: 42001 by age, 40001 when superseded

    def end(self, at: float, errcode: int = 40001) -> None:
        if at < self.ends_at:
            self.ends_at, self.errcode = at, errcode


@dataclass
class _Ticket:
    value: str = field(repr=False)
    issued_at: float
    expires_at: float


@dataclass
class _Fault:
    name: str
    value: Any
    times: int | None
    path: str | None

    @property
    def outcome(self) -> int | str:
        """What the history shows; never a value, which may be somebody's ticket."""
        if self.name == "errcode":
            return int(self.value)
        return f"http {self.value}" if self.name == "http" else self.name


class _Refusal(Exception):
    def __init__(self, errcode: int) -> None:
        self.errcode = errcode


@dataclass(repr=False)
class _Account:
    """One account: its rules (see :class:`Sandbox`), then its state, guarded by the sandbox's lock.

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

    foreign: ClassVar[frozenset[str]] = _WECOM  # endpoints where its token is none
    revoked: ClassVar[int] = 40001  # errcode of a token that was killed

    #: By value. Ended ones are kept for a day, to answer 42001 rather than 40014.
    tokens: dict[str, _Token] = field(init=False, default_factory=dict)
    #: By ``_Token.stable``, since the two kinds are isolated.
    current: dict[bool, _Token] = field(init=False, default_factory=dict)
    #: By type, oldest first.
    tickets: dict[str, list[_Ticket]] = field(init=False)
    #: Calls by quota and day.
    used: collections.Counter[tuple[str, int]] = field(
        init=False, default_factory=collections.Counter
    )
    forced_at: float = field(init=False, default=-math.inf)

    def __post_init__(self) -> None:
        if self.ticket not in ("same", "remaining", "new"):
            raise ValueError(f"ticket is 'same', 'remaining' or 'new', not {self.ticket!r}")
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
        return not self.networks or any(ipaddress.ip_address(ip) in net for net in self.networks)

    def admits_page(self, url: str) -> bool:
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            host = ""
        return not self.domains or any(
            f".{host}".endswith(entry) if entry.startswith(".") else host == entry
            for entry in map(str.lower, self.domains)
        )

    def daily_limit(self, name: str) -> int:
        limits = {
            "token": self.token_quota,
            "stable_token": self.stable_token_quota,
            "getticket": self.ticket_quota,
            "forced stable_token": 20,
        }
        return limits.get(name, 100_000)

    def spend(self, name: str, now: float) -> None:
        """Count one call against the day's quota; a call beyond it is refused and not counted."""
        if self.used[name, _day(now)] >= self.daily_limit(name):
            raise _Refusal(45009)
        self.used[name, _day(now)] += 1

    def quota(self, path: str, now: float) -> dict[str, Any]:
        name = _NAMES.get(path)
        if name is None or name in self.foreign:
            raise _Refusal(76021)
        limit, used = self.daily_limit(name), self.used[name, _day(now)]
        quota = {"daily_limit": limit, "used": used, "remain": limit - used}
        return {"errcode": 0, "errmsg": "ok", "quota": quota}

    def stable_token(self, now: float, force: bool) -> dict[str, Any]:
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

    def legacy_token(self, now: float) -> dict[str, Any]:
        self.spend("token", now)
        if previous := self.current.get(False):
            previous.end(now + self.margin)
        return self._answer(self._issue(now, stable=False), now)

    def _issue(self, now: float, *, stable: bool) -> _Token:
        value = f"{secrets.randbelow(90) + 10}_{secrets.token_urlsafe(102)}"
        token = _Token(value, stable, now + self.token_lifetime)
        self.tokens = {k: old for k, old in self.tokens.items() if old.ends_at > now - _DAY}
        self.tokens[value] = self.current[stable] = token
        return token

    @staticmethod
    def _answer(token: _Token, now: float) -> dict[str, Any]:
        return {"access_token": token.value, "expires_in": _whole(token.ends_at - now)}

    def get_ticket(self, kind: str, now: float) -> dict[str, Any]:
        self.spend("getticket", now)
        # Expired ones are kept for a day, to recognise a signature that was made with one.
        tickets = self.tickets[kind]
        tickets[:] = [ticket for ticket in tickets if ticket.expires_at > now - _DAY]
        end = now + self.ticket_lifetime
        fresh = bool(tickets) and now - tickets[-1].issued_at < self.ticket_lifetime
        if self.ticket == "new" or not fresh:
            tickets.append(_Ticket(secrets.token_urlsafe(64), now, end))
        current = tickets[-1]
        if self.ticket == "same":
            current.expires_at = end  # it keeps what its latest answer promised
        life = _whole(current.expires_at - now)
        return {"errcode": 0, "errmsg": "ok", "ticket": current.value, "expires_in": life}

    def valid_tickets(self, kind: str, now: float) -> list[_Ticket]:
        return [ticket for ticket in self.tickets[kind] if ticket.expires_at > now]

    def signers(self, kind: str, now: float) -> tuple[list[str], dict[str, str]]:
        """The tickets a page may be signed with, and by label what signed one by mistake."""
        valid = [ticket.value for ticket in self.valid_tickets(kind, now)]
        known = [ticket.value for ticket in self.tickets[kind]]
        expired = [value for value in known if value not in valid]
        others = {f"expired 已过期 ({n})": value for n, value in enumerate(expired[:-6:-1], 1)}
        others |= {label: kept[-1].value for label, kept in self.mistakable().items() if kept}
        if token := self.current.get(True) or self.current.get(False):
            others["access_token"] = token.value
        return valid[:-4:-1] or ["none"] * bool(known), others

    def mistakable(self) -> dict[str, list[_Ticket]]:
        """By label the tickets that stand beside the right ones."""
        return {"the one for cards 卡券的 (wx_card)": self.tickets["wx_card"]}

    def revoke(self, now: float) -> None:
        for token in self.tokens.values():
            token.end(now, self.revoked)


@dataclass(repr=False)
class _Corp:
    """A WeCom corp: its agents, and what they share."""

    agents: list[_Agent] = field(default_factory=list)
    tickets: list[_Ticket] = field(default_factory=list)
    used: collections.Counter[int] = field(default_factory=collections.Counter)  # by hour

    def afresh(self) -> _Corp:
        fresh = _Corp()
        fresh.agents = [replace(agent, corp=fresh) for agent in self.agents]
        return fresh


@dataclass(repr=False)
class _Agent(_Account):
    """One application of a corp; ``app_id`` is the corp's, ``app_secret`` its own."""

    agent_id: str
    corp: _Corp

    foreign = _OFFIACCOUNT
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
        if self.used[name, hour] >= 100 or self.corp.used[hour] >= 400:
            raise _Refusal(45009)
        self.used[name, hour] += 1
        self.corp.used[hour] += 1

    def token(self, now: float) -> dict[str, Any]:
        """The same one to the very end of its life: nothing is known of a renewal before that."""
        self.spend("gettoken", now)
        current = self.current.get(True)
        if current is None or current.ends_at <= now:
            current = self._issue(now, stable=True)
        return {"errcode": 0, "errmsg": "ok", **self._answer(current, now)}

    def mistakable(self) -> dict[str, list[_Ticket]]:
        found = {"the one of the corp 企业的": self.corp.tickets}
        for agent in self.corp.agents:
            found[f"the one of agent {agent.agent_id} 应用的"] = agent.tickets["agent_config"]
        return found


class Sandbox:
    """WeChat as a WSGI application, with :meth:`serve` to put it on a port.

    :param app_id: the first account's; :meth:`add_account` adds others and :meth:`add_agent`
        those of WeCom.
    :param app_secret: its secret.
    :param ticket: which of the reported worlds to be. ``"same"``: one ticket until it is as old as
        its lifetime, and every answer promises (and gives) it a full lifetime more;
        ``"remaining"``: one ticket until it expires, with the life it has left; ``"new"``: a new
        ticket on every call, the earlier ones valid to their own end.
    :param token_lifetime: life of an access token in seconds.
    :param ticket_lifetime: life of a ticket in seconds.
    :param overlap: seconds a superseded token stays valid, and how long before the end
        ``stable_token`` renews; never more than a quarter of ``token_lifetime``.
    :param delay: seconds between an API call's arrival and its answer.
    :param ip_whitelist: addresses and networks that may ask for a token; empty admits everybody.
    :param domains: hosts whose pages the phone accepts, ``.example.com`` for a host and those below
        it; empty admits every page.
    :param token_quota: calls a day, as are the next two; the day begins at 00:00 Asia/Shanghai.
    :param clock: the time in seconds since the epoch.
    """

    def __init__(
        self,
        app_id: str = _ACCOUNT[0],
        app_secret: str = _ACCOUNT[1],
        *,
        ticket: str = "same",
        token_lifetime: float = 7200,
        ticket_lifetime: float = 7200,
        overlap: float = 300,
        delay: float = 0.0,
        ip_whitelist: Iterable[str] = (),
        domains: Iterable[str] = (),
        token_quota: int = 2000,
        stable_token_quota: int = 500_000,
        ticket_quota: int = 10_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.app_id, self.app_secret, self.delay = app_id, app_secret, delay
        #: Requests that arrived, failed ones included, by short name (``"other"`` if unknown).
        self.calls: collections.Counter[str] = collections.Counter()
        #: The latest calls, oldest first.
        self.history: list[Call] = []
        #: ``http://host:port`` while served, otherwise empty.
        self.url = ""
        self._clock = clock
        first = _Account(
            app_id, app_secret, ticket, token_lifetime, ticket_lifetime, overlap, ip_whitelist,
            domains, token_quota, stable_token_quota, ticket_quota,
        )  # fmt: skip
        self._accounts = {app_id: first}
        self._corps: dict[str, _Corp] = {}
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()  # never held while waiting or talking to a caller
        self._release = threading.Event()  # set when those who wait now are to go on
        self._server: BaseWSGIServer | None = None
        self._server_pid = 0

    def __repr__(self) -> str:
        return f"<Sandbox {self.app_id} {self.url or 'not served'}>"

    def add_account(self, app_id: str, app_secret: str, **rules: Any) -> None:
        """Add an account with tokens, tickets and quotas of its own; twice is as good as once.

        :param rules: what differs from the first account: any keyword of :class:`Sandbox` but
            ``delay`` and ``clock``.
        :raises ValueError: if there is one of this AppID with another secret or other rules.
        """
        with self._lock:
            known = self._accounts.get(app_id)
            if known is not None:
                if known.app_secret == app_secret and not rules:
                    return
                raise ValueError(f"there is an account {app_id!r} with other settings already")
            first = self._accounts[self.app_id]
            self._accounts[app_id] = replace(first, app_id=app_id, app_secret=app_secret, **rules)

    def add_agent(self, corp_id: str, secret: str, agent_id: str = "", **rules: Any) -> None:
        """Add an application of a WeCom corp (企业微信); twice is as good as once.

        A corp has as many as are added. Each has a token and an ``agent_config`` ticket of its own;
        the ticket for ``wx.config`` is the corp's, and so the same for all of them.

        :param agent_id: what ``wx.agentConfig`` calls ``agentid``; it refuses an agent without.
        :param rules: what differs from the first account: any keyword of :class:`Sandbox` but
            ``delay``, ``clock`` and the quotas. WeCom's own are 100 ticket calls an hour for an
            agent and 400 for its corp.
        :raises ValueError: if the corp has an agent of this id with another secret, one of this
            secret with another id, or this very one and there are rules.
        """
        with self._lock:
            corp = self._corps.get(corp_id, _Corp())
            for known in corp.agents:
                same_secret, same_id = known.app_secret == secret, known.agent_id == agent_id
                if same_secret and same_id and not rules:
                    return
                if same_secret or (same_id and agent_id):
                    raise ValueError(f"{corp_id!r} has another agent {known.agent_id!r} already")
            first = self._accounts[self.app_id]
            inherited = {f.name: getattr(first, f.name) for f in fields(_Account) if f.init}
            named = {"app_id": corp_id, "app_secret": secret, "agent_id": agent_id, "corp": corp}
            corp.agents.append(_Agent(**{**inherited, **rules, **named}))
            self._corps[corp_id] = corp

    def _agents(self) -> list[_Agent]:
        return [agent for corp in self._corps.values() for agent in corp.agents]

    def _everybody(self) -> list[_Account]:
        return [*self._accounts.values(), *self._agents()]

    def fail(self, fault: str | int, *, times: int | None = 1, path: str | None = None) -> None:
        """Queue a fault; each call plays the first one in the queue that is meant for it.

        :param fault: an errcode, an HTTP status or a name, e.g. ``-1``, ``"502"``, ``"hang"``,
            ``"expires:null"``, ``"slow:2.5"``. ``"close"`` and ``"drip-headers"`` need a server of
            Werkzeug's, as :meth:`serve` starts; elsewhere they raise a ConnectionError.
        :param times: for how many calls; None for all until :meth:`heal`.
        :param path: only for this endpoint, as a path or by its name in :attr:`calls`.
        :raises ValueError: with the list of names if there is no such fault.
        """
        name, value = _parse_fault(str(fault))
        if times is not None and (type(times) is not int or times < 1):
            raise ValueError(f"times is a positive number or None, not {times!r}")
        if path is not None:
            path = _NAMES.get(str(path), str(path))
            if path not in _NAMES.values():
                raise ValueError(f"path is one of {', '.join(_NAMES.values())}, not {path!r}")
        with self._lock:
            self._faults.append(_Fault(name, value, times, path))

    def heal(self) -> None:
        """Forget the queued faults; calls that wait are answered now."""
        with self._lock:
            self._faults.clear()
            self._release_all()

    def revoke_token(self) -> None:
        """Kill all access tokens, as a service that asks for tokens of its own does.

        They answer 40001 from then on, and WeCom's 40014.
        """
        with self._lock:
            for account in self._everybody():
                account.revoke(self._clock())

    def reset(self) -> None:
        """Forget everything but the accounts and their rules."""
        with self._lock:
            self._faults.clear()
            self._release_all()
            self.calls.clear()
            self.history.clear()
            self._accounts = {key: replace(old) for key, old in self._accounts.items()}
            self._corps = {key: old.afresh() for key, old in self._corps.items()}

    def _release_all(self) -> None:
        self._release.set()
        self._release = threading.Event()  # those who come later wait for the next time

    def verify(
        self, *, appId: str, nonceStr: str, timestamp: int | str, signature: str, url: str
    ) -> str:
        """Judge a signature as the phone does inside ``wx.config``.

        :param appId: an account's, or the id of a WeCom corp.
        :param url: the page's address as the browser has it; what follows a ``#`` is not signed.
        :returns: the ``errMsg``: ``"config:ok"``, ``"config:invalid signature"``,
            ``"config:invalid url domain"``, or ``"config:fail"`` for an account it does not know.
        """
        with self._lock:
            accounts = [account for account in self._everybody() if account.app_id == appId]
            verdict = self._judge(accounts, "jsapi", nonceStr, timestamp, signature, url)
        return f"config:{verdict}"

    def verify_agent(
        self, *, corpid: str, agentid: int | str, nonceStr: str, timestamp: int | str,
        signature: str, url: str,
    ) -> str:  # fmt: skip
        """Judge a signature as the phone of WeCom does inside ``wx.agentConfig``.

        :param url: the page's address as the browser has it.
        :returns: the ``errMsg``, as :meth:`verify` with ``agentConfig`` in place of ``config``.
        """
        with self._lock:
            wanted = (corpid, str(agentid))
            agents = [a for a in self._agents() if a.agent_id and (a.app_id, a.agent_id) == wanted]
            verdict = self._judge(agents, "agent_config", nonceStr, timestamp, signature, url)
        return f"agentConfig:{verdict}"

    def _judge(
        self, accounts: Sequence[_Account], kind: str,
        nonce: str, timestamp: int | str, signature: str, url: str,
    ) -> str:  # fmt: skip
        page = url.partition("#")[0]
        admitting = [account for account in accounts if account.admits_page(page)]
        if not admitting:
            return "invalid url domain" if accounts else "fail"
        for account in admitting:
            for ticket in account.valid_tickets(kind, self._clock()):
                signed = f"jsapi_ticket={ticket.value}&noncestr={nonce}&timestamp={timestamp}"
                data = f"{signed}&url={page}".encode("utf-8", "replace")
                if hashlib.sha1(data, usedforsecurity=False).hexdigest() == signature:
                    return "ok"
        return "invalid signature"

    def bridge_script(self, phone: str = "wechat") -> str:
        """The JavaScript that makes an ordinary browser this sandbox's phone.

        It gives a page a ``WeixinJSBridge`` and a user agent for which jweixin acts, and shows the
        verdict on ``wx.config`` and the card a share would make. It runs before jweixin: from
        ``/sandbox/bridge.js``, or as its text in front of another script's.

        :param phone: ``"wecom"`` for one with WeCom, as ``/sandbox/bridge.js?phone=wecom`` is.
        :raises RuntimeError: if the sandbox is not served.
        :raises ValueError: for another phone.
        """
        if not self.url:
            raise RuntimeError("call serve() first: the script has to know where the sandbox is")
        return _bridge(self.url, phone)

    # -- on a port

    def serve(self, host: str = "127.0.0.1", port: int = 0) -> Self:
        """Listen in a daemon thread and set :attr:`url`; nothing happens if it listens already.

        :param port: 0 for any free one.
        :raises OSError: if the port is taken.
        """
        with self._lock:
            if self._server is None:
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                # Werkzeug exits the process when a port is taken; a socket of our own raises.
                with socket.create_server((host, port), family=family) as listener:
                    port = listener.getsockname()[1]
                    self._server = make_server(
                        host, port, self, threaded=True,
                        request_handler=_QuietHandler, fd=listener.fileno(),
                    )  # fmt: skip
                self._server_pid = os.getpid()
                shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - shown only
                self.url = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
                threading.Thread(
                    # The interval is how long close() takes at most.
                    target=self._server.serve_forever, kwargs={"poll_interval": 0.05},
                    name="wxjsapi-sandbox", daemon=True,
                ).start()  # fmt: skip
        return self

    def close(self) -> None:
        """Stop listening; calls that wait are let go and nobody waits for them."""
        with self._lock:
            server, self._server, self.url = self._server, None, ""
            self._release_all()
        if server is not None:
            if self._server_pid == os.getpid():  # a forked child has the socket, not the thread
                server.shutdown()
            server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        request.max_content_length = 1_000_000
        control = request.path == "/sandbox" or request.path.startswith("/sandbox/")
        try:
            response = self._control(request) if control else self._api(request)
        except HTTPException as error:  # a body that is too long or breaks off
            return error(environ, start_response)
        return response(environ, start_response)

    # -- the API

    def _api(self, request: Request) -> Response:
        request.get_data()  # a slow caller must not be waited for under the lock
        name = _NAMES.get(request.path, "other")
        with self._lock:
            now = self._clock()
            self.calls[name] += 1
            fault, release = self._next_fault(name), self._release
            # Before any waiting: a caller who gives up has made the call all the same.
            response, outcome = self._answer(request, name, fault, now)
            self.history.append(Call(now, name, outcome))
            del self.history[:-_HISTORY_LIMIT]
        pause = self.delay
        if fault and fault.name in ("slow", "hang"):
            pause += fault.value
        if pause:
            release.wait(pause)
        return _deliver(response, fault, release, request.environ)

    def _next_fault(self, name: str) -> _Fault | None:
        for fault in self._faults:
            if fault.path in (None, name):
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times == 0:
                        self._faults.remove(fault)
                return fault
        return None

    def _answer(
        self, request: Request, name: str, fault: _Fault | None, now: float
    ) -> tuple[Response, int | str]:
        if fault and (response := _stand_in(fault)):
            return response, fault.outcome
        ip = request.remote_addr or "127.0.0.1"
        try:
            if fault and fault.name == "errcode":
                raise _Refusal(fault.value)
            payload = self._handle(request, name, ip, now)
        except _Refusal as refusal:
            errors = _wecom_error if name in _WECOM else _error
            payload = errors(refusal.errcode, ip, now)
        if fault:
            _spoil(fault, payload)
        # WeChat answers with either type and no rule is known, so callers get to see both.
        content_type = "text/plain" if name == "getticket" else _JSON
        response = _json_response(payload, content_type=content_type)
        return response, fault.outcome if fault else payload.get("errcode", 0)

    def _handle(self, request: Request, name: str, ip: str, now: float) -> dict[str, Any]:
        if name == "other":
            raise _Refusal(40066)
        method = _ENDPOINTS[request.path][1]
        if request.method != method:
            raise _Refusal(43001 if method == "GET" else 43002)
        if name == "stable_token":
            body = _body(request)
            account = self._account_by_secret(body, ip)
            force = body.get("force_refresh", False)
            if not isinstance(force, bool):
                raise _Refusal(47001)
            return account.stable_token(now, force)
        if name == "token":
            return self._account_by_secret(request.args, ip).legacy_token(now)
        if name == "gettoken":
            return self._agent_by_secret(request.args, ip).token(now)
        account = self._account_by_token(request.args.get("access_token"), now)
        if name in account.foreign:
            raise _Refusal(40014)
        if name == "get_jsapi_ticket":
            return account.get_ticket("jsapi", now)
        if name in _TYPES:
            kind = request.args.get("type", "")
            if kind not in _TYPES[name]:
                raise _Refusal(40097)
            return account.get_ticket(kind, now)
        account.spend(name, now)
        if name == "quota/get":
            return account.quota(str(_body(request).get("cgi_path")), now)
        success = {"errcode": 0, "errmsg": "ok"} if isinstance(account, _Agent) else {}
        # Of RFC 5737: nobody's.
        return {**success, "ip_list": ["192.0.2.1", "192.0.2.2", "198.51.100.1"]}

    def _account_by_secret(self, fields: Mapping[str, Any], ip: str) -> _Account:
        app_id, secret = fields.get("appid"), fields.get("secret")
        if fields.get("grant_type") != "client_credential":
            raise _Refusal(40002)
        if not app_id:
            raise _Refusal(41002)
        account = self._accounts.get(str(app_id))
        if account is None:
            raise _Refusal(40013)
        if not secret:
            raise _Refusal(41004)
        if secret != account.app_secret:
            raise _Refusal(40125)
        if not account.admits_ip(ip):
            raise _Refusal(40164)
        return account

    def _agent_by_secret(self, fields: Mapping[str, Any], ip: str) -> _Agent:
        corp_id, secret = fields.get("corpid"), fields.get("corpsecret")
        if not corp_id:
            raise _Refusal(41002)
        corp = self._corps.get(corp_id)
        if corp is None:
            raise _Refusal(40013)
        if not secret:
            raise _Refusal(41004)
        for agent in corp.agents:
            if agent.app_secret == secret:
                if not agent.admits_ip(ip):
                    raise _Refusal(60020)
                return agent
        raise _Refusal(40001)

    def _account_by_token(self, value: str | None, now: float) -> _Account:
        if not value:
            raise _Refusal(41001)
        for account in self._everybody():
            if token := account.tokens.get(value):
                if now >= token.ends_at:
                    raise _Refusal(token.errcode)
                return account
        raise _Refusal(40014)

    # -- the control face

    def _control(self, request: Request) -> Response:
        try:
            response = self._command(request)
        except ValueError as error:
            response = _json_response({"error": str(error)}, status=400)
        response.headers.update(_CORS)
        return response

    def _command(self, request: Request) -> Response:
        match request.method, request.path.removeprefix("/sandbox").strip("/"):
            case "OPTIONS", _:
                return Response(status=204)
            case "POST", "fail":
                body = _json_object(request.get_data())
                if "fault" not in body or body.keys() - {"fault", "times", "path"}:
                    raise ValueError("the body has 'fault' and perhaps 'times' and 'path'")
                self.fail(body["fault"], times=body.get("times", 1), path=body.get("path"))
            case "POST", "heal":
                self.heal()
            case "POST", "revoke":
                self.revoke_token()
            case "GET", "calls":
                return _json_response(dict(self.calls))
            case "GET" | "POST", "verify":
                return _json_response({"errMsg": self._verify_request(request)})
            case "GET", "bridge.js":
                return _bridge_response(request)
            case "GET", "":
                return self._page(request, request.args)
            case "POST", "diagnose":
                return self._diagnose_request(request)
            case method, command:
                return _json_response({"error": f"there is no {method} {command!r}"}, status=404)
        return _json_response({"ok": True})

    def _verify_request(self, request: Request) -> str:
        data = request.get_data()
        fields = _json_object(data) if data else request.args
        of_agent = "corpid" in fields
        who = ("corpid", "agentid") if of_agent else ("appId",)
        keys = (*who, "nonceStr", "timestamp", "signature", "url")
        if missing := [key for key in keys if fields.get(key) is None]:
            raise ValueError(f"missing: {', '.join(missing)}")
        judge = self.verify_agent if of_agent else self.verify
        return judge(**{key: str(fields[key]) for key in keys})

    def _diagnose(self, fields: Mapping[str, Any]) -> dict[str, str | None]:
        """Why a page's signature is refused; no ticket and no token is in the answer.

        :param fields: those of :data:`_DIAGNOSED`, as numbers or strings.
        :raises ValueError: for fields that cannot be right; it says which and why.
        """
        given = {key: fields.get(key) or "" for key in _DIAGNOSED}
        if wrong := [key for key, value in given.items() if not isinstance(value, (str, int))]:
            raise ValueError(f"{', '.join(wrong)}: a string is wanted")
        values = {key: str(value).strip() for key, value in given.items()}
        signed = {key: values[key] for key in ("url", "timestamp", "signature")}
        found = [
            (app_id, diagnose(**signed, noncestr=values["nonceStr"], ticket=ticket, others=others))
            for app_id, ticket, others in self._candidates(
                values["appId"], values["agentid"], values["ticket"]
            )
        ]
        # What explains most: a right signature, then a mistake, then the right one's lack.
        app_id, best = min(
            found, key=lambda each: (each[1].cause != "valid", each[1].cause == "unknown")
        )
        answer = {"cause": best.cause, "signed": best.signed, "appId": app_id or None}
        answer |= {"english": best.english, "chinese": best.chinese}
        return {key: text and self._without_secrets(text, values) for key, text in answer.items()}

    def _candidates(
        self, app_id: str, agent_id: str, pasted: str
    ) -> list[tuple[str, str, dict[str, str]]]:
        """By account: the ticket that should have signed, and what may have signed instead."""
        kind = "agent_config" if agent_id else "jsapi"
        with self._lock:
            named = [agent for agent in self._agents() if agent.agent_id == agent_id]
            accounts = named if agent_id else self._everybody()
            chosen = [account for account in accounts if app_id in ("", account.app_id)]
            signers = [(a.app_id, *a.signers(kind, self._clock())) for a in chosen]
        pasting = {"the pasted one 粘贴的": pasted} if pasted else {}
        found = [
            (name, ticket, {**others, **pasting})
            for name, tickets, others in signers
            for ticket in tickets
        ]
        if pasted and not found:  # a real account's, say
            found.append((app_id, pasted, {}))
        if not found:
            raise ValueError("no such account has a ticket here yet: paste the ticket that signs")
        return found

    def _without_secrets(self, text: str, values: Mapping[str, str]) -> str:
        with self._lock:
            hidden = [values["ticket"]] if len(values["ticket"]) > 16 else []
            for account in self._everybody():
                tickets = (ticket for kind in account.tickets.values() for ticket in kind)
                hidden += [*account.tokens, *(ticket.value for ticket in tickets)]
        for secret in hidden:
            text = text.replace(secret, "***")
        return text

    def _diagnose_request(self, request: Request) -> Response:
        if request.is_json:
            return _json_response(self._diagnose(_json_object(request.get_data())))
        return self._page(request, request.form)

    def _page(self, request: Request, fields: Mapping[str, str]) -> Response:
        """The sandbox in a browser, with a diagnosis if the fields of one are given."""
        values = {key: fields.get(key, "") for key in _DIAGNOSED}
        answer, status = "", 200
        if values["signature"]:
            try:
                answer = _diagnosis_section(self._diagnose(values))
            except ValueError as error:
                answer, status = f'<p role="alert">{html.escape(str(error))}', 400
        shown = {key: self._without_secrets(values[key], values) for key in values}
        shown["ticket"] = ""
        rows = "".join(f"<tr><td>{k}<td>{n}" for k, n in sorted(dict(self.calls).items()))
        with self._lock:
            agents = [f"{agent.app_id} (agent {agent.agent_id})" for agent in self._agents()]
            accounts = ", ".join([*self._accounts, *agents])
        page = _PAGE.format(
            accounts=html.escape(accounts), rows=rows, answer=answer,
            tag=html.escape(f'<script src="{_address(request)}/sandbox/bridge.js"></script>'),
            form=_diagnosis_form(request.script_root, shown),
        )  # fmt: skip
        response = Response(page, status, content_type="text/html; charset=utf-8")
        response.headers["Content-Security-Policy"] = (
            "default-src 'none'; style-src 'unsafe-inline'"
        )
        response.headers["Cache-Control"] = "no-store"
        return response


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>WeChat sandbox</title>
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<style>
body {{ max-width: 44rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 sans-serif }}
pre, output {{ display: block; padding: .75rem 1rem; overflow-wrap: anywhere; white-space: pre-wrap;
  background: rgb(128 128 128 / 15%) }}
label, input {{ display: block; width: 100%; box-sizing: border-box; font: inherit }}
label {{ margin: .5rem 0 }} td {{ padding-right: 2rem }} [role=alert] {{ color: #c00 }}
</style>
<h1>WeChat sandbox <span lang="zh-CN">微信沙箱</span></h1>
<p>This is not WeChat: it plays WeChat's API for development and tests.
<p>Accounts: {accounts}
<p>Calls so far:<table>{rows}</table>
<h2>A phone in the browser <span lang="zh-CN">浏览器里的手机</span></h2>
<p>This tag, before the one that loads jweixin, lets a page run in an ordinary browser as it does in
WeChat, or in WeCom with <code>?phone=wecom</code>.
<span lang="zh-CN">将它放在 jweixin 之前，页面即可在普通浏览器中像在微信里一样运行；
企业微信请加 <code>?phone=wecom</code>。</span>
<pre>{tag}</pre>
<h2 id="diagnose">Why “invalid signature”? <span lang="zh-CN">签名为什么无效？</span></h2>
{answer}
{form}
"""


def _diagnosis_form(root: str, values: Mapping[str, str]) -> str:
    rows = "".join(
        f'<label>{english} <span lang="zh-CN">{chinese}</span>'
        f'<input name="{name}" value="{html.escape(values[name])}" autocomplete="off"></label>'
        for name, (english, chinese) in _DIAGNOSED.items()
    )
    button = '<button>Find the cause <span lang="zh-CN">查找原因</span></button>'
    action = html.escape(f"{root}/sandbox/diagnose#diagnose")
    return f'<form method="post" action="{action}">{rows}{button}</form>'


def _diagnosis_section(answer: Mapping[str, str | None]) -> str:
    parts = {key: html.escape(text or "") for key, text in answer.items()}
    signed = f"<br><code>{parts['signed']}</code>" if parts["signed"] else ""
    return (
        f'<output data-cause="{parts["cause"]}"><b>{parts["cause"]}</b> {parts["appId"]}<br>'
        f'{parts["english"]}<br><span lang="zh-CN">{parts["chinese"]}</span>{signed}</output>'
    )


class _QuietHandler(WSGIRequestHandler):
    def log(self, *args: Any, **kwargs: Any) -> None:
        pass  # the request line of the token call carries the secret


def _address(request: Request) -> str:
    """The sandbox's as this caller has it, who may not be able to reach :attr:`Sandbox.url`."""
    return request.root_url.rstrip("/")


def _bridge(url: str, phone: str) -> str:
    if phone not in _PHONES:
        raise ValueError(f"phone is one of {', '.join(_PHONES)}, not {phone!r}")
    text = resources.files(__package__).joinpath("bridge.js").read_text(encoding="utf-8")
    text = text.replace("__PHONE__", phone)
    # The text may end up inside a page.
    return text.replace('"__SANDBOX_URL__"', json.dumps(url).replace("<", "\\u003c"))


def _bridge_response(request: Request) -> Response:
    text = _bridge(_address(request), request.args.get("phone", _PHONES[0]))
    response = Response(text, content_type="text/javascript; charset=utf-8")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"  # a page may be isolated
    return response


def _day(now: float) -> int:
    return int((now + 8 * 3600) // _DAY)  # a day in Asia/Shanghai, which knows no summer time


def _whole(seconds: float) -> float:
    """Whole seconds as WeChat says them, never more than there are; below one, the fraction."""
    return int(seconds + 1e-6) if seconds >= 1 else round(seconds, 3)


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return value
    raise ValueError("the body must be a JSON object")


def _body(request: Request) -> dict[str, Any]:
    data = request.get_data()
    try:
        return _json_object(data)
    except ValueError:
        raise _Refusal(47001 if data else 44002) from None


def _json_response(value: object, *, status: int = 200, content_type: str = _JSON) -> Response:
    return Response(json.dumps(value), status, content_type=content_type)


def _error(errcode: int, ip: str, now: float) -> dict[str, Any]:
    ipv6 = ip if ":" in ip else f"::ffff:{ip}"
    errmsg = _ERRMSG.get(errcode, "unknown error").format(ip=ip, ipv6=ipv6)
    rid = f"{int(now):08x}-{secrets.token_hex(4)}-{secrets.token_hex(4)}"
    return {"errcode": errcode, "errmsg": f"{errmsg} rid: {rid}"}


def _wecom_error(errcode: int, ip: str, now: float) -> dict[str, Any]:
    errmsg = _WECOM_ERRMSG.get(errcode, "unknown error").format(ip=ip, ipv6=ip)
    hint = f"hint: [{int(now)}{secrets.randbelow(10**13):013}], from ip: {ip}"
    more = f"more info at https://open.work.weixin.qq.com/devtool/query?e={errcode}"
    return {"errcode": errcode, "errmsg": f"{errmsg}, {hint}, {more}"}


# -- faults


def _parse_fault(text: str) -> tuple[str, Any]:
    name, _, argument = text.partition(":")
    try:
        if match := re.fullmatch(r"http ([45][0-9]{2})|(500|502|503|404)", text):
            return "http", int(match[1] or match[2])
        if re.fullmatch(r"-?[0-9]{1,9}", text):
            return "errcode", int(text)
        if name in ("expires", "ticket"):
            return name, json.loads(argument)
        if text == "hang":
            return text, _LONGEST_WAIT
        if name == "slow" and 0 <= (seconds := float(argument or 5)) <= _LONGEST_WAIT:
            return name, seconds
    except (ValueError, RecursionError):
        pass  # a bad argument is no known fault either
    if text in _FAULT_NAMES:
        return text, None
    raise ValueError(f"no fault {text!r}; there are: {_FAULT_HELP}")


def _stand_in(fault: _Fault) -> Response | None:
    """What comes in place of WeChat's answer, or None for a fault that leaves or spoils that."""
    match fault.name:
        case "http":
            title = Response(status=fault.value).status.title()
            return Response(
                f"<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center>"
                "<hr><center>nginx</center></body></html>\r\n", fault.value, mimetype="text/html",
            )  # fmt: skip
        case "garbage":
            return Response(b"\xff" + os.urandom(255), content_type=_JSON)  # 0xFF is never UTF-8
        case "html":
            page = "<!doctype html><title>Free Wi-Fi</title><form>Accept the terms</form>"
            return Response(page, mimetype="text/html")
        case "empty":
            return Response(b"", content_type=_JSON)
        case "nulls":
            return _json_response({"access_token": None, "ticket": None, "expires_in": None})
        case "list":
            return _json_response([])
        case "redirect":
            return Response(status=302, headers={"Location": "https://elsewhere.invalid/"})
        case "close" | "drip-headers":
            return Response()  # never sent, see _deliver
    return None


def _spoil(fault: _Fault, payload: dict[str, Any]) -> None:
    if fault.name == "no-expires":
        payload.pop("expires_in", None)
    keys = {"expires": ("expires_in",), "ticket": ("access_token", "ticket")}.get(fault.name, ())
    payload.update({key: fault.value for key in keys if key in payload})


def _deliver(
    response: Response, fault: _Fault | None, release: threading.Event, environ: WSGIEnvironment
) -> Response:
    """Spoil the way the bytes travel, if the fault is of that kind."""
    name = fault.name if fault else ""
    if name in ("close", "drip-headers"):
        _break_off(environ, release if name == "drip-headers" else None)
    if name in ("drip", "half"):
        body = response.get_data()
        response.headers["Content-Length"] = str(len(body))
        response.response = _drip(body, release) if name == "drip" else [body[: len(body) // 2]]
    return response


def _drip(body: bytes, release: threading.Event) -> Iterator[bytes]:
    yield b""  # sends the headers
    for position in range(len(body)):
        if release.wait(_DRIP_INTERVAL):
            yield body[position:]
            return
        yield body[position : position + 1]


def _break_off(environ: WSGIEnvironment, drip: threading.Event | None) -> NoReturn:
    """Close the connection without an answer, after header bytes that lead nowhere if asked."""
    connection: socket.socket | None = environ.get("werkzeug.socket")
    if connection is not None:
        head = b"HTTP/1.1 200 OK\r\nX-Endless: "
        try:
            for count in range(int(_LONGEST_WAIT / _DRIP_INTERVAL) if drip else 0):
                connection.sendall(head[count : count + 1] or b"a")
                if drip and drip.wait(_DRIP_INTERVAL):
                    break
            # The server would otherwise wait for the next request on this connection.
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the caller was faster
    raise ConnectionAbortedError("the sandbox breaks off here")  # Werkzeug passes over it quietly


# -- one for a whole process, and the command

_embedded: dict[int, Sandbox] = {}  # by process id; no lock, since a fork could copy it locked


def embedded(**options: Any) -> Sandbox:
    """The sandbox of this process, created and served on a free port by the first call.

    :param options: the keywords of :class:`Sandbox`; only those of the first call matter.
    """
    pid = os.getpid()
    for owner in set(_embedded) - {pid}:
        inherited = _embedded.pop(owner, None)
        if inherited and inherited._server:  # this child must not keep its parent's port open
            inherited._server.server_close()
    # Not the usual account: an application may bring one of that name with a secret of its own.
    options.setdefault("app_id", "wx-embedded-sandbox")
    sandbox = _embedded.get(pid) or _embedded.setdefault(pid, Sandbox(**options))
    return sandbox.serve()


def _agent(text: str) -> tuple[str, str, str]:
    parts = text.split(":")
    if len(parts) != 3 or not all(parts):
        raise argparse.ArgumentTypeError("CORPID:SECRET:AGENTID is wanted")  # and no secret shown
    return parts[0], parts[1], parts[2]


def main(argv: list[str] | None = None) -> int:
    """Serve a sandbox until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m flask_wxjsapi.sandbox", description="A WeChat to develop against."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8900, help="0 for any free one (default: 8900)")
    parser.add_argument("--app-id", default=_ACCOUNT[0])
    parser.add_argument("--app-secret", default=_ACCOUNT[1])
    parser.add_argument("--ttl", type=float, default=7200, help="life of tokens and tickets, s")
    parser.add_argument("--ticket", choices=("same", "remaining", "new"), default="same")
    parser.add_argument("--delay", type=float, default=0.0, help="time each answer takes, s")
    parser.add_argument("--ip-whitelist", action="append", default=[], metavar="IP")
    parser.add_argument("--domain", action="append", default=[], help="JS-safe; repeatable")
    parser.add_argument(
        "--agent", action="append", default=[], type=_agent, metavar="CORPID:SECRET:AGENTID",
        help="an application of a WeCom corp; repeatable",
    )  # fmt: skip
    args = parser.parse_args(argv)
    agents: list[tuple[str, str, str]] = args.agent
    try:
        sandbox = Sandbox(
            args.app_id, args.app_secret, ticket=args.ticket, token_lifetime=args.ttl,
            ticket_lifetime=args.ttl, delay=args.delay, ip_whitelist=args.ip_whitelist,
            domains=args.domain,
        )  # fmt: skip
        for agent in agents:
            sandbox.add_agent(*agent)
        sandbox.serve(args.host, args.port)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    with sandbox:
        # Somebody may give a real secret, so that the application's settings can stay as they are.
        secret = args.app_secret if args.app_secret == _ACCOUNT[1] else "as given"
        lines = (
            f"WeChat sandbox on {sandbox.url}/sandbox/  (Ctrl-C stops it)",
            f"app id {args.app_id}, secret {secret}",
            f"  export FLASK_WXJSAPI_API_BASE_URL={sandbox.url}",
            f"  curl -d '{json.dumps({'fault': '45009', 'times': 3})}' {sandbox.url}/sandbox/fail",
            f'  <script src="{sandbox.url}/sandbox/bridge.js"></script>  makes a browser its phone',
            *(f"WeCom corp {corp}, agent {agent}, secret as given" for corp, _, agent in agents),
        )
        print(*lines, sep="\n", flush=True)  # noqa: T201 - a command talks to its user
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            return 0
