"""``flask wxjsapi doctor``: what it finds, what it says, and what it never spends."""

from __future__ import annotations

import errno
import json
import time
import types
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_wxjsapi import Credential, TicketServer, WeChatAPIError, WxJsApi
from flask_wxjsapi._storage.cache import CacheServer
from flask_wxjsapi._tools import doctor as doctor_module
from flask_wxjsapi._upstream.wechat import WeChat
from flask_wxjsapi.errors import REACTIONS
from flask_wxjsapi.sandbox import Sandbox

from ..conftest import Valkey, free_port
from .terminal import APP_ID, SECRET, Site, lines_of, put, run, said


def test_doctor_finds_nothing(site: Site, sandbox: Sandbox) -> None:
    """Everything is ok, a second process is kept out, and no ticket is asked for in vain."""
    site.ticket()
    result = site.run("doctor")
    assert result.exit_code == 0, result.output
    assert lines_of(result, "error") == lines_of(result, "warning") == []
    text = " ".join(result.stdout.split())
    for part in ("sandbox", "FileSystemCache", "keeps a second process", "of 10000", "fresh"):
        assert part in text
    assert sandbox.calls["getticket"] == 1


def test_doctor_asks_for_a_ticket_where_there_is_none(site: Site, sandbox: Sandbox) -> None:
    """So that the account's permission is tried; the ticket is the cluster's."""
    assert site.run("doctor").exit_code == 0
    assert sandbox.calls["getticket"] == 1
    site.ticket()
    assert sandbox.calls["getticket"] == 1


@pytest.mark.parametrize("errcode", [40164, 40125, 40013, 45009, 48001, 50002, 89503])
def test_doctor_gives_the_advice_of_the_table(site: Site, sandbox: Sandbox, errcode: int) -> None:
    """Word for word, so that log, exception and page say the same; the address is named."""
    sandbox.fail(errcode, times=None, path="stable_token")
    result = site.run("doctor")
    assert result.exit_code == 2
    (error, *_) = [line for line in lines_of(result, "error") if str(errcode) in line]
    assert REACTIONS[errcode].advice in error
    if errcode == 40164:
        assert "127.0.0.1" in error
    assert sandbox.calls["stable_token"] == 1
    assert sandbox.calls["getticket"] == 0


def test_doctor_with_a_wrong_secret(site: Site, sandbox: Sandbox) -> None:
    """The real refusal, and the secret is not shown."""
    site.app.config["WXJSAPI_APP_SECRET"] = "f" * 32
    app = Flask("tests")
    app.config.from_mapping(site.app.config)
    WxJsApi(app)
    result = run(app, "doctor")
    assert result.exit_code == 2
    assert "WXJSAPI_APP_SECRET is wrong" in " ".join(result.stdout.split())
    assert "f" * 32 not in result.output


@pytest.mark.parametrize(("quota", "level"), [(1, "error"), (20, "ok")])
def test_doctor_reads_the_quota(
    make_app: Callable[..., tuple[Flask, WxJsApi]], tmp_path: Path, quota: int, level: str
) -> None:
    """How many ticket calls are left today."""
    with Sandbox(APP_ID, SECRET, ticket_quota=quota).serve() as small:
        site = Site(
            make_app, CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path),
            WXJSAPI_API_BASE_URL=small.url,
        )  # fmt: skip
        site.ticket()
        result = site.run("doctor")
    assert any(f"{quota - 1} of {quota} ticket calls" in one for one in lines_of(result, level))


def test_doctor_when_the_quota_is_not_told(site: Site, sandbox: Sandbox) -> None:
    """A warning is enough: the ticket works without."""
    sandbox.fail("48001", times=None, path="quota/get")
    result = site.run("doctor")
    assert result.exit_code == 1
    assert any("quota" in one for one in lines_of(result, "warning"))


