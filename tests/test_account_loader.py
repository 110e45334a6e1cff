"""Accounts that come at run time: the loader, the errors of a bad one, the endpoints, the pages."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, current_app, render_template_string

from flask_wxjsapi import (
    Credential,
    TicketUnavailable,
    UnknownAccount,
    WeChatAPIError,
    WxJsApi,
    WxJsApiError,
    ticket_refresh_failed,
    ticket_refreshed,
)
from flask_wxjsapi._engine.runtime import Engine
from flask_wxjsapi._settings import KEYS
from flask_wxjsapi.sandbox import Sandbox

from .conftest import FakeClock, threads_of, wait_until

pytestmark = pytest.mark.usefixtures("patient")

PAGE = "https://m.example.com/a?b=%20"
ONE, TWO, GONE = "wx00000000000000a1", "wx00000000000000a2", "wx00000000000000ff"
SECRETS = {ONE: "secret-of-one", TWO: "secret-of-two"}
CONFIG = ("appId", "nonceStr", "timestamp", "signature")
CORP, AGENT_SECRET = "ww00000000000000c1", "secret-of-an-agent"


class Platform:
    """An app with a loader, the rows it reads, and what it was asked."""

    def __init__(self, sandbox: Sandbox, *, clock: FakeClock | None = None, **config: Any) -> None:
        self.sandbox = sandbox
        self.rows: dict[str, Any] = {
            app_id: {"APP_SECRET": secret} for app_id, secret in SECRETS.items()
        }
        self.asked: list[str] = []
        self.app = Flask("platform")
        if clock is not None:
            self.app.extensions["wxjsapi.engine"] = Engine(self.app, clock=clock)
        self.app.config.update(TESTING=True, WXJSAPI_API_BASE_URL=sandbox.url)
        self.app.config.update(config)
        self.wxjsapi = WxJsApi()
        self.wxjsapi.account_loader(self.load)
        self.wxjsapi.init_app(self.app)

    def load(self, app_id: str) -> Mapping[str, Any] | None:
        assert current_app._get_current_object() is self.app  # type: ignore[attr-defined]
        self.asked.append(app_id)
        row = self.rows.get(app_id)
        if isinstance(row, Exception):
            raise row
        return row

    def ticket(self, app_id: str) -> str:
        with self.app.app_context():
            return self.wxjsapi.account(app_id).ticket

    def refresh(self, app_id: str) -> str:
        with self.app.app_context():
            return self.wxjsapi.account(app_id).refresh()

    def config(self, app_id: str) -> dict[str, Any]:
        with self.app.app_context():
            return {**self.wxjsapi.account(app_id).config(url=PAGE)}

    def get(self, path: str = "config", **query: str) -> Any:
        return self.app.test_client().get(f"/wxjsapi/{path}", query_string=query)

    def judge(self, config: Mapping[str, Any], url: str = PAGE) -> str:
        return self.sandbox.verify(**{key: config[key] for key in CONFIG}, url=url)

    def cause(self, app_id: str) -> str:
        """Why a first read fails."""
        with pytest.raises(TicketUnavailable) as caught:
            self.ticket(app_id)
        assert isinstance(caught.value.__cause__, WxJsApiError)
        return str(caught.value.__cause__)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox(ticket="new")
    for app_id, secret in SECRETS.items():
        sandbox.add_account(app_id, secret)
    sandbox.add_agent(CORP, AGENT_SECRET, "1000002")
    with sandbox.serve():
        yield sandbox


@pytest.fixture
def clock() -> FakeClock:
    """It begins at the time that WeChat has."""
    return FakeClock(time.time())


@pytest.fixture
def platform(sandbox: Sandbox) -> Platform:
    return Platform(sandbox, WXJSAPI_URL_PREFIX="/wxjsapi")


# -- an account ------------------------------------------------------------------------------------


def test_each_account_signs_for_itself(platform: Platform) -> None:
    """All that an extension offers, for each account that the loader knows."""
    for app_id in SECRETS:
        config = platform.config(app_id)
        assert config["appId"] == app_id
        assert platform.judge(config) == "config:ok"
    with platform.app.app_context():
        one, two = (platform.wxjsapi.account(app_id) for app_id in SECRETS)
        assert one.ticket != two.ticket
        assert one.access_token != two.access_token
        assert one.card_ticket
        assert (one.status().state, one.status().app_id) == ("fresh", ONE)
    assert platform.sandbox.calls == {"stable_token": 2, "getticket": 3}


def test_the_loader_is_asked_again_before_each_fetch(platform: Platform) -> None:
    """Once to know the account, and once more before WeChat is asked; not to read a ticket."""
    platform.ticket(ONE)
    assert platform.asked == [ONE, ONE]
    for _ in range(3):
        platform.ticket(ONE)
    assert platform.asked == [ONE, ONE]
    platform.refresh(ONE)
    assert platform.asked == [ONE, ONE, ONE]


def test_naming_an_account_costs_nothing(platform: Platform) -> None:
    """Not even an application context; it can be kept."""
    one = platform.wxjsapi.account(ONE)
    assert platform.asked == []
    with pytest.raises(RuntimeError, match="outside an application context"):
        one.ticket  # noqa: B018 - raises
    with platform.app.app_context():
        assert one.ticket


def test_the_account_in_the_config_stands_beside_those_of_the_loader(sandbox: Sandbox) -> None:
    """Named by its AppID it is the same one, and the loader is not asked for it."""
    own = {"WXJSAPI_APP_ID": sandbox.app_id, "WXJSAPI_APP_SECRET": sandbox.app_secret}
    platform = Platform(sandbox, **own)
    with platform.app.app_context():
        assert platform.wxjsapi.ticket == platform.wxjsapi.account(sandbox.app_id).ticket
        assert platform.wxjsapi.account(ONE).ticket != platform.wxjsapi.ticket
    assert set(platform.asked) == {ONE}


def test_without_an_app_id_of_its_own_the_extension_says_what_to_use(platform: Platform) -> None:
    """Whatever is asked of it."""
    uses: list[Callable[[WxJsApi], object]] = [
        lambda wxjsapi: wxjsapi.ticket,
        lambda wxjsapi: wxjsapi.config(url=PAGE),
        lambda wxjsapi: wxjsapi.script(url=PAGE),
        lambda wxjsapi: wxjsapi.refresh(),
        lambda wxjsapi: wxjsapi.status(),
    ]
    with platform.app.app_context():
        for use in uses:
            with pytest.raises(
                RuntimeError, match=r"^WXJSAPI_APP_ID is not set.*account\(app_id\)"
            ):
                use(platform.wxjsapi)


def test_without_a_loader_there_is_one_account(sandbox: Sandbox) -> None:
    """And whoever names another is told of the loader."""
    app = Flask("one")
    app.config.update(
        TESTING=True,
        WXJSAPI_APP_ID=ONE,
        WXJSAPI_APP_SECRET=SECRETS[ONE],
        WXJSAPI_API_BASE_URL=sandbox.url,
    )
    wxjsapi = WxJsApi(app)
    with app.app_context():
        assert wxjsapi.account(ONE).ticket == wxjsapi.ticket
        with pytest.raises(RuntimeError, match="needs an account_loader"):
            wxjsapi.account(TWO).ticket  # noqa: B018 - raises
    with pytest.raises(RuntimeError, match=r"APP_ID is not set.*account_loader"):
        WxJsApi(Flask("none"))


def test_an_extension_that_comes_after_the_first_request_changes_nothing(sandbox: Sandbox) -> None:
    """It is told of the loader, and the app is as it was."""
    platform = Platform(sandbox, SHOP_WXJSAPI_APP_ID=TWO, SHOP_WXJSAPI_APP_SECRET=SECRETS[TWO])
    platform.app.test_client().get("/")
    before = {
        key: dict(value)
        for key, value in platform.app.extensions.items()
        if key != "wxjsapi.engine"
    }
    with pytest.raises(RuntimeError, match=r"'shop' comes too late.*account_loader"):
        WxJsApi(platform.app, name="shop")
    after = {
        key: dict(value)
        for key, value in platform.app.extensions.items()
        if key != "wxjsapi.engine"
    }
    assert after == before
    assert "shop_wx_config" not in platform.app.jinja_env.globals


def test_two_extensions_have_a_loader_each(sandbox: Sandbox) -> None:
    """What one knows the other need not know."""
    platform = Platform(sandbox, SHOP_WXJSAPI_API_BASE_URL=sandbox.url)
    shop = WxJsApi(name="shop")

    @shop.account_loader
    def load(app_id: str) -> dict[str, str] | None:
        return {"APP_SECRET": SECRETS[TWO]} if app_id == TWO else None

    shop.init_app(platform.app)
    with platform.app.app_context():
        assert shop.account(TWO).config(url=PAGE)["appId"] == TWO
        with pytest.raises(UnknownAccount):
            shop.account(ONE).ticket  # noqa: B018 - raises
        assert platform.wxjsapi.account(ONE).ticket
        page = "{{ shop_wx_config(app_id=app_id, url='https://x/')['appId'] }}"
        assert render_template_string(page, app_id=TWO) == TWO


# -- unknown ones ----------------------------------------------------------------------------------


def test_an_unknown_account_is_a_404(platform: Platform) -> None:
    """If nobody catches it."""

    @platform.app.get("/<app_id>")
    def page(app_id: str) -> str:
        return platform.wxjsapi.account(app_id).ticket

    response = platform.app.test_client().get(f"/{GONE}")
    assert response.status_code == 404
    assert f"There is no WeChat account {GONE}." in response.text
    with platform.app.app_context(), pytest.raises(UnknownAccount) as caught:
        platform.wxjsapi.account(GONE).refresh()
    assert caught.value.app_id == GONE
    assert isinstance(caught.value, WxJsApiError)


def test_what_is_unknown_is_remembered_for_ten_seconds(sandbox: Sandbox, clock: FakeClock) -> None:
    """Whoever asks again and again; then it may have been added."""
    platform = Platform(sandbox, clock=clock)
    for _ in range(3):
        with pytest.raises(UnknownAccount):
            platform.ticket(GONE)
    assert platform.asked == [GONE]
    clock.advance(9.9)
    with pytest.raises(UnknownAccount):
        platform.ticket(GONE)
    assert platform.asked == [GONE]
    platform.rows[GONE] = {"APP_SECRET": "secret"}
    sandbox.add_account(GONE, "secret")
    clock.advance(0.2)
    assert platform.ticket(GONE)


def test_what_is_unknown_is_remembered_in_bounds(sandbox: Sandbox) -> None:
    """The oldest of a thousand is forgotten."""
    platform = Platform(sandbox)
    ids = [f"wx{number:016x}" for number in range(0x100000, 0x100000 + 1001)]
    for app_id in ids:
        with pytest.raises(UnknownAccount):
            platform.ticket(app_id)
    accounts = platform.wxjsapi._accounts_of(platform.app)
    assert len(accounts._refused) == 1000
    assert ids[0] not in accounts._refused
    assert accounts.at_hand == {}


@pytest.mark.parametrize(
    "app_id", ["", "a b", "x" * 65, "0123456789abcdef0123456789abcdef", "wx1/../wx2", "wx\udc80"]
)
def test_what_cannot_be_an_app_id_is_unknown(platform: Platform, app_id: str) -> None:
    """Without asking the loader, and without quoting what may be a secret."""
    with pytest.raises(UnknownAccount) as caught:
        platform.ticket(app_id)
    assert platform.asked == []
    assert str(caught.value) == "There is no WeChat account of this AppID."


@pytest.mark.parametrize("app_id", [None, 5, b"wx1"])
def test_an_app_id_is_a_string(platform: Platform, app_id: Any) -> None:
    """Anything else is a mistake in the program, or ``None`` from a column that is empty."""
    with pytest.raises(RuntimeError):
        platform.ticket(app_id)


# -- what a loader answers -------------------------------------------------------------------------


def test_an_account_has_the_extensions_settings_where_it_has_none_of_its_own(
    sandbox: Sandbox,
) -> None:
    """What a page is made with."""
    platform = Platform(
        sandbox,
        WXJSAPI_JS_API_LIST=["scanQRCode"],
        WXJSAPI_OPEN_TAG_LIST=["wx-open-launch-weapp"],
        WXJSAPI_DEBUG=True,
        WXJSAPI_PUBLIC_ORIGIN="https://m.example.com",
    )
    platform.rows[TWO] |= {
        "JS_API_LIST": ("chooseImage",),
        "OPEN_TAG_LIST": [],
        "DEBUG": False,
        "PUBLIC_ORIGIN": "https://two.example.com",
        "TOKEN_ENDPOINT": "token",
        "PAGE_HOSTS": None,
    }
    one, two = platform.config(ONE), platform.config(TWO)
    assert one | {"jsApiList": ["scanQRCode"], "openTagList": ["wx-open-launch-weapp"]} == one
    assert two | {"jsApiList": ["chooseImage"], "openTagList": [], "debug": False} == two
    assert one["debug"] is True
    assert platform.sandbox.calls["token"] == 1
    with platform.app.test_request_context("/p"):
        account = platform.wxjsapi.account(TWO)
        assert platform.judge(account.config(), "https://two.example.com/p") == "config:ok"


def test_an_account_has_its_own_secret_agent_and_provider(sandbox: Sandbox) -> None:
    """Those of the extension are another account's."""
    platform = Platform(
        sandbox, WXJSAPI_APP_ID=sandbox.app_id, WXJSAPI_APP_SECRET=sandbox.app_secret
    )
    platform.rows[ONE] = {}
    assert "APP_SECRET is not set" in platform.cause(ONE)

    def provider(rejected: str | None) -> Credential:
        raise AssertionError("of another account")

    other = Platform(sandbox, WXJSAPI_APP_ID=sandbox.app_id, WXJSAPI_ACCESS_TOKEN_PROVIDER=provider)
    assert other.ticket(ONE)


