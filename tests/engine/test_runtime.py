"""What a process has for one app: its thread, which neither dies nor keeps anything alive."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from flask_wxjsapi import WxJsApi
from flask_wxjsapi._engine.back_off import BackOff
from flask_wxjsapi._engine.purpose import FORCE, HEAR, KEEP, LOOK, NEED, Purpose
from flask_wxjsapi._engine.renewal import Renewal
from flask_wxjsapi._engine.runtime import Engine, Look, Runtime
from flask_wxjsapi._engine.snapshot import Snapshot
from flask_wxjsapi._storage.store import Plan
from flask_wxjsapi.sandbox import Sandbox

from ..conftest import FakeClock, threads_of, wait_until
from .cluster import DOWN, App, Cluster, FakeLease, Worker, says

MakeApp = Callable[..., tuple[Flask, WxJsApi]]


class Ticking:
    """A runtime whose ticks are counted, and may fail."""

    def __init__(self) -> None:
        self.app = App()
        self.engine = Engine(self.app)
        self.runtime = self.engine.runtime()
        self.ticks = 0
        self.delay = 0.005
        self.fault: BaseException | None = None
        self._ticked = threading.Condition()
        # Without a way back from the runtime to here: a test lets go of it.
        self.runtime.tick = self._tick  # type: ignore[method-assign]

    def _tick(self) -> float:
        with self._ticked:
            self.ticks += 1
            self._ticked.notify_all()
        if self.fault is not None:
            raise self.fault
        return self.delay

    def wait_for_ticks(self, count: int) -> None:
        with self._ticked:
            assert self._ticked.wait_for(lambda: self.ticks >= count, 20)

    @property
    def threads(self) -> list[threading.Thread]:
        return threads_of(self.app)

    def stop(self) -> None:
        """End the thread, and wait for that."""
        threads, thread = self.threads, self.runtime._thread
        if thread is not None:
            thread.stop()
        for one in threads:
            one.join(20)


@pytest.fixture
def ticking() -> Iterator[Ticking]:
    ticking = Ticking()
    yield ticking
    ticking.stop()


# -- one thread ------------------------------------------------------------------------------------


def test_it_ticks_again_and_again(ticking: Ticking) -> None:
    """One thread, started once, that goes on."""
    assert ticking.runtime.ensure_thread()
    threads = ticking.threads
    ticking.wait_for_ticks(3)
    assert ticking.runtime.ensure_thread()
    assert ticking.threads == threads


def test_it_is_a_daemon_with_a_name(ticking: Ticking) -> None:
    """The exit of a process does not wait for it, and who lists threads knows whose it is."""
    ticking.runtime.ensure_thread()
    assert [(thread.daemon, thread.name) for thread in ticking.threads] == [(True, "wxjsapi")]


def test_many_callers_start_one_thread(ticking: Ticking) -> None:
    """Of several first uses at once exactly one starts the thread."""
    ticking.delay = 60
    barrier = threading.Barrier(32)

    def use() -> None:
        barrier.wait(60)
        ticking.runtime.ensure_thread()

    users = [threading.Thread(target=use) for _ in range(32)]
    for user in users:
        user.start()
    for user in users:
        user.join(60)
    assert len(ticking.threads) == 1


def test_a_caller_who_comes_second_uses_the_thread_of_the_first(ticking: Ticking) -> None:
    """Somebody else starts the thread between the look for one and the start."""
    runtime = ticking.runtime
    seen = runtime._thread
    assert runtime.ensure_thread()
    assert runtime._start_thread(seen)
    assert len(ticking.threads) == 1


# -- that does not die -----------------------------------------------------------------------------


def test_it_survives_every_exception(
    ticking: Ticking, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody foresaw is logged, without its text, and the thread goes on."""
    monkeypatch.setattr("flask_wxjsapi._engine.thread._PAUSE", 0.005)
    ticking.fault = ZeroDivisionError("with-a-secret")
    ticking.runtime.ensure_thread()
    ticking.wait_for_ticks(3)
    wait_until(lambda: "goes on after ZeroDivisionError" in caplog.text, what="the log has it")
    assert "with-a-secret" not in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_thread_is_replaced_and_the_log_says_so(
    ticking: Ticking, caplog: pytest.LogCaptureFixture
) -> None:
    """Even SystemExit, which ends a thread, ends it for no longer than until the next use."""
    ticking.fault = SystemExit()
    ticking.runtime.ensure_thread()
    wait_until(lambda: not ticking.threads, what="the thread has died")
    ticking.fault = None
    ticks = ticking.ticks
    assert ticking.runtime.ensure_thread()
    ticking.wait_for_ticks(ticks + 3)
    wait_until(lambda: "died" in caplog.text, what="the log has it")
    assert caplog.text.count("died") == 1


