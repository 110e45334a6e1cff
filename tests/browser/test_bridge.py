"""The phone that the sandbox puts into an ordinary browser, with the real jweixin on top."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Response

from flask_wxjsapi.sandbox import Sandbox

from .conftest import ANDROID, IPHONE, Phone
from .phone_page import CARD, CONFIGURE, JWEIXIN_URL, LISTEN, Site, in_order, result, said, unfold

pytestmark = pytest.mark.browser

MODES = ("android", "ios")
SHARE_APIS = ["updateAppMessageShareData", "updateTimelineShareData"]
SHARE = (
    "wx.ready(() => { wx.updateAppMessageShareData(SHARE); wx.updateTimelineShareData(SHARE); })"
)

# -- the verdict


@pytest.mark.parametrize(
    ("mode", "path"), [("android", "/?x=%E4%B8%AD|'"), ("ios", "/a%2Fb?from=timeline#hash")]
)
def test_a_signed_page_is_ok(
    site: Site, open_desktop: Callable[..., Phone], mode: str, path: str
) -> None:
    """The real jweixin gets config:ok in a desktop browser, and a hash does not matter."""
    desktop = open_desktop(mode)
    desktop.page.goto(site() + path)
    assert said(desktop.page) == ["ready"]
    card = desktop.page.locator(CARD)
    assert card.get_attribute("data-errmsg") == "config:ok"
    assert card.get_by_role("status").inner_text() == "config:ok"
    assert card.locator("code").inner_text() == desktop.page.url.partition("#")[0]
    assert in_order(desktop)


def test_a_wrong_signature(site: Site, open_desktop: Callable[..., Phone]) -> None:
    """wx.error says what WeChat would say, before wx.ready, and the card leads to the cause."""
    desktop = open_desktop()
    desktop.page.goto(site("history.pushState(null, '', '?from=timeline');" + CONFIGURE))
    assert said(desktop.page) == ["config:invalid signature", "ready"]
    card = desktop.page.locator(CARD)
    assert card.get_attribute("data-errmsg") == "config:invalid signature"
    assert card.get_by_role("status").get_attribute("data-verdict") == "bad"
    with desktop.context.expect_page() as opened:
        card.get_by_role("link", name="Why?").click()
    assert opened.value.locator("output").get_attribute("data-cause") == "share"
    assert in_order(desktop)


@pytest.mark.slow
def test_a_config_without_values(site: Site, open_desktop: Callable[..., Phone]) -> None:
    """An object that is no config is a failure and not an exception."""
    desktop = open_desktop()
    desktop.page.goto(site(f"wx.config({{jsApiList: 'scanQRCode'}}); {LISTEN}"))
    assert said(desktop.page) == ["config:fail", "ready"]
    assert in_order(desktop)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "compared", "other"),
    [("ios", "landing", "current"), ("android", "current", "landing")],
)
def test_a_single_page_application(
    site: Site, open_desktop: Callable[..., Phone], mode: str, compared: str, other: str
) -> None:
    """After pushState an iPhone compares the landing URL and Android the current one."""
    desktop = open_desktop(mode)
    origin = site(
        "history.pushState(null, '', '/current?a=1#b'); async function go(path) {"
        "const url = encodeURIComponent(`${location.origin}/${path}?a=1`);"
        f"wx.config(await (await fetch('/signed?url=' + url)).json()); {LISTEN} }}"
    )
    desktop.page.goto(f"{origin}/landing?a=1#b")
    desktop.page.evaluate(f"go('{compared}')")
    assert said(desktop.page) == ["ready"]
    assert desktop.page.locator(f"{CARD} code").inner_text() == f"{origin}/{compared}?a=1"
    desktop.page.evaluate(f"go('{other}')")
    desktop.page.wait_for_selector(f"{CARD}[data-errmsg='config:invalid signature']")


@pytest.mark.slow
def test_the_landing_url_is_behind_a_redirect(
    make_app: Callable[..., Any], site: Site, open_desktop: Callable[..., Phone], serve: Any
) -> None:
    """A redirect ends where the page is, and so does an iPhone."""
    origin = site()
    elsewhere, _ = make_app()
    elsewhere.add_url_rule(
        "/", view_func=lambda: Response(status=302, headers={"Location": f"{origin}/there?x=1"})
    )
    desktop = open_desktop("ios")
    desktop.page.goto(serve(elsewhere))
    assert said(desktop.page) == ["ready"]


@pytest.mark.slow
def test_a_page_elsewhere(site: Site, open_desktop: Callable[..., Phone], sandbox: Sandbox) -> None:
    """A domain that the account does not list is refused with the text of its own."""
    sandbox.add_account("wx-narrow", "secret", domains=["shop.example"])
    desktop = open_desktop()
    desktop.page.goto(site(WXJSAPI_APP_ID="wx-narrow", WXJSAPI_APP_SECRET="secret"))
    assert said(desktop.page) == ["config:invalid url domain", "ready"]


def test_the_sandbox_is_gone(
    site: Site, open_desktop: Callable[..., Phone], sandbox: Sandbox
) -> None:
    """The page gets config:fail, and the console says what to look at."""
    desktop = open_desktop()
    desktop.page.goto(site(f"function go() {{ {CONFIGURE} }}"))
    url = sandbox.url
    sandbox.close()
    desktop.page.evaluate("go()")
    assert said(desktop.page) == ["config:fail", "ready"]
    assert any(f"{url} gave no verdict" in line for line in desktop.console)
    assert "gave no verdict" in desktop.page.locator(f"{CARD} .cause").inner_text()
    assert in_order(desktop)


@pytest.mark.slow
def test_the_last_verdict_counts(site: Site, open_desktop: Callable[..., Phone]) -> None:
    """Each wx.config is judged anew, and takes back what the one before had allowed."""
    desktop = open_desktop()
    desktop.page.goto(site(f"var config = CONFIG; wx.config(config); {LISTEN}"))
    assert said(desktop.page) == ["ready"]
    card = desktop.page.locator(CARD)
    desktop.page.evaluate("wx.config({...config, signature: 'x'})")
    desktop.page.wait_for_selector(f"{CARD}[data-errmsg='config:invalid signature']")
    scan = "wx.scanQRCode({complete})"
    assert result(desktop.page, scan)["errMsg"] == "scanQRCode:permission denied"
    desktop.page.evaluate("wx.config(config)")
    desktop.page.wait_for_selector(f"{CARD}[data-errmsg='config:ok']")
    assert result(desktop.page, scan)["errMsg"] == "scanQRCode:fail"
    assert card.get_by_role("status").inner_text() == "config:ok"


# -- the other calls


def test_permissions(site: Site, open_desktop: Callable[..., Phone]) -> None:
    """What is not in the jsApiList is denied, by the name that jweixin passes on."""
    desktop = open_desktop()
    desktop.page.goto(site(apis=["previewImage", "closeWindow", "getNetworkType"]))
    said(desktop.page)

    def message(call: str) -> str:
        return str(result(desktop.page, f"wx.{call}")["errMsg"])

    assert message("scanQRCode({complete})") == "scanQRCode:permission denied"
    assert message("getLocation({complete})") == "getLocation:permission denied"
    assert message("previewImage({complete, urls: []})") == "previewImage:fail"
    assert message("closeWindow({complete})") == "closeWindow:ok"
    assert message("hideOptionMenu({complete})") == "hideOptionMenu:permission denied"
    assert message("updateTimelineShareData({complete})").endswith(":permission denied")
    network = result(desktop.page, "wx.getNetworkType({complete})")
    assert network == {"errMsg": "getNetworkType:ok", "networkType": "wifi"}
    assert any("does not play imagePreview" in line for line in desktop.console)
    assert any("permission denied" in line for line in desktop.console)
    assert in_order(desktop)


@pytest.mark.slow
def test_nothing_is_allowed_before_config(site: Site, open_desktop: Callable[..., Phone]) -> None:
    """A page that calls the bridge itself is no better off."""
    desktop = open_desktop()
    desktop.page.goto(site(""))
    answer = result(desktop.page, "WeixinJSBridge.invoke('closeWindow', {}, complete)")
    assert answer == {"err_msg": "closeWindow:permission denied"}
    order = "new Promise(done => { WeixinJSBridge.invoke('x', {}, () => done(late)); late = true })"
    assert desktop.page.evaluate(f"late = false, {order}") is True  # answers come after invoke()
    desktop.page.evaluate("WeixinJSBridge.call('closeWindow')")
    desktop.page.evaluate("WeixinJSBridge.invoke('toString')")
    card = desktop.page.locator(CARD)
    assert card.get_attribute("data-errmsg") is None
    assert "wx.config not called yet" in card.get_by_role("status").inner_text()


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_check_js_api(site: Site, open_desktop: Callable[..., Phone], mode: str) -> None:
    """jweixin wants a string from Android and an object from an iPhone."""
    desktop = open_desktop(mode)
    desktop.page.goto(site(apis=["chooseWXPay"]))
    said(desktop.page)
    call = "wx.checkJsApi({jsApiList: ['chooseWXPay', 'openAddress'], complete})"
    answer = result(desktop.page, call)
    assert answer["checkResult"] == {"chooseWXPay": True, "openAddress": False}
    assert in_order(desktop)


# -- the card


def test_the_share_card(
    site: Site, open_desktop: Callable[..., Phone], serve: Callable[..., str]
) -> None:
    """It shows what friends and Moments would get, and warns of nothing."""
    desktop = open_desktop()
    picture = f"{serve(_picture)}/picture.svg"
    desktop.page.goto(
        site(
            CONFIGURE + SHARE.replace("SHARE)", "{...SHARE, link: location.href})"),
            apis=SHARE_APIS,
            share={"title": "A <b>title", "desc": "About it", "imgUrl": picture},
        )
    )
    said(desktop.page)
    friend, moments = desktop.page.locator(f"{CARD} section").all()
    assert friend.locator("b").inner_text() == "A <b>title"
    assert friend.locator(".share p").inner_text() == "About it"
    assert friend.locator("a").get_attribute("href") == desktop.page.url
    assert friend.locator("img").get_attribute("src") == picture
    assert "For Moments" in moments.inner_text()
    assert moments.locator(".share p").count() == 0
    assert moments.locator("b").inner_text() == "A <b>title"
    assert desktop.page.locator(f"{CARD} section .warning").count() == 0
    assert in_order(desktop)


def _picture(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "image/svg+xml")])
    return [b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>']


WRONG = (
    (
        {"link": "https://elsewhere.test/a", "imgUrl": "/share.png"},
        ["link leads to elsewhere.test", "imgUrl is no full"],
    ),
    (
        {"link": "javascript:alert(1)", "imgUrl": "data:image/png,x"},
        ["link is no full", "imgUrl is no full"],
    ),
    ({"link": ["https://a.test/"]}, ["link is no full", "imgUrl is no full"]),
)


@pytest.mark.slow
def test_warnings(site: Site, open_desktop: Callable[..., Phone]) -> None:
    """The card says what WeChat would not take, and follows and loads no such address."""
    desktop = open_desktop()
    desktop.page.goto(site(apis=SHARE_APIS))
    said(desktop.page)
    for share, warnings in WRONG:
        result(desktop.page, f"wx.updateTimelineShareData({{...{json.dumps(share)}, complete}})")
        card = desktop.page.locator(f"{CARD} section")
        found = card.locator(".warning").all_inner_texts()
        assert len(found) == len(warnings)
        assert all(part in text for part, text in zip(warnings, found, strict=True))
        assert card.locator("img").count() == 0
        assert card.locator("a").count() == int(share["link"] == "https://elsewhere.test/a")
    assert in_order(desktop)


HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "</style><svg onload=alert(1)>",
    "{{7*7}}${alert(1)}",
)


def test_a_hostile_card(site: Site, open_desktop: Callable[..., Phone]) -> None:
    """A page's texts are text wherever they are shown."""
    desktop = open_desktop()
    dialogs: list[str] = []
    desktop.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    desktop.page.goto(site(CONFIGURE, apis=SHARE_APIS))
    said(desktop.page)
    for text in HOSTILE:
        share: dict[str, Any] = {"title": text, "desc": text, "link": text, "imgUrl": text}
        call = f"wx.updateAppMessageShareData({{...{json.dumps(share)}, complete}})"
        assert result(desktop.page, call)["errMsg"] == "updateAppMessageShareData:ok"
        assert desktop.page.locator(f"{CARD} section b").inner_text() == text
        assert desktop.page.locator(f"{CARD} .share p").inner_text() == text
        assert desktop.page.locator(f"{CARD} .link").inner_text() == text
    assert desktop.page.locator(f"{CARD} :is(img, script, svg, section a)").count() == 0
    assert dialogs == []
    assert in_order(desktop)