def test_an_account_brings_its_own_provider(sandbox: Sandbox) -> None:
    """As on a third-party platform, whose accounts have no secret there."""
    platform, elsewhere = Platform(sandbox), Platform(sandbox)
    with elsewhere.app.app_context():
        token = elsewhere.wxjsapi.account(ONE).access_token

    def provider(rejected: str | None) -> Credential:
        assert current_app.name == "platform"
        return Credential(token, 0.0, 4e9)

    platform.rows[ONE] = {"ACCESS_TOKEN_PROVIDER": provider}
    assert platform.judge(platform.config(ONE)) == "config:ok"
    assert sandbox.calls == {"stable_token": 1, "getticket": 1}


def test_an_account_may_be_of_the_other_platform(sandbox: Sandbox) -> None:
    """Its calls, its host and its page are WeCom's then."""
    platform = Platform(sandbox)
    platform.rows[CORP] = {
        "PLATFORM": "wecom",
        "APP_SECRET": AGENT_SECRET,
        "AGENT_ID": 1000002,
    }
    with platform.app.app_context():
        corp = platform.wxjsapi.account(CORP)
        assert platform.judge(corp.config(url=PAGE)) == "config:ok"
        agent = corp.agent_config(url=PAGE)
        keys = ("corpid", "agentid", "nonceStr", "timestamp", "signature")
        signed: Any = {key: agent[key] for key in keys}  # type: ignore[literal-required]
        assert sandbox.verify_agent(**signed, url=PAGE) == "agentConfig:ok"
        with pytest.raises(RuntimeError, match="has no cards"):
            corp.card_ticket  # noqa: B018 - raises
        with pytest.raises(RuntimeError, match=r"^AGENT_ID is not set"):
            platform.wxjsapi.account(ONE).agent_config(url=PAGE)
        page = render_template_string("{{ wx_agent_config(app_id=a, url='https://x/') }}", a=CORP)
        assert "1000002" in page


