"""More than one account in an app: official accounts and the agents of a WeCom corp."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, render_template_string

from flask_wxjsapi import Credential, TicketUnavailable, WeChatAPIError, WxJsApi
from flask_wxjsapi._credential import ACCESS_TOKEN, AGENT_TICKET, CARD_TICKET, JSAPI_TICKET
from flask_wxjsapi._settings import Settings, key_prefix
from flask_wxjsapi.sandbox import Sandbox

from .conftest import PATIENT, Valkey, threads_of, wait_until

pytestmark = pytest.mark.usefixtures("patient")

PAGE = "https://corp.example/p?a=%E4%B8%AD"
CORP = "ww00000000000000aa"
HR = ("hr-secret-000000000000000000000000000000000", "1000002")
CRM = ("crm-secret-00000000000000000000000000000000", "1000003")
CONFIG = ("appId", "nonceStr", "timestamp", "signature")
AGENT = ("corpid", "agentid", "nonceStr", "timestamp", "signature")


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox()
    sandbox.add_account("wx-shop", "shop-secret")
    sandbox.add_agent(CORP, *HR)
    sandbox.add_agent(CORP, *CRM)
    with sandbox.serve():
        yield sandbox


def agent_keys(sandbox: Sandbox, name: str, agent: tuple[str, str]) -> dict[str, Any]:
    keys = {
        "PLATFORM": "wecom",
        "APP_ID": CORP,
        "APP_SECRET": agent[0],
        "AGENT_ID": agent[1],
        "API_BASE_URL": sandbox.url,
        "URL_PREFIX": f"/{name}",
    }
    return {key_prefix(name) + key: value for key, value in keys.items()}


MakeAccounts = Callable[..., tuple[Flask, dict[str, WxJsApi]]]


@pytest.fixture
def make(sandbox: Sandbox) -> MakeAccounts:
    """An app with two official accounts and two agents of one corp."""

    def make(**config: Any) -> tuple[Flask, dict[str, WxJsApi]]:
        app = Flask("tests")
        app.config.update(
            TESTING=True,
            WXJSAPI_APP_ID=sandbox.app_id,
            WXJSAPI_APP_SECRET=sandbox.app_secret,
            WXJSAPI_API_BASE_URL=sandbox.url,
            SHOP_WXJSAPI_APP_ID="wx-shop",
            SHOP_WXJSAPI_APP_SECRET="shop-secret",
            SHOP_WXJSAPI_API_BASE_URL=sandbox.url,
        )
        app.config.update(agent_keys(sandbox, "hr", HR))
        app.config.update(agent_keys(sandbox, "crm", CRM))
        app.config.update(config)
        names = ("default", "shop", "hr", "crm")
        return app, {name: WxJsApi(app, name=name) for name in names}

    return make


def judge(sandbox: Sandbox, config: Any, url: str = PAGE) -> str:
    return sandbox.verify(**{key: config[key] for key in CONFIG}, url=url)


def judge_agent(sandbox: Sandbox, config: Any, url: str = PAGE) -> str:
    return sandbox.verify_agent(**{key: config[key] for key in AGENT}, url=url)


def wait_for_threads(app: Flask) -> None:
    """Until all that was begun is over, down to the last thread of it."""
    wait_until(lambda: not app.extensions["wxjsapi.engine"].runtime().threads._jobs)


# -- side by side ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["SimpleCache", "FileSystemCache", "RedisCache"])
def test_five_tickets_under_five_keys(
    sandbox: Sandbox, make: MakeAccounts, backend: str, tmp_path: Path, valkey: Valkey
) -> None:
    """Two of official accounts, the corp's and one of each agent; every page is accepted."""
    app, accounts = make(
        CACHE_TYPE=backend,
        CACHE_DIR=str(tmp_path / "cache"),
        CACHE_REDIS_URL=valkey.url,
        CACHE_OPTIONS=PATIENT if backend == "RedisCache" else {},
    )
    with app.app_context():
        for account in accounts.values():
            assert judge(sandbox, account.config(["scanQRCode"], url=PAGE)) == "config:ok"
        for name in ("hr", "crm"):
            config = accounts[name].agent_config(["selectExternalContact"], PAGE)
            assert judge_agent(sandbox, config) == "agentConfig:ok"
    keys: dict[str, set[str]] = {}
    for account in accounts.values():
        holding = account._accounts_of(app).own.credentials.holding
        for kind in (JSAPI_TICKET, AGENT_TICKET):
            held = holding.snapshot(kind).credential
            if held is not None:
                keys.setdefault(holding.keys.of(kind), set()).add(held.value)
    assert len(keys) == 5
    assert [len(values) for values in keys.values()] == [1] * 5
    assert len(set.union(*keys.values())) == 5
    if backend == "RedisCache":
        with valkey.client() as client:
            stored = {key.decode() for key in client.keys("*ticket*")}
        assert stored == set(keys)


