"""``flask wxjsapi``: look at the ticket, renew it, sign a page, and find out what is wrong."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import textwrap
from dataclasses import asdict
from typing import IO, Any

import click
from flask import current_app
from flask.cli import AppGroup

from .._account import Account
from .._accounts import ACCOUNTS, Accounts
from .._credential import ACCESS_TOKEN, AGENT_TICKET, CARD_TICKET
from .._page.config import whole_url
from ..errors import TicketUnavailable, UnknownAccount, WxJsApiError
from .diagnosis import diagnose
from .doctor import alone, findings, masked, when, why

_ACCOUNT = "flask_wxjsapi.account"  # in click's meta
_WIDTH = 80
_AGENTS = "the agent's, which is for wx.agentConfig and right there"
_CARDS = "the one for cards"
_COLORS = {"ok": "green", "warning": "yellow", "error": "red"}


@click.group("wxjsapi", cls=AppGroup)
@click.option("--account", metavar="NAME", help="The account, where the app has several.")
@click.option("--app-id", metavar="ID", help="The account, where an account_loader knows it.")
@click.pass_context
def commands(context: click.Context, account: str | None, app_id: str | None) -> None:
    """WeChat's jsapi_ticket: look at it, renew it, sign, find faults."""
    context.meta[_ACCOUNT] = account, app_id
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a Windows pipe has no Chinese
            stream.reconfigure(errors="replace")
    if os.environ.get("NO_COLOR"):
        context.color = False


def _account() -> Account:
    registered: dict[str, Accounts] = current_app.extensions[ACCOUNTS]
    name, app_id = click.get_current_context().meta[_ACCOUNT]
    if name is None:
        name = next(iter(registered)) if len(registered) == 1 else "default"
    if name not in registered:
        names = ", ".join(sorted(registered))
        raise click.UsageError(f"There is no account {name!r}: use --account with one of {names}.")
    accounts = registered[name]
    # A command ends at once, and asks WeChat only where it says so: no thread.
    accounts.close()
    if app_id is None:
        if not accounts.settings.has_account:
            raise click.UsageError(
                "The accounts come from an account_loader: name one by --app-id."
            )
        return accounts.own
    if not accounts.has_loader and app_id != accounts.settings.app_id:
        raise click.UsageError("There is no account_loader: leave out --app-id.")
    try:
        return accounts.find(app_id, accounts.settings.refresh_timeout)[0]
    except (TicketUnavailable, UnknownAccount) as error:
        raise _failure(error) from None


def _ticket(account: Account) -> str:
    value = account.ticket()
    account.status()  # Joins the renewal: the thread that saves would die with this process.
    return value


# -- for eyes --------------------------------------------------------------------------------------


def _row(label: str, text: str, width: int = 9) -> None:
    lines = textwrap.wrap(text, _WIDTH - width) or [""]
    click.echo(click.style(label.ljust(width), fg=_COLORS.get(label)) + lines[0])
    for line in lines[1:]:
        click.echo(" " * width + line)


def _is_terminal(stream: IO[str]) -> bool:
    return stream.isatty()


def _warn(text: str) -> None:
    click.echo(click.wrap_text(text, _WIDTH), err=True)


def _failure(error: WxJsApiError) -> click.ClickException:
    return click.ClickException(click.wrap_text(why(error), _WIDTH - 8))


# -- the commands ----------------------------------------------------------------------------------


@commands.command()
@click.option("--json", "as_json", is_flag=True, help="For programs; times are Unix times.")
def status(as_json: bool) -> None:
    """Show the ticket's state, without asking WeChat.

    The exit status is 1 when no valid ticket is to be seen.
    """
    account = _account()
    found, note = account.status(), alone(account)
    shown = _seen(found.state, note)
    facts: dict[str, Any] = {
        "account": account.settings.name,
        "app_id": masked(account.settings.app_id),
    }
    facts = asdict(found) | facts | {"state": shown, "note": note}
    del facts["refreshed_by"]  # never this process
    if account.settings.agent_id is not None:
        agent = account.credentials.status(AGENT_TICKET)
        facts["agent"] = {"state": _seen(agent.state, note), "last_error": agent.last_error}
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        _show_status(facts)
    if shown not in ("fresh", "stale"):
        raise click.exceptions.Exit(1)


def _seen(state: str, note: str | None) -> str:
    """What may be said of a state: a process that is alone does not see the others'."""
    return "unknown" if note and state == "invalid" else state


