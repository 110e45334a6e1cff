"""Every process model that a Flask app is served with, as real processes on a shared store."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_wxjsapi import WxJsApi
from flask_wxjsapi.sandbox import Sandbox

from ..conftest import Valkey, wait_until
from ..conftest import threads_of as threads_of_app
from ..processes import at_once
from .conftest import Figure
from .servers import (
    THREAD,
    UWSGI,
    Fleet,
    Reloader,
    Script,
    connections,
    handles,
    threads_of,
)

pytestmark = pytest.mark.processes

_LIFE, _AHEAD = 6.0, 3.0  # seconds: renewed every three
#: Two requests at a time: the third goes to the other worker.
_PAIR = ["--threads=2", "--worker-connections=2", "--keep-alive=0"]


@dataclass(frozen=True)
class Model:
    """A way to serve, and the store its processes share."""

    server: type[Fleet]
    options: list[str]
    store: str

    def config(self, request: pytest.FixtureRequest, directory: Path) -> dict[str, str]:
        if self.store == "redis":
            valkey: Valkey = request.getfixturevalue("_valkey_session")
            if valkey.process is None:
                valkey.start()
            with valkey.client() as client:
                client.flushall()
            return {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": valkey.url}
        return {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(directory / "cache")}


_GEVENT = ["--worker-class=gevent", "--worker-connections=2", "--keep-alive=0"]
MODELS = {
    "sync": Model(Fleet, [], "redis"),
    "sync-preload": Model(Fleet, ["--preload"], "files"),
    "gthread": Model(Fleet, _PAIR, "files"),
    "gthread-preload": Model(Fleet, [*_PAIR, "--preload"], "redis"),
    "gevent": Model(Fleet, _GEVENT, "redis"),
    "gevent-preload": Model(Fleet, [*_GEVENT, "--preload"], "files"),
    "uwsgi": Model(UWSGI, ["--enable-threads"], "redis"),
    "uwsgi-lazy-apps": Model(UWSGI, ["--enable-threads", "--lazy-apps"], "files"),
}
QUICK = {"gthread-preload"}  # what most people run; the rest in `make test-all`


@dataclass
class Served:
    """A fleet that has just answered its first readers, all at once."""

    name: str
    fleet: Fleet
    sandbox: Sandbox
    ports: tuple[int, ...]
    directory: Path
    started: float
    cold: list[Any]
    calls_when_cold: dict[str, int]
    seconds_when_cold: float


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in MODELS],
)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """One fleet a model; WeChat takes 0.3 s and gives a ticket of its own to every call."""
    model = MODELS[request.param]
    directory = tmp_path_factory.mktemp(request.param)
    rules = {"token_lifetime": 60.0, "ticket_lifetime": _LIFE, "ticket": "new", "delay": 0.3}
    with Sandbox(**rules).serve() as sandbox:  # type: ignore[arg-type]
        config = model.config(request, directory) | {
            "WXJSAPI_REFRESH_AHEAD": str(_AHEAD),
            "WXJSAPI_SYNC_INTERVAL": "0.5",
        }
        ports = [int(sandbox.url.rpartition(":")[2])]
        if "CACHE_REDIS_URL" in config:
            ports.append(request.getfixturevalue("_valkey_session").port)
        with model.server(sandbox, directory, *model.options, **config) as fleet:
            assert not sandbox.calls, "called before anybody asked"
            started = time.time()
            cold = at_once(12, lambda: fleet.read())
            seconds = time.time() - started
            yield Served(
                request.param,
                fleet,
                sandbox,
                tuple(ports),
                directory,
                started,
                cold,
                dict(sandbox.calls),
                seconds,
            )


def test_cold_readers_cost_one_call_of_each_kind(served: Served, figure: Figure) -> None:
    """12 readers at once, nobody has a ticket: one token, one ticket, the same for all."""
    assert all(isinstance(answer, dict) for answer in served.cold), served.cold
    figure(
        f"cold start, {served.name}, 2 workers, 12 readers",
        "one token call, one ticket call",
        f"{served.calls_when_cold}, all served in {served.seconds_when_cold:.1f} s",
    )
    assert len(served.cold) == 12
    assert len({answer["ticket"] for answer in served.cold}) == 1
    assert served.calls_when_cold == {"stable_token": 1, "getticket": 1}


def test_every_worker_has_one_thread_of_its_own(served: Served) -> None:
    """Each worker, once it had a request, runs one background thread."""
    answers = served.fleet.ask_everyone("/threads")
    threads = {pid: answer["threads"].count(THREAD) for pid, answer in answers.items()}
    assert threads == dict.fromkeys(served.fleet.workers, 1)


def test_the_master_touches_nothing(served: Served) -> None:
    """Neither thread nor connection nor open file of the cache in the process that forks."""
    master = served.fleet.master
    assert master not in served.fleet.workers
    assert threads_of(master) == 1
    assert connections(master, *served.ports) == []
    assert [path for path in handles(master) if path.startswith(str(served.directory / "c"))] == []


def test_it_is_renewed_behind_the_readers(served: Served, figure: Figure) -> None:
    """Reading all the time, in every worker: no failed read, one ticket call a period."""

    def tickets() -> list[float]:
        return [call.time for call in served.sandbox.history if call.name == "getticket"]

    wanted = len(tickets()) + (1 if served.name in QUICK else 2)
    reads = 0

    def is_renewed() -> bool:
        nonlocal reads
        answers = at_once(4, lambda: served.fleet.get("/ticket"))
        assert all(isinstance(answer, dict) for answer in answers), answers
        reads += len(answers)
        time.sleep(0.02)
        return len(tickets()) >= wanted

    wait_until(is_renewed, 40, "the ticket is renewed")
    gaps = [later - earlier for earlier, later in itertools.pairwise(tickets())]
    figure(
        f"renewal, {served.name}",
        f"no failed read, one ticket call in {_AHEAD:.0f} s",
        f"{reads} reads, least gap {min(gaps):.1f} s, {served.sandbox.calls['stable_token']} token",
    )
    # A ticket is due a whole period after WeChat was asked for the one before; on its way there and
    # back a busy machine may hold up any of them, so the gaps themselves say nothing.
    assert (len(tickets()) - 1) * (_LIFE - _AHEAD) <= tickets()[-1] - served.started
    assert served.sandbox.calls["stable_token"] == 1
    first = served.cold[0]["ticket"]
    served.fleet.ask_everyone("/ticket", lambda answer: bool(answer["ticket"] != first))


# -- gevent ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_busy_view_under_gevent_breaks_nothing(
    valkey: Valkey, tmp_path: Path, figure: Figure
) -> None:
    """Views that hold the interpreter for a second delay the renewal; no read fails of it."""
    with Sandbox(ticket="new", ticket_lifetime=_LIFE).serve() as sandbox:
        config = {
            "CACHE_TYPE": "RedisCache",
            "CACHE_REDIS_URL": valkey.url,
            "WXJSAPI_REFRESH_AHEAD": str(_AHEAD),
            "WXJSAPI_SYNC_INTERVAL": "0.5",
        }
        options = ["--worker-class=gevent"]
        with Fleet(sandbox, tmp_path, *options, workers=1, **config) as fleet:
            answers: list[Any] = []

            def is_renewed_twice() -> bool:
                paths = iter(["/spin?seconds=1", "/nap", "/ticket", "/ticket"])
                answers.extend(at_once(4, lambda: fleet.read(next(paths))))
                return sandbox.calls["getticket"] >= 3

            wait_until(is_renewed_twice, 60, "the ticket is renewed twice")
        times = [call.time for call in sandbox.history if call.name == "getticket"]
    assert all(isinstance(answer, dict) for answer in answers), answers
    figure(
        "gevent, a view that computes for 1 s all the time",
        "renewed between two of them",
        f"{times[1] - times[0] - _LIFE + _AHEAD:.1f} s late of {_AHEAD:.0f}",
    )


_UNPATCHED = """
from tests.faults.servers import create_app
made_before_patching = create_app()
"""


@pytest.mark.slow
def test_an_app_made_before_monkey_patching_does_not_freeze(tmp_path: Path) -> None:
    """The config file makes the app, then gunicorn patches: readers at once are all served."""
    config_file = tmp_path / "early.py"
    config_file.write_text(_UNPATCHED)
    with Sandbox(delay=0.5).serve() as sandbox:
        options = ["--worker-class=gevent", f"--config={config_file}", "--preload"]
        config = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path / "cache")}
        fleet = Fleet(sandbox, tmp_path, *options, app="early:made_before_patching", **config)
        fleet.add_path(tmp_path)
        with fleet:
            answers = at_once(8, lambda: fleet.read())
            assert all(isinstance(answer, dict) for answer in answers), answers
            assert fleet.ask_everyone("/nap").keys() == fleet.workers
        assert dict(sandbox.calls) == {"stable_token": 1, "getticket": 1}


# -- used before the fork --------------------------------------------------------------------------

_USED_EARLY = """
from tests.faults.servers import create_app
app = create_app()
with app.app_context():
    app.extensions["wxjsapi"]["default"].ticket
