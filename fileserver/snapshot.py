"""A store as a row of chunks, and a store from such chunks.

Theory of operation
    Each chunk is one flat CBOR array, whose first element says what it is:

    ==========  ======================================================================================================
    ``HEADER``  format, version, clock, number of files, sum of contents, digest (hexadecimal), number of uploads
    ``PIECES``  pieces of a content, for the file or upload that comes next
    ``UPLOAD``  session, upload number, size, CRC of an upload; its content is all pieces since the last one
    ``FILES``   five fields a file: name, version, deadline, CRC, content. That is bytes, or for the first file of a
                chunk it may be `STAGED`: a rope, of all pieces that have come before the chunk
    ``END``     nothing more: a snapshot without it was cut off
    ==========  ======================================================================================================

    The header comes first and once, then the uploads by session and number, then the files in order of name, then the
    end. Two equal stores give the same bytes. A chunk is at most :data:`CHUNK_BYTES_MAX` long and made in about 1 ms,
    so whoever writes or sends them keeps the pace. Chunks are not checksummed here: that is for those who store them.

    :class:`StoreRestore` builds a second state beside the store's and puts it in place at the end, when the header's
    sums agree with what was built; until then, and after an error, the store is what it was.

Invariants
    Ropes come back piece by piece as they were, so the restored store goes on exactly as the one that was saved.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Final

import attrs
import cbor2

from fileserver.file_table import FileTable
from fileserver.listing import StoreView
from fileserver.records import PART_BYTES, Content, RawRecord, content_of
from fileserver.uploads import StagedUpload, Uploads

FORMAT: Final = 1
HEADER: Final = 1
PIECES: Final = 2
UPLOAD: Final = 3
FILES: Final = 4
END: Final = 5
STAGED: Final = -1
"""In place of a content: the pieces before this chunk are it."""

FILES_PER_CHUNK: Final = 512
FILES_PER_SLICE: Final = 128
CHUNK_BYTES_MAX: Final = 2 * PART_BYTES + 2048
"""No chunk is longer. (A chunk of files is ended by the content that takes it past `PART_BYTES`.)"""
_FIELDS_PER_FILE: Final = 5
_FILE_OVERHEAD_BYTES: Final = 40
"""What a file's five fields take beside its name and content, at most."""


