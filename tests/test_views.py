"""The endpoints: what they sign, what they refuse, and for whose pages."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from flask import Flask, Response, jsonify, render_template_string
from flask_caching import Cache
from werkzeug.test import TestResponse

from flask_wxjsapi import WxJsApi
from flask_wxjsapi.sandbox import Sandbox, embedded

from .conftest import nothing_goes_on

pytestmark = pytest.mark.usefixtures("patient", "seldom")

MakeApp = Callable[..., tuple[Flask, WxJsApi]]
OWN = "http://localhost"


def get(app: Flask, path: str, **headers: str) -> TestResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return app.test_client().get(path, headers=named)


def ask(app: Flask, url: str, extra: str = "", **headers: str) -> TestResponse:
    """As client.js asks."""
    return get(app, f"/wxjsapi/config?url={quote(url, safe='')}{extra}", **headers)


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    app, _ = make_app(WXJSAPI_URL_PREFIX="/wxjsapi")
    return app


def is_accepted(sandbox: Sandbox, response: TestResponse, url: str) -> bool:
    config = response.json
    assert config is not None
    keys = ("appId", "nonceStr", "timestamp", "signature")
    return sandbox.verify(**{key: config[key] for key in keys}, url=url) == "config:ok"


# -- what is signed --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost",
        "http://localhost/",
        "https://localhost/",
        "http://LOCALHOST/",
        "http://localhost:80/",
        "http://localhost/?",
        "http://localhost/?a=1?b=2",
        "http://localhost/%E4%B8%AD%2F?q=%20+&r=%25",
        "http://localhost/a'()!*|{}[]^`?a=|[]{}^`\\",
        "http://localhost/中?q=文",
        "http://localhost/?from=timeline&isappinstalled=0",
        "http://localhost/?to=https://evil.test/@x",
        "http://localhost/" + "a" * 4000,
    ],
)
def test_a_page_of_the_own_host_is_signed(app: Flask, sandbox: Sandbox, url: str) -> None:
    """Byte for byte as the browser says it has it."""
    response = ask(app, url)
    assert response.status_code == 200, response.text
    assert is_accepted(sandbox, response, url)


def test_the_answer_is_the_config(app: Flask) -> None:
    """JSON of WxConfig, which nobody may keep."""
    response = ask(app, "http://localhost/")
    assert set(response.json or {}) == {
        "debug", "appId", "timestamp", "nonceStr", "signature", "jsApiList", "openTagList",
    }  # fmt: skip
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.content_type == "application/json"


def test_a_hash_is_not_signed(app: Flask, sandbox: Sandbox) -> None:
    """Whatever stands in it: a router's path, or a URL of somebody else's."""
    response = ask(app, "http://localhost/#/a?b=https://evil.test")
    assert is_accepted(sandbox, response, "http://localhost/")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "missing"),
        ("https://evil.test/", "evil.test"),
        ("https://localhost.evil.test/", "localhost.evil.test"),
        ("https://evil.test/?localhost", "evil.test"),
        ("https://evil.test#http://localhost/", "evil.test"),
        ("http://localhost:8080/", "localhost:8080"),
        ("https://localhost:80/", "localhost:80"),
        ("https://localhost@evil.test/", "address"),
        ("https://user:password@localhost/", "address"),
        ("https://localhost:pass@evil.test/", "address"),
        ("https://evil.test\\@localhost/", "address"),
        ("https://localhost\\.evil.test/", "address"),
        ("https://localhost\\@evil.test/", "address"),
        ("https:\\\\localhost/", "address"),
        ("https://localhost/\\evil.test", "address"),
        ("https:/localhost/", "address"),
        ("https:localhost/", "address"),
        ("https:///localhost/", "address"),
        ("//localhost/", "address"),
        ("HTTP://localhost/", "address"),
        ("hTTps://localhost/", "address"),
        ("/page", "address"),
        ("page", "address"),
        ("?a=1", "address"),
        ("#", "address"),
        ("localhost/", "address"),
        ("javascript:alert(1)//localhost/", "address"),
        ("data:text/html,http://localhost/", "address"),
        ("ftp://localhost/", "address"),
        ("file://localhost/etc/passwd", "address"),
        ("view-source:http://localhost/", "address"),
        ("blob:http://localhost/1", "address"),
        ("http%3A%2F%2Flocalhost%2F", "encoded twice"),
        ("https%3a//localhost/", "encoded twice"),
        ("http%25253A%25252F%25252Flocalhost", "encoded twice"),
        ("http://localhost%2eevil.test/", "address"),
        ("http://[::1]evil/", "address"),
        ("http://localhost/" + "a" * 4096, "4096"),
        ("http://localhost/" + "中" * 1400, "4096"),
        ("http://localhost/a b", "encodeURIComponent"),
        (" http://localhost/", "encodeURIComponent"),
        ("http://localhost/\n", "characters"),
        ("http://localhost/\x00", "characters"),
        ("http://localhost/\t", "characters"),
        ("http://localhost/\x7f", "characters"),
        ("http://localhost/\x85", "characters"),
        ("http://localhost/\u2028", "characters"),
        ("http://localhost/\u202e", "characters"),
        ("\ufeffhttp://localhost/", "characters"),
    ],
)
def test_anything_else_is_refused_with_a_reason(
    app: Flask, sandbox: Sandbox, url: str, reason: str
) -> None:
    """A 400 with JSON; WeChat is not asked."""
    response = ask(app, url)
    assert response.status_code == 400
    assert reason in (response.json or {})["error"]
    assert response.headers["Cache-Control"] == "no-store"
    assert not sandbox.calls


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?url",
        "?url=http://localhost/?a=1&from=timeline",
        "?url=http://localhost/&url=http://localhost/b",
        "?url=http://localhost/?a=1+2",
        "?page=http://localhost/",
    ],
)
def test_a_query_that_was_not_escaped_is_refused(app: Flask, query: str) -> None:
    """The usual mistakes of a hand-written client; the reason names encodeURIComponent."""
    response = get(app, f"/wxjsapi/config{query}")
    assert response.status_code == 400
    assert set(response.json or {}) == {"error"}


def test_the_reason_quotes_no_query(app: Flask) -> None:
    """It may carry somebody's OAuth code."""
    response = ask(app, "https://evil.test/?code=s3cret")
    assert "s3cret" not in response.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_it_is_only_read(app: Flask, method: str) -> None:
    """GET, and HEAD and OPTIONS along with it."""
    assert app.test_client().open("/wxjsapi/config", method=method).status_code == 405


