"""The ticket server on Flask-Caching, and the leases."""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cachelib import FileSystemCache
from flask import Flask
from flask_caching import Cache
from flask_caching.backends.base import BaseCache

from flask_wxjsapi import WxJsApi
from flask_wxjsapi._credential import (
    JSAPI_TICKET,
    Credential,
)
from flask_wxjsapi._storage.cache import CACHELIB_SKIPS, CacheServer, CacheSettings
from flask_wxjsapi._storage.lease import (
    FileLease,
    Lease,
    LocalLease,
    RedisLease,
    host_directory,
    private_directory,
)
from flask_wxjsapi.sandbox import Sandbox

from .conftest import Valkey, free_port

PREFIX = "wxjsapi:{api.weixin.qq.com/wx0123}:"
KEY = PREFIX + JSAPI_TICKET
NOW = 1_800_000_000.0
TICKET = Credential("ticket-1", NOW + 0.125, NOW + 7200.125, 5)
NEWER = Credential("newer-2", NOW + 7000.5, NOW + 14200.5, 6)
LOGGER = "flask_wxjsapi"

posix_only = pytest.mark.skipif(not hasattr(os, "getuid"), reason="POSIX permissions")

pytestmark = pytest.mark.usefixtures("own_temporary_directory")


@pytest.fixture
def own_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where host leases go in this test: nobody else's are there."""
    path = tmp_path / "tmp"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


@pytest.fixture
def open_cache() -> Iterator[Callable[..., CacheServer]]:
    """Opens private caches, as one process each would; keyword arguments are config keys."""
    opened = []

    def open_cache(app: Flask | None = None, **config: Any) -> CacheServer:
        app = app or Flask("tests")
        app.config.update(config)
        server = CacheSettings(app.config, {}).open(app)
        opened.append(server)
        return server

    yield open_cache
    for server in opened:
        if server._client is not None:
            server._client.close()


@pytest.fixture(params=["memory", "files", "redis"])
def shared_config(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The ``CACHE_*`` keys of each kind of backend in turn."""
    if request.param == "memory":
        return {"CACHE_TYPE": "SimpleCache"}
    if request.param == "files":
        path = request.getfixturevalue("tmp_path") / "cache"
        return {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(path)}
    valkey = request.getfixturevalue("valkey")
    return {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": valkey.url}


def logged(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    """What the module said, at a level or above."""
    return [
        r.getMessage() for r in caplog.records if r.name.startswith(LOGGER) and r.levelno >= level
    ]


# -- the private cache -------------------------------------------------------------------------


def clear_app_cache(app: Flask) -> None:
    """Fill and clear the app's own cache."""
    (cache,) = app.extensions["cache"]
    with app.app_context():
        cache.set("page", "text")
        assert cache.get("page") == "text"
        assert cache.clear()
        assert cache.get("page") is None


def test_clear_of_the_app_leaves_the_ticket(
    shared_config: dict[str, Any], open_cache: Callable[..., CacheServer]
) -> None:
    """An app that clears its cache keeps its ticket, whatever backend both are on."""
    app = Flask("tests")
    app.config.update(shared_config)
    Cache(app)
    server = open_cache(app)
    server.save(KEY, TICKET)
    clear_app_cache(app)
    assert server.find(KEY) == TICKET


@pytest.mark.parametrize(
    "app_prefix",
    [
        "flask_cache_",
        "shop:",
        "w",
        "wxjsapi",
        "wxjsapi:",
    ],
)
def test_clear_by_prefix_leaves_the_ticket(
    app_prefix: str,
    valkey: Valkey,
    sandbox: Sandbox,
    make_app: Callable[..., tuple[Flask, WxJsApi]],
) -> None:
    """In Redis clear() deletes by prefix; our keys extend no prefix of the app's."""
    config = {
        "CACHE_TYPE": "RedisCache",
        "CACHE_REDIS_URL": valkey.url,
        "CACHE_KEY_PREFIX": app_prefix,
    }
    app, wxjsapi = make_app(**config)
    Cache(app)
    with app.app_context():
        ticket = wxjsapi.refresh()
    clear_app_cache(app)
    other_app, other_wxjsapi = make_app(**config)
    with other_app.app_context():
        assert other_wxjsapi.ticket == ticket
    assert sandbox.calls["getticket"] == 1


def test_eviction_by_the_app_leaves_the_ticket(
    tmp_path: Path, open_cache: Callable[..., CacheServer], caplog: pytest.LogCaptureFixture
) -> None:
    """cachelib passes over our directory and our lease when it evicts and clears, silently."""
    app = Flask("tests")
    app.config.update(
        CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path / "cache"), CACHE_THRESHOLD=2
    )
    cache = Cache(app)
    server = open_cache(app)
    server.save(KEY, TICKET)
    lease = server.lease("lease", 15)
    assert lease.acquire()
    with app.app_context():
        for number in range(10):
            cache.set(f"page-{number}", "text")
        assert sum(cache.has(f"page-{number}") for number in range(10)) < 5
        assert cache.clear()
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
    assert server.find(KEY) == TICKET
    assert not server.lease("lease", 15).acquire()


