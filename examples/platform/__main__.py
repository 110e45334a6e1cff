"""``python examples/platform``: the app on a port of this machine, until Ctrl-C."""

from __future__ import annotations

import os
import sys

from app import create_app


def main() -> int | str:
    """Serve the example; a sandbox plays WeChat.

    :returns: the exit code, or what went wrong.
    """
    port = os.environ.get("PORT", "5000")
    if not (port.isdecimal() and int(port) < 65536):
        return f"PORT must be a number from 0 to 65535, got {port!r}"
    app = create_app({"DEBUG": True})  # the extension takes its sandbox in debug mode only
    app.run(port=int(port), use_reloader=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
