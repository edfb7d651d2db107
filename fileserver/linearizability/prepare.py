"""One file's part of a history, made ready for the search.

Theory of operation
    Linearizability is local (Herlihy & Wing 1990, theorem 1; Horn & Kroening 2015 make partitions of it): a history is
    linearizable if and only if its part for each file is. What can't matter is left out here: refused operations,
    reads without a reply, and touches without one in files that never expire.

    What the replies say about versions is collected, since it leaves the search little choice: an acknowledged change
    *makes* its version; a reply that shows the file's version *observes* it, and so do a cas and a delete that name one
    and succeed. Versions that are mentioned but that no acknowledged change made are *orphans*: if anything made
    them, then an operation of unknown outcome did.

    Where an append made a version and the one just before it was the same file's, the contents of the one tell those of
    the other: what was read later decides early what an unseen append may have added.

    Operations of unknown outcome that are equal but for their caller and call are one class: of such, the one called
    first may stand for any other, so the search takes them in that order only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Set

import attrs

from fileserver.linearizability.history import (
    Action,
    Append,
    Cas,
    Delete,
    Deleted,
    Found,
    Operation,
    Outcome,
    Read,
    Refused,
    Stat,
    Touch,
    VersionMismatch,
    Write,
    Written,
    digest_of,
    digest_without,
)
from fileserver.linearizability.model import NEVER_US


@attrs.frozen(slots=True, eq=False)
class Entry:
    """An operation as the search knows it."""

    operation: Operation
    action: Action
    outcome: Outcome | None
    index: int
    """Its place among the known ones, in order of call; of an unknown one its place among those."""
    called_us: int
    returned_us: int
    """`NEVER_US` if the outcome is unknown."""
    makes: int
    """The version that the reply says that it made; 0 for none."""
    observes: int
    """The version that the file must have had just before it; 0 for none, or none that is known."""
    digest: str
    """Of the contents that an operation of unknown outcome gives the file, if these are the same in any case."""


@attrs.frozen(slots=True, eq=False)
class FileHistory:
    """What is known of one file."""

    known: list[Entry]
    """The operations with an outcome, in order of call."""
    unknown_classes: list[list[Entry]]
    """Those without one, alike by class, in order of call."""
    unknown_depend: bool
    """Whether any of those without one depends on the file as it is: a cas, an append, a deletion of a version."""
    made: list[int]
    """The versions of acknowledged changes, in ascending order. They must come to be in this order."""
    observed: list[int]
    """The versions that known operations observe, in ascending order, each once."""
    observers: Counter[int]
    """How many known operations observe each version."""
    mentioned: frozenset[int]
    """All versions that stand anywhere in it."""
    elsewhere: Set[int]
    """All versions of all files that replies told; only those that aren't mentioned here mean something here."""
    orphans: list[int]
    """The mentioned versions that no acknowledged change made, in ascending order."""
    orphan_digests: frozenset[str]
    """The contents of orphans, as far as they are known."""
    digests: dict[int, str]
    """The contents that a version has by what reads showed; of several that differ, one."""
    expires: bool
    """Whether any action sets an expiry, so that time matters."""


def prepare(operations: Iterable[Operation], elsewhere: Set[int] = frozenset()) -> FileHistory:
    """Make one file's operations ready, given the versions that the replies told of all files."""
    kept = sorted((one for one in operations if _matters(one)), key=lambda one: one.called_us)
    expires = any(_sets_expiry(one.action) for one in kept)
    known = [_entry(one, index) for index, one in enumerate(one for one in kept if one.outcome is not None)]
    classes: dict[Action, list[Entry]] = {}
    for index, one in enumerate(one for one in kept if one.outcome is None):
        if expires or not isinstance(one.action, Touch):
            classes.setdefault(one.action, []).append(_entry(one, index))
    made = sorted(entry.makes for entry in known if entry.makes)
    observers = Counter(entry.observes for entry in known if entry.observes)
    expected = {_expected(action) for action in classes}
    digests = {
        entry.outcome.version: entry.outcome.digest
        for entry in known
        if isinstance(entry.outcome, Found) and entry.outcome.digest is not None
    }
    _infer_digests(digests, known, {*made, *observers}, elsewhere)
    mentioned = frozenset({*made, *observers, *expected} - {0})
    orphans = sorted(mentioned.difference(made))
    return FileHistory(
        known=known,
        unknown_classes=list(classes.values()),
        unknown_depend=any(isinstance(action, Cas | Append) or _expected(action) for action in classes),
        made=made,
        observed=sorted(observers),
        observers=observers,
        mentioned=mentioned,
        elsewhere=elsewhere,
        orphans=orphans,
        orphan_digests=frozenset(digests[version] for version in orphans if version in digests),
        digests=digests,
        expires=expires,
    )


def _infer_digests(digests: dict[int, str], known: Iterable[Entry], own: Set[int], elsewhere: Set[int]) -> None:
    """Add the contents that must have stood before appends to contents that were read.

    Args:
        digests: what reads showed; is added to.
        known: the file's operations.
        own: the versions that the file had.
        elsewhere: the versions of all files.
    """
    pieces = {entry.makes: entry.action.contents for entry in known if isinstance(entry.action, Append)}
    for version in sorted(pieces.keys() - {0}, reverse=True):
        before = version - 1
        while before in elsewhere and before not in own:
            before -= 1
        if version in digests and before in own:
            digests.setdefault(before, digest_without(digests[version], pieces[version]))


def _matters(operation: Operation) -> bool:
    """Whether the operation may have done something, or tells something."""
    if operation.outcome is None:
        return not isinstance(operation.action, Read | Stat)
    return not isinstance(operation.outcome, Refused)


def _sets_expiry(action: Action) -> bool:
    """Whether the action may give a file a deadline."""
    if isinstance(action, Append):
        return not action.keep_expiry and action.expires_us is not None
    return isinstance(action, Write | Cas | Touch) and action.expires_us is not None


def _expected(action: Action) -> int:
    """The version that the action asks for, 0 for none."""
    return (action.expected or 0) if isinstance(action, Cas | Delete) else 0


def _entry(operation: Operation, index: int) -> Entry:
    """One operation, with what it tells about versions."""
    action, outcome = operation.action, operation.outcome
    makes = observes = 0
    match outcome:
        case Written(version) if isinstance(action, Touch):
            observes = version
        case Written(version):
            makes, observes = version, _expected(action)
        case Deleted():
            observes = _expected(action)
        case Found(version) | VersionMismatch(version):
            observes = version
        case _:  # unknown, or no such file: no version is told
            pass
    returned_us = NEVER_US if operation.returned_us is None else operation.returned_us
    digest = digest_of(action.contents) if outcome is None and isinstance(action, Write | Cas) else ""
    return Entry(operation, action, outcome, index, operation.called_us, returned_us, makes, observes, digest)
