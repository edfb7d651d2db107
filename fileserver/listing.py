"""Consistent views of a store, read in slices while the store goes on changing.

Theory of operation
    A view is the state at the instant it was made. Nothing is copied then. It is read by name, from the first to the
    last, a slice at a time; between two slices the store may change. Before a file changes that the view has not
    passed yet, the table hands the view its old record (or that there was none), which the view keeps in an
    *overlay* until it gets there. A slice is what the table has now, with the overlay laid over it.

    ::

        names passed            |  names still to come
        a  b  c  d  e  f  g  h  |  i  j  k  l  m  n ...
                             cursor    ^overlay: k was {version 7}, l was absent

    So a view costs what changes while it is open, one that is closed or read to its end costs nothing, and a
    table without open views tests one empty list per change.

    When a restore puts another table in the store's place, its views keep the old table, which no one changes any more.

Invariants
    The overlay holds only names behind the cursor that begin with the prefix; the first record saved for a name stands.
    An overlaid record wins over the table's. The removed names are those of the overlay that the table may not have.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, takewhile

import attrs
from sortedcontainers import SortedList

from fileserver.file_table import FileTable
from fileserver.records import RawRecord, Record


@attrs.define(eq=False)
class StoreView:
    """The files whose names begin with a prefix, as they were when the view was made.

    Made by `Store.view`. Whoever doesn't read it to its end must call :meth:`close` (it is a context manager too).
    """

    _table: FileTable = attrs.field(repr=False)
    _prefix: bytes
    _cursor: bytes | None = attrs.field(default=None, init=False)
    """The last name passed."""
    _overlay: dict[bytes, RawRecord | None] = attrs.field(factory=dict, init=False, repr=False)
    _removed_names: SortedList = attrs.field(factory=SortedList, init=False, repr=False)
    """Names in the overlay that there was a file of, and that were removed from the table."""
    _closed: bool = attrs.field(default=False, init=False)

    @property
    def closed(self) -> bool:
        """Whether there is nothing more to read, because of the end or of `close`."""
        return self._closed

    def next_slice(self, limit: int) -> list[tuple[bytes, Record]]:
        """The next files in order of name: 1 to ``limit`` of them, or none at the end (or once closed)."""
        names, records = self.next_raw_slice(limit)
        return list(zip(names, map(Record._make, records), strict=True))

    def next_raw_slice(self, limit: int) -> tuple[list[bytes], list[RawRecord]]:
        """As :meth:`next_slice`, with names and records apart, and these as they are kept."""
        while not self._closed:
            names = self._next_names(limit)
            if not names:
                self.close()
                break
            self._cursor = names[-1]
            found = self._look_up(names)
            if found[0]:  # else the slice was all files that are younger than the view: go on behind them
                return found
        return [], []

    def save(self, name: bytes, record: RawRecord | None) -> None:
        """Keep what a file is, since it is going to change. Called by the table for its open views."""
        if self._cursor is not None and name <= self._cursor:
            return
        if name not in self._overlay and name.startswith(self._prefix):
            self._overlay[name] = record

    def save_removed(self, name: bytes, record: RawRecord) -> None:
        """Keep what a file is, since it is going to be removed."""
        self.save(name, record)
        if self._overlay.get(name) is not None and name not in self._removed_names:
            self._removed_names.add(name)

    def close(self) -> None:
        """The rest isn't wanted: the view costs nothing from here on. May be called more than once."""
        if not self._closed:
            self._closed = True
            self._table.views.remove(self)
            self._overlay.clear()
            self._removed_names.clear()

    def __enter__(self) -> StoreView:
        """The view itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the view."""
        self.close()

    def _next_names(self, limit: int) -> list[bytes]:
        """The next names of table and overlay, at most ``limit``, not all of which need have been there."""
        names = self._names_of(self._table.names, limit)
        if not self._removed_names:
            return names
        return sorted({*names, *self._names_of(self._removed_names, limit)})[:limit]

    def _names_of(self, names: SortedList, limit: int) -> list[bytes]:
        """The first of these sorted names that lie ahead of the view."""
        if self._cursor is None:
            ahead: Iterator[bytes] = names.irange(minimum=self._prefix)
        else:
            ahead = names.irange(minimum=self._cursor, inclusive=(False, True))
        prefix = self._prefix
        if prefix:
            ahead = takewhile(lambda name: name.startswith(prefix), ahead)
        return list(islice(ahead, limit))

    def _look_up(self, names: list[bytes]) -> tuple[list[bytes], list[RawRecord]]:
        """What these names were, without those that weren't there; their overlay is used up."""
        overlay = self._overlay
        found = list(map(self._table.records.get, names))
        if overlay:
            for place, name in enumerate(names):
                if name in overlay:
                    found[place] = overlay.pop(name)
            del self._removed_names[: self._removed_names.bisect_right(names[-1])]
        records = [record for record in found if record is not None]
        if len(records) < len(names):
            names = [name for name, record in zip(names, found, strict=True) if record is not None]
        return names, records
