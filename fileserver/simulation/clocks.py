"""The monotonic clock of one simulated server: it may run fast or slow, and may jump ahead, but never goes back.

Wall clocks aren't simulated: no server reads one.
"""

from __future__ import annotations

from fileserver.simulation.loop import Loop

TRUE_RATE_PPM = 1_000_000


class SkewedClock:
    """Readings in microseconds; so many of them go by in a million of true time."""

    def __init__(self, loop: Loop, start_us: int = 0) -> None:
        """Begin at ``start_us``, at the true rate."""
        self._loop = loop
        self._base_true_us = loop.now_us
        self._base_us = start_us
        self._rate_ppm = TRUE_RATE_PPM
        self.charged_us = 0
        """How far the server's own time has come within its present turn: what its calls to the disk took."""

    def now_us(self) -> int:
        """The reading now."""
        elapsed_us = self._loop.now_us + self.charged_us - self._base_true_us
        return self._base_us + elapsed_us * self._rate_ppm // TRUE_RATE_PPM

    def true_us(self, reading_us: int) -> int:
        """The true time at which the clock will read that, or later."""
        return self._base_true_us + -(-(reading_us - self._base_us) * TRUE_RATE_PPM // self._rate_ppm)

    @property
    def rate_ppm(self) -> int:
        """How many microseconds of this clock go by in a second of true time."""
        return self._rate_ppm

    def set_rate(self, rate_ppm: int) -> None:
        """Run at another rate from now on."""
        self._rebase(0)
        self._rate_ppm = rate_ppm

    def jump(self, ahead_us: int) -> None:
        """Skip some time, as the clock of a machine does that was asleep."""
        self._rebase(ahead_us)

    def _rebase(self, ahead_us: int) -> None:
        self._base_us = self.now_us() + ahead_us
        self._base_true_us = self._loop.now_us + self.charged_us
