"""A WeChat that repeats itself: reports disagree, and the engine is right in every world."""

from __future__ import annotations

import pytest

from flask_wxjsapi import TicketUnavailable
from flask_wxjsapi._credential import ACCESS_TOKEN, JSAPI_TICKET, Credential

from ..conftest import FakeClock
from .cluster import DOWN, Cluster, FakeWeChat, Worker

WORLDS = ["new", "remaining", "living", "dying"]


class Day:
    """Workers whose threads tick as they would, with a reader that comes by in each second."""

    def __init__(self, clock: FakeClock, world: str, workers: int = 1, life: float = 7200) -> None:
        self.clock = clock
        self.cluster = Cluster(clock, ticket=world, life=life)
        self.workers = self.cluster.workers(workers)
        for worker in self.workers:
            worker.provider.start()
        self.failed_reads = 0
        self.dead_since: dict[str, float] = {}
        self.longest_dead = 0.0
        self.least_left = life

    def pass_by(self, seconds: float, step: float = 1.0) -> None:
        end = self.clock.now + seconds
        while self.clock.now < end:
            for worker in self.workers:
                if self._due_at(worker) <= self.clock.now:
                    worker.provider.runtime.tick()
                self._read(worker)
            next_at = min(map(self._due_at, self.workers))
            self.clock.advance(max(0.01, min(step, next_at - self.clock.now)))

    @staticmethod
    def _due_at(worker: Worker) -> float:
        next_at = worker.provider.runtime.next_at
        assert next_at is not None, "the thread would do nothing any more"
        return next_at

    def _read(self, worker: Worker) -> None:
        try:
            value = worker.ticket()
        except TicketUnavailable:
            self.failed_reads += 1
            return
        left = self.cluster.upstream.dies_at[value] - self.clock.now
        self.least_left = min(self.least_left, left)
        self.longest_dead = max(self.longest_dead, -left)

    @property
    def calls(self) -> int:
        return self.cluster.upstream.calls[JSAPI_TICKET]


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(world, marks=[] if world == "remaining" else pytest.mark.slow)
        for world in WORLDS
    ],
)
def test_a_day_in_each_world(clock: FakeClock, world: str) -> None:
    """No read fails, no ticket is dead for more than a second, at most 60 calls."""
    day = Day(clock, world)
    day.pass_by(86400, step=7)
    assert day.failed_reads == 0
    assert day.longest_dead <= 1
    assert day.calls <= 60


@pytest.mark.parametrize(
    "world", ["dying", *(pytest.param(world, marks=pytest.mark.slow) for world in WORLDS[:3])]
)
def test_three_lifetimes_of_four_workers_in_each_world(clock: FakeClock, world: str) -> None:
    """Four workers cost as many calls as one, and each has the new ticket within a second."""
    day = Day(clock, world, workers=4)
    day.pass_by(3 * 7200, step=11)
    assert day.failed_reads == 0
    assert day.longest_dead <= 1
    assert day.calls <= 15


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("life", [40, 12])
def test_short_lives_in_each_world(clock: FakeClock, world: str, life: float) -> None:
    """The same holds where tickets live for seconds, as in a demo."""
    day = Day(clock, world, workers=4, life=life)
    day.pass_by(20 * life, step=0.1)
    assert day.failed_reads == 0
    assert day.longest_dead <= 1


def test_a_ticket_is_not_handed_out_in_its_last_second(clock: FakeClock) -> None:
    """Where WeChat tells what is left, readers wait for the next one rather than get a dead one."""
    day = Day(clock, "remaining")
    day.pass_by(7300, step=0.1)
    assert day.failed_reads == 0
    assert day.least_left >= 0.9


def test_nothing_is_left_of_a_life(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """``expires_in: 0`` is no failure: the renewal sleeps past the end and asks again."""
    cluster = Cluster(clock, ticket="remaining")
    cluster.worker().ticket()
    clock.advance(7199.5)
    cluster.flush()
    cold = cluster.worker()
    assert cold.ticket() == "jsapi_ticket-3"
    assert cluster.calls[1] == 3
    assert caplog.records == []


def test_a_life_that_is_never_left_is_a_failure(clock: FakeClock) -> None:
    """A WeChat that never tells a life is asked a few times, and then left alone."""
    cluster = Cluster(clock, ticket="remaining", life=0)
    with pytest.raises(TicketUnavailable):
        cluster.worker().ticket()
    assert cluster.calls == (4, 0)


def test_a_ticket_that_lives_on_is_asked_for_every_half_hour(clock: FakeClock) -> None:
    """Beyond the end told first nobody knows: it is asked right after, and then at intervals."""
    day = Day(clock, "living")
    day.pass_by(7200 + 60, step=1)
    before = day.calls
    day.pass_by(5 * 1800, step=5)
    assert day.calls - before in (4, 5)


def test_a_ticket_that_lives_on_is_asked_for_again_once_that_is_sure(clock: FakeClock) -> None:
    """One answer right after its first end is no proof: WeChat counts from when it answers."""
    day = Day(clock, "living")
    day.pass_by(7195, step=5)
    before = day.calls
    day.pass_by(8, step=0.1)
    assert day.calls - before == 1
    day.pass_by(20, step=0.5)
    assert day.calls - before == 2


def test_wechat_is_away_when_a_repeated_ticket_may_have_died(clock: FakeClock) -> None:
    """Nobody gets what may be dead for longer than a minute."""
    day = Day(clock, "dying")
    day.pass_by(7100)
    day.cluster.upstream.always |= {ACCESS_TOKEN: DOWN, JSAPI_TICKET: DOWN}
    day.pass_by(400)
    assert 0 < day.longest_dead <= 60
    assert day.failed_reads > 0


def test_the_record_of_a_repeated_ticket_has_one_field_more(clock: FakeClock) -> None:
    """What was told first, so that every process judges alike."""
    day = Day(clock, "living")
    first = clock.now
    day.pass_by(7100)
    stored = day.cluster.stored()
    assert stored is not None
    assert stored.to_dict()["first"] == (first, first + 7200)


def test_a_provider_that_tells_when_its_token_was_really_issued(clock: FakeClock) -> None:
    """In the token's last 200 s it is asked once or twice, however many workers there are."""
    issued = clock.now - 7000

    class Provider(FakeWeChat):
        def _answer(self, kind: str, number: int, now: float) -> Credential:
            if kind == ACCESS_TOKEN and now < issued + 7200:
                return Credential("theirs", issued, issued + 7200)
            return super()._answer(kind, number, now)

    cluster = Cluster(clock)
    cluster.upstream = Provider(clock)
    workers = cluster.workers(8)
    for worker in workers:
        worker.ticket()
        worker.provider.get(ACCESS_TOKEN)
    for _ in range(190):
        clock.advance(1)
        for worker in workers:
            worker.sync()
            worker.provider.get(ACCESS_TOKEN)
    assert cluster.upstream.calls[ACCESS_TOKEN] <= 3
