"""A network in memory, on Trio's clock, with faults on demand: for tests, also of whole clusters.

Theory of operation. A server is a named host; the names are what its peers' addresses have for a host. Every link is
two pipes, one each way. What is sent into a pipe gets a time of arrival, never before that of what was sent earlier,
and is readable from then on. There are no tasks: a reader waits for the earliest arrival or for a change, whichever is
first. So under :class:`trio.testing.MockClock` a cluster runs as fast as it can.

Faults are set for a direction from one host to another, and hold for links that exist and those to come:

* cut: nothing arrives any more. As with TCP nothing is lost yet either: it arrives after ``heal``. Dialling fails while
  either direction is cut.
* delay: each piece that is sent takes a random time, without overtaking.
* loss: single messages vanish. Real TCP does nothing of the kind; it stands for all that a message can fall victim to
  above it. A pipe knows messages by their frames (:mod:`raftnode.frames`); its first one, the hello, is spared.
* ``reset`` breaks the links that exist: both sides get ConnectionResetError.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from math import inf
from random import Random
from typing import Any

import attrs
import trio

from raftnode.buffers import Chunk
from raftnode.frames import FRAME_BYTES_MAX, HEAD_BYTES, parse_head
from raftnode.links import Address, Link, serve_as_they_come

PIPE_BYTES_MAX = 4 * 1024 * 1024
"""How many bytes may be under way in one direction of a link."""


@attrs.define(slots=True)
class _Direction:
    """How it goes from one host to another."""

    delay_min_us: int = 0
    delay_max_us: int = 0
    loss: float = 0.0
    """The probability that a message vanishes."""
    is_cut: bool = False


@attrs.define(slots=True, eq=False)
class _Pipe:
    """One direction of one link. Invariant: the times of arrival in ``chunks`` never decrease."""

    direction: _Direction
    random: Random
    chunks: deque[tuple[float, bytes]] = attrs.Factory(deque)
    """Arrival, in Trio's seconds, and what arrives; ``b""`` is the end. Infinite while the direction is cut."""
    size_bytes: int = 0
    """Of all chunks, and of the incomplete frame."""
    incomplete: bytes = b""
    """The beginning of a frame that the sender has not given all of yet."""
    frames_count: int = 0
    vanishing: dict[int, bool] = attrs.Factory(dict)
    """For each channel in mid-message: whether the rest of it vanishes too."""
    is_reset: bool = False
    readers: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)
    writers: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)
    poller: MemoryPoller | None = None

    @property
    def is_finished(self) -> bool:
        """Nothing more will be sent on it, and all but the end has been read."""
        return self.is_reset or (len(self.chunks) == 1 and not self.chunks[0][1])

    def next_arrival(self) -> float:
        """When there is something to read, in Trio's seconds."""
        if self.is_reset:
            return -inf
        return self.chunks[0][0] if self.chunks else inf

    def wake_reader(self) -> None:
        """Its next arrival may have changed."""
        self.readers.unpark_all()
        if self.poller is not None:
            self.poller.changed.unpark_all()

    def put(self, data: bytes) -> None:
        """Takes bytes that were sent, and hands on the whole frames among them."""
        self.size_bytes += len(data)
        data = self.incomplete + data
        offset = 0
        while len(data) - offset >= HEAD_BYTES:
            piece_bytes, channel, more = parse_head(data, offset)
            if piece_bytes > FRAME_BYTES_MAX:  # no frame: a test sends garbage
                self.put_chunk(data[offset:])
                offset = len(data)
                break
            stop = offset + HEAD_BYTES + piece_bytes
            if stop > len(data):
                break
            self._put_frame(data[offset:stop], channel, more=bool(more))
            offset = stop
        self.incomplete = data[offset:]

    def _put_frame(self, data: bytes, channel: int, *, more: bool) -> None:
        vanishes = self.vanishing.pop(channel, None)
        if vanishes is None:
            vanishes = self.frames_count > 0 and self.random.random() < self.direction.loss
        if more:
            self.vanishing[channel] = vanishes
        self.frames_count += 1
        if vanishes:
            self.size_bytes -= len(data)
        else:
            self.put_chunk(data)

    def put_chunk(self, data: bytes) -> None:
        """Sends something on its way as it is."""
        self.chunks.append((self._arrival(), data))
        self.wake_reader()

    def _arrival(self) -> float:
        if self.direction.is_cut:
            return inf
        delay_us = self.random.randint(self.direction.delay_min_us, self.direction.delay_max_us)
        last_arrival = self.chunks[-1][0] if self.chunks else -inf
        return max(last_arrival, trio.current_time() + delay_us / 1e6)

    def hold(self) -> None:
        """What hasn't arrived doesn't, for now."""
        now = trio.current_time()
        self.chunks = deque((arrival if arrival <= now else inf, data) for arrival, data in self.chunks)

    def release(self) -> None:
        """What was held arrives."""
        held = [data for arrival, data in self.chunks if arrival == inf]
        self.chunks = deque((arrival, data) for arrival, data in self.chunks if arrival < inf)
        for data in held:
            self.put_chunk(data)

    def take(self, bytes_max: int) -> bytes | None:
        """What has arrived, at most so much; None if nothing has, nothing at the end."""
        now = trio.current_time()
        taken: list[bytes] = []
        taken_bytes = 0
        while self.chunks and self.chunks[0][0] <= now and taken_bytes < bytes_max:
            arrival, data = self.chunks[0]
            if not data:  # the end, which stays
                return b"".join(taken)
            self.chunks.popleft()
            if taken_bytes + len(data) > bytes_max:
                size_bytes = bytes_max - taken_bytes
                self.chunks.appendleft((arrival, data[size_bytes:]))
                data = data[:size_bytes]
            taken.append(data)
            taken_bytes += len(data)
        if not taken:
            return None
        self.size_bytes -= taken_bytes
        self.writers.unpark_all()
        return b"".join(taken)

    def end(self) -> None:
        """The sender has closed it."""
        if self.incomplete:
            self.put_chunk(self.incomplete)
            self.incomplete = b""
        self.put_chunk(b"")

    def reset(self) -> None:
        """It breaks: nothing more is read or written."""
        self.is_reset = True
        self.chunks.clear()
        self.wake_reader()
        self.writers.unpark_all()


