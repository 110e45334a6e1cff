"""Provokes failures of every public method and prints where a secret was seen, as JSON:
``python -m tests.faults.leaking`` with its orders as JSON on standard input.

A process of its own, since tracers change the libraries they watch for good.
"""

from __future__ import annotations

import importlib
import io
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import click
import requests
import sentry_sdk
from flask import Flask
from werkzeug.debug import DebuggedApplication
from werkzeug.test import Client

import flask_wxjsapi
from flask_wxjsapi import Credential, TicketServer, WxJsApi
from flask_wxjsapi.sandbox import Sandbox, protocol
from tests import wire
from tests.faults.leaks import Seen, Watchers, look_at_error

PAGE = "https://m.example.com/page"
#: Half of a surrogate pair, which survives JSON and cannot be encoded.
HALF = "https://m.example.com/\ud83d"
DEAD = "http://127.0.0.1:9"  # "discard", which nobody listens on

# What must not be seen beside what the sandbox issues. Long, and like nothing else.
PASSWORD = "pAsSwOrD-of-redis-0123456789"
BEARER = "bEaReR-token-of-a-client-0123456789"
OTHER_BEARER = "bEaReR-of-a-stranger-0123456789"
PROVIDED = "tOkEn-of-the-provider-0123456789"
OF_PROVIDER = "sEcReT-of-the-provider-0123456789"
HEXADECIMAL = "fedcba9876543210fedcba9876543210"
APP_ID, APP_SECRET = "wx00112233445566aa", "a0b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5"
CORP_ID, CORP_SECRET = "ww0123456789abcdef", "sEcReT-of-an-agent-0123456789"
SECRETS = {PASSWORD, BEARER, OTHER_BEARER, PROVIDED, OF_PROVIDER, HEXADECIMAL, CORP_SECRET}

Ways = dict[str, Callable[[Any], object]]  # of a WxJsApi or of an account

METHODS: Ways = {
    "ticket": lambda w: w.ticket,
    "access_token": lambda w: w.access_token,
    "card_ticket": lambda w: w.card_ticket,
    "config": lambda w: w.config(["scanQRCode"], url=PAGE),
    "script": lambda w: w.script(["scanQRCode"], url=PAGE, share={"title": "x"}),
    "refresh": lambda w: w.refresh(),
    "status": lambda w: w.status(),
}
AGENT: Ways = {"agent_config": lambda w: w.agent_config(["selectExternalContact"], url=PAGE)}


def _raise(*args: object) -> Any:
    raise RuntimeError("the user's own mistake")


