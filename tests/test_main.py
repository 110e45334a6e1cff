"""``python -m flask_wxjsapi``, and what a wheel has for it."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from .conftest import free_port, wait_until

ROOT = Path(__file__).parents[1]


@pytest.mark.processes
def test_the_demo_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From any directory, with its page and its style; in tox from the wheel."""
    port = free_port()
    monkeypatch.setenv("PORT", str(port))
    process = subprocess.Popen([sys.executable, "-m", "flask_wxjsapi"], cwd=tmp_path)
    url = f"http://127.0.0.1:{port}"

    def is_up() -> bool:
        assert process.poll() is None
        try:
            return requests.get(f"{url}/static/demo.css", timeout=60).ok
        except requests.ConnectionError:
            return False

    try:
        wait_until(is_up, 60, "the demo answers")
        assert "wx.config" in requests.get(url, timeout=60).text
    finally:
        process.kill()
        process.wait()


@pytest.mark.processes
@pytest.mark.parametrize(("option", "code"), [("--help", 0), ("--port=5001", 2)])
def test_an_option_starts_no_demo(option: str, code: int) -> None:
    """Who asks for help, or guesses an option, is told what there is."""
    command = [sys.executable, "-m", "flask_wxjsapi", option]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == code
    assert ("PORT" in ended.stdout) == (code == 0)
    assert ("usage:" in ended.stderr) == (code == 2)


def test_the_wheel_has_every_package() -> None:
    """setup.cfg lists them by hand, since the demo is elsewhere."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    source = ROOT / "flask_wxjsapi"
    if not source.exists():
        pytest.skip("the tests run away from the source")
    found = {".".join(file.parent.relative_to(ROOT).parts) for file in source.rglob("__init__.py")}
    listed = set(config["options"]["packages"].split())
    assert {name for name in listed if "._demo" not in name} == found
