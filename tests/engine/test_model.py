"""The engine under random sequences of everything that happens to it, against its promises."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from greenlet import getcurrent, greenlet
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flask_wxjsapi._credential import ACCESS_TOKEN, JSAPI_TICKET, Credential
from flask_wxjsapi._engine import renewal as renewal_module
from flask_wxjsapi._engine import runtime as runtime_module
from flask_wxjsapi._engine.purpose import Complaint
from flask_wxjsapi._engine.runtime import Runtime
from flask_wxjsapi.errors import TicketUnavailable, WeChatAPIError, WxJsApiError

from ..conftest import FakeClock
from .cluster import DOWN, Cluster, FakeLease, FakeWeChat, SharedCache, Worker, says

WORKERS = 3
ACCOUNTS = 2
LIFE, LEAD, LEASE, TIMEOUT, INTERVAL = 7200.0, 200.0, 15.0, 10.0, 60.0
STEP = 30.0  # seconds at most between two readers

workers = st.integers(0, WORKERS - 1)
accounts = st.integers(0, ACCOUNTS - 1)
kinds = st.sampled_from([ACCESS_TOKEN, JSAPI_TICKET])
faults = st.sampled_from([DOWN, says(-1), says(45009), says(40164)])
pauses = st.sampled_from([0.3, 1.0, 5.0, 61.0, 400.0, 1900.0, 6990.0, 7001.0, 7195.0, 15000.0])


class Time:
    """The clock of all, and what is to happen at some of its times."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self._timers: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, seconds: float, target: Callable[[], None]) -> Callable[[], None]:
        timer = (self.clock.monotonic() + seconds, target)
        self._timers.append(timer)
        return lambda: self._timers.remove(timer) if timer in self._timers else None

    def pass_by(self, seconds: float, is_enough: Callable[[], bool] = lambda: False) -> None:
        """Let time pass, until it is enough."""
        end = self.clock.monotonic() + seconds
        while not is_enough():
            timer = min(self._timers, key=lambda timer: timer[0], default=None)
            if timer is None or timer[0] > end:
                self.clock.advance(max(0.0, end - self.clock.monotonic()))
                return
            self._timers.remove(timer)
            self.clock.advance(max(0.0, timer[0] - self.clock.monotonic()))
            timer[1]()


class Event:
    """Whoever waits for it has the time pass."""

    def __init__(self, time: Time) -> None:
        self._time = time
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout: float) -> bool:
        self._time.pass_by(timeout, self.is_set)
        return self._is_set


class Host:
    """The clock of a worker, which may be set."""

    def __init__(self, time: Time) -> None:
        self.offset = 0.0
        self.clock = time.clock
        self.monotonic, self.sleep = time.clock.monotonic, time.pass_by

    def time(self) -> float:
        return self.clock.time() + self.offset


class Recorded(FakeWeChat):
    """A WeChat that notes when each kind failed, which tokens it refused, and may never answer."""

    def __init__(self, clock: FakeClock, ticket: str) -> None:
        super().__init__(clock, ticket)
        self.failures: dict[str, list[float]] = {ACCESS_TOKEN: [], JSAPI_TICKET: []}
        self.too_early: list[str] = []
        self.refused: set[str] = set()
        self.used_again: list[str] = []
        self.tickets_asked: list[float] = []
        self.hangs = False
        self.hung: list[greenlet] = []

    def fetch(
        self, kind: str, *, parent: str | None, rejected: str | None, timeout: float
    ) -> Credential:
        failures = self.failures[kind]
        if failures and self.clock.now - failures[-1] < self._least_pause(kind) - 1e-6:
            self.too_early.append(kind)
        if parent in self.refused:
            self.used_again.append(str(parent))
        if kind == JSAPI_TICKET:
            self.tickets_asked.append(self.clock.now)
        if self.hangs:
            self.hangs = False
            self.hung.append(getcurrent())
            getcurrent().parent.switch()  # type: ignore[union-attr]
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

    def forget(self) -> None:
        """A person, a clock or a lost store: nobody knows of the failures any more."""
        self.failures = {ACCESS_TOKEN: [], JSAPI_TICKET: []}


