"""What a call of WeChat's or WeCom's API answers."""

from __future__ import annotations

from werkzeug import Request, Response

from .accounts import Account, Agent
from .faults import Fault
from .protocol import (
    ENDPOINTS,
    JSON,
    TICKET_TYPES,
    Payload,
    Refusal,
    error,
    json_object,
    json_response,
)
from .registry import Registry


def whose(registry: Registry, request: Request) -> str | None:
    """The account, or corp, that a call is of, as it says itself; None if it does not.

    A third party's call for somebody's token is of that one.
    """
    try:
        body = json_object(request.get_data())
    except ValueError:
        body = {}
    given = {**body, **request.args}
    if token := request.args.get("access_token"):
        given["appid"] = registry.owner_id(token)
    names = ("authorizer_appid", "auth_corpid", "appid", "corpid", "component_appid", "suite_id")
    return next((str(given[name]) for name in names if given.get(name)), None)


def answer(
    registry: Registry, request: Request, name: str, fault: Fault | None, now: float
) -> tuple[Response, int | str]:
    """The response to a call, and what the history says of it.

    :param name: the endpoint's, ``"other"`` if there is none.
    :param fault: what is to go wrong, except for the way of the bytes and the time they take.
    :param now: Unix time.
    """
    if fault and (response := fault.stand_in()):
        return response, fault.outcome
    ip = request.remote_addr or "127.0.0.1"
    errcode = 0
    try:
        if fault and fault.name == "errcode":
            raise Refusal(int(fault.number))
        payload = _handle(registry, request, name, ip, now)
    except Refusal as refusal:
        errcode = refusal.errcode
        payload = error(name, errcode, ip, now)
    if fault:
        fault.spoil(payload)
    # WeChat answers with either type and no rule is known, so callers get to see both.
    content_type = "text/plain" if name == "getticket" else JSON
    response = json_response(payload, content_type=content_type)
    return response, fault.outcome if fault else errcode


def _handle(registry: Registry, request: Request, name: str, ip: str, now: float) -> Payload:
    if name == "other":
        raise Refusal(40066)
    method = ENDPOINTS[request.path][1]
    if request.method != method:
        raise Refusal(43001 if method == "GET" else 43002)
    match name:
        case "stable_token":
            body = _body(request)
            account = registry.account_by_secret(body, ip)
            force = body.get("force_refresh", False)
            if not isinstance(force, bool):
                raise Refusal(47001)
            return account.stable_token(now, force)
        case "token":
            return registry.account_by_secret(request.args, ip).legacy_token(now)
        case "gettoken":
            return registry.agent_by_secret(request.args, ip).token(now)
        case "api_component_token":
            body = _body(request)
            component = registry.component_by_secret(body, ip)
            return component.token(body.get("component_verify_ticket"), now)
        case "api_authorizer_token":
            # The page of the API says access_token now.
            token = request.args.get("component_access_token") or request.args.get("access_token")
            body = _body(request)
            authorisation = registry.authorisation(token, body, ip, now)
            return authorisation.token(body.get("authorizer_refresh_token"), now)
        case "get_suite_token":
            body = _body(request)
            return registry.suite_by_secret(body, ip).token(body.get("suite_ticket"), now)
        case "get_corp_token":
            token = request.args.get("suite_access_token")
            return registry.installation(token, _body(request), ip, now).token(now)
    account = registry.by_token(request.args.get("access_token"), now)
    account.admit(name, ip)
    return _handle_with_token(account, request, name, now)


def _handle_with_token(account: Account, request: Request, name: str, now: float) -> Payload:
    if name == "get_jsapi_ticket":
        return account.get_ticket("jsapi", now)
    if name in TICKET_TYPES:
        kind = request.args.get("type", "")
        if kind not in TICKET_TYPES[name]:
            raise Refusal(40097)
        return account.get_ticket(kind, now)
    account.spend(name, now)
    if name == "quota/get":
        return account.quota(str(_body(request).get("cgi_path")), now)
    success: Payload = {"errcode": 0, "errmsg": "ok"} if isinstance(account, Agent) else {}
    # Of RFC 5737: nobody's.
    return {**success, "ip_list": ["192.0.2.1", "192.0.2.2", "198.51.100.1"]}


def _body(request: Request) -> Payload:
    data = request.get_data()
    try:
        return json_object(data)
    except ValueError:
        raise Refusal(47001 if data else 44002) from None
