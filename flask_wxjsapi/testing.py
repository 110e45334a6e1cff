"""An opt-in pytest plugin: a WeChat to test against, and a contract for custom ticket servers.

Name it in the top-level ``conftest.py``::

    pytest_plugins = ["flask_wxjsapi.testing"]

A test of an app then asks for ``wechat_sandbox``::

    def test_page(wechat_sandbox):
        app = create_app(
            WXJSAPI_APP_ID=wechat_sandbox.app_id,
            WXJSAPI_APP_SECRET=wechat_sandbox.app_secret,
            WXJSAPI_API_BASE_URL=wechat_sandbox.url,
        )
        assert app.test_client().get("/").status_code == 200
        assert wechat_sandbox.calls["getticket"] == 1

It plays as many accounts as are added, also while the app runs. An app that finds its accounts in a
database is tested by adding them to both::

    wechat_sandbox.add_account("wx0123456789abcdef", "the-AppSecret")
    wechat_sandbox.reset_secret("wx0123456789abcdef", "another")
    wechat_sandbox.remove_account("wx0123456789abcdef")

and one that gets its tokens from a third-party platform by ``add_component()`` and ``authorise()``.

A ticket server of one's own goes through :class:`TicketServerContract`.
"""
# ruff: noqa: S101 - a contract is made of asserts

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pytest
from flask import Flask

from ._credential import Credential
from ._storage.lease import Lease
from ._storage.server import TicketServer
from .sandbox import Sandbox

__all__ = ["TicketServerContract", "wechat_sandbox"]

T = TypeVar("T")

_KEY = "wxjsapi:{api.weixin.qq.com/wx0123}:jsapi_ticket"
_NOW = 1_800_000_000  # Unix time; later than any test runs
#: Eighths of a second take three decimals and have an exact binary form.
_TICKET = Credential("ticket-1", _NOW + 0.125, _NOW + 7200.625, 41)
_LATER = Credential("later-2", _NOW + 7000.375, _NOW + 14200.875, 42)
_WRITERS = 8
_ROUNDS = 5
_START = 60.0  # seconds for some threads to come together
_PATIENCE = 30.0  # seconds until a lock that should not wait is said to wait


@pytest.fixture
def wechat_sandbox() -> Iterator[Sandbox]:
    """A :class:`~flask_wxjsapi.sandbox.Sandbox` on a port of its own, for one test."""
    with Sandbox().serve() as sandbox:
        yield sandbox


