"""No code block escapes the tests, and none is left out without a reason."""

from __future__ import annotations

import re

import pytest
from sybil import Document
from sybil.example import SybilFailure

from .pages import PAGES, REMARKS, ROOT, parse


def evaluate(text: str) -> None:
    """Evaluate the blocks of a page that does not exist."""
    document = Document(text, "page.rst")
    for region in parse(document):
        document.add(region)
    for example in document.examples():
        example.evaluate()


@pytest.mark.parametrize("page", PAGES)
def test_there_is_one_way_to_write_a_block(page: str) -> None:
    """Each block is a code-block, which is what the tests read."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert not re.search(r"^ *\.\. (code|sourcecode|parsed-literal|highlight)::", text, flags=re.M)
    assert not re.search(r"^(?! *\.\. ).*::$", text, flags=re.M), "write .. code-block:: LANGUAGE"
    assert not re.search(r"^ *>>> ", text, flags=re.M), "write .. code-block:: python"
    read = [region.lexemes.get("directive") for region in parse(Document(text, page))]
    for directive in ("code-block", "invisible-code-block"):
        assert len(re.findall(rf"\.\. {directive}:", text)) == read.count(directive)
    for path in re.findall(r"\.\. literalinclude:: (\S+)", text):
        assert re.match(r"(\.\./)+examples/", path), f"nobody tests {path}"


@pytest.mark.parametrize("page", PAGES)
def test_every_remark_is_about_a_block(page: str) -> None:
    """A remark that is misspelt, or stands elsewhere, would do nothing."""
    text = (ROOT / page).read_text(encoding="utf-8")
    words = re.findall(r"^ *\.\. ([a-z-]+):(?!:)", text, flags=re.M)
    assert set(words) <= {*REMARKS, "invisible-code-block"}
    about_blocks = [region.lexemes.get("word") for region in parse(Document(text, page))]
    assert [w for w in words if w in REMARKS] == [w for w in about_blocks if w]


def test_a_block_that_nobody_runs_fails() -> None:
    """A new language needs an entry, or its page a reason."""
    with pytest.raises(SybilFailure, match="not-run: WHY"):
        evaluate(".. code-block:: cobol\n\n    STOP RUN\n")


def test_a_page_can_say_why_a_block_is_not_run() -> None:
    """The reason stands in the page."""
    evaluate(".. not-run: not ours\n\n.. code-block:: python\n\n    raise SystemExit\n")


def test_a_block_without_a_remark_is_run() -> None:
    """A line of Python that is wrong makes its page red."""
    with pytest.raises(NameError):
        evaluate(".. code-block:: python\n\n    nobody_knows()\n")
