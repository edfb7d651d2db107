"""The log and the hard state, saved and read back; on the real file system and on the simulated one."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftnode.filesystem import OpenMode, OsFileSystem
from raftnode.simulated_disk import Call, SimulatedCrash, SimulatedDisk, Survival
from raftnode.storage import DirectoryInUse, Storage, StorageIdentity, WrongDirectory
from statemachine.events import EntriesRun, HardState
from tests.stage3_raftnode.storage_tools import (
    DIRECTORY,
    IDENTITY,
    Model,
    flat,
    log_names,
    open_storage,
    opened,
    recover,
    run,
    small_segments,
    state_of,
    take_snapshot,
)


@pytest.fixture(params=["real", "simulated"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[OsFileSystem | SimulatedDisk, Path]:
    if request.param == "real":
        return OsFileSystem(), tmp_path / "data" / "server-3"
    return SimulatedDisk(), DIRECTORY


Place = tuple[OsFileSystem | SimulatedDisk, Path]


def wants_segment(storage: Storage) -> bool:
    """A function, since mypy takes a property for unchanged from one line to the next."""
    return storage.needs_next


def test_a_new_directory_is_empty(place: Place) -> None:
    recovered = recover(*place)
    assert recovered.hard_state == HardState(0, None)
    assert (recovered.snapshot, recovered.first_index, recovered.runs) == (None, 1, ())
    assert (recovered.torn, recovered.clock_us, recovered.last_index) == (None, 0, 0)
    assert recover(*place) == recovered


def test_what_is_saved_is_there_after_reopening(place: Place) -> None:
    with opened(*place) as (storage, _):
        storage.save(HardState(1, 2), [run(1, 1, b"one", b"two")])
        storage.save(None, [run(3, 1, b"three")])
        storage.save(HardState(2, None), [])
        storage.save(None, [])
    recovered = recover(*place)
    assert recovered.hard_state == HardState(2, None)
    assert recovered.runs == (run(1, 1, b"one", b"two", b"three"),)
    assert recovered.torn is None


def test_entries_at_an_index_replace_what_was_there_and_behind(place: Place) -> None:
    with opened(*place) as (storage, _):
        storage.save(None, [run(1, 1, b"a", b"b", b"c"), run(4, 2, b"d")])
        storage.save(HardState(3, 1), [run(2, 3, b"B")])
    assert recover(*place).runs == (run(1, 1, b"a"), run(2, 3, b"B"))
    with opened(*place) as (storage, _):
        storage.save(None, [run(1, 4, b"A")])
    assert recover(*place).runs == (run(1, 4, b"A"),)


def test_one_save_may_go_back_and_forth(place: Place) -> None:
    """Several batches of the core that are saved together."""
    with opened(*place) as (storage, _):
        storage.save(None, [run(1, 1, b"a", b"b"), run(2, 2, b"B", b"C"), run(3, 3, b"c"), run(4, 3, b"d")])
    assert recover(*place).runs == (run(1, 1, b"a"), run(2, 2, b"B"), run(3, 3, b"c", b"d"))


def test_one_save_is_one_flush_and_nothing_else() -> None:
    disk = SimulatedDisk()
    with opened(disk) as (storage, _):
        calls = disk.call_count
        storage.save(HardState(1, 2), [run(1, 1, b"one"), run(2, 2, b"two")])
        assert disk.call_count == calls + 1


@pytest.mark.parametrize(
    "runs",
    [
        [run(4, 1, b"gap")],
        [run(0, 1, b"too low")],
        [EntriesRun(3, 1, ())],
        [run(3, 1, b"c"), run(5, 1, b"gap")],
    ],
)
def test_runs_that_cannot_follow_are_a_mistake_of_the_caller(runs: list[EntriesRun]) -> None:
    disk = SimulatedDisk()
    with opened(disk) as (storage, _):
        storage.save(None, [run(1, 1, b"a", b"b")])
        with pytest.raises(ValueError, match="can't follow"):
            storage.save(None, runs)
        storage.save(None, [run(3, 1, b"c")])
    assert recover(disk).runs == (run(1, 1, b"a", b"b", b"c"),)


def test_a_small_log_is_small_on_disk_and_trimmed_on_close(tmp_path: Path) -> None:
    storage, _ = open_storage(OsFileSystem(), tmp_path)
    storage.save(None, [run(1, 1, b"a" * 100)])
    path = tmp_path / "log-0000000000000001.seg"
    assert path.stat().st_size == 256 * 1024
    assert not storage.needs_next
    storage.close()
    assert path.stat().st_size < 400
    storage.close()


def test_segments_grow_and_the_prepared_one_is_used(place: Place) -> None:
    filesystem, directory = place
    sizes: list[int] = []
    with opened(*place) as (storage, _):
        index = 1
        while len(sizes) < 3:
            while not storage.needs_next:
                storage.save(None, [run(index, 1, bytes(50_000))])
                index += 1
            storage.prepare_next()
            storage.prepare_next()
            assert not wants_segment(storage)
            handle = filesystem.lock(directory / "log-next.tmp")
            sizes.append(filesystem.size(handle))
            filesystem.close(handle)
        assert sizes == [512 * 1024, 1024 * 1024, 2048 * 1024]
        assert storage.log_bytes > index * 50_000 - 100_000
    assert sorted(name for name in filesystem.list_directory(directory) if name != "lock") == [
        f"log-{number:016d}.seg" for number in (1, 2, 3)
    ]
    assert recover(*place).last_index == index - 1


def test_a_save_without_a_prepared_segment_goes_past_the_end(place: Place) -> None:
    big = tuple(os.urandom(100_000) for _ in range(12))
    with opened(*place) as (storage, _):
        storage.save(None, [run(1, 1, *big)])
        assert storage.needs_next
        storage.save(None, [run(13, 1, b"more")])
        storage.prepare_next()
        storage.save(None, [run(14, 2, *big)])  # bigger than the prepared one
        storage.save(None, [run(26, 2, b"end")])
    recovered = recover(*place)
    assert recovered.runs == (run(1, 1, *big, b"more"), run(14, 2, *big, b"end"))
    assert recovered.torn is None


def test_a_save_of_more_buffers_than_one_call_takes(place: Place) -> None:
    entries = tuple(bytes([number % 256]) * 65_536 for number in range(1_100))
    with opened(*place) as (storage, _):
        storage.save(HardState(1, None), [run(1, 1, *entries)])
    assert recover(*place).runs == (run(1, 1, *entries),)


def test_many_reopenings_with_rotation_and_truncation(monkeypatch: pytest.MonkeyPatch) -> None:
    small_segments(monkeypatch)
    disk = SimulatedDisk()
    model = Model()
    for round_number in range(1, 30):
        with opened(disk) as (storage, recovered):
            assert state_of(recovered) == model.state()
            first_index = max(recovered.last_index + 1 - round_number % 3, 1)
            if storage.needs_next:
                storage.prepare_next()
            runs = (run(first_index, round_number, *(bytes([round_number]) * 90 for _ in range(5))),)
            storage.save(HardState(round_number, 1), runs)
            model.save(HardState(round_number, 1), runs)
    assert len(log_names(disk)) > 5
    assert state_of(recover(disk)) == model.state()


operations = st.lists(
    st.one_of(
        st.tuples(st.just("save"), st.integers(0, 6), st.integers(0, 200)),
        st.tuples(
            st.sampled_from(["prepare", "reopen", "kill", "snapshot", "compact", "install"]), st.just(0), st.just(0)
        ),
    ),
    max_size=40,
)


@given(operations)
def test_any_sequence_of_operations_keeps_what_it_should(steps: list[tuple[str, int, int]]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        small_segments(monkeypatch)
        disk = SimulatedDisk()
        model = Model()
        storage, _ = open_storage(disk)
        for term, (name, back, size_bytes) in enumerate(steps, 1):
            last_index = max(model.entries, default=model.snapshot[0] if model.snapshot else 0)
            if name == "save":
                first_index = max(last_index + 1 - back, model.snapshot[0] + 1 if model.snapshot else 1)
                runs = (run(first_index, term, bytes(size_bytes), b"x"),)
                storage.save(HardState(term, None), runs)
                model.save(HardState(term, None), runs)
            elif name == "prepare":
                storage.prepare_next()
            elif name == "snapshot" and model.entries:
                index = sorted(model.entries)[len(model.entries) // 2]
                take_snapshot(storage, index, model.entries[index][0])
                model.snapshot_taken(index, model.entries[index][0])
            elif name == "compact" and model.snapshot:
                storage.compact(model.snapshot[0] + 1)
            elif name == "install":
                take_snapshot(storage, last_index + 5, term)
                storage.reset_to(last_index + 5, term)
                model.snapshot_received(last_index + 5, term)
                model.reset(last_index + 5)
            else:
                if name == "kill":
                    disk.process_killed()
                else:
                    storage.close()
                storage, recovered = open_storage(disk)
                assert state_of(recovered) == model.state()
        storage.close()
        assert state_of(recover(disk)) == model.state()


def test_compaction_removes_whole_segments_only_and_never_the_active_one(monkeypatch: pytest.MonkeyPatch) -> None:
    small_segments(monkeypatch)
    disk = SimulatedDisk()
    with opened(disk) as (storage, _):
        for index in range(1, 31):
            storage.prepare_next()
            storage.save(None, [run(index, 1, bytes(200))])
        names = log_names(disk)
        with pytest.raises(ValueError, match="no snapshot"):
            storage.compact(2)
        size_bytes = storage.log_bytes
        take_snapshot(storage, 15, 1)
        storage.compact(16)
        assert 3 < len(log_names(disk)) < len(names)
        assert log_names(disk) == names[-len(log_names(disk)) :]
        assert storage.log_bytes < size_bytes
        with pytest.raises(ValueError, match="no snapshot"):
            storage.compact(17)
        take_snapshot(storage, 30, 1)
        storage.compact(31)
        assert log_names(disk) == names[-1:]
    recovered = recover(disk)
    assert (recovered.first_index, recovered.runs) == (31, ())
    assert recovered.hard_state == HardState(0, None)


def test_compaction_keeps_all_that_is_behind_the_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    small_segments(monkeypatch)
    for reopened in (False, True):
        disk = SimulatedDisk()
        storage, _ = open_storage(disk)
        for index in range(1, 31):
            storage.prepare_next()
            storage.save(None, [run(index, 1, bytes(200))])
        for index in range(1, 31):
            if reopened:
                disk.process_killed()
                storage, _ = open_storage(disk)
            take_snapshot(storage, index, 1)
            storage.compact(index + 1)
            copy = copy_of(disk)
            assert (recover(copy).first_index, recover(copy).last_index) == (index + 1, 30)


def copy_of(disk: SimulatedDisk) -> SimulatedDisk:
    """Another disk with the same files, so that the storage in use is not disturbed."""
    copy = SimulatedDisk()
    copy.make_directory(DIRECTORY)
    for name in disk.list_directory(DIRECTORY):
        handle = copy.open(DIRECTORY / name, OpenMode.CREATE)
        copy.write(handle, [bytes(disk.content(DIRECTORY / name))], 0, flush=True)
        copy.close(handle)
    return copy


def test_a_reset_drops_segments_though_they_reach_behind_the_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log held other entries than the leader's at the snapshot's last index."""
    small_segments(monkeypatch)
    disk = SimulatedDisk()
    with opened(disk) as (storage, _):
        for index in range(1, 21):
            storage.prepare_next()
            storage.save(None, [run(index, 1, bytes(200))])
        take_snapshot(storage, 10, 2)
        storage.reset_to(10, 2)
        assert len(log_names(disk)) == 1
        storage.save(None, [run(11, 2, b"k")])
    assert recover(disk).runs == (run(11, 2, b"k"),)


