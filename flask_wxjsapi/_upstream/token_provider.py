"""The user's own code, which has an access token already."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from .._credential import ACCESS_TOKEN, Credential
from .._error_text import describe
from .._platform import OFFIACCOUNT, Platform
from ..errors import (
    TransportError,
    WeChatAPIError,
    WxJsApiError,
    reaction,
)
from . import Upstream


class TokenProvider:
    """Another upstream with the access token taken from the user's own callable.

    :param provider: ``provider(rejected) -> Credential``.
    :param context: an application context for each call of it.
    :param platform: the one that an errcode of the provider's is about.
    """

    def __init__(
        self,
        upstream: Upstream,
        provider: Callable[[str | None], Credential],
        context: Callable[[], AbstractContextManager[object]] = nullcontext,
        *,
        platform: Platform = OFFIACCOUNT,
    ) -> None:
        self._upstream = upstream
        self._provider = provider
        self._context = context
        self._platform = platform
        self.parent = upstream.parent

    def fetch(
        self, kind: str, *, parent: str | None, rejected: str | None, timeout: float
    ) -> Credential:
        if kind != ACCESS_TOKEN:
            return self._upstream.fetch(kind, parent=parent, rejected=rejected, timeout=timeout)
        problem = None
        try:
            with self._context():
                credential = self._provider(rejected)
        except WeChatAPIError as error:
            if error.advice == reaction(error.errcode).advice:  # it was raised without any
                advised = reaction(error.errcode, self._platform.name, with_provider=True)
                error.advice = advised.advice
            raise
        except WxJsApiError:
            raise
        except Exception as error:
            problem = f"raised {describe(error)}"
        else:
            if isinstance(credential, Credential):
                return credential
            problem = f"returned {type(credential).__name__}, not a Credential"
        raise TransportError(f"WXJSAPI_ACCESS_TOKEN_PROVIDER {problem}.")
