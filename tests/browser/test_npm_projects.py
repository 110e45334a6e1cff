"""The projects of examples/vite-vue and examples/vite-react, checked, built and visited."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from flask import Flask, Response, send_from_directory
from playwright.sync_api import Page
from sybil import Document
from sybil.parsers.rest.lexers import DirectiveLexer

from examples.spa import create_app
from flask_wxjsapi import WxJsApi
from flask_wxjsapi.sandbox import Sandbox

from ..conftest import free_port, wait_until
from .conftest import ANDROID, IPHONE, ROOT, Phone, npm_install, tool
from .phone_page import CARD

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NAMES = ("vite-vue", "vite-react")


@dataclass(frozen=True)
class Project:
    """One whose packages are there, with the client as it is now."""

    folder: Path

    def command(self, *words: str) -> list[str]:
        """A program of one of its packages, without npx between."""
        program = (self.folder / "node_modules" / ".bin" / words[0]).resolve()
        return [tool("node"), str(program), *words[1:]]

    def run(self, *words: str) -> None:
        done = subprocess.run(
            self.command(*words), cwd=self.folder, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def projects(npm_package: Path) -> dict[str, Project]:
    return {name: prepared(ROOT / "examples" / name, npm_package) for name in NAMES}


def prepared(folder: Path, client: Path) -> Project:
    package = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    wanted = package["dependencies"] | package["devDependencies"]
    if not all((folder / "node_modules" / name).exists() for name in wanted):
        npm_install(folder)
    installed = folder / "node_modules" / "flask-wxjsapi-client"
    shutil.rmtree(installed)
    shutil.copytree(client, installed)
    return Project(folder)


@pytest.mark.parametrize(("name", "checker"), [("vite-vue", "vue-tsc"), ("vite-react", "tsc")])
def test_its_types_are_right(projects: dict[str, Project], name: str, checker: str) -> None:
    """TypeScript has nothing to say, strict."""
    projects[name].run(checker, "--noEmit")


# -- what the pages show ---------------------------------------------------------------------------

#: The names of a reader's own that the snippets use.
OF_THE_READER = """
import type { Router } from "vue-router";
declare global { const router: Router; }
"""
SETTINGS = {
    "extends": "./project.json",
    "compilerOptions": {
        "allowJs": True,
        "checkJs": True,
        "noUncheckedIndexedAccess": False,
        "paths": {"/wxjsapi/client.mjs": ["./node_modules/flask-wxjsapi-client/index.d.ts"]},
    },
    "include": ["*.ts", "*.js", "node_modules/flask-wxjsapi-client/index.d.ts"],
}


PAGES = [
    *(
        f"docs/{language}{name}.rst"
        for language in ("", "zh/")
        for name in ("single-page-apps", "accounts")
    ),
    "client/README.md",
]


def blocks(page: str) -> list[tuple[str, str]]:
    """The code of a page, each block with its language."""
    if page.endswith(".md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        return re.findall(r"^```(\w+)\n(.*?)^```", text, re.M | re.S)
    regions = DirectiveLexer("code-block")(Document.parse(str(ROOT / page)))
    return [(region.lexemes["arguments"], region.lexemes["source"]) for region in regions]


def snippets(page: str) -> Iterator[tuple[str, str]]:
    """The TypeScript and JavaScript of a page, that in its HTML as well, as files."""
    for number, (language, source) in enumerate(blocks(page), 1):
        scripts = re.findall(r"<script[^>]*>(.*?)</script>", source, re.S)
        texts = {"ts": [source], "js": [source], "html": scripts}.get(language, [])
        for text in filter(None, texts):
            # A file without import and export would share its names with all others.
            alone = "" if re.search(r"^ *(import|export) ", text, re.M) else "export {};\n"
            suffix = "ts" if language == "ts" else "js"
            yield f"{page.replace('/', '-')}-{number}.{suffix}", alone + text


@pytest.mark.parametrize(
    ("name", "is_of_vue", "reader"),
    [("vite-vue", True, OF_THE_READER), ("vite-react", False, "")],
    ids=NAMES,
)
def test_the_types_of_the_pages_code_are_right(
    projects: dict[str, Project], tmp_path: Path, name: str, is_of_vue: bool, reader: str
) -> None:
    """With the packages of that project whose framework a snippet is about."""
    files = dict(snippet for page in PAGES for snippet in snippets(page))
    files = {path: text for path, text in files.items() if ("router." in text) == is_of_vue}
    assert len(files) >= 2
    folder = projects[name].folder
    (tmp_path / "node_modules").symlink_to(folder / "node_modules")
    shutil.copy(folder / "tsconfig.json", tmp_path / "project.json")
    settings = {"tsconfig.json": json.dumps(SETTINGS), "reader.d.ts": reader}
    for path, text in {**files, **settings}.items():
        (tmp_path / path).write_text(text, encoding="utf-8")
    projects[name].run("tsc", "--noEmit", "--project", str(tmp_path))


# -- while it is developed -------------------------------------------------------------------------


@pytest.fixture
def develop(serve: Callable[..., str], tmp_path: Path) -> Iterator[Callable[[Project], str]]:
    """Starts Vite's development server before a Flask whose WeChat is the sandbox."""
    running: list[subprocess.Popen[bytes]] = []

    def start(project: Project) -> str:
        flask = serve(create_app({"TESTING": True}))
        port = free_port()
        # What it has kept of the client may be another one's.
        options = ("--force", "--strictPort", "--host", "127.0.0.1", "--port", str(port))
        with (tmp_path / "log").open("wb") as log:
            vite = subprocess.Popen(
                project.command("vite", *options),
                cwd=project.folder,
                env=os.environ | {"FLASK_URL": flask},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        running.append(vite)
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(url), 120, f"Vite answers: {tmp_path / 'log'}")
        return url

    yield start
    for vite in running:
        vite.kill()
        vite.wait()


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=60).ok
    except requests.ConnectionError:
        return False


