"""Part ``storm``: many readers when a ticket ends, and while it is renewed ahead of its end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flask_wxjsapi.sandbox import Sandbox

from .lab import NO_REDIS, Lab, percentile
from .probes import answer, start
from .report import Row


def storm_part(lab: Lab) -> list[Row]:
    """Processes with threads on one Redis."""
    if lab.valkey is None:
        row = Row("storm", "storm", "A storm at expiry", None, "calls", "wechatpy", 2)
        return [Row(**{**vars(row), "why": NO_REDIS})]
    # Tickets of a few seconds need a machine that keeps up, and a quick run has to work on any.
    return [*([] if lab.quick else _expiry_rows(lab)), *_cold_rows(lab), *_steady_rows(lab)]


def _together(count: int, name: str, **arguments: Any) -> Callable[[float], list[dict[str, Any]]]:
    """Start probes and wait until all are ready; the result lets them go at a Unix time."""
    processes = [start(name, **arguments) for _ in range(count)]
    for process in processes:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"a probe is not ready: {process.args!r}")

    def go(at: float) -> list[dict[str, Any]]:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(f"{at}\n")
            process.stdin.flush()
        return [answer(process) for process in processes]

    return go


# -- nothing valid ---------------------------------------------------------------------------------


class _Storm:
    """What a storm came to."""

    def __init__(self, sandbox: Sandbox, answers: list[dict[str, Any]]) -> None:
        self.waits = [wait for found in answers for wait in found["waits"]]
        self.tokens = sandbox.calls["token"] + sandbox.calls["stable_token"]
        self.tickets = sandbox.calls["getticket"]
        self.handed_out = len({ticket for found in answers for ticket in found["tickets"]})

    def __str__(self) -> str:
        p50, p99 = (percentile(self.waits, percent) for percent in (50, 99))
        return (
            f"{self.tokens} + {self.tickets} calls for {len(self.waits)} readers; p50 {p50:.0f}, "
            f"p99 {p99:.0f}, max {max(self.waits):.0f} ms."
        )

    @property
    def calls(self) -> int:
        return self.tokens + self.tickets


def _storm(lab: Lab, peer: str, life: float | None) -> _Storm:
    """All read at the same moment: when a ticket of this life has ended, or without one ever."""
    rules = {} if life is None else {"ticket_lifetime": life, "token_lifetime": life}
    arguments = {"redis": lab.redis_url, "threads": lab.pick(16, 4), "warm": life is not None}
    with lab.sandbox(**rules) as sandbox:
        go = _together(lab.pick(4, 2), "storm", peer=peer, sandbox=sandbox.url, **arguments)
        sandbox.calls.clear()
        sandbox.delay = lab.pick(50, 10) / 100
        # wechatpy compares whole seconds, and drops a ticket in the second after its last.
        at = time.time() + 0.5 if life is None else time.time() + life + 1.5
        return _Storm(sandbox, go(at))


def _expiry_rows(lab: Lab) -> list[Row]:
    """Without the background thread, which would have renewed the ticket long before."""
    life = 6.0
    ours, theirs = _storm(lab, "threadless", life), _storm(lab, "wechatpy", life)
    return _storm_rows("expiry", "Readers at expiry, no background thread", ours, theirs)


def _cold_rows(lab: Lab) -> list[Row]:
    ours, theirs = _storm(lab, "wxjsapi", None), _storm(lab, "wechatpy", None)
    return _storm_rows("cold", "Readers of an empty store", ours, theirs)


def _storm_rows(key: str, what: str, ours: _Storm, theirs: _Storm) -> list[Row]:
    note = f"{ours} wechatpy: {theirs}"
    wait = max(ours.waits) / max(theirs.waits)
    return [
        Row(
            "storm", f"{key}_calls", f"{what}: calls", ours.calls, "calls", "wechatpy", 2, note=note
        ),
        Row("storm", f"{key}_wait", f"{what}: longest wait", wait, "x", "wechatpy's longest"),
    ]


# -- renewed ahead ---------------------------------------------------------------------------------

_CASES = {
    "stale": "p99 of a read while the ticket is renewed ahead",
    "hanging": "p99 of a read while WeChat hangs and the ticket is stale",
    "stopped": "p99 of a read while Redis is stopped and the ticket stale",
}


def _steady_rows(lab: Lab) -> list[Row]:
    return [_steady_row(lab, case) for case in (["stale"] if lab.quick else _CASES)]


@contextmanager
def _trouble(case: str, sandbox: Sandbox, redis: int) -> Iterator[None]:
    """What goes wrong while the readers read."""
    if case == "hanging":
        sandbox.fail("hang", times=None)
    if case == "stopped":
        os.kill(redis, signal.SIGSTOP)
    try:
        yield
    finally:
        sandbox.heal()
        if case == "stopped":
            os.kill(redis, signal.SIGCONT)


def _steady_row(lab: Lab, case: str) -> Row:
    """Readers from a little before the ticket is stale to a little before it ends."""
    life = lab.pick(20, 7200)
    rules = {"ticket_lifetime": life, "token_lifetime": life}
    seconds = lab.pick(70, 3) / 10
    assert lab.valkey is not None
    assert lab.valkey.process is not None
    redis = lab.valkey.process.pid
    arguments = {"redis": lab.redis_url, "threads": lab.pick(16, 4), "seconds": seconds}
    with lab.sandbox(**rules) as sandbox:
        go = _together(lab.pick(4, 2), "steady", sandbox=sandbox.url, pause=0.01, **arguments)
        issued = time.time()
        sandbox.calls.clear()
        sandbox.delay = lab.pick(50, 10) / 100
        with _trouble(case, sandbox, redis):
            answers = go(time.time() if lab.quick else issued + life * 0.4)
        calls = sum(sandbox.calls.values())
    return _steady_result(case, answers, calls)


def _steady_result(case: str, answers: list[dict[str, Any]], calls: int) -> Row:
    reads, controls = (
        [value for found in answers for value in found[name]] for name in ("reads", "controls")
    )
    note = (
        f"{len(reads)} reads, {calls} calls to WeChat; max {max(reads):.3g} ms. A call that does "
        f"nothing: p99 {percentile(controls, 99):.2g}, max {max(controls):.3g} ms."
    )
    why = "The readers' threads wait for each other: see the call that does nothing."
    baseline = "a call that does nothing, in the same loop"
    return Row(
        "storm", case, _CASES[case], percentile(reads, 99), "ms", baseline, 1.5, note=note, why=why
    )
