"""A process with many accounts, and the WeChat that it asks: probes of the part ``accounts``."""

from __future__ import annotations

import contextlib
import gc
import random
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

from . import subjects
from .probes import resident

Read = Callable[[str], Any]


def app_ids(count: int) -> list[str]:
    return [f"wx{number:016x}" for number in range(1, count + 1)]


def secret_of(app_id: str) -> str:
    return 2 * app_id[2:]


# -- WeChat ----------------------------------------------------------------------------------------


def wechat(count: int, delay: float) -> dict[str, Any]:
    """Be a WeChat with so many accounts until the input ends: what it knows of them is not in the
    memory that is measured. Says where it is, and in the end how often it was called.
    """
    from flask_wxjsapi.sandbox import Sandbox

    sandbox = Sandbox(delay=delay)
    for app_id in app_ids(count):
        sandbox.add_account(app_id, secret_of(app_id))
    with sandbox.serve():
        print(sandbox.url, flush=True)
        sys.stdin.read()
        return dict(sandbox.calls)


# -- who reads the tickets of many accounts --------------------------------------------------------


@contextlib.contextmanager
def _reader(peer: str, sandbox: str, cache: dict[str, Any], count: int) -> Iterator[Read]:
    """A config of one of so many accounts by one of the peers, safe to call from any thread."""
    if peer == "wechatpy":
        session = subjects.wechatpy_session(cache["CACHE_REDIS_URL"])
        clients = {
            app_id: subjects.wechatpy_client(sandbox, session, app_id, secret_of(app_id))
            for app_id in app_ids(count)
        }
        yield lambda app_id: subjects.wechatpy_config(clients[app_id])
        return
    # Nothing is kept by the loader: where it has the rows is the app's business.
    app, wxjsapi = subjects.make_platform(
        sandbox, lambda app_id: {"APP_SECRET": secret_of(app_id)}, **cache
    )
    of_thread = threading.local()

    def read(app_id: str) -> Any:
        if not hasattr(of_thread, "context"):
            of_thread.context = app.app_context()
            of_thread.context.push()
        return wxjsapi.account(app_id).config(url=subjects.URL)

    yield read
    wxjsapi.close(app)


def _warm(read: Read, wanted: Iterable[str], readers: int) -> None:
    """Read each account once."""
    with ThreadPoolExecutor(readers) as pool:
        for future in [pool.submit(read, app_id) for app_id in wanted]:
            future.result()


def _settle() -> None:
    """Wait for what goes on when the last reader has its ticket."""
    while any("renewal" in thread.name for thread in threading.enumerate()):
        time.sleep(0.05)
    gc.collect()


# -- what they cost --------------------------------------------------------------------------------