@pytest.mark.slow
def test_the_old_way_to_share(site: Site, open_desktop: Callable[..., Phone]) -> None:
    """A button of the card asks the page for its card, as the phone's menu does."""
    desktop = open_desktop()
    old = "onMenuShareAppMessage"
    desktop.page.goto(
        site(
            f"{CONFIGURE} wx.ready(() => wx.{old}({{title: 'Old', desc: 'way', link: location.href,"
            "imgUrl: 'x', success: () => said.push('shared')}));",
            apis=[old],
        )
    )
    said(desktop.page)
    unfold(desktop)
    desktop.page.locator(CARD).get_by_role("button", name="Share with a friend").click()
    desktop.page.wait_for_function("said.includes('shared')")
    assert desktop.page.locator(f"{CARD} section b").inner_text() == "Old"
    assert in_order(desktop)


@pytest.mark.slow
def test_the_mode_is_switched_in_the_card(site: Site, open_desktop: Callable[..., Phone]) -> None:
    """The page is loaded again as the other phone, which the tab remembers."""
    desktop = open_desktop()
    desktop.page.goto(site())
    said(desktop.page)
    assert "Android" in desktop.page.evaluate("navigator.userAgent")
    unfold(desktop)
    button = desktop.page.locator(CARD).get_by_role("button", name="iOS")
    assert button.get_attribute("aria-pressed") == "false"
    with desktop.page.expect_navigation():
        button.click()
    assert said(desktop.page) == ["ready"]
    assert "iPhone" in desktop.page.evaluate("navigator.userAgent")
    assert button.get_attribute("aria-pressed") == "true"


