"""A FileSystemCache that loses, hides, spoils or refuses its files, with warm and with cold apps.

Root passes over modes and owners, so under root the tests become a common user, in this process,
and step back only to strike. Where they are started by a common user already, what needs another
user's files or a mount is skipped.
"""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flask
import pytest
from flask import Flask
from flask_caching import Cache

from flask_wxjsapi import WxJsApi
from flask_wxjsapi._credential import ACCESS_TOKEN, JSAPI_TICKET
from flask_wxjsapi._storage.cache import CACHELIB_SKIPS
from flask_wxjsapi.sandbox import Sandbox
from tests.conftest import require
from tests.faults.conftest import Figure
from tests.faults.test_wechat import PATIENCE, STALE, Ahead, Process, events

MakeApp = Callable[..., tuple[Flask, WxJsApi]]

pytestmark = pytest.mark.skipif(not hasattr(os, "setresuid"), reason="needs POSIX users")

NOBODY, STRANGER = 65534, 12345
LOOKS = 50
IS_ROOT = hasattr(os, "getuid") and os.getuid() == 0


class _Identity:
    """This process's user, which may be changed there and back; for all of its threads."""

    def __init__(self) -> None:
        self._groups = os.getgroups()

    def to_common(self) -> None:
        if IS_ROOT:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, 0)
            os.setresuid(NOBODY, NOBODY, 0)  # root stays behind as the saved one: the way back
            if not os.access(flask.__file__, os.R_OK):
                self.to_root()
                pytest.skip("run by root in a directory that only root can read, such as .tox")

    def to_root(self) -> None:
        if IS_ROOT:
            os.setresuid(0, 0, 0)
            os.setresgid(0, 0, 0)
            os.setgroups(self._groups)

    @contextmanager
    def root(self) -> Iterator[None]:
        self.to_root()
        try:
            yield
        finally:
            self.to_common()


class Place:
    """A CACHE_DIR, and where we are in it."""

    def __init__(self, root: Path, identity: _Identity) -> None:
        self.root = root
        self.cache_dir = root / "cache"
        self.ours = self.cache_dir / f"wxjsapi{CACHELIB_SKIPS}"
        self.as_root = identity.root
        self.app_cache: Cache | None = None
        self.app: Flask | None = None

    @property
    def config(self) -> dict[str, Any]:
        return {
            "CACHE_TYPE": "FileSystemCache",
            "CACHE_DIR": str(self.cache_dir),
            "CACHE_THRESHOLD": 5,
        }

    def records(self) -> list[Path]:
        """The files with records; the lock file and what cachelib has not finished are none."""
        if not self.ours.is_dir():
            return []
        return [path for path in self.ours.iterdir() if path.suffix != CACHELIB_SKIPS]

    def fill_app_cache(self) -> None:
        """What the app itself keeps in the same CACHE_DIR, beyond its threshold."""
        app = Flask("neighbour")
        app.config.update(self.config)
        cache = Cache(app)
        with app.app_context():
            for number in range(40):
                cache.set(f"page-{number}", "<html>", timeout=number + 1)
        self.app, self.app_cache = app, cache


