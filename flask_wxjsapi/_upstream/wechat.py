"""WeChat's API, and WeCom's: one class, driven by what the platform says of itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from .._credential import ACCESS_TOKEN, Credential
from .._error_text import clean
from .._platform import OFFIACCOUNT, TOKEN_ENDPOINTS, Platform
from ..errors import TransportError, WeChatAPIError, reaction
from .answer import credential, decoded, number


class WeChat:
    """An account at WeChat: an official one (公众号), or an application (应用) of a corp at WeCom.

    :param base_url: the API's scheme and host, or a callable that returns them.
    :param app_id: the AppID, or the corp's id.
    :param token_endpoint: ``"stable_token"`` or the legacy ``"token"``, where there are both.
    :param has_provider: access tokens come from the user's own code, which advice depends on.
    """

    def __init__(
        self,
        base_url: str | Callable[[], str],
        app_id: str,
        app_secret: str,
        *,
        platform: Platform = OFFIACCOUNT,
        token_endpoint: str = TOKEN_ENDPOINTS[0],
        has_provider: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._base_url = base_url
        self._app_id = app_id
        self._app_secret = app_secret
        self._platform = platform
        self._token_call = platform.token_calls[token_endpoint]
        self._has_provider = has_provider
        self._clock = clock

    def parent(self, kind: str) -> str | None:
        return None if kind == ACCESS_TOKEN else ACCESS_TOKEN

    def fetch(
        self, kind: str, *, parent: str | None, rejected: str | None, timeout: float
    ) -> Credential:
        # ``rejected`` is not passed on: force_refresh has 20 calls a day, and is a person's to use.
        issued_at = self._clock()
        if kind == ACCESS_TOKEN:
            answer = self._fetch_token(timeout)
            return credential(answer, "access_token", issued_at)
        ticket = self._platform.ticket_calls[kind]
        params = {"access_token": parent, **ticket.params}
        answer = self._call("GET", ticket.path, timeout, params=params)
        return credential(answer, "ticket", issued_at)

    def _fetch_token(self, timeout: float) -> dict[str, Any]:
        call = self._token_call
        sent = {**call.more, call.app_id: self._app_id, call.app_secret: self._app_secret}
        # The secret stays out of the URL where it may.
        place = "body" if call.method == "POST" else "params"
        return self._call(call.method, call.path, timeout, **{place: sent})

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
        errcode = int(number(answer.get("errcode", 0)) or 0)
        if errcode:
            name = self._platform.name
            advice = reaction(errcode, name, with_provider=self._has_provider).advice
            secrets = [self._app_secret, str((params or {}).get("access_token", ""))]
            raise WeChatAPIError(errcode, clean(answer.get("errmsg"), secrets), advice)
        return answer
