"""What a leader knows of one other server, and how much it may send to it.

Three states, as the flow of entries needs them:

* PROBE: it isn't known where the follower's log agrees. One message at a time, until an answer comes.
* REPLICATE: it is. Messages are pipelined, within a window of bytes and of messages; ``next_index`` runs
  ahead of ``match_index``.
* SNAPSHOT: the log no longer reaches back far enough, so a snapshot goes first, chunk by chunk.

``match_index`` only grows within a term (unless the follower is found to have lost what it acknowledged), and
``next_index`` is always above it.
"""

from __future__ import annotations

import enum
from collections import deque

import attrs


class ProgressState(enum.Enum):
    """How a leader feeds a follower; see the module's docstring."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


@attrs.frozen(slots=True)
class SnapshotMeta:
    """The newest snapshot on disk."""

    last_included_index: int
    last_included_term: int
    size: int
    """Of its file, in bytes."""


@attrs.define(slots=True)
class Progress:
    """One follower, as its leader sees it."""

    next_index: int
    last_contact_us: int
    """When an answer of this term last came; when leadership began, if none has."""
    match_index: int = 0
    matched_round: int = 0
    """The leader's round when ``match_index`` was learned."""
    state: ProgressState = ProgressState.PROBE
    probe_sent: bool = False
    """In PROBE: a message is under way, so none is sent until an answer or a heartbeat's time."""
    inflight: deque[tuple[int, int]] = attrs.field(factory=deque)
    """In REPLICATE: (last index, bytes) of each message that wasn't answered yet."""
    inflight_bytes: int = 0
    progressed_us: int = 0
    """When the oldest message in flight (or chunk) was sent, the last acknowledgement of new entries came, or
    the follower was asked whether it has what is in flight."""
    position_due: bool = False
    """In REPLICATE: ask the follower, behind what is in flight, whether all of it has come."""
    acknowledged_round: int = 0
    """The latest of the leader's rounds that the follower has answered."""
    commit_sent: int = 0
    """The highest commit index that was sent."""
    commit_wanted: int = 0
    """The follower waits for the outcome of entries up to here and is told at once when they commit."""
    entries_wanted: int = 0
    """The follower waits for entries up to here, and isn't spared them (:mod:`statemachine.thrift`)."""
    reading_from: int = 0
    """In REPLICATE: the entries from here on are being read from disk, if this is ``next_index``."""
    snapshot: SnapshotMeta | None = None
    """In SNAPSHOT: the one being sent."""
    snapshot_offset: int = 0
    """In SNAPSHOT: where the chunk under way begins."""
    chunk_sent: bool = False

    def probe(self, next_index: int) -> None:
        """Find out where the logs agree, beginning with ``next_index - 1``."""
        self.state = ProgressState.PROBE
        self.next_index = max(next_index, self.match_index + 1)
        self._forget_inflight()
        self.probe_sent = False
        self.snapshot = None

    def lost_its_tail(self, agreeing_index: int) -> None:
        """The follower doesn't have what it acknowledged any more (a disk was damaged or exchanged): begin anew."""
        self.match_index = 0
        self.probe(agreeing_index + 1)

    def replicate(self) -> None:
        """The logs agree up to ``match_index``: pipeline what follows."""
        self.state = ProgressState.REPLICATE
        self.next_index = self.match_index + 1
        self._forget_inflight()
        self.snapshot = None

    def send_snapshot(self, snapshot: SnapshotMeta) -> None:
        """The log no longer reaches back: send this snapshot, from its beginning."""
        self.state = ProgressState.SNAPSHOT
        self._forget_inflight()
        self.snapshot = snapshot
        self.snapshot_offset = 0
        self.chunk_sent = False

    def sent(self, last_index: int, size: int, now_us: int) -> None:
        """A message with entries up to ``last_index`` is on its way."""
        if not self.inflight:
            self.progressed_us = now_us
        self.inflight.append((last_index, size))
        self.inflight_bytes += size
        self.next_index = last_index + 1
        self.position_due = False

    def matched(self, index: int, round_number: int, now_us: int) -> bool:
        """The follower has everything up to ``index`` on disk. True when that is news."""
        while self.inflight and self.inflight[0][0] <= index:
            self.inflight_bytes -= self.inflight.popleft()[1]
        if index <= self.match_index:
            return False
        self.match_index = index
        self.matched_round = round_number
        self.next_index = max(self.next_index, index + 1)
        self.progressed_us = now_us
        return True

    def _forget_inflight(self) -> None:
        self.inflight.clear()
        self.inflight_bytes = 0
        self.position_due = False
        self.reading_from = 0
