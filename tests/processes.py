"""Real worker processes for tests: gunicorn, and many readers at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gunicorn.config
import requests

from flask_wxjsapi.sandbox import Sandbox

from .conftest import free_port, wait_until

ROOT = Path(__file__).parent.parent

#: Newer gunicorns run a thread for a control socket in the master, all on one path of the user's.
NO_CONTROL_SOCKET = [
    "--no-control-socket"
    for setting in gunicorn.config.KNOWN_SETTINGS
    if setting.name == "control_socket_disable"
]


class Gunicorn:
    """``gunicorn tests.service:create_app()`` on a port of its own.

    :param config: Flask config keys, handed over as ``FLASK_*`` environment variables.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        directory: Path,
        *options: str,
        app: str = "tests.service:create_app()",
        **config: str,
    ) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log = directory / "gunicorn.log"
        self._command = [sys.executable, "-m", "gunicorn", app, "--bind", self.url[7:]]
        self._command += ["--access-logfile", "/dev/null", *NO_CONTROL_SOCKET, *options]
        settings = {
            "WXJSAPI_APP_ID": sandbox.app_id,
            "WXJSAPI_APP_SECRET": sandbox.app_secret,
            "WXJSAPI_API_BASE_URL": sandbox.url,
        }
        self._env = {key: value for key, value in os.environ.items() if key[:6] != "FLASK_"}
        self._env |= {f"FLASK_{key}": value for key, value in (settings | config).items()}

    def __enter__(self) -> Gunicorn:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._env, stdout=log, stderr=log
            )
        try:
            wait_until(self._answers, 90, f"gunicorn answers: {self.log}")
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        return self

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            # A path that does not exist and so reads no ticket; nor is one fetched for it yet.
            return requests.get(f"{self.url}/threads", timeout=5).ok
        except (requests.ConnectionError, requests.Timeout):
            return False

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def get(self, path: str, timeout: float = 90) -> Any:
        response = requests.get(self.url + path, timeout=timeout)
        response.raise_for_status()
        return response.json()

    def pids(self, count: int) -> set[int]:
        """The PIDs of all workers, which are this many."""
        found: set[int] = set()

        def is_complete() -> bool:
            found.update(answer["pid"] for answer in at_once(4 * count, lambda: self.get("/nap")))
            return len(found) == count

        wait_until(is_complete, 90, "every worker has answered")
        return found

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)


def at_once(count: int, action: Callable[[], Any]) -> list[Any]:
    """What ``count`` threads get from calling ``action`` at the same moment; errors included."""
    barrier = threading.Barrier(count)
    results: list[Any] = []

    def run() -> None:
        barrier.wait(60)
        try:
            results.append(action())
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results
