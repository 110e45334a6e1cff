"""WeChat fails in every way it can, and the user's own code as well: over HTTP, then for days."""

from __future__ import annotations

import heapq
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, render_template_string

from flask_wxjsapi import (
    Credential,
    TicketServer,
    TicketUnavailable,
    TransportError,
    WeChatAPIError,
    WxJsApi,
    WxJsApiError,
    ticket_refresh_failed,
    ticket_refreshed,
)
from flask_wxjsapi._credential import ACCESS_TOKEN, JSAPI_TICKET
from flask_wxjsapi._engine.reading import Credentials
from flask_wxjsapi._engine.runtime import Engine
from flask_wxjsapi.errors import REACTIONS
from flask_wxjsapi.sandbox import Sandbox
from tests.conftest import FakeClock, threads_of, wait_until
from tests.engine.cluster import DOWN, Cluster, FakeWeChat, Worker, says
from tests.faults.conftest import Figure
from tests.processes import at_once

MakeApp = Callable[..., tuple[Flask, WxJsApi]]

DAY = 86400
STALE = 7160.0  # seconds after which a ticket of 7200 s is due, on each host, and still valid
#: The same for processes with a thread, whose time goes on: it is valid for ten minutes more.
AHEAD, DUE = 3000.0, 6600.0
PATIENCE = 30.0  # REFRESH_TIMEOUT in these tests: a machine may be busy
TIMEOUT = 0.5  # the same where it has to pass
HANGS = 2.0  # seconds after which a call that hangs is given up
PAGE = "{{ wx_script(['scanQRCode']) }}"


class Ahead:
    """The real time, some seconds ahead; or one moment that lasts until it is moved on."""

    def __init__(self, *, frozen: bool = False) -> None:
        self._start = (time.time(), time.monotonic()) if frozen else None
        self._ahead = 0.0

    def time(self) -> float:
        return (self._start[0] if self._start else time.time()) + self._ahead

    def monotonic(self) -> float:
        return (self._start[1] if self._start else time.monotonic()) + self._ahead

    def sleep(self, seconds: float, /) -> None:
        time.sleep(seconds)
        if self._start:
            self._ahead += seconds

    def advance(self, seconds: float) -> None:
        self._ahead += seconds


def with_clock(clock: Ahead, app: Flask, wxjsapi: WxJsApi) -> Credentials:
    """Before its first use: the app's engine made again, with another clock."""
    account = wxjsapi._accounts_of(app).own
    engine = app.extensions["wxjsapi.engine"] = Engine(app, clock=clock)
    account.credentials = Credentials(engine, account.credentials.holding)
    return account.credentials


class Process:
    """One process of a service, as far as the engine can tell: app, engine and clock.

    :param frozen: whether time stands still in it until it is moved on.
    """

    def __init__(
        self, app: Flask, wxjsapi: WxJsApi, *, frozen: bool = False, clock: Ahead | None = None
    ) -> None:
        self.app = app
        self.wxjsapi = wxjsapi
        self.clock = clock or Ahead(frozen=frozen)
        self.credentials = with_clock(self.clock, app, wxjsapi)
        self.fetches: list[str] = []
        self.longest_call = PATIENCE
        upstream: Any = self.credentials.holding.upstream
        wechat = getattr(upstream, "_upstream", upstream)  # behind an ACCESS_TOKEN_PROVIDER
        wechat._clock = self.clock.time
        self._fetch = upstream.fetch
        upstream.fetch = self._counted
        self.wechat: Any = wechat

        @app.get("/")
        def page() -> str:
            return render_template_string(PAGE)

    def _counted(self, kind: str, **options: Any) -> Credential:
        self.fetches.append(kind)
        options["timeout"] = min(options["timeout"], self.longest_call)
        credential: Credential = self._fetch(kind, **options)
        return credential

    @property
    def calls(self) -> dict[str, int]:
        return dict(Counter(self.fetches))

    def ticket(self) -> str:
        with self.app.app_context():
            return self.wxjsapi.ticket

    def refresh(self) -> str:
        with self.app.app_context():
            return self.wxjsapi.refresh()

    def look(self, times: int = 1) -> None:
        """What the background thread does every SYNC_INTERVAL."""
        for _ in range(times):
            self.credentials.sync()

    def settle(self) -> None:
        """Wait for what a renewal still does after its readers have gone on."""
        threads = self.credentials.runtime.threads

        def is_over() -> bool:
            threads.reap()  # a timer has done so once, perhaps before the clock was moved on
            return not threads._jobs

        wait_until(is_over, 60, "the renewal is over")

    def page(self) -> str:
        """The page that users see, which must be one."""
        response = self.app.test_client().get("/")
        assert response.status_code == 200
        return response.text

    def threads(self) -> list[threading.Thread]:
        return threads_of(self.app)

    @contextmanager
    def signals(self) -> Iterator[dict[str, threading.Event]]:
        """Events that are set by the two signals of this app."""
        events = {"refreshed": threading.Event(), "failed": threading.Event()}

        def on_refreshed(app: Flask, kind: str, **facts: Any) -> None:
            if kind == JSAPI_TICKET:
                events["refreshed"].set()

        def on_failed(app: Flask, **facts: Any) -> None:
            events["failed"].set()

        with (
            ticket_refreshed.connected_to(on_refreshed, self.app),
            ticket_refresh_failed.connected_to(on_failed, self.app),
        ):
            yield events

    def close(self) -> None:
        self.wxjsapi.close(self.app)


