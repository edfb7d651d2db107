"""The request parser: every form and fault of the contract, in any chunks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fileserver.commands import ANY_VERSION, APPEND, CAS, DELETE, KEEP_EXPTIME, TOUCH, WRITE
from fileserver.parser import RequestParser, parse_whole
from fileserver.records import PART_BYTES
from fileserver.requests import HELP, LIST, QUIT, READ, STAT, STATUS, VERSION_MAX, BadRequest, Request

MAX_FILE_BYTES = 1000
"""The limit of most tests' parsers."""


def parse(*chunks: bytes, max_file_bytes: int = MAX_FILE_BYTES) -> list[Request | BadRequest]:
    """Feed the chunks one by one and take all requests after each."""
    parser = RequestParser(max_file_bytes)
    requests = []
    for chunk in chunks:
        parser.feed(chunk)
        while (request := parser.next_request()) is not None:
            requests.append(request)
    return requests


def whys(requests: Sequence[Request | BadRequest]) -> list[tuple[str, bool]]:
    """Take what went wrong, where only that is expected."""
    faults = [request for request in requests if isinstance(request, BadRequest)]
    assert len(faults) == len(requests), requests
    return [(fault.why, fault.close) for fault in faults]


GOOD = [
    (b"read x\r\n", Request(READ, b"x", 0, 0, b"")),
    (b"read x\n", Request(READ, b"x", 0, 0, b"")),
    (b"  read   x  \r\n", Request(READ, b"x", 0, 0, b"")),
    (b"stat a/b\r\n", Request(STAT, b"a/b", 0, 0, b"")),
    (b"list\r\n", Request(LIST, b"", 0, 0, b"")),
    (b"list a/\r\n", Request(LIST, b"a/", 0, 0, b"")),
    (b"status\r\n", Request(STATUS, b"", 0, 0, b"")),
    (b"help\r\n", Request(HELP, b"", 0, 0, b"")),
    (b"quit\r\n", Request(QUIT, b"", 0, 0, b"")),
    (b"write x 3\r\nabc\r\n", Request(WRITE, b"x", 0, 0, b"abc")),
    (b"write x 3\nabc\n", Request(WRITE, b"x", 0, 0, b"abc")),
    (b"write x 3\nabc\r\n", Request(WRITE, b"x", 0, 0, b"abc")),
    (b"write x 0\r\n\r\n", Request(WRITE, b"x", 0, 0, b"")),
    (b"write x 0\n\n", Request(WRITE, b"x", 0, 0, b"")),
    (b"write x 003 007\r\nabc\r\n", Request(WRITE, b"x", 0, 7, b"abc")),
    (b"write x 4\r\n\r\n\r\n\r\n", Request(WRITE, b"x", 0, 0, b"\r\n\r\n")),
    (b"write x 2\r\n\x00\xff\r\n", Request(WRITE, b"x", 0, 0, b"\x00\xff")),
    (b"write x 1000\r\n" + b"y" * 1000 + b"\r\n", Request(WRITE, b"x", 0, 0, b"y" * 1000)),
    (b"write x 1 1000000000000\r\ny\r\n", Request(WRITE, b"x", 0, 10**12, b"y")),
    (b"write write 1 0\r\ny\r\n", Request(WRITE, b"write", 0, 0, b"y")),
    (b"cas x 12 1\r\ny\r\n", Request(CAS, b"x", 12, 0, b"y")),
    (b"cas x 0 1 5\r\ny\r\n", Request(CAS, b"x", 0, 5, b"y")),
    (b"cas x 9999999999999999999 1\r\ny\r\n", Request(CAS, b"x", VERSION_MAX, 0, b"y")),
    (b"append x 1\r\ny\r\n", Request(APPEND, b"x", MAX_FILE_BYTES, KEEP_EXPTIME, b"y")),
    (b"append x 1 0\r\ny\r\n", Request(APPEND, b"x", MAX_FILE_BYTES, 0, b"y")),
    (b"append x 1 60\r\ny\r\n", Request(APPEND, b"x", MAX_FILE_BYTES, 60, b"y")),
    (b"delete x\r\n", Request(DELETE, b"x", ANY_VERSION, 0, b"")),
    (b"delete x 7\r\n", Request(DELETE, b"x", 7, 0, b"")),
    (b"delete x 9999999999999999999\r\n", Request(DELETE, b"x", VERSION_MAX, 0, b"")),
    (b"touch x 9\r\n", Request(TOUCH, b"x", 0, 9, b"")),
    (b"touch x 0\r\n", Request(TOUCH, b"x", 0, 0, b"")),
    ("read é/日本語\r\n".encode(), Request(READ, "é/日本語".encode(), 0, 0, b"")),
    (b"read " + b"n" * 250 + b"\r\n", Request(READ, b"n" * 250, 0, 0, b"")),
    (b"read  " + "é".encode() * 125 + b" \r\n", Request(READ, "é".encode() * 125, 0, 0, b"")),
]

