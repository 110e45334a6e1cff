"""The arguments of ``wx.config`` and of WeCom's ``wx.agentConfig``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NotRequired, TypedDict


class WxConfig(TypedDict):
    """The argument of ``wx.config``; ``timestamp`` is Unix time in seconds."""

    debug: bool
    appId: str
    timestamp: int
    nonceStr: str
    signature: str
    jsApiList: list[str]
    openTagList: list[str]
    beta: NotRequired[bool]


class AgentConfig(TypedDict):
    """The argument of WeCom's ``wx.agentConfig``; ``timestamp`` is Unix time in seconds."""

    corpid: str
    agentid: str
    timestamp: int
    nonceStr: str
    signature: str
    jsApiList: list[str]


def listed(names: Iterable[str]) -> list[str]:
    """Names as ``wx.config`` wants them; checked before a ticket is in anybody's hands.

    :raises RuntimeError: for one string, which is a list of letters to Python, and for what is no
        string, such as a variable that a template does not have.
    """
    if isinstance(names, str):
        raise RuntimeError(f"Expected a list of names, got the string {names!r}: write [{names!r}]")
    found = list(names)
    for name in found:
        if not isinstance(name, str):
            raise RuntimeError(f"Expected a list of names, got {type(name).__name__} in it.")
    return found


def whole_url(url: str) -> str:
    """A page's URL without its hash.

    :raises RuntimeError: it is not a whole one, or no URL at all.
    """
    if url[:8] == "https://" or url[:7] == "http://":
        # Half of a surrogate pair survives JSON, and cannot be signed.
        if url.isascii() or url.encode("utf-8", "ignore").decode() == url:
            return url.partition("#")[0] if "#" in url else url
        raise RuntimeError("url has a character in it that no URL has (half of a surrogate pair).")
    raise RuntimeError(f"url must be the page's whole URL, with its scheme, got {url!r}")