NewProcess = Callable[..., Process]


@pytest.fixture
def new_process(make_app: MakeApp) -> Iterator[NewProcess]:
    """Starts processes; keyword arguments are config keys, ``frozen`` and ``clock``."""
    processes = []

    def start(frozen: bool = False, clock: Ahead | None = None, **config: Any) -> Process:
        config = {"WXJSAPI_REFRESH_TIMEOUT": PATIENCE} | config
        processes.append(Process(*make_app(**config), frozen=frozen, clock=clock))
        return processes[-1]

    yield start
    for process in processes:
        process.close()


@pytest.fixture
def in_background(new_process: NewProcess) -> NewProcess:
    """Starts processes with a background thread that looks ten times a second."""

    def start(**config: Any) -> Process:
        background = {"WXJSAPI_BACKGROUND_REFRESH": True, "WXJSAPI_SYNC_INTERVAL": 0.1}
        return new_process(**(background | {"WXJSAPI_REFRESH_AHEAD": AHEAD} | config))

    return start


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Lets go what hangs, at the latest when the test ends."""
    event = threading.Event()
    yield event
    event.set()


def events(caplog: pytest.LogCaptureFixture, *, ordinary: bool = False) -> list[str]:
    """The events in the log; without the ordinary renewals, and with foreign lines as such."""
    found = []
    for record in caplog.records:
        facts = getattr(record, "wxjsapi", None)
        if facts is not None:
            found.append(str(facts["event"]))
        elif record.levelno >= logging.WARNING:
            found.append(f"{record.name}: {record.getMessage()}")
    return [event for event in found if ordinary or event != "refreshed"]


# -- what WeChat can do --------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """Something that WeChat does for as long as it lasts.

    :param fault: the sandbox's name for it, or one of ours.
    :param says: what the error must tell a person.
    :param path: only for this endpoint.
    :param fetches: what one attempt asks for.
    """

    fault: str
    says: str
    path: str | None = None
    fetches: tuple[str, ...] = (ACCESS_TOKEN,)

    @property
    def errcode(self) -> int | None:
        is_errcode = self.fault.lstrip("-").isdigit() and len(self.fault) != 3
        return int(self.fault) if is_errcode else None

    @property
    def error(self) -> type[WxJsApiError]:
        return TransportError if self.errcode is None else WeChatAPIError

    def strike(self, sandbox: Sandbox, process: Process) -> Callable[[], None]:
        """Begin; the result ends it."""
        if self.fault == "dns":
            return _without_dns()
        if self.fault == "tls":
            return _with_broken_tls(process.wechat, sandbox)
        sandbox.fail(self.fault, times=None, path=self.path)
        if self.fault not in ("hang", "drip", "drip-headers"):
            return sandbox.heal
        process.longest_call = HANGS

        def heal() -> None:
            process.longest_call = PATIENCE
            sandbox.heal()

        return heal


def _without_dns() -> Callable[[], None]:
    def fail(*args: Any, **options: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    patch = pytest.MonkeyPatch()
    patch.setattr(socket, "getaddrinfo", fail)
    return patch.undo


def _with_broken_tls(wechat: Any, sandbox: Sandbox) -> Callable[[], None]:
    patch = pytest.MonkeyPatch()
    patch.setattr(wechat, "_base_url", sandbox.url.replace("http://", "https://"))
    return patch.undo


TWICE = (ACCESS_TOKEN, JSAPI_TICKET) * 2

FAULTS = {
    "-1": Fault("-1", "WeChat is busy"),
    "45009": Fault("45009", "daily quota"),
    "45011": Fault("45011", "waits for a new one"),
    "40001 endlessly": Fault("40001", "was rejected twice", "getticket", TWICE),
    "40013": Fault("40013", "WXJSAPI_APP_ID is not a valid AppID"),
    "40125": Fault("40125", "WXJSAPI_APP_SECRET is wrong"),
    "40164": Fault("40164", "IP whitelist"),
    "500": Fault("500", "HTTP 500"),
    "502": Fault("502", "HTTP 502"),
    "html": Fault("html", "not WeChat's JSON"),
    "half": Fault("half", "was not reached"),
    "redirect": Fault("redirect", "HTTP 302"),
    "close": Fault("close", "was not reached"),
    "hang": Fault("hang", "no complete answer in time"),
    "drip": Fault("drip", "no complete answer in time"),
    "drip-headers": Fault("drip-headers", "no complete answer in time"),
    "DNS": Fault("dns", "Name or service not known"),
    "TLS": Fault("tls", "was not reached"),
}

#: One of each way to fail; `make test` contents itself with these.
FAST = frozenset({"-1", "40001 endlessly", "40125", "hang", "DNS"})

each_fault = pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=name, marks=() if name in FAST else pytest.mark.slow)
        for name, fault in FAULTS.items()
    ],
)


@pytest.fixture
def strike(sandbox: Sandbox) -> Iterator[Callable[[Fault, Process], Callable[[], None]]]:
    """Begins a fault, which ends with what this returns or with the test."""
    with ExitStack() as stack:

        def strike(fault: Fault, process: Process) -> Callable[[], None]:
            heal = fault.strike(sandbox, process)
            stack.callback(heal)
            return heal

        yield strike


Strike = Callable[[Fault, Process], Callable[[], None]]

# -- with a valid ticket -------------------------------------------------------------------------


@each_fault
def test_with_a_valid_ticket_nobody_notices(
    fault: Fault, in_background: NewProcess, strike: Strike, figure: Figure
) -> None:
    """The ticket is due, the thread asks and fails; every reader and every page has its ticket."""
    process = in_background()
    first = process.ticket()
    strike(fault, process)
    reads = []
    with process.signals() as signals:
        process.clock.advance(DUE)
        while not signals["failed"].wait(0.002):
            reads.append(process.ticket())
        reads += [process.ticket() for _ in range(100)]
    assert set(reads) == {first}
    assert "wx.config(" in process.page()
    figure(f"WeChat: {fault.fault}", "a valid ticket: nobody notices", f"{len(reads)} reads")


@each_fault
def test_the_thread_outlives_it_and_renews(
    fault: Fault, in_background: NewProcess, strike: Strike
) -> None:
    """After the fault and its back-off the same thread renews, with no reader to ask for it."""
    process = in_background()
    process.ticket()
    threads = process.threads()
    heal = strike(fault, process)
    with process.signals() as signals:
        process.clock.advance(DUE)
        assert signals["failed"].wait(60)
        heal()
        process.clock.advance(901)
        assert signals["refreshed"].wait(60)
    assert process.threads() == threads
    assert process.page()


# -- without one ---------------------------------------------------------------------------------


def _failure(process: Process) -> TicketUnavailable:
    with pytest.raises(TicketUnavailable) as caught:
        process.ticket()
    return caught.value


@each_fault
def test_64_waiters_share_one_attempt_and_its_failure(
    fault: Fault, new_process: NewProcess, strike: Strike, figure: Figure
) -> None:
    """One attempt, 64 times the same answer: why, and when to come back."""
    process = new_process(frozen=True)
    strike(fault, process)
    failures = at_once(64, process.ticket)
    assert [type(failure) for failure in failures] == [TicketUnavailable] * 64
    assert process.fetches == list(fault.fetches)
    causes = {(type(failure.__cause__), str(failure.__cause__)) for failure in failures}
    assert len(causes) == 1, causes
    assert all(failure.retry_after >= 1 for failure in failures)
    figure(f"WeChat: {fault.fault}", "64 waiters, one attempt", f"{len(process.fetches)} calls")


@each_fault
def test_a_reader_is_told_the_reason(fault: Fault, new_process: NewProcess, strike: Strike) -> None:
    """The cause of the failure is the right error, and says what to do."""
    process = new_process(frozen=True)
    strike(fault, process)
    cause = _failure(process).__cause__
    assert type(cause) is fault.error
    assert fault.says in str(cause)
    assert fault.errcode is None or getattr(cause, "errcode", None) == fault.errcode


@each_fault
def test_later_readers_fail_at_once(fault: Fault, new_process: NewProcess, strike: Strike) -> None:
    """During the back-off nobody asks WeChat: not at once, and not after half of the pause."""
    process = new_process(frozen=True)
    strike(fault, process)
    _failure(process)
    process.settle()
    asked = list(process.fetches)
    retry_at = process.credentials.status(look=False).retry_at
    assert retry_at is not None
    again = [_failure(process) for _ in range(20)]
    process.clock.advance((retry_at - process.clock.time()) / 2)
    again += [_failure(process) for _ in range(20)]
    assert all(failure.retry_after >= 1 for failure in again)
    assert {type(failure.__cause__) for failure in again} == {fault.error}
    assert process.fetches == asked


@each_fault
def test_the_503_of_a_page_says_when_to_come_back(
    fault: Fault, new_process: NewProcess, strike: Strike
) -> None:
    """A view that does not catch the failure answers 503 with Retry-After."""
    process = new_process(frozen=True)
    process.app.add_url_rule("/ticket", view_func=lambda: process.wxjsapi.ticket, endpoint="raw")
    strike(fault, process)
    _failure(process)
    response = process.app.test_client().get("/ticket")
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) >= 1


@each_fault
def test_it_heals_after_the_pause(fault: Fault, new_process: NewProcess, strike: Strike) -> None:
    """Once WeChat is back and the pause is over, the next reader has a ticket."""
    process = new_process(frozen=True)
    heal = strike(fault, process)
    _failure(process)
    process.settle()
    heal()
    process.clock.advance(901)
    assert process.ticket()


@each_fault
def test_refresh_heals_at_once(fault: Fault, new_process: NewProcess, strike: Strike) -> None:
    """Who has mended something calls refresh() and need not wait."""
    process = new_process(frozen=True)
    heal = strike(fault, process)
    _failure(process)
    process.settle()
    heal()
    assert process.refresh() == process.ticket()


@each_fault
def test_an_outage_is_two_lines_in_the_log(
    fault: Fault,
    new_process: NewProcess,
    strike: Strike,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One when it begins and one when it is over, however often it is tried in between."""
    process = new_process(frozen=True, CACHE_TYPE="SimpleCache")
    caplog.set_level(logging.INFO)
    heal = strike(fault, process)
    for _ in range(3):
        process.look()
        process.settle()
        process.clock.advance(901)
    heal()
    process.look()
    process.settle()
    told = [event for event in events(caplog) if event != "token_rejected"]
    assert told == ["refresh_failed", "recovered"]


