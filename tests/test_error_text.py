"""What a log says of an error of others': enough to find it, and nothing that it quotes."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import urllib.error
from email.message import Message
from pathlib import Path

import pytest
import redis.exceptions
import requests
from redis._parsers.base import BaseParser

from flask_wxjsapi._error_text import describe
from flask_wxjsapi._storage.lease import private_directory

URL = "https://api.internal/tickets?access_token=s3cret"
HERE = Path(__file__).name


def raised(error: Exception) -> Exception:
    """The error with a traceback that ends in this file."""
    try:
        raise error
    except Exception as error:
        return error


def replied(line: str) -> Exception:
    """What redis-py makes of an error that Redis replies with."""
    return raised(BaseParser.parse_error(line))


def test_class_and_place_of_any_error() -> None:
    """The text stays out, whatever it says."""
    told = describe(raised(ValueError("s3cret")))
    assert told.startswith("ValueError (")
    assert f"{HERE}:" in told
    assert told.endswith(" in raised)")


def test_class_of_an_error_that_was_never_raised() -> None:
    """Without a traceback there is no place to name."""
    assert describe(ValueError("s3cret")) == "ValueError"


@pytest.mark.parametrize(
    "error",
    [
        requests.ConnectionError(f"Max retries exceeded with url: {URL}"),
        requests.ReadTimeout(OSError(URL)),
        urllib.error.HTTPError(URL, 500, URL, Message(), None),
        urllib.error.URLError(URL),
        OSError(f"POST {URL} failed"),
        OSError(errno.EACCES, URL, URL),
        OSError(987654, URL),
        ConnectionError(URL),
        TimeoutError(URL),
        type("ConnectionError", (redis.exceptions.ConnectionError,), {})(URL),
        redis.exceptions.ResponseError(URL),
        redis.exceptions.InvalidResponse(URL),
        redis.exceptions.AuthenticationError(URL),
        redis.exceptions.DataError(f"SECRET {URL}"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_nothing_of_the_text_is_told(error: Exception) -> None:
    """A name such as OSError or ConnectionError is no promise: requests quotes URLs in its own."""
    told = describe(raised(error))
    assert told.startswith(type(error).__name__)
    assert "s3cret" not in told
    assert f"{HERE}:" in told


def test_an_error_of_the_system_is_told_by_its_number() -> None:
    """The system's own words for it, and not what the error brings along."""
    told = describe(raised(PermissionError(errno.EACCES, "s3cret", "/s3cret")))
    assert told.startswith(f"PermissionError: [Errno {errno.EACCES}] {os.strerror(errno.EACCES)} (")


def test_a_name_that_is_not_found_is_told_as_such() -> None:
    """The resolver has numbers and words of its own."""
    error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    assert ": [Errno " in describe(raised(error))
    assert "Name or service not known (" in describe(raised(error))


def test_a_tls_error_is_told_by_its_code() -> None:
    """Its number is OpenSSL's, and would be "Operation not permitted" to the system."""
    error = ssl.SSLError(1, f"[SSL: X] {URL}")
    error.reason = "CERTIFICATE_VERIFY_FAILED"
    assert describe(raised(error)).startswith("SSLError: CERTIFICATE_VERIFY_FAILED (")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("NOPERM User app has no permissions to run 's3cret'", "NoPermissionError: NOPERM"),
        ("OOM command not allowed when used memory > 'maxmemory'.", "OutOfMemoryError: OOM"),
        ("READONLY You can't write against a read only replica.", "ReadOnlyError: READONLY"),
        ("NOREPLICAS Not enough good replicas to write.", "ResponseError: NOREPLICAS"),
        ("WRONGPASS invalid username-password pair", "AuthenticationError: WRONGPASS"),
        ("LOADING Redis is loading the dataset in memory", "BusyLoadingError: LOADING"),
        ("MISCONF Redis is configured to save RDB snapshots", "ResponseError: MISCONF"),
        ("CLUSTERDOWN The cluster is down", "ClusterDownError: CLUSTERDOWN"),
        ("S3cret is no code word", "ResponseError ("),
        ("s3cret", "ResponseError ("),
    ],
)
def test_redis_is_told_by_its_code_word(line: str, told: str) -> None:
    """The word in capitals that a reply begins with, and nothing else of it."""
    assert describe(replied(line)).startswith(told)
    assert "s3cret" not in describe(replied(line))


@pytest.mark.parametrize("name", ["NoPermissionError", "OutOfMemoryError", "ReadOnlyError"])
def test_redis_is_told_by_its_code_word_where_redis_py_drops_it(name: str) -> None:
    """Before version 6 it is neither in the text nor beside it; the class stands for it."""
    error: Exception = getattr(redis.exceptions, name)("this user may not")
    code = {"N": "NOPERM", "O": "OOM", "R": "READONLY"}[name[0]]
    assert describe(error) == f"{name}: {code}"


@pytest.mark.parametrize(
    "error",
    [
        redis.exceptions.ConnectionError("Error 111 connecting to 127.0.0.1:1. Refused."),
        redis.exceptions.TimeoutError("Timeout reading from 127.0.0.1:1"),
    ],
)
def test_redis_that_is_out_of_reach_is_told_with_its_address(error: Exception) -> None:
    """These texts name host, port and the system's reason, and nothing else."""
    assert describe(raised(error)) == f"{type(error).__name__}: {error}"


def test_our_own_words_are_told(tmp_path: Path) -> None:
    """What the store says of a directory is written by us, and tells what to do."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError) as info:
        private_directory(tmp_path / "link")
    assert describe(info.value) == f"PermissionError: {info.value}"


def test_a_text_is_one_line_of_bounded_length() -> None:
    """Whoever writes it, it cannot fake lines of the log."""
    error = redis.exceptions.ConnectionError("Error\r\n111 " + "x" * 1000)
    assert describe(error).startswith("ConnectionError: Error 111 xxx")
    assert len(describe(error)) <= 500
