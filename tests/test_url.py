"""The page's URL from hand-made environs; ``test_url_servers.py`` asks real servers."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.exceptions import SecurityError

from flask_wxjsapi._page.url import page_url

#: What a browser can send in a path or a query: all printable ASCII but space and hash.
SENT = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "#")

unhurried = settings(deadline=None)  # a busy machine is no failure


def environ(raw: str | None = "/", *, key: str = "RAW_URI", **changes: Any) -> dict[str, Any]:
    """An environ of a server that keeps the raw URI under a key, or nowhere if it is None."""
    path, _, query = (raw or "/").partition("?")
    made = {
        "wsgi.url_scheme": "http",
        "HTTP_HOST": "good.example",
        "SERVER_NAME": "server.example",
        "SERVER_PORT": "8080",
        "SCRIPT_NAME": "",
        "PATH_INFO": decoded(path),
        "QUERY_STRING": query,
    }
    if raw is not None:
        made[key] = raw
    return {name: value for name, value in (made | changes).items() if value is not None}


def decoded(path: str) -> str:
    """A path as PEP 3333 has it in PATH_INFO: un-escaped bytes, as Latin-1."""
    return unquote_to_bytes(path).decode("latin-1")


# -- where the raw path and query come from

BROWSER_TARGETS = [
    "/",
    "/%E4%B8%AD",
    "/a%2Fb",
    "/%7Ex",
    "/x?",
    "/?",
    "/x?a=1?b=2",
    "/x?a|b",
    "/x?[]{}^`'\"",
    "/x?q=%zz",
    "/%",
    "/%e4%b8%ad",
    "/x?%20+",
    "/x?from=timeline&isappinstalled=0",
    "/x?to=http://evil.example/",
    "//double//slash",
    "/a/../b/./c",
    "/;p=1,2:@&=+$!*'()",
    "/" + 2000 * "x",
]


@pytest.mark.parametrize("key", ["RAW_URI", "REQUEST_URI"])
@pytest.mark.parametrize("target", BROWSER_TARGETS)
def test_target_is_taken_as_it_came(target: str, key: str) -> None:
    """The raw path and query are neither un-escaped nor escaped nor shortened."""
    assert page_url(environ(target, key=key)) == f"http://good.example{target}"


def test_raw_uri_before_request_uri() -> None:
    """Where a server has both keys RAW_URI counts; mod_wsgi's REQUEST_URI may be rewritten."""
    assert page_url(environ("/%7Ex", REQUEST_URI="/~x")) == "http://good.example/%7Ex"


def test_empty_raw_uri_is_none() -> None:
    """A server that sets RAW_URI to nothing is treated as one without it."""
    assert page_url(environ("/x", RAW_URI="", REQUEST_URI="/%7Ex")) == "http://good.example/%7Ex"


@pytest.mark.parametrize(
    ("path_info", "query", "expected"),
    [
        ("/", "", "/"),
        ("", "", "/"),
        ("/x", "a=1&b=%20", "/x?a=1&b=%20"),
        ("/中".encode().decode("latin-1"), "", "/%E4%B8%AD"),
        ("/a b", "", "/a%20b"),
        ("/a?b", "", "/a%3Fb"),
        ("/a#b", "", "/a%23b"),
        ("/100%", "", "/100%25"),
        ('/"<>\\^`{}', "", "/%22%3C%3E%5C%5E%60%7B%7D"),
        ("/-._~!$&'()*+,:;=@[]|", "", "/-._~!$&'()*+,:;=@[]|"),
    ],
)
def test_rebuilt_without_a_raw_uri(path_info: str, query: str, expected: str) -> None:
    """Without a raw URI the path is escaped as a browser would, the query is the raw one."""
    made = environ(None, PATH_INFO=path_info, QUERY_STRING=query)
    assert page_url(made) == f"http://good.example{expected}"


def test_rebuilt_below_a_prefix() -> None:
    """Without a raw URI there is no doubt: the prefix goes in front, escaped like the path."""
    made = environ(None, SCRIPT_NAME="/\xc3\xa4pp", PATH_INFO="/x", QUERY_STRING="a")
    assert page_url(made) == "http://good.example/%C3%A4pp/x?a"


def test_rebuilt_without_a_query_string() -> None:
    """PEP 3333 lets a server leave an empty QUERY_STRING out."""
    assert page_url(environ(None, PATH_INFO="/x", QUERY_STRING=None)) == "http://good.example/x"


