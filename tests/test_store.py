"""The store as one process sees it: its parts, one renewal's session with it, and who shares it."""

from __future__ import annotations

import errno
import logging
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_wxjsapi._credential import (
    ACCESS_TOKEN,
    AGENT_TICKET,
    CARD_TICKET,
    JSAPI_TICKET,
    Credential,
)
from flask_wxjsapi._storage.cache import CacheServer, CacheSettings
from flask_wxjsapi._storage.lease import Lease
from flask_wxjsapi._storage.server import TicketServer
from flask_wxjsapi._storage.store import Keys, Part, Plan, Store, Stores, StoreSession

from .caches import KEY, LOGGER, NEWER, NOW, PREFIX, TICKET, logged
from .conftest import Valkey, free_port

pytestmark = pytest.mark.usefixtures("own_temporary_directory")

KEYS = Keys(lambda: PREFIX)


def session_of(store: Store, keys: Keys = KEYS) -> StoreSession:
    """The store during one renewal."""
    return StoreSession(store, keys, 15, lambda: NOW)


def store_of(
    cache: Callable[[], CacheServer], tickets: Callable[[], Any] | None = None, **options: Any
) -> Store:
    """A store whose servers are made by functions."""
    if tickets is None:
        return Store(Part("The cache", "cache", cache))
    name = "The ticket server Tickets"
    return Store(Part("The cache", "cache", cache), Part(name, "tickets", tickets, **options))


# -- the store during one renewal --------------------------------------------------------------


class Tickets(TicketServer):
    """A custom server that can be broken, and remembers what it was asked."""

    def __init__(self) -> None:
        self.records: dict[str, Credential] = {}
        self.error: Exception | None = None
        self.calls: list[tuple[str, str]] = []
        self.own_lock: Lease | None = None

    def _called(self, name: str, key: str) -> None:
        self.calls.append((name, key))
        if self.error is not None:
            raise self.error

    def find(self, key: str) -> Credential | None:
        self._called("find", key)
        return self.records.get(key)

    def save(self, key: str, credential: Credential) -> None:
        self._called("save", key)
        self.records[key] = credential

    def lock(self, key: str) -> Lease | None:
        self._called("lock", key)
        return self.own_lock


