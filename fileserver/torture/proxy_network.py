"""A proxy on every directed link between servers, for those who may not have network namespaces.

Theory of operation: each server is told, for every other one, the address of a proxy that is its alone. A server dials
its peers and sends on what it dialled, so what the proxy for (a, b) carries forth is what a says to b, and what it
carries back is nothing but answers to greetings. What is cut is held back, not dropped, as bytes of a stream can't
be: the connection stands still, new ones too, until the link heals or a side gives up.
"""

from __future__ import annotations

import math
import socket
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from random import Random

import trio

from fileserver.bench.local import free_cluster
from fileserver.config import Address
from fileserver.torture.impairments import Impairment, Impairments
from fileserver.torture.networks import Addresses, Traffic
from fileserver.torture.shapes import Link

_BACKLOG = 64


class ProxyNetwork:
    """See the module's docstring and :class:`fileserver.torture.networks.BreakableNetwork`."""

    kind = "proxies on the peer links"

    def __init__(self, servers: Iterable[int], random: Random) -> None:
        """Find free ports. Raises NotReady where there are none."""
        ids = tuple(servers)
        self._random = random
        self._impairments = Impairments()
        self._traffic: defaultdict[Link, Traffic] = defaultdict(Traffic)
        self._changed = trio.Event()
        self._open = ExitStack()
        config = free_cluster(len(ids))
        self._addresses = {
            server: Addresses(found.client, found.http, found.peer)
            for server, found in zip(ids, config.servers, strict=True)
        }
        self._listeners: dict[Link, socket.socket] = {}
        for link in ((source, to) for source in ids for to in ids if source != to):
            listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
            self._open.callback(listener.close)
            listener.setblocking(False)
            self._listeners[link] = listener

    def addresses(self, server: int) -> Addresses:
        """See BreakableNetwork."""
        return self._addresses[server]

    def peer_address(self, link: Link) -> Address:
        """See BreakableNetwork."""
        host, port = self._listeners[link].getsockname()
        return Address(host, port)

    def place_of(self, server: int) -> AbstractContextManager[None]:
        """See BreakableNetwork."""
        return nullcontext()

    def impose(self, fault: int, links: Mapping[Link, Impairment]) -> None:
        """See BreakableNetwork."""
        self._impairments.impose(fault, links)
        self._tell()

    def lift(self, fault: int) -> None:
        """See BreakableNetwork."""
        self._impairments.lift(fault)
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def traffic(self, link: Link) -> Traffic:
        """See BreakableNetwork."""
        return self._traffic[link]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See BreakableNetwork."""
        async with trio.open_nursery() as nursery:
            for link, listener in self._listeners.items():
                stream_listener = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
                nursery.start_soon(trio.serve_listeners, partial(self._serve, link), [stream_listener])
            task_status.started()

    async def _serve(self, link: Link, dialler: trio.SocketStream) -> None:
        """Carry one connection, from when it may be made until one side ends it."""
        async with dialler:
            try:
                await self._until_open(link)
                target = self._addresses[link[1]].peer
                dialled = await trio.open_tcp_stream(target.host, target.port)
                async with dialled, trio.open_nursery() as nursery:
                    nursery.start_soon(self._carry, link, dialler, dialled, nursery.cancel_scope)
                    nursery.start_soon(self._carry, link[::-1], dialled, dialler, nursery.cancel_scope)
            except (OSError, trio.BrokenResourceError):
                pass  # one of the two is gone: so is the connection

    async def _until_open(self, link: Link) -> None:
        if self._impairments.of(link).cut:
            self._traffic[link].dropped += 1
        while self._impairments.of(link).cut:
            await self._changed.wait()

    async def _carry(
        self, link: Link, source: trio.SocketStream, target: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        """Hand on one direction, late where that is asked for, in order; ends both when one side has ended."""
        send, receive = trio.open_memory_channel[tuple[float, bytes]](math.inf)

        async def hand_on() -> None:
            async for due_at, piece in receive:
                await trio.sleep_until(due_at)
                await self._until_open(link)
                await target.send_all(piece)
            scope.cancel()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hand_on)
                async for piece in source:
                    await send.send((self._due_at(link), bytes(piece)))
                send.close()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            scope.cancel()

    def _due_at(self, link: Link) -> float:
        impairment = self._impairments.of(link)
        delay_us = impairment.delay_us + (self._random.randrange(impairment.jitter_us) if impairment.jitter_us else 0)
        self._traffic[link].delayed += delay_us > 0
        return trio.current_time() + delay_us / 1e6

    async def probe(self, link: Link, seconds: float) -> float | None:
        """See BreakableNetwork: a connection that says nothing, which the server at the other end closes."""
        sent_at = trio.current_time()
        address = self.peer_address(link)
        with trio.move_on_after(seconds):
            try:
                async with await trio.open_tcp_stream(address.host, address.port) as stream:
                    await stream.send_all(b"probe\r\n")
                    await stream.receive_some(1)
            except (OSError, trio.BrokenResourceError):
                pass  # an end is an answer too
            return trio.current_time() - sent_at
        return None

    def close(self) -> None:
        """See BreakableNetwork."""
        self._open.close()
