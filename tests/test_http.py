"""One exchange over real loopback HTTP: its end, its errors, and what nobody gets to see."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import traceback
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3

from flask_wxjsapi import TransportError
from flask_wxjsapi._upstream import http as http_module
from flask_wxjsapi._upstream.http import exchange
from flask_wxjsapi.sandbox import Sandbox
from tests.conftest import free_port, require, wait_until
from tests.wire import (
    APP_ID,
    GOOD_TOKEN,
    SECRET,
    SHORT,
    SOON,
    TOKEN,
    Recorder,
    assert_harmless,
    failure,
)
from tests.wire import http as answer

pytestmark = pytest.mark.usefixtures("no_environment", "no_timer_stays")

LOGIN = {"grant_type": "client_credential", "appid": APP_ID, "secret": SECRET}
QUERY = f"grant_type=client_credential&appid={APP_ID}&secret={SECRET}".encode()


# -- helpers


@pytest.fixture(scope="module")
def _wechat() -> Iterator[Sandbox]:
    with Sandbox(APP_ID, SECRET).serve() as sandbox:
        yield sandbox


@pytest.fixture
def wechat(_wechat: Sandbox) -> Sandbox:
    """The module's sandbox, as if new."""
    _wechat.reset()
    return _wechat


def ask(
    server: Sandbox | Recorder | str, timeout: float = 2 * SOON, method: str = "GET", **options: Any
) -> dict[str, Any]:
    """What is answered to a call with a secret in its query."""
    url = server if isinstance(server, str) else server.url
    options = {"params": LOGIN} | options
    _, text, _ = exchange(method, url, "/cgi-bin/token", timeout, **options)
    told: dict[str, Any] = json.loads(text)
    return told


# -- what is sent


def test_query_and_headers(answering: Callable[..., Recorder]) -> None:
    """The query in the request line, encoded; no body where there is none."""
    server = answering()
    ask(server, params={"access_token": "a+b/c", "type": "中"}, token="t0ken")
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    assert line == b"GET /cgi-bin/token?access_token=a%2Bb%2Fc&type=%E4%B8%AD HTTP/1.1"
    assert b"Authorization: Bearer t0ken" in headers
    assert b"Accept-Encoding: identity" in headers
    assert body == b""


def test_query_and_body(answering: Callable[..., Recorder]) -> None:
    """The query goes into the request line of a call with a body, and not into that."""
    server = answering()
    ask(server, method="POST", body={"text": "GET / HTTP/1.1\r\n"})
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /cgi-bin/token?" + QUERY + b" HTTP/1.1\r\n")
    assert json.loads(body) == {"text": "GET / HTTP/1.1\r\n"}


def test_no_query(answering: Callable[..., Recorder]) -> None:
    """Without one there is no question mark either."""
    server = answering()
    ask(server, params=None)
    assert server.requests[0].startswith(b"GET /cgi-bin/token HTTP/1.1\r\n")


# -- how an answer is read


def test_gzip(answering: Callable[..., Recorder]) -> None:
    """A gateway may compress."""
    body = gzip.compress(json.dumps({"access_token": TOKEN, "expires_in": 7200}).encode())
    server = answering(answer(body, Content_Encoding="gzip"))
    assert ask(server)["access_token"] == TOKEN


def test_encoding_that_is_not_known(answering: Callable[..., Recorder]) -> None:
    """What could not be read is handed on as it is."""
    server = answering(answer(b"\x01\x02", Content_Encoding="br"))
    assert exchange("GET", server.url, "/", SOON)[1] == b"\x01\x02"


@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip", "deflate"])
def test_a_bomb_is_not_unpacked(answering: Callable[..., Recorder], encoding: str) -> None:
    """A few bytes that become gigabytes cost nothing: urllib3 may unpack without any bound."""
    bomb = bytes(64 << 20)
    for name in encoding.split(", "):
        bomb = gzip.compress(bomb) if name == "gzip" else zlib.compress(bomb)
    server = answering(answer(bomb, Content_Encoding=encoding))
    tracemalloc.start()
    try:
        text = exchange("GET", server.url, "/", SOON)[1]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(text) <= 65536
    assert peak < 4 << 20


