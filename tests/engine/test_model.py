"""The engine under random sequences of everything that happens to it, against its promises."""

from __future__ import annotations

import math
import os
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flask_wxjsapi._credential import ACCESS_TOKEN, JSAPI_TICKET, Credential
from flask_wxjsapi.errors import TicketUnavailable, WeChatAPIError, WxJsApiError

from ..conftest import FakeClock
from .cluster import DOWN, PREFIX, Cluster, FakeWeChat, Worker, says

WORKERS = 3
LIFE, LEAD, LEASE = 7200.0, 200.0, 15.0

workers = st.integers(0, WORKERS - 1)
kinds = st.sampled_from([ACCESS_TOKEN, JSAPI_TICKET])
faults = st.sampled_from([DOWN, says(-1), says(45009), says(40164)])
pauses = st.sampled_from([0.3, 1.0, 5.0, 61.0, 400.0, 1900.0, 6990.0, 7001.0, 7195.0])


class Recorded(FakeWeChat):
    """A WeChat that notes when each kind failed and which tokens it refused."""

    def __init__(self, clock: FakeClock, **options: Any) -> None:
        super().__init__(clock, **options)
        self.failures: dict[str, list[float]] = {ACCESS_TOKEN: [], JSAPI_TICKET: []}
        self.too_early: list[str] = []
        self.refused: set[str] = set()
        self.used_again: list[str] = []

    def fetch(
        self, kind: str, *, parent: str | None, rejected: str | None, timeout: float
    ) -> Credential:
        failures = self.failures[kind]
        if failures and self.clock.now - failures[-1] < self._least_pause(kind) - 1e-6:
            self.too_early.append(kind)
        if parent in self.refused:
            self.used_again.append(str(parent))
        try:
            credential = super().fetch(kind, parent=parent, rejected=rejected, timeout=timeout)
        except WxJsApiError as error:
            if getattr(error, "errcode", None) == 40001:
                self.refused.add(str(parent))
            else:
                failures.append(self.clock.now)
                self.last = error
            raise
        failures.clear()
        return credential

    def _least_pause(self, kind: str) -> float:
        failures = self.failures[kind]
        if isinstance(self.last, WeChatAPIError) and self.last.errcode in (45009, 40164):
            return 900
        cap = 60 if failures[-1] - failures[0] < 1800 else 400
        return 0.75 * min(cap, 2.0 ** (len(failures) - 1))


