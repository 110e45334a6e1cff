"""``flask wxjsapi``: look at the ticket, renew it, sign a page, and find out what is wrong."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import IO, Any, TypeVar
from urllib.parse import quote

import click
from flask import current_app
from flask.cli import AppGroup

from .._account import Account
from .._accounts import ACCOUNTS, Accounts
from .._credential import ACCESS_TOKEN, AGENT_TICKET, CARD_TICKET
from .._engine.reading import Status
from .._page.config import whole_url
from .._telling import logger
from ..errors import TicketUnavailable, UnknownAccount, WxJsApiError
from . import language
from .diagnosis import Diagnosis, diagnose
from .doctor import findings
from .lines import columns, wrapped
from .report import EXIT_STATUS, alone, masked, unseen, unshared, when, why, worst

_Function = TypeVar("_Function", bound=Callable[..., Any])
_ACCOUNT = "flask_wxjsapi.account"  # in click's meta
_LANG = "flask_wxjsapi.lang"  # likewise
_WIDTH = 80
_LAST_WORDS = 3.0  # seconds for what a renewal tells at its end
_GIVEN = "the one given as --ticket"
_AGENTS = "the agent's, which is for wx.agentConfig and right there"
_CARDS = "the one for cards"
_TEXTS = {"last_error", "reason", "text"}  # keys of JSON
_COLORS = {"ok": "green", "warning": "yellow", "error": "red", "unknown": "magenta"}
#: Events of the log that a command itself tells of.
_TOLD = {
    "cache_in_memory",
    "loader_failed",
    "refresh_failed",
    "renewal_broke",
    "renewal_hangs",
    "store_down",
    "store_up",
}


class _Unknown(click.ClickException):
    exit_code = EXIT_STATUS["unknown"]


class _Probe(click.Command):
    """A command that a monitor calls: what keeps it from looking is unknown, and no mere warning,
    which an exit status of 1 would be.
    """

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _as_unknown():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _as_unknown():
            return super().invoke(ctx)


@contextmanager
def _as_unknown() -> Iterator[None]:
    try:
        yield
    except click.ClickException as error:
        error.show()
        raise click.exceptions.Exit(_Unknown.exit_code) from None


class _Log(logging.Handler):
    """What the log warns of, where the app has no handler for it: as the commands tell things."""

    def __init__(self, context: click.Context) -> None:
        super().__init__(logging.WARNING)
        self._context = context

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "wxjsapi", {}).get("event") not in _TOLD:
            with self._context.scope(cleanup=False):  # also in the thread of a renewal
                _warn(record.getMessage())


@click.group("wxjsapi", cls=AppGroup)
@click.option("--account", metavar="NAME", help="The account, where the app has several.")
@click.option("--app-id", metavar="ID", help="The account, where an account_loader knows it.")
@click.pass_context
def commands(context: click.Context, account: str | None, app_id: str | None) -> None:
    """WeChat's jsapi_ticket: look at it, renew it, sign, find faults."""
    context.meta.update({_ACCOUNT: (account, app_id), _LANG: None})
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a Windows pipe has no Chinese
            stream.reconfigure(errors="replace")
    if os.environ.get("NO_COLOR"):
        context.color = False
    if not logger.hasHandlers():  # else logging itself would say a second time what is told here
        handler = _Log(context)
        logger.addHandler(handler)
        context.call_on_close(lambda: logger.removeHandler(handler))
    context.call_on_close(_hear_the_last)  # before that


def _hear_the_last() -> None:
    """What a renewal tells the log and the signals, it tells when nobody waits for it any more."""
    for thread in threading.enumerate():
        if thread.name.startswith(("wxjsapi-renewal-", "wxjsapi-aside")):
            thread.join(_LAST_WORDS)  # it may hang, in what it tells or before


def _account() -> Account:
    registered: dict[str, Accounts] = current_app.extensions[ACCOUNTS]
    name, app_id = click.get_current_context().meta[_ACCOUNT]
    if name is None:
        name = next(iter(registered)) if len(registered) == 1 else "default"
    if name not in registered:
        names = ", ".join(sorted(registered))
        raise _misused(f"There is no account {name!r}: use --account with one of {names}.")
    accounts = registered[name]
    # A command ends at once, and asks WeChat only where it says so: no thread.
    accounts.close()
    if app_id is None:
        if not accounts.settings.has_account:
            raise _misused("The accounts come from an account_loader: name one by --app-id.")
        return accounts.own
    if not accounts.has_loader and app_id != accounts.settings.app_id:
        raise _misused("There is no account_loader: leave out --app-id.")
    try:
        return accounts.find(app_id, accounts.settings.refresh_timeout)[0]
    except (TicketUnavailable, UnknownAccount) as error:
        raise _failure(error) from None


