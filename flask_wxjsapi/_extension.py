"""The Flask extension: what Flask sees of it."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from blinker import Namespace
from flask import Flask
from flask import globals as contexts
from flask.ctx import AppContext
from markupsafe import Markup

from ._account import ACCOUNTS, Account, Host
from ._engine.reading import Status
from ._engine.runtime import Engine
from ._error_text import describe
from ._page.config import AgentConfig, WxConfig, whole_url
from ._page.url import page_url
from ._settings import Settings, key_prefix
from ._telling import tell
from ._tools.cli import commands
from ._views import blueprint

# The context variables behind Flask's proxies: each way through a proxy costs a twelfth of a config
# (docs/performance.rst). A Flask that has them elsewhere has the proxies still, and one context.
_proxied: Callable[[], Any] = contexts.app_ctx._get_current_object  # type: ignore[attr-defined]  # a LocalProxy
_app_context = getattr(getattr(contexts, "_cv_app", None), "get", _proxied)
_request_context = getattr(getattr(contexts, "_cv_request", None), "get", _app_context)

_NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
_ENGINE = "wxjsapi.engine"  # likewise a key of app.extensions

_signals = Namespace()

#: Sent when a renewal by this process is over: no reader waits for a receiver. The sender is the
#: app; the arguments are ``account``, ``app_id``, ``kind`` and ``expires_at`` (Unix time in
#: seconds). A value is never sent.
ticket_refreshed = _signals.signal("wxjsapi-ticket-refreshed")

#: Sent after a renewal that failed, with ``account``, ``app_id``, ``kind`` and ``error``.
ticket_refresh_failed = _signals.signal("wxjsapi-ticket-refresh-failed")

_SIGNALS = {"refreshed": ticket_refreshed, "failed": ticket_refresh_failed}


class WxJsApi:
    """Keeps an account's ``jsapi_ticket`` fresh and signs pages with it.

    All accounts of an app share one thread, named ``wxjsapi``, and one store in each process.

    :param app: the app to register with, or None to call :meth:`init_app` later.
    :param name: the account, if not the only one; ``"shop"`` reads the keys
        ``SHOP_WXJSAPI_*`` and adds ``shop_wx_config``, ``shop_wx_script`` and, with AGENT_ID,
        ``shop_wx_agent_config`` to Jinja.
    """

    def __init__(self, app: Flask | None = None, *, name: str = "default") -> None:
        if not _NAME.fullmatch(name):
            raise RuntimeError(f"name must be a lower-case identifier such as 'shop', got {name!r}")
        self.name = name
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Register with an app. Opens no connection and starts no thread.

        :raises RuntimeError: for a setting that cannot be right, and for a second registration.
        """
        registered: dict[str, WxJsApi] = app.extensions.setdefault("wxjsapi", {})
        if self.name in registered:
            raise RuntimeError(
                f"A WxJsApi named {self.name!r} is registered with this app already: call "
                "init_app() once, or give a second account its own name=."
            )
        settings = Settings.load(app.config, self.name)
        if settings.is_sandbox and not (app.debug or app.testing):
            raise RuntimeError(
                f'{key_prefix(self.name)}API_BASE_URL = "sandbox" is for development: it '
                "needs debug or testing mode, set before init_app(). (flask --debug does.)"
            )
        accounts: dict[str, Account] = app.extensions.setdefault(ACCOUNTS, {})
        for other in accounts.values():
            _check_pair(settings, other.settings)
        if settings.url_prefix is not None:
            app.register_blueprint(blueprint(settings))
        # With the app, and not here, so that neither keeps the other: an app is found by one dict.
        account = _open(app, settings)
        accounts[self.name] = account
        registered[self.name] = self

        def keep_warm() -> None:
            account.credentials.start()

        app.before_request(keep_warm)
        app.cli.add_command(commands)
        scope = "" if self.name == "default" else f"{self.name}_"
        app.add_template_global(self.config, f"{scope}wx_config")
        app.add_template_global(self.script, f"{scope}wx_script")
        if settings.agent_id is not None:
            app.add_template_global(self.agent_config, f"{scope}wx_agent_config")

    # -- in a view -----------------------------------------------------------------------------

    @property
    def ticket(self) -> str:
        """A valid ``jsapi_ticket``. Costs no I/O while this process holds one.

        :raises TicketUnavailable: when none can be had within REFRESH_TIMEOUT; at once after a
            failure, until something succeeds. A 503 if nobody catches it.
        """
        return self._account().ticket()

    @property
    def access_token(self) -> str:
        """A valid ``access_token``, for other WeChat libraries in the same app.

        :raises TicketUnavailable: when none can be had.
        """
        return self._account().access_token()

    @property
    def card_ticket(self) -> str:
        """A valid ticket for cards (卡券), to be signed with :func:`sign_card`.

        :raises TicketUnavailable: when none can be had.
        """
        return self._account().card_ticket()

    def config(
        self,
        js_api_list: Iterable[str] | None = None,
        *,
        open_tag_list: Iterable[str] | None = None,
        debug: bool | None = None,
        url: str | None = None,
    ) -> WxConfig:
        """The argument of ``wx.config`` for a page. Also the Jinja global ``wx_config``.

        :param js_api_list: the JS-SDK functions the page uses; by default JS_API_LIST.
        :param open_tag_list: the open tags (开放标签) it uses; by default OPEN_TAG_LIST.
        :param debug: let the JS-SDK show its results in alerts; by default DEBUG.
        :param url: the page's URL; by default the current request's, as the browser has it.
            A hash is cut off.
        :raises TicketUnavailable: when there is no ticket.
        """
        try:
            account: Account = _app_context().app.extensions[ACCOUNTS][self.name]
        except (LookupError, RuntimeError):
            account = self._account()  # which says what is wrong
        page = _page(account) if url is None else whole_url(url)
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
        account = self._account()
        account.agent_id  # noqa: B018 - says so where there is none, before anything else
        return account.agent_config(_page(account, url), js_api_list)

    def script(
        self,
        js_api_list: Iterable[str] | None = None,
        *,
        share: Mapping[str, str] | None = None,
        nonce: str | None = None,
        url: str | None = None,
    ) -> Markup:
        """The script tags for a page. Also the Jinja global ``wx_script``.

        The first loads the JS-SDK, the last calls ``wx.config``; with AGENT_ID one between them
        loads what WeCom needs for ``wx.agentConfig``. A page does not fail because WeChat does:
        without a ticket, for which it waits 2 s at most, the last one warns in the browser's
        console instead.

        :param js_api_list: as for :meth:`config`.
        :param share: ``title``, ``desc``, ``link`` and ``imgUrl`` of the card a share makes, for
            friends and for Moments. ``link`` is the page's own URL if left out; a relative ``link``
            or ``imgUrl`` is made absolute, as WeChat wants it.
        :param nonce: of the page's Content-Security-Policy.
        :param url: as for :meth:`config`.
        """
        account = self._account()
        return account.script(_page(account, url), js_api_list, share, nonce)

    # -- for the operator ------------------------------------------------------------------------

    def refresh(self) -> str:
        """Renew the ticket now, for the whole cluster, in spite of a back-off; with AGENT_ID the
        agent's as well.

        Within 10 s of the cluster's last ``refresh()``, successful or not, it only returns
        what there is.

        :returns: the ticket.
        :raises WxJsApiError: what went wrong: a ``WeChatAPIError`` or a ``TransportError``.
        """
        return self._account().refresh()

    def status(self) -> Status:
        """What this process knows of the ticket. Asks the store where no thread has done so, and
        never WeChat.
        """
        return self._account().status()

    def start(self, app: Flask) -> None:
        """Have the background thread of this process keep the account warm from now on, before
        the first request. The thread is started unless another account has done so.

        Call it where a worker process begins, such as gunicorn's ``post_worker_init``.
        """
        self._account_of(app).start()

    def close(self, app: Flask) -> None:
        """Have the background thread of this process leave the account alone; a caller renews
        from then on. With the last account the thread ends.
        """
        self._account_of(app).close()

    def _account(self) -> Account:
        try:
            app: Flask = _app_context().app
        except (LookupError, RuntimeError):
            raise RuntimeError(
                "WxJsApi was used outside an application context: use it in a view or template, "
                "or inside 'with app.app_context():'."
            ) from None
        return self._account_of(app)

    def _account_of(self, app: Flask) -> Account:
        try:
            return app.extensions[ACCOUNTS][self.name]  # type: ignore[no-any-return]  # likewise
        except KeyError:
            raise self._not_registered() from None

    def _not_registered(self) -> RuntimeError:
        return RuntimeError(
            f"This WxJsApi (name={self.name!r}) is not registered with the current app: call "
            "wxjsapi.init_app(app) where the app is made."
        )


