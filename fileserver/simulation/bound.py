"""A bound of the processor time that a run takes, so that one without end is a finding too.

A signal tells that the time is over. An exception raised by its handler would come up wherever the program happens to
be, which may be a place that swallows exceptions (a callback from C that has no caller to give them to). So the first
signal only lays in an action that raises it, between two others. If the loop doesn't come to that, an action is what
has no end: then signals that follow raise it where they find the program, until it is heard.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fileserver.simulation.loop import Loop

_AGAIN_SECONDS = 1.0
"""From signal to signal; no action takes as much."""


class TooLong(Exception):
    """A run doesn't come to its end."""


@contextmanager
def called_after(cpu_seconds: float, again_seconds: float, call: Callable[[], None]) -> Iterator[None]:
    """Call that wherever the program is when it has taken so much processor time, and again whenever so much more.

    What it raises comes up there. Where signals can't be had, in a thread, it isn't called.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGPROF, lambda _signal, _frame: call())
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds, again_seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextmanager
def bounded(loop: Loop, cpu_seconds: float) -> Iterator[None]:
    """End what the loop runs by :class:`TooLong`, if it takes more than that; ``inf`` is no bound."""
    if cpu_seconds == math.inf:
        yield
        return
    told = False

    def end_it() -> None:
        nonlocal told
        if told:
            raise_too_long()
        told = True
        loop.at(0, raise_too_long)

    with called_after(cpu_seconds, _AGAIN_SECONDS, end_it):
        yield


def raise_too_long() -> None:
    """Raise it.

    Raises:
        TooLong: always.
    """
    raise TooLong("far more processor time than any run should take")
