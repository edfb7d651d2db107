"""What a Raft server is made with: its role's names, its times and limits, and what its disk had."""

from __future__ import annotations

import enum

import attrs

from statemachine.events import EntriesRun, HardState
from statemachine.progress import SnapshotMeta


class Role(enum.Enum):
    """The part that a server plays in its term (thesis 3.3), with the two steps of a candidacy apart (9.6)."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@attrs.frozen(slots=True, kw_only=True)
class Options:
    """Times and limits; the defaults are the cluster file's."""

    election_timeout_us_min: int = 300_000
    election_timeout_us_max: int = 600_000
    """A follower that hears nothing for a time drawn anew between the two campaigns (thesis 3.4)."""
    heartbeat_us: int = 60_000
    append_bytes_max: int = 1 << 20
    """Entries in one AppendEntries; a single larger entry goes alone."""
    probe_bytes_max: int = 64 << 10
    """Entries in an AppendEntries to a follower that may refuse it; it is repeated with every heartbeat, so an entry
    that is larger waits until the follower has agreed."""
    inflight_bytes_max: int = 8 << 20
    """Unanswered entries per follower."""
    inflight_messages_max: int = 256
    snapshot_chunk_bytes: int = 240 << 10
    spare_us: int = 0
    """How long entries gather for followers whom no commit waits for (:mod:`statemachine.thrift`); 0: not at all."""

    def __attrs_post_init__(self) -> None:
        """Refuse times that could never work.

        Raises:
            ValueError: the election timeout's range is empty, or a heartbeat doesn't fit into it.
        """
        if not 0 < self.election_timeout_us_min <= self.election_timeout_us_max:
            raise ValueError("the election timeout's range is empty")
        if not 0 < self.heartbeat_us < self.election_timeout_us_min:
            raise ValueError("the heartbeat interval must be shorter than the election timeout")

    @property
    def silence_us(self) -> int:
        """For so long after it has said something, a follower of whom nothing is waited for needn't say more."""
        return 2 * self.election_timeout_us_min // 3


_NEVER_VOTED = HardState(0, None)


@attrs.frozen(slots=True, kw_only=True)
class Restored:
    """What a server finds on its disk when it starts."""

    hard_state: HardState = _NEVER_VOTED
    snapshot: SnapshotMeta | None = None
    runs: tuple[EntriesRun, ...] = ()
    """The log's entries, consecutive, from at most one behind the snapshot's index on."""
