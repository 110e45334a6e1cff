"""What an errcode asks of a person and of the engine."""

from __future__ import annotations

import re

import pytest

from flask_wxjsapi import Credential, WeChatAPIError
from flask_wxjsapi._credential import ACCESS_TOKEN, JSAPI_TICKET
from flask_wxjsapi._platform import PLATFORMS, WECOM
from flask_wxjsapi._upstream.token_provider import TokenProvider
from flask_wxjsapi._upstream.wechat import WeChat
from flask_wxjsapi.errors import (
    ADVICE_IN_WECOM,
    ADVICE_WITH_PROVIDER,
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


def test_with_a_provider_nobody_is_told_of_stable_token() -> None:
    """The token is the provider's affair."""
    assert set(ADVICE_WITH_PROVIDER) == {40001, 40014, 42001}
    assert all("stable_token" not in advice for advice in ADVICE_WITH_PROVIDER.values())


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


@pytest.mark.parametrize("errcode", [40001, 40014, 42001, 48001])
def test_a_providers_token_has_an_advice_of_its_own(errcode: int) -> None:
    """Where a ticket call refuses it; any other refusal has the usual one."""
    with Sandbox().serve() as sandbox:
        sandbox.fail(errcode)
        wechat = WeChat(sandbox.url, sandbox.app_id, sandbox.app_secret)
        upstream = TokenProvider(wechat, lambda rejected: Credential("token", 0, 7200))
        with pytest.raises(WeChatAPIError) as caught:
            upstream.fetch(JSAPI_TICKET, parent="token", rejected=None, timeout=5)
    usual = REACTIONS[errcode].advice
    assert caught.value.errcode == errcode
    assert caught.value.advice == ADVICE_WITH_PROVIDER.get(errcode, usual)
    assert caught.value.__context__ is None