# -- whose pages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "yes", "no"),
    [
        ("m.shop.test", "https://m.shop.test/", "https://shop.test/"),
        ("m.shop.test", "http://M.Shop.test:80/", "https://m.shop.test:8443/"),
        ("M.Shop.test", "https://m.shop.test:443/", "https://x.m.shop.test/"),
        ("m.shop.test:8443", "https://m.shop.test:8443/", "https://m.shop.test/"),
        (".shop.test", "https://a.b.shop.test/", "https://badshop.test/"),
        (".shop.test", "https://shop.test/", "https://shop.test.evil.test/"),
        (".shop.test:8443", "https://m.shop.test:8443/", "https://m.shop.test/"),
        ("xn--fsq.test", "https://xn--fsq.test/", "https://xn--fsqu.test/"),
        ("[::1]:3000", "http://[::1]:3000/", "http://[::1]/"),
    ],
)
def test_page_hosts(make_app: MakeApp, sandbox: Sandbox, entry: str, yes: str, no: str) -> None:
    """A host is itself, one with a dot in front is a domain, and a port counts."""
    app, _ = make_app(WXJSAPI_URL_PREFIX="/wxjsapi", WXJSAPI_PAGE_HOSTS=[entry])
    response = ask(app, yes)
    assert response.status_code == 200
    assert is_accepted(sandbox, response, yes)
    assert ask(app, no).status_code == 400
    assert ask(app, "http://localhost/").status_code == 200


