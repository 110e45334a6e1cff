"""A process that lacks something: threads, a directory, a working teardown, columns, time."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, g

from flask_wxjsapi import Credential, TicketServer, TicketUnavailable, WxJsApi
from flask_wxjsapi._engine.runtime import Engine, Runtime
from flask_wxjsapi._storage import lease as lease_module
from flask_wxjsapi.sandbox import Sandbox

from ..conftest import FakeClock, wait_until
from ..engine.cluster import Cluster, Worker
from .test_wechat import AHEAD, DUE, PATIENCE, Process

MakeApp = Callable[..., tuple[Flask, WxJsApi]]


class Rows(TicketServer):
    """A server that keeps everything."""

    def __init__(self) -> None:
        self.rows: dict[str, Credential] = {}
        self.saves = 0

    def find(self, key: str) -> Credential | None:
        return self.rows.get(key)

    def save(self, key: str, credential: Credential) -> None:
        self.saves += 1
        self.rows[key] = credential


class TwoColumns(Rows):
    """A table with columns for the ticket and its expiry, as many an older application has it."""

    def find(self, key: str) -> Credential | None:
        row = self.rows.get(key)
        return row and Credential(row.value, row.expires_at - 7200, row.expires_at)


# -- threads ---------------------------------------------------------------------------------------


def _held_by(runtime: Runtime) -> int:
    """How many things the collections of a runtime hold."""
    found = 0
    for part in (runtime, runtime.threads, runtime.stores, runtime._schedule):
        for value in vars(part).values():
            if isinstance(value, (dict, set, list, deque)):
                found += len(value)
    return found


def test_the_limit_of_threads_is_told_once_and_again_after_minutes(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests fail as ever, and nothing grows with them."""
    clock, app = FakeClock(), Flask("full")
    app.extensions["wxjsapi.engine"] = Engine(app, clock=clock)
    app.config.update(
        WXJSAPI_APP_ID=sandbox.app_id,
        WXJSAPI_APP_SECRET=sandbox.app_secret,
        WXJSAPI_API_BASE_URL=sandbox.url,
    )
    wxjsapi = WxJsApi(app)
    app.add_url_rule("/", view_func=lambda: wxjsapi.ticket)

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    client = app.test_client()
    answers = {client.get("/").status_code for _ in range(20)}
    runtime = app.extensions["wxjsapi.engine"].runtime()
    held = _held_by(runtime)
    for _ in range(200):
        answers.add(client.get("/").status_code)
        clock.advance(0.5)
    assert answers == {503}
    assert _held_by(runtime) == held
    assert [one.levelname for one in caplog.records] == ["ERROR"]
    assert "can't start new thread" in caplog.text
    clock.advance(600)
    client.get("/")
    client.get("/")
    assert len(caplog.records) == 2


def test_threads_are_there_again(
    make_app: MakeApp, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that had none serves as soon as it has some."""
    app, wxjsapi = make_app(WXJSAPI_BACKGROUND_REFRESH=True, WXJSAPI_REFRESH_TIMEOUT=PATIENCE)

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with app.app_context(), monkeypatch.context() as limit:
        limit.setattr(threading.Thread, "start", start)
        with pytest.raises(TicketUnavailable):
            _ = wxjsapi.ticket

    def read() -> str:
        try:
            with app.app_context():
                return wxjsapi.ticket
        except TicketUnavailable:
            return ""

    assert wait_until(read, 60, "it serves")
    wxjsapi.close(app)


# -- directories -----------------------------------------------------------------------------------


@pytest.fixture
def no_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container whose file system takes no writes."""

    def none() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    monkeypatch.setattr(lease_module, "_OF_THE_SYSTEM", ())
    monkeypatch.setattr(lease_module, "_home", lambda: None)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)


@pytest.fixture
def close() -> Iterator[Callable[[Flask, WxJsApi], None]]:
    """Ends the threads of apps after the test."""
    made: list[tuple[Flask, WxJsApi]] = []
    yield lambda app, wxjsapi: made.append((app, wxjsapi))
    for app, wxjsapi in made:
        wxjsapi.close(app)


