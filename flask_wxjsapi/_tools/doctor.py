"""What ``flask wxjsapi doctor`` looks at: one finding a line, each with what to do."""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .._credential import ACCESS_TOKEN, AGENT_TICKET, JSAPI_TICKET, Credential
from .._error_text import reason
from .._loopback import is_loopback
from .._settings import SANDBOX, Settings, key_prefix
from .._storage.store import Store, StoreSession
from ..errors import TicketUnavailable, WxJsApiError

if TYPE_CHECKING:
    from .._engine.provider import Provider
    from .._extension import _State

Finding = tuple[str, str]  # "ok", "warning" or "error", and a text

_ALONE = (
    "CACHE_TYPE is SimpleCache: each process keeps its own ticket; this command cannot see theirs."
)
_EMBEDDED = (
    'API_BASE_URL is "sandbox": each process has a WeChat of its own; this command cannot see '
    "the server's."
)
_JSSDK_HOSTS = ("res.wx.qq.com", "res2.wx.qq.com")
_SKEW = 30.0  # seconds a clock may be off before it is said


def findings(state: _State) -> Iterator[Finding]:
    yield from _on_settings(state.settings)
    yield from _on_store(state)
    can_ask = False
    if (yield from _on_host(state)):
        if state.settings.central_url is not None:
            can_ask = yield from _on_central(state)
        elif token := (yield from _on_token(state)):
            can_ask = True
            yield from _on_api(state, token)
    yield from _on_ticket(state, JSAPI_TICKET, can_ask)
    if state.settings.agent_id is not None and can_ask:
        yield from _on_ticket(state, AGENT_TICKET, can_ask)


#: What the ids and secrets of a platform look like.
_FORMS = {
    "offiaccount": {
        "APP_ID": ("wx[0-9a-f]{16}", "wx and 16 hex digits"),
        "APP_SECRET": ("[0-9a-f]{32}", "32 hex digits"),
    },
    "wecom": {
        "APP_ID": ("w[a-z][0-9a-f]{16}", "ww and 16 hex digits"),
        "APP_SECRET": ("[A-Za-z0-9_-]{43}", "43 letters, digits, - and _"),
    },
}


def _on_settings(settings: Settings) -> Iterator[Finding]:
    prefix = key_prefix(settings.name)
    base_url = settings.api_base_url
    yield "ok", f"Account {settings.name}: {masked(settings.app_id)} on {settings.platform}."
    if settings.central_url is not None:
        if settings.central_url.startswith("http://") and not is_loopback(settings.central_url):
            text = "CENTRAL_URL is plain http: anybody on the way can read token and ticket."
            yield "warning", f"{prefix}{text} Use https."
    elif base_url == SANDBOX:
        yield "warning", _EMBEDDED
    elif is_loopback(base_url):
        yield "ok", f"{prefix}API_BASE_URL is a sandbox on this machine, not WeChat."
    else:
        for key, (pattern, form) in _FORMS[settings.platform].items():
            value = getattr(settings, key.lower())
            if value and not re.fullmatch(pattern, value):
                yield "warning", f"{prefix}{key} has {len(value)} characters, not the form {form}."
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


def _on_store(state: _State) -> Iterator[Finding]:
    store = state.provider.store
    try:
        cache = store.server("cache")
        key = store.key("doctor")
        cache.write(key, {"pid": os.getpid()}, 60)
        if cache.read(key) != {"pid": os.getpid()}:
            raise OSError("it did not give back what was written")
        cache.delete(key)
    except Exception as error:
        problem = reason(error).rstrip(".")
        yield "error", f"The cache does not work: {problem}. Check CACHE_TYPE and its keys."
        return
    if cache.is_private:
        yield "warning", f"{_ALONE} Several processes share one with FileSystemCache or RedisCache."
    else:
        yield "ok", f"{cache.description}: written and read back."
    if store.has_custom_server:
        yield from _on_ticket_server(store, state.settings.ticket_kinds)
    if alone(state) is None:
        yield from _on_lease(state.provider)


def _on_ticket_server(store: Store, kinds: tuple[str, ...]) -> Iterator[Finding]:
    name = store.custom_name
    try:
        with store.context():
            found = [store.server("tickets").find(store.key(kind)) for kind in kinds]
    except Exception as error:
        yield "error", f"find() of the ticket server {name} fails: {reason(error)}."
        return
    held = [ticket for ticket in found if ticket is not None]
    for ticket in held:
        if not isinstance(ticket, Credential):
            kind = type(ticket).__name__
            yield "error", f"find() of the ticket server {name} returned {kind}, not a Credential."
            return
    if len({ticket.value for ticket in held}) < len(held):
        text = "has one ticket under two keys: it works for one kind of one account only."
        yield "warning", f"The ticket server {name} {text}"
    yield "ok", f"The ticket server {name} answers."


_LEASE_FINDINGS: dict[str, Finding] = {
    "refused": ("ok", "The lease keeps a second process from renewing at the same time."),
    "taken": ("error", "Two processes get the lease at once: each would ask WeChat for itself."),
    "broken": ("error", "The lease cannot be taken; the log says why."),
    "unknown": ("warning", "Whether the lease keeps a second process out could not be tried."),
}


def _on_lease(provider: Provider) -> Iterator[Finding]:
    session = StoreSession(provider.store)
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


def _want_lease(provider: Provider) -> None:  # pragma: no cover - runs in a forked child
    session = StoreSession(provider.store)
    is_free = session.take_lease()
    code = 0 if not is_free else 3 if session.is_sound(ACCESS_TOKEN) else 4
    session.release_lease()
    raise SystemExit(code)


