"""The accounts of one extension in one app: its own, and those that come at run time."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ._account import Account, Host, Source, plan_of
from ._error_text import describe
from ._settings import KEYS, Settings
from ._telling import tell
from .errors import TicketUnavailable, UnknownAccount, WxJsApiError

if TYPE_CHECKING:
    from ._storage.cache import CacheSettings

#: Where an app keeps its accounts: a dict of :class:`Accounts` by name in ``app.extensions``.
ACCOUNTS = "wxjsapi.accounts"

#: The user's own: the keys of the account with an AppID; None where there is none.
Loader = Callable[[str], Mapping[str, Any] | None]

_UNKNOWN_FOR = 10.0  # seconds for which it is remembered that there is no such account
_FAILED_FOR = 2.0  # seconds for which the failure of a loader is
_MOST_REFUSED = 1000  # so many of these are remembered
_HOUR = 3600.0  # seconds between two searches for what nobody reads
_LEAST = 0.1  # seconds that are left, however long the loader took
#: Questions of strangers for accounts that are not there: so many at once, and a second.
_STRANGERS_AT_ONCE, _STRANGERS_A_SECOND = 10.0, 3.0


class Accounts:
    """The accounts of one extension in one app.

    :param settings: the extension's.
    :param loader: returns the loader, if there is one by now.
    """

    def __init__(
        self,
        settings: Settings,
        caches: CacheSettings,
        host: Host,
        loader: Callable[[], Loader | None],
    ) -> None:
        self.settings = settings
        #: The accounts that this process has met, by AppID; under None the extension's own.
        self.at_hand: dict[str | None, Account] = {}
        self._plan, self._host, self._loader = plan_of(settings, caches, host), host, loader
        self._refused: dict[str, tuple[float, WxJsApiError]] = {}  # until when, monotonic
        self._monotonic = host.engine.clock.monotonic
        self._budget, self._budget_at = _STRANGERS_AT_ONCE, 0.0
        self._dropped_at = -math.inf  # monotonic
        self._is_closed = False
        if settings.has_account:
            own = Account(settings, self._plan, host)
            self.at_hand |= {None: own, settings.app_id: own}

    @property
    def own(self) -> Account:
        """The extension's own account.

        :raises RuntimeError: it has none.
        """
        if None not in self.at_hand:
            raise RuntimeError(
                f"{self.settings.prefix}APP_ID is not set, so the extension has no account of its "
                "own: name one with account(app_id), or with app_id= in a template."
            )
        return self.at_hand[None]

    @property
    def has_loader(self) -> bool:
        """Whether accounts may come at run time."""
        return self._loader() is not None

    def find(
        self, app_id: str, timeout: float, *, of_stranger: bool = False
    ) -> tuple[Account, float]:
        """The account with an AppID, whose loader is asked where this process has not met it; and
        what is left of the time.

        :param timeout: seconds.
        :param of_stranger: anybody may have named it: what does not exist is asked for a few times
            a second at most.
        :raises UnknownAccount: there is no such account.
        :raises TicketUnavailable: the loader failed.
        """
        account = self.at_hand.get(app_id)
        if account is not None:
            return account, timeout
        until = self._monotonic() + timeout
        account = self._load(app_id, timeout, of_stranger)
        return account, max(_LEAST, until - self._monotonic())

    def refresh(self, app_id: str) -> str:
        """Renew the ticket of an account that comes at run time; hear of what was changed, whatever
        is remembered of it.

        :raises WxJsApiError: what went wrong.
        """
        self._refused.pop(app_id, None)
        try:
            account = self.find(app_id, self.settings.refresh_timeout)[0]
        except UnknownAccount as error:
            if not error.app_id:
                raise
            # Of one that this process never met there may be something in the store, which a
            # renewal withdraws as it hears that the account is gone.
            account = self._made(replace(self.settings, app_id=app_id, app_secret=""))
        except TicketUnavailable as error:
            if isinstance(error.__cause__, WxJsApiError):
                raise error.__cause__ from None
            raise
        return account.refresh()

    def start(self) -> None:
        """Keep warm what there is, and what comes."""
        self._is_closed = False
        for account in self._each():
            account.start()

    def close(self) -> None:
        """Keep nothing warm any longer."""
        self._is_closed = True
        for account in self._each():
            account.close()

    def _each(self) -> set[Account]:
        return set(self.at_hand.values())

    # -- the loader ----------------------------------------------------------------------------

    def _load(self, app_id: str, timeout: float, of_stranger: bool) -> Account:
        if not self.has_loader:
            raise RuntimeError(
                "account() needs an account_loader: decorate a function of yours that returns the "
                "keys of the account with an AppID."
            )
        self._check_that_it_may_be(app_id)
        runtime, key = self._host.engine.runtime(), (self, app_id)
        is_paid = of_stranger and not runtime.is_loading(key)
        if is_paid:
            self._pay()
        problem: WxJsApiError | None = None
        try:
            runtime.load(
                key,
                lambda: self._add(app_id),
                lambda: self._tell_of_failure(app_id, f"The account_loader hangs for {app_id}."),
                self.settings.refresh_timeout,
                timeout,
            )
        except WxJsApiError as error:
            problem = error
        if problem is None:
            self._budget += is_paid
            account = self.at_hand.get(app_id)
            if account is not None:
                return account
            problem = UnknownAccount(app_id)  # it went at this very moment
        if isinstance(problem, UnknownAccount):
            raise problem
        raise TicketUnavailable(1) from problem

    def _check_that_it_may_be(self, app_id: str) -> None:
        """Without asking the loader, which has answered lately.

        :raises WxJsApiError: as it did then.
        """
        try:
            KEYS["APP_ID"].read(app_id)
        except ValueError:
            is_text = isinstance(app_id, str)
        else:
            until, error = self._refused.get(app_id, (0.0, None))
            if error is None or self._monotonic() >= until:
                return
            if isinstance(error, UnknownAccount):
                raise UnknownAccount(app_id)
            raise TicketUnavailable(1) from error
        if is_text:  # which is not quoted: it may be a secret
            raise UnknownAccount("")
        raise RuntimeError(f"app_id must be a string, not {type(app_id).__name__}.")

    def _pay(self) -> None:
        """Have a stranger ask the loader, who gets it back if there is such an account.

        :raises TicketUnavailable: strangers asked too often for nothing.
        """
        now = self._monotonic()
        earned = (now - self._budget_at) * _STRANGERS_A_SECOND
        self._budget = min(_STRANGERS_AT_ONCE, self._budget + earned)
        self._budget_at = now
        if self._budget < 1:
            raise TicketUnavailable(1)
        self._budget -= 1

    def _add(self, app_id: str) -> None:
        """Ask the loader, and have the account.

        :raises WxJsApiError: there is none.
        """
        try:
            settings = self._ask(app_id)
        except UnknownAccount:
            raise
        except WxJsApiError as error:
            if str(self._refused.get(app_id, ("", None))[1]) != str(error):
                self._tell_of_failure(app_id, str(error))
            self._refuse(app_id, error, _FAILED_FOR)
            raise
        self._refused.pop(app_id, None)
        self._drop_what_nobody_reads()
        account = self._made(settings)
        if self._is_closed:
            account.close()
        self.at_hand[app_id] = account

    def _made(self, settings: Settings) -> Account:
        app_id = settings.app_id
        source = Source(lambda: self._ask(app_id), self._forget)
        return Account(settings, self._plan, self._host, source)

    def _forget(self, account: Account) -> None:
        app_id = account.settings.app_id
        if self.at_hand.get(app_id) is account:  # and not one that has come after it
            del self.at_hand[app_id]

    def _drop_what_nobody_reads(self) -> None:
        """Drop the accounts that no thread drops: it keeps what was read with success, if there is
        a thread.
        """
        now = self._monotonic()
        if now - self._dropped_at < _HOUR:
            return
        self._dropped_at = now
        for account in self._each():
            if not account.credentials.is_read():
                account.drop()

    def _tell_of_failure(self, app_id: str, text: str) -> None:
        """Once, as long as it is the same and not forgotten among too many others."""
        about = {"account": self.settings.name, "app_id": app_id}
        tell(logging.ERROR, "%s", text, event="loader_failed", **about)

    def _ask(self, app_id: str) -> Settings:
        """What the loader says of an account.

        :raises WxJsApiError: it failed, or knows none.
        """
        loader = self._loader()
        settings: Settings | str
        try:
            with self._host.context():
                answer = None if loader is None else loader(app_id)
                if answer is None:
                    settings = ""
                elif isinstance(answer, Mapping):
                    settings = self.settings.of_account(app_id, answer)
                else:
                    settings = f"it must be a mapping or None, not {type(answer).__name__}."
        except Exception as error:
            settings = f"it raised {describe(error)}."
        finally:
            answer = None  # a traceback shows what its frames hold
        if not settings:
            unknown = UnknownAccount(app_id)
            self._refuse(app_id, unknown, _UNKNOWN_FOR)
            raise unknown
        if isinstance(settings, str):
            raise WxJsApiError(f"The account_loader failed for {app_id}: {settings}")
        return settings

    def _refuse(self, app_id: str, error: WxJsApiError, seconds: float) -> None:
        """Remember an answer for some seconds, and not too many of them."""
        self._refused.pop(app_id, None)
        self._refused[app_id] = (self._monotonic() + seconds, error)
        while len(self._refused) > _MOST_REFUSED:
            self._refused.pop(next(iter(self._refused)), None)
