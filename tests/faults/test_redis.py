"""What a Redis can do to a service: die, freeze, forget, refuse, lie; and lease holders too."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import requests

from flask_wxjsapi import TicketUnavailable
from flask_wxjsapi.sandbox import Sandbox
from tests.conftest import wait_until
from tests.processes import Gunicorn
from tests.test_processes import _connected_to

from .conftest import Figure
from .valkeys import ONE_EACH, PLANTED, Log, Server, Service, Wire, key, plant, secrets_of

pytestmark = pytest.mark.processes

PASSWORD = "hunter2-of-redis"
APP = "tests.faults.valkeys:create_app()"


@dataclass
class Bench:
    """A Valkey behind a wire, a WeChat, and the log of all that happens."""

    server: Server
    wire: Wire
    sandbox: Sandbox
    log: Log
    directory: Path
    request: pytest.FixtureRequest
    patience: str = ""  # how long the extension waits for an answer, if not for a second

    @property
    def config(self) -> dict[str, Any]:
        url = f"redis://:{PASSWORD}@127.0.0.1:{self.wire.port}/0{self.patience}"
        return {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": url}

    def serve(self, count: int, **config: Any) -> Service:
        return Service(self.sandbox, count, **self.config, **config)

    def gunicorn(self, *options: str, **config: str) -> Gunicorn:
        return Gunicorn(self.sandbox, self.directory, *options, app=APP, **(self.config | config))

    def lease(self) -> bytes | None:
        """Whose the lease is, if anybody's."""
        found: bytes | None = self.server.do("GET", key(self.sandbox, "lease"))
        return found

    def restored(self) -> bool:
        return {"access_token", "jsapi_ticket"} <= set(self.server.records())

    def wait_for(self, event: str, count: int) -> float:
        """Until an event has been logged that often; returns the seconds it took."""
        start = time.monotonic()
        wait_until(lambda: self.log.events[event] >= count, 60, f"{count} x {event}")
        return time.monotonic() - start


