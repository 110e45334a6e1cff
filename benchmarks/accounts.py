"""Part ``accounts``: what thousands of accounts that come at run time cost a process."""

from __future__ import annotations

import heapq
import importlib.util
import statistics
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from flask_wxjsapi._account import _times
from flask_wxjsapi._engine.reading import Credentials
from flask_wxjsapi._engine.snapshot import Holding
from flask_wxjsapi._settings import Settings
from flask_wxjsapi._storage.store import Keys
from tests.conftest import FakeClock
from tests.engine.cluster import Cluster, FakeWeChat, Worker

from . import subjects
from .crowd import app_ids, secret_of
from .lab import NO_REDIS, Lab, ratio
from .probes import answer, start
from .report import Row

Found = dict[str, Any]

_ONE = "a process with one account"
#: Seconds that WeChat takes for an answer to those who read cold accounts, and how many these are.
_DELAY, _READERS = 0.1, 64
_MOST_RENEWALS = 8  # of a process at once
#: Seconds from one renewal of an account to the next: they are spread over 200 to 400 s of lead.
_LIFE = 7200 - 300
#: 100 keys in one question, one question a second; and what half a minute cuts off.
_MOST_KEYS = 105
_DAY, _TICKETS = 86_400.0, 13


def accounts_part(lab: Lab) -> list[Row]:
    """What grows with the accounts and what does not, by store; then the same of a peer."""
    sizes = (1, 3, 10) if lab.quick else (1, 100, 1000, 10_000)
    stores = {"files": "files", "memory": "memory"}
    if lab.valkey is not None:
        stores = {"redis": "Redis", **stores}
    rows = []
    with _wechat(sizes[-1]) as url:
        for store, name in stores.items():
            by_size = {size: _crowd(lab, store, url, size, sizes[-1]) for size in sizes}
            rows += _store_rows(store, name, by_size)
            if store == "redis":
                rows += _read_rows(by_size[sizes[-1]], sizes[-1])
                rows += _peer_rows(lab, url, by_size, sizes)
    if lab.valkey is None:
        rows.append(Row("accounts", "redis", "The same on Redis", None, "", _ONE, why=NO_REDIS))
    return [*rows, _warm_row(lab), *_day_rows(lab)]


@contextmanager
def _wechat(count: int, delay: float = 0.0) -> Iterator[str]:
    """The URL of a WeChat in a process of its own, of which each account is asked once."""
    process = start("wechat", count=count, delay=delay)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        answer(process)


def _cache(lab: Lab, store: str) -> dict[str, Any]:
    """The settings of an empty store."""
    if store == "redis":
        return subjects.redis_cache(lab.redis_url)
    if store == "memory":
        return {"CACHE_TYPE": "SimpleCache"}
    lab.stores += 1
    return {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(lab.directory / f"{lab.stores}")}


def _crowd(lab: Lab, store: str, url: str, size: int, largest: int) -> Found:
    is_largest = size == largest
    return _ask(
        "wxjsapi", url, _cache(lab, store), size,
        seconds=lab.pick(300 if is_largest else 100, 3) / 10,
        rounds=lab.pick(15, 2) if is_largest and store == "redis" else 0,
    )  # fmt: skip


def _ask(peer: str, url: str, cache: dict[str, Any], count: int, **options: Any) -> Found:
    options = {"readers": 4, "seconds": 0, "rounds": 0} | options
    process = start("crowd", peer=peer, sandbox=url, cache=cache, count=count, **options)
    return answer(process, timeout=3600)


def _memory(by_size: dict[int, Found], size: int) -> float:
    """Kilobytes for each account."""
    return (by_size[size]["memory"] - by_size[1]["memory"]) / (size - 1)


# -- what a process has and does -------------------------------------------------------------------


