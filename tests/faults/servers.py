"""Process models for the fault suite: gunicorn, uWSGI, Flask's own server and plain scripts."""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import requests
from flask import Flask, jsonify, request

from flask_wxjsapi import WxJsApi
from flask_wxjsapi.sandbox import Sandbox

from ..conftest import require, wait_until
from ..processes import ROOT, Gunicorn, at_once

#: The name of the background thread of the account that has none.
THREAD = "wxjsapi"


def environment(sandbox: Sandbox, config: dict[str, str]) -> dict[str, str]:
    """This process's environment with the sandbox's account and more config as ``FLASK_*``."""
    settings = {
        "WXJSAPI_APP_ID": sandbox.app_id,
        "WXJSAPI_APP_SECRET": sandbox.app_secret,
        "WXJSAPI_API_BASE_URL": sandbox.url,
    }
    env = {key: value for key, value in os.environ.items() if key[:6] != "FLASK_"}
    env |= {f"FLASK_{key}": value for key, value in (settings | config).items()}
    return env | {"PYTHONPATH": os.pathsep.join([str(ROOT), *_paths(env)])}


def _paths(env: dict[str, str]) -> list[str]:
    return [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]


class Fleet(Gunicorn):
    """Gunicorn that is ready when its log says so: no request has reached a worker by then.

    :param workers: how many; their PIDs are :attr:`workers` once it runs.
    """

    _BOOTED = re.compile(r"Booting worker with pid: (\d+)")

    def __init__(
        self,
        sandbox: Sandbox,
        directory: Path,
        *options: str,
        workers: int = 2,
        app: str = "tests.service:create_app()",
        **config: str,
    ) -> None:
        if "--worker-class=gevent" in options and app == "tests.service:create_app()":
            app = "tests.faults.servers:create_app()"
        options = (f"--workers={workers}", *options)
        super().__init__(sandbox, directory, *options, app=app, **config)
        self._count = workers
        self.workers: set[int] = set()

    def __exit__(self, *exc_info: object) -> None:
        try:
            super().__exit__(*exc_info)
        finally:
            for pid in filter(is_alive, self.workers):  # of a master that had to be killed
                self.kill(pid)

    def _answers(self) -> bool:
        text = self.log.read_text()
        assert self.process.poll() is None, text
        self.workers = {int(pid) for pid in self._BOOTED.findall(text)}
        return len(self.workers) == self._count

    def add_path(self, directory: Path) -> None:
        """Let it import from a directory."""
        self._env["PYTHONPATH"] = os.pathsep.join([str(directory), str(ROOT)])

    @property
    def master(self) -> int:
        return self.process.pid

    def read(self, path: str = "/ticket") -> Any:
        """A view's answer; what went wrong as a string, so that it can be told from one."""
        try:
            return self.get(path)
        except requests.RequestException as error:
            return f"{error}: {error.response.text if error.response is not None else ''}"

    def ask_everyone(
        self, path: str, is_enough: Callable[[dict[str, Any]], bool] = bool
    ) -> dict[int, Any]:
        """The last answer of every worker, each of which ``is_enough``."""
        found: dict[int, Any] = {}

        def is_complete() -> bool:
            for answer in at_once(3 * self._count, lambda: self.get(path)):
                assert isinstance(answer, dict), answer
                if is_enough(answer):
                    found[answer["pid"]] = answer
            return set(found) == self.workers

        wait_until(is_complete, 90, f"every worker has answered {path}: {found}")
        return found


class UWSGI(Fleet):
    """uWSGI with the same app, or a skip where it is not installed.

    Each worker serves one request at a time; ``--threads`` would switch threads on as well.
    """

    _BOOTED = re.compile(r"spawned uWSGI worker \d+ \(pid: (\d+)")

    def __init__(
        self,
        sandbox: Sandbox,
        directory: Path,
        *options: str,
        workers: int = 2,
        app: str = "tests.service:create_app()",
        **config: str,
    ) -> None:
        binary = Path(sys.executable).with_name("uwsgi")
        if not binary.exists():
            require("uwsgi", "no uWSGI beside this Python: pip install uWSGI")
        super().__init__(sandbox, directory, workers=workers, app=app, **config)
        self._command = [str(binary), "--http-socket", self.url[7:], "--module", app]
        self._command += ["--virtualenv", sys.prefix, "--pythonpath", str(ROOT), "--master"]
        self._command += ["--processes", str(workers), "--need-app", "--die-on-term", *options]

    @property
    def has_threads(self) -> bool:
        """Whether Python's threads run between two requests, as its log has it."""
        return "threads support enabled" in self.log.read_text()


