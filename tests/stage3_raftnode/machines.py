"""The smallest application that shows everything a replicated one can get wrong: a list that only grows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from heapq import heappop, heappush

import attrs
import cbor2

from raftnode.buffers import Chunk

ENTRIES_PER_CHUNK = 16


@attrs.define(slots=True)
class ListState:
    """All that a :class:`ListMachine` is."""

    items: list[bytes] = attrs.Factory(list)
    """What was appended, in order."""
    digest: bytes = bytes(16)
    """Of all items in their order, with the cluster time of each."""
    clock_us: int = 0
    due: list[tuple[int, bytes]] = attrs.Factory(list)
    """Heap of what will be appended by itself."""
    ended_sessions: list[int] = attrs.Factory(list)


@attrs.define(slots=True, eq=False, repr=False)
class ListMachine:
    """Appends payloads; ``in <microseconds> <item>`` appends the item so much cluster time later.

    The result of a batch is its position in the list, from 1; of a delayed one, the time at which it is due.
    """

    state: ListState = attrs.Factory(ListState)
    snapshots_open: int = 0
    """How many snapshots were begun and neither exhausted nor closed."""
    chunk_padding_bytes: int = 0
    """Makes each chunk of a snapshot longer."""

    @property
    def items(self) -> list[bytes]:
        return self.state.items

    def apply(self, clock_us: int, session: int, payload: Chunk) -> int:
        self.advance(clock_us)
        assert session > 0
        payload = bytes(payload)
        if payload.startswith(b"in "):
            _, delay_us, item = payload.split(b" ", 2)
            due_us = clock_us + int(delay_us)
            heappush(self.state.due, (due_us, item))
            return due_us
        self._append(clock_us, payload)
        return len(self.state.items)

    def advance(self, clock_us: int) -> None:
        state = self.state
        assert clock_us >= state.clock_us, "cluster time never goes back"
        state.clock_us = clock_us
        while state.due and state.due[0][0] <= clock_us:
            self._append(*heappop(state.due))

    def _append(self, clock_us: int, item: bytes) -> None:
        state = self.state
        state.items.append(item)
        state.digest = hashlib.blake2b(b"%b %d %b" % (state.digest, clock_us, item), digest_size=16).digest()

    def end_session(self, session: int) -> None:
        self.state.ended_sessions.append(session)

    def next_deadline_us(self) -> int | None:
        return self.state.due[0][0] if self.state.due else None

    def pack_results(self, results: int) -> bytes:
        return b"%d" % results

    def unpack_results(self, packed: bytes) -> int:
        return int(packed)

    def snapshot(self) -> Iterator[bytes]:
        self.snapshots_open += 1
        state = self.state
        head = cbor2.dumps([len(state.items), state.digest, state.clock_us, list(state.due), state.ended_sessions])
        return ListSnapshot(self, [head, *_chunks(list(state.items), bytes(self.chunk_padding_bytes))])

    def begin_restore(self) -> ListRestore:
        return ListRestore(self)


def _chunks(items: list[bytes], padding: bytes) -> Iterator[bytes]:
    for start in range(0, len(items), ENTRIES_PER_CHUNK):
        yield cbor2.dumps([items[start : start + ENTRIES_PER_CHUNK], padding])


@attrs.define(slots=True, eq=False, repr=False)
class ListSnapshot:
    """The chunks of a list; tells its machine when it is done with, as a view of a store does."""

    _machine: ListMachine
    _chunks: list[bytes]
    _is_open: bool = True

    def __iter__(self) -> ListSnapshot:
        return self

    def __next__(self) -> bytes:
        if not self._chunks:
            self.close()
            raise StopIteration
        return self._chunks.pop(0)

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._machine.snapshots_open -= 1


@attrs.define(slots=True, eq=False, repr=False)
class ListRestore:
    """A list in the making."""

    _machine: ListMachine
    _state: ListState | None = None
    _count: int = 0

    def feed(self, chunk: bytes) -> None:
        if self._state is None:
            self._count, digest, clock_us, due, ended_sessions = cbor2.loads(chunk)
            self._state = ListState([], digest, clock_us, [(at, item) for at, item in due], ended_sessions)
        else:
            self._state.items += cbor2.loads(chunk)[0]

    def finish(self) -> None:
        if self._state is None or len(self._state.items) != self._count:
            raise ValueError("a list that was cut off")
        self._machine.state = self._state
