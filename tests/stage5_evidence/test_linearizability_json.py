"""Histories in files."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from fileserver.linearizability.history import Operation, Read, Refused, Write, Written
from fileserver.linearizability.history_json import BadHistory, dump_history, dump_operation, load_history
from tests.stage5_evidence.file_histories import Shape, true_history


def test_what_was_written_is_read() -> None:
    history = true_history(Random(1), Shape(operations=500, files=3, unknown=0.1, expiring=0.3))
    history.append(Operation(1, "naïve/\u2028", Write(bytes(range(256))), 1, 2, Refused()))
    lines = [*dump_history(history), "\n"]
    assert load_history(lines) == history
    assert all(line.count("\n") == 1 for line in lines)


def test_the_form_is_as_documented() -> None:
    line = dump_operation(Operation(3, "a", Write(b"hello"), 10, 25, Written(7)))
    assert json.loads(line) == {
        "client": 3,
        "file": "a",
        "called_us": 10,
        "returned_us": 25,
        "action": {"kind": "Write", "contents": "aGVsbG8=", "expires_us": None},
        "outcome": {"kind": "Written", "version": 7},
    }


def _line(**changes: Any) -> str:
    good = json.loads(dump_operation(Operation(3, "a", Write(b"hello"), 10, 25, Written(7))))
    return json.dumps({**good, **changes})


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "Expecting property name"),
        ("7", "not an object of action, called_us"),
        (_line(more=1), "not an object of action, called_us"),
        (_line(client="3"), "client is not int"),
        (_line(client=True), "client is not int"),
        (_line(file=None), "file is not str"),
        (_line(action=None), "None is none of Write, Cas"),
        (_line(action={"kind": "Reboot"}), "is none of Write, Cas"),
        (_line(action={"kind": ["Read"]}), "unhashable"),
        (_line(action={"kind": "Write"}), "Write has contents, expires_us"),
        (_line(action={"kind": "Read", "more": 1}), "Read has no fields"),
        (_line(action={"kind": "Write", "contents": "@", "expires_us": None}), "contents is not base64"),
        (_line(action={"kind": "Write", "contents": 3, "expires_us": None}), "contents is not base64"),
        (_line(outcome=None), "a return without an outcome"),
        (_line(returned_us=9), "returned before it was called"),
        (_line(outcome={"kind": "Written", "version": 1.5}), "version is not int"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_anything_else_is_refused(line: str, why: str) -> None:
    good = dump_operation(Operation(1, "a", Read(), 1))
    with pytest.raises(BadHistory, match=rf"line 2: .*{why}"):
        load_history([good, line])
