"""client.js in a real Chromium with the real jweixin; the sandbox's phone judges."""

from __future__ import annotations

import hashlib
import logging
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask, Response, request

import flask_wxjsapi
from flask_wxjsapi import Credential, TicketServer, WxJsApi
from flask_wxjsapi.sandbox import Sandbox

from ..cards import LINKS
from ..conftest import wait_until
from .conftest import ANDROID, IPHONE, Phone
from .phone_page import CARD

pytestmark = pytest.mark.browser

MakeApp = Callable[..., tuple[Flask, WxJsApi]]
OpenPhone = Callable[..., Phone]
Serve = Callable[..., str]

PAGE = """<!doctype html><meta charset="utf-8"><title>page</title>
<script{nonce} src="{sandbox}/sandbox/bridge.js"></script>
{head}
<script{nonce} src="/wxjsapi/client.js"></script>
<script{nonce}>
  window.attempt = (options) => wxjsapi.config(options).then(
    (wx) => (wx === window.wx ? "config:ok" : "another wx"),
    (error) => error.errMsg || error.message);
</script>
"""


class Site:
    """An app whose every address is the same page, as a single-page app's is."""

    def __init__(self, app: Flask, wxjsapi: WxJsApi, sandbox: Sandbox, head: str = "") -> None:
        self.app, self.wxjsapi, self.sandbox, self.head = app, wxjsapi, sandbox, head
        self.asked: list[tuple[str, bool]] = []  # what the endpoint was asked for, and rejected
        self.accounts: list[str | None] = []  # and for which account
        self.policy = ""
        self.url = ""
        app.before_request(self._note)
        app.add_url_rule("/", "page", self._page)
        app.add_url_rule("/<path:path>", "page", self._page)

    def _note(self) -> None:
        if request.path == "/wxjsapi/config":
            self.asked.append((request.args["url"], "rejected" in request.args))
            self.accounts.append(request.args.get("app_id"))

    def _page(self, path: str = "") -> Response:
        nonce = ' nonce="n0nce"' if self.policy else ""
        html = PAGE.format(sandbox=self.sandbox.url, head=self.head, nonce=nonce)
        response = Response(html, mimetype="text/html")
        if self.policy:
            response.headers["Content-Security-Policy"] = self.policy
        return response


@pytest.fixture
def make_site(make_app: MakeApp, serve: Serve, sandbox: Sandbox) -> Callable[..., Site]:
    def make(head: str = "", judge: Sandbox = sandbox, **config: Any) -> Site:
        app, wxjsapi = make_app(
            **{"WXJSAPI_URL_PREFIX": "/wxjsapi", "WXJSAPI_JS_API_LIST": ["scanQRCode"]} | config
        )
        site = Site(app, wxjsapi, judge, head)
        site.url = serve(app)
        return site

    return make


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()


def attempt(phone: Phone, options: dict[str, Any] | None = None) -> str:
    outcome: str = phone.page.evaluate("(options) => attempt(options)", options)
    return outcome


def older(phone: Phone) -> Phone:
    """The same, which does not name the address that it compared."""
    phone.page.add_init_script("sessionStorage.wxSandboxOld = '1'")
    return phone


def configs(phone: Phone) -> int:
    """How often WeChat was asked for a verdict."""
    return int(phone.page.locator(CARD).get_attribute("data-configs") or 0)


def load_again(phone: Phone) -> None:
    """client.js, as if the page had not had it before."""
    phone.page.evaluate("() => delete window.wxjsapi")
    phone.page.add_script_tag(url="/wxjsapi/client.js")


def push(phone: Phone, path: str) -> None:
    phone.page.evaluate("(path) => history.pushState({}, '', path)", path)


# -- which address ---------------------------------------------------------------------------------

ROUTES = ["/", "/list?q=%E4%B8%AD", "/item/%2F7#top", "/item/8?from=timeline&isappinstalled=0"]


