"""The private cache: what it keeps, where, and what it makes of damage."""

from __future__ import annotations

import builtins
import json
import logging
import os
import pickle
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis.exceptions
from cachelib import FileSystemCache, RedisCache
from flask import Flask
from flask_caching import Cache

from flask_wxjsapi import WxJsApi
from flask_wxjsapi._credential import Credential
from flask_wxjsapi._storage.cache import CACHELIB_SKIPS, CacheServer, CacheSettings
from flask_wxjsapi._storage.lease import FileLease, LocalLease, RedisLease
from flask_wxjsapi._telling import put_off
from flask_wxjsapi.sandbox import Sandbox

from .caches import (
    KEY,
    NEWER,
    PREFIX,
    TEXT_BACKEND,
    TICKET,
    TextBackend,
    config_of,
    logged,
    mode,
    posix_only,
)
from .conftest import Valkey, free_port

pytestmark = pytest.mark.usefixtures("own_temporary_directory")


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


@pytest.mark.usefixtures("patient")
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


def test_nothing_is_evicted_for_the_number_of_accounts(
    shared_config: dict[str, Any], open_cache: Callable[..., CacheServer]
) -> None:
    """cachelib's memory evicts beyond its threshold, and 0 is one there."""
    server = open_cache(**shared_config)
    keys = [f"{KEY}-{number}" for number in range(700)]
    for key in keys:
        server.save(key, TICKET)
    assert set(server.find_many(keys)) == set(keys)


def test_overrides_come_before_the_keys_of_the_app(tmp_path: Path) -> None:
    """WXJSAPI_CACHE gives the ticket another backend than the app's pages."""
    app = Flask("tests")
    app.config.update(CACHE_TYPE="SimpleCache")
    overrides = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path / "tickets")}
    server = CacheSettings(app.config, overrides).open(app)
    assert server._directory == tmp_path / "tickets" / f"wxjsapi{CACHELIB_SKIPS}"


def test_prefix_of_our_own_stands_before_every_key(valkey: Valkey) -> None:
    """For a Redis that admits an application to keys of its own only, and to few commands."""
    app = Flask("tests")
    app.config.update(
        CACHE_TYPE="RedisCache",
        CACHE_REDIS_URL=f"redis://app:word@127.0.0.1:{valkey.port}/0",
        CACHE_KEY_PREFIX="pages:",
    )
    with valkey.client() as admin:
        commands = "+get +mget +set +del +pttl +pexpire"
        admin.execute_command(f"ACL SETUSER app on >word ~myapp:* -@all {commands}")
        server = CacheSettings(app.config, {"CACHE_KEY_PREFIX": "myapp:"}).open(app)
        try:
            server.save(KEY, TICKET)
            lease = server.lease("lease", 15)
            assert lease.acquire()
            assert not server.lease("lease", 9).acquire()
            assert sorted(admin.keys()) == [b"myapp:lease", f"myapp:{KEY}".encode()]
            lease.release()
            assert server.find_many([KEY]) == {KEY: server.find(KEY)} == {KEY: TICKET}
            server.delete(KEY)
            assert admin.keys() == []
        finally:
            server._client.close()
            admin.execute_command("ACL DELUSER app")


@pytest.mark.parametrize("prefix", [5, b"myapp:", ["myapp:"]])
def test_prefix_that_is_no_text_is_refused_at_once(prefix: object) -> None:
    """The error quotes the key and the value."""
    with pytest.raises(RuntimeError, match=r"^CACHE_KEY_PREFIX in WXJSAPI_CACHE must be") as info:
        CacheSettings({"CACHE_TYPE": "SimpleCache"}, {"CACHE_KEY_PREFIX": prefix})
    assert repr(prefix) in str(info.value)