def test_a_stopped_thread_is_replaced_without_a_word(
    ticking: Ticking, caplog: pytest.LogCaptureFixture
) -> None:
    """Who stopped it knows."""
    ticking.runtime.ensure_thread()
    (first,) = ticking.threads
    ticking.stop()
    assert not first.is_alive()
    assert ticking.runtime.ensure_thread()
    (second,) = ticking.threads
    assert second is not first
    assert "died" not in caplog.text


# -- that cannot start -----------------------------------------------------------------------------


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The system has no more threads, until this is undone."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    return monkeypatch


def test_a_thread_that_cannot_start_is_no_error(
    ticking: Ticking, refuse: pytest.MonkeyPatch
) -> None:
    """Without a thread the extension works as if it were switched off; until there is one."""
    assert not ticking.runtime.ensure_thread()
    refuse.undo()
    assert ticking.runtime.ensure_thread()


@pytest.mark.usefixtures("refuse")
def test_a_thread_that_cannot_start_is_said_once_in_a_while(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Every reader meets it; the log has it once, and again after five minutes."""
    app = App()
    runtime = Engine(app, clock=clock).runtime()
    for _ in range(10):
        assert not runtime.ensure_thread()
    assert caplog.text.count("The background thread cannot start: can't start new thread.") == 1
    clock.advance(301)
    for _ in range(10):
        assert not runtime.ensure_thread()
    assert caplog.text.count("cannot start") == 2


# -- that keeps nothing alive ----------------------------------------------------------------------


def test_it_ends_when_its_app_is_gone() -> None:
    """At its next tick, though somebody still has the runtime."""
    ticking = Ticking()
    ticking.runtime.ensure_thread()
    ticking.wait_for_ticks(1)
    (thread,) = ticking.threads
    gone = weakref.ref(ticking.app)
    del ticking.app
    thread.join(20)
    assert not thread.is_alive()
    assert gone() is None


def test_it_ends_when_its_runtime_is_gone() -> None:
    """It keeps neither the runtime nor whatever hangs on it."""
    app = App()
    runtime = Engine(app).runtime()
    runtime.ensure_thread()
    (thread,) = threads_of(app)
    _wake_for_good(runtime)
    del runtime
    # More than once: it has the runtime for a moment each time it looks.
    wait_until(lambda: (gc.collect(), not thread.is_alive())[1], what="the thread ends")


def _wake_for_good(runtime: Runtime) -> None:
    """Have the thread look whether there is something to do, now and at once again."""
    thread = runtime._thread
    assert thread is not None
    thread.wake.wait = lambda timeout=None: True  # type: ignore[method-assign]
    thread.wake.set()


def test_the_app_can_be_collected_while_the_thread_runs(make_app: MakeApp) -> None:
    """Neither thread, account nor callbacks hold the app."""
    app, wxjsapi = make_app(WXJSAPI_BACKGROUND_REFRESH=True)
    with app.app_context():
        assert wxjsapi.ticket
    gone = weakref.ref(app)
    del app
    wait_until(lambda: (gc.collect(), gone() is None)[1], what="the app is collected")


# -- when it starts --------------------------------------------------------------------------------


def test_the_first_request_of_any_kind_starts_it(make_app: MakeApp) -> None:
    """A 404 will do; and nothing starts before."""
    app, wxjsapi = make_app(TESTING=False)
    assert not threads_of(app)
    app.test_client().get("/nothing")
    assert len(threads_of(app)) == 1
    wxjsapi.close(app)


def test_the_first_use_in_no_request_starts_it(make_app: MakeApp) -> None:
    """In the consumer of a queue, for example."""
    app, wxjsapi = make_app(TESTING=False)
    with app.app_context():
        assert wxjsapi.ticket
    assert len(threads_of(app)) == 1
    wxjsapi.close(app)


def test_testing_is_read_when_it_would_start(make_app: MakeApp) -> None:
    """TESTING set after init_app() counts."""
    app, wxjsapi = make_app(TESTING=False)
    app.testing = True
    with app.app_context():
        assert wxjsapi.ticket
    assert not threads_of(app)


def test_switched_off_there_is_none(make_app: MakeApp) -> None:
    """BACKGROUND_REFRESH = False: no thread, whoever wants one."""
    app, wxjsapi = make_app(TESTING=False, WXJSAPI_BACKGROUND_REFRESH=False)
    wxjsapi.start(app)
    with app.app_context():
        assert wxjsapi.ticket
    assert not threads_of(app)


@pytest.mark.parametrize("count", [2, 5])
def test_there_is_one_however_many_accounts(
    make_app: MakeApp, sandbox: Sandbox, count: int
) -> None:
    """Each account's first use finds the thread of the app."""
    app, wxjsapi = make_app(TESTING=False)
    accounts = [wxjsapi]
    for number in range(1, count):
        app.config.update(
            {
                f"A{number}_WXJSAPI_APP_ID": sandbox.app_id,
                f"A{number}_WXJSAPI_APP_SECRET": sandbox.app_secret,
                f"A{number}_WXJSAPI_API_BASE_URL": sandbox.url,
            }
        )
        accounts.append(WxJsApi(app, name=f"a{number}"))
    with app.app_context():
        for account in accounts:
            assert account.ticket
    assert len(threads_of(app)) == 1
    for account in accounts:
        account.close(app)


def test_start_fetches_without_a_request(make_app: MakeApp, sandbox: Sandbox) -> None:
    """post_worker_init: the ticket is there before the first reader."""
    app, wxjsapi = make_app(WXJSAPI_BACKGROUND_REFRESH=True)
    wxjsapi.start(app)
    wait_until(lambda: sandbox.calls["getticket"] == 1, what="the thread has fetched")
    wxjsapi.close(app)


def test_close_lasts_until_start(make_app: MakeApp) -> None:
    """A mere use does not bring the thread back."""
    app, wxjsapi = make_app(WXJSAPI_BACKGROUND_REFRESH=True)
    wxjsapi.start(app)
    (thread,) = threads_of(app)
    wxjsapi.close(app)
    thread.join(20)
    assert not thread.is_alive()
    with app.app_context():
        assert wxjsapi.ticket
    app.test_client().get("/")
    assert not threads_of(app)
    wxjsapi.start(app)
    assert len(threads_of(app)) == 1
    wxjsapi.close(app)


# -- what it attends to ----------------------------------------------------------------------------


class Woken:
    """Stands for the thread: whether it was woken."""

    is_running = True

    def __init__(self) -> None:
        self.wake = threading.Event()


def _kept(worker: Worker) -> Runtime:
    """A worker's runtime with a thread that keeps its ticket warm, as far as it can tell."""
    runtime = worker.engine.runtime()
    runtime._thread = Woken()  # type: ignore[assignment]
    runtime.keep(worker.holding, worker.holding.snapshot())
    return runtime


def test_what_is_new_is_attended_to_at_once(clock: FakeClock) -> None:
    """The thread is woken, and its next tick fetches the ticket."""
    cluster = Cluster(clock)
    runtime = _kept(cluster.worker())
    thread: Any = runtime._thread
    assert thread.wake.is_set()
    runtime.tick()
    assert cluster.calls == (1, 1)


def test_what_is_kept_is_looked_at_every_interval(clock: FakeClock) -> None:
    """The thread sleeps until then, and no longer."""
    cluster = Cluster(clock)
    runtime = _kept(cluster.worker(sync_interval=5))
    runtime.tick()
    assert 4 <= runtime.tick() <= 5


def test_nothing_to_keep_is_a_long_sleep(clock: FakeClock) -> None:
    """With nothing due the thread looks a minute later whether its app is gone."""
    runtime = Cluster(clock).worker().engine.runtime()
    assert runtime.tick() == 60


def test_a_lost_lease_is_tried_for_again_soon(clock: FakeClock) -> None:
    """Though the renewal ended before the look that started it: the look wakes the thread."""
    cluster = Cluster(clock)
    cluster.lease = (FakeLease(cluster, 15), clock.now + 15)
    looks: list[Callable[[], None]] = []

    def spawn(name: str, target: Callable[[], None]) -> None:
        if name == "wxjsapi-look":
            looks.append(target)
            return
        target()
        # The thread meets the end of the renewal while the look is still under way.
        thread.wake.clear()
        assert runtime.tick() == 60

    runtime = _kept(cluster.worker(spawn=spawn))
    thread: Any = runtime._thread
    runtime.tick()
    looks.pop()()
    assert thread.wake.is_set()
    assert runtime.tick() <= 0.35


def test_who_asks_for_the_status_does_not_keep_the_thread_from_trying(clock: FakeClock) -> None:
    """A probe that comes every second would put the next attempt off for ever."""
    cluster = Cluster(clock)
    cluster.upstream.always["access_token"] = DOWN
    worker = cluster.worker(sync_interval=5)
    runtime = _kept(worker)
    runtime.tick()
    calls = sum(cluster.calls)
    for _ in range(10):
        clock.advance(1)
        worker.provider.status(look=False)
        runtime.tick()
    assert sum(cluster.calls) > calls


def test_a_look_that_met_the_thread_leaves_it_its_turn(clock: FakeClock) -> None:
    """The thread wants to renew and finds a status() under way: it comes again at once."""
    cluster = Cluster(clock)
    pending: list[Callable[[], None]] = []
    is_late = [True]

    def spawn(name: str, target: Callable[[], None]) -> None:
        (pending.append if is_late[0] and name != "wxjsapi-look" else lambda run: run())(target)

    worker = cluster.worker(spawn=spawn)
    runtime = _kept(worker)
    runtime.renew(worker.holding, worker.holding.snapshot(), LOOK)
    runtime.tick()
    is_late[0] = False
    (look,) = pending
    look()
    assert runtime.tick() <= 0.35
    clock.advance(0.4)
    runtime.tick()
    assert cluster.calls == (1, 1)


def test_what_nobody_has_read_for_a_day_is_dropped(clock: FakeClock) -> None:
    """The account's own ticket is kept warm all the same."""
    cluster = Cluster(clock)
    worker = cluster.worker()
    worker.provider.get("wx_card_ticket")
    runtime = _kept(worker)
    runtime.tick()
    assert len(runtime.kept_of(worker.holding)) == 2
    clock.advance(86401)
    runtime.tick()
    assert [held.kind for held in runtime.kept_of(worker.holding)] == ["jsapi_ticket"]


def test_many_accounts_are_looked_at_in_turns(clock: FakeClock) -> None:
    """100 keys a second, however many there are."""
    cluster = Cluster(clock)
    worker = cluster.worker()
    runtime = _kept(worker)
    for number in range(250):
        runtime.keep(worker.holding, worker.holding.snapshot(f"kind-{number}"))
        worker.holding.snapshot(f"kind-{number}").read_at = clock.now
    looked: list[int] = []
    runtime.attend = lambda entries: looked.append(len(entries))  # type: ignore[assignment, return-value, func-returns-value]
    pauses = []
    for _ in range(3):
        pauses.append(runtime.tick())
        clock.advance(1)
    assert looked == [100, 100, 51]
    assert min(pauses[:2]) >= 1


def test_hosts_without_a_common_lease_spread_their_renewals(clock: FakeClock) -> None:
    """Each at another time within the lead, and never beyond it."""
    cluster = Cluster(clock)
    worker = cluster.worker()
    worker.ticket()
    snapshot = worker.holding.snapshot()
    runtime = worker.engine.runtime()
    refresh_at = snapshot.refresh_at(200)
    assert runtime.due_at(worker.holding, snapshot) == refresh_at
    assert snapshot.credential is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(cluster.cache), "has_common_lease", False)
        due = set()
        for number in range(20):
            patch.setattr("socket.gethostname", lambda number=number: f"host-{number}")
            due.add(runtime.due_at(worker.holding, snapshot))
    assert len(due) == 20
    assert min(due) >= refresh_at
    assert max(due) < snapshot.credential.usable_until


