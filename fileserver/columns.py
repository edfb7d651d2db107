"""Columns of numbers and of byte strings, as they stand in CBOR: those of a batch, and those of a snapshot's files.

Numbers are one byte string, of eight bytes each, little-endian; or 0 if all of them are. Byte strings are an array.

All columns together are one array. They are encoded here, by one join of all parts: ``cbor2.dumps`` writes item by item
into a buffer that grows, which takes longer, for long items above all. The lengths of byte strings are written in four
bytes, as CBOR allows, whatever they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct, pack, unpack
from typing import Any, Final, TypeAlias

import cbor2

COLUMNS_MAX: Final = 23
"""A longer array's length isn't in its first byte."""
_SMALL_NUMBERS_END: Final = 24
"""Numbers below have a byte that is all of their encoding."""
_SMALL_NUMBERS: Final = [bytes((number,)) for number in range(_SMALL_NUMBERS_END)]
_SHORT_ARRAY: Final = 0x80
_ARRAY: Final = 0x9A
_BYTES: Final = 0x5A
_pack_head = Struct(">BI").pack

Column: TypeAlias = int | bytes | Sequence[int | bytes]


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


def encode_columns(columns: Sequence[Column]) -> bytes:
    """Encode at most COLUMNS_MAX columns as one array: byte strings, arrays of them, and numbers.

    Numbers among the byte strings of an array are as good as these, and slower.
    """
    assert len(columns) <= COLUMNS_MAX
    parts = [bytes((_SHORT_ARRAY + len(columns),))]
    for column in columns:
        if type(column) is bytes:
            parts += (_head_of_bytes(len(column)), column)
        elif type(column) is not int:
            parts += _parts_of_array(column)  # type: ignore[arg-type]
        elif 0 <= column < _SMALL_NUMBERS_END:
            parts.append(_SMALL_NUMBERS[column])
        else:
            parts.append(cbor2.dumps(column))
    return b"".join(parts)


def _parts_of_array(items: Sequence[Any]) -> list[bytes]:
    try:
        sizes = list(map(len, items))
    except TypeError:
        return [cbor2.dumps(items)]
    parts = [_pack_head(_ARRAY, len(sizes))] * (1 + 2 * len(sizes))
    parts[1::2] = map(_head_of_bytes, sizes)
    parts[2::2] = items
    return parts
