"""The sandbox's own page: what there is, buttons that make calls fail, and why a signature is
refused. It needs no script.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import lru_cache, partial
from importlib import resources

from jinja2 import Environment, Template
from markupsafe import Markup
from werkzeug import Request, Response

from .cause import FIELDS
from .overview import Overview
from .protocol import ENDPOINTS

_FAULTS = (  # the button's value, then what it is in English and in Chinese
    ("45009", "quota used up", "配额用尽"),
    ("-1", "system busy", "系统繁忙"),
    ("40164", "IP not whitelisted", "IP 不在白名单"),
    ("61004", "IP not registered", "IP 未登记"),
    ("40125", "wrong AppSecret", "AppSecret 错误"),
    ("40001", "token invalid", "token 无效"),
    ("502", "bad gateway", "网关错误"),
    ("hang", "no answer", "一直不回应"),
    ("slow", "late by 5 s", "晚 5 秒"),
    ("close", "connection lost", "连接中断"),
    ("html", "a login page", "登录页"),
    ("garbage", "no text at all", "乱码"),
)
_ACTIONS = (
    ("heal", "End all faults", "停止所有故障"),
    ("revoke", "Kill the access tokens", "使 token 失效"),
    ("replace", "Replace the tickets", "换掉 ticket"),
    ("reset", "Reset everything", "全部重置"),
)


def language(request: Request) -> str:
    """``"zh"`` or ``"en"``: what was switched to, or else what the browser speaks."""
    chosen = request.values.get("lang")
    if chosen in ("en", "zh"):
        return chosen
    return request.accept_languages.best_match(("en", "zh")) or "en"


def page(
    request: Request, address: str, view: Overview, values: Mapping[str, str],
    found: Mapping[str, str | None], problem: str,
) -> Response:  # fmt: skip
    """The page.

    :param address: the sandbox's as this browser has it.
    :param values: what the form shows, by the names of :data:`FIELDS`.
    :param found: why the signature is refused; empty if nobody asked.
    :param problem: what is wrong with the values, if anything is.
    """
    is_chinese = language(request) == "zh"
    text = _template().render(
        view=view, values=values, found=found, problem=problem, is_chinese=is_chinese,
        say=lambda english, chinese: chinese if is_chinese else english,
        time=partial(_time, is_chinese=is_chinese), root=request.script_root,
        style=Markup(_file("page.css")),  # noqa: S704 - ours
        tag=f'<script src="{address}/sandbox/bridge.js"></script>',
        fields=FIELDS, faults=_FAULTS, actions=_ACTIONS,
        endpoints=[name for name, _ in ENDPOINTS.values()],
    )  # fmt: skip
    response = Response(text, 400 if problem else 200, content_type="text/html; charset=utf-8")
    response.headers.update(_headers())
    return response


def _time(seconds: int, *, is_chinese: bool) -> str:
    h, min_, s = ("小时", "分", "秒") if is_chinese else ("h", "min", "s")
    hours, minutes = divmod(seconds // 60, 60)
    if hours:
        return f"{hours} {h} {minutes:02} {min_}"
    return f"{minutes} {min_} {seconds % 60:02} {s}" if minutes else f"{seconds} {s}"


@lru_cache
def _headers() -> dict[str, str]:
    style = base64.b64encode(hashlib.sha256(_file("page.css").encode()).digest()).decode()
    return {
        "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{style}'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        "Cache-Control": "no-store",
        "Vary": "Accept-Language",
        "X-Content-Type-Options": "nosniff",
    }


@lru_cache
def _template() -> Template:
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        _file("page.html")
    )


@lru_cache
def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
