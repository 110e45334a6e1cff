"""What can be made to fail, and how it reaches the caller."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest
import requests

from flask_wxjsapi.sandbox import Sandbox, faults

from .caller import SOON, STABLE, TICKET, TOKEN, Caller, answer, fetch, in_background, until


@pytest.mark.parametrize("fault", ["-1", 45009, "45011", "40001", "48001", "99999"])
def test_errcode_faults(caller: Caller, fault: str | int) -> None:
    """Any errcode can be answered, once by default."""
    caller.sandbox.fail(fault)
    assert caller.stable()["errcode"] == int(fault)
    assert "access_token" in caller.stable()


def test_an_errcode_fault_names_the_ip(caller: Caller) -> None:
    """40164 is worded as the real one."""
    caller.sandbox.fail("40164")
    assert "invalid ip 127.0.0.1" in caller.stable()["errmsg"]


@pytest.mark.parametrize(
    ("fault", "status"),
    [("500", 500), (502, 502), ("503", 503), ("404", 404), ("http 500", 500), ("http 429", 429)],
)
def test_http_faults(caller: Caller, fault: str | int, status: int) -> None:
    """A broken gateway answers HTML."""
    caller.sandbox.fail(fault)
    response = caller.http.get(TOKEN)
    assert response.status_code == status
    assert response.mimetype == "text/html"
    assert b"nginx" in response.data


@pytest.mark.parametrize(
    ("fault", "body"),
    [
        ("empty", b""),
        ("nulls", b'{"access_token": null, "ticket": null, "expires_in": null}'),
        ("list", b"[]"),
    ],
)
def test_body_faults(caller: Caller, fault: str, body: bytes) -> None:
    """The answer is a success with the wrong body."""
    caller.sandbox.fail(fault)
    response = caller.http.get(TOKEN)
    assert (response.status_code, response.data) == (200, body)


def test_garbage_is_not_text(caller: Caller) -> None:
    """Random bytes that are surely no UTF-8."""
    caller.sandbox.fail("garbage")
    with pytest.raises(UnicodeDecodeError):
        caller.http.get(TOKEN).data.decode()


def test_html_is_a_page(caller: Caller) -> None:
    """A captive portal answers 200."""
    caller.sandbox.fail("html")
    response = caller.http.get(TOKEN)
    assert (response.status_code, response.mimetype) == (200, "text/html")


def test_redirect_leads_elsewhere(caller: Caller) -> None:
    """The target is another host, and one that never exists."""
    caller.sandbox.fail("redirect")
    response = caller.http.get(TOKEN)
    assert response.status_code == 302
    assert ".invalid/" in response.headers["Location"]


@pytest.mark.parametrize(
    ("fault", "value"),
    [
        ("expires:0", 0),
        ("expires:-1", -1),
        ('expires:"7200"', "7200"),
        ("expires:1e30", 1e30),
        ("expires:null", None),
        ("expires:true", True),
    ],
)
def test_expires_faults(caller: Caller, fault: str, value: object) -> None:
    """The answer is right but for its life."""
    caller.sandbox.fail(fault, times=2)
    token, ticket = caller.stable(), caller.ticket()
    assert token["expires_in"] is value or token["expires_in"] == value
    assert len(token["access_token"]) >= 136
    assert "ticket" in ticket


def test_no_expires(caller: Caller) -> None:
    """The answer is right but has no life."""
    caller.sandbox.fail("no-expires")
    assert caller.stable().keys() == {"access_token"}


@pytest.mark.parametrize(("fault", "value"), [("ticket:123", 123), ('ticket:""', "")])
def test_ticket_faults(caller: Caller, fault: str, value: object) -> None:
    """The value itself is replaced, be it a token or a ticket."""
    token = caller.stable()["access_token"]
    caller.sandbox.fail(fault, times=2)
    assert caller.stable()["access_token"] == value
    payload = caller.ticket(token)
    assert (payload["ticket"], payload["expires_in"]) == (value, 7200)


@pytest.mark.parametrize(
    "fault", ["hnag", "", "expires:", "expires:x", "slow:x", "slow:-1", "slow:inf", "True", "1.5"]
)
def test_unknown_faults_are_errors(caller: Caller, fault: str) -> None:
    """The message lists what there is."""
    with pytest.raises(ValueError, match="'drip-headers'"):
        caller.sandbox.fail(fault)


@pytest.mark.parametrize("times", [0, -1, True, "2", 1.0])
def test_times_is_a_positive_number(caller: Caller, times: Any) -> None:
    """Anything else would be a fault that never ends or never comes."""
    with pytest.raises(ValueError, match="times is a positive number"):
        caller.sandbox.fail("500", times=times)


def test_faults_come_in_order_and_as_often_as_told(caller: Caller) -> None:
    """The queue is first in, first out."""
    caller.sandbox.fail(45009, times=2)
    caller.sandbox.fail(-1)
    assert [caller.stable().get("errcode") for _ in range(4)] == [45009, 45009, -1, None]


def test_a_fault_without_times_lasts_until_heal(caller: Caller) -> None:
    """times=None is an outage."""
    caller.sandbox.fail(-1, times=None)
    assert {caller.stable()["errcode"] for _ in range(5)} == {-1}
    caller.sandbox.heal()
    assert "access_token" in caller.stable()


@pytest.mark.parametrize("path", [TICKET, "getticket"])
def test_a_fault_can_be_meant_for_one_endpoint(caller: Caller, path: str) -> None:
    """Calls to other endpoints leave it in the queue."""
    caller.sandbox.fail(45009, path=path)
    assert "access_token" in caller.stable()
    assert caller.ticket()["errcode"] == 45009


def test_a_fault_for_an_unknown_endpoint_is_an_error(caller: Caller) -> None:
    """It would never be played."""
    with pytest.raises(ValueError, match="getticket"):
        caller.sandbox.fail(45009, path="/cgi-bin/getticket")


def test_a_fault_can_be_meant_for_one_account(caller: Caller) -> None:
    """By any of its calls, whether they name it or bring its token; others are not harmed."""
    caller.sandbox.add_account("wx2", "second")
    tokens = [caller.stable()["access_token"]]
    tokens.append(caller.stable(appid="wx2", secret="second")["access_token"])
    caller.sandbox.fail(-1, times=None, app_id="wx2")
    assert "access_token" in caller.stable()
    assert "access_token" in caller.legacy()
    assert caller.ticket(tokens[0])["errcode"] == 0
    assert caller.stable(appid="wx2", secret="second")["errcode"] == -1
    assert caller.legacy(appid="wx2", secret="second")["errcode"] == -1
    assert caller.ticket(tokens[1])["errcode"] == -1


def test_one_account_hangs_and_another_does_not(caller: Caller) -> None:
    """A platform has many, and WeChat is slow for one of them."""
    caller.sandbox.add_account("wx2", "second")
    caller.sandbox.fail("hang", app_id="wx2")
    thread = in_background(lambda: caller.stable(appid="wx2", secret="second"))
    until(lambda: caller.sandbox.calls["stable_token"])
    assert "access_token" in caller.stable()
    assert thread.is_alive()
    caller.sandbox.heal()
    thread.join(SOON)
    assert not thread.is_alive()


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"appid": {"a": 1}}'])
def test_a_call_of_nobody_meets_no_fault_of_an_account(caller: Caller, data: bytes) -> None:
    """It is refused for what it is."""
    caller.sandbox.fail(-1, times=None, app_id=caller.sandbox.app_id)
    assert answer(caller.http.post(STABLE, data=data))["errcode"] > 0
    assert caller.ticket("made-up")["errcode"] == 40014


def test_a_fault_for_an_unknown_account_is_an_error(caller: Caller) -> None:
    """It would never be played."""
    with pytest.raises(ValueError, match="no account 'wx9'"):
        caller.sandbox.fail(45009, app_id="wx9")


@pytest.mark.parametrize("fault", ["hang", "slow:60"])
def test_waiting_calls_are_answered_on_heal(caller: Caller, fault: str) -> None:
    """The answer is right, only late."""
    caller.sandbox.fail(fault)
    answers: list[dict[str, Any]] = []
    thread = in_background(lambda: answers.append(caller.stable()))
    until(lambda: caller.sandbox.calls["stable_token"])
    assert "access_token" in caller.stable()  # the others are not held up
    assert not answers
    caller.sandbox.heal()
    thread.join(SOON)
    assert "access_token" in answers[0]


def test_a_fault_after_heal_waits_again(caller: Caller) -> None:
    """heal() lets go those who wait then, not those who come later."""
    caller.sandbox.heal()
    caller.sandbox.fail("slow:0.05")
    start = time.monotonic()
    caller.stable()
    assert time.monotonic() - start >= 0.05


def test_delay_makes_every_call_wait() -> None:
    """Faults wait as well, and the lock is free meanwhile."""
    caller = Caller(delay=2 * SOON)
    caller.sandbox.fail(-1)
    threads = [in_background(caller.stable) for _ in range(10)]
    until(lambda: caller.sandbox.calls["stable_token"] == 10)  # so none waits for another
    assert all(thread.is_alive() for thread in threads)
    caller.sandbox.heal()
    for thread in threads:
        thread.join(SOON)
    assert not any(thread.is_alive() for thread in threads)


def test_a_slow_call_takes_five_seconds() -> None:
    """Where nobody says how many."""
    assert faults.Fault.parse("slow", 1, None, None).pause == 5


def test_slow_takes_its_seconds(caller: Caller) -> None:
    """slow:SECONDS is a delay of one call."""
    caller.sandbox.fail("slow:0.05")
    start = time.monotonic()
    assert "access_token" in caller.stable()
    assert time.monotonic() - start >= 0.05


def test_close_is_a_connection_without_an_answer(served: Sandbox) -> None:
    """Not one byte comes."""
    served.fail("close")
    with pytest.raises(requests.ConnectionError):
        fetch(served)
    assert fetch(served).status_code == 200


def test_half_is_less_than_promised(served: Sandbox) -> None:
    """The connection ends before the announced length."""
    served.fail("half")
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        fetch(served)


def test_drip_defeats_a_read_timeout(served: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, the whole takes long; the answer is right in the end."""
    monkeypatch.setattr(faults, "_DRIP_INTERVAL", 0.006)
    assert [*faults._drip(b"abc", threading.Event())] == [b"", b"a", b"b", b"c"]
    served.fail("drip")
    start = time.monotonic()
    response = fetch(served)
    assert time.monotonic() - start > 1
    assert response.json()["expires_in"] == 7200


