"""The central server: an app that serves its tickets, and an app that takes them from there."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request
from werkzeug import Response
from werkzeug.serving import make_server
from werkzeug.test import TestResponse

from flask_wxjsapi import Credential, TicketUnavailable, TransportError, WxJsApi
from flask_wxjsapi import _views as views_module
from flask_wxjsapi._credential import JSAPI_TICKET
from flask_wxjsapi._settings import Settings
from flask_wxjsapi._upstream import http as http_module
from flask_wxjsapi.sandbox import Sandbox

from .conftest import free_port, wait_until

pytestmark = pytest.mark.usefixtures("patient")

MakeApp = Callable[..., tuple[Flask, WxJsApi]]

TOKEN = "billing-billing-billing-billing"
OTHER = "search-search-search-search-sea"
TOKENS = {"billing": TOKEN, "search": OTHER}


@pytest.fixture
def central(make_app: MakeApp) -> tuple[Flask, WxJsApi]:
    return make_app(WXJSAPI_URL_PREFIX="/wxjsapi", WXJSAPI_CENTRAL_TOKENS=TOKENS)


@contextmanager
def served(app: Any, port: int = 0) -> Iterator[str]:
    server = make_server("127.0.0.1", port, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def client_app(url: str, app_id: str, **config: Any) -> tuple[Flask, WxJsApi]:
    app = Flask("tests")
    app.config.update(
        TESTING=True,
        WXJSAPI_APP_ID=app_id,
        WXJSAPI_CENTRAL_URL=f"{url}/wxjsapi",
        WXJSAPI_CENTRAL_TOKEN=TOKEN,
        WXJSAPI_URL_PREFIX="/wxjsapi",
    )
    app.config.update(config)
    return app, WxJsApi(app)


def fetch(app: Flask, query: str = "", token: str | bytes | None = TOKEN) -> TestResponse:
    headers = {} if token is None else {"Authorization": _bearer(token)}
    return app.test_client().get(f"/wxjsapi/ticket{query}", headers=headers)


def _bearer(token: str | bytes) -> str:
    # A header's bytes reach an application as Latin-1.
    return f"Bearer {token.decode('latin-1') if isinstance(token, bytes) else token}"


def ticket_of(app: Flask, wxjsapi: WxJsApi) -> str:
    with app.app_context():
        return wxjsapi.ticket


def held_of(app: Flask, wxjsapi: WxJsApi) -> Credential:
    """What the process holds."""
    held = wxjsapi._accounts_of(app).own.credentials.holding.snapshot().credential
    assert held is not None
    return held


# -- what is served --------------------------------------------------------------------------------


def test_the_answer(sandbox: Sandbox, central: tuple[Flask, WxJsApi]) -> None:
    """Account, kind, ticket and the seconds it has left, which nobody on the way may keep."""
    app, wxjsapi = central
    response = fetch(app)
    assert response.status_code == 200
    answer = response.json
    assert answer is not None
    assert 7100 <= answer.pop("expires_in") <= 7200
    value = ticket_of(app, wxjsapi)
    assert answer == {"app_id": sandbox.app_id, "kind": "jsapi_ticket", "value": value}
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert sandbox.calls == {"stable_token": 1, "getticket": 1}


def test_what_is_left_of_its_life(
    central: tuple[Flask, WxJsApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the life it came with."""
    app, wxjsapi = central
    ticket_of(app, wxjsapi)
    held = held_of(app, wxjsapi)
    monkeypatch.setattr(views_module.time, "time", lambda: held.expires_at - 1000.5)
    assert (fetch(app).json or {})["expires_in"] == 1000


