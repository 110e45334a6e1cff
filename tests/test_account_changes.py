"""What ``refresh()`` makes of an account that its loader describes otherwise by now."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from flask import Flask

from flask_wxjsapi import UnknownAccount, WeChatAPIError, WxJsApi, WxJsApiError
from flask_wxjsapi._engine.runtime import Engine
from flask_wxjsapi.sandbox import Sandbox

from .conftest import FakeClock

Table = dict[str, str]


@pytest.fixture
def table() -> Table:
    """The secrets that the loader knows, by AppID."""
    return {"wx-tea": "right"}


@pytest.fixture
def wxjsapi(sandbox: Sandbox, table: Table) -> Iterator[WxJsApi]:
    """In a moment that lasts: ten seconds after the last one refresh() asks WeChat again."""
    sandbox.add_account("wx-tea", "right")
    app, wxjsapi = Flask("tests"), WxJsApi()
    app.extensions["wxjsapi.engine"] = Engine(app, clock=FakeClock(time.time()))
    app.config.update(TESTING=True, WXJSAPI_API_BASE_URL=sandbox.url)

    @wxjsapi.account_loader
    def load(app_id: str) -> dict[str, str] | None:
        secret = table.get(app_id)
        if secret == "away":
            raise OSError("the database is away")
        return None if secret is None else {"APP_SECRET": secret}

    wxjsapi.init_app(app)
    with app.app_context():
        yield wxjsapi


def test_a_corrected_secret_counts_at_once(wxjsapi: WxJsApi, table: Table) -> None:
    """The limit of refresh() is for somebody who clicks twice, and not for who changes something
    in between.
    """
    account = wxjsapi.account("wx-tea")
    table["wx-tea"] = "wrong"
    with pytest.raises(WeChatAPIError, match="40125"):
        account.refresh()
    table["wx-tea"] = "right"
    assert account.refresh() == account.ticket
    assert account.status().last_error is None


def test_a_secret_that_became_wrong_is_found_at_once(wxjsapi: WxJsApi, table: Table) -> None:
    """A ticket that is still good is handed out all the same."""
    account = wxjsapi.account("wx-tea")
    ticket = account.refresh()
    table["wx-tea"] = "wrong"
    account.refresh()  # its access token is good as well
    assert account.ticket == ticket


def test_a_removed_account_ends_at_once(wxjsapi: WxJsApi, table: Table) -> None:
    """However short a time ago it was refreshed."""
    account = wxjsapi.account("wx-tea")
    account.refresh()
    del table["wx-tea"]
    with pytest.raises(UnknownAccount):
        account.refresh()
    with pytest.raises(UnknownAccount):
        account.ticket  # noqa: B018 - raises


def test_an_account_that_was_not_there_before(wxjsapi: WxJsApi, table: Table) -> None:
    """That it was unknown a moment ago is forgotten."""
    del table["wx-tea"]
    account = wxjsapi.account("wx-tea")
    with pytest.raises(UnknownAccount):
        account.ticket  # noqa: B018 - raises
    table["wx-tea"] = "right"
    assert account.refresh() == account.ticket


def test_an_account_that_is_added_again(wxjsapi: WxJsApi, table: Table) -> None:
    """Somebody removed the wrong one."""
    account = wxjsapi.account("wx-tea")
    account.refresh()
    secret = table.pop("wx-tea")
    with pytest.raises(UnknownAccount):
        account.refresh()
    table["wx-tea"] = secret
    assert account.refresh() == account.ticket


def test_twice_is_once_where_nothing_changed(
    wxjsapi: WxJsApi, table: Table, sandbox: Sandbox
) -> None:
    """The loader is asked, and WeChat is not."""
    account = wxjsapi.account("wx-tea")
    assert account.refresh() == account.refresh()
    assert sandbox.calls["getticket"] == 1
    table["wx-tea"] = "wrong"
    with pytest.raises(WxJsApiError):
        wxjsapi.account("wx-none").refresh()
    assert sandbox.calls["stable_token"] == 1


def test_a_loader_that_fails(wxjsapi: WxJsApi, table: Table) -> None:
    """The ticket is handed out to its end."""
    account = wxjsapi.account("wx-tea")
    ticket = account.refresh()
    table["wx-tea"] = "away"
    with pytest.raises(WxJsApiError, match="account_loader failed"):
        account.refresh()
    assert account.ticket == ticket
    table["wx-tea"] = "right"
    assert account.refresh() == account.ticket