class Engine(RuleBasedStateMachine):
    """Three processes, one store, one WeChat."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.cluster = Cluster(self.clock)
        self.upstream = self.cluster.upstream = Recorded(self.clock)
        self.workers: list[Worker] = self.cluster.workers(WORKERS)
        self.bring_back: Any = None
        self.highest = -1
        self.calls_at_check = 0
        self.fetched_at = -math.inf
        self.is_excused = True
        self.verified: list[float] = []

    @initialize(has_thread=st.booleans())
    def configure(self, has_thread: bool) -> None:
        self.has_thread = has_thread
        for worker in self.workers:
            worker.has_thread = has_thread

    # -- what processes do --------------------------------------------------------------------

    def _held(self, worker: int) -> Credential | None:
        """The ticket that a process can hand out at this moment."""
        snapshot = self.workers[worker].holding.snapshot(JSAPI_TICKET)
        held, now = snapshot.credential, self.clock.now - snapshot.shift
        return held if held is not None and now < held.usable_until else None

    def _read(self, worker: int) -> None:
        started, before, held = self.clock.monotonic(), self._calls(), self._held(worker)
        try:
            credential = self.workers[worker].provider.get()
        except TicketUnavailable:
            assert held is None, "a process that has a ticket did not hand it out"
        else:
            left = credential.expires_at - self.clock.now
            assert left >= min(10, LIFE / 10) - 1, "a ticket was handed out in its last seconds"
        assert self.clock.monotonic() - started <= 10.5, "a reader waited beyond its bound"
        if held is not None and self.has_thread:
            assert self._calls() == before, "a reader with a valid ticket asked WeChat"

    def _calls(self) -> int:
        return sum(self.upstream.calls.values())

    @rule(worker=workers)
    def read(self, worker: int) -> None:
        self._read(worker)

    @rule(worker=workers)
    def sync(self, worker: int) -> None:
        before, held = self._calls(), self._held(worker)
        assert 0 < self.workers[worker].sync() <= 5
        if self.bring_back is not None and held is not None:
            assert self._calls() == before, "with the store down a valid ticket was renewed"
        held = self._held(worker)
        if self.bring_back is None and held is not None:
            stored = self.cluster.stored()
            assert stored is not None, "a lost record was not given back"
            assert not held.is_newer_than(stored), "an older record was left in the store"

    @rule(worker=workers)
    def refresh(self, worker: int) -> None:
        calls = self.upstream.calls[JSAPI_TICKET]
        self.upstream.failures = {ACCESS_TOKEN: [], JSAPI_TICKET: []}  # a person need not wait
        note = self.cluster.cache.read(f"{PREFIX}refresh") if self.bring_back is None else None
        try:
            self.workers[worker].provider.refresh()
        except WxJsApiError:
            pass
        if self.upstream.calls[JSAPI_TICKET] > calls:
            lately = note is not None and abs(self.clock.now - note["times"][-1]) < 10
            assert not lately, "two refresh() of a cluster within ten seconds"
            self.is_excused = True

    @rule(worker=workers)
    def a_page_calls_its_signature_invalid(self, worker: int) -> None:
        calls = self.upstream.calls[JSAPI_TICKET]
        was_due = self._held(worker) is None
        self.workers[worker].provider.verify("/")
        if self.upstream.calls[JSAPI_TICKET] > calls and not was_due:
            now = self.clock.now
            assert all(now - at >= 600 for at in self.verified), "pages made WeChat be asked twice"
            assert sum(now - at < 86400 for at in self.verified) < 24, "pages cost too many calls"
            self.verified.append(now)
            self.is_excused = True

    @rule(worker=workers)
    def restart(self, worker: int) -> None:
        self.workers[worker] = self.cluster.worker()
        self.workers[worker].has_thread = self.has_thread

    @precondition(lambda self: self.bring_back is None and not self.upstream.always)
    @rule(
        worker=workers,
        seconds=st.sampled_from([0.0, 3.0, 20.0, 120.0]),
        calls=st.integers(0, 1),
        reads=st.booleans(),
    )
    def is_stopped_in_mid_fetch(self, worker: int, seconds: float, calls: int, reads: bool) -> None:
        """A process stops inside a call, perhaps beyond its lease, and another one goes on."""
        other = (worker + 1) % WORKERS

        def stop() -> None:
            self.clock.advance(seconds)
            before = self._calls()
            if reads and seconds == 0 and self._held(other) is not None:
                self._read(other)
            else:
                self.workers[other].sync()
            if seconds < LEASE:
                assert self._calls() == before, "two processes asked at a time"
            else:
                self.is_excused = True
                self.upstream.failures = {ACCESS_TOKEN: [], JSAPI_TICKET: []}
            self.generations_only_grow()

        def pass_by() -> None:
            self.upstream.meanwhile = stop

        self.upstream.meanwhile = pass_by if calls else stop
        self.workers[worker].sync()
        self.upstream.meanwhile = None

    # -- what happens to them -----------------------------------------------------------------

    @rule(seconds=pauses)
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(kind=kinds, fault=faults, rounds=st.integers(1, 12), pause=pauses)
    def wechat_fails(self, kind: str, fault: WxJsApiError, rounds: int, pause: float) -> None:
        """And the threads go on looking."""
        self.is_excused = True
        self.upstream.always[kind] = fault
        for round_ in range(rounds):
            self.sync(round_ % WORKERS)
            self.clock.advance(min(pause, 61))

    @rule()
    def wechat_recovers(self) -> None:
        self.is_excused = True
        self.upstream.always.clear()

    @precondition(lambda self: self.bring_back is None)
    @rule(worker=workers)
    def the_token_is_revoked(self, worker: int) -> None:
        stored = self.cluster.stored(ACCESS_TOKEN)
        if stored is not None:
            self.is_excused = True
            self.upstream.is_dead.add(stored.value)
            self.clock.advance(11)
            self.refresh(worker)

    @precondition(lambda self: self.bring_back is None)
    @rule()
    def the_store_is_flushed(self) -> None:
        self._lose()
        self.cluster.flush()

    @precondition(lambda self: self.bring_back is None)
    @rule()
    def the_store_goes_down(self) -> None:
        self._lose()
        self.bring_back = self.cluster.take_down()

    @precondition(lambda self: self.bring_back is not None)
    @rule()
    def the_store_is_back(self) -> None:
        self._lose()
        self.bring_back()
        self.bring_back = None

    def _lose(self) -> None:
        """What the processes knew together is gone, and each has only its own."""
        self.is_excused = True
        self.highest = -1
        self.upstream.failures = {ACCESS_TOKEN: [], JSAPI_TICKET: []}
        self.upstream.refused.clear()
        self.verified.clear()
        self.upstream.used_again.clear()

    @rule(seconds=st.sampled_from([3600.0, -3600.0]))
    def the_clock_is_set(self, seconds: float) -> None:
        """By an hour; a process that looks afterwards does not go on with the other time."""
        if self.bring_back is not None or self.upstream.always:
            return
        self.is_excused = True
        self.verified.clear()
        self.clock.jump(seconds)
        self.upstream.failures = {ACCESS_TOKEN: [], JSAPI_TICKET: []}
        for worker in range(WORKERS):
            self.workers[worker].sync()
        held = self._held(0)
        if held is not None:
            # Set twice within half a life it looks like two clocks that disagree: the record stays,
            # and counts by this process's own time.
            issued_at = held.issued_at + self.workers[0].holding.snapshot(JSAPI_TICKET).shift
            assert issued_at <= self.clock.now + 120, "a record from the future was kept"

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
        assert self.cluster.lease[0] is None or self.cluster.lease[1] <= self.clock.now

    @invariant()
    def no_call_during_a_back_off(self) -> None:
        if self.bring_back is None:
            assert not self.upstream.too_early, "WeChat was asked before its time"
        self.upstream.too_early.clear()

    @invariant()
    def no_refused_token_is_used_again(self) -> None:
        assert not self.upstream.used_again or self.bring_back is not None

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
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    # A mutant needs to be seen failing, not to be explained.
    phases=[Phase.generate] if "WXJSAPI_TEST_QUICK" in os.environ else list(Phase),
)
test_the_promises_hold_under_random_sequences = Engine.TestCase
