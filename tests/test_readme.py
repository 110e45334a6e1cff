"""What the READMEs say is run, and both languages say the same."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, render_template_string

from flask_wxjsapi import Credential, TicketServer, WxJsApi
from flask_wxjsapi._settings import KEYS, Settings
from flask_wxjsapi.sandbox import Sandbox

from .conftest import APP_OF_THE_EXAMPLES

ROOT = Path(__file__).parent.parent
READMES = ["README.rst", "README.zh_CN.rst"]


@pytest.fixture(params=READMES)
def readme(request: pytest.FixtureRequest) -> str:
    return (ROOT / request.param).read_text(encoding="utf-8")


def _blocks(readme: str, language: str) -> list[str]:
    found = re.findall(rf"\.\. code-block:: {re.escape(language)}\n\n((?:    .*\n|\n)+)", readme)
    return [textwrap.dedent(block) for block in found]


def test_every_setting_is_in_the_table_and_no_other(readme: str) -> None:
    """The table has exactly the keys that the code reads."""
    keys = re.findall(r"^``WXJSAPI_(\w+)``", readme, flags=re.M)
    assert keys == list(KEYS)


def test_the_defaults_in_the_table_are_the_codes(readme: str) -> None:
    """The numbers in the table are those of the code."""
    for key in ("REFRESH_AHEAD", "REFRESH_TIMEOUT", "SYNC_INTERVAL"):
        row = re.search(rf"^``WXJSAPI_{key}`` +(\d+)", readme, flags=re.M)
        assert row is not None
        assert int(row.group(1)) == KEYS[key].default


def _app_from(block: str, sandbox: Sandbox, namespace: dict[str, Any]) -> Flask:
    """The quickstart's app, pointed at the sandbox."""
    block = block.replace(
        'WXJSAPI_APP_ID="wx0123456789abcdef", WXJSAPI_APP_SECRET="the-AppSecret"',
        f'TESTING=True, WXJSAPI_APP_ID="{sandbox.app_id}", '
        f'WXJSAPI_APP_SECRET="{sandbox.app_secret}", WXJSAPI_API_BASE_URL="{sandbox.url}"',
    )
    assert sandbox.url in block
    exec(block, namespace)
    app: Flask = namespace["app"]
    return app


