"""The endpoints under URL_PREFIX: signatures for single-page apps, the script that asks for them,
and tickets for other services.
"""

from __future__ import annotations

import hmac
import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from functools import partial, update_wrapper
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, Flask, Response, current_app, g, jsonify, request

from ._account import Account
from ._accounts import ACCOUNTS, Accounts
from ._credential import AGENT_TICKET, JSAPI_TICKET
from ._domains import keep_domain
from ._engine.purpose import Complaint
from ._js_api import SIGNED
from ._page.client import client_module, client_script, client_types
from ._page.config import AgentConfig, whole_url
from ._page.url import ForeignPage, check_page, is_origin_of, without_default_port
from ._settings import Settings
from ._telling import Told
from ._upstream.central import fingerprint
from .errors import TicketUnavailable, UnknownAccount

logger = logging.getLogger(__name__)

_HOSTS_TOLD = 20
_QUIET = 60.0  # seconds between two lines in the log that say the same of the same client
_ARGUMENTS = {"url", "app_id", "rejected", "nonceStr", "timestamp", "signature"}
_ESCAPE = "url is not escaped: send it through encodeURIComponent."
_PATIENCE = 5.0  # seconds that another service waits for its ticket: less than it has itself
_AGENT_PATIENCE = 2.0  # seconds that a page waits for the ticket of the agent as well
_CLIENT_LIFE = 3600  # seconds a browser keeps client.js; then it asks whether there is another
_CLIENT_TYPES = {"js": "text/javascript", "mjs": "text/javascript", "d.ts": "text/plain"}


_CACHED = (
    "The view %s is cached by Flask-Caching, and its response holds a signature: other visitors "
    "get it at addresses that it was not made for. Cache what is costly in it, not the response."
)
_ABOUT_CACHED = {"wxjsapi": {"event": "signature_cached"}}


def blueprint(settings: Settings, domain: Mapping[str, Any]) -> Blueprint:
    """The endpoints of one account.

    :param domain: the options of a rule that say on which hosts they are.
    """
    name = "wxjsapi" if settings.name == "default" else f"wxjsapi_{settings.name}"
    views = Blueprint(name, __name__, url_prefix=settings.url_prefix)
    views.add_url_rule("/config", "config", _named(_config, settings, set()), **domain)
    client = "/client.<any(js, mjs, 'd.ts'):form>"
    views.add_url_rule(client, "client", _named(_client, settings), **domain)
    if settings.central_tokens:
        views.add_url_rule("/ticket", "ticket", _named(_ticket, settings, {}), **domain)
    keep_domain(views)

    @views.after_request
    def forbid_sniffing(response: Response) -> Response:
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    return views


def _named(view: Callable[..., Response], *args: object) -> Callable[..., Response]:
    """A view with its first arguments. It has a name, which Flask-Limiter asks for."""
    return update_wrapper(partial(view, *args), view)


def guard_signed_responses(app: Flask) -> None:
    """Have browsers store no response that holds a signature, unless its view says otherwise: one
    that the back button brings back hours later is invalid.
    """
    told = Told()

    @app.after_request
    def guard(response: Response) -> Response:
        if g.pop(SIGNED, False):
            if "Cache-Control" not in response.headers:
                response.cache_control.no_store = True
            endpoint = request.endpoint or ""
            if _is_cached(endpoint) and told.is_first(endpoint):
                logger.warning(_CACHED, endpoint, extra=_ABOUT_CACHED)
        return response


def _is_cached(endpoint: str) -> bool:
    """Whether Flask-Caching's ``@cache.cached()`` is around a view."""
    view = current_app.view_functions.get(endpoint)
    return hasattr(view, "uncached") and hasattr(view, "make_cache_key")


def _shared(response: Response, settings: Settings) -> Response:
    """A response that scripts on an account's PAGE_HOSTS may read; anybody's, what is wrong."""
    response.vary.add("Origin")
    origin = request.headers.get("Origin", "")
    is_ours = is_origin_of(origin, _hosts(settings))
    if is_ours or response.status_code >= 400:
        response.access_control_allow_origin = origin if is_ours else "*"
        response.headers["Access-Control-Expose-Headers"] = "Retry-After"
    return response


def _config(settings: Settings, refused: set[str]) -> Response:
    """``GET config?url=…``: the argument of ``wx.config`` for a page, as JSON.

    ``app_id`` names an account that comes at run time. ``rejected=1`` says that WeChat refused the
    ``signature`` for this URL which had this ``nonceStr`` and ``timestamp``.

    :param refused: the hosts whose pages were refused, as the log has it.
    """
    try:
        account, timeout = _account(settings, settings.refresh_timeout, of_stranger=True)
    except ValueError as error:
        return _shared(_answer({"error": str(error)}, 400), settings)
    except (TicketUnavailable, UnknownAccount) as error:
        return _shared(_refusal(error), settings)
    return _shared(_signed(account, timeout, refused), account.settings)


