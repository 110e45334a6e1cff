"""The lease: who of all processes may ask WeChat now."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)


class Lease(Protocol):
    """A right that one process has at a time. ``release`` frees only what this object took."""

    def acquire(self, blocking: bool = False) -> bool: ...

    def release(self) -> None: ...


class LocalLease:
    """For a store that is not shared, where the other flights of this process are the rivals."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._is_mine = False

    def acquire(self, blocking: bool = False) -> bool:
        self._is_mine = self._lock.acquire(blocking=blocking)
        return self._is_mine

    def release(self) -> None:
        if self._is_mine:
            self._is_mine = False
            self._lock.release()


class FileLease:
    """``flock`` on a file that nobody deletes: free at once when its holder dies.

    It has no life of its own: a holder that is stopped but not dead keeps it.
    """

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(path, mode=0o600, thread_local=False)

    def acquire(self, blocking: bool = False) -> bool:
        try:
            self._lock.acquire(blocking=blocking)
        except Timeout:
            return False
        return True

    def release(self) -> None:
        self._lock.release()


class RedisLease:
    """``SET NX PX`` and a compare-and-delete script, which are redis-py's ``Lock``.

    :param client: the client that writes; a replica may not have the key yet.
    :param life: seconds after which the lease of a dead holder is free.
    """

    def __init__(self, client: Any, key: str, life: float) -> None:
        from redis.lock import Lock

        self._client, self._key, self._life = client, key, life
        # thread_local=False: an overdue renewal's lease is released by its successor's thread.
        self._lock = Lock(client, key, timeout=life, thread_local=False)

    def acquire(self, blocking: bool = False) -> bool:
        if self._lock.acquire(blocking=blocking):
            return True
        if self._client.pttl(self._key) == -1:
            # No lease of ours is without an end. It gets one, or nobody would ever have it.
            self._client.pexpire(self._key, int(self._life * 1000))
        return False

    def release(self) -> None:
        from redis.exceptions import LockError

        try:
            self._lock.release()
        except LockError:
            # It ran out while we held it, and is another's by now.
            logger.debug("The lease ran out before its release.")


def private_directory(path: Path) -> Path:
    """Make a directory that is ours alone, and make sure it is.

    :raises PermissionError: when it belongs to somebody else.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = os.lstat(path)
    if hasattr(os, "getuid"):
        if path.is_symlink() or status.st_uid != os.getuid():
            raise PermissionError(
                f"The directory {path} is a link or belongs to another user: remove it, or "
                "choose another CACHE_DIR."
            )
        if status.st_mode & 0o777 != 0o700:  # whatever the umask made of it
            path.chmod(0o700)
    return path


def host_directory() -> Path:
    """This user's directory for leases on this host, where the store brings none."""
    user = str(os.getuid()) if hasattr(os, "getuid") else "user"
    return private_directory(Path(tempfile.gettempdir(), f"flask-wxjsapi-{user}"))
