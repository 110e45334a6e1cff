"""Which mistake made a signature: every cause from both ends, by a signer of the test's own."""

from __future__ import annotations

import hashlib
import html
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

import pytest
from flask import Flask, request
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import escape
from werkzeug.test import EnvironBuilder

from flask_wxjsapi._tools.diagnosis import Diagnosis, diagnose, texts

ROUNDS = int(os.environ.get("WXJSAPI_TEST_ROUNDS", "12"))  # `make test-all` has a hundred
FEW = min(ROUNDS, 15)  # of those that take a thousand tries
TICKET = "sM4AOVdWfPE4DxkXGEs8VMCPGGVi4C3VM0P37wVUCFvkVAy_90u5h9nbSlYy3-Sl-HhTdfl2fzFy1AOcHKP7qg"
ACCESS_TOKEN = "61_k7GxIhYdnvXcTTtqEtZSfXAQAmpGEsZD3dKKfbr3cAEYHqYVGUWMZXrJ"
OTHER = "kgt8ON7yVITDhtdwci0qefzI3QgabKxVTFMXkWkz3R2ksQTSQbHpsPqzsD9G3CdYH"
EMPTY_SHA1 = "da39a3ee5e6b4b0d3255bfef95601890afd80709"


def sha1(*lines: str) -> str:
    digest = hashlib.new("sha1")
    digest.update("&".join(lines).encode())
    return digest.hexdigest()


class Page:
    """A random page inside WeChat, and what ``wx.config`` gets there."""

    def __init__(self, seed: object) -> None:
        self.rng = random.Random(str(seed))
        rng = self.rng
        self.scheme = "https"
        self.host = rng.choice(["shop.example", "m.shop.example.cn", "xn--fiq228c.example"])
        self.port = ""
        self.path = "/" + "/".join(self.word() for _ in range(rng.randint(2, 4)))
        self.params = [f"k{n}={self.word()}" for n in range(rng.randint(2, 4))]
        self.suffix: list[str] = []
        self.hash = rng.choice(["", f"#/{self.word()}"])
        self.noncestr = "".join(rng.choices("abcdefgh0123456789", k=16))
        self.timestamp = str(rng.randint(1_600_000_000, 1_900_000_000))

    def word(self) -> str:
        tail = "".join(self.rng.choices("abcdeXYZ019-_", k=4))
        return self.rng.choice(["", quote("中文"), "%20", "a%7E", "x%2Fy"]) + tail

    @property
    def query(self) -> str:
        params = self.params + self.suffix
        return "?" + "&".join(params) if params else ""

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}{self.port}{self.path}{self.query}"

    def sign(self, url: str | None = None, ticket: str = TICKET) -> str:
        url = self.url if url is None else url
        return sha1(
            f"jsapi_ticket={ticket}", f"noncestr={self.noncestr}", f"timestamp={self.timestamp}",
            f"url={url}",
        )  # fmt: skip

    def diagnose(self, signature: str, **changes: Any) -> Diagnosis:
        facts = {
            "url": self.url + self.hash,
            "noncestr": self.noncestr,
            "timestamp": self.timestamp,
            "signature": signature,
            "ticket": TICKET,
            "others": {"access_token": ACCESS_TOKEN, "of the old server": OTHER},
        }
        return diagnose(**facts | changes)


# -- each cause in the URL: what a server signs by mistake


def shared(page: Page) -> str:
    page.suffix = page.rng.choice(
        [["from=timeline"], ["from=singlemessage", "isappinstalled=0"], ["isappinstalled=1"]]
    )
    page.params = page.rng.choice([[], page.params])
    return page.url.partition("?")[0] + ("?" + "&".join(page.params) if page.params else "")


def shared_halfway(page: Page) -> str:
    page.suffix = ["from=groupmessage", "isappinstalled=0"]
    return page.url.removesuffix("&isappinstalled=0")


