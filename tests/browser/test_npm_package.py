"""The npm package, as ``npm pack`` makes it in ``client``."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from flask_wxjsapi import WxJsApi

from .conftest import ROOT, tool

MakeApp = Callable[..., tuple[Flask, WxJsApi]]


@pytest.fixture
def served(make_app: MakeApp) -> Callable[[str], str]:
    """What a server answers that has WeChat's own JS-SDK."""
    app, _ = make_app(WXJSAPI_URL_PREFIX="/wxjsapi")
    return lambda form: app.test_client().get(f"/wxjsapi/client.{form}").text


def test_it_is_the_module_that_flask_serves(
    npm_package: Path, served: Callable[[str], str]
) -> None:
    """Byte for byte, but for an address of its own, which a bundle does not have."""
    module = served("mjs").replace("})(import.meta.url, [", "})(null, [")
    assert (npm_package / "index.js").read_text(encoding="utf-8") == module


def test_its_types_are_those_that_flask_serves(
    npm_package: Path, served: Callable[[str], str]
) -> None:
    """One text."""
    assert (npm_package / "index.d.ts").read_text(encoding="utf-8") == served("d.ts")


def test_it_holds_nothing_else(npm_package: Path) -> None:
    """No script that makes it, and nothing of the sandbox's phone."""
    files = {path.name: path.read_text(encoding="utf-8") for path in npm_package.iterdir()}
    names = {"LICENSE", "README.md", "index.d.ts", "index.js", "package.json"}
    assert files.keys() == names
    assert "sandbox" not in "".join(files.values()).lower()


def test_its_version_is_the_newest_in_the_changes(npm_package: Path) -> None:
    """Both packages go by one number."""
    numbers = {json.loads((npm_package / "package.json").read_text())["version"]}
    for name in ("setup.cfg", "CHANGES.rst"):
        version = re.search(
            r"^(?:version = )?(\d+\.\d+\.\d+)", (ROOT / name).read_text("utf-8"), re.M
        )
        assert version
        numbers.add(version[1])
    assert len(numbers) == 1


RENDERED_ON_A_SERVER = """
import { config } from "flask-wxjsapi-client";
void config({ endpoint: "/wxjsapi" }); // as a router's hook does
console.log(await config().catch((error) => error.message));
"""


def test_a_server_may_import_it(npm_package: Path, tmp_path: Path) -> None:
    """Where Node renders a page there is no WeChat, and a hook does not end the process."""
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "flask-wxjsapi-client").symlink_to(npm_package)
    (tmp_path / "page.mjs").write_text(RENDERED_ON_A_SERVER, encoding="utf-8")
    said = subprocess.run(
        [tool("node"), "page.mjs"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (said.stdout, said.stderr) == (
        "Not inside WeChat: wx.config needs WeChat's own browser.\n",
        "",
    )
