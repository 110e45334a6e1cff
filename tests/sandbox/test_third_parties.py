"""Who acts for others: third-party platforms (第三方平台), and applications of WeCom providers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from werkzeug.test import Client

from flask_wxjsapi.sandbox import Sandbox

from .caller import Caller as Plain
from .caller import Clock
from .test_wecom import signed

PLATFORM, SECRET, SHOP = "wx-platform", "platform-secret", "wx-shop"
SUITE, CORP, AGENT = "ww-suite", "ww-corp", "1000002"
PAGE = "https://shop.platform.example/item?id=1"


class Caller:
    """A client, without a network, of a sandbox with an account that has authorised a platform."""

    def __init__(self, *permissions: int, **rules: Any) -> None:
        self.clock = Clock()
        self.sandbox = Sandbox(clock=self.clock)
        self.sandbox.add_account(SHOP, "shop-secret")
        self.sandbox.add_component(PLATFORM, SECRET, **rules)
        self.refresh_token = self.sandbox.authorise(SHOP, PLATFORM, permissions or (4, 8))
        self.http = Client(self.sandbox)

    def call(self, path: str, body: Any = None, **query: str | None) -> dict[str, Any]:
        method = "GET" if body is None else "POST"
        given = {key: value for key, value in query.items() if value is not None}
        response = self.http.open(f"/cgi-bin/{path}", method=method, query_string=given, json=body)
        assert response.status_code == 200
        payload = json.loads(response.data)
        assert isinstance(payload, dict)
        return payload

    def component(self, **changes: Any) -> dict[str, Any]:
        body = {
            "component_appid": PLATFORM,
            "component_appsecret": SECRET,
            "component_verify_ticket": self.sandbox.verify_ticket(PLATFORM),
        }
        return self.call("component/api_component_token", {**body, **changes})

    def authorizer(self, token: str | None = None, **changes: Any) -> dict[str, Any]:
        body = {
            "component_appid": PLATFORM,
            "authorizer_appid": SHOP,
            "authorizer_refresh_token": self.refresh_token,
        }
        token = self.component()["component_access_token"] if token is None else token
        path = "component/api_authorizer_token"
        return self.call(path, {**body, **changes}, component_access_token=token)

    def token(self) -> str:
        return str(self.authorizer()["authorizer_access_token"])

    def ticket(self, token: str | None = None, kind: str = "jsapi") -> dict[str, Any]:
        return self.call("ticket/getticket", access_token=token or self.token(), type=kind)

    def stable(self, appid: str = SHOP, secret: str = "shop-secret") -> dict[str, Any]:
        body = {"grant_type": "client_credential", "appid": appid, "secret": secret}
        return self.call("stable_token", body)

    def from_address(self, ip: str) -> None:
        self.http = Client(lambda env, start: self.sandbox({**env, "REMOTE_ADDR": ip}, start))


@pytest.fixture
def caller() -> Caller:
    return Caller()


# -- the platform's own token


def test_a_component_token_and_its_life(caller: Caller) -> None:
    """In the words of the API."""
    payload = caller.component()
    assert len(payload.pop("component_access_token")) >= 136
    assert payload == {"expires_in": 7200}


@pytest.mark.parametrize(
    ("changes", "errcode"),
    [
        ({"component_appid": ""}, 41002),
        ({"component_appid": "wx9"}, 61011),
        ({"component_appid": SHOP}, 61011),
        ({"component_appsecret": ""}, 41004),
        ({"component_appsecret": "wrong"}, 40125),
        ({"component_verify_ticket": ""}, 61006),
        ({"component_verify_ticket": None}, 61006),
        ({"component_verify_ticket": ["x"]}, 61006),
        ({"component_verify_ticket": "made-up"}, 61006),
    ],
)
def test_a_component_that_asks_wrongly(
    caller: Caller, changes: dict[str, Any], errcode: int
) -> None:
    """Each mistake has its errcode."""
    assert caller.component(**changes)["errcode"] == errcode


def test_verify_tickets_last_twelve_hours(caller: Caller) -> None:
    """The one before the latest does as well, while it lasts."""
    ticket = caller.sandbox.verify_ticket(PLATFORM)
    assert caller.sandbox.verify_ticket(PLATFORM) != ticket
    caller.clock.now += 12 * 3600 - 1
    assert "expires_in" in caller.component(component_verify_ticket=ticket)
    caller.clock.now += 1
    assert caller.component(component_verify_ticket=ticket)["errcode"] == 61005


def test_a_verify_ticket_is_of_one_platform(caller: Caller) -> None:
    """Another's is none."""
    caller.sandbox.add_component("wx-other", "x")
    ticket = caller.sandbox.verify_ticket("wx-other")
    assert caller.component(component_verify_ticket=ticket)["errcode"] == 61006