def _page(account: Account, url: str | None = None) -> str:
    """The URL to sign: the one given or the current request's."""
    if url is not None:
        return whole_url(url)
    try:
        environ = _request_context().request.environ
    except (LookupError, RuntimeError, AttributeError):
        raise RuntimeError("Outside a request there is no page to sign: pass url=.") from None
    return page_url(environ, account.settings.public_origin)


def _check_pair(settings: Settings, other: Settings) -> None:
    """What two accounts of an app must not have in common.

    :raises RuntimeError: they do.
    """
    prefix = key_prefix(settings.name)
    if settings.url_prefix is not None and other.url_prefix == settings.url_prefix:
        raise RuntimeError(
            f"{prefix}URL_PREFIX is {settings.url_prefix!r}, which the account {other.name!r} has "
            "already: give each its own."
        )
    if settings.contradicts(other):
        raise RuntimeError(
            f"{prefix}APP_SECRET does not go with that of the account {other.name!r}: one account, "
            "or one agent, has one secret."
        )


def _open(app: Flask, settings: Settings) -> Account:
    """An account of an app, which it does not keep."""
    from ._storage.cache import CacheServer, CacheSettings  # with Flask-Caching

    app_ref = weakref.ref(app)

    def the_app() -> Flask:
        app = app_ref()
        if app is None:
            raise RuntimeError("the app is gone")
        return app

    def context() -> AppContext:
        return the_app().app_context()

    def notify(event: str, facts: Mapping[str, object]) -> None:
        app, signal = app_ref(), _SIGNALS[event]
        if app is None:  # it went in mid-renewal, and with it whoever listened
            return
        for receiver in signal.receivers_for(app):
            try:
                with app.app_context():
                    receiver(app, **facts)
            except Exception as error:
                text = "A receiver of %s raised %s."
                tell(40, text, signal.name, describe(error), event="receiver_failed")

    def open_cache(caches: CacheSettings) -> CacheServer:
        return caches.open(the_app())

    if _ENGINE not in app.extensions:
        app.extensions[_ENGINE] = Engine(app)
    host = Host(app.extensions[_ENGINE], context, open_cache, notify, lambda: the_app().testing)
    return Account(settings, CacheSettings(app.config, settings.cache), host)