@pytest.mark.parametrize("name", NAMES)
def test_the_development_server_has_a_phone(
    projects: dict[str, Project],
    develop: Callable[[Project], str],
    open_phone: Callable[..., Phone],
    name: str,
) -> None:
    """In a desktop browser: each route is accepted, and has its own card."""
    desktop = open_phone(None)
    desktop.page.set_default_timeout(60_000)  # Vite makes a project's files when they are asked for
    asked = asked_by(desktop)
    desktop.page.goto(develop(projects[name]))
    visit(desktop.page)
    assert desktop.errors == []
    assert not any("rejected" in url for url in asked)


def visit(page: Page) -> None:
    """Landing, three links, back."""
    sees(page, "Start")
    for link, title in (("One", "Item 1"), ("Two", "Item 2/3"), ("Start", "Start")):
        page.get_by_role("link", name=link).click()
        sees(page, title)
    page.go_back()
    sees(page, "Item 2/3")


def sees(page: Page, title: str) -> None:
    page.locator("h1", has_text=title).wait_for()
    page.locator(CARD).get_by_text(title, exact=True).first.wait_for(state="attached")
    page.locator("#verdict", has_text="config:ok").wait_for()


# -- as it is built --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundles(
    projects: dict[str, Project], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Each is built once."""
    made: dict[str, Path] = {}

    def build(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            projects[name].run("vite", "build", "--emptyOutDir", "--outDir", str(made[name]))
        return made[name]

    return build


@pytest.fixture
def deploy(
    bundles: Callable[[str], Path],
    make_app: Callable[..., tuple[Flask, WxJsApi]],
    serve: Callable[..., str],
    sandbox: Sandbox,
) -> Callable[[str], str]:
    """Serves a bundle from Flask, with WeChat's bridge where a phone has it."""

    def start(
        name: str, bridge: str = f'<script src="{sandbox.url}/sandbox/bridge.js"></script>'
    ) -> str:
        app, _ = make_app(WXJSAPI_URL_PREFIX="/wxjsapi")
        folder = bundles(name)
        page = (
            (folder / "index.html").read_text(encoding="utf-8").replace("<head>", f"<head>{bridge}")
        )

        @app.get("/")
        @app.get("/<path:route>")
        def index(route: str = "") -> Response:
            return Response(page, mimetype="text/html")

        @app.get("/assets/<path:name>")
        def asset(name: str) -> Response:
            return send_from_directory(folder / "assets", name)

        return serve(app)

    return start


def asked_by(phone: Phone) -> list[str]:
    """The URLs that the phone's pages ask for, from now on."""
    asked: list[str] = []
    phone.context.on("request", lambda request: asked.append(request.url))
    return asked


def hosts(asked: list[str]) -> set[str | None]:
    return {urlsplit(url).hostname for url in asked}


@pytest.mark.parametrize(
    ("name", "user_agent"),
    [("vite-vue", IPHONE), ("vite-react", ANDROID)],
    ids=["vue-ios", "react-android"],
)
def test_the_bundle_is_signed_on_every_route(
    deploy: Callable[..., str], open_phone: Callable[..., Phone], name: str, user_agent: str
) -> None:
    """At the first try; jweixin comes from WeChat but where the bundle has it from npm."""
    phone = open_phone(user_agent)
    asked = asked_by(phone)
    phone.page.goto(deploy(name))
    visit(phone.page)
    assert phone.errors == []
    assert not any("rejected" in url for url in asked)
    assert ("res.wx.qq.com" in hosts(asked)) == (name == "vite-vue")


@pytest.mark.parametrize("name", NAMES)
def test_the_bundle_outside_wechat(
    deploy: Callable[..., str], open_phone: Callable[..., Phone], name: str
) -> None:
    """It says so; a promise that a router's hook passes over is no error of the page's."""
    desktop = open_phone(None)
    asked = asked_by(desktop)
    desktop.page.goto(deploy(name, bridge=""))
    desktop.page.locator("#verdict", has_text="Not inside WeChat").wait_for()
    desktop.page.evaluate("() => { void wxjsapi.config({ endpoint: '/wxjsapi' }); }")
    desktop.page.get_by_role("link", name="One").click()
    desktop.page.locator("h1", has_text="Item 1").wait_for()
    assert (desktop.errors, hosts(asked)) == ([], {"127.0.0.1"})
