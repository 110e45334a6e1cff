"""The engine on a fake clock: when it hands out, renews, waits and backs off."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import math
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_wxjsapi._credential import ACCESS_TOKEN, CARD_TICKET, JSAPI_TICKET, Credential
from flask_wxjsapi._engine import turns
from flask_wxjsapi._engine.purpose import CHECK, KEEP, NEED, Complaint, Purpose
from flask_wxjsapi._engine.renewal import Renewal
from flask_wxjsapi._storage.server import TicketServer
from flask_wxjsapi.errors import TicketUnavailable, TransportError, WeChatAPIError

from ..conftest import FakeClock, wait_until
from .cluster import DOWN, PREFIX, Cluster, FakeLease, FakeWeChat, Worker, says

pytestmark = pytest.mark.usefixtures("patient")


@pytest.fixture
def cluster(clock: FakeClock) -> Cluster:
    return Cluster(clock)


# -- handing out -------------------------------------------------------------------------------


def test_first_read_fetches_token_and_ticket_once(cluster: Cluster) -> None:
    """A cold process asks once for each and hands the ticket out."""
    worker = cluster.worker()
    assert [worker.ticket() for _ in range(3)] == ["jsapi_ticket-1"] * 3
    assert cluster.calls == (1, 1)


def test_second_process_takes_the_stored_ticket(cluster: Cluster) -> None:
    """A cold process in a warm cluster asks nobody."""
    first, second = cluster.workers(2)
    assert first.ticket() == second.ticket()
    assert cluster.calls == (1, 1)


def test_a_cold_reader_lets_the_ticket_be_saved(cluster: Cluster) -> None:
    """A script that ends right after its first read leaves the ticket and a free lease behind."""
    read = threading.Event()
    save = cluster.cache.save

    def save_late(key: str, credential: Credential) -> None:
        assert not read.wait(0.05), "the reader was gone before the ticket was saved"
        save(key, credential)

    cluster.cache.save = save_late  # type: ignore[method-assign]
    threads: list[threading.Thread] = []

    def spawn(name: str, target: Callable[[], None]) -> None:
        threads.append(threading.Thread(target=target))
        threads[-1].start()

    worker = cluster.worker(spawn=spawn)
    worker.ticket()
    read.set()
    assert cluster.stored() is not None
    assert cluster.lease[0] is None
    for thread in threads:
        thread.join()


def test_read_of_a_valid_ticket_touches_no_store(cluster: Cluster) -> None:
    """While the process holds a valid ticket, a read does not look at the store."""
    worker = cluster.worker()
    worker.ticket()
    cluster.take_down()
    broken = cluster.cache._backend
    cluster.clock.advance(7000 - 1)
    worker.ticket()
    cluster.clock.advance(150)  # STALE: the thread's business
    worker.ticket()
    assert broken.calls == 0


def test_stale_ticket_is_served_while_the_thread_renews(cluster: Cluster) -> None:
    """Past the refresh point readers go on with the old ticket."""
    worker = cluster.worker()
    worker.ticket()
    cluster.clock.advance(7000 + 1)
    assert worker.state == "stale"
    assert worker.ticket() == "jsapi_ticket-1"
    assert cluster.calls == (1, 1)
    worker.sync()
    assert worker.ticket() == "jsapi_ticket-2"
    assert cluster.calls == (2, 2)


def test_without_the_thread_a_caller_renews_a_stale_ticket(cluster: Cluster) -> None:
    """BACKGROUND_REFRESH off: one caller past the refresh point renews."""
    worker = cluster.worker()
    worker.has_thread = False
    worker.ticket()
    cluster.clock.advance(7001)
    assert worker.ticket() == "jsapi_ticket-2"


def test_without_the_thread_only_one_caller_waits(cluster: Cluster) -> None:
    """Callers that come during another caller's renewal get the old ticket at once."""
    worker = cluster.worker()
    worker.has_thread = False
    worker.ticket()
    cluster.clock.advance(7001)
    seen: list[str] = []
    cluster.upstream.meanwhile = lambda: seen.append(worker.ticket())
    assert worker.ticket() == "jsapi_ticket-2"
    assert seen == ["jsapi_ticket-1"]
    assert cluster.calls == (2, 2)


def test_a_failed_renewal_in_passing_still_serves_the_stale_ticket(cluster: Cluster) -> None:
    """Without the thread a failure past the refresh point is nobody's problem yet."""
    worker = cluster.worker()
    worker.has_thread = False
    worker.ticket()
    cluster.clock.advance(7001)
    cluster.upstream.always[ACCESS_TOKEN] = DOWN
    assert worker.ticket() == "jsapi_ticket-1"


def test_no_ticket_is_handed_out_in_the_margin(cluster: Cluster) -> None:
    """In the last ten seconds the ticket counts as gone."""
    worker = cluster.worker()
    worker.ticket()
    cluster.clock.advance(7200 - 11)
    assert worker.ticket() == "jsapi_ticket-1"
    cluster.clock.advance(2)
    assert worker.ticket() == "jsapi_ticket-2"


def test_the_access_token_is_kept_warm_once_it_was_read(cluster: Cluster) -> None:
    """The thread renews a token that this app uses, also when the ticket is not due."""
    worker = cluster.worker()
    worker.ticket()
    cluster.clock.advance(3000)
    cluster.upstream.is_dead.add("access_token-1")
    worker.provider.refresh()  # 40001: a new token, half way through the ticket's life
    worker.provider.get(ACCESS_TOKEN)
    cluster.clock.advance(100)
    worker.provider.refresh()  # the ticket alone, which is due later than the token then
    cluster.clock.advance(6901)
    worker.sync()
    assert cluster.calls == (3, 4)
    assert worker.provider.get(ACCESS_TOKEN).value == "access_token-3"


# -- three worlds of WeChat --------------------------------------------------------------------


def test_a_day_costs_thirteen_tickets(clock: FakeClock) -> None:
    """One worker for a day: 13 calls for tickets and as many for tokens, never an invalid one."""
    cluster = Cluster(clock)
    worker = cluster.worker()
    end = clock.now + 86400
    while clock.now < end:
        clock.advance(worker.sync())
        assert worker.state != "invalid"
    assert cluster.calls == (13, 13)


def test_a_kind_that_was_never_had_is_not_kept_warm(clock: FakeClock) -> None:
    """One page wants a ticket that the account may not have: the thread does not go on."""
    cluster = Cluster(clock)
    worker = cluster.worker()
    cluster.upstream.always[CARD_TICKET] = says(48001)
    with pytest.raises(TicketUnavailable):
        worker.provider.get(CARD_TICKET)
    end = clock.now + 86400
    while clock.now < end:
        clock.advance(worker.sync())
    assert cluster.upstream.calls[CARD_TICKET] == 1
    assert cluster.upstream.calls[JSAPI_TICKET] == 13


# -- the lease ---------------------------------------------------------------------------------


def test_the_background_thread_does_not_wait_for_the_lease(cluster: Cluster) -> None:
    """While another process renews, a thread's look ends at once and fetches nothing."""
    first, second = cluster.workers(2)
    first.ticket()
    second.ticket()
    cluster.clock.advance(7001)
    delays: list[float] = []
    cluster.upstream.meanwhile = lambda: delays.append(second.sync())
    before = cluster.clock.now
    first.sync()
    assert cluster.clock.now == before  # nobody slept
    assert delays[0] < 1  # and it looks again soon
    second.sync()
    assert second.ticket() == "jsapi_ticket-2"
    assert cluster.calls == (2, 2)


def test_a_cold_reader_waits_for_another_process(cluster: Cluster) -> None:
    """A reader without the lease watches the store until the holder has saved."""
    first, second = cluster.workers(2)
    outcome: list[str] = []

    def read_elsewhere() -> None:
        # The holder saves while the other one sleeps between two looks.
        def holder_finishes(seconds: float) -> None:
            cluster.clock.advance(seconds)
            cluster.put(Credential("from-the-holder", cluster.clock.now, cluster.clock.now + 7200))

        second.sleep = holder_finishes
        outcome.append(second.ticket())

    cluster.upstream.meanwhile = read_elsewhere
    first.ticket()
    assert outcome == ["from-the-holder"]


def test_a_cold_reader_gives_up_after_the_timeout(cluster: Cluster) -> None:
    """Nobody waits longer than REFRESH_TIMEOUT for a holder that does not come back."""
    first, second = cluster.workers(2)
    outcome: list[Exception] = []

    def read_elsewhere() -> None:
        started = cluster.clock.monotonic()
        with pytest.raises(TicketUnavailable) as caught:
            second.ticket()
        outcome.append(caught.value)
        assert 10 <= cluster.clock.monotonic() - started < 11

    cluster.upstream.meanwhile = read_elsewhere
    first.ticket()
    assert outcome
    assert cluster.upstream.calls[ACCESS_TOKEN] == 1


