"""The phones that the sandbox plays, each no kinder than the real one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from flask_wxjsapi.sandbox import Sandbox

from .conftest import Phone
from .phone_page import CARD, CONFIGURE, LISTEN, Site, in_order, result, said

pytestmark = pytest.mark.browser

NEW_PAIR = ["updateAppMessageShareData", "updateTimelineShareData"]
OLD_PAIR = ["onMenuShareAppMessage", "onMenuShareTimeline"]
WINDOWS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/116.0.0.0 Safari/537.36 MicroMessenger/7.0.20.1781 WindowsWechat(0x63090a13)"
)
MAC = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "MicroMessenger/6.8.0(0x16080000) MacWechat/3.8.8"
)
WECOM_IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Mobile/15E148 wxwork/4.1.30 MicroMessenger/7.0.1"
)


def shares(phone: Phone) -> dict[str, Any]:
    """What a friend and Moments would get."""
    return dict(json.loads(phone.page.locator(CARD).get_attribute("data-shares") or "{}"))


def press(phone: Phone, name: str) -> None:
    """Press a button of the card, which may be folded."""
    phone.page.locator(CARD).get_by_role("button", name=name, include_hidden=True).evaluate(
        "button => button.click()"
    )


def tag(sandbox: Sandbox, query: str) -> str:
    return f'<script src="{sandbox.url}/sandbox/bridge.js{query}"></script>'


def share_by(apis: list[str]) -> str:
    """A page's script that shares by those calls, when the config is ok."""
    card = "{title: 'T', desc: 'D', link: location.href, imgUrl: location.origin + '/i.png'}"
    calls = " ".join(f"wx.{api}({card});" for api in apis)
    return f"{CONFIGURE} wx.ready(() => {{ {calls} }});"


# -- which one it is


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent", "name"), [(WINDOWS, "Desktop"), (MAC, "Desktop"), (WECOM_IPHONE, "iOS")]
)
def test_the_user_agent_decides(
    site: Site, open_phone: Callable[..., Phone], agent: str, name: str
) -> None:
    """Desktop WeChat and WeCom compare the current address, on an iPhone too."""
    phone = open_phone(agent)
    origin = site("history.pushState(null, '', '/current'); function go(c) { wx.config(c) }")
    phone.page.goto(f"{origin}/landing")
    button = phone.page.locator(CARD).get_by_role("button", name=name, include_hidden=True)
    assert button.get_attribute("aria-pressed") == "true"
    phone.page.evaluate("async () => go(await (await fetch('/signed?url=' + location)).json())")
    phone.page.wait_for_selector(f"{CARD}[data-errmsg='config:ok']", state="attached")
    card = phone.page.locator(CARD)
    assert card.get_attribute("data-url") == f"{origin}/current"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("query", "mode", "parts"),
    [
        ("", "desktop", ["Windows NT", "MicroMessenger", "WindowsWechat"]),
        ("?phone=wecom", "ios", ["iPhone", "wxwork", "MicroMessenger"]),
        ("?phone=wecom", "android", ["Android", "wxwork", "MicroMessenger"]),
    ],
)
def test_what_a_page_sees(
    site: Site, open_desktop: Callable[..., Phone], sandbox: Sandbox,
    query: str, mode: str, parts: list[str],
) -> None:  # fmt: skip
    """An ordinary browser has the user agent of the phone that was chosen."""
    desktop = open_desktop(mode)
    desktop.page.goto(site(bridge=tag(sandbox, query)))
    assert said(desktop.page) == ["ready"]
    agent = desktop.page.evaluate("navigator.userAgent")
    assert [part for part in parts if part not in agent] == []
    assert in_order(desktop)


# -- what is shared


def test_desktop_wechat_makes_a_card_of_the_older_pair_alone(
    site: Site, open_desktop: Callable[..., Phone]
) -> None:
    """The newer pair is answered with ok all the same, and the card says what to call."""
    desktop = open_desktop("desktop")
    desktop.page.goto(site(apis=[*NEW_PAIR, *OLD_PAIR]))
    said(desktop.page)
    new = "wx.updateAppMessageShareData({title: 'New', link: location.href, complete})"
    assert result(desktop.page, new)["errMsg"] == "updateAppMessageShareData:ok"
    link = {"kind": "link", "why": "desktop", "link": desktop.page.url}
    assert shares(desktop) == {"friend": link}
    card = desktop.page.locator(CARD)
    assert "onMenuShareAppMessage" in card.locator("section .warning").inner_text()
    desktop.page.evaluate("wx.onMenuShareAppMessage({title: 'Old', link: location.href})")
    assert shares(desktop) == {}  # until somebody asks for it
    press(desktop, "Share with a friend")
    assert shares(desktop)["friend"]["title"] == "Old"
    result(desktop.page, new)
    assert shares(desktop)["friend"]["kind"] == "card"
    assert in_order(desktop)


