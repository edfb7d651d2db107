"""Nodes whose log is on disk but for its end: followers far behind are served from there, and need no snapshot."""

from __future__ import annotations

import errno

import pytest
from trio.testing import MockClock

from raftnode import frame_places
from raftnode.disk_health import DiskFailed, LogCorrupt
from raftnode.simulated_disk import Call
from raftnode.snapshot_keeper import MEMORY_FRACTION
from statemachine.roles import Options
from tests.stage3_raftnode.clusters import Cluster, Server, numbered, open_cluster
from tests.stage3_raftnode.storage_tools import log_names, small_segments

LOG_BYTES = 200_000
MEMORY_BYTES_MAX = 1.2 * LOG_BYTES / MEMORY_FRACTION
"""Each server draws its own limits, up to a fifth higher."""
PAYLOAD = b"meanwhile" + bytes(90)
COUNT = 1000


async def behind(cluster: Cluster) -> tuple[Server, Server]:
    """A leader, and a follower that was cut off until what it needs was in nobody's memory."""
    leader = await cluster.wait_leader()
    follower = cluster.others(leader)[0]
    await follower.append(b"its own")
    cluster.cut_off(follower)
    cluster.break_links(follower)
    leader = await cluster.wait_leader(cluster.others(follower))
    for first in range(1, COUNT, 20):
        await leader.append(*numbered(20, PAYLOAD, first))
    logs = [server.node.raft.log for server in cluster.others(follower)]
    await cluster.until(lambda: all(log.memory_bytes <= MEMORY_BYTES_MAX for log in logs))
    assert {log.first_index for log in logs} == {1}, "no snapshot was made"
    assert leader.node.raft.log.memory_base > follower.node.raft.log.last_index + 1
    return leader, follower


@pytest.fixture(autouse=True)
def many_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many pieces to read as a big log has."""
    small_segments(monkeypatch, 10_000)
    monkeypatch.setattr(frame_places, "PLACE_BYTES", 2000)


@pytest.mark.parametrize("raft", [Options(), Options(append_bytes_max=300, inflight_messages_max=3)])
async def test_a_follower_far_behind_is_served_from_disk(autojump_clock: MockClock, raft: Options) -> None:
    async with open_cluster(snapshot_log_bytes=LOG_BYTES, raft=raft) as cluster:
        _, follower = await behind(cluster)
        cluster.network.heal_all()
        await cluster.settle()
        assert not follower.has_said("snapshot installed")
        assert len(follower.items) == COUNT + 1
        await follower.append(b"after")


async def test_clients_are_served_meanwhile(autojump_clock: MockClock) -> None:
    async with open_cluster(snapshot_log_bytes=LOG_BYTES) as cluster:
        leader, follower = await behind(cluster)
        cluster.network.heal_all()
        while follower.node.raft.commit_index < leader.node.raft.commit_index:
            await leader.append(b"more")
            await follower.append(b"of its own")
        await cluster.settle()
        assert not follower.has_said("snapshot installed")


async def test_a_server_that_starts_with_a_long_log_serves_from_disk(autojump_clock: MockClock) -> None:
    async with open_cluster(3, snapshot_log_bytes=LOG_BYTES) as cluster:
        _, follower = await behind(cluster)
        rest = cluster.others(follower)
        for server in rest:
            await server.cut_power()
        await cluster.start([server.server_id for server in rest])
        leader = await cluster.wait_leader(rest)
        await leader.append(b"after")
        assert leader.node.raft.log.memory_base > follower.node.raft.log.last_index + 1
        cluster.network.heal_all()
        await cluster.settle()
        assert not follower.has_said("snapshot installed")


async def test_a_log_that_cannot_be_read_ends_the_server(autojump_clock: MockClock) -> None:
    async with open_cluster(snapshot_log_bytes=LOG_BYTES) as cluster:
        leader, follower = await behind(cluster)
        leader.disk.fail(Call.READ, errno.EIO, "log-")
        cluster.network.heal_all()
        await cluster.until(lambda: not leader.running)
        assert isinstance(leader.ended_by, BaseExceptionGroup)
        assert leader.ended_by.split(DiskFailed)[1] is None
        await cluster.until(lambda: len(follower.items) == COUNT + 1)


async def test_a_damaged_log_ends_the_server_that_has_to_read_it(autojump_clock: MockClock) -> None:
    """It couldn't start again with that log either; the others have what is damaged."""
    async with open_cluster(snapshot_log_bytes=LOG_BYTES) as cluster:
        leader, follower = await behind(cluster)
        name = log_names(leader.disk, leader.directory)[1]
        leader.disk.damage(leader.directory / name, 1000)
        cluster.network.heal_all()
        await cluster.until(lambda: not leader.running)
        assert isinstance(leader.ended_by, BaseExceptionGroup)
        assert leader.ended_by.split(LogCorrupt)[1] is None
        await cluster.until(lambda: len(follower.items) == COUNT + 1)
