"""An access token provider for real processes: it asks the sandbox, or never returns."""

from __future__ import annotations

import threading
import time

import requests
from flask import current_app

from flask_wxjsapi import Credential


def give(rejected: str | None) -> Credential:
    config = current_app.config
    if config.get("PROVIDER_HANGS"):
        threading.Event().wait()
    body = {
        "grant_type": "client_credential",
        "appid": config["WXJSAPI_APP_ID"],
        "secret": config["WXJSAPI_APP_SECRET"],
    }
    url = f"{config['WXJSAPI_API_BASE_URL']}/cgi-bin/stable_token"
    answer, now = requests.post(url, json=body, timeout=5).json(), time.time()
    return Credential(answer["access_token"], now, now + answer["expires_in"])