def test_the_hard_state_outlives_the_segment_it_was_saved_in(monkeypatch: pytest.MonkeyPatch) -> None:
    small_segments(monkeypatch)
    disk = SimulatedDisk()
    with opened(disk) as (storage, _):
        storage.save(HardState(7, 5), [])
        for index in range(1, 21):
            storage.prepare_next()
            storage.save(None, [run(index, 7, bytes(200))])
        take_snapshot(storage, 20, 7)
        storage.compact(21)
        assert "log-0000000000000001.seg" not in log_names(disk)
    assert recover(disk).hard_state == HardState(7, 5)


def test_segments_whose_entries_were_replaced_do_not_hold_up_compaction(monkeypatch: pytest.MonkeyPatch) -> None:
    small_segments(monkeypatch)
    disk = SimulatedDisk()
    storage, _ = open_storage(disk)
    for index in range(1, 21):
        storage.prepare_next()
        storage.save(None, [run(index, 1, bytes(200))])
    storage.prepare_next()
    storage.save(None, [run(5, 2, bytes(900))])
    take_snapshot(storage, 4, 1)
    storage.compact(5)
    assert len(log_names(disk)) == 1
    disk.process_killed()
    recovered = recover(disk)
    assert flat(recovered.runs) == ((5, 2, bytes(900)),)


