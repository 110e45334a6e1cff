"""What the tests of the sandbox share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flask_wxjsapi.sandbox import Sandbox

from .caller import Caller


@pytest.fixture
def caller() -> Caller:
    return Caller()


@pytest.fixture
def served() -> Iterator[Sandbox]:
    with Sandbox().serve() as sandbox:
        yield sandbox
