"""What the documentation says is run: every block of every page, against the sandbox.

A page's Python blocks are run in order in one namespace that is prepared for it; ``PYTHON`` says
how each of them is treated. Blocks in other languages go to the checker of their language in
``LANGUAGES``. A block that neither knows fails its page, and so does a block more than ``PYTHON``
lists.

Run against stand-ins, since the packages are not ours to install: prometheus_client, wechatpy,
WeRoBot and Celery. Shown and not run: Java, and the output of programs.
"""

from __future__ import annotations

import ast
import configparser
import contextlib
import dataclasses
import hashlib
import importlib.util
import io
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
import requests
from flask import Flask, Response, render_template_string, request
from werkzeug.serving import make_server

import flask_wxjsapi
from flask_wxjsapi import WxJsApi, _settings, sandbox, sign
from flask_wxjsapi._engine.provider import _LIMITS
from flask_wxjsapi._platform import PLATFORMS
from flask_wxjsapi._settings import KEYS, Settings
from flask_wxjsapi._storage.cache import CacheServer, CacheSettings
from flask_wxjsapi.sandbox import Sandbox

from .conftest import APP_OF_THE_EXAMPLES, require

ROOT = Path(__file__).parent.parent
PACKAGE = Path(flask_wxjsapi.__file__).parent  # as installed, wherever that is
DOCS = ROOT / "docs"
PAGES = sorted(
    path.relative_to(DOCS).with_suffix("").as_posix()
    for path in DOCS.rglob("*.rst")
    if "_build" not in path.parts
)
ACCOUNT = {"WXJSAPI_APP_ID": "wx0123456789abcdef", "WXJSAPI_APP_SECRET": "the-AppSecret"}
CENTRAL = "https://tickets.example.com"  # what the pages call a central server


def _text(page: str) -> str:
    return (DOCS / f"{page}.rst").read_text(encoding="utf-8")


class Block(NamedTuple):
    where: str
    language: str
    text: str


_BLOCK = re.compile(
    r"^( *)\.\. code-block:: *(\S*)\n((?:\1 +:.*\n)*)[ \t]*\n((?:\1   .*\n|[ \t]*\n)+)", re.M
)


def _blocks(page: str) -> list[Block]:
    text = _text(page)
    return [
        Block(
            f"docs/{page}.rst:{text.count(chr(10), 0, found.start()) + 1}",
            found[2],
            textwrap.dedent(found[4]).strip("\n") + "\n",
        )
        for found in _BLOCK.finditer(text)
    ]


# -- the world of a page ---------------------------------------------------------------------------


class World:
    """What the blocks of one page share."""

    def __init__(
        self, wechat: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str
    ) -> None:
        self.wechat, self.tmp_path, self.monkeypatch, self.page = (
            wechat,
            tmp_path,
            monkeypatch,
            page,
        )
        self.conftest, self.test = "", ""
        app = self.new_app()
        self.namespace: dict[str, Any] = {
            "__name__": "app_of_the_docs",
            "Flask": Flask,
            "WxJsApi": WxJsApi,
            "app": app,
            "render_template_string": render_template_string,
            "time": time,
            "wxjsapi": WxJsApi(app),
        }

    def new_app(self, **config: Any) -> Flask:
        app = Flask("docs", root_path=str(self.tmp_path))
        app.config.update(ACCOUNT, TESTING=True, **config)
        return app

    def take(self, app: Flask) -> None:
        """Let the blocks that follow use another app."""
        self.namespace["app"] = app

    def take_new(self) -> None:
        """The same, with another extension too."""
        self.take(self.new_app())
        self.namespace["wxjsapi"] = WxJsApi(self.app)

    @property
    def app(self) -> Flask:
        app: Flask = self.namespace["app"]
        return app

    def run(self, block: Block) -> None:
        # As many lines before it as the page has, so that a traceback names the right one.
        path, line = block.where.split(":")
        code = compile("\n" * int(line) + block.text, path, "exec")
        exec(code, self.namespace)

    def stand_in(self, module: str, **names: Any) -> None:
        """Put a module in the place of one that is perhaps not installed."""
        made = types.ModuleType(module)
        vars(made).update(names)
        self.monkeypatch.setitem(sys.modules, module, made)

    def check_page(self, app: Flask, url: str = "http://localhost/", **options: Any) -> None:
        """A phone accepts the page."""
        html = app.test_client().get(url.removeprefix("http://localhost"), **options).text
        found = re.search(r"wx\.config\((\{.*?\})\)", html)
        assert found, html
        self.check(json.loads(found[1]), url)

    def check(self, config: dict[str, Any], url: str = "http://localhost/") -> None:
        """A phone accepts what was signed."""
        signed = {key: config[key] for key in ("nonceStr", "timestamp", "signature")}
        app_id = config.get("appId", ACCOUNT["WXJSAPI_APP_ID"])
        assert self.wechat.verify(appId=app_id, url=url, **signed) == "config:ok"

    def check_agent(self, config: dict[str, Any], url: str) -> None:
        """WeCom's phone accepts what was signed for ``wx.agentConfig``."""
        signed = {key: config[key] for key in config if key != "jsApiList"}
        assert self.wechat.verify_agent(url=url, **signed) == "agentConfig:ok"


