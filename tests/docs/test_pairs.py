"""A Chinese page is its own text, and says the same as the English one of its name."""

from __future__ import annotations

import re

import pytest
from sybil import Document
from sybil.parsers.rest.lexers import DirectiveLexer

from .pages import PAGES, ROOT

#: Pages that have all of the English one, and more.
LONGER = {
    "accounts": "has third-party platforms, which are among the English recipes",
    "quickstart": "says in a line what the English one leaves to other pages",
    "troubleshooting": "has beside a code what is elsewhere in English",
}
PAIRS = [page.removeprefix("docs/zh/")[:-4] for page in PAGES if page.startswith("docs/zh/")]
ENGLISH = [page for page in PAGES if not page.startswith("docs/zh/")]

HAN = r"[\u3400-\u9fff]"
_COMMENT = re.compile(r"(?:^|\s+)(?:#|//|\{#|<!--) .*$")
#: Strings and text between tags with Chinese in them.
_CHINESE = re.compile(
    rf"(?<=[\"'])[^\"'\n]*{HAN}[^\"'\n]*(?=[\"'])|(?<=>)[^<>\n]*{HAN}[^<>\n]*(?=<)"
)

Block = tuple[str, list[str]]


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def shown(page: str) -> str:
    """What a reader sees of a page: without the comments, in which tests are prepared."""
    return re.sub(r"^( *)\.\. [\w -]+:(?!:).*\n(?:\1 +.*\n|\s*\n)*", "", read(page), flags=re.M)


def blocks(page: str) -> list[Block]:
    """The code blocks of a page, each with its language, as lines without comments."""
    regions = DirectiveLexer("code-block")(Document(read(page), page))
    return [
        (r.lexemes["arguments"], lines(r.lexemes["arguments"], r.lexemes["source"]))
        for r in regions
    ]


def lines(language: str, source: str) -> list[str]:
    """Of a console only the commands: what they print may be in another language."""
    if language == "console":
        source = "\n".join(re.findall(r"^\$ (?:.*\\\n)*.*", source, flags=re.M))
    bare = (_COMMENT.sub("", line).rstrip() for line in source.splitlines())
    return [line for line in bare if line]


def is_same(chinese: Block, english: Block) -> bool:
    """Line by line, but for what is in Chinese."""
    return (
        chinese[0] == english[0]
        and len(chinese[1]) == len(english[1])
        and all(map(line_is_same, chinese[1], english[1]))
    )


def line_is_same(chinese: str, english: str) -> bool:
    pattern = ".+".join(map(re.escape, _CHINESE.split(chinese)))
    return re.fullmatch(pattern, english) is not None


def named(pattern: str, text: str) -> set[str]:
    return {" ".join(found.split()) for found in re.findall(pattern, text)}


KINDS = {
    "settings": r"\b(?:[A-Z]+_)?(?:WXJSAPI|CACHE)_[A-Z_]*[A-Z]\b",
    "commands": r"wxjsapi(?:\s--[\w-]+\s\S+)*\s(?:status|ticket|refresh|sign|verify|doctor)\b",
    "options": r"(?<![\w-])--[a-z][a-z-]+",
    "codes": r"(?a)(?<![\w.:/])\d{5,6}(?!\w|\.\d)",
    "pictures": r"\.\. image:: (?:\.\./)?(\S+)",
    "rows of tables": r"(?m)^``[^A-Z`\n]+``(?=  )",
    "names": r"``\"?[a-z]+(?:[_.][a-z]+)+(?:\(\))?\"?``",
}


def test_every_page_that_is_longer_exists() -> None:
    """A reason for a page that is gone goes with it."""
    assert LONGER.keys() <= set(PAIRS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_of_pages_names_the_same(name: str, kind: str) -> None:
    """Settings, commands, codes, pictures, rows of tables; and at least what has a name in code."""
    english, chinese = (
        named(KINDS[kind], shown(f"docs/{directory}{name}.rst")) for directory in ("", "zh/")
    )
    assert english <= chinese
    if name not in LONGER and kind != "names":
        assert chinese <= english


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_of_pages_has_the_same_code(name: str) -> None:
    """Block by block; a longer page has others between, which stand in another English page."""
    rest = blocks(f"docs/{name}.rst")
    for block in blocks(f"docs/zh/{name}.rst"):
        if rest and is_same(block, rest[0]):
            del rest[0]
        else:
            assert name in LONGER, (block, rest[:1])
            assert any(is_same(block, other) for page in ENGLISH for other in blocks(page)), block
    assert not rest


IN_ORDER = {
    "settings": r"^\.\. confval:: (\w+)\n   :type: .+\n   :default: (.+)$",
    "entries of codes": r"^``-?\d+``(?:, ``-?\d+``)*$",
    "servers": r"^(\w[\w.-]*(?:, [\w ]+)?)  +\S+  +(\d+)$",
}


@pytest.mark.parametrize("kind", IN_ORDER)
@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_of_pages_has_the_same_in_the_same_order(name: str, kind: str) -> None:
    """Settings with their defaults, codes that have an entry, servers with their figures."""
    english, chinese = (
        re.findall(IN_ORDER[kind], read(f"docs/{directory}{name}.rst").replace("、", ", "), re.M)
        for directory in ("", "zh/")
    )
    assert chinese == english


@pytest.mark.parametrize(
    ("chinese", "english", "expected"),
    [
        ('f(title="你好")', 'f(title="Hello")', True),
        ("<title>你好</title>", "<title>Hello</title>", True),
        ("x = 1", "x = 1", True),
        ("x = 2", "x = 1", False),
        ('f(title="你好", a=1)', 'f(title="Hello", a=2)', False),
    ],
)
def test_only_what_is_chinese_may_differ(chinese: str, english: str, expected: bool) -> None:
    """The comparison itself sees another number, and not another language."""
    assert line_is_same(chinese, english) is expected


def test_comments_may_be_chinese() -> None:
    """They are no part of the comparison, and a URL's slashes begin none."""
    source = "# 一\nx = 1   # 二\nurl = 'http://a/#b'  // 三\n"
    assert lines("python", source) == ["x = 1", "url = 'http://a/#b'"]
