"""The settings: what each key takes, what it refuses, and what an error says."""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

import flask_wxjsapi
from flask_wxjsapi import Credential, TicketServer, WxJsApi
from flask_wxjsapi._platform import OFFIACCOUNT
from flask_wxjsapi._settings import KEYS, Settings, key_prefix
from flask_wxjsapi.sandbox import sandbox

APP_ID = "wx1234567890abcdef"
SECRET = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"


def load(name: str = "default", /, **changes: Any) -> Settings:
    """The settings of an account with good values, but for the changes."""
    keys = {"APP_ID": APP_ID, "APP_SECRET": SECRET, **changes}
    config = {key_prefix(name) + key: value for key, value in keys.items() if value is not _ABSENT}
    return Settings.load(config, name)


_ABSENT = object()


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """Sets environment variables and loads an account's settings as an app does."""

    def load_from_environment(name: str = "default", **variables: str) -> Settings:
        keys = {"APP_ID": APP_ID, "APP_SECRET": SECRET, **variables}
        for key, value in keys.items():
            monkeypatch.setenv(f"FLASK_{key_prefix(name)}{key}", value)
        app = Flask("tests")
        app.config.from_prefixed_env()
        return Settings.load(app.config, name)

    return load_from_environment


class Server(TicketServer):
    """A ticket server for a dotted path to name."""

    def find(self, key: str) -> Credential | None:
        return None

    def save(self, key: str, credential: Credential) -> None:
        pass


class FindOnly:
    def find(self, key: str) -> Credential | None:
        return None


def provider(rejected: str | None) -> Credential:
    """A token provider for a dotted path to name."""
    return Credential("token", 0, 7200)


NOT_CALLABLE = "a constant"


# -- defaults


def test_defaults() -> None:
    """With the two keys that are required the others have the documented defaults."""
    settings = load()
    assert vars(settings) | {
        "name": "default",
        "app_id": APP_ID,
        "app_secret": SECRET,
        "platform": OFFIACCOUNT,
        "api_base_url": "https://api.weixin.qq.com",
        "token_endpoint": "stable_token",
        "access_token_provider": None,
        "ticket_server": None,
        "cache": {},
        "refresh_ahead": 200,
        "refresh_timeout": 10,
        "sync_interval": 5,
        "background_refresh": None,
        "js_api_list": (),
        "open_tag_list": (),
        "debug": False,
        "jssdk_url": "https://res.wx.qq.com/open/js/jweixin-1.6.0.js",
        "public_origin": None,
    } == vars(settings)


