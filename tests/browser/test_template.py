"""wx_script() in a real Chromium: hostile text, a strict policy, and hosts that do not answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, Response, render_template_string

from flask_wxjsapi import WxJsApi
from flask_wxjsapi.sandbox import Sandbox

from ..conftest import wait_until
from .conftest import Phone

pytestmark = pytest.mark.browser

HOSTILE = [
    "</script><script>boom()</script>",
    "</SCRIPT ><img src=x onerror=boom()>",
    "<!--<script>",
    "<!-- -->]]>",
    "\"'`\\'\\\"",
    "');boom();//",
    '");boom();//',
    "${boom()}",
    "\u2028boom()\u2029",
    "&quot;);boom();//&lt;/script&gt;",
    "javascript:boom()",
    "{{ boom() }}",
    "中文 😀",
]
PAGE = """<!doctype html><meta charset="utf-8"><title>page</title>
<script nonce="n0nce">window.booms = 0; function boom() { window.booms += 1; }</script>
<script nonce="n0nce" src="{{ bridge }}/sandbox/bridge.js"></script>
<script nonce="n0nce">
  window.seen = {};
  const { invoke } = WeixinJSBridge;
  WeixinJSBridge.invoke = (name, args, callback) => {
    invoke(name, args, (answer) => { seen[name] = [args, answer]; callback(answer); });
  };
</script>
{{ wx_script(names, share=share, nonce="n0nce") }}
<script nonce="n0nce">
  wx.ready(() => { window.isReady = true; document.documentElement.dataset.ready = ""; });
  wx.error((answer) => { window.refusal = answer.errMsg; });