"""


# Not under uWSGI: it forks while the thread of the master may hold the GIL, and the worker then
# waits for that for ever. A plain thread that computes, started as a module is loaded, does it too.


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sync-preload", "gthread-preload", "gevent-preload"])
def test_workers_of_a_master_that_used_it_go_on_with_its_ticket(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A module that reads the ticket as it is loaded: each worker has it and its own thread."""
    model = MODELS[name]
    (tmp_path / "early.py").write_text(_USED_EARLY)
    config = model.config(request, tmp_path)
    with Sandbox().serve() as sandbox:
        fleet = model.server(sandbox, tmp_path, *model.options, app="early:app", **config)
        fleet.add_path(tmp_path)
        with fleet:
            wait_until(lambda: sandbox.calls["getticket"] == 1, what="the master has asked")
            answers = fleet.ask_everyone("/ticket")
            assert len({answer["ticket"] for answer in answers.values()}) == 1
            threads = fleet.ask_everyone("/threads")
            assert {answer["threads"].count(THREAD) for answer in threads.values()} == {1}
        assert dict(sandbox.calls) == {"stable_token": 1, "getticket": 1}


# -- uWSGI without --enable-threads ----------------------------------------------------------------

# Before 2.0.27 that means that a thread stands still between two requests of its process: it gets
# its turn while a view computes or waits. Since then uWSGI takes the option and ignores it.


