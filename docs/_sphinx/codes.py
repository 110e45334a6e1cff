"""Errors in the index: the search passes over numbers, but not over index entries."""

from __future__ import annotations

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

PAGE = "troubleshooting"
#: WeChat's codes have five or six digits, but for two that stand alone in a term.
_CODE = re.compile(r"(?<![\w.-])\d{5,6}(?![\w-])", re.ASCII)
_SHORT = {"-1", "-1000"}
#: What a heading or a quotation has around the text of an error.
_AROUND = re.compile(r"^[.… ]+|[:\uff1a.… ]+$")
#: What people may leave out.
_BEFORE = re.compile(r"^config:(?=[a-z ]+$)")


class IndexErrors(SphinxTransform):
    """Each error that the page for troubleshooting names is an entry that leads to its place.

    That is the heading or the term with its code or text in it; a code that is in neither has the
    paragraph.
    """

    default_priority = 700

    def apply(self) -> None:
        if self.env.docname != PAGE:
            return
        marked: set[str] = set()
        for kinds in ((nodes.title, nodes.term), (nodes.paragraph,)):
            found = [
                (each, errors_in(each)) for kind in kinds for each in self.document.findall(kind)
            ]
            for block, errors in found:
                self.mark(block, [error for error in errors if error not in marked])
            marked.update(error for _, errors in found for error in errors)

    def mark(self, block: nodes.TextElement, errors: list[str]) -> None:
        if not errors:
            return
        places = [self.place(error) for error in errors]
        entries = [
            # Of several places the search shows the first one first.
            ("single", error, place, "" if place.endswith("-again") else "main", None)
            for error, place in zip(errors, places, strict=True)
        ]
        block.insert(0, nodes.target("", "", ids=places))
        is_title = isinstance(block, nodes.title)  # no index node may stand in one
        (block.parent if is_title else block).insert(
            int(is_title), addnodes.index(entries=entries, inline=True)
        )

    def place(self, error: str) -> str:
        """An anchor with the error in it, so that a link to it lasts."""
        name = nodes.make_id(f"error-{error}")
        while name in self.document.ids:
            name += "-again"
        self.document.ids[name] = self.document
        return name


def errors_in(block: nodes.TextElement) -> list[str]:
    """The codes in a text, and the texts of errors that a term or a third heading quotes."""
    found = _CODE.findall(block.astext())
    if isinstance(block, nodes.term):
        short = (each.astext() for each in block.findall(nodes.literal))
        found += [code for code in short if code in _SHORT]
        found += [_AROUND.sub("", each.astext()) for each in block.findall(nodes.emphasis)]
    elif isinstance(block, nodes.title) and depth(block) == 3:
        text = _AROUND.sub("", block.astext())
        found += [_BEFORE.sub("", text), text]
    return list(dict.fromkeys(found))


def depth(title: nodes.title) -> int:
    section, levels = title.parent, 0
    while isinstance(section, nodes.section):
        section, levels = section.parent, levels + 1
    return levels


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_transform(IndexErrors)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
