"""What ``flask wxjsapi doctor`` looks at: one finding a line, each with what to do."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from .._account import Account
from .._credential import ACCESS_TOKEN, AGENT_TICKET, JSAPI_TICKET, Credential
from .._error_text import describe
from .._loopback import is_loopback
from .._settings import JSSDK_HOSTS, Settings
from .._storage.server import TicketServer
from .._storage.store import Part
from .._upstream.wechat import WeChat
from ..errors import TicketUnavailable, WxJsApiError

Finding = tuple[str, str]  # "ok", "warning" or "error", and a text

_ALONE = (
    "CACHE_TYPE is SimpleCache: each process keeps its own ticket; this command cannot see theirs."
)
_EMBEDDED = (
    'API_BASE_URL is "sandbox": each process has a WeChat of its own; this command cannot see '
    "the server's."
)
_SKEW = 30.0  # seconds a clock may be off before it is said


def findings(account: Account) -> Iterator[Finding]:
    yield from _on_settings(account.settings)
    yield from _on_store(account)
    can_ask = False
    if (yield from _on_host(account)):
        if account.settings.central_url is not None:
            can_ask = yield from _on_central(account)
        elif token := (yield from _on_token(account)):
            can_ask = True
            yield from _on_api(account, token)
    yield from _on_ticket(account, JSAPI_TICKET, can_ask)
    if account.settings.agent_id is not None and can_ask:
        yield from _on_ticket(account, AGENT_TICKET, can_ask)


def _on_settings(settings: Settings) -> Iterator[Finding]:
    prefix = settings.prefix
    base_url = settings.api_base_url
    yield "ok", f"Account {settings.name}: {masked(settings.app_id)} on {settings.platform}."
    if settings.central_url is not None:
        if settings.central_url.startswith("http://") and not is_loopback(settings.central_url):
            text = "CENTRAL_URL is plain http: anybody on the way can read token and ticket."
            yield "warning", f"{prefix}{text} Use https."
    elif settings.is_sandbox:
        yield "warning", _EMBEDDED
    elif is_loopback(base_url):
        yield "ok", f"{prefix}API_BASE_URL is a sandbox on this machine, not WeChat."
    else:
        platform = settings.platform
        for key, value, form in (
            ("APP_ID", settings.app_id, platform.id_form),
            ("APP_SECRET", settings.app_secret, platform.secret_form),
        ):
            if value and not form.fits(value):
                text = f"has {len(value)} characters, not the form {form.words}."
                yield "warning", f"{prefix}{key} {text}"
    for url in settings.jssdk_urls:
        if urlsplit(url).scheme != "https" or urlsplit(url).hostname not in JSSDK_HOSTS:
            yield "warning", f"{prefix}JSSDK_URL names {url}, which is not WeChat's own."
    origin = settings.public_origin
    if origin is None:
        yield "ok", "Pages are signed with the host of each request; behind a proxy use ProxyFix."
    elif origin.startswith("http://") or is_loopback(origin):
        yield "warning", f"{prefix}PUBLIC_ORIGIN is {origin}: is that what browsers show?"
    else:
        yield "ok", f"Pages are signed with {origin}."


def _on_store(account: Account) -> Iterator[Finding]:
    credentials = account.credentials
    store = credentials.store
    try:
        cache = store.cache.server
        key = credentials.holding.keys.of("doctor")
        cache.write(key, {"pid": os.getpid()}, 60)
        if cache.read(key) != {"pid": os.getpid()}:
            raise OSError("it did not give back what was written")
        cache.delete(key)
    except Exception as error:
        problem = describe(error).rstrip(".")
        yield "error", f"The cache does not work: {problem}. Check CACHE_TYPE and its keys."
        return
    if cache.is_private:
        yield "warning", f"{_ALONE} Several processes share one with FileSystemCache or RedisCache."
    else:
        yield "ok", f"{cache.description}: written and read back."
    if store.tickets is not None:
        yield from _on_ticket_server(store.tickets, account)
    if alone(account) is None:
        yield from _on_lease(account)


def _on_ticket_server(tickets: Part[TicketServer], account: Account) -> Iterator[Finding]:
    keys = account.credentials.holding.keys

    def find_all(server: TicketServer) -> list[object]:
        return [server.find(keys.of(kind)) for kind in account.settings.ticket_kinds]

    try:
        found = tickets.use("read", find_all)
    except Exception as error:
        yield "error", f"find() of {_lowered(tickets.name)} fails: {describe(error)}."
        return
    held = [ticket for ticket in found if ticket is not None]
    for ticket in held:
        if not isinstance(ticket, Credential):
            kind, name = type(ticket).__name__, _lowered(tickets.name)
            yield "error", f"find() of {name} returned {kind}, not a Credential."
            return
    if len({ticket.value for ticket in held if isinstance(ticket, Credential)}) < len(held):
        text = "has one ticket under two keys: it works for one kind of one account only."
        yield "warning", f"{tickets.name} {text}"
    yield "ok", f"{tickets.name} answers."


def _lowered(name: str) -> str:
    return name[:1].lower() + name[1:]


_LEASE_FINDINGS: dict[str, Finding] = {
    "refused": ("ok", "The lease keeps a second process from renewing at the same time."),
    "taken": ("error", "Two processes get the lease at once: each would ask WeChat for itself."),
    "broken": ("error", "The lease cannot be taken; the log says why."),
    "unknown": ("warning", "Whether the lease keeps a second process out could not be tried."),
}


def _on_lease(account: Account) -> Iterator[Finding]:
    session = account.credentials.session()
    if not session.take_lease():
        yield "warning", "The lease is taken: a renewal is under way. Try again in some seconds."
        return
    try:
        answer = _second_process(account) if session.has_lease else "broken"
    finally:
        session.release_lease()
    yield _LEASE_FINDINGS[answer]


def _second_process(account: Account) -> str:
    """What becomes of another process that wants the lease too."""
    from multiprocessing import get_all_start_methods, get_context  # only here

    if "fork" not in get_all_start_methods():
        return "unknown"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it does next to nothing, then ends
        child = get_context("fork").Process(target=_want_lease, args=(account,))
        child.start()
    child.join(10)
    if child.exitcode is None:
        child.kill()
    answers: dict[int | None, str] = {0: "refused", 3: "taken", 4: "broken"}
    return answers.get(child.exitcode, "unknown")


def _want_lease(account: Account) -> None:  # pragma: no cover - runs in a forked child
    session = account.credentials.session()
    is_free = session.take_lease()
    code = 0 if not is_free else 3 if session.has_lease else 4
    session.release_lease()
    raise SystemExit(code)


def _on_host(account: Account) -> Generator[Finding, None, bool]:
    """Whether WeChat answers, and what time it has."""
    try:
        header = account.api.date(account.settings.refresh_timeout)
    except WxJsApiError as error:
        yield "error", f"{error} Look at DNS, proxy, firewall and certificates of this host."
        return False
    whose = f"{_upstream_name(account.settings)}'s"
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
    return settings.platform.title


def _on_central(account: Account) -> Generator[Finding, None, bool]:
    """Whether the central server gives a ticket to this app."""
    try:
        account.credentials.holding.upstream.fetch(
            JSAPI_TICKET, parent=None, rejected=None, timeout=account.settings.refresh_timeout
        )
    except WxJsApiError as error:
        yield "error", str(error)
        return False
    yield "ok", "The central server knows this app and has a ticket."
    return True


def _on_token(account: Account) -> Generator[Finding, None, str | None]:
    """A token to ask with, got in a way that takes nobody else's away."""
    settings = account.settings
    call = settings.platform.token_calls[settings.token_endpoint]
    if call.ends_others and settings.access_token_provider is None:
        stored = account.credentials.stored(ACCESS_TOKEN)
        if stored is not None and time.time() < stored.usable_until:
            return stored.value
        text = 'No token was asked for: with TOKEN_ENDPOINT = "token" that ends everybody\'s.'
        yield "warning", f"{text} To try it, run refresh."
        return None
    try:
        token: str = account.credentials.holding.upstream.fetch(
            ACCESS_TOKEN, parent=None, rejected=None, timeout=settings.refresh_timeout
        ).value
    except WxJsApiError as error:
        yield "error", f"No access token: {error}"
        return None
    yield "ok", "There is an access token: AppID, secret and IP address are accepted."
    return token


