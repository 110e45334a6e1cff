"""One attempt to have a good credential of one kind: a renewal.

It looks at the store; takes the lease, or waits for whoever has it; looks again, since that one may
have done it all; asks the upstream; publishes what it got to the readers of this process, saves it
for the others and gives the lease back. A failure brings a back-off, for all processes alike.
"""

from __future__ import annotations

import hashlib
import logging
import math
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Protocol

from .._credential import LONGEST_LIFE, MARGIN_AGAIN, Credential, State
from .._error_text import describe
from .._storage.store import Store, Stores, StoreSession
from .._telling import put_off, tell, tell_later
from ..errors import TicketUnavailable, TransportError, WeChatAPIError, WxJsApiError
from .back_off import BackOff, latest
from .limit import REFRESH, VERIFY, Limit
from .snapshot import Holding, Snapshot

#: errcodes by which WeChat refuses an access token on another call.
TOKEN_REJECTED = frozenset({40001, 40014, 42001})
#: Seconds beyond its deadline after which a renewal hangs, and its lease is free.
GRACE = 5.0

_HOUR = 3600.0
_WAIT_LEAST, _WAIT_MOST = 0.05, 1.0  # seconds between two tries for the lease
_MOST_QUESTIONS = 4  # in one renewal, for a credential that is about to end
#: Seconds that are as good as none.
_NOTHING = 0.5
#: WeChat truncates what is left to whole seconds.
_TRUNCATED = 1.0

_under_way: ContextVar[bool] = ContextVar("_under_way", default=False)


@contextmanager
def under_way() -> Iterator[None]:
    """Mark what this thread does as part of a renewal, for :func:`is_under_way`."""
    token = _under_way.set(True)
    try:
        yield
    finally:
        _under_way.reset(token)


