"""Whole clusters of nodes that all run: everything comes out everywhere, once, in one order."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from raftnode.node_values import PeerStatus
from raftnode.submissions import Lane
from tests.stage3_raftnode.clusters import PATIENCE_SECONDS, numbered, open_cluster


@pytest.mark.parametrize("count", [1, 10, 100, 1000])
@pytest.mark.parametrize("at_leader", [True, False])
async def test_appends_come_out_in_one_order_everywhere(
    autojump_clock: MockClock, count: int, *, at_leader: bool
) -> None:
    async with open_cluster() as cluster:
        leader = await cluster.wait_leader()
        server = leader if at_leader else cluster.others(leader)[0]
        payloads = numbered(count)
        assert await server.append(*payloads) == list(range(1, count + 1))
        await cluster.settle(*payloads)
        assert all(server.items == payloads for server in cluster.running)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7])
async def test_clusters_of_all_sizes(autojump_clock: MockClock, size: int) -> None:
    async with open_cluster(size) as cluster:
        payloads = [b"at-%d" % server_id for server_id in cluster.servers]
        for server, payload in zip(cluster.running, payloads, strict=True):
            await server.append(payload)
        await cluster.settle(*payloads)
        assert all(server.items == payloads for server in cluster.running)


async def test_all_servers_submit_at_once(autojump_clock: MockClock) -> None:
    """Each server's batches come out in the order in which they were submitted there."""
    async with open_cluster() as cluster:
        payloads = {server_id: numbered(100, b"at-%d" % server_id) for server_id in cluster.servers}
        for batch in zip(*payloads.values(), strict=True):
            for server, payload in zip(cluster.running, batch, strict=True):
                server.submit(payload)
        await cluster.all_answered()
        await cluster.settle()
        items = cluster.servers[1].items
        for own in payloads.values():
            assert [item for item in items if item in set(own)] == own


async def test_submissions_before_there_is_a_leader_wait_for_one(autojump_clock: MockClock) -> None:
    async with open_cluster(start=False) as cluster:
        await cluster.start([1, 2])
        first = cluster.servers[1].submit(b"first")
        await trio.sleep(10)
        assert first.ended is None
        await cluster.start([3, 4, 5])
        second = cluster.servers[5].submit(b"second")
        await cluster.until(lambda: first.ended and second.ended)
        await cluster.settle(b"first", b"second")


async def test_a_server_that_starts_late(autojump_clock: MockClock) -> None:
    async with open_cluster(start=False) as cluster:
        await cluster.start([1, 2, 3, 4])
        payloads = numbered(500)
        await cluster.servers[1].append(*payloads)
        await cluster.start([5])
        await cluster.settle()
        assert cluster.servers[5].items == payloads
        await cluster.servers[5].append(b"its own")


async def test_one_message_in_ten_is_lost(autojump_clock: MockClock) -> None:
    async with open_cluster() as cluster:
        cluster.network.set_loss(0.1)
        for round_number in range(10):
            for server in cluster.running:
                for payload in numbered(5, b"at-%d-%d" % (server.server_id, round_number)):
                    server.submit(payload)
            await trio.sleep(0.05)
        await cluster.all_answered()
        await cluster.settle()
        assert len(cluster.servers[1].items) == len(cluster.history) == 250


async def test_messages_take_random_times(autojump_clock: MockClock) -> None:
    async with open_cluster() as cluster:
        cluster.network.set_delay(0, 60_000)
        for round_number in range(10):
            for server in cluster.running:
                server.submit(b"at-%d-%d" % (server.server_id, round_number))
            await trio.sleep(0.02)
        await cluster.all_answered()
        await cluster.settle()


async def test_an_idle_cluster_writes_nothing_and_keeps_its_leader(autojump_clock: MockClock) -> None:
    async with open_cluster() as cluster:
        await cluster.servers[1].append(b"last")
        await cluster.settle()
        leader = await cluster.wait_leader()
        index, term = leader.node.raft.log.last_index, leader.node.raft.current_term
        await trio.sleep(15)
        assert (leader.node.raft.log.last_index, leader.node.raft.current_term) == (index, term)
        assert all(server.node.raft.leader_id == leader.server_id for server in cluster.running)


async def test_small_batches_pass_bulk(autojump_clock: MockClock) -> None:
    """Pieces of a big content are on their way only a few at a time, so a small batch waits for few of them."""
    async with open_cluster() as cluster:
        server = cluster.others(await cluster.wait_leader())[0]
        pieces = [b"%d " % number + bytes(128 << 10) for number in range(64)]
        bulk = [server.submit(piece, Lane.BULK) for piece in pieces]
        await cluster.until(lambda: bulk[0].ended)
        small = server.submit(b"small")
        await cluster.until(lambda: small.ended)
        assert sum(piece.ended is not None for piece in bulk) < 32
        await cluster.until(lambda: bulk[-1].ended)
        await cluster.settle(b"small")
        assert [item for item in server.items if len(item) > 100] == pieces


