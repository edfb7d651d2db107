"""The operating system's network: TCP on plain non-blocking sockets, with Trio to wait.

Trio's own socket objects and streams are not used: their every call passes through the scheduler, which costs more
than the system call itself. A poller hides many sockets behind the file descriptor of one selector, on which one Trio
task waits.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import attrs
import trio

from raftnode import polling
from raftnode.buffers import Chunk
from raftnode.giving_way import give_way
from raftnode.links import Address, Link, Poller, serve_as_they_come
from raftnode.reactor import Reactor
from raftnode.same_machine import send_unpaced_if_within

UNSENT_BYTES_MAX = 512 * 1024
"""About how much a link's send buffer holds that has not gone out yet, where the system lets us say so. It is what an
urgent message waits behind."""
DEAD_AFTER_MS = 10_000
"""A connection whose other side acknowledges nothing for so long is broken. Without it a connection that went through a
long partition sleeps on for minutes after the partition has healed."""

_BACKLOG = 128
_READY_MAX = 1024
"""How many ready links are named at once; others follow."""


def _set_option(sock: socket.socket, level: int, name: str, value: int) -> None:
    """Sets a socket option that not every system has."""
    option = getattr(socket, name, None)
    if option is not None:
        sock.setsockopt(level, option, value)


class OsLink:
    """A connected TCP socket."""

    __slots__ = ("_remote", "_socket")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        _set_option(sock, socket.IPPROTO_TCP, "TCP_NOTSENT_LOWAT", UNSENT_BYTES_MAX)
        _set_option(sock, socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", DEAD_AFTER_MS)
        # For the side that only receives: nothing of its own goes unacknowledged, so it has to ask.
        _set_option(sock, socket.IPPROTO_TCP, "TCP_KEEPIDLE", DEAD_AFTER_MS // 1000)
        _set_option(sock, socket.IPPROTO_TCP, "TCP_KEEPINTVL", 3)
        _set_option(sock, socket.IPPROTO_TCP, "TCP_KEEPCNT", 3)
        send_unpaced_if_within(sock)
        self._socket = sock
        self._remote = str(sock.getpeername()[0])

    @property
    def remote(self) -> str:
        """The other side's host."""
        return self._remote

    def fileno(self) -> int:
        """The socket's file descriptor."""
        return self._socket.fileno()

    def receive_into(self, room: memoryview) -> int | None:
        """See :class:`raftnode.links.Link`."""
        try:
            return self._socket.recv_into(room)
        except BlockingIOError:
            return None

    def send(self, data: bytes | memoryview) -> int:
        """See :class:`raftnode.links.Link`."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    def send_parts(self, parts: Sequence[Chunk]) -> int:
        """See :class:`raftnode.links.Link`."""
        try:
            return self._socket.sendmsg(parts)
        except BlockingIOError:
            return 0

    async def wait_readable(self) -> None:
        """See :class:`raftnode.links.Link`."""
        await trio.lowlevel.wait_readable(self._socket)

    async def wait_writable(self) -> None:
        """See :class:`raftnode.links.Link`."""
        await trio.lowlevel.wait_writable(self._socket)

    def close(self) -> None:
        """See :class:`raftnode.links.Link`."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()


class OsListener:
    """A listening TCP socket."""

    __slots__ = ("_address", "_socket")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        host, port = sock.getsockname()[:2]
        self._address = Address(str(host), int(port))

    @property
    def address(self) -> Address:
        """See :class:`raftnode.links.Listener`."""
        return self._address

    async def accept(self) -> Link:
        """See :class:`raftnode.links.Listener`."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                accepted, _ = self._socket.accept()
            except BlockingIOError:
                continue  # whoever knocked has gone again
            try:
                return OsLink(accepted)
            except OSError:  # it was reset before it could be looked at
                accepted.close()

    def close(self) -> None:
        """See :class:`raftnode.links.Listener`."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()


