"""Redis as it stands in production: behind Sentinels that fail over, and as a Cluster."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_wxjsapi._storage.cache import CacheSettings
from flask_wxjsapi.sandbox import Sandbox
from tests.conftest import PATIENT, free_port, wait_until
from tests.processes import Gunicorn, at_once

from .conftest import Figure
from .valkeys import (
    ONE_EACH,
    PLANTED,
    Cluster,
    Log,
    Sentinels,
    Server,
    Service,
    Wire,
    key,
    plant,
    secrets_of,
)

pytestmark = pytest.mark.processes

BOTH = {"access_token", "jsapi_ticket"}
#: Where nothing dies: a server that waits for its turn is not taken for dead, by us or by others.
LONG = 30_000  # milliseconds
_PATIENT = {"CACHE_OPTIONS": PATIENT}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(ticket="new").serve() as sandbox:
        yield sandbox


@pytest.fixture
def log(sandbox: Sandbox) -> Iterator[Log]:
    """Whatever happened in the test, nothing secret is in the log."""
    with Log().listening() as log:
        yield log
        log.assert_clean(secrets_of(sandbox) | {PLANTED})


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[Sentinels]:
    with Sentinels(tmp_path / "sentinels") as sentinels:
        yield sentinels


@pytest.fixture(scope="module")
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster"), LONG) as cluster:
        yield cluster


@pytest.fixture
def cluster(_cluster: Cluster) -> Cluster:
    """The module's three nodes, all running and empty."""
    for node in _cluster.nodes:
        if node.process is None:
            node.start()
    _cluster.wait()
    _cluster.flush()
    return _cluster


def sentinel_config(sentinels: Sentinels) -> dict[str, Any]:
    return {"CACHE_TYPE": "RedisSentinelCache", "CACHE_REDIS_SENTINELS": sentinels.addresses}


def cluster_config(cluster: Cluster) -> dict[str, Any]:
    return {"CACHE_TYPE": "RedisClusterCache", "CACHE_REDIS_CLUSTER": cluster.address}


def commands(server: Server, name: str) -> int:
    """How often a server was asked to do something, other than by another server."""
    stats = server.do("INFO", "commandstats")
    found: int = stats.get(f"cmdstat_{name}", {}).get("calls", 0)
    return found


class Readers:
    """Threads that read in every process without a pause, and what became of it."""

    def __init__(self, service: Service) -> None:
        self.reads = 0
        self.failures: list[Exception] = []
        self._stop = threading.Event()
        self._service = service
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Readers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _read(self) -> None:
        while not self._stop.wait(0.005):
            try:
                self._service.read_all()
            except Exception as error:
                self.failures.append(error)
            self.reads += len(self._service.pages)


# -- Sentinel --------------------------------------------------------------------------------------


def test_cold_processes_behind_sentinels_cost_one_call(
    tmp_path: Path, sandbox: Sandbox, log: Log, figure: Figure
) -> None:
    """4 processes x 4 readers, cold: one token, one ticket, and all that is read is the master's.

    A replica may not have yet what was written a moment ago.
    """
    options = PATIENT | {"sentinel_socket_timeout": 30}
    with (
        Sentinels(tmp_path / "sentinels", down_after=LONG) as sentinels,
        Service(sandbox, 4, **sentinel_config(sentinels), CACHE_OPTIONS=options) as service,
    ):
        answers = service.rush(4)
        assert not [answer for answer in answers if not isinstance(answer, str)]
        assert len(set(answers)) == 1
        service.wait_for_looks()
        assert service.calls == ONE_EACH
        assert log.store_events == {}
        master, replica = sentinels.nodes
        assert commands(master, "get") + commands(master, "mget") > 4
        assert commands(replica, "get") + commands(replica, "mget") == 0
    figure("cold start, Sentinel, 4 processes x 4", "one call of each kind", "1 + 1 calls")


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
def test_a_failover_costs_no_call_and_no_read(
    tmp_path: Path, sandbox: Sandbox, log: Log, figure: Figure, count: int
) -> None:
    """The master killed: pages go on, and the records are on the new master afterwards."""
    with (
        Sentinels(tmp_path / "sentinels", count) as sentinels,
        Service(sandbox, 3, **sentinel_config(sentinels)) as service,
    ):
        master, replica = sentinels.nodes
        first = set(service.rush(2))
        service.wait_for_looks()
        with Readers(service) as readers:
            master.stop()
            seconds = sentinels.wait_for_failover()
            wait_until(lambda: log.events["store_up cache"] == 3, 30, "all have found the new one")
            wait_until(lambda: set(replica.records()) >= BOTH, what="the records are there")
            service.wait_for_looks()
        assert readers.reads > 0
        assert readers.failures == []
        assert set(service.read_all()) == first
        assert service.calls == ONE_EACH
        assert log.store_events == {"store_down cache": 3, "store_up cache": 3}
    figure(
        f"Sentinel failover ({count} sentinels), ticket fresh",
        "no failed read, no upstream call, a line down and one up a process",
        f"{readers.reads} reads, 0 calls, failover took {seconds:.1f} s",
    )


