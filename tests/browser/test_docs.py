"""The documentation on a phone."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_no_page_of_the_docs_is_wider_than_a_phone(chromium: Browser, built: Path) -> None:
    """What is too wide, such as a table, is scrolled by itself."""
    page = chromium.new_page(viewport={"width": 390, "height": 844})
    for path in built.rglob("*.html"):
        page.goto(path.as_uri(), wait_until="domcontentloaded")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
    page.close()
