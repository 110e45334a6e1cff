"""What the pages state beside their code: names, defaults, tables and quoted messages."""

from __future__ import annotations

import ast
import configparser
import contextlib
import importlib.util
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from flask import Flask

import flask_wxjsapi
from flask_wxjsapi import WxJsApi, sandbox
from flask_wxjsapi.sandbox import Sandbox

from . import inside
from .pages import PAGES, READMES, ROOT
from .words import ACCOUNT

PACKAGE = Path(flask_wxjsapi.__file__).parent  # as installed, wherever that is


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def source() -> str:
    files = (path for form in ("*.py", "client.js") for path in PACKAGE.rglob(form))
    return "".join(path.read_text(encoding="utf-8") for path in files)


def test_every_setting_is_described_and_no_other() -> None:
    """The page has the keys that the code reads, in the same order."""
    described = re.findall(r"^\.\. confval:: WXJSAPI_(\w+)$", read("docs/configuration.rst"), re.M)
    assert described == list(inside.DEFAULTS)


@pytest.mark.parametrize("key", inside.DEFAULTS)
def test_the_default_of_a_setting_is_the_codes(key: str) -> None:
    """What the page calls the default is the default."""
    found = re.search(
        rf"^\.\. confval:: WXJSAPI_{key}\n   :type: .+\n   :default: ``(.+)``\n",
        read("docs/configuration.rst"),
        re.M,
    )
    assert found, f"{key} has no type and default"
    assert ast.literal_eval(found[1]) == inside.DEFAULTS[key]


@pytest.mark.parametrize("readme", READMES)
def test_a_readme_names_the_files_of_its_quickstart_first(readme: str) -> None:
    """The reader knows where to paste a block."""
    text = read(readme)
    assert text.index("``app.py``") < text.index(".. code-block:: python")
    assert text.index("``templates/index.html``") < text.index(".. code-block:: html+jinja")


@pytest.mark.parametrize("readme", READMES)
def test_the_links_of_a_readme_work_on_a_package_index(readme: str) -> None:
    """They are absolute, begin where setup.cfg says that the docs are, and lead to pages."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    (home,) = re.findall(r"^Documentation = (.+)$", config["metadata"]["project_urls"], re.M)
    text = read(readme)
    links = re.findall(r"`[^`]+? <(.+?)>`_", text)
    assert links
    for link in links:
        assert link.startswith(home)
        assert (ROOT / "docs" / link.removeprefix(home)).with_suffix(".rst").exists(), link
    for image in re.findall(r"^\.\. image:: (.+)$", text, re.M):
        name = image.removeprefix(f"{home}_images/")
        assert f".. image:: {name}\n" in "".join(map(read, PAGES)), f"no page shows {image}"


def test_both_readmes_have_the_same_parts() -> None:
    """Sections, code, lists and settings are in step."""
    english, chinese = (
        (
            len(re.findall(r"^(?:-{3,}|~{3,})$", text, flags=re.M)),
            len(re.findall(r"^\.\. code-block::", text, flags=re.M)),
            len(re.findall(r"^\* ", text, flags=re.M)),
            sorted(set(re.findall(r"WXJSAPI_\w+", text))),
        )
        for text in map(read, READMES)
    )
    assert english == chinese


def test_the_make_targets_named_in_the_docs_exist() -> None:
    """A command that the docs name can be run."""
    makefile = read("Makefile")
    for name in [*READMES, "CONTRIBUTING.rst"]:
        for target in re.findall(r"make ([a-z-]+)", read(name)):
            assert re.search(rf"^[^#\n]*\b{target}\b.*:", makefile, flags=re.M), target


@pytest.mark.parametrize("page", PAGES)
def test_the_keys_named_on_a_page_exist(page: str) -> None:
    """A setting of ours that a page names is one, and so is one of Flask-Caching's."""
    text = read(page)
    assert set(re.findall(r"WXJSAPI_([A-Z]\w*)", text)) <= set(inside.DEFAULTS)
    package = Path(importlib.util.find_spec("flask_caching").origin).parent  # type: ignore[union-attr,arg-type]
    known = "".join(path.read_text() for path in package.rglob("*.py"))
    for key in set(re.findall(r"\bCACHE_[A-Z]\w*", text)):
        assert key in known, key


def test_every_fault_of_the_sandbox_is_in_the_table() -> None:
    """The table has every name that fail() takes, and takes no other."""
    table = read("docs/testing.rst").split("\nFaults\n")[1].split("\nThe ticket worlds\n")[0]
    named = {
        name
        for line in re.findall(r"^``.*", table, re.M)
        for name in re.findall(r"``\"(.*?)\"``", line[:26])
    }
    own = {name.partition(":")[0] for name in named} - {"expires", "ticket"}
    assert {name for name in own if re.fullmatch(r"[a-z][a-z-]+", name)} == inside.FAULTS
    for name in named - {"expires:JSON", "ticket:JSON"}:
        Sandbox().fail(name)
    for name in re.findall(r"``(\"(?:expires|ticket):[^J].*?\")``", table):
        Sandbox().fail(ast.literal_eval(name))


