"""Simulated time: a heap of what happens when, and tasks that wait in it.

Everything that happens is an action at a time; actions of the same time happen in the order in which they were laid
in, so a run is the same whenever it is repeated. Times are whole microseconds of true time, which no server can see:
each has a clock of its own (:mod:`fileserver.simulation.clocks`).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

Action: TypeAlias = Callable[[], None]
AT_ONCE_MAX = 20_000
"""More actions than this at one instant: somebody does the same again and again, and waits for nothing."""


class Spinning(AssertionError):
    """Time doesn't pass any more."""


class Loop:
    """What happens when."""

    def __init__(self) -> None:
        """Begin at time 0, with nothing to happen."""
        self.now_us = 0
        self._heap: list[tuple[int, int, Action]] = []
        self._due: deque[Action] = deque()
        """What is to happen now, behind whatever the heap has for now: that was laid in earlier."""
        self._count = 0

    def at(self, when_us: int, action: Action) -> None:
        """Have something happen at a time, now at the earliest."""
        if when_us <= self.now_us:
            self._due.append(action)
        else:
            self._count += 1
            heapq.heappush(self._heap, (when_us, self._count, action))

    def after(self, delay_us: int, action: Action) -> None:
        """Have something happen in a while."""
        self.at(self.now_us + delay_us, action)

    def run_until(self, until_us: int) -> None:
        """Let time pass.

        Raises:
            Spinning: it doesn't.
        """
        heap, due = self._heap, self._due
        pop, popleft = heapq.heappop, due.popleft
        at_once = 0
        while True:
            now_us = self.now_us
            while heap and heap[0][0] <= now_us:
                pop(heap)[2]()
            if due:
                at_once += 1
                if at_once > AT_ONCE_MAX:
                    raise self._spinning()
                popleft()()
            elif heap and heap[0][0] <= until_us:
                self.now_us = heap[0][0]
                at_once = 0
            else:
                break
        self.now_us = until_us

    def run_while(self, goes_on: Callable[[], bool], until_us: int) -> bool:
        """Let time pass while something holds, until a time at most; False if it still holds then.

        Raises:
            Spinning: time doesn't pass.
        """
        heap, due = self._heap, self._due
        at_once = 0
        while goes_on():
            if heap and heap[0][0] <= self.now_us:
                heapq.heappop(heap)[2]()
            elif due:
                at_once += 1
                if at_once > AT_ONCE_MAX:
                    raise self._spinning()
                due.popleft()()
            elif heap and heap[0][0] <= until_us:
                self.now_us, _, action = heapq.heappop(heap)
                at_once = 0
                action()
            else:
                self.now_us = until_us
                return False
        return True

    def _spinning(self) -> Spinning:
        return Spinning(f"more than {AT_ONCE_MAX} actions at {self.now_us} us, and no end of them")
