"""The extension in Flask apps: wiring, what a view and a template get, and the operator's side."""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
import queue
import re
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

import pytest
from flask import Flask, current_app, render_template_string
from jinja2 import DictLoader
from markupsafe import Markup

from flask_wxjsapi import (
    Credential,
    TicketServer,
    TicketUnavailable,
    TransportError,
    WeChatAPIError,
    WxJsApi,
    ticket_refresh_failed,
    ticket_refreshed,
)
from flask_wxjsapi._credential import ACCESS_TOKEN, JSAPI_TICKET
from flask_wxjsapi._settings import key_prefix
from flask_wxjsapi._upstream.wechat import WeChat
from flask_wxjsapi.sandbox import Sandbox
from flask_wxjsapi.sandbox import sandbox as sandbox_module

from .cards import LINKS
from .conftest import free_port, nothing_goes_on, threads_of, wait_until

pytestmark = pytest.mark.usefixtures("patient", "seldom")

MakeApp = Callable[..., tuple[Flask, WxJsApi]]

SOON = 30.0  # seconds; far longer than anything here takes, on a busy machine as well
PAGE = "https://shop.example/p?a=1"
SHARE_APIS = ["updateAppMessageShareData", "updateTimelineShareData"]


@pytest.fixture(scope="module")
def _sandbox() -> Iterator[Sandbox]:
    with Sandbox().serve() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(_sandbox: Sandbox) -> Iterator[Sandbox]:
    """One server for the whole module, as if new; nothing of a test's goes on after it."""
    _sandbox.reset()
    yield _sandbox
    _sandbox.heal()
    nothing_goes_on()


def account(sandbox: Sandbox, name: str = "default", **changes: Any) -> dict[str, Any]:
    """The config of an account at the sandbox."""
    keys = {
        "APP_ID": sandbox.app_id,
        "APP_SECRET": sandbox.app_secret,
        "API_BASE_URL": sandbox.url,
        **changes,
    }
    return {key_prefix(name) + key: value for key, value in keys.items()}


def judge(sandbox: Sandbox, config: Any, url: str) -> str:
    """What the phone says to a config on a page."""
    keys = ("appId", "nonceStr", "timestamp", "signature")
    return sandbox.verify(**{key: config[key] for key in keys}, url=url)


# -- wiring


@pytest.fixture
def deaf() -> Iterator[socket.socket]:
    """A port on which nobody must knock."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize("cache", ["SimpleCache", "FileSystemCache", "RedisCache"])
def test_init_app_opens_nothing(deaf: socket.socket, tmp_path: Path, cache: str) -> None:
    """Setting up connects to nothing, writes nothing and starts no thread."""
    port = deaf.getsockname()[1]
    before = threading.enumerate()
    app = Flask("tests")
    app.config.update(
        CACHE_TYPE=cache,
        CACHE_DIR=str(tmp_path / "cache"),
        CACHE_REDIS_URL=f"redis://127.0.0.1:{port}/0",
        WXJSAPI_APP_ID="wx1",
        WXJSAPI_APP_SECRET="secret",
        WXJSAPI_API_BASE_URL=f"http://127.0.0.1:{port}",
        WXJSAPI_BACKGROUND_REFRESH=True,
    )
    WxJsApi(app)
    assert threading.enumerate() == before
    assert list(tmp_path.iterdir()) == []


def test_init_app_asks_wechat_nothing(sandbox: Sandbox, make_app: MakeApp) -> None:
    """Neither setting up nor a request that needs no ticket costs a call."""
    app, _ = make_app()
    assert app.test_client().get("/").status_code == 404
    assert sandbox.calls == {}


def test_extension_is_registered_by_name(make_app: MakeApp) -> None:
    """``app.extensions["wxjsapi"]`` is a dict by account."""
    app, wxjsapi = make_app()
    assert app.extensions["wxjsapi"] == {"default": wxjsapi}


def test_factory(sandbox: Sandbox) -> None:
    """One extension object serves every app that a factory makes."""
    wxjsapi = WxJsApi()

    def create_app() -> Flask:
        app = Flask("tests")
        app.config.update(TESTING=True, **account(sandbox))
        wxjsapi.init_app(app)
        return app

    for app in (create_app(), create_app()):
        with app.app_context():
            assert judge(sandbox, wxjsapi.config(url=PAGE), PAGE) == "config:ok"


def test_second_init_app(make_app: MakeApp) -> None:
    """The same account twice in one app is a mistake."""
    app, wxjsapi = make_app()
    with pytest.raises(RuntimeError, match="'default' is registered with this app already"):
        wxjsapi.init_app(app)


def test_second_extension_with_the_same_name(make_app: MakeApp) -> None:
    """So is another object for it."""
    app, _ = make_app()
    with pytest.raises(RuntimeError, match="give a second account its own name="):
        WxJsApi(app)


def test_init_app_after_one_that_failed(sandbox: Sandbox) -> None:
    """A wrong setting leaves nothing behind that would be in the way of the right one."""
    app = Flask("tests")
    wxjsapi = WxJsApi()
    with pytest.raises(RuntimeError, match="WXJSAPI_APP_ID"):
        wxjsapi.init_app(app)
    app.config.update(account(sandbox), TESTING=True)
    wxjsapi.init_app(app)
    with app.app_context():
        assert wxjsapi.ticket


@pytest.mark.parametrize("name", ["", "Shop", "1shop", "shop-1", "shop\n", "shöp", "_shop", "a b"])
def test_bad_name(name: str) -> None:
    """A name becomes part of keys and of Jinja globals."""
    with pytest.raises(RuntimeError, match="name must be a lower-case identifier"):
        WxJsApi(name=name)


USES: dict[str, Callable[[WxJsApi], object]] = {
    "ticket": lambda wxjsapi: wxjsapi.ticket,
    "access_token": lambda wxjsapi: wxjsapi.access_token,
    "config": lambda wxjsapi: wxjsapi.config(url=PAGE),
    "script": lambda wxjsapi: wxjsapi.script(url=PAGE),
    "refresh": lambda wxjsapi: wxjsapi.refresh(),
    "status": lambda wxjsapi: wxjsapi.status(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_use_outside_a_context(make_app: MakeApp, use: Callable[[WxJsApi], object]) -> None:
    """Without an app there is no account, and the error says how to have one."""
    _, wxjsapi = make_app()
    with pytest.raises(RuntimeError, match=r"outside an application context.*app_context\(\)"):
        use(wxjsapi)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_use_in_an_app_that_does_not_know_it(use: Callable[[WxJsApi], object]) -> None:
    """An app without init_app is a mistake, and the error names the call."""
    with Flask("tests").app_context(), pytest.raises(RuntimeError, match=r"'shop'.*init_app"):
        use(WxJsApi(name="shop"))


@pytest.mark.parametrize("method", ["start", "close"])
def test_start_and_close_with_an_app_that_does_not_know_it(method: str) -> None:
    """The same holds where the app is passed."""
    with pytest.raises(RuntimeError, match="init_app"):
        getattr(WxJsApi(), method)(Flask("tests"))


@pytest.fixture
def app_that_is_gone(sandbox: Sandbox) -> threading.Thread:
    """The background thread of an app that was used, let go and collected."""
    wxjsapi = WxJsApi()
    threads: list[threading.Thread] = []

    def use_an_app() -> weakref.ref[Flask]:
        app = Flask("tests")
        changes = {"BACKGROUND_REFRESH": True, "SYNC_INTERVAL": 0.1}
        app.config.update(account(sandbox, **changes))
        wxjsapi.init_app(app)
        with app.test_request_context():
            wxjsapi.script(["chooseImage"], share={})
            wxjsapi.refresh()
        threads.extend(threads_of(app))
        return weakref.ref(app)

    app_ref = use_an_app()

    def is_gone() -> bool:
        gc.collect()
        return app_ref() is None

    wait_until(is_gone, SOON, "the app is gone")
    [thread] = threads
    return thread


def test_app_can_be_collected(app_that_is_gone: threading.Thread) -> None:
    """Neither the extension nor its thread keeps an app alive, and the thread ends after it."""
    wait_until(
        lambda: gc.collect() >= 0 and not app_that_is_gone.is_alive(), SOON, "the thread ends"
    )


def test_thread_of_an_app_that_is_gone_is_quiet(
    app_that_is_gone: threading.Thread, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread ends by itself, before the collector comes by again, and without an error."""
    app_that_is_gone.join(SOON)
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert errors == []
    assert not app_that_is_gone.is_alive()


