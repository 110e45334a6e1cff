"""examples/wecom as a visitor uses it, with npm's @wecom/jssdk in place of the CDN's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from examples.wecom.app import create_app

from .conftest import Phone

pytestmark = pytest.mark.browser

JSSDK = r"https://wwcdn\.weixin\.qq\.com/node/open/js/wecom-jssdk-[\d.]+\.js"
JWXWORK = r"https://open\.work\.weixin\.qq\.com/wwopen/js/jwxwork-1\.0\.0\.js"
#: Stands in for the script that adds ``wx.agentConfig``, which npm does not have; this is what
#: WeCom's documentation says of it, and what reaches the client.
AGENT_CONFIG = """
wx.agentConfig = ({ success, fail, ...agent }) =>
  WeixinJSBridge.invoke("agentConfig", agent, (answer) => {
    const told = answer.errMsg === "agentConfig:ok" ? success : fail;
    if (told) told(answer);
  });
"""


@pytest.mark.parametrize("path", ["/?from=chat|'&中", "/old?from=chat|'&中#hash"])
def test_both_verdicts_are_ok(
    serve: Callable[..., str], open_phone: Callable[..., Phone], modules: Path, path: str
) -> None:
    """On either page, which says so itself, and in the phone's card."""
    jssdk = modules / "@wecom" / "jssdk" / "dist" / "wecom.global.prod.js"
    phone = open_phone(None)
    phone.served |= {JSSDK: jssdk.read_text(encoding="utf-8"), JWXWORK: AGENT_CONFIG}
    page = phone.page
    page.goto(serve(create_app({"TESTING": True})) + path)
    page.locator("#config", has_text="config:ok").wait_for()
    page.locator("#agent-config", has_text="agentConfig:ok").wait_for()
    card = page.locator("wx-sandbox-phone")
    card.get_by_text("config:ok", exact=True).wait_for()
    card.get_by_text("agentConfig:ok", exact=True).wait_for()
    assert (phone.errors, phone.blocked) == ([], [])


@pytest.mark.parametrize("lost", ["wx", "wx.agentConfig"])
def test_the_page_says_which_script_is_missing(
    serve: Callable[..., str], open_phone: Callable[..., Phone], lost: str
) -> None:
    """A browser that cannot load one of the two scripts gets a page all the same."""
    phone = open_phone(None)
    phone.served[JWXWORK] = None
    if lost == "wx":
        phone.served = dict.fromkeys(phone.served)
    page = phone.page
    page.goto(serve(create_app({"TESTING": True})) + "/old")
    shown = "wx is missing" if lost == "wx" else "config:ok"
    page.locator("#config", has_text=shown).wait_for()
    page.locator("#agent-config", has_text="wx.agentConfig is missing").wait_for()
    assert (phone.errors, phone.blocked) == ([], [])
