# ruff: noqa: RUF001 - Chinese has a punctuation of its own
"""``--lang zh``: every sentence that a command can say has its Chinese, and nothing is lost."""

from __future__ import annotations

import ast
import json
import re
import time
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

import flask_wxjsapi
from flask_wxjsapi import WeChatAPIError
from flask_wxjsapi._credential import JSAPI_TICKET
from flask_wxjsapi._page import servers
from flask_wxjsapi._platform import OFFIACCOUNT, PLATFORMS
from flask_wxjsapi._tools import language
from flask_wxjsapi._tools.language import chinese
from flask_wxjsapi._tools.lines import columns, wrapped
from flask_wxjsapi._tools.report import when
from flask_wxjsapi.errors import (
    ADVICE_IN_WECOM,
    ADVICE_WITH_PROVIDER,
    REACTIONS,
    reaction,
)
from flask_wxjsapi.sandbox import Sandbox

from .terminal import PAGE, Site, config_of, pasted, said

PACKAGE = Path(flask_wxjsapi.__file__).parent
CATALOGUE = tomllib.loads((PACKAGE / "_tools/chinese.toml").read_text(encoding="utf-8"))
CODES = sorted({0} | REACTIONS.keys() | ADVICE_IN_WECOM.keys() | ADVICE_WITH_PROVIDER.keys())
ADVICE = sorted(
    {
        reaction(code, platform, with_provider=with_provider).advice
        for code in CODES
        for platform in PLATFORMS
        for with_provider in (False, True)
    }
)

# -- what is said ----------------------------------------------------------------------------------

#: What is put into a text, where the text needs more than any word there.
SAMPLES = {
    "_LOSS": servers._LOSS,
    "code": " with 40001",
    "self.kind": "ticket",
    "self.name": "The ticket server X",
    "tickets.name": "The ticket server X",
    "whose": "WeChat's",
}
_WORDS = re.compile(r"[A-Za-z]{2,} [a-z]{2,}")
#: English words that are right in Chinese: commands, and what WeChat or the system says.
_QUOTED = re.compile(
    r"flask wxjsapi \w+|pip install|（[^（）]*）|\((?:invalid|[A-Z]\w+Error)[^)]*\)"
)


def english_in(text: str) -> list[str]:
    """Two words in a row."""
    return _WORDS.findall(_QUOTED.sub("", text))


def text_of(node: ast.AST) -> str:
    """What a literal or an f-string may say."""
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    if isinstance(node, ast.FormattedValue):
        return SAMPLES.get(ast.unparse(node.value), "X")
    is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return re.sub(r"%(?:s|\.0f|g)", "X", node.value) if is_text else ""


def is_for_eyes(field: str, node: object) -> bool:
    """It is code that may say something: no docstring and no help."""
    is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    is_help = isinstance(node, ast.keyword) and node.arg == "help"
    is_code = isinstance(node, ast.AST) and field != "decorator_list"
    return is_code and not is_docstring and not is_help


def texts_in(node: ast.AST) -> Iterator[str]:
    """The texts of some code, without another text that one may begin with."""
    if text := text_of(node):
        yield re.sub("^X (?=[A-Z])", "", text)
        return
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if is_for_eyes(field, child):
                yield from texts_in(child)


def texts_of(path: Path) -> list[str]:
    return list(texts_in(ast.parse(path.read_text(encoding="utf-8"))))


def errors_in(path: Path) -> Iterator[str]:
    """What the exceptions of :data:`ERRORS` say that are raised in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ERRORS[path.name]:
            yield from texts_in(node)


SOURCES = [path for path in PACKAGE.rglob("*.py") if "sandbox" not in path.parts]
ERRORS = defaultdict(
    lambda: {"NoThread", "TicketUnavailable", "TransportError", "WxJsApiError"},
    {"diagnosis.py": {"ValueError"}},
)
COMMANDS = [PACKAGE / "_tools" / name for name in ("cli.py", "doctor.py", "report.py")]
SAID = [
    text
    for text in chain(*map(texts_of, COMMANDS), *map(errors_in, SOURCES))
    if _WORDS.search(text)
]
#: What is put together from parts that say nothing alone.
COMPOSED = {
    "FileSystemCache in /cache, for this host: written and read back.",
    "OSError: X",
    "The cache cannot be read (X).",
    *(f"{state}." for state in ("fresh", "stale", "invalid", "unknown")),
}
TIMES = {when(time.time() + sign * span) for sign in (1, -1) for span in (30, 90, 5400)}

# -- the catalogue ---------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [*SAID, *sorted(COMPOSED)])
def test_what_a_command_can_say_has_its_chinese(text: str) -> None:
    """Whoever adds a sentence adds it to chinese.toml."""
    assert english_in(chinese(text)) == []


def test_a_time_has_its_chinese() -> None:
    """Before and after now, in seconds, minutes and hours."""
    assert [english_in(chinese(text)) for text in TIMES] == [[]] * len(TIMES)


@pytest.mark.parametrize("advice", ADVICE)
def test_every_advice_has_its_chinese(advice: str) -> None:
    """For each errcode, platform and source of the token, with its code and WeChat's text."""
    error = str(WeChatAPIError(40001, "some words of WeChat", advice))
    assert chinese(error).startswith("微信返回 40001（some words of WeChat）。")
    assert english_in(chinese(error)) == []


