"""What the tests of the commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask

from flask_wxjsapi import WxJsApi
from flask_wxjsapi._tools import cli
from flask_wxjsapi.sandbox import Sandbox

from .terminal import APP_ID, SECRET, Site


@pytest.fixture(scope="module")
def _sandbox() -> Iterator[Sandbox]:
    with Sandbox(APP_ID, SECRET).serve() as sandbox:
        yield sandbox


@pytest.fixture(autouse=True)
def _last_words(patient: None, seldom: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command waits for what is told behind it for as long as a busy machine takes."""
    monkeypatch.setattr(cli, "_LAST_WORDS", 60.0)


@pytest.fixture
def sandbox(_sandbox: Sandbox) -> Sandbox:
    _sandbox.reset()
    return _sandbox


@pytest.fixture
def site(make_app: Callable[..., tuple[Flask, WxJsApi]], tmp_path: Path) -> Site:
    return Site(make_app, CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path))


@pytest.fixture
def lone(make_app: Callable[..., tuple[Flask, WxJsApi]]) -> Site:
    """With nothing between server and terminal."""
    return Site(make_app, CACHE_TYPE="SimpleCache")
