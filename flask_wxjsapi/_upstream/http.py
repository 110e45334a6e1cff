"""One HTTP exchange with one deadline, and no secret in any error or log."""

from __future__ import annotations

import json
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from .._loopback import is_loopback as is_loopback
from ..errors import TransportError

_BODY_LIMIT = 65536
_CONNECT_TIMEOUT = 5.0


def exchange(
    method: str,
    base_url: str,
    path: str,
    timeout: float,
    *,
    params: dict[str, Any] | None = None,
    body: dict[str, Any] | None = None,
    token: str = "",
) -> tuple[int, bytes, str]:
    """Status, body and date of one call, over by ``timeout`` whatever the other side does.

    :param timeout: seconds.
    :param params: the query.
    :param body: sent as JSON.
    :param token: sent as a bearer token.
    :raises TransportError: nobody answered; the text names the host, never the URL.
    """
    loopback = is_loopback(base_url)
    headers = {"Content-Type": "application/json"} if body else {}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    started = time.monotonic()
    try:
        with _cut_off_after(timeout), requests.Session() as session:
            session.mount("https://", _Adapter())
            session.mount("http://", _Adapter())
            # The environment's proxies and CA bundle count, its .netrc does not; and nothing of
            # it between two programs on one machine.
            session.trust_env = not loopback
            session.auth = _no_auth
            # requests reads a redirect's whole body, though it is told not to follow any.
            session.get_redirect_target = lambda resp: None  # type: ignore[method-assign]  # on purpose
            with session.request(
                method,
                base_url + path,
                params=params,
                data=None if body is None else json.dumps(body).encode(),
                headers=headers,
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
