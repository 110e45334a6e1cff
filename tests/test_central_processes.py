"""One central server and two client apps with two workers each, all of them real processes."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from flask_wxjsapi.sandbox import Sandbox

from .conftest import wait_until
from .processes import Gunicorn, at_once

pytestmark = pytest.mark.processes

LIFE = 8.0  # seconds
TOKENS = {"first": "first-first-first-first", "second": "second-second-second"}


@pytest.fixture
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    life = getattr(request, "param", 7200)
    with Sandbox(ticket="remaining", ticket_lifetime=life).serve() as sandbox:
        yield sandbox


@pytest.fixture
def apps(sandbox: Sandbox, tmp_path: Path) -> Iterator[tuple[Gunicorn, list[Gunicorn]]]:
    """The server and its clients, of which none has been asked for a ticket yet."""

    def gunicorn(name: str, **config: str) -> Gunicorn:
        directory = tmp_path / name
        directory.mkdir()
        shared = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(directory / "cache")}
        return Gunicorn(sandbox, directory, "--workers", "2", "--threads", "8", **shared, **config)

    server = gunicorn(
        "server",
        WXJSAPI_URL_PREFIX="/wxjsapi",
        WXJSAPI_CENTRAL_TOKENS=json.dumps(TOKENS),
        WXJSAPI_REFRESH_TIMEOUT="60",  # nine processes, on a machine that may be busy
        TESTS_PATIENCE="60",
    )
    clients = [
        gunicorn(
            name,
            WXJSAPI_CENTRAL_URL=f"{server.url}/wxjsapi",
            WXJSAPI_CENTRAL_TOKEN=token,
            WXJSAPI_REFRESH_TIMEOUT="90",
            # Not those of the sandbox: a client has neither.
            WXJSAPI_APP_SECRET="null",
            WXJSAPI_API_BASE_URL="null",
        )
        for name, token in TOKENS.items()
    ]
    with ExitStack() as stack:
        for each in (server, *clients):
            stack.enter_context(each)
        yield server, clients


def read(client: Gunicorn) -> tuple[int, float, Any]:
    """Status, seconds it took, and the ticket."""
    started = time.monotonic()
    response = requests.get(f"{client.url}/ticket", timeout=120)
    ticket = response.json()["ticket"] if response.ok else None
    return response.status_code, time.monotonic() - started, ticket


def test_one_call_for_all(sandbox: Sandbox, apps: tuple[Gunicorn, list[Gunicorn]]) -> None:
    """Cold readers everywhere cost one call."""
    _, clients = apps
    found = at_once(16, lambda: [read(client) for client in clients])
    assert {status for reads in found for status, _, _ in reads} == {200}
    assert len({ticket for reads in found for _, _, ticket in reads}) == 1
    assert sandbox.calls == {"stable_token": 1, "getticket": 1}


@pytest.mark.parametrize("sandbox", [LIFE], indirect=True)
def test_a_life_without_the_server(apps: tuple[Gunicorn, list[Gunicorn]]) -> None:
    """The server dies, and comes back."""
    server, clients = apps
    for client in clients:
        # A server that is late has a ticket in its last second, which it does not pass on.
        wait_until(lambda client=client: read(client)[0] == 200, 60, "the client has a ticket")
    server.process.kill()  # the master alone: its workers see that and end
    server.process.wait()
    wait_until(lambda: not _listens(server), 60, "the server is gone")

    # What they have lasts until it ends, and nobody waits for it.
    tickets: set[str] = set()
    ended: set[str] = set()
    deadline = time.monotonic() + 20 * LIFE
    while len(ended) < len(clients):
        assert time.monotonic() < deadline
        for client in clients:
            status, _, ticket = read(client)
            if status == 503:
                ended.add(client.url)
            else:
                assert status == 200
                tickets.add(ticket)
        time.sleep(0.1)

    # Then all fail, and fast: the back-off answers, not one connection after the other.
    assert {
        status for reads in at_once(8, lambda: [read(c) for c in clients]) for status, _, _ in reads
    } == {503}

    with server:
        for client in clients:
            wait_until(lambda client=client: read(client)[0] == 200, 150, "the client heals")

        def served() -> set[str]:
            return {read(client)[2] for client in clients}

        # They read one after the other, and the ticket may end in between.
        def agreed() -> set[str] | None:
            found = served()
            return found if len(found) == 1 and None not in found else None

        both = wait_until(agreed, 60, "they agree")
        assert both.isdisjoint(tickets)


def _listens(server: Gunicorn) -> bool:
    """Whether any of its processes does, however slow it is to answer."""
    host, port = server.url.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), 30).close()
    except ConnectionRefusedError:
        return False
    return True
