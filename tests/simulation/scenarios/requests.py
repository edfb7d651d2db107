"""What scenarios ask of servers: changes and reads of the line protocol, asked at one server, waited for or not.

A :class:`Want` says what; an :class:`Asker` is a client that asks it and has the oracle judge the reply; an
:class:`Ask` is what has come of it so far. Contents that are left out are made up, each another, as the oracle needs
them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs

from fileserver.commands import ANY_VERSION, APPEND, CAS, DELETE, KEEP_EXPTIME, TOUCH, WRITE
from fileserver.requests import READ, STAT
from fileserver.simulation.clients import SimulatedClient, encode
from fileserver.simulation.oracle import Request

if TYPE_CHECKING:
    from fileserver.simulation.server import SimulatedServer
    from fileserver.simulation.world import World

LATENCY_US = 100
"""From a client to its server."""
PIECE_GAP_US = 50
"""Between the pieces of a request that comes in pieces."""


@attrs.frozen(slots=True)
class Want:
    """One request; see the functions below."""

    operation: int
    name: bytes
    argument: int = 0
    exptime: int = 0
    content: bytes | None = None
    """None where there is none, or where any will do."""


def write(name: bytes, content: bytes | None = None, exptime: int = 0) -> Want:
    """``write``, with an expiry in seconds or 0 for none."""
    return Want(WRITE, name, 0, exptime, content)


def cas(name: bytes, version: int, content: bytes | None = None) -> Want:
    """``cas`` from that version."""
    return Want(CAS, name, version, 0, content)


def append(name: bytes, content: bytes | None = None) -> Want:
    """``append`` that leaves the expiry alone."""
    return Want(APPEND, name, 0, KEEP_EXPTIME, content)


def delete(name: bytes, version: int = ANY_VERSION) -> Want:
    """``delete``, of any version if none is named."""
    return Want(DELETE, name, version)


def touch(name: bytes, exptime: int) -> Want:
    """``touch``: another expiry, in seconds."""
    return Want(TOUCH, name, 0, exptime)


def read(name: bytes) -> Want:
    """``read``."""
    return Want(READ, name)


def stat(name: bytes) -> Want:
    """``stat``."""
    return Want(STAT, name)


@attrs.frozen(slots=True)
class Reply:
    """What a server said."""

    line: bytes
    content: bytes
    """Of the file, without the line end."""

    @property
    def word(self) -> str:
        """The first word."""
        return self.line.split(b" ")[0].decode()

    @property
    def version(self) -> int:
        """The first number."""
        return int(self.line.split(b" ")[1])

    @property
    def ok(self) -> bool:
        """Whether it was carried out."""
        return self.word in {"OK", "CONTENTS", "STAT"}


@attrs.define(slots=True, eq=False)
class Ask:
    """Requests that were sent together, and their replies."""

    count: int
    contents: tuple[bytes, ...]
    """What was sent, by request; empty for those without a content."""
    done: Callable[[Ask], None]
    replies: list[Reply] = attrs.field(factory=list)
    lost: bool = False
    """The connection is gone before all replies came: what became of the others isn't known."""

    @property
    def is_done(self) -> bool:
        """Whether nothing more will come."""
        return self.lost or len(self.replies) == self.count

    @property
    def ok(self) -> bool:
        """Whether all was carried out."""
        return len(self.replies) == self.count and all(reply.ok for reply in self.replies)

    @property
    def reply(self) -> Reply:
        """The reply to the only request."""
        assert self.count == 1, "several requests"
        assert self.replies, "no reply has come"
        return self.replies[0]


def nothing(_ask: Ask) -> None:
    """Do nothing."""


class Asker(SimulatedClient):
    """A client of one server that asks what it is told, and nothing by itself."""

    def __init__(self, world: World, number: int, server: SimulatedServer) -> None:
        """Not connected yet."""
        super().__init__(world, number)
        self.server = server
        self._boots = 0
        self._pending: Ask | None = None

    def think(self) -> None:
        """Nothing: the scenario does."""

    @property
    def is_free(self) -> bool:
        """Whether it can be asked to ask."""
        return self._pending is None

    def ask(
        self,
        wants: Sequence[Want],
        patience_us: int,
        pieces: int = 1,
        done: Callable[[Ask], None] = nothing,
    ) -> Ask:
        """Send requests in one piece, or cut into several; the connection is dropped after ``patience_us``."""
        world, server = self._world, self.server
        assert self.is_free, "one group of requests at a time"
        requests = [self._request(want) for want in wants]
        ask = self._pending = Ask(len(requests), tuple(request.content for request in requests), done)
        if not server.up:
            self._end(ask)
            return ask
        if self._connection is None or self._boots != server.boots:
            self._link = link = self._link + 1
            self._connection = server.connect(lambda data: self._take(link, data))
            self._server, self._boots, self._received = server, server.boots, b""
        self._round += 1
        current_round = self._round
        for request in requests:
            world.asks(request, server)
            self._waiting.append(request)
        data = b"".join(map(encode, requests))
        world.note("asks", self._number, data[:80])
        size = -(-len(data) // pieces)
        for number, begin in enumerate(range(0, len(data), size)):
            self._send_later(data[begin : begin + size], LATENCY_US + number * PIECE_GAP_US)
        world.loop.after(patience_us, lambda: self._run_out_of_patience(current_round))
        return ask

    def _send_later(self, data: bytes, delay_us: int) -> None:
        server, boots, connection = self.server, self.server.boots, self._connection
        assert connection is not None, "connected by now"

        def arrive() -> None:
            if server.up and server.boots == boots:
                server.soon(lambda: server.receive_from_client(connection, data))

        self._world.loop.after(delay_us, arrive)

    def _request(self, want: Want) -> Request:
        world = self._world
        self._asked += 1
        content = want.content or b""
        if want.content is None and want.operation in (WRITE, CAS, APPEND):
            content = b"%d.%d;" % (self._number, self._asked)
        argument = world.config.max_file_bytes if want.operation == APPEND else want.argument
        return Request(
            self._number,
            want.operation,
            want.name,
            argument,
            want.exptime,
            content,
            world.loop.now_us,
            world.oracle.known_index,
        )

    def _judge(self, request: Request, reply: bytes) -> None:
        super()._judge(request, reply)
        ask = self._pending
        assert ask is not None, "a reply to something"
        line, _, content = reply.partition(b"\r\n")
        ask.replies.append(Reply(line, content[:-2]))
        if ask.is_done:
            self._end(ask)

    def _lose_connection(self) -> None:
        super()._lose_connection()
        if self._pending is not None:
            self._end(self._pending)

    def _end(self, ask: Ask) -> None:
        ask.lost = len(ask.replies) < ask.count
        self._pending = None
        ask.done(ask)