def _ticket(account: Account) -> str:
    value = account.ticket()
    account.status()  # Joins the renewal: the thread that saves would die with this process.
    if reason := unshared(account):
        _warn(f"Only this command has the ticket. {reason}")
    return value


# -- for eyes --------------------------------------------------------------------------------------


def _lang() -> str:
    context = click.get_current_context()
    given: str | None = context.meta[_LANG]
    return given or ("en" if context.params.get("as_json") else language.of_locale())


def _say(text: str) -> str:
    return language.chinese(text) if _lang() == "zh" else text


def _row(label: str, text: str, width: int = 9) -> None:
    first, *others = wrapped(_say(text), _WIDTH - width)
    _head(label, first, width)
    for line in others:
        click.echo(" " * width + line)


def _head(label: str, line: str, width: int = 9) -> None:
    shown = _say(label)
    padding = " " * (width - columns(shown))
    click.echo(f"{click.style(shown, fg=_COLORS.get(label))}{padding}{line}")


def _is_terminal(stream: IO[str]) -> bool:
    return stream.isatty()


def _lines(text: str, width: int = _WIDTH) -> str:
    return "\n".join(wrapped(_say(text), width))


def _print(text: str) -> None:
    click.echo(_lines(text))


def _warn(text: str) -> None:
    click.echo(_lines(text), err=True)


def _error(text: str) -> click.ClickException:
    return click.ClickException(_lines(text, _WIDTH - 8))


def _misused(text: str) -> click.UsageError:
    return click.UsageError(_say(text))


def _failure(error: WxJsApiError) -> click.ClickException:
    return _error(why(error))


def _print_json(account: Account, facts: Mapping[str, object]) -> None:
    about = {"account": account.settings.name, "app_id": masked(account.settings.app_id)}
    click.echo(json.dumps(_spoken({**about, **facts}), indent=2, ensure_ascii=False))


def _spoken(value: object, key: str = "") -> object:
    """The same, with what is for a person in the language that is asked for."""
    if isinstance(value, Mapping):
        return {name: _spoken(part, name) for name, part in value.items()}
    if isinstance(value, list):
        return [_spoken(part) for part in value]
    return _say(value) if isinstance(value, str) and key in _TEXTS else value


def _exit(level: str) -> None:
    if level != "ok":
        raise click.exceptions.Exit(EXIT_STATUS[level])


# -- the commands ----------------------------------------------------------------------------------


def _keep_lang(context: click.Context, option: click.Parameter, lang: str | None) -> None:
    context.meta[_LANG] = lang


def _lang_of(*langs: str) -> Callable[[_Function], _Function]:
    return click.option(
        "--lang",
        type=click.Choice(langs),
        callback=_keep_lang,
        expose_value=False,
        is_eager=True,  # what is wrong with the others is told in it
        help="What to speak; else the locale's, and English with --json.",
    )


_in_a_language = _lang_of("en", "zh")
_as_json = click.option("--json", "as_json", is_flag=True, help="For programs.")


@commands.command(cls=_Probe)
@_in_a_language
@_as_json
def status(as_json: bool) -> None:
    """Show the ticket's state, without asking WeChat.

    The exit status is a monitoring plugin's: 0 for a valid ticket, 1 for one that is to be renewed
    while renewals fail, 2 for none, 3 where that cannot be seen.
    """
    account = _account()
    found = account.status()
    state, level, reason = _judged(account, found)
    facts: dict[str, Any] = {"level": level, "reason": reason} | asdict(found)
    facts |= {"state": state, "agent": _agent(account)}
    del facts["refreshed_by"], facts["app_id"]  # never this process; in full
    if as_json:
        _print_json(account, facts)
    else:
        _show_status(account, facts)
    _exit(level)


def _judged(account: Account, found: Status) -> tuple[str, str, str | None]:
    """The state that is shown, how bad that is, and why."""
    if found.state == "invalid":
        if hidden := unseen(account):
            return "unknown", "unknown", hidden
        ended = "It has ended." if found.expires_at else "There is none in the store."
        return "invalid", "error", found.last_error or ended
    if found.state == "stale" and found.last_error:
        return "stale", "warning", found.last_error
    # Of a ticket server: whether renewals fail is in the cache.
    problem = account.credentials.store.problem(ACCESS_TOKEN, "read")
    return found.state, "warning" if problem else "ok", problem


