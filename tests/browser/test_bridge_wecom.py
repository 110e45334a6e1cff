"""The phone of the sandbox as one with WeCom (企业微信), with the real @wecom/jssdk on top.

Signatures are made here and not by the package, so that both cannot be wrong in one way.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask, Response, request
from playwright.sync_api import Page

from flask_wxjsapi.sandbox import Sandbox

from ..conftest import require
from .conftest import Phone

pytestmark = pytest.mark.browser

JSSDK = "https://wwcdn.weixin.qq.com/node/open/js/wecom-jssdk-2.4.4.js"
JWEIXIN = "https://res.wx.qq.com/open/js/jweixin-1.6.0.js"
CARD = "wx-sandbox-phone"
CORP = "ww0123456789"
AGENTS = {"1000002": "secret-of-mail", "1000003": "secret-of-news"}
MAIL, NEWS = AGENTS
OK = ["config:ok", "agentConfig:ok"]
#: What pages do; ``said`` gets the verdicts in the order in which they came.
SCRIPT = f"""
const sign = (whose) => async (url) =>
  (await fetch(`/sign/${{whose}}?url=${{encodeURIComponent(url)}}`)).json();
const told = (promise) =>
  promise.then((answer) => (answer.result || answer).errMsg, (error) => error.errMsg);
const both = () =>
  Promise.all([ww.ensureCorpConfigReady(), ww.ensureAgentConfigReady()].map(told));
var said = [];
function register(agentId, whose, jsApiList) {{
  const say = ({{ errMsg }}) => said.push(errMsg);
  ww.register({{
    corpId: "{CORP}", agentId, jsApiList,
    getConfigSignature: sign("corp"), onConfigComplete: say,
    // The SDK signs a config after an agentConfig that was ok with what signed the latter.
    getAgentConfigSignature: async (url) => {{
      await ww.ensureCorpConfigReady();
      return sign(whose)(url);
    }},
    onAgentConfigComplete: say,
  }});
}}
"""


@pytest.fixture
def corp() -> Iterator[Sandbox]:
    """A sandbox with a corp of two agents."""
    with Sandbox().serve() as sandbox:
        for agent, secret in AGENTS.items():
            sandbox.add_agent(CORP, secret, agent)
        yield sandbox


def signature(sandbox: Sandbox, whose: str, url: str) -> dict[str, str]:
    """What a page is given; ``whose`` is ``corp`` or the agent whose ticket is to sign."""

    def get(path: str, **query: str) -> dict[str, Any]:
        return dict(requests.get(f"{sandbox.url}/cgi-bin/{path}", params=query, timeout=60).json())

    secret = AGENTS.get(whose, AGENTS[MAIL])
    token = get("gettoken", corpid=CORP, corpsecret=secret)["access_token"]
    path = "get_jsapi_ticket" if whose == "corp" else "ticket/get"
    ticket = get(path, access_token=token, type="agent_config")["ticket"]
    text = f"jsapi_ticket={ticket}&noncestr=n0nce&timestamp=1414587457&url={url}"
    digest = hashlib.sha1(text.encode()).hexdigest()
    return {"timestamp": "1414587457", "nonceStr": "n0nce", "signature": digest}


@pytest.fixture
def open_page(
    corp: Sandbox, modules: Path, open_phone: Callable[..., Phone], serve: Callable[..., str]
) -> Callable[..., Phone]:
    """``open_page(script)``: a desktop browser with the bridge, an SDK and that script."""
    file = modules / "@wecom/jssdk/dist/wecom.global.prod.js"
    if not file.exists():
        require("chromium", "no @wecom/jssdk: npm install in tests/browser brings it")
    app = Flask("wecom")
    app.add_url_rule("/", endpoint="page")

    @app.get("/sign/<whose>")
    def sign(whose: str) -> dict[str, str]:
        return signature(corp, whose, request.args["url"])

    def open_one(script: str = "", *, sdk: str = JSSDK, query: str = "?phone=wecom") -> Phone:
        html = (
            "<!doctype html><meta charset=utf-8><title>A page</title>"
            f'<script src="{corp.url}/sandbox/bridge.js{query}"></script>'
            f'<script src="{sdk}"></script><body><h1>A page</h1><script>{SCRIPT}{script}</script>'
        )
        app.view_functions["page"] = lambda: Response(html)
        desktop = open_phone(None)
        desktop.served[re.escape(JSSDK)] = file.read_text(encoding="utf-8")
        desktop.page.goto(f"{address}/?a=1|'#hash")
        return desktop

    address = serve(app)
    return open_one


def register(agent: str, whose: str, *apis: str) -> str:
    """A page of an agent, signed with the ticket of ``whose``."""
    return f"register({agent!r}, {whose!r}, {json.dumps(apis)});"


def verdicts(page: Page) -> list[str]:
    return list(page.evaluate("both()"))


def test_both_are_ok(open_page: Callable[..., Phone]) -> None:
    """The real SDK takes the phone for WeCom's, and the card shows what it got."""
    desktop = open_page(register(MAIL, MAIL, "closeWindow"))
    assert verdicts(desktop.page) == desktop.page.evaluate("said") == OK
    card = desktop.page.locator(CARD)
    assert card.get_attribute("data-errmsg") == "config:ok"
    assert card.get_attribute("data-agenterrmsg") == "agentConfig:ok"
    assert card.get_by_role("status").all_inner_texts() == OK
    assert "WeCom" in card.get_by_role("heading").first.inner_text()
    assert card.locator("code").inner_text() == desktop.page.url.partition("#")[0]
    assert not desktop.blocked
    assert not desktop.errors