def test_cachelib_does_not_list_our_directory(
    tmp_path: Path, open_cache: Callable[..., CacheServer]
) -> None:
    """cachelib's listing, private to it, skips the name we rely on and lists others."""
    server = open_cache(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path / "cache"))
    assert server._directory == tmp_path / "cache" / f"wxjsapi{CACHELIB_SKIPS}"
    (tmp_path / "cache" / "other").mkdir()
    listed = FileSystemCache(str(tmp_path / "cache"), threshold=0)._list_dir()
    assert list(listed) == [str(tmp_path / "cache" / "other")]


def test_cachelib_does_not_list_the_lease(
    tmp_path: Path, open_cache: Callable[..., CacheServer]
) -> None:
    """The lease file lies beside the records and is none, so that nothing of ours deletes it."""
    server = open_cache(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path / "cache"))
    server.save(KEY, TICKET)
    assert server.lease(PREFIX + "lease", 15).acquire()
    assert server._directory is not None
    assert len(list(server._directory.iterdir())) == 2
    assert list(server._backend._list_dir()) == [server._backend._get_filename(KEY)]


@pytest.mark.parametrize("own", [True, False])
def test_nothing_of_ours_is_among_the_caches_of_the_app(
    own: bool, shared_config: dict[str, Any], open_cache: Callable[..., CacheServer]
) -> None:
    """What walks through app.extensions["cache"] finds the app's caches only."""
    app = Flask("tests")
    app.config.update(shared_config)
    if own:
        Cache(app)
    before = dict(app.extensions.get("cache", {}))
    assert len(before) == own
    open_cache(app).save(KEY, TICKET)
    assert app.extensions["cache"] == before


def test_config_of_the_app_is_left_alone(
    shared_config: dict[str, Any], open_cache: Callable[..., CacheServer]
) -> None:
    """Building the private cache changes no key, and adds none."""
    app = Flask("tests")
    app.config.update(shared_config, CACHE_OPTIONS={})
    before = dict(app.config)
    open_cache(app)
    assert dict(app.config) == before
    assert app.config["CACHE_OPTIONS"] == {}


def test_settings_of_the_app_that_cost_tickets_are_overruled(
    shared_config: dict[str, Any], open_cache: Callable[..., CacheServer]
) -> None:
    """Neither a threshold nor a default timeout of the app's takes a record away."""
    server = open_cache(**shared_config, CACHE_THRESHOLD=1, CACHE_DEFAULT_TIMEOUT=1)
    for number in range(5):
        server.save(f"{KEY}.{number}", TICKET)
    assert [server.find(f"{KEY}.{number}") for number in range(5)] == [TICKET] * 5