def test_the_store_is_read_again_under_the_lease(cluster: Cluster) -> None:
    """Who gets the lease after somebody else renewed asks nobody."""
    first, second = cluster.workers(2)
    first.ticket()
    second.ticket()
    cluster.clock.advance(7001)
    flights: list[bool] = []

    # The first renews between the second's look at the store and its lease.
    original = cluster.cache.lease

    def lease(key: str, life: float) -> Any:
        cluster.cache.lease = original  # type: ignore[method-assign]
        first.sync()
        flights.append(True)
        return original(key, life)

    cluster.cache.lease = lease  # type: ignore[method-assign]
    second.sync()
    assert flights
    assert cluster.calls == (2, 2)
    assert second.ticket() == "jsapi_ticket-2"


def test_a_late_result_replaces_nothing_newer(cluster: Cluster) -> None:
    """A holder that was stopped beyond its lease comes back with an old answer."""
    first, second = cluster.workers(2)
    first.ticket()
    second.ticket()
    cluster.clock.advance(7001)

    def another_takes_over() -> None:
        cluster.clock.advance(20)  # longer than the lease lives
        second.sync()

    def at_the_ticket_call() -> None:
        cluster.upstream.meanwhile = another_takes_over

    cluster.upstream.meanwhile = at_the_ticket_call
    first.sync()
    assert cluster.calls == (2, 3)
    newest = cluster.stored()
    assert newest is not None
    assert second.ticket() == newest.value == "jsapi_ticket-3"
    first.sync()
    assert first.ticket() == newest.value


@pytest.mark.parametrize("fails", [False, True])
def test_the_lease_is_free_after_a_renewal(cluster: Cluster, fails: bool) -> None:
    """Success or failure, nobody has to wait for the lease to run out."""
    leases: list[object] = []
    cluster.upstream.meanwhile = lambda: leases.append(cluster.lease[0])
    if fails:
        cluster.upstream.always[ACCESS_TOKEN] = DOWN
    cluster.worker().sync()
    assert leases != [None]
    assert cluster.lease[0] is None


def test_a_late_holder_frees_nobody_elses_lease(cluster: Cluster) -> None:
    """A lease that ran out belongs to whoever has it by then."""
    first, second = cluster.workers(2)
    owners: list[object] = []

    def another_takes_over() -> None:
        cluster.clock.advance(20)
        cluster.upstream.meanwhile = first_ends
        second.ticket()

    def first_ends() -> None:
        owners.append(cluster.lease[0])

    cluster.upstream.meanwhile = another_takes_over
    first.ticket()
    assert owners[0] is not None
    stored = cluster.stored()
    assert stored is not None


# -- failures ----------------------------------------------------------------------------------


def test_readers_fail_fast_during_a_back_off(cluster: Cluster) -> None:
    """After a failure WeChat is left alone, and readers learn at once when to come back."""
    cluster.upstream.always[ACCESS_TOKEN] = DOWN
    worker = cluster.worker()
    for _ in range(5):
        with pytest.raises(TicketUnavailable) as caught:
            worker.ticket()
    assert caught.value.retry_after >= 1
    assert isinstance(caught.value.__cause__, TransportError)
    assert cluster.calls == (1, 0)


def test_the_back_off_is_shared_through_the_store(cluster: Cluster) -> None:
    """One process's failure keeps the others from asking, and tells them why."""
    cluster.upstream.faults[ACCESS_TOKEN] = [says(40125, "invalid appsecret")]
    first, second = cluster.workers(2)
    with pytest.raises(TicketUnavailable):
        first.ticket()
    with pytest.raises(TicketUnavailable) as caught:
        second.ticket()
    assert isinstance(caught.value.__cause__, WeChatAPIError)
    assert caught.value.__cause__.errcode == 40125
    assert caught.value.retry_after == 900
    assert cluster.calls == (1, 0)


def test_a_failure_is_remembered_without_a_look_at_the_store(cluster: Cluster) -> None:
    """A hammered reader does not hammer the store."""
    cluster.upstream.always[ACCESS_TOKEN] = DOWN
    worker = cluster.worker()
    with pytest.raises(TicketUnavailable):
        worker.ticket()
    cluster.take_down()
    broken = cluster.cache._backend
    with pytest.raises(TicketUnavailable):
        worker.ticket()
    assert broken.calls == 0


def test_the_back_off_doubles_to_a_minute_and_then_waits_longer(cluster: Cluster) -> None:
    """1 s doubling to 60 s, and 400 s after half an hour; each up to a quarter shorter."""
    cluster.upstream.always[ACCESS_TOKEN] = DOWN
    worker = cluster.worker()
    start, tries = cluster.clock.now, []
    while cluster.clock.now < start + 6000:
        calls = cluster.calls[0]
        worker.sync()
        if cluster.calls[0] > calls:
            tries.append(cluster.clock.now)
        cluster.clock.advance(0.5)
    gaps = [later - earlier for earlier, later in itertools.pairwise(tries)]
    for gap, full in zip(gaps[:9], [1, 2, 4, 8, 16, 32, 60, 60, 60], strict=True):
        assert 0.75 * full <= gap <= full + 1.5
    early = [gap for at, gap in zip(tries, gaps, strict=False) if at < start + 1700]
    late = [gap for at, gap in zip(tries, gaps, strict=False) if at > start + 1900]
    assert max(early) <= 62
    assert 299 <= min(late) <= max(late) <= 402


@pytest.mark.parametrize(
    "fault", [DOWN, says(-1), says(45009), says(45011), says(40013), says(40125), says(40164)]
)
@pytest.mark.parametrize("kind", [ACCESS_TOKEN, JSAPI_TICKET])
def test_the_worst_day_costs_fewer_than_300_calls(
    cluster: Cluster, fault: WeChatAPIError, kind: str
) -> None:
    """A day of nothing but one failure, with readers and threads in two processes."""
    cluster.upstream.always[kind] = fault
    workers = [cluster.worker(sync_interval=60) for _ in range(2)]
    end = cluster.clock.now + 86400
    while cluster.clock.now < end:
        for worker in workers:
            pause = worker.sync()
            with pytest.raises(TicketUnavailable):
                worker.ticket()
        cluster.clock.advance(pause)
    assert sum(cluster.calls) < 300


def test_endless_rejection_costs_fewer_than_300_calls(cluster: Cluster) -> None:
    """40001 whatever the token: three calls an attempt, and 900 s between two."""
    cluster.upstream.always[JSAPI_TICKET] = says(40001)
    worker = cluster.worker(sync_interval=60)
    end = cluster.clock.now + 86400
    while cluster.clock.now < end:
        cluster.clock.advance(worker.sync())
    assert sum(cluster.calls) < 300


def test_rejected_token_and_no_new_one_costs_fewer_than_300_calls(cluster: Cluster) -> None:
    """A revoked token while the token call fails: the dead token is not tried again and again."""
    worker = cluster.worker()
    worker.ticket()
    cluster.upstream.is_dead.add("access_token-1")
    cluster.upstream.always[ACCESS_TOKEN] = DOWN
    cluster.clock.advance(100)
    cluster.flush()
    worker = cluster.worker()
    cluster.put(
        Credential("access_token-1", cluster.clock.now, cluster.clock.now + 7000), ACCESS_TOKEN
    )
    before = sum(cluster.calls)
    end = cluster.clock.now + 86400
    while cluster.clock.now < end:
        cluster.clock.advance(worker.sync())
    assert sum(cluster.calls) - before < 300


@pytest.mark.parametrize("errcode", [40013, 40125, 40164, 48001, 50002])
def test_a_permanent_error_waits_a_quarter_of_an_hour(cluster: Cluster, errcode: int) -> None:
    """What only a person can mend is not asked again for 900 s."""
    cluster.upstream.always[ACCESS_TOKEN] = says(errcode)
    worker = cluster.worker()
    with pytest.raises(TicketUnavailable) as caught:
        worker.ticket()
    assert caught.value.retry_after == 900


def test_a_minute_quota_waits_for_the_next_minute(cluster: Cluster) -> None:
    """45011 is retried in the next minute, not in this one."""
    cluster.clock.now = 1_800_000_000.0 + 10  # ten seconds into a minute
    cluster.upstream.always[ACCESS_TOKEN] = says(45011)
    with pytest.raises(TicketUnavailable) as caught:
        cluster.worker().ticket()
    assert caught.value.retry_after == 50


