"""The app of ``service`` with a page that is signed, and one that needs no ticket; it counts how
many of its readers have waited for a renewal.
"""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, render_template_string

from flask_wxjsapi._engine.reading import Credentials

from .. import service


def create_app() -> Flask:
    app, wait = service.create_app(), Credentials._wait
    waited: list[object] = []

    def counted(*args: Any, **options: Any) -> bool:
        waited.append(args)
        return wait(*args, **options)

    Credentials._wait = counted  # type: ignore[method-assign]

    @app.get("/page")
    def page() -> str:
        return render_template_string("<h1>A page</h1>{{ wx_script(['scanQRCode']) }}")

    @app.get("/ping")
    def ping() -> dict[str, Any]:
        return {"pid": os.getpid(), "waited": len(waited)}

    return app