def shared_amid(page: Page) -> str:
    page.suffix = ["from=timeline", "isappinstalled=0", "code=041x", "state=s"]
    return page.url.replace("&from=timeline&isappinstalled=0", "")


def of_a_cached_page(page: Page) -> str:
    return page.url + "&from=timeline&isappinstalled=0"


def without_query(page: Page) -> str:
    page.params *= page.rng.choice([1, 10])
    return page.url.partition("?")[0]


def cut_at_ampersand(page: Page) -> str:
    """``?url=`` + location.href without encodeURIComponent."""
    page.suffix = page.rng.choice([[], ["from=timeline"]])
    page.params *= page.rng.choice([1, 10])
    return page.url.partition("&")[0]


def without_one(page: Page) -> str:
    lost = page.rng.choice(page.params)
    return page.url.replace(f"{lost}&", "").replace(f"&{lost}", "")


def without_oauth(page: Page) -> str:
    page.suffix = ["code=041x", "state=s"]
    return page.url.removesuffix("&code=041x&state=s")


def slash(page: Page) -> str:
    page.path += page.rng.choice(["", "/"])
    other = page.path[:-1] if page.path.endswith("/") else page.path + "/"
    return page.url.replace(page.path, other, 1)


def question_mark(page: Page) -> str:
    page.params = []
    return page.url + "?"


def lost_question_mark(page: Page) -> str:
    """request.url drops it; where nothing else differs, the cause says what differs."""
    page.params = [""]
    assert page.url.endswith("?")
    return page.url[:-1]


def scheme(page: Page) -> str:
    page.scheme = page.rng.choice(["http", "https"])
    return page.url.replace(*(("https", "http") if page.scheme == "https" else ("http", "https")))


def port_lost(page: Page) -> str:
    page.port = ":8443"
    return page.url.replace(":8443", "")


def port_added(page: Page) -> str:
    port = page.rng.choice([":443", ":80", ":5000", ":8000", ":8080"])
    return page.url.replace(page.host, page.host + port)


def www(page: Page) -> str:
    page.host = page.rng.choice(["", "www."]) + page.host
    bare = page.host.removeprefix("www.")
    return page.url.replace(page.host, bare if page.host != bare else f"www.{bare}")


def upper_host(page: Page) -> str:
    return page.url.replace(page.host, page.host.upper())


def inner_host(page: Page) -> str:
    inner = page.rng.choice(["127.0.0.1", "localhost"]) + page.rng.choice([":5000", ":8000", ""])
    return f"http://{inner}{page.path}{page.query}"


def stripped_prefix(page: Page) -> str:
    return page.url.replace(page.path, "/" + page.path.split("/", 2)[2], 1)


def path_only(page: Page) -> str:
    if page.rng.random() < 0.3:
        page.params = []
        return page.path + page.rng.choice(["", "?"])  # request.path, request.full_path
    return page.rng.choice(["//" + page.host, page.host, ""]) + page.path + page.query


def with_hash(page: Page) -> str:
    page.hash = page.rng.choice(["#", "#/home", "#a?b=1&c=%E4%B8%AD"])
    return page.url + page.hash


def flask_url(page: Page) -> str:
    """What a real Flask app has for request.url."""
    page.path += "/" + quote("中")
    builder = EnvironBuilder(base_url=f"https://{page.host}")
    environ = builder.get_environ()
    environ["PATH_INFO"] = unquote(page.path, "latin-1")
    environ["QUERY_STRING"] = page.query[1:]
    with Flask("tests").request_context(environ):
        return request.url


def unquoted(page: Page) -> str:
    page.path += page.rng.choice(["%E4%B8%AD", "%7E", "a%2Fb"])
    page.params.append("q=a+%E4%B8%AD")
    return page.rng.choice(
        [
            unquote(page.url),
            page.url.replace(page.path, unquote(page.path)),
            page.url.replace(page.query, unquote(page.query)),
        ]
    )


def plus_as_space(page: Page) -> str:
    page.params.append("q=a+b")
    return unquote(page.url.replace("+", " "))