def crowd(
    peer: str, sandbox: str, cache: dict[str, Any], count: int, readers: int, seconds: float = 0,
    rounds: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """What a process has and does with so many accounts.

    :param cache: the settings of the store.
    :param readers: threads that read the cold accounts.
    :param seconds: for which nobody asks anything.
    :param rounds: in which the time of a read is taken.
    """
    stand = _stand_of(cache)
    with _reader(peer, sandbox, cache, count) as read:
        started, cpu = time.perf_counter(), time.process_time()
        _warm(read, app_ids(count), readers)
        found: dict[str, Any] = {"warm": time.perf_counter() - started}
        _settle()
        found |= {"warm_cpu": time.process_time() - cpu, "memory": resident()}
        if seconds:
            found |= _idle(stand, seconds)
        if rounds:
            found |= _reads(read, app_ids(count), rounds)
            before = stand()["operations"]
            for app_id in app_ids(count):
                read(app_id)
            found["operations_of_read"] = (stand()["operations"] - before) / count
    return found


def _idle(stand: Callable[[], dict[str, int]], seconds: float) -> dict[str, float]:
    """What happens in a while in which nobody asks."""
    time.sleep(min(2.0, seconds))  # what came before has an end
    before, started, cpu = stand(), time.perf_counter(), time.process_time()
    time.sleep(seconds)
    cpu, passed, after = time.process_time() - cpu, time.perf_counter() - started, stand()
    return {
        "cpu": cpu / passed,
        "keys": (after["keys"] - before["keys"]) / passed,
        "operations": (after["operations"] - before["operations"]) / passed,
        "connections": after["connections"],
        # Each look at the store has one more, for a moment.
        "threads": sum(thread.name == "wxjsapi" for thread in threading.enumerate()),
    }


# -- what the store is asked -----------------------------------------------------------------------

#: What this probe sends to Redis itself.
_OUR_OWN = ("cmdstat_info", "cmdstat_client", "cmdstat_hello")


def _stand_of(cache: dict[str, Any]) -> Callable[[], dict[str, int]]:
    """How many operations the store had so far, how many keys it looked up, and over how many
    connections.
    """
    if "CACHE_REDIS_URL" not in cache:
        counts = _count_calls(cache["CACHE_TYPE"])
        return lambda: {"operations": counts.total(), "keys": counts["get"], "connections": 0}
    client = subjects.redis_client(cache["CACHE_REDIS_URL"])

    def stand() -> dict[str, int]:
        stats, commands = client.info("stats"), client.info("commandstats")
        return {
            "operations": sum(
                one["calls"] for name, one in commands.items() if not name.startswith(_OUR_OWN)
            ),
            "keys": stats["keyspace_hits"] + stats["keyspace_misses"],
            "connections": len(client.client_list()) - 1,
        }

    return stand


def _count_calls(cache_type: str) -> Counter[str]:
    """Count from now on what is asked of a backend of cachelib's, by the name of its method."""
    import cachelib

    counts: Counter[str] = Counter()

    def counting(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **more: Any) -> Any:
            counts[name] += 1
            return method(*args, **more)

        return counted

    backend = getattr(cachelib, cache_type)
    for name in ("get", "set", "add", "delete"):
        setattr(backend, name, counting(name, getattr(backend, name)))
    return counts


# -- a read ----------------------------------------------------------------------------------------

_LEAST_READS = 1000  # of which one time is taken
_TRACED = 200  # accounts


def _reads(read: Read, ids: list[str], rounds: int) -> dict[str, Any]:
    """What a read takes: of one account, and of all of them in random order.

    Each round has the CPU time of all of these, one after the other: a machine may change its pace.
    ``first`` is the first read of each account in a second; ``bound`` signs with tickets from a
    dict, and so tells what the processor's caches make of as many.
    """
    tickets = {app_id: subjects.TICKET + app_id for app_id in ids}
    one = ids[:1] * max(len(ids), _LEAST_READS)
    found: dict[str, list[float]] = {
        name: [] for name in ("first", "all", "one", "bound_all", "bound_one")
    }
    for number in range(rounds):
        mixed = random.Random(number).choices(ids, k=len(one))
        time.sleep(1.1)
        found["first"].append(_cpu_of(read, random.Random(number).sample(ids, len(ids))))
        found["all"].append(_cpu_of(read, mixed))
        found["one"].append(_cpu_of(read, one))
        for name, wanted in (("bound_all", mixed), ("bound_one", one)):
            found[name].append(_cpu_of(lambda app_id: subjects.signed(tickets[app_id]), wanted))
    time.sleep(1.1)
    some = ids[:_TRACED]
    steps = {name: _steps(read, some) for name in ("first", "all")}
    return {"times": found, "steps": {**steps, "one": _steps(read, some[:1] * len(some))}}


def _cpu_of(read: Read, wanted: list[str]) -> float:
    """Seconds of this thread for each."""
    start = time.thread_time()
    for app_id in wanted:
        read(app_id)
    return (time.thread_time() - start) / len(wanted)


def _steps(read: Read, wanted: list[str]) -> float:
    """Instructions of Python's that a read takes: what depends on nothing but the code."""
    counts = []
    steps = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal steps
        frame.f_trace_opcodes = True
        steps += event == "opcode"
        return trace

    before = sys.gettrace()
    for app_id in wanted:
        steps = 0
        sys.settrace(trace)
        try:
            read(app_id)
        finally:
            sys.settrace(before)
        counts.append(steps)
    return statistics.median(counts)
