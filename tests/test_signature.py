"""The signature of ``wx.config``: official vectors and an independent computation."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import traceback
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_wxjsapi import sign, sign_card
from flask_wxjsapi._signature import sign_page

# Appendix 1 of the JS-SDK documentation.
TICKET = "sM4AOVdWfPE4DxkXGEs8VMCPGGVi4C3VM0P37wVUCFvkVAy_90u5h9nbSlYy3-Sl-HhTdfl2fzFy1AOcHKP7qg"
NONCE = "Wm3WZYTPz0wzccnW"
TIMESTAMP = 1414587457
URL = "http://mp.weixin.qq.com?params=value"
SIGNATURE = "0f9de62fce790f9a083d5c99e95740ceb90c27ed"

unhurried = settings(deadline=None)  # a busy machine is no failure


def by_hand(*parts: str) -> str:
    """SHA-1 over the bytes of the four values, put together without a format string."""
    digest = hashlib.new("sha1")
    for name, value in zip(("jsapi_ticket", "noncestr", "timestamp", "url"), parts, strict=True):
        digest.update(b"" if name == "jsapi_ticket" else b"&")
        digest.update(name.encode("ascii") + b"=" + value.encode("utf-8"))
    return digest.hexdigest()


def test_official_vector() -> None:
    """The example in WeChat's documentation comes out."""
    assert sign(ticket=TICKET, noncestr=NONCE, timestamp=TIMESTAMP, url=URL) == SIGNATURE


def test_timestamp_may_be_text() -> None:
    """A timestamp as text signs like the number."""
    assert sign(ticket=TICKET, noncestr=NONCE, timestamp=str(TIMESTAMP), url=URL) == SIGNATURE


def test_url_in_chinese_is_signed_as_utf8() -> None:
    """Text outside ASCII is signed as UTF-8; the digest comes from sha1sum."""
    url = "http://例子.测试/中文?名=值"
    assert sign(ticket="t", noncestr="n", timestamp=1, url=url) == (
        "a6f060475a08ec42a37e981f5f3dc7d2c4481ee2"
    )


def test_emoji_is_signed_as_utf8() -> None:
    """A character beyond the basic plane is four bytes and no surrogates."""
    signature = sign(ticket="t", noncestr="n", timestamp=1, url="http://a/😀")
    expected = hashlib.sha1(b"jsapi_ticket=t&noncestr=n&timestamp=1&url=http://a/\xf0\x9f\x98\x80")
    assert signature == expected.hexdigest()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://a/%E4%B8%AD", "http://a/中"),
        ("http://a/%7Ex", "http://a/~x"),
        ("http://a/%2f", "http://a/%2F"),
        ("http://a/?", "http://a/"),
        ("http://a/é", "http://a/e\u0301"),
        ("http://a", "http://a/"),
        ("http://A/", "http://a/"),
        ("http://a/?x=1 ", "http://a/?x=1"),
    ],
)
def test_url_is_not_normalised(one: str, other: str) -> None:
    """Two spellings of one URL have two signatures: WeChat compares bytes."""
    signatures = {sign(ticket="t", noncestr="n", timestamp=1, url=url) for url in (one, other)}
    assert len(signatures) == 2


@unhurried
@given(ticket=st.text(), noncestr=st.text(), timestamp=st.integers(), url=st.text())
def test_like_a_computation_of_its_own(
    ticket: str, noncestr: str, timestamp: int, url: str
) -> None:
    """Any values give what a computation that shares no code with it gives."""
    signature = sign(ticket=ticket, noncestr=noncestr, timestamp=timestamp, url=url)
    assert signature == by_hand(ticket, noncestr, str(timestamp), url)


def test_values_go_in_unescaped() -> None:
    """An ampersand or a percent sign in a value is not escaped before it is hashed."""
    url = "http://a/?x=1&y=%26#z"
    expected = by_hand("t&t", "n=n", "1", url)
    assert sign(ticket="t&t", noncestr="n=n", timestamp=1, url=url) == expected


