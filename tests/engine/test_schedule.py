"""When what is due."""

from __future__ import annotations

from flask_wxjsapi._engine.schedule import Schedule


def _schedule(**times: float) -> Schedule[str]:
    schedule: Schedule[str] = Schedule()
    for thing, at in times.items():
        schedule.put(thing, at)
    return schedule


def test_nothing_is_due_before_its_time() -> None:
    """And at that time it is, once."""
    schedule = _schedule(a=10)
    assert schedule.pop_due(9.9, 5) == []
    assert schedule.pop_due(10, 5) == ["a"]
    assert schedule.pop_due(11, 5) == []


def test_the_longest_overdue_comes_first() -> None:
    """Whatever the order in which they were put."""
    assert _schedule(a=3, b=1, c=2).pop_due(5, 5) == ["b", "c", "a"]


def test_no_more_than_wanted_are_due() -> None:
    """The others are due with the next question."""
    schedule = _schedule(a=1, b=2, c=3)
    assert schedule.pop_due(5, 2) == ["a", "b"]
    assert schedule.pop_due(5, 2) == ["c"]


def test_another_time_replaces_the_first() -> None:
    """Later or sooner, each is due once."""
    schedule = _schedule(a=1, b=9)
    schedule.put("a", 5)
    schedule.put("b", 4)
    assert schedule.pop_due(1, 5) == []
    assert schedule.pop_due(9, 5) == ["b", "a"]


def test_what_is_dropped_is_never_due() -> None:
    """Nor is it there any more."""
    schedule = _schedule(a=1, b=2)
    schedule.drop("a")
    assert "a" not in schedule
    assert "b" in schedule
    assert schedule.next_at == 2
    assert schedule.pop_due(5, 5) == ["b"]


def test_the_next_time_is_the_earliest() -> None:
    """None where nothing is to come."""
    schedule = _schedule(a=3, b=2)
    assert schedule.next_at == 2
    schedule.pop_due(5, 5)
    assert schedule.next_at is None


def test_times_that_count_no_more_do_not_pile_up() -> None:
    """A thing whose time is put again with every look stays one thing."""
    schedule = _schedule(a=1)
    for number in range(1000):
        schedule.put("a", number)
    assert len(schedule._heap) < 100
    assert schedule.pop_due(1000, 5) == ["a"]
