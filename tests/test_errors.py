"""What an errcode asks of a person and of the engine."""

from __future__ import annotations

import itertools
import re
from typing import NoReturn

import pytest

from flask_wxjsapi import WeChatAPIError
from flask_wxjsapi._credential import ACCESS_TOKEN, JSAPI_TICKET
from flask_wxjsapi._platform import PLATFORMS, WECOM, Platform
from flask_wxjsapi._upstream.token_provider import TokenProvider
from flask_wxjsapi._upstream.wechat import WeChat
from flask_wxjsapi.errors import (
    ADVICE_IN_WECOM,
    PERMANENT,
    REACTIONS,
    Reaction,
    reaction,
)
from flask_wxjsapi.sandbox import Sandbox

#: The errcodes of docs and reports, by what is done about them.
CONFIGURATION = [
    40001, 40002, 40013, 40014, 40066, 40091, 40125, 40243, 41001, 41002, 41004, 42001, 42009,
    42012, 43002, 47001, 48001, 48002, 48004, 50002, 50003, 50004, 50007, 61003, 61007, 61023,
    61024, 301002,
]  # fmt: skip
OF_HOST = [40164, 60020, 61004, 89501, 89503, 89506, 89507]


@pytest.mark.parametrize("errcode", CONFIGURATION)
def test_what_only_a_person_can_mend(errcode: int) -> None:
    """Everybody stops asking for a quarter of an hour."""
    found = REACTIONS[errcode]
    assert (found.hold, found.of_host) == (PERMANENT, False)


@pytest.mark.parametrize("errcode", OF_HOST)
def test_verdict_on_an_address(errcode: int) -> None:
    """Another host may have another address."""
    assert REACTIONS[errcode].of_host
    assert REACTIONS[errcode].hold >= PERMANENT


def test_every_errcode_is_of_a_known_kind() -> None:
    """A new one says what is done about it."""
    rest = {-1000, -1, 45009, 45011, 45033}
    assert set(REACTIONS) == {*CONFIGURATION, *OF_HOST, *rest}


@pytest.mark.parametrize("errcode", ADVICE_IN_WECOM)
def test_in_wecom_only_the_advice_differs(errcode: int) -> None:
    """What the engine does is the same, since it need not know the platform."""
    found, usual = reaction(errcode, "wecom"), REACTIONS[errcode]
    assert found.advice == ADVICE_IN_WECOM[errcode] != usual.advice
    assert Reaction(usual.advice, found.hold, found.until_minute, found.of_host) == usual


@pytest.mark.parametrize("errcode", [40001, 40014, 40125, 41002, 42001, 60020])
def test_wecom_is_not_told_of_what_it_lacks(errcode: int) -> None:
    """It has no stable_token, no AppID, and a console of its own."""
    advice = reaction(errcode, "wecom").advice
    assert not re.search("stable_token|AppID|AppSecret|微信开发者平台", advice)


#: What a code's advice speaks of, by where the token comes from: our own secret or the user's own
#: code, for an official account; the same two for WeCom. None where the code is not one of WeCom's.
ORIGINS: list[tuple[int, str, str, str | None, str | None]] = [
    (-1000, "busy", "busy", None, None),
    (-1, "busy", "busy", "busy", "busy"),
    (40001, "WXJSAPI_APP_SECRET", "PROVIDER was rejected", "corp id", "PROVIDER was rejected"),
    (40002, "WXJSAPI_TOKEN_ENDPOINT", "behind WXJSAPI_ACCESS_TOKEN_PROVIDER", None, None),
    (40013, "WXJSAPI_APP_SECRET", "compare WXJSAPI_APP_ID", "corp id", "compare WXJSAPI_APP_ID"),
    (40014, "stable_token", "PROVIDER was rejected", "early", "PROVIDER was rejected"),
    (40066, "API_BASE_URL", "API_BASE_URL", None, None),
    (40091, "corp id", "behind WXJSAPI_ACCESS", "corp id", "behind WXJSAPI_ACCESS"),
    (40125, "WXJSAPI_APP_SECRET", "behind WXJSAPI_ACCESS", "corp id", "behind WXJSAPI_ACCESS"),
    (40164, "account's IP whitelist", "the token service and your servers", None, None),
    (40243, "unfreeze", "goes on without it", None, None),
    (41001, "gateway", "gateway", "gateway", "gateway"),
    (41002, "WXJSAPI_APP_ID", "behind WXJSAPI_ACCESS", "corp id", "behind WXJSAPI_ACCESS"),
    (41004, "WXJSAPI_APP_SECRET", "behind WXJSAPI_ACCESS", "corp id", "behind WXJSAPI_ACCESS"),
    (42001, "stable_token", "PROVIDER was rejected", "early", "PROVIDER was rejected"),
    (42009, "suite_access_token", "suite_access_token", "must renew", "must renew"),
    (42012, "WXJSAPI_AGENT_ID", "WXJSAPI_AGENT_ID", "WXJSAPI_AGENT_ID", "WXJSAPI_AGENT_ID"),
    (43002, "gateway", "gateway", "gateway", "gateway"),
    (45009, "quota", "quota", "quota", "quota"),
    (45011, "minute", "minute", None, None),
    (45033, "minute", "minute", "minute", "minute"),
    (47001, "gateway", "gateway", "gateway", "gateway"),
    (48001, "verified", "component_access_token", "permission", "suite_access_token"),
    (48002, "permission", "permission", "permission", "permission"),
    (48004, "banned", "banned", "withdrawn", "withdrawn"),
    (50002, "frozen", "frozen", "可见范围", "可见范围"),
    (50003, "disabled", "disabled", "disabled", "disabled"),
    (50004, "frozen", "frozen", "restricted", "restricted"),
    (50007, "frozen", "frozen", None, None),
    (60020, "企业可信IP", "the token service and your servers", "企业可信IP", "服务商"),
    (61003, "withdrawn", "withdrawn", None, None),
    (61004, "account's IP whitelist", "the platform's list", None, None),
    (61007, "permission set", "permission set", None, None),
    (61023, "refresh token", "refresh token", None, None),
    (61024, "authorised account's", "authorised account's", None, None),
    (89501, "administrator", "administrator", None, None),
    (89503, "administrator", "administrator", None, None),
    (89506, "24 hours", "24 hours", None, None),
    (89507, "an hour", "an hour", None, None),
    (301002, "WXJSAPI_APP_SECRET", "the token of", "WXJSAPI_APP_SECRET", "the token of"),
]


