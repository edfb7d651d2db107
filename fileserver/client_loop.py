"""All client connections over sockets, served by one task.

Theory of operation
    A task per connection costs more than the requests do, so one task serves all sockets: that of the reactor
    (:mod:`raftnode.reactor`), whose crowd they are. Every ready socket is served in a *pass*:
    receive, parse, gather. What was gathered goes to the backend as one batch of changes and one of reads, so batches
    grow with load by themselves. Whoever completes a batch (often who applies the log) calls :meth:`ClientLoop.flush`,
    which sends all replies of a turn by one system call (:mod:`raftnode.joint_sends`), or if they are few or big those
    of each connection by one. Only a full socket is watched for room.

    Three smaller tasks go beside it: one takes up connections that were *blocked* (see :mod:`fileserver.connection`)
    and can go on after an answer, one makes long lists, one looks at the timeouts.

    A connection ends by *lingering*: its last reply is followed by an end of stream, and what the client still sends
    is read and dropped for up to `LINGER_SECONDS`, since closing a socket with unread input makes the system reset
    the connection, and the client could lose the reply that says why.

Invariants
    Every open connection is in `_connections` and registered with the poller under its `mask`.
    After a flush a connection's output is empty or the socket is watched for room.
    A pass handles about `PASS_REQUESTS` requests or `PASS_BYTES` of content at most. Sockets that it didn't come to are
    the next one's.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from typing import Final, cast

import structlog
import trio

from fileserver.backend import Backend
from fileserver.connection import Connection
from fileserver.replies import JOINED_BYTES_MAX, TOO_MANY_CONNECTIONS
from fileserver.service import LINGER_SECONDS, Limits, Service, TimedConnection
from raftnode.joint_sends import ROOM_BYTES, SOCKETS_MAX, JointSends, make_joint_sends
from raftnode.polling import READABLE, WRITABLE
from raftnode.reactor import Reactor
from raftnode.same_machine import send_unpaced_if_within

RECEIVE_BYTES: Final = 64 * 1024
PASS_REQUESTS: Final = 1024
PASS_BYTES: Final = 2 * 1024 * 1024
ACCEPTS_PER_PASS: Final = 64
ACCEPT_PAUSE_SECONDS: Final = 0.1
"""How long no connection is accepted after the system ran out of files or memory for it."""

JOINT_MIN: Final = 16
"""With fewer than so many replies each goes by a call of its own."""
JOINT_BYTES_MAX: Final = ROOM_BYTES // SOCKETS_MAX
"""So much of one connection's goes together with others'."""

_OUT_OF_RESOURCES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)

_log: Final = structlog.get_logger(__name__)


class SocketConnection(TimedConnection):
    """A connection with its socket."""

    __slots__ = ("fd", "linger_until", "mask", "recv", "send", "socket")

    def __init__(self, client: socket.socket, touched: list[Connection], max_file_bytes: int, now: float) -> None:
        super().__init__(touched, max_file_bytes, now)
        self.socket: Final = client
        self.fd: Final = client.fileno()
        self.recv: Final = client.recv
        self.send: Final = client.send
        self.mask = READABLE
        """What the poller watches the socket for."""
        self.linger_until = 0.0
        """When the socket is closed at the latest, once it lingers."""


class ClientLoop(Service):
    """Serves the clients of some listening sockets; see the module's docstring."""

    def __init__(
        self, backend: Backend, listeners: Sequence[socket.socket], reactor: Reactor, limits: Limits | None = None
    ) -> None:
        """Take listening sockets, which `run` closes in the end; nothing is started here.

        The passes are the reactor's, which somebody else must run.
        """
        super().__init__(backend, limits or Limits(), self.flush)
        self._reactor: Final = reactor
        self._listeners: Final = {listener.fileno(): listener for listener in listeners}
        self._connections: Final[dict[int, SocketConnection]] = {}
        self._poller: Final = reactor.poller
        self._joint_sends: Final = make_joint_sends()
        self._now = 0.0
        self._unserved: list[tuple[int, int]] = []  # Events of a pass that was cut short.
        self._resumable: dict[SocketConnection, None] = {}
        self._resume_wanted = trio.Event()
        self._accepting = False
        self._accept_paused = trio.Event()
        self._refuses_clients = False
        self._stopping = False
        self._emptied = trio.Event()

    @property
    def connections(self) -> int:
        """How many client connections are open."""
        return len(self._connections)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; then close every socket, listeners included."""
        try:
            async with trio.open_nursery() as nursery:
                self._start_accepting()
                nursery.start_soon(self._make_lists)
                nursery.start_soon(self._serve_resumable)
                nursery.start_soon(self._watch_time)
                nursery.start_soon(self._accept_again)
                self._reactor.serve_crowd(self._serve_ready)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._reactor.serve_crowd(None)
            self._close_everything()

    async def stop(self, grace_seconds: float) -> None:
        """Accept no more connections and requests; answer what is under way, at most for so long.

        `run` goes on meanwhile, and is to be cancelled afterwards.
        """
        self._stopping = True
        self._stop_accepting()
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        for connection in list(self._connections.values()):
            connection.take_no_more()
            self._settle(connection)
        with trio.move_on_after(grace_seconds):
            while self._connections:
                self._emptied = trio.Event()
                await self._emptied.wait()

    # One pass

    def _serve_ready(self, ready: list[tuple[int, int]]) -> None:
        """Serve every ready socket: receive, parse, gather; then hand over what was gathered."""
        events = self._unserved or ready  # What is ready now still is after that.
        self._unserved = []
        now = self._now = trio.current_time()
        gathering = self._gathering
        gathering.start()
        connections = self._connections
        for place, (fd, mask) in enumerate(events, 1):
            connection = connections.get(fd)
            if connection is None:
                self._accept(fd)
                continue
            if mask != WRITABLE:
                try:
                    data = connection.recv(RECEIVE_BYTES)
                except BlockingIOError:
                    continue
                except OSError:
                    self._drop(connection)
                    continue
                connection.active_at = now
                if not connection.receive_whole(data, gathering):
                    self._receive(connection, data)
                    if gathering.requests > PASS_REQUESTS or gathering.changes.content_bytes > PASS_BYTES:
                        self._unserved = events[place:]
                        break
            if mask & WRITABLE and not connection.lost:
                self._send(connection)
        gathering.submit()
        self.flush()

    def _receive(self, connection: SocketConnection, data: bytes) -> None:
        """Take what a socket gave: any chunk, or the end."""
        if data:
            if connection.closing:
                return  # No one wants it any more.
            connection.receive(data)
        elif connection.linger_until or connection.ended:
            self._drop(connection)
            return
        else:
            connection.receive_end()
        if connection.gather(self._gathering):
            self._resume(connection)
        if connection.blocked or connection.closing:
            self._settle(connection)

    def _settle(self, connection: SocketConnection) -> None:
        """Watch the socket for what matters now, or end the connection if all is done."""
        if connection.lost:
            return
        if connection.finished:
            self._end(connection)
            return
        mask = 0 if connection.ended or connection.input_full else READABLE
        if connection.output:
            mask |= WRITABLE
        if mask != connection.mask:
            connection.mask = mask
            self._poller.modify(connection.fd, mask)

    # Sending

    def flush(self) -> None:
        """Send what has been answered. To be called after completing batches."""
        touched = self._touched
        if not touched:
            return
        connections = cast("list[SocketConnection]", touched[:])
        touched.clear()
        if len(connections) >= JOINT_MIN and self._joint_sends is not None:
            connections = self._send_jointly(self._joint_sends, connections)
        for connection in connections:
            output = connection.output
            if len(output) != 1 or connection.blocked or connection.closing:
                if not connection.lost:
                    self._send(connection)
                continue
            # The usual case, on a short way: one reply, which the socket takes as a whole.
            reply = output[0]
            try:
                sent_bytes = connection.send(reply)
            except OSError:
                sent_bytes = 0  # Whatever it is, it comes again.
            if sent_bytes == len(reply):
                output.clear()
                connection.unsent_bytes -= sent_bytes
            else:
                connection.sent(sent_bytes)
                self._send(connection)

    def _send_jointly(self, joint_sends: JointSends, connections: list[SocketConnection]) -> list[SocketConnection]:
        """Send small outputs of many connections by one system call; give back those that are to be served singly."""
        others = []
        some = []
        datas = []
        for connection in connections:
            output = connection.output
            if not output or connection.unsent_bytes > JOINT_BYTES_MAX or connection.blocked or connection.closing:
                others.append(connection)
            else:
                some.append(connection)
                datas.append(output[0] if len(output) == 1 else b"".join(output))
                output.clear()  # So that nothing goes twice, whoever else looks at it.
        for begin in range(0, len(some), SOCKETS_MAX):
            part = slice(begin, begin + SOCKETS_MAX)
            sent = joint_sends.send([connection.fd for connection in some[part]], datas[part])
            for connection, data, sent_bytes in zip(some[part], datas[part], sent, strict=True):
                if sent_bytes == connection.unsent_bytes:
                    connection.unsent_bytes = 0
                else:
                    # Not all of it, or more waits for its turn. What is wrong, if anything, shows when it comes again.
                    connection.output.append(data)
                    connection.sent(max(sent_bytes, 0))
                    others.append(connection)
        return others

    def _send(self, connection: SocketConnection) -> None:
        """Send some or all of the output."""
        output = connection.output
        try:
            if len(output) == 1:
                sent_bytes = connection.send(output[0])
            elif not output:
                sent_bytes = 0
            elif connection.unsent_bytes <= JOINED_BYTES_MAX:
                sent_bytes = connection.send(b"".join(output))
            else:
                sent_bytes = connection.socket.sendmsg(connection.next_output())
        except BlockingIOError:
            sent_bytes = 0
        except OSError:
            self._drop(connection)
            return
        connection.sent(sent_bytes)
        if output or connection.mask != READABLE:
            if sent_bytes or connection.mask & WRITABLE == 0:
                connection.stalled_at = self._now
            self._settle(connection)
        elif connection.closing:
            self._settle(connection)
        if connection.blocked:
            self._resume(connection)

    # Going on

    def _resume(self, connection: SocketConnection) -> None:
        """Have a blocked connection gather again soon."""
        self._resumable[connection] = None
        self._resume_wanted.set()

    async def _serve_resumable(self) -> None:
        """Take up blocked connections, as a task."""
        while True:
            await self._resume_wanted.wait()
            self._resume_wanted = trio.Event()
            connections, self._resumable = self._resumable, {}
            gathering = self._gathering
            gathering.start()
            again: list[SocketConnection] = []
            for connection in connections:
                if gathering.requests > PASS_REQUESTS:
                    self._resume(connection)
                elif not connection.lost:
                    connection.active_at = self._now
                    if connection.gather(gathering):
                        again.append(connection)
                    self._settle(connection)
            for connection in again:
                self._resume(connection)
            gathering.submit()
            self.flush()

    # Beginning and end of connections

    def _start_accepting(self) -> None:
        if self._stopping:
            return
        for fd in self._listeners:
            self._poller.register(fd, READABLE)
        self._accepting = True

    def _stop_accepting(self) -> None:
        if self._accepting:
            for fd in self._listeners:
                self._poller.unregister(fd)
        self._accepting = False

    async def _accept_again(self) -> None:
        """Go on accepting a while after the system ran out of something, as a task."""
        while True:
            await self._accept_paused.wait()
            self._accept_paused = trio.Event()
            await trio.sleep(ACCEPT_PAUSE_SECONDS)
            self._start_accepting()

    def _accept(self, fd: int) -> None:
        """Accept what waits at a listener, if it is one's descriptor (a connection's may be gone since the poll)."""
        listener = self._listeners.get(fd)
        if listener is None or not self._accepting:
            return
        for _ in range(ACCEPTS_PER_PASS):
            try:
                client, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _OUT_OF_RESOURCES:
                    _log.warning("no connection accepted for a moment", error=str(error))
                    self._stop_accepting()
                    self._accept_paused.set()
                    return
                continue  # The client gave up before it was accepted.
            self._welcome(client)

    def _welcome(self, client: socket.socket) -> None:
        client.setblocking(False)
        if len(self._connections) >= self._limits.max_connections:
            self._refuse(client)
            return
        self._refuses_clients = False
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:  # The client has gone, or this is no TCP socket; either shows by itself.
            pass
        send_unpaced_if_within(client)
        connection = SocketConnection(client, self._touched, self._limits.max_file_bytes, self._now)
        self._connections[connection.fd] = connection
        self._poller.register(connection.fd, READABLE)

    def _refuse(self, client: socket.socket) -> None:
        if not self._refuses_clients:
            self._refuses_clients = True
            _log.warning("too many connections; further ones are refused", connections=len(self._connections))
        with client:
            try:
                client.send(TOO_MANY_CONNECTIONS)
            except OSError:  # It has gone already.
                pass

    def _end(self, connection: SocketConnection) -> None:
        """End a connection that is finished."""
        if connection.ended or self._stopping:
            self._drop(connection)
        elif not connection.linger_until:
            connection.linger_until = self._now + LINGER_SECONDS
            try:
                connection.socket.shutdown(socket.SHUT_WR)
            except OSError:
                self._drop(connection)

    def _drop(self, connection: SocketConnection) -> None:
        """Close the socket and forget the connection."""
        connection.lose()
        self._poller.unregister(connection.fd)
        del self._connections[connection.fd]
        connection.socket.close()
        if not self._connections:
            self._emptied.set()

    def _close_everything(self) -> None:
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._stop_accepting()
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        if self._joint_sends is not None:
            self._joint_sends.close()

    # Timeouts

    async def _watch_time(self) -> None:
        """Close connections that make no progress, as a task."""
        while True:
            await trio.sleep(self._limits.watch_seconds)
            self._now = trio.current_time()
            for connection in list(self._connections.values()):
                overdue = self._is_overdue(connection, self._now)
                if overdue or (connection.linger_until and self._now >= connection.linger_until):
                    self._drop(connection)