def test_frozen() -> None:
    """What was checked once cannot be changed afterwards."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        load().debug = True  # type: ignore[misc]


def test_default_cache_is_not_shared() -> None:
    """Two accounts do not get one dict between them."""
    first = load()
    first.cache["CACHE_TYPE"] = "SimpleCache"
    assert load().cache == {}


@pytest.mark.parametrize(
    "key",
    [
        "PLATFORM",
        "API_BASE_URL",
        "TOKEN_ENDPOINT",
        "CACHE",
        "REFRESH_AHEAD",
        "REFRESH_TIMEOUT",
        "SYNC_INTERVAL",
        "JS_API_LIST",
        "OPEN_TAG_LIST",
        "DEBUG",
        "JSSDK_URL",
    ],
)
def test_none_is_the_default(key: str) -> None:
    """A key set to None, as ``os.environ.get()`` or a JSON null does, counts as not set."""
    assert load(**{key: None}) == load()


# -- good and bad values of each key


@pytest.mark.parametrize(
    ("key", "value", "loaded"),
    [
        ("APP_ID", "wx_-09", "wx_-09"),
        ("APP_ID", "x", "x"),
        ("APP_ID", "x" * 64, "x" * 64),
        ("APP_SECRET", "x", "x"),
        ("APP_SECRET", "0123", "0123"),
        ("APP_SECRET", "!\"#$%&'()~", "!\"#$%&'()~"),
        ("PLATFORM", "offiaccount", OFFIACCOUNT),
        ("API_BASE_URL", "https://api2.weixin.qq.com", "https://api2.weixin.qq.com"),
        ("API_BASE_URL", "https://api.example/", "https://api.example"),
        ("API_BASE_URL", "https://api.example/wechat/", "https://api.example/wechat"),
        ("API_BASE_URL", "https://api.example:8443", "https://api.example:8443"),
        ("API_BASE_URL", "http://127.0.0.1:8900", "http://127.0.0.1:8900"),
        ("API_BASE_URL", "http://127.1.2.3", "http://127.1.2.3"),
        ("API_BASE_URL", "http://localhost:8900/", "http://localhost:8900"),
        ("API_BASE_URL", "http://LOCALHOST:8900", "http://LOCALHOST:8900"),
        ("API_BASE_URL", "http://[::1]:8900", "http://[::1]:8900"),
        ("API_BASE_URL", "sandbox", "sandbox"),
        ("TOKEN_ENDPOINT", "token", "token"),
        ("TOKEN_ENDPOINT", "stable_token", "stable_token"),
        ("ACCESS_TOKEN_PROVIDER", provider, provider),
        ("ACCESS_TOKEN_PROVIDER", "tests.test_settings:provider", provider),
        ("ACCESS_TOKEN_PROVIDER", "tests.test_settings.provider", provider),
        ("TICKET_SERVER", Server, Server),
        ("TICKET_SERVER", "tests.test_settings:Server", Server),
        ("TICKET_SERVER", "tests.test_settings.Server", Server),
        ("CACHE", {"CACHE_TYPE": "SimpleCache"}, {"CACHE_TYPE": "SimpleCache"}),
        ("CACHE", {}, {}),
        ("REFRESH_AHEAD", 0, 0),
        ("REFRESH_AHEAD", 86400, 86400),
        ("REFRESH_TIMEOUT", 0.1, 0.1),
        ("REFRESH_TIMEOUT", 3, 3),
        ("SYNC_INTERVAL", 0.1, 0.1),
        ("SYNC_INTERVAL", 60, 60),
        ("BACKGROUND_REFRESH", True, True),
        ("BACKGROUND_REFRESH", False, False),
        ("BACKGROUND_REFRESH", None, None),
        ("JS_API_LIST", ["chooseImage", "scanQRCode"], ("chooseImage", "scanQRCode")),
        ("JS_API_LIST", ("chooseImage",), ("chooseImage",)),
        ("JS_API_LIST", [], ()),
        ("OPEN_TAG_LIST", ["wx-open-audio"], ("wx-open-audio",)),
        ("DEBUG", True, True),
        ("JSSDK_URL", "/static/jweixin.js", "/static/jweixin.js"),
        ("PUBLIC_ORIGIN", "https://example.com", "https://example.com"),
        ("PUBLIC_ORIGIN", "https://example.com/", "https://example.com"),
        ("PUBLIC_ORIGIN", "http://example.com:8080", "http://example.com:8080"),
        ("PUBLIC_ORIGIN", "https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
    ],
)
def test_good_value(key: str, value: object, loaded: object) -> None:
    """A good value is taken, in one form whichever it came in."""
    assert getattr(load(**{key: value}), key.lower()) == loaded


@pytest.mark.parametrize(
    ("origin", "shown"),
    [
        ("https://example.com:443", "https://example.com"),
        ("http://example.com:80", "http://example.com"),
        ("https://Example.COM", "https://example.com"),
    ],
)
def test_public_origin_is_as_a_browser_shows_it(origin: str, shown: str) -> None:
    """A browser writes hosts in lower case and leaves the scheme's own port out."""
    assert load(PUBLIC_ORIGIN=origin).public_origin == shown


def test_ticket_server_object() -> None:
    """An object that is made already is taken as it is."""
    server = Server()
    assert load(TICKET_SERVER=server).ticket_server is server


def test_ticket_server_needs_no_base_class() -> None:
    """Anything with find and save is a ticket server."""

    class Plain:
        find = save = staticmethod(print)

    assert load(TICKET_SERVER=Plain).ticket_server is Plain