def test_keys_of_the_app_may_come_after_the_settings(tmp_path: Path) -> None:
    """An app that sets its cache up after init_app has it by the first ticket."""
    app = Flask("tests")
    settings = CacheSettings(app.config, {})
    app.config.update(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path / "cache"))
    assert settings.open(app)._directory == tmp_path / "cache" / f"wxjsapi{CACHELIB_SKIPS}"


REDIS = {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_PASSWORD": "s3cret"}


@pytest.mark.parametrize(
    ("config", "overrides"),
    [
        (REDIS, {}),
        (REDIS | {"CACHE_TYPE": "redis", "SECRET_KEY": "x"}, {}),
        ({}, REDIS),
        (REDIS | {"CACHE_KEY_PREFIX": "pages:"}, {"CACHE_KEY_PREFIX": ""}),
        (REDIS | {"CACHE_KEY_PREFIX": "pages:"}, {}),
    ],
)
def test_settings_of_one_cache_have_one_key(
    config: dict[str, Any], overrides: dict[str, Any]
) -> None:
    """Accounts with the same settings share one cache and its connections."""
    key = CacheSettings(config, overrides).key
    assert key == CacheSettings(dict(REDIS), {}).key
    assert hash(key) == hash(CacheSettings(dict(REDIS), {}).key)


@pytest.mark.parametrize(
    "overrides",
    [
        {"CACHE_TYPE": "SimpleCache"},
        {"CACHE_REDIS_DB": 1},
        {"CACHE_KEY_PREFIX": "pages:"},
        {"CACHE_OPTIONS": {"socket_timeout": 3}},
        {"CACHE_ARGS": [1, {"a": [2]}]},
    ],
)
def test_settings_of_two_caches_have_two_keys(overrides: dict[str, Any]) -> None:
    """What differs in anything is not shared, whatever kind of value it is."""
    config = REDIS | {"CACHE_KEY_PREFIX": "pages:", "CACHE_ARGS": [1, {"a": [1]}]}
    key = CacheSettings(config, overrides).key
    assert key != CacheSettings(config, {}).key
    assert len({key, CacheSettings(config, overrides).key}) == 1


def test_key_of_the_settings_shows_no_password() -> None:
    """It may stand in a frame that a tracer keeps."""
    assert "s3cret" not in repr(CacheSettings(REDIS, {}).key)


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


@pytest.mark.parametrize("config", [{}, {"CACHE_TYPE": "SimpleCache"}, {"CACHE_TYPE": "null"}])
def test_cache_of_the_app_that_is_not_in_its_config_is_a_warning(
    config: dict[str, Any],
    tmp_path: Path,
    open_cache: Callable[..., CacheServer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Cache(app, config={...}) is out of our sight; the app's author is told what to set."""
    app = Flask("tests")
    Cache(app, config={"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path / "cache")})
    open_cache(app, **config)
    (line,) = logged(caplog)
    assert 'WXJSAPI_CACHE={"CACHE_TYPE": "FileSystemCache", ...}' in line
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.wxjsapi["event"] == "cache_not_shared"  # type: ignore[attr-defined]


def test_memory_that_was_chosen_for_the_ticket_is_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who says so in WXJSAPI_CACHE knows."""
    caplog.set_level(logging.INFO)
    app = Flask("tests")
    Cache(app, config={"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path / "cache")})
    CacheSettings(app.config, {"CACHE_TYPE": "SimpleCache"}).open(app)
    assert logged(caplog) == []


@pytest.mark.parametrize("cache_type", ["SimpleCache", "NullCache"])
def test_memory_of_the_app_is_no_warning(
    cache_type: str, open_cache: Callable[..., CacheServer], caplog: pytest.LogCaptureFixture
) -> None:
    """There is nothing that the ticket could share."""
    app = Flask("tests")
    Cache(app, config={"CACHE_TYPE": cache_type, "CACHE_NO_NULL_WARNING": True})
    open_cache(app)
    assert logged(caplog) == []


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


def test_no_frame_of_an_error_holds_the_config() -> None:
    """Debuggers and error trackers show the variables of all frames."""
    app = Flask("tests")
    app.config.update(
        SECRET_KEY="the-apps-own", CACHE_TYPE="NoCache", CACHE_REDIS_PASSWORD="hunter2"
    )
    with pytest.raises(RuntimeError, match="CACHE_TYPE") as caught:
        CacheSettings(app.config, {"CACHE_REDIS_URL": "redis://:hunter2@h"})
    seen = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    frames = [frame for frame in seen.stack if "_storage" in frame.filename]
    assert frames
    shown = repr([frame.locals for frame in frames])
    assert "the-apps-own" not in shown
    assert "hunter2" not in shown


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
    config, _ = CacheSettings(
        {"CACHE_TYPE": "RedisSentinelCache", "CACHE_REDIS_SENTINELS": [("127.0.0.1", 1)]}, {}
    )._resolve()
    options = config["CACHE_OPTIONS"]
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
    server = open_cache(CACHE_TYPE=TEXT_BACKEND)
    server.save(KEY, TICKET)
    assert server._backend.timeouts == [7260]


def test_backend_that_did_not_take_it_is_an_error(open_cache: Callable[..., CacheServer]) -> None:
    """A set() that returns False, as on a full disk, counts as a store that is down."""
    server = open_cache(CACHE_TYPE=TEXT_BACKEND)
    server._backend.answer = False
    with pytest.raises(OSError, match="did not take it"):
        server.save(KEY, TICKET)


def test_record_that_is_too_long_is_an_error(each_cache: CacheServer) -> None:
    """Whoever reads it would take it for damage."""
    each_cache.write("one", {"text": "x" * 8000}, 60)
    with pytest.raises(OSError, match="at most 8192 characters"):
        each_cache.write("one", {"text": "x" * 8200}, 60)
    assert each_cache.read("one") == {"text": "x" * 8000}


# -- other people's backends -------------------------------------------------------------------


@pytest.mark.parametrize("separator", [".", ":"])
def test_dotted_path_names_a_backend(
    separator: str, open_cache: Callable[..., CacheServer]
) -> None:
    """CACHE_TYPE can be a class of the user's own."""
    server = open_cache(CACHE_TYPE=TEXT_BACKEND.replace(".TextBackend", f"{separator}TextBackend"))
    assert type(server._backend) is TextBackend
    server.save(KEY, TICKET)
    assert server.find(KEY) == TICKET
    server.delete(KEY)
    assert server.find(KEY) is None


def test_backend_without_serializer_gets_text(open_cache: Callable[..., CacheServer]) -> None:
    """Such a backend never sees an object to pickle."""
    server = open_cache(CACHE_TYPE=TEXT_BACKEND)
    server.save(KEY, TICKET)
    text = server._backend.values[KEY]
    assert type(text) is str
    assert json.loads(text) == TICKET.to_dict()


def test_text_may_come_back_as_bytes(open_cache: Callable[..., CacheServer]) -> None:
    """Some memcached clients return bytes for a string."""
    server = open_cache(CACHE_TYPE=TEXT_BACKEND)
    server._backend.values[KEY] = json.dumps(TICKET.to_dict()).encode()
    assert server.find(KEY) == TICKET


# -- the directory -----------------------------------------------------------------------------


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
def test_cache_dir_that_is_made_is_not_open_to_all(
    umask: Callable[[int], int], tmp_path: Path, open_cache: Callable[..., CacheServer]
) -> None:
    """With a umask that forbids nothing, another user could swap what lies in it."""
    umask(0)
    server = open_cache(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path / "a" / "cache"))
    server.save(KEY, TICKET)
    assert [mode(tmp_path / "a"), mode(tmp_path / "a" / "cache")] == [0o755, 0o755]


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


def _directory_with_something_in_it(path: Path) -> None:
    path.mkdir()
    (path / "x").touch()


@posix_only
@pytest.mark.parametrize(
    "plant",
    [
        Path.mkdir,
        _directory_with_something_in_it,
        os.mkfifo,
        lambda path: path.symlink_to(path),
        lambda path: path.symlink_to("/dev/zero"),
    ],
    ids=["directory", "full directory", "fifo", "endless link", "endless file"],
)
def test_what_is_no_file_is_put_aside(
    tmp_path: Path,
    open_cache: Callable[..., CacheServer],
    plant: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """cachelib would log a traceback at every look, and could not replace a directory at all."""
    server = open_cache(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path / "cache"))
    plant(Path(server._backend._get_filename(KEY)))
    check_damage(server, caplog)


def test_file_that_vanishes_is_no_failure(
    tmp_path: Path, open_cache: Callable[..., CacheServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process removes it while this one looks at it."""
    server = open_cache(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path / "cache"))
    server.save(KEY, TICKET)
    path = Path(server._backend._get_filename(KEY))

    def access(tested: Any, how: int) -> bool:
        path.unlink(missing_ok=True)
        return False

    monkeypatch.setattr("os.access", access)
    assert server.find(KEY) is None


_FILE_CALLS = ("access", "chmod", "listdir", "lstat", "mkdir", "open", "remove", "scandir", "stat")


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that this process has to do with, as it names them to the system."""
    seen: list[str] = []

    def watch(module: Any, name: str) -> None:
        real = getattr(module, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            if args and isinstance(args[0], (str, os.PathLike)):
                seen.append(os.fspath(args[0]))
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, watched)

    for name in [
        "access",
        "chmod",
        "listdir",
        "lstat",
        "mkdir",
        "open",
        "readlink",
        "remove",
        "scandir",
        "stat",
        "unlink",
    ]:
        watch(os, name)
    watch(builtins, "open")
    return seen


@pytest.mark.parametrize("use", ["find", "find_many"])
def test_a_look_touches_the_file_of_its_key_and_no_other(
    use: str, tmp_path: Path, open_cache: Callable[..., CacheServer], touched: list[str]
) -> None:
    """However many accounts there are, a look at one costs the same."""
    server = open_cache(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path / "cache"))
    server.save(KEY, TICKET)

    def look() -> list[str]:
        touched.clear()
        found = server.find(KEY) if use == "find" else server.find_many([KEY])[KEY]
        assert found == TICKET
        return list(touched)

    alone = look()
    for number in range(300):
        server.save(f"{KEY}.{number}", TICKET)
    assert look() == alone
    own = server._backend._get_filename(KEY)
    assert own in alone
    assert {Path(path) for path in alone} <= {Path(own), *Path(own).parents}


@pytest.mark.parametrize("data", [b"", b"\0", b"garbage"])
def test_damage_in_the_file_of_another_key_is_none_of_a_looks_business(
    data: bytes,
    tmp_path: Path,
    open_cache: Callable[..., CacheServer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It stays where it is until somebody asks for it."""
    server = open_cache(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path / "cache"))
    server.save(KEY, TICKET)
    other = Path(server._backend._get_filename(f"{KEY}.other"))
    other.write_bytes(data)
    assert server.find(KEY) == TICKET
    assert other.read_bytes() == data
    assert logged(caplog) == []


@posix_only
@pytest.mark.parametrize("use", ["find", "save", "lease"])
def test_directory_that_others_can_replace_is_refused(
    use: str, tmp_path: Path, open_cache: Callable[..., CacheServer]
) -> None:
    """As soon as it can be, also where it was made before."""
    server = open_cache(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path / "cache"))
    (tmp_path / "cache").chmod(0o777)
    calls: dict[str, Callable[[], object]] = {
        "find": lambda: server.find(KEY),
        "save": lambda: server.save(KEY, TICKET),
        "lease": lambda: server.lease(KEY, 15),
    }
    with pytest.raises(PermissionError, match="Any user may write to"):
        calls[use]()


# -- many at once --------------------------------------------------------------------------------


@pytest.fixture
def each_cache(any_config: dict[str, Any], open_cache: Callable[..., CacheServer]) -> CacheServer:
    """A cache of each kind."""
    return open_cache(**any_config)


@pytest.fixture(params=["memory", "files", "redis", "text"])
def any_config(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "text":
        return {"CACHE_TYPE": TEXT_BACKEND}
    return config_of(request.param, request)


def test_many_are_found_by_their_keys(each_cache: CacheServer) -> None:
    """Those that are there, each under its own."""
    each_cache.save("one", TICKET)
    each_cache.save("two", NEWER)
    assert each_cache.find_many(["two", "none", "one"]) == {"one": TICKET, "two": NEWER}


def test_many_may_be_none(each_cache: CacheServer) -> None:
    """A look at a moment when nothing is due."""
    assert each_cache.read_many([]) == {}


def test_many_may_name_one_twice(each_cache: CacheServer) -> None:
    """Two applications of a corp have one ticket."""
    each_cache.write("one", {"failures": 1}, 60)
    assert each_cache.read_many(iter(["one", "one"])) == {"one": {"failures": 1}}


@pytest.mark.parametrize("text", ["garbage", "[1]", "7", '{"value": 7}', "", "1" * 9000])
def test_a_damaged_one_of_many_is_left_out(
    text: str, each_cache: CacheServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It counts as absent and is told once; the others are found."""
    each_cache.save("one", TICKET)
    each_cache._backend.set("two", text, timeout=60)
    for _ in range(2):
        assert each_cache.find_many(["one", "two"]) == {"one": TICKET}
    (line,) = logged(caplog)
    assert line.startswith("The record under two is damaged (")


@pytest.mark.usefixtures("patient")
def test_many_are_one_exchange_with_redis(
    valkey: Valkey, open_cache: Callable[..., CacheServer]
) -> None:
    """A look at a hundred accounts is one question."""
    server = open_cache(CACHE_TYPE="RedisCache", CACHE_REDIS_URL=valkey.url)
    for number in range(100):
        server.save(f"{KEY}.{number}", TICKET)
    with valkey.client() as client:
        client.config_resetstat()
        assert len(server.find_many(f"{KEY}.{number}" for number in range(100))) == 100
        stats = client.info("commandstats")
    assert stats["cmdstat_mget"]["calls"] == 1
    assert "cmdstat_get" not in stats


@pytest.mark.usefixtures("patient")
def test_one_of_another_redis_type_is_left_out(
    valkey: Valkey, open_cache: Callable[..., CacheServer]
) -> None:
    """A list under a key of ours."""
    server = open_cache(CACHE_TYPE="RedisCache", CACHE_REDIS_URL=valkey.url)
    server.save("one", TICKET)
    server._client.lpush("two", "x")
    assert server.find_many(["one", "two"]) == {"one": TICKET}


def test_many_on_a_redis_that_is_down_are_an_error(open_cache: Callable[..., CacheServer]) -> None:
    """Not to be mistaken for a store that lost them."""
    server = open_cache(CACHE_TYPE="RedisCache", CACHE_REDIS_PORT=free_port())
    with pytest.raises(redis.exceptions.ConnectionError):
        server.read_many(["one", "two"])


class ClusterClient:
    """A Redis Cluster: a question may concern one slot only, unless the client splits it."""

    def __init__(self, values: dict[str, bytes]) -> None:
        self.values = values

    def mget(self, keys: list[str]) -> list[bytes | None]:
        raise AssertionError("CROSSSLOT")

    def mget_nonatomic(self, keys: list[str]) -> list[bytes | None]:
        return [self.values.get(key) for key in keys]


def test_many_on_a_redis_cluster_are_split_by_slot() -> None:
    """With the prefix that their keys have."""
    client = ClusterClient({"app:one": b'{"a": 1}', "one": b'{"a": 2}'})
    server = CacheServer(RedisCache(client, key_prefix="app:"))
    assert server.read_many(["one", "two"]) == {"one": {"a": 1}}


@pytest.mark.usefixtures("patient")
def test_one_that_spoils_the_batch_is_left_out(
    open_cache: Callable[..., CacheServer], caplog: pytest.LogCaptureFixture
) -> None:
    """A memcached client un-pickles all of an answer, or none of it."""

    def get(key: str) -> Any:
        if key == "two":
            raise UnicodeDecodeError("utf-8", b"s3cret", 0, 1, "s3cret")
        return json.dumps(TICKET.to_dict())

    server = open_cache(CACHE_TYPE=TEXT_BACKEND)
    server._backend.get = get
    assert server.find_many(["one", "two", "three"]) == {"one": TICKET, "three": TICKET}
    assert len(logged(caplog)) == 1
    assert "s3cret" not in caplog.text


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
        request.getfixturevalue("patient")
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
        pytest.param(b"[" * 8000, id="nested too deep"),
        pytest.param(json.dumps(TICKET.to_dict() | {"x": "x" * 8192}).encode(), id="too long"),
    ],
)
def test_damaged_record_is_absent(
    data: bytes, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever lies under our key counts as absent, with one line, and is replaced."""
    damage.put(data)
    check_damage(damage.server, caplog)


@pytest.mark.usefixtures("patient")
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
    server = open_cache(CACHE_TYPE=TEXT_BACKEND)
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
    first, second = (open_cache(CACHE_TYPE=TEXT_BACKEND) for _ in range(2))
    lease = first.lease("wxjsapi:{host/wx1}:lease", 15)
    assert lease.acquire()
    assert not second.lease("wxjsapi:{host/wx1}:lease", 15).acquire()
    assert second.lease("wxjsapi:{host/wx2}:lease", 15).acquire()
    (directory,) = own_temporary_directory.iterdir()
    assert mode(directory) == 0o700
    assert len(list(directory.iterdir())) == 2


def test_lease_in_memory_is_one_for_each_account(open_cache: Callable[..., CacheServer]) -> None:
    """The renewals of two accounts do not wait for each other."""
    server = open_cache(CACHE_TYPE="SimpleCache")
    assert server.lease("one", 15).acquire()
    assert server.lease("two", 15).acquire()
    assert not server.lease("one", 15).acquire()


@pytest.mark.usefixtures("patient")
def test_lease_of_redis_that_is_repaired_is_told_once(
    valkey: Valkey, open_cache: Callable[..., CacheServer], caplog: pytest.LogCaptureFixture
) -> None:
    """Each renewal has a lease object of its own, and it is the server that remembers."""
    server = open_cache(CACHE_TYPE="RedisCache", CACHE_REDIS_URL=valkey.url)
    for _ in range(3):
        server._client.set("lease", "planted")
        assert not server.lease("lease", 15).acquire()
    assert len(logged(caplog)) == 1


def test_host_without_a_directory_is_told_once(
    open_cache: Callable[..., CacheServer],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The lease holds within the process then; the server remembers that it was said."""
    monkeypatch.setattr("flask_wxjsapi._storage.lease.host_directory", lambda: None)
    server = open_cache(CACHE_TYPE=TEXT_BACKEND)
    leases = [server.lease("lease", 15) for _ in range(3)]
    assert [lease.acquire() for lease in leases] == [True, False, False]
    assert len(logged(caplog)) == 1
    leases[0].release()


# -- the log -------------------------------------------------------------------------------------


def test_lines_of_a_renewal_are_put_off_to_its_end(
    damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    """A slow log handler must not keep a lease."""
    damage.put(b"garbage")
    with put_off():
        assert damage.server.find(KEY) is None
        assert logged(caplog) == []
    assert len(logged(caplog)) == 1
