"""Where credentials come from: WeChat, WeCom, or another app that has them already."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol
from urllib.parse import urlsplit

from ._credential import ACCESS_TOKEN, AGENT_TICKET, CARD_TICKET, JSAPI_TICKET, Credential
from ._http import exchange
from .errors import TransportError, WeChatAPIError, WxJsApiError

#: WeChat documents 7200 s as the most; a larger number would outlive the ticket.
_LONGEST_LIFE = 7200.0


class Upstream(Protocol):
    """Where credentials come from."""

    def parent(self, kind: str) -> str | None:
        """The kind that must be at hand to ask for this one, if any."""

    def fetch(
        self, kind: str, *, parent: str | None, rejected: str | None, timeout: float
    ) -> Credential:
        """Ask for a credential.

        :param kind: what to ask for.
        :param parent: the value of the credential named by :meth:`parent`.
        :param rejected: the value that was just refused, if this asks for its successor.
        :param timeout: seconds for the whole call.
        :raises WxJsApiError: ours, with no secret in it.
        """


class WeChat:
    """An official account (公众号) at WeChat.

    :param base_url: the API's scheme and host, or a callable that returns them.
    :param app_id: the AppID, or the corp's id.
    :param stable: use ``stable_token`` rather than the legacy ``token``.
    """

    def __init__(
        self,
        base_url: str | Callable[[], str],
        app_id: str,
        app_secret: str,
        *,
        stable: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._base_url = base_url
        self._app_id = app_id
        self._app_secret = app_secret
        self._stable = stable
        self._clock = clock

    def parent(self, kind: str) -> str | None:
        return None if kind == ACCESS_TOKEN else ACCESS_TOKEN

    #: How each kind of ticket is asked for.
    _TICKETS: ClassVar[Mapping[str, tuple[str, Mapping[str, str]]]] = {
        JSAPI_TICKET: ("/cgi-bin/ticket/getticket", {"type": "jsapi"}),
        CARD_TICKET: ("/cgi-bin/ticket/getticket", {"type": "wx_card"}),
    }

    def fetch(
        self, kind: str, *, parent: str | None, rejected: str | None, timeout: float
    ) -> Credential:
        # ``rejected`` is not passed on: force_refresh has 20 calls a day, and is a person's to use.
        issued_at = self._clock()
        if kind == ACCESS_TOKEN:
            answer = self._fetch_token(timeout)
            return _credential(answer, "access_token", issued_at)
        path, params = self._TICKETS[kind]
        answer = self._call("GET", path, timeout, params={"access_token": parent, **params})
        return _credential(answer, "ticket", issued_at)

    def _fetch_token(self, timeout: float) -> dict[str, Any]:
        login = {
            "grant_type": "client_credential",
            "appid": self._app_id,
            "secret": self._app_secret,
        }
        if self._stable:
            body = {**login, "force_refresh": False}
            return self._call("POST", "/cgi-bin/stable_token", timeout, body=body)
        return self._call("GET", "/cgi-bin/token", timeout, params=login)

    def ask(
        self,
        method: str,
        path: str,
        access_token: str,
        timeout: float,
        body: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Another call than :meth:`fetch` makes, for a person who looks for a fault.

        :raises WxJsApiError: ours, with no secret in it.
        """
        return self._call(method, path, timeout, params={"access_token": access_token}, body=body)

    def date(self, timeout: float) -> str:
        """The ``Date`` header of an answer, whatever that says; it needs no token.

        :raises TransportError: when nobody answers.
        """
        return exchange("GET", self._host_url(), "/cgi-bin/get_api_domain_ip", timeout)[2]

    def _host_url(self) -> str:
        return self._base_url if isinstance(self._base_url, str) else self._base_url()

    def _call(
        self,
        method: str,
        path: str,
        timeout: float,
        *,
        params: dict[str, Any] | None = None,
        body: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        base_url = self._host_url()
        status, text, _ = exchange(method, base_url, path, timeout, params=params, body=body)
        host = urlsplit(base_url).netloc
        if status != 200:
            raise TransportError(f"{host} answered with HTTP {status}, which WeChat never does.")
        answer = _decoded(text)
        if answer is None:
            raise TransportError(
                f"{host} answered with something that is not WeChat's JSON: a captive portal, "
                "a broken gateway or a wrong WXJSAPI_API_BASE_URL."
            )
        errcode = _number(answer.get("errcode", 0))
        if errcode:
            secrets = [self._app_secret, str((params or {}).get("access_token", ""))]
            raise WeChatAPIError(int(errcode), _clean(answer.get("errmsg"), secrets))
        return answer


class WeCom(WeChat):
    """An application (应用) of a corp at WeCom (企业微信)."""

    _TICKETS: ClassVar[Mapping[str, tuple[str, Mapping[str, str]]]] = {
        JSAPI_TICKET: ("/cgi-bin/get_jsapi_ticket", {}),
        AGENT_TICKET: ("/cgi-bin/ticket/get", {"type": "agent_config"}),
    }

    def _fetch_token(self, timeout: float) -> dict[str, Any]:
        login = {"corpid": self._app_id, "corpsecret": self._app_secret}
        return self._call("GET", "/cgi-bin/gettoken", timeout, params=login)


class CentralServer:
    """Another app of this extension, which serves its tickets (中控服务器).

    :param url: its URL_PREFIX as a full URL.
    :param token: the bearer token it knows this app by.
    """

    def __init__(
        self, url: str, token: str, app_id: str, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._url = url
        self._token = token
        self._app_id = app_id
        self._clock = clock

    def parent(self, kind: str) -> str | None:
        return None

    def fetch(
        self, kind: str, *, parent: str | None, rejected: str | None, timeout: float
    ) -> Credential:
        params = {"kind": kind}
        if rejected is not None:
            params["rejected"] = fingerprint(rejected)
        # Here and not there: the two clocks need not agree.
        issued_at = self._clock()
        status, text, _ = self._ask(timeout, params)
        answer = _decoded(text) or {}
        if status != 200:
            raise TransportError(self._problem(status, answer))
        if (answer.get("app_id"), answer.get("kind")) != (self._app_id, kind):
            raise TransportError(
                f"{urlsplit(self._url).netloc} answered, but not with the {kind} of this account: "
                "check CENTRAL_URL and APP_ID."
            )
        return _credential(answer, "value", issued_at)

    def _problem(self, status: int, answer: dict[str, Any]) -> str:
        told = _clean(answer.get("error", ""), [self._token])
        advice = {
            400: f"{told} Do both apps have the same PLATFORM, and AGENT_ID where that is WeCom?",
            401: "It does not know CENTRAL_TOKEN: compare it with its CENTRAL_TOKENS.",
            404: "CENTRAL_URL must be its URL_PREFIX as a full URL, and it needs CENTRAL_TOKENS.",
            503: f"{told} Look at flask wxjsapi doctor there.",
        }.get(status, told or "CENTRAL_URL must be where it is itself, without a redirect.")
        host = urlsplit(self._url).netloc
        return f"The central server {host} answered with HTTP {status}. {advice}"

    def date(self, timeout: float) -> str:
        """The ``Date`` header of an answer, whatever that says.

        :raises TransportError: when nobody answers.
        """
        return self._ask(timeout)[2]

    def _ask(self, timeout: float, params: dict[str, Any] | None = None) -> tuple[int, bytes, str]:
        try:
            return exchange("GET", self._url, "/ticket", timeout, params=params, token=self._token)
        except TransportError as error:
            problem = str(error)
        raise TransportError(f"The central server {problem} Does it run, and is CENTRAL_URL right?")


def fingerprint(value: str) -> str:
    """What tells one ticket from another without being worth anything."""
    return hashlib.sha256(value.encode()).hexdigest()[:16]


class TokenProvider:
    """Another upstream with the access token taken from the user's own callable.

    :param provider: ``provider(rejected) -> Credential``.
    """

    def __init__(self, upstream: Upstream, provider: Callable[[str | None], Credential]) -> None:
        self._upstream = upstream
        self._provider = provider
        self.parent = upstream.parent
        self.ask = getattr(upstream, "ask", None)
        self.date = getattr(upstream, "date", None)

    def fetch(
        self, kind: str, *, parent: str | None, rejected: str | None, timeout: float
    ) -> Credential:
        if kind != ACCESS_TOKEN:
            return self._upstream.fetch(kind, parent=parent, rejected=rejected, timeout=timeout)
        problem = None
        try:
            credential = self._provider(rejected)
        except WxJsApiError:
            raise
        except Exception as error:
            problem = f"raised {describe(error)}"
        else:
            if isinstance(credential, Credential):
                return credential
            problem = f"returned {type(credential).__name__}, not a Credential"
        raise TransportError(f"WXJSAPI_ACCESS_TOKEN_PROVIDER {problem}.")


def describe(error: BaseException) -> str:
    """The class of somebody else's exception and the line it came from.

    Its text stays out: nobody knows what it quotes.
    """
    trace = error.__traceback__
    if trace is None:
        return type(error).__name__
    while trace.tb_next:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return f"{type(error).__name__} ({code.co_filename}:{trace.tb_lineno} in {code.co_name})"


# -- reading an answer ---------------------------------------------------------------------------


def _decoded(text: bytes) -> dict[str, Any] | None:
    """The JSON object, whatever the content type says: WeChat's is wrong."""
    try:
        answer = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _number(value: object) -> float | None:
    """A finite number, also one written as a string; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _credential(answer: dict[str, Any], name: str, issued_at: float) -> Credential:
    life = _number(answer.get("expires_in"))
    problem = None
    if life is None or life <= 0:
        problem = "without a usable expires_in"
    else:
        # An answer just received counts for at least a second: no tight loop on a dying ticket.
        life = min(max(life, 1.0), _LONGEST_LIFE)
        try:
            return Credential(answer.get(name, ""), issued_at, issued_at + life)
        except ValueError:
            problem = f"without a usable {name}"
    raise TransportError(f"The answer came {problem}.")


def _clean(errmsg: object, secrets: list[str]) -> str:
    """WeChat's text on one line, in bounds, and with nothing of ours echoed in it."""
    text = " ".join(str(errmsg).split())
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return "".join(filter(str.isprintable, text))[:200]
