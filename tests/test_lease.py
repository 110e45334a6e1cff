"""Leases: who of all processes may renew, and where the files for it lie."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flask_wxjsapi._storage import lease as lease_module
from flask_wxjsapi._storage.lease import (
    FileLease,
    Lease,
    LocalLease,
    RedisLease,
    file_lease,
    host_directory,
    host_lease,
    private_directory,
)
from flask_wxjsapi._telling import Told

from .caches import logged, mode, posix_only
from .conftest import Valkey

pytestmark = pytest.mark.usefixtures("own_temporary_directory", "no_lease_is_left")


@pytest.fixture
def no_lease_is_left() -> Iterator[None]:
    yield
    lease_module._of_this_process.clear()


@pytest.fixture(params=["local", "files", "redis"])
def new_lease(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Lease]]:
    """Makes leases for the same thing, as rivals do."""
    if request.param == "local":
        holders: dict[tuple[int, str], LocalLease] = {}
        yield lambda: LocalLease(holders, "lease")
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


def test_local_leases_of_two_accounts_are_no_rivals() -> None:
    """One server serves many accounts, each with a key of its own."""
    holders: dict[tuple[int, str], LocalLease] = {}
    assert LocalLease(holders, "one").acquire()
    assert LocalLease(holders, "other").acquire()


def test_local_lease_is_not_given_twice_to_one_object() -> None:
    """A lock does not do that either."""
    lease = LocalLease({}, "lease")
    assert lease.acquire()
    assert not lease.acquire()


def test_local_lease_leaves_nothing_when_it_is_released() -> None:
    """Thousands of accounts come and go."""
    holders: dict[tuple[int, str], LocalLease] = {}
    lease = LocalLease(holders, "lease")
    assert lease.acquire()
    lease.release()
    lease.release()
    assert holders == {}


def test_local_lease_of_the_parent_does_not_hold_up_a_forked_child(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody in the child would ever release it."""
    holders: dict[tuple[int, str], LocalLease] = {}
    assert LocalLease(holders, "lease").acquire()
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert LocalLease(holders, "lease").acquire()


def test_redis_lease_that_ran_out_frees_nobody_else(valkey: Valkey) -> None:
    """A late release compares the holder's token before it deletes."""
    with valkey.client() as client:
        late, next_one, third = (RedisLease(client, "lease", 15) for _ in range(3))
        assert late.acquire()
        client.delete("lease")  # its time is up
        assert next_one.acquire()
        late.release()
        assert not third.acquire()


@pytest.mark.parametrize("life", [None, 16_000, 10**15], ids=["for ever", "a little", "much"])
def test_redis_lease_that_lasts_longer_than_ours_is_shortened(
    life: int | None, valkey: Valkey
) -> None:
    """Whoever put it there, it would keep the whole cluster from its next ticket."""
    with valkey.client() as client:
        client.set("lease", "planted", px=life)
        assert not RedisLease(client, "lease", 15).acquire()
        assert 10_000 < client.pttl("lease") <= 15_000


def test_redis_lease_of_ours_is_not_prolonged(valkey: Valkey) -> None:
    """A rival that looks often would keep a dead holder's lease alive."""
    with valkey.client() as client:
        client.set("lease", "held", px=9000)
        assert not RedisLease(client, "lease", 15).acquire()
        assert client.pttl("lease") <= 9000


