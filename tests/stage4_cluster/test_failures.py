"""Servers are killed, paused and brought back; what was acknowledged is there, and clients see a pause at most."""

from __future__ import annotations

from contextlib import AsyncExitStack
from itertools import combinations
from statistics import median

import pytest
import trio
import trio.testing

from tests.stage4_cluster.conftest import Figure, MakeCluster
from tests.stage4_cluster.harness import QUICK_ELECTIONS, Cluster, eventually
from tests.stage4_cluster.line_client import LineClient, change, connected, version_in

UNANSWERED_SECONDS = 0.7
"""How long a request has to stay unanswered to be called waiting. Twice the time that a commit takes at worst here."""


async def write_some(cluster: Cluster, server_id: int, prefix: str, count: int = 20) -> dict[str, bytes]:
    """Write files through one server; gives what was acknowledged."""
    files = {f"{prefix}/{number}": f"{prefix} {number}".encode() for number in range(count)}
    async with connected(cluster.port(server_id)) as client:
        await client.send(b"".join(change("write", name, content) for name, content in files.items()))
        for reply in await client.replies(count):
            version_in(reply)
    return files


async def check_files(cluster: Cluster, files: dict[str, bytes]) -> None:
    """Read the files through every server that runs."""
    for server_id in cluster.running:
        async with connected(cluster.port(server_id)) as client:
            await client.send(b"".join(b"read %b\r\n" % name.encode() for name in files))
            for name, content in files.items():
                reply = await client.reply()
                assert reply.endswith(b" 0\r\n%b\r\n" % content), f"server {server_id}, {name}: {reply!r}"


async def test_a_follower_is_killed_and_comes_back(five: Cluster) -> None:
    follower = await five.follower()
    term = (await five.same_everywhere())["term"]
    files = await write_some(five, follower, "before-follower")
    five.kill(follower)
    leader = await five.leader()
    files |= await write_some(five, leader, "without-follower")
    await check_files(five, files)
    await five.start(follower)
    await check_files(five, files)
    assert (await five.same_everywhere())["term"] == term, "a follower's death and return disturb no leader"


async def test_the_leader_is_killed_and_comes_back(five: Cluster) -> None:
    leader = await five.leader()
    files = await write_some(five, leader, "before-leader")
    five.kill(leader)
    survivor = five.running[0]
    files |= await write_some(five, survivor, "without-leader")
    await check_files(five, files)
    assert await five.start(leader) != leader
    await check_files(five, files)
    await five.same_everywhere()


async def test_three_leaders_in_a_row_are_replaced_within_two_seconds(five: Cluster, figure: Figure) -> None:
    """Measured by a client of another server, from the kill to its next acknowledgement."""
    files: dict[str, bytes] = {}
    took_seconds = []
    for turn in range(3):
        leader = await five.leader()
        survivor = next(server_id for server_id in five.ids if server_id != leader)
        files |= await write_some(five, leader, f"turn-{turn}")
        async with connected(five.port(survivor)) as client:
            await client.write(f"turn-{turn}/last", b"last")
            five.kill(leader)
            killed_at = trio.current_time()
            await client.write(f"turn-{turn}/next", b"next")
            took_seconds.append(trio.current_time() - killed_at)
        await check_files(five, files)
        await five.start(leader)
    await five.same_everywhere()
    await check_files(five, files)
    figure(
        f"a new leader served {', '.join(f'{each:.2f}' for each in took_seconds)} s after the kill of the one before"
    )
    # The promise is 2 s each. A busy machine may take a multiple of that once, not most of the time.
    assert median(took_seconds) < 2.0
    assert max(took_seconds) < 6.0


@pytest.mark.slow
async def test_any_two_of_five_are_killed_at_once(five: Cluster) -> None:
    """Every pair, while a client of a third server writes; all that was acknowledged is there, and no client fails."""
    acknowledged: dict[str, bytes] = {}
    for pair in list(combinations(five.ids, 2))[::2]:
        await five.leader()
        survivors = [server_id for server_id in five.ids if server_id not in pair]
        written = 0
        async with connected(five.port(survivors[0])) as client:
            for number in range(30):
                if number == 15:
                    five.kill(*pair)
                name = f"pair-{pair[0]}{pair[1]}/{number}"
                await client.write(name, name.encode())
                acknowledged[name] = name.encode()
                written += 1
        assert written == 30
        await five.start(*pair)
    await check_files(five, acknowledged)
    await five.same_everywhere()


