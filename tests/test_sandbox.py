"""The sandbox: WeChat's rules, the phone, the faults, and the ways to run it."""

from __future__ import annotations

import hashlib
import html
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest
import requests
from werkzeug.test import Client, TestResponse

from flask_wxjsapi.sandbox import Sandbox, embedded, faults, main
from flask_wxjsapi.sandbox import sandbox as sandbox_module

MIDNIGHT = 1_700_064_000.0  # 2023-11-16 00:00 in Shanghai
STABLE, TOKEN = "/cgi-bin/stable_token", "/cgi-bin/token"
TICKET, QUOTA = "/cgi-bin/ticket/getticket", "/cgi-bin/openapi/quota/get"
SOON = 5.0  # seconds; far longer than anything here takes, far shorter than a hang


class Clock:
    def __init__(self, now: float = MIDNIGHT + 3600) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Caller:
    """A client of a sandbox without a network."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.sandbox = Sandbox(clock=self.clock, **options)
        self.http = Client(self.sandbox)

    def stable(self, **changes: Any) -> dict[str, Any]:
        body = {
            "grant_type": "client_credential",
            "appid": self.sandbox.app_id,
            "secret": self.sandbox.app_secret,
        }
        body = {k: v for k, v in {**body, **changes}.items() if v is not None}
        return answer(self.http.post(STABLE, json=body))

    def legacy(self, **changes: Any) -> dict[str, Any]:
        query = {
            "grant_type": "client_credential",
            "appid": self.sandbox.app_id,
            "secret": self.sandbox.app_secret,
        }
        query = {k: v for k, v in {**query, **changes}.items() if v is not None}
        return answer(self.http.get(TOKEN, query_string=query))

    def ticket(self, token: str | None = None, kind: str = "jsapi") -> dict[str, Any]:
        token = token or self.stable()["access_token"]
        return answer(self.http.get(TICKET, query_string={"access_token": token, "type": kind}))

    def sign(self, url: str, ticket: str | None = None, **changes: Any) -> dict[str, Any]:
        ticket = ticket or self.ticket()["ticket"]
        text = f"jsapi_ticket={ticket}&noncestr=n0nce&timestamp=1414587457&url={url}"
        return {
            "appId": self.sandbox.app_id,
            "nonceStr": "n0nce",
            "timestamp": 1414587457,
            "signature": hashlib.sha1(text.encode()).hexdigest(),
            "url": url,
            **changes,
        }


def answer(response: TestResponse) -> dict[str, Any]:
    assert response.status_code == 200
    payload = json.loads(response.data)
    assert isinstance(payload, dict)
    return payload


@pytest.fixture
def caller() -> Caller:
    return Caller()


@pytest.fixture
def served() -> Iterator[Sandbox]:
    with Sandbox().serve() as sandbox:
        yield sandbox


def fetch(sandbox: Sandbox, timeout: float = SOON) -> requests.Response:
    """Ask for a token over a real connection."""
    query = {
        "grant_type": "client_credential",
        "appid": sandbox.app_id,
        "secret": sandbox.app_secret,
    }
    return requests.get(sandbox.url + TOKEN, params=query, timeout=timeout, allow_redirects=False)


def in_background(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# -- access tokens


def test_stable_token_answers_a_token_and_its_life(caller: Caller) -> None:
    """A success has no errcode, a long token and the full life."""
    payload = caller.stable()
    assert payload.keys() == {"access_token", "expires_in"}
    assert len(payload["access_token"]) >= 136
    assert payload["expires_in"] == 7200
    assert isinstance(payload["expires_in"], int)


def test_stable_token_repeats_the_token_with_its_remaining_life(caller: Caller) -> None:
    """In normal mode a second call brings the same token with the life it has left."""
    first = caller.stable()
    caller.clock.now += 6899.5
    assert caller.stable() == {"access_token": first["access_token"], "expires_in": 300}


def test_stable_token_renews_within_the_overlap(caller: Caller) -> None:
    """Five minutes before the end comes a new token with a full life."""
    first = caller.stable()
    caller.clock.now += 6900
    second = caller.stable()
    assert second["access_token"] != first["access_token"]
    assert second["expires_in"] == 7200


def test_both_stable_tokens_work_during_the_overlap(caller: Caller) -> None:
    """A renewal does not shorten the old token's life."""
    first = caller.stable()["access_token"]
    caller.clock.now += 6900
    second = caller.stable()["access_token"]
    caller.clock.now += 299
    assert caller.ticket(first)["errcode"] == 0
    assert caller.ticket(second)["errcode"] == 0


def test_a_token_expires_by_age(caller: Caller) -> None:
    """A token at the end of its life answers 42001."""
    token = caller.stable()["access_token"]
    caller.clock.now += 7200
    assert caller.ticket(token)["errcode"] == 42001


def test_a_short_life_has_a_short_overlap() -> None:
    """The overlap is at most a quarter of the token's life."""
    caller = Caller(token_lifetime=8)
    first = caller.stable()["access_token"]
    caller.clock.now += 5.9
    assert caller.stable()["access_token"] == first
    caller.clock.now += 0.1
    assert caller.stable()["access_token"] != first


def test_a_life_below_a_second_is_answered_as_a_fraction() -> None:
    """Whole seconds would make it 0."""
    assert Caller(token_lifetime=0.5).stable()["expires_in"] == 0.5


def test_forced_refresh_brings_a_new_token(caller: Caller) -> None:
    """force_refresh renews a token that has most of its life before it."""
    assert caller.stable()["access_token"] != caller.stable(force_refresh=True)["access_token"]


def test_forced_refresh_leaves_the_old_token_its_overlap(caller: Caller) -> None:
    """The token before works five minutes more and then answers 40001."""
    old = caller.stable()["access_token"]
    caller.stable(force_refresh=True)
    caller.clock.now += 299
    assert caller.ticket(old)["errcode"] == 0
    caller.clock.now += 1
    assert caller.ticket(old)["errcode"] == 40001


def test_forced_refresh_twice_kills_the_old_token_at_once(caller: Caller) -> None:
    """This is how a leaked token is made useless."""
    old = caller.stable()["access_token"]
    caller.stable(force_refresh=True)
    caller.clock.now += 30
    caller.stable(force_refresh=True)
    assert caller.ticket(old)["errcode"] == 40001