def test_nor_do_they_after_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    small_segments(monkeypatch)
    disk = SimulatedDisk()
    with opened(disk) as (storage, _):
        for index in range(1, 21):
            storage.prepare_next()
            storage.save(None, [run(index, 1, bytes(200))])
        storage.prepare_next()
        storage.save(None, [run(5, 2, bytes(900))])
    with opened(disk) as (storage, _):
        take_snapshot(storage, 4, 1)
        storage.compact(5)
        assert len(log_names(disk)) == 1


def test_a_reset_drops_the_log_and_begins_behind_the_snapshot(place: Place) -> None:
    with opened(*place) as (storage, _):
        storage.save(HardState(1, None), [run(1, 1, b"a", b"b")])
        with pytest.raises(ValueError, match="no snapshot"):
            storage.reset_to(100, 3)
        take_snapshot(storage, 100, 3)
        with pytest.raises(ValueError, match="no snapshot"):
            storage.reset_to(100, 2)
        storage.reset_to(100, 3)
        storage.save(None, [run(101, 3, b"c")])
    recovered = recover(*place)
    assert recovered.runs == (run(101, 3, b"c"),)
    assert recovered.hard_state == HardState(1, None)


@pytest.mark.parametrize("index", [2, 5])
def test_a_snapshot_that_does_not_fit_the_log_resets_it_when_opened(place: Place, index: int) -> None:
    """The server died between making a received snapshot durable and resetting the log."""
    with opened(*place) as (storage, _):
        storage.save(None, [run(1, 1, b"a", b"b", b"c")])
        take_snapshot(storage, index, 4)
    recovered = recover(*place)
    assert (recovered.first_index, recovered.runs) == (index + 1, ())
    with opened(*place) as (storage, recovered):
        assert (recovered.first_index, recovered.runs) == (index + 1, ())
        storage.save(None, [run(index + 1, 4, b"d")])
    assert recover(*place).runs == (run(index + 1, 4, b"d"),)