def twice(page: Page) -> str:
    page.path += "%E4%B8%AD"
    return page.url.replace("%", "%25")


def component(page: Page) -> str:
    page.path += "/it's~"
    return quote(page.url, safe=page.rng.choice(["!~*'()", ""]))


def encode_uri(page: Page) -> str:
    page.path += "%E4%B8%AD"
    return quote(page.url, safe=";,/?:@&=+$-_.!~*'()#")


def raw_characters(page: Page) -> str:
    char = page.rng.choice("|[]{}^`")
    page.params.append(f"q=a{char}b")
    return page.url.replace(char, f"%{ord(char):02X}")


def other_digits(page: Page) -> str:
    page.path += "%E4%B8%AD"
    small = re.sub("%..", lambda found: found[0].lower(), page.url)
    if page.rng.random() < 0.5:
        return small
    page.path = re.sub("%..", lambda found: found[0].lower(), page.path)
    return re.sub("%..", lambda found: found[0].upper(), page.url)


def another_space(page: Page) -> str:
    old, new = page.rng.choice([("%20", "+"), ("+", "%20"), ("+", "%2B")])
    page.params.append(f"q=a{old}b")
    return page.url.replace(old, new)


def html_escaped(page: Page) -> str:
    page.path += "'"
    if page.rng.random() < 0.2:
        page.params.append("q=1&amp;r=2")  # pasted from the source of the page
        return html.unescape(page.url)
    by_hand = page.url.replace("&", page.rng.choice(["&amp;", "&#38;", "\\u0026"]))
    return page.rng.choice([html.escape(page.url), str(escape(page.url)), by_hand])


URL_MISTAKES: dict[Callable[[Page], str], str] = {
    shared: "share",
    shared_halfway: "share",
    shared_amid: "share",
    of_a_cached_page: "share",
    without_query: "query",
    cut_at_ampersand: "query",
    without_one: "query",
    without_oauth: "query",
    slash: "slash",
    question_mark: "slash",
    lost_question_mark: "slash",
    scheme: "scheme",
    port_lost: "port",
    port_added: "port",
    www: "host",
    upper_host: "host",
    inner_host: "host",
    stripped_prefix: "path",
    path_only: "path",
    with_hash: "hash",
    flask_url: "unescaped",
    unquoted: "unescaped",
    plus_as_space: "unescaped",
    twice: "escaped",
    component: "escaped",
    encode_uri: "escaped",
    raw_characters: "escaped",
    other_digits: "escaped",
    another_space: "escaped",
    html_escaped: "html",
}


@pytest.mark.parametrize(("mistake", "cause"), list(URL_MISTAKES.items()))
def test_mistake_in_the_url_is_named(mistake: Callable[[Page], str], cause: str) -> None:
    """What was signed is found, and the cause with it."""
    for number in range(ROUNDS):
        page = Page((mistake.__name__, number))
        url = mistake(page)
        assert url != page.url
        found = page.diagnose(page.sign(url))
        assert (found.cause, page.url) == (cause, page.url)
        assert found.signed is not None
        assert found.signed.endswith(f"&url={url}")


@pytest.mark.parametrize(("mistake", "cause"), list(URL_MISTAKES.items()))
def test_right_signature_is_valid(mistake: Callable[[Page], str], cause: str) -> None:
    """The same pages, signed as they should be."""
    for number in range(ROUNDS):
        page = Page((mistake.__name__, number))
        mistake(page)
        assert page.diagnose(page.sign()).cause == "valid"


@pytest.mark.parametrize(("mistake", "cause"), list(URL_MISTAKES.items()))
def test_mistake_in_the_url_and_another_ticket(mistake: Callable[[Page], str], cause: str) -> None:
    """Both are named, and which ticket it was."""
    for number in range(ROUNDS):
        page = Page((mistake.__name__, number))
        found = page.diagnose(page.sign(mistake(page), OTHER))
        assert found.cause == f"{cause}+ticket"
        assert "of the old server" in found.english
        assert "of the old server" in found.chinese