# -- another service and another secret ----------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """The config of a store that processes share."""
    return {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path / "cache")}


def test_a_revoked_token_is_replaced_once(
    new_process: NewProcess,
    files: dict[str, str],
    sandbox: Sandbox,
    caplog: pytest.LogCaptureFixture,
    figure: Figure,
) -> None:
    """Another service revokes our token: dropped, fetched and used once, in one process of four."""
    clock = Ahead(frozen=True)
    processes = [new_process(clock=clock, **files) for _ in range(4)]
    assert len({process.ticket() for process in processes}) == 1
    sandbox.revoke_token()
    caplog.set_level(logging.INFO)
    before = Counter(sandbox.calls)
    # Half an hour later the token is still good by its record and the ticket is asked for.
    clock.advance(1800)
    processes[0].refresh()
    for process in processes:
        process.settle()  # the log is told at the very end
        process.look()
    assert len({process.ticket() for process in processes}) == 1
    calls = sandbox.calls - before
    assert calls == {"stable_token": 1, "getticket": 2}  # the first was refused
    assert events(caplog) == ["token_rejected"]
    figure("access token revoked", "one token call, one ticket call", dict(calls))


def test_a_revoked_token_is_not_handed_out_again(
    new_process: NewProcess, files: dict[str, str], sandbox: Sandbox
) -> None:
    """Another process takes over the new token with its next look, and the revoked one is gone."""
    clock = Ahead(frozen=True)
    one, other = (new_process(clock=clock, **files) for _ in range(2))
    for process in (one, other):
        process.ticket()
    revoked = other.credentials.get(ACCESS_TOKEN).value
    other.settle()
    sandbox.revoke_token()
    one.refresh()
    clock.advance(6)  # the store is looked at again, behind the next reader
    other.credentials.get(ACCESS_TOKEN)
    other.settle()
    found = [process.credentials.get(ACCESS_TOKEN).value for process in (one, other)]
    assert found[0] == found[1] != revoked