def test_chunked(answering: Callable[..., Recorder]) -> None:
    """A body may come in chunks."""
    body = json.dumps({"access_token": TOKEN, "expires_in": 7200}).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:9], body[9:]))
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert ask(answering(head + chunks + b"0\r\n\r\n"))["access_token"] == TOKEN


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        answer(b"not gzip", Content_Encoding="gzip"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=lambda reply: f"{reply[:40]!r}",
)
def test_reply_that_is_no_http(answering: Callable[..., Recorder], reply: bytes) -> None:
    """Broken HTTP is a TransportError, not an exception of another library."""
    server = answering(reply)
    error = failure(lambda: ask(server))
    assert isinstance(error, TransportError)
    assert_harmless(error)


@pytest.mark.parametrize("status", ["301", "302", "303", "307", "308"])
def test_redirect_is_not_followed(answering: Callable[..., Recorder], status: str) -> None:
    """A redirect would carry the secret elsewhere."""
    elsewhere = answering()
    server = answering(
        answer(b"", f"{status} Elsewhere", Location=f"{elsewhere.url}/cgi-bin/token")
    )
    assert exchange("GET", server.url, "/", SOON)[0] == int(status)
    assert elsewhere.requests == []


@pytest.mark.parametrize("location", ["http://127.0.0.1:9/", "http://[::1"])
def test_a_redirects_body_is_not_read(answering: Callable[..., Recorder], location: str) -> None:
    """However long it is, and whatever its address: requests would, told not to follow or not."""
    megabytes = 0

    def endless(connection: socket.socket) -> None:
        nonlocal megabytes
        connection.sendall(f"HTTP/1.1 302 Found\r\nLocation: {location}\r\n\r\n".encode())
        with suppress(OSError):
            while megabytes < 256:
                connection.sendall(bytes(1 << 20))
                megabytes += 1

    assert exchange("GET", answering(endless).url, "/", SOON)[0] == 302
    assert megabytes < 64  # what fits into the buffers of the connection


# -- nothing answers


def test_connection_refused(debug_log: list[str]) -> None:
    """Nobody listens: the error says so, and not what was asked for."""
    error = failure(lambda: ask(f"http://127.0.0.1:{free_port()}"))
    assert "Connection refused" in str(error)
    assert_harmless(error)
    assert SECRET not in "".join(debug_log)


