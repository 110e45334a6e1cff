"""The client over real loopback HTTP: what it sends, what it makes of any answer, what leaks."""

from __future__ import annotations

import gzip
import json
import logging
import os
import shutil
import socket
import socketserver
import ssl
import subprocess
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flask_wxjsapi import Credential, TransportError, WeChatAPIError, WxJsApiError
from flask_wxjsapi._credential import ACCESS_TOKEN, JSAPI_TICKET
from flask_wxjsapi._upstream.token_provider import TokenProvider
from flask_wxjsapi._upstream.wechat import WeChat
from flask_wxjsapi.errors import REACTIONS
from flask_wxjsapi.sandbox import Sandbox

from .conftest import free_port, require, wait_until

APP_ID = "wx0000000000000000"
SECRET = "sandbox-secret-0000000000000000"
TOKEN = "57_ToKeN-that-must-not-leak_0123456789"
SOON = 5.0  # seconds; far longer than anything here takes, far shorter than a hang
SHORT = 0.3  # seconds; the limit of a call that hangs


# -- helpers


class Recorder(socketserver.ThreadingTCPServer):
    """A server that notes what it gets and answers what it is told to."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, reply: bytes | Callable[[socket.socket], None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = reply
        self.requests: list[bytes] = []
        self.tls: ssl.SSLContext | None = None

    @property
    def netloc(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.netloc}"

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self.tls is not None:
            connection = self.tls.wrap_socket(connection, server_side=True)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # the client hung up, which is the point of some tests


class _Handler(socketserver.StreamRequestHandler):
    server: Recorder

    def handle(self) -> None:
        request, length = b"", 0
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            request += line
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        self.server.requests.append(request + b"\r\n" + self.rfile.read(length))
        if callable(self.server.reply):
            self.server.reply(self.connection)
        else:
            self.wfile.write(self.server.reply)


def http(body: object, status: str = "200 OK", **headers: str) -> bytes:
    """A whole HTTP answer; what is not bytes becomes JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(data)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + data


GOOD_TOKEN = http({"access_token": TOKEN, "expires_in": 7200})


@pytest.fixture
def answering() -> Iterator[Callable[..., Recorder]]:
    """Starts servers that answer what they are told to."""
    servers: list[Recorder] = []

    def start(reply: bytes | Callable[[socket.socket], None] = GOOD_TOKEN) -> Recorder:
        server = Recorder(reply)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def _wechat() -> Iterator[Sandbox]:
    with Sandbox(APP_ID, SECRET).serve() as sandbox:
        yield sandbox


@pytest.fixture
def wechat(_wechat: Sandbox) -> Sandbox:
    """The module's sandbox, as if new."""
    _wechat.reset()
    return _wechat


@pytest.fixture(autouse=True)
def _nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy or a .netrc of the machine the tests run on has no say."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", os.devnull)


@pytest.fixture(autouse=True)
def _no_timer_stays() -> Iterator[None]:
    """Every call takes its timer along when it ends."""
    yield
    wait_until(
        lambda: not [t for t in threading.enumerate() if isinstance(t, threading.Timer)],
        SOON,
        "no timer left",
    )


