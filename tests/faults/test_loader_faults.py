"""A loader that raises, hangs, is slow or answers nonsense; strangers who hammer it; and accounts
whose WeChat hangs.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from flask_wxjsapi.sandbox import Sandbox

from ..conftest import Valkey, wait_until
from ..processes import at_once
from .conftest import Figure
from .platforms import SECRET_TEXT, Platform, everyone, get, secret_of
from .servers import Fleet

pytestmark = pytest.mark.processes

#: What a loader may answer for an account, and what is said of that.
NONSENSE: list[tuple[object, str, str]] = [
    ([SECRET_TEXT], "", "it must be a mapping or None, not list"),
    (SECRET_TEXT, "", "it must be a mapping or None, not str"),
    ({"APP_SECRET": SECRET_TEXT, "CACHE": {}}, "", "CACHE belongs to the extension as a whole"),
    ({"APP_SECRET": 7654321}, "", "APP_SECRET must be a string"),
    ({"APP_SECRET": f"{SECRET_TEXT} {SECRET_TEXT}"}, "", "APP_SECRET must have no spaces"),
    ({"APP_SECRET": SECRET_TEXT, "PAGE_HOSTS": "a.example"}, "", "PAGE_HOSTS must be a list"),
    ({SECRET_TEXT: 1}, "", "Something is not a key of an account"),
    (None, "raise", "it raised ValueError"),
]


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with Sandbox(ticket="new").serve() as sandbox:
        yield Platform(sandbox, tmp_path)


@pytest.fixture
def config(valkey: Valkey) -> dict[str, str]:
    return {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": valkey.patient_url}


def status_of(fleet: Fleet, app_id: str) -> int:
    return get(fleet.url, f"/ticket/{app_id}")[0]


def log_of(fleet: Fleet) -> str:
    return fleet.log.read_text()


# -- nonsense --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_nonsense_is_a_failed_read_of_its_account(
    platform: Platform, config: dict[str, str]
) -> None:
    """503; cause and log name account and key, and not the secret; others are served."""
    good, *bad = platform.add(range(1 + len(NONSENSE)))
    for app_id, (answer, manner, _) in zip(bad, NONSENSE, strict=True):
        platform.table.put({app_id: answer}, manner)
    with platform.fleet(workers=2, **config) as fleet:
        for app_id, (_, _, problem) in zip(bad, NONSENSE, strict=True):
            text = f"The account_loader failed for {app_id}: {problem}"
            for answer in everyone(fleet, f"/ticket/{app_id}", 503).values():
                assert answer["cause"].startswith(text)
            wait_until(lambda text=text: text in log_of(fleet))
        everyone(fleet, f"/ticket/{good}", 200)
        platform.table.put({app_id: {"APP_SECRET": secret_of(app_id)} for app_id in bad})
        for app_id in bad:
            everyone(fleet, f"/ticket/{app_id}", 200)
    assert SECRET_TEXT not in log_of(fleet)
    assert "7654321" not in log_of(fleet)
    assert platform.sandbox.calls == {"stable_token": len(bad) + 1, "getticket": len(bad) + 1}


@pytest.mark.slow
def test_nonsense_is_a_failed_renewal_of_its_account(
    platform: Platform, config: dict[str, str]
) -> None:
    """Its ticket lives on, WeChat is not asked, and the log has why."""
    good, *bad = platform.add(range(1 + len(NONSENSE)))
    with platform.fleet(workers=2, **config) as fleet:
        for app_id in bad:
            everyone(fleet, f"/ticket/{app_id}", 200)
        calls = dict(platform.sandbox.calls)
        for app_id, (answer, manner, problem) in zip(bad, NONSENSE, strict=True):
            platform.table.put({app_id: answer}, manner)
            status, told = get(fleet.url, f"/refresh/{app_id}", "POST")
            assert (status, told["error"]) == (200, "WxJsApiError")
            text = f"The account_loader failed for {app_id}: {problem}"
            assert told["cause"].startswith(text)
            line = f"The jsapi_ticket of {app_id} was not renewed. {text}"
            wait_until(lambda line=line: line in log_of(fleet))
            everyone(fleet, f"/ticket/{app_id}", 200)
        assert platform.sandbox.calls == calls
        assert status_of(fleet, good) == 200
    assert SECRET_TEXT not in log_of(fleet)


# -- slow and hanging ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_slow_loader_is_waited_for(platform: Platform, config: dict[str, str]) -> None:
    """Once by all who want its account, and by nobody else."""
    slow, good = platform.add(range(2))
    platform.table.put({slow: {"APP_SECRET": secret_of(slow)}}, "slow")
    with platform.fleet(workers=1, WXJSAPI_REFRESH_TIMEOUT="60", **config) as fleet:
        answers: list[Any] = []
        crowd = threading.Thread(
            target=lambda: answers.extend(at_once(12, lambda: status_of(fleet, slow)))
        )
        crowd.start()
        wait_until(lambda: platform.table.times_asked(slow) == 1)
        assert status_of(fleet, good) == 200
        assert answers == []
        crowd.join(120)
        assert answers == [200] * 12
        assert platform.table.times_asked(slow) == 2  # and once more for its ticket


def test_a_loader_that_hangs_holds_up_its_account_alone(
    platform: Platform, config: dict[str, str], figure: Figure
) -> None:
    """However many want it, it is asked once; when it comes back all is well."""
    hangs, good, other = platform.add(range(3))
    platform.table.put({hangs: {"APP_SECRET": secret_of(hangs)}}, "hang")
    with platform.fleet(workers=1, WXJSAPI_REFRESH_TIMEOUT="8", **config) as fleet:
        for _ in range(3):
            for status, answer in at_once(8, lambda: get(fleet.url, f"/ticket/{hangs}")):
                assert status == 503
                assert answer["cause"].startswith("The account_loader ")
        wait_until(lambda: f"The account_loader hangs for {hangs}." in log_of(fleet), 60)
        (size,) = everyone(fleet, "/size", 200).values()
        assert platform.table.times_asked(hangs) == 1
        assert status_of(fleet, good) == status_of(fleet, other) == 200
        platform.table.put({hangs: {"APP_SECRET": secret_of(hangs)}})
        everyone(fleet, f"/ticket/{hangs}", 200)
    figure("a loader hangs for one account", "one thread", f"{size['threads']} with gunicorn's")


@pytest.mark.slow
def test_renewals_whose_loader_hangs_hold_up_nobody_else(
    platform: Platform, config: dict[str, str]
) -> None:
    """Two of the three threads that a process may lose; their tickets live on."""
    *bad, good = platform.add(range(3))
    with platform.fleet(workers=1, WXJSAPI_REFRESH_TIMEOUT="1", **config) as fleet:
        for app_id in (*bad, good):
            assert status_of(fleet, app_id) == 200
        platform.table.put({app_id: {"APP_SECRET": secret_of(app_id)} for app_id in bad}, "hang")
        for app_id in bad:
            assert get(fleet.url, f"/refresh/{app_id}", "POST")[0] == 503
        wait_until(lambda: log_of(fleet).count("A renewal hangs: ") == 2, 60)
        old = get(fleet.url, f"/ticket/{good}")[1]["ticket"]
        assert get(fleet.url, f"/refresh/{good}", "POST")[1]["ticket"] != old
        for app_id in bad:
            assert status_of(fleet, app_id) == 200
        platform.table.put({app_id: {"APP_SECRET": secret_of(app_id)} for app_id in bad})


# -- hammered --------------------------------------------------------------------------------------

_PAGE = quote("http://127.0.0.1/page", safe="")


class Hammer:
    """Threads that ask for signatures as fast as they can, each time of another account.

    :param name: called for the next one's AppID.
    """

    def __init__(self, fleet: Fleet, name: Callable[[], str]) -> None:
        self.statuses: Counter[int] = Counter()
        self._fleet, self._name = fleet, name
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(24)]

    def __enter__(self) -> Hammer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(180)

    def _run(self) -> None:
        while not self._stopped.is_set():
            status = config_of(self._fleet, self._name())
            self.statuses[status] += 1  # roughly

    @property
    def count(self) -> int:
        return sum(self.statuses.values())


def config_of(fleet: Fleet, app_id: str) -> int:
    return get(fleet.url, f"/wxjsapi/config?app_id={app_id}&url={_PAGE}")[0]


@pytest.mark.slow
def test_strangers_who_name_ever_other_accounts(
    platform: Platform, config: dict[str, str], figure: Figure
) -> None:
    """A few questions a second reach the loader, memory stays, and what is known is signed for."""
    known = platform.add(range(5))
    numbers = itertools.count(0xF000000)
    config |= {"WXJSAPI_PAGE_HOSTS": '["127.0.0.1"]'}
    with platform.fleet(workers=2, **config) as fleet:
        for app_id in known:
            everyone(fleet, f"/ticket/{app_id}", 200)
        served: Counter[int] = Counter()
        with Hammer(fleet, lambda: f"wx{next(numbers):016x}") as hammer:
            wait_until(lambda: hammer.count > 500, 120)
            before = everyone(fleet, "/size", 200)
            for _ in range(20):
                for app_id in known:
                    served[config_of(fleet, app_id)] += 1
            wait_until(lambda: hammer.count > 5000, 300)
            after = everyone(fleet, "/size", 200)
        assert served == {200: 100}
    assert set(hammer.statuses) == {404, 503}
    rates = []
    for pid in fleet.workers:
        times = [at for _, by, at in platform.table.asked() if by == pid]
        asked = len(times) - 2 * len(known)
        seconds = max(times) - min(times)
        assert asked <= 10 + 3 * seconds + 5  # two at the same moment may count as one
        rates.append(f"{asked} in {seconds:.0f} s")
    grown = max(after[pid]["memory"] - before[pid]["memory"] for pid in fleet.workers)
    figure(
        f"{hammer.count} strangers, each names another account, 2 workers",
        "10 and 3 a second reach the loader",
        f"{', '.join(rates)}; {grown} kB more memory; {dict(hammer.statuses)}",
    )
    assert grown < 20_000


@pytest.mark.slow
def test_strangers_who_name_the_same_account(
    platform: Platform, config: dict[str, str], figure: Figure
) -> None:
    """The loader is asked once in ten seconds."""
    with platform.fleet(workers=1, **config) as fleet:
        with Hammer(fleet, lambda: "wx00000000deadbeef") as hammer:
            wait_until(lambda: hammer.count > 2000, 300)
        times = [at for _, _, at in platform.table.asked()]
    assert set(hammer.statuses) == {404}
    assert all(later - earlier >= 10 for earlier, later in itertools.pairwise(times))
    text = f"{len(times)} of the loader"
    figure(f"{hammer.count} times the same unknown account", "1 question in 10 s", text)


# -- WeChat hangs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [8, 20])
def test_accounts_that_hang_in_wechat_hold_up_no_other(
    count: int, platform: Platform, config: dict[str, str], figure: Figure
) -> None:
    """All are read for the first time, at the same moment; others come after them."""
    ids = platform.add(range(count + 10))
    bad, good = ids[:count], ids[count:]
    for app_id in bad:
        platform.sandbox.fail("hang", times=None, app_id=app_id)
    config |= {"WXJSAPI_REFRESH_TIMEOUT": "100"}
    with platform.fleet("--threads=64", workers=1, **config) as fleet:
        assert status_of(fleet, good[0]) == 200
        turns, answers = iter(bad), []
        crowd = threading.Thread(
            target=lambda: answers.extend(at_once(count, lambda: status_of(fleet, next(turns))))
        )
        crowd.start()
        wait_until(lambda: platform.sandbox.calls["stable_token"] >= 1 + min(count, 8), 60)
        started = time.monotonic()
        assert [status_of(fleet, app_id) for app_id in good] == [200] * len(good)
        seconds = time.monotonic() - started
        assert answers == []  # they have not made room by failing
        platform.sandbox.heal()
        crowd.join(120)
        assert answers == [200] * count
    figure(
        f"{count} cold accounts hang in WeChat", "others do not wait for that", f"{seconds:.1f} s"
    )
