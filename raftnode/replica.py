"""The replicated state: cluster time, the sessions of the servers, and the application's machine.

Every server feeds the same committed entries to its replica, in order, and so all replicas are equal at
equal indexes. Pure: no clock, no disk, no network; time comes in the entries.

Sessions make a batch that is sent again be applied once (thesis 6.3). A run of a server opens one; its id is
the index of the entry that opened it, so none is ever used twice. Opening ends the same server's earlier
session: there is one a server at most, and a batch of an ended or unknown session is never applied. Within a
session batches are applied strictly in sequence: one that was applied is skipped, and so is one whose
predecessor is missing (its sender sends both again). Results are kept until the sender says that it has them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any, Protocol, TypeAlias

import attrs
import cbor2

from raftnode import entries
from raftnode.buffers import Chunk
from raftnode.entries import EntryKind
from statemachine.values import value

_BATCH, _OPEN_SESSION = int(EntryKind.BATCH), int(EntryKind.OPEN_SESSION)

Results: TypeAlias = Any
"""What a machine gives for a batch; this package only hands it on, or has the machine pack it."""


class Restore(Protocol):
    """A machine's new state, while it is being read from a snapshot."""

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk, as the machine's snapshot gave it."""

    def finish(self) -> None:
        """All chunks have come: the machine is in the new state from now on.

        Raises:
            ValueError: the chunks aren't a whole snapshot.
        """


class Machine(Protocol):
    """The application: a deterministic state that committed batches change.

    Each method does what it does in a few milliseconds at most; snapshots are made and read in pieces.
    """

    def apply(self, clock_us: int, session: int, payload: Chunk) -> Results:
        """Carry out a batch at this cluster time. What is kept of a payload is to be copied: it may be a view."""

    def advance(self, clock_us: int) -> None:
        """Cluster time has come this far."""

    def end_session(self, session: int) -> None:
        """Nothing more will come of this session."""

    def next_deadline_us(self) -> int | None:
        """The next cluster time at which something happens by itself, or None."""

    def pack_results(self, results: Results) -> bytes:
        """Results as bytes, for a snapshot."""

    def unpack_results(self, packed: bytes) -> Results:
        """Results from such bytes."""

    def snapshot(self) -> Iterator[bytes]:
        """The state of this moment in chunks, whatever is applied while they are drawn. Must be closed or exhausted."""

    def begin_restore(self) -> Restore:
        """Begin to replace the state by a snapshot's."""


@attrs.define(slots=True)
class Session:
    """What is known of one server's run."""

    session: int
    server_id: int
    nonce: int
    sequence: int = 0
    """Of the last batch applied."""
    results: dict[int, Results] = attrs.field(factory=dict)
    """By sequence: those that the sender may not have yet."""


@value
class BatchApplied:
    """A batch was carried out, and not just seen again."""

    session: int
    sequence: int
    results: Results


@value
class BatchOutOfSequence:
    """A batch came whose predecessor is missing: it was skipped, and is to be proposed again behind it."""

    session: int


@value
class SessionOpened:
    """A server's run can propose from now on; its earlier session is over."""

    session: Session


Outcome: TypeAlias = BatchApplied | BatchOutOfSequence | SessionOpened | None
"""What applying an entry brought about, as far as anybody waits for it."""