@pytest.mark.slow
@pytest.mark.parametrize(("agent", "mode"), [(ANDROID, "Android"), (IPHONE, "iOS")])
def test_a_phone_stays_what_it_is(
    site: Site, open_phone: Callable[..., Phone], agent: str, mode: str
) -> None:
    """Where the browser says that it is WeChat, its word is taken."""
    phone = open_phone(agent, viewport={"width": 320, "height": 640})
    phone.page.goto(site())
    assert said(phone.page) == ["ready"]
    assert phone.page.evaluate("navigator.userAgent") == agent
    unfold(phone)
    button = phone.page.locator(CARD).get_by_role("button", name=mode)
    assert button.get_attribute("aria-pressed") == "true"
    assert button.is_disabled()
    box = phone.page.locator(f"{CARD} aside").bounding_box()
    assert box
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 320
    assert box["y"] >= 0


def test_jweixin_cannot_be_loaded(site: Site, open_desktop: Callable[..., Phone]) -> None:
    """The card names the hosts that did not answer, on a narrow screen as well."""
    desktop = open_desktop(viewport={"width": 390, "height": 700})
    desktop.served = {r"https://res2?\.wx\.qq\.com/.*": None}
    spare = f'<script src="{JWEIXIN_URL.replace("res.", "res2.")}"></script>'
    desktop.page.goto(site("", before="", jweixin=f'<script src="{JWEIXIN_URL}"></script>{spare}'))
    note = desktop.page.locator(f"{CARD} .warning")
    note.wait_for()
    assert "could not be loaded from res.wx.qq.com, res2.wx.qq.com: no inter" in note.inner_text()
    assert desktop.page.locator(CARD).get_attribute("data-errmsg") is None


