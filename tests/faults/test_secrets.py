"""Every fault once with all loggers at DEBUG and a debugger's page: nothing secret leaves."""

from __future__ import annotations

import errno
import io
import logging
import os
import shutil
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.debug import DebuggedApplication
from werkzeug.test import Client

from flask_wxjsapi import (
    Credential,
    TicketUnavailable,
    WxJsApi,
    WxJsApiError,
    ticket_refresh_failed,
    ticket_refreshed,
)
from flask_wxjsapi._credential import ACCESS_TOKEN
from flask_wxjsapi._engine.runtime import Runtime
from flask_wxjsapi.sandbox import Sandbox, protocol
from tests.conftest import Valkey
from tests.faults import test_files as files
from tests.faults import test_wechat as wechat
from tests.faults.conftest import Figure
from tests.faults.test_wechat import PATIENCE, Ahead, Process, Trouble

MakeApp = Callable[..., tuple[Flask, WxJsApi]]

WRONG_SECRET = "another-secret-of-somebody"
PASSWORD = "the-password-of-redis"


# -- what must not be seen, and where it could be ------------------------------------------------


class Log(logging.Handler):
    """Everything that any logger says, tracebacks included."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(threadName)s %(name)s %(message)s"))
        self.lines: list[str] = []
        self.names: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.names.add(record.name.partition(".")[0])
        self.lines.append(f"{self.format(record)} {record.__dict__}")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """All loggers at DEBUG; also those that were told to be quieter or to keep to themselves."""
    handler = Log()
    root = logging.getLogger()
    names = [*logging.Logger.manager.loggerDict, "urllib3", "requests", "redis", "filelock"]
    for logger in [root, *map(logging.getLogger, names)]:
        monkeypatch.setattr(logger, "level", logging.DEBUG)
        monkeypatch.setattr(logger, "disabled", False)
        monkeypatch.setattr(logger, "propagate", True)
    logging.Logger.manager._clear_cache()  # type: ignore[attr-defined]  # of who is enabled
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)
    logging.Logger.manager._clear_cache()  # type: ignore[attr-defined]


@pytest.fixture
def issued(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The value of every credential that was ever in this process."""
    values: set[str] = set()
    check = Credential.__post_init__

    def noted(self: Credential) -> None:
        values.add(self.value)
        check(self)

    monkeypatch.setattr(Credential, "__post_init__", noted)
    return values


def _of_wechat(sandbox: Sandbox) -> set[str]:
    """What the sandbox has issued, and the secrets of its accounts."""
    found = set()
    for account in sandbox._registry.accounts.values():
        found |= {account.app_secret, *account.tokens}
        found |= {ticket.value for tickets in account.tickets.values() for ticket in tickets}
    return found


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        yield from _chain(error.__cause__)
        error = error.__context__


def _of_error(error: BaseException) -> str:
    """All that a log, a page or an error tracker can show of an exception.

    Trackers show the local variables of each frame; the frames of this test know everything.
    """
    texts = []
    for one in _chain(error):
        texts += [str(one), repr(one), repr(one.args), repr(vars(one))]
        texts += traceback.format_exception(one)
        seen = traceback.TracebackException.from_exception(one, capture_locals=True)
        frames = [frame for frame in seen.stack if "flask_wxjsapi" in frame.filename]
        texts += [repr((frame.name, frame.locals)) for frame in frames]
    return "\n".join(texts)


def _runtimes(process: Process) -> list[Runtime]:
    return list(process.app.extensions["wxjsapi.engine"]._runtimes.values())


def _parts(runtime: Runtime) -> list[Any]:
    return [*runtime.stores._caches.values(), *runtime.stores._tickets.values()]


