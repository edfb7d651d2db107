"""Columns of numbers and of byte strings, as they stand in CBOR: those of a batch, and those of a snapshot's files.

Numbers are one byte string, of eight bytes each, little-endian; or 0 if all of them are. Byte strings are an array.

All columns together are one array. They are encoded here, by one join of all parts: ``cbor2.dumps`` writes item by item
into a buffer that grows, which takes longer, for long items above all. The lengths of byte strings are written in four
bytes, as CBOR allows, whatever they are.

They are decoded by ``cbor2``, in a fraction of the time that a Python loop over the items takes; except for long
items in a view of something longer, of which ``cbor2`` would need a copy. Those are read here, as far as they are
written as this module writes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct, error, pack, unpack
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
_HEAD: Final = Struct(">BI")
_pack_head = _HEAD.pack
_unpack_head = _HEAD.unpack_from
_LONG_ITEM_BYTES_MIN: Final = 2048
"""What is copied twice takes more time, from this length on, than a turn of a loop."""
_LEVELS_MAX: Final = 3
"""The array of columns, that of a column, and an item of that."""

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


def decode_columns(data: bytes | bytearray | memoryview) -> Any:
    """What :func:`encode_columns` has encoded, or whatever else it is: any item of CBOR of few levels.

    Raises:
        cbor2.CBORDecodeError, ValueError, TypeError, OverflowError: it is no such thing.
    """
    if type(data) is not bytes:
        columns = _decode_long(memoryview(data))
        if columns is not None:
            return columns
        data = bytes(data)
    return cbor2.loads(data, max_depth=_LEVELS_MAX, allow_indefinite=False)


def _decode_long(view: memoryview) -> list[Any] | None:
    """The columns if they are written as here and of long items; None for anything else, damaged or not."""
    try:
        count = view[0] - _SHORT_ARRAY
        if not 0 <= count <= COLUMNS_MAX:
            return None
        columns: list[Any] = []
        start = 1
        for _ in range(count):
            column: Column
            if view[start] == _ARRAY:
                column, start = _decode_long_items(view, start)
            elif view[start] < _SMALL_NUMBERS_END:
                column, start = view[start], start + 1
            else:
                column, start = _decode_bytes(view, start)
            columns.append(column)
    except (_NotLong, IndexError, error):
        return None
    return columns if start == len(view) else None


class _NotLong(Exception):
    """Something else than long items, as they are written here."""


def _decode_long_items(view: memoryview, start: int) -> tuple[list[bytes], int]:
    """The items of the array that begins there, and where it ends."""
    _, count = _unpack_head(view, start)
    if count * _LONG_ITEM_BYTES_MIN > len(view):
        raise _NotLong
    items = []
    start += _HEAD.size
    for _ in range(count):
        item, start = _decode_bytes(view, start)
        items.append(item)
    return items, start


def _decode_bytes(view: memoryview, start: int) -> tuple[bytes, int]:
    """The byte string that begins there, and where it ends."""
    mark, size_bytes = _unpack_head(view, start)
    start += _HEAD.size
    end = start + size_bytes
    if mark != _BYTES or end > len(view):
        raise _NotLong
    return bytes(view[start:end]), end


def _parts_of_array(items: Sequence[Any]) -> list[bytes]:
    try:
        sizes = list(map(len, items))
    except TypeError:
        return [cbor2.dumps(items)]
    parts = [_pack_head(_ARRAY, len(sizes))] * (1 + 2 * len(sizes))
    parts[1::2] = map(_head_of_bytes, sizes)
    parts[2::2] = items
    return parts
