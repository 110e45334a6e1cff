"""A platform: accounts in a table, which come and go while the app runs.

From the top of the repository::

    python examples/platform           # PORT=5000 is the default

That needs no account: in debug mode a sandbox plays WeChat. It knows wx0000000000000001 to
wx0000000000000005, each with the secret ``open-sesame``; two of them are in the table when you
start. Add a third one with another secret, and see what WeChat says to that.

Without debug mode it is WeChat itself, and several workers share the tickets::

    export FLASK_CACHE_TYPE=RedisCache FLASK_CACHE_REDIS_URL=redis://localhost
    gunicorn --chdir examples/platform --workers 4 "app:create_app()"

The table is in ``instance/``; ``FLASK_DATABASE`` names another file. Whoever sees the first page
can change it: put that behind your login.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import accounts
from accounts import Account
from flask import Flask, Response, abort, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from flask_wxjsapi import Status, UnknownAccount, WxJsApi, WxJsApiError
from flask_wxjsapi.sandbox import embedded

SECRET = "open-sesame"
KNOWN = [f"wx{number:016}" for number in range(1, 6)]

wxjsapi = WxJsApi()


@wxjsapi.account_loader
def load_account(app_id: str) -> Mapping[str, Any] | None:
    """All that the extension has to know of an account. It asks again before each renewal."""
    account = accounts.find(app_id)
    if account is None:
        return None
    return {"APP_SECRET": account.secret, "PAGE_HOSTS": account.hosts.split()}


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    app = Flask(__name__)
    app.config.update(
        DATABASE=str(Path(app.instance_path) / "accounts.sqlite3"),
        WXJSAPI_URL_PREFIX="/wxjsapi",
        WXJSAPI_JS_API_LIST=["scanQRCode"],
    )
    app.config.from_prefixed_env()
    app.config.update(config or {})
    if app.debug or app.testing:
        app.config.setdefault("WXJSAPI_API_BASE_URL", "sandbox")
    with app.app_context():
        is_new = accounts.create_table(Path(app.config["DATABASE"]))
        if app.config.get("WXJSAPI_API_BASE_URL") == "sandbox":
            play_wechat(is_new)
    wxjsapi.init_app(app)

    # -- the pages of the accounts

    @app.get("/<app_id>/")
    def page(app_id: str) -> str:
        return render_template("page.html", account=existing(app_id))

    @app.get("/switch/")
    def switch() -> Response:
        return app.send_static_file("switch.html")

    @app.get("/accounts")
    def list_accounts() -> list[dict[str, str]]:
        return [{"appId": each.app_id, "name": each.name} for each in accounts.everything()]

    # -- who looks after the table

    @app.get("/")
    def overview() -> ResponseReturnValue:
        return show_overview()

    @app.post("/accounts")
    def add() -> ResponseReturnValue:
        account = sent(request.form.get("app_id", "").strip())
        problem = account.problem
        if accounts.find(account.app_id):
            problem = f"{account.app_id} is in the table already: change it there."
        return show_overview(problem, new=account) if problem else keep(account)

    @app.post("/accounts/<app_id>")
    def change(app_id: str) -> ResponseReturnValue:
        account = sent(app_id, existing(app_id).secret)
        problem = account.problem
        return show_overview(problem, changed=account) if problem else keep(account)

    @app.post("/accounts/<app_id>/refresh")
    def refresh(app_id: str) -> ResponseReturnValue:
        return heard_of(existing(app_id).app_id)

    @app.post("/accounts/<app_id>/remove")
    def remove(app_id: str) -> ResponseReturnValue:
        accounts.remove(app_id)
        return heard_of(app_id)

    @app.before_request
    def refuse_other_sites() -> None:
        """A page of somebody else's must not press the buttons."""
        if request.method == "POST" and request.origin != request.host_url.rstrip("/"):
            abort(403, "This form was not sent from a page of this app.")

    return app


def show_overview(problem: str = "", **drafts: Account) -> ResponseReturnValue:
    """Each account with its state; and what is wrong with a new or a changed one, to be mended."""
    states = [(account, state_of(account)) for account in accounts.everything()]
    text = render_template(
        "overview.html", states=states, now=time.time(), problem=problem, **drafts
    )
    return text, 400 if problem else 200


def state_of(account: Account) -> Status:
    """What is known of an account's ticket; no account stands in the way of the others."""
    try:
        return wxjsapi.account(account.app_id).status()
    except WxJsApiError as error:
        return Status("invalid", last_error=str(error.__cause__ or error))


def existing(app_id: str) -> Account:
    """The account, or 404."""
    account = accounts.find(app_id)
    if account is None:
        raise UnknownAccount(app_id)
    return account


def sent(app_id: str, secret: str = "") -> Account:
    """The account in a form. A page never gets a secret, so an empty one stays what it is."""
    name, hosts, entered = (
        request.form.get(key, "").strip() for key in ("name", "hosts", "secret")
    )
    return Account(app_id, name, hosts.lower(), entered or secret)


def keep(account: Account) -> ResponseReturnValue:
    accounts.save(account)
    return heard_of(account.app_id)


def heard_of(app_id: str) -> ResponseReturnValue:
    """Back to the overview; the extension has heard of a change, before the next renewal is due."""
    with suppress(WxJsApiError):  # status() has what went wrong, with advice
        wxjsapi.account(app_id).refresh()
    return redirect(url_for("overview", _anchor=app_id), 303)


def play_wechat(is_new: bool) -> None:
    """Give the sandbox its accounts, and a new table two of them."""
    for app_id in KNOWN:
        embedded().add_account(app_id, SECRET)
    if is_new:
        for app_id, name in zip(KNOWN, ("Tea house", "Book shop"), strict=False):
            accounts.save(Account(app_id, name, "", SECRET))
