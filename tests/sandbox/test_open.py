"""A response that the sandbox opens as a phone would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, render_template_string
from werkzeug import Response

from flask_wxjsapi.sandbox import Sandbox

URL = "http://localhost/?x=a%2Fb"
SHARE = {"title": "</script>wx.config({", "desc": "1 < 2", "imgUrl": "/i.png"}
PAGE = "<!doctype html><title>x</title>{{ wx_script(['scanQRCode'], share=share) }}"


@pytest.fixture
def app(make_app: Callable[..., Any]) -> Flask:
    """Pages with a script, with and without a card, and one that answers with JSON."""
    app, wxjsapi = make_app(WXJSAPI_URL_PREFIX="/wxjsapi")
    app.add_url_rule("/", "page", lambda: render_template_string(PAGE, share=SHARE))
    app.add_url_rule("/plain", "plain", lambda: render_template_string(PAGE, share=None))
    app.add_url_rule("/json", "json", lambda: dict(wxjsapi.config(url=URL)))
    own = "<script>wx.config({{ wx_config()|tojson }});</script>"
    app.add_url_rule("/own", "own", lambda: render_template_string(own))
    return app  # type: ignore[no-any-return]  # of make_app


def test_a_page_is_accepted_with_its_card(app: Flask, sandbox: Sandbox) -> None:
    """Verdict, config and both cards, whatever markup and code a title has in it."""
    opened = sandbox.open(app.test_client().get("/?x=a%2Fb"), URL)
    assert opened.errmsg == "config:ok"
    assert opened.config["jsApiList"][0] == "scanQRCode"
    assert opened.card
    picture = {"link": URL, "imgUrl": "http://localhost/i.png", "title": SHARE["title"]}
    assert opened.card.friend == {**picture, "desc": SHARE["desc"]}
    assert opened.card.moments == picture


def test_another_address_has_no_card(app: Flask, sandbox: Sandbox) -> None:
    """WeChat refuses the calls of a page that it refuses, so a share would be a plain link."""
    opened = sandbox.open(app.test_client().get("/"), "http://localhost/elsewhere")
    assert opened.errmsg == "config:invalid signature"
    assert opened.card is None


def test_a_hash_is_not_signed(app: Flask, sandbox: Sandbox) -> None:
    """As on the phone."""
    assert sandbox.open(app.test_client().get("/?x=a%2Fb"), f"{URL}#top").errmsg == "config:ok"


@pytest.mark.parametrize(
    ("path", "url"),
    [("/plain", "http://localhost/plain"), ("/own", "http://localhost/own"), ("/json", URL)],
)
def test_without_a_card(app: Flask, sandbox: Sandbox, path: str, url: str) -> None:
    """A page without a share, one with its own script, and the JSON of config()."""
    opened = sandbox.open(app.test_client().get(path), url)
    assert (opened.errmsg, opened.card) == ("config:ok", None)


def test_with_the_script_in_the_page(make_app: Callable[..., Any], sandbox: Sandbox) -> None:
    """Without endpoints client.js stands in the page, and its own text is not mistaken."""
    app, _ = make_app()
    app.add_url_rule("/", "page", lambda: render_template_string(PAGE, share=SHARE))
    opened = sandbox.open(app.test_client().get("/"), "http://localhost/")
    assert opened.errmsg == "config:ok"
    assert opened.card
    assert opened.card.friend["desc"] == SHARE["desc"]


def test_a_page_that_does_not_configure(app: Flask, sandbox: Sandbox) -> None:
    """During an outage wx_script() leaves the call out."""
    sandbox.fail("45009", times=None)
    opened = sandbox.open(app.test_client().get("/"), "http://localhost/")
    assert (opened.errmsg, opened.config, opened.card) == (None, {}, None)


def test_what_is_no_config(sandbox: Sandbox) -> None:
    """Neither another page's JSON nor a call with a variable is taken for one."""
    for text, mimetype in (("[]", "application/json"), ("wx.config({ a })", "text/html")):
        assert sandbox.open(Response(text, mimetype=mimetype), URL).errmsg is None
    with pytest.raises(ValueError, match="without nonceStr, timestamp, signature"):
        sandbox.open(Response('{"appId": "wx1"}', mimetype="application/json"), URL)
