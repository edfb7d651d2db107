"""Whether what a leader has to propose should wait a little for the batches of other servers.

Theory of operation
-------------------
Clients of all servers hear of a commit at about the same time, and most come with their next request at once. If the
leader proposed what comes first (mostly its own clients' batch) by itself, the batches of the others would wait for
the next round, and there would be two rounds, with all their flushes and wake-ups, where one does for all.

So what waits goes on waiting while a round with batches of other servers is under way, and, once that is committed,
until each server is there whose batch was in it. Neither takes longer than the *patience*: half of what a round takes
on average, from being proposed to being committed, for each server that would come along, and at most
`PATIENCE_US_MAX`. Longer than that and more is lost than can be gained. A server that doesn't come in time isn't in
the next round, and so isn't waited for after that.

Whether it pays is learned as processors learn which way a branch goes: a counter rises when all have come, and falls
when they were waited for in vain. While it is low, only one of `TRIAL_ROUNDS` rounds waits, to try. So clients of
other servers that write now and then delay nobody for long; and where all clients are of one server, nothing waits.

Pure: time is given.
"""

from __future__ import annotations

from collections.abc import Set

PATIENCE_US_MAX = 10_000
"""For clusters whose rounds are long because servers are far from each other. On a busy machine a round takes some
milliseconds, too, and it is there that sharing rounds gains most."""
TRIAL_ROUNDS = 17
"""A prime, so that hardly any rhythm of rounds misses it."""
CONFIDENCE_MAX = 8
CONFIDENCE_ENOUGH = 3
_NOBODY: Set[int] = frozenset()


class ExpectedBatches:
    """What one leader knows of its own term; see the module's docstring."""

    def __init__(self, patience_us_max: int = PATIENCE_US_MAX) -> None:
        """Begin with nothing proposed, and confident."""
        self._patience_us_max = patience_us_max
        self.until_us: int | None = None
        """How long to wait at most, as it was found last; None for not at all."""
        self._last: Set[int] = _NOBODY
        """Whose batches are in the round that was proposed last."""
        self._before: Set[int] = _NOBODY
        """Whose were in the one before it."""
        self._last_index = 0
        """Where the last round ends."""
        self._proposed_us = 0
        self._committed_us: int | None = 0
        """When it was seen committed; None before."""
        self._waited = False
        """Since then something has waited."""
        self._round_us = 0.0
        """What a round takes on average."""
        self._round_count = 0
        self._confidence = CONFIDENCE_MAX

    def proposed(self, servers: Set[int], last_index: int, now_us: int) -> None:
        """A round of batches of these servers was put into the log, of which the last entry is ``last_index``."""
        if self._committed_us is not None:
            if not self._last <= servers:
                if self._waited:
                    self._confidence = max(self._confidence - 1, 0)
            elif len(self._last) > 1:
                self._confidence = min(self._confidence + 1, CONFIDENCE_MAX)
        self._before = self._last
        self._last = servers
        self._last_index = last_index
        self._proposed_us = now_us
        self._committed_us = None
        self._waited = False
        self._round_count += 1

    def are_waited_for(self, waiting: Set[int], commit_index: int, now_us: int) -> bool:
        """Whether the batches that wait, of these servers, are to wait on, till ``until_us``. To be asked each turn."""
        self.until_us = None
        if self._last_index <= commit_index:
            if self._committed_us is None:
                self._committed_us = now_us
                self._round_us += (now_us - self._proposed_us - self._round_us) / 8
            since_us, are_missing = self._committed_us, not self._last <= waiting
        else:
            since_us, are_missing = self._proposed_us, len(self._last | waiting) > 1
        if not waiting or not are_missing or not self._is_confident():
            return False
        until_us = since_us + self._patience_us(waiting)
        if until_us <= now_us:
            return False
        self.until_us = until_us
        self._waited = self._committed_us is not None
        return True

    def _patience_us(self, waiting: Set[int]) -> int:
        others = len(self._last | self._before | waiting) - 1
        return min(int(others * self._round_us / 2), self._patience_us_max)

    def _is_confident(self) -> bool:
        """Whether waiting pays, or this is a round to try it."""
        return self._confidence >= CONFIDENCE_ENOUGH or self._round_count % TRIAL_ROUNDS == 0
