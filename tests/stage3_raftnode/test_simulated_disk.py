"""The simulated disk itself: it must lose what a real one may lose, and nothing else."""

from __future__ import annotations

import errno
from pathlib import Path
from random import Random

import pytest

from raftnode.filesystem import BUFFERS_MAX, OpenMode
from raftnode.simulated_disk import Call, SimulatedCrash, SimulatedDisk, Survival

DIRECTORY = Path("/d")
FILE = DIRECTORY / "file"


@pytest.fixture
def disk() -> SimulatedDisk:
    disk = SimulatedDisk()
    disk.make_directory(DIRECTORY)
    return disk


def write(disk: SimulatedDisk, data: bytes, path: Path = FILE, *, offset: int = 0, flush: bool = False) -> int:
    mode = OpenMode.WRITE if path.name in disk.list_directory(path.parent) else OpenMode.CREATE
    handle = disk.open(path, mode)
    disk.write(handle, [data], offset, flush=flush)
    return handle


def test_a_flushed_file_without_a_flushed_name_is_lost(disk: SimulatedDisk) -> None:
    write(disk, b"data", flush=True)
    disk.power_cut(Random(1), Survival.NOTHING)
    assert disk.list_directory(DIRECTORY) == []


def test_a_flushed_name_without_flushed_content_is_an_empty_file(disk: SimulatedDisk) -> None:
    write(disk, b"data")
    disk.flush_directory(DIRECTORY)
    disk.power_cut(Random(1), Survival.NOTHING)
    assert disk.content(FILE) == b""


def test_what_is_flushed_stays_and_handles_do_not(disk: SimulatedDisk) -> None:
    handle = write(disk, b"data")
    disk.flush(handle)
    disk.flush_directory(DIRECTORY)
    disk.write(handle, [b"DATA"], 2, flush=False)
    disk.truncate(handle, 3)
    disk.power_cut(Random(1), Survival.NOTHING)
    assert disk.content(FILE) == b"data"
    for call in (disk.flush, disk.close, disk.size):
        with pytest.raises(OSError, match="handle"):
            call(handle)


def test_everything_may_survive_too(disk: SimulatedDisk) -> None:
    handle = write(disk, b"data")
    disk.truncate(handle, 2)
    disk.write(handle, [b"x"], 5, flush=False)
    disk.power_cut(Random(1), Survival.EVERYTHING)
    assert disk.content(FILE) == b"da\0\0\0x"


def test_a_killed_process_loses_nothing_but_its_locks(disk: SimulatedDisk) -> None:
    write(disk, b"data")
    disk.lock(DIRECTORY / "lock")
    with pytest.raises(BlockingIOError):
        disk.lock(DIRECTORY / "lock")
    disk.process_killed()
    assert disk.content(FILE) == b"data"
    disk.close(disk.lock(DIRECTORY / "lock"))
    disk.lock(DIRECTORY / "lock")


def test_any_part_of_what_was_not_flushed_may_survive() -> None:
    """Nothing, a torn byte, some blocks and not others, a later write without an earlier: all of it comes about."""
    seen = set()
    for seed in range(300):
        disk = SimulatedDisk()
        disk.make_directory(DIRECTORY)
        handle = write(disk, b"", flush=True)
        disk.flush_directory(DIRECTORY)
        disk.write(handle, [b"a" * 1600], 0, flush=False)
        disk.write(handle, [b"b" * 100], 2000, flush=False)
        disk.truncate(handle, 2050)
        disk.power_cut(Random(seed))
        content = disk.content(FILE)
        blocks = "".join(chr(content[at] or 48) for at in range(0, min(len(content), 1600), 512))
        torn = 0 < len(content) < 1600 and len(content) % 512 > 0
        seen.add((blocks, "torn" if torn else len(content)))
    assert {("", 0), ("aaaa", 1600), ("0a", 1024), ("aa", "torn"), ("aaaa", 2100), ("aaaa", 2050)} <= seen
    assert {("0000", 2050), ("0000", 2100), ("0a0a", 2050)} <= seen