def _many(worker: Worker, count: int) -> list[Snapshot]:
    """Snapshots of kinds that were read just now, kept warm."""
    snapshots = [worker.holding.snapshot(f"kind-{number}") for number in range(count)]
    for snapshot in snapshots:
        snapshot.read_at = worker.engine.clock.time()
        worker.engine.runtime().keep(worker.holding, snapshot)
    return snapshots


def test_a_look_at_many_is_one_question(clock: FakeClock) -> None:
    """However many accounts share the store."""
    cluster = Cluster(clock)
    worker = cluster.worker(spawn=lambda name, target: target() if "look" in name else None)
    runtime = _kept(worker)
    _many(worker, 49)
    questions: list[int] = []
    find = cluster.cache.find_many

    def note(keys: Any) -> Any:
        questions.append(len(list(keys)))
        return find(keys)

    cluster.cache.find_many = note  # type: ignore[method-assign]
    runtime.tick()
    assert questions == [50]


def test_what_is_due_soon_is_looked_at_together(clock: FakeClock) -> None:
    """One question for all that are due within a fifth of an interval."""
    cluster = Cluster(clock)
    worker = cluster.worker(sync_interval=5)
    runtime = _kept(worker)
    looked: list[int] = []
    runtime.attend = lambda entries: looked.append(len(entries))  # type: ignore[assignment, return-value, func-returns-value]
    snapshots = _many(worker, 3)
    for late, snapshot in zip((0.5, 0.9, 1.1), snapshots, strict=True):
        runtime._schedule.put((worker.holding, snapshot), clock.monotonic() + late)
    runtime.tick()
    assert looked == [3]


