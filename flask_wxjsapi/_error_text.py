"""Tells an error of others' without what it may quote: nobody knows what its text holds."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterable
from types import TracebackType


def describe(error: BaseException) -> str:
    """What a log may say of somebody else's exception.

    Its class, what is known of the cause, and the line it came from. Its text stays out, since
    nobody knows what it quotes: a ``requests.ConnectionError`` is an ``OSError`` with a URL in it,
    token and all. The few texts that are known to be clean stand for themselves.
    """
    name = type(error).__name__
    last = _last(error.__traceback__)
    if _is_clean(error, last):
        return f"{name}: {' '.join(str(error).split())}"[:500]
    if code_word := _redis_code(error):  # where redis-py raises it helps nobody
        return f"{name}: {code_word}"
    cause = _system_cause(error) if isinstance(error, OSError) else ""
    told = f"{name}: {cause}" if cause else name
    if last is None:
        return told
    code = last.tb_frame.f_code
    return f"{told} ({code.co_filename}:{last.tb_lineno} in {code.co_name})"


def _last(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace


#: Texts of redis-py's that name host, port and the system's reason. Exactly these: a class that is
#: derived from one may quote what a server replied.
_CLEAN = {
    ("redis.exceptions", "ConnectionError"),
    ("redis.exceptions", "TimeoutError"),
    ("redis.exceptions", "MaxConnectionsError"),
    ("redis.sentinel", "MasterNotFoundError"),
}


def _is_clean(error: BaseException, last: TracebackType | None) -> bool:
    """Whether a text is known to quote nothing: redis-py's above, and our own of the store."""
    kind = type(error)
    if (kind.__module__, kind.__name__) in _CLEAN:
        return True
    if last is None or not isinstance(error, (OSError, RuntimeError)):
        return False
    module = str(last.tb_frame.f_globals.get("__name__"))
    return module.startswith((f"{__package__}._storage.", f"{__package__}._tools.doctor"))


def _system_cause(error: OSError) -> str:
    """The system's own words for a number; those of the exception may be anybody's."""
    reason = getattr(error, "reason", None)
    if any(kind.__name__ == "SSLError" for kind in type(error).__mro__):  # OpenSSL's numbers
        return reason if isinstance(reason, str) and _CODE.fullmatch(reason) else ""
    number = error.errno
    if number is None:
        return ""
    if type(error) is socket.gaierror:  # which has numbers and words of its own
        return f"[Errno {number}] {error.strerror}"
    return f"[Errno {number}] {os.strerror(number)}" if number in errno.errorcode else ""


_CODE = re.compile(r"[A-Z][A-Z_]{1,60}")

#: Replies whose code word redis-py drops, in versions that do not keep it as ``status_code``.
_REDIS_CODES = {
    "BusyLoadingError": "LOADING",
    "ClusterDownError": "CLUSTERDOWN",
    "NoPermissionError": "NOPERM",
    "NoScriptError": "NOSCRIPT",
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
}

_REDIS_REPLIES = {"ResponseError", "AuthenticationError", "BusyLoadingError"}


def _redis_code(error: BaseException) -> str:
    """The word in capitals that a reply of Redis begins with, such as NOPERM."""
    bases = {kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "redis.exceptions"}
    if not bases & _REDIS_REPLIES:
        return ""
    for code in (getattr(error, "status_code", None), str(error).partition(" ")[0]):
        if _CODE.fullmatch(str(code)):
            return str(code)
    return _REDIS_CODES.get(type(error).__name__, "")


def clean(errmsg: object, secrets: Iterable[str], longest: int = 200) -> str:
    """WeChat's text on one line, in bounds, and with nothing of ours echoed in it."""
    text = " ".join(str(errmsg).split())
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return "".join(filter(str.isprintable, text))[:longest]