def _agent(account: Account) -> dict[str, str | None] | None:
    if account.settings.agent_id is None:
        return None
    found = account.credentials.status(AGENT_TICKET)
    is_unknown = found.state == "invalid" and unseen(account, AGENT_TICKET)
    return {"state": "unknown" if is_unknown else found.state, "last_error": found.last_error}


def _show_status(account: Account, facts: dict[str, Any]) -> None:
    settings = account.settings
    rows = {"Account": f"{settings.name} ({masked(settings.app_id)})", "Ticket": facts["state"]}
    times = {"Issued": "issued_at", "Expires": "expires_at", "Renewal": "refresh_at"}
    rows |= {label: when(facts[name]) for label, name in times.items() if facts[name]}
    if facts["last_error"]:
        rows["Last error"] = facts["last_error"]
    if facts["retry_at"]:
        rows["Next try"] = when(facts["retry_at"])
    if agent := facts["agent"]:
        is_new = agent["last_error"] and agent["last_error"] != facts["last_error"]
        rows["Agent's"] = f"{agent['state']}. {agent['last_error']}" if is_new else agent["state"]
    if facts["reason"] not in (None, facts["last_error"]):
        rows["Note"] = facts["reason"]
    for label, text in rows.items():
        _row(label, text, 12)


@commands.command()
@_in_a_language
def ticket() -> None:
    """Print a valid ticket and nothing else. It is a secret."""
    try:
        value = _ticket(_account())
    except WxJsApiError as error:
        raise _failure(error) from None
    if _is_terminal(sys.stdout):
        _warn("The ticket is a secret: whoever has it can sign pages for the account.")
    click.echo(value)


@commands.command()
@_in_a_language
def refresh() -> None:
    """Renew the ticket now, for all processes.

    The exit status is 1 if that failed, and if no other process has the new ticket.
    """
    account = _account()
    before = account.status().issued_at
    try:
        length = len(account.refresh())
    except TicketUnavailable as error:
        if error.__cause__ is None:
            raise _failure(error) from None
        asked = "Nothing was asked: the last refresh is less than 10 s ago. It failed."
        raise _error(f"{asked} {why(error)}") from None
    except WxJsApiError as error:
        raise _failure(error) from None
    found = account.status()
    if reason := unshared(account):
        raise _error(f"Renewed for this command only. {reason}")
    if found.issued_at == before:
        _print("Nothing was asked: the last refresh is less than 10 s ago.")
    else:
        _print(f"Renewed: a ticket of {length} characters.")
    if account.settings.central_url is not None:
        _print("It came from the central server; run refresh there to have WeChat asked.")
    if found.expires_at is not None:
        _print(f"It expires {when(found.expires_at)}.")


@commands.command()
@click.argument("url")
@_in_a_language
@click.option("--json", "as_json", is_flag=True, help="The object alone.")
def sign(url: str, as_json: bool) -> None:
    """Print the wx.config call for the page at URL."""
    if not re.match("https?://.", url):
        raise click.BadParameter(_say("give the page's whole URL, with http:// or https://."))
    account = _account()
    try:
        _ticket(account)
        text = json.dumps(account.config(whole_url(url)), indent=2)
    except WxJsApiError as error:
        raise _failure(error) from None
    click.echo(text if as_json else f"wx.config({text});")


@commands.command()
@click.argument("url")
@click.option("--nonce", help="nonceStr, as wx.config got it.")
@click.option("--timestamp", help="Likewise.")
@click.option("--signature", help="Likewise.")
@click.option("--config", type=click.File(), help="These three in a file of JSON; - is stdin.")
@click.option("--ticket", "given", help="A ticket that may have signed; - asks, or reads stdin.")
@click.option(
    "--real-auth-url", "compared", help="realAuthUrl of WeChat's answer, where there is one."
)
@_lang_of("en", "zh", "both")
@_as_json
def verify(
    url: str,
    config: IO[str] | None,
    given: str | None,
    compared: str | None,
    as_json: bool,
    **values: str | None,
) -> None:
    """Find out why WeChat says "invalid signature" on the page at URL.

    URL is location.href in the browser, in quotes. The exit status is 0 if the signature is right,
    1 if a mistake was found, 3 if none was found or there is no ticket to compare with.
    """
    if given == "-" and config is not None and config.name == "<stdin>":
        raise _misused("Only one of --config and --ticket can be read from stdin.")
    names = {"nonce": "nonceStr", "timestamp": "timestamp", "signature": "signature"}
    page = _read_config(config) if config else {}
    pasted = [values[name] or page.get(js) or _ask(name, js) for name, js in names.items()]
    account = _account()
    right, others = _candidates(account, _secret(given))
    try:
        found = diagnose(
            url=compared or url, noncestr=pasted[0], timestamp=pasted[1], signature=pasted[2],
            ticket=right, others=others,
            addresses={"compared": [url.partition("#")[0]], "request": _addresses(url)},
        )  # fmt: skip
    except ValueError as error:
        raise _misused(str(error)) from None
    if as_json:
        said = {"reason": found.english, "reason_zh": found.chinese}
        _print_json(account, {"cause": found.cause, **said, "signed": found.signed})
    else:
        _show_diagnosis(found)
    _exit({"valid": "ok", "unknown": "unknown"}.get(found.cause, "warning"))


