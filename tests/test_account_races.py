"""Accounts that come at run time, where several things happen at once or in the wrong order."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_wxjsapi import TicketUnavailable, UnknownAccount, WxJsApi, WxJsApiError
from flask_wxjsapi.sandbox import Sandbox

from .conftest import PATIENT, FakeClock, Valkey, threads_of, wait_until
from .processes import at_once
from .test_account_loader import GONE, ONE, SECRETS, TWO, Platform

pytestmark = pytest.mark.usefixtures("patient")

URL = "http://localhost/"
#: For those who wait until the test lets them go on.
PATIENTLY = {"WXJSAPI_REFRESH_TIMEOUT": 120}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox(ticket="new")
    for app_id, secret in SECRETS.items():
        sandbox.add_account(app_id, secret)
    with sandbox.serve():
        yield sandbox


@pytest.fixture
def clock() -> FakeClock:
    """It begins at the time that WeChat has."""
    return FakeClock(time.time())


def redis_of(valkey: Valkey) -> dict[str, Any]:
    return {
        "CACHE_TYPE": "RedisCache",
        "CACHE_REDIS_URL": valkey.url,
        "CACHE_OPTIONS": PATIENT,
    }


def account_of(platform: Platform, app_id: str) -> Any:
    return platform.wxjsapi._accounts_of(platform.app).at_hand[app_id]


# -- one comes while it goes -----------------------------------------------------------------------


def test_the_end_of_an_account_is_not_that_of_the_one_that_came_after_it(sandbox: Sandbox) -> None:
    """It was dropped and is wanted again, and then somebody has done with the first."""
    platform = Platform(sandbox)
    platform.ticket(ONE)
    first = account_of(platform, ONE)
    first.drop()
    platform.ticket(ONE)
    second = account_of(platform, ONE)
    assert second is not first
    first.drop()
    assert account_of(platform, ONE) is second


def test_an_account_may_go_in_the_moment_in_which_it_came(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody's refresh() finds it removed while another waits for the loader."""
    platform = Platform(sandbox)
    runtime = platform.app.extensions["wxjsapi.engine"].runtime()
    load = runtime.load

    def load_and_lose(*args: Any) -> None:
        load(*args)
        account_of(platform, ONE).drop()

    monkeypatch.setattr(runtime, "load", load_and_lose)
    with pytest.raises(UnknownAccount):
        platform.ticket(ONE)


def test_a_removed_account_ends_with_all_its_tickets(sandbox: Sandbox, valkey: Valkey) -> None:
    """Also with those that only another process reads."""
    redis = redis_of(valkey)
    here, there = (Platform(sandbox, WXJSAPI_SYNC_INTERVAL=0.1, **redis) for _ in range(2))
    card = lambda: there.wxjsapi.account(ONE).card_ticket  # noqa: E731
    here.ticket(ONE)
    with there.app.app_context():
        assert card()
        del here.rows[ONE], there.rows[ONE]
        with pytest.raises(UnknownAccount):
            here.refresh(ONE)

        def is_unknown() -> bool:
            try:
                return not card()
            except UnknownAccount:
                return True

        wait_until(is_unknown)
    assert sandbox.calls == {"stable_token": 1, "getticket": 2}


def test_an_account_that_is_added_again_gets_a_ticket_of_its_own(
    sandbox: Sandbox, valkey: Valkey
) -> None:
    """What was withdrawn in the store does not come back, in no process."""
    redis = redis_of(valkey)
    here, there = (Platform(sandbox, WXJSAPI_SYNC_INTERVAL=0.1, **redis) for _ in range(2))
    old = here.ticket(ONE)
    assert there.ticket(ONE) == old
    row = here.rows.pop(ONE)
    with pytest.raises(UnknownAccount):
        here.refresh(ONE)
    here.rows[ONE] = row
    here.wxjsapi._accounts_of(here.app)._refused.clear()  # ten seconds later
    new = here.ticket(ONE)
    assert new != old
    wait_until(lambda: there.ticket(ONE) == new)
    # WeChat names the same token again, which was withdrawn here and lives on there.
    assert sandbox.calls == {"stable_token": 2, "getticket": 2}


