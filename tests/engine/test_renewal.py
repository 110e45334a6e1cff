"""One attempt: what it asks, when, and what it leaves behind."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_wxjsapi._credential import ACCESS_TOKEN, JSAPI_TICKET, Credential
from flask_wxjsapi._engine.purpose import KEEP, NEED, Purpose
from flask_wxjsapi._engine.renewal import Renewal
from flask_wxjsapi._storage.lease import LocalLease
from flask_wxjsapi._storage.server import TicketServer
from flask_wxjsapi._storage.store import Plan
from flask_wxjsapi.errors import TicketUnavailable, TransportError, WxJsApiError

from ..conftest import FakeClock
from .cluster import DOWN, PREFIX, Cluster, FakeLease, FakeWeChat, Worker, says


@pytest.fixture
def cluster(clock: FakeClock) -> Cluster:
    return Cluster(clock)


class Spawned:
    """Threads that run when they are told to."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], None]] = []
        self.asides: list[Callable[[], None]] = []

    def __call__(self, name: str, target: Callable[[], None]) -> None:
        (self.asides if name == "wxjsapi-aside" else self.jobs).append(target)

    def run(self) -> None:
        while self.jobs:
            self.jobs.pop(0)()


@pytest.fixture
def spawned() -> Spawned:
    return Spawned()


def _begin(worker: Worker, purpose: Purpose = NEED) -> Renewal:
    renewal, _ = worker.provider.runtime.renew(worker.holding, worker.holding.snapshot(), purpose)
    return renewal


def _hang(worker: Worker, cluster: Cluster) -> None:
    """Time passes until the renewal counts as hanging, and its timer finds it."""
    cluster.clock.advance(15)
    worker.provider.runtime.threads.reap()


# -- the store and the lease -----------------------------------------------------------------------


def test_a_stale_ticket_of_the_store_is_enough_for_a_reader(cluster: Cluster) -> None:
    """A cold process hands it out; the renewal is the thread's business."""
    cluster.worker().ticket()
    cluster.clock.advance(7001)
    assert cluster.worker().ticket() == "jsapi_ticket-1"
    assert cluster.calls == (1, 1)


def test_who_waits_goes_on_with_what_the_store_had(cluster: Cluster, spawned: Spawned) -> None:
    """While the attempt asks for the next one; who comes after its end waits for that."""
    cluster.worker().ticket()
    cluster.clock.advance(7001)
    renewal = _begin(cluster.worker(spawn=spawned), KEEP)
    first, seen = renewal.ready, []
    cluster.upstream.meanwhile = lambda: seen.append((first.is_set(), renewal.ready.is_set()))
    spawned.run()
    assert seen == [(True, False)]
    assert renewal.ready.is_set()


def test_one_that_comes_back_too_late_takes_no_lease(cluster: Cluster) -> None:
    """It hung in the store, and nobody would free the lease."""
    leases: list[str] = []
    find = cluster.cache.find_many

    def hang(keys: Any) -> Any:
        cluster.clock.advance(15)
        return find(keys)

    cluster.cache.find_many = hang  # type: ignore[method-assign]
    cluster.cache.lease = lambda key, life: leases.append(key)  # type: ignore[assignment, method-assign, return-value, func-returns-value]
    renewal = _begin(cluster.worker())
    assert str(renewal.error) == "The renewal came back too late."
    assert leases == []


def test_a_lost_record_is_given_back_by_who_has_the_lease(cluster: Cluster) -> None:
    """Not by each process that holds it."""
    worker = cluster.worker()
    worker.ticket()
    cluster.flush()
    cluster.lease = (FakeLease(cluster, 15), cluster.clock.now + 15)  # another process has it
    worker.sync()
    assert cluster.stored() is None
    assert cluster.calls == (1, 1)


def test_nobody_asks_for_what_still_does_while_the_store_is_down(cluster: Cluster) -> None:
    """It failed between the look and the renewal: each process would ask."""
    worker = cluster.worker()
    worker.ticket()
    cluster.clock.advance(7001)
    cluster.take_down()
    assert _begin(worker, KEEP).error is None
    assert cluster.calls == (1, 1)


class Forgetful(TicketServer):
    """It keeps no generation, and its times are those of the day."""

    def __init__(self) -> None:
        self.rows: dict[str, Credential] = {}
        self.saves = 0

    def find(self, key: str) -> Credential | None:
        return self.rows.get(key)

    def save(self, key: str, credential: Credential) -> None:
        self.saves += 1
        self.rows[key] = Credential(
            credential.value, credential.issued_at - 100, credential.expires_at
        )


