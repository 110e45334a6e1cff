"""Ten thousand pages whose signature WeChat refused, all at once, on four workers."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import requests

from flask_wxjsapi.sandbox import Sandbox

from ..processes import Gunicorn

pytestmark = [pytest.mark.processes, pytest.mark.slow]

PAGES = 10_000
READERS = 16
PAGE = "https://m.example.com/shop"


def complaint(site: Gunicorn) -> dict[str, str]:
    """What a page sends that was refused."""
    signed = site.get(f"/wxjsapi/config?url={PAGE}")
    with_it = {key: str(signed[key]) for key in ("nonceStr", "timestamp", "signature")}
    return {"url": PAGE, "rejected": "1", **with_it}


def send(site: Gunicorn, query: dict[str, str], count: int) -> list[int]:
    """How each of so many requests was answered, some at a time."""
    found: list[int] = []

    def read() -> None:
        with requests.Session() as session:
            for _ in range(count // READERS):
                answer = session.get(f"{site.url}/wxjsapi/config", params=query, timeout=60)
                found.append(answer.status_code)

    threads = [threading.Thread(target=read) for _ in range(READERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_ten_thousand_pages_cost_one_call(sandbox: Sandbox, tmp_path: Path) -> None:
    """Before them as many strangers, who cost none and silence nobody."""
    site = Gunicorn(
        sandbox, tmp_path, "--workers", "4", "--threads", "4",
        CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path / "cache"),
        WXJSAPI_URL_PREFIX="/wxjsapi", WXJSAPI_PAGE_HOSTS='["m.example.com"]',
    )  # fmt: skip
    with site:
        refused = complaint(site)
        assert sandbox.calls["getticket"] == 1
        forged = {**refused, "signature": "0" * 40}
        assert send(site, forged, PAGES) == [200] * PAGES
        assert sandbox.calls["getticket"] == 1
        assert send(site, refused, PAGES) == [200] * PAGES
        assert sandbox.calls["getticket"] == 2
