"""How often a cluster may renew what is not due."""

from __future__ import annotations

import pytest

from flask_wxjsapi._engine.limit import REFRESH, VERIFY, Limit

NOW = 1_800_000_000.0
TWICE = Limit("twice", ((2, 60), (3, 3600)))


@pytest.mark.parametrize(
    ("ages", "is_allowed"),
    [
        ([], True),
        ([1], True),
        ([1, 2], False),
        ([1, 61], True),
        ([100, 200, 300], False),
        ([100, 200, 3601], True),
    ],
)
def test_each_span_has_its_most(ages: list[float], is_allowed: bool) -> None:
    """It is allowed where none of them is used up."""
    assert TWICE.allows([NOW - age for age in ages], NOW) is is_allowed


def test_a_time_in_the_future_counts_as_well() -> None:
    """It was noted before a clock was put back; one that is far off does not."""
    assert not REFRESH.allows([NOW + 9], NOW)
    assert REFRESH.allows([NOW + 11], NOW)


def test_the_clusters_times_and_its_own_count() -> None:
    """Each once, in order, without those that are of no interest any more."""
    note = {"times": [NOW - 5, NOW - 4000, NOW - 50]}
    assert TWICE.remembered(note, [NOW - 20, NOW - 5], NOW) == [NOW - 50, NOW - 20, NOW - 5]


@pytest.mark.parametrize("times", [None, 3, "x", {"a": 1}, [None, "x", 5, {}]])
def test_a_damaged_note_has_no_times(times: object) -> None:
    """Its own are still there."""
    assert TWICE.remembered({"times": times}, [NOW], NOW) == [NOW]


def test_no_more_times_are_kept_than_count() -> None:
    """Whoever fills the note makes nobody keep a long list."""
    note = {"times": [NOW - n / 1000 for n in range(1000)]}
    assert len(TWICE.remembered(note, [], NOW)) == 3


def test_the_longest_span_is_how_long_a_note_lives() -> None:
    """And its name has the kind."""
    assert TWICE.longest == 3600
    assert VERIFY.note_of("jsapi_ticket") == "verify.jsapi_ticket"