def _store_rows(store: str, name: str, by_size: dict[int, Found]) -> list[Row]:
    *_, middle, most = by_size
    one, many = by_size[1], by_size[most]
    about = f"{most:,} accounts, {name}: "
    note = f"With {_listed(by_size)} accounts: "
    renewal, middle_keys = many["warm_cpu"] / most, by_size[middle]["keys"]
    rows = [
        Row(
            "accounts", f"{store}_memory", about + "memory for each", _memory(by_size, most), "kB",
            _ONE, 8,
            note=f"Of a process with {middle:,}: {_memory(by_size, middle):.3g} kB for each. "
            "With the app's own rows it would be more.",
        ),
        Row(
            "accounts", f"{store}_idle", about + "CPU time while nobody asks anything",
            100 * many["cpu"], "% of a core", _ONE, 3,
            note=f"{note}{_listed(100 * found['cpu'] for found in by_size.values())} %. Renewals "
            f"come on top: {1000 * renewal:.2g} ms each, {100 * renewal * most / _LIFE:.2g} % for "
            "all.",
        ),
        Row(
            "accounts", f"{store}_keys", about + "keys looked up while nobody asks",
            many["keys"], "a second", f"a process with {middle:,}: {middle_keys:.3g}", _MOST_KEYS,
            note=f"{note}{_listed(found['keys'] for found in by_size.values())} keys a second in "
            f"{_listed(found['operations'] for found in by_size.values())} operations.",
        ),
        Row(
            "accounts", f"{store}_threads", about + "threads that stay", many["threads"],
            "threads", f"{_ONE}: {one['threads']}", one["threads"],
        ),
    ]  # fmt: skip
    return rows + ([_connections_row(by_size, about, note)] if store == "redis" else [])


def _connections_row(by_size: dict[int, Found], about: str, note: str) -> Row:
    one, *_, most = (found["connections"] for found in by_size.values())
    counts = _listed(found["connections"] for found in by_size.values())
    return Row(
        "accounts", "redis_connections", about + "connections", most, "connections",
        f"{_ONE}: {one}", _MOST_RENEWALS + 2,
        note=f"{note}{counts}. One for each that is at work at the same moment.",
    )  # fmt: skip


def _listed(values: Any) -> str:
    return ", ".join(f"{v:,}" if isinstance(v, int) else f"{v:.3g}" for v in values)


# -- a read ----------------------------------------------------------------------------------------


def _read_rows(found: Found, count: int) -> list[Row]:
    steps, times = found["steps"], found["times"]
    bound = ratio(times["bound_all"], times["bound_one"])
    first = ratio(times["first"], times["one"])
    microseconds = {name: 1e6 * statistics.median(values) for name, values in times.items()}
    what = f"account(app_id).config(url=…), {count:,} accounts in random order: "
    return [
        Row(
            "accounts", "read_steps", what + "instructions of Python's",
            steps["all"] / steps["one"], "x", "one account", 1.1,
            note=f"{steps['all']:.0f} against {steps['one']:.0f}.",
        ),
        Row(
            "accounts", "read_time", what + "CPU time", ratio(times["all"], times["one"]), "x",
            "one account", 1.1,
            note=f"{microseconds['all']:.3g} against {microseconds['one']:.3g} µs. sign() with as "
            f"many tickets from a dict: {bound:.2f}x.",
            why="The same instructions on memory that is not in the processor's caches.",
        ),
        Row(
            "accounts", "read_first", what + "CPU time of the first read in a second", first, "x",
            "one account, read all the time",
            note=f"{microseconds['first']:.3g} µs, {steps['first']:.0f} instructions: once in a "
            "second the reader of an account sees to it that it is kept warm.",
        ),
    ]  # fmt: skip


# -- beside a peer ---------------------------------------------------------------------------------


def _peer_rows(lab: Lab, url: str, by_size: dict[int, Found], sizes: tuple[int, ...]) -> list[Row]:
    """wechatpy with a client for each account, all on one connection pool."""
    count, most = sizes[-2], sizes[-1]
    about = f"wechatpy with {count:,} clients on Redis: "
    keys = {
        "memory": f"memory for each, times that of {most:,} accounts here",
        "read": f"time of a config, times that of any of {most:,} accounts here",
        "operations": "operations of the store for a read",
    }
    if not importlib.util.find_spec("wechatpy"):
        return [
            Row("accounts", f"wechatpy_{key}", about + what, None, "x", "", why=_NO_WECHATPY)
            for key, what in keys.items()
        ]
    theirs = {
        size: _ask(
            "wechatpy", url, _cache(lab, "redis"), size,
            rounds=lab.pick(5, 1) if size == count else 0,
        )
        for size in (1, count)
    }  # fmt: skip
    ours, clients = by_size[most], theirs[count]
    memory, own = _memory(theirs, count), _memory(by_size, most)
    read, own_read = (statistics.median(found["times"]["all"]) for found in (clients, ours))
    operations = ours["operations_of_read"]
    return [
        Row(
            "accounts", "wechatpy_memory", about + keys["memory"], memory / own, "x",
            "Flask-WxJsApi on Redis", note=f"{memory:.3g} against {own:.3g} kB.",
        ),
        Row(
            "accounts", "wechatpy_read", about + keys["read"], read / own_read, "x",
            "Flask-WxJsApi on Redis",
            note=f"{1e6 * read:.3g} against {1e6 * own_read:.3g} µs of CPU, without Redis's own.",
        ),
        Row(
            "accounts", "wechatpy_operations", about + keys["operations"],
            clients["operations_of_read"], "operations",
            f"Flask-WxJsApi on Redis: {operations:.2g}",
            note="What is not 0 there is the thread's look in the same second.",
        ),
    ]  # fmt: skip