BAD_VALUES: list[tuple[str, object]] = [
    ("APP_ID", ""),
    ("APP_ID", 1234567890),
    ("APP_ID", "wx 1"),
    ("APP_ID", "wx1\n"),
    ("APP_ID", "wx{1}"),
    ("APP_ID", "wxé"),
    ("APP_ID", "x" * 65),
    ("APP_ID", b"wx1"),
    ("APP_SECRET", ""),
    ("APP_SECRET", 60718293),
    ("APP_SECRET", 6.0718293e150),
    ("APP_SECRET", float("inf")),
    ("APP_SECRET", True),
    ("APP_SECRET", [SECRET]),
    ("APP_SECRET", {"secret": SECRET}),
    ("APP_SECRET", SECRET.encode()),
    ("APP_SECRET", f"{SECRET}\n"),
    ("APP_SECRET", f" {SECRET}"),
    ("APP_SECRET", f"{SECRET[:9]} {SECRET[9:]}"),
    ("APP_SECRET", f"{SECRET}é"),
    ("APP_SECRET", f"\ufeff{SECRET}"),
    ("APP_SECRET", f"{SECRET}\0"),
    ("PLATFORM", "alipay"),
    ("PLATFORM", "OffiAccount"),
    ("PLATFORM", 1),
    ("API_BASE_URL", ""),
    ("API_BASE_URL", 8900),
    ("API_BASE_URL", "api.weixin.qq.com"),
    ("API_BASE_URL", "//api.weixin.qq.com"),
    ("API_BASE_URL", "https://"),
    ("API_BASE_URL", "https://[::1"),
    ("API_BASE_URL", "https://api.example?x=1"),
    ("API_BASE_URL", "https://api.example#x"),
    ("API_BASE_URL", "https://user:pw@api.example"),
    ("API_BASE_URL", "ftp://api.example"),
    ("API_BASE_URL", "http://api.weixin.qq.com"),
    ("API_BASE_URL", "http://10.0.0.1:8900"),
    ("API_BASE_URL", "http://localhost.example"),
    ("API_BASE_URL", "http://localhost@api.example"),
    ("API_BASE_URL", "http://1270.0.0.1"),
    ("API_BASE_URL", "http://[::2]"),
    ("API_BASE_URL", "http://127.0.0.1.evil.example"),
    ("API_BASE_URL", "http://127.evil.example:8900"),
    ("TOKEN_ENDPOINT", "gettoken"),
    ("TOKEN_ENDPOINT", ["token"]),
    ("ACCESS_TOKEN_PROVIDER", 5),
    ("ACCESS_TOKEN_PROVIDER", ""),
    ("ACCESS_TOKEN_PROVIDER", "no.such.module:provider"),
    ("ACCESS_TOKEN_PROVIDER", "tests.test_settings:no_such_name"),
    ("ACCESS_TOKEN_PROVIDER", "tests.test_settings:NOT_CALLABLE"),
    ("TICKET_SERVER", 5),
    ("TICKET_SERVER", ""),
    ("TICKET_SERVER", "no.such.module:Server"),
    ("TICKET_SERVER", "no.such.module.Server"),
    ("TICKET_SERVER", "nosuchmodule"),
    ("TICKET_SERVER", "tests.test_settings:NoSuchClass"),
    ("TICKET_SERVER", "tests.test_settings:NOT_CALLABLE"),
    ("TICKET_SERVER", "tests.test_settings"),
    ("TICKET_SERVER", FindOnly),
    ("TICKET_SERVER", FindOnly()),
    ("CACHE", "RedisCache"),
    ("CACHE", ["CACHE_TYPE"]),
    ("CACHE", {"TYPE": "RedisCache"}),
    ("CACHE", {1: "RedisCache"}),
    ("REFRESH_AHEAD", -1),
    ("REFRESH_AHEAD", "200"),
    ("REFRESH_AHEAD", True),
    ("REFRESH_AHEAD", 86401),
    ("REFRESH_AHEAD", float("nan")),
    ("REFRESH_AHEAD", float("inf")),
    ("REFRESH_TIMEOUT", 0),
    ("REFRESH_TIMEOUT", 0.09),
    ("REFRESH_TIMEOUT", "10"),
    ("SYNC_INTERVAL", 0),
    ("SYNC_INTERVAL", [5]),
    ("BACKGROUND_REFRESH", 1),
    ("BACKGROUND_REFRESH", "yes"),
    ("JS_API_LIST", "chooseImage"),
    ("JS_API_LIST", ["chooseImage", ""]),
    ("JS_API_LIST", ["chooseImage", 1]),
    ("JS_API_LIST", {"chooseImage": True}),
    ("OPEN_TAG_LIST", "wx-open-audio"),
    ("OPEN_TAG_LIST", [None]),
    ("DEBUG", 1),
    ("DEBUG", "False"),
    ("JSSDK_URL", ""),
    ("JSSDK_URL", 1.6),
    ("PUBLIC_ORIGIN", ""),
    ("PUBLIC_ORIGIN", 5),
    ("PUBLIC_ORIGIN", "example.com"),
    ("PUBLIC_ORIGIN", "//example.com"),
    ("PUBLIC_ORIGIN", "ftp://example.com"),
    ("PUBLIC_ORIGIN", "https://"),
    ("PUBLIC_ORIGIN", "https://example.com/app"),
    ("PUBLIC_ORIGIN", "https://example.com?x"),
    ("PUBLIC_ORIGIN", "https://example.com#x"),
    ("PUBLIC_ORIGIN", "https://user@example.com"),
    ("PUBLIC_ORIGIN", "https://例子.example"),
]


