"""Tasks of a simulated server: the coroutines of the product, driven without any event loop's library.

:class:`SimulatedRuntime` fulfils :class:`raftnode.runtime.Runtime`. A coroutine that waits hands out a :class:`_Wait`,
for a signal, a time, or either. Every wait has a ticket, and whoever wants to resume a task must show it: so a time
that comes after the signal finds nothing to do. When the server ends, its tasks are dropped where they stand, as a
killed process is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Protocol, TypeVar

from fileserver.simulation.clocks import SkewedClock
from fileserver.simulation.loop import Action
from raftnode.disk_health import StorageError
from raftnode.runtime import RunBlocking, Signal
from raftnode.simulated_disk import SimulatedCrash

T = TypeVar("T")


class Host(Protocol):
    """The server that tasks run on."""

    clock: SkewedClock

    def soon(self, action: Action) -> None:
        """Have something done by this run of the server, as soon as it can."""

    def at(self, true_us: int, action: Action) -> None:
        """Have something done by this run of the server at a true time, or as soon as it can after it."""

    def blocking_call(self, function: Callable[[], object], done: Callable[[object], None]) -> None:
        """Make a blocking call that takes time, then hand over what it gave, or the exception that it raised."""


class SimulatedSignal:
    """Fulfils :class:`raftnode.runtime.Signal`."""

    __slots__ = ("_host", "_waiting", "is_set")

    def __init__(self, host: Host) -> None:
        self._host = host
        self.is_set = False
        self._waiting: list[tuple[_Task, int]] = []

    def set(self) -> None:
        """It has happened."""
        if not self.is_set:
            self.is_set = True
            for task, ticket in self._waiting:
                task.resume_soon(ticket)
            self._waiting.clear()

    async def wait(self) -> None:
        """Wait until it has."""
        if not self.is_set:
            await _Wait(self, None)

    def add(self, task: _Task, ticket: int) -> None:
        """Resume a task when it happens."""
        self._waiting.append((task, ticket))


class _Wait:
    __slots__ = ("call", "deadline_true_us", "signal")

    def __init__(
        self, signal: SimulatedSignal | None, deadline_true_us: int | None, call: Callable[[], object] | None = None
    ) -> None:
        self.signal = signal
        self.deadline_true_us = deadline_true_us
        self.call = call

    def __await__(self) -> Generator[_Wait, Any, Any]:
        return (yield self)


class _Task:
    """A coroutine on its way."""

    __slots__ = ("_coroutine", "_host", "_ticket", "is_done")

    def __init__(self, host: Host, coroutine: Coroutine[Any, Any, None]) -> None:
        self._host = host
        self._coroutine = coroutine
        self._ticket = 0
        self.is_done = False

    def drop(self) -> None:
        self._ticket = -1
        with contextlib.suppress(SimulatedCrash, StorageError):
            self._coroutine.close()

    def resume_soon(self, ticket: int) -> None:
        self._host.soon(lambda: self.resume(ticket))

    def resume(self, ticket: int, value: object = None) -> None:
        """Go on until the next wait, if the ticket is that of the present one."""
        if ticket != self._ticket:
            return
        self._ticket += 1
        try:
            if isinstance(value, BaseException):
                wait = self._coroutine.throw(value)
            else:
                wait = self._coroutine.send(value)
        except StopIteration:
            self.is_done = True
            return
        ticket = self._ticket
        if wait.call is not None:
            self._host.blocking_call(wait.call, lambda result: self.resume(ticket, result))
            return
        if wait.signal is not None:
            if wait.signal.is_set:
                self.resume_soon(ticket)
                return
            wait.signal.add(self, ticket)
        if wait.deadline_true_us is not None:
            self._host.at(wait.deadline_true_us, lambda: self.resume(ticket))


class SimulatedRuntime:
    """See the module's docstring."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.now_us: Callable[[], int] = host.clock.now_us
        self.signal: Callable[[], Signal] = lambda: SimulatedSignal(host)
        self.run_blocking: RunBlocking = self._run_blocking
        self._tasks: list[_Task] = []

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        """Start a task."""

        async def run() -> None:
            await task()

        self._tasks = [each for each in self._tasks if not each.is_done]
        started = _Task(self._host, run())
        self._tasks.append(started)
        started.resume_soon(0)

    def drop(self) -> None:
        """End all tasks where they stand. What they do on their way out fails: their server's disk is gone."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.drop()

    async def _run_blocking(self, function: Callable[..., T], *arguments: object) -> T:
        result: T = await _Wait(None, None, lambda: function(*arguments))
        return result

    async def sleep(self, microseconds: int) -> None:
        """See Runtime."""
        clock = self._host.clock
        await _Wait(None, clock.true_us(clock.now_us() + microseconds))

    async def wait_until(self, signal: Signal, deadline_us: int) -> None:
        """See Runtime."""
        assert isinstance(signal, SimulatedSignal), "made by this runtime"
        if not signal.is_set:
            await _Wait(signal, self._host.clock.true_us(deadline_us))