_NO_WECHATPY = "wechatpy is not installed"


# -- cold accounts ---------------------------------------------------------------------------------


def _warm_row(lab: Lab) -> Row:
    """All accounts are cold, and many readers come."""
    count, store = lab.pick(1000, 16), "memory" if lab.valkey is None else "redis"
    with _wechat(count, _DELAY) as url:
        ours = _ask("wxjsapi", url, _cache(lab, store), count, readers=_READERS)
    least = count * 2 * _DELAY / _MOST_RENEWALS
    calls = f"2 calls each of {1000 * _DELAY:.0f} ms, {_MOST_RENEWALS} accounts at once"
    what = f"Until {count:,} cold accounts are warm, {_READERS} readers"
    return Row(
        "accounts", "warm", what, ours["warm"] / least, "x", calls,
        note=f"{ours['warm']:.3g} against {least:.3g} s, {ours['warm_cpu']:.3g} s of it CPU time: "
        "what others do with the processor meanwhile comes on top.",
    )  # fmt: skip


# -- a simulated day -------------------------------------------------------------------------------


@dataclass
class _Day:
    """What a day of a cluster came to, for each account."""

    workers: int
    calls: list[tuple[int, int]]  # tokens and tickets

    def __str__(self) -> str:
        return " or ".join(f"{tokens} + {tickets}" for tokens, tickets in sorted(set(self.calls)))

    @property
    def most(self) -> int:
        """Tickets fetched for the account that has most."""
        return max(tickets for _, tickets in self.calls)


def _day_rows(lab: Lab) -> list[Row]:
    sizes = (1, 4) if lab.quick else (1, 8, 64)
    count = lab.pick(20, 3)
    days = [_day(size, count) for size in sizes]
    texts = ", ".join(f"{day}" for day in days)
    return [
        Row(
            "accounts", "day", f"{sizes[-1]} workers with {count} accounts: tickets fetched for "
            "each in a simulated day", days[-1].most, "calls", f"one worker: {days[0].most}",
            _TICKETS,
            note=f"With {_listed(sizes)} workers: {texts} calls for each account.",
        )
    ]  # fmt: skip


def _day(workers: int, count: int) -> _Day:
    """All workers keep all accounts warm, each by a tick when it wants one."""
    clock = FakeClock()
    cluster = Cluster(clock)
    wechats = {app_id: FakeWeChat(clock) for app_id in app_ids(count)}
    fleet = [cluster.worker() for _ in range(workers)]
    for worker in fleet:
        for app_id, upstream in wechats.items():
            _account(cluster, worker, app_id, upstream).get()
    end = clock.now + _DAY
    due = [(clock.now + cluster.random.uniform(0, 600), number) for number in range(workers)]
    heapq.heapify(due)
    while due[0][0] < end:
        at, number = heapq.heappop(due)
        clock.advance(max(0.0, at - clock.now))
        heapq.heappush(due, (clock.now + fleet[number].engine.runtime().tick(), number))
    calls = [upstream.calls for upstream in wechats.values()]
    return _Day(workers, [(made["access_token"], made["jsapi_ticket"]) for made in calls])


def _account(cluster: Cluster, worker: Worker, app_id: str, upstream: FakeWeChat) -> Credentials:
    """One that came at run time, with the lead that it has there."""
    keys = {"APP_ID": app_id, "APP_SECRET": secret_of(app_id), "SYNC_INTERVAL": 600}
    settings = Settings.load({f"WXJSAPI_{key}": value for key, value in keys.items()})
    holding = Holding(
        "default",
        app_id,
        upstream,
        Keys(lambda: f"wxjsapi:{{test/{app_id}}}:"),
        cluster.plan(nullcontext),
        _times(settings, is_one_of_many=True),
        is_background=lambda: True,
        reload=lambda: False,
    )
    return Credentials(worker.engine, holding)