def test_forced_refresh_needs_30_seconds_between(caller: Caller) -> None:
    """Sooner than that nothing is renewed."""
    first = caller.stable(force_refresh=True)
    caller.clock.now += 29
    second = caller.stable(force_refresh=True)
    assert second == {"access_token": first["access_token"], "expires_in": 7171}


def test_forced_refresh_works_20_times_a_day(caller: Caller) -> None:
    """The 21st is refused and the normal mode goes on."""
    for _ in range(20):
        assert "access_token" in caller.stable(force_refresh=True)
        caller.clock.now += 30
    assert caller.stable(force_refresh=True)["errcode"] == 45009
    assert "access_token" in caller.stable()


def test_legacy_token_is_new_on_every_call(caller: Caller) -> None:
    """The old endpoint never answers the same token twice."""
    first, second = caller.legacy(), caller.legacy()
    assert first["access_token"] != second["access_token"]
    assert second["expires_in"] == 7200


def test_a_legacy_call_gives_the_old_token_five_minutes(caller: Caller) -> None:
    """Superseded is 40001."""
    old = caller.legacy()["access_token"]
    caller.legacy()
    caller.clock.now += 299
    assert caller.ticket(old)["errcode"] == 0
    caller.clock.now += 1
    assert caller.ticket(old)["errcode"] == 40001


def test_superseding_never_prolongs_a_life(caller: Caller) -> None:
    """A token that has less than five minutes left ends by age."""
    old = caller.legacy()["access_token"]
    caller.clock.now += 7100
    caller.legacy()
    caller.clock.now += 100
    assert caller.ticket(old)["errcode"] == 42001


def test_forced_refresh_spares_the_legacy_token(caller: Caller) -> None:
    """Stable and legacy tokens are isolated."""
    legacy = caller.legacy()["access_token"]
    for _ in range(2):
        caller.stable(force_refresh=True)
        caller.clock.now += 301
    assert caller.ticket(legacy)["errcode"] == 0


def test_a_legacy_call_spares_the_stable_token(caller: Caller) -> None:
    """Stable and legacy tokens are isolated."""
    stable = caller.stable()["access_token"]
    caller.legacy()
    caller.clock.now += 301
    assert caller.ticket(stable)["errcode"] == 0
    assert caller.stable()["access_token"] == stable


@pytest.mark.parametrize(
    ("changes", "errcode"),
    [
        ({"grant_type": "refresh"}, 40002),
        ({"grant_type": None}, 40002),
        ({"appid": None}, 41002),
        ({"appid": "wx1"}, 40013),
        ({"secret": None}, 41004),
        ({"secret": "wrong"}, 40125),
    ],
)
@pytest.mark.parametrize("endpoint", ["stable", "legacy"])
def test_token_call_refuses_wrong_settings(
    caller: Caller, endpoint: str, changes: dict[str, Any], errcode: int
) -> None:
    """Each wrong or missing setting has its errcode."""
    assert getattr(caller, endpoint)(**changes)["errcode"] == errcode


def test_errors_carry_a_request_id(caller: Caller) -> None:
    """The errmsg ends in a changing rid, so nobody can compare it."""
    first, second = caller.stable(secret="x")["errmsg"], caller.stable(secret="x")["errmsg"]
    assert re.fullmatch(r"invalid appsecret rid: [0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}", first)
    assert first != second


@pytest.mark.parametrize(
    ("data", "errcode"),
    [(b"", 44002), (b"{", 47001), (b"[]", 47001), (b"[" * 100_000, 47001), (b"\xff", 47001)],
)
def test_stable_token_refuses_a_bad_body(caller: Caller, data: bytes, errcode: int) -> None:
    """What is no JSON object is an errcode, never a crash."""
    assert answer(caller.http.post(STABLE, data=data))["errcode"] == errcode


def test_stable_token_refuses_values_of_the_wrong_type(caller: Caller) -> None:
    """JSON types count: an object is no appid and a string no boolean."""
    assert caller.stable(appid={"a": 1})["errcode"] == 40013
    assert caller.stable(secret=["x"])["errcode"] == 40125
    assert caller.stable(force_refresh="false")["errcode"] == 47001


def test_wrong_methods(caller: Caller) -> None:
    """GET and POST are not interchangeable."""
    assert answer(caller.http.get(STABLE))["errcode"] == 43002
    assert answer(caller.http.post(TOKEN))["errcode"] == 43001
    assert answer(caller.http.post(TICKET))["errcode"] == 43001


def test_unknown_paths(caller: Caller) -> None:
    """An unknown path is 40066 and counts as other."""
    assert answer(caller.http.get("/cgi-bin/nothing"))["errcode"] == 40066
    assert caller.sandbox.calls == {"other": 1}


def test_content_types(caller: Caller) -> None:
    """WeChat says encoding where others say charset, or text/plain."""
    token = caller.http.post(STABLE, data=b"{}")
    ticket = caller.http.get(TICKET)
    assert token.headers["Content-Type"] == "application/json; encoding=utf-8"
    assert ticket.headers["Content-Type"].startswith("text/plain")


def test_ip_whitelist_names_the_caller() -> None:
    """A stranger's address stands in the errmsg."""
    caller = Caller(ip_whitelist=["10.0.0.0/8", "192.0.2.7"])
    payload = caller.stable()
    assert payload["errcode"] == 40164
    assert payload["errmsg"].startswith(
        "invalid ip 127.0.0.1 ipv6 ::ffff:127.0.0.1, not in whitelist rid: "
    )


@pytest.mark.parametrize("ip", ["10.1.2.3", "192.0.2.7"])
def test_ip_whitelist_admits_its_entries(ip: str) -> None:
    """Addresses and networks may both be listed."""
    caller = Caller(ip_whitelist=["10.0.0.0/8", "192.0.2.7"])
    caller.http = Client(lambda env, start: caller.sandbox({**env, "REMOTE_ADDR": ip}, start))
    assert "access_token" in caller.stable()


# -- tickets


def test_a_ticket_looks_like_one(caller: Caller) -> None:
    """86 URL-safe characters, errcode 0 and the full life."""
    payload = caller.ticket()
    assert re.fullmatch(r"[\w-]{86}", payload.pop("ticket"))
    assert payload == {"errcode": 0, "errmsg": "ok", "expires_in": 7200}


def test_same_ticket_always_promises_a_full_life(caller: Caller) -> None:
    """In the world "same" expires_in is not the remaining life."""
    first = caller.ticket()
    caller.clock.now += 7199
    assert caller.ticket() == first


