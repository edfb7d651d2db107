"""Logs and snapshots that earlier versions wrote: read as they are, gone on with, and replaced in time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

import pytest

from raftnode import snapshot_format, snapshots
from raftnode.filesystem import OsFileSystem
from raftnode.log_frames import HEADER_BYTES, SegmentHeader, decode_header, encode_body, seal
from raftnode.storage import LogCorrupt, Storage
from statemachine.events import HardState
from tests.stage3_raftnode.storage_tools import IDENTITY, flat, opened, recover, run, take_snapshot

SALT = 77
ENTRIES = ((1, 1, b"one"), (2, 1, b"two"), (3, 1, b"3" * 20_000))


@pytest.fixture
def segment(tmp_path: Path) -> Path:
    """The only segment of a server's directory, as an earlier version left it: a hard state and three entries."""
    with opened(OsFileSystem(), tmp_path):
        pass
    header = SegmentHeader(IDENTITY.cluster_hash, 3, 1, SALT, 0, 1, 1, HardState(0, None), 0, format_version=1)
    content, check = header.encode(), 0
    bodies = [encode_body(HardState(1, 2), [run(1, 1, b"one", b"two")]), encode_body(None, [run(3, 1, b"3" * 20_000)])]
    for sequence, body in enumerate(bodies, start=1):
        check, buffers = seal(body, SALT, check, sequence, crc32)
        content += b"".join(buffers)
    path = tmp_path / "log-0000000000000001.seg"
    path.write_bytes(content)
    return path


def change(path: Path, place: int) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[place] ^= 1
    path.write_bytes(damaged)


def test_a_log_is_read(segment: Path) -> None:
    recovered = recover(OsFileSystem(), segment.parent)
    assert flat(recovered.runs) == ENTRIES
    assert recovered.hard_state == HardState(1, 2)
    assert recovered.torn is None


def formats_of(directory: Path) -> list[int]:
    """Of the segments, in order."""
    paths = sorted(directory.glob("log-*.seg"))
    return [decode_header(path.read_bytes()[:HEADER_BYTES]).format_version for path in paths]


def test_it_goes_on_in_a_new_segment(segment: Path) -> None:
    """So an earlier version refuses the log, and doesn't take what it can't read for something else."""
    with opened(OsFileSystem(), segment.parent) as (storage, _):
        storage.save(None, [run(4, 1, b"four")])
        storage.save(None, [run(5, 1, b"five" * 100_000)])
    assert formats_of(segment.parent) == [1, 2]
    for _ in range(2):
        recovered = recover(OsFileSystem(), segment.parent)
        assert flat(recovered.runs) == (*ENTRIES, (4, 1, b"four"), (5, 1, b"five" * 100_000))
    assert formats_of(segment.parent) == [1, 2]


def test_without_room_for_a_segment_it_goes_on_in_the_same_one(segment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the checksum that this one has."""
    with monkeypatch.context() as patch:
        patch.setattr("raftnode.segmented_log.SegmentedLog.prepare_next", lambda log: None)
        with opened(OsFileSystem(), segment.parent) as (storage, _):
            storage.save(None, [run(4, 1, b"four")])
    assert formats_of(segment.parent) == [1]
    assert flat(recover(OsFileSystem(), segment.parent).runs) == (*ENTRIES, (4, 1, b"four"))


def test_a_torn_end_is_dropped(segment: Path) -> None:
    change(segment, segment.stat().st_size - 100)
    recovered = recover(OsFileSystem(), segment.parent)
    assert flat(recovered.runs) == ENTRIES[:2]
    assert recovered.torn is not None


def test_damage_with_a_valid_frame_behind_it_is_found(segment: Path) -> None:
    change(segment, HEADER_BYTES + 40)
    with pytest.raises(LogCorrupt):
        recover(OsFileSystem(), segment.parent)


@contextmanager
def an_earlier_version(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Snapshots are written as it did."""
    with monkeypatch.context() as patch:
        patch.setattr(snapshots, "CHECKSUM", crc32)
        patch.setattr(snapshot_format, "FORMAT_VERSION", 1)
        yield


def test_a_snapshot_is_read_received_and_replaced(segment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(storage: Storage) -> list[bytes]:
        newest = storage.snapshots.latest
        assert newest is not None
        return list(storage.snapshots.read(newest))

    with opened(OsFileSystem(), segment.parent) as (storage, _):
        with an_earlier_version(monkeypatch):
            take_snapshot(storage, 2, 1, b"state", b"goes on")
        assert read(storage) == [b"state", b"goes on"]
    with opened(OsFileSystem(), segment.parent) as (storage, recovered):
        assert recovered.snapshot is not None
        assert recovered.snapshot.index == 2
        received = storage.snapshots.receive(3, 1)
        with an_earlier_version(monkeypatch):
            take_snapshot(storage, 3, 1, b"later")
        received.write(0, (segment.parent / f"snapshot-{3:016}-{1:016}.snap").read_bytes())
        received.finish()
        assert read(storage) == [b"later"]
        take_snapshot(storage, 4, 1, b"new")
        assert read(storage) == [b"new"]
