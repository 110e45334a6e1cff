"""Reads what an upstream answered."""

from __future__ import annotations

import json
import math
from typing import Any

from .._credential import LONGEST_LIFE, Credential
from ..errors import TransportError

#: What stands for a life of 0 s: WeChat truncates what is left of it, and a ticket ends after it
#: begins.
_AN_INSTANT = 0.001


def decoded(text: bytes) -> dict[str, Any] | None:
    """The JSON object, whatever the content type says: WeChat's is wrong."""
    try:
        answer = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def number(value: object) -> float | None:
    """A finite number, also one written as a string; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def credential(answer: dict[str, Any], name: str, issued_at: float) -> Credential:
    """The credential in an answer; one that ends at once where WeChat says that nothing is left.

    :param name: of the field that holds the value.
    :param issued_at: Unix time in seconds, taken before the question was sent.
    :raises TransportError: it holds none. The text never quotes it.
    """
    life = number(answer.get("expires_in"))
    problem = "without a usable expires_in"
    if life is not None and life >= 0:
        try:
            life = min(max(life, _AN_INSTANT), LONGEST_LIFE)
            return Credential(answer.get(name, ""), issued_at, issued_at + life)
        except ValueError:
            problem = f"without a usable {name}"
    raise TransportError(f"The answer came {problem}.")