# Faults after which the conversation goes on: the whole request, and a word of the reason.
RECOVERABLE = [
    (b"\r\n", "empty"),
    (b"\n", "empty"),
    (b"    \r\n", "empty"),
    (b"read\r\n", "missing"),
    (b"stat\r\n", "missing"),
    (b"delete\r\n", "missing"),
    (b"touch\r\n", "missing"),
    (b"touch x\r\n", "missing"),
    (b"read x y\r\n", "too many"),
    (b"delete x 1 2\r\n", "too many"),
    (b"touch x 1 2\r\n", "too many"),
    (b"list x y\r\n", "too many"),
    (b"status x\r\n", "too many"),
    (b"help x\r\n", "too many"),
    (b"quit x\r\n", "too many"),
    (b"delete x y\r\n", "version"),
    (b"delete x -1\r\n", "version"),
    (b"touch x -1\r\n", "exptime"),
    (b"touch x 1000000000001\r\n", "exptime"),
    (b"touch x soon\r\n", "exptime"),
    (b"write x 3 -1\r\nabc\r\n", "exptime"),
    (b"write x 3 1000000000001\r\nabc\r\n", "exptime"),
    (b"write x 3 1.5\r\nabc\r\n", "exptime"),
    (b"write x 3 1 2\r\nabc\r\n", "too many"),
    (b"write x 3 x 2\r\nabc\r\n", "exptime"),
    (b"cas x y 3\r\nabc\r\n", "version"),
    (b"cas x -5 3 1 1\nabc\n", "version"),
    (b"cas x +5 3\r\n\r\n\r\r\n", "version"),
    (b"append x 0 z\r\n\r\n", "exptime"),
    (b"write " + b"n" * 251 + b" 1\r\n\n\r\n", "longer"),
    (b"write " + b"n" * 251 + b" 1 z 4\r\n\n\r\n", "longer"),
    (b"read " + b"n" * 251 + b"\r\n", "longer"),
    (b"list " + b"n" * 251 + b"\r\n", "longer"),
    (b"touch " + b"n" * 251 + b" 1\r\n", "longer"),
    (b"delete " + b"n" * 251 + b" 1\r\n", "longer"),
    (b"read " + "é".encode() * 126 + b"\r\n", "longer"),
    (b"read a\tb\r\n", "white space"),
    (b"read a\x00b\r\n", "white space"),
    (b"read a\x7f\r\n", "white space"),
    (b"read a\r\r\n", "white space"),
    ("read a\u00a0b\r\n".encode(), "white space"),
    ("read a\u0085b\r\n".encode(), "white space"),
    ("read a\u009fb\r\n".encode(), "white space"),
    ("read a\u2028b\r\n".encode(), "white space"),
    ("read a\u3000b\r\n".encode(), "white space"),
    (b"cas \x01 1 3\r\nabc\r\n", "white space"),
    (b"read \xff\r\n", "UTF-8"),
    (b"read \xed\xa0\x80\r\n", "UTF-8"),
    (b"write \xc3 3\r\nabc\r\n", "UTF-8"),
    (b"list \xc3\r\n", "UTF-8"),
]

# Faults that end the conversation: what leads to them, and a word of the reason.
FINAL = [
    (b"bogus\r\n", "unknown"),
    (b"READ x\r\n", "unknown"),
    (b"Write x 3\r\n", "unknown"),
    (b"read\tx\r\n", "unknown"),
    (b"\x00\r\n", "unknown"),
    (b"\xff\xfe\r\n", "unknown"),
    (b"write\r\n", "numbytes"),
    (b"write x\r\n", "numbytes"),
    (b"cas x 3\r\n", "numbytes"),
    (b"append x\r\n", "numbytes"),
    (b"write x -1\r\n", "numbytes"),
    (b"write x +1\r\n", "numbytes"),
    (b"write x 1_0\r\n", "numbytes"),
    (b"write x 0x10\r\n", "numbytes"),
    (b"write x 1.0\r\n", "numbytes"),
    ("write x \u0663\r\n".encode(), "numbytes"),
    ("write x \u00b2\r\n".encode(), "numbytes"),
    (b"write x 10000000000000000000\r\n", "numbytes"),
    (b"write x " + b"9" * 480 + b"\r\n", "numbytes"),
    (b"write x 1001\r\n", "larger"),
    (b"write x 9999999999999999999\r\n", "larger"),
    (b"append x 1001\r\n", "larger"),
    (b"cas x z 1001\r\n", "larger"),
    (b"write x 3\r\nabcd", "not ended"),
    (b"write x 3\r\nabc\rx", "not ended"),
    (b"write x 3\r\nabc\r\r", "not ended"),
    (b"write x 3 bad\r\nabcd", "not ended"),
    (b"x" * 500, "too long"),
    (b"x" * 500 + b"\n", "too long"),
    (b"x" * 500 + b"\r\n", "too long"),
    (b"x" * 499 + b"\rx", "too long"),
    (b"x" * 499 + b"\r\r", "too long"),
]


