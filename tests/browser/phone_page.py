"""What tests of the sandbox's phone do on a page, and what its real jweixin says there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from playwright.sync_api import Page

from ..conftest import wait_until

if TYPE_CHECKING:
    from .conftest import Phone

JWEIXIN_URL = "https://res.wx.qq.com/open/js/jweixin-1.6.0.js"
CARD = "wx-sandbox-phone"
#: What a page does; CONFIG is signed for its own address, SHARE is a card.
LISTEN = "said = []; wx.error(e => said.push(e.errMsg)); wx.ready(() => said.push('ready'));"
CONFIGURE = f"wx.config(CONFIG); {LISTEN}"

Site = Callable[..., str]


def said(page: Page) -> list[str]:
    """What jweixin told the page. It fires wx.ready last and in any case."""
    done = "() => window.said && said.includes('ready') && said"
    # Asked from here: a page's policy may forbid what waits inside it.
    return list(wait_until(lambda: page.evaluate(done), what="jweixin is ready"))


def result(page: Page, call: str) -> Any:
    """What a call of jweixin's completes with; ``complete`` in it is the callback."""
    late = "setTimeout(() => reject(Error('no answer')), 60000)"
    return page.evaluate(f"new Promise((complete, reject) => {{ {late}; {call} }})")


def in_order(desktop: Phone) -> bool:
    """Nothing else was asked from the network, and no exception was left uncaught."""
    return not desktop.blocked and not desktop.errors


def unfold(phone: Phone) -> None:
    """Show all of the card, which covers little by itself."""
    phone.page.locator(CARD).get_by_role("button", name="Show more").click()
