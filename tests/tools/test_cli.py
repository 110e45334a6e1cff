"""``flask wxjsapi``: what a person at a terminal sees, and what is never spent or shown."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_wxjsapi import Credential, WxJsApi, ticket_refreshed
from flask_wxjsapi._credential import ACCESS_TOKEN, JSAPI_TICKET
from flask_wxjsapi._engine import reading
from flask_wxjsapi._engine.reading import Credentials, Status
from flask_wxjsapi._storage.cache import CacheServer
from flask_wxjsapi._tools import cli as cli_module
from flask_wxjsapi.errors import ADVICE_IN_WECOM, ADVICE_WITH_PROVIDER, REACTIONS
from flask_wxjsapi.sandbox import Sandbox

from .terminal import APP_ID, PAGE, SECRET, Site, config_of, pasted, run, said


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
    assert result.exit_code == 3  # of status: no monitor takes it for a verdict
    assert "'shpo'" in result.stderr
    assert "default, shop" in result.stderr


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
    """Nobody but itself: that is no renewal."""
    result = lone.run("refresh")
    assert (result.exit_code, result.stdout) == (1, "")
    said = " ".join(result.stderr.split())
    assert said.startswith("Error: Renewed for this command only. CACHE_TYPE is SimpleCache")


def test_refresh_that_asks_nothing_says_so(site: Site, sandbox: Sandbox) -> None:
    """What failed some seconds ago may be mended by now: it is not told as if it were so."""
    sandbox.fail("45009", path="getticket")
    assert site.run("refresh").exit_code == 1
    result = site.run("refresh")
    assert result.exit_code == 1
    assert "Nothing was asked: the last refresh is less than 10 s ago. It failed." in said(
        result.stderr
    )
    assert sandbox.calls["getticket"] == 1


def test_refresh_right_after_the_secret_was_mended_says_why_it_waits(
    site: Site, make_app: Callable[..., tuple[Flask, WxJsApi]], tmp_path: Path
) -> None:
    """The back-off of the wrong one is not in force any more, and the 10 s still are."""
    options = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path)}
    app, _ = make_app(WXJSAPI_APP_SECRET="f" * 32, **options)
    assert "WXJSAPI_APP_SECRET is wrong" in said(run(app, "refresh").stderr)
    result = site.run("refresh")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the last refresh is less than 10 s ago" in said(result.stderr)


@pytest.mark.parametrize("command", [["ticket"], ["sign", PAGE]])
def test_a_ticket_that_nobody_else_has_is_told_of(lone: Site, command: list[str]) -> None:
    """On stderr: a script goes on."""
    result = lone.run(*command)
    assert result.exit_code == 0
    assert said(result.stderr).startswith("Only this command has the ticket. CACHE_TYPE is")


def test_refresh_that_the_cache_does_not_take(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is the cache's."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(CacheServer, "save", fail)
    result = site.run("refresh")
    assert (result.exit_code, result.stdout) == (1, "")
    assert (
        "Renewed for this command only. The cache cannot be written (OSError: [Errno 28]"
        in said(result.stderr)
    )


def test_refresh_that_the_cache_forgets(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no use to the others, though nothing failed."""
    monkeypatch.setattr(CacheServer, "save", lambda *_: None)
    result = site.run("refresh")
    assert result.exit_code == 1
    assert "does not give back what was saved" in said(result.stderr)


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


@pytest.mark.parametrize("command", [["status"], ["status", "--json"], ["refresh"], ["doctor"],
                                     ["doctor", "--json"], ["sign", PAGE]])  # fmt: skip
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
    if command[0] != "sign" and "--json" not in command:
        path = re.escape(site.app.config["CACHE_DIR"])
        lines = [line for line in result.stdout.splitlines() if not re.search(path, line)]
        assert max(map(len, lines), default=0) <= 80


