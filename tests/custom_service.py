"""The app of ``service`` with the tickets in the example's database."""

from __future__ import annotations

from flask import Flask

from examples.custom_server.ticket_server import create_table, db

from . import service


def create_app() -> Flask:
    app = service.create_app()
    db.init_app(app)
    create_table(app)
    return app