def test_the_public_origin_is_signed(make_app: MakeApp) -> None:
    """Where the app cannot know its host, the config does."""
    app, _ = make_app(WXJSAPI_URL_PREFIX="/wxjsapi", WXJSAPI_PUBLIC_ORIGIN="https://m.shop.test")
    assert ask(app, "https://m.shop.test/a").status_code == 200
    assert ask(app, "https://shop.test/a").status_code == 400


def test_with_a_public_origin_no_host_of_a_request_is_signed(make_app: MakeApp) -> None:
    """Whoever asks cannot say whose pages these are."""
    app, _ = make_app(WXJSAPI_URL_PREFIX="/wxjsapi", WXJSAPI_PUBLIC_ORIGIN="https://m.shop.test")
    answer = ask(app, "https://evil.example/a", Host="evil.example", Origin="https://evil.example")
    assert answer.status_code == 400
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_a_host_that_is_not_trusted_is_a_400(make_app: MakeApp) -> None:
    """Flask's own setting holds for pages and endpoints."""
    app, wxjsapi = make_app(WXJSAPI_URL_PREFIX="/wxjsapi", TRUSTED_HOSTS=["m.shop.test"])
    app.add_url_rule("/", "page", lambda: wxjsapi.config([]))
    for host, status in (("m.shop.test", 200), ("evil.example", 400), (".shop.test", 400)):
        assert get(app, "/", Host=host).status_code == status
        assert ask(app, f"https://{host.lstrip('.')}/", Host=host).status_code == status


def test_the_own_host_counts_with_its_port(app: Flask) -> None:
    """Two services on one host are two."""
    assert ask(app, "http://localhost:5000/", Host="localhost:5000").status_code == 200
    assert ask(app, "http://localhost/", Host="localhost:5000").status_code == 400
    # A proxy that ends TLS may leave the port in the header.
    assert ask(app, "https://localhost/", Host="localhost:443").status_code == 200


@pytest.mark.parametrize("origin", ["https://m.shop.test", "http://localhost"])
def test_cors_for_pages_that_are_signed(make_app: MakeApp, origin: str) -> None:
    """Their scripts may read the answer, a refusal too, and no cookies are in it."""
    app, _ = make_app(WXJSAPI_URL_PREFIX="/wxjsapi", WXJSAPI_PAGE_HOSTS=["m.shop.test"])
    for path in ("config", f"config?url={origin}/", "client.mjs"):
        response = get(app, f"/wxjsapi/{path}", Origin=origin)
        assert response.headers["Access-Control-Allow-Origin"] == origin
        assert "Access-Control-Allow-Credentials" not in response.headers
        assert "Origin" in response.headers["Vary"]


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.test",
        "null",
        "",
        "https://m.shop.test.evil.test",
        "https://m.shop.test:1",
        "https://m.shop.test/",
        "https://user@m.shop.test",
        "x",
        "http://[",
        "http://[::1",
    ],
)
def test_no_cors_for_others(make_app: MakeApp, origin: str) -> None:
    """Another site's script cannot read the answer."""
    app, _ = make_app(WXJSAPI_URL_PREFIX="/wxjsapi", WXJSAPI_PAGE_HOSTS=["m.shop.test"])
    response = ask(app, "https://m.shop.test/", Origin=origin)
    assert "Access-Control-Allow-Origin" not in response.headers
    assert "Origin" in response.headers["Vary"]


