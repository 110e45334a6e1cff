"""Every place where a secret could be seen, and a search of them all."""

from __future__ import annotations

import io
import json
import logging
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import rich.console
import rich.traceback
import sentry_sdk
from flask import Flask
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.instrumentation.urllib3 import URLLib3Instrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sentry_sdk.transport import Transport

#: Whose frames know every secret: those of the tests, which play the user's own code.
TESTS = str(Path(__file__).parent)

#: How much of a secret is one: a tracker may cut it short.
_PART = 16


@dataclass
class Seen:
    """What was seen of one attempt: texts by the kind of place, and whether it did fail."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    has_failed: bool = False

    def add(self, kind: str, *texts: object) -> None:
        self.texts.setdefault(kind, []).extend(map(str, texts))

    def counts(self) -> dict[str, int]:
        return {kind: len(texts) for kind, texts in self.texts.items()}

    def finds(self, secrets: Iterable[str]) -> list[str]:
        """Where a secret, or its beginning or end, is in a text, with what stands before it."""
        parts = {part for secret in secrets for part in (secret[:_PART], secret[-_PART:])}
        return sorted(
            {
                f"{kind}: {text[max(0, text.index(part) - 150) : text.index(part) + _PART]}"
                for kind, texts in self.texts.items()
                for text in texts
                for part in parts
                if part in text
            }
        )


# -- an exception --------------------------------------------------------------------------------


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and all behind it, also what ``from None`` hides."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and one not in found:
            found.append(one)
            waiting += [one.__cause__, one.__context__]
    return iter(found)


def _frames(trace: TracebackType | None) -> Iterator[Mapping[str, Any]]:
    """The variables of the frames that are not the tests'."""
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(TESTS):
            yield trace.tb_frame.f_locals
        trace = trace.tb_next


def _inside(value: object) -> list[object]:
    """What is reachable one level deep. Not the texts and configs that our objects keep: something
    has to keep the secrets, and what shows objects shows their ``repr``.
    """
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [*value]
    if type(value).__module__.startswith("flask_wxjsapi"):
        names = {*getattr(value, "__dict__", ()), *getattr(type(value), "__slots__", ())}
        found = [getattr(value, name, None) for name in names]
        return [one for one in found if not isinstance(one, (str, bytes, Mapping))]
    return []


def look_at_error(seen: Seen, error: BaseException) -> None:
    """All that a log, an error tracker or a test runner shows of an exception."""
    seen.has_failed = True
    for one in chain(error):
        seen.add("text", str(one), repr(one), repr(one.args), repr(vars(one)))
        seen.add("text", *getattr(one, "__notes__", ()))
        seen.add("traceback", *traceback.format_exception(one))
        for variables in _frames(one.__traceback__):
            seen.add("frame", *map(_shown, variables.values()))
            seen.add("reachable", *(_shown(x) for v in variables.values() for x in _inside(v)))
        if one.__traceback__ is not None:
            seen.add("showlocals", _as_pytest_shows(one))
            seen.add("rich", _as_rich_shows(one))


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:
        return f"no repr: {type(error).__name__}"


def _as_pytest_shows(error: BaseException) -> str:
    """What ``pytest --showlocals -vv`` prints of it."""

    def ours(info: pytest.ExceptionInfo[BaseException]) -> Any:
        return info.traceback.filter(lambda entry: not str(entry.path).startswith(TESTS))

    info = pytest.ExceptionInfo.from_exception(error)
    if not ours(info):
        return ""
    shown = info.getrepr(
        showlocals=True, funcargs=True, tbfilter=ours, truncate_locals=False, truncate_args=False
    )
    return str(shown)


def _as_rich_shows(error: BaseException) -> str:
    """What ``rich.traceback.install(show_locals=True)`` prints of it."""
    out = rich.console.Console(file=io.StringIO(), width=2000)
    out.print(
        rich.traceback.Traceback.from_exception(
            type(error),
            error,
            error.__traceback__,
            show_locals=True,
            locals_max_length=1000,
            locals_max_string=100_000,
            suppress=[TESTS],
            max_frames=0,
        )
    )
    return out.file.getvalue()  # type: ignore[attr-defined]  # a StringIO


# -- what listens --------------------------------------------------------------------------------


class Log(logging.Handler):
    """Everything that any logger says at DEBUG, with tracebacks and ``extra``."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != "app":  # the user's, who logs what is caught: see look_at_error()
            self.lines.append(f"{self.format(record)} {record.__dict__}")


class Watchers:
    """The log, Sentry and OpenTelemetry, told to keep all they can.

    :param options: for ``sentry_sdk.init()``.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.log = Log()
        logging.root.addHandler(self.log)
        logging.root.setLevel(logging.DEBUG)
        self._sent: list[str] = []
        self._exporter = InMemorySpanExporter()
        self._start_sentry(options)
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._provider = provider
        for instrumentor in (RequestsInstrumentor, URLLib3Instrumentor, RedisInstrumentor):
            instrumentor().instrument(tracer_provider=provider)

    def _start_sentry(self, options: Mapping[str, Any]) -> None:
        sent = self._sent

        class Kept(Transport):
            def capture_envelope(self, envelope: Any) -> None:
                for item in envelope.items:
                    event = item.payload.json
                    sent.append(json.dumps(_without_frames_of_tests(event), default=str))

        sentry_sdk.init(
            "http://key@sentry.example/1",
            transport=Kept,
            include_local_variables=True,
            max_value_length=100_000,
            **options,
        )

    def watch(self, app: Flask) -> None:
        FlaskInstrumentor().instrument_app(app, tracer_provider=self._provider)

    def collect(self, seen: Seen) -> None:
        """What they have kept since the last time."""
        sentry_sdk.flush()
        seen.add("log", *self.log.lines)
        seen.add("sentry", *self._sent)
        seen.add("span", *(span.to_json() for span in self._exporter.get_finished_spans()))
        self.log.lines.clear()
        self._sent.clear()
        self._exporter.clear()


def _without_frames_of_tests(event: Any) -> Any:
    """A copy of an event without the variables of frames that are the tests'."""
    if isinstance(event, list):
        return [_without_frames_of_tests(one) for one in event]
    if not isinstance(event, dict):
        return event
    if str(event.get("abs_path", "")).startswith(TESTS):
        return {name: one for name, one in event.items() if name != "vars"}
    return {name: _without_frames_of_tests(one) for name, one in event.items()}