def test_redis_holds_plain_json_under_the_whole_key(
    valkey: Valkey, open_cache: Callable[..., CacheServer]
) -> None:
    """The key is not prefixed and the value is the record, also where the app has another taste."""
    server = open_cache(
        CACHE_TYPE="RedisCache", CACHE_REDIS_URL=valkey.url, CACHE_KEY_PREFIX="flask_cache_"
    )
    server.save(KEY, TICKET)
    with valkey.client() as client:
        assert client.keys() == [KEY.encode()]
        assert json.loads(client.get(KEY)) == TICKET.to_dict()


def test_overrides_come_before_the_keys_of_the_app(tmp_path: Path) -> None:
    """WXJSAPI_CACHE gives the ticket another backend than the app's pages."""
    app = Flask("tests")
    app.config.update(CACHE_TYPE="SimpleCache")
    overrides = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path / "tickets")}
    server = CacheSettings(app.config, overrides).open(app)
    assert server._directory == tmp_path / "tickets" / f"wxjsapi{CACHELIB_SKIPS}"


@pytest.mark.parametrize(
    ("old_name", "class_name"),
    [
        ("simple", "SimpleCache"),
        ("filesystem", "FileSystemCache"),
        ("redis", "RedisCache"),
    ],
)
def test_old_names_of_backends(
    old_name: str, class_name: str, tmp_path: Path, open_cache: Callable[..., CacheServer]
) -> None:
    """The names of early Flask-Caching still mean what they did."""
    server = open_cache(CACHE_TYPE=old_name, CACHE_DIR=str(tmp_path / "cache"))
    assert type(server._backend).__name__ == class_name
    assert (server._directory is not None) == (old_name == "filesystem")


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"CACHE_TYPE": None},
        {"CACHE_TYPE": ""},
        {"CACHE_TYPE": "null"},
        {"CACHE_TYPE": "NullCache"},
        {"CACHE_TYPE": "flask_caching.backends.NullCache"},
    ],
)
def test_no_cache_means_memory(
    config: dict[str, Any],
    open_cache: Callable[..., CacheServer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without a cache each process keeps its own ticket, which is said once and no more."""
    caplog.set_level(logging.INFO)
    server = open_cache(**config)
    server.save(KEY, TICKET)
    assert server.find(KEY) == TICKET
    assert server.is_private
    (line,) = logged(caplog)
    assert "CACHE_TYPE is not set" in line
    assert "FileSystemCache or RedisCache" in line


def test_a_cache_is_not_remarked_on(
    shared_config: dict[str, Any],
    open_cache: Callable[..., CacheServer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Who has chosen a backend, memory included, is told nothing."""
    caplog.set_level(logging.INFO)
    open_cache(**shared_config).save(KEY, TICKET)
    assert logged(caplog) == []


@pytest.mark.parametrize(
    "name",
    [
        "NoSuchCache",
        "no.such.module.Cache",
        "SimpleCache ",
        5,
        *(name for name in ("simplecache", "filesystemcache", "rediscache", "os.path")),
    ],
)
def test_unknown_backend_is_refused_at_once(name: object) -> None:
    """The error quotes the key and the value, before anything is opened."""
    with pytest.raises(RuntimeError, match=r"^CACHE_TYPE is .*, which is not a backend") as info:
        CacheSettings({"CACHE_TYPE": name, "CACHE_DIR": "/nowhere"}, {})
    assert repr(name) in str(info.value)


@pytest.mark.parametrize("directory", [{}, {"CACHE_DIR": None}, {"CACHE_DIR": ""}])
def test_files_without_a_directory_are_refused_at_once(directory: dict[str, Any]) -> None:
    """The error quotes the key that is missing."""
    with pytest.raises(RuntimeError, match=r"^CACHE_DIR is not set"):
        CacheSettings({"CACHE_TYPE": "FileSystemCache", **directory}, {})


def test_settings_open_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the settings makes no directory and no connection."""
    monkeypatch.setattr(socket.socket, "connect", lambda *args: pytest.fail("a connection"))
    CacheSettings({"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path / "cache")}, {})
    CacheSettings({"CACHE_TYPE": "RedisCache", "CACHE_REDIS_PORT": free_port()}, {})
    assert not (tmp_path / "cache").exists()


def test_redis_gives_up_soon_by_default(
    valkey: Valkey, open_cache: Callable[..., CacheServer]
) -> None:
    """A socket that hangs holds a call up for a second, once."""
    server = open_cache(CACHE_TYPE="RedisCache", CACHE_REDIS_PORT=valkey.port)
    options = server._client.connection_pool.connection_kwargs
    assert options["socket_timeout"] == options["socket_connect_timeout"] == 1.0
    assert options["retry"]._retries == 0


def test_redis_options_of_the_user_win(
    valkey: Valkey, open_cache: Callable[..., CacheServer]
) -> None:
    """CACHE_OPTIONS are defaults only where the user has said nothing."""
    server = open_cache(
        CACHE_TYPE="RedisCache", CACHE_REDIS_URL=valkey.url, CACHE_OPTIONS={"socket_timeout": 3}
    )
    options = server._client.connection_pool.connection_kwargs
    assert (options["socket_timeout"], options["socket_connect_timeout"]) == (3, 1.0)


def test_sentinel_gives_up_as_soon() -> None:
    """A sentinel that hangs holds a call up no longer than the Redis it watches."""
    options = CacheSettings(
        {"CACHE_TYPE": "RedisSentinelCache", "CACHE_REDIS_SENTINELS": [("127.0.0.1", 1)]}, {}
    )._config["CACHE_OPTIONS"]
    for use in ("socket_timeout", "socket_connect_timeout"):
        assert options[use] == options[f"sentinel_{use}"] == 1.0


def test_redis_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """redis-py is an extra, and whoever forgot it is told its name."""
    monkeypatch.setitem(sys.modules, "redis.backoff", None)
    with pytest.raises(RuntimeError, match=r"pip install \"Flask-WxJsApi\[redis\]\""):
        CacheSettings({"CACHE_TYPE": "RedisCache"}, {})


def test_sentinel_reads_what_was_just_written() -> None:
    """A backend with a replica to read from is made to read from where it writes."""

    class Backend:
        serializer: Any = None
        _write_client, _read_client = object(), object()

    backend = Backend()
    CacheServer(backend)
    assert backend._read_client is backend._write_client


def test_record_is_kept_beyond_its_life(open_cache: Callable[..., CacheServer]) -> None:
    """expires_at decides when a ticket ends, so the backend has to keep it a little longer."""
    server = open_cache(CACHE_TYPE=f"{__name__}.TextBackend")
    server.save(KEY, TICKET)
    assert server._backend.timeouts == [7260]


def test_backend_that_did_not_take_it_is_an_error(open_cache: Callable[..., CacheServer]) -> None:
    """A set() that returns False, as on a full disk, counts as a store that is down."""
    server = open_cache(CACHE_TYPE=f"{__name__}.TextBackend")
    server._backend.answer = False
    with pytest.raises(OSError, match="did not take it"):
        server.save(KEY, TICKET)


# -- other people's backends -------------------------------------------------------------------


class TextBackend(BaseCache):
    """A backend that unpickles by itself and has no serializer, as memcached clients have."""

    def __init__(self, default_timeout: int = 300, **options: Any) -> None:
        super().__init__(default_timeout)
        self.values: dict[str, Any] = {}
        self.timeouts: list[int] = []
        self.answer = True

    def get(self, key: str) -> Any:
        return self.values.get(key)

    def set(self, key: str, value: Any, timeout: int | None = None) -> bool:
        assert timeout is not None
        self.values[key] = value
        self.timeouts.append(timeout)
        return self.answer

    def delete(self, key: str) -> bool:
        return self.values.pop(key, None) is not None


@pytest.mark.parametrize("separator", [".", ":"])
def test_dotted_path_names_a_backend(
    separator: str, open_cache: Callable[..., CacheServer]
) -> None:
    """CACHE_TYPE can be a class of the user's own."""
    server = open_cache(CACHE_TYPE=f"{__name__}{separator}TextBackend")
    assert type(server._backend) is TextBackend
    server.save(KEY, TICKET)
    assert server.find(KEY) == TICKET
    server.delete(KEY)
    assert server.find(KEY) is None


def test_backend_without_serializer_gets_text(open_cache: Callable[..., CacheServer]) -> None:
    """Such a backend never sees an object to pickle."""
    server = open_cache(CACHE_TYPE=f"{__name__}.TextBackend")
    server.save(KEY, TICKET)
    text = server._backend.values[KEY]
    assert type(text) is str
    assert json.loads(text) == TICKET.to_dict()


def test_text_may_come_back_as_bytes(open_cache: Callable[..., CacheServer]) -> None:
    """Some memcached clients return bytes for a string."""
    server = open_cache(CACHE_TYPE=f"{__name__}.TextBackend")
    server._backend.values[KEY] = json.dumps(TICKET.to_dict()).encode()
    assert server.find(KEY) == TICKET


# -- the directory -----------------------------------------------------------------------------


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    """``os.umask``, undone after the test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@posix_only
@pytest.mark.parametrize(
    "mask",
    [
        0o000,
        0o022,
        0o077,
        0o177,
    ],
)
def test_nobody_else_reads_the_directory(
    mask: int,
    umask: Callable[[int], int],
    tmp_path: Path,
    open_cache: Callable[..., CacheServer],
) -> None:
    """The directory is 0700 and the files in it 0600, whatever the umask."""
    (tmp_path / "cache").mkdir()
    umask(mask)
    server = open_cache(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path / "cache"))
    server.save(KEY, TICKET)
    assert server.lease(PREFIX + "lease", 15).acquire()
    assert server._directory is not None
    umask(0o022)
    assert mode(server._directory) == 0o700
    assert [mode(path) for path in server._directory.iterdir()] == [0o600, 0o600]


@posix_only
@pytest.mark.parametrize("use", ["find", "save", "lease"])
def test_directory_that_was_open_to_all_is_closed(
    use: str, tmp_path: Path, open_cache: Callable[..., CacheServer]
) -> None:
    """One that was there before, or was opened up meanwhile, is made 0700 on the next use."""
    directory = tmp_path / "cache" / f"wxjsapi{CACHELIB_SKIPS}"
    directory.mkdir(parents=True)
    directory.chmod(0o777)
    server = open_cache(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path / "cache"))
    assert mode(directory) == 0o700
    directory.chmod(0o777)
    calls: dict[str, Callable[[], object]] = {
        "find": lambda: server.find(KEY),
        "save": lambda: server.save(KEY, TICKET),
        "lease": lambda: server.lease(KEY, 15),
    }
    calls[use]()
    assert mode(directory) == 0o700


@posix_only
def test_directory_that_is_a_link_is_refused(
    tmp_path: Path, open_cache: Callable[..., CacheServer]
) -> None:
    """Somebody who can write to CACHE_DIR cannot lead us elsewhere."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cache").mkdir()
    link = tmp_path / "cache" / f"wxjsapi{CACHELIB_SKIPS}"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="is a link or belongs to another user"):
        open_cache(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path / "cache"))
    assert list((tmp_path / "elsewhere").iterdir()) == []