def test_a_corrected_secret_works_at_once(
    new_process: NewProcess, files: dict[str, str], sandbox: Sandbox, figure: Figure
) -> None:
    """A service restarted with the right secret does not wait for the wrong one's 900 s."""
    wrong = new_process(frozen=True, WXJSAPI_APP_SECRET="a-wrong-secret", **files)
    assert "40125" in str(_failure(wrong).__cause__)
    restarted = new_process(frozen=True, **files)
    assert restarted.ticket()
    assert restarted.calls == {ACCESS_TOKEN: 1, JSAPI_TICKET: 1}
    figure("secret corrected", "works at once", "0 s of back-off")


def test_a_restart_with_the_wrong_secret_is_no_new_attempt(
    new_process: NewProcess, files: dict[str, str]
) -> None:
    """A service that restarts in a loop does not ask WeChat each time."""
    first = new_process(frozen=True, WXJSAPI_APP_SECRET="a-wrong-secret", **files)
    _failure(first)
    for _ in range(5):
        restarted = new_process(clock=first.clock, WXJSAPI_APP_SECRET="a-wrong-secret", **files)
        assert "40125" in str(_failure(restarted).__cause__)
        assert not restarted.fetches


# -- the user's own code -------------------------------------------------------------------------


class Trouble:
    """User code that works, raises or hangs.

    :param release: ends the hanging.
    """

    def __init__(self, release: threading.Event) -> None:
        self.mode = "works"
        self.met = threading.Event()  # set when somebody has run into it
        self._release = release

    def __call__(self) -> None:
        if self.mode != "works":
            self.met.set()
        if self.mode == "raises":
            raise RuntimeError("the text of somebody else's error")
        if self.mode == "hangs":
            assert self._release.wait(4 * PATIENCE)


