"""Snapshots that earlier versions made: read as they were, and as strictly."""

from __future__ import annotations

from collections.abc import Iterator
from zlib import crc32

import cbor2
import pytest

from fileserver.records import PART_BYTES, pieces_of
from fileserver.snapshot_chunks import END, FILES, HEADER, PIECES, STAGED, UPLOAD, BadSnapshot
from fileserver.store import Store
from tests.stage1_fileserver.store_commands import (
    STORE_CHUNKS_OF_FORMAT_1,
    append,
    content_of_file,
    delete,
    part,
    restored,
    run,
    touch,
    write,
)


def chunks_of_format_1(store: Store) -> Iterator[bytes]:
    """An earlier version's snapshot of such a store: a file to a chunk, with its pieces ahead if it has some."""
    files = store.view().next_slice(1000)
    staged = list(store._uploads.staged())
    crcs = [crc32(b"".join(pieces_of(record.content))) for _, record in files]
    digest = sum(
        (crc32(name, crc) + (record.deadline_us << 32)) * record.version
        for (name, record), crc in zip(files, crcs, strict=True)
    )
    yield cbor2.dumps((HEADER, 1, store.version, store.clock_us, store.files, store.bytes, b"%x" % digest, len(staged)))
    for upload in staged:
        yield cbor2.dumps((PIECES, *upload.pieces))
        yield cbor2.dumps((UPLOAD, upload.session, upload.upload, upload.size, crc32(b"".join(upload.pieces))))
    for (name, record), crc in zip(files, crcs, strict=True):
        content = record.content
        if isinstance(content, tuple):
            yield from (cbor2.dumps((PIECES, piece)) for piece in content)
        in_place = content if isinstance(content, bytes) else STAGED
        yield cbor2.dumps((FILES, name, record.version, record.deadline_us, crc, in_place))
    yield cbor2.dumps((END,))


def test_one_that_an_earlier_version_made() -> None:
    store = restored(STORE_CHUNKS_OF_FORMAT_1)
    assert (store.version, store.clock_us, store.files, store.bytes) == (4, 1_000_000, 2, 3)
    assert [(name, record.version, record.deadline_us) for name, record in store.view().next_slice(9)] == [
        (b"b", 2, 101_000_000),
        (b"c", 4, 0),
    ]
    run(store, write(b"d", 7), clock_us=1_000_000)
    assert content_of_file(store, b"d") == b"staged"


def test_the_store_is_the_one_that_it_was_made_of() -> None:
    store = Store()
    run(store, *(write(b"file-%d" % number, b"%d" % number, exptime=number % 3) for number in range(30)))
    run(store, part(1, b"1" * PART_BYTES), part(1, b"2" * PART_BYTES), part(1, b"3"), write(b"rope", 1))
    run(store, part(2, b"staged"), part(3, b"also"), delete(b"file-7"), touch(b"file-8", 77))
    copy = restored(chunks_of_format_1(store))
    assert copy.state_hash() == store.state_hash()
    for each in (store, copy):
        run(each, append(b"rope", 2), append(b"file-9", 3))
    assert copy.state_hash() == store.state_hash()


@pytest.mark.parametrize(
    "chunk",
    [
        pytest.param(cbor2.dumps([UPLOAD, 1, 1, 0]), id="an upload with a field too few"),
        pytest.param(cbor2.dumps([UPLOAD]), id="an upload without fields"),
        pytest.param(cbor2.dumps([UPLOAD, 1, 1, 0, 1 << 32]), id="an upload with a CRC of 33 bits"),
        pytest.param(cbor2.dumps([FILES, b"x", 1, 0, 0]), id="a file with a field too few"),
        pytest.param(cbor2.dumps([FILES, b"x", -1, 0, 0, b""]), id="a version below 0"),
        pytest.param(cbor2.dumps([FILES, b"x", True, 0, 0, b""]), id="a version that is none"),
        pytest.param(cbor2.dumps([FILES, b"x", 1, 0, 1 << 32, b""]), id="a checksum of 33 bits"),
        pytest.param(cbor2.dumps([FILES, b"y", 1, 0, 0, b"", b"x", 2, 0, 0, b""]), id="names out of order"),
    ],
)
def test_what_is_no_chunk_of_it_is_refused(chunk: bytes) -> None:
    restore = Store().begin_restore()
    restore.feed(STORE_CHUNKS_OF_FORMAT_1[0])
    with pytest.raises(BadSnapshot):
        restore.feed(chunk)


@pytest.mark.parametrize("place", [0, 3])
def test_sums_that_do_not_agree_are_found(place: int) -> None:
    """In the header, and in a file's checksum."""
    chunks = list(STORE_CHUNKS_OF_FORMAT_1)
    chunks[place] = chunks[place].replace(b"c0a4681c5e53ff8", b"c0a4681c5e53ff9").replace(b"\x11\xca", b"\x11\xcb")
    with pytest.raises(BadSnapshot):
        restored(chunks)
