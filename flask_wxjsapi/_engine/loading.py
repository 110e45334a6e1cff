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
    :param ended: called when it is over, before anybody learns of it.
    :param hung: called when it hangs.
    """

    name = "wxjsapi-loading"
    of = None

    def __init__(
        self,
        load: Callable[[], None],
        deadline: float,
        ended: Callable[[], object],
        hung: Callable[[], None],
    ) -> None:
        self.done = threading.Event()
        self.error: WxJsApiError | None = None
        self.deadline = deadline
        self.over_at = deadline + GRACE
        self._load, self._ended, self._hung = load, ended, hung

    def run(self) -> None:
        error: WxJsApiError | None = None
        with put_off(), under_way():
            try:
                self._load()
            except WxJsApiError as raised:
                error = cleaned(raised)
            except BaseException as unforeseen:  # gevent's Timeout is one; the thread is ours
                error = WxJsApiError(f"Loading an account broke: {describe(unforeseen)}.")
            finally:
                self.end(error)

    def end(self, error: WxJsApiError | None) -> None:
        """Let those who wait go on, with the error or without."""
        self._ended()
        self.error = error
        self.done.set()

    def give_up(self) -> None:
        """It hangs: nobody waits any more, and nobody asks again before it comes back."""
        if self.done.is_set():
            return  # what its thread has still to tell is no loader's
        self.error = WxJsApiError("The account_loader hangs.")
        self.done.set()
        self._hung()
