"""Servers that have no command: ``python -m tests.servers.run NAME PORT``."""

from __future__ import annotations

import http.server
import json
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote

from tests.servers.app import application

HOST = "127.0.0.1"


def wsgiref(port: int) -> None:
    from wsgiref.simple_server import make_server

    make_server(HOST, port, application).serve_forever()


def behind(port: int) -> None:
    from wsgiref.simple_server import make_server

    from tests.servers.behind import application

    make_server(HOST, port, application).serve_forever()


def werkzeug(port: int) -> None:
    from werkzeug.serving import run_simple

    run_simple(HOST, port, application)


def gevent(port: int) -> None:
    from gevent.pywsgi import WSGIServer

    WSGIServer((HOST, port), application, log=None).serve_forever()


def eventlet(port: int) -> None:
    import eventlet
    from eventlet import wsgi

    wsgi.server(eventlet.listen((HOST, port)), application, log_output=False)


def tornado(port: int) -> None:
    from tornado.httpserver import HTTPServer
    from tornado.ioloop import IOLoop
    from tornado.wsgi import WSGIContainer

    HTTPServer(WSGIContainer(application)).listen(port, HOST)
    IOLoop.current().start()


def bjoern(port: int) -> None:
    import bjoern

    bjoern.run(application, HOST, port)


# -- functions: a gateway makes an event of a request ----------------------------------------------


def event_v1(target: str, headers: dict[str, str]) -> dict[str, Any]:
    """What a REST API hands over."""
    path, _, query = target.partition("?")
    lists = parse_qs(query, keep_blank_values=True)
    return {
        "version": "1.0",
        "httpMethod": "GET",
        "path": path,
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": {name: values[-1] for name, values in lists.items()} or None,
        "multiValueQueryStringParameters": lists or None,
        "requestContext": {"stage": "$default"},
        "body": "",
        "isBase64Encoded": False,
    }


def event_v2(target: str, headers: dict[str, str]) -> dict[str, Any]:
    """What a function's own URL hands over."""
    path, _, query = target.partition("?")
    return {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {name.lower(): value for name, value in headers.items()},
        "requestContext": {
            "domainName": "x.lambda-url.eu-west-1.on.aws",
            "http": {"method": "GET", "sourceIp": HOST, "protocol": "HTTP/1.1"},
        },
        "body": "",
        "isBase64Encoded": False,
    }


def event_of_http_api(target: str, headers: dict[str, str]) -> dict[str, Any]:
    """What an HTTP API hands over: a path that is raw by name only."""
    event = event_v2(target, headers)
    event["requestContext"]["domainName"] = "x.execute-api.eu-west-1.amazonaws.com"
    return event | {"rawPath": unquote(event["rawPath"])}


def apig_wsgi(port: int, make: Callable[..., dict[str, Any]]) -> None:
    from apig_wsgi import make_lambda_handler

    handler = make_lambda_handler(application)
    _serve_function(port, lambda *request: handler(make(*request), None))


def serverless_wsgi(port: int, make: Callable[..., dict[str, Any]]) -> None:
    from serverless_wsgi import handle_request

    _serve_function(port, lambda *request: handle_request(application, make(*request), None))


def _serve_function(port: int, function: Callable[[str, dict[str, str]], dict[str, Any]]) -> None:
    class Gateway(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            target = self.requestline.split(" ")[1]  # and not self.path, which has lost a slash
            headers = {**self.headers, "X-Forwarded-Proto": "http"}
            answer = function(target, headers)
            body = json.dumps(json.loads(answer["body"])).encode()
            self.send_response(answer["statusCode"])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    http.server.HTTPServer((HOST, port), Gateway).serve_forever()


PROGRAMS: dict[str, Callable[[int], None]] = {
    "wsgiref": wsgiref,
    "behind": behind,
    "werkzeug": werkzeug,
    "gevent": gevent,
    "eventlet": eventlet,
    "tornado": tornado,
    "bjoern": bjoern,
    "apig-wsgi-v1": lambda port: apig_wsgi(port, event_v1),
    "apig-wsgi-v2": lambda port: apig_wsgi(port, event_v2),
    "apig-wsgi-http": lambda port: apig_wsgi(port, event_of_http_api),
    "serverless-wsgi-v1": lambda port: serverless_wsgi(port, event_v1),
    "serverless-wsgi-v2": lambda port: serverless_wsgi(port, event_v2),
    "serverless-wsgi-http": lambda port: serverless_wsgi(port, event_of_http_api),
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](int(sys.argv[2]))