def test_the_next_component_token_leaves_the_one_before_its_overlap(caller: Caller) -> None:
    """Whether WeChat repeats it is not known."""
    first = caller.component()["component_access_token"]
    second = caller.component()["component_access_token"]
    assert first != second
    caller.clock.now += 299
    assert "authorizer_access_token" in caller.authorizer(first)
    caller.clock.now += 1
    assert caller.authorizer(first)["errcode"] == 40001
    assert "authorizer_access_token" in caller.authorizer(second)


def test_a_platform_has_no_token_of_an_account(caller: Caller) -> None:
    """Its AppID is none for token and stable_token, whatever the secret."""
    assert caller.stable(PLATFORM, SECRET)["errcode"] == 61024
    query = {"grant_type": "client_credential", "appid": PLATFORM, "secret": "x"}
    payload = caller.call("token", **query)
    assert payload["errcode"] == 61024
    assert payload["errmsg"].startswith("must use api(api_component_token) to get token for")


def test_an_appid_is_a_platforms_or_an_accounts(caller: Caller) -> None:
    """Not both."""
    with pytest.raises(ValueError, match="'wx-platform' is a third-party platform already"):
        caller.sandbox.add_account(PLATFORM, SECRET)
    with pytest.raises(ValueError, match="'wx-shop' is an account already"):
        caller.sandbox.add_component(SHOP, "x")


def test_a_platform_is_added_once(caller: Caller) -> None:
    """Again as it was is no change."""
    token = caller.component()["component_access_token"]
    caller.sandbox.add_component(PLATFORM, SECRET)
    assert "authorizer_access_token" in caller.authorizer(token)
    with pytest.raises(ValueError, match="already") as error:
        caller.sandbox.add_component(PLATFORM, "hush")
    assert "hush" not in str(error.value)


# -- the token of an account that authorised it


def test_an_authorizer_token_and_its_life(caller: Caller) -> None:
    """The refresh token comes along and stays what it was."""
    payload = caller.authorizer()
    assert len(payload.pop("authorizer_access_token")) >= 136
    assert payload == {"expires_in": 7200, "authorizer_refresh_token": caller.refresh_token}


def test_the_query_may_say_access_token(caller: Caller) -> None:
    """The documentation has both names."""
    body = {
        "component_appid": PLATFORM,
        "authorizer_appid": SHOP,
        "authorizer_refresh_token": caller.refresh_token,
    }
    token = caller.component()["component_access_token"]
    payload = caller.call("component/api_authorizer_token", body, access_token=token)
    assert "authorizer_access_token" in payload


@pytest.mark.parametrize(
    ("changes", "errcode"),
    [
        ({"component_appid": "wx9"}, 61011),
        ({"component_appid": None}, 61011),
        ({"authorizer_appid": "wx9"}, 61003),
        ({"authorizer_appid": "wx0000000000000000"}, 61003),
        ({"authorizer_appid": None}, 61003),
        ({"authorizer_refresh_token": "wrong"}, 61023),
        ({"authorizer_refresh_token": None}, 61023),
        ({"token": ""}, 41001),
        ({"token": "made-up"}, 40014),
    ],
)
def test_an_authorizer_token_is_refused(
    caller: Caller, changes: dict[str, Any], errcode: int
) -> None:
    """Each mistake has its errcode."""
    assert caller.authorizer(**changes)["errcode"] == errcode


def test_the_next_authorizer_token_leaves_the_one_before_its_overlap(caller: Caller) -> None:
    """Two processes that both refresh are heard of five minutes later."""
    first, second = caller.token(), caller.token()
    assert first != second
    caller.clock.now += 299
    assert caller.ticket(first)["errcode"] == 0
    caller.clock.now += 1
    assert caller.ticket(first)["errcode"] == 40001
    caller.clock.now += 6900
    assert caller.ticket(second)["errcode"] == 42001


def test_kinds_of_tokens_do_not_stand_for_each_other(caller: Caller) -> None:
    """The platform's own where the account's belongs, or the reverse, is 48001."""
    assert caller.ticket(caller.component()["component_access_token"])["errcode"] == 48001
    assert caller.authorizer(caller.token())["errcode"] == 48001
    assert caller.authorizer(caller.stable()["access_token"])["errcode"] == 48001