def test_agents_share_the_corps_ticket_and_nothing_else(
    sandbox: Sandbox, make: MakeAccounts, tmp_path: Path
) -> None:
    """On a shared store the corp is asked once for both; token and agent ticket are their own."""
    app, accounts = make(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path))
    with app.app_context():
        assert accounts["hr"].ticket == accounts["crm"].ticket
        assert accounts["hr"].access_token != accounts["crm"].access_token
        hr, crm = (accounts[name].agent_config(url=PAGE) for name in ("hr", "crm"))
    assert (hr["corpid"], crm["corpid"]) == (CORP, CORP)
    assert (hr["agentid"], crm["agentid"]) == (HR[1], CRM[1])
    assert sandbox.calls["get_jsapi_ticket"] == 1
    assert (sandbox.calls["gettoken"], sandbox.calls["ticket/get"]) == (2, 2)
    # Neither's signature is good for the other.
    assert judge_agent(sandbox, hr | {"agentid": CRM[1]}) == "agentConfig:invalid signature"
    assert judge_agent(sandbox, crm | {"agentid": HR[1]}) == "agentConfig:invalid signature"


def test_keys_have_corp_digest_and_agent(sandbox: Sandbox, make: MakeAccounts) -> None:
    """A key never has the secret; another secret of the same agent is another key."""
    app, accounts = make()
    keys = accounts["hr"]._accounts_of(app).own.credentials.holding.keys
    assert keys.of(JSAPI_TICKET).endswith(f"/{CORP}}}:jsapi_ticket")
    for kind in (ACCESS_TOKEN, AGENT_TICKET):
        key = keys.of(kind)
        assert f"/{CORP}}}:" in key
        assert key.endswith(f"-{HR[1]}:{kind}")
        assert HR[0] not in key
    other, renewed = make(HR_WXJSAPI_APP_SECRET="n" * 43)
    renewed_keys = renewed["hr"]._accounts_of(other).own.credentials.holding.keys
    assert renewed_keys.of(ACCESS_TOKEN) != keys.of(ACCESS_TOKEN)
    assert renewed_keys.of(JSAPI_TICKET) == keys.of(JSAPI_TICKET)


def test_no_account_reads_another_ones_keys(sandbox: Sandbox) -> None:
    """Nothing is inherited, so a forgotten key is an error and not the other account's."""
    app = Flask("tests")
    app.config.update(
        TESTING=True,
        WXJSAPI_APP_ID=sandbox.app_id,
        WXJSAPI_APP_SECRET=sandbox.app_secret,
        WXJSAPI_JS_API_LIST=["scanQRCode"],
        SHOP_WXJSAPI_APP_ID="wx-shop",
    )
    WxJsApi(app)
    with pytest.raises(RuntimeError, match="SHOP_WXJSAPI_APP_SECRET is not set"):
        WxJsApi(app, name="shop")
    app.config["SHOP_WXJSAPI_APP_SECRET"] = "shop-secret"
    shop = WxJsApi(app, name="shop")
    assert shop._accounts_of(app).own.settings.js_api_list == ()


