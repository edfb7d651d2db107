"""The cluster clock of whole clusters: nothing happens early, and time goes on through everything that fails."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from raftnode.trio_runtime import monotonic_us
from tests.stage3_raftnode.clusters import Cluster, Server, open_cluster

DELAY_SECONDS = 5
SUBMIT = b"in 5000000 due"


async def wait_due(cluster: Cluster, *servers: Server) -> float:
    """Until the item that was to come by itself is there on all these servers; the time of it."""
    await cluster.until(lambda: all(b"due" in server.items for server in servers or cluster.running))
    return trio.current_time()


async def test_a_deadline_is_reached_on_waking(autojump_clock: MockClock) -> None:
    """In floats a number of microseconds may come back a little smaller; who slept till then mustn't sleep again."""
    for deadline_us in range(1_000_003, 200_000_000, 99_991):
        await trio.sleep_until(deadline_us / 1e6)
        assert monotonic_us() >= deadline_us


@pytest.mark.parametrize("at_leader", [True, False])
async def test_what_is_due_comes_in_time_and_never_early(autojump_clock: MockClock, *, at_leader: bool) -> None:
    async with open_cluster() as cluster:
        leader = await cluster.wait_leader()
        server = leader if at_leader else cluster.others(leader)[0]
        begun = trio.current_time()
        await server.append(SUBMIT)
        assert begun + DELAY_SECONDS <= await wait_due(cluster) <= begun + DELAY_SECONDS + 0.1
        await cluster.settle()


async def test_one_tick_brings_all_that_is_due(autojump_clock: MockClock) -> None:
    """An idle cluster writes an entry when something is due, and no other."""
    async with open_cluster() as cluster:
        leader = await cluster.wait_leader()
        await leader.append(*(b"in 2000000 due-%d" % number for number in range(10)))
        await cluster.settle()
        index = leader.node.raft.log.last_index
        await trio.sleep(1.9)
        assert leader.node.raft.log.last_index == index
        await cluster.until(lambda: len(leader.items) == 10)
        await trio.sleep(5)
        await cluster.settle()
        assert leader.node.raft.log.last_index == index + 1


async def test_a_batch_serves_as_a_tick(autojump_clock: MockClock) -> None:
    async with open_cluster() as cluster:
        leader = await cluster.wait_leader()
        await leader.append(b"in 10000 due")
        while len(leader.items) < 100:
            await leader.append(b"other-%d" % len(leader.items))
        assert b"due" in leader.items
        await cluster.settle()
        assert leader.items.index(b"due") < 99


@pytest.mark.parametrize("how", ["kill", "stop", "cut_off"])
async def test_time_goes_on_with_the_next_leader(autojump_clock: MockClock, how: str) -> None:
    async with open_cluster() as cluster:
        begun = trio.current_time()
        await cluster.running[0].append(SUBMIT)
        for _ in range(2):
            await trio.sleep(1)
            leader = await cluster.wait_leader()
            others = cluster.others(leader)
            if how == "cut_off":
                cluster.network.heal_all()
                cluster.cut_off(leader)
            else:
                await getattr(leader, how)()
            await cluster.wait_leader(others)
            cluster.heal()
        assert begun + DELAY_SECONDS <= await wait_due(cluster) <= begun + DELAY_SECONDS + 0.1
        await cluster.settle()


async def test_the_leader_is_lost_just_when_something_is_due(autojump_clock: MockClock) -> None:
    async with open_cluster() as cluster:
        begun = trio.current_time()
        await cluster.running[0].append(SUBMIT)
        leader = await cluster.wait_leader()
        await trio.sleep_until(begun + DELAY_SECONDS - 0.01)
        await leader.kill()
        assert begun + DELAY_SECONDS <= await wait_due(cluster) <= begun + DELAY_SECONDS + 2
        await cluster.settle()


async def test_a_leader_without_a_majority_lets_nothing_happen(autojump_clock: MockClock) -> None:
    async with open_cluster() as cluster:
        leader = await cluster.wait_leader()
        await leader.append(SUBMIT)
        await cluster.settle()
        others = cluster.others(leader)
        cluster.cut_off(leader)
        await trio.sleep(DELAY_SECONDS + 1)
        assert leader.items == []
        await wait_due(cluster, *others)
        cluster.heal()
        await wait_due(cluster)
        await cluster.settle()


async def test_servers_that_counted_on_beside_a_restarted_majority_make_nothing_early(
    autojump_clock: MockClock,
) -> None:
    """While the majority was down time stood still, whatever two that were up on the other side have counted."""
    async with open_cluster() as cluster:
        leader = await cluster.wait_leader()
        await leader.append(b"before")
        await trio.sleep(3)
        counting = [leader, cluster.others(leader)[0]]
        restarted = cluster.others(*counting)
        for server in restarted:
            await server.kill()
        cluster.partition(counting, restarted)
        await trio.sleep(10)
        for server in restarted:
            await server.start()
        second = await cluster.wait_leader(restarted)
        begun = trio.current_time()
        await second.append(SUBMIT)
        await trio.sleep(1)
        await second.kill()
        cluster.heal()
        assert begun + DELAY_SECONDS <= await wait_due(cluster) <= begun + DELAY_SECONDS + 2
        await second.start()
        await cluster.settle()


@pytest.mark.parametrize("how", ["kill", "cut_power", "stop"])
async def test_time_goes_on_after_all_were_down(autojump_clock: MockClock, how: str) -> None:
    """Nobody counts while all are down: what is due comes later by that, and by no more than a second or so."""
    async with open_cluster() as cluster:
        begun = trio.current_time()
        await cluster.running[0].append(SUBMIT)
        await trio.sleep(2)
        for server in cluster.running:
            await getattr(server, how)()
        await trio.sleep(100)
        await cluster.start()
        due = await wait_due(cluster)
        lost_seconds = 4 if how == "cut_power" else 2
        assert begun + 100 + DELAY_SECONDS <= due <= begun + 100 + DELAY_SECONDS + lost_seconds
        await cluster.settle()


async def test_a_server_that_starts_late_learns_the_time(autojump_clock: MockClock) -> None:
    async with open_cluster(start=False) as cluster:
        await cluster.start([1, 2, 3, 4])
        leader = await cluster.wait_leader()
        await trio.sleep(50)
        await cluster.start([5])
        late = cluster.servers[5].node
        await cluster.until(lambda: late.raft.leader_id)
        await trio.sleep(0.2)
        assert 0 <= leader.node.clock.now_us() - late.clock.now_us() < 1000
        cluster.check()