class WatchedCache(CacheServer):
    """The cache in memory; it can be broken, and remembers what it was asked."""

    def __init__(self) -> None:
        app = Flask("tests")
        super().__init__(CacheSettings({"CACHE_TYPE": "SimpleCache"}, {}).open(app)._backend)
        self.error: Exception | None = None
        self.lease_error: Exception | None = None
        self.calls: list[tuple[str, str]] = []

    def _called(self, name: str, key: str, error: Exception | None) -> None:
        self.calls.append((name, key))
        if error is not None:
            raise error

    def read_many(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        for key in keys:
            self._called("read", key, self.error)
        return super().read_many(keys)

    def write(self, key: str, value: dict[str, Any], life: float) -> None:
        self._called("write", key, self.error)
        super().write(key, value, life)

    def delete(self, key: str) -> None:
        self._called("delete", key, self.error)
        super().delete(key)

    def lease(self, key: str, life: float) -> Lease:
        self._called("lease", key, self.lease_error)
        return super().lease(key, life)

    def host_lease(self, key: str) -> Lease:
        self._called("host_lease", key, self.lease_error)
        return super().host_lease(key)


@pytest.fixture
def cache() -> WatchedCache:
    return WatchedCache()


@pytest.fixture
def tickets() -> Tickets:
    return Tickets()


@pytest.fixture
def store(cache: WatchedCache) -> Store:
    """A store without a custom server."""
    return store_of(lambda: cache)


@pytest.fixture
def custom_store(cache: WatchedCache, tickets: Tickets) -> Store:
    """A store with a custom server for the tickets."""
    return store_of(lambda: cache, lambda: tickets)


def use_everything(session: StoreSession, kind: str) -> None:
    """All that a renewal does with the store but for the lease."""
    session.find(kind)
    session.save(kind, TICKET)
    session.notes(["backoff"])
    session.put_note("backoff", {"failures": 1}, 60)
    session.drop_note("backoff")


def test_session_finds_what_another_one_saved(store: Store) -> None:
    """Records of two kinds and a note, each under its own key."""
    session = session_of(store)
    session.save(JSAPI_TICKET, TICKET)
    session.save(ACCESS_TOKEN, NEWER)
    session.put_note("backoff", {"failures": 1}, 60)
    other = session_of(store)
    assert other.find(JSAPI_TICKET) == TICKET
    assert other.find(ACCESS_TOKEN) == NEWER
    assert other.notes(["backoff", "other"]) == [{"failures": 1}, {}]
    other.drop_note("backoff")
    assert other.notes(["backoff"]) == [{}]


@pytest.mark.parametrize("note", ["[1, 2]", "7", "garbage", '"text"', "true"])
def test_damaged_note_is_an_empty_one(note: str, store: Store, cache: WatchedCache) -> None:
    """The engine gets an object to look into, whatever lies there."""
    cache._backend.set(KEY, note)
    session = session_of(store)
    assert session.notes([JSAPI_TICKET]) == [{}]
    session.put_note(JSAPI_TICKET, {"failures": 1}, 60)
    assert session.notes([JSAPI_TICKET]) == [{"failures": 1}]


def test_part_that_failed_is_left_alone_in_the_session(store: Store, cache: WatchedCache) -> None:
    """A store that is down costs a renewal one call."""
    cache.error = OSError("down")
    session = session_of(store)
    assert session.find(JSAPI_TICKET) is None
    use_everything(session, JSAPI_TICKET)
    use_everything(session, ACCESS_TOKEN)
    assert len(cache.calls) == 1
    assert not session.answers(JSAPI_TICKET)


@pytest.mark.parametrize(
    "first",
    [
        lambda session: session.save(JSAPI_TICKET, TICKET),
        lambda session: session.notes(["backoff"]),
        lambda session: session.put_note("backoff", {}, 60),
        lambda session: session.drop_note("backoff"),
    ],
    ids=["save", "note", "put_note", "drop_note"],
)
def test_any_failure_ends_the_use_of_a_part(
    first: Callable[[StoreSession], object], store: Store, cache: WatchedCache
) -> None:
    """Whichever call fails first, it raises nothing and is the last one."""
    cache.error = OSError("down")
    session = session_of(store)
    first(session)
    use_everything(session, JSAPI_TICKET)
    assert len(cache.calls) == 1


def test_next_session_tries_again(store: Store, cache: WatchedCache) -> None:
    """A failure is forgotten with the renewal it happened in."""
    cache.error = OSError("down")
    session_of(store).find(JSAPI_TICKET)
    cache.error = None
    session = session_of(store)
    session.save(JSAPI_TICKET, TICKET)
    assert session.find(JSAPI_TICKET) == TICKET
    assert session.answers(JSAPI_TICKET)


def test_custom_server_that_failed_leaves_the_cache_in_use(
    custom_store: Store, tickets: Tickets
) -> None:
    """The parts go down one by one."""
    tickets.error = OSError("down")
    session = session_of(custom_store)
    use_everything(session, JSAPI_TICKET)
    session.save(ACCESS_TOKEN, NEWER)
    assert session.find(ACCESS_TOKEN) == NEWER
    assert (session.answers(JSAPI_TICKET), session.answers(ACCESS_TOKEN)) == (False, True)
    assert len(tickets.calls) == 1


def test_cache_that_failed_leaves_the_custom_server_in_use(
    custom_store: Store, cache: WatchedCache
) -> None:
    """A ticket is still saved when the cache for the token is down."""
    cache.error = OSError("down")
    session = session_of(custom_store)
    session.find(ACCESS_TOKEN)
    session.save(JSAPI_TICKET, TICKET)
    assert session.find(JSAPI_TICKET) == TICKET


def test_two_threads_that_find_it_down_together_are_one_line(
    store: Store,
    cache: WatchedCache,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A renewal and the look of the background thread, say."""
    both = threading.Barrier(2)

    def describe(error: Exception) -> str:
        both.wait(30)
        return str(error)

    monkeypatch.setattr("flask_wxjsapi._storage.store.describe", describe)
    cache.error = OSError("down")
    find = lambda: session_of(store).find(JSAPI_TICKET)  # noqa: E731
    threads = [threading.Thread(target=find) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert logged(caplog) == [
        "The cache cannot be read (down). Pages go on with the ticket this process holds."
    ]


def test_store_that_goes_down_is_logged_once(
    store: Store, cache: WatchedCache, caplog: pytest.LogCaptureFixture
) -> None:
    """One line when it goes, one when it is back, none in between."""
    caplog.set_level(logging.INFO)
    session_of(store).find(JSAPI_TICKET)
    assert logged(caplog) == []
    for _ in range(3):
        cache.error = OSError(errno.EHOSTUNREACH, "s3cret")
        for _ in range(3):
            use_everything(session_of(store), JSAPI_TICKET)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        (line,) = logged(caplog)
        assert f"cannot be read (OSError: [Errno {errno.EHOSTUNREACH}] No route to host (" in line
        caplog.clear()
        cache.error = None
        for _ in range(3):
            use_everything(session_of(store), JSAPI_TICKET)
        assert [record.levelname for record in caplog.records] == ["INFO"]
        assert logged(caplog) == ["The cache can be read again."]
        caplog.clear()


def test_log_names_the_custom_server(
    custom_store: Store, tickets: Tickets, caplog: pytest.LogCaptureFixture
) -> None:
    """The user finds the class that failed, and a program the event."""
    tickets.error = RuntimeError("oops")
    session_of(custom_store).find(JSAPI_TICKET)
    (line,) = logged(caplog)
    assert line.startswith("The ticket server Tickets cannot be read (RuntimeError (")
    (record,) = caplog.records
    assert record.wxjsapi == {  # type: ignore[attr-defined]
        "event": "store_down",
        "store": "tickets",
        "use": "read",
    }


def test_log_names_the_custom_server_that_cannot_be_made(
    cache: WatchedCache, caplog: pytest.LogCaptureFixture
) -> None:
    """A class whose constructor fails is named as well."""

    class Unmakable(Tickets):
        def __init__(self) -> None:
            raise RuntimeError("no database")

    store = store_of(lambda: cache, Unmakable)
    assert session_of(store).find(JSAPI_TICKET) is None
    (line,) = logged(caplog)
    assert "NoneType" not in line


def test_log_quotes_nothing_of_a_custom_server(
    custom_store: Store, tickets: Tickets, caplog: pytest.LogCaptureFixture
) -> None:
    """A database error quotes the row it could not write, ticket and all."""
    tickets.error = ValueError("INSERT ... VALUES ('s3cret')")
    use_everything(session_of(custom_store), JSAPI_TICKET)
    assert len(logged(caplog)) == 1
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    ("stored", "saved", "kept"),
    [
        (TICKET, NEWER, NEWER),
        (NEWER, TICKET, NEWER),
        (TICKET, Credential("same-time", NOW, NOW + 7200, 5), TICKET),
        (TICKET, Credential("later", NOW + 2, NOW + 7200, 5), "later"),
        (Credential("unnumbered", NOW + 9, NOW + 7200), TICKET, TICKET),
    ],
    ids=["newer", "older", "older by time", "newer by time", "none before"],
)
@pytest.mark.parametrize("which", ["store", "custom_store"])
def test_save_overwrites_older_records_only(
    stored: Credential,
    saved: Credential,
    kept: Credential | str,
    which: str,
    request: pytest.FixtureRequest,
) -> None:
    """The generation decides, then the time; also on a custom server."""
    store = request.getfixturevalue(which)
    session_of(store).save(JSAPI_TICKET, stored)
    session_of(store).save(JSAPI_TICKET, saved)
    found = session_of(store).find(JSAPI_TICKET)
    assert found is not None
    assert kept in (found, found.value)


def test_custom_server_sees_tickets_only(
    custom_store: Store, tickets: Tickets, cache: WatchedCache
) -> None:
    """One that ignores its key must not be made to mix up ticket, token and notes."""
    session = session_of(custom_store)
    use_everything(session, ACCESS_TOKEN)
    use_everything(session, JSAPI_TICKET)
    for kind in (CARD_TICKET, AGENT_TICKET):
        use_everything(session, kind)
    assert session.take_lease()
    session.release_lease()
    kinds = (JSAPI_TICKET, CARD_TICKET, AGENT_TICKET)
    assert {key for name, key in tickets.calls if name != "lock"} == {
        PREFIX + kind for kind in kinds
    }
    assert not {PREFIX + kind for kind in kinds} & {key for _, key in cache.calls}
    assert PREFIX + ACCESS_TOKEN in {key for _, key in cache.calls}


def test_each_call_of_a_custom_server_has_a_context_of_its_own(
    cache: WatchedCache, tickets: Tickets
) -> None:
    """One for a whole renewal would keep what a database session remembers."""
    seen: list[str] = []

    @contextmanager
    def context() -> Iterator[None]:
        before = len(tickets.calls)
        yield
        seen.extend(name for name, _ in tickets.calls[before:])
        seen.append("left")

    store = store_of(lambda: cache, lambda: tickets, context=context)
    session = session_of(store)
    session.find(JSAPI_TICKET)
    session.save(JSAPI_TICKET, TICKET)
    use_everything(session, ACCESS_TOKEN)
    assert seen == ["find", "left", "find", "left", "save", "left"]


@pytest.mark.parametrize("wrong", ["ticket-1", TICKET.to_dict(), b"", 0, False, object()])
def test_find_of_a_wrong_type_counts_as_down(
    wrong: Any, custom_store: Store, tickets: Tickets, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that returns something else is not used further, and its class is named."""
    tickets.records[KEY] = wrong
    session = session_of(custom_store)
    assert session.find(JSAPI_TICKET) is None
    assert not session.answers(JSAPI_TICKET)
    session.save(JSAPI_TICKET, TICKET)
    assert tickets.records == {KEY: wrong}
    (line,) = logged(caplog)
    assert "The ticket server Tickets cannot be read (OSError: find() returned" in line


def test_find_of_a_wrong_type_is_logged_once(
    custom_store: Store, tickets: Tickets, caplog: pytest.LogCaptureFixture
) -> None:
    """As any other failure: not again with every look."""
    caplog.set_level(logging.INFO)
    tickets.records[KEY] = TICKET.to_dict()  # type: ignore[assignment]
    for _ in range(3):
        session_of(custom_store).find(JSAPI_TICKET)
    assert len(logged(caplog)) == 1


def test_servers_are_made_on_first_use_and_once(cache: WatchedCache, tickets: Tickets) -> None:
    """Nothing is opened where a store is made, and one object serves all sessions."""
    made: Counter[str] = Counter()

    def make(what: str, server: Any) -> Callable[[], Any]:
        return lambda: (made.update([what]), server)[1]

    store = store_of(make("cache", cache), make("tickets", tickets))
    assert made == {}
    for _ in range(2):
        use_everything(session_of(store), JSAPI_TICKET)
    assert made == {"cache": 1, "tickets": 1}


def test_two_threads_get_the_same_server() -> None:
    """Even when both come first and each makes one."""
    both = threading.Barrier(2)

    def make() -> WatchedCache:
        both.wait(30)
        return WatchedCache()

    store = store_of(make)
    seen: list[object] = []
    threads = [threading.Thread(target=lambda: seen.append(store.cache.server)) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [store.cache.server] * 2


# -- keys ----------------------------------------------------------------------------------------


def test_key_is_prefix_and_name() -> None:
    """The prefix is asked for each time: an embedded sandbox has another one after a fork."""
    prefixes = iter(["one:", "two:"])
    keys = Keys(lambda: next(prefixes))
    assert [keys.of("lease"), keys.of("lease")] == ["one:lease", "two:lease"]


def test_key_has_what_is_its_owners_unless_it_is_shared() -> None:
    """Two applications of a corp share its ticket, and nothing else."""
    keys = Keys(lambda: "corp:", "app:", frozenset({JSAPI_TICKET}))
    assert keys.of(JSAPI_TICKET) == f"corp:{JSAPI_TICKET}"
    assert keys.of(ACCESS_TOKEN) == f"corp:app:{ACCESS_TOKEN}"


# -- many at once --------------------------------------------------------------------------------

WANTED = [(PREFIX + kind, kind) for kind in (ACCESS_TOKEN, JSAPI_TICKET, CARD_TICKET)]


def test_many_are_found_at_once(store: Store, cache: WatchedCache) -> None:
    """What is not there is left out."""
    cache.save(PREFIX + ACCESS_TOKEN, NEWER)
    cache.save(KEY, TICKET)
    assert store.find_many(WANTED, NOW) == {PREFIX + ACCESS_TOKEN: NEWER, KEY: TICKET}


def test_many_are_found_in_both_parts(
    custom_store: Store, cache: WatchedCache, tickets: Tickets
) -> None:
    """The token in the cache, tickets where the user keeps them."""
    cache.save(PREFIX + ACCESS_TOKEN, NEWER)
    tickets.records[KEY] = TICKET
    assert custom_store.find_many(WANTED, NOW) == {PREFIX + ACCESS_TOKEN: NEWER, KEY: TICKET}


def test_many_without_a_token_leave_the_cache_alone(
    custom_store: Store, cache: WatchedCache
) -> None:
    """It costs no call to ask for nothing."""
    custom_store.find_many(WANTED[1:], NOW)
    assert cache.calls == []


@pytest.mark.parametrize("which", ["store", "custom_store"])
def test_many_of_a_store_that_is_down(
    which: str, cache: WatchedCache, tickets: Tickets, request: pytest.FixtureRequest
) -> None:
    """Whoever looks is told by an exception, and the log has it."""
    cache.error = tickets.error = OSError("down")
    with pytest.raises(OSError, match="down"):
        request.getfixturevalue(which).find_many(WANTED, NOW)


# -- what is stored is hostile once --------------------------------------------------------------

HOSTILE = [
    (Credential("t" * 1025, NOW, NOW + 7200, 5), "its value is too long"),
    (Credential("t", NOW, NOW + 8000, 5), "it lives too long"),
    (Credential("t", NOW + 90_000, NOW + 91_000, 5), "it was issued in the future"),
    (Credential("t", NOW, NOW + 7200, int(NOW) + 700_000), "its generation is too high"),
]


@pytest.mark.parametrize(("planted", "problem"), HOSTILE, ids=[problem for _, problem in HOSTILE])
@pytest.mark.parametrize("which", ["store", "custom_store"])
def test_record_out_of_bounds_is_absent(
    which: str,
    planted: Credential,
    problem: str,
    cache: WatchedCache,
    tickets: Tickets,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Or whoever can write there once would have all processes keep it for ever."""
    cache.save(KEY, planted)
    tickets.records[KEY] = planted
    session = session_of(request.getfixturevalue(which))
    assert session.find(JSAPI_TICKET) is None
    assert session.answers(JSAPI_TICKET)
    (line,) = logged(caplog)
    assert line.startswith(f"The record under {KEY} is damaged ({problem})")


def test_record_out_of_bounds_is_replaced(store: Store, cache: WatchedCache) -> None:
    """Though it says that it is the newest there will ever be."""
    cache.save(KEY, HOSTILE[-1][0])
    session_of(store).save(JSAPI_TICKET, TICKET)
    assert cache.find(KEY) == TICKET


def test_record_out_of_bounds_is_logged_once(
    store: Store, cache: WatchedCache, caplog: pytest.LogCaptureFixture
) -> None:
    """Not with every look."""
    cache.save(KEY, HOSTILE[0][0])
    for _ in range(3):
        session_of(store).find(JSAPI_TICKET)
    assert len(logged(caplog)) == 1


# -- a server of the user's that forgets -----------------------------------------------------------

FORGETS = {
    "generation": Credential(TICKET.value, TICKET.issued_at, TICKET.expires_at),
    "issued_at": Credential(TICKET.value, NOW - 5, TICKET.expires_at, 5),
    "issued_at and expires_at": Credential(TICKET.value, NOW - 5, NOW + 7000, 5),
}


@pytest.mark.parametrize(("what", "found"), FORGETS.items(), ids=FORGETS)
def test_server_that_forgets_is_named_once(
    what: str, found: Credential, custom_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """A column is missing, or a time is rounded to minutes."""
    for _ in range(2):
        custom_store.compare(JSAPI_TICKET, TICKET, found)
    (line,) = logged(caplog)
    assert line.startswith("The ticket server Tickets does not give back what was saved")
    assert f": {what} of a ticket" in line
    assert TICKET.value not in line


@pytest.mark.parametrize(
    ("which", "kind"), [("store", JSAPI_TICKET), ("custom_store", ACCESS_TOKEN)]
)
def test_cache_does_not_forget(
    which: str, kind: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """It keeps our own JSON; another record there is another process's."""
    request.getfixturevalue(which).compare(kind, TICKET, FORGETS["generation"])
    assert logged(caplog) == []


def test_time_rounded_to_seconds_is_not_forgotten(
    custom_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Many a database keeps no more, and it does no harm."""
    rounded = Credential(TICKET.value, int(TICKET.issued_at), int(TICKET.expires_at), 5)
    custom_store.compare(JSAPI_TICKET, TICKET, rounded)
    assert logged(caplog) == []


def test_server_without_generations_orders_by_time(custom_store: Store, tickets: Tickets) -> None:
    """Once that is known; else its newer records would count as the oldest."""
    tickets.records[KEY] = FORGETS["generation"]
    custom_store.compare(JSAPI_TICKET, TICKET, FORGETS["generation"])
    found = session_of(custom_store).find(JSAPI_TICKET)
    assert found is not None
    assert found.generation == int(TICKET.issued_at)


# -- what kind of store it is ----------------------------------------------------------------------


class Locked(Tickets):
    """A server that brings a lock."""


class Lockless(TicketServer):
    """One that brings none."""

    def find(self, key: str) -> Credential | None:
        return None

    def save(self, key: str, credential: Credential) -> None:
        raise NotImplementedError


class OneHost(WatchedCache):
    """A cache for processes of several hosts that has no lease for them, as memcached."""

    is_private = False


class Common(OneHost):
    """One with a lease that holds everywhere."""

    has_common_lease = True


@pytest.mark.parametrize(
    ("cache", "tickets", "is_private", "is_leased_by_host"),
    [
        (WatchedCache, None, True, False),
        (OneHost, None, False, True),
        (Common, None, False, False),
        (WatchedCache, Lockless, False, True),
        (OneHost, Lockless, False, True),
        (Common, Lockless, False, False),
        (WatchedCache, Locked, False, False),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_who_shares_it(
    cache: type[WatchedCache],
    tickets: type[TicketServer] | None,
    is_private: bool,
    is_leased_by_host: bool,
) -> None:
    """Nobody, the processes of one host under a lease of its own, or all under one lease."""
    store = store_of(cache, tickets)
    assert not store.is_leased_by_host  # nothing is made for the question
    store.prepare()
    if store.tickets is not None:
        assert store.tickets.server
    assert (store.is_private, store.is_leased_by_host) == (is_private, is_leased_by_host)


# -- the stores of a process -----------------------------------------------------------------------


def plan_of(cache_key: str, made: list[str], tickets_key: str | None = None) -> Plan:
    def make(key: str, server: Any) -> Any:
        made.append(key)
        return server

    return Plan(
        lambda: cache_key,
        lambda: make(cache_key, WatchedCache()),
        tickets_key=tickets_key,
        open_tickets=None if tickets_key is None else lambda: make(str(tickets_key), Tickets()),
    )


def test_accounts_with_the_same_settings_share_a_cache() -> None:
    """And with it its connections, however many they are."""
    made: list[str] = []
    stores = Stores()
    for _ in range(100):
        use_everything(session_of(stores.of(plan_of("redis", made))), JSAPI_TICKET)
    assert made == ["redis"]


def test_account_keeps_its_store() -> None:
    """What is known of it, such as that it is down, is not forgotten with each renewal."""
    stores, plan = Stores(), plan_of("redis", [])
    assert stores.of(plan) is stores.of(plan)


def test_accounts_with_other_settings_do_not() -> None:
    """Each set of settings is opened for itself."""
    made: list[str] = []
    stores = Stores()
    for key in ("redis", "files"):
        use_everything(session_of(stores.of(plan_of(key, made))), JSAPI_TICKET)
    assert made == ["redis", "files"]


def test_accounts_with_servers_of_their_own_share_the_cache() -> None:
    """One pool for the tokens; each server is made once."""
    made: list[str] = []
    stores = Stores()
    for tickets_key in ("one", "two", "one"):
        session = session_of(stores.of(plan_of("redis", made, tickets_key)))
        use_everything(session, JSAPI_TICKET)
    assert sorted(made) == ["one", "redis", "two"]


def test_outage_of_a_shared_store_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Not once for each of a thousand accounts."""
    stores = Stores()
    cache = WatchedCache()
    cache.error = OSError("down")
    for _ in range(3):
        session_of(stores.of(Plan(lambda: "redis", lambda: cache))).find(JSAPI_TICKET)
    assert len(logged(caplog)) == 1


# -- the lease of a session --------------------------------------------------------------------


def test_one_session_has_the_lease(store: Store) -> None:
    """The second one is turned away until the first gives it back."""
    first, second = session_of(store), session_of(store)
    assert first.take_lease()
    assert not second.take_lease()
    second.release_lease()  # which it does not have
    assert not session_of(store).take_lease()
    first.release_lease()
    assert second.take_lease()


def test_lease_is_given_back_once(store: Store) -> None:
    """A second release_lease() does not free the successor's."""
    first, second = session_of(store), session_of(store)
    assert first.take_lease()
    first.release_lease()
    assert second.take_lease()
    first.release_lease()
    assert not session_of(store).take_lease()


def test_store_that_is_down_needs_no_lease(store: Store, cache: WatchedCache) -> None:
    """There is no record to share then, and a lease would only make processes queue."""
    cache.error = OSError("down")
    first, second = session_of(store), session_of(store)
    for session in (first, second):
        session.find(JSAPI_TICKET)
        assert session.take_lease()
    assert [name for name, _ in cache.calls if "lease" in name] == []
    first.release_lease()


def test_lease_that_fails_is_done_without(
    store: Store, cache: WatchedCache, caplog: pytest.LogCaptureFixture
) -> None:
    """A process goes on for itself, and says so once."""
    caplog.set_level(logging.INFO)
    cache.lease_error = OSError(errno.EROFS, "s3cret")
    for _ in range(3):
        session = session_of(store)
        assert session.find(JSAPI_TICKET) is None
        assert session.take_lease()
        session.release_lease()
    (line,) = logged(caplog)
    assert "Read-only file system" in line
    cache.lease_error = None
    assert session_of(store).take_lease()
    assert logged(caplog)[1:] == ["The cache can be leased again."]


class OwnLock:
    """A lock of the user's that can refuse and fail."""

    def __init__(self, answer: bool = True, error: Exception | None = None) -> None:
        self.answer = answer
        self.error = error
        self.released = 0

    def acquire(self, blocking: bool = False) -> bool:
        assert blocking is False
        return self.answer

    def release(self) -> None:
        self.released += 1
        if self.error is not None:
            raise self.error


def test_lock_of_the_custom_server_is_the_lease(
    custom_store: Store, tickets: Tickets, cache: WatchedCache
) -> None:
    """A server that brings a lock is asked for it, and nobody else is."""
    tickets.own_lock = lock = OwnLock()
    session = session_of(custom_store)
    assert session.take_lease()
    assert lock.released == 0
    session.release_lease()
    assert lock.released == 1
    assert tickets.calls == [("lock", PREFIX + "lease")]
    assert cache.calls == []


def test_lock_of_the_custom_server_is_released_once(custom_store: Store, tickets: Tickets) -> None:
    """It may be anybody's by the second time."""
    tickets.own_lock = lock = OwnLock()
    session = session_of(custom_store)
    session.take_lease()
    session.release_lease()
    session.release_lease()
    assert lock.released == 1


def test_lock_of_the_custom_server_can_refuse(custom_store: Store, tickets: Tickets) -> None:
    """False means that another process is renewing."""
    tickets.own_lock = lock = OwnLock(answer=False)
    session = session_of(custom_store)
    assert not session.take_lease()
    session.release_lease()
    assert lock.released == 0


def test_lock_that_fails_on_release_raises_nothing(
    custom_store: Store, tickets: Tickets, caplog: pytest.LogCaptureFixture
) -> None:
    """The renewal is done by then; the failure is logged."""
    tickets.own_lock = OwnLock(error=RuntimeError("s3cret"))
    session = session_of(custom_store)
    assert session.take_lease()
    session.release_lease()
    (line,) = logged(caplog)
    assert "RuntimeError" in line
    assert "s3cret" not in line


def test_lock_that_fails_in_an_outage_is_no_second_line(
    custom_store: Store, tickets: Tickets, caplog: pytest.LogCaptureFixture
) -> None:
    """A database that went down in mid-renewal takes its lock along, and is logged once."""
    tickets.own_lock = lock = OwnLock(error=OSError("gone"))
    session = session_of(custom_store)
    assert session.take_lease()
    tickets.error = OSError("gone")
    assert session.find(JSAPI_TICKET) is None
    session.release_lease()
    assert lock.released == 1
    (line,) = logged(caplog)
    assert "cannot be read" in line


def test_server_without_lock_shares_one_on_this_host(
    custom_store: Store, cache: WatchedCache, own_temporary_directory: Path
) -> None:
    """Where each process has its own cache, the processes of a host share a file."""
    assert session_of(custom_store).take_lease()
    assert cache.calls == [("host_lease", PREFIX + "lease")]
    assert len(list(own_temporary_directory.iterdir())) == 1


def test_server_without_the_method_shares_one_on_this_host(cache: WatchedCache) -> None:
    """A class with find and save and nothing else will do."""

    class Bare:
        def find(self, key: str) -> None:
            return None

        def save(self, key: str, credential: Credential) -> None:
            raise NotImplementedError

    def make() -> Any:
        return Bare()

    store = store_of(lambda: cache, make)
    first = session_of(store)
    assert first.take_lease()
    assert not session_of(store).take_lease()


@pytest.mark.usefixtures("patient")
def test_server_without_lock_takes_that_of_a_shared_cache(
    valkey: Valkey, tickets: Tickets, open_cache: Callable[..., CacheServer]
) -> None:
    """With Redis beside it the lease holds for the whole cluster."""
    redis = open_cache(CACHE_TYPE="RedisCache", CACHE_REDIS_URL=valkey.url)
    store = store_of(lambda: redis, lambda: tickets)
    assert session_of(store).take_lease()
    with valkey.client() as client:
        assert client.keys() == [f"{PREFIX}lease".encode()]
        assert client.pttl(f"{PREFIX}lease") <= 15_000


# -- Redis that is down --------------------------------------------------------------------------


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The addresses that sockets of this process were connected to."""
    seen: list[object] = []
    connect = socket.socket.connect

    def watched(self: socket.socket, address: Any) -> None:
        seen.append(address)
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", watched)
    return seen


@pytest.mark.parametrize("by_url", [True, False], ids=["url", "host and port"])
def test_redis_that_is_down_costs_a_renewal_one_attempt(
    by_url: bool,
    attempts: list[object],
    open_cache: Callable[..., CacheServer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No retries in the client, and no second call in the session; the lease included."""
    port = free_port()
    place = (
        {"CACHE_REDIS_URL": f"redis://127.0.0.1:{port}/0"}
        if by_url
        else {"CACHE_REDIS_HOST": "127.0.0.1", "CACHE_REDIS_PORT": port}
    )
    server = open_cache(CACHE_TYPE="RedisCache", **place)
    store = store_of(lambda: server)
    session = session_of(store)
    use_everything(session, JSAPI_TICKET)
    use_everything(session, ACCESS_TOKEN)
    assert session.take_lease()
    session.release_lease()
    assert attempts == [("127.0.0.1", port)]
    (line,) = logged(caplog)
    assert "cannot be read (ConnectionError: " in line
    assert str(port) in line


def test_lease_on_a_redis_that_is_down_is_one_attempt(
    attempts: list[object], open_cache: Callable[..., CacheServer]
) -> None:
    """Also where the lease is the first to notice."""
    server = open_cache(CACHE_TYPE="RedisCache", CACHE_REDIS_PORT=free_port())
    session = session_of(store_of(lambda: server))
    assert session.take_lease()
    assert len(attempts) == 1


@pytest.mark.usefixtures("patient")
def test_redis_that_is_back_is_used_again(
    valkey: Valkey, open_cache: Callable[..., CacheServer], caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that broke is made anew by the next renewal."""
    caplog.set_level(logging.INFO, LOGGER)
    server = open_cache(CACHE_TYPE="RedisCache", CACHE_REDIS_URL=valkey.url)
    store = store_of(lambda: server)
    session_of(store).save(JSAPI_TICKET, TICKET)
    valkey.stop()
    session_of(store).find(JSAPI_TICKET)
    valkey.start()
    session = session_of(store)
    session.save(JSAPI_TICKET, NEWER)
    assert session.find(JSAPI_TICKET) == NEWER
    assert [line.partition("(")[0] for line in logged(caplog)] == [
        "The cache cannot be read ",
        "The cache can be read again.",
    ]
