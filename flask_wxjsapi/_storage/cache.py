"""The private cache: a Flask-Caching backend as a ticket server."""

from __future__ import annotations

import json
import logging
import math
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from flask_caching import Cache, backends
from werkzeug.utils import import_string

from .._credential import Credential
from .._error_text import describe
from .lease import FileLease, Lease, LocalLease, RedisLease, host_directory, private_directory
from .server import TicketServer

if TYPE_CHECKING:
    from flask import Flask

logger = logging.getLogger(__name__)


class _TextSerializer:
    """What a cachelib backend calls to write and read a value: text and nothing else.

    Pickle, the default there, runs code for whoever can write to the store.
    """

    def dumps(self, text: str) -> bytes:
        return text.encode()

    def loads(self, data: bytes | None) -> bytes | None:
        return data

    def dump(self, text: str, file: IO[bytes]) -> None:
        file.write(text.encode())

    def load(self, file: IO[bytes]) -> bytes:
        return file.read()


class CacheServer(TicketServer):
    """A Flask-Caching backend as a ticket server; it keeps the notes of the engine as well.

    :param backend: the backend object, used by nobody else.
    :param directory: the private directory of a FileSystemCache.
    """

    def __init__(self, backend: Any, *, directory: Path | None = None) -> None:
        self._backend = backend
        self._directory = directory
        self._damaged: set[str] = set()
        self._local = threading.Lock()
        if hasattr(backend, "serializer"):  # which memcached has not: it keeps text as it is
            backend.serializer = _TextSerializer()
        self._client = getattr(backend, "_write_client", None)
        if self._client is not None:
            # Sentinel reads go to a replica, which may not have what was just written.
            backend._read_client = self._client

    @property
    def description(self) -> str:
        where = f" in {self._directory}, for this host" if self._directory else ""
        return f"{type(self._backend).__name__}{where}"

    @property
    def has_common_lease(self) -> bool:
        """Whether the lease holds on every host that shares what is kept here."""
        return self._client is not None or self._directory is not None

    @property
    def is_private(self) -> bool:
        """Whether other processes cannot see what is kept here."""
        return type(self._backend).__name__ == "SimpleCache"

    def find(self, key: str) -> Credential | None:
        record = self.read(key)
        if record is None:
            return None
        try:
            return Credential.from_dict(record)
        except ValueError as error:
            self._report_damage(key, str(error))
            return None

    def save(self, key: str, credential: Credential) -> None:
        # A minute more than its life: expires_at decides, never the backend's idea of time.
        life = credential.expires_at - credential.issued_at + 60
        self.write(key, credential.to_dict(), life)

    def read(self, key: str) -> dict[str, Any] | None:
        """The JSON object under a key; None for none and for anything else that lies there."""
        self._prepare()
        try:
            text = self._backend.get(key)
            value = None if text is None else json.loads(text)
        except Exception as error:
            if not _is_damage(error):
                raise
            self._report_damage(key, describe(error))
            return None
        if value is not None and not isinstance(value, dict):
            self._report_damage(key, f"{type(value).__name__} instead of an object")
            return None
        return value

    def read_many(self, keys: list[str]) -> dict[str, dict[str, Any]]:
        return {key: value for key in keys if (value := self.read(key)) is not None}

    def find_many(self, keys: list[str]) -> dict[str, Credential]:
        return {key: value for key in keys if (value := self.find(key)) is not None}

    def write(self, key: str, value: dict[str, Any], life: float) -> None:
        """Keep a JSON object for some seconds.

        :raises OSError: when the backend says that it did not.
        """
        self._prepare()
        self._probe()
        timeout = math.ceil(min(life, _LONGEST))
        if self._backend.set(key, json.dumps(value), timeout=timeout) is False:
            raise OSError("the cache did not take it")
        self._damaged.discard(key)

    def delete(self, key: str) -> None:
        self._backend.delete(key)

    def lease(self, key: str, life: float) -> Lease:
        """The lease this backend can give, else a file's on this host."""
        if self._client is not None:
            return RedisLease(self._client, f"{self._backend._get_prefix()}{key}", life)
        if self.is_private:
            return LocalLease(self._local)
        return self.host_lease(key)

    def host_lease(self, key: str) -> Lease:
        """A lease for the processes of this host."""
        directory = self._directory or host_directory()
        self._prepare()
        # The suffix keeps it out of cachelib's listing, and so out of clear() and eviction.
        name = "".join(c if c.isalnum() or c in "-_." else "-" for c in key)
        return FileLease(directory / f"{name}{CACHELIB_SKIPS}")

    def _prepare(self) -> None:
        """Before a directory is used: it is there, it is ours, and all in it can be read.

        A file of another user (a command once run as root) would hold cachelib up for 16 s, and
        one without a whole head makes it log a traceback at every look.
        """
        if self._directory is None:
            return
        private_directory(self._directory)
        for path in self._directory.iterdir():
            try:
                is_short = path.stat().st_size < 4 and path.suffix != CACHELIB_SKIPS
                if is_short or not os.access(path, os.R_OK):
                    path.unlink()
            except FileNotFoundError:
                continue  # another process has put its temporary file in place
            if is_short:
                self._report_damage(path.name, "cut short")

    def _probe(self) -> None:
        """Before a file is written: it can be. Else cachelib logs a traceback at every attempt,
        and leaves a temporary file behind.

        :raises OSError: the disk is full, or takes no writes.
        """
        if self._directory is not None:
            path = self._directory / f"probe-{os.getpid()}-{threading.get_ident()}{CACHELIB_SKIPS}"
            try:
                path.write_bytes(bytes(_PROBE))
            finally:
                path.unlink(missing_ok=True)

    def _report_damage(self, key: str, problem: str) -> None:
        if key not in self._damaged:
            self._damaged.add(key)
            logger.warning(
                "The record under %s is damaged (%s); it counts as absent and is replaced.",
                key,
                problem,
                extra={"wxjsapi": {"event": "record_damaged", "key": key}},
            )


