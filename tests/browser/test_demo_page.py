"""The page of ``make demo`` in an ordinary browser and in WeChat."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from flask_wxjsapi.sandbox import Sandbox

from ..test_demo import Demo
from .conftest import Phone

pytestmark = pytest.mark.browser

CARD = "wx-sandbox-phone"
#: What Python starts with: pages of a busy machine wait longer than 2 s for a ticket or a verdict.
PATIENT = """
from flask_wxjsapi import _js_api
from flask_wxjsapi._engine import reading

_js_api.SCRIPT_TIMEOUT = reading._CHECK_WAIT = 60.0
"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    directory = tmp_path_factory.mktemp("demo")
    (directory / "sitecustomize.py").write_text(PATIENT)
    path = os.pathsep.join([str(directory), os.environ.get("PYTHONPATH", "")])
    demo = Demo(directory, PYTHONPATH=path.rstrip(os.pathsep))
    yield demo.started()
    demo.stop()


def test_a_desktop_browser_shows_config_ok_and_the_card(
    demo: Demo, open_phone: Callable[..., Phone]
) -> None:
    """What the page shows is what jweixin said in it, and the card is the share's."""
    desktop = open_phone(None)
    page = desktop.page
    page.goto(f"{demo.url}/?x=a|b#hash")
    expect(page.locator("#errmsg")).to_have_text("config:ok")
    expect(page.locator("#verdict-note")).to_contain_text("Said by jweixin")
    assert page.locator(CARD).get_attribute("data-errmsg") == "config:ok"
    friend = page.locator(f"{CARD} section").first
    expect(friend.locator("b")).to_have_text("Signed by Flask-WxJsApi")
    expect(friend.locator("a")).to_have_attribute("href", f"{demo.url}/?x=a|b")
    assert friend.locator("img").evaluate("image => image.decode()") is None
    assert page.locator(f"{CARD} .warning:visible").count() == 0
    assert not desktop.blocked
    assert not desktop.errors


@pytest.mark.slow
def test_another_address_is_judged_by_the_sandbox(
    demo: Demo, open_phone: Callable[..., Phone]
) -> None:
    """An address that was not signed is invalid, and the page's own is what jweixin said."""
    page = open_phone(None).page
    page.goto(demo.url)
    expect(page.locator("#errmsg")).to_have_text("config:ok")
    page.fill("#address", f"{demo.url}/?other")
    expect(page.locator("#errmsg")).to_have_text("config:invalid signature")
    expect(page.locator("#verdict-note")).to_contain_text("not the address that was signed")
    page.click("#own-address")
    expect(page.locator("#errmsg")).to_have_text("config:ok")


def test_without_the_internet(demo: Demo, open_phone: Callable[..., Phone]) -> None:
    """The page says so, and that wx.config was not called, as the phone's card does."""
    desktop = open_phone(None)
    desktop.served = {r"https://res2?\.wx\.qq\.com/.*": None}
    page = desktop.page
    page.goto(demo.url)
    expect(page.locator("#errmsg")).to_have_text("not called")
    expect(page.locator("#verdict-note")).to_contain_text("jweixin could not be loaded")
    note = page.locator(f"{CARD} .warning")
    expect(note).to_contain_text("could not be loaded from res.wx.qq.com")
    assert not desktop.errors


def test_it_heals_in_front_of_ones_eyes(demo: Demo, open_phone: Callable[..., Phone]) -> None:
    """The ticket is replaced; the page is refused once, and has itself signed again."""
    desktop = open_phone(None)
    page = desktop.page
    page.goto(f"{demo.url}/as/wxtea00000000000")
    expect(page.locator("#errmsg")).to_have_text("config:ok")
    page.click("#break")
    expect(page.locator("#verdict-note")).to_contain_text("had itself signed again")
    expect(page.locator("#errmsg")).to_have_text("config:ok")
    assert page.locator(CARD).get_attribute("data-configs") == "2"
    assert not desktop.errors


@pytest.mark.slow
def test_it_does_not_say_that_it_healed_when_it_did_not(
    demo: Demo, open_phone: Callable[..., Phone]
) -> None:
    """A second complaint within ten minutes goes unheard, and the page stays refused."""
    page = open_phone(None, viewport={"width": 390, "height": 844}).page
    page.goto(f"{demo.url}/as/wxbooks000000000")
    expect(page.locator("#errmsg")).to_have_text("config:ok")
    page.click("#break")
    expect(page.locator("#verdict-note")).to_contain_text("had itself signed again")
    expect(page.locator("#verdict")).to_be_in_viewport()
    page.click("#break")
    expect(page.locator("#errmsg")).to_have_text("config:invalid signature")
    expect(page.locator("#verdict-note")).to_contain_text("Press “Refresh now”")


@pytest.mark.slow
def test_a_pause_that_outlasts_the_ticket(open_phone: Callable[..., Phone], tmp_path: Path) -> None:
    """No mark then promises a renewal within the ticket's life."""
    demo = Demo(tmp_path, TTL="600").started()
    try:
        page = open_phone(None).page
        page.goto(demo.url)
        expect(page.locator("#mark")).to_be_visible()
        demo.post("/trouble/quota")
        expect(page.locator("#error")).to_have_attribute("data-error", "some")
        expect(page.locator("#mark")).to_be_hidden()
        expect(page.locator("#mark-label")).to_be_hidden()
    finally:
        demo.stop()


def test_one_language_at_a_time(demo: Demo, open_phone: Callable[..., Phone]) -> None:
    """The browser's, and the other one with a button."""
    page = open_phone(None, locale="zh-CN").page
    page.goto(demo.url)
    expect(page.locator("#state")).to_have_text("有效")
    expect(page.locator("#verdict h2")).to_have_text("手机的判定")
    expect(page.locator("#calls time").first).to_contain_text("秒前")
    page.click("#language")
    expect(page.locator("#verdict h2")).to_contain_text("verdict")
    expect(page.locator("#state")).to_have_text("fresh")


@pytest.mark.slow
def test_a_page_without_a_ticket(open_phone: Callable[..., Phone], tmp_path: Path) -> None:
    """There is nothing to judge, and the page says that too."""
    demo = Demo(tmp_path, FLASK_WXJSAPI_BACKGROUND_REFRESH="false").started()
    try:
        demo.post("/trouble/quota")
        page = open_phone(None).page
        page.goto(demo.url)
        expect(page.locator("#errmsg")).to_have_text("not called")
        expect(page.locator(CARD).get_by_role("status")).to_contain_text("not called yet")
    finally:
        demo.stop()


@pytest.mark.slow
def test_a_real_account_in_an_ordinary_browser(
    open_phone: Callable[..., Phone], tmp_path: Path, sandbox: Sandbox
) -> None:
    """No phone is played there: the page asks to be opened inside WeChat."""
    demo = Demo(
        tmp_path,
        FLASK_WXJSAPI_APP_ID=sandbox.app_id,
        FLASK_WXJSAPI_APP_SECRET=sandbox.app_secret,
        FLASK_WXJSAPI_API_BASE_URL=sandbox.url,
    ).started()
    try:
        desktop = open_phone(None)
        desktop.page.goto(demo.url)
        expect(desktop.page.locator("#state")).to_contain_text("fresh")
        expect(desktop.page.locator("#hint")).to_be_visible()
        expect(desktop.page.locator("#verdict")).to_be_hidden()
        assert desktop.page.locator(CARD).count() == 0
        assert not desktop.errors
    finally:
        demo.stop()