@pytest.mark.slow
def test_jweixin_comes_late(site: Site, open_desktop: Callable[..., Phone]) -> None:
    """A script that is added after the page was loaded may fail as well, or come from a spare."""
    desktop = open_desktop()
    desktop.served = {JWEIXIN_URL: None, **desktop.served}
    desktop.page.goto(
        site(
            "function add(src) { const s = document.createElement('script'); s.src = src;"
            f"s.onload = () => {{ {CONFIGURE} }}; document.body.append(s) }}",
            jweixin="",
        ),
        wait_until="load",
    )
    note = desktop.page.locator(f"{CARD} .warning")
    assert not note.is_visible()
    desktop.page.evaluate(f"add('{JWEIXIN_URL}')")
    note.wait_for()
    desktop.page.evaluate(f"add('{JWEIXIN_URL.replace('res.', 'res2.')}')")
    assert said(desktop.page) == ["ready"]
    assert not note.is_visible()


# -- ways to include it


def test_a_strict_policy(site: Site, open_desktop: Callable[..., Phone], sandbox: Sandbox) -> None:
    """A Content-Security-Policy needs to allow the sandbox's address and nothing more."""
    policy = f"default-src 'none'; script-src 'nonce-n'; connect-src {sandbox.url}"
    headers = {
        "Content-Security-Policy": f"{policy}; require-trusted-types-for 'script'",
        "Cross-Origin-Embedder-Policy": "require-corp",
    }
    desktop = open_desktop()
    crossorigin = f'<script nonce="n" crossorigin src="{JWEIXIN_URL}"></script>'
    desktop.page.goto(site(headers=headers, jweixin=crossorigin))
    assert said(desktop.page) == ["ready"]
    card = desktop.page.locator(CARD)
    assert card.evaluate("card => getComputedStyle(card).position") == "fixed"
    assert not [line for line in desktop.console if "Content" in line and "favicon" not in line]
    assert in_order(desktop)


