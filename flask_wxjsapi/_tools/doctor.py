"""What ``flask wxjsapi doctor`` looks at: one finding a line, each with what to do."""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from .._account import Account
from .._credential import ACCESS_TOKEN, AGENT_TICKET, JSAPI_TICKET, Credential
from .._engine.back_off import BackOff, cause_of, latest
from .._engine.reading import Status
from .._error_text import describe
from .._loopback import is_loopback
from .._page import servers
from .._settings import JSSDK_HOSTS, Settings
from .._storage.server import TicketServer
from .._storage.store import Part
from .._upstream.wechat import WeChat
from ..errors import QUOTA_USED_UP, RID, WeChatAPIError, WxJsApiError
from .report import ALONE, EMBEDDED, alone, masked, unseen, when, why

Finding = tuple[str, str]  # "ok", "warning", "error" or "unknown", and a text

_SKEW = 30.0  # seconds a clock may be off before it is said


@dataclass
class _Seen:
    """What the findings so far have shown.

    :param can_save: what is fetched would be there for the other processes.
    :param can_ask: a ticket can be asked for.
    :param works: the kinds that were just fetched.
    :param calls_left: of the day's quota for tickets; None if it is not known.
    :param causes: what was told already, as :attr:`BackOff.cause` has it.
    """

    can_save: bool = False
    can_ask: bool = False
    works: set[str] = field(default_factory=set)
    calls_left: int | None = None
    causes: set[object] = field(default_factory=set)

    def fault(self, error: WxJsApiError, text: str) -> Finding:
        self.causes.add(cause_of(error))
        return "error", text

    def is_mended(self, kind: str, back_off: BackOff) -> bool:
        """Whether what failed then has just worked."""
        if back_off.cause == QUOTA_USED_UP and kind != ACCESS_TOKEN:
            return bool(self.calls_left)
        return kind in self.works


def findings(account: Account) -> Iterator[Finding]:
    has_rid = False
    for level, text in _findings(account):
        has_rid |= " rid: " in text and RID not in text
        yield level, text
    if has_rid:
        yield "ok", RID


def _findings(account: Account) -> Iterator[Finding]:
    settings, seen = account.settings, _Seen()
    yield from _on_settings(settings)
    yield from _on_store(account, seen)
    yield from _on_upstream(account, seen)
    yield from _on_ticket(account, JSAPI_TICKET, seen)
    if settings.agent_id is not None and seen.can_ask:
        yield from _on_ticket(account, AGENT_TICKET, seen)


def _on_settings(settings: Settings) -> Iterator[Finding]:
    prefix = settings.prefix
    base_url = settings.api_base_url
    yield "ok", f"Account {settings.name}: {masked(settings.app_id)} on {settings.platform}."
    if settings.central_url is not None:
        if settings.central_url.startswith("http://") and not is_loopback(settings.central_url):
            text = f"{prefix}CENTRAL_URL is plain http: who listens can read token and ticket."
            yield "warning", f"{text} Use https."
    elif settings.is_sandbox:
        yield "warning", EMBEDDED
    elif is_loopback(base_url):
        yield "ok", f"{prefix}API_BASE_URL is a sandbox on this machine, not WeChat."
    else:
        platform = settings.platform
        for key, value, form in (
            ("APP_ID", settings.app_id, platform.id_form),
            ("APP_SECRET", settings.app_secret, platform.secret_form),
        ):
            if value and not form.fits(value):
                length = len(value)
                text = f"{prefix}{key} has {length} characters, not the form {form.words}."
                yield "warning", text
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
    if advice := servers.advice():
        yield "ok", advice


#: What Redis says -> what to do about it.
_HINTS = {
    "LOADING": "It is starting: wait.",
    "MISCONF": "It cannot save to its disk: look at its log.",
    "NOAUTH": "It wants a password: CACHE_REDIS_PASSWORD, or one in CACHE_REDIS_URL.",
    "NOPERM": "Its user may not do this: allow it the keys ~~wxjsapi:* (docs: caches).",
    "OOM": "It is full: raise its maxmemory, or let it evict.",
    "READONLY": "It is a replica: name the master, or its Sentinels.",
    "WRONGPASS": "Compare user and password with Redis's own.",
}


