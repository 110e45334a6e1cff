"""examples/platform as its visitors use it: who looks after the accounts, and who sees a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from ..test_examples import FLOWERS, RIGHT, WRONG, Example, running
from .conftest import ANDROID, IPHONE, Phone

pytestmark = [pytest.mark.browser, pytest.mark.processes]

OpenPhone = Callable[..., Phone]
CARD = "wx-sandbox-phone"
TEA, BOOKS = "wx0000000000000001", "wx0000000000000002"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Example]:
    monkeypatch.setenv("FLASK_DATABASE", str(tmp_path / "accounts.sqlite3"))
    with running("platform", tmp_path) as example:
        example.wait()
        yield example


def fill(form: Locator, **fields: str) -> None:
    for label, text in fields.items():
        form.get_by_label(label).fill(text)
    form.get_by_role("button", name="Add").or_(form.get_by_role("button", name="Save")).click()


def expect_accepted(page: Page, title: str) -> None:
    """The phone accepts the page, and has the card that a share would make."""
    expect(page.locator(CARD)).to_have_attribute("data-errmsg", "config:ok")
    expect(page.locator(f"{CARD} section b")).to_have_text([title, title])


def test_an_account_comes_and_goes(example: Example, open_phone: OpenPhone) -> None:
    """Added with a wrong secret, which is shown with its cause; corrected; removed."""
    phone = open_phone(None)
    page = phone.page
    page.goto(example.url())
    fill(page.get_by_label("Add an account"), Name="Flowers", AppID=FLOWERS, AppSecret=WRONG)
    card = page.get_by_role("article", name="Flowers")
    expect(card).to_contain_text("No ticket")
    expect(card.locator(".error")).to_contain_text("WeChat says 40125")
    expect(card.locator(".error")).to_contain_text("a reset stops the old secret at once")
    card.get_by_role("button", name="Refresh").click()
    expect(card.locator(".error")).to_contain_text("WeChat says 40125")

    card.get_by_text("Change").click()
    expect(card.get_by_label("AppSecret")).to_have_value("")
    fill(card, AppSecret=RIGHT)
    expect(card).to_contain_text("Fresh, ends in")
    expect(card.locator(".error")).to_have_count(0)

    card.get_by_role("link", name="Open").click()
    expect_accepted(page, "Flowers")
    page.go_back(wait_until="commit")  # the browser has kept it
    card.get_by_role("button", name="Remove").click()
    expect(page.get_by_role("article")).to_have_count(2)
    response = page.goto(f"{example.url()}/{FLOWERS}/")
    assert response is not None
    assert response.status == 404
    assert (phone.errors, phone.blocked) == ([], [])


def test_what_is_wrong_with_a_form(example: Example, open_phone: OpenPhone) -> None:
    """It is said above, and the form is there to be mended."""
    page = open_phone(None).page
    page.goto(example.url())
    card = page.get_by_role("article", name="Tea house")
    card.get_by_text("Change").click()
    fill(card, **{"Hosts of its pages": "https://tea.test/"})
    expect(page.get_by_role("alert")).to_contain_text("https://tea.test/ is no host")
    fill(card, **{"Hosts of its pages": "m.tea.test"})
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(card).to_contain_text("also at m.tea.test")
    fill(page.get_by_label("Add an account"), Name="Tea", AppID=TEA, AppSecret=RIGHT)
    expect(page.get_by_role("alert")).to_contain_text("in the table already")
    expect(page.get_by_label("Add an account").get_by_label("AppID")).to_have_value(TEA)


@pytest.mark.slow
@pytest.mark.parametrize("user_agent", [None, ANDROID, IPHONE], ids=["desktop", "android", "ios"])
def test_one_page_goes_from_account_to_account(
    example: Example, open_phone: OpenPhone, user_agent: str | None
) -> None:
    """And back; the phone accepts each at the first try."""
    phone = open_phone(user_agent)
    page = phone.page
    page.goto(f"{example.url()}/switch/")
    for name, app_id in (
        (None, BOOKS),  # the first by name
        ("Tea house", TEA),
        ("Book shop", BOOKS),
        ("Tea house", TEA),
    ):
        if name is not None:
            page.get_by_role("button", name=name).click()
        name = name or "Book shop"
        expect(page.get_by_role("heading", name=name)).to_be_visible()
        expect(page.locator("#verdict")).to_have_text("config:ok")
        expect_accepted(page, name)
        assert page.url == f"{example.url()}/switch/?account={app_id}"
    page.reload()
    expect(page.get_by_role("heading", name="Tea house")).to_be_visible()
    expect(page.locator("#verdict")).to_have_text("config:ok")
    assert (phone.errors, phone.blocked) == ([], [])
    asked = [line for line in example.log.read_text().splitlines() if "/wxjsapi/config?" in line]
    assert len(asked) == 5
    assert not [line for line in asked if "rejected" in line]


@pytest.mark.slow
def test_clicks_that_are_faster_than_wechat(example: Example, open_phone: OpenPhone) -> None:
    """The verdict that is shown is that of the account that is shown."""
    phone = open_phone(None)
    page = phone.page
    page.goto(f"{example.url()}/switch/")
    expect(page.locator("#verdict")).to_have_text("config:ok")
    held: list[Route] = []
    page.route(f"**/wxjsapi/config?*app_id={BOOKS}", lambda route: held.append(route))
    with page.expect_request(f"**/wxjsapi/config?*app_id={BOOKS}"):
        page.evaluate(
            """() => {
              const [books, tea] = document.querySelectorAll("#app button");
              tea.click();
              books.click();
            }"""
        )
    expect(page.locator(f"{CARD} section b")).to_have_text(["Tea house", "Tea house"])
    expect(page.get_by_role("heading", name="Book shop")).to_be_visible()
    assert page.locator("#verdict").text_content() == "…"
    held[0].continue_()
    expect(page.locator("#verdict")).to_have_text("config:ok")
    expect_accepted(page, "Book shop")
    assert phone.errors == []


@pytest.mark.slow
def test_a_visitor_of_an_account_that_is_removed(example: Example, open_phone: OpenPhone) -> None:
    """The open page says what the server says, and the other account goes on."""
    visitor, keeper = open_phone(None), open_phone(None)
    visitor.page.goto(f"{example.url()}/switch/?account={TEA}")
    expect(visitor.page.locator("#verdict")).to_have_text("config:ok")
    keeper.page.goto(example.url())
    tea = keeper.page.get_by_role("article", name="Tea house")
    tea.get_by_role("button", name="Remove").click()
    expect(tea).to_have_count(0)
    visitor.page.get_by_role("button", name="Book shop").click()
    expect(visitor.page.locator("#verdict")).to_have_text("config:ok")
    visitor.page.get_by_role("button", name="Tea house").click()
    expect(visitor.page.locator("#verdict")).to_have_text("There is no such account.")
    assert visitor.errors == []


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/", "/switch/", f"/{BOOKS}/"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen(example: Example, open_phone: OpenPhone, path: str, scheme: str) -> None:
    """Nothing is wider than 390 pixels, and the page follows the phone's colours."""
    phone = open_phone(None, viewport={"width": 390, "height": 800}, color_scheme=scheme)
    phone.page.goto(example.url() + path)
    expect(phone.page.get_by_role("heading", level=1)).to_be_visible()
    assert phone.page.evaluate("document.documentElement.scrollWidth") == 390
    colour = phone.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert colour == {"light": "rgb(243, 246, 244)", "dark": "rgb(14, 20, 17)"}[scheme]
