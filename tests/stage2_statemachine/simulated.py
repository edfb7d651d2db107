"""One simulated server: the production Raft, with a disk that forgets what wasn't saved and a list as application.

The disk carries out saves one after another, each a while after it was asked for. A crash loses what is not done, but
for a prefix of it, as the real disk may have got that far. The application keeps all the entries that it applied.
"""

from __future__ import annotations

import random

import attrs

from statemachine.configuration import Configuration
from statemachine.events import (
    EntriesRead,
    EntriesRun,
    HardState,
    Persisted,
    SnapshotInstalled,
    SnapshotRefused,
    SnapshotTaken,
)
from statemachine.messages import InstallSnapshot
from statemachine.progress import SnapshotMeta
from statemachine.raft import Raft
from statemachine.ready import ChunkReceived, EntriesToRead, Ready
from statemachine.roles import Options, Restored

SEPARATOR = b"|"


@attrs.define
class Disk:
    """What is durable."""

    hard_state: HardState = attrs.field(factory=lambda: HardState(0, None))
    base_index: int = 0
    terms: list[int] = attrs.field(factory=list)
    entries: list[bytes] = attrs.field(factory=list)
    snapshots: list[tuple[SnapshotMeta, bytes]] = attrs.field(factory=list)
    """The two newest, ascending."""
    received: bytearray = attrs.field(factory=bytearray)

    def save(self, ready: Ready) -> None:
        """Carry out a ready value's saves."""
        self.save_chunks(ready.chunks_received)
        if ready.log_reset is not None:
            self.base_index = ready.log_reset.last_included_index
            self.terms.clear()
            self.entries.clear()
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state
        for run in ready.runs:
            self.append(run, len(run.entries))

    def save_prefix(self, ready: Ready, generator: random.Random) -> None:
        """Carry out a part of them: the hard state comes first, then the entries in order."""
        if ready.log_reset is not None or generator.random() < 0.3:
            return
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state
        for run in ready.runs:
            count = generator.randint(0, len(run.entries))
            self.append(run, count)
            if count < len(run.entries):
                break

    def append(self, run: EntriesRun, count: int) -> None:
        """The first ``count`` entries of a run."""
        if count == 0:
            return
        kept = run.first_index - self.base_index - 1
        assert 0 <= kept <= len(self.entries), "a hole in the log on disk"
        del self.terms[kept:]
        del self.entries[kept:]
        self.terms.extend([run.term] * count)
        self.entries.extend(run.entries[:count])

    def save_chunks(self, received: list[ChunkReceived]) -> None:
        """Write pieces of a snapshot; at offset 0 what was there before is void."""
        for each in received:
            if each.chunk.offset == 0:
                self.received.clear()
            assert each.chunk.offset == len(self.received), "a chunk out of order"
            self.received += each.chunk.data

    def keep_snapshot(self, meta: SnapshotMeta, data: bytes) -> None:
        """Keep a snapshot, unless a newer one is there."""
        if not self.snapshots or meta.last_included_index > self.snapshots[-1][0].last_included_index:
            self.snapshots = [*self.snapshots[-1:], (meta, data)]

    def compact(self, last_index_dropped: int) -> None:
        """Drop the log's beginning."""
        count = min(max(last_index_dropped - self.base_index, 0), len(self.entries))
        del self.terms[:count]
        del self.entries[:count]
        self.base_index += count

    def restored(self) -> Restored:
        """What a server that starts from this disk is given."""
        runs: list[EntriesRun] = []
        for index, (term, entry) in enumerate(zip(self.terms, self.entries, strict=True), self.base_index + 1):
            if runs and runs[-1].term == term:
                runs[-1] = attrs.evolve(runs[-1], entries=(*runs[-1].entries, entry))
            else:
                runs.append(EntriesRun(index, term, (entry,)))
        snapshot = self.snapshots[-1][0] if self.snapshots else None
        if snapshot is not None and not runs:
            self.base_index = snapshot.last_included_index
        return Restored(hard_state=self.hard_state, snapshot=snapshot, runs=tuple(runs))


