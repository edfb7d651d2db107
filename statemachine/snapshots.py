"""InstallSnapshot and compaction (thesis 5.1, Figure 5.3).

A snapshot is a file that the caller keeps; this module knows its last entry and its size. Chunks go one at a
time and the answer names the next byte wanted, so a transfer goes on where it stopped after a lost message or
a new connection. Two leaders' files for one index need not be the same bytes, so a receiver identifies a
snapshot by index, term and leader, and begins at 0 when any of them changes.

The receiver's log and commit index change only when the caller says that the snapshot is on disk, verified and
loaded. Until then heartbeats are answered as ever, so a long transfer costs no election; and from the last chunk
until then no chunk of any snapshot is taken, so the caller deals with one at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from statemachine import reads, replication
from statemachine.events import SnapshotInstalled, SnapshotRefused, SnapshotTaken
from statemachine.messages import InstallSnapshot, InstallSnapshotResult, ServerId
from statemachine.progress import Progress, SnapshotMeta
from statemachine.ready import ChunkReceived, ChunkToSend

if TYPE_CHECKING:
    from statemachine.raft import Raft


@attrs.define(slots=True)
class Incoming:
    """The snapshot that is being received."""

    leader_id: ServerId
    leader_term: int
    last_included_index: int
    last_included_term: int
    offset: int = 0
    """The next byte wanted."""
    complete: bool = False
    """All has come; the caller is verifying and loading it."""

    def is_of(self, message: InstallSnapshot) -> bool:
        """Whether a chunk belongs to this snapshot."""
        return (self.leader_id, self.leader_term, self.last_included_index, self.last_included_term) == (
            message.leader_id,
            message.term,
            message.last_included_index,
            message.last_included_term,
        )


# The leader's side


def begin(raft: Raft, server: ServerId, progress: Progress) -> None:
    """The log no longer reaches back to what this follower needs: send it the newest snapshot."""
    assert raft.snapshot is not None, "a log is only compacted behind a snapshot"
    progress.send_snapshot(raft.snapshot)
    send_chunk(raft, server, progress)


def send_chunk(raft: Raft, server: ServerId, progress: Progress) -> None:
    """Send the next chunk, unless one is under way (Figure 5.3).

    What begins, or begins anew, begins with the newest snapshot: an older one may have been of no use to the follower.
    """
    if progress.chunk_sent or progress.snapshot is None:
        return
    if progress.snapshot_offset == 0 and raft.snapshot is not None:
        progress.snapshot = raft.snapshot
    snapshot = progress.snapshot
    length = min(raft.options.snapshot_chunk_bytes, snapshot.size - progress.snapshot_offset)
    header = InstallSnapshot(
        term=raft.current_term,
        leader_id=raft.server_id,
        last_included_index=snapshot.last_included_index,
        last_included_term=snapshot.last_included_term,
        offset=progress.snapshot_offset,
        data=b"",
        done=progress.snapshot_offset + length == snapshot.size,
        round_number=raft.round_number,
    )
    progress.chunk_sent = True
    progress.progressed_us = raft.now_us
    raft.output.chunks_to_send.append(ChunkToSend(server, header, length))


def install_snapshot_result(raft: Raft, sender: ServerId, message: InstallSnapshotResult) -> None:
    """Send the chunk that is wanted next, or go on with the log behind an installed snapshot."""
    if not replication.answered(raft, sender, message.term, message.round_number):
        return
    progress = raft.progress[sender]
    snapshot = progress.snapshot
    if snapshot is not None and message.last_included_index == snapshot.last_included_index:
        if message.installed:
            progress.matched(snapshot.last_included_index, raft.round_number, raft.now_us)
            progress.probe(progress.match_index + 1)
            raft.replication_due = True
        elif message.offset != progress.snapshot_offset or not progress.chunk_sent:
            progress.snapshot_offset = min(message.offset, snapshot.size)
            progress.chunk_sent = False
            raft.replication_due = True
    reads.confirm(raft)


# The follower's side


def install_snapshot(raft: Raft, sender: ServerId, message: InstallSnapshot) -> None:
    """Receive a chunk.

    1. "Reply immediately if term < currentTerm."
    2. "Create new snapshot file if first chunk (offset is 0)."
    3. "Write data into snapshot file at given offset."
    4. "Reply and wait for more data chunks if done is false" (Figure 5.3).

    A snapshot of what is committed here already is answered as installed, and not looked at.
    """
    if message.term < raft.current_term:
        raft.answer(sender, _result(raft, message, offset=0, installed=False))
        return
    raft.heard_from_leader(sender, message.round_number)
    if message.last_included_index <= raft.commit_index:
        raft.send_after_save(sender, _result(raft, message, offset=0, installed=True))
        return
    incoming = raft.incoming
    if incoming is not None and incoming.complete:
        return
    if incoming is None or not incoming.is_of(message):
        incoming = raft.incoming = Incoming(
            sender, message.term, message.last_included_index, message.last_included_term
        )
    if message.offset == incoming.offset:
        raft.leader_lives()
        raft.output.chunks_received.append(ChunkReceived(sender, message))
        incoming.offset += len(message.data)
        incoming.complete = message.done
        if message.done:
            return
    raft.send_after_save(sender, _result(raft, message, incoming.offset, installed=False))


def _result(raft: Raft, message: InstallSnapshot, offset: int, *, installed: bool) -> InstallSnapshotResult:
    return InstallSnapshotResult(
        raft.current_term, message.last_included_index, offset, installed, round_number=message.round_number
    )


def snapshot_installed(raft: Raft, event: SnapshotInstalled) -> None:
    """The application's state is the snapshot's now, or is past it already.

    5. "If existing log entry has same index and term as snapshot's last included entry, retain log entries
       following it."
    6. "Discard the entire log" otherwise (Figure 5.3): also entries behind an index whose term differs.
    """
    index, term = event.last_included_index, event.last_included_term
    if raft.snapshot is None or index > raft.snapshot.last_included_index:
        raft.snapshot = SnapshotMeta(index, term, event.size)
        if raft.log.term_at(index) == term:
            raft.compact_log(index + 1)
        else:
            raft.reset_log(index, term)
        raft.advance_commit_index(index)
    # Round 0 renews no confirmation: the chunk's own round may be long past.
    _answer_for_incoming(raft, index, installed=True)


def snapshot_refused(raft: Raft, event: SnapshotRefused) -> None:
    """What was received is damaged or could not be kept: the leader's next chunk begins it anew."""
    _answer_for_incoming(raft, event.last_included_index, installed=False)


def _answer_for_incoming(raft: Raft, index: int, *, installed: bool) -> None:
    """Tell the leader what became of the snapshot whose last chunk came, if it is the leader still."""
    incoming, raft.incoming = raft.incoming, None
    if incoming is None or (incoming.leader_id, incoming.leader_term) != (raft.leader_id, raft.current_term):
        return
    result = InstallSnapshotResult(raft.current_term, index, offset=0, installed=installed, round_number=0)
    raft.send_after_save(incoming.leader_id, result)


def snapshot_taken(raft: Raft, event: SnapshotTaken) -> None:
    """Drop the log's prefix that the snapshot covers, but for what slow followers may still need (thesis 5.1.3).

    One of the same index takes the place of the present one, which was damaged.
    """
    if raft.snapshot is not None and event.last_included_index < raft.snapshot.last_included_index:
        return
    assert event.last_included_index <= raft.commit_index, "a snapshot of what isn't committed"
    raft.snapshot = SnapshotMeta(event.last_included_index, event.last_included_term, event.size)
    raft.compact_log(min(event.first_index_kept, event.last_included_index + 1))