@posix_only
def test_directory_that_becomes_a_link_is_refused(
    tmp_path: Path, open_cache: Callable[..., CacheServer]
) -> None:
    """Each use looks again; what is swapped later is not written to."""
    server = open_cache(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path / "cache"))
    assert server._directory is not None
    server._directory.rename(tmp_path / "elsewhere")
    server._directory.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="is a link"):
        server.save(KEY, TICKET)
    assert list((tmp_path / "elsewhere").iterdir()) == []


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


def test_directory_that_was_removed_is_made_again(
    tmp_path: Path, open_cache: Callable[..., CacheServer]
) -> None:
    """A clean-up of CACHE_DIR costs the record and nothing else."""
    server = open_cache(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path / "cache"))
    assert server._directory is not None
    server._directory.rmdir()
    assert server.find(KEY) is None
    server.save(KEY, TICKET)
    assert server.find(KEY) == TICKET


@posix_only
def test_file_that_cannot_be_read_is_removed(
    tmp_path: Path, open_cache: Callable[..., CacheServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """cachelib would try such a file again for 16 s; it is taken away before cachelib sees it."""
    server = open_cache(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path / "cache"))
    server.save(KEY, TICKET)
    server.save(KEY + ".other", NEWER)
    theirs = Path(server._backend._get_filename(KEY))
    theirs.chmod(0)
    real_access = os.access  # which always says yes to root
    monkeypatch.setattr(
        "os.access",
        lambda path, how: os.fspath(path) != str(theirs) and real_access(path, how),
    )
    monkeypatch.setattr("cachelib.file.sleep", lambda seconds: pytest.fail("it waited"))
    assert server.find(KEY) is None
    assert not theirs.exists()
    assert server.find(KEY + ".other") == NEWER


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_file_that_vanishes_is_no_failure(
    tmp_path: Path, open_cache: Callable[..., CacheServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process renames its temporary file while this one looks through the directory."""
    server = open_cache(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path / "cache"))
    server.save(KEY, TICKET)
    assert server._directory is not None
    temporary = server._directory / f"tmp1{CACHELIB_SKIPS}"
    temporary.touch()
    real_access = os.access

    def access(path: Any, how: int) -> bool:
        if os.fspath(path) == str(temporary):
            temporary.unlink()
        return real_access(path, how)

    monkeypatch.setattr("os.access", access)
    assert server.find(KEY) == TICKET


# -- records that are not ours, or not any more --------------------------------------------------

exploded: list[str] = []


def explode(where: str) -> dict[str, Any]:
    exploded.append(where)
    return TICKET.to_dict()


class Bomb:
    """Unpickled, it has run a function and looks like a good record."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __reduce__(self) -> Any:
        return explode, (self.where,)


class Damage:
    """A store in which a test puts what it likes under KEY."""

    def __init__(self, server: CacheServer, put: Callable[[bytes], None]) -> None:
        self.server = server
        self.put = put


@pytest.fixture(params=["files", "redis"])
def damage(
    request: pytest.FixtureRequest, tmp_path: Path, open_cache: Callable[..., CacheServer]
) -> Damage:
    if request.param == "files":
        server = open_cache(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path / "cache"))

        def put(data: bytes) -> None:
            never_expires = struct.pack("I", 0)
            Path(server._backend._get_filename(KEY)).write_bytes(never_expires + data)
    else:
        valkey = request.getfixturevalue("valkey")
        server = open_cache(CACHE_TYPE="RedisCache", CACHE_REDIS_URL=valkey.url)

        def put(data: bytes) -> None:
            server._client.set(KEY, data)

    put(json.dumps(TICKET.to_dict()).encode())
    assert server.find(KEY) == TICKET
    return Damage(server, put)


def check_damage(server: CacheServer, caplog: pytest.LogCaptureFixture) -> None:
    """It is absent, said once however often it is read, and replaced by the next save."""
    for _ in range(3):
        assert server.find(KEY) is None
    (line,) = logged(caplog)
    assert f"The record under {KEY} is damaged" in line
    server.save(KEY, TICKET)
    assert server.find(KEY) == TICKET


@pytest.mark.parametrize("mark", [b"", b"!"], ids=["plain", "as cachelib marks it"])
def test_planted_pickle_is_not_loaded(
    mark: bytes, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    """Who can write to the store cannot run code here."""
    planted = pickle.dumps(Bomb("planted"))
    assert Credential.from_dict(pickle.loads(planted)) == TICKET  # it would go off, unnoticed
    assert exploded.pop() == "planted"
    damage.put(mark + planted)
    check_damage(damage.server, caplog)
    assert exploded == []


FAR = b"9" * 400
RECORD = b'{"value": %s, "issued_at": %s, "expires_at": %s, "generation": %s}'


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x00\xff\xfe garbage", id="garbage"),
        pytest.param(json.dumps(TICKET.to_dict()).encode()[:-9], id="truncated"),
        pytest.param(b"[1, 2]", id="a list"),
        pytest.param(b'"ticket-1"', id="a string"),
        pytest.param(b"7", id="a number"),
        pytest.param(b"{}", id="an empty object"),
        pytest.param(b'{"value": "ticket-1"}', id="no times"),
        pytest.param(RECORD % (b"1", b"1", b"2", b"3"), id="the value is a number"),
        pytest.param(RECORD % (b'""', b"1", b"2", b"3"), id="the value is empty"),
        pytest.param(RECORD % (b'"a b"', b"1", b"2", b"3"), id="the value has a space"),
        pytest.param(RECORD % (b'"\\ud800"', b"1", b"2", b"3"), id="the value is no text"),
        pytest.param(RECORD % (b'"a"', b'"1"', b"2", b"3"), id="a time is a string"),
        pytest.param(RECORD % (b'"a"', b"true", b"2", b"3"), id="a time is a truth value"),
        pytest.param(RECORD % (b'"a"', b"1", b"NaN", b"3"), id="a time is no number"),
        pytest.param(RECORD % (b'"a"', b"1", b"Infinity", b"3"), id="a time is infinite"),
        pytest.param(RECORD % (b'"a"', b"1", FAR, b"3"), id="a time is huge"),
        pytest.param(RECORD % (b'"a"', b"2", b"1", b"3"), id="it ends before it begins"),
        pytest.param(RECORD % (b'"a"', b"1", b"2", b"3.5"), id="the generation is a fraction"),
        pytest.param(RECORD % (b'"a"', b"1", b"2", b"null"), id="the generation is null"),
        pytest.param(b"[" * 100_000, id="nested too deep"),
    ],
)
def test_damaged_record_is_absent(
    data: bytes, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever lies under our key counts as absent, with one line, and is replaced."""
    damage.put(data)
    check_damage(damage.server, caplog)


def test_record_of_another_redis_type_is_absent(
    valkey: Valkey, open_cache: Callable[..., CacheServer], caplog: pytest.LogCaptureFixture
) -> None:
    """WRONGTYPE tells of the value, not of the store."""
    server = open_cache(CACHE_TYPE="RedisCache", CACHE_REDIS_URL=valkey.url)
    server._client.lpush(KEY, "x")
    check_damage(server, caplog)


def test_damage_in_a_backend_without_serializer_is_absent(
    open_cache: Callable[..., CacheServer], caplog: pytest.LogCaptureFixture
) -> None:
    """Text that is no JSON is treated as in the other backends."""
    server = open_cache(CACHE_TYPE=f"{__name__}.TextBackend")
    server._backend.values[KEY] = "garbage"
    check_damage(server, caplog)


@pytest.mark.parametrize("length", [0, 3])
def test_file_without_its_head_is_absent(
    length: int, tmp_path: Path, open_cache: Callable[..., CacheServer]
) -> None:
    """A file cut off before the record even begins is replaced as well."""
    server = open_cache(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path / "cache"))
    Path(server._backend._get_filename(KEY)).write_bytes(b"\0" * length)
    assert server.find(KEY) is None
    server.save(KEY, TICKET)
    assert server.find(KEY) == TICKET


def test_file_without_its_head_is_logged_once(
    tmp_path: Path, open_cache: Callable[..., CacheServer], caplog: pytest.LogCaptureFixture
) -> None:
    """One line, and not one every few seconds."""
    server = open_cache(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path / "cache"))
    Path(server._backend._get_filename(KEY)).write_bytes(b"\0")
    for _ in range(3):
        assert server.find(KEY) is None
    assert len(caplog.records) == 1


def test_damage_is_logged_again_after_a_save(
    damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    """Two accidents are two lines."""
    for _ in range(2):
        damage.put(b"garbage")
        assert damage.server.find(KEY) is None
        damage.server.save(KEY, TICKET)
    assert len(logged(caplog)) == 2


def test_log_of_damage_quotes_no_value(damage: Damage, caplog: pytest.LogCaptureFixture) -> None:
    """A damaged record can still hold a secret."""
    for data in (b'{"value": "s3cret"', b'"s3cret"', RECORD % (b'"s3cret x"', b"1", b"2", b"3")):
        damage.put(data)
        damage.server.find(KEY)
        damage.server.save(KEY, TICKET)
    assert len(logged(caplog)) == 3
    assert "s3cret" not in caplog.text


def test_record_from_a_later_version_is_read(damage: Damage) -> None:
    """A key that this version does not know does not make a record damaged."""
    damage.put(json.dumps(TICKET.to_dict() | {"color": "red"}).encode())
    assert damage.server.find(KEY) == TICKET


def test_record_without_generation_counts_as_the_oldest(damage: Damage) -> None:
    """A record that somebody else wrote orders before all of ours."""
    record = TICKET.to_dict()
    del record["generation"]
    damage.put(json.dumps(record).encode())
    found = damage.server.find(KEY)
    assert found is not None
    assert found.generation == 0


# -- leases ------------------------------------------------------------------------------------


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


def test_each_backend_gives_the_lease_it_can(
    shared_config: dict[str, Any],
    open_cache: Callable[..., CacheServer],
    own_temporary_directory: Path,
) -> None:
    """Redis its own, memory one of the process, files one beside the records."""
    server = open_cache(**shared_config)
    lease = server.lease(PREFIX + "lease", 15)
    expected = {
        "SimpleCache": LocalLease,
        "FileSystemCache": FileLease,
        "RedisCache": RedisLease,
    }
    assert type(lease) is expected[shared_config["CACHE_TYPE"]]
    assert lease.acquire()
    assert not server.lease(PREFIX + "lease", 15).acquire()
    assert list(own_temporary_directory.iterdir()) == []


def test_two_processes_share_the_lease_of_their_store(
    shared_config: dict[str, Any], open_cache: Callable[..., CacheServer]
) -> None:
    """Two caches on the same store are rivals; two in memory have nothing to share."""
    first, second = open_cache(**shared_config), open_cache(**shared_config)
    lease = first.lease(PREFIX + "lease", 15)
    assert lease.acquire()
    is_shared = not second.lease(PREFIX + "lease", 15).acquire()
    assert is_shared == (not second.is_private)


def test_other_backends_use_a_file_of_this_host(
    open_cache: Callable[..., CacheServer], own_temporary_directory: Path
) -> None:
    """A backend that gives no lease gets one in a private directory, and two accounts two."""
    first, second = (open_cache(CACHE_TYPE=f"{__name__}.TextBackend") for _ in range(2))
    lease = first.lease("wxjsapi:{host/wx1}:lease", 15)
    assert lease.acquire()
    assert not second.lease("wxjsapi:{host/wx1}:lease", 15).acquire()
    assert second.lease("wxjsapi:{host/wx2}:lease", 15).acquire()
    (directory,) = own_temporary_directory.iterdir()
    assert mode(directory) == 0o700
    assert len(list(directory.iterdir())) == 2
