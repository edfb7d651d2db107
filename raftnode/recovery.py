"""Reads the log back, and tells what a crash leaves behind from damage.

Theory of operation
-------------------
A frame is written only when the one before it is flushed. So a crash can harm the last frame of the last
segment and no other:

* Something that is no valid frame, **with no valid frame behind it**, is a save that was under way. Nobody
  was told of it, so it is dropped, reported (``torn``), and written over by the next save.
* Something that is no valid frame **with a valid one behind it** was valid once. Entries that were
  acknowledged are lost, so recovery refuses (LogCorrupt), changing nothing: the other servers have the data.

For the last segment "behind it" means a search of the rest of the file for anything that checks out and isn't of an
earlier use of the file, which has lower sequence numbers. The
others need no search: the header of the next segment says where they ended, with which check. What stands
behind that end is left from a save that found the disk full, and then went to the next segment.

A gap in the row of segments is harmless if what follows it reaches back to the snapshot: then the segments
before it were being removed when a crash came. Otherwise it is corruption.

The snapshot is the other half of the state, and the log must continue it:

* The log begins at most one entry behind the newest good snapshot.
* A snapshot that is damaged may be passed over in favour of an older one only if the log goes from that one
  to the end of what was known, that is up to the damaged one's last entry at least.
* A log that ends before the snapshot, or holds another entry at its last index, is what was there before
  the snapshot was received from the leader. It is ``stale``, and to be reset.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import attrs

from raftnode.checksums import CHECKSUM, Checksum
from raftnode.disk_health import LogCorrupt, SnapshotCorrupt, WrongDirectory
from raftnode.filesystem import FileSystem, OpenMode
from raftnode.frame_places import PLACE_BYTES, FramePlaces
from raftnode.log_frames import (
    ALIGNMENT_BYTES,
    CHECKED_FROM,
    FRAME_HEAD,
    FRAME_HEAD_BYTES,
    FRAME_MAGIC,
    HEADER_BYTES,
    ONE_ENTRY_HEAD,
    BadFrame,
    BadHeader,
    OtherVersion,
    SegmentHeader,
    body_bytes_at,
    decode_body,
    decode_header,
    find_frame,
)
from raftnode.segments import Segment, segment_number, segment_path
from raftnode.storage_values import SnapshotMeta, StorageIdentity, Torn
from statemachine.events import EntriesRun, HardState

_NO_HEAD = bytes(FRAME_HEAD_BYTES)


@attrs.define
class FoundLog:
    """The log as it is read, segment by segment; then what was read."""

    first_index: int
    hard_state: HardState
    chain: int
    """The check of the last frame."""
    sequence: int
    """The number of the next frame."""
    salt: int = 0
    """Of the last segment."""
    checksum: Checksum = CHECKSUM
    """What the last segment's frames are checked by."""
    segments: list[Segment] = attrs.Factory(list)
    last_frame_offset: int | None = None
    """Where the last segment's last frame begins; None if it has no frame."""
    torn: Torn | None = None
    leftovers: list[Path] = attrs.Factory(list)
    """Segments before a gap."""
    entries: list[bytes] = attrs.Factory(list)
    terms: list[tuple[int, int]] = attrs.Factory(list)
    """The first index and the term of each run of entries of one term."""
    places: FramePlaces = attrs.Factory(FramePlaces)

    @property
    def next_index(self) -> int:
        """One more than the index of the last entry."""
        return self.first_index + len(self.entries)

    def add_run(self, run: EntriesRun) -> None:
        """Appends entries, in the place of those at their indexes and behind. Raises BadFrame."""
        if not 1 <= run.first_index <= self.next_index:
            raise BadFrame(f"entry {run.first_index} follows entry {self.next_index - 1}")
        if run.first_index < self.next_index:
            self._truncate(run.first_index)
        if not self.terms or self.terms[-1][1] != run.term:
            self.terms.append((run.first_index, run.term))
        self.entries += run.entries

    def _truncate(self, index: int) -> None:
        del self.entries[max(index - self.first_index, 0) :]
        while self.terms and self.terms[-1][0] >= index:
            self.terms.pop()
        # Lower than where the log began: the segments with what stood there before are removed already.
        self.first_index = min(self.first_index, index)
        for segment in self.segments:
            segment.end_index = min(segment.end_index, index)

    def reset(self, index: int) -> None:
        """Empties the log; it begins after that index now."""
        self.entries.clear()
        self.terms.clear()
        self.places.clear()
        self.first_index = index + 1
        for segment in self.segments:
            segment.end_index = 0

    def term_at(self, index: int) -> int | None:
        """The term of an entry; None if it isn't in the log."""
        if not self.first_index <= index < self.next_index:
            return None
        return next(term for first_index, term in reversed(self.terms) if first_index <= index)

    def runs_from(self, index: int) -> tuple[EntriesRun, ...]:
        """The entries from that index on."""
        bounds = [*self.terms, (self.next_index, 0)]
        runs = []
        for (begin, term), (end, _) in pairwise(bounds):
            begin = max(begin, index)
            if begin < end:
                entries = tuple(self.entries[begin - self.first_index : end - self.first_index])
                runs.append(EntriesRun(begin, term, entries))
        return tuple(runs)