def test_looks_at_many_accounts_are_as_rare_as_there_are_many(clock: FakeClock) -> None:
    """A thousand keys take ten seconds at a hundred a second; a few are looked at as configured."""
    cluster = Cluster(clock)
    worker = cluster.worker(sync_interval=5)
    runtime = _kept(worker)
    entry = (worker.holding, worker.holding.snapshot())
    assert runtime._interval(entry) == 5
    _many(worker, 999)
    assert runtime._interval(entry) * 0.8 >= 10


def test_what_is_fresh_is_not_renewed_by_a_look(clock: FakeClock) -> None:
    """A look is one question to the store, and no renewal begins."""
    worker = Cluster(clock).worker()
    worker.ticket()
    runtime = _kept(worker)
    runtime.renew = lambda *_: pytest.fail("it is renewed")  # type: ignore[method-assign]
    for _ in range(3):
        clock.advance(5)
        runtime.tick()
    assert worker.holding.snapshot().looked_at == clock.now


def test_what_failed_is_not_renewed_by_a_look(clock: FakeClock) -> None:
    """In a pause WeChat is left alone; the thread comes when it is over."""
    cluster = Cluster(clock)
    cluster.upstream.faults["access_token"] = [says(40125)]
    runtime = _kept(cluster.worker())
    for _ in range(100):
        runtime.tick()
        clock.advance(5)
    assert cluster.calls == (1, 0)
    for _ in range(150):
        runtime.tick()
        clock.advance(5)
    assert cluster.calls == (2, 1)


