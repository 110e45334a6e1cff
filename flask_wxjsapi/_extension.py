"""The Flask extension: wiring, per-app state and the public methods."""

from __future__ import annotations

import logging
import re
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from os import urandom
from time import time as now
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict
from urllib.parse import urlsplit

from blinker import Namespace
from flask import Flask, current_app, request
from flask.ctx import AppContext
from markupsafe import Markup

from ._credential import ACCESS_TOKEN, AGENT_TICKET, CARD_TICKET
from ._engine.provider import Provider, Status
from ._engine.worker import Worker
from ._error_text import describe
from ._page.script import config_call, share_card, tags, warning
from ._page.url import page_url
from ._settings import Settings, key_prefix
from ._signature import sign
from ._storage.cache import CacheServer, CacheSettings
from ._storage.server import TicketServer
from ._storage.store import Store
from ._tools.cli import commands
from ._upstream import Upstream
from ._upstream.central import CentralServer
from ._upstream.token_provider import TokenProvider
from ._upstream.wechat import WeChat
from ._views import blueprint
from .errors import TicketUnavailable

if TYPE_CHECKING:
    from .sandbox import Sandbox

logger = logging.getLogger(__name__)

# The objects behind Flask's proxies, without the way through the proxy: see docs/performance.rst.
_the_app = current_app._get_current_object  # type: ignore[attr-defined]
_the_request = request._get_current_object  # type: ignore[attr-defined]

_NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
_STATES = "wxjsapi.states"  # the key of app.extensions
_SCRIPT_TIMEOUT = 2.0  # seconds a page waits for its ticket before it renders without
_LEASE_EXTRA = 5.0  # seconds a lease lives longer than the renewal it covers

_signals = Namespace()

#: Sent after a renewal by this process. The sender is the app; the arguments are ``account``,
#: ``kind`` and ``expires_at`` (Unix time in seconds). A value is never sent.
ticket_refreshed = _signals.signal("wxjsapi-ticket-refreshed")

#: Sent after a renewal that failed, with ``account``, ``kind`` and ``error``.
ticket_refresh_failed = _signals.signal("wxjsapi-ticket-refresh-failed")

_SIGNALS = {"refreshed": ticket_refreshed, "failed": ticket_refresh_failed}


class WxConfig(TypedDict):
    """The argument of ``wx.config``; ``timestamp`` is Unix time in seconds."""

    debug: bool
    appId: str
    timestamp: int
    nonceStr: str
    signature: str
    jsApiList: list[str]
    openTagList: list[str]
    beta: NotRequired[bool]


class AgentConfig(TypedDict):
    """The argument of WeCom's ``wx.agentConfig``; ``timestamp`` is Unix time in seconds."""

    corpid: str
    agentid: str
    timestamp: int
    nonceStr: str
    signature: str
    jsApiList: list[str]


@dataclass
class _State:
    """What the extension keeps for one app."""

    settings: Settings
    provider: Provider
    worker: Worker
    script_failed: bool = False