@pytest.fixture
def trouble(release: threading.Event) -> Trouble:
    return Trouble(release)


class Server(TicketServer):
    """A custom server with trouble in one of its methods."""

    def __init__(self, where: str, trouble: Trouble) -> None:
        self.where = where
        self.trouble = trouble
        self.records: dict[str, Credential] = {}

    def find(self, key: str) -> Credential | None:
        if self.where == "find":
            self.trouble()
        return self.records.get(key)

    def save(self, key: str, credential: Credential) -> None:
        if self.where == "save":
            self.trouble()
        self.records[key] = credential


def _custom(where: str, trouble: Trouble) -> dict[str, Any]:
    """The config that puts trouble in a place, and what is to be closed with the test."""
    if where == "provider":

        def provider(rejected: str | None) -> Credential:
            trouble()
            return Credential("45_provided", time.time(), time.time() + 7200)

        return {"WXJSAPI_ACCESS_TOKEN_PROVIDER": provider}
    if where == "receiver":
        return {}
    return {"WXJSAPI_TICKET_SERVER": Server(where, trouble)}


@contextmanager
def _connected(where: str, trouble: Trouble, process: Process) -> Iterator[None]:
    def receive(app: Flask, **facts: Any) -> None:
        trouble()

    with ExitStack() as stack:
        if where == "receiver":
            for signal in (ticket_refreshed, ticket_refresh_failed):
                stack.enter_context(signal.connected_to(receive, process.app))
        yield


WHERE = ["find", "save", "provider", "receiver"]


