"""What is checked of a page before a ticket is read."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import pytest
from flask import Flask, render_template_string
from jinja2 import Undefined

from flask_wxjsapi import WxJsApi
from flask_wxjsapi._page.config import listed, whole_url

MakeApp = Callable[..., tuple[Flask, WxJsApi]]

HALF = "https://m.example.com/\ud83d"


def _frames(error: BaseException) -> str:
    """The variables of all frames of our package that an error has come through."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = [f for f in frames if str(f.f_globals.get("__name__")).startswith("flask_wxjsapi")]
    return repr([frame.f_locals for frame in ours])


def test_names_are_taken_as_a_list() -> None:
    """Any iterable of strings will do."""
    assert listed(("a", "b")) == ["a", "b"]


@pytest.mark.parametrize("names", ["chooseImage", [1], [None], [Undefined(name="missing")]])
def test_what_is_no_list_of_names_is_refused(names: object) -> None:
    """A string, or something in the list that is none."""
    with pytest.raises(RuntimeError, match="Expected a list of names"):
        listed(names)  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["https://例子.example/中?q=😀", "http://a/#x"])
def test_a_whole_url_goes_in_as_it_is(url: str) -> None:
    """But for its hash."""
    assert whole_url(url) == url.partition("#")[0]


def test_half_of_a_surrogate_pair_is_refused_unquoted(make_app: MakeApp) -> None:
    """It cannot be encoded: an error of the signature would quote the ticket."""
    app, wxjsapi = make_app()
    with app.app_context():
        ticket = wxjsapi.ticket
        with pytest.raises(RuntimeError, match="no URL has") as caught:
            wxjsapi.config(url=HALF)
    assert "\ud83d" not in str(caught.value)
    assert ticket not in _frames(caught.value)


def test_a_variable_that_a_template_does_not_have_is_refused(make_app: MakeApp) -> None:
    """Before a ticket is read: what the frames hold may be sent to an error tracker."""
    app, wxjsapi = make_app()
    with app.test_request_context("/"):
        ticket = wxjsapi.ticket
        with pytest.raises(RuntimeError, match="got Undefined") as caught:
            render_template_string("{{ wx_script([missing]) }}")
    assert ticket not in _frames(caught.value)
