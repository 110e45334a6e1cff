"""Why a signature is invalid, as JSON and on the page."""

from __future__ import annotations

import html
import json
from typing import Any

import pytest

from .caller import Caller

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
    ("used", "english", "chinese"),
    [
        ("expired", "an expired one (1).", "已过期的第 1 个"),
        ("card", "the one for cards (wx_card).", "卡券的 wx_card"),
        ("pasted", "the pasted one.", "粘贴的"),
        ("token", "access_token", "access_token"),
    ],
)
def test_another_value_was_signed(caller: Caller, used: str, english: str, chinese: str) -> None:
    """Either language says which; the value itself is in no answer, nor is any other."""
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
    assert english in answer["english"]
    assert chinese in answer["chinese"]
    assert english in page
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
