"""Whichever library computes it, a checksum is the one that zlib gives."""

from __future__ import annotations

import runpy
import sys
import zlib
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftnode import checksum
from raftnode.checksum import crc32

STARTS = st.integers(min_value=0, max_value=2**32 - 1)
KINDS = st.sampled_from([bytes, bytearray, memoryview])
LENGTHS = st.sampled_from([255, 256, 257, 1023, 1024, 1025, 5 * 1024, 5 * 1024 + 1, 16 * 1024, 128 * 1024])
"""About where an implementation may go another way, and as long as a piece of a content."""


@given(st.binary(max_size=300), STARTS, KINDS)
def test_it_is_that_of_zlib(data: bytes, start: int, kind: Callable[[bytes], bytes]) -> None:
    assert crc32(kind(data)) == zlib.crc32(data)
    assert crc32(kind(data), start) == zlib.crc32(data, start)


@given(LENGTHS, st.integers(min_value=0, max_value=64), STARTS, st.integers())
def test_at_any_length_and_any_place_in_memory(length: int, place: int, start: int, seed: int) -> None:
    data = Random(seed).randbytes(place + length)
    assert crc32(memoryview(data)[place:], start) == zlib.crc32(data[place:], start)


@given(st.lists(st.binary(max_size=100), max_size=6), STARTS)
def test_that_of_pieces_one_by_one_is_that_of_the_whole(pieces: list[bytes], start: int) -> None:
    check = start
    for piece in pieces:
        check = crc32(piece, check)
    assert check == zlib.crc32(b"".join(pieces), start)


def test_the_quick_library_is_used_where_it_is_installed() -> None:
    assert crc32 is pytest.importorskip("isal.isal_zlib").crc32


def test_zlib_is_used_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    assert runpy.run_path(checksum.__file__)["crc32"] is zlib.crc32
