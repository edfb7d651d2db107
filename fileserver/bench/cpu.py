"""Processor time of other processes, to the nanosecond and with that of threads that have ended.

The kernel keeps a clock of the processor time of every process, and ``clock_gettime`` reads that of any process whose
id makes the clock's id (``clock_getcpuclockid(3)``). ``/proc/PID/stat`` has the same sum in hundredths of a second,
``/proc/PID/schedstat`` that of one thread alone.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable

_PROCESS_CLOCK_BITS = 3
_SCHEDULER_CLOCK = 2  # CPUCLOCK_SCHED: time that the scheduler has accounted, user's and system's together


class ProcessGone(Exception):
    """There is no process of that id. The text names it."""


def cpu_us(pids: Iterable[int]) -> int:
    """The processor time that these processes have used since they began, all threads together, in microseconds.

    Raises:
        ProcessGone: one of them has ended.
    """
    return sum(_cpu_ns(pid) for pid in pids) // 1000


def _cpu_ns(pid: int) -> int:
    try:
        return time.clock_gettime_ns((~pid << _PROCESS_CLOCK_BITS) | _SCHEDULER_CLOCK)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ESRCH):
            raise ProcessGone(f"process {pid} has ended") from error
        raise


class CpuMeter:
    """How much processor time some processes, and this one, use between two moments."""

    def __init__(self, pids: Iterable[int] = ()) -> None:
        """Measure from now on."""
        self._pids = tuple(pids)
        self._servers_us = cpu_us(self._pids)
        self._own_ns = time.process_time_ns()

    def servers_us(self) -> int | None:
        """What those processes have used so far; None if there are none, or one of them has ended meanwhile."""
        try:
            return cpu_us(self._pids) - self._servers_us if self._pids else None
        except ProcessGone:
            return None

    def own_us(self) -> int:
        """What this process has used so far."""
        return (time.process_time_ns() - self._own_ns) // 1000
