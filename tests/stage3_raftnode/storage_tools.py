"""What the tests of storage share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import compress, product
from pathlib import Path
from typing import TypeAlias

import attrs
import pytest

from raftnode import segmented_log, segments
from raftnode.filesystem import FileSystem
from raftnode.simulated_disk import SimulatedDisk
from raftnode.storage import DiskFull, Recovered, SnapshotMeta, Storage, StorageIdentity
from statemachine.events import EntriesRun, HardState

IDENTITY = StorageIdentity(cluster="demo", server_id=3)
DIRECTORY = Path("/data/server-3")

State: TypeAlias = tuple[HardState, tuple[int, int] | None, tuple[tuple[int, int, bytes], ...]]
"""Hard state; the snapshot's index and term; (index, term, entry) of each entry behind it."""


def run(first_index: int, term: int, *entries: bytes) -> EntriesRun:
    return EntriesRun(first_index, term, entries)


def flat(runs: tuple[EntriesRun, ...]) -> tuple[tuple[int, int, bytes], ...]:
    return tuple(
        (entries_run.first_index + position, entries_run.term, entry)
        for entries_run in runs
        for position, entry in enumerate(entries_run.entries)
    )


def state_of(recovered: Recovered) -> State:
    """What was recovered, in a form in which it does not matter how the entries were saved."""
    snapshot = recovered.snapshot
    entries = flat(recovered.runs)
    assert [entry[0] for entry in entries] == list(range(recovered.first_index, recovered.last_index + 1))
    assert recovered.first_index == (snapshot.index + 1 if snapshot else 1)
    return recovered.hard_state, (snapshot.index, snapshot.term) if snapshot else None, entries


def open_storage(filesystem: FileSystem, directory: Path = DIRECTORY) -> tuple[Storage, Recovered]:
    return Storage.open(directory, IDENTITY, filesystem)


@contextmanager
def opened(filesystem: FileSystem, directory: Path = DIRECTORY) -> Iterator[tuple[Storage, Recovered]]:
    storage, recovered = open_storage(filesystem, directory)
    try:
        yield storage, recovered
    finally:
        storage.close()


def recover(filesystem: FileSystem, directory: Path = DIRECTORY) -> Recovered:
    """Opens, closes, tells what was there."""
    with opened(filesystem, directory) as (_, recovered):
        return recovered


def take_snapshot(storage: Storage, index: int, term: int, *chunks: bytes) -> SnapshotMeta:
    writer = storage.snapshots.create(index, term)
    for chunk in chunks or (b"state at %d" % index,):
        writer.append(chunk)
    return writer.commit()


def small_segments(monkeypatch: pytest.MonkeyPatch, size_bytes: int = 1024) -> None:
    """Makes segments so small that a few entries fill one."""
    monkeypatch.setattr(segments, "SIZE_BYTES_MIN", size_bytes)
    monkeypatch.setattr(segmented_log, "SIZE_BYTES_MIN", size_bytes)
    monkeypatch.setattr(segments, "SIZE_BYTES_MAX", size_bytes)


def log_names(disk: SimulatedDisk, directory: Path = DIRECTORY) -> list[str]:
    return sorted(name for name in disk.list_directory(directory) if name.endswith(".seg"))


@attrs.define
class Model:
    """What storage should hold, kept in the plainest way."""

    hard_state: HardState = attrs.field(factory=lambda: HardState(0, None))
    snapshot: tuple[int, int] | None = None
    entries: dict[int, tuple[int, bytes]] = attrs.Factory(dict)

    def save(self, hard_state: HardState | None, runs: tuple[EntriesRun, ...]) -> None:
        self.hard_state = hard_state or self.hard_state
        for entries_run in runs:
            self.entries = {index: entry for index, entry in self.entries.items() if index < entries_run.first_index}
            for index, term, entry in flat((entries_run,)):
                self.entries[index] = (term, entry)

    def snapshot_taken(self, index: int, term: int) -> None:
        self.snapshot = (index, term)
        self.entries = {at: entry for at, entry in self.entries.items() if at > index}

    def snapshot_received(self, index: int, term: int) -> None:
        """Entries behind it stay if the log holds the one that it ends with: only a reset is to drop them."""
        if self.entries.get(index, (0, b""))[0] == term:
            self.snapshot_taken(index, term)
        else:
            self.snapshot = (index, term)
            self.entries = {}

    def reset(self, index: int) -> None:
        """Drops the whole log."""
        assert self.snapshot is not None
        assert self.snapshot[0] >= index
        self.entries = {}

    def state(self) -> State:
        entries = tuple((index, term, entry) for index, (term, entry) in sorted(self.entries.items()))
        return self.hard_state, self.snapshot, entries


