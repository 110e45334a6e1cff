"""What an app may have beside the extension, and how it may be packed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipapp
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, render_template_string, request, url_for

import flask_wxjsapi
from flask_wxjsapi import WxJsApi
from flask_wxjsapi.sandbox import Sandbox
from tests.packages import fetched, interpreter

pytestmark = pytest.mark.usefixtures("patient", "seldom")

PACKAGE = Path(flask_wxjsapi.__file__).parent


@pytest.fixture(scope="module")
def wechat() -> Iterator[Sandbox]:
    with Sandbox().serve() as sandbox:
        yield sandbox


def keys(wechat: Sandbox, **more: Any) -> dict[str, Any]:
    return {
        "TESTING": True,
        "WXJSAPI_APP_ID": wechat.app_id,
        "WXJSAPI_APP_SECRET": wechat.app_secret,
        "WXJSAPI_API_BASE_URL": wechat.url,
        "WXJSAPI_URL_PREFIX": "/wxjsapi",
        **more,
    }


def recipes() -> str:
    return (Path(__file__).parent.parent / "docs" / "recipes.rst").read_text("utf-8")


def run(source: str, packages: Path | None, **env: str) -> str:
    """What a program prints that has the packages at hand."""
    paths = [str(PACKAGE.parent), *([str(packages)] if packages else [])]
    result = subprocess.run(
        [sys.executable, "-c", source],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | env,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


# -- Flask-Limiter


def test_every_view_has_a_name(wechat: Sandbox) -> None:
    """Flask-Limiter and others make a key from ``__module__`` and ``__name__`` of a view."""
    app = Flask("tests")
    app.config.update(keys(wechat, WXJSAPI_CENTRAL_TOKENS={"site": 32 * "x"}))
    WxJsApi(app)
    views = [view for name, view in app.view_functions.items() if name.startswith("wxjsapi.")]
    names = {f"{view.__module__}.{view.__name__}" for view in views}
    assert names == {f"flask_wxjsapi._views._{name}" for name in ("config", "client", "ticket")}


LIMITED = """
import os
from flask import Flask
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_wxjsapi import WxJsApi

app = Flask("limited")
app.config.update(TESTING=True, WXJSAPI_API_BASE_URL="sandbox", WXJSAPI_URL_PREFIX="/wxjsapi")
limiter = Limiter(get_remote_address, app=app, default_limits=["2 per hour"], storage_uri="memory://")
WxJsApi(app)
client = app.test_client()
targets = ["client.js", "config?url=http%3A%2F%2Flocalhost%2F"]
if os.environ.get("EXEMPT"):
    limiter.exempt(app.blueprints["wxjsapi"])
for target in [*targets, targets[0], targets[0]]:
    print(client.get(f"/wxjsapi/{target}").status_code)
"""


@pytest.mark.slow
def test_flask_limiter(pytestconfig: pytest.Config) -> None:
    """The real one serves the endpoints, and limits each by itself."""
    packages = fetched(pytestconfig, "flask-limiter")
    assert run(LIMITED, packages).split() == ["200", "200", "200", "429"]
    assert 'limiter.exempt(app.blueprints["wxjsapi"])' in recipes()
    assert run(LIMITED, packages, EXEMPT="1").split() == 4 * ["200"]


# -- what is no Flask


class NoFlask:
    """An app of another framework that looks like Flask's."""

    def __init__(self) -> None:
        self.extensions: dict[str, Any] = {}
        self.config: dict[str, Any] = {}


@pytest.mark.parametrize("app", [NoFlask(), "app", 7])
def test_what_is_no_flask_is_refused(app: Any) -> None:
    """The error names what it got, and nothing was touched."""
    with pytest.raises(RuntimeError, match=rf"takes a Flask app, and .*{type(app).__name__}"):
        WxJsApi(app)
    assert not getattr(app, "extensions", None)


def test_a_subclass_of_flask_is_one(wechat: Sandbox) -> None:
    """What is made of Flask is taken."""

    class Own(Flask):
        pass

    app = Own("tests")
    app.config.update(keys(wechat))
    WxJsApi(app)
    assert "wxjsapi" in app.extensions


@pytest.mark.slow
def test_quart_is_refused(pytestconfig: pytest.Config) -> None:
    """The real one is told why, and what to do instead."""
    source = """
from flask_wxjsapi import WxJsApi
from quart import Quart
try:
    WxJsApi(Quart("q"))
except RuntimeError as error:
    print(error)
"""
    printed = run(source, fetched(pytestconfig, "quart"))
    assert "quart.app.Quart is none" in printed
    assert "can mount a Flask app" in printed


# -- hosts and subdomains


def matching(wechat: Sandbox, **options: Any) -> Flask:
    """An app with the endpoints, and a page that links to them, wherever it is asked."""
    app = Flask("tests", **options)
    app.config.update(keys(wechat))
    if "subdomain_matching" in options:
        app.config["SERVER_NAME"] = "example.com"
    WxJsApi(app)

    @app.before_request
    def page() -> str | None:
        if request.path != "/page":
            return None
        return render_template_string("{{ url_for('wxjsapi.client', form='js') }}")

    return app