@pytest.mark.slow
@pytest.mark.parametrize("store", ["redis", "files"])
def test_uwsgi_without_enable_threads_hands_out_tickets(
    store: str, request: pytest.FixtureRequest, tmp_path: Path, figure: Figure
) -> None:
    """Cold readers of every worker get the same ticket."""
    config = Model(UWSGI, [], store).config(request, tmp_path)
    with Sandbox(delay=0.3).serve() as sandbox, UWSGI(sandbox, tmp_path, **config) as fleet:
        answers = at_once(8, lambda: fleet.read())
        assert all(isinstance(answer, dict) for answer in answers), answers
        later = fleet.ask_everyone("/ticket")
        figure(
            f"cold start, uWSGI without --enable-threads, {store}",
            "one token call, one ticket call",
            f"{dict(sandbox.calls)}; {'on' if fleet.has_threads else 'OFF'} in this uWSGI",
        )
        assert len({answer["ticket"] for answer in [*answers, *later.values()]}) == 1
        assert dict(sandbox.calls) == {"stable_token": 1, "getticket": 1}


@pytest.mark.slow
@pytest.mark.parametrize("store", ["redis", "files"])
def test_uwsgi_without_enable_threads_renews(
    store: str, request: pytest.FixtureRequest, tmp_path: Path, figure: Figure
) -> None:
    """Requests now and then, over two lives of a ticket: none fails."""
    config = Model(UWSGI, [], store).config(request, tmp_path)
    config |= {"WXJSAPI_REFRESH_AHEAD": str(_AHEAD), "WXJSAPI_SYNC_INTERVAL": "0.5"}
    rules = {"ticket": "new", "ticket_lifetime": _LIFE, "token_lifetime": 60.0, "delay": 0.3}
    with (
        Sandbox(**rules).serve() as sandbox,  # type: ignore[arg-type]
        UWSGI(sandbox, tmp_path, **config) as fleet,
    ):
        answers: list[Any] = []

        def is_over() -> bool:
            answers.extend(at_once(2, lambda: fleet.read()))
            time.sleep(0.5)  # idle, which is when a thread may stand still
            return sandbox.calls["getticket"] >= 4

        wait_until(is_over, 60, "the ticket is renewed three times")
        failures = [answer for answer in answers if not isinstance(answer, dict)]
        figure(
            f"renewal, uWSGI without --enable-threads, {store}",
            "no failed read",
            f"{len(failures)} failed of {len(answers)}",
        )
        assert not failures, failures[:3]