@pytest.fixture
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Whatever happened in the test, nothing secret is in the log."""
    with (
        Server(tmp_path / "valkey", password=PASSWORD) as server,
        Wire(server.port) as wire,
        Sandbox(ticket="new").serve() as sandbox,
        Log().listening() as log,
    ):
        bench = Bench(server, wire, sandbox, log, tmp_path, request)
        if request.node.get_closest_marker("slow") is None:  # one that hangs is slow to test
            bench.patience = "?socket_timeout=30&socket_connect_timeout=30"
        yield bench
        server.thaw()
        file = tmp_path / "gunicorn.log"
        log.lines += file.read_text().splitlines() if file.exists() else []
        log.assert_clean(secrets_of(sandbox) | {PLANTED, PASSWORD})


# -- a store that is down, one way or another ------------------------------------------------------

Fault = Callable[[Bench], Callable[[], None]]


def killed(bench: Bench) -> Callable[[], None]:
    bench.server.stop()
    return bench.server.start


def refused(bench: Bench) -> Callable[[], None]:
    bench.wire.close()
    return bench.wire.open


def frozen(bench: Bench) -> Callable[[], None]:
    bench.server.freeze()
    return bench.server.thaw


def hanging(bench: Bench) -> Callable[[], None]:
    bench.wire.hangs = True

    def heal() -> None:
        bench.wire.cut()
        bench.wire.hangs = False

    return heal


def wrong_password(bench: Bench) -> Callable[[], None]:
    def change(password: str) -> None:
        bench.server.do("CONFIG", "SET", "requirepass", password)
        bench.server.password = password

    change("another")
    bench.wire.cut()
    return lambda: change(PASSWORD)


#: A look at one that does not answer takes a second.
DOWN = [killed, refused, wrong_password] + [
    pytest.param(fault, marks=pytest.mark.slow) for fault in (frozen, hanging)
]


@pytest.mark.parametrize("fault", DOWN, ids=lambda fault: fault.__name__)
def test_a_warm_service_does_not_notice_a_redis_that_is_down(
    bench: Bench, fault: Fault, figure: Figure
) -> None:
    """All reads are served untouched, nothing is asked of WeChat, and the records come back."""
    with bench.serve(3) as service:
        first = service.rush(2)
        assert set(service.read_all()) == set(first)
        assert service.calls == ONE_EACH
        wait_until(bench.restored, what="token and ticket are saved")
        service.settle()
        bench.log.events.clear()

        heal = fault(bench)
        bench.wait_for("store_down cache", 3)
        service.wait_for_looks()
        reads = 100
        for _ in range(reads):
            assert service.touched() == []
        assert set(service.read_all()) == set(first)
        assert bench.log.store_events == {"store_down cache": 3}

        heal()
        seconds = bench.wait_for("store_up cache", 3)
        wait_until(bench.restored, what="token and ticket are back")
        service.wait_for_looks()
        assert bench.log.store_events == {"store_down cache": 3, "store_up cache": 3}
        assert set(service.read_all()) == set(first)
        assert service.calls == ONE_EACH
    figure(
        f"Redis {fault.__name__}, ticket fresh",
        "no read touches it, no upstream call, a line down and one up a process",
        f"{3 * reads} reads, 0 calls, up after {seconds:.1f} s (sync 0.1 s)",
    )


@pytest.mark.parametrize("fault", DOWN, ids=lambda fault: fault.__name__)
def test_a_cold_process_does_without_a_redis_that_is_down(
    bench: Bench, fault: Fault, figure: Figure
) -> None:
    """Each process asks WeChat once, for itself, and says once what is wrong."""
    heal = fault(bench)
    with bench.serve(2) as service:
        answers = service.rush(4)
        assert not [answer for answer in answers if not isinstance(answer, str)]
        service.wait_for_looks()
        service.read_all()
        assert service.calls == {"stable_token": 2, "getticket": 2}
        assert bench.log.store_events == {"store_down cache": 2}
        heal()
        wait_until(bench.restored, what="the store is given what they hold")
        assert service.calls == {"stable_token": 2, "getticket": 2}
    figure(
        f"Redis {fault.__name__}, 2 processes cold",
        "one token and one ticket call a process",
        "2 + 2 calls",
    )


def test_a_redis_killed_while_the_ticket_is_stale_costs_no_call(
    bench: Bench, figure: Figure
) -> None:
    """Pages go on with the old ticket; the restarted, empty server gets a new one and the token."""
    with bench.server.client() as client:
        planted = plant(client, bench.sandbox, fresh_for=1000, stale_for=1000)
    with bench.serve(3, WXJSAPI_REFRESH_AHEAD=1000) as service:
        assert set(service.read_all()) == {planted}
        service.settle()
        bench.server.stop()
        bench.wait_for("store_down cache", 3)
        service.clock.advance(1000)
        wait_until(lambda: set(service.states()) == {"stale"}, what="the renewal is due")
        service.wait_for_looks()
        service.read_all()
        for _ in range(100):
            assert service.touched() == []
        assert set(service.read_all()) == {planted}
        assert service.calls == {}

        bench.server.start()
        wait_until(bench.restored, what="token and ticket are back")
        wait_until(lambda: planted not in service.read_all(), what="everybody has the new one")
        service.wait_for_looks()
        assert len(set(service.read_all())) == 1
        assert service.calls == {"getticket": 1}
        bench.wait_for("store_up cache", 3)
        assert bench.log.store_events == {"store_down cache": 3, "store_up cache": 3}
    figure("Redis killed, ticket stale", "no upstream call until it is back", "0 calls, then 1")


def test_flushes_cost_no_call_and_no_line(bench: Bench, figure: Figure) -> None:
    """After each of five FLUSHALL token and ticket are put back by whoever holds them."""
    with bench.serve(3) as service:
        first = set(service.rush(2))
        start = time.monotonic()
        for _ in range(5):
            bench.server.do("FLUSHALL")
            wait_until(bench.restored, what="token and ticket are back")
            assert set(service.read_all()) == first
        seconds = (time.monotonic() - start) / 5
        assert service.calls == ONE_EACH
        assert bench.log.store_events == {}
    figure(
        "FLUSHALL, 5 times",
        "the records come back, no upstream call",
        f"after {seconds:.1f} s each",
    )


def test_a_redis_that_comes_and_goes_is_logged_at_each_change(bench: Bench) -> None:
    """Three outages are three lines down and three up a process, however often it is read."""
    with bench.serve(2) as service:
        service.rush(2)
        wait_until(bench.restored, what="token and ticket are saved")
        service.settle()
        for outage in range(1, 4):
            bench.wire.close()
            bench.wait_for("store_down cache", 2 * outage)
            bench.wire.open()
            bench.wait_for("store_up cache", 2 * outage)
        assert bench.log.store_events == {"store_down cache": 6, "store_up cache": 6}
        assert service.calls == ONE_EACH


def test_a_redis_killed_in_mid_fetch_is_logged_once_down_and_once_up(bench: Bench) -> None:
    """The save and the release that fail are the same outage; all is said to be well again."""
    bench.sandbox.fail("hang", path="getticket")
    with bench.serve(1, WXJSAPI_REFRESH_TIMEOUT=60) as service:
        reader = threading.Thread(target=service.read, args=(0,), daemon=True)
        reader.start()
        wait_until(lambda: service.calls.get("getticket") == 1, what="it asks")
        bench.server.stop()
        bench.sandbox.heal()
        reader.join(60)
        bench.wait_for("store_down cache", 1)
        service.wait_for_looks()
        assert bench.log.store_events == {"store_down cache": 1}
        bench.server.start()
        wait_until(bench.restored, what="token and ticket are there")
        app, wxjsapi = service.pages[0]
        with app.app_context():
            wxjsapi.refresh()  # takes and releases the lease
        bench.wait_for("store_up cache", 1)  # told by a look, at its very end
        assert bench.log.store_events == {"store_down cache": 1, "store_up cache": 1}
        assert service.calls == {"stable_token": 1, "getticket": 2}


@pytest.mark.slow
def test_no_reader_notices_a_frozen_redis_when_a_refresh_is_due(
    bench: Bench, figure: Figure
) -> None:
    """2 workers under load, Redis stopped through the refresh point: untouched reads, few looks."""
    with bench.server.client() as client:
        planted = plant(client, bench.sandbox, fresh_for=6)
    settings = {"WXJSAPI_REFRESH_AHEAD": "100", "WXJSAPI_SYNC_INTERVAL": "0.5"}
    # Two connections a worker and four readers: each worker gets its share of them.
    options = ["--workers=2", "--threads=2", "--worker-connections=2"]
    with bench.gunicorn(*options, **settings) as gunicorn:
        warm: set[int] = set()

        def is_warm() -> bool:
            answer = gunicorn.get("/touched")
            warm.update([] if answer["touched"] else [answer["pid"]])
            return len(warm) == 2

        wait_until(is_warm, what="both workers hold it")
        bench.server.freeze()
        wait_until(lambda: gunicorn.get("/status")["state"] == "stale", what="it is due")
        before = bench.wire.requests
        reads: list[Any] = []
        end = time.monotonic() + 4

        def load() -> None:
            with requests.Session() as session:
                while time.monotonic() < end:
                    response = session.get(f"{gunicorn.url}/touched", timeout=30)
                    reads.append(response.json() if response.ok else response.status_code)

        threads = [threading.Thread(target=load, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        looks = bench.wire.requests - before
        assert not [read for read in reads if not isinstance(read, dict)]
        assert not [read["touched"] for read in reads if read["touched"]]
        assert {read["pid"] for read in reads} == warm
        # A look ends with its first second of silence, and the next is half a second later.
        assert looks <= 2 * (4 / 1.4 + 2)
        assert bench.sandbox.calls == {}

        bench.server.thaw()
        start = time.monotonic()
        wait_until(lambda: bench.server.records()["jsapi_ticket"]["value"] != planted)
        seconds = time.monotonic() - start
        gunicorn.pids(2)
        log = gunicorn.log
        wait_until(lambda: log.read_text().count("'store_up'") == 2, what="both say so")
    assert log.read_text().count("'store_down'") == 2
    assert log.read_text().count("'store_up'") == 2
    assert bench.sandbox.calls == {"getticket": 1}
    figure(
        "Redis frozen, refresh due, 2 workers",
        "no read fails or touches it; heals by itself",
        f"{len(reads)} reads, {looks} looks in 4 s, new ticket {seconds:.1f} s after SIGCONT",
    )


# -- a store that answers, but not as it should ----------------------------------------------------


@pytest.fixture
def master(bench: Bench) -> Iterator[Server]:
    """Another server, which has what the bench's has: a switch-over made by hand."""
    with Server(bench.directory / "master") as other:
        bench.server.do("CONFIG", "SET", "masterauth", "")
        yield other