@pytest.mark.parametrize("user_agent", [ANDROID, IPHONE], ids=["android", "ios"])
def test_landing_then_three_routes_and_back(
    site: Site, open_phone: OpenPhone, user_agent: str
) -> None:
    """Accepted at the first try everywhere; and so says a computation of its own."""
    phone = open_phone(user_agent)
    phone.page.goto(site.url + ROUTES[0])
    phone.page.evaluate(
        """() => {
          window.seen = [];
          const { invoke } = WeixinJSBridge;
          WeixinJSBridge.invoke = (name, args, callback) => {
            if (name === "preVerifyJSAPI") seen.push(args);
            invoke(name, args, callback);
          };
        }"""
    )
    visited = []
    for route in [*ROUTES, None]:
        if route is None:
            phone.page.go_back()
        elif visited:
            push(phone, route)
        visited.append(phone.page.url.partition("#")[0])
        assert attempt(phone) == "config:ok"
    expected = visited if user_agent is ANDROID else [visited[0]] * 5
    assert site.asked == [(url, False) for url in expected]
    with site.app.app_context():
        ticket = site.wxjsapi.ticket
    for args, url in zip(phone.page.evaluate("() => seen"), expected, strict=True):
        text = (
            f"jsapi_ticket={ticket}&noncestr={args['verifyNonceStr']}"
            f"&timestamp={args['verifyTimestamp']}&url={url}"
        )
        assert hashlib.sha1(text.encode()).hexdigest() == args["verifySignature"]
    assert (phone.errors, phone.blocked) == ([], [])


def test_a_wrong_guess_heals_and_is_remembered(site: Site, open_phone: OpenPhone) -> None:
    """Told to use the landing page where the phone compares the current one."""
    phone = open_phone(ANDROID)
    phone.page.goto(site.url + "/landing")
    push(phone, "/first")
    assert attempt(phone, {"page": "landing"}) == "config:ok"
    push(phone, "/second")
    assert attempt(phone) == "config:ok"
    landing, first, second = (site.url + path for path in ("/landing", "/first", "/second"))
    assert site.asked == [(landing, False), (first, False), (second, False)]
    assert phone.errors == []


@pytest.mark.slow
def test_a_wrong_guess_heals_on_an_older_phone(site: Site, open_phone: OpenPhone) -> None:
    """Which does not name the address that it compared: the other one is tried."""
    phone = older(open_phone(IPHONE))
    phone.page.goto(site.url + "/landing")
    push(phone, "/first")
    assert attempt(phone, {"page": "current"}) == "config:ok"
    assert site.asked == [(site.url + "/first", False), (site.url + "/landing", False)]


@pytest.mark.slow
def test_a_replaced_ticket_heals_on_any_route(
    site: Site, open_phone: OpenPhone, sandbox: Sandbox
) -> None:
    """The phone names the address, so the ticket is what is wrong."""
    phone = open_phone(ANDROID)
    phone.page.goto(site.url + "/landing")
    push(phone, "/route")
    with site.app.app_context():
        assert site.wxjsapi.ticket
    sandbox.reset()
    assert attempt(phone) == "config:ok"
    assert site.asked == [(site.url + "/route", False), (site.url + "/route", True)]


@pytest.mark.slow
def test_a_replaced_ticket_heals_on_an_older_phone(
    site: Site, open_phone: OpenPhone, sandbox: Sandbox
) -> None:
    """The other address is tried before the ticket is complained of."""
    phone = older(open_phone(ANDROID))
    phone.page.goto(site.url + "/landing")
    push(phone, "/route")
    with site.app.app_context():
        assert site.wxjsapi.ticket
    sandbox.reset()
    assert attempt(phone) == "config:ok"
    landing, route = site.url + "/landing", site.url + "/route"
    assert site.asked == [(route, False), (landing, False), (route, True)]


def test_a_client_that_comes_late_knows_the_landing_page(site: Site, open_phone: OpenPhone) -> None:
    """Loaded after the router has moved on, as a lazy import is."""
    phone = open_phone(IPHONE)
    phone.page.goto(site.url + "/landing?a=1#hash")
    push(phone, "/elsewhere")
    load_again(phone)
    assert attempt(phone) == "config:ok"
    assert site.asked == [(site.url + "/landing?a=1", False)]


# -- a ticket that is not the right one ------------------------------------------------------------


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]


