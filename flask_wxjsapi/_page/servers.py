"""Servers that keep nothing of an address as the browser sent it: what people are told of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import cache
from importlib import metadata

from .._telling import tell

_KEEPING = ("gunicorn", "uwsgi", "mod_wsgi", "waitress", "cheroot", "a2wsgi", "eventlet")
_LOSING = ("granian", "hypercorn", "bjoern", "tornado", "twisted", "gevent")
_LOSS = (
    "nothing of an address as the browser sent it. One with escapes in its path, such as %2F, %2B "
    "or %7E, or with a '?' at its end gets a signature that WeChat calls invalid. Set URL_PREFIX, "
    "so that pages of wx_script() heal themselves, have your proxy tell the address, or use a "
    'server that keeps it: "URLs and proxies" in the documentation.'
)


@cache
def tell_once(server: str, *, is_doubtful: bool) -> None:
    """Have the log say that addresses are rebuilt: once a process, and once more when it matters.

    :param server: its name; empty where it gives none.
    :param is_doubtful: the browser may have had something else than what is signed.
    """
    level = logging.WARNING if is_doubtful else logging.INFO
    text = "%s keeps %s"
    tell(level, text, server or "The server", _LOSS, event="address_rebuilt", server=server)


def advice() -> str | None:
    """What to say where nobody can see the server, as in a command: None where one that keeps
    addresses is installed, since it is probably that one.
    """
    losing = _installed(_LOSING)
    if not losing or _installed(_KEEPING):
        return None
    return f"If this app runs on {' or '.join(losing)}: that keeps {_LOSS}"


def _installed(names: Iterable[str]) -> list[str]:
    found = []
    for name in names:
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        found.append(name)
    return found
