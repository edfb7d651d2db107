"""A batch of commands as bytes: what is refused, and that nothing else is."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileserver.commands import (
    CAS,
    MAX_EXPTIME_SECONDS,
    PART,
    WRITE,
    BadBatch,
    Field,
    Refusal,
    decode_batch,
    encode_batch,
)

SOUND: list[Field] = [WRITE, b"name", 0, 60, b"content"]


def changed(place: int, value: object) -> bytes:
    """A sound batch of two commands with one field of the second replaced."""
    fields: list[object] = [*SOUND, *SOUND]
    fields[5 + place] = value
    return cbor2.dumps(fields)


def columns(place: int, value: object) -> bytes:
    """A sound batch of one command with one column replaced."""
    fields: list[object] = [b"\x01", [b"n"], 0, 0, [b""]]
    fields[place] = value
    return cbor2.dumps(fields)


def test_a_batch_comes_back_by_column() -> None:
    payload = encode_batch([*SOUND, PART, b"", 7, 0, b"piece", WRITE, b"big", 0, 0, 7])
    assert decode_batch(payload) == (
        bytes((WRITE, PART, WRITE)),
        [b"name", b"", b"big"],
        [0, 7, 0],
        [60, 0, 0],
        [b"content", b"piece", 7],
    )


def test_an_empty_batch_is_sound() -> None:
    assert decode_batch(encode_batch([])) == (b"", [], [], [], [])


def test_a_batch_by_row_is_read_as_one_by_column() -> None:
    """Logs of earlier versions have such."""
    fields = [*SOUND, PART, b"", 7, 0, b"piece", WRITE, b"big", 0, 0, 7]
    assert decode_batch(cbor2.dumps(fields)) == decode_batch(encode_batch(fields))
    assert decode_batch(cbor2.dumps([])) == decode_batch(encode_batch([]))


@given(st.lists(st.tuples(st.sampled_from([WRITE, CAS, PART]), st.integers(-9, 1 << 40), st.integers(0, 99))))
def test_numbers_come_back(commands: list[tuple[int, int, int]]) -> None:
    fields = [field for operation, argument, exptime in commands for field in (operation, b"n", argument, exptime, b"")]
    operations, _, arguments, exptimes, _ = decode_batch(encode_batch(fields))
    assert list(zip(operations, arguments, exptimes, strict=True)) == commands


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff", id="a break alone"),
        pytest.param(encode_batch(SOUND)[:-1], id="cut off"),
        pytest.param(b"\x9f\xff", id="indefinite length"),
        pytest.param(b"\x81" * 100_000, id="nested deep"),
        pytest.param(b"\x9b" + b"\xff" * 8, id="an array of 2**64 items"),
        pytest.param(b"\x5b\x7f" + b"\xff" * 7, id="bytes of length 2**63"),
        pytest.param(cbor2.dumps(b"bytes"), id="no array"),
        pytest.param(cbor2.dumps({1: 2}), id="a map"),
        pytest.param(cbor2.dumps(SOUND[:-1]), id="four fields"),
        pytest.param(cbor2.dumps([SOUND]), id="an array of arrays"),
        pytest.param(bytes.fromhex("d81c81d81d00"), id="an array that holds itself"),
        pytest.param(cbor2.dumps([b"\x01", [b"x"], 0, 0]), id="four columns"),
        pytest.param(cbor2.dumps([*[b"\x01", [b"x"], 0, 0, [b""]] * 2]), id="ten columns"),
        pytest.param(columns(0, b"\x00"), id="columns with operation 0"),
        pytest.param(columns(0, b"\x01\x01"), id="two operations of one command"),
        pytest.param(columns(1, b"n"), id="names that are no array"),
        pytest.param(columns(1, []), id="a name too few"),
        pytest.param(columns(1, ["name"]), id="a column with a name of text"),
        pytest.param(columns(2, 1), id="arguments that are another number than 0"),
        pytest.param(columns(2, False), id="arguments that are false"),
        pytest.param(columns(2, b"1234567"), id="an argument of seven bytes"),
        pytest.param(columns(3, b"\xff" * 7 + b"\x7f"), id="a column with an exptime over the limit"),
        pytest.param(columns(3, [0]), id="exptimes that are an array"),
        pytest.param(columns(4, b"n"), id="contents that are no array"),
        pytest.param(columns(4, [b"", b""]), id="a content too many"),
        pytest.param(columns(4, [[b""]]), id="a content in an array in a column"),
        pytest.param(changed(0, 0), id="operation 0"),
        pytest.param(changed(0, 8), id="operation 8"),
        pytest.param(changed(0, -1), id="operation -1"),
        pytest.param(changed(0, 256), id="operation 256"),
        pytest.param(changed(0, 1.0), id="an operation of a half type"),
        pytest.param(changed(1, "name"), id="a name of text"),
        pytest.param(changed(1, None), id="no name"),
        pytest.param(changed(2, 1 << 63), id="an argument of 64 bits"),
        pytest.param(changed(2, -1 << 70), id="an argument of 71 bits"),
        pytest.param(changed(2, 0.5), id="a broken argument"),
        pytest.param(changed(2, b"1"), id="an argument of bytes"),
        pytest.param(changed(3, MAX_EXPTIME_SECONDS + 1), id="an exptime over the limit"),
        pytest.param(changed(3, 1 << 64), id="an exptime of 65 bits"),
        pytest.param(changed(3, "60"), id="an exptime of text"),
        pytest.param(changed(4, "content"), id="a content of text"),
        pytest.param(changed(4, True), id="a content of truth"),
        pytest.param(changed(4, [b"content"]), id="a content in an array"),
    ],
)
def test_what_is_no_batch_is_refused(payload: bytes) -> None:
    with pytest.raises(BadBatch):
        decode_batch(payload)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_batch_or_refused(payload: bytes) -> None:
    check(payload)


@given(st.binary(max_size=40), st.integers(0, 60), st.integers(0, 60))
def test_a_damaged_batch_is_a_batch_or_refused(inserted: bytes, start: int, cut: int) -> None:
    sound = encode_batch([*SOUND, *SOUND, PART, b"", 7, 0, b"piece"])
    check(sound[:start] + inserted + sound[start + cut :])


def check(payload: bytes) -> None:
    """Decoding gives columns of the right types and one length, or `BadBatch`; of a view the same."""
    try:
        columns = decode_batch(payload)
    except BadBatch:
        with pytest.raises(BadBatch):
            decode_batch(memoryview(payload))
        return
    assert decode_batch(memoryview(payload)) == columns
    for operation, name, argument, exptime, content in zip(*columns, strict=True):
        assert operation in range(1, 8)
        assert isinstance(name, bytes)
        assert isinstance(argument, int)
        assert -(1 << 63) <= argument < 1 << 63
        assert isinstance(exptime, int)
        assert exptime <= MAX_EXPTIME_SECONDS
        assert isinstance(content, bytes | int)


def test_a_result_survives_cbor() -> None:
    sent = [17, (Refusal.VERSION, 5)]
    number, refusal = cbor2.loads(cbor2.dumps(sent))
    assert number == 17
    assert tuple(refusal) == (Refusal.VERSION, 5)