@pytest.mark.parametrize(("key", "value"), BAD_VALUES)
def test_bad_value_names_its_key(key: str, value: object) -> None:
    """A value that cannot be right is a RuntimeError that begins with the whole key."""
    with pytest.raises(RuntimeError, match=f"^WXJSAPI_{key} ") as caught:
        load(**{key: value})
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("APP_ID", "wx 1", "'wx 1'"),
        ("PLATFORM", "alipay", "'alipay'"),
        ("API_BASE_URL", "http://api.weixin.qq.com", "must be https"),
        ("TOKEN_ENDPOINT", "gettoken", "'stable_token' or 'token'"),
        ("TICKET_SERVER", FindOnly, "save(key, credential)"),
        ("TICKET_SERVER", "no.such.module:Server", "no.such.module"),
        ("ACCESS_TOKEN_PROVIDER", "no.such.module:provider", "no.such.module"),
        ("REFRESH_TIMEOUT", 0, "from 0.1 to 86400, got 0"),
        ("JS_API_LIST", "chooseImage", "JSON list"),
        ("DEBUG", "False", "in the environment), got 'False'"),
        ("PUBLIC_ORIGIN", "https://example.com/app", "https://example.com, got"),
    ],
)
def test_error_says_what_it_got_and_wants(key: str, value: object, said: str) -> None:
    """The text is enough to set the value right."""
    with pytest.raises(RuntimeError, match=re.escape(said)):
        load(**{key: value})


@pytest.mark.parametrize("key", ["API_BASE_URL", "PUBLIC_ORIGIN"])
def test_password_in_a_url_is_not_quoted(key: str) -> None:
    """A URL with a password in it is refused without repeating the password."""
    with pytest.raises(RuntimeError, match=key) as caught:
        load(**{key: "https://user:hunter2@api.example"})
    assert "hunter2" not in str(caught.value)


# -- what each key is declared to be

CONFIGURATION = Path(__file__).parent.parent / "docs" / "configuration.rst"