# -- Flask's own server and commands ---------------------------------------------------------------

_SOURCE = """
from tests.service import create_app
app = create_app()
"""


def test_under_the_reloader_only_the_child_asks(tmp_path: Path) -> None:
    """The parent, which makes the app as well, has no thread and asks for nothing."""
    with Sandbox().serve() as sandbox:
        config = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path / "cache")}
        with Reloader(sandbox, tmp_path, _SOURCE, **config) as server:
            wait_until(lambda: isinstance(server.read("/nap"), dict), what="it serves")
            answer = server.get("/ticket")
            port = int(sandbox.url.rpartition(":")[2])
            assert {answer["pid"]} == server.workers
            assert threads_of(server.master) == 1
            assert connections(server.master, port) == []
            assert THREAD in server.get("/threads")["threads"]
        assert dict(sandbox.calls) == {"stable_token": 1, "getticket": 1}


@pytest.mark.slow
def test_starting_under_the_reloader_asks_for_nothing(tmp_path: Path) -> None:
    """Neither parent nor child calls WeChat before the first request."""
    with Sandbox().serve() as sandbox:
        with Reloader(sandbox, tmp_path, _SOURCE) as server:
            (child,) = server.workers
            port = int(sandbox.url.rpartition(":")[2])
            assert connections(child, port) == connections(server.master, port) == []
        assert not sandbox.calls


@pytest.mark.slow
def test_a_reload_goes_on_with_the_ticket(tmp_path: Path) -> None:
    """A touched file, a new child: it takes the ticket from the store and has its own thread."""
    with Sandbox().serve() as sandbox:
        config = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path / "cache")}
        with Reloader(sandbox, tmp_path, _SOURCE, **config) as server:
            wait_until(lambda: isinstance(server.read("/nap"), dict), what="it serves")
            before = server.get("/ticket")
            server.reload()
            wait_until(lambda: isinstance(server.read("/nap"), dict), what="it serves again")
            after = server.get("/ticket")
            assert after["ticket"] == before["ticket"]
            assert after["pid"] != before["pid"]
            assert THREAD in server.get("/threads")["threads"]
            assert threads_of(server.master) == 1
        assert dict(sandbox.calls) == {"stable_token": 1, "getticket": 1}


_ROUTES = """
import sys
def audit(event, args):
    if event in ("socket.connect", "_thread.start_new_thread"):
        print("TOUCHED", event, args, file=sys.stderr)
sys.addaudithook(audit)
from flask.cli import main
sys.argv = ["flask", "--app", "tests.service:create_app", "routes"]
main()
"""


def test_flask_routes_starts_no_thread_and_calls_nobody(sandbox: Sandbox) -> None:
    """A command that only makes the app connects to nothing."""
    with Script(sandbox, _ROUTES) as script:
        assert script.end() == 0
        assert "TOUCHED" not in script.stderr
    assert not sandbox.calls


# -- processes without requests --------------------------------------------------------------------

_TASKS = """
say(ticket=read(), threads=names())
for line in sys.stdin:
    say(ticket=read(), threads=names())
"""


