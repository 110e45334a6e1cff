"""How servers are started for these tests, and what they are asked."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flask_wxjsapi.sandbox import Sandbox
from tests.conftest import free_port, wait_until
from tests.test_url_servers import ROOT, TARGETS, Page, Server

ADDRESSES = [
    *TARGETS,
    "//double//slash",
    "/?",
    "/a%20b",
    "/a%7Cb",
    "/a|b",
    "/100%25",
    "/tag/C%2B%2B",
    "/R%26D",
    "/q%3D%22%27",
    "/x%3Fy%23z",
    "/x%3b=1%2c2",
    "/%E4%B8%AD?",
    "/%E4%B8%AD/%E6%96%87?q=%E4%B8%AD",
]


@dataclass
class Kind:
    """How to start a server.

    :param packages: what it needs, as pip calls them; the last is what adapts, where one does.
    :param command: of a program in ``BIN``, or options of Python's.
    """

    packages: list[str]
    command: str


@contextmanager
def serving(kind: Kind, packages: Path | None, directory: Path, wechat: Sandbox) -> Iterator[int]:
    """A server on a port of its own, in a session of its own that ends with it."""
    port = free_port()
    found = {"PORT": str(port), "BIN": str((packages or Path(sys.prefix)) / "bin")}
    found["ROOT"] = str(directory / "server")
    found["HTTPD"] = shutil.which("apache2") or shutil.which("httpd") or "httpd"
    words = re.sub("|".join(found), lambda word: found[word[0]], kind.command).split()
    paths = [str(ROOT), *([str(packages)] if packages else []), *sys.path]
    env = os.environ | {"WECHAT_URL": wechat.url, "PYTHONPATH": os.pathsep.join(paths)}
    env["ADAPTER"] = (kind.packages or [""])[-1]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *words] if words[0] == "-m" else words,
            cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        wait_until(lambda: listens(port, process), 60, "it listens")
        yield port
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(process.pid, signal.SIGKILL)  # and what it has left
        except ProcessLookupError:
            pass
        process.wait()


def listens(port: int, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "it ended"
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def ask_all(port: int, targets: Iterable[str]) -> tuple[dict[str, Page], list[str]]:
    """The page at each address, and the addresses that were refused."""
    pages: dict[str, Page] = {}
    refused = []
    for target in targets:
        try:
            pages[target] = Server("", port).page(target)
        except (AssertionError, ConnectionError, http.client.HTTPException):
            refused.append(target)
    assert all(page.signs(page.url) for page in pages.values())
    return pages, refused