# -- the faults ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """Something that befalls the files.

    :param strike: does it, as a common user or through ``place.as_root``.
    :param heal: undoes it; None where the next look does.
    :param told: the events of a warm app's log, from the fault to its end.
    :param needs: ``"root"`` or ``"mount"``.
    :param is_lasting: whether the store does not work while it lasts.
    """

    strike: Callable[[Place], None]
    heal: Callable[[Place], None] | None = None
    told: tuple[str, ...] = ()
    needs: str = ""

    @property
    def is_lasting(self) -> bool:
        return self.heal is not None


def _remove(place: Place) -> None:
    shutil.rmtree(place.cache_dir, ignore_errors=True)


def _remove_ours(place: Place) -> None:
    shutil.rmtree(place.ours, ignore_errors=True)


def _hide(place: Place) -> None:
    place.cache_dir.chmod(0o000)


def _show(place: Place) -> None:
    place.cache_dir.chmod(0o700)


def _hide_files(place: Place) -> None:
    for path in place.ours.iterdir():
        path.chmod(0o000)


def _mount(place: Place, *options: str) -> None:
    with place.as_root():
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(place.root)]
        subprocess.run(command, check=True)


def _make_read_only(place: Place) -> None:
    _remount(place, "ro")


def _make_writable(place: Place) -> None:
    _remount(place, "rw")


def _remount(place: Place, mode: str) -> None:
    with place.as_root():
        subprocess.run(["mount", "-o", f"remount,{mode}", str(place.root)], check=True)


def _fill(place: Place) -> None:
    with (place.root / "ballast").open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
    assert shutil.disk_usage(place.root).free == 0


def _empty(place: Place) -> None:
    (place.root / "ballast").unlink()


def _give_away(place: Place) -> None:
    with place.as_root():
        os.chown(place.ours, STRANGER, STRANGER)


def _give_back(place: Place) -> None:
    with place.as_root():
        os.chown(place.ours, NOBODY, NOBODY)


def _give_files_away(place: Place) -> None:
    with place.as_root():
        for path in place.ours.iterdir():
            os.chown(path, STRANGER, STRANGER)


def _overwrite(data: bytes) -> Callable[[Place], None]:
    def strike(place: Place) -> None:
        for path in place.records():
            path.write_bytes(data)

    return strike


def _truncate(length: int) -> Callable[[Place], None]:
    def strike(place: Place) -> None:
        for path in place.records():
            os.truncate(path, length)

    return strike


HEAD = struct.pack("I", 4_000_000_000)  # what cachelib begins a file with: until when it counts


class Bomb:
    """Leaves a mark when it is unpickled."""

    mark = ""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(Bomb.mark),)


def _plant_pickle(place: Place) -> None:
    Bomb.mark = str(place.root / "exploded")
    for path in place.records():
        path.write_bytes(HEAD + pickle.dumps(Bomb()))


def _clear(place: Place) -> None:
    place.fill_app_cache()
    assert place.app is not None
    assert place.app_cache is not None
    with place.app.app_context():
        assert place.app_cache.clear()


DAMAGED = ("record_damaged",) * 2  # the ticket's and the token's
DOWN = ("store_down", "store_up")

FAULTS = {
    "directory removed": Fault(_remove),
    "our directory removed": Fault(_remove_ours),
    "directory unreadable": Fault(_hide, _show, DOWN),
    "files unreadable": Fault(_hide_files),
    "read-only": Fault(_make_read_only, _make_writable, (), "mount"),
    "full disk": Fault(_fill, _empty, (), "mount"),
    "directory of another user": Fault(_give_away, _give_back, DOWN, "root"),
    "files of another user": Fault(_give_files_away, needs="root"),
    "truncated in the head": Fault(_truncate(2), told=DAMAGED),
    "truncated after the head": Fault(_truncate(4), told=DAMAGED),
    "truncated in the value": Fault(_truncate(40), told=DAMAGED),
    # Its head says that it was over long ago, so nobody looks any further.
    "garbage": Fault(_overwrite(b"\xff\xfe garbage \x00" * 20)),
    "garbage after a good head": Fault(_overwrite(HEAD + b"\xff\x00{" * 9), told=DAMAGED),
    "planted pickle": Fault(_plant_pickle, told=DAMAGED),
    "the app's clear()": Fault(_clear),
    "the app's eviction": Fault(Place.fill_app_cache),
}

#: `make test` contents itself with these.
FAST = (
    "directory removed",
    "read-only",
    "full disk",
    "directory of another user",
    "planted pickle",
)

each_fault = pytest.mark.parametrize(
    ("name", "fault"),
    [
        pytest.param(name, fault, id=name, marks=() if name in FAST else pytest.mark.slow)
        for name, fault in FAULTS.items()
    ],
)


# -- fixtures ------------------------------------------------------------------------------------


@pytest.fixture
def place(request: pytest.FixtureRequest, sandbox: Sandbox) -> Iterator[Place]:
    """A CACHE_DIR of a common user's, on a small file system of its own where the fault needs it.

    ``sandbox`` comes first, so that its server is this user's own.
    """
    callspec = getattr(request.node, "callspec", None)
    needs = callspec.params["fault"].needs if callspec else "root"
    identity = _Identity()
    # Not below tmp_path, whose parents nobody but root may pass through.
    root = Path(tempfile.mkdtemp(prefix="wxjsapi-files-"))
    is_mounted = False
    try:
        if needs and not IS_ROOT:
            require("root", "needs files of another user or a mount, which only root can make")
        if needs == "mount":
            found = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(root)],
                capture_output=True,
                text=True,
            )
            if found.returncode:
                require("mount", f"root may not mount a tmpfs here: {found.stderr.strip()}")
            is_mounted = True
        if IS_ROOT:
            os.chown(root, NOBODY, NOBODY)
        identity.to_common()
        yield Place(root, identity)
    finally:
        identity.to_root()
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(root)], check=True)
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def clock() -> Ahead:
    return Ahead(frozen=True)


@pytest.fixture
def start(make_app: MakeApp, place: Place, clock: Ahead) -> Iterator[Callable[[], Process]]:
    """Starts a process on the place; none has a background thread, tests look themselves."""
    processes = []

    def start() -> Process:
        config = {"WXJSAPI_REFRESH_TIMEOUT": PATIENCE} | place.config
        processes.append(Process(*make_app(**config), clock=clock))
        return processes[-1]

    yield start
    for process in processes:
        process.settle()  # or it would go on saving, as root


Start = Callable[[], Process]


@pytest.fixture
def warm(start: Start) -> Process:
    """A process with a ticket, which is also in the store."""
    process = start()
    process.ticket()
    process.settle()
    return process


def _look(process: Process, times: int = 1) -> None:
    """Look, and wait for the end of it: readers may go on before a record is saved."""
    for _ in range(times):
        process.look()
        process.settle()


def _look_and_read(process: Process, times: int = LOOKS) -> set[str]:
    """As many looks and pages; the tickets read."""
    found = set()
    for _ in range(times):
        _look(process)
        found.add(process.ticket())
        process.clock.advance(0.01)
    assert "wx.config(" in process.page()
    return found


# -- a warm app ----------------------------------------------------------------------------------


@each_fault
def test_pages_go_on_from_the_snapshot(
    name: str, fault: Fault, place: Place, warm: Process, figure: Figure
) -> None:
    """The ticket is the same at every look, and nobody asks WeChat because of a file."""
    first, calls = warm.ticket(), dict(warm.calls)
    fault.strike(place)
    assert _look_and_read(warm) == {first}
    assert warm.calls == calls
    figure(f"files: {name}", "pages go on, no upstream call", f"{LOOKS} looks, 0 calls")


@each_fault
def test_the_record_is_back_when_it_is_over(
    name: str, fault: Fault, place: Place, warm: Process, start: Start
) -> None:
    """After the end of the fault one look is enough for another process to find the ticket."""
    fault.strike(place)
    _look(warm, 3)
    if fault.heal:
        fault.heal(place)
    _look(warm)
    assert len(place.records()) == 2
    other = start()
    assert other.ticket() == warm.ticket()
    assert not other.fetches


@each_fault
def test_it_is_a_line_when_it_begins_and_one_when_it_ends(
    name: str, fault: Fault, place: Place, warm: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """Not a line for each of fifty looks and reads, nor for cachelib's own logger."""
    caplog.set_level(logging.INFO)
    fault.strike(place)
    _look_and_read(warm)
    if fault.heal:
        fault.heal(place)
    _look_and_read(warm, 3)
    assert events(caplog) == list(fault.told)


