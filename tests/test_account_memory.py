"""Accounts that come at run time and that nobody reads any more: what is left of them."""

from __future__ import annotations

import gc
import time
import tracemalloc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_wxjsapi import _accounts as accounts
from flask_wxjsapi._engine import snapshot as snapshots
from flask_wxjsapi._engine.runtime import Runtime
from flask_wxjsapi._engine.snapshot import Snapshot
from flask_wxjsapi.sandbox import Sandbox

from .conftest import FakeClock, wait_until
from .test_account_loader import Platform

COUNT = 20


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(ticket="new").serve() as sandbox:
        yield sandbox


@pytest.fixture
def clock() -> FakeClock:
    """It begins at the time that WeChat and the store have."""
    return FakeClock(time.time())


class Visited(Platform):
    """A platform whose accounts are read, in an hour or a year; the thread's work is done here."""

    def __init__(
        self, sandbox: Sandbox, clock: FakeClock, *, has_thread: bool, **config: Any
    ) -> None:
        super().__init__(sandbox, clock=clock, WXJSAPI_BACKGROUND_REFRESH=has_thread, **config)
        self.runtime: Runtime = self.app.extensions["wxjsapi.engine"].runtime()
        self.runtime.ensure_thread = lambda: True  # type: ignore[method-assign]
        self.accounts = self.wxjsapi._accounts_of(self.app)
        self.clock = clock

    def add(self, numbers: range) -> list[str]:
        """Accounts that are there from now on."""
        ids = [f"wx{0xA000 + number:016x}" for number in numbers]
        for app_id in ids:
            self.rows[app_id] = {"APP_SECRET": f"secret-{app_id}"}
            self.sandbox.add_account(app_id, f"secret-{app_id}")
        return ids

    def read(self, ids: list[str]) -> None:
        for app_id in ids:
            assert self.ticket(app_id)

    def advance(self, seconds: float) -> None:
        """Have time pass, when nothing is under way that would count as hanging then."""
        wait_until(lambda: not self.runtime._flights and not self.runtime.threads._jobs)
        self.clock.advance(seconds)

    def tick(self) -> None:
        """What the thread does in some seconds."""
        self.advance(0)
        for _ in range(5):
            self.runtime.tick()
            self.advance(1)

    @property
    def at_hand(self) -> set[str | None]:
        return set(self.accounts.at_hand)


def shorten(monkeypatch: pytest.MonkeyPatch) -> float:
    """Days of which some pass before a ticket ends; the seconds of one."""
    monkeypatch.setattr(snapshots, "_DAY", 600.0)
    monkeypatch.setattr(accounts, "_HOUR", 500.0)
    return 600.0


def traces(platform: Visited) -> list[weakref.ref[Any]]:
    """Of all that there is of the accounts at hand."""
    found: list[Any] = []
    for account in platform.accounts._each():
        holding = account.credentials.holding
        found += [account, account.credentials, holding, *holding.snapshots.values()]
    return [weakref.ref(one) for one in found if not isinstance(one, Snapshot)]


def left_of(refs: list[weakref.ref[Any]]) -> int:
    """How many are still there; a thread that is about to end may have some in hand."""
    gc.collect()
    return sum(ref() is not None for ref in refs)


