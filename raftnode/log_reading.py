"""Reads single entries of the log back from their segment, for a follower that needs what isn't in memory any more.

All that is read was flushed, so whatever isn't as it was written is damage (LogCorrupt): there is nothing to be passed
over, as there is at the end of the log after a crash (:mod:`raftnode.recovery`).
"""

from __future__ import annotations

from pathlib import Path

from raftnode.disk_health import LogCorrupt
from raftnode.filesystem import FileSystem, OpenMode
from raftnode.frame_places import Place
from raftnode.log_frames import (
    FRAME_HEAD_BYTES,
    HEADER_BYTES,
    BadFrame,
    BadHeader,
    body_bytes_at,
    decode_body,
    decode_header,
    is_whole,
)


def read_entries(
    filesystem: FileSystem, path: Path, place: Place, end: int, first_index: int, last_index: int
) -> tuple[bytes, ...]:
    """The entries from ``first_index`` on, up to ``last_index`` at most, that stand from a place to an offset.

    Raises:
        LogCorrupt: the first of them isn't there, or anything is damaged.
        OSError: the file can't be read.
    """
    handle = filesystem.open(path, OpenMode.READ)
    try:
        header = decode_header(filesystem.read(handle, HEADER_BYTES, 0))
        data = filesystem.read(handle, end - place.offset, place.offset)
    except BadHeader as error:
        raise LogCorrupt(path, 0, str(error)) from error
    finally:
        filesystem.close(handle)
    entries: list[bytes] = []
    offset = 0
    while offset < len(data):
        try:
            if not is_whole(data, offset, header.salt, header.checksum):
                raise BadFrame("no valid frame stands there, where one was written")
            _add_entries(entries, data, offset, first_index, last_index)
        except BadFrame as error:
            raise LogCorrupt(path, place.offset + offset, str(error)) from error
        offset += FRAME_HEAD_BYTES + body_bytes_at(data[offset : offset + FRAME_HEAD_BYTES])
    if not entries:
        raise LogCorrupt(path, place.offset, f"entry {first_index} isn't there, where it was written")
    return tuple(entries)


def _add_entries(entries: list[bytes], data: bytes, offset: int, first_index: int, last_index: int) -> None:
    """Add a frame's entries, as far as they are wanted, in the place of those at their indexes.

    A run behind a gap doesn't count: one frame may go on, and back again to a lower index.
    """
    _, _, runs = decode_body(data, offset)
    for run in runs:
        skipped = max(first_index - run.first_index, 0)
        wanted = run.entries[skipped : max(last_index + 1 - run.first_index, 0)]
        position = run.first_index + skipped - first_index
        if wanted and position <= len(entries):
            entries[position:] = wanted
