"""The end of a process in mid-refresh, WeChat hanging: at once, and without a word."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_wxjsapi.sandbox import Sandbox

from ..conftest import require, wait_until
from .conftest import Figure
from .servers import UWSGI, Fleet, Script, is_alive

pytestmark = pytest.mark.processes

#: A renewal may take this long: an exit that waited for it would be seen by every test here.
_TIMEOUT = {"WXJSAPI_REFRESH_TIMEOUT": "300"}

_NOISE = re.compile(r"Traceback|Exception|Fatal|Error\b|could not acquire lock", re.IGNORECASE)


@pytest.fixture
def hanging() -> Iterator[Sandbox]:
    """A WeChat that accepts calls and does not answer before the test is over."""
    with Sandbox().serve() as sandbox:
        sandbox.fail("hang", times=None)
        yield sandbox


def _is_asked(sandbox: Sandbox, times: int = 1) -> None:
    wait_until(lambda: sandbox.calls["stable_token"] >= times, 90, "a renewal waits for WeChat")


# -- servers ---------------------------------------------------------------------------------------

_SERVERS = {
    "sync": (Fleet, []),
    "gthread": (Fleet, ["--threads=2"]),
    "gevent": (Fleet, ["--worker-class=gevent"]),
    "uwsgi": (UWSGI, ["--enable-threads"]),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("sync", marks=pytest.mark.slow),
        "gthread",
        "gevent",
        pytest.param("uwsgi", marks=pytest.mark.slow),
    ],
)
def test_a_server_told_to_end_does_not_wait_for_wechat(
    name: str, hanging: Sandbox, tmp_path: Path, figure: Figure
) -> None:
    """SIGTERM with each worker's thread in a call: all gone, code 0, no traceback."""
    server, options = _SERVERS[name]
    with server(hanging, tmp_path, *options, **_TIMEOUT) as fleet:
        fleet.ask_everyone("/nap")  # starts the threads, which ask at once
        _is_asked(hanging, 2)
        started = time.monotonic()
        fleet.process.terminate()
        code = fleet.process.wait(25)
        seconds = time.monotonic() - started
        assert not [pid for pid in fleet.workers if is_alive(pid)]
    figure(f"exit in mid-refresh, {name}", "it does not wait for WeChat", f"{seconds:.1f} s")
    assert code == 0
    assert not _NOISE.findall(fleet.log.read_text()), fleet.log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sync", "gthread", "gevent"])
def test_a_worker_told_to_end_is_replaced_while_wechat_hangs(
    name: str, hanging: Sandbox, tmp_path: Path
) -> None:
    """SIGTERM to one worker in mid-refresh: it goes in good order and another comes."""
    server, options = _SERVERS[name]
    with server(hanging, tmp_path, *options, workers=1, **_TIMEOUT) as fleet:
        (worker,) = fleet.workers
        fleet.get("/nap")
        _is_asked(hanging)
        os.kill(worker, signal.SIGTERM)
        wait_until(lambda: not is_alive(worker), what="the worker is gone")
        fleet._count = 2  # booted in all
        wait_until(fleet._answers, what="another one is there")
        assert fleet.get("/nap")["pid"] in fleet.workers - {worker}
    assert not _NOISE.findall(fleet.log.read_text()), fleet.log.read_text()


# -- scripts ---------------------------------------------------------------------------------------


_OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"


def _python(version: str) -> str:
    """An interpreter of this version; the tests' own for its own."""
    if version == _OWN:
        return sys.executable
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    binary = str(found[-1]) if found else shutil.which(f"python{version}")
    if binary is None:
        require(f"python{version}", f"no Python {version} here, under ~/.pyenv or on PATH")
    assert binary is not None
    return binary


PYTHONS = pytest.mark.parametrize(
    "version",
    [
        pytest.param(version, marks=() if version == _OWN else pytest.mark.slow)
        for version in sorted({_OWN, "3.11", "3.12", "3.13"})
    ],
)

_THREAD_POOL = """
from concurrent.futures import ThreadPoolExecutor
ThreadPoolExecutor().submit(names).result()
sys.exit(5)
"""

_ATEXIT = """
import atexit
def last():
    with app.app_context():
        say(state=wxjsapi.status().state)
atexit.register(last)
"""

_READER = """
threading.Thread(target=read, daemon=True).start()
time.sleep(0.2)
sys.exit(4)
"""

#: How a program ends, and the exit code that is expected of it.
_EXITS = {
    "the end of the file": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "sys.exit, a reader waits": (_READER, 4),
    "sys.exit, a thread pool": (_THREAD_POOL, 5),
    "atexit uses it": (_ATEXIT, 0),
}


@PYTHONS
@pytest.mark.parametrize(
    "how",
    [
        pytest.param(how, marks=() if how in ("sys.exit", "atexit uses it") else pytest.mark.slow)
        for how in _EXITS
    ],
)
def test_a_script_does_not_wait_for_wechat(
    how: str, version: str, hanging: Sandbox, figure: Figure
) -> None:
    """However a program ends in mid-refresh, it ends at once and says nothing."""
    source, expected = _EXITS[how]
    source = f"wxjsapi.start(app)\nsys.stdin.readline()\n{source}"
    with Script(hanging, source, _python(version), **_TIMEOUT) as script:
        _is_asked(hanging)
        started = time.monotonic()
        script.tell()
        code = script.end()
        seconds = time.monotonic() - started
        figure(
            f"exit in mid-refresh, a script, Python {version}, {how}",
            "it does not wait for WeChat",
            f"{seconds:.1f} s",
        )
        assert code == expected, script.stderr
        assert script.stderr == ""


_COMMAND = """
@app.cli.command("warm")
def warm():
    wxjsapi.start(app)
    sys.stdin.readline()
from flask.cli import FlaskGroup
sys.exit(FlaskGroup(create_app=lambda: app)(["warm"]))
"""


@PYTHONS
def test_a_flask_command_does_not_wait_for_wechat(version: str, hanging: Sandbox) -> None:
    """A command that ends in mid-refresh is gone at once, with code 0."""
    with Script(hanging, _COMMAND, _python(version), **_TIMEOUT) as script:
        _is_asked(hanging)
        script.tell()
        assert script.end() == 0, script.stderr
        assert script.stderr == ""


_FIRST_USE_AT_EXIT = """
import atexit
from flask_wxjsapi import TicketUnavailable
def last():
    try:
        say(ticket=read())
    except TicketUnavailable as error:
        say(unavailable=str(error.__cause__))
atexit.register(last)
"""


@PYTHONS
def test_a_first_use_at_exit_is_no_crash(version: str, sandbox: Sandbox) -> None:
    """Where no thread can start any more there is a ticket or TicketUnavailable, not a trace."""
    with Script(sandbox, _FIRST_USE_AT_EXIT, _python(version)) as script:
        heard = script.hear()
        assert script.end() == 0, script.stderr
    assert "ticket" in heard or "renewal cannot start" in heard["unavailable"]
    assert "Traceback" not in script.stderr
