"""Making snapshots of the applied state, and taking on those that a leader sends, while the server goes on.

Chunks are drawn on the event loop a few milliseconds at a time, and written by a worker thread a mebibyte at a time.
A state that has been received is read back (every chunk is checked by that) and built beside the present one, then
takes its place in one step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from raftnode.disk_health import DiskFull, SnapshotCorrupt
from raftnode.replica import Replica
from raftnode.runtime import Runtime
from raftnode.snapshots import SnapshotReceiver
from raftnode.storage import Storage
from raftnode.storage_values import SnapshotMeta

SLICE_US = 2_000
"""How long chunks are drawn before others get their turn."""
WRITE_BYTES = 1 << 20
"""About how much is handed to the worker thread at a time."""


class Snapshotter:
    """Makes and loads the snapshots of one replica; when that is done, :mod:`raftnode.snapshot_keeper` knows."""

    def __init__(self, replica: Replica, storage: Storage, runtime: Runtime) -> None:
        """``storage`` keeps the files."""
        self._replica = replica
        self._storage = storage
        self._runtime = runtime

    async def take(self, applied_term: int) -> SnapshotMeta:
        """Write a snapshot of the state as it is now; it is durable on return.

        ``applied_term`` is the term of the last entry applied.

        Raises:
            DiskFull: there was no room; nothing is left behind.
            DiskFailed: the disk failed.
        """
        replica = self._replica
        writer = self._storage.snapshots.create(replica.applied_index, applied_term)
        chunks = replica.snapshot()
        try:
            while group := await self._draw(chunks):
                await self._runtime.run_blocking(_append_all, writer.append, group)
            meta: SnapshotMeta = await self._runtime.run_blocking(writer.commit)
            return meta
        except BaseException:
            _close(chunks)
            writer.abort()
            raise

    async def _draw(self, chunks: Iterator[bytes]) -> list[bytes]:
        """The next chunks, about a mebibyte of them, drawn in slices; none at the end."""
        group: list[bytes] = []
        size = 0
        until_us = self._runtime.now_us() + SLICE_US
        while size < WRITE_BYTES:
            chunk = next(chunks, None)
            if chunk is None:
                break
            group.append(chunk)
            size += len(chunk)
            if self._runtime.now_us() >= until_us:
                # Half of the time at most: the other half belongs to the clients.
                await self._runtime.sleep(SLICE_US)
                until_us = self._runtime.now_us() + SLICE_US
        return group

    async def install(self, receiver: SnapshotReceiver) -> SnapshotMeta | None:
        """Verify a received snapshot, make it durable, and put its state in the replica's place.

        None if it is damaged, or there is no room to keep it: the replica is as before.

        Raises:
            DiskFailed: the disk failed.
        """
        try:
            meta: SnapshotMeta = await self._runtime.run_blocking(receiver.finish)
            await self._load(meta)
        except (DiskFull, SnapshotCorrupt, ValueError):
            return None
        return meta

    async def _load(self, meta: SnapshotMeta) -> None:
        restore = self._replica.begin_restore()
        until_us = self._runtime.now_us() + SLICE_US
        for chunk in self._storage.snapshots.read(meta):
            restore.feed(chunk)
            if self._runtime.now_us() >= until_us:
                await self._runtime.sleep(0)
                until_us = self._runtime.now_us() + SLICE_US
        restore.finish()


def load_at_start(replica: Replica, storage: Storage, meta: SnapshotMeta) -> None:
    """Put a snapshot's state in the replica's place, when nothing else goes on yet.

    Raises:
        SnapshotCorrupt: it is damaged.
        ValueError: it isn't one of this application's state.
    """
    restore = replica.begin_restore()
    for chunk in storage.snapshots.read(meta):
        restore.feed(chunk)
    restore.finish()


def _append_all(append: Callable[[bytes], None], chunks: list[bytes]) -> None:
    for chunk in chunks:
        append(chunk)


def _close(chunks: Iterator[bytes]) -> None:
    close = getattr(chunks, "close", None)
    if close is not None:
        close()
