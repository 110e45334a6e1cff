"""A central server and two services without a secret, which sign their pages with its ticket.

From the top of the repository, without an account::

    pip install -e . gunicorn
    python examples/central           # PORT=8000 is the default, and the two ports that follow

Each of the three is an app of its own with two workers. A sandbox plays WeChat. A curl command is
printed, with a token of its own, that fetches the ticket. Ctrl-C ends all of it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from flask_wxjsapi.sandbox import Sandbox

HERE = Path(__file__).parent
CLIENTS = ("blog", "shop")


def main() -> int | str:
    """Run the three apps until Ctrl-C, or until one of them ends.

    :returns: the exit code, or what is missing.
    """
    port = _port()
    if shutil.which("gunicorn", path=_path()) is None:
        return "gunicorn is missing:  pip install gunicorn"
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    tokens = {client: secrets.token_urlsafe(32) for client in (*CLIENTS, "curl")}
    with ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox().serve())
        server = _start(
            stack,
            "server:create_app()",
            port,
            WXJSAPI_APP_ID=sandbox.app_id,
            WXJSAPI_APP_SECRET=sandbox.app_secret,
            WXJSAPI_API_BASE_URL=sandbox.url,
            WXJSAPI_CENTRAL_TOKENS=json.dumps(tokens),
        )
        addresses = [
            _start(
                stack,
                f"client:create_app({client!r})",
                port + number,
                WXJSAPI_APP_ID=sandbox.app_id,
                WXJSAPI_CENTRAL_URL=f"{server}/wxjsapi",
                WXJSAPI_CENTRAL_TOKEN=tokens[client],
                SANDBOX_URL=sandbox.url,
            )
            for number, client in enumerate(CLIENTS, 1)
        ]
        print(f"\n  The central server:  {server}")
        for client, address in zip(CLIENTS, addresses, strict=True):
            print(f"  Open the {client}:  {address}")
        print(f"  What WeChat is asked for:  {sandbox.url}/sandbox/")
        bearer = f"Authorization: Bearer {tokens['curl']}"
        print("  Fetch the ticket as any other program does:\n")
        print(f'    curl -H "{bearer}" {server}/wxjsapi/ticket\n', flush=True)
        try:
            return os.waitstatus_to_exitcode(os.wait()[1])
        except KeyboardInterrupt:
            return 0


def _start(stack: ExitStack, app: str, port: int, **config: str) -> str:
    """Two workers, which share a ticket through files that no other app has.

    :param config: Flask config keys, for ``app.config.from_prefixed_env()``.
    :returns: the app's address.
    """
    config["CACHE_DIR"] = stack.enter_context(tempfile.TemporaryDirectory())
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("FLASK_")}
    command = ["gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "2", "--threads", "4"]
    process = subprocess.Popen(
        [*command, "--log-level", "warning", app],
        env=inherited | {"PATH": _path()} | {f"FLASK_{key}": config[key] for key in config},
        cwd=HERE,
        # Else a worker gets Ctrl-C twice, here and from its master, and may hang on that.
        process_group=0,
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return f"http://127.0.0.1:{port}"


def _port() -> int:
    text = os.environ.get("PORT", "8000")
    if text.isdecimal() and 0 < int(text) < 65534:
        return int(text)
    sys.exit(f"PORT must be a number from 1 to 65533, got {text!r}")


def _path() -> str:
    """Where programs are looked for: first beside this Python, as in a virtual environment."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


if __name__ == "__main__":
    sys.exit(main())
