"""The programs in other languages that pages show: what they do when they are run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask, Response, request

from flask_wxjsapi import WxJsApi
from flask_wxjsapi.sandbox import Sandbox

from ..conftest import require
from .pages import ROOT, block_with
from .words import ACCOUNT, served

pytestmark = pytest.mark.usefixtures("patient", "seldom")

CURL = block_with("docs/central.rst", "curl")
TICKET_MJS = block_with("docs/central.rst", "export function ticket")
CONFIG_MJS = block_with("docs/central.rst", "export async function config")


class Central:
    """A central server whose WeChat gives a new ticket each time; it notes how it answered."""

    url: str  # since it is served
    token = re.findall(r"export TICKET_TOKEN=(\S+)", CURL)[0]

    def __init__(self, wechat: Sandbox) -> None:
        self.wechat = wechat
        self.answers: list[int] = []  # the statuses
        self.app = app = Flask("central")
        app.config.update(
            ACCOUNT,
            TESTING=True,
            WXJSAPI_API_BASE_URL=wechat.url,
            WXJSAPI_URL_PREFIX="/wxjsapi",
            WXJSAPI_CENTRAL_TOKENS={"billing": self.token},
        )
        self.wxjsapi = WxJsApi(app)
        app.after_request(self._note)
        app.add_url_rule("/asked", view_func=lambda: self.answers)
        app.add_url_rule("/renew", "renew", lambda: {"ticket": self.wxjsapi.refresh()})

    def _note(self, response: Response) -> Response:
        if request.path.endswith("/ticket"):
            self.answers.append(response.status_code)
        return response

    @property
    def ticket(self) -> str:
        with self.app.app_context():
            return self.wxjsapi.ticket

    def at(self, text: str) -> str:
        """A text of the page with this server in place of the one it names."""
        assert "https://tickets.example.com" in text
        return text.replace("https://tickets.example.com", self.url)


@pytest.fixture
def central() -> Iterator[Central]:
    with Sandbox(*ACCOUNT.values(), ticket="new").serve() as wechat:
        central = Central(wechat)
        with served(central.app) as central.url:
            yield central


@pytest.fixture
def node_client(central: Central, tmp_path: Path) -> Path:
    """Where the page's two modules are."""
    (tmp_path / "ticket.mjs").write_text(central.at(TICKET_MJS), encoding="utf-8")
    (tmp_path / "config.mjs").write_text(CONFIG_MJS, encoding="utf-8")
    return tmp_path


