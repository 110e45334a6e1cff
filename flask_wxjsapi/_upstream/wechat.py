"""WeChat's API, and WeCom's."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar
from urllib.parse import urlsplit

from .._credential import ACCESS_TOKEN, AGENT_TICKET, CARD_TICKET, JSAPI_TICKET, Credential
from .._error_text import clean
from ..errors import TransportError, WeChatAPIError
from .answer import credential, decoded, number


class WeChat:
    """An official account (公众号) at WeChat.

    :param base_url: the API's scheme and host, or a callable that returns them.
    :param app_id: the AppID, or the corp's id.
    :param stable: use ``stable_token`` rather than the legacy ``token``.
    """

    def __init__(
        self,
        base_url: str | Callable[[], str],
        app_id: str,
        app_secret: str,
        *,
        stable: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._base_url = base_url
        self._app_id = app_id
        self._app_secret = app_secret
        self._stable = stable
        self._clock = clock

    def parent(self, kind: str) -> str | None:
        return None if kind == ACCESS_TOKEN else ACCESS_TOKEN

    #: How each kind of ticket is asked for.
    _TICKETS: ClassVar[Mapping[str, tuple[str, Mapping[str, str]]]] = {
        JSAPI_TICKET: ("/cgi-bin/ticket/getticket", {"type": "jsapi"}),
        CARD_TICKET: ("/cgi-bin/ticket/getticket", {"type": "wx_card"}),
    }

    def fetch(
        self, kind: str, *, parent: str | None, rejected: str | None, timeout: float
    ) -> Credential:
        # ``rejected`` is not passed on: force_refresh has 20 calls a day, and is a person's to use.
        issued_at = self._clock()
        if kind == ACCESS_TOKEN:
            answer = self._fetch_token(timeout)
            return credential(answer, "access_token", issued_at)
        path, params = self._TICKETS[kind]
        answer = self._call("GET", path, timeout, params={"access_token": parent, **params})
        return credential(answer, "ticket", issued_at)

    def _fetch_token(self, timeout: float) -> dict[str, Any]:
        login = {
            "grant_type": "client_credential",
            "appid": self._app_id,
            "secret": self._app_secret,
        }
        if self._stable:
            body = {**login, "force_refresh": False}
            return self._call("POST", "/cgi-bin/stable_token", timeout, body=body)
        return self._call("GET", "/cgi-bin/token", timeout, params=login)

    def ask(
        self,
        method: str,
        path: str,
        access_token: str,
        timeout: float,
        body: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Another call than :meth:`fetch` makes, for a person who looks for a fault.

        :raises WxJsApiError: ours, with no secret in it.
        """
        return self._call(method, path, timeout, params={"access_token": access_token}, body=body)

    def date(self, timeout: float) -> str:
        """The ``Date`` header of an answer, whatever that says; it needs no token.

        :raises TransportError: when nobody answers.
        """
        from .http import exchange

        return exchange("GET", self._host_url(), "/cgi-bin/get_api_domain_ip", timeout)[2]

    def _host_url(self) -> str:
        return self._base_url if isinstance(self._base_url, str) else self._base_url()

    def _call(
        self,
        method: str,
        path: str,
        timeout: float,
        *,
        params: dict[str, Any] | None = None,
        body: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        from .http import exchange  # here, for requests is slow to import

        base_url = self._host_url()
        status, text, _ = exchange(method, base_url, path, timeout, params=params, body=body)
        host = urlsplit(base_url).netloc
        if status != 200:
            raise TransportError(f"{host} answered with HTTP {status}, which WeChat never does.")
        answer = decoded(text)
        if answer is None:
            raise TransportError(
                f"{host} answered with something that is not WeChat's JSON: a captive portal, "
                "a broken gateway or a wrong WXJSAPI_API_BASE_URL."
            )
        errcode = number(answer.get("errcode", 0))
        if errcode:
            secrets = [self._app_secret, str((params or {}).get("access_token", ""))]
            raise WeChatAPIError(int(errcode), clean(answer.get("errmsg"), secrets))
        return answer


class WeCom(WeChat):
    """An application (应用) of a corp at WeCom (企业微信)."""

    _TICKETS: ClassVar[Mapping[str, tuple[str, Mapping[str, str]]]] = {
        JSAPI_TICKET: ("/cgi-bin/get_jsapi_ticket", {}),
        AGENT_TICKET: ("/cgi-bin/ticket/get", {"type": "agent_config"}),
    }

    def _fetch_token(self, timeout: float) -> dict[str, Any]:
        login = {"corpid": self._app_id, "corpsecret": self._app_secret}
        return self._call("GET", "/cgi-bin/gettoken", timeout, params=login)
