"""The sandbox in Python, over HTTP and on a port."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Iterator
from contextlib import redirect_stderr

import pytest
import requests
from werkzeug.test import Client

from flask_wxjsapi.sandbox import Sandbox, embedded
from flask_wxjsapi.sandbox import sandbox as sandbox_module

from .caller import SOON, STABLE, TOKEN, Caller, fetch, in_background, suppress, until

# -- what it remembers


def test_calls_count_everything_that_arrives(caller: Caller) -> None:
    """Failed and refused calls count as well."""
    caller.sandbox.fail("500", path="token")
    caller.http.get(TOKEN)
    caller.http.get(TOKEN)
    caller.stable()
    assert caller.sandbox.calls == {"token": 2, "stable_token": 1}


def test_history_tells_outcomes(caller: Caller) -> None:
    """A record has the time, the name, and the errcode or the fault."""
    for fault in ("http 500", "expires:0", "45009"):
        caller.sandbox.fail(fault)
    for _ in range(3):
        caller.http.get(TOKEN)
    caller.stable()
    caller.ticket("made-up")
    assert [(call.name, call.outcome) for call in caller.sandbox.history] == [
        ("token", "http 500"),
        ("token", "expires"),
        ("token", 45009),
        ("stable_token", 0),
        ("getticket", 40014),
    ]
    assert caller.sandbox.history[0].time == caller.clock.now


def test_history_is_bounded(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox that runs for weeks does not grow."""
    monkeypatch.setattr(sandbox_module, "_HISTORY_LIMIT", 3)
    for _ in range(5):
        caller.stable()
    assert len(caller.sandbox.history) == 3


def test_nothing_shown_is_a_secret(caller: Caller) -> None:
    """Neither repr() nor the history nor the page nor a frame's locals has a secret value."""
    caller.sandbox.fail('ticket:"planted"')
    caller.stable()
    token, ticket = caller.stable()["access_token"], caller.ticket()["ticket"]
    sandbox = caller.sandbox
    accounts = sandbox._registry.accounts
    kept = [(a.tokens.values(), a.tickets) for a in accounts.values()]
    shown = repr((sandbox, sandbox.history, accounts, kept))
    shown += caller.http.get("/sandbox/").text + caller.http.get("/sandbox/calls").text
    for secret in (sandbox.app_secret, token, ticket, "planted"):
        assert secret not in shown


def test_reset_forgets_everything_but_the_accounts(caller: Caller) -> None:
    """Tokens, tickets, quotas, faults and counts are as at the start."""
    caller.sandbox.add_account("wx2", "second")
    token = caller.stable()["access_token"]
    caller.sandbox.fail(-1, times=None)
    caller.sandbox.reset()
    assert not caller.sandbox.calls
    assert not caller.sandbox.history
    assert caller.ticket(token)["errcode"] == 40014
    assert "access_token" in caller.stable(appid="wx2", secret="second")


def test_threads_lose_no_call(caller: Caller) -> None:
    """Counts are exact and one stable token is shared by all."""
    tokens: list[str] = []

    def work() -> None:
        client = Client(caller.sandbox)
        for _ in range(50):
            body = {
                "grant_type": "client_credential",
                "appid": caller.sandbox.app_id,
                "secret": caller.sandbox.app_secret,
            }
            tokens.append(client.post(STABLE, json=body).get_json(force=True)["access_token"])

    for thread in [in_background(work) for _ in range(8)]:
        thread.join(SOON)
    assert caller.sandbox.calls["stable_token"] == 400
    assert len(set(tokens)) == 1


# -- the control face


def test_fail_and_heal_over_http(caller: Caller) -> None:
    """Another process can queue faults and take them back."""
    order = {"fault": 45009, "times": None, "path": "stable_token"}
    assert caller.http.post("/sandbox/fail", json=order).json == {"ok": True}
    assert caller.stable()["errcode"] == 45009
    assert caller.http.post("/sandbox/heal").json == {"ok": True}
    assert "access_token" in caller.stable()


def test_fail_for_one_account_over_http(caller: Caller) -> None:
    """As the keyword of fail()."""
    caller.sandbox.add_account("wx2", "second")
    caller.http.post("/sandbox/fail", json={"fault": 45009, "app_id": "wx2"})
    assert "access_token" in caller.stable()
    assert caller.stable(appid="wx2", secret="second")["errcode"] == 45009


def test_revoke_over_http(caller: Caller) -> None:
    """The same as revoke_token()."""
    token = caller.stable()["access_token"]
    caller.http.post("/sandbox/revoke")
    assert caller.ticket(token)["errcode"] == 40001


def test_calls_over_http(caller: Caller) -> None:
    """Control calls are not counted and meet no faults."""
    caller.stable()
    caller.sandbox.fail("500", times=None)
    assert caller.http.get("/sandbox/calls").json == {"stable_token": 1}


def test_verify_over_http(caller: Caller) -> None:
    """The phone judges a whole wx.config by POST, or the five values by GET."""
    signed = caller.sign("https://example.com/?a=1&b=中")
    config = {**signed, "jsApiList": ["chooseImage"], "debug": False}
    post = caller.http.post("/sandbox/verify", json=config)
    get = caller.http.get("/sandbox/verify", query_string=signed)
    assert post.json == get.json == {"errMsg": "config:ok"}


