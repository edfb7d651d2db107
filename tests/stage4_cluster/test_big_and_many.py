"""Big files, many connections, and clients that misbehave: each harms at most itself."""

from __future__ import annotations

import resource
import struct
from collections.abc import Iterator
from contextlib import AsyncExitStack
from socket import SO_LINGER, SOL_SOCKET

import pytest
import trio

from tests.stage4_cluster.conftest import Figure, MakeCluster
from tests.stage4_cluster.harness import QUICK_ELECTIONS, Cluster, eventually
from tests.stage4_cluster.line_client import NOT_FOUND, LineClient, change, connected, version_in

MIB = 1 << 20


@pytest.mark.slow
async def test_small_writes_go_on_while_a_big_file_is_written(make_cluster: MakeCluster, figure: Figure) -> None:
    """No election comes of it; big contents pass in pieces, and heartbeats and small changes between them."""
    cluster = make_cluster(5)
    leader = await cluster.start()
    before = await cluster.same_everywhere()
    content = bytes(range(256)) * (64 * MIB // 256)
    took_seconds: list[float] = []
    is_over = trio.Event()
    big_seconds = 0.0

    async def write_small(number: int) -> None:
        async with connected(cluster.port(number % 5 + 1)) as client:
            while not is_over.is_set():
                asked_at = trio.current_time()
                await client.write(f"small-{number}", b"x" * 256)
                took_seconds.append(trio.current_time() - asked_at)

    async with (
        connected(cluster.port(await cluster.follower())) as client,
        connected(cluster.port(leader)) as reader,
        trio.open_nursery() as nursery,
    ):
        for number in range(16):
            nursery.start_soon(write_small, number)

        async def has_begun() -> bool:
            return len(took_seconds) >= 100

        await eventually("small writes go on", has_begun)
        took_seconds.clear()
        started_at = trio.current_time()
        version = await client.write("big", content)
        big_seconds = trio.current_time() - started_at
        is_over.set()
        file = await reader.read("big")
        assert file is not None
        assert file.version == version
        assert file.content == content
    took_seconds.sort()
    middle, late = (took_seconds[int(len(took_seconds) * part)] * 1000 for part in (0.5, 0.99))
    figure(
        f"64 MiB written in {big_seconds:.1f} s; beside it {len(took_seconds)} small writes: "
        f"p50 {middle:.0f}, p99 {late:.0f}, longest {took_seconds[-1] * 1000:.0f} ms"
    )
    after = await cluster.same_everywhere()
    assert after["term"] == before["term"], "no election"
    async with connected(cluster.port(1)) as client:
        reply = await client.ask(b"append big 1\r\nx\r\n")
        assert reply.startswith(b"ERR_CMD_ERR "), reply
        reply = await client.ask(b"write big %d\r\n" % (64 * MIB + 1))
        assert reply.startswith(b"ERR_CMD_ERR "), reply
        assert await client.is_closed()


async def test_a_leader_dies_in_the_middle_of_a_big_write(make_cluster: MakeCluster) -> None:
    """A client of another server sees a pause, and the file comes out whole."""
    cluster = make_cluster(3, **QUICK_ELECTIONS)
    leader = await cluster.start()
    asked = await cluster.follower()
    content = bytes(range(251)) * (24 * MIB // 251)
    async with connected(cluster.port(asked)) as client, trio.open_nursery() as nursery:
        before = (await client.status())["last_index"]

        async def kill_the_leader() -> None:
            async def pieces_arrive() -> bool:
                status = await cluster.status(asked)
                return status is not None and status["last_index"] > before + 10

            await eventually("the first pieces arrive", pieces_arrive, poll=0.002)
            cluster.kill(leader)

        nursery.start_soon(kill_the_leader)
        version = await client.write("big", content)
    await cluster.mend()
    async with connected(cluster.port(leader)) as client:
        file = await client.read("big")
        assert file is not None
        assert (file.version, file.content) == (version, content)
        assert await client.write("big", b"") == version + 1
    await cluster.same_everywhere()


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Room for more than a thousand sockets in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
async def test_a_thousand_idle_connections(five: Cluster, figure: Figure) -> None:
    memory_bytes = five.memory_bytes(1)
    async with AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(connected(five.port(1))) for _ in range(1000)]
        async with connected(five.port(1)) as client:
            started_at = trio.current_time()
            for number in range(20):
                await client.write("beside-idle", b"%d" % number)
            each_ms = (trio.current_time() - started_at) * 1000 / 20
        grown_bytes = five.memory_bytes(1) - memory_bytes
        figure(f"beside 1,000 idle connections of {grown_bytes // 1000} bytes each, a write took {each_ms:.1f} ms")
        assert grown_bytes < 40 * MIB
        # They are all still good.
        for client in idle[::100]:
            file = await client.read("beside-idle")
            assert file is not None
            assert file.content == b"19"


async def test_clients_that_vanish_in_the_middle_of_a_request(five: Cluster) -> None:
    async with connected(five.port(2)) as witness:
        version = await witness.write("vanishing", b"")
        for part in (b"write vanishing 100\r\nhalf", b"wri", b"write vanishing 5\r\nhello", b"read vanishing"):
            async with connected(five.port(2)) as client:
                await client.send(part)
                # Closed with a reset rather than in good order.
                client.stream.socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        for part in (b"write vanishing 100\r\nhalf", b"append vanishing 5\r\nhello"):
            async with connected(five.port(2)) as client:
                await client.send(part)
                await client.stream.send_eof()
                assert await client.is_closed()
        assert await witness.write("vanishing", b"") == version + 1, "no half request was carried out"


async def test_a_client_that_sends_no_more_but_still_reads_gets_its_replies(five: Cluster) -> None:
    """What ``printf ... | nc -N`` does."""
    async with connected(five.port(3)) as client:
        await client.send(b"write half-closed 2\r\nhi\r\nread half-closed\r\n")
        await client.stream.send_eof()
        version = version_in(await client.reply())
        assert await client.reply() == b"CONTENTS %d 2 0\r\nhi\r\n" % version
        assert await client.is_closed()


async def test_a_client_that_never_reads_its_replies_is_bounded_and_then_closed(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, request_progress_timeout=2, **QUICK_ELECTIONS)
    asked = await cluster.start()
    async with connected(cluster.port(asked)) as writer:
        await writer.write("megabyte", bytes(MIB))
        await writer.read("megabyte")
        memory_bytes = cluster.memory_bytes(asked)
        async with connected(cluster.port(asked), receive_buffer_bytes=4096) as greedy:
            await greedy.send(b"read megabyte\r\n" * 1000)
            grown_bytes = 0
            for number in range(50):
                await writer.write("others", b"%d" % number)
                grown_bytes = max(grown_bytes, cluster.memory_bytes(asked) - memory_bytes)
            assert grown_bytes < 40 * MIB, "a gigabyte was asked for"

            async def is_closed() -> bool:
                """Whether the server has ended it, which shows when something is sent, as nothing is read here."""
                try:
                    await greedy.send(b"\r\n")
                except trio.BrokenResourceError:
                    return True
                return False

            await eventually("the connection is closed", is_closed)
        assert await writer.write("others", b"") > 0


async def test_half_a_request_holds_only_what_has_arrived_and_is_closed_without_progress(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(1, request_progress_timeout=1)
    await cluster.start()
    memory_bytes = cluster.memory_bytes(1)
    async with AsyncExitStack() as stack:
        idle = await stack.enter_async_context(connected(cluster.port(1)))
        clients: list[LineClient] = []
        for _ in range(50):
            clients.append(await stack.enter_async_context(connected(cluster.port(1))))
            await clients[-1].send(b"write declared 67108864\r\nonly this")
        assert await idle.ask(b"read declared\r\n") == NOT_FOUND
        assert cluster.memory_bytes(1) - memory_bytes < 40 * MIB, "3 GiB were declared"
        for client in clients:
            reply = await client.reply()
            assert reply == b"" or reply.startswith(b"ERR_"), reply
        # A connection that is idle between requests is kept.
        assert await idle.ask(b"read declared\r\n") == NOT_FOUND


async def test_a_server_that_does_not_forward_redirects(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, forward=False, **QUICK_ELECTIONS)
    leader = await cluster.start()
    async with connected(cluster.port(await cluster.follower())) as client:
        redirect = b"ERR_REDIRECT 127.0.0.1:%d\r\n" % cluster.port(leader)
        for request in (
            change("write", "a", b"x"),
            change("append", "a", b"x"),
            change("cas", "a 0", b"x"),
            change("write", "a", bytes(300_000)),
            b"delete a\r\n",
            b"touch a 5\r\n",
            b"read a\r\n",
            b"stat a\r\n",
            b"list\r\n",
        ):
            assert await client.ask(request) == redirect, request[:40]
        assert (await client.status())["leader"] == leader
        assert (await client.ask(b"help\r\n")).startswith(b"HELP ")
        assert (await client.ask(b"\r\n")).startswith(b"ERR_CMD_ERR ")
    async with connected(cluster.port(leader)) as client:
        assert await client.write("a", b"x") == 1


async def fill(cluster: Cluster, server_id: int, prefix: str, count: int, exptime: int = 0) -> int:
    """Write so many small files; gives the last version."""
    version = 0
    async with connected(cluster.port(server_id)) as client:
        for first in range(0, count, 1000):
            numbers = range(first, min(first + 1000, count))
            await client.send(b"".join(change("write", f"{prefix}/{number}", b"x", exptime) for number in numbers))
            for reply in await client.replies(len(numbers)):
                version = version_in(reply)
    return version


async def test_long_lists_by_several_clients_while_files_change(make_cluster: MakeCluster) -> None:
    """Each list is the state of one instant: a file is always there once, though it is rewritten all the time."""
    cluster = make_cluster(3, **QUICK_ELECTIONS)
    asked = await cluster.start()
    count = 5000
    await fill(cluster, asked, "long", count)
    is_over = trio.Event()
    lists_made = 0

    async def keep_listing(pause_seconds: float) -> None:
        nonlocal lists_made
        async with connected(cluster.port(asked)) as client:
            while lists_made < 40:
                await trio.sleep(pause_seconds)  # so that lists begin in the middle of others
                listed = await client.list("long/")
                assert len(listed) == count
                lists_made += 1
        is_over.set()

    async def keep_writing() -> None:
        async with connected(cluster.port(asked)) as client:
            number = 0
            while not is_over.is_set():
                number += 1
                await client.write(f"long/{number % count}", b"%d" % number)

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(keep_listing, number * 0.001)
        nursery.start_soon(keep_writing)
    await cluster.same_everywhere()


async def test_very_many_files_expire_in_one_instant(make_cluster: MakeCluster, figure: Figure) -> None:
    """Nobody else waits long for that, lists that are made meanwhile are sound, and each expiry takes its version."""
    cluster = make_cluster(3)
    leader = await cluster.start()
    term = (await cluster.same_everywhere())["term"]
    count = 10_000
    started_at = trio.current_time()
    last = await fill(cluster, leader, "storm", count, 4)
    filled_at = trio.current_time()
    longest = 0.0
    writes = 0
    async with connected(cluster.port(leader)) as writer, connected(cluster.port(leader)) as lister:
        left = count
        while left:
            asked_at = trio.current_time()
            await writer.write("beside", b"x")
            writes += 1
            longest = max(longest, trio.current_time() - asked_at)
            left = len(await lister.list("storm/"))
            assert left == count or trio.current_time() - started_at >= 4.0, "no file expires early"
        assert trio.current_time() - filled_at <= 4.0 + 1.0 + 1.0, "gone at most 1 s late, and a second for us"
        assert await writer.write("beside", b"x") == last + count + writes + 1
    status = await cluster.same_everywhere()
    assert status["term"] == term
    figure(f"while {count} files expired, the longest of {writes} writes took {longest * 1000:.0f} ms")


async def test_too_many_connections_are_refused_and_the_rest_served(make_cluster: MakeCluster) -> None:
    """The limit comes from the process's own; files for the log and the peers are always left."""
    cluster = make_cluster(3, snapshot_log_bytes=100_000, **QUICK_ELECTIONS)
    cluster.prefix = ("prlimit", "--nofile=100:100")
    await cluster.start()
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(cluster.port(1))) for _ in range(150)]
        replies = []
        for client in clients:
            try:
                replies.append(await client.ask(change("write", "crowded", b"x")))
            except trio.BrokenResourceError:
                replies.append(b"")  # refused, and reset before we could say anything
        served = [client for client, reply in zip(clients, replies, strict=True) if reply.startswith(b"OK ")]
        assert len(served) >= 20
        assert all(reply.startswith((b"OK ", b"ERR_BUSY ")) or not reply for reply in replies)
        # New segments and snapshots can still be made.
        for _ in range(10):
            await served[0].send(change("write", "crowded", bytes(500)) * 100)
            for reply in await served[0].replies(100):
                version_in(reply)
    async with connected(cluster.port(1)) as client:
        await client.write("crowded", b"y")
    await cluster.same_everywhere()