def test_a_ticket_about_to_end_is_not_served(
    central: tuple[Flask, WxJsApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole second is the least that can be promised."""
    app, wxjsapi = central
    ticket_of(app, wxjsapi)
    held = held_of(app, wxjsapi)
    monkeypatch.setattr(views_module.time, "time", lambda: held.expires_at - 0.9)
    response = fetch(app)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")


def test_a_card_ticket_is_another_kind(central: tuple[Flask, WxJsApi]) -> None:
    app, wxjsapi = central
    answer = fetch(app, "?kind=wx_card_ticket").json or {}
    with app.app_context():
        assert answer["value"] == wxjsapi.card_ticket != wxjsapi.ticket
    assert answer["kind"] == "wx_card_ticket"


@pytest.mark.parametrize(
    "kind",
    ["access_token", "agent_config_ticket", "", "app_secret", "JSAPI_TICKET", "%00", "a" * 9000],
)
def test_nothing_else_is_served(
    sandbox: Sandbox, central: tuple[Flask, WxJsApi], kind: str
) -> None:
    """Least of all the access token, which the app does hold by then."""
    app, wxjsapi = central
    with app.app_context():
        token = wxjsapi.access_token
    response = fetch(app, f"?kind={kind}")
    assert response.status_code == 400
    assert set(response.json or {}) == {"error"}
    assert token not in response.text
    assert sandbox.app_secret not in response.text


def test_no_other_method(central: tuple[Flask, WxJsApi]) -> None:
    app, _ = central
    headers = {"Authorization": _bearer(TOKEN)}
    assert app.test_client().post("/wxjsapi/ticket", headers=headers).status_code == 405


def test_no_endpoint_without_tokens(make_app: MakeApp) -> None:
    """An app is no central server unless it says so."""
    app, _ = make_app(WXJSAPI_URL_PREFIX="/wxjsapi")
    assert fetch(app).status_code == 404


def test_no_page_of_another_host_may_read_it(make_app: MakeApp) -> None:
    """PAGE_HOSTS are for signatures: a browser has no business with the ticket."""
    app, _ = make_app(
        WXJSAPI_URL_PREFIX="/wxjsapi",
        WXJSAPI_CENTRAL_TOKENS=TOKENS,
        WXJSAPI_PAGE_HOSTS=["m.example"],
    )
    headers = {"Authorization": _bearer(TOKEN), "Origin": "https://m.example"}
    response = app.test_client().get("/wxjsapi/ticket", headers=headers)
    assert response.status_code == 200
    assert "Access-Control" not in str(response.headers)


def test_503_while_there_is_none(sandbox: Sandbox, central: tuple[Flask, WxJsApi]) -> None:
    """With the seconds after which it is worth while to ask again."""
    app, _ = central
    sandbox.fail("45009", times=None)
    response = fetch(app)
    assert response.status_code == 503
    assert 800 < int(response.headers["Retry-After"]) <= 900
    assert set(response.json or {}) == {"error"}


def test_a_client_hears_of_a_wechat_that_hangs(
    sandbox: Sandbox, central: tuple[Flask, WxJsApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the server, before it gives up on the server itself."""
    monkeypatch.setattr(views_module, "_PATIENCE", 0.2)
    sandbox.fail("hang", times=None)
    with served(central[0]) as url:
        app, wxjsapi = client_app(url, sandbox.app_id)
        with app.app_context(), pytest.raises(TransportError, match="HTTP 503"):
            wxjsapi.refresh()
    sandbox.heal()


def test_each_account_serves_its_own(sandbox: Sandbox) -> None:
    """Under its own prefix, to those who have one of its own tokens."""
    sandbox.add_account("wxshop", "shop-secret")
    app = Flask("tests")
    app.config.update(TESTING=True)
    for prefix, app_id, secret, token in (
        ("WXJSAPI_", sandbox.app_id, sandbox.app_secret, TOKEN),
        ("SHOP_WXJSAPI_", "wxshop", "shop-secret", OTHER),
    ):
        app.config.update(
            {
                f"{prefix}APP_ID": app_id,
                f"{prefix}APP_SECRET": secret,
                f"{prefix}API_BASE_URL": sandbox.url,
                f"{prefix}URL_PREFIX": "/shop" if app_id == "wxshop" else "/main",
                f"{prefix}CENTRAL_TOKENS": {"client": token},
            }
        )
    WxJsApi(app)
    WxJsApi(app, name="shop")

    def answer(path: str, token: str) -> Any:
        headers = {"Authorization": _bearer(token)}
        return app.test_client().get(path, headers=headers).json

    assert answer("/main/ticket", TOKEN)["app_id"] == sandbox.app_id
    assert answer("/shop/ticket", OTHER)["app_id"] == "wxshop"
    assert set(answer("/shop/ticket", TOKEN)) == set(answer("/main/ticket", OTHER)) == {"error"}


# -- who gets it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN[1:]}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN} {TOKEN}",
        f"Bearer {TOKEN.upper()}",
        f"Bearer {TOKEN}\xa0x",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer: {TOKEN}",
        "Bearer 中文中文中文中文中文中文".encode().decode("latin-1"),
        "Bearer \xff\xfe\x80",
        "Bearer " + "a" * 60_000,
        "Bearer " + "\xe4" * 60_000,
        "Bearer billing",
    ],
)
def test_everybody_else_gets_401(
    sandbox: Sandbox, central: tuple[Flask, WxJsApi], header: str | None
) -> None:
    """However the token is wrong; and it costs no call."""
    app, _ = central
    headers = {} if header is None else {"Authorization": header}
    response = app.test_client().get("/wxjsapi/ticket?kind=jsapi_ticket", headers=headers)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="wxjsapi"'
    assert response.headers["Cache-Control"] == "no-store"
    assert set(response.json or {}) == {"error"}
    assert sandbox.calls == {}


