"""Columns: what is encoded comes back, however it is encoded, and nothing else is taken for one."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileserver.columns import COLUMNS_MAX, SIGNED, UNSIGNED, encode_columns, pack_numbers, unpack_numbers

LENGTHS = st.sampled_from([0, 1, 23, 24, 255, 256, 4095, 4096, 65_535, 65_536, 100_000])
STRINGS = LENGTHS.map(lambda length: b"x" * length)
NUMBERS = st.one_of(st.sampled_from([-1, 0, 23, 24]), st.integers(-(2**63), 2**63 - 1))
COLUMN = st.one_of(NUMBERS, STRINGS, st.lists(STRINGS, max_size=5), st.lists(st.one_of(NUMBERS, STRINGS), max_size=5))


@given(st.lists(COLUMN, max_size=COLUMNS_MAX))
def test_what_is_encoded_comes_back(columns: list[Any]) -> None:
    assert cbor2.loads(encode_columns(columns)) == columns


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
