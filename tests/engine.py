"""A cluster in one thread: real providers and a real store, a fake clock and a fake WeChat.

Each worker is a process of its own as far as the engine can tell. A flight runs inside the call
that starts it, so a test is a plain sequence; what happens meanwhile in other processes is told
by ``upstream.meanwhile``, which runs in the middle of an upstream call.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from cachelib import SimpleCache

from flask_wxjsapi._credential import ACCESS_TOKEN, JSAPI_TICKET, Credential
from flask_wxjsapi._engine.provider import Provider
from flask_wxjsapi._storage.cache import CacheServer
from flask_wxjsapi._storage.server import TicketServer
from flask_wxjsapi._storage.store import Store
from flask_wxjsapi.errors import TransportError, WeChatAPIError, WxJsApiError

from .conftest import FakeClock

PREFIX = "wxjsapi:{test/wx1}:"
DOWN = TransportError("test was not reached: Connection refused.")


def says(errcode: int, errmsg: str = "no") -> WeChatAPIError:
    return WeChatAPIError(errcode, errmsg)


class FakeWeChat:
    """Answers, fails and counts.

    :param ticket: as in the sandbox: ``"same"``, ``"remaining"`` or ``"new"``.
    """

    def __init__(self, clock: FakeClock, ticket: str = "new", life: float = 7200) -> None:
        self.clock = clock
        self.ticket = ticket
        self.life = life
        self.delay = 0.0
        self.calls: Counter[str] = Counter()
        self.faults: dict[str, list[WxJsApiError | None]] = {}
        self.always: dict[str, WxJsApiError] = {}
        self.meanwhile: Callable[[], None] | None = None
        self.rejected: list[str | None] = []
        self.tokens_used: list[str | None] = []
        self.is_dead: set[str] = set()
        self._issued: dict[str, tuple[str, float]] = {}

    def parent(self, kind: str) -> str | None:
        return None if kind == ACCESS_TOKEN else ACCESS_TOKEN

    def fetch(
        self, kind: str, *, parent: str | None, rejected: str | None, timeout: float
    ) -> Credential:
        self.calls[kind] += 1
        number, now = self.calls[kind], self.clock.time()
        self.clock.advance(min(self.delay, timeout))
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        if kind == ACCESS_TOKEN:
            self.rejected.append(rejected)
        else:
            self.tokens_used.append(parent)
        if self.faults.get(kind):
            fault = self.faults[kind].pop(0)
            if fault is not None:
                raise fault
        if kind in self.always:
            raise self.always[kind]
        if parent in self.is_dead:
            raise says(40001, "invalid credential")
        return self._answer(kind, number, now)

    def _answer(self, kind: str, number: int, now: float) -> Credential:
        if kind == ACCESS_TOKEN or self.ticket == "new":
            return Credential(f"{kind}-{number}", now, now + self.life)
        value, expires = self._issued.get(kind, ("", 0.0))
        if expires <= now:
            value, expires = f"{kind}-{number}", now + self.life
            self._issued[kind] = value, expires
        life = self.life if self.ticket == "same" else max(expires - now, 1)
        return Credential(value, now, now + life)


class Worker:
    """One process: a provider with its own view of the store."""

    def __init__(self, cluster: Cluster, **options: Any) -> None:
        self.has_thread = True
        self.events: list[tuple[str, dict[str, Any]]] = []
        settings: dict[str, Any] = {
            "digest": "settings-1",
            "background": lambda: self.has_thread,
            "context": contextlib.nullcontext,
            "notify": lambda event, facts: self.events.append((event, facts)),
            "clock": cluster.clock,
            "spawn": lambda name, target: target(),
            "rng": cluster.random,
        }
        self.provider = Provider(cluster.upstream, cluster.open_store, **(settings | options))

    def ticket(self) -> str:
        return self.provider.get().value

    def sync(self) -> float:
        return self.provider.sync()

    @property
    def state(self) -> str:
        return self.provider.status(look=False).state


class FakeLease:
    """What Redis gives: a right that ends by itself, and that only its owner gives back."""

    def __init__(self, cluster: Cluster, life: float) -> None:
        self._cluster = cluster
        self._life = life

    def acquire(self, blocking: bool = False) -> bool:
        owner, until = self._cluster.lease
        if owner is not None and self._cluster.clock.now < until:
            return False
        self._cluster.lease = (self, self._cluster.clock.now + self._life)
        return True

    def release(self) -> None:
        if self._cluster.lease[0] is self:
            self._cluster.lease = (None, 0.0)


class SharedCache(CacheServer):
    """A backend that several workers share, with a lease to match."""

    def __init__(self, cluster: Cluster, backend: SimpleCache) -> None:
        super().__init__(backend)
        self._cluster = cluster

    def lease(self, key: str, life: float) -> FakeLease:
        return FakeLease(self._cluster, life)


class Cluster:
    """Workers on one store and one clock."""

    def __init__(
        self, clock: FakeClock, *, custom: TicketServer | None = None, **upstream: Any
    ) -> None:
        self.clock = clock
        self.random = random.Random(1)
        self.upstream = FakeWeChat(clock, **upstream)
        self.backend = SimpleCache()
        self.cache = SharedCache(self, self.backend)
        self.lease_life = 15.0
        self.lease: tuple[FakeLease | None, float] = (None, 0.0)
        self.custom = custom

    def open_store(self) -> Store:
        custom = self.custom
        return Store(
            lambda: self.cache,
            None if custom is None else lambda: custom,
            prefix=PREFIX,
            lease_life=self.lease_life,
        )

    def worker(self, **options: Any) -> Worker:
        return Worker(self, **options)

    def workers(self, count: int) -> list[Worker]:
        return [self.worker() for _ in range(count)]

    @property
    def calls(self) -> tuple[int, int]:
        """Token calls and ticket calls so far."""
        return self.upstream.calls[ACCESS_TOKEN], self.upstream.calls[JSAPI_TICKET]

    def stored(self, kind: str = JSAPI_TICKET) -> Credential | None:
        return self.cache.find(PREFIX + kind)

    def put(self, credential: Credential, kind: str = JSAPI_TICKET) -> None:
        """As if another process had saved it."""
        self.cache.save(PREFIX + kind, credential)

    def flush(self) -> None:
        self.backend.clear()

    def take_down(self) -> Callable[[], None]:
        """Make the store fail; the result brings it back."""
        backend = self.cache._backend
        self.cache._backend = _Broken()

        def bring_back() -> None:
            self.cache._backend = backend

        return bring_back


class _Broken:
    def __init__(self) -> None:
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        self.calls += 1
        raise ConnectionError("Connection refused")
