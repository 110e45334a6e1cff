"""Real tracers, told to keep all they can: no token and no secret is in what they send."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_wxjsapi.sandbox import Sandbox
from tests import wire
from tests.conftest import free_port, require
from tests.traced import CANARY
from tests.wire import Recorder

pytestmark = pytest.mark.usefixtures("no_environment")

CORP_ID, CORP_SECRET = "ww0123456789abcdef", "the-secret-of-an-agent-of-wecom"
CENTRAL_TOKEN, CENTRAL_TICKET = "bearer-token-of-a-client", "a-ticket-of-the-central-server"
PACKAGES = {
    "sentry": "sentry_sdk",
    "requests": "opentelemetry.instrumentation.requests",
    "urllib3": "opentelemetry.instrumentation.urllib3",
}
#: What the tracers must have seen of our calls, without the query.
PATHS = ("/cgi-bin/token", "/cgi-bin/stable_token", "/cgi-bin/ticket/getticket")
PATHS += ("/cgi-bin/gettoken", "/cgi-bin/get_jsapi_ticket", "/wxjsapi/ticket")


@pytest.fixture(scope="module")
def wechat() -> Iterator[Sandbox]:
    with Sandbox().serve() as sandbox:
        sandbox.add_agent(CORP_ID, CORP_SECRET)
        yield sandbox


@pytest.fixture(scope="module")
def servers(wechat: Sandbox) -> Iterator[list[Recorder]]:
    """A gateway whose headers urllib3 complains of, one that hangs, and a central server."""
    release = threading.Event()
    ticket = {"app_id": wechat.app_id, "kind": "jsapi_ticket", "value": CENTRAL_TICKET}
    with wire.recorders() as start:
        yield [
            start(b"HTTP/1.1 502 Bad Gateway\r\nX: y\r\nbroken line\r\n\r\n"),
            start(lambda connection: release.wait() and None),
            start(wire.http({**ticket, "expires_in": 7000})),
        ]
        release.set()


@pytest.fixture(scope="module")
def configs(wechat: Sandbox, servers: list[Recorder]) -> list[dict[str, Any]]:
    """Every way to ask, and each of them with every way to fail."""
    account = {"APP_ID": wechat.app_id, "APP_SECRET": wechat.app_secret}
    corp = {"APP_ID": CORP_ID, "APP_SECRET": CORP_SECRET, "PLATFORM": "wecom"}
    gateway, hanging, central = servers
    urls = [wechat.url, gateway.url, hanging.url, f"http://127.0.0.1:{free_port()}"]
    found = [
        {**options, "API_BASE_URL": url, "REFRESH_TIMEOUT": 0.3 if url == hanging.url else 60}
        for options in (account, {**account, "TOKEN_ENDPOINT": "token"}, corp)
        for url in urls
    ]
    for url in [central.url, *urls[1:]]:
        client = {"CENTRAL_URL": f"{url}/wxjsapi", "CENTRAL_TOKEN": CENTRAL_TOKEN}
        timeout = 0.3 if url == hanging.url else 60
        found.append({**client, "APP_ID": wechat.app_id, "REFRESH_TIMEOUT": timeout})
    return [{f"WXJSAPI_{key}": value for key, value in one.items()} for one in found]


@pytest.fixture(scope="module")
def kept(configs: list[dict[str, Any]]) -> Callable[[str], str]:
    """Everything that a tracer has sent, and everything that was logged at DEBUG meanwhile."""
    found: dict[str, str] = {}

    def look(name: str) -> str:
        if name not in found:
            result = subprocess.run(
                [sys.executable, "-m", "tests.traced", name],
                input=json.dumps(configs),
                env={**os.environ, "OTEL_SEMCONV_STABILITY_OPT_IN": "http/dup"},
                capture_output=True,
                text=True,
            )
            assert result.returncode == 0, result.stderr
            found[name] = result.stdout
        return found[name]

    return look


@pytest.fixture(params=PACKAGES)
def seen(request: pytest.FixtureRequest, kept: Callable[[str], str]) -> str:
    try:
        __import__(PACKAGES[request.param])
    except ImportError:
        require("tracers", f"no {PACKAGES[request.param]}: pip install -e .[test]")
    return kept(request.param)


def test_no_secret_is_sent(wechat: Sandbox, seen: str) -> None:
    """No secret, token or ticket, in a breadcrumb, a span, an error or the variables of a frame."""
    secrets = {wechat.app_secret, CORP_SECRET, CENTRAL_TOKEN, CENTRAL_TICKET}
    for account in (*wechat._registry.accounts.values(), *wechat._registry.corps[CORP_ID].agents):
        secrets |= set(account.tokens)
        secrets |= {ticket.value for tickets in account.tickets.values() for ticket in tickets}
    assert len(secrets) >= 8
    leaks = {secret: seen[: seen.index(secret)][-200:] for secret in secrets if secret in seen}
    assert not leaks


def test_every_call_is_seen(seen: str) -> None:
    """Tracing works as for any other call; and the tracers would have seen a query."""
    assert CANARY in seen
    assert [path for path in PATHS if path not in seen] == []


def test_errors_are_seen(kept: Callable[[str], str]) -> None:
    """Sentry gets the errors, with the variables of their frames."""
    pytest.importorskip("sentry_sdk")
    seen = kept("sentry")
    for part in ("Connection refused", "HTTP 502", "no complete answer in time", '"vars":'):
        assert part in seen