def test_wecom_lacks_the_newer_pair(
    site: Site, open_desktop: Callable[..., Phone], sandbox: Sandbox
) -> None:
    """It is granted to nobody there, and WeCom shares by the older pair."""
    desktop = open_desktop()
    bridge = tag(sandbox, "?phone=wecom")
    desktop.page.goto(site(share_by(OLD_PAIR), apis=[*NEW_PAIR, *OLD_PAIR], bridge=bridge))
    said(desktop.page)
    for name in NEW_PAIR:
        answer = result(desktop.page, f"wx.{name}({{title: 'New', complete}})")
        assert answer["errMsg"] == f"{name}:function not exist"
    check = f"wx.checkJsApi({{jsApiList: {[*NEW_PAIR, *OLD_PAIR]}, complete}})"
    expected = {**dict.fromkeys(NEW_PAIR, False), **dict.fromkeys(OLD_PAIR, True)}
    assert result(desktop.page, check)["checkResult"] == expected
    assert shares(desktop) == {}
    press(desktop, "Share to Moments")
    assert shares(desktop)["moments"]["title"] == "T"
    assert any("onMenuShareTimeline" in line for line in desktop.console)
    assert in_order(desktop)


@pytest.mark.parametrize("apis", [NEW_PAIR, OLD_PAIR])
def test_a_page_opened_from_a_plain_link(
    site: Site, open_desktop: Callable[..., Phone], apis: list[str]
) -> None:
    """Both pairs are answered with ok, but what arrives is a plain link; the card says why."""
    desktop = open_desktop(choices={"wxSandboxOpened": "plain-link"})
    desktop.page.goto(site(share_by(apis), apis=apis))
    assert said(desktop.page) == ["ready"]
    if apis == OLD_PAIR:
        press(desktop, "Share with a friend")
        press(desktop, "Share to Moments")
    link = {"kind": "link", "why": "plain-link", "link": desktop.page.url}
    assert shares(desktop) == {"friend": link, "moments": link}
    section = desktop.page.locator(f"{CARD} section").first
    assert "QR code" in section.locator(".warning").inner_text()
    assert section.locator(".share").count() == 0
    assert in_order(desktop)


@pytest.mark.slow
def test_the_menu_asks_only_a_page_that_may_answer(
    site: Site, open_desktop: Callable[..., Phone]
) -> None:
    """A client delivers an event only where the jsApiList of a good config has it."""
    desktop = open_desktop()
    desktop.page.goto(site(share_by(OLD_PAIR), apis=OLD_PAIR[:1]))
    said(desktop.page)
    buttons = desktop.page.locator(CARD).get_by_role("button", name="Share", include_hidden=True)
    assert buttons.count() == 1
    assert "Share with a friend" in (buttons.text_content() or "")


@pytest.mark.slow
def test_a_call_travels_as_json(site: Site, open_desktop: Callable[..., Phone]) -> None:
    """What JSON cannot hold does not reach a client, and what JavaScript cannot write raises."""
    desktop = open_desktop()
    desktop.page.goto(site(apis=NEW_PAIR))
    said(desktop.page)
    call = (
        "wx.updateAppMessageShareData({title: 'T', desc: () => 'D', link: new URL('/a', location)})"
    )
    desktop.page.evaluate(call)
    friend = shares(desktop)["friend"]
    assert (friend["desc"], friend["link"]) == ("", desktop.page.url.rstrip("/") + "/a")
    circle = (
        "var a = {}; a.a = a; try { WeixinJSBridge.invoke('x', a); 'taken' } catch { 'refused' }"
    )
    assert desktop.page.evaluate(circle) == "refused"


# -- the bridge


@pytest.mark.parametrize(
    ("query", "choices"),
    [("?late=600", {}), ("", {"wxSandboxLate": "600"})],
)
def test_a_late_bridge(
    site: Site, open_desktop: Callable[..., Phone], sandbox: Sandbox,
    query: str, choices: dict[str, str],
) -> None:  # fmt: skip
    """The page's scripts find none, and the address is compared as it is when it comes."""
    desktop = open_desktop(choices=choices)
    script = (
        "var seen = [typeof WeixinJSBridge]; document.addEventListener('WeixinJSBridgeReady',"
        " () => seen.push(typeof WeixinJSBridge)); history.replaceState(null, '', '/?b=2');"
    )
    desktop.page.goto(site(script + CONFIGURE, bridge=tag(sandbox, query)) + "/?code=1&b=2")
    assert said(desktop.page) == ["config:invalid signature", "ready"]
    assert desktop.page.evaluate("seen") == ["undefined", "object"]
    card = desktop.page.locator(CARD)
    assert card.get_attribute("data-url") == desktop.page.url
    assert in_order(desktop)


