"""What clients ask for: random requests on few files at a time, and new files as time goes on. Pure.

The files in use are shared by all clients, so that requests on one file overlap; but each serves for some hundreds of
requests only, and for fewer if outcomes of it are unknown, since the checker's work on a file grows with what was
under way at the same time. Every content that is sent is sent once, so that a read says which change it saw.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import attrs

from fileserver.linearizability.history import (
    Action,
    Append,
    Cas,
    Delete,
    Found,
    NotFound,
    Operation,
    Read,
    Stat,
    Touch,
    VersionMismatch,
    Write,
    Written,
)

_SECOND_US = 1_000_000
OPERATIONS_MAX = 250
"""How many requests a file serves for."""
UNKNOWN_MAX = 4
"""With so many changes of unknown outcome, a file serves no longer."""
FILES_IN_USE = 12
_PADDING_BYTES_MAX = 120


@attrs.define(slots=True)
class _File:
    """What is known of a file in use."""

    name: str
    operations: int = 0
    unknown: int = 0
    version: int = 0
    """The last one seen; 0 for a file that wasn't there."""


class Workload:
    """Draws requests. Which ones depends on the seed, and on what became of earlier ones."""

    def __init__(self, seed: int, prefix: str = "torture") -> None:
        self._random = Random(f"workload {seed}")
        self._prefix = prefix
        self._files_made = 0
        self._contents_made = 0
        self._in_use: dict[str, _File] = {}
        self.names: list[str] = []
        """All files ever used, in the order in which they came."""
        makers = {
            self._read: 34,
            self._stat: 5,
            self._write: 16,
            self._expiring_write: 6,
            self._cas: 15,
            self._append: 12,
            self._delete: 7,
            self._touch: 5,
        }
        self._makers: tuple[Callable[[_File], Action], ...] = tuple(makers)
        self._weights = tuple(makers.values())

    def draw(self) -> tuple[str, Action]:
        """A file's name and what to ask of it."""
        while len(self._in_use) < FILES_IN_USE:
            self._files_made += 1
            name = f"{self._prefix}/{self._files_made}"
            self._in_use[name] = _File(name)
            self.names.append(name)
        file = self._random.choice(list(self._in_use.values()))
        file.operations += 1
        if file.operations >= OPERATIONS_MAX:
            del self._in_use[file.name]
        (maker,) = self._random.choices(self._makers, self._weights)
        return file.name, maker(file)

    def note(self, operation: Operation) -> None:
        """Take what became of a request."""
        file = self._in_use.get(operation.file)
        if file is None:
            return
        outcome = operation.outcome
        if isinstance(outcome, Written | VersionMismatch | Found):
            file.version = outcome.version
        elif isinstance(outcome, NotFound):
            file.version = 0
        elif outcome is None and not isinstance(operation.action, Read | Stat):
            file.unknown += 1
            if file.unknown >= UNKNOWN_MAX:
                del self._in_use[file.name]

    def _contents(self) -> bytes:
        """Contents that nobody ever had; now and then with line ends and words of the protocol in them."""
        self._contents_made += 1
        padding = self._random.randbytes(self._random.randrange(_PADDING_BYTES_MAX))
        return b"<%d:%b>" % (self._contents_made, padding)

    def _read(self, _file: _File) -> Action:
        return Read()

    def _stat(self, _file: _File) -> Action:
        return Stat()

    def _write(self, _file: _File) -> Action:
        return Write(self._contents())

    def _expiring_write(self, _file: _File) -> Action:
        return Write(self._contents(), self._random.randint(1, 5) * _SECOND_US)

    def _cas(self, file: _File) -> Action:
        return Cas(file.version, self._contents(), self._random.choice((None, None, None, 2 * _SECOND_US)))

    def _append(self, _file: _File) -> Action:
        if self._random.random() < 0.2:
            return Append(self._contents(), self._random.choice((None, 2 * _SECOND_US)), keep_expiry=False)
        return Append(self._contents())

    def _delete(self, file: _File) -> Action:
        return Delete(self._random.choice((None, file.version or None)))

    def _touch(self, _file: _File) -> Action:
        return Touch(self._random.choice((None, _SECOND_US, 3 * _SECOND_US, 60 * _SECOND_US)))