#: Mistakes in a view, while there is a ticket.
MISTAKES: Ways = {
    "config: half a character": lambda w: w.config([], url=HALF),
    "config: no whole url": lambda w: w.config([], url="/page"),
    "config: no url": lambda w: w.config([], url=7),
    "config: one name": lambda w: w.config("scanQRCode", url=PAGE),
    "config: names of a wrong type": lambda w: w.config([object()], url=PAGE),
    "config: names that raise": lambda w: w.config(map(_raise, [1]), url=PAGE),
    "config: one open tag": lambda w: w.config([], open_tag_list="tag", url=PAGE),
    "config: no names at all": lambda w: w.config(7, url=PAGE),
    "script: half a character": lambda w: w.script([], url=HALF),
    "script: names of a wrong type": lambda w: w.script([None], url=PAGE),
    "script: unknown field of a card": lambda w: w.script([], url=PAGE, share={"url": "x"}),
    "script: card of a wrong type": lambda w: w.script([], url=PAGE, share="x"),
    "script: field of a wrong type": lambda w: w.script([], url=PAGE, share={"title": 7}),
    "script: nonce that raises": lambda w: w.script([], url=PAGE, nonce=_raise),
    "script: open tags that raise": lambda w: w.script(
        [], url=PAGE, open_tag_list=map(_raise, [1])
    ),
    "agent_config: no agent": lambda w: w.agent_config([], url=PAGE),
    "agent_config: half a character": lambda w: w.agent_config([], url=HALF),
    "account: no loader": lambda w: w.account("wx0123456789abcdef").ticket,
    "account: no text": lambda w: w.account(None),
    "sign: half a character": lambda w: flask_wxjsapi.sign(
        ticket=w.ticket, noncestr="n", timestamp=1, url=HALF
    ),
    "sign_card: half a character": lambda w: flask_wxjsapi.sign_card([w.card_ticket, "\ud83d"]),
}
#: Requests to the endpoints, with the bearer token that each has.
REQUESTS = {
    "no url": ("config", ""),
    "foreign url": ("config?url=https://evil.example/", ""),
    "signed": (f"config?url={PAGE}", ""),
    "rejected": (f"config?url={PAGE}&rejected=1&nonceStr=n&timestamp=1&signature=s", ""),
    "unknown argument": (f"config?url={PAGE}&ticket=1", ""),
    "no bearer": ("ticket", ""),
    "wrong bearer": ("ticket", f"Bearer {OTHER_BEARER}"),
    "basic": ("ticket", f"Basic {BEARER}"),
    "unknown kind": ("ticket?kind=x", f"Bearer {BEARER}"),
    "unknown account": ("ticket?app_id=wxffffffffffffffff", f"Bearer {BEARER}"),
}
COMMANDS = {
    "status": ["status"],
    "status --json": ["status", "--json"],
    "refresh": ["refresh"],
    "sign": ["sign", PAGE],
    "sign nonsense": ["sign", "page"],
    "verify": ["verify", PAGE, "--nonce", "n", "--timestamp", "1", "--signature", "s"],
    "verify nonsense": ["verify", "x", "--nonce", "n", "--timestamp", "t", "--signature", "s"],
    "doctor": ["doctor"],
    "unknown account": ["--app-id", "wxffffffffffffffff", "status"],
}


# -- the user's own code -------------------------------------------------------------------------


def unreachable(path: str) -> requests.ConnectionError:
    """As requests says it. Without a call, which tracers would show: it is the user's own."""
    url = f"Max retries exceeded with url: {path}"
    return requests.ConnectionError(111, f"HTTPConnectionPool(host='127.0.0.1', port=9): {url}")


class OverRequests(TicketServer):
    """A ticket server somewhere else, whose errors have the ticket in their URL."""

    def find(self, key: str) -> Credential | None:
        return None

    def save(self, key: str, credential: Credential) -> None:
        raise unreachable(f"/{key}?value={credential.value}&key={PASSWORD}")


class Quoting(TicketServer):
    """A ticket server whose errors quote what they were given."""

    def find(self, key: str) -> Credential | None:
        raise LookupError(f"SELECT … password={PASSWORD}")

    def save(self, key: str, credential: Credential) -> None:
        raise RuntimeError(f"INSERT … {credential.value!r}")


def raising(rejected: str | None) -> Credential:
    raise RuntimeError(f"GET https://tokens.example/?secret={OF_PROVIDER}")


def raising_behind(rejected: str | None) -> Credential:
    try:
        raising(rejected)
    except RuntimeError as error:
        raise ValueError(f"no token for {OF_PROVIDER}") from error
    raise AssertionError


def over_requests(rejected: str | None) -> Credential:
    raise unreachable(f"/token?secret={OF_PROVIDER}")


def of_wrong_type(rejected: str | None) -> Any:
    return {"access_token": PROVIDED}


def unknown_to_wechat(rejected: str | None) -> Credential:
    return Credential(PROVIDED, 1_700_000_000.0, 4_000_000_000.0)


def loader(answer: object) -> Callable[[str], Any]:
    def load(app_id: str) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return load


# -- a failure, and all that is seen of it -------------------------------------------------------


