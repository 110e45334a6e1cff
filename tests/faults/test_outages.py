"""WeChat hangs or is gone while real processes serve: what it costs their readers."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from flask_wxjsapi.sandbox import Sandbox

from .conftest import Figure
from .servers import Fleet

pytestmark = pytest.mark.processes

PAGES = "tests.faults.pages:create_app()"


class Visitors:
    """Threads that load a page again and again, until they are sent home."""

    def __init__(self, count: int, load: Callable[[], object]) -> None:
        self.outcomes: Counter[object] = Counter()
        self._load = load
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._visit, daemon=True) for _ in range(count)]

    def __enter__(self) -> Visitors:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(40)

    def _visit(self) -> None:
        while not self._over.wait(0.02):
            self.outcomes[self._load()] += 1


def _blocked(url: str, seconds: float) -> int:
    """How many of the pings, made one after the other, do not end within a second."""
    blocked, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            requests.get(f"{url}/ping", timeout=1)
        except requests.Timeout:
            blocked += 1
        time.sleep(0.02)
    return blocked


@pytest.mark.parametrize(
    ("path", "timeout", "seconds"),
    [
        ("/ticket", 2, 8),
        pytest.param("/ticket", 3, 40, marks=pytest.mark.slow),
        pytest.param("/page", 3, 40, marks=pytest.mark.slow),
    ],
)
def test_a_wechat_that_hangs_blocks_the_workers_once(
    path: str, timeout: int, seconds: int, tmp_path: Path, figure: Figure
) -> None:
    """Two sync workers, no ticket yet, four visitors: one timeout in all, then all fail at once."""
    config = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path / "cache")}
    config |= {"WXJSAPI_REFRESH_TIMEOUT": str(timeout)}
    with Sandbox().serve() as sandbox:
        sandbox.fail("hang", times=None)
        with Fleet(sandbox, tmp_path, app=PAGES, **config) as fleet:

            def load() -> int:
                return requests.get(fleet.url + path, timeout=30).status_code

            with Visitors(4, load) as visitors:
                blocked = _blocked(fleet.url, seconds)
                waited = [ping["waited"] for ping in fleet.ask_everyone("/ping").values()]
        calls = sandbox.calls["stable_token"]
    outcomes = dict(visitors.outcomes)
    figure(
        f"WeChat hangs, no ticket, 2 sync workers, 4 visitors of {path}",
        f"a ping is blocked for REFRESH_TIMEOUT ({timeout} s)",
        f"{blocked} of {seconds} s; pages {outcomes}, {calls} token calls",
    )
    # One for the renewal, and perhaps one for the rest of it: a page waits for 2 s at most.
    assert max(waited) <= 3
    assert set(outcomes) == {200 if path == "/page" else 503}
    assert sum(outcomes.values()) > 20  # at once, and not each after its own wait
    assert calls > 1  # the threads go on trying
