"""The replicated log in memory: bytes in a list, and runs of terms beside it.

No object per entry: an entry is the bytes that were submitted, and since terms change rarely they are
kept as runs ``(first index, term)`` found by bisection. A compacted prefix leaves its last index and term
behind (``base_index``, ``base_term``), which the consistency check of AppendEntries still needs
(thesis 5.1). A new log has base 0 of term 0.

The older part of the log is kept by its terms alone: entries up to ``memory_base`` have to be read back from disk
(:mod:`statemachine.disk_entries`), as only a follower that is far behind needs them. So a log may be long without
taking much memory.

Invariants: indexes are consecutive from ``base_index + 1``; terms never decrease along the log; the first
run begins at ``base_index + 1`` when there are entries; ``base_index <= memory_base <= last_index``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence


class Log:
    """Entries ``first_index`` to ``last_index``; see the module's docstring."""

    __slots__ = (
        "_entries",
        "_run_firsts",
        "_run_terms",
        "appended_bytes",
        "base_index",
        "base_term",
        "last_index",
        "memory_base",
        "memory_bytes",
    )

    def __init__(self, base_index: int = 0, base_term: int = 0) -> None:
        """Begin with no entries behind ``base_index``, the last entry that a snapshot covers."""
        self._entries: list[bytes] = []
        self._run_firsts: list[int] = []
        self._run_terms: list[int] = []
        self.base_index = base_index
        self.base_term = base_term
        self.last_index = base_index
        self.memory_base = base_index
        """Entries above it are in memory."""
        self.memory_bytes = 0
        """How many bytes these have."""
        self.appended_bytes = 0
        """How many bytes all entries had that were ever appended: two readings tell how much the log has grown."""

    @property
    def first_index(self) -> int:
        """The oldest index whose entry is kept (or will be, when the log is empty)."""
        return self.base_index + 1

    @property
    def last_term(self) -> int:
        """The term of the last entry, kept or compacted; 0 for a log that never had one."""
        return self._run_terms[-1] if self._run_terms else self.base_term

    def __len__(self) -> int:
        """How many entries are kept, in memory or on disk."""
        return self.last_index - self.base_index

    def term_at(self, index: int) -> int | None:
        """The term of the entry at ``index``, or None where it isn't known: compacted away or not there yet."""
        if index == self.last_index:
            return self.last_term
        if index == self.base_index:
            return self.base_term
        if not self.base_index < index <= self.last_index:
            return None
        return self._run_terms[bisect_right(self._run_firsts, index) - 1]

    def entries(self, first_index: int, last_index: int) -> list[bytes]:
        """The entries from ``first_index`` to ``last_index``, both included; they must be in memory."""
        offset = self.memory_base + 1
        return self._entries[first_index - offset : last_index + 1 - offset]

    def run_from(self, first_index: int, bytes_max: int) -> tuple[int, tuple[bytes, ...]]:
        """Entries of one term from ``first_index`` on: their term, and as many as fit ``bytes_max`` (at least one).

        ``first_index`` must be in memory.
        """
        run = bisect_right(self._run_firsts, first_index) - 1
        start = first_index - self.memory_base - 1
        end = self._run_end(run) - self.memory_base
        stop = start + fitting(self._entries, bytes_max, start, end)
        return self._run_terms[run], tuple(self._entries[start:stop])

    def last_of_run(self, index: int) -> int:
        """The last index of consecutive entries that have the term of the one at ``index``, which must be kept."""
        return self._run_end(bisect_right(self._run_firsts, index) - 1)

    def _run_end(self, run: int) -> int:
        return self._run_firsts[run + 1] - 1 if run + 1 < len(self._run_firsts) else self.last_index

    def count_matching(self, first_index: int, term: int, count: int) -> int:
        """How many of ``count`` entries of ``term`` from ``first_index`` on stand in the log already.

        Entries of one index and term are the same entry (Log Matching, Figure 3.2), so terms are all
        that is compared. ``first_index`` must be above ``base_index``.
        """
        if first_index > self.last_index:
            return 0
        run = bisect_right(self._run_firsts, first_index) - 1
        if self._run_terms[run] != term:
            return 0
        return min(count, self._run_end(run) + 1 - first_index)

    def last_index_not_after(self, index: int, term: int) -> int:
        """The highest index, at most ``index``, whose entry's term is at most ``term``.

        Terms never decrease along the log, so above it no entry of ``term`` or earlier can stand.
        Never below ``base_index``, whose entry is committed and so agrees with every leader's log.
        """
        index = min(index, self.last_index)
        run = bisect_right(self._run_terms, term)
        if run < len(self._run_firsts):
            index = min(index, self._run_firsts[run] - 1)
        return max(index, self.base_index)

    def append(self, term: int, entries: Sequence[bytes]) -> None:
        """Add entries of ``term`` at the end; ``term`` is no earlier than the last one."""
        if not self._run_terms or self._run_terms[-1] != term:
            self._run_firsts.append(self.last_index + 1)
            self._run_terms.append(term)
        self._entries.extend(entries)
        self.last_index += len(entries)
        size = sum(map(len, entries))
        self.memory_bytes += size
        self.appended_bytes += size

    def truncate(self, last_index: int) -> None:
        """Drop all entries behind ``last_index``, which is at least ``memory_base``."""
        self._drop_from_memory(last_index - self.memory_base, len(self._entries))
        keep = bisect_right(self._run_firsts, last_index)
        del self._run_firsts[keep:]
        del self._run_terms[keep:]
        self.last_index = last_index

    def compact(self, first_index_kept: int) -> None:
        """Drop entries below ``first_index_kept``, which is at most ``last_index + 1``."""
        new_base = first_index_kept - 1
        if new_base <= self.base_index:
            return
        new_base_term = self.term_at(new_base)
        assert new_base_term is not None, "compaction reaches past the end of the log"
        self.forget(new_base)
        keep_from = max(bisect_right(self._run_firsts, first_index_kept) - 1, 0)
        del self._run_firsts[:keep_from]
        del self._run_terms[:keep_from]
        self.base_index = new_base
        self.base_term = new_base_term
        if new_base == self.last_index:
            self._run_firsts.clear()
            self._run_terms.clear()
        else:
            self._run_firsts[0] = first_index_kept

    def limit_memory(self, bytes_max: int, last_index: int) -> None:
        """Drop the oldest entries from memory, up to ``last_index`` at most, until it has no more than that."""
        size = self.memory_bytes
        new_base = self.memory_base
        for entry in self._entries:
            if size <= bytes_max or new_base >= last_index:
                break
            size -= len(entry)
            new_base += 1
        self.forget(new_base)

    def forget(self, index: int) -> None:
        """Drop the entries up to ``index`` from memory, which are on disk."""
        if index > self.memory_base:
            self._drop_from_memory(0, index - self.memory_base)
            self.memory_base = index

    def _drop_from_memory(self, start: int, stop: int) -> None:
        self.memory_bytes -= sum(map(len, self._entries[start:stop]))
        del self._entries[start:stop]

    def reset(self, base_index: int, base_term: int) -> None:
        """Forget everything and begin behind a snapshot's last entry (thesis, Figure 5.3, step 7)."""
        self._entries.clear()
        self.memory_bytes = 0
        self._run_firsts.clear()
        self._run_terms.clear()
        self.base_index = self.memory_base = self.last_index = base_index
        self.base_term = base_term

    def runs(self) -> list[tuple[int, int]]:
        """The runs of terms, as (first index, term) in order."""
        return list(zip(self._run_firsts, self._run_terms, strict=True))


def fitting(entries: Sequence[bytes], bytes_max: int, start: int = 0, end: int | None = None) -> int:
    """How many entries fit together into so many bytes, the first of them in any case.

    Only those from ``start`` to before ``end`` are looked at: mostly few are wanted, behind very many.
    """
    if end is None:
        end = len(entries)
    size = 0
    for position in range(start, end):
        size += len(entries[position])
        if size > bytes_max and position > start:
            return position - start
    return end - start
