"""A page of wx_script() that WeChat refuses: it has itself signed again, once, or says why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, Response, render_template_string, request

from flask_wxjsapi import WxJsApi
from flask_wxjsapi.sandbox import Sandbox

from ..conftest import wait_until
from .conftest import ANDROID, IPHONE, Phone
from .phone_page import CARD
from .test_bridge_phones import WINDOWS
from .test_template import says

pytestmark = pytest.mark.browser

PAGE = """<!doctype html><meta charset="utf-8"><title>page</title>
<script nonce="n" src="{{ bridge }}/sandbox/bridge.js"></script>{{ before|safe }}
{{ wx_script(["scanQRCode"], share={"title": "T", "desc": "D"}, nonce="n") }}{{ after|safe }}"""
#: The page's own, before or after wx_script(): what it hears of WeChat, in order.
LISTENS = """<script nonce="n">
  window.heard = window.heard || [];
  wx.error((answer) => heard.push(answer.errMsg));
  wx.ready(() => wx.checkJsApi({ jsApiList: ["scanQRCode"], success: (answer) =>
    heard.push(answer.checkResult.scanQRCode) }));
</script>"""
JWEIXIN = '<script nonce="n" src="https://res.wx.qq.com/open/js/jweixin-1.6.0.js"></script>'


class Site:
    def __init__(self, app: Flask, wxjsapi: WxJsApi, sandbox: Sandbox) -> None:
        self.app, self.wxjsapi, self.sandbox = app, wxjsapi, sandbox
        self.before = self.after = self.policy = self.url = ""
        self.asked: list[dict[str, str]] = []
        app.before_request(self._note)
        app.add_url_rule("/", "page", self._page)
        app.add_url_rule("/<path:path>", "page", self._page)

    def _note(self) -> None:
        if request.path == "/wxjsapi/config":
            self.asked.append(request.args.to_dict())

    def _page(self, path: str = "") -> Response:
        names = {"bridge": self.sandbox.url, "before": self.before, "after": self.after}
        response = Response(render_template_string(PAGE, **names), mimetype="text/html")
        if self.policy:
            response.headers["Content-Security-Policy"] = self.policy
        return response

    def lose_ticket(self) -> None:
        """WeChat has another one by now, and the app does not know."""
        with self.app.app_context():
            assert self.wxjsapi.ticket
        self.sandbox.reset()


@pytest.fixture
def make_site(
    make_app: Callable[..., tuple[Flask, WxJsApi]], serve: Callable[..., str], sandbox: Sandbox
) -> Callable[..., Site]:
    def make(**config: Any) -> Site:
        site = Site(*make_app(**config), sandbox)
        site.url = serve(site.app)
        return site

    return make


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site(WXJSAPI_URL_PREFIX="/wxjsapi")


def verdict(phone: Phone, errmsg: str = "config:ok") -> None:
    phone.page.locator(f'{CARD}[data-errmsg="{errmsg}"]').wait_for(state="attached")


def configs(phone: Phone) -> int:
    return int(phone.page.locator(CARD).get_attribute("data-configs") or 0)


def card(phone: Phone) -> dict[str, Any]:
    """What a friend and Moments would get."""
    phone.page.locator(f"{CARD}[data-shares*=friend]").wait_for(state="attached")
    return dict(json.loads(phone.page.locator(CARD).get_attribute("data-shares") or "{}"))


# -- the ticket was replaced -----------------------------------------------------------------------


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_replaced_ticket_heals(site: Site, open_phone: Callable[..., Phone], place: str) -> None:
    """jweixin sees one success; the page's own wx.ready runs once, after it, wherever it stands."""
    setattr(site, place, JWEIXIN + LISTENS if place == "before" else LISTENS)
    site.lose_ticket()
    phone = open_phone()
    phone.page.goto(f"{site.url}/shop")
    verdict(phone)
    phone.page.wait_for_function("heard.length")
    assert phone.page.evaluate("heard") == [True]
    assert configs(phone) == 2
    [asked] = site.asked
    assert (asked["url"], asked["rejected"]) == (f"{site.url}/shop", "1")
    assert site.sandbox.calls["getticket"] == 2  # one of them with a token that was lost as well
    assert card(phone)["friend"]["title"] == "T"
    assert phone.errors == []