async def test_a_paused_leader_is_replaced_and_says_nothing_wrong_when_it_wakes(five: Cluster) -> None:
    """A leader that was asleep thinks that it leads. It must not answer a read from its old state."""
    leader = await five.leader()
    other = await five.follower()
    async with AsyncExitStack() as stack:
        sleeper = await stack.enter_async_context(connected(five.port(leader)))
        awake = await stack.enter_async_context(connected(five.port(other)))
        await awake.write("asleep", b"old")
        assert (await sleeper.read("asleep")) is not None
        five.pause(leader)
        # This waits in the sleeper's socket until it wakes.
        await sleeper.send(b"read asleep\r\n" + change("append", "asleep", b"+"))
        version = await awake.write("asleep", b"new")
        five.resume(leader)
        assert await sleeper.reply() == b"CONTENTS %d 3 0\r\nnew\r\n" % version
        assert version_in(await sleeper.reply()) == version + 1
        file = await awake.read("asleep")
        assert file is not None
        assert file.content == b"new+"
    await five.same_everywhere()


async def test_two_followers_that_fall_silent_cost_a_change_a_moment(five: Cluster, figure: Figure) -> None:
    """The leader sends at once only to as many as a majority takes. Those may be the two that say nothing more."""
    leader = await five.leader()
    followers = [server_id for server_id in five.ids if server_id != leader]
    longest_seconds = []
    async with connected(five.port(leader)) as client:
        for pair in combinations(followers, 2):
            await five.same_everywhere()
            five.pause(pair[0])
            five.pause(pair[1])
            took_seconds = []
            for number in range(20):
                begun_at = trio.current_time()
                await client.write(f"silent-{pair[0]}{pair[1]}", b"%d" % number)
                took_seconds.append(trio.current_time() - begun_at)
            longest_seconds.append(max(took_seconds))
            five.resume(pair[0])
            five.resume(pair[1])
    assert await five.leader() == leader
    figure(f"changes took {', '.join(f'{each:.3f}' for each in longest_seconds)} s at most beside two silent followers")
    # Others would act after an election timeout, 0.3 s or more. A busy machine may take longer now and then.
    assert median(longest_seconds) < 0.2


async def test_a_change_waits_while_a_majority_is_lost(five: Cluster) -> None:
    leader = await five.leader()
    lost = [leader, *(server_id for server_id in five.ids if server_id != leader)][:3]
    for kept_leader in (False, True):
        leader = await five.leader()
        followers = [server_id for server_id in five.ids if server_id != leader]
        lost = followers[:3] if kept_leader else [leader, *followers[:2]]
        asked = leader if kept_leader else followers[3]
        five.kill(*lost)
        name = f"majority-{kept_leader}"
        async with connected(five.port(asked)) as writer, connected(five.port(asked)) as reader:
            await writer.send(change("write", name, b"patience"))
            await reader.send(b"read before\r\n")
            for client in (writer, reader):
                with trio.move_on_after(UNANSWERED_SECONDS) as scope:
                    await client.reply()
                assert scope.cancelled_caught, "nothing can be promised without a majority"
            five.launch(lost[0])
            version = version_in(await writer.reply())
            assert await reader.reply() == b"ERR_FILE_NOT_FOUND\r\n"
            file = await reader.read(name)
            assert file is not None
            assert (file.version, file.content) == (version, b"patience")
        await five.mend()
    await five.same_everywhere()


async def test_without_a_majority_requests_fail_after_the_request_timeout(make_cluster: MakeCluster) -> None:
    """Which of the two kinds of failure it is must be true in the end."""
    cluster = make_cluster(3, request_timeout=1.5, **QUICK_ELECTIONS)
    leader = await cluster.start()
    followers = [server_id for server_id in cluster.ids if server_id != leader]
    async with AsyncExitStack() as stack:
        clients = {
            server_id: await stack.enter_async_context(connected(cluster.port(server_id))) for server_id in cluster.ids
        }
        last_version = await clients[leader].write("before", b"x")

        async def fails(client: LineClient, request: bytes) -> bytes:
            started_at = trio.current_time()
            reply = await client.ask(request)
            took_seconds = trio.current_time() - started_at
            assert reply.startswith(b"ERR_INTERNAL "), reply
            assert 1.4 <= took_seconds <= 6.0, took_seconds
            return reply

        # At a leader that has lost its followers, then at a follower that has lost the others.
        cluster.kill(*followers)
        reply = await fails(clients[leader], change("append", "at-leader", b"+"))
        assert b"outcome unknown" in reply or b"not applied" in reply
        is_open = b"outcome unknown" in reply
        reply = await fails(clients[leader], b"read before\r\n")
        await cluster.start(*followers)

        async def applied_if_open() -> bool:
            file = await clients[leader].read("at-leader")
            return is_open or file is None

        assert await applied_if_open(), "a change that was called not applied must not come back"
        file = await clients[leader].read("at-leader")
        applied = 0 if file is None else file.size_bytes
        assert applied <= 1
        assert await clients[leader].write("after", b"x") == last_version + 1 + applied

    leader = await cluster.leader()
    asked = next(server_id for server_id in cluster.ids if server_id != leader)
    async with connected(cluster.port(asked)) as client:
        last_version = await client.write("before", b"y")
        cluster.kill(*(server_id for server_id in cluster.ids if server_id != asked))
        reply = await fails(client, change("append", "at-follower", b"+"))
        is_open = b"outcome unknown" in reply
        assert is_open or b"not applied" in reply
        await cluster.mend()
        file = await client.read("at-follower")
        assert is_open or file is None
        applied = 0 if file is None else file.size_bytes
        assert applied <= 1
        assert await client.write("after", b"y") == last_version + 1 + applied
    await cluster.same_everywhere()


