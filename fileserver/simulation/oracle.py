"""Judges everything that servers apply and clients are told, at once and in a few steps each.

The first server to apply an entry says what the order is; :class:`~fileserver.simulation.model.FilesModel` says what
must come of it. Every other server must come to the same results and the same state at the same index.

A client's reply is right if it was true at some index between its request and itself. *From* is the highest index
that any client could know of when the request was made: that of a change whose reply had come, or of the state that a
read had shown (real-time order; reading one's own writes follows from it). *To* is the last entry applied by then. So
each of these would be found: a value that nobody wrote, an acknowledged change that is lost or came twice, a refused
change that was made, a version given twice or left out, a stale read, a file that expired early or came back.

Contents are unique, which is how a command in the log is known as some client's. The deletes and touches of a name have
none: a reply to one needs an entry of its own that could be it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import attrs

from fileserver.commands import APPEND, CAS, DELETE, TOUCH, WRITE, Result
from fileserver.records import pieces_of
from fileserver.simulation.model import Applied, FilesModel, FileState, Outcome
from fileserver.store import Store


class Violation(AssertionError):
    """A promise was broken."""


@attrs.define(slots=True, eq=False)
class Request:
    """What a client wants, when it asked, and what it could know by then."""

    client: int
    operation: int
    name: bytes
    argument: int
    exptime: int
    content: bytes
    called_us: int
    known_index: int
    """Whatever was true before this index can't be its answer."""


_TOKEN_OPERATIONS = (WRITE, CAS, APPEND)


