"""Chinese text: no stray spaces, and a search that needs no dictionary."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish
from sphinx.transforms.post_transforms import SphinxPostTransform

HAN = r"\u3400-\u9fff"
#: Full-width punctuation brings its own space.
WIDE = r"\u3000-\u303f\uff01-\uff60"
QUOTES = r"\u2014\u2018-\u201d\u2026"
_STRAY = re.compile(
    rf"\s+(?=[{WIDE}])|(?<=[{WIDE}])\s+|(?<=[{HAN}])\s+(?=[{HAN}{QUOTES}])|(?<=[{QUOTES}])\s+(?=[{HAN}])"
)


class JoinChinese(SphinxPostTransform):
    """The space that reST wants between two words, or makes of a line's end, is none of Chinese.

    It comes after the references: their titles decide what stands beside a space.
    """

    default_priority = 400

    def is_supported(self) -> bool:
        return self.config.language == "zh_CN"

    def run(self, **kwargs: Any) -> None:
        for block in self.document.findall(nodes.TextElement):
            if not isinstance(block, (nodes.Inline, nodes.FixedTextElement)):
                join(block)


def join(block: nodes.TextElement) -> None:
    """Take the stray spaces out of a paragraph, a title or a term, whatever is bold in it."""
    texts = list(block.findall(nodes.Text))
    whole = "".join(texts)
    stray = {place for found in _STRAY.finditer(whole) for place in range(*found.span())}
    start = 0
    for text in texts:
        places = range(start, start := start + len(text))
        kept = "".join(whole[place] for place in places if place not in stray)
        text.parent.replace(text, nodes.Text(kept))


class PairsOfHan(SearchEnglish):
    """Chinese is searched by each two characters that follow each other.

    A word of a query is found wherever it stands, known to a dictionary or not; jieba, which Sphinx
    would use, divides the pages but not the query. What is Latin keeps the English stemmer.
    """

    lang = "zh"
    js_splitter_code = rf"""
function splitQuery(query) {{
  const pairs = (run) => Array.from({{ length: run.length - 1 }}, (_, at) => run.substr(at, 2));
  return (query.match(/[{HAN}]+|(?:(?![{HAN}])[\p{{L}}\p{{N}}_])+/gu) || []).flatMap((run) =>
    /^[{HAN}]{{2}}/.test(run) ? pairs(run) : [run]
  );
}}
"""

    def split(self, input: str) -> list[str]:  # noqa: A002 - Sphinx calls it so
        return [word for run in re.findall(rf"[{HAN}]+|[^\W{HAN}]+", input) for word in pairs(run)]


def pairs(run: str) -> list[str]:
    if not re.match(rf"[{HAN}]{{2}}", run):
        return [run]
    return [run[at : at + 2] for at in range(len(run) - 1)]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_post_transform(JoinChinese)
    app.add_search_language(PairsOfHan)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
