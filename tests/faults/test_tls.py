"""WeChat over TLS, as in production, with the worker classes that change the standard library."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from flask_wxjsapi.sandbox import Sandbox

from .. import wire
from ..conftest import require
from ..processes import ROOT
from .servers import Fleet

pytestmark = pytest.mark.processes

#: What docs/recipes.rst puts at the top of gunicorn's config file.
PATCHES = "from gevent import monkey\n\nmonkey.patch_all()\n"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key in the same file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        require("openssl", "no openssl to make a certificate with")
    path = tmp_path / "certificate.pem"
    command = [str(openssl), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run(command, check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


@pytest.fixture
def wechat(answering: Callable[..., wire.Recorder], certificate: Path) -> wire.Recorder:
    """It answers every call with a token and a ticket, over TLS."""
    answer = {"errcode": 0, "access_token": wire.TOKEN, "ticket": "ticket", "expires_in": 7200}
    server = answering(wire.http(answer))
    server.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.tls.load_cert_chain(certificate)
    return server


def test_gevent_with_preload_over_tls(wechat: wire.Recorder, certificate: Path) -> None:
    """Patched at the top of gunicorn's config file, before ssl is imported, it serves."""
    pytest.importorskip("gevent")
    assert textwrap.indent(PATCHES, "    ") in (ROOT / "docs/recipes.rst").read_text()
    directory = certificate.parent
    config_file = directory / "gunicorn.conf.py"
    # For loopback nothing of the environment counts, REQUESTS_CA_BUNDLE included.
    trust = f"\nimport certifi\n\ncertifi.where = lambda: {str(certificate)!r}\n"
    config_file.write_text(PATCHES + trust)
    config = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(directory / "cache")}
    config |= {"WXJSAPI_API_BASE_URL": f"https://{wechat.netloc}"}
    config |= {"WXJSAPI_REFRESH_TIMEOUT": "60"}
    options = ["--worker-class=gevent", "--preload", f"--config={config_file}"]
    with Fleet(Sandbox(), directory, *options, **config) as fleet:
        answers = fleet.ask_everyone("/ticket")
        assert {answer["ticket"] for answer in answers.values()} == {"ticket"}
        assert len(wechat.requests) == 2