def _of_objects(process: Process) -> str:
    """What a debugger or a careless f-string shows of our objects."""
    account = process.wxjsapi._accounts_of(process.app).own
    credentials, holding = account.credentials, account.credentials.holding
    snapshots = holding.snapshots.values()
    objects: list[Any] = [
        process.wxjsapi,
        account,
        account.settings,
        account.api,
        credentials,
        process.wechat,
        credentials.status(look=False),
        credentials.session(),
        holding,
        holding.upstream,
        holding.keys,
        holding.plan,
        *snapshots,
        *(snapshot.credential for snapshot in snapshots),
        *(snapshot.back_off for snapshot in snapshots),
        *(snapshot.failure for snapshot in snapshots),
    ]
    for runtime in _runtimes(process):
        objects += [runtime, runtime.stores, *runtime.stores._stores.values()]
        objects += [runtime.threads, *runtime.threads._jobs, *runtime._flights.values()]
        for part in _parts(runtime):
            objects += [part, *part._server]
    return "\n".join(f"{found!r} {found}" for found in objects)


def _of_pages(process: Process) -> str:
    """The answers to a browser: two pages, a view that reads and one that renews, uncaught.

    Once as in production, once in the debugger of Werkzeug, which shows the source and the
    texts of exceptions; with what it writes to the server's error stream.
    """
    answers = []
    for debug in (False, True):
        process.app.debug = debug
        # Else the debugger never sees a TicketUnavailable, which is a 503 by itself.
        process.app.config["TRAP_HTTP_EXCEPTIONS"] = debug
        process.app.config["PROPAGATE_EXCEPTIONS"] = debug  # else they do so while TESTING
        served = DebuggedApplication(process.app, evalex=True) if debug else process.app
        client = Client(served)
        for path in ("/", "/config", "/ticket", "/token", "/refresh", "/nothing"):
            errors = io.StringIO()
            with client.get(path, errors_stream=errors) as response:
                answers.append(
                    f"{response.status} {response.headers}\n{response.get_data(as_text=True)}"
                )
            answers.append(errors.getvalue())
    process.app.debug = process.app.config["TRAP_HTTP_EXCEPTIONS"] = False
    return "\n".join(answers)


def _add_views(process: Process) -> None:
    app, wxjsapi = process.app, process.wxjsapi
    app.add_url_rule("/config", "config", lambda: wxjsapi.config(["scanQRCode"]))
    app.add_url_rule("/ticket", "ticket", lambda: (wxjsapi.ticket, "")[1])
    app.add_url_rule("/token", "token", lambda: (wxjsapi.access_token, "")[1])
    app.add_url_rule("/refresh", "refresh", lambda: (wxjsapi.refresh(), "")[1])


# -- the faults ----------------------------------------------------------------------------------


class Scene:
    """Where a fault takes place.

    :param fixture: gets a fixture by name.
    """

    def __init__(self, fixture: Callable[[str], Any]) -> None:
        self.sandbox: Sandbox = fixture("sandbox")
        self.fixture = fixture
        self.directory: Path = fixture("tmp_path") / "cache"
        self.errors: list[BaseException] = []
        self.ends: list[Callable[[], Any]] = []
        self.processes: list[Process] = []
        self.told: list[str] = []
        self.hangs = False  # whether user code does, and so a renewal has no end

    def process(self, **config: Any) -> Process:
        config = {"WXJSAPI_REFRESH_TIMEOUT": 0.3} | config
        app, wxjsapi = self.fixture("make_app")(**config)
        clock = self.processes[0].clock if self.processes else Ahead(frozen=True)
        process = Process(app, wxjsapi, clock=clock)
        _add_views(process)
        ticket_refreshed.connect(self._note, app)
        ticket_refresh_failed.connect(self._note, app)
        self.processes.append(process)
        return process

    def keys(self) -> list[str]:
        """Of everything in the stores of these processes."""
        found = []
        for process in self.processes:
            parts = [part for runtime in _runtimes(process) for part in _parts(runtime)]
            for server in [server for part in parts for server in part._server]:
                backend = getattr(server, "_backend", None)
                found += [*getattr(backend, "_cache", ()), *getattr(server, "records", ())]
                if getattr(server, "_client", None) is not None:
                    try:
                        found += [key.decode() for key in server._client.keys("*")]
                    except Exception as error:
                        self.errors.append(error)
        return found

    def _note(self, app: Flask, **facts: Any) -> None:
        self.told.append(repr(facts))
        if "error" in facts:
            self.errors.append(facts["error"])

    def use(self, process: Process) -> None:
        """All the ways in; what they raise is kept."""
        for way in (
            process.ticket,
            lambda: process.credentials.get(ACCESS_TOKEN),
            process.look,
            process.refresh,
            process.page,
        ):
            try:
                way()
            except (WxJsApiError, TicketUnavailable) as error:
                self.errors.append(error)

    def warm(self, **config: Any) -> Process:
        process = self.process(**config)
        holding = process.credentials.holding
        times, holding.times = holding.times, replace(holding.times, timeout=PATIENCE)
        process.ticket()
        holding.times = times
        process.settle()
        return process

    def go_on(self, process: Process) -> None:
        """The ticket is fresh, then due, then over."""
        for seconds in (0, 7100, 300):
            if not self.hangs:
                process.settle()
            process.clock.advance(seconds)
            self.use(process)