@pytest.mark.parametrize("header", [f"bearer {TOKEN}", f"BEARER {TOKEN}", f"Bearer   {OTHER} "])
def test_the_scheme_has_no_case(central: tuple[Flask, WxJsApi], header: str) -> None:
    """As RFC 9110 has it."""
    app, _ = central
    headers = {"Authorization": header}
    assert app.test_client().get("/wxjsapi/ticket", headers=headers).status_code == 200


def test_tokens_are_compared_in_constant_time(
    central: tuple[Flask, WxJsApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As bytes, and all of them, even where the first one fits."""
    compared: list[bytes] = []

    def compare(given: bytes, token: bytes) -> bool:
        compared.append(token)
        assert isinstance(given, bytes)
        return given == token

    monkeypatch.setattr(hmac, "compare_digest", compare)
    app, _ = central
    assert fetch(app).status_code == 200
    assert compared == [TOKEN.encode(), OTHER.encode()]


def test_the_log_has_a_line_a_minute(
    central: tuple[Flask, WxJsApi],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For each client, and for strangers; with no token and no ticket in it."""
    now = 1000.0
    monkeypatch.setattr(views_module.time, "monotonic", lambda: now)
    caplog.set_level(logging.INFO, "flask_wxjsapi._views")
    app, wxjsapi = central
    for _ in range(3):
        fetch(app)
        fetch(app, token=OTHER)
        fetch(app, token="wrong-wrong-wrong-wrong")
    assert [record.getMessage() for record in caplog.records] == [
        "billing fetched the jsapi_ticket.",
        "search fetched the jsapi_ticket.",
        "Somebody at 127.0.0.1 asked for a ticket without a bearer token of CENTRAL_TOKENS.",
    ]
    now += 61
    fetch(app)
    assert len(caplog.records) == 4
    for secret in (TOKEN, OTHER, "wrong-wrong", ticket_of(app, wxjsapi)):
        assert secret not in caplog.text


# -- an app that takes its ticket from there -------------------------------------------------------


def test_a_client_needs_no_secret(sandbox: Sandbox, central: tuple[Flask, WxJsApi]) -> None:
    """Same ticket, same pages, and no call of its own."""
    with served(central[0]) as url:
        app, wxjsapi = client_app(url, sandbox.app_id)
        assert ticket_of(app, wxjsapi) == ticket_of(*central)
        page = "http://localhost/?a=%20"
        with app.app_context():
            config = wxjsapi.config(["scanQRCode"], url=page)
        keys = ("appId", "nonceStr", "timestamp", "signature")
        judged = {key: config[key] for key in keys}  # type: ignore[literal-required]
        assert sandbox.verify(**judged, url=page) == "config:ok"
    assert sandbox.calls == {"stable_token": 1, "getticket": 1}


def test_a_client_goes_on_without_it(sandbox: Sandbox, central: tuple[Flask, WxJsApi]) -> None:
    """Once it has a ticket it can do without the server."""
    with served(central[0]) as url:
        app, wxjsapi = client_app(url, sandbox.app_id)
        value = ticket_of(app, wxjsapi)
    assert ticket_of(app, wxjsapi) == value


def test_the_processes_of_a_client_share_one_poll(
    sandbox: Sandbox, central: tuple[Flask, WxJsApi], tmp_path: Path
) -> None:
    """Through the client's own store, failures included."""
    asked: list[str] = []

    @central[0].before_request
    def count() -> None:
        asked.append(request.path)

    shared = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path)}
    with served(central[0]) as url:
        apps = [client_app(url, sandbox.app_id, **shared) for _ in range(3)]
        assert len({ticket_of(*one) for one in apps}) == 1
    assert asked == ["/wxjsapi/ticket"]


