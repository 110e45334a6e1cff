"""The floors of the house, read from its import statements, and the public names."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flask_wxjsapi

PACKAGE = Path(flask_wxjsapi.__file__).parent

#: From the roof down. A module imports from what stands to the right of it or below it, for a type
#: checker too: a circle that only TYPE_CHECKING sees is one all the same.
_FLOORS = (
    "__init__ testing",
    "_extension",
    "_views _js_api _tools.cli _tools.doctor _tools.report _tools.language _tools.lines _tools",
    "_domains",
    "_accounts",
    "_account",
    "_engine.reading _engine.runtime _engine.loading _engine.turns",
    "_engine.renewal _engine.asking _engine.adopting",
    "_engine.snapshot _engine.back_off _engine.purpose _engine.limit",
    "_engine.schedule _engine.thread _engine.threads _engine.clock _engine",
    "_storage.store _storage.cache _storage.server _storage.lease _storage",
    "_upstream.central _upstream.wechat _upstream.token_provider _upstream",
    "_settings",
    "_settings_readers",
    "_upstream.http _upstream.answer",
    "_page.client _page.config _page.script _page.url _page.request_target _page.servers _page",
    "errors",
    "_platform",
    "_signature _credential _telling _error_text _loopback",
    "__main__ sandbox.__main__ sandbox sandbox.command sandbox.sandbox",
    "sandbox.listener sandbox.pages sandbox.opened sandbox.overview sandbox.cause sandbox.phone",
    "sandbox.api sandbox.faults sandbox.registry sandbox.accounts sandbox.protocol",
    "_tools.diagnosis",
)
LAYERS = [name for row in _FLOORS for name in row.split()]

#: Who may know Flask: what Flask sees, and the cache, which is one of its extensions.
OF_FLASK = {
    "__init__": set(),
    "testing": {"flask"},
    "_extension": {"flask"},
    "_js_api": {"flask"},
    "_views": {"flask"},
    "_domains": {"flask"},
    "_tools.cli": {"flask"},
    "_storage.cache": {"flask", "flask_caching"},
}


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
PACKAGES = {name for name, path in MODULES.items() if path.stem == "__init__"}


def imported(module: str, source: str) -> set[str]:
    """The dotted names a module imports, wherever it does; the package's own from its root, with a
    dot in front.
    """
    inside = [] if module == "__init__" else module.split(".")
    here = ["flask_wxjsapi", *(inside if module in PACKAGES else inside[:-1])]
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            origin = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                whole = f"{origin}.{alias.name}"
                is_module = whole.removeprefix("flask_wxjsapi.") in MODULES
                names.add(whole if is_module else origin)
    own = "flask_wxjsapi"
    return {"." + (name[len(own) + 1 :] or "__init__") if _is_own(name) else name for name in names}


def _is_own(name: str) -> bool:
    return name == "flask_wxjsapi" or name.startswith("flask_wxjsapi.")


def upward(module: str, source: str) -> list[str]:
    """The modules of the package that a module must not import, but does."""
    own = sorted(name[1:] for name in imported(module, source) if name.startswith("."))
    return [name for name in own if LAYERS.index(name) <= LAYERS.index(module)]


def of_flask(module: str, source: str) -> set[str]:
    tops = {name.partition(".")[0] for name in imported(module, source)}
    return {name for name in tops if name == "flask" or name.startswith("flask_")}


def source_of(module: str) -> str:
    return MODULES[module].read_text()


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_floor(module: str) -> None:
    """A new module says where it stands."""
    assert module in LAYERS


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module: str) -> None:
    """No module imports from a floor above its own."""
    assert upward(module, source_of(module)) == []


@pytest.mark.parametrize("module", MODULES)
def test_only_what_flask_sees_knows_flask(module: str) -> None:
    """The engine runs without Flask; of the store, only the cache knows Flask-Caching."""
    assert of_flask(module, source_of(module)) <= OF_FLASK.get(module, set())


def test_sandbox_does_not_know_the_code_it_judges() -> None:
    """A mistake in the signature must not be able to agree with itself."""
    for module in MODULES:
        if module.startswith("sandbox"):
            own = {n for n in imported(module, source_of(module)) if n.startswith(".")}
            assert {n for n in own if not n.startswith(".sandbox")} <= {"._tools.diagnosis"}


def test_signature_and_diagnosis_import_nothing_of_the_package() -> None:
    """The pure core stands alone."""
    of_diagnosis = imported("_tools.diagnosis", source_of("_tools.diagnosis"))
    assert not any(name.startswith(".") for name in of_diagnosis)
    assert imported("_signature", source_of("_signature")) == {
        "__future__",
        "collections.abc",
        "hashlib",
    }


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("_page.url", "from .._storage.cache import CacheServer", ["_storage.cache"]),
        ("_page.url", "from .. import _settings, errors", ["_settings"]),
        ("_page.url", "import flask_wxjsapi._settings", ["_settings"]),
        ("_page.url", "from flask_wxjsapi._settings import Settings", ["_settings"]),
        ("_page.url", "from flask_wxjsapi import WxJsApi", ["__init__"]),
        ("_page.url", "import flask_wxjsapi", ["__init__"]),
        ("_page.url", "def f():\n    from .script import tags", ["_page.script"]),
        ("_page.url", "from .url import x", ["_page.url"]),
        ("sandbox", "from ..errors import WxJsApiError", ["errors"]),
        ("_page.url", "if TYPE_CHECKING:\n    from .._settings import Settings", ["_settings"]),
        ("_page.script", "from . import url\nfrom ..errors import x\nimport json", []),
    ],
)
def test_the_reader_of_imports(module: str, source: str, found: list[str]) -> None:
    """The check itself sees an upward import however it is written, and no other."""
    assert upward(module, source) == found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import flask", {"flask"}),
        ("from flask.ctx import AppContext", {"flask"}),
        ("from flask_caching import Cache", {"flask_caching"}),
        ("if TYPE_CHECKING:\n    from flask import Flask", {"flask"}),
        ("from werkzeug.utils import import_string", set()),
        ("from flask_wxjsapi.errors import WxJsApiError", set()),
    ],
)
def test_the_reader_of_flask_imports(source: str, found: set[str]) -> None:
    """The check itself tells Flask and its extensions from the rest."""
    assert of_flask("_page.url", source) == found


# -- public names


def test_public_names() -> None:
    """What is public is a decision, so adding or losing a name takes a change here."""
    assert set(flask_wxjsapi.__all__) == {
        "AgentConfig",
        "Credential",
        "JsApi",
        "Status",
        "TicketServer",
        "TicketUnavailable",
        "TransportError",
        "UnknownAccount",
        "WeChatAPIError",
        "WxConfig",
        "WxJsApi",
        "WxJsApiError",
        "sign",
        "sign_card",
        "ticket_refresh_failed",
        "ticket_refreshed",
    }


def test_public_names_are_sorted_and_there_once() -> None:
    """``__all__`` reads like an index."""
    assert list(flask_wxjsapi.__all__) == sorted(set(flask_wxjsapi.__all__))


@pytest.mark.parametrize("name", flask_wxjsapi.__all__)
def test_public_name_has_a_docstring(name: str) -> None:
    """A public class or function has a docstring of its own, public data a ``#:`` comment."""
    thing = getattr(flask_wxjsapi, name)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        text = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
        # A dataclass without one gets its signature for a docstring.
        assert text
        assert not text.startswith(f"{name}(")
    else:
        sources = "\n".join(source_of(module) for module in MODULES)
        assert re.search(rf"^#: .+\n{name} = ", sources, re.MULTILINE)


def _public_methods() -> Iterator[Any]:
    for name in flask_wxjsapi.__all__:
        thing = getattr(flask_wxjsapi, name)
        if not inspect.isclass(thing) or name in ("AgentConfig", "WxConfig"):
            continue
        for member, value in vars(thing).items():
            if isinstance(value, (classmethod, staticmethod)):
                value = value.__func__
            if not member.startswith("_") and (
                inspect.isfunction(value) or isinstance(value, property)
            ):
                yield pytest.param(value, id=f"{name}.{member}")


@pytest.mark.parametrize("method", list(_public_methods()))
def test_public_method_has_a_docstring(method: Any) -> None:
    """Every public method and property says what it is for."""
    assert method.__doc__