def test_a_signal_is_sent_before_the_command_ends(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that tells would die with the process."""
    heard: list[str] = []
    ends, wait = threading.Event(), cli_module._hear_the_last

    def receiver(sender: Flask, kind: str, **facts: Any) -> None:
        ends.wait(60)
        heard.append(kind)

    monkeypatch.setattr(cli_module, "_hear_the_last", lambda: (ends.set(), wait()))
    with ticket_refreshed.connected_to(receiver, site.app):
        assert site.run("refresh").exit_code == 0
        assert heard == [ACCESS_TOKEN, JSAPI_TICKET]


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


@pytest.mark.parametrize("command", [["ticket"], ["sign", PAGE], ["doctor"]])
def test_ticket_is_saved_before_the_command_ends(
    site: Site, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """The thread that saves would die with the process, and the call would be lost."""
    monkeypatch.setattr(reading, "_SAVING", 0.2)
    save, get, status = CacheServer.save, Credentials.get, Credentials.status
    waits, has_it = threading.Event(), threading.Event()
    saved: list[str] = []

    def save_late(self: CacheServer, key: str, credential: Credential) -> None:
        if key.endswith("jsapi_ticket"):
            waits.wait(60)
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


def flask(
    *args: str, app: str = "tests.service", **config: str
) -> subprocess.CompletedProcess[str]:
    """A ``flask`` command in a process of its own."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("FLASK_")}
    env |= {f"FLASK_{key}": value for key, value in config.items()}
    command = [sys.executable, "-m", "flask", "--app", app, *args]
    root = Path(__file__).parent.parent.parent
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=120)


def config_for(sandbox: Sandbox, cache: Path) -> dict[str, str]:
    return {
        "WXJSAPI_APP_ID": sandbox.app_id,
        "WXJSAPI_APP_SECRET": json.dumps(sandbox.app_secret),
        "WXJSAPI_API_BASE_URL": sandbox.url,
        "CACHE_TYPE": "FileSystemCache",
        "CACHE_DIR": str(cache),
    }


@pytest.mark.processes
def test_a_failure_is_told_once(sandbox: Sandbox, tmp_path: Path) -> None:
    """And not by the log, which has nowhere to go, a second time."""
    sandbox.fail("40125", times=None)
    done = flask("wxjsapi", "ticket", **config_for(sandbox, tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("40125") == 1


@pytest.mark.processes
def test_what_the_log_warns_of_besides_is_told(sandbox: Sandbox, tmp_path: Path) -> None:
    """A record that somebody else wrote counts as none, which alone would be half the truth."""
    config = config_for(sandbox, tmp_path)
    assert flask("wxjsapi", "ticket", **config).returncode == 0
    for path in tmp_path.glob("wxjsapi.*/*"):
        path.write_bytes(bytes(4) + b"[]")
    done = flask("wxjsapi", "status", **config)
    assert done.returncode == 2
    assert "jsapi_ticket is damaged" in said(done.stderr)


@pytest.mark.processes
@pytest.mark.parametrize("command", [["wxjsapi", "status"], ["run"], ["routes"]])
def test_a_setting_that_cannot_be_right_is_one_line(command: list[str]) -> None:
    """No traceback, whatever command loads the app; and no exit status that is a mere warning."""
    done = flask(*command)
    assert (done.returncode, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: WXJSAPI_APP_ID is not set: ")
    assert 'set WXJSAPI_API_BASE_URL = "sandbox" alone' in line


@pytest.mark.processes
def test_flask_command(site: Site, sandbox: Sandbox, tmp_path: Path) -> None:
    """``flask wxjsapi status`` as people call it, in a process of its own."""
    site.ticket()
    done = flask("wxjsapi", "status", **config_for(sandbox, tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^Ticket +fresh$", done.stdout, re.M)
    assert sandbox.calls["getticket"] == 1


DOCS = Path(__file__).parent.parent.parent / "docs"


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


@pytest.mark.parametrize(
    ("page", "lang", "lines"), [("command-line.rst", "en", 4), ("zh/command-line.rst", "zh", 3)]
)
def test_command_line_page_shows_a_real_verdict(
    site: Site, page: str, lang: str, lines: int
) -> None:
    """The text below its example of verify is what the command prints."""
    page = (DOCS / page).read_text(encoding="utf-8")
    signed = "https://shop.example.com/item?id=1"
    config = pasted(config_of(site, signed))
    result = site.run("verify", "--lang", lang, f"{signed}&from=timeline", *config)
    shown = [line.strip() for line in result.stdout.splitlines() if "jsapi_ticket=" not in line]
    assert len(shown) == lines
    assert all(f"    {line}\n" in page for line in shown)