def test_the_thread_drops_what_nobody_has_read_for_a_day(
    sandbox: Sandbox, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it, though its record stays: whoever comes back costs WeChat nothing."""
    day = shorten(monkeypatch)
    platform = Visited(sandbox, clock, has_thread=True)
    ids = platform.add(range(COUNT))
    platform.read(ids)
    platform.tick()
    assert len(platform.runtime._kept) == COUNT
    refs = traces(platform)
    platform.advance(day - 100)
    platform.read(ids[:1])
    platform.advance(101)
    platform.tick()
    assert platform.at_hand == {ids[0]}
    assert [holding.app_id for holding, _ in platform.runtime._kept] == [ids[0]]
    assert list(platform.runtime._schedule._due) == list(platform.runtime._kept)
    assert len(platform.runtime._schedule._heap) == 1
    wait_until(lambda: left_of(refs) == 3)  # what one account is made of
    platform.read(ids)
    assert sandbox.calls == {"stable_token": COUNT, "getticket": COUNT}


def test_without_a_thread_what_nobody_reads_is_dropped_when_another_comes(
    sandbox: Sandbox, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a process would hold, after a year, whatever it has ever met."""
    day = shorten(monkeypatch)
    platform = Visited(sandbox, clock, has_thread=False)
    ids = platform.add(range(COUNT))
    platform.read(ids)
    refs = traces(platform)
    platform.advance(day - 100)
    platform.read(ids[:1])
    platform.advance(101)
    (other,) = platform.add(range(COUNT, COUNT + 1))
    platform.read([other])
    assert platform.at_hand == {ids[0], other}
    wait_until(lambda: left_of(refs) == 3)
    platform.read(ids)
    assert sandbox.calls == {"stable_token": COUNT + 1, "getticket": COUNT + 1}


def test_what_nobody_reads_is_looked_for_once_an_hour(
    sandbox: Sandbox, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands that are met one after the other do not look through each other."""
    platform = Visited(sandbox, clock, has_thread=False)
    looks: list[int] = []
    each = platform.accounts._each
    monkeypatch.setattr(platform.accounts, "_each", lambda: looks.append(1) or each())
    platform.read(platform.add(range(5)))
    assert len(looks) == 1
    platform.advance(3601)
    platform.read(platform.add(range(5, 10)))
    assert len(looks) == 2


def test_what_was_never_had_is_dropped_as_well(
    sandbox: Sandbox, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread does not keep an account whose first ticket failed; as long as it is asked for it
    stays.
    """
    day = shorten(monkeypatch)
    platform = Visited(sandbox, clock, has_thread=True)
    ids = platform.add(range(3))
    for app_id in ids[:2]:
        platform.rows[app_id] = {"APP_SECRET": "wrong"}
        platform.cause(app_id)
    platform.advance(day + 1)
    platform.cause(ids[0])
    platform.read(ids[2:])
    assert platform.at_hand == {ids[0], ids[2]}


def test_an_account_that_fails_and_is_asked_for_is_no_stranger(
    sandbox: Sandbox, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread goes on trying for its readers, however long the outage."""
    day = shorten(monkeypatch)
    platform = Visited(sandbox, clock, has_thread=True)
    ids = platform.add(range(1))
    platform.read(ids)
    platform.advance(7200)
    platform.rows[ids[0]] = {"APP_SECRET": "wrong"}
    for _ in range(4):
        platform.cause(ids[0])
        platform.advance(day / 2)
        platform.tick()
    assert len(platform.runtime._kept) == 1


@pytest.mark.slow
@pytest.mark.parametrize("has_thread", [True, False])
def test_memory_does_not_grow_with_all_that_ever_came(
    has_thread: bool,
    sandbox: Sandbox,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Every day another ten accounts. What is in files is not in memory."""
    day = shorten(monkeypatch)
    files = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path / "cache")}
    platform = Visited(sandbox, clock, has_thread=has_thread, **files)
    sizes: list[int] = []
    tracemalloc.start()
    try:
        for number in range(6):
            platform.read(platform.add(range(number * 10, number * 10 + 10)))
            platform.advance(day + 1)
            if has_thread:
                platform.tick()
            gc.collect()
            sizes.append(_size_of_ours())
    finally:
        tracemalloc.stop()
    assert len(platform.accounts.at_hand) == (0 if has_thread else 10)
    # Forty accounts that stayed would be many times as much.
    assert sizes[-1] < sizes[1] * 3, sizes


def _size_of_ours() -> int:
    """Bytes that the package has allocated."""
    ours = [tracemalloc.Filter(True, "*/flask_wxjsapi/_*")]
    found = tracemalloc.take_snapshot().filter_traces(ours).statistics("filename")
    return sum(one.size for one in found)