@pytest.mark.parametrize(("data", "request_"), GOOD)
def test_good_requests(data: bytes, request_: Request) -> None:
    assert parse(data) == [request_]


@pytest.mark.parametrize(("data", "request_"), GOOD)
def test_good_requests_byte_by_byte_and_in_a_row(data: bytes, request_: Request) -> None:
    row = data + data
    assert parse(*(row[place : place + 1] for place in range(len(row)))) == [request_, request_]


@pytest.mark.parametrize(("data", "word"), RECOVERABLE)
def test_recoverable_faults_end_with_their_request(data: bytes, word: str) -> None:
    (fault, follower) = parse(data + b"read x\r\n")
    assert isinstance(fault, BadRequest)
    assert not fault.close
    assert word in fault.why
    assert follower == Request(READ, b"x", 0, 0, b"")


@pytest.mark.parametrize(("data", "word"), RECOVERABLE)
def test_recoverable_faults_are_told_once_the_whole_request_has_come(data: bytes, word: str) -> None:
    assert parse(data[:-1]) == []
    assert len(parse(data[:-1], data[-1:])) == 1


@pytest.mark.parametrize(("data", "word"), FINAL)
def test_final_faults_end_the_conversation(data: bytes, word: str) -> None:
    ((why, close),) = whys(parse(data, b"read x\r\n", b"quit\r\n"))
    assert close
    assert word in why


@pytest.mark.parametrize(("data", "word"), FINAL)
def test_final_faults_are_found_by_their_last_byte(data: bytes, word: str) -> None:
    assert parse(data[:-1]) == [] or b"x" * 500 in data


def test_reasons_are_ascii_without_what_the_client_sent() -> None:
    for data, _ in RECOVERABLE + FINAL:
        ((why, _),) = whys(parse(data))
        assert why.isascii()
        assert why.isprintable()


def test_longest_line() -> None:
    line = b"read x".ljust(499)
    assert parse(line + b"\r\n") == parse(line + b"\n") == [Request(READ, b"x", 0, 0, b"")]
    assert parse(line, b"\r", b"\n") == [Request(READ, b"x", 0, 0, b"")]
    assert whys(parse(line + b" \n")) == whys(parse(line + b" ")) == [("line is too long", True)]


def test_line_limit_does_not_count_what_came_before() -> None:
    line = b"read x".ljust(499) + b"\r\n"
    assert len(parse(line * 20)) == 20
    assert len(parse(line + line[:250], line[250:])) == 2


def test_requests_in_one_chunk_come_one_by_one() -> None:
    parser = RequestParser(MAX_FILE_BYTES)
    parser.feed(b"read a\r\nwrite b 1\r\nx\r\nread c")
    assert parser.next_request() == Request(READ, b"a", 0, 0, b"")
    assert parser.unparsed_bytes == len(b"write b 1\r\nx\r\nread c")
    assert parser.next_request() == Request(WRITE, b"b", 0, 0, b"x")
    assert parser.next_request() is None
    assert parser.unparsed_bytes == len(b"read c")
    assert parser.in_request
    parser.feed(b"\n")
    assert parser.next_request() == Request(READ, b"c", 0, 0, b"")
    assert not parser.in_request


def test_half_a_content_is_half_a_request() -> None:
    parser = RequestParser(MAX_FILE_BYTES)
    parser.feed(b"write b 3\r\n")
    assert parser.next_request() is None
    assert parser.in_request
    parser.feed(b"abc\r")
    assert parser.next_request() is None
    assert parser.in_request
    parser.feed(b"\n")
    assert parser.next_request() == Request(WRITE, b"b", 0, 0, b"abc")
    assert not parser.in_request