def test_doctor_is_told_the_quota_in_another_form(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that nobody has seen yet is a warning, not a traceback."""
    monkeypatch.setattr(WeChat, "ask", lambda *_: {"errcode": 0, "quota": {"daily_limit": "many"}})
    result = site.run("doctor")
    assert result.exit_code == 1
    assert any("an answer of another form" in one for one in lines_of(result, "warning"))


def test_doctor_has_a_token_that_wechat_refuses(site: Site, sandbox: Sandbox) -> None:
    """It says so with the table's advice, and asks for nothing more with that token."""
    sandbox.fail("40001", times=None, path="get_api_domain_ip")
    result = site.run("doctor")
    assert result.exit_code == 2
    (error,) = lines_of(result, "error")
    assert "The token is not accepted" in error
    assert "40001" in error
    assert "ticket calls" not in result.stdout


def test_doctor_gets_no_ticket(site: Site, sandbox: Sandbox) -> None:
    """AppID and secret are right, but the account may not have tickets."""
    sandbox.fail("48001", times=None, path="getticket")
    result = site.run("doctor")
    assert result.exit_code == 2
    (error,) = lines_of(result, "error")
    assert "was asked for in vain" in error
    assert REACTIONS[48001].advice in error


def test_doctor_reaches_nobody(
    make_app: Callable[..., tuple[Flask, WxJsApi]], tmp_path: Path
) -> None:
    """The reason is named, and nothing is asked for after that."""
    app, _ = make_app(
        WXJSAPI_API_BASE_URL=f"http://127.0.0.1:{free_port()}",
        CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path),
    )  # fmt: skip
    result = run(app, "doctor")
    assert result.exit_code == 2
    assert any("Connection refused" in one for one in lines_of(result, "error"))


def test_doctor_spends_no_legacy_token(
    make_app: Callable[..., tuple[Flask, WxJsApi]], tmp_path: Path, sandbox: Sandbox
) -> None:
    """With TOKEN_ENDPOINT "token" it asks with the one that is there, or not at all."""
    site = Site(
        make_app, CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path),
        WXJSAPI_TOKEN_ENDPOINT="token",
    )  # fmt: skip
    result = site.run("doctor")
    assert any("No token was asked for" in one for one in lines_of(result, "warning"))
    assert sandbox.calls["token"] == sandbox.calls["getticket"] == 0
    site.ticket()
    result = site.run("doctor")
    assert result.exit_code == 0
    assert any("accepts the token" in one for one in lines_of(result, "ok"))
    assert sandbox.calls["token"] == sandbox.calls["getticket"] == 1