def test_a_failure_is_shared(sandbox: Sandbox, tmp_path: Path) -> None:
    """One process asks, the others fail fast until the back-off ends."""
    asked: list[str] = []

    def unavailable(environ: Any, start_response: Any) -> Any:
        asked.append(environ["PATH_INFO"])
        return Response('{"error": "none"}', 503)(environ, start_response)

    shared = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path)}
    with served(unavailable) as url:
        for _ in range(3):
            app, wxjsapi = client_app(url, sandbox.app_id, **shared)
            with pytest.raises(TicketUnavailable):
                ticket_of(app, wxjsapi)
    assert asked == ["/wxjsapi/ticket"]


def test_the_access_token_stays_there(sandbox: Sandbox, central: tuple[Flask, WxJsApi]) -> None:
    """A client that wants it is told so, and asks nobody."""
    with served(central[0]) as url:
        app, wxjsapi = client_app(url, sandbox.app_id)
        with app.app_context(), pytest.raises(RuntimeError, match="WXJSAPI_CENTRAL_URL"):
            _ = wxjsapi.access_token
    assert sandbox.calls == {}


def test_a_chain(sandbox: Sandbox, central: tuple[Flask, WxJsApi]) -> None:
    """A client may serve clients of its own."""
    with served(central[0]) as url:
        relay, _ = client_app(url, sandbox.app_id, WXJSAPI_CENTRAL_TOKENS={"end": TOKEN})
        with served(relay) as relay_url:
            assert ticket_of(*client_app(relay_url, sandbox.app_id)) == ticket_of(*central)
    assert sandbox.calls == {"stable_token": 1, "getticket": 1}


def _answering(status: int, body: str) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        return Response(body, status)(environ, start_response)

    return app


_GOOD = {"app_id": "wx1", "kind": JSAPI_TICKET, "value": "t" * 40, "expires_in": 100}


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (401, '{"error": "no"}', "CENTRAL_TOKEN"),
        (404, "<h1>Not Found</h1>", "URL_PREFIX"),
        (400, '{"error": "kind is one of jsapi_ticket."}', "PLATFORM"),
        (503, '{"error": "There is no WeChat ticket at the moment."}', "no WeChat ticket"),
        (502, "<html>", "HTTP 502"),
        (302, "", "without a redirect."),
        (200, "<html>", "not with the jsapi_ticket"),
        (200, "[]", "not with the jsapi_ticket"),
        (200, json.dumps(_GOOD | {"app_id": "wx2"}), "APP_ID"),
        (200, json.dumps(_GOOD | {"kind": "wx_card_ticket"}), "not with the jsapi_ticket"),
        (200, json.dumps(_GOOD | {"expires_in": None}), "expires_in"),
        (200, json.dumps(_GOOD | {"expires_in": -1}), "expires_in"),
        (200, json.dumps(_GOOD | {"value": None}), "value"),
        (200, json.dumps(_GOOD | {"value": "two words"}), "value"),
        (401, '{"error": "' + TOKEN + ' is wrong"}', "CENTRAL_TOKEN"),
        (418, '{"error": "' + TOKEN + '\\n\\u001b[2J"}', "HTTP 418"),
    ],
)
def test_what_goes_wrong_is_said(status: int, body: str, told: str) -> None:
    """Whatever answers at the address, in one line with what to do and no token."""
    with served(_answering(status, body)) as url:
        app, wxjsapi = client_app(url, "wx1")
        with app.app_context(), pytest.raises(TransportError) as caught:
            wxjsapi.refresh()
        assert told in str(caught.value)
        assert TOKEN not in str(caught.value)
        assert str(caught.value).isprintable()