def find_log(
    filesystem: FileSystem, directory: Path, names: Sequence[str], identity: StorageIdentity
) -> FoundLog | None:
    """Reads all segments; None if there are none.

    Raises LogCorrupt, WrongDirectory, OSError.
    """
    numbers = sorted(number for name in names if (number := segment_number(name)) is not None)
    if not numbers:
        return None
    row_begin = max((after for before, after in pairwise(numbers) if after != before + 1), default=numbers[0])
    row = [segment_path(directory, number) for number in numbers if number >= row_begin]
    headers = [_read_header(filesystem, path, identity) for path in row]
    for path, header in zip(row, headers, strict=True):
        if segment_number(path.name) != header.number:
            raise LogCorrupt(path, 0, f"it says that it is segment {header.number}")
    log = FoundLog(headers[0].first_index, headers[0].hard_state, headers[0].chain, headers[0].sequence)
    log.leftovers = [segment_path(directory, number) for number in numbers if number < row_begin]
    for position, (path, header) in enumerate(zip(row, headers, strict=True)):
        following = headers[position + 1] if position + 1 < len(row) else None
        data = _read_file(filesystem, path)
        end = _read_frames(log, path, data, header, len(data) if following is None else following.previous_end)
        if following is None:
            log.torn = _judge_rest(path, data, end, header, log.sequence)
        elif end != following.previous_end:
            raise LogCorrupt(path, end, "no valid frame stands there, and the log goes on in the next segment")
        elif (log.chain, log.sequence) != (following.chain, following.sequence):
            raise LogCorrupt(row[position + 1], 0, f"it does not continue {path.name}")
        log.segments.append(Segment(header.number, path, end, log.next_index))
    return log


def _read_file(filesystem: FileSystem, path: Path) -> bytes:
    handle = filesystem.open(path, OpenMode.READ)
    try:
        return filesystem.read(handle, filesystem.size(handle), 0)
    finally:
        filesystem.close(handle)


def _read_header(filesystem: FileSystem, path: Path, identity: StorageIdentity) -> SegmentHeader:
    handle = filesystem.open(path, OpenMode.READ)
    try:
        header = decode_header(filesystem.read(handle, HEADER_BYTES, 0))
    except BadHeader as error:
        raise LogCorrupt(path, 0, str(error)) from error
    except OtherVersion as error:
        raise WrongDirectory(f"{path} was written in format {error}, which this version doesn't know") from error
    finally:
        filesystem.close(handle)
    if not header.belongs_to(identity):
        raise WrongDirectory(
            f"{path} belongs to server {header.server_id} of its cluster,"
            f" not to server {identity.server_id} of {identity.cluster!r}"
            + (" (the cluster is another one)" if header.cluster_hash != identity.cluster_hash else "")
        )
    return header


