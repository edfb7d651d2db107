"""A store as a row of chunks, and a store from such chunks.

Theory of operation
    :mod:`fileserver.snapshot_chunks` says what a chunk looks like. The header comes first and once, then the uploads
    by session and number, then the files in order of name, then the end. Two equal stores give the same bytes. A chunk
    is at most :data:`CHUNK_BYTES_MAX` long and made in less than 1 ms, so whoever writes or sends them keeps the pace.
    Chunks have no checksums of their own: those are for who stores them.

    :class:`StoreRestore` builds a second state beside the store's and puts it in place at the end, when the header's
    sums agree with what was built; until then, and after an error, the store is what it was.

Invariants
    Ropes come back piece by piece as they were, so the restored store goes on exactly as the one that was saved.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import attrs
import cbor2
from crc32c import crc32c

from fileserver.file_table import FileTable
from fileserver.listing import StoreView
from fileserver.records import PART_BYTES, Content, content_of, fingerprint
from fileserver.snapshot_chunks import (
    END,
    FILE_OVERHEAD_BYTES,
    FILES,
    FORMAT,
    HEADER,
    PIECES,
    STAGED,
    UPLOAD,
    BadSnapshot,
    FileColumns,
    decode_chunk,
    decode_files,
    decode_files_of_format_1,
    digest_of_format_1,
    encode_files,
    require_numbers,
)
from fileserver.uploads import StagedUpload, Uploads

FILES_PER_CHUNK: Final = 512
CHUNK_BYTES_MAX: Final = 2 * PART_BYTES + 2048
"""No chunk is longer. (A chunk of files is ended by the content that takes it past `PART_BYTES`.)"""
_FORMATS: Final = (1, FORMAT)


@attrs.frozen
class StoreState:
    """The numbers of a store: what it goes on from, and sums to check the rest by."""

    version: int
    clock_us: int
    files: int
    content_bytes: int
    digest: int
    uploads: int


@attrs.define(eq=False)
class StoreSnapshot:
    """The chunks of a store as it was when `Store.snapshot` was called, made one by one as they are asked for."""

    _state: StoreState
    _uploads: tuple[StagedUpload, ...] = attrs.field(repr=False)
    _view: StoreView
    _chunks: Iterator[bytes] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin before the first chunk."""
        self._chunks = self._all_chunks()

    def __iter__(self) -> Iterator[bytes]:
        """The snapshot itself."""
        return self

    def __next__(self) -> bytes:
        """The next chunk, of at most `CHUNK_BYTES_MAX`."""
        return next(self._chunks)

    def close(self) -> None:
        """The rest isn't wanted: the store keeps nothing for it from here on. May be called more than once."""
        self._chunks = iter(())
        self._view.close()

    def _all_chunks(self) -> Iterator[bytes]:
        """Header, uploads, files, end."""
        state = self._state
        digest = b"%x" % state.digest
        yield cbor2.dumps(
            (HEADER, FORMAT, state.version, state.clock_us, state.files, state.content_bytes, digest, state.uploads)
        )
        for staged in self._uploads:
            yield from _piece_chunks(staged.pieces)
            yield cbor2.dumps((UPLOAD, staged.session, staged.upload, staged.size))
        yield from self._file_chunks()
        yield cbor2.dumps((END,))

    def _file_chunks(self) -> Iterator[bytes]:
        """The files: short contents many to a chunk, the pieces of ropes in chunks of their own ahead of the file's."""
        while True:
            names, records = self._view.next_raw_slice(FILES_PER_CHUNK)
            if not names:
                return
            versions, deadlines, sizes, contents, _ = zip(*records, strict=True)
            start = 0
            for end in _chunk_ends(names, sizes, contents):
                of_chunk = contents[start:end]
                if type(of_chunk[0]) is tuple:
                    yield from _piece_chunks(of_chunk[0])
                    of_chunk = STAGED, *of_chunk[1:]
                yield encode_files(names[start:end], versions[start:end], deadlines[start:end], of_chunk)
                start = end


def _chunk_ends(names: Sequence[bytes], sizes: Sequence[int], contents: Sequence[Content]) -> list[int]:
    """Where the chunks end that these files are put in, in order. A rope can only be the first of its chunk."""
    count = len(names)
    total_bytes = sum(sizes) + sum(map(len, names)) + count * FILE_OVERHEAD_BYTES
    if total_bytes <= 2 * PART_BYTES and tuple not in map(type, contents[1:]):
        return [count]
    ends = []
    chunk_bytes = 0
    for place, (name, size, content) in enumerate(zip(names, sizes, contents, strict=True)):
        is_rope = type(content) is tuple
        if chunk_bytes and (is_rope or chunk_bytes >= PART_BYTES):
            ends.append(place)
            chunk_bytes = 0
        chunk_bytes += len(name) + FILE_OVERHEAD_BYTES + (0 if is_rope else size)
    return [*ends, count]


def _piece_chunks(pieces: tuple[bytes, ...]) -> Iterator[bytes]:
    """A content's pieces, two to a chunk."""
    for start in range(0, len(pieces), 2):
        yield cbor2.dumps((PIECES, *pieces[start : start + 2]))


