"""The sandbox: what a test does with it in Python, over HTTP, and on a port."""

from __future__ import annotations

import collections
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from werkzeug import Request, Response
from werkzeug.exceptions import HTTPException
from werkzeug.utils import redirect

from . import api, cause, pages
from .accounts import Account
from .faults import Fault, Faults
from .listener import Listener
from .opened import Opened, card_of, config_of
from .overview import overview
from .phone import PHONES, bridge, judge
from .protocol import NAMES, json_object, json_response
from .registry import Registry

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

#: The account of a sandbox that is told of no other.
APP_ID, APP_SECRET = "wx0000000000000000", "sandbox-secret-0000000000000000"
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": "Content-Type",
}
_logger = logging.getLogger(__name__)
_SIGNED = ("appId", "nonceStr", "timestamp", "signature")
_HISTORY_LIMIT = 10_000  # a sandbox may run for weeks


@dataclass(frozen=True)
class Call:
    """One API call in :attr:`Sandbox.history`.

    :param time: when it arrived, in Unix time by the sandbox's clock.
    :param name: the endpoint as in :attr:`Sandbox.calls`.
    :param outcome: the errcode answered (0 is success), or the name of the fault that was played.
    """

    time: float
    name: str
    outcome: int | str


class Sandbox:
    """WeChat as a WSGI application, with :meth:`serve` to put it on a port.

    :param app_id: the first account's; :meth:`add_account` adds others and :meth:`add_agent`
        those of WeCom, as many as there may be. :meth:`add_component` and :meth:`add_suite` add who
        acts for them.
    :param app_secret: its secret.
    :param ticket: which of the reported worlds to be: what a repeated call for a ticket answers.
        ``"same"``: one ticket, a new one when it is as old as its lifetime; every answer tells
        (and gives) it a whole lifetime more. ``"living"``: the same, but there is no new one as
        long as somebody asks within that life. ``"dying"``: one ticket, and every answer tells a
        whole lifetime, but it dies at the end that was told first; then a new one.
        ``"remaining"``: one ticket with the life it has left, down to 0; a new one after its end.
        ``"new"``: a new ticket on every call, the earlier ones valid to their own end.
    :param token_lifetime: life of an access token in seconds; ``expires_in`` is what is left of it,
        truncated to an integer, and so 0 in the last second.
    :param ticket_lifetime: life of a ticket in seconds, told as an integer too.
    :param overlap: seconds a superseded token stays valid, and how long before the end
        ``stable_token`` renews; never more than a quarter of ``token_lifetime``.
    :param delay: seconds between an API call's arrival and its answer.
    :param ip_whitelist: addresses and networks that may ask for a token; empty admits everybody.
    :param domains: hosts whose pages the phone accepts, ``.example.com`` for a host and those below
        it; empty admits every page.
    :param token_quota: calls a day, as are the next two; the day begins at 00:00 Asia/Shanghai.
    :param clock: the time in seconds since the epoch.
    """

    def __init__(
        self,
        app_id: str = APP_ID,
        app_secret: str = APP_SECRET,
        *,
        ticket: str = "same",
        token_lifetime: float = 7200,
        ticket_lifetime: float = 7200,
        overlap: float = 300,
        delay: float = 0.0,
        ip_whitelist: Iterable[str] = (),
        domains: Iterable[str] = (),
        token_quota: int = 2000,
        stable_token_quota: int = 500_000,
        ticket_quota: int = 10_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.app_id, self.app_secret, self.delay = app_id, app_secret, delay
        #: Requests that arrived, failed ones included, by short name (``"other"`` if unknown).
        self.calls: collections.Counter[str] = collections.Counter()
        #: The latest calls, oldest first.
        self.history: list[Call] = []
        #: ``http://host:port`` while served, otherwise empty.
        self.url = ""
        self._clock = clock
        first = Account(
            app_id, app_secret, ticket, token_lifetime, ticket_lifetime, overlap, ip_whitelist,
            domains, token_quota, stable_token_quota, ticket_quota,
        )  # fmt: skip
        self._registry = Registry(first)
        self._faults = Faults()
        self._lock = threading.Lock()  # never held while waiting or talking to a caller
        self._listener: Listener | None = None
        # Whether the log is to say where it is, as soon as a browser comes.
        self._is_to_be_told = False

    def __repr__(self) -> str:
        return f"<Sandbox {self.app_id} {self.url or 'not served'}>"

    def add_account(self, app_id: str, app_secret: str, **rules: Any) -> None:
        """Add an account with tokens, tickets and quotas of its own. Adding the same one again
        changes nothing.

        :param rules: what differs from the first account: any keyword of :class:`Sandbox` but
            ``delay`` and ``clock``.
        :raises ValueError: if there is one of this AppID with another secret or other rules.
        """
        with self._lock:
            self._registry.add_account(app_id, app_secret, **rules)

    def remove_account(self, app_id: str) -> None:
        """Take an account away: its AppID answers 40013 from then on, and its tokens 40014.

        :raises ValueError: if there is none of this AppID, or for the sandbox's first account.
        """
        with self._lock:
            self._registry.remove_account(app_id)

    def reset_secret(self, app_id: str, app_secret: str) -> None:
        """Give an account, or a component, another AppSecret: the old one answers 40125 at once.

        Its access tokens end with it and answer 40001; whether WeChat's do is not known.

        :raises ValueError: if there is none of this AppID.
        """
        with self._lock:
            self._registry.reset_secret(app_id, app_secret, self._clock())
            if app_id == self.app_id:
                self.app_secret = app_secret

    def add_agent(self, corp_id: str, secret: str, agent_id: str = "", **rules: Any) -> None:
        """Add an application of a WeCom corp (企业微信). Adding the same one again changes nothing.

        A corp has as many as are added. Each has a token and an ``agent_config`` ticket of its own;
        the ticket for ``wx.config`` is the corp's, and so the same for all of them.

        :param agent_id: what ``wx.agentConfig`` calls ``agentid``; it refuses an agent without.
        :param rules: what differs from the first account: any keyword of :class:`Sandbox` but
            ``delay``, ``clock`` and the quotas. WeCom's own are 100 ticket calls an hour for an
            agent and 400 for its corp.
        :raises ValueError: if the corp has an agent of this id with another secret, one of this
            secret with another id, or this very one and there are rules.
        """
        with self._lock:
            self._registry.add_agent(corp_id, secret, agent_id, **rules)

    # -- who acts for others

    def add_component(self, app_id: str, app_secret: str, **rules: Any) -> None:
        """Add a third-party platform (第三方平台), for accounts to authorise. Adding the same one
        again changes nothing.

        It gets its token with ``api_component_token``, for a :meth:`verify_ticket`, and that of an
        account with ``api_authorizer_token``. Both answer another token with each call, and the one
        before lives on for the overlap; a component's token where an account's belongs, or the
        reverse, is 48001.

        :param rules: as :meth:`add_account` has them. ``ip_whitelist`` counts for each call of the
            component (61004), and ``domains`` for the pages of the accounts that authorised it,
            beside the account's own if it has any.
        :raises ValueError: if there is one of this AppID with another secret or other rules, or an
            account.
        """
        with self._lock:
            self._registry.add_component(app_id, app_secret, **rules)

    def verify_ticket(self, component_app_id: str) -> str:
        """The next ``component_verify_ticket``, which is good for twelve hours.

        WeChat pushes one to the component every ten minutes; the sandbox waits to be asked.

        :raises ValueError: if there is no such component.
        """
        with self._lock:
            return self._registry.verify_ticket(component_app_id, self._clock())

    def authorise(
        self, app_id: str, component_app_id: str, permissions: Iterable[int] = (4, 8)
    ) -> str:
        """Let a component act for an account, as the account's administrator does.

        What the component does then needs no AppSecret: a frozen one, ``fail("40243",
        path="stable_token", app_id=…)``, does not stop it.

        :param permissions: the sets of permissions (权限集) that are granted. A ``jsapi`` ticket
            needs 4 and a ``wx_card`` ticket 8: without, it is 61007. Doing it again changes them.
        :returns: the ``authorizer_refresh_token``, the same until :meth:`withdraw`; a wrong one is
            61023.
        :raises ValueError: if there is no such account or component.
        """
        with self._lock:
            return self._registry.authorise(app_id, component_app_id, permissions)

    def withdraw(self, app_id: str, component_app_id: str) -> None:
        """Take the authorisation back: what the component does for the account answers 61003.

        :meth:`authorise` then brings another refresh token.

        :raises ValueError: if there is no authorisation.
        """
        with self._lock:
            self._registry.withdraw(app_id, component_app_id, self._clock())

    def add_suite(self, suite_id: str, suite_secret: str, **rules: Any) -> None:
        """Add an application of a WeCom provider (服务商), for corps to install. Adding the same
        one again changes nothing.

        It gets its token with ``get_suite_token``, for a :meth:`suite_ticket`, and that of a corp
        with ``get_corp_token``.

        :param rules: as :meth:`add_agent` has them; they are those of its agents too.
        :raises ValueError: if there is one of this id with another secret or other rules.
        """
        with self._lock:
            self._registry.add_suite(suite_id, suite_secret, **rules)

    def suite_ticket(self, suite_id: str) -> str:
        """The next ``suite_ticket``, which is good for half an hour.

        WeCom pushes one to the suite every ten minutes; the sandbox waits to be asked.

        :raises ValueError: if there is no such suite.
        """
        with self._lock:
            return self._registry.suite_ticket(suite_id, self._clock())

    def install(self, corp_id: str, suite_id: str, agent_id: str = "") -> str:
        """Have a corp install a suite, as an agent of its own. Doing it again changes nothing.

        :param agent_id: what ``wx.agentConfig`` calls ``agentid``.
        :returns: the corp's permanent code for ``get_corp_token``; a wrong one is 40084. It is no
            secret for ``gettoken``.
        :raises ValueError: if there is no such suite, or the corp has another agent of this id.
        """
        with self._lock:
            return self._registry.install(corp_id, suite_id, agent_id)

    # -- what goes wrong

    def fail(
        self, fault: str | int, *, times: int | None = 1, path: str | None = None,
        app_id: str | None = None,
    ) -> None:  # fmt: skip
        """Queue a fault; each call plays the first one in the queue that is meant for it.

        :param fault: an errcode, an HTTP status or a name, e.g. ``-1``, ``"502"``, ``"hang"``,
            ``"expires:null"``, ``"slow:2.5"``. ``"close"`` and ``"drip-headers"`` need a server of
            Werkzeug's, as :meth:`serve` starts; elsewhere they raise a ConnectionError.
        :param times: for how many calls; None for all until :meth:`heal`.
        :param path: only for this endpoint, as a path or by its name in :attr:`calls`.
        :param app_id: only for the calls of this account, or of the agents of this corp; a call
            that a component or a suite makes for one of them is among them.
        :raises ValueError: with the list of names if there is no such fault.
        """
        self._queue(Fault.parse(fault, times, path, app_id))

    def _queue(self, fault: Fault) -> None:
        with self._lock:
            if fault.app_id is not None and not self._registry.knows(fault.app_id):
                raise ValueError(f"there is no account {fault.app_id!r}")
            self._faults.add(fault)

    def heal(self) -> None:
        """Forget the queued faults; calls that wait are answered now."""
        with self._lock:
            self._faults.clear()

    def revoke_token(self) -> None:
        """Kill all access tokens, as a service that asks for tokens of its own does.

        They answer 40001 from then on, and WeCom's 40014. Those of components and suites end too.
        """
        with self._lock:
            self._registry.revoke(self._clock())

    def replace_ticket(self) -> None:
        """Replace all tickets, as a service does that asks for tickets of its own: pages that the
        ones before have signed are ``invalid signature`` from then on.
        """
        with self._lock:
            self._registry.replace_tickets(self._clock())

    def reset(self) -> None:
        """Forget everything but the accounts, their rules and who acts for whom."""
        with self._lock:
            self._faults.clear()
            self.calls.clear()
            self.history.clear()
            self._registry.reset()

    def verify(
        self, *, appId: str, nonceStr: str, timestamp: int | str, signature: str, url: str
    ) -> str:
        """Judge a signature as the phone does inside ``wx.config``.

        :param appId: an account's, or the id of a WeCom corp.
        :param url: the page's address as the browser has it; what follows a ``#`` is not signed.
        :returns: the ``errMsg``: ``"config:ok"``, ``"config:invalid signature"``,
            ``"config:invalid url domain"``, or ``"config:fail"`` for an account it does not know.
        """
        with self._lock:
            verdict = judge(
                self._registry.named(appId), "jsapi", self._clock(),
                nonce=nonceStr, timestamp=timestamp, signature=signature, url=url,
            )  # fmt: skip
        return f"config:{verdict}"

    def verify_agent(
        self, *, corpid: str, agentid: int | str, nonceStr: str, timestamp: int | str,
        signature: str, url: str,
    ) -> str:  # fmt: skip
        """Judge a signature as the phone of WeCom does inside ``wx.agentConfig``.

        :param url: the page's address as the browser has it.
        :returns: the ``errMsg``, as :meth:`verify` with ``agentConfig`` in place of ``config``.
        """
        with self._lock:
            verdict = judge(
                self._registry.agents_named(corpid, str(agentid)), "agent_config", self._clock(),
                nonce=nonceStr, timestamp=timestamp, signature=signature, url=url,
            )  # fmt: skip
        return f"agentConfig:{verdict}"

    def open(self, response: Response, url: str) -> Opened:
        """Open a response as the phone does: what ``wx.config`` answers, and what a share sends.

        :param response: of a Flask test client: the HTML of ``wx_script()``, or the JSON of
            ``config()``.
        :param url: the page's address as the browser would have it.
        :raises ValueError: for a ``wx.config`` that lacks what is signed.
        """
        config = config_of(response)
        if not config:
            return Opened(None, {}, None)
        if missing := [key for key in _SIGNED if key not in config]:
            raise ValueError(f"wx.config is called without {', '.join(missing)}")
        errmsg = self.verify(**{key: str(config[key]) for key in _SIGNED}, url=url)
        return Opened(errmsg, config, card_of(response) if errmsg == "config:ok" else None)

    def bridge_script(self, phone: str = "wechat") -> str:
        """The JavaScript that makes an ordinary browser this sandbox's phone.

        It gives a page a ``WeixinJSBridge`` and a user agent for which jweixin acts, and shows the
        verdict on ``wx.config`` and the card a share would make. It runs before jweixin: from
        ``/sandbox/bridge.js``, or as its text in front of another script's.

        :param phone: ``"wecom"`` for one with WeCom, as ``/sandbox/bridge.js?phone=wecom`` is.
        :raises RuntimeError: if the sandbox is not served.
        :raises ValueError: for another phone.
        """
        if not self.url:
            raise RuntimeError("call serve() first: the script has to know where the sandbox is")
        return bridge(self.url, phone)

    # -- on a port

    def serve(self, host: str = "127.0.0.1", port: int = 0) -> Self:
        """Listen in a daemon thread and set :attr:`url`; nothing happens if it listens already.

        :param port: 0 for any free one.
        :raises OSError: if the port is taken.
        """
        with self._lock:
            if self._listener is None:
                self._listener = Listener(self, host, port)
                self.url = self._listener.url
        return self

    def close(self) -> None:
        """Stop listening; calls that wait are let go and nobody waits for them."""
        with self._lock:
            listener, self._listener, self.url = self._listener, None, ""
            self._faults.let_go()
        if listener is not None:
            listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        request.max_content_length = 1_000_000
        control = request.path == "/sandbox" or request.path.startswith("/sandbox/")
        try:
            response = self._control(request) if control else self._call(request)
        except HTTPException as error:  # a body that is too long or breaks off
            return error(environ, start_response)
        return response(environ, start_response)

    # -- over HTTP

    def _call(self, request: Request) -> Response:
        """Answer a call of the API."""
        request.get_data()  # a slow caller must not be waited for under the lock
        name = NAMES.get(request.path, "other")
        with self._lock:
            now, who = self._clock(), api.whose(self._registry, request)
            self.calls[name] += 1
            fault, release = self._faults.take(name, who), self._faults.release
            # Before any waiting: a caller who gives up has made the call all the same.
            response, outcome = api.answer(self._registry, request, name, fault, now)
            self.history.append(Call(now, name, outcome))
            del self.history[:-_HISTORY_LIMIT]
        if pause := self.delay + (fault.pause if fault else 0):
            release.wait(pause)
        return fault.deliver(response, release, request.environ) if fault else response

    def _control(self, request: Request) -> Response:
        if self._is_to_be_told:
            self._is_to_be_told = False
            _logger.warning("WeChat is played here: faults and calls are on %s/sandbox/", self.url)
        try:
            response = self._command(request)
        except ValueError as error:
            response = json_response({"error": str(error)}, status=400)
        response.headers.update(_CORS)
        return response

    def _command(self, request: Request) -> Response:
        match request.method, request.path.removeprefix("/sandbox").strip("/"):
            case "OPTIONS", _:
                return Response(status=204)
            case "POST", "fail":
                body = json_object(request.get_data())
                if "fault" not in body or body.keys() - {"fault", "times", "path", "app_id"}:
                    raise ValueError(
                        "the body has 'fault' and perhaps 'times', 'path' and 'app_id'"
                    )
                times, path, app_id = body.get("times", 1), body.get("path"), body.get("app_id")
                self._queue(Fault.parse(body["fault"], times, path, app_id))
            case "POST", "accounts":
                self._add_account(json_object(request.get_data()))
            case "POST", "heal":
                self.heal()
            case "POST", "revoke":
                self.revoke_token()
            case "POST", "replace":
                self.replace_ticket()
            case "POST", "press":
                return self._press(request)
            case "GET", "calls":
                return json_response(dict(self.calls))
            case "GET" | "POST", "verify":
                return json_response({"errMsg": self._verify_request(request)})
            case "GET", "bridge.js":
                return _bridge_response(request)
            case "GET", "":
                return self._page(request, request.args)
            case "POST", "diagnose":
                return self._diagnose(request)
            case method, command:
                return json_response({"error": f"there is no {method} {command!r}"}, status=404)
        return json_response({"ok": True})

    def _add_account(self, body: Mapping[str, object]) -> None:
        app_id, app_secret = body.get("app_id"), body.get("app_secret")
        are_given = all(isinstance(value, str) and value for value in (app_id, app_secret))
        if not are_given or len(body) != 2:
            raise ValueError("the body has 'app_id' and 'app_secret', both strings")
        self.add_account(str(app_id), str(app_secret))

    def _verify_request(self, request: Request) -> str:
        data = request.get_data()
        fields = json_object(data) if data else request.args
        of_agent = "corpid" in fields
        who = ("corpid", "agentid") if of_agent else ("appId",)
        keys = (*who, "nonceStr", "timestamp", "signature", "url")
        if missing := [key for key in keys if fields.get(key) is None]:
            raise ValueError(f"missing: {', '.join(missing)}")
        judge = self.verify_agent if of_agent else self.verify
        return judge(**{key: str(fields[key]) for key in keys})

    def _find_cause(self, fields: Mapping[str, object]) -> dict[str, str | None]:
        """Why a page's signature is refused; no ticket and no token is in the answer.

        :param fields: those of :data:`cause.FIELDS`, as numbers or strings.
        :raises ValueError: for fields that cannot be right; it says which and why.
        """
        values = cause.texts(fields)
        with self._lock:
            signers = cause.signers(self._registry, values, self._clock())
        found = cause.find(values, signers)
        return {key: text and self._without_secrets(text, values) for key, text in found.items()}

    def _without_secrets(self, text: str, values: Mapping[str, str]) -> str:
        if not text:  # so the page alone does not look at everybody's
            return text
        with self._lock:
            hidden = self._registry.issued()
        if len(values["ticket"]) > 16:
            hidden.add(values["ticket"])
        for secret in hidden:
            text = text.replace(secret, "***")
        return text

    def _diagnose(self, request: Request) -> Response:
        if request.is_json:
            return json_response(self._find_cause(json_object(request.get_data())))
        return self._page(request, request.form)

    def _press(self, request: Request) -> Response:
        """A button of the page; another site's page must not press it."""
        if urlsplit(request.origin or "").netloc != request.host:
            return json_response({"error": "the buttons are for the sandbox's page"}, status=403)
        form = request.form
        press = {
            "heal": self.heal, "revoke": self.revoke_token, "replace": self.replace_ticket,
            "reset": self.reset,
        }.get(form.get("do", ""))  # fmt: skip
        if press:
            press()
        else:
            times = int(form["times"]) if form.get("times") else None
            path, app_id = form.get("path") or None, form.get("app_id") or None
            self._queue(Fault.parse(form.get("fault", ""), times, path, app_id))
        language = pages.language(request)
        return redirect(f"{request.script_root}/sandbox/?lang={language}#trouble", 303)

    def _page(self, request: Request, fields: Mapping[str, str]) -> Response:
        """The sandbox in a browser, with a diagnosis if the fields of one are given."""
        values = {key: fields.get(key, "") for key in cause.FIELDS}
        found, problem = {}, ""
        if values["signature"]:
            try:
                found = self._find_cause(values)
            except ValueError as error:
                problem = str(error)
        shown = {key: self._without_secrets(value, values) for key, value in values.items()}
        shown["ticket"] = ""
        with self._lock:
            view = overview(self._registry, self._faults, self.calls, self.history, self._clock())
        return pages.page(request, _address(request), view, shown, found, problem)


def _address(request: Request) -> str:
    """The sandbox's as this caller has it, who may not be able to reach :attr:`Sandbox.url`."""
    return request.root_url.rstrip("/")


def _bridge_response(request: Request) -> Response:
    phone, late = request.args.get("phone", PHONES[0]), request.args.get("late", "0")
    text = bridge(_address(request), phone, late)
    response = Response(text, content_type="text/javascript; charset=utf-8")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"  # a page may be isolated
    return response


_embedded: dict[int, Sandbox] = {}  # by process id; no lock, since a fork could copy it locked


def embedded(**options: Any) -> Sandbox:
    """The sandbox of this process, created and served on a free port by the first call.

    :param options: the keywords of :class:`Sandbox`; only those of the first call matter.
    """
    pid = os.getpid()
    for owner in set(_embedded) - {pid}:
        inherited = _embedded.pop(owner, None)
        if inherited and inherited._listener:
            inherited._listener.close()  # this child must not keep its parent's port open
    # Not the usual account: an application may bring one of that name with a secret of its own.
    options.setdefault("app_id", "wx-embedded-sandbox")
    if pid not in _embedded:
        # A command, or a test without a browser, has no use for the address.
        _embedded.setdefault(pid, Sandbox(**options))._is_to_be_told = True
    return _embedded[pid].serve()
