"""A client of a sandbox, without a network and with one."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import requests
from werkzeug.test import Client, TestResponse

from flask_wxjsapi.sandbox import Sandbox

MIDNIGHT = 1_700_064_000.0  # 2023-11-16 00:00 in Shanghai
STABLE, TOKEN = "/cgi-bin/stable_token", "/cgi-bin/token"
TICKET, QUOTA = "/cgi-bin/ticket/getticket", "/cgi-bin/openapi/quota/get"
SOON = 30.0  # seconds; far longer than anything takes on a busy machine, shorter than a hang


class Clock:
    def __init__(self, now: float = MIDNIGHT + 3600) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Caller:
    """A client of a sandbox without a network."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.sandbox = Sandbox(clock=self.clock, **options)
        self.http = Client(self.sandbox)

    def stable(self, **changes: Any) -> dict[str, Any]:
        body = {
            "grant_type": "client_credential",
            "appid": self.sandbox.app_id,
            "secret": self.sandbox.app_secret,
        }
        body = {k: v for k, v in {**body, **changes}.items() if v is not None}
        return answer(self.http.post(STABLE, json=body))

    def legacy(self, **changes: Any) -> dict[str, Any]:
        query = {
            "grant_type": "client_credential",
            "appid": self.sandbox.app_id,
            "secret": self.sandbox.app_secret,
        }
        query = {k: v for k, v in {**query, **changes}.items() if v is not None}
        return answer(self.http.get(TOKEN, query_string=query))

    def ticket(self, token: str | None = None, kind: str = "jsapi") -> dict[str, Any]:
        token = token or self.stable()["access_token"]
        return answer(self.http.get(TICKET, query_string={"access_token": token, "type": kind}))

    def sign(self, url: str, ticket: str | None = None, **changes: Any) -> dict[str, Any]:
        ticket = ticket or self.ticket()["ticket"]
        text = f"jsapi_ticket={ticket}&noncestr=n0nce&timestamp=1414587457&url={url}"
        return {
            "appId": self.sandbox.app_id,
            "nonceStr": "n0nce",
            "timestamp": 1414587457,
            "signature": hashlib.sha1(text.encode()).hexdigest(),
            "url": url,
            **changes,
        }


def answer(response: TestResponse) -> dict[str, Any]:
    assert response.status_code == 200
    payload = json.loads(response.data)
    assert isinstance(payload, dict)
    return payload


def fetch(sandbox: Sandbox, timeout: float = SOON) -> requests.Response:
    """Ask for a token over a real connection."""
    query = {
        "grant_type": "client_credential",
        "appid": sandbox.app_id,
        "secret": sandbox.app_secret,
    }
    return requests.get(sandbox.url + TOKEN, params=query, timeout=timeout, allow_redirects=False)


def in_background(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def suppress(work: Callable[[], object]) -> None:
    try:
        work()
    except requests.RequestException:
        pass
