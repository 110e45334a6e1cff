"""The calls of WeChat and WeCom by path, how both word an error, and JSON as they send it."""

from __future__ import annotations

import json
import secrets

from werkzeug import Response

#: What a call answers.
Payload = dict[str, object]

ENDPOINTS = {  # path: (the name in Sandbox.calls, the one HTTP method it takes)
    "/cgi-bin/stable_token": ("stable_token", "POST"),
    "/cgi-bin/token": ("token", "GET"),
    "/cgi-bin/ticket/getticket": ("getticket", "GET"),
    "/cgi-bin/get_api_domain_ip": ("get_api_domain_ip", "GET"),
    "/cgi-bin/getcallbackip": ("getcallbackip", "GET"),
    "/cgi-bin/openapi/quota/get": ("quota/get", "POST"),
    "/cgi-bin/gettoken": ("gettoken", "GET"),
    "/cgi-bin/get_jsapi_ticket": ("get_jsapi_ticket", "GET"),
    "/cgi-bin/ticket/get": ("ticket/get", "GET"),
    "/cgi-bin/component/api_component_token": ("api_component_token", "POST"),
    "/cgi-bin/component/api_authorizer_token": ("api_authorizer_token", "POST"),
    "/cgi-bin/service/get_suite_token": ("get_suite_token", "POST"),
    "/cgi-bin/service/get_corp_token": ("get_corp_token", "POST"),
}
NAMES = {path: name for path, (name, _) in ENDPOINTS.items()}
OFFIACCOUNT = frozenset(  # not WeCom's
    (
        "stable_token", "token", "getticket", "quota/get", "api_component_token",
        "api_authorizer_token",
    )
)  # fmt: skip
WECOM = frozenset(  # nobody else's
    ("gettoken", "get_jsapi_ticket", "ticket/get", "get_suite_token", "get_corp_token")
)
TICKET_TYPES = {"getticket": ("jsapi", "wx_card"), "ticket/get": ("agent_config",)}

_ERRMSG = {
    -1: "system error",
    0: "ok",
    40001: "invalid credential, access_token is invalid or not latest",
    40002: "invalid grant_type",
    40013: "invalid appid",
    40014: "invalid access_token",
    40066: "invalid url",
    40097: "invalid args",
    40125: "invalid appsecret",
    40164: "invalid ip {ip} ipv6 {ipv6}, not in whitelist",
    40243: "AppSecret is frozen",
    41001: "access_token missing",
    41002: "appid missing",
    41004: "appsecret missing",
    42001: "access_token expired",
    43001: "require GET method",
    43002: "require POST method",
    44002: "empty post data",
    45009: "reach max api daily quota limit",
    45011: "api minute-quota reach limit, must slower, retry next minute",
    47001: "data format error",
    48001: "api unauthorized",
    48004: "api forbidden for irregularities",
    50002: "user limited",
    60020: "not allow to access from your ip, from ip: {ip}",
    61003: "component is not authorized by this account",
    61004: "access clientip is not registered requestIP: {ip}",
    61005: "component ticket is expired",
    61006: "component ticket is invalid",
    61007: "api is unauthorized to component",
    61011: "invalid component",
    61023: "refresh_token is invalid",
    61024: "must use api(api_component_token) to get token for component acct",
    76021: "cgi_path not found, please check",
    89503: "this ip needs the administrator's confirmation: {ip}",
    89506: "the administrator refused this ip twice, retry after 24 hours: {ip}",
    89507: "the administrator refused this ip, retry after 1 hour: {ip}",
}
_WECOM_ERRMSG = {
    **_ERRMSG,
    40001: "invalid credential",
    40013: "invalid corpid",
    40080: "invalid suite_secret",
    40082: "invalid suite_acccess_token or provider_access_token",  # sic
    40083: "invalid SuiteId",
    40084: "invalid permanent_code",
    40085: "invalid suite ticket",
    41002: "corpid missing",
    41004: "corpsecret missing",
    41021: "suite_id missing",
    41022: "suite_access_token missing",
    41024: "suite_secret missing",
    42009: "suite_access_token expired",
    45009: "api freq out of limit",
    60020: "not allow to access from your ip",
}

JSON = "application/json; encoding=utf-8"  # sic: WeChat does not say charset


class Refusal(Exception):
    """A call is answered with an errcode."""

    def __init__(self, errcode: int) -> None:
        self.errcode = errcode


def error(name: str, errcode: int, ip: str, now: float) -> Payload:
    """The answer of an endpoint that refuses.

    :param name: the endpoint's in :data:`NAMES`, or another.
    :param ip: the caller's address, which some texts name.
    :param now: Unix time.
    """
    errmsg = (_wecom_errmsg if name in WECOM else _errmsg)(errcode, ip, now)
    return {"errcode": errcode, "errmsg": errmsg}


def _errmsg(errcode: int, ip: str, now: float) -> str:
    ipv6 = ip if ":" in ip else f"::ffff:{ip}"
    text = _ERRMSG.get(errcode, "unknown error").format(ip=ip, ipv6=ipv6)
    return f"{text} rid: {int(now):08x}-{secrets.token_hex(4)}-{secrets.token_hex(4)}"


def _wecom_errmsg(errcode: int, ip: str, now: float) -> str:
    text = _WECOM_ERRMSG.get(errcode, "unknown error").format(ip=ip, ipv6=ip)
    hint = f"hint: [{int(now)}{secrets.randbelow(10**13):013}], from ip: {ip}"
    return f"{text}, {hint}, more info at https://open.work.weixin.qq.com/devtool/query?e={errcode}"


def json_object(data: bytes) -> Payload:
    """A body as the object that it must be.

    :raises ValueError: for anything else.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return value
    raise ValueError("the body must be a JSON object")


def json_response(value: object, *, status: int = 200, content_type: str = JSON) -> Response:
    """A response with a value as JSON."""
    return Response(json.dumps(value), status, content_type=content_type)
