"""A cluster in one thread: real providers and a real store, a fake clock and a fake WeChat.

Each worker is a process of its own as far as the engine can tell. A flight runs inside the call
that starts it, so a test is a plain sequence; what happens meanwhile in other processes is told
by ``upstream.meanwhile``, which runs in the middle of an upstream call.
"""

from __future__ import annotations

import contextlib
import contextvars
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from cachelib import SimpleCache

from flask_wxjsapi._credential import ACCESS_TOKEN, JSAPI_TICKET, Credential
from flask_wxjsapi._engine.clock import Clock
from flask_wxjsapi._engine.reading import Credentials
from flask_wxjsapi._engine.runtime import Engine
from flask_wxjsapi._engine.snapshot import Holding, Times
from flask_wxjsapi._storage.cache import CacheServer
from flask_wxjsapi._storage.server import TicketServer
from flask_wxjsapi._storage.store import Keys, Plan
from flask_wxjsapi.errors import TransportError, WeChatAPIError, WxJsApiError

from ..conftest import FakeClock

PREFIX = "wxjsapi:{test/wx1}:"
DOWN = TransportError("test was not reached: Connection refused.")


def says(errcode: int, errmsg: str = "no") -> WeChatAPIError:
    return WeChatAPIError(errcode, errmsg)


class FakeWeChat:
    """Answers, fails and counts.

    :param ticket: what it does when asked again while a ticket lives: ``"new"``, another one;
        ``"remaining"``, the same with the whole seconds that are left, down to 0; ``"living"``, the
        same with a whole life, and it lives on; ``"dying"``, the same with a whole life, and it
        dies at the end that was told first.
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
        self.dies_at: dict[str, float] = {}

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
            contextvars.Context().run(meanwhile)  # in other processes
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
            value, dies_at = f"{kind}-{number}", now + self.life
        else:
            value, dies_at = self._issued.get(kind, ("", 0.0))
            if dies_at <= now:
                value, dies_at = f"{kind}-{number}", now + self.life
            elif self.ticket == "living":
                dies_at = now + self.life
        self._issued[kind] = value, dies_at
        self.dies_at[value] = dies_at
        life = int(dies_at - now) if self.ticket == "remaining" else self.life
        return Credential(value, now, now + max(life, 0.001))

    def is_alive(self, value: str) -> bool:
        """Whether WeChat takes a page that was signed with a ticket at this moment."""
        return self.clock.now < self.dies_at[value]


class WorkersClock:
    """The cluster's clock, or that of a host, as one worker has it: what its sleep does can be
    changed.
    """

    def __init__(self, worker: Worker, clock: Clock) -> None:
        self._worker, self.time, self.monotonic = worker, clock.time, clock.monotonic

    def sleep(self, seconds: float, /) -> None:
        self._worker.sleep(seconds)


class App:
    """Stands for the app, which an engine holds weakly."""


class Worker:
    """One process: an engine with its own view of the store, and the credentials of an account."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        name: str = "default",
        prefix: str = PREFIX,
        digest: str = "settings-1",
        engine: Engine | None = None,
        spawn: Callable[[str, Callable[[], None]], None] = lambda name, target: target(),
        call_later: Callable[..., Callable[[], None]] = lambda seconds, target: lambda: None,
        upstream: Any = None,
        clock: Clock | None = None,
        context: Callable[[], Any] = contextlib.nullcontext,
        refresh_ahead: float = 200,
        refresh_timeout: float = 10,
        sync_interval: float = 5,
    ) -> None:
        self.has_thread = True
        self.sleep = cluster.clock.sleep
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.app = App()
        self.engine = engine or Engine(
            self.app,
            clock=WorkersClock(self, clock or cluster.clock),
            spawn=spawn,
            call_later=call_later,
            rng=cluster.random,
        )
        self.engine.runtime().ensure_thread = lambda: True  # type: ignore[method-assign]
        self.holding = Holding(
            name,
            "wx1",
            upstream or cluster.upstream,
            Keys(lambda: prefix),
            cluster.plan(context),
            Times(refresh_ahead, refresh_timeout, sync_interval),
            digest,
            lambda event, facts: self.events.append((event, dict(facts))),
            lambda: self.has_thread,
        )
        self.provider = Credentials(self.engine, self.holding)

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

    @property
    def is_private(self) -> bool:
        return False

    @property
    def has_common_lease(self) -> bool:
        return True


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
        self.lease: tuple[FakeLease | None, float] = (None, 0.0)
        self.custom = custom

    def plan(self, context: Callable[[], Any]) -> Plan:
        custom = self.custom
        if custom is None:
            return Plan(lambda: "cache", lambda: self.cache)
        return Plan(
            lambda: "cache",
            lambda: self.cache,
            tickets_key="custom",
            open_tickets=lambda: custom,
            tickets_name=f"The ticket server {type(custom).__name__}",
            context=context,
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