def test_an_account_has_its_own_token_beside_the_platforms(caller: Caller) -> None:
    """Neither ends the other."""
    own, theirs = caller.stable()["access_token"], caller.token()
    assert caller.stable()["access_token"] == own
    assert caller.ticket(own)["ticket"] == caller.ticket(theirs)["ticket"]


# -- tickets, and who judges a page


def test_the_ticket_is_the_accounts(caller: Caller) -> None:
    """A page is signed with the account's AppID, not with the platform's."""
    ticket = caller.ticket()["ticket"]
    assert caller.sandbox.verify(appId=SHOP, **signed(ticket)) == "config:ok"
    assert caller.sandbox.verify(appId=PLATFORM, **signed(ticket)) == "config:fail"
    first = caller.sandbox.app_id
    assert caller.sandbox.verify(appId=first, **signed(ticket)) == "config:invalid signature"


@pytest.mark.parametrize(
    ("own", "url", "verdict"),
    [
        ([], PAGE, "ok"),
        ([], "https://shop.example/", "invalid url domain"),
        (["shop.example"], PAGE, "ok"),
        (["shop.example"], "https://shop.example/", "ok"),
        (["shop.example"], "https://elsewhere.example/", "invalid url domain"),
    ],
)
def test_pages_are_on_the_platforms_domains(own: list[str], url: str, verdict: str) -> None:
    """Beside the account's own, if it names any."""
    caller = Caller(domains=[".platform.example"])
    caller.sandbox.add_account("wx2", "second", domains=own)
    refresh_token = caller.sandbox.authorise("wx2", PLATFORM)
    changes = {"authorizer_appid": "wx2", "authorizer_refresh_token": refresh_token}
    ticket = caller.ticket(caller.authorizer(**changes)["authorizer_access_token"])["ticket"]
    assert caller.sandbox.verify(appId="wx2", **signed(ticket, url)) == f"config:{verdict}"


def test_a_platform_that_is_not_authorised_has_no_say(caller: Caller) -> None:
    """Its domains narrow nobody else's."""
    caller.sandbox.add_component("wx-narrow", "x", domains=["narrow.example"])
    ticket = caller.ticket()["ticket"]
    assert caller.sandbox.verify(appId=SHOP, **signed(ticket)) == "config:ok"


@pytest.mark.parametrize(
    ("granted", "answers"),
    [((4,), [0, 61007]), ((8,), [61007, 0]), ((1, 2), [61007, 61007]), ((4, 8), [0, 0])],
)
def test_a_ticket_needs_its_set_of_permissions(
    granted: tuple[int, ...], answers: list[int]
) -> None:
    """4 has the JS-SDK, 8 the cards; the account's own token needs neither."""
    caller = Caller(*granted)
    kinds = ("jsapi", "wx_card")
    assert [caller.ticket(kind=kind)["errcode"] for kind in kinds] == answers
    own = caller.stable()["access_token"]
    assert [caller.ticket(own, kind)["errcode"] for kind in kinds] == [0, 0]


def test_permissions_change_with_the_next_authorisation() -> None:
    """The refresh token stays."""
    caller = Caller(1)
    token = caller.token()
    assert caller.ticket(token)["errcode"] == 61007
    assert caller.sandbox.authorise(SHOP, PLATFORM) == caller.refresh_token
    assert caller.ticket(token)["errcode"] == 0


def test_the_quota_is_the_accounts(caller: Caller) -> None:
    """Whoever asks uses it up."""
    caller.sandbox.add_account("wx2", "second", ticket_quota=1)
    refresh_token = caller.sandbox.authorise("wx2", PLATFORM)
    changes = {"authorizer_appid": "wx2", "authorizer_refresh_token": refresh_token}
    token = caller.authorizer(**changes)["authorizer_access_token"]
    assert caller.ticket(caller.stable("wx2", "second")["access_token"])["errcode"] == 0
    assert caller.ticket(token)["errcode"] == 45009


# -- what goes wrong


def test_the_whitelist_is_the_platforms() -> None:
    """For each of its calls; the account's own is not asked, and the address is named."""
    caller = Caller(ip_whitelist=["10.0.0.0/8"])
    caller.from_address("10.0.0.1")
    component, token = caller.component()["component_access_token"], caller.token()
    caller.from_address("192.0.2.7")
    for payload in (caller.component(), caller.authorizer(component), caller.ticket(token)):
        assert payload["errcode"] == 61004
        assert "192.0.2.7" in payload["errmsg"]
    assert "access_token" in caller.stable()


