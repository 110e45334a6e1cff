"""examples/accounts, wecom, central and platform, run as their docstrings say."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from examples.accounts.app import create_app
from flask_wxjsapi import Credential
from flask_wxjsapi.sandbox import Sandbox, embedded

from .conftest import Valkey, free_port, nothing_goes_on, wait_until
from .processes import NO_CONTROL_SOCKET

EXAMPLES = Path(__file__).parent.parent / "examples"
SIGNED = ("timestamp", "nonceStr", "signature")
CALL = re.compile(r"wx\.config\((\{.*?\})\)")


@dataclass
class Example:
    """One that runs; ``log`` has all that it and its children say."""

    port: int
    log: Path

    def url(self, number: int = 0) -> str:
        return f"http://127.0.0.1:{self.port + number}"

    def read(self, path: str = "/", number: int = 0) -> str:
        response = requests.get(self.url(number) + path, timeout=60)
        response.raise_for_status()
        return response.text

    def wait(self, number: int = 0) -> None:
        wait_until(lambda: answers(self.url(number)), 60, f"it answers: {self.log}")

    def signed(self, path: str = "/", number: int = 0) -> str:
        """A page with its ticket: one waits for the first of its worker no longer than 2 s."""

        def page() -> str | None:
            page = self.read(path, number)
            return page if CALL.search(page) else None

        return str(wait_until(page, 60, f"{path} is signed: {self.log}"))


@contextmanager
def running(name: str, directory: Path) -> Iterator[Example]:
    """Start ``python examples/NAME``, and end it by Ctrl-C, which leaves no server behind."""
    example = Example(three_ports(), directory / "log")
    with example.log.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / name)],
            env=os.environ
            | {
                "PORT": str(example.port),
                "GUNICORN_CMD_ARGS": " ".join(["--access-logfile=-", *NO_CONTROL_SOCKET]),
            },
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield example
    finally:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        try:
            exit_code = process.wait(timeout=60)
        finally:
            process.kill()
            process.wait()
    assert exit_code == 0, example.log.read_text()
    assert "Traceback" not in example.log.read_text()
    assert are_free(example.port)


def three_ports() -> int:
    """The first of three ports in a row that are free."""
    while not are_free(first := free_port()):
        pass
    return first


def are_free(first: int) -> bool:
    try:
        for port in range(first, first + 3):
            socket.create_server(("127.0.0.1", port)).close()
    except (OSError, OverflowError):
        return False
    return True


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=60).ok
    except requests.ConnectionError:
        return False


def call_argument(name: str, page: str) -> dict[str, Any]:
    """What a page gives ``wx.config``, or as ``const agent`` to ``wx.agentConfig``."""
    call = re.compile(r"const agent = (\{.*?\});") if name == "agentConfig" else CALL
    match = call.search(page)
    assert match, page
    return dict(json.loads(match[1]))


def verdict(page: str, who: dict[str, Any], signed: dict[str, Any], url: str) -> str:
    """The phone's, from the sandbox that the page has its phone from."""
    (sandbox,) = set(re.findall(r'"(http://[^"]+)/sandbox/bridge.js', page))
    body = who | {key: signed[key] for key in SIGNED} | {"url": url}
    answer = requests.post(f"{sandbox}/sandbox/verify", json=body, timeout=60).json()
    return str(answer["errMsg"])


# -- accounts --------------------------------------------------------------------------------------


class Records:
    """A ticket server that shows what it has."""

    def __init__(self) -> None:
        self.found: dict[str, Credential] = {}

    def find(self, key: str) -> Credential | None:
        return self.found.get(key)

    def save(self, key: str, credential: Credential) -> None:
        self.found[key] = credential


def test_five_tickets_for_four_accounts() -> None:
    """One each, the corp's for both agents, and one for each agent; no two keys are the same."""
    records = Records()
    servers = {f"{name}WXJSAPI_TICKET_SERVER": records for name in ("", "SHOP_", "HR_", "CRM_")}
    app = create_app({"TESTING": True, **servers})
    with app.app_context():
        accounts = app.extensions["wxjsapi"]
        for account in accounts.values():
            account.config(url="https://example.com/")
        agents = {
            name: accounts[name].agent_config(url="https://example.com/") for name in ("hr", "crm")
        }
        tickets = {name: account.ticket for name, account in accounts.items()}
    nothing_goes_on()  # the last one may be on its way
    values = {credential.value for credential in records.found.values()}
    assert len(records.found) == len(values) == 5
    assert tickets["hr"] == tickets["crm"]
    assert len(set(tickets.values())) == 3
    assert set(tickets.values()) < values
    # An agent's signature is good for that agent, and for nothing else.
    for config in agents.values():
        for agent in agents.values():
            errmsg = embedded().verify_agent(
                corpid=agent["corpid"],
                agentid=agent["agentid"],
                url="https://example.com/",
                **{key: config[key] for key in SIGNED},
            )
            assert errmsg == f"agentConfig:{'ok' if agent is config else 'invalid signature'}"
    calls = embedded().calls
    assert (calls["getticket"], calls["get_jsapi_ticket"], calls["ticket/get"]) == (2, 1, 2)