class Oracle:
    """See the module's docstring; every method raises :class:`Violation`."""

    def __init__(self, clock_bound_us: Callable[[], int]) -> None:
        """``clock_bound_us`` tells what the fastest clock of all can have come to since the cluster was born."""
        self._clock_bound_us = clock_bound_us
        self.model = FilesModel()
        self.applied_index = 0
        self.known_index = 0
        """The highest that a client can know of."""
        self.replies = 0
        self.served = 0
        """Replies that tell what came of a request, whatever it is."""
        self.changes_acknowledged = 0
        self._results: dict[int, list[Outcome]] = {}
        self._state_hashes: dict[int, str] = {}
        self._carried_out: dict[bytes, Applied] = {}
        """Commands with unique contents, by these."""
        self._others: defaultdict[tuple[int, bytes], list[Applied]] = defaultdict(list)
        """Deletes and touches, by operation and name, that no client's request was taken for yet."""
        self._refused: set[bytes] = set()
        """Contents of requests that were refused for good."""
        self._token_of: dict[bytes, Request] = {}

    # What servers do

    def applied(self, index: int, clock_us: int, session: int, payload: bytes, results: Sequence[Result]) -> None:
        """A server has applied a batch with these results."""
        found: list[Outcome] = [result if isinstance(result, int) else (result[0], result[1]) for result in results]
        if index <= self.applied_index:
            if self._results.get(index) != found:
                raise Violation(f"entry {index}: another server came to other results")
            return
        self._is_next(index, clock_us)
        applied = self.model.apply(index, clock_us, session, payload)
        self._results[index] = found
        for command, result in zip(applied, found, strict=True):
            if command.outcome != result:
                raise Violation(f"entry {index}: {command} led to {result}")
            self._note(command)

    def time_came(self, index: int, clock_us: int) -> None:
        """A server has applied an entry that changed nothing by itself."""
        if index > self.applied_index:
            self._is_next(index, clock_us)
            self.model.advance(index, clock_us)

    def session_ended(self, index: int, session: int) -> None:
        """A server has dropped what a session had staged."""
        if index >= self.applied_index:
            self.model.end_session(session)

    def state_is(self, server_id: int, index: int, store: Store) -> None:
        """A server's store, after an entry."""
        if index == self.applied_index and store.version != self.model.version:
            raise Violation(f"entry {index}: version {store.version}, and it should be {self.model.version}")
        found = store.state_hash()
        if self._state_hashes.setdefault(index, found) != found:
            raise Violation(f"entry {index}: server {server_id} is in another state than the others were")

    def _is_next(self, index: int, clock_us: int) -> None:
        if clock_us > self._clock_bound_us():
            raise Violation(f"entry {index}: cluster time {clock_us} us is ahead of every clock")
        # Entries in between are empty: a new leader's first.
        self.applied_index = index

    def _note(self, command: Applied) -> None:
        if command.operation in (DELETE, TOUCH):
            self._others[command.operation, command.name].append(command)
            return
        if command.operation not in _TOKEN_OPERATIONS:
            return
        content = command.content
        if content in self._refused:
            raise Violation(f"a change was made that its client was told is not applied: {command}")
        if self._carried_out.setdefault(content, command) is not command:
            raise Violation(f"a change was made twice: {self._carried_out[content]} and {command}")
        request = self._token_of.get(content)
        if request is None:
            raise Violation(f"a change was made that nobody asked for: {command}")
        if command.index <= request.known_index:
            raise Violation(f"a change was made before it was asked for: {command}")
        wanted = (request.operation, request.name, request.argument, request.exptime)
        if wanted != (command.operation, command.name, command.argument, command.exptime):
            raise Violation(f"another change was made than was asked for: {command} for {request}")

    # What clients see

    def asks(self, request: Request) -> None:
        """A client sends a request."""
        if request.operation in _TOKEN_OPERATIONS:
            assert request.content not in self._token_of, "contents are unique"
            self._token_of[request.content] = request

    def refused(self, request: Request) -> None:
        """A client was told that its request is not applied and won't be."""
        self.replies += 1
        if request.operation in _TOKEN_OPERATIONS:
            if request.content in self._carried_out:
                raise Violation(f"told as not applied, and it was: {request}")
            self._refused.add(request.content)

    def changed(self, request: Request, version: int | None, current: int | None) -> None:
        """A client was told what came of its change: a version (0 for a delete), a current version, or no such file.

        ``version`` is None when it was refused; then ``current`` is the file's version, or None if there is none.
        """
        self.replies += 1
        command = self._find(request, version, current)
        if command is None:
            told = f"version {version}" if version is not None else f"current version {current}"
            raise Violation(f"no entry after {request.known_index} is what the client was told ({told}): {request}")
        if version is not None:
            self.changes_acknowledged += 1
        self._knows(command.index)

    def _find(self, request: Request, version: int | None, current: int | None) -> Applied | None:
        def fits(command: Applied) -> bool:
            outcome = command.outcome
            if isinstance(outcome, int):
                return outcome == version
            return version is None and outcome[1] == (current or 0)

        if request.operation in _TOKEN_OPERATIONS:
            command = self._carried_out.get(request.content)
            return command if command is not None and fits(command) else None
        candidates = self._others[request.operation, request.name]
        for place, candidate in enumerate(candidates):
            same = (candidate.argument, candidate.exptime) == (request.argument, request.exptime)
            if same and candidate.index > request.known_index and fits(candidate):
                return candidates.pop(place)
        return None

    def saw(self, request: Request, version: int, size: int, exptime: int, content: bytes | None) -> None:
        """A client was shown a file."""
        self.replies += 1
        matching = [
            state
            for state, end in self._states_since(request)
            if state.version == version and len(state.content) == size and _fits(state, exptime)
        ]
        if not matching:
            raise Violation(f"not true at any index since {request.known_index}: version {version} for {request}")
        if content is not None and content != matching[0].content:
            raise Violation(f"another content than version {version} has, for {request}")
        first = matching[0].index
        # A touch makes a new state of the same version; which of them was seen can't be told.
        past = self.model.past[request.name]
        earlier = [state.index for state in past if state.version == version]
        self._knows(min(first, *earlier))

    def saw_none(self, request: Request) -> None:
        """A client was told that there is no such file."""
        self.replies += 1
        absent = [state for state, end in self._states_since(request) if state.version == 0]
        if not absent:
            raise Violation(f"there was a file at every index since {request.known_index}, and none for {request}")
        self._knows(absent[0].index)

    def _states_since(self, request: Request) -> list[tuple[FileState, float]]:
        """The states of its file that were true after the last index that it could know, with where they end."""
        past = self.model.past[request.name]
        since: list[tuple[FileState, float]] = []
        end = math.inf
        for state in reversed(past):
            if end <= request.known_index:
                break
            since.append((state, end))
            end = state.index
        since.reverse()
        return since

    def _knows(self, index: int) -> None:
        self.served += 1
        self.known_index = max(self.known_index, index)

    # The end

    def check_store(self, server_id: int, applied_index: int, store: Store) -> None:
        """A server's files must be those of the model, one by one, when it has applied everything."""
        if applied_index < self.applied_index:
            raise Violation(f"server {server_id} has applied {applied_index} of {self.applied_index} entries")
        present = self.model.present()
        if store.files != len(present) or store.version != self.model.version:
            raise Violation(f"server {server_id} has {store.files} files, version {store.version}")
        for name, state in present.items():
            record = store.lookup(name)
            if record is None or (record.version, record.deadline_us) != (state.version, state.deadline_us):
                raise Violation(f"server {server_id} has {record} for {name!r}, and it should be {state}")
            if b"".join(pieces_of(record.content)) != state.content:
                raise Violation(f"server {server_id} has another content of {name!r}")


def _fits(state: FileState, exptime: int) -> bool:
    """Whether so many seconds can have been left in that state."""
    if state.deadline_us == 0 or exptime == 0:
        return state.deadline_us == exptime == 0
    return 1 <= exptime <= -((state.clock_us - state.deadline_us) // 1_000_000)