class _Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name} {self.format(record)} {record.args!r}")


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Everything that any logger says at DEBUG, tracebacks included."""
    handler = _Records()
    loggers = [logging.getLogger(name) for name in (None, "urllib3", "requests")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    logging.getLogger().addHandler(handler)
    yield handler.lines
    logging.getLogger().removeHandler(handler)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def client(server: Sandbox | Recorder | str, *, stable: bool = True, **options: Any) -> WeChat:
    url = server if isinstance(server, str) else server.url
    endpoint = "stable_token" if stable else "token"
    return WeChat(url, APP_ID, SECRET, token_endpoint=endpoint, **options)


def fetch_token(wechat: WeChat, timeout: float = SOON, rejected: str | None = None) -> Credential:
    return wechat.fetch(ACCESS_TOKEN, parent=None, rejected=rejected, timeout=timeout)


def fetch_ticket(wechat: WeChat, token: str, timeout: float = SOON) -> Credential:
    return wechat.fetch(JSAPI_TICKET, parent=token, rejected=None, timeout=timeout)


def failure(call: Callable[[], object]) -> WxJsApiError:
    """The error of a call that must fail, and fail soon, in a thread that must end."""
    caught: list[WxJsApiError] = []

    def attempt() -> None:
        try:
            call()
        except WxJsApiError as error:
            caught.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(SOON)
    assert not thread.is_alive(), "the call is still under way"
    assert caught, "the call did not fail with an error of ours"
    return caught[0]


def all_text_of(error: BaseException) -> str:
    """Whatever of an error and those behind it may end up in a log or on a page."""
    texts: list[str] = []
    link: BaseException | None = error
    while link is not None:
        texts += [str(link), repr(link), repr(link.args), repr(vars(link))]
        link = link.__cause__ or link.__context__
    return "\n".join([*texts, *traceback.format_exception(error)])


def assert_harmless(error: BaseException) -> None:
    """No secret, no token and no URL with a query in anything an error carries."""
    assert error.__cause__ is None
    assert error.__context__ is None
    text = all_text_of(error)
    for secret in (SECRET, TOKEN, "access_token=", "secret=", "/cgi-bin/"):
        assert secret not in text.replace('"/cgi-bin/', "")  # which is a line of our source


# -- what is sent


def test_stable_token_sends_the_secret_in_the_body(answering: Callable[..., Recorder]) -> None:
    """The secret travels in a JSON body and no URL."""
    server = answering()
    fetch_token(client(server))
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /cgi-bin/stable_token HTTP/1.1\r\n")
    assert SECRET.encode() not in head
    assert b"content-type: application/json" in head.lower()
    assert json.loads(body) == {
        "grant_type": "client_credential",
        "appid": APP_ID,
        "secret": SECRET,
        "force_refresh": False,
    }


def test_legacy_token(answering: Callable[..., Recorder]) -> None:
    """The legacy endpoint takes the login in the query, for it takes it nowhere else."""
    server = answering()
    fetch_token(client(server, stable=False))
    line = server.requests[0].partition(b"\r\n")[0].decode()
    query = f"grant_type=client_credential&appid={APP_ID}&secret={SECRET}"
    assert line == f"GET /cgi-bin/token?{query} HTTP/1.1"


def test_ticket(answering: Callable[..., Recorder]) -> None:
    """A ticket is asked for with the token and the type."""
    server = answering(http({"errcode": 0, "errmsg": "ok", "ticket": "tick", "expires_in": 7200}))
    assert fetch_ticket(client(server), "a+b/c").value == "tick"
    line = server.requests[0].partition(b"\r\n")[0].decode()
    assert line == "GET /cgi-bin/ticket/getticket?access_token=a%2Bb%2Fc&type=jsapi HTTP/1.1"


def test_rejected_token_is_no_reason_to_force(answering: Callable[..., Recorder]) -> None:
    """force_refresh has 20 calls a day and is never used unasked."""
    server = answering()
    fetch_token(client(server), rejected=TOKEN)
    assert json.loads(server.requests[0].partition(b"\r\n\r\n")[2])["force_refresh"] is False
    assert TOKEN.encode() not in server.requests[0]


def test_one_call_a_fetch(wechat: Sandbox) -> None:
    """A fetch is one request, whether it succeeds or fails."""
    fetch_token(client(wechat))
    wechat.fail("500")
    failure(lambda: fetch_token(client(wechat)))
    assert wechat.calls == {"stable_token": 2}


def test_base_url_may_be_a_callable(wechat: Sandbox) -> None:
    """Where the URL is known only when it is needed, a callable gives it."""
    upstream = WeChat(lambda: wechat.url, APP_ID, SECRET)
    assert fetch_token(upstream).value


def test_base_url_with_a_path(answering: Callable[..., Recorder]) -> None:
    """A gateway's prefix stays before WeChat's path."""
    server = answering()
    fetch_token(client(f"{server.url}/wechat"))
    assert server.requests[0].startswith(b"POST /wechat/cgi-bin/stable_token ")


def test_token_and_ticket_of_the_sandbox(wechat: Sandbox) -> None:
    """The two calls in a row bring a ticket that the sandbox signs with."""
    upstream = client(wechat)
    token = fetch_token(upstream)
    ticket = fetch_ticket(upstream, token.value)
    assert ticket.value == fetch_ticket(upstream, token.value).value
    assert wechat.calls == {"stable_token": 1, "getticket": 2}


def test_a_token_needs_no_parent_and_a_ticket_does() -> None:
    """The engine learns from the upstream what to fetch first."""
    upstream = client("http://127.0.0.1")
    assert upstream.parent(ACCESS_TOKEN) is None
    assert upstream.parent(JSAPI_TICKET) == ACCESS_TOKEN


# -- what an answer's life is


def test_issued_at_is_from_before_the_call(answering: Callable[..., Recorder]) -> None:
    """An answer that was long under way does not live longer for it."""
    server = answering()
    upstream = client(server, clock=lambda: 1000.0 + 100 * len(server.requests))
    assert fetch_token(upstream) == Credential(TOKEN, 1000.0, 8200.0)


@pytest.mark.parametrize(
    ("expires_in", "life"),
    [
        ("7200", 7200),
        ('"7200"', 7200),
        ("300", 300),
        ("1", 1),
        ("0.25", 1),
        ("7200.5", 7200),
        ("7201", 7200),
        ("1000000000", 7200),
        ("1e300", 7200),
    ],
)
@pytest.mark.parametrize("kind", [ACCESS_TOKEN, JSAPI_TICKET])
def test_life(wechat: Sandbox, kind: str, expires_in: str, life: float) -> None:
    """A life counts in any notation, for a second at least and for two hours at most."""
    upstream = client(wechat, clock=lambda: 1000.0)
    token = fetch_token(upstream).value
    wechat.fail(f"expires:{expires_in}")
    fetched = upstream.fetch(kind, parent=token, rejected=None, timeout=SOON)
    assert (fetched.issued_at, fetched.expires_at) == (1000.0, 1000.0 + life)


BAD_LIVES = ["0", "-1", '"0"', '"soon"', '""', "null", "true", "[7200]", "{}", "NaN", "Infinity"]
BEYOND_A_FLOAT = f"expires:{10**400}"


@pytest.mark.parametrize(
    "fault",
    [f"expires:{life}" for life in BAD_LIVES] + ["expires:1e999", "no-expires", BEYOND_A_FLOAT],
    ids=lambda fault: fault[:20],
)
@pytest.mark.parametrize("kind", [ACCESS_TOKEN, JSAPI_TICKET])
def test_bad_life(wechat: Sandbox, kind: str, fault: str) -> None:
    """An answer without a life that makes sense is none."""
    token = fetch_token(client(wechat)).value
    wechat.fail(fault)
    with pytest.raises(TransportError, match="expires_in") as caught:
        client(wechat).fetch(kind, parent=token, rejected=None, timeout=SOON)
    assert_harmless(caught.value)


@pytest.mark.parametrize(
    "value", ["null", '""', "5", "true", '["x"]', '{"x": 1}', '"a b"', '"a\\n"', '"\\u4e2d"']
)
@pytest.mark.parametrize(
    ("kind", "name"), [(ACCESS_TOKEN, "access_token"), (JSAPI_TICKET, "ticket")]
)
def test_bad_value(wechat: Sandbox, kind: str, name: str, value: str) -> None:
    """An answer whose token or ticket is none is refused, and the field is named."""
    token = fetch_token(client(wechat)).value
    wechat.fail(f"ticket:{value}")
    with pytest.raises(TransportError, match=f"without a usable {name}") as caught:
        client(wechat).fetch(kind, parent=token, rejected=None, timeout=SOON)
    assert_harmless(caught.value)


def test_missing_value(answering: Callable[..., Recorder]) -> None:
    """An answer with a life and nothing that lives is refused."""
    server = answering(http({"expires_in": 7200}))
    with pytest.raises(TransportError, match="without a usable access_token"):
        fetch_token(client(server))


def test_bad_value_is_not_quoted(answering: Callable[..., Recorder]) -> None:
    """Half a token in a wrong answer is still half a token."""
    server = answering(http({"access_token": f"{TOKEN} ", "expires_in": 7200}))
    assert_harmless(failure(lambda: fetch_token(client(server))))


# -- how an answer is read


@pytest.mark.parametrize(
    "content_type", ["application/json; encoding=utf-8", "text/plain", "text/html; charset=gbk", ""]
)
def test_content_type_does_not_matter(
    answering: Callable[..., Recorder], content_type: str
) -> None:
    """WeChat's content type is wrong, so the body is read as UTF-8 JSON whatever it says."""
    server = answering(
        http({"errcode": 40013, "errmsg": "无效的 appid"}, Content_Type=content_type)
    )
    assert fetch_error(server).errmsg == "无效的 appid"


