"""When a cluster counts as ready, and what is asked of servers to find out."""

import socket
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from fileserver import supervisor
from fileserver.alone import serve_alone
from fileserver.bench.local import free_cluster
from fileserver.config import Address, load_config
from fileserver.supervisor import ask_status, obstacle_to_ready

NO_WISHES = supervisor.Wishes(None, None, None)


@pytest.mark.parametrize(
    ("statuses", "obstacle"),
    [
        ({1: {"leader": 1, "term": 2}, 2: {"leader": 1, "term": 2}}, None),
        ({1: {"leader": 1, "term": 2}, 2: {}}, "server 2 doesn't answer"),
        ({1: {"leader": None, "term": 2}, 2: {"leader": 1, "term": 2}}, "server 1 knows no leader"),
        ({1: {"leader": 1, "term": 2}, 2: {"leader": 2, "term": 3}}, "the servers don't agree on a leader"),
        ({1: {"leader": 1, "term": 2}, 2: {"leader": 1, "term": 3}}, "the servers don't agree on a leader"),
    ],
)
def test_what_stands_between_a_cluster_and_ready(statuses: dict[int, dict[str, Any]], obstacle: str | None) -> None:
    assert obstacle_to_ready(statuses) == obstacle


async def test_a_servers_status_is_asked_for_over_its_client_port(nursery: trio.Nursery) -> None:
    port = await nursery.start(serve_alone, "127.0.0.1", 0)
    assert (await ask_status(Address("127.0.0.1", port)))["leader"] == 1


@pytest.mark.parametrize("reply", [b"", b"ERR_INTERNAL no\r\n", b"STATUS 4\r\nnot \r\n", b"STATUS 2\r\n[]\r\n"])
async def test_a_server_that_gives_no_status(nursery: trio.Nursery, reply: bytes) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(reply)
        await stream.aclose()

    (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
    assert await ask_status(Address("127.0.0.1", listener.socket.getsockname()[1])) == {}


async def test_a_server_that_is_not_there() -> None:
    with trio.socket.socket() as bound:
        await bound.bind(("127.0.0.1", 0))
        assert await ask_status(Address("127.0.0.1", bound.getsockname()[1])) == {}


def test_preparing_a_new_directory_and_the_same_again(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "data"
    config = free_cluster(2)
    assert supervisor.prepare(directory, NO_WISHES, lambda _: config) == config
    assert sorted(path.name for path in directory.iterdir()) == ["cluster.json", "server-1", "server-2"]
    assert load_config(directory / "cluster.json") == config
    again = supervisor.prepare(directory, NO_WISHES, lambda _: pytest.fail("made anew"))
    assert again == config


def test_a_port_that_is_in_use_is_found_before_anything_is_made(tmp_path: Path) -> None:
    config = free_cluster(3)
    taken = config.servers[2].peer
    said = rf"port {taken.port} is in use \(peer port of server 3\)"
    with socket.create_server((taken.host, taken.port)), pytest.raises(supervisor.Unusable, match=said):
        supervisor.prepare(tmp_path, NO_WISHES, lambda _: config)
    assert list(tmp_path.iterdir()) == []


def test_a_pid_file_that_cannot_be_looked_at_is_told(tmp_path: Path) -> None:
    config = free_cluster(2)
    supervisor.prepare(tmp_path, NO_WISHES, lambda _: config)
    pid = tmp_path / "server-2" / "pid"
    pid.symlink_to(pid)
    with pytest.raises(supervisor.Unusable, match=rf"{pid}: Too many levels of symbolic links"):
        supervisor.prepare(tmp_path, NO_WISHES, lambda _: config)
