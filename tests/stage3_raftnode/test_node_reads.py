"""Reads at every server: fresh whatever happens to leaders and networks (thesis 6.4, linearizability)."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.stage3_raftnode.clusters import Cluster, numbered, open_cluster


async def work(cluster: Cluster, rounds: int, pause_seconds: float) -> None:
    """Changes and reads at every server, whether they are answered or not; `Cluster.check` judges their order."""
    for _ in range(rounds):
        for server in cluster.running:
            server.submit(b"%d-at-%d" % (cluster.next_event(), server.server_id))
            server.begin_read()
        await trio.sleep(pause_seconds)


async def all_answered(cluster: Cluster, reads: int) -> None:
    await cluster.all_answered()
    await cluster.until(lambda: len(cluster.reads) == reads)
    await cluster.settle()


async def test_a_read_sees_what_any_server_has_acknowledged(autojump_clock: MockClock) -> None:
    async with open_cluster() as cluster:
        for writer in cluster.running:
            payload = b"at-%d" % writer.server_id
            await writer.append(payload)
            for reader in cluster.running:
                assert (await reader.read())[-1] == payload
        await cluster.settle()


async def test_reads_write_nothing(autojump_clock: MockClock) -> None:
    async with open_cluster() as cluster:
        await cluster.servers[1].append(b"last")
        await cluster.settle()
        index = cluster.servers[1].node.raft.log.last_index
        for server in cluster.running:
            assert await server.read() == (b"last",)
        assert cluster.servers[1].node.raft.log.last_index == index


async def test_reads_that_come_together_share_a_barrier(autojump_clock: MockClock) -> None:
    async with open_cluster() as cluster:
        leader = await cluster.wait_leader()
        round_number = leader.node.raft.round_number
        reads = [server.begin_read() for server in cluster.running for _ in range(100)]
        await cluster.until(lambda: all(reads))
        assert leader.node.raft.round_number - round_number <= 4


async def test_a_restarted_server_reads_nothing_old(autojump_clock: MockClock) -> None:
    """Its disk has an old state, and it may even lead: reads wait for an entry of its own term (etcd#7331)."""
    async with open_cluster(3) as cluster:
        leader = await cluster.wait_leader()
        await leader.append(*numbered(20))
        for server in cluster.running:
            await server.kill()
        await cluster.start()
        reads = [server.begin_read() for server in cluster.running]
        await cluster.until(lambda: all(reads))
        assert all(len(read[0].items) == 20 for read in reads)
        await cluster.settle()


async def test_a_deposed_leader_reads_nothing_old(autojump_clock: MockClock) -> None:
    async with open_cluster() as cluster:
        leader = await cluster.wait_leader()
        await leader.append(b"before")
        cluster.cut_off(leader)
        assert leader.is_leader
        stale = leader.begin_read()
        others = cluster.others(leader)
        await cluster.wait_leader(others)
        await others[0].append(b"after")
        assert not stale
        cluster.network.heal_all()
        await cluster.until(lambda: bool(stale))
        assert stale[0].items == (b"before", b"after")
        await cluster.settle()


async def test_reads_while_leaders_change(autojump_clock: MockClock) -> None:
    async with open_cluster() as cluster:
        for round_number in range(6):
            leader = await cluster.wait_leader()
            await work(cluster, 3, 0.0004)
            if round_number % 2:
                await leader.node.hand_over(1)
            else:
                cluster.cut_off(leader)
                await work(cluster, 3, 0.3)
                cluster.network.heal_all()
        await all_answered(cluster, len(cluster.history))


@pytest.mark.parametrize("seed", range(3))
async def test_reads_with_loss_delay_and_breaking_links(autojump_clock: MockClock, seed: int) -> None:
    async with open_cluster(seed=seed) as cluster:
        cluster.network.set_loss(0.05)
        cluster.network.set_delay(0, 30_000)
        for _ in range(10):
            await work(cluster, 1, cluster.dice.uniform(0, 0.2))
            one, other = cluster.dice.sample(sorted(cluster.servers), 2)
            cluster.network.reset(str(one), str(other))
        await all_answered(cluster, 50)


async def test_a_barrier_that_is_refused_is_not_asked_for_all_the_time(autojump_clock: MockClock) -> None:
    """A follower that still believes in a leader that has stepped down asks it now and then, not without a pause."""
    async with open_cluster() as cluster:
        leader = await cluster.wait_leader()
        follower, *rest = cluster.others(leader)
        cluster.partition([leader, follower], rest)
        read = follower.begin_read()
        await trio.sleep(5)
        assert not read
        assert follower.node._barriers._next_number < 50
        cluster.network.heal_all()
        await cluster.until(lambda: bool(read))