@pytest.mark.slow
def test_what_does_not_heal_is_tried_twice(
    make_site: Callable[..., Site], open_phone: Callable[..., Phone]
) -> None:
    """The phone belongs to another WeChat: the page hears of one failure, and that is all."""
    site = make_site(WXJSAPI_URL_PREFIX="/wxjsapi")
    site.after = LISTENS
    with Sandbox().serve() as site.sandbox:
        phone = open_phone()
        phone.page.goto(site.url)
        phone.page.wait_for_function("heard.length === 2")
        assert phone.page.evaluate("heard") == ["config:invalid signature", False]
        says(phone, "WeChat refused wx.config: config:invalid signature")
        assert configs(phone) == 2
        assert len(site.asked) == 1


@pytest.mark.slow
def test_a_server_that_is_away_is_said(site: Site, open_phone: Callable[..., Phone]) -> None:
    """The page has WeChat's refusal then, and the console both."""
    site.after = LISTENS
    site.lose_ticket()
    phone = open_phone()
    phone.served[r".*/wxjsapi/config.*"] = None
    phone.page.goto(site.url)
    says(phone, "config:invalid signature. No signature from 127.0.0.1")
    assert phone.page.evaluate("heard")[0] == "config:invalid signature"
    assert configs(phone) == 1


def test_without_url_prefix_the_console_says_what_to_set(
    make_site: Callable[..., Site], open_phone: Callable[..., Phone]
) -> None:
    """There is nobody to ask."""
    site = make_site()
    site.lose_ticket()
    phone = open_phone()
    phone.page.goto(site.url)
    says(phone, "With WXJSAPI_URL_PREFIX set, this page would have itself signed again.")
    verdict(phone, "config:invalid signature")
    assert configs(phone) == 1


def test_a_cached_page_heals(site: Site, open_phone: Callable[..., Phone]) -> None:
    """Signed for the address of whoever came first, as a cache of pages has it."""
    with site.app.test_request_context("/", base_url=site.url, query_string={"from": "timeline"}):
        html = site._page().get_data(as_text=True)
    site.app.view_functions["page"] = lambda path="": html
    phone = open_phone()
    phone.page.goto(f"{site.url}/?a=1")
    verdict(phone)
    assert configs(phone) == 1  # it knows the address that it was signed for
    assert [asked["url"] for asked in site.asked] == [f"{site.url}/?a=1"]


def test_a_late_verdict_still_sets_the_card(site: Site, open_phone: Callable[..., Phone]) -> None:
    """WeChat asks its server, and a phone may be in a tunnel."""
    site.before = """<script>{
      const { invoke } = WeixinJSBridge;
      WeixinJSBridge.invoke = (name, args, callback) => invoke(name, args, (answer) => {
        if (name !== "preVerifyJSAPI") return callback(answer);
        window.answer = () => callback(answer);
      });
    }</script>"""
    phone = open_phone()
    phone.page.clock.install()
    phone.page.goto(site.url)
    phone.page.wait_for_function("!!window.answer")
    phone.page.clock.run_for(11_000)
    says(phone, "WeChat did not answer within 10 seconds.")
    phone.page.evaluate("answer()")
    assert card(phone)["friend"]["title"] == "T"


def test_a_handler_that_throws_stops_no_other(site: Site, open_phone: Callable[..., Phone]) -> None:
    """It is an error of the page's, for whatever collects those."""
    site.after = "<script>wx.ready(() => { throw Error('of the page') })</script>" + LISTENS
    phone = open_phone()
    phone.page.goto(site.url)
    phone.page.wait_for_function("heard.length")
    wait_until(lambda: phone.errors == ["of the page"], what="the error is the page's")
    assert "T" in str(card(phone))


@pytest.mark.slow
def test_a_bridge_that_cannot_be_listened_to(site: Site, open_phone: Callable[..., Phone]) -> None:
    """It heals there as well."""
    site.lose_ticket()
    phone = open_phone()
    phone.page.add_init_script("sessionStorage.wxSandboxFrozen = '1'")
    phone.page.goto(site.url)
    verdict(phone)
    assert configs(phone) == 2