def _on_host(state: _State) -> Generator[Finding, None, bool]:
    """Whether WeChat answers, and what time it has."""
    upstream: Any = state.provider.upstream
    try:
        header = upstream.date(state.settings.refresh_timeout)
    except WxJsApiError as error:
        yield "error", f"{error} Look at DNS, proxy, firewall and certificates of this host."
        return False
    whose = f"{_upstream_name(state.settings)}'s"
    yield "ok", f"Something answers at {whose} address."
    try:
        skew = time.time() - parsedate_to_datetime(header).timestamp()
    except (ValueError, OverflowError):
        return True
    if abs(skew) > _SKEW:
        yield "warning", f"This host's clock is {skew:+.0f} s off {whose}: use NTP."
    return True


def _upstream_name(settings: Settings) -> str:
    if settings.central_url is not None:
        return "the central server"
    return "WeCom" if settings.platform == "wecom" else "WeChat"


def _on_central(state: _State) -> Generator[Finding, None, bool]:
    """Whether the central server gives a ticket to this app."""
    try:
        state.provider.upstream.fetch(
            JSAPI_TICKET, parent=None, rejected=None, timeout=state.settings.refresh_timeout
        )
    except WxJsApiError as error:
        yield "error", str(error)
        return False
    yield "ok", "The central server knows this app and has a ticket."
    return True


def _on_token(state: _State) -> Generator[Finding, None, str | None]:
    """A token to ask with, got in a way that takes nobody else's away."""
    settings = state.settings
    is_legacy = settings.token_endpoint == "token" and settings.platform == "offiaccount"
    if is_legacy and settings.access_token_provider is None:
        stored = find(state, ACCESS_TOKEN)
        if stored is not None and time.time() < stored.usable_until:
            return stored.value
        text = 'No token was asked for: with TOKEN_ENDPOINT = "token" that ends everybody\'s.'
        yield "warning", f"{text} To try it, run refresh."
        return None
    try:
        token: str = state.provider.upstream.fetch(
            ACCESS_TOKEN, parent=None, rejected=None, timeout=settings.refresh_timeout
        ).value
    except WxJsApiError as error:
        yield "error", f"No access token: {error}"
        return None
    yield "ok", "There is an access token: AppID, secret and IP address are accepted."
    return token


def _on_api(state: _State, token: str) -> Iterator[Finding]:
    upstream: Any = state.provider.upstream
    timeout = state.settings.refresh_timeout
    try:
        upstream.ask("GET", "/cgi-bin/get_api_domain_ip", token, timeout)
    except WxJsApiError as error:
        yield "error", f"The token is not accepted: {error}"
        return
    yield "ok", f"{_upstream_name(state.settings)} accepts the token."
    if state.settings.platform == "wecom":
        return  # which tells nobody what is left
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


def _on_ticket(state: _State, kind: str, can_ask: bool) -> Iterator[Finding]:
    """A ticket, and the back-off; one is asked for where there is none."""
    name = "ticket" if kind == JSAPI_TICKET else "ticket of the agent"
    found = state.provider.status(kind)
    if found.retry_at is not None:
        level = "error" if found.state == "invalid" else "warning"
        yield level, f"Nothing is asked until {when(found.retry_at)}. {found.last_error}"
        yield "ok", "Once that is mended, flask wxjsapi refresh tries at once."
        return
    try:
        if found.state == "invalid" and can_ask:
            current_ticket(state, kind)
            found = state.provider.status(kind)
    except WxJsApiError as error:
        yield "error", f"No {name}: {why(error)}"
        return
    if found.state != "invalid" and found.expires_at is not None:
        yield "ok", f"The {name} is {found.state} and expires {when(found.expires_at)}."
    else:
        yield "error", f"There is no valid {name}."


# -- what the other commands need as well ----------------------------------------------------------


def alone(state: _State) -> str | None:
    """Why this process cannot see what the app's others keep, if it cannot."""
    if state.settings.api_base_url == SANDBOX:
        return _EMBEDDED
    store = state.provider.store
    try:
        is_private = store.server("cache").is_private and not store.has_custom_server
    except Exception:  # of a backend that connects when it is made; the log has it from status()
        return None
    return _ALONE if is_private else None


def current_ticket(state: _State, kind: str = JSAPI_TICKET) -> str:
    value = state.provider.get(kind).value
    state.provider.sync()  # its thread may still be saving, and would end with the command
    return value


def find(state: _State, kind: str) -> Credential | None:
    """A credential that is in the store or in this process, still good or not."""
    return StoreSession(state.provider.store).find(kind) or state.provider._slot(kind).held


def why(error: WxJsApiError) -> str:
    """What went wrong, where a :class:`TicketUnavailable` only says that something did."""
    if isinstance(error, TicketUnavailable):
        return str(error.__cause__ or error.description)
    return str(error)


def _span(seconds: float) -> str:
    minutes, rest = divmod(int(abs(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{rest} s"
    return f"in {text}" if seconds >= 0 else f"{text} ago"


def when(at: float) -> str:
    local = datetime.fromtimestamp(at, UTC).astimezone()
    return f"{local:%Y-%m-%d %H:%M:%S %z}, {_span(at - time.time())}"


def masked(app_id: str) -> str:
    return f"{app_id[:4]}…{app_id[-4:]}" if len(app_id) > 10 else "…"
