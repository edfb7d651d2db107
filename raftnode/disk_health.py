"""What can go wrong with storage, and the latch that makes a disk's failure final.

Two kinds of failure are told apart, since they ask for opposite things:

* A full disk (:class:`DiskFull`) harms nothing that was saved. The save is simply not done, and may be
  done again when there is room.
* Anything else that goes wrong in a write or a flush (:class:`DiskFailed`) is final. After a failed flush
  the kernel marks the pages as clean, so trying again would seem to work with the data gone. Nobody may
  go on as if nothing had happened: all of storage refuses every later call, the server stops, and what
  is really on disk is found by recovery.

Damage found when reading (:class:`LogCorrupt`, :class:`SnapshotCorrupt`) names the file and the offset,
and nothing is deleted or changed, so that a person can look.
"""

from __future__ import annotations

import errno
from pathlib import Path

FULL_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT})
"""No room on the disk, or no more for this user."""


class StorageError(Exception):
    """Any of the errors below."""


class DiskFull(StorageError):
    """No room. What was saved before is untouched, and what was to be saved is not saved."""


class DiskFailed(StorageError):
    """A write, a flush or a read failed; storage refuses everything from now on."""


class DirectoryInUse(StorageError):
    """Another process, or another Storage of this one, has the directory open."""


class WrongDirectory(StorageError):
    """The directory belongs to another cluster or server, or was written by another version."""


class Corrupt(StorageError):
    """Damaged data; ``path``, ``offset`` in bytes and ``why`` say where."""

    def __init__(self, path: Path, offset: int, why: str) -> None:
        super().__init__(f"{path} is damaged at offset {offset}: {why}")
        self.path = path
        self.offset = offset
        self.why = why


class LogCorrupt(Corrupt):
    """The log is damaged before its end, so entries that were acknowledged may be lost."""


class SnapshotCorrupt(Corrupt):
    """A snapshot is damaged."""


class EntriesGone(StorageError):
    """Entries were dropped, since a snapshot has them."""


class SnapshotGone(StorageError):
    """The snapshot was removed since newer ones are there."""


class DiskHealth:
    """Remembers the first failure of a disk; shared by all that write to it."""

    __slots__ = ("failure",)

    def __init__(self) -> None:
        self.failure: str | None = None
        """What failed, for people; None while all is well."""

    def require(self) -> None:
        """Raises DiskFailed if anything has failed before."""
        if self.failure is not None:
            raise DiskFailed(self.failure)

    def error_for(self, action: str, path: Path, error: OSError) -> DiskFull | DiskFailed:
        """What to raise for an error met in a write: full is passed on, anything else is remembered."""
        if error.errno in FULL_ERRORS:
            return DiskFull(f"{action} {path}: {error.strerror}")
        return self.failed(action, path, error)

    def failed(self, action: str, path: Path, error: OSError) -> DiskFailed:
        """What to raise for an error that is final whatever it is, such as that of a flush."""
        why = f"{action} {path}: {error.strerror or error}"
        if self.failure is None:
            self.failure = why
        return DiskFailed(why)