@dataclass
class Scene:
    """Where failures take place, and what was seen of each."""

    watchers: Watchers
    sandbox: Sandbox
    gateway: str
    secrets: set[str]
    found: dict[str, dict[str, Any]] = field(default_factory=dict)

    def config(self, **config: Any) -> dict[str, Any]:
        account = {
            "APP_ID": APP_ID,
            "APP_SECRET": APP_SECRET,
            "API_BASE_URL": self.sandbox.url,
            "REFRESH_TIMEOUT": 5,
            "URL_PREFIX": "/wxjsapi",
            "PAGE_HOSTS": ["m.example.com"],
            "CENTRAL_TOKENS": {"client": BEARER},
        }
        own = {key: value for key, value in config.items() if not key.startswith("CACHE")}
        found = {f"WXJSAPI_{key}": value for key, value in (account | own).items() if value != ""}
        caches = {key: value for key, value in config.items() if key.startswith("CACHE")}
        return {"TESTING": True, **found, **caches}

    def app(self, load: Callable[[str], Any] | None = None, **config: Any) -> tuple[Flask, WxJsApi]:
        app, wxjsapi = bare_app(self.config(**config)), WxJsApi()
        if load is not None:
            wxjsapi.account_loader(load)
        wxjsapi.init_app(app)
        self.watchers.watch(app)
        return app, wxjsapi

    @contextmanager
    def failure(self, name: str) -> Iterator[Seen]:
        """What is seen meanwhile counts for one failure."""
        seen = Seen()
        with sentry_sdk.start_transaction(name="failure"):
            yield seen
        self.watchers.collect(seen)
        finds = seen.finds(self.secrets | _issued(self.sandbox))
        self.found[name] = {
            "failed": seen.has_failed,
            "places": seen.counts(),
            "finds": finds,
        }

    def attempt(self, name: str, app: Flask, use: Callable[[], object]) -> None:
        """Call something as a view does, and again in a view under the debugger."""
        with self.failure(name) as seen:
            with app.test_request_context("/"):
                try:
                    use()
                except Exception as error:
                    look_at_error(seen, error)
                    sentry_sdk.capture_exception(error)
                    logging.getLogger("app").exception("caught")
            self._under_the_debugger(seen, app, use)

    def _under_the_debugger(self, seen: Seen, app: Flask, use: Callable[[], object]) -> None:
        app.view_functions["fail"] = lambda: (use(), "")[1]
        app.debug = True
        app.config.update(TRAP_HTTP_EXCEPTIONS=True, PROPAGATE_EXCEPTIONS=True)
        errors = io.StringIO()
        with Client(DebuggedApplication(app, evalex=True)).get(
            "/fail", errors_stream=errors
        ) as response:
            seen.add("debugger", response.get_data(as_text=True), errors.getvalue())
        app.debug = False
        app.config.update(TRAP_HTTP_EXCEPTIONS=False, PROPAGATE_EXCEPTIONS=False)

    def request(self, name: str, app: Flask, path: str, authorization: str) -> None:
        with self.failure(name) as seen:
            headers = {"Authorization": authorization} if authorization else {}
            response = app.test_client().get(f"/wxjsapi/{path}", headers=headers)
            seen.has_failed = response.status_code >= 400
            seen.add("answer", response.headers, response.get_data(as_text=True))

    def command(self, name: str, app: Flask, args: list[str]) -> None:
        with self.failure(name) as seen:
            result = app.test_cli_runner().invoke(args=["wxjsapi", *args])
            seen.has_failed = result.exit_code != 0
            seen.add("output", result.output)
            if result.exception is not None and not isinstance(result.exception, SystemExit):
                look_at_error(seen, result.exception)

    def try_all(self, what: str, app: Flask, wxjsapi: WxJsApi, ways: Ways) -> None:
        for name, way in ways.items():
            self.attempt(f"{what}: {name}", app, partial(way, wxjsapi))

    def try_everything(self, what: str, app: Flask, wxjsapi: WxJsApi, ways: Ways) -> None:
        self.try_all(what, app, wxjsapi, ways)
        for name, (path, authorization) in REQUESTS.items():
            self.request(f"{what}: GET {name}", app, path, authorization)
        for name, args in COMMANDS.items():
            self.command(f"{what}: flask wxjsapi {name}", app, args)


