"""Appending to a file past the page cache.

A log is written once, flushed at once, and read again only after a restart. Through the page cache every such write
copies into cold pages and then has them written back; without it (``O_DIRECT``) the disk takes the bytes from our own
buffer, which stays warm. That is less processor time for every flushed write, the more the bigger it is.

Direct writes go in whole blocks from aligned memory. So an append writes the block that it begins in once more, with
what was in it, and fills its last block up with zeros. The bytes that were there before go over themselves: a
write that is torn leaves of each sector either the old state or the new one, and both have them.

A system, or a file system, that knows no direct writes gets plain ones.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Sequence
from typing import Final

from raftnode.buffers import Chunk

BLOCK_BYTES: Final = 4096
"""What offsets and lengths are multiples of. What wants more than that refuses the write, and gets plain ones."""
BUFFER_BYTES: Final = 1024 * 1024
_FLAG: Final[int] = getattr(os, "O_DIRECT", 0)
_ZEROS: Final = bytes(2 * BLOCK_BYTES)
ZEROS_BEHIND_MAX: Final = BLOCK_BYTES
"""Most zeros that an append can be told to write behind what it writes."""


class DirectFile:
    """An open file in direct mode; made by :func:`make_direct`. For one thread at a time."""

    __slots__ = ("_buffer", "_end", "_handle", "_write_flags")

    def __init__(self, handle: int, write_flags: int) -> None:
        self._handle = handle
        self._write_flags = write_flags
        self._buffer = memoryview(mmap.mmap(-1, BUFFER_BYTES + ZEROS_BEHIND_MAX))
        self._end: int | None = None
        """Where the last append ended, if the buffer begins with what is in the block there."""

    def append(self, buffers: Sequence[Chunk], offset: int, zeros_behind: int) -> None:
        """Write the buffers one behind the other, and zeros: so many at least, and up to a block bound.

        Raises:
            OSError: with any part of it written.
        """
        start = offset - offset % BLOCK_BYTES
        if offset != self._end:
            self._read_block(start, offset - start)
        self._end = None
        buffer, filled = self._buffer, offset - start
        for data in buffers:
            view = memoryview(data)
            while len(view) > BUFFER_BYTES - filled:
                taken = BUFFER_BYTES - filled
                buffer[filled:BUFFER_BYTES] = view[:taken]
                self._write(BUFFER_BYTES, start)
                start += BUFFER_BYTES
                view = view[taken:]
                filled = 0
            buffer[filled : filled + len(view)] = view
            filled += len(view)
        written_end = filled + zeros_behind
        written_end += -written_end % BLOCK_BYTES
        if written_end:
            buffer[filled:written_end] = _ZEROS[: written_end - filled]
            self._write(written_end, start)
        kept_bytes = filled % BLOCK_BYTES
        if kept_bytes:
            buffer[:kept_bytes] = buffer[filled - kept_bytes : filled]
        self._end = start + filled

    def _read_block(self, start: int, wanted_bytes: int) -> None:
        """Fill the buffer's beginning with what the block holds."""
        got = os.preadv(self._handle, [self._buffer[:BLOCK_BYTES]], start) if wanted_bytes else 0
        if got < wanted_bytes:
            self._buffer[got:wanted_bytes] = _ZEROS[: wanted_bytes - got]

    def _write(self, size_bytes: int, start: int) -> None:
        """Write the first part of the buffer, whole blocks."""
        written = os.pwritev(self._handle, [self._buffer[:size_bytes]], start, self._write_flags)
        while written < size_bytes:
            # Only whole blocks can be gone on from.
            written -= written % BLOCK_BYTES
            more = os.pwritev(self._handle, [self._buffer[written:size_bytes]], start + written, self._write_flags)
            if more < BLOCK_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written += more


def make_direct(handle: int, write_flags: int) -> DirectFile | None:
    """Put an open file into direct mode; None where that can't be."""
    if not _FLAG:
        return None
    try:
        fcntl.fcntl(handle, fcntl.F_SETFL, fcntl.fcntl(handle, fcntl.F_GETFL) | _FLAG)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return None
    return DirectFile(handle, write_flags)


def make_plain(handle: int) -> None:
    """Take an open file out of direct mode."""
    fcntl.fcntl(handle, fcntl.F_SETFL, fcntl.fcntl(handle, fcntl.F_GETFL) & ~_FLAG)
