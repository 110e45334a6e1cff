"""Another app of this extension, which has the tickets already."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from .._credential import Credential
from .._error_text import clean
from ..errors import TransportError
from .answer import credential, decoded


class CentralServer:
    """Another app of this extension, which serves its tickets (中控服务器).

    :param url: its URL_PREFIX as a full URL.
    :param token: the bearer token it knows this app by.
    """

    def __init__(
        self, url: str, token: str, app_id: str, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._url = url
        self._token = token
        self._app_id = app_id
        self._clock = clock

    def parent(self, kind: str) -> str | None:
        return None

    def fetch(
        self, kind: str, *, parent: str | None, rejected: str | None, timeout: float
    ) -> Credential:
        params = {"kind": kind, "app_id": self._app_id}
        if rejected is not None:
            params["rejected"] = fingerprint(rejected)
        # Here and not there: the two clocks need not agree.
        issued_at = self._clock()
        status, text, _ = self._ask(timeout, params)
        answer = decoded(text) or {}
        if status != 200:
            raise TransportError(self._problem(status, answer))
        if (answer.get("app_id"), answer.get("kind")) != (self._app_id, kind):
            raise TransportError(
                f"{urlsplit(self._url).netloc} answered, but not with the {kind} of this account: "
                "check CENTRAL_URL and APP_ID."
            )
        return credential(answer, "value", issued_at)

    def _problem(self, status: int, answer: dict[str, Any]) -> str:
        told = clean(answer.get("error", ""), [self._token])
        advice = {
            400: f"{told} Do both apps have the same PLATFORM, and AGENT_ID where that is WeCom?",
            401: "It does not know CENTRAL_TOKEN: compare it with its CENTRAL_TOKENS.",
            404: f"{told} Compare APP_ID with its own, or with what its account_loader knows."
            if told
            else "CENTRAL_URL must be its URL_PREFIX as a full URL, and it needs CENTRAL_TOKENS.",
            503: f"{told} Look at flask wxjsapi doctor there.",
        }.get(status, told or "CENTRAL_URL must be where it is itself, without a redirect.")
        host = urlsplit(self._url).netloc
        return f"The central server {host} answered with HTTP {status}. {advice}"

    def date(self, timeout: float) -> str:
        """The ``Date`` header of an answer, whatever that says.

        :raises TransportError: when nobody answers.
        """
        return self._ask(timeout)[2]

    def _ask(self, timeout: float, params: dict[str, Any] | None = None) -> tuple[int, bytes, str]:
        from .http import exchange  # here, for requests is slow to import

        try:
            return exchange("GET", self._url, "/ticket", timeout, params=params, token=self._token)
        except TransportError as error:
            problem = str(error)
        raise TransportError(f"The central server {problem} Does it run, and is CENTRAL_URL right?")


def fingerprint(value: str) -> str:
    """What tells one ticket from another without being worth anything."""
    return hashlib.sha256(value.encode()).hexdigest()[:16]
