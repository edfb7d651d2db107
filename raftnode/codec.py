"""Messages between servers, to and from bytes.

Theory of operation. A message is one CBOR array (RFC 8949) of one fixed shape::

    [clock_us, flags, kind, number, number, ..., tail]

``clock_us`` is the sender's reading of the cluster clock, ``flags`` are the driver's own, ``kind`` says which
class it is. Then come the class's numbers (whole, 0 to 2**63 - 1; a truth value is 0 or 1) and last, if the class
has one, its tail: a byte string, or an array of byte strings.

Every number is written in eight bytes, every byte string's and inner array's length in four, the outer array's
length in two. RFC 8949 allows that and any CBOR library reads it, but this one shape needs no library: it is a
``struct`` and some slices. Encoding takes a microsecond where a general encoder takes three (and a
quarter of its time for large contents), and decoding cannot nest, follow a tag, meet a type that no message has, or
believe a length that is not there: what does not look exactly like a message is refused.

Invariants:

* ``decode(encode(message, clock_us, flags))`` equals ``Envelope(clock_us, flags, message)``.
* ``decode`` of any bytes at all gives an Envelope or raises BadMessage, and takes memory in proportion to the
  bytes that it was given.
* Nothing behind the message's end is accepted.

To add a message: a Kind, and a Layout in ``_LAYOUTS``. A kind's number is never used for another shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, IntEnum, auto
from functools import cache
from operator import attrgetter
from struct import Struct, error
from typing import Any, TypeAlias

import attrs

from raftnode.buffers import Chunk
from raftnode.proposals import Proposals, Propose
from statemachine import messages
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
from statemachine.values import value

PeerMessage: TypeAlias = messages.Message | Proposals
"""All that servers say to each other."""

PROPOSALS_COUNT_MAX = 4096
"""Most items in one Proposals message."""


class BadMessage(ValueError):
    """Bytes that are no message, or a message that no bytes can say."""


@value
class Envelope:
    """A message with what the sender's driver put beside it."""

    clock_us: int
    """The sender's reading of the cluster clock when it encoded the message."""
    flags: int
    """The driver's own, 0 to 2**63 - 1; the codec gives them no meaning."""
    message: PeerMessage


class Kind(IntEnum):
    """The number that stands for a message's class."""

    REQUEST_VOTE = 1
    REQUEST_VOTE_RESULT = 2
    APPEND_ENTRIES = 3
    APPEND_ENTRIES_RESULT = 4
    INSTALL_SNAPSHOT = 5
    INSTALL_SNAPSHOT_RESULT = 6
    TIMEOUT_NOW = 7
    READ_INDEX = 8
    READ_INDEX_RESULT = 9
    PROPOSALS = 16


class _Tail(Enum):
    """What follows a message's numbers."""

    NOTHING = auto()
    BYTES = auto()
    BYTE_STRINGS = auto()


# Looking a member up in its class takes as long as all else that is done with it.
_TAIL_OF_BYTES = _Tail.BYTES


# Initial bytes of CBOR items: major type in the upper three bits, size of the length in the lower five.
_NUMBER = 0x1B
_BYTES = 0x5A
_ARRAY_SHORT = 0x99
_ARRAY = 0x9A

_NUMBER_MARK = bytes([_NUMBER])
_HEAD = Struct(">BHBQBQBQ")
"""Outer array, clock_us, flags and kind."""
_COUNT_IN_HEAD = 3
_KIND_OFFSET = _HEAD.size - 1
"""Where the last byte of the kind is; those before it are 0."""
_ITEM_HEAD = Struct(">BI")
_pack_number = Struct(">Q").pack
_pack_item_head = _ITEM_HEAD.pack
_unpack_item_head = _ITEM_HEAD.unpack_from
_ITEM_HEAD_BYTES = _ITEM_HEAD.size


_Numbers: TypeAlias = tuple[int, ...]
_Shape: TypeAlias = tuple[Struct, _Numbers, int]
"""What numbers stand in, the marks before them, with that of the outer array, and how many items that has."""


