"""Why a page's signature is refused, found among the tickets of the accounts."""
# ruff: noqa: RUF001 - Chinese has a punctuation of its own

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .._tools.diagnosis import diagnose
from .accounts import Account, label
from .registry import Registry

FIELDS = {  # of the form: its label in English and in Chinese
    "url": ("Address of the page, location.href", "页面网址"),
    "nonceStr": ("nonceStr", "随机串"),
    "timestamp": ("timestamp", "时间戳"),
    "signature": ("signature", "签名"),
    "appId": ("appId (of a real account, or to choose one of several)", "可不填"),
    "agentid": ("agentid (where wx.agentConfig got the signature)", "仅用于 agentConfig"),
    "ticket": ("jsapi_ticket (if another than this sandbox’s may have signed)", "可不填"),
}

_LABEL = re.compile("⟦(.*?)\\|(.*?)⟧")
_MANY = 50  # tickets; each is tried with every mistake that is known


class Signer(NamedTuple):
    """An account that a signature may be of.

    :param ticket: what should have signed.
    :param others: by label, what may have signed instead.
    """

    app_id: str
    ticket: str
    others: dict[str, str]


def texts(fields: Mapping[str, object]) -> dict[str, str]:
    """What was given, by all the names of :data:`FIELDS`.

    :raises ValueError: for what is no number and no string.
    """
    given = {key: fields.get(key) or "" for key in FIELDS}
    if wrong := [key for key, value in given.items() if not isinstance(value, (str, int))]:
        raise ValueError(f"{', '.join(wrong)}: a string is wanted")
    return {key: str(value).strip() for key, value in given.items()}


def signers(registry: Registry, values: Mapping[str, str], now: float) -> list[Signer]:
    """Whose signature it may be.

    :param values: those of :func:`texts`.
    :param now: Unix time.
    :raises ValueError: if there is no ticket to compare with.
    """
    app_id, agent_id, pasted = values["appId"], values["agentid"], values["ticket"]
    kind = "agent_config" if agent_id else "jsapi"
    accounts: Sequence[Account]
    if app_id:
        named = registry.agents_named(app_id, agent_id)
        accounts = named if agent_id else registry.named(app_id)
    else:
        agents = [agent for agent in registry.agents() if agent.agent_id == agent_id]
        accounts = agents if agent_id else registry.everybody()
    pasting = {label("the pasted one", "粘贴的"): pasted} if pasted else {}
    found = [
        Signer(account.app_id, ticket, {**others, **pasting})
        for account in accounts
        for tickets, others in [account.signers(kind, now)]
        for ticket in tickets
    ]
    if pasted and not found:  # a real account's, say
        found.append(Signer(app_id, pasted, {}))
    if len(found) > _MANY:
        raise ValueError(f"appId: {len(found)} tickets may have signed, so say whose it is")
    if not found:
        raise ValueError("no such account has a ticket here yet: paste the ticket that signs")
    return found


def find(values: Mapping[str, str], signers: Iterable[Signer]) -> dict[str, str | None]:
    """The cause with its account, the signed text, and both languages.

    :param values: those of :func:`texts`.
    :raises ValueError: for values that cannot be right; it says which and why.
    """
    found = [
        (
            app_id,
            diagnose(
                url=values["url"],
                noncestr=values["nonceStr"],
                timestamp=values["timestamp"],
                signature=values["signature"],
                ticket=ticket,
                others=others,
            ),
        )
        for app_id, ticket, others in signers
    ]
    # What explains most: a right signature, then a mistake, then the right one's lack.
    app_id, best = min(
        found, key=lambda each: (each[1].cause != "valid", each[1].cause == "unknown")
    )
    return {
        "cause": best.cause,
        "signed": best.signed,
        "appId": app_id or None,
        "english": _LABEL.sub(r"\1", best.english),
        "chinese": _LABEL.sub(r"\2", best.chinese),
    }