def _read_frames(log: FoundLog, path: Path, data: bytes, header: SegmentHeader, limit: int) -> int:
    """Adds a segment's frames to the log, up to the limit or the first that isn't valid; returns where that is.

    Most frames of a busy log hold entries of the current term right behind the last one; a frame with one such
    entry is taken apart here, since calling anything for it would double the time that recovery takes.
    """
    view = memoryview(data)
    chain, sequence, salt, checksum = log.chain, log.sequence, header.salt, header.checksum
    limit = min(limit, len(data))
    offset = HEADER_BYTES
    last_offset = None
    place_due_at = 0
    entries = log.entries
    add_entry = entries.append
    while offset + FRAME_HEAD_BYTES <= limit:
        magic, check, _, previous, body_bytes, flags, run_count, number = FRAME_HEAD.unpack_from(data, offset)
        body = offset + FRAME_HEAD_BYTES
        end = body + body_bytes
        if (
            magic != FRAME_MAGIC
            or previous != chain
            or number != sequence
            or end > limit
            or checksum(view[offset + CHECKED_FROM : end], salt) != check
        ):
            break
        entry = body + ONE_ENTRY_HEAD.size
        if run_count == 1 and not flags and entry <= end:
            first_index, term, count, _, size = ONE_ENTRY_HEAD.unpack_from(data, body)
        else:
            first_index = term = count = size = 0
        if (
            count == 1
            and log.terms
            and term == log.terms[-1][1]
            and first_index == log.first_index + len(entries)
            and 0 <= end - entry - size < ALIGNMENT_BYTES
        ):
            if offset >= place_due_at:
                log.places.add(first_index, first_index, header.number, offset)
                place_due_at = offset + PLACE_BYTES
            add_entry(data[entry : entry + size])
        else:
            _add_frame(log, path, data, offset, header.number)
        chain = check
        sequence += 1
        last_offset = offset
        offset = end
    log.chain, log.sequence, log.salt, log.checksum = chain, sequence, salt, checksum
    log.last_frame_offset = last_offset
    return offset


def _add_frame(log: FoundLog, path: Path, data: bytes, offset: int, segment: int) -> None:
    try:
        hard_state, reset, runs = decode_body(data, offset)
        if hard_state is not None:
            log.hard_state = hard_state
        if reset is not None:
            log.reset(reset[0])
        if runs:
            log.places.add(min([run.first_index for run in runs]), log.next_index, segment, offset)
        for run in runs:
            log.add_run(run)
    except BadFrame as error:
        raise LogCorrupt(path, offset, str(error)) from error


def _judge_rest(path: Path, data: bytes, end: int, header: SegmentHeader, sequence: int) -> Torn | None:
    """Whether what stands behind the last valid frame of the last segment is nothing, torn, or damage.

    Nothing is zeros. In a file that is used again it is the zeros that were written behind the last frame, and behind
    those there may be frames of an earlier segment, whose numbers are lower than ``sequence``, the next frame's.
    """
    rest = data[end:]
    if rest == bytes(len(rest)):
        return None
    follower = find_frame(data, end, header.salt, sequence if header.is_reused else 0, header.checksum)
    if follower == end:
        raise LogCorrupt(path, end, "the frame there does not continue the one before it")
    if follower is not None:
        raise LogCorrupt(path, end, f"no valid frame stands there, and one follows at offset {follower}")
    if header.is_reused:
        if rest.startswith(_NO_HEAD):
            return None
        # What stands behind the frame isn't of this log.
        rest = rest[: FRAME_HEAD_BYTES + body_bytes_at(rest)]
    return Torn(path, end, len(rest.rstrip(b"\0")))


@attrs.frozen(slots=True)
class FoundSnapshots:
    """What the directory has of snapshots, by their headers and footers."""

    good: tuple[SnapshotMeta, ...]
    """Newest first."""
    damaged: tuple[tuple[int, int, SnapshotCorrupt], ...]
    """(index, term, what is wrong), newest first."""


def choose_snapshot(log: FoundLog, snapshots: FoundSnapshots) -> tuple[SnapshotMeta | None, bool]:
    """The snapshot to start from, and whether the log is stale beside it.

    Raises LogCorrupt, SnapshotCorrupt when snapshot and log together leave something out.
    """
    snapshot = snapshots.good[0] if snapshots.good else None
    snapshot_index = snapshot.index if snapshot is not None else 0
    newer = [damage for damage in snapshots.damaged if damage[0] > snapshot_index]
    if log.first_index > snapshot_index + 1:
        if newer:
            raise newer[0][2]
        path = log.segments[0].path
        missing = segment_path(path.parent, log.segments[0].number - 1)
        why = f"it is missing: {path.name} begins at entry {log.first_index}, the snapshot ends at {snapshot_index}"
        raise LogCorrupt(missing, 0, why)
    for index, term, damage in newer:
        if log.term_at(index) != term:
            raise damage
    if snapshot is None:
        return None, False
    if snapshot.index == log.first_index - 1:
        return snapshot, False
    return snapshot, log.term_at(snapshot.index) != snapshot.term
