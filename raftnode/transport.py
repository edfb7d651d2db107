"""Messages to and from the other servers of a cluster.

Theory of operation. Each server dials every other one and sends on the connections that it dialled; it receives on
those that others dialled. So no two servers need to agree who dials whom, and there is one writer and one reader for
each connection. A connection begins with a hello and its answer (:mod:`raftnode.hello`); then messages go one way, in
frames (:mod:`raftnode.frames`).

* One task for each peer keeps its outgoing connection: dials, says hello, and sends what the direct way could not.
  When the connection is lost it dials again, after a pause that doubles from 50 ms to 1 s. A peer that dials us is
  there, so then the pause ends.
* One task receives from all peers (:class:`raftnode.links.Poller`), and hands over what one burst of each brought as
  one list.
* ``send`` never waits. Nothing queued: the message goes to the network then and there. Otherwise, or when the network
  takes only a part, it is queued (:class:`raftnode.outbox.Outbox`) and the peer's task goes on with it.

What is promised of messages: those of one kind (urgent or not) to one peer arrive in order and at most once, and all
of them while the connection holds and ``send`` says True. When a connection breaks nobody can tell which ones had
arrived; ``on_connect`` says that there is a new one.

Invariants: a peer's ``link`` is set exactly while its hello was answered and the connection isn't known to be broken.
At most one incoming connection of a peer is read, the latest. Callbacks come from the transport's own tasks, never from
within ``send``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Any

import attrs
import structlog
import trio

from raftnode.buffers import Chunk
from raftnode.frames import (
    FRAME_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    BadFrame,
    Channel,
    FrameDecoder,
    frame,
    frame_head,
)
from raftnode.greeting import HelloRefusedError, greet_dialled, greet_dialler
from raftnode.hello import BadHello, Hello
from raftnode.links import Address, Link, Listener, Network, Poller
from raftnode.os_network import OsNetwork
from raftnode.outbox import APART_BYTES_MIN, URGENT_BYTES_MAX, Outbox

_log = structlog.get_logger("raftnode.transport")

_PUMP_BYTES_MAX = 1024 * 1024
"""Most bytes sent to one peer before others get their turn: less than a millisecond's worth."""
_COMPLAINTS_MAX = 256


@attrs.frozen(slots=True, kw_only=True)
class TransportLimits:
    """Sizes and times; the defaults fit a cluster in one place."""

    message_bytes_max: int = MESSAGE_BYTES_MAX
    """A larger message is refused by ``send``, and by who receives it."""
    outbox_bytes_max: int = 64 * 1024 * 1024
    """What may wait for one peer, in bytes of messages that aren't urgent."""
    outbox_urgent_count_max: int = 256
    """How many urgent messages may wait for one peer."""
    hello_timeout_us: int = 5_000_000
    """For a connection to be made, and for hello and answer."""
    retry_min_us: int = 50_000
    """The pause before dialling again, the first time."""
    retry_max_us: int = 1_000_000
    """The longest pause between two attempts."""
    strangers_count_max: int = 64
    """How many connections that haven't said hello are kept open."""


@attrs.define(slots=True, eq=False)
class _Peer:
    """One other server, and the connection on which we send to it."""

    server_id: int
    outbox: Outbox
    link: Link | None = None
    work: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)
    """Where the peer's task waits while there is nothing to send, and while it pauses before dialling."""
    room: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)
    """Where others wait for room in the outbox."""
    incoming: _Incoming | None = None


@attrs.define(slots=True, eq=False)
class _Incoming:
    """A connection on which a peer sends to us."""

    peer: _Peer
    link: Link
    decoder: FrameDecoder


@attrs.define(slots=True, eq=False)
class _Outgoing:
    """What the poller knows of a connection that we dialled: the peer says nothing on it, but may close it."""

    peer: _Peer
    link: Link


def _no_news(_peer: int) -> None:
    pass


def _nothing() -> None:
    pass