class TicketServerContract:
    """What a custom ticket server must do.

    Derive from it in a suite of your own::

        class TestMyServer(TicketServerContract):
            @pytest.fixture
            def server(self):
                return MyServer(...)  # fresh or emptied

            @pytest.fixture
            def app(self):  # only for a server that needs an application context
                return create_app(...)

    The tests of ``lock()`` are skipped where there is none. A credential's fifth field, ``first``,
    may be left out and is not tested.
    """

    @pytest.fixture
    def server(self) -> TicketServer:
        """The server under test, with nothing in it."""
        raise NotImplementedError("Override the fixture server() to return your ticket server.")

    @pytest.fixture
    def app(self) -> Flask | None:
        """The app whose context is pushed around each call, if the server needs one."""
        return None

    @pytest.fixture
    def subject(self, server: TicketServer, app: Flask | None) -> _Subject:
        return _Subject(server, app)

    def test_nothing_saved_is_none(self, subject: _Subject) -> None:
        found = subject.find(_KEY)
        assert found is None, (
            "find() returned a credential under a key that nothing was saved under: return None, "
            "and let the fixture server() empty what it hands out."
        )

    def test_all_four_fields_come_back(self, subject: _Subject) -> None:
        subject.save(_KEY, _TICKET)
        _check_same(subject.find(_KEY), _TICKET)

    def test_save_replaces_the_whole_record(self, subject: _Subject) -> None:
        subject.save(_KEY, _TICKET)
        subject.save(_KEY, _LATER)
        _check_same(subject.find(_KEY), _LATER)

    def test_keys_do_not_mix(self, subject: _Subject) -> None:
        saved = {
            f"wxjsapi:{{host/{account}}}:{kind}": replace(_TICKET, value=f"{account}-{kind}")
            for account in ("wx1", "wx2")
            for kind in ("jsapi_ticket", "wx_card")
        }
        for key, credential in saved.items():
            subject.save(key, credential)
        for key, credential in saved.items():
            found = subject.find(key)
            assert found is None or found.value == credential.value, (
                "find() returned what was saved under another key: keep one record a key."
            )
            _check_same(found, credential)

    def test_expired_ticket_is_returned(self, subject: _Subject) -> None:
        expired = Credential("expired-1", 1_000_000_000.125, 1_000_007_200.625, 7)
        subject.save(_KEY, expired)
        found = subject.find(_KEY)
        assert found is not None, (
            "find() returned None for a ticket that has expired: return it all the same, since "
            "its generation is needed and whoever asks looks at expires_at."
        )
        _check_same(found, expired)

    def test_long_value_survives(self, subject: _Subject) -> None:
        long = replace(_TICKET, value=("aZ09-_" * 100)[:512])
        subject.save(_KEY, long)
        _check_same(subject.find(_KEY), long)

    def test_long_keys_survive(self, subject: _Subject) -> None:
        key, twin = "k" * 199 + "1", "k" * 199 + "2"
        subject.save(key, _TICKET)
        assert subject.find(twin) is None, (
            "find() took two keys of 200 characters for the same one: keep all 200 characters."
        )
        _check_same(subject.find(key), _TICKET)

    def test_key_with_punctuation_survives(self, subject: _Subject) -> None:
        plain = _KEY.translate(str.maketrans("", "", ":{}/"))
        subject.save(_KEY, _TICKET)
        assert subject.find(plain) is None, (
            "find() passed over the punctuation of a key: use the key as it is, or escape it."
        )
        _check_same(subject.find(_KEY), _TICKET)

    def test_large_generation_survives(self, subject: _Subject) -> None:
        large = replace(_TICKET, generation=2**40 + 1)
        subject.save(_KEY, large)
        _check_same(subject.find(_KEY), large)

    def test_another_thread_finds_it(self, subject: _Subject) -> None:
        """So does another application context, which every thread brings along."""
        subject.save(_KEY, _TICKET)
        _check_same(_elsewhere(lambda: subject.find(_KEY)), _TICKET)

    def test_found_again_is_up_to_date(self, subject: _Subject) -> None:
        """A renewal reads twice in one thread: before it takes the lock and after."""
        subject.save(_KEY, _TICKET)
        subject.find(_KEY)
        _elsewhere(lambda: subject.save(_KEY, _LATER))
        found = subject.find(_KEY)
        assert found is None or found.value != _TICKET.value, (
            "find() returned from memory what another thread has replaced meanwhile: read from "
            "the store each time (with an ORM: in a session of its own for each call)."
        )
        _check_same(found, _LATER)

    def test_concurrent_saves_leave_one_whole_record(self, subject: _Subject) -> None:
        saved = [
            Credential(f"writer-{n}", _NOW + n, _NOW + 7200 + n, _NOW + n) for n in range(_WRITERS)
        ]
        together = threading.Barrier(_WRITERS)

        def write(key: str, credential: Credential) -> None:
            together.wait(_START)
            subject.save(key, credential)

        with ThreadPoolExecutor(_WRITERS) as pool:
            for key in (f"{_KEY}.{n}" for n in range(_ROUNDS)):
                list(pool.map(write, [key] * _WRITERS, saved))
                found = subject.find(key)
                assert any(_difference(found, one) is None for one in saved), (
                    "find() returned none of the records that several threads had saved at the "
                    "same moment, but a mixture or nothing: write all four fields at once, in one "
                    "record or one transaction."
                )

    def test_lock_is_not_given_twice(self, subject: _Subject) -> None:
        with subject.held_lock():
            assert not _elsewhere(subject.is_lock_free), (
                "lock() gave the same key to a second holder: acquire(blocking=False) must return "
                "False as long as another one has it."
            )

    def test_lock_is_free_after_release(self, subject: _Subject) -> None:
        with subject.held_lock() as lock:
            lock.release()
            assert _elsewhere(subject.is_lock_free), (
                "lock() gave a key to nobody after its holder's release(): set it free there."
            )

    def test_lock_is_released_by_its_holder_only(self, subject: _Subject) -> None:
        with subject.held_lock():
            _elsewhere(subject.release_without_holding)
            assert not _elsewhere(subject.is_lock_free), (
                "release() freed a lock that another one holds: compare a token of the holder's "
                "own before you delete anything."
            )


