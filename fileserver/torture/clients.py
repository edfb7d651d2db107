"""The clients: each asks one thing at a time, through one server after the other, and all of it is written down.

Theory of operation: an operation is called the instant before its first byte is sent and returns the instant after its
reply has come as a whole. Whether a change was made whose reply didn't come can't be known; it stays open, and its
client goes on under another number. What could not be sent at all, since nobody accepts the connection, was not asked.

A pacer hands out permissions at a steady rate. What couldn't be done while the cluster stood still is made up for
later, so that the rate over the whole run is what was asked for, as far as the cluster can.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence

import attrs
import trio

from fileserver.config import Address
from fileserver.linearizability.history import Action, Operation, Outcome, Refused
from fileserver.torture.wire import Nonsense, ReplyBuffer, encode, outcome_of
from fileserver.torture.workload import Workload

REPLY_SECONDS = 2.5
"""A client that waits longer gives up, and its change's outcome is unknown."""
CONNECT_SECONDS = 1.0
BACK_OFF_SECONDS = 0.05
OPERATIONS_A_STAY = 150
"""After so many a client goes to the next server, so that each has its turn with each."""
_RECEIVE_BYTES = 64 * 1024


def now_us() -> int:
    """The one clock of a history: this process's monotonic time."""
    return round(trio.current_time() * 1e6)


@attrs.define(slots=True, eq=False)
class Record:
    """All that clients saw."""

    operations: list[Operation] = attrs.Factory(list)
    counts: Counter[tuple[str, str]] = attrs.Factory(Counter)
    """How often each kind of request had each kind of outcome."""
    nonsense: list[str] = attrs.Factory(list)
    """Replies that no request can have."""
    unreached: int = 0
    """How often no server could be connected to."""
    by_server: Counter[int] = attrs.Factory(Counter)
    """Operations that got a reply, by the position of the server that gave it."""
    numbers: itertools.count[int] = attrs.Factory(lambda: itertools.count(1))
    """For clients."""

    def add(self, operation: Operation) -> None:
        """Keep an operation."""
        self.operations.append(operation)
        outcome = "unknown" if operation.outcome is None else type(operation.outcome).__name__.lower()
        self.counts[type(operation.action).__name__.lower(), outcome] += 1

    @property
    def answered(self) -> int:
        """How many requests got a reply that says what became of them, and weren't refused."""
        return sum(count for (_, outcome), count in self.counts.items() if outcome not in {"unknown", "refused"})

    @property
    def unknown(self) -> int:
        """How many outcomes are unknown."""
        return sum(count for (_, outcome), count in self.counts.items() if outcome == "unknown")


class Pacer:
    """Lets so many operations a second begin, and more after a time in which fewer could."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._started_at = trio.current_time()
        self._given = 0

    async def permission(self) -> None:
        """Wait until the next operation may begin."""
        due_at = self._started_at + self._given / self._rate
        self._given += 1
        if due_at > trio.current_time():
            await trio.sleep_until(due_at)

    def give_back(self) -> None:
        """Let another operation begin in the place of one that came to nothing."""
        self._given -= 1


class _Lost(Exception):
    """The connection can't be used any more."""


class Connection:
    """One connection to one server, for one request at a time."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = ReplyBuffer()

    async def ask(self, file: str, action: Action) -> Outcome | None:
        """Send a request and take its reply; None if what became of it is unknown.

        Raises:
            _Lost: no reply came, and none will.
            Nonsense: the reply makes no sense.
        """
        try:
            await self._stream.send_all(encode(file, action))
            while (reply := self._buffer.next()) is None:
                piece = await self._stream.receive_some(_RECEIVE_BYTES)
                if not piece:
                    raise _Lost
                self._buffer.feed(bytes(piece))
        except (OSError, trio.BrokenResourceError) as error:
            raise _Lost from error
        return outcome_of(action, reply)


class Client:
    """One client, which goes from server to server."""

    def __init__(self, record: Record, servers: Sequence[Address], first: int) -> None:
        """``first`` is the position of the server to begin with."""
        self._record = record
        self._servers = servers
        self._position = first % len(servers)
        self._number = next(record.numbers)

    async def work(self, workload: Workload, pacer: Pacer, is_over: Callable[[], bool]) -> None:
        """Ask what the workload draws until told that it is over; a request under way is waited for."""
        while not is_over():
            address = self._servers[self._position]
            stream = await connect(address)
            if stream is None:
                self._record.unreached += 1
                await trio.sleep(BACK_OFF_SECONDS)
            else:
                try:
                    await self._stay(stream, workload, pacer, is_over)
                finally:
                    await trio.aclose_forcefully(stream)
            self._position = (self._position + 1) % len(self._servers)

    async def _stay(
        self, stream: trio.SocketStream, workload: Workload, pacer: Pacer, is_over: Callable[[], bool]
    ) -> None:
        """Ask one server, until something is wrong with it or for a while."""
        connection = Connection(stream)
        for _ in range(OPERATIONS_A_STAY):
            await pacer.permission()
            if is_over():
                return
            file, action = workload.draw()
            operation = await self.perform(connection, file, action)
            workload.note(operation)
            if operation.outcome is None:
                pacer.give_back()
                return
            if isinstance(operation.outcome, Refused):
                pacer.give_back()
                await trio.sleep(BACK_OFF_SECONDS)
                return

    async def perform(self, connection: Connection, file: str, action: Action) -> Operation:
        """Ask one thing and write it down."""
        outcome: Outcome | None = None
        called_us = now_us()
        with trio.move_on_after(REPLY_SECONDS):
            try:
                outcome = await connection.ask(file, action)
            except _Lost:
                pass
            except Nonsense as error:
                self._record.nonsense.append(f"{file}: {error}")
        if outcome is None:
            operation = Operation(self._number, file, action, called_us)
            self._number = next(self._record.numbers)
        else:
            operation = Operation(self._number, file, action, called_us, now_us(), outcome)
            self._record.by_server[self._position] += 1
        self._record.add(operation)
        return operation


async def connect(address: Address) -> trio.SocketStream | None:
    """A connection, or None if there is none to be had soon."""
    with trio.move_on_after(CONNECT_SECONDS):
        try:
            return await trio.open_tcp_stream(address.host, address.port)
        except OSError:
            return None
    return None
