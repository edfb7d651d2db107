"""Fuzz targets for what other servers, or whoever gets to their port, send: hellos, frames, messages."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from random import Random
from struct import Struct
from typing import Final

import cbor2
import pytest

from raftnode import codec, frames, hello
from raftnode.codec import BadMessage, PeerMessage
from raftnode.frames import HEAD_BYTES, BadFrame, Channel, FrameDecoder, frame, frame_head
from raftnode.hello import BadHello, Hello, HelloAnswer, decode_answer, decode_hello, encode_answer, encode_hello
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
from tests.fuzzing.cbor_changes import with_one_change
from tests.fuzzing.containers import chunks
from tests.fuzzing.target import Target, with_constants

CBOR_TOKENS: Final = (
    *(b"\x1b" + b"\xff" * 8, b"\x1b\x7f" + b"\xff" * 7, b"\x3b" + b"\xff" * 8, b"\x20", b"\x18\xff", b"\x00", b"\x40"),
    *(
        b"\x5b\x7f" + b"\xff" * 7,
        b"\x5a\xff\xff\xff\xff",
        b"\x9a\xff\xff\xff\xff",
        b"\x9b\x00\x00\x00\x01\x00\x00\x00\x00",
    ),
    *(
        b"\xba\xff\xff\xff\xff",
        b"\x80",
        b"\x81",
        b"\xa0",
        b"\xa1",
        b"\x9f",
        b"\x5f",
        b"\x7f",
        b"\xff",
        b"\xf6",
        b"\xf5",
    ),
    *(b"\xfb\x7f\xf8\0\0\0\0\0\0", b"\xf9\x7c\x00", b"\xc2\x49\x01" + bytes(8), b"\xc1", b"\xc4", b"\xc5", b"\xd8\x1c"),
    *(
        b"\xd8\x1d\x00",
        b"\xd8\x23",
        b"\xd8\x24",
        b"\xd8\x25",
        b"\xd9\x01\x02",
        b"\xd9\x01\x04",
        b"\xd9\xd9\xf7",
        b"\x81" * 500,
    ),
)
"""Numbers, strings, arrays and maps at the edges, indefinite lengths, tags that build things."""

# --------------------------------------------------------------------------------------------- frames

MESSAGE_BYTES_MAX: Final = 300
FRAME_BYTES_MAX: Final = 100


def _messages_of(pieces: Iterable[bytes]) -> tuple[list[bytes], bool, bool]:
    """The messages, whether the stream is broken at the end, and whether it is between two messages."""
    decoder = FrameDecoder(MESSAGE_BYTES_MAX)
    messages: list[bytes] = []
    try:
        for piece in pieces:
            messages += decoder.feed(piece)
    except BadFrame as error:
        with pytest.raises(BadFrame, match=re.escape(str(error))):
            decoder.feed(b"")
        return messages, True, False
    return messages, False, decoder.is_between_messages


def run_frames(data: bytes) -> Hashable:
    """First byte: how many of those that follow say how long the chunks are; the rest: the stream."""
    plan_bytes = data[0] % 8 if data else 0
    plan, stream = data[1 : 1 + plan_bytes], data[1 + plan_bytes :]
    messages, is_broken, is_between = _messages_of([stream])
    in_chunks, is_chunked_broken, is_chunked_between = _messages_of(chunks(stream, plan))
    assert (is_broken, is_between) == (is_chunked_broken, is_chunked_between)
    # A broken stream gives what came before only if that came in an earlier chunk.
    assert is_broken or messages == in_chunks
    assert all(len(message) <= MESSAGE_BYTES_MAX for message in in_chunks)
    assert sum(map(len, in_chunks)) + HEAD_BYTES * len(in_chunks) <= len(stream)
    if is_broken:
        _messages_of([stream])
    return min(len(in_chunks), 5), is_broken, is_between


def frames_examples() -> list[bytes]:
    in_pieces = frame_head(100, Channel.BULK, more=True) + bytes(100)
    in_pieces += frame(b"urgent", Channel.URGENT) + frame_head(50, Channel.BULK, more=False) + bytes(50)
    streams = (frame(b""), frame(b"hello"), frame(b"a" * 100) + frame(b"b", Channel.URGENT), in_pieces, in_pieces * 2)
    return [bytes([len(plan)]) + plan + each for each in streams for plan in (b"", b"\x01", b"\x05\x09")]


FRAMES = Target(
    "frames",
    (frames,),
    run_frames,
    (),
    frames_examples,
    tokens=tuple(
        frame_head(size, channel, more=more)
        for size in (0, 1, 5, 99, 100, 101)
        for channel in Channel
        for more in (False, True)
    ),
    environment=with_constants((frames, "FRAME_BYTES_MAX", FRAME_BYTES_MAX)),
)

# ------------------------------------------------------------------------------------------- messages

_LARGEST: Final = 2**63 - 1

MESSAGES: Final[tuple[PeerMessage, ...]] = (
    RequestVote(7, 2, 100, 6, pre_vote=True),
    RequestVote(7, 2, 100, 6, leadership_transfer=True),
    RequestVoteResult(7, vote_granted=True),
    AppendEntries(7, 1, 99, 6, 0, (), 98, 12),
    AppendEntries(7, 1, 99, 6, 7, (b"entry", b"", b"another one"), 98, 12),
    AppendEntries(_LARGEST, _LARGEST, _LARGEST, _LARGEST, _LARGEST, (b"", b"x" * 300), _LARGEST, _LARGEST),
    AppendEntriesResult(7, False, 100, 40, 3, 12),
    InstallSnapshot(7, 1, 100, 6, 4096, b"chunk", True, 12),
    InstallSnapshotResult(7, 100, 4101, True, 12),
    TimeoutNow(7),
    ReadIndex(7, 31),
    ReadIndexResult(7, 31, 100),
    ReadIndexResult(7, 31, -1),
    Proposals(()),
    Proposals((Propose(5, 1, 0, b"one"), Propose(5, 2, 1, b""))),
)

_COUNT_OFFSET: Final = 1
_COUNT: Final = Struct(">H")
_KIND_OFFSET: Final = 29


def run_codec(data: bytes) -> Hashable:
    """One message. There is one way only to write each, so what is accepted is exactly what would be sent."""
    envelope = codec.decode(data)
    assert codec.encode(envelope.message, envelope.clock_us, envelope.flags) == data
    return type(envelope.message).__name__


def repair_count(data: bytes, random: Random) -> bytes:
    """The outer array's count and the message's kind as those of some message: what else is wrong gets looked at."""
    if len(data) <= _KIND_OFFSET:
        return data
    model = codec.encode(random.choice(MESSAGES), 0, 0)
    fixed = bytearray(data)
    fixed[0] = model[0]
    fixed[_COUNT_OFFSET : _COUNT_OFFSET + 2] = model[_COUNT_OFFSET : _COUNT_OFFSET + 2]
    fixed[_KIND_OFFSET] = model[_KIND_OFFSET]
    return bytes(fixed)


CODEC = Target(
    "codec",
    (codec,),
    run_codec,
    (BadMessage,),
    lambda: [codec.encode(message, 123_456, 5) for message in MESSAGES],
    tokens=(b"\x1b" + bytes(7) + b"\x01", b"\x5a\0\0\0\x02ab", b"\x9a\0\0\0\x01", *CBOR_TOKENS),
    repair=repair_count,
)

# --------------------------------------------------------------------------------------------- hellos


def run_hello(data: bytes) -> Hashable:
    """First byte odd: the answer to a hello; else a hello. Then its bytes."""
    content = data[1:]
    if data[:1] and data[0] % 2:
        answer = decode_answer(content)
        if answer.hello.protocol_version != hello.PROTOCOL_VERSION:
            return "answer of another version"
        assert decode_answer(encode_answer(answer)).hello == answer.hello
        return "answer", answer.refusal == "", _welcome_of(answer.hello)
    greeting = decode_hello(content)
    if greeting.protocol_version != hello.PROTOCOL_VERSION:
        return "another version"
    assert decode_hello(encode_hello(greeting)) == greeting
    return _welcome_of(greeting)


def _welcome_of(theirs: Hello) -> str:
    why = hello.why_unwelcome(theirs, Hello(hello.PROTOCOL_VERSION, "demo", 1), {2, 3}) or ""
    assert why.isprintable()
    return why[:10]


def hello_examples() -> list[bytes]:
    hellos = (Hello(1, "demo", 2), Hello(1, "Größe" * 20, 10**6), Hello(2, "", 0))
    answers = [HelloAnswer(each, refusal) for each in hellos for refusal in ("", "you are not expected here")]
    later = cbor2.dumps(["raftnode", 9, "whatever", b"comes", 1.5])
    return (
        [b"\0" + encode_hello(each) for each in hellos]
        + [b"\1" + encode_answer(each) for each in answers]
        + [b"\0" + later]
    )


HELLO = Target(
    "hello",
    (hello,),
    run_hello,
    (BadHello,),
    hello_examples,
    tokens=(b"\x68raftnode", *CBOR_TOKENS),
    repair=lambda data, random: data[:1] + with_one_change(data[1:], random),
)