# -- one within another ----------------------------------------------------------------------------


def test_a_loader_that_wants_an_account_is_told_so(sandbox: Sandbox) -> None:
    """Its own would wait for itself; one that is at hand is no matter."""
    platform = Platform(sandbox)
    load = platform.load

    def nested(app_id: str) -> Mapping[str, Any] | None:
        with_ticket_of = {ONE: ONE, TWO: GONE}[app_id]
        assert platform.wxjsapi.account(with_ticket_of).ticket
        return load(app_id)

    platform.wxjsapi.account_loader(nested)
    for app_id in (ONE, TWO):
        assert "it raised TicketUnavailable" in platform.cause(app_id)


def test_a_loader_may_ask_for_what_is_at_hand(sandbox: Sandbox) -> None:
    """A ticket that is valid costs nothing, wherever it is read."""
    platform = Platform(sandbox)
    platform.ticket(ONE)
    load = platform.load

    def nested(app_id: str) -> Mapping[str, Any] | None:
        assert platform.wxjsapi.account(ONE).ticket
        return load(app_id)

    platform.wxjsapi.account_loader(nested)
    assert platform.ticket(TWO)


@pytest.mark.parametrize("app_id", [None, 5, ["wx1"]])
def test_what_names_no_account_is_not_the_extensions_own(sandbox: Sandbox, app_id: Any) -> None:
    """``None`` from a column that is empty would sign with another account's ticket."""
    own = {"WXJSAPI_APP_ID": sandbox.app_id, "WXJSAPI_APP_SECRET": sandbox.app_secret}
    platform = Platform(sandbox, **own)
    with platform.app.app_context(), pytest.raises(RuntimeError, match="app_id must be a string"):
        platform.wxjsapi.account(app_id).config(url=URL)


# -- strangers -------------------------------------------------------------------------------------


def test_a_slow_loader_is_asked_for_strangers_as_often_as_a_fast_one(
    sandbox: Sandbox, clock: FakeClock
) -> None:
    """Those who come before it has answered the first have paid already."""
    platform = Platform(sandbox, clock=clock, WXJSAPI_URL_PREFIX="/wxjsapi", **PATIENTLY)
    may_answer, load, numbers = threading.Event(), platform.load, iter(range(1000, 2000))
    ended: list[int] = []

    def slow(app_id: str) -> Mapping[str, Any] | None:
        answer = load(app_id)
        may_answer.wait(60)
        return answer

    def ask() -> None:
        ended.append(platform.get(url=URL, app_id=f"wx{next(numbers):016x}").status_code)

    platform.wxjsapi.account_loader(slow)
    crowd = threading.Thread(target=at_once, args=(40, ask))
    crowd.start()
    try:
        wait_until(lambda: len(ended) == 30 and len(platform.asked) == 10)
    finally:
        may_answer.set()
        crowd.join(60)
    assert sorted(ended) == [404] * 10 + [503] * 30


def test_a_loader_that_raises_for_what_is_not_there_is_no_way_round(
    sandbox: Sandbox, clock: FakeClock
) -> None:
    """``query.one()`` does, and costs the database as much."""
    platform = Platform(sandbox, clock=clock, WXJSAPI_URL_PREFIX="/wxjsapi")
    for number in range(1000, 1050):
        platform.rows[f"wx{number:016x}"] = KeyError("no row")
        platform.get(url=URL, app_id=f"wx{number:016x}")
    assert len(platform.asked) == 10


