"""The sandbox as WeCom (企业微信): corps and their agents, agentConfig, and its phone."""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from werkzeug.test import Client

from flask_wxjsapi.sandbox import Sandbox, main
from flask_wxjsapi.sandbox.accounts import WORLDS

from ..conftest import FakeClock

CORP, SECRET, OTHER = "ww0123456789", "secret-of-mail", "secret-of-news"
MAIL, NEWS = "1000002", "1000003"
PAGE = "https://example.com/a?b=1"


class Caller:
    """A client, without a network, of a sandbox with one corp of two agents."""

    def __init__(self, clock: FakeClock, **options: Any) -> None:
        self.sandbox = Sandbox(clock=clock.time, **options)
        self.sandbox.add_agent(CORP, SECRET, MAIL)
        self.sandbox.add_agent(CORP, OTHER, NEWS)
        self.http = Client(self.sandbox)

    def get(self, path: str, **query: str) -> dict[str, Any]:
        response = self.http.get(f"/cgi-bin/{path}", query_string=query)
        assert response.status_code == 200
        payload = json.loads(response.data)
        assert isinstance(payload, dict)
        return payload

    def token(self, secret: str = SECRET, corp: str = CORP) -> str:
        return str(self.get("gettoken", corpid=corp, corpsecret=secret)["access_token"])

    def corp_ticket(self, secret: str = SECRET) -> dict[str, Any]:
        return self.get("get_jsapi_ticket", access_token=self.token(secret))

    def agent_ticket(self, secret: str = SECRET) -> dict[str, Any]:
        return self.get("ticket/get", access_token=self.token(secret), type="agent_config")

    def official(self) -> str:
        """An access token of the first account, which is none of WeCom."""
        body = {
            "grant_type": "client_credential",
            "appid": self.sandbox.app_id,
            "secret": self.sandbox.app_secret,
        }
        payload = self.http.post("/cgi-bin/stable_token", json=body).get_json(force=True)
        return str(payload["access_token"])


@pytest.fixture
def caller(clock: FakeClock) -> Caller:
    return Caller(clock)


def signed(ticket: str, url: str = PAGE) -> dict[str, Any]:
    """What a page passes on, apart from who it says it is."""
    text = f"jsapi_ticket={ticket}&noncestr=n0nce&timestamp=1414587457&url={url}"
    signature = hashlib.sha1(text.encode()).hexdigest()
    return {"nonceStr": "n0nce", "timestamp": 1414587457, "signature": signature, "url": url}


# -- access tokens


def test_gettoken_answers_a_token_and_its_life(caller: Caller) -> None:
    """Unlike the others it says errcode 0 with a success."""
    payload = caller.get("gettoken", corpid=CORP, corpsecret=SECRET)
    assert len(payload.pop("access_token")) >= 136
    assert payload == {"errcode": 0, "errmsg": "ok", "expires_in": 7200}


def test_gettoken_repeats_the_token_until_its_end(caller: Caller, clock: FakeClock) -> None:
    """It comes with the life it has left, and the next one only when it has expired."""
    first = caller.token()
    clock.advance(7199)
    payload = caller.get("gettoken", corpid=CORP, corpsecret=SECRET)
    assert (payload["access_token"], payload["expires_in"]) == (first, 1)
    clock.advance(1)
    assert caller.token() != first
    assert caller.get("get_jsapi_ticket", access_token=first)["errcode"] == 42001


def test_each_agent_has_a_token_of_its_own(caller: Caller) -> None:
    """One by corp and secret."""
    assert caller.token(SECRET) != caller.token(OTHER)


