"""The card of the sandbox's phone: what a person sees and can change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from flask_wxjsapi.sandbox import Sandbox

from .conftest import Phone
from .phone_page import CARD, CONFIGURE, Site, in_order, result, said, unfold

pytestmark = pytest.mark.browser

SHARED = f"{{ history.pushState(null, '', '?from=timeline'); {CONFIGURE} }}"
CHINESE = r"/[\u4e00-\u9fff]/.test"
CHOICES = [
    ("Late", "wxSandboxLate", ("500", "0")),
    ("Frozen", "wxSandboxFrozen", ("1", "0")),
    ("Old client", "wxSandboxOld", ("1", "0")),
    ("Plain link", "wxSandboxOpened", ("plain-link", "card")),
]


@pytest.mark.slow
def test_it_covers_little_while_all_is_well(site: Site, open_desktop: Callable[..., Phone]) -> None:
    """It unfolds by itself for a refusal, and otherwise when somebody wants it to."""
    desktop = open_desktop()
    origin = site(f"if (location.search) {SHARED} else {{ {CONFIGURE} }}")
    desktop.page.goto(origin)
    said(desktop.page)
    card = desktop.page.locator(CARD)
    body = card.locator("#body")
    assert body.is_hidden()
    unfold(desktop)
    assert body.is_visible()
    desktop.page.reload()
    said(desktop.page)
    assert body.is_visible()
    card.get_by_role("button", name="Show less").click()
    desktop.page.goto(f"{origin}/?refused")
    said(desktop.page)
    assert body.is_hidden()
    desktop.page.evaluate("sessionStorage.clear()")
    desktop.page.goto(f"{origin}/?refused")
    said(desktop.page)
    expect(body).to_be_visible()


@pytest.mark.parametrize(
    ("locale", "words"), [("en-US", "Take the URL anew"), ("zh-CN", "URL 必须动态获取")]
)
def test_it_says_why_and_what_to_do(
    site: Site, open_desktop: Callable[..., Phone], locale: str, words: str
) -> None:
    """The cause of an invalid signature is found at once, and told in the browser's language."""
    desktop = open_desktop(locale=locale)
    desktop.page.goto(site(SHARED))
    said(desktop.page)
    cause = desktop.page.locator(f"{CARD} .cause")
    expect(cause).to_contain_text(words)
    assert cause.get_attribute("data-cause") == "share"
    panel = desktop.page.locator(f"{CARD} aside")
    is_chinese = panel.evaluate(f"panel => {CHINESE}(panel.textContent)")
    assert is_chinese is (locale == "zh-CN")
    assert (panel.get_attribute("lang") or "")[:2] == locale[:2]
    assert in_order(desktop)


@pytest.mark.slow
def test_the_cause_goes_with_the_refusal(site: Site, open_desktop: Callable[..., Phone]) -> None:
    """A page that configures again and is accepted has no cause to read about."""
    desktop = open_desktop()
    desktop.page.goto(site("var config = CONFIG; wx.config({...config, signature: 'x'})"))
    cause = desktop.page.locator(f"{CARD} .cause")
    expect(cause).to_be_visible()
    desktop.page.evaluate("wx.config(config)")
    desktop.page.wait_for_selector(f"{CARD}[data-errmsg='config:ok']")
    assert cause.is_hidden()


