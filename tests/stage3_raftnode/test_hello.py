"""What servers say to each other first."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftnode.hello import (
    PROTOCOL_VERSION,
    BadHello,
    Hello,
    HelloAnswer,
    decode_answer,
    decode_hello,
    encode_answer,
    encode_hello,
    why_unwelcome,
)

OURS = Hello(PROTOCOL_VERSION, "demo", 1)


def test_a_hello_comes_back_as_it_was() -> None:
    assert decode_hello(encode_hello(OURS)) == OURS


@pytest.mark.parametrize("refusal", ["", "belongs to another cluster"])
def test_an_answer_comes_back_as_it_was(refusal: str) -> None:
    answer = HelloAnswer(OURS, refusal)
    assert decode_answer(encode_answer(answer)) == answer


def test_a_long_reason_is_cut_and_a_strange_one_quoted() -> None:
    assert len(decode_answer(encode_answer(HelloAnswer(OURS, "x" * 1000))).refusal) == 200
    assert decode_answer(encode_answer(HelloAnswer(OURS, "two\nlines"))).refusal == r"'two\nlines'"


def test_of_another_version_only_the_version_is_looked_at() -> None:
    data = cbor2.dumps(["raftnode", 9, None, 1.5])
    assert decode_hello(data) == Hello(9, "", 0)
    assert decode_answer(data) == HelloAnswer(Hello(9, "", 0), "")


@pytest.mark.parametrize(
    ("theirs", "why"),
    [
        (Hello(PROTOCOL_VERSION, "demo", 2), None),
        (Hello(9, "demo", 2), f"speaks protocol version 9, not {PROTOCOL_VERSION}"),
        (Hello(PROTOCOL_VERSION, "other", 2), "belongs to cluster 'other', not 'demo'"),
        (Hello(PROTOCOL_VERSION, "demo", 4), "says it is server 4, which is not expected here"),
        (OURS, "says it is server 1, which is not expected here"),
    ],
)
def test_who_is_welcome(theirs: Hello, why: str | None) -> None:
    assert why_unwelcome(theirs, OURS, {2, 3}) == why


@pytest.mark.parametrize(
    "fields",
    [
        7,
        "raftnode",
        [],
        ["raftnode"],
        ["railnode", PROTOCOL_VERSION, "demo", 1],
        ["raftnode", "1", "demo", 1],
        ["raftnode", True, "demo", 1],
        ["raftnode", PROTOCOL_VERSION, "demo"],
        ["raftnode", PROTOCOL_VERSION, b"demo", 1],
        ["raftnode", PROTOCOL_VERSION, "demo", "1"],
        ["raftnode", PROTOCOL_VERSION, "demo", -1],
        ["raftnode", PROTOCOL_VERSION, "d" * 251, 1],
        ["raftnode", PROTOCOL_VERSION, ["demo"], 1],
        ["raftnode", PROTOCOL_VERSION, "demo", 2**80],
        ["raftnode", PROTOCOL_VERSION, "demo", 1, "", 1],
        ["raftnode", PROTOCOL_VERSION, "x" * 2000, 1],
    ],
)
def test_what_is_no_hello_is_refused(fields: Any) -> None:
    with pytest.raises(BadHello):
        decode_hello(cbor2.dumps(fields))
    with pytest.raises(BadHello):
        decode_answer(cbor2.dumps(fields))


@pytest.mark.parametrize("reason", [1, b"no", "x" * 201])
def test_an_answer_needs_a_sound_reason(reason: Any) -> None:
    with pytest.raises(BadHello):
        decode_answer(cbor2.dumps(["raftnode", PROTOCOL_VERSION, "demo", 1, reason]))


@pytest.mark.parametrize(
    "data", [b"", b"\x9f\xff", b"\xd8\x1c\x80", b"\xc1\x01", b"\xd9\x03\xe8\x01", b"\x5b" + b"\xff" * 8]
)
def test_cbor_that_no_hello_needs_is_refused(data: bytes) -> None:
    with pytest.raises(BadHello):
        decode_hello(data)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_hello_or_refused(data: bytes) -> None:
    for spoiled in (data, b"\x84\x68raftnode\x01" + data):
        try:
            decode_hello(spoiled)
        except BadHello:
            pass