def test_every_setting_is_described_and_no_other() -> None:
    """The page has the keys that the code reads, in the same order."""
    text = CONFIGURATION.read_text(encoding="utf-8")
    assert re.findall(r"^\.\. confval:: WXJSAPI_(\w+)$", text, re.M) == list(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_the_default_of_a_setting_is_the_codes(key: str) -> None:
    """What the page calls the default is the default."""
    found = re.search(
        rf"^\.\. confval:: WXJSAPI_{key}\n   :type: .+\n   :default: ``(.+)``\n",
        CONFIGURATION.read_text(encoding="utf-8"),
        re.M,
    )
    assert found, f"{key} has no type and default"
    assert ast.literal_eval(found[1]) == KEYS[key].default


def test_every_field_is_a_key() -> None:
    """One declaration makes the key and the field; only name and prefix are no keys."""
    fields = [field.name for field in dataclasses.fields(Settings)]
    assert fields == ["name", "prefix", *map(str.lower, KEYS)]


@pytest.mark.parametrize("key", KEYS)
def test_every_setting_has_a_sentence_of_help(key: str) -> None:
    """It fits on a line."""
    assert re.fullmatch(r"[A-Z].{10,80}\.", KEYS[key].help)


def test_the_settings_of_one_account() -> None:
    """The rest belongs to the extension as a whole."""
    assert {key for key, declared in KEYS.items() if declared.of_account} == {
        "APP_SECRET", "PLATFORM", "AGENT_ID", "ACCESS_TOKEN_PROVIDER", "TOKEN_ENDPOINT",
        "JS_API_LIST", "OPEN_TAG_LIST", "DEBUG", "PAGE_HOSTS", "PUBLIC_ORIGIN", "JSSDK_URL",
    }  # fmt: skip


def test_settings_import_no_http_client() -> None:
    """They are read by programs that ask nobody anything."""
    program = (
        "import importlib, sys, types\n"
        "package = types.ModuleType('flask_wxjsapi')\n"
        f"package.__path__ = [{str(Path(flask_wxjsapi.__file__).parent)!r}]\n"
        "sys.modules['flask_wxjsapi'] = package\n"
        "importlib.import_module('flask_wxjsapi._settings')\n"
        "print(sorted({'requests', 'urllib3', 'flask', 'flask_wxjsapi.sandbox'} & {*sys.modules}))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"


# -- APP_ID and APP_SECRET

WECOM_SECRET = "aB3-_" * 8 + "xyz"


@pytest.mark.parametrize("app_id", [SECRET, SECRET.upper(), WECOM_SECRET, "1" * 32])
@pytest.mark.parametrize("app_secret", [SECRET, APP_ID, "ww0123456789abcdef"])
def test_app_id_that_looks_like_a_secret(app_id: str, app_secret: str) -> None:
    """It would stand in every page and every key of the store."""
    with pytest.raises(RuntimeError, match=r"^WXJSAPI_APP_ID looks like a secret") as caught:
        load(APP_ID=app_id, APP_SECRET=app_secret)
    assert app_id not in str(caught.value)


@pytest.mark.parametrize("app_id", [f" {SECRET}", f"{SECRET}\n", int("98" * 16), 9.87e150])
def test_app_id_that_may_be_a_secret_is_not_quoted(app_id: object) -> None:
    """With a space before it, or as the number that JSON makes of it."""
    with pytest.raises(RuntimeError, match=r"^WXJSAPI_APP_ID ") as caught:
        load(APP_ID=app_id)
    assert str(app_id).strip() not in str(caught.value)


@pytest.mark.parametrize("app_secret", [APP_ID, "ww0123456789abcdef"])
def test_app_secret_that_is_an_id(app_secret: str) -> None:
    """The two are the wrong way round, whatever the other one looks like."""
    with pytest.raises(RuntimeError, match=r"^WXJSAPI_APP_SECRET looks like an id") as caught:
        load(APP_ID="a-secret-of-no-known-form", APP_SECRET=app_secret)
    assert "of-no-known-form" not in str(caught.value)


@pytest.mark.parametrize("platform", ["offiaccount", "wecom"])
def test_sandbox_brings_an_account(platform: str) -> None:
    """Nobody needs to make up an AppID and a secret to try it."""
    settings = load(APP_ID=_ABSENT, APP_SECRET=_ABSENT, PLATFORM=platform, API_BASE_URL="sandbox")
    assert (settings.app_id, settings.app_secret) == (
        sandbox.APP_ID,
        sandbox.APP_SECRET,
    )
    assert settings.is_sandbox


def test_sandbox_takes_an_account_of_ones_own() -> None:
    """What is set counts, each for itself."""
    settings = load(APP_SECRET=_ABSENT, API_BASE_URL="sandbox")
    assert (settings.app_id, settings.app_secret) == (APP_ID, sandbox.APP_SECRET)
    assert load(API_BASE_URL="sandbox").app_secret == SECRET


@pytest.mark.parametrize("platform", ["offiaccount", "wecom"])
def test_sandbox_accepts_the_account_it_brings(platform: str) -> None:
    """Two keys are enough for a page that is signed."""
    app = Flask("tests")
    app.config.update(
        TESTING=True, WXJSAPI_API_BASE_URL="sandbox", WXJSAPI_PLATFORM=platform,
        CACHE_TYPE="SimpleCache",
    )  # fmt: skip
    wxjsapi = WxJsApi(app)
    with app.app_context():
        assert wxjsapi.config(url="https://example.com/")["appId"] == sandbox.APP_ID


def test_app_id_is_required() -> None:
    """Without an AppID there is no account."""
    with pytest.raises(RuntimeError, match=r"^WXJSAPI_APP_ID is not set"):
        load(APP_ID=_ABSENT)


def test_app_secret_is_required() -> None:
    """Without a secret nothing can be fetched, and the error tells how to try without one."""
    with pytest.raises(RuntimeError, match=r'^WXJSAPI_APP_SECRET is not set.*= "sandbox"'):
        load(APP_SECRET=_ABSENT)


@pytest.mark.parametrize(
    "other", [{"ACCESS_TOKEN_PROVIDER": provider}, {"TICKET_SERVER": Server}], ids=list
)
def test_app_secret_is_not_needed_where_others_provide(other: Mapping[str, Any]) -> None:
    """Where another program fetches the token or the ticket its secret stays there."""
    assert load(APP_SECRET=_ABSENT, **other).app_secret == ""


BAD_SECRETS = [value for key, value in BAD_VALUES if key == "APP_SECRET" and value != ""]


@pytest.mark.parametrize("secret", BAD_SECRETS)
def test_bad_secret_is_not_quoted(secret: object) -> None:
    """The error says what is wrong with a secret and nothing of what it is."""
    with pytest.raises(RuntimeError, match="WXJSAPI_APP_SECRET must") as caught:
        load(APP_SECRET=secret)
    for part in (str(secret), SECRET, SECRET[:9], "60718293", "6.07"):
        assert part not in str(caught.value)


@pytest.mark.parametrize(
    "secret",
    ["98765432198765432198765432198765", "98765432e198765432", "98e15", "9.87e-65", "-9876"],
)
def test_secret_that_the_environment_turned_into_a_number(
    env: Callable[..., Settings], secret: str
) -> None:
    """Digits, or digits around an ``e``, are refused with the way to quote them."""
    with pytest.raises(RuntimeError, match=r"^WXJSAPI_APP_SECRET .*number.*'\"\d+\"'") as caught:
        env(APP_SECRET=secret)
    assert "987" not in str(caught.value)
    assert "98e" not in str(caught.value)


def test_secret_of_digits_in_two_pairs_of_quotes(env: Callable[..., Settings]) -> None:
    """What the error advises works."""
    assert env(APP_SECRET='"98765432198765432198765432198765"').app_secret.startswith("987654")


@pytest.mark.parametrize("variable", ["null", "true", "[]", "{}", '""'])
def test_secret_that_the_environment_turned_into_something_else(
    env: Callable[..., Settings], variable: str
) -> None:
    """Other JSON is no secret either."""
    with pytest.raises(RuntimeError, match=r"^WXJSAPI_APP_SECRET "):
        env(APP_SECRET=variable)


def test_app_id_that_the_environment_turned_into_a_number(env: Callable[..., Settings]) -> None:
    """A numeric AppID is refused with the way to quote it."""
    with pytest.raises(RuntimeError, match=r"^WXJSAPI_APP_ID .*quotes"):
        env(APP_ID="1234567890")


# -- from the environment


@pytest.mark.parametrize(
    ("key", "variable", "loaded"),
    [
        ("JS_API_LIST", '["chooseImage", "scanQRCode"]', ("chooseImage", "scanQRCode")),
        ("OPEN_TAG_LIST", "[]", ()),
        ("CACHE", '{"CACHE_TYPE": "SimpleCache"}', {"CACHE_TYPE": "SimpleCache"}),
        ("REFRESH_AHEAD", "300", 300),
        ("REFRESH_TIMEOUT", "2.5", 2.5),
        ("BACKGROUND_REFRESH", "false", False),
        ("DEBUG", "true", True),
        ("PUBLIC_ORIGIN", "https://example.com", "https://example.com"),
        ("PUBLIC_ORIGIN", "null", None),
        ("TICKET_SERVER", "tests.test_settings:Server", Server),
        ("ACCESS_TOKEN_PROVIDER", "tests.test_settings:provider", provider),
    ],
)
def test_every_key_can_come_from_the_environment(
    env: Callable[..., Settings], key: str, variable: str, loaded: object
) -> None:
    """What ``from_prefixed_env`` makes of a variable is taken."""
    assert getattr(env(**{key: variable}), key.lower()) == loaded


def test_list_in_the_environment_that_is_no_json(env: Callable[..., Settings]) -> None:
    """A name without brackets is refused, and the error says JSON."""
    with pytest.raises(RuntimeError, match=r"^WXJSAPI_JS_API_LIST .*JSON list"):
        env(JS_API_LIST="chooseImage")


def test_named_account_in_the_environment(env: Callable[..., Settings]) -> None:
    """``FLASK_SHOP_WXJSAPI_…`` sets the account named shop."""
    assert env("shop", JS_API_LIST='["openLocation"]').js_api_list == ("openLocation",)


# -- accounts


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("default", "WXJSAPI_"), ("shop", "SHOP_WXJSAPI_"), ("a_1", "A_1_WXJSAPI_")],
)
def test_key_prefix(name: str, prefix: str) -> None:
    """An account's name stands before its keys, except the default one's."""
    assert key_prefix(name) == prefix


