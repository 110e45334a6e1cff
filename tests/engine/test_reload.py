"""What an account's loader is asked before a fetch, and what follows from its answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flask_wxjsapi._credential import ACCESS_TOKEN, JSAPI_TICKET, State
from flask_wxjsapi._engine.purpose import KEEP, NEED
from flask_wxjsapi._engine.snapshot import Holding
from flask_wxjsapi._storage.store import Keys
from flask_wxjsapi.errors import TicketUnavailable, UnknownAccount, WxJsApiError

from ..conftest import FakeClock
from .cluster import DOWN, Cluster, Worker

TIMEOUT = 10.0


@pytest.fixture
def cluster(clock: FakeClock) -> Cluster:
    return Cluster(clock)


class Loader:
    """What a loader says each time; and whether the account was let go."""

    def __init__(self, worker: Worker, *answers: bool | WxJsApiError) -> None:
        self.asked = 0
        self.is_gone = False
        self._answers = list(answers)
        self.holding = worker.holding
        self.holding.reload, self.holding.gone = self.reload, self.go

    def reload(self) -> bool:
        self.asked += 1
        answer = self._answers.pop(0) if self._answers else False
        if isinstance(answer, WxJsApiError):
            raise answer
        return answer

    def go(self) -> None:
        self.is_gone = True


def move(holding: Holding, prefix: str, digest: str = "settings-2") -> bool:
    return holding.change(holding.upstream, Keys(lambda: prefix), digest)


# -- before a fetch --------------------------------------------------------------------------------


def test_it_is_asked_before_a_fetch_and_not_for_a_read(cluster: Cluster) -> None:
    """Nor for what another process has fetched."""
    worker, other = cluster.worker(), cluster.worker()
    loader, others = Loader(worker), Loader(other)
    worker.ticket()
    worker.ticket()
    other.ticket()
    assert (loader.asked, others.asked) == (1, 0)
    cluster.clock.advance(7001)
    worker.sync()
    other.sync()
    assert (loader.asked, others.asked) == (2, 1)  # see below


def test_a_failure_of_its_loader_is_a_failed_renewal(cluster: Cluster) -> None:
    """WeChat is not asked; the ticket goes on to its end; the pause is the ordinary one."""
    worker = cluster.worker()
    loader = Loader(worker, False, WxJsApiError("down"))
    ticket = worker.ticket()
    cluster.clock.advance(7001)
    worker.sync()
    assert worker.ticket() == ticket
    status = worker.provider.status()
    assert (status.state, status.last_error) == ("stale", "down")
    assert cluster.calls == (1, 1)
    cluster.clock.advance(2)
    worker.sync()
    assert worker.ticket() != ticket
    assert loader.asked == 3


def test_whoever_adopts_a_newer_ticket_hears_the_loader_too(cluster: Cluster) -> None:
    """What another process has heard of the page's settings counts in this one: once, without the
    lease, and without a pause where the loader fails.
    """
    worker, other = cluster.worker(), cluster.worker()
    Loader(worker)
    others = Loader(other, WxJsApiError("down"))
    worker.ticket()
    other.ticket()
    other.sync()
    assert others.asked == 0  # it has come from the store, right after the loader's first answer
    worker.provider.refresh()
    for asked in (1, 1):
        cluster.clock.advance(5)
        other.sync()
        assert others.asked == asked
    assert other.ticket() == worker.ticket()
    assert other.provider.status().last_error is None
    assert cluster.calls == (1, 2)


def test_an_account_that_is_gone_ends_for_every_process(cluster: Cluster) -> None:
    """What is left of it is withdrawn from the store."""
    worker, other = cluster.worker(), cluster.worker()
    worker.ticket()
    other.ticket()
    gone = [UnknownAccount("wx1")] * 5
    loader, others = Loader(worker, *gone), Loader(other, *gone)
    cluster.clock.advance(1)
    with pytest.raises(UnknownAccount):
        worker.provider.refresh()
    assert loader.is_gone
    for _ in range(2):
        with pytest.raises(UnknownAccount):
            worker.ticket()
    other.sync()  # it sees that, and asks its own loader
    assert others.is_gone
    with pytest.raises(UnknownAccount):
        other.ticket()
    assert cluster.calls == (1, 1)
    assert cluster.stored(ACCESS_TOKEN).state(cluster.clock.now, 200) is State.INVALID  # type: ignore[union-attr]


def test_an_account_that_is_gone_leaves_no_pause(cluster: Cluster) -> None:
    """It can come back at once."""
    worker = cluster.worker()
    Loader(worker, UnknownAccount("wx1"))
    with pytest.raises(UnknownAccount):
        worker.ticket()
    again = cluster.worker()
    Loader(again)
    assert again.ticket()
    assert cluster.lease == (None, 0.0)


# -- when the answer is another one ----------------------------------------------------------------


def test_other_keys_have_another_lease(cluster: Cluster) -> None:
    """The attempt is made once more, with the lease that goes with them."""
    worker = cluster.worker()
    loader = Loader(worker)
    old = worker.ticket()
    changes = iter([lambda: move(worker.holding, "wxjsapi:{test/wx2}:")])
    loader.reload = lambda: next(changes, lambda: False)()  # type: ignore[method-assign]
    worker.holding.reload = loader.reload
    assert worker.provider.refresh().value != old
    assert cluster.lease == (None, 0.0)
    assert cluster.cache.find("wxjsapi:{test/wx2}:jsapi_ticket") is not None
    assert worker.ticket() != old


def test_a_loader_that_never_says_the_same_is_asked_twice(cluster: Cluster) -> None:
    """And then the attempt is over."""
    worker = cluster.worker()
    prefixes = (f"wxjsapi:{{test/wx{number}}}:" for number in range(2, 100))
    asked: list[bool] = []

    def reload() -> bool:
        asked.append(move(worker.holding, next(prefixes)))
        return asked[-1]

    worker.holding.reload = reload
    with pytest.raises(TicketUnavailable):
        worker.ticket()
    assert asked == [True, True]
    assert cluster.calls == (0, 0)


def test_other_settings_with_the_same_keys_lift_the_pause(cluster: Cluster) -> None:
    """A back-off belongs to the settings it happened with; a ticket that is valid stays."""
    worker = cluster.worker()
    Loader(worker)
    ticket = worker.ticket()
    token = worker.holding.snapshot(ACCESS_TOKEN)
    cluster.upstream.always[JSAPI_TICKET] = DOWN
    cluster.clock.advance(7001)
    worker.sync()
    assert worker.holding.snapshot().back_off is not None
    assert move(worker.holding, "wxjsapi:{test/wx1}:") is False
    assert worker.holding.snapshot().back_off is None
    assert token.credential is not None
    assert worker.ticket() == ticket


def test_the_same_settings_change_nothing(cluster: Cluster) -> None:
    """A provider that is made anew for each answer is no other setting to the engine."""
    worker = cluster.worker()
    worker.ticket()
    worker.holding.snapshot().failure = DOWN
    assert move(worker.holding, "wxjsapi:{test/wx1}:", worker.holding.digest) is False
    assert worker.holding.snapshot().failure is DOWN


# -- what hangs ------------------------------------------------------------------------------------


class Spawned:
    """Threads that run when they are told to."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], None]] = []

    def __call__(self, name: str, target: Callable[[], None]) -> None:
        if name != "wxjsapi-aside":
            self.jobs.append(target)


