"""What the tests of storage share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import attrs
import pytest

from raftnode import segmented_log, segments
from raftnode.filesystem import FileSystem
from raftnode.simulated_disk import SimulatedDisk
from raftnode.storage import Recovered, SnapshotMeta, Storage, StorageIdentity
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

    def snapshot_installed(self, index: int, term: int) -> None:
        self.snapshot = (index, term)
        self.entries = {}

    def state(self) -> State:
        entries = tuple((index, term, entry) for index, (term, entry) in sorted(self.entries.items()))
        return self.hard_state, self.snapshot, entries
