"""A credential: its states, which of two is the newer, and its record."""

from __future__ import annotations

import dataclasses
import json
import math
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_wxjsapi import Credential
from flask_wxjsapi._credential import CLOCK_SKEW, State

AHEAD = 200.0
VALUE = "kgt8ON7yVITDhtdwci0qeZ-ticket"

unhurried = settings(deadline=None)  # a busy machine is no failure


def lasting(life: float, issued_at: float = 1000.0) -> Credential:
    return Credential(VALUE, issued_at, issued_at + life)


def record(**changes: Any) -> dict[str, Any]:
    return {"value": VALUE, "issued_at": 1000.0, "expires_at": 8200.0, "generation": 7, **changes}


# -- states


@pytest.mark.parametrize(
    ("now", "state"),
    [
        (1000.0, State.FRESH),
        (7999.99, State.FRESH),
        (8000.0, State.STALE),
        (8189.99, State.STALE),
        (8190.0, State.INVALID),
        (8200.0, State.INVALID),
        (math.inf, State.INVALID),
    ],
)
def test_two_hours_of_life(now: float, state: State) -> None:
    """FRESH until 200 s before the end, STALE until 10 s before it, then INVALID."""
    assert lasting(7200).state(now, AHEAD) is state


@pytest.mark.parametrize(
    ("now", "state"),
    [
        (1149.99, State.FRESH),
        (1150.0, State.STALE),
        (1289.99, State.STALE),
        (1290.0, State.INVALID),
    ],
)
def test_lead_is_at_most_half_the_life(now: float, state: State) -> None:
    """A life of 300 s is renewed after 150 s and not after 100 s."""
    assert lasting(300).state(now, AHEAD) is state


@pytest.mark.parametrize(
    ("now", "state"),
    [
        (1024.99, State.FRESH),
        (1025.0, State.STALE),
        (1044.99, State.STALE),
        (1045.0, State.INVALID),
    ],
)
def test_margin_is_a_tenth_of_a_short_life(now: float, state: State) -> None:
    """A life of 50 s is handed out until 5 s before its end."""
    assert lasting(50).state(now, AHEAD) is state


@pytest.mark.parametrize(
    ("life", "refresh_at", "usable_until"),
    [
        (7200, 8000, 8190),
        (401, 1201, 1391),
        (400, 1200, 1390),
        (399, 1199.5, 1389),
        (101, 1050.5, 1091),
        (100, 1050, 1090),
        (99, 1049.5, 1089.1),
        (1, 1000.5, 1000.9),
    ],
)
def test_lead_and_margin_on_both_sides_of_their_bounds(
    life: float, refresh_at: float, usable_until: float
) -> None:
    """Lead and margin are the smaller of two; on either side of the bound the right one counts."""
    credential = lasting(life)
    assert credential.refresh_at(AHEAD) == pytest.approx(refresh_at)
    assert credential.usable_until == pytest.approx(usable_until)


def test_no_lead_goes_from_fresh_to_invalid() -> None:
    """With a lead of 0 the margin still keeps the last seconds back."""
    assert lasting(7200).state(8189.99, 0) is State.FRESH
    assert lasting(7200).state(8190.0, 0) is State.INVALID


@pytest.mark.parametrize(
    ("now", "state"),
    [
        (1000.0 - CLOCK_SKEW, State.FRESH),
        (1000.0 - CLOCK_SKEW - 0.01, State.STALE),
        (0.0, State.STALE),
    ],
)
def test_record_from_the_future_is_stale(now: float, state: State) -> None:
    """A record issued later than two clocks can disagree is handed out and renewed."""
    assert lasting(7200).state(now, AHEAD) is state


@unhurried
@given(
    life=st.floats(0.01, 1e6),
    ahead=st.floats(0, 1e5),
    times=st.tuples(st.floats(0, 1.2), st.floats(0, 1.2)),
)
def test_a_state_never_gets_better_with_time(
    life: float, ahead: float, times: tuple[float, float]
) -> None:
    """From its issue on a credential goes from FRESH over STALE to INVALID and never back."""
    order = [State.FRESH, State.STALE, State.INVALID]
    earlier, later = (
        order.index(lasting(life).state(1000 + life * part, ahead)) for part in sorted(times)
    )
    assert earlier <= later


@unhurried
@given(life=st.floats(0.01, 1e6), ahead=st.floats(0, 1e5))
def test_a_new_credential_is_fresh_for_half_its_life(life: float, ahead: float) -> None:
    """However short an answer's life is, it is not renewed before half of it is over."""
    assert lasting(life).state(1000 + life * 0.49, ahead) is State.FRESH


# -- order


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        (record(generation=8), record(generation=7)),
        (record(generation=8, issued_at=500.0), record(generation=7, issued_at=6000.0)),
        (record(issued_at=1001.5), record(issued_at=1000.0)),
        (record(generation=0), record(generation=-1)),
    ],
)
def test_generation_orders_and_then_issued_at(newer: dict[str, Any], older: dict[str, Any]) -> None:
    """The generation decides whatever the clocks say; between equals the later issue is newer."""
    assert Credential.from_dict(newer).is_newer_than(Credential.from_dict(older))
    assert not Credential.from_dict(older).is_newer_than(Credential.from_dict(newer))


def test_not_newer_than_itself() -> None:
    """The same record replaces nothing, so that it is not written again and again."""
    credential = Credential.from_dict(record())
    assert not credential.is_newer_than(Credential.from_dict(record()))


