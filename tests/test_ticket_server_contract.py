"""The contract for custom ticket servers: good ones pass it, broken ones are told what is wrong."""

from __future__ import annotations

import importlib
import inspect
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, current_app
from sqlalchemy import Engine, event

from flask_wxjsapi import Credential, TicketServer
from flask_wxjsapi._storage.cache import CacheServer, CacheSettings
from flask_wxjsapi._storage.lease import FileLease, Lease
from flask_wxjsapi.testing import _WRITERS, TicketServerContract, _Subject

from .conftest import Valkey

pytest_plugins = ["pytester"]

EXAMPLES = Path(__file__).parent.parent / "examples"


def open_cache(**config: Any) -> CacheServer:
    return CacheSettings(config, {}).open(Flask("tests"))


# -- servers that keep it ----------------------------------------------------------------------


class TestMemory(TicketServerContract):
    @pytest.fixture
    def server(self) -> CacheServer:
        return open_cache(CACHE_TYPE="SimpleCache")


class TestFiles(TicketServerContract):
    @pytest.fixture
    def server(self, tmp_path: Path) -> CacheServer:
        return open_cache(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path))


class TestRedis(TicketServerContract):
    @pytest.fixture
    def server(self, valkey: Valkey) -> CacheServer:
        return open_cache(CACHE_TYPE="RedisCache", CACHE_REDIS_URL=valkey.url)