@pytest.fixture
def wechat(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A sandbox for the account of the docs; apps ask it unless they are told otherwise."""
    with Sandbox(*ACCOUNT.values()).serve() as wechat:
        for name, platform in PLATFORMS.items():
            here = dataclasses.replace(platform, api_url=wechat.url)
            monkeypatch.setitem(PLATFORMS, name, here)
        yield wechat


@pytest.fixture
def world(
    page: str,
    wechat: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pytester: pytest.Pytester,  # first, since it changes the directory
) -> World:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.syspath_prepend(str(tmp_path))
    return World(wechat, tmp_path, monkeypatch, page)


@contextlib.contextmanager
def _served(app: Flask) -> Iterator[str]:
    """The app's URL on a port of its own."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _at(url: str, text: str) -> str:
    """A text of the page with a server of the test in place of the one it names."""
    assert CENTRAL in text
    return text.replace(CENTRAL, url)


# -- how Python blocks are treated -----------------------------------------------------------------

Treatment = Callable[[Block, World], None]


def runs(block: Block, world: World) -> None:
    world.run(block)


def runs_in_a_request(block: Block, world: World) -> None:
    world.take_new()
    with world.app.test_request_context("/"):
        world.run(block)


def is_conftest(block: Block, world: World) -> None:
    """Written to the conftest.py beside the page's tests."""
    world.conftest += block.text


def is_a_test(block: Block, world: World) -> None:
    """Run by pytest, with the page's other tests, when the page has been read."""
    assert "def test_" in block.text or "(TicketServerContract)" in block.text
    world.test += block.text


def makes_a_page(block: Block, world: World) -> None:
    """Its app has a page that a phone accepts."""
    world.run(block)
    world.check_page(world.app)


def makes_the_quickstart(block: Block, world: World) -> None:
    """Its factory, with the page's first template and the environment, makes such a page."""
    (world.tmp_path / "templates").mkdir()
    template = next(b.text for b in _blocks(world.page) if b.language == "html+jinja")
    (world.tmp_path / "templates" / "index.html").write_text(template, encoding="utf-8")
    for key, value in ACCOUNT.items():
        world.monkeypatch.setenv(f"FLASK_{key}", value)
    world.monkeypatch.setenv("FLASK_TESTING", "true")
    world.run(block)
    app = world.namespace["create_app"]()
    world.check_page(app, "http://localhost/?q=%E4%B8%AD")
    world.take(app)


def serves_the_verification_file(block: Block, world: World) -> None:
    """WeChat finds the file that it asks for at the root, and no other one there."""
    world.take(world.new_app())
    (world.tmp_path / "static").mkdir()
    for name in ("MP_verify_r4nd0m.txt", "other.txt"):
        (world.tmp_path / "static" / name).write_text("r4nd0m")
    world.run(block)
    client = world.app.test_client()
    assert client.get("/MP_verify_r4nd0m.txt", buffered=True).text == "r4nd0m"
    assert client.get("/MP_verify_another.txt").status_code == 404
    assert client.get("/other.txt").status_code == 404


def has_two_accounts(block: Block, world: World) -> None:
    world.run(block)
    with world.namespace["create_shop"]().test_request_context():
        assert "wx.config" in render_template_string("{{ shop_wx_script() }}")


def makes_the_accounts(block: Block, world: World) -> None:
    """Each account signs under its own prefix, with its own AppID, for a ticket of its own."""
    world.run(block)
    app = world.namespace["create_app"](TESTING=True)
    ids = {name: app.config[f"{name.upper()}_WXJSAPI_APP_ID"] for name in ("news", "shop")}
    world.wechat.add_account(ids["shop"], app.config["SHOP_WXJSAPI_APP_SECRET"])
    calls = world.wechat.calls.copy()
    for name, app_id in ids.items():
        prefix = app.config[f"{name.upper()}_WXJSAPI_URL_PREFIX"]
        query = {"url": "http://localhost/"}
        answer = app.test_client().get(f"{prefix}/config", query_string=query).json
        assert answer is not None
        assert answer["appId"] == app_id
        world.check(answer)
    assert (world.wechat.calls - calls)["getticket"] == 2
    assert "wxjsapi_shop" in app.blueprints
    world.take(app)


def sets_a_key_of_each_account(block: Block, world: World) -> None:
    made, app = world.app, Flask("loop")
    world.take(app)
    world.run(block)
    world.take(made)
    keys = {key: value for key, value in app.config.items() if "_WXJSAPI_" in key}
    with world.namespace["create_app"](TESTING=True, **keys).test_request_context("/a"):
        for name in ("news", "shop"):
            world.check(world.namespace[name].config(), "https://example.com/a")


def finds_an_account_by_its_name(block: Block, world: World) -> None:
    world.take(world.namespace["create_app"](TESTING=True))
    world.run(block)
    client = world.app.test_client()
    for name in ("news", "shop"):
        answer = client.get(f"/{name}").json
        assert answer is not None
        assert answer["appId"] == world.app.config[f"{name.upper()}_WXJSAPI_APP_ID"]
        world.check(answer, f"http://localhost/{name}")


def is_an_application_of_a_corp(block: Block, world: World) -> None:
    """The settings of an application whose page WeCom's phone accepts."""
    world.take(world.new_app())
    world.run(block)
    settings = Settings.load(world.app.config)
    assert settings.agent_id is not None
    world.wechat.add_agent(settings.app_id, settings.app_secret, settings.agent_id)
    wxjsapi = world.namespace["wxjsapi"] = WxJsApi(world.app)
    with world.app.test_request_context("/a"):
        config = wxjsapi.config()
        world.check(dict(config), "http://localhost/a")
        assert config["beta"]
        world.check_agent(dict(wxjsapi.agent_config()), "http://localhost/a")


def renders_without_a_ticket(block: Block, world: World) -> None:
    """With a ticket the view signs for the application, without one it renders all the same."""
    world.run(block)
    client = world.app.test_client()
    found = re.search(r"agent = (\{.*?\});", client.get("/contacts").text)
    assert found
    world.check_agent(json.loads(found[1]), "http://localhost/contacts")
    cold = world.new_app()
    settings = {key: value for key, value in world.app.config.items() if "WXJSAPI_" in key}
    cold.config.update(settings)
    cold_wxjsapi = WxJsApi(cold)
    cold.add_url_rule("/contacts", view_func=world.app.view_functions["contacts"])
    world.namespace["wxjsapi"], wxjsapi = cold_wxjsapi, world.namespace["wxjsapi"]
    world.wechat.fail("45009", times=None)
    response = cold.test_client().get("/contacts")
    world.wechat.heal()
    world.namespace["wxjsapi"] = wxjsapi
    assert response.status_code == 200
    assert "signature" not in response.text


def signs_a_card(block: Block, world: World) -> None:
    """The signature is that of appendix 4, computed here for itself, with the card ticket."""
    world.run(block)
    before = world.wechat.calls["getticket"]
    answer = world.app.test_client().get("/cards/pjZ8Yt1XGILfi").json
    assert answer is not None
    assert world.wechat.calls["getticket"] == before + 1
    extension = json.loads(answer["cardExt"])
    with world.app.app_context():
        ticket = world.namespace["wxjsapi"].card_ticket
        assert ticket != world.namespace["wxjsapi"].ticket
    values = sorted([ticket, extension["timestamp"], extension["nonce_str"], answer["cardId"]])
    assert extension["signature"] == hashlib.sha1("".join(values).encode()).hexdigest()


def is_a_central_server(block: Block, world: World) -> None:
    """Each client in its settings gets a ticket; the page's JSON has the form of the answer."""
    world.take(world.new_app())
    world.run(block)
    wxjsapi = world.namespace["wxjsapi"] = WxJsApi(world.app)
    with world.app.app_context():
        ticket = wxjsapi.ticket
    shown = next(json.loads(b.text) for b in _blocks(world.page) if b.language == "json")
    path = world.app.config["WXJSAPI_URL_PREFIX"] + "/ticket"
    for token in world.app.config["WXJSAPI_CENTRAL_TOKENS"].values():
        headers = {"Authorization": f"Bearer {token}"}
        answer = world.app.test_client().get(path, headers=headers).json
        assert answer is not None
        assert answer["value"] == ticket
        fixed = {"app_id", "kind"}
        assert {key: answer[key] for key in fixed} == {key: shown[key] for key in fixed}
        assert answer.keys() == shown.keys()
    world.namespace["central"] = world.app


def is_a_client(block: Block, world: World) -> None:
    """It has the server's ticket, with no secret and no call to WeChat, and no access token."""
    app = Flask("client")
    app.testing = True
    central = world.namespace["central"]
    world.take(app)
    world.run(block)
    calls = world.wechat.calls.copy()
    with _served(central) as url:
        app.config["WXJSAPI_CENTRAL_URL"] = _at(url, app.config["WXJSAPI_CENTRAL_URL"])
        wxjsapi = WxJsApi(app)
        with app.test_request_context("/"):
            world.check(dict(wxjsapi.config()))
            with pytest.raises(RuntimeError, match="CENTRAL_URL"):
                _ = wxjsapi.access_token
    assert world.wechat.calls == calls


def configures(block: Block, world: World) -> None:
    """A new app takes these settings, and its cache can be chosen by them."""
    app = world.new_app()
    world.take(app)
    world.run(block)
    WxJsApi(app)


def opens_a_cache(block: Block, world: World) -> None:
    """The same, and the cache is made from them; Redis connects only when it is used."""
    app = world.new_app(CACHE_TYPE="RedisCache")
    world.take(app)
    world.run(block)
    CacheSettings(app.config, Settings.load(app.config).cache).open(app)


def serves_the_wrong_signature(block: Block, world: World) -> None:
    """The mistake that the page warns of is one."""
    world.namespace["app"] = app = world.new_app(CACHE_TYPE="SimpleCache")
    world.namespace["wxjsapi"] = WxJsApi(app)
    world.run(block)


def caches_what_may_be(block: Block, world: World) -> None:
    world.run(block)
    client = world.app.test_client()
    first, second = (client.get(url).text for url in ("/wrong/1", "/wrong/1?from=timeline"))
    assert first == second
    world.check_page(world.app, "http://localhost/articles/1?from=timeline")
    world.check_page(world.app, "http://localhost/articles/1?from=singlemessage")


def signs_behind(
    signed: str, path: str = "/cart", *, prefix: str = "", block_first: bool = False
) -> Treatment:
    """The block makes the app sign what a browser in front of a proxy has."""

    def treat(block: Block, world: World) -> None:
        app = world.new_app()
        world.take(app)
        if block_first:
            world.run(block)
        wxjsapi = WxJsApi(app)
        app.add_url_rule("/cart", view_func=lambda: wxjsapi.config())
        if not block_first:
            world.run(block)
        headers = {
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "example.com",
            "X-Forwarded-Prefix": prefix,
        }
        config = app.test_client().get(path, headers={k: v for k, v in headers.items() if v}).json
        assert config is not None
        world.check(config, signed)

    return treat


def shows_what_is_signed(block: Block, world: World) -> None:
    world.take(world.new_app())
    world.run(block)
    answer = world.app.test_client().get("/signed-url?x=%7E").json
    assert answer is not None
    assert "/signed-url?x=%7E" in answer.values()


def takes_the_token_of_a_center(block: Block, world: World) -> None:
    world.take_new()
    with world.app.app_context():
        token = world.namespace["wxjsapi"].access_token
    now = time.time()
    answer = types.SimpleNamespace(value=token, issued_at=now, expires_at=now + 7200)
    world.namespace["token_center"] = types.SimpleNamespace(read=lambda other_than: answer)
    world.take(world.new_app())
    world.run(block)
    wxjsapi = WxJsApi(world.app)
    calls = world.wechat.calls.copy()
    with world.app.app_context():
        assert wxjsapi.ticket
    assert world.wechat.calls - calls == {"getticket": 1}


def serves_client_js(block: Block, world: World) -> None:
    """With these settings the script is there, and the endpoint signs a page of its host."""
    world.take(world.new_app())
    world.run(block)
    WxJsApi(world.app)
    prefix, url = world.app.config["WXJSAPI_URL_PREFIX"], "http://localhost/a?b=1&c=%7E"
    client = world.app.test_client()
    for name in ("client.js", "client.mjs", "client.d.ts"):
        assert client.get(f"{prefix}/{name}").status_code == 200
    config = client.get(f"{prefix}/config", query_string={"url": url}).json
    assert config is not None
    world.check(config, url)


def is_a_ticket_server(block: Block, world: World) -> None:
    world.take(world.new_app())
    world.run(block)
    wxjsapi = WxJsApi(world.app)
    with world.app.app_context():
        ticket = wxjsapi.ticket
    (record,) = world.namespace["RECORDS"].values()
    assert record["value"] == ticket


def has_a_lock(block: Block, world: World) -> None:
    world.run(block)
    server = world.namespace["LockingTicketServer"]()
    mine, other = server.lock("key"), server.lock("key")
    assert mine.acquire(blocking=False)
    assert not other.acquire(blocking=False)
    other.release()
    assert not other.acquire(blocking=False)
    mine.release()
    assert other.acquire(blocking=False)
    other.release()


def asks_the_embedded_sandbox(block: Block, world: World) -> None:
    app = Flask("embedded")
    app.config.update(ACCOUNT)
    world.take(app)
    world.run(block)


def counts_for_prometheus(block: Block, world: World) -> None:
    """Against stand-ins for Counter and Gauge, through a renewal and a failure."""
    counted: list[tuple[str, ...]] = []
    gauges: list[Callable[[], float]] = []
    counter = types.SimpleNamespace(
        labels=lambda *names: types.SimpleNamespace(inc=lambda: counted.append(names))
    )
    world.stand_in(
        "prometheus_client",
        Counter=lambda name, text, labels: counter,
        Gauge=lambda name, text: types.SimpleNamespace(set_function=gauges.append),
    )
    world.run(block)
    world.wechat.fail(-1)
    wxjsapi = world.namespace["wxjsapi"]
    with world.app.app_context(), contextlib.suppress(flask_wxjsapi.WxJsApiError):
        wxjsapi.refresh()
    assert counted == [("default", "access_token", "WeChatAPIError")]
    # Past the back-off, and the pause between two refresh(), in another app with the same name.
    other = world.new_app()
    wxjsapi = world.namespace["wxjsapi"] = WxJsApi(other)
    world.take(other)
    with other.app_context():
        wxjsapi.refresh()
    assert counted[1:] == [("default", kind, "ok") for kind in ("access_token", "jsapi_ticket")]
    assert gauges[0]() == 1


class _WeChatClient:
    """As much of wechatpy's as the docs use."""

    def __init__(
        self,
        appid: str,
        secret: str,
        access_token: str | None = None,
        session: Any = None,
        timeout: float | None = None,
        auto_retry: bool = True,
    ) -> None:
        self.menu = types.SimpleNamespace(get=lambda: {"token": access_token})
        self.jsapi = types.SimpleNamespace(
            get_jsapi_ticket=lambda: "ticket",
            get_jsapi_signature=lambda nonce, ticket, now, url: sign(
                ticket=ticket, noncestr=nonce, timestamp=now, url=url
            ),
        )


def wechatpy_uses_our_token(block: Block, world: World) -> None:
    world.stand_in("wechatpy", WeChatClient=_WeChatClient)
    world.take_new()
    wxjsapi = world.namespace["wxjsapi"]
    world.run(block)
    answer = world.app.test_client().get("/menu").json
    with world.app.app_context():
        assert answer == {"token": wxjsapi.access_token}


def takes_the_token_from_elsewhere(block: Block, world: World) -> None:
    world.take_new()
    with world.app.app_context():
        token = world.namespace["wxjsapi"].access_token
    asked: list[Any] = []

    def get(url: str, params: Any, timeout: float) -> Any:
        asked.append(params)
        return types.SimpleNamespace(json=lambda: {"access_token": token, "expires_in": 7200})

    world.take(world.new_app())
    del world.app.config["WXJSAPI_APP_SECRET"]
    world.run(block)
    world.monkeypatch.setattr(requests, "get", get)
    wxjsapi = WxJsApi(world.app)
    with world.app.app_context():
        assert wxjsapi.ticket
    assert asked == [None]


def takes_the_authorizers_token(block: Block, world: World) -> None:
    app = world.new_app()
    wxjsapi = WxJsApi(app)
    with app.app_context():
        token = wxjsapi.access_token
    now = time.time()

    def authorizer_access_token(app_id: str, other_than: str | None) -> Any:
        return types.SimpleNamespace(value=token, issued_at=now, expires_at=now + 7200)

    world.namespace["platform"] = types.SimpleNamespace(
        authorizer_access_token=authorizer_access_token
    )
    world.run(block)
    platform_app = Flask("platform")
    platform_app.config["TESTING"] = True
    world.namespace["add_shop"](platform_app, ACCOUNT["WXJSAPI_APP_ID"])
    with platform_app.app_context():
        assert world.namespace["shop"].ticket


def starts_the_thread_under_gunicorn(block: Block, world: World) -> None:
    """Its settings are gunicorn's, and its hook starts the thread of a worker."""
    from gunicorn.config import KNOWN_SETTINGS

    app = world.new_app(WXJSAPI_BACKGROUND_REFRESH=True)
    wxjsapi = WxJsApi(app)
    world.stand_in("shop", wxjsapi=wxjsapi)
    namespace: dict[str, Any] = {}
    exec(block.text, namespace)
    settings = {name for name in namespace if not name.startswith("__")}
    assert settings <= {setting.name for setting in KNOWN_SETTINGS}
    before = set(threading.enumerate())
    namespace["post_worker_init"](types.SimpleNamespace(wsgi=app))
    started = {thread.name for thread in set(threading.enumerate()) - before}
    with app.app_context():
        assert wxjsapi.ticket  # and so nothing is under way when the next block counts
    wxjsapi.close(app)
    assert "wxjsapi-default" in started


def signs_in_a_task(block: Block, world: World) -> None:
    """Against a stand-in for Celery that makes a task of the class it is given."""

    class Task:
        run: Callable[..., Any]

    class Celery:
        def __init__(self, name: str, broker: str, task_cls: type) -> None:
            self.task_cls = task_cls

        def task(self, function: Callable[..., Any]) -> Any:
            return type("task", (self.task_cls,), {"run": staticmethod(function)})()

    world.stand_in("celery", Celery=Celery, Task=Task)
    world.take_new()
    world.run(block)
    url = "https://example.com/a"
    world.check(world.namespace["sign_page"](url), url)


def logs_events_as_json(block: Block, world: World) -> None:
    log = logging.getLogger("flask_wxjsapi")
    level, handlers = log.level, list(log.handlers)
    try:
        world.run(block)
        stream = io.StringIO()
        world.namespace["handler"].setStream(stream)
        app = world.new_app()
        wxjsapi = WxJsApi(app)
        with app.app_context():
            wxjsapi.refresh()
    finally:
        log.setLevel(level)
        log.handlers[:] = handlers
    shown = next(json.loads(b.text) for b in _blocks(world.page) if b.language == "json")
    assert shown in [json.loads(line) for line in stream.getvalue().splitlines()]


def shares_one_ticket(block: Block, world: World) -> None:
    world.run(block)
    tickets = set()
    before = world.wechat.calls["getticket"]
    for name in ("site", "api"):
        app = world.namespace[name]
        app.testing = True
        with app.app_context():
            tickets.add(world.namespace[f"{name}_wxjsapi"].ticket)
    assert len(tickets) == 1
    assert world.wechat.calls["getticket"] == before + 1


def _signs(world: World, name: str) -> dict[str, Any]:
    with world.app.test_request_context("/"):
        config: dict[str, Any] = world.namespace[name]()
    return config


def is_the_old_snippet(block: Block, world: World) -> None:
    """Run against the sandbox in WeChat's place, with an account in place of the dots."""
    world.namespace["request"] = request
    text = block.text.replace("https://api.weixin.qq.com", world.wechat.url)
    text = text.replace("appid=…&secret=…", "appid={}&secret={}".format(*ACCOUNT.values()))
    assert "…" not in text
    world.run(block._replace(text=text))
    world.check(_signs(world, "old_config"))


def is_the_new_one(block: Block, world: World) -> None:
    world.run(block)
    world.check(_signs(world, "new_config"))


def is_wechatpys(block: Block, world: World) -> None:
    world.stand_in("wechatpy", WeChatClient=_WeChatClient)
    world.stand_in("wechatpy.utils", random_string=lambda length: "n" * length)
    world.run(block)
    assert _signs(world, "old_config").keys() == {"timestamp", "nonceStr", "signature"}


def werobot_uses_our_token(block: Block, world: World) -> None:
    class Client:
        def __init__(self, config: dict[str, Any]) -> None:
            self.config = config

        @property
        def token(self) -> str:
            return self.get_access_token()  # type: ignore[attr-defined,no-any-return]

    class WeRoBot:
        def __init__(self, token: str) -> None:
            self.config = {"TOKEN": token}

    world.stand_in("werobot", WeRoBot=WeRoBot)
    world.stand_in("werobot.client", Client=Client)
    world.run(block)
    with world.app.app_context():
        assert world.namespace["robot"].client.token == world.namespace["wxjsapi"].access_token


def is_wechat4js_idea(block: Block, world: World) -> None:
    rows: dict[str, Any] = {}
    world.namespace["dao"] = types.SimpleNamespace(read=rows.get, write=rows.__setitem__)
    world.take(world.new_app())
    world.run(block)
    url = "https://example.com/a"
    with world.app.app_context():
        ticket, config = world.namespace["new_config"](url)
    world.check(config, url)
    assert [row["value"] for row in rows.values()] == [ticket]


#: How each Python block of a page is treated, in order. A page without one is not in it.
PYTHON: dict[str, list[Treatment]] = {
    "index": [makes_a_page],
    "quickstart": [
        makes_the_quickstart,
        serves_the_verification_file,
        runs_in_a_request,
        has_two_accounts,
    ],
    "sharing": [serves_the_wrong_signature, caches_what_may_be],
    "configuration": [configures],
    "caches": [
        opens_a_cache,  # files
        opens_a_cache,  # Redis
        opens_a_cache,  # Redis with time limits
        opens_a_cache,  # Sentinel
        configures,  # Cluster connects when it is made
        configures,  # memcached needs a client library
        opens_a_cache,  # WXJSAPI_CACHE
    ],
    "urls": [
        runs,
        runs,
        signs_behind("https://example.com/cart"),
        signs_behind("https://example.com/shop/cart", prefix="/shop"),
        signs_behind("http://localhost/shop/cart", "/shop/cart"),
        signs_behind("https://example.com/cart", block_first=True),
        shows_what_is_signed,
    ],
    "custom-servers": [is_a_ticket_server, is_a_test, has_a_lock],
    "accounts": [makes_the_accounts, sets_a_key_of_each_account, finds_an_account_by_its_name],
    "wecom": [is_an_application_of_a_corp, renders_without_a_ticket],
    "cards": [signs_a_card],
    "central": [is_a_central_server, is_a_client],
    "testing": [is_conftest, is_a_test, is_a_test, is_a_test, runs, asks_the_embedded_sandbox],
    "recipes": [
        counts_for_prometheus,
        wechatpy_uses_our_token,
        takes_the_token_from_elsewhere,
        takes_the_authorizers_token,
        starts_the_thread_under_gunicorn,
        signs_in_a_task,
        logs_events_as_json,
        shares_one_ticket,
    ],
    "coming-from": [
        is_the_old_snippet,
        is_the_new_one,
        is_wechatpys,
        is_the_new_one,
        werobot_uses_our_token,
        is_wechat4js_idea,
    ],
    "zh/quickstart": [
        makes_the_quickstart,
        serves_the_verification_file,
        opens_a_cache,
        opens_a_cache,
        takes_the_token_of_a_center,
        signs_behind("https://example.com/cart"),
        runs_in_a_request,
    ],
    "single-page-apps": [serves_client_js, configures],
    "zh/single-page-apps": [serves_client_js, configures],
    "zh/sharing": [serves_the_wrong_signature, caches_what_may_be],
    "zh/troubleshooting": [shows_what_is_signed, runs_in_a_request],
}


# -- the other languages ---------------------------------------------------------------------------

TEMPLATE_VALUES = {
    "article": {"number": 1, "title": "</script>", "summary": "From Flask"},
    "csp_nonce": "r4nd0m",
}


def check_template(block: Block, world: World) -> None:
    """Rendered, with the values a view would pass; what it shows is signed for this page."""
    with world.app.test_request_context("/"):
        html = render_template_string(block.text, **TEMPLATE_VALUES)
    assert "wx.config({" in html
    assert "</script>'" not in html
    if "nonce=" in block.text:
        assert html.count("<script") == html.count('nonce="r4nd0m"') > 1


def check_nginx(block: Block, world: World) -> None:
    """Every line opens a block, closes one or ends a directive."""
    depth = 0
    for line in filter(None, (line.split("#")[0].strip() for line in block.text.splitlines())):
        assert line[-1] in "{};", line
        depth += line.count("{") - line.count("}")
        assert depth >= 0, line
    assert depth == 0


def check_ini(block: Block, world: World) -> None:
    assert configparser.ConfigParser().read_string(block.text) is None


def check_json(block: Block, world: World) -> None:
    json.loads(block.text)


def check_javascript(block: Block, world: World) -> None:
    """Parsed by Node where there is one; as a module, which allows all that a page may have."""
    assert _is_balanced(block.text)
    if node := shutil.which("node"):
        path = world.tmp_path / "block.mjs"
        path.write_text(block.text, encoding="utf-8")
        result = subprocess.run([node, "--check", path], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr


def check_html(block: Block, world: World) -> None:
    """Its scripts are JavaScript."""
    for script in re.findall(r"<script[^>]*>(.*?)</script>", block.text, flags=re.S):
        check_javascript(block._replace(text=script), world)


def check_brackets(block: Block, world: World) -> None:
    """Shown and not run: a language that is not ours."""
    assert _is_balanced(block.text)


def is_output(block: Block, world: World) -> None:
    """What a program prints, or a drawing: for the eye alone."""


def _is_balanced(text: str) -> bool:
    pairs = {")": "(", "]": "[", "}": "{"}
    open_ones: list[str] = []
    for character in re.sub(r"\"[^\"\n]*\"|'[^'\n]*'|//.*", "", text):
        if character in pairs.values():
            open_ones.append(character)
        elif character in pairs and (not open_ones or open_ones.pop() != pairs[character]):
            return False
    return not open_ones


def check_shell(block: Block, world: World) -> None:
    """Each command exists, with these options; settings are accepted, sandboxes are asked."""
    settings: dict[str, str] = {}
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.match(r"\w+=", words[0]):  # make demo and TTL=30 make demo
            name, _, value = words.pop(0).partition("=")
            if name.startswith("FLASK_"):
                settings[name] = value
        if not words:
            continue
        command, arguments = words[0], words[1:]
        if command == "export":
            settings.update(argument.partition("=")[::2] for argument in arguments)
            continue
        assert command in COMMANDS, f"{block.where}: {line}"
        COMMANDS[command](arguments, world)
    _check_settings(settings, world)


def check_console(block: Block, world: World) -> None:
    """Lines after a dollar are commands, the others what they print."""
    lines = re.findall(r"^\$ ((?:.*\\\n)*.*)", block.text, flags=re.M)
    assert lines, f"{block.where} has no command after '$ '"
    check_shell(block._replace(text="\n".join(lines)), world)


def _check_settings(settings: dict[str, str], world: World) -> None:
    with world.monkeypatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        app = Flask("environment")
        app.config.from_prefixed_env()
    for name in settings:
        if "WXJSAPI_" in name:
            account = (
                name.removeprefix("FLASK_").partition("WXJSAPI_")[0].rstrip("_").lower()
                or "default"
            )
            own = {
                k.replace("WXJSAPI_", _settings.key_prefix(account)): v for k, v in ACCOUNT.items()
            }
            Settings.load(own | dict(app.config), account)


def _check_pip(arguments: list[str], world: World) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert arguments[0] == "install"
    for argument in arguments[1:]:
        if found := re.match(r"(?:Flask-WxJsApi|\.)\[(\w+)\]", argument):
            assert found[1] in setup["options.extras_require"]


def _check_make(arguments: list[str], world: World) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in arguments:
        assert re.search(rf"^[^#\n]*\b{target}\b.*:", makefile, flags=re.M), target


def _check_flask(arguments: list[str], world: World) -> None:
    """The subcommand is Flask's or ours, with options that it has."""
    from flask.cli import FlaskGroup

    group: Any = FlaskGroup(load_dotenv=False)
    words = _without_options(group, arguments)
    name = words.pop(0)
    command: Any = world.app.cli.commands.get(name) or group.commands.get(name)
    assert command, f"there is no flask {name}"
    while hasattr(command, "commands"):
        words = _without_options(command, words)
        if not words:
            return
        assert words[0] in command.commands, f"there is no flask {name} {words[0]}"
        command = command.commands[words.pop(0)]
    _without_options(command, words)


def _without_options(command: Any, words: list[str]) -> list[str]:
    """The words after a click command's own options, which must be options it has."""
    options = {name: p for p in command.params for name in (*p.opts, *p.secondary_opts)}
    rest: list[str] = []
    words = list(words)
    while words:
        word = words.pop(0)
        if not word.startswith("-") or word == "--":
            rest.append(word)
            if hasattr(command, "commands"):
                return rest + words
            continue
        name, equals, _ = word.partition("=")
        if name == "--help":
            continue
        assert name in options, f"{command.name} has no option {name}"
        if not equals and not getattr(options[name], "is_flag", False):
            words.pop(0)
    return rest


def _check_python(arguments: list[str], world: World) -> None:
    """``python -m flask_wxjsapi.sandbox`` with options that it has, or a line of Python."""
    if arguments[:1] == ["-c"]:
        exec(compile(arguments[1], "-c", "exec"), {})
        return
    if arguments[:1] != ["-m"]:
        assert (ROOT / arguments[0]).exists()
        return
    assert importlib.util.find_spec(arguments[1]), arguments
    if arguments[1] == "flask_wxjsapi.sandbox":
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            sandbox.main(["--help"])
        known = set(re.findall(r"--[a-z-]+", text.getvalue()))
        assert {word for word in arguments[2:] if word.startswith("--")} <= known


def _check_curl(arguments: list[str], world: World) -> None:
    """Sent, to the sandbox of this test in place of the one in the text."""
    method, url, data = "GET", "", []
    words = iter(arguments)
    for word in words:
        if word in ("-X", "--request"):
            method = next(words)
        elif word in ("-d", "--data", "--data-urlencode"):
            data.append(next(words))
            method = "POST" if method == "GET" else method
        elif word in ("-G", "--get"):
            method = "query"
        elif word in ("-H", "--header"):
            next(words)
        elif not word.startswith("-"):
            url = word
    path = urlsplit(url).path
    if not path.startswith("/sandbox"):
        assert path
        return
    if method == "query":
        response = requests.get(
            world.wechat.url + path, params=dict(d.split("=", 1) for d in data), timeout=5
        )
    else:
        response = requests.request(method, world.wechat.url + path, data="".join(data), timeout=5)
    assert response.status_code == 200, response.text
    world.wechat.heal()


def _check_waitress(arguments: list[str], world: World) -> None:
    from waitress.adjustments import Adjustments

    known = {name.replace("_", "-") for name in Adjustments._param_map} | {"call"}
    for word in arguments:
        if word.startswith("--"):
            assert word[2:].partition("=")[0].removeprefix("no-") in known, word


def _check_gunicorn(arguments: list[str], world: World) -> None:
    from gunicorn.config import KNOWN_SETTINGS

    known = {flag for setting in KNOWN_SETTINGS for flag in setting.cli or ()}
    for word in arguments:
        if word.startswith("-"):
            assert word.partition("=")[0] in known, word


def _is_there(arguments: list[str], world: World) -> None:
    """A command of the system's, whose arguments are the reader's own."""


COMMANDS: dict[str, Callable[[list[str], World], None]] = {
    "cd": _is_there,
    "celery": _is_there,
    "curl": _check_curl,
    "flask": _check_flask,
    "git": _is_there,
    "gunicorn": _check_gunicorn,
    "make": _check_make,
    "pip": _check_pip,
    "python": _check_python,
    "redis-cli": _is_there,
    "unset": _is_there,
    "waitress-serve": _check_waitress,
}

#: The checker of each language but Python.
LANGUAGES: dict[str, Treatment] = {
    "bash": check_shell,
    "console": check_console,
    "html": check_html,
    "html+jinja": check_template,
    "ini": check_ini,
    "java": check_brackets,
    "javascript": check_javascript,
    "jinja": check_template,
    "js": check_javascript,
    "json": check_json,
    "nginx": check_nginx,
    "sh": check_shell,
    "shell": check_shell,
    "text": is_output,
}


# -- the tests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_every_block_does_what_it_says(page: str, world: World, pytester: pytest.Pytester) -> None:
    """All blocks of a page are run or checked, in order, templates after the Python they use."""
    blocks = _blocks(page)
    python = [block for block in blocks if block.language == "python"]
    treatments = PYTHON.get(page, [])
    assert len(python) == len(treatments), f"PYTHON[{page!r}] must say what becomes of each block"
    for block, treat in zip(python, treatments, strict=True):
        treat(block, world)
    for block in blocks:
        if block.language != "python":
            assert block.language in LANGUAGES, f"{block.where}: nobody checks {block.language!r}"
            LANGUAGES[block.language](block, world)
    if world.test:
        _run_tests(world, pytester)


def _run_tests(world: World, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(world.conftest)
    pytester.makepyfile(APP_OF_THE_EXAMPLES + "\n" + world.test)
    pytester.chdir()
    world.monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # which takes seconds
    imported = "ignore::pytest.PytestAssertRewriteWarning"  # the plugin, by this suite
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-W", imported)
    outcomes = result.parseoutcomes()
    assert outcomes.get("passed"), outcomes
    assert outcomes.keys() <= {"passed", "skipped"}


class Central:
    """A central server on a port, that counts who asks it for a ticket."""

    def __init__(self, wechat: Sandbox) -> None:
        self.wechat = wechat
        self.answers: list[int] = []  # the statuses
        self.app = app = Flask("central")
        app.config.update(
            ACCOUNT,
            TESTING=True,
            WXJSAPI_API_BASE_URL=wechat.url,
            WXJSAPI_URL_PREFIX="/wxjsapi",
            WXJSAPI_CENTRAL_TOKENS={"billing": self.token},
        )
        self.wxjsapi = WxJsApi(app)

        @app.after_request
        def note(response: Response) -> Response:
            if request.path.endswith("/ticket"):
                self.answers.append(response.status_code)
            return response

        @app.get("/asked")
        def asked() -> list[int]:
            return self.answers

        @app.get("/renew")
        def renew() -> dict[str, str]:
            return {"ticket": self.wxjsapi.refresh()}

    @property
    def token(self) -> str:
        """The one that the page's shell has."""
        found = re.search(r"export TICKET_TOKEN=(\S+)", _text("central"))
        assert found
        return found[1]


@pytest.fixture
def central() -> Iterator[tuple[Central, str]]:
    """One with a WeChat that gives a new ticket each time, and its URL."""
    with Sandbox(*ACCOUNT.values(), ticket="new").serve() as wechat:
        central = Central(wechat)
        with _served(central.app) as url:
            yield central, url


def _block(page: str, words: str) -> str:
    """The block of a page that has these words in it."""
    (found,) = (block.text for block in _blocks(page) if words in block.text)
    return found


def _node(directory: Path, driver: str, *arguments: str, **environment: str) -> Any:
    """What a module prints as JSON."""
    node = shutil.which("node")
    if node is None:
        require("node", "no Node: it is needed for what the pages show in JavaScript")
    (directory / "driver.mjs").write_text(driver, encoding="utf-8")
    result = subprocess.run(
        [str(node), "driver.mjs", *arguments],
        cwd=directory,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_curl_gets_the_ticket_from_a_central_server(central: tuple[Central, str]) -> None:
    """The command of the page, as it stands but for the host, prints what the server answers."""
    server, url = central
    if shutil.which("curl") is None:
        require("curl", "no curl: it is needed for the commands of the pages")
    command = _at(url, _block("central", "curl"))
    result = subprocess.run(["sh", "-ec", command], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    with server.app.app_context():
        assert json.loads(result.stdout)["value"] == server.wxjsapi.ticket
    wrong = command.replace(server.token, "the-token-of-nobody")
    result = subprocess.run(["sh", "-ec", wrong], capture_output=True, text=True, timeout=60)
    assert result.returncode != 0
    assert json.loads(result.stdout).keys() == {"error"}
    assert server.answers == [200, 401]


def test_the_statuses_of_a_central_server_are_those_in_the_table(
    central: tuple[Central, str],
) -> None:
    """Each status of the table is answered to the mistake that it is for, and there is no other."""
    server, url = central
    table = _text("central").split("\nStatus\n")[1].split("\nThe body of an error")[0]
    told = {"Authorization": f"Bearer {server.token}"}
    server.wechat.fail("45009", times=None)
    cold = requests.get(f"{url}/wxjsapi/ticket", headers=told, timeout=20)
    assert cold.headers["Retry-After"]
    server.wechat.heal()
    with server.app.app_context():
        server.wxjsapi.refresh()
    answers = [
        cold,
        requests.get(f"{url}/wxjsapi/ticket", headers=told, timeout=20),
        requests.get(f"{url}/wxjsapi/ticket?kind=access_token", headers=told, timeout=20),
        requests.get(f"{url}/wxjsapi/ticket", timeout=20),
        requests.get(f"{url}/wxjsapi/ticket/ticket", headers=told, timeout=20),
    ]
    statuses = [answer.status_code for answer in answers]
    assert statuses == [503, 200, 400, 401, 404]
    assert {int(status) for status in re.findall(r"^(\d+) ", table, re.M)} == set(statuses)


def _write_node_client(directory: Path, url: str) -> None:
    client = _at(url, _block("central", "export function ticket"))
    (directory / "ticket.mjs").write_text(client, encoding="utf-8")
    signer = _block("central", "export async function config")
    (directory / "config.mjs").write_text(signer, encoding="utf-8")


_HONOURS_EXPIRY = """
import { ticket } from "./ticket.mjs";
let now = 0; // the client's clock, in milliseconds
Object.defineProperty(performance, "now", { value: () => now });
const get = async (path) => (await fetch(process.argv[2] + path)).json();
const steps = [];
const step = async (count) => {
  const tickets = await Promise.all(Array.from({ length: count }, ticket));
  const values = tickets.map(({ value }) => value);
  steps.push({ tickets: [...new Set(values)], asked: (await get("/asked")).length });
};
await step(20);
const renewed = (await get("/renew")).ticket;
now += 7000e3;
await step(5);
now += 200e3;
await step(20);
console.log(JSON.stringify({ steps, renewed }));
"""


def test_the_node_client_asks_again_only_when_the_ticket_ends(
    central: tuple[Central, str], tmp_path: Path
) -> None:
    """Of many callers one asks; all have that ticket until its two hours are over."""
    server, url = central
    _write_node_client(tmp_path, url)
    found = _node(tmp_path, _HONOURS_EXPIRY, url, TICKET_TOKEN=server.token)
    first, later, expired = found["steps"]
    assert [step["asked"] for step in (first, later, expired)] == [1, 1, 2]
    assert later["tickets"] == first["tickets"]
    assert expired["tickets"] == [found["renewed"]]
    assert found["renewed"] not in first["tickets"]


_KEEPS_NO_FAILURE = """
import { ticket } from "./ticket.mjs";
const failures = await Promise.allSettled([ticket(), ticket()]);
const reasons = failures.map((failure) => failure.reason.message);
process.env.TICKET_TOKEN = process.argv[2];
console.log(JSON.stringify({ reasons, then: (await ticket()).value }));
"""


def test_the_node_client_asks_anew_after_a_failure(
    central: tuple[Central, str], tmp_path: Path
) -> None:
    """Those who wait share the failure; the next one asks, and has the ticket."""
    server, url = central
    _write_node_client(tmp_path, url)
    found = _node(tmp_path, _KEEPS_NO_FAILURE, server.token, TICKET_TOKEN="the-token-of-nobody")
    assert server.answers == [401, 200]
    assert len(found["reasons"]) == 2
    assert all("HTTP 401" in reason for reason in found["reasons"])
    with server.app.app_context():
        assert found["then"] == server.wxjsapi.ticket


_SIGNS = """
import { config } from "./config.mjs";
console.log(JSON.stringify(await config(process.argv[2])));
"""


def test_a_phone_accepts_what_node_signs(central: tuple[Central, str], tmp_path: Path) -> None:
    """The page's second module makes an argument of wx.config of what the first one got."""
    server, url = central
    assert "wx0123" not in _block("central", "export async function config")  # the answer has it
    _write_node_client(tmp_path, url)
    page = "https://example.com/a?b=%E4%B8%AD&c=1"
    config = _node(tmp_path, _SIGNS, page, TICKET_TOKEN=server.token)
    signed = {key: config[key] for key in ("appId", "nonceStr", "timestamp", "signature")}
    assert server.wechat.verify(**signed, url=page) == "config:ok"


_REGISTERS = """
const own = globalThis.fetch;
globalThis.fetch = (path) => own(process.argv[2] + path);
await import("./page.mjs");
const url = process.argv[3];
const { options } = await import("@wecom/jssdk");
const refused = await options.getConfigSignature("https://example.org/").catch((e) => e.message);
console.log(JSON.stringify({
  options, refused,
  config: await options.getConfigSignature(url),
  agentConfig: await options.getAgentConfigSignature(url),
}));
"""


def test_wecom_accepts_what_the_signers_of_its_sdk_get(wechat: Sandbox, tmp_path: Path) -> None:
    """The page's two functions, called as a stand-in for @wecom/jssdk, sign for the same page."""
    sdk = tmp_path / "node_modules" / "@wecom" / "jssdk"
    sdk.mkdir(parents=True)
    (sdk / "package.json").write_text('{"type": "module", "exports": "./index.js"}')
    (sdk / "index.js").write_text(
        "export let options; export const register = (o) => { options = o; };"
    )
    (tmp_path / "page.mjs").write_text(_block("wecom", "ww.register"), encoding="utf-8")
    app = Flask("wecom", root_path=str(tmp_path))
    exec(_block("wecom", "WXJSAPI_PLATFORM"), {"app": app})
    app.testing = True
    settings = Settings.load(app.config)
    wechat.add_agent(settings.app_id, settings.app_secret, settings.agent_id or "")
    WxJsApi(app)
    with _served(app) as url:
        page = f"{url}/contacts?a=1&b=%E4%B8%AD"
        found = _node(tmp_path, _REGISTERS, url, page)
    signed = {
        name: {key: found[name][key] for key in ("nonceStr", "timestamp", "signature")}
        for name in ("config", "agentConfig")
    }
    corp, agent = found["options"]["corpId"], found["options"]["agentId"]
    assert wechat.verify(appId=corp, url=page, **signed["config"]) == "config:ok"
    verdict = wechat.verify_agent(corpid=corp, agentid=agent, url=page, **signed["agentConfig"])
    assert verdict == "agentConfig:ok"
    assert "example.org" in found["refused"]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_has_a_language(page: str) -> None:
    """No block escapes the test: there is one way to write one."""
    text = _text(page)
    assert not re.search(r"^ *\.\. (code|sourcecode|parsed-literal|highlight)::", text, flags=re.M)
    assert not re.search(r"^(?! *\.\. ).*::$", text, flags=re.M), "write .. code-block:: LANGUAGE"
    assert text.count(".. code-block::") == len(_blocks(page))
    for path in re.findall(r"\.\. literalinclude:: (\S+)", text):
        assert path.startswith("../examples/"), f"nobody tests {path}"


def test_the_table_of_treatments_has_no_page_too_many() -> None:
    """A page that was renamed takes its entry along."""
    assert set(PYTHON) <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_the_keys_named_on_a_page_exist(page: str) -> None:
    """A setting of ours that a page names is one, and so is one of Flask-Caching's."""
    text = _text(page)
    for key in re.findall(r"WXJSAPI_([A-Z]\w*)", text):
        assert key in KEYS, key
    package = Path(importlib.util.find_spec("flask_caching").origin).parent  # type: ignore[union-attr,arg-type]
    known = "".join(path.read_text() for path in package.rglob("*.py"))
    for key in set(re.findall(r"\bCACHE_[A-Z]\w*", text)):
        assert key in known, key


def test_every_fault_of_the_sandbox_is_in_the_table() -> None:
    """The table has every name that fail() takes, and takes no other."""
    table = _text("testing").split("\nFaults\n")[1].split("\nThe three ticket worlds\n")[0]
    named = {
        name
        for line in re.findall(r"^``.*", table, re.M)
        for name in re.findall(r"``\"(.*?)\"``", line[:26])
    }
    own = {name.partition(":")[0] for name in named} - {"expires", "ticket"}
    words = {name for name in own if re.fullmatch(r"[a-z][a-z-]+", name)}
    assert words == set(sandbox._FAULT_NAMES)
    for name in named - {"expires:JSON", "ticket:JSON"}:
        Sandbox().fail(name)
    for name in re.findall(r"``(\"(?:expires|ticket):[^J].*?\")``", table):
        Sandbox().fail(ast.literal_eval(name))


def test_the_stored_keys_are_those_in_the_table(wechat: Sandbox, monkeypatch: Any) -> None:
    """What is written to a store has a row."""
    written: list[str] = []
    write = CacheServer.write

    def note(self: CacheServer, key: str, value: dict[str, Any], life: float) -> None:
        written.append(key)
        write(self, key, value, life)

    monkeypatch.setattr(CacheServer, "write", note)
    for fault in (None, "stable_token", "getticket"):
        if fault:
            wechat.fail(-1, path=fault)
        app = Flask("stored")
        app.config.update(ACCOUNT, TESTING=True)
        wxjsapi = WxJsApi(app)
        with app.app_context(), contextlib.suppress(flask_wxjsapi.WxJsApiError):
            wxjsapi.refresh()
    app = Flask("others")
    corp = {f"CORP_{key}": value for key, value in ACCOUNT.items()}
    app.config.update(ACCOUNT, TESTING=True, **corp)
    app.config.update(CORP_WXJSAPI_PLATFORM="wecom", CORP_WXJSAPI_AGENT_ID=1000002)
    corp_id, secret = ACCOUNT.values()
    wechat.add_agent(corp_id, secret, "1000002")
    account, corp_account = WxJsApi(app), WxJsApi(app, name="corp")
    with app.app_context():
        assert account.card_ticket
        assert corp_account.agent_config(url="https://example.com/")
    prefix = f"~wxjsapi:{{{urlsplit(wechat.url).netloc}/{ACCOUNT['WXJSAPI_APP_ID']}}}:"
    of_an_agent = f"{prefix}{Settings.load(app.config, 'corp').digest[:8]}-1000002:"
    assert {key for key in written if key.endswith("agent_config_ticket")} == {
        f"{of_an_agent}agent_config_ticket"
    }
    names = {key.removeprefix(of_an_agent).removeprefix(prefix) for key in written}
    names |= {f"{limit.name}.jsapi_ticket" for limit in _LIMITS.values()}
    table = _text("caches").split("\nWhat is stored\n")[1].split("\nYour own use")[0]
    assert set(re.findall(r"^``([a-z_.]+)``", table, re.M)) == names | {"lease"}


def test_every_event_of_the_log_is_in_the_table() -> None:
    """Whoever filters the log finds each event described."""
    source = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    events = set(re.findall(r"_extra\(\s*\"(\w+)\"", source))
    events |= set(re.findall(r"\"event\": \"(\w+)\"", source))
    assert events
    missing = {event for event in events if f"``{event}``" not in _text("reliability")}
    assert not missing


def test_every_public_name_is_in_the_reference() -> None:
    """autodoc has all of them."""
    text = _text("api")
    for name in flask_wxjsapi.__all__:
        assert re.search(rf"^\.\. \w+:: flask_wxjsapi\.{name}$", text, re.M), name
    for name in set(sandbox.__all__) - {"main"}:
        assert re.search(rf"^\.\. \w+:: flask_wxjsapi\.sandbox\.{name}$", text, re.M), name


@pytest.mark.parametrize("page", PAGES)
def test_the_messages_quoted_on_a_page_are_the_codes(page: str) -> None:
    """What a Chinese page quotes in English, a reader will search for."""
    source = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    for quoted in re.findall(r"“([A-Za-z][ -~\n]{15,})”", _text(page)):
        assert " ".join(quoted.split()) in source, quoted


@pytest.mark.slow
def test_the_documentation_builds(tmp_path: Path) -> None:
    """Sphinx has nothing to warn of, and fetches nothing."""
    if not importlib.util.find_spec("sphinx"):
        require("sphinx", "no Sphinx: pip install -e .[docs]")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    result = subprocess.run(
        [*command, "-d", tmp_path / "trees", DOCS, tmp_path / "html"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "html" / "index.html").exists()
