"""``bin/start_cluster`` as a process: what it says, what it leaves in its directory, and how it ends."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from fileserver import stop_requests
from fileserver.bench.local import free_cluster, local_servers
from fileserver.client import Client, NotAppliedError
from fileserver.config import ClusterConfig, load_config

NODES = 3


class Cluster:
    """A start_cluster that runs, and the lines that it says."""

    def __init__(self, directory: Path, process: subprocess.Popen[str]) -> None:
        self.directory = directory
        self.process = process
        self.config: ClusterConfig = load_config(directory / "cluster.json")

    def line_beginning(self, text: str) -> str:
        """The next line that begins so; those before it are passed over."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(text):
                return line
        return pytest.fail(f"it ended without saying {text!r}")

    def pid(self, server_id: int) -> int:
        return int((self.directory / f"server-{server_id}" / "pid").read_text())

    def client(self) -> Client:
        return Client([server.client for server in self.config.servers])

    def stop(self, number: signal.Signals) -> int:
        """Have it stop; returns its exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster that is ready."""
    config = free_cluster(NODES)
    directory = tmp_path / "data"
    with started(directory, "--nodes", str(NODES), "--port", str(config.servers[0].client.port)) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("cluster ready"), said + process.stdout.read()
        running = Cluster(directory, process)
        yield running
        if process.poll() is None:
            assert running.stop(signal.SIGTERM) == 0


def started(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fileserver.cli.start_cluster", "--dir", str(directory), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def eventually(call: Callable[[], int]) -> int:
    """What it returns once there is a server to talk to; the client waits a while for one by itself."""
    for _ in range(20):
        try:
            return call()
        except NotAppliedError:
            continue
    return pytest.fail("the server didn't come back")


Given = TypeVar("Given")


def awaited(look: Callable[[], Given], process: subprocess.Popen[Any]) -> Given:
    """What there is to see once a process has brought it about."""
    while not (seen := look()):
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.01)
    return seen


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_when_it_is_ready_all_ports_accept_and_everything_is_in_its_place(cluster: Cluster) -> None:
    first = cluster.config.servers[0].client.port
    for position, server in enumerate(cluster.config.servers):
        addresses = (server.client, server.http, server.peer)
        assert [address.port - first - position for address in addresses] == [0, 100, 1000]
        for address in addresses:
            socket.create_connection((address.host, address.port), timeout=10).close()
        assert is_running(cluster.pid(server.server_id))
        assert (cluster.directory / f"server-{server.server_id}" / "server.log").stat().st_size > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_every_server_and_the_same_directory_brings_the_data_back(
    cluster: Cluster, number: signal.Signals
) -> None:
    with cluster.client() as client:
        version = client.write("kept", b"content")
    pids = [cluster.pid(server.server_id) for server in cluster.config.servers]
    assert cluster.stop(number) == 0
    assert not any(is_running(pid) for pid in pids)
    assert not list(cluster.directory.glob("server-*/pid"))
    with started(cluster.directory) as process:
        again = Cluster(cluster.directory, process)
        again.line_beginning("cluster ready")
        with again.client() as client:
            file = client.read("kept")
        assert (file.version, file.content) == (version, b"content")
        assert again.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_that_come_together_are_one_wish_to_stop(cluster: Cluster, number: signal.Signals) -> None:
    cluster.process.send_signal(number)
    cluster.line_beginning("stopping")
    assert cluster.stop(number) == 0
    assert cluster.process.stdout is not None
    assert cluster.process.stdout.read() == ""


def test_who_asks_again_later_does_not_wait_for_a_clean_stop(cluster: Cluster) -> None:
    stuck = cluster.pid(1)
    os.kill(stuck, signal.SIGSTOP)
    cluster.process.send_signal(signal.SIGINT)
    cluster.line_beginning("stopping")
    while cluster.process.poll() is None:
        cluster.process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            cluster.process.wait(timeout=stop_requests.ONE_WISH_SECONDS)
    assert cluster.process.returncode == 1
    assert cluster.process.stdout is not None
    assert "server 1 ended with status -9\n" in cluster.process.stdout.read()
    assert not is_running(stuck)


def test_a_stop_before_the_servers_serve_is_a_clean_one(tmp_path: Path) -> None:
    config = free_cluster(NODES)
    with started(tmp_path / "data", "--nodes", str(NODES), "--port", str(config.servers[0].client.port)) as process:
        awaited((tmp_path / "data" / "server-1" / "server.log").exists, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        assert process.stdout is not None
        assert process.stdout.read() == "stopping\n"


def test_a_server_that_dies_is_reported_and_not_restarted_and_fileserver_restarts_it(cluster: Cluster) -> None:
    killed = cluster.config.servers[1]
    os.kill(cluster.pid(killed.server_id), signal.SIGKILL)
    said = cluster.line_beginning(f"server {killed.server_id} was killed by SIGKILL")
    hint = said.split("bin/fileserver ")[1].split()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((killed.client.host, killed.client.port), timeout=10).close()
    with cluster.client() as client:
        version = client.write("meanwhile", b"content")
    with subprocess.Popen([sys.executable, "-m", "fileserver.cli.fileserver", *hint]) as back:
        with Client([killed.client]) as client:
            assert eventually(lambda: client.read("meanwhile").version) == version
        assert cluster.pid(killed.server_id) == back.pid
        back.send_signal(signal.SIGTERM)
        assert back.wait(timeout=60) == 0


def test_a_second_one_says_that_its_servers_run_already(cluster: Cluster) -> None:
    with started(cluster.directory) as second:
        said, _ = second.communicate(timeout=60)
    path = cluster.directory / "server-1" / "pid"
    assert said == f"server 1 of this cluster is running already: process {cluster.pid(1)} holds {path}\n"
    assert second.returncode == 2


def test_when_no_server_is_left_it_ends_and_says_so(cluster: Cluster) -> None:
    for server in cluster.config.servers:
        os.kill(cluster.pid(server.server_id), signal.SIGKILL)
    cluster.line_beginning("no server is left")
    assert cluster.process.wait(timeout=60) == 1


def test_the_cluster_that_bench_starts_is_gone_afterwards(tmp_path: Path) -> None:
    with local_servers(1, tmp_path / "data") as servers:
        pid = int((tmp_path / "data" / "server-1" / "pid").read_text())
        with Client(servers.addresses) as client:
            assert client.write("a", b"x") == 1
    assert not is_running(pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_so_is_that_of_a_bench_that_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "fileserver.cli.bench", "write", "--secs", "300", "--nodes", "1", "--dir"]
    # It may be ignored here, and who is started inherits that.
    before = signal.signal(number, signal.default_int_handler)
    try:
        process = subprocess.Popen([*command, str(tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    finally:
        signal.signal(number, before)
    with process:
        pid_file = tmp_path / "server-1" / "pid"
        pid = awaited(lambda: pid_file.exists() and pid_file.read_text(), process)
        process.send_signal(number)
        assert process.wait(timeout=60) != 0
    assert not is_running(int(pid))
