"""A page that is signed for WeChat. This file and ``templates/page.html`` are the ones to copy."""

from __future__ import annotations

import demo
from flask import Flask, render_template

from flask_wxjsapi import WxJsApi

wxjsapi = WxJsApi()


def create_app() -> Flask:
    app = Flask(__name__)
    app.config.from_prefixed_env()  # FLASK_WXJSAPI_APP_ID=wx... FLASK_WXJSAPI_APP_SECRET=...
    demo.init_app(app, wxjsapi)  # only for show: a WeChat to play with, and the panel on the page
    wxjsapi.init_app(app)

    @app.get("/")
    def page() -> str:
        return render_template("page.html")

    return app
