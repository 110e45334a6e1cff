# pyright: strict
"""How an app uses the public names; mypy and pyright, both strict, have nothing to say."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Flask, Response, jsonify, render_template_string
from markupsafe import Markup

import flask_wxjsapi
from flask_wxjsapi import (
    AgentConfig,
    Credential,
    JsApi,
    Status,
    TicketServer,
    TicketUnavailable,
    TransportError,
    UnknownAccount,
    WeChatAPIError,
    WxConfig,
    WxJsApi,
    WxJsApiError,
    sign,
    sign_card,
    ticket_refresh_failed,
    ticket_refreshed,
)


class MyServer(TicketServer):
    """A ticket server as a user writes one."""

    def __init__(self) -> None:
        self.rows: dict[str, Mapping[str, object]] = {}

    def find(self, key: str) -> Credential | None:
        record = self.rows.get(key)
        return None if record is None else Credential.from_dict(record)

    def save(self, key: str, credential: Credential) -> None:
        self.rows[key] = credential.to_dict()


def create_app() -> Flask:
    app = Flask(__name__)
    app.config["WXJSAPI_TICKET_SERVER"] = MyServer
    wxjsapi = WxJsApi()
    shop = WxJsApi(app, name="shop")
    wxjsapi.init_app(app)
    wxjsapi.start(app)
    wxjsapi.close(app)

    @wxjsapi.account_loader
    def load_account(app_id: str) -> dict[str, str] | None:
        return {"APP_SECRET": "s"} if app_id == "wx1" else None

    def on_refreshed(app: Flask, account: str, kind: str, expires_at: float) -> None:
        print(app.name, account.upper(), kind.upper(), expires_at + 1)

    def on_failed(app: Flask, account: str, kind: str, error: WxJsApiError) -> None:
        print(account, kind, str(error))

    ticket_refreshed.connect(on_refreshed, app)
    ticket_refresh_failed.connect(on_failed, app)

    @app.get("/")
    def page() -> str:
        script: Markup = wxjsapi.script(["scanQRCode"], share={"title": "T"}, nonce="n", url=None)
        return render_template_string("{{ script }}", script=script)

    @app.get("/config")
    def config() -> Response:
        signed: WxConfig = shop.config(("chooseImage",), open_tag_list=[], debug=False, url="u")
        timestamp: int = signed["timestamp"]
        names: list[str] = signed["jsApiList"]
        return jsonify(signed, timestamp, names)

    @app.get("/<app_id>")
    def of_account(app_id: str) -> tuple[Response, int]:
        account: JsApi = wxjsapi.account(app_id)
        try:
            return jsonify(account.config([]), account.status().app_id, load_account(app_id)), 200
        except UnknownAccount as error:
            return jsonify(error.app_id), 404

    @app.get("/agent")
    def agent() -> Response:
        signed: AgentConfig = shop.agent_config(["selectExternalContact"], "https://x/")
        identity: str = signed["corpid"] + signed["agentid"]
        card: str = sign_card([wxjsapi.card_ticket, signed["timestamp"], "card id"])
        return jsonify(signed, identity, card)

    @app.get("/values")
    def values() -> dict[str, object]:
        status: Status = wxjsapi.status()
        left: float | None = None if status.expires_at is None else status.expires_at - 1
        signature: str = sign(ticket=wxjsapi.ticket, noncestr="n", timestamp=1, url="https://x/")
        return {"left": left, "signature": signature, "token": wxjsapi.access_token}

    @app.post("/refresh")
    def refresh() -> tuple[str, int]:
        try:
            ticket: str = wxjsapi.refresh()
        except WeChatAPIError as error:
            code: int = error.errcode
            return f"{code} {error.errmsg} {error.advice}", 502
        except TicketUnavailable as error:
            seconds: int = error.retry_after
            return str(seconds), 503
        except (TransportError, flask_wxjsapi.WxJsApiError) as error:
            return str(error), 502
        return str(len(ticket)), 200

    return app
