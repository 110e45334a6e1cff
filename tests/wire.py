"""A server that answers what it is told to, and what must not be in an error of a call to it."""

from __future__ import annotations

import json
import logging
import socket
import socketserver
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flask_wxjsapi import WxJsApiError

APP_ID = "wx0000000000000000"
SECRET = "sandbox-secret-0000000000000000"
TOKEN = "57_ToKeN-that-must-not-leak_0123456789"
SOON = 30.0  # seconds; far longer than anything takes on a busy machine, shorter than a hang
SHORT = 0.3  # seconds; the limit of a call that hangs


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


@contextmanager
def recorders() -> Iterator[Callable[..., Recorder]]:
    """What starts servers that answer what they are told to."""
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


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name} {self.format(record)} {record.args!r}")


@contextmanager
def everything_logged() -> Iterator[list[str]]:
    """Everything that any logger says at DEBUG, tracebacks included."""
    handler = Records()
    loggers = [logging.getLogger(name) for name in (None, "urllib3", "requests")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    logging.getLogger().addHandler(handler)
    yield handler.lines
    logging.getLogger().removeHandler(handler)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


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
