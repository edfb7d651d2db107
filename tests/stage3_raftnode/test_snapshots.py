"""Snapshots: written, read, received, kept, damaged."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftnode.filesystem import OsFileSystem
from raftnode.simulated_disk import Call, SimulatedDisk
from raftnode.snapshot_format import (
    CHUNK_BYTES_MAX,
    FOOTER_BYTES,
    HEADER_BYTES,
    BadSnapshot,
    Footer,
    check_header,
    decode_footer,
    encode_header,
)
from raftnode.storage import (
    DiskFailed,
    DiskFull,
    SnapshotCorrupt,
    SnapshotGone,
    SnapshotMeta,
    SnapshotWriter,
    Storage,
    StorageIdentity,
)
from tests.stage3_raftnode.storage_tools import DIRECTORY, IDENTITY, open_storage, opened, recover, run, take_snapshot


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk()


@pytest.fixture
def storage(disk: SimulatedDisk) -> Storage:
    return open_storage(disk)[0]


def names(disk: SimulatedDisk) -> list[str]:
    return sorted(name for name in disk.list_directory(DIRECTORY) if name.startswith("snapshot"))


def append_all(writer: SnapshotWriter, chunks: list[bytes]) -> None:
    for chunk in chunks:
        writer.append(chunk)


def file_of(chunks: tuple[bytes, ...], index: int = 7, term: int = 2, cluster: str = "demo") -> bytes:
    """The file that another server of the cluster would send."""
    other = SimulatedDisk()
    storage, _ = Storage.open(DIRECTORY, StorageIdentity(cluster, 1), other)
    return bytes(other.content(take_snapshot(storage, index, term, *chunks).path))


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=5).map(tuple))
def test_chunks_come_back_as_they_were_given(chunks: tuple[bytes, ...]) -> None:
    disk = SimulatedDisk()
    with opened(disk) as (storage, _):
        meta = take_snapshot(storage, 7, 2, *chunks)
        assert tuple(storage.snapshots.read(meta)) == chunks
        assert meta.size_bytes == len(disk.content(meta.path))
        assert storage.snapshots.latest == meta


def test_a_snapshot_without_chunks_and_one_of_many_mebibytes(tmp_path: Path) -> None:
    with opened(OsFileSystem(), tmp_path) as (storage, _):
        storage.save(None, [run(1, 1, b"a", b"b")])
        empty = storage.snapshots.create(1, 1).commit()
        assert list(storage.snapshots.read(empty)) == []
        big = take_snapshot(storage, 2, 1, *(bytes([number]) * 250_000 for number in range(30)))
        assert [chunk[0] for chunk in storage.snapshots.read(big)] == list(range(30))
    recovered = recover(OsFileSystem(), tmp_path)
    assert recovered.snapshot == big
    assert recovered.first_index == 3


def test_it_counts_only_when_committed(disk: SimulatedDisk, storage: Storage) -> None:
    writer = storage.snapshots.create(7, 2)
    writer.append(b"chunk")
    assert storage.snapshots.latest is None
    disk.process_killed()
    storage, recovered = open_storage(disk)
    assert recovered.snapshot is None
    assert names(disk) == []
    writer = storage.snapshots.create(7, 2)
    writer.abort()
    writer.abort()
    assert names(disk) == []
    with pytest.raises(ValueError, match="done with"):
        writer.commit()


def test_the_two_newest_are_kept(disk: SimulatedDisk, storage: Storage) -> None:
    metas = [take_snapshot(storage, index, 1) for index in (3, 5, 9)]
    assert names(disk) == [metas[1].path.name, metas[2].path.name]
    assert take_snapshot(storage, 9, 1, b"again") == storage.snapshots.latest
    assert names(disk) == [metas[1].path.name, metas[2].path.name]
    take_snapshot(storage, 4, 1)  # an older one that was under way when a newer one was received
    assert names(disk) == [metas[1].path.name, metas[2].path.name]
    with pytest.raises(SnapshotGone):
        list(storage.snapshots.read(metas[0]))
    with pytest.raises(SnapshotGone):
        storage.snapshots.read_raw(metas[0], 0, 10)


def test_a_snapshot_is_read_to_its_end_though_it_is_removed_meanwhile(tmp_path: Path) -> None:
    with opened(OsFileSystem(), tmp_path) as (storage, _):
        reader = storage.snapshots.read(take_snapshot(storage, 1, 1, b"a", b"b"))
        assert next(reader) == b"a"
        take_snapshot(storage, 2, 1)
        take_snapshot(storage, 3, 1)
        assert len(list(tmp_path.glob("*.snap"))) == 2
        assert list(reader) == [b"b"]


def test_each_flipped_byte_is_found(disk: SimulatedDisk, storage: Storage) -> None:
    meta = take_snapshot(storage, 7, 2, b"first", b"", b"second chunk")
    for position in range(meta.size_bytes):
        disk.damage(meta.path, position)
        chunks: list[bytes] = []
        with pytest.raises(SnapshotCorrupt) as caught:
            chunks.extend(storage.snapshots.read(meta))
        assert caught.value.path == meta.path
        assert caught.value.offset <= position
        assert chunks == [b"first", b"", b"second chunk"][: len(chunks)]
        disk.damage(meta.path, position)
    assert len(list(storage.snapshots.read(meta))) == 3


def test_a_file_cut_off_anywhere_is_found(disk: SimulatedDisk, storage: Storage) -> None:
    meta = take_snapshot(storage, 7, 2, b"first", b"second")
    good = bytes(disk.content(meta.path))
    for size in range(len(good)):
        disk.content(meta.path)[:] = good[:size]
        with pytest.raises(SnapshotCorrupt):
            list(storage.snapshots.read(meta))


def test_chunks_in_another_order_or_missing_are_found(disk: SimulatedDisk, storage: Storage) -> None:
    meta = take_snapshot(storage, 7, 2, b"12345678", b"abcdefgh")
    good = bytes(disk.content(meta.path))
    first, second, rest = good[HEADER_BYTES:][:16], good[HEADER_BYTES + 16 :][:16], good[HEADER_BYTES + 32 :]
    for body in (second + first + rest, first + rest, first + first + rest):
        disk.content(meta.path)[:] = good[:HEADER_BYTES] + body
        with pytest.raises(SnapshotCorrupt):
            list(storage.snapshots.read(meta))


def test_chunks_that_end_early_under_a_valid_footer(disk: SimulatedDisk, storage: Storage) -> None:
    """No flipped bytes: a writer that counted wrong."""
    meta = take_snapshot(storage, 7, 2, b"12345678")
    for footer in (
        Footer(7, 2, 2, 8, meta.size_bytes, 0),
        Footer(8, 2, 1, 8, meta.size_bytes, 0),
        Footer(7, 2, 1, 8, meta.size_bytes + 1, 0),
    ):
        disk.content(meta.path)[-FOOTER_BYTES:] = footer.encode()
        with pytest.raises(SnapshotCorrupt):
            list(storage.snapshots.read(meta))


def test_a_too_big_chunk_is_refused(storage: Storage) -> None:
    class HugeBytes(bytes):
        def __len__(self) -> int:
            return CHUNK_BYTES_MAX + 1

    with pytest.raises(ValueError, match="too big"):
        storage.snapshots.create(1, 1).append(HugeBytes())


def test_headers_and_footers_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster_hash = IDENTITY.cluster_hash
    for header, why in (
        (encode_header(b"?" * 16, 7, 2), "another cluster"),
        (encode_header(cluster_hash, 8, 2), "entry 8 of term 2"),
        (b"short", "damaged"),
    ):
        with pytest.raises(BadSnapshot, match=why):
            check_header(header, cluster_hash, 7, 2)
    monkeypatch.setattr("raftnode.snapshot_format.FORMAT_VERSION", 3)
    header = encode_header(cluster_hash, 7, 2)
    monkeypatch.setattr("raftnode.snapshot_format.MAGIC", b"NotOurs!")
    footer = Footer(7, 2, 1, 8, 100, 0).encode()
    monkeypatch.undo()
    with pytest.raises(BadSnapshot, match="unknown format"):
        check_header(header, cluster_hash, 7, 2)
    with pytest.raises(BadSnapshot, match="unknown format"):
        decode_footer(footer)


class TestReceiving:
    chunks = (b"first" * 100, b"second" * 100)

    def test_a_sent_snapshot_is_the_same_at_the_receiver(self, disk: SimulatedDisk, storage: Storage) -> None:
        sender, _ = open_storage(SimulatedDisk())
        sent = take_snapshot(sender, 7, 2, *self.chunks)
        receiver = storage.snapshots.receive(7, 2)
        while piece := sender.snapshots.read_raw(sent, receiver.size_bytes, 100):
            receiver.write(receiver.size_bytes, piece)
        assert names(disk) == ["snapshot-1.tmp"]
        meta = receiver.finish()
        assert meta == SnapshotMeta(7, 2, sent.size_bytes, sent.path)
        assert storage.snapshots.latest == meta
        assert tuple(storage.snapshots.read(meta)) == self.chunks
        receiver.abort()
        assert names(disk) == [meta.path.name]

    def test_pieces_may_be_repeated_but_leave_no_gap(self, storage: Storage) -> None:
        data = file_of(self.chunks)
        receiver = storage.snapshots.receive(7, 2)
        receiver.write(0, data[:300])
        receiver.write(100, data[100:200])
        assert receiver.size_bytes == 300
        with pytest.raises(ValueError, match="300 bytes have come"):
            receiver.write(301, data[301:])
        with pytest.raises(ValueError, match="have come"):
            receiver.write(-1, data)
        receiver.write(250, data[250:])
        assert tuple(storage.snapshots.read(receiver.finish())) == self.chunks

    def test_a_damaged_one_is_refused_and_removed(self, disk: SimulatedDisk, storage: Storage) -> None:
        good = file_of(self.chunks)
        for position in range(0, len(good), 7):
            receiver = storage.snapshots.receive(7, 2)
            damaged = bytearray(good)
            damaged[position] ^= 1
            receiver.write(0, bytes(damaged))
            with pytest.raises(SnapshotCorrupt):
                receiver.finish()
            assert names(disk) == []
        for data in (b"", good[:-1], good + b"x", file_of((b"a",), index=8), file_of((b"a",), cluster="other")):
            receiver = storage.snapshots.receive(7, 2)
            receiver.write(0, data)
            with pytest.raises(SnapshotCorrupt):
                receiver.finish()

    def test_two_at_a_time(self, storage: Storage) -> None:
        data = file_of(self.chunks)
        first, second = storage.snapshots.receive(7, 2), storage.snapshots.receive(7, 2)
        first.write(0, data)
        second.write(0, data[:-1])
        first.finish()
        second.abort()

    def test_a_piece_without_room_can_be_written_again(self, disk: SimulatedDisk, storage: Storage) -> None:
        data = file_of(self.chunks)
        receiver = storage.snapshots.receive(7, 2)
        receiver.write(0, data[:100])
        disk.space_bytes = disk.used_bytes() + 50
        with pytest.raises(DiskFull):
            receiver.write(100, data[100:])
        assert receiver.size_bytes == 100
        disk.space_bytes = None
        receiver.write(100, data[100:])
        receiver.finish()

    def test_a_failing_disk(self, disk: SimulatedDisk, storage: Storage) -> None:
        receiver = storage.snapshots.receive(7, 2)
        disk.fail(Call.WRITE, errno.EIO, "snapshot")
        with pytest.raises(DiskFailed):
            receiver.write(0, b"data")
        assert names(disk) == []

    def test_a_disk_that_fails_when_it_is_read_back(self, disk: SimulatedDisk, storage: Storage) -> None:
        receiver = storage.snapshots.receive(7, 2)
        receiver.write(0, file_of(self.chunks))
        disk.fail(Call.READ, errno.EIO, "snapshot")
        with pytest.raises(DiskFailed, match="reading"):
            receiver.finish()
        assert names(disk) == []


class TestFailures:
    @pytest.mark.parametrize("left_bytes", [0, 100, 1_500_000])
    def test_no_room_leaves_nothing_behind(self, disk: SimulatedDisk, storage: Storage, left_bytes: int) -> None:
        older = take_snapshot(storage, 3, 1)
        used_bytes = disk.used_bytes()
        disk.space_bytes = used_bytes + left_bytes
        writer = storage.snapshots.create(7, 2)
        with pytest.raises(DiskFull):
            append_all(writer, 5 * [bytes(700_000)])
        writer.abort()
        assert disk.used_bytes() == used_bytes
        disk.space_bytes = None
        assert storage.failure is None
        assert storage.snapshots.latest == older
        take_snapshot(storage, 7, 2)

    @pytest.mark.parametrize("call", [Call.OPEN, Call.WRITE, Call.FLUSH, Call.RENAME, Call.FLUSH_DIRECTORY])
    def test_any_other_failure_is_final(self, disk: SimulatedDisk, storage: Storage, call: Call) -> None:
        disk.fail(call, errno.EIO, "" if call is Call.FLUSH_DIRECTORY else "snapshot")
        with pytest.raises(DiskFailed):
            take_snapshot(storage, 7, 2)
        assert storage.failure is not None
        with pytest.raises(DiskFailed):
            storage.save(None, [run(1, 1, b"a")])

    def test_the_flush_at_the_end_fails(self, disk: SimulatedDisk, storage: Storage) -> None:
        for error, raised in ((errno.ENOSPC, DiskFull), (errno.EIO, DiskFailed)):
            disk.fail(Call.FLUSH, error, "snapshot", skip=1)
            with pytest.raises(raised):
                take_snapshot(storage, 7, 2)
            assert names(disk) == []

    def test_a_failed_removal_of_the_oldest(self, disk: SimulatedDisk, storage: Storage) -> None:
        take_snapshot(storage, 1, 1)
        take_snapshot(storage, 2, 1)
        disk.fail(Call.UNLINK, errno.EIO)
        with pytest.raises(DiskFailed, match="removing"):
            take_snapshot(storage, 3, 1)

    def test_read_errors(self, disk: SimulatedDisk, storage: Storage) -> None:
        meta = take_snapshot(storage, 1, 1)
        disk.fail(Call.READ, errno.EIO)
        with pytest.raises(DiskFailed, match="reading"):
            storage.snapshots.read_raw(meta, 0, 10)
        disk.fail(Call.OPEN, errno.EMFILE)
        with pytest.raises(DiskFailed, match="opening"):
            storage.snapshots.read_raw(meta, 0, 10)
