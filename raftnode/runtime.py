"""What a node needs of the world beside its disk and its network: time, waiting, and a place for calls that block.

The node and its parts are written against :class:`Runtime` alone, so the same code runs under Trio
(:mod:`raftnode.trio_runtime`), where a server's life is real, and in a simulation, where a day passes in minutes and
happens again from the same seed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias

RunBlocking: TypeAlias = Callable[..., Awaitable[Any]]
"""``await run_blocking(function, *arguments)``: a blocking call, made where it holds nobody up."""


class Signal(Protocol):
    """Something that happens once; whoever waits for it goes on."""

    def set(self) -> None:
        """It has happened."""

    async def wait(self) -> None:
        """Wait until it has."""


class Runtime(Protocol):
    """See the module's docstring. Times are microseconds of one clock that never goes back."""

    @property
    def now_us(self) -> Callable[[], int]:
        """Tells the time."""

    @property
    def signal(self) -> Callable[[], Signal]:
        """Makes a signal that has not happened yet."""

    @property
    def run_blocking(self) -> RunBlocking:
        """Makes a blocking call elsewhere; others go on meanwhile. It is waited for even when cancelled."""

    async def sleep(self, microseconds: int) -> None:
        """Let time pass; with 0, let others have a turn."""

    async def wait_until(self, signal: Signal, deadline_us: int) -> None:
        """Wait for the signal, or until the time has come, whichever is first."""