def switch_over(bench: Bench, master: Server) -> None:
    """The bench's server becomes a read-only replica of the other one, without losing a key."""
    master.do("CONFIG", "SET", "masterauth", PASSWORD)
    master.follow(bench.server)
    master.follow(None)
    bench.server.follow(master)


@pytest.mark.slow
def test_a_switch_over_to_a_read_only_replica_is_not_noticed(bench: Bench, master: Server) -> None:
    """A warm service with a fresh ticket only reads: nothing fails, nothing is asked or logged."""
    with bench.serve(2) as service:
        first = set(service.rush(2))
        switch_over(bench, master)
        service.wait_for_looks()
        assert set(service.read_all()) == first
        assert service.touched() == []
        assert service.calls == ONE_EACH
        assert bench.log.store_events == {}


def full(bench: Bench) -> Callable[[], None]:
    bench.server.do("CONFIG", "SET", "maxmemory", "1")  # of which there is none to be evicted
    return lambda: bench.server.do("CONFIG", "SET", "maxmemory", "0")


def replica(bench: Bench) -> Callable[[], None]:
    bench.server.follow(bench.request.getfixturevalue("master"))
    return lambda: bench.server.follow(None)


READ_ONLY = [full, pytest.param(replica, marks=pytest.mark.slow)]