def test_the_stored_keys_are_those_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written to a store has a row."""
    written = inside.note_writes(monkeypatch)
    with Sandbox(*ACCOUNT.values()).serve() as wechat:
        inside.ask(wechat, monkeypatch)
        for fault in (None, "stable_token", "getticket"):
            if fault:
                wechat.fail(-1, path=fault)
            app = Flask("stored")
            app.config.update(ACCOUNT, TESTING=True)
            wxjsapi = WxJsApi(app)
            with app.app_context(), contextlib.suppress(flask_wxjsapi.WxJsApiError):
                wxjsapi.refresh()
        app = Flask("others")
        corp = {f"CORP_{key}": value for key, value in ACCOUNT.items()}
        app.config.update(ACCOUNT, TESTING=True, **corp)
        app.config.update(CORP_WXJSAPI_PLATFORM="wecom", CORP_WXJSAPI_AGENT_ID=1000002)
        corp_id, secret = ACCOUNT.values()
        wechat.add_agent(corp_id, secret, "1000002")
        account, corp_account = WxJsApi(app), WxJsApi(app, name="corp")
        with app.app_context():
            assert account.card_ticket
            assert corp_account.agent_config(url="https://example.com/")
        prefix = f"~wxjsapi:{{{urlsplit(wechat.url).netloc}/{ACCOUNT['WXJSAPI_APP_ID']}}}:"
        of_an_agent = f"{inside.digest(app, 'corp')}-1000002:"
    keys = {key.removeprefix(prefix) for key in written}
    agent_tickets = {key for key in keys if key.endswith("agent_config_ticket")}
    assert agent_tickets == {f"{of_an_agent}agent_config_ticket"}
    names = {key.removeprefix(of_an_agent) for key in keys}
    names |= {f"{note}.jsapi_ticket" for note in inside.NOTES} | {"lease"}
    table = read("docs/caches.rst").split("\nWhat is stored\n")[1].split("\nYour own use")[0]
    assert set(re.findall(r"^``([a-z_.]+)``", table, re.M)) == names


def events() -> set[tuple[str, str]]:
    """What the code tells the log, each with its level."""
    found: set[tuple[str, str]] = set()
    files = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]
    calls = [node for file in files for node in ast.walk(file) if isinstance(node, ast.Call)]
    for call in calls:
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        level = ast.unparse(call.args[0]) if "event" in keywords else ast.unparse(call.func)
        event = keywords.get("event") or "".join(
            re.findall(r"'event': ('\w+')", keywords.get("extra", ""))
        )
        found |= {
            (name, level.rpartition(".")[2].upper()) for name in re.findall(r"'(\w+)'", event)
        }
    return found


def test_every_event_of_the_log_is_in_the_table() -> None:
    """Whoever filters the log finds each event described, with its level."""
    table = read("docs/reliability.rst").split("\nevent  ")[1].split("\nThe signals ")[0]
    rows = dict(re.findall(r"^``(\w+)`` +([A-Z]+),?  ", table, re.M))
    told = {(name, rows.get(name) if level == "LEVEL" else level) for name, level in events()}
    assert set(rows.items()) == told  # one whose level is a variable has the least in the table


def test_every_public_name_is_in_the_reference() -> None:
    """autodoc has all of them."""
    text = read("docs/api.rst")
    names = [*flask_wxjsapi.__all__, *(f"sandbox.{n}" for n in sandbox.__all__ if n != "main")]
    for name in names:
        assert re.search(rf"^\.\. \w+:: flask_wxjsapi\.{name}$", text, re.M), name


@pytest.mark.parametrize("page", ["docs/single-page-apps.rst", "docs/zh/single-page-apps.rst"])
def test_the_errors_of_the_client_are_the_codes(page: str) -> None:
    """What the table has is what a page in a browser says."""
    said = source() + (PACKAGE / "_page" / "client.js").read_text(encoding="utf-8")
    table = read(page).split("\n``error.message``  ")[1].split("\n\n")[0]
    messages = re.findall(r"^``(.+?)``", table, re.M)
    assert messages
    for part in (part for message in messages for part in message.split("…")):
        assert part.strip() in said, part


@pytest.mark.parametrize("page", PAGES)
def test_the_messages_quoted_on_a_page_are_the_codes(page: str) -> None:
    """What a Chinese page quotes in English, a reader will search for."""
    for quoted in re.findall(r"“([A-Za-z][ -~\n]{15,})”", read(page)):
        assert " ".join(quoted.split()) in source(), quoted
