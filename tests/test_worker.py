"""The background thread: one per process, which neither dies nor keeps anything alive."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from flask_wxjsapi import WxJsApi
from flask_wxjsapi._engine.worker import Worker
from flask_wxjsapi.sandbox import Sandbox

from .conftest import wait_until


class FakeProvider:
    """Counts its looks; may fail, and says how long to wait."""

    def __init__(self, delay: float = 0.005) -> None:
        self.looks = 0
        self.delay = delay
        self.fault: BaseException | None = None
        self.looked = threading.Condition()

    def sync(self) -> float:
        with self.looked:
            self.looks += 1
            self.looked.notify_all()
        if self.fault is not None:
            raise self.fault
        return self.delay

    def wait_for_looks(self, count: int) -> None:
        with self.looked:
            assert self.looked.wait_for(lambda: self.looks >= count, 20)


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider()


@pytest.fixture
def worker(provider: FakeProvider) -> Iterator[Worker]:
    worker = Worker(provider, provider, "test", lambda: True)  # type: ignore[arg-type]
    yield worker
    worker.stop()
    for thread in _threads():
        thread.join(20)  # or the next test would count it


def _threads(name: str = "wxjsapi-test") -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_it_looks_again_and_again(worker: Worker, provider: FakeProvider) -> None:
    """One thread, started once, that goes on."""
    assert worker.ensure()
    threads = _threads()
    provider.wait_for_looks(3)
    assert worker.ensure()
    assert _threads() == threads


def test_it_is_a_daemon(worker: Worker) -> None:
    """The exit of a process does not wait for it."""
    worker.ensure()
    assert [thread.daemon for thread in _threads()] == [True]


def test_it_survives_every_exception(
    worker: Worker,
    provider: FakeProvider,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What nobody foresaw is logged, without its text, and the thread goes on."""
    monkeypatch.setattr("flask_wxjsapi._engine.worker._PAUSE", 0.005)
    provider.fault = ZeroDivisionError("with-a-secret")
    worker.ensure()
    provider.wait_for_looks(3)
    assert "ZeroDivisionError" in caplog.text
    assert "with-a-secret" not in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_thread_is_replaced_and_the_log_says_so(
    worker: Worker, provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """Even SystemExit, which ends a thread, ends it for no longer than until the next use."""
    provider.fault = SystemExit()
    worker.ensure()
    for thread in _threads():
        thread.join(20)
    assert not _threads()
    provider.fault = None
    assert worker.ensure()
    provider.wait_for_looks(3)
    assert caplog.text.count("died") == 1


def test_many_callers_start_one_thread(provider: FakeProvider) -> None:
    """Of several first uses at once exactly one starts the thread."""
    provider.delay = 60
    worker = Worker(provider, provider, "crowd", lambda: True)  # type: ignore[arg-type]
    barrier = threading.Barrier(32)

    def use() -> None:
        barrier.wait(20)
        worker.ensure()

    threads = [threading.Thread(target=use) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(_threads("wxjsapi-crowd")) == 1
    worker.stop()


def test_a_caller_who_comes_second_uses_the_thread_of_the_first(provider: FakeProvider) -> None:
    """Somebody else starts the thread between the look for one and the start."""
    answers: list[bool] = []

    def another_caller_is_faster() -> bool:
        if not answers:
            answers.append(True)
            answers.append(worker.ensure())
        return True

    provider.delay = 60
    worker = Worker(provider, provider, "second", another_caller_is_faster)  # type: ignore[arg-type]
    answers.append(worker.ensure())
    assert answers == [True, True, True]
    assert len(_threads("wxjsapi-second")) == 1
    worker.stop()


def test_switched_off_there_is_none(provider: FakeProvider) -> None:
    """BACKGROUND_REFRESH = False: no thread."""
    worker = Worker(provider, provider, "off", lambda: False)  # type: ignore[arg-type]
    assert not worker.ensure()
    assert not _threads("wxjsapi-off")


def test_stop_ends_it_and_start_begins_anew(worker: Worker, provider: FakeProvider) -> None:
    """close() lasts until start(): a mere use does not bring the thread back."""
    worker.ensure()
    (thread,) = _threads()
    worker.stop()
    thread.join(20)
    assert not thread.is_alive()
    assert not worker.ensure()
    looks = provider.looks
    assert worker.start()
    provider.wait_for_looks(looks + 2)


def test_a_thread_that_cannot_start_is_no_error(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a thread the extension works as if it were switched off."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert not worker.ensure()
    assert "cannot start" in caplog.text
    monkeypatch.undo()
    assert worker.ensure()


def test_it_ends_when_its_provider_is_gone() -> None:
    """A thread keeps neither provider nor app alive."""
    provider = FakeProvider()
    worker = Worker(provider, provider, "orphan", lambda: True)  # type: ignore[arg-type]
    worker.ensure()
    provider.wait_for_looks(1)
    (thread,) = _threads("wxjsapi-orphan")
    gone = weakref.ref(provider)
    del provider
    thread.join(20)
    assert not thread.is_alive()
    assert gone() is None


MakeApp = Callable[..., tuple[Flask, WxJsApi]]


def _names() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def test_the_first_request_of_any_kind_starts_it(make_app: MakeApp, sandbox: Sandbox) -> None:
    """A 404 will do; and nothing starts before."""
    app, wxjsapi = make_app(
        name="first",
        TESTING=False,
        FIRST_WXJSAPI_APP_ID="wx1",
        FIRST_WXJSAPI_APP_SECRET="s",
        FIRST_WXJSAPI_API_BASE_URL=sandbox.url,
    )
    assert "wxjsapi-first" not in _names()
    app.test_client().get("/nothing")
    assert "wxjsapi-first" in _names()
    wxjsapi.close(app)


def test_testing_is_read_when_it_would_start(make_app: MakeApp) -> None:
    """TESTING set after init_app() counts."""
    app, wxjsapi = make_app(TESTING=False)
    app.testing = True
    with app.app_context():
        assert wxjsapi.ticket
    assert "wxjsapi-default" not in _names()


def test_start_fetches_without_a_request(make_app: MakeApp, sandbox: Sandbox) -> None:
    """post_worker_init: the ticket is there before the first reader."""
    app, wxjsapi = make_app(WXJSAPI_BACKGROUND_REFRESH=True)
    wxjsapi.start(app)
    wait_until(lambda: sandbox.calls["getticket"] == 1, what="the thread has fetched")
    wxjsapi.close(app)


def test_the_app_can_be_collected_while_the_thread_runs(make_app: MakeApp) -> None:
    """Neither thread, state nor callbacks hold the app."""
    app, wxjsapi = make_app(WXJSAPI_BACKGROUND_REFRESH=True)
    with app.app_context():
        assert wxjsapi.ticket
    gone = weakref.ref(app)
    del app
    wait_until(lambda: (gc.collect(), gone() is None)[1], what="the app is collected")


def _read_in_child(app: Flask, wxjsapi: WxJsApi, pipe: Any) -> None:
    with app.app_context():
        before = "wxjsapi-default" in _names()
        ticket = wxjsapi.ticket
        app.test_client().get("/")
        pipe.send((os.getpid(), before, ticket, "wxjsapi-default" in _names()))


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
    assert ours.poll(30)
    pid, had_thread, childs_ticket, has_thread = ours.recv()
    child.join(30)
    wxjsapi.close(app)
    assert pid != os.getpid()
    assert (had_thread, childs_ticket, has_thread) == (False, ticket, True)
    assert child.exitcode == 0
    assert dict(sandbox.calls) == {"stable_token": 1, "getticket": 1}


_QUICK_EXIT = """
import sys, threading
from flask import Flask
from flask_wxjsapi import WxJsApi
app = Flask("quick")
app.config.update(WXJSAPI_APP_ID="wx1", WXJSAPI_APP_SECRET="s", WXJSAPI_API_BASE_URL=sys.argv[1])
wxjsapi = WxJsApi(app)
wxjsapi.start(app)
input()
"""


@pytest.mark.processes
def test_the_exit_does_not_wait_for_wechat() -> None:
    """A process that ends in mid-refresh is gone while WeChat still hangs."""
    import subprocess
    import sys

    with Sandbox("wx1", "s").serve() as sandbox:
        sandbox.fail("hang", times=None)
        process = subprocess.Popen(
            [sys.executable, "-c", _QUICK_EXIT, sandbox.url], stdin=subprocess.PIPE
        )
        wait_until(lambda: sandbox.calls["stable_token"] == 1, what="it waits for WeChat")
        process.communicate(b"\n", timeout=8)  # WeChat hangs until the end of this block
        assert process.returncode == 0
