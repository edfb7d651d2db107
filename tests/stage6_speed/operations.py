"""Clusters in this process, without real time, that are given so many requests at a time, and what calls that takes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from functools import partial

import attrs
import trio

from fileserver.alone import serve_alone
from fileserver.bench.load import Kind, Load, end_of_reply, is_good, prepared
from fileserver.connection import Connection
from fileserver.simulation.clients import Load as NoLoad
from fileserver.simulation.network import LinkWeather
from fileserver.simulation.options import RunOptions
from fileserver.simulation.oracle import Oracle
from fileserver.simulation.server import SimulatedServer
from fileserver.simulation.world import World
from raftnode.simulated_disk import Survival
from statemachine.roles import Options
from tests.stage6_speed.counting import PACKAGES, CallCounter

ELECTED_US = 3_000_000
PATIENCE_US = 5_000_000
WARM_PASSES = 20
REQUESTS = 3200
"""That are counted, if they come together; of those that come alone a tenth is enough."""
FILES = 100


@attrs.frozen(slots=True)
class Operation:
    """Something that is counted."""

    name: str
    kind: Kind
    at_a_time: int
    """How many requests come in one pass, each over a connection of its own."""

    @property
    def passes(self) -> int:
        """How many are counted."""
        return REQUESTS // self.at_a_time if self.at_a_time > 1 else REQUESTS // 10

    @property
    def load(self) -> Load:
        """What is asked for."""
        return Load(servers=(), read_percent=100 if self.kind is Kind.READ else 0, files=FILES)


CLUSTER = (
    Operation("cluster: write-1", Kind.WRITE, 1),
    Operation("cluster: write-64", Kind.WRITE, 64),
    Operation("cluster: read-1", Kind.READ, 1),
    Operation("cluster: read-64", Kind.READ, 64),
)
ALONE = (Operation("sockets: write-64", Kind.WRITE, 64), Operation("sockets: read-64", Kind.READ, 64))
"""The part that a simulated cluster doesn't have: client sockets, with one store behind them."""


def calls_per_operation(operation: Operation) -> dict[str, float]:
    """How many calls all servers together make for one operation, by package."""
    counter = CallCounter()
    if operation in CLUSTER:
        _count_in_cluster(operation, counter)
    else:
        trio.run(_count_alone, operation, counter)
    count = operation.passes * operation.at_a_time
    return {package: round(counter.calls[package] / count, 2) for package in PACKAGES if counter.calls[package]}


def _requests(operation: Operation) -> Iterator[list[bytes]]:
    """The requests of each pass; before all others, every file is written."""
    writes = [data for _, data in prepared(attrs.evolve(operation.load, read_percent=0))]
    datas = [data for _, data in prepared(operation.load)]
    for number in range(WARM_PASSES + operation.passes):
        source = writes if number < WARM_PASSES else datas
        begin = number * operation.at_a_time
        yield source[begin : begin + operation.at_a_time]


# ------------------------------------------------------------------------------------------ a cluster


def _count_in_cluster(operation: Operation, counter: CallCounter) -> None:
    """Five simulated servers on a calm network with quick disks; the clients are the leader's."""
    world = World(1, _calm_run(), NoLoad(0, 1, 1, 1, (1,) * 7, 0.0, 0.0, 0.0))
    world.oracle = _Trusting(lambda: 0)
    world.start()
    world.loop.run_until(ELECTED_US)
    leader = next(server for server in world.servers.values() if server.is_leader)
    replies: list[bytes] = []
    connections = [leader.connect(replies.append) for _ in range(operation.at_a_time)]
    fill = [b"write bench/%d 1\r\nx\r\n" % number for number in range(FILES)]
    for begin in range(0, FILES, operation.at_a_time):
        _one_pass(world, leader, connections, fill[begin : begin + operation.at_a_time], replies, Kind.WRITE)
    for number, datas in enumerate(_requests(operation)):
        is_counted = number >= WARM_PASSES
        kind = operation.kind if is_counted else Kind.WRITE
        if is_counted:
            with counter.counting():
                _one_pass(world, leader, connections, datas, replies, kind)
        else:
            _one_pass(world, leader, connections, datas, replies, kind)
    world.drop()


class _Trusting(Oracle):
    """Judges nothing: it is told of no requests."""

    def applied(self, *_: object) -> None:
        """See Oracle."""

    def time_came(self, *_: object) -> None:
        """See Oracle."""

    def state_is(self, *_: object) -> None:
        """See Oracle."""


def _calm_run() -> RunOptions:
    return RunOptions(
        servers=5,
        raft=Options(spare_us=10_000),
        snapshot_log_bytes=64 << 20,
        request_timeout_us=15_000_000,
        weather=LinkWeather(delay_us_max=201),
        faults=(),
        pause_between_faults_us=1_000_000,
        notices_crashes=1.0,
        survivals=(Survival.NOTHING,),
    )


def _one_pass(
    world: World,
    server: SimulatedServer,
    connections: list[Connection],
    datas: list[bytes],
    replies: list[bytes],
    kind: Kind,
) -> None:
    """Requests of many connections in one pass of a server, until all are answered."""
    replies.clear()

    def gather() -> None:
        # What SimulatedServer.receive_from_client does for one connection, as ClientLoop does it for many.
        gathering = server._gathering
        gathering.start()
        for connection, data in zip(connections, datas, strict=False):
            assert connection.receive_whole(data, gathering), "a plain request"
        gathering.submit()
        server._flush()

    server.soon(gather)
    world.loop.run_while(lambda: len(replies) < len(datas), world.loop.now_us + PATIENCE_US)
    assert len(replies) == len(datas), f"{len(replies)} replies to {len(datas)} requests"
    assert all(is_good(kind, reply, 0) for reply in replies), replies[:3]


# ------------------------------------------------------------------------------------------ sockets


async def _count_alone(operation: Operation, counter: CallCounter) -> None:
    """A server without a cluster, with real sockets: all requests are in them before it looks."""
    async with trio.open_nursery() as nursery:
        port = await nursery.start(serve_alone, "127.0.0.1", 0)
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(operation.at_a_time)]
        try:
            for number, datas in enumerate(_requests(operation)):
                is_counted = number >= WARM_PASSES
                kind = operation.kind if is_counted else Kind.WRITE
                await _exchange(clients, datas, kind, counter if is_counted else None)
        finally:
            for client in clients:
                client.close()
            nursery.cancel_scope.cancel()


async def _exchange(clients: list[socket.socket], datas: list[bytes], kind: Kind, counter: CallCounter | None) -> None:
    """Send all requests, then let the server run until each is answered."""
    for client, data in zip(clients, datas, strict=True):
        client.sendall(data)
    received = dict.fromkeys(clients, b"")
    while received:
        if counter is None:
            await trio.lowlevel.checkpoint()
        else:
            with counter.counting():
                await trio.lowlevel.checkpoint()
        for client in list(received):
            received[client] += _receive(client)
            reply = received[client]
            if reply and end_of_reply(reply, 0) <= len(reply):
                assert is_good(kind, reply, 0), reply
                del received[client]


def _receive(client: socket.socket) -> bytes:
    try:
        return client.recv(1 << 16, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return b""


EVERY: dict[str, Callable[[], dict[str, float]]] = {
    operation.name: partial(calls_per_operation, operation) for operation in (*CLUSTER, *ALONE)
}
"""What is counted, by name."""
