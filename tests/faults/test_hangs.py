"""Other people's code that hangs or reads what is being renewed: handlers, receivers, servers."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask

from flask_wxjsapi import (
    Credential,
    TicketServer,
    TicketUnavailable,
    WxJsApi,
    ticket_refresh_failed,
    ticket_refreshed,
)
from flask_wxjsapi._engine import renewal, runtime
from flask_wxjsapi._engine.reading import _WITHIN
from flask_wxjsapi.sandbox import Sandbox

from ..conftest import wait_until
from .test_wechat import STALE, Process

MakeApp = Callable[..., tuple[Flask, WxJsApi]]
#: Far longer than anything here takes, in seconds; what waits for it has been forgotten.
LONG = 60.0
#: For a renewal, where nothing hangs that is waited for; and where it does.
PATIENCE, SHORT = {"WXJSAPI_REFRESH_TIMEOUT": LONG}, {"WXJSAPI_REFRESH_TIMEOUT": 1.0}


class Gate:
    """Where code of others stands still until the test is over."""

    def __init__(self) -> None:
        self.is_reached = threading.Event()
        self.waiting: list[None] = []  # as many as there are
        self._opened = threading.Event()

    def wait(self, *_: object, **__: object) -> None:
        self.waiting.append(None)
        self.is_reached.set()
        self._opened.wait(4 * LONG)

    def open(self) -> None:
        self._opened.set()

    @property
    def is_closed(self) -> bool:
        return not self._opened.is_set()


class Handler(logging.Handler):
    """Other people's way of telling somebody."""

    def __init__(self, level: int, action: Callable[[], object]) -> None:
        super().__init__(level)
        self.action = action

    def emit(self, record: logging.LogRecord) -> None:
        self.action()


@pytest.fixture
def start(make_app: MakeApp) -> Iterator[MakeApp]:
    """As ``make_app``, with a thread that keeps the ticket warm until the test is over."""
    before = set(threading.enumerate())
    made: list[tuple[Flask, WxJsApi]] = []

    def make(**config: Any) -> tuple[Flask, WxJsApi]:
        settings = {"WXJSAPI_BACKGROUND_REFRESH": True, "WXJSAPI_SYNC_INTERVAL": 0.1}
        made.append(make_app(**settings | PATIENCE | config))
        return made[-1]

    yield make
    for app, wxjsapi in made:
        wxjsapi.close(app)

    def others() -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t not in before and "wxjsapi" in t.name]

    wait_until(lambda: not others(), LONG, "no thread is left")


