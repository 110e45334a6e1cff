"""An app whose workers share one ticket through Redis; nothing in here is about the sharing."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, render_template

from flask_wxjsapi import WxJsApi

wxjsapi = WxJsApi()


def create_app() -> Flask:
    app = Flask(__name__)
    app.config.update(CACHE_TYPE="RedisCache", WXJSAPI_URL_PREFIX="/wxjsapi")
    app.config.from_prefixed_env()  # FLASK_CACHE_REDIS_URL, FLASK_WXJSAPI_APP_ID and so on
    wxjsapi.init_app(app)

    @app.get("/")
    def page() -> Any:
        response = app.make_response(
            render_template("page.html", pid=os.getpid(), status=wxjsapi.status())
        )
        response.headers["Connection"] = "close"  # so that a reload meets another worker
        return response

    return app