def test_the_thread_comes_when_a_pause_is_over(clock: FakeClock) -> None:
    """And not only with its next look."""
    cluster = Cluster(clock)
    cluster.upstream.faults["access_token"] = [DOWN]
    runtime = _kept(cluster.worker(sync_interval=60))
    runtime.tick()
    assert 0.7 <= runtime.tick() <= 1
    clock.advance(1)
    runtime.tick()
    assert cluster.calls == (2, 1)


def test_the_thread_is_woken_for_what_comes_sooner(clock: FakeClock) -> None:
    """A renewal has ended while it sleeps: its next time may be before the thread wakes up."""
    cluster = Cluster(clock)
    worker = cluster.worker()
    runtime = _kept(worker)
    thread: Any = runtime._thread
    worker.ticket()
    runtime.tick()
    runtime.tick()
    thread.wake.clear()
    clock.advance(1)
    runtime._plan((worker.holding, worker.holding.snapshot()))
    assert not thread.wake.is_set()
    worker.holding.snapshot().credential = None
    runtime._plan((worker.holding, worker.holding.snapshot()), lost_lease=True)
    assert thread.wake.is_set()


def test_what_was_dropped_is_not_planned(clock: FakeClock) -> None:
    """Its renewal was still under way."""
    worker = Cluster(clock).worker()
    runtime = worker.engine.runtime()
    runtime._plan((worker.holding, worker.holding.snapshot()))
    assert runtime.next_at is None


def test_an_account_that_stops_is_kept_no_longer(clock: FakeClock) -> None:
    """The thread goes on for the others, and ends with the last one."""
    cluster = Cluster(clock)
    first, second = cluster.worker(), cluster.worker()
    second.engine = second.provider._engine = first.engine
    runtime = _kept(first)
    runtime.keep(second.holding, second.holding.snapshot())
    thread: Any = runtime._thread
    stopped: list[int] = []
    thread.stop = lambda: stopped.append(1)
    first.provider.stop()
    assert not runtime.is_kept(first.holding, first.holding.snapshot())
    assert runtime.is_kept(second.holding, second.holding.snapshot())
    assert stopped == []
    second.provider.stop()
    assert stopped == [1]
    assert runtime.next_at is None


