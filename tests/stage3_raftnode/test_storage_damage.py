"""Damage to the files of a log: what is torn is dropped, what is corrupt is refused, nothing is deleted."""

from __future__ import annotations

import shutil
from itertools import accumulate
from pathlib import Path

import attrs
import pytest

from raftnode.filesystem import OsFileSystem
from raftnode.log_frames import (
    FRAME_HEAD,
    HEADER_BYTES,
    ONE_ENTRY_HEAD,
    RUN_HEAD,
    FrameBody,
    decode_header,
    encode_body,
    seal,
)
from raftnode.recovery import find_log
from raftnode.simulated_disk import Call, SimulatedDisk
from raftnode.storage import DiskFailed, LogCorrupt, Recovered, SnapshotCorrupt, WrongDirectory
from statemachine.events import HardState
from tests.stage3_raftnode.storage_tools import (
    DIRECTORY,
    IDENTITY,
    flat,
    log_names,
    open_storage,
    opened,
    recover,
    run,
    small_segments,
    take_snapshot,
)

SAVES = (
    (HardState(1, 2), run(1, 1, b"first")),
    (None, run(2, 1, b"second", b"third")),
    (HardState(2, 1), run(4, 2, b"last")),
)
ENTRIES = ((1, 1, b"first"), (2, 1, b"second"), (3, 1, b"third"), (4, 2, b"last"))
OFFSETS = tuple(
    accumulate((encode_body(hard_state, [saved]).frame_bytes for hard_state, saved in SAVES), initial=HEADER_BYTES)
)
"""Where each save's frame begins, and where the last one ends."""


def entries_after(saves: int) -> tuple[tuple[int, int, bytes], ...]:
    return flat(tuple(saved for _, saved in SAVES[:saves]))


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """The segment of a small log that was closed cleanly."""
    with opened(OsFileSystem(), tmp_path) as (storage, _):
        for hard_state, saved in SAVES:
            storage.save(hard_state, [saved])
    path = tmp_path / "log-0000000000000001.seg"
    assert path.stat().st_size == OFFSETS[-1]
    return path


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """The segment of a small log as kill -9 leaves it, with zeros laid out behind."""
    directory = tmp_path / "running"
    storage, _ = open_storage(OsFileSystem(), directory)
    for hard_state, saved in SAVES:
        storage.save(hard_state, [saved])
    copy = tmp_path / "killed"
    shutil.copytree(directory, copy)
    storage.close()
    return copy / "log-0000000000000001.seg"


def recover_real(path: Path) -> Recovered:
    return recover(OsFileSystem(), path.parent)


def refuse(path: Path) -> LogCorrupt:
    """Opens what is damaged, and checks that nothing was changed."""
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    with pytest.raises(LogCorrupt) as caught:
        open_storage(OsFileSystem(), path.parent)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
    assert str(caught.value.path) in str(caught.value)
    return caught.value


@pytest.mark.parametrize("state", ["closed", "killed"])
def test_a_flipped_byte_at_any_place(state: str, request: pytest.FixtureRequest) -> None:
    """In the header or a frame that has one behind it: corrupt. In the last frame: torn. Never wrong entries."""
    path: Path = request.getfixturevalue(state)
    good = path.read_bytes()
    for position in range(OFFSETS[-1]):
        damaged = bytearray(good)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        if position < OFFSETS[-2]:
            error = refuse(path)
            assert error.path == path
            assert error.offset == max((offset for offset in OFFSETS if offset <= position), default=0)
        else:
            recovered = recover_real(path)
            assert flat(recovered.runs) == entries_after(2)
            assert recovered.hard_state == HardState(1, 2)
            assert recovered.torn is not None
            assert (recovered.torn.path, recovered.torn.offset) == (path, OFFSETS[-2])
            assert OFFSETS[-1] - OFFSETS[-2] - 8 < recovered.torn.size_bytes <= OFFSETS[-1] - OFFSETS[-2]


def test_a_log_cut_off_at_any_place(closed: Path) -> None:
    good = closed.read_bytes()
    for size in range(len(good) + 1):
        closed.write_bytes(good[:size])
        if size < HEADER_BYTES:
            assert refuse(closed).offset == 0
            continue
        recovered = recover_real(closed)
        saves = sum(offset <= size for offset in OFFSETS[1:])
        assert flat(recovered.runs) == entries_after(saves)
        assert (recovered.torn is None) == (size in OFFSETS or not any(good[OFFSETS[saves] : size]))


