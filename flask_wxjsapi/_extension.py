"""The Flask extension: what Flask sees of it."""

from __future__ import annotations

import logging
import re
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from blinker import Namespace
from flask import Flask, request
from flask.ctx import AppContext

from ._account import Host
from ._accounts import ACCOUNTS, Accounts, Loader
from ._domains import every_domain
from ._engine.runtime import Engine
from ._error_text import describe
from ._js_api import JsApi
from ._settings import Settings
from ._telling import tell
from ._tools.cli import commands
from ._views import blueprint, guard_signed_responses
from .errors import SetupError

L = TypeVar("L", bound=Loader)

_NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
_ENGINE = "wxjsapi.engine"  # likewise a key of app.extensions

_PER_WORKER = (
    "The server may have several worker processes, and each keeps its own ticket in memory: WeChat "
    "is asked by each. They share one with CACHE_TYPE FileSystemCache or RedisCache. If it is "
    'meant so, say WXJSAPI_CACHE={"CACHE_TYPE": "SimpleCache"}.'
)

_signals = Namespace()

#: Sent when a renewal by this process is over: no reader waits for a receiver. The sender is the
#: app; the arguments are ``account``, ``app_id``, ``kind`` and ``expires_at`` (Unix time in
#: seconds). A value is never sent.
ticket_refreshed = _signals.signal("wxjsapi-ticket-refreshed")

#: Sent after a renewal that failed, with ``account``, ``app_id``, ``kind`` and ``error``.
ticket_refresh_failed = _signals.signal("wxjsapi-ticket-refresh-failed")

_SIGNALS = {"refreshed": ticket_refreshed, "failed": ticket_refresh_failed}


@contextmanager
def _one_line() -> Iterator[None]:
    """What is refused here is one line where a ``flask`` command loads the app."""
    try:
        yield
    except RuntimeError as error:
        raise SetupError(str(error)) from None