def test_renewal_that_outlives_its_app_tells_nobody(sandbox: Sandbox, make_app: MakeApp) -> None:
    """Whoever listened is gone with the app, and that is no error in the renewal's thread."""
    app, wxjsapi = make_app()
    holding = wxjsapi._accounts_of(app).own.credentials.holding
    heard: list[Any] = []
    with ticket_refreshed.connected_to(lambda sender, **facts: heard.append(facts)):
        del app
        gc.collect()
        holding.notify("refreshed", {"kind": JSAPI_TICKET, "expires_at": 1.0})
    assert heard == []


# -- ticket and token


def test_ticket_is_fetched_once(sandbox: Sandbox, make_app: MakeApp) -> None:
    """The second use costs nothing."""
    app, wxjsapi = make_app()
    with app.app_context():
        assert wxjsapi.ticket == wxjsapi.ticket
    with app.app_context():
        assert isinstance(wxjsapi.ticket, str)
    assert sandbox.calls == {"stable_token": 1, "getticket": 1}


def test_access_token_is_the_one_the_ticket_came_with(sandbox: Sandbox, make_app: MakeApp) -> None:
    """Other libraries in the app share the token instead of superseding it."""
    app, wxjsapi = make_app()
    with app.app_context():
        assert wxjsapi.ticket
        token = wxjsapi.access_token
        again = WeChat(sandbox.url, sandbox.app_id, sandbox.app_secret).fetch(
            JSAPI_TICKET, parent=token, rejected=None, timeout=SOON
        )
        assert again.value == wxjsapi.ticket
    assert sandbox.calls["stable_token"] == 1


def test_ticket_unavailable_has_a_cause(sandbox: Sandbox, make_app: MakeApp) -> None:
    """A view gets one kind of error, and behind it the reason, without frames that hold secrets."""
    app, wxjsapi = make_app()
    sandbox.fail(40125, times=None)
    with app.app_context(), pytest.raises(TicketUnavailable) as caught:
        assert wxjsapi.ticket
    cause = caught.value.__cause__
    assert isinstance(cause, WeChatAPIError)
    assert cause.errcode == 40125
    assert cause.__traceback__ is None
    assert 600 < caught.value.retry_after <= 900


def test_access_token_unavailable(sandbox: Sandbox, make_app: MakeApp) -> None:
    """The token fails in the same way."""
    app, wxjsapi = make_app()
    sandbox.fail("html", times=None)
    with app.app_context(), pytest.raises(TicketUnavailable) as caught:
        assert wxjsapi.access_token
    assert isinstance(caught.value.__cause__, TransportError)


@pytest.mark.parametrize("endpoint", ["stable_token", "token"])
def test_token_endpoint(sandbox: Sandbox, make_app: MakeApp, endpoint: str) -> None:
    """TOKEN_ENDPOINT chooses where the token comes from."""
    app, wxjsapi = make_app(WXJSAPI_TOKEN_ENDPOINT=endpoint)
    with app.app_context():
        assert wxjsapi.ticket
    assert sandbox.calls == {endpoint: 1, "getticket": 1}


# -- config()


def test_config_has_the_fields_of_wx_config(sandbox: Sandbox, make_app: MakeApp) -> None:
    """The result is the argument of ``wx.config`` with its types, and nothing else."""
    app, wxjsapi = make_app()
    before = int(time.time())
    with app.app_context():
        config = wxjsapi.config(["chooseImage"], open_tag_list=["wx-open-audio"], url=PAGE)
    assert {key: type(value) for key, value in config.items()} == {
        "debug": bool,
        "appId": str,
        "timestamp": int,
        "nonceStr": str,
        "signature": str,
        "jsApiList": list,
        "openTagList": list,
    }
    assert config["debug"] is False
    assert config["appId"] == sandbox.app_id
    assert before <= config["timestamp"] <= time.time()
    assert config["jsApiList"] == ["chooseImage"]
    assert config["openTagList"] == ["wx-open-audio"]


def test_config_is_accepted_by_the_phone(sandbox: Sandbox, make_app: MakeApp) -> None:
    """The signature is the one that a phone on that page, and on no other, computes."""
    app, wxjsapi = make_app()
    with app.app_context():
        config = wxjsapi.config(url=PAGE)
    assert judge(sandbox, config, PAGE) == "config:ok"
    assert judge(sandbox, config, f"{PAGE}&b=2") == "config:invalid signature"


def test_config_has_a_new_nonce_each_time(make_app: MakeApp) -> None:
    """Two pages do not share a nonce."""
    app, wxjsapi = make_app()
    with app.app_context():
        nonces = {wxjsapi.config(url=PAGE)["nonceStr"] for _ in range(20)}
    assert len(nonces) == 20
    assert all(len(nonce) >= 16 and nonce.isalnum() for nonce in nonces)


def test_config_signs_the_page_of_the_request(sandbox: Sandbox, make_app: MakeApp) -> None:
    """By default the URL is the current request's, with its escapes."""
    app, wxjsapi = make_app()
    app.add_url_rule("/<path:page>", "page", lambda page: wxjsapi.config())
    config = app.test_client().get("/%E4%B8%AD?a=%7E", base_url="https://a.example").json
    assert judge(sandbox, config, "https://a.example/%E4%B8%AD?a=%7E") == "config:ok"


@pytest.mark.parametrize("url", [f"{PAGE}#top", f"{PAGE}#/route?x#y", f"{PAGE}#"])
def test_config_cuts_the_hash_off(sandbox: Sandbox, make_app: MakeApp, url: str) -> None:
    """What follows a hash is not signed."""
    app, wxjsapi = make_app()
    with app.app_context():
        assert judge(sandbox, wxjsapi.config(url=url), PAGE) == "config:ok"


def test_config_with_a_public_origin(sandbox: Sandbox, make_app: MakeApp) -> None:
    """PUBLIC_ORIGIN replaces the request's scheme and host."""
    app, wxjsapi = make_app(WXJSAPI_PUBLIC_ORIGIN="https://public.example")
    with app.test_request_context("/x?y"):
        assert judge(sandbox, wxjsapi.config(), "https://public.example/x?y") == "config:ok"


def test_config_with_a_url_is_not_given_the_public_origin(
    sandbox: Sandbox, make_app: MakeApp
) -> None:
    """A URL that the caller knows is signed as it is."""
    app, wxjsapi = make_app(WXJSAPI_PUBLIC_ORIGIN="https://public.example")
    with app.test_request_context("/x?y"):
        assert judge(sandbox, wxjsapi.config(url=PAGE), PAGE) == "config:ok"


@pytest.mark.parametrize("method", ["config", "script"])
def test_no_page_outside_a_request(make_app: MakeApp, method: str) -> None:
    """In a command or a job there is no page, so the caller names one."""
    app, wxjsapi = make_app()
    with app.app_context(), pytest.raises(RuntimeError, match="pass url="):
        getattr(wxjsapi, method)()


@pytest.mark.parametrize("method", ["config", "script"])
@pytest.mark.parametrize("url", ["/p", "shop.example/p", "//shop.example/p", "", "ftp://a/p"])
def test_url_must_be_whole(make_app: MakeApp, method: str, url: str) -> None:
    """A URL that no browser shows as a page's is a mistake of the caller's."""
    app, wxjsapi = make_app()
    with app.app_context(), pytest.raises(RuntimeError, match="the page's whole URL"):
        getattr(wxjsapi, method)(url=url)


def test_config_with_a_hostile_host_header(make_app: MakeApp) -> None:
    """A Host header that is no host is the client's error."""
    app, wxjsapi = make_app()
    app.add_url_rule("/", "page", lambda: wxjsapi.config())
    response = app.test_client().get("/", headers={"Host": "user@evil.example"})
    assert response.status_code == 400


def test_config_defaults_come_from_the_settings(make_app: MakeApp) -> None:
    """JS_API_LIST, OPEN_TAG_LIST and DEBUG are what an argument left out means."""
    app, wxjsapi = make_app(
        WXJSAPI_JS_API_LIST=["scanQRCode"],
        WXJSAPI_OPEN_TAG_LIST=["wx-open-audio"],
        WXJSAPI_DEBUG=True,
    )
    with app.app_context():
        config = wxjsapi.config(url=PAGE)
    assert config["jsApiList"] == ["scanQRCode"]
    assert config["openTagList"] == ["wx-open-audio"]
    assert config["debug"] is True


def test_config_arguments_replace_the_settings(make_app: MakeApp) -> None:
    """An argument counts even if it is empty or False."""
    app, wxjsapi = make_app(
        WXJSAPI_JS_API_LIST=["scanQRCode"],
        WXJSAPI_OPEN_TAG_LIST=["wx-open-audio"],
        WXJSAPI_DEBUG=True,
    )
    with app.app_context():
        config = wxjsapi.config([], open_tag_list=(), debug=False, url=PAGE)
    assert (config["jsApiList"], config["openTagList"], config["debug"]) == ([], [], False)


