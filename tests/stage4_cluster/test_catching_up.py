"""Servers that were away come back to the others' state, by the log or by a snapshot, while the cluster serves."""

from __future__ import annotations

from tests.stage4_cluster.conftest import MakeCluster
from tests.stage4_cluster.harness import QUICK_ELECTIONS, Cluster, eventually
from tests.stage4_cluster.line_client import change, connected, version_in

SMALL_LOG_BYTES = 128 * 1024
SEGMENTS_MAX = 5
"""What two snapshots leave of such a log: twice 1 MiB, in segments of 512 KiB and more."""


async def write_many(cluster: Cluster, server_id: int, prefix: str, count: int, size_bytes: int = 2000) -> None:
    async with connected(cluster.port(server_id)) as client:
        for first in range(0, count, 50):
            content = bytes([first % 256]) * size_bytes
            numbers = range(first, min(first + 50, count))
            await client.send(b"".join(change("write", f"{prefix}/{number}", content) for number in numbers))
            for reply in await client.replies(len(numbers)):
                version_in(reply)


async def log_is_compacted_beyond(cluster: Cluster, index: int) -> None:
    """Wait until no running server has the entry at that index any more."""

    async def look() -> bool:
        statuses = await cluster.statuses()
        return statuses is not None and all(status["first_index"] > index for status in statuses.values())

    await eventually(f"the log begins beyond {index}", look)


async def test_a_follower_that_was_down_while_the_log_was_compacted(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(5, snapshot_log_bytes=SMALL_LOG_BYTES, **QUICK_ELECTIONS)
    await cluster.start()
    follower = await cluster.follower()
    await write_many(cluster, follower, "before", 100)
    async with connected(cluster.port(follower)) as client:
        await client.write("to-expire", b"x", 2)
        await client.write("to-be-kept", b"x", 1000)
        last_index = (await client.status())["last_index"]
    cluster.kill(follower)
    other = await cluster.leader()
    # Enough for several snapshots, of a state that takes several frames to send.
    for turn in range(5):
        await write_many(cluster, other, f"without-{turn}", 100)
    await log_is_compacted_beyond(cluster, last_index)
    cluster.launch(follower)
    await write_many(cluster, other, "while-catching-up", 100)
    await cluster.leader()
    status = await cluster.same_everywhere()
    assert status["files"] in (702, 701)
    async with connected(cluster.port(follower)) as client:
        assert len(await client.list("without-")) == 500
        kept = await client.stat("to-be-kept")
        assert kept is not None
        assert 900 < kept.seconds_left <= 1000

        async def has_gone() -> bool:
            return await client.stat("to-expire") is None

        await eventually("a file expires that came by snapshot, or was gone before", has_gone)
    # And it can start from the snapshot that it was sent.
    cluster.kill(follower)
    await cluster.start(follower)
    await cluster.same_everywhere()


async def test_a_follower_is_sent_what_no_server_has_in_memory(make_cluster: MakeCluster) -> None:
    """Most of what it missed is on the others' disks alone, and it needs no snapshot."""
    cluster = make_cluster(5, snapshot_log_bytes=4 << 20, **QUICK_ELECTIONS)
    leader = await cluster.start()
    follower = await cluster.follower()
    cluster.kill(follower)
    await write_many(cluster, leader, "without", 1500)
    cluster.launch(follower)
    await write_many(cluster, leader, "while-catching-up", 50)
    await cluster.leader()
    assert (await cluster.same_everywhere())["files"] == 1550
    assert not list(cluster.place(follower).glob("*.snap"))


async def test_all_restart_from_snapshots_and_the_logs_behind_them(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, snapshot_log_bytes=SMALL_LOG_BYTES, **QUICK_ELECTIONS)
    leader = await cluster.start()
    await write_many(cluster, leader, "a", 300)
    await log_is_compacted_beyond(cluster, 1)
    before = await cluster.same_everywhere()
    async with connected(cluster.port(1)) as client:
        version = (await client.write("last", b"x")) + 1
    cluster.kill(*cluster.ids)
    await cluster.start()
    after = await cluster.same_everywhere()
    assert (after["files"], after["bytes"]) == (before["files"] + 1, before["bytes"] + 1)
    async with connected(cluster.port(2)) as client:
        assert await client.write("last", b"y") == version
        assert len(await client.list("a/")) == 300


async def test_logs_and_snapshots_are_removed_as_others_follow(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, snapshot_log_bytes=SMALL_LOG_BYTES, **QUICK_ELECTIONS)
    leader = await cluster.start()

    def snapshots(server_id: int) -> int:
        return len(list(cluster.place(server_id).glob("*.snap")))

    async def is_small() -> bool:
        """After more changes: whether each server has come down to few segments, not the first, and two snapshots.

        A snapshot is in its place before an older one goes, so for a moment there are three.
        """
        await write_many(cluster, leader, "same", 50, 20_000)
        return all(
            1 <= len(cluster.segments(server_id)) <= SEGMENTS_MAX
            and not (cluster.place(server_id) / "log-0000000000000001.seg").exists()
            and snapshots(server_id) == 2
            for server_id in cluster.ids
        )

    await eventually("old segments and snapshots are removed", is_small)
    await cluster.same_everywhere()


async def test_a_follower_that_missed_very_many_changes_catches_up_by_the_log(five: Cluster) -> None:
    follower = await five.follower()
    five.kill(follower)
    leader = await five.leader()
    async with connected(five.port(leader)) as client:
        batch = change("write", "many", b"x" * 100) * 1000
        for _ in range(20):
            await client.send(batch)
            for reply in await client.replies(1000):
                version_in(reply)
    await five.start(follower)
    await five.same_everywhere()