@pytest.mark.slow
def test_a_choice_comes_before_the_tag(
    site: Site, open_desktop: Callable[..., Phone], sandbox: Sandbox
) -> None:
    """0 stands for a bridge that is there at once."""
    desktop = open_desktop(choices={"wxSandboxLate": "0"})
    script = f"var seen = typeof WeixinJSBridge; {CONFIGURE}"
    desktop.page.goto(site(script, bridge=tag(sandbox, "?late=60000")))
    assert said(desktop.page) == ["ready"]
    assert desktop.page.evaluate("seen") == "object"


@pytest.mark.slow
def test_a_page_may_wait_for_the_assignment(site: Site, open_desktop: Callable[..., Phone]) -> None:
    """A late bridge is assigned, as a client does, and reaches a property of the page's own."""
    desktop = open_desktop(choices={"wxSandboxLate": "1"})
    wait = (
        "var come; Object.defineProperty(window, 'WeixinJSBridge', {configurable: true,"
        " get: () => come, set(value) { come = value }});"
    )
    desktop.page.goto(site(wait + CONFIGURE))
    assert said(desktop.page) == ["ready"]
    assert desktop.page.evaluate("typeof come.invoke") == "function"


def test_a_frozen_bridge(site: Site, open_desktop: Callable[..., Phone]) -> None:
    """A page cannot put anything in the place of its functions."""
    desktop = open_desktop(choices={"wxSandboxFrozen": "1"})
    replace = "WeixinJSBridge.invoke = () => { replaced = true };"
    desktop.page.goto(site(f"var replaced = false; {replace} {CONFIGURE}"))
    assert said(desktop.page) == ["ready"]
    assert desktop.page.evaluate("replaced") is False


@pytest.mark.slow
@pytest.mark.parametrize("name", ["call", "on"])
def test_a_touched_bridge(site: Site, open_desktop: Callable[..., Phone], name: str) -> None:
    """A page may put its own in the place of invoke; of another function it is a dead bridge."""
    desktop = open_desktop()
    wrap = "const { invoke } = WeixinJSBridge; WeixinJSBridge.invoke = (...all) => invoke(...all);"
    desktop.page.goto(site(f"{wrap} {CONFIGURE}", apis=["closeWindow"]))
    assert said(desktop.page) == ["ready"]
    touch = f"WeixinJSBridge.{name} = () => {{}}; var answered = false;"
    close = "wx.closeWindow({complete: () => { answered = true }})"
    with desktop.page.expect_console_message(lambda line: "closeWindow is ignored" in line.text):
        desktop.page.evaluate(touch + close)
    assert desktop.page.evaluate("answered") is False


@pytest.mark.parametrize(("choices", "is_told"), [({}, True), ({"wxSandboxOld": "1"}, False)])
def test_an_invalid_signature_names_the_address(
    site: Site, open_desktop: Callable[..., Phone], choices: dict[str, str], is_told: bool
) -> None:
    """A newer client tells what it compared, an older one does not."""
    desktop = open_desktop("ios", choices)
    script = (
        "history.pushState(null, '', '/next'); var told; wx.config({...CONFIG, nonceStr: 'x'});"
    )
    origin = site(f"{script} wx.error((answer) => told = answer);")
    desktop.page.goto(f"{origin}/landing?a=1#b")
    desktop.page.wait_for_function("window.told")
    told = {"errMsg": "config:invalid signature"}
    if is_told:
        told["realAuthUrl"] = f"{origin}/landing?a=1"
    assert desktop.page.evaluate("told") == told


# -- for tests


def test_what_a_test_can_read(site: Site, open_desktop: Callable[..., Phone]) -> None:
    """The element's attributes have the verdict, the address, the calls and the shares."""
    desktop = open_desktop()
    desktop.page.goto(site(f"var config = CONFIG; {LISTEN} wx.config(config)", apis=NEW_PAIR))
    said(desktop.page)
    card = desktop.page.locator(CARD)
    assert card.get_attribute("data-configs") == "1"
    assert card.get_attribute("data-url") == desktop.page.url
    assert shares(desktop) == {}
    desktop.page.evaluate("wx.config(config)")
    assert card.get_attribute("data-configs") == "2"
    given = {"title": "T", "desc": "D", "link": "https://a.test/", "imgUrl": "https://a.test/i.png"}
    result(desktop.page, f"wx.updateAppMessageShareData({{...{json.dumps(given)}, complete}})")
    assert shares(desktop) == {"friend": {"kind": "card", **given}}
