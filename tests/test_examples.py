"""examples/accounts, examples/wecom and examples/central, run as their docstrings say."""

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
from flask_wxjsapi.sandbox import embedded

from .conftest import free_port, wait_until
from .processes import NO_CONTROL_SOCKET

EXAMPLES = Path(__file__).parent.parent / "examples"
SIGNED = ("timestamp", "nonceStr", "signature")


@dataclass
class Example:
    """One that runs; ``log`` has all that it and its children say."""

    port: int
    log: Path

    def url(self, number: int = 0) -> str:
        return f"http://127.0.0.1:{self.port + number}"

    def read(self, path: str = "/", number: int = 0) -> str:
        response = requests.get(self.url(number) + path, timeout=10)
        response.raise_for_status()
        return response.text

    def wait(self, number: int = 0) -> None:
        wait_until(lambda: answers(self.url(number)), what=f"it answers: {self.log}")


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
            exit_code = process.wait(timeout=30)
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
        return requests.get(url, timeout=10).ok
    except requests.ConnectionError:
        return False


def call_argument(name: str, page: str) -> dict[str, Any]:
    """What a page gives ``wx.config``, or as ``const agent`` to ``wx.agentConfig``."""
    call = r"const agent = (\{.*?\});" if name == "agentConfig" else r"wx\.config\((\{.*?\})\)"
    match = re.search(call, page)
    assert match, page
    return dict(json.loads(match[1]))


def verdict(page: str, who: dict[str, Any], signed: dict[str, Any], url: str) -> str:
    """The phone's, from the sandbox that the page has its phone from."""
    (sandbox,) = set(re.findall(r'"(http://[^"]+)/sandbox/bridge.js', page))
    body = who | {key: signed[key] for key in SIGNED} | {"url": url}
    answer = requests.post(f"{sandbox}/sandbox/verify", json=body, timeout=10).json()
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
            page, url = example.read(path), example.url() + path
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
        signed = requests.get(f"{example.url()}/wxjsapi/config", {"url": url}, timeout=10).json()
        agent = signed["agentConfig"]
        assert verdict(page, {"appId": signed["appId"]}, signed, url) == "config:ok"
        who = {key: agent[key] for key in ("corpid", "agentid")}
        assert verdict(page, who, agent, url) == "agentConfig:ok"
        page, url = example.read("/old"), f"{example.url()}/old"
        config = call_argument("config", page)
        assert config["beta"] is True
        assert verdict(page, {"appId": config["appId"]}, config, url) == "config:ok"


# -- central ---------------------------------------------------------------------------------------


@pytest.mark.processes
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
def test_central(tmp_path: Path) -> None:
    """Four workers of two clients sign pages, for one call; what is secret stays so."""
    with running("central", tmp_path) as example:
        for number in range(3):
            example.wait(number)
        log = example.log.read_text()
        assert all(example.url(number) in log for number in range(3))
        (sandbox,) = re.findall(r"(http://\S+)/sandbox/", log)

        pages = [example.read()]
        for number in (1, 2):
            workers: set[str] = set()
            while len(workers) < 2:
                page = example.read(f"/?{len(pages)}", number)
                url = f"{example.url(number)}/?{len(pages)}"
                config = call_argument("config", page)
                assert verdict(page, {"appId": config["appId"]}, config, url) == "config:ok"
                workers.update(re.findall(r'id="pid">(\d+)<', page))
                pages.append(page)
                assert len(pages) < 200, f"one of the workers never answers: {workers}"
        calls = requests.get(f"{sandbox}/sandbox/calls", timeout=10).json()
        assert calls == {"stable_token": 1, "getticket": 1}

        tokens, ticket = bearer_tokens(example), f"{example.url()}/wxjsapi/ticket"
        assert len(tokens) == 2
        assert requests.get(ticket, timeout=10).status_code == 401
        secrets = {*tokens, "sandbox-secret"}
        for token in tokens:
            served = requests.get(ticket, headers={"Authorization": f"Bearer {token}"}, timeout=10)
            secrets.add(served.json()["value"])
        assert len(secrets) == 4  # both are given the same ticket
        # A token of nobody else's is there to try it with.
        (command,) = re.findall(r"^ +curl (.+)$", log, flags=re.M)
        option, header, url = shlex.split(command)
        name, _, value = header.partition(": ")
        assert (option, url) == ("-H", ticket)
        answer = requests.get(url, headers={name: value}, timeout=10).json()
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


# -- all -------------------------------------------------------------------------------------------


@pytest.mark.processes
@pytest.mark.parametrize("name", ["accounts", "wecom", "central"])
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
