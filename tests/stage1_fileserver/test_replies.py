"""Replies, byte by byte."""

from __future__ import annotations

import pytest

from fileserver.backend import Failure, FailureKind
from fileserver.commands import Refusal, Result
from fileserver.records import Record
from fileserver.replies import (
    HELP_REPLY,
    JOINED_BYTES_MAX,
    bad_request_reply,
    change_reply,
    contents_reply,
    list_line,
    remaining_seconds,
    sized_reply,
    stat_reply,
)


@pytest.mark.parametrize(
    ("result", "reply"),
    [
        (7, b"OK 7\r\n"),
        (0, b"OK\r\n"),
        ((Refusal.NOT_FOUND, 0), b"ERR_FILE_NOT_FOUND\r\n"),
        ((Refusal.VERSION, 12), b"ERR_VERSION 12\r\n"),
        ((Refusal.TOO_LARGE, 12), b"ERR_CMD_ERR the file would become too large\r\n"),
        ((Refusal.UPLOAD_LOST, 0), b"ERR_INTERNAL not applied: the content was lost on its way\r\n"),
        ((2, 12), b"ERR_VERSION 12\r\n"),
    ],
)
def test_what_became_of_a_change(result: Result, reply: bytes) -> None:
    assert change_reply(result) == reply


@pytest.mark.parametrize(
    ("failure", "reply"),
    [
        (Failure(FailureKind.NOT_APPLIED, "disk full"), b"ERR_INTERNAL not applied: disk full\r\n"),
        (Failure(FailureKind.OUTCOME_UNKNOWN, "no leader"), b"ERR_INTERNAL outcome unknown: no leader\r\n"),
        (Failure(FailureKind.BUSY, "overload", retry_seconds=3), b"ERR_BUSY 3 overload\r\n"),
        (Failure(FailureKind.REDIRECT, address="h:8081"), b"ERR_REDIRECT h:8081\r\n"),
    ],
)
def test_failures(failure: Failure, reply: bytes) -> None:
    assert failure.reply() == reply


def test_bad_request() -> None:
    assert bad_request_reply("no name") == b"ERR_CMD_ERR no name\r\n"


@pytest.mark.parametrize(
    ("deadline_us", "clock_us", "seconds"),
    [
        (0, 5, 0),
        (10_000_000, 0, 10),
        (10_000_000, 1, 10),
        (10_000_000, 999_999, 10),
        (10_000_000, 1_000_000, 9),
        (10_000_000, 9_999_999, 1),
        (10_000_000, 10_000_000, 1),
        (10_000_000, 12_000_000, 1),
    ],
)
def test_remaining_seconds_are_rounded_up_and_zero_only_for_never(
    deadline_us: int, clock_us: int, seconds: int
) -> None:
    assert remaining_seconds(deadline_us, clock_us) == seconds


def test_contents_of_a_small_file_are_one_piece() -> None:
    assert contents_reply(Record(3, 0, 2, b"\r\n", 0), 0) == b"CONTENTS 3 2 0\r\n\r\n\r\n"
    assert contents_reply(Record(3, 10_000_000, 0, b"", 0), 8_500_000) == b"CONTENTS 3 0 2\r\n\r\n"


def test_contents_of_a_big_file_are_never_joined() -> None:
    content = b"x" * (JOINED_BYTES_MAX + 1)
    head, piece, end = contents_reply(Record(3, 0, len(content), content, 0), 0)
    assert (head, end) == (b"CONTENTS 3 %d 0\r\n" % len(content), b"\r\n")
    assert piece is content
    rope = (b"a" * 100_000, b"b" * 100_000)
    reply = contents_reply(Record(3, 0, 200_000, rope, 0), 0)
    assert [*reply] == [b"CONTENTS 3 200000 0\r\n", *rope, b"\r\n"]


def test_stat_and_list_line() -> None:
    record = Record(3, 10_000_000, 5, b"hello", 0)
    assert stat_reply(record, 1) == b"STAT 3 5 10\r\n"
    assert list_line(b"name", record, 1) == b"name 3 5 10\n"


def test_sized_reply() -> None:
    assert sized_reply(b"LIST", [b"abc", b"d"]) == [b"LIST 4\r\n", b"abc", b"d", b"\r\n"]
    assert b"".join(sized_reply(b"LIST", [])) == b"LIST 0\r\n\r\n"


def test_help_names_every_request() -> None:
    head, _, text = HELP_REPLY.partition(b"\r\n")
    assert head == b"HELP %d" % (len(text) - 2)
    for word in (
        b"read",
        b"write",
        b"cas",
        b"delete",
        b"append",
        b"touch",
        b"stat",
        b"list",
        b"status",
        b"help",
        b"quit",
    ):
        assert b"\n" + word in b"\n" + text