def test_a_crowd_that_asks_for_one_account_pays_once(sandbox: Sandbox, clock: FakeClock) -> None:
    """They share the answer, whatever it is; and what exists costs nothing."""
    platform = Platform(sandbox, clock=clock, WXJSAPI_URL_PREFIX="/wxjsapi", **PATIENTLY)
    may_answer, load = threading.Event(), platform.load
    accounts = platform.wxjsapi._accounts_of(platform.app)
    runtime = platform.app.extensions["wxjsapi.engine"].runtime()

    def slow(app_id: str) -> Mapping[str, Any] | None:
        may_answer.wait(60)
        return load(app_id)

    platform.wxjsapi.account_loader(slow)
    for app_id, left, status in ((GONE, 9, 404), (ONE, 9, 200)):
        may_answer.clear()
        answers: list[int] = []

        def ask(app_id: str = app_id, answers: list[int] = answers) -> None:
            answers.append(platform.get(url=URL, app_id=app_id).status_code)

        first = threading.Thread(target=ask)
        first.start()
        (loading,) = wait_until(lambda: [*runtime._loadings.values()])
        crowd = threading.Thread(target=at_once, args=(30, ask))
        crowd.start()
        # One that came after the answer would pay for a question of its own.
        wait_until(lambda cond=loading.done._cond: len(cond._waiters) == 31, 60, "all wait")
        may_answer.set()
        first.join(60)
        crowd.join(60)
        assert answers == [status] * 31
        assert accounts._budget == left
    assert platform.asked.count(GONE) == 1


# -- what fails is told ----------------------------------------------------------------------------


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if getattr(record, "wxjsapi", {}).get("event") == "loader_failed"
    ]