def _hint(problem: str) -> str:
    found = re.search(r"\b[A-Z]{3,}\b", problem)
    return _HINTS.get(
        found[0] if found else "", "Look whether it is up, then at CACHE_TYPE and its keys."
    )


def _on_store(account: Account, seen: _Seen) -> Iterator[Finding]:
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
        yield "error", f"The cache does not work: {problem}. {_hint(problem)}"
        return
    seen.can_save = True
    if cache.is_private:
        text = "Several workers share one with FileSystemCache or RedisCache."
        yield "warning", f"{ALONE} {text}"
    else:
        yield "ok", f"{cache.description}: written and read back."
    if store.tickets is not None:
        yield from _on_ticket_server(store.tickets, account)
    if alone(account) is None:
        yield from _on_lease(account)


def _on_ticket_server(tickets: Part[TicketServer], account: Account) -> Iterator[Finding]:
    keys = account.credentials.holding.keys
    account.status()
    if account.credentials.is_looking():  # nor would it return here
        yield "error", f"find() of {_lowered(tickets.name)} does not return: give it a timeout."
        return

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
        text = f"{tickets.name} has one ticket under two keys: it serves one kind of one account."
        yield "warning", text
    yield "ok", f"{tickets.name} answers."


def _lowered(name: str) -> str:
    return name[:1].lower() + name[1:]


