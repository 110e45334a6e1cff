"""The signed URL is the one on the wire: real servers, raw request lines over real sockets.

Werkzeug's server and Waitress run in a thread of this process, gunicorn in one of its own; each
serves :func:`create_app`.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, request
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.serving import make_server

from flask_wxjsapi import WxJsApi
from flask_wxjsapi._page.url import page_url
from flask_wxjsapi.sandbox import Sandbox

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parent.parent
ANSWER_TIME = 60.0  # seconds; a server that starts slowly is no failure

# -- the application under test

#: What ``servers.app`` heard its process tell: levels.
told: list[str] = []


def create_app() -> WSGIApplication:
    """Several deployments of one app; the header X-Deployment chooses.

    It asks the WeChat at ``WECHAT_URL`` of the environment.
    """
    chinese = "/中".encode().decode("latin-1")  # as PEP 3333 has it in PATH_INFO
    deployments: dict[str, WSGIApplication] = {
        "plain": _page(),
        "mounted": DispatcherMiddleware(_not_found, {"/app": _page(), chinese: _page()}),
        "proxied": ProxyFix(_page(), x_proto=1, x_host=1, x_prefix=1),
        "both": ProxyFix(DispatcherMiddleware(_not_found, {"/app": _page()}), x_prefix=1),
        "origin": _page(WXJSAPI_PUBLIC_ORIGIN="https://public.example"),
    }

    def choose(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        deployment = deployments[environ.get("HTTP_X_DEPLOYMENT", "plain")]
        return deployment(environ, start_response)

    return choose


def _page(**config: Any) -> Flask:
    """An app whose every URL shows what was signed for it."""
    app = Flask("page")
    app.config.update(
        TESTING=True,
        WXJSAPI_APP_ID="wx0000000000000000",
        WXJSAPI_APP_SECRET="sandbox-secret-0000000000000000",
        WXJSAPI_API_BASE_URL=os.environ["WECHAT_URL"],
        **config,
    )
    wxjsapi = WxJsApi(app)

    @app.before_request  # and no route: one would redirect "//" and cannot match every path
    def show() -> dict[str, Any]:
        return {
            "url": page_url(request.environ, config.get("WXJSAPI_PUBLIC_ORIGIN")),
            "config": wxjsapi.config(),
            "ticket": wxjsapi.ticket,
            "told": told,
        }

    return app


def _not_found(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("404 Not Found", [("Content-Type", "text/plain")])
    return [b"nothing is mounted here"]


# -- the servers


@contextmanager
def werkzeug() -> Iterator[int]:
    """Flask's development server in a thread."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, create_app(), threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        logging.getLogger("werkzeug").setLevel(logging.NOTSET)


@contextmanager
def waitress() -> Iterator[int]:
    """Waitress in a thread."""
    from waitress.server import create_server

    options = {"host": "127.0.0.1", "port": 0, "threads": 2}
    # By default Waitress keeps X-Forwarded-* from the app, and ProxyFix has nothing to work with.
    server = create_server(create_app(), clear_untrusted_proxy_headers=False, **options)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server.effective_port
    finally:
        # Closed in its own loop: the sockets of a loop that runs are not another thread's.
        server.trigger.pull_trigger(server.close)
        thread.join()
        server.task_dispatcher.shutdown()