def fetch_error(server: Recorder | Sandbox) -> WeChatAPIError:
    with pytest.raises(WeChatAPIError) as caught:
        fetch_token(client(server))
    assert_harmless(caught.value)
    return caught.value


def test_gzip(answering: Callable[..., Recorder]) -> None:
    """A gateway may compress."""
    body = gzip.compress(json.dumps({"access_token": TOKEN, "expires_in": 7200}).encode())
    server = answering(http(body, Content_Encoding="gzip"))
    assert fetch_token(client(server)).value == TOKEN


def test_chunked(answering: Callable[..., Recorder]) -> None:
    """A body may come in chunks."""
    body = json.dumps({"access_token": TOKEN, "expires_in": 7200}).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:9], body[9:]))
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert fetch_token(client(answering(head + chunks + b"0\r\n\r\n"))).value == TOKEN


# -- errcodes


@pytest.mark.parametrize("errcode", [*sorted(REACTIONS), 47001, 99999])
def test_errcode(wechat: Sandbox, errcode: int) -> None:
    """An errcode becomes an error with the number, WeChat's text and advice."""
    wechat.fail(errcode)
    error = fetch_error(wechat)
    assert error.errcode == errcode
    assert error.errmsg
    assert error.advice
    for part in (str(errcode), error.errmsg, error.advice):
        assert part in str(error)