def is_under_way() -> bool:
    """Whether the caller is code that a renewal has called: it would wait for itself."""
    return _under_way.get()


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


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a renewal is for, and so what it may do.

    :param rank: whoever wants less can share the outcome of one that does more.
    :param asks: it asks the upstream for what is due; else it looks at the store alone.
    :param waits: for another process that has the lease.
    :param limit: it asks although nothing is due, as often as this allows.
    :param passes_back_off: it asks although WeChat is to be left alone.
    """

    rank: int
    asks: bool = True
    waits: bool = False
    limit: Limit | None = None
    passes_back_off: bool = False

    def is_met_by(self, state: State) -> bool:
        """Whether nothing is left to do: a reader can go on with what is STALE."""
        if not self.asks or self.limit is not None:
            return False
        return state is not State.INVALID if self.waits else state is State.FRESH


LOOK = Purpose(0, asks=False)  #: what does the store have?
KEEP = Purpose(1)  #: the thread keeps what is due warm
CHECK = Purpose(2, limit=VERIFY)  #: is the ticket still the one that WeChat names?
NEED = Purpose(3, waits=True)  #: a reader has nothing valid
FORCE = Purpose(4, waits=True, limit=REFRESH, passes_back_off=True)  #: a person says so


@dataclass(frozen=True)
class Means:
    """What a process lends to a renewal.

    :param stores: as this process sees them.
    :param ended: called when a renewal is over, before anybody learns of it; False if it was over
        already.
    :param freed: called when a renewal has given back all it held.
    :param aside: does something that may hang, and that nobody waits for.
    """

    clock: Clock
    random: random.Random
    stores: Stores
    ended: Callable[[Renewal], bool]
    freed: Callable[[Renewal], None]
    aside: Callable[[Callable[[], None]], None]


class Renewal:
    """One attempt; a job for a thread of its own.

    :param page: whose signature was called invalid, with :data:`CHECK`.
    """

    def __init__(
        self, holding: Holding, snapshot: Snapshot, purpose: Purpose, means: Means, page: str = ""
    ) -> None:
        self.holding = holding
        self.snapshot = snapshot
        self.purpose = purpose
        self.page = page
        self.deadline = math.inf  # monotonic seconds, from when it has a thread
        #: Readers can go on; saving may still be under way.
        self.ready = threading.Event()
        self.done = threading.Event()
        self.error: WxJsApiError | None = None
        self.lost_lease = False
        self._means = means
        self._clock = means.clock
        self._session: StoreSession | None = None
        self._handed_out: Credential | None = None  # from the store, while this goes on
        self._asked: Snapshot | None = None  # that the upstream is being asked for
        self._was_rejected = False
        self._verdict: str | None = None  # on a page's signature

    @property
    def name(self) -> str:
        return f"wxjsapi-renewal-{self.holding.name}"

    @property
    def over_at(self) -> float:
        """Monotonic seconds."""
        return self.deadline + GRACE

    # -- as a job ------------------------------------------------------------------------------

    def start_clock(self) -> None:
        """It gets its thread: its time begins."""
        self.deadline = self._clock.monotonic() + self.holding.times.timeout

    def run(self) -> None:
        """Make the attempt. What it has to tell is told when it is over."""
        with put_off(), under_way():
            error: WxJsApiError | None = None
            try:
                self._attempt()
            except WxJsApiError as raised:
                error = self._clean(raised)
            except Exception as unforeseen:
                error = WxJsApiError(f"The renewal broke: {describe(unforeseen)}.")
                self._tell(logging.ERROR, "%s", error, event="renewal_broke")
            finally:
                self._end(error)
            if self._verdict:
                self._tell_verdict(self._verdict)

    def fail(self, error: WxJsApiError) -> None:
        """End without an attempt."""
        if self._means.ended(self):
            self._share(error)
            self.done.set()

    def give_up(self) -> None:
        """It hangs: it counts as failed, others go on, and its lease is free."""
        error = WxJsApiError(
            "A renewal hangs: in a ticket server, an access token provider or the network."
        )
        last = self.snapshot.back_off
        if not self._means.ended(self):
            return
        # Twice the pause: whoever waits for the lease looks once a second, and comes first.
        self.snapshot.back_off = BackOff.after(error, last, self._now(), self._means.random, 2)
        self._share(error)
        self.done.set()
        session = self._session
        if session is not None and session.has_lease_of_host:
            session.release_lease()
        self._means.freed(self)
        if session is not None:
            self._means.aside(session.release_lease)
        if last is None or last.cause != str(error):
            self._means.aside(lambda: self._tell(logging.ERROR, "%s", error, event="renewal_hangs"))

    def _end(self, error: WxJsApiError | None) -> None:
        """Share the outcome, then give the lease back: no reader waits for the store."""
        is_first = self._means.ended(self)
        failed = self._asked if error is not None and is_first else None
        last = failed.back_off if failed else None
        if failed is not None and error is not None:
            # An attempt with a rejected token takes three calls: its pause is three times as long.
            calls = 3 if self._was_rejected else 1
            failed.back_off = BackOff.after(error, last, self._now(), self._means.random, calls)
        if is_first:
            self._share(error)
        if self._session is not None:
            if failed is not None:
                self._record_failure(failed, last, self._session)
            self._session.release_lease()
        if is_first:
            self.done.set()
            self._means.freed(self)

    def _share(self, error: WxJsApiError | None) -> None:
        """Let the readers go on, with the error or without."""
        self.error = error
        if error is not None:
            for needed in self.holding.chain(self.snapshot):
                if needed is self.snapshot or needed is self._asked:
                    self._remember(needed, error)
        self.ready.set()

    def _remember(self, snapshot: Snapshot, error: WxJsApiError) -> None:
        """Let readers who have nothing fail at once until something succeeds."""
        if self.holding.state(snapshot, self._now()) is State.INVALID:
            snapshot.failure = error

    @staticmethod
    def _clean(error: WxJsApiError) -> WxJsApiError:
        """Without the traceback: its frames hold what was being fetched."""
        error.__context__ = None
        return error.with_traceback(None)

    # -- the attempt ---------------------------------------------------------------------------

    def _attempt(self) -> None:
        session = self._session = StoreSession(
            self._means.stores.of(self.holding.plan),
            self.holding.keys,
            self.holding.times.timeout + GRACE,
            self._clock.time,
        )
        signed_with = self.snapshot.credential
        if self._is_settled(session):
            return
        if self._clock.monotonic() >= self.over_at:
            # It hung in the store, and others have gone on: nobody would free its lease.
            raise WxJsApiError("The renewal came back too late.")
        pause = _WAIT_LEAST
        while not session.take_lease():
            if not self.purpose.waits:
                self.lost_lease = True
                return
            if self._clock.monotonic() >= self.deadline:
                self.lost_lease = True
                raise TicketUnavailable(1, "Another process is renewing the ticket, or died at it.")
            self._clock.sleep(pause * self._means.random.uniform(0.75, 1))
            pause = min(pause * 1.5, _WAIT_MOST)
            if self._is_settled(session):
                return
        # Whoever had the lease before may have done it all: look again before asking WeChat.
        if self._is_settled(session):
            return
        if self.purpose is CHECK and self.snapshot.credential is not signed_with:
            return  # the page's next try is signed with the newer one
        if self._may_ask(session):
            (self._check if self.purpose is CHECK else self._renew)(session)

    def _is_settled(self, session: StoreSession) -> bool:
        """Look at the store; whether that leaves nothing to do.

        :raises WxJsApiError: what the back-off in force is about.
        """
        chain = self.holding.chain(self.snapshot)
        lost = [needed for needed in chain if not self._look(needed, session)]
        self._let_go_on()
        if lost and self.purpose.asks:
            if not session.has_lease:
                return False
            for needed in lost:
                self._give_back(needed, session)
        if self.purpose.is_met_by(self._state()):
            return True
        for needed in chain:
            needed.back_off = self._read_back_off(needed, session)
        if not self.purpose.asks:
            return True
        if self.purpose.passes_back_off:
            return False
        back_off = self.holding.back_off(self.snapshot, self._now())
        if back_off is not None:
            raise back_off.error
        return False

    def _let_go_on(self) -> None:
        """Let those who wait go on with what the store had, STALE as it may be. It can end while
        this attempt goes on: whoever comes then waits for the attempt.
        """
        held = self.snapshot.credential
        if held is not self._handed_out and self._state() is not State.INVALID:
            self._handed_out = held
            ready, self.ready = self.ready, threading.Event()
            ready.set()

    def _look(self, snapshot: Snapshot, session: StoreSession) -> bool:
        """Adopt what the store has, if it is newer; False when it lost what we hold."""
        stored = session.find(snapshot.kind)
        return not session.answers(snapshot.kind) or take_over(
            self.holding, snapshot, stored, self._clock, self._means.stores.of(self.holding.plan)
        )

    def _give_back(self, snapshot: Snapshot, session: StoreSession) -> None:
        """Give a store that lost its record what this process holds. Under the lease."""
        held = snapshot.credential
        if held is not None:  # pragma: no branch - only what is held can be lost
            session.save(snapshot.kind, held)
            if session.answers(snapshot.kind):
                snapshot.given_back = held.generation

    def _may_ask(self, session: StoreSession) -> bool:
        """Whether WeChat may be asked now, though others might ask as well."""
        is_sound = session.has_lease and session.answers(self.snapshot.kind)
        needs_it = self._state() is State.INVALID or self.purpose is FORCE
        if not is_sound and not needs_it:
            return False  # every process would ask, for a ticket that still does
        limit = self.purpose.limit
        return limit is None or self._is_allowed(limit, session)

    def _is_allowed(self, limit: Limit, session: StoreSession) -> bool:
        """Whether the cluster may renew what is not due once more; then it is counted."""
        name, now = limit.note_of(self.snapshot.kind), self._now()
        (note,) = session.notes([name])
        times = limit.remembered(note, self.holding.limited.get(name, []), now)
        is_allowed = limit.allows(times, now)
        if is_allowed:
            times.append(now)
            session.put_note(name, {"times": times}, limit.longest)
            if self.purpose is CHECK and session.needs_no_lease:
                is_allowed = False  # nobody else would know that it was asked
        self.holding.limited[name] = times
        return is_allowed

    # -- asking the upstream, under the lease --------------------------------------------------

    def _renew(self, session: StoreSession) -> None:
        snapshot = self.snapshot
        _, *needed = self.holding.chain(snapshot)
        if not needed:
            rejected = snapshot.credential if self.purpose is CHECK else None
            self._fetch(snapshot, session, rejected=rejected)
            return
        (token,) = needed
        if self.holding.state(token, self._now()) is not State.FRESH:
            self._fetch(token, session)
        used = token.credential
        try:
            self._fetch(snapshot, session, used)
        except WeChatAPIError as error:
            if error.errcode not in TOKEN_REJECTED or used is None:
                raise
        else:
            return
        self._was_rejected = True
        self._replace_token(token, used, session)
        self._fetch(snapshot, session, token.credential)
        token.was_rejected = False

    def _replace_token(self, token: Snapshot, used: Credential, session: StoreSession) -> None:
        """Have another token than the one that WeChat refused; somebody may have replaced it."""
        if not token.was_rejected:
            token.was_rejected = True
            self._tell(
                logging.WARNING,
                "WeChat no longer takes the access token%s: something else made it invalid. "
                "A new one is asked for, once.",
                self.holding.whose,
                event="token_rejected",
                kind=token.kind,
            )
        self._look(token, session)
        if token.credential is used:
            self._withdraw(token, used, session)
            self._fetch(token, session, rejected=used)

    def _withdraw(self, snapshot: Snapshot, held: Credential, session: StoreSession) -> None:
        """Withdraw a credential everywhere: its successor is the same, already expired."""
        dead = replace(
            held,
            expires_at=max(held.issued_at + 0.001, min(held.expires_at, self._now())),
            generation=held.generation + 1,
            first=None,
        )
        snapshot.hold(dead, self._clock.monotonic(), is_own=True)
        session.save(snapshot.kind, dead)

    def _check(self, session: StoreSession) -> None:
        """Renew the ticket, and tell from that why a page's signature was called invalid."""
        before, self._verdict = self.snapshot.credential, _UNVERIFIED
        self._renew(session)
        after = self.snapshot.credential
        is_same = before and after and before.value == after.value
        self._verdict = _SAME_TICKET if is_same else _OTHER_TICKET

    def _tell_verdict(self, verdict: str) -> None:
        self._tell(
            logging.WARNING,
            "WeChat called the signature of %s invalid. %s",
            self.page,
            verdict,
            event="signature_rejected",
            page=self.page,
        )

    def _fetch(
        self,
        snapshot: Snapshot,
        session: StoreSession,
        parent: Credential | None = None,
        rejected: Credential | None = None,
    ) -> None:
        """Ask for a credential and publish it.

        :raises WxJsApiError: what went wrong, with no other exception behind it.
        """
        self._asked = snapshot
        before = snapshot.credential
        # What WeChat has named again to its end: no use in asking before that.
        if before is not None and before.first is not None and not before.is_told_longer:
            left = before.expires_at - self._now()
            if 0 < left <= min(MARGIN_AGAIN, before.first_life / 10) + 0.1:
                self._sleep_past(left)
        questions = 0
        while True:
            found = self._ask(snapshot, before, parent, rejected)
            left, questions = found.expires_at - self._now(), questions + 1
            is_last = questions == _MOST_QUESTIONS or not self._is_ending(found, before, left)
            if is_last or not self._sleep_past(left):
                break
        if left < _NOTHING:
            raise TransportError(f"The {snapshot.kind} that was answered has no life left.")
        self._asked = None
        self._publish(snapshot, session, found)

    def _is_ending(self, found: Credential, before: Credential | None, left: float) -> bool:
        """Whether WeChat repeats itself to the end: then the next one comes in a moment."""
        if before is not None and found.value == before.value:
            return left <= min(MARGIN_AGAIN, found.first_life / 10)
        return left < _NOTHING

    def _sleep_past(self, left: float) -> bool:
        """Sleep past the end of what WeChat still names; readers wait meanwhile.

        :param left: seconds.
        :returns: whether there is time left to ask then.
        """
        seconds = max(0.0, left) + _TRUNCATED
        if self._clock.monotonic() + seconds >= self.deadline - self._reserve:
            return False
        self._clock.sleep(seconds)
        return True

    def _ask(
        self,
        snapshot: Snapshot,
        before: Credential | None,
        parent: Credential | None,
        rejected: Credential | None,
    ) -> Credential:
        asked_at = self._now()
        failure: WxJsApiError
        try:
            found = self.holding.upstream.fetch(
                snapshot.kind,
                parent=parent.value if parent else None,
                rejected=rejected.value if rejected else None,
                timeout=self._time_left(),
            )
        except WxJsApiError as error:
            failure = self._clean(error)
        except Exception as error:
            failure = TransportError(f"Asking for the {snapshot.kind} broke: {describe(error)}.")
        else:
            return self._as_received(found, asked_at, before)
        raise failure  # out here, so that it carries no other exception along

    def _as_received(
        self, found: Credential, asked_at: float, before: Credential | None
    ) -> Credential:
        """What was answered, with its life counted from the question: a provider may tell when its
        token was really issued, long ago.
        """
        # Counted from what was known before the call: a holder that was stopped for longer than its
        # lease comes back with a number that replaces nothing newer.
        generation = max(int(asked_at), before.generation + 1 if before else 0)
        expires_at = min(found.expires_at, asked_at + LONGEST_LIFE)
        found = replace(
            found,
            issued_at=asked_at,
            expires_at=max(expires_at, math.nextafter(asked_at, math.inf)),
            generation=generation,
            first=None,
        )
        if before is not None and before.value == found.value and before.expires_at > asked_at:
            return found.again(before)
        return found

    @property
    def _reserve(self) -> float:
        """Seconds before the deadline by which a call is over: so that readers hear of it."""
        return min(1.0, self.holding.times.timeout / 5)

    def _time_left(self) -> float:
        """Seconds for a call. A slow store may have used the time up: WeChat is not to be blamed
        for that, and gets some; it still ends before the lease does.
        """
        left = self.deadline - self._clock.monotonic() - self._reserve
        return max(left, min(1.0, self.holding.times.timeout / 2))

    def _publish(self, snapshot: Snapshot, session: StoreSession, credential: Credential) -> None:
        own = snapshot.back_off
        if credential.is_newer_than(snapshot.credential):
            snapshot.hold(credential, self._clock.monotonic(), is_own=True)
            _forget_back_offs(self.holding, snapshot)
        if self.snapshot is snapshot:
            self.ready.set()
        session.save(snapshot.kind, credential)
        failed = self._read_back_off(snapshot, session) or own
        if failed is not None:
            session.drop_note(_note(snapshot.kind))
            session.drop_note(_note_of_host(snapshot.kind))
        self._tell(
            logging.INFO,
            "The %s%s was renewed%s.",
            snapshot.kind,
            self.holding.whose,
            f" after {failed.failures} failures" if failed else "",
            event="recovered" if failed else "refreshed",
            kind=snapshot.kind,
        )
        facts = {"kind": snapshot.kind, "expires_at": credential.expires_at}
        tell_later(lambda: self.holding.notify("refreshed", facts))

    # -- the back-off --------------------------------------------------------------------------

    def _read_back_off(self, snapshot: Snapshot, session: StoreSession) -> BackOff | None:
        """The cluster's back-off, this host's, or this process's own where the store has none."""
        notes = session.notes([_note(snapshot.kind), _note_of_host(snapshot.kind)])
        shared = [BackOff.from_note(note, self.holding.digest) for note in notes]
        return latest([*shared, snapshot.back_off])

    def _record_failure(
        self, snapshot: Snapshot, last: BackOff | None, session: StoreSession
    ) -> None:
        """Tell the other processes, or those of this host, and the log what is new to it."""
        back_off = snapshot.back_off
        if back_off is None:  # a success elsewhere has come in between
            return
        name = (_note_of_host if back_off.is_of_host else _note)(snapshot.kind)
        session.put_note(name, back_off.to_note(self.holding.digest), back_off.note_life)
        if last is None or last.cause != back_off.cause:
            self._tell(
                logging.WARNING,
                "The %s%s was not renewed. %s Next try in %.0f s.",
                snapshot.kind,
                self.holding.whose,
                back_off.error,
                back_off.delay,
                event="refresh_failed",
                kind=snapshot.kind,
                retry_at=back_off.retry_at,
            )
        facts = {"kind": snapshot.kind, "error": back_off.error}
        tell_later(lambda: self.holding.notify("failed", facts))

    # -- for short -----------------------------------------------------------------------------

    def _now(self) -> float:
        return self._clock.time()

    def _state(self) -> State:
        return self.holding.state(self.snapshot, self._now())

    def _tell(
        self, level: int, text: str, *args: object, event: str, kind: str = "", **facts: object
    ) -> None:
        about = {"account": self.holding.name, "app_id": self.holding.app_id}
        kind = kind or self.snapshot.kind
        tell(level, text, *args, event=event, **about, kind=kind, **facts)


def take_over(
    holding: Holding, snapshot: Snapshot, stored: Credential | None, clock: Clock, store: Store
) -> bool:
    """Adopt what the store has, if it is newer; False when it lost what we hold."""
    held, now = snapshot.credential, clock.time()
    if stored is not None and stored.is_newer_than(held):
        ahead = snapshot.adopt(stored, now, clock.monotonic(), holding.times.ahead)
        if ahead is not None:
            _tell_of_clocks(holding, snapshot.kind, ahead, clock.monotonic())
        _forget_back_offs(holding, snapshot)
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


def _forget_back_offs(holding: Holding, snapshot: Snapshot) -> None:
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


def _note(kind: str) -> str:
    """The name of the note that holds a kind's back-off."""
    return f"backoff.{kind}"


def _note_of_host(kind: str) -> str:
    """The same for a verdict on this host's address, which concerns no other host."""
    host = hashlib.sha256(socket.gethostname().encode("utf-8", "replace")).hexdigest()[:12]
    return f"{_note(kind)}@{host}"