@pytest.mark.parametrize("cause", [
    "scheme+port", "share+scheme", "scheme+unescaped", "hash+escaped", "hash+unescaped",
    "scheme+path", "share+unescaped", "query+unescaped", "unescaped+html", "port+unescaped",
])  # fmt: skip
def test_two_mistakes_in_the_url_are_named(cause: str) -> None:
    """The texts of both are there, and a fix that they share is there once."""
    second = {
        "port": lambda url: re.sub("(//[^/]+)", r"\1:8000", url),
        "scheme": lambda url: url.replace("https", "http", 1),
        "unescaped": unquote,
        "escaped": lambda url: quote(url, safe="!~*'()"),
        "html": html.escape,
        "path": lambda url: re.sub("(//[^/]+)/[^/]+", r"\1", url),
    }
    for number in range(FEW):
        page = Page((cause, number))
        page.path += "/%E4%B8%AD"
        names = cause.split("+")
        signed = page.url
        match names[0]:
            case "share":
                page.suffix = ["from=timeline", "isappinstalled=0"]
            case "query":
                signed = page.url.partition("?")[0]
            case "hash":
                page.hash = "#/%E4%B8%AD"
                signed = page.url + page.hash
            case first:
                signed = second[first](page.url)
        found = page.diagnose(page.sign(second[names[1]](signed)))
        assert found.cause == cause
        for name in names:
            assert texts()[name]["fact"] in found.english
            assert found.english.count(texts()[name]["fix"]) == 1


# -- causes beside the URL


def parts(page: Page) -> list[str]:
    return [
        f"jsapi_ticket={TICKET}", f"noncestr={page.noncestr}", f"timestamp={page.timestamp}",
        f"url={page.url}",
    ]  # fmt: skip


def in_another_order(page: Page) -> str:
    lines = parts(page)
    while lines == parts(page):
        page.rng.shuffle(lines)
    return sha1(*lines)


def with_other_names(page: Page) -> str:
    lines = "&".join(parts(page))
    lines = page.rng.choice([lines, lines.replace("timestamp=", "timeStamp=")])
    return sha1(lines.replace("noncestr=", "nonceStr="))


def exchanged(page: Page) -> str:
    page.noncestr, page.timestamp = page.timestamp, page.noncestr
    signature = page.sign()
    page.noncestr, page.timestamp = page.timestamp, page.noncestr
    return signature


def milliseconds(page: Page) -> str:
    seconds = page.timestamp
    page.timestamp = f"{seconds}{page.rng.randrange(1000):03}"
    signature = page.sign()
    page.timestamp = seconds
    return signature


def milliseconds_in_the_page(page: Page) -> str:
    signature = page.sign()
    page.timestamp += "123"
    return signature


def fraction(page: Page) -> str:
    signature = page.sign()
    page.timestamp += ".25"
    return signature


def otherwise_hashed(page: Page) -> str:
    name = page.rng.choice(["md5", "sha256", "sha512"])
    return hashlib.new(name, "&".join(parts(page)).encode()).hexdigest()


MISTAKES: dict[Callable[[Page], str], str] = {
    in_another_order: "order",
    with_other_names: "names",
    exchanged: "swapped",
    milliseconds: "timestamp",
    milliseconds_in_the_page: "timestamp",
    fraction: "timestamp",
    otherwise_hashed: "algorithm",
    lambda page: page.sign().upper(): "algorithm",
    lambda page: page.sign(ticket=OTHER): "ticket",
    lambda page: page.sign(ticket=ACCESS_TOKEN): "access_token",
    lambda page: page.sign(ticket="somebody-elses"): "unknown",
    lambda page: sha1(*parts(page), "x=1"): "unknown",
    lambda page: EMPTY_SHA1: "unknown",
}


