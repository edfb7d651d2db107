"""Stage 1's cases, each through every one of five servers that are one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import count

import pytest
import trio

from tests.stage4_cluster.harness import Cluster, eventually
from tests.stage4_cluster.line_client import NOT_FOUND, LineClient, cas, change, connected, version_in

_numbers = count(1)


@pytest.fixture(params=[1, 2, 3, 4, 5])
async def client(five: Cluster, request: pytest.FixtureRequest) -> AsyncIterator[LineClient]:
    async with connected(five.port(request.param)) as connection:
        yield connection


@pytest.fixture
def name() -> str:
    """A name that no other test has used."""
    return f"file-{next(_numbers)}"


async def test_write_read_write_cas_delete(client: LineClient, name: str) -> None:
    assert await client.ask(b"read %b\r\n" % name.encode()) == NOT_FOUND
    first = version_in(await client.ask(b"write %b 5\r\nhello\r\n" % name.encode()))
    assert await client.ask(b"read %b\r\n" % name.encode()) == b"CONTENTS %d 5 0\r\nhello\r\n" % first
    assert await client.ask(b"write %b 3\r\nbye\r\n" % name.encode()) == b"OK %d\r\n" % (first + 1)
    assert await client.ask(cas(name, first, b"no")) == b"ERR_VERSION %d\r\n" % (first + 1)
    assert await client.ask(cas(name, first + 1, b"yes!")) == b"OK %d\r\n" % (first + 2)
    assert await client.ask(b"read %b\r\n" % name.encode()) == b"CONTENTS %d 4 0\r\nyes!\r\n" % (first + 2)
    assert await client.ask(b"delete %b\r\n" % name.encode()) == b"OK\r\n"
    assert await client.ask(b"read %b\r\n" % name.encode()) == NOT_FOUND
    assert await client.ask(b"delete %b\r\n" % name.encode()) == NOT_FOUND
    # A delete takes a version too; one that finds nothing takes none.
    assert await client.ask(b"write %b 0\r\n\r\n" % name.encode()) == b"OK %d\r\n" % (first + 4)


async def test_lines_may_end_in_a_bare_line_feed(client: LineClient, name: str) -> None:
    version = version_in(await client.ask(b"write %b 3\nabc\n" % name.encode()))
    assert await client.ask(b"  read   %b  \n" % name.encode()) == b"CONTENTS %d 3 0\r\nabc\r\n" % version


async def test_a_cas_of_a_missing_file(client: LineClient, name: str) -> None:
    assert await client.ask(cas(name, 7, b"x")) == NOT_FOUND
    assert await client.stat(name) is None
    version = version_in(await client.ask(cas(name, 0, b"new")))
    assert await client.ask(cas(name, 0, b"newer")) == b"ERR_VERSION %d\r\n" % version
    await client.delete(name)
    assert await client.ask(cas(name, version, b"x")) == NOT_FOUND
    assert version_in(await client.ask(cas(name, 0, b"again"))) == version + 2


async def test_a_delete_of_one_version(client: LineClient, name: str) -> None:
    version = await client.write(name, b"x")
    assert await client.ask(f"delete {name} {version + 5}\r\n".encode()) == b"ERR_VERSION %d\r\n" % version
    assert await client.ask(f"delete {name} {version}\r\n".encode()) == b"OK\r\n"
    assert await client.ask(f"delete {name} {version}\r\n".encode()) == NOT_FOUND


async def test_append_creates_and_adds(client: LineClient, name: str) -> None:
    version = await client.append(name, b"one")
    assert await client.append(name, b"") == version + 1
    assert await client.append(name, b" two") == version + 2
    assert await client.ask(b"read %b\r\n" % name.encode()) == b"CONTENTS %d 7 0\r\none two\r\n" % (version + 2)


async def test_append_keeps_the_expiry_unless_told_otherwise(client: LineClient, name: str) -> None:
    await client.write(name, b"a", 1000)
    await client.append(name, b"b")
    file = await client.stat(name)
    assert file is not None
    assert 990 <= file.seconds_left <= 1000
    version_in(await client.ask(change("append", name, b"c", 5000)))
    file = await client.stat(name)
    assert file is not None
    assert 4990 <= file.seconds_left <= 5000
    version_in(await client.ask(change("append", name, b"d", 0)))
    file = await client.stat(name)
    assert file is not None
    assert (file.seconds_left, file.size_bytes) == (0, 4)


async def test_touch_and_stat(client: LineClient, name: str) -> None:
    assert await client.ask(f"touch {name} 5\r\n".encode()) == NOT_FOUND
    assert await client.ask(f"stat {name}\r\n".encode()) == NOT_FOUND
    version = await client.write(name, b"four")
    assert await client.ask(f"stat {name}\r\n".encode()) == b"STAT %d 4 0\r\n" % version
    assert await client.ask(f"touch {name} 100\r\n".encode()) == b"OK %d\r\n" % version
    file = await client.read(name)
    assert file is not None
    assert (file.version, file.content) == (version, b"four")
    assert 95 <= file.seconds_left <= 100
    assert await client.ask(f"touch {name} 0\r\n".encode()) == b"OK %d\r\n" % version
    assert await client.ask(f"stat {name}\r\n".encode()) == b"STAT %d 4 0\r\n" % version


async def test_list_by_prefix(client: LineClient, name: str) -> None:
    names = [f"{name}/{part}" for part in ("b", "a", "c/d", "ä")]
    versions = {each: await client.write(each, each.encode()) for each in names}
    listed = await client.list(f"{name}/")
    assert list(listed) == sorted(names, key=str.encode)
    for each, file in listed.items():
        assert (file.version, file.size_bytes, file.seconds_left) == (versions[each], len(each.encode()), 0)
    assert await client.ask(f"list {name}/z\r\n".encode()) == b"LIST 0\r\n\r\n"
    assert set(names) <= set(await client.list())


async def test_status_and_help(client: LineClient, five: Cluster) -> None:
    status = await client.status()
    assert status["cluster"] == "under-test"
    assert status["leader"] in five.ids
    assert status["role"] == ("leader" if status["leader"] == status["id"] else "follower")
    assert status["applied_index"] <= status["commit_index"] <= status["last_index"]
    assert 1 <= status["first_index"] <= status["last_index"] + 1
    assert int(status["state_hash"], 16) >= 0
    assert {"term", "version", "files", "bytes", "clock"} <= set(status)
    first = five.port(1)
    for number, server in enumerate(status["servers"]):
        assert server["id"] == number + 1
        assert server["client"] == f"127.0.0.1:{first + number}"
        assert server["http"] == f"127.0.0.1:{first + 100 + number}"
        assert server["peer"] == f"127.0.0.1:{first + 1000 + number}"
        assert server["voter"] is True
        if status["role"] == "leader":
            assert server["alive"] is True
            assert isinstance(server["match_index"], int)
        else:
            assert (server["match_index"], server["alive"]) == (None, None)
    text = (await client.ask(b"help\r\n")).decode()
    assert all(word in text for word in ("read", "write", "cas", "delete", "append", "touch", "stat", "list", "quit"))


async def test_quit(client: LineClient) -> None:
    assert await client.ask(b"quit\r\n") == b"OK\r\n"
    assert await client.is_closed()


async def test_contents_are_any_bytes(client: LineClient, name: str) -> None:
    content = bytes(range(256)) * 4 + b"\r\nread x\r\n\n\r\r\n\x00" * 10
    await client.write(name, content)
    file = await client.read(name)
    assert file is not None
    assert file.content == content


async def test_contents_of_any_size(client: LineClient, name: str) -> None:
    for size_bytes in (0, 1, 131_071, 131_072, 131_073, 2_000_000):
        content = bytes(251 * number % 256 for number in range(1000)) * (size_bytes // 1000 + 1)
        content = content[:size_bytes]
        version = await client.write(name, content)
        file = await client.read(name)
        assert file is not None
        assert (file.version, file.content) == (version, content)


async def test_a_request_in_chunks_of_one_byte(client: LineClient, name: str) -> None:
    requests = b"write %b 6\r\na\r\nb\r\n\r\nread %b\r\n" % (name.encode(), name.encode())
    for position in range(len(requests)):
        await client.send(requests[position : position + 1])
    version = version_in(await client.reply())
    assert await client.reply() == b"CONTENTS %d 6 0\r\na\r\nb\r\n\r\n" % version


async def test_a_batch_is_answered_in_order(client: LineClient, name: str) -> None:
    """A pipelined read sees the pipelined writes before it, and not the ones behind it."""
    first = await client.write(name, b"start")
    count_of_rounds = 40
    request = b"".join(
        change("write", name, b"%d" % number) + b"read %b\r\n" % name.encode() for number in range(count_of_rounds)
    )
    await client.send(request)
    for number in range(count_of_rounds):
        version = first + 1 + number
        content = b"%d" % number
        assert await client.reply() == b"OK %d\r\n" % version
        assert await client.reply() == b"CONTENTS %d %d 0\r\n%b\r\n" % (version, len(content), content)


async def test_a_long_batch_of_changes(client: LineClient, name: str) -> None:
    """Versions come in a row, as nobody else makes changes meanwhile."""
    first = await client.write(name, b"")
    await client.send(change("append", name, b"x") * 2000)
    replies = await client.replies(2000)
    assert [version_in(reply) for reply in replies] == list(range(first + 1, first + 2001))
    file = await client.stat(name)
    assert file is not None
    assert file.size_bytes == 2000


ENDS_ARE_KNOWN = (
    b"\r\n",
    b"\n",
    b"   \r\n",
    b"read\r\n",
    b"read a b\r\n",
    b"read a\tb\r\n",
    b"read " + b"n" * 251 + b"\r\n",
    b"read \xff\xfe\r\n",
    "read a\u00a0b\r\n".encode(),
    b"delete\r\n",
    b"delete a b\r\n",
    b"delete a -1\r\n",
    b"delete a 1 2\r\n",
    b"touch a\r\n",
    b"touch a -1\r\n",
    b"touch a 1.5\r\n",
    b"touch a 99999999999999999999\r\n",
    b"stat\r\n",
    b"list a b\r\n",
    b"status now\r\n",
    b"help me\r\n",
    b"quit now\r\n",
    b"write a 3 x\r\nabc\r\n",
    b"write a 3 -5\r\nabc\r\n",
    b"write a 3 5 6\r\nabc\r\n",
    b"write " + b"n" * 251 + b" 3\r\nabc\r\n",
    b"cas a x 3\r\nabc\r\n",
    b"cas a -1 3\r\nabc\r\n",
    b"append a 3 x\r\nabc\r\n",
)
ENDS_ARE_UNKNOWN = (
    b"unknown\r\n",
    b"READ a\r\n",
    b"write a\r\n",
    b"write a -1\r\n",
    b"write a x\r\nabc\r\n",
    b"write a 1_0\r\n",
    b"write a +3\r\nabc\r\n",
    b"write a 67108865\r\n",
    b"write a 99999999999999999999999\r\n",
    b"write a 3\r\nabcd\r\n",
    b"write a 3\r\nabcdef",
    b"cas a 1\r\n",
    b"cas a 1 -1\r\n",
    b"append a\r\n",
    b"read " + b"n" * 600 + b"\r\n",
    b"n" * 501,
    b"\x00\x01\x02\x03\r\n",
    b"GET / HTTP/1.1\r\n",
)


async def test_malformed_requests_whose_end_can_be_told(client: LineClient, name: str) -> None:
    version = await client.write(name, b"")
    for request in ENDS_ARE_KNOWN:
        reply = await client.ask(request)
        assert reply.startswith(b"ERR_CMD_ERR "), (request, reply)
        version += 1
        assert await client.write(name, b"goes on") == version, request


async def test_malformed_requests_whose_end_is_unknown(client: LineClient, name: str) -> None:
    version = await client.write(name, b"")
    port = client.stream.socket.getpeername()[1]
    for request in ENDS_ARE_UNKNOWN:
        async with connected(port) as victim:
            reply = await victim.ask(request)
            assert reply.startswith(b"ERR_CMD_ERR "), (request, reply)
            assert await victim.is_closed(), request
    assert await client.write(name, b"nothing was carried out") == version + 1


async def test_a_line_of_499_bytes_is_accepted(client: LineClient, name: str) -> None:
    line = b"write %b 2" % name.encode()
    line = line.replace(b" ", b" " * (499 - len(line) + 1), 1)
    assert len(line) == 499
    version_in(await client.ask(line + b"\r\nok\r\n"))
    assert (await client.ask(b" " + line + b"\r\nok\r\n")).startswith(b"ERR_CMD_ERR ")
    assert await client.is_closed()


async def test_a_name_of_250_bytes_is_accepted(client: LineClient) -> None:
    await client.write("ü" * 125, b"x")
    await client.delete("ü" * 125)


async def test_files_expire_on_time_and_each_takes_a_version(five: Cluster) -> None:
    """Watched through all five at a time, as it takes its seconds."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(five.port(server_id))) for server_id in five.ids]
        first = await clients[0].write("before-expiry", b"")

        async def watch(client: LineClient, name: str) -> None:
            started_at = trio.current_time()
            await client.write(name, b"soon gone", 2)
            written_at = trio.current_time()
            file = await client.stat(name)
            assert file is not None
            assert file.seconds_left == 2

            async def counts_down() -> bool:
                file = await client.stat(name)
                return file is not None and file.seconds_left == 1

            await eventually("one second is left", counts_down)
            assert trio.current_time() - started_at >= 1.0

            async def has_gone() -> bool:
                return await client.read(name) is None

            await eventually("the file expires", has_gone)
            assert trio.current_time() - started_at >= 2.0, "no file expires early"
            assert trio.current_time() - written_at <= 3.0 + 0.5, "at most 1 s late (and half a second for us)"

        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(watch, client, f"file-{next(_numbers)}")
        assert await clients[0].write("before-expiry", b"") == first + 5 + 5 + 1


async def test_a_later_change_replaces_the_expiry(five: Cluster) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(five.port(server_id))) for server_id in five.ids]

        async def replace(client: LineClient, name: str) -> None:
            kept = [f"{name}-{way}" for way in ("write", "cas", "append", "touch")]
            versions = [await client.write(each, b"soon gone", 1) for each in kept]
            await client.write(f"{name}-gone", b"", 1)
            await client.write(kept[0], b"")
            version_in(await client.ask(cas(kept[1], versions[1], b"")))
            version_in(await client.ask(change("append", kept[2], b"", 0)))
            version_in(await client.ask(f"touch {kept[3]} 0\r\n".encode()))

            async def has_gone() -> bool:
                return await client.stat(f"{name}-gone") is None

            await eventually("a file written after them expires", has_gone)
            for each in kept:
                file = await client.read(each)
                assert file is not None, each
                assert file.seconds_left == 0

        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(replace, client, f"file-{next(_numbers)}")
