"""What the commands say, in Chinese.

Not where it is said: an error comes out of the store as the English text that another process put
together, perhaps of another version. So ``chinese.toml`` has English texts with placeholders, and
what is said is recognised by them. What is not known stays English.
"""

from __future__ import annotations

import os
import re
from functools import cache
from importlib import resources

_MOST = 20


def of_locale() -> str:
    """``"zh"`` or ``"en"``, by the first variable that is set of those that gettext reads."""
    names = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
    first = next(filter(None, map(os.environ.get, names)), "")
    return "zh" if first.lower().startswith("zh") else "en"


def chinese(text: str, most: int = _MOST) -> str:
    """A text, or sentence after sentence of one, in Chinese where it is known.

    :param most: how many in a row, and how many in one another. A text may come from anybody: the
        time is that of its length.
    """
    if not most or not text:
        return text
    for pattern, words in catalogue():
        if found := pattern.match(text):
            parts = found.groupdict()
            ours = {name: chinese(parts[name], most - 1) for name in parts if name.isupper()}
            return _joined(words.format_map(parts | ours), chinese(text[found.end() :], most - 1))
    unknown, stop, rest = text.partition(". ")
    return _joined(f"{unknown}.", chinese(rest, most - 1)) if stop else text


def _joined(left: str, right: str) -> str:
    return f"{left} {right}" if right and left[-1] in ".?" else left + right


@cache
def catalogue() -> list[tuple[re.Pattern[str], str]]:
    """What recognises an English text, and the Chinese; those with more of a text come first.

    Read when it is first needed: most processes never need it.
    """
    import tomllib  # only here, for the same reason

    file = resources.files(__package__).joinpath("chinese.toml")
    texts: dict[str, str] = tomllib.loads(file.read_text(encoding="utf-8"))
    ranked = sorted(texts, key=lambda english: len(re.sub(r"\{\w+\}", "", english)), reverse=True)
    return [(_pattern(english), texts[english]) for english in ranked]


def _pattern(english: str) -> re.Pattern[str]:
    """Each placeholder takes as little as it can, and nothing is tried a second time; the first
    thing in a text takes a word at most, so that not all of it is searched for what follows.
    """
    parts = re.split(r"\{(\w+)\}", english)
    texts = [re.escape(text) for text in parts[::2]]
    texts[-1] += r"(?: |\Z)" if english[-1] in ".?" else r"\Z"  # another may follow a sentence
    pattern = texts[0]
    for name, text in zip(parts[1::2], texts[1:], strict=True):
        some = ".*?" if pattern else r"\S*?"
        pattern += f"(?>(?P<{name}>{some}){text})"
    return re.compile(pattern, re.DOTALL)
