"""What servers keep of the request line where there is no RAW_URI, and what is told where they keep
nothing. ``servers/`` asks the servers themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_wxjsapi import sign
from flask_wxjsapi._page import servers
from flask_wxjsapi._page.request_target import request_target
from flask_wxjsapi._page.url import page_url
from flask_wxjsapi._tools.diagnosis import diagnose
from tests.test_url import PREFIXES, SENT, decoded, environ, unhurried

#: How each server would keep a path and a query, if these are what its line had.
KEPT: dict[str, Any] = {
    "eventlet": lambda path, query: {"RAW_PATH_INFO": path},
    "a2wsgi": lambda path, query: {"asgi.scope": {"raw_path": path.encode("latin-1")}},
    "Function Compute": lambda path, query: {"fc.request_uri": f"{path}?{query}"},
    "IIS": lambda path, query: {"UNENCODED_URL": f"{path}?{query}"},
    "apig-wsgi": lambda path, query: {"apig_wsgi.full_event": {"rawPath": path}},
    "serverless-wsgi": lambda path, query: {"serverless.event": {"rawPath": path}},
}
RAW_PATHS = [
    "/tag/C%2B%2B",
    "/R%26D",
    "/a%2Fb",
    "/%7Ex",
    "/%e4%b8%ad",
    "/100%25",
    "/%ff",
    "/%zz%41",
]


@pytest.fixture(autouse=True)
def first_pages(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """This process has told nothing yet."""
    servers.tell_once.cache_clear()
    caplog.set_level(logging.INFO, "flask_wxjsapi")
    yield
    servers.tell_once.cache_clear()


@pytest.mark.parametrize("server", KEPT)
@pytest.mark.parametrize("path", RAW_PATHS)
def test_what_a_server_keeps_elsewhere_is_taken(
    server: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The path is the raw one, the query as always, and there is nothing to tell."""
    kept = KEPT[server](path, "q=%7E")
    made = environ(None, PATH_INFO=decoded(path), QUERY_STRING="q=%7E", **kept)
    assert request_target(made) == f"{path}?q=%7E"
    assert caplog.records == []


@pytest.mark.parametrize("server", ["Function Compute", "IIS"])
def test_a_question_mark_at_the_end_is_kept_where_the_query_is(server: str) -> None:
    """A form with path and query tells ``/x?`` from ``/x``."""
    assert request_target(environ(None, PATH_INFO="/x", **KEPT[server]("/x", ""))) == "/x?"


@pytest.mark.parametrize("server", KEPT)
def test_a_raw_form_of_another_page_is_not_believed(server: str) -> None:
    """What does not decode to the path that is routed is of no use: somebody has rewritten one."""
    made = environ(None, PATH_INFO="/x", QUERY_STRING="q", **KEPT[server]("/%7Ey", "q"))
    assert request_target(made) == "/x?q"


@pytest.mark.parametrize("server", KEPT)
@pytest.mark.parametrize(
    ("path", "script_name", "expected"),
    [("/app/%7Ex", "/app", "/app/%7Ex"), ("/%7Ex", "/app", "/app/%7Ex")],
)
def test_below_a_prefix(server: str, path: str, script_name: str, expected: str) -> None:
    """Mounted or stripped, the prefix is there once."""
    made = environ(None, SCRIPT_NAME=script_name, PATH_INFO="/~x", **KEPT[server](path, "q"))
    assert request_target(made | {"QUERY_STRING": "q"}) == f"{expected}?q"


@pytest.mark.parametrize("server", ["Function Compute", "IIS"])
def test_absolute_form_elsewhere(server: str) -> None:
    """The host in it does not count there either."""
    kept = KEPT[server]("http://evil.example/%7Ex", "q")
    assert request_target(environ(None, PATH_INFO="/~x", **kept)) == "/%7Ex?q"


def test_raw_uri_counts_before_all_others() -> None:
    """What most servers have is looked at first."""
    kept = [form("/%78", "") for form in KEPT.values()]
    made = environ("/x", **{key: value for one in kept for key, value in one.items()})
    assert request_target(made, "/x") == "/x"