@pytest.fixture
def gate(start: MakeApp) -> Iterator[Gate]:
    """It is opened before the apps are closed."""
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
def listen() -> Iterator[Callable[[Handler], None]]:
    """Adds handlers to the extension's logger."""
    logger, added = logging.getLogger("flask_wxjsapi"), []

    def add(handler: Handler) -> None:
        added.append(handler)
        logger.addHandler(handler)

    yield add
    for handler in added:
        logger.removeHandler(handler)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hangs counts as over soon after its time."""
    monkeypatch.setattr(renewal, "GRACE", 0.2)
    monkeypatch.setattr(runtime, "GRACE", 0.2)


def outcomes(app: Flask, read: Callable[[], str], count: int = 20) -> Counter[str]:
    """What so many readers get, one after the other, in a thread that has to come to its end."""
    found: list[str] = []

    def read_all() -> None:
        for _ in range(count):
            with app.app_context():
                try:
                    found.append(read())
                except TicketUnavailable as error:
                    found.append(type(error).__name__)

    thread = threading.Thread(target=read_all, daemon=True)
    thread.start()
    thread.join(LONG)
    assert len(found) == count, f"a reader waits for ever, after {found}"
    return Counter(found)


UNAVAILABLE = Counter({"TicketUnavailable": 20})


# -- log handlers ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("soon")
def test_a_log_handler_that_reads_the_token_while_a_renewal_hangs(
    start: MakeApp, gate: Gate, listen: Callable[[Handler], None]
) -> None:
    """To send the alert by WeChat: nobody deadlocks, and the handler learns that there is none."""
    heard: list[str] = []
    app, wxjsapi = start(WXJSAPI_ACCESS_TOKEN_PROVIDER=gate.wait, **SHORT)

    def alert() -> None:
        with app.app_context():
            try:
                heard.append(wxjsapi.access_token)
            except TicketUnavailable as error:
                heard.append(str(error.__cause__))

    listen(Handler(logging.ERROR, alert))
    assert outcomes(app, lambda: wxjsapi.ticket) == UNAVAILABLE
    wait_until(lambda: heard, LONG, "the handler has read")
    assert "hangs" in heard[0]
    assert outcomes(app, lambda: wxjsapi.access_token) == UNAVAILABLE
    assert gate.is_closed


def test_a_slow_log_handler_delays_no_reader_of_a_ticket(
    start: MakeApp, gate: Gate, listen: Callable[[Handler], None], sandbox: Sandbox
) -> None:
    """A failed renewal is told to a handler that does not return: the ticket is handed out."""
    app, wxjsapi = start()
    (ticket,) = outcomes(app, lambda: wxjsapi.ticket)
    listen(Handler(logging.WARNING, gate.wait))
    sandbox.fail(-1, times=None)
    with app.app_context(), pytest.raises(Exception, match="-1"):
        wxjsapi.refresh()
    assert gate.is_reached.wait(LONG)
    assert outcomes(app, lambda: wxjsapi.ticket) == Counter({ticket: 20})
    assert gate.is_closed


def test_a_slow_log_handler_delays_no_reader_without_a_ticket(
    start: MakeApp, gate: Gate, listen: Callable[[Handler], None], sandbox: Sandbox
) -> None:
    """WeChat is away and the handler hangs: readers fail at once, and are served when it heals."""
    listen(Handler(logging.WARNING, gate.wait))
    sandbox.fail(-1, times=None)
    app, wxjsapi = start()
    assert outcomes(app, lambda: wxjsapi.ticket) == UNAVAILABLE
    assert gate.is_reached.wait(LONG)
    assert outcomes(app, lambda: wxjsapi.ticket) == UNAVAILABLE
    sandbox.heal()
    wait_until(
        lambda: "TicketUnavailable" not in outcomes(app, lambda: wxjsapi.ticket, 1),
        LONG,
        "it heals",
    )
    assert gate.is_closed


@pytest.mark.usefixtures("soon")
def test_a_log_handler_that_hangs_when_three_threads_are_lost(
    start: MakeApp, gate: Gate, listen: Callable[[Handler], None]
) -> None:
    """The line about lost threads is told to a handler that hangs, too: still nobody waits."""
    server = Server(find=gate.wait)
    app, wxjsapi = start(WXJSAPI_TICKET_SERVER=server, WXJSAPI_REFRESH_TIMEOUT=0.2)
    threads = app.extensions["wxjsapi.engine"].runtime().threads
    assert outcomes(app, lambda: wxjsapi.ticket) == UNAVAILABLE
    listen(Handler(logging.WARNING, gate.wait))

    def are_lost() -> bool:
        with app.app_context():
            wxjsapi.status()
        assert outcomes(app, lambda: wxjsapi.ticket) == UNAVAILABLE
        # Another may have begun before the third was found to hang.
        return bool(threads.lost >= 3)

    wait_until(are_lost, LONG, "three threads are lost")
    assert outcomes(app, lambda: wxjsapi.card_ticket) == UNAVAILABLE
    assert gate.is_closed


# -- receivers of signals --------------------------------------------------------------------------


def test_a_receiver_that_reads_the_token(start: MakeApp) -> None:
    """It is called when the renewal is over, and gets what everybody gets."""
    heard: list[str] = []
    app, wxjsapi = start()

    def receive(sender: Flask, **_: object) -> None:
        heard.append(wxjsapi.access_token)

    with ticket_refreshed.connected_to(receive, app):
        outcomes(app, lambda: wxjsapi.ticket)
        (token,) = outcomes(app, lambda: wxjsapi.access_token)
        wait_until(lambda: len(heard) == 2, LONG, "both signals are received")
    assert set(heard) == {token}


def test_a_receiver_that_hangs_after_a_success(start: MakeApp, gate: Gate) -> None:
    """The ticket is there for all readers while the receiver of its signal does not return."""
    app, wxjsapi = start()
    with ticket_refreshed.connected_to(gate.wait, app):
        (first,) = outcomes(app, lambda: wxjsapi.ticket)
        assert gate.is_reached.wait(LONG)
        assert outcomes(app, lambda: wxjsapi.ticket) == Counter({first: 20})
        with app.app_context():
            assert wxjsapi.refresh()
        assert gate.is_closed


def test_a_receiver_that_hangs_after_a_failure(
    start: MakeApp, gate: Gate, sandbox: Sandbox
) -> None:
    """Readers fail at once while the receiver does not return, and are served when it heals."""
    sandbox.fail(-1, times=None)
    app, wxjsapi = start()
    with ticket_refresh_failed.connected_to(gate.wait, app):
        assert outcomes(app, lambda: wxjsapi.ticket) == UNAVAILABLE
        assert gate.is_reached.wait(LONG)
        assert outcomes(app, lambda: wxjsapi.ticket) == UNAVAILABLE
        sandbox.heal()
        wait_until(
            lambda: "TicketUnavailable" not in outcomes(app, lambda: wxjsapi.ticket, 1),
            LONG,
            "it heals",
        )
        assert gate.is_closed


# -- ticket servers --------------------------------------------------------------------------------


class Server(TicketServer):
    """Keeps tickets, and does something else before that."""

    def __init__(self, **before: Callable[[], object]) -> None:
        self.before = before
        self.kept: dict[str, Credential] = {}

    def find(self, key: str) -> Credential | None:
        self.before.get("find", bool)()
        return self.kept.get(key)

    def save(self, key: str, credential: Credential) -> None:
        self.before.get("save", bool)()
        self.kept[key] = credential


@pytest.mark.parametrize("place", ["find", "save"])
def test_a_ticket_server_that_reads_the_token(start: MakeApp, place: str) -> None:
    """It would wait for itself where the token is to be renewed as well: it is told so at once."""
    heard: list[str] = []

    def read() -> None:
        try:
            heard.append(wxjsapi.access_token)
        except TicketUnavailable as error:
            heard.append(str(error.__cause__))
            raise

    app, wxjsapi = start(WXJSAPI_TICKET_SERVER=Server(**{place: read}))
    (ticket,) = outcomes(app, lambda: wxjsapi.ticket)
    (token,) = outcomes(app, lambda: wxjsapi.access_token)
    assert ticket != "TicketUnavailable"
    wait_until(lambda: heard[-1:] == [token] or place == "save", LONG, "a look has read it")
    assert {text for text in heard if text != token} <= {_WITHIN}


@pytest.mark.usefixtures("soon")
def test_a_ticket_server_that_hangs_in_find_keeps_nobody(start: MakeApp, gate: Gate) -> None:
    """Cold, each reader after the first fails at once; with a ticket nobody notices."""
    app, wxjsapi = start(WXJSAPI_TICKET_SERVER=Server(find=gate.wait), **SHORT)
    assert outcomes(app, lambda: wxjsapi.ticket) == UNAVAILABLE
    assert gate.is_reached.wait(LONG)
    assert gate.is_closed


def test_a_ticket_server_that_hangs_in_save_keeps_nobody(start: MakeApp, gate: Gate) -> None:
    """The ticket is handed out before it is saved, and while saving does not end."""
    app, wxjsapi = start(WXJSAPI_TICKET_SERVER=Server(save=gate.wait))
    (ticket,) = outcomes(app, lambda: wxjsapi.ticket)
    assert ticket != "TicketUnavailable"
    assert gate.is_reached.wait(LONG)
    assert outcomes(app, lambda: wxjsapi.ticket) == Counter({ticket: 20})
    assert gate.is_closed


@pytest.mark.usefixtures("soon")
def test_a_ticket_server_that_never_returns_costs_three_threads(start: MakeApp, gate: Gate) -> None:
    """However long it lasts and whoever asks: three threads hang in it, and then none is lost."""
    server = Server()
    app, wxjsapi = start(WXJSAPI_TICKET_SERVER=server)
    (ticket,) = outcomes(app, lambda: wxjsapi.ticket)
    holding = wxjsapi._accounts_of(app).own.credentials.holding
    holding.times = replace(holding.times, timeout=0.2)
    server.before["find"] = gate.wait
    threads = app.extensions["wxjsapi.engine"].runtime().threads

    def are_lost() -> bool:
        with app.app_context():
            wxjsapi.status()
            assert wxjsapi.ticket == ticket
        # Another may have begun before the third was found to hang.
        return bool(threads.lost >= 3)

    def begun() -> int:
        return int(threads.lost + len(threads._jobs))

    wait_until(are_lost, LONG, "three threads are lost")
    wait_until(lambda: len(gate.waiting) == begun(), LONG, "whoever has begun hangs")
    hanging = begun()
    for _ in range(20):
        with app.app_context():
            wxjsapi.status()
            with pytest.raises(TicketUnavailable):
                _ = wxjsapi.card_ticket
    assert len(gate.waiting) == begun() == hanging
    assert outcomes(app, lambda: wxjsapi.ticket) == Counter({ticket: 20})
    assert gate.is_closed


class LateServer(Server):
    """Its database is not up yet when it is made."""

    refusals = 0

    def __init__(self) -> None:
        super().__init__()
        if LateServer.refusals > 0:
            LateServer.refusals -= 1
            raise ConnectionError("the database is not up yet")


def test_a_ticket_server_that_cannot_be_made_at_first(start: MakeApp, sandbox: Sandbox) -> None:
    """The thread goes on: once the server can be made the ticket is kept warm in it."""
    LateServer.refusals = 20
    app, wxjsapi = start(WXJSAPI_TICKET_SERVER=LateServer)
    process = Process(app, wxjsapi)
    (ticket,) = outcomes(app, lambda: wxjsapi.ticket)
    assert ticket != "TicketUnavailable"
    wait_until(lambda: LateServer.refusals == 0, LONG, "the server can be made")
    calls = sandbox.calls["getticket"]
    process.clock.advance(STALE)
    wait_until(lambda: sandbox.calls["getticket"] > calls, LONG, "it is renewed without a reader")
