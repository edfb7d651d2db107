"""Entries read back from the log while it goes on being written."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftnode import frame_places, recovery
from raftnode.disk_health import EntriesGone
from raftnode.filesystem import OpenMode, OsFileSystem
from raftnode.simulated_disk import Call, SimulatedDisk
from raftnode.storage import DiskFailed, LogCorrupt, Storage
from statemachine.events import EntriesRun, HardState
from tests.stage3_raftnode.storage_tools import (
    DIRECTORY,
    Model,
    log_names,
    open_storage,
    opened,
    run,
    small_segments,
    take_snapshot,
)


@pytest.fixture(autouse=True)
def many_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames are noted so often, and segments are so small, that a few entries are in several of both."""
    small_segments(monkeypatch)
    monkeypatch.setattr(frame_places, "PLACE_BYTES", 200)
    monkeypatch.setattr(recovery, "PLACE_BYTES", 200)


def read_all(storage: Storage, first_index: int, last_index: int) -> list[bytes]:
    """All of them, as many calls as it takes."""
    entries: list[bytes] = []
    while first_index + len(entries) <= last_index:
        read = storage.read_entries(first_index + len(entries), last_index)
        assert read
        entries += read
    return entries


def check_against(storage: Storage, model: Model, first_index: int = 1) -> None:
    """Every entry from there on is read as it should be, whichever is the first or the last of those asked for."""
    expected = [entry for index, (_, entry) in sorted(model.entries.items()) if index >= first_index]
    last_index = first_index + len(expected) - 1
    for index in range(first_index, last_index + 1):
        for last in {index, min(index + 3, last_index), last_index}:
            read = storage.read_entries(index, last)
            assert 1 <= len(read) <= last - index + 1
            assert list(read) == expected[index - first_index :][: len(read)]
    assert read_all(storage, first_index, last_index) == expected


@pytest.mark.parametrize("kind", ["real", "simulated"])
def test_entries_are_read_while_the_log_is_written(kind: str, tmp_path: Path) -> None:
    filesystem, directory = (OsFileSystem(), tmp_path) if kind == "real" else (SimulatedDisk(), DIRECTORY)
    with opened(filesystem, directory) as (storage, _):
        for number in range(1, 40):
            storage.save(None, [run(2 * number - 1, 1, b"odd %d" % number, b"even %d" % number)])
            if storage.needs_next:
                storage.prepare_next()
            assert storage.read_entries(2 * number, 99) == (b"even %d" % number,)
            assert read_all(storage, 1, 2)[0] == b"odd 1"
        assert len(read_all(storage, 3, 78)) == 76
        storage.save(None, [run(79, 1, b"and on")])
    with opened(filesystem, directory) as (storage, _):
        assert read_all(storage, 78, 79) == [b"even 39", b"and on"]


def test_a_read_takes_what_stands_together_and_no_more_than_was_asked_for() -> None:
    with opened(SimulatedDisk()) as (storage, _):
        storage.save(None, [run(1, 1, b"a", b"b")])
        storage.save(HardState(2, 1), [])
        storage.save(None, [run(3, 2, b"c"), run(4, 3, b"d")])
        assert storage.read_entries(1, 4) == (b"a", b"b", b"c", b"d")
        assert storage.read_entries(2, 3) == (b"b", b"c")


def random_runs(dice: Random, next_index: int, term: int) -> list[EntriesRun]:
    """A save: mostly behind what is there, sometimes over it, sometimes over itself."""
    runs = []
    for _ in range(dice.choice([1, 1, 1, 2, 3])):
        first_index = next_index if dice.random() < 0.7 else dice.randint(max(next_index - 6, 1), next_index)
        entries = tuple(b"%d.%d." % (term, dice.getrandbits(30)) * dice.choice([1, 2, 15]) for _ in range(2))
        runs.append(EntriesRun(first_index, term, entries[: dice.randint(1, 2)]))
        next_index, term = runs[-1].last_index + 1, term + 1
    return runs


