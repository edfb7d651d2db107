"""What can happen to a server, as values given to :meth:`statemachine.raft.Raft.step`.

Every event may come at any time and in any role; what does not apply is ignored or refused, never an
error. Times are whole microseconds on a clock of the caller's that never goes back.
"""

from __future__ import annotations

from typing import TypeAlias

from statemachine.messages import Message, ServerId
from statemachine.values import value


@value
class HardState:
    """What must be on disk before it is spoken of (thesis, Figure 3.1, persistent state)."""

    current_term: int
    voted_for: ServerId | None


@value
class EntriesRun:
    """Consecutive log entries of one term. Those that stood at these indexes or later are gone."""

    first_index: int
    term: int
    entries: tuple[bytes, ...]

    @property
    def last_index(self) -> int:
        """The index of the last entry of the run."""
        return self.first_index + len(self.entries) - 1


@value
class Submit:
    """Entries to append to the replicated log, if this server leads."""

    entries: tuple[bytes, ...]
    waiting: frozenset[ServerId] = frozenset()
    """Other servers that wait for the outcome: they are told at once when it is committed, not with the next
    entries or heartbeat."""


@value
class Receive:
    """A message has come from another server."""

    sender: ServerId
    message: Message


@value
class Persisted:
    """What a ready value told to save is on disk, with everything drained before it.

    One for each ready value that is saved, in order; when several are saved together, one for the last will do.
    It carries the term as well as the index: an index alone could acknowledge an entry that was
    overwritten while the save was under way.
    """

    term: int
    """The term of the ready value's last run; 0 when only the hard state was saved."""
    index: int
    """The index of that run's last entry; 0 when only the hard state was saved."""
    hard_state: HardState | None = None
    """The hard state saved with it, if any."""


@value
class Timeout:
    """The time named by ``Raft.deadline_us`` has come, or has passed, or may have."""


@value
class ReadBarrier:
    """A read wants to know from which applied index on it may be answered (thesis 6.4)."""

    barrier: int
    """Never used twice by one run of one server; less than 2**61."""


@value
class SnapshotTaken:
    """A snapshot of the applied state is on disk, so the log up to it may be dropped."""

    last_included_index: int
    last_included_term: int
    size: int
    """The length of the snapshot's file in bytes."""
    first_index_kept: int
    """Entries below this index are dropped; at most last_included_index + 1. Some are kept for slow followers."""


@value
class SnapshotInstalled:
    """All chunks of a received snapshot are on disk, verified, and loaded into the application's state.

    A state that has got past the snapshot meanwhile is kept as it is; the event is the same.
    """

    last_included_index: int
    last_included_term: int
    size: int


@value
class SnapshotRefused:
    """A received snapshot turned out damaged, or could not be written: it must be sent anew."""

    last_included_index: int


@value
class LimitMemory:
    """Drop the oldest entries from memory until it has no more bytes of them than that.

    Only such as are applied, and are on disk: from there they will be read when a follower needs them.
    """

    bytes_max: int
    applied_index: int


@value
class EntriesRead:
    """Entries that a ready value told to read, consecutive, of one term; none if a snapshot has taken their place."""

    to: ServerId
    first_index: int
    entries: tuple[bytes, ...]


@value
class TransferLeadership:
    """Hand leadership to another server (thesis 3.10)."""

    target: ServerId | None = None
    """None: the voter that is furthest along."""


@value
class PeerConnected:
    """A connection to that server was made anew, so what was in flight may be lost."""

    server: ServerId


@value
class PeerDisconnected:
    """A connection to or from that server broke: it may have died."""

    server: ServerId


Event: TypeAlias = (
    Submit
    | Receive
    | Persisted
    | Timeout
    | ReadBarrier
    | SnapshotTaken
    | SnapshotInstalled
    | SnapshotRefused
    | LimitMemory
    | EntriesRead
    | TransferLeadership
    | PeerConnected
    | PeerDisconnected
)
