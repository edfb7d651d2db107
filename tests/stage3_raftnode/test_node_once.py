"""Exactly once: whatever fails in between, a live server's batch is applied once, and its results are told once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from raftnode import proposer
from statemachine.roles import Options
from tests.stage3_raftnode.clusters import Cluster, Server, T, numbered, open_cluster


@pytest.mark.parametrize("how", ["kill", "cut_power", "stop", "cut_off"])
async def test_leader_changes_with_batches_in_flight_everywhere(autojump_clock: MockClock, how: str) -> None:
    async with open_cluster() as cluster:
        for round_number in range(3):
            leader = await cluster.wait_leader()
            for server in cluster.running:
                for payload in numbered(30, b"%d-at-%d" % (round_number, server.server_id)):
                    server.submit(payload)
            await trio.sleep(0.0003 * round_number)
            others = cluster.others(leader)
            if how == "cut_off":
                cluster.cut_off(leader)
            else:
                await getattr(leader, how)()
            await cluster.wait_leader(others)
            for server in others:
                server.submit(b"%d-after-at-%d" % (round_number, server.server_id))
            await cluster.all_answered(*others)
            if how == "cut_off":
                cluster.network.heal_all()
            else:
                await leader.start()
            await cluster.settle()
        if how == "cut_off":
            assert all(pending.ended is not None for pending in cluster.history)
            assert len(cluster.running[0].items) == 3 * (5 * 30 + 4)


async def test_leadership_that_moves_all_the_time(autojump_clock: MockClock) -> None:
    """Handing over while batches stream in: nobody is killed, so everything has its result in the end."""
    async with open_cluster() as cluster:
        for round_number in range(20):
            for server in cluster.running:
                server.submit(b"%d-at-%d" % (round_number, server.server_id))
            await trio.sleep(cluster.dice.uniform(0, 0.003))
            leader = cluster.leader
            if leader is not None:
                await leader.node.hand_over(0.2)
        await cluster.all_answered()
        await cluster.settle()
        assert len(cluster.servers[1].items) == 100


async def test_proposals_that_get_lost_are_sent_again_in_time(autojump_clock: MockClock) -> None:
    async with open_cluster(3) as cluster:
        leader = await cluster.wait_leader()
        server = cluster.others(leader)[0]
        await server.append(b"first")
        cluster.network.set_loss(1.0, server.host, leader.host)
        pending = server.submit(b"lost")
        await trio.sleep(0.0005)
        cluster.network.set_loss(0.0, server.host, leader.host)
        begun = trio.current_time()
        await cluster.until(lambda: pending.ended)
        assert proposer.RESEND_US / 1e6 * 0.9 < trio.current_time() - begun < proposer.RESEND_US / 1e6 * 1.5
        await cluster.settle()
        assert server.items == [b"first", b"lost"]


async def test_a_gap_is_filled_before_what_follows(autojump_clock: MockClock) -> None:
    """The leader gets the second of two batches only: it waits for both, in order."""
    async with open_cluster(3) as cluster:
        leader = await cluster.wait_leader()
        server = cluster.others(leader)[0]
        await server.append(b"zero")
        cluster.network.set_loss(1.0, server.host, leader.host)
        server.submit(b"one")
        await trio.sleep(0.0005)
        cluster.network.set_loss(0.0, server.host, leader.host)
        server.submit(b"two")
        await cluster.all_answered()
        await cluster.settle()
        assert server.items == [b"zero", b"one", b"two"]


async def test_a_restarted_server_begins_a_session_of_its_own(autojump_clock: MockClock) -> None:
    """Its sequence numbers begin again, and nothing of the last run's is taken for the new one's."""
    async with open_cluster(3) as cluster:
        server = cluster.others(await cluster.wait_leader())[0]
        await server.append(*numbered(5, b"first"))
        session = server.node.submissions.session
        await server.kill()
        await server.start()
        await server.append(*numbered(5, b"second"))
        await cluster.settle()
        assert server.node.submissions.session > session
        for each in cluster.running:
            assert each.machine.state.ended_sessions == [session]
            assert len(each.node.replica.sessions) == 3
        assert server.items == numbered(5, b"first") + numbered(5, b"second")


async def test_results_are_kept_only_until_they_are_had(autojump_clock: MockClock) -> None:
    async with open_cluster(3) as cluster:
        server = cluster.running[0]
        for payload in numbered(50):
            await server.append(payload)
        await cluster.settle()
        session = cluster.running[1].node.replica.session_of(server.server_id)
        assert session is not None
        assert session.sequence == 50
        assert len(session.results) == 1


# Everything at once

DOWN_MAX = 2


@pytest.mark.parametrize("in_threads", [True, False])
@pytest.mark.parametrize("seed", range(6))
async def test_random_faults(autojump_clock: MockClock, seed: int, *, in_threads: bool) -> None:
    """Kills, power cuts, partitions, loss, delay, handing over, with small snapshots, changes and reads all through.

    With saves in place, or all of them in threads that take a random time.
    """
    raft = Options(snapshot_chunk_bytes=2000)
    async with open_cluster(start=False, seed=seed, snapshot_log_bytes=3000, raft=raft) as cluster:
        if in_threads:
            cluster.in_place_bytes_max = 0
            for server in cluster.servers.values():
                server.run_blocking = in_random_time(cluster)
        await cluster.start()
        for _ in range(60):
            await disturb(cluster)
            for server in cluster.running:
                server.submit(b"%d-at-%d" % (cluster.next_event(), server.server_id))
                if cluster.dice.random() < 0.5:
                    server.begin_read()
            await trio.sleep(cluster.dice.choice([0, 0.0002, 0.001, 0.05, 0.4]))
        cluster.network.heal_all()
        cluster.network.set_loss(0)
        cluster.network.set_delay(100, 300)
        for server in cluster.servers.values():
            if not server.running:
                await server.start()
        await cluster.all_answered()
        await cluster.settle()
        assert not any(server.ended_by for server in cluster.servers.values())
        assert sum(pending.ended is not None for pending in cluster.history) > 50
        assert len(cluster.reads) > 20


def in_random_time(cluster: Cluster) -> Callable[..., Awaitable[Any]]:
    """Worker threads of a busy machine with a slow disk."""

    async def run(function: Callable[..., T], *arguments: object) -> T:
        await trio.sleep(cluster.dice.choice([0, 0.001, 0.03]))
        return function(*arguments)

    return run


async def disturb(cluster: Cluster) -> None:
    dice = cluster.dice
    down = [server for server in cluster.servers.values() if not server.running]
    await_nothing = ["loss", "delay", "split", "heal", "heal", "reset", "nothing", "nothing"]
    act = dice.choice([*await_nothing, "kill", "cut_power", "stop", "start", "start"])
    server = dice.choice(cluster.running)
    if act in ("kill", "cut_power", "stop") and len(down) < DOWN_MAX:
        await end(server, act)
    elif act == "start" and down:
        await dice.choice(down).start()
    elif act == "loss":
        cluster.network.set_loss(dice.choice([0, 0, 0.05]))
    elif act == "delay":
        cluster.network.set_delay(0, dice.choice([0, 300, 20_000, 100_000]))
    elif act == "split":
        mixed = dice.sample(list(cluster.servers.values()), 5)
        at = dice.randint(1, 2)
        cluster.partition(mixed[:at], mixed[at:])
    elif act == "heal":
        cluster.network.heal_all()
    elif act == "reset":
        one, other = dice.sample(sorted(cluster.servers), 2)
        cluster.network.reset(str(one), str(other))


async def end(server: Server, act: str) -> None:
    if act == "stop":
        await server.stop(0.1)
    elif act == "kill":
        await server.kill()
    else:
        await server.cut_power()
