"""Sleeping until a poller has something, a time has come, or somebody ends it; all of it under Trio.

Theory of operation
-------------------
A deadline of Trio's ends a wait by an exception that is raised in the waiting task, caught, and looked into by each
scope on its way. A server that is idle does little else than wake for its next heartbeat, in caches that have gone cold
meanwhile, so whatever it does then is dear. So where the system has timers that are descriptors (Linux), the poller
itself watches one: when the time has come it is readable, and the wait ends as it does for any other news. The
timer is watched for its *edges* (EPOLLET), that is, it is told of once for each time it was set, and needn't be read.

Such a timer runs by the machine's clock, so it is for Trio's own clock; a test's clock takes :class:`ScopeSleeper`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import time
from typing import Final, Protocol

import attrs
import trio

from raftnode.polling import READABLE, Poller, SelectorPoller

_TFD_FLAGS: Final[int] = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
"""TFD_NONBLOCK and TFD_CLOEXEC are these."""
_SECOND_US: Final = 1_000_000
_AT_ONCE_US: Final = 0
_LONGEST_US: Final = 3_600 * _SECOND_US
"""Whoever sleeps longer than that wakes once for nothing."""


class Sleeper(Protocol):
    """Sleeps for one task."""

    @property
    def descriptor(self) -> int | None:
        """What the poller may name that is the sleeper's own, and needs no serving."""

    async def sleep(self, microseconds: int) -> None:
        """Wait until the poller has something, so much time has passed, or ``end`` is called. May wake for nothing."""

    def end(self) -> None:
        """Have ``sleep`` return, if it is under way. To be called from other tasks of the same thread."""

    def close(self) -> None:
        """Let go of what it has; nobody sleeps any more."""


@attrs.define(slots=True, eq=False)
class ScopeSleeper:
    """A :class:`Sleeper` by deadlines of Trio's, on any system and by any clock."""

    _poller: Poller
    _scope: trio.CancelScope | None = attrs.field(default=None, init=False)
    descriptor: None = attrs.field(default=None, init=False)

    async def sleep(self, microseconds: int) -> None:
        """See Sleeper."""
        with trio.move_on_after(microseconds / _SECOND_US) as self._scope:
            await trio.lowlevel.wait_readable(self._poller.fileno())
        self._scope = None

    def end(self) -> None:
        """See Sleeper."""
        if self._scope is not None:
            self._scope.cancel()

    def close(self) -> None:
        """See Sleeper."""


class _Interval(ctypes.Structure):
    """``struct itimerspec``."""

    _fields_ = (
        ("interval_seconds", ctypes.c_long),
        ("interval_nanoseconds", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("nanoseconds", ctypes.c_long),
    )


class TimerSleeper:
    """A :class:`Sleeper` by a timer that the poller watches, which has to be ``select.epoll``."""

    def __init__(self, poller: Poller) -> None:
        """Make the timer.

        Raises:
            OSError, AttributeError: this system has no such timers.
        """
        library = ctypes.CDLL(None, use_errno=True)
        self._set_timer = library.timerfd_settime
        self.descriptor: int = library.timerfd_create(time.CLOCK_MONOTONIC, _TFD_FLAGS)
        if self.descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"timerfd_create: {os.strerror(number)}")
        self._poller = poller
        self._value = _Interval()
        self._reference = ctypes.byref(self._value)
        self._sleeps = False
        poller.register(self.descriptor, READABLE | select.EPOLLET)

    async def sleep(self, microseconds: int) -> None:
        """See Sleeper."""
        self._set(min(microseconds, _LONGEST_US))
        self._sleeps = True
        try:
            await trio.lowlevel.wait_readable(self._poller.fileno())
        finally:
            self._sleeps = False

    def end(self) -> None:
        """See Sleeper."""
        if self._sleeps:
            self._set(_AT_ONCE_US)

    def close(self) -> None:
        """See Sleeper."""
        self._poller.unregister(self.descriptor)
        os.close(self.descriptor)

    def _set(self, microseconds: int) -> None:
        value = self._value
        value.seconds, rest_us = divmod(microseconds, _SECOND_US)
        value.nanoseconds = rest_us * 1_000 + 1  # 0 of both would stop it.
        self._set_timer(self.descriptor, 0, self._reference, None)


def make_sleeper(poller: Poller) -> Sleeper:
    """Make the best one that this system has, for Trio's own clock."""
    if not isinstance(poller, SelectorPoller):
        with contextlib.suppress(AttributeError, OSError):
            return TimerSleeper(poller)
    return ScopeSleeper(poller)
