"""How many requests are likely to come right after some were answered.

Theory of operation
-------------------
Most clients that were answered together come together with their next requests; but not in the same instant, since they
are answered one after the other. If the first ones that come made the next batch, the others would have to wait for
the one after it, and there would be two small batches, each with its flushes and messages, where one does for all.

So requests gather until nine in ten of those that were answered last have come back, beside those that had been waiting
already, or till a part of the time has passed that answers take on average (`PATIENCE`; at most `PATIENCE_US_MAX`),
whatever is first. The tenth that may be missing is whoever is late, or gone; and a few clients don't wait for one of
them at all. Who asks later than that, because it had something else to do, or is new, finds nobody waiting, and doesn't
wait.

Pure: time is given.
"""

from __future__ import annotations

from typing import Final

PATIENCE: Final = 0.4
PATIENCE_US_MAX: Final = 2_000
_MISSING_FRACTION: Final = 10


class ReturningClients:
    """What one server's clients were answered last; see the module's docstring."""

    def __init__(self) -> None:
        """Nobody has been answered: nobody is expected."""
        self.until_us = 0
        """How long requests wait for others."""
        self._expected = 0
        self._answered = 0
        self._answer_us = 0.0
        """How long an answer takes on average."""

    def answered(self, count: int, took_us: int) -> None:
        """So many requests have been answered together, which took so long."""
        self._answered += count
        self._answer_us += (took_us - self._answer_us) / 8

    def replies_go(self, waiting: int, now_us: int) -> None:
        """The answers are being sent: from now on their clients may come again. So many requests wait already."""
        if self._answered:
            self._expected = waiting + self._answered - -(-self._answered // _MISSING_FRACTION)
            self._answered = 0
            self.until_us = now_us + min(int(PATIENCE * self._answer_us), PATIENCE_US_MAX)

    def are_here(self, count: int, now_us: int) -> bool:
        """Whether so many requests needn't wait for others any more."""
        return count >= self._expected or now_us >= self.until_us
