"""All that the tests of the documentation know of the package's private parts."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from flask import Flask

from flask_wxjsapi._engine.limit import REFRESH, VERIFY
from flask_wxjsapi._platform import PLATFORMS
from flask_wxjsapi._settings import KEYS, Settings
from flask_wxjsapi._storage.cache import CacheServer, CacheSettings
from flask_wxjsapi.sandbox import Sandbox
from flask_wxjsapi.sandbox import sandbox as sandbox_module
from flask_wxjsapi.sandbox.faults import FAULT_NAMES

#: Each setting without its prefix, and its default.
DEFAULTS = {name: key.default for name, key in KEYS.items()}
#: What the store calls the times of renewals that were asked for.
NOTES = [REFRESH.name, VERIFY.name]
#: What ``Sandbox.fail`` takes beside numbers.
FAULTS = set(FAULT_NAMES)


def ask(wechat: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a sandbox in WeChat's place for apps that name no other."""
    for name, platform in PLATFORMS.items():
        here = dataclasses.replace(platform, api_url=wechat.url)
        monkeypatch.setitem(PLATFORMS, name, here)


def open_cache(app: Flask) -> None:
    """Make the cache that the settings choose."""
    CacheSettings(app.config, Settings.load(app.config).cache).open(app)


def note_writes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys that are written to a store from now on."""
    written: list[str] = []
    write = CacheServer.write

    def note(self: CacheServer, key: str, value: dict[str, Any], life: float) -> None:
        written.append(key)
        write(self, key, value, life)

    monkeypatch.setattr(CacheServer, "write", note)
    return written


def digest(app: Flask, account: str) -> str:
    """What tells the applications of a corp apart in the store."""
    return Settings.load(app.config, account).digest[:8]


def close_embedded_sandboxes() -> None:
    """They are for the whole process, and two pages may give an account two secrets."""
    while sandbox_module._embedded:
        sandbox_module._embedded.popitem()[1].close()
