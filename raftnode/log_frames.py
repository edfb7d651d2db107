"""How the log looks on disk: segment headers and frames. Pure: bytes in, values out.

Theory of operation
-------------------
A segment file is a header of HEADER_BYTES and frames behind it. One frame is what one save wrote with
one flush: a hard state, a reset, runs of entries, any of them or all. It counts as a whole or not at all.
Numbers are little-endian; a frame begins on a multiple of 8 bytes.

A frame::

    u32 magic
    u32 check       CRC-32C of everything that follows, the padding included
    u32 head_check  CRC-32C of the rest of the head alone
    u32 previous    the check of the frame before it (of a segment's first: the header's ``chain``)
    u32 body_bytes  with the padding to a multiple of 8
    u16 flags       HARD_STATE, RESET
    u16 runs        how many
    u64 sequence    number of this frame in the whole log, no gaps
    --- body
    [u64 current_term, u64 voted_for (0: nobody)]          if HARD_STATE
    [u64 index, u64 term]                                  if RESET: the log is now empty and begins after this
    runs x (u64 first_index, u64 term, u32 count, u32 0, count x u32 sizes, the entries one behind the other)

An entry at an index that was written before replaces what stood there, and all that stood behind it is gone.
So truncation destroys nothing, and comes to disk in the same flush as what replaces the truncated entries.

Both checks start from the segment's ``salt``, random bytes that are only in its header. Without it, a client
could store a file whose content looks like a frame; after a crash in the middle of writing that, the
search for valid frames behind the torn one (:mod:`raftnode.recovery`) would find it and report
corruption. ``head_check`` makes that search fast: a wrong head costs no CRC over what it claims as body.
It stands before what it is over, and must: a CRC over bytes and their own CRC behind them is the same number
whatever the bytes are, so ``check`` would not depend on the head, nor on the salt.

``previous`` chains each frame to the one before, over the ends of segments, so neither a frame left by an
earlier use of the same blocks nor one missing from the row can go unnoticed. A segment may be written over an earlier
one: its last frame is followed by as many zeros as a head has bytes, or by nothing, and what stands behind those has
another salt and lower sequence numbers.

Format 1, of earlier versions, differs in what its frames are checked by (:mod:`raftnode.checksums`). A log whose last
segment is of it goes on in a new one, of the present format.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from zlib import crc32

import attrs

from raftnode.buffers import Chunk, gathered
from raftnode.checksums import CHECKSUM, CHECKSUMS, FORMAT_VERSION, Checksum
from raftnode.storage_values import VOTED_FOR_NOBODY, StorageIdentity
from statemachine.events import EntriesRun, HardState
from statemachine.values import value

ALIGNMENT_BYTES = 8

HEADER_BYTES = 128
HEADER_MAGIC = b"QuintLog"
_HEADER = struct.Struct("<8sI4x16sQQIIQQQQQB27x")  # then u32: the CRC-32 of all of it
_CHECK = struct.Struct("<I")

FRAME_MAGIC = 0x9E4D5246
FRAME_MAGIC_BYTES = _CHECK.pack(FRAME_MAGIC)
FRAME_HEAD = struct.Struct("<IIIIIHHQ")
FRAME_HEAD_BYTES = FRAME_HEAD.size
CHECKED_FROM = 8
"""Where in a frame the part begins that its check is over."""
BODY_BYTES_MAX = 2**32 - ALIGNMENT_BYTES
RUNS_MAX = 2**16 - 1

FLAG_HARD_STATE = 1
FLAG_RESET = 2

_MAGIC_AND_CHECK = struct.Struct("<II")
_HEAD = struct.Struct("<IIHHQ")
_HEAD_CHECKED_FROM = CHECKED_FROM + _CHECK.size
PAIR = struct.Struct("<QQ")
RUN_HEAD = struct.Struct("<QQII")
ONE_ENTRY_HEAD = struct.Struct("<QQIII")
"""A run's head and the size of its one entry."""

_PADDING = tuple(bytes(-size % ALIGNMENT_BYTES) for size in range(ALIGNMENT_BYTES))
_JOINED_BYTES_MAX = 8 * 1024
"""Bodies up to this are copied into one buffer: below it, a copy costs less than a longer list of buffers."""
_KEPT_APART_BYTES_MIN = 4 * 1024
"""In longer bodies, entries from this size on aren't copied."""

assert _HEADER.size + _CHECK.size == HEADER_BYTES
assert _HEAD_CHECKED_FROM + _HEAD.size == FRAME_HEAD_BYTES


