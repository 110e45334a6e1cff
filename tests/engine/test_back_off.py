"""The pause after a failure: how long it is, and what is believed of one that was stored."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from flask_wxjsapi._engine.back_off import BackOff, latest
from flask_wxjsapi.errors import TransportError, WeChatAPIError, WxJsApiError

from .cluster import DOWN, says

NOW = 1_800_000_000.0


def _after(error: WxJsApiError = DOWN, last: BackOff | None = None, **options: Any) -> BackOff:
    return BackOff.after(error, last, options.pop("now", NOW), random.Random(1), **options)


def test_each_pause_is_shortened_at_random() -> None:
    """By up to a quarter, so that processes which failed together do not come back together."""
    rng = random.Random(1)
    delays = {BackOff.after(DOWN, None, NOW, rng).delay for _ in range(100)}
    assert len(delays) == 100
    assert 0.75 <= min(delays) < 0.8
    assert 0.95 < max(delays) <= 1


def test_it_doubles_to_a_minute() -> None:
    """From a second."""
    last, delays = None, []
    for _ in range(9):
        last = _after(last=last)
        delays.append(last.delay)
    for delay, full in zip(delays, [1, 2, 4, 8, 16, 32, 60, 60, 60], strict=True):
        assert 0.75 * full <= delay <= full


def test_after_half_an_hour_it_grows_to_400_s() -> None:
    """So that an outage of a day costs few calls."""
    last = BackOff(30, NOW - 1801, 60, NOW, DOWN)
    assert 300 <= _after(last=last).delay <= 400


def test_an_attempt_of_several_calls_pauses_for_as_many() -> None:
    """The calls of a day stay as few."""
    assert _after(calls=3).delay == 3 * _after().delay


def test_what_a_person_has_to_mend_pauses_for_a_quarter_of_an_hour() -> None:
    """From the first time on, and never less."""
    assert _after(says(40125)).delay == 900


def test_a_quota_of_a_minute_pauses_until_the_next_one() -> None:
    """And not for a second."""
    assert _after(says(45011), now=NOW - NOW % 60 + 10).delay == 50


@pytest.mark.parametrize(
    ("error", "is_of_host"), [(says(40164), True), (says(40125), False), (DOWN, False)]
)
def test_a_verdict_on_an_address_is_of_its_host(error: WxJsApiError, is_of_host: bool) -> None:
    """No other verdict is."""
    assert _after(error).is_of_host is is_of_host


def test_it_is_kept_for_an_hour_beyond_its_end() -> None:
    """So that the next failure in a row finds it."""
    assert _after(says(40125)).note_life == 900 + 3600


@pytest.mark.parametrize(
    ("now", "blocks"), [(NOW - 130, False), (NOW, True), (NOW + 899, True), (NOW + 900, False)]
)
def test_it_blocks_until_its_end(now: float, blocks: bool) -> None:
    """One that seems further off than it is long was written before a clock was put back."""
    assert _after(says(40125)).blocks(now) is blocks


def test_the_cause_is_the_code_or_the_text() -> None:
    """The text of WeChat's errors has a new request id every time."""
    assert _after(says(40164, "rid: 1")).cause == _after(says(40164, "rid: 2")).cause
    assert _after().cause == str(DOWN)


def test_the_latest_lasts_longest() -> None:
    """None of none."""
    short, long = _after(), _after(says(40125))
    assert latest([short, None, long, None]) is long
    assert latest([None]) is None


# -- as a note in the store ------------------------------------------------------------------------


@pytest.mark.parametrize("error", [DOWN, says(40164, "invalid ip 1.2.3.4")])
def test_a_note_is_read_as_it_was_written(error: WxJsApiError) -> None:
    """With the error that others raise for it."""
    written = _after(error)
    read = BackOff.from_note(written.to_note("digest"), "digest")
    assert read is not None
    assert (read.failures, read.since, read.delay, read.retry_at) == (
        written.failures,
        written.since,
        written.delay,
        written.retry_at,
    )
    assert (type(read.error), str(read.error)) == (type(error), str(error))


def test_a_note_of_other_settings_is_passed_over() -> None:
    """A corrected secret is not held up by the wrong one's failures."""
    assert BackOff.from_note(_after().to_note("wrong secret"), "right secret") is None


@pytest.mark.parametrize(
    "damage",
    [
        {"delay": 3601},
        {"delay": -1},
        {"failures": -1},
        {"since": math.inf},
        {"retry_at": math.nan},
        {"delay": math.nan},
        {"failures": 1e400},
        {"since": "x"},
        {"delay": None},
    ],
)
def test_a_note_that_is_none_of_ours_is_passed_over(damage: dict[str, Any]) -> None:
    """Whoever can write to the store could stop everybody for ever."""
    assert BackOff.from_note(_after().to_note("d") | damage, "d") is None


def test_a_note_without_what_it_needs_is_passed_over() -> None:
    """Such as an empty one, which stands for none."""
    assert BackOff.from_note({"digest": "d"}, "d") is None
    assert BackOff.from_note({}, "d") is None


def test_a_note_of_a_thousand_failures_counts_as_many() -> None:
    """And no more: the numbers are somebody else's."""
    read = BackOff.from_note(_after().to_note("d") | {"failures": 10**9}, "d")
    assert read is not None
    assert read.failures == 1000
    assert _after(last=read).delay <= 60


@pytest.mark.parametrize("name", ["errmsg", "advice"])
def test_texts_of_a_note_are_cleaned(name: str) -> None:
    """Like WeChat's own: no line of the log is made by whoever writes to the store."""
    note = _after(says(40164)).to_note("d") | {name: "a\nb" + "x" * 5000}
    read = BackOff.from_note(note, "d")
    assert read is not None
    assert isinstance(read.error, WeChatAPIError)
    assert "\n" not in str(read.error)
    assert len(str(read.error)) < 1500


def test_a_message_of_a_note_is_cleaned() -> None:
    """The same for an error that WeChat did not send."""
    read = BackOff.from_note(_after().to_note("d") | {"message": "a\nb" + "x" * 5000}, "d")
    assert read is not None
    assert isinstance(read.error, TransportError)
    assert "\n" not in str(read.error)
    assert len(str(read.error)) <= 1000