def test_the_host_follows_the_platform_unless_it_is_set() -> None:
    """A corp is not asked for at the host of official accounts."""
    wxjsapi = WxJsApi()
    wxjsapi.account_loader(lambda app_id: None)
    wxjsapi.init_app(app := Flask("hosts"))
    settings = wxjsapi._accounts_of(app).settings
    corp = settings.of_account(CORP, {"PLATFORM": "wecom", "APP_SECRET": "s"})
    assert not isinstance(corp, str)
    assert corp.api_base_url == "https://qyapi.weixin.qq.com"


BAD = [
    ({"APP_SECRET": "s", "CACHE": {}}, "CACHE belongs to the extension as a whole"),
    ({"APP_SECRET": "s", "TICKET_SERVER": None}, "TICKET_SERVER belongs to the extension"),
    ({"APP_SECRET": "s", "REFRESH_AHEAD": 5}, "REFRESH_AHEAD belongs to the extension"),
    ({"APP_SECRET": "s", "APP_ID": ONE}, "APP_ID is what the loader was asked for: leave it out."),
    ({"APP_SECRT": "s"}, "APP_SECRT is not a key of an account: they are such as APP_SECRET"),
    ({"APP_SECRT": "s"}, "Do you mean APP_SECRET?"),
    ({"app_secret": "s"}, "in capitals and without prefix. Do you mean APP_SECRET?"),
    ({"the secret itself": 1}, "Something is not a key of an account"),
    ({5: 1}, "Something is not a key of an account"),
    ({}, "APP_SECRET is not set"),
    ({"APP_SECRET": 87654321}, "APP_SECRET must be a string, but is a number"),
    ({"APP_SECRET": "two words"}, "APP_SECRET must have no spaces"),
    ({"APP_SECRET": ONE}, "APP_SECRET looks like an id"),
    ({"APP_SECRET": "s", "PAGE_HOSTS": "m.example.com"}, "PAGE_HOSTS must be a list"),
    ({"APP_SECRET": "s", "PLATFORM": "weibo"}, "PLATFORM must be"),
    ({"APP_SECRET": "s", "AGENT_ID": 7}, "AGENT_ID is for PLATFORM"),
    (["APP_SECRET"], "it must be a mapping or None, not list"),
    ("secret-of-one", "it must be a mapping or None, not str"),
    (ValueError("secret-of-one"), "it raised ValueError"),
]