def test_every_errcode_is_in_the_table_of_origins() -> None:
    """A new one says what each of the four is told."""
    assert [code for code, *_ in ORIGINS] == list(REACTIONS)


@pytest.mark.parametrize(
    ("errcode", "platform", "with_provider", "said"),
    [
        (errcode, platform, with_provider, said)
        for errcode, *told in ORIGINS
        for said, (platform, with_provider) in zip(
            told, itertools.product(PLATFORMS, (False, True)), strict=True
        )
        if said is not None
    ],
)
def test_advice_depends_on_where_the_token_comes_from(
    errcode: int, platform: str, with_provider: bool, said: str
) -> None:
    """Nobody is sent to a setting or a console that is not theirs; what the engine does is one."""
    found = reaction(errcode, platform, with_provider=with_provider)
    usual = REACTIONS[errcode]
    assert said in found.advice
    assert Reaction(usual.advice, found.hold, found.until_minute, found.of_host) == usual
    if with_provider:
        assert not re.search("APP_SECRET|TOKEN_ENDPOINT|stable_token", found.advice)
    if platform == WECOM.name:
        assert not re.search("stable_token|AppSecret|微信开发者平台", found.advice)


def test_an_unknown_errcode() -> None:
    """There is a list to look it up in."""
    for platform in PLATFORMS:
        assert "list of global error codes" in reaction(99999, platform).advice


@pytest.mark.parametrize("errcode", [40013, 42001, 99999])
def test_an_error_has_the_advice_of_its_platform(errcode: int) -> None:
    """Whoever asked knows which one answered."""
    with Sandbox().serve() as sandbox:
        sandbox.fail(errcode)
        wecom = WeChat(sandbox.url, "ww0123456789abcdef", "secret", platform=WECOM)
        with pytest.raises(WeChatAPIError) as caught:
            wecom.fetch(ACCESS_TOKEN, parent=None, rejected=None, timeout=5)
    assert caught.value.advice == reaction(errcode, "wecom").advice


@pytest.mark.parametrize("errcode", [40001, 61004, 48001, 50002, 99999])
@pytest.mark.parametrize("platform", PLATFORMS.values(), ids=str)
def test_a_refused_ticket_call_knows_the_token_is_a_providers(
    errcode: int, platform: Platform
) -> None:
    """Where there is nothing to say of that, it has the advice of its platform."""
    with Sandbox().serve() as sandbox:
        sandbox.fail(errcode)
        api = WeChat(sandbox.url, "ww0123456789abcdef", "", platform=platform, has_provider=True)
        with pytest.raises(WeChatAPIError) as caught:
            api.fetch(JSAPI_TICKET, parent="token", rejected=None, timeout=5)
    assert caught.value.errcode == errcode
    assert caught.value.advice == reaction(errcode, platform.name, with_provider=True).advice
    assert caught.value.__context__ is None


def _raised_by_a_provider(error: WeChatAPIError, platform: Platform) -> WeChatAPIError:
    def provider(rejected: str | None) -> NoReturn:
        raise error

    upstream = TokenProvider(WeChat("", "ww1", ""), provider, platform=platform)
    with pytest.raises(WeChatAPIError) as caught:
        upstream.fetch(ACCESS_TOKEN, parent=None, rejected=None, timeout=5)
    return caught.value


@pytest.mark.parametrize("errcode", [40125, 61003, 61004, 42009, 48004, 99999])
@pytest.mark.parametrize("platform", PLATFORMS.values(), ids=str)
def test_an_error_of_the_providers_gets_the_advice_for_providers(
    errcode: int, platform: Platform
) -> None:
    """Of the account's platform, and in the text of the very error that was raised."""
    raised = WeChatAPIError(errcode, "no")
    error = _raised_by_a_provider(raised, platform)
    assert error is raised
    assert error.advice == reaction(errcode, platform.name, with_provider=True).advice
    assert error.advice in str(error)


def test_an_error_of_the_providers_keeps_an_advice_of_its_own() -> None:
    """Whoever wrote it knows better."""
    error = _raised_by_a_provider(WeChatAPIError(40125, "no", "Ask in room 12."), WECOM)
    assert error.advice == "Ask in room 12."
