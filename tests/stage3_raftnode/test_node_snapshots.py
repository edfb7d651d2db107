"""Snapshots of nodes: the log stays short, servers start from them, and followers far behind catch up by them."""

from __future__ import annotations

import errno
from collections.abc import Callable
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from raftnode.simulated_disk import Call
from raftnode.snapshot_keeper import LOG_GROWTH_MAX, NO_ROOM_PAUSE_US
from raftnode.storage import Storage
from raftnode.trio_runtime import TrioRuntime
from statemachine.roles import Options
from tests.stage3_raftnode.clusters import Cluster, Server, T, numbered, open_cluster
from tests.stage3_raftnode.storage_tools import small_segments

LOG_BYTES = 4000
SMALL_CHUNKS = Options(snapshot_chunk_bytes=500)


def snapshots(server: Server) -> list[str]:
    return sorted(name for name in server.disk.list_directory(server.directory) if name.endswith(".snap"))


def spares(server: Server) -> list[str]:
    """Old segments that are kept to be used again."""
    names = server.disk.list_directory(server.directory)
    return [name for name in names if name.startswith("log-0") and name.endswith(".tmp")]


def temporary(server: Server) -> list[str]:
    return [
        name
        for name in server.disk.list_directory(server.directory)
        if name.startswith("snapshot-") and name.endswith(".tmp")
    ]


async def append_one_by_one(server: Server, count: int, name: bytes) -> None:
    for payload in numbered(count, name):
        await server.append(payload)


async def behind(cluster: Cluster) -> Server:
    """A follower that was cut off for so long that only a snapshot can help it."""
    leader = await cluster.wait_leader()
    follower = cluster.others(leader)[0]
    await follower.append(b"its own")
    cluster.cut_off(follower)
    cluster.break_links(follower)
    rest = cluster.others(follower)
    leader = await cluster.wait_leader(rest)
    await append_one_by_one(leader, 300, b"meanwhile")
    assert all(server.node.raft.log.first_index > follower.node.raft.log.last_index for server in rest)
    return follower