@pytest.mark.parametrize("errcode", [40001, 42001, 45009])
def test_errcode_on_the_ticket_call(wechat: Sandbox, errcode: int) -> None:
    """The ticket call's errors are errors of the same kind."""
    token = fetch_token(client(wechat)).value
    wechat.fail(errcode, path="getticket")
    with pytest.raises(WeChatAPIError) as caught:
        fetch_ticket(client(wechat), token)
    assert caught.value.errcode == errcode
    assert token not in all_text_of(caught.value)


@pytest.mark.parametrize(
    ("errcode", "said"),
    [
        (40125, "WXJSAPI_APP_SECRET"),
        (40013, "WXJSAPI_APP_ID"),
        (40164, "whitelist"),
        (45009, "00:00 Asia/Shanghai"),
        (48001, "verified"),
        (89503, "administrator"),
        (99999, "list of global error codes"),
    ],
)
def test_advice_says_what_to_do(wechat: Sandbox, errcode: int, said: str) -> None:
    """A person who reads the log knows where to go next."""
    wechat.fail(errcode)
    assert said in fetch_error(wechat).advice


def test_ip_that_is_not_whitelisted_is_shown(wechat: Sandbox) -> None:
    """The address to put on the list stands in WeChat's text only."""
    wechat.fail(40164)
    assert "127.0.0.1" in str(fetch_error(wechat))


def test_errcode_as_text(answering: Callable[..., Recorder]) -> None:
    """A number in quotes is a number."""
    error = fetch_error(answering(http({"errcode": "40013", "errmsg": "invalid appid"})))
    assert error.errcode == 40013
    assert isinstance(error.errcode, int)


@pytest.mark.parametrize("errcode", [0, "0", None])
def test_errcode_that_is_none(answering: Callable[..., Recorder], errcode: object) -> None:
    """An errcode of 0 is success, and so is an answer that has no other."""
    answer = {"errcode": errcode, "errmsg": "ok", "access_token": TOKEN, "expires_in": 7200}
    assert fetch_token(client(answering(http(answer)))).value == TOKEN


@pytest.mark.parametrize("errcode", ["", "x", True, [40013], {}, 1e999])
def test_errcode_of_a_wrong_type(answering: Callable[..., Recorder], errcode: object) -> None:
    """An error object that is not WeChat's is an error of ours all the same."""
    server = answering(http({"errcode": errcode, "errmsg": "x"}))
    assert_harmless(failure(lambda: fetch_token(client(server))))


def test_request_id_and_hint_stay_in_the_text(answering: Callable[..., Recorder]) -> None:
    """What WeChat appends is what its support asks for."""
    errmsg = "invalid appid rid: 65a1-2b3c-4d5e, hint: [x]"
    assert fetch_error(answering(http({"errcode": 40013, "errmsg": errmsg}))).errmsg == errmsg


@pytest.mark.parametrize(
    ("errmsg", "cleaned"),
    [
        ("a\r\nb\tc", "a b c"),
        ("  a  ", "a"),
        ("a\x1b[31mb\x00c\x7f", "a[31mbc"),
        ("a\u202eb\u200bc", "abc"),
        ("x" * 1000, "x" * 200),
        (["a"], "['a']"),
        (5, "5"),
    ],
)
def test_errmsg_is_cleaned(
    answering: Callable[..., Recorder], errmsg: object, cleaned: str
) -> None:
    """WeChat's text is kept to one short line that a terminal can show."""
    assert fetch_error(answering(http({"errcode": 40013, "errmsg": errmsg}))).errmsg == cleaned


@pytest.mark.parametrize(
    "errmsg", ["{0}", "invalid {0} rid: x", "{0}{0}", ["{0}"], {"a": "{0}"}, "x" * 190 + "{0}"]
)
def test_errmsg_that_echoes_the_secret(answering: Callable[..., Recorder], errmsg: object) -> None:
    """A gateway that repeats what it was sent does not get our secret into a log."""
    echoed = json.loads(json.dumps(errmsg).replace("{0}", SECRET))
    error = fetch_error(answering(http({"errcode": 40125, "errmsg": echoed})))
    assert SECRET[:10] not in str(error)
    assert "***" in str(error)


def test_errmsg_that_echoes_the_token(answering: Callable[..., Recorder]) -> None:
    """Nor does one that repeats the token."""
    server = answering(http({"errcode": 40001, "errmsg": f"access_token {TOKEN} is invalid"}))
    with pytest.raises(WeChatAPIError, match=r"access_token \*\*\* is invalid") as caught:
        fetch_ticket(client(server), TOKEN)
    assert_harmless(caught.value)


# -- answers that are not WeChat's

