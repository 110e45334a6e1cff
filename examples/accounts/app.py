"""One app with four accounts: two official accounts, and two applications of a WeCom corp.

From the top of the repository::

    python examples/accounts           # PORT=5000 is the default

That needs no account: a sandbox plays WeChat and WeCom. Real ones come from the environment, each
with its name before the keys, and then all of them::

    export FLASK_WXJSAPI_APP_ID=wx... FLASK_WXJSAPI_APP_SECRET=...
    export FLASK_SHOP_WXJSAPI_APP_ID=wx... FLASK_SHOP_WXJSAPI_APP_SECRET=...
    export FLASK_HR_WXJSAPI_APP_ID=ww... FLASK_HR_WXJSAPI_APP_SECRET=...
    export FLASK_HR_WXJSAPI_AGENT_ID=1000001
    export FLASK_CRM_WXJSAPI_APP_ID=ww... FLASK_CRM_WXJSAPI_APP_SECRET=...
    export FLASK_CRM_WXJSAPI_AGENT_ID=1000002

A command names the account; the sandbox needs ``--debug`` there as well::

    flask --debug --app examples/accounts/app wxjsapi --account shop doctor
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Flask, render_template

from flask_wxjsapi import WxJsApi

wxjsapi = WxJsApi()  # WXJSAPI_APP_ID, wx_script()
shop = WxJsApi(name="shop")  # SHOP_WXJSAPI_APP_ID, shop_wx_script()
hr = WxJsApi(name="hr")  # HR_WXJSAPI_APP_ID, hr_wx_script(), hr_wx_agent_config()
crm = WxJsApi(name="crm")

WECOM = {"HR_WXJSAPI_PLATFORM": "wecom", "CRM_WXJSAPI_PLATFORM": "wecom"}
SANDBOX = {
    "WXJSAPI_APP_ID": "wx0123456789abcdef",
    "WXJSAPI_APP_SECRET": "any-will-do",
    "WXJSAPI_API_BASE_URL": "sandbox",
    "SHOP_WXJSAPI_APP_ID": "wxfedcba9876543210",
    "SHOP_WXJSAPI_APP_SECRET": "any-will-do",
    "SHOP_WXJSAPI_API_BASE_URL": "sandbox",
    # A corp has one id, and each of its applications an AgentId and a secret.
    "HR_WXJSAPI_APP_ID": "ww0123456789abcdef",
    "HR_WXJSAPI_AGENT_ID": "1000001",
    "HR_WXJSAPI_APP_SECRET": "any-for-hr",
    "HR_WXJSAPI_API_BASE_URL": "sandbox",
    "CRM_WXJSAPI_APP_ID": "ww0123456789abcdef",
    "CRM_WXJSAPI_AGENT_ID": "1000002",
    "CRM_WXJSAPI_APP_SECRET": "any-for-crm",
    "CRM_WXJSAPI_API_BASE_URL": "sandbox",
}


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    app = Flask(__name__)
    app.config.update(WECOM)
    app.config.from_prefixed_env()
    app.config.update(config or {})
    if "WXJSAPI_APP_ID" not in app.config:
        app.config.update(SANDBOX)
    for account in (wxjsapi, shop, hr, crm):
        account.init_app(app)

    @app.get("/", defaults={"name": "default"})
    @app.get("/<any(shop, hr, crm):name>")
    def page(name: str) -> str:
        return render_template(f"{name}.html")

    return app
