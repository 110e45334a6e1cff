"""The example that ``make demo`` runs, as a real process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from flask_wxjsapi.sandbox import Sandbox

from .conftest import free_port, wait_until

pytestmark = pytest.mark.processes

QUICKSTART = Path(__file__).parents[1] / "examples" / "quickstart"
SECRET = "a-secret-that-only-the-sandbox-takes"
TICKET = re.compile(r"[A-Za-z0-9_-]{86}")  # the sandbox's tickets are that long, tokens longer
CONFIG = re.compile(r'wx\.config\((\{".*?\})\);')
TTL = 30  # seconds of a life; it is renewed when half of that is over

AWKWARD = (
    "/",
    "/?",
    "/?x=%E4%B8%AD%E6%96%87",
    "/?x=a%2Fb",
    "/?x=a|b",
    "/?x=%7E'",
    "/?from=timeline&isappinstalled=0",
    "/at/%E4%B8%AD%2F%E6%96%87",
)


class Demo:
    """The running example and how a browser sees it."""

    def __init__(self, directory: Path, port: int | None = None, **env: str) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = directory / f"log-{self.port}"
        home = directory / "home"
        home.mkdir(exist_ok=True)
        outside = {key: value for key, value in os.environ.items() if not key.startswith("FLASK_")}
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", str(QUICKSTART)],
                cwd=directory,
                env={**outside, "HOME": str(home), "PORT": str(self.port), **env},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def started(self) -> Demo:
        def is_up() -> bool:
            assert self.process.poll() is None, self.log
            return f"{self.url} " in self.log

        wait_until(is_up, 60, "the demo says where it is")
        return self

    def ready(self) -> Demo:
        """With a ticket: a page waits for its first one no longer than 2 s."""
        self.started()
        wait_until(lambda: self.state()["ticket"]["state"] == "fresh", 60, "there is a ticket")
        return self

    def page(self, target: str = "/") -> str:
        """The page at a target that goes out as it is; HTTP clients put a ``|`` or ``?`` right."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            head = f"GET {target} HTTP/1.0\r\nHost: 127.0.0.1:{self.port}\r\n\r\n"
            connection.sendall(head.encode())
            with connection.makefile("rb") as stream:
                answer = stream.read().decode()
        assert answer.partition("\r\n")[0].endswith(" 200 OK"), answer
        return answer

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = requests.get(f"{self.url}/state", timeout=60).json()
        return state

    def post(
        self, path: str, body: object = None, origin: str | None = "its own"
    ) -> requests.Response:
        headers = {"Origin": self.url if origin == "its own" else origin}
        return requests.post(self.url + path, json=body, headers=headers, timeout=60)

    def verdict(self, config: dict[str, Any], url: str) -> str:
        verdict: str = self.post("/verdict", signed(config, url)).json()["errMsg"]
        return verdict

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def config_of(page: str) -> dict[str, Any]:
    """The argument of the page's ``wx.config``."""
    found = CONFIG.search(page)
    assert found, page
    config: dict[str, Any] = json.loads(found[1])
    return config


def signed(config: dict[str, Any], url: str) -> dict[str, Any]:
    """What a phone has to judge a page by."""
    return {
        **{key: config[key] for key in ("appId", "nonceStr", "timestamp", "signature")},
        "url": url,
    }


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Start the example with these environment variables."""
    demos: list[Demo] = []

    def run(**options: Any) -> Demo:
        demos.append(Demo(tmp_path, **options))
        return demos[-1]

    yield run
    for demo in demos:
        demo.stop()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The example; tests leave it in order."""
    demo = Demo(tmp_path_factory.mktemp("demo"))
    yield demo.ready()
    demo.stop()


@pytest.mark.parametrize("target", AWKWARD)
def test_the_phone_accepts_the_page(demo: Demo, target: str) -> None:
    """A page is signed for its address exactly as it came over the wire."""
    config = config_of(demo.page(target))
    assert demo.verdict(config, demo.url + target) == "config:ok"


def test_the_phone_refuses_another_address(demo: Demo) -> None:
    """The verdict is about the address, and not always yes."""
    config = config_of(demo.page("/?x=1"))
    assert demo.verdict(config, f"{demo.url}/?x=2") == "config:invalid signature"


