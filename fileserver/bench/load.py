"""The load generator: so many clients at a time, each with so many requests in flight, in one thread.

Theory of operation: a closed loop. Each client keeps a fixed number of requests under way, and sends the next one when
a reply has come; so the system under test sets the pace, and a latency is the time from sending a request to having
read its whole reply. One selector serves all clients, as this process must take as little as can be of the cores that
it shares with what it measures. Requests are made beforehand, and replies are looked at no more than is needed to
count them.
"""

from __future__ import annotations

import enum
import random
import selectors
import socket
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle

import attrs

from fileserver.config import Address

READ_PERCENT_MIXED = 80
CONNECT_SECONDS = 5.0
_RECEIVE_BYTES = 256 * 1024
_SELECT_SECONDS = 0.1
_PREPARED_BYTES = 64 * 1024 * 1024
_PREPARED_REQUESTS_MIN = 4
_PREPARED_REQUESTS_MAX = 65_536


class Kind(enum.Enum):
    """What the clients do."""

    WRITE = "write"
    READ = "read"
    MIXED = "mixed"


@attrs.frozen(slots=True, kw_only=True)
class Load:
    """How to load a cluster."""

    servers: tuple[Address, ...]
    """The clients are spread over them evenly."""
    kind: Kind = Kind.WRITE
    clients: int = 64
    in_flight: int = 1
    """Requests of each client that are under way at a time."""
    size_bytes: int = 256
    files: int = 10_000
    """How many different files are written or read, chosen at random."""
    seconds: float = 10.0
    seed: int = 1


@attrs.define(slots=True)
class Outcome:
    """What came of a load."""

    seconds: float = 0.0
    latencies_us: dict[str, array[int]] = attrs.field(factory=lambda: {"write": array("L"), "read": array("L")})
    """By kind of request, in the order of the replies."""
    errors: Counter[str] = attrs.field(factory=Counter)
    """By the reply's first word, or by what happened to a connection."""

    @property
    def operations(self) -> int:
        """How many requests were answered as they should be."""
        return sum(len(each) for each in self.latencies_us.values())


Progress = Callable[[float, int], None]
"""Is given the seconds since the beginning and the operations so far, about ten times a second."""


def fill(load: Load) -> Outcome:
    """Write every file of the load once, so that reads find them."""
    content = _content(load)
    requests = (("write", _write_request(number, content)) for number in range(load.files))
    filling = attrs.evolve(load, clients=min(load.clients, 16), in_flight=16, seconds=float("inf"))
    return _Generator(filling, requests, lambda _seconds, _operations: None).run()


def run(load: Load, progress: Progress) -> Outcome:
    """Load the servers for the time given; every request then under way is waited for.

    Raises:
        OSError: a client can't connect.
    """
    return _Generator(load, cycle(list(_prepared(load))), progress).run()