def test_agent_config_alone(open_page: Callable[..., Phone]) -> None:
    """It needs no config before it, and allows what is in its own jsApiList."""
    desktop = open_page(
        f"ww.register({{ corpId: '{CORP}', agentId: {MAIL}, jsApiList: ['closeWindow'],"
        f" getAgentConfigSignature: sign('{MAIL}') }})"
    )
    desktop.page.wait_for_selector(f"{CARD}[data-agenterrmsg='agentConfig:ok']")
    card = desktop.page.locator(CARD)
    assert card.get_attribute("data-errmsg") is None
    assert "wx.config not called yet" in card.get_by_role("status").first.inner_text()
    assert desktop.page.evaluate("told(ww.closeWindow())") == "closeWindow:ok"
    assert desktop.page.evaluate("told(ww.hideOptionMenu())") == "hideOptionMenu:permission denied"
    check = "ww.checkJsApi({jsApiList: ['closeWindow', 'scanQRCode']}).then(a => a.checkResult)"
    assert desktop.page.evaluate(check) == {"closeWindow": True, "scanQRCode": False}


def test_what_either_allowed(open_page: Callable[..., Phone]) -> None:
    """agentConfig adds to what config allowed, and takes nothing back."""
    desktop = open_page(register(MAIL, MAIL, "closeWindow"))
    verdicts(desktop.page)
    given = signature_of(desktop.page, MAIL)
    again = {"corpid": CORP, "agentid": MAIL, "jsApiList": ["hideOptionMenu"], **given}
    desktop.page.evaluate("agent => ww.invoke('agentConfig', agent)", again)
    assert desktop.page.evaluate("told(ww.hideOptionMenu())") == "hideOptionMenu:ok"
    assert desktop.page.evaluate("told(ww.closeWindow())") == "closeWindow:ok"


def signature_of(page: Page, whose: str) -> dict[str, str]:
    return dict(page.evaluate(f"sign('{whose}')(location.href.split('#')[0])"))


@pytest.mark.parametrize("whose", ["corp", NEWS])
def test_another_ticket_for_the_agent(
    corp: Sandbox, open_page: Callable[..., Phone], whose: str
) -> None:
    """Neither the corp's nor another agent's is good for it; the card leads to the cause."""
    signature(corp, MAIL, "the right ticket is there")
    desktop = open_page(register(MAIL, whose, "closeWindow"))
    expected = ["config:ok", "agentConfig:invalid signature"]
    assert verdicts(desktop.page) == expected
    card = desktop.page.locator(CARD)
    lines = card.get_by_role("status")
    assert lines.all_inner_texts() == expected
    assert [line.get_attribute("data-verdict") for line in lines.all()] == ["ok", "bad"]
    with desktop.context.expect_page() as opened:
        card.get_by_role("link", name="Why?").click()
    diagnosis = opened.value.locator("output")
    assert diagnosis.get_attribute("data-cause") == "ticket"
    label = "the one of the corp." if whose == "corp" else f"the one of agent {NEWS}."
    assert label in diagnosis.inner_text()


