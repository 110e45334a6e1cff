"""A ticket server on Flask-SQLAlchemy: the table, and ``find`` and ``save`` on top of it."""

from __future__ import annotations

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import BigInteger, Double, String
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.schema import CreateTable

from flask_wxjsapi import Credential, TicketServer


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)


class Ticket(db.Model):
    """One row for each account and kind of ticket."""

    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    value: Mapped[str] = mapped_column(String(512))
    issued_at: Mapped[float] = mapped_column(Double)  # Float would be a minute out in MySQL
    expires_at: Mapped[float] = mapped_column(Double)
    generation: Mapped[int] = mapped_column(BigInteger)


class DatabaseTicketServer(TicketServer):
    """One row a key, read and written in a session that is closed when the call returns.

    Not in ``db.session``: what a view has begun there is neither committed nor rolled back along.
    """

    def find(self, key: str) -> Credential | None:
        with Session(db.engine) as session:
            row = session.get(Ticket, key)
            if row is None:
                return None
            return Credential(row.value, row.issued_at, row.expires_at, row.generation)

    def save(self, key: str, credential: Credential) -> None:
        try:
            self._merge(key, credential)
        except IntegrityError:  # another process has inserted the row since merge() looked
            self._merge(key, credential)

    def _merge(self, key: str, credential: Credential) -> None:
        # begin() commits at the end of the block, and rolls back if something raises in it.
        with Session(db.engine) as session, session.begin():
            session.merge(
                Ticket(
                    key=key,
                    value=credential.value,
                    issued_at=credential.issued_at,
                    expires_at=credential.expires_at,
                    generation=credential.generation,
                )
            )


def create_table(app: Flask) -> None:
    """Make the table unless it is there.

    ``db.create_all()`` looks first and then creates, so of two workers that start together one
    could fail; the database itself does both in one step.
    """
    with app.app_context():
        with db.engine.begin() as connection:
            connection.execute(CreateTable(Ticket.__table__, if_not_exists=True))
        db.engine.dispose()  # gunicorn --preload forks later: no connection may go along