def test_the_log_goes_on_where_the_torn_save_was(closed: Path) -> None:
    closed.write_bytes(closed.read_bytes()[:-3])
    with opened(OsFileSystem(), closed.parent) as (storage, recovered):
        assert recovered.torn is not None
        storage.save(HardState(5, 1), [run(4, 5, b"again")])
    recovered = recover_real(closed)
    assert recovered.torn is None
    assert flat(recovered.runs) == (*ENTRIES[:3], (4, 5, b"again"))


def test_a_shorter_save_over_a_longer_torn_one(killed: Path) -> None:
    with opened(OsFileSystem(), killed.parent) as (storage, _):
        storage.save(None, [run(5, 2, b"\xff" * 5_000)])
    damaged = bytearray(killed.read_bytes())
    damaged[OFFSETS[-1]] ^= 1
    killed.write_bytes(damaged)
    with opened(OsFileSystem(), killed.parent) as (storage, recovered):
        assert flat(recovered.runs) == ENTRIES
        storage.save(None, [run(5, 3, b"short")])
        shutil.copy(killed, killed.with_suffix(".copy"))
    shutil.copy(killed.with_suffix(".copy"), killed)
    recovered = recover_real(killed)
    assert flat(recovered.runs) == (*ENTRIES, (5, 3, b"short"))
    assert recovered.torn is not None


