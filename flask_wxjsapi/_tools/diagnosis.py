"""Why WeChat says ``invalid signature``: found by trying what people sign by mistake.

It imports nothing of the package and computes SHA-1 itself, so that a mistake in ``_signature``
cannot agree with itself.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import permutations, product
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import quote, unquote, unquote_plus, unquote_to_bytes, urlsplit

from markupsafe import escape
from werkzeug.wrappers import Request


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a signature was made from.

    :param cause: ``"valid"``, ``"unknown"``, a key of :func:`texts`, or two joined by ``+``.
    :param signed: the text that was signed, with ``***`` for the ticket and control characters
        written out; None if unknown.
    :param english: what happened and what to do.
    :param chinese: the same.
    """

    cause: str
    signed: str | None
    english: str
    chinese: str


@cache
def texts() -> dict[str, dict[str, str]]:
    """Cause -> ``fact`` and ``fix``, and ``fact_zh`` and ``fix_zh``, which are the same in Chinese.

    Read when the first diagnosis is made: most processes never make one.
    """
    import tomllib  # only here, for the same reason

    file = resources.files(__package__).joinpath("diagnosis_texts.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))


# -- what people sign in place of a URL ------------------------------------------------------------


class _Url(NamedTuple):
    scheme: str
    host: str
    port: str
    path: str
    query: str

    @property
    def params(self) -> list[str]:
        return self.query[1:].split("&") if len(self.query) > 1 else []

    def with_params(self, params: list[str]) -> str:
        return self.to(query="?" + "&".join(params) if params else "")

    def to(self, **parts: str) -> str:
        new = self._replace(**parts)
        return f"{new.scheme}://{new.host}{new.port}{new.path}{new.query}"


_URL = re.compile(r"(https?)://(\[[^]/?#]*\]|[^/?#:]+)(:\d+)?([^?#]*)(\?[^#]*)?", re.I)
_SHARED = re.compile(
    r"(from|isappinstalled|nsukey|wxshare_count|clicktime|enterid|ascene|subscene|exportkey"
    r"|pass_ticket|wx_header|devicetype|nettype|abtest_cookie|winzoom)="
)
_SUFFIXES = ("from=timeline", "from=groupmessage", "from=singlemessage")
_PORTS = (":80", ":443", ":5000", ":8000", ":8080", ":3000", ":5001", ":8001", ":8888", ":9000")
_MANY = 12  # parameters, or steps of a path, that are tried one by one


def _share(url: _Url) -> Iterator[str]:
    params, known = url.params, [p for p in url.params if _SHARED.match(p)]
    if known:
        yield url.with_params([p for p in params if p not in known])
    for one in known[:_MANY]:
        yield url.with_params([p for p in params if p != one])
    for suffix, rest in product(_SUFFIXES, ([], ["isappinstalled=0"], ["isappinstalled=1"])):
        yield url.with_params([*params, suffix, *rest])


def _query(url: _Url) -> Iterator[str]:
    params = url.params
    yield url.to(query="")
    yield url.with_params(params[:1])
    for lost in range(len(params))[:_MANY]:
        yield url.with_params(params[: -1 - lost])
        yield url.with_params(params[:lost] + params[lost + 1 :])


def _slash(url: _Url) -> Iterator[str]:
    yield url.to(path=url.path + "/")
    yield url.to(path=url.path.removesuffix("/"))
    yield url.to(query=url.query.rstrip("&").removesuffix("?"))
    yield url.to(query=url.query + ("&" if url.query else "?"))


def _scheme(url: _Url) -> Iterator[str]:
    yield url.to(scheme="http" if url.scheme == "https" else "https")


def _port(url: _Url) -> Iterator[str]:
    for port in ("", *_PORTS):
        yield url.to(port=port)


def _host(url: _Url) -> Iterator[str]:
    host = url.host
    other = host.removeprefix("www.") if host.startswith("www.") else f"www.{host}"
    for name in (other, host.lower(), host.upper(), host.capitalize(), host.title()):
        yield url.to(host=name)
    for name, port in product(("127.0.0.1", "localhost"), ("", *_PORTS[2:5])):
        yield url.to(scheme="http", host=name, port=port)


def _path(url: _Url) -> Iterator[str]:
    steps = url.path.split("/")
    for start in range(2, len(steps))[:_MANY]:
        yield url.to(path="/" + "/".join(steps[start:]))
    yield f"//{url.host}{url.port}{url.path}{url.query}"
    yield f"{url.host}{url.port}{url.path}{url.query}"
    yield url.path + url.query
    yield url.path + (url.query or "?")  # request.full_path


def _unescaped(url: str) -> Iterator[str]:
    start, mark, query = url.partition("?")
    yield unquote(url)
    yield unquote(start) + mark + unquote_plus(query)
    yield unquote(start) + mark + query
    yield start + mark + unquote(query)
    if match := _URL.match(url):
        environ = {
            "wsgi.url_scheme": match[1].lower(),
            "HTTP_HOST": match[2] + (match[3] or ""),
            "PATH_INFO": unquote_to_bytes(match[4]).decode("latin-1"),
            "QUERY_STRING": query.encode("utf-8", "replace").decode("latin-1"),
        }
        yield Request(environ).url  # and Flask's request.url


def _escaped(url: str) -> Iterator[str]:
    yield quote(url, safe="!~*'()")  # encodeURIComponent
    yield quote(url, safe="")
    yield quote(quote(url, safe=""), safe="")
    yield quote(url, safe=";,/?:@&=+$!~*'()#")  # encodeURI
    for safe in ("[]'()", "'()", "()", "[]", ""):  # what others escape and browsers do not
        yield quote(url, safe=f"%;,/?:@&=+$!~*#{safe}")
    yield re.sub("%..", lambda escape: escape[0].lower(), url)
    yield re.sub("%..", lambda escape: escape[0].upper(), url)
    for old, new in (("%20", "+"), ("+", "%20"), ("+", "%2B")):
        yield url.replace(old, new)


def _html(url: str) -> Iterator[str]:
    for ampersand in ("&amp;", "&#38;", "\\u0026"):
        yield url.replace("&", ampersand)
    yield html.escape(url)
    yield str(escape(url))  # as Jinja does
    yield html.unescape(url)


_Vary = Callable[[str], Iterable[str]]


def _parsed(vary: Callable[[_Url], Iterator[str]]) -> _Vary:
    def vary_text(text: str) -> Iterator[str]:
        if match := _URL.fullmatch(text):
            yield from vary(_Url(*(part or "" for part in match.groups())))

    return vary_text


def _mistakes(fragment: str) -> dict[str, _Vary]:
    """Cause -> what it makes of a URL.

    In the order they are named in and, in pairs, applied in: what a framework or template does to
    the text comes after what is wrong with the address.

    :param fragment: the hash, with its ``#``.
    """
    return {
        "slash": _parsed(_slash),
        "share": _parsed(_share),
        "query": _parsed(_query),
        "scheme": _parsed(_scheme),
        "port": _parsed(_port),
        "host": _parsed(_host),
        "path": _parsed(_path),
        "hash": lambda url: [url + fragment],
        "unescaped": _unescaped,
        "escaped": _escaped,
        "html": _html,
    }


def _wrong_urls(
    page: str, mistakes: Mapping[str, _Vary], addresses: Mapping[str, Iterable[str]]
) -> dict[str, str]:
    """URL -> the one mistake that makes it."""
    made = {cause: vary(page) for cause, vary in mistakes.items()}
    urls: dict[str, str] = {}
    for cause, variants in {"compared": addresses.get("compared", ()), **made, **addresses}.items():
        for url in variants:
            urls.setdefault(url, cause)
    urls.pop(page, None)
    return urls


def _twice_wrong(
    urls: Mapping[str, str], mistakes: Mapping[str, _Vary]
) -> Iterator[tuple[str, str]]:
    """URLs of two mistakes, and which two."""
    order = list(mistakes)
    for url, first in urls.items():
        for second in order[order.index(first) + 1 :] if first in mistakes else ():
            for changed in mistakes[second](url):
                yield changed, f"{first}+{second}"


# -- what people sign in place of the rest ---------------------------------------------------------

_NAMES = ("jsapi_ticket", "noncestr", "timestamp", "url")
_OTHER_NAMES = (
    ("jsapi_ticket", "jsapiTicket", "ticket"),
    ("noncestr", "nonceStr", "nonce_str"),
    ("timestamp", "timeStamp"),
    ("url",),
)
_ALGORITHMS = {32: "md5", 40: "sha1", 56: "sha224", 64: "sha256", 96: "sha384", 128: "sha512"}
_MOST = 4_000_000  # characters that are tried in all
_LONGEST = 8192  # characters of a value


class _Values(NamedTuple):
    ticket: str
    noncestr: str
    timestamp: str
    url: str

    def text(self, names: Iterable[str] = _NAMES) -> str:
        return "&".join(f"{name}={value}" for name, value in zip(names, self, strict=True))


def _forms(right: _Values) -> Iterator[tuple[str, str]]:
    yield "swapped", right._replace(noncestr=right.timestamp, timestamp=right.noncestr).text()
    seconds = right.timestamp.partition(".")[0]
    for timestamp in (seconds, seconds[:-3]):
        yield "timestamp", right._replace(timestamp=timestamp).text()
    for names in product(*_OTHER_NAMES):
        yield "names", right.text(names)
    for parts in permutations(zip(_NAMES, right, strict=True)):
        yield "order", "&".join(f"{name}={value}" for name, value in parts)


def _texts(
    right: _Values,
    fragment: str,
    others: Mapping[str, str],
    addresses: Mapping[str, Iterable[str]],
) -> Iterator[tuple[str, str]]:
    """Cause and signed text, the likely ones first."""
    mistakes = _mistakes(fragment)
    urls = _wrong_urls(right.url, mistakes, addresses)
    tickets = [
        ("access_token" if label == "access_token" else "ticket", right._replace(ticket=other))
        for label, other in others.items()
    ]
    yield "valid", right.text()
    for url, cause in urls.items():
        yield cause, right._replace(url=url).text()
    for cause, values in tickets:
        yield cause, values.text()
    yield from _forms(right)
    for (cause, values), (url, first) in product(tickets, urls.items()):
        yield f"{first}+{cause}", values._replace(url=url).text()
    for url, causes in _twice_wrong(urls, mistakes):
        yield causes, right._replace(url=url).text()
    for ms in range(1000):
        yield "timestamp", right._replace(timestamp=f"{right.timestamp}{ms:03}").text()


# -- the one thing that others call ----------------------------------------------------------------


def diagnose(
    *,
    url: str,
    noncestr: str,
    timestamp: str,
    signature: str,
    ticket: str,
    others: Mapping[str, str] = MappingProxyType({}),
    addresses: Mapping[str, Iterable[str]] = MappingProxyType({}),
) -> Diagnosis:
    """Find what was signed in place of what should have been.

    Where two causes make the same text, the one tried first is named: a lost share suffix
    rather than a lost query, a lost ``?`` rather than an un-escaped URL.

    :param url: ``location.href`` as the browser has it, with its hash.
    :param noncestr: ``nonceStr`` as ``wx.config`` got it, like ``timestamp`` and ``signature``.
    :param ticket: the ``jsapi_ticket`` that should have signed.
    :param others: a few other values that may have signed, by a label that tells what each is;
        ``"access_token"`` has a text of its own.
    :param addresses: URLs that may have been signed instead, by cause: ``"compared"``, the
        browser's own where WeChat named another, or ``"request"``, those of the app's views.
    :raises ValueError: for something that cannot come from a page; it says what to paste.
    """
    url, signature = url.strip(), signature.strip()
    _check(url, noncestr, timestamp, signature, ticket)
    page, mark, fragment = url.partition("#")
    right = _Values(ticket, noncestr, timestamp, page)
    others = {label: other for label, other in others.items() if other not in ("", ticket)}
    digest, algorithm = signature.lower(), _ALGORITHMS[len(signature)]
    budget = _MOST
    for cause, text in _texts(right, mark + fragment, others, addresses):
        budget -= len(text)
        if budget < 0:
            break
        data = text.encode("utf-8", "replace")
        if hashlib.new(algorithm, data, usedforsecurity=False).hexdigest() == digest:
            if algorithm != "sha1" or signature != digest:
                cause = "algorithm" if cause == "valid" else f"{cause}+algorithm"
            label = next(
                (name for name, other in others.items() if f"jsapi_ticket={other}&" in text), ""
            )
            for secret in (ticket, *others.values()):
                text = text.replace(secret, "***")
            # What was un-escaped may be meant for the terminal it will be shown on.
            text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
            form = "in upper case" if algorithm == "sha1" else algorithm.upper()
            return _diagnosis(cause, text, {"ticket": label, "algorithm": form})
    return _diagnosis("unknown", None, {})


def _check(url: str, noncestr: str, timestamp: str, signature: str, ticket: str) -> None:
    if not _is_page(url):
        raise ValueError("url must be the page's whole address: paste location.href (http…).")
    if not re.fullmatch("[0-9A-Fa-f]+", signature) or len(signature) not in _ALGORITHMS:
        raise ValueError("signature must be 40 hex digits: paste the one that wx.config got.")
    for name, value in (("nonceStr", noncestr), ("timestamp", timestamp), ("ticket", ticket)):
        if not value or not value.isprintable() or len(value) > _LONGEST:
            raise ValueError(f"{name} must be one line of text: paste it as wx.config got it.")


def _is_page(url: str) -> bool:
    try:
        urlsplit(url).port  # noqa: B018 - raises for one that cannot be
    except ValueError:
        return False
    return bool(_URL.match(url)) and url.isprintable() and len(url) <= _LONGEST


def _diagnosis(cause: str, signed: str | None, details: Mapping[str, str]) -> Diagnosis:
    names = cause.split("+")

    def said(part: str) -> list[str]:
        lines = (texts()[name][part].format(details.get(name)) for name in names)
        return list(dict.fromkeys(lines))

    english = " ".join(said("fact") + said("fix"))
    return Diagnosis(cause, signed, english, "".join(said("fact_zh") + said("fix_zh")))
