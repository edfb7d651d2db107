"""Columns of numbers and of byte strings, as they stand in CBOR: those of a batch, and those of a snapshot's files.

Numbers are one byte string, of eight bytes each, little-endian; or 0 if all of them are.

Byte strings are an array. ``cbor2.dumps`` writes item by item into a buffer that grows, and copies what it has each
time. That is quick for short items; long ones (:data:`LONG_BYTES` on average) are joined here, once. The lengths are
written in four bytes then, as CBOR allows, whatever they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct, pack, unpack
from typing import Any, Final

import cbor2

LONG_BYTES: Final = 4096
"""From this average length of the byte strings on, joining is quicker."""
FIELDS_MAX: Final = 22
"""A longer array's length isn't in its first byte."""
_SHORT_ARRAY: Final = 0x80
_ARRAY: Final = 0x9A
_BYTES: Final = 0x5A
_pack_head = Struct(">BI").pack


SIGNED: Final = "q"
UNSIGNED: Final = "Q"
"""Which numbers a column may have."""


def pack_numbers(numbers: Sequence[Any], kind: str) -> bytes | int:
    """A column of numbers of that kind. Raises struct.error for what is none, or out of range."""
    return pack(f"<{len(numbers)}{kind}", *numbers) if any(numbers) else 0


def unpack_numbers(column: Any, count: int, kind: str) -> list[int]:
    """The numbers of a column, as many as ``count``. Raises ValueError if it isn't one of so many."""
    # A zero, and not what is equal to it, as False is.
    if type(column) is int and column == 0:
        return [0] * count
    if type(column) is not bytes or len(column) != 8 * count:
        raise ValueError("a column of numbers is none, or of a wrong length")
    return list(unpack(f"<{count}{kind}", column))


@lru_cache(maxsize=4096)
def _head_of_bytes(size_bytes: int) -> bytes:
    return _pack_head(_BYTES, size_bytes)


def dumps_with_byte_strings(fields: Sequence[Any], strings: Sequence[bytes | int]) -> bytes:
    """Encode the fields, at most FIELDS_MAX, and behind them the byte strings as an array; all of it as one array.

    Numbers among the byte strings are as good as these, and slower.
    """
    try:
        sizes = list(map(len, strings))  # type: ignore[arg-type]
    except TypeError:
        return cbor2.dumps((*fields, strings))
    if sum(sizes) <= LONG_BYTES * len(sizes):
        return cbor2.dumps((*fields, strings))
    assert len(fields) <= FIELDS_MAX
    parts: list[Any] = [b""] * (2 * len(sizes))
    parts[0::2] = map(_head_of_bytes, sizes)
    parts[1::2] = strings
    head = bytes((_SHORT_ARRAY + len(fields) + 1,))
    return b"".join((head, *map(cbor2.dumps, fields), _pack_head(_ARRAY, len(sizes)), *parts))