@contextmanager
def gunicorn() -> Iterator[int]:
    """gunicorn with one worker, on a socket that listens before it starts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", "gunicorn", "--bind", f"fd://{listener.fileno()}"]
        command += ["--log-level", "error", "tests.test_url_servers:create_app()"]
        process = subprocess.Popen(command, cwd=ROOT, pass_fds=[listener.fileno()])
        try:
            yield listener.getsockname()[1]
        finally:
            process.terminate()
            process.wait()


SERVERS: dict[str, Callable[[], AbstractContextManager[int]]] = {
    "gunicorn": gunicorn,
    "werkzeug": werkzeug,
    "waitress": waitress,
}


@dataclass
class Server:
    name: str
    port: int

    def ask(self, target: str, host: str = "good.example", **headers: str) -> tuple[int, bytes]:
        """Send a request line as it is, with no client library to tidy it up."""
        lines = [f"GET {target} HTTP/1.1", f"Host: {host}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        with socket.create_connection(("127.0.0.1", self.port), ANSWER_TIME) as sock:
            sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
            with http.client.HTTPResponse(sock) as response:
                response.begin()
                return response.status, response.read()

    def page(self, target: str, host: str = "good.example", **headers: str) -> Page:
        status, body = self.ask(target, host, **headers)
        assert status == 200, body
        return Page(**json.loads(body))


@dataclass
class Page:
    url: str
    config: dict[str, Any]
    ticket: str
    told: list[str]

    def signs(self, url: str) -> bool:
        """Whether the signature is that of a URL, computed with hashlib alone."""
        nonce, timestamp = self.config["nonceStr"], self.config["timestamp"]
        text = f"jsapi_ticket={self.ticket}&noncestr={nonce}&timestamp={timestamp}&url={url}"
        return bool(hashlib.sha1(text.encode()).hexdigest() == self.config["signature"])


@pytest.fixture(scope="module")
def wechat() -> Iterator[Sandbox]:
    with Sandbox().serve() as sandbox, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("WECHAT_URL", sandbox.url)
        yield sandbox


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, wechat: Sandbox) -> Iterator[Server]:
    with SERVERS[request.param]() as port:
        yield Server(request.param, port)


# -- request lines

TARGETS = [
    "/",
    "/%E4%B8%AD",
    "/%e4%b8%ad",
    "/a%2Fb",
    "/%7Ex",
    "/x?",
    "/x?a|b",
    "/x?q=%zz",
    "/%",
    "/%zz",
    "/%ff",
    "/x?a=1?b=2",
    "/x?[]{}^`'\"",
    "/x?%20+",
    "/x?from=timeline&isappinstalled=0",
    "/x?to=http://evil.example/",
    "/a/../b/./c",
    "/a//b",
    "/;p=1,2:@&=+$!*'()|[]",
    "/" + 1999 * "x",
    "/x?" + 1997 * "y",
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target[:40])
def test_target_is_signed_as_it_was_sent(server: Server, target: str) -> None:
    """The URL and its signature are those of the bytes in the request line."""
    page = server.page(target)
    assert page.url == f"http://good.example{target}"
    assert page.signs(f"http://good.example{target}")


def test_two_leading_slashes(server: Server) -> None:
    """They stay, except on the development server: http.server itself drops one (gh-87389)."""
    page = server.page("//double//slash")
    path = "/double//slash" if server.name == "werkzeug" else "//double//slash"
    assert page.url == f"http://good.example{path}"
    assert page.signs(page.url)


def test_a_hash_in_the_request_line(server: Server) -> None:
    """No browser sends one; if it comes it is not signed."""
    page = server.page("/x?q#hash")
    assert page.signs("http://good.example/x?q")


@pytest.mark.parametrize(
    ("host", "path"),
    [("evil.example", "/p"), ("evil.example", "/%7Ep?q=%zz"), ("evil.example:99", "/")],
)
def test_absolute_form(server: Server, host: str, path: str) -> None:
    """In absolute form the path counts, and the host is the Host header's.

    The development server itself puts the target's host into the environ as the Host header.
    """
    page = server.page(f"http://{host}{path}")
    origin = f"http://{host}" if server.name == "werkzeug" else "http://good.example"
    assert page.url == f"{origin}{path}"
    assert page.signs(f"{origin}{path}")


@pytest.mark.parametrize("target", ["evil.example/x", "@evil.example/x", "*"])
def test_target_that_is_none(server: Server, target: str) -> None:
    """gunicorn refuses a malformed target; where one gets through, this host is signed."""
    status, body = server.ask(target)
    if status == 200:
        assert Page(**json.loads(body)).url.startswith("http://good.example/")
    else:
        assert (server.name, status) == ("gunicorn", 400)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("good.example:80", "http://good.example"),
        ("good.example:8080", "http://good.example:8080"),
        ("[::1]:5000", "http://[::1]:5000"),
    ],
)
def test_host_header(server: Server, host: str, origin: str) -> None:
    """The Host header's port is signed unless it is the scheme's own."""
    assert server.page("/x", host).signs(f"{origin}/x")


@pytest.mark.parametrize("host", ["user@evil.example", "evil.example/x", "a b"])
def test_hostile_host_header_is_a_400(server: Server, host: str) -> None:
    """A Host header that is no host is a client's error, on whichever floor it is noticed."""
    status, _ = server.ask("/x", host)
    assert status == 400