@given(st.integers(0, 2**32))
def test_whatever_was_saved_is_read(seed: int) -> None:
    dice = Random(seed)
    disk, model, term, kept_from, snapshots = SimulatedDisk(), Model(), 1, 1, [0]
    for _ in range(dice.randint(1, 3)):
        with opened(disk) as (storage, recovered):
            check_against(storage, model, kept_from)
            for _ in range(dice.randint(1, 12)):
                runs = random_runs(dice, max(model.entries, default=recovered.last_index) + 1, term)
                if min(each.first_index for each in runs) <= snapshots[-1]:
                    continue
                term += len(runs)
                storage.save(None, runs)
                model.save(None, tuple(runs))
                if storage.needs_next and dice.random() < 0.8:
                    storage.prepare_next()
            check_against(storage, model, kept_from)
            if dice.random() < 0.5 and model.entries:
                last_index = max(model.entries)
                snapshots.append(last_index)
                take_snapshot(storage, last_index, model.entries[last_index][0])
                storage.compact(snapshots[-2] + 1)
                kept_from = max(kept_from, snapshots[-2] + 1)
                check_against(storage, model, kept_from)


def test_what_a_reset_has_dropped_is_not_read() -> None:
    with opened(SimulatedDisk()) as (storage, _):
        storage.save(None, [run(1, 1, b"a", b"b", b"c")])
        take_snapshot(storage, 9, 2)
        storage.reset_to(9, 2)
        with pytest.raises(EntriesGone, match="entry 3 isn't kept"):
            storage.read_entries(3, 3)
        storage.save(None, [run(10, 2, b"j")])
        assert storage.read_entries(10, 12) == (b"j",)
        with pytest.raises(EntriesGone, match="entry 9 isn't kept"):
            storage.read_entries(9, 10)


@pytest.mark.parametrize(
    ("offset", "what"),
    [
        (3, "damaged at offset 0: its header's checksum is wrong"),
        (128 + 80, "damaged at offset 128: no valid frame stands there"),
    ],
)
def test_damage_is_told(offset: int, what: str) -> None:
    disk = SimulatedDisk()
    with opened(disk) as (storage, _):
        storage.save(None, [run(1, 1, b"a" * 50)])
        path = DIRECTORY / log_names(disk)[0]
        disk.damage(path, offset)
        with pytest.raises(LogCorrupt, match=f"{path} is {what}"):
            storage.read_entries(1, 1)


class OvertakenDisk(SimulatedDisk):
    """Something happens just before a file is opened, or read."""

    before: Callable[[], None] | None = None
    before_call = Call.OPEN

    def _overtaken(self, call: Call) -> None:
        before = self.before
        if before is not None and call is self.before_call:
            self.before = None
            before()

    def open(self, path: Path, mode: OpenMode) -> int:
        self._overtaken(Call.OPEN)
        return super().open(path, mode)

    def read(self, handle: int, size_bytes: int, offset: int) -> bytes:
        self._overtaken(Call.READ)
        return super().read(handle, size_bytes, offset)


def fill_segments(storage: Storage, first_index: int, count: int) -> int:
    """Save until the log has gone on to new segments so many times; returns the next index."""
    index = first_index
    for _ in range(count):
        storage.prepare_next()
        while not storage.needs_next:
            storage.save(None, [run(index, 1, b"%d" % index * 50)])
            index += 1
    return index


@pytest.mark.parametrize("call", [Call.OPEN, Call.READ])
def test_segments_that_are_removed_and_used_again_while_they_are_read_are_gone(call: Call) -> None:
    disk = OvertakenDisk()
    with opened(disk) as (storage, _):
        next_index = fill_segments(storage, 1, 4)

        def overtake() -> None:
            take_snapshot(storage, next_index - 1, 1)
            storage.compact(next_index)
            fill_segments(storage, next_index, 4)

        disk.before, disk.before_call = overtake, call
        with pytest.raises(EntriesGone, match="entry 2 isn't kept"):
            storage.read_entries(2, 5)
        assert disk.before is None


def test_an_entry_that_is_not_where_it_should_be_is_damage() -> None:
    """It can't be that it was never written: what is asked for was saved."""
    with opened(SimulatedDisk()) as (storage, _):
        storage.save(None, [run(1, 1, b"a")])
        with pytest.raises(LogCorrupt, match="entry 5 isn't there, where it was written"):
            storage.read_entries(5, 9)


def test_a_disk_that_cannot_be_read_has_failed() -> None:
    disk = SimulatedDisk()
    storage, _ = open_storage(disk)
    storage.save(None, [run(1, 1, b"a")])
    disk.fail(Call.READ, errno.EIO)
    with pytest.raises(DiskFailed, match="reading"):
        storage.read_entries(1, 1)
    with pytest.raises(DiskFailed, match="reading"):
        storage.save(None, [run(2, 1, b"b")])
