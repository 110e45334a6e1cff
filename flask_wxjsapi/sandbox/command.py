"""The command line: ``python -m flask_wxjsapi.sandbox``."""

from __future__ import annotations

import argparse
import json
import time

from .accounts import WORLDS
from .sandbox import APP_ID, APP_SECRET, Sandbox


def _agent(text: str) -> tuple[str, str, str]:
    parts = text.split(":")
    if len(parts) != 3 or not all(parts):
        raise argparse.ArgumentTypeError("CORPID:SECRET:AGENTID is wanted")  # and no secret shown
    return parts[0], parts[1], parts[2]


def main(argv: list[str] | None = None) -> int:
    """Serve a sandbox until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m flask_wxjsapi.sandbox", description="A WeChat to develop against."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8900, help="0 for any free one (default: 8900)")
    parser.add_argument("--app-id", default=APP_ID)
    parser.add_argument("--app-secret", default=APP_SECRET)
    parser.add_argument("--ttl", type=float, default=7200, help="life of tokens and tickets, s")
    parser.add_argument(
        "--ticket", choices=tuple(WORLDS), default="same",
        help="what a repeated call for a ticket answers (default: same). "
        + " ".join(f"{world}: {text}." for world, text in WORLDS.items()),
    )  # fmt: skip
    parser.add_argument("--delay", type=float, default=0.0, help="time each answer takes, s")
    parser.add_argument("--ip-whitelist", action="append", default=[], metavar="IP")
    parser.add_argument("--domain", action="append", default=[], help="JS-safe; repeatable")
    parser.add_argument(
        "--agent", action="append", default=[], type=_agent, metavar="CORPID:SECRET:AGENTID",
        help="an application of a WeCom corp; repeatable",
    )  # fmt: skip
    args = parser.parse_args(argv)
    agents: list[tuple[str, str, str]] = args.agent
    try:
        sandbox = Sandbox(
            args.app_id, args.app_secret, ticket=args.ticket, token_lifetime=args.ttl,
            ticket_lifetime=args.ttl, delay=args.delay, ip_whitelist=args.ip_whitelist,
            domains=args.domain,
        )  # fmt: skip
        for agent in agents:
            sandbox.add_agent(*agent)
        sandbox.serve(args.host, args.port)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    with sandbox:
        # Somebody may give a real secret, so that the application's settings can stay as they are.
        secret = args.app_secret if args.app_secret == APP_SECRET else "…"
        lines = (
            f"WeChat sandbox on {sandbox.url}/sandbox/  (Ctrl-C stops it)",
            f"  export FLASK_WXJSAPI_API_BASE_URL={sandbox.url}",
            f"  export FLASK_WXJSAPI_APP_ID={args.app_id}",
            f"  export FLASK_WXJSAPI_APP_SECRET={secret}",
            f"  curl -d '{json.dumps({'fault': '45009', 'times': 3})}' {sandbox.url}/sandbox/fail",
            f'  <script src="{sandbox.url}/sandbox/bridge.js"></script>  makes a browser its phone',
            *(f"WeCom corp {corp}, agent {agent}, secret as given" for corp, _, agent in agents),
        )
        print(*lines, sep="\n", flush=True)  # noqa: T201 - a command talks to its user
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            return 0