def test_the_quickstart_runs_as_it_is_pasted(
    readme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its two files, where the README says, make a page with the sandbox that the README names."""
    assert readme.index("``app.py``") < readme.index(".. code-block:: python")
    assert readme.index("``templates/index.html``") < readme.index(".. code-block:: html+jinja")
    (tmp_path / "templates").mkdir()
    for template in _blocks(readme, "html+jinja"):
        (tmp_path / "templates" / "index.html").write_text(template, encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        namespace: dict[str, Any] = {"__name__": "app_of_the_readme"}
        exec(_blocks(readme, "python")[0], namespace)
        # What its last lines say of those who have no account, set before the app is wired.
        app = Flask("app_of_the_readme", root_path=str(tmp_path))
        app.config.update(namespace["app"].config, DEBUG=True, WXJSAPI_API_BASE_URL="sandbox")
        WxJsApi(app)
        app.add_url_rule("/", view_func=namespace["index"])
        assert "wx.config({" in app.test_client().get("/").text


def test_the_quickstart_makes_a_page_that_a_phone_accepts(readme: str, sandbox: Sandbox) -> None:
    """The three lines and the template calls, as they stand, run against the sandbox."""
    namespace: dict[str, Any] = {"__name__": "quickstart"}
    app = _app_from(_blocks(readme, "python")[0], sandbox, namespace)
    plain, sharing = _blocks(readme, "html+jinja")
    with app.test_request_context("/?q=%E4%B8%AD"):
        assert "chooseImage" in render_template_string(plain)
        html = render_template_string(sharing)
        assert "updateTimelineShareData" in html
        assert "http://localhost/static/share.png" in html
        values: dict[str, Any] = {}
        exec(_blocks(readme, "python")[1], namespace, values)
        config = namespace["wxjsapi"].config(["chooseImage"])
    verdict = sandbox.verify(
        appId=config["appId"],
        nonceStr=config["nonceStr"],
        timestamp=config["timestamp"],
        signature=config["signature"],
        url="http://localhost/?q=%E4%B8%AD",
    )
    assert verdict == "config:ok"


def test_the_single_page_part_works(readme: str, make_app: Any) -> None:
    """Its setting brings the script that its HTML loads."""
    config = Flask("config")
    exec(_blocks(readme, "python")[2], {"app": config})
    app, _ = make_app(WXJSAPI_URL_PREFIX=config.config["WXJSAPI_URL_PREFIX"])
    (source,) = re.findall(r'src="(.+?)"', _blocks(readme, "html")[0])
    assert "wxjsapi" in app.test_client().get(source).text


def test_the_custom_server_keeps_the_ticket(readme: str, sandbox: Sandbox) -> None:
    """The class in the README works with a session that does what SQLAlchemy's does."""
    rows: dict[str, Any] = {}

    class Ticket:
        def __init__(self, key: str, record: dict[str, Any]) -> None:
            self.key, self.record = key, record

    class Session:
        def get(self, model: type, key: str) -> Ticket | None:
            return rows.get(key)

        def merge(self, row: Ticket) -> None:
            rows[row.key] = row

        def commit(self) -> None:
            pass

    app = Flask("custom")
    app.config.update(
        TESTING=True,
        WXJSAPI_APP_ID=sandbox.app_id,
        WXJSAPI_APP_SECRET=sandbox.app_secret,
        WXJSAPI_API_BASE_URL=sandbox.url,
    )
    db = type("db", (), {"session": Session()})
    namespace: dict[str, Any] = {"app": app, "db": db, "Ticket": Ticket}
    exec(_blocks(readme, "python")[3], namespace)
    assert issubclass(namespace["DatabaseTicketServer"], TicketServer)
    wxjsapi = WxJsApi(app)
    with app.app_context():
        ticket = wxjsapi.ticket
    (row,) = rows.values()
    assert Credential.from_dict(row.record).value == ticket


def test_a_second_account_has_keys_and_functions_of_its_own(readme: str, sandbox: Sandbox) -> None:
    """What the comment beside it names is there."""
    app = Flask("accounts")
    app.config.update(
        TESTING=True,
        SHOP_WXJSAPI_APP_ID=sandbox.app_id,
        SHOP_WXJSAPI_APP_SECRET=sandbox.app_secret,
        SHOP_WXJSAPI_API_BASE_URL=sandbox.url,
    )
    exec(_blocks(readme, "python")[4], {"app": app, "WxJsApi": WxJsApi})
    with app.test_request_context("/"):
        assert sandbox.app_id in render_template_string("{{ shop_wx_script() }}")


def test_the_settings_for_wecom_sign_for_the_application(readme: str, sandbox: Sandbox) -> None:
    """As they stand; WeCom's phone accepts the page."""
    app = Flask("wecom")
    exec(_blocks(readme, "python")[5], {"app": app})
    app.config.update(TESTING=True, WXJSAPI_API_BASE_URL=sandbox.url)
    settings = Settings.load(app.config)
    sandbox.add_agent(settings.app_id, settings.app_secret, settings.agent_id or "")
    wxjsapi = WxJsApi(app)
    with app.test_request_context("/a"):
        config = {**wxjsapi.agent_config()}
        assert render_template_string("{{ wx_agent_config().corpid }}") == settings.app_id
    del config["jsApiList"]
    assert sandbox.verify_agent(**config, url="http://localhost/a") == "agentConfig:ok"  # type: ignore[arg-type]


def test_the_settings_of_a_central_server_and_its_client_fit(readme: str, make_app: Any) -> None:
    """The server takes the client's token, and the client's URL is the server's endpoint."""
    texts = re.split(r"^# .*$", _blocks(readme, "python")[6], flags=re.M)
    configs = []
    for text in texts[1:]:
        app = Flask("config")
        exec(text, {"app": app})
        configs.append({k: v for k, v in app.config.items() if k.startswith("WXJSAPI_")})
    server, client = configs
    app, wxjsapi = make_app(**server)
    loaded = Settings.load({"WXJSAPI_APP_ID": "wx0123456789abcdef", **client})
    headers = {"Authorization": f"Bearer {loaded.central_token}"}
    answer = app.test_client().get(f"{loaded.central_url}/ticket", headers=headers).json
    with app.app_context():
        assert answer["value"] == wxjsapi.ticket


def test_the_test_example_passes(readme: str, pytester: pytest.Pytester) -> None:
    """The example test runs as it stands, beside a create_app like the quickstart's."""
    block = _blocks(readme, "python")[7]
    plugins, _, test = block.partition("\n\n")
    pytester.makeconftest(plugins)
    pytester.makepyfile(APP_OF_THE_EXAMPLES + "\n" + test)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)


def test_both_languages_have_the_same_parts() -> None:
    """Sections, code and links are in step."""
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in READMES]
    counts = [
        (
            len(re.findall(r"^(?:-{3,}|~{3,})$", text, flags=re.M)),
            len(re.findall(r"^\.\. code-block::", text, flags=re.M)),
            len(re.findall(r"^\* ", text, flags=re.M)),
            sorted(set(re.findall(r"WXJSAPI_\w+", text))),
        )
        for text in texts
    ]
    assert counts[0] == counts[1]


def test_the_make_targets_named_in_the_docs_exist() -> None:
    """A command that the docs name can be run."""
    makefile = (ROOT / "Makefile").read_text()
    for name in [*READMES, "CONTRIBUTING.rst"]:
        for target in re.findall(r"make ([a-z-]+)", (ROOT / name).read_text(encoding="utf-8")):
            assert re.search(rf"^[^#\n]*\b{target}\b.*:", makefile, flags=re.M), target
