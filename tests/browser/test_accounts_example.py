"""examples/accounts as a visitor uses it: from one account's page to the next."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from examples.accounts.app import create_app

from .conftest import Phone
from .test_wecom_example import AGENT_CONFIG, JWXWORK

pytestmark = pytest.mark.browser


def test_every_page_is_accepted(
    serve: Callable[..., str], open_phone: Callable[..., Phone]
) -> None:
    """The phone says so of each, and of both agents."""
    phone = open_phone(None)
    phone.served[JWXWORK] = AGENT_CONFIG
    page = phone.page
    page.goto(serve(create_app({"TESTING": True})))
    for link, title, has_agent in (
        ("Shop", "The shop", False),
        ("HR", "Human resources", True),
        ("CRM", "Customers", True),
        ("Default", "The default account", False),
    ):
        page.get_by_role("link", name=link).click()
        page.get_by_role("heading", name=title).wait_for()
        card = page.locator("wx-sandbox-phone")
        card.get_by_text("config:ok", exact=True).wait_for()
        if has_agent:
            card.get_by_text("agentConfig:ok", exact=True).wait_for()
            page.locator("#agent-config", has_text="agentConfig:ok").wait_for()
    assert (phone.errors, phone.blocked) == ([], [])


@pytest.mark.parametrize("path", ["/hr", "/crm"])
@pytest.mark.parametrize("lost", ["wx", "wx.agentConfig"])
def test_the_page_says_which_script_is_missing(
    serve: Callable[..., str], open_phone: Callable[..., Phone], path: str, lost: str
) -> None:
    """A browser that cannot load one of the two scripts gets a page all the same."""
    phone = open_phone(None)
    phone.served[JWXWORK] = None
    if lost == "wx":
        phone.served = dict.fromkeys(phone.served)
    page = phone.page
    page.goto(serve(create_app({"TESTING": True})) + path)
    page.locator("#agent-config", has_text=f"{lost} is missing").wait_for()
    assert (phone.errors, phone.blocked) == ([], [])


def test_the_page_shows_what_an_agent_is_refused_for(
    serve: Callable[..., str], open_phone: Callable[..., Phone]
) -> None:
    """``fail`` is shown as ``success`` is."""
    phone = open_phone(None)
    phone.served[JWXWORK] = (
        AGENT_CONFIG
        + "const right = wx.agentConfig;\n"
        + ("wx.agentConfig = (agent) => right({ ...agent, signature: '0'.repeat(40) });")
    )
    phone.page.goto(serve(create_app({"TESTING": True})) + "/hr")
    phone.page.locator("#agent-config", has_text="agentConfig:invalid signature").wait_for()
    assert phone.errors == []
