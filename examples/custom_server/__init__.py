"""An app that keeps its ticket in its own database; ``ticket_server.py`` is the file to copy.

To run it, from the top of the repository::

    pip install Flask-WxJsApi Flask-SQLAlchemy
    flask --app examples/custom_server run --debug

That needs no WeChat account: in debug mode a sandbox plays WeChat. A real account comes from the
environment, and so does another database::

    export FLASK_WXJSAPI_APP_ID=wx... FLASK_WXJSAPI_APP_SECRET=...
    export FLASK_SQLALCHEMY_DATABASE_URI=postgresql+psycopg://...
    gunicorn --chdir examples --workers 4 "custom_server:create_app()"
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Flask, render_template

from flask_wxjsapi import WxJsApi

from .ticket_server import DatabaseTicketServer, create_table, db

wxjsapi = WxJsApi()


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    app = Flask(__name__)
    app.config.update(
        # Of several workers one writes at a time: the others wait for up to 10 s, then fail.
        SQLALCHEMY_DATABASE_URI="sqlite:///tickets.db?timeout=10",
        WXJSAPI_TICKET_SERVER=DatabaseTicketServer,  # or "package.module:DatabaseTicketServer"
    )
    app.config.from_prefixed_env()
    app.config.update(config or {})
    if "WXJSAPI_APP_ID" not in app.config:
        app.config.update(
            WXJSAPI_APP_ID="wx0123456789abcdef",
            WXJSAPI_APP_SECRET="any-will-do",
            WXJSAPI_API_BASE_URL="sandbox",
        )
    db.init_app(app)
    create_table(app)
    wxjsapi.init_app(app)

    @app.get("/")
    def page() -> str:
        return render_template("page.html", status=wxjsapi.status)

    return app
