"""Whatever is in the address: ``config:ok``, through the template and through client.js.

Every case is a page that a real Chromium has open, behind the servers and proxies that people put
in front of an app; the sandbox's phone judges, and so does a computation of this file's own.
"""

from __future__ import annotations

import hashlib
import http.client
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from flask import Flask, render_template_string
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.serving import generate_adhoc_ssl_context, make_ssl_devcert

from flask_wxjsapi import WxJsApi
from flask_wxjsapi.sandbox import Sandbox

from ..conftest import free_port, require, wait_until
from .conftest import ANDROID, IPHONE, PLAIN_PORT, TLS_PORT, Phone

pytestmark = pytest.mark.browser

SHARED = "from=timeline&isappinstalled=0"
#: What comes after the host; a browser escapes some of it and leaves the rest alone.
PATHS = [
    "/",
    "/?",
    "/plain",
    "/plain/",
    "/plain?a=1&b=2",
    "/中文/页面",
    "/%E4%B8%AD%E6%96%87",
    "/%e4%b8%ad",  # in lower case, as some write it
    "/?q=中文&名=值",
    "/?q=%E4%B8%AD%E6%96%87",
    "/a%2Fb%2fc",
    "/a%20b?c=%20",
    "/a b?c=d e",
    "/a+b?c=d+e",
    "/a%2Bb?c=%2B",
    "/100%25?p=50%25",
    "/~user/%7Euser?h=~%7E",
    "/a'()!*,;:@$&=|{}[]^`",
    "/?a='()!*,;:@$|{}[]^`",
    '/?a=<>"\\',
    "/?a=%27%22%3C%3E%5C",
    "/?a=1?b=2",
    "/?a=1&a=2&&b",
    "/?=&",
    "/?u=https://m.shop.test/x%3Fy%3D1%23z",
    f"/item?id=7&{SHARED}",
    f"/item?{SHARED}#wechat_redirect",
    "/page#top",
    "/#/route/7?x=1",
    "/?a=1#/路由?b=中",
    "/?code=021xYZ&state=STATE",
    "/😀?e=😀",
    "/%F0%9F%98%80",
    "/.well/..hidden/a.b",
    "/" + "long-" * 400,
    "/?q=" + "长" * 220,  # 2,000 characters as the browser has them
]
#: For the fronts that change only scheme, host or prefix.
AWKWARD = [PATHS[number] for number in (0, 1, 5, 7, 10, 11, 13, 17, 18, 25, 28)]

PAGE = """<!doctype html><meta charset="utf-8"><title>page</title>
<script src="{{ sandbox }}/sandbox/bridge.js"></script>
<script>
  window.seen = [];
  const { invoke } = WeixinJSBridge;
  WeixinJSBridge.invoke = (name, args, callback) => {
    if (name !== "preVerifyJSAPI") return invoke(name, args, callback);
    invoke(name, args, (answer) => { seen.push([answer.errMsg, args]); callback(answer); });
  };
</script>
{{ wx_script(["scanQRCode"]) }}
<script src="{{ url_for("wxjsapi.client", form="js") }}"></script>
"""


class _Proxy(BaseHTTPRequestHandler):
    """A proxy as small as can be: it hands the path on as it came, less a prefix."""

    protocol_version = "HTTP/1.1"
    backend = 0
    scheme = "http"
    prefix = ""

    def do_GET(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.backend, timeout=60)
        headers = {
            "Host": f"127.0.0.1:{self.backend}",
            "X-Forwarded-Proto": self.scheme,
            "X-Forwarded-Host": self.headers["Host"],
            "X-Forwarded-Prefix": self.prefix,
        }
        path = self.path.removeprefix(self.prefix) or "/"
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        self.send_response(response.status)
        self.send_header("Content-Type", response.headers["Content-Type"])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


Front = tuple[str, list[str]]