def test_a_stale_ticket_heals_and_is_verified_once(
    site: Site, open_phone: OpenPhone, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """WeChat has forgotten the ticket that the app holds; the first page mends it for all."""
    with site.app.app_context():
        assert site.wxjsapi.ticket
    sandbox.reset()
    phones = [open_phone() for _ in range(3)]
    for phone in phones:
        phone.page.goto(site.url + "/shop?code=0a1B")
        assert attempt(phone) == "config:ok"
    assert sandbox.calls["getticket"] == 2  # it has forgotten the token too, so one was refused
    assert [is_rejected for _, is_rejected in site.asked] == [False, True, False, False]
    # The log has it from another thread, which may be later than the page.
    wait_until(lambda: "names another ticket" in caplog.text, what="the log has it")
    lines = [line for line in warnings(caplog) if "invalid" in line and "signature" in line]
    assert len(lines) == 1
    assert f"{site.url}/shop invalid. WeChat names another ticket" in lines[0]
    assert "0a1B" not in caplog.text


class ForeignServer(TicketServer):
    """Holds the ticket of another account until somebody saves the right one."""

    def __init__(self) -> None:
        now = time.time()
        self.credential = Credential("the-ticket-of-another-account", now, now + 7200, 1)

    def find(self, key: str) -> Credential | None:
        return self.credential

    def save(self, key: str, credential: Credential) -> None:
        self.credential = credential


@pytest.mark.slow
def test_a_foreign_ticket_heals_and_is_reported(
    make_site: Callable[..., Site],
    open_phone: OpenPhone,
    sandbox: Sandbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Somebody put another account's ticket into the store."""
    site = make_site(WXJSAPI_TICKET_SERVER=ForeignServer())
    phone = open_phone()
    phone.page.goto(site.url)
    assert attempt(phone) == "config:ok"
    assert sandbox.calls["getticket"] == 1
    wait_until(lambda: any("names another ticket" in line for line in warnings(caplog)))


@pytest.mark.slow
def test_what_does_not_heal_is_asked_for_twice_and_verified_once(
    make_site: Callable[..., Site],
    open_phone: OpenPhone,
    sandbox: Sandbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The phone belongs to another WeChat: the ticket is right, and the log looks elsewhere."""
    with Sandbox().serve() as other:
        site = make_site(judge=other)
        phones = [open_phone() for _ in range(2)]
        for phone in phones:
            phone.page.goto(site.url)
            assert attempt(phone) == "config:invalid signature"
    assert len(site.asked) == 4
    assert sandbox.calls["getticket"] == 2
    assert sum("The ticket is the one" in line for line in warnings(caplog)) == 1


@pytest.mark.slow
def test_another_refusal_is_not_retried(
    make_site: Callable[..., Site], open_phone: OpenPhone
) -> None:
    """A domain that is not the account's does not become so by asking again."""
    with Sandbox(domains=["shop.test"]).serve() as strict:
        site = make_site(judge=strict, WXJSAPI_API_BASE_URL=strict.url)
        phone = open_phone()
        phone.page.goto(site.url)
        assert attempt(phone) == "config:invalid url domain"
    assert len(site.asked) == 1


# -- where it cannot work --------------------------------------------------------------------------


def test_outside_wechat_it_says_so_at_once(
    make_app: MakeApp, serve: Serve, open_phone: OpenPhone
) -> None:
    """No request is made, nothing is loaded and nothing breaks."""
    app, _ = make_app(WXJSAPI_URL_PREFIX="/wxjsapi")
    app.add_url_rule("/", "page", lambda: '<script src="/wxjsapi/client.js"></script>')
    phone = open_phone(user_agent=None)
    phone.page.goto(serve(app))
    requests: list[str] = []
    phone.page.on("request", lambda request: requests.append(request.url))
    text = phone.page.evaluate("() => wxjsapi.config().catch((error) => error.message)")
    assert "Not inside WeChat" in text
    assert (requests, phone.errors) == ([], [])


def test_no_ticket_rejects_with_the_servers_words(
    site: Site, open_phone: OpenPhone, sandbox: Sandbox
) -> None:
    """And the page goes on."""
    sandbox.fail("45009", times=None)
    phone = open_phone()
    phone.page.goto(site.url)
    assert attempt(phone) == "There is no WeChat ticket at the moment."
    sandbox.heal()
    assert phone.errors == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("", "HTTP 200"),
        ("<html>", "HTTP 200"),
        ("{}", "HTTP 200"),
        ("[]", "HTTP 200"),
        (None, "fetch"),
    ],
)
def test_an_answer_that_is_none(
    site: Site, open_phone: OpenPhone, answer: str | None, text: str
) -> None:
    """A captive portal, a broken gateway, no network."""
    phone = open_phone()
    phone.served[r".*/wxjsapi/config\?.*"] = answer
    phone.page.goto(site.url)
    assert text in attempt(phone)


@pytest.mark.slow
def test_a_server_that_hangs_holds_up_no_later_call(site: Site, open_phone: OpenPhone) -> None:
    """The call is rejected after ten seconds, and the next one has its turn."""
    phone = open_phone()
    phone.page.clock.install()
    phone.page.goto(site.url)
    phone.page.route("**/wxjsapi/config?*", lambda route: None)
    with phone.page.expect_request("**/wxjsapi/config?*"):
        phone.page.evaluate("() => { window.first = attempt(); }")
    phone.page.clock.run_for(10_001)
    assert "10 seconds" in phone.page.evaluate("() => window.first")
    phone.page.unroute("**/wxjsapi/config?*")
    assert attempt(phone) == "config:ok"


@pytest.mark.slow
def test_the_spare_host_comes_in_where_the_first_one_hangs(
    site: Site, open_phone: OpenPhone
) -> None:
    """After ten seconds, as after an error."""
    phone = open_phone()
    phone.page.clock.install()
    phone.page.goto(site.url)
    phone.page.route("https://res.wx.qq.com/**", lambda route: None)
    with phone.page.expect_request("https://res.wx.qq.com/**"):
        phone.page.evaluate("() => { window.first = attempt(); }")
    phone.page.clock.run_for(10_001)
    assert phone.page.evaluate("() => window.first") == "config:ok"


def test_the_spare_host_of_jweixin(site: Site, open_phone: OpenPhone) -> None:
    """Where the first one is not reached."""
    phone = open_phone()
    jweixin = phone.served.popitem()[1]
    phone.served[r"https://res\.wx\.qq\.com/.*"] = None
    phone.served[r"https://res2\.wx\.qq\.com/.*"] = jweixin
    phone.page.goto(site.url)
    assert attempt(phone) == "config:ok"


@pytest.mark.slow
def test_no_jweixin_anywhere(site: Site, open_phone: OpenPhone) -> None:
    """The error names the last host."""
    phone = open_phone()
    phone.served.clear()
    phone.page.goto(site.url)
    assert "res2.wx.qq.com" in attempt(phone)
    assert phone.blocked == ["res.wx.qq.com", "res2.wx.qq.com"]


@pytest.mark.slow
def test_an_amd_loader_takes_jweixin_away(
    make_site: Callable[..., Site], open_phone: OpenPhone
) -> None:
    """Then there is no global wx, and the error says what to look for."""
    site = make_site("<script>window.define = () => {}; window.define.amd = {}</script>")
    phone = open_phone()
    phone.page.goto(site.url)
    assert "AMD" in attempt(phone)


# -- together with the page ------------------------------------------------------------------------


def test_the_share_card(site: Site, open_phone: OpenPhone) -> None:
    """Friends and Moments; whole URLs whatever the page gave, and the page's own by default."""
    phone = open_phone()
    phone.page.goto(site.url + "/item?a=1#x")
    phone.page.evaluate(
        """() => {
          window.shared = {};
          const { invoke } = WeixinJSBridge;
          WeixinJSBridge.invoke = (name, args, callback) => {
            if (name.startsWith("update")) shared[name] = args;
            invoke(name, args, callback);
          };
        }"""
    )
    card = {"title": "T</script>", "desc": "D", "imgUrl": "/i.png"}
    assert attempt(phone, {"share": card, "jsApiList": ["chooseImage"]}) == "config:ok"
    phone.page.wait_for_function("Object.keys(shared).length === 2")
    for name in ("updateAppMessageShareData", "updateTimelineShareData"):
        args = phone.page.evaluate("(name) => shared[name]", name)
        assert args["title"] == "T</script>"
        assert args["link"] == site.url + "/item?a=1"
        assert args["imgUrl"] == site.url + "/i.png"


@pytest.mark.slow
def test_the_default_link_has_nothing_of_the_visitors(site: Site, open_phone: OpenPhone) -> None:
    """As the one that the server makes, byte for byte."""
    phone = open_phone()
    phone.page.goto(site.url + "/item")
    for query, left in LINKS:
        push(phone, f"/item?{query}#top")
        title = query[:20] or "none"
        assert attempt(phone, {"share": {"title": title}}) == "config:ok"
        shared = phone.page.wait_for_function(
            """([selector, title]) => {
              const { friend, moments } = JSON.parse(
                document.querySelector(selector).dataset.shares || "{}");
              return moments && moments.title === title && [friend.link, moments.link];
            }""",
            arg=[CARD, title],
        )
        assert shared.json_value() == [site.url + "/item" + left] * 2


def test_wecom_gets_the_share_calls_that_it_has(site: Site, open_phone: OpenPhone) -> None:
    """The newer pair it has not, and a page that asks for them gets nothing."""
    phone = open_phone(ANDROID.replace("MicroMessenger", "wxwork/4.1.30 MicroMessenger"))
    phone.page.goto(site.url)
    assert attempt(phone, {"share": {"title": "T"}}) == "config:ok"
    for name in ("Share with a friend", "Share to Moments"):
        button = phone.page.locator(CARD).get_by_role("button", name=name, include_hidden=True)
        button.evaluate("button => button.click()")
    phone.page.locator(f"{CARD}[data-shares*=moments]").wait_for(state="attached")
    assert "not exist" not in "".join(phone.console)


def test_a_phone_that_does_not_tell_where_it_landed(site: Site, open_phone: OpenPhone) -> None:
    """An older iOS, and a script that comes after the router has moved on: WeChat names it."""
    phone = open_phone(IPHONE)
    phone.page.goto(site.url + "/landing")
    push(phone, "/elsewhere")
    phone.page.evaluate("() => { performance.getEntriesByType = null; }")
    load_again(phone)
    assert attempt(phone) == "config:ok"
    assert [url for url, _ in site.asked] == [site.url + "/elsewhere", site.url + "/landing"]


@pytest.mark.slow
def test_the_servers_lists_are_the_default(site: Site, open_phone: OpenPhone) -> None:
    """And a page's own list goes before them."""
    phone = open_phone()
    phone.page.goto(site.url)
    check = """(api) => new Promise((resolve) => wx.checkJsApi({
        jsApiList: [api], complete: (answer) => resolve(answer.checkResult[api])}))"""
    assert attempt(phone) == "config:ok"
    assert phone.page.evaluate(check, "scanQRCode") is True
    assert attempt(phone, {"jsApiList": ["chooseImage"]}) == "config:ok"
    assert phone.page.evaluate(check, "scanQRCode") is False
    assert phone.page.evaluate(check, "chooseImage") is True


@pytest.mark.slow
def test_a_list_of_the_page_is_not_changed(site: Site, open_phone: OpenPhone) -> None:
    """jweixin writes its own names into the list it gets."""
    phone = open_phone()
    phone.page.goto(site.url)
    names = phone.page.evaluate(
        """async () => {
          const jsApiList = ["previewImage"];
          await wxjsapi.config({ jsApiList });
          await wxjsapi.config({ jsApiList });
          return jsApiList;
        }"""
    )
    assert names == ["previewImage"]


@pytest.mark.slow
def test_handlers_of_the_page_stay_its_own(site: Site, open_phone: OpenPhone) -> None:
    """What heals is no failure to it: its wx.ready runs once, after the success."""
    phone = open_phone()
    phone.page.goto(site.url + "/landing")
    phone.page.add_script_tag(url="https://res.wx.qq.com/open/js/jweixin-1.6.0.js")
    push(phone, "/first")
    phone.page.evaluate(
        """() => {
          window.heard = [];
          wx.error((answer) => heard.push(answer.errMsg));
          wx.ready(() => wx.checkJsApi({
            jsApiList: ["scanQRCode"],
            success: (answer) => heard.push(answer.checkResult.scanQRCode),
          }));
        }"""
    )
    assert attempt(phone, {"page": "landing"}) == "config:ok"
    phone.page.wait_for_function("heard.length")
    assert phone.page.evaluate("() => heard") == [True]
    assert configs(phone) == 2


def test_a_handler_that_comes_meanwhile_waits(site: Site, open_phone: OpenPhone) -> None:
    """jweixin calls it at once where there was a wx.config before."""
    phone = open_phone()
    phone.page.goto(site.url)
    assert attempt(phone) == "config:ok"
    heard = phone.page.evaluate(
        """async () => {
          const heard = [];
          const attempts = attempt({ jsApiList: ["chooseImage"] }).then((said) => heard.push(said));
          await null;
          await null;
          wx.ready(() => heard.push("ready"));
          await attempts;
          return heard;
        }"""
    )
    assert heard == ["ready", "config:ok"]


@pytest.mark.parametrize("event", ["ready", "error"])
def test_a_handler_that_throws_hides_no_verdict(
    site: Site, open_phone: OpenPhone, event: str
) -> None:
    """The page's own wx.ready and wx.error run before ours."""
    phone = open_phone()
    phone.page.goto(site.url + "/landing")
    phone.page.add_script_tag(url="https://res.wx.qq.com/open/js/jweixin-1.6.0.js")
    push(phone, "/first")
    phone.page.evaluate(f"() => {{ wx.{event}(() => {{ throw Error('of the page'); }}); }}")
    assert attempt(phone, {"page": "landing"}) == "config:ok"


def test_calls_at_the_same_time_take_turns(site: Site, open_phone: OpenPhone) -> None:
    """A router may well be faster than WeChat; one that fails holds up no other."""
    phone = open_phone()
    phone.page.goto(site.url)
    outcomes = phone.page.evaluate(
        """() => {
          const attempts = [attempt()];
          history.pushState({}, "", "/a");
          attempts.push(attempt({ jsApiList: 1 }));
          history.pushState({}, "", "/b");
          attempts.push(attempt());
          return Promise.all(attempts);
        }"""
    )
    assert (outcomes[0], outcomes[2]) == ("config:ok", "config:ok")
    assert "concat" in outcomes[1]


@pytest.mark.slow
def test_a_bridge_that_comes_late(make_site: Callable[..., Site], open_phone: OpenPhone) -> None:
    """WeChat may put its bridge in after the page's scripts have run."""
    site = make_site(
        """<script>
          window.late = WeixinJSBridge; delete window.WeixinJSBridge;
        </script>"""
    )
    phone = open_phone()
    phone.page.goto(site.url)
    outcome = phone.page.evaluate(
        """async () => {
          const outcome = attempt();
          while (!window.wx) await new Promise((resolve) => setTimeout(resolve, 5));
          window.WeixinJSBridge = window.late;
          document.dispatchEvent(new Event("WeixinJSBridgeReady"));
          return outcome;
        }"""
    )
    assert outcome == "config:ok"


@pytest.mark.slow
def test_a_bridge_that_cannot_be_listened_to(
    make_site: Callable[..., Site], open_phone: OpenPhone
) -> None:
    """Then wx.error and wx.ready have to do, on every call."""
    site = make_site("<script>Object.freeze(WeixinJSBridge)</script>")
    phone = open_phone()
    phone.page.goto(site.url + "/landing")
    assert attempt(phone) == "config:ok"
    push(phone, "/first")
    assert attempt(phone, {"page": "landing"}) == "config:ok"
    assert site.asked[1:] == [(site.url + "/landing", False), (site.url + "/first", False)]
    assert attempt(phone, {"page": "current"}) == "config:ok"


@pytest.mark.slow
def test_a_strict_policy(site: Site, open_phone: OpenPhone) -> None:
    """What the client loads carries the page's nonce."""
    site.policy = (
        "default-src 'none'; script-src 'nonce-n0nce'; "
        f"connect-src 'self' {site.sandbox.url}; img-src 'self'"
    )
    phone = open_phone()
    phone.page.goto(site.url)
    assert attempt(phone) == "config:ok"
    assert phone.errors == []
    assert [line for line in phone.console if "Content Security Policy" in line] == []


# -- one of several accounts -----------------------------------------------------------------------

ACCOUNTS = {"wx-tea": "secret-of-tea", "wx-books": "secret-of-books"}


@pytest.fixture
def shop(make_site: Callable[..., Site], sandbox: Sandbox) -> Site:
    """A page of three accounts: the app's own, and two that come at run time."""
    site = make_site()
    for app_id, secret in ACCOUNTS.items():
        sandbox.add_account(app_id, secret)

    @site.wxjsapi.account_loader
    def load(app_id: str) -> dict[str, str] | None:
        if app_id == "wx-broken":
            raise OSError("the database is away")
        return {"APP_SECRET": ACCOUNTS[app_id]} if app_id in ACCOUNTS else None

    return site


def note_app_ids(phone: Phone) -> None:
    """Have ``window.seen`` name the account of each ``wx.config`` that WeChat judges."""
    phone.page.evaluate(
        """() => {
          window.seen = [];
          const { invoke } = WeixinJSBridge;
          WeixinJSBridge.invoke = (name, args, callback) => {
            if (name === "preVerifyJSAPI") seen.push(args.verifyAppId);
            invoke(name, args, callback);
          };
        }"""
    )


@pytest.mark.parametrize("user_agent", [ANDROID, IPHONE], ids=["android", "ios"])
def test_accounts_take_turns_on_one_page(
    shop: Site, open_phone: OpenPhone, user_agent: str
) -> None:
    """Each is accepted at the first try, whichever came before; without one it is the app's own."""
    phone = open_phone(user_agent)
    phone.page.goto(shop.url + "/landing")
    note_app_ids(phone)
    named = ["wx-tea", "wx-books", None, "wx-tea"]
    for number, app_id in enumerate(named):
        push(phone, f"/{number}")
        assert attempt(phone, {"appId": app_id} if app_id else {}) == "config:ok"
    assert shop.accounts == named
    judged = [app_id or shop.sandbox.app_id for app_id in named]
    assert phone.page.evaluate("() => seen") == judged
    assert [is_rejected for _, is_rejected in shop.asked] == [False] * 4
    assert phone.errors == []


@pytest.mark.slow
def test_accounts_that_are_called_at_the_same_time(shop: Site, open_phone: OpenPhone) -> None:
    """They take turns as well; one that does not exist holds up no other."""
    phone = open_phone()
    phone.page.goto(shop.url)
    note_app_ids(phone)
    outcomes = phone.page.evaluate(
        """() => Promise.all(
          ["wx-tea", "wx-none", "wx-books", "wx-tea"].map((appId) => attempt({ appId })))"""
    )
    assert outcomes == ["config:ok", "There is no such account.", "config:ok", "config:ok"]
    assert phone.page.evaluate("() => seen") == ["wx-tea", "wx-books", "wx-tea"]


@pytest.mark.slow
def test_what_one_account_learns_of_the_phone_is_true_of_all(
    shop: Site, open_phone: OpenPhone
) -> None:
    """Which address is compared is not the account's."""
    phone = open_phone(ANDROID)
    phone.page.goto(shop.url + "/landing")
    push(phone, "/first")
    assert attempt(phone, {"appId": "wx-tea", "page": "landing"}) == "config:ok"
    assert attempt(phone, {"appId": "wx-books"}) == "config:ok"
    landing, first = (shop.url + path for path in ("/landing", "/first"))
    assert shop.asked == [(landing, False), (first, False), (first, False)]
    assert shop.accounts == ["wx-tea", "wx-tea", "wx-books"]


def test_the_complaint_names_the_account(
    shop: Site, open_phone: OpenPhone, sandbox: Sandbox
) -> None:
    """WeChat has forgotten the ticket of one; that one is verified, and heals."""
    with shop.app.app_context():
        assert shop.wxjsapi.account("wx-tea").ticket
    sandbox.remove_account("wx-tea")
    sandbox.add_account("wx-tea", ACCOUNTS["wx-tea"])
    phone = open_phone()
    phone.page.goto(shop.url)
    assert attempt(phone, {"appId": "wx-tea"}) == "config:ok"
    assert attempt(phone, {"appId": "wx-books"}) == "config:ok"
    assert shop.accounts == ["wx-tea", "wx-tea", "wx-books"]
    assert [is_rejected for _, is_rejected in shop.asked] == [False, True, False]


@pytest.mark.slow
@pytest.mark.parametrize("app_id", ["wx-none", "", "wx-tea&rejected=1", "https://x.test/?a=1#b"])
def test_an_account_that_does_not_exist(shop: Site, open_phone: OpenPhone, app_id: str) -> None:
    """The server says so, whatever is in the AppID; an empty one is not the app's own."""
    phone = open_phone()
    phone.page.goto(shop.url)
    assert attempt(phone, {"appId": app_id}) == "There is no such account."
    assert shop.accounts == [app_id]
    assert phone.errors == []


@pytest.mark.slow
def test_an_account_that_cannot_be_loaded(shop: Site, open_phone: OpenPhone) -> None:
    """The server's words again."""
    phone = open_phone()
    phone.page.goto(shop.url)
    assert attempt(phone, {"appId": "wx-broken"}) == "There is no WeChat ticket at the moment."
    assert attempt(phone, {"appId": "wx-tea"}) == "config:ok"


def test_an_account_where_none_comes_at_run_time(site: Site, open_phone: OpenPhone) -> None:
    """The server says what is missing."""
    phone = open_phone()
    phone.page.goto(site.url)
    assert "there is no account_loader" in attempt(phone, {"appId": "wx-tea"})


# -- as a module, and from another host ------------------------------------------------------------

MODULE = """<!doctype html><meta charset="utf-8">
<script src="{sandbox}/sandbox/bridge.js"></script>
<script type="module">
  import {{ config }} from "{api}/wxjsapi/client.mjs";
  window.outcome = config().then(() => "config:ok", (error) => error.errMsg || error.message);
  window.same = config === window.wxjsapi.config;
</script>
"""
SCRIPT = """<!doctype html><meta charset="utf-8">
<script src="{sandbox}/sandbox/bridge.js"></script>
<script src="{api}/wxjsapi/client.js"></script>
<script>
  window.outcome = wxjsapi.config().then(() => "config:ok", (e) => e.errMsg || e.message);
</script>
"""


@pytest.mark.slow
@pytest.mark.parametrize("html", [MODULE, SCRIPT], ids=["module", "script"])
@pytest.mark.parametrize("is_allowed", [True, False])
def test_a_page_on_another_host(
    make_app: MakeApp,
    serve: Serve,
    open_phone: OpenPhone,
    sandbox: Sandbox,
    html: str,
    is_allowed: bool,
) -> None:
    """Its script finds the endpoint where it came from; only the hosts in the config get in."""
    pages = Flask("pages")
    front = urlsplit(serve(pages)).port
    hosts = [f"m.shop.test:{front}"] if is_allowed else ["shop.test"]
    app, _ = make_app(WXJSAPI_URL_PREFIX="/wxjsapi", WXJSAPI_PAGE_HOSTS=hosts)
    text = html.format(api=serve(app), sandbox=sandbox.url)
    pages.add_url_rule("/", "page", lambda: text)
    phone = open_phone()
    phone.page.goto(f"http://m.shop.test:{front}/?a=1")
    outcome = phone.page.evaluate("() => window.outcome")
    if is_allowed:
        assert outcome == "config:ok"
        assert phone.errors == []
    else:
        reason = f"Pages of m.shop.test:{front} are not signed here: see WXJSAPI_PAGE_HOSTS."
        assert outcome == (reason if html is SCRIPT else None)  # a module is not even loaded


@pytest.mark.slow
def test_the_module_is_the_script(site: Site, open_phone: OpenPhone) -> None:
    """One implementation, with or without a name to import."""
    html = MODULE.format(api=site.url, sandbox=site.sandbox.url)
    site.app.view_functions["page"] = lambda path="": html
    phone = open_phone()
    phone.page.goto(site.url)
    assert phone.page.evaluate("() => window.outcome") == "config:ok"
    assert phone.page.evaluate("() => window.same") is True


# -- its types -------------------------------------------------------------------------------------

USES = {
    "good.ts": """
        import { config, type Share } from "./client";
        const share: Share = { title: "T", desc: "D", link: "https://x.test", imgUrl: "/i.png" };
        config({ jsApiList: ["scanQRCode"], openTagList: [], share, page: "landing" })
          .then((wx) => wx.scanQRCode({ needResult: 1 }));
        config().then((wx) => wx.miniProgram.navigateTo({ url: "/pages/index" }));
        window.wxjsapi.config();
        wxjsapi.config({ appId: "wx0123456789abcdef" });
    """,
    "bad.ts": """
        import { config } from "./client";
        config({ jsApiList: "scanQRCode" });
        config({ apis: [] });
        config({ share: { desc: "no title" } });
        config({ page: "first" });
        config({ appId: 7 });
        config().then((wx) => wx.miniProgram.navigateTo("/pages/index"));
    """,
}


@pytest.mark.slow
def test_the_types(modules: Path, tmp_path: Path) -> None:
    """TypeScript accepts what works and refuses what does not."""
    source = Path(flask_wxjsapi.__file__).parent / "_page" / "client.d.ts"
    (tmp_path / "client.d.ts").write_text(source.read_text())
    for name, text in USES.items():
        (tmp_path / name).write_text(text)
    tsc = modules / "typescript" / "bin" / "tsc"
    command = ["node", str(tsc), "--noEmit", "--strict", "--lib", "es2020,dom", *USES]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    found = re.findall(r"^(\w+)\.ts\((\d+),", result.stdout, flags=re.M)
    assert found == [("bad", str(line)) for line in (3, 4, 5, 6, 7, 8)], result.stdout


def test_the_query_of_a_page_survives_the_way(site: Site, open_phone: OpenPhone) -> None:
    """Encoded once by the script and decoded once by the server."""
    phone = open_phone()
    url = site.url + "/?q=%25E4&r=a%2Bb+c&s=|[]{}^`'\\&code=1"
    phone.page.goto(url)
    assert attempt(phone) == "config:ok"
    assert site.asked == [(phone.page.url, False)]
    assert parse_qs(urlsplit(phone.page.url).query)["r"] == ["a+b c"]
