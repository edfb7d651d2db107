"""Every call that storage makes to the operating system, behind one protocol.

Theory of operation
-------------------
Storage never calls ``os`` itself: it is handed a :class:`FileSystem`. :class:`OsFileSystem` is the real
one; :class:`raftnode.simulated_disk.SimulatedDisk` keeps files in memory, fails where it is told to and
loses what was not flushed. So each test of storage can run on either, and a simulator can cut the power
between any two calls.

All calls block, and may be made from worker threads. Errors are plain :class:`OSError`, as the operating
system raises them: what they mean for the data is decided by the caller
(:mod:`raftnode.disk_health`).

A write says whether it is to be flushed. Where the operating system can do both in one call
(``pwritev`` with ``RWF_DSYNC``), it is one call: on Linux that saves a system call a write, and the
flush covers what was written and the length of the file, nothing more.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from raftnode.buffers import Chunk
from raftnode.direct_io import DirectFile, make_direct, make_plain

BUFFERS_MAX = 1024
"""The most buffers that one write takes (IOV_MAX on Linux)."""

_FLUSHING_WRITE: int = getattr(os, "RWF_DSYNC", 0)


class OpenMode(enum.Enum):
    """What a file is opened for."""

    READ = enum.auto()
    """It must exist."""
    WRITE = enum.auto()
    """To read and to write; it must exist."""
    CREATE = enum.auto()
    """To read and to write; it must not exist."""


class FileSystem(Protocol):
    """What storage needs of an operating system. Every method may raise OSError."""

    def open(self, path: Path, mode: OpenMode) -> int:
        """Opens a file; the handle is to be closed."""

    def close(self, handle: int) -> None:
        """Closes a handle; what was written through it stays written, but is not flushed by this."""

    def read(self, handle: int, size_bytes: int, offset: int) -> bytes:
        """That many bytes, fewer only at the end of the file."""

    def write(self, handle: int, buffers: Sequence[Chunk], offset: int, *, flush: bool) -> int:
        """Writes at most BUFFERS_MAX buffers one behind the other; returns how many bytes, perhaps fewer than given.

        With ``flush``, they and the file's length are on disk when it returns.
        """

    def append(self, handle: int, buffers: Sequence[Chunk], offset: int, *, zeros_behind: int = 0) -> None:
        """Writes all of the buffers one behind the other; they and the file's length are on disk when it returns.

        For a file that is written from its beginning to its end: so many bytes behind them become zeros (at most
        ZEROS_BEHIND_MAX), perhaps all up to the next multiple of BLOCK_BYTES, and the file so long. When it fails, any
        part of it may have been written.
        """

    def flush(self, handle: int) -> None:
        """All that was written to the file, and its length, is on disk when it returns (fdatasync)."""

    def truncate(self, handle: int, size_bytes: int) -> None:
        """Sets the file's length; not flushed."""

    def size(self, handle: int) -> int:
        """The file's length in bytes."""

    def rename(self, source: Path, target: Path) -> None:
        """Gives a file another name, in the place of the file that had it; not flushed."""

    def unlink(self, path: Path) -> None:
        """Removes a name; not flushed."""

    def list_directory(self, path: Path) -> list[str]:
        """The names in a directory, in no order."""

    def make_directory(self, path: Path) -> None:
        """Makes a directory and those above it where they are missing, flushed; fine if it is there."""

    def flush_directory(self, path: Path) -> None:
        """All names made, changed and removed in the directory are on disk when it returns."""

    def lock(self, path: Path) -> int:
        """Takes the exclusive lock of a file, made if missing; closing the handle gives it back.

        Raises BlockingIOError at once if somebody else has it.
        """

    def random_bytes(self, size_bytes: int) -> bytes:
        """Bytes that nobody can guess."""