def test_a_directory_is_opened_once_only(place: Place) -> None:
    filesystem, directory = place
    with opened(*place), pytest.raises(DirectoryInUse):
        Storage.open(directory, IDENTITY, filesystem)
    recover(*place)


@pytest.mark.parametrize("identity", [StorageIdentity("demo", 4), StorageIdentity("other", 3)])
def test_the_directory_of_another_server_is_refused(place: Place, identity: StorageIdentity) -> None:
    filesystem, directory = place
    recover(*place)
    with pytest.raises(WrongDirectory, match="belongs to server 3"):
        Storage.open(directory, identity, filesystem)
    recover(*place)


def test_other_files_are_left_alone_and_temporary_ones_removed(place: Place) -> None:
    filesystem, directory = place
    recover(*place)
    for name in ("server.log", "pid.tmp", "log-next.tmp", "snapshot-1.tmp"):
        filesystem.close(filesystem.lock(directory / name))
    recover(*place)
    assert {"server.log", "pid.tmp"} <= set(filesystem.list_directory(directory))
    assert not {"log-next.tmp", "snapshot-1.tmp"} & set(filesystem.list_directory(directory))


def test_the_clock_is_a_hint(place: Place) -> None:
    filesystem, directory = place
    with opened(*place) as (storage, _):
        storage.save_clock(5)
        storage.save_clock(123_456_789)
    with opened(*place) as (storage, recovered):
        assert recovered.clock_us == 123_456_789
        storage.save_clock(2**63)
    assert recover(*place).clock_us == 2**63
    for damaged in (b"\1" * 16, b"short"):
        filesystem.unlink(directory / "clock")
        handle = filesystem.lock(directory / "clock")
        filesystem.write(handle, [damaged], 0, flush=False)
        filesystem.close(handle)
        assert recover(*place).clock_us == 0


