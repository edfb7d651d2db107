"""What the two ways of serving client connections have in common.

:mod:`fileserver.client_loop` serves all sockets in one task, :mod:`fileserver.stream_service` has tasks for each
stream. Both gather requests, hand them to the same backend and are told by ``flush`` to send what has been answered.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Final

import attrs
import trio

from fileserver.backend import Backend
from fileserver.connection import Connection, Gathering
from fileserver.reading import StoreReader
from fileserver.requests import MAX_FILE_BYTES_DEFAULT

LINGER_SECONDS: Final = 2.0
"""How long what a client still sends is read and dropped after its last reply."""
_FILES_RESERVED: Final = 64
"""Open files that are kept back from clients, for peers, log, snapshots and listeners."""


def max_connections_default() -> int:
    """Tell how many client connections the limit on open files leaves room for."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit - min(_FILES_RESERVED, limit // 2)


def raise_open_files_limit(wanted: int = 65536) -> int:
    """Raise this process's soft limit on open files to `wanted`, or as far as the hard one allows; give the result."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft


@attrs.frozen(slots=True, kw_only=True)
class Limits:
    """What clients are allowed."""

    max_file_bytes: int = MAX_FILE_BYTES_DEFAULT
    request_progress_timeout_seconds: float = 60.0
    """A connection is closed when half a request, or an unread reply, has made no progress for so long."""
    idle_timeout_seconds: float = 0.0
    """A connection is closed when it has been idle between requests for so long; 0 = never."""
    max_connections: int = attrs.field(factory=max_connections_default)

    @property
    def watch_seconds(self) -> float:
        """How often the timeouts are looked at."""
        timeouts = (self.request_progress_timeout_seconds, self.idle_timeout_seconds)
        return min(1.0, *(seconds / 4 for seconds in timeouts if seconds))


class TimedConnection(Connection):
    """A connection with the times that timeouts are told by, in seconds of Trio's clock."""

    __slots__ = ("active_at", "idle_at", "stalled_at")

    def __init__(self, touched: list[Connection], max_file_bytes: int, now: float) -> None:
        super().__init__(touched, max_file_bytes)
        self.active_at = now
        """When something was received last, or could be again."""
        self.stalled_at = now
        """When the client last took some of the output; of meaning while there is any."""
        self.idle_at = now
        """Since when it has been seen idle, roughly; later than `active_at` or of no meaning."""


class Service:
    """Base of both: a backend, the connections that have something to send, and the lists on their way."""

    def __init__(self, backend: Backend, limits: Limits, flush: Callable[[], None]) -> None:
        self._limits: Final = limits
        self._flush: Final = flush
        self._touched: Final[list[Connection]] = []
        self._lists_wanted = trio.Event()
        self._reader: Final = StoreReader(backend, flush, self._wake_lists)
        self._gathering: Final = Gathering(backend, self._reader, flush)

    def _is_overdue(self, connection: TimedConnection, now: float) -> bool:
        """Tell whether a connection is to be closed for lack of progress; to be asked every `watch_seconds`."""
        progress_seconds = self._limits.request_progress_timeout_seconds
        if connection.output and now - connection.stalled_at > progress_seconds:
            return True
        if connection.in_request and now - connection.active_at > progress_seconds:
            return True
        if not connection.idle or connection.idle_at < connection.active_at:
            connection.idle_at = now
            return False
        idle_seconds = self._limits.idle_timeout_seconds
        return bool(idle_seconds) and now - connection.idle_at > idle_seconds

    def _wake_lists(self) -> None:
        self._lists_wanted.set()

    async def _make_lists(self) -> None:
        """Make long lists slice by slice, as a task."""
        while True:
            await self._lists_wanted.wait()
            self._lists_wanted = trio.Event()
            more = True
            while more:
                await trio.lowlevel.checkpoint()
                more = self._reader.lists.turn()
                self._flush()
