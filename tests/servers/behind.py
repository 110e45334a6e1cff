"""The app behind a proxy that tells the address, with the middleware that the page shows."""

from __future__ import annotations

from functools import partial

from werkzeug.middleware.proxy_fix import ProxyFix

from tests.docs.pages import block_with
from tests.test_url_servers import _page

application = _page()
exec(
    block_with("docs/urls.rst", "class AddressOfProxy"),
    {"app": application, "ProxyFix": partial(ProxyFix, x_prefix=1)},
)