def run_node(directory: Path, driver: str, *arguments: str, **environment: str) -> Any:
    """What a module prints as JSON."""
    node = shutil.which("node")
    if node is None:
        require("node", "no Node: it is needed for what the pages show in JavaScript")
    (directory / "driver.mjs").write_text(driver, encoding="utf-8")
    result = subprocess.run(
        [str(node), "driver.mjs", *arguments],
        cwd=directory,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_curl_gets_the_ticket_from_a_central_server(central: Central) -> None:
    """The command of the page, as it stands but for the host, prints what the server answers."""
    if shutil.which("curl") is None:
        require("curl", "no curl: it is needed for the commands of the pages")
    command = central.at(CURL)
    right, wrong = (
        subprocess.run(["sh", "-ec", text], capture_output=True, text=True, timeout=120)
        for text in (command, command.replace(central.token, "the-token-of-nobody"))
    )
    assert right.returncode == 0, right.stderr
    assert json.loads(right.stdout)["value"] == central.ticket
    assert wrong.returncode != 0
    assert json.loads(wrong.stdout).keys() == {"error"}
    assert central.answers == [200, 401]


def test_the_statuses_of_a_central_server_are_those_in_the_table(central: Central) -> None:
    """Each status of the table is answered to the mistake that it is for, and there is no other."""
    text = (ROOT / "docs/central.rst").read_text(encoding="utf-8")
    table = text.split("\nStatus\n")[1].split("\nThe body of an error")[0]
    url, told = f"{central.url}/wxjsapi/ticket", {"Authorization": f"Bearer {central.token}"}
    central.wechat.fail("45009", times=None)
    cold = requests.get(url, headers=told, timeout=60)
    assert cold.headers["Retry-After"]
    central.wechat.heal()
    with central.app.app_context():
        central.wxjsapi.refresh()
    answers = [
        cold,
        requests.get(url, headers=told, timeout=60),
        requests.get(f"{url}?kind=access_token", headers=told, timeout=60),
        requests.get(url, timeout=60),
        requests.get(f"{url}/ticket", headers=told, timeout=60),
    ]
    statuses = [answer.status_code for answer in answers]
    assert statuses == [503, 200, 400, 401, 404]
    assert {int(status) for status in re.findall(r"^(\d+) ", table, re.M)} == set(statuses)


HONOURS_EXPIRY = """
import { ticket } from "./ticket.mjs";
let now = 0; // the client's clock, in milliseconds
Object.defineProperty(performance, "now", { value: () => now });
const get = async (path) => (await fetch(process.argv[2] + path)).json();
const steps = [];
const step = async (count) => {
  const tickets = await Promise.all(Array.from({ length: count }, ticket));
  const values = tickets.map(({ value }) => value);
  steps.push({ tickets: [...new Set(values)], asked: (await get("/asked")).length });
};
await step(20);
const renewed = (await get("/renew")).ticket;
now += 7000e3;
await step(5);
now += 200e3;
await step(20);
console.log(JSON.stringify({ steps, renewed }));
"""


def test_the_node_client_asks_again_only_when_the_ticket_ends(
    central: Central, node_client: Path
) -> None:
    """Of many callers one asks; all have that ticket until its two hours are over."""
    found = run_node(node_client, HONOURS_EXPIRY, central.url, TICKET_TOKEN=central.token)
    first, later, expired = found["steps"]
    assert [step["asked"] for step in (first, later, expired)] == [1, 1, 2]
    assert later["tickets"] == first["tickets"]
    assert expired["tickets"] == [found["renewed"]]
    assert found["renewed"] not in first["tickets"]


KEEPS_NO_FAILURE = """
import { ticket } from "./ticket.mjs";
const failures = await Promise.allSettled([ticket(), ticket()]);
const reasons = failures.map((failure) => failure.reason.message);
process.env.TICKET_TOKEN = process.argv[2];
console.log(JSON.stringify({ reasons, then: (await ticket()).value }));
"""


def test_the_node_client_asks_anew_after_a_failure(central: Central, node_client: Path) -> None:
    """Those who wait share the failure; the next one asks, and has the ticket."""
    found = run_node(
        node_client, KEEPS_NO_FAILURE, central.token, TICKET_TOKEN="the-token-of-nobody"
    )
    assert central.answers == [401, 200]
    assert len(found["reasons"]) == 2
    assert all("HTTP 401" in reason for reason in found["reasons"])
    assert found["then"] == central.ticket


SIGNS = """
import { config } from "./config.mjs";
console.log(JSON.stringify(await config(process.argv[2])));
"""


def test_a_phone_accepts_what_node_signs(central: Central, node_client: Path) -> None:
    """The page's second module makes an argument of wx.config of what the first one got."""
    assert "wx0123" not in CONFIG_MJS  # the answer has it
    page = "https://example.com/a?b=%E4%B8%AD&c=1"
    config = run_node(node_client, SIGNS, page, TICKET_TOKEN=central.token)
    signed = {key: config[key] for key in ("appId", "nonceStr", "timestamp", "signature")}
    assert central.wechat.verify(**signed, url=page) == "config:ok"


REGISTERS = """
const own = globalThis.fetch;
globalThis.fetch = (path) => own(process.argv[2] + path);
await import("./page.mjs");
const url = process.argv[3];
const { options } = await import("@wecom/jssdk");
const refused = await options.getConfigSignature("https://example.org/").catch((e) => e.message);
console.log(JSON.stringify({
  options, refused,
  config: await options.getConfigSignature(url),
  agentConfig: await options.getAgentConfigSignature(url),
}));
"""


def test_wecom_accepts_what_the_signers_of_its_sdk_get(sandbox: Sandbox, tmp_path: Path) -> None:
    """The page's two functions, called as a stand-in for @wecom/jssdk, sign for the same page."""
    sdk = tmp_path / "node_modules" / "@wecom" / "jssdk"
    sdk.mkdir(parents=True)
    (sdk / "package.json").write_text('{"type": "module", "exports": "./index.js"}')
    (sdk / "index.js").write_text(
        "export let options; export const register = (o) => { options = o; };"
    )
    (tmp_path / "page.mjs").write_text(
        block_with("docs/wecom.rst", "ww.register"), encoding="utf-8"
    )
    app = Flask("wecom", root_path=str(tmp_path))
    exec(block_with("docs/wecom.rst", "WXJSAPI_PLATFORM"), {"app": app})
    app.config.update(TESTING=True, WXJSAPI_API_BASE_URL=sandbox.url)
    corp, secret = app.config["WXJSAPI_APP_ID"], app.config["WXJSAPI_APP_SECRET"]
    sandbox.add_agent(corp, secret, str(app.config["WXJSAPI_AGENT_ID"]))
    WxJsApi(app)
    with served(app) as url:
        page = f"{url}/contacts?a=1&b=%E4%B8%AD"
        found = run_node(tmp_path, REGISTERS, url, page)
    config, agent_config = (
        {key: found[name][key] for key in ("nonceStr", "timestamp", "signature")}
        for name in ("config", "agentConfig")
    )
    corp, agent = found["options"]["corpId"], found["options"]["agentId"]
    assert sandbox.verify(appId=corp, url=page, **config) == "config:ok"
    verdict = sandbox.verify_agent(corpid=corp, agentid=agent, url=page, **agent_config)
    assert verdict == "agentConfig:ok"
    assert "example.org" in found["refused"]
