"""The files of a store: by name, in order of name, by deadline, and summed up.

Theory of operation
    One dictionary holds the records; everything else here is an index or a sum over it, and changes with it. All
    changes go through :meth:`FileTable.put`, :meth:`FileTable.remove` and :meth:`FileTable.expire`, where open views
    (:mod:`fileserver.listing`) get to keep what is about to be changed: without views that costs one test.

    A table knows nothing of versions to come, clocks or commands: that is the store's part.

Invariants
    ``names`` holds the dictionary's keys; ``deadlines`` those with a deadline; ``content_bytes`` is the sum of the
    sizes and ``digest`` the sum of the fingerprints of all records.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from operator import add, mul
from typing import TYPE_CHECKING, Final
from zlib import crc32

import attrs
from crc32c import crc32c
from sortedcontainers import SortedList

from fileserver.expiry import Deadlines
from fileserver.records import Content, RawRecord, fingerprint

_COLUMNS_MIN: Final = 8
"""From so many on, files are written by column."""
_NO_FILE: Final[RawRecord] = (0, 0, 0, b"", 0)
"""What is no file has no fingerprint, and no size."""
_REBUILD_RATIO: Final = 8
"""Listing all names anew costs about an eighth, per name, of taking one out of their list."""

if TYPE_CHECKING:
    from fileserver.listing import StoreView


@attrs.define(eq=False, repr=False)
class FileTable:
    """All files of one store, and what is kept up to date about them."""

    records: dict[bytes, RawRecord] = attrs.field(factory=dict, init=False)
    names: SortedList = attrs.field(factory=SortedList, init=False)
    deadlines: Deadlines = attrs.field(factory=Deadlines, init=False)
    content_bytes: int = attrs.field(default=0, init=False)
    digest: int = attrs.field(default=0, init=False)
    views: list[StoreView] = attrs.field(factory=list, init=False)
    """The views that still have names before them."""

    def put(self, name: bytes, version: int, deadline_us: int, size: int, content: Content, crc: int) -> None:
        """Make a file so, whether it was there or not."""
        old = self.records.get(name)
        if self.views:
            self._save_for_views(name, old)
        change = of_file = fingerprint(name, version, deadline_us, crc)
        if old is None:
            self.names.add(name)
            self.content_bytes += size
        else:
            old_version, old_deadline_us, old_size, _, old_fingerprint = old
            change -= old_fingerprint
            self.content_bytes += size - old_size
            if old_deadline_us:
                self.deadlines.remove(old_deadline_us, old_version, name)
        if deadline_us:
            self.deadlines.add(deadline_us, version, name)
        self.digest += change
        self.records[name] = (version, deadline_us, size, content, of_file)

    def write_all(self, names: Sequence[bytes], contents: Sequence[bytes], sizes: Sequence[int], version: int) -> None:
        """Make each file this content, for good, the first under the version behind ``version``, in order.

        The same as as many calls of `put`, which is what most of a server's work would be.
        """
        count = len(names)
        versions = range(version + 1, version + 1 + count)
        crcs = map(crc32c, contents)
        if count < _COLUMNS_MIN:
            for row in zip(names, versions, [0] * count, sizes, contents, crcs, strict=True):
                self.put(*row)
            return
        fingerprints: Sequence[int] = [*map(mul, map(add, map(crc32, names), crcs), versions)]
        records = zip(versions, [0] * count, sizes, contents, fingerprints, strict=True)
        written: dict[bytes, RawRecord] = dict(zip(names, records, strict=True))
        if len(written) < count:  # The last of each name is what stays.
            _, _, sizes, _, fingerprints = zip(*written.values(), strict=True)
        self._replace(written, sum(sizes), sum(fingerprints))

    def _replace(self, written: dict[bytes, RawRecord], size: int, digest: int) -> None:
        """Make all these files so, which have no deadlines, whether they were there or not.

        By column, so that the processor needn't wait for one file's memory before it asks for the next one's.

        Args:
            written: the files.
            size: the sum of their sizes.
            digest: the sum of their fingerprints.
        """
        found = tuple(map(self.records.get, written, repeat(_NO_FILE)))
        old_versions, old_deadlines, old_sizes, _, old_fingerprints = zip(*found, strict=True)
        if self.views:
            for name in written:
                self._save_for_views(name, self.records.get(name))
        if 0 in old_versions:
            self.names.update([name for name, version in zip(written, old_versions, strict=True) if not version])
        if any(old_deadlines):
            for name, version, deadline_us in zip(written, old_versions, old_deadlines, strict=True):
                if deadline_us:
                    self.deadlines.remove(deadline_us, version, name)
        self.digest += digest - sum(old_fingerprints)
        self.content_bytes += size - sum(old_sizes)
        self.records.update(written)

    def remove(self, name: bytes) -> None:
        """Take a file away, which must be there."""
        version, deadline_us = self._take(name)
        self.names.remove(name)
        if deadline_us:
            self.deadlines.remove(deadline_us, version, name)

    def expire(self, clock_us: int) -> int:
        """Take all files away that are due by then; returns how many that were."""
        due = self.deadlines.pop_due(clock_us)
        if not due:
            return 0
        for _, _, name in due:
            self._take(name)
        if len(due) * _REBUILD_RATIO > len(self.names):
            # What is in order already is sorted in one pass.
            self.names = SortedList([name for name in self.names if name in self.records])
        else:
            for _, _, name in due:
                self.names.remove(name)
        return len(due)

    def load(self, names: Sequence[bytes], records: Sequence[RawRecord]) -> None:
        """Add many files at once, as a snapshot brings them: in order, behind all that are there.

        The names' index is built by :meth:`loaded`, which must come after the last of them.
        """
        added = 0
        deadlines = []
        for name, (version, deadline_us, size, _, of_file) in zip(names, records, strict=True):
            added += of_file
            self.content_bytes += size
            if deadline_us:
                deadlines.append((deadline_us, version, name))
        self.digest += added
        self.deadlines.update(deadlines)
        self.records.update(zip(names, records, strict=True))

    def loaded(self) -> None:
        """All files have been loaded: they came in order of name, and so does a dictionary return them."""
        self.names = SortedList(self.records)

    def _take(self, name: bytes) -> tuple[int, int]:
        """Take a file out of all but the two sorted indexes; returns its version and deadline."""
        old = self.records.pop(name)
        for view in self.views:
            view.save_removed(name, old)
        version, deadline_us, size, _, of_file = old
        self.content_bytes -= size
        self.digest -= of_file
        return version, deadline_us

    def _save_for_views(self, name: bytes, old: RawRecord | None) -> None:
        """Let each open view keep what the file is now, before it is another one."""
        for view in self.views:
            view.save(name, old)