def test_the_catalogue_has_nothing_that_nobody_says() -> None:
    """An entry goes with its sentence."""
    said = {*ADVICE, *COMPOSED, *TIMES, *chain(*map(texts_of, SOURCES))}
    ends = {text[found.end() :] for text in said for found in re.finditer(r"^|: |[.'\"] ", text)}
    known = {words for pattern, words in language.catalogue() if any(map(pattern.match, ends))}
    assert [english for english, words in CATALOGUE.items() if words not in known] == []


@pytest.mark.parametrize("english", CATALOGUE)
def test_an_entry_loses_nothing(english: str) -> None:
    """Chinese and English have the same placeholders."""
    places = re.compile(r"\{\w+\}")
    assert sorted(places.findall(CATALOGUE[english])) == sorted(places.findall(english))


# -- texts that are put together -------------------------------------------------------------------


def test_a_text_of_another_version_stays_as_it_is() -> None:
    """Sentence by sentence: what is not known is not touched."""
    assert chinese("Some news of 0.3: here.\nAnd there") == "Some news of 0.3: here.\nAnd there"
    assert chinese("It has ended. Some news. It failed.") == "已经过期。Some news. 那一次失败了。"


def test_a_quotation_with_braces_and_lines_stays_as_it_is() -> None:
    """WeChat's own text is nobody's placeholder, and no sentence of ours."""
    quoted = "{advice} {0} %s It failed.\n\\1 No access token: x"
    said = chinese(str(WeChatAPIError(45011, quoted)))
    assert said == f"微信返回 45011（{quoted}）。这一分钟内请求太多，下一次会等到下一分钟。"