@pytest.mark.parametrize(("mistake", "cause"), list(MISTAKES.items()))
def test_mistake_beside_the_url_is_named(mistake: Callable[[Page], str], cause: str) -> None:
    """Order, names, nonce, timestamp, algorithm, ticket, and what nobody can tell."""
    for number in range(FEW if cause == "unknown" or mistake is milliseconds else ROUNDS):
        page = Page((cause, number))
        signature = mistake(page)
        found = page.diagnose(signature)
        assert found.cause == cause
        assert (found.signed is None) == (cause == "unknown")


def test_algorithm_is_told() -> None:
    """MD5 and upper case are called by name, and a mistake in the URL is found with them."""
    page = Page("algorithm")
    page.hash = "#a"
    text = "&".join(parts(page)) + "#a"
    found = page.diagnose(hashlib.new("md5", text.encode()).hexdigest())
    assert found.cause == "hash+algorithm"
    assert "MD5" in found.english
    assert "upper case" in page.diagnose(page.sign().upper()).english


# -- texts


def test_texts_are_whole_and_different() -> None:
    """Each cause has four texts, and what happened differs from one to the next."""
    for cause in texts().values():
        assert list(cause) == ["fact", "fix", "fact_zh", "fix_zh"]
        assert all(cause.values())
    for part in ("fact", "fact_zh"):
        assert len({cause[part] for cause in texts().values()}) == len(texts())


def test_every_cause_is_tested() -> None:
    """A new cause comes with its test."""
    assert {*URL_MISTAKES.values(), *MISTAKES.values(), *ADDRESSES, "valid"} == set(texts())


ADDRESSES = ("compared", "request")


@pytest.mark.parametrize("cause", ADDRESSES)
@pytest.mark.parametrize("address", ["https://other.example/api?url=x", "https://x.example"])
def test_an_address_known_from_elsewhere_is_named(cause: str, address: str) -> None:
    """One that has nothing in common with the page's."""
    page = Page(cause)
    signature = page.sign(url=address)
    assert page.diagnose(signature).cause == "unknown"
    assert page.diagnose(signature, addresses={cause: [address]}).cause == cause
    assert page.diagnose(page.sign(), addresses={cause: [page.url]}).cause == "valid"


def test_texts_are_in_their_language() -> None:
    """English has no Chinese but its example, and the other way round has some."""
    for cause in texts().values():
        assert not re.search("[\u4e00-\u9fff]{2}", cause["fact"] + cause["fix"])
        assert re.search("[\u4e00-\u9fff]{2}", cause["fact_zh"])
        assert re.search("[\u4e00-\u9fff]{2}", cause["fix_zh"])


