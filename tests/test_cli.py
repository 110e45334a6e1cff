"""``flask wxjsapi``: what a person at a terminal sees, and what is never spent or shown."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result
from flask import Flask

from flask_wxjsapi import Credential, TicketServer, WeChatAPIError, WxJsApi, sign
from flask_wxjsapi._engine.reading import Credentials, Status
from flask_wxjsapi._storage.cache import CacheServer
from flask_wxjsapi._tools import cli as cli_module
from flask_wxjsapi._tools import doctor as doctor_module
from flask_wxjsapi._upstream.wechat import WeChat
from flask_wxjsapi.errors import ADVICE_IN_WECOM, ADVICE_WITH_PROVIDER, REACTIONS
from flask_wxjsapi.sandbox import Sandbox

from .conftest import Valkey, free_port, threads_of

PAGE = "https://shop.example/p?a=1"
SECRET = "0123456789abcdef0123456789abcdef"
APP_ID = "wx0123456789abcdef"


@pytest.fixture(scope="module")
def _sandbox() -> Iterator[Sandbox]:
    with Sandbox(APP_ID, SECRET).serve() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(_sandbox: Sandbox) -> Sandbox:
    _sandbox.reset()
    return _sandbox


class Site:
    """A server and a terminal: two apps, as two processes are, with one cache between them."""

    def __init__(self, make: Callable[..., tuple[Flask, WxJsApi]], **config: Any) -> None:
        self.server, self.wxjsapi = make(**config)
        self.app, _ = make(**config)

    def ticket(self) -> str:
        with self.server.app_context():
            ticket = self.wxjsapi.ticket
        self.wxjsapi._accounts_of(self.server).own.credentials.sync()  # it is saved by now
        return ticket

    def access_token(self) -> str:
        with self.server.app_context():
            return self.wxjsapi.access_token

    def run(self, *args: str, **options: Any) -> Result:
        return run(self.app, *args, **options)


def run(app: Flask, *args: str, **options: Any) -> Result:
    result = app.test_cli_runner().invoke(args=["wxjsapi", *args], **options)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def site(make_app: Callable[..., tuple[Flask, WxJsApi]], tmp_path: Path) -> Site:
    return Site(make_app, CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path))


@pytest.fixture
def lone(make_app: Callable[..., tuple[Flask, WxJsApi]]) -> Site:
    """With nothing between server and terminal."""
    return Site(make_app, CACHE_TYPE="SimpleCache")


def lines_of(result: Result, level: str) -> list[str]:
    """The doctor's findings of a level, each on one line."""
    text = re.sub(r"\n {9}", " ", result.stdout)
    return [line for line in text.splitlines() if line.startswith(f"{level} ")]


# -- the group


def test_commands_are_there_once(site: Site) -> None:
    """``flask wxjsapi`` lists what it can do."""
    result = run(site.app, "--help")
    for name in ("status", "ticket", "refresh", "sign", "verify", "doctor"):
        assert re.search(rf"^  {name}  ", result.stdout, re.M)


@pytest.mark.parametrize("name", ["status", "ticket", "refresh", "sign", "verify", "doctor"])
def test_every_command_has_help_in_80_columns(site: Site, name: str) -> None:
    """--help says what the command is for."""
    result = run(site.app, name, "--help")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80


def two_accounts(sandbox: Sandbox) -> Flask:
    app = Flask("tests")
    app.config["TESTING"] = True
    for prefix in ("WXJSAPI_", "SHOP_WXJSAPI_"):
        app.config[f"{prefix}APP_ID"] = sandbox.app_id
        app.config[f"{prefix}APP_SECRET"] = sandbox.app_secret
        app.config[f"{prefix}API_BASE_URL"] = sandbox.url
    WxJsApi(app)
    WxJsApi(app, name="shop")
    return app


@pytest.mark.parametrize(("args", "name"), [([], "default"), (["--account", "shop"], "shop")])
def test_account_is_chosen(sandbox: Sandbox, args: list[str], name: str) -> None:
    """The default account, or the one that is named."""
    result = run(two_accounts(sandbox), *args, "status", "--json")
    assert json.loads(result.stdout)["account"] == name


