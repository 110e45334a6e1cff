"""One account of one app: its settings and its credentials, and what is signed with them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from os import urandom
from time import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from markupsafe import Markup

from ._credential import ACCESS_TOKEN, AGENT_TICKET, CARD_TICKET
from ._engine.reading import Credentials, Status
from ._engine.runtime import Engine
from ._engine.snapshot import Holding, Times
from ._page.config import AgentConfig, WxConfig, listed
from ._page.script import config_call, share_card, tags, warning
from ._settings import Settings, key_prefix
from ._signature import sign_page
from ._storage.server import TicketServer
from ._storage.store import Keys, Plan
from ._upstream import Upstream
from ._upstream.central import CentralServer
from ._upstream.token_provider import TokenProvider
from ._upstream.wechat import WeChat
from .errors import TicketUnavailable

if TYPE_CHECKING:
    from ._storage.cache import CacheServer, CacheSettings

#: Where an app keeps its accounts: a dict by name in ``app.extensions``.
ACCOUNTS = "wxjsapi.accounts"

_SCRIPT_TIMEOUT = 2.0  # seconds a page waits for its ticket before it renders without


@dataclass(frozen=True)
class Host:
    """What an account needs of its app. Nothing in it keeps the app.

    :param engine: of the app, for all its accounts.
    :param context: an application context, for the code of others.
    :param open_cache: opens the private cache.
    :param notify: sends a signal with an event's name and facts.
    :param is_testing: whether the app is being tested.
    """

    engine: Engine
    context: Callable[[], AbstractContextManager[object]]
    open_cache: Callable[[CacheSettings], CacheServer]
    notify: Callable[[str, Mapping[str, object]], None]
    is_testing: Callable[[], bool]


class Account:
    """One account of one app.

    :param settings: its own.
    :param caches: how to open its private cache.
    """

    def __init__(self, settings: Settings, caches: CacheSettings, host: Host) -> None:
        self.settings = settings
        self._host = host
        self._is_closed = False
        self._script_failed = False
        self._is_beta = settings.platform.is_beta
        about = {"account": settings.name, "app_id": settings.app_id}
        #: What tickets are asked of, without the user's own token provider.
        self.api = _api(settings)
        self.credentials = Credentials(
            host.engine,
            Holding(
                settings.name,
                settings.app_id,
                _upstream(settings, self.api, host),
                _keys(settings),
                _plan(settings, caches, host),
                Times(settings.refresh_ahead, settings.refresh_timeout, settings.sync_interval),
                settings.digest,
                lambda event, facts: host.notify(event, {**about, **facts}),
                self._is_background,
            ),
        )
        self._ticket = self.credentials.holding.snapshot()

    def _is_background(self) -> bool:
        if self._is_closed:
            return False
        wanted = self.settings.background_refresh
        return not self._host.is_testing() if wanted is None else wanted

    # -- the credentials -----------------------------------------------------------------------

    def ticket(self) -> str:
        return self.credentials.get().value

    def access_token(self) -> str:
        if self.settings.central_url is not None:
            raise RuntimeError(
                f"{self._prefix}CENTRAL_URL is set: the access token stays with the central "
                "server, which passes on nothing but tickets."
            )
        return self.credentials.get(ACCESS_TOKEN).value

    def card_ticket(self) -> str:
        if CARD_TICKET not in self.settings.ticket_kinds:
            raise RuntimeError(
                f'{self._prefix}PLATFORM is "{self.settings.platform}", which has no cards.'
            )
        return self.credentials.get(CARD_TICKET).value

    def refresh(self) -> str:
        value = self.credentials.refresh().value
        if self.settings.agent_id is not None:
            self.credentials.refresh(AGENT_TICKET)
        return value

    def status(self) -> Status:
        return self.credentials.status(look=not self.credentials.start())

    def start(self) -> None:
        """Keep it warm from now on."""
        self._is_closed = False
        self.credentials.start()

    def close(self) -> None:
        """Keep it warm no longer; a caller renews from then on."""
        self._is_closed = True
        self.credentials.stop()

    # -- the page ------------------------------------------------------------------------------

    def config(
        self,
        page: str,
        js_api_list: Iterable[str] | None = None,
        open_tag_list: Iterable[str] | None = None,
        debug: bool | None = None,
    ) -> WxConfig:
        """The argument of ``wx.config`` for the page with a URL."""
        # The way of every page: nothing is called here that need not be. See docs/performance.rst.
        settings = self.settings
        names = [*settings.js_api_list] if js_api_list is None else listed(js_api_list)
        open_tags = [*settings.open_tag_list] if open_tag_list is None else listed(open_tag_list)
        noncestr, now = urandom(8).hex(), time()  # as secrets.token_hex(8), in less time
        timestamp, held = int(now), self._ticket
        # Last: nothing that may raise comes after a ticket is in a local variable.
        ticket = held.value if held.start <= now < held.end else self.credentials.get().value
        config: WxConfig = {
            "debug": settings.debug if debug is None else debug,
            "appId": settings.app_id,
            "timestamp": timestamp,
            "nonceStr": noncestr,
            "signature": sign_page(ticket, noncestr, timestamp, page),
            "jsApiList": names,
            "openTagList": open_tags,
        }
        if self._is_beta:
            config["beta"] = True  # or what goes through wx.invoke fails
        return config

    def agent_config(self, page: str, js_api_list: Iterable[str] | None = None) -> AgentConfig:
        """The argument of ``wx.agentConfig`` for the page with a URL."""
        settings = self.settings
        agent_id = self.agent_id
        names = [*settings.js_api_list] if js_api_list is None else listed(js_api_list)
        noncestr, timestamp = urandom(8).hex(), int(time())
        ticket = self.credentials.get(AGENT_TICKET).value
        return {
            "corpid": settings.app_id,
            "agentid": agent_id,
            "timestamp": timestamp,
            "nonceStr": noncestr,
            "signature": sign_page(ticket, noncestr, timestamp, page),
            "jsApiList": names,
        }

    @property
    def agent_id(self) -> str:
        """The agent's id.

        :raises RuntimeError: there is none.
        """
        if self.settings.agent_id is None:
            raise RuntimeError(
                f"{self._prefix}AGENT_ID is not set: agent_config() needs it, and "
                f'{self._prefix}PLATFORM = "wecom".'
            )
        return self.settings.agent_id

    def script(
        self,
        page: str,
        js_api_list: Iterable[str] | None,
        share: Mapping[str, str] | None,
        nonce: str | None,
    ) -> Markup:
        """The script tags for the page with a URL; without a ticket they say so."""
        settings = self.settings
        names = [*settings.js_api_list] if js_api_list is None else listed(js_api_list)
        if share is not None:
            names += [name for name in settings.platform.share_calls if name not in names]
        card = None if share is None else share_card(page, share)
        body = self._body(page, names, card)
        first, *spare = settings.jssdk_urls
        sources = [first]
        if settings.is_sandbox:
            from .sandbox import embedded  # which nobody needs in production

            # A phone for any browser.
            phone = settings.platform.phone
            sources.insert(0, f"{embedded().url}/sandbox/bridge.js?phone={phone}")
        return tags(sources, spare, settings.agent_sdk_urls, body, nonce)

    def _body(self, page: str, names: list[str], card: Mapping[str, str] | None) -> Markup:
        """The statements of :meth:`script`; a warning in the console where there is no ticket."""
        try:
            self.credentials.get(timeout=_SCRIPT_TIMEOUT)
            config = self.config(page, names)
        except TicketUnavailable as error:
            if not self._script_failed:
                self._script_failed = True
                self._tell_of_pages(str(error.__cause__ or error))
            return warning("wx.config was not called: the server has no WeChat ticket just now.")
        self._script_failed = False
        return config_call(config, card, self.settings.platform.share_calls)

    def _tell_of_pages(self, cause: str) -> None:
        """Aside: a slow log handler does not hold the page up."""
        self.credentials.runtime.tell_aside(
            logging.WARNING,
            "Pages%s render without wx.config: %s",
            self.credentials.holding.whose,
            cause,
            event="pages_without",
            account=self.settings.name,
            app_id=self.settings.app_id,
        )

    @property
    def _prefix(self) -> str:
        return key_prefix(self.settings.name)


# -- how an account is wired -----------------------------------------------------------------------


def _base_url(settings: Settings) -> str:
    if not settings.is_sandbox:
        return settings.api_base_url
    from .sandbox import embedded  # likewise

    sandbox = embedded()
    if settings.platform.has_agents:
        sandbox.add_agent(settings.app_id, settings.app_secret, settings.agent_id or "")
    else:
        sandbox.add_account(settings.app_id, settings.app_secret)
    return sandbox.url


def _api(settings: Settings) -> WeChat | CentralServer:
    if settings.central_url is not None:
        return CentralServer(settings.central_url, settings.central_token, settings.app_id)
    return WeChat(
        lambda: _base_url(settings),
        settings.app_id,
        settings.app_secret,
        platform=settings.platform,
        token_endpoint=settings.token_endpoint,
    )


def _upstream(settings: Settings, api: WeChat | CentralServer, host: Host) -> Upstream:
    """Where the account's credentials come from."""
    if settings.access_token_provider is None:
        return api
    return TokenProvider(api, settings.access_token_provider, host.context)


