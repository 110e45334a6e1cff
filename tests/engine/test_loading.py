"""The first question for an account that comes at run time, and a loader that hangs in it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from flask_wxjsapi import WxJsApiError
from flask_wxjsapi._engine.loading import Loading
from flask_wxjsapi._engine.renewal import under_way
from flask_wxjsapi._engine.runtime import Engine

from ..conftest import FakeClock
from .cluster import App, says


class Loaders:
    """A process whose loaders begin and do not end by themselves."""

    def __init__(self, clock: FakeClock) -> None:
        self.app = App()
        self.clock = clock
        self.targets: list[Callable[[], None]] = []
        self.answers: list[str] = []
        self.runtime = Engine(
            self.app,
            clock=clock,
            spawn=self.spawn,
            call_later=lambda seconds, target: lambda: None,
        ).runtime()

    def spawn(self, name: str, target: Callable[[], None]) -> None:
        (self.targets.append if name == "wxjsapi-loading" else lambda run: run())(target)

    def load(self, key: str, timeout: float = 0.0, load: Callable[[], None] | None = None) -> str:
        """What comes of wanting an account: nothing, or an error's text."""
        ask = load or (lambda: self.answers.append(key))
        try:
            self.runtime.load(key, ask, lambda: None, 10, timeout)
        except WxJsApiError as error:
            return str(error)
        return ""


@pytest.fixture
def loaders(clock: FakeClock) -> Loaders:
    return Loaders(clock)


LATE = "The account_loader did not answer in time."


def test_who_waits_shorter_than_others_leaves_the_question_to_them(loaders: Loaders) -> None:
    """A page's script waits for two seconds, and a reader of the ticket for ten."""
    assert loaders.load("one") == LATE
    assert loaders.load("one") == LATE
    assert len(loaders.targets) == 1
    loaders.targets[0]()
    assert loaders.answers == ["one"]


def test_an_account_whose_loader_hangs_costs_one_thread(loaders: Loaders, clock: FakeClock) -> None:
    """However long, and however many want it: the process has three to lose."""
    for _ in range(10):
        assert loaders.load("one")
        clock.advance(4)
    assert len(loaders.targets) == 1
    assert loaders.runtime.threads.lost == 1
    assert loaders.load("two") == LATE
    assert len(loaders.targets) == 2


def test_who_comes_after_the_time_is_over_does_not_wait(loaders: Loaders, clock: FakeClock) -> None:
    """It takes ten seconds of one reader, and not of each."""
    loaders.load("one")
    clock.advance(10)
    waits: list[float] = []
    loaders.runtime._loadings["one"].done.wait = waits.append  # type: ignore[assignment]
    assert loaders.load("one", timeout=60) == LATE
    assert waits == [0.0]
    clock.advance(5)
    assert loaders.load("one", timeout=60) == "The account_loader hangs."


def test_a_loader_that_has_answered_does_not_hang(clock: FakeClock) -> None:
    """Whatever its thread does then: a log handler may hang, or the machine be busy."""
    hung: list[str] = []
    loading = Loading(lambda: None, clock.monotonic() + 10, lambda: None, lambda: hung.append("x"))
    loading.run()
    loading.give_up()
    assert hung == []
    assert loading.error is None


def test_a_loader_that_comes_back_is_asked_again(loaders: Loaders, clock: FakeClock) -> None:
    """Late as it is, what it says counts."""
    loaders.load("one")
    clock.advance(16)
    assert loaders.load("one") == "The account_loader hangs."
    loaders.targets[0]()
    assert loaders.answers == ["one"]
    assert loaders.runtime.threads.lost == 0
    loaders.load("one")
    assert len(loaders.targets) == 2


def test_without_a_thread_for_it_all_who_want_it_hear_of_that(loaders: Loaders) -> None:
    """Also those who come in the moment in which it is tried."""
    heard: list[str] = []
    joined = threading.Thread(target=lambda: heard.append(loaders.load("one", timeout=60)))

    def refuse(name: str, target: Callable[[], None]) -> None:
        if not joined.ident:
            joined.start()
        raise RuntimeError("can't start new thread")

    loaders.runtime.threads._spawn = refuse
    heard.append(loaders.load("one"))
    joined.join(60)
    assert heard == ["A thread cannot start: can't start new thread."] * 2


def test_the_error_of_a_loader_is_each_callers_own(loaders: Loaders) -> None:
    """Two who share a failure do not share its traceback."""

    def fail() -> None:
        raise says(40013)

    loaders.runtime.threads._spawn = lambda name, target: target()
    errors = []
    for _ in range(2):
        with pytest.raises(WxJsApiError) as caught:
            loaders.runtime.load("one", fail, lambda: None, 10, 10)
        errors.append(caught.value)
    assert errors[0] is not errors[1]


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (says(40001), "WeChat says 40001"),
        (ValueError("of-others"), "Loading an account broke: ValueError"),
        (SystemExit("of-others"), "Loading an account broke: SystemExit"),
    ],
)
def test_what_goes_wrong_is_raised_as_ours(
    loaders: Loaders, raised: BaseException, said: str
) -> None:
    """Without the text of others'."""

    def load() -> None:
        raise raised

    loaders.spawn = lambda name, target: target()  # type: ignore[method-assign]
    loaders.runtime.threads._spawn = loaders.spawn
    problem = loaders.load("one", load=load)
    assert problem.startswith(said)
    assert "of-others" not in problem


def test_code_that_a_renewal_has_called_loads_nothing(loaders: Loaders) -> None:
    """It might wait for itself."""
    with under_way():
        assert "by code that a renewal has called" in loaders.load("one")
    assert loaders.targets == []


def test_where_three_threads_hang_nothing_is_loaded(loaders: Loaders, clock: FakeClock) -> None:
    """None is started until one comes back."""
    for key in ("one", "two", "three"):
        loaders.load(key)
    clock.advance(15)
    assert "3 threads of this process hang" in loaders.load("four")
    loaders.targets[0]()
    assert loaders.load("four") == LATE