@pytest.mark.processes
def test_accounts(tmp_path: Path) -> None:
    """Every account's page is signed with its own ticket."""
    with running("accounts", tmp_path) as example:
        example.wait()
        seen = set()
        for path in ("/", "/shop?a=1&b", "/hr", "/crm?%E4%B8%AD"):
            page, url = example.signed(path), example.url() + path
            config = call_argument("config", page)
            seen.add(config["appId"])
            assert verdict(page, {"appId": config["appId"]}, config, url) == "config:ok"
            if config["appId"].startswith("ww"):
                agent = call_argument("agentConfig", page)
                seen.add(agent["agentid"])
                who = {key: agent[key] for key in ("corpid", "agentid")}
                assert verdict(page, who, agent, url) == "agentConfig:ok"
                assert verdict(page, who, config, url) == "agentConfig:invalid signature"
        assert len(seen) == 5


# -- wecom -----------------------------------------------------------------------------------------


@pytest.mark.processes
def test_wecom(tmp_path: Path) -> None:
    """The endpoint signs the one page, and the template the other."""
    with running("wecom", tmp_path) as example:
        example.wait()
        page, url = example.read("/"), f"{example.url()}/?a=1"

        def both() -> Any:
            answer = requests.get(f"{example.url()}/wxjsapi/config", {"url": url}, timeout=60)
            signed = answer.json()
            return signed if signed.get("agentConfig") else None

        # The answer waits for the agent's first ticket no longer than a moment.
        signed = wait_until(both, 60, "both are signed")
        agent = signed["agentConfig"]
        assert verdict(page, {"appId": signed["appId"]}, signed, url) == "config:ok"
        who = {key: agent[key] for key in ("corpid", "agentid")}
        assert verdict(page, who, agent, url) == "agentConfig:ok"
        page, url = example.signed("/old"), f"{example.url()}/old"
        config = call_argument("config", page)
        assert config["beta"] is True
        assert verdict(page, {"appId": config["appId"]}, config, url) == "config:ok"


# -- central ---------------------------------------------------------------------------------------


@pytest.mark.processes
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
def test_central(tmp_path: Path) -> None:
    """Four workers of two clients sign pages, for one call; what is secret stays so."""
    with running("central", tmp_path) as example:
        example.wait()
        wait_until(lambda: "/sandbox/" in example.log.read_text(), 60, "it says where all is")
        log = example.log.read_text()
        assert all(example.url(number) in log for number in range(3))
        (sandbox,) = re.findall(r"(http://\S+)/sandbox/", log)
        # A client is answered within 5 s, and would ask once more.
        wait_until(lambda: calls_of(sandbox).get("getticket"), 60, "there is a ticket")
        for number in (1, 2):
            example.wait(number)

        pages = [example.read()]
        for number in (1, 2):
            workers: set[str] = set()
            while len(workers) < 2:
                page = example.signed(f"/?{len(pages)}", number)
                url = f"{example.url(number)}/?{len(pages)}"
                config = call_argument("config", page)
                assert verdict(page, {"appId": config["appId"]}, config, url) == "config:ok"
                workers.update(re.findall(r'id="pid">(\d+)<', page))
                pages.append(page)
                assert len(pages) < 200, f"one of the workers never answers: {workers}"
        assert calls_of(sandbox) == {"stable_token": 1, "getticket": 1}

        tokens, ticket = bearer_tokens(example), f"{example.url()}/wxjsapi/ticket"
        assert len(tokens) == 2
        assert requests.get(ticket, timeout=60).status_code == 401
        secrets = {*tokens, "sandbox-secret"}
        for token in tokens:
            served = requests.get(ticket, headers={"Authorization": f"Bearer {token}"}, timeout=60)
            secrets.add(served.json()["value"])
        assert len(secrets) == 4  # both are given the same ticket
        # A token of nobody else's is there to try it with.
        (command,) = re.findall(r"^ +curl (.+)$", log, flags=re.M)
        option, header, url = shlex.split(command)
        name, _, value = header.partition(": ")
        assert (option, url) == ("-H", ticket)
        answer = requests.get(url, headers={name: value}, timeout=60).json()
        assert answer["value"] in secrets
        assert value.removeprefix("Bearer ") not in secrets
    assert all(value not in page for page in pages)
    log = example.log.read_text()
    assert log.count(value) == 1
    for client in ("blog", "shop", "curl"):
        assert f"{client} fetched the jsapi_ticket" in log
    # Each of the two asked once, with all of its workers.
    assert log.count("GET /wxjsapi/ticket?kind=jsapi_ticket") == 2
    for secret in secrets:
        assert all(secret not in text for text in (log, *pages))


