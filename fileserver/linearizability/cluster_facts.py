"""Rules that a history must keep over all files together: cheap, and no search.

Theory of operation
    Versions number the changes of the whole cluster, and one file's history doesn't show the others'. So these are
    looked at over all files:

    * no version stands for two changes, in two files, or for two contents;
    * versions respect real time: a change that was called after a version had been shown, in whatever reply, has a
      greater one. A deletion takes a version that its reply doesn't tell: one more, at least, than was shown before it;
    * no phantoms: contents that are read were sent to that file, and not later than they were read.

    Each is a consequence of linearizability of the cluster as one object, so each contradiction is a violation. They
    are not all of its consequences: the search for each file has to be made besides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fileserver.linearizability.history import (
    Append,
    Cas,
    Deleted,
    Found,
    Operation,
    Touch,
    VersionMismatch,
    Write,
    Written,
    digest_of,
)
from fileserver.linearizability.report import describe


def contradictions(operations: Sequence[Operation]) -> Iterator[str]:
    """What breaks one of the rules, each in a line for people."""
    yield from _versions_with_two_meanings(operations)
    yield from _versions_against_real_time(operations)
    yield from _phantoms(operations)


def shown_version(operation: Operation) -> int | None:
    """The version of the file that a reply tells, if it tells one."""
    outcome = operation.outcome
    return outcome.version if isinstance(outcome, Written | Found | VersionMismatch) else None


def _made_version(operation: Operation) -> int | None:
    """The version that a reply says that the operation made."""
    made = isinstance(operation.outcome, Written) and not isinstance(operation.action, Touch)
    return shown_version(operation) if made else None


def _versions_with_two_meanings(operations: Sequence[Operation]) -> Iterator[str]:
    """Versions below 1, of two changes, of two files, or of two contents."""
    makers: dict[int, Operation] = {}
    files: dict[int, Operation] = {}
    contents: dict[int, tuple[str, Operation]] = {}
    for operation in operations:
        version = shown_version(operation)
        if version is None:
            continue
        if version < 1:
            yield f"there is no version {version}: {_tell(operation)}"
        if _made_version(operation) is not None and makers.setdefault(version, operation) is not operation:
            yield f"version {version} was given twice: {_tell(makers[version])}; {_tell(operation)}"
        if files.setdefault(version, operation).file != operation.file:
            yield f"version {version} stands in two files: {_tell(files[version])}; {_tell(operation)}"
        digest = _shown_digest(operation)
        if digest is not None and contents.setdefault(version, (digest, operation))[0] != digest:
            yield f"version {version} has two contents: {_tell(contents[version][1])}; {_tell(operation)}"


def _shown_digest(operation: Operation) -> str | None:
    """The digest of the contents that the operation shows to be those of the version in its reply, if it does."""
    if isinstance(operation.outcome, Found):
        return operation.outcome.digest
    if isinstance(operation.action, Write | Cas) and isinstance(operation.outcome, Written):
        return digest_of(operation.action.contents)
    return None


def _versions_against_real_time(operations: Sequence[Operation]) -> Iterator[str]:
    """Changes whose version is not greater than one that was shown before they were called."""
    floor = 0
    witness: Operation | None = None
    floor_at_call: dict[int, int] = {}
    # At one instant calls come before returns: what returns just when another is called may come after it.
    events = [(operation.called_us, 0, number) for number, operation in enumerate(operations)]
    events += [(one.returned_us, 1, number) for number, one in enumerate(operations) if one.returned_us is not None]
    for _, is_return, number in sorted(events):
        operation = operations[number]
        if not is_return:
            floor_at_call[number] = floor
            version = _made_version(operation)
            if version is not None and witness is not None and version <= floor:
                yield f"version {version} is not above {floor}: {_tell(operation)}, called after {_tell(witness)}"
            continue
        shown = shown_version(operation)
        if isinstance(operation.outcome, Deleted):
            shown = floor_at_call[number] + 1
        if shown is not None and shown > floor:
            floor, witness = shown, operation


def _phantoms(operations: Sequence[Operation]) -> Iterator[str]:
    """Contents that were read before anybody sent them, or that nobody did; where there are no appends to the file."""
    appended = {operation.file for operation in operations if isinstance(operation.action, Append)}
    sent_us: dict[tuple[str, str], int] = {}
    for operation in operations:
        if isinstance(operation.action, Write | Cas) and operation.file not in appended:
            key = operation.file, digest_of(operation.action.contents)
            sent_us[key] = min(sent_us.get(key, operation.called_us), operation.called_us)
    for operation in operations:
        outcome = operation.outcome
        if not isinstance(outcome, Found) or outcome.digest is None or operation.file in appended:
            continue
        called_us = sent_us.get((operation.file, outcome.digest))
        if called_us is None:
            yield f"nobody wrote what was read: {_tell(operation)}"
        elif called_us > (operation.returned_us or 0):
            yield f"read before anybody wrote it: {_tell(operation)}"


def _tell(operation: Operation) -> str:
    """An operation with its file."""
    return f"{operation.file!r} {describe(operation)}"