@pytest.mark.parametrize(
    ("changes", "errcode", "errmsg"),
    [
        ({"corpid": ""}, 41002, "corpid missing"),
        ({"corpid": "ww9"}, 40013, "invalid corpid"),
        ({"corpsecret": ""}, 41004, "corpsecret missing"),
        ({"corpsecret": "wrong"}, 40001, "invalid credential"),
    ],
)
def test_gettoken_refuses_wrong_settings(
    caller: Caller, changes: dict[str, str], errcode: int, errmsg: str
) -> None:
    """Each wrong or missing setting has its errcode, in WeCom's words."""
    payload = caller.get("gettoken", **{"corpid": CORP, "corpsecret": SECRET, **changes})
    assert payload.keys() == {"errcode", "errmsg"}
    assert payload["errcode"] == errcode
    more = f"more info at https://open.work.weixin.qq.com/devtool/query?e={errcode}"
    wording = rf"{errmsg}, hint: \[\d{{23}}\], from ip: 127\.0\.0\.1, {re.escape(more)}"
    assert re.fullmatch(wording, payload["errmsg"])


def test_a_stranger_is_not_allowed(clock: FakeClock) -> None:
    """60020 names the address; an agent may have a whitelist of its own."""
    caller = Caller(clock, ip_whitelist=["10.0.0.0/8"])
    payload = caller.get("gettoken", corpid=CORP, corpsecret=SECRET)
    assert payload["errcode"] == 60020
    assert payload["errmsg"].startswith("not allow to access from your ip, hint: ")
    assert ", from ip: 127.0.0.1, " in payload["errmsg"]
    caller.sandbox.add_agent(CORP, "third", "3", ip_whitelist=["127.0.0.1"])
    assert caller.token("third")


def test_gettoken_is_a_get(caller: Caller) -> None:
    """As all of them are."""
    response = caller.http.post("/cgi-bin/gettoken", data={"corpid": CORP, "corpsecret": SECRET})
    assert response.get_json(force=True)["errcode"] == 43001


# -- tickets


def test_a_ticket_answer(caller: Caller) -> None:
    """Both endpoints answer in the same form."""
    for payload in (caller.corp_ticket(), caller.agent_ticket()):
        assert len(payload.pop("ticket")) == 86
        assert payload == {"errcode": 0, "errmsg": "ok", "expires_in": 7200}


def test_whose_a_ticket_is(caller: Caller) -> None:
    """That of wx.config is the corp's, that of wx.agentConfig one agent's."""
    corps = {caller.corp_ticket(secret)["ticket"] for secret in (SECRET, OTHER)}
    agents = {caller.agent_ticket(secret)["ticket"] for secret in (SECRET, OTHER)}
    assert (len(corps), len(agents), len(corps | agents)) == (1, 2, 3)
    assert {caller.agent_ticket(secret)["ticket"] for secret in (SECRET, OTHER)} == agents


def test_corps_share_nothing(caller: Caller) -> None:
    """Not even with a secret and an agent id that are the same."""
    caller.sandbox.add_agent("ww-second", SECRET, MAIL)
    token = caller.token(corp="ww-second")
    assert token != caller.token()
    ticket = caller.get("get_jsapi_ticket", access_token=token)["ticket"]
    assert ticket != caller.corp_ticket()["ticket"]


@pytest.mark.parametrize("kind", ["corp_ticket", "agent_ticket"])
def test_the_worlds_of_tickets(clock: FakeClock, kind: str) -> None:
    """The option ``ticket`` chooses here as well."""
    answers = {}
    for world in WORLDS:
        ask = getattr(Caller(clock, ticket=world), kind)
        first = ask()
        clock.advance(100)
        second = ask()
        clock.advance(7150)
        answers[world] = [second["expires_in"], second["ticket"] == first["ticket"]]
        answers[world].append(ask()["ticket"] == first["ticket"])
    assert answers == {
        "same": [7200, True, False],
        "living": [7200, True, True],
        "dying": [7200, True, False],
        "remaining": [7100, True, False],
        "new": [7200, False, False],
    }


