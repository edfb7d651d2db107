"""The log on disk: appends frames to the last segment, and goes on to new segments.

Theory of operation
-------------------
:meth:`SegmentedLog.save` makes one frame of whatever it is given, and writes it with one flushing call. The
state in memory changes only when that has worked: a save that finds the disk full leaves everything as it
was, and the next one goes to the same place. What it did write is overwritten then. Should a crash come
before that, recovery may find the whole frame and take it as saved, which is allowed: it is the state
that the server was about to be in, and nobody was told that it is not.

When a frame doesn't fit in what is left of the segment, the log goes on in the segment that
:meth:`SegmentedLog.prepare_next` has laid ready; if there is none it goes on past the end of the current one,
which is slower and otherwise the same. Going on means: the header and the first frame are written to the
prepared file and flushed, the file is renamed, the directory is flushed. So there is never a segment without
a whole frame that was begun by a save, and the header knows where the segment before it ended.

Threads: ``save``, ``reset`` and ``close`` belong to one thread. ``prepare_next`` and ``compact`` may run in
another at the same time. They meet in two places: the prepared file is handed over by assigning one attribute,
which only ``prepare_next`` fills and only ``save`` empties; the row of segments, and where in them entries stand, is
changed under a lock. ``read`` may run in yet another.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path

import attrs

from raftnode.checksums import CHECKSUM, Checksum
from raftnode.disk_health import FULL_ERRORS, DiskFull, DiskHealth, EntriesGone, LogCorrupt
from raftnode.filesystem import FileSystem, OpenMode, write_all
from raftnode.log_frames import HEADER_BYTES, FrameBody, SegmentHeader, encode_body, seal
from raftnode.log_reading import read_entries
from raftnode.recovery import FoundLog
from raftnode.segments import (
    SIZE_BYTES_MIN,
    Blank,
    Segment,
    discard,
    end_zeros,
    make_blank,
    next_size_bytes,
    segment_path,
    write_blank,
)
from raftnode.spare_segments import SpareSegments
from raftnode.storage_values import StorageIdentity
from statemachine.events import EntriesRun, HardState


@attrs.define
class _Position:
    """Where the next frame goes."""

    handle: int
    salt: int
    checksum: Checksum
    offset: int
    capacity_bytes: int
    """How far the segment was laid out: its length when it was begun, or opened."""
    chain: int
    """The check of the last frame."""
    sequence: int
    """The number of the next frame."""


class SegmentedLog:
    """The log of one server; made by :meth:`create` or :meth:`reopen`."""

    def __init__(
        self,
        filesystem: FileSystem,
        directory: Path,
        identity: StorageIdentity,
        health: DiskHealth,
        found: FoundLog,
        position: _Position,
        segment_bytes: int | None,
    ) -> None:
        self._filesystem = filesystem
        self._directory = directory
        self._identity = identity
        self._health = health
        self._position = position
        self._segment_bytes = segment_bytes
        self._segments = found.segments
        self._places = found.places
        self._hard_state = found.hard_state
        self._first_index = found.first_index
        self._next_index = found.next_index
        self._blank: Blank | None = None
        self._spares = SpareSegments(filesystem, directory)
        self._row_lock = threading.Lock()
        self._prepare_lock = threading.Lock()
        self._no_room_to_prepare = False
        self._no_room_to_save = False
        self._closed = False

    @classmethod
    def create(
        cls,
        filesystem: FileSystem,
        directory: Path,
        identity: StorageIdentity,
        health: DiskHealth,
        segment_bytes: int | None = None,
    ) -> SegmentedLog:
        """Begins an empty log in a directory that has none. Raises OSError.

        With ``segment_bytes`` every segment is laid out to that size; else they grow.
        """
        found = FoundLog(first_index=1, hard_state=HardState(0, None), chain=0, sequence=1)
        header = _header(filesystem, identity, found.hard_state, number=1, chain=0, sequence=1, first_index=1, end=0)
        blank = make_blank(filesystem, directory, segment_bytes or SIZE_BYTES_MIN)
        path = segment_path(directory, 1)
        try:
            write_blank(filesystem, blank, [header.encode()])
            filesystem.rename(blank.path, path)
            filesystem.flush_directory(directory)
        except OSError:
            filesystem.close(blank.handle)
            raise
        found.segments.append(Segment(1, path, HEADER_BYTES, 1))
        position = _Position(
            blank.handle, header.salt, header.checksum, HEADER_BYTES, blank.size_bytes, chain=0, sequence=1
        )
        return cls(filesystem, directory, identity, health, found, position, segment_bytes)

    @classmethod
    def reopen(
        cls,
        filesystem: FileSystem,
        directory: Path,
        identity: StorageIdentity,
        health: DiskHealth,
        found: FoundLog,
        segment_bytes: int | None = None,
    ) -> SegmentedLog:
        """Goes on with a log that was read. Raises OSError.

        The last frame may be in the page cache and nowhere else: the process may have died between its write and
        its flush, or of a flush that failed, and after the latter the kernel takes the page for clean. It is
        written again, which makes it dirty, and flushed, before anybody is told that it is there.
        """
        active = found.segments[-1]
        handle = filesystem.open(active.path, OpenMode.WRITE)
        try:
            if found.last_frame_offset is not None:
                offset = found.last_frame_offset
                frame = filesystem.read(handle, active.size_bytes - offset, offset)
                write_all(filesystem, handle, [frame], offset, flush=True)
            filesystem.flush(handle)
            filesystem.flush_directory(directory)
            capacity_bytes = filesystem.size(handle)
        except OSError:
            filesystem.close(handle)
            raise
        is_of_old_format = found.checksum is not CHECKSUM
        if is_of_old_format:
            # What is saved now may be what the version that wrote it can't read. It can't read the next segment either,
            # and says so.
            capacity_bytes = active.size_bytes
        position = _Position(
            handle, found.salt, found.checksum, active.size_bytes, capacity_bytes, found.chain, found.sequence
        )
        log = cls(filesystem, directory, identity, health, found, position, segment_bytes)
        if is_of_old_format:
            log.prepare_next()
        return log

    @property
    def size_bytes(self) -> int:
        """What all segments hold, without what is laid out ahead."""
        with self._row_lock:
            return sum(segment.size_bytes for segment in self._segments[:-1]) + self._position.offset

    @property
    def disk_full(self) -> bool:
        """Whether the last save, or the last preparation of a segment, found no room."""
        return self._no_room_to_prepare or self._no_room_to_save

    @property
    def needs_next(self) -> bool:
        """Whether it is time to call prepare_next."""
        position = self._position
        return (
            self._blank is None
            and 2 * position.offset >= position.capacity_bytes
            and not self._prepare_lock.locked()
            and not self._closed
            and self._health.failure is None
        )

    def save(
        self, hard_state: HardState | None, runs: Sequence[EntriesRun], reset: tuple[int, int] | None = None
    ) -> None:
        """Saves all of it with one flush. Raises DiskFull, DiskFailed; ValueError for what can't follow what is there.

        ``reset`` is the (index, term) after which the emptied log begins; ``runs`` come behind it.
        """
        self._require_open()
        next_index, lowest_index = self._check_order(runs, reset)
        body = encode_body(hard_state, runs, reset)
        blank = self._blank
        if blank is not None and self._position.offset + body.frame_bytes > self._position.capacity_bytes:
            self._rotate(blank, body)
        else:
            self._append(body)
        self._no_room_to_save = False
        if hard_state is not None:
            self._hard_state = hard_state
        with self._row_lock:
            if lowest_index < self._next_index:
                for segment in self._segments[:-1]:
                    segment.end_index = min(segment.end_index, lowest_index)
            if reset is not None:
                self._first_index = lowest_index = reset[0] + 1
                self._places.clear()
            if runs:
                offset = self._position.offset - body.frame_bytes
                self._places.add(lowest_index, self._next_index, self._segments[-1].number, offset)
        self._next_index = next_index

    def read(self, first_index: int, last_index: int) -> tuple[bytes, ...]:
        """Reads entries that were saved, from ``first_index`` on: at least one, and at most up to ``last_index``.

        Raises EntriesGone, LogCorrupt, DiskFailed.
        """
        self._require_open()
        with self._row_lock:
            found = self._places.find(first_index)
            if found is None:
                raise EntriesGone(f"entry {first_index} isn't kept")
            place, following = found
            segment = next(segment for segment in self._segments if segment.number == place.segment)
            end = self._position.offset if segment is self._segments[-1] else segment.size_bytes
        if following is not None:
            last_index = min(last_index, following.index - 1)
            if following.segment == place.segment:
                end = following.offset
        try:
            return read_entries(self._filesystem, segment.path, place, end, first_index, last_index)
        except (OSError, LogCorrupt) as error:
            with self._row_lock:
                if segment not in self._segments:
                    # Removed meanwhile, and perhaps another segment already.
                    raise EntriesGone(f"entry {first_index} isn't kept") from error
            if isinstance(error, LogCorrupt):
                raise
            raise self._health.failed("reading", segment.path, error) from error

    def _require_open(self) -> None:
        self._health.require()
        if self._closed:
            raise ValueError("the log is closed")

    def _check_order(self, runs: Sequence[EntriesRun], reset: tuple[int, int] | None) -> tuple[int, int]:
        """Returns the next index after these runs, and the lowest index that they, or the reset, replace."""
        first_index, next_index, lowest_index = self._first_index, self._next_index, self._next_index
        if reset is not None:
            first_index = next_index = reset[0] + 1
            lowest_index = 0
        for run in runs:
            if not first_index <= run.first_index <= next_index or not run.entries:
                raise ValueError(
                    f"{len(run.entries)} entries from {run.first_index} can't follow those up to {next_index - 1}"
                )
            if run.first_index < lowest_index:
                lowest_index = run.first_index
            next_index = run.first_index + len(run.entries)
        return next_index, lowest_index

    def _append(self, body: FrameBody) -> None:
        """Writes a frame behind the last one."""
        position = self._position
        check, buffers = seal(body, position.salt, position.chain, position.sequence, position.checksum)
        end = position.offset + body.frame_bytes
        zeros_behind = end_zeros(end, position.capacity_bytes)
        try:
            self._filesystem.append(position.handle, buffers, position.offset, zeros_behind=zeros_behind)
        except OSError as error:
            raise self._write_error(
                self._segments[-1].path, error, position.handle, max(position.offset, position.capacity_bytes)
            ) from error
        position.chain = check
        position.sequence += 1
        position.offset = end

    def _rotate(self, blank: Blank, body: FrameBody) -> None:
        """Goes on in the next segment, with a frame."""
        old = self._position
        header = _header(
            self._filesystem,
            self._identity,
            self._hard_state,
            number=self._segments[-1].number + 1,
            chain=old.chain,
            sequence=old.sequence,
            first_index=self._next_index,
            end=old.offset,
            is_reused=blank.is_reused,
        )
        check, buffers = seal(body, header.salt, old.chain, old.sequence, header.checksum)
        path = segment_path(self._directory, header.number)
        try:
            write_blank(self._filesystem, blank, [header.encode(), *buffers])
            self._filesystem.rename(blank.path, path)
        except OSError as error:
            raise self._write_error(path, error, blank.handle, blank.size_bytes) from error
        try:
            self._filesystem.flush_directory(self._directory)
            self._filesystem.close(old.handle)
        except OSError as error:
            raise self._health.failed("flushing", self._directory, error) from error
        with self._row_lock:
            self._segments[-1].size_bytes = old.offset
            self._segments[-1].end_index = self._next_index
            self._segments.append(Segment(header.number, path, 0, 0))
        offset = HEADER_BYTES + body.frame_bytes
        self._position = _Position(
            blank.handle, header.salt, header.checksum, offset, blank.size_bytes, check, old.sequence + 1
        )
        self._blank = None

    def _write_error(self, path: Path, error: OSError, handle: int, size_bytes: int) -> Exception:
        """What to raise for a failed write to a segment that was laid out to that size."""
        failure = self._health.error_for("writing", path, error)
        if isinstance(failure, DiskFull):
            self._no_room_to_save = True
            # Give back what a part of a big frame has taken. It would be written over anyway, so this may fail.
            with contextlib.suppress(OSError):
                self._filesystem.truncate(handle, size_bytes)
        return failure

    def prepare_next(self) -> None:
        """Lays the next segment ready; for a worker thread. Returns at once if that is done or being done.

        No room is no error here: ``disk_full`` tells, ``needs_next`` stays true. Raises DiskFailed.
        """
        if not self._prepare_lock.acquire(blocking=False):
            return
        try:
            self._health.require()
            if self._closed or self._blank is not None:
                return
            size_bytes = self._segment_bytes or next_size_bytes(self._position.capacity_bytes)
            spare = self._spares.take(size_bytes)
            self._blank = spare or make_blank(self._filesystem, self._directory, size_bytes)
            self._no_room_to_prepare = False
        except OSError as error:
            if error.errno not in FULL_ERRORS:
                raise self._health.failed("preparing a segment in", self._directory, error) from error
            self._no_room_to_prepare = True
        finally:
            self._prepare_lock.release()

    def reset(self, index: int, term: int) -> None:
        """Empties the log; it begins after that entry now. Raises as save does."""
        self.save(None, (), reset=(index, term))

    def compact(self, first_index_kept: int) -> None:
        """Removes the segments that hold nothing at that index or above; a few are used again. Raises DiskFailed."""
        self._require_open()
        removable: list[Segment] = []
        with self._row_lock:
            while len(self._segments) > 1 and self._segments[0].end_index <= first_index_kept:
                removable.append(self._segments.pop(0))
            self._places.drop_before(self._segments[0].number)
        # Lowest first: a crash in between leaves a row without a gap, or one that recovery knows to be harmless.
        for segment in removable:
            try:
                self._spares.keep(segment.path)
            except OSError as error:
                raise self._health.failed("removing", segment.path, error) from error

    def remove_spares(self) -> None:
        """Gives back the room of segments that are kept to be used again. Raises DiskFailed."""
        self._require_open()
        try:
            self._spares.remove_all()
        except OSError as error:
            raise self._health.failed("removing spare segments in", self._directory, error) from error

    def close(self) -> None:
        """Gives back the room that was laid out ahead. Waits for a running prepare_next. Raises DiskFailed."""
        with self._prepare_lock:
            if self._closed:
                return
            self._closed = True
            blank, self._blank = self._blank, None
            position = self._position
            try:
                if self._health.failure is None:
                    self._filesystem.truncate(position.handle, position.offset)
                    self._filesystem.flush(position.handle)
                    if blank is not None:
                        discard(self._filesystem, blank)
                    self._spares.remove_all()
                elif blank is not None:
                    self._filesystem.close(blank.handle)
            except OSError as error:
                raise self._health.failed("closing", self._segments[-1].path, error) from error
            finally:
                self._filesystem.close(position.handle)


def _header(
    filesystem: FileSystem,
    identity: StorageIdentity,
    hard_state: HardState,
    *,
    number: int,
    chain: int,
    sequence: int,
    first_index: int,
    end: int,
    is_reused: bool = False,
) -> SegmentHeader:
    """A header with a salt of its own."""
    salt = int.from_bytes(filesystem.random_bytes(4), "little")
    return SegmentHeader(
        identity.cluster_hash,
        identity.server_id,
        number,
        salt,
        chain,
        sequence,
        first_index,
        hard_state,
        end,
        is_reused,
    )
