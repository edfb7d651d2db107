"""Whether reading an input takes too long or too much memory.

Time is first taken by the wall clock, which costs nothing. Only an input over the limit is run again, by the CPU time
of this thread, and is a finding if it is over the limit every time: others share the cores.

Memory is what Python allocated at most at one time (:mod:`tracemalloc`, too slow for every input). The limit is twice
the input plus a constant. The constant stands for what any call needs (a store, a simulated disk) and for what Python
adds to each small value, which is some 50 bytes and more than the value itself; inputs are short (a few KiB), so it is
ample for that and far below what a believed length field would take.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import attrs

from fileserver.simulation.bound import called_after

TIME_LIMIT_US: Final = 50_000
MEMORY_CONSTANT_BYTES: Final = 1_000_000
RUNS_AGAIN: Final = 2
HANG_SECONDS: Final = 0.3
"""CPU time after which a call that has not returned is interrupted."""


class Hang(BaseException):
    """Raised within a call that does not return, by the watchdog."""


@attrs.define
class Watchdog:
    """Interrupts a call that goes on for ever, at no cost for others: a timer looks whether ``count`` moves."""

    count: int = 0
    """To be changed by whoever makes the calls, before each."""
    _seen: int = -1

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Does nothing in other threads than the main one, which alone gets signals."""
        with called_after(HANG_SECONDS, HANG_SECONDS, self._look):
            yield

    def _look(self) -> None:
        if self.count == self._seen:
            raise Hang(f"no end after {HANG_SECONDS:g} s")
        self._seen = self.count


def least_cpu_us(call: Callable[[], object]) -> int:
    """The CPU time of the quickest of some runs, in microseconds."""
    times_ns = []
    for _ in range(RUNS_AGAIN):
        started_ns = time.thread_time_ns()
        call()
        times_ns.append(time.thread_time_ns() - started_ns)
    return min(times_ns) // 1000


def memory_limit_bytes(data: bytes) -> int:
    """The most that reading this input may take."""
    return 2 * len(data) + MEMORY_CONSTANT_BYTES


def peak_bytes(call: Callable[[], object]) -> int:
    """The most memory that a call has at one time, over what there was before, in bytes."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