def test_one_accounts_fault_is_its_own(
    sandbox: Sandbox, make: MakeAccounts, caplog: pytest.LogCaptureFixture
) -> None:
    """The others go on, and their back-offs know nothing of it; the log says whose it is."""
    app, accounts = make(HR_WXJSAPI_APP_SECRET="wrong-secret")
    with app.app_context():
        with pytest.raises(WeChatAPIError):
            accounts["hr"].refresh()
        assert accounts["hr"].status().retry_at is not None
        wait_until(lambda: "The access_token of hr was not renewed." in caplog.text)
        for name in ("default", "shop", "crm"):
            assert accounts[name].ticket
            assert accounts[name].status().last_error is None


def in_the_background(*names: str) -> dict[str, Any]:
    return {f"{key_prefix(name)}BACKGROUND_REFRESH": True for name in names}


def test_all_share_one_thread(make: MakeAccounts) -> None:
    """The first request starts it, and it keeps the ticket of each warm."""
    app, accounts = make(**in_the_background("default", "shop", "hr", "crm"))
    app.test_client().get("/")
    try:
        assert len(threads_of(app)) == 1
        with app.app_context():
            for account in accounts.values():
                wait_until(lambda account=account: account.status().state == "fresh")
    finally:
        for account in accounts.values():
            account.close(app)


def test_the_thread_runs_as_long_as_one_has_it(make: MakeAccounts) -> None:
    """close() of one account leaves the others kept warm; that of the last one ends the thread."""
    app, accounts = make(**in_the_background("shop", "hr"))
    app.test_client().get("/")
    accounts["hr"].close(app)
    runtime = accounts["shop"]._accounts_of(app).own.credentials.runtime
    kept = {
        name: len(runtime.kept_of(account._accounts_of(app).own.credentials.holding))
        for name, account in accounts.items()
    }
    assert kept == {"default": 0, "shop": 1, "hr": 0, "crm": 0}
    assert len(threads_of(app)) == 1
    accounts["shop"].close(app)
    wait_until(lambda: not threads_of(app), what="the thread ends")


def caches_of(app: Flask, accounts: dict[str, WxJsApi]) -> dict[str, Any]:
    """What each keeps its credentials in, with the connections to it."""
    stores = {name: one._accounts_of(app).own.credentials.store for name, one in accounts.items()}
    return {name: store.cache.server for name, store in stores.items()}


@pytest.mark.parametrize("backend", ["SimpleCache", "FileSystemCache", "RedisCache"])
def test_all_share_one_cache(
    make: MakeAccounts, backend: str, tmp_path: Path, valkey: Valkey
) -> None:
    """And with it one connection pool."""
    app, accounts = make(
        CACHE_TYPE=backend, CACHE_DIR=str(tmp_path / "cache"), CACHE_REDIS_URL=valkey.url
    )
    assert len(set(caches_of(app, accounts).values())) == 1


def test_cache_of_an_accounts_own(make: MakeAccounts, tmp_path: Path) -> None:
    """Only the account that names another one has it."""
    own = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path)}
    caches = caches_of(*make(SHOP_WXJSAPI_CACHE=own))
    assert caches["shop"] is not caches["default"]
    assert caches["hr"] is caches["default"]