def test_a_server_that_forgets_is_given_a_record_once_and_named(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """What it gives back looks older for ever: that is no reason to save for ever."""
    server = Forgetful()
    cluster = Cluster(clock, custom=server)
    worker = cluster.worker()
    worker.ticket()
    for _ in range(10):
        clock.advance(5)
        worker.sync()
    assert server.saves <= 2
    assert caplog.text.count("does not give back what was saved") == 1


def test_two_clocks_that_disagree_are_told_once_an_hour(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Each record of the other host would be a line."""
    worker = cluster.worker()

    def told_after_a_record_from_the_future() -> int:
        at = cluster.clock.now + 3600
        cluster.put(Credential(f"at-{at}", at, at + 7200, int(at)))
        worker.sync()
        return caplog.text.count("3600 s ahead of this machine's")

    assert told_after_a_record_from_the_future() == 1
    cluster.clock.advance(60)
    assert told_after_a_record_from_the_future() == 1
    cluster.clock.advance(3600)
    assert told_after_a_record_from_the_future() == 2


# -- asking ----------------------------------------------------------------------------------------


class Timed(FakeWeChat):
    """Notes how long it may take."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.timeouts: list[float] = []

    def fetch(self, kind: str, **options: Any) -> Credential:
        self.timeouts.append(options["timeout"])
        return super().fetch(kind, **options)


def test_a_call_is_over_before_the_renewal(cluster: Cluster) -> None:
    """So that readers hear what became of it."""
    cluster.upstream = wechat = Timed(cluster.clock)
    wechat.delay = 3
    cluster.worker().ticket()
    assert wechat.timeouts == [9, 6]


def test_a_slow_store_leaves_wechat_a_second(cluster: Cluster) -> None:
    """It is not to be blamed for that; and the lease still lives."""
    cluster.upstream = wechat = Timed(cluster.clock)
    find = cluster.cache.find_many

    def slow(keys: Any) -> Any:
        cluster.clock.advance(2.5)
        return find(keys)

    cluster.cache.find_many = slow  # type: ignore[method-assign]
    cluster.worker().ticket()
    assert wechat.timeouts[0] == 1


def test_what_is_told_to_live_longer_than_documented_does_not(cluster: Cluster) -> None:
    """Whatever a provider says; it would outlive the ticket."""

    class Month(FakeWeChat):
        def _answer(self, kind: str, number: int, now: float) -> Credential:
            return Credential(f"{kind}-{number}", now, now + 30 * 86400)

    cluster.upstream = Month(cluster.clock)
    held = cluster.worker().provider.get()
    assert held.expires_at - held.issued_at == 7200


def test_a_stale_token_is_renewed_before_it_is_used(cluster: Cluster) -> None:
    """It could end under the ticket's call."""
    worker = cluster.worker()
    worker.ticket()
    cluster.clock.advance(7001)
    worker.sync()
    assert cluster.upstream.tokens_used == ["access_token-1", "access_token-2"]


def test_a_rejected_token_and_no_other_pauses_for_three_calls(cluster: Cluster) -> None:
    """As many as such an attempt takes."""
    worker = cluster.worker()
    worker.ticket()
    cluster.clock.advance(3000)
    cluster.upstream.faults[JSAPI_TICKET] = [says(40001)]
    cluster.upstream.always[ACCESS_TOKEN] = DOWN
    with pytest.raises(TransportError):
        worker.provider.refresh()
    back_off = worker.holding.snapshot(ACCESS_TOKEN).back_off
    assert back_off is not None
    assert 0.75 * 3 <= back_off.delay <= 3


def test_a_failure_carries_nothing_of_its_frames(cluster: Cluster) -> None:
    """They hold what was being fetched."""

    class Failing(FakeWeChat):
        def fetch(self, kind: str, **options: Any) -> Credential:
            try:
                raise ValueError("secret")
            except ValueError:
                raise TransportError("down")  # noqa: B904 - as careless code does

    cluster.upstream = Failing(cluster.clock)
    error = _begin(cluster.worker()).error
    assert error is not None
    assert error.__traceback__ is error.__context__ is None


def test_one_that_breaks_is_a_failure_like_any_other(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever nobody foresaw: readers are told, the log has its kind and not its text."""
    worker = cluster.worker()

    def break_down() -> str:
        raise ZeroDivisionError("with-a-secret")

    worker.holding.plan = Plan(break_down, lambda: cluster.cache)
    with pytest.raises(TicketUnavailable) as caught:
        worker.ticket()
    assert str(caught.value.__cause__).startswith("The renewal broke: ZeroDivisionError")
    assert "The renewal broke" in caplog.text
    assert "with-a-secret" not in caplog.text


# -- WeChat repeats itself -------------------------------------------------------------------------


def _repeated(clock: FakeClock) -> tuple[Cluster, Worker]:
    """A worker whose ticket was told again, with the 199 s that are left."""
    cluster = Cluster(clock, ticket="remaining")
    worker = cluster.worker()
    worker.ticket()
    clock.advance(7001)
    worker.sync()
    return cluster, worker


def test_a_repeated_ticket_is_asked_for_once_more_half_way(clock: FakeClock) -> None:
    """And then at its end: asking did not help."""
    cluster, worker = _repeated(clock)
    clock.advance(99)
    worker.sync()
    assert cluster.calls[1] == 2
    clock.advance(1)
    worker.sync()
    assert cluster.calls[1] == 3
    clock.advance(90)
    worker.sync()
    assert cluster.calls[1] == 3


def test_a_repeated_ticket_is_handed_out_to_its_last_second(clock: FakeClock) -> None:
    """It is all there is."""
    cluster, worker = _repeated(clock)
    clock.advance(197.9)
    assert worker.ticket() == "jsapi_ticket-1"
    assert cluster.calls[1] == 2


def test_nobody_asks_before_the_end_of_a_repeated_ticket(clock: FakeClock) -> None:
    """The renewal sleeps past it first, and its question is one."""
    cluster, worker = _repeated(clock)
    clock.advance(198.1)
    assert worker.ticket() == "jsapi_ticket-3"
    assert cluster.calls[1] == 3


def test_no_renewal_sleeps_beyond_its_deadline(clock: FakeClock) -> None:
    """Where there is no time to ask again the next attempt does."""
    cluster = Cluster(clock, ticket="remaining", life=0)
    before = clock.now
    assert _begin(cluster.worker(refresh_timeout=1)).error is not None
    assert cluster.calls == (1, 0)
    assert clock.now == before


# -- its outcome -----------------------------------------------------------------------------------


def test_readers_go_on_before_it_is_saved(cluster: Cluster, spawned: Spawned) -> None:
    """The store may be slow; of the token nobody here waits for."""
    renewal = _begin(cluster.worker(spawn=spawned))
    seen: list[tuple[str, bool]] = []
    save = cluster.cache.save

    def note(key: str, credential: Credential) -> None:
        seen.append((key.removeprefix(PREFIX), renewal.ready.is_set()))
        save(key, credential)

    cluster.cache.save = note  # type: ignore[method-assign]
    spawned.run()
    assert seen == [(ACCESS_TOKEN, False), (JSAPI_TICKET, True)]


class Listener(logging.Handler):
    """Notes what is so when the log is told something."""

    def __init__(self, look: Callable[[], object]) -> None:
        super().__init__()
        self.seen: list[object] = []
        self._look = look

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(self._look())


@pytest.fixture
def listen() -> Iterator[Callable[[Callable[[], object]], Listener]]:
    logger, listeners = logging.getLogger("flask_wxjsapi"), []
    level = logger.level

    def listen(look: Callable[[], object]) -> Listener:
        listeners.append(Listener(look))
        logger.addHandler(listeners[-1])
        return listeners[-1]

    logger.setLevel(logging.INFO)
    yield listen
    logger.setLevel(level)
    for listener in listeners:
        logger.removeHandler(listener)


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_told_before_it_is_over(
    cluster: Cluster,
    spawned: Spawned,
    listen: Callable[[Callable[[], object]], Listener],
    fails: bool,
) -> None:
    """A log handler and a signal's receiver may hang, or read the very ticket."""
    worker = cluster.worker(spawn=spawned)
    if fails:
        cluster.upstream.always[JSAPI_TICKET] = DOWN
    renewal = _begin(worker)

    def look() -> tuple[bool, bool]:
        return renewal.done.is_set(), cluster.lease[0] is None

    listener = listen(look)
    told: list[object] = []
    worker.holding.notify = lambda event, facts: told.append(look())
    spawned.run()
    assert listener.seen == [(True, True)] * 2
    assert told == [(True, True)] * 2


def test_a_success_elsewhere_leaves_no_failure_to_tell(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came in between: others are not held up by what is over."""
    worker = cluster.worker()
    share = Renewal._share

    def adopt(renewal: Renewal, error: WxJsApiError | None) -> None:
        share(renewal, error)
        now = cluster.clock.now
        worker.holding.snapshot(ACCESS_TOKEN).hold(
            Credential("theirs", now, now + 7200, int(now)), 0, is_own=False
        )

    monkeypatch.setattr(Renewal, "_share", adopt)
    cluster.upstream.always[ACCESS_TOKEN] = DOWN
    assert _begin(worker).error is DOWN
    assert cluster.cache.read(f"{PREFIX}backoff.{ACCESS_TOKEN}") is None
    assert worker.events == []


def test_a_verdict_on_an_address_pauses_its_host_alone(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its other processes know as well; those of another host ask."""
    refused, same, other = cluster.workers(3)
    monkeypatch.setattr(socket, "gethostname", lambda: "refused")
    cluster.upstream.faults[ACCESS_TOKEN] = [says(40164)]
    for worker in (refused, same):
        with pytest.raises(TicketUnavailable):
            worker.ticket()
    assert cluster.calls == (1, 0)
    monkeypatch.setattr(socket, "gethostname", lambda: "other")
    assert other.ticket() == "jsapi_ticket-1"


# -- one that hangs --------------------------------------------------------------------------------


def test_one_that_hangs_counts_as_failed(
    cluster: Cluster, spawned: Spawned, caplog: pytest.LogCaptureFixture
) -> None:
    """Readers are told, the next attempt waits for twice the usual pause, the log has one line."""
    worker = cluster.worker(spawn=spawned)
    renewal = _begin(worker)
    _hang(worker, cluster)
    assert renewal.done.is_set()
    snapshot = worker.holding.snapshot()
    assert "hangs" in str(snapshot.failure)
    assert snapshot.back_off is not None
    assert 1.5 <= snapshot.back_off.delay <= 2
    cluster.clock.advance(3)
    _begin(worker)
    _hang(worker, cluster)
    for aside in spawned.asides:
        aside()
    assert caplog.text.count("A renewal hangs") == 1


def test_one_that_hangs_ends_at_its_deadline_and_not_before(
    cluster: Cluster, spawned: Spawned
) -> None:
    """The timeout, and what its lease lives longer."""
    worker = cluster.worker(spawn=spawned)
    renewal = _begin(worker)
    cluster.clock.advance(14.9)
    worker.provider.runtime.threads.reap()
    assert not renewal.done.is_set()
    cluster.clock.advance(0.1)
    worker.provider.runtime.threads.reap()
    assert renewal.done.is_set()


def test_one_that_hangs_gives_a_file_back_at_once(cluster: Cluster, spawned: Spawned) -> None:
    """It has no life of its own, and its release cannot hang."""
    holders: dict[tuple[int, str], LocalLease] = {}
    cluster.cache.lease = lambda key, life: LocalLease(holders, key)  # type: ignore[assignment, method-assign, return-value]
    worker = cluster.worker(spawn=spawned)
    seen: list[int] = []

    def hang() -> None:
        seen.append(len(holders))
        _hang(worker, cluster)
        seen.append(len(holders))

    cluster.upstream.meanwhile = hang
    _begin(worker)
    spawned.run()
    assert seen == [1, 0]


def test_one_that_hangs_gives_any_other_lease_back_aside(
    cluster: Cluster, spawned: Spawned
) -> None:
    """Redis may be what hangs; and the timer looks after others, too."""
    worker = cluster.worker(spawn=spawned)
    seen: list[bool] = []

    def hang() -> None:
        _hang(worker, cluster)
        cluster.lease = (cluster.lease[0], cluster.clock.now + 100)
        seen.append(cluster.lease[0] is None)
        for aside in spawned.asides:
            aside()
        seen.append(cluster.lease[0] is None)

    cluster.upstream.meanwhile = hang
    _begin(worker)
    spawned.run()
    assert seen == [False, True]


def test_what_one_that_hung_fails_with_at_last_counts_no_more(
    cluster: Cluster, spawned: Spawned
) -> None:
    """It has failed already, and others have gone on."""
    worker = cluster.worker(spawn=spawned)
    cluster.upstream.meanwhile = lambda: _hang(worker, cluster)
    cluster.upstream.faults[ACCESS_TOKEN] = [says(40125)]
    renewal = _begin(worker)
    spawned.run()
    assert "hangs" in str(renewal.error)
    back_off = worker.holding.snapshot(ACCESS_TOKEN).back_off
    assert back_off is not None
    assert "hangs" in str(back_off.error)
    assert cluster.cache.read(f"{PREFIX}backoff.{ACCESS_TOKEN}") is None
    assert worker.events == []


def test_what_is_over_is_neither_given_up_nor_failed(cluster: Cluster) -> None:
    """Its timer came in the same moment as its end."""
    worker = cluster.worker()
    renewal = _begin(worker)
    renewal.give_up()
    renewal.fail(DOWN)
    assert renewal.error is None
    assert worker.holding.snapshot().back_off is None
