"""The sandbox's own page: what it shows, in which language, and its buttons."""

from __future__ import annotations

import pytest
import requests
from werkzeug.test import TestResponse

from flask_wxjsapi.sandbox import embedded
from flask_wxjsapi.sandbox import sandbox as sandbox_module

from .caller import SOON, Caller

OWN = "http://localhost"


def press(caller: Caller, origin: str | None = OWN, **form: str) -> TestResponse:
    headers = {"Origin": origin} if origin else {}
    return caller.http.post("/sandbox/press", data=form, headers=headers)


def shown(caller: Caller, languages: str = "en") -> str:
    return caller.http.get("/sandbox/", headers={"Accept-Language": languages}).text


# -- what it shows


def test_it_says_what_it_is(caller: Caller) -> None:
    """With the counts, and account names that cannot be markup."""
    caller.sandbox.add_account("<script>", "x")
    caller.stable()
    page = shown(caller)
    assert "This is not WeChat" in page
    assert "<tr><td><code>stable_token</code><td>1" in page
    assert "<script>" not in page


def test_it_shows_the_tag(caller: Caller) -> None:
    """One line to paste."""
    tag = "&lt;script src=&#34;http://devbox:8900/sandbox/bridge.js&#34;&gt;&lt;/script&gt;"
    assert tag in caller.http.get("/sandbox/", base_url="http://devbox:8900/").text


def test_it_shows_lives_and_quotas(caller: Caller) -> None:
    """How long token and ticket last, and the calls that are left today."""
    caller.ticket()
    caller.clock.now += 600
    page = shown(caller)
    assert page.count("1 h 50 min") == 2
    assert "9,999</span>" in page
    caller.clock.now += 7200
    assert "1 h 50 min" not in shown(caller)


def test_it_shows_the_latest_calls(caller: Caller) -> None:
    """Each with its outcome, and how long ago."""
    caller.sandbox.fail("45009")
    caller.stable()
    caller.clock.now += 61
    page = shown(caller)
    assert '<b class="bad">45009</b>' in page
    assert "1 min 01 s ago" in page
    assert "1 分 01 秒前" in shown(caller, "zh")


@pytest.mark.parametrize(
    ("spoken", "chosen", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "", "zh-CN"),
        ("zh-TW", "", "zh-CN"),
        ("de, en;q=0.5", "", "en"),
        ("", "", "en"),
        ("zh-CN", "en", "en"),
        ("en", "zh", "zh-CN"),
        ("zh-CN", "<b>", "zh-CN"),
    ],
)
def test_it_speaks_one_language(caller: Caller, spoken: str, chosen: str, language: str) -> None:
    """The browser's, or the one that was switched to; the other one is in the switch alone."""
    headers = {"Accept-Language": spoken}
    page = caller.http.get("/sandbox/", query_string={"lang": chosen}, headers=headers).text
    assert f'<html lang="{language}">' in page
    assert ("微信沙箱" in page) == (language == "zh-CN")
    assert ("WeChat sandbox" in page) == (language == "en")


def test_nothing_from_elsewhere_and_no_script(caller: Caller) -> None:
    """The policy lets in the page's own style alone, and no site put it into a frame."""
    policy = caller.http.get("/sandbox/").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "style-src 'sha256-" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


# -- its buttons


def test_a_fault_waits_for_its_calls(caller: Caller) -> None:
    """The page says what waits, and the calls then fail."""
    assert press(caller, fault="45009", times="2", path="stable_token").status_code == 303
    page = shown(caller)
    assert '<b class="bad">45009</b>' in page
    assert " 2 · <code>stable_token</code>" in page
    outcomes = [caller.stable().get("errcode", 0) for _ in range(3)]
    assert outcomes == [45009, 45009, 0]


def test_a_fault_without_a_number_stays(caller: Caller) -> None:
    """Until somebody ends it."""
    press(caller, fault="-1", times="", path="", app_id="")
    assert "until ended" in shown(caller)
    assert [caller.stable()["errcode"] for _ in range(3)] == [-1] * 3
    press(caller, do="heal")
    assert "access_token" in caller.stable()


def test_kill_the_tokens(caller: Caller) -> None:
    """They are refused from then on."""
    token = caller.stable()["access_token"]
    press(caller, do="revoke")
    assert caller.ticket(token)["errcode"] == 40001


@pytest.mark.parametrize("world", ["same", "living", "dying", "remaining", "new"])
def test_replace_the_ticket(world: str) -> None:
    """What it has signed is invalid, and the next call brings the new one for a whole life."""
    caller = Caller(ticket=world)
    before = caller.ticket()["ticket"]
    signed = caller.sign("http://a/", before)
    assert caller.sandbox.verify(**signed) == "config:ok"
    caller.clock.now += 60
    press(caller, do="replace")
    assert caller.sandbox.verify(**signed) == "config:invalid signature"
    after = caller.ticket()
    assert after["ticket"] != before
    assert after["expires_in"] == 7200
    assert caller.sandbox.verify(**caller.sign("http://a/", after["ticket"])) == "config:ok"


def test_replace_a_ticket_over_http(caller: Caller) -> None:
    """A test in another language does the same."""
    signed = caller.sign("http://a/")
    assert caller.http.post("/sandbox/replace").get_json() == {"ok": True}
    assert caller.sandbox.verify(**signed) == "config:invalid signature"


def test_reset(caller: Caller) -> None:
    """Everything is as at the start."""
    caller.stable()
    press(caller, do="reset")
    assert not caller.sandbox.calls


@pytest.mark.parametrize("origin", [None, "null", "http://elsewhere.example", "http://localhost:1"])
def test_other_sites_press_no_button(caller: Caller, origin: str | None) -> None:
    """A form of another origin is refused."""
    assert press(caller, origin, fault="-1").status_code == 403
    assert "access_token" in caller.stable()


@pytest.mark.parametrize(
    "form", [{}, {"fault": "x"}, {"fault": "-1", "times": "x"}, {"fault": "-1", "app_id": "wx9"}]
)
def test_a_button_that_cannot_be_right(caller: Caller, form: dict[str, str]) -> None:
    """It is a 400 with the reason."""
    answer = press(caller, **form)
    assert answer.status_code == 400
    assert "error" in answer.get_json(force=True)


def test_the_language_stays(caller: Caller) -> None:
    """After a button the page is in the language that was switched to."""
    answer = press(caller, do="heal", lang="zh")
    assert answer.headers["Location"].endswith("/sandbox/?lang=zh#trouble")


# -- where it is


def test_the_log_says_once_where_the_embedded_one_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As soon as a browser comes: a warning, which Flask's server shows without any setting."""
    monkeypatch.setattr(sandbox_module, "_embedded", {})
    with embedded() as sandbox:
        assert not caplog.records
        for _ in range(2):
            requests.get(f"{sandbox.url}/sandbox/bridge.js", timeout=SOON)
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert f"{sandbox.url}/sandbox/" in record.getMessage()
