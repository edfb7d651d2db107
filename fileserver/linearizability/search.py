"""The search for a linearization of one file's history.

Theory of operation
    The search of Wing & Gong 1993, with the cache of Lowe 2017: operations are put in order one by one. One may come
    next if no other that is still to be placed returned before it was called, and if the model allows its outcome.
    Where nothing can come next, the last choice is taken back. A configuration (what has been placed, and the state
    that this led to) that was met before is not entered again. The placed ones are kept as Lowe keeps them, as a set of
    bits, but from the first gap on: all known operations before that are placed.

    Operations of unknown outcome may be placed or not; the search ends when all known ones are placed.

    What makes it fast, each without changing what is found:

    * Versions. The acknowledged changes come in the order of their versions, so at most one of them can be next; and no
      change comes before all that observe an older version are placed, since that version never returns.
    * An operation that fits and never changes the state is placed at once, without alternatives: whatever could
      come before it can come after it. (Where time matters, only if that doesn't raise the earliest instant.)
    * Of deletions that name no version, the one that must be over first goes first: they can be exchanged. (Not where
      time matters.)
    * Unknown operations come last among the choices, and equal ones in order of call. A configuration with more of them
      used up than in a like one met before is not entered: what is left over there can do no more.
    * A change of unknown outcome that nothing has depended on yet is *unseen*. No write follows it, nor a deletion of
      unknown outcome that names no version: without the unseen change these do the same.
      Where time doesn't matter, an unseen change is tried only where a known operation waits that it may enable.
    * A change of unknown outcome has either an orphan's version, or the least one that nobody mentions: all of these
      are alike.

Invariants
    All that was placed is undone in reverse order. Every placed known operation was called no later than the first
    return among those that are not placed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Final, NamedTuple

import attrs

from fileserver.linearizability.history import Action, Append, Cas, Delete, Deleted, NotFound, Touch, Write
from fileserver.linearizability.model import NEVER_US, NO_FILE, FileState, Model
from fileserver.linearizability.prepare import Entry, FileHistory


class Verdict(Enum):
    """What became of a check."""

    LINEARIZABLE = "linearizable"
    VIOLATION = "violation"
    UNDECIDED = "undecided"
    """The limit of work was reached. Whoever asked must take it for a failure."""


class Choice(NamedTuple):
    """An operation that may come next, and the state after it."""

    entry: Entry
    state: FileState


class _Use(NamedTuple):
    """Which changes of unknown outcome may be of use at some place although nobody sees their version."""

    change: bool
    """A write, cas or append."""
    deletion: bool
    """A deletion; and, where time matters, a touch."""


_NO_USE: Final = _Use(change=False, deletion=False)


class _Undo(NamedTuple):
    """What a placing changed, apart from the counts."""

    state: FileState
    unseen: bool
    earliest_us: int
    first_gap: int
    placed_after_gap: int


@attrs.frozen(slots=True, eq=False)
class DeadEnd:
    """The place that the search got furthest to."""

    placed: tuple[Choice, ...]
    """The longest prefix of a linearization that was found, each operation with the state after it."""
    state: FileState
    stuck: tuple[Entry, ...]
    """The known operations one of which would have to come next."""


_NOWHERE: Final = DeadEnd((), NO_FILE, ())


@attrs.define(eq=False)
class Search:
    """One search. Made anew for each."""

    _history: FileHistory
    _model: Model
    _work_limit: int
    """How many configurations may be entered."""
    configurations: int = attrs.field(default=0, init=False)
    """How many were."""
    dead_end: DeadEnd = attrs.field(default=_NOWHERE, init=False)
    """Means something only after a violation."""

    _state: FileState = attrs.field(default=NO_FILE, init=False)
    _unseen: bool = attrs.field(default=False, init=False)
    _earliest_us: int = attrs.field(default=-NEVER_US, init=False)
    """The latest call among those placed."""
    _first_gap: int = attrs.field(default=0, init=False)
    _placed_after_gap: int = attrs.field(default=0, init=False)
    """Bit ``i`` stands for the known operation ``first gap + i``."""
    _unknown_used: int = attrs.field(default=0, init=False)
    _unknown_used_of: list[int] = attrs.field(init=False)
    """How many of each class are placed."""
    _made: int = attrs.field(default=0, init=False)
    """How many of the acknowledged changes are placed."""
    _observers_left: dict[int, int] = attrs.field(init=False)
    _known_left: int = attrs.field(init=False)
    _next: list[int] = attrs.field(init=False)
    """The known operations that are not placed, as a ring in order of call; the last element is its anchor."""
    _previous: list[int] = attrs.field(init=False)
    _path: list[Choice] = attrs.field(factory=list, init=False)
    _undos: list[_Undo] = attrs.field(factory=list, init=False)
    _class_of: dict[int, int] = attrs.field(init=False)
    _visited: dict[tuple[int, int, FileState, bool, int], list[int]] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        """Begin with nothing placed."""
        self._known_left = count = len(self._history.known)
        self._next = [*range(1, count + 1), 0]
        self._previous = [count, *range(count)]
        self._observers_left = dict(self._history.observers)
        self._unknown_used_of = [0] * len(self._history.unknown_classes)
        self._class_of = {
            id(entry): number for number, alike in enumerate(self._history.unknown_classes) for entry in alike
        }

    def run(self) -> Verdict:
        """Search. Only once."""
        taken_back: list[Iterator[Choice]] = []
        choices = self._choices()
        while self._known_left:
            choice = next(choices, None)
            if choice is None:
                self._note_dead_end()
                if not taken_back:
                    return Verdict.VIOLATION
                choices = taken_back.pop()
                self._take_back()
                continue
            self._place(choice)
            if self._was_visited():
                self._take_back()
                continue
            self.configurations += 1
            if self.configurations > self._work_limit:
                return Verdict.UNDECIDED
            taken_back.append(choices)
            choices = self._choices()
        return Verdict.LINEARIZABLE

    # Going on and back

    def _place(self, choice: Choice) -> None:
        """Make an operation the next one."""
        entry, state = choice
        self._undos.append(_Undo(self._state, self._unseen, self._earliest_us, self._first_gap, self._placed_after_gap))
        self._path.append(choice)
        self._state = state
        self._earliest_us = max(self._earliest_us, entry.called_us)
        # A touch doesn't count: it may spare the file an expiry, and so the version that this would take.
        self._unseen = entry.outcome is None and (self._unseen or not isinstance(entry.action, Touch))
        if entry.outcome is None:
            self._unknown_used |= 1 << entry.index
            self._unknown_used_of[self._class_of[id(entry)]] += 1
            return
        before, after = self._previous[entry.index], self._next[entry.index]
        self._next[before], self._previous[after] = after, before
        self._known_left -= 1
        self._made += entry.makes > 0
        if entry.observes:
            self._observers_left[entry.observes] -= 1
        bits = self._placed_after_gap | 1 << (entry.index - self._first_gap)
        if bits & 1:
            run = (~bits & (bits + 1)).bit_length() - 1
            self._first_gap += run
            bits >>= run
        self._placed_after_gap = bits

    def _take_back(self) -> None:
        """Undo the last placing."""
        entry = self._path.pop().entry
        undo = self._undos.pop()
        self._state, self._unseen, self._earliest_us, self._first_gap, self._placed_after_gap = undo
        if entry.outcome is None:
            self._unknown_used ^= 1 << entry.index
            self._unknown_used_of[self._class_of[id(entry)]] -= 1
            return
        self._next[self._previous[entry.index]] = self._previous[self._next[entry.index]] = entry.index
        self._known_left += 1
        self._made -= entry.makes > 0
        if entry.observes:
            self._observers_left[entry.observes] += 1

    def _was_visited(self) -> bool:
        """Whether a configuration was met from which all is possible that is from here; if not, remember this one."""
        earliest_us = self._earliest_us if self._history.expires else 0
        key = (self._first_gap, self._placed_after_gap, self._state, self._unseen, earliest_us)
        met = self._visited.setdefault(key, [])
        if any(used & self._unknown_used == used for used in met):
            return True
        met.append(self._unknown_used)
        return False

    def _note_dead_end(self) -> None:
        """Remember how far this was, if nothing was further."""
        if len(self._path) > len(self.dead_end.placed) or not self.dead_end.stuck:
            self.dead_end = DeadEnd(tuple(self._path), self._state, tuple(self._enabled()[0]))

    # What can come next

    def _enabled(self) -> tuple[list[Entry], int]:
        """The known operations that real time allows to come next, and the first return among all that are left."""
        known, following = self._history.known, self._next
        enabled = []
        first_return_us = NEVER_US
        index = following[-1]
        while index < len(known):
            entry = known[index]
            if entry.called_us > first_return_us:
                break
            enabled.append(entry)
            first_return_us = min(first_return_us, entry.returned_us)
            index = following[index]
        return enabled, first_return_us

    def _choices(self) -> Iterator[Choice]:
        """What may come next, the likeliest first. Lazy: what is asked for last is seldom asked for."""
        enabled, first_return_us = self._enabled()
        changes = []
        delete: Choice | None = None
        for entry in enabled:
            for state in self._after(entry, first_return_us):
                choice = Choice(entry, state)
                if state == self._state and self._is_harmless(entry):
                    yield choice
                    return
                if isinstance(entry.outcome, Deleted) and not entry.observes and not self._history.expires:
                    if delete is None or entry.returned_us < delete.entry.returned_us:
                        delete = choice
                else:
                    changes.append(choice)
        yield from changes
        if delete is not None:
            yield delete
        yield from self._unknown_choices(enabled, first_return_us)

    def _is_harmless(self, entry: Entry) -> bool:
        """Whether to place the operation now, which leaves the state alone, can't rule out anything later."""
        if not self._history.expires:
            return True
        # A touch that changes nothing now might change something later.
        return entry.called_us <= self._earliest_us and type(entry.action) is not Touch

    def _after(self, entry: Entry, first_return_us: int) -> Iterator[FileState]:
        """The states that a known operation may lead to from here."""
        if entry.observes and entry.observes != self._state.version:
            return
        if entry.makes and entry.makes != self._history.made[self._made]:
            return
        if self._unseen and isinstance(entry.action, Write):
            return
        assert entry.outcome is not None, "only known operations are asked about"
        earliest_us = max(self._earliest_us, entry.called_us)
        made = self._made + (entry.makes > 0)
        for view in self._model.views(self._state, earliest_us, first_return_us):
            state = self._model.answer(view, entry.action, entry.outcome, earliest_us, first_return_us)
            if state is not None and self._leaves_hope(state, made, entry.observes):
                yield state

    def _unknown_choices(self, enabled: Sequence[Entry], first_return_us: int) -> Iterator[Choice]:
        """The operations of unknown outcome that may come next, take effect and be of use."""
        orphans = self._orphans_due()
        use = self._use(enabled, orphans)
        if use is _NO_USE and not orphans:
            return
        for entry in self._unknown_enabled(first_return_us, orphans):
            earliest_us = max(self._earliest_us, entry.called_us)
            for view in self._model.views(self._state, earliest_us, first_return_us):
                for version in self._free_versions(entry, view, orphans, use):
                    state = self._model.change(view, entry.action, version, earliest_us, first_return_us)
                    if state is not None and self._leaves_hope(state, self._made, 0):
                        yield Choice(entry, state)

    def _unknown_enabled(self, first_return_us: int, orphans: Sequence[int]) -> list[Entry]:
        """The first of each class of unknown operations that may come next, the likeliest first.

        Those come first that have the contents of an orphan that is due, those last that have another orphan's: they
        will be needed for that. For the rest, what was called last is likeliest to take effect now.
        """
        digests = self._history.digests
        due = {digests.get(version) for version in orphans}
        ranked = []
        for number, alike in enumerate(self._history.unknown_classes):
            used = self._unknown_used_of[number]
            if used == len(alike) or alike[used].called_us > first_return_us:
                continue
            entry = alike[used]
            if not (self._unseen and _is_blind(entry.action)):
                rank = 1
                if entry.digest in self._history.orphan_digests:
                    rank = 0 if entry.digest in due else 2
                ranked.append((rank, -entry.called_us, number, entry))
        return [entry for *_, entry in sorted(ranked)]

    def _orphans_due(self) -> Sequence[int]:
        """The orphans that a change of unknown outcome may make now: up to the first that has observers left."""
        orphans = self._history.orphans
        below = self._history.made[self._made] if self._made < len(self._history.made) else NEVER_US
        first = bisect_right(orphans, self._state.last_version)
        due = orphans[first : bisect_left(orphans, below)]
        for count, version in enumerate(due, start=1):
            if self._observers_left.get(version):
                return due[:count]
        return due

    def _use(self, enabled: Sequence[Entry], orphans: Sequence[int]) -> _Use:
        """What an unseen change would be of use for."""
        if self._history.expires:
            return _Use(change=True, deletion=True)
        # Without expiry, what comes after an unseen change and the like is one of these known operations.
        present = append = absent = False
        for entry in enabled:
            if isinstance(entry.outcome, Deleted):
                present = present or not self._state.version
            elif isinstance(entry.outcome, NotFound):
                absent = True
            elif entry.makes and entry.makes == self._history.made[self._made]:
                append = append or isinstance(entry.action, Append)
                absent = absent or isinstance(entry.action, Cas)
        by_unknown = bool(orphans) and self._history.unknown_depend
        if not (present or append or absent or by_unknown):
            return _NO_USE
        return _Use(change=present or append or by_unknown, deletion=absent or append or by_unknown)

    def _free_versions(self, entry: Entry, view: FileState, orphans: Sequence[int], use: _Use) -> Iterator[int]:
        """The versions that a change of unknown outcome may get, as far as they differ in what follows."""
        if isinstance(entry.action, Delete | Touch):
            if use.deletion:
                yield 0
            return
        yield from orphans
        if use.change:
            version = view.last_version + 1
            while version in self._history.mentioned or version in self._history.elsewhere:
                version += 1
            yield version

    def _leaves_hope(self, state: FileState, made: int, observes: int) -> bool:
        """Whether all that is still to be placed can be, as far as the versions tell.

        Args:
            state: the one after the operation that is looked at.
            made: how many acknowledged changes are placed then.
            observes: the version that it observes itself, 0 for none.
        """
        last_version = self._state.last_version
        if state.last_version == last_version:
            return True
        history = self._history
        if made < len(history.made) and history.made[made] <= state.last_version:
            return False
        if history.digests.get(state.version, state.digest) != state.digest:
            return False
        first = bisect_left(history.observed, last_version)
        end = bisect_right(history.observed, state.last_version - (state.version > 0))
        return all(self._observers_left[version] == (version == observes) for version in history.observed[first:end])


def _is_blind(action: Action) -> bool:
    """Whether what the action does doesn't depend on the file, except that a deletion needs one."""
    return isinstance(action, Write) or action == Delete(None)
