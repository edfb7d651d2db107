"""What stands in a log entry: the table of the module, there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftnode.entries import (
    HEADER_BYTES,
    VIEW_BYTES_MIN,
    BadEntry,
    Entry,
    EntryKind,
    decode,
    encode_batch,
    encode_open_session,
    encode_tick,
    stamp_of,
)

NUMBERS = st.integers(0, 2**63 - 1)


@pytest.mark.parametrize(
    ("encoded", "entry"),
    [
        (encode_tick(7), (EntryKind.TICK, 7, 0, 0, 0, b"")),
        (encode_open_session(7, 3, 99), (EntryKind.OPEN_SESSION, 7, 3, 99, 0, b"")),
        (encode_batch(7, 11, 5, 4, b"payload"), (EntryKind.BATCH, 7, 11, 5, 4, b"payload")),
        (encode_batch(7, 11, 5, 4, b""), (EntryKind.BATCH, 7, 11, 5, 4, b"")),
    ],
)
def test_every_kind_there_and_back(encoded: bytes, entry: Entry) -> None:
    assert decode(encoded) == entry
    assert stamp_of(encoded) == entry[1]
    assert len(encoded) == HEADER_BYTES + len(entry[-1])


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.binary())
def test_any_batch_there_and_back(
    stamp_us: int, session: int, sequence: int, acknowledged: int, payload: bytes
) -> None:
    entry = (EntryKind.BATCH, stamp_us, session, sequence, acknowledged, payload)
    assert decode(encode_batch(stamp_us, session, sequence, acknowledged, payload)) == entry


def test_a_long_payload_is_a_view_of_its_entry() -> None:
    long = encode_batch(7, 11, 5, 4, b"x" * VIEW_BYTES_MIN)
    payload = decode(long)[-1]
    assert isinstance(payload, memoryview)
    assert payload.obj is long
    assert payload == long[HEADER_BYTES:]


def test_the_empty_entry_that_begins_a_term_has_no_stamp() -> None:
    assert stamp_of(b"") == 0


@pytest.mark.parametrize(
    "encoded", [b"", encode_tick(1)[:-1], b"\x00" + encode_tick(1)[1:], b"\x04" + encode_tick(1)[1:]]
)
def test_what_cannot_be_read(encoded: bytes) -> None:
    with pytest.raises(BadEntry, match=f"an entry of {len(encoded)} bytes"):
        decode(encoded)


@pytest.mark.parametrize("position", [1, 9, 17, 25])
def test_numbers_of_64_bits_are_refused_since_no_message_and_no_snapshot_can_say_them(position: int) -> None:
    encoded = bytearray(encode_tick(1))
    encoded[position] = 0x80
    with pytest.raises(BadEntry, match="out of range"):
        decode(bytes(encoded))


@pytest.mark.parametrize("encoded", [b"x", encode_tick(1)[:-1], b"\x04" + encode_tick(1)[1:]])
def test_the_stamp_of_what_cannot_be_read(encoded: bytes) -> None:
    with pytest.raises(BadEntry):
        stamp_of(encoded)


@given(st.binary())
def test_any_bytes_are_an_entry_or_bad(encoded: bytes) -> None:
    try:
        entry = decode(encoded)
    except BadEntry:
        return
    assert encoded == encoded[:1] + encode_batch(*entry[1:-1], bytes(entry[-1]))[1:]
