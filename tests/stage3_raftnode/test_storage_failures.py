"""Full disks and failing ones."""

from __future__ import annotations

import errno
from itertools import product
from random import Random

import pytest

from raftnode.disk_health import DiskHealth
from raftnode.simulated_disk import Call, SimulatedDisk, Survival
from raftnode.storage import DiskFailed, DiskFull, Storage
from statemachine.events import HardState
from tests.stage3_raftnode.storage_tools import (
    DIRECTORY,
    flat,
    open_storage,
    opened,
    recover,
    run,
    small_segments,
    take_snapshot,
)


def fill_segment(storage: Storage, first_index: int = 1) -> int:
    """Saves until the segment is nearly full; returns the next index."""
    index = first_index
    while not storage.needs_next:
        storage.save(None, [run(index, 1, bytes(100))])
        index += 1
    return index


def flags(storage: Storage) -> tuple[bool, bool]:
    return storage.disk_full, storage.needs_next


def no_room(disk: SimulatedDisk, left_bytes: int = 0) -> None:
    disk.space_bytes = disk.used_bytes() + left_bytes


class TestDiskFull:
    def test_no_room_to_prepare_shows_early_and_goes_away(self, monkeypatch: pytest.MonkeyPatch) -> None:
        small_segments(monkeypatch, 4096)
        disk = SimulatedDisk()
        with opened(disk) as (storage, _):
            index = fill_segment(storage)
            no_room(disk, 1000)
            storage.prepare_next()
            assert flags(storage) == (True, True)
            assert "log-next.tmp" not in disk.list_directory(DIRECTORY)
            storage.save(HardState(5, 2), [run(index, 1, b"in flight")])  # there is a reserve
            storage.prepare_next()
            assert flags(storage) == (True, True)
            disk.space_bytes = None
            storage.prepare_next()
            assert flags(storage) == (False, False)
        assert recover(disk).last_index == index

    @pytest.mark.parametrize("left_bytes", [0, 1, 40, 100, 500])
    @pytest.mark.parametrize("prepared", [False, True])
    @pytest.mark.parametrize("crash", [False, True])
    def test_a_save_without_room_changes_nothing(
        self, monkeypatch: pytest.MonkeyPatch, left_bytes: int, *, prepared: bool, crash: bool
    ) -> None:
        small_segments(monkeypatch, 1024)
        disk = SimulatedDisk()
        storage, _ = open_storage(disk)
        index = fill_segment(storage)
        if prepared:
            storage.prepare_next()
        no_room(disk, left_bytes)
        used_bytes = disk.used_bytes()
        for _ in range(3):
            with pytest.raises(DiskFull):
                storage.save(HardState(9, 9), [run(index, 9, bytes(5_000))])
            assert storage.disk_full
        with pytest.raises(ValueError, match="can't follow"):
            storage.save(None, [run(index + 1, 9, b"gap")])
        assert disk.used_bytes() == used_bytes
        if crash:
            disk.power_cut(Random(left_bytes))
            storage, recovered = open_storage(disk)
            assert recovered.hard_state == HardState(0, None)
            assert recovered.last_index == index - 1
        disk.space_bytes = None
        storage.save(HardState(2, 1), [run(index, 2, b"short")])
        assert not storage.disk_full
        disk.process_killed()
        recovered = recover(disk)
        assert recovered.hard_state == HardState(2, 1)
        assert flat(recovered.runs)[-1] == (index, 2, b"short")

    def test_a_save_that_was_written_whole_but_not_flushed_for_lack_of_room(self) -> None:
        """The next save may be another, and may go to the next segment: what was refused must not come back."""
        for prepared, power_cut in product((False, True), repeat=2):
            with pytest.MonkeyPatch.context() as monkeypatch:
                small_segments(monkeypatch, 1024)
                disk = SimulatedDisk()
                storage, _ = open_storage(disk)
                index = fill_segment(storage)
                disk.fail(Call.FLUSH, errno.ENOSPC)
                with pytest.raises(DiskFull):
                    storage.save(HardState(9, 9), [run(index, 9, bytes(200))])
                if prepared:
                    storage.prepare_next()
                storage.save(HardState(3, 1), [run(index, 3, bytes(500))])
                storage.save(None, [run(index + 1, 3, b"more")])
                if power_cut:
                    disk.power_cut(Random(1), Survival.NOTHING)
                else:
                    disk.process_killed()
                recovered = recover(disk)
                assert recovered.hard_state == HardState(3, 1)
                assert flat(recovered.runs)[-2:] == ((index, 3, bytes(500)), (index + 1, 3, b"more"))

    def test_no_room_for_the_new_name_of_a_segment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        small_segments(monkeypatch, 1024)
        disk = SimulatedDisk()
        with opened(disk) as (storage, _):
            index = fill_segment(storage)
            storage.prepare_next()
            disk.fail(Call.RENAME, errno.ENOSPC)
            with pytest.raises(DiskFull):
                storage.save(None, [run(index, 1, bytes(800))])
            storage.save(None, [run(index, 2, bytes(900))])
        assert flat(recover(disk).runs)[-1] == (index, 2, bytes(900))

    def test_a_new_server_on_a_failing_disk(self) -> None:
        for call in (Call.RENAME, Call.FLUSH_DIRECTORY):
            disk = SimulatedDisk()
            disk.fail(call, errno.EIO)
            with pytest.raises(DiskFailed):
                open_storage(disk)
            assert recover(disk).last_index == 0

    def test_no_room_for_a_new_server(self) -> None:
        disk = SimulatedDisk()
        disk.space_bytes = 1000
        with pytest.raises(DiskFull):
            open_storage(disk)
        disk.space_bytes = None
        recover(disk)

    def test_the_clock_needs_no_room(self) -> None:
        disk = SimulatedDisk()
        with opened(disk) as (storage, _):
            no_room(disk)
            storage.save_clock(5)
            disk.space_bytes = None
            storage.save_clock(6)
        assert recover(disk).clock_us == 6

    def test_a_quota_is_a_full_disk(self) -> None:
        error = OSError(errno.EDQUOT, "quota")
        assert isinstance(DiskHealth().error_for("writing", DIRECTORY, error), DiskFull)