def test_expiry_does_not_order() -> None:
    """A later end alone makes no record newer."""
    assert not lasting(7200).is_newer_than(lasting(300))


def test_newer_than_none() -> None:
    """Anything replaces nothing."""
    assert lasting(7200).is_newer_than(None)


# -- the record


def test_record_has_the_four_fields() -> None:
    """What is stored is one flat record under the names of the design."""
    assert Credential(VALUE, 1000.0, 8200.0, 7).to_dict() == record()


@unhurried
@given(
    value=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=600),
    issued_at=st.floats(0, 4e9),
    life=st.floats(1, 1e6),
    generation=st.integers(0, 2**63),
)
def test_round_trip_through_json(
    value: str, issued_at: float, life: float, generation: int
) -> None:
    """A record comes back from JSON as the credential it was."""
    credential = Credential(value, issued_at, issued_at + life, generation)
    assert Credential.from_dict(json.loads(json.dumps(credential.to_dict()))) == credential


def test_record_without_a_generation_counts_as_0() -> None:
    """A custom server that was not made for it may leave the generation out."""
    plain = record()
    del plain["generation"]
    assert Credential.from_dict(plain).generation == 0


def test_unknown_keys_are_passed_over() -> None:
    """A record of a later version is read."""
    assert Credential.from_dict(record(added_later="x")) == Credential.from_dict(record())


def test_any_mapping_is_a_record() -> None:
    """A row of a database that behaves as a mapping will do."""
    assert Credential.from_dict(MappingProxyType(record())).value == VALUE


BAD_RECORDS: dict[str, Any] = {
    "None": None,
    "a list": [VALUE, 1000.0, 8200.0],
    "the value alone": VALUE,
    "bytes": VALUE.encode(),
    "a number": 7200,
    "empty": {},
    "no value": {"issued_at": 1000.0, "expires_at": 8200.0},
    "no issued_at": {"value": VALUE, "expires_at": 8200.0},
    "no expires_at": {"value": VALUE, "issued_at": 1000.0},
    "value None": record(value=None),
    "value empty": record(value=""),
    "value a space": record(value=" "),
    "value with a space": record(value=f"{VALUE} x"),
    "value with a line end": record(value=f"{VALUE}\n"),
    "value with a NUL": record(value=f"{VALUE}\0"),
    "value with DEL": record(value=f"{VALUE}\x7f"),
    "value outside ASCII": record(value=f"{VALUE}é"),
    "value with a wide digit": record(value=f"{VALUE}\uff11"),
    "value bytes": record(value=VALUE.encode()),
    "value a list": record(value=[VALUE]),
    "value a number": record(value=7200),
    "issued_at None": record(issued_at=None),
    "issued_at text": record(issued_at="1000"),
    "issued_at true": record(issued_at=True),
    "issued_at NaN": record(issued_at=math.nan),
    "issued_at infinite": record(issued_at=-math.inf),
    "issued_at beyond a float": record(issued_at=-(10**400)),
    "expires_at None": record(expires_at=None),
    "expires_at text": record(expires_at="8200"),
    "expires_at true": record(issued_at=0.5, expires_at=True),
    "expires_at NaN": record(expires_at=math.nan),
    "expires_at infinite": record(expires_at=math.inf),
    "expires_at beyond a float": record(expires_at=10**400),
    "expired at its issue": record(expires_at=1000.0),
    "expired before its issue": record(expires_at=999.0),
    "generation None": record(generation=None),
    "generation text": record(generation="7"),
    "generation a float": record(generation=7.0),
    "generation true": record(generation=True),
    "generation a list": record(generation=[7]),
}


@pytest.mark.parametrize("bad", BAD_RECORDS.values(), ids=BAD_RECORDS.keys())
def test_bad_record_is_a_value_error(bad: Any) -> None:
    """Whatever is wrong with a record, it is a ValueError and nothing else."""
    with pytest.raises(ValueError, match=r"must|needs") as caught:
        Credential.from_dict(bad)
    assert type(caught.value) is ValueError


@pytest.mark.parametrize("bad", BAD_RECORDS.values(), ids=BAD_RECORDS.keys())
def test_bad_record_is_not_quoted(bad: Any) -> None:
    """The error's text, and that of whatever hangs on it, leaves the value out."""
    with pytest.raises((ValueError, OverflowError)) as caught:
        Credential.from_dict(bad)
    error: BaseException | None = caught.value
    while error is not None:
        assert VALUE not in f"{error!r} {error} {error.args}"
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("key", ["value", "issued_at", "expires_at", "generation"])
def test_error_names_the_field(key: str) -> None:
    """A bad field is named, so that the author of a custom server finds it."""
    with pytest.raises(ValueError, match=key):
        Credential.from_dict(record(**{key: object()}))


# -- the object


def test_repr_has_no_value() -> None:
    """A credential in a log or a debugger shows when it ends and not what it is."""
    credential = lasting(7200)
    for text in (repr(credential), str(credential), f"{credential}", repr([credential])):
        assert VALUE not in text
        assert "expires_at=8200.0" in text


def test_frozen() -> None:
    """A credential that another thread reads cannot change under it."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        lasting(7200).expires_at = 0  # type: ignore[misc]


def test_constructor_checks_too() -> None:
    """A credential that a token provider makes is checked like a stored one."""
    with pytest.raises(ValueError, match="expires_at"):
        Credential(VALUE, 1000.0, 1000.0)
