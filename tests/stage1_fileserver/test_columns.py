"""Columns: what is encoded comes back, however it is encoded, and nothing else is taken for one."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileserver.columns import (
    FIELDS_MAX,
    LONG_BYTES,
    SIGNED,
    UNSIGNED,
    dumps_with_byte_strings,
    pack_numbers,
    unpack_numbers,
)

LENGTHS = st.sampled_from([0, 1, 23, 24, 255, 256, LONG_BYTES, LONG_BYTES + 1, 65_535, 65_536, 100_000])
FIELDS = st.lists(st.one_of(st.integers(), st.binary(max_size=9), st.lists(st.binary(max_size=9))), max_size=FIELDS_MAX)


@given(FIELDS, st.lists(LENGTHS, max_size=5))
def test_what_is_encoded_comes_back(fields: list[Any], lengths: list[int]) -> None:
    strings = [b"x" * length for length in lengths]
    assert cbor2.loads(dumps_with_byte_strings(fields, strings)) == [*fields, strings]


@pytest.mark.parametrize("others", [(), (b"x" * 100_000,)])
def test_a_number_may_be_among_them(others: tuple[bytes, ...]) -> None:
    assert cbor2.loads(dumps_with_byte_strings((1, b"two"), (*others, 7))) == [1, b"two", [*others, 7]]


def test_long_ones_are_told_their_length_in_four_bytes() -> None:
    content = b"x" * (LONG_BYTES + 1)
    assert dumps_with_byte_strings((5,), (content,)) == b"\x82\x05\x9a\0\0\0\1\x5a\0\0\x10\1" + content


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
