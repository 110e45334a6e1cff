"""Threads for what may hang: how many are lost, and what is told to whom."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from flask_wxjsapi._engine.threads import MOST_LOST, NoThread, Threads, call_later, spawn

from ..conftest import FakeClock


class Job:
    """One that is over ten seconds from now, and notes what is done with it."""

    name = "wxjsapi-test"
    of = "somebody"

    def __init__(self, clock: FakeClock) -> None:
        self.over_at = clock.monotonic() + 10
        self.done: list[str] = []

    def run(self) -> None:
        self.done.append("run")

    def give_up(self) -> None:
        self.done.append("given up")


class System:
    """What starts threads and timers: when it is told to, or never."""

    def __init__(self, clock: FakeClock) -> None:
        self.pending: list[tuple[str, Callable[[], None]]] = []
        self.timers: list[float] = []
        self.cancelled = 0
        self.refuses: set[str] = set()
        self.threads = Threads(clock.monotonic, self.spawn, self.call_later)

    def spawn(self, name: str, target: Callable[[], None]) -> None:
        if "spawn" in self.refuses:
            raise RuntimeError("can't start new thread")
        self.pending.append((name, target))

    def call_later(self, seconds: float, target: Callable[[], None]) -> Callable[[], None]:
        if "timer" in self.refuses:
            raise RuntimeError("can't start new thread")
        self.timers.append(seconds)
        return self._cancel

    def _cancel(self) -> None:
        self.cancelled += 1

    def run_next(self) -> None:
        self.pending.pop(0)[1]()


@pytest.fixture
def system(clock: FakeClock) -> System:
    return System(clock)


def _lose(system: System, clock: FakeClock, count: int) -> list[Job]:
    jobs = [Job(clock) for _ in range(count)]
    for job in jobs:
        system.threads.start(job)
    clock.advance(10)
    system.threads.reap()
    return jobs


def test_a_job_runs_in_a_thread_of_its_name(system: System, clock: FakeClock) -> None:
    """Once, and is forgotten then."""
    job = Job(clock)
    system.threads.start(job)
    assert [name for name, _ in system.pending] == ["wxjsapi-test"]
    system.run_next()
    clock.advance(20)
    system.threads.reap()
    assert job.done == ["run"]
    assert system.threads.lost == 0


def test_a_job_that_hangs_is_given_up_once(system: System, clock: FakeClock) -> None:
    """At its end, and not before."""
    job = Job(clock)
    system.threads.start(job)
    clock.advance(9.9)
    system.threads.reap()
    assert job.done == []
    clock.advance(0.1)
    for _ in range(3):
        system.threads.reap()
    assert job.done == ["given up"]
    assert system.threads.lost == 1


def test_a_timer_looks_after_a_job(system: System, clock: FakeClock) -> None:
    """Nobody else may come by; it is called off when the job returns."""
    system.threads.start(Job(clock))
    system.run_next()
    assert system.timers == [10.05]
    assert system.cancelled == 1


def test_a_job_runs_without_a_timer_where_there_is_none(system: System, clock: FakeClock) -> None:
    """Whoever comes by finds it."""
    system.refuses.add("timer")
    job = Job(clock)
    system.threads.start(job)
    system.run_next()
    assert job.done == ["run"]


def test_no_more_than_three_are_lost(system: System, clock: FakeClock) -> None:
    """Then nothing is started any more, and who wanted it is told why."""
    _lose(system, clock, MOST_LOST)
    with pytest.raises(NoThread, match="3 threads of this process hang"):
        system.threads.start(Job(clock))
    assert len(system.pending) == MOST_LOST == 3


def test_one_that_comes_back_is_not_lost_any_more(system: System, clock: FakeClock) -> None:
    """There is room for another."""
    _lose(system, clock, MOST_LOST)
    system.run_next()
    system.threads.start(Job(clock))
    assert system.threads.lost == 2


def test_a_job_that_raises_is_forgotten_as_well(system: System, clock: FakeClock) -> None:
    """It is over, and its timer is called off."""
    job = Job(clock)
    job.run = lambda: 1 / 0  # type: ignore[assignment, method-assign, return-value]
    system.threads.start(job)
    with pytest.raises(ZeroDivisionError):
        system.run_next()
    assert system.cancelled == 1
    clock.advance(20)
    system.threads.reap()
    assert system.threads.lost == 0


def test_a_system_without_threads_says_so(system: System, clock: FakeClock) -> None:
    """And the job does not count as one that hangs."""
    system.refuses.add("spawn")
    with pytest.raises(NoThread, match="can't start new thread"):
        system.threads.start(Job(clock))
    clock.advance(20)
    system.threads.reap()
    assert system.threads.lost == 0


def test_three_things_may_hang_aside(system: System) -> None:
    """What comes then stays undone: nobody waits for it."""
    done: list[int] = []
    for number in range(5):
        system.threads.aside(lambda number=number: done.append(number))  # type: ignore[misc]
    assert len(system.pending) == 3
    for _ in range(3):
        system.run_next()
    system.threads.aside(lambda: done.append(5))
    system.run_next()
    assert done == [0, 1, 2, 5]


def test_what_raises_aside_leaves_room(system: System) -> None:
    """For the next one."""
    for _ in range(5):
        system.threads.aside(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
        with pytest.raises(ZeroDivisionError):
            system.run_next()


def test_without_a_thread_it_is_done_here(system: System) -> None:
    """What is to be told is told all the same."""
    system.refuses.add("spawn")
    done: list[int] = []
    system.threads.aside(lambda: done.append(1))
    assert done == [1]


# -- real ones -------------------------------------------------------------------------------------


def test_a_thread_is_a_daemon() -> None:
    """The end of a process does not wait for it."""
    seen: list[tuple[str, bool]] = []
    done = threading.Event()

    def look() -> None:
        thread = threading.current_thread()
        seen.append((thread.name, thread.daemon))
        done.set()

    spawn("wxjsapi-test", look)
    assert done.wait(20)
    assert seen == [("wxjsapi-test", True)]


def test_a_timer_is_a_daemon_and_can_be_called_off() -> None:
    """Nor does it wait for that."""
    cancel = call_later(1000, lambda: None)
    (timer,) = [thread for thread in threading.enumerate() if thread.name == "wxjsapi-timer"]
    assert timer.daemon
    cancel()
    timer.join(20)
    assert not timer.is_alive()