def _addresses(page: str) -> Iterator[str]:
    """Where the views of the app are that a page on the same host may have its config from."""
    origin = "/".join(page.split("/")[:3])
    sent = f"?url={quote(page.partition('#')[0], safe='')}"
    for rule in current_app.url_map.iter_rules():
        if not rule.arguments:
            for query in ("", sent):
                yield f"{origin}{rule.rule}{query}"


def _show_diagnosis(found: Diagnosis) -> None:
    _head("Cause", found.cause)
    if found.signed:
        _head("Signed", found.signed)  # in one piece, to be compared
    if _lang() != "zh":
        _row("", found.english)
    if _lang() != "en":
        _row("", _with_chinese_labels(found.chinese))


def _with_chinese_labels(text: str) -> str:
    """The diagnosis knows of the labels here only that it has to quote one."""
    for label in (_GIVEN, _AGENTS, _CARDS, "in upper case"):
        text = text.replace(label, language.chinese(label))
    return text


def _secret(given: str | None) -> str | None:
    """A secret of the command line: what stands there, all users of the machine can read."""
    if given != "-":
        if given is not None:
            _warn("The list of processes shows --ticket to all users here: use --ticket - instead.")
        return given
    if _is_terminal(sys.stdin):
        return str(click.prompt("Ticket", hide_input=True, err=True))
    return sys.stdin.readline().strip()


def _read_config(file: IO[str]) -> dict[str, str]:
    try:
        return {key: str(value) for key, value in json.load(file).items()}
    except (ValueError, AttributeError, RecursionError):
        raise _misused("--config must be the argument of wx.config as JSON.") from None


def _ask(name: str, label: str) -> str:
    if not _is_terminal(sys.stdin):
        raise _misused(f"Missing option '--{name}': {label} as wx.config got it.")
    return str(click.prompt(label))


def _candidates(account: Account, given: str | None) -> tuple[str, dict[str, str]]:
    """The ticket that should have signed, and what else may have."""
    others: dict[str, str] = {}
    account.status()  # looks
    hidden = unseen(account)
    if hidden and given is not None:
        return given, {}  # of the server's process, which this one knows nothing of
    if hidden and alone(account) is None:  # to ask WeChat for another one would be of no use
        raise _cannot_compare(hidden)
    try:
        right = account.ticket()
    except WxJsApiError as error:
        if given is None:
            raise _cannot_compare(why(error)) from None
        right = given
    if hidden:
        _warn(f"{hidden} A page of theirs may be signed with another ticket: pass --ticket.")
    if given is not None:
        others[_GIVEN] = given
    labels = {ACCESS_TOKEN: "access_token", AGENT_TICKET: _AGENTS, CARD_TICKET: _CARDS}
    for kind, label in labels.items():
        other = account.credentials.stored(kind)
        if other is not None:
            others[label] = other.value
    return right, others


def _cannot_compare(reason: str) -> click.ClickException:
    _warn("There is no ticket to compare with: pass --ticket.")
    return _Unknown(_lines(reason, _WIDTH - 8))


@commands.command(cls=_Probe)
@_in_a_language
@_as_json
def doctor(as_json: bool) -> None:
    """Check settings, cache and WeChat; say what to do.

    The exit status is that of the worst line: 1 for a warning, 2 for an error, 3 where the ticket
    cannot be seen. It never spends what is scarce: no forced refresh, no clear_quota, and a ticket
    is asked for only where there is none.
    """
    account = _account()
    found = []
    for level, text in findings(account):
        found.append({"level": level, "text": text})
        if not as_json:
            _row(level, text)
    level = worst(finding["level"] for finding in found)
    if as_json:
        worst_ones = (one["text"] for one in found if one["level"] == level)
        reason = None if level == "ok" else next(worst_ones)
        _print_json(account, {"level": level, "reason": reason, "findings": found})
    _exit(level)