def calls_of(sandbox: str) -> dict[str, int]:
    calls: dict[str, int] = requests.get(f"{sandbox}/sandbox/calls", timeout=60).json()
    return calls


def bearer_tokens(example: Example) -> set[str]:
    """Those of the clients, out of their environment, which has no secret of the account's."""
    found = set()
    for process in Path("/proc").iterdir():
        try:
            lines = (process / "environ").read_text().split("\0")
        except (OSError, UnicodeDecodeError):
            continue
        environment = dict(line.partition("=")[::2] for line in lines)
        token = environment.get("FLASK_WXJSAPI_CENTRAL_TOKEN")
        if token and environment.get("PORT") == str(example.port):
            found.add(token)
            assert "sandbox-secret" not in "".join(lines)
    return found


# -- platform --------------------------------------------------------------------------------------

TEA, FLOWERS = "wx0000000000000001", "wx0000000000000003"
WRONG, RIGHT = "not-the-secret-of-flowers", "open-sesame"


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which examples/platform keeps its accounts."""
    path = tmp_path / "instance" / "accounts.sqlite3"
    monkeypatch.setenv("FLASK_DATABASE", str(path))
    return path


def send(example: Example, path: str = "/accounts", **fields: str) -> requests.Response:
    """What becomes of a form that the example's own page has sent."""
    headers = {"Origin": example.url()}
    return requests.post(example.url() + path, fields, headers=headers, timeout=60)


def config_of(example: Example, app_id: str) -> requests.Response:
    query = {"app_id": app_id, "url": f"{example.url()}/switch/?a=1"}
    return requests.get(f"{example.url()}/wxjsapi/config", query, timeout=60)


