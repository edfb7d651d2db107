"""Reads that wait: until the leader confirms a barrier, then until the applied state reaches it (thesis 6.4).

One barrier of a server is asked for at a time. Reads that come meanwhile gather, and the next barrier, with a
number of its own, is begun for all of them: so a barrier is always younger than the reads behind it. A
barrier that fails (no leader, another leader, a lost message) sends its reads back to be gathered again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import attrs

BarrierPassed = Callable[[], None]


@attrs.define(slots=True)
class Barriers:
    """See the module's docstring."""

    _next_number: int = 1
    _gathering: list[BarrierPassed] = attrs.field(factory=list)
    _asked_number: int = 0
    _asked: list[BarrierPassed] = attrs.field(factory=list)
    _confirmed: deque[tuple[int, list[BarrierPassed]]] = attrs.field(factory=deque)

    def add(self, passed: BarrierPassed) -> None:
        """Call back when the applied state includes whatever was committed by now."""
        self._gathering.append(passed)

    @property
    def is_empty(self) -> bool:
        """Whether no read waits at all."""
        return not (self._gathering or self._asked or self._confirmed)

    @property
    def wants_number(self) -> bool:
        """Whether ``begin`` would give one."""
        return bool(self._gathering) and not self._asked

    def begin(self) -> int | None:
        """The number of a barrier to ask for now, if reads wait for one and none is being asked for."""
        if not self.wants_number:
            return None
        self._asked, self._gathering = self._gathering, []
        self._asked_number = self._next_number
        self._next_number += 1
        return self._asked_number

    def confirmed(self, number: int, read_index: int) -> None:
        """A barrier is confirmed: its reads may be answered once ``read_index`` is applied."""
        if self._asked and number == self._asked_number:
            self._confirmed.append((read_index, self._asked))
            self._asked = []

    def failed(self, number: int) -> None:
        """A barrier can't be confirmed: its reads need another."""
        if self._asked and number == self._asked_number:
            self._gathering = self._asked + self._gathering
            self._asked = []

    def is_confirmed_up_to(self, applied_index: int) -> bool:
        """Whether ``release`` would let something pass."""
        return bool(self._confirmed) and self._confirmed[0][0] <= applied_index

    def release(self, applied_index: int) -> None:
        """Call back the reads whose state is applied."""
        while self._confirmed and self._confirmed[0][0] <= applied_index:
            for passed in self._confirmed.popleft()[1]:
                passed()

    def __len__(self) -> int:
        """How many reads wait."""
        return len(self._gathering) + len(self._asked) + sum(len(reads) for _, reads in self._confirmed)