def test_nobody_answers() -> None:
    app, wxjsapi = client_app(f"http://127.0.0.1:{free_port()}", "wx1")
    with app.app_context(), pytest.raises(TransportError) as caught:
        wxjsapi.refresh()
    assert re.fullmatch(
        r"The central server 127\.0\.0\.1:\d+ was not reached: Connection refused\. "
        r"Does it run, and is CENTRAL_URL right\?",
        str(caught.value),
    )


def test_refresh_of_a_client_says_what_it_did(
    sandbox: Sandbox, central: tuple[Flask, WxJsApi], tmp_path: Path
) -> None:
    """The ticket is the server's, and WeChat is asked there."""
    with served(central[0]) as url:
        files = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path)}
        app, _ = client_app(url, sandbox.app_id, **files)
        result = app.test_cli_runner().invoke(args=["wxjsapi", "refresh"])
    assert result.exit_code == 0
    assert "It came from the central server; run refresh there" in result.output


# -- a ticket that a page's phone refused ----------------------------------------------------------


def complain(app: Flask) -> TestResponse:
    """As client.js asks after ``config:invalid signature``."""
    client, page = app.test_client(), {"url": "http://localhost/"}
    signed = client.get("/wxjsapi/config", query_string=page).json or {}
    complaint = {key: signed[key] for key in ("nonceStr", "timestamp", "signature")}
    return client.get("/wxjsapi/config", query_string={**page, **complaint, "rejected": "1"})


def test_a_rejected_ticket_is_passed_on(
    sandbox: Sandbox, central: tuple[Flask, WxJsApi], caplog: pytest.LogCaptureFixture
) -> None:
    """The server asks WeChat, once in ten minutes whichever client says so; its log has whose page
    it was.
    """
    queries: list[bytes] = []

    @central[0].before_request
    def note() -> None:
        queries.append(request.query_string)

    with served(central[0]) as url:
        first, search = (client_app(url, sandbox.app_id) for _ in range(2))
        value = ticket_of(*first)
        assert ticket_of(*search) == value
        assert complain(first[0]).status_code == complain(search[0]).status_code == 200
        assert sandbox.calls["getticket"] == 2
    wait_until(lambda: "a page of billing" in caplog.text, what="the server's log has it")
    digest = hashlib.sha256(value.encode()).hexdigest()[:16].encode()
    assert sum(b"rejected=" + digest in query for query in queries) == 2
    assert not [query for query in queries if value.encode() in query]


def test_a_client_that_was_behind_gets_the_newer_one(
    sandbox: Sandbox, central: tuple[Flask, WxJsApi]
) -> None:
    """The server has another ticket by now: no call is needed to say so."""
    with served(central[0]) as url:
        app, wxjsapi = client_app(url, sandbox.app_id)
        value = ticket_of(app, wxjsapi)
        held = held_of(*central)
        newer = dataclasses.replace(held, value="newer", generation=held.generation + 1)
        snapshot = central[1]._accounts_of(central[0]).own.credentials.holding.snapshot()
        snapshot.hold(newer, time.monotonic(), is_own=True)
        calls = dict(sandbox.calls)
        assert complain(app).status_code == 200
        assert ticket_of(app, wxjsapi) == "newer" != value
        assert sandbox.calls == calls


@pytest.mark.parametrize("rejected", ["", "1", "a" * 16, "%00", "中"])
def test_a_wrong_fingerprint_costs_nothing(
    sandbox: Sandbox, central: tuple[Flask, WxJsApi], rejected: str
) -> None:
    app, _ = central
    fetch(app)
    calls = dict(sandbox.calls)
    assert fetch(app, f"?rejected={rejected}").status_code == 200
    assert sandbox.calls == calls


