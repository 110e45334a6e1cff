"""The errors this package raises, and what to do about each WeChat ``errcode``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from werkzeug.exceptions import ServiceUnavailable


class WxJsApiError(Exception):
    """The root of every error this package raises on purpose."""


class TransportError(WxJsApiError):
    """WeChat was not reached, or what answered was not WeChat.

    The text names the host and the reason, never the URL: the URL carries a token.
    """


class WeChatAPIError(WxJsApiError):
    """WeChat answered with an ``errcode``.

    :param errcode: WeChat's number; the only thing to decide on.
    :param errmsg: WeChat's text, which may change from call to call.
    :param advice: what a person should do; by default the one from :data:`REACTIONS`.
    """

    def __init__(self, errcode: int, errmsg: str, advice: str | None = None) -> None:
        self.errcode = errcode
        self.errmsg = errmsg
        self.advice = reaction(errcode).advice if advice is None else advice
        super().__init__(errcode, errmsg, self.advice)

    def __str__(self) -> str:
        return f"WeChat says {self.errcode} ({self.errmsg}). {self.advice}"


class TicketUnavailable(WxJsApiError, ServiceUnavailable):
    """There is no valid ticket at this moment; the ``__cause__`` says why.

    It is a Werkzeug ``ServiceUnavailable`` as well, so an uncaught one answers the browser
    with 503 and ``Retry-After`` and not with 500.

    :param retry_after: seconds until another try is worth while, at least 1.
    """

    retry_after: int

    def __init__(self, retry_after: int = 1, description: str | None = None) -> None:
        ServiceUnavailable.__init__(
            self,
            description or "No WeChat ticket is available at the moment.",
            retry_after=max(1, retry_after),
        )


@dataclass(frozen=True)
class Reaction:
    """What an ``errcode`` asks of a person and of the engine.

    :param advice: one or two sentences for a log, a terminal or a page.
    :param hold: seconds before the next call; 0 means the ordinary back-off.
    :param until_minute: wait for the next full minute, where a per-minute quota starts anew.
    :param of_host: it concerns the host that asked, and no other.
    """

    advice: str
    hold: float = 0
    until_minute: bool = False
    of_host: bool = False


#: How long a permanent error keeps everybody from asking again, in seconds.
PERMANENT: Final = 900.0
_HOUR: Final = 3600.0

_SECRET = (
    "Check WXJSAPI_APP_ID and WXJSAPI_APP_SECRET against the account's page in the WeChat "
    "console (a reset secret stops the old one at once), then restart."
)
_TOKEN = (
    "The access token was rejected twice. Another service probably requests tokens for this "
    "account and supersedes ours: let all of them use stable_token, or share one through "
    "WXJSAPI_ACCESS_TOKEN_PROVIDER."
)
_WHITELIST = (
    "Add the IP address in the message to the account's IP whitelist in the WeChat console; "
    "it takes effect within minutes."
)
_TRUSTED_IP = (
    "Add the IP address in the message to the application's trusted IPs (企业可信IP) in the WeCom "
    "console."
)
_ACCOUNT = "The account or its secret is frozen or restricted: see the WeChat console."
_MINUTE = "Too many calls in this minute; the next try waits for the next one."

#: errcode -> reaction. Source: WeChat's and WeCom's global error code pages.
REACTIONS: Final[dict[int, Reaction]] = {
    -1: Reaction("WeChat is busy; it is asked again by itself."),
    40001: Reaction(
        "On the token call: the secret is wrong. " + _SECRET + " On the ticket call: " + _TOKEN,
        PERMANENT,
    ),
    40002: Reaction("The grant type was refused: check WXJSAPI_TOKEN_ENDPOINT.", PERMANENT),
    40013: Reaction("WXJSAPI_APP_ID is not a valid AppID. " + _SECRET, PERMANENT),
    40014: Reaction(_TOKEN, PERMANENT),
    40091: Reaction(_SECRET, PERMANENT),
    40125: Reaction("WXJSAPI_APP_SECRET is wrong. " + _SECRET, PERMANENT),
    40164: Reaction(_WHITELIST, PERMANENT),
    40243: Reaction(_ACCOUNT, PERMANENT),
    41002: Reaction("WXJSAPI_APP_ID is missing. " + _SECRET, PERMANENT),
    41004: Reaction("WXJSAPI_APP_SECRET is missing. " + _SECRET, PERMANENT),
    42001: Reaction(_TOKEN, PERMANENT),
    45009: Reaction(
        "The quota is used up; WeChat's starts anew at 00:00 Asia/Shanghai, WeCom's within an "
        "hour. Look for another program that asks without a cache.",
        PERMANENT,
    ),
    45011: Reaction(_MINUTE, until_minute=True),
    45033: Reaction(_MINUTE, until_minute=True),
    48001: Reaction(
        "The account may not use this API: it must be verified and have the JS-SDK permission.",
        PERMANENT,
    ),
    48004: Reaction("The API is banned for this account: see the WeChat console.", PERMANENT),
    50002: Reaction(_ACCOUNT, PERMANENT),
    50003: Reaction("The application is disabled in the WeCom console.", PERMANENT),
    50004: Reaction(_ACCOUNT, PERMANENT),
    50007: Reaction(_ACCOUNT, PERMANENT),
    60020: Reaction(_TRUSTED_IP, PERMANENT),
    89503: Reaction(
        "The account's administrator must confirm this IP address in WeChat.", PERMANENT
    ),
    89506: Reaction(
        "The administrator refused this IP address; WeChat asks again after 24 hours.", _HOUR
    ),
    89507: Reaction(
        "The administrator refused this IP address; WeChat asks again after an hour.", _HOUR
    ),
}

_UNKNOWN = Reaction("Look the code up in WeChat's list of global error codes.")


def reaction(errcode: int) -> Reaction:
    """What to do about an ``errcode``; a general answer for one that is not listed.

    :param errcode: WeChat's number.
    """
    return REACTIONS.get(errcode, _UNKNOWN)
