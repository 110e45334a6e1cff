"""The client over real loopback HTTP: what it sends, what it makes of any answer, what leaks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_wxjsapi import Credential, TransportError, WeChatAPIError, WxJsApiError
from flask_wxjsapi._credential import ACCESS_TOKEN, JSAPI_TICKET
from flask_wxjsapi._upstream.token_provider import TokenProvider
from flask_wxjsapi._upstream.wechat import WeChat
from flask_wxjsapi.errors import REACTIONS
from flask_wxjsapi.sandbox import Sandbox
from tests.conftest import free_port
from tests.wire import (
    APP_ID,
    GOOD_TOKEN,
    SECRET,
    SOON,
    TOKEN,
    Recorder,
    all_text_of,
    assert_harmless,
    failure,
    http,
)

pytestmark = pytest.mark.usefixtures("no_environment", "no_timer_stays")


# -- helpers


@pytest.fixture(scope="module")
def _wechat() -> Iterator[Sandbox]:
    with Sandbox(APP_ID, SECRET).serve() as sandbox:
        yield sandbox


@pytest.fixture
def wechat(_wechat: Sandbox) -> Sandbox:
    """The module's sandbox, as if new."""
    _wechat.reset()
    return _wechat


def client(server: Sandbox | Recorder | str, *, stable: bool = True, **options: Any) -> WeChat:
    url = server if isinstance(server, str) else server.url
    endpoint = "stable_token" if stable else "token"
    return WeChat(url, APP_ID, SECRET, token_endpoint=endpoint, **options)


def fetch_token(wechat: WeChat, timeout: float = SOON, rejected: str | None = None) -> Credential:
    return wechat.fetch(ACCESS_TOKEN, parent=None, rejected=rejected, timeout=timeout)


def fetch_ticket(wechat: WeChat, token: str, timeout: float = SOON) -> Credential:
    return wechat.fetch(JSAPI_TICKET, parent=token, rejected=None, timeout=timeout)


# -- what is sent


def test_stable_token_sends_the_secret_in_the_body(answering: Callable[..., Recorder]) -> None:
    """The secret travels in a JSON body and no URL."""
    server = answering()
    fetch_token(client(server))
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /cgi-bin/stable_token HTTP/1.1\r\n")
    assert SECRET.encode() not in head
    assert b"content-type: application/json" in head.lower()
    assert json.loads(body) == {
        "grant_type": "client_credential",
        "appid": APP_ID,
        "secret": SECRET,
        "force_refresh": False,
    }


def test_legacy_token(answering: Callable[..., Recorder]) -> None:
    """The legacy endpoint takes the login in the query, for it takes it nowhere else."""
    server = answering()
    fetch_token(client(server, stable=False))
    line = server.requests[0].partition(b"\r\n")[0].decode()
    query = f"grant_type=client_credential&appid={APP_ID}&secret={SECRET}"
    assert line == f"GET /cgi-bin/token?{query} HTTP/1.1"


def test_ticket(answering: Callable[..., Recorder]) -> None:
    """A ticket is asked for with the token and the type."""
    server = answering(http({"errcode": 0, "errmsg": "ok", "ticket": "tick", "expires_in": 7200}))
    assert fetch_ticket(client(server), "a+b/c").value == "tick"
    line = server.requests[0].partition(b"\r\n")[0].decode()
    assert line == "GET /cgi-bin/ticket/getticket?access_token=a%2Bb%2Fc&type=jsapi HTTP/1.1"


def test_rejected_token_is_no_reason_to_force(answering: Callable[..., Recorder]) -> None:
    """force_refresh has 20 calls a day and is never used unasked."""
    server = answering()
    fetch_token(client(server), rejected=TOKEN)
    assert json.loads(server.requests[0].partition(b"\r\n\r\n")[2])["force_refresh"] is False
    assert TOKEN.encode() not in server.requests[0]


def test_one_call_a_fetch(wechat: Sandbox) -> None:
    """A fetch is one request, whether it succeeds or fails."""
    fetch_token(client(wechat))
    wechat.fail("500")
    failure(lambda: fetch_token(client(wechat)))
    assert wechat.calls == {"stable_token": 2}