class Fronts:
    """The app behind everything that people put before it; each gives the origin of its pages."""

    def __init__(self, app: Flask, serve: Callable[..., str], directory: Path) -> None:
        self._app, self._serve, self._directory = app, serve, directory
        self._closers: list[Callable[[], Any]] = []

    def close(self) -> None:
        for close in self._closers:
            close()

    def direct(self) -> Front:
        return self._serve(self._app), PATHS

    def forgetful_server(self) -> Front:
        """One that keeps nothing but what WSGI demands: the page says what its address is."""

        def forget(environ: dict[str, Any], start_response: Any) -> Any:
            for key in ("RAW_URI", "REQUEST_URI"):
                del environ[key]
            return self._app(environ, start_response)

        return self._serve(forget), PATHS

    def default_port(self) -> Front:
        self._serve(self._app, PLAIN_PORT)
        return "http://plain.test", AWKWARD

    def idn(self) -> Front:
        port = self._serve(self._app).rpartition(":")[2]
        return f"http://例子.test:{port}", AWKWARD

    def mounted(self) -> Front:
        mount = "/中/mnt".encode().decode("latin-1")  # as WSGI has it
        origin = self._serve(DispatcherMiddleware(Flask("root"), {mount: self._app}))
        return f"{origin}/中/mnt", AWKWARD

    def tls_proxy(self) -> Front:
        self._proxy(TLS_PORT, "https")
        return "https://tls.test", PATHS

    def tls_proxy_on_a_port(self) -> Front:
        port = free_port()
        self._proxy(port, "https")
        return f"https://shop.test:{port}", AWKWARD

    def prefix_proxy(self) -> Front:
        port = free_port()
        self._proxy(port, "http", "/shop")
        return f"http://shop.test:{port}/shop", AWKWARD

    def nginx(self) -> Front:
        binary = shutil.which("nginx")
        if binary is None:
            require("nginx", "no nginx on PATH; the small proxies here stand in for it")
        port = free_port()
        self._nginx(str(binary), port)
        return f"https://shop.test:{port}", PATHS

    def _behind_proxy(self) -> int:
        fixed = ProxyFix(self._app.wsgi_app, x_proto=1, x_host=1, x_prefix=1)
        return int(self._serve(fixed).rpartition(":")[2])

    def _proxy(self, port: int, scheme: str, prefix: str = "") -> None:
        facts = {"backend": self._behind_proxy(), "scheme": scheme, "prefix": prefix}
        server = ThreadingHTTPServer(("127.0.0.1", port), type("Proxy", (_Proxy,), facts))
        if scheme == "https":
            context = generate_adhoc_ssl_context()
            server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        self._closers += [server.shutdown, server.server_close]

    def _nginx(self, binary: str, port: int) -> None:
        """As the documentation says: no path in proxy_pass, and what was asked for in headers."""
        top = self._directory
        certificate, key = make_ssl_devcert(str(top / "tls"), host="shop.test")
        config = top / "nginx.conf"
        config.write_text(
            f"""
            daemon off; pid {top}/pid; events {{}}
            http {{
              access_log off; large_client_header_buffers 4 16k;
              client_body_temp_path {top}/body; proxy_temp_path {top}/proxy;
              fastcgi_temp_path {top}/f; uwsgi_temp_path {top}/u; scgi_temp_path {top}/s;
              server {{
                listen 127.0.0.1:{port} ssl;
                ssl_certificate {certificate}; ssl_certificate_key {key};
                location / {{
                  proxy_pass http://127.0.0.1:{self._behind_proxy()};
                  proxy_set_header X-Forwarded-Host $http_host;
                  proxy_set_header X-Forwarded-Proto $scheme;
                }}
              }}
            }}
            """
        )
        process = subprocess.Popen([binary, "-c", str(config), "-e", str(top / "error.log")])
        self._closers += [process.terminate, process.wait]

        def listens() -> bool:
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", port)) == 0

        wait_until(listens, what="nginx listens")


FRONTS = [name for name in vars(Fronts) if not name.startswith("_") and name != "close"]


@pytest.fixture
def fronts(
    make_app: Callable[..., tuple[Flask, WxJsApi]],
    serve: Callable[..., str],
    sandbox: Sandbox,
    tmp_path: Path,
) -> Iterator[Fronts]:
    app, _ = make_app(WXJSAPI_URL_PREFIX="/wxjsapi")
    app.url_map.merge_slashes = False
    page = lambda path="": render_template_string(PAGE, sandbox=sandbox.url)  # noqa: E731 - shorter so
    for rule in ("/", "/<path:path>"):
        app.add_url_rule(rule, "page", page)
    fronts = Fronts(app, serve, tmp_path)
    yield fronts
    fronts.close()


def independent(ticket: str, args: dict[str, Any], url: str) -> bool:
    text = "&".join(
        [
            f"jsapi_ticket={ticket}",
            f"noncestr={args['verifyNonceStr']}",
            f"timestamp={args['verifyTimestamp']}",
            f"url={url.split('#')[0]}",
        ]
    )
    return hashlib.sha1(text.encode()).hexdigest() == args["verifySignature"]


def verdicts(phone: Phone, address: str, ticket: str) -> list[str]:
    """What is wrong with a page; nothing, if all three agree on both signatures."""
    page = phone.page
    page.goto(address)
    page.wait_for_function("seen.length === 1")
    page.evaluate("() => wxjsapi.config().catch((error) => console.error(error.message))")
    seen = page.evaluate("() => seen")
    href = page.evaluate("() => location.href")
    if len(seen) != 2:
        return [f"{href}: {len(seen)} verdicts; {phone.console[-1:]}"]
    return [
        f"{way} of {href}: {errMsg}"
        for way, (errMsg, args) in zip(("template", "client.js"), seen, strict=True)
        if errMsg != "config:ok" or not independent(ticket, args, href)
    ]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "tls_proxy" else pytest.mark.slow) for name in FRONTS],
)
def test_every_address_is_accepted(
    fronts: Fronts,
    open_phone: Callable[..., Phone],
    sandbox: Sandbox,
    name: str,
    record_property: Callable[[str, object], None],
) -> None:
    """Both ways to sign it, on whatever stands in front of the app."""
    origin, paths = getattr(fronts, name)()
    with fronts._app.app_context():
        ticket = fronts._app.extensions["wxjsapi"]["default"].ticket
    phone = open_phone(IPHONE if name == "idn" else ANDROID)
    wrong = [line for path in paths for line in verdicts(phone, origin + path, ticket)]
    assert wrong == []
    assert phone.errors == []
    assert sandbox.calls["getticket"] == 1
    record_property("addresses", len(paths))


def test_there_are_enough_addresses() -> None:
    """Sixty and more in the fast part alone: directly, and behind TLS."""
    assert len(set(PATHS)) == len(PATHS)
    assert 2 * len(PATHS) > 60
