"""What one process has for one app: its renewals, its thread and its schedule."""

from __future__ import annotations

import copy
import logging
import math
import os
import random
import socket
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterable, Sequence

from .._credential import Credential, State
from .._error_text import describe
from .._storage.store import Store, Stores
from .._telling import put_off, tell
from ..errors import WxJsApiError
from .adopting import take_over
from .clock import Clock
from .loading import Loading
from .purpose import HEAR, KEEP, Complaint, Purpose
from .renewal import GRACE, Means, Renewal, is_under_way, under_way
from .schedule import Schedule
from .snapshot import Holding, Snapshot
from .thread import BackgroundThread
from .threads import NoThread, Threads, call_later, spawn
from .turns import Turns

#: Keys a second that the thread looks at, however many accounts there are.
_KEYS_A_SECOND = 100
#: The part of an interval by which a look may come early, together with others.
_EARLY = 0.2
_QUIET = 300.0  # seconds between two lines in the log about threads that cannot start
_LONGEST_SLEEP = 60.0
_HANGS = "A renewal of this account hangs, and no other is started until it comes back."

Entry = tuple[Holding, Snapshot]


class Runtime:
    """One process's own: whatever must not outlive a fork. A changed PID brings another.

    :param owner: the app; the thread ends when it is gone.
    """

    def __init__(
        self,
        owner: weakref.ref[object],
        clock: Clock,
        spawn: Callable[[str, Callable[[], None]], None],
        call_later: Callable[[float, Callable[[], None]], Callable[[], None]],
        rng: random.Random | None = None,
    ) -> None:
        self.pid = os.getpid()
        self.clock = clock
        self.random = rng or random.Random()
        self.stores = Stores()
        self.threads = Threads(clock.monotonic, spawn, call_later, self._came_back)
        self._means = Means(
            clock,
            self.random,
            self.stores,
            self._ended,
            self._freed,
            self.threads.aside,
        )
        self._owner = owner
        self._lock = threading.Lock()  # for a few assignments, never across a call of others'
        self._flights: dict[Snapshot, Renewal] = {}
        self._turns = Turns()
        self._looks_again = False  # for whose turn it is; a timer is set
        self._loadings: dict[Hashable, Loading] = {}
        self._kept: set[Entry] = set()
        self._schedule: Schedule[Entry] = Schedule()
        self._look: Look | None = None
        self._failed_looks = 0
        self._thread: BackgroundThread | None = None
        self._not_before = -math.inf  # monotonic; when the thread may look again
        self._sleeps_until = -math.inf
        self._told_at = -math.inf

    def store(self, holding: Holding) -> Store:
        """The store of an account, as this process sees it."""
        return self.stores.of(holding.plan)

    # -- single flight -------------------------------------------------------------------------

    def flight(self, snapshot: Snapshot) -> Renewal | None:
        """The renewal under way, if there is one."""
        return self._flights.get(snapshot)

    def renew(
        self,
        holding: Holding,
        snapshot: Snapshot,
        purpose: Purpose,
        complaint: Complaint | None = None,
    ) -> tuple[Renewal, bool]:
        """The renewal under way, or a new one; and whether it is new."""
        self.threads.reap()
        with self._lock:
            renewal = self._flights.get(snapshot)
            is_new = renewal is None
            if renewal is None:
                renewal = Renewal(holding, snapshot, purpose, self._means, complaint)
                self._flights[snapshot] = renewal
                self._turns.put(renewal)
            if purpose not in (KEEP, HEAR) and not renewal.is_awaited:
                self._turns.prefer(renewal)
        self._start_waiting()
        return renewal, is_new

    def _start_waiting(self) -> None:
        while True:
            with self._lock:
                renewal = self._turns.next(self.clock.monotonic())
            if renewal is None:
                return self._look_again_later()
            renewal.start_clock()
            try:
                # Of many accounts each may lose one of the process's threads.
                is_one_of_many = renewal.holding.reload is not None
                if is_one_of_many and self.threads.has_lost(renewal.holding):
                    raise NoThread(_HANGS)
                self.threads.start(renewal)
            except NoThread as error:
                self._tell_of_threads(error)
                renewal.fail(error.with_traceback(None))
                self._plan_if_kept(renewal)

    def _look_again_later(self) -> None:
        """When one that is under way counts as slow, since none may end before that."""
        with self._lock:
            seconds = self._turns.next_in(self.clock.monotonic())
            if seconds is None or self._looks_again:
                return
            self._looks_again = True
        try:
            self.threads.call_later(seconds + 0.01, self._look_again)
        except RuntimeError:  # no more threads: the end of one will do
            self._looks_again = False

    def _look_again(self) -> None:
        self._looks_again = False
        self._start_waiting()

    def _ended(self, renewal: Renewal) -> bool:
        with self._lock:
            if self._turns.under_way.pop(renewal, None) is None:
                return False
            self._flights.pop(renewal.snapshot, None)
            return True

    def _freed(self, renewal: Renewal) -> None:
        self._plan_if_kept(renewal)
        self._start_waiting()

    def _plan_if_kept(self, renewal: Renewal) -> None:
        entry = (renewal.holding, renewal.snapshot)
        # A mere look puts nothing off: who asks for the status every second would keep the thread
        # from ever trying again. If the thread met it, and left it at that, its turn is soon.
        has_turn = renewal.purpose.asks or not self._is_planned(entry)
        if has_turn and entry in self._kept:
            self._plan(entry, lost_lease=renewal.lost_lease or not renewal.purpose.asks)

    def _is_planned(self, entry: Entry) -> bool:
        with self._lock:
            return entry in self._schedule

    def _came_back(self) -> None:
        """A thread that was lost came back: what waited for that is tried again."""
        now = self.clock.monotonic()
        with self._lock:
            self._failed_looks = 0
            for entry in self._kept:
                if entry in self._schedule:
                    self._schedule.put(entry, now)
        self._wake()

    @property
    def is_looking(self) -> bool:
        """Whether a look at the store is under way."""
        return self._look is not None

    def _tell_of_threads(self, problem: object) -> None:
        """Once, and again after a while: where there are no threads every reader meets that."""
        now = self.clock.monotonic()
        if now - self._told_at >= _QUIET:
            self._told_at = now
            self.tell_aside(logging.ERROR, "%s", str(problem), event="no_thread")

    # -- accounts that come at run time --------------------------------------------------------

    def load(
        self,
        key: Hashable,
        load: Callable[[], None],
        hung: Callable[[], None],
        life: float,
        timeout: float,
    ) -> None:
        """Call a loader of others', within a time; once at a time for each key.

        :param load: asks it, and keeps what it says.
        :param hung: tells the log that it hangs.
        :param life: seconds in which it is to answer.
        :param timeout: seconds that this caller waits.
        :raises WxJsApiError: what went wrong.
        """
        if is_under_way():
            raise WxJsApiError("An account was wanted by code that a renewal has called.")
        self.threads.reap()
        now = self.clock.monotonic()
        made = Loading(
            load,
            now + life,
            lambda: self._loadings.pop(key, None),
            lambda: self.threads.aside(hung),
        )
        # One that hangs stays: each that is asked again could cost another thread.
        loading = self._loadings.setdefault(key, made)
        if loading is made:
            try:
                self.threads.start(made)
            except NoThread as error:
                made.end(error.with_traceback(None))
        loading.done.wait(max(0.0, min(timeout, loading.deadline - now)))
        if not loading.done.is_set():
            raise WxJsApiError("The account_loader did not answer in time.")
        if loading.error is not None:
            raise copy.copy(loading.error)

    def is_loading(self, key: Hashable) -> bool:
        """Whether a loader is being called for a key."""
        return key in self._loadings

    # -- the schedule --------------------------------------------------------------------------

    def keep(self, holding: Holding, snapshot: Snapshot) -> None:
        """Have the thread keep something warm."""
        entry = (holding, snapshot)
        if entry in self._kept:
            return
        with self._lock:
            self._kept.add(entry)
            self._schedule.put(entry, self.clock.monotonic())
        self._wake()

    def forget(self, holding: Holding) -> None:
        """Have the thread keep nothing of an account any more; without any it ends."""
        with self._lock:
            for snapshot in list(holding.snapshots.values()):
                self._kept.discard((holding, snapshot))
                self._schedule.drop((holding, snapshot))
            thread = None if self._kept else self._thread
        if thread is not None:
            thread.stop()

    def is_kept(self, holding: Holding, snapshot: Snapshot) -> bool:
        """Whether the thread sees to it."""
        return (holding, snapshot) in self._kept

    def kept_of(self, holding: Holding) -> list[Snapshot]:
        """What the thread keeps of an account."""
        held = list(holding.snapshots.values())
        return [snapshot for snapshot in held if self.is_kept(holding, snapshot)]

    def tick(self) -> float:
        """Attend to what is due; for the thread.

        :returns: seconds until something is due again.
        """
        self.threads.reap()
        monotonic = self.clock.monotonic()
        due = self._pop_due(monotonic)
        now = self.clock.time()
        wanted = [entry for entry in due if self._is_wanted(entry, now)]
        if wanted:
            self._not_before = monotonic + len(wanted) / _KEYS_A_SECOND
            self.attend(wanted)
        with self._lock:
            # A look that is under way wakes the thread when it is over.
            next_at = None if self._look else self._schedule.next_at
            monotonic = self.clock.monotonic()
            pause = _LONGEST_SLEEP if next_at is None else next_at - monotonic
            pause = max(pause, self._not_before - monotonic, 0.01)
            self._sleeps_until = monotonic + pause
        return min(pause, _LONGEST_SLEEP)

    def _pop_due(self, monotonic: float) -> list[Entry]:
        """What is due, and what soon would be: one question to the store for all of them."""
        with self._lock:
            if self._look is not None or monotonic < self._not_before:
                return []
            due = self._schedule.pop_due(monotonic, _KEYS_A_SECOND)
            if not due:
                return []
            soon = monotonic + _EARLY * min(map(self._interval, due))
            return due + self._schedule.pop_due(soon, _KEYS_A_SECOND - len(due))

    @property
    def next_at(self) -> float | None:
        """The Unix time at which something is due next; None for never."""
        with self._lock:
            next_at = self._schedule.next_at
        if next_at is None:
            return None
        return self.clock.time() + next_at - self.clock.monotonic()

    def _is_wanted(self, entry: Entry, now: float) -> bool:
        """Whether to keep something warm: the account's own ticket, and what was read lately."""
        holding, snapshot = entry
        if holding.is_background() and (
            snapshot.kind in holding.always_warm or snapshot.is_read(now)
        ):
            return True
        with self._lock:
            self._kept.discard(entry)
        if not self.kept_of(holding):
            holding.gone()
        return False

    def attend(self, entries: Sequence[Entry]) -> Look:
        """Look at the store for some snapshots, and renew what is due."""
        look = Look(self, entries)
        with self._lock:
            self._look = look
        try:
            self.threads.start(look)
        except NoThread as error:
            self._tell_of_threads(error)
            look.cancel()
        return look

    def looked(self, look: Look, *, has_failed: bool) -> None:
        """A look is over: plan the next ones."""
        with self._lock:
            if self._look is look:
                self._look = None
            self._failed_looks = self._failed_looks + 1 if has_failed else 0
        for entry in look.entries:
            if entry in self._kept and entry not in look.renewed:
                self._plan(entry)
        self._wake()  # it plans nothing while a look is under way, and what was renewed may be due

    def tell_of_hanging_look(self) -> None:
        """Tell the log of the first look in a row that hangs."""
        if self._failed_looks == 1:
            text = "A look at the store hangs: in a ticket server or the network."
            self.tell_aside(logging.ERROR, text, event="renewal_hangs")

    def _plan(self, entry: Entry, *, lost_lease: bool = False) -> None:
        """Put the next time for something into the schedule."""
        entry[1].lost_leases = entry[1].lost_leases + 1 if lost_lease else 0
        at = self._next_at(*entry)
        entry[1].next_at = at
        # By the clock that nobody sets: put back, the other one would stop the thread for as long.
        at = self.clock.monotonic() + at - self.clock.time()
        with self._lock:
            if entry in self._kept:
                self._schedule.put(entry, at)
            is_sooner = at < self._sleeps_until
        if is_sooner:
            self._wake()

    def _interval(self, entry: Entry) -> float:
        """Seconds between two looks, as long as nothing is due."""
        return max(entry[0].times.interval, len(self._kept) / (_KEYS_A_SECOND * (1 - _EARLY)))

    def _next_at(self, holding: Holding, snapshot: Snapshot) -> float:
        now = self.clock.time()
        interval = self._interval((holding, snapshot))
        look_at = now + interval * self.random.uniform(1 - _EARLY, 1)
        if self._failed_looks:  # each that hangs costs a thread
            look_at = now + min(400.0, interval * 2 ** min(self._failed_looks, 10))
        if snapshot.lost_leases and holding.state(snapshot, now) is not State.FRESH:
            longest = min(1.0, 0.25 * 1.5 ** min(snapshot.lost_leases, 10))
            return now + longest * self.random.uniform(0.5, 1)
        due_at = self.due_at(holding, snapshot)
        if due_at > now:
            return min(look_at, due_at + self.random.uniform(0, 0.2))
        back_off = holding.back_off(snapshot, now)
        return look_at if back_off is None else min(look_at, max(now + 0.1, back_off.retry_at))

    def due_at(self, holding: Holding, snapshot: Snapshot) -> float:
        """When the thread renews it: hosts without a common lease spread that over the lead."""
        refresh_at = snapshot.refresh_at(holding.times.ahead)
        held = snapshot.credential
        if snapshot.is_from_the_future(self.clock.time()):
            return -math.inf  # a clock was put back: its end cannot be believed
        if held is None or held.first is not None or not self._is_leased_by_host(holding):
            return refresh_at
        lead = held.usable_until - held.refresh_at(holding.times.ahead)
        return refresh_at + 0.8 * lead * _share_of_host(snapshot.kind, held.generation)

    def _is_leased_by_host(self, holding: Holding) -> bool:
        try:
            return self.store(holding).is_leased_by_host
        except Exception:  # of a backend that connects when it is made, and cannot
            return False

    # -- the thread ----------------------------------------------------------------------------

    def ensure_thread(self) -> bool:
        """Start the thread unless it runs; whether there is one."""
        thread = self._thread
        if thread is not None and thread.is_running:
            return True
        return self._start_thread(thread)

    def _start_thread(self, dead: BackgroundThread | None) -> bool:
        with self._lock:
            if self._thread is not dead:  # somebody was faster
                return True
            self._thread = thread = BackgroundThread(weakref.ref(self), self._owner)
        has_died = dead is not None and not dead.is_stopped
        try:
            threading.Thread(target=thread.run, name="wxjsapi", daemon=True).start()
        except RuntimeError as error:  # no more threads, or the interpreter is on its way out
            thread.is_running = False
            thread.is_stopped = True
            self._tell_of_threads(f"The background thread cannot start: {error}.")
            return False
        if has_died:
            text = "The background thread died; a new one takes its place."
            self.tell_aside(logging.WARNING, text, event="thread_died")
        return True

    def tell_aside(self, level: int, text: str, *args: object, event: str, **facts: object) -> None:
        """Tell the log something, in a thread that nobody waits for."""
        self.threads.aside(lambda: tell(level, text, *args, event=event, **facts))

    def _wake(self) -> None:
        thread = self._thread
        if thread is not None:
            thread.wake.set()