def test_name_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that DNS does not know; played here, since a resolver may take its time."""

    def unknown(host: str, *args: object, **kwargs: object) -> None:
        assert host == "nonexistent.invalid"
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = failure(lambda: ask("https://nonexistent.invalid"))
    assert str(error) == "nonexistent.invalid was not reached: DNS: Name or service not known."
    assert_harmless(error)


def test_tls_to_a_plain_port(wechat: Sandbox) -> None:
    """https to a port that speaks http is an error that says TLS."""
    url = wechat.url.replace("http:", "https:")
    error = failure(lambda: ask(url))
    assert isinstance(error, TransportError)
    assert "was not reached: TLS: " in str(error)
    assert_harmless(error)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 and api.example, with its key in the same file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        require("openssl", "no openssl to make a certificate with")
    path = tmp_path_factory.mktemp("tls") / "self-signed.pem"
    command = [str(openssl), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,DNS:api.example"]
    command += ["-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run(command, check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


def test_self_signed_certificate_is_refused(
    answering: Callable[..., Recorder], certificate: Path
) -> None:
    """A server that nobody vouches for does not get the secret."""
    server = answering()
    server.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.tls.load_cert_chain(certificate)
    error = failure(lambda: ask(f"https://{server.netloc}"))
    assert "TLS: " in str(error)
    assert "certificate verify failed" in str(error)
    assert server.requests == []
    assert_harmless(error)


# -- the limit


@pytest.mark.parametrize("fault", ["hang", "drip", "drip-headers", "slow:60"])
def test_slow_answer_is_cut_off(wechat: Sandbox, debug_log: list[str], fault: str) -> None:
    """A call is over by its limit however slowly bytes come, and its thread ends."""
    wechat.fail(fault)
    error = failure(lambda: ask(wechat, SHORT))
    assert isinstance(error, TransportError)
    assert_harmless(error)
    assert SECRET not in "".join(debug_log)


@pytest.mark.parametrize("fault", ["hang", "drip-headers"])
def test_error_says_that_time_was_up(wechat: Sandbox, fault: str) -> None:
    """A slow network is not mistaken for a wrong URL."""
    wechat.fail(fault)
    error = failure(lambda: ask(wechat, SHORT))
    assert "no complete answer in time" in str(error)


def test_dripping_body_says_that_time_was_up(wechat: Sandbox) -> None:
    """A body that was cut off is not mistaken for a captive portal."""
    wechat.fail("drip")
    error = failure(lambda: ask(wechat, SHORT))
    assert "no complete answer in time" in str(error)


def drip(connection: socket.socket, head: bytes) -> None:
    """Send bytes, one at a time and far more often than any read timeout, for longer than SOON."""
    never = threading.Event()
    connection.sendall(head)
    for _ in range(1200):
        connection.sendall(b"a")
        never.wait(0.05)


def test_body_without_a_length_that_drips(answering: Callable[..., Recorder]) -> None:
    """The limit holds where the end of the connection is the end of the body."""
    server = answering(lambda connection: drip(connection, b"HTTP/1.0 200 OK\r\n\r\n"))
    error = failure(lambda: ask(server, SHORT))
    assert "no complete answer in time" in str(error)


def test_body_without_an_end(answering: Callable[..., Recorder]) -> None:
    """A body that never ends is read up to a bound."""

    def flood(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    server = answering(flood)
    assert exchange("GET", server.url, "/", SOON)[1] == b"x" * 65536


def test_tls_handshake_that_drips() -> None:
    """The limit holds before there is any HTTP."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            try:
                drip(connection, b"\x16\x03\x03\x40\x00")
            except OSError:
                pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        error = failure(lambda: ask(url, SHORT))
        assert "TLS: no handshake in time" in str(error)
        assert_harmless(error)
        thread.join(SOON)
        assert not thread.is_alive()


def test_proxy_that_drips(
    answering: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit holds while a proxy makes up its mind about CONNECT."""
    proxy = answering(lambda connection: drip(connection, b"HTTP/1.1 200 OK\r\nX: "))
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    error = failure(lambda: ask("https://api.example", SHORT))
    assert f"the proxy {proxy.netloc}: no answer to CONNECT in time" in str(error)
    assert_harmless(error)


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port that takes no connection and refuses none, as behind a firewall."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        queue = [socket.socket() for _ in range(3)]
        for waiting in queue:
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for waiting in queue:
            waiting.close()


def test_connection_that_is_never_made(black_hole: int) -> None:
    """The limit holds for a host that drops packets."""
    error = failure(lambda: ask(f"http://127.0.0.1:{black_hole}", SHORT))
    assert "was not reached: no connection in time" in str(error)


def test_name_with_many_addresses_that_do_not_answer(
    black_hole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is one for all addresses of a name and not one for each."""
    look_up = socket.getaddrinfo

    def many(*args: Any, **kwargs: Any) -> Any:
        return look_up(*args, **kwargs) * 200  # a minute, one after the other

    monkeypatch.setattr(socket, "getaddrinfo", many)
    error = failure(lambda: ask(f"http://127.0.0.1:{black_hole}", SHORT))
    assert isinstance(error, TransportError)


# -- names and addresses


Address = tuple[int, int, int, str, tuple[str, int]]


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: Address) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: list(addresses))


def ipv4(port: int) -> Address:
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))