@attrs.define(slots=True, eq=False, kw_only=True)
class Transport:
    """Sends to, and receives from, the other servers. Does nothing until ``run``."""

    identity: Hello
    """Who we are. Peers have to agree on version and cluster."""
    listen: Address
    peers: Mapping[int, Address]
    """The other servers. An address is looked up here each time that it is dialled."""
    deliver: Callable[[int, list[Chunk]], None]
    """Gets a sender and its messages, in order. It must not wait; errors that it raises end ``run``.
    What is kept of a message has to be copied: it may be a view, for as long as this takes."""
    delivered: Callable[[], None] = _nothing
    """Called once when all has been delivered that had arrived, from however many peers, unless that is nothing."""
    on_connect: Callable[[int], None] = _no_news
    """A connection to that peer has been made: messages can be sent. Earlier ones may be lost."""
    on_disconnect: Callable[[int], None] = _no_news
    """A connection to or from that peer was lost, so it may be down. Comes once for each of the two."""
    before_receive: Callable[[], Awaitable[None]] | None = None
    """Awaited before anything is received: while it waits, nothing is, and senders get to feel it."""
    keep_for_absent: bool = False
    """Whether messages for a peer without a connection are queued. Otherwise they are dropped, and what was queued
    for a lost connection too: an old message of Raft's is of no use to anybody."""
    network: Network = attrs.Factory(OsNetwork)
    random: Random = attrs.Factory(Random)
    """For the jitter of pauses."""
    limits: TransportLimits = attrs.Factory(TransportLimits)

    dropped_count: int = attrs.field(default=0, init=False)
    """How many messages were dropped because their receiver had no connection."""
    _direct_bytes_max: int = attrs.field(init=False)
    """Messages up to this size fit in one frame."""
    _peers: dict[int, _Peer] = attrs.field(init=False)
    _poller: Poller = attrs.field(init=False)
    _strangers_count: int = attrs.field(default=0, init=False)
    _complaints: dict[str, str] = attrs.field(factory=dict, init=False)
    """What was last said of whom, so that it is said once."""

    def __attrs_post_init__(self) -> None:
        if self.identity.server_id in self.peers:
            raise ValueError(f"server {self.identity.server_id} can't be a peer of itself")
        limits = self.limits
        self._direct_bytes_max = min(FRAME_BYTES_MAX, limits.message_bytes_max)
        self._peers = {
            server_id: _Peer(server_id, Outbox(limits.outbox_bytes_max, limits.outbox_urgent_count_max))
            for server_id in self.peers
        }

    # ------------------------------------------------------------------------------------------ sending

    @property
    def connected(self) -> frozenset[int]:
        """The peers that messages can be sent to."""
        return frozenset(server_id for server_id, peer in self._peers.items() if peer.link is not None)

    def send(self, to: int, message: bytes, *, urgent: bool = False) -> bool:
        """Sends one message, now or as soon as the network takes it.

        An urgent one passes those that aren't; it should be small.

        Returns:
            False if it was dropped: no connection (see ``keep_for_absent``), or too much queued already.

        Raises:
            KeyError: there is no such peer.
            ValueError: the message is larger than the limit.
        """
        size_bytes = len(message)
        peer = self._peers[to]
        link = peer.link
        if link is not None and size_bytes <= self._direct_bytes_max and peer.outbox.is_empty:
            channel = Channel.URGENT if urgent and size_bytes <= URGENT_BYTES_MAX else Channel.BULK
            head = frame_head(size_bytes, channel, more=False)
            if size_bytes < APART_BYTES_MIN:
                self._send_now(peer, link, head + message)
            else:
                self._send_now(peer, link, head, message)
            return True
        return self._queue(peer, message, urgent=urgent)

    def send_all(self, to: int, messages: list[bytes]) -> int:
        """Sends several messages, none of them urgent, with one call of the network if they are small.

        Returns:
            How many weren't dropped: the first so many.

        Raises:
            KeyError, ValueError: see ``send``.
        """
        peer = self._peers[to]
        link = peer.link
        if link is not None and peer.outbox.is_empty and sum(map(len, messages)) <= self._direct_bytes_max:
            self._send_now(peer, link, b"".join(map(frame, messages)))
            return len(messages)
        for count, message in enumerate(messages):
            if not self._queue(peer, message, urgent=False):
                return count
        return len(messages)

    def broadcast(self, message: bytes, *, urgent: bool = False) -> None:
        """Sends one message to every peer; see ``send``."""
        size_bytes = len(message)
        framed = None
        if size_bytes <= self._direct_bytes_max:
            is_urgent = urgent and size_bytes <= URGENT_BYTES_MAX
            framed = frame(message, Channel.URGENT if is_urgent else Channel.BULK)
        for peer in self._peers.values():
            link = peer.link
            if framed is not None and link is not None and peer.outbox.is_empty:
                self._send_now(peer, link, framed)
            else:
                self._queue(peer, message, urgent=urgent)

    def queued_bytes(self, to: int) -> int:
        """How many bytes of messages wait for that peer, what the network has taken not counted."""
        return self._peers[to].outbox.queued_bytes

    def refused_count(self) -> int:
        """How many messages were dropped because too much waited for their receiver."""
        return sum(peer.outbox.dropped_count for peer in self._peers.values())

    async def wait_for_room(self, to: int, size_bytes: int) -> None:
        """Until a message of that size would be queued for that peer, or the peer isn't connected."""
        peer = self._peers[to]
        while peer.link is not None and not peer.outbox.has_room(size_bytes):
            await peer.room.park()
        await trio.lowlevel.checkpoint()

    def _send_now(self, peer: _Peer, link: Link, data: bytes, more: bytes = b"") -> None:
        """Sends frames past the outbox, which is empty; it takes what the network doesn't."""
        try:
            sent_bytes = link.send_parts((data, more)) if more else link.send(data)
        except OSError:
            self._lose(peer, link)
            return
        if sent_bytes < len(data) + len(more):
            in_more_bytes = sent_bytes - len(data)
            rest = memoryview(more)[in_more_bytes:] if in_more_bytes >= 0 else memoryview(data + more)[sent_bytes:]
            peer.outbox.put_unsent(rest)
            peer.work.unpark_all()

    def _queue(self, peer: _Peer, message: bytes, *, urgent: bool) -> bool:
        if len(message) > self.limits.message_bytes_max:
            raise ValueError(f"a message of {len(message)} bytes, the limit is {self.limits.message_bytes_max}")
        link = peer.link
        if link is None:
            if self.keep_for_absent:
                return peer.outbox.put(message, urgent=urgent)
            self.dropped_count += 1
            return False
        was_empty = peer.outbox.is_empty
        is_queued = peer.outbox.put(message, urgent=urgent)
        if was_empty:
            self._pump(peer, link)
            peer.work.unpark_all()
        return is_queued

    def _pump(self, peer: _Peer, link: Link) -> bool:
        """Sends from the outbox; False if the network takes no more for now, or is broken."""
        outbox = peer.outbox
        budget_bytes = _PUMP_BYTES_MAX
        is_taking = True
        while is_taking and budget_bytes > 0 and (chunk := outbox.peek()):
            try:
                sent_bytes = link.send_parts(chunk)
            except OSError:
                self._lose(peer, link)
                return False
            is_taking = sent_bytes == sum(map(len, chunk))
            outbox.advance(sent_bytes)
            budget_bytes -= sent_bytes
        if peer.room:
            peer.room.unpark_all()
        return is_taking

    # -------------------------------------------------------------------------------------- connections

    async def run(self, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED) -> None:
        """Listens, and keeps connections to all peers, until it is cancelled. Starts with the address listened on.

        Raises:
            OSError: the address can't be listened on.
        """
        listener = await self.network.listen(self.listen)
        self._poller = self.network.open_poller()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._receive_from_all)
                for peer in self._peers.values():
                    nursery.start_soon(self._keep_connection, peer)
                nursery.start_soon(self._accept, listener, nursery)
                task_status.started(listener.address)
        finally:
            listener.close()
            for peer in self._peers.values():
                if peer.incoming is not None:
                    self._close_incoming(peer.incoming)
            self._poller.close()

    def disconnect(self, sender: int, why: str) -> None:
        """Closes the connection on which that peer sends: what came on it makes no sense. It may dial again."""
        incoming = self._peers[sender].incoming
        if incoming is not None:
            self._complain(f"messages of server {sender}", why)
            self._close_incoming(incoming)

    def _complain(self, about: str, why: str) -> None:
        """One line in the log, unless it would say the same of the same as the last one."""
        if self._complaints.get(about) == why:
            return
        if about not in self._complaints and len(self._complaints) >= _COMPLAINTS_MAX:
            del self._complaints[next(iter(self._complaints))]
        self._complaints[about] = why
        _log.warning("peer connection", about=about, why=why)

    # ---- the connection to a peer

    async def _keep_connection(self, peer: _Peer) -> None:
        about = f"connection to server {peer.server_id}"
        pause_us = self.limits.retry_min_us
        while True:
            try:
                link = await self._dial(peer)
            except trio.TooSlowError:
                self._complain(about, "no answer in time")
            except (OSError, BadFrame, BadHello, HelloRefusedError) as why:
                self._complain(about, str(why))
            else:
                self._complaints.pop(about, None)
                pause_us = self.limits.retry_min_us
                await self._use(peer, link)
            with trio.move_on_after(pause_us * self.random.uniform(0.5, 1.0) / 1e6):
                await peer.work.park()
            pause_us = min(2 * pause_us, self.limits.retry_max_us)

    async def _dial(self, peer: _Peer) -> Link:
        """A connection on which that peer has welcomed us."""
        with trio.fail_after(self.limits.hello_timeout_us / 1e6):
            link = await self.network.dial(self.peers[peer.server_id])
            try:
                await greet_dialled(link, self.identity, peer.server_id)
            except BaseException:
                link.close()
                raise
        return link

    async def _use(self, peer: _Peer, link: Link) -> None:
        """Sends what is queued for the peer until the connection is lost."""
        if self.keep_for_absent:
            peer.outbox.restart()
        else:
            peer.outbox.clear()
        self._poller.add(link, _Outgoing(peer, link))
        peer.link = link
        _log.info("peer connected", server=peer.server_id)
        try:
            self.on_connect(peer.server_id)
            while peer.link is link:
                if peer.outbox.is_empty:
                    await peer.work.park()
                elif self._pump(peer, link):
                    await trio.lowlevel.checkpoint()
                elif peer.link is link:
                    await link.wait_writable()
        except trio.ClosedResourceError:
            pass  # by _lose, while this task waited
        finally:
            self._lose(peer, link)
        _log.info("peer disconnected", server=peer.server_id)
        self.on_disconnect(peer.server_id)

    def _lose(self, peer: _Peer, link: Link) -> None:
        """The connection to a peer is no more; the peer's task will see it and say so."""
        if peer.link is link:
            self._poller.remove(link)
            link.close()
            peer.link = None
            peer.work.unpark_all()
            peer.room.unpark_all()

    # ---- connections from peers

    async def _accept(self, listener: Listener, nursery: trio.Nursery) -> None:
        while True:
            try:
                link = await listener.accept()
            except OSError as why:  # no more files may be opened, for one; that may pass
                self._complain("incoming connections", str(why))
                await trio.sleep(0.1)
                continue
            if self._strangers_count >= self.limits.strangers_count_max:
                self._complain("incoming connections", "too many that don't say hello")
                link.close()
                continue
            self._strangers_count += 1
            nursery.start_soon(self._greet, link)

    async def _greet(self, link: Link) -> None:
        is_kept = False
        about = f"connection from {link.remote}"
        try:
            with trio.fail_after(self.limits.hello_timeout_us / 1e6):
                greeted = await greet_dialler(link, self.identity, self._peers)
            if greeted.refusal is None:
                self._complaints.pop(about, None)
                self._welcome(self._peers[greeted.hello.server_id], link)
                is_kept = True
            else:
                self._complain(f"{about}, server {greeted.hello.server_id}", f"refused: it {greeted.refusal}")
        except trio.TooSlowError:
            self._complain(about, "refused: it didn't say hello in time")
        except (BadFrame, BadHello) as why:
            self._complain(about, f"refused: {why}")
        except OSError:
            pass  # gone again: somebody looked whether the port is open
        finally:
            self._strangers_count -= 1
            if not is_kept:
                link.close()

    def _welcome(self, peer: _Peer, link: Link) -> None:
        if peer.incoming is not None:  # the peer knows that this one is broken before we do
            self._close_incoming(peer.incoming)
        peer.incoming = _Incoming(peer, link, FrameDecoder(self.limits.message_bytes_max))
        self._poller.add(link, peer.incoming)
        if peer.link is None:
            peer.work.unpark_all()

    def _close_incoming(self, incoming: _Incoming) -> None:
        self._poller.remove(incoming.link)
        incoming.link.close()
        incoming.peer.incoming = None

    async def _receive_from_all(self) -> None:
        if self.before_receive is None:
            await self._poller.run(self._serve)
            return
        while True:
            await self.before_receive()
            self._serve(await self._poller.wait())

    def _serve(self, ready: list[Any]) -> None:
        """Take what has come on these connections."""
        has_news = False
        for token in ready:
            if type(token) is not _Incoming:
                self._look_after(token)
            elif self._receive_from(token):
                has_news = True
        if has_news:
            self.delivered()

    def _receive_from(self, incoming: _Incoming) -> bool:
        """Take what has come on a connection; True if a message is complete with it."""
        peer = incoming.peer
        if peer.incoming is not incoming:
            return False  # closed since the poller named it
        decoder = incoming.decoder
        messages: list[Chunk] = []
        try:
            size_bytes = incoming.link.receive_into(decoder.room())
            if size_bytes is None:
                return False
            messages = decoder.received(size_bytes)
        except OSError:
            size_bytes = 0
        except BadFrame as why:
            self._complain(f"messages of server {peer.server_id}", str(why))
            size_bytes = 0
        if messages:
            self.deliver(peer.server_id, messages)
        if not size_bytes:
            self._close_incoming(incoming)
            self.on_disconnect(peer.server_id)
        return bool(messages)

    def _look_after(self, outgoing: _Outgoing) -> None:
        """Something has come where nothing is said any more: in all likelihood, its end."""
        if outgoing.peer.link is not outgoing.link:
            return
        try:
            is_lost = outgoing.link.receive_into(memoryview(bytearray(1))) is not None
        except OSError:
            is_lost = True
        if is_lost:
            self._lose(outgoing.peer, outgoing.link)