# -- prefixes and proxies


@pytest.mark.parametrize(
    "target",
    [
        "/app",
        "/app?q",
        "/app/",
        "/app/app",
        "/app/%E4%B8%AD?q=%7E",
        "/app/a%2Fb",
        "/app/%zz",
        "/app/%ff",
        "/%E4%B8%AD/x",
        "/%e4%b8%ad/%7Ex?",
    ],
)
def test_mounted_below_a_prefix(server: Server, target: str) -> None:
    """Below DispatcherMiddleware the raw target has the prefix, and it is signed once."""
    page = server.page(target, X_Deployment="mounted")
    assert page.url == f"http://good.example{target}"
    assert page.signs(f"http://good.example{target}")


@pytest.mark.parametrize(
    "target",
    ["/", "/x?q=%7E", "/%E4%B8%AD?", "/a%2Fb", "/%zz", "/%ff", "/shop", "/shop/x", "/shopping"],
)
def test_proxy_took_a_prefix_away(server: Server, target: str) -> None:
    """Behind ProxyFix scheme, host and prefix of the proxy are signed before the raw target."""
    page = server.page(
        target,
        "127.0.0.1:8000",
        X_Deployment="proxied",
        X_Forwarded_Proto="https",
        X_Forwarded_Host="public.example",
        X_Forwarded_Prefix="/shop",
    )
    assert page.url == f"https://public.example/shop{target}"
    assert page.signs(f"https://public.example/shop{target}")


@pytest.mark.parametrize("target", ["/app", "/app/x?q=%7E", "/app/app/%E4%B8%AD", "/app/shop/app"])
def test_proxy_took_one_prefix_away_and_left_another(server: Server, target: str) -> None:
    """Behind a proxy and mounted too, only the part that the raw target lacks is added."""
    page = server.page(target, X_Deployment="both", X_Forwarded_Prefix="/shop")
    assert page.url == f"http://good.example/shop{target}"
    assert page.signs(f"http://good.example/shop{target}")


def test_proxy_without_a_prefix(server: Server) -> None:
    """Behind ProxyFix alone the target is signed as it is, and the default port is left out."""
    page = server.page(
        "/%7Ex",
        X_Deployment="proxied",
        X_Forwarded_Proto="https",
        X_Forwarded_Host="public.example:443",
    )
    assert page.signs("https://public.example/%7Ex")


def test_forwarded_headers_without_proxy_fix(server: Server) -> None:
    """The host in a forwarded header that nobody vouches for is not signed."""
    page = server.page("/x", X_Forwarded_Host="evil.example", X_Forwarded_Prefix="/evil")
    assert page.signs("http://good.example/x")


@pytest.mark.parametrize("target", ["/%E4%B8%AD?", "/x?a|b", "http://evil.example/p"])
def test_public_origin(server: Server, target: str) -> None:
    """PUBLIC_ORIGIN stands before the raw path, whatever the Host header says."""
    page = server.page(target, "10.0.0.7:8000", X_Deployment="origin")
    path = target.removeprefix("http://evil.example")
    assert page.url == f"https://public.example{path}"
    assert page.signs(f"https://public.example{path}")


def test_the_phone_accepts_it(server: Server, wechat: Sandbox) -> None:
    """What the sandbox's phone computes for the page's address is what the page says."""
    config = server.page("/%E4%B8%AD?q=%7E").config
    facts = {key: config[key] for key in ("appId", "nonceStr", "timestamp", "signature")}
    assert wechat.verify(**facts, url="http://good.example/%E4%B8%AD?q=%7E#h") == "config:ok"
