"""The app under test as an ASGI application, by the adapter that ``ADAPTER`` names."""

from __future__ import annotations

import os
from typing import Any

from tests.servers.app import application as wsgi


def adapted(adapter: str) -> Any:
    """Its package is imported only where it is asked for."""
    if adapter == "a2wsgi":
        from a2wsgi import WSGIMiddleware
    elif adapter == "starlette":
        from starlette.middleware.wsgi import WSGIMiddleware
    else:
        from asgiref.wsgi import WsgiToAsgi as WSGIMiddleware
    return WSGIMiddleware(wsgi)


application = adapted(os.environ["ADAPTER"])
