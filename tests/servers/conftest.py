"""The WeChat that every server asks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flask_wxjsapi.sandbox import Sandbox


@pytest.fixture(scope="module")
def wechat() -> Iterator[Sandbox]:
    with Sandbox().serve() as sandbox:
        yield sandbox
