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

from statemachine.messages import AppendEntries, InstallSnapshot, Message, RequestVote, RequestVoteResult
from statemachine.raft import Raft


class ClusterClock:
    """One server's reading of cluster time. It goes back only to that of a later line."""

    __slots__ = ("_monotonic_us", "_offset_us", "line")

    def __init__(self, monotonic_us: Callable[[], int], start_us: int = 0, line: int = 0) -> None:
        """Begin at ``start_us``; ``monotonic_us`` is the server's own clock, which never goes back."""
        self._monotonic_us = monotonic_us
        self._offset_us = start_us - monotonic_us()
        self.line = line
        """The term of the leader that the reading comes from, or of one that had it from there."""

    def now_us(self) -> int:
        """The reading now."""
        return self._monotonic_us() + self._offset_us

    def observe(self, reading_us: int, own_us: int) -> None:
        """Another server's reading, or a stamp, had come by ``own_us`` of the own clock: time is at least that."""
        if reading_us - own_us > self._offset_us:
            self._offset_us = reading_us - own_us

    def follow(self, reading_us: int, line: int, applied_us: int, own_us: int) -> None:
        """A reading of that line has come. Time is at least ``applied_us``, whatever it says."""
        if line == self.line:
            self.observe(reading_us, own_us)
        elif line > self.line:
            self.line = line
            self._offset_us = max(reading_us, applied_us) - own_us


def hear(clock: ClusterClock, raft: Raft, message: Message, reading_us: int, applied_us: int, own_us: int) -> None:
    """A message had come with its sender's reading by ``own_us`` of the own clock; ``raft`` hasn't heard of it yet.

    A leader's reading counts, a candidate's, and its voters' until it leads: from then on it tells what time it is.
    """
    kind = type(message)
    if kind is AppendEntries or kind is InstallSnapshot:
        if message.term >= raft.current_term:
            clock.follow(reading_us, message.term, applied_us, own_us)
    elif isinstance(message, RequestVote):
        clock.follow(reading_us, message.last_log_term, applied_us, own_us)
    elif kind is RequestVoteResult and message.term >= raft.current_term and not raft.is_leader:
        clock.observe(reading_us, own_us)
