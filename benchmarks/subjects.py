"""What is measured: ways to a signed ``wx.config`` that all give a page the same dict."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from hashlib import sha1
from typing import Any

from flask import Flask

from flask_wxjsapi import WxJsApi, sign
from flask_wxjsapi.sandbox import Sandbox

#: A page of usual length, and a ticket of the length that WeChat's have.
URL = "https://shop.example.com/goods/4711?from=singlemessage&id=9b2f"
TICKET = "sM4AOVdWfPE4DxkXGEs8VMCPGGVi4C3VM0P37wVUCFvkVAy_90u5h9nbSlYy3-Sl-HhTdfl2fzFy1AOcHKP7qg"
APIS = ["chooseImage", "scanQRCode"]
APP_ID, APP_SECRET = Sandbox().app_id, Sandbox().app_secret


def wx_config(app_id: str, nonce: str, timestamp: int, signature: str) -> dict[str, Any]:
    """What a page needs, made by hand for those that only give a signature."""
    return {
        "debug": False,
        "appId": app_id,
        "timestamp": timestamp,
        "nonceStr": nonce,
        "signature": signature,
        "jsApiList": list(APIS),
        "openTagList": [],
    }


def bound() -> str:
    """The least that a signature takes: a nonce, the time, one string and its SHA-1."""
    nonce, now = secrets.token_hex(8), int(time.time())
    text = f"jsapi_ticket={TICKET}&noncestr={nonce}&timestamp={now}&url={URL}"
    return sha1(text.encode()).hexdigest()


def signed(ticket: str = TICKET) -> str:
    """The same through ``sign()``."""
    return sign(ticket=ticket, noncestr=secrets.token_hex(8), timestamp=int(time.time()), url=URL)


# -- Flask-WxJsApi ---------------------------------------------------------------------------------


def account(sandbox_url: str) -> dict[str, str]:
    """The three settings that every app has."""
    return {
        "WXJSAPI_APP_ID": APP_ID,
        "WXJSAPI_APP_SECRET": APP_SECRET,
        "WXJSAPI_API_BASE_URL": sandbox_url,
    }


def make_app(sandbox_url: str, **config: Any) -> tuple[Flask, WxJsApi]:
    """An app as in production: with the background thread, the cache in memory by default."""
    app = Flask("benchmarks")
    app.config.update(account(sandbox_url), WXJSAPI_JS_API_LIST=APIS, CACHE_TYPE="SimpleCache")
    app.config.update(config)
    return app, WxJsApi(app)


def make_platform(
    sandbox_url: str, load: Callable[[str], dict[str, str] | None], **config: Any
) -> tuple[Flask, WxJsApi]:
    """An app without an account of its own: a loader has the keys of each."""
    app = Flask("benchmarks")
    app.config.update(WXJSAPI_API_BASE_URL=sandbox_url, WXJSAPI_JS_API_LIST=APIS, **config)
    wxjsapi = WxJsApi()
    wxjsapi.account_loader(load)
    wxjsapi.init_app(app)
    return app, wxjsapi


def redis_cache(url: str) -> dict[str, str]:
    """The settings that put the store on Redis."""
    return {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": url}


def config_for_url(sandbox_url: str) -> Callable[[], Any]:
    """``config(url=…)`` in an application context."""
    app, wxjsapi = make_app(sandbox_url)
    app.app_context().push()
    wxjsapi.config(url=URL)
    return lambda: wxjsapi.config(url=URL)


def config_in_request(sandbox_url: str) -> Callable[[], Any]:
    """``config()`` in a request, whose URL it finds out."""
    app, wxjsapi = make_app(sandbox_url)
    app.test_request_context(URL).push()
    assert wxjsapi.config(url=URL).keys() == wxjsapi.config().keys()
    return wxjsapi.config


# -- peers -----------------------------------------------------------------------------------------


def wechatpy_client(
    sandbox_url: str, session: Any, app_id: str = APP_ID, secret: str = APP_SECRET
) -> Any:
    """wechatpy's client with WeChat's host replaced; its token URL is not a setting."""
    from wechatpy import WeChatClient

    class Client(WeChatClient):  # type: ignore[misc]
        API_BASE_URL = f"{sandbox_url}/cgi-bin/"

        def fetch_access_token(self) -> Any:
            return self._fetch_access_token(
                url=f"{sandbox_url}/cgi-bin/token",
                params={
                    "grant_type": "client_credential",
                    "appid": self.appid,
                    "secret": self.secret,
                },
            )

    return Client(app_id, secret, session=session)


def wechatpy_config(client: Any) -> dict[str, Any]:
    """A config as wechatpy's documentation makes one."""
    from wechatpy.utils import random_string

    nonce, now = random_string(16), int(time.time())
    ticket = client.jsapi.get_jsapi_ticket()
    signature = client.jsapi.get_jsapi_signature(nonce, ticket, now, URL)
    return wx_config(client.appid, nonce, now, signature)


def wechatpy_session(redis_url: str | None) -> Any:
    """wechatpy's storage, on Redis if there is a URL of one."""
    from wechatpy.session.memorystorage import MemoryStorage
    from wechatpy.session.redisstorage import RedisStorage

    return MemoryStorage() if redis_url is None else RedisStorage(redis_client(redis_url))


def wechatpy(sandbox_url: str, redis_url: str | None = None) -> Callable[[], Any]:
    client = wechatpy_client(sandbox_url, wechatpy_session(redis_url))
    return lambda: wechatpy_config(client)


def pywe(sandbox_url: str, redis_url: str | None = None) -> Callable[[], Any]:
    """pywe-jssdk, whose host is an attribute of its two singletons."""
    from pywe_jssdk import jsapi_signature_params
    from pywe_storage import MemoryStorage, RedisStorage
    from pywe_ticket.pyweticket import ticketcls
    from pywe_token import token

    for one, name in ((ticketcls, "WECHAT_TICKET"), (token.token, "WECHAT_ACCESS_TOKEN")):
        setattr(one, name, getattr(one, name).replace("https://api.weixin.qq.com", sandbox_url))
    storage = MemoryStorage() if redis_url is None else RedisStorage(redis_client(redis_url))

    def config() -> dict[str, Any]:
        made = jsapi_signature_params(APP_ID, APP_SECRET, URL, storage=storage)
        return wx_config(made["appId"], made["nonceStr"], made["timestamp"], made["signature"])

    return config


def redis_client(url: str) -> Any:
    import redis

    return redis.Redis.from_url(url)


def redis_read(url: str) -> Callable[[], Any]:
    """One read of Redis and nothing else: what any ticket that is kept there costs."""
    client, key = redis_client(url), f"bench:{os.getpid()}"
    client.set(key, TICKET)
    return lambda: client.get(key)