class WxJsApi:
    """Keeps an account's ``jsapi_ticket`` fresh and signs pages with it.

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
        states: dict[WxJsApi, _State] = app.extensions.setdefault(_STATES, {})
        for other in states.values():
            if settings.url_prefix is not None and other.settings.url_prefix == settings.url_prefix:
                raise RuntimeError(
                    f"{key_prefix(self.name)}URL_PREFIX is {settings.url_prefix!r}, which "
                    f"the account {other.settings.name!r} has already: give each its own."
                )
            if settings.contradicts(other.settings):
                raise RuntimeError(
                    f"{key_prefix(self.name)}APP_SECRET does not go with that of the "
                    f"account {other.settings.name!r}: one account, or one agent, has one secret."
                )
        if settings.url_prefix is not None:
            app.register_blueprint(blueprint(settings))
        state = _build(app, settings)
        # With the app, and not here, so that neither keeps the other: an app is found by one dict.
        states[self] = state
        registered[self.name] = self

        def keep_warm() -> None:
            state.worker.ensure()

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

        :raises TicketUnavailable: when none can be had; a 503 if nobody catches it.
        """
        return self._state().provider.get().value

    @property
    def access_token(self) -> str:
        """A valid ``access_token``, for other WeChat libraries in the same app.

        :raises TicketUnavailable: when none can be had.
        """
        state = self._state()
        if state.settings.central_url is not None:
            raise RuntimeError(
                f"{key_prefix(self.name)}CENTRAL_URL is set: the access token stays with "
                "the central server, which passes on nothing but tickets."
            )
        return state.provider.get(ACCESS_TOKEN).value

    @property
    def card_ticket(self) -> str:
        """A valid ticket for cards (卡券), to be signed with :func:`sign_card`.

        :raises TicketUnavailable: when none can be had.
        """
        state = self._state()
        if CARD_TICKET not in state.settings.ticket_kinds:
            key = f"{key_prefix(self.name)}PLATFORM"
            raise RuntimeError(f'{key} is "{state.settings.platform}", which has no cards.')
        return state.provider.get(CARD_TICKET).value

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
        state = self._state()
        settings = state.settings
        page = _page(settings, url)
        names = [*settings.js_api_list] if js_api_list is None else _names(js_api_list)
        tags = [*settings.open_tag_list] if open_tag_list is None else _names(open_tag_list)
        debug = settings.debug if debug is None else debug
        # Last: nothing that may raise comes after a ticket is in a local variable.
        return _signed(settings, state.provider.get().value, page, names, tags, debug)

    def agent_config(
        self, js_api_list: Iterable[str] | None = None, url: str | None = None
    ) -> AgentConfig:
        """The argument of WeCom's ``wx.agentConfig`` for a page, which is signed with the ticket
        of the application. Also the Jinja global ``wx_agent_config``.

        :param js_api_list: as for :meth:`config`.
        :param url: as for :meth:`config`.
        :raises TicketUnavailable: when there is no ticket.
        """
        state = self._state()
        settings = state.settings
        if settings.agent_id is None:
            prefix = key_prefix(self.name)
            raise RuntimeError(
                f"{prefix}AGENT_ID is not set: agent_config() needs it, and "
                f'{prefix}PLATFORM = "wecom".'
            )
        page = _page(settings, url)
        names = list(settings.js_api_list) if js_api_list is None else _names(js_api_list)
        ticket = state.provider.get(AGENT_TICKET).value
        config = _signed(settings, ticket, page, names, [], False)
        return {
            "corpid": settings.app_id,
            "agentid": settings.agent_id,
            "timestamp": config["timestamp"],
            "nonceStr": config["nonceStr"],
            "signature": config["signature"],
            "jsApiList": names,
        }

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
        without a ticket the last one warns in the browser's console instead.

        :param js_api_list: as for :meth:`config`.
        :param share: ``title``, ``desc``, ``link`` and ``imgUrl`` of the card a share makes, for
            friends and for Moments. ``link`` is the page's own URL if left out; a relative ``link``
            or ``imgUrl`` is made absolute, as WeChat wants it.
        :param nonce: of the page's Content-Security-Policy.
        :param url: as for :meth:`config`.
        """
        state = self._state()
        settings = state.settings
        names = list(settings.js_api_list) if js_api_list is None else _names(js_api_list)
        if share is not None:
            names += [name for name in settings.platform.share_calls if name not in names]
        page = _page(settings, url)
        card = None if share is None else share_card(page, share)
        body = self._body(state, page, names, card)
        first, *spare = settings.jssdk_urls
        sources = [first]
        if settings.is_sandbox:
            # A phone for any browser.
            phone = settings.platform.phone
            sources.insert(0, f"{_sandbox().url}/sandbox/bridge.js?phone={phone}")
        return tags(sources, spare, settings.agent_sdk_urls, body, nonce)

    def _body(
        self, state: _State, page: str, names: list[str], share: Mapping[str, str] | None
    ) -> Markup:
        """The statements of :meth:`script`; a warning in the console where there is no ticket."""
        settings = state.settings
        try:
            ticket = state.provider.get(timeout=_SCRIPT_TIMEOUT).value
        except TicketUnavailable as error:
            if not state.script_failed:
                state.script_failed = True
                whose = "" if self.name == "default" else f" of {self.name}"
                cause = error.__cause__ or error
                logger.warning("Pages%s render without wx.config: %s", whose, cause)
            return warning("wx.config was not called: the server has no WeChat ticket just now.")
        state.script_failed = False
        tags = list(settings.open_tag_list)
        config = _signed(settings, ticket, page, names, tags, settings.debug)
        return config_call(config, share, settings.platform.share_calls)

    # -- for the operator ------------------------------------------------------------------------

    def refresh(self) -> str:
        """Renew the ticket now, for the whole cluster, in spite of a back-off; with AGENT_ID the
        agent's as well.

        Within 10 s of the cluster's last ``refresh()``, successful or not, it only returns
        what there is.

        :returns: the ticket.
        :raises WxJsApiError: what went wrong: a ``WeChatAPIError`` or a ``TransportError``.
        """
        state = self._state()
        value = state.provider.refresh().value
        if state.settings.agent_id is not None:
            state.provider.refresh(AGENT_TICKET)
        return value

    def status(self) -> Status:
        """What this process knows of the ticket. Asks the store where no thread has done so, and
        never WeChat.
        """
        state = self._state()
        return state.provider.status(look=not state.worker.ensure())

    def start(self, app: Flask) -> None:
        """Start the background thread of this process now, before the first request.

        Call it where a worker process begins, such as gunicorn's ``post_worker_init``.
        """
        self._state_of(app).worker.start()

    def close(self, app: Flask) -> None:
        """Stop the background thread of this process; a caller renews from then on."""
        self._state_of(app).worker.stop()

    def _state(self) -> _State:
        try:
            return _the_app().extensions[_STATES][self]  # type: ignore[no-any-return]  # a dict of Any
        except KeyError:
            raise self._not_registered() from None
        except RuntimeError:
            raise RuntimeError(
                "WxJsApi was used outside an application context: use it in a view or template, "
                "or inside 'with app.app_context():'."
            ) from None

    def _state_of(self, app: Flask) -> _State:
        try:
            return app.extensions[_STATES][self]  # type: ignore[no-any-return]  # likewise
        except KeyError:
            raise self._not_registered() from None

    def _not_registered(self) -> RuntimeError:
        return RuntimeError(
            f"This WxJsApi (name={self.name!r}) is not registered with the current app: call "
            "wxjsapi.init_app(app) where the app is made."
        )


# -- wiring ----------------------------------------------------------------------------------------


def _build(app: Flask, settings: Settings) -> _State:
    app_ref = weakref.ref(app)

    def the_app() -> Flask:
        app = app_ref()
        if app is None:
            raise RuntimeError("the app is gone")
        return app

    def context() -> AppContext:
        return the_app().app_context()

    def notify(event: str, facts: dict[str, Any]) -> None:
        app = the_app()
        signal = _SIGNALS[event]
        for receiver in signal.receivers_for(app):
            try:
                receiver(app, account=settings.name, **facts)
            except Exception as error:
                logger.error("A receiver of %s raised %s.", signal.name, describe(error))

    def base_url() -> str:
        if not settings.is_sandbox:
            return settings.api_base_url
        sandbox = _sandbox()
        if settings.platform.has_agents:
            sandbox.add_agent(settings.app_id, settings.app_secret, settings.agent_id or "")
        else:
            sandbox.add_account(settings.app_id, settings.app_secret)
        return sandbox.url

    server = settings.ticket_server
    caches = CacheSettings(app.config, settings.cache)

    def open_cache() -> CacheServer:
        return caches.open(the_app())

    def open_tickets() -> TicketServer:
        made: TicketServer = server() if isinstance(server, type) else server
        return made

    def open_store() -> Store:
        # The tilde: what an app clears by its own prefix does not start with one. The braces: a
        # Redis Cluster keeps what has the same text in them on one node.
        host = urlsplit(settings.central_url or base_url()).netloc
        corp = f"~wxjsapi:{{{host}/{settings.app_id}}}:"
        prefix, shared = corp, {}
        if settings.platform.has_agents:
            # Token and agent ticket are the application's own. The other is the corp's: two of its
            # applications may ask for it at the same moment, for each has a lease of its own.
            prefix = f"{corp}{settings.digest[:8]}-{settings.agent_id or ''}:"
            shared = {kind: corp + kind for kind in settings.platform.kinds_of_corp}
        return Store(
            open_cache,
            open_tickets if server is not None else None,
            custom_name=getattr(server, "__name__", type(server).__name__),
            prefix=prefix,
            shared=shared,
            lease_life=settings.refresh_timeout + _LEASE_EXTRA,
            context=context,
        )

    def is_enabled() -> bool:
        wanted = settings.background_refresh
        return not the_app().testing if wanted is None else wanted

    provider = Provider(
        _upstream(settings, base_url),
        open_store,
        name=settings.name,
        digest=settings.digest,
        refresh_ahead=settings.refresh_ahead,
        refresh_timeout=settings.refresh_timeout,
        sync_interval=settings.sync_interval,
        background=lambda: state.worker.ensure(),
        context=context,
        notify=notify,
    )
    state = _State(settings, provider, Worker(provider, app, settings.name, is_enabled))
    return state


def _upstream(settings: Settings, base_url: Callable[[], str]) -> Upstream:
    """Where the account's tickets come from."""
    if settings.central_url is not None:
        return CentralServer(settings.central_url, settings.central_token, settings.app_id)
    upstream = WeChat(
        base_url,
        settings.app_id,
        settings.app_secret,
        platform=settings.platform,
        token_endpoint=settings.token_endpoint,
    )
    if settings.access_token_provider is not None:
        return TokenProvider(upstream, settings.access_token_provider)
    return upstream


