"""What the hidden parts of a page can say; each public name of ``Words`` is a name there."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.serving import make_server

from flask_wxjsapi import WxJsApi
from flask_wxjsapi.sandbox import Sandbox

from . import inside

ACCOUNT = {"WXJSAPI_APP_ID": "wx0123456789abcdef", "WXJSAPI_APP_SECRET": "the-AppSecret"}


@contextlib.contextmanager
def served(app: Flask) -> Iterator[str]:
    """The app's URL on a port of its own."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def comes_true(condition: Callable[[], object]) -> bool:
    """Whether something is so within some seconds: log and signals come after a renewal."""
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class Words:
    account = ACCOUNT
    comes_true = staticmethod(comes_true)
    served = staticmethod(served)

    def __init__(
        self,
        namespace: dict[str, Any],
        upstream: Sandbox,
        directory: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self._namespace = namespace
        self.upstream = upstream  # the sandbox that all apps of the page ask
        self.directory = directory  # where the page is
        self.monkeypatch = monkeypatch  # undone when the page ends

    def new_app(self, **config: Any) -> Flask:
        app = Flask("app_of_the_docs", root_path=str(self.directory))
        app.config.update(ACCOUNT, **config)
        return app

    @contextlib.contextmanager
    def new_settings(self) -> Iterator[Flask]:
        """The block configures a new ``app``; then there is a ``wxjsapi`` for it."""
        app = self._namespace["app"] = self.new_app()
        yield app
        self._namespace["wxjsapi"] = WxJsApi(app)

    @contextlib.contextmanager
    def new_cache(self) -> Iterator[None]:
        """The same, and its cache is made; Redis connects only when it is used."""
        with self.new_settings() as app:
            app.config["CACHE_TYPE"] = "RedisCache"
            yield
            inside.open_cache(app)

    @contextlib.contextmanager
    def behind_a_proxy(
        self, browser: str, path: str = "/cart", prefix: str = "", address: str = ""
    ) -> Iterator[None]:
        """The same, and it signs what a browser has that is in front of a proxy."""
        with self.new_settings() as app:
            yield
        wxjsapi: WxJsApi = self._namespace["wxjsapi"]
        app.add_url_rule("/cart", view_func=lambda: wxjsapi.config())
        headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "example.com"}
        headers |= {"X-Forwarded-Prefix": prefix} if prefix else {}
        headers |= {"X-Request-Uri": address} if address else {}
        self.phone_accepts(app.test_client().get(path, headers=headers).json or {}, browser)

    def stand_in(self, module: str, **names: Any) -> None:
        """A module in the place of one that is perhaps not installed."""
        made = types.ModuleType(module)
        vars(made).update(names)
        self.monkeypatch.setitem(sys.modules, module, made)

    def without_an_account(self, app: Flask) -> Flask:
        """The same app as it is run by those who have none: with the sandbox, in debug mode."""
        other = Flask("sandboxed", root_path=str(self.directory))
        other.config.update(app.config, TESTING=False, DEBUG=True, WXJSAPI_BACKGROUND_REFRESH=False)
        other.config["WXJSAPI_API_BASE_URL"] = "sandbox"
        WxJsApi(other)
        other.add_url_rule("/", view_func=app.view_functions["index"])
        return other

    def phone_opens(self, app: Flask, url: str = "http://localhost/") -> None:
        """A phone accepts the page at this URL."""
        html = app.test_client().get(url.removeprefix("http://localhost")).text
        found = re.search(r"wx\.config\((\{.*?\})\)", html)
        assert found, html
        self.phone_accepts(json.loads(found[1]), url)

    def phone_accepts(self, config: Mapping[str, Any], url: str = "http://localhost/") -> None:
        """A phone accepts an argument of ``wx.config`` on this page."""
        signed = {key: config[key] for key in ("nonceStr", "timestamp", "signature")}
        app_id = config.get("appId", ACCOUNT["WXJSAPI_APP_ID"])
        assert self.upstream.verify(appId=app_id, url=url, **signed) == "config:ok"

    def wecom_accepts(self, config: Mapping[str, Any], url: str) -> None:
        """WeCom's phone accepts an argument of ``wx.agentConfig`` on this page."""
        signed = {key: config[key] for key in config if key != "jsApiList"}
        assert self.upstream.verify_agent(url=url, **signed) == "agentConfig:ok"
