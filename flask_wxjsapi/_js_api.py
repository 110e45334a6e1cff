"""What an account offers to views and templates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote

from flask import Flask, g, has_request_context, request
from flask import globals as contexts
from markupsafe import Markup

from ._account import NO_TICKET, SCRIPT_TIMEOUT, Account, script_tags
from ._accounts import ACCOUNTS, Accounts
from ._engine.reading import Status
from ._page.config import AgentConfig, WxConfig, whole_url
from ._page.url import page_url
from ._settings import Settings
from .errors import TicketUnavailable

# The context variables behind Flask's proxies: each way through a proxy costs a twelfth of a config
# (docs/performance.rst). A Flask that has them elsewhere has the proxies still, and one context.
_proxied: Callable[[], Any] = contexts.app_ctx._get_current_object  # type: ignore[attr-defined]  # a LocalProxy
_app_context = getattr(getattr(contexts, "_cv_app", None), "get", _proxied)
_request_context = getattr(getattr(contexts, "_cv_request", None), "get", _app_context)


#: What a response with a signature in it has in Flask's ``g``.
SIGNED = "_wxjsapi_signed"


class JsApi:
    """One account: its ticket, and what is signed with it.

    :class:`WxJsApi` is one, for the account in the app's config;
    :meth:`WxJsApi.account() <flask_wxjsapi.WxJsApi.account>` returns one for an account that comes
    at run time. What that one raises beside the errors below is :exc:`UnknownAccount`, for an
    account that its loader does not know.
    """

    def __init__(self, name: str, app_id: str | None) -> None:
        #: The extension's name.
        self.name = name
        #: The AppID; None for the account in the app's config.
        self.app_id = app_id
        self._at_hand = f"wxjsapi.at_hand.{name}"

    @property
    def ticket(self) -> str:
        """A valid ``jsapi_ticket``. Costs no I/O while this process holds one.

        :raises TicketUnavailable: when none can be had within REFRESH_TIMEOUT; at once after a
            failure, until something succeeds. A 503 if nobody catches it.
        """
        account, timeout = self._find()
        return account.ticket(timeout)

    @property
    def access_token(self) -> str:
        """A valid ``access_token``, for other WeChat libraries in the same app.

        :raises TicketUnavailable: when none can be had.
        """
        account, timeout = self._find()
        return account.access_token(timeout)

    @property
    def card_ticket(self) -> str:
        """A valid ticket for cards (卡券), to be signed with :func:`sign_card`.

        :raises TicketUnavailable: when none can be had.
        """
        account, timeout = self._find()
        return account.card_ticket(timeout)

    def config(
        self,
        js_api_list: Iterable[str] | None = None,
        *,
        open_tag_list: Iterable[str] | None = None,
        debug: bool | None = None,
        url: str | None = None,
    ) -> WxConfig:
        """The argument of ``wx.config`` for a page. Also the Jinja global ``wx_config``, which
        takes ``app_id=`` as well.

        :param js_api_list: the JS-SDK functions the page uses; by default JS_API_LIST.
        :param open_tag_list: the open tags (开放标签) it uses; by default OPEN_TAG_LIST.
        :param debug: let the JS-SDK show its results in alerts; by default DEBUG.
        :param url: the page's URL; by default the current request's, as the browser has it.
            A hash is cut off.
        :raises TicketUnavailable: when there is no ticket.
        """
        try:
            context = _app_context()
            context.g.__dict__[SIGNED] = True  # its own way takes a tenth of all this
            account: Account = context.app.extensions[self._at_hand][self.app_id]
        except (LookupError, RuntimeError):
            account, timeout = self._find()  # which says what is wrong
            page = _page(account.settings, url)
            return account.config(page, js_api_list, open_tag_list, debug, timeout)
        page = _page(account.settings) if url is None else whole_url(url)
        return account.config(page, js_api_list, open_tag_list, debug)

    def agent_config(
        self, js_api_list: Iterable[str] | None = None, url: str | None = None
    ) -> AgentConfig:
        """The argument of WeCom's ``wx.agentConfig`` for a page, which is signed with the ticket
        of the application. Also the Jinja global ``wx_agent_config``.

        :param js_api_list: as for :meth:`config`.
        :param url: as for :meth:`config`.
        :raises TicketUnavailable: when there is no ticket.
        """
        account, timeout = self._find()
        setattr(g, SIGNED, True)
        account.agent_id  # noqa: B018 - says so where there is none, before anything else
        return account.agent_config(_page(account.settings, url), js_api_list, timeout)

    def script(
        self,
        js_api_list: Iterable[str] | None = None,
        *,
        share: Mapping[str, str | None] | None = None,
        nonce: str | Callable[[], str] | None = None,
        url: str | None = None,
        open_tag_list: Iterable[str] | None = None,
        debug: bool | None = None,
    ) -> Markup:
        """The script tags for a page. Also the Jinja global ``wx_script``.

        The first loads the JS-SDK, the last calls ``wx.config``; with AGENT_ID one between them
        loads what WeCom needs for ``wx.agentConfig``. A page does not fail because WeChat does:
        without a ticket, for which it waits 2 s at most, the last one warns in the browser's
        console instead.

        :param js_api_list: as for :meth:`config`.
        :param share: ``title``, ``desc``, ``link`` and ``imgUrl`` of the card a share makes, for
            friends and for Moments. One that is None is left out. ``link`` is the page's own URL
            if left out, without an OAuth ``code`` and what WeChat adds; a relative ``link`` or
            ``imgUrl`` is made absolute, as WeChat wants it.
        :param nonce: of the page's Content-Security-Policy, or a callable that returns it, such as
            Flask-Talisman's ``csp_nonce``.
        :param url: as for :meth:`config`.
        :param open_tag_list: as for :meth:`config`.
        :param debug: as for :meth:`config`.
        """
        accounts = self._accounts()
        setattr(g, SIGNED, True)
        try:
            account, timeout = self._find(SCRIPT_TIMEOUT)
        except TicketUnavailable:  # of a loader that fails
            return script_tags(accounts.settings, NO_TICKET, nonce)
        page = _page(account.settings, url)
        wait = timeout or SCRIPT_TIMEOUT
        return account.script(page, js_api_list, share, nonce, open_tag_list, debug, _root(), wait)

    def refresh(self) -> str:
        """Renew the ticket now, for the whole cluster, in spite of a back-off; with AGENT_ID the
        agent's as well.

        Within 10 s of the cluster's last ``refresh()``, successful or not, it only returns
        what there is. An account that comes at run time is loaded anew in any case, and where
        its loader says something else by now, WeChat is asked.

        :returns: the ticket.
        :raises WxJsApiError: what went wrong: a ``WeChatAPIError`` or a ``TransportError``.
        """
        accounts = self._accounts()
        return accounts.own.refresh() if self.app_id is None else accounts.refresh(self.app_id)

    def status(self) -> Status:
        """What this process knows of the ticket. Asks the store where no thread has done so, and
        never WeChat.
        """
        return self._find()[0].status()

    def _find(self, timeout: float | None = None) -> tuple[Account, float | None]:
        """The account, and how many seconds are left to wait for it.

        :param timeout: seconds; by default REFRESH_TIMEOUT.
        """
        accounts = self._accounts()
        if self.app_id is None:
            return accounts.own, timeout
        seconds = accounts.settings.refresh_timeout if timeout is None else timeout
        return accounts.find(self.app_id, seconds)

    def _accounts(self) -> Accounts:
        try:
            app: Flask = _app_context().app
        except (LookupError, RuntimeError):
            raise RuntimeError(
                "WxJsApi was used outside an application context: use it in a view or template, "
                "or inside 'with app.app_context():'."
            ) from None
        return self._accounts_of(app)

    def _accounts_of(self, app: Flask) -> Accounts:
        try:
            return app.extensions[ACCOUNTS][self.name]  # type: ignore[no-any-return]  # likewise
        except KeyError:
            raise RuntimeError(
                f"This WxJsApi (name={self.name!r}) is not registered with the current app: call "
                "wxjsapi.init_app(app) where the app is made."
            ) from None


def _root() -> str:
    """The path that the app is mounted at; a proxy may have it from a client, so it names no host,
    as a path with two slashes in front would.
    """
    root = quote(request.script_root) if has_request_context() else ""
    return f"/{root.lstrip('/')}" if root else ""


def _page(settings: Settings, url: str | None = None) -> str:
    """The URL to sign: the one given or the current request's."""
    if url is not None:
        return whole_url(url)
    try:
        environ = _request_context().request.environ
    except (LookupError, RuntimeError, AttributeError):
        raise RuntimeError("Outside a request there is no page to sign: pass url=.") from None
    return page_url(environ, settings.public_origin)
