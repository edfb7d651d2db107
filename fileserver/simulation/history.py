"""What clients of a run saw, as a black-box history for the linearizability checker.

The oracle judges with all that the simulator knows; the checker knows nothing but requests and replies. That both find
nothing wrong says something about either.
"""

from __future__ import annotations

from collections.abc import Sequence

from fileserver.commands import ANY_VERSION, APPEND, CAS, DELETE, KEEP_EXPTIME, TOUCH, WRITE
from fileserver.linearizability.history import (
    Action,
    Append,
    Cas,
    Delete,
    Deleted,
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
    found,
    found_by_stat,
)
from fileserver.requests import READ
from fileserver.simulation.oracle import Request
from fileserver.simulation.world import Record


def operations_of(history: Sequence[Record]) -> list[Operation]:
    """The history in the checker's terms."""
    return [_operation(record) for record in history]


def _operation(record: Record) -> Operation:
    request = record.request
    outcome = None if record.returned_us is None else _outcome(request, record.line, record.content)
    returned_us = None if outcome is None else record.returned_us
    return Operation(request.client, request.name.decode(), _action(request), request.called_us, returned_us, outcome)


def _action(request: Request) -> Action:
    expires_us = request.exptime * 1_000_000 if request.exptime > 0 else None
    match request.operation:
        case op if op == WRITE:
            return Write(request.content, expires_us)
        case op if op == CAS:
            return Cas(request.argument, request.content, expires_us)
        case op if op == DELETE:
            return Delete(None if request.argument == ANY_VERSION else request.argument)
        case op if op == APPEND:
            return Append(request.content, expires_us, keep_expiry=request.exptime == KEEP_EXPTIME)
        case op if op == TOUCH:
            return Touch(expires_us)
        case op:
            return Read() if op == READ else Stat()


def _outcome(request: Request, line: bytes, content: bytes) -> Outcome | None:
    """What the reply says; None if that is that nobody knows."""
    word, *fields = line.split(b" ")
    match word:
        case b"OK":
            return Written(int(fields[0])) if fields else Deleted()
        case b"ERR_VERSION":
            return VersionMismatch(int(fields[0]))
        case b"ERR_FILE_NOT_FOUND":
            return NotFound()
        case b"CONTENTS":
            return found(int(fields[0]), content[:-2], int(fields[2]))
        case b"STAT":
            return found_by_stat(int(fields[0]), int(fields[1]), int(fields[2]))
        case b"ERR_INTERNAL" if fields[:1] == [b"outcome"]:
            return None
        case _:
            return Refused()