_LEASE_FINDINGS: dict[str, Finding] = {
    "refused": ("ok", "The lease keeps a second process from renewing at the same time."),
    "taken": ("error", "Two processes get the lease at once: each would ask WeChat for itself."),
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
    if answer == "broken":
        problem = account.credentials.store.cache.problem("leased") or "the log says why."
        yield "error", f"The lease cannot be taken: {problem}"
    else:
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


def _on_upstream(account: Account, seen: _Seen) -> Iterator[Finding]:
    """WeChat, or the central server in its place."""
    try:
        header = account.api.date(account.settings.refresh_timeout)
    except WxJsApiError as error:
        text = f"{error} Look at DNS, proxy, firewall and certificates of this host."
        yield seen.fault(error, text)
        return
    yield from _on_clock(account.settings, header)
    if account.settings.central_url is not None:
        yield from _on_central(account, seen)
    elif token := (yield from _on_token(account, seen)):
        seen.can_ask = True
        yield from _on_api(account, token, seen)


def _on_clock(settings: Settings, header: str) -> Iterator[Finding]:
    whose = f"{_upstream_name(settings)}'s"
    yield "ok", f"Something answers at {whose} address."
    try:
        skew = time.time() - parsedate_to_datetime(header).timestamp()
    except (ValueError, OverflowError):
        return
    if abs(skew) > _SKEW:
        yield "warning", f"This host's clock is {skew:+.0f} s off {whose}: use NTP."


def _upstream_name(settings: Settings) -> str:
    if settings.central_url is not None:
        return "the central server"
    return settings.platform.title


def _fetch(account: Account, kind: str, seen: _Seen) -> Credential:
    """Ask for one, and keep it from nobody: it is not saved.

    :raises WxJsApiError: as the upstream does.
    """
    timeout = account.settings.refresh_timeout
    upstream = account.credentials.holding.upstream
    found = upstream.fetch(kind, parent=None, rejected=None, timeout=timeout)
    seen.works.add(kind)
    return found


def _on_central(account: Account, seen: _Seen) -> Iterator[Finding]:
    """Whether the central server gives a ticket to this app."""
    try:
        _fetch(account, JSAPI_TICKET, seen)
    except WxJsApiError as error:
        yield seen.fault(error, str(error))
        return
    seen.can_ask = True
    yield "ok", "The central server knows this app and has a ticket."


def _on_token(account: Account, seen: _Seen) -> Generator[Finding, None, str | None]:
    """A token to ask with, got in a way that takes nobody else's away."""
    settings = account.settings
    call = settings.platform.token_calls[settings.token_endpoint]
    has_provider = settings.access_token_provider is not None
    if call.ends_others and not has_provider:
        stored = account.credentials.stored(ACCESS_TOKEN)
        if stored is not None and time.time() < stored.usable_until:
            return stored.value
        text = 'No token was asked for: with TOKEN_ENDPOINT = "token" that ends everybody\'s.'
        yield "warning", f"{text} To try it, run refresh."
        return None
    try:
        token = _fetch(account, ACCESS_TOKEN, seen).value
    except WxJsApiError as error:
        yield seen.fault(error, f"No access token: {error}")
        return None
    if has_provider:
        yield "ok", "WXJSAPI_ACCESS_TOKEN_PROVIDER was asked for a token, and gave one."
    else:
        yield "ok", "A token was asked for: AppID, secret and IP address are accepted."
    return token


def _on_api(account: Account, token: str, seen: _Seen) -> Iterator[Finding]:
    if not isinstance(account.api, WeChat):  # a central server has no such calls
        return
    api = account.api
    timeout = account.settings.refresh_timeout
    try:
        api.ask("GET", "/cgi-bin/get_api_domain_ip", token, timeout)
    except WxJsApiError as error:
        yield seen.fault(error, f"The token is not accepted: {error}")
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
        seen.calls_left = left
        level = "error" if left <= 0 else "warning" if left < limit / 10 else "ok"
        yield level, f"{left} of {limit} ticket calls are left today."


def _on_ticket(account: Account, kind: str, seen: _Seen) -> Iterator[Finding]:
    """A ticket, and the back-off; one is asked for where there is none."""
    name = "ticket" if kind == JSAPI_TICKET else "ticket of the agent"
    found = account.credentials.status(kind)
    if alone(account) is None and (reason := unseen(account, kind)):
        yield "unknown", f"Whether there is a valid {name} is not known. {reason}"
        return
    if found.retry_at is not None:
        yield _of_back_off(account, kind, found, seen)
    elif found.state == "invalid" and seen.can_ask and seen.can_save:
        try:
            account.credentials.get(kind)
        except WxJsApiError as error:
            yield "error", f"A {name} was asked for in vain. {why(error)}"
            return
        found = account.credentials.status(kind)
        whose = (
            "Nobody but this command has it." if alone(account) else "All processes have it now."
        )
        yield "ok", f"A {name} was asked for, since there was none to be seen. {whose}"
    ahead = (found.issued_at or 0) - time.time()
    if ahead > _SKEW:
        text = f"The {name} was stored with a time that is {ahead:.0f} s ahead of this machine's."
        yield "warning", f"{text} Two clocks disagree: use NTP on all of them."
    yield _of_state(found, name)


def _of_state(found: Status, name: str) -> Finding:
    if found.state == "invalid" or found.expires_at is None:
        return "error", f"There is no valid {name}."
    text = f"The {name} is {found.state} and expires {when(found.expires_at)}."
    return "warning" if found.state == "stale" and found.last_error else "ok", text


def _of_back_off(account: Account, kind: str, found: Status, seen: _Seen) -> Finding:
    """Why nothing is asked just now. What was told is not told again: WeChat's text has another
    request id each time.
    """
    holding = account.credentials.holding
    chain = holding.chain(holding.snapshot(kind))
    back_off = latest(needed.back_off for needed in chain)
    until = when(found.retry_at or 0)
    level = "error" if found.state == "invalid" else "warning"
    if back_off is None:  # pragma: no cover - it would have no retry_at
        return level, f"Nothing is asked until {until}."
    failed = next(needed.kind for needed in chain if needed.back_off is back_off)
    if seen.is_mended(failed, back_off):
        error = back_off.error
        code = f" with {error.errcode}" if isinstance(error, WeChatAPIError) else ""
        text = f"The last attempt failed{code}; that is mended by now."
        return "ok", f"{text} Nothing is asked until {until}: flask wxjsapi refresh asks at once."
    pause = (
        f"Nothing is asked until {until}; once that is mended, flask wxjsapi refresh asks at once."
    )
    if back_off.cause in seen.causes:
        return level, pause
    return level, f"The last attempt failed. {back_off.error} {pause}"
