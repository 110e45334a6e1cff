"""The app of ``service`` with a page that is signed, and one that needs no ticket."""

from __future__ import annotations

from typing import Any

from flask import Flask, render_template_string

from .. import service


def create_app() -> Flask:
    app = service.create_app()

    @app.get("/page")
    def page() -> str:
        return render_template_string("<h1>A page</h1>{{ wx_script(['scanQRCode']) }}")

    @app.get("/ping")
    def ping() -> dict[str, Any]:
        return {}

    return app
