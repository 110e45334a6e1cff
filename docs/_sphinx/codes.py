"""Error codes in the index: the search passes over numbers, but not over index entries."""

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


class IndexCodes(SphinxTransform):
    """Each code that the page for troubleshooting names is an entry that leads to its place.

    That is the heading or the term with the code in it; what is in neither has the paragraph.
    """

    default_priority = 700

    def apply(self) -> None:
        if self.env.docname != PAGE:
            return
        marked: set[str] = set()
        for kinds in ((nodes.title, nodes.term), (nodes.paragraph,)):
            found = [
                (each, codes_in(each)) for kind in kinds for each in self.document.findall(kind)
            ]
            for block, codes in found:
                self.mark(block, [code for code in codes if code not in marked])
            marked.update(code for _, codes in found for code in codes)

    def mark(self, block: nodes.TextElement, codes: list[str]) -> None:
        if not codes:
            return
        places = [self.place(code) for code in codes]
        entries = [("single", *pair, "main", None) for pair in zip(codes, places, strict=True)]
        block.insert(0, nodes.target("", "", ids=places))
        is_title = isinstance(block, nodes.title)  # no index node may stand in one
        (block.parent if is_title else block).insert(
            int(is_title), addnodes.index(entries=entries, inline=True)
        )

    def place(self, code: str) -> str:
        """An anchor with the code in it, so that a link to it lasts."""
        name = f"error-{code.lstrip('-')}"
        while name in self.document.ids:
            name += "-again"
        self.document.ids[name] = self.document
        return name


def codes_in(block: nodes.TextElement) -> list[str]:
    """The codes in a text, and the short ones that stand alone in a term."""
    found = _CODE.findall(block.astext())
    if isinstance(block, nodes.term):
        found += [
            text for each in block.findall(nodes.literal) if (text := each.astext()) in _SHORT
        ]
    return list(dict.fromkeys(found))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_transform(IndexCodes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
