"""Apps that fetch tickets under a tracer: ``python -m tests.traced TRACER`` prints what that kept.

It reads a list of configs as JSON from standard input. A process of its own, since tracers change
the libraries they watch for good.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import requests
from flask import Flask

from flask_wxjsapi import WxJsApi

#: Given to a URL outside the library, to see that the tracer does look at URLs.
CANARY = "seen-by-the-tracer"

Tracer = tuple[Callable[[], AbstractContextManager[Any]], Callable[[], list[str]]]


def sentry() -> Tracer:
    """With all it can be told to send."""
    import sentry_sdk
    from sentry_sdk.transport import Transport

    kept: list[str] = []

    class Kept(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            kept.append(envelope.serialize().decode())

    sentry_sdk.init(
        "http://key@sentry.example/1",
        transport=Kept,
        traces_sample_rate=1.0,
        send_default_pii=True,
        max_request_body_size="always",
    )

    def finish() -> list[str]:
        sentry_sdk.flush()
        return kept

    return lambda: sentry_sdk.start_transaction(name="fetch"), finish


def opentelemetry(instrumentor: Any) -> Tracer:
    """With the attributes of both the old and the new conventions."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor.instrument(tracer_provider=provider)
    return nullcontext, lambda: [span.to_json() for span in exporter.get_finished_spans()]


def tracer(name: str) -> Tracer:
    if name == "requests":
        from opentelemetry.instrumentation.requests import RequestsInstrumentor

        return opentelemetry(RequestsInstrumentor())
    if name == "urllib3":
        from opentelemetry.instrumentation.urllib3 import URLLib3Instrumentor

        return opentelemetry(URLLib3Instrumentor())
    return sentry()


def use(wxjsapi: WxJsApi) -> None:
    """Read and renew; what goes wrong is logged, which sends it to Sentry with its frames."""
    for way in (lambda: wxjsapi.ticket, wxjsapi.refresh):
        try:
            way()
        except Exception:
            logging.getLogger("app").exception("no ticket")


def app_of(config: dict[str, Any]) -> tuple[Flask, WxJsApi]:
    app = Flask("tests")
    app.config.update(config, TESTING=True)
    return app, WxJsApi(app)


def main(name: str) -> None:
    configs = json.load(sys.stdin)
    logging.basicConfig(level=logging.DEBUG)
    trace, finish = tracer(name)
    with trace():
        requests.get(f"{configs[0]['WXJSAPI_API_BASE_URL']}/?canary={CANARY}", timeout=60)
        for app, wxjsapi in map(app_of, configs):
            with app.app_context():
                use(wxjsapi)
    print(*finish(), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1])
