"""The engine in real worker processes, on real stores."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import requests

from flask_wxjsapi.sandbox import Sandbox

from .conftest import PATIENT, Valkey, wait_until
from .processes import Gunicorn, at_once

pytestmark = pytest.mark.processes

STORES = [
    "redis",
    pytest.param("files", marks=pytest.mark.slow),
    pytest.param("custom", marks=pytest.mark.slow),
]


def redis_of(valkey: Valkey) -> dict[str, str]:
    return {
        "CACHE_TYPE": "RedisCache",
        "CACHE_REDIS_URL": valkey.url,
        "CACHE_OPTIONS": json.dumps(PATIENT),
    }


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The config keys of a store that several processes share."""
    if request.param == "redis":
        return redis_of(request.getfixturevalue("valkey"))
    if request.param == "files":
        return {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path / "cache")}
    return {
        "SQLALCHEMY_DATABASE_URI": f"sqlite:///{tmp_path / 'tickets.db'}?timeout=10",
        "WXJSAPI_TICKET_SERVER": "examples.custom_server.ticket_server:DatabaseTicketServer",
    }


@pytest.mark.parametrize("store", STORES, indirect=True)
def test_64_cold_readers_in_4_processes_cost_one_call(
    store: dict[str, str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """4 workers x 16 threads, cold, WeChat slow: one token, one ticket, the same for everybody.

    A custom server keeps tickets only: without a shared cache each process has its own token.
    """
    is_custom = "WXJSAPI_TICKET_SERVER" in store
    app = "tests.custom_service:create_app()" if is_custom else "tests.service:create_app()"
    options = ["--workers=4", "--threads=16", "--worker-connections=16", "--keep-alive=0"]
    with Sandbox(delay=0.7).serve() as sandbox:
        config = store | {
            "WXJSAPI_BACKGROUND_REFRESH": "false",
            "WXJSAPI_REFRESH_TIMEOUT": "60",  # the processes are many, and the machine may be busy
        }
        with Gunicorn(sandbox, tmp_path, *options, app=app, **config) as service:
            service.pids(4)  # one that starts late would leave all readers to the others
            assert not sandbox.calls
            answers = at_once(64, lambda: service.get("/ticket"))
        failures = [answer for answer in answers if not isinstance(answer, dict)]
        assert not failures
        assert len(answers) == 64
        assert len({answer["ticket"] for answer in answers}) == 1
        assert len({answer["pid"] for answer in answers}) > 1
        assert sandbox.calls["getticket"] == 1
        assert sandbox.calls["stable_token"] == 1 or is_custom


@pytest.mark.slow
def test_half_a_minute_of_load_over_short_lived_tickets(valkey: Valkey, tmp_path: Path) -> None:
    """--preload, 3 workers, tickets of 10 s renewed 5 s early, WeChat slow, 30 s of load.

    One ticket call a period for the cluster, no failed read, and after a process's first no read
    that touched a socket, a file or a lock.
    """
    seconds = 30.0
    with Sandbox(token_lifetime=10, ticket_lifetime=10, delay=0.75).serve() as sandbox:
        config = {
            "CACHE_TYPE": "RedisCache",
            "CACHE_REDIS_URL": valkey.url,
            "WXJSAPI_REFRESH_AHEAD": "5",
            "WXJSAPI_SYNC_INTERVAL": "0.5",
        }
        # Two connections a worker and six readers: every worker gets its share of them.
        options = ["--preload", "--workers=3", "--threads=4", "--worker-connections=2"]
        with Gunicorn(sandbox, tmp_path, *options, **config) as service:
            reads: list[dict[str, Any]] = []
            failures: list[object] = []
            end = time.monotonic() + seconds

            def load() -> None:
                with requests.Session() as session:
                    while time.monotonic() < end:
                        response = session.get(f"{service.url}/touched", timeout=30)
                        (reads if response.ok else failures).append(response.json())
                        time.sleep(0.005)

            threads = [threading.Thread(target=load, daemon=True) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(seconds + 60)
            pids = Counter(read["pid"] for read in reads)
            touched = [read for read in reads if read["touched"]]
            periods = len([call for call in sandbox.history if call.name == "getticket"])
    assert not failures
    assert len(pids) == 3
    assert min(pids.values()) > 50
    # Cold, each of the six readers waited once for the first ticket; warm, nobody for anything.
    assert 1 <= len(touched) <= 6, [read["touched"] for read in touched]
    # A period is 5 s and a renewal's own 1.5 s; a second call in one would make twelve.
    assert 30 / 7.5 <= periods <= 30 / 5 + 2


@pytest.mark.parametrize("store", STORES[:2], indirect=True)
def test_a_killed_lease_holder_is_succeeded(
    store: dict[str, str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """SIGKILL in mid-fetch: another takes over within the lease's life, with one more call."""
    with Sandbox().serve() as sandbox:
        config = store | {
            # The holder has not given up before it is killed; and so the lease lives for 35 s.
            "WXJSAPI_REFRESH_TIMEOUT": "30",
            "WXJSAPI_BACKGROUND_REFRESH": "false",
        }
        with Gunicorn(sandbox, tmp_path, "--workers=2", "--threads=2", **config) as service:
            pids = service.pids(2)
            sandbox.fail("hang", path="stable_token")
            victims: list[int] = []

            def read() -> None:
                try:
                    service.get("/ticket")
                except requests.RequestException:
                    victims.append(1)

            reader = threading.Thread(target=read, daemon=True)
            reader.start()
            wait_until(lambda: sandbox.calls["stable_token"] == 1, what="the holder asks")
            holder = _connected_to(sandbox, pids)
            service.kill(holder)
            sandbox.heal()
            reader.join(60)
            assert victims
            if "CACHE_REDIS_URL" in store:
                let_the_lease_end(request.getfixturevalue("valkey"), 35)

            def recovered() -> Any:
                answer = requests.get(f"{service.url}/ticket", timeout=60)
                return answer.ok and answer.json()

            answer = wait_until(recovered, 60, "another process has the ticket")
            assert answer["pid"] != holder
        assert sandbox.calls["stable_token"] == 2
        assert sandbox.calls["getticket"] == 1


def let_the_lease_end(valkey: Valkey, life: float) -> None:
    """It was left to its life, in seconds, and that is over now: no test needs to wait for it."""
    with valkey.client() as client:
        (key,) = client.keys("~wxjsapi:*:lease")
        assert 0 < client.pttl(key) <= life * 1000
        client.pexpire(key, 1)


def _connected_to(sandbox: Sandbox, pids: set[int]) -> int:
    """Which of the processes has a connection to the sandbox."""
    port = int(sandbox.url.rpartition(":")[2])
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].rpartition(":")[2], 16) == port and fields[3] == "01":
            inodes.add(f"socket:[{fields[9]}]")
    for pid in pids:
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            try:
                if str(handle.readlink()) in inodes:
                    return pid
            except OSError:
                continue
    raise AssertionError("no process is connected to the sandbox")


@pytest.mark.slow
def test_an_outage_of_wechat_is_not_noticed_while_the_ticket_lives(
    valkey: Valkey, tmp_path: Path
) -> None:
    """WeChat away past the refresh point: all reads succeed, few calls are made, and it heals."""
    with Sandbox(token_lifetime=14, ticket_lifetime=14).serve() as sandbox:
        config = {
            "CACHE_TYPE": "RedisCache",
            "CACHE_REDIS_URL": valkey.url,
            "WXJSAPI_REFRESH_AHEAD": "7",
            "WXJSAPI_SYNC_INTERVAL": "0.5",
        }
        with Gunicorn(sandbox, tmp_path, "--workers=2", "--threads=4", **config) as service:
            first = service.get("/ticket")["ticket"]
            sandbox.fail("close", times=None)
            wait_until(lambda: service.get("/status")["last_error"], 20, "a renewal failed")
            before = sum(sandbox.calls.values())
            end = time.monotonic() + 3
            while time.monotonic() < end:
                assert service.get("/ticket")["ticket"] == first
            assert sum(sandbox.calls.values()) - before <= 4  # 1, 2, 4 s: shared by two processes
            sandbox.heal()

            def has_healed() -> bool:
                answer = requests.get(f"{service.url}/ticket", timeout=30)
                return answer.ok and answer.json()["ticket"] != first

            wait_until(has_healed, 20, "it heals by itself")


def test_a_flushed_redis_gets_its_records_back(valkey: Valkey, tmp_path: Path) -> None:
    """FLUSHALL costs no upstream call: a process that holds token and ticket saves them again."""
    with Sandbox().serve() as sandbox, valkey.client() as client:
        config = redis_of(valkey) | {"WXJSAPI_SYNC_INTERVAL": "0.3"}

        def has_both_and_no_lease() -> bool:
            names = {key.decode().rpartition(":")[2] for key in client.keys("~wxjsapi:*")}
            return {"access_token", "jsapi_ticket"} <= names and "lease" not in names

        # One that holds nothing yet would ask in the moment in which nothing is there.
        with Gunicorn(sandbox, tmp_path, "--workers=1", **config) as service:
            ticket = service.get("/ticket")["ticket"]
            wait_until(has_both_and_no_lease, what="the renewal is over, and all is saved")
            client.flushall()
            wait_until(has_both_and_no_lease, what="token and ticket are back")
            service.process.send_signal(signal.SIGTTIN)  # another worker
            service.pids(2)
            answers = at_once(8, lambda: service.get("/ticket"))
        assert {answer["ticket"] for answer in answers} == {ticket}
        assert dict(sandbox.calls) == {"stable_token": 1, "getticket": 1}