#: cachelib passes over files that end like this when it lists, clears and evicts.
CACHELIB_SKIPS = ".__wz_cache"

#: Bytes for which there must be room before a file is written: more than any record has.
_PROBE = 8192

#: The longest that a record is kept, in seconds: memcached takes more for a date.
_LONGEST = 30 * 86400.0

_DAMAGE = (
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


def _is_damage(error: Exception) -> bool:
    """Whether an exception from a read tells of the value rather than of the store."""
    return isinstance(error, _DAMAGE) or str(error).startswith("WRONGTYPE")


class CacheSettings:
    """How to build the private cache: the app's ``CACHE_*`` keys with changes of our own.

    :param config: the app's config.
    :param overrides: ``WXJSAPI_CACHE``.
    :raises RuntimeError: for a backend that cannot be, quoting the key.
    """

    def __init__(self, config: Mapping[str, Any], overrides: Mapping[str, Any]) -> None:
        merged = {key: config[key] for key in config if key.startswith("CACHE_")} | dict(overrides)
        name, backend = _named_backend(merged.get("CACHE_TYPE") or "NullCache")
        self.directory: Path | None = None
        options = dict(merged.get("CACHE_OPTIONS") or {})
        if backend is backends.NullCache:
            name = "SimpleCache"
            logger.info(
                "CACHE_TYPE is not set: each process keeps its own ticket in memory. Several "
                "processes share one with CACHE_TYPE FileSystemCache or RedisCache."
            )
        elif issubclass(backend, backends.FileSystemCache):
            if not merged.get("CACHE_DIR"):
                raise RuntimeError("CACHE_DIR is not set, and FileSystemCache needs it.")
            # Of our own, so that the app's clear() and eviction do not touch it; named so that
            # cachelib does not stumble over a directory among its files.
            self.directory = Path(merged["CACHE_DIR"]).absolute() / f"wxjsapi{CACHELIB_SKIPS}"
            options["mode"] = 0o600
        elif issubclass(backend, backends.RedisCache):
            options = _redis_options(issubclass(backend, backends.RedisSentinelCache)) | options
        self._config = merged | {
            "CACHE_TYPE": name,
            "CACHE_DIR": self.directory and str(self.directory),
            "CACHE_THRESHOLD": 0,  # for files: count nothing, evict nothing
            "CACHE_KEY_PREFIX": "",  # our keys are whole
            "CACHE_OPTIONS": options,
            "CACHE_SERIALIZER": None,  # CacheServer brings its own
        }

    @property
    def key(self) -> str:
        """The same for settings that make the same cache."""
        return repr(sorted(self._config.items(), key=repr))

    def open(self, app: Flask) -> CacheServer:
        """The cache, connected where its backend connects at once."""
        if self.directory is not None:
            private_directory(self.directory)
        cache = Cache(with_jinja2_ext=False)
        cache.init_app(app, self._config)
        # Taken out of the app's dict: what walks through the caches there leaves ours alone.
        return CacheServer(app.extensions["cache"].pop(cache), directory=self.directory)


#: The names that Flask-Caching had before its classes', still found in many a tutorial: "redis"
#: for RedisCache.
_OLD_NAMES = {
    name.removesuffix("Cache").lower(): name for name in dir(backends) if name.endswith("Cache")
}


def _named_backend(cache_type: object) -> tuple[str, type]:
    """What Flask-Caching calls a backend today, and its class; ``object`` for a function."""
    name = str(cache_type)
    name = _OLD_NAMES.get(name.removeprefix("flask_caching.backends."), name)
    try:
        backend = import_string(name if "." in name else f"flask_caching.backends.{name}")
    except ImportError:
        backend = None
    if not callable(backend):
        raise RuntimeError(
            f"CACHE_TYPE is {cache_type!r}, which is not a backend: use SimpleCache, "
            "FileSystemCache, RedisCache or another of Flask-Caching's, or a dotted path."
        )
    return name, backend if isinstance(backend, type) else object


def _redis_options(is_sentinel: bool) -> dict[str, Any]:
    """Give up after a second: by default redis-py holds a call up for up to a minute."""
    try:
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        raise RuntimeError(
            "CACHE_TYPE asks for Redis, but redis-py is not installed: "
            'pip install "Flask-WxJsApi[redis]"'
        ) from None
    options = {
        "socket_timeout": 1.0,
        "socket_connect_timeout": 1.0,
        "retry": Retry(NoBackoff(), 0),
    }
    if is_sentinel:
        options |= {f"sentinel_{key}": value for key, value in options.items()}
    return options
