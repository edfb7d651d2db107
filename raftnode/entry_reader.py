"""Reads what a ready value tells to read, in a worker thread: the disk may be slow, and heartbeats mustn't wait for it.

One piece after another, in the order in which they were asked for; for each follower, one is asked for at a time. What
a snapshot has taken the place of meanwhile is told as nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from raftnode.disk_health import EntriesGone
from raftnode.node_values import Step
from raftnode.runtime import Runtime
from raftnode.storage import Storage
from statemachine.events import EntriesRead
from statemachine.ready import EntriesToRead


class EntryReader:
    """See the module's docstring."""

    def __init__(self, storage: Storage, step: Step, runtime: Runtime) -> None:
        """Begin with nothing to read."""
        self._storage = storage
        self._step = step
        self._runtime = runtime
        self._queue: deque[EntriesToRead] = deque()
        self._work = runtime.signal()

    def read(self, wanted: Iterable[EntriesToRead]) -> None:
        """Read these soon, and step EntriesRead for each."""
        self._queue.extend(wanted)
        self._work.set()

    async def run(self) -> None:
        """Read until cancelled.

        Raises:
            LogCorrupt, DiskFailed: the log is damaged, or can't be read.
        """
        while True:
            await self._work.wait()
            self._work = self._runtime.signal()
            while self._queue:
                wanted = self._queue.popleft()
                entries: tuple[bytes, ...] = ()
                try:
                    entries = await self._runtime.run_blocking(
                        self._storage.read_entries, wanted.first_index, wanted.last_index
                    )
                except EntriesGone:
                    pass
                self._step(EntriesRead(wanted.to, wanted.first_index, entries))
