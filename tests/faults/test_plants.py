"""What whoever can write to a store plants there: what it costs, and that it comes to its end."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_wxjsapi import Credential, TicketServer, WxJsApi
from tests.conftest import Valkey
from tests.faults.conftest import Figure
from tests.faults.test_wechat import PATIENCE, Ahead, Process

MakeApp = Callable[..., tuple[Flask, WxJsApi]]

DAY = 86400


class Database(TicketServer):
    """A table that somebody else can write to as well."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self.connection.execute("CREATE TABLE tickets (key TEXT PRIMARY KEY, record TEXT)")

    def find(self, key: str) -> Credential | None:
        row = self.connection.execute("SELECT record FROM tickets WHERE key = ?", [key]).fetchone()
        return None if row is None else Credential.from_dict(json.loads(row[0]))

    def save(self, key: str, credential: Credential) -> None:
        self.plant(key, json.dumps(credential.to_dict()))

    def plant(self, key: str, text: str) -> None:
        self.connection.execute("REPLACE INTO tickets VALUES (?, ?)", [key, text])


class Place:
    """Two processes on one store, and the hand of a stranger in it."""

    def __init__(
        self, config: dict[str, Any], make_app: MakeApp, database: Database | None
    ) -> None:
        self.clock = Ahead(frozen=True)
        options = {**config, "WXJSAPI_REFRESH_TIMEOUT": PATIENCE}
        self.processes = [Process(*make_app(**options), clock=self.clock) for _ in range(2)]
        self._database = database

    def key(self, name: str) -> str:
        return self.processes[0].credentials.holding.keys.of(name)

    def plant(self, name: str, text: str) -> None:
        if self._database is not None and name == "jsapi_ticket":
            self._database.plant(self.key(name), text)
            return
        (runtime,) = self.processes[0].app.extensions["wxjsapi.engine"]._runtimes.values()
        (part,) = runtime.stores._caches.values()
        part.server._backend.set(self.key(name), text, timeout=DAY)

    def read(self) -> list[str]:
        """What the pages of both get, after a look."""
        found = []
        for process in self.processes:
            process.look()
            found.append(process.ticket())
            process.settle()
        return found

    @property
    def calls(self) -> int:
        return sum(process.calls.get("jsapi_ticket", 0) for process in self.processes)


@pytest.fixture(params=["files", "Redis", "database"])
def place(request: pytest.FixtureRequest, make_app: MakeApp, tmp_path: Path) -> Iterator[Place]:
    database = None
    config = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path / "cache")}
    if request.param == "Redis":
        valkey: Valkey = request.getfixturevalue("valkey")
        config = {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": valkey.patient_url}
    elif request.param == "database":
        database = Database(tmp_path / "tickets.db")
        config["WXJSAPI_TICKET_SERVER"] = database  # type: ignore[assignment]  # a class
    yield Place(config, make_app, database)
    if database is not None:
        database.connection.close()


def record(**changes: Any) -> Callable[[float], str]:
    """A record that says it is the newest; times are counted from now."""

    def text(now: float) -> str:
        planted: dict[str, Any] = {"value": "planted", "issued_at": 0, "expires_at": 7200}
        planted |= {"generation": 60} | changes
        for name in ("issued_at", "expires_at", "generation"):
            if isinstance(planted[name], int) and abs(planted[name]) < 1e9:
                planted[name] += int(now)
        return json.dumps(planted)

    return text


def literally(text: str) -> Callable[[float], str]:
    return lambda now: text


PLANTS = {
    "a ticket that does not work": record(),
    "the highest generation that is believed": record(generation=7 * DAY - 1),
    "a generation of 4,300 nines": literally(
        '{"value": "planted", "issued_at": 1, "expires_at": 7201, "generation": %s}' % ("9" * 4300)
    ),
    "a generation of a year ahead": record(generation=365 * DAY),
    "a life of thirty days": record(expires_at=30 * DAY),
    "a time of ten days ahead": record(issued_at=10 * DAY, expires_at=10 * DAY + 7200),
    "a time of nearly a day ahead": record(issued_at=DAY - 60, expires_at=DAY + 7000),
    "a ticket that is over": record(issued_at=-8000, expires_at=-1000),
    "a first end far away": record(first=[1.0, 9e11]),
    "a value of a million letters": record(value="x" * 1_000_000),
    "a value with a line break": record(value="a\r\nSet-Cookie: b"),
    "an end that is infinite": literally(
        '{"value": "planted", "issued_at": 1, "expires_at": Infinity, "generation": 1}'
    ),
    "brackets without end": literally("[" * 8000),
    "no JSON": literally("\x00planted"),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_plant_comes_to_its_end(plant: str, place: Place, figure: Figure) -> None:
    """Both processes are back at one ticket of WeChat's when a life is over, without a restart."""
    place.read()
    place.plant("jsapi_ticket", PLANTS[plant](place.clock.time()))
    met = [place.read() for _ in range(2)]
    place.clock.advance(7300)
    place.read()
    assert len(set(place.read())) == 1
    assert "planted" not in place.read()
    assert place.calls <= 4  # the first, one that the plant may cost, and those of the next life
    seen = "its pages fail until then" if "planted" in met[1] else "no page fails"
    figure(f"planted: {plant}", "heals by itself", f"{place.calls} calls in two lives, {seen}")


@pytest.mark.slow
@pytest.mark.parametrize("plant", PLANTS)
def test_a_plant_ends_with_refresh(plant: str, place: Place) -> None:
    """Whoever notices need not wait."""
    place.read()
    place.plant("jsapi_ticket", PLANTS[plant](place.clock.time()))
    place.read()
    place.clock.advance(20)
    after = place.processes[0].refresh()
    place.processes[0].settle()
    assert place.read() == [after, after]
    assert after != "planted"


PAUSES = {
    "without end": {"delay": float("inf"), "retry_at": float("inf")},
    "of a year": {"delay": 3e7, "retry_at": 3e7},
    "of an hour": {"delay": 3600.0, "retry_at": 3600.0},
    "that was": {"delay": -1.0, "retry_at": -1.0},
    "after very many failures": {"failures": 10**300, "delay": 60.0, "retry_at": 60.0},
    "without a number": {"delay": "soon", "retry_at": None},
}


@pytest.mark.parametrize("pause", PAUSES)
def test_a_planted_pause_is_over_in_an_hour(pause: str, place: Place, figure: Figure) -> None:
    """Nobody with a ticket notices, and the next ticket comes at the latest then."""
    before = place.read()
    now = place.clock.time()
    note = {"failures": 1, "since": now, "message": "planted", **PAUSES[pause]}
    if isinstance(note["retry_at"], float):
        note["retry_at"] += now
    note["digest"] = place.processes[0].credentials.holding.digest
    for kind in ("jsapi_ticket", "access_token"):
        place.plant(f"backoff.{kind}", json.dumps(note))
    assert place.read() == before
    place.clock.advance(7300)
    place.read()
    assert len(set(place.read())) == 1
    assert place.calls == 2
    figure(f"planted: a pause {pause}", "heals by itself", f"{place.calls} calls in two lives")