@pytest.fixture
def custom_server(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of examples/custom_server, imported afresh."""
    monkeypatch.syspath_prepend(EXAMPLES)
    yield importlib.import_module("custom_server")
    for name in ("custom_server", "custom_server.ticket_server"):
        sys.modules.pop(name, None)


@pytest.fixture
def example_app(custom_server: Any, tmp_path: Path) -> Iterator[Flask]:
    """The example's app, on a database of its own."""
    uri = f"sqlite:///{tmp_path}/tickets.db?timeout=10"
    app = custom_server.create_app({"TESTING": True, "SQLALCHEMY_DATABASE_URI": uri})
    yield app
    with app.app_context():
        custom_server.db.engine.dispose()


class TestExample(TicketServerContract):
    @pytest.fixture
    def server(self, custom_server: Any) -> TicketServer:
        server: TicketServer = custom_server.DatabaseTicketServer()
        return server

    @pytest.fixture
    def app(self, example_app: Flask) -> Flask:
        return example_app


def test_example_page_takes_its_ticket_from_the_database(
    custom_server: Any, example_app: Flask
) -> None:
    """The example's page is signed, and the ticket is in the table under one key."""
    with example_app.app_context():
        ticket = custom_server.wxjsapi.refresh()
        (row,) = custom_server.db.session.query(custom_server.ticket_server.Ticket).all()
        assert row.key.endswith("/wx0123456789abcdef}:jsapi_ticket")
        assert row.value == ticket
    page = example_app.test_client().get("/").text
    assert "It is fresh" in page
    assert "wx.config({" in page


def test_example_workers_can_start_at_once(custom_server: Any, tmp_path: Path) -> None:
    """A worker comes up although another one makes the table just before it does."""
    path = tmp_path / "tickets.db"
    overtaken = []

    def overtake(conn: Any, cursor: Any, statement: str, *args: Any) -> None:
        if statement.lstrip().startswith("CREATE TABLE") and not overtaken:
            overtaken.append(statement)
            with closing(sqlite3.connect(path)) as other_worker:
                other_worker.execute(statement)

    event.listen(Engine, "before_cursor_execute", overtake)
    try:
        app = custom_server.create_app(
            {"TESTING": True, "SQLALCHEMY_DATABASE_URI": f"sqlite:///{path}"}
        )
    finally:
        event.remove(Engine, "before_cursor_execute", overtake)
    assert overtaken
    with app.app_context():
        assert custom_server.DatabaseTicketServer().find("key") is None
        custom_server.db.engine.dispose()


# -- servers that break it ---------------------------------------------------------------------


class Dictionary(TicketServer):
    """A server that keeps the contract, for others to break."""

    def __init__(self) -> None:
        self.records: dict[str, Credential] = {}

    def find(self, key: str) -> Credential | None:
        return self.records.get(key)

    def save(self, key: str, credential: Credential) -> None:
        self.records[key] = credential


class DropsGeneration(Dictionary):
    def save(self, key: str, credential: Credential) -> None:
        super().save(key, replace(credential, generation=0))


class MixesKeys(Dictionary):
    def find(self, key: str) -> Credential | None:
        return super().find("the ticket")

    def save(self, key: str, credential: Credential) -> None:
        super().save("the ticket", credential)


class ReturnsDict(Dictionary):
    def find(self, key: str) -> Any:
        found = super().find(key)
        return None if found is None else found.to_dict()


class TruncatesValue(Dictionary):
    def save(self, key: str, credential: Credential) -> None:
        super().save(key, replace(credential, value=credential.value[:255]))


class TruncatesKey(Dictionary):
    def find(self, key: str) -> Credential | None:
        return super().find(key[:190])

    def save(self, key: str, credential: Credential) -> None:
        super().save(key[:190], credential)


PUNCTUATION = str.maketrans("", "", ":{}/")


class StripsKey(Dictionary):
    def find(self, key: str) -> Credential | None:
        return super().find(key.translate(PUNCTUATION))

    def save(self, key: str, credential: Credential) -> None:
        super().save(key.translate(PUNCTUATION), credential)


class RoundsTimes(Dictionary):
    def save(self, key: str, credential: Credential) -> None:
        times: dict[str, Any] = {
            name: int(getattr(credential, name)) for name in ("issued_at", "expires_at")
        }
        super().save(key, replace(credential, **times))


class KeepsOnlyValue(Dictionary):
    def find(self, key: str) -> Credential | None:
        found = super().find(key)
        return found and Credential(found.value, 1_800_000_000.0, 1_800_007_200.0)


class HidesExpired(Dictionary):
    def find(self, key: str) -> Credential | None:
        found = super().find(key)
        return found if found and found.expires_at > 1_700_000_000 else None


class RaisesOnUnknownKey(Dictionary):
    def find(self, key: str) -> Credential | None:
        return self.records[key]


class NarrowGeneration(Dictionary):
    def save(self, key: str, credential: Credential) -> None:
        super().save(key, replace(credential, generation=credential.generation % 2**32))


class InsertsOnly(Dictionary):
    def save(self, key: str, credential: Credential) -> None:
        if key in self.records:
            raise KeyError(key)
        super().save(key, credential)


class KeepsTheFirst(Dictionary):
    def save(self, key: str, credential: Credential) -> None:
        self.records.setdefault(key, credential)


class PerThread(Dictionary):
    """Saves what only its own thread can see, as a transaction that nobody commits."""

    def __init__(self) -> None:
        self._local = threading.local()

    @property
    def records(self) -> dict[str, Credential]:  # type: ignore[override]
        records: dict[str, Credential] = self._local.__dict__
        return records


class RemembersForItsThread(Dictionary):
    """Answers from memory what a thread has read before, as the session of an ORM does."""

    def __init__(self) -> None:
        super().__init__()
        self._local = threading.local()

    def find(self, key: str) -> Credential | None:
        return self._local.__dict__.setdefault(key, super().find(key))

    def save(self, key: str, credential: Credential) -> None:
        super().save(key, credential)
        self._local.__dict__.pop(key, None)


class TearsRecords(Dictionary):
    """Writes value and times one after the other; several threads at once get them crossed."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, str] = {}
        self._all_wrote = threading.Barrier(_WRITERS)
        self._last_is_done = threading.Event()

    def find(self, key: str) -> Credential | None:
        found = super().find(key)
        return found and replace(found, value=self.values[key])

    def save(self, key: str, credential: Credential) -> None:
        self.values[key] = credential.value
        if credential.value.startswith("writer-"):
            self._all_wrote.wait(10)
            if self.values[key] == credential.value:  # of the last one the times are written first
                super().save(key, credential)
                self._last_is_done.set()
            assert self._last_is_done.wait(10)
            if self.values[key] == credential.value:
                return
        super().save(key, credential)


def complaints(server_class: type[TicketServer], app: Flask | None = None) -> dict[str, str]:
    """What each test of the contract says of a server, by the test's name; only the failures."""
    found = {}
    contract = TicketServerContract()
    for name, test in inspect.getmembers(contract, inspect.ismethod):
        if name.startswith("test_"):
            try:
                test(_Subject(server_class(), app))
            except AssertionError as error:
                found[name.removeprefix("test_")] = str(error).partition("\n")[0]
            except pytest.skip.Exception:
                pass
    return found


def test_a_server_that_keeps_the_contract_is_let_be() -> None:
    """No complaint without a reason."""
    assert complaints(Dictionary) == {}


BROKEN: list[tuple[type[TicketServer], str, str]] = [
    (DropsGeneration, "all_four_fields_come_back", "returned 0 for the generation 41"),
    (MixesKeys, "keys_do_not_mix", "what was saved under another key"),
    (ReturnsDict, "all_four_fields_come_back", "find() returned dict: return a flask_wxjsapi"),
    (TruncatesValue, "long_value_survives", "255 of the 512 characters"),
    (TruncatesKey, "long_keys_survive", "keep all 200 characters"),
    (StripsKey, "key_with_punctuation_survives", "use the key as it is"),
    (RoundsTimes, "all_four_fields_come_back", "for the issued_at 1800000000.125: keep"),
    (KeepsOnlyValue, "all_four_fields_come_back", "for the issued_at 1800000000.125: keep"),
    (HidesExpired, "expired_ticket_is_returned", "None for a ticket that has expired"),
    (RaisesOnUnknownKey, "nothing_saved_is_none", "raised KeyError: return the credential"),
    (NarrowGeneration, "large_generation_survives", "for the generation 1099511627777: keep"),
    (InsertsOnly, "save_replaces_the_whole_record", "save() raised KeyError: it must keep"),
    (KeepsTheFirst, "save_replaces_the_whole_record", "another value than the last one"),
    (PerThread, "another_thread_finds_it", "returned None for a credential that save()"),
    (RemembersForItsThread, "found_again_is_up_to_date", "from memory"),
    (TearsRecords, "concurrent_saves_leave_one_whole_record", "a mixture or nothing"),
]


@pytest.mark.parametrize(("server_class", "test", "reason"), BROKEN)
def test_broken_server_is_told_why(
    server_class: type[TicketServer], test: str, reason: str
) -> None:
    """The test of that behaviour fails with a sentence that names it."""
    assert reason in complaints(server_class).get(test, "no complaint")


@pytest.mark.parametrize(
    ("server_class", "test"),
    [
        (TruncatesValue, "long_value_survives"),
        (HidesExpired, "expired_ticket_is_returned"),
        (NarrowGeneration, "large_generation_survives"),
        (TruncatesKey, "long_keys_survive"),
        (StripsKey, "key_with_punctuation_survives"),
        (RemembersForItsThread, "found_again_is_up_to_date"),
        (TearsRecords, "concurrent_saves_leave_one_whole_record"),
    ],
)
def test_one_defect_is_one_failure(server_class: type[TicketServer], test: str) -> None:
    """A defect that one test is there for does not make others fail with another reason."""
    assert list(complaints(server_class)) == [test]


def test_every_complaint_is_one_sentence() -> None:
    """Each message is one line that ends with a full stop, whichever server is broken."""
    messages = {
        text for server, _, _ in BROKEN + BROKEN_LOCKS for text in complaints(server).values()
    }
    assert len(messages) > 15
    assert [text for text in messages if not text.endswith(".")] == []


# -- locks -------------------------------------------------------------------------------------


@dataclass(eq=False)
class Lock:
    """A lock that keeps the contract, for others to break."""

    holders: dict[str, Lock]
    key: str

    def acquire(self, blocking: bool = False) -> bool:
        return self.holders.setdefault(self.key, self) is self

    def release(self) -> None:
        if self.holders.get(self.key) is self:
            del self.holders[self.key]


class GivenTwice(Lock):
    def acquire(self, blocking: bool = False) -> bool:
        return True


class NeverGiven(Lock):
    def acquire(self, blocking: bool = False) -> bool:
        return False


class NeverFreed(Lock):
    def release(self) -> None:
        pass


class FreedByAnybody(Lock):
    def release(self) -> None:
        self.holders.pop(self.key, None)


class HasLock(Dictionary):
    lock_class = Lock

    def __init__(self) -> None:
        super().__init__()
        self.holders: dict[str, Lock] = {}

    def lock(self, key: str) -> Lock:
        return self.lock_class(self.holders, key)


def with_lock(lock_class: type[Lock]) -> type[TicketServer]:
    return type("HasLock", (HasLock,), {"lock_class": lock_class})


def test_good_lock_is_let_be() -> None:
    """No complaint about a lock that one holder has at a time."""
    assert complaints(HasLock) == {}


def test_file_lease_keeps_the_contract_of_locks(tmp_path: Path) -> None:
    """The lease that a host gives passes as a server's own lock."""

    class FileLock(Dictionary):
        def lock(self, key: str) -> Lease:
            return FileLease(tmp_path / "lock")

    assert complaints(FileLock) == {}


BROKEN_LOCKS: list[tuple[type[TicketServer], str, str]] = [
    (with_lock(GivenTwice), "lock_is_not_given_twice", "same key to a second holder"),
    (with_lock(NeverGiven), "lock_is_not_given_twice", "a key that nobody holds"),
    (with_lock(NeverFreed), "lock_is_free_after_release", "to nobody after its holder's release"),
    (with_lock(FreedByAnybody), "lock_is_released_by_its_holder_only", "another one holds"),
]


@pytest.mark.parametrize(("server_class", "test", "reason"), BROKEN_LOCKS)
def test_broken_lock_is_told_why(server_class: type[TicketServer], test: str, reason: str) -> None:
    """The test of that behaviour fails with a sentence that names it."""
    assert reason in complaints(server_class).get(test, "no complaint")


def test_lock_that_waits_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that waits although blocking is False does not hold up the suite for ever."""
    may_go_on = threading.Event()

    class Waits(Lock):
        def acquire(self, blocking: bool = False) -> bool:
            return super().acquire() or may_go_on.wait()

    monkeypatch.setattr("flask_wxjsapi.testing._PATIENCE", 0.05)
    try:
        assert "must not wait" in complaints(with_lock(Waits))["lock_is_not_given_twice"]
    finally:
        may_go_on.set()


# -- the context and the plugin ----------------------------------------------------------------


def test_each_call_has_an_app_context() -> None:
    """With an app every call of the server, in whatever thread, sees that app."""
    app = Flask("tests")
    seen: set[object] = set()

    class Looks(HasLock):
        def find(self, key: str) -> Credential | None:
            seen.add(current_app._get_current_object())  # type: ignore[attr-defined]
            return super().find(key)

        def save(self, key: str, credential: Credential) -> None:
            seen.add(current_app._get_current_object())  # type: ignore[attr-defined]
            super().save(key, credential)

        def lock(self, key: str) -> Lock:
            seen.add(current_app._get_current_object())  # type: ignore[attr-defined]
            return super().lock(key)

    assert complaints(Looks, app) == {}
    assert seen == {app}


def test_uncommitted_save_is_noticed_without_threads() -> None:
    """Two calls in one thread have a context each, so that what ends with one is not found."""
    app = Flask("tests")

    class EndsWithContext(Dictionary):
        def find(self, key: str) -> Credential | None:
            return getattr(current_app, "saved", {}).get((key, id(self)))

        def save(self, key: str, credential: Credential) -> None:
            current_app.saved = {(key, id(self)): credential}  # type: ignore[attr-defined]

    @app.teardown_appcontext
    def forget(error: BaseException | None) -> None:
        app.saved = {}  # type: ignore[attr-defined]

    message = complaints(EndsWithContext, app)["all_four_fields_come_back"]
    assert "every thread and application context" in message


def test_plugin_is_opt_in_and_works_for_users(pytester: pytest.Pytester) -> None:
    """A project that names the plugin gets the fixture, the contract and its sentences."""
    pytester.makeconftest('pytest_plugins = ["flask_wxjsapi.testing"]')
    pytester.makepyfile(
        """
        import pytest, requests
        from flask_wxjsapi import TicketServer
        from flask_wxjsapi.testing import TicketServerContract

        class Server(TicketServer):
            def __init__(self):
                self.records = {}
            def find(self, key):
                return self.records.get(key)
            def save(self, key, credential):
                self.records[key] = credential

        class Broken(Server):
            def find(self, key):
                return self.records[key]

        class TestGood(TicketServerContract):
            @pytest.fixture
            def server(self):
                return Server()

        class TestBroken(TicketServerContract):
            @pytest.fixture
            def server(self):
                return Broken()

        def test_sandbox(wechat_sandbox):
            requests.get(wechat_sandbox.url + "/cgi-bin/token")
            assert wechat_sandbox.calls["token"] == 1
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    tests = [name for name in dir(TicketServerContract) if name.startswith("test_")]
    locks = [name for name in tests if "lock_is" in name]
    unknown = ["nothing_saved_is_none", "long_keys", "key_with_punctuation"]
    result.assert_outcomes(
        passed=2 * (len(tests) - len(locks)) + 1 - len(unknown),
        skipped=2 * len(locks),
        failed=len(unknown),
    )
    result.stdout.fnmatch_lines(["*AssertionError: find() raised KeyError: return the credential*"])


def test_sandbox_is_closed_after_the_test(pytester: pytest.Pytester) -> None:
    """The next test gets a sandbox of its own, and the one before does not listen any more."""
    pytester.makeconftest('pytest_plugins = ["flask_wxjsapi.testing"]')
    pytester.makepyfile(
        """
        before = []

        def test_one(wechat_sandbox):
            assert wechat_sandbox.url
            before.append(wechat_sandbox)

        def test_two(wechat_sandbox):
            assert before[0] is not wechat_sandbox
            assert before[0].url == ""
        """
    )
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)


def test_without_the_fixture_a_sentence_says_what_is_missing(pytester: pytest.Pytester) -> None:
    """A subclass that forgets its server is told to write one."""
    pytester.makepyfile(
        """
        from flask_wxjsapi.testing import TicketServerContract

        class TestNothing(TicketServerContract):
            pass
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(["*NotImplementedError: Override the fixture server()*"])
