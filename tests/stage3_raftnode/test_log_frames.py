"""The format of segments and frames, as bytes."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftnode.log_frames import (
    BODY_BYTES_MAX,
    HEADER_BYTES,
    RUNS_MAX,
    BadFrame,
    BadHeader,
    FrameBody,
    OtherVersion,
    SegmentHeader,
    decode_body,
    decode_header,
    encode_body,
    find_frame,
    is_whole,
    seal,
)
from statemachine.events import EntriesRun, HardState
from tests.stage3_raftnode.storage_tools import IDENTITY, run

SALT, PREVIOUS, SEQUENCE = 0x1234, 0x5678, 9
HEADER = SegmentHeader(IDENTITY.cluster_hash, 3, 7, SALT, PREVIOUS, SEQUENCE, 100, HardState(4, 2), 4711)

hard_states = st.builds(HardState, st.integers(0, 2**64 - 1), st.none() | st.integers(1, 2**63))
entries_runs = st.builds(
    EntriesRun,
    st.integers(1, 2**63),
    st.integers(1, 2**63),
    st.lists(st.binary(max_size=40), min_size=1, max_size=5).map(tuple),
)


def frame(
    hard_state: HardState | None = None,
    runs: tuple[EntriesRun, ...] = (),
    reset: tuple[int, int] | None = None,
    salt: int = SALT,
) -> bytes:
    return b"".join(seal(encode_body(hard_state, runs, reset), salt, PREVIOUS, SEQUENCE)[1])


@given(
    st.none() | hard_states,
    st.lists(entries_runs, max_size=4),
    st.none() | st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_a_frame_comes_back_as_it_was_written(
    hard_state: HardState | None, runs: list[EntriesRun], reset: tuple[int, int] | None
) -> None:
    data = frame(hard_state, tuple(runs), reset)
    assert len(data) % 8 == 0
    assert len(data) == encode_body(hard_state, runs, reset).frame_bytes
    assert is_whole(data, 0, SALT)
    assert decode_body(data, 0) == (hard_state, reset, runs)


def test_big_entries_are_not_copied_and_give_the_same_frame() -> None:
    big = bytes(300_000)
    entries = (b"a", b"b", big, b"c", big, big)
    check, buffers = seal(encode_body(None, [run(1, 1, *entries)]), SALT, PREVIOUS, SEQUENCE)
    assert sum(buffer is big for buffer in buffers) == 3
    data = b"".join(buffers)
    assert is_whole(data, 0, SALT)
    assert decode_body(data, 0)[2] == [run(1, 1, *entries)]
    assert check == int.from_bytes(data[4:8], "little")


def test_each_flipped_byte_of_a_frame_shows() -> None:
    data = bytearray(frame(HardState(1, 2), (run(1, 1, b"entry"),), (5, 1)))
    for position in range(len(data)):
        data[position] ^= 0x40
        assert not is_whole(bytes(data), 0, SALT)
        data[position] ^= 0x40
    for size in range(len(data)):
        assert not is_whole(bytes(data[:size]), 0, SALT)


def test_the_check_depends_on_all_that_a_frame_is_bound_to() -> None:
    """A CRC over bytes and their own CRC is a constant, so where the head's check stands matters."""
    body = encode_body(HardState(1, 2), [run(1, 1, b"entry")])
    other = encode_body(HardState(1, 2), [run(1, 1, b"Entry")])
    places = [(SALT, PREVIOUS, SEQUENCE), (SALT + 1, PREVIOUS, SEQUENCE), (SALT, 0, SEQUENCE), (SALT, PREVIOUS, 1)]
    checks = {seal(body, *place)[0] for place in places} | {seal(other, SALT, PREVIOUS, SEQUENCE)[0]}
    assert len(checks) == 5


def test_a_frame_is_found_behind_rubbish_on_an_8_byte_bound_only() -> None:
    data = frame(HardState(1, None))
    assert find_frame(b"\xff" * 8 + data, 0, SALT) == 8
    assert find_frame(b"\xff" * 9 + data, 0, SALT) is None
    assert find_frame(bytes(64) + data, 8, SALT) == 64
    assert find_frame(data + data[:20], 8, SALT) is None


def test_a_frame_made_up_by_a_client_is_not_taken_for_one() -> None:
    """Whoever does not know the segment's salt can't make an entry that holds a valid frame."""
    made_up = frame(HardState(1, None), salt=0)
    assert find_frame(made_up, 0, 0) == 0
    assert find_frame(made_up, 0, SALT) is None


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="too big"):
        encode_body(None, [run(1, 1, b"")] * (RUNS_MAX + 1))
    assert BODY_BYTES_MAX % 8 == 0


@pytest.mark.parametrize(
    "body",
    [
        FrameBody(1, 0, [bytes(8)], 8),  # a hard state cut off
        FrameBody(0, 0, [bytes(8)], 8),  # more than it says
        FrameBody(0, 1, [bytes(8)], 8),  # a run cut off
        FrameBody(4, 0, [], 0),  # an unknown flag
    ],
)
def test_a_whole_frame_that_says_nonsense_is_refused(body: FrameBody) -> None:
    data = b"".join(seal(body, SALT, PREVIOUS, SEQUENCE)[1])
    assert is_whole(data, 0, SALT)
    with pytest.raises(BadFrame, match="don't fit"):
        decode_body(data, 0)


def test_a_header_comes_back_as_it_was_written() -> None:
    data = HEADER.encode()
    assert len(data) == HEADER_BYTES
    assert decode_header(data) == HEADER
    assert HEADER.belongs_to(IDENTITY)


def test_each_flipped_byte_of_a_header_shows() -> None:
    data = bytearray(HEADER.encode())
    for position in range(len(data)):
        data[position] ^= 1
        with pytest.raises(BadHeader):
            decode_header(bytes(data))
        data[position] ^= 1
    for size in range(len(data)):
        with pytest.raises(BadHeader, match="cut off"):
            decode_header(bytes(data[:size]))


@pytest.mark.parametrize(
    "header",
    [attrs.evolve(HEADER, number=0), attrs.evolve(HEADER, sequence=0), attrs.evolve(HEADER, first_index=0)],
)
def test_a_header_that_counts_from_0_is_damaged(header: SegmentHeader) -> None:
    """Entries are numbered from 1; a log that began with 0 would be opened, and refuse every save."""
    with pytest.raises(BadHeader, match="counts from 0"):
        decode_header(header.encode())


def test_headers_of_others_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OtherVersion, match="3"):
        decode_header(attrs.evolve(HEADER, format_version=3).encode())
    monkeypatch.setattr("raftnode.log_frames.HEADER_MAGIC", b"NotOurs!")
    other_file = HEADER.encode()
    monkeypatch.undo()
    with pytest.raises(BadHeader, match="not a segment"):
        decode_header(other_file)
