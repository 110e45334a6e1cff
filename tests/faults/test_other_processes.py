"""What one process does to another: it hangs, renews, dies, or may not ask."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_wxjsapi import Credential, WxJsApi
from flask_wxjsapi._credential import ACCESS_TOKEN, JSAPI_TICKET
from flask_wxjsapi._engine.reading import Credentials
from flask_wxjsapi.sandbox import Sandbox

from ..conftest import Valkey, wait_until
from .conftest import Figure
from .servers import Script

pytestmark = pytest.mark.processes

MakeApp = Callable[..., tuple[Flask, WxJsApi]]

#: For a renewal in which nothing hangs: a machine may be busy.
PATIENT = {"WXJSAPI_REFRESH_TIMEOUT": "60"}

#: Reads when it is told to, and says what it got.
READER = """
def answer():
    try:
        return dict(ticket=read())
    except Exception as error:
        return dict(error=type(error).__name__, cause=str(error.__cause__))
for line in sys.stdin:
    if line.strip() == "refresh":
        with app.app_context():
            say(ticket=wxjsapi.refresh())
    else:
        say(**answer())
"""


def _read(script: Script) -> dict[str, Any]:
    script.tell()
    return script.hear()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    return {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path / "cache")}


def _seconds_until(script: Script, is_it: Callable[[dict[str, Any]], bool], what: str) -> float:
    started = time.monotonic()
    wait_until(lambda: is_it(_read(script)), 60, what)
    return time.monotonic() - started


# -- one that hangs --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_process_whose_provider_hangs_keeps_no_other_from_the_ticket(
    files: dict[str, str], sandbox: Sandbox, figure: Figure
) -> None:
    """Its lease is free after its life, and its next attempt does not take it for ever."""
    config = files | {
        "WXJSAPI_REFRESH_TIMEOUT": "1",
        "WXJSAPI_ACCESS_TOKEN_PROVIDER": "tests.faults.providers:give",
    }
    with Script(sandbox, READER, **config | {"PROVIDER_HANGS": "1"}) as hanging:
        assert _read(hanging)["error"] == "TicketUnavailable"
        with Script(sandbox, READER, **config) as other:
            seconds = _seconds_until(other, lambda heard: "ticket" in heard, "the other serves")
            assert "ticket" in _read(other)
        wait_until(lambda: "ticket" in _read(hanging), 40, "it takes the ticket from the store")
    figure(
        "a provider that never returns, another process, files",
        "it serves within the lease's life (6 s)",
        f"{seconds:.1f} s with its start, calls {dict(sandbox.calls)}",
    )
    assert dict(sandbox.calls) == {"stable_token": 1, "getticket": 1}


# -- one that renews -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["files", pytest.param("redis", marks=pytest.mark.slow)])
def test_without_a_thread_the_ticket_of_another_process_is_seen_in_passing(
    kind: str, request: pytest.FixtureRequest, figure: Figure
) -> None:
    """Its old one is fresh for two hours; refresh() elsewhere counts within SYNC_INTERVAL."""
    config: dict[str, str] = {"WXJSAPI_SYNC_INTERVAL": "0.5", **PATIENT}
    if kind == "redis":
        url = request.getfixturevalue("valkey").patient_url
        config |= {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": url}
    else:
        config |= request.getfixturevalue("files")
    with (
        Sandbox(ticket="new").serve() as sandbox,
        Script(sandbox, READER, **config | {"WXJSAPI_BACKGROUND_REFRESH": "false"}) as passing,
        Script(sandbox, READER, **config) as other,
    ):
        first = _read(passing)["ticket"]
        other.tell("refresh")
        second = other.hear()["ticket"]
        assert second != first
        calls = dict(sandbox.calls)
        seconds = _seconds_until(passing, lambda heard: heard["ticket"] == second, "it is seen")
        assert dict(sandbox.calls) == calls
    figure(
        f"BACKGROUND_REFRESH False, refresh() elsewhere, {kind}",
        "seen within SYNC_INTERVAL (0.5 s)",
        f"{seconds:.1f} s",
    )


# -- a cold one with a STALE ticket in the store ---------------------------------------------------


def _credentials(app: Flask) -> Credentials:
    found: Credentials = app.extensions["wxjsapi.accounts"]["default"].own.credentials
    return found


def _put_stale_ticket(app: Flask) -> str:
    """As a process that is gone had saved it, nearly two hours ago."""
    now, session = time.time(), _credentials(app).session()
    for kind in (ACCESS_TOKEN, JSAPI_TICKET):
        session.save(kind, Credential(f"stale-{kind}", now - 7010, now + 190, int(now - 7010)))
    return f"stale-{JSAPI_TICKET}"


@pytest.mark.parametrize("has_thread", ["true", "false"])
def test_a_cold_process_serves_a_stale_ticket_while_wechat_hangs(
    has_thread: str, files: dict[str, str], make_app: MakeApp, sandbox: Sandbox
) -> None:
    """It waits for nothing: a renewal here would take longer than this test is patient."""
    app, _ = make_app(**files)
    ticket = _put_stale_ticket(app)
    sandbox.fail("hang", times=None)
    config = files | {"WXJSAPI_REFRESH_TIMEOUT": "300", "WXJSAPI_BACKGROUND_REFRESH": has_thread}
    with Script(sandbox, READER, **config) as cold:
        assert [_read(cold) for _ in range(5)] == [{"ticket": ticket}] * 5
        wait_until(lambda: sandbox.calls["stable_token"] == 1, 60, "it is renewed behind")
        assert _read(cold) == {"ticket": ticket}


@pytest.mark.parametrize("has_thread", ["true", "false"])
def test_a_cold_process_serves_a_stale_ticket_while_a_dead_one_has_the_lease(
    has_thread: str, valkey: Valkey, make_app: MakeApp, sandbox: Sandbox
) -> None:
    """Killed in mid-renewal it left the lease to its life, and nobody waits for that."""
    config = {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": valkey.patient_url}
    app, _ = make_app(**config, WXJSAPI_REFRESH_TIMEOUT=300)
    ticket = _put_stale_ticket(app)
    assert _credentials(app).session().take_lease()
    config |= {"WXJSAPI_REFRESH_TIMEOUT": "300", "WXJSAPI_BACKGROUND_REFRESH": has_thread}
    with Script(sandbox, READER, **config) as cold:
        assert [_read(cold) for _ in range(5)] == [{"ticket": ticket}] * 5
    assert not sandbox.calls


# -- one that may not ask --------------------------------------------------------------------------

ON_ANOTHER_HOST = 'import socket\nsocket.gethostname = lambda: "another"\n'


def test_a_host_that_is_not_whitelisted_keeps_no_other_from_the_ticket(
    files: dict[str, str], sandbox: Sandbox
) -> None:
    """40164 is about one host's address: the other asks, and the first takes it from the store."""
    sandbox.fail(40164)
    config = files | PATIENT | {"WXJSAPI_SYNC_INTERVAL": "0.5"}
    with Script(sandbox, READER, **config) as refused:
        assert "40164" in _read(refused)["cause"]
        with Script(sandbox, READER, **config) as neighbour:
            assert "40164" in _read(neighbour)["cause"]
        assert dict(sandbox.calls) == {"stable_token": 1}
        with Script(sandbox, ON_ANOTHER_HOST + READER, **config) as other:
            answers = [_read(other) for _ in range(5)]
        assert [list(answer) for answer in answers] == [["ticket"]] * 5
        wait_until(lambda: _read(refused) == answers[0], 60, "it takes the other's ticket")
    assert dict(sandbox.calls) == {"stable_token": 2, "getticket": 1}


# -- forked ones -----------------------------------------------------------------------------------

FORKS = """
def number():
    return app.extensions["wxjsapi.engine"].runtime().random.random()
read()
number()
for _ in range(4):
    if os.fork() == 0:
        say(number=number())
        os._exit(0)
say(number=number())
sys.stdin.readline()
"""


def test_forked_processes_draw_random_numbers_of_their_own(sandbox: Sandbox) -> None:
    """They would all renew, and try again, at the same moments."""
    with Script(sandbox, FORKS) as parent:
        numbers = {parent.hear()["number"] for _ in range(5)}
    assert len(numbers) == 5