def bare_app(config: dict[str, Any]) -> Flask:
    """An app with a view that is replaced for each failure."""
    app = Flask("tests")
    app.config.update(config)
    app.add_url_rule("/fail", "fail", str)
    return app


def _issued(sandbox: Sandbox) -> set[str]:
    """What the sandbox has issued, and its accounts' secrets."""
    found = set()
    agents = [agent for corp in sandbox._registry.corps.values() for agent in corp.agents]
    for account in (sandbox._registry.accounts[APP_ID], *agents):
        found |= {account.app_secret, *account.tokens}
        found |= {ticket.value for tickets in account.tickets.values() for ticket in tickets}
    return found


# -- the failures --------------------------------------------------------------------------------


def mistakes(scene: Scene) -> None:
    app, wxjsapi = scene.app()
    with app.app_context():
        _ = wxjsapi.ticket, wxjsapi.card_ticket
    scene.try_everything("mistake", app, wxjsapi, MISTAKES)


def upstream(scene: Scene) -> None:
    """Nothing valid at hand, and WeChat fails in each of its ways."""
    faults = ("40125", "40001", "-1", "500", "html", "close", "hang", "redirect", "ticket:7")
    for fault in faults:
        scene.sandbox.fail(fault, times=None)
        timeout = 0.3 if fault == "hang" else 5
        scene.try_all(f"WeChat {fault}", *scene.app(REFRESH_TIMEOUT=timeout), METHODS)
        scene.sandbox.heal()
    legacy = scene.app(API_BASE_URL=DEAD, TOKEN_ENDPOINT="token")
    scene.try_everything("nobody listens", *legacy, METHODS)
    scene.try_all("broken gateway", *scene.app(API_BASE_URL=scene.gateway), METHODS)
    wrong = scene.app(APP_SECRET=HEXADECIMAL)
    scene.try_everything("wrong secret", *wrong, METHODS)


def echo(scene: Scene) -> None:
    """A gateway answers with what it was sent."""
    text = f"you sent {APP_SECRET}"
    with patch.dict(protocol._ERRMSG, {40125: text}):
        scene.sandbox.fail("40125", times=None)
        scene.try_everything("echo", *scene.app(), METHODS)
        scene.sandbox.heal()


def wecom(scene: Scene) -> None:
    """WeCom's secret goes in a query."""
    corp = {"APP_ID": CORP_ID, "APP_SECRET": CORP_SECRET, "PLATFORM": "wecom", "AGENT_ID": "7"}
    scene.try_all("WeCom away", *scene.app(**corp, API_BASE_URL=DEAD), METHODS | AGENT)
    app, wxjsapi = scene.app(**corp)
    with app.app_context():
        _ = wxjsapi.ticket
    half: Ways = {"agent_config: half a character": MISTAKES["agent_config: half a character"]}
    scene.try_all("WeCom", app, wxjsapi, half)


def central(scene: Scene) -> None:
    """The central server is away, refuses, and echoes."""
    for url in (DEAD, scene.sandbox.url, scene.gateway):
        client = {"CENTRAL_URL": f"{url}/wxjsapi", "CENTRAL_TOKEN": BEARER, "APP_SECRET": ""}
        app = scene.app(**client, API_BASE_URL="", CENTRAL_TOKENS="")
        scene.try_all(f"central server {url}", *app, METHODS)


def providers(scene: Scene) -> None:
    for provider in (raising, raising_behind, over_requests, of_wrong_type, unknown_to_wechat):
        app = scene.app(ACCESS_TOKEN_PROVIDER=provider)
        scene.try_all(f"provider {provider.__name__}", *app, METHODS)