def test_texts_are_read_when_a_diagnosis_is_made() -> None:
    """An import costs no file: most processes never make a diagnosis."""
    program = (
        "import sys\n"
        "from flask_wxjsapi._tools import diagnosis\n"
        "assert diagnosis.texts.cache_info().currsize == 0\n"
        "assert 'tomllib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize("url", ["https://shop.example/", f"https://shop.example/?t={TICKET}"])
@pytest.mark.parametrize("ticket", [TICKET, OTHER, ACCESS_TOKEN, "somebody-elses"])
def test_no_ticket_in_any_text(url: str, ticket: str) -> None:
    """What was signed is shown with asterisks in place of the ticket, in the URL too."""
    page = Page("secrets")
    found = page.diagnose(page.sign(url + "#a", ticket), url=url + "#a")
    for secret in (TICKET, OTHER, ACCESS_TOKEN):
        assert secret not in repr(found)
    assert found.signed is None or "jsapi_ticket=***&" in found.signed


def test_nothing_for_the_terminal_in_what_was_signed() -> None:
    """An un-escaped ESC would be obeyed by the terminal it is shown on."""
    page = Page("control")
    page.path += "/%1B%5B2J%0A%E4%B8%AD"
    found = page.diagnose(page.sign(unquote(page.url)))
    assert found.cause == "unescaped"
    assert found.signed is not None
    assert found.signed.isprintable()
    assert "\\x1b[2J\\n中" in found.signed


def test_empty_other_ticket_is_passed_over() -> None:
    """A store without an access token has nothing to try."""
    page = Page("empty")
    found = page.diagnose(page.sign(ticket=""), others={"access_token": ""})
    assert found.cause == "unknown"


def test_same_ticket_under_another_label_is_no_other() -> None:
    """Two places with the right ticket are no mistake."""
    page = Page("same")
    assert page.diagnose(page.sign(), others={"mine": TICKET}).cause == "valid"


# -- what people paste


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"url": "shop.example/p"}, "location.href"),
        ({"url": "/p?a=1"}, "location.href"),
        ({"url": "javascript:alert(1)"}, "location.href"),
        ({"url": "https://"}, "location.href"),
        ({"url": "https://shop.example:99999/"}, "location.href"),
        ({"url": "https://shop.example/\r\nX: y"}, "location.href"),
        ({"url": "https://shop.example/\x00"}, "location.href"),
        ({"url": "https://shop.example/\udc80"}, "location.href"),
        ({"url": "https://shop.example/" + "a" * 10**6}, "location.href"),
        ({"url": ""}, "location.href"),
        ({"signature": "not hex"}, "40 hex digits"),
        ({"signature": ""}, "40 hex digits"),
        ({"signature": "a" * 41}, "40 hex digits"),
        ({"signature": "\u0661" * 40}, "40 hex digits"),
        ({"noncestr": ""}, "nonceStr"),
        ({"noncestr": "a\nb"}, "nonceStr"),
        ({"timestamp": ""}, "timestamp"),
        ({"timestamp": "1" * 10**6}, "timestamp"),
        ({"ticket": ""}, "ticket"),
    ],
)
def test_hostile_input_is_refused(change: dict[str, str], hint: str) -> None:
    """A value that no page has is a ValueError that says what to paste, and quotes nothing."""
    page = Page("hostile")
    with pytest.raises(ValueError, match=hint) as caught:
        page.diagnose(**{"signature": page.sign()} | change)
    assert TICKET not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_space_around_what_was_pasted_is_cut_off() -> None:
    """A terminal's line end does no harm."""
    page = Page("space")
    found = page.diagnose(f" {page.sign()}\n", url=f"  {page.url}\n")
    assert found.cause == "valid"


@settings(deadline=None, max_examples=40)
@given(st.text(st.characters(min_codepoint=33, max_codepoint=0x2FFF), max_size=200))
def test_any_text_is_judged_or_refused(text: str) -> None:
    """Nothing but a diagnosis or a ValueError comes of whatever follows https://."""
    page = Page("any")
    try:
        found = page.diagnose(page.sign(ticket="x"), url=f"https://{text}")
    except ValueError as error:
        refusal = str(error)
    else:
        refusal = "" if found.cause == "unknown" else found.cause
    assert not refusal or "location.href" in refusal


@pytest.mark.parametrize("filler", ["%E4", "/", "&", "&from=", "中", "+", "&amp;", "#", "?"])
def test_work_is_bounded(filler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the URL, no more than some megabytes are hashed."""
    hashed: list[int] = []
    real = hashlib.new

    def counting(name: str, data: bytes, **options: Any) -> Any:
        hashed.append(len(data))
        return real(name, data, **options)

    page = Page("long")
    signature = page.sign(ticket="x")
    monkeypatch.setattr("flask_wxjsapi._tools.diagnosis.hashlib.new", counting)
    url = "https://shop.example/" + (filler * 4000)[:4000]
    assert page.diagnose(signature, url=url).cause == "unknown"
    assert sum(hashed) < 40_000_000
    assert len(hashed) < 8000


def test_the_same_input_gets_the_same_answer() -> None:
    """The order of the tries is fixed, whatever the hash seed."""
    page = Page("twice")
    signature = page.sign(unquote(page.url).replace("https", "http"))
    assert page.diagnose(signature) == page.diagnose(signature)