class Replica:
    """See the module's docstring."""

    def __init__(self, machine: Machine) -> None:
        """Begin empty, at index 0 and time 0."""
        self.machine = machine
        self.applied_index = 0
        self.clock_us = 0
        self.sessions: dict[int, Session] = {}
        """By session."""
        self.awaited_session: int | None = None
        """Whose batches' outcomes are wanted; None for all of them."""

    def apply(self, index: int, entry: bytes) -> Outcome:
        """Apply the committed entry at ``index``, the one behind ``applied_index``.

        Raises:
            BadEntry: it can't be read.
        """
        assert index == self.applied_index + 1, "entries are applied in order, each once"
        outcome: Outcome = None
        if entry:
            kind, stamp_us, session, sequence, acknowledged, payload = entries.decode(entry)
            if stamp_us > self.clock_us:
                self.clock_us = stamp_us
            if kind == _BATCH:
                outcome = self._apply_batch(session, sequence, acknowledged, payload)
            else:
                self.machine.advance(self.clock_us)
                if kind == _OPEN_SESSION:
                    outcome = self._open_session(index, session, sequence)
        self.applied_index = index
        return outcome

    def session_of(self, server_id: int) -> Session | None:
        """The open session of a server, if it has one."""
        return next((session for session in self.sessions.values() if session.server_id == server_id), None)

    def _apply_batch(
        self, number: int, sequence: int, acknowledged: int, payload: Chunk
    ) -> BatchApplied | BatchOutOfSequence | None:
        session = self.sessions.get(number)
        if session is None or sequence != session.sequence + 1:
            self.machine.advance(self.clock_us)
            missing = session is not None and sequence > session.sequence
            return BatchOutOfSequence(number) if missing else None
        results = self.machine.apply(self.clock_us, number, payload)
        session.sequence = sequence
        kept = session.results
        kept[sequence] = results
        # They are in a row up to this one, so their number tells whether one of them is acknowledged.
        while kept and len(kept) > sequence - acknowledged:
            del kept[next(iter(kept))]
        return BatchApplied(number, sequence, results) if self.awaited_session in (None, number) else None

    def _open_session(self, index: int, server_id: int, nonce: int) -> SessionOpened | None:
        earlier = self.session_of(server_id)
        if earlier is not None:
            if earlier.nonce == nonce:
                return None
            del self.sessions[earlier.session]
            self.machine.end_session(earlier.session)
        opened = self.sessions[index] = Session(index, server_id, nonce)
        return SessionOpened(opened)

    # Snapshots: one chunk of this class's own, then the machine's

    def snapshot(self) -> Iterator[bytes]:
        """The state of this moment in chunks; see :meth:`Machine.snapshot`."""
        head = cbor2.dumps(
            [
                self.applied_index,
                self.clock_us,
                [
                    [
                        session.session,
                        session.server_id,
                        session.nonce,
                        session.sequence,
                        [[number, self.machine.pack_results(results)] for number, results in session.results.items()],
                    ]
                    for session in self.sessions.values()
                ],
            ]
        )
        return _chunks(head, self.machine.snapshot())

    def begin_restore(self) -> ReplicaRestore:
        """Begin to replace the state by a snapshot's; nothing changes before ``finish``."""
        return ReplicaRestore(self)


def _chunks(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield head
        yield from rest
    finally:
        # Also when this is closed before the rest has begun, which delegation to it wouldn't pass on.
        close = getattr(rest, "close", None)
        if close is not None:
            close()


_HEAD_DEPTH = 5
"""The head, its sessions, a session, its results, a result."""


def _require_numbers(*numbers: Any) -> None:
    """Raises TypeError, OverflowError or ValueError for what isn't a number from 0 to 2**63 - 1, as a boolean isn't."""
    if set(map(type, numbers)) != {int}:
        raise TypeError("a number is none")
    if min(array("q", numbers)) < 0:
        raise ValueError("a snapshot whose head has a number below 0")


class ReplicaRestore:
    """A replica's new state, while it is being read."""

    def __init__(self, replica: Replica) -> None:
        """Begin; see :meth:`Replica.begin_restore`."""
        self._replica = replica
        self._machine_restore = replica.machine.begin_restore()
        self._head: bytes | None = None

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk."""
        if self._head is None:
            self._head = chunk
        else:
            self._machine_restore.feed(chunk)

    def finish(self) -> None:
        """Change over to the new state.

        Raises:
            ValueError: the chunks aren't a whole snapshot.
        """
        if self._head is None:
            raise ValueError("a snapshot without contents")
        replica = self._replica
        try:
            applied_index, clock_us, packed_sessions = cbor2.loads(
                self._head, max_depth=_HEAD_DEPTH, allow_indefinite=False
            )
            _require_numbers(applied_index, clock_us)
            sessions = {}
            for session, server_id, nonce, sequence, packed in packed_sessions:
                _require_numbers(session, server_id, nonce, sequence, *(number for number, _ in packed))
                results = {number: replica.machine.unpack_results(data) for number, data in packed}
                sessions[session] = Session(session, server_id, nonce, sequence, results)
        except (cbor2.CBORDecodeError, TypeError, OverflowError) as error:
            raise ValueError(f"a snapshot whose head can't be read: {error}") from error
        self._machine_restore.finish()
        replica.applied_index = applied_index
        replica.clock_us = clock_us
        replica.sessions = sessions
