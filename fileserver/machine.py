"""The store as the application of a replicated log: what `raftnode` knows of files.

Deterministic: every server's store does the same with the same batch, a batch that can't be read included.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import cbor2

from fileserver.commands import BadBatch, Payload, Result
from fileserver.snapshot import StoreRestore
from fileserver.store import Store


@attrs.frozen(slots=True)
class StoreMachine:
    """Fulfils :class:`raftnode.replica.Machine` with a store."""

    store: Store

    def apply(self, clock_us: int, session: int, payload: Payload) -> list[Result]:
        """Run a batch; no results at all for what is no batch."""
        try:
            return self.store.apply(clock_us, session, payload)
        except BadBatch:
            self.store.advance(clock_us)
            return []

    def advance(self, clock_us: int) -> None:
        """Let files expire."""
        self.store.advance(clock_us)

    def end_session(self, session: int) -> None:
        """Drop what the session had staged."""
        self.store.end_session(session)

    def next_deadline_us(self) -> int | None:
        """When the next file expires."""
        return self.store.next_deadline_us()

    def pack_results(self, results: Any) -> bytes:
        """Results as CBOR."""
        return cbor2.dumps(results)

    def unpack_results(self, packed: bytes) -> list[Result]:
        """Results as :meth:`apply` gave them, or as good (see :mod:`fileserver.commands`).

        Raises:
            ValueError: they can't be read.
        """
        results = cbor2.loads(packed)
        if not isinstance(results, list):
            raise ValueError("results that are no list")
        return results

    def snapshot(self) -> Iterator[bytes]:
        """The store as it stands now, in chunks."""
        return self.store.snapshot()

    def begin_restore(self) -> StoreRestore:
        """Begin to replace the store's contents."""
        return self.store.begin_restore()
