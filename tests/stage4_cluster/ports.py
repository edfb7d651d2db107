"""Port ranges for clusters of tests, such that no two tests on this machine ever get the same.

A range begins at a client port p and takes p..p+9, p+100..p+109 and p+1000..p+1009, as ``bin/start_cluster`` lays a
cluster out. A range belongs to whoever holds the lock on its file, which goes with the process however that ends; so
several workers, and several people's runs, share a machine. All ports lie below those that Linux gives to outgoing
connections, so nothing else comes to sit on one while its server is down.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import Final

import attrs

WIDTH: Final = 10
_OFFSETS: Final = (0, 100, 1000)
_FIRST_PORTS: Final = tuple(
    thousands + hundreds + tens
    for thousands in range(10_000, 30_000, 2000)
    for hundreds in range(0, 1000, 200)
    for tens in range(0, 100, WIDTH)
)
_PLACE: Final = Path(tempfile.gettempdir()) / f"quintet-test-ports-{os.getuid()}"


@attrs.frozen(slots=True)
class PortRange:
    """A range of ports that is ours until it is released."""

    first: int
    _lock: int

    def release(self) -> None:
        """Let others have it."""
        os.close(self._lock)


def reserve() -> PortRange:
    """Take a range that nobody has and whose ports are all free."""
    _PLACE.mkdir(mode=0o700, exist_ok=True)
    # Not the same order in every process, or all of them would contend for the same few. It decides nothing else.
    for first in random.Random(os.getpid()).sample(_FIRST_PORTS, len(_FIRST_PORTS)):
        descriptor = os.open(_PLACE / str(first), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        if all(_is_free(first + offset + step) for offset in _OFFSETS for step in range(WIDTH)):
            return PortRange(first, descriptor)
        os.close(descriptor)
    raise AssertionError("no range of ports is free on this machine")


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
            trial.listen(1)
        except OSError:
            return False
    return True
