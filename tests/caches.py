"""What the tests of the store share: caches, each as one process would open it."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask_caching.backends.base import BaseCache

from flask_wxjsapi._credential import JSAPI_TICKET, Credential
from flask_wxjsapi._storage.cache import CacheServer, CacheSettings

PREFIX = "wxjsapi:{api.weixin.qq.com/wx0123}:"
KEY = PREFIX + JSAPI_TICKET
NOW = 1_800_000_000.0
TICKET = Credential("ticket-1", NOW + 0.125, NOW + 7200.125, 5)
NEWER = Credential("newer-2", NOW + 7000.5, NOW + 14200.5, 6)
LOGGER = "flask_wxjsapi"

posix_only = pytest.mark.skipif(not hasattr(os, "getuid"), reason="POSIX permissions")


@pytest.fixture
def own_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where host leases go in this test: nobody else's are there."""
    path = tmp_path / "tmp"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


@pytest.fixture
def open_cache() -> Iterator[Callable[..., CacheServer]]:
    """Opens private caches, as one process each would; keyword arguments are config keys."""
    opened = []

    def open_cache(app: Flask | None = None, **config: Any) -> CacheServer:
        app = app or Flask("tests")
        app.config.update(config)
        server = CacheSettings(app.config, {}).open(app)
        opened.append(server)
        return server

    yield open_cache
    for server in opened:
        if server._client is not None:
            server._client.close()


@pytest.fixture(params=["memory", "files", "redis"])
def shared_config(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The ``CACHE_*`` keys of each kind of backend in turn."""
    return config_of(request.param, request)


def config_of(kind: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    """The ``CACHE_*`` keys of a kind of backend."""
    if kind == "memory":
        return {"CACHE_TYPE": "SimpleCache"}
    if kind == "files":
        path = request.getfixturevalue("tmp_path") / "cache"
        return {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(path)}
    request.getfixturevalue("patient")
    return {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": request.getfixturevalue("valkey").url}


def logged(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    """What the package said, at a level or above."""
    return [
        r.getMessage() for r in caplog.records if r.name.startswith(LOGGER) and r.levelno >= level
    ]


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    """``os.umask``, undone after the test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


#: The CACHE_TYPE of the class below.
TEXT_BACKEND = f"{__name__}.TextBackend"


class TextBackend(BaseCache):
    """A backend that unpickles by itself and has no serializer, as memcached clients have."""

    def __init__(self, default_timeout: int = 300, **options: Any) -> None:
        super().__init__(default_timeout)
        self.values: dict[str, Any] = {}
        self.timeouts: list[int] = []
        self.answer = True

    def get(self, key: str) -> Any:
        return self.values.get(key)

    def set(self, key: str, value: Any, timeout: int | None = None) -> bool:
        assert timeout is not None
        self.values[key] = value
        self.timeouts.append(timeout)
        return self.answer

    def delete(self, key: str) -> bool:
        return self.values.pop(key, None) is not None
