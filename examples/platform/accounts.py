"""The table of accounts, in a file of SQLite's; any other database will do."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path

from flask import current_app

_TABLE = """
    CREATE TABLE IF NOT EXISTS account (
        app_id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        hosts TEXT NOT NULL,
        secret TEXT NOT NULL
    )
"""
_HOST = re.compile(r"\.?[a-z0-9-]+(\.[a-z0-9-]+)*(:\d+)?", re.ASCII)


@dataclass(frozen=True)
class Account:
    """A row.

    :param hosts: beside this app's own, where pages of the account may be; with blanks between.
    """

    app_id: str
    name: str
    hosts: str
    secret: str = field(repr=False)

    @property
    def problem(self) -> str:
        """What a person has to mend before it can be kept; empty if nothing."""
        if not re.fullmatch("wx[0-9a-f]{16}", self.app_id):
            return "An AppID is wx and sixteen digits or letters from a to f."
        if not 0 < len(self.name) <= 50:
            return "A name has one to fifty characters."
        if not re.fullmatch("[!-~]{1,200}", self.secret):
            return "An AppSecret has no spaces and no letters but a to z: copy it once more."
        for host in self.hosts.split():
            if not _HOST.fullmatch(host):
                return f"{host} is no host: m.example.com is one, .example.com all in a domain."
        return ""


def create_table(path: Path) -> bool:
    """Make the file, which nobody else may read, for there are secrets in it.

    :returns: whether it is new.
    """
    is_new = not path.exists()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    with _connected() as connection:
        connection.execute(_TABLE)
    return is_new


def everything() -> list[Account]:
    with _connected() as connection:
        return [Account(*row) for row in connection.execute("SELECT * FROM account ORDER BY name")]


def find(app_id: str) -> Account | None:
    with _connected() as connection:
        row = connection.execute("SELECT * FROM account WHERE app_id = ?", [app_id]).fetchone()
    return row and Account(*row)


def save(account: Account) -> None:
    with _connected() as connection:
        connection.execute("REPLACE INTO account VALUES (?, ?, ?, ?)", astuple(account))


def remove(app_id: str) -> None:
    with _connected() as connection:
        connection.execute("DELETE FROM account WHERE app_id = ?", [app_id])


@contextmanager
def _connected() -> Iterator[sqlite3.Connection]:
    """A connection of its own: the account_loader is called in more than one thread."""
    with closing(sqlite3.connect(current_app.config["DATABASE"])) as connection, connection:
        yield connection