def test_doctor_never_forces(site: Site, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """No forced refresh and no clear_quota."""
    asked: list[tuple[Any, ...]] = []
    real = WeChat._call
    monkeypatch.setattr(
        WeChat, "_call", lambda self, *a, **k: (asked.append((a, k)), real(self, *a, **k))[1]
    )
    site.run("doctor")
    assert asked
    assert "clear_quota" not in repr(asked)
    assert "'force_refresh': True" not in repr(asked)


def test_doctor_on_a_simple_cache(lone: Site) -> None:
    """A warning about several workers, and no lease to try."""
    result = lone.run("doctor")
    assert result.exit_code == 1
    assert any("each process keeps its own" in one for one in lines_of(result, "warning"))
    assert "lease" not in result.stdout


def test_doctor_finds_a_cache_that_is_down(
    make_app: Callable[..., tuple[Flask, WxJsApi]],
) -> None:
    """With the reason, and with the password of the URL nowhere."""
    app, _ = make_app(
        CACHE_TYPE="RedisCache", CACHE_REDIS_URL=f"redis://:hunter2@127.0.0.1:{free_port()}/0"
    )
    result = run(app, "doctor")
    assert result.exit_code == 3
    assert any("The cache does not work" in one for one in lines_of(result, "error"))
    assert "hunter2" not in result.output


def test_doctor_finds_a_cache_that_forgets(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes what is written and does not give it back keeps no ticket."""
    monkeypatch.setattr(CacheServer, "read", lambda *_: None)
    result = site.run("doctor")
    assert result.exit_code == 2
    (error,) = [one for one in lines_of(result, "error") if "cache" in one]
    assert "did not give back what was written" in error


def test_doctor_tries_the_lease_of_redis(
    make_app: Callable[..., tuple[Flask, WxJsApi]], valkey: Valkey
) -> None:
    """Across a fork, with a connection of its own in either process."""
    site = Site(make_app, CACHE_TYPE="RedisCache", CACHE_REDIS_URL=valkey.url)
    site.ticket()
    result = site.run("doctor")
    assert result.exit_code == 0, result.output
    assert any("keeps a second process" in one for one in lines_of(result, "ok"))
    with valkey.client() as client:
        names = [key.rpartition(b":")[2] for key in client.keys("*")]
    assert sorted(names) == [b"access_token", b"jsapi_ticket"]


@pytest.mark.parametrize("exit_code", [1, None])
def test_doctor_leaves_open_what_it_cannot_try(
    site: Site, monkeypatch: pytest.MonkeyPatch, exit_code: int | None
) -> None:
    """A second process that breaks off or hangs, or a system without fork, is no verdict."""
    process = types.SimpleNamespace(
        start=lambda: None, join=lambda limit: None, kill=lambda: None, exitcode=exit_code
    )
    context = types.SimpleNamespace(Process=lambda target, args: process)
    monkeypatch.setattr("multiprocessing.get_context", lambda name: context)
    result = site.run("doctor")
    assert result.exit_code == 1
    assert any("could not be tried" in one for one in lines_of(result, "warning"))
    monkeypatch.setattr("multiprocessing.get_all_start_methods", lambda: ["spawn"])
    assert any("could not be tried" in one for one in lines_of(site.run("doctor"), "warning"))


@pytest.mark.parametrize("works", [True, False])
def test_doctor_asks_the_access_token_provider(
    make_app: Callable[..., tuple[Flask, WxJsApi]], tmp_path: Path, site: Site, works: bool
) -> None:
    """With no call for a token of its own; what it raises is not quoted."""
    token = site.access_token()

    def provider(rejected: str | None) -> Credential:
        if not works:
            raise RuntimeError("hunter2")
        return Credential(token, time.time(), time.time() + 7200)

    app, _ = make_app(WXJSAPI_ACCESS_TOKEN_PROVIDER=provider, CACHE_TYPE="SimpleCache")
    result = run(app, "doctor")
    assert result.exit_code == (1 if works else 2)
    assert ("WXJSAPI_ACCESS_TOKEN_PROVIDER raised" in " ".join(result.stdout.split())) != works
    assert "hunter2" not in result.output


def test_doctor_finds_a_lease_that_does_not_keep(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real second process gets it as well."""

    class Open:
        def acquire(self, blocking: bool = False) -> bool:
            return True

        def release(self) -> None:
            pass

    monkeypatch.setattr("flask_wxjsapi._storage.cache.CacheServer.lease", lambda *_: Open())
    result = site.run("doctor")
    assert result.exit_code == 2
    assert any("at once" in one for one in lines_of(result, "error"))


def test_doctor_meets_a_lease_that_is_taken(site: Site) -> None:
    """No error: somebody renews."""
    site.ticket()
    session = site.wxjsapi._accounts_of(site.server).own.credentials.session()
    assert session.take_lease()
    try:
        result = site.run("doctor")
    finally:
        session.release_lease()
    assert result.exit_code == 1
    assert any("a renewal is under way" in one for one in lines_of(result, "warning"))


@pytest.mark.parametrize(
    ("answer", "level", "text"),
    [
        (None, "ok", "answers"),
        ("a string", "error", "returned str, not a Credential"),
        (RuntimeError("postgres://user:hunter2@db"), "error", "fails: RuntimeError"),
    ],
)
def test_doctor_looks_into_a_ticket_server(
    make_app: Callable[..., tuple[Flask, WxJsApi]], answer: Any, level: str, text: str
) -> None:
    """find() alone is tried, and what it raises is not quoted."""

    class Mine(TicketServer):
        def find(self, key: str) -> Credential | None:
            if isinstance(answer, Exception):
                raise answer
            return answer  # type: ignore[no-any-return]  # of a fake

        def save(self, key: str, credential: Credential) -> None:
            pass

    app, _ = make_app(WXJSAPI_TICKET_SERVER=Mine)
    result = run(app, "doctor")
    assert any(text in one and "Mine" in one for one in lines_of(result, level))
    assert "hunter2" not in result.output


@pytest.mark.parametrize("ignores_key", [True, False])
def test_doctor_sees_that_a_ticket_server_ignores_its_key(
    make_app: Callable[..., tuple[Flask, WxJsApi]], ignores_key: bool
) -> None:
    """It would sign pages with the ticket for cards one day."""

    class Mine(TicketServer):
        def __init__(self) -> None:
            self.rows: dict[str, Credential] = {}

        def find(self, key: str) -> Credential | None:
            return self.rows.get("" if ignores_key else key)

        def save(self, key: str, credential: Credential) -> None:
            self.rows["" if ignores_key else key] = credential

    app, wxjsapi = make_app(WXJSAPI_TICKET_SERVER=Mine())
    with app.app_context():
        assert wxjsapi.ticket
    said = [one for one in lines_of(run(app, "doctor"), "warning") if "under two keys" in one]
    assert len(said) == ignores_key


@pytest.mark.parametrize("off", [0, 100])
def test_doctor_compares_clocks(site: Site, monkeypatch: pytest.MonkeyPatch, off: int) -> None:
    """A clock more than 30 s off WeChat's is a warning."""
    monkeypatch.setattr(WeChat, "date", lambda *_: formatdate(time.time() - off, usegmt=True))
    found = [one for one in lines_of(site.run("doctor"), "warning") if "clock" in one]
    assert len(found) == (off > 0)


@pytest.mark.parametrize(
    "header",
    [
        "", "yesterday", "Mon, 99 Foo 2026 00:00:00 GMT",
        "Mon, 01 Jan 2020 00:00:00 +99999999999999999999",
    ],
)  # fmt: skip
def test_doctor_compares_no_clock_with_an_unreadable_date(
    site: Site, monkeypatch: pytest.MonkeyPatch, header: str
) -> None:
    """A gateway's answer without a date says nothing about this host's clock."""
    monkeypatch.setattr(WeChat, "date", lambda *_: header)
    result = site.run("doctor")
    assert result.exit_code == 0
    assert lines_of(result, "warning") == []
    assert any("Something answers" in one for one in lines_of(result, "ok"))


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"WXJSAPI_APP_ID": "my-app"}, "WXJSAPI_APP_ID has 6 characters, not the form wx"),
        ({"WXJSAPI_APP_SECRET": "short"}, "WXJSAPI_APP_SECRET has 5 characters"),
        ({"WXJSAPI_JSSDK_URL": "https://cdn.example/x.js"}, "WXJSAPI_JSSDK_URL"),
        ({"WXJSAPI_PUBLIC_ORIGIN": "http://shop.example"}, "WXJSAPI_PUBLIC_ORIGIN"),
        ({"WXJSAPI_PUBLIC_ORIGIN": "https://localhost"}, "WXJSAPI_PUBLIC_ORIGIN"),
    ],
)
def test_doctor_doubts_a_setting(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, str], text: str
) -> None:
    """What can be right but hardly is, is a warning."""
    app = Flask("tests")
    app.config.update(TESTING=True, WXJSAPI_APP_ID=APP_ID, WXJSAPI_APP_SECRET=SECRET)
    app.config.update(config)
    account = WxJsApi(app)
    findings = list(doctor_module._on_settings(account._accounts_of(app).own.settings))
    assert [level for level, found in findings if text in found] == ["warning"]
    assert "short" not in repr(findings)