def test_redis_lease_that_is_repaired_is_told_once(
    valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """A line for whoever looks for the one who plants it, and not one a second."""
    told = Told()
    with valkey.client() as client:
        for _ in range(3):
            client.set("lease", "planted", px=10**12)
            assert not RedisLease(client, "lease", 15, told).acquire()
    (line,) = logged(caplog)
    assert line.startswith("The lease lease in Redis is nobody's: it was to last 1e+09 s")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.wxjsapi == {"event": "lease_repaired", "key": "lease"}  # type: ignore[attr-defined]


def test_redis_lease_that_is_repaired_is_told_again_after_a_good_one(
    valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """Two accidents are two lines."""
    told = Told()
    with valkey.client() as client:
        for _ in range(2):
            client.set("lease", "planted")
            assert not RedisLease(client, "lease", 15, told).acquire()
            client.delete("lease")
            assert RedisLease(client, "lease", 15, told).acquire()
    assert len(logged(caplog)) == 2


@pytest.fixture
def without_scripts(valkey: Valkey) -> Iterator[Any]:
    """A client whose user may do all but run scripts."""
    import redis

    with valkey.client() as admin:
        admin.execute_command("ACL SETUSER plain on >word ~* +@all -@scripting")
        with redis.Redis(port=valkey.port, username="plain", password="word") as client:
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.eval("return 1", 0)
            yield client
        admin.execute_command("ACL DELUSER plain")


def test_redis_lease_is_released_without_scripts(without_scripts: Any) -> None:
    """Or the next renewal, of another kind, would wait until it runs out."""
    first = RedisLease(without_scripts, "lease", 15)
    assert first.acquire()
    first.release()
    assert RedisLease(without_scripts, "lease", 15).acquire()


def test_redis_lease_without_an_end_is_released_without_scripts(without_scripts: Any) -> None:
    """What somebody made persistent is ours all the same."""
    lease = RedisLease(without_scripts, "lease", 15)
    assert lease.acquire()
    without_scripts.persist("lease")
    lease.release()
    assert not without_scripts.exists("lease")


def test_redis_lease_that_ran_out_frees_nobody_else_without_scripts(without_scripts: Any) -> None:
    """The holder's token is compared here, too."""
    late, next_one = (RedisLease(without_scripts, "lease", 15) for _ in range(2))
    assert late.acquire()
    without_scripts.delete("lease")
    assert next_one.acquire()
    late.release()
    assert without_scripts.exists("lease")


def test_redis_lease_close_to_its_end_is_left_to_it_without_scripts(without_scripts: Any) -> None:
    """By the time it is deleted it might be another's."""
    lease = RedisLease(without_scripts, "lease", 15)
    assert lease.acquire()
    without_scripts.pexpire("lease", 2000)
    lease.release()
    assert without_scripts.exists("lease")


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


@posix_only
def test_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """Whoever can write beside it cannot lead us elsewhere."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="is a link or belongs to another user"):
        private_directory(tmp_path / "link")


def test_file_in_the_place_of_the_directory_is_an_error(tmp_path: Path) -> None:
    """It is not ours to remove."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        private_directory(tmp_path / "file")


@posix_only
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_nobody_else_writes_to_what_is_made(
    mask: int, umask: Callable[[int], int], tmp_path: Path
) -> None:
    """The parents made on the way are 0755 at most whatever the umask, the directory 0700."""
    umask(mask)
    private_directory(tmp_path / "a" / "b" / "c")
    assert [mode(tmp_path / "a"), mode(tmp_path / "a" / "b")] == [0o755 & ~mask] * 2
    assert mode(tmp_path / "a" / "b" / "c") == 0o700


@posix_only
@pytest.mark.parametrize("which", ["", "parent"], ids=["grandparent", "parent"])
def test_directory_that_others_can_replace_is_refused(which: str, tmp_path: Path) -> None:
    """Who may write above it may put another in its place; the error says what to do."""
    path = tmp_path / "open" / "parent" / "ours"
    private_directory(path)
    is_open = tmp_path / "open" / which
    is_open.chmod(0o777)
    with pytest.raises(PermissionError, match=rf"chmod \+t {is_open}, or choose another"):
        private_directory(path)


@posix_only
def test_directory_that_others_can_replace_is_refused_behind_a_link(tmp_path: Path) -> None:
    """It is the real way to it that counts."""
    (tmp_path / "open" / "cache").mkdir(parents=True)
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path / "open" / "cache")
    with pytest.raises(PermissionError, match="Any user may write to"):
        private_directory(tmp_path / "link" / "ours")


@posix_only
def test_directory_below_a_sticky_one_is_taken(tmp_path: Path) -> None:
    """In one like /tmp nobody can move what is another's."""
    (tmp_path / "sticky").mkdir()
    (tmp_path / "sticky").chmod(0o1777)
    assert private_directory(tmp_path / "sticky" / "ours").is_dir()


def test_directory_where_there_are_no_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_temporary_directory: Path
) -> None:
    """A system without user ids, as Windows, has its directories all the same."""
    monkeypatch.delattr("flask_wxjsapi._storage.lease.os.getuid", raising=False)
    assert private_directory(tmp_path / "a" / "b").is_dir()
    assert host_directory() == own_temporary_directory / "flask-wxjsapi-user"
    assert (own_temporary_directory / "flask-wxjsapi-user").is_dir()


@posix_only
def test_directory_of_ours_that_others_can_read_is_closed(tmp_path: Path) -> None:
    """Whatever the umask made of it, or whoever changed that."""
    (tmp_path / "ours").mkdir(mode=0o755)
    (tmp_path / "ours").chmod(0o755)
    private_directory(tmp_path / "ours")
    assert mode(tmp_path / "ours") == 0o700