class WxJsApi(JsApi):
    """Keeps ``jsapi_ticket`` fresh and signs pages with it: the extension, and the account in the
    app's config.

    All accounts of an app share one thread, named ``wxjsapi``, and one store in each process.

    :param app: the app to register with, or None to call :meth:`init_app` later.
    :param name: the account, if not the only one; ``"shop"`` reads the keys
        ``SHOP_WXJSAPI_*`` and adds ``shop_wx_config``, ``shop_wx_script`` and, with AGENT_ID,
        ``shop_wx_agent_config`` to Jinja.
    """

    def __init__(self, app: Flask | None = None, *, name: str = "default") -> None:
        if not _NAME.fullmatch(name):
            raise RuntimeError(f"name must be a lower-case identifier such as 'shop', got {name!r}")
        super().__init__(name, None)
        self._loader: Loader | None = None
        if app is not None:
            self.init_app(app)

    @_one_line()
    def init_app(self, app: Flask) -> None:
        """Register with an app. Opens no connection and starts no thread.

        :raises RuntimeError: for a setting that cannot be right, for a second registration, after
            the first request, and for what is no Flask app.
        """
        if not isinstance(app, Flask):
            kind = f"{type(app).__module__}.{type(app).__qualname__}"
            raise RuntimeError(
                f"init_app() takes a Flask app, and {kind} is none. What is asynchronous itself, "
                "such as Quart, can mount a Flask app or fetch signatures from one."
            )
        if getattr(app, "_got_first_request", False):
            raise RuntimeError(
                f"The WxJsApi named {self.name!r} comes too late: the app has answered its first "
                "request. Accounts that are added while it runs come from an account_loader."
            )
        registered: dict[str, WxJsApi] = app.extensions.setdefault("wxjsapi", {})
        if self.name in registered:
            raise RuntimeError(
                f"A WxJsApi named {self.name!r} is registered with this app already: call "
                "init_app() once, or give a second account its own name=."
            )
        settings = Settings.load(app.config, self.name, needs_account=self._loader is None)
        if settings.is_sandbox and not (app.debug or app.testing):
            raise RuntimeError(
                f'{settings.prefix}API_BASE_URL = "sandbox" is for development: it '
                "needs debug or testing mode, set before init_app(). (flask --debug does.)"
            )
        if ACCOUNTS not in app.extensions:
            guard_signed_responses(app)
        others: dict[str, Accounts] = app.extensions.setdefault(ACCOUNTS, {})
        for other in others.values():
            _check_pair(settings, other.settings)
        if settings.url_prefix is not None:
            app.register_blueprint(blueprint(settings, every_domain(app)))
        # With the app, and not here, so that neither keeps the other: an app is found by one dict.
        accounts = others[self.name] = _open(app, settings, lambda: self._loader)
        registered[self.name] = self
        app.extensions[self._at_hand] = accounts.at_hand

        if settings.has_account:
            own = accounts.own

            def keep_warm() -> None:
                own.credentials.start()

            app.before_request(keep_warm)
        app.cli.add_command(commands)
        scope = "" if self.name == "default" else f"{self.name}_"
        for method in ("config", "script"):
            app.add_template_global(self._with_app_id(method), f"{scope}wx_{method}")
        if settings.agent_id is not None or self._loader is not None:
            app.add_template_global(self._with_app_id("agent_config"), f"{scope}wx_agent_config")

    # -- accounts at run time --------------------------------------------------------------------

    def account_loader(self, loader: L) -> L:
        """Register a function that returns the keys of the account with an AppID: accounts then
        come and go while the app runs.

        It is called in an application context and a thread of its own, when an account is first
        named and again before each fetch. Its answer is a mapping of the settings' keys without
        prefix, such as ``{"APP_SECRET": row.secret}``, or None where there is no such account.
        What it leaves out is the extension's own, but for APP_SECRET, AGENT_ID and
        ACCESS_TOKEN_PROVIDER. Where the extension has no APP_ID of its own, register it before
        :meth:`init_app`.
        """
        self._loader = loader
        return loader

    def account(self, app_id: str) -> JsApi:
        """An account that the :meth:`account_loader` knows. This costs nothing; the loader is asked
        when the account is used.

        :param app_id: its AppID, or the corp's id.
        """
        if not isinstance(app_id, str):  # None would name the account in the app's config
            raise RuntimeError(f"app_id must be a string, not {type(app_id).__name__}.")
        return JsApi(self.name, app_id)

    # -- for the operator ------------------------------------------------------------------------

    def start(self, app: Flask) -> None:
        """Have the background thread of this process keep the account warm from now on, before
        the first request. The thread is started unless another account has done so.

        Call it where a worker process begins, such as gunicorn's ``post_worker_init``.
        """
        self._accounts_of(app).start()

    def close(self, app: Flask) -> None:
        """Have the background thread of this process leave the extension's accounts alone; a
        caller renews from then on. With the last account the thread ends.
        """
        self._accounts_of(app).close()

    def _with_app_id(self, method: str) -> Callable[..., object]:
        """A method as a Jinja global, which takes ``app_id=`` as well."""

        def call(*args: object, app_id: str | None = None, **more: object) -> object:
            account = self if app_id is None else self.account(app_id)
            result: object = getattr(account, method)(*args, **more)
            return result

        return call


def _check_pair(settings: Settings, other: Settings) -> None:
    """What two accounts of an app must not have in common.

    :raises RuntimeError: they do.
    """
    prefix = settings.prefix
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


def _open(app: Flask, settings: Settings, loader: Callable[[], Loader | None]) -> Accounts:
    """The accounts of an app, which they do not keep."""
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
                tell(
                    logging.ERROR,
                    "A receiver of %s raised %s.",
                    signal.name,
                    describe(error),
                    event="receiver_failed",
                    account=facts["account"],
                    app_id=facts["app_id"],
                    kind=facts["kind"],
                )

    def open_cache(caches: CacheSettings) -> CacheServer:
        return caches.open(the_app())

    if _ENGINE not in app.extensions:
        app.extensions[_ENGINE] = Engine(app)
    host = Host(app.extensions[_ENGINE], context, open_cache, notify, lambda: the_app().testing)
    caches = CacheSettings(app.config, settings.cache)
    asks_wechat = settings.central_url is None and not settings.is_sandbox
    if asks_wechat and settings.ticket_server is None:
        app.before_request(_first_request(host.engine, lambda: caches.is_in_memory, settings.name))
    return Accounts(settings, caches, host, loader)


def _first_request(
    engine: Engine, is_in_memory: Callable[[], bool], name: str
) -> Callable[[], None]:
    """Only a request tells what its server is like. The log has it, once in each process, where
    there may be several without a cache in common.
    """
    is_first = True

    def look() -> None:
        nonlocal is_first
        if not is_first:
            return
        is_first = False
        if request.environ.get("wsgi.multiprocess") and is_in_memory():
            aside = engine.runtime().tell_aside
            aside(logging.WARNING, _PER_WORKER, event="cache_per_worker", account=name)

    return look
