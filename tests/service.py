"""The app that the tests with real processes serve; its config comes from the environment."""

from __future__ import annotations

import os
import sys
import threading
import time
from types import FrameType
from typing import Any

from flask import Flask, jsonify

from flask_wxjsapi import WxJsApi, _views

_reading = threading.local()


def create_app() -> Flask:
    app = Flask(__name__)
    app.config.from_prefixed_env()
    # A central server's, for tests on a busy machine.
    _views._PATIENCE = app.config.get("TESTS_PATIENCE", _views._PATIENCE)
    wxjsapi = WxJsApi(app)

    @app.get("/ticket")
    def ticket() -> Any:
        return jsonify(pid=os.getpid(), ticket=wxjsapi.ticket)

    @app.get("/touched")
    def touched() -> Any:
        """What a read of the ticket touches: audit events, C locks, functions of threading."""
        with _Watch() as watch:
            value = wxjsapi.config(["chooseImage"])["signature"]
        return jsonify(pid=os.getpid(), signature=value, touched=watch.touched)

    @app.get("/status")
    def status() -> Any:
        found = wxjsapi.status()
        return jsonify(pid=os.getpid(), state=found.state, last_error=found.last_error)

    @app.get("/nap")
    def nap() -> Any:
        """Busy for long enough that the next request goes to another worker."""
        time.sleep(0.3)
        return jsonify(pid=os.getpid())

    @app.get("/threads")
    def threads() -> Any:
        return jsonify(pid=os.getpid(), threads=[thread.name for thread in threading.enumerate()])

    return app


class _Watch:
    """Notes everything outside this process's own memory that the calling thread touches."""

    def __init__(self) -> None:
        self.touched: list[str] = []

    def __enter__(self) -> _Watch:
        _reading.watch = self
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        _reading.watch = None

    def _profile(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "c_call" and getattr(arg, "__name__", "") in ("acquire", "__enter__", "wait"):
            self.touched.append(f"lock: {arg!r}")
        elif event == "call" and frame.f_code.co_filename == threading.__file__:
            self.touched.append(f"threading: {frame.f_code.co_name}")
        elif event == "call" and frame.f_code.co_name in ("_fly", "_board", "_wait_for"):
            self.touched.append(f"engine: {frame.f_code.co_name}")


def _audit(event: str, args: tuple[Any, ...]) -> None:
    watch = getattr(_reading, "watch", None)
    if watch is not None and event.startswith(("open", "socket", "os.", "fcntl", "import")):
        watch.touched.append(f"audit: {event}")


sys.addaudithook(_audit)
