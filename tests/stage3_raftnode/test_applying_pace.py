"""When what is committed is applied: at once where somebody waits, and elsewhere some entries together."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from raftnode.applying_pace import PACE_US, ApplyingPace
from statemachine.roles import Options
from tests.stage3_raftnode.clusters import Server, numbered, open_cluster

# All followers are sent everything at once, so that what they put off is their own doing; and no heartbeat comes in
# time to have them do it.
OPTIONS = Options(
    spare_us=0, heartbeat_us=50 * PACE_US, election_timeout_us_min=200 * PACE_US, election_timeout_us_max=400 * PACE_US
)


def test_the_first_after_a_pause_is_applied_at_once_and_what_follows_together() -> None:
    pace = ApplyingPace()
    assert pace.is_time(5, awaited=False)
    assert pace.until_us is None
    assert not pace.is_time(6, awaited=False)
    assert pace.until_us == 5 + PACE_US
    assert not pace.is_time(4 + PACE_US, awaited=False)
    assert pace.is_time(5 + PACE_US, awaited=False)
    assert pace.until_us is None


def test_what_was_put_off_is_forgotten_when_there_is_nothing_left() -> None:
    pace = ApplyingPace()
    assert pace.is_time(0, awaited=True)
    assert not pace.is_time(1, awaited=False)
    pace.rest()
    assert pace.until_us is None


def test_what_is_awaited_is_never_put_off() -> None:
    pace = ApplyingPace()
    assert all(pace.is_time(now_us, awaited=True) for now_us in range(3))
    assert not pace.is_time(PACE_US, awaited=False)
    assert pace.until_us == 2 + PACE_US


async def test_followers_without_clients_apply_together_and_soon(autojump_clock: MockClock) -> None:
    async with open_cluster(raft=OPTIONS) as cluster:
        leader = await cluster.wait_leader()
        followers = cluster.others(leader)
        applied: dict[Server, set[int]] = {server: set() for server in followers}
        payloads = numbered(400)
        for payload in payloads:
            await leader.append(payload)
            for server in followers:
                applied[server].add(len(server.items))
        assert len(leader.items) == 400
        for server in followers:
            assert 4 < len(applied[server]) < 40, "some of them at a time"
        begun = trio.current_time()
        nodes = [server.node for server in followers]
        await cluster.until(lambda: all(node.replica.applied_index == node.raft.commit_index for node in nodes))
        assert all(server.items == payloads[:399] for server in followers), "the next message tells of the last one"
        assert trio.current_time() - begun < 2 * PACE_US / 1e6


async def test_a_read_makes_a_follower_apply_what_it_needs_at_once(autojump_clock: MockClock) -> None:
    async with open_cluster(raft=OPTIONS) as cluster:
        leader = await cluster.wait_leader()
        reader = cluster.others(leader)[0]
        took: list[float] = []
        for count, payload in enumerate(numbered(20), 1):
            await leader.append(payload)
            begun = trio.current_time()
            assert len(await reader.read()) == count
            took.append(trio.current_time() - begun)
        assert max(took) < PACE_US / 1e6 / 2


async def test_a_followers_own_batches_are_answered_at_once(autojump_clock: MockClock) -> None:
    async with open_cluster(raft=OPTIONS) as cluster:
        leader = await cluster.wait_leader()
        server = cluster.others(leader)[0]
        await server.append(b"first")
        begun = trio.current_time()
        for count, payload in enumerate(numbered(20), 1):
            await leader.append(payload)
            await server.append(payload + b" of its own")
            assert len(leader.items) == 1 + 2 * count, "who leads has applied them, too, whose clients they ever are"
        assert (trio.current_time() - begun) / 20 < PACE_US / 1e6 / 2


async def test_who_comes_to_lead_has_applied_everything(autojump_clock: MockClock) -> None:
    async with open_cluster(raft=OPTIONS) as cluster:
        leader = await cluster.wait_leader()
        payloads = numbered(50)
        for payload in payloads:
            await leader.append(payload)
        await leader.kill()
        after = await cluster.wait_leader(cluster.running)
        await after.append(b"then")
        assert after.items == [*payloads, b"then"]


async def test_nothing_is_due_while_a_snapshot_is_installed(autojump_clock: MockClock) -> None:
    """What was put off can't be applied then: a deadline that has passed would keep the server awake."""
    async with open_cluster(raft=OPTIONS) as cluster:
        leader = await cluster.wait_leader()
        server = cluster.others(leader)[0]
        for payload in numbered(20):
            await leader.append(payload)
        node = server.node
        now_us = server.now_us()
        assert node.replica.applied_index < node.raft.commit_index
        assert node.deadline_us() < now_us + PACE_US
        node._snapshots.installing = True
        node.turn()
        assert node.deadline_us() > now_us + PACE_US
        node._snapshots.installing = False
        node.wake()