class TestDiskFailed:
    @pytest.mark.parametrize("call", [Call.WRITE, Call.FLUSH])
    def test_after_a_failed_write_or_flush_everything_is_refused(self, call: Call) -> None:
        disk = SimulatedDisk()
        storage, _ = open_storage(disk)
        storage.save(None, [run(1, 1, b"a")])
        snapshot = take_snapshot(storage, 1, 1)
        writer = storage.snapshots.create(1, 1)
        storage.prepare_next()
        disk.fail(call, errno.EIO, ".seg")
        with pytest.raises(DiskFailed, match=r"log-.*Input/output"):
            storage.save(None, [run(2, 1, b"b")])
        assert storage.failure
        assert not storage.needs_next
        for refused in (
            lambda: storage.save(None, [run(2, 1, b"b")]),
            storage.prepare_next,
            lambda: storage.compact(1),
            lambda: storage.reset_to(1, 1),
            lambda: storage.save_clock(1),
            lambda: storage.snapshots.create(2, 1),
            lambda: storage.snapshots.receive(2, 1),
            writer.commit,
        ):
            with pytest.raises(DiskFailed, match="Input/output"):
                refused()
        assert list(storage.snapshots.read(snapshot))
        storage.close()
        assert recover(disk).last_index >= 1

    def test_what_a_failed_flush_left_in_the_page_cache_is_written_again(self) -> None:
        """Linux takes the pages for clean after a failed flush: reading them back proves nothing."""
        disk = SimulatedDisk()
        storage, _ = open_storage(disk)
        storage.save(None, [run(1, 1, b"a")])
        disk.fail(Call.FLUSH, errno.EIO)
        with pytest.raises(DiskFailed):
            storage.save(None, [run(2, 1, b"b")])
        disk.process_killed()
        storage, recovered = open_storage(disk)
        assert recovered.last_index == 2
        disk.power_cut(Random(1), Survival.NOTHING)
        assert recover(disk).last_index == 2

    def test_a_failed_flush_when_opening(self) -> None:
        disk = SimulatedDisk()
        with opened(disk) as (storage, _):
            storage.save(None, [run(1, 1, b"a")])
        for call in (Call.FLUSH, Call.WRITE, Call.FLUSH_DIRECTORY):
            disk.fail(call, errno.EIO)
            with pytest.raises(DiskFailed):
                open_storage(disk)
        assert recover(disk).last_index == 1

    def test_a_failed_flush_of_the_directory_when_a_segment_is_begun(self, monkeypatch: pytest.MonkeyPatch) -> None:
        small_segments(monkeypatch, 1024)
        for error in (errno.EIO, errno.ENOSPC):
            disk = SimulatedDisk()
            storage, _ = open_storage(disk)
            index = fill_segment(storage)
            storage.prepare_next()
            disk.fail(Call.FLUSH_DIRECTORY, error)
            with pytest.raises(DiskFailed):
                storage.save(None, [run(index, 1, bytes(900))])
            storage.close()
            assert recover(disk).last_index in (index - 1, index)

    def test_a_failed_preparation(self) -> None:
        for call in (Call.WRITE, Call.FLUSH, Call.OPEN):
            disk = SimulatedDisk()
            with opened(disk) as (storage, _):
                storage.save(None, [run(1, 1, bytes(200_000))])
                disk.fail(call, errno.EIO, "log-next")
                with pytest.raises(DiskFailed):
                    storage.prepare_next()
                assert not storage.needs_next
            assert recover(disk).last_index == 1

    def test_a_failed_removal_and_a_failed_close(self, monkeypatch: pytest.MonkeyPatch) -> None:
        small_segments(monkeypatch, 1024)
        disk = SimulatedDisk()
        storage, _ = open_storage(disk)
        index = fill_segment(storage)
        storage.prepare_next()
        storage.save(None, [run(index, 1, bytes(900))])
        take_snapshot(storage, index, 1)
        disk.fail(Call.RENAME, errno.EIO)
        with pytest.raises(DiskFailed, match="removing"):
            storage.compact(index)
        storage.close()
        storage, _ = open_storage(disk)
        disk.fail(Call.FLUSH, errno.EIO)
        with pytest.raises(DiskFailed, match="closing"):
            storage.close()
        recover(disk)

    def test_a_failing_clock(self) -> None:
        disk = SimulatedDisk()
        with opened(disk) as (storage, _):
            disk.fail(Call.WRITE, errno.EIO, "clock")
            with pytest.raises(DiskFailed, match="clock"):
                storage.save_clock(1)

    def test_a_log_that_cannot_be_reset_when_opened(self) -> None:
        disk = SimulatedDisk()
        with opened(disk) as (storage, _):
            take_snapshot(storage, 7, 1)
        disk.fail(Call.WRITE, errno.EIO, ".seg")
        with pytest.raises(DiskFailed):
            open_storage(disk)
        assert recover(disk).first_index == 8

    def test_an_unusable_directory(self) -> None:
        disk = SimulatedDisk()
        disk.fail(Call.LOCK, errno.EACCES)
        with pytest.raises(DiskFailed, match="opening"):
            open_storage(disk)