@pytest.mark.parametrize("fault", READ_ONLY, ids=lambda fault: fault.__name__)
def test_a_store_that_lost_the_records_and_takes_no_writes_is_logged_once(
    bench: Bench, fault: Fault
) -> None:
    """It reads and does not write: that is one state, not one that changes at every look."""
    with bench.serve(2) as service:
        first = set(service.rush(2))
        bench.server.do("FLUSHALL")
        heal = fault(bench)
        service.wait_for_looks(5)
        assert set(service.read_all()) == first
        assert service.calls == ONE_EACH
        lines = sum(bench.log.store_events.values())
        assert lines <= 2 * 2, bench.log.store_events  # a line for records, one for the lease
        heal()
        wait_until(bench.restored, what="token and ticket are back")
        assert service.calls == ONE_EACH


@pytest.mark.parametrize("fault", READ_ONLY, ids=lambda fault: fault.__name__)
def test_cold_processes_on_a_store_that_takes_no_writes_ask_once_each(
    bench: Bench, fault: Fault, figure: Figure
) -> None:
    """Each gets its own ticket, says once what is wrong, and asks no more."""
    fault(bench)
    with bench.serve(2) as service:
        answers = service.rush(4)
        assert not [answer for answer in answers if not isinstance(answer, str)]
        service.wait_for_looks(5)
        service.read_all()
        assert service.calls == {"stable_token": 2, "getticket": 2}
        lines = sum(bench.log.store_events.values())
        assert lines <= 2 * 2, bench.log.store_events
    name = {"full": "Redis full", "replica": "read-only replica"}[fault.__name__]
    figure(f"{name}, 2 processes cold", "one call of each kind a process", "2 + 2 calls")


def replica_in_sync(bench: Bench) -> Callable[[], None]:
    switch_over(bench, bench.request.getfixturevalue("master"))
    return lambda: bench.server.follow(None)


@pytest.mark.parametrize(
    "fault",
    [full, pytest.param(replica_in_sync, marks=pytest.mark.slow)],
    ids=["full", "replica"],
)
def test_a_stale_ticket_on_a_store_that_takes_no_writes_costs_no_call(
    bench: Bench, fault: Fault
) -> None:
    """As with any store that is down: only a process with nothing left asks for itself."""
    with bench.server.client() as client:
        planted = plant(client, bench.sandbox, fresh_for=1000, stale_for=1000)
    with bench.serve(3, WXJSAPI_REFRESH_AHEAD=1000) as service:
        assert set(service.read_all()) == {planted}
        heal = fault(bench)
        service.clock.advance(1000)
        service.wait_for_looks(5)
        assert service.calls == {}
        assert set(service.read_all()) == {planted}
        assert sum(bench.log.store_events.values()) <= 3 * 2, bench.log.store_events
        heal()
        wait_until(lambda: planted not in service.read_all(), what="everybody has a new one")
        assert service.calls == {"getticket": 1}


