"""The chart of the documentation: bars in a small SVG, light or dark as the reader's system."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from .report import Row

_WIDTH, _LEFT, _RIGHT, _BAR, _GAP = 720, 210, 90, 18, 8

_STYLE = """
  .panel { fill: #ffffff; stroke: #d0d7de } text { fill: #24292f; font: 13px sans-serif }
  .title { font-weight: bold } .ours { fill: #07a04c } .peer { fill: #8c959f }
  @media (prefers-color-scheme: dark) {
    .panel { fill: #0d1117; stroke: #30363d } text { fill: #e6edf3 }
    .ours { fill: #2ea86a } .peer { fill: #6e7681 }
  }
"""


@dataclass(frozen=True)
class Bar:
    """One bar: its label, its length and what is written at its end."""

    label: str
    value: float
    text: str
    ours: bool = False


def draw(rows: Iterable[Row]) -> str:
    """The chart of a run; a group of bars is left out where nothing was measured."""
    found = {(row.part, row.key): row.value for row in rows if row.value is not None}
    groups = [
        ("A signed config: times the bare bound (logarithmic)", _costs(found), True),
        ("Requests a second, with the plain view as 1", _rates(found), False),
    ]
    body, top = [], 16
    for title, bars, is_log in groups:
        if bars:
            drawn, top = _group(title, bars, is_log, top)
            body += drawn
    return _document(body, top)


def _costs(found: dict[tuple[str, str], float]) -> list[Bar]:
    ours = found.get(("sign", "config_url"))
    if ours is None:
        return []
    bars = [Bar("the bare bound", 1, "1"), Bar("config(url=…)", ours, f"{ours:.2g}", ours=True)]
    if (in_request := found.get(("sign", "config_request"))) is not None:
        bars.append(Bar("config() in a request", in_request, f"{in_request:.2g}", ours=True))
    labels = {
        "wechatpy_memory": "wechatpy, memory",
        "pywe_memory": "pywe-jssdk, memory",
        "redis_read": "one read of Redis",
        "pywe_redis": "pywe-jssdk, Redis",
        "wechatpy_redis": "wechatpy, Redis",
    }
    for key, label in labels.items():
        if (faster := found.get(("peers", key))) is not None:
            bars.append(Bar(label, faster * ours, f"{faster * ours:.3g}"))
    return bars


def _rates(found: dict[tuple[str, str], float]) -> list[Bar]:
    labels = {"config": "config()", "redis": "one read of Redis", "wechatpy": "wechatpy, Redis"}
    bars = [
        Bar(label, found["requests", key], f"{found['requests', key]:.2f}", key == "config")
        for key, label in labels.items()
        if ("requests", key) in found
    ]
    return [Bar("the plain view", 1, "1"), *bars] if bars else []


# -- drawing ---------------------------------------------------------------------------------------


def _group(title: str, bars: list[Bar], is_log: bool, top: float) -> tuple[list[str], float]:
    """The elements of a group and where the next one begins."""
    lengths = [math.log10(bar.value * 2) if is_log else bar.value for bar in bars]
    room = _WIDTH - _LEFT - _RIGHT
    drawn = [f'<text class="title" x="16" y="{top + 14}">{escape(title)}</text>']
    top += 30
    for bar, length in zip(bars, lengths, strict=True):
        width = max(2.0, room * length / max(lengths))
        drawn += _bar(bar, width, top)
        top += _BAR + _GAP
    return drawn, top + 14


def _bar(bar: Bar, width: float, top: float) -> list[str]:
    kind, y = ("ours" if bar.ours else "peer"), top + 14
    return [
        f'<text x="{_LEFT - 10}" y="{y}" text-anchor="end">{escape(bar.label)}</text>',
        f'<rect class="{kind}" x="{_LEFT}" y="{top}" width="{width:.0f}" height="{_BAR}" rx="2"/>',
        f'<text x="{_LEFT + width + 6:.0f}" y="{y}">{escape(bar.text)}</text>',
    ]


def _document(body: list[str], height: float) -> str:
    size = f'width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<style>{_STYLE}</style>",
        f'<rect class="panel" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="6"/>',
        *body,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"