def test_a_cache_that_cannot_be_made_has_no_lease_of_its_host(clock: FakeClock) -> None:
    """A backend that connects when it is made: the schedule goes on without."""

    def refuse() -> str:
        raise ConnectionError("Connection refused")

    worker = Cluster(clock).worker()
    worker.ticket()
    worker.holding.plan = Plan(refuse, lambda: pytest.fail("it is made"))
    snapshot, runtime = worker.holding.snapshot(), worker.engine.runtime()
    assert runtime.due_at(worker.holding, snapshot) == snapshot.refresh_at(200)


# -- renewals at once ------------------------------------------------------------------------------


class Hanging:
    """A worker whose renewals begin and do not end by themselves."""

    def __init__(self, clock: FakeClock) -> None:
        self.targets: list[Callable[[], None]] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.worker = Cluster(clock).worker(
            spawn=lambda name, target: self.targets.append(target), call_later=self._call_later
        )
        self.runtime = self.worker.engine.runtime()
        self._clock = clock

    def _call_later(self, seconds: float, target: Callable[[], None]) -> Callable[[], None]:
        self.timers.append((seconds, target))
        return lambda: None

    def pass_time(self) -> None:
        """Until the one timer that is set has come."""
        ((seconds, target),) = self.timers
        self.timers.clear()
        self._clock.advance(seconds)
        target()

    def want(self, kind: str, purpose: Purpose = NEED, *, is_doubtful: bool = False) -> Renewal:
        snapshot = self.worker.holding.snapshot(kind)
        if is_doubtful:
            now = self.runtime.clock.time()
            snapshot.back_off = BackOff(1, now, 1, now, DOWN)
        return self.runtime.renew(self.worker.holding, snapshot, purpose)[0]

    @property
    def begun(self) -> list[str]:
        return sorted(renewal.snapshot.kind for renewal in self.runtime._turns.under_way)


@pytest.fixture
def hanging(clock: FakeClock) -> Hanging:
    return Hanging(clock)


def test_a_snapshot_has_one_renewal_at_a_time(hanging: Hanging) -> None:
    """Whoever wants another joins it."""
    first = hanging.want("kind")
    assert hanging.want("kind", KEEP) is first
    assert len(hanging.targets) == 1


def test_eight_renewals_are_under_way_at_once(hanging: Hanging) -> None:
    """The next one begins when one of them ends."""
    for number in range(10):
        hanging.want(f"kind-{number}")
    assert len(hanging.targets) == 8
    hanging.targets[0]()
    assert len(hanging.targets) == 9


def test_four_of_them_may_be_of_those_that_failed(hanging: Hanging) -> None:
    """So that accounts whose secret is wrong keep no other waiting."""
    for number in range(6):
        hanging.want(f"failed-{number}", is_doubtful=True)
    assert len(hanging.begun) == 4
    for number in range(4):
        hanging.want(f"good-{number}")
    assert [kind for kind in hanging.begun if "good" in kind] == [f"good-{n}" for n in range(4)]


def test_readers_come_before_the_thread(hanging: Hanging) -> None:
    """Somebody waits for theirs."""
    for number in range(8):
        hanging.want(f"kind-{number}")
    hanging.want("the thread's", KEEP)
    hanging.want("a reader's", NEED)
    hanging.targets[0]()
    assert "a reader's" in hanging.begun
    assert "the thread's" not in hanging.begun


def test_slow_ones_keep_the_others_waiting_for_a_second(hanging: Hanging) -> None:
    """Twenty accounts that hang, all read for the first time, and then one that does not."""
    for number in range(20):
        hanging.want(f"slow-{number}")
    hanging.want("good")
    seconds = 0.0
    while "good" not in hanging.begun:
        seconds += hanging.timers[0][0]
        hanging.pass_time()
    assert len(hanging.begun) == 21
    assert seconds < 2.5
    assert hanging.timers == []  # nobody waits


def test_slow_ones_are_no_more_than_their_threads_may_be(hanging: Hanging) -> None:
    """Beyond that they wait like the others."""
    for number in range(50):
        hanging.want(f"slow-{number}")
    while hanging.timers:
        hanging.pass_time()
    assert len(hanging.begun) == 32
    hanging.targets[0]()
    assert len(hanging.begun) == 32
    assert len(hanging.targets) == 33