@pytest.mark.parametrize(
    "part",
    [
        "x", "(", "汉", "{x} ). ", "It failed. ", "No access token: ", "WeChat says 1 (",
        "x was not ", "WeChat says 1 (a. ", "Nothing is asked until x. ", "was not reached: x. ",
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["{}", "WeChat says 1 ({}). It failed.", "No access token: {}"])
def test_a_long_hostile_text_takes_no_more_than_its_length(part: str, form: str) -> None:
    """With a regular expression that goes back, some of these would not end today."""
    hostile = part * (100_000 // len(part))
    assert hostile[-1000:] in chinese(form.format(hostile))


# -- lines -----------------------------------------------------------------------------------------


def test_a_chinese_character_is_two_columns_wide() -> None:
    """A line is full at half as many, and none begins with what ends a sentence."""
    lines = wrapped("微信收到的请求与发出的不同：网关或代理改动了它。", 20)
    assert lines == ["微信收到的请求与发出", "的不同：网关或代理改", "动了它。"]
    assert wrapped("一二三四五六，七八", 12) == ["一二三四五", "六，七八"]


def test_a_chinese_name_in_english_is_a_word() -> None:
    """It is not broken in two."""
    assert wrapped("at 微信开发者平台 (x.example): so", 12) == [
        "at",
        "微信开发者平台",
        "(x.example):",
        "so",
    ]


# -- the commands ----------------------------------------------------------------------------------

IN_CHINESE = {"LANGUAGE": "", "LC_ALL": "", "LC_MESSAGES": "", "LANG": "zh_CN.UTF-8"}


@pytest.mark.parametrize(
    ("variables", "lang"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_TW"}, "zh"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "en_US.UTF-8"}, "en"),
        ({"LC_MESSAGES": "en_US.UTF-8", "LC_ALL": "zh_CN.UTF-8"}, "zh"),
        ({"LC_ALL": "C", "LANGUAGE": "zh_CN:en"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LANGUAGE": "en:zh_CN"}, "en"),
    ],
)
def test_the_default_is_the_locales(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], lang: str
) -> None:
    """The variables count in the order in which gettext reads them."""
    for name in IN_CHINESE:
        monkeypatch.setenv(name, variables.get(name, ""))
    assert language.of_locale() == lang


def test_the_option_is_stronger_than_the_locale(site: Site) -> None:
    """And without it the locale's language is spoken."""
    assert "存储里没有" in site.run("status", env=IN_CHINESE).stdout
    assert "There is none" in site.run("status", "--lang", "en", env=IN_CHINESE).stdout
    assert "存储里没有" in site.run("status", "--lang", "zh").stdout


def test_json_is_english_unless_it_is_asked_for(site: Site, sandbox: Sandbox) -> None:
    """Programs read the same everywhere; codes and keys are the same in both."""
    sandbox.fail("40164", times=None)
    found = {}
    for lang in ((), ("--lang", "zh")):
        texts = site.run("doctor", "--json", *lang, env=IN_CHINESE).stdout
        status = json.loads(site.run("status", "--json", *lang, env=IN_CHINESE).stdout)
        found[lang] = {**json.loads(texts), "state": status["state"], "why": status["reason"]}
    english, translated = found.values()
    assert english.keys() == translated.keys()
    assert {found["level"] for found in translated["findings"]} <= {"ok", "warning", "error"}
    assert english["state"] == translated["state"] == "invalid"
    assert english["reason"].startswith("No access token: WeChat says 40164")
    assert translated["reason"].startswith("取不到 access_token：微信返回 40164")
    assert (english["why"], translated["why"]) == ("There is none in the store.", "存储里没有。")


State = Callable[[Site, Sandbox], object]


def fails(errcode: int, *, is_healed: bool = False) -> State:
    def fail(site: Site, sandbox: Sandbox) -> None:
        sandbox.fail(errcode, times=None)
        assert site.run("refresh").exit_code == 1
        if is_healed:
            sandbox.heal()

    return fail


def aged(age: float, *, is_failing: bool = True) -> State:
    def age_it(site: Site, sandbox: Sandbox) -> None:
        site.ticket()
        session = site.wxjsapi._accounts_of(site.server).own.credentials.session()
        held, at = session.find(JSAPI_TICKET), time.time() - age
        assert held is not None
        older = replace(held, issued_at=at, expires_at=at + 7200, generation=int(at) + 9999)
        session.save(JSAPI_TICKET, older)
        if is_failing:
            fails(-1)(site, sandbox)

    return age_it


STATES: dict[str, State] = {
    "nothing is there yet": lambda *_: None,
    "all is well": lambda site, _: site.ticket(),
    "stale, and its renewals fail": aged(7050),
    "no valid ticket": aged(7250),
    "a wrong AppSecret": fails(40125),
    "an address that is not on the whitelist": fails(40164),
    "the quota is used up": fails(45009),
    "the quota is there again": fails(45009, is_healed=True),
    "two clocks disagree": aged(-7300, is_failing=False),
}


@pytest.mark.parametrize("state", STATES)
def test_no_english_is_left_but_what_wechat_says(state: str, site: Site, sandbox: Sandbox) -> None:
    """In the states of docs/operator.csv that the sandbox can play, with the same exit status."""
    STATES[state](site, sandbox)
    exit_code = site.run("status").exit_code
    assert site.run("status", "--lang", "zh").exit_code == exit_code
    for command in ("status", "doctor"):
        result = site.run(command, "--lang", "zh")
        assert english_in(said(result.output)) == []
        for line in result.output.splitlines():
            assert re.match(r"[\u4e00-\u9fff]|ticket | {9}", line), line
            assert columns(line) <= 80 or " " not in line.strip()


def test_a_renewal_is_told_in_chinese(site: Site, sandbox: Sandbox) -> None:
    """What is done, what goes wrong, and what is mistyped."""
    assert site.run("refresh", "--lang", "zh").stdout.startswith("已续期：ticket 长 ")
    assert "没有请求：" in site.run("refresh", "--lang", "zh").stdout
    assert "没有账号 'x'" in site.run("--account", "x", "ticket", "--lang", "zh").stderr
    assert "请给出页面的完整 URL" in site.run("sign", "--lang", "zh", "page").stderr


def test_a_ticket_that_cannot_be_had_is_told_in_chinese(site: Site, sandbox: Sandbox) -> None:
    """By the commands that print one, or what was made with one."""
    sandbox.fail("40125", times=None)
    for args in (["ticket"], ["sign", PAGE], ["refresh"]):
        result = site.run(*args, "--lang", "zh")
        assert (result.exit_code, "WXJSAPI_APP_SECRET 不对" in result.stderr) == (1, True)


def test_verify_calls_another_ticket_by_a_chinese_name(site: Site) -> None:
    """The whole diagnosis is in one language."""
    config = config_of(site)
    config["signature"] = flask_wxjsapi.sign(
        ticket="another", noncestr=config["nonceStr"], timestamp=config["timestamp"], url=PAGE
    )
    given = ["--ticket", "another"]
    result = site.run("verify", "--lang", "zh", PAGE, *given, *pasted(config))
    assert "用 --ticket 给出的那个" in result.stdout
    assert english_in(result.stdout) == []


def test_the_console_has_its_chinese_name() -> None:
    """With the address that a person opens."""
    assert chinese(OFFIACCOUNT.console) == "微信开发者平台（developers.weixin.qq.com/platform）"