# -- settings --------------------------------------------------------------------------------------

CLIENT = {
    "WXJSAPI_APP_ID": "wx1",
    "WXJSAPI_CENTRAL_URL": "https://tickets.example/wxjsapi",
    "WXJSAPI_CENTRAL_TOKEN": TOKEN,
}
SERVER = {"WXJSAPI_APP_ID": "wx1", "WXJSAPI_APP_SECRET": "secret", "WXJSAPI_URL_PREFIX": "/wxjsapi"}


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (CLIENT | {"WXJSAPI_CENTRAL_TOKEN": None}, "WXJSAPI_CENTRAL_TOKEN is not set"),
        (CLIENT | {"WXJSAPI_CENTRAL_URL": None}, "WXJSAPI_CENTRAL_URL is not set"),
        (CLIENT | {"WXJSAPI_CENTRAL_TOKEN": 123456}, "WXJSAPI_CENTRAL_TOKEN must be a string"),
        (CLIENT | {"WXJSAPI_APP_SECRET": "s3cret"}, "WXJSAPI_APP_SECRET and WXJSAPI_CENTRAL_URL"),
        (CLIENT | {"WXJSAPI_API_BASE_URL": "sandbox"}, "WXJSAPI_API_BASE_URL and"),
        (CLIENT | {"WXJSAPI_ACCESS_TOKEN_PROVIDER": len}, "WXJSAPI_ACCESS_TOKEN_PROVIDER and"),
        (CLIENT | {"WXJSAPI_CENTRAL_URL": "tickets.example"}, "WXJSAPI_CENTRAL_URL must be"),
        (CLIENT | {"WXJSAPI_CENTRAL_URL": "ftp://a/b"}, "WXJSAPI_CENTRAL_URL must be"),
        (CLIENT | {"WXJSAPI_CENTRAL_URL": "https://a/?b"}, "WXJSAPI_CENTRAL_URL must be"),
        (CLIENT | {"WXJSAPI_CENTRAL_URL": "https://a/#b"}, "WXJSAPI_CENTRAL_URL must be"),
        (CLIENT | {"WXJSAPI_CENTRAL_URL": "https://me:pw@a/"}, "WXJSAPI_CENTRAL_URL must be"),
        (CLIENT | {"WXJSAPI_CENTRAL_URL": "https://["}, "WXJSAPI_CENTRAL_URL must be"),
        (CLIENT | {"WXJSAPI_CENTRAL_URL": "https://a/b?"}, "WXJSAPI_CENTRAL_URL must be"),
        (CLIENT | {"WXJSAPI_CENTRAL_URL": "https://a/b?s3cret"}, "WXJSAPI_CENTRAL_URL must be"),
        (CLIENT | {"WXJSAPI_CENTRAL_URL": "https://a:99999/b"}, "WXJSAPI_CENTRAL_URL must be"),
        (CLIENT | {"WXJSAPI_CENTRAL_URL": "https://a/\tb"}, "WXJSAPI_CENTRAL_URL must be"),
        (CLIENT | {"WXJSAPI_CENTRAL_URL": 5}, "WXJSAPI_CENTRAL_URL must be"),
        (SERVER | {"WXJSAPI_CENTRAL_TOKENS": [TOKEN]}, "WXJSAPI_CENTRAL_TOKENS must be a dict"),
        (
            SERVER | {"WXJSAPI_CENTRAL_TOKENS": {"a": 12}},
            "for 'a': it must be a string",
        ),
        (
            SERVER | {"WXJSAPI_CENTRAL_TOKENS": {"a": None}},
            "for 'a': it must be a string",
        ),
        (SERVER | {"WXJSAPI_CENTRAL_TOKENS": {"a": "s3cret"}}, "for 'a' that is too short"),
        (
            SERVER | {"WXJSAPI_CENTRAL_TOKENS": {"a": f"{TOKEN} "}},
            "for 'a': it must have no spaces",
        ),
        (
            SERVER | {"WXJSAPI_CENTRAL_TOKENS": {"a": f"{TOKEN}中"}},
            "for 'a': it must have no spaces",
        ),
        (SERVER | {"WXJSAPI_CENTRAL_TOKENS": {"a": TOKEN, "b": TOKEN}}, "another token for each"),
        (
            SERVER | {"WXJSAPI_CENTRAL_TOKENS": TOKENS, "WXJSAPI_URL_PREFIX": None},
            "WXJSAPI_CENTRAL_TOKENS needs WXJSAPI_URL_PREFIX",
        ),
    ],
)
def test_settings_that_do_not_go_together(config: dict[str, Any], told: str) -> None:
    """Each is an error that quotes the key, and no token or secret."""
    with pytest.raises(RuntimeError) as caught:
        Settings.load(config)
    assert told in str(caught.value)
    for secret in (TOKEN, "s3cret", "pw@"):
        assert secret not in str(caught.value)