def _show_status(facts: dict[str, Any]) -> None:
    state = facts["state"]
    if state == "invalid" and not facts["issued_at"]:
        state = "invalid, since none was fetched yet"
    rows = {"Account": f"{facts['account']} ({facts['app_id']})", "Ticket": state}
    times = {"Issued": "issued_at", "Expires": "expires_at", "Renewal": "refresh_at"}
    rows |= {label: when(facts[name]) for label, name in times.items() if facts[name]}
    if facts["last_error"]:
        rows["Last error"] = facts["last_error"]
    if facts["retry_at"]:
        rows["Next try"] = when(facts["retry_at"])
    if agent := facts.get("agent"):
        is_new = agent["last_error"] and agent["last_error"] != facts["last_error"]
        rows["Agent's"] = f"{agent['state']}. {agent['last_error']}" if is_new else agent["state"]
    if facts["note"]:
        rows["Note"] = facts["note"]
    for label, text in rows.items():
        _row(label, text, 12)


@commands.command()
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
def refresh() -> None:
    """Renew the ticket now, for all processes."""
    account = _account()
    before = account.status().issued_at
    if note := alone(account):
        _warn(note)
    try:
        length = len(account.refresh())
    except WxJsApiError as error:
        raise _failure(error) from None
    found = account.status()
    if found.issued_at == before:
        click.echo("Nothing was asked: the last refresh is less than 10 s ago.")
    else:
        click.echo(f"Renewed: a ticket of {length} characters.")
    if account.settings.central_url is not None:
        click.echo("It came from the central server; run refresh there to have WeChat asked.")
    if found.expires_at is not None:
        click.echo(f"It expires {when(found.expires_at)}.")


@commands.command()
@click.argument("url")
@click.option("--json", "as_json", is_flag=True, help="The object alone.")
def sign(url: str, as_json: bool) -> None:
    """Print the wx.config call for the page at URL."""
    if not re.match("https?://.", url):
        raise click.BadParameter("give the page's whole URL, with http:// or https://.")
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
@click.option("--ticket", "given", help="A ticket that may have signed.")
@click.option("--lang", type=click.Choice(["en", "zh", "both"]), default="both")
def verify(
    url: str, config: IO[str] | None, given: str | None, lang: str, **values: str | None
) -> None:
    """Find out why WeChat says "invalid signature" on the page at URL.

    URL is location.href in the browser, in quotes. The exit status is 0 if the signature is right.
    """
    names = {"nonce": "nonceStr", "timestamp": "timestamp", "signature": "signature"}
    page = _read_config(config) if config else {}
    pasted = [values[name] or page.get(js) or _ask(name, js) for name, js in names.items()]
    right, others = _candidates(_account(), given)
    try:
        found = diagnose(
            url=url, noncestr=pasted[0], timestamp=pasted[1], signature=pasted[2],
            ticket=right, others=others,
        )  # fmt: skip
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    _row("Cause", found.cause)
    if found.signed:
        click.echo(f"Signed   {found.signed}")  # in one piece, to be compared
    if lang != "zh":
        _row("", found.english)
    if lang != "en":
        click.echo(f"{'':9}{found.chinese}")
    if found.cause != "valid":
        raise click.exceptions.Exit(1)


def _read_config(file: IO[str]) -> dict[str, str]:
    try:
        return {key: str(value) for key, value in json.load(file).items()}
    except (ValueError, AttributeError, RecursionError):
        raise click.UsageError("--config must be the argument of wx.config as JSON.") from None


def _ask(name: str, label: str) -> str:
    if not _is_terminal(sys.stdin):
        raise click.UsageError(f"Missing option '--{name}': {label} as wx.config got it.")
    return str(click.prompt(label))


def _candidates(account: Account, given: str | None) -> tuple[str, dict[str, str]]:
    """The ticket that should have signed, and what else may have."""
    others: dict[str, str] = {}
    note = alone(account)
    if note and given is not None:
        return given, {}  # of the server's process, which this one knows nothing of
    try:
        right = account.ticket()
    except WxJsApiError as error:
        if given is None:
            _warn("There is no ticket to compare with: pass --ticket.")
            raise _failure(error) from None
        right = given
    if note:
        _warn(f"{note} A page of theirs may be signed with another ticket: pass --ticket.")
    if given is not None:
        others["the one given as --ticket"] = given
    labels = {ACCESS_TOKEN: "access_token", AGENT_TICKET: _AGENTS, CARD_TICKET: _CARDS}
    for kind, label in labels.items():
        other = account.credentials.stored(kind)
        if other is not None:
            others[label] = other.value
    return right, others


@commands.command()
def doctor() -> None:
    """Check settings, cache and WeChat; say what to do.

    The exit status is 1 if there is an error. It never spends what is scarce: no forced refresh, no
    clear_quota, and a ticket is asked for only where there is none.
    """
    worst = False
    for level, text in findings(_account()):
        _row(level, text)
        worst = worst or level == "error"
    if worst:
        raise click.exceptions.Exit(1)