def test_base_url_may_be_a_callable(wechat: Sandbox) -> None:
    """Where the URL is known only when it is needed, a callable gives it."""
    upstream = WeChat(lambda: wechat.url, APP_ID, SECRET)
    assert fetch_token(upstream).value


def test_base_url_with_a_path(answering: Callable[..., Recorder]) -> None:
    """A gateway's prefix stays before WeChat's path."""
    server = answering()
    fetch_token(client(f"{server.url}/wechat"))
    assert server.requests[0].startswith(b"POST /wechat/cgi-bin/stable_token ")


def test_token_and_ticket_of_the_sandbox(wechat: Sandbox) -> None:
    """The two calls in a row bring a ticket that the sandbox signs with."""
    upstream = client(wechat)
    token = fetch_token(upstream)
    ticket = fetch_ticket(upstream, token.value)
    assert ticket.value == fetch_ticket(upstream, token.value).value
    assert wechat.calls == {"stable_token": 1, "getticket": 2}


def test_a_token_needs_no_parent_and_a_ticket_does() -> None:
    """The engine learns from the upstream what to fetch first."""
    upstream = client("http://127.0.0.1")
    assert upstream.parent(ACCESS_TOKEN) is None
    assert upstream.parent(JSAPI_TICKET) == ACCESS_TOKEN


# -- what an answer's life is


def test_issued_at_is_from_before_the_call(answering: Callable[..., Recorder]) -> None:
    """An answer that was long under way does not live longer for it."""
    server = answering()
    upstream = client(server, clock=lambda: 1000.0 + 100 * len(server.requests))
    assert fetch_token(upstream) == Credential(TOKEN, 1000.0, 8200.0)


@pytest.mark.parametrize(
    ("expires_in", "life"),
    [
        ("7200", 7200),
        ('"7200"', 7200),
        ("300", 300),
        ("1", 1),
        ("0.25", 0.25),
        ("0", 0.001),
        ('"0"', 0.001),
        ("7200.5", 7200),
        ("7201", 7200),
        ("1000000000", 7200),
        ("1e300", 7200),
    ],
)
@pytest.mark.parametrize("kind", [ACCESS_TOKEN, JSAPI_TICKET])
def test_life(wechat: Sandbox, kind: str, expires_in: str, life: float) -> None:
    """A life counts in any notation, also where nothing is left, and for two hours at most."""
    upstream = client(wechat, clock=lambda: 1000.0)
    token = fetch_token(upstream).value
    wechat.fail(f"expires:{expires_in}")
    fetched = upstream.fetch(kind, parent=token, rejected=None, timeout=SOON)
    assert (fetched.issued_at, fetched.expires_at) == (1000.0, 1000.0 + life)


BAD_LIVES = ["-1", '"-0.5"', '"soon"', '""', "null", "true", "[7200]", "{}", "NaN", "Infinity"]
BEYOND_A_FLOAT = f"expires:{10**400}"


@pytest.mark.parametrize(
    "fault",
    [f"expires:{life}" for life in BAD_LIVES] + ["expires:1e999", "no-expires", BEYOND_A_FLOAT],
    ids=lambda fault: fault[:20],
)
@pytest.mark.parametrize("kind", [ACCESS_TOKEN, JSAPI_TICKET])
def test_bad_life(wechat: Sandbox, kind: str, fault: str) -> None:
    """An answer without a life that makes sense is none."""
    token = fetch_token(client(wechat)).value
    wechat.fail(fault)
    with pytest.raises(TransportError, match="expires_in") as caught:
        client(wechat).fetch(kind, parent=token, rejected=None, timeout=SOON)
    assert_harmless(caught.value)