def test_a_withdrawn_authorisation_ends_everything_at_once(caller: Caller) -> None:
    """The tokens that were given out and those to come; the account's own go on."""
    own, token = caller.stable()["access_token"], caller.token()
    caller.sandbox.withdraw(SHOP, PLATFORM)
    assert caller.ticket(token)["errcode"] == 61003
    assert caller.authorizer()["errcode"] == 61003
    assert caller.ticket(own)["errcode"] == 0


def test_a_new_authorisation_has_a_new_refresh_token(caller: Caller) -> None:
    """The old one is invalid, and so are the old tokens."""
    token = caller.token()
    caller.sandbox.withdraw(SHOP, PLATFORM)
    refresh_token = caller.sandbox.authorise(SHOP, PLATFORM)
    assert refresh_token != caller.refresh_token
    assert caller.authorizer()["errcode"] == 61023
    assert caller.ticket(token)["errcode"] == 61003
    caller.refresh_token = refresh_token
    assert caller.ticket()["errcode"] == 0


def test_a_withdrawn_platform_lends_no_domains() -> None:
    """Pages on it are refused, whatever ticket signs them."""
    caller = Caller(domains=["shop.platform.example"])
    caller.sandbox.add_account("wx2", "second", domains=["shop.example"])
    caller.sandbox.authorise("wx2", PLATFORM)
    ticket = caller.ticket(caller.stable("wx2", "second")["access_token"])["ticket"]
    assert caller.sandbox.verify(appId="wx2", **signed(ticket, PAGE)) == "config:ok"
    caller.sandbox.withdraw("wx2", PLATFORM)
    verdict = caller.sandbox.verify(appId="wx2", **signed(ticket, PAGE))
    assert verdict == "config:invalid url domain"


def test_a_frozen_secret_does_not_stop_a_platform(caller: Caller) -> None:
    """It needs none of the account's."""
    caller.sandbox.fail("40243", times=None, path="stable_token", app_id=SHOP)
    assert caller.stable()["errcode"] == 40243
    assert caller.ticket()["errcode"] == 0


def test_a_reset_secret_does_not_stop_a_platform(caller: Caller) -> None:
    """Only the platform's own does."""
    token = caller.token()
    caller.sandbox.reset_secret(SHOP, "another")
    assert caller.ticket(token)["errcode"] == 0
    caller.sandbox.reset_secret(PLATFORM, "another")
    assert caller.component()["errcode"] == 40125
    assert "component_access_token" in caller.component(component_appsecret="another")


def test_a_fault_is_of_the_account_that_a_call_is_for(caller: Caller) -> None:
    """Not of the platform that makes it; what it asks for itself is the platform's."""
    token = caller.token()
    caller.sandbox.fail(-1, times=None, app_id=SHOP)
    assert "component_access_token" in caller.component()
    assert caller.authorizer()["errcode"] == -1
    assert caller.ticket(token)["errcode"] == -1
    caller.sandbox.heal()
    caller.sandbox.fail(-1, times=None, app_id=PLATFORM)
    assert caller.component()["errcode"] == -1
    assert caller.ticket(token)["errcode"] == 0


def test_a_fault_replaces_a_platforms_token(caller: Caller) -> None:
    """As it does any other."""
    component = caller.component()["component_access_token"]
    caller.sandbox.fail('ticket:"x"', times=2)
    assert caller.component()["component_access_token"] == "x"
    assert caller.authorizer(component)["authorizer_access_token"] == "x"


def test_revoked_tokens_are_replaced(caller: Caller) -> None:
    """Those of platforms and of their accounts too."""
    component, token = caller.component()["component_access_token"], caller.token()
    caller.sandbox.revoke_token()
    assert caller.authorizer(component)["errcode"] == 40001
    assert caller.ticket(token)["errcode"] == 40001
    assert caller.ticket()["errcode"] == 0


def test_reset_keeps_who_acts_for_whom(caller: Caller) -> None:
    """With the refresh token, which the platform has stored; tokens and pushed tickets go."""
    pushed, token = caller.sandbox.verify_ticket(PLATFORM), caller.token()
    ticket = caller.ticket(token)["ticket"]
    caller.sandbox.reset()
    assert caller.ticket(token)["errcode"] == 40014
    assert caller.component(component_verify_ticket=pushed)["errcode"] == 61006
    second = caller.ticket()["ticket"]
    assert second != ticket
    assert second == caller.ticket(caller.stable()["access_token"])["ticket"]