def test_named_account_reads_its_own_keys() -> None:
    """The keys of an account are its own, side by side with another's."""
    config = {
        "WXJSAPI_APP_ID": "wx1",
        "WXJSAPI_APP_SECRET": "secret1",
        "SHOP_WXJSAPI_APP_ID": "wx2",
        "SHOP_WXJSAPI_APP_SECRET": "secret2",
    }
    default, shop = Settings.load(config), Settings.load(config, "shop")
    assert (default.name, default.app_id, default.app_secret) == ("default", "wx1", "secret1")
    assert (shop.name, shop.app_id, shop.app_secret) == ("shop", "wx2", "secret2")


@pytest.mark.parametrize("missing", ["APP_ID", "APP_SECRET"])
def test_named_account_inherits_no_login(missing: str) -> None:
    """A missing login of a named account is an error and not the default account's."""
    config = {
        "WXJSAPI_APP_ID": "wx1",
        "WXJSAPI_APP_SECRET": "secret1",
        "SHOP_WXJSAPI_APP_ID": "wx2",
        "SHOP_WXJSAPI_APP_SECRET": "secret2",
    }
    del config[f"SHOP_WXJSAPI_{missing}"]
    with pytest.raises(RuntimeError, match=f"^SHOP_WXJSAPI_{missing} is not set"):
        Settings.load(config, "shop")


