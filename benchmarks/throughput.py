"""Part ``requests``: requests a second under gunicorn, with ``config()`` and without."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace

from flask_wxjsapi.sandbox import Sandbox
from tests.faults.servers import Fleet

from . import subjects
from .lab import Lab, ratio
from .report import Row

_PLAIN = "the same view without it"
_VIEWS = (
    ("config", "Requests a second of a view with config()", 0.95),
    ("redis", "The same with one bare read of Redis instead", None),
    ("wechatpy", "The same with wechatpy on Redis instead", None),
)
_WHY = "A request as small as this one costs little more than the signature's own SHA-1 and JSON."


def requests_part(lab: Lab) -> list[Row]:
    """Two sync workers; each round measures every view, in alternating order.

    Not gthread: there wrk finds two speeds of the same view.
    """
    rows = [
        Row("requests", key, what, None, "x", _PLAIN, goal, at_least=True, why=_WHY)
        for key, what, goal in _VIEWS
    ]
    wrk = shutil.which("wrk")
    if wrk is None:
        return [replace(row, why="wrk is not installed") for row in rows]
    rates = _rates(lab, wrk)
    return [_filled(row, rates) for row in rows]


def _filled(row: Row, rates: dict[str, list[float]]) -> Row:
    if row.key not in rates:
        return replace(row, why="only in a full run, with Redis and wechatpy")
    ratios = sorted(one / plain for one, plain in zip(rates[row.key], rates["plain"], strict=True))
    note = f"{len(ratios)} rounds, the ratios between {ratios[0]:.2f} and {ratios[-1]:.2f}."
    return replace(row, value=ratio(rates[row.key], rates["plain"]), note=note)


def _views(lab: Lab) -> list[str]:
    views = ["plain", "config"]
    if lab.valkey is not None and not lab.quick:
        views += ["redis"] + ["wechatpy"] * bool(importlib.util.find_spec("wechatpy"))
    return views


def _rates(lab: Lab, wrk: str) -> dict[str, list[float]]:
    views = _views(lab)
    rates: dict[str, list[float]] = {view: [] for view in views}
    with lab.sandbox() as sandbox, _fleet(lab, sandbox) as fleet:
        for view in views:
            for _ in range(8):  # each worker has its ticket
                fleet.get(f"/{view}")
        for view in _order(views, lab.pick(15, 1)):
            rates[view].append(_rate(wrk, f"{fleet.url}/{view}", lab.pick(2, 1)))
    return rates


def _fleet(lab: Lab, sandbox: Sandbox) -> Fleet:
    cache = subjects.redis_cache(lab.redis_url) if lab.valkey else {"CACHE_TYPE": "SimpleCache"}
    app = "benchmarks.service:create_app()"
    return Fleet(sandbox, lab.directory, workers=2, app=app, **cache)


def _order(views: list[str], rounds: int) -> Iterator[str]:
    for number in range(rounds):
        yield from reversed(views) if number % 2 else views


def _rate(wrk: str, url: str, seconds: int) -> float:
    command = [wrk, "--threads=1", "--connections=8", f"--duration={seconds}s", url]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"Requests/sec: +([\d.]+)", output)
    if found is None or "Non-2xx" in output:
        raise RuntimeError(f"wrk says: {output}")
    return float(found[1])
