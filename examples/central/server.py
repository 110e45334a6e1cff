"""The central server: the one app that has the account's secret, and that asks WeChat."""

from __future__ import annotations

import logging

from flask import Flask, render_template

from flask_wxjsapi import WxJsApi

wxjsapi = WxJsApi()


def create_app() -> Flask:
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("flask_wxjsapi").setLevel(logging.INFO)  # says who fetched a ticket
    app = Flask(__name__)
    app.config.update(CACHE_TYPE="FileSystemCache", WXJSAPI_URL_PREFIX="/wxjsapi")
    # The account, FLASK_CACHE_DIR and FLASK_WXJSAPI_CENTRAL_TOKENS='{"blog": "...", "shop": "..."}'
    app.config.from_prefixed_env()
    wxjsapi.init_app(app)

    @app.get("/")
    def page() -> str:
        return render_template("server.html", status=wxjsapi.status())

    return app