def _prepared(load: Load) -> Iterator[tuple[str, bytes]]:
    """Requests to go round and round with, in a random order that is the same in each run."""
    random_source = random.Random(load.seed)
    content = _content(load)
    count = min(max(_PREPARED_BYTES // (len(content) + 64), _PREPARED_REQUESTS_MIN), _PREPARED_REQUESTS_MAX)
    for _ in range(count):
        number = random_source.randrange(load.files)
        if load.kind is Kind.READ or (load.kind is Kind.MIXED and random_source.randrange(100) < READ_PERCENT_MIXED):
            yield "read", b"read %s\r\n" % _file_name(number)
        else:
            yield "write", _write_request(number, content)


def _file_name(number: int) -> bytes:
    return b"bench/%d" % number


def _content(load: Load) -> bytes:
    """What every file is given; every byte occurs in it, line ends included."""
    return (bytes(range(256)) * (load.size_bytes // 256 + 1))[: load.size_bytes]


def _write_request(number: int, content: bytes) -> bytes:
    return b"write %s %d\r\n%s\r\n" % (_file_name(number), len(content), content)


class _Connection:
    """One client: its socket, what it has yet to send, and what it waits for."""

    __slots__ = ("received", "socket", "unsent", "waiting")

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.unsent = b""
        self.received = b""
        self.waiting: deque[tuple[str, int]] = deque()
        """For each request under way its kind and when it was sent, in nanoseconds."""


class _Generator:
    """One run of a load."""

    def __init__(self, load: Load, requests: Iterable[tuple[str, bytes]], progress: Progress) -> None:
        self._load = load
        self._requests = iter(requests)
        self._progress = progress
        self._selector = selectors.DefaultSelector()
        self._outcome = Outcome()
        self._under_way = 0
        self._is_over = False

    def run(self) -> Outcome:
        """Connect, load, wait for what is under way, close."""
        connections = connect_all(self._load.servers, self._load.clients)
        started_at = time.monotonic()
        try:
            for connection in connections:
                self._selector.register(connection.socket, selectors.EVENT_READ, connection)
                self._send(connection, self._load.in_flight)
            self._loop(started_at)
        finally:
            for connection in connections:
                connection.socket.close()
            self._selector.close()
        self._outcome.seconds = time.monotonic() - started_at
        return self._outcome

    def _loop(self, started_at: float) -> None:
        ends_at = started_at + self._load.seconds
        progress_at = started_at
        while self._under_way:
            for key, events in self._selector.select(_SELECT_SECONDS):
                connection: _Connection = key.data
                if events & selectors.EVENT_WRITE:
                    self._flush(connection)
                if events & selectors.EVENT_READ:
                    self._receive(connection)
            now = time.monotonic()
            if now >= ends_at:
                self._is_over = True
            if now >= progress_at:
                self._progress(now - started_at, self._outcome.operations)
                progress_at = now + _SELECT_SECONDS

    def _send(self, connection: _Connection, count: int) -> None:
        """Send so many further requests, unless the time is over or there are no more."""
        requests = []
        if not self._is_over:
            now_ns = time.monotonic_ns()
            for _ in range(count):
                request = next(self._requests, None)
                if request is None:
                    self._is_over = True
                    break
                kind, data = request
                requests.append(data)
                connection.waiting.append((kind, now_ns))
        if requests:
            self._under_way += len(requests)
            connection.unsent += requests[0] if len(requests) == 1 else b"".join(requests)
            self._flush(connection)

    def _flush(self, connection: _Connection) -> None:
        """Send what the socket takes; be told when it takes more."""
        had_to_wait = self._selector.get_key(connection.socket).events & selectors.EVENT_WRITE
        try:
            sent = connection.socket.send(connection.unsent)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._lose(connection, error.strerror or str(error))
            return
        connection.unsent = connection.unsent[sent:]
        if bool(connection.unsent) != bool(had_to_wait):
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.unsent else 0)
            self._selector.modify(connection.socket, events, connection)

    def _receive(self, connection: _Connection) -> None:
        """Take the replies that have come, and send as many requests."""
        try:
            chunk = connection.socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(connection, error.strerror or str(error))
            return
        if not chunk:
            self._lose(connection, "closed by the server")
            return
        data = connection.received + chunk if connection.received else chunk
        position = 0
        answered = 0
        now_ns = time.monotonic_ns()
        while connection.waiting and (end := end_of_reply(data, position)):
            kind, sent_ns = connection.waiting.popleft()
            if data.startswith(b"ERR_", position):
                self._outcome.errors[data[position:end].split(None, 1)[0].decode("ascii", "replace")] += 1
            else:
                self._outcome.latencies_us[kind].append((now_ns - sent_ns) // 1000)
            position = end
            answered += 1
        connection.received = data[position:]
        self._under_way -= answered
        self._send(connection, answered)

    def _lose(self, connection: _Connection, why: str) -> None:
        """Go on without a client whose connection has ended."""
        if connection.socket.fileno() < 0:
            return
        self._selector.unregister(connection.socket)
        connection.socket.close()
        self._outcome.errors[f"connection lost: {why}"] += 1
        self._under_way -= len(connection.waiting)
        connection.waiting.clear()


def connect_all(servers: Sequence[Address], count: int) -> list[_Connection]:
    """So many connections, spread over the servers in turn.

    Raises:
        OSError: one can't be made; the text names its server. None is left open.
    """
    connections: list[_Connection] = []
    try:
        for number in range(count):
            address = servers[number % len(servers)]
            try:
                connected = socket.create_connection((address.host, address.port), timeout=CONNECT_SECONDS)
            except OSError as error:
                raise OSError(error.errno, f"{address}: {error.strerror or error}") from error
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setblocking(False)
            connections.append(_Connection(connected))
    except OSError:
        for connection in connections:
            connection.socket.close()
        raise
    return connections


def end_of_reply(data: bytes, start: int) -> int:
    """Where the reply that begins at ``start`` ends, or 0 if it has not all come yet."""
    line_end = data.find(b"\n", start)
    if line_end < 0:
        return 0
    if not data.startswith(b"CONTENTS ", start):
        return line_end + 1
    size_bytes = int(data[start:line_end].split()[2])
    end = line_end + 1 + size_bytes + 2
    return end if end <= len(data) else 0
