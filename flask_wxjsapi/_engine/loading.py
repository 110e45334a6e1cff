"""The first question for an account that comes at run time."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .._error_text import describe
from .._telling import put_off
from ..errors import WxJsApiError
from .asking import cleaned
from .renewal import GRACE, under_way


class Loading:
    """One call of an account's loader; a job for a thread of its own. Whoever wants the same
    account meanwhile waits for this one.

    :param load: asks the loader and keeps what it says.
    :param deadline: monotonic seconds until which somebody waits.
    """

    name = "wxjsapi-loading"

    def __init__(self, load: Callable[[], None], deadline: float) -> None:
        self.done = threading.Event()
        self.error: WxJsApiError | None = None
        self.over_at = deadline + GRACE
        self._load = load

    def run(self) -> None:
        with put_off(), under_way():
            try:
                self._load()
            except WxJsApiError as error:
                self.error = cleaned(error)
            except BaseException as error:  # gevent's Timeout is one; the thread is ours
                self.error = WxJsApiError(f"Loading an account broke: {describe(error)}.")
            finally:
                self.done.set()

    def give_up(self) -> None:
        """It hangs, and nobody waits any more."""
        self.error = WxJsApiError("The account_loader hangs.")
        self.done.set()