@pytest.mark.slow
def test_a_slow_redis_still_makes_it_one_call(bench: Bench, figure: Figure) -> None:
    """Half a second an answer, two processes cold: a reader's time may run out, calls do not."""
    bench.wire.delay = 0.5
    start = time.monotonic()
    with bench.serve(2, WXJSAPI_REFRESH_TIMEOUT=10) as service:
        answers = service.rush(4)
        assert all(isinstance(answer, (str, TicketUnavailable)) for answer in answers)
        assert [answer for answer in answers if isinstance(answer, str)]

        def have_it() -> bool:
            return not [a for a in service.rush(1) if not isinstance(a, str)]

        wait_until(have_it, 40, "both processes have it")
        seconds = time.monotonic() - start
        assert len(set(service.read_all())) == 1
        service.wait_for_looks(2)
        for _ in range(100):
            assert service.touched() == []
        assert service.calls == ONE_EACH
        assert bench.log.store_events == {}
    unlucky = len([answer for answer in answers if not isinstance(answer, str)])
    figure(
        "Redis slow (0.5 s an answer), 2 processes cold",
        "one call of each kind, warm reads untouched",
        f"1 + 1 calls, all have it after {seconds:.1f} s, {unlucky} of 8 readers timed out at 10 s",
    )


@pytest.mark.slow
def test_a_redis_just_short_of_being_down_does_not_use_up_a_renewals_time(bench: Bench) -> None:
    """0.9 s an answer, WeChat well: a cold process gets its ticket, and WeChat is not blamed."""
    bench.wire.delay = 0.9
    bench.sandbox.fail("slow:0.3", times=None)
    with bench.serve(1, background=False, WXJSAPI_REFRESH_TIMEOUT=10) as service:

        def has_it() -> bool:
            return isinstance(service.rush(1)[0], str)

        wait_until(has_it, 25, "two readers' patience")
        assert service.calls == ONE_EACH
        assert bench.log.events["refresh_failed"] == 0


class Boom:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def damage_list(client: Any, name: str, trap: Path) -> None:
    client.lpush(name, "x")


def damage_garbage(client: Any, name: str, trap: Path) -> None:
    client.set(name, b"\x00\xff\xfe{]")


def damage_pickle(client: Any, name: str, trap: Path) -> None:
    client.set(name, b"!" + pickle.dumps(Boom(trap)))  # as cachelib's own serializer has them


def damage_other_json(client: Any, name: str, trap: Path) -> None:
    client.set(name, b'{"value": 7, "expires_at": "NaN"}')


DAMAGE = [damage_list, damage_garbage, damage_pickle, damage_other_json]
BOTH = ("access_token", "jsapi_ticket")


def is_whole(bench: Bench) -> bool:
    """Whether both records are ours again."""
    found = {}
    for name in BOTH:
        if bench.server.do("TYPE", key(bench.sandbox, name)) != b"string":
            return False
        try:
            found = bench.server.records()
        except ValueError:
            return False
    return all(isinstance(found[name], dict) and "generation" in found[name] for name in BOTH)


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damage_under_our_keys_is_replaced_by_whoever_holds_the_records(
    bench: Bench, damage: Callable[[Any, str, Path], None], figure: Figure
) -> None:
    """Warm: said once a record and process at most, no upstream call, and nothing is unpickled."""
    trap = bench.directory / "trap"
    with bench.serve(2) as service, bench.server.client() as client:
        first = set(service.rush(2))
        for name in BOTH:
            with client.pipeline() as both:  # or somebody gives the record back in between
                both.delete(key(bench.sandbox, name))
                damage(both, key(bench.sandbox, name), trap)
                both.execute()
        wait_until(lambda: is_whole(bench), what="the records are whole")
        service.wait_for_looks()
        assert set(service.read_all()) == first
        assert service.calls == ONE_EACH
        assert set(bench.log.store_events) <= {"record_damaged"}
        # A look asks for several keys at once, and to that Redis says of a list that it is nothing.
        least = 0 if damage is damage_list else 1
        bench.wait_for("record_damaged", least)
        assert bench.log.events["record_damaged"] <= 2 * len(BOTH)
    assert not trap.exists()
    name = damage.__name__.removeprefix("damage_")
    figure(f"Redis: {name} under our keys", "replaced, no upstream call, not loaded", "0 calls")


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damage_under_our_keys_costs_cold_processes_one_call(
    bench: Bench, damage: Callable[[Any, str, Path], None]
) -> None:
    """Cold: the damaged records count as absent, once for the whole cluster."""
    trap = bench.directory / "trap"
    with bench.server.client() as client:
        for name in (*BOTH, "backoff.access_token", "backoff.jsapi_ticket", "refresh.jsapi_ticket"):
            damage(client, key(bench.sandbox, name), trap)
    with bench.serve(2) as service:
        answers = service.rush(4)
        assert not [answer for answer in answers if not isinstance(answer, str)]
        assert len(set(answers)) == 1
        wait_until(lambda: is_whole(bench) if damage is damage_other_json else True)
        service.wait_for_looks()
        assert service.calls == ONE_EACH
        assert set(bench.log.store_events) <= {"record_damaged"}
    assert not trap.exists()


