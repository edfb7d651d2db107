"""Fuzz targets for what is on disk: a directory's log, a snapshot's file, and the hard state."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from random import Random
from struct import Struct
from typing import Final
from zlib import crc32

from fileserver import columns, snapshot_chunks
from fileserver import snapshot as store_snapshot
from fileserver.commands import PART, WRITE, encode_batch
from fileserver.machine import StoreMachine
from fileserver.store import Store
from raftnode import log_frames, recovery, replica, segmented_log, segments, snapshot_format, snapshots, storage
from raftnode.checksums import CHECKSUM, Checksum
from raftnode.disk_health import DiskHealth
from raftnode.entries import encode_batch as encode_batch_entry
from raftnode.entries import encode_open_session
from raftnode.filesystem import OpenMode, write_all
from raftnode.log_frames import (
    CHECKED_FROM,
    FRAME_HEAD,
    FRAME_HEAD_BYTES,
    FRAME_MAGIC,
    HEADER_BYTES,
    BadFrame,
    BadHeader,
    OtherVersion,
    SegmentHeader,
    decode_body,
    decode_header,
    encode_body,
    is_whole,
    seal,
)
from raftnode.recovery import FoundSnapshots
from raftnode.replica import Replica
from raftnode.simulated_disk import SimulatedDisk
from raftnode.snapshot_format import CHUNK_HEAD, FOOTER_BYTES, FOOTER_MARK, Footer
from raftnode.snapshots import SnapshotStore
from raftnode.storage import LogCorrupt, Recovered, SnapshotCorrupt, Storage, StorageIdentity, WrongDirectory
from statemachine.events import EntriesRun, HardState
from tests.fuzzing.cbor_changes import with_one_change
from tests.fuzzing.containers import join_files, split_files
from tests.fuzzing.findings import place_of
from tests.fuzzing.peer_targets import CBOR_TOKENS
from tests.fuzzing.target import Target, with_constants
from tests.stage1_fileserver.store_commands import STORE_CHUNKS_OF_FORMAT_1

IDENTITY: Final = StorageIdentity(cluster="demo", server_id=3)
DIRECTORY: Final = Path("/data")
_U32: Final = Struct("<I")
_CLOCK_HEAD: Final = Struct("<Q")

# ------------------------------------------------------------------------------------------------ log


def disk_with(files: Mapping[str, bytes]) -> SimulatedDisk:
    """A disk with these files in the directory."""
    disk = SimulatedDisk()
    disk.make_directory(DIRECTORY)
    for name, content in files.items():
        handle = disk.open(DIRECTORY / name, OpenMode.CREATE)
        write_all(disk, handle, [content], 0, flush=True)
        disk.close(handle)
    disk.flush_directory(DIRECTORY)
    return disk


def files_of(disk: SimulatedDisk) -> dict[str, bytes]:
    """What is in the directory, but for the lock."""
    names = disk.list_directory(DIRECTORY)
    return {name: bytes(disk.content(DIRECTORY / name)) for name in names if name != "lock"}


def run_log(data: bytes) -> Hashable:
    """A directory of files: opened, written to, opened again; a directory that is refused stays as it was."""
    files = {name: content for name, content in split_files(data).items() if name not in ("", ".", "..", "lock")}
    disk = disk_with(files)
    try:
        opened, recovered = Storage.open(DIRECTORY, IDENTITY, disk)
    except (LogCorrupt, SnapshotCorrupt, WrongDirectory):
        assert files_of(disk) == files
        raise
    entries = _entries_of(recovered)
    more = EntriesRun(recovered.last_index + 1, 9, (b"more",))
    opened.save(HardState(9, 2), (more,))
    entries.append((more.first_index, 9, b"more"))
    _check_read_back(opened, entries)
    opened.close()
    reopened, again = Storage.open(DIRECTORY, IDENTITY, disk)
    _check_read_back(reopened, entries)
    reopened.close()
    assert again.torn is None
    assert again.hard_state == HardState(9, 2)
    assert again.snapshot == recovered.snapshot
    assert _entries_of(again) == entries
    return len(entries) - 1, recovered.torn is None, recovered.snapshot is None, len(recovered.damaged_snapshots)


def _check_read_back(storage: Storage, entries: list[tuple[int, int, bytes]]) -> None:
    """Each piece of the log that storage reads back is what recovery found, or what was saved since."""
    place, last_index = 0, entries[-1][0]
    while place < len(entries):
        read = storage.read_entries(entries[place][0], last_index)
        assert list(read) == [entry for _, _, entry in entries[place : place + len(read)]]
        place += len(read)


def _entries_of(recovered: Recovered) -> list[tuple[int, int, bytes]]:
    """(index, term, entry) of each, which follow each other without a gap."""
    found = [
        (run.first_index + position, run.term, entry)
        for run in recovered.runs
        for position, entry in enumerate(run.entries)
    ]
    assert [index for index, _, _ in found] == list(range(recovered.first_index, recovered.first_index + len(found)))
    assert recovered.first_index == (1 if recovered.snapshot is None else recovered.snapshot.index + 1)
    return found


def log_examples() -> list[bytes]:
    """Directories at some moments of a server's life, as its own code leaves them."""
    disk = SimulatedDisk()
    found = []

    def note() -> None:
        found.append(join_files({name: _without_blank(content) for name, content in files_of(disk).items()}))

    opened, _ = Storage.open(DIRECTORY, IDENTITY, disk)
    note()
    opened.save(HardState(1, 3), (EntriesRun(1, 1, (b"", b"one")),))
    note()
    for index in range(3, 24):
        opened.save(None, (EntriesRun(index, 1 + index // 8, (b"entry %d" % index,)),))
        if opened.needs_next:
            opened.prepare_next()
    opened.save(HardState(5, None), (EntriesRun(20, 5, (b"instead", b"of others")),))
    note()
    writer = opened.snapshots.create(10, 2)
    writer.append(b"state")
    writer.commit()
    note()
    opened.compact(11)
    opened.save_clock(123_456_789)
    note()
    receiver = opened.snapshots.receive(40, 5)
    receiver.write(0, _snapshot_file(40, 5, (b"state", b"of another")))
    receiver.finish()
    note()
    opened.reset_to(40, 5)
    opened.save(None, (EntriesRun(41, 5, (b"behind",)), EntriesRun(42, 6, (b"and", b"more"))))
    opened.close()
    note()
    torn = dict(split_files(found[1]))
    torn = {name: content[:-5] for name, content in torn.items()}
    return [b"", *found, join_files(torn)]


def _without_blank(content: bytes) -> bytes:
    """A file without the zeros that are laid out ahead; a frame ends on a multiple of 8 bytes."""
    size_bytes = len(content.rstrip(b"\0"))
    return content[: size_bytes + -size_bytes % 8]


def repair_log(data: bytes, random: Random) -> bytes:
    """Right checksums in all files; with luck also the chain of frames, so that changed contents are believed."""
    files = split_files(data)
    chain = sequence = previous_end = None
    joins = random.random() < 0.8
    for name in sorted(files):
        content = bytearray(files[name])
        if name.endswith(".seg") and len(content) >= HEADER_BYTES:
            chain, sequence, previous_end = _repair_segment(content, chain, sequence, previous_end, joins=joins)
        elif name.endswith(".snap"):
            content = bytearray(repair_snapshot_file(bytes(content), random))
        elif name == "clock" and len(content) >= _CLOCK_HEAD.size + _U32.size:
            content[8:12] = _U32.pack(crc32(content[:8]))
        files[name] = bytes(content)
    return join_files({name: content[:65_000] for name, content in files.items()})


_CHAIN_AT: Final = Struct("<IQ")
_CHAIN_OFFSET: Final = 52
_PREVIOUS_END_OFFSET: Final = 88


def _repair_segment(
    content: bytearray, chain: int | None, sequence: int | None, previous_end: int | None, *, joins: bool
) -> tuple[int, int, int]:
    """Makes header and frames right, in place; returns what the next segment's header is to say."""
    content[HEADER_BYTES - 4 : HEADER_BYTES] = _U32.pack(crc32(content[: HEADER_BYTES - 4]))
    try:
        header = decode_header(bytes(content[:HEADER_BYTES]))
    except (BadHeader, OtherVersion):
        return 0, 1, 0
    if chain is not None and sequence is not None and previous_end is not None and joins:
        content[:HEADER_BYTES] = SegmentHeader(
            *(header.cluster_hash, header.server_id, header.number, header.salt, chain, sequence),
            *(header.first_index, header.hard_state, previous_end),
        ).encode()
    else:
        chain, sequence = header.chain, header.sequence
    offset = HEADER_BYTES
    while offset + FRAME_HEAD_BYTES <= len(content):
        end = repair_frame(content, offset, header.salt, chain if joins else None, sequence, header.checksum)
        if end is None:
            break
        chain = FRAME_HEAD.unpack_from(content, offset)[1]
        sequence = (sequence + 1) % (1 << 64)
        offset = end
    return chain, sequence, offset


def repair_frame(
    content: bytearray,
    offset: int,
    salt: int,
    previous: int | None,
    sequence: int,
    checksum: Checksum = CHECKSUM,
) -> int | None:
    """Makes the frame that begins there right, in place; returns where it ends, None if none begins."""
    magic, _, _, old_previous, body_bytes, flags, run_count, old_sequence = FRAME_HEAD.unpack_from(content, offset)
    end: int = offset + FRAME_HEAD_BYTES + body_bytes
    if magic != FRAME_MAGIC or end > len(content):
        return None
    if previous is None:
        previous, sequence = old_previous, old_sequence
    FRAME_HEAD.pack_into(content, offset, magic, 0, 0, previous, body_bytes, flags, run_count, sequence)
    content[offset + 8 : offset + 12] = _U32.pack(checksum(content[offset + 12 : offset + FRAME_HEAD_BYTES], salt))
    content[offset + 4 : offset + 8] = _U32.pack(checksum(content[offset + CHECKED_FROM : end], salt))
    return end


LOG = Target(
    "log",
    (recovery, log_frames, storage, snapshots, snapshot_format, segments, segmented_log),
    run_log,
    (LogCorrupt, SnapshotCorrupt, WrongDirectory),
    log_examples,
    tokens=(
        *(_U32.pack(FRAME_MAGIC), b"log-0000000000000001.seg", b"log-0000000000000002.seg", b"clock", b"log-next.tmp"),
        *(b"snapshot-0000000000000010-0000000000000002.snap", b"snapshot-0000000000000009-0000000000000002.snap"),
    ),
    repair=repair_log,
    environment=with_constants(
        *((segments, "SIZE_BYTES_MIN", 512), (segmented_log, "SIZE_BYTES_MIN", 512)),
        *((segments, "SIZE_BYTES_MAX", 512), (segments, "_FILL_BYTES", 512)),
    ),
    size_bytes_max=6000,
)

# ------------------------------------------------------------------------------------------ hard state


def run_hard_state(data: bytes) -> Hashable:
    """First byte odd: a frame, with a salt of 0; else a segment's header. Then its bytes."""
    content = data[1:]
    if not data[:1] or data[0] % 2 == 0:
        header = decode_header(content)
        assert decode_header(header.encode()) == header
        return header.belongs_to(IDENTITY), header.hard_state.voted_for is None
    if not is_whole(content, 0, 0):
        return "not whole"
    hard_state, reset, runs = decode_body(content, 0)
    if not all(run.entries for run in runs):
        return "a run without entries"
    _, buffers = seal(encode_body(hard_state, runs, reset), 0, 0, 1)
    assert decode_body(b"".join(buffers), 0) == (hard_state, reset, runs)
    return hard_state is None, reset is None, len(runs)


def hard_state_examples() -> list[bytes]:
    header = SegmentHeader(IDENTITY.cluster_hash, 3, 7, 123, 456, 9, 100, HardState(5, 2), 4096)
    nobody = SegmentHeader(IDENTITY.cluster_hash, 3, 1, 0, 0, 1, 1, HardState(0, None), 0)
    runs = [EntriesRun(1, 4, (b"one", b"two")), EntriesRun(3, 5, (b"three",))]
    bodies = (
        encode_body(HardState(5, 2), ()),
        encode_body(HardState(5, None), runs),
        encode_body(None, runs[1:]),
        encode_body(HardState(6, 1), runs, (40, 5)),
    )
    frames = [b"".join(seal(body, 0, 99, 12)[1]) for body in bodies]
    return [b"\0" + header.encode(), b"\0" + nobody.encode(), *(b"\1" + frame for frame in frames)]


def repair_hard_state(data: bytes, _: Random) -> bytes:
    """Right checksums."""
    content = bytearray(data[1:])
    if not data[:1] or data[0] % 2 == 0:
        if len(content) >= HEADER_BYTES:
            content[HEADER_BYTES - 4 : HEADER_BYTES] = _U32.pack(crc32(content[: HEADER_BYTES - 4]))
    elif len(content) >= FRAME_HEAD_BYTES:
        repair_frame(content, 0, 0, None, 0)
    return data[:1] + bytes(content)


HARD_STATE = Target(
    "hard-state",
    (log_frames,),
    run_hard_state,
    (BadHeader, OtherVersion, BadFrame),
    hard_state_examples,
    tokens=(_U32.pack(FRAME_MAGIC), log_frames.HEADER_MAGIC),
    repair=repair_hard_state,
    size_bytes_max=1000,
)

# -------------------------------------------------------------------------------------------- snapshot

_COUNTED_MAX: Final = 1 << 62
"""No server gets to an index or a version that high, so one that does need not go on: numbers have 63 bits."""
_INDEX: Final = 10
_TERM: Final = 2


def _snapshot_file(index: int, term: int, chunks: tuple[bytes, ...]) -> bytes:
    """A file as `SnapshotWriter` makes it."""
    disk = SimulatedDisk()
    disk.make_directory(DIRECTORY)
    writer = SnapshotStore(disk, DIRECTORY, IDENTITY, DiskHealth(), FoundSnapshots((), ())).create(index, term)
    for chunk in chunks:
        writer.append(chunk)
    return bytes(disk.content(writer.commit().path))


def run_snapshot(data: bytes) -> Hashable:
    """A snapshot's file: received, read, restored, used. A replica that can't be restored stays as it was."""
    disk = SimulatedDisk()
    disk.make_directory(DIRECTORY)
    kept = SnapshotStore(disk, DIRECTORY, IDENTITY, DiskHealth(), FoundSnapshots((), ()))
    receiver = kept.receive(_INDEX, _TERM)
    receiver.write(0, data)
    try:
        meta = receiver.finish()
    except SnapshotCorrupt:
        assert files_of(disk) == {}
        raise
    chunks = list(kept.read(meta))
    store = Store()
    target = Replica(StoreMachine(store))
    target.apply(1, encode_open_session(5, 1, 1))
    before = store.state_hash()
    try:
        restore = target.begin_restore()
        for chunk in chunks:
            restore.feed(chunk)
        restore.finish()
    except ValueError as error:
        assert (store.state_hash(), target.applied_index, len(target.sessions)) == (before, 1, 1)
        return "refused", place_of(error)
    _use(target, store)
    return len(chunks), min(store.files, 5), len(target.sessions)


def _use(target: Replica, store: Store) -> None:
    """What was restored works: it takes batches, makes an equal snapshot, shows its files, lets them expire."""
    if max(target.applied_index, store.version) >= _COUNTED_MAX:
        return
    batch = encode_batch((WRITE, b"new", 0, 0, b"x", PART, b"", 7, 0, b"more"))
    target.apply(target.applied_index + 1, encode_open_session(target.clock_us, 99, 1))
    session = target.session_of(99)
    assert session is not None
    target.apply(target.applied_index + 1, encode_batch_entry(target.clock_us, session.session, 1, 0, batch))
    assert store.lookup(b"new") is not None
    for each in list(target.sessions):
        store.apply(0, each, encode_batch((PART, b"", 7, 0, b"more")))
    other_store = Store()
    other = Replica(StoreMachine(other_store))
    restore = other.begin_restore()
    for chunk in target.snapshot():
        restore.feed(chunk)
    restore.finish()
    assert other_store.state_hash() == store.state_hash()
    view = store.view()
    while view.next_raw_slice(100)[0]:
        pass
    store.advance(2**63)


def _state_chunks(payloads: tuple[bytes, ...]) -> tuple[bytes, ...]:
    store = Store()
    state = Replica(StoreMachine(store))
    state.apply(1, encode_open_session(1_000_000, 1, 5))
    for sequence, payload in enumerate(payloads, start=1):
        state.apply(sequence + 1, encode_batch_entry(2_000_000, 1, sequence, 0, payload))
    return tuple(state.snapshot())


def snapshot_examples() -> list[bytes]:
    files = encode_batch((WRITE, b"a", 0, 0, b"one", WRITE, b"b", 0, 100, b"two", WRITE, b"c", 0, 0, b""))
    staged = encode_batch((PART, b"", 7, 0, b"x" * 40, PART, b"", 8, 0, b"y" * 70))
    big = encode_batch((PART, b"", 1, 0, b"z" * 100, WRITE, b"big", 0, 5, 1))
    states = ((), (files,), (files, staged), (big, files, staged))
    chunks = [_state_chunks(state) for state in states]
    chunks.append((*chunks[0][:-2], *STORE_CHUNKS_OF_FORMAT_1))  # In place of an empty store's header and end.
    return [_snapshot_file(_INDEX, _TERM, each) for each in chunks]


def _chunks_of(data: bytes) -> list[bytes]:
    """The chunks that a damaged file may have."""
    chunks = []
    offset = snapshot_format.HEADER_BYTES
    while offset + CHUNK_HEAD.size <= len(data):
        size_bytes, _ = CHUNK_HEAD.unpack_from(data, offset)
        begin = offset + CHUNK_HEAD.size
        if size_bytes == FOOTER_MARK:
            break
        chunks.append(data[begin : min(begin + size_bytes, max(len(data) - FOOTER_BYTES, begin))])
        offset = begin + size_bytes
    return chunks


def repair_snapshot_file(data: bytes, random: Random) -> bytes:
    """A whole file of the chunks that are there, with right checksums; often one of the chunks is changed."""
    if len(data) < snapshot_format.HEADER_BYTES:
        return data
    _, _, index, term = Struct("<8sI4x16sQQ4x").unpack_from(data)[1:5]
    chunks = _chunks_of(data)
    if chunks and random.random() < 0.5:
        position = int(random.random() * len(chunks))
        chunks[position] = with_one_change(chunks[position], random)
    parts = [snapshot_format.encode_header(IDENTITY.cluster_hash, index, term)]
    check = 0
    for chunk in chunks:
        check = CHECKSUM(chunk, check)
        parts += CHUNK_HEAD.pack(len(chunk), check), chunk
    sizes = sum(map(len, chunks))
    whole_bytes = sum(map(len, parts)) + FOOTER_BYTES
    parts.append(Footer(index, term, len(chunks), sizes, whole_bytes, check).encode())
    return b"".join(parts)


def repair_snapshot(data: bytes, random: Random) -> bytes:
    """Right lengths and checksums, and the index and term that are asked for."""
    if len(data) < snapshot_format.HEADER_BYTES:
        return data
    header = snapshot_format.encode_header(IDENTITY.cluster_hash, _INDEX, _TERM)
    return repair_snapshot_file(header + data[len(header) :], random)


SNAPSHOT = Target(
    "snapshot",
    (snapshots, snapshot_format, store_snapshot, snapshot_chunks, columns, replica),
    run_snapshot,
    (SnapshotCorrupt,),
    snapshot_examples,
    tokens=CBOR_TOKENS,
    repair=repair_snapshot,
    environment=with_constants((store_snapshot, "PART_BYTES", 64)),
)