@attrs.frozen(slots=True)
class SegmentHeader:
    """The first HEADER_BYTES of a segment."""

    cluster_hash: bytes
    server_id: int
    number: int
    """Of this segment, from 1, one more than the segment before it."""
    salt: int
    """Random; where the checks of this segment's frames start from."""
    chain: int
    """The check of the last frame before this segment."""
    sequence: int
    """The number of this segment's first frame."""
    first_index: int
    """The index of the next entry when the segment was begun; its own entries may begin lower (truncation)."""
    hard_state: HardState
    """As it was when the segment was begun, so that older segments can be removed."""
    previous_end: int
    """Where in the segment before it the log ended, in bytes: anything there behind that is not part of the log."""
    is_reused: bool = False
    """The file was an earlier segment, some of which may still stand behind the log's end."""
    format_version: int = FORMAT_VERSION

    @property
    def checksum(self) -> Checksum:
        """What its frames are checked by."""
        return CHECKSUMS[self.format_version]

    def encode(self) -> bytes:
        """The header as it is written."""
        data = _HEADER.pack(
            HEADER_MAGIC,
            self.format_version,
            self.cluster_hash,
            self.server_id,
            self.number,
            self.salt,
            self.chain,
            self.sequence,
            self.first_index,
            self.hard_state.current_term,
            self.hard_state.voted_for or VOTED_FOR_NOBODY,
            self.previous_end,
            self.is_reused,
        )
        return data + _CHECK.pack(crc32(data))

    def belongs_to(self, identity: StorageIdentity) -> bool:
        """Whether the segment was written by this server of this cluster."""
        return self.cluster_hash == identity.cluster_hash and self.server_id == identity.server_id


class BadHeader(Exception):
    """A segment's header is damaged."""


class OtherVersion(Exception):
    """A segment was written by a version with another format; the first argument is its number."""


def decode_header(data: bytes) -> SegmentHeader:
    """Reads a header. Raises BadHeader, OtherVersion."""
    if len(data) < HEADER_BYTES:
        raise BadHeader("its header is cut off")
    if _CHECK.unpack_from(data, HEADER_BYTES - _CHECK.size)[0] != crc32(data[: HEADER_BYTES - _CHECK.size]):
        raise BadHeader("its header's checksum is wrong")
    magic, version, cluster_hash, server_id, number, salt, chain, sequence, first_index, term, vote, end, reused = (
        _HEADER.unpack_from(data)
    )
    if magic != HEADER_MAGIC:
        raise BadHeader("it is not a segment of a log")
    if version not in CHECKSUMS:
        raise OtherVersion(version)
    if not (number and sequence and first_index):
        raise BadHeader("its header counts from 0, and what it numbers begins with 1")
    hard_state = HardState(current_term=term, voted_for=None if vote == VOTED_FOR_NOBODY else vote)
    return SegmentHeader(
        cluster_hash, server_id, number, salt, chain, sequence, first_index, hard_state, end, bool(reused), version
    )


@value
class FrameBody:
    """What a frame will say, laid out, but not yet bound to a place in a segment."""

    flags: int
    run_count: int
    parts: list[bytes]
    size_bytes: int
    """Padding included."""

    @property
    def frame_bytes(self) -> int:
        """The length of the whole frame."""
        return FRAME_HEAD_BYTES + self.size_bytes


def encode_body(
    hard_state: HardState | None, runs: Sequence[EntriesRun], reset: tuple[int, int] | None = None
) -> FrameBody:
    """Lays out a frame. ``reset`` is the (index, term) that an empty log begins after.

    Raises ValueError for what doesn't fit in a frame.
    """
    flags = 0
    parts: list[bytes] = []
    if hard_state is not None:
        flags |= FLAG_HARD_STATE
        parts.append(PAIR.pack(hard_state.current_term, hard_state.voted_for or VOTED_FOR_NOBODY))
    if reset is not None:
        flags |= FLAG_RESET
        parts.append(PAIR.pack(*reset))
    for run in runs:
        entries = run.entries
        count = len(entries)
        if count == 1:
            parts += ONE_ENTRY_HEAD.pack(run.first_index, run.term, 1, 0, len(entries[0])), entries[0]
        else:
            parts.append(RUN_HEAD.pack(run.first_index, run.term, count, 0))
            parts.append(struct.pack(f"<{count}I", *map(len, entries)))
            parts += entries
    size_bytes = sum(map(len, parts))
    if padding := _PADDING[size_bytes % ALIGNMENT_BYTES]:
        parts.append(padding)
        size_bytes += len(padding)
    if size_bytes > BODY_BYTES_MAX or len(runs) > RUNS_MAX:
        raise ValueError(f"a save of {size_bytes} bytes in {len(runs)} runs is too big")
    return FrameBody(flags, len(runs), parts, size_bytes)