@pytest.mark.slow
def test_a_policy_without_the_sandbox(site: Site, open_desktop: Callable[..., Phone]) -> None:
    """The console says which directive to look at."""
    headers = {"Content-Security-Policy": "default-src 'none'; script-src 'nonce-n'"}
    desktop = open_desktop()
    desktop.page.goto(site(headers=headers))
    assert said(desktop.page) == ["config:fail", "ready"]
    assert any("allow connect-src http://127" in line for line in desktop.console)


@pytest.mark.slow
def test_a_page_without_storage(site: Site, open_desktop: Callable[..., Phone]) -> None:
    """A page that may store nothing works, and stays an Android phone."""
    desktop = open_desktop()
    desktop.page.goto(site(headers={"Content-Security-Policy": "sandbox allow-scripts"}))
    assert said(desktop.page) == ["ready"]
    unfold(desktop)
    with desktop.page.expect_console_message(lambda line: "store nothing" in line.text):
        desktop.page.locator(CARD).get_by_role("button", name="iOS").click()
    assert in_order(desktop)


@pytest.mark.slow
def test_it_may_be_included_twice(
    site: Site, open_desktop: Callable[..., Phone], sandbox: Sandbox
) -> None:
    """By its tag and in front of another script, say."""
    tag = f'<script src="{sandbox.url}/sandbox/bridge.js"></script>'
    twice = f"{tag}<script>{sandbox.bridge_script()}(() => {{ window.behind = true }})()</script>"
    desktop = open_desktop()
    desktop.page.goto(site(bridge=twice))
    assert said(desktop.page) == ["ready"]
    assert desktop.page.locator(CARD).count() == 1
    assert desktop.page.evaluate("behind") is True
    assert in_order(desktop)


@pytest.mark.slow
def test_in_a_module(site: Site, open_desktop: Callable[..., Phone], sandbox: Sandbox) -> None:
    """A module is strict, runs late and has no currentScript."""
    desktop = open_desktop()
    text = sandbox.bridge_script()
    add = (
        "const script = document.createElement('script');"
        f"script.src = '{JWEIXIN_URL}'; script.onload = () => window.go();"
        "document.head.append(script);"
    )
    module = f'<script type="module">"use strict";{text}{add}</script>'
    page = f"function go() {{ {CONFIGURE} }}"
    desktop.page.goto(site(page, bridge=module, jweixin=""))
    assert said(desktop.page) == ["ready"]
    assert desktop.page.locator(CARD).get_attribute("data-errmsg") == "config:ok"
    assert in_order(desktop)


@pytest.mark.slow
def test_the_event_of_a_ready_bridge(site: Site, open_desktop: Callable[..., Phone]) -> None:
    """WeixinJSBridgeReady comes once, also to a page that listens late in its body."""
    desktop = open_desktop()
    script = "var ready = 0; document.addEventListener('WeixinJSBridgeReady', () => ready++)"
    desktop.page.goto(site(script))
    assert desktop.page.evaluate("ready") == 1
