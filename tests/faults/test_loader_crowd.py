"""Hundreds of accounts at run time, four workers, Redis, and a crowd of readers."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import pytest

from flask_wxjsapi.sandbox import Sandbox

from ..conftest import Valkey, wait_until
from .conftest import Figure
from .platforms import Crowd, Platform
from .servers import Fleet

pytestmark = pytest.mark.processes

READERS = 64
LONG = 3000  # seconds; nothing here is to be fast


@pytest.mark.parametrize(
    ("count", "life", "wrong", "hanging"),
    [
        pytest.param(100, 24, 10, 5, marks=pytest.mark.slow),
        pytest.param(2000, 320, 50, 20, marks=pytest.mark.slow),
    ],
)
def test_a_crowd_and_its_accounts(
    count: int,
    life: int,
    wrong: int,
    hanging: int,
    valkey: Valkey,
    tmp_path: Path,
    figure: Figure,
) -> None:
    """One token and one ticket call for each account and lifetime, and no failed read; whatever
    becomes of the store, of a worker or of other accounts.
    """
    what = f"{count} accounts, 4 workers, {READERS} readers"
    started = time.monotonic()
    config = {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": valkey.url}
    config |= {"WXJSAPI_REFRESH_AHEAD": str(life / 8)}
    rules = {"ticket": "new", "token_lifetime": life, "ticket_lifetime": life}
    with Sandbox(**rules).serve() as sandbox:  # type: ignore[arg-type]
        platform = Platform(sandbox, tmp_path)
        ids = platform.add(range(count))
        with (
            platform.fleet(**config) as fleet,
            Crowd(fleet, platform, ids, READERS, pause=0.3) as crowd,
        ):
            _lives(platform, ids, 1)
            cold = time.monotonic() - started
            wait_until(lambda: len(crowd.read) == count, LONG, "each was read")
            _lives(platform, ids, 2)
            figure(what, "one token and one ticket call a life", _summary(platform, crowd, ids))
            figure(what, "all have their first ticket", f"after {cold:.0f} s")
            assert crowd.failures() == {}
            assert _too_early(platform, ids, life) == []

            bad_moments = [time.time()]
            _flush(valkey, count)
            bad_moments.append(time.time())
            _kill_one(fleet, crowd)
            refused = sandbox.calls["stable_token"] - _sum(platform, ids, "stable_token")
            bad, others = ids[: wrong + hanging], ids[wrong + hanging :]
            for app_id in bad[:wrong]:
                sandbox.reset_secret(app_id, "another")
            for app_id in bad[wrong:]:
                sandbox.fail("hang", times=None, app_id=app_id)
            wait_until(lambda: set(crowd.failures()) >= set(bad), LONG, "those have ended")
            _lives(platform, others, 3)
            assert crowd.failures(others) == {}
            early = _too_early(platform, others, life)
            refused = sandbox.calls["stable_token"] - _sum(platform, ids, "stable_token") - refused
            sandbox.heal()
    text = _summary(platform, crowd, others)
    figure(f"{what}, flushed, killed, {wrong} wrong, {hanging} hang", "the same", text)
    figure(f"{what}, {wrong} wrong", "one call each in 900 s", f"{refused} refused calls")
    figure(f"{what}, flushed, killed", "none early but those under way", f"{len(early)} early")
    calls = [platform.calls(app_id) for app_id in bad[wrong:]]
    most = max(one["stable_token"] for one in calls)
    figure(f"{what}, {hanging} hang", "a pause after each", f"at most {most} calls of one")
    assert refused == wrong
    # One that was renewed just before was lost with the store, or with the worker.
    assert all(any(0 < moment - at < 10 for moment in bad_moments) for at in early)
    assert len(early) <= 32


def _lives(platform: Platform, ids: list[str], count: int) -> None:
    """Wait until each account has so many tickets behind it or in hand."""
    wait_until(
        lambda: all(len(platform.tickets(app_id)) >= count for app_id in ids) or time.sleep(0.2),
        LONG,
        f"{count} tickets each",
    )


def _too_early(platform: Platform, ids: list[str], life: int) -> list[float]:
    """When those tickets were issued that were renewed before their time.

    The lead is up to a quarter of a life.
    """
    early = []
    for app_id in ids:
        calls = platform.calls(app_id)
        assert abs(calls["stable_token"] - calls["getticket"]) <= 1  # one is under way
        for one, other in pairwise(platform.tickets(app_id)):
            if other.issued_at - one.issued_at < 0.7 * life:
                early.append(one.issued_at)
    return early


def _flush(valkey: Valkey, count: int) -> None:
    """Empty the store, and wait until it has everything again."""
    with valkey.client() as client:
        client.flushall()
        wait_until(lambda: len(client.keys("*jsapi_ticket")) == count, LONG, "all are back")


def _kill_one(fleet: Fleet, crowd: Crowd) -> None:
    """Kill a worker, and wait until its successor has answered."""
    known = set(crowd.pids)
    fleet.kill(min(known))
    wait_until(lambda: crowd.pids - known, LONG, "another worker answers")


def _sum(platform: Platform, ids: list[str], name: str) -> int:
    return sum(platform.calls(app_id).get(name, 0) for app_id in ids)


def _summary(platform: Platform, crowd: Crowd, ids: list[str]) -> str:
    tokens, tickets = (_sum(platform, ids, name) for name in ("stable_token", "getticket"))
    reads = sum(crowd.read[app_id] for app_id in ids)
    asked = len(platform.table.asked())
    return (
        f"{reads} reads, {len(crowd.failures(ids))} accounts with a failed one, {tokens} token and "
        f"{tickets} ticket calls, {asked} of the loader, {crowd.broken} connections cut"
    )
