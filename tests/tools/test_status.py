"""``flask wxjsapi status``: what a person and a monitor are told, and that WeChat is not asked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from flask_wxjsapi import WeChatAPIError, WxJsApi
from flask_wxjsapi.sandbox import Sandbox

from ..conftest import threads_of
from .terminal import Site, lines_of, run


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
    assert re.search("^Next try ", site.run("status").stdout, re.M)


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
