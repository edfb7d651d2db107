"""The HTTP port of a server in a cluster, and a cluster that is given as a plain list of servers."""

from __future__ import annotations

import json
from pathlib import Path

import trio

from tests.stage4_cluster.conftest import MakeCluster
from tests.stage4_cluster.harness import QUICK_ELECTIONS, Cluster, eventually
from tests.stage4_cluster.line_client import connected


async def get(cluster: Cluster, server_id: int, path: str) -> tuple[int, bytes]:
    """Ask over HTTP; gives the status and the body."""
    async with await trio.open_tcp_stream("127.0.0.1", cluster.port(server_id) + 100) as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        received = b""
        async for chunk in stream:
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


async def test_health_status_and_metrics(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, **QUICK_ELECTIONS)
    leader = await cluster.start()
    async with connected(cluster.port(1)) as client:
        version = await client.write("a", b"x")
    await cluster.same_everywhere()
    for server_id in cluster.ids:
        assert (await get(cluster, server_id, "/health"))[0] == 200
        code, body = await get(cluster, server_id, "/status")
        assert code == 200
        assert (json.loads(body)["leader"], json.loads(body)["version"]) == (leader, version)
        code, body = await get(cluster, server_id, "/metrics")
        assert code == 200
        assert b"version" in body
    survivor = next(server_id for server_id in cluster.ids if server_id != leader)
    cluster.kill(*(server_id for server_id in cluster.ids if server_id != survivor))

    async def is_unwell() -> bool:
        return (await get(cluster, survivor, "/health"))[0] == 503

    await eventually("a server without a majority says that it can't serve", is_unwell)
    await cluster.mend()

    async def is_well() -> bool:
        return (await get(cluster, survivor, "/health"))[0] == 200

    await eventually("it can again", is_well)


async def test_a_plain_list_of_servers(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    cluster.config_file = Path(cluster.directory / "servers.txt")
    lines = [f"{server_id} 127.0.0.1 {cluster.port(server_id)}\n" for server_id in cluster.ids]
    cluster.config_file.write_text("# three servers\n" + "".join(lines))
    await cluster.start()
    async with connected(cluster.port(1)) as writer, connected(cluster.port(3)) as reader:
        await writer.write("a", b"listed")
        file = await reader.read("a")
        assert file is not None
        assert file.content == b"listed"
