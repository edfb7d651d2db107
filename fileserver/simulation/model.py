"""What files ought to be after each entry of the log: a second, simpler store, to judge the product's by.

Written from the contract alone, without a look at speed, and fed with every committed entry once, in order. It keeps
the whole past of every file, so that a reply can be held against what was true between its request and itself.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from typing import TypeAlias

import attrs
import cbor2

from fileserver.commands import ANY_VERSION, APPEND, CAS, DELETE, DROP, KEEP_EXPTIME, PART, TOUCH, WRITE, Refusal

Outcome: TypeAlias = int | tuple[int, int]
"""A version, or 0, or a refusal with the file's version."""


@attrs.frozen(slots=True)
class FileState:
    """A file from one log index on, until the next state begins; version 0: there is none."""

    index: int
    version: int
    content: bytes
    deadline_us: int
    clock_us: int
    """The cluster time at which it began."""


NEVER_WAS = FileState(0, 0, b"", 0, 0)


@attrs.frozen(slots=True)
class Applied:
    """A command that was carried out, or refused by the store."""

    index: int
    operation: int
    name: bytes
    argument: int
    exptime: int
    content: bytes
    outcome: Outcome


class FilesModel:
    """See the module's docstring."""

    def __init__(self) -> None:
        """Begin with no files at version 0."""
        self.version = 0
        self.clock_us = 0
        self.past: defaultdict[bytes, list[FileState]] = defaultdict(lambda: [NEVER_WAS])
        """By name: all states, the present one last."""
        self._expiring: set[bytes] = set()
        self._staged: dict[tuple[int, int], bytes] = {}

    def advance(self, index: int, clock_us: int) -> None:
        """Time comes to that with an entry; time never goes back."""
        self.clock_us = max(self.clock_us, clock_us)
        if not self._expiring:
            return
        due = [name for name in self._expiring if self.past[name][-1].deadline_us <= self.clock_us]
        for name in sorted(due, key=lambda name: (self.past[name][-1].deadline_us, self.past[name][-1].version)):
            self.version += 1
            self._become(index, name, 0, b"", 0)

    def apply(self, index: int, clock_us: int, session: int, payload: bytes) -> list[Applied]:
        """Carry out a batch; gives what became of each command."""
        self.advance(index, clock_us)
        operations, names, arguments, exptimes, contents = cbor2.loads(payload)
        applied = []
        for at, (operation, name, content) in enumerate(zip(operations, names, contents, strict=True)):
            argument, exptime = _number(arguments, at), _number(exptimes, at)
            outcome, content = self._run(index, session, operation, name, argument, exptime, content)
            applied.append(Applied(index, operation, name, argument, exptime, content, outcome))
        return applied

    def end_session(self, session: int) -> None:
        """What a session staged is gone."""
        for key in [key for key in self._staged if key[0] == session]:
            del self._staged[key]

    def state_at(self, name: bytes, index: int) -> FileState:
        """The state of a file once that entry was applied."""
        past = self.past.get(name, [NEVER_WAS])
        return past[bisect_right(past, index, key=lambda state: state.index) - 1]

    def present(self) -> dict[bytes, FileState]:
        """All files that there are now."""
        return {name: past[-1] for name, past in self.past.items() if past[-1].version}

    def _run(
        self, index: int, session: int, operation: int, name: bytes, argument: int, exptime: int, field: bytes | int
    ) -> tuple[Outcome, bytes]:
        if operation == PART:
            assert isinstance(field, bytes), "a piece is bytes"
            key = (session, argument)
            self._staged[key] = self._staged.get(key, b"") + field
            return 0, b""
        if operation == DROP:
            self._staged.pop((session, argument), None)
            return 0, b""
        content = self._staged.pop((session, field), None) if isinstance(field, int) else field
        if content is None:
            return (Refusal.UPLOAD_LOST, 0), b""
        old = self.past[name][-1]
        refusal = _refusal(operation, argument, old, content)
        if refusal is not None:
            return refusal, content
        if operation == TOUCH:
            self._become(index, name, old.version, old.content, self._deadline(exptime))
            return old.version, content
        self.version += 1
        if operation == DELETE:
            self._become(index, name, 0, b"", 0)
            return 0, content
        keeps = operation == APPEND and exptime == KEEP_EXPTIME
        new = old.content + content if operation == APPEND else content
        self._become(index, name, self.version, new, old.deadline_us if keeps else self._deadline(exptime))
        return self.version, content

    def _deadline(self, exptime: int) -> int:
        return self.clock_us + exptime * 1_000_000 if exptime > 0 else 0

    def _become(self, index: int, name: bytes, version: int, content: bytes, deadline_us: int) -> None:
        past = self.past[name]
        if past[-1].index == index:
            past.pop()  # Nobody can see a state that lasts for a part of an entry only.
        past.append(FileState(index, version, content, deadline_us, self.clock_us))
        if version and deadline_us:
            self._expiring.add(name)
        else:
            self._expiring.discard(name)


def _number(column: bytes | int, at: int) -> int:
    """A command's number in a column of them."""
    return int.from_bytes(column[8 * at : 8 * at + 8], "little", signed=True) if isinstance(column, bytes) else 0


def _refusal(operation: int, argument: int, old: FileState, content: bytes) -> tuple[int, int] | None:
    missing = old.version == 0
    if operation == WRITE:
        return None
    if operation == APPEND:
        if len(old.content) + len(content) > argument:
            return (Refusal.TOO_LARGE, old.version)
        return None
    if operation == CAS and argument == 0:
        return None if missing else (Refusal.VERSION, old.version)
    if missing:
        return (Refusal.NOT_FOUND, 0)
    if operation == TOUCH or (operation == DELETE and argument == ANY_VERSION) or argument == old.version:
        return None
    return (Refusal.VERSION, old.version)
