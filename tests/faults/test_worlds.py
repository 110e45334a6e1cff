"""Four real workers and a WeChat that repeats itself, over lives of some seconds."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import requests

from flask_wxjsapi.sandbox import Sandbox

from .conftest import Figure
from .servers import Fleet

pytestmark = pytest.mark.processes

_READERS = 4


class Truth:
    """Since when the sandbox calls each ticket dead."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def dead_for(self, ticket: str, at: float) -> float:
        """Seconds that a ticket has been dead at a moment; negative while it lives."""
        with self._sandbox._lock:
            (account,) = self._sandbox._registry.accounts.values()
            (found,) = [one for one in account.tickets["jsapi"] if one.value == ticket]
            return at - found.expires_at


@pytest.mark.parametrize(
    ("world", "life", "lives"),
    [
        ("remaining", 12, 1),
        *(
            pytest.param(world, life, 3, marks=pytest.mark.slow)
            for world, life in [("new", 12), ("remaining", 20), ("living", 12), ("dying", 15)]
        ),
    ],
)
def test_lives_of_a_ticket_that_is_read_all_the_time(
    world: str, life: int, lives: int, tmp_path: Path, figure: Figure
) -> None:
    """No read fails, and no ticket is handed out that has been dead for more than a second."""
    config = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path / "cache")}
    config |= {"WXJSAPI_REFRESH_AHEAD": "2", "WXJSAPI_SYNC_INTERVAL": "0.5"}
    config |= {"WXJSAPI_REFRESH_TIMEOUT": "30"}
    outcomes: Counter[int] = Counter()
    dead: list[float] = []
    pids: set[int] = set()
    with Sandbox(ticket=world, ticket_lifetime=life).serve() as sandbox:
        truth = Truth(sandbox)
        with Fleet(sandbox, tmp_path, "--keep-alive=0", workers=4, **config) as fleet:
            fleet.get("/ticket")
            end = time.monotonic() + lives * life + 1

            def is_over() -> bool:
                now = time.monotonic()
                return now >= end and (len(pids) == 4 or now >= end + 30)

            def read() -> None:
                while not is_over():
                    # By when it was read, at the earliest: a slow machine makes no ticket dead.
                    asked_at = time.time()
                    response = requests.get(f"{fleet.url}/ticket", timeout=90)
                    outcomes[response.status_code] += 1
                    if response.ok:
                        pids.add(response.json()["pid"])
                        dead.append(truth.dead_for(response.json()["ticket"], asked_at))
                    time.sleep(0.02)

            threads = [threading.Thread(target=read, daemon=True) for _ in range(_READERS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(lives * life + 120)
        calls = dict(sandbox.calls)
        tickets = len(
            {one.value for a in sandbox._registry.accounts.values() for one in a.tickets["jsapi"]}
        )
    figure(
        f"world {world!r}, a life of {life} s, {lives} lives, 4 workers",
        "no failed read, none dead for a second",
        f"{dict(outcomes)}, at most {max(dead):.2f} s dead, {tickets} tickets, calls {calls}",
    )
    assert set(outcomes) == {200}
    assert max(dead) <= 1
    assert len(pids) == 4
    assert calls["stable_token"] == 1
    assert calls["getticket"] <= 5 * (lives + 1)