@pytest.mark.slow
@pytest.mark.parametrize("damage", [damage_list, damage_garbage], ids=["list", "garbage"])
def test_damage_under_the_lease_is_over_with_a_leases_life(
    bench: Bench, damage: Callable[[Any, str, Path], None]
) -> None:
    """What lies there without an expiry must not keep a cluster from its ticket for ever."""
    with bench.server.client() as client:
        damage(client, key(bench.sandbox, "lease"), bench.directory)
    with bench.serve(2, background=False, WXJSAPI_REFRESH_TIMEOUT=1) as service:

        def have_it() -> bool:
            return not [answer for answer in service.rush(1) if not isinstance(answer, str)]

        wait_until(have_it, 15, "both processes have it")
        assert service.calls == ONE_EACH


# -- leases ----------------------------------------------------------------------------------------


def test_a_lease_lost_to_a_flush_costs_one_more_call_and_frees_nobody_elses(
    bench: Bench, figure: Figure
) -> None:
    """The first holder's release comes while another has the lease, and leaves it alone."""
    bench.sandbox.fail("hang", times=2, path="getticket")
    with bench.serve(2, background=False, WXJSAPI_REFRESH_TIMEOUT=60) as service:
        readers = [threading.Thread(target=service.read, args=(n,), daemon=True) for n in (0, 1)]
        readers[0].start()
        wait_until(lambda: service.calls.get("getticket") == 1, what="the holder asks")
        faults = bench.sandbox._faults
        with bench.sandbox._lock:  # once the call that was counted has what it waits for
            first, faults.release = faults.release, threading.Event()  # one after the other
        bench.server.do("FLUSHALL")
        readers[1].start()
        wait_until(lambda: service.calls.get("getticket") == 2, what="another asks as well")
        lease = bench.lease()
        assert lease is not None
        assert readers[0].is_alive()
        first.set()
        readers[0].join(60)
        wait_until(lambda: "jsapi_ticket" in bench.server.records(), what="the first has saved")
        assert readers[1].is_alive()
        assert bench.lease() == lease
        bench.sandbox.heal()
        readers[1].join(60)
        wait_until(lambda: bench.lease() is None, what="its owner releases it")
        assert service.calls == {"stable_token": 2, "getticket": 2}
        assert bench.log.store_events == {}
    figure("FLUSHALL in mid-fetch", "at most one more call of each kind", "1 + 1 more")


def is_landed(gunicorn: Gunicorn, pid: int) -> bool:
    """Whether no renewal is under way in a worker."""
    answer = gunicorn.get("/threads")
    return answer["pid"] == pid and not any("renewal" in name for name in answer["threads"])


def read_in_background(gunicorn: Gunicorn) -> threading.Thread:
    def read() -> None:
        try:
            requests.get(f"{gunicorn.url}/ticket", timeout=60)
        except requests.RequestException:
            pass  # its worker was killed

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


PAUSED = {"WXJSAPI_REFRESH_TIMEOUT": "3", "WXJSAPI_BACKGROUND_REFRESH": "false"}  # a lease of 8 s