class OsFileSystem:
    """The real thing. Files that are appended to go past the page cache (:mod:`raftnode.direct_io`)."""

    def __init__(self) -> None:
        self._appended: dict[int, DirectFile | None] = {}
        """What has been appended to, by handle; None where the system has no direct writes."""

    def open(self, path: Path, mode: OpenMode) -> int:
        """See FileSystem."""
        flags = {
            OpenMode.READ: os.O_RDONLY,
            OpenMode.WRITE: os.O_RDWR,
            OpenMode.CREATE: os.O_RDWR | os.O_CREAT | os.O_EXCL,
        }[mode]
        return os.open(path, flags | os.O_CLOEXEC, 0o640)

    def close(self, handle: int) -> None:
        """See FileSystem."""
        self._appended.pop(handle, None)
        os.close(handle)

    def read(self, handle: int, size_bytes: int, offset: int) -> bytes:
        """See FileSystem."""
        self._end_appending(handle)
        data = os.pread(handle, size_bytes, offset)
        if len(data) == size_bytes or not data:
            return data
        # One call reads at most 2 GiB, and a signal may cut it short.
        pieces = [data]
        got = len(data)
        while got < size_bytes:
            data = os.pread(handle, size_bytes - got, offset + got)
            if not data:
                break
            pieces.append(data)
            got += len(data)
        return b"".join(pieces)

    def write(self, handle: int, buffers: Sequence[Chunk], offset: int, *, flush: bool) -> int:
        """See FileSystem."""
        self._end_appending(handle)
        if not flush:
            return os.pwritev(handle, buffers, offset)
        if _FLUSHING_WRITE:
            return os.pwritev(handle, buffers, offset, _FLUSHING_WRITE)
        written = os.pwritev(handle, buffers, offset)
        os.fdatasync(handle)
        return written

    def append(self, handle: int, buffers: Sequence[Chunk], offset: int, *, zeros_behind: int = 0) -> None:
        """See FileSystem."""
        try:
            direct = self._appended[handle]
        except KeyError:
            direct = self._appended[handle] = make_direct(handle, _FLUSHING_WRITE) if _FLUSHING_WRITE else None
        if direct is not None:
            try:
                direct.append(buffers, offset, zeros_behind)
                return
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
            # It was let into direct mode, and has no direct writes all the same.
            make_plain(handle)
            self._appended[handle] = None
        write_all(self, handle, [*buffers, bytes(zeros_behind)], offset, flush=True)

    def _end_appending(self, handle: int) -> None:
        """Before other calls than appends: take the file out of direct mode, in which they wouldn't work."""
        if self._appended.get(handle) is not None:
            del self._appended[handle]
            make_plain(handle)

    def flush(self, handle: int) -> None:
        """See FileSystem."""
        os.fdatasync(handle)

    def truncate(self, handle: int, size_bytes: int) -> None:
        """See FileSystem."""
        os.ftruncate(handle, size_bytes)

    def size(self, handle: int) -> int:
        """See FileSystem."""
        return os.fstat(handle).st_size

    def rename(self, source: Path, target: Path) -> None:
        """See FileSystem."""
        os.rename(source, target)

    def unlink(self, path: Path) -> None:
        """See FileSystem."""
        os.unlink(path)

    def list_directory(self, path: Path) -> list[str]:
        """See FileSystem."""
        return os.listdir(path)

    def make_directory(self, path: Path) -> None:
        """See FileSystem."""
        if path.is_dir():
            return
        self.make_directory(path.parent)
        # Another process may make it in this moment.
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o750)
        self.flush_directory(path.parent)

    def flush_directory(self, path: Path) -> None:
        """See FileSystem."""
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def lock(self, path: Path) -> int:
        """See FileSystem."""
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(handle)
            raise
        return handle

    def random_bytes(self, size_bytes: int) -> bytes:
        """See FileSystem."""
        return os.urandom(size_bytes)


def write_all(filesystem: FileSystem, handle: int, buffers: Sequence[Chunk], offset: int, *, flush: bool) -> None:
    """Writes all of the buffers, in as few calls as it takes.

    With ``flush`` each call flushes what it wrote, so a write cut short is flushed too when this returns.
    Raises OSError, with any part of it written.
    """
    size_bytes = sum(map(len, buffers))
    written = filesystem.write(handle, buffers[:BUFFERS_MAX], offset, flush=flush)
    while written < size_bytes:
        buffers = _after(buffers, written)
        size_bytes -= written
        offset += written
        written = filesystem.write(handle, buffers[:BUFFERS_MAX], offset, flush=flush)


def _after(buffers: Sequence[Chunk], skip_bytes: int) -> list[Chunk]:
    """What is left of the buffers behind so many bytes."""
    for position, buffer in enumerate(buffers):
        if skip_bytes < len(buffer):
            return [memoryview(buffer)[skip_bytes:], *buffers[position + 1 :]]
        skip_bytes -= len(buffer)
    raise AssertionError("more was written than was given")
