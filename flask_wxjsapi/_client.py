"""WeChat over HTTP: one call, one answer, one deadline, and no secret in any error or log."""

from __future__ import annotations

import ipaddress
import json
import logging
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from ._credential import ACCESS_TOKEN, JSAPI_TICKET, Credential
from .errors import TransportError, WeChatAPIError, WxJsApiError

_BODY_LIMIT = 65536
_CONNECT_TIMEOUT = 5.0
#: WeChat documents 7200 s as the most; a larger number would outlive the ticket.
_LONGEST_LIFE = 7200.0
_TICKET_TYPES = {JSAPI_TICKET: "jsapi"}


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

    def fetch(
        self, kind: str, *, parent: str | None, rejected: str | None, timeout: float
    ) -> Credential:
        # ``rejected`` is not passed on: force_refresh has 20 calls a day, and is a person's to use.
        issued_at = self._clock()
        if kind == ACCESS_TOKEN:
            answer = self._fetch_token(timeout)
            return _credential(answer, "access_token", issued_at)
        answer = self._call(
            "GET",
            "/cgi-bin/ticket/getticket",
            timeout,
            params={"access_token": parent, "type": _TICKET_TYPES[kind]},
        )
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
        path = "/cgi-bin/get_api_domain_ip"
        return _exchange("GET", self._host_url(), path, timeout, None, None)[2]

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
        status, text, _ = _exchange(method, base_url, path, timeout, params, body)
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
    raise TransportError(f"WeChat answered {problem}.")


def _clean(errmsg: object, secrets: list[str]) -> str:
    """WeChat's text on one line, in bounds, and with nothing of ours echoed in it."""
    text = " ".join(str(errmsg).split())
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return "".join(filter(str.isprintable, text))[:200]


# -- one bounded HTTP exchange -------------------------------------------------------------------


def _exchange(
    method: str,
    base_url: str,
    path: str,
    timeout: float,
    params: dict[str, Any] | None,
    body: dict[str, Any] | None,
) -> tuple[int, bytes, str]:
    """Status, body and date of one call, over by ``timeout`` whatever the other side does."""
    loopback = is_loopback(base_url)
    started = time.monotonic()
    try:
        with _cut_off_after(timeout), requests.Session() as session:
            session.mount("https://", _Adapter())
            session.mount("http://", _Adapter())
            # The environment's proxies and CA bundle count, its .netrc does not; and nothing of
            # it between two programs on one machine.
            session.trust_env = not loopback
            session.auth = _no_auth
            with session.request(
                method,
                base_url + path,
                params=params,
                data=None if body is None else json.dumps(body).encode(),
                headers={"Content-Type": "application/json"} if body else None,
                timeout=(min(timeout, _CONNECT_TIMEOUT), timeout),
                allow_redirects=False,
                stream=True,
            ) as response:
                text = response.raw.read(_BODY_LIMIT, decode_content=True)
                if time.monotonic() - started < timeout:  # else it may have been cut off
                    return response.status_code, text, response.headers.get("Date", "")
                reason = ""
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        reason = _reason(error)
    if time.monotonic() - started >= timeout:
        reason = "no complete answer in time"
    # Raised out here so that neither __cause__ nor __context__ is the error that quotes the URL.
    raise TransportError(f"{urlsplit(base_url).netloc} was not reached: {reason}.")


def is_loopback(base_url: str) -> bool:
    """Whether a URL stays on this machine."""
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reason(error: BaseException) -> str:
    """The innermost operating system or TLS error, else the class: texts quote the URL."""
    name = type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            name = cause.strerror
        cause = getattr(cause, "reason", None) or cause.__cause__ or cause.__context__
        if not isinstance(cause, BaseException):
            break
    return name


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


# A read timeout is per recv: a server that drips bytes is never timed out by it. So every
# connection of a call notes its socket, and a timer shuts those down when the time is up.

# A context variable, since greenlets have their own even where gevent patches late.
_call: ContextVar[_CutOff] = ContextVar("_call")


class _CutOff:
    """The sockets of one call, and the end of all of them."""

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self._sockets: list[socket.socket] = []

    def add(self, sock: socket.socket) -> None:
        # A duplicate: TLS takes the socket itself away, and both shut down the connection.
        self._sockets.append(sock.dup())
        if time.monotonic() >= self.deadline:
            self.shut_down()

    def shut_down(self) -> None:
        for sock in self._sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


@contextmanager
def _cut_off_after(seconds: float) -> Iterator[None]:
    cut_off = _CutOff(seconds)
    _call.set(cut_off)
    timer = threading.Timer(seconds, cut_off.shut_down)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        cut_off.close()


def _connect(host: str, port: int, timeout: float) -> socket.socket:
    """One time limit for all addresses of a name, where urllib3 gives each its own."""
    cut_off = _call.get()
    failure: OSError = TimeoutError("timed out")
    for family, kind, proto, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            sock = socket.socket(family, kind, proto)
        except OSError as error:  # this host has no IPv6, say
            failure = error
            continue
        try:
            sock.settimeout(max(0.001, min(timeout, cut_off.deadline - time.monotonic())))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            sock.close()
            failure = error
        else:
            cut_off.add(sock)
            return sock
    raise failure


class _HTTPConnection(urllib3.connection.HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _connect(self._dns_host, self.port, _CONNECT_TIMEOUT)


class _HTTPSConnection(urllib3.connection.HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _connect(self._dns_host, self.port, _CONNECT_TIMEOUT)

    def _tunnel(self) -> None:
        super()._tunnel()
        if time.monotonic() >= _call.get().deadline:
            raise TimeoutError("timed out")  # a proxy's answer that was cut off looks like a yes


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager


class _Redaction(logging.Filter):
    """Takes tokens and secrets out of urllib3's lines, which quote the query."""

    _QUERY = re.compile(r"\b((?:access_token|secret|corpsecret)=)[^&\s\"')]+")

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        clean = self._QUERY.sub(r"\1***", text)
        if clean != text:
            record.msg, record.args = clean, ()
        return True


for _name in ("connection", "connectionpool", "poolmanager", "response", "util.retry"):
    logging.getLogger(f"urllib3.{_name}").addFilter(_Redaction())