def test_named_account_inherits_no_option() -> None:
    """An option of the default account is none of a named one."""
    config = {
        "WXJSAPI_DEBUG": True,
        "WXJSAPI_API_BASE_URL": "http://localhost:8900",
        "SHOP_WXJSAPI_APP_ID": "wx2",
        "SHOP_WXJSAPI_APP_SECRET": "secret2",
    }
    assert Settings.load(config, "shop") == load("shop", APP_ID="wx2", APP_SECRET="secret2")


def test_error_of_a_named_account_names_its_key() -> None:
    """The key in an error is the one to change."""
    with pytest.raises(RuntimeError, match=r"^SHOP_WXJSAPI_DEBUG must be True or False"):
        load("shop", DEBUG="yes")


# -- keys nobody knows


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("WXJSAPI_APPID", "WXJSAPI_APP_ID"),
        ("WXJSAPI_APP_SECRT", "WXJSAPI_APP_SECRET"),
        ("WXJSAPI_JSAPI_LIST", "WXJSAPI_JS_API_LIST"),
        ("WXJSAPI_BACKGROUND_REFRESHING", "WXJSAPI_BACKGROUND_REFRESH"),
    ],
)
def test_unknown_key_warns_with_the_nearest_name(key: str, near: str) -> None:
    """A misspelt key would be passed over in silence otherwise."""
    with pytest.warns(UserWarning, match=f"{key} is not a key.*Do you mean {near}\\?"):
        load(**{key.removeprefix("WXJSAPI_"): "x"})


def test_unknown_key_that_resembles_nothing() -> None:
    """Where no name is near none is offered."""
    with pytest.warns(UserWarning, match=r"WXJSAPI_QQQQQQ is not a key of Flask-WxJsApi\.$"):
        load(QQQQQQ="x")


def test_unknown_key_does_not_show_its_value() -> None:
    """A secret under a misspelt key stays out of the warning."""
    with pytest.warns(UserWarning, match="WXJSAPI_SECRET") as caught:
        load(SECRET="hunter2")
    assert "hunter2" not in str(caught[0].message)


def test_unknown_key_of_a_named_account() -> None:
    """The warning offers the key with the account's name before it."""
    with pytest.warns(UserWarning, match="Do you mean SHOP_WXJSAPI_APP_ID"):
        load("shop", APPID="x")


