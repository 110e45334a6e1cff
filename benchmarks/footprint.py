"""Part ``footprint``: what the extension weighs, idles and how it ends."""

from __future__ import annotations

import statistics
import time

from tests.conftest import wait_until
from tests.faults.servers import Fleet

from . import subjects
from .lab import Lab
from .probes import answer, ask, start
from .report import Row

_BARE = "bare Flask"


def footprint_part(lab: Lab) -> list[Row]:
    """Import time, memory, the thread's CPU and the end of a worker."""
    return [*_weight_rows(lab), *_idle_rows(lab), _exit_row(lab)]


def _weight_rows(lab: Lab) -> list[Row]:
    found: dict[str, list[dict[str, float]]] = {"flask": [], "extension": []}
    with lab.sandbox() as sandbox:
        account = subjects.account(sandbox.url)
        for number in range(lab.pick(15, 1)):
            names = list(found) if number % 2 else list(found)[::-1]
            for name in names:
                found[name].append(ask("weight", what=name, account=account))
    rows = []
    for key, what, unit in (
        ("import", "Import of Flask and the extension", "ms"),
        ("memory", "Memory of a process that has signed a page", "MB"),
    ):
        ours, bare = (
            statistics.median(one[key] for one in found[n]) for n in ("extension", "flask")
        )
        note = f"{ours:.3g} against {bare:.3g} {unit}; requests and Flask-Caching are most of it."
        rows.append(Row("footprint", key, what, ours / bare, "x", _BARE, note=note))
    return rows


def _idle_rows(lab: Lab) -> list[Row]:
    seconds = lab.pick(60, 1)
    with lab.sandbox() as sandbox:
        arguments = {"sandbox": sandbox.url, "redis": lab.redis_url, "seconds": seconds}
        started = [start("idle", what=what, **arguments) for what in ("extension", "flask")]
        ours, bare = (answer(process)["cpu"] for process in started)
    what = f"CPU time of a process that nobody asks anything, in {seconds} s"
    note = f"Bare Flask: {bare * 1000:.0f} ms. The store is {'Redis' if lab.valkey else 'memory'}."
    return [Row("footprint", "idle", what, ours * 1000, "ms", _BARE, note=note)]


def _exit_row(lab: Lab) -> Row:
    ours = _seconds_to_exit(lab, "create_app", hangs=True)
    bare = _seconds_to_exit(lab, "bare_app", hangs=False)
    what = "From SIGTERM to the end of gunicorn, its worker in the middle of a renewal"
    baseline = "gunicorn without the extension"
    note = f"Without the extension: {bare:.2g} s."
    why = "gunicorn looks after its workers once a second, and may have to wait for that."
    return Row("footprint", "exit", what, ours, "s", baseline, 1.5, note=note, why=why)


def _seconds_to_exit(lab: Lab, app: str, *, hangs: bool) -> float:
    with lab.sandbox() as sandbox:
        sandbox.fail("hang", times=None)
        where = f"benchmarks.service:{app}()"
        with Fleet(sandbox, lab.directory, workers=1, app=where, CACHE_TYPE="SimpleCache") as fleet:
            fleet.get("/pid")
            if hangs:
                wait_until(lambda: sandbox.calls, what="the thread is asking WeChat")
            start = time.perf_counter()
            fleet.process.terminate()
            fleet.process.wait(60)
            seconds = time.perf_counter() - start
            sandbox.heal()
    return seconds