def test_a_process_without_requests_has_a_thread_after_its_first_use(sandbox: Sandbox) -> None:
    """A queue's worker: the first use fetches, and starts the thread."""
    with Script(sandbox, _TASKS) as script:
        heard = script.hear()
    assert heard["ticket"]
    assert heard["threads"].count(THREAD) == 1
    assert dict(sandbox.calls) == {"stable_token": 1, "getticket": 1}


@pytest.mark.slow
def test_a_process_without_requests_keeps_its_ticket_warm(figure: Figure) -> None:
    """Nobody reads for two lives: the ticket is renewed, and the next read has a current one."""
    with Sandbox(ticket="new", ticket_lifetime=1).serve() as sandbox:
        config = {"WXJSAPI_SYNC_INTERVAL": "0.2"}
        with Script(sandbox, _TASKS, **config) as script:
            first = script.hear()
            wait_until(lambda: sandbox.calls["getticket"] >= 5, 40, "it is renewed by itself")
            script.tell()
            last = script.hear()
        figure(
            "a process that never sees a request",
            "its ticket is kept warm",
            f"{sandbox.calls['getticket'] - 1} renewals between two uses",
        )
        assert last["ticket"] != first["ticket"]
        assert last["threads"].count(THREAD) == 1
        assert sandbox.calls["stable_token"] == 1


_PREFORK = """
import multiprocessing
def work(_):
    ticket = read()
    time.sleep(0.2)  # so that each child gets its share
    return os.getpid(), ticket, names()
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(3) as pool:
        for pid, ticket, threads in pool.map(work, range(6), chunksize=1):
            say(pid=pid, ticket=ticket, threads=threads)
    say(own=names())
"""


@pytest.mark.slow
def test_a_preforking_queue_asks_once(tmp_path: Path) -> None:
    """Three forked workers, cold, at once: one call; a thread in each, none in the parent."""
    with Sandbox(delay=0.3).serve() as sandbox:
        config = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path / "cache")}
        with Script(sandbox, _PREFORK, **config) as script:
            heard = [script.hear() for _ in range(6)]
            assert THREAD not in script.hear()["own"]
            assert script.end() == 0
    assert len({one["ticket"] for one in heard}) == 1
    assert {one["threads"].count(THREAD) for one in heard} == {1}
    assert len({one["pid"] for one in heard}) == 3
    assert dict(sandbox.calls) == {"stable_token": 1, "getticket": 1}


# -- fork after use --------------------------------------------------------------------------------

_FORK_IN_FLIGHT = """
def child(number):
    # A reader of everything there is; the exit code says whether it came to an end.
    try:
        with app.test_request_context("/page"):
            say(child=os.getpid(), ticket=wxjsapi.ticket, token=wxjsapi.access_token,
                signature=wxjsapi.config(["scanQRCode"])["signature"],
                state=wxjsapi.status().state, threads=names())
        os._exit(0)
    except BaseException as error:
        say(child=os.getpid(), error=repr(error))
        os._exit(1)

if sys.stdin.readline().strip() == "warm":
    say(ticket=read())
    sys.stdin.readline()
with app.app_context():
    runtime = wxjsapi._accounts().own.credentials.runtime
def renew():
    with app.app_context():
        say(renewed=wxjsapi.refresh())
renewal = threading.Thread(target=renew)
renewal.start()
say(waits=sys.stdin.readline())  # until WeChat has been asked
with runtime._lock:
    pids = []
    for number in range(3):
        pid = os.fork()
        if pid == 0:
            child(number)
        pids.append(pid)
say(forked=pids)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
renewal.join()
say(codes=codes)
"""


def _hear_until(script: Script, key: str) -> dict[str, list[Any]]:
    """All that is said until a certain thing is; by key, a child's lines under ``child``."""
    heard: dict[str, list[Any]] = {}
    while key not in heard:
        line = script.hear()
        if "child" in line:
            heard.setdefault("child", []).append(line)
        else:
            for name, value in line.items():
                heard.setdefault(name, []).append(value)
    return heard