def test_config_lists_are_the_callers(make_app: MakeApp) -> None:
    """A view that adds to the list in a config adds to no other page's."""
    app, wxjsapi = make_app(WXJSAPI_JS_API_LIST=["scanQRCode"])
    names = ["chooseImage"]
    with app.app_context():
        wxjsapi.config(url=PAGE)["jsApiList"].append("openLocation")
        wxjsapi.config(names, url=PAGE)["jsApiList"].append("openLocation")
        assert wxjsapi.config(url=PAGE)["jsApiList"] == ["scanQRCode"]
    assert names == ["chooseImage"]


def test_config_takes_any_iterable(make_app: MakeApp) -> None:
    """A tuple or a generator is as good as a list."""
    app, wxjsapi = make_app()
    with app.app_context():
        config = wxjsapi.config((name for name in ("a", "b")), open_tag_list=("c",), url=PAGE)
    assert (config["jsApiList"], config["openTagList"]) == (["a", "b"], ["c"])


@pytest.mark.parametrize(
    "use",
    [
        lambda wxjsapi: wxjsapi.config("chooseImage", url=PAGE),
        lambda wxjsapi: wxjsapi.config(open_tag_list="chooseImage", url=PAGE),
        lambda wxjsapi: wxjsapi.script("chooseImage", url=PAGE),
    ],
)
def test_string_instead_of_a_list(make_app: MakeApp, use: Callable[[WxJsApi], object]) -> None:
    """A string would become a list of letters, so the error shows how to write it."""
    app, wxjsapi = make_app()
    with app.app_context(), pytest.raises(RuntimeError, match=r"write \['chooseImage'\]"):
        use(wxjsapi)


# -- in a template


class Page(HTMLParser):
    """A page as a browser reads it: its scripts, and whatever else is on it."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=False)
        self.tags: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.scripts and self.cdata_elem == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)

    @property
    def inline(self) -> str:
        [(_, loader), *_spare, (attributes, text)] = self.scripts
        assert loader == ""
        assert "src" not in attributes
        return text

    def value_of(self, name: str) -> Any:
        """The JSON behind ``name:`` in what the inline script hands over."""
        return json.JSONDecoder().raw_decode(self.inline.partition(f"{name}:")[2])[0]

    def argument_of(self, call: str) -> Any:
        """The JSON in ``call({...})`` of the inline script."""
        start = self.inline.index(f"{call}(") + len(call) + 1
        value, end = json.JSONDecoder().raw_decode(self.inline, start)
        assert self.inline[end] == ")"
        return value


def rendered(app: Flask, template: str, url: str = PAGE, **names: Any) -> str:
    with app.test_request_context(base_url=url.partition("/p")[0], path="/p?a=1"):
        return render_template_string(template, **names)


def test_wx_config_in_a_template(sandbox: Sandbox, make_app: MakeApp) -> None:
    """``wx_config(...)|tojson`` is what a page of one's own script needs."""
    app, _ = make_app()
    text = rendered(app, "{{ wx_config(['chooseImage'], debug=True)|tojson }}")
    config = json.loads(text)
    assert judge(sandbox, config, PAGE) == "config:ok"
    assert (config["jsApiList"], config["debug"]) == (["chooseImage"], True)


def test_wx_script_in_a_template(sandbox: Sandbox, make_app: MakeApp) -> None:
    """``wx_script(...)`` is four script tags: the JS-SDK, its spare host, client.js, the call."""
    app, _ = make_app()
    page = Page(rendered(app, "{{ wx_script(['chooseImage']) }}"))
    assert page.tags == ["script"] * 4
    assert page.scripts[0] == ({"src": "https://res.wx.qq.com/open/js/jweixin-1.6.0.js"}, "")
    spare = re.search(r"document\.write\((.*)\)\}catch", page.scripts[1][1])
    assert spare is not None
    assert Page(json.loads(spare[1])).scripts == [
        ({"src": "https://res2.wx.qq.com/open/js/jweixin-1.6.0.js"}, "")
    ]
    config = page.argument_of("wx.config")
    assert judge(sandbox, config, PAGE) == "config:ok"
    assert config["jsApiList"] == ["chooseImage"]


@pytest.mark.parametrize("how", ["import 'm.html' as m", "import 'm.html' as m with context"])
def test_globals_in_a_macro(sandbox: Sandbox, make_app: MakeApp, how: str) -> None:
    """A macro imported without context has the globals all the same."""
    app, _ = make_app()
    macro = "{% macro head() %}{{ wx_script() }}{{ wx_config().appId }}{% endmacro %}"
    app.jinja_loader = DictLoader({"m.html": macro})
    text = rendered(app, f"{{% {how} %}}{{{{ m.head() }}}}")
    assert judge(sandbox, Page(text).argument_of("wx.config"), PAGE) == "config:ok"
    assert text.endswith(sandbox.app_id)


def test_script_in_a_view_is_markup(make_app: MakeApp) -> None:
    """What a view passes to a template is not escaped again."""
    app, wxjsapi = make_app()
    with app.app_context():
        script = wxjsapi.script(url=PAGE)
        assert isinstance(script, Markup)
        assert render_template_string("{{ script }}", script=script) == str(script)


@pytest.mark.parametrize("root", ["", "/shop", "/中 文"])
def test_with_a_url_prefix_client_js_has_an_address(make_app: MakeApp, root: str) -> None:
    """And the page asks the endpoint beside it, below the path that the app is mounted at."""
    app, wxjsapi = make_app(WXJSAPI_URL_PREFIX="/wxjsapi")
    environ = {"SCRIPT_NAME": root.encode().decode("latin-1")}
    with app.test_request_context("/p", environ_overrides=environ):
        page = Page(wxjsapi.script())
    endpoint = f"{quote(root)}/wxjsapi/"
    source, _ = page.scripts[2]
    assert re.fullmatch(re.escape(f"{endpoint}client.js?") + "[0-9a-f]{8}", source["src"] or "")
    assert page.value_of("endpoint") == endpoint


def test_client_js_comes_from_the_own_host(make_app: MakeApp) -> None:
    """Also where a proxy passes on a prefix that a client made up."""
    app, wxjsapi = make_app(WXJSAPI_URL_PREFIX="/wxjsapi")
    with app.test_request_context("/", environ_overrides={"SCRIPT_NAME": "//evil.example"}):
        body = wxjsapi.script()
    assert ' src="/evil.example/wxjsapi/client.js?' in body
    assert '"//evil.example' not in body


def test_without_a_url_prefix_client_js_stands_in_the_page(make_app: MakeApp) -> None:
    """And there is nobody to ask for another signature."""
    app, wxjsapi = make_app()
    with app.app_context():
        page = Page(wxjsapi.script(url=PAGE))
    assert "preVerifyJSAPI" in page.scripts[2][1]
    assert not re.search("</|<!--", page.scripts[2][1])
    assert page.value_of("endpoint") is None


def test_jssdk_url(make_app: MakeApp) -> None:
    """JSSDK_URL is where the JS-SDK is loaded from, escaped."""
    app, wxjsapi = make_app(WXJSAPI_JSSDK_URL='/static/jweixin.js?a=1&b="><script>')
    with app.app_context():
        text = wxjsapi.script(url=PAGE)
    assert '"/static/jweixin.js?a=1&amp;b=&#34;&gt;&lt;script&gt;"' in text
    assert len(Page(text).scripts) == 3


@pytest.mark.parametrize("nonce", ["r4nd0m+/==", "\"><script>alert(1)</script><a b='"])
def test_nonce_stands_on_both_tags(make_app: MakeApp, nonce: str) -> None:
    """A Content-Security-Policy sees its nonce on either script, and nothing else in it."""
    app, _ = make_app()
    page = Page(rendered(app, "{{ wx_script(nonce=nonce) }}", nonce=nonce))
    assert [attributes.get("nonce") for attributes, _ in page.scripts] == [nonce] * 4
    spare = re.search(r"document\.write\((.*)\)\}catch", page.scripts[1][1])
    assert spare is not None
    assert Page(json.loads(spare[1])).scripts[0][0]["nonce"] == nonce


