"""A platform: an app whose accounts are rows of a table, and the crowd that reads their tickets.

The table is a file of SQLite's, which a test changes while gunicorn runs.
"""

from __future__ import annotations

import http.client
import itertools
import json
import logging
import os
import random
import sqlite3
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flask import Flask, jsonify

from flask_wxjsapi import TicketUnavailable, UnknownAccount, WxJsApi, WxJsApiError
from flask_wxjsapi.sandbox import Sandbox

from ..conftest import wait_until
from ..processes import at_once
from .servers import Fleet

APP = "tests.faults.platforms:create_app()"
#: In the text of an error that a loader raises, and nowhere else.
SECRET_TEXT = "a-text-that-names-a-secret"


class Table:
    """Accounts: what their loader answers, and whether it does.

    :param path: of the file; beside it stands a file with all that the loader was asked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._asked = path.with_suffix(".asked")

    def create(self) -> None:
        self._asked.touch()
        with self._open() as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("CREATE TABLE account (app_id TEXT PRIMARY KEY, answer TEXT, manner TEXT)")

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=30)

    def put(self, answers: Mapping[str, object], manner: str = "") -> None:
        """Have the loader answer this from now on.

        :param manner: ``"raise"`` or ``"slow"``; ``"hang"`` as long as it stays that.
        """
        rows = [(app_id, json.dumps(answer), manner) for app_id, answer in answers.items()]
        with self._open() as db:
            db.executemany("INSERT OR REPLACE INTO account VALUES (?, ?, ?)", rows)

    def remove(self, app_id: str) -> None:
        with self._open() as db:
            db.execute("DELETE FROM account WHERE app_id = ?", (app_id,))

    def load(self, app_id: str) -> Any:
        """The loader."""
        asked = os.open(self._asked, os.O_WRONLY | os.O_APPEND)
        os.write(asked, f"{app_id} {os.getpid()} {time.monotonic():.3f}\n".encode())
        os.close(asked)
        while True:
            db = self._open()
            query = "SELECT answer, manner FROM account WHERE app_id = ?"
            row = db.execute(query, (app_id,)).fetchone()
            db.close()
            if row is None:
                return None
            answer, manner = row
            if manner == "raise":
                raise ValueError(SECRET_TEXT)
            if manner == "slow":
                time.sleep(2)
            if manner != "hang":
                return json.loads(answer)
            time.sleep(0.1)

    def asked(self) -> list[tuple[str, int, float]]:
        """For which account the loader was called, in which process and when (monotonic)."""
        found = []
        for line in self._asked.read_text().splitlines():
            app_id, pid, at = line.split()
            found.append((app_id, int(pid), float(at)))
        return found

    def times_asked(self, app_id: str) -> int:
        return sum(each == app_id for each, _, _ in self.asked())


class Platform:
    """A sandbox and a table with the same accounts."""

    def __init__(self, sandbox: Sandbox, directory: Path) -> None:
        self.sandbox = sandbox
        self.directory = directory
        self.table = Table(directory / "accounts.db")
        self.table.create()

    def add(self, numbers: range) -> list[str]:
        """Accounts that WeChat and the loader know from now on."""
        ids = [f"wx{0xACC0000 + number:016x}" for number in numbers]
        for app_id in ids:
            self.sandbox.add_account(app_id, secret_of(app_id))
        self.table.put({app_id: {"APP_SECRET": secret_of(app_id)} for app_id in ids})
        return ids

    def fleet(self, *options: str, workers: int = 4, **config: str) -> Fleet:
        config = {"TABLE": str(self.table.path), "WXJSAPI_URL_PREFIX": "/wxjsapi"} | config
        fleet = Fleet(
            self.sandbox, self.directory, "--threads=16", *options, workers=workers, app=APP,
            **config,
        )  # fmt: skip
        for key in ("APP_ID", "APP_SECRET"):
            del fleet._env[f"FLASK_WXJSAPI_{key}"]
        return fleet

    def calls(self, app_id: str) -> dict[str, int]:
        """What WeChat answered to an account, by the name of the call."""
        with self.sandbox._lock:
            counted: Counter[str] = Counter()
            for (name, _), count in self.sandbox._registry.accounts[app_id].used.items():
                counted[name] += count
        return dict(counted)

    def tickets(self, app_id: str) -> list[Any]:
        """All that WeChat gave to an account, oldest first."""
        with self.sandbox._lock:
            return list(self.sandbox._registry.accounts[app_id].tickets["jsapi"])


def secret_of(app_id: str) -> str:
    return f"secret-of-{app_id}"


def get(url: str, path: str, method: str = "GET") -> tuple[int, Any]:
    """Status and JSON of an answer; by a connection of its own, so by whichever worker."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=120)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    try:
        return response.status, json.loads(body)
    except ValueError:
        return response.status, body.decode(errors="replace")


