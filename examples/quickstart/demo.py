"""The show around the page: a WeChat inside this process, and a panel that watches the ticket.

An application needs none of this; the part to copy is ``app.py``.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Blueprint, Flask, abort, current_app, render_template, request

from flask_wxjsapi import JsApi, WxJsApi, WxJsApiError
from flask_wxjsapi.sandbox import Sandbox, embedded

ACCOUNT = {  # where the environment names none
    "WXJSAPI_APP_ID": "wxdemo0000000000",
    "WXJSAPI_APP_SECRET": "a-secret-that-only-the-sandbox-takes",
    "WXJSAPI_API_BASE_URL": "sandbox",
}
OTHERS = {  # that come at run time, as from a database
    "wxtea00000000000": {"APP_SECRET": "another-secret-for-the-sandbox"},
    "wxbooks000000000": {"APP_SECRET": "and-one-for-the-bookshop"},
}
SIGNED = ("appId", "nonceStr", "timestamp", "signature", "url")
CALLS = {"stable_token": "token", "token": "token", "getticket": "ticket"}
LATEST = 5  # calls shown

TROUBLES: dict[str, Callable[[Sandbox], None]] = {
    "down": lambda sandbox: sandbox.fail("502", times=3),
    "quota": lambda sandbox: sandbox.fail("45009", path="getticket"),
    "revoke": lambda sandbox: sandbox.revoke_token(),
}

panel = Blueprint("panel", __name__)


def init_app(app: Flask, wxjsapi: WxJsApi) -> None:
    """Add the panel; without an account in the environment, the sandbox plays WeChat."""
    if not app.config.get("WXJSAPI_APP_ID"):
        app.config.update(ACCOUNT)
    app.config.setdefault("WXJSAPI_URL_PREFIX", "/wxjsapi")  # so that pages heal themselves
    app.config.setdefault("CACHE_TYPE", "SimpleCache")  # enough for the demo's one process
    app.config["DEMO_SANDBOX"] = app.config.get("WXJSAPI_API_BASE_URL") == "sandbox"
    if app.config["DEMO_SANDBOX"]:
        ttl = read_ttl()
        embedded(token_lifetime=ttl, ticket_lifetime=ttl)  # the first call's lifetimes count
        wxjsapi.account_loader(OTHERS.get)
    app.register_blueprint(panel)


def read_ttl() -> float:
    """The life of the sandbox's tokens and tickets in seconds, from the environment."""
    text = os.environ.get("TTL", "7200")
    try:
        ttl = float(text)
    except ValueError:
        ttl = 0
    if 2 <= ttl <= 86400:
        return ttl
    raise RuntimeError(f"TTL must be a number of seconds from 2 to 86400, got {text!r}")


@panel.get("/at/<path:anything>")
def elsewhere(anything: str) -> str:
    """The same page at awkward addresses."""
    return render_template("page.html")


@panel.get("/as/<app_id>")
def as_another(app_id: str) -> str:
    """The same page, signed for another account."""
    wx_script = partial(current_app.jinja_env.globals["wx_script"], app_id=app_id)
    return render_template("page.html", wx_script=wx_script, account=app_id)


@panel.get("/state")
def state() -> tuple[dict[str, Any], dict[str, str]]:
    """What the panel shows, in seconds from now. No ticket, no token, no secret."""
    status, now = _account().status(), time.time()

    def until(moment: float | None) -> float | None:
        return None if moment is None else round(moment - now, 1)

    ticket = {
        "state": status.state,
        "age": None if status.issued_at is None else round(now - status.issued_at, 1),
        "refresh_in": until(status.refresh_at),
        "expires_in": until(status.expires_at),
        "refreshed_by": status.refreshed_by,
        "last_error": status.last_error,
        "retry_in": until(status.retry_at),
    }
    sandbox = _played(_sandbox(), now) if current_app.config["DEMO_SANDBOX"] else None
    return {"ticket": ticket, "sandbox": sandbox}, {"Cache-Control": "no-store"}


@panel.post("/verdict")
def verdict() -> dict[str, str]:
    """What the phone would say to a ``wx.config`` on a page with a given address."""
    sandbox, fields = _sandbox(), request.get_json()
    if not isinstance(fields, dict) or not all(
        isinstance(fields.get(key), (str, int)) for key in SIGNED
    ):
        abort(400, f"expected an object with {', '.join(SIGNED)}")
    return {"errMsg": sandbox.verify(**{key: str(fields[key]) for key in SIGNED})}


@panel.post("/trouble/<any(down, quota, revoke):name>")
@panel.post("/refresh", defaults={"name": None})
def trouble(name: str | None) -> dict[str, Any]:
    """Make WeChat misbehave, if a name is given, and renew the ticket there and then."""
    sandbox = _sandbox()
    if name is not None:
        sandbox.heal()  # one trouble at a time
        TROUBLES[name](sandbox)
    before = sandbox.calls.total()
    try:
        _account().refresh()
    except WxJsApiError:
        pass  # status() has it, with advice
    return {"asked": sandbox.calls.total() - before}


@panel.post("/break")
def break_ticket() -> dict[str, bool]:
    """Replace the ticket behind the application's back, as another service does that asks for one:
    what the pages are signed with is good for nothing from then on.
    """
    _sandbox().replace_ticket()
    return {"broken": True}


@panel.before_request
def refuse_other_sites() -> None:
    """A page of another origin must not press the buttons."""
    if request.method == "POST" and request.origin != request.host_url.rstrip("/"):
        abort(403)


@panel.app_context_processor
def words() -> dict[str, Any]:
    """One language, and the account whose page it is."""
    language = request.cookies.get("language")
    if language not in ("en", "zh"):
        language = request.accept_languages.best_match(("en", "zh")) or "en"

    def say(english: str, chinese: str) -> str:
        return chinese if language == "zh" else english

    accounts = [current_app.config["WXJSAPI_APP_ID"], *OTHERS]
    return {"say": say, "accounts": accounts, "account": None}


@panel.app_template_filter()
def signed_config(script: str) -> dict[str, Any] | None:
    """The config in what ``wx_script()`` made, to show just that; None if it had no ticket."""
    found = re.search(r"wx\.config\((\{.*?\})\);", script)
    return json.loads(found[1]) if found else None


def _account() -> JsApi:
    wxjsapi: WxJsApi = current_app.extensions["wxjsapi"]["default"]
    app_id = request.args.get("app_id")
    return wxjsapi.account(app_id) if app_id else wxjsapi


def _sandbox() -> Sandbox:
    if not current_app.config["DEMO_SANDBOX"]:
        abort(404)
    return embedded()


def _played(sandbox: Sandbox, now: float) -> dict[str, Any]:
    calls = {"token": 0, "ticket": 0}
    for name, count in list(sandbox.calls.items()):
        if name in CALLS:
            calls[CALLS[name]] += count
    latest = [
        {"age": round(now - call.time, 1), "name": call.name, "outcome": call.outcome}
        for call in sandbox.history[-LATEST:]
    ]
    return {"calls": calls, "latest": latest[::-1]}
