"""Carrying out what ready values tell to save: one flush a batch, while the next batch gathers.

A flush on a quick disk takes a few hundred microseconds and a hop to a thread and back nearly a hundred, so saves
of moderate size are made in place as long as the disk is quick. A big save, a disk that has been slow, a received
snapshot: those go to a worker thread, and what comes meanwhile is saved together in one flush after it. So a slow
disk costs latency but stops neither heartbeats nor other connections.

Ready values are reported as saved strictly in order. A full disk is waited out: nothing was damaged, and the same
save is tried again until there is room. Any other failure ends the server (`DiskFailed`): what a failed
flush left on the disk can't be known, so nothing is built upon it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import attrs

from raftnode.disk_health import DiskFull
from raftnode.runtime import Runtime
from raftnode.snapshots import SnapshotReceiver
from raftnode.storage import Storage
from statemachine.events import EntriesRun, HardState
from statemachine.ready import ChunkReceived, Ready

FOLLOWER_PATIENCE_US = 10_000
LEADER_PATIENCE_US = 3_000
"""How long small saves may take on average to be made in place. A follower has little else to do; a leader could
learn meanwhile that a majority of the others is quicker than its own disk."""
FULL_DISK_RETRY_US = 250_000


@attrs.define(slots=True)
class DiskSpeed:
    """A moving average of how long small saves take, and whether that is too long, with hysteresis."""

    average_us: float = 0.0
    _slow: bool = False

    def took(self, microseconds: float) -> None:
        """A save took so long."""
        self.average_us += (microseconds - self.average_us) / 8

    def is_slower_than(self, patience_us: float) -> bool:
        """Whether saves take longer than that; once they do, until they take half of it."""
        self._slow = self.average_us > (patience_us / 2 if self._slow else patience_us)
        return self._slow


class Saver:
    """See the module's docstring."""

    def __init__(
        self,
        storage: Storage,
        saved: Callable[[Ready], None],
        wake: Callable[[], None],
        disk_is_full: Callable[[str], None],
        in_place_bytes_max: int,
        runtime: Runtime,
    ) -> None:
        """Begin with nothing to save.

        ``saved`` is told each ready value once it is on disk: inside ``save``, or later, and then ``wake`` is called.
        ``disk_is_full`` is told once per save that found no room.
        """
        self._storage = storage
        self._saved = saved
        self._wake = wake
        self._disk_is_full = disk_is_full
        self._in_place_bytes_max = in_place_bytes_max
        self._runtime = runtime
        self._now_us = runtime.now_us
        self._speed = DiskSpeed()
        self._queue: list[Ready] = []
        self._busy = False
        self._work = self._runtime.signal()
        self._receiver: SnapshotReceiver | None = None
        self._receiving_index = 0

    @property
    def average_save_us(self) -> float:
        """How long a small save takes on average."""
        return self._speed.average_us

    def save(self, ready: Ready, *, leads: bool) -> None:
        """Save it, now or soon, and tell ``saved``; order is kept. ``leads``: this server is the leader."""
        if self._busy or self._queue:
            self._enqueue(ready)
        elif not (ready.must_save or ready.chunks_received):
            self._saved(ready)
        elif self._may_save_in_place(ready, LEADER_PATIENCE_US if leads else FOLLOWER_PATIENCE_US):
            self._save_in_place(ready)
        else:
            self._enqueue(ready)

    def take_receiver(self) -> tuple[SnapshotReceiver, int]:
        """Hand over the received snapshot whose last chunk has been written, and the last index it covers."""
        receiver, self._receiver = self._receiver, None
        assert receiver is not None, "no snapshot is being received"
        return receiver, self._receiving_index

    async def run(self) -> None:
        """Save in a worker thread what can't be saved in place; runs until cancelled.

        Raises:
            DiskFailed: a write or a flush failed for another reason than lack of room.
        """
        while True:
            await self._work.wait()
            self._work = self._runtime.signal()
            while self._queue:
                group, self._queue = self._queue, []
                self._busy = True
                try:
                    await self._save_in_thread(group)
                finally:
                    self._busy = False
                for ready in group:
                    self._saved(ready)
                self._wake()

    def abort(self) -> None:
        """Drop a snapshot that is half received."""
        if self._receiver is not None:
            self._receiver.abort()
            self._receiver = None

    def _enqueue(self, ready: Ready) -> None:
        self._queue.append(ready)
        self._work.set()

    def _may_save_in_place(self, ready: Ready, patience_us: float) -> bool:
        if self._speed.is_slower_than(patience_us) or ready.log_reset is not None or ready.chunks_received:
            return False
        size_bytes = 0
        for run in ready.runs:
            size_bytes += sum(map(len, run.entries))
        return size_bytes < self._in_place_bytes_max

    def _save_in_place(self, ready: Ready) -> None:
        begun_us = self._now_us()
        try:
            self._storage.save(ready.hard_state, ready.runs)
        except DiskFull as error:
            self._disk_is_full(str(error))
            self._enqueue(ready)
            return
        self._speed.took(self._now_us() - begun_us)
        self._saved(ready)

    async def _save_in_thread(self, group: list[Ready]) -> None:
        for step in self._steps(group):
            reported = False
            while True:
                try:
                    self._speed.took(await self._runtime.run_blocking(self._timed, step))
                    break
                except DiskFull as error:
                    if not reported:
                        self._disk_is_full(str(error))
                        reported = True
                await self._runtime.sleep(FULL_DISK_RETRY_US)

    def _timed(self, step: Callable[[], None]) -> int:
        """Carry out a step, and tell how long the disk took, whatever the way to a thread and back takes."""
        begun_us = self._now_us()
        step()
        return self._now_us() - begun_us

    def _steps(self, group: list[Ready]) -> list[Callable[[], None]]:
        """The blocking calls that save a group, in order; each may be repeated when it found no room."""
        steps: list[Callable[[], None]] = []
        hard_state: HardState | None = None
        runs: list[EntriesRun] = []
        for ready in group:
            if ready.log_reset is not None:
                if hard_state is not None or runs:
                    steps.append(partial(self._storage.save, hard_state, runs))
                    hard_state, runs = None, []
                reset = ready.log_reset
                steps.append(partial(self._storage.reset_to, reset.last_included_index, reset.last_included_term))
            hard_state = ready.hard_state or hard_state
            runs.extend(ready.runs)
            steps.extend(partial(self._write_chunk, received) for received in ready.chunks_received)
        if hard_state is not None or runs:
            steps.append(partial(self._storage.save, hard_state, runs))
        return steps

    def _write_chunk(self, received: ChunkReceived) -> None:
        chunk = received.chunk
        if chunk.offset == 0:
            self.abort()
            self._receiver = self._storage.snapshots.receive(chunk.last_included_index, chunk.last_included_term)
            self._receiving_index = chunk.last_included_index
        assert self._receiver is not None, "a snapshot's first chunk comes first"
        self._receiver.write(chunk.offset, chunk.data)
