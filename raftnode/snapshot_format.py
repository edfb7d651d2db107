"""How a snapshot looks on disk. Pure: bytes in, values out.

A file is a header, the chunks in the order in which they were given, and a footer::

    header   8s magic, u32 version, u32 0, 16s cluster hash, u64 index, u64 term, u32 0, u32 check of these
    chunk    u32 size_bytes, u32 check, the chunk
    footer   u32 0xFFFFFFFF, u32 check of all that follows, u64 index, u64 term, u64 chunks, u64 data bytes,
             u64 length of the whole file, u32 check of the data, 8s magic, u32 0

Numbers are little-endian. The check of a chunk is that of all chunks up to and including it, so one
that is missing or in another's place doesn't pass, and that of the last is the check of the data; the version says
what it is computed by (:mod:`raftnode.checksums`). Header and footer, whose own checks are CRC-32s, tell by
themselves, without reading the rest, that a file was written to its end.

A snapshot is sent between servers as it is, so the server's id is not in it.
"""

from __future__ import annotations

import struct
from zlib import crc32

import attrs

from raftnode.checksums import CHECKSUMS, FORMAT_VERSION, Checksum

MAGIC = b"QuintSnp"
_HEADER = struct.Struct("<8sI4x16sQQ4x")
_HEADER_CHECK = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _HEADER_CHECK.size
CHUNK_HEAD = struct.Struct("<II")
CHUNK_BYTES_MAX = 2**31
FOOTER_MARK = 0xFFFFFFFF
_FOOTER = struct.Struct("<QQQQQI8s4x")
FOOTER_BYTES = CHUNK_HEAD.size + _FOOTER.size


class BadSnapshot(Exception):
    """A part of a snapshot is damaged; the argument says what."""


def encode_header(cluster_hash: bytes, index: int, term: int) -> bytes:
    """The first bytes of the file."""
    data = _HEADER.pack(MAGIC, FORMAT_VERSION, cluster_hash, index, term)
    return data + _HEADER_CHECK.pack(crc32(data))


def check_header(data: bytes, cluster_hash: bytes, index: int, term: int) -> Checksum:
    """What the chunks are checked by. Raises BadSnapshot if that isn't the header of that snapshot."""
    if len(data) < HEADER_BYTES or _HEADER_CHECK.unpack_from(data, _HEADER.size)[0] != crc32(data[: _HEADER.size]):
        raise BadSnapshot("its header is damaged")
    magic, version, found_hash, found_index, found_term = _HEADER.unpack_from(data)
    if magic != MAGIC or version not in CHECKSUMS:
        raise BadSnapshot("it is of an unknown format")
    if found_hash != cluster_hash:
        raise BadSnapshot("it belongs to another cluster")
    if (found_index, found_term) != (index, term):
        raise BadSnapshot(f"it is the snapshot of entry {found_index} of term {found_term}")
    return CHECKSUMS[version]


@attrs.frozen(slots=True)
class Footer:
    """The last bytes of the file."""

    index: int
    term: int
    chunk_count: int
    data_bytes: int
    size_bytes: int
    """The length of the whole file."""
    data_check: int

    def encode(self) -> bytes:
        """The footer as it is written."""
        data = _FOOTER.pack(
            self.index, self.term, self.chunk_count, self.data_bytes, self.size_bytes, self.data_check, MAGIC
        )
        return CHUNK_HEAD.pack(FOOTER_MARK, crc32(data)) + data


def decode_footer(data: bytes) -> Footer:
    """Reads a footer. Raises BadSnapshot."""
    if len(data) != FOOTER_BYTES:
        raise BadSnapshot("its footer is cut off")
    mark, check = CHUNK_HEAD.unpack_from(data)
    if mark != FOOTER_MARK or check != crc32(data[CHUNK_HEAD.size :]):
        raise BadSnapshot("its footer is damaged")
    index, term, chunk_count, data_bytes, size_bytes, data_check, magic = _FOOTER.unpack_from(data, CHUNK_HEAD.size)
    if magic != MAGIC:
        raise BadSnapshot("its footer is of an unknown format")
    return Footer(index, term, chunk_count, data_bytes, size_bytes, data_check)
