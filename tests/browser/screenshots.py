"""``python -m tests.browser.screenshots`` takes the pictures of the demo in ``docs/``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from playwright.sync_api import Browser, sync_playwright

from ..conftest import free_port, wait_until
from .conftest import JWEIXIN, MODULES

ROOT = Path(__file__).parents[2]
PATH = "/?x=%E4%B8%AD%E6%96%87"
CARD = "wx-sandbox-phone"
#: file: width and height of the window; 0 for as high as the page is
WINDOWS = {"demo-desktop.png": (1280, 0), "demo-phone.png": (390, 844)}


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


def take(browser: Browser, url: str, file: Path, size: tuple[int, int]) -> None:
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height or 800}, device_scale_factor=2, locale="en"
    )
    jweixin = (MODULES / JWEIXIN).read_text()
    context.route(
        "https://res.wx.qq.com/**",
        lambda route: route.fulfill(body=jweixin, content_type="text/javascript"),
    )
    page = context.new_page()
    page.goto(url + PATH)
    page.wait_for_selector(f"{CARD}[data-errmsg='config:ok']")
    more = page.locator(CARD).get_by_role("button", name="Show more")
    if more.count():
        more.click()
    page.locator(f"{CARD} section img").last.wait_for()
    page.wait_for_selector("[data-verdict=ok] #errmsg")
    page.wait_for_function("/^1\\d s$/.test(document.getElementById('age').textContent)")
    if not height:
        height = page.evaluate("document.documentElement.scrollHeight")
        page.set_viewport_size({"width": width, "height": height})
    page.screenshot(path=file)
    context.close()


def main() -> int:
    binary = shutil.which("chromium")
    with demo() as url, sync_playwright() as playwright:
        wait_until(lambda: is_up(url), what="the demo answers")
        requests.post(f"{url}/trouble/revoke", headers={"Origin": url}, timeout=15)
        browser = playwright.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        for name, size in WINDOWS.items():
            take(browser, url, ROOT / "docs" / name, size)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