def seal(
    body: FrameBody, salt: int, previous: int, sequence: int, checksum: Checksum = CHECKSUM
) -> tuple[int, list[Chunk]]:
    """Binds a frame to its place; returns its check, and what to write."""
    head = _HEAD.pack(previous, body.size_bytes, body.flags, body.run_count, sequence)
    head = _CHECK.pack(checksum(head, salt)) + head
    if body.size_bytes <= _JOINED_BYTES_MAX:
        joined = b"".join([head, *body.parts])
        check = checksum(joined, salt)
        return check, [_MAGIC_AND_CHECK.pack(FRAME_MAGIC, check), joined]
    buffers = gathered([head, *body.parts], _KEPT_APART_BYTES_MIN)
    check = salt
    for buffer in buffers:
        check = checksum(buffer, check)
    return check, [_MAGIC_AND_CHECK.pack(FRAME_MAGIC, check), *buffers]


class BadFrame(Exception):
    """A frame that is whole, but says nonsense; the argument says why."""


def find_frame(data: bytes, start: int, salt: int, sequence_min: int = 0, checksum: Checksum = CHECKSUM) -> int | None:
    """The offset of the first whole frame at ``start`` or behind it; None if there is none.

    Frames that are numbered lower than ``sequence_min`` don't count: an earlier segment, in the same file, had them.
    """
    offset = data.find(FRAME_MAGIC_BYTES, start)
    while offset >= 0:
        if (
            offset % ALIGNMENT_BYTES == 0
            and is_whole(data, offset, salt, checksum)
            and FRAME_HEAD.unpack_from(data, offset)[-1] >= sequence_min
        ):
            return offset
        offset = data.find(FRAME_MAGIC_BYTES, offset + 1)
    return None


def is_whole(data: bytes, offset: int, salt: int, checksum: Checksum = CHECKSUM) -> bool:
    """Whether a whole frame stands at that offset; nothing is said about whether it belongs there."""
    if len(data) - offset < FRAME_HEAD_BYTES:
        return False
    magic, check, head_check, _, body_bytes, _, _, _ = FRAME_HEAD.unpack_from(data, offset)
    end = offset + FRAME_HEAD_BYTES + body_bytes
    return bool(
        magic == FRAME_MAGIC
        and head_check == checksum(data[offset + _HEAD_CHECKED_FROM : offset + FRAME_HEAD_BYTES], salt)
        and end <= len(data)
        and check == checksum(memoryview(data)[offset + CHECKED_FROM : end], salt)
    )


def body_bytes_at(data: bytes) -> int:
    """How long the body is that the frame head at the beginning claims, checked by nothing; 0 for less than a head."""
    return FRAME_HEAD.unpack_from(data)[4] if len(data) >= FRAME_HEAD_BYTES else 0


def decode_body(data: bytes, offset: int) -> tuple[HardState | None, tuple[int, int] | None, list[EntriesRun]]:
    """What the whole frame at that offset says: the hard state, the reset, the runs.

    Raises BadFrame if it contradicts itself: its check was right, so it was written so.
    """
    _, _, _, _, body_bytes, flags, run_count, _ = FRAME_HEAD.unpack_from(data, offset)
    position = offset + FRAME_HEAD_BYTES
    end = position + body_bytes
    hard_state = None
    reset = None
    runs = []
    try:
        if flags & FLAG_HARD_STATE:
            term, vote = PAIR.unpack_from(data, position)
            hard_state = HardState(current_term=term, voted_for=None if vote == VOTED_FOR_NOBODY else vote)
            position += PAIR.size
        if flags & FLAG_RESET:
            reset_index, reset_term = PAIR.unpack_from(data, position)
            reset = (reset_index, reset_term)
            position += PAIR.size
        for _ in range(run_count):
            run, position = _decode_run(data, position)
            runs.append(run)
    except struct.error as error:
        raise BadFrame("its parts don't fit its length") from error
    if flags & ~(FLAG_HARD_STATE | FLAG_RESET) or not 0 <= end - position < ALIGNMENT_BYTES:
        raise BadFrame("its parts don't fit its length")
    return hard_state, reset, runs


def _decode_run(data: bytes, position: int) -> tuple[EntriesRun, int]:
    """Reads one run; returns it and the position behind it. Raises struct.error."""
    first_index, term, count, _ = RUN_HEAD.unpack_from(data, position)
    position += RUN_HEAD.size
    sizes = struct.unpack_from(f"<{count}I", data, position)
    position += 4 * count
    entries = []
    for size in sizes:
        end = position + size
        entries.append(data[position:end])
        position = end
    return EntriesRun(first_index, term, tuple(entries)), position