@pytest.mark.parametrize("store", [pytest.param("redis", marks=pytest.mark.slow), "files"])
def test_children_forked_in_mid_renewal_go_on_with_the_ticket(
    store: str, request: pytest.FixtureRequest, tmp_path: Path, figure: Figure
) -> None:
    """The parent's locks and lease are held as it forks: three children read, and ask nobody."""
    config = Model(Fleet, [], store).config(request, tmp_path)
    with Sandbox().serve() as sandbox, Script(sandbox, _FORK_IN_FLIGHT, **config) as script:
        script.tell("warm")
        ticket = script.hear()["ticket"]
        sandbox.fail("hang", path="getticket")
        script.tell()
        wait_until(lambda: sandbox.calls["getticket"] == 2, what="the renewal is under way")
        script.tell("it waits")
        heard = _hear_until(script, "forked")
        while len(heard.get("child", [])) < 3:
            heard.setdefault("child", []).append(script.hear())
        sandbox.heal()
        codes = _hear_until(script, "codes")["codes"]
        assert codes == [[0, 0, 0]], heard
        assert {child["ticket"] for child in heard["child"]} == {ticket}
        assert {child["state"] for child in heard["child"]} == {"fresh"}
        figure(
            f"fork after use, a renewal in flight, {store}, 3 children",
            "no deadlock, no further call",
            f"served while WeChat hung; calls {dict(sandbox.calls)}",
        )
        assert dict(sandbox.calls) == {"stable_token": 1, "getticket": 2}


@pytest.mark.parametrize("store", [pytest.param("redis", marks=pytest.mark.slow), "files"])
def test_children_forked_in_the_first_fetch_take_its_ticket_from_the_store(
    store: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Nobody has a ticket, the parent is asking: the children wait for it, and ask nobody."""
    config = Model(Fleet, [], store).config(request, tmp_path)
    with Sandbox().serve() as sandbox, Script(sandbox, _FORK_IN_FLIGHT, **config) as script:
        sandbox.fail("hang", path="stable_token")
        script.tell("cold")
        wait_until(lambda: sandbox.calls["stable_token"] == 1, what="the fetch is under way")
        script.tell("it waits")
        heard = _hear_until(script, "forked")
        sandbox.heal()
        later = _hear_until(script, "codes")
        children = heard.get("child", []) + later.get("child", [])
        assert later["codes"] == [[0, 0, 0]], children
        assert {child["ticket"] for child in children} == set(later["renewed"])
        assert {child["threads"].count(THREAD) for child in children} == {1}
        assert dict(sandbox.calls) == {"stable_token": 1, "getticket": 1}


_FORK_IN_A_CROWD = """
import faulthandler
over = threading.Event()
failures = []
def go_on():
    while not over.is_set():
        try:
            read()
        except Exception as error:
            failures.append(repr(error))
        time.sleep(0.001)
read()
crowd = [threading.Thread(target=go_on) for _ in range(30)]
for thread in crowd:
    thread.start()
codes = []
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        faulthandler.dump_traceback_later(15, exit=True)  # a deadlock becomes an exit code of 1
        try:
            read()
        except BaseException:
            os._exit(2)
        os._exit(0)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
over.set()
say(codes=codes, failures=failures)
"""


@pytest.mark.slow
def test_forks_among_30_reading_threads_do_not_deadlock(
    valkey: Valkey, tmp_path: Path, figure: Figure
) -> None:
    """Tickets of one second, 20 forks at any moment: every child reads a ticket and ends."""
    rules = {"ticket": "new", "ticket_lifetime": 1.0, "token_lifetime": 60.0}
    with Sandbox(**rules).serve() as sandbox:  # type: ignore[arg-type]
        config = {"WXJSAPI_SYNC_INTERVAL": "0.2"}
        config |= {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path / "cache")}
        with Script(sandbox, _FORK_IN_A_CROWD, **config) as script:
            heard = script.hear(120)
    figure(
        "os.fork among 30 reading threads, tickets of 1 s",
        "no deadlock",
        f"{heard['codes'].count(0)} of 20 children read and ended",
    )
    assert heard["codes"] == [0] * 20, script.stderr
    assert heard["failures"] == []


# -- the lease and the fork ------------------------------------------------------------------------

_FORK_WITH_LEASE = """
renewal = threading.Thread(target=read, daemon=True)
renewal.start()
sys.stdin.readline()  # until WeChat has been asked, under the lease
pid = os.fork()
if pid == 0:
    if sys.argv[1:] == [] and os.environ["CHILD"] == "exits":
        sys.exit(0)
    os.close(0)
    os.close(1)
    os.close(2)
    time.sleep(60)
    os._exit(0)
if os.environ["CHILD"] == "exits":
    os.waitpid(pid, 0)
say(child=pid)
renewal.join()
say(ticket=read())
sys.stdin.readline()
"""

_OTHER = """
from flask_wxjsapi import WxJsApiError
for line in sys.stdin:
    try:
        with app.app_context():
            say(ticket=wxjsapi.refresh())
    except WxJsApiError as error:
        say(error=repr(error))
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    return {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path / "cache")}