def test_same_ticket_keeps_its_latest_promise(caller: Caller) -> None:
    """A ticket answered late in its life is good for the life that came with it."""
    ticket = caller.ticket()["ticket"]
    caller.clock.now += 7199
    caller.ticket()
    caller.clock.now += 7199
    assert caller.sandbox.verify(**caller.sign("http://a/", ticket)) == "config:ok"


def test_same_ticket_is_replaced_at_its_lifetime(caller: Caller) -> None:
    """However long the latest promise, the next call then brings another."""
    first = caller.ticket()["ticket"]
    caller.clock.now += 7199
    caller.ticket()
    caller.clock.now += 1
    assert caller.ticket()["ticket"] != first


def test_remaining_ticket_says_what_it_has_left() -> None:
    """In the world "remaining" the same ticket comes until it expires."""
    caller = Caller(ticket="remaining")
    first = caller.ticket()
    caller.clock.now += 7100
    assert caller.ticket() == {**first, "expires_in": 100}
    caller.clock.now += 100
    assert caller.ticket()["ticket"] != first["ticket"]


def test_new_ticket_comes_with_every_call() -> None:
    """In the world "new" old tickets go on to their own end."""
    caller = Caller(ticket="new")
    first = caller.ticket()["ticket"]
    caller.clock.now += 7199
    second = caller.ticket()["ticket"]
    signed = caller.sign("http://a/", first)
    assert second != first
    assert caller.sandbox.verify(**signed) == "config:ok"
    caller.clock.now += 1
    assert caller.sandbox.verify(**signed) == "config:invalid signature"


def test_an_unknown_ticket_world_is_an_error() -> None:
    """The message lists the three."""
    with pytest.raises(ValueError, match="'same', 'remaining' or 'new'"):
        Sandbox(ticket="old")


