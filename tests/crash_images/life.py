"""A server's storage, at work under a recorder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

import pytest

from raftnode import segments, snapshots
from raftnode.simulated_disk import SimulatedCrash, SimulatedDisk, Survival
from raftnode.storage import DiskFull
from tests.crash_images.recorder import Promise, Recorder
from tests.stage3_raftnode.storage_tools import Change, Workload, small_segments

SEGMENT_BYTES = 4096


@contextmanager
def small_pieces() -> Iterator[None]:
    """Makes segments and everything that is written in pieces so small that little data crosses all bounds."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        small_segments(monkeypatch, SEGMENT_BYTES)
        monkeypatch.setattr(segments, "_FILL_BYTES", SEGMENT_BYTES // 2)
        monkeypatch.setattr(snapshots, "_BUFFERED_BYTES_MAX", 1500)
        yield


class Life(Workload):
    """A workload of which every change to the disk is recorded, with what may be found after it."""

    def __init__(self, seed: int = 0) -> None:
        self.disk = SimulatedDisk(seed)
        self.recorder = Recorder(self.disk, self.promise)
        super().__init__(self.recorder)

    def promise(self) -> Promise:
        """What may be found after a crash now."""
        return Promise(self.allowed(), frozenset(self.clocks_us))

    def do(self, action: Callable[[], object], change: Change | None = None, *, is_save: bool = False) -> None:
        """See Workload."""
        super().do(action, change, is_save=is_save)
        self.recorder.returned()

    def prepare_next(self) -> None:
        """Lays the next segment ready."""
        self.do(self.storage.prepare_next)

    def compact(self, first_index_kept: int) -> None:
        """Drops whole segments below that entry."""
        self.do(lambda: self.storage.compact(first_index_kept))

    def close(self) -> None:
        """Closes cleanly."""
        self.do(self.storage.close)

    def cut_in(self, calls: int, seed: int, step: Callable[[], object], survival: Survival = Survival.RANDOM) -> None:
        """Cuts the power in that call of a step, or behind the step if it makes fewer."""
        self._crash_in(calls, step)
        self.recorder.power_cut(Random(seed), survival)

    def kill_in(self, calls: int, step: Callable[[], object]) -> None:
        """Kills the process in that call of a step: what it wrote waits in the page cache."""
        self._crash_in(calls, step)
        self.recorder.process_killed()

    def _crash_in(self, calls: int, step: Callable[[], object]) -> None:
        self.disk.crash_at_call = self.disk.call_count + calls
        with contextlib.suppress(SimulatedCrash):
            step()

    def refused(self, step: Callable[[], object]) -> None:
        """A step for which there is no room."""
        with pytest.raises(DiskFull):
            step()
        self.recorder.returned()