def test_slow_ones_that_failed_before_are_four(hanging: Hanging) -> None:
    """However long they take, their like waits for them, and nobody else does."""
    for number in range(6):
        hanging.want(f"failed-{number}", is_doubtful=True)
    while hanging.timers:
        hanging.pass_time()
    assert len(hanging.begun) == 4
    for number in range(8):
        hanging.want(f"good-{number}")
    assert len(hanging.begun) == 12


def test_slow_ones_of_the_thread_do_not_keep_it_from_the_others(hanging: Hanging) -> None:
    """Tickets that are due go on being renewed."""
    for number in range(4):
        hanging.want(f"slow-{number}", KEEP)
    for number in range(4):
        hanging.want(f"failed-{number}", KEEP, is_doubtful=True)
    hanging.want("good", KEEP)
    assert "good" not in hanging.begun
    hanging.pass_time()
    assert "good" in hanging.begun


def test_a_person_comes_before_the_thread_where_it_failed_before(hanging: Hanging) -> None:
    """``refresh()`` of an account that was put right, in an outage of many."""
    for number in range(40):
        hanging.want(f"failed-{number}", KEEP, is_doubtful=True)
    hanging.want("a person's", FORCE, is_doubtful=True)
    hanging.targets[0]()
    assert "a person's" in hanging.begun