@pytest.mark.parametrize("option", ["token_lifetime", "ticket_lifetime"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_life_of_nothing_is_an_error(option: str, value: float) -> None:
    """Use the fault "expires:0" for that."""
    with pytest.raises(ValueError, match="longer than 0"):
        Sandbox(**{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["domains", "ip_whitelist"])
def test_a_string_is_no_list(option: str) -> None:
    """It would be taken for a list of letters."""
    with pytest.raises(TypeError, match="lists of strings"):
        Sandbox(**{option: "10.0.0.1"})  # type: ignore[arg-type]


def test_a_new_access_token_does_not_change_the_ticket(caller: Caller) -> None:
    """Tickets belong to the account, not to the token they were asked with."""
    first = caller.ticket(caller.legacy()["access_token"])["ticket"]
    assert caller.ticket(caller.legacy()["access_token"])["ticket"] == first


def test_card_tickets_are_others(caller: Caller) -> None:
    """jsapi and wx_card tickets do not stand for each other."""
    card = caller.ticket(kind="wx_card")["ticket"]
    assert card != caller.ticket()["ticket"]
    signed = caller.sign("http://a/", card)
    assert caller.sandbox.verify(**signed) == "config:invalid signature"


def test_unknown_ticket_type(caller: Caller) -> None:
    """A wrong type is an argument error."""
    assert caller.ticket(kind="agent_config")["errcode"] == 40097


def test_ticket_call_refuses_bad_tokens(caller: Caller) -> None:
    """Missing, unknown and revoked tokens have errcodes of their own."""
    token = caller.stable()["access_token"]
    assert answer(caller.http.get(TICKET, query_string={"type": "jsapi"}))["errcode"] == 41001
    assert caller.ticket("made-up")["errcode"] == 40014
    caller.sandbox.revoke_token()
    assert caller.ticket(token)["errcode"] == 40001


def test_a_revoked_token_is_replaced(caller: Caller) -> None:
    """After a revocation stable_token brings another one in normal mode."""
    first = caller.stable()["access_token"]
    caller.sandbox.revoke_token()
    assert caller.stable()["access_token"] != first


# -- quotas and the rest of the API


@pytest.mark.parametrize(
    ("option", "call"), [("token_quota", "legacy"), ("stable_token_quota", "stable")]
)
def test_token_quotas_last_until_midnight_in_shanghai(option: str, call: str) -> None:
    """Beyond a quota every call is refused, until the day changes there."""
    caller = Caller(**{option: 2})
    ask = getattr(caller, call)
    caller.clock.now = MIDNIGHT - 1
    assert [ask().get("errcode") for _ in range(4)] == [None, None, 45009, 45009]
    caller.clock.now = MIDNIGHT
    assert "access_token" in ask()


def test_the_ticket_quota_is_one_for_all_types() -> None:
    """It is the endpoint that is limited."""
    caller = Caller(ticket_quota=2)
    token = caller.stable()["access_token"]
    kinds = ("jsapi", "wx_card", "jsapi")
    assert [caller.ticket(token, kind)["errcode"] for kind in kinds] == [0, 0, 45009]


def test_refused_calls_cost_no_quota() -> None:
    """A call with the wrong secret is not counted against the account."""
    caller = Caller(stable_token_quota=1)
    caller.stable(secret="wrong")
    assert "access_token" in caller.stable()


def test_quota_get_tells_what_is_left(caller: Caller) -> None:
    """quota/get speaks of an endpoint by its path."""
    token = caller.stable()["access_token"]
    caller.ticket(token)
    query = {"access_token": token}
    payload = answer(caller.http.post(QUOTA, query_string=query, json={"cgi_path": TICKET}))
    assert payload["quota"] == {"daily_limit": 10_000, "used": 1, "remain": 9999}
    payload = answer(caller.http.post(QUOTA, query_string=query, json={"cgi_path": "/x"}))
    assert payload["errcode"] == 76021
    assert answer(caller.http.post(QUOTA, query_string=query))["errcode"] == 44002


@pytest.mark.parametrize("name", ["get_api_domain_ip", "getcallbackip"])
def test_ip_lists(caller: Caller, name: str) -> None:
    """The two harmless calls answer a list and want a valid token."""
    token = caller.stable()["access_token"]
    payload = answer(caller.http.get(f"/cgi-bin/{name}?access_token={token}"))
    assert payload["ip_list"]
    assert answer(caller.http.get(f"/cgi-bin/{name}?access_token=x"))["errcode"] == 40014


def test_accounts_are_separate(caller: Caller) -> None:
    """A second account has its own tokens, tickets and rules."""
    caller.sandbox.add_account("wx2", "second", ticket_quota=0)
    token = caller.stable(appid="wx2", secret="second")["access_token"]
    assert token != caller.stable()["access_token"]
    assert caller.ticket(token)["errcode"] == 45009
    assert caller.ticket()["errcode"] == 0
    assert caller.stable(appid="wx2")["errcode"] == 40125


def test_an_account_is_added_once(caller: Caller) -> None:
    """A second account of the same name would hide the first."""
    with pytest.raises(ValueError, match="already"):
        caller.sandbox.add_account(caller.sandbox.app_id, "x")


# -- the phone


def test_the_phone_accepts_a_right_signature(caller: Caller) -> None:
    """The timestamp may be a number or its digits."""
    signed = caller.sign("https://example.com/a?b=c")
    assert caller.sandbox.verify(**signed) == "config:ok"
    assert caller.sandbox.verify(**{**signed, "timestamp": "1414587457"}) == "config:ok"


def test_the_phone_agrees_with_the_official_vector(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example of the documentation is judged as documented."""
    ticket = (
        "sM4AOVdWfPE4DxkXGEs8VMCPGGVi4C3VM0P37wVUCFvkVAy_90u5h9nbSlYy3-Sl-HhTdfl2fzFy1AOcHKP7qg"
    )
    token = caller.stable()["access_token"]
    monkeypatch.setattr("secrets.token_urlsafe", lambda _: ticket)
    caller.ticket(token)
    verdict = caller.sandbox.verify(
        appId=caller.sandbox.app_id,
        nonceStr="Wm3WZYTPz0wzccnW",
        timestamp=1414587457,
        signature="0f9de62fce790f9a083d5c99e95740ceb90c27ed",
        url="http://mp.weixin.qq.com?params=value#hash",
    )
    assert verdict == "config:ok"


@pytest.mark.parametrize(
    "change",
    [
        {"nonceStr": "other"},
        {"timestamp": 1},
        {"signature": ""},
        {"url": "https://example.com/a?b=c&from=timeline"},
        {"url": "https://example.com/%61?b=c"},
    ],
)
def test_the_phone_refuses_what_was_not_signed(caller: Caller, change: dict[str, Any]) -> None:
    """Any difference between the page and what was signed is an invalid signature."""
    signed = caller.sign("https://example.com/a?b=c")
    assert caller.sandbox.verify(**{**signed, **change}) == "config:invalid signature"


def test_the_phone_cuts_the_hash(caller: Caller) -> None:
    """The browser's address may have a fragment, the signed one has not."""
    signed = caller.sign("https://example.com/a")
    assert caller.sandbox.verify(**{**signed, "url": signed["url"] + "#/b#c"}) == "config:ok"
    signed = caller.sign("https://example.com/a#b")
    assert caller.sandbox.verify(**signed) == "config:invalid signature"


def test_the_phone_does_not_know_the_account(caller: Caller) -> None:
    """An unknown appId is a failure of its own."""
    assert caller.sandbox.verify(**caller.sign("http://a/", appId="wx9")) == "config:fail"


@pytest.mark.parametrize(
    ("url", "accepted"),
    [
        ("https://shop.example/a", True),
        ("http://SHOP.example:8080/a", True),
        ("https://www.wide.example/", True),
        ("https://wide.example/", True),
        ("https://www.shop.example/", False),
        ("https://notwide.example/", False),
        ("https://elsewhere.example/?shop.example", False),
        ("http://[broken", False),
        ("nonsense", False),
    ],
)
def test_the_phone_knows_the_safe_domains(url: str, accepted: bool) -> None:
    """A page elsewhere is refused whatever its signature."""
    caller = Caller(domains=["shop.example", ".wide.example"])
    expected = "config:ok" if accepted else "config:invalid url domain"
    assert caller.sandbox.verify(**caller.sign(url)) == expected


# -- faults


@pytest.mark.parametrize("fault", ["-1", 45009, "45011", "40001", "48001", "99999"])
def test_errcode_faults(caller: Caller, fault: str | int) -> None:
    """Any errcode can be answered, once by default."""
    caller.sandbox.fail(fault)
    assert caller.stable()["errcode"] == int(fault)
    assert "access_token" in caller.stable()


def test_an_errcode_fault_names_the_ip(caller: Caller) -> None:
    """40164 is worded as the real one."""
    caller.sandbox.fail("40164")
    assert "invalid ip 127.0.0.1" in caller.stable()["errmsg"]


@pytest.mark.parametrize(
    ("fault", "status"),
    [("500", 500), (502, 502), ("503", 503), ("404", 404), ("http 500", 500), ("http 429", 429)],
)
def test_http_faults(caller: Caller, fault: str | int, status: int) -> None:
    """A broken gateway answers HTML."""
    caller.sandbox.fail(fault)
    response = caller.http.get(TOKEN)
    assert response.status_code == status
    assert response.mimetype == "text/html"
    assert b"nginx" in response.data


@pytest.mark.parametrize(
    ("fault", "body"),
    [
        ("empty", b""),
        ("nulls", b'{"access_token": null, "ticket": null, "expires_in": null}'),
        ("list", b"[]"),
    ],
)
def test_body_faults(caller: Caller, fault: str, body: bytes) -> None:
    """The answer is a success with the wrong body."""
    caller.sandbox.fail(fault)
    response = caller.http.get(TOKEN)
    assert (response.status_code, response.data) == (200, body)


def test_garbage_is_not_text(caller: Caller) -> None:
    """Random bytes that are surely no UTF-8."""
    caller.sandbox.fail("garbage")
    with pytest.raises(UnicodeDecodeError):
        caller.http.get(TOKEN).data.decode()


def test_html_is_a_page(caller: Caller) -> None:
    """A captive portal answers 200."""
    caller.sandbox.fail("html")
    response = caller.http.get(TOKEN)
    assert (response.status_code, response.mimetype) == (200, "text/html")


def test_redirect_leads_elsewhere(caller: Caller) -> None:
    """The target is another host, and one that never exists."""
    caller.sandbox.fail("redirect")
    response = caller.http.get(TOKEN)
    assert response.status_code == 302
    assert ".invalid/" in response.headers["Location"]


@pytest.mark.parametrize(
    ("fault", "value"),
    [
        ("expires:0", 0),
        ("expires:-1", -1),
        ('expires:"7200"', "7200"),
        ("expires:1e30", 1e30),
        ("expires:null", None),
        ("expires:true", True),
    ],
)
def test_expires_faults(caller: Caller, fault: str, value: object) -> None:
    """The answer is right but for its life."""
    caller.sandbox.fail(fault, times=2)
    token, ticket = caller.stable(), caller.ticket()
    assert token["expires_in"] is value or token["expires_in"] == value
    assert len(token["access_token"]) >= 136
    assert "ticket" in ticket


def test_no_expires(caller: Caller) -> None:
    """The answer is right but has no life."""
    caller.sandbox.fail("no-expires")
    assert caller.stable().keys() == {"access_token"}


@pytest.mark.parametrize(("fault", "value"), [("ticket:123", 123), ('ticket:""', "")])
def test_ticket_faults(caller: Caller, fault: str, value: object) -> None:
    """The value itself is replaced, be it a token or a ticket."""
    token = caller.stable()["access_token"]
    caller.sandbox.fail(fault, times=2)
    assert caller.stable()["access_token"] == value
    payload = caller.ticket(token)
    assert (payload["ticket"], payload["expires_in"]) == (value, 7200)


@pytest.mark.parametrize(
    "fault", ["hnag", "", "expires:", "expires:x", "slow:x", "slow:-1", "slow:inf", "True", "1.5"]
)
def test_unknown_faults_are_errors(caller: Caller, fault: str) -> None:
    """The message lists what there is."""
    with pytest.raises(ValueError, match="'drip-headers'"):
        caller.sandbox.fail(fault)


@pytest.mark.parametrize("times", [0, -1, True, "2", 1.0])
def test_times_is_a_positive_number(caller: Caller, times: Any) -> None:
    """Anything else would be a fault that never ends or never comes."""
    with pytest.raises(ValueError, match="times is a positive number"):
        caller.sandbox.fail("500", times=times)


def test_faults_come_in_order_and_as_often_as_told(caller: Caller) -> None:
    """The queue is first in, first out."""
    caller.sandbox.fail(45009, times=2)
    caller.sandbox.fail(-1)
    assert [caller.stable().get("errcode") for _ in range(4)] == [45009, 45009, -1, None]


def test_a_fault_without_times_lasts_until_heal(caller: Caller) -> None:
    """times=None is an outage."""
    caller.sandbox.fail(-1, times=None)
    assert {caller.stable()["errcode"] for _ in range(5)} == {-1}
    caller.sandbox.heal()
    assert "access_token" in caller.stable()


@pytest.mark.parametrize("path", [TICKET, "getticket"])
def test_a_fault_can_be_meant_for_one_endpoint(caller: Caller, path: str) -> None:
    """Calls to other endpoints leave it in the queue."""
    caller.sandbox.fail(45009, path=path)
    assert "access_token" in caller.stable()
    assert caller.ticket()["errcode"] == 45009


def test_a_fault_for_an_unknown_endpoint_is_an_error(caller: Caller) -> None:
    """It would never be played."""
    with pytest.raises(ValueError, match="getticket"):
        caller.sandbox.fail(45009, path="/cgi-bin/getticket")


@pytest.mark.parametrize("fault", ["hang", "slow", "slow:30"])
def test_waiting_calls_are_answered_on_heal(caller: Caller, fault: str) -> None:
    """The answer is right, only late."""
    caller.sandbox.fail(fault)
    answers: list[dict[str, Any]] = []
    thread = in_background(lambda: answers.append(caller.stable()))
    until(lambda: caller.sandbox.calls["stable_token"])
    assert "access_token" in caller.stable()  # the others are not held up
    assert not answers
    caller.sandbox.heal()
    thread.join(SOON)
    assert "access_token" in answers[0]


def test_a_fault_after_heal_waits_again(caller: Caller) -> None:
    """heal() lets go those who wait then, not those who come later."""
    caller.sandbox.heal()
    caller.sandbox.fail("slow:0.05")
    start = time.monotonic()
    caller.stable()
    assert time.monotonic() - start >= 0.05


def test_delay_makes_every_call_wait() -> None:
    """Faults wait as well, and the lock is free meanwhile."""
    caller = Caller(delay=0.2)
    caller.sandbox.fail(-1)
    start = time.monotonic()
    threads = [in_background(caller.stable) for _ in range(10)]
    for thread in threads:
        thread.join(SOON)
    assert 0.2 <= time.monotonic() - start < 1.5  # 2 s if one waited for the other


def test_slow_takes_its_seconds(caller: Caller) -> None:
    """slow:SECONDS is a delay of one call."""
    caller.sandbox.fail("slow:0.05")
    start = time.monotonic()
    assert "access_token" in caller.stable()
    assert time.monotonic() - start >= 0.05


def test_close_is_a_connection_without_an_answer(served: Sandbox) -> None:
    """Not one byte comes."""
    served.fail("close")
    with pytest.raises(requests.ConnectionError):
        fetch(served)
    assert fetch(served).status_code == 200


def test_half_is_less_than_promised(served: Sandbox) -> None:
    """The connection ends before the announced length."""
    served.fail("half")
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        fetch(served)


def test_drip_defeats_a_read_timeout(served: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, the whole takes long; the answer is right in the end."""
    monkeypatch.setattr(faults, "_DRIP_INTERVAL", 0.006)
    served.fail("drip")
    start = time.monotonic()
    response = fetch(served, timeout=1)
    assert time.monotonic() - start > 1
    assert response.json()["expires_in"] == 7200


def test_drip_sends_the_headers_at_once(served: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the body drips, and after heal() the rest of it comes."""
    monkeypatch.setattr(faults, "_DRIP_INTERVAL", 30)
    served.fail("drip")
    response = requests.get(served.url + TICKET, stream=True, timeout=SOON)
    served.heal()
    assert response.json()["errcode"] == 41001


def test_drip_headers_never_come_to_an_end(served: Sandbox) -> None:
    """The header goes on until heal(), and then there is no answer."""
    served.fail("drip-headers")
    with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as caller:
        caller.settimeout(SOON)
        caller.sendall(b"GET /cgi-bin/token HTTP/1.1\r\nHost: x\r\n\r\n")
        assert caller.recv(1) == b"H"
        assert caller.recv(1) == b"T"
        served.heal()
        rest = b"".join(iter(lambda: caller.recv(1000), b""))
    assert "HTTP/1.1 200 OK".startswith("HT" + rest.decode())


@pytest.mark.parametrize("fault", ["close", "drip-headers"])
def test_socket_faults_without_a_socket_are_connection_errors(caller: Caller, fault: str) -> None:
    """In-process callers get the exception a broken connection would give."""
    caller.sandbox.fail(fault)
    with pytest.raises(ConnectionError):
        caller.stable()


# -- what it remembers


def test_calls_count_everything_that_arrives(caller: Caller) -> None:
    """Failed and refused calls count as well."""
    caller.sandbox.fail("500", path="token")
    caller.http.get(TOKEN)
    caller.http.get(TOKEN)
    caller.stable()
    assert caller.sandbox.calls == {"token": 2, "stable_token": 1}


def test_history_tells_outcomes(caller: Caller) -> None:
    """A record has the time, the name, and the errcode or the fault."""
    for fault in ("http 500", "expires:0", "45009"):
        caller.sandbox.fail(fault)
    for _ in range(3):
        caller.http.get(TOKEN)
    caller.stable()
    caller.ticket("made-up")
    assert [(call.name, call.outcome) for call in caller.sandbox.history] == [
        ("token", "http 500"),
        ("token", "expires"),
        ("token", 45009),
        ("stable_token", 0),
        ("getticket", 40014),
    ]
    assert caller.sandbox.history[0].time == caller.clock.now


def test_history_is_bounded(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox that runs for weeks does not grow."""
    monkeypatch.setattr(sandbox_module, "_HISTORY_LIMIT", 3)
    for _ in range(5):
        caller.stable()
    assert len(caller.sandbox.history) == 3


def test_nothing_shown_is_a_secret(caller: Caller) -> None:
    """Neither repr() nor the history nor the page nor a frame's locals has a secret value."""
    caller.sandbox.fail('ticket:"planted"')
    caller.stable()
    token, ticket = caller.stable()["access_token"], caller.ticket()["ticket"]
    sandbox = caller.sandbox
    accounts = sandbox._registry.accounts
    kept = [(a.tokens.values(), a.tickets) for a in accounts.values()]
    shown = repr((sandbox, sandbox.history, accounts, kept))
    shown += caller.http.get("/sandbox/").text + caller.http.get("/sandbox/calls").text
    for secret in (sandbox.app_secret, token, ticket, "planted"):
        assert secret not in shown


def test_reset_forgets_everything_but_the_accounts(caller: Caller) -> None:
    """Tokens, tickets, quotas, faults and counts are as at the start."""
    caller.sandbox.add_account("wx2", "second")
    token = caller.stable()["access_token"]
    caller.sandbox.fail(-1, times=None)
    caller.sandbox.reset()
    assert not caller.sandbox.calls
    assert not caller.sandbox.history
    assert caller.ticket(token)["errcode"] == 40014
    assert "access_token" in caller.stable(appid="wx2", secret="second")


def test_threads_lose_no_call(caller: Caller) -> None:
    """Counts are exact and one stable token is shared by all."""
    tokens: list[str] = []

    def work() -> None:
        client = Client(caller.sandbox)
        for _ in range(50):
            body = {
                "grant_type": "client_credential",
                "appid": caller.sandbox.app_id,
                "secret": caller.sandbox.app_secret,
            }
            tokens.append(client.post(STABLE, json=body).get_json(force=True)["access_token"])

    for thread in [in_background(work) for _ in range(8)]:
        thread.join(SOON)
    assert caller.sandbox.calls["stable_token"] == 400
    assert len(set(tokens)) == 1


# -- the control face


def test_fail_and_heal_over_http(caller: Caller) -> None:
    """Another process can queue faults and take them back."""
    order = {"fault": 45009, "times": None, "path": "stable_token"}
    assert caller.http.post("/sandbox/fail", json=order).json == {"ok": True}
    assert caller.stable()["errcode"] == 45009
    assert caller.http.post("/sandbox/heal").json == {"ok": True}
    assert "access_token" in caller.stable()


def test_revoke_over_http(caller: Caller) -> None:
    """The same as revoke_token()."""
    token = caller.stable()["access_token"]
    caller.http.post("/sandbox/revoke")
    assert caller.ticket(token)["errcode"] == 40001


def test_calls_over_http(caller: Caller) -> None:
    """Control calls are not counted and meet no faults."""
    caller.stable()
    caller.sandbox.fail("500", times=None)
    assert caller.http.get("/sandbox/calls").json == {"stable_token": 1}


def test_verify_over_http(caller: Caller) -> None:
    """The phone judges a whole wx.config by POST, or the five values by GET."""
    signed = caller.sign("https://example.com/?a=1&b=中")
    config = {**signed, "jsApiList": ["chooseImage"], "debug": False}
    post = caller.http.post("/sandbox/verify", json=config)
    get = caller.http.get("/sandbox/verify", query_string=signed)
    assert post.json == get.json == {"errMsg": "config:ok"}


@pytest.mark.parametrize(
    ("path", "data", "message"),
    [
        ("fail", b"", "JSON object"),
        ("fail", b"{", "JSON object"),
        ("fail", b"[]", "JSON object"),
        ("fail", b"[" * 100_000, "JSON object"),
        ("fail", b"{}", "'fault'"),
        ("fail", b'{"fault": "500", "time": 3}', "'times'"),
        ("fail", b'{"fault": "nonsense"}', "'hang'"),
        ("fail", b'{"fault": null}', "'hang'"),
        ("fail", b'{"fault": "500", "times": "3"}', "times"),
        ("fail", b'{"fault": "500", "path": ["x"]}', "getticket"),
        ("verify", b'{"appId": "x", "url": null}', "nonceStr, timestamp, signature, url"),
    ],
)
def test_bad_control_calls_are_explained(
    caller: Caller, path: str, data: bytes, message: str
) -> None:
    """A 400 says what is wrong."""
    response = caller.http.post(f"/sandbox/{path}", data=data)
    assert response.status_code == 400
    assert message in response.get_json()["error"]


@pytest.mark.parametrize(("method", "path"), [("GET", "fail"), ("POST", "calls"), ("GET", "x")])
def test_unknown_control_calls(caller: Caller, method: str, path: str) -> None:
    """There is nothing there."""
    assert caller.http.open(f"/sandbox/{path}", method=method).status_code == 404


def test_only_the_control_face_has_cors(caller: Caller) -> None:
    """A page may use the control face; nobody calls WeChat's API from a page."""
    preflight = caller.http.options("/sandbox/verify")
    assert preflight.status_code == 204
    assert preflight.headers["Access-Control-Allow-Headers"] == "Content-Type"
    bad = caller.http.post("/sandbox/fail")
    assert bad.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Origin" not in caller.http.get(TOKEN).headers


def test_the_page_says_what_it_is(caller: Caller) -> None:
    """A small page with the counts, and account names that cannot be markup."""
    caller.sandbox.add_account("<script>", "x")
    caller.stable()
    page = caller.http.get("/sandbox/").text
    assert "This is not WeChat" in page
    assert "<td>stable_token<td>1" in page
    assert "<script>" not in page


# -- the phone in a browser


def test_the_script_knows_where_the_sandbox_is(served: Sandbox) -> None:
    """It ends with a line of its own, since another script's text may follow."""
    text = served.bridge_script()
    assert f'"{served.url}"' in text
    assert "__SANDBOX_URL__" not in text
    assert text.endswith(";\n")
    assert "</script" not in text.lower()


def test_no_script_without_an_address() -> None:
    """There is nobody whom it could ask."""
    with pytest.raises(RuntimeError, match=r"serve\(\)"):
        Sandbox().bridge_script()


def test_the_script_over_http(caller: Caller) -> None:
    """Any page may include it, as the address that the browser has for the sandbox."""
    response = caller.http.get("/sandbox/bridge.js", base_url="http://devbox:8900/")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert '"http://devbox:8900"' in response.text
    assert not caller.sandbox.calls


@pytest.mark.parametrize("host", ['x";alert(1);"', "</script><script>", "a b", ""])
def test_a_host_stays_a_string(caller: Caller, host: str) -> None:
    """Whatever a Host header says, the script is the same but for one string."""
    text = caller.http.get("/sandbox/bridge.js", headers={"Host": host}).text
    literal = re.search(r"const SANDBOX = (.*);\n", text)
    assert literal
    assert isinstance(json.loads(literal[1]), str)
    assert "</script" not in text


def test_the_page_shows_the_tag(caller: Caller) -> None:
    """One line to paste."""
    tag = "&lt;script src=&quot;http://devbox:8900/sandbox/bridge.js&quot;&gt;&lt;/script&gt;"
    assert tag in caller.http.get("/sandbox/", base_url="http://devbox:8900/").text


# -- why a signature is invalid

PAGE = "https://example.com/a?b=1"


def asked(signed: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """What somebody pastes: the values of a wx.config and the page's address."""
    return {**{key: value for key, value in signed.items() if key != "appId"}, **changes}


def test_a_diagnosis_as_json(caller: Caller) -> None:
    """It names the cause and the account, in both languages."""
    fields = asked(caller.sign(PAGE), url=f"{PAGE}&from=timeline&isappinstalled=0#top")
    answer = caller.http.post("/sandbox/diagnose", json=fields).get_json()
    assert answer["cause"] == "share"
    assert answer["appId"] == caller.sandbox.app_id
    assert answer["signed"].endswith(f"&url={PAGE}")
    assert "from=" in answer["english"]
    assert "动态" in answer["chinese"]


def test_a_diagnosis_in_the_browser(caller: Caller) -> None:
    """The form answers with a page that says why and keeps what was pasted."""
    fields = asked(caller.sign(PAGE), url=PAGE.replace("https", "http"))
    response = caller.http.post("/sandbox/diagnose", data=fields)
    assert response.content_type == "text/html; charset=utf-8"
    assert 'data-cause="scheme"' in response.text
    assert f'name="nonceStr" value="{fields["nonceStr"]}"' in response.text
    linked = caller.http.get("/sandbox/", query_string=fields)
    assert 'data-cause="scheme"' in linked.text
    assert "data-cause" not in caller.http.get("/sandbox/").text


def test_a_right_signature_is_found_among_accounts(caller: Caller) -> None:
    """Without an appId each account is tried, and the best answer counts."""
    first = caller.sign(PAGE)
    caller.sandbox.add_account("wx-second", "second")
    token = caller.stable(appid="wx-second", secret="second")["access_token"]
    second = caller.sign(PAGE, caller.ticket(token)["ticket"])
    for signed, app_id in ((first, caller.sandbox.app_id), (second, "wx-second")):
        answer = caller.http.post("/sandbox/diagnose", json=asked(signed)).get_json()
        assert (answer["cause"], answer["appId"]) == ("valid", app_id)
    other = caller.http.post("/sandbox/diagnose", json=asked(first, appId="wx-second")).get_json()
    assert other["cause"] == "unknown"
    assert other["signed"] is None


@pytest.mark.parametrize(
    ("used", "label"),
    [("expired", "已过期"), ("card", "卡券"), ("pasted", "粘贴"), ("token", "access_token")],
)
def test_another_value_was_signed(caller: Caller, used: str, label: str) -> None:
    """The label says which; the value itself is in no answer, nor is any other."""
    values = {"expired": caller.ticket()["ticket"]}
    caller.clock.now += 7200
    token = caller.stable()["access_token"]
    values |= {
        "card": caller.ticket(token, "wx_card")["ticket"],
        "pasted": "a-ticket-that-is-not-the-sandbox's",
        "token": token,
        "current": caller.ticket(token)["ticket"],
    }
    fields = asked(caller.sign(f"{PAGE}&t={values[used]}", values[used]), ticket=values["pasted"])
    answer = caller.http.post("/sandbox/diagnose", json=fields).get_json()
    page = caller.http.post("/sandbox/diagnose", data=fields).text
    assert answer["cause"] == ("access_token" if used == "token" else "ticket")
    assert label in answer["english"]
    assert label in page
    for value in values.values():
        assert value not in page
        assert value not in html.unescape(page)
        assert value not in json.dumps(answer, ensure_ascii=False)


def test_the_only_ticket_has_expired(caller: Caller) -> None:
    """That is a cause of its own, and not a right signature."""
    signed = caller.sign(PAGE)
    caller.clock.now += 7200
    answer = caller.http.post("/sandbox/diagnose", json=asked(signed)).get_json()
    assert answer["cause"] == "ticket"
    assert "expired" in answer["english"]


def test_every_valid_ticket_may_sign() -> None:
    """The diagnosis agrees with the phone where several tickets are valid."""
    caller = Caller(ticket="new")
    first = caller.sign(PAGE)
    caller.ticket()
    assert caller.sandbox.verify(**first) == "config:ok"
    answer = caller.http.post("/sandbox/diagnose", json=asked(first)).get_json()
    assert answer["cause"] == "valid"


def test_a_pasted_ticket_of_a_real_account(caller: Caller) -> None:
    """Where the sandbox knows nothing, the pasted ticket is the one that should have signed."""
    ticket = "sM4AOVdWfPE4DxkXGEs8VMCPGGVi4C3VM0P37wVUCFvkVAy"
    fields = asked(caller.sign(PAGE, ticket), ticket=ticket, appId="wx-real")
    answer = caller.http.post("/sandbox/diagnose", json=fields).get_json()
    assert (answer["cause"], answer["appId"]) == ("valid", "wx-real")
    assert ticket not in json.dumps(answer)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"signature": "no hex"}, "40 hex digits"),
        ({"url": "<b>"}, "whole address"),
        ({"url": ["x"]}, "url: a string is wanted"),
        ({"appId": "wx-nobody"}, "no such account"),
        ({"timestamp": None}, "timestamp must be one line"),
    ],
)
def test_a_diagnosis_of_nonsense(caller: Caller, changes: dict[str, Any], message: str) -> None:
    """It says which value cannot be right."""
    fields = asked(caller.sign(PAGE), **changes)
    response = caller.http.post("/sandbox/diagnose", json=fields)
    assert response.status_code == 400
    assert message in response.get_json()["error"]


def test_a_hostile_diagnosis(caller: Caller) -> None:
    """What was pasted comes back as text."""
    markup = '"><script>alert(1)</script>{0}{accounts}'
    fields = asked(caller.sign(PAGE), url=f"{PAGE}{markup}", nonceStr=markup, appId=markup)
    for signature in ("0" * 40, markup):
        fields["signature"] = signature
        for response in (
            caller.http.post("/sandbox/diagnose", data=fields),
            caller.http.get("/sandbox/", query_string=fields),
        ):
            assert "<script" not in response.text
            assert "{accounts}" in response.text
            assert response.status_code == 400
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]


def test_a_body_without_end_is_refused(caller: Caller) -> None:
    """The sandbox reads a megabyte at most."""
    assert caller.http.post(STABLE, data=b"x" * 2_000_000).status_code == 413


# -- on a port


def test_serve_is_idempotent(served: Sandbox) -> None:
    """A second call changes nothing."""
    url = served.url
    assert served.serve().url == url
    assert url.startswith("http://127.0.0.1:")


def test_close_takes_the_sandbox_off_the_net() -> None:
    """Afterwards nobody answers, and it can be served again."""
    sandbox = Sandbox().serve()
    url = sandbox.url
    sandbox.close()
    sandbox.close()
    assert sandbox.url == ""
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=SOON)
    with sandbox.serve():
        assert fetch(sandbox).status_code == 200


@pytest.mark.parametrize("fault", ["hang", "drip-headers", "drip"])
def test_close_does_not_wait_for_hanging_calls(fault: str) -> None:
    """A test with hanging calls ends at once."""
    sandbox = Sandbox().serve()
    sandbox.fail(fault, times=None)
    callers = [in_background(lambda: suppress(lambda: fetch(sandbox, 30))) for _ in range(5)]
    until(lambda: sandbox.calls["token"] == 5)
    start = time.monotonic()
    sandbox.close()
    for thread in callers:
        thread.join(SOON)
    assert time.monotonic() - start < 1


def suppress(work: Callable[[], object]) -> None:
    try:
        work()
    except requests.RequestException:
        pass


def test_a_taken_port_is_an_error(served: Sandbox) -> None:
    """An exception, not the end of the process."""
    with pytest.raises(OSError, match=r"(?i)address"):
        Sandbox().serve(port=int(served.url.rpartition(":")[2]))


def test_impatient_callers_leave_no_trace(served: Sandbox) -> None:
    """A caller that gives up is no error of the sandbox, and nothing is logged."""
    output = io.StringIO()
    with redirect_stderr(output):
        for fault in ("hang", "drip", "drip-headers", "close", "half", "slow:1"):
            served.fail(fault)
            suppress(lambda: fetch(served, timeout=0.05))
            served.heal()
        assert fetch(served).status_code == 200
        time.sleep(0.05)
    assert output.getvalue() == ""


@pytest.fixture
def no_embedded() -> Iterator[None]:
    yield
    for sandbox in sandbox_module._embedded.values():
        sandbox.close()
    sandbox_module._embedded.clear()


@pytest.mark.usefixtures("no_embedded")
def test_embedded_is_one_per_process() -> None:
    """Only the first call's options count."""
    first = embedded(app_id="wx1")
    assert embedded(app_id="wx2") is first
    assert first.app_id == "wx1"
    assert fetch(first).status_code == 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.usefixtures("no_embedded")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_embeds_its_own() -> None:
    """A thread does not survive a fork, so the parent's sandbox is of no use to a child."""
    parent = embedded()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        child = embedded()
        inherited = parent._listener._server.socket.fileno() if parent._listener else 0
        result = f"{child.url != parent.url} {fetch(child).status_code} {inherited}"
        os.write(writer, result.encode())
        os._exit(0)
    os.close(writer)
    assert os.read(reader, 100) == b"True 200 -1"  # -1: it let go of its parent's port
    os.close(reader)
    os.waitpid(pid, 0)
    assert fetch(parent).status_code == 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_close_in_a_forked_child_does_not_wait(served: Sandbox) -> None:
    """There is no server thread to wait for."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(5)
        served.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert fetch(served).status_code == 200


def test_the_command_serves_until_ctrl_c() -> None:
    """It prints where it is and who the account is, and ends without a traceback."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flask_wxjsapi.sandbox", "--port", "0", "--ttl", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(sandbox_module.__file__).parents[2],
    )
    try:
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(4)]
        url = lines[0].split()[3].removesuffix("/sandbox/")
        sandbox = Sandbox()
        sandbox.url = url
        assert fetch(sandbox).json()["expires_in"] == 60
        assert sandbox.app_id in lines[1]
        assert lines[2].strip() == f"export FLASK_WXJSAPI_API_BASE_URL={url}"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SOON)
    finally:
        process.kill()
    assert (process.returncode, errors) == (0, "")


def test_the_command_does_not_print_a_given_secret(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may have given a real one."""

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    assert main(["--port", "0", "--app-secret", "hush"]) == 0
    assert "hush" not in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["--ip-whitelist", "x"], ["--ticket", "x"], ["--port", "x"]])
def test_the_command_explains_wrong_options(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A usage message, not a traceback."""
    with pytest.raises(SystemExit) as error:
        main(argv)
    assert error.value.code == 2
    assert "usage:" in capsys.readouterr().err