def test_a_closed_storage_saves_nothing(place: Place) -> None:
    storage, _ = open_storage(*place)
    storage.close()
    with pytest.raises(ValueError, match="closed"):
        storage.save(HardState(1, 1), [])
    storage.prepare_next()
    assert not storage.needs_next


def test_saves_go_on_while_the_next_segment_is_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread prepares all the time, so that the hand-over happens at any moment of a save."""
    small_segments(monkeypatch, 4096)
    saved = threading.Event()
    with opened(OsFileSystem(), tmp_path) as (storage, _):

        def prepare() -> None:
            while not saved.is_set():
                storage.prepare_next()

        thread = threading.Thread(target=prepare)
        thread.start()
        try:
            for index in range(1, 1001):
                storage.save(None, [run(index, 1, b"%d" % index * 30)])
        finally:
            saved.set()
            thread.join()
        assert len(list(tmp_path.glob("*.seg"))) > 10
    recovered = recover(OsFileSystem(), tmp_path)
    assert recovered.runs == (run(1, 1, *(b"%d" % index * 30 for index in range(1, 1001))),)


def test_closing_waits_for_the_preparation(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SimulatedDisk()
    storage, _ = open_storage(disk)
    entered, go_on = threading.Event(), threading.Event()
    write = disk.write

    def slow_write(*arguments: object, **options: object) -> int:
        entered.set()
        assert go_on.wait(10)
        return write(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(disk, "write", slow_write)
    preparing = threading.Thread(target=storage.prepare_next)
    preparing.start()
    assert entered.wait(10)
    storage.prepare_next()  # one is enough
    assert not storage.needs_next
    closing = threading.Thread(target=storage.close)
    closing.start()
    go_on.set()
    preparing.join()
    closing.join()
    assert not [name for name in disk.list_directory(DIRECTORY) if name.endswith(".tmp")]


def test_the_end_of_the_log_is_flushed_before_it_is_spoken_of() -> None:
    """A process that died in mid-save leaves a frame in the page cache; a later power cut must not take it."""
    disk = SimulatedDisk()
    storage, _ = open_storage(disk)
    flushed = disk.counts[Call.FLUSH_DIRECTORY]
    disk.crash_at_call = disk.call_count + 1
    with pytest.raises(SimulatedCrash):
        storage.save(HardState(3, 1), [run(1, 3, b"a")])
    disk.process_killed()
    storage, recovered = open_storage(disk)
    assert recovered.runs == (run(1, 3, b"a"),)
    assert disk.counts[Call.FLUSH_DIRECTORY] > flushed
    disk.power_cut(Random(1), Survival.NOTHING)
    assert recover(disk).runs == (run(1, 3, b"a"),)
