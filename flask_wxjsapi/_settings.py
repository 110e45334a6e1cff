"""The settings: every ``WXJSAPI_*`` key is read and checked here, once, into one frozen object."""

from __future__ import annotations

import difflib
import hmac
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from werkzeug.utils import import_string

from ._credential import AGENT_TICKET, CARD_TICKET, JSAPI_TICKET
from ._loopback import is_loopback

_API_URLS = {"offiaccount": "https://api.weixin.qq.com", "wecom": "https://qyapi.weixin.qq.com"}
SANDBOX = "sandbox"
_JSSDK_HOST, _JSSDK_SPARE = "res.wx.qq.com", "res2.wx.qq.com"
_JSSDK_URL = f"https://{_JSSDK_HOST}/open/js/jweixin-1.6.0.js"
#: What adds ``wx.agentConfig`` to jweixin.
AGENT_SDK_URL = "https://open.work.weixin.qq.com/wwopen/js/jwxwork-1.0.0.js"
_SHORTEST_TOKEN = 16  # characters
_APP_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_CORP_ID = re.compile(r"ww[0-9a-f]{16}", re.ASCII)
_URL_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+", re.ASCII)
_PAGE_HOST = re.compile(
    r"\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*(:[0-9]+)?|\[[0-9a-f:.]+\](:[0-9]+)?", re.ASCII
)


@dataclass(frozen=True)
class Settings:
    """The settings of one account; the fields are the keys in lower case, without the prefix."""

    name: str
    app_id: str
    app_secret: str = field(repr=False)
    platform: str
    agent_id: str | None
    api_base_url: str
    token_endpoint: str
    access_token_provider: Callable[..., Any] | None = field(repr=False)
    ticket_server: Any = field(repr=False)
    cache: dict[str, Any] = field(repr=False)
    refresh_ahead: float
    refresh_timeout: float
    sync_interval: float
    background_refresh: bool | None
    js_api_list: tuple[str, ...]
    open_tag_list: tuple[str, ...]
    debug: bool
    jssdk_url: str
    public_origin: str | None
    url_prefix: str | None
    page_hosts: tuple[str, ...]
    central_tokens: dict[str, str] = field(repr=False)
    central_url: str | None
    central_token: str = field(repr=False)

    @classmethod
    def load(cls, config: Mapping[str, Any], name: str = "default") -> Settings:
        """Read an account's keys from an app's config.

        :param name: the account; any but ``"default"`` puts its name before the keys.
        :raises RuntimeError: for a value that cannot be right; it quotes the key, never a secret.
        """
        prefix = key_prefix(name)
        _warn_of_unknown(config, prefix)
        values: dict[str, Any] = {}
        for key, (read, default) in _KEYS.items():
            value = config.get(prefix + key)
            value = default if value is None else value
            try:
                values[key.lower()] = None if value is None else read(value)
            except (ValueError, TypeError, ImportError) as error:
                problem = str(error)
            else:
                continue
            raise RuntimeError(f"{prefix}{key} {problem}")
        _check_whole(values, prefix)
        values["app_secret"] = values["app_secret"] or ""
        values["central_token"] = values["central_token"] or ""
        values["api_base_url"] = values["api_base_url"] or _API_URLS[values["platform"]]
        return cls(name=name, **values)

    @property
    def ticket_kinds(self) -> tuple[str, ...]:
        """The kinds of ticket that the account has."""
        if self.platform == "wecom":
            return (JSAPI_TICKET, AGENT_TICKET) if self.agent_id else (JSAPI_TICKET,)
        return (JSAPI_TICKET, CARD_TICKET)

    def contradicts(self, other: Settings) -> bool:
        """Whether another account of this app says something else of the same account at WeChat."""
        if (self.app_id, self.api_base_url) != (other.app_id, other.api_base_url):
            return False
        same_secret = self.app_secret == other.app_secret
        if self.platform == other.platform == "wecom":  # where each agent has a secret of its own
            same_agent = self.agent_id == other.agent_id
            return same_agent != same_secret and None not in (self.agent_id, other.agent_id)
        return not same_secret and bool(self.app_secret and other.app_secret)

    @property
    def jssdk_urls(self) -> list[str]:
        """Where the JS-SDK is loaded from: the URL set, then WeChat's spare host for its own."""
        spare = self.jssdk_url.replace(f"//{_JSSDK_HOST}/", f"//{_JSSDK_SPARE}/")
        return list(dict.fromkeys((self.jssdk_url, spare)))

    @property
    def digest(self) -> str:
        """A keyed digest of what decides whether WeChat accepts us: never the secret itself."""
        parts = (self.app_id, self.central_url or self.api_base_url, self.token_endpoint)
        key = self.central_token if self.central_url else self.app_secret
        return hmac.new(key.encode(), "\n".join(parts).encode(), "sha256").hexdigest()[:32]


