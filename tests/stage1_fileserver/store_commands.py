"""Commands in a line each, for the tests of the store."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import TypeAlias

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
    Result,
    encode_batch,
)
from fileserver.store import Store

Command: TypeAlias = tuple[int, bytes, int, int, ContentField]
SECOND_US = 1_000_000
"""A second in microseconds."""
MAX_FILE_BYTES = 1 << 26
"""The default limit of a content, as `append` is told."""


def write(name: bytes, content: ContentField = b"", exptime: int = 0) -> Command:
    return (WRITE, name, 0, exptime, content)


def cas(name: bytes, version: int, content: ContentField = b"", exptime: int = 0) -> Command:
    return (CAS, name, version, exptime, content)


def delete(name: bytes, version: int = ANY_VERSION) -> Command:
    return (DELETE, name, version, 0, b"")


def append(
    name: bytes, content: ContentField, exptime: int = KEEP_EXPTIME, max_file_bytes: int = MAX_FILE_BYTES
) -> Command:
    return (APPEND, name, max_file_bytes, exptime, content)


def touch(name: bytes, exptime: int) -> Command:
    return (TOUCH, name, 0, exptime, b"")


def part(upload: int, piece: bytes) -> Command:
    return (PART, b"", upload, 0, piece)


def drop(upload: int) -> Command:
    return (DROP, b"", upload, 0, b"")


def encode(*commands: Command) -> bytes:
    return encode_batch(list(chain.from_iterable(commands)))


def run(store: Store, *commands: Command, clock_us: int = 0, session: int = 1) -> list[Result]:
    """Apply the commands as one batch."""
    return store.apply(clock_us, session, encode(*commands))


STORE_CHUNKS_OF_FORMAT_1 = tuple(
    map(
        bytes.fromhex,
        (
            "880101041a000f424002034f63306134363831633565353366663801",
            "820246737461676564",
            "85030107061aac71efa3",
            "8b044162021a060523401a11ca8a664374776f416304000040",
            "8105",
        ),
    )
)
"""A snapshot that an earlier version made, of a store with two files and an upload."""


def restored(chunks: Iterable[bytes]) -> Store:
    """A new store, from a snapshot's chunks."""
    store = Store()
    restore = store.begin_restore()
    for chunk in chunks:
        restore.feed(chunk)
    restore.finish()
    return store


def content_of_file(store: Store, name: bytes) -> bytes | None:
    """The whole content in one piece; None without such a file."""
    record = store.lookup(name)
    if record is None:
        return None
    return record.content if isinstance(record.content, bytes) else b"".join(record.content)