def test_a_success_ends_the_back_off_for_all(cluster: Cluster) -> None:
    """After one process's success the others take its ticket at once."""
    cluster.upstream.faults[ACCESS_TOKEN] = [DOWN]
    first, second = cluster.workers(2)
    for worker in (first, second):
        with pytest.raises(TicketUnavailable):
            worker.ticket()
    cluster.clock.advance(1.1)
    first.sync()
    second.sync()
    assert first.ticket() == second.ticket()
    assert second.provider.status(look=False).last_error is None
    assert cluster.cache.read(f"{PREFIX}backoff.access_token") is None


def test_corrected_settings_are_not_held_up(cluster: Cluster) -> None:
    """A restart with another secret does not wait for the old one's back-off."""
    cluster.upstream.faults[ACCESS_TOKEN] = [says(40125)]
    with pytest.raises(TicketUnavailable):
        cluster.worker().ticket()
    assert cluster.worker(digest="settings-2").ticket() == "jsapi_ticket-1"


def test_a_back_off_written_before_the_clock_went_back_does_not_block(cluster: Cluster) -> None:
    """A back-off that seems to end in an hour, with a delay of a second, is passed over."""
    cluster.upstream.faults[ACCESS_TOKEN] = [DOWN]
    worker = cluster.worker()
    with pytest.raises(TicketUnavailable):
        worker.ticket()
    cluster.clock.jump(-3600)
    worker.sync()
    assert worker.ticket()


@pytest.mark.parametrize(
    "damage",
    [{"errcode": "x"}, {"errmsg": None, "since": "x"}, {"delay": None}, {"failures": 1e400}],
)
def test_a_damaged_back_off_holds_nobody_up(cluster: Cluster, damage: dict[str, Any]) -> None:
    """A process that cannot read the cluster's back-off asks WeChat."""
    cluster.upstream.faults[ACCESS_TOKEN] = [says(45009)]
    with pytest.raises(TicketUnavailable):
        cluster.worker().ticket()
    key = f"{PREFIX}backoff.{ACCESS_TOKEN}"
    note = cluster.cache.read(key)
    assert note is not None
    cluster.cache.write(key, note | damage, 900)
    assert cluster.worker().ticket() == "jsapi_ticket-1"