class BadSnapshot(ValueError):
    """The chunks are not those of one whole snapshot. The store that was to be restored is unchanged."""


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
            yield cbor2.dumps((UPLOAD, staged.session, staged.upload, staged.size, staged.crc))
        yield from self._file_chunks()
        yield cbor2.dumps((END,))

    def _file_chunks(self) -> Iterator[bytes]:
        """The files: short contents many to a chunk, ropes in chunks of their own ahead of the file's."""
        fields: list[int | bytes] = [FILES]
        size_bytes = 0
        for name, (version, deadline_us, _, content, crc) in self._files():
            if isinstance(content, bytes):
                short = content
                fields += (name, version, deadline_us, crc, short)
                size_bytes += _FILE_OVERHEAD_BYTES + len(name) + len(short)
            else:
                if len(fields) > 1:
                    yield cbor2.dumps(fields)
                yield from _piece_chunks(content)
                fields = [FILES, name, version, deadline_us, crc, STAGED]
                size_bytes = _FILE_OVERHEAD_BYTES + len(name)
            if size_bytes >= PART_BYTES or len(fields) > FILES_PER_CHUNK * _FIELDS_PER_FILE:
                yield cbor2.dumps(fields)
                fields, size_bytes = [FILES], 0
        if len(fields) > 1:
            yield cbor2.dumps(fields)

    def _files(self) -> Iterator[tuple[bytes, RawRecord]]:
        """The view's files one by one, in slices small enough to be quick."""
        while files := self._view.next_raw_slice(FILES_PER_SLICE):
            yield from files


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
    _pieces: list[bytes] = attrs.field(factory=list, init=False, repr=False)
    """The pieces whose file or upload hasn't come yet."""
    _last_name: bytes | None = attrs.field(default=None, init=False)
    _uploads_left: int = attrs.field(default=0, init=False)
    _ended: bool = attrs.field(default=False, init=False)

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk.

        Raises:
            BadSnapshot: it isn't one, or not one that can come here. The restore is of no more use.
        """
        kind, fields = _decode_chunk(chunk)
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
        sums = (len(table.records), table.content_bytes, table.digest, self._uploads_left, len(self._pieces))
        if sums != (state.files, state.content_bytes, state.digest, 0, 0):
            raise BadSnapshot("the sums in its header are others than those of its files")
        table.loaded()
        self._replace(state, table, self._uploads)

    def _take_header(self, fields: list[Any]) -> None:
        """The numbers, after which all else is checked."""
        format_version, version, clock_us, files, content_bytes, digest, uploads = fields
        if format_version != FORMAT:
            raise BadSnapshot(f"its format is {format_version}, and this program reads {FORMAT}")
        _require_numbers(version, clock_us, files, content_bytes, uploads)
        self._state = StoreState(version, clock_us, files, content_bytes, int(digest, 16), uploads)
        self._uploads_left = uploads

    def _take_pieces(self, fields: list[Any]) -> None:
        """Pieces for what comes next."""
        for piece in fields:
            if type(piece) is not bytes or not 0 < len(piece) <= PART_BYTES:
                raise BadSnapshot("a piece is none")
        self._pieces += fields

    def _take_upload(self, fields: list[Any]) -> None:
        """An upload, whose pieces have come."""
        session, upload, size, crc = fields
        if set(map(type, fields)) != {int} or sum(map(len, self._pieces)) != size or self._table.records:
            raise BadSnapshot("an upload isn't whole, or out of order")
        array("I", (crc,))
        self._uploads.restore(StagedUpload(session, upload, size, crc, tuple(self._pieces)))
        self._pieces = []
        self._uploads_left -= 1

    def _take_files(self, fields: list[Any]) -> None:
        """Files in order of name; the first of them may be the one whose pieces have come."""
        if len(fields) % _FIELDS_PER_FILE:
            raise BadSnapshot("a file isn't five fields")
        names, versions, deadlines, crcs, contents = (fields[start::_FIELDS_PER_FILE] for start in range(5))
        self._check_names(names)
        _require_numbers(*versions, *deadlines, *crcs)
        array("I", crcs)
        first, *others = contents
        if first == STAGED:
            first, first_size = self._take_rope()
        else:
            first_size = len(first)
        if self._pieces or type(first) not in (bytes, tuple) or not set(map(type, others)) <= {bytes}:
            raise BadSnapshot("a content is none")
        sizes = [first_size, *map(len, others)]
        # Plain tuples by zip, which makes no other object per file.
        self._table.load(names, list(zip(versions, deadlines, sizes, [first, *others], crcs, strict=True)))

    def _take_end(self, fields: list[Any]) -> None:
        """Nothing more is to come."""
        if fields:
            raise BadSnapshot("there is something in the end")
        self._ended = True

    def _check_names(self, names: list[Any]) -> None:
        """Names must be bytes that go up, within the chunk and from the one before."""
        if not set(map(type, names)) == {bytes}:
            raise BadSnapshot("a name is none")
        if self._last_name is not None and names[0] <= self._last_name:
            raise BadSnapshot("names out of order")
        if not all(left < right for left, right in pairwise(names)):
            raise BadSnapshot("names out of order")
        self._last_name = names[-1]

    def _take_rope(self) -> tuple[Content, int]:
        """The content that the pieces make, and its length."""
        pieces, self._pieces = self._pieces, []
        if len(pieces) < 2:
            raise BadSnapshot("a file's pieces are missing")
        return content_of(pieces), sum(map(len, pieces))


_TAKE_CHUNK: Final[dict[int, Callable[[StoreRestore, list[Any]], None]]] = {
    HEADER: StoreRestore._take_header,
    PIECES: StoreRestore._take_pieces,
    UPLOAD: StoreRestore._take_upload,
    FILES: StoreRestore._take_files,
    END: StoreRestore._take_end,
}
"""What takes each kind of chunk."""


def _require_numbers(*numbers: Any) -> None:
    """Raises TypeError or OverflowError for what isn't a number from 0 to 2**64 - 1, as a boolean isn't."""
    if set(map(type, numbers)) != {int}:
        raise TypeError("a number is none")
    array("Q", numbers)


def _decode_chunk(chunk: bytes) -> tuple[int, list[Any]]:
    """A chunk's kind and what follows it."""
    try:
        fields = cbor2.loads(chunk, max_depth=2, allow_indefinite=False)
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError) as error:
        raise BadSnapshot(f"a chunk is not CBOR: {error}") from error
    if type(fields) is not list or not fields or type(fields[0]) is not int:
        raise BadSnapshot("a chunk is no array with its kind")
    return fields[0], fields[1:]
