"""Clients: each asks one thing at a time, or a few in a row, of one server, and moves on when that fails it.

They speak the line protocol to the product's own connections. What a client gave up on, or lost with its connection, is
of unknown outcome; it never asks for the same again, so every content stays unique.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import TYPE_CHECKING

import attrs

from fileserver.commands import ANY_VERSION, APPEND, CAS, DELETE, KEEP_EXPTIME, TOUCH, WRITE
from fileserver.connection import Connection
from fileserver.requests import READ, STAT
from fileserver.simulation.oracle import Request, Violation

if TYPE_CHECKING:
    from fileserver.simulation.server import SimulatedServer
    from fileserver.simulation.world import World

LATENCY_US = (50, 500)
"""Between a client and a server, one way."""
WORDS = {READ: b"read", STAT: b"stat", WRITE: b"write", CAS: b"cas", DELETE: b"delete", APPEND: b"append"}
_OPERATIONS = (READ, STAT, WRITE, CAS, DELETE, APPEND, TOUCH)


@attrs.frozen(slots=True)
class Load:
    """What clients do; drawn for each run."""

    clients: int
    think_us: int
    """The longest pause between two requests."""
    patience_us: int
    files: int
    weights: tuple[int, ...]
    """How often each of read, stat, write, cas, delete, append, touch is asked for."""
    expires: float
    """How many of the writes have an expiry."""
    pipelined: float
    """How often a few requests are sent in a row."""
    big: float
    """How many contents are too big for one entry."""

    @classmethod
    def draw(cls, dice: Random) -> Load:
        """Some kind of load."""
        return cls(
            clients=dice.randint(2, 6),
            think_us=dice.choice((300_000, 1_500_000, 4_000_000)),
            patience_us=dice.choice((1_000_000, 4_000_000, 20_000_000)),
            files=dice.choice((1, 3, 10)),
            weights=tuple(dice.randint(1, 6) for _ in _OPERATIONS),
            expires=dice.choice((0.0, 0.2, 0.5)),
            pipelined=dice.choice((0.0, 0.2)),
            big=dice.choice((0.0, 0.0, 0.01)),
        )


class SimulatedClient:
    """See the module's docstring."""

    def __init__(self, world: World, number: int) -> None:
        """Not asking anything yet."""
        self._world = world
        self._number = number
        self._dice = Random(f"client {world.seed} {number}")
        self._server: SimulatedServer | None = None
        self._connection: Connection | None = None
        self._waiting: deque[Request] = deque()
        self._received = b""
        self._asked = 0
        self._round = 0
        """Counts groups of requests, so that a timeout knows whether its own is still waited for."""
        self._link = 0
        """Counts connections, so that what comes from an earlier one is known."""
        self._versions: dict[bytes, int] = {}
        """The last versions seen, for cas and delete."""
        self._thinks = False
        self.stopped = False

    @property
    def is_idle(self) -> bool:
        """Whether it waits for nothing."""
        return not self._waiting

    def think(self) -> None:
        """Ask the next thing after a while."""
        if not (self.stopped or self._thinks):
            self._thinks = True
            self._world.loop.after(self._dice.randrange(self._world.think_us) + 1, self._ask)

    def _ask(self) -> None:
        self._thinks = False
        if self.stopped:
            return
        if self._connection is None and not self._connect():
            self.think()
            return
        count = self._dice.randint(2, 4) if self._dice.random() < self._world.load.pipelined else 1
        requests = [self._draw_request() for _ in range(count)]
        self._round += 1
        current_round = self._round
        connection, server = self._connection, self._server
        assert connection is not None, "connected above"
        assert server is not None, "connected above"
        data = b""
        for request in requests:
            self._world.asks(request, server)
            self._waiting.append(request)
            data += encode(request)
        boots = server.boots
        loop = self._world.loop
        self._world.note("asks", self._number, data[:80])

        def arrive() -> None:
            if server.up and server.boots == boots:
                server.soon(lambda: server.receive_from_client(connection, data))

        loop.after(self._dice.randint(*LATENCY_US), arrive)
        loop.after(self._world.load.patience_us, lambda: self._run_out_of_patience(current_round))

    def _connect(self) -> bool:
        up = [server for server in self._world.servers.values() if server.up]
        if not up:
            return False
        self._server = self._dice.choice(up)
        self._link = link = self._link + 1
        self._connection = self._server.connect(lambda data: self._take(link, data))
        self._received = b""
        return True

    def _run_out_of_patience(self, asked_round: int) -> None:
        if self._waiting and self._round == asked_round:
            server, connection = self._server, self._connection
            if server is not None and connection is not None and server.up:
                server.disconnect(connection)
            self._lose_connection()

    def _lose_connection(self) -> None:
        """What was asked for may come about or not; nobody will know."""
        for request in self._waiting:
            self._world.never_answered(request)
        self._waiting.clear()
        self._server = self._connection = None
        self._link += 1
        self.think()

    def _take(self, link: int, data: bytes) -> None:
        """Replies have come, or with no data the end of the connection."""
        if link != self._link:
            return
        if not data:
            self._lose_connection()
            return
        self._received += data
        was_waiting = bool(self._waiting)
        while self._waiting:
            reply, rest = split_reply(self._received)
            if reply is None:
                return
            self._received = rest
            self._judge(self._waiting.popleft(), reply)
        if self._received:
            raise Violation(f"a reply that nobody asked for: {self._received!r}")
        if was_waiting:
            self.think()

    # What is asked

    def _draw_request(self) -> Request:
        world, dice = self._world, self._dice
        load = world.load
        operation = dice.choices(_OPERATIONS, load.weights)[0]
        name = b"file-%d" % dice.randrange(load.files)
        self._asked += 1
        argument = exptime = 0
        content = b""
        if operation in (WRITE, CAS, APPEND):
            content = b"%d.%d;" % (self._number, self._asked)
            if dice.random() < load.big:
                content += b"x" * dice.randrange(140_000, 300_000)
            if dice.random() < load.expires:
                exptime = dice.randint(1, 8)
        if operation == CAS:
            argument = self._versions.get(name, 0) if dice.random() < 0.8 else dice.randrange(3)
        elif operation == DELETE:
            argument = self._versions.get(name, ANY_VERSION) if dice.random() < 0.5 else ANY_VERSION
        elif operation == APPEND:
            argument = world.config.max_file_bytes
            exptime = exptime or KEEP_EXPTIME
        elif operation == TOUCH:
            exptime = dice.randint(0, 8)
        return Request(
            self._number, operation, name, argument, exptime, content, world.loop.now_us, world.oracle.known_index
        )

    # What comes of it

    def _judge(self, request: Request, reply: bytes) -> None:
        oracle = self._world.oracle
        line, _, content = reply.partition(b"\r\n")
        word, *fields = line.split(b" ")
        self._world.note("told", self._number, line)
        self._world.record(request, line, content)
        if word == b"OK":
            version = int(fields[0]) if fields else 0
            self._versions[request.name] = version
            oracle.changed(request, version, None)
        elif word == b"ERR_VERSION":
            self._versions[request.name] = int(fields[0])
            oracle.changed(request, None, int(fields[0]))
        elif word == b"ERR_FILE_NOT_FOUND":
            self._versions.pop(request.name, None)
            if request.operation in (READ, STAT):
                oracle.saw_none(request)
            else:
                oracle.changed(request, None, None)
        elif word in (b"CONTENTS", b"STAT"):
            version, size, exptime = map(int, fields)
            self._versions[request.name] = version
            oracle.saw(request, version, size, exptime, content[:-2] if word == b"CONTENTS" else None)
        elif word == b"ERR_BUSY" or (word == b"ERR_INTERNAL" and fields[:2] == [b"not", b"applied:"]):
            oracle.refused(request)
        elif word != b"ERR_INTERNAL" or fields[:2] != [b"outcome", b"unknown:"]:
            raise Violation(f"a reply that isn't one: {line!r} to {request}")
        else:
            self._world.unknown += 1


def encode(request: Request) -> bytes:
    """The request as a client sends it."""
    name, content = request.name, request.content
    operation = request.operation
    if operation in (READ, STAT):
        return b"%b %b\r\n" % (WORDS[operation], name)
    if operation == DELETE:
        version = b"" if request.argument == ANY_VERSION else b" %d" % request.argument
        return b"delete %b%b\r\n" % (name, version)
    if operation == TOUCH:
        return b"touch %b %d\r\n" % (name, request.exptime)
    version = b" %d" % request.argument if operation == CAS else b""
    exptime = b"" if request.exptime == KEEP_EXPTIME else b" %d" % request.exptime
    return b"%b %b%b %d%b\r\n%b\r\n" % (WORDS[operation], name, version, len(content), exptime, content)


def split_reply(data: bytes) -> tuple[bytes | None, bytes]:
    """The first reply, once it is whole, and the rest."""
    line, end, rest = data.partition(b"\r\n")
    if not end:
        return None, data
    if not line.startswith(b"CONTENTS "):
        return line + end, rest
    size = int(line.split(b" ")[2]) + 2
    if len(rest) < size:
        return None, data
    return line + end + rest[:size], rest[size:]