def test_an_account_of_many_costs_one_thread(cluster: Cluster) -> None:
    """Its next renewal begins when that one is back; others begin."""
    spawned = Spawned()
    worker = cluster.worker(spawn=spawned)
    Loader(worker)
    runtime, snapshot = worker.provider.runtime, worker.holding.snapshot()
    other = cluster.worker(engine=worker.engine, prefix="wxjsapi:{test/wx2}:")
    Loader(other)
    runtime.renew(worker.holding, snapshot, NEED)
    cluster.clock.advance(15)
    runtime.threads.reap()
    second, _ = runtime.renew(worker.holding, snapshot, NEED)
    assert second.done.is_set()
    assert "hangs" in str(second.error)
    runtime.renew(other.holding, other.holding.snapshot(), NEED)
    assert len(spawned.jobs) == 2
    spawned.jobs.pop(0)()  # it comes back
    third, _ = runtime.renew(worker.holding, snapshot, NEED)
    assert not third.done.is_set()


def test_the_only_account_may_cost_more(cluster: Cluster) -> None:
    """There is no other to be spared."""
    spawned = Spawned()
    worker = cluster.worker(spawn=spawned)
    runtime, snapshot = worker.provider.runtime, worker.holding.snapshot()
    for _ in range(3):
        runtime.renew(worker.holding, snapshot, KEEP)
        cluster.clock.advance(15)
        runtime.threads.reap()
    assert len(spawned.jobs) == 3


# -- what nobody wants -----------------------------------------------------------------------------


def test_what_nobody_has_read_for_a_day_is_let_go(cluster: Cluster) -> None:
    """With the last of its kinds."""
    worker = cluster.worker()
    loader = Loader(worker)
    runtime = worker.provider.runtime
    worker.ticket()
    cluster.clock.advance(43200)
    runtime.tick()
    worker.provider.get(ACCESS_TOKEN)
    cluster.clock.advance(43300)
    runtime.tick()
    assert [snapshot.kind for snapshot in runtime.kept_of(worker.holding)] == [ACCESS_TOKEN]
    assert not loader.is_gone
    cluster.clock.advance(86401)
    runtime.tick()
    assert loader.is_gone
    assert runtime._kept == set()
