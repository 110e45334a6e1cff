"""One process's view of the store, and of both servers in it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any, TypeVar

from .._credential import ACCESS_TOKEN, Credential
from .._error_text import reason
from .cache import CacheServer
from .lease import Lease
from .server import TicketServer

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Store:
    """What one process knows of the shared store, and whether it answers.

    :param make_cache: called once, on first use, for the server that keeps tokens, notes and
        (without a custom server) tickets.
    :param make_tickets: the same for the user's own ticket server, if there is one.
    :param custom_name: what the log calls it.
    :param prefix: put before a kind or a name to make a key.
    :param shared: whole keys of the kinds that other accounts have too.
    :param lease_life: seconds.
    :param context: an application context for each call of the user's server.
    """

    def __init__(
        self,
        make_cache: Callable[[], CacheServer],
        make_tickets: Callable[[], TicketServer] | None,
        *,
        custom_name: str = "",
        prefix: str,
        shared: Mapping[str, str] = MappingProxyType({}),
        lease_life: float,
        context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.custom_name = custom_name
        self.prefix = prefix
        self._shared = shared
        self.lease_life = lease_life
        self.context = context
        self.has_custom_server = make_tickets is not None
        self._make: dict[str, Any] = {"cache": make_cache, "tickets": make_tickets}
        self._servers: dict[str, Any] = {}
        self._down: set[tuple[str, str]] = set()

    def key(self, name: str) -> str:
        """The key of a kind or of a note."""
        return self._shared.get(name, self.prefix + name)

    def server(self, part: str) -> Any:
        """The server behind ``"cache"`` or ``"tickets"``; two threads get the same one."""
        if part not in self._servers:
            self._servers.setdefault(part, self._make[part]())
        return self._servers[part]

    def report(self, part: str, use: str, error: Exception | None) -> None:
        """Log when a use of a part begins to fail and when it works again, and nothing between.

        Per use, since a store may well be readable and yet take no writes.
        """
        if (error is not None) == ((part, use) in self._down):
            return
        extra = {"event": "store_down" if error else "store_up", "store": part, "use": use}
        name = f"The {part} of {self.prefix}"
        if part == "tickets":
            name = f"The ticket server {self.custom_name}"
        if error is not None:
            self._down.add((part, use))
            logger.warning(
                "%s cannot be %s (%s). Pages go on with the ticket this process holds.",
                name,
                use,
                reason(error),
                extra={"wxjsapi": extra},
            )
        else:
            self._down.discard((part, use))
            logger.info("%s can be %s again.", name, use, extra={"wxjsapi": extra})


class StoreSession:
    """The store during one renewal: a part that failed is left alone for the rest of it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._failed: set[str] = set()
        self._lease: Lease | None = None

    def find(self, kind: str) -> Credential | None:
        """The stored credential; None also where the store does not answer."""

        def find(server: Any) -> Credential | None:
            found = server.find(self._store.key(kind))
            if found is None or isinstance(found, Credential):
                return found
            raise OSError(f"find() returned {type(found).__name__}, not a Credential")

        return self._attempt(self._part(kind), "read", find)

    def save(self, kind: str, credential: Credential) -> None:
        """Store a credential, unless a newer one is there."""
        stored = self.find(kind)
        if stored is None or credential.is_newer_than(stored):
            key = self._store.key(kind)
            self._attempt(self._part(kind), "written", lambda server: server.save(key, credential))

    def answers(self, kind: str) -> bool:
        """Whether the store has not failed in this renewal for a kind."""
        return self._part(kind) not in self._failed

    def is_sound(self, kind: str) -> bool:
        """Whether this renewal has the store for a kind, and the lease."""
        return self.answers(kind) and self._lease is not None

    def note(self, name: str) -> dict[str, Any]:
        """A note of the engine's, or an empty dict."""
        key = self._store.key(name)
        return self._attempt("cache", "read", lambda cache: cache.read(key)) or {}

    def put_note(self, name: str, note: dict[str, Any], life: float) -> None:
        """Keep a note for some seconds."""
        key = self._store.key(name)
        self._attempt("cache", "written", lambda cache: cache.write(key, note, life))

    def drop_note(self, name: str) -> None:
        key = self._store.key(name)
        self._attempt("cache", "written", lambda cache: cache.delete(key))

    @property
    def is_leased(self) -> bool:
        """Whether this renewal has the lease, or goes on without one where the store is down:
        there is no record to share then, and a lease would only make the processes queue for one
        fetch each.
        """
        return self._lease is not None or bool(self._failed)

    def take_lease(self) -> bool:
        """Try for the lease, without waiting; whether it :attr:`is_leased` then."""
        if not self.is_leased:
            try:
                lease = self._open_lease()
                if lease.acquire(blocking=False):
                    self._lease = lease
                    self._store.report("lease", "taken", None)
            except Exception as error:
                self._fail("lease", "taken", error)
        return self.is_leased

    def release_lease(self) -> None:
        """Give the lease back, once, whoever calls."""
        lease, self._lease = self._lease, None
        if lease is not None:
            try:
                lease.release()
            except Exception as error:
                if not self._failed:  # else it is the outage that the log has already
                    self._fail("lease", "released", error)
            else:
                self._store.report("lease", "released", None)

    def _open_lease(self) -> Lease:
        store = self._store
        key = store.key("lease")
        cache: CacheServer = store.server("cache")
        if not store.has_custom_server:
            return cache.lease(key, store.lease_life)
        lock = getattr(store.server("tickets"), "lock", None)
        own: Lease | None = lock(key) if lock is not None else None
        if own is not None:
            return own
        # The processes of this host share the user's server even where each has its own cache.
        return cache.host_lease(key) if cache.is_private else cache.lease(key, store.lease_life)

    def _part(self, kind: str) -> str:
        """A custom server keeps tickets only: one that ignores its key would mix them up."""
        return "tickets" if self._store.has_custom_server and kind != ACCESS_TOKEN else "cache"

    def _attempt(self, part: str, use: str, action: Callable[[Any], T]) -> T | None:
        if part in self._failed:
            return None
        try:
            # A context each, and so a database session each: one that lived through a whole
            # renewal would answer the second look with what it remembers of the first.
            with self._store.context() if part == "tickets" else nullcontext():
                result = action(self._store.server(part))
        except Exception as error:
            self._fail(part, use, error)
            return None
        self._store.report(part, use, None)
        return result

    def _fail(self, part: str, use: str, error: Exception) -> None:
        self._failed.add(part)
        self._store.report(part, use, error)
