"""A real Chromium inside "WeChat": real jweixin, and no way to any other host."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import Response, request
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Route,
    expect,
    sync_playwright,
)
from werkzeug.serving import WSGIRequestHandler, make_server

import flask_wxjsapi
from flask_wxjsapi.sandbox import Sandbox

from ..conftest import be_patient, free_port, require
from .phone_page import CONFIGURE, JWEIXIN_URL, Site

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MODULES = HERE / "node_modules"
JWEIXIN = "jweixin-module/lib/index.js"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Mobile/15E148 MicroMessenger/8.0.50(0x18003234) Language/zh_CN"
)
ANDROID = (
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 "
    "Chrome/126.0.0.0 Mobile Safari/537.36 MicroMessenger/8.0.50.2701(0x28003253) Language/zh_CN"
)
_PATIENCE = 60_000  # milliseconds; a busy machine may take that long for what happens in the end
expect.set_options(timeout=_PATIENCE)
#: client.js gives everybody 10 s, and so it is a minute; tests of that limit install a clock.
_UNHURRIED = f"""{{
  const {{ setTimeout }} = window;
  window.setTimeout = (work, after, ...rest) =>
    setTimeout(work, after === 10000 ? {_PATIENCE} : after, ...rest);
}}"""
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
#: http://plain.test/ and https://tls.test/, without a port in the address, are served here.
PLAIN_PORT, TLS_PORT = free_port(), free_port()
#: Every other name that ends in .test is this machine as well, with whatever port it has.
_HOSTS = (
    f"MAP plain.test 127.0.0.1:{PLAIN_PORT}, MAP tls.test 127.0.0.1:{TLS_PORT}, "
    "MAP *.test 127.0.0.1"
)


@pytest.fixture(scope="session")
def modules() -> Path:
    """The npm packages of package.json, which ``make test`` puts here."""
    wanted = json.loads((HERE / "package.json").read_text())["dependencies"]
    if not all((MODULES / name).exists() for name in wanted):
        npm_install(HERE)
    return MODULES


@pytest.fixture(scope="session")
def npm_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What users get of ``client``: the folder that its tarball unpacks to."""
    directory = tmp_path_factory.mktemp("npm")
    shutil.copytree(ROOT / "client", directory / "client")
    shutil.copy(ROOT / "LICENSE", directory)
    (directory / "flask_wxjsapi").symlink_to(Path(flask_wxjsapi.__file__).parent)
    command = [tool("npm"), "pack", "--silent", "--pack-destination", str(directory)]
    subprocess.run(command, cwd=directory / "client", check=True, stdin=subprocess.DEVNULL)
    (tarball,) = directory.glob("*.tgz")
    with tarfile.open(tarball) as tar:
        tar.extractall(directory, filter="data")
    return directory / "package"


def npm_install(folder: Path) -> None:
    """Bring what the package.json of a folder names."""
    command = [tool("npm"), "install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"]
    subprocess.run(command, cwd=folder, check=True, stdin=subprocess.DEVNULL)


def tool(name: str) -> str:
    """Where ``npm`` or ``node`` is."""
    found = shutil.which(name)
    if found is None:
        require("chromium", f"no {name}, which brings real scripts to the browser tests")
    return str(found)


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    binary = shutil.which("chromium")
    if binary is None:
        require("chromium", "no chromium on PATH, so no browser tests: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=binary,
            args=[*_FLAGS, f"--host-resolver-rules={_HOSTS}"],
            ignore_default_args=["--disable-back-forward-cache"],  # phones have one
            timeout=2 * _PATIENCE,
        )
        yield browser
        browser.close()