def test_each_agent_has_its_own(open_page: Callable[..., Phone]) -> None:
    """Two of a corp do not share a ticket, and each signs for itself."""
    for agent in AGENTS:
        assert verdicts(open_page(register(agent, agent, "closeWindow")).page) == OK


@pytest.mark.slow
def test_an_unknown_agent(open_page: Callable[..., Phone]) -> None:
    """It is a failure without a question why, and config is not concerned."""
    desktop = open_page(register("1000009", MAIL, "closeWindow"))
    assert verdicts(desktop.page) == ["config:ok", "agentConfig:fail"]
    assert desktop.page.locator(CARD).get_by_role("link", name="Why?").count() == 0


@pytest.mark.slow
def test_wecom_compares_the_current_url(open_page: Callable[..., Phone]) -> None:
    """After pushState the SDK asks for both again, for the address as it is now."""
    desktop = open_page(register(MAIL, MAIL, "closeWindow"))
    assert verdicts(desktop.page) == OK
    desktop.page.evaluate("history.pushState(null, '', '/next?b=2')")
    assert verdicts(desktop.page) == OK
    assert desktop.page.evaluate("said") == OK * 2
    assert desktop.page.locator(f"{CARD} code").inner_text() == desktop.page.url


def test_the_old_sdk(open_page: Callable[..., Phone]) -> None:
    """jweixin sees WeChat, and hands agentConfig on with the answer that WeCom's pages look at."""
    desktop = open_page(sdk=JWEIXIN)
    config = {"appId": CORP, "beta": True, "jsApiList": ["closeWindow"]}
    config |= signature_of(desktop.page, "corp")
    desktop.page.evaluate(
        "config => new Promise((done) => { wx.config(config); wx.ready(done);"
        " wx.error(({errMsg}) => said.push(errMsg)) })",
        config,
    )
    assert desktop.page.evaluate("said") == []
    agent = {"corpid": CORP, "agentid": int(MAIL), "jsApiList": []}
    agent |= signature_of(desktop.page, MAIL)
    invoke = "agent => new Promise((done) => wx.invoke('agentConfig', agent, done))"
    assert desktop.page.evaluate(invoke, agent)["err_msg"] == "agentConfig:ok"
    assert desktop.page.locator(CARD).get_by_role("status").all_inner_texts() == OK
    assert not desktop.blocked


@pytest.mark.slow
def test_wechat_has_no_agent_config(open_page: Callable[..., Phone]) -> None:
    """As in WeChat the function is missing, and the console says where it is not."""
    desktop = open_page(sdk=JWEIXIN, query="")
    answer = "new Promise((done) => WeixinJSBridge.invoke('agentConfig', {}, done))"
    assert desktop.page.evaluate(answer) == {"err_msg": "agentConfig:function not exist"}
    assert any("?phone=wecom" in line for line in desktop.console)
    assert desktop.page.locator(CARD).get_attribute("data-agenterrmsg") is None


@pytest.mark.slow
def test_the_sandbox_is_gone(open_page: Callable[..., Phone], corp: Sandbox) -> None:
    """agentConfig fails as config does."""
    desktop = open_page()
    corp.close()
    desktop.page.evaluate("WeixinJSBridge.invoke('agentConfig', {})")
    desktop.page.wait_for_selector(f"{CARD}[data-agenterrmsg='agentConfig:fail']")
    assert any('so wx.agentConfig gets "agentConfig:fail"' in line for line in desktop.console)


@pytest.mark.slow
def test_inside_the_real_wecom(corp: Sandbox, open_phone: Callable[..., Phone]) -> None:
    """Its user agent stays as it is, and it is WeCom's phone whatever the script was made for."""
    agent = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0) wxwork/5.0.0 MicroMessenger/7.0.1"
    phone = open_phone(agent)
    phone.page.goto(f"{corp.url}/sandbox/calls")
    phone.page.add_script_tag(content=corp.bridge_script())
    answer = "new Promise((done) => WeixinJSBridge.invoke('agentConfig', {}, done))"
    assert phone.page.evaluate(answer)["errMsg"] == "agentConfig:fail"
    assert phone.page.evaluate("navigator.userAgent") == agent