</script>
"""


class Site:
    def __init__(self, app: Flask, judge: Sandbox, serve: Callable[..., str]) -> None:
        self.names: list[str] = ["scanQRCode"]
        self.share: dict[str, str] | None = None
        self.policy = ""
        self._judge = judge
        app.add_url_rule("/", "page", self._page)
        app.add_url_rule("/<path:path>", "page", self._page)
        self.url = serve(app)

    def _page(self, path: str = "") -> Response:
        html = render_template_string(
            PAGE, bridge=self._judge.url, names=self.names, share=self.share
        )
        response = Response(html, mimetype="text/html")
        if self.policy:
            response.headers["Content-Security-Policy"] = self.policy
        return response


@pytest.fixture
def site(
    make_app: Callable[..., tuple[Flask, WxJsApi]], sandbox: Sandbox, serve: Callable[..., str]
) -> Site:
    app, _ = make_app()
    return Site(app, sandbox, serve)


def says(phone: Phone, text: str) -> None:
    """Wait until the console has it."""

    def said() -> bool:
        phone.page.evaluate("0")  # lets what happened in the browser arrive here
        return any(text in line for line in phone.console)

    wait_until(said, what=f"the console says: {text}")


def opened(phone: Phone, url: str) -> Any:
    phone.page.goto(url)
    phone.page.locator("html[data-ready]").wait_for(state="attached")  # no policy is against it
    return phone.page.evaluate("() => ({ booms, refusal: window.refusal, seen })")


def test_hostile_text_executes_nothing(site: Site, open_phone: Callable[..., Phone]) -> None:
    """In the list, in every field of the card and in the address; and it arrives as it was."""
    phone = open_phone()
    for text in HOSTILE:
        site.names = [text, "scanQRCode"]
        site.share = {"title": text, "desc": text, "link": text, "imgUrl": text}
        found = opened(phone, f"{site.url}/{text}?q={text}#{text}")
        assert (found["booms"], found["refusal"], phone.errors) == (0, None, [])
        args, answer = found["seen"]["preVerifyJSAPI"]
        assert args["verifyJsApiList"][:2] == [text, "scanQRCode"]
        assert answer["errMsg"] == "config:ok"
        phone.page.wait_for_function(
            "seen.updateAppMessageShareData && seen.updateTimelineShareData"
        )
        card = phone.page.evaluate("() => seen.updateAppMessageShareData[0]")
        assert [card["title"], card["desc"]] == [text] * 2


def test_a_strict_policy_is_met_by_the_nonce(
    site: Site, sandbox: Sandbox, open_phone: Callable[..., Phone]
) -> None:
    """Nothing inline and nothing from elsewhere may run without it."""
    site.policy = (
        "default-src 'none'; script-src 'nonce-n0nce'; base-uri 'none'; object-src 'none'; "
        f"connect-src {sandbox.url}; require-trusted-types-for 'script'"
    )
    site.share = {"title": "T"}
    phone = open_phone()
    assert opened(phone, site.url)["refusal"] is None
    assert phone.errors == []
    assert [line for line in phone.console if "Content Security Policy" in line] == []


@pytest.mark.parametrize("policy", ["", "script-src 'nonce-n0nce' 'strict-dynamic'"])
def test_the_spare_host_keeps_the_order(
    site: Site, open_phone: Callable[..., Phone], policy: str
) -> None:
    """The scripts behind it find ``wx``, with a policy as well."""
    site.policy = policy
    phone = open_phone()
    jweixin = phone.served.popitem()[1]
    phone.served[r"https://res\.wx\.qq\.com/.*"] = None
    phone.served[r"https://res2\.wx\.qq\.com/.*"] = jweixin
    assert opened(phone, site.url)["refusal"] is None
    assert phone.errors == []


def test_wechat_down_leaves_a_page_that_says_why(
    site: Site, sandbox: Sandbox, open_phone: Callable[..., Phone]
) -> None:
    """It renders, ``wx.ready(...)`` throws nothing, and the console has the reason."""
    sandbox.fail("502", times=None)
    site.share = {"title": "T"}
    phone = open_phone()
    phone.page.goto(site.url)
    assert phone.page.title() == "page"
    assert phone.errors == []
    says(phone, "no WeChat ticket")
    assert phone.page.evaluate("() => [typeof wx.ready, window.isReady, seen]") == [
        "function", None, {},
    ]  # fmt: skip


def test_no_jweixin_says_so(site: Site, open_phone: Callable[..., Phone]) -> None:
    """Neither host is reached: our script says so and throws nothing."""
    phone = open_phone()
    phone.served.clear()
    phone.page.goto(site.url)
    says(phone, "WeChat's script could not be loaded")
    assert phone.blocked == ["res.wx.qq.com", "res2.wx.qq.com"] * 2  # tried again
    assert all("wx is not defined" in error for error in phone.errors)  # the page's own call


def test_tojson_is_enough_for_a_script_of_ones_own(
    make_app: Callable[..., tuple[Flask, WxJsApi]],
    sandbox: Sandbox,
    serve: Callable[..., str],
    open_phone: Callable[..., Phone],
) -> None:
    """``wx.config({{ wx_config()|tojson }})``, and an attribute of the page."""
    app, _ = make_app()
    hostile = json.dumps(HOSTILE)
    page = f"""<!doctype html><script>window.booms = 0; function boom() {{ booms += 1 }}</script>
      <script src="{sandbox.url}/sandbox/bridge.js"></script>
      <script src="https://res.wx.qq.com/open/js/jweixin-1.6.0.js"></script>
      <script>
        wx.error((answer) => {{ window.refusal = answer.errMsg }});
        wx.ready(() => {{ window.isReady = true }});
        wx.config({{{{ wx_config(names)|tojson }}}});
      </script>
      <main data-config='{{{{ wx_config(names)|tojson }}}}'></main>"""
    app.add_url_rule("/", "page", lambda: render_template_string(page, names=json.loads(hostile)))
    phone = open_phone()
    phone.page.goto(serve(app) + "/?a=%E4%B8%AD'\"")
    phone.page.wait_for_function("window.isReady")
    assert phone.page.evaluate("() => [booms, window.refusal]") == [0, None]
    read = "() => JSON.parse(document.querySelector('main').dataset.config).jsApiList"
    assert phone.page.evaluate(read) == HOSTILE
    assert phone.errors == []