def test_nonce_in_the_degraded_form(sandbox: Sandbox, make_app: MakeApp) -> None:
    """The script that only warns is under the same policy."""
    app, wxjsapi = make_app()
    sandbox.fail("500", times=None)
    with app.app_context():
        page = Page(wxjsapi.script(url=PAGE, nonce="n0nce"))
    assert [attributes.get("nonce") for attributes, _ in page.scripts] == ["n0nce"] * 3


def test_no_nonce_by_default(make_app: MakeApp) -> None:
    """Without a policy there is no attribute."""
    app, wxjsapi = make_app()
    with app.app_context():
        assert "nonce=" not in wxjsapi.script(url=PAGE)


HOSTILE = [
    "</script><script>alert(1)</script>",
    "</SCRIPT ><img src=x onerror=alert(1)>",
    "<!--<script>",
    "-->",
    "]]>",
    "'\"`\\'\\\"",
    "\u2028\u2029",
    "\n\r\t\0",
    "&lt;&amp;'",
    "%s%(a)s{}{0}",
    "${alert(1)}",
    "中文😀",
    "\ud83d",
]


def assert_harmless(page: Page) -> None:
    """Scripts and nothing else, and nothing in the last one that could end it."""
    assert set(page.tags) == {"script"}
    assert not set(page.inline) & set("<>'\u2028\u2029\n\r\0")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_name(make_app: MakeApp, text: str) -> None:
    """A name from a list of somebody else's is data."""
    app, wxjsapi = make_app()
    with app.app_context():
        page = Page(wxjsapi.script([text], url=PAGE))
    assert_harmless(page)
    assert page.argument_of("wx.config")["jsApiList"] == [text]


@pytest.mark.parametrize("field", ["title", "desc", "link", "imgUrl"])
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_share(make_app: MakeApp, text: str, field: str) -> None:
    """A title that a visitor wrote is data, for friends and for Moments."""
    app, wxjsapi = make_app()
    with app.app_context():
        page = Page(wxjsapi.script(share={field: text}, url=PAGE))
    assert_harmless(page)
    expected = urljoin(PAGE, text) if field in ("link", "imgUrl") else text
    assert page.argument_of("wx.updateAppMessageShareData")[field] == expected
    if field != "desc":
        assert page.argument_of("wx.updateTimelineShareData")[field] == expected


@pytest.mark.parametrize("text", [text for text in HOSTILE if text.isprintable()])
def test_hostile_url(make_app: MakeApp, text: str) -> None:
    """A page's own URL, which a visitor chooses, is data where it becomes the share link."""
    app, wxjsapi = make_app()
    with app.app_context():
        page = Page(wxjsapi.script(share={}, url=f"{PAGE}&q={text}"))
    assert_harmless(page)
    assert page.argument_of("wx.updateAppMessageShareData")["link"] == f"{PAGE}&q={text}"


def test_hostile_title_through_a_template(make_app: MakeApp) -> None:
    """Jinja's own escaping does not come into it twice."""
    app, _ = make_app()
    title = 'Tom & Jerry\'s "<3"'
    page = Page(rendered(app, "{{ wx_script(share={'title': title}) }}", title=title))
    assert_harmless(page)
    assert page.argument_of("wx.updateAppMessageShareData")["title"] == title


# -- share


def test_share(sandbox: Sandbox, make_app: MakeApp) -> None:
    """Friends get all four fields, Moments have no description; both wait for wx.ready."""
    app, wxjsapi = make_app()
    share = {"title": "T", "desc": "D", "link": "https://a.example/l", "imgUrl": "https://a/i.png"}
    with app.app_context():
        page = Page(wxjsapi.script(share=share, url=PAGE))
    assert page.argument_of("wx.updateAppMessageShareData") == share
    moments = {key: value for key, value in share.items() if key != "desc"}
    assert page.argument_of("wx.updateTimelineShareData") == moments
    before, ready, _ = page.inline.partition("wx.ready(function(){")
    assert ready
    assert "ShareData(" not in before
    assert judge(sandbox, page.argument_of("wx.config"), PAGE) == "config:ok"


@pytest.mark.parametrize(("query", "left"), LINKS)
def test_the_default_link_has_nothing_of_the_visitors(
    make_app: MakeApp, query: str, left: str
) -> None:
    """Who opens the card would be logged in as somebody else, with a code that works once."""
    app, wxjsapi = make_app()
    page = "https://m.example.com/item/7"
    with app.app_context():
        script = Page(wxjsapi.script(share={"title": "T"}, url=f"{page}?{query}"))
        given = Page(wxjsapi.script(share={"link": f"{page}?{query}"}, url=page))
    assert script.argument_of("wx.updateAppMessageShareData")["link"] == page + left
    assert given.argument_of("wx.updateAppMessageShareData")["link"] == f"{page}?{query}"


def test_a_field_of_the_card_that_is_none_is_left_out(make_app: MakeApp) -> None:
    """A column of the database may be empty."""
    app, wxjsapi = make_app()
    with app.app_context():
        share = {"title": "T", "desc": None, "link": None, "imgUrl": None}
        page = Page(wxjsapi.script(share=share, url=PAGE))
    assert page.argument_of("wx.updateAppMessageShareData") == {"title": "T", "link": PAGE}


@pytest.mark.parametrize("share", ["T", [("title", "T")], 5])
def test_a_card_of_a_wrong_type_says_so(make_app: MakeApp, share: Any) -> None:
    """Before there is anything secret in the air."""
    app, wxjsapi = make_app()
    with app.app_context(), pytest.raises(RuntimeError, match=r"^share must be a mapping"):
        wxjsapi.script(share=share, url=PAGE)


def test_a_nonce_may_be_what_returns_it(make_app: MakeApp) -> None:
    """As Flask-Talisman's ``csp_nonce``, which is called for every page."""
    app, wxjsapi = make_app()
    with app.app_context():
        assert wxjsapi.script(nonce=lambda: "n-1", url=PAGE).count('nonce="n-1"') >= 2


def test_a_script_has_its_open_tags_and_its_debug(make_app: MakeApp) -> None:
    """As a config has them."""
    app, wxjsapi = make_app()
    with app.app_context():
        page = Page(wxjsapi.script(open_tag_list=["wx-open-subscribe"], debug=True, url=PAGE))
    config = page.argument_of("wx.config")
    assert (config["openTagList"], config["debug"]) == (["wx-open-subscribe"], True)


def test_share_link_is_the_page_by_default(make_app: MakeApp) -> None:
    """Without a link the page shares itself, without the hash."""
    app, wxjsapi = make_app()
    with app.app_context():
        page = Page(wxjsapi.script(share={"title": "T"}, url=f"{PAGE}#top"))
    assert page.argument_of("wx.updateAppMessageShareData") == {"title": "T", "link": PAGE}
    assert page.argument_of("wx.updateTimelineShareData") == {"title": "T", "link": PAGE}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("/static/i.png", "https://m.example.com/static/i.png"),
        ("i.png", "https://m.example.com/shop/i.png"),
        ("?a=2", "https://m.example.com/shop/item?a=2"),
        ("//cdn.example.com/i.png", "https://cdn.example.com/i.png"),
        ("https://cdn.example.com/i.png?", "https://cdn.example.com/i.png?"),
        ("HTTPS://m.example.com/%7e/?", "HTTPS://m.example.com/%7e/?"),
        ("data:image/png;base64,AA==", "data:image/png;base64,AA=="),
        ("//[", "//["),
        ("/中文?q=%E4%B8%AD", "https://m.example.com/中文?q=%E4%B8%AD"),
    ],
)
def test_share_urls_are_made_whole(make_app: MakeApp, given: str, sent: str) -> None:
    """``url_for("static", …)`` gives a path, and WeChat shows no picture for one."""
    app, wxjsapi = make_app()
    with app.app_context():
        share = {"link": given, "imgUrl": given}
        page = Page(wxjsapi.script(share=share, url="https://m.example.com/shop/item?a=1"))
    assert page.argument_of("wx.updateAppMessageShareData") == {"link": sent, "imgUrl": sent}
    assert share == {"link": given, "imgUrl": given}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (None, ["scanQRCode", *SHARE_APIS]),
        ([], SHARE_APIS),
        (["a", SHARE_APIS[1]], ["a", SHARE_APIS[1], SHARE_APIS[0]]),
        (SHARE_APIS, SHARE_APIS),
    ],
)
def test_share_adds_its_two_names_once(
    make_app: MakeApp, names: list[str] | None, expected: list[str]
) -> None:
    """The two API names are in the list once, whatever was in it."""
    app, wxjsapi = make_app(WXJSAPI_JS_API_LIST=["scanQRCode"])
    with app.app_context():
        page = Page(wxjsapi.script(names, share={}, url=PAGE))
    assert page.argument_of("wx.config")["jsApiList"] == expected


