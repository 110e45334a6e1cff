"""A real Redis in trouble with a valid ticket in it: what the commands say at night."""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask

from flask_wxjsapi import WxJsApi
from flask_wxjsapi._accounts import ACCOUNTS
from flask_wxjsapi._credential import JSAPI_TICKET
from flask_wxjsapi.sandbox import Sandbox

from ..tools.terminal import run, said
from .conftest import Figure
from .valkeys import Server

READER = ("+@read", "+ping", "+hello", "+client", "+select")


@dataclass
class Desk:
    """A terminal, the Redis that the commands use, and the WeChat that they may ask."""

    server: Server
    sandbox: Sandbox
    login: str = ""
    patience: float = 30  # seconds for an answer of Redis's; a busy one is not one that hangs

    def app(self) -> Flask:
        """Another one for each command: nothing is remembered from one to the next."""
        app = Flask("tests")
        app.config.update(
            TESTING=True,
            WXJSAPI_APP_ID=self.sandbox.app_id,
            WXJSAPI_APP_SECRET=self.sandbox.app_secret,
            WXJSAPI_API_BASE_URL=self.sandbox.url,
            CACHE_TYPE="RedisCache",
            CACHE_REDIS_URL=f"redis://{self.login}127.0.0.1:{self.server.port}/0"
            f"?socket_timeout={self.patience}&socket_connect_timeout={self.patience}",
            WXJSAPI_REFRESH_TIMEOUT=30,
        )
        WxJsApi(app)
        return app

    def run(self, *args: str) -> Result:
        return run(self.app(), *args)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Server(tmp_path / "valkey") as server, Sandbox(ticket="new").serve() as sandbox:
        desk = Desk(server, sandbox)
        assert desk.run("ticket").exit_code == 0
        sandbox.calls.clear()
        yield desk
        server.thaw()


def refused(desk: Desk) -> None:
    desk.server.stop()


def frozen(desk: Desk) -> None:
    desk.server.freeze()
    desk.patience = 1


def read_only(desk: Desk) -> None:
    desk.server.do("ACL", "SETUSER", "reader", "on", ">pw", "~*", *READER)
    desk.login = "reader:pw@"


def full(desk: Desk) -> None:
    desk.server.do("CONFIG", "SET", "maxmemory", "1")


def replica(desk: Desk) -> None:
    desk.server.do("REPLICAOF", "127.0.0.1", "1")


Fault = Callable[[Desk], None]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(refused, "(ConnectionError: "), (frozen, "(TimeoutError: ")],
)
def test_a_redis_that_cannot_be_read(desk: Desk, fault: Fault, reason: str, figure: Figure) -> None:
    """Whether there is a ticket is unknown, not "invalid", and none is fetched for nobody."""
    fault(desk)
    exits = {}
    for command in ("status", "doctor"):
        result = desk.run(command)
        exits[command] = result.exit_code
        assert f"The cache cannot be read {reason}" in said(result.stdout)
        assert "invalid" not in result.stdout
        assert "processes go on with what each of them holds" in said(result.stdout)
    assert exits == {"status": 3, "doctor": 3}
    assert desk.sandbox.calls["getticket"] == 0
    figure(f"Redis {fault.__name__}: status, doctor", "exit 3, with the reason", exits)


@pytest.mark.parametrize("fault", [refused, frozen])
def test_a_renewal_that_redis_does_not_hear_of(desk: Desk, fault: Fault) -> None:
    """It is the command's alone, and no success."""
    fault(desk)
    result = desk.run("refresh")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Renewed for this command only. The cache cannot be read" in said(result.stderr)
    result = desk.run("ticket")
    assert result.exit_code == 0
    assert said(result.stderr).startswith("Only this command has the ticket. The cache")