def _sandbox() -> Sandbox:
    """The WeChat inside this process."""
    from .sandbox import embedded  # which nobody needs in production

    return embedded()


# -- signing ---------------------------------------------------------------------------------------


def _signed(
    settings: Settings, ticket: str, page: str, names: list[str], tags: list[str], debug: bool
) -> WxConfig:
    noncestr, timestamp = urandom(8).hex(), int(now())  # as secrets.token_hex(8), in less time
    config: WxConfig = {
        "debug": debug,
        "appId": settings.app_id,
        "timestamp": timestamp,
        "nonceStr": noncestr,
        "signature": sign(ticket=ticket, noncestr=noncestr, timestamp=timestamp, url=page),
        "jsApiList": names,
        "openTagList": tags,
    }
    if settings.platform.is_beta:
        config["beta"] = True
    return config


def _page(settings: Settings, url: str | None) -> str:
    """The URL to sign: the one given or the current request's."""
    if url is not None:
        if url.startswith(("https://", "http://")):
            return url.partition("#")[0] if "#" in url else url
        raise RuntimeError(f"url must be the page's whole URL, with its scheme, got {url!r}")
    try:
        environ = _the_request().environ
    except RuntimeError:
        raise RuntimeError("Outside a request there is no page to sign: pass url=.") from None
    return page_url(environ, settings.public_origin)


def _names(names: Iterable[str]) -> list[str]:
    if isinstance(names, str):
        raise RuntimeError(f"Expected a list of names, got the string {names!r}: write [{names!r}]")
    return list(names)
