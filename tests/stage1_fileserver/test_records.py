"""Contents, ropes and checksums."""

from __future__ import annotations

from itertools import pairwise

from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from fileserver.records import (
    PART_BYTES,
    Content,
    add_piece,
    combine_crcs,
    content_of,
    crc_of,
    cut,
    fingerprint,
    join_contents,
    pieces_of,
)

LENGTHS = st.sampled_from([0, 1, 2, 1000, PART_BYTES // 2, PART_BYTES - 1, PART_BYTES])


def check_content(content: Content) -> bytes:
    """It keeps to the invariants; returns it in one piece."""
    pieces = pieces_of(content)
    assert isinstance(content, bytes) == (len(pieces) == 1)
    assert all(len(piece) <= PART_BYTES for piece in pieces)
    for left, right in pairwise(pieces):
        assert len(left) + len(right) > PART_BYTES
    return b"".join(pieces)


@given(st.lists(LENGTHS, max_size=6))
def test_pieces_of_any_length_make_a_rope_without_small_neighbours(lengths: list[int]) -> None:
    pieces: list[bytes] = []
    for number, length in enumerate(lengths):
        add_piece(pieces, bytes([number]) * length)
    whole = b"".join(bytes([number]) * length for number, length in enumerate(lengths))
    assert check_content(content_of(pieces)) == whole


@given(st.integers(0, 3 * PART_BYTES), st.integers(0, 3 * PART_BYTES))
def test_joined_contents_keep_the_invariants(left_size: int, right_size: int) -> None:
    left, right = content_of(cut(b"l" * left_size)), content_of(cut(b"r" * right_size))
    joined = join_contents(left, right)
    assert check_content(joined) == b"l" * left_size + b"r" * right_size


def test_joining_shares_the_pieces() -> None:
    left, right = content_of(cut(b"l" * 2 * PART_BYTES)), content_of(cut(b"r" * 2 * PART_BYTES))
    joined = join_contents(left, right)
    assert [id(piece) for piece in joined] == [id(piece) for piece in (*left, *right)]


def test_nothing_is_cut_into_one_empty_piece() -> None:
    assert cut(b"") == (b"",)
    assert content_of([]) == b""


@given(st.binary(max_size=600), st.binary(max_size=600))
def test_combined_crcs_are_those_of_the_whole(left: bytes, right: bytes) -> None:
    assert combine_crcs(crc32c(left), crc32c(right), len(right)) == crc32c(left + right)


def test_crcs_combine_over_megabytes() -> None:
    left, right = b"left" * 1000, bytes(range(256)) * 8200
    assert combine_crcs(crc32c(left), crc32c(right), len(right)) == crc32c(left + right)


@given(st.binary(), st.integers(1, 2**63), st.integers(0, 2**63), st.integers(0, 2**32 - 1))
def test_a_fingerprint_has_the_crc_in_it(name: bytes, version: int, deadline_us: int, crc: int) -> None:
    of_file = fingerprint(name, version, deadline_us, crc)
    assert crc_of(name, (version, deadline_us, 0, b"", of_file)) == crc


def test_each_part_of_a_file_shows_in_its_fingerprint() -> None:
    prints = {
        fingerprint(b"name", 5, 7, 11),
        fingerprint(b"nbme", 5, 7, 11),
        fingerprint(b"name", 6, 7, 11),
        fingerprint(b"name", 5, 8, 11),
        fingerprint(b"name", 5, 7, 12),
        fingerprint(b"name", 5, 0, 11),
    }
    assert len(prints) == 6


def test_swapped_files_show_in_the_sum() -> None:
    one, other = b"one", b"other"
    assert fingerprint(one, 1, 0, 11) + fingerprint(other, 2, 0, 12) != fingerprint(one, 2, 0, 12) + fingerprint(
        other, 1, 0, 11
    )
    assert fingerprint(one, 1, 0, 11) + fingerprint(other, 2, 0, 12) != fingerprint(one, 1, 0, 12) + fingerprint(
        other, 2, 0, 11
    )