def test_lives_are_as_told(clock: FakeClock) -> None:
    """A demo need not wait two hours."""
    caller = Caller(clock, token_lifetime=60, ticket_lifetime=30)
    assert caller.get("gettoken", corpid=CORP, corpsecret=SECRET)["expires_in"] == 60
    first = caller.agent_ticket()
    assert first["expires_in"] == 30
    clock.advance(30)
    assert caller.agent_ticket()["ticket"] != first["ticket"]


@pytest.mark.parametrize("kind", ["", "jsapi", "wx_card"])
def test_other_types_of_ticket(caller: Caller, kind: str) -> None:
    """There is one type, and it has to be given."""
    payload = caller.get("ticket/get", access_token=caller.token(), type=kind)
    assert payload["errcode"] == 40097
    assert caller.get("ticket/get", access_token=caller.token())["errcode"] == 40097


@pytest.mark.parametrize("path", ["get_jsapi_ticket", "ticket/get"])
def test_ticket_calls_refuse_bad_tokens(caller: Caller, path: str) -> None:
    """None at all, a made-up one, and one of an official account."""
    assert caller.get(path, type="agent_config")["errcode"] == 41001
    for token in ("made-up", caller.official()):
        payload = caller.get(path, type="agent_config", access_token=token)
        assert payload["errcode"] == 40014


def test_a_token_of_wecom_is_none_of_an_official_account(caller: Caller) -> None:
    """Nor is WeCom's path one that an official account has a quota for."""
    query = {"access_token": caller.token(), "type": "jsapi"}
    assert caller.get("ticket/getticket", **query)["errcode"] == 40014
    path = "/cgi-bin/openapi/quota/get?access_token={}"
    body = {"cgi_path": "/cgi-bin/gettoken"}
    for token, errcode in ((caller.token(), 40014), (caller.official(), 76021)):
        response = caller.http.post(path.format(token), json=body)
        assert response.get_json(force=True)["errcode"] == errcode


def test_both_have_a_list_of_addresses(caller: Caller) -> None:
    """With errcode 0 in WeCom's."""
    payload = caller.get("get_api_domain_ip", access_token=caller.token())
    assert payload["ip_list"]
    assert payload["errcode"] == 0
    assert "errcode" not in caller.get("get_api_domain_ip", access_token=caller.official())


# -- limits


def test_an_agent_gets_100_tickets_an_hour(caller: Caller, clock: FakeClock) -> None:
    """Over both endpoints; what is refused is not counted, and another agent is not concerned."""
    clock.now = 1_800_000_000.0  # a full hour
    for _ in range(50):
        assert caller.corp_ticket()["errcode"] == 0
        assert caller.agent_ticket()["errcode"] == 0
    for ask in (caller.corp_ticket, caller.agent_ticket):
        assert ask()["errcode"] == 45009
        assert ask()["errmsg"].startswith("api freq out of limit, ")
    assert caller.agent_ticket(OTHER)["errcode"] == 0
    clock.advance(3599)
    assert caller.agent_ticket()["errcode"] == 45009
    clock.advance(1)
    assert caller.agent_ticket()["errcode"] == 0


def test_a_corp_gets_400_tickets_an_hour(caller: Caller, clock: FakeClock) -> None:
    """However many agents it has."""
    clock.now = 1_800_000_000.0
    for number in range(4):
        caller.sandbox.add_agent(CORP, f"secret-{number}", f"{number}")
        for _ in range(100):
            assert caller.agent_ticket(f"secret-{number}")["errcode"] == 0
    assert caller.agent_ticket()["errcode"] == 45009
    assert caller.corp_ticket(OTHER)["errcode"] == 45009
    clock.advance(3600)
    assert caller.agent_ticket()["errcode"] == 0


# -- faults, and what it remembers


@pytest.mark.parametrize("path", ["ticket/get", "/cgi-bin/ticket/get"])
def test_a_fault_can_be_meant_for_wecom(caller: Caller, path: str) -> None:
    """By name or path; a value comes in the place where WeCom has it."""
    caller.sandbox.fail("ticket:null", path=path)
    caller.sandbox.fail(-1, path="get_jsapi_ticket")
    assert caller.agent_ticket()["ticket"] is None
    assert caller.corp_ticket()["errmsg"].startswith("system error, hint: ")
    assert caller.corp_ticket()["errcode"] == 0