@pytest.mark.processes
def test_platform(tmp_path: Path, table: Path) -> None:
    """An account is added, mended and removed while the app runs; each step counts at once."""
    with running("platform", tmp_path) as example:
        example.wait()
        # Nobody but its owner reads the secrets.
        assert (table.stat().st_mode & 0o777, table.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        pages = [example.read()]
        assert pages[0].count("Not asked for yet") == 2
        for app_id in (TEA, "wx0000000000000002"):
            pages.append(example.signed(f"/{app_id}/?a=1&b"))
            config = call_argument("config", pages[-1])
            assert config["appId"] == app_id
            url = f"{example.url()}/{app_id}/?a=1&b"
            assert verdict(pages[-1], {"appId": app_id}, config, url) == "config:ok"

        pages.append(send(example, app_id=FLOWERS, name="Flowers", secret=WRONG).text)
        assert "WeChat says 40125" in pages[-1]
        assert "WXJSAPI_APP_SECRET is wrong" in pages[-1]
        assert config_of(example, FLOWERS).status_code == 503
        pages.append(send(example, f"/accounts/{FLOWERS}", name="Flowers", secret=RIGHT).text)
        assert "40125" not in pages[-1]
        assert pages[-1].count("Fresh, ends in 1") == 3
        # A form without a secret leaves it as it is.
        send(example, f"/accounts/{FLOWERS}", name="Flower stall", hosts=".flowers.test")
        send(example, f"/accounts/{FLOWERS}/refresh")
        pages.append(example.read(f"/{FLOWERS}/"))
        assert "<h1>Flower stall</h1>" in pages[-1]
        signed = config_of(example, FLOWERS).json()
        url = f"{example.url()}/switch/?a=1"
        assert verdict(pages[-1], {"appId": FLOWERS}, signed, url) == "config:ok"
        query = {"app_id": FLOWERS, "url": "https://m.flowers.test/"}
        assert requests.get(f"{example.url()}/wxjsapi/config", query, timeout=60).ok

        pages.append(send(example, f"/accounts/{FLOWERS}/remove").text)
        assert FLOWERS not in pages[-1].replace(f"<code>{FLOWERS}", "")
        assert requests.get(f"{example.url()}/{FLOWERS}/", timeout=60).status_code == 404
        assert config_of(example, FLOWERS).status_code == 404
        # It was the wrong one.
        send(example, app_id=FLOWERS, name="Flowers", secret=RIGHT)
        assert config_of(example, FLOWERS).ok
        listed = requests.get(f"{example.url()}/accounts", timeout=60).json()
        assert {"appId": FLOWERS, "name": "Flowers"} in listed
    # What a person typed is on no page and in no log, but for what the note says itself.
    texts = [*pages, example.log.read_text()]
    assert all(WRONG not in text for text in texts)
    assert all(RIGHT not in text.replace(f"<code>{RIGHT}</code>", "") for text in texts)


@pytest.mark.slow
@pytest.mark.processes
def test_platform_says_what_is_wrong_with_a_form(tmp_path: Path, table: Path) -> None:
    """And keeps nothing of it; what was typed comes back, but for the secret."""
    good = {"app_id": FLOWERS, "name": "Flowers", "secret": RIGHT, "hosts": "m.example.com"}
    with running("platform", tmp_path) as example:
        example.wait()
        before = table.read_bytes()
        for wrong, problem in (
            ({"app_id": "wx-flowers"}, "An AppID is"),
            ({"app_id": "0123456789abcdef0123456789abcdef"}, "An AppID is"),
            ({"app_id": TEA}, "in the table already"),
            ({"name": " "}, "A name has"),
            ({"name": "x" * 51}, "A name has"),
            ({"secret": ""}, "An AppSecret has"),
            ({"secret": "in two parts"}, "An AppSecret has"),
            ({"hosts": "m.example.com https://example.com"}, "https://example.com is no host"),
        ):
            answer = send(example, **(good | wrong))
            assert (answer.status_code, answer.text.count(problem)) == (400, 1), answer.text
            assert 'value="in two parts"' not in answer.text
            assert f'value="{(good | wrong)["app_id"]}"' in answer.text
        answer = send(example, f"/accounts/{TEA}", name="Tea", hosts="<b>")
        assert (answer.status_code, answer.text.count("&lt;b&gt; is no host")) == (400, 1)
        assert "<details open>" in answer.text
        for path in ("", "/refresh"):
            assert send(example, f"/accounts/{FLOWERS}{path}", **good).status_code == 404
        for origin in (None, "null", "https://evil.test", example.url() + "0"):
            for path in ("/accounts", f"/accounts/{TEA}", f"/accounts/{TEA}/remove"):
                headers = {} if origin is None else {"Origin": origin}
                url = example.url() + path
                assert requests.post(url, good, headers=headers, timeout=60).status_code == 403
        assert table.read_bytes() == before


@pytest.mark.slow
@pytest.mark.processes
def test_platform_with_workers(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch, valkey: Valkey
) -> None:
    """As the docstring starts them: they share each ticket, and know of a removed account."""
    example = Example(free_port(), tmp_path / "log")
    options = ["--bind", example.url()[7:], *NO_CONTROL_SOCKET]
    monkeypatch.setenv("GUNICORN_CMD_ARGS", " ".join(options))
    monkeypatch.setenv("FLASK_CACHE_TYPE", "RedisCache")
    monkeypatch.setenv("FLASK_CACHE_REDIS_URL", valkey.url)
    monkeypatch.setenv("FLASK_WXJSAPI_SYNC_INTERVAL", "0.2")
    source = (EXAMPLES / "platform" / "app.py").read_text()
    (command,) = re.findall(r"^    gunicorn (.*)$", source, flags=re.M)
    with Sandbox().serve() as sandbox, example.log.open("wb") as log:
        sandbox.add_account(FLOWERS, RIGHT)
        monkeypatch.setenv("FLASK_WXJSAPI_API_BASE_URL", sandbox.url)
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *shlex.split(command)],
            cwd=EXAMPLES.parent,
            stdout=log,
            stderr=log,
        )
        try:
            example.wait()
            assert "There is no account yet." in example.read()
            send(example, app_id=FLOWERS, name="Flowers", secret=RIGHT)
            page = example.read(f"/{FLOWERS}/")
            assert "/sandbox/bridge.js" not in page
            for _ in range(20):
                signed = config_of(example, FLOWERS).json()
                question = {key: signed[key] for key in ("appId", *SIGNED)}
                url = f"{example.url()}/switch/?a=1"
                assert sandbox.verify(**question, url=url) == "config:ok"
            assert dict(sandbox.calls) == {"stable_token": 1, "getticket": 1}
            send(example, f"/accounts/{FLOWERS}/remove")

            def are_all_404() -> bool:
                return all(config_of(example, FLOWERS).status_code == 404 for _ in range(20))

            wait_until(are_all_404, what="every worker knows that it is gone")
            assert dict(sandbox.calls) == {"stable_token": 1, "getticket": 1}
        finally:
            process.terminate()
            process.wait(timeout=60)
    assert "Traceback" not in example.log.read_text()
    assert RIGHT not in example.log.read_text()


# -- all -------------------------------------------------------------------------------------------


@pytest.mark.processes
@pytest.mark.parametrize("name", ["accounts", "wecom", "central", "platform"])
def test_a_port_that_cannot_be(name: str) -> None:
    """The error names it."""
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        env=os.environ | {"PORT": "70000"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert "PORT must be a number" in result.stderr