@each_fault
def test_no_temporary_files_pile_up(
    name: str, fault: Fault, place: Place, warm: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """Fifty looks leave the two records and the lock in our directory, and no more."""
    fault.strike(place)
    _look_and_read(warm)
    with place.as_root():
        files = list(place.ours.iterdir())
    assert len(files) <= 3, [path.name for path in files]


@each_fault
def test_a_renewal_in_the_meantime_is_one(
    name: str, fault: Fault, place: Place, warm: Process, clock: Ahead
) -> None:
    """A ticket that is due during the fault is renewed once, and not again at every look."""
    calls = dict(warm.calls)
    fault.strike(place)
    clock.advance(STALE)
    _look_and_read(warm)
    assert warm.calls == {kind: count + 1 for kind, count in calls.items()} or (
        # A store that does not answer is no reason to ask while the old ticket is still good.
        fault.is_lasting and warm.calls == calls
    )


@each_fault
def test_a_renewal_in_the_meantime_is_few_lines(
    name: str,
    fault: Fault,
    place: Place,
    warm: Process,
    clock: Ahead,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What cannot be saved is said once, whoever's logger says it; and once that it is over."""
    caplog.set_level(logging.INFO)
    fault.strike(place)
    clock.advance(STALE)
    _look_and_read(warm)
    if fault.heal:
        fault.heal(place)
    _look_and_read(warm, 3)
    told = events(caplog)
    downs = [event for event in told if event == "store_down"]
    foreign = [event for event in told if not event.startswith(("store", "record"))]
    assert not foreign, f"{len(foreign)} lines of others, such as {foreign[0]}"
    assert len(downs) == told.count("store_up")
    assert len(downs) <= 2  # the lease and the record: two uses of one store


@each_fault
def test_a_renewal_in_the_meantime_leaves_no_temporary_files(
    name: str, fault: Fault, place: Place, warm: Process, clock: Ahead
) -> None:
    """A record that cannot be saved at fifty looks leaves nothing behind."""
    fault.strike(place)
    clock.advance(STALE)
    _look_and_read(warm)
    with place.as_root():
        files = list(place.ours.iterdir())
    assert len(files) <= 3, f"{len(files)}, such as {sorted(path.name for path in files)[:4]}"


@each_fault
def test_what_was_renewed_in_the_meantime_is_saved_when_it_is_over(
    name: str, fault: Fault, place: Place, warm: Process, start: Start, clock: Ahead
) -> None:
    """The ticket of the time without a store is everybody's afterwards, without a call."""
    fault.strike(place)
    clock.advance(STALE)
    _look(warm, 3)
    if fault.heal:
        fault.heal(place)
    _look(warm)
    other = start()
    assert other.ticket() == warm.ticket()
    assert not other.fetches


@each_fault
def test_a_renewal_in_the_meantime_is_one_for_each_process(
    name: str, fault: Fault, place: Place, warm: Process, start: Start, clock: Ahead, figure: Figure
) -> None:
    """Of three warm processes none asks more than once for a ticket that is due."""
    processes = [warm, start(), start()]
    for process in processes:
        process.ticket()
        process.fetches.clear()
    fault.strike(place)
    clock.advance(STALE)
    for _ in range(5):
        for process in processes:
            _look_and_read(process, 2)
    calls = [process.calls.get(JSAPI_TICKET, 0) for process in processes]
    assert max(calls) <= 1
    if not fault.is_lasting:
        assert sum(calls) == 1
    figure(f"files: {name}", "3 processes, ticket due: at most one call each", f"{calls} calls")


@each_fault
def test_with_wechat_away_as_well_a_process_asks_once(
    name: str, fault: Fault, place: Place, warm: Process, clock: Ahead, sandbox: Sandbox
) -> None:
    """The pause after a failure holds in a process that cannot write it down."""
    warm.fetches.clear()
    fault.strike(place)
    sandbox.fail("-1", times=None)
    clock.advance(8000)  # beyond the end of ticket and token
    _look(warm, 20)
    assert warm.fetches == [ACCESS_TOKEN]


# -- a cold app ----------------------------------------------------------------------------------


@pytest.fixture
def used(start: Start) -> None:
    """The store has been used by processes that are gone."""
    process = start()
    process.ticket()
    process.settle()


@each_fault
@pytest.mark.usefixtures("used")
def test_a_cold_process_gets_a_ticket(
    name: str, fault: Fault, place: Place, start: Start, figure: Figure
) -> None:
    """Each of three processes that start during the fault asks at most once for each kind."""
    fault.strike(place)
    processes = [start() for _ in range(3)]
    for process in processes:
        assert len(_look_and_read(process, 5)) == 1
    calls = [sum(process.calls.values()) for process in processes]
    assert all(count <= 1 for process in processes for count in process.calls.values())
    if not fault.is_lasting:
        assert sum(calls) <= 2
    figure(f"files: {name}", "3 cold processes, at most one call each", f"{calls} calls")


@each_fault
@pytest.mark.usefixtures("used")
def test_a_cold_process_shares_its_ticket_when_it_is_over(
    name: str, fault: Fault, place: Place, start: Start
) -> None:
    """What a cold process fetched during the fault is in the store after it."""
    fault.strike(place)
    process = start()
    process.ticket()
    process.settle()
    if fault.heal:
        fault.heal(place)
    _look(process)
    other = start()
    assert other.ticket()
    assert not other.fetches


@each_fault
@pytest.mark.usefixtures("used")
def test_a_cold_process_says_so_once(
    name: str, fault: Fault, place: Place, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """A process that starts with the fault says what is wrong once, and once that it is over."""
    caplog.set_level(logging.INFO)
    fault.strike(place)
    process = start()
    _look_and_read(process)
    if fault.heal:
        fault.heal(place)
    _look_and_read(process, 3)
    told = events(caplog)
    foreign = [event for event in told if not event.startswith(("store", "record"))]
    assert not foreign, f"{len(foreign)} lines of others, such as {foreign[0]}"
    assert told.count("store_down") == told.count("store_up") <= 2
    assert told.count("record_damaged") <= 2


# -- what lies there -----------------------------------------------------------------------------


@each_fault
def test_nobody_else_can_read_what_is_there_afterwards(
    name: str, fault: Fault, place: Place, warm: Process
) -> None:
    """Whatever happened, and with a umask that forbids nothing: files 0600, directory 0700."""
    before = os.umask(0)
    try:
        fault.strike(place)
        _look(warm, 2)
        if fault.heal:
            fault.heal(place)
        warm.refresh()
        warm.settle()
    finally:
        os.umask(before)
    assert place.ours.stat().st_mode & 0o777 == 0o700
    modes = {oct(path.stat().st_mode & 0o777) for path in place.ours.iterdir()}
    assert modes == {"0o600"}


def test_a_planted_pickle_is_not_loaded(place: Place, warm: Process, start: Start) -> None:
    """Neither a warm process nor a cold one runs what lies under our names."""
    _plant_pickle(place)
    _look(warm, 3)
    _plant_pickle(place)
    start().ticket()
    assert not (place.root / "exploded").exists()
    pickle.loads((HEAD + pickle.dumps(Bomb()))[len(HEAD) :])
    assert (place.root / "exploded").exists()  # it would have


def test_a_look_does_not_sleep_over_a_file_of_another_user(
    place: Place, warm: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cachelib sleeps for 16 s over a file that it may not open; none gets as far as that."""
    naps: list[float] = []
    monkeypatch.setattr("cachelib.file.sleep", naps.append)
    _give_files_away(place)
    _look(warm, 3)
    assert not naps


def test_a_hundred_leftovers_do_not_matter(place: Place, warm: Process) -> None:
    """What cachelib leaves behind when it is killed in mid-write is passed over."""
    for number in range(100):
        (place.ours / f"tmp{number}{CACHELIB_SKIPS}").touch(0o600)
    first, calls = warm.ticket(), dict(warm.calls)
    assert _look_and_read(warm, 3) == {first}
    assert warm.calls == calls