@pytest.mark.parametrize(
    ("path", "data", "message"),
    [
        ("fail", b"", "JSON object"),
        ("fail", b"{", "JSON object"),
        ("fail", b"[]", "JSON object"),
        ("fail", b"[" * 100_000, "JSON object"),
        ("fail", b"{}", "'fault'"),
        ("fail", b'{"fault": "500", "time": 3}', "'times'"),
        ("fail", b'{"fault": "nonsense"}', "'hang'"),
        ("fail", b'{"fault": null}', "'hang'"),
        ("fail", b'{"fault": "500", "times": "3"}', "times"),
        ("fail", b'{"fault": "500", "path": ["x"]}', "getticket"),
        ("fail", b'{"fault": "500", "app_id": ["x"]}', "no account"),
        ("verify", b'{"appId": "x", "url": null}', "nonceStr, timestamp, signature, url"),
    ],
)
def test_bad_control_calls_are_explained(
    caller: Caller, path: str, data: bytes, message: str
) -> None:
    """A 400 says what is wrong."""
    response = caller.http.post(f"/sandbox/{path}", data=data)
    assert response.status_code == 400
    assert message in response.get_json()["error"]


@pytest.mark.parametrize(("method", "path"), [("GET", "fail"), ("POST", "calls"), ("GET", "x")])
def test_unknown_control_calls(caller: Caller, method: str, path: str) -> None:
    """There is nothing there."""
    assert caller.http.open(f"/sandbox/{path}", method=method).status_code == 404


def test_only_the_control_face_has_cors(caller: Caller) -> None:
    """A page may use the control face; nobody calls WeChat's API from a page."""
    preflight = caller.http.options("/sandbox/verify")
    assert preflight.status_code == 204
    assert preflight.headers["Access-Control-Allow-Headers"] == "Content-Type"
    bad = caller.http.post("/sandbox/fail")
    assert bad.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Origin" not in caller.http.get(TOKEN).headers


def test_a_body_without_end_is_refused(caller: Caller) -> None:
    """The sandbox reads a megabyte at most."""
    assert caller.http.post(STABLE, data=b"x" * 2_000_000).status_code == 413


# -- on a port


def test_serve_is_idempotent(served: Sandbox) -> None:
    """A second call changes nothing."""
    url = served.url
    assert served.serve().url == url
    assert url.startswith("http://127.0.0.1:")


def test_close_takes_the_sandbox_off_the_net() -> None:
    """Afterwards nobody answers, and it can be served again."""
    sandbox = Sandbox().serve()
    url = sandbox.url
    sandbox.close()
    sandbox.close()
    assert sandbox.url == ""
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=SOON)
    with sandbox.serve():
        assert fetch(sandbox).status_code == 200


@pytest.mark.parametrize("fault", ["hang", "drip-headers", "drip"])
def test_close_does_not_wait_for_hanging_calls(fault: str) -> None:
    """A test with hanging calls ends at once."""
    sandbox = Sandbox().serve()
    sandbox.fail(fault, times=None)
    callers = [in_background(lambda: suppress(lambda: fetch(sandbox, 3 * SOON))) for _ in range(5)]
    until(lambda: sandbox.calls["token"] == 5)
    start = time.monotonic()
    sandbox.close()
    for thread in callers:
        thread.join(SOON)
    assert time.monotonic() - start < SOON


def test_a_taken_port_is_an_error(served: Sandbox) -> None:
    """An exception, not the end of the process."""
    with pytest.raises(OSError, match=r"(?i)address"):
        Sandbox().serve(port=int(served.url.rpartition(":")[2]))


def test_impatient_callers_leave_no_trace(served: Sandbox) -> None:
    """A caller that gives up is no error of the sandbox, and nothing is logged."""
    output = io.StringIO()
    with redirect_stderr(output):
        for fault in ("hang", "drip", "drip-headers", "close", "half", "slow:1"):
            served.fail(fault)
            suppress(lambda: fetch(served, timeout=0.05))
            served.heal()
        assert fetch(served).status_code == 200
        time.sleep(0.05)
    assert output.getvalue() == ""


@pytest.fixture
def no_embedded() -> Iterator[None]:
    yield
    for sandbox in sandbox_module._embedded.values():
        sandbox.close()
    sandbox_module._embedded.clear()


@pytest.mark.usefixtures("no_embedded")
def test_embedded_is_one_per_process() -> None:
    """Only the first call's options count."""
    first = embedded(app_id="wx1")
    assert embedded(app_id="wx2") is first
    assert first.app_id == "wx1"
    assert fetch(first).status_code == 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.usefixtures("no_embedded")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_embeds_its_own() -> None:
    """A thread does not survive a fork, so the parent's sandbox is of no use to a child."""
    parent = embedded()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        child = embedded()
        inherited = parent._listener._server.socket.fileno() if parent._listener else 0
        result = f"{child.url != parent.url} {fetch(child).status_code} {inherited}"
        os.write(writer, result.encode())
        os._exit(0)
    os.close(writer)
    assert os.read(reader, 100) == b"True 200 -1"  # -1: it let go of its parent's port
    os.close(reader)
    os.waitpid(pid, 0)
    assert fetch(parent).status_code == 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_close_in_a_forked_child_does_not_wait(served: Sandbox) -> None:
    """There is no server thread to wait for."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        served.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert fetch(served).status_code == 200
