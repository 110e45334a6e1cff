"""A WSGI application on a port, in a thread of this process."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

from werkzeug.serving import WSGIRequestHandler, make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_SHOWN = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - shown only


class Listener:
    """Listens from the start, in a daemon thread.

    :param port: 0 for any free one.
    :raises OSError: if the port is taken.
    """

    def __init__(self, app: WSGIApplication, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Werkzeug exits the process when a port is taken; a socket of our own raises.
        with socket.create_server((host, port), family=family) as listener:
            port = listener.getsockname()[1]
            self._server = make_server(
                host, port, app, threaded=True,
                request_handler=_QuietHandler, fd=listener.fileno(),
            )  # fmt: skip
        self._pid = os.getpid()
        shown = _SHOWN.get(host, host)
        #: ``http://host:port``.
        self.url = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
        threading.Thread(
            # The interval is how long close() takes at most.
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05},
            name="wxjsapi-sandbox", daemon=True,
        ).start()  # fmt: skip

    def close(self) -> None:
        """Stop listening."""
        if self._pid == os.getpid():  # a forked child has the socket, not the thread
            self._server.shutdown()
        self._server.server_close()


class _QuietHandler(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - Werkzeug's name
        pass  # the request line of the token call carries the secret
