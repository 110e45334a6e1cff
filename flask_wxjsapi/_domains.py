"""Endpoints on every host of an app whose rules are matched by host or subdomain."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Flask, current_app, has_request_context, request
from werkzeug.routing import BaseConverter

_DOMAIN = "wxjsapi_domain"


class _Any(BaseConverter):
    """Whatever a request names, and nothing at all."""

    regex = ".*"


def every_domain(app: Flask) -> dict[str, str]:
    """The options of a rule that holds on each host; none where hosts do not count."""
    if not app.url_map.host_matching and not app.subdomain_matching:
        return {}
    app.url_map.converters[_DOMAIN] = _Any
    option = "host" if app.url_map.host_matching else "subdomain"
    return {option: f"<{_DOMAIN}:{_DOMAIN}>"}


def keep_domain(views: Blueprint) -> None:
    """Have no view see the domain, and ``url_for`` stay on that of the request."""

    @views.url_value_preprocessor
    def forget(endpoint: str | None, values: dict[str, Any] | None) -> None:
        if values:
            values.pop(_DOMAIN, None)

    @views.url_defaults
    def stay(endpoint: str, values: dict[str, Any]) -> None:
        if current_app.url_map.is_endpoint_expecting(endpoint, _DOMAIN):
            values.setdefault(_DOMAIN, _domain())


def _domain() -> str:
    host = request.host if has_request_context() else ""
    if current_app.url_map.host_matching:
        return host
    name = current_app.config["SERVER_NAME"]
    return host.removesuffix(name).rstrip(".") if name else ""
