"""examples/spa as a visitor uses it: three routes and back, on both phones and on a desktop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from examples.spa import create_app

from .conftest import ANDROID, IPHONE, Phone

pytestmark = pytest.mark.browser

CDN = r"https://cdn\.jsdelivr\.net/npm/{name}@[\d.]+/dist/{file}"


@pytest.mark.parametrize(
    ("kind", "user_agent"),
    [
        pytest.param(kind, agent, id=f"{kind}-{name}", marks=[] if is_fast else pytest.mark.slow)
        for kind, name, agent, is_fast in [
            ("plain", "desktop", None, True),
            ("vue", "ios", IPHONE, True),
            ("plain", "ios", IPHONE, False),
            ("plain", "android", ANDROID, False),
            ("vue", "android", ANDROID, False),
            ("vue", "desktop", None, False),
        ]
    ],
)
def test_every_route_is_signed(
    serve: Callable[..., str],
    open_phone: Callable[..., Phone],
    modules: Path,
    kind: str,
    user_agent: str | None,
) -> None:
    """Landing, three links, back; the share card is the shown page's."""
    app = create_app({"TESTING": True})
    phone = open_phone(user_agent)
    for name, file in (("vue", "vue.global.prod.js"), ("vue-router", "vue-router.global.prod.js")):
        pattern = CDN.format(name=name, file=file.replace(".", r"\."))
        phone.served[pattern] = (modules / name / "dist" / file).read_text(encoding="utf-8")
    page = phone.page
    page.goto(f"{serve(app)}/{kind}/?from=timeline")
    for link, title in (
        (None, "Start"),
        ("One", "Item 1"),
        ("Two", "Item 2/3"),
        ("Start", "Start"),
    ):
        if link is not None:
            page.get_by_role("link", name=link).click()
        page.locator("#title", has_text=title).wait_for()
        page.locator("#verdict", has_text="config:ok").wait_for()
        card = page.locator("wx-sandbox-phone").get_by_text(
            "In Vue" if kind == "vue" else "A single"
        )
        card.first.wait_for(state="attached")
        assert page.title() == title
    page.go_back()
    page.locator("#title", has_text="Item 2/3").wait_for()
    page.locator("#verdict", has_text="config:ok").wait_for()
    assert (phone.errors, set(phone.blocked) - {"open.weixin.qq.com"}) == ([], set())
