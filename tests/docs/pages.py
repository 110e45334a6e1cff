"""The pages as tests: Sybil runs every code block of the READMEs and of ``docs``.

A page is read from top to bottom in one namespace, so run it as a whole: ``pytest docs/urls.rst``.
Python is executed; ``languages.py`` has what becomes of the other languages. Whatever a block needs
stands in the page, in comments, which are not rendered::

    .. invisible-code-block: python     preparations, and what is to be true afterwards

    .. within: EXPRESSION               the next block runs inside this context manager
    .. file: NAME                       the next block is saved as well, for what comes after it
    .. append: test_NAME.py             the next block is a test; pytest runs it when the page ends
    .. not-run: WHY                     the next block is only looked at by readers

Beside what ``words.py`` gives to those parts, a page has ``Flask``, ``WxJsApi``, ``request``,
``render_template_string``, an ``app`` and its ``wxjsapi`` from the start.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import flask
import pytest
from sybil import Document, Example, Region, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.abstract.lexers import LexerCollection
from sybil.parsers.rest.lexers import DirectiveInCommentLexer, DirectiveLexer
from werkzeug.datastructures import ImmutableDict

from flask_wxjsapi import WxJsApi
from flask_wxjsapi.sandbox import Sandbox

from ..conftest import APP_OF_THE_EXAMPLES, be_patient, refresh_seldom
from . import inside
from .languages import LANGUAGES, check_brackets
from .words import ACCOUNT, Words

ROOT = Path(__file__).parent.parent.parent
READMES = ["README.rst", "README.zh_CN.rst"]
PAGES = READMES + sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "docs").rglob("*.rst")
    if "_build" not in path.parts
)
#: The Chinese pages have the blocks of the English ones.
RUN_PAGES = [page for page in PAGES if not page.startswith("docs/zh/")]
#: Before a page's tests: a busy machine may take longer for a ticket than a page waits.
PATIENT = """
from flask_wxjsapi import _js_api

_js_api.SCRIPT_TIMEOUT = 60.0
"""
REMARKS = ("within", "file", "append", "not-run")
_REMARK = re.compile(rf"^ *\.\. ({'|'.join(REMARKS)}): *(.+)\n\s*\Z", re.M)


def parse(document: Document) -> Iterable[Region]:
    """Each code block with the remark before it; at the end the tests that the page shows."""
    lexers = [DirectiveLexer("code-block"), DirectiveInCommentLexer("invisible-code-block")]
    has_tests = False
    for block in LexerCollection(lexers)(document):
        remark = _REMARK.search(document.text, 0, block.start)
        word, argument = remark.groups() if remark else ("", "")
        has_tests |= word == "append"
        block.parsed, block.evaluator = block.lexemes["source"], evaluate
        block.lexemes.update(word=word, argument=argument)
        yield block
    if has_tests:
        yield Region(document.end, document.end, evaluator=run_tests)


def evaluate(example: Example) -> str | None:
    """Do with a block what its language and its remark say."""
    language, word, argument = (
        example.region.lexemes[name] for name in ("arguments", "word", "argument")
    )
    if word == "not-run":
        check_brackets(example.parsed, example.namespace)
        return None
    if language not in ("python", *LANGUAGES):
        return f"Nobody runs {language!r}. If that is right, say why: '.. not-run: WHY'."
    if word in ("file", "append"):
        path: Path = example.namespace["directory"] / argument
        path.parent.mkdir(exist_ok=True)
        with path.open("w" if word == "file" else "a", encoding="utf-8") as file:
            file.write(example.parsed.rstrip() + "\n\n")
        if language == "python":
            assert re.fullmatch(r"(conftest|test_\w+)\.py", argument), "pytest will not run it"
            return None
    scope = eval(argument, example.namespace) if word == "within" else contextlib.nullcontext()
    with scope:
        if language == "python":
            PythonEvaluator()(example)
        else:
            LANGUAGES[language](example.parsed, example.namespace)
    return None


def run_tests(example: Example) -> str | None:
    """Run the page's tests, beside a ``create_app`` like the quickstart's."""
    for path in example.namespace["directory"].glob("test_*.py"):
        path.write_text(PATIENT + APP_OF_THE_EXAMPLES + path.read_text("utf-8"), "utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # which would take seconds
        capture_output=True,
        text=True,
    )
    passed = re.search(r"^\d+ passed(, \d+ skipped)? in ", result.stdout, re.M)
    return None if result.returncode == 0 and passed else result.stdout + result.stderr


def set_up(namespace: dict[str, Any]) -> None:
    """A directory, a WeChat and an app for one page."""
    exits = namespace["exits"] = contextlib.ExitStack()
    exits.callback(inside.close_embedded_sandboxes)
    directory = Path(exits.enter_context(tempfile.TemporaryDirectory()))
    monkeypatch = exits.enter_context(pytest.MonkeyPatch.context())
    be_patient(monkeypatch)
    refresh_seldom(monkeypatch)
    monkeypatch.chdir(directory)
    monkeypatch.setenv("COLUMNS", "200")
    # An app of a page has no background thread, which nobody would close.
    defaults = ImmutableDict({**flask.Flask.default_config, "TESTING": True})
    monkeypatch.setattr(flask.Flask, "default_config", defaults)
    upstream = exits.enter_context(Sandbox(*ACCOUNT.values()).serve())
    inside.ask(upstream, monkeypatch)
    words = Words(namespace, upstream, directory, monkeypatch)
    namespace.update({name: getattr(words, name) for name in dir(words) if name[0] != "_"})
    app = words.new_app()
    namespace.update(
        __name__="app_of_the_docs",  # there is none, so a Flask() of this name lives in directory
        Flask=flask.Flask,
        WxJsApi=WxJsApi,
        render_template_string=flask.render_template_string,
        request=flask.request,
        app=app,
        wxjsapi=WxJsApi(app),
    )


def tear_down(namespace: dict[str, Any]) -> None:
    namespace["exits"].close()


def block_with(page: str, words: str) -> str:
    """The one block of a page that is shown and has these words in it."""
    blocks = DirectiveLexer("code-block")(Document.parse(str(ROOT / page)))
    (found,) = (block for block in blocks if words in block.lexemes["source"])
    return str(found.lexemes["source"])


_sybil = Sybil([parse], patterns=RUN_PAGES, path=str(ROOT), setup=set_up, teardown=tear_down)
pytest_collect_file = _sybil.pytest()