@pytest.mark.parametrize(
    "value", ["null", '""', "5", "true", '["x"]', '{"x": 1}', '"a b"', '"a\\n"', '"\\u4e2d"']
)
@pytest.mark.parametrize(
    ("kind", "name"), [(ACCESS_TOKEN, "access_token"), (JSAPI_TICKET, "ticket")]
)
def test_bad_value(wechat: Sandbox, kind: str, name: str, value: str) -> None:
    """An answer whose token or ticket is none is refused, and the field is named."""
    token = fetch_token(client(wechat)).value
    wechat.fail(f"ticket:{value}")
    with pytest.raises(TransportError, match=f"without a usable {name}") as caught:
        client(wechat).fetch(kind, parent=token, rejected=None, timeout=SOON)
    assert_harmless(caught.value)


def test_missing_value(answering: Callable[..., Recorder]) -> None:
    """An answer with a life and nothing that lives is refused."""
    server = answering(http({"expires_in": 7200}))
    with pytest.raises(TransportError, match="without a usable access_token"):
        fetch_token(client(server))


def test_bad_value_is_not_quoted(answering: Callable[..., Recorder]) -> None:
    """Half a token in a wrong answer is still half a token."""
    server = answering(http({"access_token": f"{TOKEN} ", "expires_in": 7200}))
    assert_harmless(failure(lambda: fetch_token(client(server))))


# -- how an answer is read


@pytest.mark.parametrize(
    "content_type", ["application/json; encoding=utf-8", "text/plain", "text/html; charset=gbk", ""]
)
def test_content_type_does_not_matter(
    answering: Callable[..., Recorder], content_type: str
) -> None:
    """WeChat's content type is wrong, so the body is read as UTF-8 JSON whatever it says."""
    server = answering(
        http({"errcode": 40013, "errmsg": "无效的 appid"}, Content_Type=content_type)
    )
    assert fetch_error(server).errmsg == "无效的 appid"


def fetch_error(server: Recorder | Sandbox) -> WeChatAPIError:
    with pytest.raises(WeChatAPIError) as caught:
        fetch_token(client(server))
    assert_harmless(caught.value)
    return caught.value


# -- errcodes


@pytest.mark.parametrize("errcode", [*sorted(REACTIONS), 47001, 99999])
def test_errcode(wechat: Sandbox, errcode: int) -> None:
    """An errcode becomes an error with the number, WeChat's text and advice."""
    wechat.fail(errcode)
    error = fetch_error(wechat)
    assert error.errcode == errcode
    assert error.errmsg
    assert error.advice
    for part in (str(errcode), error.errmsg, error.advice):
        assert part in str(error)


@pytest.mark.parametrize("errcode", [40001, 42001, 45009])
def test_errcode_on_the_ticket_call(wechat: Sandbox, errcode: int) -> None:
    """The ticket call's errors are errors of the same kind."""
    token = fetch_token(client(wechat)).value
    wechat.fail(errcode, path="getticket")
    with pytest.raises(WeChatAPIError) as caught:
        fetch_ticket(client(wechat), token)
    assert caught.value.errcode == errcode
    assert token not in all_text_of(caught.value)


@pytest.mark.parametrize(
    ("errcode", "said"),
    [
        (40125, "WXJSAPI_APP_SECRET"),
        (40013, "WXJSAPI_APP_ID"),
        (40164, "whitelist"),
        (45009, "00:00 Asia/Shanghai"),
        (48001, "verified"),
        (89503, "administrator"),
        (99999, "list of global error codes"),
    ],
)
def test_advice_says_what_to_do(wechat: Sandbox, errcode: int, said: str) -> None:
    """A person who reads the log knows where to go next."""
    wechat.fail(errcode)
    assert said in fetch_error(wechat).advice


def test_ip_that_is_not_whitelisted_is_shown(wechat: Sandbox) -> None:
    """The address to put on the list stands in WeChat's text only."""
    wechat.fail(40164)
    assert "127.0.0.1" in str(fetch_error(wechat))


def test_errcode_as_text(answering: Callable[..., Recorder]) -> None:
    """A number in quotes is a number."""
    error = fetch_error(answering(http({"errcode": "40013", "errmsg": "invalid appid"})))
    assert error.errcode == 40013
    assert isinstance(error.errcode, int)


