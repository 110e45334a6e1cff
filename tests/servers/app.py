"""The app under test, which keeps what its process tells."""

from __future__ import annotations

import logging

from tests.test_url_servers import create_app, told


class Ear(logging.Handler):
    """Keeps at which level the log has told that addresses are rebuilt."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "wxjsapi", {}).get("event") == "address_rebuilt":
            told.append(record.levelname)


logging.getLogger("flask_wxjsapi").addHandler(Ear())
logging.getLogger("flask_wxjsapi").setLevel(logging.INFO)
application = create_app()