async def test_logs_are_compacted_in_memory_and_on_disk(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_segments(monkeypatch)
    async with open_cluster(3, snapshot_log_bytes=LOG_BYTES) as cluster:
        server = cluster.running[0]
        await append_one_by_one(server, 1000, b"item")
        await cluster.settle()
        await cluster.until(lambda: not any(each.machine.snapshots_open for each in cluster.running))
        for each in cluster.running:
            log = each.node.raft.log
            assert log.last_index - log.first_index < 400
            assert each.storage.log_bytes < 8 * LOG_GROWTH_MAX * LOG_BYTES
            assert len(snapshots(each)) == 2
            assert not temporary(each)


async def test_a_server_starts_from_its_snapshot(autojump_clock: MockClock) -> None:
    async with open_cluster(3, snapshot_log_bytes=LOG_BYTES) as cluster:
        await append_one_by_one(cluster.running[0], 300, b"item")
        await cluster.settle()
        for server in cluster.running:
            await server.cut_power()
        await cluster.start()
        for server in cluster.running:
            assert server.node.replica.applied_index > 100, "it began with what the snapshot has"
        await cluster.running[1].append(b"after")
        await cluster.settle()
        assert cluster.running[0].items == [*numbered(300), b"after"]


async def test_a_cluster_that_goes_from_snapshot_to_snapshot(autojump_clock: MockClock) -> None:
    async with open_cluster(3, snapshot_log_bytes=LOG_BYTES) as cluster:
        for round_number in range(4):
            await append_one_by_one(cluster.running[round_number % 3], 150, b"round-%d" % round_number)
            for server in cluster.running:
                await server.kill()
            await cluster.start()
            await cluster.wait_leader()
        await cluster.settle()
        assert len(cluster.running[0].items) == 600


@pytest.mark.parametrize("raft", [Options(), SMALL_CHUNKS])
async def test_a_follower_far_behind_gets_a_snapshot(autojump_clock: MockClock, raft: Options) -> None:
    async with open_cluster(snapshot_log_bytes=LOG_BYTES, raft=raft) as cluster:
        follower = await behind(cluster)
        cluster.network.heal_all()
        await cluster.settle()
        assert follower.has_said("snapshot installed")
        assert len(follower.items) == 301
        await follower.append(b"after")
        await follower.kill()
        await follower.start()
        assert follower.node.replica.applied_index > 200, "what was installed is on its disk"
        await cluster.settle(b"after")


async def test_a_server_without_anything_gets_a_snapshot(autojump_clock: MockClock) -> None:
    async with open_cluster(3, start=False, snapshot_log_bytes=LOG_BYTES, raft=SMALL_CHUNKS) as cluster:
        await cluster.start([1, 2])
        await append_one_by_one(cluster.servers[1], 300, b"item")
        await cluster.start([3])
        await cluster.settle()
        assert cluster.servers[3].has_said("snapshot installed")
        assert cluster.servers[3].items == numbered(300)


async def test_batches_that_were_applied_elsewhere_have_their_results_in_the_snapshot(
    autojump_clock: MockClock,
) -> None:
    """A server submits, hears nothing more, and is caught up by a snapshot that has its batches applied already."""
    async with open_cluster(snapshot_log_bytes=LOG_BYTES, raft=SMALL_CHUNKS) as cluster:
        leader = await cluster.wait_leader()
        follower = cluster.others(leader)[0]
        await follower.append(b"before")
        for other in cluster.others(follower):
            cluster.network.cut_one_way(other.host, follower.host)
        pending = [follower.submit(payload) for payload in numbered(5, b"unheard")]
        await cluster.until(lambda: leader.items[-1:] == [b"unheard-5"])
        await append_one_by_one(leader, 300, b"meanwhile")
        cluster.break_links(follower)
        assert not any(each.ended for each in pending)
        cluster.network.heal_all()
        await cluster.until(lambda: all(each.ended is not None for each in pending))
        assert follower.has_said("snapshot installed")
        assert [each.results for each in pending] == [2, 3, 4, 5, 6]
        await cluster.settle()


@pytest.mark.parametrize("raft", [SMALL_CHUNKS, Options()], ids=["many chunks", "one chunk"])
async def test_a_leader_whose_snapshot_is_damaged_makes_another(autojump_clock: MockClock, raft: Options) -> None:
    """Found by simulation: a follower that needs a snapshot was sent a rotten one over and over."""
    async with open_cluster(3, snapshot_log_bytes=LOG_BYTES, raft=raft) as cluster:
        follower = await behind(cluster)
        leader = await cluster.wait_leader(cluster.others(follower))
        latest = leader.storage.snapshots.latest
        assert latest is not None
        leader.disk.damage(latest.path, latest.size_bytes // 2)
        cluster.network.heal_all()
        await cluster.settle()
        assert follower.has_said("a received snapshot could not be used")
        assert leader.has_said("a snapshot is damaged: another is made")
        assert follower.has_said("snapshot installed")


async def test_commits_go_on_while_a_snapshot_is_installed(autojump_clock: MockClock) -> None:
    async def slowly(function: Callable[..., T], *arguments: object) -> T:
        await trio.sleep(0.01)
        return function(*arguments)

    async with open_cluster(snapshot_log_bytes=LOG_BYTES, raft=SMALL_CHUNKS) as cluster:
        follower = await behind(cluster)
        await follower.kill()
        follower.run_blocking = slowly
        await follower.start()
        cluster.network.heal_all()
        leader = await cluster.wait_leader(cluster.others(follower))
        rounds = 0
        while not follower.has_said("snapshot installed"):
            await leader.append(b"during-%d" % rounds)
            rounds += 1
            await trio.sleep(0.005)
        assert rounds > 10
        await cluster.settle()
        assert await follower.read() == tuple(leader.items)


async def test_the_next_snapshot_is_made_before_the_log_begins_anew_behind_the_installed_one(
    autojump_clock: MockClock,
) -> None:
    """On a disk that is slow with the log, a server may have applied and snapshotted more than it has saved."""

    async def slow_to_reset(function: Callable[..., T], *arguments: object) -> T:
        if getattr(function, "func", None) == follower.storage.reset_to:
            await cluster.until(lambda: follower.has_said("snapshot made"))
        return function(*arguments)

    async with open_cluster(snapshot_log_bytes=LOG_BYTES) as cluster:
        follower = await behind(cluster)
        await follower.kill()
        follower.run_blocking = slow_to_reset
        follower.said.clear()
        await follower.start()
        cluster.network.heal_all()
        leader = await cluster.wait_leader(cluster.others(follower))
        await cluster.until(lambda: follower.has_said("snapshot installed"))
        follower.node._snapshots._due_log_bytes = 100
        await append_one_by_one(leader, 10, b"after")
        await cluster.until(lambda: follower.has_said("snapshot made"))
        await cluster.settle()
        await follower.cut_power()
        await follower.start()
        await cluster.settle()


async def test_a_snapshot_of_a_term_that_was_not_saved_yet(autojump_clock: MockClock) -> None:
    """The others have committed in a new term what this server applies and snapshots before its disk knows the term."""

    async def slow_to_save(function: Callable[..., T], *arguments: object) -> T:
        if getattr(function, "func", None) == follower.storage.save:
            await trio.sleep_forever()
        return function(*arguments)

    async with open_cluster(snapshot_log_bytes=LOG_BYTES) as cluster:
        leader = await cluster.wait_leader()
        follower = cluster.others(leader)[0]
        await follower.kill()
        await follower.start()
        await cluster.settle()
        follower.node._saver._runtime = TrioRuntime(slow_to_save)
        follower.node._saver._speed.average_us = 1e9
        follower.node._snapshots._due_log_bytes = 100
        term = leader.node.raft.current_term
        await leader.kill()
        await append_one_by_one(await cluster.wait_leader(cluster.others(follower)), 10, b"item")
        await cluster.until(lambda: snapshots(follower) or None)
        assert snapshots(follower)[-1].endswith(f"-{term + 1:016d}.snap")
        await follower.cut_power()
        await follower.start()
        await leader.start()
        await cluster.settle()
        assert follower.items == numbered(10)


async def test_a_transfer_survives_loss_and_broken_connections(autojump_clock: MockClock) -> None:
    async with open_cluster(snapshot_log_bytes=LOG_BYTES, raft=Options(snapshot_chunk_bytes=100)) as cluster:
        follower = await behind(cluster)
        cluster.network.heal_all()
        cluster.network.set_loss(0.05)
        for _ in range(10):
            await trio.sleep(0.05)
            other = cluster.dice.choice(cluster.others(follower))
            cluster.network.reset(follower.host, other.host)
        cluster.network.set_loss(0)
        await cluster.settle()


async def test_the_leader_changes_during_a_transfer(autojump_clock: MockClock) -> None:
    async with open_cluster(snapshot_log_bytes=LOG_BYTES, raft=Options(snapshot_chunk_bytes=50)) as cluster:
        follower = await behind(cluster)
        cluster.network.set_delay(5000, 5000)
        cluster.network.heal_all()
        await cluster.until(lambda: temporary(follower) or None)
        leader = await cluster.wait_leader(cluster.others(follower))
        await leader.kill()
        await cluster.settle()
        assert follower.has_said("snapshot installed")
        await leader.start()
        await cluster.settle()


async def test_a_follower_is_killed_during_a_transfer(autojump_clock: MockClock) -> None:
    async with open_cluster(snapshot_log_bytes=LOG_BYTES, raft=SMALL_CHUNKS) as cluster:
        follower = await behind(cluster)
        cluster.network.set_delay(5000, 5000)
        cluster.network.heal_all()
        await cluster.until(lambda: temporary(follower) or None)
        await follower.cut_power()
        await follower.start()
        await cluster.settle()
        assert len(follower.items) == 301
        assert not temporary(follower)


async def test_newer_snapshots_take_the_place_of_the_one_being_sent(autojump_clock: MockClock) -> None:
    """The leader keeps two; a follower that is too slow for both begins again with the newest."""
    async with open_cluster(3, snapshot_log_bytes=1000, raft=Options(snapshot_chunk_bytes=100)) as cluster:
        follower = await behind(cluster)
        cluster.network.heal_all()
        leader = await cluster.wait_leader(cluster.others(follower))
        cluster.network.set_delay(20_000, 20_000, leader.host, follower.host)
        await cluster.until(lambda: temporary(follower) or None)
        await append_one_by_one(leader, 300, b"more")
        cluster.network.set_delay(100, 300)
        await cluster.settle()
        assert len(follower.items) == 601


async def test_a_damaged_snapshot_is_refused(autojump_clock: MockClock) -> None:
    """What the leader's disk has spoilt changes nothing at the follower; the next snapshot is a good one."""
    async with open_cluster(3, snapshot_log_bytes=LOG_BYTES) as cluster:
        follower = await behind(cluster)
        before = list(follower.items)
        leader = await cluster.wait_leader(cluster.others(follower))
        for server in cluster.others(follower):
            path = server.directory / snapshots(server)[-1]
            server.disk.damage(path, len(server.disk.content(path)) // 2)
        cluster.network.heal_all()
        await cluster.until(lambda: follower.has_said("a received snapshot could not be used"))
        assert follower.items == before
        await append_one_by_one(leader, 200, b"more")
        await cluster.settle()
        assert follower.has_said("snapshot installed")


async def test_without_room_for_a_snapshot_old_segments_are_given_up(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are kept to be used again, but a snapshot needs their room more."""
    small_segments(monkeypatch)
    remove_spares = Storage.remove_spares
    left: list[list[str]] = []

    def removing(storage: Storage) -> None:
        remove_spares(storage)
        left.append(spares(server))

    monkeypatch.setattr(Storage, "remove_spares", removing)
    async with open_cluster(1, snapshot_log_bytes=LOG_BYTES) as cluster:
        server = cluster.running[0]
        while not spares(server):
            await append_one_by_one(server, 1, b"item")
        assert left == []
        server.disk.fail(Call.OPEN, errno.ENOSPC, "snapshot-")
        while not server.has_said("no room for a snapshot"):
            await append_one_by_one(server, 1, b"more")
        await cluster.until(lambda: bool(left))
        assert len(left[0]) <= 1, "only the one that is the next segment"


@pytest.mark.parametrize("call", [Call.WRITE, Call.OPEN])
async def test_no_room_for_a_snapshot(autojump_clock: MockClock, call: Call) -> None:
    """It is tried again; the log grows meanwhile, and nothing of the snapshot that failed is left."""
    async with open_cluster(1, snapshot_log_bytes=LOG_BYTES) as cluster:
        server = cluster.running[0]
        server.disk.fail(call, errno.ENOSPC, "snapshot-", times=2)
        await append_one_by_one(server, 150, b"item")
        await cluster.until(lambda: server.has_said("no room for a snapshot"))
        assert server.machine.snapshots_open == 0
        assert not temporary(server)
        assert not snapshots(server)
        begun = trio.current_time()
        await append_one_by_one(server, 1, b"more")
        await trio.sleep(NO_ROOM_PAUSE_US / 1e6)
        await append_one_by_one(server, 1, b"again")
        await trio.sleep(NO_ROOM_PAUSE_US / 1e6)
        await append_one_by_one(server, 1, b"and again")
        await cluster.until(lambda: server.has_said("snapshot made"))
        assert trio.current_time() - begun <= 3 * NO_ROOM_PAUSE_US / 1e6
        assert server.machine.snapshots_open == 0


async def test_no_room_for_a_received_snapshot(autojump_clock: MockClock) -> None:
    async with open_cluster(3, snapshot_log_bytes=LOG_BYTES, raft=SMALL_CHUNKS) as cluster:
        follower = await behind(cluster)
        follower.disk.fail(Call.WRITE, errno.ENOSPC, "snapshot-", times=5)
        cluster.network.heal_all()
        await cluster.settle()
        assert follower.has_said("snapshot installed")
        assert follower.has_said("the disk is full: changes wait until there is room")


async def test_a_snapshot_that_cannot_be_flushed_when_it_is_received(autojump_clock: MockClock) -> None:
    """No room even for the flush: the transfer begins anew."""
    async with open_cluster(3, snapshot_log_bytes=LOG_BYTES) as cluster:
        follower = await behind(cluster)
        follower.disk.fail(Call.FLUSH, errno.ENOSPC, "snapshot-")
        cluster.network.heal_all()
        await cluster.settle()
        assert follower.has_said("a received snapshot could not be used")
        assert follower.has_said("snapshot installed")


async def test_the_bigger_the_state_the_more_log_leads_to_the_next_snapshot_up_to_a_bound(
    autojump_clock: MockClock,
) -> None:
    item_bytes = 500
    async with open_cluster(1, snapshot_log_bytes=LOG_BYTES) as cluster:
        server = await cluster.wait_leader()
        await append_one_by_one(server, 400, bytes(item_bytes))
        made = [details for event, details in server.said if event == "snapshot made"]
        log_bytes = [
            (int(str(after["index"])) - int(str(before["index"]))) * item_bytes for before, after in pairwise(made)
        ]
        sizes = [int(str(details["bytes"])) for details in made[:-1]]
        assert sizes[-1] > LOG_GROWTH_MAX * 1.2 * LOG_BYTES
        for size, grown in zip(sizes, log_bytes, strict=True):
            assert grown >= min(size, LOG_GROWTH_MAX * 0.8 * LOG_BYTES) * 0.8
            assert grown < LOG_GROWTH_MAX * 1.2 * LOG_BYTES + 5 * item_bytes
