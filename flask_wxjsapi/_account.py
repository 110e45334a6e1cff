"""One account of one app: its settings and its credentials, and what is signed with them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from os import urandom
from time import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from zlib import crc32

from markupsafe import Markup

from ._credential import ACCESS_TOKEN, AGENT_TICKET, CARD_TICKET, JSAPI_TICKET
from ._engine.reading import Credentials, Status
from ._engine.runtime import Engine
from ._engine.snapshot import Holding, Times
from ._page.client import client_inline, client_name
from ._page.config import AgentConfig, WxConfig, listed
from ._page.script import page_call, share_card, tags, warning
from ._settings import Settings
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

#: Seconds a page waits for its ticket before it renders without.
SCRIPT_TIMEOUT = 2.0

#: A nonce of a Content-Security-Policy, or what returns it.
Nonce = str | Callable[[], str] | None

#: What a page without a ticket has in place of wx.config.
NO_TICKET = warning("wx.config was not called: the server has no WeChat ticket just now.")


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


@dataclass(frozen=True, slots=True)
class Source:
    """Where an account comes from that comes at run time.

    :param load: asks its loader for the settings of this moment; raises ``UnknownAccount`` where
        there are none, and another ``WxJsApiError`` where the loader failed.
    :param forget: called with the account when nobody wants it any more, or it is gone.
    """

    load: Callable[[], Settings]
    forget: Callable[[Account], object]


class Account:
    """One account of one app.

    :param settings: its own.
    :param plan: of its store.
    :param source: of one that comes at run time.
    """

    def __init__(
        self, settings: Settings, plan: Plan, host: Host, source: Source | None = None
    ) -> None:
        self.settings = settings
        self._host = host
        self._source = source
        self._is_closed = False
        self._script_failed = False
        #: What tickets are asked of, without the user's own token provider.
        self.api = _api(settings)
        self.credentials = Credentials(
            host.engine,
            Holding(
                settings.name,
                settings.app_id,
                _upstream(settings, self.api, host),
                _keys(settings),
                plan,
                _times(settings, is_one_of_many=source is not None),
                settings.digest,
                self._notify,
                self._is_background,
                None if source is None else self._reload,
                self.drop,
            ),
        )
        self._ticket = self.credentials.holding.snapshot()

    def _notify(self, event: str, facts: Mapping[str, object]) -> None:
        about = {"account": self.settings.name, "app_id": self.settings.app_id}
        self._host.notify(event, {**about, **facts})

    def _reload(self) -> bool:
        """Take over what the loader says now; whether the keys in the store are others since."""
        if self._source is None:
            return False
        settings = self._source.load()
        if settings == self.settings:
            return False
        self.settings, self.api = settings, _api(settings)
        upstream = _upstream(settings, self.api, self._host)
        return self.credentials.holding.change(upstream, _keys(settings), settings.digest)

    def drop(self) -> None:
        """Forget an account that came at run time, and keep nothing of it warm."""
        if self._source is not None:
            self._source.forget(self)
            self.credentials.stop()

    def _is_background(self) -> bool:
        if self._is_closed:
            return False
        wanted = self.settings.background_refresh
        return not self._host.is_testing() if wanted is None else wanted

    # -- the credentials -----------------------------------------------------------------------

    def ticket(self, timeout: float | None = None) -> str:
        return self.credentials.get(JSAPI_TICKET, timeout).value

    def access_token(self, timeout: float | None = None) -> str:
        if self.settings.central_url is not None:
            raise RuntimeError(
                f"{self.settings.prefix}CENTRAL_URL is set: the access token stays with the "
                "central server, which passes on nothing but tickets."
            )
        return self.credentials.get(ACCESS_TOKEN, timeout).value

    def card_ticket(self, timeout: float | None = None) -> str:
        if CARD_TICKET not in self.settings.ticket_kinds:
            raise RuntimeError(
                f'{self.settings.prefix}PLATFORM is "{self.settings.platform}", which has no cards.'
            )
        return self.credentials.get(CARD_TICKET, timeout).value

    def refresh(self) -> str:
        value = self.credentials.refresh().value
        if self.settings.agent_id is not None:
            self.credentials.refresh(AGENT_TICKET)
        return value

    def status(self) -> Status:
        return self.credentials.status(look=not self.credentials.is_kept())

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
        timeout: float | None = None,
    ) -> WxConfig:
        """The argument of ``wx.config`` for the page with a URL."""
        # The way of every page: nothing is called here that need not be. See docs/performance.rst.
        settings = self.settings
        names = [*settings.js_api_list] if js_api_list is None else listed(js_api_list)
        open_tags = [*settings.open_tag_list] if open_tag_list is None else listed(open_tag_list)
        noncestr, now = urandom(8).hex(), time()  # as secrets.token_hex(8), in less time
        timestamp, held = int(now), self._ticket
        # Last: nothing that may raise comes after a ticket is in a local variable.
        ticket = held.value if held.start <= now < held.end else self.ticket(timeout)
        config: WxConfig = {
            "debug": settings.debug if debug is None else debug,
            "appId": settings.app_id,
            "timestamp": timestamp,
            "nonceStr": noncestr,
            "signature": sign_page(ticket, noncestr, timestamp, page),
            "jsApiList": names,
            "openTagList": open_tags,
        }
        if settings.platform.is_beta:
            config["beta"] = True  # or what goes through wx.invoke fails
        return config

    def has_signed(self, page: str, noncestr: str, timestamp: str, signature: str) -> bool:
        """Whether a signature for the page with a URL was made with the ticket that is at hand."""
        held = self.credentials.holding.snapshot(JSAPI_TICKET).credential
        return held is not None and sign_page(held.value, noncestr, timestamp, page) == signature

    def agent_config(
        self,
        page: str,
        js_api_list: Iterable[str] | None = None,
        timeout: float | None = None,
    ) -> AgentConfig:
        """The argument of ``wx.agentConfig`` for the page with a URL."""
        settings = self.settings
        agent_id = self.agent_id
        names = [*settings.js_api_list] if js_api_list is None else listed(js_api_list)
        noncestr, timestamp = urandom(8).hex(), int(time())
        ticket = self.credentials.get(AGENT_TICKET, timeout).value
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
                f"{self.settings.prefix}AGENT_ID is not set: agent_config() needs it, and "
                f'{self.settings.prefix}PLATFORM = "wecom".'
            )
        return self.settings.agent_id

    def script(
        self,
        page: str,
        js_api_list: Iterable[str] | None,
        share: Mapping[str, str | None] | None,
        nonce: Nonce,
        open_tag_list: Iterable[str] | None,
        debug: bool | None,
        root: str,
        timeout: float,
    ) -> Markup:
        """The script tags for the page with a URL; without a ticket they say so.

        :param root: the path that the app is mounted at, or nothing.
        """
        settings = self.settings
        names = [*settings.js_api_list] if js_api_list is None else listed(js_api_list)
        if share is not None:
            names += [name for name in settings.platform.share_calls if name not in names]
        card = None if share is None else share_card(page, share)
        try:
            config = self.config(page, names, open_tag_list, debug, timeout)
        except TicketUnavailable as error:
            if not self._script_failed:
                self._script_failed = True
                self._tell_of_pages(str(error.__cause__ or error))
            return script_tags(settings, NO_TICKET, nonce)
        self._script_failed = False
        endpoint = None if settings.url_prefix is None else f"{root}{settings.url_prefix}/"
        body = page_call(page, endpoint, config, card, settings.platform.share_calls)
        sdk = tuple(settings.jssdk_urls)
        client = f"{endpoint}{client_name(sdk)}" if endpoint else client_inline(sdk)
        return script_tags(settings, body, nonce, client)

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


def script_tags(settings: Settings, body: Markup, nonce: Nonce, *client: str | Markup) -> Markup:
    """The script tags of a page: the JS-SDK, what an agent needs beside it, and the statements.

    :param client: client.js, as :func:`~._page.script.tags` takes it; none where nothing is
        configured.
    """
    first, *spare = settings.jssdk_urls
    sources = [first]
    if settings.is_sandbox:
        from .sandbox import embedded  # which nobody needs in production

        # A phone for any browser.
        sources.insert(0, f"{embedded().url}/sandbox/bridge.js?phone={settings.platform.phone}")
    return tags(sources, spare, [*settings.agent_sdk_urls, *client], body, nonce)


# -- how an account is wired -----------------------------------------------------------------------


def _times(settings: Settings, *, is_one_of_many: bool) -> Times:
    """One of many accounts is renewed up to another lead earlier than it need be, each at a moment
    of its own: thousands that were met at once do not fall due at once.
    """
    ahead = settings.refresh_ahead
    if is_one_of_many:
        ahead *= 1 + crc32(settings.app_id.encode()) / 2**32
    return Times(ahead, settings.refresh_timeout, settings.sync_interval)


def _base_url(settings: Settings) -> str:
    if not settings.is_sandbox:
        return settings.api_base_url
    from .sandbox import embedded  # likewise

    sandbox = embedded()
    if not (settings.app_secret or settings.access_token_provider or settings.ticket_server):
        return sandbox.url  # an account that nobody can ask for
    with suppress(ValueError):  # it has another secret, and will say so when it is asked
        if settings.platform.has_agents:
            sandbox.add_agent(settings.app_id, settings.app_secret, settings.agent_id or "")
        else:
            sandbox.add_account(settings.app_id, settings.app_secret)
    return sandbox.url


def _api(settings: Settings) -> WeChat | CentralServer:
    if settings.central_url is not None:
        return CentralServer(settings.central_url, settings.central_token, settings.app_id)
    return WeChat(
        (lambda: _base_url(settings)) if settings.is_sandbox else settings.api_base_url,
        settings.app_id,
        settings.app_secret,
        platform=settings.platform,
        token_endpoint=settings.token_endpoint,
        has_provider=settings.access_token_provider is not None,
    )


def _upstream(settings: Settings, api: WeChat | CentralServer, host: Host) -> Upstream:
    """Where the account's credentials come from."""
    if settings.access_token_provider is None:
        return api
    return TokenProvider(
        api, settings.access_token_provider, host.context, platform=settings.platform
    )


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


def plan_of(settings: Settings, caches: CacheSettings, host: Host) -> Plan:
    """Where the accounts of an extension are kept."""
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