class Reloader(Fleet):
    """``flask run --debug``: a parent that watches the files and a child that serves."""

    def __init__(self, sandbox: Sandbox, directory: Path, source: str, **settings: str) -> None:
        super().__init__(sandbox, directory, workers=1, **settings)
        self.source = directory / "reloaded.py"
        self.source.write_text(source)
        self._env["FLASK_DEBUG"] = "1"
        self.add_path(directory)
        self._command = [sys.executable, "-m", "flask", "--app", "reloaded", "run"]
        self._command += ["--port", self.url.rpartition(":")[2]]

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        self.workers = set(_children(self.process.pid))
        return bool(self.workers) and self.log.read_text().count("Debugger PIN") > 0

    def reload(self) -> None:
        """Change the source and wait for another child."""
        before = self.workers

        def is_other() -> bool:
            self.workers = set(_children(self.process.pid))
            return bool(self.workers) and not self.workers & before

        # A file's time has to move by what the reloader can see.
        later = time.time() + 5
        self.source.write_text(self.source.read_text() + "\n")
        os.utime(self.source, (later, later))
        wait_until(is_other, 30, "the reloader has replaced its child")


class Script:
    """A Python program without a server: lines of JSON from it, lines of text to it.

    It begins with an ``app`` of :mod:`tests.service`, ``wxjsapi``, ``read()`` and ``say()``.
    """

    PRELUDE = """
import json, os, sys, threading, time
from tests.service import create_app
app = create_app()
wxjsapi = app.extensions["wxjsapi"]["default"]
def say(**facts):
    os.write(1, (json.dumps(facts) + "\\n").encode())
def read():
    with app.app_context():
        return wxjsapi.ticket
def names():
    return [thread.name for thread in threading.enumerate()]
"""

    def __init__(
        self, sandbox: Sandbox, source: str, python: str = sys.executable, **config: str
    ) -> None:
        env = environment(sandbox, config)
        if python != sys.executable:
            # Our packages are pure Python, or have a substitute for what is not.
            packages = Path(str(importlib.util.find_spec("flask").origin)).parent.parent  # type: ignore[union-attr]
            env["PYTHONPATH"] += f":{packages}"
        self.process = subprocess.Popen(
            [python, "-c", self.PRELUDE + source],
            cwd=ROOT,
            env=env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._errors: list[str] = []
        self._pumps = [
            threading.Thread(target=self._pump, args=pair, daemon=True)
            for pair in (
                (self.process.stdout, self._lines.put),
                (self.process.stderr, self._errors.append),
            )
        ]
        for pump in self._pumps:
            pump.start()

    @staticmethod
    def _pump(lines: Iterable[str], put: Callable[[str], None]) -> None:
        for line in lines:
            put(line)

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pump in self._pumps:
            pump.join(20)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stderr(self) -> str:
        """What it has written there; all of it once no process holds the pipe."""
        return "".join(self._errors)

    def hear(self, timeout: float = 90) -> dict[str, Any]:
        """The next thing it says."""
        try:
            heard: dict[str, Any] = json.loads(self._lines.get(timeout=timeout))
        except queue.Empty:
            raise AssertionError(f"it says nothing; stderr: {self.stderr}") from None
        return heard

    def tell(self, line: str = "") -> None:
        """Give it a line; it waits with ``input()``."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def end(self, timeout: float = 40) -> int:
        """Wait for its end and for the last of its output; the exit code."""
        code = self.process.wait(timeout)
        for pump in self._pumps:
            pump.join(timeout)
        return code


def create_app() -> Flask:
    """An app for gevent, under which the audit hook of :mod:`tests.service` recurses for ever."""
    app = Flask(__name__)
    app.config.from_prefixed_env()
    wxjsapi = WxJsApi(app)

    @app.get("/ticket")
    def ticket() -> Any:
        return jsonify(pid=os.getpid(), ticket=wxjsapi.ticket)

    @app.get("/threads")
    def threads() -> Any:
        return jsonify(pid=os.getpid(), threads=[thread.name for thread in threading.enumerate()])

    @app.get("/nap")
    def nap() -> Any:
        time.sleep(0.3)
        return jsonify(pid=os.getpid())

    @app.get("/spin")
    def spin() -> Any:
        """Keep the interpreter to itself."""
        end = time.monotonic() + float(request.args["seconds"])
        while time.monotonic() < end:
            pass
        return jsonify(pid=os.getpid())

    return app


# -- what the kernel knows of a process ------------------------------------------------------------


def _children(pid: int) -> list[int]:
    """The direct children of a process that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state not in "ZX":
            found.append(int(path.parent.name))
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def threads_of(pid: int) -> int:
    """How many threads the kernel runs for a process."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def connections(pid: int, *ports: int) -> list[str]:
    """The TCP connections of a process to these ports of this host."""
    wanted = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].rpartition(":")[2], 16) in ports and fields[3] == "01":
            wanted[f"socket:[{fields[9]}]"] = fields[2]
    return [wanted[target] for target in handles(pid) if target in wanted]


def handles(pid: int) -> list[str]:
    """What the file descriptors of a process point to."""
    found = []
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(str(handle.readlink()))
        except OSError:
            continue
    return found
