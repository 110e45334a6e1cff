"""Accounts that are added, corrected and removed while four workers run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from flask_wxjsapi.sandbox import Sandbox

from ..conftest import Valkey, wait_until
from .conftest import Figure
from .platforms import Platform, everyone, get, secret_of
from .servers import Fleet

pytestmark = pytest.mark.processes

LIFE = 12  # seconds, where a test waits for a renewal


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with Sandbox(ticket="new").serve() as sandbox:
        yield Platform(sandbox, tmp_path)


@pytest.fixture
def config(valkey: Valkey) -> dict[str, str]:
    redis = {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": valkey.patient_url}
    return redis | {"WXJSAPI_SYNC_INTERVAL": "0.5", "WXJSAPI_REFRESH_TIMEOUT": "60"}


def refresh(fleet: Fleet, app_id: str) -> tuple[int, dict[str, str]]:
    """In one of the workers."""
    return get(fleet.url, f"/refresh/{app_id}", "POST")


def shared(answers: dict[int, dict[str, str]]) -> str:
    """The ticket, which all workers have."""
    (ticket,) = {answer["ticket"] for answer in answers.values()}
    return ticket


def tickets_of(fleet: Fleet, app_id: str) -> set[str]:
    """Those that the workers have."""
    return {answer["ticket"] for answer in everyone(fleet, f"/ticket/{app_id}", 200).values()}


@pytest.mark.slow
def test_what_is_added_is_there(platform: Platform, config: dict[str, str], figure: Figure) -> None:
    """At once; where it was asked for before, ten seconds later at most."""
    (first,) = platform.add(range(1))
    late = f"wx{0xACC0001:016x}"
    with platform.fleet(**config) as fleet:
        shared(everyone(fleet, f"/ticket/{first}", 200))
        everyone(fleet, f"/ticket/{late}", 404)
        _assert_asked_every_ten_seconds(platform, late)
        new, started = platform.add(range(1, 3)), time.monotonic()
        assert new[0] == late
        for path in (f"/ticket/{new[1]}" for _ in range(4)):
            assert get(fleet.url, path)[0] == 200
        shared(everyone(fleet, f"/ticket/{late}", 200))
        seconds = time.monotonic() - started
    assert platform.calls(late) == {"stable_token": 1, "getticket": 1}
    figure(
        "an account is added, 4 workers", "there within 10 s if asked before", f"{seconds:.1f} s"
    )


def _assert_asked_every_ten_seconds(platform: Platform, app_id: str) -> None:
    """At most, by each worker."""
    times: dict[int, list[float]] = {}
    for each, pid, at in platform.table.asked():
        if each == app_id:
            times.setdefault(pid, []).append(at)
    assert all(b - a >= 10 for each in times.values() for a, b in pairwise(each))


def test_what_is_corrected_is_right_everywhere_after_one_refresh(
    platform: Platform, config: dict[str, str], figure: Figure
) -> None:
    """In spite of the pause that the wrong secret brought to all of them."""
    (app_id,) = platform.add(range(1))
    platform.table.put({app_id: {"APP_SECRET": "wrong"}})
    with platform.fleet(**config) as fleet:
        answers = everyone(fleet, f"/ticket/{app_id}", 503)
        assert all("40125" in answer["cause"] for answer in answers.values())
        assert platform.sandbox.calls == {"stable_token": 1}
        platform.table.put({app_id: {"APP_SECRET": secret_of(app_id)}})
        started = time.monotonic()
        status, answer = refresh(fleet, app_id)
        assert status == 200
        ticket = shared(everyone(fleet, f"/ticket/{app_id}", 200))
        seconds = time.monotonic() - started
    assert ticket == answer["ticket"]
    assert platform.sandbox.calls == {"stable_token": 2, "getticket": 1}
    text = f"{seconds:.1f} s, calls {dict(platform.sandbox.calls)}"
    figure("a secret is corrected, refresh() in one of 4 workers", "right in all of them", text)


@pytest.mark.slow
def test_what_is_corrected_counts_at_the_next_renewal(
    config: dict[str, str], tmp_path: Path, figure: Figure
) -> None:
    """A secret that was reset at WeChat and in the table; no call is made with the old one."""
    rules = {"ticket": "new", "token_lifetime": LIFE, "ticket_lifetime": LIFE}
    with Sandbox(**rules).serve() as sandbox:  # type: ignore[arg-type]
        platform = Platform(sandbox, tmp_path)
        (app_id,) = platform.add(range(1))
        with platform.fleet(WXJSAPI_REFRESH_AHEAD="1.5", **config) as fleet:
            everyone(fleet, f"/ticket/{app_id}", 200)
            platform.table.put({app_id: {"APP_SECRET": "another"}})
            sandbox.reset_secret(app_id, "another")
            old = {one.value for one in platform.tickets(app_id)}
            wait_until(lambda: not old & tickets_of(fleet, app_id), 60, "it is renewed")
            calls = platform.calls(app_id)
            refused = [one for one in sandbox.history if one.outcome != 0]
            assert len(refused) <= 1  # one that was under way in that moment
    figure("a secret is reset in the table too", "the next renewal has the new one", calls)


def test_what_is_removed_ends_everywhere_after_one_refresh(
    platform: Platform, config: dict[str, str], figure: Figure
) -> None:
    """With the next look of each at the store, and nothing is fetched for it."""
    app_id, other = platform.add(range(2))
    with platform.fleet(**config) as fleet:
        shared(everyone(fleet, f"/ticket/{app_id}", 200))
        shared(everyone(fleet, f"/ticket/{other}", 200))
        platform.table.remove(app_id)
        shared(everyone(fleet, f"/ticket/{app_id}", 200))  # nobody has looked
        started = time.monotonic()
        assert refresh(fleet, app_id)[0] == 404
        everyone(fleet, f"/ticket/{app_id}", 404)
        seconds = time.monotonic() - started
        asked = platform.table.times_asked(app_id)
        assert asked <= 4 * 3  # to know it, to fetch its ticket, and to hear that it is gone
        assert platform.calls(app_id) == {"stable_token": 1, "getticket": 1}
        shared(everyone(fleet, f"/ticket/{other}", 200))
    figure(
        "an account is removed, refresh() in one of 4 workers",
        "404 in all after SYNC_INTERVAL (0.5 s)",
        f"{seconds:.1f} s",
    )


@pytest.mark.slow
def test_what_is_removed_ends_with_the_next_renewal(
    config: dict[str, str], tmp_path: Path, figure: Figure
) -> None:
    """Also where nobody calls refresh(); and when it is added again it is there again."""
    rules = {"ticket": "new", "token_lifetime": LIFE, "ticket_lifetime": LIFE}
    with Sandbox(**rules).serve() as sandbox:  # type: ignore[arg-type]
        platform = Platform(sandbox, tmp_path)
        app_id, other = platform.add(range(2))
        with platform.fleet(WXJSAPI_REFRESH_AHEAD="1.5", **config) as fleet:
            for one in (app_id, other):
                everyone(fleet, f"/ticket/{one}", 200)
            platform.table.remove(app_id)
            started = time.monotonic()
            everyone(fleet, f"/ticket/{app_id}", 404)
            seconds = time.monotonic() - started
            calls = platform.calls(app_id)
            old, lives = (
                {one.value for one in platform.tickets(app_id)},
                len(platform.tickets(other)),
            )
            wait_until(lambda: len(platform.tickets(other)) > lives + 1, 60, "time goes by")
            assert platform.calls(app_id) == calls
            platform.table.put({app_id: {"APP_SECRET": secret_of(app_id)}})
            everyone(fleet, f"/ticket/{app_id}", 200)
            assert not old & tickets_of(fleet, app_id)
    figure(
        f"an account is removed, a life of {LIFE} s",
        "404 in all workers after that",
        f"{seconds:.0f} s",
    )
