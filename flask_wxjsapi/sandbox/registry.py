"""Who there is: the accounts, and the corps of WeCom with their agents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from .accounts import Account, Agent, Corp
from .protocol import Refusal


class Registry:
    """All accounts and corps, guarded by the sandbox's lock.

    :param first: the account whose rules the others have too, where they are told no other.
    """

    def __init__(self, first: Account) -> None:
        self._first = first.app_id
        self._owners = first.owners
        #: By AppID.
        self.accounts = {first.app_id: first}
        #: By the corp's id.
        self.corps: dict[str, Corp] = {}

    # -- whom there is

    def agents(self) -> list[Agent]:
        """Those of all corps."""
        return [agent for corp in self.corps.values() for agent in corp.agents]

    def everybody(self) -> list[Account]:
        """Whoever has tickets."""
        return [*self.accounts.values(), *self.agents()]

    def names(self) -> list[str]:
        """All of them, for a person."""
        agents = [f"{agent.app_id} (agent {agent.agent_id})" for agent in self.agents()]
        return [*self.accounts, *agents]

    def knows(self, app_id: str) -> bool:
        """Whether an account or a corp goes by this id."""
        return app_id in self.accounts or app_id in self.corps

    def named(self, app_id: str) -> list[Account]:
        """Whoever goes by this AppID or corp's id."""
        account, corp = self.accounts.get(app_id), self.corps.get(app_id)
        return [*([account] if account else ()), *(corp.agents if corp else ())]

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
        known = self.accounts.get(app_id)
        if known is None:
            first = self.accounts[self._first]
            self.accounts[app_id] = replace(first, app_id=app_id, app_secret=app_secret, **rules)
        elif known.app_secret != app_secret or rules:
            raise ValueError(f"there is an account {app_id!r} with other settings already")

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
        first = self.accounts[self._first]
        inherited = {f.name: getattr(first, f.name) for f in fields(Account) if f.init}
        corp.agents.append(Agent(**{**inherited, **rules, **named}))
        self.corps[corp_id] = corp

    def remove_account(self, app_id: str) -> None:
        """See :meth:`Sandbox.remove_account`."""
        account = self._account(app_id)
        if app_id == self._first:
            raise ValueError(f"{app_id!r} stays: the others have its rules")
        del self.accounts[app_id]
        for value in account.tokens:
            del self._owners[value]

    def reset_secret(self, app_id: str, app_secret: str, now: float) -> None:
        """See :meth:`Sandbox.reset_secret`."""
        account = self._account(app_id)
        account.app_secret = app_secret
        account.revoke(now)

    def _account(self, app_id: str) -> Account:
        if app_id not in self.accounts:
            raise ValueError(f"there is no account {app_id!r}: add_account() it first")
        return self.accounts[app_id]

    def revoke(self, now: float) -> None:
        """Kill all tokens."""
        for owner in set(self._owners.values()):
            owner.revoke(now)

    def reset(self) -> None:
        """Forget everything but who there is and their rules."""
        self._owners.clear()
        self.accounts = {key: replace(old) for key, old in self.accounts.items()}
        self.corps = {key: old.afresh() for key, old in self.corps.items()}

    # -- who calls

    def account_by_secret(self, given: Mapping[str, object], ip: str) -> Account:
        """The account that asks for a token from this address.

        :raises Refusal: with the errcode of what is wrong.
        """
        app_id, secret = given.get("appid"), given.get("secret")
        if given.get("grant_type") != "client_credential":
            raise Refusal(40002)
        if not app_id:
            raise Refusal(41002)
        account = self.accounts.get(str(app_id))
        if account is None:
            raise Refusal(40013)
        if not secret:
            raise Refusal(41004)
        if secret != account.app_secret:
            raise Refusal(40125)
        if not account.admits_ip(ip):
            raise Refusal(40164)
        return account

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
            if agent.app_secret == secret:
                if not agent.admits_ip(ip):
                    raise Refusal(60020)
                return agent
        raise Refusal(40001)

    def by_token(self, value: str | None, now: float) -> Account:
        """Whose access token it is.

        :raises Refusal: with the errcode of a token that is missing, unknown or over.
        """
        if not value:
            raise Refusal(41001)
        owner = self._owners.get(value)
        if owner is None:
            raise Refusal(40014)
        token = owner.tokens[value]
        if now >= token.ends_at:
            raise Refusal(token.errcode)
        return owner
