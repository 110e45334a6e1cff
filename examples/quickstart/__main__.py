"""``python examples/quickstart``, which ``make demo`` and ``python -m flask_wxjsapi`` run."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import socket
import sys
from pathlib import Path

from app import create_app
from demo import read_ttl
from werkzeug.serving import make_server

COMMAND = "python -m flask_wxjsapi" if Path(__file__).parent.name == "_demo" else "make demo"
HELP = """Shows the demo of Flask-WxJsApi. It takes no options; the environment has them:
PORT (5000), TTL (seconds that the sandbox's tickets live) and every FLASK_WXJSAPI_* setting."""


def main() -> int | str:
    """Serve the example on 127.0.0.1 until Ctrl-C.

    :returns: the exit code, or what went wrong.
    """
    argparse.ArgumentParser(prog=COMMAND, description=HELP).parse_args()
    if not os.environ.get("FLASK_WXJSAPI_APP_ID"):
        os.environ["FLASK_DEBUG"] = "1"  # the extension takes its sandbox in debug mode only
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("flask_wxjsapi").setLevel(logging.INFO)  # says when a ticket is renewed
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # the panel asks every second
    try:
        port, ttl = _read_port(), read_ttl()
        app = create_app()
    except RuntimeError as error:  # a setting that cannot be right; the text says which
        return str(error)
    try:
        # Werkzeug would exit with advice of its own if the port is taken.
        listener = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        problem = "is taken" if error.errno == errno.EADDRINUSE else f"fails: {error.strerror}"
        return f"Port {port} {problem}. Take another one:  PORT={port + 1} {COMMAND}"
    with listener:
        server = make_server("127.0.0.1", port, app, threaded=True, fd=listener.fileno())
    about: tuple[str, ...]
    if app.config["DEMO_SANDBOX"]:
        about = (
            f"  WeChat is played by a sandbox in this process. A ticket lives {ttl:g} s.",
            "  Its phone is your browser: see the card in the corner of the page.",
            f"  Watch renewals:  TTL=30 {COMMAND}",
            f"  A real account:  FLASK_WXJSAPI_APP_ID=wx... FLASK_WXJSAPI_APP_SECRET=... {COMMAND}",
        )
    else:
        about = ("  Open it inside WeChat, at a domain that your account has for the JS-SDK.",)
    address = f"http://127.0.0.1:{server.port}"
    print(f"\n  Open  {address}  (Ctrl-C stops it)\n", *about, "", sep="\n", flush=True)
    server.serve_forever()  # returns after Ctrl-C
    return 0


def _read_port() -> int:
    text = os.environ.get("PORT", "5000")
    if text.isdecimal() and 0 <= int(text) <= 65535:
        return int(text)
    raise RuntimeError(f"PORT must be a number from 0 to 65535, got {text!r}")


if __name__ == "__main__":
    sys.exit(main())