@pytest.mark.slow
def test_one_of_several_accounts_heals(
    site: Site, sandbox: Sandbox, open_phone: Callable[..., Phone]
) -> None:
    """The complaint names the account."""
    sandbox.add_account("wx-tea", "secret-of-tea")
    site.wxjsapi.account_loader(lambda app_id: {"APP_SECRET": "secret-of-tea"})
    with site.app.app_context():
        assert site.wxjsapi.account("wx-tea").ticket
    sandbox.remove_account("wx-tea")
    sandbox.add_account("wx-tea", "secret-of-tea")
    site.app.view_functions["page"] = lambda path="": render_template_string(
        PAGE.replace("wx_script(", 'wx_script(app_id="wx-tea", js_api_list='), bridge=sandbox.url
    )
    phone = open_phone()
    phone.page.goto(site.url)
    verdict(phone)
    assert [asked["app_id"] for asked in site.asked] == ["wx-tea"]


# -- cards -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_prefix", [True, False])
def test_desktop_wechat_gets_the_older_pair_as_well(
    make_site: Callable[..., Site], open_phone: Callable[..., Phone], has_prefix: bool
) -> None:
    """It makes no card of the newer one."""
    site = make_site(**({"WXJSAPI_URL_PREFIX": "/wxjsapi"} if has_prefix else {}))
    phone = open_phone(WINDOWS)
    phone.page.goto(site.url)
    verdict(phone)
    for name in ("Share with a friend", "Share to Moments"):
        button = phone.page.locator(CARD).get_by_role("button", name=name, include_hidden=True)
        button.evaluate("button => button.click()")
    phone.page.locator(f"{CARD}[data-shares*=moments]").wait_for(state="attached")
    shares = card(phone)
    assert {share["kind"] for share in shares.values()} == {"card"}
    assert {share["title"] for share in shares.values()} == {"T"}


# -- pages that make it hard -----------------------------------------------------------------------

POLICY = (
    "default-src 'none'; script-src 'nonce-n'; base-uri 'none'; object-src 'none'; "
    "connect-src 'self' {sandbox}; require-trusted-types-for 'script'; trusted-types {names}"
)


@pytest.mark.parametrize("has_prefix", [True, False])
def test_trusted_types(
    make_site: Callable[..., Site], open_phone: Callable[..., Phone], has_prefix: bool
) -> None:
    """The spare host's script comes through the policy named wxjsapi."""
    site = make_site(**({"WXJSAPI_URL_PREFIX": "/wxjsapi"} if has_prefix else {}))
    site.policy = POLICY.format(sandbox=site.sandbox.url, names="wxjsapi")
    phone = open_phone()
    jweixin = phone.served.popitem()[1]
    phone.served[r"https://res\.wx\.qq\.com/.*"] = None
    phone.served[r"https://res2\.wx\.qq\.com/.*"] = jweixin
    phone.page.goto(site.url)
    verdict(phone)
    assert phone.errors == []


@pytest.mark.slow
def test_trusted_types_without_its_policy_say_so(
    site: Site, open_phone: Callable[..., Phone]
) -> None:
    """Where the spare host is not needed, nothing is missed."""
    site.policy = POLICY.format(sandbox=site.sandbox.url, names="'none'")
    phone = open_phone()
    phone.page.goto(site.url)
    verdict(phone)
    assert phone.errors == []
    phone = open_phone()
    phone.served.clear()
    phone.page.goto(site.url)
    says(phone, "wxjsapi: Failed to execute 'createPolicy'")


@pytest.mark.slow
def test_an_amd_loader_is_named(site: Site, open_phone: Callable[..., Phone]) -> None:
    """It takes jweixin to itself, and there is no wx."""
    site.before = '<script nonce="n">window.define = () => {}; window.define.amd = {}</script>'
    phone = open_phone()
    phone.page.goto(site.url)
    says(phone, "an AMD loader took it")


# -- client.js is another one, late or not there ---------------------------------------------------

