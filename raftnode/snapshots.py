"""Snapshots on disk: written, received, read, sent; the two newest are kept.

Theory of operation
-------------------
A snapshot is written under a temporary name, flushed, renamed, and the directory flushed. Only then does
anybody hear of it (:class:`~raftnode.storage_values.SnapshotMeta`), and only then may the log before it go.
So a file with a snapshot's name was complete once: if it isn't now, it is damaged, not torn.

What it costs to look at one when storage is opened doesn't depend on its size: header and footer are checked
then, each chunk when it is read. A snapshot received from the leader is checked as a whole before it gets
its name.

Calls may be made from worker threads, while the log is written to. One writer, receiver or reader belongs
to one thread at a time; several of them may be in use at once.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Collection, Generator, Iterator, Sequence
from pathlib import Path

from raftnode.checksums import CHECKSUM, Checksum
from raftnode.disk_health import DiskFailed, DiskFull, DiskHealth, SnapshotCorrupt, SnapshotGone
from raftnode.filesystem import FileSystem, OpenMode, write_all
from raftnode.recovery import FoundSnapshots
from raftnode.snapshot_format import (
    CHUNK_BYTES_MAX,
    CHUNK_HEAD,
    FOOTER_BYTES,
    FOOTER_MARK,
    HEADER_BYTES,
    BadSnapshot,
    Footer,
    check_header,
    decode_footer,
    encode_header,
)
from raftnode.storage_values import SnapshotMeta, StorageIdentity

KEPT = 2
"""How many snapshots are kept. The older one is there for the day when the newer one turns out damaged."""

_BUFFERED_BYTES_MAX = 1024 * 1024
_NAME = re.compile(r"snapshot-([0-9]{16})-([0-9]{16})\.snap")


def snapshot_path(directory: Path, index: int, term: int) -> Path:
    """Where the snapshot that ends with that entry is kept."""
    return directory / f"snapshot-{index:016d}-{term:016d}.snap"


def find_snapshots(
    filesystem: FileSystem,
    directory: Path,
    names: Sequence[str],
    identity: StorageIdentity,
    distrusted: Collection[Path],
) -> FoundSnapshots:
    """Looks at the headers and footers of all snapshots; those that are distrusted count as damaged.

    Raises OSError.
    """
    good: list[SnapshotMeta] = []
    damaged: list[tuple[int, int, SnapshotCorrupt]] = []
    matches = [match for name in names if (match := _NAME.fullmatch(name))]
    for index, term in sorted(((int(match[1]), int(match[2])) for match in matches), reverse=True):
        path = snapshot_path(directory, index, term)
        if path in distrusted:
            damaged.append((index, term, SnapshotCorrupt(path, 0, "it was found damaged when it was read")))
            continue
        handle = filesystem.open(path, OpenMode.READ)
        try:
            footer, _ = _check_ends(filesystem, handle, path, identity, (index, term))
            good.append(SnapshotMeta(index, term, footer.size_bytes, path))
        except SnapshotCorrupt as error:
            damaged.append((index, term, error))
        finally:
            filesystem.close(handle)
    return FoundSnapshots(tuple(good), tuple(damaged))


class SnapshotStore:
    """The snapshots of one server. Made by Storage."""

    def __init__(
        self,
        filesystem: FileSystem,
        directory: Path,
        identity: StorageIdentity,
        health: DiskHealth,
        found: FoundSnapshots,
    ) -> None:
        self._filesystem = filesystem
        self._directory = directory
        self._identity = identity
        self._health = health
        self._kept = sorted(found.good, key=_by_index)
        self._damaged = [(index, damage.path) for index, _, damage in found.damaged]
        self._lock = threading.Lock()
        self._temporary_number = 0

    @property
    def latest(self) -> SnapshotMeta | None:
        """The newest snapshot; None if there is none."""
        with self._lock:
            return self._kept[-1] if self._kept else None

    def create(self, index: int, term: int) -> SnapshotWriter:
        """Begins a snapshot of the state after that entry. Raises DiskFull, DiskFailed."""
        file = self._create_temporary()
        return SnapshotWriter(self, file, encode_header(self._identity.cluster_hash, index, term), index, term)

    def receive(self, index: int, term: int) -> SnapshotReceiver:
        """Begins to take in a snapshot that another server has. Raises DiskFull, DiskFailed."""
        return SnapshotReceiver(self, self._create_temporary(), index, term)

    def read(self, meta: SnapshotMeta) -> Generator[bytes, None, None]:
        """The chunks, each as it was given to the writer. A chunk is given out only if it is undamaged.

        The end of the iteration says that nothing is missing. Raises SnapshotCorrupt, SnapshotGone, DiskFailed.
        """
        with self._reading(meta.path) as handle:
            yield from _read_chunks(self._filesystem, handle, meta.path, self._identity, (meta.index, meta.term))

    def check(self, meta: SnapshotMeta) -> None:
        """Reads all of it. Raises SnapshotCorrupt, SnapshotGone, DiskFailed."""
        for _ in self.read(meta):
            pass

    def read_raw(self, meta: SnapshotMeta, offset: int, length_bytes: int) -> bytes:
        """A piece of the file, to be sent to another server; shorter only at the end.

        Nothing is checked: the receiver does that. Raises SnapshotGone, DiskFailed.
        """
        with self._reading(meta.path) as handle:
            return self._filesystem.read(handle, length_bytes, offset)

    @contextlib.contextmanager
    def _reading(self, path: Path) -> Iterator[int]:
        try:
            handle = self._filesystem.open(path, OpenMode.READ)
        except FileNotFoundError as error:
            raise SnapshotGone(f"{path} is no longer kept") from error
        except OSError as error:
            raise self._health.failed("opening", path, error) from error
        try:
            yield handle
        except OSError as error:
            raise self._health.failed("reading", path, error) from error
        finally:
            self._filesystem.close(handle)

    def _create_temporary(self) -> _TemporaryFile:
        self._health.require()
        with self._lock:
            self._temporary_number += 1
            path = self._directory / f"snapshot-{self._temporary_number}.tmp"
        return _TemporaryFile(self._filesystem, path, self._health)

    def publish(self, file: _TemporaryFile, index: int, term: int, size_bytes: int) -> SnapshotMeta:
        """Gives a complete and flushed file its name, and removes what is no longer kept. For writer and receiver."""
        meta = SnapshotMeta(index, term, size_bytes, snapshot_path(self._directory, index, term))
        file.rename(meta.path)
        try:
            self._filesystem.flush_directory(self._directory)
        except OSError as error:
            raise self._health.failed("flushing", self._directory, error) from error
        with self._lock:
            metas = [kept for kept in self._kept if kept.path != meta.path]
            metas = sorted([*metas, meta], key=_by_index)
            self._kept = metas[-KEPT:]
            # Damaged ones are left for a person to look at until the state has moved on.
            surplus = [kept.path for kept in metas[:-KEPT]]
            surplus += [path for damaged_index, path in self._damaged if damaged_index < index]
            self._damaged = [(damaged, path) for damaged, path in self._damaged if damaged > index]
        for path in surplus:
            try:
                self._filesystem.unlink(path)
            except OSError as error:
                raise self._health.failed("removing", path, error) from error
        return meta

    def verify(self, file: _TemporaryFile, index: int, term: int) -> int:
        """Reads all of a received file; returns its length. Raises SnapshotCorrupt, DiskFailed. For the receiver."""
        try:
            for _ in _read_chunks(self._filesystem, file.handle, file.path, self._identity, (index, term)):
                pass
            return self._filesystem.size(file.handle)
        except OSError as error:
            raise self._health.failed("reading", file.path, error) from error


def _by_index(meta: SnapshotMeta) -> tuple[int, int]:
    return meta.index, meta.term


class _TemporaryFile:
    """A snapshot to be. Errors remove it, if they can: after a failed flush nobody knows what it holds."""

    def __init__(self, filesystem: FileSystem, path: Path, health: DiskHealth) -> None:
        self._filesystem = filesystem
        self._health = health
        self.path = path
        try:
            self.handle = filesystem.open(path, OpenMode.CREATE)
        except OSError as error:
            raise health.error_for("creating", path, error) from error
        self._open = True

    def write(self, buffers: list[bytes], offset: int) -> None:
        """Writes, and flushes."""
        self._require_open()
        try:
            write_all(self._filesystem, self.handle, buffers, offset, flush=True)
        except OSError as error:
            raise self._error(error) from error

    def write_only(self, data: bytes, offset: int) -> None:
        """Writes without a flush. After DiskFull it can be written again: no flush has failed."""
        self._require_open()
        try:
            write_all(self._filesystem, self.handle, [data], offset, flush=False)
        except OSError as error:
            failure = self._health.error_for("writing", self.path, error)
            if isinstance(failure, DiskFailed):
                self.remove()
            raise failure from error

    def flush(self) -> None:
        self._require_open()
        try:
            self._filesystem.flush(self.handle)
        except OSError as error:
            raise self._error(error) from error

    def rename(self, target: Path) -> None:
        """Gives it its name and closes it."""
        self._require_open()
        try:
            self._filesystem.rename(self.path, target)
        except OSError as error:
            raise self._error(error) from error
        self._open = False
        self._filesystem.close(self.handle)

    def remove(self) -> None:
        """Closes and removes it, if that isn't done; what can't be removed goes when storage is next opened."""
        if self._open:
            self._open = False
            with contextlib.suppress(OSError):
                self._filesystem.close(self.handle)
                self._filesystem.unlink(self.path)

    def _require_open(self) -> None:
        if not self._open:
            raise ValueError(f"{self.path} is done with")
        self._health.require()

    def _error(self, error: OSError) -> DiskFull | DiskFailed:
        self.remove()
        return self._health.error_for("writing", self.path, error)


class SnapshotWriter:
    """A snapshot being written. It counts only when :meth:`commit` has returned."""

    def __init__(self, store: SnapshotStore, file: _TemporaryFile, header: bytes, index: int, term: int) -> None:
        self._store = store
        self._file = file
        self._index = index
        self._term = term
        self._buffered = [header]
        self._buffered_bytes = len(header)
        self._written_bytes = 0
        self._chunk_count = 0
        self._data_bytes = 0
        self._data_check = 0

    def append(self, chunk: bytes) -> None:
        """Adds a chunk. Raises DiskFull, DiskFailed: then the snapshot is removed."""
        if len(chunk) > CHUNK_BYTES_MAX:
            raise ValueError(f"a chunk of {len(chunk)} bytes is too big")
        self._data_check = CHECKSUM(chunk, self._data_check)
        self._data_bytes += len(chunk)
        self._chunk_count += 1
        self._buffered += CHUNK_HEAD.pack(len(chunk), self._data_check), chunk
        self._buffered_bytes += CHUNK_HEAD.size + len(chunk)
        if self._buffered_bytes >= _BUFFERED_BYTES_MAX:
            self._write_buffered()

    def commit(self) -> SnapshotMeta:
        """Makes it durable, and removes the oldest if there are more than two. Raises DiskFull, DiskFailed."""
        size_bytes = self._written_bytes + self._buffered_bytes + FOOTER_BYTES
        footer = Footer(
            self._index, self._term, self._chunk_count, self._data_bytes, size_bytes, self._data_check
        ).encode()
        self._buffered.append(footer)
        self._buffered_bytes += len(footer)
        self._write_buffered()
        self._file.flush()
        return self._store.publish(self._file, self._index, self._term, size_bytes)

    def abort(self) -> None:
        """Removes it. Does nothing after commit, or when it is removed already."""
        self._buffered.clear()
        self._file.remove()

    def _write_buffered(self) -> None:
        # Flushed piece by piece, so that a save of the log never waits behind the flush of a whole snapshot.
        self._file.write(self._buffered, self._written_bytes)
        self._written_bytes += self._buffered_bytes
        self._buffered = []
        self._buffered_bytes = 0


class SnapshotReceiver:
    """A snapshot being taken in from another server, piece by piece. It counts only when finish has returned."""

    def __init__(self, store: SnapshotStore, file: _TemporaryFile, index: int, term: int) -> None:
        self._store = store
        self._file = file
        self._index = index
        self._term = term
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        """How much has come: the offset of the next piece."""
        return self._size_bytes

    def write(self, offset: int, data: bytes) -> None:
        """Takes in a piece, which may repeat what came before, but not leave a gap (ValueError).

        Raises DiskFull: the piece may be written again when there is room, or the whole given up with abort.
        Raises DiskFailed: all of it is removed.
        """
        if not 0 <= offset <= self._size_bytes:
            raise ValueError(f"a piece at {offset}, and only {self._size_bytes} bytes have come")
        self._file.write_only(data, offset)
        self._size_bytes = max(self._size_bytes, offset + len(data))

    def finish(self) -> SnapshotMeta:
        """Checks all of it and makes it durable. Takes as long as reading it does.

        Raises SnapshotCorrupt, DiskFull, DiskFailed: then all of it is removed.
        """
        self._file.flush()
        try:
            size_bytes = self._store.verify(self._file, self._index, self._term)
        except (SnapshotCorrupt, DiskFailed):
            self._file.remove()
            raise
        return self._store.publish(self._file, self._index, self._term, size_bytes)

    def abort(self) -> None:
        """Removes it. Does nothing after finish, or when it is removed already."""
        self._file.remove()


def _check_ends(
    filesystem: FileSystem, handle: int, path: Path, identity: StorageIdentity, entry: tuple[int, int]
) -> tuple[Footer, Checksum]:
    """Checks header and footer of a snapshot that ends with that (index, term). Raises SnapshotCorrupt, OSError.

    Returns the footer, and what chunks are checked by.
    """
    try:
        checksum = check_header(filesystem.read(handle, HEADER_BYTES, 0), identity.cluster_hash, *entry)
    except BadSnapshot as error:
        raise SnapshotCorrupt(path, 0, str(error)) from error
    size_bytes = filesystem.size(handle)
    footer_offset = max(size_bytes - FOOTER_BYTES, HEADER_BYTES)
    try:
        footer = decode_footer(filesystem.read(handle, FOOTER_BYTES, footer_offset))
        if (footer.index, footer.term, footer.size_bytes) != (*entry, size_bytes):
            raise BadSnapshot("its footer belongs to another file")
    except BadSnapshot as error:
        raise SnapshotCorrupt(path, footer_offset, str(error)) from error
    return footer, checksum


def _read_chunks(
    filesystem: FileSystem, handle: int, path: Path, identity: StorageIdentity, entry: tuple[int, int]
) -> Iterator[bytes]:
    """The chunks of a snapshot, checked. Raises SnapshotCorrupt, OSError."""
    footer, checksum = _check_ends(filesystem, handle, path, identity, entry)
    end = footer.size_bytes - FOOTER_BYTES
    offset = HEADER_BYTES
    check = count = data_bytes = 0
    head = filesystem.read(handle, CHUNK_HEAD.size, offset)
    while True:
        size_bytes, chunk_check = CHUNK_HEAD.unpack(head)
        if size_bytes == FOOTER_MARK:
            break
        begin = offset + CHUNK_HEAD.size
        if begin + size_bytes > end:
            raise SnapshotCorrupt(path, offset, "a chunk goes past the end")
        data = filesystem.read(handle, size_bytes + CHUNK_HEAD.size, begin)
        chunk, head = data[:size_bytes], data[size_bytes:]
        check = checksum(chunk, check)
        if check != chunk_check or len(head) != CHUNK_HEAD.size:
            raise SnapshotCorrupt(path, offset, "a chunk's checksum is wrong")
        yield chunk
        offset = begin + size_bytes
        count += 1
        data_bytes += size_bytes
    if (offset, count, data_bytes, check) != (end, footer.chunk_count, footer.data_bytes, footer.data_check):
        raise SnapshotCorrupt(path, offset, "chunks are missing")
