"""How long nobody can write when the leader is killed.

Theory of operation: some writers, two for each server, write all the time. The leader is killed; the time is that from
the signal until the first acknowledgement of a write that was sent after it, by whichever writer, through a
server that lives. Then the dead server is started again, and the next round begins once all servers are one again.

What was acknowledged is read back at the end: the last acknowledged write of every writer has to be there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import attrs
import trio

from fileserver.bench.figures import nearest_rank
from fileserver.config import Address
from fileserver.linearizability.history import Found, Read, Write, Written, digest_of
from fileserver.torture.clients import Client, Connection, Record, connect
from fileserver.torture.servers import NotInTime, Servers
from fileserver.torture.setting import Setting

READY_SECONDS = 60.0
FIRST_WRITE_SECONDS = 60.0
SETTLE_SECONDS = 0.2
"""Of load before each kill."""
WRITERS_A_SERVER = 2
PAUSE_SECONDS = 0.002
"""Between two writes of a writer: the probes must not be what keeps the machine from electing."""


@attrs.frozen(slots=True)
class Failovers:
    """What was measured."""

    times_us: Sequence[int]
    """From each kill to the first write."""
    unknown: int
    """Writes of unknown outcome."""
    lost: int
    """Writers whose last acknowledged write isn't there."""

    def percentile_us(self, percent: float) -> int:
        """The smallest time that so many percent of the times don't exceed."""
        return nearest_rank(sorted(self.times_us), percent)


@attrs.define(slots=True, eq=False)
class _Round:
    """The round under way."""

    killed_at: float = math.inf
    victim: int = 0
    first: trio.Event = attrs.Factory(trio.Event)
    first_at: float = math.inf


async def measure_failovers(setting: Setting, times: int, tell: Callable[[int, int], None]) -> Failovers:
    """Kill the leader so many times.

    Args:
        setting: with nothing running.
        times: how often.
        tell: is given how many have been done, and the last one's time in microseconds.

    Raises:
        NotInTime: the cluster doesn't start, or doesn't come back.
    """
    servers = setting.servers
    record = Record()
    writers = [
        _Writer(record, server, servers.client_address(server), number)
        for number, server in enumerate(servers.ids * WRITERS_A_SERVER)
    ]
    measured: list[int] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(setting.network.run)
        try:
            for server in servers.ids:
                servers.launch(server)
            await servers.until_agreed(READY_SECONDS)
            async with trio.open_nursery() as working:
                for writer in writers:
                    working.start_soon(writer.work)
                for done in range(1, times + 1):
                    measured.append(await _once(servers, writers))
                    tell(done, measured[-1])
                for writer in writers:
                    writer.is_over = True
            lost = await _count_lost(servers, writers, record)
        finally:
            servers.end_all()
        nursery.cancel_scope.cancel()
    return Failovers(measured, record.unknown, lost)


async def _once(servers: Servers, writers: Sequence[_Writer]) -> int:
    """One fail-over, from all servers well to all servers well; gives its microseconds."""
    await trio.sleep(SETTLE_SECONDS)
    leader = await servers.leader()
    if leader is None:
        raise NotInTime("nobody leads, with all servers well")
    this_round = _Round(victim=leader)
    for writer in writers:
        writer.round = this_round
    this_round.killed_at = trio.current_time()
    await servers.kill((leader,))
    with trio.move_on_after(FIRST_WRITE_SECONDS):
        await this_round.first.wait()
    servers.launch(leader)
    await _until_one(servers)
    if not this_round.first.is_set():
        raise NotInTime(f"no write was acknowledged within {FIRST_WRITE_SECONDS:.0f} s")
    return round((this_round.first_at - this_round.killed_at) * 1e6)


async def _until_one(servers: Servers) -> None:
    """Until all servers name the same leader; with load, their applied indexes differ from moment to moment."""
    with trio.move_on_after(READY_SECONDS):
        while True:
            statuses = await servers.statuses()
            seen = {(status["leader"], status["term"]) for status in statuses.values()}
            if len(statuses) == len(servers.ids) and len(seen) == 1 and None not in {leader for leader, _ in seen}:
                return
            await trio.sleep(0.05)
    raise NotInTime("the servers don't find together")


class _Writer:
    """Writes a file of its own through one server, all the time."""

    def __init__(self, record: Record, server: int, address: Address, number: int) -> None:
        self.is_over = False
        self.round = _Round()
        self.file = f"failover/{number}"
        self.acknowledged: bytes | None = None
        self._server = server
        self._address = address
        self._client = Client(record, [address], 0)

    async def work(self) -> None:
        """Write until it is over."""
        number = 0
        while not self.is_over:
            stream = await connect(self._address)
            if stream is None:
                await trio.sleep(0.02)
                continue
            async with stream:
                connection = Connection(stream)
                while not self.is_over:
                    number += 1
                    if not await self._write(connection, b"%d" % number):
                        break
                    await trio.sleep(PAUSE_SECONDS)

    async def _write(self, connection: Connection, content: bytes) -> bool:
        this_round = self.round
        sent_at = trio.current_time()
        operation = await self._client.perform(connection, self.file, Write(content))
        if not isinstance(operation.outcome, Written):
            self.acknowledged = None  # what comes of it can't be known
            return False
        self.acknowledged = content
        if sent_at > this_round.killed_at and self._server != this_round.victim and not this_round.first.is_set():
            this_round.first_at = trio.current_time()
            this_round.first.set()
        return True


async def _count_lost(servers: Servers, writers: Sequence[_Writer], record: Record) -> int:
    """How many writers' last acknowledged write isn't there."""
    address = servers.client_address(servers.ids[0])
    client = Client(record, [address], 0)
    stream = await connect(address)
    if stream is None:
        raise NotInTime("a server can't be connected to at the end")
    lost = 0
    async with stream:
        connection = Connection(stream)
        for writer in writers:
            if writer.acknowledged is not None:
                outcome = (await client.perform(connection, writer.file, Read())).outcome
                lost += not isinstance(outcome, Found) or outcome.digest != digest_of(writer.acknowledged)
    return lost
