"""What a process holds of one kind of credential."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from .._credential import CLOCK_SKEW, JSAPI_TICKET, Credential, State
from .._storage.store import Keys, Plan
from .._upstream import Upstream
from ..errors import WxJsApiError
from .back_off import BackOff, latest

#: Seconds a reader trusts the snapshot before it looks at the PID and the thread again.
_TRUST = 1.0
#: Seconds for which something is kept that nobody reads.
_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Times:
    """The times that one account's credentials are kept by, in seconds.

    :param ahead: how long before its end one is renewed.
    :param timeout: for one renewal as a whole.
    :param interval: between two looks at the store.
    """

    ahead: float = 200.0
    timeout: float = 10.0
    interval: float = 5.0


class Snapshot:
    """What this process holds of one kind of credential of one account.

    Readers look at :attr:`start`, :attr:`end` and :attr:`value` without a lock: whoever changes the
    credential closes it first and opens it last.
    """

    __slots__ = (
        "adopted_at",
        "back_off",
        "corrected_at",
        "credential",
        "end",
        "failure",
        "given_back",
        "is_own",
        "kind",
        "looked_at",
        "lost_leases",
        "next_at",
        "read_at",
        "shift",
        "start",
        "value",
        "was_rejected",
    )

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.credential: Credential | None = None
        self.value = ""  # the credential's, for readers
        self.is_own = False  # fetched by this process
        self.start, self.end = math.inf, -math.inf  # from when to when readers take it as it is
        self.shift = 0.0  # seconds that the clock of the host that fetched it is behind ours
        self.adopted_at = -math.inf  # monotonic
        self.corrected_at = -math.inf  # monotonic; renewed because two clocks disagree
        self.read_at = -math.inf  # when somebody here last wanted it
        self.looked_at = -math.inf  # when the store was last looked at
        self.lost_leases = 0  # to other processes, one after the other
        self.next_at = math.inf  # when the thread attends to it again
        self.back_off: BackOff | None = None
        self.failure: WxJsApiError | None = None  # why there is none; the thread tries again
        self.was_rejected = False  # as a token, and the log has it
        self.given_back: int | None = None  # the generation last given back to a store without it

    def is_read(self, now: float) -> bool:
        """Whether anybody here has wanted it within a day."""
        return abs(now - self.read_at) < _DAY

    def state(self, now: float, ahead: float) -> State:
        """FRESH, STALE or INVALID, at a Unix time."""
        held = self.credential
        return State.INVALID if held is None else held.state(now - self.shift, ahead)

    def refresh_at(self, ahead: float) -> float:
        """The Unix time from which it is renewed."""
        return (
            -math.inf if self.credential is None else self.credential.refresh_at(ahead) + self.shift
        )

    def is_from_the_future(self, now: float) -> bool:
        """Whether it seems to have been issued after a Unix time, and by more than clocks may."""
        held = self.credential
        return held is not None and held.issued_at + self.shift > now + CLOCK_SKEW

    def open(self, now: float, ahead: float, is_renewed_behind: bool) -> None:
        """Let readers take it for a moment; a STALE one only where somebody renews it."""
        held = self.credential
        state = self.state(now, ahead)
        if held is None or state is State.INVALID:
            return
        end = min(now + _TRUST, held.usable_until + self.shift)
        if state is State.FRESH:
            end = min(end, self.refresh_at(ahead))
        elif not is_renewed_behind:
            return
        self.end = end
        self.start = now

    def hold(self, credential: Credential, monotonic: float, *, is_own: bool) -> None:
        """Have a newer credential. Unlike :meth:`adopt`, whatever the clocks say."""
        self.start = math.inf
        self.credential, self.is_own, self.shift = credential, is_own, 0.0
        self.value = credential.value
        self.adopted_at = monotonic
        self.failure = self.back_off = None

    def clear(self) -> None:
        """Hold nothing, and know of no failure: what there was belonged to other settings."""
        self.start, self.end = math.inf, -math.inf
        self.credential, self.value, self.is_own = None, "", False
        self.failure = self.back_off = None

    def adopt(self, found: Credential, now: float, monotonic: float, ahead: float) -> float | None:
        """Take a newer record from the store.

        :returns: None; or how many seconds the clock of whoever wrote it is ahead of ours, where
            that is more than it may be.
        """
        if found.issued_at > now + CLOCK_SKEW:
            return self._adopt_from_the_future(found, now, monotonic)
        if self._is_of_a_clock_behind(found, now, ahead):
            # By our own clock our own credential is good: no renewal follows, nor theirs on ours.
            return found.issued_at - now
        self.hold(found, monotonic, is_own=False)
        return None

    def _is_of_a_clock_behind(self, found: Credential, now: float, ahead: float) -> bool:
        """Whether a later generation is over, and was issued before ours, which is good and our
        own. (One that was withdrawn is over as well, but was issued after ours.)
        """
        held = self.credential
        return (
            held is not None
            and self.is_own
            and found.issued_at < held.issued_at - CLOCK_SKEW
            and found.state(now, ahead) is State.INVALID
            and self.state(now, ahead) is not State.INVALID
        )

    def _adopt_from_the_future(self, found: Credential, now: float, monotonic: float) -> float:
        """A clock was put back, here or there. The first time that is put right by a renewal; if
        it is so again soon, two clocks disagree, and it counts as issued at this moment: else two
        hosts would renew in turns.
        """
        self.hold(found, monotonic, is_own=False)
        if monotonic - self.corrected_at < (found.expires_at - found.issued_at) / 2:
            self.shift = now - found.issued_at
        else:
            self.corrected_at = monotonic
        return found.issued_at - now


@dataclass(eq=False)
class Holding:
    """What a process holds of one account, and what it takes to renew that.

    :param name: of the extension; for the log and the signals.
    :param app_id: for the log and the signals.
    :param upstream: where new credentials come from.
    :param keys: in the store.
    :param plan: of the store.
    :param times: that its credentials are kept by.
    :param digest: a keyed digest of the settings that a back-off belongs to.
    :param notify: called after a renewal with an event's name and facts.
    :param is_background: whether the thread keeps it warm; asked when a reader comes by.
    :param reload: called before the upstream is asked, of an account that comes at run time: takes
        over what its loader says now, and returns whether its keys in the store are others.
    :param gone: called when nothing of such an account is to be kept any more.
    """

    name: str
    app_id: str
    upstream: Upstream
    keys: Keys
    plan: Plan
    times: Times = Times()
    digest: str = ""
    notify: Callable[[str, dict[str, object]], None] = lambda event, facts: None
    is_background: Callable[[], bool] = lambda: False
    reload: Callable[[], bool] | None = None
    gone: Callable[[], None] = lambda: None
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    #: When this process renewed what was not due, by the name of the limit's note.
    limited: dict[str, list[float]] = field(default_factory=dict)
    clocks_told_at: float = -math.inf  # monotonic
    checked_at: float = -math.inf  # when a page's complaint was last looked into
    #: Another process has renewed it, which may have heard something else of its loader.
    is_outdated: bool = False

    @property
    def always_warm(self) -> tuple[str, ...]:
        """The kinds that the thread keeps warm though nobody reads them."""
        return (JSAPI_TICKET,) if self.reload is None else ()

    @property
    def whose(self) -> str:
        """What a line in the log says of it: nothing, where it is the only one."""
        if self.reload is not None:
            return f" of {self.app_id}"
        return "" if self.name == "default" else f" of {self.name}"

    def change(self, upstream: Upstream, keys: Keys, digest: str) -> bool:
        """Have what an account's other settings bring; whether its lease is another one.

        What is known under keys that stay is kept: a new secret is no reason to lose a ticket.
        """
        old_keys, old_digest = self.keys, self.digest
        self.upstream, self.keys, self.digest = upstream, keys, digest
        for kind, snapshot in self.snapshots.items():
            if keys.of(kind) != old_keys.of(kind):
                snapshot.clear()
            elif digest != old_digest:
                snapshot.failure = snapshot.back_off = None
        return keys.of("lease") != old_keys.of("lease")

    def snapshot(self, kind: str = JSAPI_TICKET) -> Snapshot:
        found = self.snapshots.get(kind)
        return self.snapshots.setdefault(kind, Snapshot(kind)) if found is None else found

    def chain(self, snapshot: Snapshot) -> list[Snapshot]:
        """A snapshot and, behind it, the one it is fetched with."""
        parent = self.upstream.parent(snapshot.kind)
        return [snapshot] if parent is None else [snapshot, self.snapshot(parent)]

    def state(self, snapshot: Snapshot, now: float) -> State:
        return snapshot.state(now, self.times.ahead)

    def back_off(self, snapshot: Snapshot, now: float) -> BackOff | None:
        """What keeps this process from asking for a kind or for the token it needs."""
        return latest(
            s.back_off for s in self.chain(snapshot) if s.back_off and s.back_off.blocks(now)
        )