@pytest.mark.parametrize("errcode", [0, "0", None])
def test_errcode_that_is_none(answering: Callable[..., Recorder], errcode: object) -> None:
    """An errcode of 0 is success, and so is an answer that has no other."""
    answer = {"errcode": errcode, "errmsg": "ok", "access_token": TOKEN, "expires_in": 7200}
    assert fetch_token(client(answering(http(answer)))).value == TOKEN


@pytest.mark.parametrize("errcode", ["", "x", True, [40013], {}, 1e999])
def test_errcode_of_a_wrong_type(answering: Callable[..., Recorder], errcode: object) -> None:
    """An error object that is not WeChat's is an error of ours all the same."""
    server = answering(http({"errcode": errcode, "errmsg": "x"}))
    assert_harmless(failure(lambda: fetch_token(client(server))))


def test_request_id_and_hint_stay_in_the_text(answering: Callable[..., Recorder]) -> None:
    """What WeChat appends is what its support asks for."""
    errmsg = "invalid appid rid: 65a1-2b3c-4d5e, hint: [x]"
    assert fetch_error(answering(http({"errcode": 40013, "errmsg": errmsg}))).errmsg == errmsg


@pytest.mark.parametrize(
    ("errmsg", "cleaned"),
    [
        ("a\r\nb\tc", "a b c"),
        ("  a  ", "a"),
        ("a\x1b[31mb\x00c\x7f", "a[31mbc"),
        ("a\u202eb\u200bc", "abc"),
        ("x" * 1000, "x" * 200),
        (["a"], "['a']"),
        (5, "5"),
    ],
)
def test_errmsg_is_cleaned(
    answering: Callable[..., Recorder], errmsg: object, cleaned: str
) -> None:
    """WeChat's text is kept to one short line that a terminal can show."""
    assert fetch_error(answering(http({"errcode": 40013, "errmsg": errmsg}))).errmsg == cleaned


@pytest.mark.parametrize(
    "errmsg", ["{0}", "invalid {0} rid: x", "{0}{0}", ["{0}"], {"a": "{0}"}, "x" * 190 + "{0}"]
)
def test_errmsg_that_echoes_the_secret(answering: Callable[..., Recorder], errmsg: object) -> None:
    """A gateway that repeats what it was sent does not get our secret into a log."""
    echoed = json.loads(json.dumps(errmsg).replace("{0}", SECRET))
    error = fetch_error(answering(http({"errcode": 40125, "errmsg": echoed})))
    assert SECRET[:10] not in str(error)
    assert "***" in str(error)


def test_errmsg_that_echoes_the_token(answering: Callable[..., Recorder]) -> None:
    """Nor does one that repeats the token."""
    server = answering(http({"errcode": 40001, "errmsg": f"access_token {TOKEN} is invalid"}))
    with pytest.raises(WeChatAPIError, match=r"access_token \*\*\* is invalid") as caught:
        fetch_ticket(client(server), TOKEN)
    assert_harmless(caught.value)


# -- answers that are not WeChat's

BROKEN = {
    "500": "HTTP 500",
    "502": "HTTP 502",
    "503": "HTTP 503",
    "404": "HTTP 404",
    "http 429": "HTTP 429",
    "garbage": "not WeChat's JSON",
    "html": "not WeChat's JSON",
    "empty": "not WeChat's JSON",
    "list": "not WeChat's JSON",
    "nulls": "without a usable",
    "half": "was not reached",
    "close": "was not reached",
    "redirect": "HTTP 302",
}


