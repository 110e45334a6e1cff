"""The sandbox's own page, with the form that finds out why a signature is refused."""
# ruff: noqa: RUF001 - Chinese has a punctuation of its own

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from werkzeug import Response

from .cause import FIELDS

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>WeChat sandbox</title>
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<style>
body {{ max-width: 44rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 sans-serif }}
pre, output {{ display: block; padding: .75rem 1rem; overflow-wrap: anywhere; white-space: pre-wrap;
  background: rgb(128 128 128 / 15%) }}
label, input {{ display: block; width: 100%; box-sizing: border-box; font: inherit }}
label {{ margin: .5rem 0 }} td {{ padding-right: 2rem }} [role=alert] {{ color: #c00 }}
</style>
<h1>WeChat sandbox <span lang="zh-CN">微信沙箱</span></h1>
<p>This is not WeChat: it plays WeChat's API for development and tests.
<p>Accounts: {accounts}
<p>Calls so far:<table>{rows}</table>
<h2>A phone in the browser <span lang="zh-CN">浏览器里的手机</span></h2>
<p>This tag, before the one that loads jweixin, lets a page run in an ordinary browser as it does in
WeChat, or in WeCom with <code>?phone=wecom</code>.
<span lang="zh-CN">将它放在 jweixin 之前，页面即可在普通浏览器中像在微信里一样运行；
企业微信请加 <code>?phone=wecom</code>。</span>
<pre>{tag}</pre>
<h2 id="diagnose">Why “invalid signature”? <span lang="zh-CN">签名为什么无效？</span></h2>
{answer}
{form}
"""

_SHOWN = 50  # accounts: there may be thousands


def page(
    address: str, root: str, accounts: Sequence[str], calls: Mapping[str, int],
    values: Mapping[str, str], answer: str = "", *, status: int = 200,
) -> Response:  # fmt: skip
    """The page.

    :param address: the sandbox's as this browser has it.
    :param root: the path that it is mounted at, or nothing.
    :param calls: how many there were, by name.
    :param values: what the form shows, by the names of :data:`FIELDS`.
    :param answer: what was found, as HTML.
    """
    shown = ", ".join(accounts[:_SHOWN])
    if len(accounts) > _SHOWN:
        shown += f" and {len(accounts) - _SHOWN:,} more"
    rows = "".join(f"<tr><td>{name}<td>{count}" for name, count in sorted(calls.items()))
    text = _PAGE.format(
        accounts=html.escape(shown), rows=rows, answer=answer,
        tag=html.escape(f'<script src="{address}/sandbox/bridge.js"></script>'),
        form=_form(root, values),
    )  # fmt: skip
    response = Response(text, status, content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
    response.headers["Cache-Control"] = "no-store"
    return response


def cause_section(answer: Mapping[str, str | None]) -> str:
    """What was found, as HTML."""
    parts = {key: html.escape(text or "") for key, text in answer.items()}
    signed = f"<br><code>{parts['signed']}</code>" if parts["signed"] else ""
    return (
        f'<output data-cause="{parts["cause"]}"><b>{parts["cause"]}</b> {parts["appId"]}<br>'
        f'{parts["english"]}<br><span lang="zh-CN">{parts["chinese"]}</span>{signed}</output>'
    )


def alert(text: str) -> str:
    """What is wrong with the values, as HTML."""
    return f'<p role="alert">{html.escape(text)}'


def _form(root: str, values: Mapping[str, str]) -> str:
    rows = "".join(
        f'<label>{english} <span lang="zh-CN">{chinese}</span>'
        f'<input name="{name}" value="{html.escape(values[name])}" autocomplete="off"></label>'
        for name, (english, chinese) in FIELDS.items()
    )
    button = '<button>Find the cause <span lang="zh-CN">查找原因</span></button>'
    action = html.escape(f"{root}/sandbox/diagnose#diagnose")
    return f'<form method="post" action="{action}">{rows}{button}</form>'
