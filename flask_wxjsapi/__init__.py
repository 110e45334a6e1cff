"""Flask-WxJsApi keeps WeChat's ``jsapi_ticket`` fresh and signs pages with it."""

from ._credential import Credential
from ._engine.reading import Status
from ._extension import WxJsApi, ticket_refresh_failed, ticket_refreshed
from ._js_api import JsApi
from ._page.config import AgentConfig, WxConfig
from ._signature import sign, sign_card
from ._storage.server import TicketServer
from .errors import (
    TicketUnavailable,
    TransportError,
    UnknownAccount,
    WeChatAPIError,
    WxJsApiError,
)

__all__ = [
    "AgentConfig",
    "Credential",
    "JsApi",
    "Status",
    "TicketServer",
    "TicketUnavailable",
    "TransportError",
    "UnknownAccount",
    "WeChatAPIError",
    "WxConfig",
    "WxJsApi",
    "WxJsApiError",
    "sign",
    "sign_card",
    "ticket_refresh_failed",
    "ticket_refreshed",
]