@pytest.mark.parametrize(("fault", "said"), BROKEN.items())
@pytest.mark.parametrize("kind", [ACCESS_TOKEN, JSAPI_TICKET])
@pytest.mark.parametrize("stable", [True, False])
def test_broken_answer(
    wechat: Sandbox, debug_log: list[str], stable: bool, kind: str, fault: str, said: str
) -> None:
    """Whatever answers instead of WeChat is a TransportError, with no secret in it or the log."""
    wechat.fail(fault)
    with pytest.raises(TransportError, match=said) as caught:
        client(wechat, stable=stable).fetch(kind, parent=TOKEN, rejected=None, timeout=SOON)
    assert_harmless(caught.value)
    assert SECRET not in "".join(debug_log)
    assert TOKEN not in "".join(debug_log)


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b'"ok"',
        b"7200",
        b"{",
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"expires_in": ' + b"9" * 5000 + b"}",
        b"x" * 200_000,
        b" " * 200_000 + GOOD_TOKEN,
    ],
    ids=lambda body: f"{body[:8]!r}",
)
def test_body_that_is_no_object(answering: Callable[..., Recorder], body: bytes) -> None:
    """Other JSON, broken JSON and far too much JSON are no answers."""
    error = failure(lambda: fetch_token(client(answering(http(body)))))
    assert isinstance(error, TransportError)
    assert_harmless(error)


@pytest.mark.parametrize(
    "reply", [b"HTTP/1.1 200\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"], ids=["200", "204"]
)
def test_answer_without_a_body(answering: Callable[..., Recorder], reply: bytes) -> None:
    """An answer that says nothing is none."""
    error = failure(lambda: fetch_token(client(answering(reply), stable=False)))
    assert isinstance(error, TransportError)
    assert_harmless(error)


def test_error_names_the_host(wechat: Sandbox) -> None:
    """Who answered is half of the diagnosis."""
    wechat.fail("502")
    error = failure(lambda: fetch_token(client(wechat)))
    assert wechat.url.removeprefix("http://") in str(error)


# -- what shows


@pytest.mark.parametrize("stable", [True, False])
def test_nothing_leaks_from_a_success(wechat: Sandbox, debug_log: list[str], stable: bool) -> None:
    """Every logger at DEBUG says nothing that one could use."""
    upstream = client(wechat, stable=stable)
    token = fetch_token(upstream)
    ticket = fetch_ticket(upstream, token.value)
    lines = "\n".join(debug_log)
    assert "/cgi-bin/ticket/getticket" in lines  # urllib3 does talk
    for secret in (SECRET, token.value, ticket.value):
        assert secret not in lines


# -- the user's own token provider


class Elsewhere:
    """An upstream that only notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, str | None, float]] = []

    def parent(self, kind: str) -> str | None:
        return f"parent of {kind}"

    def fetch(
        self, kind: str, *, parent: str | None, rejected: str | None, timeout: float
    ) -> Credential:
        self.asked.append((kind, parent, rejected, timeout))
        return Credential("of-the-upstream", 0, 7200)


def provided(provider: Callable[[str | None], Any], rejected: str | None = None) -> Credential:
    upstream = TokenProvider(Elsewhere(), provider)
    return upstream.fetch(ACCESS_TOKEN, parent=None, rejected=rejected, timeout=SOON)


def test_provider_gives_the_token() -> None:
    """The credential is the provider's own."""
    credential = Credential(TOKEN, 1000.0, 8200.0)
    assert provided(lambda rejected: credential) is credential


@pytest.mark.parametrize("rejected", [None, TOKEN])
def test_provider_is_told_what_was_rejected(rejected: str | None) -> None:
    """After a 40001 the provider must not give the same token from its cache."""
    told: list[str | None] = []

    def provider(rejected: str | None) -> Credential:
        told.append(rejected)
        return Credential(TOKEN, 1000.0, 8200.0)

    provided(provider, rejected)
    assert told == [rejected]


