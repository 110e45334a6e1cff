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

from .._credential import KINDS, Credential, State
from .._error_text import describe
from .._storage.store import Stores, StoreSession
from .._telling import put_off, tell, tell_later
from ..errors import TicketUnavailable, UnknownAccount, WeChatAPIError, WxJsApiError
from .adopting import forget_back_offs, take_over
from .asking import Question, cleaned
from .back_off import BackOff, latest
from .clock import Clock
from .limit import REFRESH, Limit, complaints_of
from .purpose import CHECK, FORCE, HEAR, Complaint, Purpose
from .snapshot import Holding, Snapshot

#: errcodes by which WeChat refuses an access token on another call.
TOKEN_REJECTED = frozenset({40001, 40014, 42001})
#: Seconds beyond its deadline after which a renewal hangs, and its lease is free.
GRACE = 5.0

_WAIT_LEAST, _WAIT_MOST = 0.05, 1.0  # seconds between two tries for the lease

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

    :param complaint: why, with :data:`CHECK`.
    """

    def __init__(
        self,
        holding: Holding,
        snapshot: Snapshot,
        purpose: Purpose,
        means: Means,
        complaint: Complaint | None = None,
    ) -> None:
        self.holding = holding
        self.snapshot = snapshot
        self.purpose = purpose
        self.complaint = complaint
        self.deadline = math.inf  # monotonic seconds, from when it has a thread
        #: Readers can go on; saving may still be under way.
        self.ready = threading.Event()
        self.done = threading.Event()
        self.error: WxJsApiError | None = None
        self.lost_lease = False
        self.is_awaited = False  # by a reader or a person, and not just the thread's
        self._means = means
        self._clock = means.clock
        self._session: StoreSession | None = None
        self._handed_out: Credential | None = None  # from the store, while this goes on
        self._asked: Snapshot | None = None  # that the upstream is being asked for
        self._was_rejected = False
        self._is_changed = False  # the account: it is another question to WeChat
        self._verdict: str | None = None  # on a page's signature

    @property
    def name(self) -> str:
        return f"wxjsapi-renewal-{self.holding.name}"

    @property
    def over_at(self) -> float:
        """Monotonic seconds."""
        return self.deadline + GRACE

    @property
    def of(self) -> object:
        """The account."""
        return self.holding

    # -- as a job ------------------------------------------------------------------------------

    def start_clock(self) -> None:
        """It gets its thread: its time begins."""
        self.deadline = self._clock.monotonic() + self.holding.times.timeout

    def run(self) -> None:
        """Make the attempt. What it has to tell is told when it is over."""
        with put_off(), under_way():
            error: WxJsApiError | None = None
            try:
                if self._attempt():  # the account's keys are others by now, and so is its lease
                    self._attempt()
            except WxJsApiError as raised:
                error = cleaned(raised)
            except BaseException as unforeseen:  # gevent's Timeout is one; the thread is ours
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
            "A renewal hangs: in a ticket server, an access token provider, an account_loader or "
            "the network."
        )
        hung = self._asked or self.snapshot
        last = hung.back_off
        if not self._means.ended(self):
            return
        # Twice the pause: whoever waits for the lease looks once a second, and comes first.
        hung.back_off = BackOff.after(error, last, self._now(), self._means.random, 2)
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
        failed = self._asked if error is not None and is_first and self.purpose.asks else None
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
            self.snapshot.looked_at = self._now()  # readers need not look at the store so soon
            for needed in self.holding.chain(self.snapshot):
                if needed is self.snapshot or needed is self._asked:
                    self._remember(needed, error)
        self.ready.set()

    def _remember(self, snapshot: Snapshot, error: WxJsApiError) -> None:
        """Let readers who have nothing fail at once until something succeeds."""
        if self.holding.state(snapshot, self._now()) is State.INVALID:
            snapshot.failure = error

    # -- the attempt ---------------------------------------------------------------------------

    def _attempt(self) -> bool:
        """Make the attempt; or return True where it has to be made once more."""
        session = self._session = StoreSession(
            self._means.stores.of(self.holding.plan),
            self.holding.keys,
            self.holding.times.timeout + GRACE,
            self._clock.time,
        )
        if self.purpose is HEAR:
            self._reload(session)
            return False
        signed_with = self.snapshot.credential
        if self._is_settled(session):
            return False
        if self._clock.monotonic() >= self.over_at:
            # It hung in the store, and others have gone on: nobody would free its lease.
            raise WxJsApiError("The renewal came back too late.")
        pause = _WAIT_LEAST
        while not session.take_lease():
            if not self.purpose.waits:
                self.lost_lease = True
                return False
            if self._clock.monotonic() >= self.deadline:
                self.lost_lease = True
                raise TicketUnavailable(1, "Another process is renewing the ticket, or died at it.")
            self._clock.sleep(pause * self._means.random.uniform(0.75, 1))
            pause = min(pause * 1.5, _WAIT_MOST)
            if self._is_settled(session):
                return False
        self._check_that_it_counts()
        # Whoever had the lease before may have done it all: look again before asking WeChat.
        if self._is_settled(session):
            return False
        if self.purpose is CHECK and self.snapshot.credential is not signed_with:
            return False  # the page's next try is signed with the newer one
        if not self._may_ask(session):
            return False
        # What a person has changed of the account is heard however soon after the last refresh().
        if self._reload(session):
            session.release_lease()
            return True
        if self._is_changed or self._is_allowed(session):
            (self._check if self.purpose is CHECK else self._renew)(session)
        return False

    def _reload(self, session: StoreSession) -> bool:
        """Hear what the loader says of the account now, if it has one; whether its keys in the
        store are others since.

        :raises WxJsApiError: the loader failed, or does not know the account any more.
        """
        if self.holding.reload is None:
            return False
        self.holding.is_outdated = False
        self._asked, digest = self.snapshot, self.holding.digest
        try:
            is_other = self.holding.reload()
        except UnknownAccount:
            self._asked = None  # no failure: nothing is tried again
            self._end_account(session)
            raise
        self._asked = None
        self._is_changed |= self.holding.digest != digest
        return is_other

    def _end_account(self, session: StoreSession) -> None:
        """The account is gone: nobody is handed what is left of it, in no process."""
        self._check_that_it_counts()
        for kind in KINDS:  # also what only other processes have read
            snapshot = self.holding.snapshot(kind)
            self._look(snapshot, session)
            held = snapshot.credential
            if held is not None and self.holding.state(snapshot, self._now()) is not State.INVALID:
                self._withdraw(snapshot, held, session)
            session.drop_note(REFRESH.note_of(snapshot.kind))  # it may be added again at once
        self.holding.gone()
        self._tell(
            logging.INFO,
            "The account %s is gone: the account_loader does not know it any more.",
            self.holding.app_id,
            event="account_gone",
        )

    def _check_that_it_counts(self) -> None:
        """Go no further where others have gone on without this renewal.

        :raises WxJsApiError: it hung, was given up, and came back.
        """
        if self.done.is_set():
            raise WxJsApiError("The renewal came back too late.")

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
        return is_sound or needs_it  # else every process would ask, for a ticket that still does

    def _limits(self) -> dict[str, Limit]:
        """What must allow this attempt, by the names of the notes."""
        of_source = complaints_of(self.complaint.source) if self.complaint else None
        limits = filter(None, (self.purpose.limit, of_source))
        return {limit.note_of(self.snapshot.kind): limit for limit in limits}

    def _is_allowed(self, session: StoreSession) -> bool:
        """Whether the cluster may renew what is not due once more; then it is counted."""
        limits, now, limited = self._limits(), self._now(), self.holding.limited
        if not limits:
            return True
        for (name, limit), note in zip(limits.items(), session.notes([*limits]), strict=True):
            limited[name] = limit.remembered(note, limited.get(name, []), now)
        if not all(limit.allows(limited[name], now) for name, limit in limits.items()):
            return False
        for name, limit in limits.items():
            limited[name].append(now)
            session.put_note(name, {"times": limited[name]}, limit.longest)
        # Without a lease nobody else would know that it was asked.
        return self.complaint is None or not session.needs_no_lease

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
        page = self.complaint.page if self.complaint else ""
        self._tell(
            logging.WARNING,
            "WeChat called the signature of %s invalid. %s",
            page,
            verdict,
            event="signature_rejected",
            page=page,
        )

    def _fetch(
        self,
        snapshot: Snapshot,
        session: StoreSession,
        parent: Credential | None = None,
        rejected: Credential | None = None,
    ) -> None:
        """Ask for a credential and publish it.

        :raises WxJsApiError: what went wrong.
        """
        self._check_that_it_counts()
        self._asked = snapshot
        holding = self.holding
        question = Question(
            holding.upstream,
            self._clock,
            snapshot.kind,
            snapshot.credential,
            parent,
            rejected,
            self.deadline,
            holding.times.timeout,
        )
        found = question.answer()
        self._asked = None
        self._publish(snapshot, session, found)

    def _publish(self, snapshot: Snapshot, session: StoreSession, credential: Credential) -> None:
        own, held = snapshot.back_off, snapshot.credential
        if held is None or credential.is_newer_than(held):
            snapshot.hold(credential, self._clock.monotonic(), is_own=True)
            forget_back_offs(self.holding, snapshot)
            held = credential
        if self.snapshot is snapshot:
            self.ready.set()
        session.save(snapshot.kind, held)  # others may have gone on while the call hung
        failed = self._read_back_off(snapshot, session) or own
        if failed is not None:
            session.drop_note(_note(snapshot.kind))
            session.drop_note(_note_of_host(snapshot.kind))
        self._tell(
            logging.INFO,
            "The %s%s was renewed%s.",
            snapshot.kind,
            self.holding.whose,
            f" after {_failures(failed.failures)}" if failed else "",
            event="recovered" if failed else "refreshed",
            kind=snapshot.kind,
        )
        facts = {"kind": snapshot.kind, "expires_at": credential.expires_at}
        tell_later(lambda: self.holding.notify("refreshed", facts))

    # -- the back-off --------------------------------------------------------------------------

    def _read_back_off(self, snapshot: Snapshot, session: StoreSession) -> BackOff | None:
        """The cluster's back-off, this host's, or this process's own where the store has none."""
        names = [_note(snapshot.kind), _note_of_host(snapshot.kind)]
        notes = session.notes(names)
        shared = [BackOff.from_note(note, self.holding.digest) for note in notes]
        for name, note in zip(names, notes, strict=True):
            if BackOff.is_damaged(note, self.holding.digest):
                session.replace_damaged(name)
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


def _failures(number: int) -> str:
    return "1 failure" if number == 1 else f"{number} failures"


def _note(kind: str) -> str:
    """The name of the note that holds a kind's back-off."""
    return f"backoff.{kind}"


def _note_of_host(kind: str) -> str:
    """The same for a verdict on this host's address, which concerns no other host."""
    host = hashlib.sha256(socket.gethostname().encode("utf-8", "replace")).hexdigest()[:12]
    return f"{_note(kind)}@{host}"