BROKEN = {
    "500": "HTTP 500",
    "502": "HTTP 502",
    "503": "HTTP 503",
    "404": "HTTP 404",
    "http 429": "HTTP 429",
    "garbage": "not WeChat's JSON",
    "html": "not WeChat's JSON",
    "empty": "not WeChat's JSON",
    "list": "not WeChat's JSON",
    "nulls": "without a usable",
    "half": "was not reached",
    "close": "was not reached",
    "redirect": "HTTP 302",
}


@pytest.mark.parametrize(("fault", "said"), BROKEN.items())
@pytest.mark.parametrize("kind", [ACCESS_TOKEN, JSAPI_TICKET])
@pytest.mark.parametrize("stable", [True, False])
def test_broken_answer(
    wechat: Sandbox, log: list[str], stable: bool, kind: str, fault: str, said: str
) -> None:
    """Whatever answers instead of WeChat is a TransportError, with no secret in it or the log."""
    wechat.fail(fault)
    with pytest.raises(TransportError, match=said) as caught:
        client(wechat, stable=stable).fetch(kind, parent=TOKEN, rejected=None, timeout=SOON)
    assert_harmless(caught.value)
    assert SECRET not in "".join(log)
    assert TOKEN not in "".join(log)


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b'"ok"',
        b"7200",
        b"{",
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"expires_in": ' + b"9" * 5000 + b"}",
        b"x" * 200_000,
        b" " * 200_000 + GOOD_TOKEN,
    ],
    ids=lambda body: f"{body[:8]!r}",
)
def test_body_that_is_no_object(answering: Callable[..., Recorder], body: bytes) -> None:
    """Other JSON, broken JSON and far too much JSON are no answers."""
    error = failure(lambda: fetch_token(client(answering(http(body)))))
    assert isinstance(error, TransportError)
    assert_harmless(error)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        http(b"not gzip", Content_Encoding="gzip"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=lambda reply: f"{reply[:40]!r}",
)
def test_reply_that_is_no_http(answering: Callable[..., Recorder], reply: bytes) -> None:
    """Broken HTTP is a TransportError, not an exception of another library."""
    server = answering(reply)
    error = failure(lambda: fetch_token(client(server, stable=False)))
    assert isinstance(error, TransportError)
    assert_harmless(error)


@pytest.mark.parametrize("status", ["301", "302", "303", "307", "308"])
def test_redirect_is_not_followed(answering: Callable[..., Recorder], status: str) -> None:
    """A redirect would carry the secret elsewhere."""
    elsewhere = answering()
    server = answering(http(b"", f"{status} Elsewhere", Location=f"{elsewhere.url}/cgi-bin/token"))
    error = failure(lambda: fetch_token(client(server)))
    assert f"HTTP {status}" in str(error)
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

    error = failure(lambda: fetch_token(client(answering(endless))))
    assert "HTTP 302" in str(error)
    assert megabytes < 64  # what fits into the buffers of the connection


def test_error_names_the_host(wechat: Sandbox) -> None:
    """Who answered is half of the diagnosis."""
    wechat.fail("502")
    error = failure(lambda: fetch_token(client(wechat)))
    assert wechat.url.removeprefix("http://") in str(error)


# -- nothing answers


def test_connection_refused(log: list[str]) -> None:
    """Nobody listens: the error says so, and not what was asked for."""
    error = failure(lambda: fetch_token(client(f"http://127.0.0.1:{free_port()}", stable=False)))
    assert "Connection refused" in str(error)
    assert_harmless(error)
    assert SECRET not in "".join(log)


