"""A node under Trio: its clock, its events, its worker threads, and the tasks that a node consists of."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter, perf_counter_ns
from typing import Any, Protocol

import trio

from raftnode.node import Node
from raftnode.node_values import Sender
from raftnode.runtime import RunBlocking, Signal


class RunnableTransport(Sender, Protocol):
    """A transport that runs as a task and says when it listens."""

    async def run(self, *, task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry messages until cancelled."""


_CLOCKS_DIFFER_SECONDS = 0.1
"""Two readings of one clock, one after the other, are never that far apart, or nearly never."""


def monotonic_us() -> int:
    """Trio's clock in microseconds: the machine's monotonic clock, or a test's own.

    Rounded, so that who sleeps until a microsecond finds on waking that it has come: cut off, one in a hundred hasn't.
    """
    return round(trio.current_time() * 1_000_000)


def _reading_of(clock: trio.abc.Clock) -> Callable[[], int]:
    """What reads that clock in microseconds.

    Trio's own clock is the processor's with an offset, and is read without a detour: that is done some ten times in
    every turn.
    """
    read = clock.current_time
    offset = getattr(clock, "offset", None)
    if not isinstance(offset, float) or abs(offset + perf_counter() - read()) > _CLOCKS_DIFFER_SECONDS:
        return lambda: round(read() * 1_000_000)
    offset_ns = round(offset * 1_000_000_000) + 500
    return lambda: (perf_counter_ns() + offset_ns) // 1_000


class TrioRuntime:
    """Fulfils :class:`raftnode.runtime.Runtime`. Made within the run of Trio that it is used in."""

    def __init__(self, run_blocking: RunBlocking = trio.to_thread.run_sync) -> None:
        """``run_blocking`` is a worker thread, unless a test has another way."""
        self.now_us: Callable[[], int] = _reading_of(trio.lowlevel.current_clock())
        """See :func:`monotonic_us`; the clock, which is read often, is found once."""
        self.signal: Callable[[], Signal] = trio.Event
        self._run_blocking = run_blocking
        self._blocking_calls = 0

    @property
    def is_blocking(self) -> bool:
        """Whether a blocking call is under way."""
        return self._blocking_calls > 0

    async def run_blocking(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """See Runtime."""
        self._blocking_calls += 1
        try:
            return await self._run_blocking(function, *arguments)
        finally:
            self._blocking_calls -= 1

    async def sleep(self, microseconds: int) -> None:
        """See Runtime."""
        await trio.sleep(microseconds / 1e6)

    async def wait_until(self, signal: Signal, deadline_us: int) -> None:
        """See Runtime."""
        with trio.move_on_at(deadline_us / 1e6):
            await signal.wait()


async def run_node(
    node: Node, transport: RunnableTransport, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Have a node take part in its cluster until cancelled; started when the transport listens.

    Raises:
        DiskFailed: the disk failed in a way that leaves no safe way on.
    """
    node.attach(transport)
    async with trio.open_nursery() as nursery:
        await nursery.start(transport.run)
        for task in node.tasks():
            nursery.start_soon(task)
        task_status.started()
