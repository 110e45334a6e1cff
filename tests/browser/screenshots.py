"""``python -m tests.browser.screenshots`` takes the pictures of the demo in ``docs/``.

Debian's pngquant makes them small, and its fonts-wqy-microhei has the Chinese.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from ..conftest import free_port, wait_until
from .conftest import JWEIXIN, MODULES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PATH = "/?x=%E4%B8%AD%E6%96%87"
CARD = "wx-sandbox-phone"
SCALE = 1.5  # device pixels for one of the page's


@contextmanager
def demo() -> Iterator[str]:
    """The example in a process of its own; a ticket lives a minute, so that there is a bar."""
    port = int(os.environ.get("PORT", free_port()))
    env = {key: value for key, value in os.environ.items() if not key.startswith("FLASK_")}
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / "quickstart")],
        env={**env, "PORT": str(port), "TTL": "60"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def is_up(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


def window(browser: Browser, width: int, height: int, **options: Any) -> Page:
    """A page of a visitor of its own, with the real jweixin."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        device_scale_factor=SCALE,
        reduced_motion="reduce",
        **{"locale": "en", **options},
    )
    jweixin = (MODULES / JWEIXIN).read_text()
    context.route(
        "https://res.wx.qq.com/**",
        lambda route: route.fulfill(body=jweixin, content_type="text/javascript"),
    )
    return context.new_page()


def card(page: Page, errmsg: str, *, is_open: bool) -> Locator:
    """The phone's card with this verdict, unfolded or folded."""
    page.wait_for_selector(f"{CARD}[data-errmsg='{errmsg}']")
    toggle = page.locator(f"{CARD} header button")
    if (toggle.get_attribute("aria-expanded") == "true") != is_open:
        toggle.click()
    return page.locator(f"{CARD} aside")


def take_whole(page: Page, file: str) -> None:
    """As high as the page is, with the card in the corner below."""
    height = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": page.evaluate("innerWidth"), "height": height})
    page.screenshot(path=DOCS / file)
    page.context.close()


def take_demo(browser: Browser, url: str) -> None:
    page = window(browser, 1280, 800)
    page.goto(url + PATH)
    card(page, "config:ok", is_open=True)
    page.wait_for_selector("[data-verdict=ok] #errmsg")
    page.wait_for_function("/^1\\d s$/.test(document.getElementById('age').textContent)")
    take_whole(page, "demo-desktop.png")


def take_demo_on_a_phone(browser: Browser, url: str) -> None:
    """In the dark and in Chinese, so that the pictures show both."""
    page = window(browser, 390, 844, color_scheme="dark", locale="zh-CN")
    page.goto(url + PATH)
    card(page, "config:ok", is_open=False)
    page.wait_for_selector("#state[data-state=fresh]")
    page.screenshot(path=DOCS / "demo-phone.png")
    page.context.close()


def take_refused(browser: Browser, url: str) -> None:
    """The phone's card where the ticket was replaced and the page cannot heal."""
    page = window(browser, 390, 844)
    page.route("**/wxjsapi/config?**", lambda route: route.abort())
    page.goto(url)
    requests.post(f"{url}/break", headers={"Origin": url}, timeout=15)
    page.reload()
    shown = card(page, "config:invalid signature", is_open=True)
    page.locator(f"{CARD} .cause").wait_for()
    shown.screenshot(path=DOCS / "demo-refused.png")
    page.context.close()


def take_sandbox(browser: Browser, url: str) -> None:
    page = window(browser, 390, 800)
    page.goto(url)
    address = page.locator(f"{CARD} footer a").get_attribute("href")
    page.context.close()
    page = window(browser, 1280, 800)
    page.goto(str(address))
    page.fill("[name=times]", "3")
    page.click("button[value='45009']")
    take_whole(page, "demo-sandbox.png")


def main() -> int:
    binary = shutil.which("chromium")
    with demo() as url, sync_playwright() as playwright:
        wait_until(lambda: is_up(url), what="the demo answers")
        requests.post(f"{url}/trouble/revoke", headers={"Origin": url}, timeout=15)
        browser = playwright.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        for take in (take_demo, take_demo_on_a_phone, take_sandbox, take_refused):
            take(browser, url)
        browser.close()
    small = ["pngquant", "--force", "--ext", ".png", "--speed", "1", "--strip", "--nofs", "72"]
    subprocess.run([*small, *DOCS.glob("demo-*.png")], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
