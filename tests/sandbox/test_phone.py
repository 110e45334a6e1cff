"""What the phone says to a signature, and the script that makes a browser be one."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from flask_wxjsapi.sandbox import Sandbox

from .caller import Caller


def test_the_phone_accepts_a_right_signature(caller: Caller) -> None:
    """The timestamp may be a number or its digits."""
    signed = caller.sign("https://example.com/a?b=c")
    assert caller.sandbox.verify(**signed) == "config:ok"
    assert caller.sandbox.verify(**{**signed, "timestamp": "1414587457"}) == "config:ok"


def test_the_phone_agrees_with_the_official_vector(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example of the documentation is judged as documented."""
    ticket = (
        "sM4AOVdWfPE4DxkXGEs8VMCPGGVi4C3VM0P37wVUCFvkVAy_90u5h9nbSlYy3-Sl-HhTdfl2fzFy1AOcHKP7qg"
    )
    token = caller.stable()["access_token"]
    monkeypatch.setattr("secrets.token_urlsafe", lambda _: ticket)
    caller.ticket(token)
    verdict = caller.sandbox.verify(
        appId=caller.sandbox.app_id,
        nonceStr="Wm3WZYTPz0wzccnW",
        timestamp=1414587457,
        signature="0f9de62fce790f9a083d5c99e95740ceb90c27ed",
        url="http://mp.weixin.qq.com?params=value#hash",
    )
    assert verdict == "config:ok"


@pytest.mark.parametrize(
    "change",
    [
        {"nonceStr": "other"},
        {"timestamp": 1},
        {"signature": ""},
        {"url": "https://example.com/a?b=c&from=timeline"},
        {"url": "https://example.com/%61?b=c"},
    ],
)
def test_the_phone_refuses_what_was_not_signed(caller: Caller, change: dict[str, Any]) -> None:
    """Any difference between the page and what was signed is an invalid signature."""
    signed = caller.sign("https://example.com/a?b=c")
    assert caller.sandbox.verify(**{**signed, **change}) == "config:invalid signature"


def test_the_phone_cuts_the_hash(caller: Caller) -> None:
    """The browser's address may have a fragment, the signed one has not."""
    signed = caller.sign("https://example.com/a")
    assert caller.sandbox.verify(**{**signed, "url": signed["url"] + "#/b#c"}) == "config:ok"
    signed = caller.sign("https://example.com/a#b")
    assert caller.sandbox.verify(**signed) == "config:invalid signature"


def test_the_phone_does_not_know_the_account(caller: Caller) -> None:
    """An unknown appId is a failure of its own."""
    assert caller.sandbox.verify(**caller.sign("http://a/", appId="wx9")) == "config:fail"


@pytest.mark.parametrize(
    ("url", "accepted"),
    [
        ("https://shop.example/a", True),
        ("http://SHOP.example:8080/a", True),
        ("https://www.wide.example/", True),
        ("https://wide.example/", True),
        ("https://www.shop.example/", False),
        ("https://notwide.example/", False),
        ("https://elsewhere.example/?shop.example", False),
        ("http://[broken", False),
        ("nonsense", False),
    ],
)
def test_the_phone_knows_the_safe_domains(url: str, accepted: bool) -> None:
    """A page elsewhere is refused whatever its signature."""
    caller = Caller(domains=["shop.example", ".wide.example"])
    expected = "config:ok" if accepted else "config:invalid url domain"
    assert caller.sandbox.verify(**caller.sign(url)) == expected


# -- in a browser


def test_the_script_knows_where_the_sandbox_is(served: Sandbox) -> None:
    """It ends with a line of its own, since another script's text may follow."""
    text = served.bridge_script()
    assert f'"{served.url}"' in text
    assert "__SANDBOX_URL__" not in text
    assert text.endswith(";\n")
    assert "</script" not in text.lower()


def test_no_script_without_an_address() -> None:
    """There is nobody whom it could ask."""
    with pytest.raises(RuntimeError, match=r"serve\(\)"):
        Sandbox().bridge_script()


def test_the_script_over_http(caller: Caller) -> None:
    """Any page may include it, as the address that the browser has for the sandbox."""
    response = caller.http.get("/sandbox/bridge.js", base_url="http://devbox:8900/")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert '"http://devbox:8900"' in response.text
    assert not caller.sandbox.calls


@pytest.mark.parametrize("host", ['x";alert(1);"', "</script><script>", "a b", ""])
def test_a_host_stays_a_string(caller: Caller, host: str) -> None:
    """Whatever a Host header says, the script is the same but for one string."""
    text = caller.http.get("/sandbox/bridge.js", headers={"Host": host}).text
    literal = re.search(r"const SANDBOX = (.*);\n", text)
    assert literal
    assert isinstance(json.loads(literal[1]), str)
    assert "</script" not in text


@pytest.mark.parametrize("late", ["-1", "soon", "1e3", "100000", ""])
def test_how_late_the_bridge_is(caller: Caller, late: str) -> None:
    """It is a number of milliseconds, and nothing else gets into the script."""
    response = caller.http.get("/sandbox/bridge.js", query_string={"late": late})
    assert response.status_code == 400
    assert "milliseconds" in response.text
    assert 'LATE = "300"' in caller.http.get("/sandbox/bridge.js?late=300").text