@attrs.define(slots=True, eq=False)
class MemoryLink:
    """One end of a connection in memory."""

    _remote: str
    _incoming: _Pipe
    _outgoing: _Pipe
    _is_closed: bool = False

    @property
    def remote(self) -> str:
        """The other host's name."""
        return self._remote

    @property
    def incoming(self) -> _Pipe:
        """What the other side sends."""
        return self._incoming

    def receive_into(self, room: memoryview) -> int | None:
        """See :class:`raftnode.links.Link`."""
        if self._incoming.is_reset:
            raise ConnectionResetError("reset")
        data = self._incoming.take(len(room))
        if data is None:
            return None
        room[: len(data)] = data
        return len(data)

    def send(self, data: bytes | memoryview) -> int:
        """See :class:`raftnode.links.Link`."""
        pipe = self._outgoing
        if pipe.is_reset or self._is_closed:
            raise ConnectionResetError("reset")
        room_bytes = PIPE_BYTES_MAX - pipe.size_bytes
        if room_bytes <= 0:
            return 0
        accepted = bytes(data[:room_bytes])
        pipe.put(accepted)
        return len(accepted)

    def send_parts(self, parts: Sequence[Chunk]) -> int:
        """See :class:`raftnode.links.Link`."""
        return self.send(b"".join(parts))

    async def wait_readable(self) -> None:
        """See :class:`raftnode.links.Link`."""
        pipe = self._incoming
        await trio.lowlevel.checkpoint()
        while not self._is_closed and (arrival := pipe.next_arrival()) > trio.current_time():
            with trio.move_on_at(arrival):
                await pipe.readers.park()
        self._check_open()

    async def wait_writable(self) -> None:
        """See :class:`raftnode.links.Link`."""
        pipe = self._outgoing
        await trio.lowlevel.checkpoint()
        while not (self._is_closed or pipe.is_reset or pipe.size_bytes < PIPE_BYTES_MAX):
            await pipe.writers.park()
        self._check_open()

    def close(self) -> None:
        """See :class:`raftnode.links.Link`."""
        if self._is_closed:
            return
        self._is_closed = True
        self._outgoing.end()
        self._outgoing.writers.unpark_all()
        self._incoming.readers.unpark_all()

    def _check_open(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError


@attrs.define(slots=True, eq=False)
class MemoryListener:
    """Where links come in to a host in memory."""

    _address: Address
    _waiting: deque[MemoryLink] = attrs.Factory(deque)
    _arrived: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)
    is_closed: bool = False

    @property
    def address(self) -> Address:
        """See :class:`raftnode.links.Listener`."""
        return self._address

    def put(self, link: MemoryLink) -> None:
        """Somebody dials."""
        self._waiting.append(link)
        self._arrived.unpark()

    async def accept(self) -> MemoryLink:
        """See :class:`raftnode.links.Listener`."""
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            await self._arrived.park()
        return self._waiting.popleft()

    def close(self) -> None:
        """See :class:`raftnode.links.Listener`."""
        self.is_closed = True
        while self._waiting:
            self._waiting.popleft().close()