@pytest.mark.slow
def test_a_failover_in_mid_fetch_costs_one_more_call_at_most(
    sentinels: Sentinels, sandbox: Sandbox, log: Log, figure: Figure
) -> None:
    """The lease may be lost with the master; the old ticket is served until the new one is had."""
    master, replica = sentinels.nodes
    with master.client() as client:
        plant(client, sandbox, fresh_for=3)
    sandbox.fail("hang", path="getticket")
    with Service(sandbox, 3, WXJSAPI_REFRESH_AHEAD=100, **sentinel_config(sentinels)) as service:
        assert set(service.read_all()) == {PLANTED}
        with Readers(service) as readers:
            wait_until(lambda: service.calls.get("getticket") == 1, what="the holder asks")
            master.stop()
            sentinels.wait_for_failover()
            sandbox.heal()
            wait_until(lambda: PLANTED not in service.read_all(), 40, "all have a new one")
            service.wait_for_looks()
        assert readers.failures == []
        assert len(set(service.read_all())) == 1
        assert set(replica.records()) >= BOTH
        assert service.calls["getticket"] <= 2
        assert "stable_token" not in service.calls
        calls = service.calls["getticket"]
    figure("Sentinel failover in mid-fetch", "one more call at most", f"{calls - 1} more")


@pytest.mark.slow
def test_sentinels_that_are_all_away_are_a_store_that_is_down(
    sentinels: Sentinels, sandbox: Sandbox, log: Log
) -> None:
    """Connections to the master go on; new processes ask for themselves, and are told once."""
    with Service(sandbox, 2, **sentinel_config(sentinels)) as warm:
        first = set(warm.rush(2))
        for sentinel in sentinels.sentinels:
            sentinel.stop()
        warm.wait_for_looks()
        assert set(warm.read_all()) == first
        assert warm.calls == ONE_EACH
        assert log.store_events == {}
        with Service(sandbox, 1, **sentinel_config(sentinels)) as cold:
            assert len(cold.rush(2)) == 2
            cold.wait_for_looks()
            cold.read_all()
        assert sandbox.calls == {"stable_token": 2, "getticket": 2}
        assert log.store_events == {"store_down cache": 1}


# -- Cluster ---------------------------------------------------------------------------------------


def test_cold_processes_on_a_cluster_cost_one_call(
    cluster: Cluster, sandbox: Sandbox, log: Log, figure: Figure
) -> None:
    """4 processes x 4 readers, cold: one token, one ticket."""
    with Service(sandbox, 4, **cluster_config(cluster), **_PATIENT) as service:
        answers = service.rush(4)
        assert not [answer for answer in answers if not isinstance(answer, str)]
        assert len(set(answers)) == 1
        service.wait_for_looks()
        assert service.calls == ONE_EACH
        assert log.store_events == {}
    figure("cold start, Cluster, 4 processes x 4", "one call of each kind", "1 + 1 calls")


