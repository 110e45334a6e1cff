"""One HTTP exchange with one deadline, and no secret in any error, log or trace of it.

It imports requests, which takes a while: whoever needs an exchange imports this module then.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import re
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cache
from typing import Any, ClassVar
from urllib.parse import urlencode, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from .._loopback import is_loopback
from ..errors import TransportError

_BODY_LIMIT = 65536
_LATE = "no complete answer in time"
#: Threads of a process that may hang in a resolver.
_MOST_LOST = 3
#: Seconds for an address with others behind it, at least and at most: a long way there and back,
#: and time for a second packet where the first is lost, which Linux sends after a second.
_SHARE = (0.5, 1.5)

_FAILURES = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
    ValueError,
    RecursionError,  # of an ssl that gevent has patched too late
)

Answer = tuple[int, bytes, str]


def exchange(
    method: str,
    base_url: str,
    path: str,
    timeout: float,
    *,
    params: dict[str, Any] | None = None,
    body: dict[str, Any] | None = None,
    token: str = "",
) -> Answer:
    """Status, body and date of one call, over by ``timeout`` whatever the other side does.

    :param timeout: seconds.
    :param params: the query, which nothing above the socket gets to see.
    :param body: sent as JSON.
    :param token: sent as a bearer token.
    :raises TransportError: nobody answered; the text names the host and the reason, never the URL.
    """
    # A compressed answer is a few bytes that may become gigabytes.
    headers = {"Accept-Encoding": "identity"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    answer = _attempt(
        _Call(timeout, urlencode(params or {})), method, base_url, path, headers, data
    )
    # An error tracker shows the variables of the frames that an error has come through, and the
    # texts of its causes: it is raised here, where there are none.
    del params, body, token, headers, data
    if isinstance(answer, str):
        raise TransportError(f"{urlsplit(base_url).netloc} was not reached: {answer}.")
    return answer


def _attempt(
    call: _Call,
    method: str,
    base_url: str,
    path: str,
    headers: dict[str, str],
    data: bytes | None,
) -> Answer | str:
    """The answer, or why there is none."""
    try:
        with (
            call,
            _session(is_loopback(base_url)) as session,
            session.request(
                method,
                base_url + path,
                data=data,
                headers=headers,
                timeout=call.left(),
                allow_redirects=False,
                stream=True,
            ) as response,
        ):
            text = _body(response.raw)
            if not call.is_over():  # else it may have been cut off
                return response.status_code, text, response.headers.get("Date", "")
            reason = call.late
    except _FAILURES as error:
        reason = call.late if call.is_over() else _reason(error, call.late)
    return call.proxy + reason


def _session(loopback: bool) -> requests.Session:
    session = requests.Session()
    session.mount("https://", _Adapter())
    session.mount("http://", _Adapter())
    # The environment's proxies and CA bundle count, its .netrc does not; and nothing of it
    # between two programs on one machine.
    session.trust_env = not loopback
    session.auth = _no_auth
    # requests reads a redirect's whole body, though it is told not to follow any.
    session.get_redirect_target = lambda resp: None  # type: ignore[method-assign]  # on purpose
    return session


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _body(raw: Any) -> bytes:
    """In bounds both as it was sent and as it is read; urllib3 itself unpacks without any."""
    text = b""
    # To the end, since only there urllib3 tells a body that is cut short.
    while part := raw.read(_BODY_LIMIT - len(text), decode_content=False):
        text += part
    if raw.headers.get("Content-Encoding", "").lower() not in ("gzip", "x-gzip", "deflate"):
        return text
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(text, _BODY_LIMIT)
    except zlib.error:
        raise OSError(errno.EBADMSG, "the body is not compressed as it says") from None


def _reason(error: BaseException, late: str) -> str:
    """What the innermost error says, of those whose texts cannot quote the URL; else a class.

    :param late: what it says where time was up.
    """
    reason = type(error).__name__
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.strerror:
            reason = f"{_kind(cause)}{cause.strerror}"
        elif isinstance(cause, TimeoutError):
            reason = late
        elif isinstance(cause, RecursionError):
            reason = "TLS: gevent patched ssl after it was imported; patch before all imports"
        elif refusal := re.match(r"Tunnel connection failed: \d+", str(cause)):
            reason = refusal.group()
    return reason


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those behind it, which urllib3 puts in one place or the other."""
    yield error
    places = (getattr(error, "reason", None), *error.args, error.__cause__, error.__context__)
    behind = next((place for place in places if isinstance(place, BaseException)), None)
    if behind is not None:
        yield from _causes(behind)