@cache  # at most one for each size of a Proposals message, so PROPOSALS_COUNT_MAX and a few
def _shape_of(own_count: int, *, has_tail: bool) -> _Shape:
    """The shape of a message with so many numbers beside those of the head.

    The numbers are signed here, so that those which are too large show as negative.
    """
    count = _COUNT_IN_HEAD + own_count
    return Struct(">BH" + "Bq" * count), (_ARRAY_SHORT, *(_NUMBER,) * count), count + has_tail


@attrs.frozen(slots=True)
class _Layout:
    """How one class goes to numbers and tail, and back."""

    kind: Kind
    tail: _Tail
    numbers_of: Callable[[Any], _Numbers]
    tail_of: Callable[[Any], Any] | None
    """None if there is no tail."""
    build: Callable[[_Numbers, Any], PeerMessage]
    """Gets as many numbers as ``number_count`` says."""
    number_count: int
    """How many numbers there are; for each item of the tail if ``per_item``."""
    per_item: bool = False
    shape: _Shape | None = attrs.field(init=False)
    """Of the numbers, if there are always as many."""

    @shape.default
    def _shape_of_all(self) -> _Shape | None:
        return None if self.per_item else _shape_of(self.number_count, has_tail=self.tail_of is not None)


def _truth(number: int) -> bool:
    if number > 1:
        raise BadMessage(f"a truth value is 0 or 1, not {number}")
    return number == 1


def _build_request_vote(numbers: _Numbers, _tail: None) -> RequestVote:
    term, candidate_id, last_log_index, last_log_term, pre_vote, transfer = numbers
    return RequestVote(term, candidate_id, last_log_index, last_log_term, _truth(pre_vote), _truth(transfer))


def _build_request_vote_result(numbers: _Numbers, _tail: None) -> RequestVoteResult:
    term, vote_granted, pre_vote = numbers
    return RequestVoteResult(term, _truth(vote_granted), _truth(pre_vote))


def _build_append_entries(numbers: _Numbers, entries: tuple[bytes, ...]) -> AppendEntries:
    term, leader_id, prev_log_index, prev_log_term, entries_term, leader_commit, round_number, may_be_silent = numbers
    return AppendEntries(
        *(term, leader_id, prev_log_index, prev_log_term, entries_term, entries),
        *(leader_commit, round_number, _truth(may_be_silent)),
    )


def _build_append_entries_result(numbers: _Numbers, _tail: None) -> AppendEntriesResult:
    term, success, match_index, conflict_index, conflict_term, round_number = numbers
    return AppendEntriesResult(term, _truth(success), match_index, conflict_index, conflict_term, round_number)


def _build_install_snapshot(numbers: _Numbers, data: bytes) -> InstallSnapshot:
    term, leader_id, last_included_index, last_included_term, offset, done, round_number = numbers
    return InstallSnapshot(
        term, leader_id, last_included_index, last_included_term, offset, data, _truth(done), round_number
    )


def _build_install_snapshot_result(numbers: _Numbers, _tail: None) -> InstallSnapshotResult:
    term, last_included_index, offset, installed, round_number = numbers
    return InstallSnapshotResult(term, last_included_index, offset, _truth(installed), round_number)


def _numbers_of_read_index_result(message: ReadIndexResult) -> _Numbers:
    # One more than it is, since -1 ("could not tell") is a value of it.
    return message.term, message.barrier, message.read_index + 1


def _build_read_index_result(numbers: _Numbers, _tail: None) -> ReadIndexResult:
    term, barrier, read_index_and_one = numbers
    return ReadIndexResult(term, barrier, read_index_and_one - 1)


def _numbers_of_proposals(message: Proposals) -> _Numbers:
    if len(message.items) > PROPOSALS_COUNT_MAX:
        raise BadMessage(f"{len(message.items)} proposals in one message, more than {PROPOSALS_COUNT_MAX}")
    return tuple(number for item in message.items for number in (item.session, item.sequence, item.acknowledged))


def _build_proposals(numbers: _Numbers, payloads: tuple[bytes, ...]) -> Proposals:
    return Proposals(tuple(map(Propose, numbers[0::3], numbers[1::3], numbers[2::3], payloads)))