def test_doctor_names_the_origin_that_pages_are_signed_with() -> None:
    """So that a person can compare it with the address bar."""
    app = Flask("tests")
    app.config.update(TESTING=True, WXJSAPI_APP_ID=APP_ID, WXJSAPI_APP_SECRET=SECRET)
    app.config["WXJSAPI_PUBLIC_ORIGIN"] = "https://shop.example"
    findings = list(doctor_module._on_settings(WxJsApi(app)._accounts_of(app).own.settings))
    assert ("ok", "Pages are signed with https://shop.example.") in findings


def fail_once(site: Site, sandbox: Sandbox, fault: str, **where: Any) -> None:
    sandbox.fail(fault, **where)
    with site.server.app_context(), pytest.raises(WeChatAPIError):
        site.wxjsapi.refresh()


def test_doctor_tells_of_a_pause_whose_cause_is_mended(site: Site, sandbox: Sandbox) -> None:
    """The address is admitted by now, but WeChat is left alone for a while: refresh helps."""
    fail_once(site, sandbox, "40164")
    result = site.run("doctor")
    assert result.exit_code == 2
    (pause,) = [one for one in lines_of(result, "ok") if "Nothing is asked until" in one]
    assert "failed with 40164; that is mended by now" in pause
    assert "flask wxjsapi refresh asks at once" in pause
    assert "whitelist" not in result.stdout
    assert lines_of(result, "error") == ["error    There is no valid ticket."]


