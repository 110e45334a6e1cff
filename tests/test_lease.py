"""Leases: who of all processes may renew, and where the files for it lie."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_wxjsapi._storage.lease import (
    FileLease,
    Lease,
    LocalLease,
    RedisLease,
    host_directory,
    private_directory,
)

from .caches import posix_only
from .conftest import Valkey

pytestmark = pytest.mark.usefixtures("own_temporary_directory")


@pytest.fixture(params=["local", "files", "redis"])
def new_lease(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Lease]]:
    """Makes leases for the same thing, as rivals do."""
    if request.param == "local":
        lock = threading.Lock()
        yield lambda: LocalLease(lock)
    elif request.param == "files":
        yield lambda: FileLease(tmp_path / "lease")
    else:
        valkey = request.getfixturevalue("valkey")
        with valkey.client() as client:
            yield lambda: RedisLease(client, "lease", 15)


def in_another_thread(call: Callable[[], Any]) -> Any:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    thread.join()
    (result,) = results
    return result


def test_lease_is_not_given_twice(new_lease: Callable[[], Lease]) -> None:
    """One has it, and the others are told so at once."""
    first, second = new_lease(), new_lease()
    assert first.acquire(blocking=False) is True
    assert second.acquire(blocking=False) is False
    assert second.acquire(blocking=False) is False


def test_lease_is_not_given_to_another_thread(new_lease: Callable[[], Lease]) -> None:
    """Rivals in the same process are rivals as well."""
    first = new_lease()
    assert first.acquire()
    assert in_another_thread(lambda: new_lease().acquire(blocking=False)) is False


def test_lease_is_free_after_release(new_lease: Callable[[], Lease]) -> None:
    """The next one gets it at once, and whoever comes after that does not."""
    first, second, third = new_lease(), new_lease(), new_lease()
    assert first.acquire()
    first.release()
    assert second.acquire()
    assert not third.acquire()


def test_lease_can_be_released_by_another_thread(new_lease: Callable[[], Lease]) -> None:
    """The successor of a renewal that hangs gives its lease back, from a thread of its own."""
    first = new_lease()
    assert first.acquire()
    in_another_thread(first.release)
    assert new_lease().acquire()


def test_release_without_holding_frees_nobody(
    new_lease: Callable[[], Lease], request: pytest.FixtureRequest
) -> None:
    """``release`` frees only what this object took."""
    first, second, third = new_lease(), new_lease(), new_lease()
    assert first.acquire()
    assert not second.acquire()
    second.release()
    assert not third.acquire()


def test_redis_lease_that_ran_out_frees_nobody_else(valkey: Valkey) -> None:
    """A late release compares the holder's token before it deletes."""
    with valkey.client() as client:
        late, next_one, third = (RedisLease(client, "lease", 15) for _ in range(3))
        assert late.acquire()
        client.delete("lease")  # its time is up
        assert next_one.acquire()
        late.release()
        assert not third.acquire()


def test_redis_lease_without_an_end_gets_one(valkey: Valkey) -> None:
    """One that somebody made persistent would keep everybody out for ever."""
    with valkey.client() as client:
        assert RedisLease(client, "lease", 15).acquire()
        client.persist("lease")
        assert not RedisLease(client, "lease", 15).acquire()
        assert 10_000 < client.pttl("lease") <= 15_000


def test_redis_lease_has_a_life(valkey: Valkey) -> None:
    """A holder that dies keeps the lease for its life at most."""
    with valkey.client() as client:
        assert RedisLease(client, "lease", 15).acquire()
        assert 10_000 < client.pttl("lease") <= 15_000


@pytest.mark.processes
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="SIGKILL")
def test_file_lease_is_free_when_its_holder_is_killed(tmp_path: Path) -> None:
    """A process that dies without a word leaves no lease behind."""
    path = tmp_path / "lease"
    code = (
        "import sys; from pathlib import Path; from flask_wxjsapi._storage.lease import FileLease\n"
        f"lease = FileLease(Path({str(path)!r})); print(lease.acquire(), flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert not FileLease(path).acquire()
        holder.kill()
        holder.wait()
        assert holder.returncode == -signal.SIGKILL
        assert FileLease(path).acquire()


def test_lock_file_stays(tmp_path: Path) -> None:
    """Were it deleted, one could lock the old file and another the new one."""
    path = tmp_path / "lease"
    lease = FileLease(path)
    assert lease.acquire()
    inode = path.stat().st_ino
    lease.release()
    assert path.stat().st_ino == inode


# -- directories ---------------------------------------------------------------------------------


@posix_only
def test_directory_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that somebody else made first is not ours to trust."""
    (tmp_path / "theirs").mkdir()
    monkeypatch.setattr("os.getuid", lambda: os.stat("/").st_uid + 4711)
    with pytest.raises(PermissionError, match="belongs to another user: remove it"):
        private_directory(tmp_path / "theirs")


def test_directory_where_there_are_no_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_temporary_directory: Path
) -> None:
    """A system without user ids, as Windows, has its directories all the same."""
    monkeypatch.delattr("flask_wxjsapi._storage.lease.os.getuid", raising=False)
    assert private_directory(tmp_path / "a" / "b").is_dir()
    assert host_directory() == own_temporary_directory / "flask-wxjsapi-user"
    assert host_directory().is_dir()
