"""Several hosts in one process, on a clock that is told the time: who asks, how often, who pauses.

A host is its :func:`socket.gethostname`: the one whose turn it is gives its name.
"""

from __future__ import annotations

import contextvars
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cachelib import SimpleCache

from flask_wxjsapi import Credential, TicketServer, TicketUnavailable
from flask_wxjsapi._credential import ACCESS_TOKEN, JSAPI_TICKET
from flask_wxjsapi._storage.cache import CacheServer
from flask_wxjsapi._storage.lease import LocalLease

from ..conftest import FakeClock
from ..engine.cluster import Cluster, FakeWeChat, Worker, says
from .conftest import Figure


class Ledger(TicketServer):
    """A server without ``lock()``, for all hosts."""

    def __init__(self) -> None:
        self.rows: dict[str, Credential] = {}
        self.saves = 0

    def find(self, key: str) -> Credential | None:
        return self.rows.get(key)

    def save(self, key: str, credential: Credential) -> None:
        self.saves += 1
        self.rows[key] = credential


class HostsClock:
    """The clock of a machine that is set wrong."""

    def __init__(self, clock: FakeClock, offset: float) -> None:
        self._clock, self._offset = clock, offset
        self.monotonic, self.sleep = clock.monotonic, clock.sleep

    def time(self) -> float:
        return self._clock.time() + self._offset


class HostsUpstream:
    """WeChat as a machine sees it whose clock is set wrong: what it tells are seconds from now."""

    def __init__(self, wechat: FakeWeChat, offset: float) -> None:
        self.parent = wechat.parent
        self._wechat, self._offset = wechat, offset

    def fetch(self, kind: str, **options: Any) -> Credential:
        found = self._wechat.fetch(kind, **options)
        offset = self._offset
        return Credential(found.value, found.issued_at + offset, found.expires_at + offset)


class Host:
    """A machine with one worker, whose thread and readers have their turn from time to time."""

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        monkeypatch: pytest.MonkeyPatch,
        *,
        offset: float = 0,
        **options: Any,
    ) -> None:
        self.name, self.offset = name, offset
        self._monkeypatch = monkeypatch
        self._true = cluster.clock
        self.worker = Worker(cluster, clock=HostsClock(cluster.clock, offset), **options)
        self.is_busy = False
        self.failed_reads = 0
        self.read: list[str] = []
        self._as_it(self.worker.provider.start)

    def _as_it(self, action: Callable[[], object]) -> None:
        with self._monkeypatch.context() as turn:
            turn.setattr(socket, "gethostname", lambda: self.name)
            action()

    @property
    def due_at(self) -> float:
        """When its thread wakes up, by the true clock."""
        next_at = self.worker.provider.runtime.next_at
        assert next_at is not None, "the thread would do nothing any more"
        return next_at - self.offset

    def pass_by(self) -> None:
        """Its thread, if it is time, and a reader."""
        self.tick()
        self._as_it(self._read)

    def tick(self) -> None:
        """Its thread, if it is time and it does nothing else just now."""
        if not self.is_busy and self.due_at <= self._true.now:
            self.is_busy = True
            self._as_it(self.worker.provider.runtime.tick)
            self.is_busy = False

    def _read(self) -> None:
        try:
            self.read.append(self.worker.ticket())
        except TicketUnavailable:
            self.failed_reads += 1


def live(hosts: list[Host], clock: FakeClock, seconds: float, step: float) -> None:
    """Let time pass, with a reader of each host in every step."""
    end = clock.now + seconds
    while clock.now < end:
        for host in hosts:
            host.pass_by()
        next_at = min(host.due_at for host in hosts)
        clock.advance(max(0.05, min(step, next_at - clock.now)))


# -- clocks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "hours"),
    [
        (7300, 6),
        *(pytest.param(offset, 24, marks=pytest.mark.slow) for offset in (7300, -7300, 3600)),
    ],
)
def test_two_hosts_whose_clocks_disagree(
    offset: float,
    hours: int,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    figure: Figure,
) -> None:
    """One keeps local time: both have a ticket that lives, a few calls a day, a line an hour."""
    cluster = Cluster(clock)
    right = Host(cluster, "right", monkeypatch)
    wrong = Host(
        cluster,
        "wrong",
        monkeypatch,
        offset=offset,
        upstream=HostsUpstream(cluster.upstream, offset),
    )
    dead = 0
    end = clock.now + hours * 3600
    while clock.now < end:
        live([right, wrong], clock, 60, step=30)
        dead += sum(not cluster.upstream.is_alive(host.read[-1]) for host in (right, wrong))
    assert right.failed_reads == wrong.failed_reads == 0
    assert dead == 0
    assert cluster.upstream.calls[JSAPI_TICKET] < 60 * hours / 24
    lines = [one for one in caplog.records if "Two clocks disagree" in one.getMessage()]
    figure(
        f"two hosts whose clocks differ by {offset} s, {hours} h",
        "fewer than 60 ticket calls a day, a line an hour",
        f"{cluster.upstream.calls[JSAPI_TICKET]} calls, {len(lines)} lines",
    )
    assert 1 <= len(lines) <= 2 * (hours + 1)


# -- no common lease -------------------------------------------------------------------------------