def test_host_without_users_and_a_temporary_directory_has_none(
    monkeypatch: pytest.MonkeyPatch, own_temporary_directory: Path
) -> None:
    """There are no other places for it."""
    monkeypatch.delattr("flask_wxjsapi._storage.lease.os.getuid", raising=False)
    (own_temporary_directory / "flask-wxjsapi-user").write_text("in its place")
    assert host_directory() is None


# -- the directory of the host -------------------------------------------------------------------


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where leases of this host may lie, best first, after the temporary directory: in the runtime
    directory of the user, in memory, at home, and in that of a login session.
    """
    run, memory, home, session = (tmp_path / name for name in ("run", "shm", "home", "session"))
    for path in (run, memory, home, session):
        path.mkdir()
    of_the_system = (str(run / "{user}"), str(memory))
    (run / str(os.getuid())).mkdir(0o700)
    monkeypatch.setattr("flask_wxjsapi._storage.lease._OF_THE_SYSTEM", of_the_system)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: SimpleNamespace(pw_dir=str(home)))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(session))
    parents = (run / str(os.getuid()), memory, home / ".cache", session)
    return [parent / f"flask-wxjsapi-{os.getuid()}" for parent in parents]


def take(path: Path) -> None:
    """Be somebody else who has been here before."""
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(path.parent)


@posix_only
def test_host_directory_is_a_temporary_one(
    places: list[Path], own_temporary_directory: Path
) -> None:
    """Where nothing is wrong, and the others are not touched."""
    assert host_directory() == own_temporary_directory / f"flask-wxjsapi-{os.getuid()}"
    assert not any(path.exists() for path in places)


@posix_only
@pytest.mark.parametrize("taken", range(5))
def test_host_directory_that_is_taken_is_passed_over(
    taken: int, places: list[Path], own_temporary_directory: Path
) -> None:
    """For the next one, up to none."""
    every = [own_temporary_directory / places[0].name, *places]
    for path in every[:taken]:
        take(path)
    assert host_directory() == every[taken]
    assert mode(every[taken]) == 0o700


@posix_only
def test_host_directory_does_not_depend_on_the_session(
    places: list[Path], own_temporary_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command at a terminal and a service of the same user come to the same one."""
    take(own_temporary_directory / places[0].name)
    chosen = host_directory()
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("HOME", "/nonexistent")
    assert host_directory() == chosen


@posix_only
def test_host_directory_that_takes_no_files_is_passed_over(
    places: list[Path], own_temporary_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system that was mounted read-only after it was made."""
    first = private_directory(own_temporary_directory / places[0].name)
    real_access = os.access  # which always says yes to root
    monkeypatch.setattr(
        "os.access", lambda path, how: os.fspath(path) != str(first) and real_access(path, how)
    )
    assert host_directory() == places[0]


@pytest.fixture
def nowhere(places: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A container without a directory that could be written to."""

    def fail() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("tempfile.gettempdir", fail)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    for path in (places[0], places[1], places[3]):
        take(path)


@posix_only
@pytest.mark.usefixtures("nowhere")
def test_host_without_a_directory_has_none() -> None:
    """No temporary one, the others taken, and a user that the container does not know."""
    assert host_directory() is None


@posix_only
@pytest.mark.usefixtures("nowhere")
def test_host_lease_without_a_directory_holds_within_the_process() -> None:
    """So that renewals go on ahead of time, if one for each process."""
    first = host_lease("one", Told())
    assert first.acquire()
    assert not host_lease("one", Told()).acquire()
    assert host_lease("two", Told()).acquire()
    first.release()
    assert host_lease("one", Told()).acquire()


@posix_only
@pytest.mark.usefixtures("nowhere")
def test_host_lease_without_a_directory_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """With what to do about it."""
    told = Told()
    for _ in range(3):
        host_lease("lease", told)
    (line,) = logged(caplog)
    assert "Set TMPDIR" in line
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.wxjsapi == {"event": "lease_in_process"}  # type: ignore[attr-defined]


@posix_only
def test_lock_file_that_cannot_be_used_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that a command once run as root left would refuse everybody for ever."""
    path = tmp_path / "lease"
    path.touch()
    inode = path.stat().st_ino
    (tmp_path / "keeps the number").hardlink_to(path)
    monkeypatch.setattr("os.access", lambda path, how: False)
    assert file_lease(path).acquire()
    assert path.stat().st_ino != inode
