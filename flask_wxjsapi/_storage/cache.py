"""The private cache: a Flask-Caching backend as a ticket server."""

from __future__ import annotations

import json
import logging
import math
import os
import stat
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from flask_caching import Cache, backends
from werkzeug.utils import import_string

from .._credential import Credential
from .._error_text import describe
from .._telling import Told, tell
from .lease import (
    Lease,
    LocalLease,
    RedisLease,
    file_lease,
    host_lease,
    private_directory,
    remove_unusable,
)
from .server import TicketServer, tell_of_damage

if TYPE_CHECKING:
    from flask import Flask

T = TypeVar("T")


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
        self._damaged = Told()
        self._told = Told()
        self._holders: dict[tuple[int, str], LocalLease] = {}
        if hasattr(backend, "serializer"):  # which memcached has not: it keeps text as it is
            backend.serializer = _TextSerializer()
        self._client: Any = getattr(backend, "_write_client", None)
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
    def is_on_disk(self) -> bool:
        """Whether it lies in a directory, which is most often a host's own."""
        return self._directory is not None

    @property
    def is_private(self) -> bool:
        """Whether other processes cannot see what is kept here."""
        return type(self._backend).__name__ == "SimpleCache"

    def find(self, key: str) -> Credential | None:
        record = self.read(key)
        return None if record is None else self._credential(key, record)

    def find_many(self, keys: Iterable[str]) -> dict[str, Credential]:
        """The credentials under some keys; a key without one is left out."""
        found = {key: self._credential(key, one) for key, one in self.read_many(keys).items()}
        return {key: credential for key, credential in found.items() if credential is not None}

    def _credential(self, key: str, record: dict[str, Any]) -> Credential | None:
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
        return self._parse(key, self._get(key))

    def read_many(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The JSON objects under some keys, in one exchange where the backend can do it.

        :returns: by key; one under which :meth:`read` finds nothing is left out.
        """
        self._prepare()
        names = list(dict.fromkeys(keys))
        found = {
            key: self._parse(key, value)
            for key, value in zip(names, self._get_many(names), strict=True)
        }
        return {key: record for key, record in found.items() if record is not None}

    def _get(self, key: str) -> Any:
        """What the backend has under a key; None also for what it cannot make sense of."""
        self._check_file(key)
        try:
            return self._backend.get(key)
        except Exception as error:
            if not _is_damage(error):
                raise
            self._report_damage(key, describe(error))
            return None

    def _get_many(self, keys: list[str]) -> list[Any]:
        if self._directory is None and keys:  # Redis has no answer to the question for none
            try:
                return self._get_batch(keys)
            except Exception as error:
                if not _is_damage(error):
                    raise  # else one of them spoils it for the others
        return [self._get(key) for key in keys]

    def _get_batch(self, keys: list[str]) -> list[Any]:
        if not hasattr(self._client, "mget_nonatomic"):
            return list(self._backend.get_many(*keys))
        # A Redis Cluster, where one question may concern the keys of one slot only.
        prefix = self._backend._get_prefix()
        return list(self._client.mget_nonatomic([f"{prefix}{key}" for key in keys]))

    def _parse(self, key: str, value: Any) -> dict[str, Any] | None:
        """The object that a text is, which whoever can write to the store may have put there."""
        if value is None:
            return None
        if isinstance(value, (str, bytes)) and len(value) > _LARGEST:
            self._report_damage(key, f"{len(value)} bytes long")
            return None
        try:
            record = json.loads(value)
        except Exception as error:
            if not _is_damage(error):
                raise
            self._report_damage(key, describe(error))
            return None
        if not isinstance(record, dict):
            self._report_damage(key, f"{type(record).__name__} instead of an object")
            return None
        return record

    def write(self, key: str, value: dict[str, Any], life: float) -> None:
        """Keep a JSON object for some seconds.

        :raises OSError: when the backend says that it did not, or the object is too long.
        """
        self._prepare()
        self._probe()
        timeout, text = math.ceil(min(life, _LONGEST)), json.dumps(value)
        if len(text) > _LARGEST:  # or every process would find it damaged, and write it again
            raise OSError(f"a record has at most {_LARGEST} characters, this one {len(text)}")
        if self._backend.set(key, text, timeout=timeout) is False:
            raise OSError("the cache did not take it")
        self._damaged.forget(key)

    def delete(self, key: str) -> None:
        self._backend.delete(key)

    def lease(self, key: str, life: float) -> Lease:
        """The lease this backend can give, else a file's on this host."""
        if self._client is not None:
            name = f"{self._backend._get_prefix()}{key}"
            return RedisLease(self._client, name, life, self._told)
        if self.is_private:
            return LocalLease(self._holders, key)
        return self.host_lease(key)

    def host_lease(self, key: str) -> Lease:
        """A lease for the processes of this host, or of this process where the host has no place
        for its file.
        """
        # The suffix keeps it out of cachelib's listing, and so out of clear() and eviction.
        name = "".join(c if c.isalnum() or c in "-_." else "-" for c in key) + CACHELIB_SKIPS
        if self._directory is None:
            return host_lease(name, self._told)
        self._prepare()
        return file_lease(self._directory / name)

    def _prepare(self) -> None:
        """Before a directory is used: it is there, and it is ours."""
        if self._directory is not None:
            private_directory(self._directory)

    def _check_file(self, key: str) -> None:
        """Before cachelib reads a file: it is one, can be read, and has a whole head.

        One of another user (a command once run as root) would hold cachelib up for 16 s, and one
        without a whole head makes it log a traceback at every look. Nothing else that lies there is
        looked at: thousands of accounts have thousands of files.
        """
        if self._directory is None:
            return
        path = Path(self._backend._get_filename(key))
        try:
            status = path.lstat()
        except FileNotFoundError:
            return
        size = status.st_size - _HEAD
        if not stat.S_ISREG(status.st_mode):  # a directory could not even be replaced
            path.rename(f"{path}{CACHELIB_SKIPS}")
            self._report_damage(key, "no file")
        elif 0 <= size <= _LARGEST:
            remove_unusable(path, os.R_OK)
        else:
            path.unlink(missing_ok=True)
            self._report_damage(key, f"{size} bytes long" if size > 0 else "cut short")

    def _probe(self) -> None:
        """Before a file is written: it can be. Else cachelib logs a traceback at every attempt,
        and leaves a temporary file behind.

        :raises OSError: the disk is full, or takes no writes.
        """
        if self._directory is not None:
            path = self._directory / f"probe-{os.getpid()}-{threading.get_ident()}{CACHELIB_SKIPS}"
            try:
                path.write_bytes(bytes(_HEAD + _LARGEST))
            finally:
                path.unlink(missing_ok=True)

    def _report_damage(self, key: str, problem: str) -> None:
        if self._damaged.is_first(key):
            tell_of_damage(key, problem)


#: cachelib passes over files that end like this when it lists, clears and evicts.
CACHELIB_SKIPS = ".__wz_cache"

#: Bytes; more than any record of ours has. What is longer is none, and is not parsed.
_LARGEST = 8192

#: Bytes that cachelib puts before the value in a file: until when it counts.
_HEAD = 4

#: More than any process has of accounts, four entries each.
_ENTRIES_IN_MEMORY = 1_000_000

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


@dataclass(frozen=True)
class _Key:
    """Two of the same content are equal; a password in it stays out of the ``repr``."""

    content: Hashable = field(repr=False)


class CacheSettings:
    """How to build the private cache: the app's ``CACHE_*`` keys with changes of our own.

    They are read again where the cache is opened, since an app may set its keys after
    ``init_app``; what is wrong with them by then is told at once.

    :param config: the app's config.
    :param overrides: ``WXJSAPI_CACHE``.
    :raises RuntimeError: for a backend that cannot be, quoting the key.
    """

    def __init__(self, config: Mapping[str, Any], overrides: Mapping[str, Any]) -> None:
        self._app_config = config
        self._overrides = dict(overrides)
        del config, overrides  # a traceback shows what its frames hold
        _frameless(self._resolve)

    @property
    def key(self) -> Hashable:
        """Equal for accounts that can share one cache, with its connections, as things are now."""
        return _Key(_frozen(_frameless(self._merged)))

    @property
    def is_in_memory(self) -> bool:
        """Whether each process keeps its own, though nobody has said that just this is wanted."""
        backend = _backend(_frameless(self._merged)["CACHE_TYPE"])
        is_asked_for = bool(self._overrides.get("CACHE_TYPE"))
        return backend in (backends.NullCache, backends.SimpleCache) and not is_asked_for

    def open(self, app: Flask) -> CacheServer:
        """The cache, connected where its backend connects at once."""
        config, directory = _frameless(self._resolve)
        if self.is_in_memory:
            is_chosen = _backend(self._merged()["CACHE_TYPE"]) is backends.SimpleCache
            _tell_of_memory(app, is_chosen=is_chosen)
        if directory is not None:
            private_directory(directory)
        cache = Cache(with_jinja2_ext=False)
        cache.init_app(app, config)
        # Taken out of the app's dict: what walks through the caches there leaves ours alone.
        return CacheServer(app.extensions["cache"].pop(cache), directory=directory)

    def _merged(self) -> dict[str, Any]:
        config, overrides = self._app_config, self._overrides
        merged = {key: config[key] for key in config if key.startswith("CACHE_")} | overrides
        merged["CACHE_TYPE"] = _named(merged.get("CACHE_TYPE") or "NullCache")
        # Our keys are whole. One of the app's would have its clear() delete them; one that is
        # meant for them is for a Redis that admits this app to keys of its own only.
        merged["CACHE_KEY_PREFIX"] = overrides.get("CACHE_KEY_PREFIX") or ""
        if not isinstance(merged["CACHE_KEY_PREFIX"], str):
            got = repr(merged["CACHE_KEY_PREFIX"])
            raise RuntimeError(f"CACHE_KEY_PREFIX in WXJSAPI_CACHE must be a string, got {got}.")
        return merged

    def _resolve(self) -> tuple[dict[str, Any], Path | None]:
        """The config of the private cache, and the directory of its files."""
        config = self._merged()
        backend = _backend(config["CACHE_TYPE"])
        directory: Path | None = None
        options = dict(config.get("CACHE_OPTIONS") or {})
        if backend is backends.NullCache:
            config["CACHE_TYPE"] = "SimpleCache"
        elif issubclass(backend, backends.FileSystemCache):
            if not config.get("CACHE_DIR"):
                raise RuntimeError("CACHE_DIR is not set, and FileSystemCache needs it.")
            # Of our own, so that the app's clear() and eviction do not touch it; named so that
            # cachelib does not stumble over a directory among its files.
            directory = Path(config["CACHE_DIR"]).absolute() / f"wxjsapi{CACHELIB_SKIPS}"
            options["mode"] = 0o600
        elif issubclass(backend, backends.RedisCache):
            options = _redis_options(issubclass(backend, backends.RedisSentinelCache)) | options
        return config | {
            "CACHE_DIR": directory and str(directory),
            # Nothing is evicted: for files 0 says that, in memory 0 is a number like any other.
            "CACHE_THRESHOLD": 0 if directory else _ENTRIES_IN_MEMORY,
            "CACHE_OPTIONS": options,
            "CACHE_SERIALIZER": None,  # CacheServer brings its own
        }, directory


def _frameless(read: Callable[[], T]) -> T:
    """What is read of a config; its errors are raised here, where no frame holds that."""
    try:
        return read()
    except RuntimeError as error:
        problem = str(error)
    raise RuntimeError(problem)


def _frozen(value: Any) -> Hashable:
    """A value of the config that can be compared and hashed by its content."""
    if isinstance(value, Mapping):
        return frozenset((key, _frozen(one)) for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(map(_frozen, value))
    return value if isinstance(value, Hashable) else id(value)


def _tell_of_memory(app: Flask, *, is_chosen: bool) -> None:
    """Say that each process keeps its own ticket, to whoever may not know."""
    caches = app.extensions.get("cache", {}).values()
    shared = {type(one).__name__ for one in caches} - {"SimpleCache", "NullCache"}
    if shared:
        name = sorted(shared)[0]
        tell(
            logging.WARNING,
            "The app has a %s, but its keys are not in app.config, where the ticket's cache is "
            "looked for: each process keeps its own ticket in memory. Set WXJSAPI_CACHE to what "
            'Cache() was given, as in WXJSAPI_CACHE={"CACHE_TYPE": "%s", ...}.',
            name,
            name,
            event="cache_not_shared",
            backend=name,
        )
    elif not is_chosen:
        tell(
            logging.INFO,
            "CACHE_TYPE is not set: each process keeps its own ticket in memory. Several "
            "processes share one with CACHE_TYPE FileSystemCache or RedisCache.",
            event="cache_in_memory",
        )


#: The names that Flask-Caching had before its classes', still found in many a tutorial: "redis"
#: for RedisCache.
_OLD_NAMES = {
    name.removesuffix("Cache").lower(): name for name in dir(backends) if name.endswith("Cache")
}


def _named(cache_type: object) -> str:
    """What Flask-Caching calls a backend today."""
    name = str(cache_type)
    return _OLD_NAMES.get(name.removeprefix("flask_caching.backends."), name)


def _backend(name: str) -> type:
    """The class of a backend; ``object`` for a function that makes one."""
    try:
        backend = import_string(name if "." in name else f"flask_caching.backends.{name}")
    except ImportError:
        backend = None
    if not callable(backend):
        raise RuntimeError(
            f"CACHE_TYPE is {name!r}, which is not a backend: use SimpleCache, "
            "FileSystemCache, RedisCache or another of Flask-Caching's, or a dotted path."
        )
    return backend if isinstance(backend, type) else object


_REDIS_TIMEOUT = 1.0  # seconds


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
        "socket_timeout": _REDIS_TIMEOUT,
        "socket_connect_timeout": _REDIS_TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
    }
    if is_sentinel:
        options |= {f"sentinel_{key}": value for key, value in options.items()}
    return options
