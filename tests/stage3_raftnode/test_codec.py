"""Messages to bytes and back, and what becomes of bytes that are no message."""

from __future__ import annotations

from struct import Struct
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftnode.codec import PROPOSALS_COUNT_MAX, BadMessage, Envelope, PeerMessage, decode, encode
from raftnode.proposals import Proposals, Propose
from statemachine.messages import (
    AppendEntries,
    AppendEntriesResult,
    InstallSnapshot,
    InstallSnapshotResult,
    ReadIndex,
    ReadIndexResult,
    RequestVote,
    RequestVoteResult,
    TimeoutNow,
)

LARGEST = 2**63 - 1

MESSAGES: list[PeerMessage] = [
    RequestVote(7, 2, 100, 6),
    RequestVote(7, 2, 100, 6, pre_vote=True),
    RequestVote(7, 2, 100, 6, leadership_transfer=True),
    RequestVoteResult(7, vote_granted=True),
    RequestVoteResult(7, vote_granted=False, pre_vote=True),
    AppendEntries(7, 1, 99, 6, 0, (), 98, 12),
    AppendEntries(7, 1, 99, 6, 0, (), 98, 12, may_be_silent=True),
    AppendEntries(7, 1, 99, 6, 7, (b"entry",), 98, 12),
    AppendEntries(LARGEST, LARGEST, LARGEST, LARGEST, LARGEST, (b"", b"x" * 70_000, b"z"), LARGEST, LARGEST),
    AppendEntriesResult(7, True, 100, 0, 0, 12),
    AppendEntriesResult(7, False, 100, 40, 3, 12),
    InstallSnapshot(7, 1, 100, 6, 0, b"", False, 12),
    InstallSnapshot(7, 1, 100, 6, 4096, b"chunk", True, 12),
    InstallSnapshotResult(7, 100, 4101, True, 12),
    TimeoutNow(7),
    ReadIndex(7, 31),
    ReadIndexResult(7, 31, 100),
    ReadIndexResult(7, 31, -1),
    Proposals(()),
    Proposals((Propose(5, 1, 0, b"one"), Propose(5, 2, 1, b""))),
]


def number(value: int) -> bytes:
    return Struct(">BQ").pack(0x1B, value)


def array(count: int) -> bytes:
    return Struct(">BH").pack(0x99, count)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_as_it_was(message: PeerMessage) -> None:
    data = encode(message, 123_456_789, 5)
    assert decode(data) == Envelope(123_456_789, 5, message)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_the_bytes_are_one_cbor_array(message: PeerMessage) -> None:
    fields = cbor2.loads(encode(message, 123, 5))
    assert fields[:2] == [123, 5]
    assert all(type(field) is int for field in fields[:-1])


def test_truth_values_come_back_as_such() -> None:
    message = decode(encode(RequestVote(1, 2, 3, 4, True, False), 0, 0)).message
    assert isinstance(message, RequestVote)
    assert message.pre_vote is True
    assert message.leadership_transfer is False


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_no_beginning_and_no_continuation_of_a_message_is_one(message: PeerMessage) -> None:
    data = encode(message, 1, 2)
    for size in range(min(len(data), 300)):
        with pytest.raises(BadMessage):
            decode(data[:size])
    with pytest.raises(BadMessage):
        decode(data[:-1])
    with pytest.raises(BadMessage):
        decode(data + b"\x00")


@pytest.mark.parametrize(
    ("message", "clock_us"),
    [(TimeoutNow(-1), 0), (TimeoutNow(2**64), 0), (TimeoutNow(1), -1), (ReadIndexResult(1, 1, -2), 0)],
)
def test_what_no_bytes_can_say_is_refused(message: PeerMessage, clock_us: int) -> None:
    with pytest.raises(BadMessage):
        encode(message, clock_us, 0)


def test_proposals_have_a_limit() -> None:
    item = Propose(1, 1, 0, b"")
    most = Proposals((item,) * PROPOSALS_COUNT_MAX)
    assert decode(encode(most, 0, 0)).message == most
    with pytest.raises(BadMessage, match="more than"):
        encode(Proposals((item,) * (PROPOSALS_COUNT_MAX + 1)), 0, 0)


TIMEOUT_NOW = array(4) + number(1) + number(2) + number(7) + number(3)
SNAPSHOT = array(11) + number(1) + number(2) + number(5) + number(1) * 7
ENTRIES = array(12) + number(1) + number(2) + number(3) + number(1) * 8
PROPOSALS = array(7) + number(1) + number(2) + number(16) + number(1) * 3


