"""The cluster clock: time that the log carries, and each server's own reading of it in between.

Cluster time is whole microseconds from 0, when the cluster was born. The leader stamps entries with its
reading; applying an entry moves applied time to its stamp. In between, every server extrapolates from the
latest time that it has heard of by its own monotonic clock. A reading is therefore at most the true time that
has passed (every hop only makes it late, by the delay of the hop), so nothing expires early; and since each
message from a leader carries its reading, a new leader goes on where time stands. Wall clocks play no part.

After the whole cluster was down, time goes on from the latest reading that a server kept.
"""

from __future__ import annotations

from collections.abc import Callable


class ClusterClock:
    """One server's reading of cluster time. It never goes back."""

    __slots__ = ("_monotonic_us", "_offset_us")

    def __init__(self, monotonic_us: Callable[[], int], start_us: int = 0) -> None:
        """Begin at ``start_us``; ``monotonic_us`` is the server's own clock, which never goes back."""
        self._monotonic_us = monotonic_us
        self._offset_us = start_us - monotonic_us()

    def now_us(self) -> int:
        """The reading now."""
        return self._monotonic_us() + self._offset_us

    def observe(self, reading_us: int) -> None:
        """Another server's reading, or a stamp, has come: time is at least that."""
        self._offset_us = max(self._offset_us, reading_us - self._monotonic_us())