def test_all_keys_of_an_account_are_on_one_node(cluster: Cluster, sandbox: Sandbox) -> None:
    """Records and back-off alike: a failure leaves its note beside the token."""
    with Service(sandbox, 1, background=False, **cluster_config(cluster), **_PATIENT) as service:
        sandbox.fail("45009", path="getticket")
        service.rush(1)
        owner = cluster.owner(key(sandbox, "lease"))
        wait_until(lambda: "backoff.jsapi_ticket" in owner.records(), what="the note is there")
        assert set(owner.records()) == {"access_token", "backoff.jsapi_ticket"}
        assert not [n for n in cluster.nodes if n is not owner and n.do("DBSIZE")]


def test_a_cluster_is_not_connected_to_by_init_app(cluster: Cluster, sandbox: Sandbox) -> None:
    """redis-py's client for clusters connects in its constructor: it is built on first use."""
    with Wire(cluster.nodes[0].port) as wire:
        config = {
            "CACHE_TYPE": "RedisClusterCache",
            "CACHE_REDIS_CLUSTER": f"127.0.0.1:{wire.port}",
        }
        with Service(sandbox, 1, background=False, **config, **_PATIENT) as service:
            assert wire.connections == 0
            service.read_all()
            assert wire.connections > 0


def test_a_cluster_that_is_down_is_found_when_it_is_up(
    sandbox: Sandbox, log: Log, tmp_path: Path
) -> None:
    """No node answers when the service starts: a page gets its ticket from WeChat; one line."""
    address = f"127.0.0.1:{free_port()}"
    config: dict[str, Any] = {"CACHE_TYPE": "RedisClusterCache", "CACHE_REDIS_CLUSTER": address}
    with Service(sandbox, 2, **config) as service:
        answers = service.rush(4)
        assert not [answer for answer in answers if not isinstance(answer, str)]
        service.wait_for_looks()
        service.read_all()
        assert service.calls == {"stable_token": 2, "getticket": 2}
        assert log.store_events == {"store_down cache": 2}


@pytest.mark.slow
def test_pages_go_on_when_the_node_with_our_slot_is_killed(
    cluster: Cluster, sandbox: Sandbox, log: Log, figure: Figure
) -> None:
    """No read fails, nothing is asked, and the node gets the records back when it is."""
    with Service(sandbox, 3, **cluster_config(cluster)) as service:
        first = set(service.rush(2))
        service.wait_for_looks()
        owner = cluster.owner(key(sandbox, "lease"))
        with Readers(service) as readers:
            owner.stop()
            wait_until(lambda: log.events["store_down cache"] == 3, what="all have noticed")
            service.wait_for_looks()
            owner.start()
            start = time.monotonic()
            wait_until(lambda: log.events["store_up cache"] == 3, 40, "all have found it again")
            wait_until(lambda: set(owner.records()) >= BOTH, what="the records are back")
            seconds = time.monotonic() - start
            service.wait_for_looks()
        assert readers.failures == []
        assert set(service.read_all()) == first
        assert service.calls == ONE_EACH
        assert log.store_events == {"store_down cache": 3, "store_up cache": 3}
    figure(
        "Cluster: node with our slot killed and restarted",
        "no failed read, no upstream call, a line down and one up a process",
        f"{readers.reads} reads, 0 calls, up after {seconds:.1f} s",
    )


@pytest.mark.slow
def test_another_node_may_die_where_the_cluster_allows_it(
    cluster: Cluster, sandbox: Sandbox, log: Log
) -> None:
    """Without full coverage our slot goes on: a due renewal is one call, its lease is released."""
    owner = cluster.owner(key(sandbox, "lease"))
    other = next(node for node in cluster.nodes if node is not owner)
    for node in cluster.nodes:
        node.do("CONFIG", "SET", "cluster-require-full-coverage", "no")
    with owner.client() as client:
        plant(client, sandbox, fresh_for=4)
    with Service(sandbox, 3, WXJSAPI_REFRESH_AHEAD=100, **cluster_config(cluster)) as service:
        assert set(service.read_all()) == {PLANTED}
        other.stop()
        wait_until(lambda: PLANTED not in service.read_all(), 40, "all have the new one")
        assert len(set(service.read_all())) == 1
        assert service.calls == {"getticket": 1}
        wait_until(lambda: owner.do("GET", key(sandbox, "lease")) is None, 3, "lease released")
        assert log.store_events == {}
    other.start()
    cluster.wait()
    for node in cluster.nodes:
        node.do("CONFIG", "SET", "cluster-require-full-coverage", "yes")