def test_name_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that DNS does not know; played here, since a resolver may take its time."""

    def unknown(host: str, *args: object, **kwargs: object) -> None:
        assert host == "nonexistent.invalid"
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = failure(lambda: fetch_token(client("https://nonexistent.invalid", stable=False)))
    assert str(error) == "nonexistent.invalid was not reached: Name or service not known."
    assert_harmless(error)


def test_tls_to_a_plain_port(wechat: Sandbox) -> None:
    """https to a port that speaks http is an error that says TLS."""
    url = wechat.url.replace("http:", "https:")
    error = failure(lambda: fetch_token(client(url, stable=False)))
    assert isinstance(error, TransportError)
    assert "SSL" in str(error)
    assert_harmless(error)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key in the same file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        require("openssl", "no openssl to make a certificate with")
    path = tmp_path_factory.mktemp("tls") / "self-signed.pem"
    command = [str(openssl), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
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
    error = failure(lambda: fetch_token(client(f"https://{server.netloc}", stable=False)))
    assert "certificate verify failed" in str(error)
    assert server.requests == []
    assert_harmless(error)


# -- the limit


@pytest.mark.parametrize("fault", ["hang", "drip", "drip-headers", "slow:30"])
@pytest.mark.parametrize("kind", [ACCESS_TOKEN, JSAPI_TICKET])
def test_slow_answer_is_cut_off(wechat: Sandbox, log: list[str], kind: str, fault: str) -> None:
    """A call is over by its limit however slowly bytes come, and its thread ends."""
    token = fetch_token(client(wechat)).value
    wechat.fail(fault)
    error = failure(
        lambda: client(wechat, stable=False).fetch(kind, parent=token, rejected=None, timeout=SHORT)
    )
    assert isinstance(error, TransportError)
    assert_harmless(error)
    assert token not in all_text_of(error) + "".join(log)
    assert SECRET not in "".join(log)


@pytest.mark.parametrize("fault", ["hang", "drip-headers"])
def test_error_says_that_time_was_up(wechat: Sandbox, fault: str) -> None:
    """A slow network is not mistaken for a wrong URL."""
    wechat.fail(fault)
    error = failure(lambda: fetch_token(client(wechat), SHORT))
    assert "no complete answer in time" in str(error)


def test_dripping_body_says_that_time_was_up(wechat: Sandbox) -> None:
    """A body that was cut off is not mistaken for a captive portal."""
    wechat.fail("drip")
    error = failure(lambda: fetch_token(client(wechat), SHORT))
    assert "no complete answer in time" in str(error)


def drip(connection: socket.socket, head: bytes) -> None:
    """Send bytes, one at a time and far more often than any read timeout, for half a minute."""
    never = threading.Event()
    connection.sendall(head)
    for _ in range(600):
        connection.sendall(b"a")
        never.wait(0.05)


def test_body_without_a_length_that_drips(answering: Callable[..., Recorder]) -> None:
    """The limit holds where the end of the connection is the end of the body."""
    server = answering(lambda connection: drip(connection, b"HTTP/1.0 200 OK\r\n\r\n"))
    error = failure(lambda: fetch_token(client(server), SHORT))
    assert "no complete answer in time" in str(error)


def test_body_without_an_end(answering: Callable[..., Recorder]) -> None:
    """A body that never ends is read up to a bound."""

    def flood(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    server = answering(flood)
    assert isinstance(failure(lambda: fetch_token(client(server))), TransportError)


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
        assert_harmless(failure(lambda: fetch_token(client(url), SHORT)))
        thread.join(SOON)
        assert not thread.is_alive()


def test_proxy_that_drips(
    answering: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit holds while a proxy makes up its mind about CONNECT."""
    proxy = answering(lambda connection: drip(connection, b"HTTP/1.1 200 OK\r\nX: "))
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    assert_harmless(failure(lambda: fetch_token(client("https://api.example"), SHORT)))


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
    error = failure(lambda: fetch_token(client(f"http://127.0.0.1:{black_hole}"), SHORT))
    assert isinstance(error, TransportError)