_LAYOUTS: Mapping[type[Any], _Layout] = {
    RequestVote: _Layout(
        Kind.REQUEST_VOTE,
        _Tail.NOTHING,
        attrgetter("term", "candidate_id", "last_log_index", "last_log_term", "pre_vote", "leadership_transfer"),
        None,
        _build_request_vote,
        number_count=6,
    ),
    RequestVoteResult: _Layout(
        Kind.REQUEST_VOTE_RESULT,
        _Tail.NOTHING,
        attrgetter("term", "vote_granted", "pre_vote"),
        None,
        _build_request_vote_result,
        number_count=3,
    ),
    AppendEntries: _Layout(
        Kind.APPEND_ENTRIES,
        _Tail.BYTE_STRINGS,
        attrgetter(
            "term",
            "leader_id",
            "prev_log_index",
            "prev_log_term",
            "entries_term",
            "leader_commit",
            "round_number",
            "may_be_silent",
        ),
        attrgetter("entries"),
        _build_append_entries,
        number_count=8,
    ),
    AppendEntriesResult: _Layout(
        Kind.APPEND_ENTRIES_RESULT,
        _Tail.NOTHING,
        attrgetter("term", "success", "match_index", "conflict_index", "conflict_term", "round_number"),
        None,
        _build_append_entries_result,
        number_count=6,
    ),
    InstallSnapshot: _Layout(
        Kind.INSTALL_SNAPSHOT,
        _Tail.BYTES,
        attrgetter("term", "leader_id", "last_included_index", "last_included_term", "offset", "done", "round_number"),
        attrgetter("data"),
        _build_install_snapshot,
        number_count=7,
    ),
    InstallSnapshotResult: _Layout(
        Kind.INSTALL_SNAPSHOT_RESULT,
        _Tail.NOTHING,
        attrgetter("term", "last_included_index", "offset", "installed", "round_number"),
        None,
        _build_install_snapshot_result,
        number_count=5,
    ),
    TimeoutNow: _Layout(
        Kind.TIMEOUT_NOW,
        _Tail.NOTHING,
        lambda message: (message.term,),
        None,
        lambda numbers, _tail: TimeoutNow(*numbers),
        number_count=1,
    ),
    ReadIndex: _Layout(
        Kind.READ_INDEX,
        _Tail.NOTHING,
        attrgetter("term", "barrier"),
        None,
        lambda numbers, _tail: ReadIndex(*numbers),
        number_count=2,
    ),
    ReadIndexResult: _Layout(
        Kind.READ_INDEX_RESULT,
        _Tail.NOTHING,
        _numbers_of_read_index_result,
        None,
        _build_read_index_result,
        number_count=3,
    ),
    Proposals: _Layout(
        Kind.PROPOSALS,
        _Tail.BYTE_STRINGS,
        _numbers_of_proposals,
        lambda message: [item.payload for item in message.items],
        _build_proposals,
        number_count=3,
        per_item=True,
    ),
}

_LAYOUT_BY_KIND: Mapping[int, _Layout] = {int(layout.kind): layout for layout in _LAYOUTS.values()}


def encode(message: PeerMessage, clock_us: int, flags: int) -> bytes:
    """The bytes of one message. Its numbers are to be below 2**63: :func:`decode` refuses larger ones.

    Raises:
        BadMessage: a number is below 0 or takes more than eight bytes, or there are more than
            PROPOSALS_COUNT_MAX proposals.
    """
    layout = _LAYOUTS[type(message)]
    numbers = layout.numbers_of(message)
    count = _COUNT_IN_HEAD + len(numbers) + (layout.tail_of is not None)
    try:
        head = _HEAD.pack(_ARRAY_SHORT, count, _NUMBER, clock_us, _NUMBER, flags, _NUMBER, layout.kind)
        head = _NUMBER_MARK.join((head, *map(_pack_number, numbers)))
    except error as why:
        raise BadMessage(f"{layout.kind.name} has a number that cannot be sent: {why}") from why
    if layout.tail_of is None:
        return head
    tail = layout.tail_of(message)
    if layout.tail is _TAIL_OF_BYTES:
        return b"".join((head, _pack_item_head(_BYTES, len(tail)), tail))
    parts = [head, _pack_item_head(_ARRAY, len(tail))]
    for item in tail:
        parts += (_pack_item_head(_BYTES, len(item)), item)
    return b"".join(parts)