def test_the_command_line_of_each(sandbox: Sandbox, make: MakeAccounts, tmp_path: Path) -> None:
    """--account chooses; without it the default one is meant."""
    app, _ = make(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path))

    def run(*args: str) -> Any:
        result = app.test_cli_runner().invoke(args=["wxjsapi", *args])
        assert result.exit_code == 0, result.output
        return result.output.strip()

    tickets = [run("--account", name, "ticket") for name in ("shop", "hr", "crm")]
    tickets.append(run("ticket"))
    assert len(set(tickets)) == 3  # the corp's is both agents'
    assert json.loads(run("--account", "hr", "status", "--json"))["account"] == "hr"
    config = json.loads(run("--account", "crm", "sign", PAGE, "--json"))
    assert judge(sandbox, config) == "config:ok"
    for name in ("hr", "shop"):
        assert "The ticket is fresh" in run("--account", name, "doctor")


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"SHOP_WXJSAPI_APP_ID": "wx0000000000000000"}, "SHOP_WXJSAPI_APP_SECRET"),
        ({"CRM_WXJSAPI_APP_SECRET": HR[0]}, "CRM_WXJSAPI_APP_SECRET"),
        ({"CRM_WXJSAPI_AGENT_ID": HR[1]}, "CRM_WXJSAPI_APP_SECRET"),
    ],
)
def test_two_accounts_that_contradict(
    make: MakeAccounts, config: dict[str, Any], told: str
) -> None:
    """One AppID with two secrets, and an agent with another one's, are mistakes."""
    with pytest.raises(
        RuntimeError, match=f"{told} does not go with that of the account"
    ) as caught:
        make(**config)
    assert HR[0] not in str(caught.value)


def test_two_names_of_one_account_are_none(sandbox: Sandbox, make: MakeAccounts) -> None:
    """Nor is one account at two places, such as a sandbox and WeChat itself."""
    same = {"SHOP_WXJSAPI_APP_ID": sandbox.app_id, "SHOP_WXJSAPI_APP_SECRET": sandbox.app_secret}
    make(**same)
    make(
        **same | {"SHOP_WXJSAPI_APP_SECRET": "x", "SHOP_WXJSAPI_API_BASE_URL": "https://a.example"}
    )


# -- WeCom -----------------------------------------------------------------------------------------


def test_config_of_wecom_is_beta(make: MakeAccounts) -> None:
    """Only there."""
    app, accounts = make()
    with app.app_context():
        assert accounts["hr"].config(url=PAGE)["beta"] is True
        assert "beta" not in accounts["default"].config(url=PAGE)


def test_agent_config_takes_the_requests_url(sandbox: Sandbox, make: MakeAccounts) -> None:
    """As config() does; the list is JS_API_LIST unless there is another."""
    app, accounts = make(HR_WXJSAPI_JS_API_LIST=["selectExternalContact"])
    with app.test_request_context("/p?a=%E4%B8%AD", base_url="https://corp.example"):
        config = accounts["hr"].agent_config()
    assert judge_agent(sandbox, config) == "agentConfig:ok"
    assert config["jsApiList"] == ["selectExternalContact"]
    with app.app_context():
        hashed = accounts["hr"].agent_config(("a", "b"), url=f"{PAGE}#c")
        assert judge_agent(sandbox, hashed) == "agentConfig:ok"
        assert hashed["jsApiList"] == ["a", "b"]
        with pytest.raises(RuntimeError, match="string"):
            accounts["hr"].agent_config("selectExternalContact", PAGE)


def test_templates_of_wecom(sandbox: Sandbox, make: MakeAccounts) -> None:
    """The script it needs comes after jweixin and before wx.config; the agent's has a global."""
    app, _ = make()
    with app.test_request_context("/p?a=%E4%B8%AD", base_url="https://corp.example"):
        page = render_template_string("{{ hr_wx_script(['scanQRCode'], nonce='abc') }}")
        config = json.loads(render_template_string("{{ hr_wx_agent_config(['a']) | tojson }}"))
        other = render_template_string("{{ shop_wx_script() }}")
    order = ["jweixin-1.6.0.js", "jwxwork-1.0.0.js", "wx.config("]
    assert sorted(order, key=page.index) == order
    assert page.count('nonce="abc"') == page.count("<script")
    assert '"beta": true' in page
    assert judge_agent(sandbox, config) == "agentConfig:ok"
    assert "jwxwork" not in other
    assert "shop_wx_agent_config" not in app.jinja_env.globals


