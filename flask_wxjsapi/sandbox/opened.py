"""What a response makes of a phone that opens it: found in its text, without a browser."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from werkzeug import Response

_FRIEND = ("updateAppMessageShareData", "onMenuShareAppMessage")
_MOMENTS = ("updateTimelineShareData", "onMenuShareTimeline")


@dataclass(frozen=True)
class Card:
    """What a share would send: ``link``, ``imgUrl`` and ``title``, to a friend ``desc`` as well.

    :param friend: to a chat; empty where the page does not set it.
    :param moments: to Moments (朋友圈), likewise.
    """

    friend: dict[str, Any] = field(default_factory=dict)
    moments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Opened:
    """A page that :meth:`Sandbox.open` has opened.

    :param errmsg: the verdict on ``wx.config``; None if the response does not call it.
    :param config: its argument; empty if there is none.
    :param card: what a share would send; None where it would be a plain link.
    """

    errmsg: str | None
    config: dict[str, Any]
    card: Card | None


def config_of(response: Response) -> dict[str, Any]:
    """The argument of ``wx.config``: of a page's call, or the JSON that the response is."""
    if response.is_json:
        found = response.get_json()
        return found if isinstance(found, dict) else {}
    return _argument(response.get_data(as_text=True), "config")


def card_of(response: Response) -> Card | None:
    """The card that a page sets; None if it sets none."""
    text = "" if response.is_json else response.get_data(as_text=True)
    card = Card(_argument(text, *_FRIEND), _argument(text, *_MOMENTS))
    return card if card.friend or card.moments else None


def _argument(text: str, *names: str) -> dict[str, Any]:
    """The literal that the first of these calls of ``wx`` has; empty if none has one."""
    found = re.search(rf"\bwx\.(?:{'|'.join(names)})\((?=\{{\s*\")", text)
    if found is None:
        return {}
    try:
        value: dict[str, Any] = json.JSONDecoder().raw_decode(text, found.end())[0]
    except ValueError:  # an expression of the page's own
        return {}
    return value
