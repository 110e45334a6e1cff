"""Flask-WxJsApi keeps WeChat's ``jsapi_ticket`` fresh and signs pages with it."""

from ._credential import Credential
from ._engine.reading import Status
from ._extension import WxJsApi, ticket_refresh_failed, ticket_refreshed
from ._page.config import AgentConfig, WxConfig
from ._signature import sign, sign_card
from ._storage.server import TicketServer
from .errors import TicketUnavailable, TransportError, WeChatAPIError, WxJsApiError

__all__ = [
    "AgentConfig",
    "Credential",
    "Status",
    "TicketServer",
    "TicketUnavailable",
    "TransportError",
    "WeChatAPIError",
    "WxConfig",
    "WxJsApi",
    "WxJsApiError",
    "sign",
    "sign_card",
    "ticket_refresh_failed",
    "ticket_refreshed",
]