def test_an_account_that_is_gone_has_authorised_nobody(caller: Caller) -> None:
    """Added anew it has to do it again."""
    token = caller.token()
    caller.sandbox.remove_account(SHOP)
    assert caller.ticket(token)["errcode"] == 40014
    assert caller.authorizer()["errcode"] == 61003
    caller.sandbox.add_account(SHOP, "shop-secret")
    assert caller.authorizer()["errcode"] == 61003


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.verify_ticket("wx9"), r"no component 'wx9': add_component\(\) it first"),
        (lambda s: s.authorise("wx9", PLATFORM), r"no account 'wx9': add_account\(\) it first"),
        (lambda s: s.authorise(SHOP, "wx9"), r"no component 'wx9': add_component\(\) it first"),
        (lambda s: s.withdraw(SHOP, "wx9"), r"has not authorised 'wx9': authorise\(\) it first"),
        (lambda s: s.suite_ticket("ww9"), r"no suite 'ww9': add_suite\(\) it first"),
        (lambda s: s.install(CORP, "ww9"), r"no suite 'ww9': add_suite\(\) it first"),
    ],
)
def test_who_is_not_there(caller: Caller, call: Callable[[Sandbox], object], message: str) -> None:
    """The error says what comes first."""
    with pytest.raises(ValueError, match=message):
        call(caller.sandbox)


def test_nothing_shown_is_a_secret(caller: Caller) -> None:
    """Neither in a repr nor in the history nor on the page."""
    secrets = {SECRET, caller.refresh_token, caller.sandbox.verify_ticket(PLATFORM)}
    secrets |= {caller.component()["component_access_token"], caller.token()}
    caller.ticket()
    registry = caller.sandbox._registry
    shown = repr((caller.sandbox.history, registry.components, registry.authorisations))
    page = caller.http.get("/sandbox/").text
    assert "<code>wx-platform</code> <small>third party</small>" in page
    assert not [secret for secret in secrets if secret in shown + page]


# -- WeCom


class Provider(Plain):
    """A client of a sandbox with an application of a provider, which a corp has installed."""

    def __init__(self, **rules: Any) -> None:
        super().__init__()
        self.sandbox.add_suite(SUITE, SECRET, **rules)
        self.code = self.sandbox.install(CORP, SUITE, AGENT)

    def call(self, path: str, body: Any = None, **query: str) -> dict[str, Any]:
        method = "GET" if body is None else "POST"
        response = self.http.open(f"/cgi-bin/{path}", method=method, query_string=query, json=body)
        payload = json.loads(response.data)
        assert isinstance(payload, dict)
        return payload

    def suite(self, **changes: Any) -> dict[str, Any]:
        ticket = self.sandbox.suite_ticket(SUITE)
        body = {"suite_id": SUITE, "suite_secret": SECRET, "suite_ticket": ticket}
        return self.call("service/get_suite_token", {**body, **changes})

    def corp(self, token: str | None = None, **changes: Any) -> dict[str, Any]:
        body = {"auth_corpid": CORP, "permanent_code": self.code}
        token = self.suite()["suite_access_token"] if token is None else token
        return self.call("service/get_corp_token", {**body, **changes}, suite_access_token=token)


@pytest.fixture
def provider() -> Provider:
    return Provider()


def test_a_suite_token_is_the_same_to_its_end(provider: Provider) -> None:
    """WeCom says so, and that it is 42009 afterwards."""
    payload = provider.suite()
    first = payload.pop("suite_access_token")
    assert payload == {"errcode": 0, "errmsg": "ok", "expires_in": 7200}
    provider.clock.now += 7199
    assert provider.suite()["suite_access_token"] == first
    assert provider.corp(first)["errcode"] == 0
    provider.clock.now += 1
    payload = provider.corp(first)
    assert payload["errcode"] == 42009
    assert payload["errmsg"].startswith("suite_access_token expired, hint: ")
    assert provider.suite()["suite_access_token"] != first


@pytest.mark.parametrize(
    ("changes", "errcode"),
    [
        ({"suite_id": ""}, 41021),
        ({"suite_id": "ww9"}, 40083),
        ({"suite_secret": ""}, 41024),
        ({"suite_secret": "wrong"}, 40080),
        ({"suite_ticket": ""}, 40085),
        ({"suite_ticket": "made-up"}, 40085),
    ],
)
def test_a_suite_that_asks_wrongly(
    provider: Provider, changes: dict[str, Any], errcode: int
) -> None:
    """Each mistake has its errcode."""
    assert provider.suite(**changes)["errcode"] == errcode


