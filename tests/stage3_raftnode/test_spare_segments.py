"""Segments that are used again: what is kept, when it is used, and that nothing of it is ever taken for the log's."""

from __future__ import annotations

import errno
from random import Random

import pytest

from raftnode.log_frames import FRAME_HEAD_BYTES, HEADER_BYTES, decode_header
from raftnode.simulated_disk import Call, SimulatedDisk, Survival
from raftnode.spare_segments import SPARES_MAX, SpareSegments
from raftnode.storage import DiskFailed, LogCorrupt, Storage
from statemachine.events import HardState
from tests.stage3_raftnode.storage_tools import (
    DIRECTORY,
    flat,
    log_names,
    open_storage,
    opened,
    recover,
    run,
    small_segments,
    take_snapshot,
)

SEGMENT_BYTES = 1024


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_segments(monkeypatch, SEGMENT_BYTES)


def spare_names(disk: SimulatedDisk) -> list[str]:
    return sorted(name for name in disk.list_directory(DIRECTORY) if name.startswith("log-0") and name.endswith(".tmp"))


def fill(storage: Storage, first_index: int, last_index: int, content: bytes = b"x") -> None:
    """Some four entries to a segment."""
    for index in range(first_index, last_index + 1):
        if storage.needs_next:
            storage.prepare_next()
        storage.save(None, [run(index, 1, content * 200)])


def compacted(disk: SimulatedDisk) -> Storage:
    """With entries 1 to 30 written and 1 to 24 dropped again."""
    storage, _ = open_storage(disk)
    fill(storage, 1, 30)
    take_snapshot(storage, 24, 1)
    storage.compact(25)
    return storage


def active_header_is_reused(disk: SimulatedDisk) -> bool:
    content = bytes(disk.content(DIRECTORY / log_names(disk)[-1]))
    return decode_header(content[:HEADER_BYTES]).is_reused


def gone_on_in_a_spare(disk: SimulatedDisk, saves: int = 1) -> int:
    """With so many saves in the first segment that was one before; the index of the last entry."""
    storage = compacted(disk)
    last_index = 30
    while not active_header_is_reused(disk):
        last_index += 1
        fill(storage, last_index, last_index)
    fill(storage, last_index + 1, last_index + saves - 1)
    return last_index + saves - 1


def test_the_latest_segments_that_were_set_free_are_kept() -> None:
    disk = SimulatedDisk()
    storage = compacted(disk)
    row = log_names(disk)
    freed = int(row[0].removeprefix("log-").removesuffix(".seg")) - 1
    assert freed > SPARES_MAX
    assert spare_names(disk) == [f"log-{number:016d}.tmp" for number in range(freed - SPARES_MAX + 1, freed + 1)]
    storage.close()
    assert spare_names(disk) == []


def test_the_next_segments_are_made_of_them() -> None:
    disk = SimulatedDisk()
    storage = compacted(disk)
    segments = len(log_names(disk))
    fill(storage, 31, 50, b"y")
    assert len(log_names(disk)) > segments + SPARES_MAX, "then new ones are made"
    assert spare_names(disk) == []
    storage.close()
    assert flat(recover(disk).runs) == tuple(
        (index, 1, (b"x" if index <= 30 else b"y") * 200) for index in range(25, 51)
    )


@pytest.mark.parametrize("ends", ["killed", "power"])
def test_what_stands_behind_the_end_is_not_taken_for_a_torn_save(ends: str) -> None:
    disk = SimulatedDisk()
    last_index = gone_on_in_a_spare(disk)
    if ends == "killed":
        disk.process_killed()
    else:
        disk.power_cut(Random(1), Survival.NOTHING)
    recovered = recover(disk)
    assert (recovered.torn, recovered.last_index) == (None, last_index)


def test_the_end_of_a_log_is_written_as_zeros() -> None:
    disk = SimulatedDisk()
    gone_on_in_a_spare(disk)
    content = bytes(disk.content(DIRECTORY / log_names(disk)[-1]))
    end = content.rindex(b"x" * 200, 0, SEGMENT_BYTES // 2) + 200
    end += -end % 8
    assert content[end : end + FRAME_HEAD_BYTES] == bytes(FRAME_HEAD_BYTES)


@pytest.mark.parametrize("at", [0, 9, 30])
def test_a_damaged_last_save_is_still_reported(at: int) -> None:
    disk = SimulatedDisk()
    last_index = gone_on_in_a_spare(disk)
    disk.process_killed()
    disk.damage(DIRECTORY / log_names(disk)[-1], HEADER_BYTES + at)
    recovered = recover(disk)
    assert recovered.torn is not None
    assert (recovered.torn.offset, recovered.last_index) == (HEADER_BYTES, last_index - 1)
    assert recovered.torn.size_bytes < SEGMENT_BYTES / 2, "it is not all that stands in the file"


def test_a_damaged_save_with_one_behind_it_is_refused_as_ever() -> None:
    disk = SimulatedDisk()
    gone_on_in_a_spare(disk, saves=2)
    disk.process_killed()
    disk.damage(DIRECTORY / log_names(disk)[-1], HEADER_BYTES + 9)
    with pytest.raises(LogCorrupt, match="one follows"):
        open_storage(disk)


def test_spares_of_an_earlier_run_are_removed() -> None:
    disk = SimulatedDisk()
    compacted(disk)
    disk.process_killed()
    with opened(disk):
        assert spare_names(disk) == []


def test_their_room_can_be_had_back() -> None:
    disk = SimulatedDisk()
    storage = compacted(disk)
    used_bytes = disk.used_bytes()
    storage.remove_spares()
    assert disk.used_bytes() <= used_bytes - SPARES_MAX * SEGMENT_BYTES
    assert spare_names(disk) == []
    storage.remove_spares()
    storage.close()


def test_a_disk_that_cannot_remove_them_has_failed() -> None:
    disk = SimulatedDisk()
    storage = compacted(disk)
    disk.fail(Call.UNLINK, errno.EIO)
    with pytest.raises(DiskFailed, match="spare"):
        storage.remove_spares()
    with pytest.raises(DiskFailed):
        storage.save(HardState(9, None), [])
    storage.close()


def test_one_that_is_too_short_is_removed() -> None:
    disk = SimulatedDisk()
    storage = compacted(disk)
    spares = storage._log._spares
    assert spares.take(SEGMENT_BYTES * 100) is None
    assert spare_names(disk) == []
    assert SpareSegments(disk, DIRECTORY).take(1) is None
    storage.close()


def test_a_directory_that_cannot_be_flushed_gives_no_spare() -> None:
    """Its old name could come back, with the new segment's contents."""
    disk = SimulatedDisk()
    storage = compacted(disk)
    assert storage._log._blank is not None
    storage._log._blank = None
    disk.fail(Call.FLUSH_DIRECTORY, errno.EIO)
    with pytest.raises(DiskFailed, match="preparing"):
        storage.prepare_next()
    storage.close()
