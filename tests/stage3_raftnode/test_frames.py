"""Messages cut into frames, queued, and put together again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftnode.frames import (
    FRAME_BYTES_MAX,
    HEAD_BYTES,
    ROOM_BYTES_MIN,
    VIEW_BYTES_MIN,
    BadFrame,
    Channel,
    FrameDecoder,
    frame,
    frame_head,
    parse_head,
)
from raftnode.outbox import CHUNK_BYTES, URGENT_BYTES_MAX, Outbox


def outbox(bulk_bytes_max: int = 10**9, urgent_count_max: int = 100) -> Outbox:
    return Outbox(bulk_bytes_max, urgent_count_max)


def feed_in_steps(decoder: FrameDecoder, data: bytes, step_bytes: int) -> list[bytes]:
    return [message for at in range(0, len(data), step_bytes) for message in decoder.feed(data[at : at + step_bytes])]


def drain(box: Outbox, step_bytes: int = 10**9) -> bytes:
    sent = []
    while chunk := peeked(box):
        sent.append(chunk[:step_bytes])
        box.advance(len(sent[-1]))
    return b"".join(sent)


def peeked(box: Outbox) -> bytes:
    return b"".join(box.peek())


def test_a_frame_is_a_head_and_a_piece() -> None:
    data = frame(b"hello", Channel.URGENT)
    assert len(data) == HEAD_BYTES + 5
    assert parse_head(data, 0) == (5, Channel.URGENT, 0)
    assert FrameDecoder().feed(data) == [b"hello"]


def test_many_messages_in_one_chunk_keep_their_order() -> None:
    messages = [bytes([number]) * number for number in range(200)]
    assert FrameDecoder().feed(b"".join(map(frame, messages))) == messages


def test_a_message_may_come_byte_by_byte() -> None:
    decoder = FrameDecoder()
    data = frame(b"one") + frame(b"") + frame(b"two", Channel.URGENT)
    assert feed_in_steps(decoder, data, 1) == [b"one", b"", b"two"]
    assert decoder.is_between_messages


@given(
    st.lists(st.tuples(st.binary(max_size=40), st.sampled_from(Channel), st.integers(1, 7)), max_size=12),
    st.lists(st.integers(1, 30), min_size=1, max_size=20),
)
def test_chunks_of_any_size_give_the_same_messages(
    messages: list[tuple[bytes, Channel, int]], sizes: list[int]
) -> None:
    stream = b""
    expected = []
    for message, channel, piece_bytes in messages:
        pieces = [message[at : at + piece_bytes] for at in range(0, len(message), piece_bytes)] or [b""]
        for number, piece in enumerate(pieces, start=1):
            stream += frame_head(len(piece), channel, more=number < len(pieces)) + piece
        expected.append(message)
    decoder = FrameDecoder()
    decoded: list[bytes] = []
    offset = 0
    while offset < len(stream):
        size = sizes[len(decoded) % len(sizes)]
        decoded += decoder.feed(stream[offset : offset + size])
        offset += size
    assert decoded == expected == FrameDecoder().feed(stream)
    assert decoder.is_between_messages


@pytest.mark.parametrize("chunk_bytes", [1000, FRAME_BYTES_MAX, 10**7])
def test_a_large_message_is_cut_and_joined(chunk_bytes: int) -> None:
    message = bytes(range(256)) * (3 * FRAME_BYTES_MAX // 256)
    box = outbox()
    box.put(message)
    data = drain(box)
    assert parse_head(data, 0) == (FRAME_BYTES_MAX, Channel.BULK, 1)
    assert feed_in_steps(FrameDecoder(), data, chunk_bytes) == [message]


def test_a_big_message_is_a_view_until_there_is_to_be_room_for_more() -> None:
    decoder = FrameDecoder()
    small, big = b"a" * (VIEW_BYTES_MIN - 1), b"b" * VIEW_BYTES_MIN
    assert decoder.feed(frame(big)) == [big]  # Now the buffer has room for such messages.
    data = frame(small) + frame(big)
    decoder.room()[: len(data)] = data
    kept_small, kept_big = decoder.received(len(data))
    assert type(kept_small) is bytes
    assert type(kept_big) is memoryview
    assert kept_small == small
    assert kept_big == big
    decoder.room()[:] = bytes(len(decoder.room()))
    assert kept_small == small
    assert kept_big != big


@given(
    sizes=st.lists(st.sampled_from([0, 1, 4_000, 9_000, VIEW_BYTES_MIN, 300_000, FRAME_BYTES_MAX]), max_size=8),
    arrivals=st.lists(st.sampled_from([1, 5, 4_096, 100_000, 700_000, 10**7]), min_size=1, max_size=8),
)
def test_the_room_is_never_too_small_for_what_comes(sizes: list[int], arrivals: list[int]) -> None:
    """A frame that the buffer's end cuts is moved; messages are what they were sent as."""
    messages = [bytes([1 + place]) * size for place, size in enumerate(sizes)]
    left = memoryview(b"".join(map(frame, messages)))
    decoder = FrameDecoder()
    got: list[bytes] = []
    turn = 0
    while left:
        room = decoder.room()
        assert len(room) >= ROOM_BYTES_MIN
        arrived = min(len(room), arrivals[turn % len(arrivals)] if turn < 50 else 10**7)
        turn += 1
        chunk = left[:arrived]
        room[: len(chunk)] = chunk
        got += map(bytes, decoder.received(len(chunk)))
        left = left[len(chunk) :]
    assert got == messages
    assert decoder.is_between_messages


