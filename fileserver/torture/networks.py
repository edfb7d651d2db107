"""What the torture asks of a network between servers that it can break."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import attrs
import trio

from fileserver.config import Address
from fileserver.torture.impairments import Impairment
from fileserver.torture.shapes import Link

Popen = subprocess.Popen[bytes]
Spawn = Callable[[], Popen]


@attrs.frozen(slots=True)
class Addresses:
    """Where one server listens."""

    client: Address
    http: Address
    peer: Address


@attrs.define(slots=True)
class Traffic:
    """What became of what was sent on a link, counted since the beginning."""

    dropped: int = 0
    """Packets lost, or pieces of a stream held back."""
    delayed: int = 0


class BreakableNetwork(Protocol):
    """Links between servers that can be cut and slowed down, one direction at a time."""

    kind: str
    """For people."""

    def addresses(self, server: int) -> Addresses:
        """Where a server listens, as it knows it itself and as clients do."""
        ...

    def peer_address(self, link: Link) -> Address:
        """Where the source of a link dials to reach the other end."""
        ...

    def place_of(self, server: int) -> AbstractContextManager[None]:
        """Where a server's process is to be started, for a ``with`` block that mustn't wait."""
        ...

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry what is to be carried, until cancelled."""
        ...

    def impose(self, fault: int, links: Mapping[Link, Impairment]) -> None:
        """Let these be the impairments that a fault brings, in the place of those that it brought before."""
        ...

    def lift(self, fault: int) -> None:
        """End what a fault brought."""
        ...

    def traffic(self, link: Link) -> Traffic:
        """What became of what was sent on a link."""
        ...

    async def probe(self, link: Link, seconds: float) -> float | None:
        """Send something of our own along a link; gives the seconds it took, None if it isn't there in time."""
        ...

    def close(self) -> None:
        """Give back what the network holds."""
        ...