WRONG_ACCOUNT = CONFIGURE.replace("CONFIG", "{...CONFIG, appId: 'wx-another'}")
REFUSALS = [
    (WRONG_ACCOUNT, "localhost", "config:fail", "no such AppID"),
    (CONFIGURE, "www.example.com", "config:invalid url domain", "domains do not include"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("script", "domain", "verdict", "reason"), REFUSALS)
def test_a_refusal_that_needs_no_search(
    site: Site, open_desktop: Callable[..., Phone],
    script: str, domain: str, verdict: str, reason: str,
) -> None:  # fmt: skip
    """The card says why as well, and has no signature to ask about."""
    with Sandbox(domains=[domain]).serve() as other:
        bridge = f'<script src="{other.url}/sandbox/bridge.js"></script>'
        desktop = open_desktop()
        desktop.page.goto(site(script, bridge=bridge).replace("127.0.0.1", "localhost"))
        assert said(desktop.page) == [verdict, "ready"]
    cause = desktop.page.locator(f"{CARD} .cause")
    expect(cause).to_contain_text(reason)
    expect(cause.get_by_role("link")).to_be_hidden()


@pytest.mark.slow
def test_a_thumb_can_hit_everything(site: Site, open_desktop: Callable[..., Phone]) -> None:
    """On a phone what is pressed is at least 40 px high, and wide."""
    viewport: Any = {"width": 390, "height": 844}
    desktop = open_desktop(choices={"wxSandboxCard": "open"}, viewport=viewport)
    desktop.page.goto(site())
    said(desktop.page)
    targets = desktop.page.locator(f"{CARD} :is(button, summary, footer a)").all()
    boxes = [box for target in targets if (box := target.bounding_box())]
    assert len(boxes) == 10
    assert min(min(box["width"], box["height"]) for box in boxes) >= 40


@pytest.mark.slow
def test_the_calls(site: Site, open_desktop: Callable[..., Phone], sandbox: Sandbox) -> None:
    """The last eight are there, folded away, with the way to the sandbox's own page."""
    desktop = open_desktop()
    desktop.page.goto(site(apis=["closeWindow"]))
    said(desktop.page)
    for _ in range(8):
        result(desktop.page, "wx.closeWindow({complete})")
    result(desktop.page, "wx.scanQRCode({complete})")
    unfold(desktop)
    calls = desktop.page.locator(f"{CARD} li")
    assert not calls.first.is_visible()
    desktop.page.locator(CARD).get_by_text("Calls: 10").click()
    expected = ["closeWindow → ok"] * 7 + ["scanQRCode → permission denied"]
    assert calls.all_inner_texts() == expected
    link = desktop.page.locator(CARD).get_by_role("link", name="own page")
    assert link.get_attribute("href") == f"{sandbox.url}/sandbox/"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "key", "values"), CHOICES)
def test_a_switch(
    site: Site, open_desktop: Callable[..., Phone], name: str, key: str, values: tuple[str, str]
) -> None:
    """It loads the page again as that phone, and back."""
    desktop = open_desktop()
    desktop.page.goto(site())
    said(desktop.page)
    unfold(desktop)
    button = desktop.page.locator(CARD).get_by_role("button", name=name)
    pressed = ["false", "true", "false"]
    for value, before, after in zip(values, pressed, pressed[1:], strict=False):
        assert button.get_attribute("aria-pressed") == before
        with desktop.page.expect_navigation():
            button.click()
        assert said(desktop.page) == ["ready"]
        assert button.get_attribute("aria-pressed") == after
        assert desktop.page.evaluate(f"sessionStorage.{key}") == value


@pytest.mark.slow
@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
@pytest.mark.parametrize("width", [320, 1280])
def test_nothing_wraps(
    site: Site, open_desktop: Callable[..., Phone], width: int, locale: str
) -> None:
    """The header is one line, also beside the longest verdict, and so is each row of buttons."""
    viewport: Any = {"width": width, "height": 700}
    desktop = open_desktop(choices={"wxSandboxCard": "open"}, locale=locale, viewport=viewport)
    desktop.page.goto(site(SHARED))
    said(desktop.page)
    for line in ("header > *", ".row >> nth=0 >> button", ".row >> nth=1 >> button"):
        boxes = [part.bounding_box() for part in desktop.page.locator(f"{CARD} {line}").all()]
        middles = {round(box["y"] + box["height"] / 2) for box in boxes if box}
        assert max(middles) - min(middles) <= 1
        rights = [box["x"] + box["width"] for box in boxes if box]
        assert max(rights) <= width - 12