# -- other forms of a request target


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("http://evil.example/p", "/p"),
        ("http://evil.example/p?q=%7E", "/p?q=%7E"),
        ("https://evil.example/p", "/p"),
        ("HTTP://evil.example/p", "/p"),
        ("http://evil.example:99/p", "/p"),
        ("http://user:pw@evil.example/p", "/p"),
        ("http://evil.example", "/"),
        ("http://evil.example?q", "/?q"),
        ("http://evil.example#f", "/"),
        ("http:///p", "/p"),
        ("http://evil.example//p", "//p"),
        ("http://evil.example/http://evil.example/", "/http://evil.example/"),
    ],
)
def test_absolute_form(raw: str, expected: str) -> None:
    """In absolute form the path counts; the host is the Host header's."""
    assert page_url(environ(raw, PATH_INFO="/p")) == f"http://good.example{expected}"


def test_asterisk_form() -> None:
    """The target of ``OPTIONS *`` is no path, and the URL is still one of this host."""
    url = page_url(environ("*", PATH_INFO="*"))
    assert url.startswith("http://good.example/")


def test_authority_form() -> None:
    """The target of ``CONNECT host:port`` does not become part of the host."""
    url = page_url(environ("evil.example:443", PATH_INFO="/"))
    assert url == "http://good.example/"


def test_two_leading_slashes_are_a_path() -> None:
    """``//evil.example/x`` is a path of this host and no host of its own."""
    assert page_url(environ("//evil.example/x")) == "http://good.example//evil.example/x"


@pytest.mark.parametrize("raw", ["evil.example/x", "@evil.example/x", ".evil.example/", ":80/x"])
def test_target_without_a_slash_does_not_extend_the_host(raw: str) -> None:
    """Nothing of a malformed target ends up in the host."""
    url = page_url(environ(raw, PATH_INFO=raw))
    assert url.startswith("http://good.example/")


def test_fragment_is_cut_off() -> None:
    """A hash that a client sends although it must not is no part of the page's URL."""
    assert page_url(environ("/x?q#f?g")) == "http://good.example/x?q"


# -- bytes outside ASCII


def test_raw_utf8_bytes() -> None:
    """UTF-8 that a client sent unescaped is signed as the same bytes."""
    raw = "/中?q=中".encode().decode("latin-1")
    assert page_url(environ(raw)) == "http://good.example/中?q=中"


def test_raw_bytes_that_are_not_utf8() -> None:
    """Bytes that no browser sends give some URL and no error."""
    assert page_url(environ("/\xff")).startswith("http://good.example/")


def test_text_beyond_latin_1() -> None:
    """A server that decodes the raw URI itself gives some URL and no error."""
    assert page_url(environ("/中", PATH_INFO="/")).startswith("http://good.example/")


# -- scheme and host


@pytest.mark.parametrize(
    ("scheme", "host", "origin"),
    [
        ("http", "good.example", "http://good.example"),
        ("http", "good.example:80", "http://good.example"),
        ("https", "good.example:443", "https://good.example"),
        ("http", "good.example:443", "http://good.example:443"),
        ("https", "good.example:80", "https://good.example:80"),
        ("http", "good.example:8080", "http://good.example:8080"),
        ("http", "good.example:180", "http://good.example:180"),
        ("https", "good.example:4430", "https://good.example:4430"),
        ("http", "127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("http", "localhost", "http://localhost"),
        ("http", "[::1]", "http://[::1]"),
        ("http", "[::1]:80", "http://[::1]"),
        ("http", "[::80]", "http://[::80]"),
        ("https", "[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
        ("http", "xn--fsq.example", "http://xn--fsq.example"),
        ("http", "under_score.example", "http://under_score.example"),
    ],
)
def test_origin(scheme: str, host: str, origin: str) -> None:
    """The Host header counts; the scheme's own port, which no browser shows, is left out."""
    made = environ("/x", HTTP_HOST=host, **{"wsgi.url_scheme": scheme})
    assert page_url(made) == f"{origin}/x"


@pytest.mark.parametrize("host", [None, ""])
@pytest.mark.parametrize(
    ("name", "port", "origin"),
    [
        ("server.example", "8080", "http://server.example:8080"),
        ("server.example", "80", "http://server.example"),
        ("127.0.0.1", "8080", "http://127.0.0.1:8080"),
        ("::1", "8080", "http://[::1]:8080"),
    ],
)
def test_no_host_header(host: str | None, name: str, port: str, origin: str) -> None:
    """HTTP/1.0 without a Host header leaves the server's own name and port."""
    made = environ("/x", HTTP_HOST=host, SERVER_NAME=name, SERVER_PORT=port)
    assert page_url(made) == f"{origin}/x"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example/path",
        "evil.example?q",
        "evil.example#f",
        "user@evil.example",
        "user:pw@evil.example",
        "good.example evil.example",
        "good.example,evil.example",
        "good.example\r\nX-Header: y",
        "good.example\n",
        "good.example\\evil",
        "good.example:80:80",
        "good.example:",
        "good.example:http",
        "good.example:\uff18\uff10",
        ":80",
        "[::1",
        "::1",
        "[::1]x",
        "<script>",
        "例子.example",
        "\xe4.example",
        "%65vil.example",
        " ",
    ],
)
def test_hostile_host_header_is_a_400(host: str) -> None:
    """A Host header that is not a host is refused and not signed."""
    with pytest.raises(SecurityError) as caught:
        page_url(environ("/x", HTTP_HOST=host))
    assert caught.value.code == 400


