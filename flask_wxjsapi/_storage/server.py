"""What a ticket server is."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod

from .._credential import Credential
from .._telling import tell
from .lease import Lease


class TicketServer(ABC):
    """Keeps tickets where the user wants them.

    Each call of ``find`` and ``save`` has an application context of its own, so ``db.session``
    of Flask-SQLAlchemy is a new one every time.

    An exception from any of them is logged with its class and line and treated as a store that
    is down: the pages go on with the ticket the process holds. A call that hangs costs its thread;
    after three of them in a process no renewal starts until one returns. A server that does not
    give back what was saved is named in the log, once.
    """

    @abstractmethod
    def find(self, key: str) -> Credential | None:
        """The ticket last saved under a key, expired or not; None if there is none.

        :param key: at most 200 printable characters; names account and kind.
        """

    @abstractmethod
    def save(self, key: str, credential: Credential) -> None:
        """Keep a ticket under a key, in place of the one before: all of it, or nothing.

        :param key: as for :meth:`find`.
        :param credential: its four fields must come back from :meth:`find`; ``first``, which is
            None most of the time, may be left out.
        """

    def lock(self, key: str) -> Lease | None:
        """An object with ``acquire(blocking=False) -> bool`` and ``release()``, if there is one.

        Without one the cache's own lease is used: Redis's, or a file's on this host. Hosts without
        a lease in common spread their renewals, which costs a few upstream calls more.
        Its hold must end when its holder dies, at the latest some seconds after. It may be released
        in another thread than the one that acquired it.

        :param key: as for :meth:`find`.
        """
        return None


def tell_of_damage(key: str, problem: str) -> None:
    """Tell the log of a record that is none of ours."""
    tell(
        logging.WARNING,
        "The record under %s is damaged (%s); it counts as absent and is replaced.",
        key,
        problem,
        event="record_damaged",
        key=key,
    )