@pytest.mark.parametrize("key", ["SECRET_KEY", "SHOP_WXJSAPI_FOO", "XWXJSAPI_FOO", "WXJSAPI"])
def test_keys_of_others_do_not_warn(key: str) -> None:
    """Keys with another prefix, another account's among them, are not ours to judge."""
    config = {"WXJSAPI_APP_ID": APP_ID, "WXJSAPI_APP_SECRET": SECRET, key: "x"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Settings.load(config) == load()


# -- dotted paths


def test_ticket_server_in_a_module_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module is imported by its path when the settings are read."""
    package = tmp_path / "tickets_of_a_shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "sql.py").write_text("class Server:\n    find = save = print\n")
    monkeypatch.syspath_prepend(tmp_path)
    for path in ("tickets_of_a_shop.sql:Server", "tickets_of_a_shop.sql.Server"):
        server = load(TICKET_SERVER=path).ticket_server
        assert (server.__module__, server.__name__) == ("tickets_of_a_shop.sql", "Server")


def test_module_that_needs_a_missing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is there but imports one that is not is an error that names the key."""
    (tmp_path / "tickets_in_vain.py").write_text("import no_such_module_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match=r"^WXJSAPI_TICKET_SERVER .*tickets_in_vain"):
        load(TICKET_SERVER="tickets_in_vain:Server")


def test_provider_that_is_no_function() -> None:
    """Anything callable provides tokens."""
    partial = functools.partial(provider, None)
    assert load(ACCESS_TOKEN_PROVIDER=partial).access_token_provider is partial


# -- what shows


def frames_of(error: BaseException) -> str:
    """What a tracer would show of our own frames."""
    package = str(Path(flask_wxjsapi.__file__).parent)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = [frame for frame in frames if frame.f_code.co_filename.startswith(package)]
    assert ours
    return " ".join(repr(value) for frame in ours for value in frame.f_locals.values())


SECRETS = {
    "WXJSAPI_APP_SECRET": SECRET,
    "WXJSAPI_URL_PREFIX": "/wxjsapi",
    "WXJSAPI_CENTRAL_TOKENS": {"shop": "a-token-of-somebody"},
    "WXJSAPI_CACHE": {"CACHE_REDIS_PASSWORD": "hunter2"},
    "SECRET_KEY": "the-apps-own",
}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, value) for key, value in BAD_VALUES if key not in ("APP_SECRET", "CACHE")),
        ("APP_ID", SECRET),
        ("APP_ID", "ww0123456789abcdef"),
        ("AGENT_ID", 1),
        ("CENTRAL_URL", "https://example.com/wxjsapi"),
        ("CENTRAL_TOKEN", "a-token-of-another"),
        ("URL_PREFIX", None),
        ("NONSENSE", 1),
    ],
)
def test_no_frame_of_an_error_holds_a_secret(key: str, value: object) -> None:
    """A tracer sends the variables of each frame, and a debugger shows them."""
    app = Flask("tests")
    app.config.update(SECRETS, WXJSAPI_APP_ID=APP_ID)
    app.config[f"WXJSAPI_{key}"] = value
    with pytest.raises((RuntimeError, UserWarning), match="WXJSAPI_") as caught:
        WxJsApi(app)
    shown = frames_of(caught.value)
    for secret in (SECRET, "a-token-of", "hunter2", "the-apps-own"):
        assert secret not in shown


@pytest.mark.parametrize("key", ["ACCESS_TOKEN_PROVIDER", "TICKET_SERVER"])
def test_module_that_fails_at_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """The error names the key and the line; what the module says of itself may quote anything."""
    (tmp_path / "tickets_that_fail.py").write_text(f"raise ValueError({SECRET!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    text = rf"^WXJSAPI_{key} cannot be imported: ValueError \(.+tickets_that_fail.py:1"
    with pytest.raises(RuntimeError, match=text) as caught:
        load(**{key: "tickets_that_fail:Server"})
    assert SECRET not in str(caught.value)
    assert SECRET not in frames_of(caught.value)


def test_repr_has_no_secret() -> None:
    """Neither our secret nor one for the cache shows in the repr."""
    settings = load(CACHE={"CACHE_REDIS_PASSWORD": "hunter2"})
    for text in (repr(settings), str(settings)):
        assert APP_ID in text
        assert SECRET not in text
        assert "hunter2" not in text


@pytest.mark.parametrize(
    "changes",
    [
        {"APP_SECRET": SECRET[::-1]},
        {"APP_ID": "wx2"},
        {"API_BASE_URL": "https://api2.weixin.qq.com"},
        {"TOKEN_ENDPOINT": "token"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_digest_changes_with_what_wechat_judges(changes: dict[str, str]) -> None:
    """A corrected login is not held up by the back-off of the wrong one."""
    assert load(**changes).digest != load().digest


def test_digest_does_not_change_with_the_rest() -> None:
    """Processes that differ in an option share their back-off, and so does the next start."""
    assert load(REFRESH_AHEAD=300, DEBUG=True).digest == load().digest


def test_digest_contains_nothing() -> None:
    """It lies in the store, so neither the secret nor the AppID can be read from it."""
    digest = load().digest
    assert re.fullmatch("[0-9a-f]{32}", digest)
    assert SECRET not in digest
    assert APP_ID not in digest


def test_digest_keeps_its_parts_apart() -> None:
    """Moving text from one part to the next is another digest."""
    one = load(API_BASE_URL="https://a.example", TOKEN_ENDPOINT="stable_token").digest
    other = load(API_BASE_URL="https://a.examplestable_", TOKEN_ENDPOINT="token").digest
    assert one != other