def test_only_account_needs_no_name(sandbox: Sandbox) -> None:
    """An app whose one account has a name is not asked for it."""
    app = Flask("tests")
    app.config["TESTING"] = True
    app.config.update(SHOP_WXJSAPI_APP_ID="wx1", SHOP_WXJSAPI_APP_SECRET="s")
    WxJsApi(app, name="shop")
    assert json.loads(run(app, "status", "--json").stdout)["account"] == "shop"


def test_unknown_account_lists_the_names(sandbox: Sandbox) -> None:
    """A typing error is told with the right names."""
    result = run(two_accounts(sandbox), "--account", "shpo", "status")
    assert result.exit_code == 2
    assert "'shpo'" in result.stderr
    assert "default, shop" in result.stderr


# -- status


def test_status_without_a_ticket(site: Site, sandbox: Sandbox) -> None:
    """Exit status 1, and WeChat is not asked."""
    result = site.run("status")
    assert result.exit_code == 1
    assert re.search(r"^Ticket +invalid, since none was fetched yet$", result.stdout, re.M)
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
    assert (facts["state"], facts["note"], facts["account"]) == ("fresh", None, "default")
    assert facts["issued_at"] < facts["refresh_at"] < facts["expires_at"]


def test_status_shows_the_back_off(site: Site, sandbox: Sandbox) -> None:
    """The last error with its advice, and when WeChat is asked again."""
    sandbox.fail("40164", times=None)
    with site.server.app_context(), pytest.raises(Exception, match="40164"):
        site.wxjsapi.refresh()
    result = site.run("status")
    assert result.exit_code == 1
    assert "IP whitelist" in " ".join(result.stdout.split())
    assert re.search(r"^Next try .*in 1[45] min", result.stdout, re.M)


@pytest.mark.parametrize("args", [["status"], ["status", "--json"]])
def test_status_of_a_simple_cache_claims_nothing(lone: Site, args: list[str]) -> None:
    """It cannot see the server's ticket, and says so rather than "invalid"."""
    lone.ticket()
    result = lone.run(*args)
    assert result.exit_code == 1
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
    assert result.exit_code == 0
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


# -- ticket and refresh


def test_ticket_prints_the_ticket_alone(site: Site) -> None:
    """One line for a shell's $(…), and nothing on stderr."""
    assert site.run("ticket").output == f"{site.ticket()}\n"


