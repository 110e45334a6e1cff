"""``flask wxjsapi``: look at the ticket, renew it, sign a page, and find out what is wrong."""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
import time
import warnings
from collections.abc import Generator, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
from flask import current_app
from flask.cli import AppGroup

from ._client import is_loopback
from ._config import SANDBOX, Settings, key_prefix
from ._credential import ACCESS_TOKEN, JSAPI_TICKET, Credential
from ._diagnosis import diagnose
from ._server import Store, StoreSession, _reason
from .errors import TicketUnavailable, WxJsApiError

if TYPE_CHECKING:
    from ._extension import WxJsApi, _State
    from ._provider import Provider

_ACCOUNT = "flask_wxjsapi.account"  # in click's meta
_WIDTH = 80
_COLORS = {"ok": "green", "warning": "yellow", "error": "red"}
_ALONE = (
    "CACHE_TYPE is SimpleCache: each process keeps its own ticket; this command cannot see theirs."
)
_EMBEDDED = (
    'API_BASE_URL is "sandbox": each process has a WeChat of its own; this command cannot see '
    "the server's."
)
_JSSDK_HOSTS = ("res.wx.qq.com", "res2.wx.qq.com")
_SKEW = 30.0  # seconds a clock may be off before the doctor says so

_Finding = tuple[str, str]  # "ok", "warning" or "error", and a text


@click.group("wxjsapi", cls=AppGroup)
@click.option("--account", metavar="NAME", help="The account, where the app has several.")
@click.pass_context
def commands(context: click.Context, account: str | None) -> None:
    """WeChat's jsapi_ticket: look at it, renew it, sign, find faults."""
    context.meta[_ACCOUNT] = account
    if os.environ.get("NO_COLOR"):
        context.color = False


def _account() -> WxJsApi:
    accounts: dict[str, WxJsApi] = current_app.extensions["wxjsapi"]
    name = click.get_current_context().meta.get(_ACCOUNT)
    if name is None:
        name = next(iter(accounts)) if len(accounts) == 1 else "default"
    if name not in accounts:
        names = ", ".join(sorted(accounts))
        raise click.UsageError(f"There is no account {name!r}: use --account with one of {names}.")
    account = accounts[name]
    # A command ends at once, and asks WeChat only where it says so: no thread.
    account.close(current_app._get_current_object())  # type: ignore[attr-defined]  # LocalProxy
    return account


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
    text = str(error)
    if isinstance(error, TicketUnavailable):
        text = str(error.__cause__ or error.description)
    return click.ClickException(click.wrap_text(text, _WIDTH - 8))


