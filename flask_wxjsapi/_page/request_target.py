"""Path and query as the browser sent them, from whatever a server has kept of its request line.

A key counts where a server sets it by itself. A client reaches ``HTTP_*`` alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, unquote_to_bytes

from .servers import tell_once

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^/?#]*")
#: What a browser leaves alone in a path, beside letters, digits and ``_.-~``.
_PATH_SAFE = "/!$&'()*+,:;=@[]|"
#: A path that nobody escapes: any other is also written in a second way, ``+`` as ``%2B``.
_PLAIN = re.compile(r"[A-Za-z0-9/._\-]*")


def request_target(environ: WSGIEnvironment, raw: str = "") -> str:
    """Path and query as they came over the wire, with a prefix that a proxy took away.

    :param raw: what the server calls RAW_URI or REQUEST_URI; empty where it has neither.
    """
    if raw.startswith("/") or _ORIGIN.match(raw):
        target = _cleaned(raw)
        missing = _missing_prefix(environ, target)
        return (_prefix_by_its_text(environ, target) if missing is None else missing) + target
    for target in map(_cleaned, _kept_elsewhere(environ)):
        missing = _missing_prefix(environ, target)
        if missing is not None:  # else it is of another address than the one that is routed
            return missing + target
    if not raw:
        tell_once(environ.get("SERVER_SOFTWARE") or "", is_doubtful=_is_doubtful(environ))
    return _rebuilt(environ)


def _kept_elsewhere(environ: WSGIEnvironment) -> Iterator[str]:
    """The forms of servers that have no RAW_URI and no REQUEST_URI."""
    for key in ("fc.request_uri", "UNENCODED_URL"):  # Aliyun Function Compute, IIS
        if environ.get(key):
            yield environ[key]
    query = environ.get("QUERY_STRING", "")
    for path in filter(None, _paths_kept_elsewhere(environ)):
        yield f"{path}?{query}" if query else path


def _paths_kept_elsewhere(environ: WSGIEnvironment) -> Iterator[str]:
    yield environ.get("RAW_PATH_INFO", "")  # eventlet
    scope = environ.get("asgi.scope") or {}  # a2wsgi
    yield (scope.get("raw_path") or b"").decode("latin-1")
    yield _path_of_event(_event(environ))


def _event(environ: WSGIEnvironment) -> Mapping[str, Any]:
    """What a gateway made of the request, for a function; empty where there is none."""
    return environ.get("apig_wsgi.full_event") or environ.get("serverless.event") or {}


def _path_of_event(event: Mapping[str, Any]) -> str:
    """Its rawPath where that is raw: a function's own URL leaves it alone, an HTTP API un-escapes
    it.
    """
    path: str = event.get("rawPath") or ""
    host = (event.get("requestContext") or {}).get("domainName") or ""
    return path if ".lambda-url." in host or unquote(path) != path else ""


def _cleaned(raw: str) -> str:
    """A request target in origin form, whichever it had.

    In absolute form ("GET http://host/path") the host is the client's word, not ours.
    """
    origin = _ORIGIN.match(raw)
    target = (raw[origin.end() :] if origin else raw).partition("#")[0]
    if not target.isascii():
        target = target.encode("latin-1", "replace").decode("utf-8", "replace")
    return target if target.startswith("/") else f"/{target}"


def _missing_prefix(environ: WSGIEnvironment, target: str) -> str | None:
    """What a proxy stripped from the path, as SCRIPT_NAME knows it; None where the two do not go
    together.

    A raw path has the prefix where the app is mounted below it, lacks it where a proxy took it
    away, and has the latter half of it where both happened: the decoded whole tells.
    """
    path = target.partition("?")[0]
    prefix = environ.get("SCRIPT_NAME", "").rstrip("/")
    whole = prefix + environ.get("PATH_INFO", "")
    for decoded in (unquote_to_bytes(path).decode("latin-1"), _wsgi(unquote(path))):
        missing = whole.removesuffix(decoded)
        if whole.endswith(decoded) and prefix.startswith(missing):
            return _quoted(missing)
    return None


def _prefix_by_its_text(environ: WSGIEnvironment, target: str) -> str:
    """The same, where a server decodes a bad escape in a way of its own."""
    prefix = _quoted(environ.get("SCRIPT_NAME", "").rstrip("/"))
    path = target.partition("?")[0]
    return "" if f"{path}/".startswith(f"{prefix}/") else prefix


def _rebuilt(environ: WSGIEnvironment) -> str:
    """The best that is left on a server that keeps nothing raw."""
    query = environ.get("QUERY_STRING", "")
    path = _quoted(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))
    return _cleaned(f"{path}?{query}" if query else path)


def _is_doubtful(environ: WSGIEnvironment) -> bool:
    """Whether the browser may have had something else than what is rebuilt."""
    written = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    if "queryStringParameters" in _event(environ):  # and QUERY_STRING was made of them
        written += environ.get("QUERY_STRING", "")
    return not _PLAIN.fullmatch(written)


def _quoted(path: str) -> str:
    return quote(path.encode("latin-1", "replace"), safe=_PATH_SAFE)


def _wsgi(text: str) -> str:
    return text.encode("utf-8", "replace").decode("latin-1")