@pytest.mark.slow
def test_a_cluster_failover_costs_no_call_and_no_read(
    tmp_path: Path, sandbox: Sandbox, log: Log, figure: Figure
) -> None:
    """The node with our slot is killed and its replica takes over: it has the records."""
    with Cluster(tmp_path / "cluster") as cluster:
        owner = cluster.owner(key(sandbox, "lease"))
        replica = cluster.add_replica(owner, tmp_path / "replica")
        with Service(sandbox, 3, **cluster_config(cluster)) as service:
            first = set(service.rush(2))
            service.wait_for_looks()
            with Readers(service) as readers:
                owner.stop()
                start = time.monotonic()
                wait_until(lambda: log.events["store_down cache"] == 3, what="all have noticed")
                wait_until(
                    lambda: replica.do("INFO", "replication")["role"] == "master", 40, "failover"
                )
                wait_until(lambda: log.events["store_up cache"] == 3, 40, "all have found it")
                seconds = time.monotonic() - start
                replica.do("FLUSHALL")
                wait_until(lambda: set(replica.records()) >= BOTH, what="it takes writes from us")
                service.wait_for_looks()
            assert readers.failures == []
            assert set(service.read_all()) == first
            assert service.calls == ONE_EACH
            assert log.store_events == {"store_down cache": 3, "store_up cache": 3}
    figure(
        "Cluster failover, ticket fresh",
        "no failed read, no upstream call, a line down and one up a process",
        f"{readers.reads} reads, 0 calls, up after {seconds:.1f} s",
    )


def test_a_look_at_many_accounts_is_split_by_slot(cluster: Cluster) -> None:
    """Each node has some of them, and they are found all the same."""
    app = Flask("tests")
    app.config.update(cluster_config(cluster) | _PATIENT)
    cache = CacheSettings(app.config, {}).open(app)
    try:
        names = [f"~wxjsapi:{{host/wx{number}}}:jsapi_ticket" for number in range(30)]
        for number, name in enumerate(names):
            cache.write(name, {"number": number}, 60)
        assert all(node.do("DBSIZE") for node in cluster.nodes)
        found = cache.read_many([*names, "~wxjsapi:{host/none}:jsapi_ticket"])
        assert found == {name: {"number": number} for number, name in enumerate(names)}
    finally:
        cache._client.close()


# -- real processes --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["sentinels", "cluster"])
def test_cold_workers_cost_one_call(
    topology: str, request: pytest.FixtureRequest, tmp_path: Path, figure: Figure
) -> None:
    """3 workers x 8 threads of gunicorn, set up from the environment, cold, WeChat slow."""
    store = request.getfixturevalue(topology)
    if topology == "sentinels":
        address = str(store.addresses).replace("'", '"')
        config = {"CACHE_TYPE": "RedisSentinelCache", "CACHE_REDIS_SENTINELS": address}
    else:
        config = cluster_config(store)
    config["WXJSAPI_BACKGROUND_REFRESH"] = "false"
    options = ["--workers=3", "--threads=8", "--worker-connections=8", "--keep-alive=0"]
    with (
        Sandbox(delay=0.7).serve() as sandbox,
        Gunicorn(sandbox, tmp_path, *options, **config) as gunicorn,
    ):
        answers = at_once(24, lambda: gunicorn.get("/ticket"))
        assert not [answer for answer in answers if not isinstance(answer, dict)]
        assert len({answer["ticket"] for answer in answers}) == 1
        assert len({answer["pid"] for answer in answers}) > 1
        assert sandbox.calls == ONE_EACH
    figure(f"cold start, {topology}, 3 workers x 8", "one call of each kind", "1 + 1 calls")