@pytest.fixture(autouse=True)
def _a_ticket_comes_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine: a page that gives up after 2 s is not signed, or not healed."""
    be_patient(monkeypatch)
    monkeypatch.setenv("FLASK_WXJSAPI_REFRESH_TIMEOUT", "60")  # of examples


@pytest.fixture
def make_app(make_app: Callable[..., Any]) -> Callable[..., Any]:
    """Likewise."""
    return partial(make_app, WXJSAPI_REFRESH_TIMEOUT=60)


class Phone:
    """One visitor's browser.

    ``console`` has what its pages said there, ``errors`` the exceptions nobody caught, and
    ``blocked`` the hosts that a page asked for and did not get.
    """

    def __init__(self, context: BrowserContext, modules: Path) -> None:
        self.context = context
        self.console: list[str] = []
        self.errors: list[str] = []
        self.blocked: list[str] = []
        #: What a URL that matches is answered with: text, or None to break the connection.
        self.served: dict[str, str | None] = {
            r"https://res2?\.wx\.qq\.com/open/js/jweixin-.*": (modules / JWEIXIN).read_text()
        }
        context.route("**/*", self._route)
        context.on("console", self._on_console)
        context.add_init_script(_UNHURRIED)
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        self.page: Page = context.new_page()

    def _on_console(self, message: ConsoleMessage) -> None:
        self.console.append(message.text)

    def _route(self, route: Route) -> None:
        url = route.request.url
        for pattern, text in self.served.items():
            if re.fullmatch(pattern, url):
                if text is None:
                    return route.abort()
                headers = {"Access-Control-Allow-Origin": "*"}
                return route.fulfill(body=text, content_type="text/javascript", headers=headers)
        host = urlsplit(url).hostname or ""
        if host in ("127.0.0.1", "localhost") or host.endswith(".test"):
            return route.continue_()
        self.blocked.append(host)
        return route.abort()


@pytest.fixture
def open_phone(chromium: Browser, modules: Path) -> Iterator[Callable[..., Phone]]:
    """``open_phone(user_agent)``: a visitor, inside WeChat on Android unless told otherwise."""
    contexts: list[BrowserContext] = []

    def open_one(user_agent: str | None = ANDROID, **options: Any) -> Phone:
        context = chromium.new_context(user_agent=user_agent, ignore_https_errors=True, **options)
        context.set_default_timeout(_PATIENCE)
        contexts.append(context)
        return Phone(context, modules)

    yield open_one
    for context in contexts:
        context.close()


class _QuietHandler(WSGIRequestHandler):
    def log(self, *args: Any, **kwargs: Any) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """``serve(wsgi_app)``: on a port of this machine; returns ``http://127.0.0.1:port``."""
    servers: list[Any] = []

    def start(app: Any, port: int = 0, **options: Any) -> str:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        server = make_server(
            "127.0.0.1", port, app, threaded=True, request_handler=_QuietHandler, **options
        )
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        scheme = "https" if options.get("ssl_context") else "http"
        return f"{scheme}://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def site(make_app: Callable[..., Any], serve: Callable[..., str], sandbox: Sandbox) -> Site:
    """``site(script)`` serves a page with the bridge, jweixin and that script; returns its origin.

    ``before`` and ``after`` are markup around the bridge's tag, ``share`` is SHARE, ``headers`` the
    page's, and the rest are config keys.
    """

    def start(
        script: str = CONFIGURE, *, apis: list[str] | None = None, share: object = None,
        before: str = "", bridge: str | None = None, jweixin: str | None = None,
        headers: dict[str, str] | None = None, **config: Any,
    ) -> str:  # fmt: skip
        app, wxjsapi = make_app(**config)
        if bridge is None:
            bridge = f'<script nonce="n" src="{sandbox.url}/sandbox/bridge.js"></script>'
        if jweixin is None:
            jweixin = f'<script nonce="n" src="{JWEIXIN_URL}"></script>'

        @app.get("/")
        @app.get("/<path:anything>")
        def page(anything: str = "") -> Response:
            signed = json.dumps(wxjsapi.config(apis or ["scanQRCode"]))
            code = script.replace("CONFIG", signed).replace("SHARE", _in_script(share))
            html = (
                f"<!doctype html><meta charset=utf-8><title>A page</title>{before}{bridge}{jweixin}"
                f'<body><h1>A page</h1><script nonce="n">{code}</script>'
            )
            return Response(html, headers=headers, content_type="text/html; charset=utf-8")

        @app.get("/signed")
        def signed() -> dict[str, Any]:
            return {**wxjsapi.config(["scanQRCode"], url=request.args["url"])}

        return serve(app)

    return start


def _in_script(value: object) -> str:
    return json.dumps(value).replace("<", "\\u003c")


@pytest.fixture
def open_desktop(open_phone: Callable[..., Phone]) -> Callable[..., Phone]:
    """A visitor with a desktop browser; ``mode`` is the phone chosen in the card, and ``choices``
    are the others, by their keys in sessionStorage."""

    def open_one(
        mode: str | None = None, choices: dict[str, str] | None = None, **options: Any
    ) -> Phone:
        desktop = open_phone(None, **options)
        chosen = {**({"wxSandboxPhone": mode} if mode else {}), **(choices or {})}
        if chosen:
            desktop.page.add_init_script(f"Object.assign(sessionStorage, {json.dumps(chosen)})")
        return desktop

    return open_one