def test_a_phone_comes_with_the_page(demo: Demo) -> None:
    """The sandbox's bridge stands before jweixin, and is there for the browser to fetch."""
    before, bridge, _ = demo.page().partition("/sandbox/bridge.js")
    assert bridge
    assert "jweixin" not in before
    script = requests.get(before.rpartition('"')[2] + bridge, timeout=60)
    assert script.headers["Content-Type"].startswith("text/javascript")
    assert not TICKET.search(script.text)


def test_it_shows_what_it_signed(demo: Demo) -> None:
    """The panel's config is the one that the page passes to ``wx.config``."""
    page = demo.page()
    shown = re.search(r"data-signed='(\{.*?\})'", page)
    assert shown
    assert json.loads(shown[1]) == config_of(page)


@pytest.mark.slow
def test_it_refreshes_without_a_gap(start: Callable[..., Demo]) -> None:
    """The ticket is renewed within its life, again and again, and is never missing."""
    demo = start(TTL=str(TTL)).ready()
    before = demo.state()["sandbox"]["calls"]["ticket"]

    def has_grown() -> bool:
        state = demo.state()
        ticket = state["ticket"]
        assert ticket["state"] in ("fresh", "stale")
        assert 0 <= ticket["age"] < TTL
        assert 0 < ticket["expires_in"] <= TTL
        assert ticket["last_error"] is None
        return bool(state["sandbox"]["calls"]["ticket"] >= before + 2)

    wait_until(has_grown, timeout=3 * TTL, what="two renewals")
    assert demo.state()["sandbox"]["latest"][0]["outcome"] == 0


def test_nothing_secret_reaches_the_browser(demo: Demo) -> None:
    """No answer and no line in the terminal holds the ticket, the token or the secret."""
    assert SECRET in (QUICKSTART / "demo.py").read_text(), "the test looks for the wrong one"
    page = demo.page()
    config = config_of(page)
    answers = [page, json.dumps(demo.state()), demo.log]
    answers += [
        requests.get(f"{demo.url}/static/{file.name}", timeout=60).text
        for file in (QUICKSTART / "static").iterdir()
        if file.suffix != ".png"
    ]
    answers += [
        demo.post("/verdict", signed(config, demo.url)).text,
        demo.post("/verdict", []).text,
        demo.post("/refresh").text,
    ]
    for answer in answers:
        assert SECRET not in answer
        assert not TICKET.search(answer)


@pytest.mark.parametrize("origin", [None, "http://elsewhere.example", "null"])
@pytest.mark.parametrize("path", ["/verdict", "/refresh", "/trouble/down", "/break"])
def test_other_sites_press_no_button(demo: Demo, path: str, origin: str | None) -> None:
    """A POST that does not come from the demo's own page is refused."""
    assert demo.post(path, {}, origin).status_code == 403


@pytest.mark.parametrize("body", [None, [], {}, {"appId": "wx1"}])
def test_a_verdict_needs_a_config(demo: Demo, body: object) -> None:
    """What is no config is a 400 and not a 500."""
    assert demo.post("/verdict", body).status_code in (400, 415)


def test_trouble_is_shown_with_advice(start: Callable[..., Demo]) -> None:
    """WeChat's error arrives on the panel, and the ticket at hand goes on signing pages."""
    demo = start().ready()
    begin = time.monotonic()
    assert demo.post("/trouble/quota").json() == {"asked": 1}
    state = demo.state()
    assert state["ticket"]["state"] == "fresh"
    assert "45009" in state["ticket"]["last_error"]
    assert "Shanghai" in state["ticket"]["last_error"]
    assert state["ticket"]["retry_in"] > 60
    assert state["sandbox"]["latest"][0]["outcome"] == 45009
    again = demo.post("/refresh").json()
    if time.monotonic() - begin < 10:  # after which it would ask
        assert again == {"asked": 0}
    assert demo.verdict(config_of(demo.page()), f"{demo.url}/") == "config:ok"


def test_a_page_without_a_ticket_is_still_a_page(start: Callable[..., Demo]) -> None:
    """When WeChat never gave a ticket, the page renders and says so."""
    demo = start(FLASK_WXJSAPI_BACKGROUND_REFRESH="false").started()
    demo.post("/trouble/quota")
    page = demo.page()
    assert not CONFIG.search(page)
    assert "There is none" in page
    assert demo.state()["ticket"]["state"] == "invalid"