@attrs.define(slots=True, eq=False)
class MemoryPoller:
    """Waits for the earliest arrival on any of its links."""

    changed: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)
    """Where the waiting task is told that an arrival may have become earlier."""
    _tokens: dict[MemoryLink, Any] = attrs.Factory(dict)

    def add(self, link: Link, token: Any) -> None:
        """See :class:`raftnode.links.Poller`."""
        assert isinstance(link, MemoryLink)
        self._tokens[link] = token
        link.incoming.poller = self
        self.changed.unpark_all()

    def remove(self, link: Link) -> None:
        """See :class:`raftnode.links.Poller`."""
        assert isinstance(link, MemoryLink)
        del self._tokens[link]
        link.incoming.poller = None

    async def wait(self) -> list[Any]:
        """See :class:`raftnode.links.Poller`."""
        await trio.lowlevel.checkpoint()
        while True:
            if ready := self.ready_now():
                return ready
            earliest = min((link.incoming.next_arrival() for link in self._tokens), default=inf)
            with trio.move_on_at(earliest):
                await self.changed.park()

    def ready_now(self) -> list[Any]:
        """See :class:`raftnode.links.Poller`."""
        now = trio.current_time()
        return [token for link, token in self._tokens.items() if link.incoming.next_arrival() <= now]

    async def run(self, serve: Callable[[list[Any]], None]) -> None:
        """See :class:`raftnode.links.Poller`."""
        await serve_as_they_come(self, serve)

    def close(self) -> None:
        """See :class:`raftnode.links.Poller`."""
        for link in list(self._tokens):
            self.remove(link)


@attrs.frozen(slots=True, eq=False)
class MemoryHost:
    """The network as one host of it sees it."""

    name: str
    _network: MemoryNetwork

    async def dial(self, address: Address) -> Link:
        """See :class:`raftnode.links.Network`."""
        return await self._network.dial(self.name, address)

    async def listen(self, address: Address) -> MemoryListener:
        """See :class:`raftnode.links.Network`. The address's host has to be this one."""
        await trio.lowlevel.checkpoint()
        return self._network.listen(self.name, address)

    def open_poller(self) -> MemoryPoller:
        """See :class:`raftnode.links.Network`."""
        return MemoryPoller()


