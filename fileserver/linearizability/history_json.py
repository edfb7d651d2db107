"""Histories in files: JSON lines, one operation a line, in any order.

Theory of operation
    An action and an outcome are objects whose ``kind`` names the class and whose other members are its fields; contents
    are base64. A line reads, for example::

        {"client": 3, "file": "a", "called_us": 10, "returned_us": 25,
         "action": {"kind": "Write", "contents": "aGVsbG8=", "expires_us": null},
         "outcome": {"kind": "Written", "version": 7}}

    One operation a line means that a history can be written while it happens, and what a crash left is still readable.

Invariants
    Reading what was written gives equal operations. Anything else in a line is refused, not guessed at.
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from typing import Any, Final, cast

import attrs

from fileserver.linearizability.history import (
    Action,
    Append,
    Cas,
    Delete,
    Deleted,
    Found,
    NotFound,
    Operation,
    Outcome,
    Read,
    Refused,
    Stat,
    Touch,
    VersionMismatch,
    Write,
    Written,
)

_ACTIONS: Final[dict[str, Any]] = {kind.__name__: kind for kind in (Write, Cas, Delete, Append, Touch, Read, Stat)}
_OUTCOMES: Final[dict[str, Any]] = {
    kind.__name__: kind for kind in (Written, Deleted, VersionMismatch, NotFound, Found, Refused)
}
_MEMBERS: Final = {"client", "file", "action", "called_us", "returned_us", "outcome"}
_ANNOTATED: Final[dict[str, tuple[type, ...]]] = {
    "int": (int,),
    "int | None": (int, type(None)),
    "str": (str,),
    "str | None": (str, type(None)),
    "bool": (bool,),
    "bytes": (bytes,),
}
"""The types of all fields, by what their annotations say."""


class BadHistory(ValueError):
    """A line that is no operation; the message says which line, and why."""


def dump_operation(operation: Operation) -> str:
    """One operation as a line, without the line end."""
    return json.dumps(
        {
            "client": operation.client,
            "file": operation.file,
            "called_us": operation.called_us,
            "returned_us": operation.returned_us,
            "action": _dump_value(operation.action),
            "outcome": None if operation.outcome is None else _dump_value(operation.outcome),
        }
    )


def dump_history(operations: Iterable[Operation]) -> Iterator[str]:
    """A history as lines, with their line ends, for a file's ``writelines``."""
    for operation in operations:
        yield dump_operation(operation) + "\n"


def load_history(lines: Iterable[str]) -> list[Operation]:
    """A history from its lines, such as an open file; empty lines count for nothing.

    Raises:
        BadHistory: a line is no operation.
    """
    operations = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                operations.append(_load_operation(json.loads(line)))
            except (ValueError, TypeError, RecursionError) as error:
                raise BadHistory(f"line {number}: {error}") from error
    return operations


def _dump_value(value: Action | Outcome) -> dict[str, object]:
    """An action or an outcome as an object."""
    fields: dict[str, object] = {"kind": type(value).__name__}
    for name, field in attrs.asdict(value).items():
        fields[name] = b64encode(field).decode() if isinstance(field, bytes) else field
    return fields


def _load_operation(line: Any) -> Operation:
    """An operation from a line's object."""
    if not isinstance(line, dict) or line.keys() != _MEMBERS:
        raise ValueError(f"not an object of {', '.join(sorted(_MEMBERS))}")
    outcome = line["outcome"]
    return Operation(
        client=cast(int, _checked("client", line["client"], "int")),
        file=cast(str, _checked("file", line["file"], "str")),
        called_us=cast(int, _checked("called_us", line["called_us"], "int")),
        returned_us=cast("int | None", _checked("returned_us", line["returned_us"], "int | None")),
        action=_load_value(line["action"], _ACTIONS),
        outcome=None if outcome is None else _load_value(outcome, _OUTCOMES),
    )


def _load_value(value: Any, kinds: dict[str, Any]) -> Any:
    """An action or an outcome from its object."""
    if not isinstance(value, dict) or value.get("kind") not in kinds:
        raise ValueError(f"{value!r} is none of {', '.join(kinds)}")
    kind = kinds[value["kind"]]
    annotations = {field.name: cast(str, field.type) for field in attrs.fields(kind)}
    if value.keys() != annotations.keys() | {"kind"}:
        raise ValueError(f"{value['kind']} has {', '.join(annotations) or 'no fields'}")
    return kind(**{name: _checked(name, value[name], annotation) for name, annotation in annotations.items()})


def _checked(name: str, value: Any, annotation: str) -> object:
    """A field's value, decoded, if it is of its type."""
    if annotation == "bytes":
        try:
            value = b64decode(value, validate=True)
        except (TypeError, binascii.Error) as error:
            raise ValueError(f"{name} is not base64") from error
    if type(value) not in _ANNOTATED[annotation]:
        raise ValueError(f"{name} is not {annotation}")
    return cast(object, value)
