"""Reads what an upstream answered."""

from __future__ import annotations

import json
import math
from typing import Any

from .._credential import Credential
from ..errors import TransportError

#: WeChat documents 7200 s as the most; a larger number would outlive the ticket.
_LONGEST_LIFE = 7200.0


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
    life = number(answer.get("expires_in"))
    problem = None
    if life is None or life <= 0:
        problem = "without a usable expires_in"
    else:
        # An answer just received counts for at least a second: no tight loop on a dying ticket.
        life = min(max(life, 1.0), _LONGEST_LIFE)
        try:
            return Credential(answer.get(name, ""), issued_at, issued_at + life)
        except ValueError:
            problem = f"without a usable {name}"
    raise TransportError(f"The answer came {problem}.")