def test_share_does_not_change_what_it_is_given(make_app: MakeApp) -> None:
    """The caller's list and mapping, and the settings, stay as they are."""
    app, wxjsapi = make_app(WXJSAPI_JS_API_LIST=["scanQRCode"])
    names, share = ["a"], {"title": "T"}
    with app.app_context():
        wxjsapi.script(names, share=share, url=PAGE)
        wxjsapi.script(share=share, url=PAGE)
        assert wxjsapi.config(url=PAGE)["jsApiList"] == ["scanQRCode"]
    assert (names, share) == (["a"], {"title": "T"})


def test_no_share_by_default(make_app: MakeApp) -> None:
    """A page that shares nothing asks for nothing."""
    app, wxjsapi = make_app()
    with app.app_context():
        page = Page(wxjsapi.script(["a"], url=PAGE))
    assert page.argument_of("wx.config")["jsApiList"] == ["a"]
    assert "ShareData" not in page.inline


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize(
    ("share", "said"),
    [
        ({"image": "x"}, "no field 'image'; it has title, desc, link, imgUrl"),
        ({"imgurl": "x"}, "no field 'imgurl'"),
        ({"title": ["T"]}, "title must be a string"),
        ({"title": 5}, "title must be a string"),
    ],
)
def test_bad_share(sandbox: Sandbox, make_app: MakeApp, share: Any, said: str, down: bool) -> None:
    """A mistake in share shows at once and not only while WeChat is up."""
    app, wxjsapi = make_app()
    if down:
        sandbox.fail("500", times=None)
    with app.app_context(), pytest.raises(RuntimeError, match=said):
        wxjsapi.script(share=share, url=PAGE)


# -- when WeChat is down


def test_script_when_wechat_is_down(sandbox: Sandbox, make_app: MakeApp) -> None:
    """The page renders: the JS-SDK is loaded, and the console says what is missing."""
    app, _ = make_app()
    sandbox.fail(45009, times=None)
    page = Page(rendered(app, "{{ wx_script(['chooseImage'], share={'title': 'T'}) }}"))
    assert_harmless(page)
    assert page.scripts[0][0]["src"] == "https://res.wx.qq.com/open/js/jweixin-1.6.0.js"
    assert "console.warn(" in page.inline
    assert "wx.config(" not in page.inline
    assert "wx.ready" not in page.inline