def test_a_fault_can_be_meant_for_one_corp(caller: Caller) -> None:
    """By its id, for all its agents."""
    caller.sandbox.add_agent("ww-second", SECRET, MAIL)
    caller.sandbox.fail(-1, times=None, app_id="ww-second")
    assert caller.agent_ticket()["errcode"] == 0
    query = {"corpid": "ww-second", "corpsecret": SECRET}
    assert caller.get("gettoken", **query)["errcode"] == -1


def test_a_revoked_token_is_replaced(caller: Caller) -> None:
    """It is invalid, not expired, and never 40001: that is WeCom's word for a wrong secret."""
    old = caller.token()
    caller.sandbox.revoke_token()
    assert caller.get("get_jsapi_ticket", access_token=old)["errcode"] == 40014
    assert caller.token() != old


def test_calls_and_history(caller: Caller) -> None:
    """Each endpoint has its name, and nothing that is shown is a secret."""
    caller.sandbox.fail('ticket:"planted"', path="ticket/get")
    caller.agent_ticket()
    secrets = {SECRET, "planted", caller.token(), caller.corp_ticket()["ticket"]}
    secrets.add(caller.agent_ticket()["ticket"])
    sandbox = caller.sandbox
    assert sandbox.calls == {"gettoken": 4, "ticket/get": 2, "get_jsapi_ticket": 1}
    assert [(call.name, call.outcome) for call in sandbox.history][:2] == [
        ("gettoken", 0),
        ("ticket/get", "ticket"),
    ]
    shown = repr((sandbox, sandbox.history, sandbox._registry.corps, sandbox._registry.agents()))
    shown += caller.http.get("/sandbox/").text
    assert not [secret for secret in secrets if secret in shown]


def test_reset_forgets_everything_but_the_agents(caller: Caller, clock: FakeClock) -> None:
    """Tokens, tickets and limits are as at the start."""
    for _ in range(100):
        caller.agent_ticket()
    token, ticket = caller.token(), caller.corp_ticket(OTHER)["ticket"]
    caller.sandbox.reset()
    assert caller.get("get_jsapi_ticket", access_token=token)["errcode"] == 40014
    assert caller.agent_ticket()["errcode"] == 0
    assert caller.corp_ticket()["ticket"] != ticket
    assert caller.corp_ticket(OTHER)["ticket"] == caller.corp_ticket()["ticket"]
    assert caller.sandbox.verify(appId=CORP, **signed(ticket)) == "config:invalid signature"


# -- agents


def test_an_agent_is_added_once(caller: Caller) -> None:
    """Again as it was is no change; anything else would hide the first."""
    token = caller.token()
    caller.sandbox.add_agent(CORP, SECRET, MAIL)
    assert caller.token() == token
    for secret, agent_id in ((SECRET, "1"), (SECRET, ""), ("x", MAIL)):
        with pytest.raises(ValueError, match="already") as error:
            caller.sandbox.add_agent(CORP, secret, agent_id)
        assert SECRET not in str(error.value)
    with pytest.raises(ValueError, match="already"):
        caller.sandbox.add_agent(CORP, SECRET, MAIL, ticket="new")


def test_agents_may_have_no_id(caller: Caller) -> None:
    """Several of them: who signs for wx.config alone has no need of it."""
    for secret in ("a", "b", "a"):
        caller.sandbox.add_agent(CORP, secret)
    assert caller.token("a") != caller.token("b")


@pytest.mark.parametrize(("rule", "error"), [({"ticket": "x"}, ValueError), ({"x": 1}, TypeError)])
def test_a_wrong_rule_adds_nobody(
    caller: Caller, rule: dict[str, Any], error: type[Exception]
) -> None:
    """Neither the agent nor its corp."""
    with pytest.raises(error):
        caller.sandbox.add_agent("ww-second", SECRET, "1", **rule)
    query = {"corpid": "ww-second", "corpsecret": SECRET}
    assert caller.get("gettoken", **query)["errcode"] == 40013