def test_a_share_card_uses_the_calls_of_its_platform(make: MakeAccounts) -> None:
    """WeCom has the older pair alone; a call that is not in jsApiList does nothing."""
    app, _ = make()
    calls = {
        "hr": ("onMenuShareAppMessage", "onMenuShareTimeline"),
        "shop": ("updateAppMessageShareData", "updateTimelineShareData"),
    }
    with app.test_request_context("/p", base_url="https://corp.example"):
        for name, (friends, moments) in calls.items():
            page = render_template_string(f"{{{{ {name}_wx_script(share={{'title': 'T'}}) }}}}")
            assert re.findall(r"wx\.(\w+ShareData|onMenu\w+)\(", page) == [friends, moments]
            assert f'"jsApiList": ["{friends}", "{moments}"]' in page


def test_the_advice_of_wecom_reaches_other_processes(
    sandbox: Sandbox, make: MakeAccounts, tmp_path: Path
) -> None:
    """A process that learns of a failure from the store tells the same of it."""
    shared = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path / "cache")}
    (app, accounts), (other_app, others) = make(**shared), make(**shared)
    sandbox.fail("40013", times=None, path="gettoken")
    with app.app_context(), pytest.raises(WeChatAPIError) as caught:
        accounts["hr"].refresh()
    with other_app.app_context():
        told = others["hr"].status().last_error
    assert "corp id" in caught.value.advice
    assert caught.value.advice in str(told)


def test_the_endpoint_answers_both(sandbox: Sandbox, make: MakeAccounts) -> None:
    """So that each of ww.register's two functions is one line."""
    app, _ = make()
    url = "http://localhost/page"
    answer = app.test_client().get(f"/hr/config?url={url}").json or {}
    assert judge(sandbox, answer, url) == "config:ok"
    assert judge_agent(sandbox, answer["agentConfig"], url) == "agentConfig:ok"
    assert answer["beta"] is True


def test_the_endpoint_without_the_agents_ticket(sandbox: Sandbox, make: MakeAccounts) -> None:
    """Most pages need wx.config alone, and it works."""
    sandbox.fail("48001", path="ticket/get", times=None)
    app, _ = make()
    url = "http://localhost/page"
    response = app.test_client().get(f"/hr/config?url={url}")
    assert response.status_code == 200
    answer = response.json or {}
    assert judge(sandbox, answer, url) == "config:ok"
    assert answer["agentConfig"] is None


def test_refresh_and_status_know_the_agents_ticket(
    sandbox: Sandbox, make: MakeAccounts, tmp_path: Path
) -> None:
    """A fault of it is seen, and after it was mended refresh does not wait for the pause."""
    shared = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path)}
    app, accounts = make(**shared)
    sandbox.fail("48001", path="ticket/get")
    with app.app_context():
        assert accounts["hr"].ticket
        with pytest.raises(TicketUnavailable):
            accounts["hr"].agent_config(url=PAGE)
    wait_for_threads(app)  # a reader is told of a failure before other processes are

    def run(*args: str) -> Any:
        other, _ = make(**shared)
        return other.test_cli_runner().invoke(args=["wxjsapi", "--account", "hr", *args])

    result = run("status")
    assert result.exit_code == 0
    assert "48001" in result.output
    assert json.loads(run("status", "--json").output)["agent"]["state"] == "invalid"
    assert run("refresh").exit_code == 0
    assert json.loads(run("status", "--json").output)["agent"]["state"] == "fresh"


def test_a_provider_needs_an_agent_id() -> None:
    """Else two applications of a corp would have one key, and one access token."""
    config = {
        "WXJSAPI_APP_ID": CORP,
        "WXJSAPI_PLATFORM": "wecom",
        "WXJSAPI_ACCESS_TOKEN_PROVIDER": lambda rejected: None,
    }
    with pytest.raises(RuntimeError, match="AGENT_ID is not set, nor WXJSAPI_APP_SECRET"):
        Settings.load(config)
    Settings.load(config | {"WXJSAPI_AGENT_ID": 1})


