"""Proxies that write the path anew and tell the address as well, as the page has them do it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flask_wxjsapi.sandbox import Sandbox
from tests.conftest import free_port, require, wait_until
from tests.docs.pages import block_with
from tests.servers.starting import ADDRESSES, Kind, ask_all, listens, serving

pytestmark = pytest.mark.slow

PAGE = "docs/urls.rst"
NGINX = """
daemon off;
pid {directory}/pid;
error_log {directory}/log;
events {{}}
http {{
    access_log off;
    upstream app {{ server 127.0.0.1:{app}; }}
    server {{
        listen 127.0.0.1:{port};
        {locations}
    }}
}}
"""
CADDY = """
{{
    admin off
}}
http://127.0.0.1:{port}, http://good.example:{port} {{
    {shop}
    reverse_proxy 127.0.0.1:{app} {{
        header_up X-Request-Uri {{http.request.orig_uri}}
    }}
}}
"""


def nginx(directory: Path, port: int, app: int) -> list[str]:
    """Its command, for the locations of the page with the line of the page in each."""
    told = block_with(PAGE, "X-Request-Uri $request_uri")
    blocks = [block_with(PAGE, f"location {prefix} {{") for prefix in ("/", "/shop/")]
    locations = "".join(block.rstrip().removesuffix("}") + told + "}\n" for block in blocks)
    config = NGINX.format(directory=directory, port=port, app=app, locations=locations)
    user = "user root;" if os.geteuid() == 0 else ""
    (directory / "nginx.conf").write_text(user + config)
    return ["nginx", "-c", str(directory / "nginx.conf"), "-p", str(directory)]


def caddy(directory: Path, port: int, app: int) -> list[str]:
    """Its command, for the block of the page."""
    shop = block_with(PAGE, "handle_path").replace("app:8000", f"127.0.0.1:{app}")
    (directory / "Caddyfile").write_text(CADDY.format(port=port, app=app, shop=shop))
    return ["caddy", "run", "--config", str(directory / "Caddyfile"), "--adapter", "caddyfile"]


@contextmanager
def proxy(command: list[str], directory: Path, port: int) -> Iterator[None]:
    env = os.environ | {"HOME": str(directory)}
    with (directory / "output").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=env)
    try:
        wait_until(lambda: listens(port, process), 60, "the proxy listens")
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("make", [nginx, caddy])
@pytest.mark.parametrize("prefix", ["", "/shop"])
def test_addresses_through_a_proxy(
    make: Callable[[Path, int, int], list[str]], prefix: str, wechat: Sandbox, tmp_path: Path
) -> None:
    """A server that keeps nothing signs all of them exactly, with a prefix taken away as well."""
    if not shutil.which(make.__name__):
        require(make.__name__, f"no {make.__name__}: apt-get install {make.__name__}")
    targets = [prefix + target for target in ADDRESSES]
    behind = Kind([], "-m tests.servers.run behind PORT")
    port = free_port()
    with (
        serving(behind, None, tmp_path, wechat) as app,
        proxy(make(tmp_path, port, app), tmp_path, port),
    ):
        pages, refused = ask_all(port, targets)
    wrong = [page.url for target, page in pages.items() if page.url[19:] != target]
    assert wrong == []
    assert len(refused) <= 3
