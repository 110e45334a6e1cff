"""The lease: who of all processes may ask WeChat now."""

from __future__ import annotations

import logging
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from .._telling import Told, tell


class Lease(Protocol):
    """A right that one process has at a time. ``release`` frees only what this object took.

    Nobody here waits in ``acquire``: a loser looks at the store and tries again.
    """

    def acquire(self, blocking: bool = False) -> bool: ...

    def release(self) -> None: ...


class LocalLease:
    """For the renewals of this process, where no more is shared or can be had.

    :param holders: who holds what; rivals have the same dict.
    :param key: what is leased.
    """

    def __init__(self, holders: dict[tuple[int, str], LocalLease], key: str) -> None:
        self._holders = holders
        # With the PID, since a fork copies the parent's holders, which nobody releases there.
        self._key = (os.getpid(), key)
        self._held: list[tuple[int, str]] = []

    def acquire(self, blocking: bool = False) -> bool:
        if self._held or self._holders.setdefault(self._key, self) is not self:
            return False
        self._held.append(self._key)
        return True

    def release(self) -> None:
        try:
            key = self._held.pop()  # in one step: of two threads that release it, one does
        except IndexError:
            return
        del self._holders[key]


class FileLease:
    """``flock`` on a file that nobody deletes: free at once when its holder dies.

    It has no life of its own: a holder that is stopped but not dead keeps it.
    """

    def __init__(self, path: Path) -> None:
        from filelock import FileLock, Timeout  # which only a renewal needs

        self._taken = Timeout
        self._lock = FileLock(path, mode=0o600, thread_local=False)

    def acquire(self, blocking: bool = False) -> bool:
        try:
            self._lock.acquire(blocking=blocking)
        except self._taken:
            return False
        return True

    def release(self) -> None:
        self._lock.release()


class RedisLease:
    """``SET NX PX`` and a compare-and-delete script, which are redis-py's ``Lock``.

    :param client: the client that writes; a replica may not have the key yet.
    :param life: seconds after which the lease of a dead holder is free.
    :param told: the keys of which the log has been told that they were repaired.
    """

    def __init__(self, client: Any, key: str, life: float, told: Told | None = None) -> None:
        from redis.lock import Lock

        self._client, self._key, self._life = client, key, int(life * 1000)
        self._told = Told() if told is None else told
        self._token = secrets.token_hex(16)
        # thread_local=False: an overdue renewal's lease is released by its successor's thread.
        self._lock = Lock(client, key, timeout=life, thread_local=False)

    def acquire(self, blocking: bool = False) -> bool:
        if self._lock.acquire(blocking=blocking, token=self._token):
            self._told.forget(self._key)
            return True
        left = self._client.pttl(self._key)
        if left == _NO_END or left > self._life:
            self._repair(left)
        return False

    def _repair(self, left: int) -> None:
        """No lease of ours lasts that long. It gets an end, or nobody would have it for as long."""
        self._client.pexpire(self._key, self._life)
        if self._told.is_first(self._key):
            tell(
                logging.WARNING,
                "The lease %s in Redis is nobody's: it was to last %s, and none of ours lasts more "
                "than %g s. It ends after that time now. See who else writes to this Redis.",
                self._key,
                "for ever" if left == _NO_END else f"{left / 1000:g} s",
                self._life / 1000,
                event="lease_repaired",
                key=self._key,
            )

    def release(self) -> None:
        from redis.exceptions import LockError, ResponseError

        try:
            self._lock.release()
        except LockError:
            # It ran out while we held it, and is another's by now.
            tell(
                logging.DEBUG,
                "The lease %s ran out before its release.",
                self._key,
                event="lease_ran_out",
                key=self._key,
            )
        except ResponseError:
            self._release_without_script()

    def _release_without_script(self) -> None:
        """For a user who may not run scripts, or a server that has none.

        Between the look and the deletion the lease may run out and be another's: what is that
        close to its end is left to it.
        """
        if self._client.get(self._key) == self._token.encode():
            left = self._client.pttl(self._key)
            if left == _NO_END or left > _CLOSE_TO_ITS_END:
                self._client.delete(self._key)


#: What Redis says is left of a key without an end.
_NO_END = -1

#: Milliseconds; longer than two answers of Redis take before they are given up.
_CLOSE_TO_ITS_END = 2500


# -- leases that are files -----------------------------------------------------------------------