def _kind(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "DNS: "
    return "TLS: " if isinstance(error, ssl.SSLError) else ""


# A read timeout is per recv: a server that drips bytes is never timed out by it. So every
# connection of a call notes its socket, and a timer shuts those down when the time is up.


class _Call:
    """What the connections of one call share: its deadline, its query, and how far it has come.

    :param seconds: until all its sockets are shut down.
    """

    def __init__(self, seconds: float, query: str) -> None:
        self.query = query
        #: What it says of itself when time is up.
        self.late = _LATE
        #: The proxy that has the word, as the beginning of a reason.
        self.proxy = ""
        self._deadline = time.monotonic() + seconds
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._shut_down)
        self._timer.daemon = True

    def left(self) -> float:
        """Seconds; never 0, which would be a socket that does not block."""
        return max(0.001, self._deadline - time.monotonic())

    def is_over(self) -> bool:
        return time.monotonic() >= self._deadline

    def add(self, sock: socket.socket) -> None:
        # A duplicate: TLS takes the socket itself away, and both shut down the connection.
        self._sockets.append(sock.dup())
        if self.is_over():
            self._shut_down()

    def _shut_down(self) -> None:
        for sock in self._sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def __enter__(self) -> None:
        _start(self._timer)
        self._outer = _call.set(self)

    def __exit__(self, *_: object) -> None:
        _call.reset(self._outer)
        self._timer.cancel()
        for sock in self._sockets:
            sock.close()


def _start(thread: threading.Thread) -> None:
    try:
        thread.start()
    except RuntimeError:
        raise OSError(errno.EAGAIN, "this process can start no thread") from None


# A context variable, since greenlets have their own even where gevent patches late.
_call: ContextVar[_Call] = ContextVar("_call")


class _Errand(threading.Thread):
    """Something that takes no timeout, in a thread that is left behind when time is up."""

    #: Those that were left behind and are still out.
    lost: ClassVar[set[_Errand]] = set()

    def __init__(self, job: Callable[[], Any]) -> None:
        super().__init__(name="wxjsapi-look-up", daemon=True)
        self._job = job
        self._pid = os.getpid()
        self.result: Any = None
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.result = self._job()
        except Exception as error:
            self.error = error

    def is_out(self) -> bool:
        # A forked child of uWSGI takes the threads of its parent for alive.
        return self._pid == os.getpid() and self.is_alive()


def _in_time(call: _Call, job: Callable[[], Any]) -> Any:
    """What a job returns or raises, or a TimeoutError at the end of the call."""
    for errand in list(_Errand.lost):
        if not errand.is_out():
            _Errand.lost.discard(errand)
    if len(_Errand.lost) >= _MOST_LOST:
        problem = f"{_MOST_LOST} earlier look-ups hang still, and no other begins before one ends"
        raise socket.gaierror(socket.EAI_AGAIN, problem)
    errand = _Errand(job)
    _start(errand)
    errand.join(call.left())
    if errand.is_alive():
        _Errand.lost.add(errand)
        raise TimeoutError
    if errand.error is not None:
        raise errand.error
    return errand.result


def _resolve(call: _Call, host: str, port: int) -> list[Any]:
    call.late = "DNS: the name was not resolved in time"

    def look_up() -> list[Any]:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)

    try:
        ipaddress.ip_address(host)
    except ValueError:
        found: list[Any] = _in_time(call, look_up)
        return found
    return look_up()


