"""What the transport asks of a network: links that carry bytes, and one way to wait for many of them.

There are two networks, :class:`raftnode.os_network.OsNetwork` and, for tests on a clock of their own,
:class:`raftnode.memory_network.MemoryNetwork`. Links never block and never wait by themselves: whoever reads or writes
does as much as is possible at once, and only then waits, so that the common case (there is data, there is room) costs
one system call and no turn of the scheduler.

A :class:`Poller` waits for data on any of many links with one task. When four links have data at the same time, as when
the answers to a broadcast come, a round takes 39 us of processor time where four tasks take 55 us, the sending of the
four messages included; with a single link there is no difference. And its owner gets everything at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from raftnode.buffers import Chunk


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        """As people write it; an IPv6 host is put in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Reads ``host:port`` or ``[host]:port``.

        Raises:
            ValueError: it is neither, or the port is not in 0 to 65535.
        """
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(f"{text!r}: an IPv6 address stands in brackets, as in [::1]:9080")
        if not colon or not host or not (port.isascii() and port.isdigit()) or int(port[:6]) > 65535:
            raise ValueError(f"{text!r} is not host:port")
        return cls(host, int(port))


class Link(Protocol):
    """A connection: bytes both ways, in order, until one side closes it or it breaks."""

    @property
    def remote(self) -> str:
        """The other side's host, for people."""
        ...

    def receive_into(self, room: memoryview) -> int | None:
        """Puts what has arrived into the room and says how much that is; None: nothing has, 0: nothing ever will.

        Raises:
            OSError: the connection is broken.
        """
        ...

    def send(self, data: bytes | memoryview) -> int:
        """Sends a beginning of ``data`` and says how long it is; 0 when there is no room now.

        Raises:
            OSError: the connection is broken.
        """
        ...

    def send_parts(self, parts: Sequence[Chunk]) -> int:
        """As ``send`` of the parts joined, which it saves."""
        ...

    async def wait_readable(self) -> None:
        """Until ``receive_into`` may give more than None. Not for a link that a poller watches.

        Raises:
            trio.ClosedResourceError: the link was closed meanwhile.
        """
        ...

    async def wait_writable(self) -> None:
        """Until ``send`` may give more than 0.

        Raises:
            trio.ClosedResourceError: the link was closed meanwhile.
        """
        ...

    def close(self) -> None:
        """Closes it; what was sent still arrives. Once closed, it may be closed again."""
        ...


class Listener(Protocol):
    """Where links come in."""

    @property
    def address(self) -> Address:
        """The address with the port that is really listened on."""
        ...

    async def accept(self) -> Link:
        """The next link that comes in.

        Raises:
            OSError: it could not be taken; too many open files, say. Later ones may be.
        """
        ...

    def close(self) -> None:
        """Stops listening."""
        ...


class Poller(Protocol):
    """Waits for data on any of the links that were added to it."""

    def add(self, link: Link, token: Any) -> None:
        """Watches the link; ``wait`` will name it by the token."""
        ...

    def remove(self, link: Link) -> None:
        """No longer watches the link. To be done before it is closed."""
        ...

    async def wait(self) -> list[Any]:
        """The tokens of the links for which ``receive_into`` gives more than None; at least one."""
        ...

    def ready_now(self) -> list[Any]:
        """The same without waiting: there may be none."""
        ...

    async def run(self, serve: Callable[[list[Any]], None]) -> None:
        """Call ``serve`` with what ``wait`` would give, over and over, until cancelled."""
        ...

    def close(self) -> None:
        """Watches nothing any more."""
        ...


_PASSES_MAX = 4
"""How often it is looked for more that has come, before other tasks get their turn."""


async def serve_as_they_come(poller: Poller, serve: Callable[[list[Any]], None]) -> None:
    """What :meth:`Poller.run` is, in the task that calls it."""
    while True:
        ready = await poller.wait()
        # What has come while something was done about the first needn't wait for a turn of the scheduler.
        for _ in range(_PASSES_MAX):
            serve(ready)
            if not (ready := poller.ready_now()):
                break


class Network(Protocol):
    """A way to reach others and to be reached."""

    async def dial(self, address: Address) -> Link:
        """A link to whoever listens there.

        Raises:
            OSError: nobody could be reached.
        """
        ...

    async def listen(self, address: Address) -> Listener:
        """Begins to listen; port 0 means any free one.

        Raises:
            OSError: the address is in use or isn't ours.
        """
        ...

    def open_poller(self) -> Poller:
        """A poller for this network's links."""
        ...