def test_without_a_timer_the_queue_goes_on_when_one_ends(clock: FakeClock) -> None:
    """The system has no more threads."""
    hanging = Hanging(clock)

    def refuse(seconds: float, target: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("can't start new thread")

    hanging.runtime.threads.call_later = refuse
    for number in range(10):
        hanging.want(f"kind-{number}")
    hanging.targets[0]()
    assert len(hanging.targets) == 9


def test_who_hears_what_was_changed_keeps_no_reader_waiting(hanging: Hanging) -> None:
    """A wave of renewals elsewhere, and a loader that is slow: nobody waits for its answers."""
    for number in range(40):
        hanging.want(f"heard-{number}", HEAR)
    assert len(hanging.begun) == 4
    hanging.want("a reader's")
    assert "a reader's" in hanging.begun


def test_one_that_hangs_makes_room(hanging: Hanging, clock: FakeClock) -> None:
    """For its successor, once: what it does at last is not counted again."""
    first = hanging.want("kind")
    clock.advance(15)
    hanging.runtime.threads.reap()
    second = hanging.want("kind")
    assert second is not first
    hanging.targets[0]()
    assert hanging.runtime.flight(second.snapshot) is second
    assert hanging.begun == ["kind"]


def test_of_many_accounts_each_may_lose_one_thread(
    hanging: Hanging, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its next renewal fails at once, until that one comes back; a forked child has lost none."""
    hanging.worker.holding.reload = lambda: False
    hanging.want("kind")
    clock.advance(15)
    second = hanging.want("kind")
    assert "hangs, and no other is started" in str(second.error)
    with monkeypatch.context() as fork:
        fork.setattr(os, "getpid", lambda: hanging.runtime.pid + 1)
        child = hanging.worker.engine.runtime()
        child.renew(hanging.worker.holding, hanging.worker.holding.snapshot("kind"), NEED)
        assert len(child._turns.under_way) == 1
    hanging.targets[0]()
    third = hanging.want("kind")
    assert third.error is None


# -- looks that go wrong ---------------------------------------------------------------------------


def test_no_other_look_begins_while_one_is_under_way(hanging: Hanging, clock: FakeClock) -> None:
    """The store may hang: one thread is enough to find that out."""
    runtime = _kept(hanging.worker)
    for _ in range(3):
        runtime.tick()
        _many(hanging.worker, 3)
        clock.advance(2)
    assert len(hanging.targets) == 1
    hanging.targets.pop()()
    runtime.tick()
    assert hanging.targets


def test_the_later_of_two_looks_is_the_one_under_way(hanging: Hanging) -> None:
    """A reader or a command began it beside the thread's."""
    runtime = _kept(hanging.worker)
    entries = [(hanging.worker.holding, hanging.worker.holding.snapshot())]
    first, second = runtime.attend(entries), runtime.attend(entries)
    hanging.targets.pop(0)()
    assert first.done.is_set()
    assert not second.done.is_set()
    runtime.tick()
    assert len(hanging.targets) == 2  # the second, and a renewal


def test_looks_that_hang_are_fewer_and_fewer(
    hanging: Hanging, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each costs a thread; the log has the first."""
    runtime = _kept(hanging.worker)
    pauses = []
    for _ in range(3):
        runtime.tick()
        clock.advance(15)
        runtime.threads.reap()
        pauses.append(runtime.next_at - clock.now if runtime.next_at else 0)
        clock.advance(pauses[-1])
    assert pauses == pytest.approx([10, 20, 40])
    for target in hanging.targets:
        target()
    assert caplog.text.count("A look at the store hangs") == 1


def test_without_a_thread_for_it_a_look_is_over(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody waits for it, and the next one comes."""

    def refuse(name: str, target: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    worker = Cluster(clock).worker(spawn=refuse)
    runtime = _kept(worker)
    runtime.tick()
    assert 4 <= runtime.tick() <= 5
    assert caplog.text.count("A thread cannot start: can't start new thread.") == 1


def test_a_look_that_breaks_is_logged(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever nobody foresaw, the next look comes."""
    worker = Cluster(clock).worker()
    runtime = _kept(worker)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Look, "_look", lambda *_: 1 / 0)
        runtime.tick()
    assert "A look at the store broke: ZeroDivisionError" in caplog.text
    assert 4 <= runtime.tick() <= 5


# -- processes -------------------------------------------------------------------------------------


def test_another_process_has_a_runtime_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed PID means new locks, a new thread, other random numbers and new connections."""
    app = App()
    engine = Engine(app)
    ours = engine.runtime()
    assert engine.runtime() is ours
    with monkeypatch.context() as fork:
        fork.setattr(os, "getpid", lambda: ours.pid + 1)
        theirs = engine.runtime()
        assert theirs is not ours
        assert theirs.pid == ours.pid + 1
    assert theirs._lock is not ours._lock
    assert theirs.stores is not ours.stores
    assert theirs.random is not ours.random
    assert isinstance(theirs.random, random.Random)
    assert engine.runtime() is ours


def _read_in_child(app: Flask, wxjsapi: WxJsApi, pipe: Any) -> None:
    with app.app_context():
        before = len(_running(app))
        ticket = wxjsapi.ticket
        app.test_client().get("/")
        pipe.send((os.getpid(), before, ticket, len(_running(app))))


def _running(app: Flask) -> list[threading.Thread]:
    return [thread for thread in threads_of(app) if thread.is_alive()]


@pytest.mark.processes
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_child_goes_on_with_the_ticket_and_a_thread_of_its_own(
    make_app: MakeApp, sandbox: Sandbox
) -> None:
    """After a fork there is no lock to hang on, no call to make and a new thread."""
    app, wxjsapi = make_app(WXJSAPI_BACKGROUND_REFRESH=True)
    with app.app_context():
        ticket = wxjsapi.ticket
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_read_in_child, args=(app, wxjsapi, theirs))
    child.start()
    assert ours.poll(60)
    pid, threads_before, childs_ticket, threads_after = ours.recv()
    child.join(60)
    wxjsapi.close(app)
    assert pid != os.getpid()
    assert (threads_before, childs_ticket, threads_after) == (0, ticket, 1)
    assert child.exitcode == 0
    assert dict(sandbox.calls) == {"stable_token": 1, "getticket": 1}


_QUICK_EXIT = """
import sys
from flask import Flask
from flask_wxjsapi import WxJsApi
app = Flask("quick")
app.config.update(WXJSAPI_APP_ID="wx1", WXJSAPI_APP_SECRET="s", WXJSAPI_API_BASE_URL=sys.argv[1])
app.config["WXJSAPI_REFRESH_TIMEOUT"] = 600
wxjsapi = WxJsApi(app)
wxjsapi.start(app)
input()
"""


@pytest.mark.processes
def test_the_exit_does_not_wait_for_wechat() -> None:
    """A process that ends in mid-refresh is gone while WeChat still hangs."""
    with Sandbox("wx1", "s").serve() as sandbox:
        sandbox.fail("hang", times=None)
        process = subprocess.Popen(
            [sys.executable, "-c", _QUICK_EXIT, sandbox.url], stdin=subprocess.PIPE
        )
        wait_until(lambda: sandbox.calls["stable_token"] == 1, 120, "it waits for WeChat")
        process.communicate(b"\n", timeout=30)  # WeChat hangs for 60 s, or until this block ends
        assert process.returncode == 0
