"""Lines of a terminal, where a Chinese character is as wide as two others."""
# ruff: noqa: RUF001 - Chinese has a punctuation of its own

from __future__ import annotations

import re
from unicodedata import east_asian_width

_WIDE = r"\u2e80-\u9fff\uf900-\ufaff\uff00-\uff60"
_NAME = rf"(?<![{_WIDE}])[\u3400-\u9fff]{{1,9}}(?![{_WIDE}])[^ {_WIDE}]*"
#: What a line may end after, with the punctuation that is its own: a Chinese name between English
#: words, a Chinese character, a word.
_PIECE = re.compile(rf" ?[(（《「]*(?:{_NAME}|[{_WIDE}]|[^ {_WIDE}]+)[，。；：、！？）》」]*")


def columns(text: str) -> int:
    """How wide a text is."""
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most so many columns, but for a word that is longer."""
    lines = [""]
    for piece in _PIECE.findall(" ".join(text.split())):
        if lines[-1] and columns(lines[-1] + piece) > width:
            lines.append("")
        lines[-1] += piece if lines[-1] else piece.lstrip()
    return lines
