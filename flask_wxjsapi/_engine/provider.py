"""The only place that decides whether to hand out a credential, renew it, wait or back off.

A *slot* holds what this process knows of one kind of credential. Readers take it from there,
with no I/O and no lock. Everything that touches the store or WeChat happens in a *flight*, a
short-lived daemon thread of its own, of which there is at most one a kind and process. Readers
and the background thread wait for a flight, each as long as it likes, so that one that hangs
in somebody else's code holds up nobody for longer than that.
"""

from __future__ import annotations

import logging
import math
import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Protocol

from .._credential import ACCESS_TOKEN, JSAPI_TICKET, Credential, State
from .._error_text import describe
from .._storage.store import Store, StoreSession
from .._upstream import Upstream
from ..errors import TicketUnavailable, TransportError, WxJsApiError
from .back_off import BackOff, by_retry_at

logger = logging.getLogger(__name__)

#: errcodes by which WeChat refuses an access token on another call.
TOKEN_REJECTED = frozenset({40001, 40014, 42001})

_CHECK = 1.0  # seconds a process trusts its snapshot before it looks at PID and thread again
_GRACE = 5.0  # seconds beyond its deadline after which a flight hangs; as long as a lease lives
_SAVING = 0.2  # seconds that a cold reader lets the ticket be saved, once it has it
_VERIFY_PAUSE = 60.0  # seconds between two looks into complaints of pages, per process
_VERIFY_WAIT = 2.0  # seconds that the page which complained waits for the verdict
_MOMENT = 1.0  # seconds a failure answers for the readers that come after it


_SAME_TICKET = (
    "The ticket is the one that WeChat names, so the page was signed for another URL than the "
    "browser has: look at the proxy's headers and at caches of the page. "
    "'flask wxjsapi verify' finds the difference."
)
_OTHER_TICKET = (
    "WeChat names another ticket by now, and the pages are signed with that one. If it happens "
    "again, another service asks for tickets of this account (let both share one), or WeChat "
    "gives this account a new one with every call."
)
_UNVERIFIED = "Whether the ticket is the right one could not be found out; see the line before."


class Clock(Protocol):
    """Time, so that tests can bring their own; the ``time`` module is one."""

    def time(self) -> float: ...
    def monotonic(self) -> float: ...
    def sleep(self, seconds: float, /) -> None: ...


class Mode(IntEnum):
    """How far a flight goes; a stronger one finds out all that a weaker one would."""

    LOOK = 0  #: read the store
    TRY = 1  #: and renew what is due, unless another process is at it
    VERIFY = 2  #: and ask WeChat whether the ticket is still the one it names
    WAIT = 3  #: as TRY, and wait for that process
    FORCE = 4  #: and pass over the back-off


@dataclass(frozen=True, slots=True)
class _Limit:
    """How often a cluster may renew what is not due.

    :param name: begins the name of the note in which the store keeps the times.
    :param windows: pairs: at most so many, in so many seconds.
    """

    name: str
    windows: tuple[tuple[int, float], ...]

    def note_of(self, slot: _Slot) -> str:
        return f"{self.name}.{slot.kind}"

    def allows(self, times: list[float], now: float) -> bool:
        # A time in the future was noted before a clock was put back, and counts as well.
        return all(
            sum(abs(now - at) < seconds for at in times) < most for most, seconds in self.windows
        )

    def kept(self, times: list[float], now: float) -> list[float]:
        return [at for at in times if abs(now - at) < self.longest]

    @property
    def longest(self) -> float:
        return max(seconds for _, seconds in self.windows)


_LIMITS = {
    Mode.VERIFY: _Limit("verify", ((1, 600), (24, 86400))),
    Mode.FORCE: _Limit("refresh", ((1, 10),)),
}


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
    """

    state: str
    issued_at: float | None = None
    expires_at: float | None = None
    refresh_at: float | None = None
    refreshed_by: str | None = None
    last_error: str | None = None
    retry_at: float | None = None


@dataclass(frozen=True, slots=True)
class _Window:
    """A credential, and from when to when readers take it without another thought."""

    credential: Credential
    start: float
    end: float


_CLOSED = _Window(Credential("none", 0, 1), math.inf, -math.inf)


class _Slot:
    """What this process knows of one kind of credential."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.held: Credential | None = None
        self.is_own = False  # fetched by this process
        self.window = _CLOSED
        self.wanted = False  # somebody here has got it, so the thread keeps it warm
        self.back_off: BackOff | None = None
        self.was_rejected = False  # and the log has it
        self.failure: WxJsApiError | None = None  # the last flight's, for the next moment
        self.landed_at = -math.inf


