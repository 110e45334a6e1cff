"""A terminal beside a server, and what is read off it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from click.testing import Result
from flask import Flask

from flask_wxjsapi import Credential, WxJsApi
from flask_wxjsapi._credential import JSAPI_TICKET

from ..conftest import nothing_goes_on

PAGE = "https://shop.example/p?a=1"
SECRET = "0123456789abcdef0123456789abcdef"
APP_ID = "wx0123456789abcdef"


class Site:
    """A server and a terminal: two apps, as two processes are, with one cache between them."""

    def __init__(self, make: Callable[..., tuple[Flask, WxJsApi]], **config: Any) -> None:
        self.server, self.wxjsapi = make(**config)
        self.app, _ = make(**config)

    def ticket(self) -> str:
        with self.server.app_context():
            ticket = self.wxjsapi.ticket
        nothing_goes_on()  # it is saved behind the reader, and the lease given back after that
        return ticket

    def access_token(self) -> str:
        with self.server.app_context():
            token = self.wxjsapi.access_token
        nothing_goes_on()
        return token

    def run(self, *args: str, **options: Any) -> Result:
        return run(self.app, *args, **options)


def run(app: Flask, *args: str, **options: Any) -> Result:
    result = app.test_cli_runner().invoke(args=["wxjsapi", *args], **options)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def lines_of(result: Result, level: str) -> list[str]:
    """The doctor's findings of a level, each on one line."""
    text = re.sub(r"\n {9}", " ", result.stdout)
    return [line for line in text.splitlines() if line.startswith(f"{level} ")]


def config_of(site: Site, url: str = PAGE) -> dict[str, Any]:
    with site.server.app_context():
        return dict(site.wxjsapi.config(url=url))


def pasted(config: dict[str, Any]) -> list[str]:
    return [
        "--nonce", config["nonceStr"], "--timestamp", str(config["timestamp"]),
        "--signature", config["signature"],
    ]  # fmt: skip


def put(site: Site, *, fresh_for: float) -> None:
    """Have a ticket in the store that is due in some seconds, or has been for some."""
    credentials = site.wxjsapi._accounts_of(site.server).own.credentials
    now = time.time()
    ticket = Credential("planted", now - 6000, now + 200 + fresh_for, int(now) - 6000)
    credentials.session().save(JSAPI_TICKET, ticket)


def said(text: str) -> str:
    """What was shown, on one line."""
    return " ".join(text.split())
