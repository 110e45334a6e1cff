"""What each setting takes: a reader returns the value in its one form, or raises a ValueError whose
text goes on after the name of the key, "must be …". It never quotes a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from werkzeug.utils import import_string

from ._error_text import describe
from ._loopback import is_loopback
from ._page.url import without_default_port
from ._platform import OFFIACCOUNT, PLATFORMS, Platform

#: The API_BASE_URL of the WeChat inside the process.
SANDBOX: Final = "sandbox"
_SHORTEST_TOKEN = 16  # characters
_APP_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_LIKE_A_SECRET = re.compile(r"[0-9A-Za-z_-]{24}", re.ASCII)  # no id is that long
_URL_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+", re.ASCII)
_PAGE_HOST = re.compile(
    r"\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*(:[0-9]+)?|\[[0-9a-f:.]+\](:[0-9]+)?", re.ASCII
)


def secret(value: object) -> str:
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


def app_id(value: object) -> str:
    if isinstance(value, str) and any(
        p.secret_form.fits(value.lower()) for p in PLATFORMS.values()
    ):
        raise ValueError("looks like a secret: are it and APP_SECRET the wrong way round?")
    if isinstance(value, str) and _APP_ID.fullmatch(value):
        return value
    # A secret may stand here, with a space before it or as the number that JSON makes of it.
    is_harmless = isinstance(value, str) and not _LIKE_A_SECRET.search(value)
    got = f", got {value!r}" if is_harmless else ""
    raise ValueError(
        f"must be a string of letters, digits, - and _{got}. (A number in the environment needs "
        "quotes inside its quotes: '\"123\"'.)"
    )


def agent_id(value: object) -> str:
    text = "" if isinstance(value, bool) else str(value)
    if re.fullmatch("[0-9]{1,16}", text):
        return str(int(text))
    raise ValueError("must be the application's AgentId, a number such as 1000002")


def text(value: object) -> str:
    if isinstance(value, str) and value:
        return value
    raise ValueError(f"must be a string that is not empty, got {value!r}")


def choice(*choices: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if isinstance(value, str) and value in choices:
            return value
        raise ValueError(f"must be {' or '.join(map(repr, choices))}, got {value!r}")

    return read


def platform(value: object) -> Platform:
    return PLATFORMS[choice(*PLATFORMS)(value)]


def flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(f"must be True or False (true or false in the environment), got {value!r}")


def seconds(least: float) -> Callable[[object], float]:
    def read(value: Any) -> float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and least <= value <= 86400:
            return float(value)
        raise ValueError(f"must be a number of seconds from {least:g} to 86400, got {value!r}")

    return read


def names(value: object) -> tuple[str, ...]:
    if isinstance(value, (list, tuple)) and all(isinstance(name, str) and name for name in value):
        return tuple(value)
    raise ValueError(f"must be a list of names (in the environment a JSON list), got {value!r}")


def base_url(value: object) -> str:
    url = text(value).rstrip("/")
    parts = _split(url)
    if url == SANDBOX:
        return url
    if not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f'must be a URL such as {OFFIACCOUNT.api_url} or "{SANDBOX}"{_got(value)}')
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url)):
        return url
    raise ValueError(f"must be https (or http on this machine): it carries secrets{_got(value)}")


def _got(value: object) -> str:
    """The offending value, unless a password or a token may stand in it."""
    return "" if re.search("[@?]", str(value)) else f", got {value!r}"


def origin(value: object) -> str:
    url = text(value).rstrip("/")
    parts = _split(url)
    is_origin = url in (f"http://{parts.netloc}", f"https://{parts.netloc}")
    if is_origin and parts.hostname and url.isascii() and "@" not in url:
        # As a browser shows it: in lower case, without the port that goes without saying.
        return without_default_port(url.lower(), parts.scheme)
    raise ValueError(f"must be scheme and host, such as https://example.com{_got(value)}")


def url_prefix(value: object) -> str:
    if isinstance(value, str) and _URL_PREFIX.fullmatch(value):
        return value
    raise ValueError(
        f'must be a path such as "/wxjsapi", without a slash at its end, got {value!r}'
    )


def hosts(value: object) -> tuple[str, ...]:
    hosts = tuple(host.lower() for host in names(value))
    for host in hosts:
        if not _PAGE_HOST.fullmatch(host):
            raise ValueError(
                "must list hosts such as m.example.com, m.example.com:8443 or .example.com for a "
                f"domain (in Chinese: as the browser sends it, xn--…), got {host!r}"
            )
    return hosts


def central_tokens(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(n, str) and n for n in value):
        raise ValueError("must be a dict of bearer tokens by the names of those who have them")
    for name, token in value.items():
        try:
            secret(token)
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


def central_url(value: object) -> str:
    url = text(value).rstrip("/")
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


def cache_keys(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping) and all(str(key).startswith("CACHE_") for key in value):
        return dict(value)
    raise ValueError("must be a dict of Flask-Caching's CACHE_* keys")


def provider(value: object) -> Callable[..., Any]:
    found = _imported(value)
    if callable(found):
        return found
    raise ValueError(f"must be a callable or the dotted path of one, got {value!r}")


def ticket_server(value: object) -> object:
    server = _imported(value)
    for method in ("find", "save"):
        if not callable(getattr(server, method, None)):
            raise ValueError(
                "must be a class or object with find(key) and save(key, credential), or its "
                f'dotted path "package.module:Class", got {value!r}'
            )
    return server


def _imported(value: object) -> object:
    """What a dotted path names; anything else as it is."""
    if not isinstance(value, str):
        return value
    path = text(value).replace(":", ".")
    try:
        found: object = import_string(path)
    except ImportError as error:
        problem = str(error)
    except Exception as error:  # of the user's module, which may quote anything
        problem = describe(error)
    else:
        return found
    raise ValueError(f"cannot be imported: {problem}")
