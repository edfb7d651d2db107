"""A simulated disk that takes time: flushes may be slow, and a call may be made on the event loop or beside it."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from raftnode.buffers import Chunk
from raftnode.simulated_disk import SimulatedDisk


class TimedDisk(SimulatedDisk):
    """Adds up what its flushes take, for its server to spend."""

    def __init__(self, seed: int) -> None:
        """Begin empty and quick."""
        super().__init__(seed)
        self._dice = Random(f"disk {seed}")
        self.flush_us_min = 100
        self.flush_us_max = 1_000
        self.spent_us = 0
        """What calls took since this was last set to 0."""

    def write(self, handle: int, buffers: Sequence[Chunk], offset: int, *, flush: bool) -> int:
        """See FileSystem."""
        if flush:
            self._spend()
        return super().write(handle, buffers, offset, flush=flush)

    def flush(self, handle: int) -> None:
        """See FileSystem."""
        self._spend()
        super().flush(handle)

    def _spend(self) -> None:
        self.spent_us += self._dice.randrange(self.flush_us_min, self.flush_us_max + 1)
