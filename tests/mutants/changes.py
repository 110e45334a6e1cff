"""What a mutant does to a function: a change of its syntax tree, whatever the text looks like."""

from __future__ import annotations

import ast
from collections.abc import Callable


class Blunt(Exception):
    """A mutant that breaks nothing: what it names is not there."""


#: Changes a function, a class or an assignment in place; how often it found what it looks for.
Change = Callable[[ast.AST], int]
#: What to put in the place of a node; None leaves it as it is.
Rule = Callable[[ast.AST], ast.AST | None]

_SIMPLE = (ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Raise, ast.Delete)


def returns(value: str) -> Change:
    """The whole body is ``return value``."""

    def change(function: ast.AST) -> int:
        assert isinstance(function, ast.FunctionDef)
        function.body = ast.parse(f"return {value}").body
        return 1

    return change


def without(name: str, nth: int | None = None) -> Change:
    """The simple statements that mention a name are left out."""
    return _rewrites(
        lambda node: ast.Pass() if isinstance(node, _SIMPLE) and _mentions(node, name) else None,
        nth,
    )


def takes(name: str, value: str, nth: int | None = None) -> Change:
    """Calls of a name, or what is read from it, are another expression."""
    called: list[ast.AST] = []

    def rule(node: ast.AST) -> ast.AST | None:
        if isinstance(node, ast.Call):
            called.append(node.func)
            return _expression(value) if _is_named(node.func, name) else None
        is_read = isinstance(getattr(node, "ctx", None), ast.Load) and node not in called
        return _expression(value) if is_read and _is_named(node, name) else None

    return _rewrites(rule, nth)


def gives(old: str, new: str, nth: int | None = None) -> Change:
    """An expression is another one."""
    wanted = ast.dump(_expression(old))
    return _rewrites(
        lambda node: (
            _expression(new) if isinstance(node, ast.expr) and ast.dump(node) == wanted else None
        ),
        nth,
    )


def if_is(name: str, value: bool, nth: int | None = None) -> Change:
    """The conditions that mention a name are always true, or never."""

    def rule(node: ast.AST) -> ast.AST | None:
        if not isinstance(node, (ast.If, ast.While, ast.IfExp)) or not _mentions(node.test, name):
            return None
        return type(node)(**dict(ast.iter_fields(node)) | {"test": ast.Constant(value)})

    return _rewrites(rule, nth)


def _rewrites(rule: Rule, nth: int | None) -> Change:
    """:param nth: which of those that the rule finds, from 0; by default all."""

    def change(function: ast.AST) -> int:
        rewriter = _Rewriter(rule, nth)
        rewriter.generic_visit(function)
        return rewriter.changed

    return change


class _Rewriter(ast.NodeTransformer):
    def __init__(self, rule: Rule, nth: int | None) -> None:
        self._rule, self._nth, self._found, self.changed = rule, nth, 0, 0

    def visit(self, node: ast.AST) -> ast.AST:
        new = self._rule(node)
        if new is not None:
            self._found += 1
            if self._nth in (None, self._found - 1):
                self.changed += 1
                return new
        return self.generic_visit(node)


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _mentions(node: ast.AST, name: str) -> bool:
    return any(_is_named(one, name) for one in ast.walk(node))


def _is_named(node: ast.AST, name: str) -> bool:
    """Whether it is a name, or an attribute of whatever: ``deadline`` is ``self.deadline``, too."""
    if not isinstance(node, (ast.Name, ast.Attribute)):
        return False
    return f".{ast.unparse(node)}".endswith(f".{name}")


class Mutant:
    """A break of the library, and the tests that must go red for it.

    :param module: its path in the package.
    :param where: the qualified name of the function, or of what is assigned.
    :param tests: as pytest wants them, below ``tests/``; each must go red.
    """

    def __init__(self, name: str, module: str, where: str, change: Change, *tests: str) -> None:
        self.name, self.module, self.where, self._change = name, module, where, change
        self.tests = [f"tests/{test}" for test in tests]

    def applied_to(self, source: str) -> str:
        """The module's source with the break.

        :raises Blunt: there is nothing to break.
        """
        tree = ast.parse(source)
        place: ast.AST = tree
        for name in self.where.split("."):
            place = _child(place, name, f"{self.module} has no {self.where}")
        if not self._change(place):
            raise Blunt(f"{self.where} has nothing of what the change looks for")
        return ast.unparse(ast.fix_missing_locations(tree))


def _child(place: ast.AST, name: str, problem: str) -> ast.AST:
    for node in getattr(place, "body", ()):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if getattr(node, "name", None) == name or any(
            isinstance(target, ast.Name) and target.id == name for target in targets
        ):
            return node  # type: ignore[no-any-return]
    raise Blunt(problem)