def _signed(account: Account, timeout: float, refused: set[str]) -> Response:
    try:
        url = _page_to_sign(account.settings)
    except ValueError as error:
        if isinstance(error, ForeignPage):
            _tell_of_host(error.host.lower(), refused, account.settings)
        return _answer({"error": str(error)}, 400)
    try:
        if _is_complaint(account, url):
            # Without the query, which may carry somebody's OAuth code into the log.
            account.credentials.verify(Complaint(re.split("[?#]", url, maxsplit=1)[0]))
        answer: dict[str, object] = {**account.config(whole_url(url), timeout=timeout)}
        if account.settings.agent_id is not None:
            answer["agentConfig"] = _agent_config(account, whole_url(url))
        return _answer(answer)
    except (TicketUnavailable, UnknownAccount) as error:
        return _refusal(error)


def _tell_of_host(host: str, refused: set[str], settings: Settings) -> None:
    """Once for each, and of no more than somebody would read."""
    if host in refused or len(refused) >= _HOSTS_TOLD:
        return
    refused.add(host)
    logger.warning(
        "A page of %s asked for a signature and got none: is it yours? Then %sPAGE_HOSTS needs it.",
        host,
        settings.prefix,
        extra={"wxjsapi": {"event": "page_refused", **_about(settings), "host": host}},
    )


def _is_complaint(account: Account, url: str) -> bool:
    """Whether a page says that WeChat refused a signature which our ticket of now has made: what an
    older ticket or somebody else made is no reason to ask WeChat anything.
    """
    get = request.args.get
    noncestr, timestamp = get("nonceStr", ""), get("timestamp", "")
    return (
        get("rejected") == "1"
        and request.method == "GET"
        and not _is_from_elsewhere(account.settings)
        and account.has_signed(whole_url(url), noncestr, timestamp, get("signature", ""))
    )


def _is_from_elsewhere(settings: Settings) -> bool:
    """Whether a page of another site makes the request, with an image of it, say."""
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    if origin is None and site is not None:
        return site == "cross-site"
    origin = origin or "/".join((request.referrer or "").split("/")[:3])
    return origin != "" and not is_origin_of(origin, _hosts(settings))


def _account(settings: Settings, timeout: float, *, of_stranger: bool) -> tuple[Account, float]:
    """The account that a request is about, and what is left of the time in seconds.

    :raises ValueError: it names none, or several.
    :raises UnknownAccount: there is none of that AppID.
    :raises TicketUnavailable: the loader failed.
    """
    accounts: Accounts = current_app.extensions[ACCOUNTS][settings.name]
    match request.args.getlist("app_id"):
        case []:
            if settings.has_account:
                return accounts.own, timeout
            raise ValueError("app_id is missing: name the account whose page this is.")
        case [app_id] if accounts.has_loader or app_id == settings.app_id:
            return accounts.find(app_id, timeout, of_stranger=of_stranger)
        case [app_id] if not of_stranger:
            raise UnknownAccount(app_id)
        case [_]:
            raise ValueError(f"app_id is of no use here: there is no account_loader. {_ESCAPE}")
    raise ValueError(f"app_id is there more than once. {_ESCAPE}")


def _agent_config(account: Account, page: str) -> AgentConfig | None:
    """The argument of ``wx.agentConfig``; None where there is no ticket for it, since most pages
    need ``wx.config`` alone.
    """
    try:
        account.credentials.get(AGENT_TICKET, _AGENT_PATIENCE)
        return account.agent_config(page)
    except TicketUnavailable:
        return None


def _page_to_sign(settings: Settings) -> str:
    """The URL a page asks a signature for.

    :raises ValueError: it is not to be had, for the reason that the text gives.
    """
    unknown = request.args.keys() - _ARGUMENTS
    if unknown or len(request.args.getlist("url")) > 1:
        # What follows an & in a page's URL comes as arguments of its own.
        raise ValueError(_ESCAPE)
    url = request.args.get("url", "")
    check_page(url, _hosts(settings))
    return url


def _hosts(settings: Settings) -> list[str]:
    """The hosts whose pages are signed: PUBLIC_ORIGIN's or the request's, and PAGE_HOSTS."""
    if settings.public_origin:  # and not for whatever host a request names
        return [urlsplit(settings.public_origin).netloc, *settings.page_hosts]
    return [without_default_port(request.host.lower()), *settings.page_hosts]


