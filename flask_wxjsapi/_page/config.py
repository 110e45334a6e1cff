"""The arguments of ``wx.config`` and of WeCom's ``wx.agentConfig``."""

from __future__ import annotations

from collections.abc import Iterable
from os import urandom
from time import time as now
from typing import NotRequired, TypedDict

from .._signature import sign


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


def wx_config(
    ticket: str,
    page: str,
    *,
    app_id: str,
    names: list[str],
    tags: list[str],
    debug: bool,
    beta: bool,
) -> WxConfig:
    """The argument of ``wx.config`` for a page.

    :param beta: or what goes through ``wx.invoke`` fails in WeCom.
    """
    noncestr, timestamp = urandom(8).hex(), int(now())  # as secrets.token_hex(8), in less time
    config: WxConfig = {
        "debug": debug,
        "appId": app_id,
        "timestamp": timestamp,
        "nonceStr": noncestr,
        "signature": sign(ticket=ticket, noncestr=noncestr, timestamp=timestamp, url=page),
        "jsApiList": names,
        "openTagList": tags,
    }
    if beta:
        config["beta"] = True
    return config


def agent_config(
    ticket: str, page: str, *, corp_id: str, agent_id: str, names: list[str]
) -> AgentConfig:
    """The argument of ``wx.agentConfig`` for a page."""
    noncestr, timestamp = urandom(8).hex(), int(now())
    return {
        "corpid": corp_id,
        "agentid": agent_id,
        "timestamp": timestamp,
        "nonceStr": noncestr,
        "signature": sign(ticket=ticket, noncestr=noncestr, timestamp=timestamp, url=page),
        "jsApiList": names,
    }


def listed(names: Iterable[str]) -> list[str]:
    """Names as ``wx.config`` wants them.

    :raises RuntimeError: for one string, which is a list of letters to Python.
    """
    if isinstance(names, str):
        raise RuntimeError(f"Expected a list of names, got the string {names!r}: write [{names!r}]")
    return list(names)


def whole_url(url: str) -> str:
    """A page's URL without its hash.

    :raises RuntimeError: it is not a whole one.
    """
    if url.startswith(("https://", "http://")):
        return url.partition("#")[0] if "#" in url else url
    raise RuntimeError(f"url must be the page's whole URL, with its scheme, got {url!r}")