def test_names_survive_in_order() -> None:
    """A journal keeps the order: the second rename is never there without the first."""
    seen = set()
    for seed in range(50):
        disk = SimulatedDisk()
        disk.make_directory(DIRECTORY)
        write(disk, b"1", FILE, flush=True)
        disk.flush_directory(DIRECTORY)
        disk.rename(FILE, DIRECTORY / "b")
        write(disk, b"2", FILE)
        disk.unlink(DIRECTORY / "b")
        disk.power_cut(Random(seed))
        seen.add(tuple(sorted(disk.list_directory(DIRECTORY))))
    assert seen == {("file",), ("b",), ("b", "file")}


def test_a_crash_in_a_call(disk: SimulatedDisk) -> None:
    handle = write(disk, b"data", flush=True)
    disk.flush_directory(DIRECTORY)
    disk.crash_at_call = disk.call_count + 2
    disk.write(handle, [b"DATA"], 0, flush=True)
    with pytest.raises(SimulatedCrash):
        disk.write(handle, [b"lost"], 0, flush=True)
    with pytest.raises(SimulatedCrash):
        disk.list_directory(DIRECTORY)
    disk.close(handle)  # what is unwinding may do so
    disk.power_cut(Random(1), Survival.NOTHING)
    assert disk.content(FILE) == b"DATA"


def test_a_crash_in_a_flush(disk: SimulatedDisk) -> None:
    for kind in ("file", "directory"):
        handle = write(disk, b"data", DIRECTORY / kind)
        disk.crash_at_call = disk.call_count + 1
        with pytest.raises(SimulatedCrash):
            disk.flush(handle) if kind == "file" else disk.flush_directory(DIRECTORY)
        disk.power_cut(Random(1), Survival.NOTHING)
        assert disk.list_directory(DIRECTORY) == []


def test_a_failed_flush_is_believed_by_later_ones(disk: SimulatedDisk) -> None:
    handle = write(disk, b"")
    disk.flush_directory(DIRECTORY)
    disk.write(handle, [b"lost"], 0, flush=False)
    disk.fail(Call.FLUSH, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        disk.flush(handle)
    disk.flush(handle)
    assert disk.content(FILE) == b"lost"
    disk.power_cut(Random(1), Survival.EVERYTHING)
    assert disk.content(FILE) == b""


def test_faults_hit_what_they_are_meant_for(disk: SimulatedDisk) -> None:
    disk.fail(Call.WRITE, errno.EIO, "file", skip=1, times=2)
    write(disk, b"other", DIRECTORY / "other")
    handle = write(disk, b"skipped")
    for _ in range(2):
        with pytest.raises(OSError, match="file"):
            disk.write(handle, [b"no"], 0, flush=False)
    disk.write(handle, [b"yes"], 0, flush=False)
    disk.fail(Call.WRITE, errno.EIO)
    disk.heal()
    disk.write(handle, [b"yes"], 0, flush=False)


def test_a_full_disk_takes_what_fits(disk: SimulatedDisk) -> None:
    handle = write(disk, b"1234")
    disk.space_bytes = 6
    assert disk.write(handle, [b"abc", b"def"], 2, flush=False) == 4
    assert disk.content(FILE) == b"12abcd"
    assert disk.write(handle, [b"over"], 0, flush=False) == 4
    with pytest.raises(OSError, match="no room"):
        disk.write(handle, [b"more"], 6, flush=False)
    disk.space_bytes = 3  # taken by something else: what is there can still be written over
    assert disk.write(handle, [b"over"], 0, flush=False) == 4


def test_misuse_is_an_error(disk: SimulatedDisk) -> None:
    handle = write(disk, b"")
    with pytest.raises(OSError, match="too many"):
        disk.write(handle, [b""] * (BUFFERS_MAX + 1), 0, flush=False)
    with pytest.raises(FileExistsError):
        disk.open(FILE, OpenMode.CREATE)
    for path in (DIRECTORY / "none", Path("/none/file")):
        with pytest.raises(FileNotFoundError):
            disk.open(path, OpenMode.READ)
    with pytest.raises(FileNotFoundError):
        disk.unlink(DIRECTORY / "none")


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert SimulatedDisk(1).random_bytes(8) == SimulatedDisk(1).random_bytes(8) != SimulatedDisk(2).random_bytes(8)