def _keys(settings: Settings) -> Keys:
    def prefix() -> str:
        # The tilde: what an app clears by its own prefix does not start with one. The braces: a
        # Redis Cluster keeps what has the same text in them on one node.
        host = urlsplit(settings.central_url or _base_url(settings)).netloc
        return f"~wxjsapi:{{{host}/{settings.app_id}}}:"

    if not settings.platform.has_agents:
        return Keys(prefix)
    # Token and agent ticket are the application's own. The other is the corp's: two of its
    # applications may ask for it at the same moment, for each has a lease of its own.
    own = f"{settings.digest[:8]}-{settings.agent_id or ''}:"
    return Keys(prefix, own, frozenset(settings.platform.kinds_of_corp))


def _plan(settings: Settings, caches: CacheSettings, host: Host) -> Plan:
    server = settings.ticket_server
    if server is None:
        return Plan(lambda: caches.key, lambda: host.open_cache(caches))

    def open_tickets() -> TicketServer:
        made: TicketServer = server() if isinstance(server, type) else server
        return made

    name = getattr(server, "__name__", type(server).__name__)
    return Plan(
        lambda: caches.key,
        lambda: host.open_cache(caches),
        tickets_key=id(server),
        open_tickets=open_tickets,
        tickets_name=f"The ticket server {name}",
        context=host.context,
    )
