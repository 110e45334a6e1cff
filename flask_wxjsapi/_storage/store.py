"""The store as one process sees it: the private cache and, beside it, perhaps a server of the
user's own for the tickets.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .._credential import ACCESS_TOKEN, Credential
from .._error_text import describe
from .._telling import Told, tell
from .lease import FileLease, Lease, LocalLease
from .server import TicketServer, tell_of_damage

if TYPE_CHECKING:
    from .cache import CacheServer  # with Flask-Caching, which comes with the first app

T = TypeVar("T")
S = TypeVar("S", bound=TicketServer)


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one account.

    :param prefix: what all keys of the account begin with; asked whenever a key is wanted, since
        that of an embedded sandbox is another one in each process.
    :param own: what the keys begin with, after that, which it does not share.
    :param shared: the kinds that it shares with others of the same prefix.
    """

    prefix: Callable[[], str]
    own: str = ""
    shared: frozenset[str] = frozenset()

    def of(self, name: str) -> str:
        """The key of a kind or of a note."""
        return self.prefix() + ("" if name in self.shared else self.own) + name


class Part(Generic[S]):
    """One server of the store: made on first use, and whether it answers.

    :param name: what the log calls it.
    :param role: what programs that read the log call it: ``"cache"`` or ``"tickets"``.
    :param make: makes it, connected where that happens at once.
    :param context: an application context for each use, where it is the user's.
    """

    def __init__(
        self,
        name: str,
        role: str,
        make: Callable[[], S],
        context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.name = name
        self.role = role
        self._make = make
        self._context = context
        self._server: list[S] = []
        self._failing: dict[str, str] = {}  # use -> what the log says
        self._damaged = Told()  # keys
        self._forgets: set[str] = set()

    @property
    def server(self) -> S:
        """The server; of two threads that come at once both get the first one."""
        if not self._server:
            self._server.append(self._make())
        return self._server[0]

    @property
    def made(self) -> S | None:
        """The server, if it has been made already. Runs no code of others."""
        return self._server[0] if self._server else None

    def use(self, use: str, action: Callable[[S], T]) -> T:
        """Do something with the server; the log has it when that begins to fail, once.

        :param use: ``"read"``, ``"written"`` or the like: a store may be readable and yet take no
            writes.
        :raises Exception: whatever the server raised.
        """
        try:
            # A context each, and so a database session each: one that lived through a whole
            # renewal would answer the second look with what it remembers of the first.
            with self._context():
                result = action(self.server)
        except Exception as error:
            self.report(use, error)
            raise
        self.report(use, None)
        return result

    def report(self, use: str, error: Exception | None) -> None:
        """Tell the log when a use begins to fail and when it works again, and nothing between."""
        facts = {"store": self.role, "use": use}
        if error is None:
            if self._failing.pop(use, None):
                tell(logging.INFO, "%s can be %s again.", self.name, use, event="store_up", **facts)
        elif use not in self._failing:
            problem = f"{self.name} cannot be {use} ({describe(error).rstrip('.')})."
            if self._failing.setdefault(use, problem) is problem:  # or another thread was first
                text = "%s Pages go on with the ticket this process holds."
                tell(logging.WARNING, text, problem, event="store_down", **facts)

    def problem(self, use: str) -> str | None:
        """Why it cannot be used like that, in the words of the log; None if it could be lately."""
        return self._failing.get(use)

    def checked(self, key: str, found: object, now: float) -> Credential | None:
        """What was found under a key, if it may be believed; else the log has it, once.

        :raises OSError: the user's server returned something else than it should.
        """
        if found is None:
            return None
        if not isinstance(found, Credential):
            raise OSError(f"find() returned {type(found).__name__}, not a Credential")
        if self._forgets and not found.generation:
            found = replace(found, generation=int(found.issued_at))
        problem = found.problem(now)
        if problem is None:
            self._damaged.forget(key)
            return found
        if self._damaged.is_first(key):
            tell_of_damage(key, problem)
        return None

    def compare(self, saved: Credential, found: Credential) -> None:
        """Notice a server that does not give back what was saved, and name it once.

        :param found: what it gave back for the same value.
        """
        lost = [
            name
            for name in ("issued_at", "expires_at", "generation")
            if abs(getattr(saved, name) - getattr(found, name)) > 1
        ]
        if lost and not self._forgets:
            tell(
                logging.WARNING,
                "%s does not give back what was saved: %s of a ticket came back changed. Processes "
                "may follow each other late; keep all fields of a Credential.",
                self.name,
                " and ".join(lost),
                event="server_forgets",
                fields=lost,
            )
        self._forgets.update(lost)


class Store:
    """One process's view of the store.

    :param cache: keeps tokens, notes and, without a server of the user's, tickets.
    :param tickets: the user's own server, if there is one.
    """

    def __init__(self, cache: Part[CacheServer], tickets: Part[TicketServer] | None = None) -> None:
        self.cache = cache
        self.tickets = tickets

    def keeps_in_cache(self, kind: str) -> bool:
        """A server of the user's keeps tickets only: one that ignores its key would mix them up."""
        return self.tickets is None or kind == ACCESS_TOKEN

    @property
    def is_private(self) -> bool:
        """Whether no other process sees what is kept here."""
        return self.tickets is None and self.cache.server.is_private

    @property
    def is_leased_by_host(self) -> bool:
        """Whether each host has a lease of its own, though all share the tickets."""
        # Asked by the schedule, in whatever thread: of what is there, and nothing is made for it.
        cache, tickets = self.cache.made, self.tickets and self.tickets.made
        if cache is None:
            return False
        if self.tickets is None:
            return not cache.is_private and not cache.has_common_lease
        own = getattr(type(tickets), "lock", TicketServer.lock)
        is_of_host = cache.is_on_disk or not cache.has_common_lease
        return tickets is not None and own is TicketServer.lock and is_of_host

    def problem(self, kind: str, use: str) -> str | None:
        """As :meth:`Part.problem`, of what keeps a kind."""
        part = self.cache if self.tickets is None or self.keeps_in_cache(kind) else self.tickets
        return part.problem(use)

    def prepare(self) -> None:
        """Make the cache, if nothing was needed of it so far.

        :raises Exception: it cannot be made.
        """
        self.cache.use("opened", lambda cache: cache)

    def find_many(self, wanted: Iterable[tuple[str, str]], now: float) -> dict[str, Credential]:
        """What is stored under many keys.

        :param wanted: pairs of a key and its kind.
        :param now: Unix time in seconds.
        :raises Exception: whatever a server raised; the log has it.
        """
        found: dict[str, Credential | None] = {}
        in_cache = []
        for key, kind in wanted:
            if self.tickets is None or self.keeps_in_cache(kind):
                in_cache.append(key)
            else:
                found[key] = _find_ticket(self.tickets, key, now)
        if in_cache:
            records = self.cache.use("read", lambda cache: cache.find_many(in_cache))
            found.update({key: self.cache.checked(key, records.get(key), now) for key in in_cache})
        return {key: credential for key, credential in found.items() if credential is not None}

    def compare(self, kind: str, saved: Credential, found: Credential) -> None:
        """As :meth:`Part.compare`, for the user's server."""
        if self.tickets is not None and not self.keeps_in_cache(kind):
            self.tickets.compare(saved, found)

    def lease(self, key: str, life: float) -> Lease:
        """The lease of an account, for the processes that share its store.

        :param life: seconds after which that of a dead holder is free.
        """
        cache = self.cache.server
        if self.tickets is None:
            return cache.lease(key, life)
        lock = getattr(self.tickets.server, "lock", None)
        own: Lease | None = lock(key) if lock is not None else None
        if own is not None:
            return own
        # The processes of this host share the user's server even where each has its own cache.
        return cache.host_lease(key) if cache.is_private else cache.lease(key, life)


def _find_ticket(tickets: Part[TicketServer], key: str, now: float) -> Credential | None:
    return tickets.use("read", lambda server: tickets.checked(key, server.find(key), now))


@dataclass(frozen=True, eq=False)
class Plan:
    """How to open the store of an account.

    :param cache_key: returns the same for accounts that share a cache, and with it its connections.
    :param tickets_key: the same for a server of the user's; None where there is none.
    """

    cache_key: Callable[[], Hashable]
    open_cache: Callable[[], CacheServer]
    cache_name: str = "The cache"
    tickets_key: Hashable = None
    open_tickets: Callable[[], TicketServer] | None = None
    tickets_name: str = ""
    context: Callable[[], AbstractContextManager[Any]] = nullcontext


class Stores:
    """The stores of one process: one connection pool for each set of settings, however many
    accounts have it.
    """

    def __init__(self) -> None:
        self._caches: dict[Hashable, Part[CacheServer]] = {}
        self._tickets: dict[Hashable, Part[TicketServer]] = {}
        self._stores: dict[Plan, Store] = {}
        # One for all accounts with the same parts, which are then looked up in one question.
        self._shared: dict[tuple[object, object], Store] = {}

    def of(self, plan: Plan) -> Store:
        """The store of an account; of two threads that come at once both get the same one."""
        store = self._stores.get(plan)
        return self._stores.setdefault(plan, self._opened(plan)) if store is None else store

    def _opened(self, plan: Plan) -> Store:
        made = Part(plan.cache_name, "cache", plan.open_cache)
        cache = self._caches.setdefault(plan.cache_key(), made)
        tickets: Part[TicketServer] | None = None
        if plan.open_tickets is not None:
            own = Part(plan.tickets_name, "tickets", plan.open_tickets, plan.context)
            tickets = self._tickets.setdefault(plan.tickets_key, own)
        return self._shared.setdefault((cache, tickets), Store(cache, tickets))


class StoreSession:
    """The store during one renewal: a part that failed is left alone for the rest of it.

    :param lease_life: seconds.
    :param now: the clock.
    """

    def __init__(
        self, store: Store, keys: Keys, lease_life: float, now: Callable[[], float]
    ) -> None:
        self._store = store
        self._keys = keys
        self._lease_life = lease_life
        self._now = now
        self._failed: set[str] = set()
        self._lease: Lease | None = None

    def find(self, kind: str) -> Credential | None:
        """The stored credential; None also where the store does not answer."""
        key = self._keys.of(kind)
        return self._attempt(
            self._part(kind),
            lambda: self._store.find_many([(key, kind)], self._now()).get(key),
        )

    def save(self, kind: str, credential: Credential) -> None:
        """Store a credential, unless a newer one is there."""
        stored = self.find(kind)
        if stored is None or credential.is_newer_than(stored):
            part, key = self._part(kind), self._keys.of(kind)
            self._attempt(part, lambda: self._save(part, key, credential))

    def _save(self, part: str, key: str, credential: Credential) -> None:
        if part == "cache":
            self._store.cache.use("written", lambda server: server.save(key, credential))
        elif self._store.tickets is not None:  # pragma: no branch - else there is no such part
            self._store.tickets.use("written", lambda server: server.save(key, credential))

    def answers(self, kind: str) -> bool:
        """Whether the store has not failed in this renewal for a kind."""
        return self._part(kind) not in self._failed

    def notes(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Some notes of the engine's; an empty dict for one that is not there."""
        keys = [self._keys.of(name) for name in names]
        found = self._attempt(
            "cache", lambda: self._store.cache.use("read", lambda cache: cache.read_many(keys))
        )
        return [(found or {}).get(key, {}) for key in keys]

    def put_note(self, name: str, note: dict[str, Any], life: float) -> None:
        """Keep a note for some seconds."""
        key, cache = self._keys.of(name), self._store.cache
        self._attempt("cache", lambda: cache.use("written", lambda c: c.write(key, note, life)))

    def replace_damaged(self, name: str) -> None:
        """Remove a note that is none of ours, whoever put it there; the log has it."""
        key = self._keys.of(name)
        tell(
            logging.WARNING,
            "The record under %s is damaged (it is no back-off of ours); it is removed.",
            key,
            event="record_damaged",
            key=key,
        )
        self.drop_note(name)

    def drop_note(self, name: str) -> None:
        key, cache = self._keys.of(name), self._store.cache
        self._attempt("cache", lambda: cache.use("written", lambda c: c.delete(key)))

    # -- the lease -----------------------------------------------------------------------------

    @property
    def has_lease(self) -> bool:
        return self._lease is not None

    @property
    def has_lease_of_host(self) -> bool:
        """Whether it is one that has no life of its own, and that can be given back at once."""
        return isinstance(self._lease, (FileLease, LocalLease))

    @property
    def needs_no_lease(self) -> bool:
        """Whether a part of the store is down: there is no record to share then, and a lease would
        only make the processes queue for one fetch each.
        """
        return bool(self._failed)

    def take_lease(self) -> bool:
        """Try for the lease, without waiting; whether this renewal may go on."""
        if self.has_lease or self.needs_no_lease:
            return True
        try:
            lease = self._store.lease(self._keys.of("lease"), self._lease_life)
            if lease.acquire(blocking=False):
                self._lease = lease
                self._store.cache.report("leased", None)
        except Exception as error:
            self._failed.add("lease")
            self._store.cache.report("leased", error)
        return self.has_lease or self.needs_no_lease

    def release_lease(self) -> None:
        """Give the lease back, once, whoever calls."""
        lease, self._lease = self._lease, None
        if lease is None:
            return
        try:
            lease.release()
        except Exception as error:
            if not self._failed:  # else it is the outage that the log has already
                self._store.cache.report("released from a lease", error)
        else:
            self._store.cache.report("released from a lease", None)

    def _part(self, kind: str) -> str:
        return "cache" if self._store.keeps_in_cache(kind) else "tickets"

    def _attempt(self, part: str, action: Callable[[], T]) -> T | None:
        if part in self._failed:
            return None
        try:
            return action()
        except Exception:  # the log has it
            self._failed.add(part)
            return None
