"""WeChat's rules: access tokens, tickets and quotas."""

from __future__ import annotations

import re
from typing import Any

import pytest
from werkzeug.test import Client

from flask_wxjsapi.sandbox import Sandbox
from flask_wxjsapi.sandbox.accounts import WORLDS

from .caller import MIDNIGHT, QUOTA, STABLE, TICKET, TOKEN, Caller, answer

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


def test_a_life_is_told_in_whole_seconds(caller: Caller) -> None:
    """What is left of a second counts for nothing, as with a server that truncates."""
    caller.stable()
    caller.clock.now += 0.25
    assert caller.stable()["expires_in"] == 7199


def test_a_whole_life_is_told_as_such_by_any_clock(caller: Caller) -> None:
    """Sums of times that lose their last digits cost no second."""
    for _ in range(100):
        caller.clock.now += 0.123456789
        assert caller.legacy()["expires_in"] == 7200


def test_a_token_in_its_last_second_has_0_left() -> None:
    """It is never rounded up, and it still works."""
    caller = Caller(token_lifetime=0.5)
    payload = caller.stable()
    assert payload["expires_in"] == 0
    assert isinstance(payload["expires_in"], int)
    assert caller.ticket(payload["access_token"])["errcode"] == 0


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


# -- the worlds: what somebody gets who asks for a ticket again


class World:
    """A sandbox's account in one of them, and the tickets it has answered.

    :param life: of a ticket, in seconds.
    """

    def __init__(self, ticket: str, life: float = 7200) -> None:
        self.caller = Caller(ticket=ticket, token_lifetime=86400, ticket_lifetime=life)
        self.clock = self.caller.clock
        self._start = self.clock.now
        self._numbers: dict[str, int] = {}

    def ask(self, at: float) -> tuple[int, int]:
        """The number of the ticket, and the life that is told, so many seconds after the start."""
        self.clock.now = self._start + at
        payload = self.caller.ticket()
        assert type(payload["expires_in"]) is int
        number = self._numbers.setdefault(payload["ticket"], len(self._numbers) + 1)
        return number, payload["expires_in"]

    def is_alive(self, number: int, at: float) -> bool:
        """Whether the phone takes what a ticket of this number signs at that time."""
        self.clock.now = self._start + at
        [ticket] = [ticket for ticket, known in self._numbers.items() if known == number]
        verdict = self.caller.sandbox.verify(**self.caller.sign("http://a/", ticket))
        assert verdict in ("config:ok", "config:invalid signature")
        return verdict == "config:ok"


def test_same_is_one_ticket_that_is_told_a_whole_life_each_time() -> None:
    """expires_in is not what it had left when it was answered before."""
    world = World("same")
    assert [world.ask(at) for at in (0, 1, 7199.5)] == [(1, 7200)] * 3


def test_same_keeps_what_its_latest_answer_told() -> None:
    """A ticket answered late in its life lives for the life that came with it."""
    world = World("same")
    world.ask(0)
    world.ask(7199)
    assert world.is_alive(1, 7199 + 7199)
    assert not world.is_alive(1, 7199 + 7200)


def test_same_is_replaced_at_its_lifetime() -> None:
    """However long the latest promise, the next call then brings another."""
    world = World("same")
    world.ask(0)
    world.ask(7199)
    assert world.ask(7200) == (2, 7200)
    assert world.is_alive(1, 7200)


def test_living_is_never_replaced_while_it_is_asked_for() -> None:
    """Every answer tells a whole life and gives it, for days."""
    world = World("living")
    assert {world.ask(7000 * n) for n in range(40)} == {(1, 7200)}
    assert world.is_alive(1, 7000 * 39 + 7199)


def test_living_ends_when_nobody_asks_for_a_lifetime() -> None:
    """Its latest answer promised no more."""
    world = World("living")
    world.ask(0)
    world.ask(7199)
    assert not world.is_alive(1, 7199 + 7200)
    assert world.ask(7199 + 7200) == (2, 7200)


def test_dying_is_told_a_whole_life_each_time() -> None:
    """As "same" is, to its last moment."""
    world = World("dying")
    assert [world.ask(at) for at in (0, 7000, 7199.5)] == [(1, 7200)] * 3


def test_dying_dies_at_the_end_that_was_told_first() -> None:
    """What later answers told was not true."""
    world = World("dying")
    world.ask(0)
    world.ask(7000)
    assert world.is_alive(1, 7199.5)
    assert not world.is_alive(1, 7200)


def test_dying_is_followed_by_a_new_one() -> None:
    """It comes with the first call after the end, and dies in its turn."""
    world = World("dying")
    world.ask(0)
    world.ask(7000)
    assert world.ask(7300) == (2, 7200)
    world.ask(14000)
    assert not world.is_alive(2, 7300 + 7200)


def test_remaining_is_told_the_whole_seconds_it_has_left() -> None:
    """What is left of the last one counts for nothing: it is 0, and never 1."""
    world = World("remaining")
    asked = (0, 0.5, 7100, 7198.9, 7199, 7199.1, 7199.9)
    assert [world.ask(at)[1] for at in asked] == [7200, 7199, 100, 1, 1, 0, 0]


def test_remaining_is_one_ticket_to_its_end() -> None:
    """It lives as long as was told first, and with 0 left it comes and lives still."""
    world = World("remaining")
    assert {world.ask(at)[0] for at in (0, 7100, 7199.9)} == {1}
    assert world.is_alive(1, 7199.9)
    assert not world.is_alive(1, 7200)


def test_remaining_is_replaced_after_its_end() -> None:
    """Not before, and then with a whole life."""
    world = World("remaining")
    world.ask(0)
    assert world.ask(7200) == (2, 7200)


def test_new_comes_with_every_call() -> None:
    """Each with a whole life."""
    world = World("new")
    assert [world.ask(at) for at in (0, 0, 7199)] == [(1, 7200), (2, 7200), (3, 7200)]


def test_new_leaves_the_earlier_ones_alive() -> None:
    """They go on to their own end."""
    world = World("new")
    world.ask(0)
    world.ask(7199)
    assert world.is_alive(1, 7199)
    assert not world.is_alive(1, 7200)
    assert world.is_alive(2, 7200)


@pytest.mark.parametrize("ticket", WORLDS)
def test_a_life_is_told_without_its_fraction(ticket: str) -> None:
    """A lifetime of 8.75 s is 8 in every world."""
    assert World(ticket, life=8.75).ask(0) == (1, 8)


def test_a_ticket_nobody_asked_for_in_time_is_replaced_in_every_world() -> None:
    """None outlives what was told of it."""
    for ticket in WORLDS:
        world = World(ticket, life=60)
        world.ask(0)
        assert not world.is_alive(1, 60), ticket
        assert world.ask(60) == (2, 60), ticket


def test_worlds_count_for_each_type_of_ticket() -> None:
    """A card's is remembered as the page's is."""
    caller = Caller(ticket="remaining")
    card = caller.ticket(kind="wx_card")
    caller.clock.now += 7100
    assert caller.ticket(kind="wx_card") == {**card, "expires_in": 100}
    assert caller.ticket()["expires_in"] == 7200


def test_an_unknown_ticket_world_is_an_error() -> None:
    """The message lists what there is."""
    with pytest.raises(
        ValueError, match="'same', 'living', 'dying', 'remaining', 'new', not 'old'"
    ):
        Sandbox(ticket="old")


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
