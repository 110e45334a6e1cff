"""``flask wxjsapi verify``: from what was pasted to the mistake."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import click
import pytest
from flask import Flask

from flask_wxjsapi import WxJsApi, sign
from flask_wxjsapi._tools import cli as cli_module
from flask_wxjsapi.sandbox import Sandbox

from ..conftest import free_port
from .terminal import PAGE, Site, config_of, pasted, run, said


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
    result = site.run("verify", "--lang", "both", PAGE, *pasted(config_of(site, signed)))
    assert result.exit_code == 1
    assert re.search(f"^Cause +{cause}$", result.stdout, re.M)
    assert f"&url={signed}\n" in result.stdout
    assert "The signed URL" in result.stdout
    assert "签名用的 URL" in result.stdout


def test_verify_knows_the_address_of_a_view(site: Site) -> None:
    """A view of the app's own that serves the config as JSON, and signs its own address."""
    site.app.add_url_rule("/api/wx-config", "wx_config", lambda: "")
    for query in ("", "?url=https%3A%2F%2Fshop.example%2Fp%3Fa%3D1"):
        signed = f"https://shop.example/api/wx-config{query}"
        result = site.run("verify", PAGE, *pasted(config_of(site, signed)))
        assert re.search("^Cause +request$", result.stdout, re.M)
        assert "config(url=" in result.stdout
    result = site.run("verify", PAGE, *pasted(config_of(site)))
    assert re.search("^Cause +valid$", result.stdout, re.M)


def test_verify_takes_the_address_that_wechat_compared(site: Site) -> None:
    """The page was signed for the one in the browser."""
    compared = ("--real-auth-url", "https://shop.example/landing")
    result = site.run("verify", PAGE, *compared, *pasted(config_of(site)))
    assert (result.exit_code, "realAuthUrl" in result.stdout) == (1, True)
    assert re.search("^Cause +compared$", result.stdout, re.M)
    result = site.run("verify", PAGE, *compared, *pasted(config_of(site, compared[1])))
    assert result.exit_code == 0


@pytest.mark.parametrize("escapes", [1, 2])
def test_verify_knows_a_url_that_was_escaped_twice(site: Site, escapes: int) -> None:
    """As a page sends it that has called encodeURIComponent once too often."""
    signed = PAGE
    for _ in range(escapes):
        signed = quote(signed, safe="")
    config = config_of(site)
    config["signature"] = sign(
        ticket=site.ticket(), noncestr=config["nonceStr"], timestamp=config["timestamp"], url=signed
    )
    result = site.run("verify", PAGE, *pasted(config))
    assert re.search("^Cause +escaped$", result.stdout, re.M)


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
    assert result.exit_code == 3
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


def test_verify_reads_a_ticket_from_stdin(lone: Site) -> None:
    """It does not stand in the list of processes then."""
    config, ticket = config_of(lone), lone.ticket()
    result = lone.run("verify", PAGE, *pasted(config), "--ticket", "-", input=f"{ticket}\n")
    assert (result.exit_code, result.stderr) == (0, "")


def test_verify_asks_for_a_ticket_on_a_terminal(
    lone: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without showing what is typed."""
    config, ticket = config_of(lone), lone.ticket()
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(cli_module, "_is_terminal", lambda stream: True)
    monkeypatch.setattr(click, "prompt", lambda text, **how: (asked.append(how), ticket)[1])
    assert lone.run("verify", PAGE, *pasted(config), "--ticket", "-").exit_code == 0
    assert [how["hide_input"] for how in asked] == [True]


def test_verify_warns_of_a_ticket_on_the_command_line(lone: Site) -> None:
    """Every user of the machine can read it there."""
    result = lone.run("verify", PAGE, *pasted(config_of(lone)), "--ticket", "t")
    assert "use --ticket - instead" in said(result.stderr)


def test_verify_reads_one_thing_from_stdin(lone: Site) -> None:
    """Two would be mixed up."""
    result = lone.run("verify", PAGE, "--config", "-", "--ticket", "-", input="{}")
    assert result.exit_code == 2
    assert "Only one of --config and --ticket" in said(result.stderr)


def test_verify_that_finds_no_mistake(site: Site) -> None:
    """It is no verdict, and no usage error."""
    args = ["--nonce", "n", "--timestamp", "1", "--signature", "0" * 40]
    result = site.run("verify", PAGE, *args)
    assert result.exit_code == 3
    assert re.search("^Cause +unknown$", result.stdout, re.M)


def test_verify_as_json(site: Site) -> None:
    """For programs: the cause, and the two texts."""
    config = config_of(site, "http://shop.example/p?a=1")
    result = site.run("verify", PAGE, *pasted(config), "--json")
    facts = json.loads(result.stdout)
    assert list(facts) == ["account", "app_id", "cause", "reason", "reason_zh", "signed"]
    assert (result.exit_code, facts["cause"]) == (1, "scheme")
    assert "jsapi_ticket=***" in facts["signed"]


def test_verify_asks_wechat_for_no_ticket_of_its_own_while_the_cache_is_down(
    make_app: Callable[..., tuple[Flask, WxJsApi]], sandbox: Sandbox
) -> None:
    """What the pages were signed with is not known."""
    url = f"redis://127.0.0.1:{free_port()}/0"
    app, _ = make_app(CACHE_TYPE="RedisCache", CACHE_REDIS_URL=url)
    args = ["--nonce", "n", "--timestamp", "1", "--signature", "0" * 40]
    result = run(app, "verify", PAGE, *args)
    assert result.exit_code == 3
    assert "pass --ticket. Error: The cache cannot be read" in said(result.stderr)
    assert not sandbox.calls


def test_verify_with_a_simple_cache_warns(lone: Site) -> None:
    """The ticket tried is the command's own."""
    result = lone.run("verify", PAGE, *pasted(config_of(lone)))
    assert "cannot see theirs" in " ".join(result.stderr.split())


def test_verify_believes_the_ticket_that_is_given(lone: Site, sandbox: Sandbox) -> None:
    """Where the server's cannot be seen it is the right one, and WeChat is not asked."""
    config, ticket = config_of(lone), lone.ticket()
    before = sandbox.calls.copy()
    result = lone.run("verify", PAGE, *pasted(config), "--ticket", ticket)
    assert result.exit_code == 0
    assert sandbox.calls == before


@pytest.mark.parametrize("command", [["status"], ["verify", PAGE], ["doctor"]])
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
    assert result.exit_code == 3


def test_verify_refuses_what_no_page_has(site: Site) -> None:
    """With a word on what to paste."""
    config = config_of(site)
    result = site.run("verify", "shop.example", *pasted(config))
    assert result.exit_code == 2
    assert "location.href" in result.stderr
