"""Whom it asks: WeChat and WeCom, another app that has the ticket already, the user's own code."""

from __future__ import annotations

from typing import Protocol

from .._credential import Credential


class Upstream(Protocol):
    """Where credentials come from."""

    def parent(self, kind: str) -> str | None:
        """The kind that must be at hand to ask for this one, if any."""

    def fetch(
        self, kind: str, *, parent: str | None, rejected: str | None, timeout: float
    ) -> Credential:
        """Ask for a credential.

        :param kind: what to ask for.
        :param parent: the value of the credential named by :meth:`parent`.
        :param rejected: the value that was just refused, if this asks for its successor.
        :param timeout: seconds for the whole call.
        :raises WxJsApiError: ours, with no secret in it.
        """