@pytest.fixture
def orphans() -> Iterator[list[int]]:
    """Processes that a killed parent leaves behind."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def test_a_forked_child_does_not_keep_the_lease_that_its_parent_released(
    files: dict[str, str], monkeypatch: pytest.MonkeyPatch, orphans: list[int]
) -> None:
    """Forked under the file lease, the child lives on; another process can renew."""
    monkeypatch.setenv("CHILD", "lives")
    with Sandbox(ticket="new").serve() as sandbox:
        sandbox.fail("hang", path="stable_token")
        with Script(sandbox, _FORK_WITH_LEASE, **files) as parent:
            wait_until(lambda: sandbox.calls["stable_token"] == 1, what="the lease is held")
            parent.tell()
            orphans.append(parent.hear()["child"])
            sandbox.heal()
            ticket = parent.hear()["ticket"]
            with Script(sandbox, _OTHER, **files) as other:
                other.tell()
                assert other.hear().get("ticket", ticket) != ticket


@pytest.mark.slow
def test_the_exit_of_a_forked_child_does_not_free_the_lease_of_its_parent(
    files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child ends in good order while the parent holds the lease: nobody else gets it."""
    monkeypatch.setenv("CHILD", "exits")
    config = files | {"WXJSAPI_REFRESH_TIMEOUT": "60"}
    with Sandbox(ticket="new").serve() as sandbox:
        sandbox.fail("hang", path="stable_token")
        with Script(sandbox, _FORK_WITH_LEASE, **config) as parent:
            wait_until(lambda: sandbox.calls["stable_token"] == 1, what="the lease is held")
            parent.tell()
            parent.hear()
            with Script(sandbox, _OTHER, **files | {"WXJSAPI_REFRESH_TIMEOUT": "1"}) as other:
                other.tell()
                assert "TicketUnavailable" in other.hear()["error"]
            assert sandbox.calls["stable_token"] == 1
            sandbox.heal()
            assert parent.hear()["ticket"]
        assert dict(sandbox.calls) == {"stable_token": 1, "getticket": 1}


@pytest.mark.slow
def test_a_child_of_a_killed_lease_holder_does_not_keep_the_lease(
    files: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    orphans: list[int],
    figure: Figure,
) -> None:
    """SIGKILL in mid-fetch, a forked child has the lock file's descriptor: another takes over."""
    monkeypatch.setenv("CHILD", "lives")
    with Sandbox().serve() as sandbox:
        sandbox.fail("hang", path="stable_token")
        with Script(sandbox, _FORK_WITH_LEASE, **files) as parent:
            wait_until(lambda: sandbox.calls["stable_token"] == 1, what="the lease is held")
            parent.tell()
            orphans.append(parent.hear()["child"])
        # Killed by now, and its child is alive.
        sandbox.heal()
        started = time.monotonic()
        with Script(sandbox, _OTHER, **files) as other:
            other.tell()
            heard = other.hear()
        figure(
            "lease holder killed (SIGKILL), a forked child lives on, files",
            "another takes over",
            f"{heard.get('error') or 'renewed'}, {time.monotonic() - started:.1f} s with its start",
        )
        assert "ticket" in heard, heard


# -- threads ---------------------------------------------------------------------------------------