@pytest.mark.parametrize(
    ("fault", "code", "hint"),
    [
        (read_only, "NOPERM", "Its user may not do this"),
        (full, "OOM", "It is full"),
        (replica, "READONLY", "It is a replica"),
    ],
)
def test_a_redis_that_can_only_be_read(
    desk: Desk, fault: Fault, code: str, hint: str, figure: Figure
) -> None:
    """The ticket is seen; who renews it hears in Redis's own word that nobody will have it."""
    fault(desk)
    assert desk.run("status").exit_code == 0
    doctor = desk.run("doctor")
    assert f"Error: {code}. {hint}" in said(doctor.stdout)
    assert "The ticket is fresh" in said(doctor.stdout)
    refresh = desk.run("refresh")
    assert f"Error: {code})." in said(refresh.stderr)
    assert "Renewed for this command only. The cache cannot be written" in said(refresh.stderr)
    exits = (doctor.exit_code, refresh.exit_code)
    assert exits == (2, 1)
    figure(f"Redis says {code}: doctor, refresh", "exit 2 and 1, what to do", exits)


# -- the tables of the documentation ---------------------------------------------------------------

DOCS = Path(__file__).parents[2] / "docs"
TABLES = {"en": DOCS / "operator.csv", "zh": DOCS / "zh" / "operator.csv"}
ROWS = {
    lang: [*csv.reader(table.read_text("utf-8").splitlines())] for lang, table in TABLES.items()
}


def fails(errcode: int) -> Fault:
    """Nothing is there, and WeChat says so much."""

    def fail(desk: Desk) -> None:
        desk.server.do("FLUSHALL")
        desk.sandbox.fail(errcode, times=None)
        assert desk.run("refresh").exit_code == 1

    return fail


def healed(desk: Desk) -> None:
    fails(45009)(desk)
    desk.sandbox.heal()


def aged(age: float, *, failing: bool = True) -> Fault:
    """The ticket was issued so many seconds ago, by somebody's clock."""

    def age_it(desk: Desk) -> None:
        app = desk.app()
        with app.app_context():
            session = app.extensions[ACCOUNTS]["default"].own.credentials.session()
            held = session.find(JSAPI_TICKET)
            at = time.time() - age
            older = replace(held, issued_at=at, expires_at=at + 7200, generation=int(at) + 9999)
            session.save(JSAPI_TICKET, older)
        if failing:
            desk.sandbox.fail(-1, times=None)
            desk.run("refresh")

    return age_it


STATES: dict[str, Fault] = {
    "Nothing is there yet": lambda desk: desk.server.do("FLUSHALL"),
    "All is well": lambda desk: None,
    "Stale, and its renewals fail": aged(7050),
    "No valid ticket": aged(7250),
    "Redis refuses the connection": refused,
    "Redis hangs": frozen,
    "Redis can only be read": read_only,
    "A wrong AppSecret": fails(40125),
    "An IP address that is not on the whitelist": fails(40164),
    "The quota is used up": fails(45009),
    "The quota is there again": healed,
    "Two clocks disagree": aged(-7300, failing=False),
}


@pytest.mark.slow
@pytest.mark.parametrize("lang", TABLES)
@pytest.mark.parametrize(("number", "name"), [*enumerate(STATES)])
def test_what_status_doctor_and_the_log_say(
    desk: Desk, number: int, name: str, lang: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As docs/operator.csv has it, and docs/zh/operator.csv."""
    _, *expected, event = ROWS[lang][number]
    caplog.set_level(logging.INFO, "flask_wxjsapi")
    caplog.clear()
    STATES[name](desk)
    for command, exit_code, text in (("status", *expected[:2]), ("doctor", *expected[2:])):
        result = desk.run(command, "--lang", lang)
        assert "".join(text.split()) in "".join(result.stdout.split())
        assert result.exit_code == int(exit_code)
    told = {record.wxjsapi["event"] for record in caplog.records if hasattr(record, "wxjsapi")}
    assert event in told or (event, told) == ("", set())


def test_the_tables_have_all_states() -> None:
    """In this order, with the same figures and events."""
    assert [row[0] for row in ROWS["en"]] == [*STATES]
    figures = {lang: [row[1::2] for row in rows] for lang, rows in ROWS.items()}
    assert figures["zh"] == figures["en"]