def loaders(scene: Scene) -> None:
    """What a loader answers is the user's own, and so is what it raises."""
    secret = APP_SECRET
    answers: dict[str, object] = {
        "raises": RuntimeError(f"SELECT … {secret}"),
        "is over requests": unreachable(f"/?secret={secret}"),
        "answers a text": secret,
        "answers a wrong key": {"APP_SECRET": secret, "REFRESH_AHEAD": 1},
        "answers a wrong value": {"APP_SECRET": secret, "PAGE_HOSTS": 7},
        "answers a number": {"APP_SECRET": 12345678901234567890123456},
        "answers an AppID as the secret": {"APP_SECRET": "wx0123456789abcdef"},
        "answers a wrong secret": {"APP_SECRET": HEXADECIMAL},
        "knows none": None,
    }
    for what, answer in answers.items():
        _with_loader(scene, f"loader {what}", loader(answer))


def _with_loader(scene: Scene, what: str, load: Callable[[str], Any]) -> None:
    app_id = "wx0123456789abcdef"
    app, wxjsapi = scene.app(load, APP_ID="", APP_SECRET="")
    for name, way in METHODS.items():
        scene.attempt(f"{what}: account().{name}", app, partial(way, wxjsapi.account(app_id)))
    scene.request(f"{what}: GET", app, f"config?app_id={app_id}&url={PAGE}", "")
    scene.command(f"{what}: flask wxjsapi doctor", app, ["--app-id", app_id, "doctor"])