class SeenFrom:
    """WeChat as a host sees it: what it tells are seconds from now."""

    def __init__(self, wechat: Recorded, host: Host) -> None:
        self.parent = wechat.parent
        self._wechat, self._host = wechat, host

    def fetch(self, kind: str, **options: Any) -> Credential:
        found, offset = self._wechat.fetch(kind, **options), self._host.offset
        return Credential(found.value, found.issued_at + offset, found.expires_at + offset)


class Leased:
    """Who has the lease of one account."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.lease: tuple[FakeLease | None, float] = (None, 0.0)


class CacheOfTwo(SharedCache):
    """A cache with a lease for each account."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster, cluster.backend)
        self.leases: dict[str, Leased] = {}

    def lease(self, key: str, life: float) -> FakeLease:
        leased = self.leases.setdefault(key, Leased(self._cluster.clock))
        return FakeLease(leased, life)  # type: ignore[arg-type]


class Account:
    """What is known of one account, beside what its workers know."""

    def __init__(self, number: int, upstream: Recorded) -> None:
        self.prefix = f"wxjsapi:{{test/wx{number}}}:"
        self.upstream = upstream
        self.highest = -1
        self.checked = 0  # ticket calls
        self.is_excused = True
        self.is_untouched = True  # nothing has ever gone wrong for it
        self.verified: list[float] = []

    def trouble(self) -> None:
        self.is_excused, self.is_untouched = True, False


