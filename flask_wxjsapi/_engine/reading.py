"""How the credentials of an account are read, and the other ways in."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TypedDict

from .._credential import JSAPI_TICKET, Credential, State
from .._storage.store import Store, StoreSession
from ..errors import TicketUnavailable, TransportError, UnknownAccount, WxJsApiError
from .back_off import latest
from .limit import VERIFY
from .purpose import CHECK, FORCE, LOOK, NEED, Complaint, Purpose
from .renewal import GRACE, Renewal, is_under_way
from .runtime import Engine, Runtime
from .snapshot import Holding, Snapshot

_SAVING = 0.2  # seconds that a cold reader lets the ticket be saved, once it has it
_CHECK_PAUSE = 60.0  # seconds between two looks into complaints of pages, per process
_CHECK_WAIT = 2.0  # seconds that the page which complained waits for the verdict
_LOOK_WAIT = 1.0  # seconds that status() waits where a thread looks anyway
_WITHIN = "It was read by code that its own renewal has called: a ticket server or a provider."
_LATE = "The renewal did not end in time."
_SPARED = "Nothing was asked: the last refresh is less than 10 s ago."


@dataclass(frozen=True, slots=True)
class Status:
    """What a process knows of its ticket; all times are Unix times in seconds.

    :param state: ``"fresh"``, ``"stale"`` (handed out, renewal due) or ``"invalid"``.
    :param issued_at: when WeChat was asked for it.
    :param expires_at: when it ends.
    :param refresh_at: from when it is renewed.
    :param refreshed_by: ``"this process"`` or ``"another process"``.
    :param last_error: why the last renewal failed, with advice; None after a success.
    :param retry_at: until when WeChat is left alone; None when it is not.
    :param app_id: whose ticket it is.
    """

    state: str
    issued_at: float | None = None
    expires_at: float | None = None
    refresh_at: float | None = None
    refreshed_by: str | None = None
    last_error: str | None = None
    retry_at: float | None = None
    app_id: str = ""


class Credentials:
    """The credentials of one account, as every process of an app reads them."""

    def __init__(self, engine: Engine, holding: Holding) -> None:
        self.holding = holding
        self._engine = engine
        self._clock = engine.clock
        self._time = engine.clock.time
        self._snapshots = holding.snapshots
        holding.snapshot(JSAPI_TICKET)

    @property
    def runtime(self) -> Runtime:
        """This process's."""
        return self._engine.runtime()

    @property
    def store(self) -> Store:
        """The store, as this process sees it."""
        return self.runtime.store(self.holding)

    def session(self) -> StoreSession:
        """The store as one renewal has it, with the lease."""
        holding = self.holding
        life = holding.times.timeout + GRACE
        return StoreSession(self.store, holding.keys, life, self._time)

    def stored(self, kind: str) -> Credential | None:
        """A credential that is in the store or in this process, still good or not."""
        return self.session().find(kind) or self.holding.snapshot(kind).credential

    # -- reading: what a view touches ----------------------------------------------------------

    def get(self, kind: str = JSAPI_TICKET, timeout: float | None = None) -> Credential:
        """A credential that is valid now.

        :param kind: which one.
        :param timeout: seconds to wait at most; by default the refresh timeout.
        :raises TicketUnavailable: when none can be had; the cause says why.
        :raises UnknownAccount: the account's loader does not know it any more.
        """
        snapshot = self._snapshots.get(kind)
        if snapshot is not None and snapshot.start <= self._time() < snapshot.end:
            return snapshot.credential  # type: ignore[return-value]  # an open one has it
        longest = self.holding.times.timeout
        return self._get(self.holding.snapshot(kind), longest if timeout is None else timeout)

    def _get(self, snapshot: Snapshot, timeout: float) -> Credential:
        holding, runtime = self.holding, self._engine.runtime()
        has_thread = self.start()
        snapshot.read_at = self._time()  # though it fails: somebody wants it
        state = holding.state(snapshot, snapshot.read_at)
        if state is State.INVALID:
            self._wait_for(runtime, snapshot, timeout, has_thread)
        elif not has_thread:
            self._look_behind(runtime, snapshot)
        held, now = snapshot.credential, self._time()
        if held is None:  # pragma: no cover - INVALID, and _wait_for has raised
            raise self._unavailable(snapshot, None)
        snapshot.open(now, holding.times.ahead, has_thread)
        if has_thread:
            runtime.keep(holding, snapshot)
        return held

    def _look_behind(self, runtime: Runtime, snapshot: Snapshot) -> None:
        """Where the thread does not see to it a reader does, and waits for nothing: what another
        process has renewed is here after its look, what is STALE is renewed.
        """
        now = self._time()
        if 0 <= now - snapshot.looked_at < self.holding.times.interval:
            return
        if runtime.flight(snapshot) is None and not runtime.is_looking:
            snapshot.looked_at = now
            runtime.attend([(self.holding, snapshot)])

    def _wait_for(
        self, runtime: Runtime, snapshot: Snapshot, timeout: float, has_thread: bool
    ) -> None:
        """Wait until the snapshot holds a usable credential.

        :raises TicketUnavailable: after ``timeout`` seconds, or with the renewal's failure.
        """
        if is_under_way():
            raise self._unavailable(snapshot, snapshot.failure or TransportError(_WITHIN))
        if snapshot.failure is None:
            renewal = self._join(runtime, snapshot, NEED, timeout)
        else:
            # Retries are not the readers' business. The thread tries again what it keeps warm; what
            # it does not keep, a reader has tried again behind; without it one reader tries.
            failure, is_new = snapshot.failure, False
            sees_to_it = has_thread and runtime.is_kept(self.holding, snapshot)
            if not sees_to_it and self._is_resting(snapshot):
                self._look_behind(runtime, snapshot)  # another process may have put it right
            elif not sees_to_it:
                renewal, is_new = runtime.renew(self.holding, snapshot, NEED)
            if has_thread or not is_new:
                raise self._unavailable(snapshot, failure)
            self._wait(renewal, self._clock.monotonic() + timeout, is_reader=True)
        # A script that ends after its first read would take the unsaved ticket with it, and
        # leave the lease to its life. A store that answers is done in a moment.
        if renewal.ready.is_set() and snapshot.is_own:
            renewal.done.wait(min(_SAVING, timeout))
        if self.holding.state(snapshot, self._time()) is not State.INVALID:
            return
        if not renewal.ready.is_set() and self._clock.monotonic() >= renewal.deadline - 0.05:
            # Nobody else waits for what has not ended by its deadline.
            snapshot.failure = TransportError(_LATE)
        raise self._unavailable(snapshot, renewal.error or TransportError(_LATE))

    def _is_resting(self, snapshot: Snapshot) -> bool:
        return self.holding.back_off(snapshot, self._time()) is not None

    def _join(
        self,
        runtime: Runtime,
        snapshot: Snapshot,
        purpose: Purpose,
        timeout: float,
        complaint: Complaint | None = None,
    ) -> Renewal:
        """Wait for a renewal that goes at least as far as ``purpose``, for some seconds.

        Whoever joins a weaker one shares its failure. If it only gave up on the lease, they
        start one of their own.
        """
        deadline = self._clock.monotonic() + timeout
        while True:
            renewal, _ = runtime.renew(self.holding, snapshot, purpose, complaint)
            has_ended = self._wait(renewal, deadline, is_reader=purpose is NEED)
            if not has_ended or renewal.purpose.rank >= purpose.rank:
                return renewal
            # A weaker one will do if there is its failure to share, or a credential.
            is_usable = self.holding.state(snapshot, self._time()) is not State.INVALID
            if purpose.limit is None and (renewal.error or is_usable):
                return renewal

    def _wait(self, renewal: Renewal, deadline: float, *, is_reader: bool) -> bool:
        """Whether it ends in time. Readers go on as soon as they can; refresh() sees it through."""
        event = renewal.ready if is_reader else renewal.done
        # It has no deadline of its own before it has a thread.
        until = min(deadline, renewal.deadline)
        return event.wait(max(0.0, until - self._clock.monotonic()))

    def _unavailable(
        self, snapshot: Snapshot, error: WxJsApiError | None
    ) -> TicketUnavailable | UnknownAccount:
        if isinstance(error, UnknownAccount):
            return UnknownAccount(error.app_id)
        if isinstance(error, TicketUnavailable):
            return TicketUnavailable(error.retry_after, error.description)
        back_off = self.holding.back_off(snapshot, self._time())
        seconds = math.ceil(back_off.retry_at - self._time()) if back_off else 1
        unavailable = TicketUnavailable(seconds)
        unavailable.__cause__ = error
        return unavailable

    # -- the other ways in ---------------------------------------------------------------------

    def start(self) -> bool:
        """Start the thread, where one keeps this account warm; whether there is one."""
        holding, runtime = self.holding, self._engine.runtime()
        if not holding.is_background() or not runtime.ensure_thread():
            return False
        for kind in holding.always_warm:
            runtime.keep(holding, holding.snapshot(kind))
        return True

    def is_kept(self, kind: str = JSAPI_TICKET) -> bool:
        """Whether the thread sees to it; it is started where it should run."""
        return self.start() and self.runtime.is_kept(self.holding, self.holding.snapshot(kind))

    def is_read(self) -> bool:
        """Whether anybody here has read anything of the account within a day."""
        return any(held.is_read(self._time()) for held in list(self._snapshots.values()))

    def stop(self) -> None:
        """Have the thread keep this account warm no longer, and end it if that was the last."""
        self._engine.runtime().forget(self.holding)

    def refresh(self, kind: str = JSAPI_TICKET) -> Credential:
        """Renew now, for the whole cluster, in spite of a back-off.

        Within 10 s of the cluster's last one it only returns what there is.

        :raises WxJsApiError: what went wrong.
        """
        snapshot = self.holding.snapshot(kind)
        renewal = self._join(self._engine.runtime(), snapshot, FORCE, self.holding.times.timeout)
        if not renewal.done.is_set():
            raise TicketUnavailable(1, _LATE)
        if renewal.error is not None:
            # A copy: what the caller's frames hold is no business of those who share it.
            raise copy.copy(renewal.error)
        held = snapshot.credential
        if held is None or self.holding.state(snapshot, self._time()) is State.INVALID:
            if back_off := self.holding.back_off(snapshot, self._time()):
                raise self._unavailable(snapshot, back_off.error)
            raise TicketUnavailable(1, _SPARED)
        return held

    def verify(self, complaint: Complaint, kind: str = JSAPI_TICKET) -> None:
        """Ask WeChat whether the ticket is still the one it names, for a page whose signature
        was called invalid. The log has the verdict.

        For the whole cluster as often as :data:`~.limit.VERIFY` allows, whoever says so, and
        :func:`~.limit.complaints_of` for one source.
        """
        holding, snapshot, now = self.holding, self.holding.snapshot(kind), self._time()
        if holding.state(snapshot, now) is State.INVALID:
            return  # nothing to verify: who reads it renews it
        if not VERIFY.allows(holding.limited.get(VERIFY.note_of(kind), []), now):
            return
        # Whatever becomes of it, one page a minute waits: the lease may be stuck, the store down,
        # and neither leaves a time behind.
        if 0 <= now - holding.checked_at < _CHECK_PAUSE:
            return
        holding.checked_at = now
        timeout = min(holding.times.timeout, _CHECK_WAIT)
        self._join(self._engine.runtime(), snapshot, CHECK, timeout, complaint)

    def sync(self) -> float:
        """Look at the store and renew what is due.

        :returns: seconds until the thread would do so again.
        """
        holding, runtime = self.holding, self._engine.runtime()
        for kind in holding.always_warm:
            runtime.keep(holding, holding.snapshot(kind))
        kept = runtime.kept_of(holding)
        look = runtime.attend([(holding, snapshot) for snapshot in kept])
        look.done.wait(holding.times.timeout)
        return min(snapshot.next_at for snapshot in kept) - self._time()

    def status(self, kind: str = JSAPI_TICKET, look: bool = True) -> Status:
        """What is known of a credential, after a look at the store.

        :param look: False takes it from this process's own snapshot, if it has one.
        """
        snapshot, holding = self.holding.snapshot(kind), self.holding
        if look or snapshot.credential is None:
            timeout = holding.times.timeout if look else min(_LOOK_WAIT, holding.times.timeout)
            self._join(self._engine.runtime(), snapshot, LOOK, timeout)
        held, now = snapshot.credential, self._time()
        failed = latest(needed.back_off for needed in holding.chain(snapshot))
        known = _known(snapshot, held, holding.times.ahead)
        return Status(
            state=holding.state(snapshot, now).value,
            last_error=None if failed is None else str(failed.error),
            retry_at=failed.retry_at if failed is not None and failed.blocks(now) else None,
            app_id=holding.app_id,
            **known,
        )

    def unseen(self, kind: str = JSAPI_TICKET) -> str | None:
        """Why the last :meth:`status` does not tell what the store has; None if it does."""
        if self.is_looking(kind):
            return "The store did not answer in time."
        return self.store.problem(kind, "read")

    def is_looking(self, kind: str = JSAPI_TICKET) -> bool:
        """Whether the look at the store of a :meth:`status` that is over hangs."""
        return self.runtime.flight(self.holding.snapshot(kind)) is not None


class _Known(TypedDict, total=False):
    issued_at: float
    expires_at: float
    refresh_at: float
    refreshed_by: str


def _known(snapshot: Snapshot, held: Credential | None, ahead: float) -> _Known:
    if held is None:
        return {}
    return {
        "issued_at": held.issued_at,
        "expires_at": held.expires_at,
        "refresh_at": held.refresh_at(ahead),
        "refreshed_by": "this process" if snapshot.is_own else "another process",
    }
