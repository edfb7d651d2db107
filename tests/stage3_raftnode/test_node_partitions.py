"""Networks that fall apart in all the ways they can, and come together again."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.stage3_raftnode.clusters import Cluster, Server, numbered, open_cluster


async def stays_unanswered(cluster: Cluster, servers: list[Server], name: bytes) -> None:
    """Changes and reads at these servers wait for as long as they are cut off."""
    pending = [server.submit(b"%b-%d" % (name, server.server_id)) for server in servers]
    reads = [server.begin_read() for server in servers]
    await trio.sleep(8)
    assert all(each.ended is None for each in pending)
    assert not any(reads)


@pytest.mark.parametrize("broken", [True, False])
@pytest.mark.parametrize("leader_in_majority", [True, False])
async def test_two_against_three(autojump_clock: MockClock, *, broken: bool, leader_in_majority: bool) -> None:
    async with open_cluster() as cluster:
        leader = await cluster.wait_leader()
        others = cluster.others(leader)
        minority = others[:2] if leader_in_majority else [leader, others[0]]
        majority = cluster.others(*minority)
        cluster.partition(minority, majority)
        await cluster.wait_leader(majority)
        for server in majority:
            await server.append(*numbered(20, b"at-%d" % server.server_id))
            assert len(await server.read()) >= 20
        await stays_unanswered(cluster, minority, b"cut-off")
        assert not any(server.is_leader for server in minority), "a leader without a majority steps down"
        cluster.heal(broken=broken)
        await cluster.all_answered()
        await cluster.settle()
        assert len(cluster.servers[1].items) == 62


@pytest.mark.parametrize("broken", [True, False])
async def test_a_three_way_split(autojump_clock: MockClock, *, broken: bool) -> None:
    async with open_cluster() as cluster:
        one, *rest = cluster.running
        cluster.partition([one], rest[:2], rest[2:])
        await stays_unanswered(cluster, cluster.running, b"split")
        assert cluster.leader is None
        cluster.heal(broken=broken)
        await cluster.all_answered()
        await cluster.settle()


async def test_every_partition_after_another(autojump_clock: MockClock) -> None:
    """Majorities that have only one server in common with the one before."""
    async with open_cluster() as cluster:
        servers = cluster.running
        for first in range(5):
            turned = servers[first:] + servers[:first]
            majority = turned[:3]
            cluster.partition(majority, turned[3:])
            await cluster.wait_leader(majority)
            for server in turned:
                server.submit(b"round-%d-at-%d" % (first, server.server_id))
            await cluster.all_answered(*majority)
        cluster.heal()
        await cluster.all_answered()
        await cluster.settle()


async def test_a_leader_that_hears_nobody_steps_down(autojump_clock: MockClock) -> None:
    """Its heartbeats arrive, so the others would wait for ever (openraft#2080)."""
    async with open_cluster() as cluster:
        leader = await cluster.wait_leader()
        for other in cluster.others(leader):
            cluster.network.cut_one_way(other.host, leader.host)
        await cluster.until(lambda: not leader.is_leader)
        others = cluster.others(leader)
        await cluster.until(lambda: cluster.leader in others or None)
        await others[0].append(b"after")
        pending = leader.submit(b"deaf")
        cluster.heal()
        await cluster.until(lambda: pending.ended)
        await cluster.settle()


async def test_a_follower_that_hears_nobody_disturbs_nobody(autojump_clock: MockClock) -> None:
    """Pre-votes and leader stickiness: the term stays (thesis 9.6)."""
    async with open_cluster() as cluster:
        leader = await cluster.wait_leader()
        follower = cluster.others(leader)[0]
        term = leader.node.raft.current_term
        for other in cluster.others(follower):
            cluster.network.cut_one_way(other.host, follower.host)
        await trio.sleep(8)
        assert await leader.append(b"meanwhile") == [1]
        cluster.heal()
        await cluster.settle(b"meanwhile")
        assert leader.is_leader
        assert leader.node.raft.current_term == term


async def test_a_follower_whose_link_to_the_leader_is_cut(autojump_clock: MockClock) -> None:
    """The others hear both, so they keep the leader; what the follower was told waits till it is healed."""
    async with open_cluster() as cluster:
        leader = await cluster.wait_leader()
        follower = cluster.others(leader)[0]
        cluster.network.cut(leader.host, follower.host)
        await leader.append(*numbered(10))
        await stays_unanswered(cluster, [follower], b"cut-off")
        assert leader.is_leader
        cluster.heal()
        await cluster.all_answered()
        await cluster.settle()


async def test_a_bridge(autojump_clock: MockClock) -> None:
    """Two pairs that see each other only through the fifth server; some leader emerges, and all goes on after it."""
    async with open_cluster() as cluster:
        bridge, *rest = cluster.running
        for left in rest[:2]:
            for right in rest[2:]:
                cluster.network.cut(left.host, right.host)
        await bridge.append(b"over the bridge")
        cluster.heal(broken=True)
        await cluster.settle()


async def test_links_that_break_all_the_time(autojump_clock: MockClock) -> None:
    """What was under way on a broken connection is sent again on the next one."""
    async with open_cluster(seed=2) as cluster:
        for round_number in range(40):
            for server in cluster.running:
                server.submit(b"%d-at-%d" % (round_number, server.server_id))
            one, other = cluster.dice.sample(sorted(cluster.servers), 2)
            await trio.sleep(cluster.dice.uniform(0, 0.01))
            cluster.network.reset(str(one), str(other))
        await cluster.all_answered()
        await cluster.settle()