def stores(scene: Scene) -> None:
    url = f"redis://user:{PASSWORD}@127.0.0.1:9/0"
    redis = {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": url}
    files = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": "/proc/none"}
    scene.try_everything("no Redis", *scene.app(**redis), METHODS)
    scene.try_everything("no files", *scene.app(**files), METHODS)
    for server in (OverRequests, Quoting):
        app = scene.app(TICKET_SERVER=server)
        scene.try_everything(f"ticket server {server.__name__}", *app, METHODS)


def settings(scene: Scene) -> None:
    """Settings that cannot be right, each with a secret beside it or in it."""
    wrong: dict[str, dict[str, Any]] = {
        "number of a wrong type": {"REFRESH_AHEAD": "200"},
        "secret of digits": {"APP_SECRET": 12345678901234567890123456},
        "exchanged": {"APP_ID": HEXADECIMAL, "APP_SECRET": "wx0123456789abcdef"},
        "a secret for an AppID": {"APP_ID": HEXADECIMAL},
        "secret with a space": {"APP_SECRET": f"{PASSWORD} "},
        "password in the API's URL": {"API_BASE_URL": f"https://u:{PASSWORD}@api.weixin.qq.com"},
        "secret in the API's URL": {"API_BASE_URL": f"https://api.weixin.qq.com/?s={PASSWORD}"},
        "password in the central URL": {"CENTRAL_URL": f"https://u:{PASSWORD}@central.example/x"},
        "bearers in a list": {"CENTRAL_TOKENS": [BEARER]},
        "bearer with a space": {"CENTRAL_TOKENS": {"client": f"{BEARER} x"}},
        "bearer of a wrong type": {"CENTRAL_TOKENS": {"client": [BEARER]}},
        "the same bearer twice": {"CENTRAL_TOKENS": {"a": BEARER, "b": BEARER}},
        "provider that is none": {"ACCESS_TOKEN_PROVIDER": f"no.module:{PASSWORD[:3]}"},
        "ticket server that is none": {"TICKET_SERVER": "no.module:Class"},
        "unknown cache": {"CACHE_TYPE": "NoCache", "CACHE_REDIS_URL": f"redis://:{PASSWORD}@h"},
        "cache of a wrong type": {"CACHE": [PASSWORD]},
        "unknown platform": {"PLATFORM": "wechat"},
        "prefix without a slash": {"URL_PREFIX": "wxjsapi"},
        "host with a path": {"PAGE_HOSTS": ["m.example.com/x"]},
    }
    for name, config in wrong.items():
        app = bare_app(scene.config(**config))
        scene.attempt(f"setting: {name}", app, partial(WxJsApi, app))


def on_redis(scene: Scene, url: str) -> None:
    """All is well and then WeChat is not; the tracer of Redis looks on."""
    redis = {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": url}
    app, wxjsapi = scene.app(**redis)
    scene.try_everything("Redis", app, wxjsapi, METHODS)
    scene.sandbox.fail("500", times=None)
    scene.try_all("Redis, WeChat 500", app, wxjsapi, {"refresh": METHODS["refresh"]})
    scene.sandbox.heal()


def plant(scene: Scene) -> None:
    """One leak of each kind, which must be found: the secret is on its way through others' code."""
    app, _ = scene.app()
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "library_of_others.py").write_text(_LIBRARY)
        with patch.object(sys, "path", [directory, *sys.path]):
            fail = importlib.import_module("library_of_others").fail
        _plant(scene, app, fail)


_LIBRARY = "def fail(error, variable, inside):\n    raise error\n"


def _plant(scene: Scene, app: Flask, fail: Callable[..., object]) -> None:

    def behind() -> None:
        try:
            raise ValueError(PASSWORD)
        except ValueError:
            raise RuntimeError("x") from None

    scene.attempt("text", app, lambda: fail(RuntimeError(PASSWORD), 0, 0))
    scene.attempt("behind", app, behind)
    scene.attempt("frame", app, lambda: fail(RuntimeError("x"), PASSWORD, 0))
    scene.attempt("reachable", app, lambda: fail(RuntimeError("x"), 0, [PASSWORD]))
    scene.attempt("log", app, lambda: logging.getLogger("urllib3").debug(PASSWORD))
    scene.attempt("extra", app, lambda: logging.debug("x", extra={"wxjsapi": {"x": PASSWORD}}))
    breadcrumb = lambda: (sentry_sdk.add_breadcrumb(message=PASSWORD), fail(KeyError(), 0, 0))  # noqa: E731 - short
    scene.attempt("breadcrumb", app, breadcrumb)
    with scene.failure("sentry span"), sentry_sdk.start_span(name=PASSWORD):
        pass
    tracer = scene.watchers._provider.get_tracer("planted")
    with scene.failure("span"), tracer.start_as_current_span("x") as span:
        span.set_attribute("http.url", f"https://api.weixin.qq.com/?secret={PASSWORD}")
    with scene.failure("url"):
        try:
            requests.get(f"{DEAD}/?secret={PASSWORD}", timeout=1)
        except requests.ConnectionError:
            pass
    app.view_functions["wxjsapi.config"] = lambda: PASSWORD
    scene.request("answer", app, "config", "")
    planted = click.Command("planted", callback=lambda: click.echo(PASSWORD))
    cast(click.Group, app.cli.commands["wxjsapi"]).add_command(planted)
    scene.command("output", app, ["planted"])


PLAYS: dict[str, Callable[[Scene], None]] = {
    play.__name__: play
    for play in (mistakes, settings, upstream, echo, wecom, central, providers, loaders, stores)
}


def main() -> None:
    orders = json.load(sys.stdin)
    hooks: dict[str, Any] = {}
    exec(orders.get("hooks", ""), hooks)
    named = {name: hooks[name] for name in hooks if name.startswith("before_")}
    watchers = Watchers(orders["sentry"] | named)
    with ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox().serve())
        sandbox.add_account(APP_ID, APP_SECRET)
        sandbox.add_agent(CORP_ID, CORP_SECRET, "7")
        start = stack.enter_context(wire.recorders())
        gateway = start(wire.http({"error": f"you sent {BEARER}"}, "502 Bad Gateway"))
        scene = Scene(watchers, sandbox, gateway.url, set(SECRETS))
        for name in orders.get("plays", PLAYS):
            PLAYS[name](scene)
        if "redis" in orders:
            on_redis(scene, orders["redis"])
        if orders.get("plants"):
            plant(scene)
    json.dump(scene.found, sys.stdout)


if __name__ == "__main__":
    main()
