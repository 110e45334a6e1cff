"""The app that gunicorn serves; its config comes from the environment."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, jsonify

from flask_wxjsapi import WxJsApi

from . import subjects


def create_app() -> Flask:
    """A view without a config, and the same view with one by each way."""
    app = Flask(__name__)
    app.config.from_prefixed_env()
    app.config["WXJSAPI_JS_API_LIST"] = subjects.APIS
    wxjsapi = WxJsApi(app)
    fixed = subjects.wx_config(subjects.APP_ID, "0" * 16, 1_800_000_000, "0" * 40)
    _add_peers(app, fixed)

    @app.get("/plain")
    def plain() -> Any:
        return jsonify(fixed)

    @app.get("/config")
    def config() -> Any:
        return jsonify(wxjsapi.config())

    @app.get("/pid")
    def pid() -> Any:
        return jsonify(os.getpid())

    return app


def bare_app() -> Flask:
    """An app without the extension."""
    app = Flask(__name__)

    @app.get("/pid")
    def pid() -> Any:
        return jsonify(os.getpid())

    return app


def _add_peers(app: Flask, fixed: dict[str, Any]) -> None:
    redis_url = app.config.get("CACHE_REDIS_URL")
    if redis_url is None:
        return
    read = subjects.redis_read(redis_url)

    @app.get("/redis")
    def redis() -> Any:
        read()
        return jsonify(fixed)

    made: list[Any] = []

    @app.get("/wechatpy")
    def wechatpy() -> Any:
        if not made:
            made.append(subjects.wechatpy(app.config["WXJSAPI_API_BASE_URL"], redis_url))
        return jsonify(made[0]())
