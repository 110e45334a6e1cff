"""The phone: what it says to a signature, and the script that makes a browser be one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from importlib import resources

from .accounts import Account

#: What can be asked for as ``bridge.js?phone=``; the first is the default.
PHONES = ("wechat", "wecom")


def judge(
    accounts: Sequence[Account], kind: str, now: float,
    *, nonce: str, timestamp: int | str, signature: str, url: str,
) -> str:  # fmt: skip
    """Judge a signature: ``"ok"`` or what follows the colon of the ``errMsg``.

    :param accounts: those whose tickets may have signed, without any it is ``"fail"``.
    :param kind: the type of ticket.
    :param now: Unix time.
    :param url: the page's address as the browser has it.
    """
    page = url.partition("#")[0]
    admitting = [account for account in accounts if account.admits_page(page)]
    if not admitting:
        return "invalid url domain" if accounts else "fail"
    for account in admitting:
        for ticket in account.valid_tickets(kind, now):
            signed = f"jsapi_ticket={ticket.value}&noncestr={nonce}&timestamp={timestamp}"
            data = f"{signed}&url={page}".encode("utf-8", "replace")
            if hashlib.sha1(data, usedforsecurity=False).hexdigest() == signature:
                return "ok"
    return "invalid signature"


def bridge(url: str, phone: str, late: str = "0") -> str:
    """The text of ``bridge.js`` for one of :data:`PHONES`, with the sandbox at a URL behind it.

    :param late: how long after the page's scripts the bridge appears, in milliseconds.
    :raises ValueError: for another phone, or a time that is none.
    """
    if phone not in PHONES:
        raise ValueError(f"phone is one of {', '.join(PHONES)}, not {phone!r}")
    if not re.fullmatch("[0-9]{1,5}", late):
        raise ValueError(f"late is a number of milliseconds below 100000, not {late!r}")
    text = resources.files(__package__).joinpath("bridge.js").read_text(encoding="utf-8")
    text = text.replace("__PHONE__", phone).replace("__LATE__", late)
    # The text may end up inside a page.
    return text.replace('"__SANDBOX_URL__"', json.dumps(url).replace("<", "\\u003c"))