def test_no_token_in_a_repr() -> None:
    assert TOKEN not in repr(Settings.load(CLIENT))
    assert TOKEN not in repr(Settings.load(SERVER | {"WXJSAPI_CENTRAL_TOKENS": TOKENS}))


def test_tokens_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A JSON object, or a key each."""
    app = Flask("tests")
    monkeypatch.setenv("FLASK_WXJSAPI_CENTRAL_TOKENS", json.dumps({"billing": TOKEN}))
    monkeypatch.setenv("FLASK_WXJSAPI_CENTRAL_TOKENS__search", OTHER)
    app.config.from_prefixed_env()
    assert Settings.load({**SERVER, **app.config}).central_tokens == TOKENS


def test_a_new_token_is_not_held_up_by_the_old_ones_back_off() -> None:
    """Their digests differ, as those of two servers do."""
    changes = ({}, {"WXJSAPI_CENTRAL_TOKEN": OTHER}, {"WXJSAPI_CENTRAL_URL": "https://b/wxjsapi"})
    assert len({Settings.load(CLIENT | change).digest for change in changes}) == 3


# -- doctor ----------------------------------------------------------------------------------------


def test_doctor_of_a_client(
    sandbox: Sandbox,
    central: tuple[Flask, WxJsApi],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    """The server is looked at, and takes it for nobody else; WeChat is left alone."""
    with served(central[0]) as url:
        files = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path)}
        app, _ = client_app(url, sandbox.app_id, **files)
        result = app.test_cli_runner().invoke(args=["wxjsapi", "doctor"])
    assert result.exit_code == 0, result.output
    assert "The central server knows this app and has a ticket." in result.output
    assert "The ticket is fresh" in result.output
    assert "access token" not in result.output
    assert "Somebody" not in caplog.text
    assert sandbox.calls == {"stable_token": 1, "getticket": 1}


def test_doctor_of_a_client_that_is_not_known(
    sandbox: Sandbox, central: tuple[Flask, WxJsApi]
) -> None:
    """The error says which key to look at; the exit status is 2."""
    with served(central[0]) as url:
        app, _ = client_app(url, sandbox.app_id, WXJSAPI_CENTRAL_TOKEN="not-of-this-server")
        result = app.test_cli_runner().invoke(args=["wxjsapi", "doctor"])
    assert result.exit_code == 2
    assert "CENTRAL_TOKEN" in result.output
    assert "not-of-this-server" not in result.output


@pytest.mark.parametrize(
    ("url", "is_said"),
    [("http://tickets.invalid", True), ("https://tickets.invalid", False)],
)
def test_doctor_warns_of_plain_http(
    url: str, is_said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token and ticket travel in it."""

    def fail(*_: Any, **__: Any) -> Any:
        raise TransportError("tickets.invalid was not reached.")

    monkeypatch.setattr(http_module, "exchange", fail)
    app, _ = client_app(url, "wx1")
    result = app.test_cli_runner().invoke(args=["wxjsapi", "doctor"])
    assert ("WXJSAPI_CENTRAL_URL is plain http" in " ".join(result.output.split())) == is_said
