"""What a process holds of a credential: when readers take it as it is, and what it adopts."""

from __future__ import annotations

import math

import pytest

from flask_wxjsapi._credential import ACCESS_TOKEN, JSAPI_TICKET, Credential, State
from flask_wxjsapi._engine.back_off import BackOff
from flask_wxjsapi._engine.snapshot import Snapshot

from ..conftest import FakeClock
from .cluster import DOWN, Cluster

NOW, AHEAD = 1_800_000_000.0, 200.0


def _ticket(value: str = "t1", issued_at: float = NOW, life: float = 7200) -> Credential:
    return Credential(value, issued_at, issued_at + life, int(issued_at))


class Watched(Snapshot):
    """Says when a reader could see what does not belong together."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in ("credential", "value", "shift", "end") and hasattr(self, "lost_leases"):
            assert self.start == math.inf or name == "end", f"open while {name} changes"
        if name == "start" and value != math.inf:
            assert self.end > value, "open before its end is known"  # type: ignore[operator]
        super().__setattr__(name, value)


def _open(snapshot: Snapshot, now: float = NOW, is_renewed_behind: bool = True) -> None:
    snapshot.open(now, AHEAD, is_renewed_behind)


def test_it_is_closed_while_it_changes() -> None:
    """Readers look without a lock, and never see the half of another one."""
    snapshot = Watched(JSAPI_TICKET)
    snapshot.hold(_ticket(), 0, is_own=True)
    _open(snapshot)
    assert snapshot.start <= NOW < snapshot.end
    snapshot.hold(_ticket("t2"), 0, is_own=True)
    assert snapshot.start == math.inf
    assert snapshot.value == "t2"


def test_it_is_open_for_a_moment() -> None:
    """Then a reader looks again at the PID and the thread."""
    snapshot = Snapshot(JSAPI_TICKET)
    snapshot.hold(_ticket(), 0, is_own=True)
    _open(snapshot)
    assert (snapshot.start, snapshot.end) == (NOW, NOW + 1)


def test_it_is_never_open_beyond_what_is_usable() -> None:
    """No reader gets a ticket in its last seconds."""
    snapshot = Snapshot(JSAPI_TICKET)
    snapshot.hold(_ticket(), 0, is_own=True)
    _open(snapshot, NOW + 7189.5)
    assert snapshot.end == NOW + 7190


def test_it_closes_when_it_is_due() -> None:
    """Without a thread it is a reader who has it renewed then."""
    snapshot = Snapshot(JSAPI_TICKET)
    snapshot.hold(_ticket(), 0, is_own=True)
    _open(snapshot, NOW + 6999.5)
    assert snapshot.end == NOW + 7000


@pytest.mark.parametrize("is_renewed_behind", [True, False])
def test_a_stale_one_is_open_where_somebody_renews_it(is_renewed_behind: bool) -> None:
    """Else each reader has to see to that."""
    snapshot = Snapshot(JSAPI_TICKET)
    snapshot.hold(_ticket(), 0, is_own=True)
    _open(snapshot, NOW + 7001, is_renewed_behind)
    assert (snapshot.start == NOW + 7001) is is_renewed_behind


@pytest.mark.parametrize("held", [None, _ticket(life=5)])
def test_nothing_valid_is_never_open(held: Credential | None) -> None:
    """Neither nothing nor what has ended."""
    snapshot = Snapshot(JSAPI_TICKET)
    if held is not None:
        snapshot.hold(held, 0, is_own=True)
    _open(snapshot, NOW + 100)
    assert snapshot.start == math.inf


def test_a_newer_one_ends_what_was_known_of_failures() -> None:
    """Readers do not fail for what is over."""
    snapshot = Snapshot(JSAPI_TICKET)
    snapshot.failure = DOWN
    snapshot.back_off = BackOff(1, NOW, 60, NOW + 60, DOWN)
    snapshot.hold(_ticket(), 0, is_own=True)
    assert snapshot.failure is snapshot.back_off is None


# -- clocks ----------------------------------------------------------------------------------------


def _own(issued_at: float = NOW) -> Snapshot:
    snapshot = Snapshot(JSAPI_TICKET)
    snapshot.hold(_ticket(issued_at=issued_at), 0, is_own=True)
    return snapshot


def test_a_record_of_now_is_taken_as_it_is() -> None:
    """Two clocks may differ by two minutes."""
    snapshot = _own(NOW - 100)
    assert snapshot.adopt(_ticket("t2", NOW + 119), NOW, 0, AHEAD) is None
    assert (snapshot.value, snapshot.shift, snapshot.is_own) == ("t2", 0, False)


def test_a_record_from_the_future_is_renewed_the_first_time() -> None:
    """A clock was put back: one renewal puts that right."""
    snapshot = _own(NOW - 100)
    assert snapshot.adopt(_ticket("t2", NOW + 3600), NOW, 0, AHEAD) == 3600
    assert (snapshot.value, snapshot.shift) == ("t2", 0)
    assert snapshot.is_from_the_future(NOW)
    assert snapshot.state(NOW, AHEAD) is State.STALE


def test_a_record_from_the_future_counts_from_now_when_it_is_so_again() -> None:
    """Two clocks disagree: their hosts do not renew in turns."""
    snapshot = _own(NOW - 100)
    snapshot.adopt(_ticket("t2", NOW + 3600), NOW, 0, AHEAD)
    snapshot.hold(_ticket("t3"), 0, is_own=True)
    assert snapshot.adopt(_ticket("t4", NOW + 3660), NOW + 60, 60, AHEAD) == 3600
    assert snapshot.shift == -3600
    assert not snapshot.is_from_the_future(NOW + 60)
    assert snapshot.state(NOW + 60, AHEAD) is State.FRESH
    assert snapshot.refresh_at(AHEAD) == NOW + 60 + 7000


def test_a_record_from_the_future_is_renewed_again_half_a_life_later() -> None:
    """A clock is put back twice a year."""
    snapshot = _own(NOW - 100)
    snapshot.adopt(_ticket("t2", NOW + 3600), NOW, 0, AHEAD)
    snapshot.adopt(_ticket("t3", NOW + 7300), NOW + 3601, 3601, AHEAD)
    assert snapshot.shift == 0
    assert snapshot.is_from_the_future(NOW + 3601)


def test_its_own_is_kept_where_the_stores_is_over() -> None:
    """Its writer's clock is behind: by this one's its own is good, and no renewal follows."""
    snapshot = _own()
    late = Credential("t2", NOW - 7300, NOW - 100, int(NOW) + 5)
    assert snapshot.adopt(late, NOW, 0, AHEAD) == -7300
    assert snapshot.value == "t1"


def test_its_own_that_was_withdrawn_is_given_up() -> None:
    """The same value, already over: WeChat refuses it."""
    snapshot = _own()
    dead = Credential("t1", NOW - 10, NOW - 5, int(NOW) + 1)
    assert snapshot.adopt(dead, NOW, 0, AHEAD) is None
    assert snapshot.state(NOW, AHEAD) is State.INVALID


def test_anothers_is_given_up_where_the_stores_is_over() -> None:
    """Only what this process fetched is known to be good by its clock."""
    snapshot = _own()
    snapshot.is_own = False
    over = Credential("t2", NOW - 7300, NOW - 100, int(NOW) + 5)
    assert snapshot.adopt(over, NOW, 0, AHEAD) is None
    assert snapshot.value == "t2"


def test_without_one_it_is_due_at_once() -> None:
    """It was never renewed."""
    assert Snapshot(JSAPI_TICKET).refresh_at(AHEAD) == -math.inf
    assert not Snapshot(JSAPI_TICKET).is_from_the_future(NOW)


# -- an account ------------------------------------------------------------------------------------


def test_a_token_in_a_back_off_holds_up_its_ticket(clock: FakeClock) -> None:
    """There is no ticket without it; the other way round there is."""
    holding = Cluster(clock).worker().holding
    ticket, token = holding.snapshot(), holding.snapshot(ACCESS_TOKEN)
    token.back_off = BackOff(1, clock.now, 60, clock.now + 60, DOWN)
    assert holding.back_off(ticket, clock.now) is token.back_off
    ticket.back_off, token.back_off = token.back_off, None
    assert holding.back_off(token, clock.now) is None
    assert holding.back_off(ticket, clock.now + 61) is None