def test_name_with_many_addresses_that_do_not_answer(
    black_hole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is one for all addresses of a name and not one for each."""
    look_up = socket.getaddrinfo

    def many(*args: Any, **kwargs: Any) -> Any:
        return look_up(*args, **kwargs) * 30

    monkeypatch.setattr(socket, "getaddrinfo", many)
    error = failure(lambda: fetch_token(client(f"http://127.0.0.1:{black_hole}"), SHORT))
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
    assert fetch_token(client(f"http://localhost:{port}")).value


def test_address_of_a_kind_this_host_does_not_have(
    wechat: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with an IPv6 address works in a container without IPv6."""
    port = int(wechat.url.rpartition(":")[2])
    no_such_family = (9999, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
    resolve_to(monkeypatch, no_such_family, ipv4(port))
    assert fetch_token(client(f"http://localhost:{port}")).value


def test_name_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that finds nothing and says so in no error is no reason to hang or to crash."""
    resolve_to(monkeypatch)
    error = failure(lambda: fetch_token(client("http://localhost:8900", stable=False)))
    assert isinstance(error, TransportError)
    assert_harmless(error)


@pytest.mark.parametrize("host", ["a..example", "x" * 64 + ".example", ".example", "a b"])
def test_name_that_cannot_be(host: str) -> None:
    """A host that no resolver would take is an error of ours."""
    error = failure(lambda: fetch_token(client(f"http://{host}", stable=False), SHORT))
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
        assert fetch_token(client(sandbox)).value


# -- the environment


def test_proxy_of_the_environment_is_ignored_for_loopback(
    wechat: Sandbox, answering: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two programs on one machine there is no proxy."""
    proxy = answering()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    fetch_token(client(wechat))
    assert proxy.requests == []
    assert wechat.calls == {"stable_token": 1}


def test_proxy_of_the_environment_is_used_elsewhere(
    answering: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A firm's proxy gets a CONNECT, and nothing it could read."""
    proxy = answering(http(b"", "403 Forbidden"))
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    error = failure(lambda: fetch_token(client("https://api.example", stable=False)))
    assert proxy.requests[0].startswith(b"CONNECT api.example:443 ")
    assert SECRET.encode() not in b"".join(proxy.requests)
    assert_harmless(error)


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
    fetch_token(client(server))
    assert b"authorization" not in server.requests[0].lower()


def test_netrc_is_not_used_elsewhere(
    answering: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nor where the environment's proxy counts."""
    netrc(tmp_path, monkeypatch, "api.example")
    proxy = answering()
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("http_proxy", proxy.url)
    fetch_token(client("http://api.example"))
    assert proxy.requests[0].startswith(b"POST http://api.example/cgi-bin/stable_token ")
    assert b"authorization" not in proxy.requests[0].lower()


# -- what shows


@pytest.mark.parametrize("stable", [True, False])
def test_nothing_leaks_from_a_success(wechat: Sandbox, log: list[str], stable: bool) -> None:
    """Every logger at DEBUG says nothing that one could use."""
    upstream = client(wechat, stable=stable)
    token = fetch_token(upstream)
    ticket = fetch_ticket(upstream, token.value)
    lines = "\n".join(log)
    assert "/cgi-bin/ticket/getticket" in lines  # urllib3 does talk
    for secret in (SECRET, token.value, ticket.value):
        assert secret not in lines


def test_nothing_leaks_from_headers_that_urllib3_complains_of(
    answering: Callable[..., Recorder], log: list[str]
) -> None:
    """A warning that quotes the whole URL is redacted too."""
    body = b'{"access_token": "x", "expires_in": 7200}'
    server = answering(b"HTTP/1.1 200 OK\r\nX: y\r\nbroken line\r\n\r\n" + body)
    with suppress(TransportError):  # whether it is an answer is not the question here
        fetch_token(client(server, stable=False))
    lines = "\n".join(log)
    assert "Failed to parse headers" in lines
    assert SECRET not in lines


@pytest.mark.parametrize(
    ("message", "args", "logged"),
    [
        ('"GET /x?access_token=%s&type=jsapi HTTP/1.1" 200', ("abc",), "access_token=***&type="),
        ("GET /x?a=1&secret=abc HTTP/1.1", (), "GET /x?a=1&secret=*** HTTP/1.1"),
        ("GET /x?corpid=1&corpsecret=abc", (), "corpid=1&corpsecret=***"),
        ("url='/x?access_token=abc'", (), "url='/x?access_token=***'"),
        ("access_token=abc secret=abc", (), "access_token=*** secret=***"),
        ("Starting new HTTP connection (%d): %s:%s", (1, "h", 80), "connection (1): h:80"),
        ("100% sure, access_token=abc", (), "100% sure, access_token=***"),
    ],
)
def test_redaction(
    caplog: pytest.LogCaptureFixture, message: str, args: tuple[Any, ...], logged: str
) -> None:
    """urllib3's own lines lose their secrets and nothing else."""
    with caplog.at_level(logging.DEBUG, "urllib3.connectionpool"):
        logging.getLogger("urllib3.connectionpool").debug(message, *args)
    assert logged in caplog.text
    assert "abc" not in caplog.text


# -- the user's own token provider


class Elsewhere:
    """An upstream that only notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, str | None, float]] = []

    def parent(self, kind: str) -> str | None:
        return f"parent of {kind}"

    def fetch(
        self, kind: str, *, parent: str | None, rejected: str | None, timeout: float
    ) -> Credential:
        self.asked.append((kind, parent, rejected, timeout))
        return Credential("of-the-upstream", 0, 7200)


def provided(provider: Callable[[str | None], Any], rejected: str | None = None) -> Credential:
    upstream = TokenProvider(Elsewhere(), provider)
    return upstream.fetch(ACCESS_TOKEN, parent=None, rejected=rejected, timeout=SOON)


def test_provider_gives_the_token() -> None:
    """The credential is the provider's own."""
    credential = Credential(TOKEN, 1000.0, 8200.0)
    assert provided(lambda rejected: credential) is credential


@pytest.mark.parametrize("rejected", [None, TOKEN])
def test_provider_is_told_what_was_rejected(rejected: str | None) -> None:
    """After a 40001 the provider must not give the same token from its cache."""
    told: list[str | None] = []

    def provider(rejected: str | None) -> Credential:
        told.append(rejected)
        return Credential(TOKEN, 1000.0, 8200.0)

    provided(provider, rejected)
    assert told == [rejected]


def test_provider_is_not_asked_for_tickets() -> None:
    """Everything but the token comes from the upstream, as does what needs a token."""

    def provider(rejected: str | None) -> Credential:
        raise AssertionError("asked for a ticket")

    upstream = Elsewhere()
    both = TokenProvider(upstream, provider)
    fetched = both.fetch(JSAPI_TICKET, parent=TOKEN, rejected="x", timeout=3.0)
    assert fetched.value == "of-the-upstream"
    assert upstream.asked == [(JSAPI_TICKET, TOKEN, "x", 3.0)]
    assert both.parent(JSAPI_TICKET) == f"parent of {JSAPI_TICKET}"


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, KeyError, OSError, AssertionError])
def test_provider_that_raises(kind: type[Exception]) -> None:
    """An exception of the provider's is one of ours: its class and line, not its text."""

    def provider(rejected: str | None) -> Credential:
        raise kind(f"cannot reach redis://user:{SECRET}@host, token was {TOKEN}")

    error = failure(lambda: provided(provider))
    assert isinstance(error, TransportError)
    for part in ("WXJSAPI_ACCESS_TOKEN_PROVIDER", kind.__name__, "test_client.py", "in provider"):
        assert part in str(error)
    assert error.__cause__ is None
    assert error.__context__ is None
    assert SECRET not in f"{error!r}{error}{error.args}"


@pytest.mark.parametrize(
    ("returned", "name"),
    [
        (None, "NoneType"),
        (TOKEN, "str"),
        ({"access_token": TOKEN}, "dict"),
        ((TOKEN, 7200), "tuple"),
    ],
)
def test_provider_that_returns_something_else(returned: object, name: str) -> None:
    """Anything but a Credential is an error that names its type and not its value."""
    error = failure(lambda: provided(lambda rejected: returned))
    assert isinstance(error, TransportError)
    assert f"returned {name}, not a Credential" in str(error)
    assert_harmless(error)


@pytest.mark.parametrize(
    "raised",
    [WeChatAPIError(40125, "invalid appsecret"), TransportError("no"), WxJsApiError("no")],
    ids=lambda error: type(error).__name__,
)
def test_provider_that_raises_an_error_of_ours(raised: WxJsApiError) -> None:
    """A provider that knows what happened says it, and it is passed on as it is."""

    def provider(rejected: str | None) -> Credential:
        raise raised

    assert failure(lambda: provided(provider)) is raised


def test_provider_that_is_interrupted() -> None:
    """Ctrl-C is nobody's transport error."""

    def provider(rejected: str | None) -> Credential:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        provided(provider)


# -- what the doctor asks for


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_ask_carries_token_and_body(answering: Callable[..., Recorder], method: str) -> None:
    """Any call that needs a token; the answer comes back as it is."""
    server = answering(http({"errcode": 0, "n": 1}))
    body = {"cgi_path": "/x"} if method == "POST" else None
    assert client(server).ask(method, "/cgi-bin/x", TOKEN, SOON, body) == {"errcode": 0, "n": 1}
    (request,) = server.requests
    assert request.startswith(f"{method} /cgi-bin/x?access_token={TOKEN} ".encode())
    assert request.endswith(b'{"cgi_path": "/x"}' if body else b"\r\n\r\n")


def test_ask_fails_like_any_call(wechat: Sandbox, log: list[str]) -> None:
    """With the errcode and its advice, and with the token nowhere."""
    error = failure(lambda: client(wechat).ask("GET", "/cgi-bin/get_api_domain_ip", TOKEN, SOON))
    assert isinstance(error, WeChatAPIError)
    assert error.errcode == 40014
    assert TOKEN not in f"{error!r} {error}" + "".join(log)


@pytest.mark.parametrize("status", ["200 OK", "502 Bad Gateway"])
def test_date_is_any_answers(answering: Callable[..., Recorder], status: str) -> None:
    """The header is there whatever else the answer says, and no token is sent for it."""
    stamp = "Sun, 22 Nov 2026 16:00:00 GMT"
    server = answering(http(b"<html>", status, Date=stamp))
    assert client(server).date(SOON) == stamp
    assert b"access_token" not in server.requests[0]


def test_date_that_is_not_there(answering: Callable[..., Recorder]) -> None:
    """Then it is empty."""
    assert client(answering(http({}))).date(SOON) == ""


def test_date_of_nobody() -> None:
    """The reason is named, as for every call."""
    error = failure(lambda: client(f"http://127.0.0.1:{free_port()}").date(SOON))
    assert isinstance(error, TransportError)
    assert "Connection refused" in str(error)


def test_provider_leaves_other_calls_to_the_upstream() -> None:
    """The doctor asks WeChat through it, where there is a WeChat to ask."""
    upstream = WeChat("https://api.example", APP_ID, SECRET)
    both = TokenProvider(upstream, lambda rejected: Credential(TOKEN, 1.0, 2.0))
    assert both.date == upstream.date
    assert both.ask == upstream.ask
    assert TokenProvider(Elsewhere(), both.fetch).date is None