def _span(seconds: float) -> str:
    minutes, rest = divmod(int(abs(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{rest} s"
    return f"in {text}" if seconds >= 0 else f"{text} ago"


def _when(at: float) -> str:
    local = datetime.fromtimestamp(at, UTC).astimezone()
    return f"{local:%Y-%m-%d %H:%M:%S %z}, {_span(at - time.time())}"


def _masked(app_id: str) -> str:
    return f"{app_id[:4]}…{app_id[-4:]}" if len(app_id) > 10 else "…"


def _store(state: _State) -> Store:
    return state.provider._process().store


def _alone(state: _State) -> str | None:
    """Why this process cannot see what the app's others keep, if it cannot."""
    if state.settings.api_base_url == SANDBOX:
        return _EMBEDDED
    store = _store(state)
    try:
        is_private = store.server("cache").is_private and not store.has_custom_server
    except Exception:  # of a backend that connects when it is made; the log has it from status()
        return None
    return _ALONE if is_private else None


def _ticket(state: _State) -> str:
    value = state.provider.get().value
    state.provider.sync()  # its thread may still be saving, and would end with the command
    return value


# -- the commands ----------------------------------------------------------------------------------


@commands.command()
@click.option("--json", "as_json", is_flag=True, help="For programs; times are Unix times.")
def status(as_json: bool) -> None:
    """Show the ticket's state, without asking WeChat.

    The exit status is 1 when no valid ticket is to be seen.
    """
    account = _account()
    state, found = account._state(), account.status()
    note = _alone(state)
    shown = "unknown" if note and found.state == "invalid" else found.state
    facts = {"account": account.name, "app_id": _masked(state.settings.app_id)}
    facts |= asdict(found) | {"state": shown, "note": note}
    del facts["refreshed_by"]  # never this process
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        _show_status(facts)
    if shown not in ("fresh", "stale"):
        raise click.exceptions.Exit(1)


def _show_status(facts: dict[str, Any]) -> None:
    rows = {"Account": f"{facts['account']} ({facts['app_id']})", "Ticket": facts["state"]}
    times = {"Issued": "issued_at", "Expires": "expires_at", "Renewal": "refresh_at"}
    rows |= {label: _when(facts[name]) for label, name in times.items() if facts[name]}
    if facts["last_error"]:
        rows["Last error"] = facts["last_error"]
    if facts["retry_at"]:
        rows["Next try"] = _when(facts["retry_at"])
    if facts["note"]:
        rows["Note"] = facts["note"]
    for label, text in rows.items():
        _row(label, text, 12)


@commands.command()
def ticket() -> None:
    """Print a valid ticket and nothing else. It is a secret."""
    try:
        value = _ticket(_account()._state())
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
    if note := _alone(account._state()):
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
    if found.expires_at is not None:
        click.echo(f"It expires {_when(found.expires_at)}.")


@commands.command()
@click.argument("url")
@click.option("--json", "as_json", is_flag=True, help="The object alone.")
def sign(url: str, as_json: bool) -> None:
    """Print the wx.config call for the page at URL."""
    if not re.match("https?://.", url):
        raise click.BadParameter("give the page's whole URL, with http:// or https://.")
    account = _account()
    try:
        _ticket(account._state())
        text = json.dumps(account.config(url=url), indent=2)
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


def _candidates(account: WxJsApi, given: str | None) -> tuple[str, dict[str, str]]:
    """The ticket that should have signed, and what else may have."""
    state, others = account._state(), {}
    note = _alone(state)
    if note and given is not None:
        return given, {}  # of the server's process, which this one knows nothing of
    try:
        right = _ticket(state)
    except WxJsApiError as error:
        if given is None:
            _warn("There is no ticket to compare with: pass --ticket.")
            raise _failure(error) from None
        right = given
    if note:
        _warn(f"{note} A page of theirs may be signed with another ticket: pass --ticket.")
    if given is not None:
        others["the one given as --ticket"] = given
    token = _found(state, ACCESS_TOKEN)
    if token is not None:
        others["access_token"] = token.value
    return right, others


def _found(state: _State, kind: str) -> Credential | None:
    """A credential that is in the store or in this process, still good or not."""
    return StoreSession(_store(state)).find(kind) or state.provider._slot(kind).held


# -- the doctor ------------------------------------------------------------------------------------


@commands.command()
def doctor() -> None:
    """Check settings, cache and WeChat; say what to do.

    The exit status is 1 if there is an error. It never spends what is scarce: no forced refresh, no
    clear_quota, and a ticket is asked for only where there is none.
    """
    worst = False
    for level, text in _findings(_account()._state()):
        _row(level, text)
        worst = worst or level == "error"
    if worst:
        raise click.exceptions.Exit(1)


def _findings(state: _State) -> Iterator[_Finding]:
    yield from _on_settings(state.settings)
    yield from _on_store(state)
    token = None
    if (yield from _on_host(state)):
        token = yield from _on_token(state)
    if token is not None:
        yield from _on_api(state, token)
    yield from _on_ticket(state, token)


def _on_settings(settings: Settings) -> Iterator[_Finding]:
    prefix = key_prefix(settings.name)
    base_url = settings.api_base_url
    yield "ok", f"Account {settings.name}: {_masked(settings.app_id)} on {settings.platform}."
    if base_url == SANDBOX:
        yield "warning", _EMBEDDED
    elif is_loopback(base_url):
        yield "ok", f"{prefix}API_BASE_URL is a sandbox on this machine, not WeChat."
    else:
        if not re.fullmatch("wx[0-9a-f]{16}", settings.app_id):
            yield "warning", f"{prefix}APP_ID is not of the form wx and 16 hex digits."
        if settings.app_secret and not re.fullmatch("[0-9a-f]{32}", settings.app_secret):
            length = len(settings.app_secret)
            yield "warning", f"{prefix}APP_SECRET has {length} characters, not 32 hex digits."
    for url in settings.jssdk_urls:
        if urlsplit(url).scheme != "https" or urlsplit(url).hostname not in _JSSDK_HOSTS:
            yield "warning", f"{prefix}JSSDK_URL names {url}, which is not WeChat's own."
    origin = settings.public_origin
    if origin is None:
        yield "ok", "Pages are signed with the host of each request; behind a proxy use ProxyFix."
    elif origin.startswith("http://") or is_loopback(origin):
        yield "warning", f"{prefix}PUBLIC_ORIGIN is {origin}: is that what browsers show?"
    else:
        yield "ok", f"Pages are signed with {origin}."


def _on_store(state: _State) -> Iterator[_Finding]:
    store = _store(state)
    try:
        cache = store.server("cache")
        key = f"{store.prefix}doctor"
        cache.write(key, {"pid": os.getpid()}, 60)
        if cache.read(key) != {"pid": os.getpid()}:
            raise OSError("it did not give back what was written")
        cache.delete(key)
    except Exception as error:
        yield "error", f"The cache does not work: {_reason(error)}. Check CACHE_TYPE and its keys."
        return
    name = type(cache._backend).__name__
    if cache.is_private:
        yield "warning", f"{_ALONE} Several processes share one with FileSystemCache or RedisCache."
    else:
        where = f" in {cache._directory}, for this host" if cache._directory else ""
        yield "ok", f"{name}{where}: written and read back."
    if store.has_custom_server:
        yield from _on_ticket_server(store)
    if _alone(state) is None:
        yield from _on_lease(state.provider)


def _on_ticket_server(store: Store) -> Iterator[_Finding]:
    name = store._custom_name
    try:
        with store.context():
            found = store.server("tickets").find(store.prefix + JSAPI_TICKET)
    except Exception as error:
        yield "error", f"find() of the ticket server {name} fails: {_reason(error)}."
        return
    if found is None or isinstance(found, Credential):
        yield "ok", f"The ticket server {name} answers."
    else:
        kind = type(found).__name__
        yield "error", f"find() of the ticket server {name} returned {kind}, not a Credential."


_LEASE_FINDINGS: dict[str, _Finding] = {
    "refused": ("ok", "The lease keeps a second process from renewing at the same time."),
    "taken": ("error", "Two processes get the lease at once: each would ask WeChat for itself."),
    "broken": ("error", "The lease cannot be taken; the log says why."),
    "unknown": ("warning", "Whether the lease keeps a second process out could not be tried."),
}


def _on_lease(provider: Provider) -> Iterator[_Finding]:
    session = StoreSession(provider._process().store)
    if not session.take_lease():
        yield "warning", "The lease is taken: a renewal is under way. Try again in some seconds."
        return
    try:
        answer = _second_process(provider) if session.is_sound(ACCESS_TOKEN) else "broken"
    finally:
        session.release_lease()
    yield _LEASE_FINDINGS[answer]


def _second_process(provider: Provider) -> str:
    """What becomes of another process that wants the lease too."""
    from multiprocessing import get_all_start_methods, get_context  # only here

    if "fork" not in get_all_start_methods():
        return "unknown"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it does next to nothing, then ends
        child = get_context("fork").Process(target=_want_lease, args=(provider,))
        child.start()
    child.join(10)
    if child.exitcode is None:
        child.kill()
    answers: dict[int | None, str] = {0: "refused", 3: "taken", 4: "broken"}
    return answers.get(child.exitcode, "unknown")


def _want_lease(provider: Provider) -> None:
    session = StoreSession(provider._process().store)
    is_free = session.take_lease()
    code = 0 if not is_free else 3 if session.is_sound(ACCESS_TOKEN) else 4
    session.release_lease()
    raise SystemExit(code)


def _on_host(state: _State) -> Generator[_Finding, None, bool]:
    """Whether WeChat answers, and what time it has."""
    upstream: Any = state.provider._upstream
    if getattr(upstream, "date", None) is None:
        yield "ok", "Tickets come from elsewhere; WeChat itself is not asked."
        return False
    try:
        header = upstream.date(state.settings.refresh_timeout)
    except WxJsApiError as error:
        yield "error", f"{error} Look at DNS, proxy, firewall and certificates of this host."
        return False
    yield "ok", "WeChat's host is reached."
    try:
        skew = time.time() - parsedate_to_datetime(header).timestamp()
    except ValueError:
        return True
    if abs(skew) > _SKEW:
        yield "warning", f"This host's clock is {skew:+.0f} s off WeChat's: use NTP."
    return True


def _on_token(state: _State) -> Generator[_Finding, None, str | None]:
    """A token to ask with, got in a way that takes nobody else's away."""
    settings = state.settings
    if settings.token_endpoint == "token" and settings.access_token_provider is None:
        stored = _found(state, ACCESS_TOKEN)
        if stored is not None and time.time() < stored.usable_until:
            return stored.value
        text = 'No token was asked for: with TOKEN_ENDPOINT = "token" that ends everybody\'s.'
        yield "warning", f"{text} To try it, run refresh."
        return None
    try:
        token: str = state.provider._upstream.fetch(
            ACCESS_TOKEN, parent=None, rejected=None, timeout=settings.refresh_timeout
        ).value
    except WxJsApiError as error:
        yield "error", f"No access token: {error}"
        return None
    yield "ok", "There is an access token: AppID, secret and IP address are accepted."
    return token


def _on_api(state: _State, token: str) -> Iterator[_Finding]:
    upstream: Any = state.provider._upstream
    timeout = state.settings.refresh_timeout
    try:
        upstream.ask("GET", "/cgi-bin/get_api_domain_ip", token, timeout)
    except WxJsApiError as error:
        yield "error", f"The token is not accepted: {error}"
        return
    yield "ok", "WeChat accepts the token."
    body = {"cgi_path": "/cgi-bin/ticket/getticket"}
    try:
        answer = upstream.ask("POST", "/cgi-bin/openapi/quota/get", token, timeout, body)
        quota = answer["quota"]
        left, limit = int(quota["remain"]), int(quota["daily_limit"])
    except WxJsApiError as error:
        yield "warning", f"The quota of tickets is not known: {error}"
    except (KeyError, TypeError, ValueError):
        yield "warning", "The quota of tickets is not known: an answer of another form."
    else:
        level = "error" if left <= 0 else "warning" if left < limit / 10 else "ok"
        yield level, f"{left} of {limit} ticket calls are left today."


def _on_ticket(state: _State, token: str | None) -> Iterator[_Finding]:
    """The ticket, and the back-off; a ticket is asked for where there is none."""
    found = state.provider.status()
    if found.retry_at is not None:
        level = "error" if found.state == "invalid" else "warning"
        yield level, f"WeChat is left alone until {_when(found.retry_at)}. {found.last_error}"
        yield "ok", "Once that is mended, flask wxjsapi refresh tries at once."
        return
    try:
        if found.state == "invalid" and token is not None:
            _ticket(state)
            found = state.provider.status()
    except WxJsApiError as error:
        yield "error", f"No ticket: {_failure(error).message}"
        return
    if found.state != "invalid" and found.expires_at is not None:
        yield "ok", f"The ticket is {found.state} and expires {_when(found.expires_at)}."
    else:
        yield "error", "There is no valid ticket."
