"""What can be made to fail, and how it reaches the caller."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Self

from werkzeug import Response

from .protocol import JSON, NAMES, Payload, json_response

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: The faults that are words; "errcode" and "http" stand for numbers.
FAULT_NAMES = (
    "garbage", "html", "empty", "nulls", "list", "no-expires", "hang", "drip", "drip-headers",
    "close", "half", "slow", "redirect",
)  # fmt: skip
_FAULT_HELP = (
    "an errcode such as '-1' or '45009'; '500', '502', '503', '404' or 'http STATUS'; "
    + ", ".join(map(repr, FAULT_NAMES))
    + "; 'expires:JSON', 'ticket:JSON', 'slow:SECONDS'"
)
_REPLACED = {
    "expires": ("expires_in",),
    "ticket": (
        "access_token", "ticket", "component_access_token", "authorizer_access_token",
        "suite_access_token",
    ),
}  # fmt: skip
_LONGEST_WAIT = 60.0  # seconds; a forgotten fault must not hold a thread for ever
_DRIP_INTERVAL = 0.2  # seconds


@dataclass
class Fault:
    """One order for calls to fail.

    :param name: one of :data:`FAULT_NAMES`, ``"errcode"``, ``"http"``, ``"expires"`` or
        ``"ticket"``.
    :param number: the errcode or HTTP status to answer, or the seconds to wait.
    :param value: what stands in place of the life or the token or ticket.
    :param times: for how many calls; None for all.
    :param path: the name of the one endpoint it is meant for; None for all.
    :param app_id: the one account, or corp, whose calls it is meant for; None for all.
    """

    name: str
    number: float = 0
    value: object = None
    times: int | None = 1
    path: str | None = None
    app_id: str | None = None

    @classmethod
    def parse(cls, text: object, times: object, path: object, app_id: object) -> Self:
        """The fault that is meant by what somebody gave to :meth:`Sandbox.fail` or over HTTP.

        :raises ValueError: with what there is, if there is no such fault or endpoint.
        """
        name, number, value = _parse(str(text))
        if times is not None and (type(times) is not int or times < 1):
            raise ValueError(f"times is a positive number or None, not {times!r}")
        if path is not None:
            path = NAMES.get(str(path), str(path))
            if path not in NAMES.values():
                raise ValueError(f"path is one of {', '.join(NAMES.values())}, not {path!r}")
        return cls(name, number, value, times, path, None if app_id is None else str(app_id))

    @property
    def outcome(self) -> int | str:
        """What the history shows; never a value, which may be somebody's ticket."""
        if self.name == "errcode":
            return int(self.number)
        return f"http {int(self.number)}" if self.name == "http" else self.name

    @property
    def pause(self) -> float:
        """Seconds that the answer is late."""
        return self.number if self.name in ("hang", "slow") else 0.0

    def stand_in(self) -> Response | None:
        """What comes in place of WeChat's answer; None if that is left, or only spoilt."""
        match self.name:
            case "http":
                return _gateway_page(int(self.number))
            case "garbage":
                return Response(b"\xff" + os.urandom(255), content_type=JSON)  # 0xFF: never UTF-8
            case "html":
                page = "<!doctype html><title>Free Wi-Fi</title><form>Accept the terms</form>"
                return Response(page, mimetype="text/html")
            case "empty":
                return Response(b"", content_type=JSON)
            case "nulls":
                return json_response({"access_token": None, "ticket": None, "expires_in": None})
            case "list":
                return json_response([])
            case "redirect":
                return Response(status=302, headers={"Location": "https://elsewhere.invalid/"})
            case "close" | "drip-headers":
                return Response()  # never sent, see deliver()
        return None

    def spoil(self, payload: Payload) -> None:
        """Change what a right answer says."""
        if self.name == "no-expires":
            payload.pop("expires_in", None)
        for key in _REPLACED.get(self.name, ()):
            if key in payload:
                payload[key] = self.value

    def deliver(
        self, response: Response, release: threading.Event, environ: WSGIEnvironment
    ) -> Response:
        """Spoil the way the bytes travel, if the fault is of that kind.

        :param release: set when those who wait are to go on.
        """
        if self.name in ("close", "drip-headers"):
            _break_off(environ, release if self.name == "drip-headers" else None)
        if self.name in ("drip", "half"):
            body = response.get_data()
            response.headers["Content-Length"] = str(len(body))
            dripping = self.name == "drip"
            response.response = _drip(body, release) if dripping else [body[: len(body) // 2]]
        return response


class Faults:
    """The queue, and those who wait because of it; guarded by the sandbox's lock."""

    def __init__(self) -> None:
        self._queue: list[Fault] = []
        #: Set when those who wait now are to go on.
        self.release = threading.Event()

    def add(self, fault: Fault) -> None:
        """Put a fault behind the others."""
        self._queue.append(fault)

    def take(self, name: str, app_id: str | None) -> Fault | None:
        """The first one that is meant for a call of this endpoint and account, if there is one."""
        for fault in self._queue:
            if fault.path in (None, name) and fault.app_id in (None, app_id):
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times == 0:
                        self._queue.remove(fault)
                return fault
        return None

    def waiting(self) -> list[Fault]:
        """Those in the queue, the next one first."""
        return [*self._queue]

    def clear(self) -> None:
        """Forget the queue, and let go those who wait."""
        self._queue.clear()
        self.let_go()

    def let_go(self) -> None:
        """Have those who wait answered now."""
        self.release.set()
        self.release = threading.Event()  # those who come later wait for the next time


def _parse(text: str) -> tuple[str, float, object]:
    name, _, argument = text.partition(":")
    try:
        if match := re.fullmatch(r"http ([45][0-9]{2})|(500|502|503|404)", text):
            return "http", int(match[1] or match[2]), None
        if re.fullmatch(r"-?[0-9]{1,9}", text):
            return "errcode", int(text), None
        if name in _REPLACED:
            return name, 0, json.loads(argument)
        if text == "hang":
            return text, _LONGEST_WAIT, None
        if name == "slow" and 0 <= (seconds := float(argument or 5)) <= _LONGEST_WAIT:
            return name, seconds, None
    except (ValueError, RecursionError):
        pass  # a bad argument is no known fault either
    if text in FAULT_NAMES:
        return text, 0, None
    raise ValueError(f"no fault {text!r}; there are: {_FAULT_HELP}")


def _gateway_page(status: int) -> Response:
    title = Response(status=status).status.title()
    page = (
        f"<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center>"
        "<hr><center>nginx</center></body></html>\r\n"
    )
    return Response(page, status, mimetype="text/html")


def _drip(body: bytes, release: threading.Event) -> Iterator[bytes]:
    yield b""  # sends the headers
    for position in range(len(body)):
        if release.wait(_DRIP_INTERVAL):
            yield body[position:]
            return
        yield body[position : position + 1]


def _break_off(environ: WSGIEnvironment, drip: threading.Event | None) -> NoReturn:
    """Close the connection without an answer, after header bytes that lead nowhere if asked."""
    connection: socket.socket | None = environ.get("werkzeug.socket")
    if connection is not None:
        head = b"HTTP/1.1 200 OK\r\nX-Endless: "
        try:
            for count in range(int(_LONGEST_WAIT / _DRIP_INTERVAL) if drip else 0):
                connection.sendall(head[count : count + 1] or b"a")
                if drip and drip.wait(_DRIP_INTERVAL):
                    break
            # The server would otherwise wait for the next request on this connection.
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the caller was faster
    raise ConnectionAbortedError("the sandbox breaks off here")  # Werkzeug passes over it quietly
