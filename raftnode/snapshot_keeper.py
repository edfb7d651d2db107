"""When snapshots are made, which are kept, and what becomes of the log behind them.

A snapshot is made whenever the log has grown by so many bytes since the last one; or, where that one was big, by
`LOG_GROWTH` times its size, so that the snapshots of a big state cost in proportion to what changes (thesis 5.1.2),
though never by more than `LOG_GROWTH_MAX` times as many, since a server that starts reads all of that. Then entries
that it covers are dropped: all but some that a follower a little behind may want, and on disk all that the snapshot
before it covers too, so that a server whose newest snapshot is damaged can still start.

Most of the log is on disk alone: once entries are applied they are dropped from memory, but for the latest, and
followers that are further behind are served from disk (:mod:`statemachine.disk_entries`).

A follower that asks for a snapshot again which it had as a whole could not use it, so then the file is read through,
and when it is damaged another one is made: the state in memory is well.

A received snapshot takes the place of the replica's state and of the log. While it is being loaded
(:attr:`SnapshotKeeper.installing`) nothing may be applied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial

from raftnode.disk_health import DiskFull, SnapshotCorrupt, SnapshotGone
from raftnode.node_values import Say, Step
from raftnode.replica import Replica
from raftnode.runtime import Runtime
from raftnode.snapshots import SnapshotReceiver
from raftnode.snapshotting import Snapshotter
from raftnode.storage import Storage
from raftnode.storage_values import Recovered, SnapshotMeta
from statemachine.events import LimitMemory, SnapshotInstalled, SnapshotRefused, SnapshotTaken
from statemachine.raft import Raft
from statemachine.ready import ChunkToSend

SNAPSHOTS_KEPT = 2
LOG_GROWTH = 2
LOG_GROWTH_MAX = 4
KEPT_FRACTION = 4
"""A quarter of the log that leads to a snapshot stays behind it."""
MEMORY_FRACTION = 4
"""A quarter of the log that leads to the first snapshot may be in memory."""
MEMORY_DROPPED_FRACTION = 4
"""When it is more, a quarter of it is dropped."""
NO_ROOM_PAUSE_US = 5_000_000

TakeReceiver = Callable[[], tuple[SnapshotReceiver, int]]
"""Hands over a received snapshot, and the last index that it covers."""


class SnapshotKeeper:
    """See the module's docstring."""

    def __init__(
        self,
        raft: Raft,
        replica: Replica,
        storage: Storage,
        step: Step,
        say: Say,
        recovered: Recovered,
        log_bytes_max: int,
        restored: Callable[[], None],
        runtime: Runtime,
    ) -> None:
        """``restored`` is called when the replica's state was replaced."""
        self.installing = False
        self._is_damaged = False
        """Whether the newest snapshot was found so."""
        self._raft = raft
        self._replica = replica
        self._storage = storage
        self._step = step
        self._say = say
        self._restored = restored
        self._runtime = runtime
        self._snapshotter = Snapshotter(replica, storage, runtime)
        self._counted_from = 0
        """How many bytes of entries had been appended to the log when the last snapshot was made."""
        self._log_bytes_max = self._due_log_bytes = log_bytes_max
        self._memory_bytes_max = log_bytes_max // MEMORY_FRACTION
        self._dropped: deque[tuple[int, int]] = deque()
        """Last indexes that were dropped from memory, and the bytes of all entries appended up to each."""
        self._wanted = self._runtime.signal()
        self._received = self._runtime.signal()
        self._doubted = runtime.signal()
        self._sent_whole: set[tuple[int, int, int]] = set()
        """Followers that were sent the last chunk of a snapshot, with its index and term."""
        self._on_disk: dict[tuple[int, int], SnapshotMeta] = {}
        """By last index and term: those that a follower may be receiving."""
        if recovered.snapshot is not None:
            self._note(recovered.snapshot)

    @property
    def _log_bytes(self) -> int:
        """Of entries since the last snapshot."""
        return self._raft.log.appended_bytes - self._counted_from

    def check(self) -> None:
        """After entries were applied: see whether it is time for a snapshot, or to drop entries from memory."""
        log = self._raft.log
        if log.memory_bytes > self._memory_bytes_max:
            self._limit_memory()
        if self._log_bytes >= self._due_log_bytes:
            self._wanted.set()

    def _limit_memory(self) -> None:
        log = self._raft.log
        before = log.memory_base
        kept_bytes = self._memory_bytes_max - self._memory_bytes_max // MEMORY_DROPPED_FRACTION
        self._raft.step(LimitMemory(kept_bytes, self._replica.applied_index), self._runtime.now_us())
        if log.memory_base > before:
            self._dropped.append((log.memory_base, log.appended_bytes - log.memory_bytes))

    def received(self) -> None:
        """The last chunk of a snapshot has come and is written."""
        self._received.set()

    def read_chunk(self, wanted: ChunkToSend) -> bytes | None:
        """A piece of a snapshot's file, or None if that snapshot is no longer kept."""
        header = wanted.header
        meta = self._on_disk.get((header.last_included_index, header.last_included_term))
        if meta is None:
            return None
        transfer = (wanted.to, meta.index, meta.term)
        if header.offset == 0 and transfer in self._sent_whole:
            self._sent_whole.discard(transfer)
            self._doubted.set()
        if header.done:
            self._sent_whole.add(transfer)
        try:
            return self._storage.snapshots.read_raw(meta, header.offset, wanted.length)
        except SnapshotGone:
            return None

    def tasks(self, take_receiver: TakeReceiver) -> tuple[Callable[[], Awaitable[None]], ...]:
        """What is to be run until cancelled; each raises DiskFailed when the disk failed."""
        return (
            self._make_when_wanted,
            self._check_when_doubted,
            partial(self._install_when_received, take_receiver),
        )

    async def _make_when_wanted(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted = self._runtime.signal()
            if self.installing or not (self._is_damaged or self._log_bytes >= self._due_log_bytes):
                continue
            try:
                await self._make()
                self._is_damaged = False
            except DiskFull as error:
                self._say("no room for a snapshot", why=str(error))
                await self._runtime.run_blocking(self._storage.remove_spares)
                await self._runtime.sleep(NO_ROOM_PAUSE_US)

    async def _check_when_doubted(self) -> None:
        while True:
            await self._doubted.wait()
            self._doubted = self._runtime.signal()
            meta = self._storage.snapshots.latest
            if meta is None or self.installing:
                continue
            try:
                await self._runtime.run_blocking(self._storage.snapshots.check, meta)
            except SnapshotGone:
                continue
            except SnapshotCorrupt as error:
                self._say("a snapshot is damaged: another is made", why=str(error))
                self._is_damaged = True
                self._wanted.set()

    async def _make(self) -> None:
        appended_bytes = self._raft.log.appended_bytes
        term = self._raft.log.term_at(self._replica.applied_index)
        assert term is not None, "the last entry applied is in the log, or just before it"
        meta = await self._snapshotter.take(term)
        previous = self._raft.snapshot
        if self.installing or (previous is not None and previous.last_included_index > meta.index):
            return  # A received one has overtaken it.
        covered_twice = previous.last_included_index if previous is not None else 0
        kept = self._first_index_kept(meta.index, covered_twice, appended_bytes)
        self._note(meta)
        self._step(SnapshotTaken(meta.index, meta.term, meta.size_bytes, kept))
        self._counted_from = appended_bytes
        if covered_twice < meta.index:  # Otherwise it has taken the place of a damaged one.
            await self._runtime.run_blocking(self._storage.compact, covered_twice + 1)
        self._say("snapshot made", index=meta.index, bytes=meta.size_bytes)

    def _note(self, meta: SnapshotMeta) -> None:
        """Remember where the newest snapshots are, as many as storage keeps; and when the next is due."""
        wanted_bytes = min(LOG_GROWTH * meta.size_bytes, LOG_GROWTH_MAX * self._log_bytes_max)
        self._due_log_bytes = max(self._log_bytes_max, wanted_bytes)
        self._on_disk[meta.index, meta.term] = meta
        while len(self._on_disk) > SNAPSHOTS_KEPT:
            del self._on_disk[next(iter(self._on_disk))]

    def _first_index_kept(self, snapshot_index: int, covered_twice: int, appended_bytes: int) -> int:
        """Keep some entries that the snapshot covers, so that a follower a little behind needs no snapshot.

        Args:
            snapshot_index: the last that the new snapshot covers.
            covered_twice: the last that the one before it covers, too: the disk doesn't keep these.
            appended_bytes: as it was when the new snapshot was begun.
        """
        bytes_max = self._due_log_bytes // KEPT_FRACTION
        marks = self._dropped
        while marks and (marks[0][0] < covered_twice or appended_bytes - marks[0][1] > bytes_max):
            marks.popleft()
        last_index_dropped = marks[0][0] if marks else max(self._raft.log.memory_base, covered_twice)
        return min(last_index_dropped, snapshot_index) + 1

    async def _install_when_received(self, take_receiver: TakeReceiver) -> None:
        while True:
            await self._received.wait()
            self._received = self._runtime.signal()
            receiver, index = take_receiver()
            if index <= self._replica.applied_index:
                receiver.abort()
                self._step(SnapshotRefused(index))
            else:
                await self._install(receiver, index)

    async def _install(self, receiver: SnapshotReceiver, index: int) -> None:
        self.installing = True
        meta = await self._snapshotter.install(receiver)
        self.installing = False
        if meta is None:
            self._say("a received snapshot could not be used", index=index)
            self._step(SnapshotRefused(index))
            return
        self._note(meta)
        self._step(SnapshotInstalled(meta.index, meta.term, meta.size_bytes))
        self._counted_from = self._raft.log.appended_bytes
        self._restored()
        self._say("snapshot installed", index=meta.index, bytes=meta.size_bytes)
