"""A cluster on this machine for as long as it is measured.

Its servers are children of this process, started as ``bin/start_cluster`` starts them, so their process ids are known:
what they use of the processor can be measured, and one of them can be killed and started again.

Invariant: a signal goes only to a process that was started here and has not been waited for.
"""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from fileserver import ports, supervisor
from fileserver.config import Address, ClusterConfig, local_cluster
from fileserver.processes import module_command

READY_SECONDS = 60.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.02
_LEAST_PORT = 20_000
_MOST_PORT = 30_000  # below what Linux gives to outgoing connections, so none of those takes a port meanwhile
_ON_A_DISK = Path("/var/tmp")

Status = dict[str, Any]


class NotReady(Exception):
    """The cluster didn't start. The text is what it said last."""


def free_cluster(nodes: int, *, host: str = "127.0.0.1") -> ClusterConfig:
    """A configuration whose ports are all free right now.

    Raises:
        NotReady: none was found.
    """
    for _ in range(100):
        config = local_cluster(nodes=nodes, host=host, port=random.randrange(_LEAST_PORT, _MOST_PORT))
        try:
            ports.check_free(pair for server in config.servers for pair in ports.addresses_of(server))
        except ports.AddressUnusable:
            continue
        return config
    raise NotReady("no free ports were found")


def await_until(what: str, has_come: Callable[[], bool], patience_seconds: float) -> None:
    """Look again and again, as other processes can't be waited for otherwise.

    Raises:
        NotReady: it hasn't come in that time.
    """
    deadline = time.monotonic() + patience_seconds
    while not has_come():
        if time.monotonic() > deadline:
            raise NotReady(f"not within {patience_seconds:.0f} s: {what}")
        time.sleep(POLL_SECONDS)


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """A directory for the time of a ``with`` block, on a disk: where ``/tmp`` is in memory, flushes cost nothing."""
    place = _ON_A_DISK if "TMPDIR" not in os.environ and os.access(_ON_A_DISK, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="quintet-bench-", dir=place) as name:
        yield Path(name)


@contextmanager
def local_servers(
    nodes: int, directory: Path, config: ClusterConfig | None = None, **settings: Any
) -> Iterator[LocalCluster]:
    """Run a cluster for the time of a ``with`` block; it is ready when the block begins.

    Args:
        nodes: how many servers.
        directory: where they keep their data; if there is a cluster there, it is that one that runs.
        config: where a new one listens; by default at ports that are free.
        settings: what else is not to be as usual in a new one's :class:`ClusterConfig`.

    Raises:
        NotReady: it isn't, within a minute.
    """
    new_config = attrs.evolve(config or free_cluster(nodes), **settings)
    try:
        config = supervisor.prepare(directory, supervisor.Wishes(nodes, None, None), lambda _wishes: new_config)
    except supervisor.Unusable as error:
        raise NotReady(str(error)) from error
    cluster = LocalCluster(config, directory)
    try:
        for server_id in cluster.ids:
            cluster.start(server_id)
        cluster.await_ready()
        yield cluster
    finally:
        cluster.stop_all()


class LocalCluster:
    """The servers' processes."""

    def __init__(self, config: ClusterConfig, directory: Path) -> None:
        """Nothing runs yet; the directory has been prepared."""
        self.config = config
        self.directory = directory
        self.ids = tuple(server.server_id for server in config.servers)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._killed: list[subprocess.Popen[bytes]] = []

    # Where things are

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where clients connect, by the servers' order."""
        return tuple(server.client for server in self.config.servers)

    @property
    def pids(self) -> tuple[int, ...]:
        """The servers' processes."""
        return tuple(process.pid for process in self._processes.values())

    def pid(self, server_id: int) -> int:
        """A server's process."""
        return self._processes[server_id].pid

    def place(self, server_id: int) -> Path:
        """A server's directory."""
        return supervisor.server_directory(self.directory, self.config.server(server_id))

    # Processes

    def start(self, server_id: int) -> None:
        """Start a server, without waiting for it."""
        self._reap()
        command = [
            *module_command("fileserver.cli.fileserver"),
            "--config",
            str(self.directory / supervisor.CONFIG_NAME),
        ]
        command += ["--id", str(server_id), "--dir", str(self.directory)]
        with (self.place(server_id) / "server.log").open("ab") as log:
            self._processes[server_id] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self, server_id: int) -> None:
        """End a server by SIGKILL, without waiting for it."""
        process = self._processes.pop(server_id)
        process.kill()
        self._killed.append(process)

    def stop(self, *server_ids: int) -> None:
        """End servers cleanly; those that take too long are killed."""
        processes = [self._processes.pop(server_id) for server_id in server_ids]
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def stop_all(self) -> None:
        """End what still runs."""
        self.stop(*self._processes)
        self._reap()

    def _reap(self) -> None:
        """Wait for those that were killed."""
        while self._killed:
            self._killed.pop().wait()

    def set_for_next_starts(self, **settings: Any) -> None:
        """Change settings of the :class:`ClusterConfig` for servers that are started from now on."""
        self.config = attrs.evolve(self.config, **settings)
        (self.directory / supervisor.CONFIG_NAME).write_text(self.config.to_json(), encoding="utf-8")

    # What servers say

    def status(self, server_id: int) -> Status:
        """What a server says of itself; an empty one if it says nothing."""
        return trio.run(supervisor.ask_status, self.config.server(server_id).client)

    def leader(self) -> int:
        """Wait until all servers that run name the same leader; gives its id.

        Raises:
            NotReady: they don't within a minute, or one of them has ended.
        """
        deadline = time.monotonic() + READY_SECONDS
        while True:
            statuses = {server_id: self.status(server_id) for server_id in self._processes}
            obstacle = supervisor.obstacle_to_ready(statuses)
            if obstacle is None:
                return int(next(iter(statuses.values()))["leader"])
            for server_id, process in self._processes.items():
                if process.poll() is not None:
                    raise NotReady(f"server {server_id} has ended: {self._said(server_id)}")
            if time.monotonic() > deadline:
                raise NotReady(f"the cluster isn't ready after {READY_SECONDS:.0f} s: {obstacle}")
            time.sleep(POLL_SECONDS)

    def await_ready(self) -> None:
        """Wait until all servers serve. Raises NotReady."""
        self.leader()

    def leader_address(self) -> Address:
        """Where clients of the leader connect. Raises NotReady."""
        return self.config.server(self.leader()).client

    def memory_bytes(self, server_id: int) -> int:
        """Main memory that a server has at the moment."""
        pages = Path(f"/proc/{self.pid(server_id)}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def _said(self, server_id: int) -> str:
        """The last line of a server's log."""
        lines = (self.place(server_id) / "server.log").read_text(errors="replace").splitlines()
        return lines[-1] if lines else "its log is empty"
