"""Entries that are on disk alone: dropped from memory when all is well, read back for a follower that is far behind.

Only what is applied here, and on disk here, is dropped, so nothing but replication misses it; terms stay in memory, and
with them everything that AppendEntries has to check. What a follower needs of it is asked for in the ready value, a
piece at a time, and goes to the follower when the caller has read it; meanwhile nothing else does but heartbeats. What
was read is what the log has: entries that are committed never change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemachine import replication
from statemachine.events import EntriesRead, LimitMemory
from statemachine.log import fitting
from statemachine.messages import ServerId
from statemachine.progress import Progress, ProgressState
from statemachine.ready import EntriesToRead
from statemachine.roles import Role

if TYPE_CHECKING:
    from statemachine.raft import Raft


def limit_memory(raft: Raft, event: LimitMemory) -> None:
    """Drop from memory what is applied and saved, but for what a leader is about to send those whom it spares."""
    last_index = min(event.applied_index, raft.commit_index, raft.persisted_index)
    if raft.role is Role.LEADER and raft.thrift.gathering_since_us is not None:
        last_index = min(last_index, raft.thrift.first_gathered - 1)
    raft.log.limit_memory(event.bytes_max, last_index)


def request(raft: Raft, server: ServerId, progress: Progress) -> None:
    """Have the entries read that a follower needs next, unless they are being read."""
    first_index = progress.next_index
    if progress.reading_from != first_index:
        progress.reading_from = first_index
        last_index = min(raft.log.memory_base, raft.log.last_of_run(first_index))
        raft.output.entries_to_read.append(EntriesToRead(server, first_index, last_index))


def entries_read(raft: Raft, event: EntriesRead) -> None:
    """Send what was read, if that follower needs it still."""
    progress = raft.progress.get(event.to)
    if (
        progress is None
        or progress.state is not ProgressState.REPLICATE
        or not progress.reading_from == progress.next_index == event.first_index
    ):
        return
    progress.reading_from = 0
    raft.replication_due = True
    if event.first_index >= raft.log.first_index:  # Else a snapshot takes their place.
        assert event.entries, "what the log has is on disk"
        entries = event.entries[: fitting(event.entries, raft.options.append_bytes_max)]
        replication.send_entries_from_disk(raft, event.to, progress, entries)
