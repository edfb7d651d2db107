"""What is kept of a file, and the arithmetic on contents: ropes, checksums, fingerprints.

Theory of operation
    A *content* is ``bytes`` up to :data:`PART_BYTES`, and beyond that a *rope*: a tuple of pieces. Whoever sends,
    appends or snapshots a big file handles its pieces one by one, so no step copies 64 MiB or holds the event loop
    for it, and an append shares the pieces that were there before.

    Files are kept as plain tuples (:data:`RawRecord`), not as the :class:`Record` that callers see: the garbage
    collector stops tracking a plain tuple of atoms, while it walks over a million of any other class in every full
    collection.

Invariants
    No piece is longer than `PART_BYTES`. A rope has at least two pieces, and any two neighbours are together longer
    than `PART_BYTES` (so a rope of n bytes has at most 2 n / `PART_BYTES` + 1 pieces, whatever it was made of).
    A content is never changed in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final, NamedTuple, TypeAlias
from zlib import crc32

PART_BYTES: Final = 128 * 1024
"""The longest piece of a content, in bytes."""

Rope: TypeAlias = tuple[bytes, ...]
Content: TypeAlias = bytes | Rope
"""A file's content: bytes, or a rope when longer than `PART_BYTES`."""

RawRecord: TypeAlias = tuple[int, int, int, Content, int]
"""A `Record` as it is kept: the same fields in the same order."""


class Record(NamedTuple):
    """A file as it stands: immutable, so it may be held on to while the store goes on."""

    version: int
    """The change that made it so, 1 or more."""
    deadline_us: int
    """When it expires on the cluster clock, in microseconds; 0 = never."""
    size: int
    """Length of the content in bytes."""
    content: Content
    fingerprint: int
    """See :func:`fingerprint`."""


def pieces_of(content: Content) -> Rope:
    """The content as a tuple of pieces, without copying it."""
    return content if type(content) is tuple else (content,)  # type: ignore[return-value]


def content_of(pieces: Sequence[bytes]) -> Content:
    """The content that these pieces are; they must keep to the module's invariants."""
    if len(pieces) > 1:
        return tuple(pieces)
    return pieces[0] if pieces else b""


def cut(content: bytes) -> Rope:
    """A long ``bytes`` in pieces."""
    return tuple(content[start : start + PART_BYTES] for start in range(0, len(content), PART_BYTES)) or (b"",)


def add_piece(pieces: list[bytes], piece: bytes) -> None:
    """Put a piece behind the others, in place; a small one becomes part of the last, an empty one nothing."""
    if pieces and len(pieces[-1]) + len(piece) <= PART_BYTES:
        pieces[-1] += piece
    elif piece:
        pieces.append(piece)


def join_contents(left: Content, right: Content) -> Content:
    """The content of ``left`` and then ``right``: copies one piece at most, shares the others."""
    pieces = list(pieces_of(left))
    first, *rest = pieces_of(right)
    add_piece(pieces, first)
    pieces.extend(rest)
    return content_of(pieces)


# CRC-32C is the remainder of the message, read as a polynomial over GF(2), by this polynomial. Bits are reflected:
# the highest of 32 is the coefficient of x**0.
_CRC_POLYNOMIAL: Final = 0x82F63B78
_ONE: Final = 0x80000000


def _multiply(left: int, right: int) -> int:
    """The product of two remainders, modulo the CRC polynomial."""
    product = 0
    for bit in range(31, -1, -1):
        if left >> bit & 1:
            product ^= right
        right = right >> 1 ^ (_CRC_POLYNOMIAL if right & 1 else 0)
    return product


@cache
def _power_of_x(exponent_log2: int) -> int:
    """The remainder of ``x ** (2 ** exponent_log2)``."""
    if not exponent_log2:
        return _ONE >> 1
    root = _power_of_x(exponent_log2 - 1)
    return _multiply(root, root)


def combine_crcs(left_crc: int, right_crc: int, right_size: int) -> int:
    """The CRC-32C of two contents in a row, from theirs and the length of the right one in bytes.

    As zlib's ``crc32_combine``, but for the polynomial: appending n bytes multiplies the remainder of what
    stands before by ``x ** (8 n)``. At most 0.2 ms, where reading 64 MiB again would hold the event loop for longer.
    """
    shift = _ONE
    bits = right_size << 3
    for exponent_log2 in range(bits.bit_length()):
        if bits >> exponent_log2 & 1:
            shift = _multiply(_power_of_x(exponent_log2), shift)
    return _multiply(shift, left_crc) ^ right_crc


def fingerprint(name: bytes, version: int, deadline_us: int, crc: int) -> int:
    """A number that mixes what a file is, for the sum over all files that `Store.state_hash` is made of.

    The sum has no order, and is kept up to date by a subtraction and an addition per change, so this must be quick
    (0.1 us). The checksums of name and content (its CRC-32C) are added up, with the deadline above them, so that a
    difference in any of them shows (but for a checksum's chance). Versions are unique, and as factors make it show when
    two files are swapped. The sums are exact, since Python's integers don't wrap round.
    """
    return (crc32(name) + crc + (deadline_us << 32)) * version


def crc_of(name: bytes, record: RawRecord) -> int:
    """The CRC-32C (Castagnoli) of the whole content, which its fingerprint is made of.

    Nothing but an append or a touch asks for it, and what a file is replaced by doesn't.
    """
    version, deadline_us, _, _, of_file = record
    return of_file // version - (deadline_us << 32) - crc32(name)