def _connect(call: _Call, host: str, port: int) -> socket.socket:
    """To the first address of a name that answers; each has its share of the time that is left.

    urllib3 gives each the whole, and so never comes to the one behind two that swallow packets.
    """
    addresses = _resolve(call, host, port)
    call.late = "no connection in time"
    failure: OSError = TimeoutError()
    for tried, (family, kind, proto, _, address) in enumerate(addresses):
        try:
            sock = socket.socket(family, kind, proto)
        except OSError as error:  # this host has no IPv6, say
            failure = error
            continue
        try:
            sock.settimeout(_share(call.left(), len(addresses) - tried))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(call.left())
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure


def _share(left: float, addresses: int) -> float:
    """Of the first of some addresses; another is for what comes after the connection."""
    if addresses == 1:
        return left
    least, most = _SHARE
    return min(left, max(least, min(most, left / (addresses + 1))))


def _connect_by_itself(call: _Call, connect: Callable[[], socket.socket]) -> socket.socket:
    """As PySocks does it: with a resolver and time limits of its own."""
    call.late = "no connection in time"

    def job() -> socket.socket:
        sock = connect()
        if call.is_over():  # and nobody waits for it any more
            sock.close()
            raise TimeoutError
        return sock

    made: socket.socket = _in_time(call, job)
    return made


class _Connection(urllib3.connection.HTTPConnection):
    """What every connection does here, mixed into those of urllib3 and of its SOCKS support."""

    #: Nobody prints what is sent, by setting this for all of http.client.
    debuglevel = 0
    _query = ""

    def _new_conn(self) -> socket.socket:
        call = _call.get()
        socks = getattr(self, "_socks_options", None)
        if socks:
            call.proxy = f"the proxy {socks['proxy_host']}:{socks['proxy_port']}: "
            sock = _connect_by_itself(call, super()._new_conn)
        else:
            if self.proxy:
                call.proxy = f"the proxy {self.host}:{self.port}: "
            sock = _connect(call, self._dns_host, self.port)
        call.add(sock)
        call.late = "TLS: no handshake in time"
        return sock

    def connect(self) -> None:
        super().connect()
        call = _call.get()
        call.late, call.proxy = _LATE, ""

    def _tunnel(self) -> None:
        call = _call.get()
        call.late = "no answer to CONNECT in time"
        super()._tunnel()
        if call.is_over():
            raise TimeoutError  # a proxy's answer that was cut off looks like a yes
        call.late, call.proxy = "TLS: no handshake in time", ""

    # Tracers and logs read the URL that requests, urllib3 or http.client is given, so the query
    # is not in it. It goes into the request line here, below them all.

    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        self._query = _call.get().query
        super().putrequest(*args, **kwargs)

    def send(self, data: Any) -> None:
        query, self._query = self._query, ""  # before a connection is made, which sends CONNECT
        if query:
            line, end, rest = data.partition(b" HTTP/1.1\r\n")
            data = b"".join((line, b"?", query.encode(), end, rest))
        super().send(data)


@cache
def _pool_class(pool: Any) -> Any:
    if issubclass(pool.ConnectionCls, _Connection):
        return pool
    connection = type("Connection", (_Connection, pool.ConnectionCls), {})
    return type("Pool", (pool,), {"ConnectionCls": connection})


def _with_our_connections(manager: Any) -> Any:
    pools = manager.pool_classes_by_scheme.items()
    manager.pool_classes_by_scheme = {scheme: _pool_class(pool) for scheme, pool in pools}
    return manager


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _with_our_connections(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        try:
            manager = super().proxy_manager_for(proxy, **kwargs)
        except requests.exceptions.InvalidSchema:
            problem = 'the proxy is SOCKS, which needs: pip install "requests[socks]"'
            raise OSError(errno.EPROTONOSUPPORT, problem) from None
        return _with_our_connections(manager)
