"""``flask wxjsapi status``: what a person and a monitor are told, and that WeChat is not asked."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from flask_wxjsapi import Credential, TicketServer, WeChatAPIError, WxJsApi
from flask_wxjsapi._credential import JSAPI_TICKET
from flask_wxjsapi._telling import logger
from flask_wxjsapi._tools import cli as cli_module
from flask_wxjsapi.sandbox import Sandbox

from ..conftest import free_port, threads_of
from .terminal import Site, lines_of, put, run, said


def test_status_without_a_ticket(site: Site, sandbox: Sandbox) -> None:
    """Critical, and WeChat is not asked."""
    result = site.run("status")
    assert result.exit_code == 2
    assert re.search(r"^Ticket +invalid$", result.stdout, re.M)
    assert re.search(r"^Note +There is none in the store\.$", result.stdout, re.M)
    assert not sandbox.calls


def test_status_shows_a_failure_of_another_process(site: Site, sandbox: Sandbox) -> None:
    """Also while the ticket is fresh, and until there was a success."""
    site.ticket()
    sandbox.fail("45009")
    with site.server.app_context(), pytest.raises(WeChatAPIError):
        site.wxjsapi.refresh()
    facts = json.loads(site.run("status", "--json").stdout)
    assert facts["state"] == "fresh"
    assert "45009" in facts["last_error"]
    assert facts["retry_at"] is not None
    shown = site.run("status").stdout
    assert re.search("^Next try ", shown, re.M)
    assert "Note" not in shown


def test_status_shows_the_servers_ticket(site: Site, sandbox: Sandbox) -> None:
    """State and times, out of the shared store and with no call."""
    site.ticket()
    before = sandbox.calls.copy()
    result = site.run("status")
    assert result.exit_code == 0
    assert re.search(r"^Account +default \(wx01…cdef\)$", result.stdout, re.M)
    assert re.search(r"^Ticket +fresh$", result.stdout, re.M)
    assert re.search(r"^Expires +\d{4}-\d\d-\d\d [\d:]{8} [+-]\d{4}, in 1 h 59 min$",
                     result.stdout, re.M)  # fmt: skip
    assert sandbox.calls == before


def test_status_as_json(site: Site) -> None:
    """For programs: state, and Unix times."""
    site.ticket()
    facts = json.loads(site.run("status", "--json").stdout)
    assert (facts["state"], facts["reason"], facts["account"]) == ("fresh", None, "default")
    assert facts["issued_at"] < facts["refresh_at"] < facts["expires_at"]


def test_status_shows_the_back_off(site: Site, sandbox: Sandbox) -> None:
    """The last error with its advice, and when WeChat is asked again."""
    sandbox.fail("40164", times=None)
    with site.server.app_context(), pytest.raises(Exception, match="40164"):
        site.wxjsapi.refresh()
    result = site.run("status")
    assert result.exit_code == 2
    assert "IP whitelist" in " ".join(result.stdout.split())
    assert re.search(r"^Next try .*in 1[45] min", result.stdout, re.M)


@pytest.mark.parametrize("args", [["status"], ["status", "--json"]])
def test_status_of_a_simple_cache_claims_nothing(lone: Site, args: list[str]) -> None:
    """It cannot see the server's ticket, and says so rather than "invalid"."""
    lone.ticket()
    result = lone.run(*args)
    assert result.exit_code == 3
    assert "invalid" not in result.stdout
    assert "unknown" in result.stdout
    assert "cannot see theirs" in " ".join(result.stdout.split())


def test_embedded_sandbox_is_the_commands_own(
    make_app: Callable[..., tuple[Flask, WxJsApi]], tmp_path: Path
) -> None:
    """Where every process has a WeChat of its own there is nothing to see and no lease to try."""
    app, _ = make_app(
        WXJSAPI_API_BASE_URL="sandbox", CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path)
    )
    result = run(app, "status")
    assert re.search("^Ticket +unknown$", result.stdout, re.M)
    result = run(app, "doctor")
    assert result.exit_code == 1
    assert any("a WeChat of its own" in one for one in lines_of(result, "warning"))
    assert "lease" not in result.stdout


def test_a_stale_ticket_is_well(site: Site) -> None:
    """It is handed out, and the next renewal may just be under way."""
    put(site, fresh_for=-50)
    result = site.run("status")
    assert result.exit_code == 0
    assert re.search("^Ticket +stale$", result.stdout, re.M)


def test_a_stale_ticket_whose_renewals_fail_is_a_warning(site: Site, sandbox: Sandbox) -> None:
    """There is time left to mend it."""
    put(site, fresh_for=-50)
    sandbox.fail("40125", times=None)
    assert site.run("refresh").exit_code == 1
    result = site.run("status", "--json")
    facts = json.loads(result.stdout)
    assert (result.exit_code, facts["level"], facts["state"]) == (1, "warning", "stale")
    assert facts["reason"] == facts["last_error"]