def key_prefix(name: str) -> str:
    """What an account's keys start with: ``WXJSAPI_``, or ``SHOP_WXJSAPI_`` for ``"shop"``."""
    return "WXJSAPI_" if name == "default" else f"{name.upper()}_WXJSAPI_"


def _check_whole(values: Mapping[str, Any], prefix: str) -> None:
    """What one key says of another.

    :raises RuntimeError: for keys that do not go together.
    """
    if values["app_id"] is None:
        raise RuntimeError(
            f"{prefix}APP_ID is not set: it is the account's AppID (wx…), or the corp's id (ww…)."
        )
    if values["central_url"] is not None:
        if values["central_token"] is None:
            raise RuntimeError(
                f"{prefix}CENTRAL_TOKEN is not set: it is this app's entry in the CENTRAL_TOKENS "
                "of the app that CENTRAL_URL names."
            )
        for key in ("APP_SECRET", "ACCESS_TOKEN_PROVIDER", "API_BASE_URL"):
            if values[key.lower()] is not None:
                raise RuntimeError(
                    f"{prefix}{key} and {prefix}CENTRAL_URL are both set: an app that takes its "
                    f"ticket from another one asks WeChat for nothing. Remove {key}."
                )
    elif values["central_token"] is not None:
        raise RuntimeError(f"{prefix}CENTRAL_URL is not set, but {prefix}CENTRAL_TOKEN is.")
    # Not needed where somebody else provides what would be fetched with it.
    elif values["app_secret"] is values["access_token_provider"] is values["ticket_server"] is None:
        raise RuntimeError(
            f"{prefix}APP_SECRET is not set: it stands beside the AppID in the WeChat console. "
            f'Without an account, set {prefix}API_BASE_URL = "sandbox" and any secret.'
        )
    if values["platform"] != "wecom":
        if values["agent_id"] is not None:
            raise RuntimeError(f'{prefix}AGENT_ID is for {prefix}PLATFORM = "wecom" only.')
        if _CORP_ID.fullmatch(values["app_id"]):
            raise RuntimeError(
                f'{prefix}APP_ID is the id of a corp: set {prefix}PLATFORM = "wecom" as well.'
            )
    elif all(values[key] is None for key in ("app_secret", "agent_id", "central_url")):
        raise RuntimeError(
            f"{prefix}AGENT_ID is not set, nor {prefix}APP_SECRET: one of them has to tell the "
            "applications of the corp apart."
        )
    if values["central_tokens"] and values["url_prefix"] is None:
        raise RuntimeError(
            f"{prefix}CENTRAL_TOKENS needs {prefix}URL_PREFIX, under which the tickets are served."
        )


def _warn_of_unknown(config: Mapping[str, Any], prefix: str) -> None:
    for key in config:
        if key.startswith(prefix) and key.removeprefix(prefix) not in _KEYS:
            near = difflib.get_close_matches(key.removeprefix(prefix), _KEYS, n=1)
            hint = f" Do you mean {prefix}{near[0]}?" if near else ""
            warnings.warn(f"{key} is not a key of Flask-WxJsApi.{hint}", stacklevel=4)


# -- readers: each returns the checked value or raises ValueError with "must be …" --------------


def _secret(value: object) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ValueError(
            "must be a string, but is a number: app.config.from_prefixed_env() reads digits as "
            "JSON. Quote it twice in the environment, as in '\"0123456789\"'."
        )
    if not isinstance(value, str) or not value:
        raise ValueError("must be a string that is not empty")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError(
            "must have no spaces, line ends or other characters a secret never has (is it still "
            "an example's?)"
        )
    return value


def _app_id(value: object) -> str:
    if isinstance(value, str) and _APP_ID.fullmatch(value):
        return value
    raise ValueError(
        f"must be a string of letters, digits, - and _, got {value!r}. (A number in the "
        "environment needs quotes inside its quotes: '\"123\"'.)"
    )


def _agent_id(value: object) -> str:
    text = "" if isinstance(value, bool) else str(value)
    if re.fullmatch("[0-9]{1,16}", text):
        return str(int(text))
    raise ValueError("must be the application's AgentId, a number such as 1000002")


def _text(value: object) -> str:
    if isinstance(value, str) and value:
        return value
    raise ValueError(f"must be a string that is not empty, got {value!r}")


def _choice(*choices: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if isinstance(value, str) and value in choices:
            return value
        raise ValueError(f"must be {' or '.join(map(repr, choices))}, got {value!r}")

    return read


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(f"must be True or False (true or false in the environment), got {value!r}")


def _seconds(least: float) -> Callable[[object], float]:
    def read(value: Any) -> float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and least <= value <= 86400:
            return float(value)
        raise ValueError(f"must be a number of seconds from {least:g} to 86400, got {value!r}")

    return read


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, (list, tuple)) and all(isinstance(name, str) and name for name in value):
        return tuple(value)
    raise ValueError(f"must be a list of names (in the environment a JSON list), got {value!r}")


