"""Client connections over Trio streams, with two tasks for each.

It behaves as :mod:`fileserver.client_loop` does and costs several times as much per request. It is there for what only
exists as a stream: TLS, and the memory streams of tests, which can so run on a clock of their own.

Invariants
    A connection's receiving task is the only one that gathers, its sending task the only one that sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog
import trio

from fileserver.backend import Backend
from fileserver.connection import Connection
from fileserver.replies import TOO_MANY_CONNECTIONS
from fileserver.service import LINGER_SECONDS, Limits, Service, TimedConnection

RECEIVE_BYTES: Final = 64 * 1024

_log: Final = structlog.get_logger(__name__)


class StreamConnection(TimedConnection):
    """A connection with its stream."""

    __slots__ = ("changed", "scope", "stream")

    def __init__(self, stream: trio.abc.Stream, touched: list[Connection], max_file_bytes: int) -> None:
        super().__init__(touched, max_file_bytes, trio.current_time())
        self.stream: Final = stream
        self.scope: Final = trio.CancelScope()
        """Everything that is done for the connection."""
        self.changed = trio.Event()
        """Set, and replaced, whenever something has been answered or sent."""

    def notify(self) -> None:
        """Wake the tasks that wait for an answer, or for room."""
        self.changed.set()
        self.changed = trio.Event()


class StreamService(Service):
    """Serves clients over streams; see the module's docstring."""

    def __init__(self, backend: Backend, limits: Limits | None = None) -> None:
        """Nothing is started here."""
        super().__init__(backend, limits or Limits(), self.flush)
        self._connections: Final[set[StreamConnection]] = set()

    @property
    def connections(self) -> int:
        """How many client connections are open."""
        return len(self._connections)

    async def run(
        self,
        listeners: Sequence[trio.abc.Listener[trio.SocketStream]] = (),
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve clients of the listeners until cancelled; those given to `converse` by others need it to run too."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._make_lists)
            nursery.start_soon(self._watch_time)
            task_status.started()
            if listeners:
                await trio.serve_listeners(self.converse, list(listeners), handler_nursery=nursery)

    def flush(self) -> None:
        """Have sent what has been answered. To be called after completing batches."""
        touched = self._touched[:]
        self._touched.clear()
        for connection in touched:
            assert isinstance(connection, StreamConnection)
            connection.stalled_at = trio.current_time()
            connection.notify()

    async def converse(self, stream: trio.abc.Stream) -> None:
        """Serve one client to the end and close its stream."""
        if len(self._connections) >= self._limits.max_connections:
            _log.warning("too many connections; one is refused", connections=len(self._connections))
            await self._refuse(stream)
            return
        connection = StreamConnection(stream, self._touched, self._limits.max_file_bytes)
        self._connections.add(connection)
        try:
            with connection.scope:
                try:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._send_replies, connection)
                        nursery.start_soon(self._receive_requests, connection)
                    if not connection.ended:
                        await self._linger(stream)
                except* (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass  # The client has gone, which is its right.
        finally:
            connection.lose()
            self._connections.remove(connection)
            await trio.aclose_forcefully(stream)

    async def _receive_requests(self, connection: StreamConnection) -> None:
        """Take in requests until there are no more to come."""
        gathering = self._gathering
        while True:
            gathering.start()
            more = connection.gather(gathering)
            gathering.submit()
            self.flush()
            if more:
                await trio.lowlevel.checkpoint()
            elif connection.blocked:
                await connection.changed.wait()
            elif connection.closing:
                connection.notify()
                return
            else:
                connection.active_at = trio.current_time()
                data = await connection.stream.receive_some(RECEIVE_BYTES)
                connection.active_at = trio.current_time()
                if data:
                    connection.receive(bytes(data))
                else:
                    connection.receive_end()

    async def _send_replies(self, connection: StreamConnection) -> None:
        """Send what has been answered, until everything has been."""
        while not connection.finished:
            data = b"".join(connection.next_output())
            if data:
                await connection.stream.send_all(data)
                connection.sent(len(data))
                connection.stalled_at = trio.current_time()
                connection.notify()
            else:
                await connection.changed.wait()

    async def _linger(self, stream: trio.abc.Stream) -> None:
        """Drop what the client still sends, so that it is sure to get its last reply."""
        with trio.move_on_after(LINGER_SECONDS):
            if isinstance(stream, trio.abc.HalfCloseableStream):
                await stream.send_eof()
            while await stream.receive_some(RECEIVE_BYTES):
                pass

    async def _refuse(self, stream: trio.abc.Stream) -> None:
        try:
            with trio.move_on_after(LINGER_SECONDS):
                await stream.send_all(TOO_MANY_CONNECTIONS)
        except trio.BrokenResourceError:
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def _watch_time(self) -> None:
        """Close connections that make no progress, as a task."""
        while True:
            await trio.sleep(self._limits.watch_seconds)
            now = trio.current_time()
            for connection in self._connections:
                if self._is_overdue(connection, now):
                    connection.scope.cancel()