def test_drip_sends_the_headers_at_once(served: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the body drips, and after heal() the rest of it comes."""
    monkeypatch.setattr(faults, "_DRIP_INTERVAL", 30)
    served.fail("drip")
    response = requests.get(served.url + TICKET, stream=True, timeout=SOON)
    served.heal()
    assert response.json()["errcode"] == 41001


def test_drip_headers_never_come_to_an_end(served: Sandbox) -> None:
    """The header goes on until heal(), and then there is no answer."""
    served.fail("drip-headers")
    with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as caller:
        caller.settimeout(SOON)
        caller.sendall(b"GET /cgi-bin/token HTTP/1.1\r\nHost: x\r\n\r\n")
        assert caller.recv(1) == b"H"
        assert caller.recv(1) == b"T"
        served.heal()
        rest = b"".join(iter(lambda: caller.recv(1000), b""))
    head = "HTTP/1.1 200 OK\r\nX-Endless: " + 300 * "a"
    assert head.startswith("HT" + rest.decode())


@pytest.mark.parametrize("fault", ["close", "drip-headers"])
def test_socket_faults_without_a_socket_are_connection_errors(caller: Caller, fault: str) -> None:
    """In-process callers get the exception a broken connection would give."""
    caller.sandbox.fail(fault)
    with pytest.raises(ConnectionError):
        caller.stable()