def test_a_ticket_that_has_ended_is_an_error(site: Site) -> None:
    """With its times, and with why there is no other one."""
    put(site, fresh_for=-220)
    result = site.run("status", "--json")
    facts = json.loads(result.stdout)
    assert (result.exit_code, facts["state"], facts["reason"]) == (2, "invalid", "It has ended.")
    assert re.search("^Expires .* s ago$", site.run("status").stdout, re.M)


def test_a_ticket_from_the_future_is_told_of(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clocks disagree: the log, which has no handler here, says so before the command ends."""
    now = time.time() + 7200
    ticket = Credential("planted", now, now + 7200, int(now))
    site.wxjsapi._accounts_of(site.server).own.credentials.session().save(JSAPI_TICKET, ticket)
    monkeypatch.setattr(logger, "hasHandlers", lambda: False)
    assert "Two clocks disagree" in said(site.run("status").stderr)


def test_json_has_one_shape(site: Site, lone: Site) -> None:
    """Whatever the state is, a program finds the same keys."""
    shapes = [json.loads(one.run("status", "--json").stdout) for one in (site, lone)]
    site.ticket()
    shapes.append(json.loads(site.run("status", "--json").stdout))
    assert len({tuple(shape) for shape in shapes}) == 1
    assert [shape["level"] for shape in shapes] == ["error", "unknown", "ok"]


class _Tickets(TicketServer):
    """A user's own server, in the way of which something may be."""

    def __init__(self, fault: Callable[[], None]) -> None:
        self._fault = fault

    def find(self, key: str) -> Credential | None:
        self._fault()
        return None

    def save(self, key: str, credential: Credential) -> None:
        pass


def test_a_ticket_server_that_fails_is_no_missing_ticket(
    make_app: Callable[..., tuple[Flask, WxJsApi]],
) -> None:
    """What it has is not known; its text stays out."""

    def fail() -> None:
        raise OSError("postgres://user:hunter2@db")

    app, _ = make_app(WXJSAPI_TICKET_SERVER=_Tickets(fail))
    result = run(app, "status")
    assert result.exit_code == 3
    assert "The ticket server _Tickets cannot be read (OSError" in said(result.stdout)
    assert "hunter2" not in result.output


@pytest.mark.parametrize(("command", "told"), [("status", "in time"), ("doctor", "timeout")])
def test_a_ticket_server_that_hangs_hangs_no_command(
    make_app: Callable[..., tuple[Flask, WxJsApi]],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    told: str,
) -> None:
    """It ends, and says that it does not know."""
    monkeypatch.setattr(cli_module, "_LAST_WORDS", 0.1)
    thawed = threading.Event()
    server = _Tickets(lambda: assert_is_set(thawed))
    app, _ = make_app(WXJSAPI_TICKET_SERVER=server, WXJSAPI_REFRESH_TIMEOUT=0.5)
    try:
        result = run(app, command)
    finally:
        thawed.set()
    assert result.exit_code == 3
    assert told in said(result.stdout)


def assert_is_set(event: threading.Event) -> None:
    assert event.wait(60)


def test_a_cache_that_fails_beside_a_ticket_server_is_a_warning(
    make_app: Callable[..., tuple[Flask, WxJsApi]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ticket is there; whether its renewals fail is not known."""
    now = time.time()
    server = _Tickets(lambda: None)
    monkeypatch.setattr(server, "find", lambda key: Credential("t", now, now + 7200, int(now)))
    app, _ = make_app(
        WXJSAPI_TICKET_SERVER=server,
        CACHE_TYPE="RedisCache", CACHE_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0",
    )  # fmt: skip
    result = run(app, "status", "--json")
    facts = json.loads(result.stdout)
    assert (result.exit_code, facts["state"]) == (1, "fresh")
    assert "The cache cannot be read" in facts["reason"]


@pytest.mark.parametrize("args", [["status", "--jsn"], ["--app-id", "wx1", "status"]])
def test_what_keeps_status_from_looking_is_unknown(site: Site, args: list[str]) -> None:
    """A monitor takes 1 for a warning and 2 for a verdict on the ticket."""
    result = site.run(*args)
    assert (result.exit_code, result.stdout) == (3, "")
    assert "Error: " in result.stderr


def test_no_command_starts_a_thread(
    make_app: Callable[..., tuple[Flask, WxJsApi]], tmp_path: Path, sandbox: Sandbox
) -> None:
    """A thread would ask WeChat behind the command's back."""
    app, _ = make_app(
        WXJSAPI_BACKGROUND_REFRESH=True, CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path)
    )
    run(app, "status")
    assert not threads_of(app)
    assert not sandbox.calls
