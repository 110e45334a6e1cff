"""The two platforms, and all in which they differ: nobody else compares their names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ._credential import AGENT_TICKET, CARD_TICKET, JSAPI_TICKET

#: The words of TOKEN_ENDPOINT.
TOKEN_ENDPOINTS: Final = ("stable_token", "token")


@dataclass(frozen=True)
class Form:
    """What an id or a secret looks like.

    :param name: what its console calls it.
    :param pattern: a regular expression for the whole of it.
    :param words: the same for a person.
    """

    name: str
    pattern: str
    words: str

    def fits(self, text: str) -> bool:
        return re.fullmatch(self.pattern, text, re.ASCII) is not None


@dataclass(frozen=True)
class TokenCall:
    """How an access token is asked for.

    :param app_id: the name that the id has in the query or, with POST, in the JSON body.
    :param app_secret: likewise.
    :param more: what else is sent.
    :param ends_others: a call ends the token that everybody else has.
    """

    method: str
    path: str
    app_id: str
    app_secret: str
    more: Mapping[str, object] = field(default_factory=dict)
    ends_others: bool = False


@dataclass(frozen=True)
class TicketCall:
    """How a kind of ticket is asked for: by GET, with an access token.

    :param params: what the query has beside the token.
    :param of_agent: only an account with AGENT_ID has it.
    :param of_corp: the applications of a corp have one between them.
    """

    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    of_agent: bool = False
    of_corp: bool = False


@dataclass(frozen=True, eq=False)
class Platform:
    """WeChat's official accounts, or WeCom.

    :param name: the word of PLATFORM.
    :param title: what a person calls it.
    :param api_url: scheme and host of its API.
    :param console: where a person finds them, and the whitelist.
    :param token_calls: by the words of TOKEN_ENDPOINT.
    :param ticket_calls: by kind of ticket.
    :param quota_path: where it tells what is left of a quota, if it does.
    :param has_agents: an id has several applications, each with a secret and an AGENT_ID.
    :param is_beta: ``wx.config`` needs ``beta: true``, or what goes through ``wx.invoke`` fails.
    :param agent_sdk_url: what adds ``wx.agentConfig`` to the JS-SDK.
    :param share_calls: what sets the card for friends and the one for Moments.
    :param phone: the sandbox's phone that has it.
    """

    name: str
    title: str
    api_url: str
    id_form: Form
    secret_form: Form
    console: str
    token_calls: Mapping[str, TokenCall]
    ticket_calls: Mapping[str, TicketCall]
    quota_path: str | None
    has_agents: bool
    is_beta: bool
    agent_sdk_url: str | None
    share_calls: tuple[str, str]
    phone: str

    def __str__(self) -> str:
        return self.name

    def ticket_kinds(self, agent_id: str | None) -> tuple[str, ...]:
        """The kinds of ticket that an account has, with AGENT_ID or without."""
        calls = self.ticket_calls.items()
        return tuple(kind for kind, call in calls if agent_id is not None or not call.of_agent)

    @property
    def kinds_of_corp(self) -> tuple[str, ...]:
        """The kinds of ticket that the applications of one corp have between them."""
        return tuple(kind for kind, call in self.ticket_calls.items() if call.of_corp)


_LOGIN: Final = {"grant_type": "client_credential"}

#: An official account (公众号).
OFFIACCOUNT: Final = Platform(
    name="offiaccount",
    title="WeChat",
    api_url="https://api.weixin.qq.com",
    id_form=Form("AppID", "wx[0-9a-f]{16}", "wx and 16 hex digits"),
    secret_form=Form("AppSecret", "[0-9a-f]{32}", "32 hex digits"),
    console="微信开发者平台 (developers.weixin.qq.com/platform)",
    token_calls={
        "stable_token": TokenCall(
            "POST", "/cgi-bin/stable_token", "appid", "secret", {**_LOGIN, "force_refresh": False}
        ),
        "token": TokenCall("GET", "/cgi-bin/token", "appid", "secret", _LOGIN, ends_others=True),
    },
    ticket_calls={
        JSAPI_TICKET: TicketCall("/cgi-bin/ticket/getticket", {"type": "jsapi"}),
        CARD_TICKET: TicketCall("/cgi-bin/ticket/getticket", {"type": "wx_card"}),
    },
    quota_path="/cgi-bin/openapi/quota/get",
    has_agents=False,
    is_beta=False,
    agent_sdk_url=None,
    share_calls=("updateAppMessageShareData", "updateTimelineShareData"),
    phone="wechat",
)

#: An application (应用) of a corp at WeCom (企业微信).
WECOM: Final = Platform(
    name="wecom",
    title="WeCom",
    api_url="https://qyapi.weixin.qq.com",
    # ww since 2017; older corps have wx.
    id_form=Form("corp id (企业ID)", "w[a-z][0-9a-f]{16}", "ww and 16 hex digits"),
    secret_form=Form("application's Secret", "[A-Za-z0-9_-]{43}", "43 letters, digits, - and _"),
    console="WeCom's console (work.weixin.qq.com)",
    token_calls=dict.fromkeys(
        TOKEN_ENDPOINTS, TokenCall("GET", "/cgi-bin/gettoken", "corpid", "corpsecret")
    ),
    ticket_calls={
        JSAPI_TICKET: TicketCall("/cgi-bin/get_jsapi_ticket", of_corp=True),
        AGENT_TICKET: TicketCall("/cgi-bin/ticket/get", {"type": "agent_config"}, of_agent=True),
    },
    quota_path=None,
    has_agents=True,
    is_beta=True,
    agent_sdk_url="https://open.work.weixin.qq.com/wwopen/js/jwxwork-1.0.0.js",
    # The newer two are for pages that WeCom's users pass on to WeChat.
    share_calls=("onMenuShareAppMessage", "onMenuShareTimeline"),
    phone="wecom",
)

#: By the words of PLATFORM.
PLATFORMS: Final = {platform.name: platform for platform in (OFFIACCOUNT, WECOM)}