Change: TypeAlias = Callable[[Model], None]


@attrs.frozen(eq=False)
class Step:
    """Something that storage is asked to do, and what it makes of the model once it is done."""

    change: Change
    is_save: bool


class Workload:
    """A server's life, step by step, and what a crash at any moment of it may leave.

    Steps may be nested: what a worker thread does while a save comes in between. Of each that has not returned,
    all may be found after a crash, or nothing. A save that found the disk full may be found after a crash as long as
    no other save has taken its place, though storage goes on as if it had never been.
    """

    def __init__(self, filesystem: FileSystem) -> None:
        self.filesystem = filesystem
        self.model = Model()
        self.clocks_us = {0}
        """What was given to save_clock."""
        self.chunks: dict[tuple[int, int], tuple[bytes, ...]] = {}
        """What is in the snapshots, by index and term."""
        self._storage: Storage | None = None
        self._under_way: list[Step] = []
        self._refused: list[Step] = []

    @property
    def storage(self) -> Storage:
        assert self._storage is not None
        return self._storage

    def candidates(self) -> Iterator[Model]:
        """What may be found after a crash at this moment."""
        for refused in (None, *self._refused):
            for included in product((False, True), repeat=len(self._under_way)):
                steps = list(compress(self._under_way, included))
                if refused is not None:
                    if any(step.is_save for step in steps):
                        continue
                    steps.insert(0, refused)
                model = attrs.evolve(self.model)
                for step in steps:
                    step.change(model)
                yield model

    def allowed(self) -> frozenset[State]:
        """The same as states."""
        return frozenset(model.state() for model in self.candidates())

    def do(self, action: Callable[[], object], change: Change | None = None, *, is_save: bool = False) -> None:
        """Carries out a step that, once done, has made that change to the model."""
        if change is None:
            action()
            return
        step = Step(change, is_save)
        self._under_way.append(step)
        try:
            action()
        except DiskFull:
            self._under_way.remove(step)
            if is_save:
                self._refused.append(step)
            raise
        self._under_way.remove(step)
        change(self.model)
        if is_save:
            self._refused.clear()

    def open(self) -> Recovered:
        """Opens the directory, for the first time, after a close or after a crash."""
        allowed = {model.state(): model for model in self.candidates()}
        recovered: list[Recovered] = []

        def action() -> None:
            self._storage, found = open_storage(self.filesystem)
            recovered.append(found)
            assert found.clock_us in self.clocks_us
            assert found.damaged_snapshots == ()
            assert state_of(found) in allowed
            self.model = allowed[state_of(found)]
            self._under_way.clear()
            self._refused.clear()

        self.do(action)
        return recovered[0]

    def save(self, hard_state: HardState | None, *runs: EntriesRun) -> None:
        storage = self.storage
        self.do(lambda: storage.save(hard_state, runs), lambda model: model.save(hard_state, runs), is_save=True)

    def save_clock(self, clock_us: int) -> None:
        self.clocks_us.add(clock_us)
        self.do(lambda: self.storage.save_clock(clock_us))

    def take_snapshot(self, index: int, term: int, *chunks: bytes) -> None:
        chunks = self.chunks.setdefault((index, term), chunks or (b"state at %d" % index,))
        self.do(
            lambda: take_snapshot(self.storage, index, term, *chunks), lambda model: model.snapshot_taken(index, term)
        )

    def receive_snapshot(self, index: int, term: int, *chunks: bytes, piece_bytes: int = 400) -> None:
        """Takes in, piece by piece, a snapshot that another server has made."""
        chunks = self.chunks.setdefault((index, term), chunks or (b"x" * 900, b"y"))
        other = SimulatedDisk()
        leader, _ = open_storage(other)
        data = bytes(other.content(take_snapshot(leader, index, term, *chunks).path))

        def receive() -> None:
            receiver = self.storage.snapshots.receive(index, term)
            try:
                for offset in range(0, len(data), piece_bytes):
                    receiver.write(offset, data[offset : offset + piece_bytes])
            except DiskFull:
                receiver.abort()
                raise
            receiver.finish()

        self.do(receive, lambda model: model.snapshot_received(index, term))

    def reset_to(self, index: int, term: int) -> None:
        self.do(lambda: self.storage.reset_to(index, term), lambda model: model.reset(index))
