"""All that a server keeps on disk, behind one door: log, hard state, snapshots, a clock.

A directory holds::

    lock                                    held while the directory is open
    log-0000000000000001.seg ...            the log and the hard state (log_frames, segments, segmented_log)
    snapshot-<index>-<term>.snap            the two newest snapshots (snapshot_format, snapshots)
    clock                                   where the cluster clock stood: a hint
    *.tmp                                   begun and not finished, or kept to be used again; removed at the next start

Other files are left alone.

What may be relied on:

* What :meth:`Storage.save` was given is on disk, as a whole, when it returns, and survives a crash at any later
  moment. After a crash in a save, either all of it is there or nothing.
* What :meth:`Storage.open` returns is on disk, too: it is never something that only the page cache has.
* After a failed write or flush, everything raises DiskFailed. After DiskFull, nothing has changed.
* When damage is found, :meth:`Storage.open` raises, and nothing was deleted or changed.

``save``, ``reset_to`` and ``close`` belong to one thread; ``read_entries``, ``prepare_next``, ``compact`` and all of
``snapshots`` may be used in other threads meanwhile.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Collection, Sequence
from pathlib import Path
from zlib import crc32

from raftnode.disk_health import (
    Corrupt,
    DirectoryInUse,
    DiskFailed,
    DiskFull,
    DiskHealth,
    LogCorrupt,
    SnapshotCorrupt,
    SnapshotGone,
    StorageError,
    WrongDirectory,
)
from raftnode.filesystem import FileSystem, OpenMode, write_all
from raftnode.recovery import choose_snapshot, find_log
from raftnode.segmented_log import SegmentedLog
from raftnode.snapshots import SnapshotReceiver, SnapshotStore, SnapshotWriter, find_snapshots
from raftnode.storage_values import Recovered, SnapshotMeta, StorageIdentity, Torn
from statemachine.events import EntriesRun, HardState

__all__ = [
    "Corrupt",
    "DirectoryInUse",
    "DiskFailed",
    "DiskFull",
    "LogCorrupt",
    "Recovered",
    "SnapshotCorrupt",
    "SnapshotGone",
    "SnapshotMeta",
    "SnapshotReceiver",
    "SnapshotStore",
    "SnapshotWriter",
    "Storage",
    "StorageError",
    "StorageIdentity",
    "Torn",
    "WrongDirectory",
]

_CLOCK_NAME = "clock"
_CLOCK = struct.Struct("<QI4x")
_CLOCK_VALUE = struct.Struct("<Q")


class Storage:
    """The open directory of one server; made by :meth:`open`."""

    def __init__(
        self,
        filesystem: FileSystem,
        directory: Path,
        health: DiskHealth,
        lock_handle: int,
        log: SegmentedLog,
        snapshots: SnapshotStore,
    ) -> None:
        self._filesystem = filesystem
        self._directory = directory
        self._health = health
        self._lock_handle = lock_handle
        self._log = log
        self._snapshots = snapshots
        self._clock_handle: int | None = None
        self._closed = False

    @classmethod
    def open(
        cls,
        directory: Path,
        identity: StorageIdentity,
        filesystem: FileSystem,
        distrusted: Collection[Path] = (),
        segment_bytes: int | None = None,
    ) -> tuple[Storage, Recovered]:
        """Opens a directory, made if missing, and reads what is in it.

        The body of a snapshot is checked only when it is read. If that raises SnapshotCorrupt, open again with
        its path in ``distrusted``, to start from the one before, if the log reaches back to that. With
        ``segment_bytes`` every segment of the log is laid out to that size; else they grow.

        Raises DirectoryInUse, WrongDirectory, LogCorrupt, SnapshotCorrupt, DiskFull, DiskFailed.
        """
        health = DiskHealth()
        try:
            filesystem.make_directory(directory)
            lock_handle = filesystem.lock(directory / "lock")
        except BlockingIOError as error:
            raise DirectoryInUse(f"{directory} is in use by another server") from error
        except OSError as error:
            raise health.error_for("opening", directory, error) from error
        try:
            log, snapshots, recovered = _recover(filesystem, directory, identity, health, distrusted, segment_bytes)
        except OSError as error:
            filesystem.close(lock_handle)
            raise health.error_for("recovering", directory, error) from error
        except StorageError:
            filesystem.close(lock_handle)
            raise
        return cls(filesystem, directory, health, lock_handle, log, snapshots), recovered

    @property
    def snapshots(self) -> SnapshotStore:
        """The snapshots in the directory."""
        return self._snapshots

    @property
    def failure(self) -> str | None:
        """What write or flush failed, for people; None while the disk is well."""
        return self._health.failure

    @property
    def needs_next(self) -> bool:
        """Whether it is time to call prepare_next. Stays true while there is no room for it: try again later."""
        return self._log.needs_next

    @property
    def disk_full(self) -> bool:
        """True from when no room is found until the same is done with success.

        What is left in the current segment is the reserve for what is in flight: accept no more changes.
        """
        return self._log.disk_full

    @property
    def log_bytes(self) -> int:
        """The size of the log, of which compact may drop the older part."""
        return self._log.size_bytes

    def save(self, hard_state: HardState | None, runs: Sequence[EntriesRun]) -> None:
        """Saves a hard state, if given, and entries, as a whole and with one flush.

        Each run begins at most one behind the last entry there is; what stood at its indexes and behind is gone.
        Raises DiskFull (nothing has changed), DiskFailed; ValueError for runs that can't follow what is there.
        """
        if hard_state is not None or runs:
            self._log.save(hard_state, runs)

    def read_entries(self, first_index: int, last_index: int) -> tuple[bytes, ...]:
        """Reads entries that were saved, from ``first_index`` on: at least one, and at most up to ``last_index``.

        Raises EntriesGone, LogCorrupt, DiskFailed.
        """
        return self._log.read(first_index, last_index)

    def prepare_next(self) -> None:
        """Lays the next segment ready, for a worker thread; save goes on meanwhile.

        Finding no room is no error here, but shows in ``disk_full``. Raises DiskFailed.
        """
        self._log.prepare_next()

    def compact(self, first_index_kept: int) -> None:
        """Drops entries below that index, as far as they fill whole segments.

        Raises DiskFailed; ValueError if there is no snapshot that holds them.
        """
        latest = self._snapshots.latest
        if first_index_kept > (latest.index if latest is not None else 0) + 1:
            raise ValueError(f"no snapshot reaches up to entry {first_index_kept - 1}")
        self._log.compact(first_index_kept)

    def remove_spares(self) -> None:
        """Gives back the room of old segments of the log that are kept to be used again. Raises DiskFailed."""
        self._log.remove_spares()

    def reset_to(self, index: int, term: int) -> None:
        """Drops the whole log; it begins after that entry, with which a received snapshot ends.

        A newer one may have been made already: on a slow disk, of entries that are applied and not saved yet.

        Raises DiskFull, DiskFailed; ValueError if no snapshot holds what is dropped.
        """
        latest = self._snapshots.latest
        if latest is None or latest.index < index or (latest.index == index and latest.term != term):
            raise ValueError(f"there is no snapshot that ends with entry {index} of term {term}")
        self._log.reset(index, term)
        self._log.compact(index + 1)

    def save_clock(self, clock_us: int) -> None:
        """Notes where the cluster clock stands, without a flush: a hint for the next start.

        A full disk is ignored. Raises DiskFailed.
        """
        self._health.require()
        path = self._directory / _CLOCK_NAME
        value = _CLOCK_VALUE.pack(clock_us)
        try:
            if self._clock_handle is None:
                try:
                    self._clock_handle = self._filesystem.open(path, OpenMode.WRITE)
                except FileNotFoundError:
                    self._clock_handle = self._filesystem.open(path, OpenMode.CREATE)
            data = _CLOCK.pack(clock_us, crc32(value))
            write_all(self._filesystem, self._clock_handle, [data], 0, flush=False)
        except OSError as error:
            failure = self._health.error_for("writing", path, error)
            if isinstance(failure, DiskFailed):
                raise failure from error

    def close(self) -> None:
        """Trims the log to what it holds and gives the directory back. Raises DiskFailed, with it given back."""
        if self._closed:
            return
        self._closed = True
        try:
            self._log.close()
        finally:
            with contextlib.suppress(OSError):
                if self._clock_handle is not None:
                    self._filesystem.close(self._clock_handle)
                self._filesystem.close(self._lock_handle)


def _recover(
    filesystem: FileSystem,
    directory: Path,
    identity: StorageIdentity,
    health: DiskHealth,
    distrusted: Collection[Path],
    segment_bytes: int | None,
) -> tuple[SegmentedLog, SnapshotStore, Recovered]:
    """Reads everything, decides, and only then touches anything. Raises StorageError, OSError."""
    names = filesystem.list_directory(directory)
    clock_us = _read_clock(filesystem, directory / _CLOCK_NAME) if _CLOCK_NAME in names else 0
    found_snapshots = find_snapshots(filesystem, directory, names, identity, distrusted)
    found = find_log(filesystem, directory, names, identity)
    temporary = [directory / name for name in names if _is_temporary(name)]
    snapshots = SnapshotStore(filesystem, directory, identity, health, found_snapshots)
    if found is None:
        if found_snapshots.good or found_snapshots.damaged:
            raise LogCorrupt(directory, 0, "there are snapshots, but no log")
        _remove(filesystem, temporary)
        log = SegmentedLog.create(filesystem, directory, identity, health, segment_bytes)
        return log, snapshots, Recovered(HardState(0, None), None, 1, (), None, clock_us, ())
    snapshot, stale = choose_snapshot(found, found_snapshots)
    _remove(filesystem, temporary + found.leftovers)
    log = SegmentedLog.reopen(filesystem, directory, identity, health, found, segment_bytes)
    first_index = 1
    runs: tuple[EntriesRun, ...] = ()
    if snapshot is not None:
        first_index = snapshot.index + 1
        if stale:
            _reset_stale(log, snapshot)
    if not stale:
        runs = found.runs_from(first_index)
    damaged = tuple(
        str(damage) for index, _, damage in found_snapshots.damaged if snapshot is None or index > snapshot.index
    )
    return log, snapshots, Recovered(found.hard_state, snapshot, first_index, runs, found.torn, clock_us, damaged)


def _reset_stale(log: SegmentedLog, snapshot: SnapshotMeta) -> None:
    """Does what the crash after the snapshot was received has left undone. Raises DiskFull, DiskFailed."""
    try:
        log.reset(snapshot.index, snapshot.term)
    except StorageError:
        with contextlib.suppress(DiskFailed):
            log.close()
        raise


def _is_temporary(name: str) -> bool:
    return name.endswith(".tmp") and name.startswith(("log-", "snapshot-"))


def _remove(filesystem: FileSystem, paths: Sequence[Path]) -> None:
    for path in paths:
        filesystem.unlink(path)


def _read_clock(filesystem: FileSystem, path: Path) -> int:
    """The clock, or 0 if the file is damaged. Raises OSError."""
    handle = filesystem.open(path, OpenMode.READ)
    try:
        data = filesystem.read(handle, _CLOCK.size, 0)
    finally:
        filesystem.close(handle)
    if len(data) < _CLOCK.size:
        return 0
    clock_us, check = _CLOCK.unpack(data)
    return int(clock_us) if check == crc32(_CLOCK_VALUE.pack(clock_us)) else 0