class OsPoller:
    """Many sockets behind one poller, with a task that waits by Trio; or each of them a source of a reactor.

    A server has few others, so its reactor can name each of them, and needn't ask another poller who it is.
    """

    __slots__ = ("_poller", "_reactor", "_serve", "_tokens")

    def __init__(self, poller: polling.Poller, reactor: Reactor | None = None) -> None:
        self._poller = poller
        self._reactor = reactor
        self._serve: Callable[[list[Any]], None] | None = None
        """What the reactor calls; None while it serves nothing here."""
        self._tokens: dict[int, Any] = {}
        """By file descriptor."""

    def add(self, link: Link, token: Any) -> None:
        """See :class:`raftnode.links.Poller`."""
        assert isinstance(link, OsLink)
        self._tokens[link.fileno()] = token
        self._watch(link.fileno())

    def remove(self, link: Link) -> None:
        """See :class:`raftnode.links.Poller`."""
        assert isinstance(link, OsLink)
        self._unwatch(link.fileno())
        del self._tokens[link.fileno()]

    def _watch(self, descriptor: int) -> None:
        if self._reactor is not None and self._serve is not None:
            self._reactor.add(descriptor, partial(self._serve, [self._tokens[descriptor]]))
        else:
            self._poller.register(descriptor, polling.READABLE)

    def _unwatch(self, descriptor: int) -> None:
        if self._reactor is not None and self._serve is not None:
            self._reactor.remove(descriptor)
        else:
            self._poller.unregister(descriptor)

    async def wait(self) -> list[Any]:
        """See :class:`raftnode.links.Poller`."""
        while True:
            await trio.lowlevel.wait_readable(self._poller.fileno())
            give_way()
            if ready := self.ready_now():
                return ready

    def ready_now(self) -> list[Any]:
        """See :class:`raftnode.links.Poller`."""
        tokens = self._tokens
        return [tokens[descriptor] for descriptor, _ in self._poller.poll(0, _READY_MAX)]

    async def run(self, serve: Callable[[list[Any]], None]) -> None:
        """See :class:`raftnode.links.Poller`."""
        if self._reactor is None:
            await serve_as_they_come(self, serve)
        else:
            self._served_by(serve)
            try:
                await trio.sleep_forever()
            finally:
                self._served_by(None)

    def _served_by(self, serve: Callable[[list[Any]], None] | None) -> None:
        """Have the reactor call that, or, with None, no longer."""
        for descriptor in self._tokens:
            self._unwatch(descriptor)
        self._serve = serve
        for descriptor in self._tokens:
            self._watch(descriptor)

    def close(self) -> None:
        """See :class:`raftnode.links.Poller`."""
        self._poller.close()


async def _look_up(address: Address) -> list[tuple[Any, ...]]:
    """The host's addresses in the system's order of preference, each with what a socket for it is made of."""
    try:
        return [*await trio.socket.getaddrinfo(*address, type=socket.SOCK_STREAM)]
    except UnicodeError as why:
        raise OSError(f"{address.host!r} can't be a host's name") from why


@attrs.frozen(slots=True)
class OsNetwork:
    """TCP over IPv4 and IPv6."""

    reactor: Reactor | None = None
    """What serves the links, if they have no task of their own."""

    async def dial(self, address: Address) -> Link:
        """Tries each address of the host in turn. See :class:`raftnode.links.Network`."""
        failure = OSError(f"{address.host} has no address")
        for family, kind, protocol, _, where in await _look_up(address):
            with trio.socket.socket(family, kind, protocol) as connecting:
                try:
                    await connecting.connect(where)
                    return OsLink(socket.socket(family, kind, protocol, fileno=connecting.detach()))
                except OSError as why:
                    failure = why
        raise failure

    async def listen(self, address: Address) -> OsListener:
        """Listens on the first address of the host. See :class:`raftnode.links.Network`."""
        family, kind, protocol, _, where = (await _look_up(address))[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(where)
            sock.listen(_BACKLOG)
        except OSError:
            sock.close()
            raise
        return OsListener(sock)

    def open_poller(self) -> Poller:
        """See :class:`raftnode.links.Network`."""
        return OsPoller(polling.make_poller(), self.reactor)
