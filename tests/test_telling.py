"""When the log and those who listen are told."""

from __future__ import annotations

import logging

import pytest

from flask_wxjsapi._telling import Told, put_off, tell, tell_later


def test_it_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """With what programs read beside the text."""
    tell(logging.WARNING, "%s happened", "It", event="it", size=3)
    (record,) = caplog.records
    assert record.getMessage() == "It happened"
    assert record.wxjsapi == {"event": "it", "size": 3}  # type: ignore[attr-defined]


def test_what_is_put_off_is_told_at_the_end() -> None:
    """In order, and also where the block raises."""
    told: list[int] = []
    with pytest.raises(ZeroDivisionError), put_off():  # noqa: PT012
        tell_later(lambda: told.append(1))
        tell_later(lambda: told.append(2))
        assert told == []
        raise ZeroDivisionError
    assert told == [1, 2]
    tell_later(lambda: told.append(3))
    assert told == [1, 2, 3]


def test_one_that_raises_keeps_nobody_else_from_being_told() -> None:
    """Nor does it break the renewal that has told it."""
    told: list[int] = []
    with put_off():
        tell_later(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
        tell_later(lambda: told.append(1))
    assert told == [1]


def test_what_is_told_meanwhile_is_told_at_once() -> None:
    """A handler that tells something itself does not wait for a second end."""
    told: list[int] = []
    with put_off():
        tell_later(lambda: tell_later(lambda: told.append(1)))
    assert told == [1]


def test_what_is_told_once_is_told_again_when_it_is_forgotten() -> None:
    """One key has nothing to do with another."""
    told = Told()
    assert [told.is_first(key) for key in ("a", "b", "a", "b")] == [True, True, False, False]
    told.forget("a")
    told.forget("never told")
    assert [told.is_first(key) for key in ("a", "b")] == [True, False]