class Engine(RuleBasedStateMachine):
    """Two accounts in three processes on as many hosts, one store, one WeChat."""

    def __init__(self) -> None:
        super().__init__()
        self.time = Time()
        self.clock = self.time.clock
        self.cluster = Cluster(self.clock)
        self.cluster.cache = self.cache = CacheOfTwo(self.cluster)
        self.hung: list[tuple[greenlet, Account]] = []
        self.accounts: list[Account] = []
        self.hosts = [Host(self.time) for _ in range(WORKERS)]
        self.bring_back: Any = None
        self.has_thread = True
        self.workers: list[list[Worker]] = []  # of each process, by account
        threads = SimpleNamespace(
            Event=lambda: Event(self.time), Lock=runtime_module.threading.Lock
        )
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(renewal_module, "threading", threads)
        self.patch.setattr(runtime_module, "threading", threads)

    def teardown(self) -> None:
        self.patch.undo()

    @initialize(
        has_thread=st.booleans(),
        world=st.sampled_from(["new", "remaining", "living", "dying"]),
        is_one_left_in_peace=st.booleans(),
    )
    def configure(self, has_thread: bool, world: str, is_one_left_in_peace: bool) -> None:
        self.has_thread, self.world = has_thread, world
        self.is_one_left_in_peace = is_one_left_in_peace
        self.accounts = [Account(number, Recorded(self.clock, world)) for number in range(ACCOUNTS)]
        self.workers = [self._process(number) for number in range(WORKERS)]

    def _process(self, number: int) -> list[Worker]:
        host, process = self.hosts[number], []
        for account in self.accounts:
            worker = self.cluster.worker(
                name=account.prefix,
                prefix=account.prefix,
                engine=process[0].engine if process else None,
                clock=host,
                upstream=SeenFrom(account.upstream, host),
                spawn=lambda name, target: greenlet(target).switch(),
                call_later=self.time.call_later,
                refresh_timeout=TIMEOUT,
                sync_interval=INTERVAL,
            )
            worker.sleep = self.time.pass_by
            worker.has_thread = self.has_thread
            if self.has_thread:
                worker.provider.start()
            process.append(worker)
        return process

    # -- what processes do --------------------------------------------------------------------

    def _runtime(self, worker: int) -> Runtime:
        return self.workers[worker][0].engine.runtime()

    def _held(self, worker: int, account: int) -> Credential | None:
        """The ticket that a process can hand out at this moment."""
        snapshot = self.workers[worker][account].holding.snapshot(JSAPI_TICKET)
        held, now = snapshot.credential, self.hosts[worker].time() - snapshot.shift
        return held if held is not None and now < held.usable_until else None

    def _read(self, worker: int, account: int) -> None:
        of = self.accounts[account]
        started, before = self.clock.monotonic(), sum(of.upstream.calls.values())
        asked_at = self.clock.now
        held, lost = self._held(worker, account), self._runtime(worker).threads.lost
        try:
            credential = self.workers[worker][account].provider.get()
        except TicketUnavailable:
            assert held is None, "a process that has a ticket did not hand it out"
            assert not of.is_untouched or lost >= 3, "another account's failure is this one's"
        else:
            # What is renewed behind a reader runs within it here, and may take its time.
            handed_out_at = self.clock.now if held is None else asked_at
            left = of.upstream.dies_at[credential.value] - handed_out_at
            # Where a clock was set past its end, a ticket that WeChat names again has a new life:
            # only a page's complaint can tell that it has none.
            if self.world != "dying" or not self._is_any_clock_set():
                assert left >= -60, "a ticket was dead for longer than a minute"
            if self.world == "new" and not self._is_any_clock_set():
                assert left >= 9, "a ticket was handed out in its last seconds"
        waited = self.clock.monotonic() - started
        # A renewal runs within its reader here, and may be asleep for a second at its deadline.
        assert waited <= TIMEOUT + 1, "a reader waited beyond its bound"
        if of.is_untouched:
            assert waited <= 2.2, "another account's failure delayed a reader"
        if held is not None and self.has_thread:
            assert sum(of.upstream.calls.values()) == before, "a reader of a valid ticket asked"
            assert waited == 0, "a reader of a valid ticket waited"

    def _do_clocks_agree(self) -> bool:
        return len({host.offset for host in self.hosts}) == 1

    def _is_any_clock_set(self) -> bool:
        return any(host.offset for host in self.hosts)

    def _let_pass(self, seconds: float, readers: frozenset[int] = frozenset()) -> None:
        """Time passes, the threads attend to what is due, and readers come by."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            for worker in range(WORKERS):
                if self.has_thread and self._due_at(worker) <= self.clock.now:
                    self._runtime(worker).tick()
                if worker in readers:
                    for account in range(ACCOUNTS):
                        self._read(worker, account)
            next_at = min(map(self._due_at, range(WORKERS))) if self.has_thread else math.inf
            step = min(end, next_at, self.clock.now + STEP)
            self.time.pass_by(max(0.01, step - self.clock.now))

    def _due_at(self, worker: int) -> float:
        at = self._runtime(worker).next_at
        return math.inf if at is None else at - self.hosts[worker].offset

    @rule(worker=workers, account=accounts)
    def read(self, worker: int, account: int) -> None:
        self._read(worker, account)

    @rule(worker=workers, account=accounts)
    def sync(self, worker: int, account: int) -> None:
        of = self.accounts[account]
        before, held = sum(of.upstream.calls.values()), self._held(worker, account)
        is_resting = self._runtime(worker)._failed_looks > 0  # since a look has hung
        pause = self.workers[worker][account].sync()
        if self.hung:
            return
        assert 0 < pause <= (400 if is_resting else INTERVAL)
        if self.bring_back is not None and held is not None:
            calls = sum(of.upstream.calls.values())
            assert calls == before, "with the store down a valid ticket was renewed"
        held = self._held(worker, account)
        if self.bring_back is None and held is not None:
            stored = self._stored(account)
            assert stored is not None, "a lost record was not given back"
            assert not held.is_newer_than(stored), "an older record was left in the store"

    def _stored(self, account: int, kind: str = JSAPI_TICKET) -> Credential | None:
        return self.cache.find(self.accounts[account].prefix + kind)

    @rule(worker=workers, account=accounts)
    def refresh(self, worker: int, account: int) -> None:
        of = self.accounts[account]
        calls = of.upstream.calls[JSAPI_TICKET]
        of.upstream.forget()  # a person need not wait
        note = (
            self.cache.read(f"{of.prefix}refresh.{JSAPI_TICKET}") if not self.bring_back else None
        )
        now = self.hosts[worker].time()
        try:
            self.workers[worker][account].provider.refresh()
        except WxJsApiError:
            pass
        if of.upstream.calls[JSAPI_TICKET] > calls:
            lately = note is not None and abs(now - note["times"][-1]) < 9
            assert not lately, "two refresh() of a cluster within ten seconds"
            of.is_excused = True

    @rule(worker=workers, account=accounts)
    def a_page_calls_its_signature_invalid(self, worker: int, account: int) -> None:
        of = self.accounts[account]
        calls = of.upstream.calls[JSAPI_TICKET]
        was_due = self._held(worker, account) is None
        self.workers[worker][account].provider.verify(Complaint("/"))
        if of.upstream.calls[JSAPI_TICKET] == calls or was_due:
            return
        of.is_excused = True
        if self._do_clocks_agree():  # else hosts do not heed each other's times
            now, verified = self.clock.now, of.verified
            assert all(now - at >= 598 for at in verified), "pages made WeChat be asked twice"
            assert sum(now - at < 86400 for at in verified) < 24, "pages cost too many calls"
            of.verified.append(now)

    @rule(worker=workers)
    def restart(self, worker: int) -> None:
        self.workers[worker] = self._process(worker)

    @precondition(lambda self: not self._is_in_trouble())
    @rule(
        worker=workers,
        account=accounts,
        seconds=st.sampled_from([0.0, 3.0, 20.0, 120.0]),
        calls=st.integers(0, 1),
        reads=st.booleans(),
    )
    def is_stopped_in_mid_fetch(
        self, worker: int, account: int, seconds: float, calls: int, reads: bool
    ) -> None:
        """A process stops inside a call, perhaps beyond its lease, and another one goes on."""
        other, of = (worker + 1) % WORKERS, self.accounts[account]

        def stop() -> None:
            self.time.pass_by(seconds)
            before = sum(of.upstream.calls.values())
            if reads and seconds == 0 and self._held(other, account) is not None:
                self._read(other, account)
            else:
                self.workers[other][account].sync()
            if seconds < LEASE:
                assert sum(of.upstream.calls.values()) == before, "two processes asked at a time"
            else:
                of.trouble()
                of.upstream.forget()
            self.generations_only_grow()

        def pass_by() -> None:
            of.upstream.meanwhile = stop

        of.upstream.meanwhile = pass_by if calls else stop
        self.workers[worker][account].sync()
        of.upstream.meanwhile = None

    # -- what happens to them -----------------------------------------------------------------

    def _in_trouble(self, account: int) -> int:
        """Which account it is that something happens to."""
        return 0 if self.is_one_left_in_peace else account

    def _is_in_trouble(self) -> bool:
        return (
            self.bring_back is not None
            or bool(self.hung)
            or any(account.upstream.always for account in self.accounts)
        )

    @rule(seconds=pauses, readers=st.frozensets(workers))
    def time_passes(self, seconds: float, readers: frozenset[int]) -> None:
        self._let_pass(seconds, readers)

    @rule(account=accounts, kind=kinds, fault=faults, rounds=st.integers(1, 12), pause=pauses)
    def wechat_fails(
        self, account: int, kind: str, fault: WxJsApiError, rounds: int, pause: float
    ) -> None:
        """And the threads go on looking."""
        account = self._in_trouble(account)
        self.accounts[account].trouble()
        self.accounts[account].upstream.always[kind] = fault
        for round_ in range(rounds):
            self.sync(round_ % WORKERS, account)
            self._let_pass(min(pause, 61))

    @rule(account=accounts)
    def wechat_recovers(self, account: int) -> None:
        self.accounts[account].is_excused = True
        self.accounts[account].upstream.always.clear()

    @rule(worker=workers, account=accounts)
    def a_call_hangs(self, worker: int, account: int) -> None:
        """The next one, if there is one; its thread is lost."""
        account = self._in_trouble(account)
        of = self.accounts[account]
        of.upstream.hangs = True
        self.workers[worker][account].sync()
        of.upstream.hangs = False
        if of.upstream.hung:
            self.hung.append((of.upstream.hung.pop(), of))
            of.trouble()
            of.upstream.forget()

    @precondition(lambda self: self.hung)
    @rule()
    def a_call_that_hung_returns(self) -> None:
        """With what WeChat answers at that moment, to whoever still wants it."""
        late, of = self.hung.pop(0)
        of.trouble()
        of.upstream.forget()
        late.parent = getcurrent()
        late.switch()

    @precondition(lambda self: self.bring_back is None)
    @rule(worker=workers, account=accounts)
    def the_token_is_revoked(self, worker: int, account: int) -> None:
        account = self._in_trouble(account)
        stored = self._stored(account, ACCESS_TOKEN)
        if stored is not None:
            self.accounts[account].trouble()
            self.accounts[account].upstream.is_dead.add(stored.value)
            self._let_pass(11)
            self.refresh(worker, account)

    @precondition(lambda self: self.bring_back is None and not self.is_one_left_in_peace)
    @rule()
    def the_store_is_flushed(self) -> None:
        self._lose()
        self.cluster.flush()

    @precondition(lambda self: self.bring_back is None and not self.is_one_left_in_peace)
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
        for account in self.accounts:
            account.trouble()
            account.highest = -1
            account.verified.clear()
            account.upstream.forget()
            account.upstream.refused.clear()
            account.upstream.used_again.clear()

    @precondition(lambda self: not self._is_in_trouble() and not self.is_one_left_in_peace)
    @rule(
        seconds=st.sampled_from([3600.0, -3600.0]),
        hosts=st.sampled_from([[0], [1], [0, 1, 2]]),
    )
    def clocks_are_set(self, seconds: float, hosts: list[int]) -> None:
        """Of all hosts or of one; a process that looks afterwards does not go on with the other
        time.
        """
        for host in hosts:
            self.hosts[host].offset += seconds
        for account in self.accounts:
            account.trouble()
            account.verified.clear()
            account.upstream.forget()
            account.upstream.refused.clear()
        for worker in range(WORKERS):
            for account_number in range(ACCOUNTS):
                self.workers[worker][account_number].sync()

    # -- the promises ---------------------------------------------------------------------------

    @invariant()
    def generations_only_grow(self) -> None:
        if self.bring_back is None:
            for number, account in enumerate(self.accounts):
                stored = self._stored(number)
                if stored is not None:
                    assert stored.generation >= account.highest, "an older record replaced a newer"
                    account.highest = stored.generation

    @invariant()
    def the_lease_is_free_between_renewals(self) -> None:
        for leased in self.cache.leases.values():
            assert leased.lease[0] is None or leased.lease[1] <= self.clock.now or self.hung

    @invariant()
    def one_renewal_of_a_snapshot_is_under_way(self) -> None:
        for worker in range(len(self.workers)):
            under_way = self._runtime(worker)._turns.under_way
            running = Counter(renewal.snapshot for renewal in under_way)
            assert max(running.values(), default=0) <= 1
            assert self._runtime(worker).threads.lost <= 3

    @invariant()
    def no_call_during_a_back_off(self) -> None:
        for account in self.accounts:
            if self.bring_back is None and not self._is_any_clock_set():
                assert not account.upstream.too_early, "WeChat was asked before its time"
            account.upstream.too_early.clear()

    @invariant()
    def no_refused_token_is_used_again(self) -> None:
        for account in self.accounts:
            if not self._do_clocks_agree():  # what has ended for one host lives for another
                account.upstream.used_again.clear()
            assert not account.upstream.used_again or self.bring_back is not None

    @invariant()
    def no_call_without_a_reason(self) -> None:
        """Without a fault, a flush or a refresh() two ticket calls lie a lifetime apart."""
        for account in self.accounts:
            asked = account.upstream.tickets_asked
            if len(asked) == account.checked:
                continue
            if not account.is_excused and self.world == "new" and not self._is_any_clock_set():
                for before, after in pairwise(asked[max(0, account.checked - 1) :]):
                    assert after - before >= LIFE - LEAD, "a call too early"
            account.checked = len(asked)
            account.is_excused = bool(
                account.upstream.always or self.hung or self.bring_back is not None
            )


_EXAMPLES, _IS_QUICK = os.environ.get("WXJSAPI_TEST_EXAMPLES"), "WXJSAPI_TEST_QUICK" in os.environ

Engine.TestCase.settings = settings(
    max_examples=int(_EXAMPLES or 60),
    # The same ones every time, unless somebody wants to find more.
    derandomize=_EXAMPLES is None or _IS_QUICK,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    # A mutant needs to be seen failing, not to be explained.
    phases=[Phase.generate] if _IS_QUICK else list(Phase),
)
test_the_promises_hold_under_random_sequences = Engine.TestCase