def strings(*items: bytes) -> bytes:
    return Struct(">BI").pack(0x9A, len(items)) + b"".join(Struct(">BI").pack(0x5A, len(item)) + item for item in items)


def test_the_pieces_that_the_next_test_spoils_are_sound() -> None:
    assert decode(TIMEOUT_NOW).message == TimeoutNow(3)
    assert isinstance(decode(SNAPSHOT + b"\x5a\0\0\0\1x").message, InstallSnapshot)
    assert isinstance(decode(ENTRIES + strings(b"x")).message, AppendEntries)
    assert isinstance(decode(PROPOSALS + strings(b"x")).message, Proposals)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "too short"),
        (cbor2.dumps([1, 2, 7, 3]), "too short"),
        (b"\0" * 64, "unknown kind 0"),
        (array(4) + number(1) + number(2) + number(99) + number(3), "unknown kind 99"),
        (array(4) + number(1) + number(2) + number(256 + 7) + number(3), "unknown kind 263"),
        (b"\x98\x00\x04" + TIMEOUT_NOW[3:], "something else for a number"),
        (array(5) + TIMEOUT_NOW[3:] + number(0), "wrong length"),
        (array(2) + TIMEOUT_NOW[3:], "wrong length"),
        (array(4) + number(2**63) + number(2) + number(7) + number(3), "something else for a number"),
        (array(4) + number(1) + number(2) + number(7) + number(2**63), "something else for a number"),
        (array(4) + number(1) + number(2) + number(7) + b"\x3b" + bytes(8), "something else for a number"),
        (array(4) + number(1) + number(2) + number(7) + b"\xfb" + bytes(8), "something else for a number"),
        (array(4) + number(1) + number(2) + number(7) + b"\xc2" + bytes(8), "something else for a number"),
        (array(6) + number(1) + number(2) + number(2) + number(1) + number(2) + number(0), "truth value"),
        (SNAPSHOT, "cut short before its tail"),
        (SNAPSHOT + b"\x5a\0\0\0\2x", "wrong length"),
        (SNAPSHOT + b"\x5a\xff\xff\xff\xffx", "wrong length"),
        (SNAPSHOT + b"\x7a\0\0\0\1x", "something else for its tail"),
        (SNAPSHOT + b"\x5f\x41x\xff\xff", "something else for its tail"),
        (ENTRIES + b"\x9a\xff\xff\xff\xff" + b"\x5a\0\0\0\0", "more items than there is room for"),
        (ENTRIES + b"\x9a\0\0\0\2" + b"\x5a\0\0\0\x05hello", "tail cut short"),
        (ENTRIES + b"\x9a\0\0\0\1" + b"\x5a\0\0\0\x06hello", "whole byte strings"),
        (ENTRIES + b"\x9a\0\0\0\1" + b"\x7a\0\0\0\x05hello", "whole byte strings"),
        (ENTRIES + b"\x9a\0\0\0\1" + b"\xd8\x1c\x5a\0\0\0\0", "whole byte strings"),
        (ENTRIES + strings(b"x") + b"y", "behind its end"),
        (PROPOSALS + strings(b"x", b"y"), "more or fewer items"),
        (array(6) + number(1) + number(2) + number(16) + number(1) * 2 + strings(b"x"), "wrong length"),
        (array(3) + number(1) + number(2) + number(16), "wrong length"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(BadMessage, match=why):
        decode(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    try:
        decode(data)
    except BadMessage:
        pass


@given(st.sampled_from(MESSAGES), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4))
def test_a_spoiled_message_is_a_message_or_refused(message: PeerMessage, changes: list[tuple[int, int]]) -> None:
    data = bytearray(encode(message, 1, 2)[:100_000])
    for offset, value in changes:
        data[offset % len(data)] = value
    try:
        envelope = decode(bytes(data))
    except BadMessage:
        return
    # Whatever is accepted has just the one form: nothing was ignored.
    assert encode(envelope.message, envelope.clock_us, envelope.flags) == data


NUMBERS: Any = st.integers(0, LARGEST)


@given(st.tuples(*[NUMBERS] * 9), st.lists(st.binary(max_size=50), max_size=20))
def test_any_numbers_and_entries_come_back(numbers: tuple[int, ...], entries: list[bytes]) -> None:
    clock_us, flags, *fields = numbers
    term, leader_id, prev_log_index, prev_log_term, entries_term, leader_commit, round_number = fields
    message = AppendEntries(
        term, leader_id, prev_log_index, prev_log_term, entries_term, tuple(entries), leader_commit, round_number
    )
    assert decode(encode(message, clock_us, flags)) == Envelope(clock_us, flags, message)
