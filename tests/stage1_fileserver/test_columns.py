"""Columns: what is encoded comes back, however it is encoded, and nothing else is taken for one."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fileserver.columns import (
    COLUMNS_MAX,
    SIGNED,
    UNSIGNED,
    decode_columns,
    encode_columns,
    pack_numbers,
    unpack_numbers,
)

LENGTHS = st.sampled_from([0, 1, 23, 24, 255, 256, 4095, 4096, 65_535, 65_536, 100_000])
STRINGS = LENGTHS.map(lambda length: b"x" * length)
NUMBERS = st.one_of(st.sampled_from([-1, 0, 23, 24]), st.integers(-(2**63), 2**63 - 1))
COLUMN = st.one_of(NUMBERS, STRINGS, st.lists(STRINGS, max_size=5), st.lists(st.one_of(NUMBERS, STRINGS), max_size=5))


@given(st.lists(COLUMN, max_size=COLUMNS_MAX))
def test_what_is_encoded_comes_back(columns: list[Any]) -> None:
    data = encode_columns(columns)
    assert cbor2.loads(data) == columns
    assert decode_columns(data) == decode_columns(memoryview(data)) == columns


LONG = encode_columns((b"\1\1", [b"name", b"other"], 0, bytes(16), [b"a" * 5000, b"b" * 3000]))


def outcome(data: bytes | memoryview) -> object:
    """What these bytes are as columns, or that they are none."""
    try:
        return decode_columns(data)
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError):
        return None


@given(st.binary(max_size=12), st.one_of(st.integers(0, 80), st.integers(5000, 8200)), st.integers(0, 20))
@example(b"", 0, 0)
@example(b"", 0, len(LONG))
@example(b"\x98\5", 0, 1)
@example(b"\x18\x63", 35, 1)
@example(b"\x5b", 8, 1)
@example(b"", len(LONG) - 1, 1)
@example(b"\0", len(LONG), 0)
def test_what_is_long_is_the_same_in_a_view_however_it_is_damaged(inserted: bytes, start: int, cut: int) -> None:
    data = LONG[:start] + inserted + LONG[start + cut :]
    assert outcome(memoryview(data)) == outcome(data)


def test_long_items_of_a_view_are_bytes_of_their_own() -> None:
    buffer = bytearray(LONG)
    columns = decode_columns(memoryview(buffer))
    assert columns == cbor2.loads(LONG)
    buffer[:] = bytes(len(buffer))
    assert columns == cbor2.loads(LONG)


def test_byte_strings_are_told_their_length_in_four_bytes() -> None:
    assert encode_columns((5, b"ab", [b"c"])) == b"\x83\x05\x5a\0\0\0\2ab\x9a\0\0\0\1\x5a\0\0\0\1c"


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_numbers_come_back(numbers: list[int]) -> None:
    assert unpack_numbers(pack_numbers(numbers, SIGNED), len(numbers), SIGNED) == numbers


def test_numbers_that_are_all_zero_take_no_room() -> None:
    assert pack_numbers([0, 0, 0], UNSIGNED) == 0
    assert unpack_numbers(0, 3, UNSIGNED) == [0, 0, 0]


@pytest.mark.parametrize("column", [1, False, b"", bytes(7), bytes(16), [0], None])
def test_what_is_no_column_of_one_number_is_refused(column: object) -> None:
    with pytest.raises(ValueError, match="column of numbers"):
        unpack_numbers(column, 1, UNSIGNED)