def _wechat(fault: wechat.Fault) -> Callable[[Scene], None]:
    """A fault of WeChat's, for a cold process and for one with a ticket."""

    def play(scene: Scene) -> None:
        warm, cold = scene.warm(), scene.process()
        scene.ends += [fault.strike(scene.sandbox, warm), fault.strike(scene.sandbox, cold)]
        scene.use(cold)
        scene.go_on(warm)

    return play


def _echo(scene: Scene) -> None:
    """A gateway answers with what it was sent: the secret and the token."""
    process = scene.process()
    secret = process.wechat._app_secret
    patch = pytest.MonkeyPatch()
    patch.setitem(protocol._ERRMSG, 40125, f"you sent {secret}")
    scene.ends.append(patch.undo)
    scene.sandbox.fail("40125", times=None)
    scene.use(process)


def _wrong_secret(scene: Scene) -> None:
    scene.use(scene.process(WXJSAPI_APP_SECRET=WRONG_SECRET))


def _legacy(scene: Scene) -> None:
    """The old endpoint takes the secret in the query of its URL."""
    for fault in ("500", "40125", "close", "redirect", "html"):
        scene.sandbox.fail(fault, times=None)
        scene.use(scene.process(WXJSAPI_TOKEN_ENDPOINT="token"))
        scene.sandbox.heal()
    scene.use(scene.process(WXJSAPI_TOKEN_ENDPOINT="token"))


def _refused(scene: Scene) -> None:
    """Nobody listens: requests quotes the URL in its own error."""
    process = scene.warm()
    scene.sandbox.close()
    process.clock.advance(3600)
    scene.go_on(process)


def _revoked(scene: Scene) -> None:
    process = scene.warm()
    scene.sandbox.revoke_token()
    scene.use(process)


def _healthy(scene: Scene) -> None:
    scene.go_on(scene.warm())


def _user_code(where: str, mode: str) -> Callable[[Scene], None]:
    def play(scene: Scene) -> None:
        release = threading.Event()
        trouble = Trouble(release)
        scene.ends.append(release.set)
        process = scene.process(**wechat._custom(where, trouble))
        with wechat._connected(where, trouble, process):
            scene.use(process)
            process.settle()
            trouble.mode = mode
            scene.hangs = mode == "hangs"
            scene.go_on(process)

    return play


def _quoting(scene: Scene) -> None:
    """A custom server's and a provider's errors quote what they were given."""

    class Quoting(wechat.Server):
        def save(self, key: str, credential: Credential) -> None:
            raise RuntimeError(f"INSERT INTO tickets VALUES ({credential.value!r})")

    scene.go_on(scene.process(WXJSAPI_TICKET_SERVER=Quoting("", Trouble(threading.Event()))))

    def provider(rejected: str | None) -> Credential:
        raise RuntimeError(f"GET https://tokens.example/?secret={scene.sandbox.app_secret}")

    scene.use(scene.process(WXJSAPI_ACCESS_TOKEN_PROVIDER=provider))


def _files(strike: Callable[[files.Place], Any]) -> Callable[[Scene], None]:
    """Something that befalls the files; what it returns ends it."""

    def play(scene: Scene) -> None:
        config = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(scene.directory)}
        process = scene.warm(**config)
        place = files.Place(scene.directory.parent, files._Identity())
        for use in (scene.use, lambda _: scene.use(scene.process(**config)), scene.go_on):
            end = strike(place)
            if end is not None:
                scene.ends.append(end)
            use(process)

    return play


