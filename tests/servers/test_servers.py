"""A browser's addresses, asked of every server: signed as they are, or the log says that they
cannot be known. What ``docs/urls.rst`` says of a server is what comes out here.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from flask_wxjsapi.sandbox import Sandbox
from tests.conftest import require
from tests.packages import fetched
from tests.servers.starting import ADDRESSES, Kind, ask_all, serving
from tests.test_url_servers import ROOT

pytestmark = pytest.mark.slow

#: What a form without the query leaves out, and a slash that Python's ``http.server`` takes away.
UNKNOWABLE = {"/x?", "/?", "/%E4%B8%AD?", "//double//slash"}


def program(name: str, *packages: str) -> Kind:
    return Kind(list(packages or (name,)), f"-m tests.servers.run {name} PORT")


def asgi(server: str, command: str, adapter: str = "a2wsgi") -> Kind:
    return Kind([server, adapter], f"-m {server} {command} tests.servers.adapted:application")


WSGI = "tests.servers.app:application"
GUNICORN = f"-m gunicorn -b 127.0.0.1:PORT --log-level error {WSGI} -k"
#: By the names that the page has for them.
KINDS = {
    "gunicorn": Kind(["gunicorn"], f"{GUNICORN} sync"),
    "gunicorn, gthread": Kind(["gunicorn"], f"{GUNICORN} gthread --threads 2"),
    "gunicorn, gevent": Kind(["gunicorn", "gevent"], f"{GUNICORN} gevent"),
    "gunicorn, tornado": Kind(["gunicorn", "tornado"], f"{GUNICORN} tornado"),
    "uWSGI": Kind(
        ["uwsgi"],
        "BIN/uwsgi --http-socket 127.0.0.1:PORT --buffer-size 16384 --need-app -w " + WSGI,
    ),
    "mod_wsgi": Kind(
        ["mod_wsgi"],
        "BIN/mod_wsgi-express start-server --port PORT --host 127.0.0.1 --server-root ROOT "
        "--httpd-executable HTTPD --log-to-terminal --application-type module tests.servers.app",
    ),
    "Waitress": Kind(["waitress"], f"-m waitress --listen=127.0.0.1:PORT {WSGI}"),
    "cheroot": Kind(["cheroot"], f"-m cheroot {WSGI} --bind 127.0.0.1:PORT"),
    "Werkzeug": program("werkzeug"),
    "granian": Kind(["granian"], f"-m granian --interface wsgi --port PORT {WSGI}"),
    "hypercorn": Kind(["hypercorn"], f"-m hypercorn -b 127.0.0.1:PORT {WSGI}"),
    "gevent.pywsgi": program("gevent"),
    "tornado": program("tornado"),
    "twisted": Kind(
        ["twisted"], "-m twisted web --listen tcp:PORT --wsgi tests.servers.app.application"
    ),
    "wsgiref": program("wsgiref"),
    "bjoern": program("bjoern"),
    "eventlet": program("eventlet"),
    "a2wsgi, uvicorn": asgi("uvicorn", "--port PORT"),
    "a2wsgi, hypercorn": asgi("hypercorn", "-b 127.0.0.1:PORT"),
    "a2wsgi, daphne": asgi("daphne", "-p PORT"),
    "a2wsgi, granian": asgi("granian", "--interface asgi --port PORT"),
    "asgiref": asgi("uvicorn", "--port PORT", "asgiref"),
    "Starlette": asgi("uvicorn", "--port PORT", "starlette"),
    "apig-wsgi, REST API": program("apig-wsgi-v1", "apig-wsgi"),
    "apig-wsgi, function URL": program("apig-wsgi-v2", "apig-wsgi"),
    "apig-wsgi, HTTP API": program("apig-wsgi-http", "apig-wsgi"),
    "serverless-wsgi, REST API": program("serverless-wsgi-v1", "serverless-wsgi"),
    "serverless-wsgi, function URL": program("serverless-wsgi-v2", "serverless-wsgi"),
    "serverless-wsgi, HTTP API": program("serverless-wsgi-http", "serverless-wsgi"),
}


def rows() -> dict[str, tuple[str, int]]:
    """What the page says of each server: where the raw address is, and how many are wrong."""
    page = (ROOT / "docs" / "urls.rst").read_text("utf-8")
    table = page.split(".. _servers:")[1].split("\n.. _")[0]
    found = re.findall(r"^(\S.*?)  +(``.+?``|nowhere)(?: *\(.*\))?  +(\d+)$", table, re.M)
    return {name: (kept, int(wrong)) for name, kept, wrong in found}


def test_every_server_is_on_the_page() -> None:
    """And no other."""
    assert rows().keys() == KINDS.keys()


@pytest.mark.parametrize("name", KINDS)
def test_addresses(name: str, wechat: Sandbox, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Each is signed as it was sent, or the log has said that this server cannot know it."""
    kind = KINDS[name]
    if name == "mod_wsgi" and os.geteuid() == 0:
        require("mod_wsgi", "Apache gives root up, and then cannot read what is root's alone")
    packages = fetched(pytestconfig, *kind.packages)
    with serving(kind, packages, tmp_path, wechat) as port:
        pages, refused = ask_all(port, ADDRESSES)
    assert len(pages) + len(refused) == 34
    assert len(refused) <= 5, refused
    wrong = [target for target, page in pages.items() if page.url != f"http://good.example{target}"]
    keeps, number = rows()[name]
    assert len(wrong) == number, wrong
    told = [level for page in pages.values() for level in page.told]
    if keeps == "nowhere":
        assert all(pages[target].told for target in wrong)
        assert "WARNING" in told
    else:
        assert told == []
        assert {*wrong} <= UNKNOWABLE
