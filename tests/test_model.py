"""The engine under random sequences of everything that happens to it, against its promises."""

from __future__ import annotations

import math
import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flask_wxjsapi._credential import ACCESS_TOKEN, JSAPI_TICKET
from flask_wxjsapi.errors import TicketUnavailable, WxJsApiError

from .conftest import FakeClock
from .engine import DOWN, Cluster, Worker, says

WORKERS = 3
LIFE = 7200.0
LEAD = 200.0

workers = st.integers(0, WORKERS - 1)
kinds = st.sampled_from([ACCESS_TOKEN, JSAPI_TICKET])
faults = st.sampled_from([DOWN, says(-1), says(45009), says(45011), says(40001), says(40164)])


class Engine(RuleBasedStateMachine):
    """Three processes, one store, one WeChat; a read never waits longer than it may."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.cluster = Cluster(self.clock)
        self.upstream = self.cluster.upstream
        self.workers: list[Worker] = self.cluster.workers(WORKERS)
        self.bring_back: Any = None
        self.highest = -1
        self.calls_at_check = 0
        self.fetched_at = -math.inf
        self.is_excused = True

    @initialize(has_thread=st.booleans())
    def configure(self, has_thread: bool) -> None:
        self.has_thread = has_thread
        for worker in self.workers:
            worker.has_thread = has_thread

    def _excuse(self) -> None:
        """From here on another upstream call is nobody's mistake."""
        self.is_excused = True

    # -- what processes do --------------------------------------------------------------------

    @rule(worker=workers)
    def sync(self, worker: int) -> None:
        assert 0 < self.workers[worker].sync() <= 5

    @rule(worker=workers)
    def read(self, worker: int) -> None:
        started = self.clock.monotonic()
        try:
            credential = self.workers[worker].provider.get()
        except TicketUnavailable:
            pass
        else:
            assert self.clock.now < credential.expires_at, "an expired ticket was handed out"
        assert self.clock.monotonic() - started <= 10.5, "a reader waited beyond its bound"

    @rule(worker=workers)
    def refresh(self, worker: int) -> None:
        self._excuse()
        try:
            self.workers[worker].provider.refresh()
        except WxJsApiError:
            pass

    @rule(worker=workers)
    def restart(self, worker: int) -> None:
        self.workers[worker] = self.cluster.worker()
        self.workers[worker].has_thread = self.has_thread

    @rule(worker=workers, other=workers, seconds=st.sampled_from([0.0, 3.0, 20.0, 120.0]))
    def is_stopped_in_mid_fetch(self, worker: int, other: int, seconds: float) -> None:
        """A process pauses inside its next call, perhaps beyond its lease; another one goes on."""
        self._excuse()

        def meanwhile() -> None:
            self.clock.advance(seconds)
            if other != worker:
                self.workers[other].sync()

        self.upstream.meanwhile = meanwhile
        self.workers[worker].sync()
        self.upstream.meanwhile = None

    # -- what happens to them -----------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.3, 1.0, 5.0, 60.0, 900.0, 3600.0, 6990.0, 7100.0, 7200.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(kind=kinds, fault=faults)
    def wechat_fails(self, kind: str, fault: WxJsApiError) -> None:
        self._excuse()
        self.upstream.always[kind] = fault

    @rule()
    def wechat_recovers(self) -> None:
        self._excuse()
        self.upstream.always.clear()

    @rule()
    def the_token_is_revoked(self) -> None:
        self._excuse()
        stored = self.cluster.stored(ACCESS_TOKEN) if self.bring_back is None else None
        if stored is not None:
            self.upstream.is_dead.add(stored.value)

    @precondition(lambda self: self.bring_back is None)
    @rule()
    def the_store_is_flushed(self) -> None:
        self._excuse()
        self.highest = -1
        self.cluster.flush()

    @precondition(lambda self: self.bring_back is None)
    @rule()
    def the_store_goes_down(self) -> None:
        self._excuse()
        self.bring_back = self.cluster.take_down()

    @precondition(lambda self: self.bring_back is not None)
    @rule()
    def the_store_is_back(self) -> None:
        self._excuse()
        self.bring_back()
        self.bring_back = None

    # -- the promises ---------------------------------------------------------------------------

    @invariant()
    def generations_only_grow(self) -> None:
        if self.bring_back is None:
            stored = self.cluster.stored()
            if stored is not None:
                assert stored.generation >= self.highest, "an older record replaced a newer one"
                self.highest = stored.generation

    @invariant()
    def the_lease_is_free_between_renewals(self) -> None:
        owner, until = self.cluster.lease
        assert owner is None or until <= self.clock.now

    @invariant()
    def no_call_without_a_reason(self) -> None:
        """Without a fault, a flush or a refresh() two ticket calls lie a lifetime apart."""
        calls = self.upstream.calls[JSAPI_TICKET]
        if calls > self.calls_at_check:
            if not self.is_excused:
                assert calls == self.calls_at_check + 1, "several calls for one renewal"
                assert self.clock.now - self.fetched_at >= LIFE - LEAD, "a call too early"
            self.calls_at_check, self.fetched_at = calls, self.clock.now
            self.is_excused = bool(self.upstream.always) or self.bring_back is not None


Engine.TestCase.settings = settings(
    max_examples=int(os.environ.get("WXJSAPI_TEST_EXAMPLES", "60")),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
test_the_promises_hold_under_random_sequences = Engine.TestCase
