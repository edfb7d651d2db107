"""Simulated time: a heap of what happens when, and tasks that wait in it.

Everything that happens is an action at a time; actions of the same time happen in the order in which they were laid
in, so a run is the same whenever it is repeated. Times are whole microseconds of true time, which no server can see:
each has a clock of its own (:mod:`fileserver.simulation.clocks`).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import TypeAlias

Action: TypeAlias = Callable[[], None]


class Loop:
    """What happens when."""

    def __init__(self) -> None:
        """Begin at time 0, with nothing to happen."""
        self.now_us = 0
        self._heap: list[tuple[int, int, Action]] = []
        self._count = 0

    def at(self, when_us: int, action: Action) -> None:
        """Have something happen at a time, now at the earliest."""
        self._count += 1
        heapq.heappush(self._heap, (max(when_us, self.now_us), self._count, action))

    def after(self, delay_us: int, action: Action) -> None:
        """Have something happen in a while."""
        self.at(self.now_us + delay_us, action)

    def run_until(self, until_us: int) -> None:
        """Let time pass."""
        heap = self._heap
        pop = heapq.heappop
        while heap and heap[0][0] <= until_us:
            self.now_us, _, action = pop(heap)
            action()
        self.now_us = until_us

    def run_while(self, goes_on: Callable[[], bool], until_us: int) -> bool:
        """Let time pass while something holds, until a time at most; False if it still holds then."""
        heap = self._heap
        while goes_on():
            if not heap or heap[0][0] > until_us:
                self.now_us = until_us
                return False
            self.now_us, _, action = heapq.heappop(heap)
            action()
        return True