# -- prefixes


@pytest.mark.parametrize(
    ("raw", "script_name", "path_info", "expected"),
    [
        # The app is mounted below the prefix, so the raw path has it.
        ("/app/x?q", "/app", "/x", "/app/x?q"),
        ("/app", "/app", "", "/app"),
        ("/app?q", "/app", "", "/app?q"),
        ("/app/", "/app", "/", "/app/"),
        ("/app/app", "/app", "/app", "/app/app"),
        ("/%61pp/%7Ex", "/app", "/~x", "/%61pp/%7Ex"),
        ("/a%2Fb/x", "/a/b", "/x", "/a%2Fb/x"),
        ("/app/app/app", "/app", "/app/app", "/app/app/app"),
        ("/\u4e2d/x".encode().decode("latin-1"), "/\xe4\xb8\xad", "/x", "/\u4e2d/x"),
        # A proxy took the prefix away, so the raw path lacks it.
        ("/x?q", "/app", "/x", "/app/x?q"),
        ("/", "/app", "/", "/app/"),
        ("/?q", "/app", "/", "/app/?q"),
        ("/app", "/app", "/app", "/app/app"),
        ("/app/app", "/app", "/app/app", "/app/app/app"),
        ("/application", "/app", "/application", "/app/application"),
        ("/%7Ex", "/app", "/~x", "/app/%7Ex"),
        ("/a%2Fb", "/app", "/a/b", "/app/a%2Fb"),
        ("/x", "/\xe4\xb8\xad", "/x", "/%E4%B8%AD/x"),
        ("/x", "/a b", "/x", "/a%20b/x"),
        ("http://evil.example/x", "/app", "/x", "/app/x"),
        # No prefix at all, written in two ways.
        ("/x", "", "/x", "/x"),
        ("/x", "/", "/x", "/x"),
        # A trailing slash in SCRIPT_NAME is a mistake that many a proxy's configuration makes.
        ("/x", "/app/", "/x", "/app/x"),
        ("/app/x", "/app/", "/x", "/app/x"),
    ],
)
def test_prefix_mounted_or_stripped(
    raw: str, script_name: str, path_info: str, expected: str
) -> None:
    """The decoded paths tell whether the raw one still has the prefix."""
    made = environ(raw, SCRIPT_NAME=script_name, PATH_INFO=path_info)
    assert page_url(made) == f"http://good.example{expected}"


def test_both_mounted_and_stripped() -> None:
    """A proxy took ``/shop`` away and the app is mounted below ``/app``: only one is missing."""
    made = environ("/app/x?q", SCRIPT_NAME="/shop/app", PATH_INFO="/x")
    assert page_url(made) == "http://good.example/shop/app/x?q"


@pytest.mark.parametrize(
    ("raw", "path_info"),
    [
        ("/app/%zz", "/%zz"),
        ("/app/%", "/%"),
        ("/app/%ff", "/\xff"),
        # Werkzeug's server un-escapes to text and puts U+FFFD in the place of a bad byte.
        ("/app/%ff", "/\ufffd".encode().decode("latin-1")),
        # A server that un-escapes nothing, or everything twice.
        ("/app/%7Ex", "/%7Ex"),
        ("/app/%257Ex", "/~x"),
    ],
)
def test_mounted_with_a_bad_escape(raw: str, path_info: str) -> None:
    """A path that decodes in several ways is still seen to have the prefix."""
    made = environ(raw, SCRIPT_NAME="/app", PATH_INFO=path_info)
    assert page_url(made) == f"http://good.example{raw}"


@pytest.mark.parametrize(
    ("raw", "path_info"),
    [
        ("/%zz", "/%zz"),
        ("/%", "/%"),
        ("/%ff", "/\xff"),
        ("/%ff", "/\ufffd".encode().decode("latin-1")),
        ("/%257Ex", "/~x"),
        ("/application/%257Ex", "/application/~x"),
    ],
)
def test_stripped_with_a_bad_escape(raw: str, path_info: str) -> None:
    """A path that decodes in several ways is still seen to lack the prefix."""
    made = environ(raw, SCRIPT_NAME="/app", PATH_INFO=path_info)
    assert page_url(made) == f"http://good.example/app{raw}"