class _Flight:
    """One look at the store and, perhaps, one renewal."""

    def __init__(
        self, slot: _Slot, mode: Mode, deadline: float, overdue: _Flight | None, page: str
    ) -> None:
        self.slot = slot
        self.mode = mode
        self.page = page  # whose signature was called invalid, in Mode.VERIFY
        self.deadline = deadline  # monotonic, seconds
        self.overdue = overdue  # the flight this one takes over from, which hangs
        self.hangs: BackOff | None = None  # until when nobody takes over from this one
        self.ready = threading.Event()  # readers can go on; saving may still be under way
        self.done = threading.Event()
        self.error: WxJsApiError | None = None
        self.session: StoreSession | None = None
        self.lost_lease = False
        self.events: list[tuple[str, dict[str, Any]]] = []


class _Process:
    """What must not outlive a fork: the lock, the flights and the connections to the store."""

    def __init__(self, store: Store) -> None:
        self.lock = threading.Lock()  # held for a few assignments, never across I/O
        self.flights: dict[str, _Flight] = {}
        self.store = store
        self.verified_at = -math.inf
        self.times: dict[str, list[float]] = {}  # by the note that has the cluster's


def _spawn(name: str, target: Callable[[], None]) -> None:
    threading.Thread(target=target, name=name, daemon=True).start()