def test_what_is_wrong_is_read_from_everywhere(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    """A page of a host that is not in PAGE_HOSTS learns that, and the log has it once."""
    app, _ = make_app(WXJSAPI_URL_PREFIX="/wxjsapi", WXJSAPI_PAGE_HOSTS=["m.shop.test"])
    for _ in range(3):
        response = ask(app, "https://new.shop.test/", Origin="https://new.shop.test")
        assert response.status_code == 400
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert "new.shop.test are not signed here" in (response.json or {})["error"]
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("A page of new.shop.test asked for a signature and got none")
    assert "WXJSAPI_PAGE_HOSTS" in line


def test_strangers_do_not_fill_the_log(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever hosts they name."""
    for number in range(100):
        ask(app, f"https://{number}.evil.test/")
    assert len(caplog.records) == 20


# -- no ticket -------------------------------------------------------------------------------------


def test_no_ticket_is_a_503_with_retry_after(app: Flask, sandbox: Sandbox) -> None:
    """JSON for a script to read, and nothing of the reason in it."""
    sandbox.fail(40164, times=None)
    response = ask(app, "http://localhost/", Origin=OWN)
    assert response.status_code == 503
    assert 600 < int(response.headers["Retry-After"]) <= 900
    assert response.headers["Access-Control-Expose-Headers"] == "Retry-After"
    assert response.headers["Cache-Control"] == "no-store"
    assert "ticket" in (response.json or {})["error"]
    assert "40164" not in response.text


# -- a signature that WeChat called invalid --------------------------------------------------------


def refused(app: Flask, url: str, **changed: str) -> str:
    """The end of the query with which a page says that its signature was refused."""
    signed = ask(app, url).json or {}
    complaint = {"rejected": "1", **{key: signed[key] for key in _SIGNED_WITH}, **changed}
    return "&" + urlencode(complaint)


_SIGNED_WITH = ("nonceStr", "timestamp", "signature")
SHOP = "http://localhost/shop"


@pytest.mark.parametrize(
    "changed",
    [
        {"nonceStr": "another"},
        {"timestamp": "1"},
        {"signature": "0" * 40},
        {"signature": ""},
        {"nonceStr": "\ud83d", "signature": "中"},
    ],
)
def test_a_signature_that_is_not_ours_is_no_complaint(
    app: Flask, sandbox: Sandbox, changed: dict[str, str]
) -> None:
    """Whoever makes one up costs no call; the page is signed all the same."""
    complaint = refused(app, SHOP) + "".join(
        f"&{key}={quote(value.encode('utf-8', 'surrogatepass'))}" for key, value in changed.items()
    )
    for key in changed:
        complaint = re.sub(f"&{key}=[^&]*", "", complaint, count=1)
    assert is_accepted(sandbox, ask(app, SHOP, complaint), SHOP)
    assert sandbox.calls["getticket"] == 1


def test_a_signature_for_another_page_is_no_complaint(app: Flask, sandbox: Sandbox) -> None:
    """It was right to refuse it."""
    ask(app, SHOP, refused(app, "http://localhost/cart"))
    assert sandbox.calls["getticket"] == 1


def test_a_signature_of_an_older_ticket_is_no_complaint(make_app: MakeApp) -> None:
    """There is another ticket by now, which nobody has complained of."""
    with Sandbox(ticket="new").serve() as sandbox:
        app, wxjsapi = make_app(WXJSAPI_URL_PREFIX="/wxjsapi", WXJSAPI_API_BASE_URL=sandbox.url)
        complaint = refused(app, SHOP)
        with app.app_context():
            wxjsapi.refresh()
        calls = sandbox.calls["getticket"]
        assert is_accepted(sandbox, ask(app, SHOP, complaint), SHOP)
        assert sandbox.calls["getticket"] == calls


@pytest.mark.parametrize("method", ["head", "options"])
def test_a_complaint_is_a_get(app: Flask, sandbox: Sandbox, method: str) -> None:
    """Nothing else changes anything."""
    getattr(app.test_client(), method)(f"/wxjsapi/config?url={SHOP}{refused(app, SHOP)}")
    assert sandbox.calls["getticket"] == 1


@pytest.mark.parametrize(
    ("headers", "counts"),
    [
        ({}, True),
        ({"Sec_Fetch_Site": "same-origin"}, True),
        ({"Sec_Fetch_Site": "same-site"}, True),
        ({"Sec_Fetch_Site": "cross-site"}, False),
        ({"Sec_Fetch_Site": "cross-site", "Origin": "https://m.shop.test"}, True),
        ({"Sec_Fetch_Site": "same-origin", "Origin": "https://evil.test"}, False),
        ({"Origin": "null"}, False),
        ({"Referer": "http://localhost/shop?a=1"}, True),
        ({"Referer": "https://evil.test/http://localhost/"}, False),
        ({"Referer": "android-app://x"}, False),
    ],
)
def test_another_site_has_nothing_to_complain_of(
    make_app: MakeApp, sandbox: Sandbox, headers: dict[str, str], counts: bool
) -> None:
    """An image of its, say; a page of PAGE_HOSTS does."""
    app, _ = make_app(WXJSAPI_URL_PREFIX="/wxjsapi", WXJSAPI_PAGE_HOSTS=["m.shop.test"])
    ask(app, SHOP, refused(app, SHOP), **headers)
    assert sandbox.calls["getticket"] == (2 if counts else 1)


def test_complaints_of_strangers_silence_nobody(
    make_app: MakeApp, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often they come; the first page that was signed here is heard."""
    app, _ = make_app(WXJSAPI_URL_PREFIX="/wxjsapi")
    for _ in range(24):
        ask(app, SHOP, "&rejected=1&nonceStr=n&timestamp=1&signature=s")
    assert sandbox.calls["getticket"] == 1
    ask(app, SHOP, refused(app, SHOP))
    assert sandbox.calls["getticket"] == 2


def test_a_rejected_signature_is_verified_once(
    app: Flask, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """However many pages say so; the log has the page without its query, and the verdict."""
    url = "http://localhost/shop?code=0a1B2c&state=xyz"
    assert is_accepted(sandbox, ask(app, url), url)
    for _ in range(20):
        assert is_accepted(sandbox, ask(app, url, refused(app, url)), url)
    assert sandbox.calls["getticket"] == 2
    nothing_goes_on()  # the verdict is told behind the page
    lines = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
    assert len(lines) == 1
    assert "http://localhost/shop invalid. The ticket is the one" in lines[0]
    assert "0a1B2c" not in caplog.text


def test_a_replaced_ticket_heals(make_app: MakeApp) -> None:
    """The answer is signed with the ticket that WeChat names now."""
    with Sandbox(ticket="new").serve() as sandbox:
        app, wxjsapi = make_app(WXJSAPI_URL_PREFIX="/wxjsapi", WXJSAPI_API_BASE_URL=sandbox.url)
        with app.app_context():
            before = wxjsapi.ticket
            response = ask(app, "http://localhost/", refused(app, "http://localhost/"))
            assert wxjsapi.ticket != before
        assert is_accepted(sandbox, response, "http://localhost/")


@pytest.mark.parametrize("value", ["0", "", "true", "1 "])
def test_only_a_1_rejects(app: Flask, sandbox: Sandbox, value: str) -> None:
    """Anything else is no such word."""
    ask(app, SHOP, re.sub("rejected=1", f"rejected={value}", refused(app, SHOP)))
    assert sandbox.calls["getticket"] == 1


def test_a_refused_url_verifies_nothing(app: Flask, sandbox: Sandbox) -> None:
    """Only a page that would be signed may say so."""
    assert ask(app, "https://evil.test/", "&rejected=1").status_code == 400
    assert not sandbox.calls


# -- the script ------------------------------------------------------------------------------------


def test_client_js(app: Flask) -> None:
    """A script with the JS-SDK's URLs in it, that a browser may keep for an hour."""
    response = get(app, "/wxjsapi/client.js")
    assert response.content_type == "text/javascript; charset=utf-8"
    assert response.headers["Cache-Control"] == "public, max-age=3600"
    hosts = ("res.wx.qq.com", "res2.wx.qq.com")
    urls = json.dumps([f"https://{host}/open/js/jweixin-1.6.0.js" for host in hosts])
    own = '(Reflect.get(Document.prototype, "currentScript", document) || {}).src'
    assert response.text.endswith(f"({own}, {urls});\n")
    again = get(app, "/wxjsapi/client.js", If_None_Match=response.headers["ETag"])
    assert (again.status_code, again.text) == (304, "")


def test_client_js_is_read_by_browsers_of_2017(app: Flask) -> None:
    """Chrome 55 knows async functions, but no comma behind the last argument, and no object as that
    of URLSearchParams.
    """
    text = get(app, "/wxjsapi/client.js").text
    newer = r",\s*\)|\?\.|\?\?|\.\.\.\w+ *}|catch {|URLSearchParams\({"
    assert re.findall(newer, text) == []


def test_client_mjs(app: Flask) -> None:
    """The same with a name to import."""
    text = get(app, "/wxjsapi/client.mjs").text
    assert "(import.meta.url, [" in text
    assert "\nexport const { config } = (function (own, jssdk) {" in text


def test_client_types(app: Flask) -> None:
    """To be saved beside one's own sources."""
    response = get(app, "/wxjsapi/client.d.ts")
    assert "export function config<" in response.text


def test_a_jssdk_of_ones_own_has_no_spare_host(make_app: MakeApp) -> None:
    """WeChat's spare host has WeChat's scripts only; a hostile URL ends no script."""
    url = "/static/jweixin.js?a=</script>"
    app, _ = make_app(WXJSAPI_URL_PREFIX="/wxjsapi", WXJSAPI_JSSDK_URL=url)
    text = get(app, "/wxjsapi/client.js").text
    assert text.rstrip().endswith('.src, ["/static/jweixin.js?a=\\u003c/script\\u003e"]);')


def test_the_sandbox_brings_its_phone(make_app: MakeApp) -> None:
    """With WeChat played in this process, client.js works in any browser."""
    app, wxjsapi = make_app(WXJSAPI_URL_PREFIX="/wxjsapi", WXJSAPI_API_BASE_URL="sandbox")
    for form in ("js", "mjs"):
        response = get(app, f"/wxjsapi/client.{form}")
        assert embedded().bridge_script() in response.text
        assert response.headers["Cache-Control"] == "no-cache"  # its port is another one soon
    with app.test_request_context("/"):
        first = str(wxjsapi.script()).partition("\n")[0]
    assert first == f'<script src="{embedded().url}/sandbox/bridge.js?phone=wechat"></script>'


# -- the setting -----------------------------------------------------------------------------------


def test_no_prefix_no_endpoints(make_app: MakeApp) -> None:
    """Nothing is reachable that nobody asked for."""
    app, _ = make_app()
    assert [str(rule) for rule in app.url_map.iter_rules()] == ["/static/<path:filename>"]


def test_two_accounts_have_two_prefixes(sandbox: Sandbox, make_app: MakeApp) -> None:
    """Each with its own app id."""
    sandbox.add_account("wx2", "secret2")
    app, _ = make_app(
        WXJSAPI_URL_PREFIX="/main",
        SHOP_WXJSAPI_APP_ID="wx2",
        SHOP_WXJSAPI_APP_SECRET="secret2",
        SHOP_WXJSAPI_API_BASE_URL=sandbox.url,
        SHOP_WXJSAPI_URL_PREFIX="/shop/wx",
    )
    WxJsApi(app, name="shop")
    for prefix, app_id in (("/main", sandbox.app_id), ("/shop/wx", "wx2")):
        response = get(app, f"{prefix}/config?url={quote(OWN, safe='')}")
        assert (response.json or {})["appId"] == app_id
        assert is_accepted(sandbox, response, OWN)


def test_two_accounts_cannot_have_one_prefix(sandbox: Sandbox, make_app: MakeApp) -> None:
    """The second one's pages would silently get the first one's signatures."""
    app, _ = make_app(
        WXJSAPI_URL_PREFIX="/wx",
        SHOP_WXJSAPI_APP_ID="wx2",
        SHOP_WXJSAPI_APP_SECRET="secret2",
        SHOP_WXJSAPI_URL_PREFIX="/wx",
    )
    with pytest.raises(RuntimeError, match=r"^SHOP_WXJSAPI_URL_PREFIX is '/wx', .*'default'"):
        WxJsApi(app, name="shop")


@pytest.mark.parametrize("value", ["wxjsapi", "/", "/wxjsapi/", "//x", "/a b", "/<x>", 1, "", "/ä"])
def test_a_prefix_that_cannot_be(make_app: MakeApp, value: Any) -> None:
    """The error names the key and an example."""
    with pytest.raises(RuntimeError, match=r"WXJSAPI_URL_PREFIX must be a path such as"):
        make_app(WXJSAPI_URL_PREFIX=value)


@pytest.mark.parametrize(
    "value",
    [
        "m.shop.test", ["https://m.shop.test"], ["m.shop.test/"], ["*.shop.test"], ["中国.test"],
        ["m..shop.test"], ["a:b"], [""], [1], ["user@m.shop.test"], ["."], [".."],
    ],
)  # fmt: skip
def test_page_hosts_that_cannot_be(make_app: MakeApp, value: Any) -> None:
    """The error names the key."""
    with pytest.raises(RuntimeError, match=r"WXJSAPI_PAGE_HOSTS must"):
        make_app(WXJSAPI_PAGE_HOSTS=value)


# -- responses of the app's own that hold a signature ----------------------------------------------


def with_views(make_app: MakeApp, **config: Any) -> tuple[Flask, WxJsApi]:
    app, wxjsapi = make_app(**config)
    app.add_url_rule("/plain", "plain", lambda: "plain")
    app.add_url_rule("/json", "json", lambda: dict(wxjsapi.config()))
    app.add_url_rule("/other", "other", lambda: dict(wxjsapi.config(url=SHOP)))
    app.add_url_rule("/page", "page", lambda: render_template_string("{{ wx_script() }}"))

    @app.route("/kept")
    def kept() -> Response:
        response = jsonify(wxjsapi.config())
        response.cache_control.max_age = 60
        return response

    return app, wxjsapi


@pytest.mark.parametrize(
    ("path", "header"),
    [
        ("json", "no-store"),
        ("other", "no-store"),
        ("page", "no-store"),
        ("kept", "max-age=60"),
        ("plain", None),
    ],
)
def test_what_holds_a_signature_is_not_stored(
    make_app: MakeApp, path: str, header: str | None
) -> None:
    """The back button would bring it back hours later; unless the view says otherwise."""
    app, _ = with_views(make_app)
    with app.app_context():  # the requests have one context between them here
        for _ in range(2):
            assert get(app, f"/{path}").headers.get("Cache-Control") == header
            assert "Cache-Control" not in get(app, "/plain").headers


def test_two_accounts_are_guarded_once(make_app: MakeApp, sandbox: Sandbox) -> None:
    """Whichever signs."""
    app, _ = with_views(make_app)
    config = {"APP_ID": "wx1", "APP_SECRET": "s", "API_BASE_URL": sandbox.url}
    app.config.update({f"SHOP_WXJSAPI_{key}": value for key, value in config.items()})
    WxJsApi(app, name="shop")
    assert len(app.after_request_funcs[None]) == 1


def test_a_cached_view_with_a_signature_is_told_once(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    """``@cache.cached()`` gives the next visitor what was signed for another address."""
    app, wxjsapi = make_app(CACHE_TYPE="SimpleCache")
    cache = Cache(app)
    view = cache.cached(query_string=True)(lambda: dict(wxjsapi.config()))
    app.add_url_rule("/page", "page", view)
    app.add_url_rule("/fine", "fine", cache.cached()(lambda: "nothing"))
    for number in range(3):
        assert get(app, f"/page?{number}").status_code == 200
        get(app, f"/fine?{number}")
    [line] = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
    assert line.startswith("The view page is cached by Flask-Caching")
