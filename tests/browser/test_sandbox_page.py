"""The sandbox's own page in a browser: its style and its buttons under its own policy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask
from playwright.sync_api import expect

from flask_wxjsapi.sandbox import Sandbox

from .conftest import Phone

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_and_its_buttons_work(
    sandbox: Sandbox, open_phone: Callable[..., Phone], width: int
) -> None:
    """Without a script, and with nothing that the policy refuses."""
    browser = open_phone(
        None, viewport={"width": width, "height": 800}, java_script_enabled=False, locale="zh-CN"
    )
    page = browser.page
    page.goto(f"{sandbox.url}/sandbox/")
    expect(page.locator("h1")).to_have_text("微信沙箱")
    page.fill("[name=times]", "3")
    page.click("button[value='45009']")
    expect(page.locator("#trouble .list")).to_contain_text("45009")
    page.click("button[value=heal]")
    expect(page.locator("#trouble .list")).not_to_contain_text("45009")
    page.click("nav [hreflang=en]")
    expect(page.locator("h1")).to_have_text("WeChat sandbox")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert not browser.console


def test_another_sites_form_presses_nothing(
    sandbox: Sandbox, open_phone: Callable[..., Phone], serve: Callable[..., str]
) -> None:
    """A browser says whose form it is."""
    app = Flask("elsewhere")
    form = (
        f'<form method="post" action="{sandbox.url}/sandbox/press">'
        '<button name="fault" value="45009">Win</button></form>'
    )
    app.add_url_rule("/", "page", lambda: form)
    page = open_phone(None).page
    page.goto(serve(app))
    with page.expect_response(f"{sandbox.url}/sandbox/press") as answer:
        page.click("button")
    assert answer.value.status == 403
