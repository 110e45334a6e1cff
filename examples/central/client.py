"""A service that has no secret: its ticket comes from the central server."""

from __future__ import annotations

import os

from flask import Flask, render_template

from flask_wxjsapi import WxJsApi

wxjsapi = WxJsApi()


def create_app(name: str) -> Flask:
    app = Flask(__name__)
    app.config["CACHE_TYPE"] = "FileSystemCache"  # what its workers share, with nobody else
    # FLASK_CACHE_DIR, FLASK_WXJSAPI_APP_ID, FLASK_WXJSAPI_CENTRAL_URL=https://.../wxjsapi and
    # FLASK_WXJSAPI_CENTRAL_TOKEN, which is the service's own
    app.config.from_prefixed_env()
    wxjsapi.init_app(app)

    @app.get("/")
    def page() -> str:
        return render_template("client.html", name=name, pid=os.getpid(), status=wxjsapi.status)

    return app