def test_forty_lower_case_digits() -> None:
    """The digest is hexadecimal in lower case, as the phone compares it."""
    signature = sign(ticket="t", noncestr="n", timestamp=1, url="http://a/")
    assert len(signature) == 40
    assert set(signature) <= set("0123456789abcdef")


def test_keyword_only() -> None:
    """Four strings in a row would be mixed up, so all are keywords and none has a default."""
    parameters = inspect.signature(sign).parameters.values()
    assert {parameter.name for parameter in parameters} == {
        "ticket",
        "noncestr",
        "timestamp",
        "url",
    }
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters)
    assert all(parameter.default is parameter.empty for parameter in parameters)


def test_positional_arguments_are_a_type_error() -> None:
    """What is not named is not taken."""
    with pytest.raises(TypeError, match="positional"):
        sign(TICKET, NONCE, TIMESTAMP, URL)  # type: ignore[call-arg]


def test_same_arguments_same_digest() -> None:
    """A call between two others changes nothing: there is no state."""
    first = sign(ticket=TICKET, noncestr=NONCE, timestamp=TIMESTAMP, url=URL)
    sign(ticket="another", noncestr="call", timestamp=0, url="http://between/")
    assert sign(ticket=TICKET, noncestr=NONCE, timestamp=TIMESTAMP, url=URL) == first


def test_pure() -> None:
    """The function can reach nothing but SHA-1: no clock, no random number, no configuration."""
    for function, needed in ((sign, {"sign_page", "_HALF"}), (sign_page, {"_SHA1"})):
        reached = inspect.getclosurevars(function)
        assert set(reached.globals) == needed
        assert reached.nonlocals == {}
        assert set(reached.builtins) <= {"UnicodeEncodeError", "RuntimeError"}


# -- cards -----------------------------------------------------------------------------------------

# The documentation of the JS-SDK has these values and this signature.
CARD_VALUES = [
    "1231404896", "6881434008071", "ojZ8YtyVyr30HheH3CM73y7h4jJE", "pjZ8Yt1XGILfi-FUsewpnnolGgZk",
]  # fmt: skip
CARD_SIGNATURE = "f137ab68b7f8112d20ee528ab6074564e2796250"


@pytest.mark.parametrize("values", list(itertools.permutations(CARD_VALUES)))
def test_card_vector_in_any_order(values: tuple[str, ...]) -> None:
    """Sorting is part of the signature, so that a caller need not know the order."""
    assert sign_card(values) == CARD_SIGNATURE


def test_card_values_may_be_numbers() -> None:
    """A timestamp is one in Python; it is sorted as text: 1231404896 before 6881434008071."""
    assert sign_card([6881434008071, 1231404896, *CARD_VALUES[2:]]) == CARD_SIGNATURE


def test_card_values_are_sorted_as_text() -> None:
    """10 stands before 9, capitals before small letters."""
    assert sign_card([9, 10, "b", "B", ""]) == hashlib.sha1(b"109Bb").hexdigest()


@pytest.mark.parametrize(
    "call",
    [
        lambda: sign(ticket=TICKET, noncestr=NONCE, timestamp=TIMESTAMP, url="http://a/\ud83d"),
        lambda: sign_card([TICKET, "\ud83d"]),
    ],
    ids=["sign", "sign_card"],
)
def test_what_cannot_be_encoded_is_not_quoted(call: Callable[[], str]) -> None:
    """Python's own error has the ticket in its arguments, and its frames do."""
    with pytest.raises(RuntimeError, match="half of a surrogate pair") as caught:
        call()
    error = caught.value
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames = [frame for frame in shown.stack if frame.filename.endswith("_signature.py")]
    assert frames
    assert TICKET not in repr([error.args, [frame.locals for frame in frames]])
    assert error.__context__ is None