class OwnCache(CacheServer):
    """What each host has for itself, in memory or on its disk, and no other sees."""

    def __init__(self, directory: Path | None) -> None:
        super().__init__(SimpleCache(), directory=directory)

    @property
    def is_private(self) -> bool:
        return self._directory is None

    def host_lease(self, key: str) -> LocalLease:
        return LocalLease(self._holders, key)

    def lease(self, key: str, life: float) -> LocalLease:
        return self.host_lease(key)

    def _check_file(self, key: str) -> None:
        pass

    def _probe(self) -> None:
        pass


class BusyWeChat(FakeWeChat):
    """It takes half a second for an answer, and other hosts have their turn meanwhile."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.hosts: list[Host] = []

    def fetch(self, kind: str, **options: Any) -> Credential:
        end = self.clock.now + 0.5
        while self.clock.now < end:
            for host in self.hosts:
                contextvars.Context().run(host.tick)
            self.clock.advance(0.05)
        return super().fetch(kind, **options)


@pytest.mark.parametrize("cache", ["memory", "files"])
def test_64_hosts_without_a_common_lease(
    cache: str,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    figure: Figure,
) -> None:
    """A custom server without ``lock()``: a few calls at an expiry, and not one for each host."""
    ledger, wechat = Ledger(), BusyWeChat(clock)
    hosts = []
    for number in range(64):
        cluster = Cluster(clock, custom=ledger)
        cluster.upstream = wechat
        directory = tmp_path / f"host{number}" if cache == "files" else None
        cluster.cache = OwnCache(directory)  # type: ignore[assignment]
        hosts.append(Host(cluster, f"host{number}", monkeypatch))
    live(hosts[:1], clock, 1, step=1)
    live(hosts, clock, 30, step=5)
    before = wechat.calls[JSAPI_TICKET]
    clock.advance(6900)
    wechat.hosts = hosts
    live(hosts, clock, 300, step=30)
    assert sum(host.failed_reads for host in hosts) == 0
    assert before == 1
    calls = wechat.calls[JSAPI_TICKET] - before
    figure(f"64 hosts, a custom server, {cache}", "a few ticket calls at an expiry", calls)
    assert 1 <= calls <= 6
    assert len({host.read[-1] for host in hosts}) == 1


# -- waiting for a lease ---------------------------------------------------------------------------


class Counting(SimpleCache):
    """Counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def get_many(self, *keys: str) -> list[Any]:
        self.reads += 1
        return super().get_many(*keys)


def test_the_wait_for_a_lease_grows(clock: FakeClock) -> None:
    """From 50 ms to a second between two tries: 512 cold processes leave the store in peace."""
    cluster = Cluster(clock)
    cluster.backend = counting = Counting()
    cluster.cache._backend = counting
    assert cluster.cache.lease("lease", 15).acquire()  # another process, which then hangs
    slept: list[float] = []
    worker = cluster.worker()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds)

    worker.sleep = sleep  # type: ignore[method-assign]
    with pytest.raises(TicketUnavailable):
        worker.ticket()
    assert 0.03 < slept[0] <= 0.05
    assert 0.75 <= slept[-1] <= 1
    assert len(slept) <= 25
    assert counting.reads <= 6 * len(slept)
    assert sum(cluster.calls) == 0


def test_a_thread_that_lost_the_lease_looks_at_most_once_a_second_in_the_long_run(
    clock: FakeClock,
) -> None:
    """Soon at first, since who has it is done in a moment; then less often, since it hangs."""
    cluster = Cluster(clock)
    assert cluster.cache.lease("lease", 15).acquire()
    worker = cluster.worker()
    pauses = [worker.sync() for _ in range(12)]
    assert all(0.1 < pause < 0.4 for pause in pauses[:1])
    assert all(0.5 <= pause <= 1 for pause in pauses[-5:])


# -- verdicts on one host's address ----------------------------------------------------------------


class Whitelist:
    """WeChat as one host sees it: it may not ask for a token."""

    def __init__(self, wechat: FakeWeChat) -> None:
        self.parent = wechat.parent
        self._wechat = wechat
        self.refused = 0

    def fetch(self, kind: str, **options: Any) -> Credential:
        if kind == ACCESS_TOKEN:
            self.refused += 1
            raise says(40164, "invalid ip 203.0.113.7, not in whitelist")
        return self._wechat.fetch(kind, **options)


@pytest.mark.slow
def test_one_host_of_two_is_not_whitelisted(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No read of the other fails, and the refused one lives on what the other has stored."""
    caplog.set_level(logging.WARNING)
    cluster = Cluster(clock)
    upstream = Whitelist(cluster.upstream)
    refused = [Host(cluster, "refused", monkeypatch, upstream=upstream) for _ in range(2)]
    live(refused, clock, 3, step=1)
    assert all(host.failed_reads and not host.read for host in refused)
    assert upstream.refused == 1  # what one learns the other one of this host knows
    admitted = Host(cluster, "admitted", monkeypatch)
    live([admitted, *refused], clock, 2 * 7200, step=30)
    assert admitted.failed_reads == 0
    failed = [host.failed_reads for host in refused]
    live([admitted, *refused], clock, 7200, step=30)
    assert [host.failed_reads for host in refused] == failed
    assert {host.read[-1] for host in refused} == {admitted.read[-1]}
    assert upstream.refused <= 3 * 7200 / 900 + 1
    assert cluster.upstream.calls[JSAPI_TICKET] <= 5