class Provider:
    """Keeps the credentials of one account for one app, in every process of it.

    :param upstream: where new credentials come from.
    :param open_store: makes the store for a process.
    :param digest: a keyed digest of the settings a back-off belongs to.
    :param refresh_ahead: seconds before expiry from which a credential is renewed.
    :param refresh_timeout: seconds for one renewal as a whole.
    :param sync_interval: seconds between the background thread's looks at the store.
    :param background: starts or replaces the background thread; False where there is none.
    :param context: an application context for the code of others.
    :param notify: called with an event's name and facts after a flight.
    """

    def __init__(
        self,
        upstream: Upstream,
        open_store: Callable[[], Store],
        *,
        name: str = "default",
        digest: str = "",
        refresh_ahead: float = 200,
        refresh_timeout: float = 10,
        sync_interval: float = 5,
        background: Callable[[], bool] = lambda: False,
        context: Callable[[], AbstractContextManager[Any]],
        notify: Callable[[str, dict[str, Any]], None] = lambda event, facts: None,
        clock: Clock = time,
        spawn: Callable[[str, Callable[[], None]], None] = _spawn,
        rng: random.Random | None = None,
    ) -> None:
        self.upstream = upstream
        self._open_store = open_store
        self._name = name
        self._whose = "" if name == "default" else f" of {name}"  # in the log
        self._digest = digest
        self._ahead = refresh_ahead
        self._timeout = refresh_timeout
        self._sync_interval = sync_interval
        self._background = background
        self._context = context
        self._notify = notify
        self._clock = clock
        self._time = clock.time
        self._spawn = spawn
        self._random = rng or random.Random()
        self._slots: dict[str, _Slot] = {}
        self._processes: dict[int, _Process] = {}
        self._slot(JSAPI_TICKET).wanted = True

    @property
    def store(self) -> Store:
        """The store, as this process has it."""
        return self._process().store

    # -- reading: what a view touches ----------------------------------------------------------

    def get(self, kind: str = JSAPI_TICKET, timeout: float | None = None) -> Credential:
        """A credential that is valid now.

        :param kind: which one.
        :param timeout: seconds to wait at most; by default the refresh timeout.
        :raises TicketUnavailable: when none can be had; the cause says why.
        """
        try:
            window = self._slots[kind].window
        except KeyError:
            window = _CLOSED
        if window.start <= self._time() < window.end:
            return window.credential
        return self._get(self._slot(kind), self._timeout if timeout is None else timeout)

    def _get(self, slot: _Slot, timeout: float) -> Credential:
        has_thread = self._background()
        if self._state(slot) is State.STALE and not has_thread:
            self._renew_in_passing(slot, timeout)
        if self._state(slot) is State.INVALID:
            self._wait_for(slot, timeout)
        held, now = slot.held, self._time()
        if held is None:  # pragma: no cover - INVALID, and _wait_for has raised
            raise self._unavailable(slot, None)
        state = held.state(now, self._ahead)
        if state is State.FRESH:
            end = min(now + _CHECK, held.refresh_at(self._ahead))
            slot.window = _Window(held, now, end)
        elif state is State.STALE and has_thread:
            slot.window = _Window(held, now, min(now + _CHECK, held.usable_until))
        slot.wanted = True
        return held

    def _renew_in_passing(self, slot: _Slot, timeout: float) -> None:
        """Without the thread one caller renews a STALE credential; the others go on with it."""
        process, held = self._process(), slot.held
        if slot.kind in process.flights or held is None:
            return
        # One that was tried since the refresh point and left it STALE may rest for a while.
        was_tried = slot.landed_at >= held.refresh_at(self._ahead)
        if was_tried and 0 <= self._time() - slot.landed_at < self._sync_interval:
            return
        flight, is_mine = self._board(process, slot, Mode.TRY)
        if is_mine:
            flight.ready.wait(timeout)

    def _wait_for(self, slot: _Slot, timeout: float) -> None:
        """Wait until the slot holds a usable credential.

        :raises TicketUnavailable: after ``timeout`` seconds, or with the flight's failure.
        """
        if self._failed_lately(slot):
            raise self._unavailable(slot, slot.failure)
        flight = self._fly(slot, Mode.WAIT, timeout)
        if flight is not None:
            # A script that ends after its first read would take the unsaved ticket with it, and
            # leave the lease to its life. A store that answers is done in a moment.
            flight.done.wait(min(_SAVING, timeout))
        if self._state(slot) is State.INVALID:
            late = TransportError("The renewal did not end in time.")
            raise self._unavailable(slot, flight.error if flight else late)

    def _failed_lately(self, slot: _Slot) -> bool:
        """Whether a failure here is recent enough to answer without another look."""
        return slot.failure is not None and 0 <= self._time() - slot.landed_at < _MOMENT

    def _unavailable(self, slot: _Slot, error: WxJsApiError | None) -> TicketUnavailable:
        if isinstance(error, TicketUnavailable):
            return TicketUnavailable(error.retry_after, error.description)
        back_off = self._back_off(slot)
        unavailable = TicketUnavailable(
            math.ceil(back_off.retry_at - self._time()) if back_off else 1
        )
        unavailable.__cause__ = error
        return unavailable

    # -- the other ways in ---------------------------------------------------------------------

    def refresh(self, kind: str = JSAPI_TICKET) -> Credential:
        """Renew now, for the whole cluster, in spite of a back-off.

        Within 10 s of the cluster's last one it only returns what there is.

        :raises WxJsApiError: what went wrong.
        """
        slot = self._slot(kind)
        flight = self._fly(slot, Mode.FORCE, self._timeout)
        if flight is None:
            raise TicketUnavailable(1, "The renewal did not end in time.")
        if flight.error is not None:
            raise flight.error.with_traceback(None)
        if slot.held is None or self._state(slot) is State.INVALID:
            back_off = self._back_off(slot)
            raise self._unavailable(slot, back_off.error if back_off else None)
        return slot.held

    def verify(self, page: str, kind: str = JSAPI_TICKET) -> None:
        """Ask WeChat whether the ticket is still the one it names, for a page whose signature
        was called invalid. The log has the verdict.

        For the whole cluster at most once in 10 minutes and 24 times a day, whoever says so.

        :param page: what the log calls it.
        """
        process, slot, now = self._process(), self._slot(kind), self._time()
        if self._state(slot) is State.INVALID:
            return  # nothing to verify: who reads it renews it
        with process.lock:
            limit = _LIMITS[Mode.VERIFY]
            if not limit.allows(process.times.get(limit.note_of(slot), []), now):
                return
            # Whatever becomes of it, one page a minute waits: the lease may be stuck, the store
            # down, and neither leaves a time behind.
            if 0 <= now - process.verified_at < _VERIFY_PAUSE:
                return
            process.verified_at = now
        self._fly(slot, Mode.VERIFY, min(self._timeout, _VERIFY_WAIT), page)

    def sync(self) -> float:
        """Look at the store and renew what is due; for the background thread.

        :returns: seconds until the next look.
        """
        wanted = [slot for slot in list(self._slots.values()) if slot.wanted]
        return min(
            self._next_look(slot, self._fly(slot, Mode.TRY, self._timeout)) for slot in wanted
        )

    def _next_look(self, slot: _Slot, flight: _Flight | None) -> float:
        pause = self._sync_interval * self._random.uniform(0.8, 1.0)
        held, now = slot.held, self._time()
        if held is not None and self._state(slot) is State.FRESH:
            due = held.refresh_at(self._ahead) - now
            return min(pause, due + self._random.uniform(0, 0.5))
        if flight is not None and flight.lost_lease:
            return min(pause, self._random.uniform(0.3, 0.7))
        back_off = self._back_off(slot)
        return min(pause, max(0.1, back_off.retry_at - now)) if back_off else pause

    def status(self, kind: str = JSAPI_TICKET, look: bool = True) -> Status:
        """What is known of a credential, after a look at the store.

        :param look: False takes it from this process's own snapshot, if it has one.
        """
        slot = self._slot(kind)
        if look or slot.held is None:
            self._fly(slot, Mode.LOOK, self._timeout if look else min(_MOMENT, self._timeout))
        held, now = slot.held, self._time()
        facts: dict[str, Any] = {"state": self._state(slot).value}
        if held is not None:
            facts |= {
                "issued_at": held.issued_at,
                "expires_at": held.expires_at,
                "refresh_at": held.refresh_at(self._ahead),
                "refreshed_by": "this process" if slot.is_own else "another process",
            }
        failed = [needed.back_off for needed in self._chain(slot) if needed.back_off]
        if failed:
            last = max(failed, key=by_retry_at)
            facts["last_error"] = str(last.error)
            facts["retry_at"] = last.retry_at if last.blocks(now) else None
        return Status(**facts)

    # -- flights -------------------------------------------------------------------------------

    def _slot(self, kind: str) -> _Slot:
        return self._slots.setdefault(kind, _Slot(kind))

    def _process(self) -> _Process:
        """What belongs to this process; a changed PID brings a new one, the snapshots stay."""
        pid = os.getpid()
        process = self._processes.get(pid)
        if process is None:
            process = self._processes.setdefault(pid, _Process(self._open_store()))
        return process

    def _state(self, slot: _Slot) -> State:
        held = slot.held
        return State.INVALID if held is None else held.state(self._time(), self._ahead)

    def _fly(self, slot: _Slot, mode: Mode, timeout: float, page: str = "") -> _Flight | None:
        """Wait for a flight that goes at least as far as ``mode``; None when time is up.

        Whoever joins a weaker one shares its failure. If it only gave up on the lease, they
        start one of their own.
        """
        process = self._process()
        deadline = self._clock.monotonic() + timeout
        while True:
            flight, _ = self._board(process, slot, mode, page)
            # Readers go on as soon as they can; the thread and refresh() see it through.
            is_reader = mode in (Mode.LOOK, Mode.WAIT)
            for event in (flight.ready, flight.done) if is_reader else (flight.done,):
                if not event.wait(max(0.0, deadline - self._clock.monotonic())):
                    return None
                if flight.mode >= mode or flight.hangs:
                    return flight
                # A weaker one will do if there is its failure to share, or a credential.
                has_outcome = flight.error or self._state(slot) is not State.INVALID
                if has_outcome and mode not in _LIMITS:
                    return flight

    def _board(
        self, process: _Process, slot: _Slot, mode: Mode, page: str = ""
    ) -> tuple[_Flight, bool]:
        """The flight under way, or a new one; and whether it is new."""
        with process.lock:
            flight = process.flights.get(slot.kind)
            now = self._clock.monotonic()
            if flight is not None:
                if flight.hangs is None and now >= flight.deadline + _GRACE:
                    self._give_up(slot, flight)
                if flight.hangs is None or flight.hangs.blocks(self._time()):
                    return flight, False
            flight = _Flight(slot, mode, now + self._timeout, flight, page)
            process.flights[slot.kind] = flight
        try:
            self._spawn(f"wxjsapi-renewal-{self._name}", lambda: self._run(process, flight))
        except RuntimeError as error:  # no more threads, or the interpreter is on its way out
            flight.error = WxJsApiError(f"A renewal cannot start: {error}.")
            self._land(process, flight)
        return flight, True

    def _give_up(self, slot: _Slot, flight: _Flight) -> None:
        """Count a flight that hangs as failed, so that its waiters go and another can follow.

        Its thread is lost until whatever it hangs in returns: hence the back-off.
        """
        last = flight.overdue.hangs if flight.overdue else None
        flight.error = WxJsApiError(
            "A renewal hangs: in a ticket server, an access token provider or the network."
        )
        flight.hangs = BackOff.after(flight.error, last, self._time(), self._random)
        slot.back_off = flight.hangs
        if last is None:
            logger.error("%s", flight.error, extra=self._extra("renewal_hangs", slot.kind))
        flight.ready.set()
        flight.done.set()

    def _run(self, process: _Process, flight: _Flight) -> None:
        try:
            with self._context():
                self._attempt_safely(process, flight)
                for event, facts in flight.events:
                    self._notify(event, facts)
        except Exception as error:  # of the application context's: a teardown function's, say
            logger.error(
                "The application context of a renewal failed: %s.",
                describe(error),
                extra=self._extra("context_failed", flight.slot.kind),
            )
        finally:
            if not flight.done.is_set():
                flight.error = WxJsApiError("The renewal could not run; see the log.")
                self._land(process, flight)

    def _attempt_safely(self, process: _Process, flight: _Flight) -> None:
        error: WxJsApiError | None = None
        session = flight.session = StoreSession(process.store)
        try:
            self._attempt(process, flight, session)
        except WxJsApiError as raised:
            # Without the traceback: its frames hold what was being fetched.
            error = raised.with_traceback(None)
        finally:
            flight.error = error
            session.release_lease()
            self._land(process, flight)

    def _land(self, process: _Process, flight: _Flight) -> None:
        """End a flight: note its failure, make room for the next, wake whoever waits."""
        slot = flight.slot
        with process.lock:
            if process.flights.get(slot.kind) is flight:
                del process.flights[slot.kind]
                slot.failure, slot.landed_at = flight.error, self._time()
        flight.ready.set()
        flight.done.set()

    def _attempt(self, process: _Process, flight: _Flight, session: StoreSession) -> None:
        slot = flight.slot
        signed_with = slot.held
        if flight.overdue is not None and flight.overdue.session is not None:
            flight.overdue.session.release_lease()
        if self._is_settled(flight, session):
            return
        while not session.take_lease():
            if flight.mode in (Mode.TRY, Mode.VERIFY):
                flight.lost_lease = True
                return
            if self._clock.monotonic() >= flight.deadline:
                raise TicketUnavailable(1, "Another process is renewing the ticket, or died at it.")
            self._clock.sleep(self._random.uniform(0.05, 0.15))
            if self._is_settled(flight, session):
                return
        # Whoever had the lease before may have done it all: read again before asking WeChat.
        if self._is_settled(flight, session):
            return
        mode, is_invalid = flight.mode, self._state(slot) is State.INVALID
        if mode is Mode.VERIFY and slot.held is not signed_with:
            return  # the page's next try is signed with the newer one
        if mode is not Mode.FORCE and not is_invalid and not session.is_sound(slot.kind):
            return  # no store or no lease: every process would ask, for a ticket that still does
        if mode in _LIMITS and not self._is_allowed(mode, slot, process, session):
            return
        renew = self._verify if mode is Mode.VERIFY else self._renew
        renew(slot, flight, session)

    def _is_settled(self, flight: _Flight, session: StoreSession) -> bool:
        """Look at the store; True when nothing is left to do.

        :raises WxJsApiError: what the back-off in force is about.
        """
        slot = flight.slot
        lost = [needed for needed in self._chain(slot) if not self._look(needed, session)]
        if lost and flight.mode is not Mode.LOOK:
            if not session.is_leased:
                return False
            self._restore(lost, session)
        if flight.mode is Mode.FORCE:
            return False
        is_fresh = self._state(slot) is State.FRESH
        if is_fresh and flight.mode not in (Mode.LOOK, Mode.VERIFY):
            return True
        for needed in self._chain(slot):
            needed.back_off = self._read_back_off(needed, session)
        back_off = self._back_off(slot)
        if back_off is not None and flight.mode is not Mode.LOOK:
            raise back_off.error
        return flight.mode is Mode.LOOK

    def _chain(self, slot: _Slot) -> list[_Slot]:
        """The slot and the one it is fetched with."""
        parent = self.upstream.parent(slot.kind)
        return [slot] if parent is None else [slot, self._slot(parent)]

    def _look(self, slot: _Slot, session: StoreSession) -> bool:
        """Adopt what the store has, if it is newer; False when the store lost what we hold."""
        stored = session.find(slot.kind)
        held = slot.held
        if stored is not None and stored.is_newer_than(held):
            self._hold(slot, stored, is_own=False)
            return True
        if held is None or self._state(slot) is State.INVALID or not session.answers(slot.kind):
            return True
        return not held.is_newer_than(stored)

    def _hold(self, slot: _Slot, credential: Credential, *, is_own: bool) -> None:
        slot.held, slot.is_own, slot.window = credential, is_own, _CLOSED
        slot.failure = None
        for needed in self._chain(slot):
            needed.back_off = None

    def _restore(self, lost: list[_Slot], session: StoreSession) -> None:
        """Give a store that lost its records what this process holds. Under the lease."""
        for slot in lost:
            if slot.held is not None:  # pragma: no branch - only what is held can be lost
                session.save(slot.kind, slot.held)

    def _is_allowed(
        self, mode: Mode, slot: _Slot, process: _Process, session: StoreSession
    ) -> bool:
        """Whether the cluster may renew what is not due once more; then it is counted."""
        limit, now = _LIMITS[mode], self._time()
        note = limit.note_of(slot)
        noted = session.note(note).get("times")
        times = [at for at in noted if isinstance(at, float)] if isinstance(noted, list) else []
        # What this process remembers counts too: the store may have lost its note.
        known = limit.kept(sorted({*times, *process.times.get(note, [])}), now)
        is_allowed = limit.allows(known, now)
        if is_allowed:
            known.append(now)
            session.put_note(note, {"times": known}, limit.longest)
            if mode is Mode.VERIFY and not session.answers(ACCESS_TOKEN):
                is_allowed = False  # nobody else would know that it was asked
        process.times[note] = known
        return is_allowed

    # -- asking WeChat, under the lease --------------------------------------------------------

    def _renew(self, slot: _Slot, flight: _Flight, session: StoreSession) -> None:
        parent = self.upstream.parent(slot.kind)
        if parent is None:
            rejected = slot.held if flight.mode is Mode.VERIFY else None
            self._fetch(slot, flight, session, rejected=rejected)
            return
        token = self._slot(parent)
        if self._state(token) is not State.FRESH:
            self._fetch(token, flight, session)
        used = token.held
        if used is None or self._fetch(slot, flight, session, used, may_be_rejected=True):
            return
        if not token.was_rejected:
            token.was_rejected = True
            logger.warning(
                "WeChat no longer takes the access token%s: something else made it invalid. "
                "A new one is asked for, once.",
                self._whose,
                extra=self._extra("token_rejected", token.kind),
            )
        self._look(token, session)
        if token.held is used:
            self._drop(token, used, session)
            self._fetch(token, flight, session, rejected=used)
        self._fetch(slot, flight, session, token.held, calls=3)
        token.was_rejected = False

    def _verify(self, slot: _Slot, flight: _Flight, session: StoreSession) -> None:
        """Renew the ticket, and tell from that why a page's signature was called invalid."""
        before, verdict = slot.held, _UNVERIFIED
        try:
            self._renew(slot, flight, session)
            is_same = before and slot.held and before.value == slot.held.value
            verdict = _SAME_TICKET if is_same else _OTHER_TICKET
        finally:
            logger.warning(
                "WeChat called the signature of %s invalid. %s",
                flight.page,
                verdict,
                extra=self._extra("signature_rejected", slot.kind, page=flight.page),
            )

    def _drop(self, slot: _Slot, held: Credential, session: StoreSession) -> None:
        """Withdraw a credential everywhere: its successor is the same, already expired."""
        dead = replace(
            held,
            expires_at=max(held.issued_at + 0.001, min(held.expires_at, self._time())),
            generation=held.generation + 1,
        )
        self._hold(slot, dead, is_own=True)
        session.save(slot.kind, dead)

    def _fetch(
        self,
        slot: _Slot,
        flight: _Flight,
        session: StoreSession,
        parent: Credential | None = None,
        *,
        rejected: Credential | None = None,
        may_be_rejected: bool = False,
        calls: int = 1,
    ) -> bool:
        """Ask, publish, save; False when the parent was rejected and that may be."""
        # Counted from what was known before the call: a holder that was stopped for longer
        # than its lease comes back with a number that replaces nothing newer.
        generation = slot.held.generation + 1 if slot.held else 0
        failure: WxJsApiError
        try:
            credential = self.upstream.fetch(
                slot.kind,
                parent=parent.value if parent else None,
                rejected=rejected.value if rejected else None,
                timeout=self._time_left(flight),
            )
            credential = replace(
                credential,
                generation=max(int(credential.issued_at), generation),
                expires_at=max(credential.expires_at, self._time() + 1),
            )
        except WxJsApiError as error:
            failure = error
        except Exception as error:
            failure = TransportError(f"Asking for the {slot.kind} broke: {describe(error)}.")
        else:
            self._publish(slot, flight, session, credential)
            return True
        if may_be_rejected and getattr(failure, "errcode", None) in TOKEN_REJECTED:
            return False
        # Raised out here, so that it carries no other exception along.
        self._record_failure(slot, flight, session, failure, calls)
        raise failure

    def _time_left(self, flight: _Flight) -> float:
        """Seconds for a call: a little less than its readers wait, so that they hear of it.

        A slow store may have used the time up. WeChat is not to be blamed for that, and gets
        some; it still ends before the lease does.
        """
        left = flight.deadline - self._clock.monotonic() - min(1.0, self._timeout / 5)
        return max(left, min(1.0, self._timeout / 2))

    def _publish(
        self, slot: _Slot, flight: _Flight, session: StoreSession, credential: Credential
    ) -> None:
        own = slot.back_off
        if credential.is_newer_than(slot.held):
            self._hold(slot, credential, is_own=True)
        if flight.slot is slot:
            flight.ready.set()
        session.save(slot.kind, credential)
        failed = self._read_back_off(slot, session) or own
        if failed is not None:
            session.drop_note(_note(slot))
        logger.info(
            "The %s%s was renewed%s.",
            slot.kind,
            self._whose,
            f" after {failed.failures} failures" if failed else "",
            extra=self._extra("recovered" if failed else "refreshed", slot.kind),
        )
        facts = {"kind": slot.kind, "expires_at": credential.expires_at}
        flight.events.append(("refreshed", facts))

    # -- the back-off ------------------------------------------------------------------------------

    def _back_off(self, slot: _Slot) -> BackOff | None:
        """What keeps this process from asking for a kind or for the token it needs."""
        now = self._time()
        in_force = [s.back_off for s in self._chain(slot) if s.back_off and s.back_off.blocks(now)]
        return max(in_force, key=by_retry_at, default=None)

    def _read_back_off(self, slot: _Slot, session: StoreSession) -> BackOff | None:
        """The cluster's back-off, or this process's own where the store has none."""
        shared = BackOff.from_note(session.note(_note(slot)), self._digest)
        return max(filter(None, (shared, slot.back_off)), key=by_retry_at, default=None)

    def _record_failure(
        self,
        slot: _Slot,
        flight: _Flight,
        session: StoreSession,
        error: WxJsApiError,
        calls: int,
    ) -> None:
        last = self._read_back_off(slot, session)
        back_off = BackOff.after(error, last, self._time(), self._random, calls)
        slot.back_off = back_off
        session.put_note(_note(slot), back_off.to_note(self._digest), back_off.note_life)
        if last is None or last.cause != back_off.cause:
            logger.warning(
                "The %s%s was not renewed. %s Next try in %.0f s.",
                slot.kind,
                self._whose,
                error,
                back_off.delay,
                extra=self._extra("refresh_failed", slot.kind, retry_at=back_off.retry_at),
            )
        flight.events.append(("failed", {"kind": slot.kind, "error": error}))

    # -- the log -------------------------------------------------------------------------------

    def _extra(self, event: str, kind: str, **facts: Any) -> dict[str, Any]:
        return {"wxjsapi": {"event": event, "account": self._name, "kind": kind, **facts}}


def _note(slot: _Slot) -> str:
    """The name of the note that holds a slot's back-off."""
    return f"backoff.{slot.kind}"