def test_an_urgent_message_passes_between_the_pieces_of_another() -> None:
    decoder = FrameDecoder()
    head = frame_head(3, Channel.BULK, more=True)
    assert decoder.feed(head + b"abc" + frame(b"now!", Channel.URGENT)) == [b"now!"]
    assert not decoder.is_between_messages
    assert decoder.feed(frame(b"def")) == [b"abcdef"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n", "no such channel"),
        (b"\0\0\0\1\2\0x", "no such channel"),
        (b"\0\0\0\1\0\2x", "no such channel or flag"),
        (frame_head(FRAME_BYTES_MAX + 1, Channel.BULK, more=False), f"a frame of {FRAME_BYTES_MAX + 1} bytes"),
        (frame_head(0, Channel.BULK, more=True), "empty piece"),
        (
            frame_head(600, Channel.BULK, more=True) + bytes(600) + frame_head(500, Channel.BULK, more=True),
            "1100 bytes",
        ),
        (frame_head(1001, Channel.URGENT, more=False), "1001 bytes"),
    ],
)
@pytest.mark.parametrize("step_bytes", [1, 1000])
def test_what_is_no_frame_is_refused_for_good(data: bytes, why: str, step_bytes: int) -> None:
    decoder = FrameDecoder(message_bytes_max=10**9 if "a frame of" in why else 1000)
    with pytest.raises(BadFrame, match=why):
        feed_in_steps(decoder, data, step_bytes)
    with pytest.raises(BadFrame, match=why):
        decoder.feed(frame(b"fine by itself"))


@given(st.binary(max_size=100))
def test_any_bytes_give_messages_or_are_refused(data: bytes) -> None:
    try:
        FrameDecoder(50).feed(data)
    except BadFrame:
        pass


def test_an_empty_outbox_has_nothing_to_send() -> None:
    box = outbox()
    assert box.is_empty
    assert not box.peek()


def test_what_was_not_sent_is_given_again() -> None:
    box = outbox()
    box.put(b"one")
    box.put(b"two", urgent=True)
    box.put(b"x" * (2 * FRAME_BYTES_MAX + 10))
    assert box.queued_bytes == 2 * FRAME_BYTES_MAX + 13
    assert FrameDecoder().feed(drain(box, step_bytes=999)) == [b"two", b"one", b"x" * (2 * FRAME_BYTES_MAX + 10)]
    assert box.is_empty
    assert box.queued_bytes == 0


def test_small_messages_go_together() -> None:
    box = outbox()
    for number in range(1000):
        box.put(bytes([number % 256]) * 100)
    assert len(peeked(box)) == 1000 * (100 + HEAD_BYTES)


def test_urgent_messages_wait_for_one_chunk_only() -> None:
    box = outbox()
    box.put(b"x" * 10 * FRAME_BYTES_MAX)
    assert len(peeked(box)) <= CHUNK_BYTES
    box.put(b"now", urgent=True)
    box.advance(len(peeked(box)))
    assert parse_head(peeked(box), 0) == (3, Channel.URGENT, 0)


def test_a_large_message_is_never_urgent() -> None:
    box = outbox()
    box.put(b"x" * (URGENT_BYTES_MAX + 1), urgent=True)
    assert parse_head(peeked(box), 0)[1] == Channel.BULK


def test_bulk_over_the_limit_is_refused_newest_first() -> None:
    box = outbox(bulk_bytes_max=10)
    assert box.put(b"x" * 50)  # alone it may be of any size
    assert not box.put(b"y")
    assert box.dropped_count == 1
    assert FrameDecoder().feed(drain(box)) == [b"x" * 50]
    assert box.put(b"a" * 6)
    assert box.put(b"b" * 4)
    assert not box.has_room(1)
    assert FrameDecoder().feed(drain(box)) == [b"a" * 6, b"b" * 4]


def test_urgent_over_the_limit_pushes_out_the_oldest() -> None:
    box = outbox(urgent_count_max=2)
    for message in (b"1", b"2", b"3"):
        assert box.put(message, urgent=True)
    assert box.dropped_count == 1
    assert FrameDecoder().feed(drain(box)) == [b"2", b"3"]


def test_after_a_restart_a_cut_message_is_sent_from_its_beginning() -> None:
    box = outbox()
    message = b"x" * (3 * FRAME_BYTES_MAX)
    box.put(message)
    box.advance(len(peeked(box)))
    box.advance(len(peeked(box)) // 2)
    assert box.queued_bytes == FRAME_BYTES_MAX
    box.restart()
    assert box.queued_bytes == len(message)
    assert FrameDecoder().feed(drain(box)) == [message]


def test_the_rest_of_a_direct_send_goes_first() -> None:
    box = outbox()
    data = frame(b"hello")
    box.put_unsent(memoryview(data)[4:])
    box.put(b"later", urgent=True)
    assert FrameDecoder().feed(data[:4] + drain(box)) == [b"hello", b"later"]


def test_a_cleared_outbox_is_empty() -> None:
    box = outbox()
    box.put(b"x" * (FRAME_BYTES_MAX + 1))
    box.put(b"y", urgent=True)
    box.advance(len(peeked(box)) // 2)
    box.clear()
    assert box.is_empty
    assert box.queued_bytes == 0