def test_a_corp_and_an_account_of_one_id_do_not_mix(caller: Caller) -> None:
    """Each has its own secrets, tokens and tickets, and the phone knows both."""
    app_id, app_secret = caller.sandbox.app_id, caller.sandbox.app_secret
    caller.sandbox.add_agent(app_id, "third", "1")
    assert caller.get("gettoken", corpid=app_id, corpsecret=app_secret)["errcode"] == 40001
    tokens = {"get_jsapi_ticket": caller.token("third", app_id)}
    tokens["ticket/getticket"] = caller.official()
    tickets = [
        caller.get(path, access_token=token, type="jsapi")["ticket"]
        for path, token in tokens.items()
    ]
    assert tickets[0] != tickets[1]
    for ticket in tickets:
        assert caller.sandbox.verify(appId=app_id, **signed(ticket)) == "config:ok"


# -- the phone


def test_the_phone_judges_wx_config_of_a_corp(caller: Caller) -> None:
    """Its own ticket is right, whichever agent asked for it; an agent's is wrong."""
    verify = caller.sandbox.verify
    ticket = caller.corp_ticket(OTHER)["ticket"]
    assert verify(appId=CORP, **signed(ticket)) == "config:ok"
    assert verify(appId="ww9", **signed(ticket)) == "config:fail"
    assert verify(appId=caller.sandbox.app_id, **signed(ticket)) == "config:invalid signature"
    wrong = signed(caller.agent_ticket()["ticket"])
    assert verify(appId=CORP, **wrong) == "config:invalid signature"


@pytest.mark.parametrize(
    ("corp", "agent", "verdict"),
    [
        (CORP, MAIL, "ok"),
        (CORP, int(MAIL), "ok"),
        (CORP, NEWS, "invalid signature"),
        (CORP, "1000009", "fail"),
        (CORP, "", "fail"),
        ("ww9", MAIL, "fail"),
    ],
)
def test_the_phone_judges_agent_config(
    caller: Caller, corp: str, agent: str | int, verdict: str
) -> None:
    """A ticket is good for the one agent that it is of."""
    caller.sandbox.add_agent(CORP, "no-id")
    caller.agent_ticket(OTHER)
    values = signed(caller.agent_ticket()["ticket"])
    found = caller.sandbox.verify_agent(corpid=corp, agentid=agent, **values)
    assert found == f"agentConfig:{verdict}"


def test_the_corps_ticket_is_not_for_agent_config(caller: Caller) -> None:
    """The two kinds are not interchangeable."""
    caller.agent_ticket()
    values = signed(caller.corp_ticket()["ticket"])
    found = caller.sandbox.verify_agent(corpid=CORP, agentid=MAIL, **values)
    assert found == "agentConfig:invalid signature"


def test_agent_config_is_signed_as_config_is(caller: Caller, clock: FakeClock) -> None:
    """Without the hash, with each of the values, and with a ticket that is still valid."""
    values = signed(caller.agent_ticket()["ticket"])

    def verdict(**changes: Any) -> str:
        return caller.sandbox.verify_agent(corpid=CORP, agentid=MAIL, **{**values, **changes})

    assert verdict(url=f"{PAGE}#/hash", timestamp="1414587457") == "agentConfig:ok"
    for change in ({"url": f"{PAGE}&c"}, {"nonceStr": "x"}, {"timestamp": 1}, {"signature": ""}):
        assert verdict(**change) == "agentConfig:invalid signature"
    clock.advance(7200)
    assert verdict() == "agentConfig:invalid signature"