@attrs.define(eq=False)
class StoreRestore:
    """A store in the making. Feed it a snapshot's chunks in order, then call :meth:`finish`."""

    _replace: Callable[[StoreState, FileTable, Uploads], None]
    _table: FileTable = attrs.field(factory=FileTable, init=False)
    _uploads: Uploads = attrs.field(factory=Uploads, init=False)
    _state: StoreState | None = attrs.field(default=None, init=False)
    _digest_of_format_1: int = attrs.field(default=0, init=False)
    _pieces: list[bytes] = attrs.field(factory=list, init=False, repr=False)
    """The pieces whose file or upload hasn't come yet."""
    _pieces_crc: int = attrs.field(default=0, init=False)
    _last_name: bytes | None = attrs.field(default=None, init=False)
    _uploads_left: int = attrs.field(default=0, init=False)
    _format: int = attrs.field(default=FORMAT, init=False)
    _ended: bool = attrs.field(default=False, init=False)

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk.

        Raises:
            BadSnapshot: it isn't one, or not one that can come here. The restore is of no more use.
        """
        kind, fields = decode_chunk(chunk)
        if self._ended or (self._state is None) != (kind == HEADER):
            raise BadSnapshot("chunks out of order")
        take = _TAKE_CHUNK.get(kind)
        if take is None:
            raise BadSnapshot(f"unknown kind of chunk: {kind}")
        try:
            take(self, fields)
        except BadSnapshot:
            raise
        except (TypeError, ValueError, OverflowError) as error:
            raise BadSnapshot(f"a chunk of kind {kind} is damaged: {error}") from error

    def finish(self) -> None:
        """All chunks are there: check the whole and put it in the store's place, in one step.

        Raises:
            BadSnapshot: the snapshot isn't whole, or not what its header says.
        """
        state = self._state
        if state is None or not self._ended:
            raise BadSnapshot("cut off before its end")
        table = self._table
        digest = self._digest_of_format_1 if self._format == 1 else table.digest
        sums = (len(table.records), table.content_bytes, digest, self._uploads_left, len(self._pieces))
        if sums != (state.files, state.content_bytes, state.digest, 0, 0):
            raise BadSnapshot("the sums in its header are others than those of its files")
        table.loaded()
        self._replace(state, table, self._uploads)

    def _take_header(self, fields: list[Any]) -> None:
        """The numbers, after which all else is checked."""
        format_version, version, clock_us, files, content_bytes, digest, uploads = fields
        if format_version not in _FORMATS:
            raise BadSnapshot(f"its format is {format_version}, and this program reads {_FORMATS}")
        require_numbers(version, clock_us, files, content_bytes, uploads)
        self._format = format_version
        self._state = StoreState(version, clock_us, files, content_bytes, int(digest, 16), uploads)
        self._uploads_left = uploads

    def _take_pieces(self, fields: list[Any]) -> None:
        """Pieces for what comes next."""
        for piece in fields:
            if type(piece) is not bytes or not 0 < len(piece) <= PART_BYTES:
                raise BadSnapshot("a piece is none")
            self._pieces_crc = crc32c(piece, self._pieces_crc)
        self._pieces += fields

    def _take_upload(self, fields: list[Any]) -> None:
        """An upload, whose pieces have come."""
        if self._format == 1:
            *fields, crc_of_format_1 = fields
            array("I", (crc_of_format_1,))
        session, upload, size = fields
        if set(map(type, fields)) != {int} or sum(map(len, self._pieces)) != size or self._table.records:
            raise BadSnapshot("an upload isn't whole, or out of order")
        pieces, crc = self._take_staged()
        self._uploads.restore(StagedUpload(session, upload, size, crc, tuple(pieces)))
        self._uploads_left -= 1

    def _take_files(self, fields: list[Any]) -> None:
        """Files in order of name; the first of them may be the one whose pieces have come."""
        if self._format == 1:
            columns, crcs_of_format_1 = decode_files_of_format_1(fields)
            self._digest_of_format_1 += digest_of_format_1(columns, crcs_of_format_1)
        else:
            columns = decode_files(fields)
        self._load(columns)

    def _load(self, columns: FileColumns) -> None:
        """Add the files to the table."""
        names, versions, deadlines, contents = columns
        if self._last_name is not None and names[0] <= self._last_name:
            raise BadSnapshot("names out of order")
        self._last_name = names[-1]
        if contents[0] == STAGED:
            pieces, first_crc = self._take_staged()
            if len(pieces) < 2:
                raise BadSnapshot("a file's pieces are missing")
            contents[0], first_size = content_of(pieces), sum(map(len, pieces))
        else:
            first_size, first_crc = len(contents[0]), crc32c(contents[0])
        if self._pieces:
            raise BadSnapshot("pieces that no file takes")
        others = contents[1:]
        sizes, crcs = [first_size, *map(len, others)], [first_crc, *map(crc32c, others)]
        fingerprints = map(fingerprint, names, versions, deadlines, crcs)
        # Plain tuples by zip, which makes no other object per file.
        self._table.load(names, list(zip(versions, deadlines, sizes, contents, fingerprints, strict=True)))

    def _take_staged(self) -> tuple[list[bytes], int]:
        """The pieces that have come, and the checksum over all of them."""
        pieces, crc = self._pieces, self._pieces_crc
        self._pieces, self._pieces_crc = [], 0
        return pieces, crc

    def _take_end(self, fields: list[Any]) -> None:
        """Nothing more is to come."""
        if fields:
            raise BadSnapshot("there is something in the end")
        self._ended = True


_TAKE_CHUNK: Final[dict[int, Callable[[StoreRestore, list[Any]], None]]] = {
    HEADER: StoreRestore._take_header,
    PIECES: StoreRestore._take_pieces,
    UPLOAD: StoreRestore._take_upload,
    FILES: StoreRestore._take_files,
    END: StoreRestore._take_end,
}
"""What takes each kind of chunk."""
