"""Time is the cluster's: leader changes and restarts neither shorten a file's life nor give it back."""

from __future__ import annotations

from contextlib import AsyncExitStack

import trio

from tests.stage4_cluster.conftest import Figure
from tests.stage4_cluster.harness import Cluster, eventually
from tests.stage4_cluster.line_client import File, LineClient, connected

LATE_SECONDS = 1.0 + 0.5
"""A file is gone at most one second late; the rest is for looking, on a busy machine."""


async def moment_of_expiry(client: LineClient, name: str) -> float:
    """Wait until a read finds no such file; gives when that was."""

    async def has_gone() -> bool:
        return await client.read(name) is None

    await eventually(f"{name} expires", has_gone)
    return trio.current_time()


async def test_a_file_expires_on_time_across_a_leader_change(five: Cluster, figure: Figure) -> None:
    leader = await five.leader()
    survivors = [server_id for server_id in five.ids if server_id != leader]
    lives = (1, 2, 4)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(five.port(server_id))) for server_id in survivors]
        asked_at = {}
        answered_at = {}
        for life in lives:
            asked_at[life] = trio.current_time()
            await clients[0].write(f"brief-{life}", b"x", life)
            answered_at[life] = trio.current_time()
        five.kill(leader)
        gone_at: dict[int, float] = {}

        async def watch(client: LineClient, life: int) -> None:
            gone_at[life] = await moment_of_expiry(client, f"brief-{life}")

        async with trio.open_nursery() as nursery:
            for client, life in zip(clients[1:], lives, strict=True):
                nursery.start_soon(watch, client, life)
        for life in lives:
            assert gone_at[life] - asked_at[life] >= life, "no file expires early"
            assert gone_at[life] - answered_at[life] <= life + LATE_SECONDS
            # Once seen as expired, it is never seen again, by whomever.
            for client in clients:
                assert await client.stat(f"brief-{life}") is None
        lateness = ", ".join(f"{(gone_at[life] - answered_at[life] - life) * 1000:.0f}" for life in lives)
        figure(f"across the kill of a leader, files were gone {lateness} ms late")


async def test_the_clock_stands_still_while_the_whole_cluster_is_down(five: Cluster) -> None:
    """It goes on from where it stood, so that nothing expires because of an outage."""
    async with connected(five.port(1)) as client:
        await client.write("outlives-outage", b"x", 4)
        await client.write("outlives-by-far", b"x", 1000)
        clock_before = (await client.status())["clock"]
    five.kill(*five.ids)
    down_at = trio.current_time()
    await trio.sleep(1.5)  # the outage itself is what is under test
    five.launch(*five.ids)
    launched_at = trio.current_time()

    async def first_answer() -> File | None:
        """What the first server that answers says of the file."""
        for server_id in five.ids:
            try:
                async with connected(five.port(server_id)) as client:
                    return await client.stat("outlives-by-far")
            except OSError:
                continue
        return None

    file = await eventually("the file is there", first_answer)
    assert file.seconds_left <= 1000
    assert file.seconds_left >= 1000 - (trio.current_time() - launched_at) - 2, "the outage isn't counted"
    await five.leader()
    async with connected(five.port(2)) as client:
        clock_after = (await client.status())["clock"]
        outage_seconds = launched_at - down_at
        assert clock_before - 1 <= clock_after <= clock_before + (trio.current_time() - launched_at) + 1
        assert clock_after < clock_before + outage_seconds + (trio.current_time() - launched_at)
        assert await client.stat("outlives-outage") is not None
        gone_at = await moment_of_expiry(client, "outlives-outage")
        assert gone_at - launched_at >= 4 - 1, "at most a second of its life had been used before the outage"
        assert gone_at - launched_at <= 4 + LATE_SECONDS + 1
        await client.delete("outlives-by-far")


async def test_a_killed_server_brings_nothing_back(five: Cluster) -> None:
    """It restarts from a log where the file still is; a read through it says "not found" all the same."""
    follower = await five.follower()
    async with connected(five.port(await five.leader())) as client:
        await client.write("brief", b"x", 1)
        five.kill(follower)
        await moment_of_expiry(client, "brief")
    five.launch(follower)

    async def answers() -> bool:
        try:
            async with connected(five.port(follower)) as client:
                assert await client.read("brief") is None
                assert "brief" not in await client.list("brief")
                return True
        except OSError:
            return False

    await eventually("the server answers", answers)
    await five.same_everywhere()
