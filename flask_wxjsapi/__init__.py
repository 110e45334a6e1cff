"""Flask-WxJsApi keeps WeChat's ``jsapi_ticket`` fresh and signs pages with it."""

from ._credential import Credential
from ._extension import WxConfig, WxJsApi, ticket_refresh_failed, ticket_refreshed
from ._provider import Status
from ._server import TicketServer
from ._signature import sign
from .errors import TicketUnavailable, TransportError, WeChatAPIError, WxJsApiError

__all__ = [
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
    "ticket_refresh_failed",
    "ticket_refreshed",
]