def test_mounted_without_path_info() -> None:
    """PEP 3333 lets a server leave an empty PATH_INFO out."""
    made = environ("/app", SCRIPT_NAME="/app", PATH_INFO=None)
    assert page_url(made) == "http://good.example/app"


# -- PUBLIC_ORIGIN


def test_public_origin_replaces_scheme_and_host() -> None:
    """A configured origin stands before the raw path, whatever the request says."""
    url = page_url(environ("/%7Ex?", HTTP_HOST="10.0.0.7:8000"), "https://public.example")
    assert url == "https://public.example/%7Ex?"


def test_public_origin_makes_the_host_header_irrelevant() -> None:
    """With a configured origin a hostile Host header is neither signed nor an error."""
    url = page_url(environ("/x", HTTP_HOST="user@evil.example"), "https://public.example")
    assert url == "https://public.example/x"


def test_public_origin_with_a_stripped_prefix() -> None:
    """The prefix a proxy took away belongs to the path and comes back."""
    made = environ("/x", SCRIPT_NAME="/app", PATH_INFO="/x")
    assert page_url(made, "https://public.example") == "https://public.example/app/x"


def test_environ_is_not_changed() -> None:
    """The environ is another's: it is read and nothing else."""
    made = environ("/app/x", SCRIPT_NAME="/app", PATH_INFO="/x")
    before = dict(made)
    page_url(made)
    assert made == before


# -- properties


@unhurried
@given(target=st.text(SENT), key=st.sampled_from(["RAW_URI", "REQUEST_URI"]))
def test_path_and_query_survive_byte_for_byte(target: str, key: str) -> None:
    """Whatever printable ASCII follows the slash is signed as it came."""
    assert page_url(environ(f"/{target}", key=key)) == f"http://good.example/{target}"


@unhurried
@given(
    scheme=st.sampled_from(["http", "https", "HTTP", "ws", "x-y.z+1"]),
    authority=st.text(st.sampled_from("evil.xmp@:[]\\%*!"), min_size=1),
    target=st.text(SENT),
)
def test_absolute_form_never_gives_the_host(scheme: str, authority: str, target: str) -> None:
    """Whatever host a client writes into the target, the Host header's is signed."""
    made = environ(f"{scheme}://{authority}/{target}", PATH_INFO="/")
    assert page_url(made) == f"http://good.example/{target}"


@unhurried
@given(
    raw=st.text(st.characters(max_codepoint=0xFF)),
    script_name=st.sampled_from(["", "/app", "/a/b"]),
    path_info=st.text(st.characters(max_codepoint=0xFF)),
)
def test_no_target_changes_the_host(raw: str, script_name: str, path_info: str) -> None:
    """Any bytes for a target give a URL of this host, with its own path and no hash."""
    made = environ(None, RAW_URI=raw, SCRIPT_NAME=script_name, PATH_INFO=path_info)
    url = page_url(made)
    assert url.startswith("http://good.example/")
    assert urlsplit(url).netloc == "good.example"
    assert "#" not in url


ESCAPED_PATHS = st.text(SENT.replace("?", ""), max_size=30).map(lambda text: f"/{text}")
PREFIXES = st.lists(st.text(st.sampled_from("ab~-中 "), min_size=1), min_size=1, max_size=3).map(
    lambda parts: "/" + "/".join(parts)
)


@unhurried
@given(path=ESCAPED_PATHS, prefix=PREFIXES, query=st.text(SENT))
def test_mounted_paths_survive(path: str, prefix: str, query: str) -> None:
    """Below any prefix that the raw path still has nothing is added."""
    raw = f"{quote(prefix)}{path}?{query}"
    wsgi_prefix = prefix.encode().decode("latin-1")
    made = environ(raw, SCRIPT_NAME=wsgi_prefix, PATH_INFO=decoded(path))
    assert page_url(made) == f"http://good.example{raw}"


@unhurried
@given(path=ESCAPED_PATHS, prefix=PREFIXES, query=st.text(SENT))
def test_stripped_paths_get_their_prefix_back(path: str, prefix: str, query: str) -> None:
    """A prefix that the raw path lacks is put in front, escaped, and nothing else changes."""
    wsgi_prefix = prefix.encode().decode("latin-1")
    made = environ(f"{path}?{query}", SCRIPT_NAME=wsgi_prefix, PATH_INFO=decoded(path))
    assert page_url(made) == f"http://good.example{quote(prefix)}{path}?{query}"