def _refusal(error: TicketUnavailable | UnknownAccount) -> Response:
    if isinstance(error, UnknownAccount):
        return _answer({"error": "There is no such account."}, 404)
    response = _answer({"error": "There is no WeChat ticket at the moment."}, 503)
    response.retry_after = error.retry_after
    return response


def _answer(value: object, status: int = 200) -> Response:
    response = jsonify(value)
    response.status_code = status
    response.cache_control.no_store = True
    return response


# -- the ticket ------------------------------------------------------------------------------------


def _ticket(settings: Settings, said: dict[str | None, float]) -> Response:
    """``GET ticket?kind=…``: a ticket for another service, and how long it lasts.

    ``rejected`` is the fingerprint of one with which a page's signature was called invalid.

    :param said: when the log last had a line for a client; None stands for all strangers.
    """
    client = _client_name(settings.central_tokens)
    kind = request.args.get("kind", JSAPI_TICKET)
    if client is None:
        if _is_time_to_log(said, None):
            logger.warning(
                "Somebody at %s asked for a ticket without a bearer token of CENTRAL_TOKENS.",
                request.remote_addr,
                extra={"wxjsapi": {"event": "central_refused", **_about(settings)}},
            )
        response = _answer({"error": "A bearer token of CENTRAL_TOKENS is needed."}, 401)
        response.headers["WWW-Authenticate"] = 'Bearer realm="wxjsapi"'
        return response
    try:
        account, timeout = _account(settings, _PATIENCE, of_stranger=False)
    except ValueError as error:
        return _answer({"error": str(error)}, 400)
    except (TicketUnavailable, UnknownAccount) as error:
        return _refusal(error)
    settings, credentials = account.settings, account.credentials
    if kind not in settings.ticket_kinds:
        return _answer({"error": f"kind is one of {', '.join(settings.ticket_kinds)}."}, 400)
    try:
        credential = credentials.get(kind, timeout)
        if request.args.get("rejected") == fingerprint(credential.value):
            credentials.verify(Complaint(f"a page of {client}", client), kind)
            credential = credentials.get(kind, timeout)
        # What is left of its life, and not when it ends: two clocks need not agree.
        life = int(credential.expires_at - time.time())
        if life < 1:
            raise TicketUnavailable(1)
    except (TicketUnavailable, UnknownAccount) as error:
        return _refusal(error)
    if _is_time_to_log(said, client):
        facts = {**_about(settings), "client": client, "kind": kind}
        logger.info(
            "%s fetched the %s.",
            client,
            kind,
            extra={"wxjsapi": {"event": "central_served", **facts}},
        )
    return _answer(
        {"app_id": settings.app_id, "kind": kind, "value": credential.value, "expires_in": life}
    )


def _about(settings: Settings) -> dict[str, str]:
    """Which account a line of the log is about."""
    return {"account": settings.name, "app_id": settings.app_id}


def _is_time_to_log(said: dict[str | None, float], client: str | None) -> bool:
    now = time.monotonic()
    if now - said.get(client, -math.inf) < _QUIET:
        return False
    said[client] = now
    return True


def _client_name(tokens: dict[str, str]) -> str | None:
    """Whose bearer token a request has; all are compared, however early one fits."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    name = None
    for client, token in tokens.items():
        if hmac.compare_digest(given.strip().encode("utf-8", "replace"), token.encode()):
            name = client
    return name if scheme.lower() == "bearer" else None


# -- the script ------------------------------------------------------------------------------------


def _client(settings: Settings, form: str) -> Response:
    """``GET client.js``; ``client.mjs`` is the same as a module, ``client.d.ts`` its types."""
    if form == "d.ts":
        text = client_types()
    else:
        script = client_module if form == "mjs" else client_script
        text = _bridge(settings) + script(settings.jssdk_urls)
    response = Response(text, content_type=f"{_CLIENT_TYPES[form]}; charset=utf-8")
    if settings.is_sandbox:
        response.cache_control.no_cache = True  # the sandbox's port changes with every restart
    else:
        response.cache_control.public = True
        response.cache_control.max_age = _CLIENT_LIFE
    response.add_etag()
    response.make_conditional(request)
    return _shared(response, settings)


def _bridge(settings: Settings) -> str:
    """The phone of the sandbox, so that wx.config works in any browser where that is WeChat."""
    if not settings.is_sandbox:
        return ""
    from .sandbox import embedded

    return embedded().bridge_script(settings.platform.phone)