#: The leases of this process, where this host has no place for files.
_of_this_process: dict[tuple[int, str], LocalLease] = {}


def host_lease(name: str, told: Told) -> Lease:
    """A lease for the processes of this user on this host.

    :param name: a file name.
    :param told: what the log has been told already.
    """
    directory = host_directory()
    if directory is not None:
        return file_lease(directory / name)
    if told.is_first("no directory"):
        tell(
            logging.WARNING,
            "This host has no directory for the lease: none of %s is writable and this user's "
            "alone. So each process renews the ticket without knowing of the others. Set TMPDIR "
            "to a directory that they all can write to, or mount a tmpfs on /tmp.",
            ", ".join(str(path) for path in _host_directories()) or "the usual ones",
            event="lease_in_process",
        )
    return LocalLease(_of_this_process, name)


def file_lease(path: Path) -> FileLease:
    """A lease on a file, in a directory of our own."""
    remove_unusable(path, os.R_OK | os.W_OK)
    return FileLease(path)


def remove_unusable(path: Path, access: int) -> None:
    """Remove a file of ours that we may not use, such as one a command once run as root made."""
    try:
        if not os.access(path, access) and os.lstat(path):
            os.unlink(path)
    except FileNotFoundError:
        pass


def host_directory() -> Path | None:
    """This user's directory for leases on this host, where the store brings none.

    It is the first that can be made, is private and takes files. Somebody else may have taken the
    name in /tmp, and a container may have no writable /tmp at all.
    """
    for path in _host_directories():
        try:
            private_directory(path)
        except OSError:
            continue
        if os.access(path, os.W_OK | os.X_OK):
            return path
    return None


def _host_directories() -> Iterator[Path]:
    """Where such a directory may be, best first.

    All processes of a user have to come to the same one. So what depends on the user and the host
    comes before what depends on the environment of a process; a login session has other variables
    than a service.
    """
    user = str(os.getuid()) if hasattr(os, "getuid") else "user"
    name = f"flask-wxjsapi-{user}"
    try:
        yield Path(tempfile.gettempdir(), name)
    except FileNotFoundError:
        pass  # none of the usual ones takes files
    if not hasattr(os, "getuid"):
        return
    home, session = _home(), os.environ.get("XDG_RUNTIME_DIR")
    of_the_system = [place.format(user=user) for place in _OF_THE_SYSTEM]
    for place in (*of_the_system, home, session):
        if place and os.path.isdir(place):
            yield Path(place, ".cache", name) if place == home else Path(place, name)


#: Where most systems have room in memory, writable also where no disk is.
_OF_THE_SYSTEM = ("/run/user/{user}", "/dev/shm")  # noqa: S108 ours in it is private, or not used


def _home() -> str | None:
    """The user's, as the system has it: ``HOME`` may differ from process to process."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return None  # a container may run as a user that it does not know


def private_directory(path: Path) -> Path:
    """Make a directory that is ours alone, and make sure it is.

    :raises PermissionError: when it belongs to somebody else, or others may put another one in its
        place.
    """
    _make(path)
    status = os.lstat(path)
    if hasattr(os, "getuid"):
        if stat.S_ISLNK(status.st_mode) or status.st_uid != os.getuid():
            raise PermissionError(
                f"The directory {path} is a link or belongs to another user: remove it, or "
                "choose another CACHE_DIR."
            )
        _refuse_open_parents(path)
        if status.st_mode & 0o777 != 0o700:  # whatever the umask made of it
            os.chmod(path, 0o700)
    return path


def _make(path: Path) -> None:
    try:
        _mkdir(path, 0o700)
    except FileNotFoundError:
        for parent in reversed(path.parents):
            _mkdir(parent, 0o755)  # for others to pass through, and never to write to
        _mkdir(path, 0o700)


def _mkdir(path: Path, mode: int) -> None:
    try:
        os.mkdir(path, mode)
    except OSError:  # of several kinds, on a file system that takes no writes
        if not os.path.isdir(path):
            raise


def _refuse_open_parents(path: Path) -> None:
    real = Path(os.path.realpath(path.parent))
    for parent in (real, *real.parents):
        mode = os.stat(parent).st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise PermissionError(
                f"Any user may write to {parent}, and so swap what lies in it: "
                f"chmod +t {parent}, or choose another CACHE_DIR."
            )