def test_provider_is_not_asked_for_tickets() -> None:
    """Everything but the token comes from the upstream, as does what needs a token."""

    def provider(rejected: str | None) -> Credential:
        raise AssertionError("asked for a ticket")

    upstream = Elsewhere()
    both = TokenProvider(upstream, provider)
    fetched = both.fetch(JSAPI_TICKET, parent=TOKEN, rejected="x", timeout=3.0)
    assert fetched.value == "of-the-upstream"
    assert upstream.asked == [(JSAPI_TICKET, TOKEN, "x", 3.0)]
    assert both.parent(JSAPI_TICKET) == f"parent of {JSAPI_TICKET}"


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, KeyError, OSError, AssertionError])
def test_provider_that_raises(kind: type[Exception]) -> None:
    """An exception of the provider's is one of ours: its class and line, not its text."""

    def provider(rejected: str | None) -> Credential:
        raise kind(f"cannot reach redis://user:{SECRET}@host, token was {TOKEN}")

    error = failure(lambda: provided(provider))
    assert isinstance(error, TransportError)
    for part in ("WXJSAPI_ACCESS_TOKEN_PROVIDER", kind.__name__, "test_client.py", "in provider"):
        assert part in str(error)
    assert error.__cause__ is None
    assert error.__context__ is None
    assert SECRET not in f"{error!r}{error}{error.args}"


@pytest.mark.parametrize(
    ("returned", "name"),
    [
        (None, "NoneType"),
        (TOKEN, "str"),
        ({"access_token": TOKEN}, "dict"),
        ((TOKEN, 7200), "tuple"),
    ],
)
def test_provider_that_returns_something_else(returned: object, name: str) -> None:
    """Anything but a Credential is an error that names its type and not its value."""
    error = failure(lambda: provided(lambda rejected: returned))
    assert isinstance(error, TransportError)
    assert f"returned {name}, not a Credential" in str(error)
    assert_harmless(error)


@pytest.mark.parametrize(
    "raised",
    [WeChatAPIError(40125, "invalid appsecret"), TransportError("no"), WxJsApiError("no")],
    ids=lambda error: type(error).__name__,
)
def test_provider_that_raises_an_error_of_ours(raised: WxJsApiError) -> None:
    """A provider that knows what happened says it, and it is passed on as it is."""

    def provider(rejected: str | None) -> Credential:
        raise raised

    assert failure(lambda: provided(provider)) is raised


def test_provider_that_is_interrupted() -> None:
    """Ctrl-C is nobody's transport error."""

    def provider(rejected: str | None) -> Credential:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        provided(provider)


# -- what the doctor asks for


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_ask_carries_token_and_body(answering: Callable[..., Recorder], method: str) -> None:
    """Any call that needs a token; the answer comes back as it is."""
    server = answering(http({"errcode": 0, "n": 1}))
    body = {"cgi_path": "/x"} if method == "POST" else None
    assert client(server).ask(method, "/cgi-bin/x", TOKEN, SOON, body) == {"errcode": 0, "n": 1}
    (request,) = server.requests
    assert request.startswith(f"{method} /cgi-bin/x?access_token={TOKEN} ".encode())
    assert request.endswith(b'{"cgi_path": "/x"}' if body else b"\r\n\r\n")


def test_ask_fails_like_any_call(wechat: Sandbox, debug_log: list[str]) -> None:
    """With the errcode and its advice, and with the token nowhere."""
    error = failure(lambda: client(wechat).ask("GET", "/cgi-bin/get_api_domain_ip", TOKEN, SOON))
    assert isinstance(error, WeChatAPIError)
    assert error.errcode == 40014
    assert TOKEN not in f"{error!r} {error}" + "".join(debug_log)


@pytest.mark.parametrize("status", ["200 OK", "502 Bad Gateway"])
def test_date_is_any_answers(answering: Callable[..., Recorder], status: str) -> None:
    """The header is there whatever else the answer says, and no token is sent for it."""
    stamp = "Sun, 22 Nov 2026 16:00:00 GMT"
    server = answering(http(b"<html>", status, Date=stamp))
    assert client(server).date(SOON) == stamp
    assert b"access_token" not in server.requests[0]


def test_date_that_is_not_there(answering: Callable[..., Recorder]) -> None:
    """Then it is empty."""
    assert client(answering(http({}))).date(SOON) == ""


def test_date_of_nobody() -> None:
    """The reason is named, as for every call."""
    error = failure(lambda: client(f"http://127.0.0.1:{free_port()}").date(SOON))
    assert isinstance(error, TransportError)
    assert "Connection refused" in str(error)
