"""Accounts that come and go, and as many of them as there may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from flask_wxjsapi.sandbox import Sandbox

from .caller import QUOTA, TICKET, Caller, answer

DAY = 86400


class Unseen(dict[str, Any]):
    """A dictionary that nobody may walk through."""

    def _walk(self) -> NoReturn:
        raise AssertionError("a call looks at everybody")

    __iter__ = keys = values = items = _walk  # type: ignore[assignment]


def owners(sandbox: Sandbox) -> set[str]:
    """The tokens that a call with one can find."""
    return set(sandbox._registry._owners)


def remembered(sandbox: Sandbox) -> set[str]:
    """The tokens that the accounts have."""
    accounts = sandbox._registry.accounts.values()
    return {value for account in accounts for value in account.tokens}


# -- many


def test_a_call_looks_at_no_account_but_its_own(caller: Caller) -> None:
    """So it costs the same with ten accounts and with ten thousand."""
    caller.sandbox.add_account("wx2", "second")
    registry = caller.sandbox._registry
    registry.accounts, registry.corps = Unseen(registry.accounts), Unseen()
    token = caller.stable(appid="wx2", secret="second")["access_token"]
    assert caller.legacy(appid="wx2", secret="second")["expires_in"] == 7200
    ticket = caller.ticket(token)["ticket"]
    query = {"access_token": token}
    assert "quota" in answer(caller.http.post(QUOTA, query_string=query, json={"cgi_path": TICKET}))
    assert caller.ticket("made-up")["errcode"] == 40014
    assert caller.sandbox.verify(**caller.sign("http://a/", ticket, appId="wx2")) == "config:ok"
    caller.sandbox.fail(-1, app_id="wx2")
    assert caller.ticket(token)["errcode"] == -1


@pytest.mark.parametrize(
    "change",
    [
        lambda caller: caller.stable(force_refresh=True),
        lambda caller: caller.sandbox.revoke_token(),
        lambda caller: caller.sandbox.reset(),
        lambda caller: caller.sandbox.reset_secret(caller.sandbox.app_id, "another"),
        lambda caller: caller.sandbox.remove_account("wx2"),
    ],
)
def test_every_token_has_its_owner(caller: Caller, change: Callable[[Caller], object]) -> None:
    """Whatever happens to the accounts, the tokens they remember are those that are found."""
    caller.sandbox.add_account("wx2", "second")
    for named in ({}, {"appid": "wx2", "secret": "second"}):
        caller.stable(**named)
        caller.legacy(**named)
    assert len(owners(caller.sandbox)) == 4
    change(caller)
    assert owners(caller.sandbox) == remembered(caller.sandbox)
    token = caller.stable(secret=caller.sandbox.app_secret)["access_token"]
    assert caller.ticket(token)["errcode"] == 0


def test_an_old_token_is_forgotten(caller: Caller) -> None:
    """A day after its end, with the next one; until then it is known as expired."""
    first = caller.legacy()["access_token"]
    caller.clock.now += 7200 + DAY - 1
    caller.legacy()
    assert caller.ticket(first)["errcode"] == 42001
    caller.clock.now += 1
    second = caller.legacy()["access_token"]
    assert caller.ticket(first)["errcode"] == 40014
    assert second in owners(caller.sandbox) == remembered(caller.sandbox)


def test_accounts_share_no_state_but_the_index(caller: Caller) -> None:
    """Resetting forgets the tokens of all."""
    caller.sandbox.add_account("wx2", "second")
    tokens = [caller.stable()["access_token"]]
    tokens.append(caller.stable(appid="wx2", secret="second")["access_token"])
    caller.sandbox.reset()
    assert [caller.ticket(token)["errcode"] for token in tokens] == [40014, 40014]
    assert owners(caller.sandbox) == set()


def test_the_page_shows_fifty_accounts_and_how_many_there_are(caller: Caller) -> None:
    """With thousands it stays a page."""
    for number in range(1, 10_000):
        caller.sandbox.add_account(f"wx{number:04}", "secret")
    page = caller.http.get("/sandbox/").text
    assert "wx0049" in page
    assert "wx0050" not in page
    assert "and 9,950 more" in page
    assert len(page) < 100_000


def test_fifty_accounts_are_shown_alone(caller: Caller) -> None:
    """Nothing is said of others where there are none."""
    for number in range(1, 50):
        caller.sandbox.add_account(f"wx{number}", "secret")
    page = caller.http.get("/sandbox/").text
    assert ">wx49<" in page
    assert " more" not in page


def test_a_diagnosis_among_many_wants_to_know_whose_it_is(caller: Caller) -> None:
    """It tries each ticket with each mistake, which would take minutes."""
    for number in range(51):
        caller.sandbox.add_account(f"wx{number}", "secret")
        caller.ticket(caller.stable(appid=f"wx{number}", secret="secret")["access_token"])
    fields = caller.sign("http://a/", appId="")
    refused = caller.http.post("/sandbox/diagnose", json=fields)
    assert refused.status_code == 400
    assert refused.get_json()["error"].startswith("appId: 52 tickets")
    fields["appId"] = caller.sandbox.app_id
    assert caller.http.post("/sandbox/diagnose", json=fields).get_json()["cause"] == "valid"


# -- they come


def test_an_account_comes_over_http(caller: Caller) -> None:
    """For a program whose sandbox is another process; doing it again changes nothing."""
    body = {"app_id": "wx2", "app_secret": "second"}
    for _ in range(2):
        assert caller.http.post("/sandbox/accounts", json=body).json == {"ok": True}
    assert "access_token" in caller.stable(appid="wx2", secret="second")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "JSON object"),
        (b"{}", "'app_secret'"),
        (b'{"app_id": "wx2"}', "'app_secret'"),
        (b'{"app_id": "wx2", "app_secret": ""}', "'app_secret'"),
        (b'{"app_id": "wx2", "app_secret": 7}', "both strings"),
        (b'{"app_id": "wx2", "app_secret": "hush", "ticket": "new"}', "'app_id'"),
        (b'{"app_id": "wx0000000000000000", "app_secret": "hush"}', "other settings already"),
    ],
)
def test_a_wrong_account_over_http_is_explained(caller: Caller, data: bytes, message: str) -> None:
    """A 400 says what is wanted, without the secret."""
    response = caller.http.post("/sandbox/accounts", data=data)
    assert response.status_code == 400
    assert message in response.get_json()["error"]
    assert "hush" not in response.text


# -- they change


def test_an_old_secret_is_refused_at_once(caller: Caller) -> None:
    """The new one is taken, and the sandbox has it for whoever asks."""
    old, token = caller.sandbox.app_secret, caller.stable()["access_token"]
    caller.sandbox.reset_secret(caller.sandbox.app_id, "another")
    assert caller.sandbox.app_secret == "another"
    assert caller.stable(secret=old)["errcode"] == 40125
    assert caller.ticket(token)["errcode"] == 40001
    assert caller.ticket()["errcode"] == 0


def test_a_secret_is_reset_for_one_account(caller: Caller) -> None:
    """The others keep theirs, and so does a reset of the sandbox."""
    caller.sandbox.add_account("wx2", "second")
    caller.sandbox.reset_secret("wx2", "third")
    caller.sandbox.reset()
    assert "access_token" in caller.stable()
    assert caller.stable(appid="wx2", secret="second")["errcode"] == 40125
    assert "access_token" in caller.stable(appid="wx2", secret="third")


# -- they go


def test_an_account_that_is_gone_is_unknown(caller: Caller) -> None:
    """To WeChat and to the phone; added anew it begins anew."""
    caller.sandbox.add_account("wx2", "second")
    token = caller.stable(appid="wx2", secret="second")["access_token"]
    signed = caller.sign("http://a/", caller.ticket(token)["ticket"], appId="wx2")
    caller.sandbox.remove_account("wx2")
    assert caller.stable(appid="wx2", secret="second")["errcode"] == 40013
    assert caller.ticket(token)["errcode"] == 40014
    assert caller.sandbox.verify(**signed) == "config:fail"
    caller.sandbox.add_account("wx2", "third")
    assert "access_token" in caller.stable(appid="wx2", secret="third")
    assert caller.ticket(token)["errcode"] == 40014


def test_the_first_account_stays(caller: Caller) -> None:
    """The others have its rules."""
    with pytest.raises(ValueError, match="stays"):
        caller.sandbox.remove_account(caller.sandbox.app_id)
    assert "access_token" in caller.stable()


@pytest.mark.parametrize(
    "change",
    [
        lambda sandbox: sandbox.remove_account("wx9"),
        lambda sandbox: sandbox.reset_secret("wx9", "hush"),
    ],
)
def test_an_unknown_account_is_an_error(
    caller: Caller, change: Callable[[Sandbox], object]
) -> None:
    """It says what to do."""
    with pytest.raises(ValueError, match=r"no account 'wx9': add_account\(\) it first"):
        change(caller.sandbox)
