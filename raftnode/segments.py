"""Segment files of the log: their names, how they grow, and how they come into being.

Invariant: a file that has a segment's name has a whole header on disk. It is filled and flushed under
another name, and renamed then, so no crash leaves a segment that was only begun; and what stands under the
other name is removed when storage is next opened.

A segment is filled with zeros and flushed ahead of its use, or was a segment before (:mod:`raftnode.spare_segments`):
a flush of data that goes over written blocks changes no metadata, and takes half the time of one that makes the file
longer. Sizes double from SIZE_BYTES_MIN to SIZE_BYTES_MAX, so that a small cluster stays small on disk.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import attrs

from raftnode.buffers import Chunk
from raftnode.filesystem import FileSystem, OpenMode
from raftnode.log_frames import FRAME_HEAD_BYTES

SIZE_BYTES_MIN = 256 * 1024
SIZE_BYTES_MAX = 16 * 1024 * 1024
TEMPORARY_NAME = "log-next.tmp"
_FILL_BYTES = 1024 * 1024
_NAME = re.compile(r"log-([0-9]{16})\.seg")


@attrs.define
class Segment:
    """A segment in the row; the last one of the row is the one that is written to."""

    number: int
    path: Path
    size_bytes: int
    """Up to the end of its last frame."""
    end_index: int
    """No entry at this index or above is to be found in it that still counts."""


@attrs.frozen(slots=True)
class Blank:
    """A file whose blocks have all been written and flushed, zeros mostly, so that it can become a segment."""

    handle: int
    path: Path
    size_bytes: int
    is_reused: bool = False
    """It was a segment before, and isn't all zeros."""


def segment_path(directory: Path, number: int) -> Path:
    """Where the segment of that number is kept."""
    return directory / f"log-{number:016d}.seg"


def segment_number(name: str) -> int | None:
    """The number of the segment with that file name; None for other files."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def next_size_bytes(size_bytes: int) -> int:
    """How long to make the segment that follows one of that size."""
    return min(max(2 * size_bytes, SIZE_BYTES_MIN), SIZE_BYTES_MAX)


def make_blank(filesystem: FileSystem, directory: Path, size_bytes: int) -> Blank:
    """Makes a file of zeros and flushes it piece by piece, so that no other flush has to wait long behind it.

    Raises OSError, with nothing left of it on the disk where that can be had.
    """
    path = directory / TEMPORARY_NAME
    handle = filesystem.open(path, OpenMode.CREATE)
    zeros = bytes(min(size_bytes, _FILL_BYTES))
    try:
        for offset in range(0, size_bytes, _FILL_BYTES):
            piece = memoryview(zeros)[: size_bytes - offset]
            filesystem.append(handle, [piece], offset)
    except OSError:
        discard(filesystem, Blank(handle, path, size_bytes))
        raise
    return Blank(handle, path, size_bytes)


def discard(filesystem: FileSystem, blank: Blank) -> None:
    """Removes a blank that isn't needed. Raises OSError."""
    filesystem.close(blank.handle)
    filesystem.unlink(blank.path)


def write_blank(filesystem: FileSystem, blank: Blank, buffers: Sequence[Chunk]) -> None:
    """Writes what a segment begins with, and flushes it. Raises OSError, with the blank as good as before."""
    end = sum(map(len, buffers))
    filesystem.append(blank.handle, buffers, 0, zeros_behind=end_zeros(end, blank.size_bytes))


def end_zeros(end: int, capacity_bytes: int) -> int:
    """How many zeros to write behind the end of the log: so many that nobody sees a frame there, within the file."""
    return max(min(FRAME_HEAD_BYTES, capacity_bytes - end), 0)