def _base_url(value: object) -> str:
    url = _text(value).rstrip("/")
    parts = _split(url)
    if url == SANDBOX:
        return url
    if not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(
            f'must be a URL such as {_API_URLS["offiaccount"]} or "sandbox"{_got(value)}'
        )
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url)):
        return url
    raise ValueError(f"must be https (or http on this machine): it carries secrets{_got(value)}")


def _got(value: object) -> str:
    """The offending value, unless a password or a token may stand in it."""
    return "" if re.search("[@?]", str(value)) else f", got {value!r}"


def _origin(value: object) -> str:
    url = _text(value).rstrip("/")
    parts = _split(url)
    is_origin = url in (f"http://{parts.netloc}", f"https://{parts.netloc}")
    if is_origin and parts.hostname and url.isascii() and "@" not in url:
        # As a browser shows it: in lower case, without the port that goes without saying.
        return url.lower().removesuffix({"http": ":80", "https": ":443"}[parts.scheme])
    raise ValueError(f"must be scheme and host, such as https://example.com{_got(value)}")


def _url_prefix(value: object) -> str:
    if isinstance(value, str) and _URL_PREFIX.fullmatch(value):
        return value
    raise ValueError(
        f'must be a path such as "/wxjsapi", without a slash at its end, got {value!r}'
    )


def _hosts(value: object) -> tuple[str, ...]:
    hosts = tuple(host.lower() for host in _names(value))
    for host in hosts:
        if not _PAGE_HOST.fullmatch(host):
            raise ValueError(
                "must list hosts such as m.example.com, m.example.com:8443 or .example.com for a "
                f"domain (in Chinese: as the browser sends it, xn--…), got {host!r}"
            )
    return hosts


def _central_tokens(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(n, str) and n for n in value):
        raise ValueError("must be a dict of bearer tokens by the names of those who have them")
    for name, token in value.items():
        try:
            _secret(token)
        except ValueError as error:
            raise ValueError(f"has a bad token for {name!r}: it {error}") from None
        if len(token) < _SHORTEST_TOKEN:
            raise ValueError(
                f"has a token for {name!r} that is too short: make one with "
                "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
    if len(set(value.values())) < len(value):
        raise ValueError("must have another token for each name")
    return dict(value)


def _central_url(value: object) -> str:
    url = _text(value).rstrip("/")
    parts = _split(url)
    is_web = parts.scheme in ("http", "https") and parts.hostname
    if is_web and url.isascii() and url.isprintable() and not re.search("[?#@ ]", url):
        return url
    raise ValueError(
        "must be the other app's URL_PREFIX as a full URL, such as https://example.com/wxjsapi"
    )


def _split(url: str) -> SplitResult:
    """The parts of a URL, all of them empty where it is none."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for one that cannot be
    except ValueError:
        return urlsplit("")
    return parts


def _mapping(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping) and all(str(key).startswith("CACHE_") for key in value):
        return dict(value)
    raise ValueError("must be a dict of Flask-Caching's CACHE_* keys")


def _provider(value: object) -> Any:
    provider: Any = import_string(_dotted(value)) if isinstance(value, str) else value
    if callable(provider):
        return provider
    raise ValueError(f"must be a callable or the dotted path of one, got {value!r}")


def _server(value: object) -> Any:
    server = import_string(_dotted(value)) if isinstance(value, str) else value
    for method in ("find", "save"):
        if not callable(getattr(server, method, None)):
            raise ValueError(
                "must be a class or object with find(key) and save(key, credential), or its "
                f'dotted path "package.module:Class", got {value!r}'
            )
    return server


def _dotted(path: str) -> str:
    return path.replace(":", ".")


_KEYS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "APP_ID": (_app_id, None),
    "APP_SECRET": (_secret, None),
    "PLATFORM": (_choice("offiaccount", "wecom"), "offiaccount"),
    "AGENT_ID": (_agent_id, None),
    "API_BASE_URL": (_base_url, None),
    "TOKEN_ENDPOINT": (_choice("stable_token", "token"), "stable_token"),
    "ACCESS_TOKEN_PROVIDER": (_provider, None),
    "TICKET_SERVER": (_server, None),
    "CACHE": (_mapping, {}),
    "REFRESH_AHEAD": (_seconds(0), 200),
    "REFRESH_TIMEOUT": (_seconds(0.1), 10),
    "SYNC_INTERVAL": (_seconds(0.1), 5),
    "BACKGROUND_REFRESH": (_flag, None),
    "JS_API_LIST": (_names, ()),
    "OPEN_TAG_LIST": (_names, ()),
    "DEBUG": (_flag, False),
    "JSSDK_URL": (_text, _JSSDK_URL),
    "PUBLIC_ORIGIN": (_origin, None),
    "URL_PREFIX": (_url_prefix, None),
    "PAGE_HOSTS": (_hosts, ()),
    "CENTRAL_TOKENS": (_central_tokens, {}),
    "CENTRAL_URL": (_central_url, None),
    "CENTRAL_TOKEN": (_secret, None),
}
