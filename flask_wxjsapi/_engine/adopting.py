"""What becomes of a record that was found in the store."""

from __future__ import annotations

import logging

from .._credential import Credential, State
from .._storage.store import Store
from .._telling import tell
from .clock import Clock
from .snapshot import Holding, Snapshot

_HOUR = 3600.0


def take_over(
    holding: Holding, snapshot: Snapshot, stored: Credential | None, clock: Clock, store: Store
) -> bool:
    """Adopt what the store has, if it is newer; False when it lost what we hold."""
    held, now = snapshot.credential, clock.time()
    if stored is not None and stored.is_newer_than(held):
        ahead = snapshot.adopt(stored, now, clock.monotonic(), holding.times.ahead)
        if ahead is not None:
            _tell_of_clocks(holding, snapshot.kind, ahead, clock.monotonic())
        if held is not None and holding.reload is not None:
            holding.is_outdated = True
        forget_back_offs(holding, snapshot)
        return True
    if held is None or holding.state(snapshot, now) is State.INVALID:
        return True
    if stored is None:
        return False
    if not held.is_newer_than(stored):
        return True
    if stored.value == held.value and snapshot.is_own:
        store.compare(snapshot.kind, held, stored)
    # A server that does not keep all of it is given the same record once, and not for ever.
    return stored.value == held.value and snapshot.given_back == held.generation


def forget_back_offs(holding: Holding, snapshot: Snapshot) -> None:
    for needed in holding.chain(snapshot):
        needed.back_off = None


def _tell_of_clocks(holding: Holding, kind: str, ahead: float, monotonic: float) -> None:
    """Say, once an hour at most, that the clock of another process is not ours."""
    if monotonic - holding.clocks_told_at < _HOUR:
        return
    holding.clocks_told_at = monotonic
    tell(
        logging.WARNING,
        "Two clocks disagree, or one was set: the %s%s was stored with a time that is %.0f s %s "
        "this machine's. Use NTP on all of them.",
        kind,
        holding.whose,
        abs(ahead),
        "ahead of" if ahead > 0 else "behind",
        event="clocks_disagree",
        account=holding.name,
        app_id=holding.app_id,
        kind=kind,
        seconds=ahead,
    )
