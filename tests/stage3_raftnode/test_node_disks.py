"""Nodes on disks that are slow, full or broken."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import trio
from trio.testing import MockClock

from raftnode.buffers import Chunk
from raftnode.disk_health import DiskFailed
from raftnode.simulated_disk import Call, SimulatedDisk
from raftnode.trio_runtime import monotonic_us
from tests.stage3_raftnode.clusters import Cluster, Server, T, numbered, open_cluster
from tests.stage3_raftnode.storage_tools import small_segments


class SlowDisk(SimulatedDisk):
    """Flushing takes time: in place it stops everything, in a worker thread only who waits for it."""

    def __init__(self, clock: MockClock, seed: int) -> None:
        super().__init__(seed)
        self.clock = clock
        self.flush_seconds = 0.0
        self.way_to_a_thread_seconds = 0.0
        self.in_thread = False
        self.in_place_count = 0
        self.thread_is_ahead_us = 0

    def write(self, handle: int, buffers: Sequence[Chunk], offset: int, *, flush: bool) -> int:
        if flush and self.in_thread:
            self.thread_is_ahead_us += round(self.flush_seconds * 1e6)
        elif flush:
            self.in_place_count += 1
            self.clock.jump(self.flush_seconds)
        return super().write(handle, buffers, offset, flush=flush)

    def now_us(self) -> int:
        """What the clock shows to whoever asks: time passes in a worker thread's call, too."""
        return monotonic_us() + self.thread_is_ahead_us

    async def run_blocking(self, function: Callable[..., T], *arguments: object) -> T:
        await trio.sleep(self.way_to_a_thread_seconds + self.flush_seconds)
        with self._thread():
            return function(*arguments)

    @contextmanager
    def _thread(self) -> Iterator[None]:
        self.in_thread = True
        yield
        self.in_thread = False
        self.thread_is_ahead_us = 0


async def start_on_slow_disks(cluster: Cluster, clock: MockClock) -> dict[int, SlowDisk]:
    disks = {server_id: SlowDisk(clock, server_id) for server_id in cluster.servers}
    for server_id, server in cluster.servers.items():
        server.disk = server.filesystem = disks[server_id]
        server.run_blocking = disks[server_id].run_blocking
        server.now_us = disks[server_id].now_us
    await cluster.start()
    await cluster.wait_leader()
    return disks


@pytest.mark.parametrize("at_leader", [True, False])
async def test_a_disk_that_hangs_stops_neither_heartbeats_nor_the_others(
    autojump_clock: MockClock, *, at_leader: bool
) -> None:
    """Saves go to a thread as soon as they take long; a majority of the others is enough (thesis 10.2.1)."""
    async with open_cluster(start=False) as cluster:
        disks = await start_on_slow_disks(cluster, autojump_clock)
        leader = await cluster.wait_leader()
        slow = leader if at_leader else cluster.others(leader)[0]
        disk = disks[slow.server_id]
        disk.flush_seconds = 0.1
        in_place_before = disk.in_place_count
        await leader.append(b"the first is slow")
        await trio.sleep(1)
        disk.flush_seconds = 3.0
        in_place = disk.in_place_count
        assert in_place <= in_place_before + 2
        for server in cluster.running:
            begun = trio.current_time()
            await server.append(*numbered(10, b"at-%d" % server.server_id))
            if not at_leader or server is not slow:
                assert trio.current_time() - begun < 0.2
        await trio.sleep(10)
        assert disk.in_place_count == in_place
        assert leader.is_leader, "nobody had a reason for an election"
        await cluster.settle()
        disk.flush_seconds = 0.0
        for number in range(100):
            await leader.append(b"quick-%d" % number)
        assert slow.node.average_save_us < 500
        await cluster.settle()


async def test_a_long_way_to_a_thread_and_back_is_not_taken_for_a_slow_disk(autojump_clock: MockClock) -> None:
    """Else a disk that was slow once would be thought slow for as long as the server is busy."""
    async with open_cluster(3, start=False) as cluster:
        disks = await start_on_slow_disks(cluster, autojump_clock)
        leader = await cluster.wait_leader()
        disk = disks[leader.server_id]
        disk.flush_seconds = 0.1
        await leader.append(*numbered(3, b"slow"))
        assert leader.node.average_save_us > 10_000
        disk.flush_seconds, disk.way_to_a_thread_seconds = 0.0, 0.02
        in_place = disk.in_place_count
        for number in range(50):
            await leader.append(b"quick-%d" % number)
            await trio.sleep(2 * disk.way_to_a_thread_seconds)
        assert leader.node.average_save_us < 500
        assert disk.in_place_count > in_place, "it is quick again, and so needs no thread"
        await cluster.settle()


