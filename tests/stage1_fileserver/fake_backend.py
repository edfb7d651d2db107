"""A backend that does nothing by itself, so that a test decides what is answered, when and in which order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fileserver.backend import ChangeBatch, ClockCallback, Failure, ReadBatch, Upload
from fileserver.commands import Field, encode_batch
from fileserver.connection import Connection, Gathering
from fileserver.reading import StoreReader
from fileserver.store import Store

SECOND_US: Final = 1_000_000


class ManualBackend:
    """Keeps what it is handed. The extrapolated clock is `now_us`, the store's own stays behind until `tick`."""

    def __init__(self) -> None:
        self.store: Final = Store()
        self.now_us = 0
        self.batches: list[ChangeBatch] = []
        self.uploads: list[Upload] = []
        self.reads: list[ReadBatch] = []
        self.waiting: list[tuple[int, ClockCallback]] = []
        self.refused: Failure | None = None

    def submit(self, batch: ChangeBatch) -> None:
        self.batches.append(batch)

    def submit_upload(self, upload: Upload) -> None:
        self.uploads.append(upload)

    def read(self, batch: ReadBatch) -> None:
        self.reads.append(batch)

    def begin(self) -> None:
        pass

    def clock_us(self) -> int:
        return self.now_us

    def wait_for_clock(self, deadline_us: int, callback: ClockCallback) -> None:
        self.waiting.append((deadline_us, callback))

    def refusal(self) -> Failure | None:
        return self.refused

    def status(self) -> Mapping[str, object]:
        return {"id": 1}

    # What tests do with it

    def apply(self, *fields: Field) -> None:
        """Put something into the store past all connections."""
        self.store.apply(self.store.clock_us, 9, encode_batch(fields))

    def complete_changes(self) -> None:
        """Carry out every batch of changes that waits."""
        batches, self.batches = self.batches, []
        for batch in batches:
            batch.applied(self.store.apply(self.now_us, 1, encode_batch(batch.fields)))

    def complete_reads(self) -> None:
        """Have every batch of reads evaluated."""
        batches, self.reads = self.reads, []
        for batch in batches:
            batch.ready()

    def tick(self, failure: Failure | None = None) -> None:
        """Let the store's clock come to where the extrapolated one is, and call back who waited; or fail them."""
        if failure is None:
            self.store.advance(self.now_us)
        waiting, self.waiting = self.waiting, []
        for deadline_us, callback in waiting:
            assert failure or deadline_us <= self.store.clock_us
            callback(failure)


class Client:
    """A connection to a manual backend, without any I/O: bytes in, bytes out."""

    def __init__(self, backend: ManualBackend | None = None) -> None:
        self.backend: Final = backend or ManualBackend()
        self.touched: Final[list[Connection]] = []
        self.flushes = 0
        self.list_wakes = 0
        self.reader: Final = StoreReader(self.backend, self._flush, self._wake)
        self.gathering: Final = Gathering(self.backend, self.reader, self._flush)
        self.connection: Final = Connection(self.touched, 2**20)

    def _flush(self) -> None:
        self.flushes += 1

    def _wake(self) -> None:
        self.list_wakes += 1

    def sends(self, data: bytes) -> bool:
        """Receive these bytes, gather, and hand over what was gathered; True if there is more to gather at once."""
        self.connection.receive(data)
        return self.gathers()

    def sends_whole(self, data: bytes) -> bool:
        """Receive these bytes on the short way, if they are fit for it."""
        self.gathering.start()
        taken = self.connection.receive_whole(data, self.gathering)
        self.gathering.submit()
        return taken

    def gathers(self) -> bool:
        """Gather, and hand over what was gathered."""
        self.gathering.start()
        more = self.connection.gather(self.gathering)
        self.gathering.submit()
        return more

    def takes(self) -> bytes:
        """Take everything that there is to send."""
        taken = b""
        while buffers := self.connection.next_output():
            data = b"".join(buffers)
            self.connection.sent(len(data))
            taken += data
        return taken
