"""A cluster on this machine for as long as it is measured."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fileserver import ports
from fileserver.config import Address, ClusterConfig, local_cluster
from fileserver.processes import module_command

READY_SECONDS = 60.0
STOP_SECONDS = 30.0
_LEAST_PORT = 20_000
_MOST_PORT = 30_000  # below what Linux gives to outgoing connections, so none of those takes a port meanwhile


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


@contextmanager
def local_servers(nodes: int, directory: Path) -> Iterator[tuple[Address, ...]]:
    """Run ``bin/start_cluster`` for the time of a ``with`` block; gives the client addresses once it is ready.

    Raises:
        NotReady: it isn't, within a minute.
    """
    config = free_cluster(nodes)
    first = config.servers[0].client
    command = [*module_command("fileserver.cli.start_cluster"), "--nodes", str(nodes)]
    command += ["--dir", str(directory), "--port", str(first.port), "--host", first.host]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            _await_ready(process)
            yield tuple(server.client for server in config.servers)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.communicate(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGTERM)  # the second one kills its servers
                process.communicate()


def _await_ready(process: subprocess.Popen[str]) -> None:
    """Read what the cluster says until it says that it is ready."""
    said = "it said nothing"
    out_of_time = threading.Timer(READY_SECONDS, process.terminate)
    out_of_time.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("cluster ready"):
                return
            said = line.strip()
    finally:
        out_of_time.cancel()
    raise NotReady(f"the cluster didn't start: {said}")
