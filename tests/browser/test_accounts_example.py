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
    assert (phone.errors, phone.blocked) == ([], [])