@dataclass
class _Subject:
    """A server, called as the extension calls it: in an application context, if there is an app."""

    server: TicketServer
    app: Flask | None

    def context(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.app is None else self.app.app_context()

    def find(self, key: str) -> Credential | None:
        with self.context():
            return _find(self.server, key)

    def save(self, key: str, credential: Credential) -> None:
        with self.context():
            try:
                self.server.save(key, credential)
            except Exception as error:
                raise AssertionError(
                    f"save() raised {type(error).__name__}: it must keep any credential under "
                    "any key, also while others save (insert or update, or else try again)."
                ) from error

    def lock(self) -> Lease:
        make = getattr(self.server, "lock", None)
        lock: Lease | None = make(_KEY) if make is not None else None
        if lock is None:
            pytest.skip("this server has no lock() of its own")
        return lock

    @contextmanager
    def held_lock(self) -> Iterator[Lease]:
        """Hold the server's lock, in one context from beginning to end, as a renewal does."""
        with self.context():
            lock = self.lock()
            assert lock.acquire(blocking=False), (
                "lock() did not give a key that nobody holds: acquire(blocking=False) must return "
                "True then."
            )
            try:
                yield lock
            finally:
                with suppress(Exception):  # a test may have released it
                    lock.release()

    def is_lock_free(self) -> bool:
        """Whether somebody else gets the lock; it is given back at once."""
        with self.context():
            lock = self.lock()
            is_free = lock.acquire(blocking=False)
            if is_free:
                lock.release()
        return is_free

    def release_without_holding(self) -> None:
        with self.context():
            lock = self.lock()
            if not lock.acquire(blocking=False):
                with suppress(Exception):  # an error is as good an answer as none
                    lock.release()


def _find(server: TicketServer, key: str) -> Credential | None:
    try:
        found: object = server.find(key)
    except Exception as error:
        raise AssertionError(
            f"find() raised {type(error).__name__}: return the credential that was saved under "
            "the key, or None if there is none."
        ) from error
    assert found is None or isinstance(found, Credential), (
        f"find() returned {type(found).__name__}: return a flask_wxjsapi.Credential, made from "
        "the four fields that were saved, or None."
    )
    return found


def _check_same(found: Credential | None, saved: Credential) -> None:
    difference = _difference(found, saved)
    assert difference is None, difference


def _difference(found: Credential | None, saved: Credential) -> str | None:
    """What a server did to a credential, in a sentence for its author; None if nothing."""
    if found is None:
        return (
            "find() returned None for a credential that save() was given: when save() returns it "
            "must be there for every thread and application context (in a database: committed)."
        )
    if len(found.value) < len(saved.value):
        return (
            f"find() returned {len(found.value)} of the {len(saved.value)} characters of value: "
            "make room for 512."
        )
    if found.value != saved.value:
        return "find() returned another value than the last one saved: replace it with each save()."
    for name in ("issued_at", "expires_at"):
        was, now = getattr(saved, name), getattr(found, name)
        if abs(now - was) > 0.0005:
            return (
                f"find() returned {now!r} for the {name} {was!r}: keep what save() was given, to "
                "the millisecond at least (a float of 8 bytes, DOUBLE)."
            )
    if found.generation != saved.generation:
        return (
            f"find() returned {found.generation} for the generation {saved.generation}: keep it "
            "as an integer of 64 bits (BIGINT)."
        )
    return None


def _elsewhere(call: Callable[[], T]) -> T:
    """Call something in another thread, and so in another application context."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    # A daemon, and not a pool's: a call that never ends must not hold up the whole suite.
    threading.Thread(target=run, daemon=True).start()
    try:
        return outcome.result(_PATIENCE)
    except TimeoutError:
        raise AssertionError(
            f"A call did not return within {_PATIENCE:g} s in another thread: "
            "acquire(blocking=False) must not wait, and find() and save() must not wait for it."
        ) from None