@pytest.mark.parametrize("size", [PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, 5 * PART_BYTES + 77])
@pytest.mark.parametrize("chunk_bytes", [1000, 65536, PART_BYTES, 10 * PART_BYTES])
def test_big_contents_are_ropes_of_full_pieces(size: int, chunk_bytes: int) -> None:
    content = bytes(range(251)) * (size // 251 + 1)
    content = content[:size]
    data = b"write x %d\r\n%b\r\nread x\r\n" % (size, content)
    chunks = [data[place : place + chunk_bytes] for place in range(0, len(data), chunk_bytes)]
    written, follower = parse(*chunks, max_file_bytes=size)
    assert isinstance(written, Request)
    assert follower == Request(READ, b"x", 0, 0, b"")
    if size <= PART_BYTES:
        assert written.content == content
    else:
        assert isinstance(written.content, tuple)
        assert b"".join(written.content) == content
        assert {len(piece) for piece in written.content[:-1]} == {PART_BYTES}
        assert 0 < len(written.content[-1]) <= PART_BYTES


def test_half_a_request_holds_what_has_arrived_and_no_more() -> None:
    parser = RequestParser(2**40)
    parser.feed(b"write x 1000000000000\r\n")
    for _ in range(1000):
        parser.feed(b"y")
        assert parser.next_request() is None
    held = sum(sys.getsizeof(getattr(parser, slot)) for slot in RequestParser.__slots__)
    assert held < 3000


def test_a_dropped_content_is_not_held() -> None:
    parser = RequestParser(2**40)
    parser.feed(b"write x 1000000 never\r\n")
    for _ in range(999):
        parser.feed(b"y" * 1000)
        assert parser.next_request() is None
        assert sum(sys.getsizeof(getattr(parser, slot)) for slot in RequestParser.__slots__) < 1000
    parser.feed(b"y" * 1000 + b"\n")
    assert isinstance(parser.next_request(), BadRequest)


def test_what_has_been_parsed_is_let_go() -> None:
    parser = RequestParser()
    parser.feed(b"read x\r\n" * 1000 + b"re")
    while parser.next_request() is not None:
        pass
    assert sum(sys.getsizeof(getattr(parser, slot)) for slot in RequestParser.__slots__) < 1000


# Any input: bytes that look like requests, mixed with any others.

_FRAGMENTS = st.one_of(
    st.sampled_from([data for data, _ in GOOD] + [data for data, _ in RECOVERABLE] + [data for data, _ in FINAL]),
    st.sampled_from(
        [b"read", b"write", b"cas", b" ", b"x", b"7", b"3", b"\r", b"\n", b"\r\n", b"abc", b"\xc3\xa9", b"\x00"]
    ),
    st.binary(max_size=20),
)
_INPUT = st.lists(_FRAGMENTS, max_size=12).map(b"".join)


@given(data=_INPUT, cuts=st.lists(st.integers(0, 400), max_size=12))
@example(data=b"x" * 499 + b"\r\n", cuts=[499, 500])
@example(data=b"write x 3\r\nabc\r\n", cuts=[5, 14, 15])
def test_any_bytes_in_any_chunks_lead_to_the_same_requests(data: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    chunks = [data[start:end] for start, end in pairwise(places)]
    whole = parse(data)
    assert parse(*chunks) == whole
    assert all(isinstance(request, Request) or not request.close for request in whole[:-1])


@given(data=_INPUT)
def test_the_short_way_agrees_with_the_parser(data: bytes) -> None:
    request = parse_whole(data, MAX_FILE_BYTES)
    assert request is None or parse(data) == [request]


@pytest.mark.parametrize(
    ("data", "is_frequent"),
    [
        (b"write x 3\r\nabc\r\n", True),
        (b"write x 3\nabc\r\n", True),
        (b"read x\r\n", True),
        (b"read x\n", True),
        (b"write x 3\r\nabc\n", False),
        (b"write x 3\r\nabcd\n", False),
        (b"write x 3\r\nab", False),
        (b"write x 3\r\nabc\r\nread x\r\n", False),
        (b"write x 1001\r\n" + b"y" * 1001 + b"\r\n", False),
        (b"read x\r\nread x\r\n", False),
        (b"read " + b"n" * 251 + b"\r\n", False),
        (b"list\r\n", False),
        (b"", False),
    ],
)
def test_the_short_way_takes_single_whole_requests(data: bytes, is_frequent: bool) -> None:
    assert (parse_whole(data, MAX_FILE_BYTES) is not None) == is_frequent


def test_the_short_way_leaves_big_contents_to_the_parser() -> None:
    content = b"y" * (PART_BYTES + 1)
    assert parse_whole(b"write x %d\r\n%b\r\n" % (len(content), content), 10**9) is None
