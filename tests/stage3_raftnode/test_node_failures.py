"""Servers that stop, are killed, lose their power, and come back from disk."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.stage3_raftnode.clusters import Cluster, Server, numbered, open_cluster

ENDS = ["stop", "kill", "cut_power"]


async def end(server: Server, how: str) -> None:
    await getattr(server, how)()


@pytest.mark.parametrize("down", [1, 2])
@pytest.mark.parametrize("with_leader", [True, False])
async def test_a_minority_down(autojump_clock: MockClock, down: int, *, with_leader: bool) -> None:
    async with open_cluster() as cluster:
        leader = await cluster.wait_leader()
        await leader.append(*numbered(10))
        victims = [leader, *cluster.others(leader)] if with_leader else cluster.others(leader)
        for victim in victims[:down]:
            await victim.kill()
        for server in cluster.running:
            await server.append(b"after-%d" % server.server_id)
        await cluster.settle()
        assert len(cluster.running[0].items) == 10 + 5 - down


@pytest.mark.parametrize("with_leader", [True, False])
async def test_a_majority_down_commits_nothing(autojump_clock: MockClock, *, with_leader: bool) -> None:
    """A change waits, and completes once the majority is back."""
    async with open_cluster() as cluster:
        leader = await cluster.wait_leader()
        await leader.append(b"before")
        await cluster.settle()
        victims = ([leader, *cluster.others(leader)] if with_leader else cluster.others(leader))[:3]
        for victim in victims:
            await victim.kill()
        waiting = [server.submit(b"waits-%d" % server.server_id) for server in cluster.running]
        reads = [server.begin_read() for server in cluster.running]
        await trio.sleep(10)
        assert all(pending.ended is None for pending in waiting)
        assert not any(reads)
        assert all(server.items == [b"before"] for server in cluster.running)
        await victims[0].start()
        await cluster.until(lambda: all(pending.ended is not None for pending in waiting) and all(reads))
        await cluster.settle()


@pytest.mark.parametrize("how", ENDS)
async def test_the_leader_ends_twice_in_a_row(autojump_clock: MockClock, how: str) -> None:
    async with open_cluster() as cluster:
        for round_number in range(2):
            leader = await cluster.wait_leader()
            await cluster.others(leader)[0].append(*numbered(10, b"round-%d" % round_number))
            begun = trio.current_time()
            await end(leader, how)
            await cluster.wait_leader()
            assert trio.current_time() - begun < 2, "a killed leader is replaced within 2 s"
        await cluster.running[0].append(b"after")
        await cluster.settle()
        assert len(cluster.running[0].items) == 21
        for server in cluster.servers.values():
            if not server.running:
                await server.start()
        await cluster.settle(b"after")


@pytest.mark.parametrize("how", ENDS)
async def test_a_server_back_from_disk(autojump_clock: MockClock, how: str) -> None:
    async with open_cluster() as cluster:
        leader = await cluster.wait_leader()
        server = cluster.others(leader)[0]
        await leader.append(*numbered(50, b"before"))
        await cluster.settle()
        await end(server, how)
        await leader.append(*numbered(50, b"meanwhile"))
        await server.start()
        assert server.node.raft.log.last_index >= 50, "it came from disk, not from the leader"
        await cluster.settle()
        await server.append(b"after")
        await cluster.settle()
        assert len(server.items) == 101


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("size", [1, 3, 5])
async def test_all_back_from_disk(autojump_clock: MockClock, how: str, size: int) -> None:
    async with open_cluster(size) as cluster:
        payloads = numbered(100)
        await cluster.running[0].append(*payloads)
        for server in cluster.running:
            await end(server, how)
        await cluster.start()
        await cluster.running[-1].append(b"after")
        await cluster.settle()
        assert all(server.items == [*payloads, b"after"] for server in cluster.running)


async def test_all_lose_power_while_everybody_submits(autojump_clock: MockClock) -> None:
    """What was acknowledged to anybody is there afterwards; the rest at most once."""
    async with open_cluster(seed=3) as cluster:
        for round_number in range(4):
            for server in cluster.running:
                for payload in numbered(30, b"%d-at-%d" % (round_number, server.server_id)):
                    server.submit(payload)
            await trio.sleep(0.0004 * (round_number + 1))
            for server in cluster.running:
                await server.cut_power()
            await cluster.start()
            await cluster.wait_leader()
        await cluster.settle()
        assert any(pending.ended is not None for pending in cluster.history)
        assert any(pending.ended is None for pending in cluster.history)


async def test_a_log_comes_from_disk_and_not_from_the_leader(autojump_clock: MockClock) -> None:
    async with open_cluster(3) as cluster:
        leader = await cluster.wait_leader()
        server = cluster.others(leader)[0]
        await leader.append(*numbered(20))
        await cluster.settle()
        await server.stop()
        await server.start()
        assert server.node.raft.log.last_index == leader.node.raft.log.last_index
        assert await server.append(b"under its new session") == [21]


async def test_crashes_at_every_tenth_disk_call(autojump_clock: MockClock) -> None:
    """A call is cut in the middle, and then the power."""
    async with open_cluster(3) as cluster:
        for round_number, skipped in enumerate(range(1, 60, 7)):
            leader = await cluster.wait_leader()
            victim = leader if round_number % 2 else cluster.others(leader)[0]
            victim.disk.crash_at_call = victim.disk.call_count + skipped
            while victim.running:
                for server in cluster.running:
                    server.submit(b"%d-%d" % (server.server_id, cluster.next_event()))
                await trio.sleep(0.01)
            assert victim.ended_by is not None
            victim.disk.power_cut(cluster.dice)
            await victim.start(after_failure=True)
        await cluster.settle()
        assert_most_were_answered(cluster)


def assert_most_were_answered(cluster: Cluster) -> None:
    answered = sum(pending.ended is not None for pending in cluster.history)
    assert answered > len(cluster.history) * 0.6
