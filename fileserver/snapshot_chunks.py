"""The chunks that a store's snapshot consists of, as bytes and back.

Theory of operation
    Pure. What chunks mean together is told in :mod:`fileserver.snapshot`.

    Each chunk is one CBOR array, whose first element says what it is:

    ==========  ======================================================================================================
    ``HEADER``  format, version, clock, number of files, sum of contents, digest (hexadecimal), number of uploads
    ``PIECES``  pieces of a content, for the file or upload that comes next
    ``UPLOAD``  session, upload number, size of an upload; its content is all pieces since the last one
    ``FILES``   four columns (:mod:`fileserver.columns`): names, versions, deadlines, contents. A content is bytes, or
                for the first file of a chunk it may be `STAGED`: a rope, of all pieces that have come before the chunk
    ``END``     nothing more: a snapshot without it was cut off
    ==========  ======================================================================================================

    Columns cost less than a row of fields for each file, to write and to read. Checksums of contents aren't in it:
    whoever reads it computes them, so the header's digest is a check of the contents too.

    Format 1, of earlier versions, is read and no longer written. Its ``FILES`` has rows: name, version, deadline,
    CRC-32 and content of each file, one behind the other. Its ``UPLOAD`` has a CRC-32 as well. Its digest is
    made of those CRCs (:func:`digest_of_format_1`).

Invariants
    What is decoded is of the right types and of one length, or BadSnapshot is raised.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, TypeAlias
from zlib import crc32

import cbor2

from fileserver.columns import UNSIGNED, encode_columns, pack_numbers, unpack_numbers

FORMAT: Final = 2
HEADER: Final = 1
PIECES: Final = 2
UPLOAD: Final = 3
FILES: Final = 4
END: Final = 5
STAGED: Final = -1
"""In place of a content: the pieces before this chunk are it."""

_NAME_BYTES: Final = 5
_CONTENT_BYTES: Final = 5
FILE_OVERHEAD_BYTES: Final = _NAME_BYTES + 8 + 8 + _CONTENT_BYTES
"""What a file takes beside its name and content, at most."""
_FIELDS_PER_FILE_1: Final = 5

FileColumns: TypeAlias = tuple[list[bytes], list[int], list[int], list[Any]]
"""Names, versions, deadlines and contents, of one length; the first content may be `STAGED`."""


class BadSnapshot(ValueError):
    """The chunks are not those of one whole snapshot. The store that was to be restored is unchanged."""


def encode_files(
    names: Sequence[bytes], versions: Sequence[int], deadlines: Sequence[int], contents: Sequence[bytes | int]
) -> bytes:
    """A chunk of files; the columns are of one length, not empty, and in order of name."""
    return encode_columns((FILES, names, pack_numbers(versions, UNSIGNED), pack_numbers(deadlines, UNSIGNED), contents))


def decode_chunk(chunk: bytes) -> tuple[int, list[Any]]:
    """A chunk's kind and what follows it."""
    try:
        fields = cbor2.loads(chunk, max_depth=3, allow_indefinite=False)
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError) as error:
        raise BadSnapshot(f"a chunk is not CBOR: {error}") from error
    if type(fields) is not list or not fields or type(fields[0]) is not int:
        raise BadSnapshot("a chunk is no array with its kind")
    return fields[0], fields[1:]


def decode_files(fields: Sequence[Any]) -> FileColumns:
    """The files of a chunk. May raise TypeError or ValueError beside BadSnapshot."""
    names, versions, deadlines, contents = fields
    if type(names) is not list or type(contents) is not list or len(names) != len(contents):
        raise BadSnapshot("columns of different lengths")
    count = len(names)
    columns = names, unpack_numbers(versions, count, UNSIGNED), unpack_numbers(deadlines, count, UNSIGNED), contents
    _check_files(columns)
    return columns


def decode_files_of_format_1(fields: Sequence[Any]) -> tuple[FileColumns, list[int]]:
    """The files of a chunk of format 1, and their CRCs. May raise TypeError or OverflowError beside BadSnapshot."""
    if len(fields) % _FIELDS_PER_FILE_1:
        raise BadSnapshot("a file isn't five fields")
    names, versions, deadlines, crcs, contents = (list(fields[start::_FIELDS_PER_FILE_1]) for start in range(5))
    require_numbers(*versions, *deadlines, *crcs)
    array("I", crcs)
    columns = names, versions, deadlines, contents
    _check_files(columns)
    return columns, crcs


def _check_files(columns: FileColumns) -> None:
    names, _, _, contents = columns
    if set(map(type, names)) != {bytes}:
        raise BadSnapshot("a name is none")
    if not all(left < right for left, right in pairwise(names)):
        raise BadSnapshot("names out of order")
    first, *others = contents
    if not (type(first) is bytes or (type(first) is int and first == STAGED)) or not set(map(type, others)) <= {bytes}:
        raise BadSnapshot("a content is none")


def digest_of_format_1(columns: FileColumns, crcs: Sequence[int]) -> int:
    """What these files add to the digest of a snapshot of format 1."""
    names, versions, deadlines, _ = columns
    return sum(
        (crc32(name, crc) + (deadline_us << 32)) * version
        for name, version, deadline_us, crc in zip(names, versions, deadlines, crcs, strict=True)
    )


def require_numbers(*numbers: Any) -> None:
    """Raises TypeError or OverflowError for what isn't a number from 0 to 2**64 - 1, as a boolean isn't."""
    if set(map(type, numbers)) != {int}:
        raise TypeError("a number is none")
    array("Q", numbers)
