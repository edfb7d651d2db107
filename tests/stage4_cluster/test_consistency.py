"""What every client sees, whichever servers it and the others talk to: one store, each change made once."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from itertools import product

import pytest
import trio

from tests.stage4_cluster.conftest import Figure
from tests.stage4_cluster.harness import Cluster, eventually
from tests.stage4_cluster.line_client import LineClient, cas, change, connected, version_in


async def clients_of_all(stack: AsyncExitStack, cluster: Cluster, each: int = 1) -> list[LineClient]:
    """So many clients of every server, in turns."""
    return [
        await stack.enter_async_context(connected(cluster.port(server_id)))
        for _ in range(each)
        for server_id in cluster.ids
    ]


async def test_a_read_sees_what_was_acknowledged_before_by_any_other_server(five: Cluster) -> None:
    async with AsyncExitStack() as stack:
        clients = await clients_of_all(stack, five)
        for turn in range(3):
            for number, (writer, reader) in enumerate(product(clients, clients)):
                content = f"{turn} {number}".encode()
                version = await writer.write("seen-by-all", content)
                file = await reader.read("seen-by-all")
                assert file is not None
                assert (file.version, file.content) == (version, content)
                assert (await reader.stat("seen-by-all")) is not None
        await clients[0].delete("seen-by-all")
        for client in clients:
            assert await client.read("seen-by-all") is None
            assert "seen-by-all" not in await client.list("seen")


async def test_reads_never_go_back_while_a_file_is_written(five: Cluster) -> None:
    """Versions that one reader sees, and those that a chain of readers through all servers sees, only rise."""
    async with AsyncExitStack() as stack:
        clients = await clients_of_all(stack, five)
        (writer,) = (await clients_of_all(stack, five))[:1]
        await writer.write("rising", b"0")
        is_over = trio.Event()

        async def keep_writing() -> None:
            for number in range(1, 300):
                await writer.write("rising", b"%d" % number)
            is_over.set()

        seen = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_writing)
            while not is_over.is_set():
                for client in clients:
                    file = await client.read("rising")
                    assert file is not None
                    assert file.version >= seen
                    seen = file.version


async def test_versions_of_concurrent_changes_are_a_row_without_gaps(five: Cluster) -> None:
    async with AsyncExitStack() as stack:
        clients = await clients_of_all(stack, five, each=4)
        first = await clients[0].write("row", b"")
        versions: list[int] = []

        async def change_things(number: int, client: LineClient) -> None:
            for turn in range(10):
                versions.append(await client.write(f"row-{number}", b"%d" % turn))
                versions.append(await client.append("row", b"x"))
                await client.delete(f"row-{number}")
                versions.append(0)  # a delete takes a version and doesn't tell which

        async with trio.open_nursery() as nursery:
            for number, client in enumerate(clients):
                nursery.start_soon(change_things, number, client)
        given = [version for version in versions if version]
        assert len(set(given)) == len(given), "no version is given twice"
        assert await clients[0].write("row", b"") == first + len(versions) + 1
        assert min(given) > first
        assert max(given) <= first + len(versions)


@pytest.mark.slow
async def test_every_change_is_made_once_while_leaders_are_killed(five: Cluster, figure: Figure) -> None:
    """Counters by append and by cas. Clients of servers that live see no error; each OK is one step of a counter."""
    appended: Counter[int] = Counter()
    swapped: Counter[str] = Counter()
    parked: dict[int, trio.Event] = {}
    busy: Counter[int] = Counter()
    is_over = trio.Event()
    names = {server_id: bytes([64 + server_id]) for server_id in five.ids}

    async def take_turns(server_id: int, act: str) -> None:
        """A client that leaves its server before that is killed, and comes back afterwards."""
        while not is_over.is_set():
            if server_id in parked:
                await parked[server_id].wait()
            busy[server_id] += 1
            async with connected(five.port(server_id)) as client:
                while not is_over.is_set() and server_id not in parked:
                    if act == "append":
                        await client.append("once/appended", names[server_id])
                        appended[server_id] += 1
                        continue
                    file = await client.read("once/swapped")
                    assert file is not None
                    reply = await client.ask(cas("once/swapped", file.version, b"%d" % (int(file.content) + 1)))
                    swapped["OK" if reply.startswith(b"OK ") else "ERR_VERSION"] += 1
                    assert reply.startswith((b"OK ", b"ERR_VERSION ")), reply
            busy[server_id] -= 1

    async with connected(five.port(1)) as client:
        await client.write("once/appended", b"")
        await client.write("once/swapped", b"0")
    async with trio.open_nursery() as nursery:
        for server_id in five.ids:
            for act in ("append", "append", "cas"):
                nursery.start_soon(take_turns, server_id, act)
        for _ in range(4):
            leader = await five.leader()
            goal = appended.total() + 100
            parked[leader] = trio.Event()

            async def has_left(leader: int = leader) -> bool:
                return busy[leader] == 0

            async def goes_on(goal: int = goal) -> bool:
                return appended.total() >= goal

            await eventually(f"the clients of server {leader} leave", has_left)
            await eventually("changes are made", goes_on)
            five.kill(leader)
            goal = appended.total() + 100
            await eventually("changes are made under another leader", goes_on)
            await five.start(leader)
            parked.pop(leader).set()
        is_over.set()
    async with connected(five.port(1)) as client:
        file = await client.read("once/appended")
        assert file is not None
        assert Counter(file.content) == {ord(names[server_id]): count for server_id, count in appended.items()}
        file = await client.read("once/swapped")
        assert file is not None
        assert int(file.content) == swapped["OK"]
    await five.same_everywhere()
    figure(f"four leaders killed in {appended.total()} appends and {swapped['OK']} + {swapped['ERR_VERSION']} cas")


@pytest.mark.slow
async def test_500_clients_write_one_file_10_times_each(five: Cluster, figure: Figure) -> None:
    async with AsyncExitStack() as stack:
        clients = await clients_of_all(stack, five, each=100)
        first = await clients[0].write("crowd", b"")
        versions: list[int] = []

        async def write_ten(client: LineClient) -> None:
            versions.extend([await client.write("crowd", b"%d" % number) for number in range(10)])

        started_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(write_ten, client)
        figure(f"500 clients x 10 writes to one file: {5000 / (trio.current_time() - started_at):.0f} a second")
        assert sorted(versions) == list(range(first + 1, first + 5001))
        for client in clients[:5]:
            file = await client.read("crowd")
            assert file is not None
            assert (file.version, file.content) == (first + 5000, b"9")


@pytest.mark.slow
async def test_500_clients_pipeline_10_writes_each(five: Cluster) -> None:
    async with AsyncExitStack() as stack:
        clients = await clients_of_all(stack, five, each=100)
        first = await clients[0].write("crowd", b"")
        versions: list[int] = []

        async def write_ten(client: LineClient) -> None:
            await client.send(change("write", "crowd", b"x" * 100) * 10)
            mine = [version_in(reply) for reply in await client.replies(10)]
            assert mine == sorted(mine), "the requests of one connection are carried out in order"
            versions.extend(mine)

        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(write_ten, client)
        assert sorted(versions) == list(range(first + 1, first + 5001))


@pytest.mark.slow
async def test_100_clients_cas_until_each_has_succeeded_10_times(five: Cluster, figure: Figure) -> None:
    """Each takes the version that the refusal tells it. In every round at least one succeeds."""
    async with AsyncExitStack() as stack:
        clients = await clients_of_all(stack, five, each=20)
        start = await clients[0].write("contended", b"")
        won: list[int] = []
        refused = 0

        async def swap_ten_times(client: LineClient) -> None:
            nonlocal refused
            version = start
            for number in range(10):
                while True:
                    reply = await client.ask(cas("contended", version, b"%d" % number))
                    word, number_given = reply.split()
                    version = int(number_given)
                    if word == b"OK":
                        won.append(version)
                        break
                    assert word == b"ERR_VERSION", reply
                    refused += 1

        started_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(swap_ten_times, client)
        assert sorted(won) == list(range(start + 1, start + 1001))
        took_seconds = trio.current_time() - started_at
        figure(f"100 clients x 10 cas until success: {1000 + refused} requests in {took_seconds:.1f} s")