def test_next_address_of_a_name_is_tried(wechat: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with a dead address before a live one works."""
    port = int(wechat.url.rpartition(":")[2])
    resolve_to(monkeypatch, ipv4(free_port()), ipv4(port))
    assert ask(f"http://localhost:{port}")["access_token"]


def test_a_live_address_behind_two_that_swallow_packets(
    wechat: Sandbox, black_hole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them gets the time that the others need."""
    port = int(wechat.url.rpartition(":")[2])
    resolve_to(monkeypatch, ipv4(black_hole), ipv4(black_hole), ipv4(port))
    assert ask(f"http://localhost:{port}")["access_token"]


@pytest.mark.parametrize(
    ("left", "addresses", "share"),
    [
        (10.0, 1, 10.0),  # nobody else to leave something to
        (3.0, 2, 1.0),  # one for each, and one for the answer
        (4.0, 3, 1.0),
        (9.0, 2, 1.5),  # what is lost on the way has been sent again by then
        (2.0, 8, 0.5),  # no more of them than a round trip has room for
        (0.2, 8, 0.2),
    ],
)
def test_share_of_an_address(left: float, addresses: int, share: float) -> None:
    """What is left is shared out, in parts that a connection can be made in."""
    assert http_module._share(left, addresses) == share


def test_address_of_a_kind_this_host_does_not_have(
    wechat: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with an IPv6 address works in a container without IPv6."""
    port = int(wechat.url.rpartition(":")[2])
    no_such_family = (9999, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
    resolve_to(monkeypatch, no_such_family, ipv4(port))
    assert ask(f"http://localhost:{port}")["access_token"]


def test_name_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that finds nothing and says so in no error is no reason to hang or to crash."""
    resolve_to(monkeypatch)
    error = failure(lambda: ask("http://localhost:8900"))
    assert isinstance(error, TransportError)
    assert_harmless(error)


@pytest.mark.parametrize("host", ["a..example", "x" * 64 + ".example", ".example", "a b"])
def test_name_that_cannot_be(host: str) -> None:
    """A host that no resolver would take is an error of ours."""
    error = failure(lambda: ask(f"http://{host}", SHORT))
    assert isinstance(error, TransportError)
    assert_harmless(error)


def test_ipv6() -> None:
    """An address in brackets is a host."""
    sandbox = Sandbox(APP_ID, SECRET)
    try:
        sandbox.serve("::1")
    except OSError as error:
        require("ipv6", f"no IPv6 here: {error}")
    with sandbox:
        assert ask(sandbox)["access_token"]


# -- a resolver that does not answer


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stuck]:
    """A resolver that answers nobody until it is let go."""
    stuck = Stuck()
    monkeypatch.setattr(socket, "getaddrinfo", stuck.getaddrinfo)
    yield stuck
    stuck.release.set()
    wait_until(lambda: not any(lost.is_out() for lost in http_module._Errand.lost))


class Stuck:
    def __init__(self) -> None:
        self.release = threading.Event()
        self.asked: list[str] = []
        self._getaddrinfo = socket.getaddrinfo

    def getaddrinfo(self, host: str, *args: Any, **kwargs: Any) -> Any:
        if host[0].isdigit():
            return self._getaddrinfo(host, *args, **kwargs)
        self.asked.append(host)
        self.release.wait()
        return self._getaddrinfo("127.0.0.1", *args, **kwargs)


def test_resolver_that_takes_too_long(stuck: Stuck) -> None:
    """The limit holds while a name is looked up, and the error says that it was."""
    error = failure(lambda: ask("https://api.example", SHORT))
    assert str(error) == ("api.example was not reached: DNS: the name was not resolved in time.")
    assert not stuck.release.is_set()
    assert_harmless(error)


def test_look_ups_that_hang_are_few(stuck: Stuck) -> None:
    """After three there is none until one of them is over, and the error says why."""
    for _ in range(3):
        failure(lambda: ask("http://localhost", 0.01))
    error = failure(lambda: ask("http://localhost", 60.0))
    assert "DNS: 3 earlier look-ups hang still" in str(error)
    wait_until(lambda: len(stuck.asked) >= 3)  # a thread begins when it can
    assert stuck.asked == ["localhost"] * 3
    assert_harmless(error)


def test_look_ups_go_on_when_one_is_over(stuck: Stuck, wechat: Sandbox) -> None:
    """A resolver that is back is asked again."""
    url = wechat.url.replace("127.0.0.1", "localhost")
    for _ in range(3):
        failure(lambda: ask(url, 0.01))
    stuck.release.set()
    wait_until(lambda: not any(lost.is_out() for lost in http_module._Errand.lost))
    assert ask(url)["access_token"]
    assert stuck.asked == ["localhost"] * 4


def test_an_address_is_not_looked_up(stuck: Stuck, wechat: Sandbox) -> None:
    """A central server or a proxy by address is reached while no name is."""
    for _ in range(3):
        failure(lambda: ask("http://localhost", 0.01))
    assert ask(wechat)["access_token"]


def test_another_processes_look_ups_do_not_count(
    stuck: Stuck, wechat: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forked child has none of the threads that its parent has lost."""
    url = wechat.url.replace("127.0.0.1", "localhost")
    for _ in range(3):
        failure(lambda: ask(url, 0.01))
    child = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: child)
    failure(lambda: ask(url, 0.01))
    wait_until(lambda: len(stuck.asked) == 4)


def test_resolver_of_a_proxy_that_takes_too_long(
    stuck: Stuck, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name that hangs is the proxy's."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    error = failure(lambda: ask("https://api.example", SHORT))
    assert "the proxy proxy.example:3128: DNS: the name was not" in str(error)
    wait_until(lambda: stuck.asked)  # a thread begins when it can
    assert stuck.asked == ["proxy.example"]


def test_under_gevent(wechat: Sandbox) -> None:
    """A resolver that hangs is left behind there too, and one that answers is heard."""
    pytest.importorskip("gevent")
    script = f"""
from gevent import monkey
monkey.patch_all()
import socket, gevent
from flask_wxjsapi._upstream.http import exchange
from flask_wxjsapi import TransportError
url = {wechat.url.replace("127.0.0.1", "localhost")!r}
print(exchange("GET", url, "/cgi-bin/token", {SOON}, params={LOGIN})[0])
getaddrinfo = socket.getaddrinfo
def hang(host, *args, **kwargs):
    gevent.sleep(600)
socket.getaddrinfo = hang
try:
    exchange("GET", url, "/cgi-bin/token", {SHORT})
except TransportError as error:
    print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    status, _, error = result.stdout.partition("\n")
    assert status == "200", result.stderr
    assert "DNS: the name was not resolved in time" in error


def test_ssl_that_gevent_patches_too_late(wechat: Sandbox) -> None:
    """The error says so, where ssl itself goes round in circles."""
    pytest.importorskip("gevent")
    script = f"""
import requests
from gevent import monkey
monkey.patch_all()
from flask_wxjsapi._upstream.http import exchange
from flask_wxjsapi import TransportError
try:
    exchange("GET", {wechat.url.replace("http:", "https:")!r}, "/", {SOON})
except TransportError as error:
    print(error)
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True
    )
    assert "TLS: gevent patched ssl after it was imported" in result.stdout, result.stderr


def test_process_that_can_start_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its limit is reached: an error like any other."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(TransportError, match="this process can start no thread") as caught:
        ask("http://127.0.0.1:9")
    assert_harmless(caught.value)


# -- the environment


def test_proxy_of_the_environment_is_ignored_for_loopback(
    wechat: Sandbox, answering: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two programs on one machine there is no proxy."""
    proxy = answering()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    ask(wechat)
    assert proxy.requests == []
    assert wechat.calls == {"token": 1}


def test_proxy_of_the_environment_is_used_elsewhere(
    answering: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A firm's proxy gets a CONNECT, and nothing it could read."""
    proxy = answering(answer(b"", "403 Forbidden"))
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    error = failure(lambda: ask("https://api.example"))
    assert proxy.requests[0].startswith(b"CONNECT api.example:443 ")
    assert SECRET.encode() not in b"".join(proxy.requests)
    assert f"the proxy {proxy.netloc}: Tunnel connection failed: 403." in str(error)
    assert_harmless(error)


def test_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the proxy that refuses, not WeChat."""
    netloc = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:pass-of-proxy@{netloc}")
    error = failure(lambda: ask("https://api.example"))
    assert str(error) == (f"api.example was not reached: the proxy {netloc}: Connection refused.")
    assert_harmless(error)


def test_query_through_a_proxy(
    answering: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy of plain http gets the whole URL, for it has to ask for it."""
    proxy = answering()
    monkeypatch.setenv("http_proxy", proxy.url)
    ask("http://api.example")
    line = proxy.requests[0].partition(b"\r\n")[0]
    assert line == b"GET http://api.example/cgi-bin/token?" + QUERY + b" HTTP/1.1"


def test_query_through_a_tunnel(
    answering: Callable[..., Recorder], certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The query is in the request within it, not in CONNECT."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    inside: list[bytes] = []

    def tunnel(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with context.wrap_socket(connection, server_side=True) as tls:
            inside.append(tls.recv(65536))
            tls.sendall(GOOD_TOKEN)

    proxy = answering(tunnel)
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert ask("https://api.example")["access_token"] == TOKEN
    assert proxy.requests[0].startswith(b"CONNECT api.example:443 HTTP/1.")
    assert inside[0].startswith(b"GET /cgi-bin/token?" + QUERY + b" HTTP/1.1\r\n")


def test_tls_through_a_tunnel_says_whose_it_is(
    answering: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the proxy has let us through, an error is no longer the proxy's."""

    def tunnel(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    monkeypatch.setenv("HTTPS_PROXY", answering(tunnel).url)
    error = failure(lambda: ask("https://api.example"))
    assert str(error).startswith("api.example was not reached: TLS: ")


def test_socks_proxy_without_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""

    def missing(*args: Any, **kwargs: Any) -> Any:
        raise requests.exceptions.InvalidSchema("Missing dependencies for SOCKS support.")

    monkeypatch.setattr("requests.adapters.SOCKSProxyManager", missing)
    monkeypatch.setenv("ALL_PROXY", "socks5h://user:pass-of-proxy@127.0.0.1:1080")
    error = failure(lambda: ask("https://api.example"))
    assert 'the proxy is SOCKS, which needs: pip install "requests[socks]"' in str(error)
    assert "pass-of-proxy" not in str(error)
    assert_harmless(error)


def socks5(connection: socket.socket, asked: list[bytes]) -> None:
    """Take what PySocks says without a password, and be the server it asks for as well."""
    connection.recv(2 + 255)
    connection.sendall(b"\x05\x00")
    asked.append(connection.recv(262))
    connection.sendall(b"\x05\x00\x00\x01" + bytes(6))
    asked.append(connection.recv(65536))
    connection.sendall(GOOD_TOKEN)


def test_socks_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told the name to resolve, and the query is in the request."""
    pytest.importorskip("socks", reason="no SOCKS here: pip install PySocks")
    asked: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            socks5(connection, asked)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        monkeypatch.setenv("ALL_PROXY", f"socks5h://127.0.0.1:{listener.getsockname()[1]}")
        assert ask("http://api.example")["access_token"] == TOKEN
        thread.join(SOON)
    assert b"api.example" in asked[0]
    assert asked[1].startswith(b"GET /cgi-bin/token?" + QUERY + b" HTTP/1.1\r\n")


def test_socks_proxy_that_does_not_answer(black_hole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit holds, and the error says that it is the proxy."""
    pytest.importorskip("socks", reason="no SOCKS here: pip install PySocks")
    monkeypatch.setenv("ALL_PROXY", f"socks5h://127.0.0.1:{black_hole}")
    error = failure(lambda: ask("https://api.example", SHORT))
    assert f"the proxy 127.0.0.1:{black_hole}: no connection in time" in str(error)


def netrc(directory: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    path = directory / "netrc"
    path.write_text(f"machine {host} login user password hunter2\n")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))


def test_netrc_is_not_used_for_loopback(
    answering: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A password that somebody keeps for this host is not sent."""
    netrc(tmp_path, monkeypatch, "127.0.0.1")
    server = answering()
    ask(server)
    assert b"authorization" not in server.requests[0].lower()


def test_netrc_is_not_used_elsewhere(
    answering: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nor where the environment's proxy counts."""
    netrc(tmp_path, monkeypatch, "api.example")
    proxy = answering()
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("http_proxy", proxy.url)
    ask("http://api.example")
    assert proxy.requests[0].startswith(b"GET http://api.example/cgi-bin/token?")
    assert b"authorization" not in proxy.requests[0].lower()


# -- what shows


def test_nothing_leaks_from_headers_that_urllib3_complains_of(
    answering: Callable[..., Recorder], debug_log: list[str]
) -> None:
    """A warning that quotes the whole URL quotes no query."""
    body = b'{"access_token": "x", "expires_in": 7200}'
    server = answering(b"HTTP/1.1 200 OK\r\nX: y\r\nbroken line\r\n\r\n" + body)
    with suppress(TransportError):  # whether it is an answer is not the question here
        ask(server)
    lines = "\n".join(debug_log)
    assert "Failed to parse headers" in lines
    assert SECRET not in lines


def test_the_query_is_in_no_url(wechat: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in those that requests, urllib3 and http.client are given, which all tracers read."""
    seen: list[str] = []

    def watch(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            seen.append(f"{name} {args} {kwargs} {[getattr(arg, 'url', '') for arg in args]}")
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    watch(requests.Session, "request")
    watch(requests.Session, "send")
    watch(urllib3.HTTPConnectionPool, "urlopen")
    watch(http.client.HTTPConnection, "putrequest")
    assert ask(wechat)["access_token"]
    assert [line.partition(" ")[0] for line in seen] == ["request", "send", "urlopen", "putrequest"]
    assert all("/cgi-bin/token" in line for line in seen)
    assert SECRET not in "".join(seen)


def test_nobody_prints_what_is_sent(
    wechat: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A switch of http.client's, set for a whole process, prints requests with all they hold."""
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    assert ask(wechat)["access_token"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_frames_of_an_error_hold_nothing(method: str) -> None:
    """An error tracker shows the variables of the frames that an error has come through."""
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(TransportError) as caught:
        exchange(method, url, "/", SOON, params=LOGIN, body={"secret": SECRET}, token=TOKEN)
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [frame for frame in shown.stack if frame.filename == http_module.__file__]
    assert [frame.name for frame in ours] == ["exchange"]
    assert SECRET not in repr(ours[0].locals)
    assert TOKEN not in repr(ours[0].locals)


# -- when it is imported


def test_requests_is_imported_by_the_first_call() -> None:
    """It takes a good part of the time that an application takes to start."""
    script = """
import sys
from flask import Flask
from flask_wxjsapi import WxJsApi
app = Flask("tests")
app.config.update(
    TESTING=True,
    WXJSAPI_APP_ID="wx0000000000000000",
    WXJSAPI_APP_SECRET="secret-of-nobody",
    WXJSAPI_API_BASE_URL="http://127.0.0.1:9",
)
wxjsapi = WxJsApi(app)
assert app.test_client().get("/").status_code == 404
print(sorted({"requests", "urllib3"} & set(sys.modules)))
with app.app_context():
    try:
        wxjsapi.ticket
    except Exception:
        pass
print(sorted({"requests", "urllib3"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.split("\n") == ["[]", "['requests', 'urllib3']", ""], result.stderr