@attrs.define(slots=True, eq=False)
class MemoryNetwork:
    """All hosts and all links, and the faults between them. Changes of faults are to be made within Trio."""

    _random: Random
    """For delays and losses."""
    _listeners: dict[Address, MemoryListener] = attrs.Factory(dict)
    _directions: dict[tuple[str, str], _Direction] = attrs.Factory(dict)
    _pipes: dict[tuple[str, str], list[_Pipe]] = attrs.Factory(dict)
    """Those of every direction, finished ones included until the next dial."""
    _everywhere: _Direction = attrs.Factory(_Direction)
    """What holds where nothing else has been said."""

    def host(self, name: str) -> MemoryHost:
        """The network for the server whose address has that host name."""
        return MemoryHost(name, self)

    def set_delay(self, minimum_us: int, maximum_us: int, *hosts: str) -> None:
        """Between the two hosts, or between all when none are named: what is sent from now on takes so long."""
        for direction in self._both(hosts):
            direction.delay_min_us = minimum_us
            direction.delay_max_us = maximum_us

    def set_loss(self, probability: float, *hosts: str) -> None:
        """Between the two hosts, or between all when none are named: messages sent from now on vanish so often."""
        for direction in self._both(hosts):
            direction.loss = probability

    def cut(self, one: str, other: str) -> None:
        """Nothing passes between two hosts."""
        self.cut_one_way(one, other)
        self.cut_one_way(other, one)

    def cut_one_way(self, sender: str, receiver: str) -> None:
        """Nothing passes from one host to the other; the other way it does."""
        self._direction(sender, receiver).is_cut = True
        for pipe in self._pipes.get((sender, receiver), ()):
            pipe.hold()
            pipe.wake_reader()

    def partition(self, *groups: set[str]) -> None:
        """Nothing passes between hosts of different groups; within a group everything does."""
        for group in groups:
            for other_group in groups:
                # Sorted, since the order decides who gets which of the random delays.
                for one in sorted(group):
                    for other in sorted(other_group - {one}):
                        if group is other_group:
                            self.heal_one_way(one, other)
                        else:
                            self.cut_one_way(one, other)

    def heal(self, one: str, other: str) -> None:
        """Undoes a cut: what was held arrives."""
        self.heal_one_way(one, other)
        self.heal_one_way(other, one)

    def heal_one_way(self, sender: str, receiver: str) -> None:
        """Undoes a cut of one direction."""
        direction = self._direction(sender, receiver)
        if direction.is_cut:
            direction.is_cut = False
            for pipe in self._pipes.get((sender, receiver), ()):
                pipe.release()

    def heal_all(self) -> None:
        """Undoes every cut; delays and losses stay."""
        for sender, receiver in list(self._directions):
            self.heal_one_way(sender, receiver)

    def reset(self, one: str, other: str) -> None:
        """Breaks all links between two hosts. They may dial each other again."""
        for direction in ((one, other), (other, one)):
            for pipe in self._pipes.pop(direction, []):
                pipe.reset()

    def listen(self, name: str, address: Address) -> MemoryListener:
        """For :meth:`MemoryHost.listen`."""
        if address.host != name:
            raise OSError(f"{address} isn't an address of {name}")
        old = self._listeners.get(address)
        if old is not None and not old.is_closed:
            raise OSError(f"{address} is in use")
        self._listeners[address] = listener = MemoryListener(address)
        return listener

    async def dial(self, name: str, address: Address) -> MemoryLink:
        """For :meth:`MemoryHost.dial`."""
        there, back = self._direction(name, address.host), self._direction(address.host, name)
        delay_us = self._random.randint(there.delay_min_us, there.delay_max_us)
        await trio.sleep(delay_us / 1e6)
        listener = self._listeners.get(address)
        if there.is_cut or back.is_cut:
            raise OSError(f"{address} can't be reached")
        if listener is None or listener.is_closed:
            raise ConnectionRefusedError(f"nobody listens at {address}")
        outgoing, incoming = _Pipe(there, self._random), _Pipe(back, self._random)
        self._keep((name, address.host), outgoing)
        self._keep((address.host, name), incoming)
        listener.put(MemoryLink(name, outgoing, incoming))
        return MemoryLink(address.host, incoming, outgoing)

    def _keep(self, direction: tuple[str, str], pipe: _Pipe) -> None:
        pipes = [kept for kept in self._pipes.get(direction, []) if not kept.is_finished]
        self._pipes[direction] = [*pipes, pipe]

    def _direction(self, sender: str, receiver: str) -> _Direction:
        key = (sender, receiver)
        if key not in self._directions:
            self._directions[key] = attrs.evolve(self._everywhere)
        return self._directions[key]

    def _both(self, hosts: tuple[str, ...]) -> Iterator[_Direction]:
        if not hosts:
            return iter([self._everywhere, *self._directions.values()])
        one, other = hosts
        return iter([self._direction(one, other), self._direction(other, one)])
