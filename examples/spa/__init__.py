"""A single-page app: ``static/plain.js`` in plain JavaScript, ``static/vue.js`` in Vue.

Flask serves one page for all addresses below ``/plain`` and ``/vue``; the browser does the rest.
To run it, from the top of the repository::

    flask --app examples/spa run --debug

That needs no WeChat account: in debug mode a sandbox plays WeChat, and its phone appears in the
corner of the page. A real account comes from the environment::

    export FLASK_WXJSAPI_APP_ID=wx... FLASK_WXJSAPI_APP_SECRET=...
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Flask, Response, redirect, url_for

from flask_wxjsapi import WxJsApi

wxjsapi = WxJsApi()


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    app = Flask(__name__)
    app.config.update(WXJSAPI_URL_PREFIX="/wxjsapi", WXJSAPI_JS_API_LIST=["scanQRCode"])
    app.config.from_prefixed_env()
    app.config.update(config or {})
    if "WXJSAPI_APP_ID" not in app.config:
        app.config.update(
            WXJSAPI_APP_ID="wx0123456789abcdef",
            WXJSAPI_APP_SECRET="any-will-do",
            WXJSAPI_API_BASE_URL="sandbox",
        )
    wxjsapi.init_app(app)

    @app.get("/")
    def index() -> Any:
        return redirect(url_for("page", kind="plain"))

    @app.get("/<any(plain, vue):kind>/")
    @app.get("/<any(plain, vue):kind>/<path:route>")
    def page(kind: str, route: str = "") -> Response:
        return app.send_static_file(f"{kind}.html")

    return app
