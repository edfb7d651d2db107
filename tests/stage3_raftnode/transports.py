"""Transports that are connected to each other, for tests."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

import attrs
import trio

from raftnode.buffers import Chunk
from raftnode.hello import PROTOCOL_VERSION, Hello
from raftnode.links import Address, Link, Network
from raftnode.memory_network import MemoryNetwork
from raftnode.os_network import OsNetwork
from raftnode.transport import Transport, TransportLimits


def receive(link: Link) -> bytes | None:
    """What has arrived; None if nothing has, nothing at the end."""
    room = memoryview(bytearray(1 << 18))
    size_bytes = link.receive_into(room)
    return None if size_bytes is None else bytes(room[:size_bytes])


@attrs.define(slots=True, eq=False)
class Member:
    """One server's transport, and what it has told its owner."""

    server_id: int
    peers: dict[int, Address]
    network: Network
    address: Address
    options: dict[str, Any] = attrs.Factory(dict)
    received: list[tuple[int, bytes]] = attrs.Factory(list)
    news: list[str] = attrs.Factory(list)
    """Connections made (``+2``) and lost (``-2``)."""
    changed: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)
    transport: Transport = attrs.field(init=False)
    scope: trio.CancelScope = attrs.field(init=False)
    stopped: trio.Event = attrs.field(init=False)

    def deliver(self, sender: int, messages: list[Chunk]) -> None:
        assert messages
        self.received += [(sender, bytes(message)) for message in messages]
        self.changed.unpark_all()

    def note(self, what: str) -> None:
        self.news.append(what)
        self.changed.unpark_all()

    async def run(self, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs a new transport until ``stop``."""
        options: dict[str, Any] = {
            "identity": Hello(PROTOCOL_VERSION, "demo", self.server_id),
            "random": Random(self.server_id),
            **self.options,
        }
        self.transport = Transport(
            listen=self.address,
            peers=self.peers,
            deliver=self.deliver,
            on_connect=lambda peer: self.note(f"+{peer}"),
            on_disconnect=lambda peer: self.note(f"-{peer}"),
            network=self.network,
            **options,
        )
        self.stopped = trio.Event()
        with trio.CancelScope() as self.scope:
            await self.transport.run(task_status=task_status)
        self.stopped.set()

    async def stop(self) -> None:
        self.scope.cancel()
        await self.stopped.wait()

    async def wait_received(self, count: int) -> list[tuple[int, bytes]]:
        while len(self.received) < count:
            await self.changed.park()
        return self.received

    async def wait_connected(self, *server_ids: int) -> None:
        while not self.transport.connected >= set(server_ids):
            await self.changed.park()

    async def wait_news(self, what: str) -> None:
        while what not in self.news:
            await self.changed.park()


def memory_members(count: int, **options: Any) -> tuple[MemoryNetwork, dict[int, Member]]:
    """Members on hosts ``"1"``, ``"2"``, ... of a network in memory; none runs yet."""
    network = MemoryNetwork(Random(0))
    addresses = {server_id: Address(str(server_id), 9000) for server_id in range(1, count + 1)}
    members = {
        server_id: Member(
            server_id, without(addresses, server_id), network.host(str(server_id)), address, dict(options)
        )
        for server_id, address in addresses.items()
    }
    return network, members


def without(addresses: dict[int, Address], server_id: int) -> dict[int, Address]:
    """The others' addresses."""
    return {other: address for other, address in addresses.items() if other != server_id}


async def start(nursery: trio.Nursery, members: Iterable[Member]) -> None:
    """Runs members that can reach each other, and waits until they all have connections."""
    started = list(members)
    for member in started:
        await nursery.start(member.run)
    for member in started:
        await member.wait_connected(*(other.server_id for other in started if other is not member))


async def start_on_ports(nursery: trio.Nursery, count: int, **options: Any) -> dict[int, Member]:
    """Members on free ports of this machine, running and connected."""
    limits = {"limits": TransportLimits(retry_max_us=50_000)}
    members = {
        server_id: Member(server_id, {}, OsNetwork(), Address("127.0.0.1", 0), {**limits, **options})
        for server_id in range(1, count + 1)
    }
    nobody = Address("127.0.0.1", 1)
    for member in members.values():
        member.peers.update({other: nobody for other in members if other != member.server_id})
        member.address = await nursery.start(member.run)
    for member in members.values():
        member.peers.update({other: members[other].address for other in member.peers})
    for member in members.values():
        await member.wait_connected(*member.peers)
    return members