async def test_all_disks_are_slow(autojump_clock: MockClock) -> None:
    """Latency rises, and what comes meanwhile shares the next flush; nobody is taken for dead."""
    async with open_cluster(3, start=False) as cluster:
        disks = await start_on_slow_disks(cluster, autojump_clock)
        leader = await cluster.wait_leader()
        for disk in disks.values():
            disk.flush_seconds = 0.05
        for number in range(20):
            await leader.append(b"one-%d" % number)
        term = leader.node.raft.current_term
        begun = trio.current_time()
        writes = leader.disk.counts[Call.WRITE]
        pending = []
        for number in range(500):
            pending.append(leader.submit(b"many-%d" % number))
            await trio.sleep(0.001)
        await cluster.all_answered()
        assert trio.current_time() - begun < 1
        assert leader.disk.counts[Call.WRITE] - writes < 30
        assert leader.node.raft.current_term == term
        await cluster.settle()


def segments_only(disk: SimulatedDisk) -> int:
    """Leaves no room but what the files have: the log's present segment can be filled, and no more."""
    disk.space_bytes = disk.used_bytes()
    return disk.space_bytes


async def fill_up(cluster: Cluster, servers: Sequence[Server]) -> None:
    """Takes all room from these disks, and appends until their servers have found out."""
    for server in servers:
        segments_only(server.disk)
    number = 0
    while not all(
        server.has_said("the disk is full: no new changes are taken until there is room") for server in servers
    ):
        await cluster.others(*servers)[0].append(b"filling-%d" % number)
        number += 1
        assert number < 1000


@pytest.fixture
def tiny_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    small_segments(monkeypatch, 8192)


@pytest.mark.usefixtures("tiny_segments")
async def test_a_full_disk_of_a_follower_harms_nobody_else(autojump_clock: MockClock) -> None:
    async with open_cluster() as cluster:
        leader = await cluster.wait_leader()
        full = cluster.others(leader)[0]
        await fill_up(cluster, [full])
        await leader.append(*(b"%d " % number + bytes(500) for number in range(40)))
        assert leader.is_leader
        assert not any(server.node.refuses_changes for server in cluster.running)
        assert await full.read()
        full.disk.space_bytes = None
        await cluster.until(lambda: full.has_said("the disk has room again"))
        await cluster.settle()
        await full.append(b"after")


@pytest.mark.usefixtures("tiny_segments")
async def test_a_leader_without_room_hands_over(autojump_clock: MockClock) -> None:
    async with open_cluster() as cluster:
        full = await cluster.wait_leader()
        await fill_up(cluster, [full])
        await cluster.until(lambda: not full.is_leader)
        leader = await cluster.wait_leader()
        await leader.append(*(b"%d " % number + bytes(500) for number in range(40)))
        assert not any(server.node.refuses_changes for server in cluster.running)
        full.disk.space_bytes = None
        await cluster.settle()


@pytest.mark.usefixtures("tiny_segments")
async def test_changes_are_refused_while_a_majority_has_no_room(autojump_clock: MockClock) -> None:
    """Everywhere, before they are on their way; reads go on; and all is well again as soon as there is room."""
    async with open_cluster() as cluster:
        full = cluster.others(await cluster.wait_leader())[:3]
        await fill_up(cluster, full)
        await cluster.until(lambda: all(server.node.refuses_changes for server in cluster.running))
        items = [await server.read() for server in cluster.running]
        assert len(set(items)) == 1
        late = [server.submit(b"at-%d " % server.server_id + bytes(5000)) for server in cluster.running]
        await trio.sleep(5)
        for server in cluster.running:
            assert await server.read()
        for server in full:
            server.disk.space_bytes = None
        await cluster.until(lambda: not any(server.node.refuses_changes for server in cluster.running))
        await cluster.until(lambda: all(pending.ended is not None for pending in late))
        await cluster.settle()