def test_the_log_has_a_loader_that_fails_once(
    sandbox: Sandbox, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """With account and key and without the secret; again when it is something else."""
    platform = Platform(sandbox, clock=clock)
    platform.rows[ONE] = {"APP_SECRET": "two words"}
    for _ in range(5):
        platform.cause(ONE)
        clock.advance(3)
    wait_until(lambda: lines(caplog))
    platform.rows[ONE] = OSError("text-with-a-secret")
    platform.cause(ONE)
    wait_until(lambda: len(lines(caplog)) == 2)
    first, second = lines(caplog)
    assert first.startswith(f"The account_loader failed for {ONE}: APP_SECRET must have no spaces")
    assert second.startswith(f"The account_loader failed for {ONE}: it raised OSError")
    assert "two words" not in caplog.text
    assert "text-with-a-secret" not in caplog.text


def test_the_log_has_a_loader_that_hangs(
    sandbox: Sandbox, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody asks it again meanwhile; others are served."""
    platform = Platform(sandbox, clock=clock)
    may_answer, load = threading.Event(), platform.load

    def hangs(app_id: str) -> Mapping[str, Any] | None:
        if app_id == ONE:
            platform.asked.append(app_id)
            may_answer.wait(60)
        return load(app_id)

    platform.wxjsapi.account_loader(hangs)
    runtime = platform.app.extensions["wxjsapi.engine"].runtime()
    with platform.app.app_context(), pytest.raises(TicketUnavailable):
        platform.wxjsapi._accounts_of(platform.app).find(ONE, 0.05)
    wait_until(lambda: platform.asked)
    for _ in range(5):
        clock.advance(15)
        assert platform.cause(ONE) == "The account_loader hangs."
    assert platform.asked == [ONE]
    assert platform.ticket(TWO)
    wait_until(lambda: lines(caplog) == [f"The account_loader hangs for {ONE}."])
    may_answer.set()
    wait_until(lambda: not runtime.threads.lost)
    assert platform.ticket(ONE)


# -- without the thread ----------------------------------------------------------------------------


def test_the_status_of_what_the_thread_does_not_keep_is_looked_up(
    sandbox: Sandbox, valkey: Valkey
) -> None:
    """An account that was refreshed here, say, and is read by other processes."""
    redis = redis_of(valkey)
    here, there = (Platform(sandbox, WXJSAPI_BACKGROUND_REFRESH=True, **redis) for _ in range(2))
    try:
        here.refresh(ONE)
        here.wxjsapi._accounts_of(here.app).at_hand[ONE].credentials.holding.limited.clear()
        account_of(here, ONE).credentials.session().drop_note("refresh.jsapi_ticket")
        there.refresh(ONE)
        with here.app.app_context():
            assert here.wxjsapi.account(ONE).status().refreshed_by == "another process"
    finally:
        for platform in (here, there):
            platform.wxjsapi.close(platform.app)


def test_an_extension_that_was_closed_serves_on_without_a_thread(sandbox: Sandbox) -> None:
    """Those it has met, and those it meets then; until start()."""
    platform = Platform(sandbox, WXJSAPI_BACKGROUND_REFRESH=True)
    platform.ticket(ONE)
    platform.wxjsapi.close(platform.app)
    wait_until(lambda: not threads_of(platform.app))
    assert platform.ticket(ONE)
    assert platform.ticket(TWO)
    assert not threads_of(platform.app)
    platform.wxjsapi.start(platform.app)
    account_of(platform, TWO).credentials.holding.snapshot().end = 0  # a moment later
    assert platform.ticket(TWO)
    assert len(threads_of(platform.app)) == 1
    platform.wxjsapi.close(platform.app)


def test_one_extension_that_closes_leaves_the_other_its_thread(sandbox: Sandbox) -> None:
    """Both have a loader, and know the same account."""
    background = {"WXJSAPI_BACKGROUND_REFRESH": True, "SHOP_WXJSAPI_BACKGROUND_REFRESH": True}
    platform = Platform(sandbox, SHOP_WXJSAPI_API_BASE_URL=sandbox.url, **background)
    shop = WxJsApi(name="shop")
    shop.account_loader(platform.load)
    shop.init_app(platform.app)
    with platform.app.app_context():
        assert shop.account(ONE).ticket == platform.wxjsapi.account(ONE).ticket
    assert sandbox.calls == {"stable_token": 1, "getticket": 1}
    runtime = platform.app.extensions["wxjsapi.engine"].runtime()
    assert len(runtime._kept) == 2
    platform.wxjsapi.close(platform.app)
    assert {holding.name for holding, _ in runtime._kept} == {"shop"}
    assert len(threads_of(platform.app)) == 1
    shop.close(platform.app)
    wait_until(lambda: not threads_of(platform.app))


# -- forked ----------------------------------------------------------------------------------------


def _tell(platform: Platform, pipe: Any) -> None:
    pipe.send([platform.ticket(app_id) for app_id in SECRETS])


@pytest.mark.processes
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_child_that_is_forked_between_question_and_answer_asks_for_itself(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """What its parent has learnt it knows, and it waits for no thread that it does not have."""
    files = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path / "cache")}
    platform = Platform(sandbox, **files, **PATIENTLY)
    may_answer, load, parent = threading.Event(), platform.load, os.getpid()

    def load_late(app_id: str) -> Mapping[str, Any] | None:
        if app_id == TWO and os.getpid() == parent:
            platform.asked.append(app_id)
            may_answer.wait(60)
        return load(app_id)

    platform.wxjsapi.account_loader(load_late)
    tickets = [platform.ticket(ONE)]
    reader = threading.Thread(target=lambda: tickets.append(platform.ticket(TWO)))
    reader.start()
    wait_until(lambda: TWO in platform.asked)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_tell, args=(platform, theirs))
    child.start()
    assert ours.poll(60)
    childs = ours.recv()
    child.join(60)
    may_answer.set()
    reader.join(60)
    assert childs == tickets
    assert sandbox.calls == {"stable_token": 2, "getticket": 2}


def test_accounts_of_a_loader_keep_no_app(sandbox: Sandbox) -> None:
    """Nor does their loader."""

    def make() -> weakref.ref[Flask]:
        app = Flask("goes")
        app.config.update(WXJSAPI_API_BASE_URL=sandbox.url, WXJSAPI_BACKGROUND_REFRESH=True)
        wxjsapi = WxJsApi()

        def load(app_id: str) -> dict[str, str]:
            return {"APP_SECRET": SECRETS[app_id]}

        wxjsapi.account_loader(load)
        wxjsapi.init_app(app)
        with app.app_context():
            assert wxjsapi.account(ONE).ticket
        return weakref.ref(app)

    app = make()
    wait_until(lambda: (gc.collect(), app() is None)[1], what="the app is collected")


def test_a_renewal_after_its_app_has_gone_fails_quietly(sandbox: Sandbox) -> None:
    """The loader needs its context."""
    platform = Platform(sandbox)
    platform.ticket(ONE)
    account = account_of(platform, ONE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(platform.app, "app_context", _gone)
        with pytest.raises(WxJsApiError, match="it raised RuntimeError"):
            account.refresh()


def _gone() -> Callable[[], object]:
    raise RuntimeError("the app is gone")