@pytest.mark.parametrize("left", [0, 10000])
def test_doctor_knows_whether_the_quota_is_back(
    site: Site, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """What was used up yesterday is no error of today."""
    put(site, fresh_for=1000)
    fail_once(site, sandbox, "45009", path="getticket")
    quota = {"errcode": 0, "quota": {"daily_limit": 10000, "remain": left}}
    monkeypatch.setattr(WeChat, "ask", lambda *_: quota)
    result = site.run("doctor")
    assert ("45009; that is mended" in said(result.stdout)) == (left > 0)
    assert (REACTIONS[45009].advice in said(result.stdout)) == (left == 0)
    assert result.exit_code == (0 if left else 2)


def test_doctor_names_a_cause_once(site: Site, sandbox: Sandbox) -> None:
    """Though each answer of WeChat's has another request id."""
    sandbox.fail("61004", times=None)
    assert site.run("refresh").exit_code == 1
    result = site.run("doctor")
    assert result.stdout.count("61004") == 1
    assert any("Nothing is asked until" in one for one in lines_of(result, "error"))


def test_doctor_tells_of_a_cause_that_it_does_not_meet(site: Site, sandbox: Sandbox) -> None:
    """A ticket was refused, and for that reason none is asked for now."""
    fail_once(site, sandbox, "48001", path="getticket")
    before = sandbox.calls["getticket"]
    (error, _) = lines_of(site.run("doctor"), "error")
    assert "The last attempt failed. WeChat says 48001" in error
    assert sandbox.calls["getticket"] == before


def test_doctor_asks_for_no_ticket_that_nobody_could_have(
    make_app: Callable[..., tuple[Flask, WxJsApi]], sandbox: Sandbox
) -> None:
    """The cache is down: whether there is a ticket is not known, and no call is spent on it."""
    url = f"redis://127.0.0.1:{free_port()}/0"
    app, _ = make_app(CACHE_TYPE="RedisCache", CACHE_REDIS_URL=url)
    result = run(app, "doctor")
    assert result.exit_code == 3
    (unknown,) = lines_of(result, "unknown")
    assert "Whether there is a valid ticket is not known. The cache cannot be read" in unknown
    assert sandbox.calls["getticket"] == 0


def test_doctor_asks_for_no_ticket_that_cannot_be_saved(
    site: Site, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that can only be read has none, and would have none after that."""

    def fail(*_: object) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(CacheServer, "write", fail)
    result = site.run("doctor")
    assert result.exit_code == 2
    assert any("There is no valid ticket" in one for one in lines_of(result, "error"))
    assert sandbox.calls["getticket"] == 0


def test_doctor_says_whose_the_ticket_is_that_it_asks_for(lone: Site, sandbox: Sandbox) -> None:
    """Without a cache in common it is nobody else's."""
    (asked,) = [one for one in lines_of(lone.run("doctor"), "ok") if "A ticket was" in one]
    assert "Nobody but this command has it" in asked
    assert sandbox.calls["getticket"] == 1


def test_doctor_warns_of_a_stale_ticket_whose_renewals_failed(site: Site, sandbox: Sandbox) -> None:
    """As status does."""
    put(site, fresh_for=-50)
    fail_once(site, sandbox, "48001", path="getticket")
    result = site.run("doctor")
    assert result.exit_code == 1
    assert any("The ticket is stale" in one for one in lines_of(result, "warning"))


def test_doctor_as_json(site: Site, sandbox: Sandbox) -> None:
    """The level of the worst finding, with its text, and all of them."""
    sandbox.fail("61004", times=None)
    result = site.run("doctor", "--json")
    facts = json.loads(result.stdout)
    assert list(facts) == ["account", "app_id", "level", "reason", "findings"]
    assert (result.exit_code, facts["level"]) == (2, "error")
    assert "61004" in facts["reason"]
    assert {tuple(finding) for finding in facts["findings"]} == {("level", "text")}


@pytest.mark.parametrize(
    ("problem", "hint"),
    [
        ("ReadOnlyError: READONLY", "It is a replica"),
        ("NoPermissionError: NOPERM", "~~wxjsapi:*"),
        ("OutOfMemoryError: OOM", "It is full"),
        ("ConnectionError: Connection refused", "Look whether it is up"),
        ("OSError: [Errno 28] No space left on device", "at CACHE_TYPE"),
    ],
)
def test_doctor_knows_what_redis_means(problem: str, hint: str) -> None:
    """By the word in capitals that it replies."""
    assert hint in doctor_module._hint(problem)
