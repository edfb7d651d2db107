"""The versioned file store: what every server of a cluster keeps alike.

Theory of operation
    A store is a pure function of what is applied to it. There is no clock, no random number and no I/O in it: time
    comes in with each batch, as microseconds of the cluster clock, and the same batches in the same order lead to the
    same store on every server. :meth:`Store.apply` takes a batch through three steps:

    1. the clock moves on to the batch's stamp (never back),
    2. what is due by then expires, in order of deadline, each expiry being a change with a version of its own,
    3. the commands run in order (:mod:`fileserver.commands` says what each does).

    The rest is looking: :meth:`Store.lookup` for one file, :meth:`Store.view` for many at one instant,
    :meth:`Store.snapshot` for all there is.

    Its parts: :mod:`fileserver.file_table` (the files and their indexes), :mod:`fileserver.expiry` (deadlines),
    :mod:`fileserver.uploads` (pieces of big contents), :mod:`fileserver.records` (contents and checksums),
    :mod:`fileserver.listing` (views), :mod:`fileserver.snapshot` (the store as a row of chunks, and back).

Invariants
    Each write, cas, append, delete and expiry takes the next version, with no gaps; nothing else takes one. No file has
    a deadline at or before the clock. A refused command changes no file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Final

import attrs
from crc32c import crc32c

from fileserver.commands import (
    ANY_VERSION,
    APPEND,
    CAS,
    DELETE,
    DROP,
    KEEP_EXPTIME,
    PART,
    TOUCH,
    WRITE,
    ContentField,
    Name,
    Payload,
    Refusal,
    Result,
    decode_batch,
)
from fileserver.file_table import FileTable
from fileserver.listing import StoreView
from fileserver.records import PART_BYTES, RawRecord, Record, combine_crcs, crc_of, join_contents
from fileserver.snapshot import StoreRestore, StoreSnapshot, StoreState
from fileserver.uploads import MeasuredContent, Upload, Uploads

_MICROSECONDS: Final = 1_000_000


@attrs.define(eq=False)
class Store:
    """All files of a server, with their versions and deadlines. The attributes are for reading only."""

    version: int = attrs.field(default=0, init=False)
    """The last version given out; 0 for a new store."""
    clock_us: int = attrs.field(default=0, init=False)
    """The cluster clock as of the last thing applied, in microseconds."""
    _table: FileTable = attrs.field(factory=FileTable, init=False, repr=False)
    _uploads: Uploads = attrs.field(factory=Uploads, init=False, repr=False)

    # Changing it

    def apply(self, clock_us: int, session: int, payload: Payload) -> list[Result]:
        """Run a batch of commands.

        Args:
            clock_us: the batch's stamp on the cluster clock; one that lies back counts as the clock itself.
            session: whose uploads the batch's commands mean.
            payload: the batch, encoded as in :mod:`fileserver.commands`.

        Returns:
            A result for each command, in order.

        Raises:
            BadBatch: the payload is no batch; nothing was changed, not even the clock. All servers find so alike.
        """
        columns = decode_batch(payload)
        self.advance(clock_us)
        operations, names, _, exptimes, contents = columns
        if operations.count(WRITE) == len(operations) and not any(exptimes):
            sizes = _short_sizes(contents)
            if sizes is not None:
                first, self.version = self.version + 1, self.version + len(names)
                self._table.write_all(names, contents, sizes, first - 1)  # type: ignore[arg-type]
                return [*range(first, self.version + 1)]
        handlers = _HANDLERS
        return [
            handlers[operation](self, session, name, argument, exptime, content)
            for operation, name, argument, exptime, content in zip(*columns, strict=True)
        ]

    def advance(self, clock_us: int) -> None:
        """Let time pass without a command: what is due by ``clock_us`` expires."""
        if clock_us > self.clock_us:
            self.clock_us = clock_us
            self.version += self._table.expire(clock_us)

    def end_session(self, session: int) -> None:
        """Drop the pieces that a session has staged. Called when the log says that the session is over."""
        self._uploads.end_session(session)

    # Looking at it

    def lookup(self, name: Name) -> Record | None:
        """The file as it stands, or None. It may be past its deadline only on a clock ahead of `clock_us`."""
        record = self._table.records.get(name)
        return None if record is None else Record._make(record)

    @property
    def records(self) -> Mapping[Name, RawRecord]:
        """All files as they are kept at the moment, by name: to look them up there is quicker."""
        return self._table.records

    def view(self, prefix: Name = b"") -> StoreView:
        """The files whose names begin with ``prefix`` as they are now, read in slices while the store goes on."""
        view = StoreView(self._table, prefix)
        self._table.views.append(view)
        return view

    def next_deadline_us(self) -> int | None:
        """When the next file expires, in microseconds of the cluster clock; None when none does."""
        return self._table.deadlines.next_us

    @property
    def files(self) -> int:
        """How many files there are."""
        return len(self._table.records)

    def state_hash(self) -> str:
        """A hexadecimal digest of everything: equal on two stores if and only if (but for chance) they are equal.

        The part over the files is kept up to date change by change, so this takes microseconds however many there are.
        """
        text = f"{self.version} {self.clock_us} {self.files} {self.bytes} {self._table.digest:x}"
        for staged in self._uploads.staged():
            text += f" {staged.session}/{staged.upload}: {staged.size} {staged.crc}"
        return blake2b(text.encode(), digest_size=16).hexdigest()

    # The whole of it

    def snapshot(self) -> StoreSnapshot:
        """The store as it stands now, as an iterator of chunks that `begin_restore` takes.

        Chunks are made when asked for, from references: the store may change meanwhile. Whoever doesn't take them all
        must call the snapshot's ``close``.
        """
        uploads = tuple(self._uploads.staged())
        table = self._table
        state = StoreState(self.version, self.clock_us, self.files, table.content_bytes, table.digest, len(uploads))
        return StoreSnapshot(state, uploads, self.view())

    def begin_restore(self) -> StoreRestore:
        """A restore of this store from a snapshot's chunks. Until it is finished the store stays as it is."""
        return StoreRestore(self._replace)

    def _replace(self, state: StoreState, table: FileTable, uploads: Uploads) -> None:
        """Be what a snapshot says. Views that are open keep the old table, which nobody changes from here on."""
        self.version = state.version
        self.clock_us = state.clock_us
        self._table = table
        self._uploads = uploads

    # The commands. Each takes (session, name, argument, exptime, content), of which it uses what it needs.

    def _write(self, session: int, name: Name, argument: int, exptime: int, content: ContentField) -> Result:
        """Make the file this content, whether it was there or not."""
        measured = self._measure(session, content)
        if measured is None:
            return Refusal.UPLOAD_LOST, 0
        return self._put(name, self._deadline(exptime), measured)

    def _cas(self, session: int, name: Name, argument: int, exptime: int, content: ContentField) -> Result:
        """Write if the file has the version ``argument``; 0 stands for that there is no such file."""
        measured = self._measure(session, content)
        if measured is None:
            return Refusal.UPLOAD_LOST, 0
        old = self._table.records.get(name)
        if old is None:
            if argument != 0:
                return Refusal.NOT_FOUND, 0
        elif old[0] != argument:
            return Refusal.VERSION, old[0]
        return self._put(name, self._deadline(exptime), measured)

    def _delete(self, session: int, name: Name, argument: int, exptime: int, content: ContentField) -> Result:
        """Take the file away if it has the version ``argument``, or any if that is `ANY_VERSION`."""
        old = self._table.records.get(name)
        if old is None:
            return Refusal.NOT_FOUND, 0
        if argument not in (ANY_VERSION, old[0]):
            return Refusal.VERSION, old[0]
        self.version += 1
        self._table.remove(name)
        return 0

    def _append(self, session: int, name: Name, argument: int, exptime: int, content: ContentField) -> Result:
        """Add to the end of the file, which comes to at most ``argument`` bytes; a missing one is created."""
        measured = self._measure(session, content)
        if measured is None:
            return Refusal.UPLOAD_LOST, 0
        old = self._table.records.get(name)
        if (0 if old is None else old[2]) + measured[1] > argument:
            return Refusal.TOO_LARGE, 0 if old is None else old[0]
        deadline_us = self._deadline(exptime)
        if old is not None:
            measured = _appended(name, old, measured)
            if exptime == KEEP_EXPTIME:
                deadline_us = old[1]
        return self._put(name, deadline_us, measured)

    def _touch(self, session: int, name: Name, argument: int, exptime: int, content: ContentField) -> Result:
        """Give the file another expiry. That is no change of version."""
        old = self._table.records.get(name)
        if old is None:
            return Refusal.NOT_FOUND, 0
        version, _, size, stored, _ = old
        self._table.put(name, version, self._deadline(exptime), size, stored, crc_of(name, old))
        return version

    def _part(self, session: int, name: Name, argument: int, exptime: int, content: ContentField) -> Result:
        """Stage the next piece of the upload ``argument``."""
        if isinstance(content, bytes):
            # A batch may say true for 1, and a snapshot would keep it so, and not be accepted.
            self._uploads.add(session, int(argument), content)
        return 0

    def _drop(self, session: int, name: Name, argument: int, exptime: int, content: ContentField) -> Result:
        """Forget the upload ``argument``."""
        self._uploads.take(session, argument)
        return 0

    def _measure(self, session: int, content: ContentField) -> MeasuredContent | None:
        """A command's content, from its upload if it has one; None if that is not there."""
        if isinstance(content, int):
            return self._uploads.take(session, content)
        if len(content) <= PART_BYTES:
            return content, len(content), crc32c(content)
        upload = Upload()
        upload.add(content)
        return upload.measured()

    def _deadline(self, exptime: int) -> int:
        """The deadline in microseconds of a file whose expiry is set now; 0 for never."""
        return self.clock_us + exptime * _MICROSECONDS if exptime > 0 else 0

    def _put(self, name: Name, deadline_us: int, measured: MeasuredContent) -> int:
        """Make the file so under the next version, which is returned."""
        self.version = version = self.version + 1
        content, size, crc = measured
        self._table.put(name, version, deadline_us, size, content, crc)
        return version

    # Last in the class, since from here on the name hides the built-in one.
    @property
    def bytes(self) -> int:
        """The sum of the lengths of all contents."""
        return self._table.content_bytes


def _short_sizes(contents: Sequence[ContentField]) -> list[int] | None:
    """The contents' sizes; None if any is longer than one piece, or the number of an upload."""
    try:
        sizes = list(map(len, contents))  # type: ignore[arg-type]
    except TypeError:
        return None
    return sizes if not sizes or max(sizes) <= PART_BYTES else None


def _appended(name: Name, old: RawRecord, measured: MeasuredContent) -> MeasuredContent:
    """The content of a file with another one behind it."""
    content, size, crc = measured
    _, _, old_size, old_content, _ = old
    old_crc = crc_of(name, old)
    if isinstance(content, bytes):
        crc = crc32c(content, old_crc)
    else:
        crc = combine_crcs(old_crc, crc, size)
    return join_contents(old_content, content), old_size + size, crc


_HANDLERS: Final[dict[int, Callable[[Store, int, Name, int, int, ContentField], Result]]] = {
    WRITE: Store._write,
    CAS: Store._cas,
    DELETE: Store._delete,
    APPEND: Store._append,
    TOUCH: Store._touch,
    PART: Store._part,
    DROP: Store._drop,
}
"""What runs each operation, by its number."""