def test_the_phone_knows_an_agents_domains(caller: Caller) -> None:
    """They are the agent's; wx.config works on those of all agents of the corp."""
    sandbox = caller.sandbox
    for secret, agent in (("a", "1"), ("b", "2")):
        sandbox.add_agent("ww-narrow", secret, agent, domains=[f"{secret}.example"])
        assert caller.token(secret, "ww-narrow")
    token = caller.token("a", "ww-narrow")
    corps = caller.get("get_jsapi_ticket", access_token=token)["ticket"]
    own = caller.get("ticket/get", access_token=token, type="agent_config")["ticket"]
    verdicts = {}
    for host in ("a.example", "b.example", "c.example"):
        url = f"https://{host}/"
        values = signed(own, url)
        verdicts[host] = (
            sandbox.verify(appId="ww-narrow", **signed(corps, url)),
            sandbox.verify_agent(corpid="ww-narrow", agentid="1", **values),
        )
    assert verdicts == {
        "a.example": ("config:ok", "agentConfig:ok"),
        "b.example": ("config:ok", "agentConfig:invalid url domain"),
        "c.example": ("config:invalid url domain", "agentConfig:invalid url domain"),
    }


def test_verify_over_http(caller: Caller) -> None:
    """What wx.config and wx.agentConfig get can be sent as it is, by POST or GET."""
    config = {"appId": CORP, **signed(caller.corp_ticket()["ticket"]), "beta": True}
    agent = {"corpid": CORP, "agentid": int(MAIL), **signed(caller.agent_ticket()["ticket"])}
    for values, verdict in ((config, "config:ok"), (agent, "agentConfig:ok")):
        post = caller.http.post("/sandbox/verify", json={**values, "jsApiList": []})
        get = caller.http.get("/sandbox/verify", query_string=values)
        assert post.json == get.json == {"errMsg": verdict}
    del agent["agentid"], agent["url"]
    response = caller.http.post("/sandbox/verify", json=agent)
    assert response.status_code == 400
    assert response.get_json() == {"error": "missing: agentid, url"}


def test_the_script_of_each_phone(caller: Caller) -> None:
    """WeChat is the default, over HTTP and in Python."""
    scripts = {
        phone: caller.http.get(f"/sandbox/bridge.js{phone}", base_url="http://devbox:8900/").text
        for phone in ("", "?phone=wechat", "?phone=wecom")
    }
    assert scripts[""] == scripts["?phone=wechat"] != scripts["?phone=wecom"]
    assert 'const PHONE = "wecom";' in scripts["?phone=wecom"]
    with caller.sandbox.serve() as sandbox:
        assert 'const PHONE = "wechat";' in sandbox.bridge_script()
        assert 'const PHONE = "wecom";' in sandbox.bridge_script(phone="wecom")
        with pytest.raises(ValueError, match="wechat, wecom"):
            sandbox.bridge_script(phone="qq")
    refused = caller.http.get("/sandbox/bridge.js?phone=%22;alert(1)")
    assert refused.status_code == 400
    assert refused.content_type.startswith("application/json")


def test_the_page_shows_the_agents(caller: Caller) -> None:
    """By corp and agent, as text."""
    caller.sandbox.add_agent("<script>", "x", "<b>")
    page = caller.http.get("/sandbox/").text
    for agent in (MAIL, NEWS):
        assert f"<code>{CORP}</code> <small>agent {agent}</small>" in page
    assert "?phone=wecom" in page
    assert "<script>" not in page
    assert "agent <b>" not in page


# -- why a signature is invalid


def test_every_valid_ticket_of_a_corp_may_sign(clock: FakeClock) -> None:
    """The diagnosis agrees with the phone."""
    caller = Caller(clock, ticket="new")
    first = signed(caller.corp_ticket()["ticket"])
    caller.corp_ticket(OTHER)
    answer = caller.http.post("/sandbox/diagnose", json={"appId": CORP, **first}).get_json()
    assert (answer["cause"], answer["appId"]) == ("valid", CORP)