async def test_bulk_waits_for_no_heartbeat(autojump_clock: MockClock) -> None:
    """Its window is filled again as soon as there is room."""
    async with open_cluster() as cluster:
        server = cluster.others(await cluster.wait_leader())[0]
        await server.append(b"first")
        begun = trio.current_time()
        for number in range(64):
            server.submit(b"%d " % number + bytes(128 << 10), Lane.BULK)
        await cluster.all_answered()
        assert trio.current_time() - begun < 0.05


async def test_the_first_batch_waits_for_no_heartbeat(autojump_clock: MockClock) -> None:
    """It goes as soon as the server's session is open."""
    async with open_cluster() as cluster:
        begun = trio.current_time()
        for server in cluster.running:
            server.submit(b"at-%d" % server.server_id)
        await cluster.all_answered()
        assert trio.current_time() - begun < 0.01


async def test_a_batch_larger_than_any_frame_or_message_limit(autojump_clock: MockClock) -> None:
    async with open_cluster(3) as cluster:
        big = b"big" + bytes(3 << 20)
        for server in cluster.running:
            await server.append(big + b"%d" % server.server_id)
        await cluster.settle()
        assert len(cluster.servers[1].items) == 3


async def test_a_withdrawn_batch_that_was_never_proposed_is_never_applied(autojump_clock: MockClock) -> None:
    async with open_cluster(3, start=False) as cluster:
        await cluster.start([1])
        server = cluster.servers[1]
        withdrawn, kept = server.submit(b"withdrawn"), server.submit(b"kept")
        assert len(server.node.submissions) == 2
        assert server.node.withdraw(withdrawn.submission)
        assert len(server.node.submissions) == 1
        await cluster.start([2, 3])
        await cluster.until(lambda: kept.ended)
        await cluster.settle()
        assert withdrawn.ended is None
        assert server.items == [b"kept"]


async def test_a_withdrawn_batch_that_was_proposed_is_applied_but_nobody_is_told(autojump_clock: MockClock) -> None:
    async with open_cluster(3) as cluster:
        server = cluster.servers[1]
        withdrawn = server.submit(b"withdrawn")
        await cluster.until(lambda: withdrawn.submission.proposed or None)
        assert not server.node.withdraw(withdrawn.submission)
        await server.append(b"after")
        await cluster.settle()
        assert withdrawn.ended is None
        assert server.items == [b"withdrawn", b"after"]


async def test_a_message_that_makes_no_sense_is_reported_and_dropped(autojump_clock: MockClock) -> None:
    async with open_cluster(3) as cluster:
        server = cluster.servers[1]
        server.node.deliver(2, [b"nonsense", b""])
        await cluster.until(lambda: server.has_said("message refused"))
        assert [details["sender"] for event, details in server.said if event == "message refused"] == [2, 2]
        await server.append(b"goes on")


async def test_what_a_leader_knows_of_the_others(autojump_clock: MockClock) -> None:
    async with open_cluster(3) as cluster:
        leader = await cluster.wait_leader()
        one, other = cluster.others(leader)
        await leader.append(*numbered(10))
        await cluster.settle()
        await one.kill()
        await leader.append(b"after")
        await trio.sleep(2)
        index = leader.node.raft.log.last_index
        assert leader.node.peer_status(leader.server_id) == PeerStatus(index, alive=True)
        assert leader.node.peer_status(other.server_id) == PeerStatus(index, alive=True)
        assert leader.node.peer_status(one.server_id) == PeerStatus(index - 1, alive=False)
        assert other.node.peer_status(leader.server_id) == PeerStatus(None, None)
        assert leader.node.average_save_us >= 0


async def test_handing_over_is_quick_and_loses_nothing(autojump_clock: MockClock) -> None:
    """A clean stop: another server leads at once, with no election timeout in between (thesis 3.10)."""
    async with open_cluster() as cluster:
        leader = await cluster.wait_leader()
        for server in cluster.running:
            for payload in numbered(20, b"at-%d" % server.server_id):
                server.submit(payload)
        begun = trio.current_time()
        await leader.node.hand_over(PATIENCE_SECONDS)
        assert trio.current_time() - begun < 0.1
        assert not leader.is_leader
        await cluster.all_answered()
        assert trio.current_time() - begun < 0.2
        await cluster.settle()


async def test_handing_over_where_there_is_nobody_to_hand_over_to(autojump_clock: MockClock) -> None:
    async with open_cluster(1) as cluster:
        server = cluster.servers[1]
        await server.node.hand_over(0.5)
        await server.append(b"goes on")
        assert server.is_leader


async def test_handing_over_by_a_server_that_does_not_lead(autojump_clock: MockClock) -> None:
    async with open_cluster(3) as cluster:
        leader = await cluster.wait_leader()
        await cluster.others(leader)[0].node.hand_over(PATIENCE_SECONDS)
        assert leader.is_leader
