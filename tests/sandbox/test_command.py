"""``python -m flask_wxjsapi.sandbox``."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flask_wxjsapi.sandbox import Sandbox, main
from flask_wxjsapi.sandbox import sandbox as sandbox_module
from flask_wxjsapi.sandbox.accounts import WORLDS

from .caller import SOON, fetch


def test_the_command_serves_until_ctrl_c() -> None:
    """It prints where it is and the settings of an app, and ends without a traceback."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flask_wxjsapi.sandbox", "--port", "0", "--ttl", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(sandbox_module.__file__).parents[2],
    )
    try:
        assert process.stdout
        lines = [process.stdout.readline().strip() for _ in range(5)]
        url = lines[0].split()[3].removesuffix("/sandbox/")
        sandbox = Sandbox()
        sandbox.url = url
        assert fetch(sandbox).json()["expires_in"] == 60
        assert lines[1:4] == [
            f"export FLASK_WXJSAPI_API_BASE_URL={url}",
            f"export FLASK_WXJSAPI_APP_ID={sandbox.app_id}",
            f"export FLASK_WXJSAPI_APP_SECRET={sandbox.app_secret}",
        ]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SOON)
    finally:
        process.kill()
    assert (process.returncode, errors) == (0, "")


def test_the_command_does_not_print_a_given_secret(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may have given a real one."""

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    assert main(["--port", "0", "--app-secret", "hush"]) == 0
    assert "hush" not in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["--ip-whitelist", "x"], ["--ticket", "x"], ["--port", "x"]])
def test_the_command_explains_wrong_options(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A usage message, not a traceback."""
    with pytest.raises(SystemExit) as error:
        main(argv)
    assert error.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_the_help_says_what_each_world_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Who has to choose one need not look elsewhere."""
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for world, meaning in WORLDS.items():
        assert f"{world}: {meaning}" in text