class Server:
    """A server that is up; the cluster makes a new one with the same disk after a crash."""

    def __init__(
        self,
        server_id: int,
        configuration: Configuration,
        options: Options,
        generator: random.Random,
        disk: Disk,
        now_us: int,
    ) -> None:
        """Start from what the disk has."""
        self.server_id = server_id
        self.disk = disk
        self.raft = Raft(server_id, configuration, options, generator, disk.restored(), now_us)
        self.applied: list[bytes] = []
        self.applied_term = 0
        if disk.snapshots:
            self.load(*disk.snapshots[-1])
        self.saving: list[Ready] = []
        self.disk_busy = False
        self.disk_held = False
        self.loading: InstallSnapshot | None = None
        self.turn_scheduled = False
        self.checked = 0
        self.timer_us = -1
        self.barriers: dict[int, int] = {}
        """Barriers asked for, and the highest index that was committed anywhere by then."""
        self.barriers_passed = 0
        self.next_barrier = 1

    @property
    def applied_index(self) -> int:
        return len(self.applied)

    def apply(self) -> None:
        """Apply what is committed; not while another state is being loaded."""
        if self.loading is not None:
            return
        raft = self.raft
        first = self.applied_index + 1
        if first <= raft.commit_index:
            assert first >= raft.log.first_index, "an entry was compacted before it was applied"
            self.applied.extend(raft.log.entries(first, raft.commit_index))
            term = raft.log.term_at(raft.commit_index)
            assert term is not None
            self.applied_term = term

    def load(self, meta: SnapshotMeta, data: bytes) -> None:
        """Replace the state by a snapshot's."""
        self.applied = data.split(SEPARATOR)
        assert len(self.applied) == meta.last_included_index, "a snapshot of another index"
        self.applied_term = meta.last_included_term

    def persisted(self, ready: Ready) -> Persisted:
        """The event that tells that a ready value is on disk."""
        run = ready.runs[-1] if ready.runs else EntriesRun(1, 0, ())
        return Persisted(run.term, run.last_index, ready.hard_state)

    def take_snapshot(self, kept: int) -> SnapshotTaken | None:
        """Write a snapshot of the applied state; ``kept`` entries before it stay in memory."""
        index = self.applied_index
        if index == 0 or (self.disk.snapshots and index <= self.disk.snapshots[-1][0].last_included_index):
            return None
        data = SEPARATOR.join(self.applied)
        meta = SnapshotMeta(index, self.applied_term, len(data))
        self.disk.keep_snapshot(meta, data)
        self.disk.compact(max(index - kept, 0))
        return SnapshotTaken(index, self.applied_term, len(data), max(index + 1 - kept, 1))

    def read_entries(self, wanted: EntriesToRead, generator: random.Random) -> EntriesRead:
        """Some of the entries that are to be read; all of them must be there."""
        disk = self.disk
        start, stop = (index - disk.base_index - 1 for index in (wanted.first_index, wanted.last_index + 1))
        terms, entries = disk.terms[start:stop], disk.entries[start:stop]
        assert start >= 0, "an entry was dropped from the disk that is wanted"
        assert len(entries) == stop - start > 0, "an entry isn't on disk that was dropped from memory"
        assert terms == [terms[0]] * len(terms), "entries of several terms"
        return EntriesRead(wanted.to, wanted.first_index, tuple(entries[: generator.randint(1, len(entries))]))

    def chunk(self, header: InstallSnapshot, length: int) -> InstallSnapshot | None:
        """The piece of a snapshot's file that is to be sent; None when another has taken its place."""
        for meta, data in self.disk.snapshots:
            if (meta.last_included_index, meta.last_included_term) == (
                header.last_included_index,
                header.last_included_term,
            ):
                return attrs.evolve(header, data=data[header.offset : header.offset + length])
        return None

    def finish_loading(self, *, damaged: bool) -> SnapshotInstalled | SnapshotRefused:
        """Take on the received snapshot, unless it is found damaged, or the state is past it."""
        chunk, self.loading = self.loading, None
        assert chunk is not None
        index, term = chunk.last_included_index, chunk.last_included_term
        if damaged or index <= self.applied_index:
            return SnapshotRefused(index)
        data = bytes(self.disk.received)
        meta = SnapshotMeta(index, term, len(data))
        self.load(meta, data)
        self.disk.keep_snapshot(meta, data)
        return SnapshotInstalled(index, term, len(data))