def test_rubbish_in_the_zeros_behind_the_log_is_torn(killed: Path) -> None:
    damaged = bytearray(killed.read_bytes())
    damaged[len(damaged) // 2] = 7
    killed.write_bytes(damaged)
    recovered = recover_real(killed)
    assert flat(recovered.runs) == ENTRIES
    assert recovered.torn is not None
    assert recovered.torn.offset == OFFSETS[-1]


def test_a_block_of_zeros_in_the_middle_is_corrupt(killed: Path) -> None:
    """Zeros look like the end of the log, and are not: valid frames follow."""
    damaged = bytearray(killed.read_bytes())
    damaged[OFFSETS[1] : OFFSETS[2]] = bytes(OFFSETS[2] - OFFSETS[1])
    killed.write_bytes(damaged)
    error = refuse(killed)
    assert (error.path, error.offset) == (killed, OFFSETS[1])
    assert str(OFFSETS[2]) in error.why


def test_a_frame_out_of_its_place_is_corrupt(killed: Path) -> None:
    data = bytearray(killed.read_bytes())
    first = data[OFFSETS[0] : OFFSETS[1]]
    data[OFFSETS[-1] : OFFSETS[-1] + len(first)] = first
    killed.write_bytes(data)
    error = refuse(killed)
    assert error.offset == OFFSETS[-1]
    assert "does not continue" in error.why


def test_a_frame_that_follows_another_one_than_it_says_is_corrupt(killed: Path) -> None:
    """Number, salt and checks are right; it is the chain that is broken."""
    data = bytearray(killed.read_bytes())
    salt = decode_header(bytes(data)).salt
    frame = b"".join(seal(encode_body(None, [run(5, 2, b"stranger")]), salt, 0, len(SAVES) + 1)[1])
    data[OFFSETS[-1] : OFFSETS[-1] + len(frame)] = frame
    killed.write_bytes(data)
    assert refuse(killed).offset == OFFSETS[-1]


@pytest.mark.parametrize("digit", ["\u0663", "\uff13"])
def test_a_name_with_digits_of_another_script_is_that_of_a_file_of_others(closed: Path, digit: str) -> None:
    for name in (f"log-{digit * 16}.seg", f"snapshot-{digit * 16}-{digit * 16}.snap"):
        (closed.parent / name).write_bytes(b"left alone")
    assert flat(recover_real(closed).runs) == ENTRIES


@pytest.mark.parametrize(
    "content",
    [
        ONE_ENTRY_HEAD.pack(5, 2, 1, 0, 1000) + bytes(12),  # an entry that is longer than its frame
        ONE_ENTRY_HEAD.pack(5, 2, 1, 0, 4) + bytes(12),  # one that leaves more than padding
        RUN_HEAD.pack(5, 2, 1, 0),  # one of which not even the size is there
        ONE_ENTRY_HEAD.pack(0, 2, 1, 0, 12) + bytes(12),  # one at index 0, and the first is 1
    ],
)
def test_a_frame_that_says_nonsense_is_corrupt_though_all_checks_are_right(closed: Path, content: bytes) -> None:
    """What is not in the frame must not be taken from what stands behind it."""
    data = closed.read_bytes()
    previous = FRAME_HEAD.unpack_from(data, OFFSETS[-2])[1]
    body = FrameBody(0, 1, [content], len(content))
    frame = b"".join(seal(body, decode_header(data).salt, previous, len(SAVES) + 1)[1])
    for behind in (b"", bytes(2000)):
        closed.write_bytes(data + frame + behind)
        assert refuse(closed).offset == OFFSETS[-1]


def test_a_file_of_a_client_that_looks_like_a_log_harms_nobody(closed: Path) -> None:
    """Torn in the middle of writing an entry that is itself a piece of some log."""
    for salt in (0, 1):
        looks_valid = b"".join(seal(encode_body(HardState(9, 9), []), salt, 0, 5)[1])
        with opened(OsFileSystem(), closed.parent) as (storage, _):
            storage.save(None, [run(5, 2, *[looks_valid] * 9)])
        data = bytearray(closed.read_bytes())
        data[OFFSETS[-1] + 40] ^= 1
        closed.write_bytes(data)
        recovered = recover_real(closed)
        assert flat(recovered.runs) == ENTRIES
        assert recovered.torn is not None


def many_segments(disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch, snapshot_index: int = 0) -> list[Path]:
    """A log of 20 entries over several segments."""
    small_segments(monkeypatch)
    with opened(disk) as (storage, _):
        for index in range(1, 21):
            storage.prepare_next()
            storage.save(None, [run(index, 1, bytes([index]) * 200)])
        if snapshot_index:
            take_snapshot(storage, snapshot_index, 1)
    return [DIRECTORY / name for name in log_names(disk)]


def refuse_simulated(disk: SimulatedDisk) -> LogCorrupt:
    names = sorted(disk.list_directory(DIRECTORY))
    with pytest.raises(LogCorrupt) as caught:
        open_storage(disk)
    assert sorted(disk.list_directory(DIRECTORY)) == names
    return caught.value


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_missing_segment_is_named(monkeypatch: pytest.MonkeyPatch, position: int) -> None:
    disk = SimulatedDisk()
    paths = many_segments(disk, monkeypatch)
    disk.unlink(paths[position])
    error = refuse_simulated(disk)
    assert error.path == paths[position]
    assert "missing" in error.why


def test_a_gap_below_the_snapshot_is_an_unfinished_compaction(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SimulatedDisk()
    paths = many_segments(disk, monkeypatch, snapshot_index=15)
    disk.unlink(paths[1])
    recovered = recover(disk)
    assert (recovered.first_index, recovered.last_index) == (16, 20)
    assert not {paths[0].name, paths[1].name} & set(log_names(disk))
    assert recover(disk).runs == recovered.runs


@pytest.mark.parametrize("offset", [0, 50, HEADER_BYTES - 1])
def test_a_damaged_header_of_any_segment_is_corrupt(monkeypatch: pytest.MonkeyPatch, offset: int) -> None:
    disk = SimulatedDisk()
    for path in many_segments(disk, monkeypatch):
        disk.damage(path, offset)
        assert (refuse_simulated(disk).path, refuse_simulated(disk).offset) == (path, 0)
        disk.damage(path, offset)


def test_the_last_frame_of_a_segment_that_is_not_the_last_is_never_torn(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SimulatedDisk()
    paths = many_segments(disk, monkeypatch)
    log = find_log(disk, DIRECTORY, disk.list_directory(DIRECTORY), IDENTITY)
    assert log is not None
    for segment in log.segments[:-1]:
        disk.damage(segment.path, segment.size_bytes - 1)
        assert refuse_simulated(disk).path == segment.path
        disk.damage(segment.path, segment.size_bytes - 1)
    disk.damage(paths[-1], log.segments[-1].size_bytes - 1)
    assert recover(disk).torn is not None


def test_segments_that_do_not_belong_together(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, other = SimulatedDisk(seed=1), SimulatedDisk(seed=2)
    paths = many_segments(disk, monkeypatch)
    many_segments(other, monkeypatch)
    with opened(other) as (storage, _):
        storage.save(None, [run(1, 9, b"something else")])
    good = bytes(disk.content(paths[1]))
    disk.content(paths[1])[:] = disk.content(paths[2])
    assert "says that it is segment 3" in refuse_simulated(disk).why
    disk.content(paths[1])[:] = good
    disk.content(paths[0])[:] = other.content(paths[0])
    assert refuse_simulated(disk).path in paths[:2]


def test_snapshots_without_a_log_are_no_new_server() -> None:
    disk = SimulatedDisk()
    with opened(disk) as (storage, _):
        storage.save(None, [run(1, 1, b"a")])
        take_snapshot(storage, 1, 1)
    disk.unlink(DIRECTORY / log_names(disk)[0])
    assert "no log" in refuse_simulated(disk).why


def test_another_version_of_the_format_is_said() -> None:
    disk = SimulatedDisk()
    recover(disk)
    content = disk.content(DIRECTORY / log_names(disk)[-1])
    content[:HEADER_BYTES] = attrs.evolve(decode_header(bytes(content)), format_version=3).encode()
    with pytest.raises(WrongDirectory, match="format 3"):
        open_storage(disk)


def test_a_read_error_is_a_failed_disk() -> None:
    disk = SimulatedDisk()
    recover(disk)
    disk.fail(Call.READ, 5, ".seg")
    with pytest.raises(DiskFailed, match="recovering"):
        open_storage(disk)
    recover(disk)


def test_entries_that_leave_a_gap_in_a_valid_frame_are_corrupt() -> None:
    """Never written so; if it is, it is not passed on."""
    disk = SimulatedDisk()
    with opened(disk) as (storage, _):
        storage._log._next_index = 10
        storage.save(None, [run(10, 1, b"a")])
    error = refuse_simulated(disk)
    assert "entry 10 follows entry 0" in error.why


class TestDamagedSnapshots:
    """Falling back to the older snapshot."""

    def with_two(self) -> tuple[SimulatedDisk, Path, Path]:
        disk = SimulatedDisk()
        with opened(disk) as (storage, _):
            storage.save(None, [run(1, 1, *(b"%d" % index for index in range(1, 11)))])
            older = take_snapshot(storage, 4, 1)
            newer = take_snapshot(storage, 8, 1)
        return disk, older.path, newer.path

    def test_the_log_reaches_back_to_the_older_one(self) -> None:
        disk, _, newer = self.with_two()
        disk.damage(newer, 3)
        recovered = recover(disk)
        assert recovered.snapshot is not None
        assert (recovered.snapshot.index, recovered.first_index, recovered.last_index) == (4, 5, 10)
        assert len(recovered.damaged_snapshots) == 1
        assert str(newer) in recovered.damaged_snapshots[0]

    def test_a_snapshot_found_damaged_when_it_is_read_can_be_passed_over(self) -> None:
        disk, older, newer = self.with_two()
        disk.damage(newer, 60)
        with opened(disk) as (storage, recovered):
            assert recovered.snapshot is not None
            with pytest.raises(SnapshotCorrupt) as caught:
                list(storage.snapshots.read(recovered.snapshot))
        assert caught.value.path == newer
        storage, recovered = storage.open(DIRECTORY, IDENTITY, disk, distrusted={caught.value.path})
        assert recovered.snapshot is not None
        assert recovered.snapshot.path == older
        assert disk.content(newer)
        take_snapshot(storage, 10, 1)
        storage.close()
        assert newer.name not in disk.list_directory(DIRECTORY)
        assert recover(disk).damaged_snapshots == ()

    def test_both_are_damaged_and_the_log_is_whole(self) -> None:
        disk, older, newer = self.with_two()
        disk.damage(older, 3)
        disk.damage(newer, 3)
        recovered = recover(disk)
        assert (recovered.snapshot, recovered.first_index, recovered.last_index) == (None, 1, 10)
        assert len(recovered.damaged_snapshots) == 2

    def test_an_older_damaged_one_does_not_matter(self) -> None:
        disk, older, _ = self.with_two()
        disk.damage(older, 3)
        recovered = recover(disk)
        assert recovered.snapshot is not None
        assert (recovered.snapshot.index, recovered.damaged_snapshots) == (8, ())

    def test_the_log_does_not_reach_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        disk = SimulatedDisk()
        paths = many_segments(disk, monkeypatch, snapshot_index=15)
        with opened(disk) as (storage, _):
            storage.compact(16)
        assert paths[0].name not in log_names(disk)
        snapshot = DIRECTORY / "snapshot-0000000000000015-0000000000000001.snap"
        disk.damage(snapshot, 3)
        with pytest.raises(SnapshotCorrupt) as caught:
            open_storage(disk)
        assert caught.value.path == snapshot
        disk.unlink(snapshot)
        assert "missing" in refuse_simulated(disk).why

    def test_a_received_one_that_the_log_cannot_stand_in_for(self) -> None:
        """The log ends before it: what it held was acknowledged, so there is no way back to an older state."""
        disk = SimulatedDisk()
        with opened(disk) as (storage, _):
            storage.save(None, [run(1, 1, b"a", b"b")])
            take_snapshot(storage, 1, 1)
            received = take_snapshot(storage, 50, 3)
        disk.damage(received.path, 3)
        with pytest.raises(SnapshotCorrupt):
            open_storage(disk)