@pytest.mark.usefixtures("no_directory")
def test_without_a_directory_for_the_lease_tickets_are_renewed_ahead(
    make_app: MakeApp,
    sandbox: Sandbox,
    close: Callable[[Flask, WxJsApi], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The lease is within the process, which is said once; no reader waits at an expiry."""
    app, wxjsapi = make_app(
        WXJSAPI_TICKET_SERVER=Rows(),
        WXJSAPI_BACKGROUND_REFRESH=True,
        WXJSAPI_REFRESH_AHEAD=AHEAD,
        WXJSAPI_REFRESH_TIMEOUT=PATIENCE,
        WXJSAPI_SYNC_INTERVAL=0.1,
    )
    close(app, wxjsapi)
    process = Process(app, wxjsapi)
    assert process.ticket()
    for calls in (2, 3):
        process.clock.advance(DUE)
        wait_until(lambda calls=calls: sandbox.calls["getticket"] == calls, 60, "it is renewed")
        process.settle()
    assert caplog.text.count("has no directory for the lease") == 1


# -- contexts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("server", "lines"), [(None, 0), (Rows, 1)])
def test_a_teardown_that_fails_outside_requests(
    server: type[Rows] | None,
    lines: int,
    make_app: MakeApp,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """``g.db.close()`` where no ``g.db`` is: no line for a cache, one for a user's own server."""
    app, wxjsapi = make_app(WXJSAPI_TICKET_SERVER=server, WXJSAPI_REFRESH_TIMEOUT=PATIENCE)
    account = app.extensions["wxjsapi.accounts"]["default"].own

    @app.teardown_appcontext
    def close(error: BaseException | None) -> None:
        g.db.close()

    class Database:
        def close(self) -> None:
            pass

    def read() -> str:
        with app.app_context():
            g.db = Database()
            return wxjsapi.ticket

    ticket = read()
    for _ in range(20):
        account.credentials.sync()
    assert read() == ticket
    told = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(told) <= lines, [one.getMessage() for one in told]


# -- columns ---------------------------------------------------------------------------------------


def test_a_server_with_columns_for_ticket_and_expiry_only(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named once, its processes agree, and it is written when the ticket is another one."""
    server = TwoColumns()
    cluster = Cluster(clock, custom=server)
    workers = cluster.workers(2)
    for _ in range(720):
        tickets = {worker.ticket() for worker in workers}
        assert len(tickets) == 1
        for worker in workers:
            worker.sync()
        clock.advance(5)
    assert server.saves <= 4
    assert cluster.calls == (1, 1)
    clock.advance(3500)
    for _ in range(20):
        for worker in workers:
            worker.sync()
        clock.advance(5)
    assert {worker.ticket() for worker in workers} == {"jsapi_ticket-2"}
    assert server.saves <= 8
    named = [one for one in caplog.records if "does not give back" in one.getMessage()]
    assert len(named) == 1


# -- time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [0.5, 0.0])
def test_a_page_waits_once_where_its_ticket_ends_while_wechat_hangs(
    left: float, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a thread, STALE turns INVALID: what a page waits is 2 s in all."""
    cluster = Cluster(clock)
    opened = threading.Event()
    cluster.upstream.meanwhile = None
    worker = _real(cluster)
    worker.has_thread = False
    worker.ticket()
    held = worker.holding.snapshot().credential
    assert held is not None
    clock.advance(held.usable_until - clock.now - left)
    cluster.upstream.meanwhile = lambda: (opened.wait(60), None)[1]
    waited: list[float] = []
    wait = worker.provider._wait

    def note(renewal: Any, deadline: float, **options: Any) -> bool:
        seconds = deadline - clock.monotonic()
        waited.append(seconds)
        clock.advance(seconds)  # it hangs for as long
        return wait(renewal, clock.monotonic(), **options)

    monkeypatch.setattr(worker.provider, "_wait", note)
    try:
        if left:
            assert worker.provider.get(timeout=2).value == "jsapi_ticket-1"
            assert waited == []
            clock.advance(left)
        with pytest.raises(TicketUnavailable):
            worker.provider.get(timeout=2)
    finally:
        opened.set()
    assert waited == [2]


def _real(cluster: Cluster) -> Worker:
    """A worker with threads for its renewals."""
    from flask_wxjsapi._engine.threads import spawn

    return cluster.worker(spawn=spawn)