@pytest.mark.parametrize(
    ("used", "cause", "label"),
    [
        (lambda caller: caller.agent_ticket()["ticket"], "ticket", f"agent {MAIL}"),
        (lambda caller: caller.agent_ticket(OTHER)["ticket"], "ticket", f"agent {NEWS}"),
        (lambda caller: caller.token(OTHER), "access_token", "access_token"),
    ],
)
def test_another_value_signed_wx_config(
    caller: Caller, used: Callable[[Caller], str], cause: str, label: str
) -> None:
    """Whose ticket it was stands there; the value itself does not."""
    caller.corp_ticket()
    value = used(caller)
    fields = {"appId": CORP, **signed(value, f"{PAGE}&t={value}")}
    answer = caller.http.post("/sandbox/diagnose", json=fields).get_json()
    page = caller.http.post("/sandbox/diagnose", data=fields).text
    assert answer["cause"] == cause
    assert label in answer["english"]
    for text in (page, html.unescape(page), json.dumps(answer)):
        assert value not in text


@pytest.mark.parametrize(
    ("used", "cause", "label"),
    [
        (lambda caller: caller.agent_ticket()["ticket"], "valid", ""),
        (lambda caller: caller.agent_ticket(OTHER)["ticket"], "ticket", f"agent {NEWS}"),
        (lambda caller: caller.corp_ticket()["ticket"], "ticket", "the corp"),
        (lambda caller: caller.token(), "access_token", ""),
    ],
)
def test_a_diagnosis_of_agent_config(
    caller: Caller, used: Callable[[Caller], str], cause: str, label: str
) -> None:
    """An agentid asks for the agent's ticket, with the corp's as a mistake."""
    caller.agent_ticket()
    fields = {"appId": CORP, "agentid": MAIL, **signed(used(caller))}
    answer = caller.http.post("/sandbox/diagnose", json=fields).get_json()
    assert (answer["cause"], answer["appId"]) == (cause, CORP)
    assert label in answer["english"]


def test_a_diagnosis_of_an_unknown_agent(caller: Caller) -> None:
    """It has no ticket to compare with."""
    values = signed(caller.corp_ticket()["ticket"])
    for app_id, agent in ((CORP, "1000009"), (caller.sandbox.app_id, MAIL)):
        fields = {"appId": app_id, "agentid": agent, **values}
        response = caller.http.post("/sandbox/diagnose", json=fields)
        assert response.status_code == 400
        assert "no such account" in response.get_json()["error"]


# -- the command


@pytest.fixture
def ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comes as soon as the command has nothing to do but wait."""

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)


@pytest.mark.usefixtures("ctrl_c")
def test_the_command_adds_agents(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many as are given, and their secrets are not printed."""
    added: list[tuple[str, ...]] = []

    def add(self: Sandbox, *agent: str) -> None:
        added.append(agent)

    monkeypatch.setattr(Sandbox, "add_agent", add)
    assert main(["--port", "0", "--agent", "ww1:hush:1", "--agent", "ww1:hush2:2"]) == 0
    assert added == [("ww1", "hush", "1"), ("ww1", "hush2", "2")]
    printed = capsys.readouterr().out
    assert "WeCom corp ww1, agent 2, " in printed
    assert "hush" not in printed


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(
    ("agents", "message"),
    [
        (["hush"], "CORPID:SECRET:AGENTID"),
        (["ww1:hush"], "CORPID:SECRET:AGENTID"),
        (["ww1:hush:"], "CORPID:SECRET:AGENTID"),
        (["ww1:hush:1:2"], "CORPID:SECRET:AGENTID"),
        (["ww1:hush:1", "ww1:hush:2"], "'ww1' has another agent '1' already"),
    ],
)
def test_the_command_explains_a_wrong_agent(
    agents: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A usage message, without the secret that may stand in it."""
    with pytest.raises(SystemExit) as error:
        main(["--port", "0", *(word for agent in agents for word in ("--agent", agent))])
    assert error.value.code == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert "hush" not in errors
