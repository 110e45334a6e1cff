"""Pages inside WeCom (企业微信): one with its new JS-SDK, @wecom/jssdk, and one with the old one.

From the top of the repository::

    python examples/wecom           # PORT=5000 is the default

That needs no corp: a sandbox plays WeCom, and its phone appears in the corner of the page. A real
application comes from the environment::

    export FLASK_WXJSAPI_APP_ID=ww... FLASK_WXJSAPI_AGENT_ID=1000002 FLASK_WXJSAPI_APP_SECRET=...
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Flask, render_template

from flask_wxjsapi import WxJsApi
from flask_wxjsapi.sandbox import embedded

wxjsapi = WxJsApi()


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    app = Flask(__name__)
    app.config.update(
        WXJSAPI_PLATFORM="wecom",
        WXJSAPI_URL_PREFIX="/wxjsapi",
        WXJSAPI_JS_API_LIST=["scanQRCode", "selectExternalContact"],
    )
    app.config.from_prefixed_env()
    app.config.update(config or {})
    if "WXJSAPI_APP_ID" not in app.config:
        app.config.update(
            WXJSAPI_APP_ID="ww0123456789abcdef",
            WXJSAPI_AGENT_ID="1000002",
            WXJSAPI_APP_SECRET="any-will-do",
            WXJSAPI_API_BASE_URL="sandbox",
        )
    wxjsapi.init_app(app)

    @app.get("/")
    def new() -> str:
        # wx_script() brings the phone along, but this page has no use for it.
        is_played = app.config.get("WXJSAPI_API_BASE_URL") == "sandbox"
        return render_template("new.html", sandbox=embedded().url if is_played else None)

    @app.get("/old")
    def old() -> str:
        return render_template("old.html")

    return app