def test_a_raw_path_that_a_gateway_has_unescaped_is_not_taken_for_raw(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An HTTP API's rawPath has no escapes left: that is as good as nothing."""
    made = environ(None, PATH_INFO="/C++", **{"serverless.event": {"rawPath": "/C++"}})
    assert request_target(made) == "/C++"
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_path_without_escapes_is_raw_where_nobody_has_unescaped_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A function's own URL is known by its host."""
    event = {"rawPath": "/C++", "requestContext": {"domainName": "x.lambda-url.eu-1.on.aws"}}
    made = environ(None, PATH_INFO="/C++", **{"serverless.event": event})
    assert request_target(made) == "/C++"
    assert caplog.records == []


@pytest.mark.parametrize(
    "kept",
    [
        {"asgi.scope": {"raw_path": None}},
        {"asgi.scope": {}},
        {"asgi.scope": None},
        {"apig_wsgi.full_event": {"path": "/%78", "version": "1.0"}},
        {"serverless.event": {"rawPath": None, "requestContext": None}},
        {"RAW_PATH_INFO": ""},
        {"fc.request_uri": ""},
        {"HTTP_RAW_PATH_INFO": "/%78"},
        {"HTTP_X_REQUEST_URI": "/%78"},
        {"HTTP_X_ORIGINAL_URL": "/%78"},
        {"HTTP_UNENCODED_URL": "/%78"},
    ],
)
def test_nothing_kept_or_a_clients_word(kept: dict[str, Any]) -> None:
    """A form that is missing or empty is none, and a header is what anybody may send."""
    assert request_target(environ(None, PATH_INFO="/x", **kept)) == "/x"


@unhurried
@given(
    path=st.text(SENT.replace("?", ""), max_size=30).map(lambda text: f"/{text}"),
    prefix=st.just("") | PREFIXES,
    server=st.sampled_from([name for name in KEPT if not name.endswith("-wsgi")]),
)
def test_any_path_survives(path: str, prefix: str, server: str) -> None:
    """Whatever a browser can send comes out as it was, if the server has kept it."""
    script_name = prefix.encode().decode("latin-1")
    made = environ(None, SCRIPT_NAME=script_name, PATH_INFO=decoded(path), QUERY_STRING="q")
    assert request_target(made | KEPT[server](path, "q")).endswith(f"{path}?q")


# -- where nothing is kept


def test_an_address_that_cannot_be_known_is_told_with_the_servers_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One warning says which server it is."""
    request_target(environ(None, PATH_INFO="/C++", SERVER_SOFTWARE="Granian"))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("Granian keeps nothing of an address")
    assert vars(record)["wxjsapi"] == {"event": "address_rebuilt", "server": "Granian"}


@pytest.mark.parametrize("name", [None, ""])
def test_a_server_without_a_name(name: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """hypercorn does not say who it is."""
    request_target(environ(None, PATH_INFO="/C++", SERVER_SOFTWARE=name))
    assert caplog.records[0].getMessage().startswith("The server keeps nothing of an address")


@pytest.mark.parametrize("path", ["/C++", "/~x", "/a b", "/中".encode().decode("latin-1"), "/a|b"])
def test_a_path_with_two_ways_to_write_it_is_a_warning(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The browser may have had either, however the rebuilt one looks."""
    request_target(environ(None, PATH_INFO=path))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_prefix_with_two_ways_to_write_it_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """It is part of the address."""
    request_target(environ(None, SCRIPT_NAME="/a b", PATH_INFO="/x"))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize("path", ["/", "", "/item-7/a_b.html"])
def test_a_plain_path_is_no_warning(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody escapes a letter; of ``%2F`` and ``?`` the log has a line all the same."""
    request_target(environ(None, PATH_INFO=path))
    assert [record.levelname for record in caplog.records] == ["INFO"]


@pytest.mark.parametrize("event", [{"queryStringParameters": {"q": " "}}, {"rawPath": "/x"}])
def test_a_query_that_an_adapter_has_made_is_a_warning(
    event: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The events of a REST API have it in pieces; where it is kept there is no doubt of it."""
    request_target(environ(None, PATH_INFO="/x", QUERY_STRING="q=+", **{"serverless.event": event}))
    level = "INFO" if "rawPath" in event else "WARNING"
    assert [record.levelname for record in caplog.records] == [level]


def test_it_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Many pages make one line of each level."""
    for path in ("/x", "/C++", "/x", "/~x", "/C++"):
        request_target(environ(None, PATH_INFO=path))
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]


def test_nothing_of_an_address_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """It may have somebody's OAuth code in it."""
    request_target(environ(None, PATH_INFO="/s3cret+", QUERY_STRING="code=s3cret"))
    assert "s3cret" not in str(vars(caplog.records[0]))


@pytest.mark.parametrize("raw", ["*", "evil.example/x"])
def test_a_malformed_target_is_not_the_servers_fault(
    raw: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that has kept nonsense has kept what came."""
    request_target(environ(None, PATH_INFO=raw), raw)
    assert caplog.records == []


# -- where nobody can see the server


def install(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Have just these installed."""

    def distribution(name: str) -> None:
        if name not in names:
            raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", distribution)


def test_a_command_names_the_servers_that_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot know more than that."""
    install(monkeypatch, "granian", "tornado", "flask")
    text = servers.advice()
    assert text
    assert text.startswith("If this app runs on granian or tornado: that keeps nothing of an")


@pytest.mark.parametrize("names", [["flask"], ["granian", "gunicorn"], ["gevent", "a2wsgi"]])
def test_a_command_is_silent_where_addresses_are_probably_kept(
    names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Werkzeug keeps them as well, and of two servers the better one is likely."""
    install(monkeypatch, *names)
    assert servers.advice() is None


@pytest.mark.parametrize(
    "target", ["/a%2Fb", "/tag/C%2B%2B", "/%7Ex", "/%e4%b8%ad", "/x?", "/a%7Cb"]
)
def test_verify_names_the_server_as_a_cause(target: str) -> None:
    """Whoever has left url= out hears what else it can be."""
    made = environ(target, key="elsewhere", PATH_INFO=decoded(target.rstrip("?")))
    facts = {"noncestr": "n", "timestamp": "1", "ticket": "t"}
    signature = sign(**facts, url=page_url(made))
    found = diagnose(**facts, url=f"http://good.example{target}", signature=signature)
    assert found.cause in ("unescaped", "escaped", "slash")
    assert "the server or a proxy keeps no raw address" in found.english
    assert "服务器或反向代理没有保留原始地址" in found.chinese
