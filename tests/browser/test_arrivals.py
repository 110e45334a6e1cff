"""wx_script() wherever its HTML lands: the page stays whole and hears the verdict, everywhere."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from flask import Flask, Response, render_template_string, request

from flask_wxjsapi import WxJsApi
from flask_wxjsapi.sandbox import Sandbox

from .conftest import ANDROID, IPHONE, Phone
from .phone_page import CARD
from .test_bridge_phones import WINDOWS

pytestmark = pytest.mark.browser

WECOM = ANDROID.replace("MicroMessenger", "wxwork/4.1.30 MicroMessenger")
PHONES = {"Android": ANDROID, "iOS": IPHONE, "desktop": WINDOWS, "WeCom": WECOM}

#: What the documentation shows, and what is held here.
TABLE = Path(__file__).parents[2] / "docs" / "arrivals.csv"

HEAD = """<!doctype html><meta charset="utf-8"><title>{{ title }}</title>
<script src="{{ bridge }}/sandbox/bridge.js"></script>"""
SCRIPT = '{{ wx_script(["scanQRCode"], share={"title": "T"}) }}'
FIRST = f"""{HEAD}<body><h1>first</h1>{SCRIPT}
<script>window.order = []; wx.ready(() => order.push("ready"));</script><p id="rest">rest</p>"""
STRIPPED = f"""{HEAD}<body><h1>stripped</h1>{SCRIPT}
<script>history.replaceState(null, "", location.pathname);</script><p id="rest">rest</p>"""
HOST = HEAD + '<script src="/npm/{{ library }}"></script><body>{{ body }}<p id="rest">rest</p>'
BODIES = {
    "hx-get": '<div hx-get="/fragment" hx-trigger="load">…</div>',
    "hx-boost": '<div hx-boost="true"><a id="go" href="/next">next</a></div>',
    "Turbo": '<a id="go" href="/next">next</a>',
    "jQuery": '<div id="slot"></div><script>$(() => $("#slot").load("/fragment"))</script>',
}
LIBRARIES = {
    "hx-get": "htmx.org/dist/htmx.min.js",
    "hx-boost": "htmx.org/dist/htmx.min.js",
    "Turbo": "@hotwired/turbo/dist/turbo.es2017-umd.js",
    "jQuery": "jquery/dist/jquery.min.js",
}


class Found(NamedTuple):
    """What became of a page.

    :param configs: how often WeChat was asked for a verdict.
    :param asked: how often the page asked its server for a signature.
    """

    verdict: str
    configs: int
    asked: int


class Site:
    """Pages with wx_script() in them, and pages into which one is put."""

    def __init__(self, app: Flask, wxjsapi: WxJsApi, sandbox: Sandbox, modules: Path) -> None:
        self.app, self.wxjsapi, self.sandbox, self.modules = app, wxjsapi, sandbox, modules
        self.asked = 0
        self.url = ""
        self.cache_control: str | None = None
        app.before_request(self._note)
        app.add_url_rule("/npm/<path:name>", "npm", self._library)
        for path, template in {
            "/first": FIRST,
            "/stripped": STRIPPED,
            "/next": FIRST,
            "/fragment": f"<div><b>fragment</b>{SCRIPT}</div>",
            "/elsewhere": "<!doctype html><title>elsewhere</title>",
        }.items():
            app.add_url_rule(path, path, lambda template=template: self._page(template))
        app.add_url_rule("/host/<way>", "host", self._host)

    def _note(self) -> None:
        self.asked += request.path == "/wxjsapi/config"

    def _library(self, name: str) -> Response:
        return Response((self.modules / name).read_text("utf-8"), mimetype="text/javascript")

    def _page(self, template: str, **names: Any) -> Response:
        html = render_template_string(template, bridge=self.sandbox.url, title="page", **names)
        response = Response(html, mimetype="text/html")
        if self.cache_control:
            response.headers["Cache-Control"] = self.cache_control
        return response

    def _host(self, way: str) -> Response:
        return self._page(HOST.replace("{{ body }}", BODIES[way]), library=LIBRARIES[way])

    def replace_ticket(self) -> None:
        """WeChat has another one by now, and so has the app."""
        self.sandbox.reset()
        with self.app.app_context():
            self.wxjsapi.refresh()


@pytest.fixture
def make_site(
    make_app: Callable[..., tuple[Flask, WxJsApi]],
    serve: Callable[..., str],
    sandbox: Sandbox,
    modules: Path,
) -> Callable[..., Site]:
    def make(**config: Any) -> Site:
        app, wxjsapi = make_app(**config)
        site = Site(app, wxjsapi, sandbox, modules)
        site.url = serve(app)
        return site

    return make


# -- the ways


def first_load(phone: Phone, site: Site) -> None:
    phone.page.goto(f"{site.url}/first?a=1")


def put_in(way: str) -> Callable[[Phone, Site], None]:
    return lambda phone, site: phone.page.goto(f"{site.url}/host/{way}") and None


def link(way: str) -> Callable[[Phone, Site], None]:
    def follow(phone: Phone, site: Site) -> None:
        phone.page.goto(f"{site.url}/host/{way}")
        phone.page.click("#go")
        phone.page.wait_for_url(f"{site.url}/next")

    return follow


def back(phone: Phone, site: Site) -> None:
    first_load(phone, site)
    settled(phone)
    phone.page.goto(f"{site.url}/elsewhere")
    site.replace_ticket()
    phone.page.go_back(wait_until="commit")


def kept_back(phone: Phone, site: Site) -> None:
    site.cache_control = "private, max-age=0"
    phone.page.add_init_script("addEventListener('pageshow', (e) => { kept = e.persisted; })")
    back(phone, site)
    phone.page.wait_for_function("window.kept")


def late(phone: Phone, site: Site) -> None:
    phone.page.add_init_script("sessionStorage.wxSandboxLate = '300'")
    phone.page.goto(f"{site.url}/stripped?code=071h&state=x")


WAYS: dict[str, Callable[[Phone, Site], None]] = {
    "first load": first_load,
    "htmx hx-get": put_in("hx-get"),
    "htmx hx-boost": link("hx-boost"),
    "Turbo": link("Turbo"),
    "jQuery .load": put_in("jQuery"),
    "back": back,
    "back, kept by the browser": kept_back,
    "replaceState, then a late bridge": late,
}


def settled(phone: Phone, *, is_ok: bool = True) -> str:
    """The verdict that stays.

    :param is_ok: whether that should be a yes; before it there may be a no, which heals.
    """
    card = phone.page.locator(f"{CARD}[data-errmsg]")
    if is_ok:
        phone.page.locator(f'{CARD}[data-errmsg="config:ok"]').wait_for(state="attached")
    else:
        card.wait_for(state="attached")
        phone.page.wait_for_load_state("networkidle")  # nobody heals meanwhile
    return card.get_attribute("data-errmsg") or ""


def arrive(
    way: str, agent: str, site: Site, open_phone: Callable[..., Phone], *, is_ok: bool
) -> Found:
    phone = open_phone(agent)
    WAYS[way](phone, site)
    verdict = settled(phone, is_ok=is_ok)
    assert phone.page.locator("h1, b, #rest").count() >= 1
    assert phone.page.title() == "page"
    assert phone.errors == []
    configs = int(phone.page.locator(CARD).get_attribute("data-configs") or 0)
    return Found(verdict.removeprefix("config:"), configs, site.asked)


def test_turbo_from_page_to_page(
    make_site: Callable[..., Site], open_phone: Callable[..., Phone]
) -> None:
    """What a page gives to wx.ready() waits for the verdict on that page, not on the one before."""
    site = make_site(WXJSAPI_URL_PREFIX="/wxjsapi")
    listens = """<a id="go" href="/two">next</a><script>
      window.heard = window.heard || [];
      wx.ready(() => heard.push(document.querySelector("wx-sandbox-phone").dataset.url));
    </script>"""
    for path in ("/one", "/two"):
        template = HOST.replace("{{ body }}", SCRIPT + listens)
        template = template.replace("{{ library }}", LIBRARIES["Turbo"])
        site.app.add_url_rule(path, path, lambda template=template: site._page(template))
    phone = open_phone()
    phone.page.goto(f"{site.url}/one")
    phone.page.wait_for_function("heard.length === 1")
    phone.page.click("#go")
    phone.page.wait_for_function("heard.length === 2")
    assert phone.page.evaluate("heard") == [f"{site.url}/one", f"{site.url}/two"]
    assert phone.errors == []


def rows() -> Iterator[Any]:
    """``make test`` has Android with URL_PREFIX; the rest takes longer."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        for way, name, *expected in csv.reader(file):
            marks = [] if name == "Android" else [pytest.mark.slow]
            found = Found(expected[0], int(expected[1]), int(expected[2]))
            yield pytest.param(way, name, True, found, marks=marks, id=f"{way}-{name}")
            found = Found(expected[3], int(expected[4]), 0)
            yield pytest.param(
                way, name, False, found, marks=pytest.mark.slow, id=f"{way}-{name}-without"
            )


@pytest.mark.parametrize(("way", "name", "has_prefix", "expected"), [*rows()])
def test_arrival(
    make_site: Callable[..., Site],
    open_phone: Callable[..., Phone],
    way: str,
    name: str,
    has_prefix: bool,
    expected: Found,
) -> None:
    """As docs/arrivals.csv has it; with URL_PREFIX always ``config:ok``."""
    site = make_site(**({"WXJSAPI_URL_PREFIX": "/wxjsapi"} if has_prefix else {}))
    is_ok = expected.verdict == "ok"
    assert arrive(way, PHONES[name], site, open_phone, is_ok=is_ok) == expected
    assert expected.configs <= 2
    assert expected.verdict == "ok" or not has_prefix