def test_wecom_without_an_agent(sandbox: Sandbox, make: MakeAccounts) -> None:
    """wx.config works; agent_config() says which key is missing."""
    app, accounts = make(HR_WXJSAPI_AGENT_ID=None)
    with app.app_context():
        assert judge(sandbox, accounts["hr"].config(url=PAGE)) == "config:ok"
        with pytest.raises(RuntimeError, match="HR_WXJSAPI_AGENT_ID is not set"):
            accounts["hr"].agent_config(url=PAGE)
        assert "jwxwork" not in accounts["hr"].script(url=PAGE)
    answer = app.test_client().get("/hr/config?url=http://localhost/").json or {}
    assert "agentConfig" not in answer
    assert "hr_wx_agent_config" not in app.jinja_env.globals


def test_a_token_that_wecom_ends_early(sandbox: Sandbox, make: MakeAccounts) -> None:
    """One more token call, and the agent ticket is there."""
    app, accounts = make()
    with app.app_context():
        assert accounts["hr"].ticket
        sandbox.revoke_token()
        assert judge_agent(sandbox, accounts["hr"].agent_config(url=PAGE)) == "agentConfig:ok"
    assert sandbox.calls["gettoken"] == 2


@pytest.mark.parametrize(
    ("config", "code"),
    [({"HR_WXJSAPI_APP_SECRET": "wrong"}, 40001), ({"HR_WXJSAPI_APP_ID": "wwnobody"}, 40013)],
)
def test_a_wrong_login_is_permanent(
    sandbox: Sandbox, make: MakeAccounts, config: dict[str, Any], code: int
) -> None:
    """One call, then a quarter of an hour of quiet; the secret is nowhere in it."""
    app, accounts = make(**config)
    with app.app_context():
        with pytest.raises(WeChatAPIError) as caught:
            accounts["hr"].refresh()
        assert caught.value.errcode == code
        assert "HR_WXJSAPI" in str(caught.value) or "WXJSAPI_APP" in str(caught.value)
        assert HR[0] not in str(caught.value)
        status = accounts["hr"].status()
    assert status.retry_at is not None
    assert sandbox.calls == {"gettoken": 1}


def test_an_own_provider_of_tokens(sandbox: Sandbox, make: MakeAccounts) -> None:
    """A third-party platform (第三方应用) brings the token of each corp."""
    app, accounts = make()
    with app.app_context():
        value = accounts["hr"].access_token

    def provider(rejected: str | None) -> Credential:
        import time

        return Credential(value, time.time(), time.time() + 100)

    app, accounts = make(HR_WXJSAPI_ACCESS_TOKEN_PROVIDER=provider, HR_WXJSAPI_APP_SECRET=None)
    with app.app_context():
        assert judge_agent(sandbox, accounts["hr"].agent_config(url=PAGE)) == "agentConfig:ok"
    assert sandbox.calls["gettoken"] == 1


@pytest.mark.parametrize("value", [1000002, "1000002", "01000002"])
def test_agent_id_may_be_a_number(value: object) -> None:
    """As from_prefixed_env() reads it."""
    config = {"APP_ID": CORP, "APP_SECRET": "s", "PLATFORM": "wecom", "AGENT_ID": value}
    settings = Settings.load({f"WXJSAPI_{key}": each for key, each in config.items()})
    assert settings.agent_id == "1000002"
    assert settings.api_base_url == "https://qyapi.weixin.qq.com"


@pytest.mark.parametrize("value", ["", "hr", True, 1.5, -3, "\uff11", ["1"], "9" * 17])
def test_agent_id_that_is_none(value: object) -> None:
    config = {"APP_ID": CORP, "APP_SECRET": "s", "PLATFORM": "wecom", "AGENT_ID": value}
    with pytest.raises(RuntimeError, match="WXJSAPI_AGENT_ID must be"):
        Settings.load({f"WXJSAPI_{key}": each for key, each in config.items()})


def test_a_corps_id_wants_wecom() -> None:
    """The first mistake of whoever comes from an official account."""
    config = {"WXJSAPI_APP_ID": "ww0123456789abcdef", "WXJSAPI_APP_SECRET": "s"}
    with pytest.raises(RuntimeError, match='set WXJSAPI_PLATFORM = "wecom"'):
        Settings.load(config)