def logged_by_script(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What pages without a ticket have told; that is said behind them."""
    return [record for record in caplog.records if "Pages render without" in record.getMessage()]


def test_script_logs_an_outage_once(
    sandbox: Sandbox, make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    """A busy page does not fill the log, and the line says why."""
    app, wxjsapi = make_app()
    sandbox.fail(40125, times=None)
    with app.app_context():
        for _ in range(3):
            wxjsapi.script(url=PAGE)
    wait_until(lambda: logged_by_script(caplog), SOON, "the log has it")
    [record] = logged_by_script(caplog)
    assert record.levelno == logging.WARNING
    assert "40125" in record.getMessage()
    assert sandbox.app_secret not in caplog.text


def test_script_logs_the_next_outage_again(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    """After a page that had its ticket the next one that has none is news."""
    with Sandbox(ticket_lifetime=1).serve() as sandbox:
        app, wxjsapi = make_app(WXJSAPI_API_BASE_URL=sandbox.url)
        with app.app_context():
            sandbox.fail("500")
            wxjsapi.script(url=PAGE)
            # One whose second is over before it was read is followed by another.
            wait_until(lambda: "wx.config(" in wxjsapi.script(url=PAGE))
            sandbox.fail("500", times=None)
            wait_until(lambda: wxjsapi.status().state == "invalid", SOON)
            wxjsapi.script(url=PAGE)
    wait_until(lambda: len(logged_by_script(caplog)) == 2, SOON, "the log has both")


def test_script_does_not_wait_for_a_wechat_that_hangs(
    sandbox: Sandbox, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page waits for the script's own limit and not for that of the renewal."""
    monkeypatch.setattr("flask_wxjsapi._js_api.SCRIPT_TIMEOUT", 0.1)
    app, wxjsapi = make_app(WXJSAPI_REFRESH_TIMEOUT=60)
    sandbox.fail("hang", times=None)
    pages: list[Markup] = []

    def view() -> None:
        with app.app_context():
            pages.append(wxjsapi.script(url=PAGE))

    thread = threading.Thread(target=view, daemon=True)
    thread.start()
    thread.join(SOON)
    sandbox.heal()
    assert "console.warn(" in pages[0]


VIEWS: dict[str, Callable[[WxJsApi], Any]] = {
    "config": lambda wxjsapi: wxjsapi.config(),
    "ticket": lambda wxjsapi: wxjsapi.ticket,
    "access_token": lambda wxjsapi: wxjsapi.access_token,
    "wx_config": lambda wxjsapi: render_template_string("{{ wx_config()|tojson }}"),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_no_ticket_is_a_503(
    sandbox: Sandbox, make_app: MakeApp, view: Callable[[WxJsApi], Any]
) -> None:
    """Where nobody catches it the browser gets 503 and Retry-After, and nothing of the reason."""
    app, wxjsapi = make_app()
    app.add_url_rule("/", "page", lambda: view(wxjsapi))
    sandbox.fail(40164, times=None)
    response = app.test_client().get("/")
    assert response.status_code == 503
    assert 600 < int(response.headers["Retry-After"]) <= 900
    for inner in (sandbox.app_secret, sandbox.app_id, "40164", "whitelist", sandbox.url):
        assert inner not in response.text


def test_retry_after_is_at_least_a_second(sandbox: Sandbox, make_app: MakeApp) -> None:
    """A browser that comes back in 0 s would not be told anything."""
    app, wxjsapi = make_app()
    app.add_url_rule("/", "page", lambda: wxjsapi.config())
    sandbox.fail("500")
    assert app.test_client().get("/").headers["Retry-After"] == "1"


# -- several apps, several accounts


def test_two_apps_with_one_extension(sandbox: Sandbox) -> None:
    """An app's settings and ticket are its own, in whatever order the two are used."""
    sandbox.add_account("wx2", "secret2")
    wxjsapi, apps = WxJsApi(), [Flask("one"), Flask("two")]
    apps[0].config.update(account(sandbox, JS_API_LIST=["one"]), TESTING=True)
    apps[1].config.update(
        account(sandbox, APP_ID="wx2", APP_SECRET="secret2", JS_API_LIST=["two"]), TESTING=True
    )
    for app in apps:
        wxjsapi.init_app(app)
    seen = []
    for app in [*apps, *apps]:
        with app.app_context():
            config = wxjsapi.config(url=PAGE)
            assert judge(sandbox, config, PAGE) == "config:ok"
            seen.append((config["appId"], config["jsApiList"], wxjsapi.ticket))
    assert [names for _, names, _ in seen] == [["one"], ["two"], ["one"], ["two"]]
    assert [app_id for app_id, _, _ in seen[:2]] == [sandbox.app_id, "wx2"]
    assert seen[:2] == seen[2:]
    assert seen[0][2] != seen[1][2]


def test_the_context_decides_between_two_apps(sandbox: Sandbox) -> None:
    """Inside a request of one app the other's context can be pushed and left again."""
    sandbox.add_account("wx2", "secret2")
    wxjsapi, one, two = WxJsApi(), Flask("one"), Flask("two")
    one.config.update(account(sandbox), TESTING=True)
    two.config.update(account(sandbox, APP_ID="wx2", APP_SECRET="secret2"), TESTING=True)
    for app in (one, two):
        wxjsapi.init_app(app)
    with one.app_context():
        with two.app_context():
            assert wxjsapi.config(url=PAGE)["appId"] == "wx2"
        assert wxjsapi.config(url=PAGE)["appId"] == sandbox.app_id


@pytest.fixture
def two_accounts(sandbox: Sandbox) -> tuple[Flask, WxJsApi, WxJsApi]:
    """One app with an official account and that of its shop."""
    sandbox.add_account("wx2", "secret2")
    app = Flask("tests")
    app.config.update(account(sandbox, JS_API_LIST=["main"]), TESTING=True)
    app.config.update(
        account(sandbox, "shop", APP_ID="wx2", APP_SECRET="secret2", JS_API_LIST=["shop"])
    )
    return app, WxJsApi(app), WxJsApi(app, name="shop")


def test_two_accounts_in_one_app(
    sandbox: Sandbox, two_accounts: tuple[Flask, WxJsApi, WxJsApi]
) -> None:
    """Two accounts have their own login, ticket and options."""
    app, main, shop = two_accounts
    assert app.extensions["wxjsapi"] == {"default": main, "shop": shop}
    with app.app_context():
        assert main.ticket != shop.ticket
        assert main.access_token != shop.access_token
        for wxjsapi, app_id, names in ((main, sandbox.app_id, ["main"]), (shop, "wx2", ["shop"])):
            config = wxjsapi.config(url=PAGE)
            assert (config["appId"], config["jsApiList"]) == (app_id, names)
            assert judge(sandbox, config, PAGE) == "config:ok"


def test_two_accounts_in_a_template(
    sandbox: Sandbox, two_accounts: tuple[Flask, WxJsApi, WxJsApi]
) -> None:
    """The second account's globals bear its name."""
    app, _, _ = two_accounts
    text = rendered(app, "{{ wx_config().appId }} {{ shop_wx_config().appId }}")
    assert text.split() == [sandbox.app_id, "wx2"]
    for name, app_id in (("wx_script", sandbox.app_id), ("shop_wx_script", "wx2")):
        page = Page(rendered(app, f"{{{{ {name}() }}}}"))
        assert page.argument_of("wx.config")["appId"] == app_id


def test_one_account_fails_alone(
    sandbox: Sandbox, two_accounts: tuple[Flask, WxJsApi, WxJsApi]
) -> None:
    """An account whose login is wrong leaves the other one alone."""
    app, main, shop = two_accounts
    sandbox.fail(40125)
    with app.app_context():
        with pytest.raises(TicketUnavailable):
            assert main.ticket
        assert shop.ticket
        assert main.status().last_error
        assert shop.status().last_error is None


def test_default_account_alone_adds_no_other_globals(make_app: MakeApp) -> None:
    """The globals of an app are those of its accounts."""
    app, _ = make_app()
    assert {name for name in app.jinja_env.globals if "wx_" in name} == {"wx_config", "wx_script"}


def test_named_account_alone(sandbox: Sandbox) -> None:
    """A named account needs no default one beside it."""
    app = Flask("tests")
    app.config.update(account(sandbox, "shop"), TESTING=True)
    shop = WxJsApi(app, name="shop")
    with app.app_context():
        assert judge(sandbox, shop.config(url=PAGE), PAGE) == "config:ok"
    assert {name for name in app.jinja_env.globals if "wx_" in name} == {
        "shop_wx_config",
        "shop_wx_script",
    }


# -- status()


def test_status_before_anything(sandbox: Sandbox, make_app: MakeApp) -> None:
    """A status asks WeChat nothing, so at first there is nothing."""
    app, wxjsapi = make_app()
    with app.app_context():
        status = wxjsapi.status()
    assert dataclasses.asdict(status) == {
        "state": "invalid",
        "issued_at": None,
        "expires_at": None,
        "refresh_at": None,
        "refreshed_by": None,
        "last_error": None,
        "retry_at": None,
        "app_id": sandbox.app_id,
    }
    assert sandbox.calls == {}


def test_status_with_a_ticket(make_app: MakeApp) -> None:
    """With a ticket it tells the times, and never the ticket."""
    app, wxjsapi = make_app(WXJSAPI_REFRESH_AHEAD=300)
    with app.app_context():
        ticket, status = wxjsapi.ticket, wxjsapi.status()
    assert status.state == "fresh"
    assert status.issued_at is not None
    assert status.expires_at == status.issued_at + 7200
    assert status.refresh_at == status.expires_at - 300
    assert status.refreshed_by == "this process"
    assert (status.last_error, status.retry_at) == (None, None)
    assert ticket not in repr(status)


def test_status_is_frozen(make_app: MakeApp) -> None:
    """A status is a statement and no handle."""
    app, wxjsapi = make_app()
    with app.app_context(), pytest.raises(dataclasses.FrozenInstanceError):
        wxjsapi.status().state = "fresh"  # type: ignore[misc]


def test_status_after_a_failure(sandbox: Sandbox, make_app: MakeApp) -> None:
    """A failure is told with its advice and the time of the next try."""
    app, wxjsapi = make_app()
    sandbox.fail(40164, times=None)
    with app.app_context():
        with pytest.raises(TicketUnavailable):
            assert wxjsapi.ticket
        status = wxjsapi.status()
    assert status.state == "invalid"
    assert status.last_error is not None
    assert "40164" in status.last_error
    assert "whitelist" in status.last_error
    assert status.retry_at is not None
    assert status.retry_at > time.time()


def test_status_after_a_recovery(sandbox: Sandbox, make_app: MakeApp) -> None:
    """A success ends the failure's story."""
    app, wxjsapi = make_app()
    sandbox.fail(40164)
    with app.app_context():
        with pytest.raises(TicketUnavailable):
            assert wxjsapi.ticket
        wxjsapi.refresh()
        status = wxjsapi.status()
    assert (status.state, status.last_error, status.retry_at) == ("fresh", None, None)


# -- refresh()


@pytest.fixture
def changing() -> Iterator[Sandbox]:
    """A WeChat that gives a new ticket on every call."""
    with Sandbox(ticket="new").serve() as sandbox:
        yield sandbox


def test_refresh_brings_a_new_ticket(changing: Sandbox, make_app: MakeApp) -> None:
    """A refresh asks WeChat although the ticket is good, and returns what came."""
    app, wxjsapi = make_app(WXJSAPI_API_BASE_URL=changing.url)
    with app.app_context():
        old = wxjsapi.ticket
        new = wxjsapi.refresh()
        assert new != old
        assert wxjsapi.ticket == new
    assert changing.calls["getticket"] == 2


def test_refresh_as_the_first_use(sandbox: Sandbox, make_app: MakeApp) -> None:
    """A refresh needs no ticket before it."""
    app, wxjsapi = make_app()
    with app.app_context():
        assert wxjsapi.refresh() == wxjsapi.ticket
    assert sandbox.calls == {"stable_token": 1, "getticket": 1}


def test_second_refresh_within_ten_seconds(changing: Sandbox, make_app: MakeApp) -> None:
    """Somebody who leans on the button costs one call."""
    app, wxjsapi = make_app(WXJSAPI_API_BASE_URL=changing.url)
    with app.app_context():
        first = wxjsapi.refresh()
        assert [wxjsapi.refresh() for _ in range(5)] == [first] * 5
    assert changing.calls["getticket"] == 1


@pytest.mark.parametrize(
    ("fault", "kind"), [(40125, WeChatAPIError), (-1, WeChatAPIError), ("html", TransportError)]
)
def test_refresh_raises_what_happened(
    sandbox: Sandbox, make_app: MakeApp, fault: Any, kind: type[Exception]
) -> None:
    """An operator sees the real error and not that there is no ticket."""
    app, wxjsapi = make_app()
    sandbox.fail(fault)
    with app.app_context(), pytest.raises(kind) as caught:
        wxjsapi.refresh()
    assert type(caught.value) is kind


def test_failed_refresh_keeps_the_ticket(sandbox: Sandbox, make_app: MakeApp) -> None:
    """Pages go on, and within 10 s a second refresh returns what there is."""
    app, wxjsapi = make_app()
    with app.app_context():
        ticket = wxjsapi.ticket
        sandbox.fail("500", times=None)
        with pytest.raises(TransportError):
            wxjsapi.refresh()
        calls = sandbox.calls.total()
        assert wxjsapi.ticket == ticket
        assert wxjsapi.refresh() == ticket
    assert sandbox.calls.total() == calls


def test_failed_refresh_without_a_ticket(sandbox: Sandbox, make_app: MakeApp) -> None:
    """With nothing to return a second refresh within 10 s says why, and asks nobody."""
    app, wxjsapi = make_app()
    sandbox.fail(40125)
    with app.app_context():
        with pytest.raises(WeChatAPIError):
            wxjsapi.refresh()
        with pytest.raises(TicketUnavailable) as caught:
            wxjsapi.refresh()
    assert isinstance(caught.value.__cause__, WeChatAPIError)
    assert sandbox.calls == {"stable_token": 1}


def test_refresh_passes_over_the_back_off(sandbox: Sandbox, make_app: MakeApp) -> None:
    """After a corrected mistake nobody waits a quarter of an hour."""
    app, wxjsapi = make_app()
    sandbox.fail(40164)
    with app.app_context():
        with pytest.raises(TicketUnavailable):
            assert wxjsapi.ticket
        assert wxjsapi.refresh() == wxjsapi.ticket


# -- signals


def test_refreshed_signal(sandbox: Sandbox, make_app: MakeApp) -> None:
    """Each kind that was renewed is told with account and end, and without its value."""
    app, wxjsapi = make_app()
    heard: queue.Queue[tuple[Any, dict[str, Any]]] = queue.Queue()

    def receiver(sender: Any, **facts: Any) -> None:
        heard.put((sender, facts))

    with ticket_refreshed.connected_to(receiver, app), app.app_context():
        values = wxjsapi.ticket, wxjsapi.access_token
        told = [heard.get(timeout=SOON) for _ in range(2)]
        expires_at = wxjsapi.status().expires_at
    for sender, facts in told:
        assert sender is app
        assert facts.keys() == {"account", "app_id", "kind", "expires_at"}
        assert (facts["account"], facts["app_id"]) == ("default", sandbox.app_id)
        assert facts["expires_at"] == pytest.approx(expires_at, abs=SOON)
        assert not any(value in repr(facts) for value in values)
    assert [facts["kind"] for _, facts in told] == [ACCESS_TOKEN, JSAPI_TICKET]


def test_failed_signal(sandbox: Sandbox, make_app: MakeApp) -> None:
    """A failure is told with the error itself."""
    app, wxjsapi = make_app()
    heard: queue.Queue[tuple[Any, dict[str, Any]]] = queue.Queue()

    def receiver(sender: Any, **facts: Any) -> None:
        heard.put((sender, facts))

    sandbox.fail(40125)
    with ticket_refresh_failed.connected_to(receiver, app), app.app_context():
        with pytest.raises(TicketUnavailable):
            assert wxjsapi.ticket
        sender, facts = heard.get(timeout=SOON)
    assert sender is app
    assert facts.keys() == {"account", "app_id", "kind", "error"}
    assert (facts["account"], facts["app_id"]) == ("default", sandbox.app_id)
    assert facts["kind"] == ACCESS_TOKEN
    assert facts["error"].errcode == 40125
    assert sandbox.app_secret not in f"{facts!r}{facts['error']}"


def test_signal_of_a_named_account(two_accounts: tuple[Flask, WxJsApi, WxJsApi]) -> None:
    """A receiver can tell the accounts of an app apart."""
    app, _, shop = two_accounts
    heard: queue.Queue[str] = queue.Queue()

    def receiver(sender: Any, account: str, **facts: Any) -> None:
        heard.put(account)

    with ticket_refreshed.connected_to(receiver, app), app.app_context():
        assert shop.ticket
        assert {heard.get(timeout=SOON), heard.get(timeout=SOON)} == {"shop"}


def test_signal_runs_in_the_apps_context(make_app: MakeApp) -> None:
    """A receiver can use the app's database, whichever thread renewed."""
    app, wxjsapi = make_app()
    heard: queue.Queue[Any] = queue.Queue()

    def receiver(sender: Any, **facts: Any) -> None:
        heard.put(current_app._get_current_object())  # type: ignore[attr-defined]

    with ticket_refreshed.connected_to(receiver, app):
        with app.app_context():
            assert wxjsapi.ticket
        assert heard.get(timeout=SOON) is app


def test_receiver_that_raises(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged without its text, and neither the page nor another receiver suffers."""
    app, wxjsapi = make_app()
    heard: queue.Queue[str] = queue.Queue()

    def bad(sender: Any, **facts: Any) -> None:
        raise RuntimeError("postgres://user:hunter2@host")

    def good(sender: Any, kind: str, **facts: Any) -> None:
        heard.put(kind)

    with (
        ticket_refreshed.connected_to(bad, app),
        ticket_refreshed.connected_to(good, app),
        app.app_context(),
    ):
        assert wxjsapi.ticket
        assert [heard.get(timeout=SOON) for _ in range(2)] == [ACCESS_TOKEN, JSAPI_TICKET]
        wait_until(lambda: caplog.text.count("raised RuntimeError") == 2, SOON)
    assert "wxjsapi-ticket-refreshed" in caplog.text
    assert "test_extension.py" in caplog.text
    assert "hunter2" not in caplog.text
    told = [vars(record)["wxjsapi"] for record in caplog.records if "receiver" in record.message]
    assert [facts["kind"] for facts in told] == [ACCESS_TOKEN, JSAPI_TICKET]
    assert {facts["app_id"] for facts in told} == {app.config["WXJSAPI_APP_ID"]}


# -- several workers


@pytest.mark.parametrize(
    ("config", "has_workers", "is_told"),
    [
        ({}, True, True),
        ({"CACHE_TYPE": "SimpleCache"}, True, True),
        ({}, False, False),
        ({"WXJSAPI_CACHE": {"CACHE_TYPE": "SimpleCache"}}, True, False),
        ({"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": "unused"}, True, False),
    ],
)
def test_several_workers_without_a_cache_in_common_are_a_warning(
    make_app: MakeApp,
    caplog: pytest.LogCaptureFixture,
    config: dict[str, Any],
    has_workers: bool,
    is_told: bool,
) -> None:
    """Once in each, as soon as a request tells that the server has them."""
    app, _ = make_app(**config)
    for _ in range(2):
        app.test_client().get("/", environ_overrides={"wsgi.multiprocess": has_workers})

    def is_told_by_now() -> bool:
        return all(thread.name != "wxjsapi-aside" for thread in threading.enumerate())

    wait_until(is_told_by_now, SOON)
    told = [record.levelname for record in caplog.records if "several worker" in record.message]
    assert told == ["WARNING"] * is_told


# -- the background thread


@pytest.fixture
def make_background(sandbox: Sandbox) -> Iterator[MakeApp]:
    """Apps whose thread is stopped at the end."""
    made: list[tuple[Flask, WxJsApi]] = []

    def make(*, testing: bool = False, **changes: Any) -> tuple[Flask, WxJsApi]:
        app = Flask("tests")
        app.config.update(account(sandbox, **changes), TESTING=testing)
        made.append((app, WxJsApi(app)))
        return made[-1]

    yield make
    for app, wxjsapi in made:
        wxjsapi.close(app)
        for thread in threads_of(app):
            thread.join(SOON)


def test_first_request_starts_the_thread(make_background: MakeApp) -> None:
    """A request of any kind will do, one for a page that is not there too."""
    app, _ = make_background()
    assert threads_of(app) == []
    app.test_client().get("/nothing-here")
    [thread] = threads_of(app)
    assert thread.daemon


def test_first_use_starts_the_thread(make_background: MakeApp) -> None:
    """So will a use outside a request, in a consumer of a queue for example."""
    app, wxjsapi = make_background()
    with app.app_context():
        assert wxjsapi.ticket
    assert len(threads_of(app)) == 1


def test_many_requests_start_one_thread(make_background: MakeApp) -> None:
    """The thread is started once."""
    app, _ = make_background()
    barrier = threading.Barrier(8)

    def visit() -> None:
        barrier.wait(SOON)
        app.test_client().get("/")

    visitors = [threading.Thread(target=visit) for _ in range(8)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert len(threads_of(app)) == 1


def test_thread_fetches_the_ticket_by_itself(sandbox: Sandbox, make_background: MakeApp) -> None:
    """The ticket is there before anybody asks for it."""
    app, wxjsapi = make_background()
    wxjsapi.start(app)
    wait_until(lambda: sandbox.calls["getticket"] == 1, SOON, "the thread fetched a ticket")


@pytest.mark.parametrize(
    ("testing", "wanted", "runs"),
    [
        (False, None, True),
        (True, None, False),
        (True, True, True),
        (False, False, False),
    ],
)
def test_background_refresh(
    make_background: MakeApp, testing: bool, wanted: bool | None, runs: bool
) -> None:
    """BACKGROUND_REFRESH decides, and without it a test has no thread."""
    app, wxjsapi = make_background(testing=testing, BACKGROUND_REFRESH=wanted)
    wxjsapi.start(app)
    app.test_client().get("/")
    assert len(threads_of(app)) == runs


def test_testing_is_read_when_the_thread_would_start(make_background: MakeApp) -> None:
    """Tests set ``app.testing`` after the factory has made the app."""
    app, _ = make_background()
    app.testing = True
    app.test_client().get("/")
    assert threads_of(app) == []
    app.testing = False
    app.test_client().get("/")
    assert len(threads_of(app)) == 1


def test_close_ends_the_thread(make_background: MakeApp) -> None:
    """After close() the thread ends, no request brings it back, and a caller renews."""
    app, wxjsapi = make_background()
    wxjsapi.start(app)
    [thread] = threads_of(app)
    wxjsapi.close(app)
    thread.join(SOON)
    assert not thread.is_alive()
    app.test_client().get("/")
    assert threads_of(app) == []
    with app.app_context():
        assert wxjsapi.ticket


def test_start_after_close(make_background: MakeApp) -> None:
    """start() takes close() back."""
    app, wxjsapi = make_background()
    wxjsapi.start(app)
    [first] = threads_of(app)
    wxjsapi.close(app)
    wxjsapi.start(app)
    first.join(SOON)
    [second] = threads_of(app)
    assert second is not first


def test_close_before_anything(make_background: MakeApp) -> None:
    """An app that is closed before its first request has no thread to stop."""
    app, wxjsapi = make_background()
    wxjsapi.close(app)
    app.test_client().get("/")
    assert threads_of(app) == []


# -- the embedded WeChat


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Sandbox]]:
    """The process's own sandbox, a new one for the test."""
    monkeypatch.setattr(sandbox_module, "_embedded", {})
    yield sandbox_module.embedded
    sandbox_module.embedded().close()


@pytest.mark.parametrize(
    ("debug", "testing", "accepted"),
    [(False, False, False), (True, False, True), (False, True, True)],
)
def test_embedded_sandbox_is_for_development(debug: bool, testing: bool, accepted: bool) -> None:
    """A typing error in production must not end in pages that play WeChat."""
    app = Flask("tests")
    app.debug, app.testing = debug, testing
    app.config.update(
        WXJSAPI_APP_ID="wx1", WXJSAPI_APP_SECRET="any", WXJSAPI_API_BASE_URL="sandbox"
    )
    if accepted:
        WxJsApi(app)
        assert "wxjsapi" in app.extensions
    else:
        with pytest.raises(RuntimeError, match=r'^WXJSAPI_API_BASE_URL = "sandbox" .*debug'):
            WxJsApi(app)


@pytest.mark.parametrize("app_id", ["wx1", "wx0000000000000000"])
@pytest.mark.parametrize("mode", ["debug", "testing"])
def test_embedded_sandbox(embedded: Callable[[], Sandbox], mode: str, app_id: str) -> None:
    """With any AppID and secret a page is signed so that the sandbox's phone accepts it."""
    app = Flask("tests")
    setattr(app, mode, True)
    app.config.update(
        WXJSAPI_APP_ID=app_id,
        WXJSAPI_APP_SECRET="any-secret",
        WXJSAPI_API_BASE_URL="sandbox",
        WXJSAPI_BACKGROUND_REFRESH=False,
    )
    wxjsapi = WxJsApi(app)
    with app.app_context():
        config = wxjsapi.config(url=PAGE)
        assert wxjsapi.refresh()
    assert judge(embedded(), config, PAGE) == "config:ok"


def test_embedded_sandbox_for_two_apps(embedded: Callable[[], Sandbox]) -> None:
    """A factory makes an app for every test, with the same account."""
    for name in ("one", "two"):
        app = Flask(name)
        app.config.update(
            TESTING=True,
            WXJSAPI_APP_ID="wx1",
            WXJSAPI_APP_SECRET="any-secret",
            WXJSAPI_API_BASE_URL="sandbox",
        )
        wxjsapi = WxJsApi(app)
        with app.app_context():
            assert judge(embedded(), wxjsapi.config(url=PAGE), PAGE) == "config:ok"


# -- the user's own server and provider


class Table(TicketServer):
    """Keeps tickets in a dict, and notes who came."""

    def __init__(self) -> None:
        self.rows: dict[str, Credential] = {}
        self.keys: set[str] = set()
        self.apps: set[Any] = set()

    def find(self, key: str) -> Credential | None:
        self._note(key)
        return self.rows.get(key)

    def save(self, key: str, credential: Credential) -> None:
        self._note(key)
        self.rows[key] = credential

    def _note(self, key: str) -> None:
        self.keys.add(key)
        self.apps.add(current_app._get_current_object())  # type: ignore[attr-defined]


class TableByClass(Table):
    """A server that the extension makes itself."""

    made: list[TableByClass] = []  # noqa: RUF012 - what the class was asked to make

    def __init__(self) -> None:
        super().__init__()
        self.made.append(self)


def test_ticket_server_keeps_tickets_only(make_app: MakeApp) -> None:
    """A server that ignores its key must not have the token written over the ticket."""
    table = Table()
    app, wxjsapi = make_app(WXJSAPI_TICKET_SERVER=table)
    with app.app_context():
        ticket = wxjsapi.ticket
        assert wxjsapi.access_token
        wait_until(lambda: table.rows, SOON, "the ticket was saved")
        wxjsapi.refresh()
    [key] = table.keys
    assert key.endswith(JSAPI_TICKET)
    assert len(key) <= 200
    assert table.rows[key].value == ticket
    assert table.apps == {app}


def test_ticket_server_is_shared(sandbox: Sandbox, make_app: MakeApp) -> None:
    """A second app with the same server, as another process would be, asks WeChat nothing."""
    table = Table()
    first, wxjsapi = make_app(WXJSAPI_TICKET_SERVER=table)
    with first.app_context():
        ticket = wxjsapi.refresh()
    second, other = make_app(WXJSAPI_TICKET_SERVER=table)
    with second.app_context():
        assert other.ticket == ticket
        assert other.status().refreshed_by == "another process"
    assert sandbox.calls["getticket"] == 1


@pytest.mark.parametrize("path", [TableByClass, "tests.test_extension:TableByClass"], ids=str)
def test_ticket_server_class(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, path: Any) -> None:
    """A class or its path is made into one object, on first use and not before."""
    monkeypatch.setattr(TableByClass, "made", [])
    app, wxjsapi = make_app(WXJSAPI_TICKET_SERVER=path)
    assert TableByClass.made == []
    with app.app_context():
        ticket = wxjsapi.refresh()
        assert wxjsapi.status().state == "fresh"
    [table] = TableByClass.made
    assert [row.value for row in table.rows.values()] == [ticket]


def test_access_token_provider(sandbox: Sandbox, make_app: MakeApp) -> None:
    """The provider's token is the one tickets are asked for with, and none is asked for here."""
    upstream = WeChat(sandbox.url, sandbox.app_id, sandbox.app_secret)
    given: list[Credential] = []

    def provider(rejected: str | None) -> Credential:
        given.append(upstream.fetch(ACCESS_TOKEN, parent=None, rejected=None, timeout=SOON))
        assert rejected is None
        return given[-1]

    app, wxjsapi = make_app(WXJSAPI_ACCESS_TOKEN_PROVIDER=provider, WXJSAPI_APP_SECRET=None)
    with app.app_context():
        assert judge(sandbox, wxjsapi.config(url=PAGE), PAGE) == "config:ok"
        assert wxjsapi.access_token == given[0].value
    assert len(given) == 1
    assert sandbox.calls == {"stable_token": 1, "getticket": 1}  # the one being the provider's


def test_access_token_provider_hears_of_a_rejected_token(
    sandbox: Sandbox, make_app: MakeApp
) -> None:
    """When WeChat no longer takes its token the provider is told which one that was."""
    upstream = WeChat(sandbox.url, sandbox.app_id, sandbox.app_secret, token_endpoint="token")
    asked: list[str | None] = []

    def provider(rejected: str | None) -> Credential:
        asked.append(rejected)
        return upstream.fetch(ACCESS_TOKEN, parent=None, rejected=None, timeout=SOON)

    app, wxjsapi = make_app(WXJSAPI_ACCESS_TOKEN_PROVIDER=provider)
    with app.app_context():
        token = wxjsapi.access_token
        sandbox.revoke_token()
        assert wxjsapi.ticket
        assert asked == [None, token]
        assert wxjsapi.access_token != token


def test_access_token_provider_that_fails(make_app: MakeApp) -> None:
    """A provider's exception is a missing ticket to a view, with the key in the cause."""

    def provider(rejected: str | None) -> Credential:
        raise KeyError("hunter2")

    app, wxjsapi = make_app(WXJSAPI_ACCESS_TOKEN_PROVIDER=provider)
    with app.app_context(), pytest.raises(TicketUnavailable) as caught:
        assert wxjsapi.ticket
    assert "WXJSAPI_ACCESS_TOKEN_PROVIDER raised KeyError" in str(caught.value.__cause__)
    assert "hunter2" not in str(caught.value.__cause__)


def test_nobody_listens(make_app: MakeApp) -> None:
    """A WeChat that is not there at all is a missing ticket like any other."""
    app, wxjsapi = make_app(WXJSAPI_API_BASE_URL=f"http://127.0.0.1:{free_port()}")
    with app.app_context(), pytest.raises(TicketUnavailable) as caught:
        assert wxjsapi.ticket
    assert "Connection refused" in str(caught.value.__cause__)