@pytest.mark.parametrize(("answer", "problem"), BAD)
def test_a_bad_answer_is_named_without_its_secret(
    platform: Platform, answer: Any, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Account and key; the accounts beside it are none the worse."""
    platform.rows[ONE] = answer
    cause = platform.cause(ONE)
    assert cause.startswith(f"The account_loader failed for {ONE}: ")
    assert problem in cause
    for secret in ("two words", "secret-of-one", "87654321", "itself"):
        assert secret not in cause
    assert platform.ticket(TWO)
    assert "WXJSAPI_APP_SECRET" not in cause


@pytest.mark.parametrize("key", ["REFRESH_AHED", "CACHES"])
def test_only_keys_of_an_account_are_proposed(platform: Platform, key: str) -> None:
    """One of the extension's would be refused next."""
    platform.rows[ONE] |= {key: 1}
    assert "Do you mean" not in platform.cause(ONE)


@pytest.mark.parametrize("key", [key for key, declared in KEYS.items() if declared.of_account])
def test_every_key_of_an_account_is_checked_as_in_the_config(platform: Platform, key: str) -> None:
    """By the same code: an object is none of them."""
    platform.rows[ONE] |= {key: object()}
    assert f"{ONE}: {key} " in platform.cause(ONE)


def test_a_loader_that_fails_is_not_asked_by_every_reader(
    sandbox: Sandbox, clock: FakeClock
) -> None:
    """For two seconds its failure is known; what it says then counts."""
    platform = Platform(sandbox, clock=clock)
    platform.rows[ONE] = OSError("down")
    causes = {platform.cause(ONE) for _ in range(5)}
    assert len(causes) == 1
    assert platform.asked == [ONE]
    clock.advance(2.1)
    platform.cause(ONE)
    assert platform.asked == [ONE, ONE]
    platform.rows[ONE] = {"APP_SECRET": SECRETS[ONE]}
    clock.advance(2.1)
    assert platform.ticket(ONE)


def test_readers_of_one_account_share_one_question(platform: Platform) -> None:
    """However many want it at once."""
    may_answer, tickets = threading.Event(), []
    load = platform.load

    def slow(app_id: str) -> Any:
        may_answer.wait(20)
        return load(app_id)

    platform.wxjsapi.account_loader(slow)
    readers = [
        threading.Thread(target=lambda: tickets.append(platform.ticket(ONE))) for _ in range(8)
    ]
    for reader in readers:
        reader.start()
    runtime = platform.app.extensions["wxjsapi.engine"].runtime()
    wait_until(lambda: runtime._loadings)
    may_answer.set()
    for reader in readers:
        reader.join(30)
    assert len(tickets) == 8
    assert len(set(tickets)) == 1
    assert platform.asked.count(ONE) <= 1 + 8  # a late one asks for itself, none asks twice
    assert platform.sandbox.calls["getticket"] == 1


def test_a_loader_that_hangs_holds_nobody_longer_than_a_renewal(sandbox: Sandbox) -> None:
    """Another account is served meanwhile."""
    platform = Platform(sandbox, WXJSAPI_REFRESH_TIMEOUT=0.5)
    release = threading.Event()
    load = platform.load

    def hangs(app_id: str) -> Any:
        if app_id == ONE:
            release.wait(60)
        return load(app_id)

    platform.wxjsapi.account_loader(hangs)
    try:
        assert platform.cause(ONE) == "The account_loader did not answer in time."
        # The other one is fetched from a WeChat that may be slower than that.
        accounts = platform.wxjsapi._accounts_of(platform.app)
        accounts.settings = replace(accounts.settings, refresh_timeout=60)
        assert platform.ticket(TWO)
    finally:
        release.set()
    runtime = platform.app.extensions["wxjsapi.engine"].runtime()
    wait_until(lambda: not runtime.threads._jobs)


# -- corrected and removed -------------------------------------------------------------------------


def test_a_corrected_secret_counts_after_refresh(platform: Platform) -> None:
    """At once, in spite of the pause that the wrong one brought."""
    platform.rows[ONE] = {"APP_SECRET": "wrong"}
    with pytest.raises(WeChatAPIError, match="40125"):
        platform.refresh(ONE)
    assert "40125" in platform.cause(ONE)
    platform.rows[ONE] = {"APP_SECRET": SECRETS[ONE]}
    account = platform.wxjsapi._accounts_of(platform.app).at_hand[ONE]
    account.credentials.holding.limited.clear()  # ten seconds later
    account.credentials.session().drop_note("refresh.jsapi_ticket")
    assert platform.refresh(ONE)
    assert platform.ticket(ONE)


def test_a_corrected_page_setting_counts_at_the_next_renewal(platform: Platform) -> None:
    """The page settings come with the secret."""
    assert platform.config(ONE)["jsApiList"] == []
    platform.rows[ONE] |= {"JS_API_LIST": ["scanQRCode"]}
    assert platform.config(ONE)["jsApiList"] == []
    platform.refresh(ONE)
    assert platform.config(ONE)["jsApiList"] == ["scanQRCode"]


def test_a_new_secret_keeps_a_valid_ticket(platform: Platform) -> None:
    """Should the new one be wrong, pages go on."""
    ticket = platform.ticket(ONE)
    platform.rows[ONE] = OSError("down")
    with pytest.raises(WxJsApiError, match="account_loader failed"):
        platform.refresh(ONE)
    assert platform.ticket(ONE) == ticket


def test_another_agent_has_another_token(sandbox: Sandbox) -> None:
    """The corp's ticket stays; what was the old agent's is forgotten, under the new one's lease."""
    sandbox.add_agent(CORP, "secret-of-another", "1000003")
    platform = Platform(sandbox)
    wecom = {"PLATFORM": "wecom", "APP_SECRET": AGENT_SECRET, "AGENT_ID": "1000002"}
    platform.rows[CORP] = wecom
    with platform.app.app_context():
        corp = platform.wxjsapi.account(CORP)
        old = corp.access_token, corp.agent_config(url=PAGE)["agentid"]
        platform.rows[CORP] = wecom | {"APP_SECRET": "secret-of-another", "AGENT_ID": "1000003"}
        corp.refresh()
        new = corp.access_token, corp.agent_config(url=PAGE)["agentid"]
        assert platform.judge(corp.config(url=PAGE)) == "config:ok"
    assert (old[1], new[1]) == ("1000002", "1000003")
    assert old[0] != new[0]


def test_a_removed_account_ends_with_refresh(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    """Its readers are told, nothing is fetched, nothing of it is kept; and it can come back."""
    caplog.set_level(logging.INFO, "flask_wxjsapi")
    platform.ticket(ONE)
    calls = platform.sandbox.calls.copy()
    row = platform.rows.pop(ONE)
    with pytest.raises(UnknownAccount):
        platform.refresh(ONE)
    with pytest.raises(UnknownAccount):
        platform.ticket(ONE)
    assert platform.sandbox.calls == calls
    accounts = platform.wxjsapi._accounts_of(platform.app)
    assert ONE not in accounts.at_hand
    wait_until(lambda: "is gone" in caplog.text)
    (line,) = [record for record in caplog.records if "is gone" in record.getMessage()]
    assert line.wxjsapi == {  # type: ignore[attr-defined]
        "event": "account_gone",
        "account": "default",
        "app_id": ONE,
        "kind": "jsapi_ticket",
    }
    platform.rows[ONE] = row
    accounts._refused.clear()  # ten seconds later
    assert platform.ticket(ONE)


def test_a_removed_account_ends_also_where_it_was_never_met(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """A command, or the worker that has the admin's page: it withdraws what is in the store."""
    store = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path)}
    platform, other = Platform(sandbox, **store), Platform(sandbox, **store)
    platform.ticket(ONE)
    for each in (platform, other):
        del each.rows[ONE]
    with pytest.raises(UnknownAccount):
        other.refresh(ONE)
    holding = platform.wxjsapi._accounts_of(platform.app).at_hand[ONE].credentials.holding
    runtime = platform.app.extensions["wxjsapi.engine"].runtime()
    look = runtime.attend([(holding, holding.snapshot())])  # its next look at the store
    assert look.done.wait(30)
    with pytest.raises(UnknownAccount):
        platform.ticket(ONE)
    assert sandbox.calls == {"stable_token": 1, "getticket": 1}


def test_refresh_raises_what_the_loader_did_at_the_first_question(platform: Platform) -> None:
    """As it does later: the error itself."""
    platform.rows[ONE] = {"APP_SECRET": 5}
    with pytest.raises(WxJsApiError, match="APP_SECRET must be a string") as caught:
        platform.refresh(ONE)
    assert not isinstance(caught.value, TicketUnavailable)


def test_signals_and_the_log_name_the_account(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    """By its AppID: the name is the extension's."""
    caplog.set_level(logging.INFO, "flask_wxjsapi")
    heard: list[tuple[str, str, str]] = []

    def on_refreshed(app: Flask, account: str, app_id: str, kind: str, **more: Any) -> None:
        heard.append((account, app_id, kind))

    def on_failed(app: Flask, account: str, app_id: str, error: object, **more: Any) -> None:
        heard.append((account, app_id, type(error).__name__))

    ticket_refreshed.connect(on_refreshed)
    ticket_refresh_failed.connect(on_failed)
    platform.ticket(ONE)
    wait_until(lambda: len(heard) == 2)  # or the other's thread may be faster to tell
    platform.rows[TWO] = {"APP_SECRET": "wrong"}
    platform.cause(TWO)
    wait_until(lambda: len(heard) == 3)
    ticket_refreshed.disconnect(on_refreshed)
    ticket_refresh_failed.disconnect(on_failed)
    assert heard == [
        ("default", ONE, "access_token"),
        ("default", ONE, "jsapi_ticket"),
        ("default", TWO, "WeChatAPIError"),
    ]
    assert f"The jsapi_ticket of {ONE} was renewed." in caplog.text
    assert f"The access_token of {TWO} was not renewed." in caplog.text


# -- pages and endpoints ---------------------------------------------------------------------------


def test_templates_name_an_account(platform: Platform) -> None:
    """In each of the globals."""
    with platform.app.test_request_context("/p", base_url="https://m.example.com"):
        page = render_template_string(
            "{{ wx_script(app_id=a, share={'title': 'T'}) }} {{ wx_config(app_id=b)|tojson }}",
            a=ONE,
            b=TWO,
        )
    assert f'"appId":"{ONE}"' in page.replace(" ", "")
    config = json.loads(page[page.rindex("{") :])
    assert config["appId"] == TWO
    assert platform.judge(config, "https://m.example.com/p") == "config:ok"


def test_a_page_does_not_fail_because_the_loader_does(sandbox: Sandbox) -> None:
    """It warns in the console, as it does without a ticket; what is not there is a 404."""
    platform = Platform(sandbox)
    platform.rows[ONE] = OSError("down")
    with platform.app.test_request_context("/p"):
        page = platform.wxjsapi.account(ONE).script()
        with pytest.raises(UnknownAccount):
            platform.wxjsapi.account(GONE).script()
    assert "wx.config was not called" in page
    assert "jweixin-1.6.0.js" in page


def test_the_endpoint_signs_for_each_account_on_its_hosts(platform: Platform) -> None:
    """PAGE_HOSTS are an account's own, and so is who may read the answer from another origin."""
    platform.rows[ONE] |= {"PAGE_HOSTS": ["one.example.com"]}
    url = "https://one.example.com/p"
    answer = platform.app.test_client().get(
        "/wxjsapi/config",
        query_string={"url": url, "app_id": ONE},
        headers={"Origin": "https://one.example.com"},
    )
    assert platform.judge(answer.json, url) == "config:ok"
    assert answer.headers["Access-Control-Allow-Origin"] == "https://one.example.com"
    refused = platform.app.test_client().get(
        "/wxjsapi/config",
        query_string={"url": url, "app_id": TWO},
        headers={"Origin": "https://one.example.com"},
    )
    assert refused.status_code == 400
    assert refused.headers["Access-Control-Allow-Origin"] == "*"  # it may read why, and no more


@pytest.mark.parametrize(
    ("query", "status", "problem"),
    [
        ("url=http://localhost/", 400, "app_id is missing"),
        (f"url=http://localhost/&app_id={ONE}&app_id={TWO}", 400, "app_id is there more than once"),
        (f"url=http://localhost/&app_id={GONE}", 404, "There is no such account."),
        ("url=http://localhost/&app_id=", 404, "There is no such account."),
        (f"url=http://localhost/?a=1&b=2&app_id={ONE}", 400, "url is not escaped"),
    ],
)
def test_the_endpoint_says_what_is_wrong(
    platform: Platform, query: str, status: int, problem: str
) -> None:
    """As JSON, in the status that fits."""
    response = platform.app.test_client().get(f"/wxjsapi/config?{query}")
    assert response.status_code == status
    assert problem in response.json["error"]
    assert response.cache_control.no_store


def test_the_endpoint_without_a_loader_takes_no_other_account(sandbox: Sandbox) -> None:
    """An argument of the page's own URL may have that name."""
    app = Flask("one")
    app.config.update(
        TESTING=True,
        WXJSAPI_APP_ID=ONE,
        WXJSAPI_APP_SECRET=SECRETS[ONE],
        WXJSAPI_API_BASE_URL=sandbox.url,
        WXJSAPI_URL_PREFIX="/wxjsapi",
    )
    WxJsApi(app)
    client = app.test_client()
    own = client.get("/wxjsapi/config", query_string={"url": "http://localhost/", "app_id": ONE})
    assert own.json["appId"] == ONE
    other = client.get("/wxjsapi/config", query_string={"url": "http://localhost/", "app_id": TWO})
    assert other.status_code == 400
    assert "encodeURIComponent" in other.json["error"]


def test_strangers_ask_the_loader_a_few_times_a_second(sandbox: Sandbox, clock: FakeClock) -> None:
    """For accounts that are not there; one that is costs them nothing."""
    platform = Platform(sandbox, clock=clock, WXJSAPI_URL_PREFIX="/wxjsapi")
    url = "http://localhost/"

    def status(number: int) -> int:
        answer = platform.get(url=url, app_id=f"wx{number:016x}")
        return int(answer.status_code)

    statuses = [status(number) for number in range(1000, 1050)]
    assert statuses == [404] * 10 + [503] * 40
    assert len(platform.asked) == 10
    clock.advance(1)
    assert [status(number) for number in range(2000, 2050)].count(404) == 3
    # The app's own code is not held up by that, and then the endpoint knows the account too.
    assert platform.ticket(ONE)
    assert platform.get(url=url, app_id=ONE).status_code == 200


def test_a_page_that_complains_names_its_account(platform: Platform) -> None:
    """Its ticket is verified, and no other."""
    platform.ticket(TWO)
    before = platform.ticket(ONE)
    page = {"url": "http://localhost/", "app_id": ONE}
    signed = platform.get(**page).json or {}
    refused = {key: signed[key] for key in ("nonceStr", "timestamp", "signature")}
    assert platform.get(**page, rejected="1", **refused).status_code == 200
    assert platform.ticket(ONE) != before
    assert platform.sandbox.calls["getticket"] == 3


# -- a central server ------------------------------------------------------------------------------


def test_a_central_server_serves_the_accounts_of_its_loader(sandbox: Sandbox) -> None:
    """To whoever has a bearer token; one that is not there is a 404."""
    token = "t" * 32
    platform = Platform(
        sandbox, WXJSAPI_URL_PREFIX="/wxjsapi", WXJSAPI_CENTRAL_TOKENS={"client": token}
    )
    client, headers = platform.app.test_client(), {"Authorization": f"Bearer {token}"}
    answer = client.get(f"/wxjsapi/ticket?app_id={ONE}", headers=headers)
    assert (answer.json["app_id"], answer.json["value"]) == (ONE, platform.ticket(ONE))
    assert client.get(f"/wxjsapi/ticket?app_id={GONE}", headers=headers).status_code == 404
    assert client.get("/wxjsapi/ticket", headers=headers).status_code == 400
    assert client.get(f"/wxjsapi/ticket?app_id={ONE}").status_code == 401


# -- warm ------------------------------------------------------------------------------------------


def test_accounts_share_one_thread_and_are_kept_once_they_are_read(sandbox: Sandbox) -> None:
    """What nobody reads is not renewed."""
    platform = Platform(sandbox, WXJSAPI_BACKGROUND_REFRESH=True)
    platform.app.test_client().get("/")
    assert threads_of(platform.app) == []
    for app_id in SECRETS:
        platform.ticket(app_id)
    assert len(threads_of(platform.app)) == 1
    runtime = platform.app.extensions["wxjsapi.engine"].runtime()
    assert {holding.app_id for holding, _ in runtime._kept} == set(SECRETS)
    platform.wxjsapi.close(platform.app)
    assert runtime._kept == set()
    wait_until(lambda: not threads_of(platform.app))
    platform.ticket(ONE)
    assert runtime._kept == set()


def test_renewals_of_many_accounts_are_spread(sandbox: Sandbox) -> None:
    """Each has a lead of its own, between one and two of REFRESH_AHEAD; the account in the config
    has exactly that.
    """
    own = {"WXJSAPI_APP_ID": sandbox.app_id, "WXJSAPI_APP_SECRET": sandbox.app_secret}
    platform = Platform(sandbox, **own)
    ids = [f"wx{number:016x}" for number in range(1, 201)]
    platform.rows |= {app_id: {"APP_SECRET": "secret"} for app_id in ids}
    with platform.app.app_context():
        accounts = platform.wxjsapi._accounts_of(platform.app)
        leads = [accounts.find(app_id, 10)[0].credentials.holding.times.ahead for app_id in ids]
    assert accounts.own.credentials.holding.times.ahead == 200
    assert all(200 <= lead <= 400 for lead in leads)
    parts = [sum(200 + 50 * n <= lead < 250 + 50 * n for lead in leads) for n in range(4)]
    assert min(parts) > 20  # even enough


# -- the command line ------------------------------------------------------------------------------


def test_commands_name_an_account(platform: Platform) -> None:
    """``--app-id`` goes with each of them."""
    run = platform.app.test_cli_runner().invoke
    status = run(args=["wxjsapi", "--app-id", ONE, "status", "--json"])
    assert json.loads(status.output)["account"] == "default"
    refreshed = run(args=["wxjsapi", "--app-id", ONE, "refresh"])
    assert "Renewed" in refreshed.output
    signed = run(args=["wxjsapi", "--app-id", ONE, "sign", "--json", PAGE])
    start = signed.output.index("{")
    assert platform.judge(json.loads(signed.output[start:])) == "config:ok"
    doctor = run(args=["wxjsapi", "--app-id", ONE, "doctor"])
    assert "The ticket is" in doctor.output
    ticket = run(args=["wxjsapi", "--app-id", ONE, "ticket"])
    assert re.search(r"^\S{60,}$", ticket.output, re.M)


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (["status"], "name one by --app-id"),
        (["--app-id", GONE, "status"], f"There is no WeChat account {GONE}."),
        (["--app-id", "0123456789abcdef0123456789abcdef", "ticket"], "no WeChat account of this"),
    ],
)
def test_commands_say_which_account_is_missing(
    platform: Platform, args: list[str], problem: str
) -> None:
    """In a line."""
    result = platform.app.test_cli_runner().invoke(args=["wxjsapi", *args])
    assert result.exit_code != 0
    assert problem in " ".join(result.output.split())


def test_commands_tell_of_a_loader_that_fails(platform: Platform) -> None:
    """With its cause."""
    platform.rows[ONE] = {"APP_SECRET": 7}
    result = platform.app.test_cli_runner().invoke(args=["wxjsapi", "--app-id", ONE, "status"])
    assert result.exit_code == 3
    assert "APP_SECRET must be a string" in " ".join(result.output.split())