async def test_changes_go_on_after_many_have_run_out_of_time(make_cluster: MakeCluster) -> None:
    """What timed out without an outcome stands in nobody's way once there is a majority again."""
    cluster = make_cluster(3, request_timeout=1.0, **QUICK_ELECTIONS)
    asked = await cluster.start()
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(cluster.port(asked))) for _ in range(6)]
        cluster.kill(*(server_id for server_id in cluster.ids if server_id != asked))

        async def times_out(number: int) -> None:
            for attempt in range(2):
                reply = await clients[number].ask(change("append", f"file-{number}", b"%d" % attempt))
                assert reply.startswith(b"ERR_INTERNAL "), reply

        async with trio.open_nursery() as nursery:
            for number in range(len(clients)):
                nursery.start_soon(times_out, number)
                await trio.testing.wait_all_tasks_blocked()
        await cluster.mend()
        for number, client in enumerate(clients):
            await client.write(f"after-{number}", b"x")
    await cluster.same_everywhere()


async def test_big_contents_fail_likewise_without_a_majority(make_cluster: MakeCluster) -> None:
    """And leave nothing behind that stands in the way of later ones."""
    cluster = make_cluster(3, request_timeout=1.5, **QUICK_ELECTIONS)
    asked = await cluster.start()
    async with connected(cluster.port(asked)) as client:
        cluster.kill(*(server_id for server_id in cluster.ids if server_id != asked))
        outcomes = {}
        for size_bytes in (300_000, 5_000_000):
            reply = await client.ask(change("write", f"big-{size_bytes}", bytes(size_bytes)))
            assert reply.startswith(b"ERR_INTERNAL "), reply
            assert b"outcome unknown" in reply or b"not applied" in reply
            outcomes[f"big-{size_bytes}"] = reply
        await cluster.mend()
        for name, reply in outcomes.items():
            file = await client.read(name)
            assert file is None or (
                b"outcome unknown" in reply and file.content == bytes(int(name.removeprefix("big-")))
            )
        await client.write("big", b"\1" * 5_000_000)
        file = await client.read("big")
        assert file is not None
        assert file.content == b"\1" * 5_000_000
    await cluster.same_everywhere()


async def test_a_stop_without_a_majority_comes_to_an_end(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, **QUICK_ELECTIONS)
    leader = await cluster.start()
    cluster.kill(*(server_id for server_id in cluster.ids if server_id != leader))
    async with connected(cluster.port(leader)) as client:
        await client.send(change("write", "pending", b"x"))
        cluster.ask_to_stop(leader)
        assert await cluster.exit_status(leader) == 0
        reply = await client.reply()
        assert reply == b"" or reply.startswith(b"ERR_INTERNAL "), reply


async def test_all_are_killed_at_once_and_started_again(five: Cluster) -> None:
    """Twice, while changes are under way: all that was acknowledged is there, and versions go on without a gap."""
    for turn in range(2):
        await five.leader()
        acknowledged: dict[str, int] = {}
        under_way = 0

        async def keep_writing(server_id: int, turn: int = turn, found: dict[str, int] = acknowledged) -> None:
            nonlocal under_way
            async with connected(five.port(server_id)) as client:
                for number in range(100_000):
                    name = f"power-cut-{turn}/{server_id}-{number}"
                    try:
                        reply = await client.ask(change("write", name, name.encode()))
                    except (OSError, trio.BrokenResourceError):
                        reply = b""
                    if not reply:
                        under_way += 1
                        return
                    found[name] = version_in(reply)

        async with trio.open_nursery() as nursery:
            for server_id in five.ids:
                nursery.start_soon(keep_writing, server_id)

            async def enough(found: dict[str, int] = acknowledged) -> bool:
                return len(found) >= 300

            await eventually("300 writes are acknowledged", enough)
            five.kill(*five.ids)
        assert under_way == 5
        await five.start()
        async with connected(five.port(1)) as client:
            listed = await client.list(f"power-cut-{turn}/")
            assert all(listed[name].version == version for name, version in acknowledged.items())
            # What was under way may or may not have been done, but no more than that.
            assert 0 <= len(listed) - len(acknowledged) <= 5
            versions = sorted(file.version for file in listed.values())
            assert versions == list(range(versions[0], versions[0] + len(listed))), "no gap and no repeat"
            assert await client.write("after-power-cut", b"") == versions[-1] + 1
        await five.same_everywhere()
