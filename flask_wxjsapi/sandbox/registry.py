"""Who there is: the accounts, the corps of WeCom with their agents, and who acts for them."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, NamedTuple, TypeVar

from .accounts import Account, Agent, Authorisation, Component, Corp, Suite
from .protocol import Refusal

A = TypeVar("A", bound=Account)


class _Login(NamedTuple):
    """How a call for a token names its account and the secret, and the errcodes of refusals."""

    app_id: str
    app_secret: str
    no_id: int
    wrong_id: int
    no_secret: int
    wrong_secret: int
    wrong_ip: int


_ACCOUNT = _Login("appid", "secret", 41002, 40013, 41004, 40125, 40164)
_COMPONENT = _Login("component_appid", "component_appsecret", 41002, 61011, 41004, 40125, 61004)
_SUITE = _Login("suite_id", "suite_secret", 41021, 40083, 41024, 40080, 60020)


class Registry:
    """All accounts, corps and third parties, guarded by the sandbox's lock.

    :param first: the account whose rules the others have too, where they are told no other.
    """

    def __init__(self, first: Account) -> None:
        self._first = first.app_id
        self._owners = first.owners
        #: By AppID.
        self.accounts = {first.app_id: first}
        #: By the corp's id.
        self.corps: dict[str, Corp] = {}
        #: By AppID.
        self.components: dict[str, Component] = {}
        #: By the suite's id.
        self.suites: dict[str, Suite] = {}
        #: By the account's AppID and the component's.
        self.authorisations: dict[str, dict[str, Authorisation]] = {}

    # -- whom there is

    def agents(self) -> list[Agent]:
        """Those of all corps."""
        return [agent for corp in self.corps.values() for agent in corp.agents]

    def everybody(self) -> list[Account]:
        """Whoever has tickets."""
        return [*self.accounts.values(), *self.agents()]

    def all(self) -> list[Account]:
        """Whoever has a token: those with tickets, then those who act for them."""
        return [*self.everybody(), *self.components.values(), *self.suites.values()]

    def knows(self, app_id: str) -> bool:
        """Whether an account, a corp or a third party goes by this id."""
        kinds = (self.accounts, self.corps, self.components, self.suites)
        return any(app_id in kind for kind in kinds)

    def named(self, app_id: str) -> list[Account]:
        """Whose pages go by this AppID or corp's id.

        An account that names no domains of its own has those of the components that it authorised.
        """
        account, corp = self.accounts.get(app_id), self.corps.get(app_id)
        found: list[Account] = [*self.authorisations.get(app_id, {}).values()]
        if account and (account.domains or not found):
            found.insert(0, account)
        return [*found, *(corp.agents if corp else ())]

    def owner_id(self, token: str) -> str | None:
        """Whose access token it is, by AppID or corp's id."""
        owner = self._owners.get(token)
        return None if owner is None else owner.app_id

    def agents_named(self, corp_id: str, agent_id: str) -> list[Agent]:
        """The agent of this corp and id; nobody if the id is empty, which several may have."""
        agents = self.corps.get(corp_id, Corp()).agents
        return [agent for agent in agents if agent_id and agent.agent_id == agent_id]

    def issued(self) -> set[str]:
        """The values of all tokens and tickets that are remembered."""
        found = set(self._owners)
        for account in self.everybody():
            found |= {ticket.value for kind in account.tickets.values() for ticket in kind}
        return found

    # -- who comes and goes

    def add_account(self, app_id: str, app_secret: str, **rules: Any) -> None:
        """See :meth:`Sandbox.add_account`."""
        if app_id in self.components:
            raise ValueError(f"{app_id!r} is a third-party platform already")
        self._add(Account, self.accounts, "an account", app_id, app_secret, rules)

    def add_component(self, app_id: str, app_secret: str, **rules: Any) -> None:
        """See :meth:`Sandbox.add_component`."""
        if app_id in self.accounts:
            raise ValueError(f"{app_id!r} is an account already")
        self._add(Component, self.components, "a third-party platform", app_id, app_secret, rules)

    def add_suite(self, suite_id: str, suite_secret: str, **rules: Any) -> None:
        """See :meth:`Sandbox.add_suite`."""
        self._add(Suite, self.suites, "a suite", suite_id, suite_secret, rules)

    def _add(
        self, kind: type[A], among: dict[str, A], what: str, app_id: str, app_secret: str,
        rules: dict[str, Any],
    ) -> None:  # fmt: skip
        known = among.get(app_id)
        if known is None:
            named = {"app_id": app_id, "app_secret": app_secret}
            among[app_id] = kind(**{**self._rules(), **rules, **named})
        elif known.app_secret != app_secret or rules:
            raise ValueError(f"there is {what} {app_id!r} with other settings already")

    def _rules(self) -> dict[str, Any]:
        return _rules_of(self.accounts[self._first])

    def add_agent(self, corp_id: str, secret: str, agent_id: str, **rules: Any) -> None:
        """See :meth:`Sandbox.add_agent`."""
        corp = self.corps.get(corp_id, Corp())
        for known in corp.agents:
            same_secret, same_id = known.app_secret == secret, known.agent_id == agent_id
            if same_secret and same_id and not rules:
                return
            if same_secret or (same_id and agent_id):
                raise ValueError(f"{corp_id!r} has another agent {known.agent_id!r} already")
        named = {"app_id": corp_id, "app_secret": secret, "agent_id": agent_id, "corp": corp}
        corp.agents.append(Agent(**{**self._rules(), **rules, **named}))
        self.corps[corp_id] = corp

    def install(self, corp_id: str, suite_id: str, agent_id: str) -> str:
        """See :meth:`Sandbox.install`."""
        suite = _get(self.suites, suite_id, "suite", "add_suite()")
        for agent in self.corps.get(corp_id, Corp()).agents:
            if (agent.suite_id, agent.agent_id) == (suite_id, agent_id):
                return agent.app_secret
        code = secrets.token_urlsafe(32)
        self.add_agent(corp_id, code, agent_id, **{**_rules_of(suite), "suite_id": suite_id})
        return code

    def remove_account(self, app_id: str) -> None:
        """See :meth:`Sandbox.remove_account`."""
        account = _get(self.accounts, app_id, "account", "add_account()")
        if app_id == self._first:
            raise ValueError(f"{app_id!r} stays: the others have its rules")
        del self.accounts[app_id]
        for each in (account, *self.authorisations.pop(app_id, {}).values()):
            for value in each.tokens:
                del self._owners[value]

    def reset_secret(self, app_id: str, app_secret: str, now: float) -> None:
        """See :meth:`Sandbox.reset_secret`."""
        among = self.components if app_id in self.components else self.accounts
        account = _get(among, app_id, "account", "add_account()")
        account.app_secret = app_secret
        account.revoke(now)

    def verify_ticket(self, component_id: str, now: float) -> str:
        """See :meth:`Sandbox.verify_ticket`."""
        return _get(self.components, component_id, "component", "add_component()").push(now)

    def suite_ticket(self, suite_id: str, now: float) -> str:
        """See :meth:`Sandbox.suite_ticket`."""
        return _get(self.suites, suite_id, "suite", "add_suite()").push(now)

    def authorise(self, app_id: str, component_id: str, permissions: Iterable[int]) -> str:
        """See :meth:`Sandbox.authorise`."""
        account = _get(self.accounts, app_id, "account", "add_account()")
        component = _get(self.components, component_id, "component", "add_component()")
        granted = frozenset(permissions)
        known = self.authorisations.setdefault(app_id, {})
        if component_id in known:
            known[component_id].permissions = granted
        else:
            known[component_id] = Authorisation(
                **{
                    **_rules_of(account),
                    "app_secret": "",
                    "ip_whitelist": component.ip_whitelist,
                    "domains": component.domains,
                },
                account=account,
                refresh_token=f"refreshtoken@@@{secrets.token_urlsafe(32)}",
                permissions=granted,
            )
        return known[component_id].refresh_token

    def withdraw(self, app_id: str, component_id: str, now: float) -> None:
        """See :meth:`Sandbox.withdraw`."""
        authorisation = self.authorisations.get(app_id, {}).pop(component_id, None)
        if authorisation is None:
            raise ValueError(
                f"{app_id!r} has not authorised {component_id!r}: authorise() it first"
            )
        authorisation.revoke(now, 61003)

    def revoke(self, now: float) -> None:
        """Kill all tokens."""
        for owner in set(self._owners.values()):
            owner.revoke(now)

    def replace_tickets(self, now: float) -> None:
        """Put another ticket in the place of each that there is."""
        for account in self.everybody():
            account.replace_tickets(now)

    def reset(self) -> None:
        """Forget everything but who there is, their rules and who acts for whom."""
        self._owners.clear()
        self.accounts = {key: replace(old) for key, old in self.accounts.items()}
        self.components = {key: replace(old) for key, old in self.components.items()}
        self.suites = {key: replace(old) for key, old in self.suites.items()}
        self.corps = {key: old.afresh() for key, old in self.corps.items()}
        for app_id, known in self.authorisations.items():
            account = self.accounts[app_id]
            known.update({key: replace(old, account=account) for key, old in known.items()})

    # -- who calls

    def account_by_secret(self, given: Mapping[str, object], ip: str) -> Account:
        """The account that asks for a token from this address.

        :raises Refusal: with the errcode of what is wrong.
        """
        if given.get("grant_type") != "client_credential":
            raise Refusal(40002)
        if str(given.get("appid")) in self.components:
            raise Refusal(61024)
        return _by_secret(self.accounts, given, ip, _ACCOUNT)

    def component_by_secret(self, given: Mapping[str, object], ip: str) -> Component:
        """The third-party platform that asks for a token, likewise."""
        return _by_secret(self.components, given, ip, _COMPONENT)

    def suite_by_secret(self, given: Mapping[str, object], ip: str) -> Suite:
        """The provider's application that asks for a token, likewise."""
        return _by_secret(self.suites, given, ip, _SUITE)

    def agent_by_secret(self, given: Mapping[str, str], ip: str) -> Agent:
        """The agent that asks for a token, likewise."""
        corp_id, secret = given.get("corpid"), given.get("corpsecret")
        if not corp_id:
            raise Refusal(41002)
        corp = self.corps.get(corp_id)
        if corp is None:
            raise Refusal(40013)
        if not secret:
            raise Refusal(41004)
        for agent in corp.agents:
            if agent.app_secret == secret and not agent.suite_id:
                if not agent.admits_ip(ip):
                    raise Refusal(60020)
                return agent
        raise Refusal(40001)

    def by_token(
        self, value: str | None, now: float, *, missing: int = 41001, unknown: int = 40014
    ) -> Account:
        """Whose access token it is.

        :param missing: the errcode where there is none.
        :param unknown: the errcode of one that nobody has.
        :raises Refusal: with one of them, or with that of a token that is over.
        """
        if not value:
            raise Refusal(missing)
        owner = self._owners.get(value)
        if owner is None:
            raise Refusal(unknown)
        token = owner.tokens[value]
        if now >= token.ends_at:
            raise Refusal(token.errcode)
        return owner

    def authorisation(
        self, value: str | None, given: Mapping[str, object], ip: str, now: float
    ) -> Authorisation:
        """What a component asks a token for, with its own.

        :raises Refusal: with the errcode of what is wrong.
        """
        component = self.by_token(value, now)
        if not isinstance(component, Component):
            raise Refusal(48001)
        if not component.admits_ip(ip):
            raise Refusal(61004)
        if given.get("component_appid") != component.app_id:
            raise Refusal(61011)
        known = self.authorisations.get(str(given.get("authorizer_appid")), {})
        if component.app_id not in known:
            raise Refusal(61003)
        return known[component.app_id]

    def installation(
        self, value: str | None, given: Mapping[str, object], ip: str, now: float
    ) -> Agent:
        """The agent that a provider asks a token for, with its application's.

        :raises Refusal: with the errcode of what is wrong.
        """
        suite = self.by_token(value, now, missing=41022, unknown=40082)
        if not isinstance(suite, Suite):
            raise Refusal(40082)
        if not suite.admits_ip(ip):
            raise Refusal(60020)
        code = given.get("permanent_code")
        for agent in self.corps.get(str(given.get("auth_corpid")), Corp()).agents:
            if (agent.suite_id, agent.app_secret) == (suite.app_id, code):
                return agent
        raise Refusal(40084)


def _by_secret(among: Mapping[str, A], given: Mapping[str, object], ip: str, login: _Login) -> A:
    app_id, secret = given.get(login.app_id), given.get(login.app_secret)
    if not app_id:
        raise Refusal(login.no_id)
    account = among.get(str(app_id))
    if account is None:
        raise Refusal(login.wrong_id)
    if not secret:
        raise Refusal(login.no_secret)
    if secret != account.app_secret:
        raise Refusal(login.wrong_secret)
    if not account.admits_ip(ip):
        raise Refusal(login.wrong_ip)
    return account


def _get(among: Mapping[str, A], app_id: str, what: str, how: str) -> A:
    if app_id not in among:
        raise ValueError(f"there is no {what} {app_id!r}: {how} it first")
    return among[app_id]


def _rules_of(account: Account) -> dict[str, Any]:
    return {each.name: getattr(account, each.name) for each in fields(Account) if each.init}