def test_a_failure_is_logged_once_with_advice(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """The same failure again is no news, whatever its request id."""
    cluster.upstream.faults[ACCESS_TOKEN] = [
        says(40164, f"invalid ip 1.2.3.4, not in whitelist rid: {n}") for n in range(4)
    ]
    first, second = cluster.workers(2)
    for _ in range(2):
        for worker in (first, second):
            worker.sync()
            with pytest.raises(TicketUnavailable):
                worker.ticket()
        cluster.clock.advance(901)
    lines = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(lines) == 1
    assert "whitelist" in lines[0]
    assert "1.2.3.4" in lines[0]
    assert cluster.calls == (2, 0)


def _events(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The events in the log but for ordinary renewals."""
    events = [record.wxjsapi["event"] for record in caplog.records]  # type: ignore[attr-defined]
    return [event for event in events if event != "refreshed"]


@pytest.mark.parametrize("failures", ["1 failure", "2 failures"])
def test_recovery_is_logged_once(
    cluster: Cluster, caplog: pytest.LogCaptureFixture, failures: str
) -> None:
    """The end of an outage is one line as well."""
    caplog.set_level(logging.INFO)
    number = int(failures[0])
    cluster.upstream.faults[JSAPI_TICKET] = [DOWN] * number
    worker = cluster.worker()
    for _ in range(number):
        worker.sync()
        with pytest.raises(TicketUnavailable):
            worker.ticket()
        cluster.clock.advance(5)
    worker.sync()
    worker.ticket()
    assert _events(caplog) == ["refresh_failed", "recovered"]
    assert f"was renewed after {failures}.\n" in caplog.text


def test_a_bug_in_an_upstream_backs_off_as_well(cluster: Cluster) -> None:
    """An exception nobody foresaw is a failure like any other, without its text."""
    cluster.upstream.always[ACCESS_TOKEN] = ValueError("secret-in-a-text")  # type: ignore[assignment]
    worker = cluster.worker()
    with pytest.raises(TicketUnavailable) as caught:
        worker.ticket()
    assert "ValueError" in str(caught.value.__cause__)
    assert "secret-in-a-text" not in str(caught.value.__cause__)
    with pytest.raises(TicketUnavailable):
        worker.ticket()
    assert cluster.calls == (1, 0)


# -- without anything valid ------------------------------------------------------------------------


def test_readers_do_not_retry_where_a_thread_does(cluster: Cluster) -> None:
    """After a failure they fail at once, whatever time passes, until the thread succeeds."""
    cluster.upstream.faults[ACCESS_TOKEN] = [DOWN]
    worker = cluster.worker()
    for _ in range(3):
        with pytest.raises(TicketUnavailable) as caught:
            worker.ticket()
        cluster.clock.advance(5)
    assert str(caught.value.__cause__) == str(DOWN)
    assert cluster.calls == (1, 0)
    worker.sync()
    assert worker.ticket() == "jsapi_ticket-1"


def test_without_a_thread_one_reader_tries_again(cluster: Cluster) -> None:
    """The others fail at once with what is known."""
    cluster.upstream.faults[ACCESS_TOKEN] = [DOWN]
    worker = cluster.worker()
    worker.has_thread = False
    with pytest.raises(TicketUnavailable):
        worker.ticket()
    cluster.clock.advance(5)
    known: list[str] = []

    def read_as_well() -> None:
        with pytest.raises(TicketUnavailable) as caught:
            worker.ticket()
        known.append(str(caught.value.__cause__))

    cluster.upstream.meanwhile = read_as_well
    assert worker.ticket() == "jsapi_ticket-1"
    assert known == [str(DOWN)]


def test_without_a_thread_nobody_looks_at_the_store_in_a_pause(cluster: Cluster) -> None:
    """A hammered reader does not hammer the store there, either."""
    cluster.upstream.always[ACCESS_TOKEN] = DOWN
    worker = cluster.worker()
    worker.has_thread = False
    with pytest.raises(TicketUnavailable):
        worker.ticket()
    cluster.take_down()
    broken = cluster.cache._backend
    with pytest.raises(TicketUnavailable):
        worker.ticket()
    assert broken.calls == 0


def test_code_that_a_renewal_calls_does_not_wait_for_it(clock: FakeClock) -> None:
    """A provider that reads the ticket is told so, and the renewal goes on."""
    cluster, told = Cluster(clock), []

    class Reading(FakeWeChat):
        def fetch(self, kind: str, **options: Any) -> Credential:
            with pytest.raises(TicketUnavailable) as caught:
                worker.ticket()
            told.append(str(caught.value.__cause__))
            return super().fetch(kind, **options)

    worker = cluster.worker(upstream=Reading(clock))
    assert worker.ticket() == "jsapi_ticket-1"
    assert len(told) == 2
    assert "by code that its own renewal has called" in told[0]


def test_a_renewal_that_is_late_costs_one_reader_their_time(cluster: Cluster) -> None:
    """Who comes after its deadline fails at once, while it still goes on."""
    worker = cluster.worker(spawn=lambda name, target: None, refresh_timeout=0)
    runtime = worker.provider.runtime
    for _ in range(2):
        with pytest.raises(TicketUnavailable) as caught:
            worker.ticket()
        assert str(caught.value.__cause__) == "The renewal did not end in time."
        runtime.renew = lambda *_: pytest.fail("somebody waits for it")  # type: ignore[method-assign]


def test_nobody_waits_longer_than_they_want_or_it_may_take(cluster: Cluster) -> None:
    """Seconds of the one and of the other, whichever are fewer."""
    worker = cluster.worker(spawn=lambda name, target: None, refresh_timeout=10)
    renewal, _ = worker.provider.runtime.renew(worker.holding, worker.holding.snapshot(), NEED)
    waited: list[float] = []
    renewal.ready.wait = waited.append  # type: ignore[assignment, method-assign]
    for timeout in (2, 60, -1):
        deadline = cluster.clock.monotonic() + timeout
        worker.provider._wait(renewal, deadline, is_reader=True)
    assert waited == [2, 10, 0]


def test_a_reader_without_a_thread_has_one_look_under_way(cluster: Cluster) -> None:
    """However long a renewal goes on that another reader has started."""
    worker = cluster.worker()
    worker.has_thread = False
    worker.ticket()
    cluster.clock.advance(7001)
    looks = cluster.upstream.calls

    def read_as_well() -> None:
        cluster.clock.advance(6)
        worker.provider.runtime.attend = lambda _: pytest.fail("it looks as well")  # type: ignore[method-assign]
        assert worker.ticket() == "jsapi_ticket-1"

    cluster.upstream.meanwhile = read_as_well
    worker.ticket()
    assert looks[JSAPI_TICKET] == 2


# -- what is stored --------------------------------------------------------------------------------


def test_what_is_stored_or_held(cluster: Cluster) -> None:
    """Also what is over, for those who want to see it."""
    worker = cluster.worker()
    assert worker.provider.stored(JSAPI_TICKET) is None
    worker.ticket()
    stored = cluster.stored()
    cluster.clock.advance(8000)
    assert worker.provider.stored(JSAPI_TICKET) == stored
    cluster.flush()
    assert worker.provider.stored(JSAPI_TICKET) == stored


def test_a_status_says_who_renewed_it_and_when_it_ends(cluster: Cluster) -> None:
    """And that nothing is wrong."""
    first, second = cluster.workers(2)
    now = cluster.clock.now
    first.ticket()
    second.ticket()
    assert first.provider.status(look=False).refreshed_by == "this process"
    status = second.provider.status()
    assert status.refreshed_by == "another process"
    assert (status.issued_at, status.expires_at, status.refresh_at) == (now, now + 7200, now + 7000)
    assert status.last_error is status.retry_at is None


# -- 40001 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("errcode", [40001, 40014, 42001])
def test_a_rejected_token_is_replaced_once(cluster: Cluster, errcode: int) -> None:
    """The token is dropped, a new one fetched, the ticket asked for once more."""
    worker = cluster.worker()
    worker.ticket()
    cluster.upstream.faults[JSAPI_TICKET] = [says(errcode)]
    cluster.clock.advance(3000)
    worker.provider.refresh()
    assert cluster.calls == (2, 3)
    assert cluster.upstream.rejected == [None, "access_token-1"]
    assert cluster.upstream.tokens_used[-1] == "access_token-2"
    token = cluster.stored(ACCESS_TOKEN)
    assert token is not None
    assert token.value == "access_token-2"


def test_a_rejected_token_that_somebody_replaced_is_not_fetched_again(cluster: Cluster) -> None:
    """The token is dropped only if it is still the one in use."""
    worker = cluster.worker()
    worker.ticket()
    cluster.clock.advance(3000)
    now = cluster.clock.now
    cluster.upstream.faults[JSAPI_TICKET] = [says(40001)]
    cluster.upstream.meanwhile = lambda: cluster.put(
        Credential("replaced", now, now + 7200, int(now) + 5), ACCESS_TOKEN
    )
    worker.provider.refresh()
    assert cluster.upstream.calls[ACCESS_TOKEN] == 1
    assert cluster.upstream.tokens_used[-1] == "replaced"


def test_a_second_rejection_is_permanent(cluster: Cluster) -> None:
    """40001 again after the retry: three calls, then 900 s."""
    cluster.upstream.always[JSAPI_TICKET] = says(40001)
    worker = cluster.worker()
    with pytest.raises(TicketUnavailable) as caught:
        worker.ticket()
    assert caught.value.retry_after == 900
    assert cluster.calls == (2, 2)


def test_a_rejected_token_is_not_handed_out(cluster: Cluster) -> None:
    """Who reads the access token after its rejection gets a new one or none."""
    worker, other = cluster.workers(2)
    worker.ticket()
    other.provider.get(ACCESS_TOKEN)
    cluster.clock.advance(100)
    cluster.upstream.always[JSAPI_TICKET] = says(40001)
    cluster.upstream.always[ACCESS_TOKEN] = DOWN
    with pytest.raises(TransportError):
        worker.provider.refresh()
    other.sync()
    with pytest.raises(TicketUnavailable):
        other.provider.get(ACCESS_TOKEN)


# -- the store ---------------------------------------------------------------------------------


def test_a_lost_record_is_given_back_without_an_upstream_call(cluster: Cluster) -> None:
    """After a flush any process that holds token and ticket saves both again."""
    worker = cluster.worker()
    worker.ticket()
    token, ticket = cluster.stored(ACCESS_TOKEN), cluster.stored()
    cluster.flush()
    worker.sync()
    assert (cluster.stored(ACCESS_TOKEN), cluster.stored()) == (token, ticket)
    assert cluster.calls == (1, 1)


def test_a_stale_record_is_given_back_as_well_while_wechat_is_away(cluster: Cluster) -> None:
    """It still serves whoever starts now."""
    worker = cluster.worker()
    worker.ticket()
    ticket = cluster.stored()
    cluster.clock.advance(7001)
    cluster.upstream.always[ACCESS_TOKEN] = DOWN
    worker.sync()
    cluster.flush()
    worker.sync()
    assert cluster.stored() == ticket
    assert cluster.worker().ticket() == "jsapi_ticket-1"


def test_an_older_record_in_the_store_is_replaced_by_the_newer_one_held(cluster: Cluster) -> None:
    """A failover to a replica that lags behind loses nothing."""
    worker = cluster.worker()
    worker.ticket()
    old = cluster.stored()
    cluster.clock.advance(7001)
    worker.sync()
    new = cluster.stored()
    assert old is not None
    cluster.put(old)
    worker.sync()
    assert cluster.stored() == new
    assert cluster.calls == (2, 2)


def test_a_record_that_could_not_be_given_back_is_given_back_later(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk was full for a while; also where WeChat has named the same ticket again."""
    cluster = Cluster(clock, ticket="same", life=3600)
    worker = cluster.worker()
    worker.ticket()
    old = cluster.stored()
    assert old is not None
    clock.advance(1)
    worker.provider.refresh()
    new = cluster.stored()
    assert new is not None
    assert (new.value, new.is_newer_than(old)) == (old.value, True)
    cluster.put(old)
    with monkeypatch.context() as full:

        def refuse(*args: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        full.setattr(cluster.cache, "write", refuse)
        worker.sync()
        assert cluster.stored() == old
    worker.sync()
    assert cluster.stored() == new


def test_a_store_that_is_down_is_logged_once_and_costs_no_call(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Fresh and stale tickets are served from the snapshot, with no upstream call."""
    caplog.set_level(logging.INFO)
    worker = cluster.worker()
    worker.ticket()
    bring_back = cluster.take_down()
    for _ in range(3):
        cluster.clock.advance(10)
        worker.sync()
        worker.ticket()
    cluster.clock.advance(7000)
    worker.sync()
    assert worker.state == "stale"
    assert worker.ticket() == "jsapi_ticket-1"
    assert cluster.calls == (1, 1)
    bring_back()
    worker.sync()
    assert _events(caplog) == ["store_down", "store_up"]
    assert worker.ticket() == "jsapi_ticket-2"


def test_with_the_store_down_an_invalid_ticket_is_fetched_by_each_process(cluster: Cluster) -> None:
    """No record to share: each process asks once for itself, without a lease."""
    cluster.take_down()
    first, second = cluster.workers(2)
    first.ticket()
    second.ticket()
    first.ticket()
    assert cluster.calls == (2, 2)


def test_with_store_and_wechat_down_each_process_backs_off(cluster: Cluster) -> None:
    """A process's own back-off holds where the shared one cannot be read."""
    cluster.take_down()
    cluster.upstream.always[ACCESS_TOKEN] = DOWN
    worker = cluster.worker()
    for _ in range(50):
        worker.sync()
        with pytest.raises(TicketUnavailable):
            worker.ticket()
        cluster.clock.advance(1.1)
    assert 5 <= cluster.calls[0] <= 8


def test_a_store_that_failed_is_left_alone_for_the_rest_of_the_renewal(cluster: Cluster) -> None:
    """One renewal does not run into the same timeout again and again."""
    cluster.take_down()
    broken = cluster.cache._backend
    cluster.worker().ticket()
    assert broken.calls == 1


def test_generations_survive_a_lost_store_and_a_clock_set_back(cluster: Cluster) -> None:
    """A record's number grows although the clock says that it is earlier."""
    worker = cluster.worker()
    worker.ticket()
    before = cluster.stored()
    cluster.clock.jump(-3600)
    worker.sync()
    after = cluster.stored()
    assert before is not None
    assert after is not None
    assert after.generation > before.generation
    assert after.issued_at < before.issued_at
    assert cluster.worker().ticket() == after.value


def test_a_record_planted_far_ahead_spoils_none_that_follows(cluster: Cluster) -> None:
    """What is planted once, as late and as high as is believed, does not make later records look
    damaged, which every process would fetch for itself.
    """
    workers = cluster.workers(3)
    day, now = 86400.0, cluster.clock.now
    cluster.put(Credential("planted", now + day, now + day + 7200, int(now + 8 * day)))
    for _ in range(3):
        for worker in workers:
            worker.sync()
            worker.ticket()
        cluster.clock.advance(3600)
    held = cluster.stored()
    assert held is not None
    assert held.problem(cluster.clock.now) is None
    assert {worker.ticket() for worker in workers} == {held.value}
    assert cluster.calls[1] <= 3


def test_a_newer_record_is_adopted_by_the_next_look(cluster: Cluster) -> None:
    """What another process renewed is here within one SYNC_INTERVAL."""
    worker = cluster.worker()
    worker.ticket()
    now = cluster.clock.now
    cluster.put(Credential("newer", now, now + 7200, int(now) + 10))
    assert worker.sync() <= 5
    assert worker.ticket() == "newer"


def test_records_without_a_generation_are_ordered_by_time(clock: FakeClock) -> None:
    """A ticket that another program keeps in the user's database is followed."""
    tickets: dict[str, Credential] = {}

    class Foreign(TicketServer):
        def find(self, key: str) -> Credential | None:
            return tickets.get(key)

        def save(self, key: str, credential: Credential) -> None:
            tickets[key] = credential

    cluster = Cluster(clock, custom=Foreign())
    worker = cluster.worker()
    key = f"{PREFIX}{JSAPI_TICKET}"
    tickets[key] = Credential("theirs-1", clock.now, clock.now + 7200)
    assert worker.ticket() == "theirs-1"
    clock.advance(6000)
    tickets[key] = Credential("theirs-2", clock.now, clock.now + 7200)
    worker.sync()
    assert worker.ticket() == "theirs-2"
    assert cluster.calls == (0, 0)


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_a_clock_that_jumps_an_hour_causes_no_storm(cluster: Cluster, seconds: float) -> None:
    """One more call of each kind at most, whichever way, and a valid ticket throughout."""
    workers = cluster.workers(3)
    for worker in workers:
        worker.ticket()
    cluster.clock.jump(seconds)
    for _ in range(3):
        for worker in workers:
            worker.sync()
            worker.ticket()
        cluster.clock.advance(5)
    assert max(cluster.calls) <= 2


# -- refresh() ---------------------------------------------------------------------------------


def test_refresh_renews_at_once_and_others_follow(cluster: Cluster) -> None:
    """A forced renewal is newer for every process."""
    first, second = cluster.workers(2)
    assert first.ticket() == second.ticket()
    assert first.provider.refresh().value == "jsapi_ticket-2"
    second.sync()
    assert second.ticket() == "jsapi_ticket-2"
    assert cluster.calls == (1, 2)


def test_refresh_passes_over_the_back_off(cluster: Cluster) -> None:
    """A person who has mended something need not wait for 900 s."""
    cluster.upstream.faults[ACCESS_TOKEN] = [says(40164)]
    worker = cluster.worker()
    with pytest.raises(TicketUnavailable):
        worker.ticket()
    assert worker.provider.refresh().value == "jsapi_ticket-1"


def test_refresh_twice_in_ten_seconds_is_one_renewal_for_the_cluster(cluster: Cluster) -> None:
    """A button that is clicked twice, in two processes, costs one call."""
    first, second = cluster.workers(2)
    first.provider.refresh()
    cluster.clock.advance(9)
    assert second.provider.refresh().value == "jsapi_ticket-1"
    assert cluster.calls == (1, 1)
    cluster.clock.advance(2)
    assert second.provider.refresh().value == "jsapi_ticket-2"


def test_the_pause_of_refresh_survives_a_flush(cluster: Cluster) -> None:
    """A store that lost its notes does not let a process ask again."""
    worker = cluster.worker()
    worker.provider.refresh()
    cluster.flush()
    worker.provider.refresh()
    assert cluster.calls == (1, 1)


def test_the_pause_of_refresh_survives_a_clock_set_back(cluster: Cluster) -> None:
    """A process whose own last refresh() seems to lie ahead still heeds the cluster's."""
    first, second = cluster.workers(2)
    second.provider.refresh()
    cluster.clock.jump(-3600)
    first.provider.refresh()
    assert cluster.upstream.calls[JSAPI_TICKET] == 2
    second.provider.refresh()
    assert cluster.upstream.calls[JSAPI_TICKET] == 2


def test_refresh_raises_the_real_error_and_then_rests(cluster: Cluster) -> None:
    """A failed refresh() counts for the ten seconds as well."""
    cluster.upstream.always[ACCESS_TOKEN] = says(40125)
    worker = cluster.worker()
    with pytest.raises(WeChatAPIError) as caught:
        worker.provider.refresh()
    assert caught.value.errcode == 40125
    with pytest.raises(TicketUnavailable) as again:
        worker.provider.refresh()
    assert isinstance(again.value.__cause__, WeChatAPIError)
    assert cluster.calls == (1, 0)


def test_refresh_waits_no_longer_than_a_renewal_may_take(cluster: Cluster) -> None:
    """A refresh() whose renewal does not end says so, and when to come back."""
    worker = cluster.worker(spawn=lambda name, target: None, refresh_timeout=0)
    with pytest.raises(TicketUnavailable) as caught:
        worker.provider.refresh()
    assert caught.value.description == "The renewal did not end in time."
    assert caught.value.retry_after == 1


# -- a page says that its signature is invalid -----------------------------------------------------


def test_a_rejected_signature_heals_where_the_ticket_was_replaced(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """WeChat names another ticket: the cluster goes on with that, and the log says why."""
    worker, other = cluster.workers(2)
    worker.ticket()
    cluster.clock.advance(100)
    worker.provider.verify(Complaint("/shop"))
    assert worker.ticket() == "jsapi_ticket-2"
    other.sync()
    assert other.ticket() == "jsapi_ticket-2"
    assert "/shop" in caplog.text
    assert "another ticket" in caplog.text
    assert "jsapi_ticket-" not in caplog.text


def test_a_rejected_signature_with_the_right_ticket_blames_the_url(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """WeChat names the same ticket: the page was signed for another URL."""
    cluster = Cluster(clock, ticket="living")
    worker = cluster.worker()
    worker.ticket()
    worker.provider.verify(Complaint("/shop"))
    assert cluster.calls == (1, 2)
    assert "another URL" in caplog.text
    assert "verify" in caplog.text


def test_pages_cost_one_call_in_ten_minutes_for_the_whole_cluster(cluster: Cluster) -> None:
    """However many pages say so, in however many processes."""
    workers = cluster.workers(3)
    for worker in workers:
        worker.ticket()
    for _ in range(100):
        for worker in workers:
            worker.provider.verify(Complaint("/"))
        cluster.clock.advance(5.99)
    assert cluster.calls == (1, 2)
    cluster.clock.advance(2)
    workers[0].provider.verify(Complaint("/"))
    assert cluster.calls == (1, 3)


def test_pages_of_a_client_leave_something_to_those_of_others(cluster: Cluster) -> None:
    """What one source complains without end costs it its own share, which comes back."""
    worker = cluster.worker()

    def asks(source: str) -> bool:
        worker.ticket()
        before = cluster.calls[1]
        worker.provider.verify(Complaint("/", source))
        return cluster.calls[1] > before

    heard = []
    for _ in range(20):
        heard.append(asks("a client"))
        cluster.clock.advance(601)
    assert heard == [True] * 4 + [False] * 16
    assert asks("another")
    cluster.clock.advance(4 * 601)  # four hours since the first
    assert asks("a client")


def test_pages_cost_24_calls_a_day(cluster: Cluster) -> None:
    """In any 24 hours, not only between two midnights."""
    worker = cluster.worker()
    asked = []
    for _ in range(400):
        worker.ticket()
        before = cluster.calls[1]
        worker.provider.verify(Complaint("/"))
        if cluster.calls[1] > before:
            asked.append(cluster.clock.now)
        cluster.clock.advance(601)
    assert len(asked) > 24
    for start in asked:
        assert sum(start <= at < start + 86400 for at in asked) <= 24


def test_hammering_pages_do_not_hammer_the_store(cluster: Cluster) -> None:
    """What a process knows of the limit spares it the look."""
    first, second = cluster.workers(2)
    for worker in (first, second):
        worker.ticket()
        worker.provider.verify(Complaint("/"))
    cluster.take_down()
    broken = cluster.cache._backend
    for _ in range(5):
        cluster.clock.advance(61)
        for worker in (first, second):
            worker.provider.verify(Complaint("/"))
    assert broken.calls == 0


def test_a_flushed_limit_is_still_kept_by_the_process(cluster: Cluster) -> None:
    """A store that lost its notes does not let a process ask again."""
    worker = cluster.worker()
    worker.ticket()
    worker.provider.verify(Complaint("/"))
    cluster.flush()
    worker.provider.verify(Complaint("/"))
    assert cluster.calls == (1, 2)


def test_a_damaged_limit_counts_as_none(cluster: Cluster) -> None:
    """Whatever lies in the note."""
    worker = cluster.worker()
    worker.ticket()
    for times in (None, "x", [None, "x", {}], {"a": 1}):
        cluster.clock.advance(601)
        cluster.cache.write(f"{PREFIX}verify.jsapi_ticket", {"times": times}, 600)
        before = cluster.calls[1]
        worker.provider.verify(Complaint("/"))
        assert cluster.calls[1] == before + 1


def test_a_rejected_signature_does_not_pass_over_the_back_off(cluster: Cluster) -> None:
    """While WeChat is left alone, pages do not change that."""
    worker = cluster.worker()
    worker.ticket()
    cluster.clock.advance(7001)
    cluster.upstream.always[JSAPI_TICKET] = says(45009)
    worker.sync()
    calls = cluster.calls
    worker.provider.verify(Complaint("/"))
    assert cluster.calls == calls


def test_a_verification_that_fails_says_so_and_rests(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """No verdict, but a line of its own after the failure's."""
    worker = cluster.worker()
    worker.ticket()
    cluster.upstream.always[JSAPI_TICKET] = DOWN
    worker.provider.verify(Complaint("/shop"))
    calls = cluster.calls
    cluster.clock.advance(70)
    worker.provider.verify(Complaint("/shop"))
    assert cluster.calls == calls
    assert "could not be found out" in caplog.text
    assert worker.ticket() == "jsapi_ticket-1"


def test_no_verification_without_a_store_to_count_in(cluster: Cluster) -> None:
    """With the store down every process would ask."""
    worker = cluster.worker()
    worker.ticket()
    cluster.take_down()
    worker.provider.verify(Complaint("/"))
    assert cluster.calls == (1, 1)


def test_a_page_of_an_older_ticket_costs_no_call(cluster: Cluster) -> None:
    """Another process has renewed meanwhile: the page's next try is signed with that one."""
    first, second = cluster.workers(2)
    first.ticket()
    second.ticket()
    cluster.clock.advance(7050)
    first.sync()
    second.provider.verify(Complaint("/"))
    assert cluster.calls[1] == 2
    assert second.ticket() == first.ticket()


def test_pages_try_once_a_minute_where_the_lease_is_stuck(cluster: Cluster) -> None:
    """A holder that is stopped but not dead: no page waits for it, and few look whether it is."""
    worker = cluster.worker()
    worker.ticket()
    cluster.lease = (FakeLease(cluster, 1e9), math.inf)
    before, tries = cluster.clock.monotonic(), []
    give = cluster.cache.lease
    cluster.cache.lease = lambda *of: (tries.append(of), give(*of))[1]  # type: ignore[method-assign]
    for _ in range(50):
        worker.provider.verify(Complaint("/"))
    assert len(tries) == 1
    assert cluster.clock.monotonic() == before
    assert cluster.calls == (1, 1)


def test_pages_look_at_a_store_that_is_down_once_a_minute(cluster: Cluster) -> None:
    """Nothing is noted there, and yet not every page looks."""
    worker = cluster.worker()
    worker.ticket()
    cluster.take_down()
    broken = cluster.cache._backend
    worker.provider.verify(Complaint("/"))
    looks = broken.calls
    for _ in range(50):
        worker.provider.verify(Complaint("/"))
    assert broken.calls == looks
    cluster.clock.advance(61)
    worker.provider.verify(Complaint("/"))
    assert broken.calls > looks


def test_pages_of_a_process_without_a_ticket_verify_nothing(cluster: Cluster) -> None:
    """Whoever reads it renews it, under the reader's own limits."""
    worker = cluster.worker()
    worker.provider.verify(Complaint("/"))
    assert cluster.calls == (0, 0)


def test_a_reader_does_not_make_do_with_a_verification(cluster: Cluster) -> None:
    """One that met another holder gave up at once; who needs a ticket waits for that holder."""
    worker = cluster.worker()
    worker.ticket()
    cluster.lease = (FakeLease(cluster, 15), cluster.clock.now + 15)  # another process has it
    runtime, snapshot = worker.provider.runtime, worker.holding.snapshot()
    check, _ = runtime.renew(worker.holding, snapshot, CHECK, "/")
    assert check.lost_lease
    cluster.clock.jump(7195)  # and no time passes for those who wait
    runtime._flights[snapshot] = check  # as if it were just ending
    renew = runtime.renew
    joined: list[Purpose] = []

    def note(*args: Any) -> Any:
        renewal, is_new = renew(*args)
        joined.append(renewal.purpose)
        runtime._flights.pop(snapshot, None)
        return renewal, is_new

    runtime.renew = note  # type: ignore[method-assign]
    assert worker.ticket()
    assert joined == [CHECK, NEED]


def test_no_verification_where_it_cannot_be_noted(cluster: Cluster) -> None:
    """A store that takes no writes: thirty processes would each ask once."""
    workers = cluster.workers(30)
    for worker in workers:
        worker.ticket()
    backend = cluster.backend
    cluster.cache._backend = type(
        "ReadOnly",
        (),
        {"get": lambda self, key: backend.get(key), "set": lambda self, *a, **k: False},
    )()
    for worker in workers:
        worker.provider.verify(Complaint("/"))
    assert cluster.calls == (1, 1)


def test_a_verification_waits_for_the_renewal_under_way(cluster: Cluster) -> None:
    """Another process is asking already: its ticket will do."""
    first, second = cluster.workers(2)
    first.ticket()
    second.ticket()
    cluster.upstream.meanwhile = lambda: second.provider.verify(Complaint("/"))
    first.provider.verify(Complaint("/"))
    assert cluster.calls == (1, 2)


# -- threads, real ones ------------------------------------------------------------------------


@pytest.fixture
def release() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def _wait_for_threads(worker: Worker) -> None:
    """Until all that was begun is over, down to the last thread of it."""
    wait_until(lambda: not worker.provider.runtime.threads._jobs, what="its threads end")


def _threads(count: int, target: Callable[[], None]) -> list[threading.Thread]:
    threads = [threading.Thread(target=target, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def _real(cluster: Cluster, **options: Any) -> Any:
    """A worker with real threads for its flights."""
    from flask_wxjsapi._engine.threads import spawn as _spawn

    return cluster.worker(spawn=_spawn, **options)


@pytest.mark.parametrize("fails", [False, True])
def test_64_readers_share_one_attempt(
    cluster: Cluster, release: threading.Event, fails: bool
) -> None:
    """Cold readers of a process wait for one flight and share its outcome, failure included."""
    worker = _real(cluster, refresh_timeout=60)
    if fails:
        cluster.upstream.always[ACCESS_TOKEN] = DOWN
    waiting = threading.Barrier(65)
    cluster.upstream.meanwhile = lambda: (release.wait(300), None)[1]
    outcomes: list[str] = []

    def read() -> None:
        waiting.wait(30)
        try:
            outcomes.append(worker.ticket())
        except TicketUnavailable as error:
            outcomes.append(str(error.__cause__))

    threads = _threads(64, read)
    waiting.wait(30)
    release.set()
    for thread in threads:
        thread.join(30)
    assert len(outcomes) == 64
    assert set(outcomes) == ({str(DOWN)} if fails else {"jsapi_ticket-1"})
    assert cluster.calls == ((1, 0) if fails else (1, 1))


def test_a_reader_shares_the_failure_of_the_threads_attempt(
    cluster: Cluster, release: threading.Event
) -> None:
    """A reader who comes while the thread asks does not ask again when that fails."""
    worker = _real(cluster, refresh_timeout=60)
    cluster.upstream.always[ACCESS_TOKEN] = DOWN
    hangs = _hang_at(cluster, ACCESS_TOKEN, release)
    renewal, joined = _joined(worker, KEEP)
    assert hangs.wait(30)
    outcomes: list[str] = []

    def read() -> None:
        try:
            outcomes.append(worker.ticket())
        except TicketUnavailable as error:
            outcomes.append(str(error.__cause__))

    (reader,) = _threads(1, read)
    assert joined.wait(30)
    joined.clear()
    release.set()
    reader.join(30)
    assert outcomes == [str(DOWN)]
    assert not joined.is_set()
    assert renewal.done.wait(30)


def _joined(worker: Worker, purpose: Purpose) -> tuple[Renewal, threading.Event]:
    """A renewal under way, and an event that says when somebody else joins it."""
    runtime, joined = worker.provider.runtime, threading.Event()
    renew = runtime.renew
    renewal, _ = renew(worker.holding, worker.holding.snapshot(), purpose)

    def note(*args: Any) -> Any:
        found = renew(*args)
        joined.set()
        return found

    runtime.renew = note  # type: ignore[method-assign]
    return renewal, joined


def test_without_the_thread_nobody_waits_for_a_stale_ticket(
    cluster: Cluster, release: threading.Event
) -> None:
    """Past the refresh point one caller has it renewed behind, and all get the old one at once."""
    worker = _real(cluster)
    worker.has_thread = False
    worker.ticket()
    _wait_for_threads(worker)
    cluster.clock.advance(7001)
    hangs = _hang_at(cluster, JSAPI_TICKET, release)
    assert [worker.ticket() for _ in range(3)] == ["jsapi_ticket-1"] * 3
    assert hangs.wait(30)
    assert worker.ticket() == "jsapi_ticket-1"
    release.set()
    wait_until(lambda: worker.ticket() == "jsapi_ticket-2", what="it is renewed behind")
    assert cluster.calls == (2, 2)


def test_a_reader_stops_waiting_at_its_own_limit(
    cluster: Cluster, release: threading.Event
) -> None:
    """script() gives up long before a renewal that hangs."""
    worker = _real(cluster)
    cluster.upstream.meanwhile = lambda: (release.wait(300), None)[1]
    with pytest.raises(TicketUnavailable):
        worker.provider.get(timeout=0)


def test_a_reader_who_joined_an_attempt_without_the_lease_starts_a_waiting_one(
    cluster: Cluster, release: threading.Event
) -> None:
    """The thread's attempt gave up on the lease; the reader gets the ticket all the same."""
    worker = _real(cluster, refresh_timeout=60)
    cluster.lease = (FakeLease(cluster, 15), cluster.clock.now + 15)  # another process has it
    asked = threading.Event()
    give = cluster.cache.lease

    def give_later(key: str, life: float) -> FakeLease:
        asked.set()
        release.wait(300)
        return give(key, life)

    cluster.cache.lease = give_later  # type: ignore[method-assign]
    freed = threading.Event()

    def sleep(seconds: float) -> None:
        freed.wait(30)  # or all the time there is would be over before this thread goes on
        cluster.clock.advance(seconds)

    worker.sleep = sleep
    weak, joined = _joined(worker, KEEP)
    assert asked.wait(30)
    outcomes: list[str] = []
    (reader,) = _threads(1, lambda: outcomes.append(worker.ticket()))
    assert joined.wait(30)
    # The other process is done while the reader waits for it.
    worker.sleep = lambda seconds: setattr(cluster, "lease", (None, 0.0))
    release.set()
    reader.join(30)
    assert outcomes == ["jsapi_ticket-1"]
    assert weak.lost_lease
    assert cluster.calls == (1, 1)


def test_a_stale_ticket_that_ends_while_its_renewal_goes_on(
    cluster: Cluster, release: threading.Event
) -> None:
    """A cold process hands it out at once; who comes after its end waits for the renewal."""
    cluster.worker().ticket()
    cluster.clock.advance(7185)
    worker = _real(cluster, refresh_timeout=60)
    hangs = _hang_at(cluster, ACCESS_TOKEN, release)
    assert worker.ticket() == "jsapi_ticket-1"
    _wait_for_threads(worker)  # the reader went on before its renewal was over
    worker.provider.runtime.renew(worker.holding, worker.holding.snapshot(), KEEP)
    assert hangs.wait(30)
    cluster.clock.advance(5.5)
    renewal, joined = _joined(worker, NEED)
    assert not renewal.ready.is_set()
    outcomes: list[str] = []
    (reader,) = _threads(1, lambda: outcomes.append(worker.ticket()))
    assert joined.wait(30)
    release.set()
    reader.join(30)
    assert outcomes == ["jsapi_ticket-2"]
    assert cluster.calls == (2, 2)


def _hang_at(cluster: Cluster, kind: str, release: threading.Event) -> threading.Event:
    """Make the next call for a kind hang; the event says when it does."""
    hangs = threading.Event()

    def hang() -> None:
        hangs.set()
        release.wait(300)

    def pass_by() -> None:
        cluster.upstream.meanwhile = hang

    cluster.upstream.meanwhile = hang if kind == ACCESS_TOKEN else pass_by
    return hangs


def _give_up_on(worker: Worker, cluster: Cluster) -> None:
    """Let a renewal that hangs run out of time: it counts as failed, and others follow."""
    cluster.clock.advance(16)
    worker.provider.runtime.threads.reap()
    with pytest.raises(TicketUnavailable) as caught:
        worker.ticket()
    assert "hangs" in str(caught.value.__cause__)
    cluster.clock.advance(2.1)
    worker.sync()


def test_a_renewal_that_hangs_is_replaced(
    cluster: Cluster, release: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """User code that never returns keeps neither the lease nor the place of the next attempt."""
    worker = _real(cluster)
    hangs = _hang_at(cluster, ACCESS_TOKEN, release)
    with pytest.raises(TicketUnavailable):
        worker.provider.get(timeout=0)
    assert hangs.wait(30)
    _give_up_on(worker, cluster)
    wait_until(lambda: worker.state == "fresh", what="another attempt succeeds")
    assert worker.ticket() == "jsapi_ticket-1"
    wait_until(lambda: "A renewal hangs" in caplog.text, what="it is told aside")
    assert caplog.text.count("A renewal hangs") == 1


def test_three_threads_are_lost_and_no_more(
    cluster: Cluster, release: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """A provider that never returns costs three threads, a line, and readers who fail at once."""
    worker = _real(cluster)
    started: list[int] = []

    def hang() -> None:
        cluster.upstream.meanwhile = hang
        started.append(1)
        release.wait(300)

    cluster.upstream.meanwhile = hang
    runtime = worker.provider.runtime
    for _ in range(20):
        look = runtime.attend([(worker.holding, worker.holding.snapshot())])
        # Its thread, too: one that is late to end would count as lost.
        wait_until(lambda look=look: look not in runtime.threads._jobs, what="the look is over")
        with pytest.raises(TicketUnavailable):
            worker.provider.get(timeout=0)
        if runtime.threads.lost < 3:
            expected = runtime.threads.lost + 1
            wait_until(lambda n=expected: len(started) == n, what="it hangs")
        cluster.clock.advance(16)
        runtime.threads.reap()
        cluster.clock.advance(500)
    assert len(started) == runtime.threads.lost == 3
    wait_until(lambda: "3 threads of this process hang" in caplog.text, what="it is told aside")


def test_what_a_replaced_renewal_brings_at_last_replaces_nothing_newer(
    cluster: Cluster, release: threading.Event
) -> None:
    """The answer of a call that hung is older than what came in the meantime."""
    worker = _real(cluster, name="late")
    hangs = _hang_at(cluster, JSAPI_TICKET, release)
    with pytest.raises(TicketUnavailable):
        worker.provider.get(timeout=0)
    assert hangs.wait(30)
    (late,) = [t for t in threading.enumerate() if t.name == "wxjsapi-renewal-late"]
    _give_up_on(worker, cluster)
    wait_until(lambda: cluster.stored() is not None, what="another attempt succeeds")
    assert worker.ticket() == "jsapi_ticket-2"
    cluster.flush()  # nor anything older than what the process holds
    release.set()
    late.join(30)
    assert not late.is_alive()
    assert worker.ticket() == "jsapi_ticket-2"
    stored = cluster.stored()
    assert stored is not None
    assert stored.value == "jsapi_ticket-2"


def test_a_stale_ticket_with_the_store_down_is_not_looked_up_by_every_reader(
    cluster: Cluster,
) -> None:
    """Without the thread, past the refresh point, one reader in SYNC_INTERVAL meets the store."""
    worker = cluster.worker()
    worker.has_thread = False
    worker.ticket()
    cluster.clock.advance(7001)
    cluster.take_down()
    broken = cluster.cache._backend
    for _ in range(20):
        worker.ticket()
        cluster.clock.advance(0.2)
    assert broken.calls == 1
    cluster.clock.advance(5)
    worker.ticket()
    assert broken.calls == 2


def test_a_store_that_takes_no_writes_is_logged_once(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """A replica can be read and not written: that is one line, not two at every look."""
    caplog.set_level(logging.INFO)

    def refuse(*_: object, **__: object) -> None:
        raise OSError("read only")

    cluster.backend.set = refuse
    worker = cluster.worker()
    for _ in range(5):
        worker.ticket()
        worker.sync()
        cluster.clock.advance(5)
    assert _events(caplog) == ["store_down"]
    assert cluster.calls == (1, 1)


def test_a_thread_that_cannot_start_is_a_clear_failure(cluster: Cluster) -> None:
    """At the end of the interpreter or of memory a reader gets the usual error."""

    def no_more(name: str, target: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    worker = cluster.worker(spawn=no_more)
    with pytest.raises(TicketUnavailable) as caught:
        worker.ticket()
    assert "can't start new thread" in str(caught.value.__cause__)


def test_events_carry_no_value(cluster: Cluster) -> None:
    """What is told about a renewal never includes what was renewed."""
    worker = cluster.worker()
    worker.ticket()
    cluster.upstream.always[ACCESS_TOKEN] = DOWN
    cluster.clock.advance(7001)
    worker.sync()
    assert [event for event, _ in worker.events] == ["refreshed", "refreshed", "failed"]
    assert "jsapi_ticket-1" not in str(worker.events)
    assert "access_token-1" not in str(worker.events)


# -- what a breaker found --------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [-3600, -86000, 3600])
def test_a_clock_that_is_set_does_not_stop_the_thread(cluster: Cluster, seconds: float) -> None:
    """The schedule goes by the clock that nobody sets: the next look comes as if nothing were."""
    worker = cluster.worker()
    worker.ticket()
    runtime = worker.provider.runtime
    for _ in range(20):
        cluster.clock.advance(runtime.tick())
    cluster.clock.jump(seconds)
    for _ in range(20):
        cluster.clock.advance(runtime.tick())
        worker.ticket()
    held = worker.holding.snapshot().credential
    assert held is not None
    assert abs(held.issued_at - cluster.clock.now) < 7200
    assert worker.state == "fresh"


def test_an_error_carries_nothing_of_the_caller_to_others(cluster: Cluster) -> None:
    """Whoever calls refresh() inside an except block does not show that to the next reader."""
    failure = TransportError("away")
    failure.__cause__ = ConnectionError("https://x/?access_token=SECRET")
    cluster.upstream.always[ACCESS_TOKEN] = failure
    worker = cluster.worker()
    try:
        raise ValueError("A-PRIVATE")
    except ValueError:
        with pytest.raises(TransportError):
            worker.provider.refresh()
    with pytest.raises(TicketUnavailable) as caught:
        worker.ticket()
    told = "".join(traceback.format_exception(caught.value))
    assert "away" in told
    assert "SECRET" not in told
    assert "A-PRIVATE" not in told


def test_with_the_thread_no_reader_pays_for_a_kind_that_was_never_had(cluster: Cluster) -> None:
    """After the first failure it is tried again behind the readers, who know why not."""
    worker = cluster.worker()
    worker.ticket()
    cluster.upstream.delay = 9
    cluster.upstream.always[CARD_TICKET] = DOWN
    waited = 0
    tried: list[Callable[[], None]] = []
    for _ in range(60):
        before = cluster.clock.monotonic()
        with pytest.raises(TicketUnavailable):
            worker.provider.get(CARD_TICKET)
        waited += cluster.clock.monotonic() - before > 1
        worker.provider.runtime.threads._spawn = lambda name, target: tried.append(target)
        cluster.clock.advance(1)
    assert waited == 1
    assert tried


@pytest.mark.parametrize("has_thread", [True, False])
def test_what_another_process_has_put_right_is_seen_in_a_pause(
    cluster: Cluster, has_thread: bool
) -> None:
    """A wrong secret brings 900 s of it, and ``refresh()`` elsewhere ends it. The thread keeps only
    what was had once.
    """
    worker, other = cluster.worker(sync_interval=5), cluster.worker()
    worker.has_thread = has_thread
    worker.holding.reload = lambda: False
    cluster.upstream.faults[ACCESS_TOKEN] = [says(40125)]
    with pytest.raises(TicketUnavailable):
        worker.ticket()
    other.provider.refresh()
    cluster.clock.advance(5.1)
    with pytest.raises(TicketUnavailable):
        worker.ticket()  # which looks behind, and waits for nothing
    assert worker.ticket() == "jsapi_ticket-1"
    assert cluster.calls == (2, 1)


@pytest.mark.parametrize("has_thread", [True, False])
def test_readers_in_a_pause_look_once_in_an_interval(cluster: Cluster, has_thread: bool) -> None:
    """And ask WeChat for nothing."""
    worker = cluster.worker(sync_interval=5)
    worker.has_thread = has_thread
    worker.holding.reload = lambda: False
    cluster.upstream.always[ACCESS_TOKEN] = says(40125)
    looks: list[int] = []
    attend = worker.provider.runtime.attend

    def count(entries: Any) -> Any:
        looks.append(len(entries))
        return attend(entries)

    worker.provider.runtime.attend = count  # type: ignore[method-assign]
    for _ in range(110):
        with pytest.raises(TicketUnavailable):
            worker.ticket()
        cluster.clock.advance(0.1)
    assert looks == [1, 1]
    assert cluster.calls == (1, 0)


def test_a_failed_token_makes_an_account_doubtful(cluster: Cluster) -> None:
    """Four of the eight are enough for accounts whose token fails."""
    worker = cluster.worker()
    cluster.upstream.always[ACCESS_TOKEN] = DOWN
    with pytest.raises(TicketUnavailable):
        worker.ticket()
    renewal = Renewal(
        worker.holding, worker.holding.snapshot(), KEEP, worker.provider.runtime._means
    )
    assert turns._is_doubtful(renewal)


def test_a_reader_moves_a_queued_renewal_to_the_front(cluster: Cluster) -> None:
    """One that the thread has queued is no reason to wait behind all the others."""
    worker = cluster.worker(spawn=lambda name, target: None)
    runtime = worker.provider.runtime
    kinds = [f"kind-{number}" for number in range(12)]
    for kind in kinds:
        runtime.renew(worker.holding, worker.holding.snapshot(kind), KEEP)
    last = worker.holding.snapshot(kinds[-1])
    renewal, is_new = runtime.renew(worker.holding, last, NEED)
    assert not is_new
    assert renewal in runtime._turns.under_way  # four of the thread's have left it room


def test_a_renewal_that_was_given_up_asks_for_nothing_more(
    cluster: Cluster, release: threading.Event
) -> None:
    """Others have gone on: what comes back late would replace their ticket."""
    worker, other = _real(cluster), cluster.worker()
    hangs = _hang_at(cluster, ACCESS_TOKEN, release)
    with pytest.raises(TicketUnavailable):
        worker.provider.get(timeout=0)
    assert hangs.wait(30)
    cluster.clock.advance(16)
    worker.provider.runtime.threads.reap()
    assert worker.provider.runtime.threads.lost == 1
    cluster.clock.advance(5)
    assert other.ticket() == "jsapi_ticket-1"
    release.set()
    wait_until(lambda: worker.provider.runtime.threads.lost == 0, what="it came back")
    assert cluster.upstream.calls[JSAPI_TICKET] == 1


@pytest.mark.parametrize("error", [SystemExit(), asyncio.CancelledError()])
def test_what_is_no_exception_is_a_failure_all_the_same(
    cluster: Cluster, error: BaseException
) -> None:
    """gevent's Timeout around a request, say: it backs off, and readers fail at once."""
    cluster.upstream.always[ACCESS_TOKEN] = error  # type: ignore[assignment]
    worker = cluster.worker()
    for _ in range(5):
        with pytest.raises(TicketUnavailable) as caught:
            worker.ticket()
    assert type(error).__name__ in str(caught.value.__cause__)
    assert cluster.calls == (1, 0)


def test_without_the_thread_one_look_at_a_time_may_hang(
    cluster: Cluster, release: threading.Event
) -> None:
    """However often readers come by."""
    worker = _real(cluster)
    worker.has_thread = False
    worker.ticket()
    _wait_for_threads(worker)
    hanging: list[int] = []

    def hang(keys: Any) -> Any:
        hanging.append(1)
        release.wait(300)
        return {}

    cluster.cache.find_many = hang  # type: ignore[method-assign]
    for _ in range(3):
        cluster.clock.advance(5.1)
        worker.ticket()
        wait_until(lambda: hanging, what="a look hangs")
    assert len(hanging) == 1


def test_when_a_lost_thread_comes_back_the_schedule_goes_on(
    cluster: Cluster, release: threading.Event
) -> None:
    """Nobody waits for the pause that its hanging brought."""
    worker = _real(cluster)
    worker.ticket()
    _wait_for_threads(worker)
    find_many = cluster.cache.find_many

    def hang(keys: Any) -> Any:
        release.wait(300)
        return find_many(keys)

    cluster.cache.find_many = hang  # type: ignore[method-assign]
    runtime = worker.provider.runtime
    look = runtime.attend([(worker.holding, worker.holding.snapshot())])
    cluster.clock.advance(16)
    runtime.threads.reap()
    assert look.done.is_set()
    assert runtime.next_at is not None
    assert runtime.next_at > cluster.clock.now
    release.set()
    wait_until(lambda: runtime.threads.lost == 0, what="it came back")
    wait_until(lambda: (runtime.next_at or 0) <= cluster.clock.now, what="it is due at once")


def test_where_the_thread_cannot_start_a_caller_tries_again(cluster: Cluster) -> None:
    """What the thread was to keep warm is not left to a thread that is not there."""
    worker = cluster.worker()
    cluster.upstream.faults[ACCESS_TOKEN] = [DOWN]
    with pytest.raises(TicketUnavailable):
        worker.ticket()
    worker.has_thread = False
    cluster.clock.advance(2)
    assert worker.ticket() == "jsapi_ticket-1"