@pytest.mark.usefixtures("tiny_segments")
async def test_all_disks_are_full_and_the_servers_killed(autojump_clock: MockClock) -> None:
    async with open_cluster() as cluster:
        for server in cluster.running:
            segments_only(server.disk)
        number = 0
        while not all(server.node.refuses_changes for server in cluster.running):
            await cluster.running[0].append(b"filling-%d" % number)
            number += 1
        for server in cluster.running:
            server.submit(b"too much" + bytes(20_000))
        await trio.sleep(1)
        for server in cluster.running:
            await server.cut_power()
            server.disk.space_bytes = None
        await cluster.start()
        await cluster.running[0].append(b"after")
        await cluster.settle()


@pytest.mark.parametrize("call", [Call.FLUSH, Call.WRITE])
@pytest.mark.parametrize("at_leader", [True, False])
async def test_a_disk_that_fails_ends_the_server(autojump_clock: MockClock, call: Call, *, at_leader: bool) -> None:
    """A failed flush is final: what is on the disk can't be known. The others go on without it."""
    async with open_cluster() as cluster:
        leader = await cluster.wait_leader()
        victim = leader if at_leader else cluster.others(leader)[0]
        victim.disk.fail(call, errno.EIO, "log-")
        pending = victim.submit(b"last")
        await cluster.until(lambda: not victim.running)
        assert isinstance(victim.ended_by, BaseExceptionGroup)
        assert victim.ended_by.split(DiskFailed)[1] is None, "nothing but DiskFailed"
        assert pending.ended is None
        await cluster.wait_leader()
        await cluster.running[0].append(b"after")
        await cluster.settle()
        victim.disk.process_killed()
        await victim.start(after_failure=True)
        await cluster.settle()
        await victim.append(b"and again")


@pytest.mark.parametrize("call", [Call.FLUSH, Call.WRITE, Call.RENAME, Call.FLUSH_DIRECTORY])
async def test_a_disk_that_fails_under_a_snapshot_ends_the_server(autojump_clock: MockClock, call: Call) -> None:
    async with open_cluster(snapshot_log_bytes=4000) as cluster:
        victim = cluster.running[0]
        victim.disk.fail(call, errno.EIO, "" if call is Call.FLUSH_DIRECTORY else "snapshot-")
        number = 0
        while victim.running:
            await cluster.running[-1].append(b"item-%d" % number)
            number += 1
            assert number < 1000
        assert isinstance(victim.ended_by, BaseExceptionGroup)
        assert victim.ended_by.split(DiskFailed)[1] is None
        await cluster.settle()
        victim.disk.process_killed()
        await victim.start(after_failure=True)
        await cluster.settle()


async def test_a_disk_that_fails_to_prepare_room_ends_the_server(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_segments(monkeypatch)
    async with open_cluster(3) as cluster:
        victim = cluster.running[0]
        victim.disk.fail(Call.OPEN, errno.EIO, "log-")
        number = 0
        while victim.running:
            await cluster.running[-1].append(b"item-%d" % number)
            number += 1
        assert isinstance(victim.ended_by, BaseExceptionGroup)
        assert victim.ended_by.split(DiskFailed)[1] is None


async def test_a_disk_that_does_not_even_take_the_clock_ends_the_server(autojump_clock: MockClock) -> None:
    async with open_cluster(3) as cluster:
        victim = cluster.running[0]
        victim.disk.fail(Call.WRITE, errno.EIO, "clock")
        await cluster.until(lambda: not victim.running)
        assert isinstance(victim.ended_by, BaseExceptionGroup)


async def test_big_batches_are_saved_in_a_thread(autojump_clock: MockClock) -> None:
    """Their flush would hold up heartbeats."""
    async with open_cluster(3, start=False) as cluster:
        disks = await start_on_slow_disks(cluster, autojump_clock)
        leader = await cluster.wait_leader()
        await leader.append(b"first")
        await cluster.settle()
        for disk in disks.values():
            disk.flush_seconds = 0.01
            disk.in_place_count = 0
        await leader.append(b"big" + bytes(1 << 20))
        assert not any(disk.in_place_count for disk in disks.values())
        await cluster.settle()