def test_agent_id_is_wecoms() -> None:
    config = {"WXJSAPI_APP_ID": "wx1", "WXJSAPI_APP_SECRET": "s", "WXJSAPI_AGENT_ID": 1}
    with pytest.raises(RuntimeError, match='AGENT_ID is for WXJSAPI_PLATFORM = "wecom"'):
        Settings.load(config)


@pytest.mark.parametrize("endpoint", ["stable_token", "token"])
def test_doctor_of_wecom(make: MakeAccounts, endpoint: str) -> None:
    """It asks for a token whatever TOKEN_ENDPOINT says, since a call takes nobody's away there; a
    quota is not to be had.
    """
    app, _ = make(HR_WXJSAPI_TOKEN_ENDPOINT=endpoint, CACHE_TYPE="SimpleCache")
    result = app.test_cli_runner().invoke(args=["wxjsapi", "--account", "hr", "doctor"])
    assert result.exit_code == 1, result.output  # with SimpleCache
    assert "WeCom accepts the token." in result.output
    assert "The ticket is fresh" in result.output
    assert "The ticket of the agent is fresh" in result.output
    assert "quota" not in result.output


def test_verify_knows_the_agents_ticket(make: MakeAccounts) -> None:
    """A signature of agentConfig is not that of wx.config, and is called what it is."""
    app, accounts = make()
    with app.app_context():
        config = accounts["hr"].agent_config(url=PAGE)
    options = ["--nonce", config["nonceStr"], "--timestamp", str(config["timestamp"])]
    options += ["--signature", config["signature"]]
    result = app.test_cli_runner().invoke(
        args=["wxjsapi", "--account", "hr", "verify", PAGE, *options]
    )
    assert result.exit_code == 1
    assert "wx.agentConfig" in result.output


# -- cards -----------------------------------------------------------------------------------------


def test_card_ticket(sandbox: Sandbox, make: MakeAccounts) -> None:
    """Another ticket than the pages', fetched with the same token and kept as well."""
    app, accounts = make()
    with app.app_context():
        assert accounts["default"].card_ticket not in ("", accounts["default"].ticket)
        assert accounts["default"].card_ticket == accounts["default"].card_ticket
        with pytest.raises(RuntimeError, match='HR_WXJSAPI_PLATFORM is "wecom"'):
            _ = accounts["hr"].card_ticket
    assert sandbox.calls == {"stable_token": 1, "getticket": 2}
    keys = accounts["default"]._accounts_of(app).own.credentials.holding.keys
    assert keys.of(CARD_TICKET).endswith(":wx_card_ticket")


# -- the sandbox of the process --------------------------------------------------------------------


def test_the_embedded_sandbox_plays_wecom(tmp_path: Path) -> None:
    """API_BASE_URL "sandbox" knows the corp and both its agents at once."""
    app = Flask("tests")
    app.config.update(TESTING=True)
    for name, (secret, agent_id) in {"hr": HR, "crm": CRM}.items():
        keys = {
            "PLATFORM": "wecom", "APP_ID": CORP, "APP_SECRET": secret, "AGENT_ID": agent_id,
            "API_BASE_URL": "sandbox", "URL_PREFIX": f"/{name}",
        }  # fmt: skip
        app.config.update({key_prefix(name) + key: value for key, value in keys.items()})
        WxJsApi(app, name=name)
    from flask_wxjsapi.sandbox import embedded

    with app.test_request_context("/p?a=%E4%B8%AD", base_url="https://corp.example"):
        for name in ("hr", "crm"):
            config = app.extensions["wxjsapi"][name].agent_config(["a"])
            assert judge_agent(embedded(), config) == "agentConfig:ok"
        assert "/sandbox/bridge.js?phone=wecom" in app.extensions["wxjsapi"]["hr"].script()
    assert "wxwork" in app.test_client().get("/hr/client.js").text
