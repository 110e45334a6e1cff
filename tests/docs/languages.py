"""What becomes of a code block in another language than Python."""

from __future__ import annotations

import configparser
import contextlib
import importlib.util
import io
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from flask import Flask, render_template_string
from flask.cli import FlaskGroup

from flask_wxjsapi import WxJsApi, sandbox

from ..conftest import require
from .words import ACCOUNT

ROOT = Path(__file__).parent.parent.parent


def check_template(text: str, namespace: dict[str, Any]) -> None:
    """Rendered for ``/``, with ``values`` from the view; what it shows is signed."""
    with namespace["app"].test_request_context("/"):
        html = render_template_string(text, **namespace.get("values", {}))
    assert "wx.config({" in html
    assert "</script>'" not in html
    if "nonce=" in text:
        assert html.count("<script") == html.count('nonce="r4nd0m"') > 1


def check_nginx(text: str, namespace: dict[str, Any]) -> None:
    """Every line opens a block, closes one or ends a directive."""
    depth = 0
    for line in filter(None, (line.split("#")[0].strip() for line in text.splitlines())):
        assert line[-1] in "{};", line
        depth += line.count("{") - line.count("}")
        assert depth >= 0, line
    assert depth == 0


def check_ini(text: str, namespace: dict[str, Any]) -> None:
    configparser.ConfigParser().read_string(text)


def check_json(text: str, namespace: dict[str, Any]) -> None:
    json.loads(text)


def check_brackets(text: str, namespace: dict[str, Any]) -> None:
    """Each bracket closes the one that was opened last."""
    pairs = {")": "(", "]": "[", "}": "{"}
    open_ones: list[str] = []
    for character in re.sub(r"\"[^\"\n]*\"|'[^'\n]*'|//.*", "", text):
        if character in pairs.values():
            open_ones.append(character)
        elif character in pairs:
            assert open_ones
            assert open_ones.pop() == pairs[character]
    assert not open_ones


def check_javascript(text: str, namespace: dict[str, Any]) -> None:
    """Parsed by Node where there is one; as a module, which allows all that a page may have."""
    check_brackets(text, namespace)
    if node := shutil.which("node"):
        command = [node, "--check", "--input-type=module", "-"]
        result = subprocess.run(command, input=text, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr


def check_html(text: str, namespace: dict[str, Any]) -> None:
    """Its scripts are JavaScript."""
    for script in re.findall(r"<script[^>]*>(.*?)</script>", text, flags=re.S):
        check_javascript(script, namespace)


def check_console(text: str, namespace: dict[str, Any]) -> None:
    """Lines after a dollar are commands, the others what they print."""
    lines = re.findall(r"^\$ ((?:.*\\\n)*.*)", text, flags=re.M)
    assert lines, "there is no command after '$ '"
    check_shell("\n".join(lines), namespace)


def check_shell(text: str, namespace: dict[str, Any]) -> None:
    """Each command exists, with these options; settings are accepted, sandboxes are asked."""
    settings: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["export"]:
            del words[0]
        while words and re.match(r"\w+=", words[0]):  # export TTL=30, or TTL=30 make demo
            name, _, settings[name] = words.pop(0).partition("=")
        if words:
            assert words[0] in COMMANDS, f"nobody checks {line}"
            COMMANDS[words[0]](words[1:], namespace)
    with namespace["monkeypatch"].context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        app = Flask("environment")
        app.config.from_prefixed_env()
    accounts = {found[1] for name in settings if (found := re.match(r"FLASK_(\w*)WXJSAPI_", name))}
    for prefix in accounts:
        for key, value in ACCOUNT.items():
            app.config.setdefault(prefix + key, value)
        WxJsApi(app, name=prefix.rstrip("_").lower() or "default")


def check_pip(arguments: list[str], namespace: dict[str, Any]) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert arguments[0] == "install"
    for argument in arguments[1:]:
        if found := re.match(r"(?:Flask-WxJsApi|\.)\[(\w+)\]", argument):
            assert found[1] in setup["options.extras_require"]


def check_make(arguments: list[str], namespace: dict[str, Any]) -> None:
    for target in arguments:
        found = re.search(rf"^[^#\n]*\b{target}\b.*:", (ROOT / "Makefile").read_text(), flags=re.M)
        assert found, f"there is no make {target}"


def check_npm(arguments: list[str], namespace: dict[str, Any]) -> None:
    """Only the package of the folder ``client`` is installed."""
    package = json.loads((ROOT / "client" / "package.json").read_text(encoding="utf-8"))
    assert arguments == ["install", package["name"]]


def check_flask(arguments: list[str], namespace: dict[str, Any]) -> None:
    """The subcommand is Flask's or ours, with options that it has."""
    group = FlaskGroup(load_dotenv=False)
    WxJsApi(app := namespace["new_app"]())
    for name, own in app.cli.commands.items():
        group.add_command(own, name)
    command: click.Command = group
    while True:
        parser = command.make_parser(click.Context(command))
        _, arguments, _ = parser.parse_args(arguments)
        if not isinstance(command, click.Group) or not arguments:
            return
        command = command.commands[arguments.pop(0)]


def check_python(arguments: list[str], namespace: dict[str, Any]) -> None:
    """``python -m flask_wxjsapi.sandbox`` with options that it has, or a line of Python."""
    if arguments[0] == "-c":
        exec(compile(arguments[1], "-c", "exec"), {})
        return
    assert arguments[0] == "-m"
    assert importlib.util.find_spec(arguments[1]), arguments
    if arguments[1] == "flask_wxjsapi.sandbox":
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            sandbox.main(["--help"])
        known = set(re.findall(r"--[a-z-]+", text.getvalue()))
        assert {word for word in arguments[2:] if word.startswith("--")} <= known


def check_curl(arguments: list[str], namespace: dict[str, Any]) -> None:
    """What is sent to a sandbox is sent, to that of the page."""
    here, sandbox_url = "http://127.0.0.1:8900", namespace["upstream"].url
    if not any(argument.startswith(here) for argument in arguments):
        return
    if shutil.which("curl") is None:
        require("curl", "no curl: it is needed for the commands of the pages")
    arguments = [argument.replace(here, sandbox_url) for argument in arguments]
    subprocess.run(["curl", "--fail", "--silent", "--noproxy", "*", *arguments], check=True)
    namespace["upstream"].heal()


def check_waitress(arguments: list[str], namespace: dict[str, Any]) -> None:
    from waitress.adjustments import Adjustments

    known = {name.replace("_", "-") for name in Adjustments._param_map} | {"call"}
    for word in arguments:
        if word.startswith("--"):
            assert word[2:].partition("=")[0].removeprefix("no-") in known, word


def ignore(arguments: list[str], namespace: dict[str, Any]) -> None:
    """A command of the system's, whose arguments are the reader's own."""


COMMANDS: dict[str, Callable[[list[str], dict[str, Any]], None]] = {
    "curl": check_curl,
    "flask": check_flask,
    "make": check_make,
    "npm": check_npm,
    "pip": check_pip,
    "python": check_python,
    "unset": ignore,
    "waitress-serve": check_waitress,
}

#: The check of each language but Python.
LANGUAGES: dict[str, Callable[[str, dict[str, Any]], None]] = {
    "console": check_console,
    "html": check_html,
    "html+jinja": check_template,
    "ini": check_ini,
    "javascript": check_javascript,
    "js": check_javascript,
    "json": check_json,
    "nginx": check_nginx,
    "shell": check_shell,
    "ts": check_brackets,  # its types: tests/browser/test_npm_projects.py
}
