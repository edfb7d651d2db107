"""What a check found, in values and in lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

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
    Refused,
    Touch,
    VersionMismatch,
    Write,
    Written,
)
from fileserver.linearizability.model import NEVER_US, FileState
from fileserver.linearizability.prepare import FileHistory
from fileserver.linearizability.search import DeadEnd, Verdict

_SHOWN_BEFORE: Final = 10
"""How much of a long prefix is shown: what comes last matters."""
_SHOWN_BYTES: Final = 24


@attrs.frozen(slots=True)
class Placed:
    """An operation of a linearization's prefix."""

    operation: Operation
    version: int
    """The file's version after it; 0 if there is none."""


@attrs.frozen(slots=True)
class Violation:
    """A file whose history can't be put in order."""

    file: str
    prefix: tuple[Placed, ...]
    """The longest prefix of a linearization, as far as the search found."""
    state: FileState
    """The file after it."""
    stuck: tuple[Operation, ...]
    """The operations with known outcomes one of which would have to come next, and can't."""
    overdue: tuple[Operation, ...]
    """Later ones that show the version that the file has there, or one that it had: nothing may change it before."""

    def lines(self) -> Iterator[str]:
        """The story for people."""
        yield f"file {self.file!r}: {len(self.prefix)} operations can be put in order, but no more"
        skipped = max(0, len(self.prefix) - _SHOWN_BEFORE)
        if skipped:
            yield f"  ... {skipped} operations ..."
        for placed in self.prefix[skipped:]:
            version = f"version {placed.version}" if placed.version else "no file"
            yield f"  {describe(placed.operation)}, leaving {version}"
        yield f"  then {_describe_state(self.state)}, and none of these can come next:"
        for operation in self.stuck:
            yield f"    {describe(operation)}"
        if self.overdue:
            yield "  and these, called later, show a version that would be gone after any change:"
        for operation in self.overdue[:_SHOWN_BEFORE]:
            yield f"    {describe(operation)}"


@attrs.frozen(slots=True)
class Report:
    """The outcome of a check."""

    verdict: Verdict
    operations: int
    files: int
    configurations: int
    """How many configurations the searches entered: the measure of the work done."""
    violations: tuple[Violation, ...] = ()
    """At most one for each file."""
    facts: tuple[str, ...] = ()
    """What contradicts the rules over all files (:mod:`fileserver.linearizability.cluster_facts`)."""
    undecided: tuple[str, ...] = ()
    """The files that the limit of work was reached at."""

    @property
    def is_good(self) -> bool:
        """Whether the history is shown to be linearizable; undecided is not good."""
        return self.verdict is Verdict.LINEARIZABLE

    def lines(self) -> Iterator[str]:
        """All of it for people."""
        yield (
            f"{self.verdict.value}: {self.operations} operations on {self.files} files, "
            f"{self.configurations} configurations"
        )
        yield from self.facts
        for violation in self.violations:
            yield from violation.lines()
        for file in self.undecided:
            yield f"file {file!r}: the limit of work was reached"


def violation_of(file: str, history: FileHistory, dead_end: DeadEnd) -> Violation:
    """The violation that a search of the history ended with."""
    told = {id(choice.entry) for choice in dead_end.placed} | {id(entry) for entry in dead_end.stuck}
    overdue = (
        entry.operation
        for entry in history.known
        if 0 < entry.observes <= dead_end.state.last_version and id(entry) not in told
    )
    return Violation(
        file,
        tuple(Placed(choice.entry.operation, choice.state.version) for choice in dead_end.placed),
        dead_end.state,
        tuple(entry.operation for entry in dead_end.stuck),
        tuple(overdue),
    )


def describe(operation: Operation) -> str:
    """An operation in a line: when, who, what, and what came back."""
    returned = "?" if operation.returned_us is None else f"{operation.returned_us / 1e6:.6f}"
    return (
        f"[{operation.called_us / 1e6:.6f} .. {returned}] client {operation.client}: "
        f"{_describe_action(operation.action)} -> {_describe_outcome(operation.outcome)}"
    )


def _describe_action(action: Action) -> str:
    """What was asked for."""
    word = type(action).__name__.lower()
    if isinstance(action, Cas) or (isinstance(action, Delete) and action.expected is not None):
        word += f" version {action.expected}"
    if isinstance(action, Write | Cas | Append):
        shown = action.contents[:_SHOWN_BYTES]
        word += f" {shown!r}" + (f"... ({len(action.contents)} bytes)" if shown != action.contents else "")
    if isinstance(action, Append) and action.keep_expiry:
        return word
    if isinstance(action, Touch) or (isinstance(action, Write | Cas | Append) and action.expires_us is not None):
        word += " for ever" if action.expires_us is None else f" for {action.expires_us / 1e6:g} s"
    return word


def _describe_outcome(outcome: Outcome | None) -> str:
    """What came back."""
    match outcome:
        case None:
            return "unknown"
        case Written(version):
            return f"version {version}"
        case Found(version, size_bytes, digest, seconds_left):
            contents = "" if digest is None else f" of digest {digest[:8]}"
            left = f", {seconds_left} s left" if seconds_left else ""
            return f"version {version}, {size_bytes} bytes{contents}{left}"
        case VersionMismatch(version):
            return f"not done: the version is {version}"
        case Deleted():
            return "done"
        case Refused():
            return "refused"
    return "no such file"


def _describe_state(state: FileState) -> str:
    """A state of a file."""
    if not state.version:
        return f"there is no file (last version {state.last_version})"
    text = f"the file has version {state.version}, {state.size_bytes} bytes of digest {state.digest[:8]}"
    if state.gone_from_us != NEVER_US:
        text += f", and expires between {state.gone_from_us / 1e6:.6f} and {state.alive_until_us / 1e6:.6f}"
    return text
