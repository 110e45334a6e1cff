"""What Sphinx makes of the pages: two builds, for English and for Chinese readers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_wxjsapi.errors import REACTIONS

from ..conftest import require

pytestmark = pytest.mark.slow

HAN, WIDE = r"[\u3400-\u9fff]", r"[\u3000-\u303f\uff01-\uff60]"


def pages(built: Path) -> Iterator[tuple[Path, str]]:
    for path in built.rglob("*.html"):
        yield path, path.read_text(encoding="utf-8")


def chinese_bodies(built: Path) -> Iterator[tuple[str, str]]:
    """What a Chinese page says, without its code and its tags."""
    for path in (built / "zh").glob("*.html"):
        body = re.search(r'role="main">(.*?)<div class="clearer">', path.read_text("utf-8"), re.S)
        if body and path.stem not in ("genindex", "search", "404"):
            text = re.sub(r"<pre>.*?</pre>", "", body[1], flags=re.S)
            inline = r"</?(?:a|code|em|span|strong)\b[^>]*>"
            yield path.stem, re.sub(inline, "", text)


def test_the_documentation_builds(built: Path) -> None:
    """Sphinx has nothing to warn of, fetches nothing and shows nothing of what is hidden."""
    assert (built / "index.html").exists()
    for path, text in pages(built):
        assert not re.search(r"invisible-code|new_settings|phone_", text), path


def test_each_page_says_its_language(built: Path) -> None:
    """Browsers and screen readers are told which it is."""
    for path, text in pages(built):
        language = "zh-CN" if path.parent.name == "zh" else "en"
        assert f'<html lang="{language}"' in text, path


def test_each_page_leads_to_itself_in_the_other_language(built: Path) -> None:
    """The switch leads to the page of the same name where there is one, else to the front page."""
    for path, text in pages(built):
        if path.stem == "404":  # its links depend on where it is served
            continue
        (link,) = re.findall(r'<p class="language"><a href="(.+?)"', text)
        other = (path.parent / link).resolve()
        assert other.exists(), path
        assert other.parent != path.parent
        twin = other.with_name(path.name)
        assert other.name == (path.name if twin.exists() else "index.html"), path


def test_no_space_stands_between_chinese_characters(built: Path) -> None:
    """A line that ends in the source, and what reST wants around a literal, leave none."""
    stray = re.compile(rf"{HAN}\s+{HAN}|{WIDE}\s+{HAN}|\S\s+{WIDE}")
    for page, text in chinese_bodies(built):
        found = stray.search(text)
        assert not found, (page, text[max(0, found.start() - 40) : found.end() + 40])


def test_the_navigation_of_the_chinese_pages_is_chinese(built: Path) -> None:
    """No English heading is left beside them."""
    for path in (built / "zh").glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r">\s*(Contents|Navigation|Overview|Quick search|Next|Go)\b", text), (
            path
        )


def search(build: Path, *queries: str) -> list[list[str]]:
    node = shutil.which("node")
    if node is None:
        require("node", "no Node: it is needed for the search of the docs")
    script = Path(__file__).with_name("search.js")
    command = [str(node), str(script), str(build), *queries]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    found: list[list[str]] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("language", ["", "zh"])
def test_the_search_finds_what_people_paste(built: Path, language: str) -> None:
    """A code leads to its place on the page for troubleshooting, an error text to that page."""
    codes = [*map(str, REACTIONS), "63002", "40048"]  # the last two are a phone's
    *places, text = search(built / language, *codes, "invalid signature")
    for code, found in zip(codes, places, strict=True):
        assert f"troubleshooting#error-{code.lstrip('-')}" in " ".join(found), code
    assert any(result.startswith("troubleshooting") for result in text)


#: What goes wrong elsewhere than in an answer of WeChat's.
PLACES = ["web-view", "Turbo", "htmx", "Vite", "NO_PROXY", "Sentry", "emptyDir", "AWS Lambda"]
TEXTS = [
    "permission denied",
    "require subscribe",
    "the permission value is offline verifying",
    "Any user may write to",
    "invalid signature",
]


#: The same in words, which each language has of its own.
WORDS = {
    "": ["plain link", "expired verification", "test account", "mini program", "PC WeChat"],
    "zh": ["纯链接", "认证过期", "测试号", "小程序", "电脑版微信", "开发服务器", "云函数"],
}


@pytest.mark.parametrize("language", WORDS)
def test_the_search_shows_the_place_of_an_error_first(built: Path, language: str) -> None:
    """A text or a place has an entry of its own; of a code the general place is first."""
    queries = [*PLACES, *TEXTS, *WORDS[language], "40164"]
    for query, found in zip(queries, search(built / language, *queries), strict=True):
        assert re.match("(?:troubleshooting|sharing)#(?!.*-again)", found[0]), (query, found)


def test_the_search_finds_chinese_words(built: Path) -> None:
    """Known to a dictionary or not, one or several, as they are typed: without spaces."""
    words = ["沙箱", "缓存", "签名", "中控服务器", "企业微信", "第三方平台"]
    for word, found in zip(words, search(built / "zh", *words), strict=True):
        assert found, word
    (nothing,) = search(built / "zh", "龘靐齉")
    assert not nothing
