"""Many named accounts in one process: one thread, one store, one connection pool."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_wxjsapi import WxJsApi
from flask_wxjsapi._engine.turns import _MOST_AT_ONCE, _MOST_SLOW
from flask_wxjsapi.sandbox import Sandbox

from ..conftest import Valkey, wait_until
from .conftest import Figure

pytestmark = pytest.mark.processes

COUNT = 50
LONG = 120  # seconds; nothing here is to be fast


class Platform:
    """An app with accounts ``a0``, ``a1`` and so on, which nobody has used yet."""

    def __init__(self, sandbox: Sandbox, **config: Any) -> None:
        self.app = Flask("platform")
        self.app.config.update(config)
        self.accounts = [WxJsApi(name=f"a{number}") for number in range(COUNT)]
        for number, account in enumerate(self.accounts):
            app_id, secret = f"wx{number}", f"secret-{number}"
            sandbox.add_account(app_id, secret)
            prefix = f"A{number}_WXJSAPI"
            self.app.config |= {
                f"{prefix}_APP_ID": app_id,
                f"{prefix}_APP_SECRET": secret,
                f"{prefix}_API_BASE_URL": sandbox.url,
                f"{prefix}_SYNC_INTERVAL": 0.1,
                f"{prefix}_REFRESH_TIMEOUT": 60,
            }
            account.init_app(self.app)

    def visit(self) -> None:
        """A request of any kind."""
        self.app.test_client().get("/")

    def tickets(self) -> set[str]:
        with self.app.app_context():
            return {account.ticket for account in self.accounts}

    def close(self) -> None:
        for account in self.accounts:
            account.close(self.app)


@pytest.fixture
def threads() -> Iterator[Any]:
    """The names of the threads that this test has started, and that still run."""
    before = set(threading.enumerate())

    def names() -> list[str]:
        return [one.name for one in threading.enumerate() if one not in before]

    yield names
    wait_until(lambda: not [name for name in names() if "wxjsapi" in name], 40, "no thread is left")


@pytest.fixture
def platform(sandbox: Sandbox, valkey: Valkey, threads: Any) -> Iterator[Platform]:
    platform = Platform(sandbox, CACHE_TYPE="RedisCache", CACHE_REDIS_URL=valkey.patient_url)
    yield platform
    platform.close()


def test_accounts_of_a_process_share_thread_and_connections(
    platform: Platform, sandbox: Sandbox, valkey: Valkey, threads: Any, figure: Figure
) -> None:
    """50 accounts are warm after one request, by one thread that asks for 100 keys a second."""
    with valkey.client() as client:
        before = {one["id"] for one in client.client_list()}
        platform.visit()
        wait_until(lambda: sandbox.calls["getticket"] == COUNT, LONG, "each has its ticket")
        wait_until(lambda: len(client.keys("*jsapi_ticket")) == COUNT, LONG, "all are stored")
        wait_until(lambda: not [n for n in threads() if "renewal" in n], LONG, "it is idle")
        assert threads().count("wxjsapi") == 1
        connections = [one for one in client.client_list() if one["id"] not in before]
        keys, commands, seconds = _while_idle(client)
    figure(
        f"{COUNT} accounts in a process, Redis",
        "1 thread, 1 pool, at most 100 keys a second",
        f"{len(connections)} connections, {keys / seconds:.0f} keys/s in "
        f"{commands / seconds:.1f} commands/s",
    )
    # As many as renew at once, slow ones included, and not one for each account.
    assert len(connections) <= _MOST_AT_ONCE + _MOST_SLOW + 1 < COUNT
    assert keys / seconds <= 150
    assert commands / seconds <= 20
    assert len(platform.tickets()) == COUNT
    assert dict(sandbox.calls) == {"stable_token": COUNT, "getticket": COUNT}


def _while_idle(client: Any) -> tuple[int, int, float]:
    """Keys that were looked for and commands that were sent in some seconds, and these."""

    def stand() -> tuple[int, int]:
        stats = client.info("stats")
        commands = client.info("commandstats")
        sent = sum(one["calls"] for name, one in commands.items() if name != "cmdstat_info")
        return stats["keyspace_hits"] + stats["keyspace_misses"], sent

    started, (keys, commands) = time.monotonic(), stand()
    time.sleep(2)  # what is counted is what happens when nobody asks
    later_keys, later_commands = stand()
    return later_keys - keys, later_commands - commands, time.monotonic() - started


def test_accounts_on_files_touch_only_their_own(
    sandbox: Sandbox, tmp_path: Path, threads: Any, figure: Figure
) -> None:
    """On FileSystemCache as well all tickets are there, with one call of each kind for each."""
    platform = Platform(sandbox, CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path / "cache"))
    try:
        platform.visit()
        wait_until(lambda: sandbox.calls["getticket"] == COUNT, LONG, "each has its ticket")
        assert len(platform.tickets()) == COUNT
        assert threads().count("wxjsapi") == 1
        assert dict(sandbox.calls) == {"stable_token": COUNT, "getticket": COUNT}
    finally:
        platform.close()