@pytest.fixture
def accepting(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """WeChat takes any access token: one from a provider is none that the sandbox has issued."""
    account = sandbox._registry.accounts[sandbox.app_id]
    monkeypatch.setattr(sandbox._registry, "by_token", lambda value, now: account)


@pytest.mark.usefixtures("accepting")
@pytest.mark.parametrize("mode", ["raises", "hangs"])
@pytest.mark.parametrize("where", WHERE)
def test_trouble_in_user_code_leaves_readers_with_a_ticket_alone(
    where: str, mode: str, trouble: Trouble, in_background: NewProcess, sandbox: Sandbox
) -> None:
    """While the user's code fails or hangs, every reader with a valid ticket gets it."""
    process = in_background(**_custom(where, trouble))
    with _connected(where, trouble, process):
        process.ticket()
        process.settle()
        trouble.mode = mode
        process.clock.advance(DUE)
        assert trouble.met.wait(60)
        assert all(process.ticket() for _ in range(100))
        assert "wx.config(" in process.page()


def _warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.usefixtures("accepting")
@pytest.mark.parametrize("where", WHERE)
def test_user_code_that_raises_is_logged_once_without_its_text(
    where: str, trouble: Trouble, new_process: NewProcess, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says who failed, however often it does; what it said stays out."""
    process = new_process(frozen=True, **_custom(where, trouble))
    with _connected(where, trouble, process):
        trouble.mode = "raises"
        for _ in range(3):
            process.look()
            process.settle()
        # A receiver is told of the token and of the ticket, after the renewal.
        expected = 2 if where == "receiver" else 1
        wait_until(lambda: len(_warnings(caplog)) >= expected, what="it is logged")
    warnings = _warnings(caplog)
    assert len(warnings) == expected, caplog.text
    assert "RuntimeError" in warnings[0].getMessage()
    assert "somebody else" not in caplog.text


@pytest.mark.usefixtures("accepting")
@pytest.mark.parametrize("where", ["find", "save", "receiver"])
def test_without_a_ticket_user_code_that_raises_costs_nothing(
    where: str, trouble: Trouble, new_process: NewProcess
) -> None:
    """The ticket is fetched and handed out although it can neither be found, saved nor told of."""
    process = new_process(frozen=True, **_custom(where, trouble))
    with _connected(where, trouble, process):
        trouble.mode = "raises"
        assert process.ticket()
    assert process.calls == {ACCESS_TOKEN: 1, JSAPI_TICKET: 1}


@pytest.mark.parametrize("where", ["save", "receiver"])
def test_without_a_ticket_nobody_waits_for_code_that_only_follows(
    where: str, trouble: Trouble, new_process: NewProcess
) -> None:
    """A reader goes on with the ticket while saving it, or telling of it, hangs."""
    process = new_process(frozen=True, **_custom(where, trouble))
    with _connected(where, trouble, process):
        trouble.mode = "hangs"
        assert process.ticket()
        assert trouble.met.wait(60)


@pytest.mark.usefixtures("accepting")
@pytest.mark.parametrize("where", ["find", "provider"])
def test_without_a_ticket_waiting_for_user_code_has_an_end(
    where: str, trouble: Trouble, new_process: NewProcess
) -> None:
    """Code that hangs before there is a ticket holds a reader up for REFRESH_TIMEOUT at most."""
    config = {"WXJSAPI_REFRESH_TIMEOUT": TIMEOUT} | _custom(where, trouble)
    process = new_process(frozen=True, **config)
    trouble.mode = "hangs"
    failures = at_once(8, process.ticket)  # which waits for the threads: they end while it hangs
    assert [type(failure) for failure in failures] == [TicketUnavailable] * 8
    assert trouble.met.wait(60)


@pytest.mark.usefixtures("accepting")
@pytest.mark.parametrize("where", ["find", "save", "provider", "receiver"])
def test_the_engine_goes_on_while_user_code_still_hangs(
    where: str, trouble: Trouble, new_process: NewProcess, caplog: pytest.LogCaptureFixture
) -> None:
    """What hangs for longer than a renewal may take is left behind, and the next one renews."""
    process = new_process(frozen=True, **_custom(where, trouble))
    with _connected(where, trouble, process):
        trouble.mode = "hangs"
        thread = threading.Thread(target=process.look, daemon=True)
        thread.start()
        assert trouble.met.wait(60)
        trouble.mode = "works"
        for _ in range(3):  # it counts as failed, it has a back-off, the next one renews
            process.clock.advance(60)
            process.look()
            process.settle()
        assert process.ticket()
        thread.join(60)
        assert not thread.is_alive()

    def hung() -> list[str]:
        return [event for event in events(caplog) if event == "renewal_hangs"]

    wait_until(lambda: hung() or where == "receiver", what="it is told, in a thread of its own")
    assert hung() == ([] if where == "receiver" else ["renewal_hangs"])


# -- days ----------------------------------------------------------------------------------------


class Meddling(FakeWeChat):
    """In the middle of each call every other worker has a look."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.clock)
        self.others: list[Worker] = []
        self.looks = 0
        self._is_busy = False

    def fetch(self, kind: str, **options: Any) -> Credential:
        if not self._is_busy:
            self._is_busy = True
            for worker in self.others:
                if not worker.engine.runtime()._flights:  # else it is the one that asks
                    worker.sync()
                    self.looks += 1
            self._is_busy = False
        return super().fetch(kind, **options)


class Watched:
    """Counts what a cluster does with its store."""

    def __init__(self, cluster: Cluster) -> None:
        self.count: Counter[str] = Counter()
        backend = cluster.cache._backend
        for name in ("get", "set", "delete"):
            setattr(backend, name, self._counting(name, getattr(backend, name)))

    def _counting(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            self.count[name] += 1
            return method(*args, **options)

        return counted


def live_through(
    clock: FakeClock, workers: list[Worker], seconds: float, each: Callable[[Worker], None]
) -> int:
    """Give every worker its looks, in the order of time; the number of looks."""
    end, looks = clock.now + seconds, 0
    agenda = [(clock.now, number) for number in range(len(workers))]
    while agenda[0][0] < end:
        due, number = agenda[0]
        clock.advance(max(0.0, due - clock.now))
        pause = workers[number].sync()
        looks += 1
        each(workers[number])
        heapq.heapreplace(agenda, (clock.now + pause, number))
    return looks


@pytest.mark.parametrize(
    ("count", "interval"),
    [
        (1, 60),
        (8, 60),
        pytest.param(8, 5, marks=pytest.mark.slow),
        pytest.param(64, 300, marks=pytest.mark.slow),
        pytest.param(512, 900, marks=pytest.mark.slow),
    ],
)
def test_a_day_of_a_cluster(count: int, interval: int, clock: FakeClock, figure: Figure) -> None:
    """13 calls for tickets and at most 14 for tokens, whatever the number of workers.

    Every worker has its looks in the order of time, and all of them one more in the middle of
    each call. The larger clusters look at the store every 300 and 900 s rather than every 5: a
    day of 512 at 5 s is ten million looks. The interval does not change what is called, for
    every worker looks when the ticket is due.
    """
    cluster = Cluster(clock)
    cluster.upstream = wechat = Meddling(cluster)
    cluster.upstream.delay = 0.3
    workers = [cluster.worker(sync_interval=interval) for _ in range(count)]
    wechat.others = workers
    watched = Watched(cluster)

    def is_served(worker: Worker) -> None:
        assert worker.ticket()

    looks = live_through(clock, workers, DAY, is_served) + wechat.looks
    tokens, tickets = cluster.calls
    assert tickets == 13
    assert tokens <= 14
    # Ticket and token are read at each look; beyond that there are some at a renewal.
    operations = sum(watched.count.values()) / looks
    assert operations < 2.5
    figure(
        f"a day of {count} workers",
        "13 ticket calls, at most 14 token calls",
        f"{tickets} and {tokens}; {operations:.2f} store operations a look",
    )


class Offset:
    """The clock of a machine that is off by some seconds."""

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self.monotonic = clock.monotonic
        self.sleep = clock.sleep

    def time(self) -> float:
        return self._clock.now + self._seconds


class ByItsClock:
    """WeChat as a machine sees it whose clock is off: times are its own, values are WeChat's."""

    def __init__(self, wechat: FakeWeChat, seconds: float) -> None:
        self._wechat = wechat
        self._seconds = seconds
        self.parent = wechat.parent
        self.ends: dict[str, float] = {}  # by value, when it really ends

    def fetch(self, kind: str, **options: Any) -> Credential:
        credential = self._wechat.fetch(kind, **options)
        self.ends[credential.value] = credential.expires_at
        return replace(
            credential,
            issued_at=credential.issued_at + self._seconds,
            expires_at=credential.expires_at + self._seconds,
        )


@pytest.mark.parametrize("offsets", [(0, 90), (0, -90), (-45, 45)])
def test_two_machines_disagree_about_the_time(
    offsets: tuple[int, int], clock: FakeClock, figure: Figure
) -> None:
    """Clocks 90 s apart for a day: no storm, and no reader ever gets a ticket that is over."""
    cluster = Cluster(clock)
    cluster.upstream.delay = 0.3
    workers: list[Worker] = []
    ends: dict[str, float] = {}
    for number in range(4):
        seconds = offsets[number % 2]
        upstream = ByItsClock(cluster.upstream, seconds)
        upstream.ends = ends
        offset = Offset(clock, seconds)
        workers.append(cluster.worker(clock=offset, upstream=upstream, sync_interval=20))
    left: list[float] = []

    def is_valid(worker: Worker) -> None:
        left.append(ends[worker.ticket()] - clock.now)

    live_through(clock, workers, DAY, is_valid)
    tokens, tickets = cluster.calls
    assert min(left) > 0
    assert tickets <= 14
    assert tokens <= 14
    figure(
        f"clocks {offsets[0]:+d} s and {offsets[1]:+d} s",
        "no storm, no expired ticket",
        f"{tokens} and {tickets} calls in a day; {min(left):.0f} s left at the least",
    )


#: One errcode of each kind of reaction is tried for a day in tests/engine, with two
#: workers. Here are the others, and what changes from call to call, with eight.
OTHERS = [code for code in REACTIONS if code not in (-1, 45009, 45011, 40013, 40125, 40164)]


@pytest.mark.parametrize("kind", [ACCESS_TOKEN, JSAPI_TICKET])
@pytest.mark.parametrize(
    "faults",
    [*([says(code)] for code in OTHERS), [DOWN], [says(-1), DOWN, says(45011), says(99999)]],
    ids=[*map(str, OTHERS), "down", "changing"],
)
@pytest.mark.slow
def test_a_day_of_failures_costs_a_cluster_of_eight_fewer_than_300_calls(
    faults: list[WxJsApiError], kind: str, clock: FakeClock, figure: Figure
) -> None:
    """Whatever WeChat says all day long, and to a reader at every look."""
    cluster = Cluster(clock)
    workers = [cluster.worker(sync_interval=60) for _ in range(8)]

    def fails(worker: Worker) -> None:
        cluster.upstream.always[kind] = faults[sum(cluster.calls) % len(faults)]
        with pytest.raises(TicketUnavailable):
            worker.ticket()

    cluster.upstream.always[kind] = faults[0]
    live_through(clock, workers, DAY, fails)
    assert sum(cluster.calls) < 300
    names = {getattr(fault, "errcode", "not reached") for fault in faults}
    name = ", ".join(sorted(map(str, names)))
    figure(f"a day of {name} on the {kind}", "fewer than 300 calls", sum(cluster.calls))


class Rejecting(FakeWeChat):
    """Refuses every access token, and fails in another way when it gets the next one."""

    def _answer(self, kind: str, number: int, now: float) -> Credential:
        if kind == JSAPI_TICKET:
            raise says(40001) if number % 2 else DOWN
        return super()._answer(kind, number, now)


@pytest.fixture
def rejecting(clock: FakeClock, figure: Figure) -> Cluster:
    """A cluster that has lived through a day of refused tokens and failures in turn."""
    cluster = Cluster(clock)
    cluster.upstream = Rejecting(clock)
    workers = [cluster.worker(sync_interval=60) for _ in range(8)]
    live_through(clock, workers, DAY, lambda worker: None)
    figure("a day of 40001 and failures", "fewer than 300 calls", sum(cluster.calls))
    return cluster


@pytest.mark.slow
def test_a_day_of_rejections_and_failures_costs_fewer_than_300_calls(rejecting: Cluster) -> None:
    """Another service takes our token over and over, and WeChat fails at the retry."""
    assert sum(rejecting.calls) < 300


@pytest.mark.slow
@pytest.mark.usefixtures("rejecting")
def test_a_day_of_rejections_is_not_a_line_for_each_attempt(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """That the token was refused is said when it begins, and not hundreds of times."""
    facts = [getattr(record, "wxjsapi", {}) for record in caplog.get_records("setup")]
    assert [fact.get("event") for fact in facts].count("token_rejected") <= 2


@pytest.mark.slow
def test_a_day_of_slow_failures_costs_a_cluster_of_eight_fewer_than_300_calls(
    clock: FakeClock, figure: Figure
) -> None:
    """A WeChat that hangs: every attempt takes its 10 s before it fails."""
    cluster = Cluster(clock)
    cluster.upstream = wechat = Meddling(cluster)
    wechat.delay = 10
    wechat.always[ACCESS_TOKEN] = TransportError("test was not reached: no complete answer.")
    workers = [cluster.worker(sync_interval=60) for _ in range(8)]
    wechat.others = workers
    live_through(clock, workers, DAY, lambda worker: None)
    assert sum(cluster.calls) < 300
    figure("a day of hanging", "fewer than 300 calls", sum(cluster.calls))


@pytest.mark.slow
def test_a_day_of_ups_and_downs_costs_a_cluster_of_eight_fewer_than_300_calls(
    clock: FakeClock, figure: Figure
) -> None:
    """WeChat fails for ten minutes in every twenty; nobody is ever without a ticket."""
    cluster = Cluster(clock)
    workers = [cluster.worker(sync_interval=60) for _ in range(8)]
    workers[0].ticket()
    start = clock.now

    def changes(worker: Worker) -> None:
        assert worker.ticket()
        cluster.upstream.always.clear()
        if (clock.now - start) % 1200 < 200:
            cluster.upstream.always[ACCESS_TOKEN] = DOWN

    live_through(clock, workers, DAY, changes)
    assert sum(cluster.calls) < 300
    figure("a day of ups and downs", "fewer than 300 calls", sum(cluster.calls))