def test_suite_tickets_last_half_an_hour(provider: Provider) -> None:
    """Afterwards they are as invalid as one that never was."""
    ticket = provider.sandbox.suite_ticket(SUITE)
    provider.clock.now += 1799
    assert provider.suite(suite_ticket=ticket)["errcode"] == 0
    provider.clock.now += 1
    assert provider.suite(suite_ticket=ticket)["errcode"] == 40085


@pytest.mark.parametrize(
    ("changes", "errcode"),
    [
        ({"permanent_code": "wrong"}, 40084),
        ({"permanent_code": None}, 40084),
        ({"auth_corpid": "ww9"}, 40084),
        ({"token": ""}, 41022),
        ({"token": "made-up"}, 40082),
    ],
)
def test_a_corp_token_is_refused(provider: Provider, changes: dict[str, Any], errcode: int) -> None:
    """Each mistake has its errcode."""
    assert provider.corp(**changes)["errcode"] == errcode


def test_a_corps_token_fetches_both_tickets(provider: Provider) -> None:
    """As one of an application of the corp's own does."""
    token = provider.corp()["access_token"]
    corps = provider.call("get_jsapi_ticket", access_token=token)["ticket"]
    agents = provider.call("ticket/get", access_token=token, type="agent_config")["ticket"]
    assert provider.sandbox.verify(appId=CORP, **signed(corps)) == "config:ok"
    verdict = provider.sandbox.verify_agent(corpid=CORP, agentid=AGENT, **signed(agents))
    assert verdict == "agentConfig:ok"


def test_the_tokens_of_a_provider_do_not_stand_for_each_other(provider: Provider) -> None:
    """A suite's is good for get_corp_token alone, and nothing else is."""
    suite, corp = provider.suite()["suite_access_token"], provider.corp()["access_token"]
    assert provider.call("get_jsapi_ticket", access_token=suite)["errcode"] == 40014
    assert provider.corp(corp)["errcode"] == 40082


def test_a_permanent_code_is_no_secret_for_gettoken(provider: Provider) -> None:
    """It is the provider's way only."""
    query = {"corpid": CORP, "corpsecret": provider.code}
    assert provider.call("gettoken", **query)["errcode"] == 40001


def test_a_suite_is_installed_once_by_each_corp(provider: Provider) -> None:
    """Again is no change, another corp has another code, and another agent is no part of it."""
    assert provider.sandbox.install(CORP, SUITE, AGENT) == provider.code
    code = provider.sandbox.install("ww-second", SUITE, AGENT)
    assert code != provider.code
    assert provider.corp(auth_corpid="ww-second", permanent_code=code)["errcode"] == 0
    provider.sandbox.add_suite("ww-other", "x")
    with pytest.raises(ValueError, match=f"has another agent '{AGENT}' already"):
        provider.sandbox.install(CORP, "ww-other", AGENT)


def test_the_rules_are_the_suites() -> None:
    """Its whitelist and its domains."""
    provider = Provider(domains=["suite.example"], ip_whitelist=["10.0.0.0/8"])
    assert provider.suite()["errcode"] == 60020
    app = provider.sandbox
    provider.http = Client(lambda env, start: app({**env, "REMOTE_ADDR": "10.0.0.1"}, start))
    token = provider.corp()["access_token"]
    ticket = provider.call("get_jsapi_ticket", access_token=token)["ticket"]
    for host, verdict in (("suite", "ok"), ("corp", "invalid url domain")):
        values = signed(ticket, f"https://{host}.example/")
        assert app.verify(appId=CORP, **values) == f"config:{verdict}"


def test_a_providers_tokens_are_revoked_and_reset(provider: Provider) -> None:
    """The permanent code stays; tokens go."""
    suite, corp = provider.suite()["suite_access_token"], provider.corp()["access_token"]
    provider.sandbox.revoke_token()
    assert provider.corp(suite)["errcode"] == 40082
    assert provider.call("get_jsapi_ticket", access_token=corp)["errcode"] == 40014
    provider.sandbox.reset()
    assert provider.corp()["errcode"] == 0
    provider.sandbox.fail(-1, app_id=SUITE)
    assert provider.suite()["errcode"] == -1
    provider.sandbox.fail(-1, app_id=CORP)
    assert provider.corp()["errcode"] == -1
