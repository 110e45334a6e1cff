"""The page's URL exactly as the browser has it."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import TYPE_CHECKING

from werkzeug.exceptions import SecurityError

from .request_target import request_target

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_HOST = re.compile(r"[A-Za-z0-9._\-]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?", re.ASCII)
_PAGE = re.compile(rf"(https?)://({_HOST.pattern})(?=[/?#]|$)", re.ASCII)
_ENCODED = re.compile("https?%(25)*3A", re.IGNORECASE)
_LONGEST = 4096  # bytes of a page's URL
_DEFAULT_PORT = {"http": ":80", "https": ":443"}
_OF_A_VISIT = re.compile(r"from=(single|group)message|from=timeline|isappinstalled=\d?")
_OF_A_LOGIN = re.compile(rf"(code|state)(=.*)?|{_OF_A_VISIT.pattern}")


class ForeignPage(ValueError):
    """A page of a host whose pages are not signed here."""

    def __init__(self, host: str) -> None:
        super().__init__(f"Pages of {host} are not signed here: see WXJSAPI_PAGE_HOSTS.")
        self.host = host


def page_url(environ: WSGIEnvironment, public_origin: str | None = None) -> str:
    """The URL of the page a request asks for, escapes untouched and without the hash.

    ``request.url`` is no good: Flask un-escapes it, and WeChat compares bytes.

    :param environ: the WSGI environment of the request.
    :param public_origin: scheme and host to use, such as ``https://example.com``; by default
        the request's own.
    :raises werkzeug.exceptions.SecurityError: (a 400) for a Host header that is not a host.
    """
    get = environ.get
    origin = public_origin or _origin(get("wsgi.url_scheme"), get("HTTP_HOST") or _server(environ))
    raw: str | None = get("RAW_URI") or get("REQUEST_URI")
    # What nearly every request has needs no more.
    if raw and raw[0] == "/" and raw.isascii() and "#" not in raw and not get("SCRIPT_NAME"):
        return origin + raw
    return origin + request_target(environ, raw or "")


def check_page(url: str, hosts: Collection[str]) -> None:
    """Whether a URL may be signed for whoever asks.

    :param url: what a page says its URL is.
    :param hosts: the hosts whose pages are signed, with their ports; one that starts with a dot
        stands for itself and all hosts below it.
    :raises ForeignPage: its host is none of these.
    :raises ValueError: it may not; the text says why and quotes nothing of it but the host.
    """
    if not url:
        raise ValueError("url is missing: send encodeURIComponent(location.href).")
    if len(url.encode("utf-8", "replace")) > _LONGEST:
        raise ValueError(f"url is longer than {_LONGEST} bytes.")
    if _ENCODED.match(url):
        raise ValueError("url is encoded twice: send it through encodeURIComponent once.")
    if " " in url:
        raise ValueError("url has a space in it: send it through encodeURIComponent.")
    if not url.isprintable():
        raise ValueError("url has characters in it that no URL has.")
    page = _PAGE.match(url)
    # A browser turns backslashes into slashes, so it has none before the query.
    if page is None or "\\" in re.split("[?#]", url, maxsplit=1)[0]:
        raise ValueError("url must be a page's whole address, http(s)://host/…")
    if not _is_host_of(page, hosts):
        raise ForeignPage(page[2])


def shared_url(page: str) -> str:
    """What a card links to: the page without what is its visitor's.

    An OAuth ``code`` with its ``state`` works once, and logs somebody in; ``from`` and
    ``isappinstalled`` are WeChat's notes on how this visitor came.
    """
    path, _, query = page.partition("?")
    fields = query.split("&")
    is_login = {"code", "state"} <= {field.partition("=")[0] for field in fields}
    visitors = _OF_A_LOGIN if is_login else _OF_A_VISIT
    kept = [field for field in fields if not visitors.fullmatch(field)]
    return f"{path}?{'&'.join(kept)}" if any(kept) else path


def without_default_port(host: str, scheme: str | None = None) -> str:
    """A host as a browser shows it: without the port that goes without saying.

    :param scheme: of the page; None where nobody knows it.
    """
    if scheme is None:
        return host.removesuffix(_DEFAULT_PORT["http"]).removesuffix(_DEFAULT_PORT["https"])
    return host.removesuffix(_DEFAULT_PORT.get(scheme, ""))


def is_origin_of(origin: str, hosts: Collection[str]) -> bool:
    """Whether an Origin header names one of the hosts whose pages are signed."""
    page = _PAGE.fullmatch(origin)
    return page is not None and _is_host_of(page, hosts)


def _is_host_of(page: re.Match[str], hosts: Collection[str]) -> bool:
    host = without_default_port(page[2].lower(), page[1])
    return any(
        host == entry or (entry.startswith(".") and f".{host}".endswith(entry)) for entry in hosts
    )


def _server(environ: WSGIEnvironment) -> str:
    """The host of a request that names none."""
    name = environ["SERVER_NAME"]
    host = f"[{name}]" if ":" in name else name
    return f"{host}:{environ['SERVER_PORT']}"


@lru_cache(64)
def _origin(scheme: str, host: str) -> str:
    if not _HOST.fullmatch(host):
        raise SecurityError(f"The Host header {host!r} is not a host name.")
    # A browser never shows the default port, but a proxy may add it to the header.
    return f"{scheme}://{without_default_port(host, scheme)}"