CLIENT = r".*/wxjsapi/client\.js.*"
#: Puts what it is given into the page, with its scripts, as htmx does.
PUT_IN = """(html) => {
  const part = document.createRange().createContextualFragment(html);
  for (const script of part.querySelectorAll("script")) script.async = false;
  document.body.append(part);
}"""


@pytest.mark.parametrize(
    "text", [None, "<!doctype html>", "window.wxjsapi = { config() {} }"], ids=str
)
def test_a_page_without_this_client_js(
    site: Site, open_phone: Callable[..., Phone], text: str | None
) -> None:
    """It is blocked, cannot be read, or is that of 0.1, which had no push(): the page runs."""
    phone = open_phone()
    phone.served[CLIENT] = text
    phone.page.goto(site.url)
    verdict(phone)
    assert card(phone)["friend"]["title"] == "T"
    assert [error for error in phone.errors if "push" in error] == []


@pytest.mark.slow
def test_a_page_put_in_without_client_js(site: Site, open_phone: Callable[..., Phone]) -> None:
    """It runs, its own wx.ready() too, when client.js has not come for a while."""
    site.app.view_functions["page"] = lambda path="": (
        f'<!doctype html><script src="{site.sandbox.url}/sandbox/bridge.js"></script><body>'
    )
    phone = open_phone()
    phone.served[CLIENT] = None
    phone.page.clock.install()
    phone.page.goto(site.url)
    with site.app.app_context():
        html = site.wxjsapi.script(["scanQRCode"], share={"title": "T"}, url=phone.page.url)
    phone.page.evaluate(PUT_IN, str(html) + LISTENS)
    phone.page.wait_for_function("!!(window.heard && window.wx.config)")
    phone.page.clock.run_for(11_000)
    phone.page.wait_for_function("heard.length")
    verdict(phone)
    assert phone.page.evaluate("heard") == [True]
    assert card(phone)["friend"]["title"] == "T"


@pytest.mark.slow
def test_a_client_js_that_is_evaluated(site: Site, open_phone: Callable[..., Phone]) -> None:
    """As jQuery before 3.0 does in .load(): there is no current script then."""
    site.after = LISTENS
    phone = open_phone()
    phone.served[CLIENT] = "0"
    phone.page.goto(f"{site.url}/?a=1")
    del phone.served[CLIENT]
    phone.page.evaluate(
        """async () => {
          const text = await (await fetch("/wxjsapi/client.js")).text();
          (0, eval)(text);
          await wxjsapi.config({ endpoint: "/wxjsapi", share: { title: "evaluated" } });
        }"""
    )
    assert card(phone)["friend"]["title"] == "evaluated"


FORGED = [
    '<img name="currentScript" src="https://evil.example/x/">',
    '<img name="querySelector"><img name="head">',
    '<a id="wx" href="https://evil.example/"></a><form id="wxjsapi"><input name="config"></form>',
    '<form id="WeixinJSBridge"><input name="invoke"></form>',
]


@pytest.mark.parametrize("forged", FORGED)
def test_forged_elements(site: Site, open_phone: Callable[..., Phone], forged: str) -> None:
    """Whatever a visitor's text puts into the page above, nobody else is asked."""
    site.before = forged
    site.lose_ticket()
    phone = open_phone(IPHONE)
    phone.page.goto(site.url)
    verdict(phone)
    assert set(phone.blocked) <= {"evil.example"}  # the image itself
    assert len(site.asked) == 1


@pytest.mark.slow
@pytest.mark.parametrize("forged", FORGED)
def test_forged_elements_and_the_script_alone(
    site: Site, open_phone: Callable[..., Phone], forged: str
) -> None:
    """client.js, and a bridge that comes late."""
    site.app.view_functions["page"] = lambda path="": (
        f'<!doctype html><script src="{site.sandbox.url}/sandbox/bridge.js?late=200"></script>'
        f'{forged}<script src="/wxjsapi/client.js"></script>'
        '<script>wxjsapi.config({ jsApiList: ["scanQRCode"] })</script>'
    )
    phone = open_phone(ANDROID)
    phone.page.goto(site.url)
    verdict(phone)
    assert set(phone.blocked) <= {"evil.example"}
    assert len(site.asked) == 1
    assert phone.errors == []