HOSTS = {
    "host": {"host_matching": True, "static_host": "static.example.com"},
    "subdomain": {"subdomain_matching": True},
}


@pytest.mark.parametrize("way", HOSTS)
@pytest.mark.parametrize("host", ["example.com", "shop.example.com", "a.b.example.com"])
def test_endpoints_are_on_every_host(wechat: Sandbox, way: str, host: str) -> None:
    """A page of any host of the app has its signature from there."""
    client = matching(wechat, **HOSTS[way]).test_client()
    page = f"http://{host}/page"
    query = {"url": page}
    answer = client.get("/wxjsapi/config", base_url=f"http://{host}", query_string=query)
    assert answer.status_code == 200
    config = answer.json or {}
    signed = {key: config[key] for key in ("appId", "nonceStr", "timestamp", "signature")}
    assert wechat.verify(**signed, url=page) == "config:ok"


@pytest.mark.parametrize("way", HOSTS)
@pytest.mark.parametrize("host", ["example.com", "shop.example.com"])
def test_url_for_stays_on_the_host(wechat: Sandbox, way: str, host: str) -> None:
    """A template needs no more than in any other app."""
    client = matching(wechat, **HOSTS[way]).test_client()
    assert client.get("/page", base_url=f"http://{host}").text == "/wxjsapi/client.js"


@pytest.mark.parametrize("way", HOSTS)
def test_url_for_of_another_host(wechat: Sandbox, way: str) -> None:
    """Outside a request, and for others, the host can be said."""
    app = matching(wechat, **HOSTS[way])
    domain = "shop.example.com" if way == "host" else "shop"
    with app.test_request_context(base_url="http://example.com"):
        url = url_for("wxjsapi.client", form="js", wxjsapi_domain=domain)
    assert url == "http://shop.example.com/wxjsapi/client.js"


def test_an_app_whose_hosts_do_not_count_has_plain_rules(wechat: Sandbox) -> None:
    """Most apps have no trace of it."""
    app = Flask("tests")
    app.config.update(keys(wechat))
    WxJsApi(app)
    assert {rule.rule for rule in app.url_map.iter_rules("wxjsapi.config")} == {"/wxjsapi/config"}
    with app.test_request_context():
        assert url_for("wxjsapi.config") == "/wxjsapi/config"


# -- one file

PACKED = """
from flask import Flask
from flask_wxjsapi import WxJsApi
from flask_wxjsapi._tools.diagnosis import texts

app = Flask("packed")
app.config.update(
    TESTING=True, WXJSAPI_API_BASE_URL="sandbox", WXJSAPI_URL_PREFIX="/wxjsapi"
)
WxJsApi(app)

def main():
    client = app.test_client()
    for name in ("client.js", "client.mjs", "client.d.ts", "config?url=http%3A%2F%2Flocalhost%2F"):
        print(client.get("/wxjsapi/" + name).status_code, end=" ")
    print("WeixinJSBridge" in client.get("/wxjsapi/client.js").text, end=" ")
    print("unescaped" in texts())


if __name__ == "__main__":
    main()
"""


PRINTED = "200 200 200 200 True True\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The program and the extension, away from here."""
    made = tmp_path / "source"
    shutil.copytree(PACKAGE, made / "flask_wxjsapi", ignore=shutil.ignore_patterns("__pycache__"))
    (made / "packed.py").write_text(PACKED)
    return made


def printed_by(*command: str | Path, **env: str) -> str:
    """What a program prints that finds nothing of the source tree."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    cwd = Path(command[-1]).parent
    result = subprocess.run(command, cwd=cwd, env=kept | env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.processes
def test_zipapp(source: Path, tmp_path: Path) -> None:
    """In a zip file the scripts, the sandbox's phone and the texts of ``verify`` are found."""
    zipapp.create_archive(source, tmp_path / "packed.pyz", main="packed:main")
    site = str(distribution("flask").locate_file(""))  # Flask and the others, as files
    assert printed_by(sys.executable, tmp_path / "packed.pyz", PYTHONPATH=site) == PRINTED


@pytest.mark.slow
def test_pyinstaller(pytestconfig: pytest.Config, source: Path) -> None:
    """With the options of the recipe one file has all of it."""
    options = "--onefile --collect-data flask_wxjsapi"
    assert f"pyinstaller {options} " in recipes()
    python = interpreter(pytestconfig, "pyinstaller")
    build(source, python, "-m", "PyInstaller", *options.split(), "packed.py")
    assert printed_by(source / "dist" / "packed") == PRINTED


@pytest.mark.slow
def test_pex(pytestconfig: pytest.Config, source: Path) -> None:
    """A pex needs nothing."""
    assert "pex Flask-WxJsApi" in recipes()
    python = interpreter(pytestconfig, "pex")
    packages = ["Flask", "Flask-Caching", "requests", "filelock"]
    options = ["-D", ".", "-m", "packed:main", "-o", "packed.pex"]
    build(source, python, "-m", "pex", *packages, *options)
    assert printed_by(python, source / "packed.pex") == PRINTED


def build(source: Path, *command: str | Path) -> None:
    env = os.environ | {"PYTHONPATH": str(source)}
    result = subprocess.run(command, cwd=source, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