def everyone(fleet: Fleet, path: str, status: int, timeout: float = 90) -> dict[int, Any]:
    """What the workers answer, each of them at last with this status."""
    found: dict[int, Any] = {}

    def is_complete() -> bool:
        for code, answer in at_once(12, lambda: get(fleet.url, path)):
            if code == status:
                found[answer["pid"]] = answer
            elif isinstance(answer, dict):
                found.pop(answer["pid"], None)
        return set(found) == fleet.workers

    wait_until(is_complete, timeout, f"every worker answers {path} with {status}: {found}")
    return found


class Crowd:
    """Readers in threads, who read one account after the other as long as the block lasts.

    :param pause: seconds between two reads of a reader, once all accounts have been read.
    """

    def __init__(
        self, fleet: Fleet, platform: Platform, ids: Iterable[str], count: int, pause: float
    ) -> None:
        self._fleet, self._platform, self._pause = fleet, platform, pause
        ids = list(ids)
        random.Random(1).shuffle(ids)
        self._turns = itertools.cycle(ids)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]
        #: Answers of status 200, by account.
        self.read: Counter[str] = Counter()
        #: What went wrong, by account.
        self.failed: defaultdict[str, list[Any]] = defaultdict(list)
        #: How many connections broke.
        self.broken = 0
        self.pids: set[int] = set()
        self._wanted = set(ids)
        self._valid: dict[str, set[str]] = defaultdict(set)

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(180)

    def _run(self) -> None:
        while not self._stopped.is_set():
            with self._lock:
                app_id = next(self._turns)
            self._read(app_id)
            if len(self.read) == len(self._wanted):
                self._stopped.wait(self._pause)

    def _read(self, app_id: str) -> None:
        asked_at = time.time()
        try:
            status, answer = get(self._fleet.url, f"/ticket/{app_id}")
        except (OSError, http.client.HTTPException):
            with self._lock:
                self.broken += 1
            return
        if status != 200:
            problem = f"{status} {answer}"
        elif not self._is_good(app_id, answer["ticket"], asked_at):
            problem = "a dead ticket"
        else:
            problem = ""
        with self._lock:
            if problem:
                self.failed[app_id].append((asked_at, problem))
                return
            self.read[app_id] += 1
            self.pids.add(answer["pid"])

    def _is_good(self, app_id: str, value: str, asked_at: float) -> bool:
        """Whether WeChat took a ticket at the moment in which it was asked for."""
        known = self._platform.tickets(app_id)
        return any(one.value == value and one.expires_at > asked_at for one in known)

    def failures(self, of: Iterable[str] | None = None) -> dict[str, list[Any]]:
        """Of some accounts, or of all."""
        with self._lock:
            found = dict(self.failed)
        return found if of is None else {key: found[key] for key in of if key in found}


def create_app() -> Flask:
    """For gunicorn."""
    logging.basicConfig(level=logging.INFO, format="%(name)s %(levelname)s %(message)s")
    app = Flask(__name__)
    app.config.from_prefixed_env()
    table = Table(Path(app.config["TABLE"]))
    wxjsapi = WxJsApi()
    wxjsapi.account_loader(table.load)
    wxjsapi.init_app(app)

    @app.errorhandler(TicketUnavailable)
    def unavailable(error: TicketUnavailable) -> Any:
        return jsonify(pid=os.getpid(), cause=str(error.__cause__)), 503

    @app.errorhandler(UnknownAccount)
    def unknown(error: UnknownAccount) -> Any:
        return jsonify(pid=os.getpid()), 404

    @app.get("/ticket/<app_id>")
    def ticket(app_id: str) -> Any:
        return jsonify(pid=os.getpid(), ticket=wxjsapi.account(app_id).ticket)

    @app.post("/refresh/<app_id>")
    def refresh(app_id: str) -> Any:
        try:
            return jsonify(pid=os.getpid(), ticket=wxjsapi.account(app_id).refresh())
        except (TicketUnavailable, UnknownAccount):
            raise
        except WxJsApiError as error:
            return jsonify(pid=os.getpid(), error=type(error).__name__, cause=str(error))

    @app.get("/nap")
    def nap() -> Any:
        time.sleep(0.3)
        return jsonify(pid=os.getpid())

    @app.get("/size")
    def size() -> Any:
        """How much memory the process has, in kB, and how many threads."""
        status = Path("/proc/self/status").read_text()
        (kilobytes,) = (line.split()[1] for line in status.splitlines() if line[:6] == "VmRSS:")
        return jsonify(pid=os.getpid(), memory=int(kilobytes), threads=threading.active_count())

    return app
