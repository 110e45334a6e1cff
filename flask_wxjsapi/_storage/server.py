"""What a ticket server is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from .._credential import Credential
from .lease import Lease


class TicketServer(ABC):
    """Keeps tickets where the user wants them.

    Each call of ``find`` and ``save`` has an application context of its own, so ``db.session``
    of Flask-SQLAlchemy is a new one every time.

    An exception from any of them is logged with the class's name and treated as a store that
    is down: the pages go on with the ticket the process holds.
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
        :param credential: all four fields must come back from :meth:`find`.
        """

    def lock(self, key: str) -> Lease | None:
        """An object with ``acquire(blocking=False) -> bool`` and ``release()``, if there is one.

        Without one the cache's own lease is used: Redis's, or a file's on this host, which is one
        more upstream call per further host.
        Its hold must end when its holder dies, at the latest some seconds after.

        :param key: as for :meth:`find`.
        """
        return None