def test_a_revoked_token_is_replaced(start: Callable[..., Demo]) -> None:
    """The rejected call, a new token and the second try are all it takes."""
    demo = start().ready()
    assert demo.post("/trouble/revoke").json() == {"asked": 3}
    state = demo.state()
    assert state["ticket"]["last_error"] is None
    assert state["sandbox"]["calls"] == {"token": 2, "ticket": 3}


def test_another_account_signs_the_same_page(demo: Demo) -> None:
    """It comes at run time, with a ticket of its own; nobody else does."""

    def page() -> str | None:
        page = demo.page("/as/wxtea00000000000")
        return page if CONFIG.search(page) else None

    config = config_of(wait_until(page, 60, "there is a ticket"))
    assert config["appId"] == "wxtea00000000000"
    assert demo.verdict(config, f"{demo.url}/as/wxtea00000000000") == "config:ok"
    state = requests.get(f"{demo.url}/state?app_id=wxtea00000000000", timeout=60).json()
    assert state["ticket"]["state"] in ("fresh", "stale")
    assert requests.get(f"{demo.url}/as/wx-nobody", timeout=60).status_code == 404


def test_a_broken_ticket_is_good_for_nothing(start: Callable[..., Demo]) -> None:
    """The application does not know yet, and so its pages are refused."""
    demo = start().ready()
    assert demo.post("/break").json() == {"broken": True}
    assert demo.verdict(config_of(demo.page()), f"{demo.url}/") == "config:invalid signature"


@pytest.mark.parametrize(("spoken", "title"), [("zh-CN", "手机的判定"), ("de", "The ticket")])
def test_one_language(demo: Demo, spoken: str, title: str) -> None:
    """The browser's."""
    page = requests.get(demo.url, headers={"Accept-Language": spoken}, timeout=60).text
    assert title in page
    assert ("手机" in page) == (spoken == "zh-CN")


@pytest.mark.slow
def test_a_real_account(start: Callable[..., Demo], sandbox: Sandbox) -> None:
    """With an account in the environment the example asks its WeChat and has no sandbox."""
    demo = start(
        FLASK_WXJSAPI_APP_ID=sandbox.app_id,
        FLASK_WXJSAPI_APP_SECRET=sandbox.app_secret,
        FLASK_WXJSAPI_API_BASE_URL=sandbox.url,
    ).ready()
    page = demo.page("/?x=a|b")
    config = config_of(page)
    assert sandbox.verify(**signed(config, f"{demo.url}/?x=a|b")) == "config:ok"
    assert dict(sandbox.calls) == {"stable_token": 1, "getticket": 1}
    assert "Open this page inside WeChat" in page
    assert page.count("<button") == 1  # the language
    assert "bridge.js" not in page
    state = demo.state()
    assert state["sandbox"] is None
    assert state["ticket"]["state"] == "fresh"
    for path in ("/verdict", "/refresh", "/trouble/down", "/break"):
        assert demo.post(path, {}).status_code == 404
    for text in (page, json.dumps(state), demo.log):
        assert sandbox.app_secret not in text
        assert not TICKET.search(text)


def test_a_taken_port(start: Callable[..., Demo]) -> None:
    """A port that somebody has is named, with the command that takes another one."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        demo = start(port=port)
        assert demo.process.wait(60) == 1
    assert f"Port {port} is taken" in demo.log
    assert f"PORT={port + 1} make demo" in demo.log
    assert "Traceback" not in demo.log


@pytest.mark.parametrize(
    "env", [{"TTL": "soon"}, {"TTL": "0"}, {"FLASK_WXJSAPI_REFRESH_AHEAD": "x"}]
)
def test_a_setting_that_cannot_be_right(start: Callable[..., Demo], env: dict[str, str]) -> None:
    """It is named in one line."""
    demo = start(**env)
    assert demo.process.wait(60) == 1
    assert next(iter(env)).removeprefix("FLASK_") in demo.log
    assert "Traceback" not in demo.log


@pytest.mark.skipif(os.name != "posix", reason="a process gets Ctrl-C as a signal on POSIX only")
def test_ctrl_c(start: Callable[..., Demo]) -> None:
    """Ctrl-C ends it at once and without a traceback."""
    demo = start().started()
    demo.page()
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(60) == 0
    assert "Traceback" not in demo.log


def test_flask_finds_the_app(tmp_path: Path) -> None:
    """``flask --app examples/quickstart/app`` needs no more than that."""
    command = ["-m", "flask", "--app", str(QUICKSTART / "app"), "--debug", "routes"]
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "/state" in done.stdout