MakeApp = Any


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_thread_is_replaced_by_a_read(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """SystemExit out of a look ends the thread; a reader notices, says so once and replaces it."""
    app, wxjsapi = make_app(WXJSAPI_BACKGROUND_REFRESH=True, WXJSAPI_SYNC_INTERVAL=0.1)
    with app.app_context():
        ticket = wxjsapi.ticket
        (thread,) = threads_of_app(app)
        with monkeypatch.context() as fault:
            fault.setattr(wxjsapi._accounts().own.credentials.runtime, "tick", _leave)
            thread.join(20)
        assert not thread.is_alive()
        (successor,) = wait_until(
            lambda: wxjsapi.ticket == ticket and threads_of_app(app), what="replaced"
        )
        assert successor is not thread
        assert wxjsapi.ticket == ticket
    wait_until(lambda: "died" in caplog.text, what="the log has it")
    assert caplog.text.count("died") == 1
    wxjsapi.close(app)


def _leave() -> float:
    raise SystemExit


def test_300_threads_at_expiry_share_one_call(figure: Figure) -> None:
    """The ticket has ended, 300 threads of one process want one: one call, the same for all."""
    with Sandbox(ticket="new", ticket_lifetime=3, delay=0.3).serve() as sandbox:
        app = Flask("crowd")
        app.config.update(
            WXJSAPI_APP_ID=sandbox.app_id,
            WXJSAPI_APP_SECRET=sandbox.app_secret,
            WXJSAPI_API_BASE_URL=sandbox.url,
            WXJSAPI_BACKGROUND_REFRESH=False,
        )
        wxjsapi = WxJsApi(app)

        def read() -> str:
            with app.app_context():
                return wxjsapi.ticket

        first = read()
        with app.app_context():
            wait_until(lambda: wxjsapi.status().state == "invalid", what="the ticket has ended")
        # The next one outlives 300 threads on a busy machine. (There, the first one may have had no
        # life left when it arrived, and was asked for again.)
        sandbox._registry.accounts[sandbox.app_id].ticket_lifetime = 7200.0
        before = sandbox.calls.copy()
        started = time.monotonic()
        tickets = at_once(300, read)
        seconds = time.monotonic() - started
        assert len(tickets) == 300
        assert len(set(tickets)) == 1, set(tickets)
        assert tickets[0] != first
        figure(
            "300 threads of one process at expiry",
            "one ticket call, one ticket",
            f"{(sandbox.calls - before)['getticket']} call, {seconds:.1f} s with WeChat's 0.3",
        )
        assert dict(sandbox.calls - before) == {"getticket": 1}


# -- start() and close() ---------------------------------------------------------------------------

_HOOKS = """
def post_worker_init(worker):
    app = worker.app.wsgi()
    app.extensions["wxjsapi"]["default"].start(app)

def worker_exit(server, worker):
    app = worker.app.wsgi()
    app.extensions["wxjsapi"]["default"].close(app)
    server.log.info("closed in %s", worker.pid)
"""


@pytest.mark.parametrize(
    "options",
    [["--preload"], pytest.param([], marks=pytest.mark.slow)],
    ids=["preload", "no-preload"],
)
def test_started_in_post_worker_init_the_ticket_is_there_before_a_request(
    options: list[str], valkey: Valkey, tmp_path: Path
) -> None:
    """start() in each worker: one token, one ticket, and no reader who waited for them."""
    hooks = tmp_path / "hooks.py"
    hooks.write_text(_HOOKS)
    with Sandbox().serve() as sandbox:
        config = {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": valkey.url}
        with Fleet(sandbox, tmp_path, f"--config={hooks}", *options, **config) as fleet:
            wait_until(lambda: sandbox.calls["getticket"] == 1, what="fetched without a request")
            assert threads_of(fleet.master) == 1
            answers = fleet.ask_everyone("/threads")
            assert {a["threads"].count(THREAD) for a in answers.values()} == {1}
        assert dict(sandbox.calls) == {"stable_token": 1, "getticket": 1}
        assert fleet.log.read_text().count("closed in") == 2
