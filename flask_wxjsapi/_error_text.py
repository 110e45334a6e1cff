"""Tells an error of others' without what it may quote: nobody knows what its text holds."""

from __future__ import annotations

from collections.abc import Iterable


def describe(error: BaseException) -> str:
    """The class of somebody else's exception and the line it came from.

    Its text stays out: nobody knows what it quotes.
    """
    trace = error.__traceback__
    if trace is None:
        return type(error).__name__
    while trace.tb_next:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return f"{type(error).__name__} ({code.co_filename}:{trace.tb_lineno} in {code.co_name})"


def reason(error: Exception) -> str:
    """What a log may say of a store's failure: a text only where it cannot quote a value."""
    is_safe = isinstance(error, OSError) or any(
        base.__name__ in ("ConnectionError", "TimeoutError") for base in type(error).__mro__
    )
    return f"{type(error).__name__}: {error}"[:300] if is_safe else describe(error)


def clean(errmsg: object, secrets: Iterable[str], longest: int = 200) -> str:
    """WeChat's text on one line, in bounds, and with nothing of ours echoed in it."""
    text = " ".join(str(errmsg).split())
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return "".join(filter(str.isprintable, text))[:longest]
