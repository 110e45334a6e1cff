"""Failures of every public method, and a search for secrets wherever one could be seen."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Valkey, require
from tests.faults.conftest import Figure

pytestmark = pytest.mark.usefixtures("no_environment")

PAGE = Path(__file__).parents[2] / "docs" / "security.rst"
ALL = {"traces_sample_rate": 1.0, "send_default_pii": True, "attach_stacktrace": True}
PII = {"send_default_pii": True}
TRACES = {"traces_sample_rate": 1.0}
#: What each kind of leak is planted in, and where it must be found then.
PLANTS = {
    "text": {"text", "traceback", "debugger", "showlocals", "rich", "sentry"},
    "behind": {"text", "traceback"},
    "frame": {"frame", "showlocals", "rich", "sentry"},
    "reachable": {"reachable"},
    "log": {"log"},
    "extra": {"log"},
    "breadcrumb": {"sentry"},
    "sentry span": {"sentry"},
    "span": {"span"},
    "url": {"span"},
    "answer": {"answer"},
    "output": {"output"},
}
METHODS = ("ticket", "access_token", "card_ticket", "config", "agent_config", "script", "refresh")
METHODS += ("status", "account", "sign", "sign_card", "GET", "flask wxjsapi", "setting")

Found = dict[str, dict[str, Any]]


def provoke(**orders: Any) -> Found:
    """What was seen of each failure, by its name."""
    try:
        __import__("tests.faults.leaks")
    except ImportError as error:
        require("tracers", f"no {error.name}: pip install -e .[test]")
    result = subprocess.run(
        [sys.executable, "-m", "tests.faults.leaking"],
        input=json.dumps(orders),
        env={**os.environ, "OTEL_SEMCONV_STABILITY_OPT_IN": "http/dup,database/dup"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    found: Found = json.loads(result.stdout.splitlines()[-1])
    return found


def leaks(found: Found) -> dict[str, list[str]]:
    return {name: one["finds"] for name, one in found.items() if one["finds"]}


def places(found: Found) -> Counter[str]:
    return sum((Counter(one["places"]) for one in found.values()), Counter())


def failures(found: Found) -> int:
    return sum(one["failed"] for one in found.values())


def hooks() -> str:
    """The code of docs/security.rst."""
    block = re.search(r"\.\. code-block:: python\n\n((?:    .*\n|\n)+)", PAGE.read_text("utf-8"))
    assert block
    return re.sub("^    ", "", block[1], flags=re.M)


def check(found: Found, figure: Figure, what: str) -> None:
    assert leaks(found) == {}
    seen = places(found)
    kinds = ", ".join(f"{kind} {count}" for kind, count in seen.items())
    figure(
        f"leaks: {what}", "0 finds", f"{failures(found)} failures, {seen.total()} places: {kinds}"
    )


@pytest.mark.slow
def test_mistakes_and_settings_leak_nothing(figure: Figure) -> None:
    """A view's mistakes while there is a ticket, and settings with a secret in or beside them."""
    found = provoke(sentry=ALL, plays=["mistakes", "settings"])
    assert failures(found) >= 40
    check(found, figure, "mistakes and settings")


@pytest.mark.slow
@pytest.mark.parametrize("sentry", [ALL, TRACES, PII, {}], ids=["all", "traces", "pii", "defaults"])
def test_no_failure_leaks(sentry: dict[str, Any], figure: Figure) -> None:
    """Each public method with each thing that it depends on away or hostile."""
    found = provoke(sentry=sentry)
    names = " ".join(found)
    assert [method for method in METHODS if method not in names] == []
    check(found, figure, f"all, Sentry with {', '.join(sentry) or 'its defaults'}")


def test_every_planted_leak_is_found() -> None:
    """The search finds a secret in each kind of place."""
    found = provoke(sentry=ALL, plays=[], plants=True)
    kinds = {name: {find.partition(":")[0] for find in one["finds"]} for name, one in found.items()}
    missed = {name: PLANTS[name] - kinds[name] for name in PLANTS if PLANTS[name] - kinds[name]}
    assert missed == {}
    assert set().union(*PLANTS.values()) == set(places(found))


@pytest.mark.slow
def test_tracers_of_redis_show_no_value(valkey: Valkey, figure: Figure) -> None:
    """Neither OpenTelemetry nor Sentry shows what is written to Redis, without PII."""
    found = provoke(sentry=TRACES, plays=[], redis=valkey.url)
    check(found, figure, "tracers of Redis")


@pytest.mark.slow
def test_values_in_redis_are_hidden_by_the_hooks(valkey: Valkey, figure: Figure) -> None:
    """Sentry with PII shows what is written to Redis; with the hooks of the page it does not."""
    shown = provoke(sentry=ALL, plays=[], redis=valkey.url)
    assert {find.partition(":")[0] for finds in leaks(shown).values() for find in finds} == {
        "sentry"
    }
    with valkey.client() as client:
        client.flushall()
    found = provoke(sentry=ALL, plays=[], redis=valkey.url, hooks=hooks())
    check(found, figure, "tracers of Redis, with hooks")
