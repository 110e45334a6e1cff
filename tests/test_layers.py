"""The layers of the package, read from its import statements, and its public names."""

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

#: From the top down. A module imports from what stands to the right of it or below it.
_ROWS = (
    "__init__ testing",
    "_extension",
    "_views _cli",
    "_doctor",
    "_worker _config",
    "_provider",
    "_server",
    "_lease",
    "_client",
    "_http",
    "_backoff _signature _url _script _credential errors",
    "sandbox _diagnosis",
)
LAYERS = [name for row in _ROWS for name in row.split()]

#: The modules that are Flask's business.
ABOVE_FLASK = {"__init__", "testing", "_extension", "_views", "_cli"}

MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker sees."""
    yield node
    if isinstance(node, ast.If) and _is_type_checking(node.test):
        children: list[ast.AST] = [*node.orelse]
    else:
        children = [*ast.iter_child_nodes(node)]
    for child in children:
        yield from _run_time_nodes(child)


def imported(source: str, modules: list[str]) -> set[str]:
    """The dotted names a module imports at run time, the package's own with a dot in front."""
    names: set[str] = set()
    for node in _run_time_nodes(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            if origin in (".", "flask_wxjsapi"):
                inside = {alias.name for alias in node.names}
                names |= {f".{name}" if name in modules else ".__init__" for name in inside}
            else:
                names.add(origin)
    own = "flask_wxjsapi."
    names = {f".{name.removeprefix(own)}" if name.startswith(own) else name for name in names}
    return {".__init__" if name == "flask_wxjsapi" else name for name in names}


def upward(module: str, source: str) -> list[str]:
    """The modules of the package that a module must not import, but does."""
    own = [name[1:] for name in imported(source, LAYERS) if name.startswith(".")]
    return [name for name in own if LAYERS.index(name) <= LAYERS.index(module)]


def of_flask(source: str) -> set[str]:
    tops = {name.partition(".")[0] for name in imported(source, LAYERS)}
    return {name for name in tops if name == "flask" or name.startswith("flask_")}


def source_of(module: str) -> str:
    return (PACKAGE / f"{module}.py").read_text()


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_layer(module: str) -> None:
    """A new module says where it stands."""
    assert module in LAYERS


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module: str) -> None:
    """No module imports from a layer above its own."""
    assert upward(module, source_of(module)) == []


@pytest.mark.parametrize("module", sorted(set(MODULES) - ABOVE_FLASK))
def test_nothing_below_the_extension_imports_flask(module: str) -> None:
    """The engine runs without Flask; only the store knows Flask-Caching."""
    assert of_flask(source_of(module)) == ({"flask_caching"} if module == "_server" else set())


def test_sandbox_does_not_know_the_code_it_judges() -> None:
    """A mistake in the signature must not be able to agree with itself."""
    own = {name for name in imported(source_of("sandbox"), LAYERS) if name.startswith(".")}
    assert own <= {"._diagnosis"}


def test_signature_and_diagnosis_import_nothing_of_the_package() -> None:
    """The pure core stands alone."""
    of_diagnosis = imported(source_of("_diagnosis"), LAYERS)
    assert not any(name.startswith(".") for name in of_diagnosis)
    assert imported(source_of("_signature"), LAYERS) == {
        "__future__",
        "collections.abc",
        "hashlib",
    }


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("_client", "from ._provider import Provider", ["_provider"]),
        ("_client", "from . import _provider, errors", ["_provider"]),
        ("_client", "import flask_wxjsapi._provider", ["_provider"]),
        ("_client", "from flask_wxjsapi._provider import Provider", ["_provider"]),
        ("_client", "from flask_wxjsapi import WxJsApi", ["__init__"]),
        ("_client", "import flask_wxjsapi", ["__init__"]),
        ("_client", "def f():\n    from ._provider import Provider", ["_provider"]),
        ("_client", "from ._client import x", ["_client"]),
        ("sandbox", "from .errors import WxJsApiError", ["errors"]),
        ("_client", "if TYPE_CHECKING:\n    from ._provider import Provider", []),
        ("_client", "if typing.TYPE_CHECKING:\n    from ._provider import Provider", []),
        ("_client", "if TYPE_CHECKING:\n    pass\nelse:\n    from ._lease import x", ["_lease"]),
        ("_client", "from .errors import WxJsApiError\nimport json", []),
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
        ("if TYPE_CHECKING:\n    from flask import Flask", set()),
        ("from werkzeug.utils import import_string", set()),
        ("from flask_wxjsapi.errors import WxJsApiError", set()),
    ],
)
def test_the_reader_of_flask_imports(source: str, found: set[str]) -> None:
    """The check itself tells Flask and its extensions from the rest."""
    assert of_flask(source) == found


# -- public names


def test_public_names() -> None:
    """What is public is a decision, so adding or losing a name takes a change here."""
    assert set(flask_wxjsapi.__all__) == {
        "AgentConfig",
        "Credential",
        "Status",
        "TicketServer",
        "TicketUnavailable",
        "TransportError",
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
