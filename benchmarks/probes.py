"""What has to be measured in a process of its own: ``python -m benchmarks.probes NAME ARGS``.

A probe prints one line of JSON. ``ask`` runs one and reads it.
"""

from __future__ import annotations

import json
import logging
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def start(name: str, **arguments: Any) -> subprocess.Popen[str]:
    """Start a probe."""
    command = [sys.executable, "-m", "benchmarks.probes", name, json.dumps(arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)


def answer(process: subprocess.Popen[str], timeout: float = 120) -> dict[str, Any]:
    """What a probe found, once it has ended."""
    output, _ = process.communicate(timeout=timeout)
    if process.returncode:
        raise RuntimeError(f"a probe ended with {process.returncode}: {process.args!r}")
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def ask(name: str, **arguments: Any) -> dict[str, Any]:
    return answer(start(name, **arguments))


# -- the path of a read ----------------------------------------------------------------------------


def fresh(sandbox: str, requests: int) -> dict[str, Any]:
    """What the first call of a request takes more than a later one, in µs.

    Each request has a new environment and a Host never seen before. ``bound`` is the control:
    nothing in it knows of requests, so what it takes more is the processor's cold caches.
    """
    from .subjects import bound, make_app

    app, wxjsapi = make_app(sandbox)
    with app.test_request_context():
        wxjsapi.config()
    more: dict[str, list[float]] = {"config": [], "bound": []}
    for number in range(2 * requests):
        name, call = (("config", wxjsapi.config), ("bound", bound))[number % 2]
        with app.test_request_context(f"https://shop{number}.example.com/goods/4711?from=timeline"):
            times = [time.perf_counter_ns()]
            for _ in range(3):
                call()
                times.append(time.perf_counter_ns())
        more[name].append((times[1] - times[0]) - (times[3] - times[2]))
    return {name: statistics.median(values) / 1000 for name, values in more.items()}


_cache_calls: Counter[str] = Counter()


def counting_cache(app: Any, config: Any, args: Any, kwargs: Any) -> Any:
    """A cache backend that counts what is asked of it; ``CACHE_TYPE`` names it by its path."""
    from cachelib import SimpleCache

    class Counting(SimpleCache):
        def __getattribute__(self, name: str) -> Any:
            if name in ("get", "set", "add", "get_many", "set_many", "delete", "has"):
                _cache_calls[name] += 1
            return super().__getattribute__(name)

    return Counting()


def touched(sandbox: str, seconds: float) -> dict[str, Any]:
    """Audit events and cache calls, by any thread, of the first ``config()`` and of many after it.

    Python raises an audit event for each file opened and each socket made, among others.
    """
    from .subjects import make_app

    events: Counter[str] = Counter()
    sys.addaudithook(lambda event, _: events.update((event,)))
    # The next look of the thread at the store is far off.
    app, wxjsapi = make_app(
        sandbox, CACHE_TYPE="benchmarks.probes.counting_cache", WXJSAPI_SYNC_INTERVAL=300
    )
    from . import probes  # the module that Flask-Caching imports, which is not __main__

    found = {}
    with app.test_request_context("/"):
        for name, at_least in (("first", 0.0), ("later", seconds)):
            probes._cache_calls.clear()
            events.clear()
            reads, end = 0, time.monotonic() + at_least
            while reads == 0 or time.monotonic() < end:
                wxjsapi.config()
                reads += 1
            counts = sum(events.values()), sum(probes._cache_calls.values())
            found[name] = {"reads": reads, "events": counts[0], "cache": counts[1]}
            time.sleep(0.5)  # for a renewal to land
    return found


# -- readers ---------------------------------------------------------------------------------------


def reader(peer: str, sandbox: str, redis: str) -> Callable[[], Any]:
    """A read of the ticket by one of the peers, safe to call from any thread."""
    from . import subjects

    if peer == "wechatpy":
        client = subjects.wechatpy_client(sandbox, subjects.wechatpy_session(redis))
        return lambda: client.jsapi.get_jsapi_ticket()
    # "wxjsapi" with its thread, "threadless" without it
    thread = {"WXJSAPI_BACKGROUND_REFRESH": peer == "wxjsapi"}
    app, wxjsapi = subjects.make_app(sandbox, **subjects.redis_cache(redis), **thread)

    def read() -> str:
        with app.app_context():
            return wxjsapi.ticket

    return read


def _wait_for_line() -> float:
    """Tell the parent that all is ready; the Unix time at which to go."""
    print("ready", flush=True)
    return float(sys.stdin.readline())


def _sleep_until(at: float) -> None:
    time.sleep(max(0.0, at - time.time()))


def _in_threads(count: int, action: Callable[[], None]) -> None:
    with ThreadPoolExecutor(count) as pool:
        for future in [pool.submit(action) for _ in range(count)]:
            future.result()


def storm(peer: str, sandbox: str, redis: str, threads: int, warm: bool) -> dict[str, Any]:
    """What each thread waits that reads at a given moment, in ms, and how many tickets it gets."""
    read = reader(peer, sandbox, redis)
    if warm:
        read()
    at = _wait_for_line()
    waits: list[float] = []
    tickets = set()

    def run() -> None:
        _sleep_until(at)
        start = time.perf_counter()
        tickets.add(read())
        waits.append((time.perf_counter() - start) * 1000)

    _in_threads(threads, run)
    time.sleep(1)  # what is fetched is saved after its readers have it, and dies with the process
    return {"waits": waits, "tickets": sorted(hash_of(ticket) for ticket in tickets)}


def hash_of(ticket: str) -> str:
    """Enough of a digest to tell tickets apart."""
    import hashlib

    return hashlib.sha256(ticket.encode()).hexdigest()[:12]


def steady(sandbox: str, redis: str, threads: int, seconds: float, pause: float) -> dict[str, Any]:
    """What a read and, beside it, a call that does nothing take in ms over a while."""
    read = reader("wxjsapi", sandbox, redis)
    read()
    at = _wait_for_line()
    reads: list[float] = []
    controls: list[float] = []
    tickets = set()

    def nothing() -> None:
        pass

    def run() -> None:
        _sleep_until(at)
        while time.time() < at + seconds:
            one = time.perf_counter()
            nothing()
            two = time.perf_counter()
            ticket = read()
            three = time.perf_counter()
            controls.append((two - one) * 1000)
            reads.append((three - two) * 1000)
            tickets.add(ticket)
            time.sleep(pause)

    _in_threads(threads, run)
    return {"reads": reads, "controls": controls, "tickets": len(tickets)}


# -- what it weighs --------------------------------------------------------------------------------


def weight(what: str, account: dict[str, str]) -> dict[str, Any]:
    """Import time in ms and resident memory in MB: of Flask alone, or with the extension."""
    start = time.perf_counter()
    import flask

    if what == "extension":
        import flask_wxjsapi
    imported = (time.perf_counter() - start) * 1000
    app = flask.Flask("bare")
    if what == "extension":
        app.config.update(CACHE_TYPE="SimpleCache", **account)
        wxjsapi = flask_wxjsapi.WxJsApi(app)
    with app.test_request_context("/"):
        app.preprocess_request()
        if what == "extension":
            wxjsapi.config()
    return {"import": imported, "memory": resident() / 1024}


def resident() -> int:
    """Kilobytes of memory that this process has in use, as the kernel counts them."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError("the kernel does not say")


def idle(what: str, sandbox: str, redis: str, seconds: float) -> dict[str, Any]:
    """Seconds of CPU that a quiet process uses: with the thread, or of Flask alone."""
    if what == "extension":
        from .subjects import make_app, redis_cache

        app, wxjsapi = make_app(sandbox, **redis_cache(redis), WXJSAPI_SYNC_INTERVAL=5)
        wxjsapi.start(app)
        with app.app_context():
            _ = wxjsapi.ticket
    else:
        from flask import Flask

        Flask("bare")
    time.sleep(min(1.0, seconds))  # the renewal has ended
    before = time.process_time()
    time.sleep(seconds)
    return {"cpu": time.process_time() - before}


# -- many accounts ---------------------------------------------------------------------------------


def wechat(**arguments: Any) -> dict[str, Any]:
    """See :func:`crowd.wechat`."""
    from . import crowd  # which imports Flask, whose import is measured above

    return crowd.wechat(**arguments)


def crowd(**arguments: Any) -> dict[str, Any]:
    """See :func:`crowd.crowd`."""
    from . import crowd

    return crowd.crowd(**arguments)


PROBES = {
    probe.__name__: probe for probe in (fresh, touched, storm, steady, weight, idle, wechat, crowd)
}

if __name__ == "__main__":
    logging.getLogger("flask_wxjsapi").setLevel(logging.ERROR)  # faults are part of the plan
    print(json.dumps(PROBES[sys.argv[1]](**json.loads(sys.argv[2]))), flush=True)
