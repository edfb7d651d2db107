"""The transport by itself: a small library for messages between the servers of a cluster.

Each server has an inbox to read from, and sends to one other or to all of them::

    messenger = Messenger(MessengerConfig.parse(Path("server-1.json").read_text()))
    async with trio.open_nursery() as nursery:
        await nursery.start(messenger.run)
        await messenger.send(2, b"hello")
        async for sender, message in messenger.inbox:
            ...

with a configuration in JSON, the same for every server but for its ``id``::

    {"id": 1, "cluster": "demo",
     "servers": [{"id": 1, "address": "127.0.0.1:9001"}, {"id": 2, "address": "127.0.0.1:9002"}]}

What is promised: messages from one server to another arrive in order, at most once, and none is lost while the
connection between them holds, nor while a server that hasn't started yet is waited for. There is back-pressure all the
way: a full inbox stops the reading, a peer that doesn't read fills the sender's outbox, and then ``send`` waits.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from random import Random
from typing import Any, TypeAlias

import attrs
import trio

from raftnode.buffers import Chunk
from raftnode.hello import PROTOCOL_VERSION, Hello
from raftnode.links import Address, Network
from raftnode.os_network import OsNetwork
from raftnode.transport import Transport, TransportLimits

Received: TypeAlias = tuple[int, bytes]
"""Who sent it, and the message."""

INBOX_COUNT_MAX = 1024
"""How many messages the inbox holds before reading from the network stops."""


@attrs.frozen(slots=True)
class MessengerConfig:
    """Who is in the cluster, and which of them we are."""

    server_id: int
    servers: Mapping[int, Address]
    """All servers, this one included."""
    cluster: str = "messenger"

    @classmethod
    def parse(cls, text: str) -> MessengerConfig:
        """Reads the JSON shown in the module's docstring; ``cluster`` may be left out.

        Raises:
            ValueError: it isn't that; the text names the key.
        """
        config = json.loads(text)
        if type(config) is not dict:
            raise ValueError("the configuration is no JSON object")
        unknown = set(config) - {"id", "cluster", "servers"}
        if unknown:
            raise ValueError(f"{min(unknown)}: no such key")
        servers: dict[int, Address] = {}
        for number, server in enumerate(_value(config, "servers", list)):
            where = f"servers[{number}]"
            if type(server) is not dict or set(server) != {"id", "address"}:
                raise ValueError(f"{where}: not an object with id and address")
            server_id = _value(server, "id", int)
            if server_id in servers:
                raise ValueError(f"{where}.id: server {server_id} is there twice")
            try:
                servers[server_id] = Address.parse(_value(server, "address", str))
            except ValueError as why:
                raise ValueError(f"{where}.address: {why}") from why
        own_id = _value(config, "id", int)
        if own_id not in servers:
            raise ValueError(f"id: server {own_id} isn't among the servers")
        return cls(own_id, servers, _value({"cluster": "messenger", **config}, "cluster", str))


def _value(config: dict[str, Any], key: str, kind: type) -> Any:
    value = config.get(key)
    if type(value) is not kind:
        raise ValueError(f"{key}: missing, or no {kind.__name__}")
    return value


@attrs.define(slots=True, eq=False)
class Messenger:
    """Sends to, and receives from, the other servers. Does nothing until ``run``."""

    config: MessengerConfig
    network: Network = attrs.Factory(OsNetwork)
    limits: TransportLimits = attrs.Factory(TransportLimits)
    random: Random = attrs.Factory(Random)
    inbox: trio.MemoryReceiveChannel[Received] = attrs.field(init=False)
    """The messages of all others. It ends when ``run`` does."""

    _transport: Transport = attrs.field(init=False)
    _inbox_end: trio.MemorySendChannel[Received] = attrs.field(init=False)
    _overflow: deque[Received] = attrs.field(factory=deque, init=False)
    """What one burst brought more than the inbox holds. Nothing is received until it is empty."""
    _changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    """Where others wait for connections."""

    def __attrs_post_init__(self) -> None:
        self._inbox_end, self.inbox = trio.open_memory_channel[Received](INBOX_COUNT_MAX)
        config = self.config
        self._transport = Transport(
            identity=Hello(PROTOCOL_VERSION, config.cluster, config.server_id),
            listen=config.servers[config.server_id],
            peers={
                server_id: address for server_id, address in config.servers.items() if server_id != config.server_id
            },
            deliver=self._deliver,
            on_connect=self._on_connect,
            before_receive=self._drain,
            keep_for_absent=True,
            network=self.network,
            random=self.random,
            limits=self.limits,
        )

    async def run(self, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED) -> None:
        """Sends and receives until it is cancelled. Starts with the address listened on.

        Raises:
            OSError: the address can't be listened on.
        """
        with self._inbox_end:
            await self._transport.run(task_status=task_status)

    @property
    def connected(self) -> frozenset[int]:
        """The servers to which there is a connection."""
        return self._transport.connected

    async def wait_connected(self) -> None:
        """Until there are connections to all other servers."""
        await trio.lowlevel.checkpoint()
        while len(self.connected) < len(self._transport.peers):
            await self._changed.park()

    async def send(self, to: int, message: bytes) -> bool:
        """Sends to one other server; waits while too much is on its way there already.

        Returns:
            False if it was dropped, since too much waits for a server that isn't there.

        Raises:
            KeyError: there is no such server, or it is this one.
            ValueError: the message is larger than the limit.
        """
        await self._transport.wait_for_room(to, len(message))
        return self._transport.send(to, message)

    async def broadcast(self, message: bytes) -> None:
        """Sends to every other server; see ``send``."""
        for server_id in self._transport.peers:
            await self.send(server_id, message)

    def _on_connect(self, _peer: int) -> None:
        self._changed.unpark_all()

    def _deliver(self, sender: int, messages: list[Chunk]) -> None:
        received = deque((sender, bytes(message)) for message in messages)
        if not self._overflow:
            try:
                while received:
                    self._inbox_end.send_nowait(received[0])
                    received.popleft()
            except trio.WouldBlock:
                pass
            except trio.BrokenResourceError:
                return  # nobody reads the inbox any more
        self._overflow.extend(received)

    async def _drain(self) -> None:
        """Waits until the inbox has taken what came too fast."""
        try:
            while self._overflow:
                await self._inbox_end.send(self._overflow[0])
                self._overflow.popleft()
        except trio.BrokenResourceError:
            self._overflow.clear()