@pytest.mark.slow
def test_a_paused_lease_holder_overwrites_nothing_newer(bench: Bench, figure: Figure) -> None:
    """SIGSTOP in mid-fetch beyond the lease: another renews, and the late result is not saved."""
    with bench.gunicorn("--workers=2", "--threads=4", **PAUSED) as gunicorn:
        pids = gunicorn.pids(2)
        bench.sandbox.fail("hang", path="getticket")
        reader = read_in_background(gunicorn)
        wait_until(lambda: bench.sandbox.calls["getticket"] == 1, what="the holder asks")
        holder = _connected_to(bench.sandbox, pids)
        os.kill(holder, signal.SIGSTOP)
        try:
            start = time.monotonic()
            bench.sandbox.heal()  # the answer waits in the holder's socket

            def taken_over() -> Any:
                answer = requests.get(f"{gunicorn.url}/ticket", timeout=30)
                return answer.ok and answer.json()

            answer = wait_until(taken_over, 30, "another process has a ticket")
            seconds = time.monotonic() - start
            assert answer["pid"] != holder
            newer = bench.server.records()["jsapi_ticket"]
            assert newer["value"] == answer["ticket"]
        finally:
            os.kill(holder, signal.SIGCONT)
        reader.join(30)
        wait_until(lambda: is_landed(gunicorn, holder), 30, "the holder has landed")
        assert bench.server.records()["jsapi_ticket"] == newer
        assert bench.sandbox.calls["getticket"] == 2
        assert bench.sandbox.calls["stable_token"] == 1
    figure(
        "lease holder paused beyond its lease of 8 s",
        "another takes over with one call; the late result overwrites nothing",
        f"1 more call, after {seconds:.1f} s",
    )


@pytest.mark.slow
def test_a_paused_lease_holder_frees_nobody_elses_lease(bench: Bench) -> None:
    """Continued while another holds the lease, its release leaves that one alone."""
    with bench.gunicorn("--workers=2", "--threads=4", **PAUSED) as gunicorn:
        pids = gunicorn.pids(2)
        bench.sandbox.fail("hang", path="getticket")
        bench.sandbox.fail("slow:2", path="getticket")
        first = read_in_background(gunicorn)
        wait_until(lambda: bench.sandbox.calls["getticket"] == 1, what="the holder asks")
        holder = _connected_to(bench.sandbox, pids)
        os.kill(holder, signal.SIGSTOP)
        try:
            wait_until(lambda: bench.lease() is None, 20, "the lease has run out")
            second = read_in_background(gunicorn)
            wait_until(lambda: bench.sandbox.calls["getticket"] == 2, what="another asks")
            lease = bench.lease()
            assert lease is not None
        finally:
            os.kill(holder, signal.SIGCONT)
        first.join(30)  # with a failure: its time was up
        assert second.is_alive()
        assert bench.lease() == lease
        second.join(30)
        wait_until(lambda: "jsapi_ticket" in bench.server.records(), what="the other has saved")
        wait_until(lambda: bench.lease() is None, what="its owner releases it")
        assert bench.sandbox.calls["getticket"] == 2


@pytest.mark.slow
def test_lease_holders_killed_in_a_row_cost_one_call_each(bench: Bench, figure: Figure) -> None:
    """SIGKILL in mid-fetch, twice: the third finds the way free within a lease's life."""
    settings = {"WXJSAPI_REFRESH_TIMEOUT": "2", "WXJSAPI_BACKGROUND_REFRESH": "false"}
    with bench.gunicorn("--workers=2", "--threads=4", **settings) as gunicorn:
        bench.sandbox.fail("hang", times=2, path="stable_token")
        gotten: list[str] = []

        def insist() -> None:
            while not gotten:
                try:
                    response = requests.get(f"{gunicorn.url}/ticket", timeout=30)
                except requests.ConnectionError:
                    continue  # its worker was killed
                if response.ok:
                    gotten.append(response.json()["ticket"])

        def asked(times: int) -> bool:
            return bench.sandbox.calls["stable_token"] == times

        readers = [threading.Thread(target=insist, daemon=True) for _ in range(2)]
        pids = gunicorn.pids(2)
        for reader in readers:
            reader.start()
        moments = []
        for number in (1, 2):
            wait_until(partial(asked, number), what="one asks")
            gunicorn.kill(_connected_to(bench.sandbox, pids))
            moments.append(time.monotonic())
            pids = gunicorn.pids(2)
        wait_until(lambda: gotten, what="the third has the ticket")
        moments.append(time.monotonic())
        seconds = max(later - earlier for earlier, later in pairwise(moments))
        assert bench.sandbox.calls == {"stable_token": 3, "getticket": 1}
    figure(
        "lease holders killed, 2 in a row, lease of 7 s",
        "one more call each; another takes over within the lease's life",
        f"2 more calls, {seconds:.1f} s at most",
    )