def _share_of_host(kind: str, generation: int) -> float:
    """A number from 0 to 1, another one for each host and generation."""
    return random.Random(f"{socket.gethostname()} {kind} {generation}").random()


class Look:
    """A look at the store for some snapshots; a job for a thread of its own."""

    name = "wxjsapi-look"
    of = None

    def __init__(self, runtime: Runtime, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.done = threading.Event()
        self.over_at = (
            runtime.clock.monotonic() + max(holding.times.timeout for holding, _ in entries) + GRACE
        )
        self.renewed: set[Entry] = set()  # planned when their renewal is over
        self._runtime = runtime

    def run(self) -> None:
        """Adopt what is newer there, and renew what is due or was lost."""
        with put_off(), under_way():
            try:
                for store, entries in self._by_store():
                    self._look(store, entries)
            except Exception as error:
                text = "A look at the store broke: %s."
                tell(logging.ERROR, text, describe(error), event="look_broke")
            finally:
                self._end(has_failed=False)

    def give_up(self) -> None:
        """It hangs: in a ticket server, say. The log has the first of them."""
        self._end(has_failed=True)
        self._runtime.tell_of_hanging_look()

    def cancel(self) -> None:
        """There is no thread for it, which cost none."""
        self._end(has_failed=False)

    def _end(self, *, has_failed: bool) -> None:
        if not self.done.is_set():
            self.done.set()
            self._runtime.looked(self, has_failed=has_failed)

    def _by_store(self) -> Iterable[tuple[Store, list[Entry]]]:
        groups: dict[Store, list[Entry]] = {}
        for entry in self.entries:
            groups.setdefault(self._runtime.store(entry[0]), []).append(entry)
        return groups.items()

    def _look(self, store: Store, entries: list[Entry]) -> None:
        runtime = self._runtime
        wanted = [(holding.keys.of(snapshot.kind), snapshot.kind) for holding, snapshot in entries]
        found: dict[str, Credential] | None = None
        try:
            found = store.find_many(wanted, runtime.clock.time())
            store.prepare()  # here, where it may hang; the schedule asks it for the lease it has
        except Exception:  # noqa: S110 - the log has it
            pass
        for (key, _), (holding, snapshot) in zip(wanted, entries, strict=True):
            snapshot.looked_at = runtime.clock.time()
            has_it = found is None or take_over(
                holding, snapshot, found.get(key), runtime.clock, store
            )
            if not has_it or self._is_due(holding, snapshot, is_store_up=found is not None):
                self.renewed.add((holding, snapshot))
                runtime.renew(holding, snapshot, KEEP)
            elif holding.is_outdated:
                runtime.renew(holding, snapshot, HEAR)

    def _is_due(self, holding: Holding, snapshot: Snapshot, *, is_store_up: bool) -> bool:
        runtime, now = self._runtime, self._runtime.clock.time()
        state = holding.state(snapshot, now)
        if state is State.FRESH or holding.back_off(snapshot, now) is not None:
            return False
        if state is State.INVALID:
            return True
        return is_store_up and now >= runtime.due_at(holding, snapshot)


class Engine:
    """The engine of one app: a runtime for each process that uses it, and the accounts.

    :param owner: the app, held weakly.
    :param spawn: starts a thread; runs the target at once in tests.
    """

    def __init__(
        self,
        owner: object,
        *,
        clock: Clock = time,
        spawn: Callable[[str, Callable[[], None]], None] = spawn,
        call_later: Callable[[float, Callable[[], None]], Callable[[], None]] = call_later,
        rng: random.Random | None = None,
    ) -> None:
        self.clock = clock
        self._owner = weakref.ref(owner)
        self._spawn, self._call_later, self._rng = spawn, call_later, rng
        self._runtimes: dict[int, Runtime] = {}

    def runtime(self) -> Runtime:
        """This process's own. What processes hold outlives a fork, how they work does not."""
        pid = os.getpid()
        runtime = self._runtimes.get(pid)
        if runtime is None:
            # No lock: one inherited through a fork may be held by a thread that is not here.
            made = Runtime(self._owner, self.clock, self._spawn, self._call_later, self._rng)
            runtime = self._runtimes.setdefault(pid, made)
        return runtime