def _on_api(account: Account, token: str) -> Iterator[Finding]:
    if not isinstance(account.api, WeChat):  # a central server has no such calls
        return
    api = account.api
    timeout = account.settings.refresh_timeout
    try:
        api.ask("GET", "/cgi-bin/get_api_domain_ip", token, timeout)
    except WxJsApiError as error:
        yield "error", f"The token is not accepted: {error}"
        return
    yield "ok", f"{_upstream_name(account.settings)} accepts the token."
    path = account.settings.platform.quota_path
    if path is None:
        return
    body = {"cgi_path": "/cgi-bin/ticket/getticket"}
    try:
        answer = api.ask("POST", path, token, timeout, body)
        quota = answer["quota"]
        left, limit = int(quota["remain"]), int(quota["daily_limit"])
    except WxJsApiError as error:
        yield "warning", f"The quota of tickets is not known: {error}"
    except (KeyError, TypeError, ValueError):
        yield "warning", "The quota of tickets is not known: an answer of another form."
    else:
        level = "error" if left <= 0 else "warning" if left < limit / 10 else "ok"
        yield level, f"{left} of {limit} ticket calls are left today."


def _on_ticket(account: Account, kind: str, can_ask: bool) -> Iterator[Finding]:
    """A ticket, and the back-off; one is asked for where there is none."""
    name = "ticket" if kind == JSAPI_TICKET else "ticket of the agent"
    found = account.credentials.status(kind)
    if found.retry_at is not None:
        level = "error" if found.state == "invalid" else "warning"
        yield level, f"Nothing is asked until {when(found.retry_at)}. {found.last_error}"
        yield "ok", "Once that is mended, flask wxjsapi refresh tries at once."
        return
    try:
        if found.state == "invalid" and can_ask:
            account.credentials.get(kind)
            found = account.credentials.status(kind)
    except WxJsApiError as error:
        yield "error", f"No {name}: {why(error)}"
        return
    if found.state != "invalid" and found.expires_at is not None:
        yield "ok", f"The {name} is {found.state} and expires {when(found.expires_at)}."
    else:
        yield "error", f"There is no valid {name}."


# -- what the other commands need as well ----------------------------------------------------------


def alone(account: Account) -> str | None:
    """Why this process cannot see what the app's others keep, if it cannot."""
    if account.settings.is_sandbox:
        return _EMBEDDED
    try:
        is_private = account.credentials.store.is_private
    except Exception:  # of a backend that connects when it is made; the log has it from status()
        return None
    return _ALONE if is_private else None


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