def _remove(place: files.Place) -> None:
    shutil.rmtree(place.cache_dir, ignore_errors=True)


def _block(place: files.Place) -> None:
    """A file where the directory should be: nothing can be read or written, by root either."""
    shutil.rmtree(place.ours, ignore_errors=True)
    place.ours.touch()


def _half(place: files.Place) -> None:
    """Records that end in the middle of a value."""
    for path in place.records():
        os.truncate(path, 60)


def _listed(place: files.Place) -> None:
    """Records that are JSON and hold a value, but are none of ours."""
    for path in place.records():
        data = path.read_bytes()
        path.write_bytes(data[:4] + b"[" + data[4:] + b"]")


def _full(place: files.Place) -> Callable[[], None]:
    """A disk that is full, of which cachelib tells with a traceback of its own."""

    def fail(*args: Any, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    patch = pytest.MonkeyPatch()
    patch.setattr(tempfile, "mkstemp", fail)
    return patch.undo


def _redis(
    strike: Callable[[Valkey], Any] = lambda valkey: None, *, each_key: tuple[str, ...] = ()
) -> Callable[[Scene], None]:
    """Something that befalls a Redis, or a command for each of our keys in it.

    :param strike: what it returns ends it.
    """

    def play(scene: Scene) -> None:
        valkey: Valkey = scene.fixture("valkey")
        config = {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": valkey.url}
        process = scene.warm(**config)
        if each_key:
            with valkey.client() as client:
                for key in client.keys("*"):
                    client.delete(key)
                    client.execute_command(each_key[0], key, *each_key[1:])
        end = strike(valkey)
        if end is not None:
            scene.ends.append(end)
        scene.use(process)
        scene.use(scene.process(**config))
        scene.go_on(process)

    return play


def _kill(valkey: Valkey) -> Callable[[], None]:
    valkey.stop()
    return valkey.start


def _make_replica(valkey: Valkey) -> Callable[[], None]:
    def follow(*master: str) -> None:
        with valkey.client() as client:
            client.execute_command("REPLICAOF", *master)

    follow("127.0.0.1", "1")
    return lambda: follow("NO", "ONE")


def _misuse(scene: Scene) -> None:
    """Mistakes in a view while there is a ticket: error trackers show the frames' variables."""
    process = scene.warm()
    calls: list[Callable[[], Any]] = [
        lambda: process.wxjsapi.config(),
        lambda: process.wxjsapi.config(url="example.com"),
        lambda: process.wxjsapi.config("scanQRCode", url="https://example.com/"),
        lambda: process.wxjsapi.config([], open_tag_list="tag", url="https://example.com/"),
        lambda: process.wxjsapi.script("scanQRCode", url="https://example.com/"),
        lambda: process.wxjsapi.script(url="example.com"),
        lambda: process.wxjsapi.script(share={"url": "x"}, url="https://example.com/"),
    ]
    for call in calls:
        with process.app.app_context(), pytest.raises(RuntimeError) as caught:
            call()
        scene.errors.append(caught.value)


def _wrong_password(scene: Scene) -> None:
    valkey: Valkey = scene.fixture("valkey")
    url = f"redis://user:{PASSWORD}@127.0.0.1:{valkey.port}/0"
    scene.go_on(scene.process(CACHE_TYPE="RedisCache", CACHE_REDIS_URL=url))


SCENES: dict[str, Callable[[Scene], None]] = {
    "no fault": _healthy,
    **{f"WeChat: {name}": _wechat(fault) for name, fault in wechat.FAULTS.items()},
    "WeChat: echoes what it was sent": _echo,
    "WeChat: refuses connections": _refused,
    "WeChat: the legacy endpoint": _legacy,
    "WeChat: the wrong secret": _wrong_secret,
    "access token revoked": _revoked,
    **{
        f"user code: {where} {mode}": _user_code(where, mode)
        for where in wechat.WHERE
        for mode in ("raises", "hangs")
    },
    "user code: errors that quote": _quoting,
    "files: no fault": _files(lambda place: None),
    "files: removed": _files(_remove),
    "files: in the way": _files(_block),
    "files: cut in a value": _files(_half),
    "files: other JSON": _files(_listed),
    "files: garbage": _files(files._overwrite(files.HEAD + b"\xff\x00{")),
    "files: planted pickle": _files(files._plant_pickle),
    "files: full disk": _files(_full),
    "redis: no fault": _redis(),
    "redis: killed": _redis(_kill),
    "redis: read-only": _redis(_make_replica),
    "redis: garbage": _redis(each_key=("SET", "garbage")),
    "redis: WRONGTYPE": _redis(each_key=("LPUSH", "1")),
    "redis: wrong password": _wrong_password,
    "misuse": _misuse,
}


# -- the tests -----------------------------------------------------------------------------------


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    scene = Scene(request.getfixturevalue)
    yield scene
    for end in reversed(scene.ends):
        end()


def _seen(scene: Scene, log: Log) -> dict[str, str]:
    """All that leaves, by where it was seen."""
    seen = {"pages": "\n".join(map(_of_pages, scene.processes))}
    seen["objects"] = "\n".join(map(_of_objects, scene.processes))
    seen["errors"] = "\n".join(map(_of_error, scene.errors))
    seen["signals"] = "\n".join(scene.told)
    seen["file names"] = "\n".join(map(str, scene.directory.parent.rglob("*")))
    seen["cache keys"] = "\n".join(scene.keys())
    seen["threads"] = "\n".join(thread.name for thread in threading.enumerate())
    seen["log"] = "\n".join(log.lines)  # the last: it has what the others have brought about
    return seen


def _is_slow(name: str) -> bool:
    """Whether `make test` goes without it: it takes seconds, or is one more of its kind."""
    kind, _, fault = name.partition(": ")
    return "hang" in name or (kind == "WeChat" and fault in wechat.FAULTS.keys() - wechat.FAST)


@pytest.mark.parametrize(
    "play",
    [
        pytest.param(play, id=name, marks=pytest.mark.slow if _is_slow(name) else ())
        for name, play in SCENES.items()
    ],
)
def test_nothing_secret_leaves(
    play: Callable[[Scene], None],
    scene: Scene,
    log: Log,
    issued: set[str],
    figure: Figure,
    request: pytest.FixtureRequest,
) -> None:
    """No log, page, error, repr, key or file name holds the secret, a token or a ticket."""
    play(scene)
    seen = _seen(scene, log)
    secrets = issued | _of_wechat(scene.sandbox) | {WRONG_SECRET, PASSWORD}
    assert min(map(len, secrets)) >= 8  # shorter ones could be anywhere
    leaks = {
        f"{where}: {text[max(0, text.index(secret) - 200) : text.index(secret) + 20]}"
        for where, text in seen.items()
        for secret in secrets
        if secret in text
    }
    assert not leaks
    size = sum(map(len, seen.values())) // 1000
    name = request.node.callspec.id
    figure(f"secrets: {name}", "nothing secret leaves", f"{len(secrets)} values, {size} kB")


def test_the_capture_misses_nothing(scene: Scene, log: Log, issued: set[str]) -> None:
    """What it is meant to see is there: the loggers, the debugger, the errors and the values."""
    scene.sandbox.fail("40125")
    cache = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(scene.directory)}
    process = scene.process(WXJSAPI_REFRESH_TIMEOUT=PATIENCE, **cache)
    process.app.logger.debug("here")
    scene.use(process)
    process.settle()  # signals are told at the very end
    seen = _seen(scene, log)
    assert {"flask_wxjsapi", "urllib3", "filelock", "tests"} <= log.names
    assert "/cgi-bin/stable_token" in seen["log"]
    assert "Werkzeug Debugger" in seen["pages"]
    assert "WXJSAPI_APP_SECRET is wrong" in seen["errors"]
    assert "jsapi_ticket" in seen["signals"]
    assert scene.sandbox.app_secret in _of_wechat(scene.sandbox)
    assert len(issued & _of_wechat(scene.sandbox)) == 2
