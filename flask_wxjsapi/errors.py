"""The errors this package raises, and what to do about each WeChat ``errcode``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from click import ClickException
from werkzeug.exceptions import NotFound, ServiceUnavailable

from ._platform import OFFIACCOUNT, WECOM


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


class UnknownAccount(WxJsApiError, NotFound):
    """There is no account of this AppID: the ``account_loader`` does not know it.

    It is a Werkzeug ``NotFound`` as well, so an uncaught one answers the browser with 404.

    :param app_id: the AppID that was asked for; empty for what cannot be one.
    """

    def __init__(self, app_id: str = "") -> None:
        self.app_id = app_id
        NotFound.__init__(self, f"There is no WeChat account {app_id or 'of this AppID'}.")

    def __str__(self) -> str:
        return str(self.description)


class SetupError(ClickException, RuntimeError):
    """The extension cannot be registered like that: a setting cannot be right, for example.

    A ``RuntimeError``. Where a ``flask`` command loads the app it is one line, since it is a
    ``ClickException`` as well; with an exit status that no monitor takes for a mere warning.
    """

    exit_code = 3


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
#: WeChat's number for a quota of the day that is used up.
QUOTA_USED_UP: Final = 45009

_CONSOLE = OFFIACCOUNT.console
_SECRET = (
    f"Compare WXJSAPI_APP_ID and WXJSAPI_APP_SECRET with the account's at {_CONSOLE}: a reset "
    "stops the old secret at once. Then restart, or refresh an account that a loader brings."
)
_TOKEN = (
    "The access token was rejected twice. Another program probably fetches tokens for this account "
    "and supersedes ours: let all of them use stable_token, or share one through "
    "WXJSAPI_ACCESS_TOKEN_PROVIDER."
)
_WHITELIST = (
    "Add the IP address in the message to the account's IP whitelist, and every other address that "
    f"your servers call from: {_CONSOLE}; on a third-party platform it is the platform's list. "
    "It takes effect within ten minutes."
)
_FROZEN = f"The account is frozen or restricted: {_CONSOLE} says why."
_AUTHORISER = (
    "Have the account's administrator authorise your third-party platform (第三方平台) again, and "
    "keep the refresh token that comes with it."
)
_GATEWAY = (
    "WeChat got another request than was sent: a gateway or proxy changes method, query or body. "
    "Look at WXJSAPI_API_BASE_URL."
)
_MINUTE = "Too many calls in this minute; the next attempt waits for a new one."
#: Where WeChat says more about one answer of its own. WeCom has no rid.
RID: Final = (
    f"What WeChat knows of the rid in the message it tells for seven days: {_CONSOLE}, or the "
    "call openapi/rid/get."
)
_BUSY = (
    "WeChat is busy; the request is retried automatically. If that lasts for hours, look at the IP "
    f"whitelist. {RID}"
)

_CORP_SECRET = (
    "Compare WXJSAPI_APP_ID with the corp id (企业ID), and WXJSAPI_APP_SECRET with the "
    f"application's Secret, in {WECOM.console}: it may be another application's, or another "
    "corp's. Then restart, or refresh an account that a loader brings."
)
_CORP_TOKEN = (
    "The access token was rejected twice. It may be another application's; WeCom also ends one "
    "early, for example after a reset of the Secret. Compare WXJSAPI_APP_SECRET, and see which "
    "other programs use it."
)
_PERMISSION = f"The application may not use this API: give it the permission in {WECOM.console}."

#: errcode -> reaction. Source: WeChat's and WeCom's global error code pages.
REACTIONS: Final[dict[int, Reaction]] = {
    -1000: Reaction(_BUSY),
    -1: Reaction(_BUSY),
    40001: Reaction(
        "On the token call: the secret is wrong. " + _SECRET + " On the ticket call: " + _TOKEN,
        PERMANENT,
    ),
    40002: Reaction("The grant type was refused: check WXJSAPI_TOKEN_ENDPOINT.", PERMANENT),
    40013: Reaction("WXJSAPI_APP_ID is not a valid AppID. " + _SECRET, PERMANENT),
    40014: Reaction(_TOKEN, PERMANENT),
    40066: Reaction(
        "The address does not exist there: WXJSAPI_API_BASE_URL must be scheme and host, unless "
        "there is a gateway of yours behind its path.",
        PERMANENT,
    ),
    40091: Reaction("The Secret is wrong. " + _CORP_SECRET, PERMANENT),
    40125: Reaction("WXJSAPI_APP_SECRET is wrong. " + _SECRET, PERMANENT),
    40164: Reaction(_WHITELIST, PERMANENT, of_host=True),
    40243: Reaction(f"The AppSecret is frozen: unfreeze it at {_CONSOLE}.", PERMANENT),
    41001: Reaction(_GATEWAY, PERMANENT),
    41002: Reaction("WXJSAPI_APP_ID is missing. " + _SECRET, PERMANENT),
    41004: Reaction("WXJSAPI_APP_SECRET is missing. " + _SECRET, PERMANENT),
    42001: Reaction(_TOKEN, PERMANENT),
    42009: Reaction(
        "The suite_access_token has expired: the code behind WXJSAPI_ACCESS_TOKEN_PROVIDER must "
        "renew it.",
        PERMANENT,
    ),
    42012: Reaction(
        "The jsapi_ticket cannot be used: wx.agentConfig needs the application's own, which comes "
        "with WXJSAPI_AGENT_ID.",
        PERMANENT,
    ),
    43002: Reaction(_GATEWAY, PERMANENT),
    QUOTA_USED_UP: Reaction(
        "The quota is used up; WeChat's starts anew at 00:00 Asia/Shanghai, WeCom's within an "
        "hour. Look for another program that asks without a cache.",
        PERMANENT,
    ),
    45011: Reaction(_MINUTE, until_minute=True),
    45033: Reaction(_MINUTE, until_minute=True),
    47001: Reaction(_GATEWAY, PERMANENT),
    48001: Reaction(
        "The account may not use this API. First see whether WXJSAPI_APP_ID is that of an official "
        "account, not of a mini program or an app; then whether it is verified, and the "
        "verification has not expired.",
        PERMANENT,
    ),
    48002: Reaction(_PERMISSION, PERMANENT),
    48004: Reaction(f"The API is banned for this account: {_CONSOLE} says why.", PERMANENT),
    50002: Reaction(_FROZEN, PERMANENT),
    50003: Reaction(f"The application is disabled: enable it in {WECOM.console}.", PERMANENT),
    50004: Reaction(_FROZEN, PERMANENT),
    50007: Reaction(_FROZEN, PERMANENT),
    60020: Reaction(
        "Add the IP address in the message to the application's trusted IPs (企业可信IP), and "
        f"every other address that your servers call from: {WECOM.console}.",
        PERMANENT,
        of_host=True,
    ),
    61003: Reaction("The account has withdrawn its authorisation. " + _AUTHORISER, PERMANENT),
    61004: Reaction(_WHITELIST, PERMANENT, of_host=True),
    61007: Reaction(
        "The account has not granted your third-party platform the permission set with the JS-SDK. "
        + _AUTHORISER,
        PERMANENT,
    ),
    61023: Reaction("The refresh token of the account is not valid. " + _AUTHORISER, PERMANENT),
    61024: Reaction(
        "WXJSAPI_APP_ID is that of the third-party platform itself: it must be the authorised "
        "account's, with a token from WXJSAPI_ACCESS_TOKEN_PROVIDER.",
        PERMANENT,
    ),
    89501: Reaction(
        "A confirmation of this IP address waits for the account's administrator in WeChat.",
        PERMANENT,
        of_host=True,
    ),
    89503: Reaction(
        "The account's administrator must confirm this IP address in WeChat.",
        PERMANENT,
        of_host=True,
    ),
    89506: Reaction(
        "The administrator refused this IP address; WeChat asks again after 24 hours.",
        _HOUR,
        of_host=True,
    ),
    89507: Reaction(
        "The administrator refused this IP address; WeChat asks again after an hour.",
        _HOUR,
        of_host=True,
    ),
    301002: Reaction(
        "The application is not the one that the Secret is for: WXJSAPI_AGENT_ID and "
        "WXJSAPI_APP_SECRET must be of the same one.",
        PERMANENT,
    ),
}

#: What is different in WeCom: what an errcode means there, or where a person mends it. What the
#: engine does about it is the same.
ADVICE_IN_WECOM: Final[dict[int, str]] = {
    -1: (
        "WeCom is busy; the request is retried automatically. If that lasts for hours, look at the "
        "trusted IPs (企业可信IP) of the application."
    ),
    40001: "The Secret is wrong. " + _CORP_SECRET,
    40013: "WXJSAPI_APP_ID is not a valid corp id. " + _CORP_SECRET,
    40014: _CORP_TOKEN,
    40125: "The Secret is wrong. " + _CORP_SECRET,
    41002: "WXJSAPI_APP_ID is missing. " + _CORP_SECRET,
    41004: "WXJSAPI_APP_SECRET is missing. " + _CORP_SECRET,
    42001: _CORP_TOKEN,
    48001: _PERMISSION,
    48004: "The corp has withdrawn its authorisation: have it authorise your application again.",
    50002: "The member is not in the visible range (可见范围) of the application: widen it.",
    50004: f"The application is restricted: {WECOM.console} says why.",
}

_PROVIDED = (
    "The token of WXJSAPI_ACCESS_TOKEN_PROVIDER was rejected, and so was the next one: see that it "
    "is of this account, and that the provider fetches another when it gets the rejected one."
)
_LOGIN_OF_PROVIDER = (
    "Look at the id and the secret that the code behind WXJSAPI_ACCESS_TOKEN_PROVIDER, or the "
    "service that it asks, fetches tokens with: a reset stops the old secret at once."
)
_WHITELIST_OF_PROVIDER = (
    "Add the IP address in the message to the IP whitelist, and every other address that the token "
    "service and your servers call from. For the tokens of a third-party platform (第三方平台) it "
    f"is the platform's list, otherwise the account's: {_CONSOLE}. It takes effect within ten "
    "minutes."
)

#: What is different where the access token comes from the user's own code, on either platform:
#: there is no secret, and who fetches the token may be another host, a platform or a provider.
ADVICE_WITH_PROVIDER: Final[dict[int, str]] = {
    40001: _PROVIDED,
    40002: "The grant type was refused. " + _LOGIN_OF_PROVIDER,
    40013: (
        "There is no account with this id: compare WXJSAPI_APP_ID with the account that the code "
        "behind WXJSAPI_ACCESS_TOKEN_PROVIDER fetches tokens for."
    ),
    40014: _PROVIDED,
    40091: "The secret is wrong. " + _LOGIN_OF_PROVIDER,
    40125: "The secret is wrong. " + _LOGIN_OF_PROVIDER,
    40164: _WHITELIST_OF_PROVIDER,
    40243: (
        f"The AppSecret that the token service uses is frozen: unfreeze it at {_CONSOLE}. What a "
        "third-party platform (第三方平台) does for the account goes on without it."
    ),
    41002: "The id is missing. " + _LOGIN_OF_PROVIDER,
    41004: "The secret is missing. " + _LOGIN_OF_PROVIDER,
    42001: _PROVIDED,
    48001: (
        "The token is not good for this API. First see whether WXJSAPI_ACCESS_TOKEN_PROVIDER "
        "returns that of the account in WXJSAPI_APP_ID, and not the component_access_token or "
        "suite_access_token of who acts for it; then whether the account may use the API, and has "
        "granted it."
    ),
    60020: (
        "Add the IP address in the message to the trusted IPs (企业可信IP) of the application, or "
        "to the IP whitelist of the provider (服务商) whose application it is, and every other "
        "address that the token service and your servers call from."
    ),
    61004: _WHITELIST_OF_PROVIDER,
    301002: (
        "The application is not the one that the token is for: WXJSAPI_AGENT_ID and the token of "
        "WXJSAPI_ACCESS_TOKEN_PROVIDER must be of the same one."
    ),
}

_UNKNOWN = Reaction(f"Look the code up in the list of global error codes (全局返回码). {RID}")
_UNKNOWN_IN_WECOM = (
    "Look the code up in WeCom's list of global error codes (全局错误码): "
    "open.work.weixin.qq.com/devtool/query."
)


def reaction(
    errcode: int, platform: str = OFFIACCOUNT.name, *, with_provider: bool = False
) -> Reaction:
    """What to do about an ``errcode``; a general answer for one that is not listed.

    :param errcode: WeChat's number.
    :param platform: the word of PLATFORM; the advice depends on it, and nothing else does.
    :param with_provider: whether ACCESS_TOKEN_PROVIDER is set; likewise.
    """
    found = REACTIONS.get(errcode, _UNKNOWN)
    advice = found.advice
    if platform == WECOM.name:
        usual = _UNKNOWN_IN_WECOM if found is _UNKNOWN else advice
        advice = ADVICE_IN_WECOM.get(errcode, usual)
    if with_provider:
        advice = ADVICE_WITH_PROVIDER.get(errcode, advice)
    return replace(found, advice=advice)