def decode(data: Chunk) -> Envelope:
    """The message that the bytes say, which may be changed afterwards.

    Raises:
        BadMessage: they are not exactly one message of the shape that the module describes.
    """
    if len(data) < _HEAD.size:
        raise BadMessage("too short for a message")
    layout = _LAYOUT_BY_KIND.get(data[_KIND_OFFSET])
    if layout is None:
        raise BadMessage(f"of unknown kind {data[_KIND_OFFSET]}")
    struct, marks, count = layout.shape or _shape_with_items(data, layout)
    offset = struct.size
    if len(data) < offset:
        raise BadMessage("cut short in its numbers")
    values = struct.unpack_from(data)
    numbers = values[1::2]
    if values[0::2] != marks or min(numbers) < 0:
        raise BadMessage("has something else for a number")
    if numbers[0] != count:
        raise BadMessage(f"{layout.kind.name} of a wrong length")
    if numbers[_COUNT_IN_HEAD] != layout.kind:
        raise BadMessage(f"of unknown kind {numbers[_COUNT_IN_HEAD]}")
    tail: bytes | tuple[bytes, ...] | None = None
    if layout.tail_of is None:
        if len(data) != offset:
            raise BadMessage("goes on behind its end")
    elif layout.tail is _TAIL_OF_BYTES:
        tail = _decode_bytes(data, offset)
    else:
        tail = _decode_byte_strings(data, offset)
        if layout.per_item and len(tail) * layout.number_count != len(numbers) - 1 - _COUNT_IN_HEAD:
            raise BadMessage("numbers for more or fewer items than there are")
    return Envelope(numbers[1], numbers[2], layout.build(numbers[1 + _COUNT_IN_HEAD :], tail))


def _shape_with_items(data: Chunk, layout: _Layout) -> _Shape:
    """The shape that a message claims to have."""
    own_count = (data[1] << 8 | data[2]) - 1 - _COUNT_IN_HEAD
    if not 0 <= own_count <= layout.number_count * PROPOSALS_COUNT_MAX or own_count % layout.number_count:
        raise BadMessage(f"{layout.kind.name} of a wrong length")
    return _shape_of(own_count, has_tail=True)


def _decode_item_head(data: Chunk, offset: int, expected_mark: int) -> int:
    """The length that the item at the offset declares: of its bytes, or of its items."""
    if len(data) < offset + _ITEM_HEAD_BYTES:
        raise BadMessage("cut short before its tail")
    mark, length = _unpack_item_head(data, offset)
    if mark != expected_mark:
        raise BadMessage("has something else for its tail")
    return int(length)


def _decode_bytes(data: Chunk, offset: int) -> bytes:
    size_bytes = _decode_item_head(data, offset, _BYTES)
    offset += _ITEM_HEAD_BYTES
    if len(data) != offset + size_bytes:
        raise BadMessage("tail of a wrong length")
    return bytes(data[offset:])


def _decode_byte_strings(data: Chunk, offset: int) -> tuple[bytes, ...]:
    count = _decode_item_head(data, offset, _ARRAY)
    offset += _ITEM_HEAD_BYTES
    end = len(data)
    if count * _ITEM_HEAD_BYTES > end - offset:
        raise BadMessage("tail of more items than there is room for")
    items = []
    for _ in range(count):
        start = offset + _ITEM_HEAD_BYTES
        if start > end:
            raise BadMessage("tail cut short")
        mark, size_bytes = _unpack_item_head(data, offset)
        offset = start + size_bytes
        if mark != _BYTES or offset > end:
            raise BadMessage("tail holds something else than whole byte strings")
        items.append(bytes(data[start:offset]))
    if offset != end:
        raise BadMessage("goes on behind its end")
    return tuple(items)