def test_ticket_on_a_terminal_warns(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """On stderr, that it is a secret."""
    monkeypatch.setattr(cli_module, "_is_terminal", lambda stream: True)
    result = site.run("ticket")
    assert "secret" in result.stderr
    assert result.stdout == f"{site.ticket()}\n"


def test_ticket_that_cannot_be_had(site: Site, sandbox: Sandbox) -> None:
    """The cause with its advice, exit status 1."""
    sandbox.fail("40125", times=None)
    result = site.run("ticket")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "WXJSAPI_APP_SECRET is wrong" in " ".join(result.stderr.split())


def test_refresh_renews_for_all(site: Site, sandbox: Sandbox) -> None:
    """The server has the new ticket at its next look; within 10 s there is no second call."""
    site.ticket()
    result = site.run("refresh")
    assert result.exit_code == 0
    assert re.fullmatch(
        r"Renewed: a ticket of \d+ characters\.\nIt expires .*, in 1 h 59 min\.\n", result.stdout
    )
    assert sandbox.calls["getticket"] == 2
    again = site.run("refresh")
    assert again.exit_code == 0
    assert "less than 10 s ago" in again.stdout
    assert sandbox.calls["getticket"] == 2


def test_refresh_that_fails(site: Site, sandbox: Sandbox) -> None:
    """The advice of the table, exit status 1."""
    sandbox.fail("45009", times=None, path="getticket")
    result = site.run("refresh")
    assert result.exit_code == 1
    assert REACTIONS[45009].advice in " ".join(result.stderr.split())


def test_refresh_of_a_simple_cache_says_whom_it_helps(lone: Site) -> None:
    """Nobody but itself."""
    assert "cannot see theirs" in " ".join(lone.run("refresh").stderr.split())


# -- sign


@pytest.mark.parametrize("form", ["call", "json"])
def test_sign_is_right(site: Site, sandbox: Sandbox, form: str) -> None:
    """The phone accepts what the command prints."""
    result = site.run("sign", f"{PAGE}#top", *(["--json"] if form == "json" else []))
    text = result.stdout.strip()
    if form == "call":
        assert text.startswith("wx.config({")
        text = text.removeprefix("wx.config(").removesuffix(");")
    config = json.loads(text)
    keys = ("appId", "nonceStr", "timestamp", "signature")
    assert sandbox.verify(**{key: config[key] for key in keys}, url=PAGE) == "config:ok"


@pytest.mark.parametrize("url", ["shop.example/p", "/p", "ftp://a/b", "https://", ""])
def test_sign_wants_a_whole_url(site: Site, url: str) -> None:
    """What is no page is refused before anything is asked."""
    result = site.run("sign", url)
    assert result.exit_code == 2
    assert "with http:// or https://" in " ".join(result.stderr.split())


def test_sign_without_a_ticket(site: Site, sandbox: Sandbox) -> None:
    """An error, not a signature with nothing."""
    sandbox.fail("-1", times=None)
    result = site.run("sign", PAGE)
    assert (result.exit_code, result.stdout) == (1, "")


# -- verify


def config_of(site: Site, url: str = PAGE) -> dict[str, Any]:
    with site.server.app_context():
        return dict(site.wxjsapi.config(url=url))


def pasted(config: dict[str, Any]) -> list[str]:
    return [
        "--nonce", config["nonceStr"], "--timestamp", str(config["timestamp"]),
        "--signature", config["signature"],
    ]  # fmt: skip


def test_verify_a_right_signature(site: Site) -> None:
    """Exit status 0."""
    result = site.run("verify", PAGE, *pasted(config_of(site)))
    assert result.exit_code == 0
    assert re.search("^Cause +valid$", result.stdout, re.M)


@pytest.mark.parametrize(
    ("signed", "cause"),
    [("http://shop.example/p?a=1", "scheme"), ("https://shop.example/p", "query")],
)
def test_verify_names_the_cause(site: Site, signed: str, cause: str) -> None:
    """What was signed, what to do in two languages, and exit status 1."""
    result = site.run("verify", PAGE, *pasted(config_of(site, signed)))
    assert result.exit_code == 1
    assert re.search(f"^Cause +{cause}$", result.stdout, re.M)
    assert f"&url={signed}\n" in result.stdout
    assert "The signed URL" in result.stdout
    assert "签名用的 URL" in result.stdout


@pytest.mark.parametrize(("lang", "english"), [("en", True), ("zh", False)])
def test_verify_in_one_language(site: Site, lang: str, english: bool) -> None:
    """--lang leaves the other one out."""
    result = site.run("verify", "--lang", lang, PAGE, *pasted(config_of(site)))
    assert ("The signature is right" in result.stdout) == english
    assert ("签名正确" in result.stdout) != english


def test_verify_reads_the_config_as_json(site: Site) -> None:
    """What wx.config got, as it was copied."""
    text = json.dumps(config_of(site))
    assert site.run("verify", PAGE, "--config", "-", input=text).exit_code == 0


@pytest.mark.parametrize("text", ["", "[]", "{", "3"])
def test_verify_refuses_other_json(site: Site, text: str) -> None:
    """It says what it wants."""
    result = site.run("verify", PAGE, "--config", "-", input=text)
    assert result.exit_code == 2
    assert "the argument of wx.config" in result.stderr


def test_verify_names_what_is_missing(site: Site) -> None:
    """Without a terminal there is nobody to ask."""
    result = site.run("verify", PAGE, "--nonce", "n")
    assert result.exit_code == 2
    assert "--timestamp" in result.stderr


def test_verify_asks_on_a_terminal(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each value, by the name it has in the page."""
    config = config_of(site)
    answers = {key: str(config[key]) for key in ("nonceStr", "timestamp", "signature")}
    monkeypatch.setattr(cli_module, "_is_terminal", lambda stream: True)
    monkeypatch.setattr(click, "prompt", lambda label: answers[label])
    assert site.run("verify", PAGE).exit_code == 0


@pytest.mark.parametrize("which", ["ticket", "access token"])
def test_verify_tries_other_tickets(site: Site, which: str) -> None:
    """The access token of the store, and one that is given."""
    site.ticket()
    value = "another-ticket" if which == "ticket" else site.access_token()
    signature = sign(ticket=value, noncestr="n", timestamp=1, url=PAGE)
    args = ["--nonce", "n", "--timestamp", "1", "--signature", signature]
    given = ["--ticket", "another-ticket"] if which == "ticket" else []
    result = site.run("verify", PAGE, *args, *given)
    assert result.exit_code == 1
    assert re.search(f"^Cause +{which.replace(' ', '_')}$", result.stdout, re.M)
    assert value not in result.output


def test_verify_without_any_ticket(site: Site, sandbox: Sandbox) -> None:
    """It says what to do, and with --ticket it goes on."""
    config = config_of(site)
    ticket = site.ticket()
    sandbox.fail("-1", times=None)
    app = Flask("tests")
    app.config.update(TESTING=True, WXJSAPI_APP_ID="wx1", WXJSAPI_APP_SECRET="s")
    app.config["WXJSAPI_API_BASE_URL"] = sandbox.url
    WxJsApi(app)
    result = run(app, "verify", PAGE, *pasted(config))
    assert result.exit_code == 1
    assert "pass --ticket" in result.stderr
    assert run(app, "verify", PAGE, *pasted(config), "--ticket", ticket).exit_code == 0


def test_verify_with_a_ticket_of_its_own_while_wechat_is_away(site: Site, sandbox: Sandbox) -> None:
    """A cache that could have the ticket has none: the one that is given will do."""
    sandbox.fail("-1", times=None)
    signature = sign(ticket="pasted", noncestr="n", timestamp=1, url=PAGE)
    args = ["--nonce", "n", "--timestamp", "1", "--signature", signature, "--ticket", "pasted"]
    result = site.run("verify", PAGE, *args)
    assert result.exit_code == 0
    assert re.search("^Cause +valid$", result.stdout, re.M)


def test_verify_with_a_simple_cache_warns(lone: Site) -> None:
    """The ticket tried is the command's own."""
    result = lone.run("verify", PAGE, *pasted(config_of(lone)))
    assert "cannot see theirs" in " ".join(result.stderr.split())


def test_verify_believes_the_ticket_that_is_given(lone: Site, sandbox: Sandbox) -> None:
    """Where the server's cannot be seen it is the right one, and WeChat is not asked."""
    config, ticket = config_of(lone), lone.ticket()
    before = sandbox.calls.copy()
    result = lone.run("verify", PAGE, *pasted(config), "--ticket", ticket)
    assert (result.exit_code, result.stderr) == (0, "")
    assert sandbox.calls == before


@pytest.mark.parametrize("command", [["status"], ["verify", PAGE, "--ticket", "t"]])
def test_a_cache_that_cannot_be_opened_is_no_traceback(
    make_app: Callable[..., tuple[Flask, WxJsApi]],
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
) -> None:
    """Some backends connect when they are made."""

    def fail(*_: object) -> None:
        raise ConnectionError("nobody there")

    monkeypatch.setattr("flask_wxjsapi._storage.cache.CacheSettings.open", fail)
    app, _ = make_app(CACHE_TYPE="FileSystemCache", CACHE_DIR="unused")
    args = ["--nonce", "n", "--timestamp", "1", "--signature", "0" * 40]
    result = run(app, *command, *(args if command[0] == "verify" else []))
    assert result.exit_code == 1


def test_verify_refuses_what_no_page_has(site: Site) -> None:
    """With a word on what to paste."""
    config = config_of(site)
    result = site.run("verify", "shop.example", *pasted(config))
    assert result.exit_code == 2
    assert "location.href" in result.stderr


# -- doctor


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
    assert result.exit_code == 1
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
    assert result.exit_code == 1
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
    assert result.exit_code == 0
    assert any("quota" in one for one in lines_of(result, "warning"))


def test_doctor_is_told_the_quota_in_another_form(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that nobody has seen yet is a warning, not a traceback."""
    monkeypatch.setattr(WeChat, "ask", lambda *_: {"errcode": 0, "quota": {"daily_limit": "many"}})
    result = site.run("doctor")
    assert result.exit_code == 0
    assert any("an answer of another form" in one for one in lines_of(result, "warning"))


def test_doctor_has_a_token_that_wechat_refuses(site: Site, sandbox: Sandbox) -> None:
    """It says so with the table's advice, and asks for nothing more with that token."""
    sandbox.fail("40001", times=None, path="get_api_domain_ip")
    result = site.run("doctor")
    assert result.exit_code == 1
    (error,) = lines_of(result, "error")
    assert "The token is not accepted" in error
    assert "40001" in error
    assert "ticket calls" not in result.stdout


def test_doctor_gets_no_ticket(site: Site, sandbox: Sandbox) -> None:
    """AppID and secret are right, but the account may not have tickets."""
    sandbox.fail("48001", times=None, path="getticket")
    result = site.run("doctor")
    assert result.exit_code == 1
    (error,) = lines_of(result, "error")
    assert "No ticket:" in error
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
    assert result.exit_code == 1
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
    assert result.exit_code == 0
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
    assert result.exit_code == 1
    assert any("The cache does not work" in one for one in lines_of(result, "error"))
    assert "hunter2" not in result.output


def test_doctor_finds_a_cache_that_forgets(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes what is written and does not give it back keeps no ticket."""
    monkeypatch.setattr(CacheServer, "read", lambda *_: None)
    result = site.run("doctor")
    assert result.exit_code == 1
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
    assert result.exit_code == 0
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
    assert (result.exit_code == 0) == works
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
    assert result.exit_code == 1
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
    assert result.exit_code == 0
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
            return answer  # type: ignore[no-any-return]

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


def test_doctor_tells_of_the_back_off(site: Site, sandbox: Sandbox) -> None:
    """The fault is mended, but WeChat is left alone for a while: refresh tries at once."""
    sandbox.fail("40164")
    with site.server.app_context(), pytest.raises(Exception, match="40164"):
        site.wxjsapi.refresh()
    result = site.run("doctor")
    assert result.exit_code == 1
    assert "flask wxjsapi refresh" in " ".join(result.stdout.split())
    assert any("IP address are accepted" in one for one in lines_of(result, "ok"))


# -- secrets, columns, colours


@pytest.mark.parametrize("command", [["status"], ["status", "--json"], ["refresh"], ["doctor"],
                                     ["sign", PAGE]])  # fmt: skip
@pytest.mark.parametrize("fault", [None, "40164", "40125", "45009", "html", "500"])
def test_no_secret_and_80_columns(
    site: Site, sandbox: Sandbox, command: list[str], fault: str | None
) -> None:
    """Whatever happens, nothing secret is shown and a terminal is wide enough."""
    secrets = [site.ticket(), site.access_token(), SECRET, APP_ID]
    if fault is not None:
        sandbox.fail(fault, times=None)
    result = site.run(*command)
    for secret in secrets[: 3 if command[0] == "sign" else 4]:
        assert secret not in result.output
    if command[0] != "sign":
        path = re.escape(site.app.config["CACHE_DIR"])
        lines = [line for line in result.stdout.splitlines() if not re.search(path, line)]
        assert max(map(len, lines), default=0) <= 80


@pytest.mark.parametrize(("no_color", "is_colored"), [(None, True), ("", True), ("1", False)])
def test_colours(
    site: Site, monkeypatch: pytest.MonkeyPatch, no_color: str | None, is_colored: bool
) -> None:
    """On a terminal that wants them, and not with NO_COLOR."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    assert ("\x1b[" in site.run("doctor", color=True).stdout) == is_colored


def test_no_colours_in_a_pipe(site: Site) -> None:
    """What is piped is plain."""
    assert "\x1b[" not in site.run("doctor").stdout


# -- the whole way


@pytest.mark.parametrize("command", [["ticket"], ["sign", PAGE], ["doctor"]])
def test_ticket_is_saved_before_the_command_ends(
    site: Site, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """The thread that saves would die with the process, and the call would be lost."""
    save, get, status = CacheServer.save, Credentials.get, Credentials.status
    waits, has_it = threading.Event(), threading.Event()
    saved: list[str] = []

    def save_late(self: CacheServer, key: str, credential: Credential) -> None:
        if key.endswith("jsapi_ticket"):
            waits.wait(10)
        save(self, key, credential)
        saved.append(key.rpartition(":")[2])

    def get_and_tell(self: Credentials, *args: Any, **options: Any) -> Credential:
        credential = get(self, *args, **options)
        has_it.set()
        return credential

    def status_and_go_on(self: Credentials, *args: Any, **options: Any) -> Status:
        if has_it.is_set():
            waits.set()
        return status(self, *args, **options)

    monkeypatch.setattr(CacheServer, "save", save_late)
    monkeypatch.setattr(Credentials, "get", get_and_tell)
    monkeypatch.setattr(Credentials, "status", status_and_go_on)
    try:
        site.run(*command)
        assert saved[-1] == "jsapi_ticket"
    finally:
        waits.set()


@pytest.mark.processes
def test_flask_command(site: Site, sandbox: Sandbox, tmp_path: Path) -> None:
    """``flask wxjsapi status`` as people call it, in a process of its own."""
    site.ticket()
    env = {key: value for key, value in os.environ.items() if not key.startswith("FLASK_")}
    env |= {
        "FLASK_WXJSAPI_APP_ID": sandbox.app_id,
        "FLASK_WXJSAPI_APP_SECRET": json.dumps(sandbox.app_secret),
        "FLASK_WXJSAPI_API_BASE_URL": sandbox.url,
        "FLASK_CACHE_TYPE": "FileSystemCache",
        "FLASK_CACHE_DIR": str(tmp_path),
    }
    command = [sys.executable, "-m", "flask", "--app", "tests.service", "wxjsapi", "status"]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^Ticket +fresh$", done.stdout, re.M)
    assert sandbox.calls["getticket"] == 1


# -- the pages that tell of it

DOCS = Path(__file__).parent.parent / "docs"


def test_troubleshooting_has_the_tables_of_advice() -> None:
    """Every errcode, with the words that exceptions, log and doctor have."""
    text = (DOCS / "troubleshooting.rst").read_text(encoding="utf-8")
    tables = re.split("^With :doc:`WeCom|^With a token of your own", text, flags=re.M)
    found: list[dict[int, str]] = []
    for table in tables:
        rows = re.findall(r"^((?:``-?\d+``(?:, )?)+)\n((?: {4}.+\n)+)", table, re.M)
        found.append({})
        for codes, advice in rows:
            text = " ".join(advice.split())
            found[-1] |= dict.fromkeys(map(int, re.findall(r"-?\d+", codes)), text)
    of_all = {code: reaction.advice for code, reaction in REACTIONS.items()}
    assert found == [of_all, ADVICE_IN_WECOM, ADVICE_WITH_PROVIDER]


def test_command_line_page_has_every_command() -> None:
    """One section each, in the order of use."""
    text = (DOCS / "command-line.rst").read_text(encoding="utf-8")
    sections = re.findall(r"^(\w+)\n-+$", text, re.M)
    assert sections == ["status", "ticket", "refresh", "sign", "verify", "doctor"]
    assert set(sections) == set(cli_module.commands.commands)


def test_command_line_page_shows_a_real_verdict(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text below its example of verify is what the command prints."""
    page = (DOCS / "command-line.rst").read_text(encoding="utf-8")
    signed = "https://shop.example.com/item?id=1"
    result = site.run("verify", f"{signed}&from=timeline", *pasted(config_of(site, signed)))
    shown = [line.strip() for line in result.stdout.splitlines() if "jsapi_ticket=" not in line]
    assert len(shown) == 5
    assert all(f"    {line}\n" in page for line in shown)
